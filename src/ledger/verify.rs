//! Replaying a whole log against every promise it makes, without changing a byte; also beside a running server.
//!
//! Beside a writer it sees some prefix of the log that was durable or was just being written: a batch that looks bad is looked at
//! again before it is called so.
use super::batch::for_each_entry;
use super::books::{AccountBooks, AssetTotals, Books};
use super::disk::DiskStorage;
use super::layout::Fault;
use super::scan::{segments, Scan, Seen, SeenBatch, Segments, Torn};
use super::snapshot::{snapshot_name, snapshots, Snapshot, SnapshotFault};
use super::storage::{segment_name, segment_number, ReadFile, Storage, StorageFile};
use super::verify_snapshots::Comparison;
use super::witness::known_mark;
use super::LedgerError;
use crate::domain::{Entry, Found, LogId, Root, Seq};
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
    /// How far the reading has come, in bytes of all segments.
    pub bytes: u64,
    /// Bytes of all segments when the verification began.
    pub bytes_all: u64,
}

/// Batches between two reports of progress.
const BATCHES_PER_REPORT: u64 = 256;
/// Entries whose accounts the books look for side by side.
const GROUP_ENTRIES: usize = 16;

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
    /// How many entries were read.
    pub entries: u64,
    /// The last entry.
    pub head: Seq,
    /// Chain hash after it.
    pub root: Root,
    /// How many accounts have ever been named.
    pub accounts: u64,
    /// The last entry of the snapshot that stands in for archived segments; 0 if all of the log was read.
    pub archived_through: Seq,
    /// The totals per asset.
    pub assets: Vec<AssetTotals>,
    /// The remains of an interrupted write, which the next opening will clear away.
    pub torn: Option<Torn>,
}

/// The first thing that is wrong.
#[derive(Debug)]
pub struct Refuted {
    /// What it is and where.
    pub fault: LedgerError,
    /// The entry that breaks a rule, if it is the books that say no.
    pub suspect: Option<Box<Suspect>>,
    /// Entries that were verified before it, of whole batches.
    pub entries: u64,
}

/// An intact entry that breaks a rule of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The log.
    pub log_id: LogId,
    /// The entry and its place.
    pub found: Found,
    /// The accounts that it names as they were before it, the debited one first. One that was never named before may be missing.
    pub accounts: Vec<AccountBooks>,
}

impl std::fmt::Display for Refuted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Refuted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.source()
    }
}

impl From<LedgerError> for Refuted {
    fn from(fault: LedgerError) -> Self {
        Self { fault, suspect: None, entries: 0 }
    }
}

/// Verifies the ledger in a directory; see [`verify`].
pub fn verify_directory(directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
    let storage = DiskStorage::read_only(directory)
        .map_err(LedgerError::io(directory.display().to_string(), "open the ledger for reading"))?;
    verify(&storage, progress)
}

/// Checks chain, density, hashes and the books of the whole log. The error is the first thing that is wrong.
pub fn verify<S: Storage>(storage: &S, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
    let place = storage.place("");
    // The mark first: a writer may begin a segment meanwhile, and the mark must not know of one that the list has not.
    let mark = known_mark(storage)?;
    let names = storage.list().map_err(LedgerError::io(place.as_str(), "list the directory"))?;
    let base = oldest_if_needed(storage, &names)?;
    let start = base.as_ref().map(Snapshot::start);
    let Some(segments) = segments(storage, &names, mark, start.as_ref())? else {
        return Err(LedgerError::Incomplete { place, what: "there is no ledger here: no segment file".into() }.into());
    };
    let first = *segments.start();
    let sizes = sizes(storage, segments.clone())?;
    let mut auditor = Auditor { books: Books::new(seeds()), log_id: LogId::default(), suspect: None };
    if let Some(base) = &base {
        begin(&mut auditor.books, base).map_err(|fault| LedgerError::Incomplete { place: fault.file, what: fault.what })?;
    }
    let mut comparison = Comparison::begin(storage, &names, base.as_ref())?;
    let mut now = Progress { segment: 0, segments: *segments.end(), entries: 0, bytes: 0, bytes_all: sizes.iter().sum() };
    let mut bytes_before = 0;
    let mut batches = 0u64;
    let scanned = Scan { storage, segments, mark, start, sync: false, patient: true }.run(&mut |seen| {
        match seen {
            Seen::Segment(header) => {
                auditor.log_id = header.log_id;
                now.segment = header.index;
                bytes_before = sizes.iter().take((header.index - first) as usize).sum();
                now.bytes = bytes_before;
                progress(now);
            }
            Seen::Batch(batch) => {
                auditor.audit(&batch)?;
                comparison.follow(&batch);
                now.entries += u64::from(batch.header.entries);
                now.bytes = bytes_before + batch.place.offset + batch.header.extent_bytes();
                batches += 1;
                if batches % BATCHES_PER_REPORT == 0 {
                    progress(now);
                }
            }
        }
        Ok(())
    });
    let Auditor { books, suspect, .. } = auditor;
    let end = scanned.map_err(|fault| Refuted { fault, suspect, entries: now.entries })?;
    comparison.end().map_err(|fault| Refuted { fault, suspect: None, entries: now.entries })?;
    let accounts = books.accounts();
    let assets = books.close().map_err(|what| LedgerError::Broken {
        file: storage.place(&segment_name(end.segments)),
        offset: end.offset,
        seq: end.head,
        what,
    })?;
    Ok(Report {
        archived_through: start.map_or(Seq(0), |start| start.seq),
        log_id: end.log_id,
        epoch: end.epoch.max(mark.map_or(0, |mark| mark.epoch)),
        segments: end.segments,
        batches: end.batches,
        entries: now.entries,
        head: end.head,
        root: end.root,
        accounts,
        assets,
        torn: end.torn,
    })
}

