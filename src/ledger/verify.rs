//! Replaying a whole log against every promise it makes, without changing a byte; also beside a running server.
//!
//! Beside a writer it sees some prefix of the log that was durable or was just being written: a batch that looks bad is looked at
//! again before it is called so.
use super::books::{AssetTotals, Books};
use super::disk::DiskStorage;
use super::mark::Mark;
use super::recovery::entries_of;
use super::scan::{segments, Scan, Seen, Torn};
use super::storage::{segment_name, Storage};
use super::LedgerError;
use crate::domain::{LogId, Root, Seq};
use std::path::Path;

/// How far a verification has come; told once per segment and once per so many batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The segment that is being read.
    pub segment: u64,
    /// How many segments there are.
    pub segments: u64,
    /// Entries verified so far.
    pub entries: u64,
}

/// Batches between two reports of progress.
const BATCHES_PER_REPORT: u64 = 256;

/// A log that keeps all its promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The identity of the log.
    pub log_id: LogId,
    /// The last opening that wrote something, or was noted in the file `epoch`.
    pub epoch: u64,
    /// How many segments there are.
    pub segments: u64,
    /// How many batches.
    pub batches: u64,
    /// How many entries.
    pub entries: u64,
    /// The last entry.
    pub head: Seq,
    /// Chain hash after it.
    pub root: Root,
    /// How many accounts have ever been named.
    pub accounts: u64,
    /// The totals per asset.
    pub assets: Vec<AssetTotals>,
    /// The remains of an interrupted write, which the next opening will clear away.
    pub torn: Option<Torn>,
}

/// Verifies the ledger in a directory; see [`verify`].
pub fn verify_directory(directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, LedgerError> {
    let storage = DiskStorage::read_only(directory)
        .map_err(LedgerError::io(directory.display().to_string(), "open the ledger for reading"))?;
    verify(&storage, progress)
}

/// Checks chain, density, hashes and the books of the whole log. The error is the first thing that is wrong.
pub fn verify<S: Storage>(storage: &S, progress: &mut dyn FnMut(Progress)) -> Result<Report, LedgerError> {
    let place = storage.place("");
    // The mark first: a writer may begin a segment meanwhile, and the mark must not know of one that the list has not.
    let mark = Mark::read(storage)?;
    let names = storage.list().map_err(LedgerError::io(place.as_str(), "list the directory"))?;
    let Some(segments) = segments(storage, &names, mark, None)? else {
        return Err(LedgerError::Incomplete { place, what: "there is no ledger here: no segment file".into() });
    };
    let mut books = Books::default();
    let mut now = Progress { segment: 0, segments: *segments.end(), entries: 0 };
    let mut batches = 0u64;
    let end = Scan { storage, segments, mark, start: None, sync: false, patient: true }.run(&mut |seen| {
        match seen {
            Seen::Segment(header) => {
                now.segment = header.index;
                progress(now);
            }
            Seen::Batch(batch) => {
                entries_of(&batch, &mut |_, _, entry| books.apply(&entry))?;
                now.entries += u64::from(batch.header.entries);
                batches += 1;
                if batches % BATCHES_PER_REPORT == 0 {
                    progress(now);
                }
            }
        }
        Ok(())
    })?;
    let accounts = books.accounts();
    let assets = books.close().map_err(|what| LedgerError::Broken {
        file: storage.place(&segment_name(end.segments)),
        offset: end.offset,
        seq: end.head,
        what,
    })?;
    Ok(Report {
        log_id: end.log_id,
        epoch: end.epoch.max(mark.map_or(0, |mark| mark.epoch)),
        segments: end.segments,
        batches: end.batches,
        entries: end.head.0,
        head: end.head,
        root: end.root,
        accounts,
        assets,
        torn: end.torn,
    })
}