/// The oldest snapshot, if there is one and the log does not begin with its first segment any more.
fn oldest_if_needed<S: Storage>(storage: &S, names: &[String]) -> Result<Option<Snapshot<S::File>>, LedgerError> {
    let first = names.iter().filter_map(|name| segment_number(name)).min();
    let oldest = snapshots(names).last().copied().filter(|_| first.is_some_and(|first| first > 1));
    let opened = oldest.map(|seq| Snapshot::open(storage, &snapshot_name(seq))).transpose();
    opened.map_err(|fault| LedgerError::Incomplete { place: fault.file, what: fault.what })
}

/// The books as a snapshot has them, which is read as a whole.
fn begin<F: StorageFile>(books: &mut Books, snapshot: &Snapshot<F>) -> Result<(), SnapshotFault> {
    for sums in &snapshot.front().assets {
        books.begin_asset(&sums.asset, sums.issued, sums.burned);
    }
    snapshot.for_each_account(&mut |state| {
        books.begin_account(state);
        Ok(())
    })?;
    snapshot.for_each_key(&mut |_| ())
}

/// The size of each segment file, in bytes.
fn sizes<S: Storage>(storage: &S, segments: Segments) -> Result<Vec<u64>, LedgerError> {
    let size = |index| {
        let name = segment_name(index);
        let size = storage.open(&name).and_then(|file| file.size());
        size.map_err(LedgerError::io(storage.place(&name), "look at the segment"))
    };
    segments.map(size).collect()
}

/// What keys the table of accounts; names that make it slow cannot be chosen ahead.
fn seeds() -> [u64; 4] {
    let mut bytes = [[0; 8]; 4];
    for seed in &mut bytes {
        getrandom::fill(seed).expect("the operating system has randomness from its start on");
    }
    bytes.map(u64::from_le_bytes)
}

/// A batch that cannot be taken apart, or an entry that the books refuse.
enum Unfit<'a> {
    Fault(Fault),
    Entry(Seq, Entry<'a>, String),
}

impl From<Fault> for Unfit<'_> {
    fn from(fault: Fault) -> Self {
        Unfit::Fault(fault)
    }
}

/// Enters batch after batch into the books, and keeps what is to be known of the entry that they refuse.
struct Auditor {
    books: Books,
    log_id: LogId,
    suspect: Option<Box<Suspect>>,
}

impl Auditor {
    fn audit(&mut self, batch: &SeenBatch<'_>) -> Result<(), LedgerError> {
        let (file, offset) = (batch.file.to_string(), batch.place.offset);
        self.enter(batch).map_err(|unfit| match unfit {
            Unfit::Fault(fault) => {
                LedgerError::Damaged { file, offset, expected: batch.header.first_seq, what: fault.to_string() }
            }
            Unfit::Entry(seq, entry, what) => {
                self.suspect = Some(Box::new(self.describe(seq, &entry, &batch.root)));
                LedgerError::Broken { file, offset, seq, what }
            }
        })
    }

    fn enter<'a>(&mut self, batch: &SeenBatch<'a>) -> Result<(), Unfit<'a>> {
        let mut group = Vec::with_capacity(GROUP_ENTRIES);
        let mut next = batch.header.first_seq;
        for_each_entry(&batch.header, batch.body, |_, entry| {
            group.push(entry);
            if group.len() == GROUP_ENTRIES {
                next = self.apply(&group, next)?;
                group.clear();
            }
            Ok::<(), Unfit<'a>>(())
        })?;
        self.apply(&group, next)?;
        Ok(())
    }

    /// Applies neighbours, and returns the number of the entry after them.
    fn apply<'a>(&mut self, group: &[Entry<'a>], first: Seq) -> Result<Seq, Unfit<'a>> {
        self.books.expect(group);
        let mut seq = first;
        for entry in group {
            self.books.apply(entry).map_err(|what| Unfit::Entry(seq, *entry, what))?;
            seq = Seq(seq.0 + 1);
        }
        Ok(seq)
    }

    fn describe(&self, seq: Seq, entry: &Entry<'_>, root: &Root) -> Suspect {
        let named = [entry.from(), entry.to()].into_iter().flatten();
        let accounts = named.filter_map(|name| self.books.account(name.as_str())).collect();
        Suspect { log_id: self.log_id, found: Found { entry: entry.bytes().into(), seq, root: *root }, accounts }
    }
}
