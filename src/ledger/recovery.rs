//! Opening a log for writing: take the lock, read and check everything, clear away an interrupted write.
//!
//! Invariants: nothing is changed before everything has been read and found good; an epoch is durable before its first append.
use super::audit::Findings;
use super::batch::for_each_entry;
use super::engine::Engine;
use super::layout::{Fault, SegmentHeader, BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use super::log::{link_segment, Active, Log, Options, Shared};
use super::mark::Mark;
use super::places::{Place, Places};
use super::scan::{log_of, segments, End, Scan, Seen, SeenBatch, Start, Torn};
use super::snapshot::{newest_whole, Snapshot};
use super::spares::{Attempts, Spares};
use super::stats::StatsCell;
use super::storage::{segment_name, ReadFile, Storage, StorageFile, TEMPORARY_SUFFIX};
use super::witness::{known_mark, Witness};
use super::LedgerError;
use crate::domain::{Entry, LogId, Root, Seq};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};

/// What was found when a log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How many entries there are.
    pub entries: u64,
    /// How many batches.
    pub batches: u64,
    /// The last entry; 0 in a new log.
    pub head: Seq,
    /// Chain hash after it.
    pub root: Root,
    /// The identity of the log.
    pub log_id: LogId,
    /// The newest tenure, that of this opening if it took one; every batch written from now on carries it.
    pub epoch: u64,
    /// What an interrupted write had left and was cleared away; nothing of it had been acknowledged.
    pub torn: Option<Torn>,
}

/// An open log, what was found, and the snapshot behind which it was read, if there was one.
pub type Recovered<S> = (Log<S>, Recovery, Option<Snapshot<<S as Storage>::File>>);

/// A batch that is intact and still cannot be read, or an entry that its receiver refuses.
pub(super) enum Unfit {
    Fault(Fault),
    Entry(Seq, String),
}

impl From<Fault> for Unfit {
    fn from(fault: Fault) -> Self {
        Unfit::Fault(fault)
    }
}

/// Takes a scanned batch apart; a receiver's refusal becomes an error that names the entry.
pub(crate) fn entries_of(
    batch: &SeenBatch<'_>,
    each: &mut dyn FnMut(Seq, &Root, Entry<'_>) -> Result<(), String>,
) -> Result<(), LedgerError> {
    let (file, offset) = (batch.file.to_string(), batch.place.offset);
    for_each_entry(&batch.header, batch.body, |seq, entry| each(seq, &batch.root, entry).map_err(|what| Unfit::Entry(seq, what)))
        .map_err(|unfit| match unfit {
            Unfit::Fault(fault) => {
                LedgerError::Damaged { file, offset, expected: batch.header.first_seq, what: fault.to_string() }
            }
            Unfit::Entry(seq, what) => LedgerError::Broken { file, offset, seq, what },
        })
}

impl<S: Storage> Log<S> {
    /// As [`Log::recover`], and takes a new epoch.
    ///
    /// # Errors
    /// If the log cannot be recovered, or the new epoch not be written.
    pub fn open(
        storage: S,
        options: &Options,
        on_entry: &mut dyn FnMut(Seq, &Root, Entry<'_>) -> Result<(), String>,
    ) -> Result<(Self, Recovery), LedgerError> {
        Self::open_behind(storage, options, None, &mut |batch| entries_of(batch, on_entry))
    }

    /// As [`Log::open`], for a caller who has taken over the state of a snapshot, if there is one: hands over what stands behind it.
    ///
    /// # Errors
    /// As [`Log::open`]; and if the log does not reach the last entry of the snapshot, or has another one there.
    pub fn open_after(
        storage: S,
        options: &Options,
        snapshot: Option<&Snapshot<S::File>>,
        on_entry: &mut dyn FnMut(Seq, &Root, Entry<'_>) -> Result<(), String>,
    ) -> Result<(Self, Recovery), LedgerError> {
        Self::open_behind(storage, options, snapshot.map(Snapshot::start), &mut |batch| entries_of(batch, on_entry))
    }

    /// As [`Log::open`], from the batch on that follows `start`: a snapshot has what comes before. Hands over whole batches.
    pub(crate) fn open_behind(
        storage: S,
        options: &Options,
        start: Option<Start>,
        on_batch: &mut dyn FnMut(&SeenBatch<'_>) -> Result<(), LedgerError>,
    ) -> Result<(Self, Recovery), LedgerError> {
        let (mut log, mut recovery) = Self::recover_behind(storage, options, start, on_batch)?;
        recovery.epoch = log.acquire(None)?.epoch;
        Ok((log, recovery))
    }

    /// Opens the log in this directory, or makes a new one if the directory has none. It has the epoch that it had; a writer
    /// that has it may go on, everybody else calls [`Engine::acquire`]. Hands every entry to `on_entry`, in order
    /// and with the chain hash of its batch, so that the caller can rebuild its state; what that refuses ends the opening.
    ///
    /// # Errors
    /// If the ledger is in use, cannot be read, or is damaged.
    pub fn recover(
        storage: S,
        options: &Options,
        on_entry: &mut dyn FnMut(Seq, &Root, Entry<'_>) -> Result<(), String>,
    ) -> Result<(Self, Recovery), LedgerError> {
        Self::recover_behind(storage, options, None, &mut |batch| entries_of(batch, on_entry))
    }

    /// As [`Log::recover`], from the newest good snapshot on; returns that as well. `look` is called before each entry, and with entry 0
    /// now and then while the snapshot is read; it may end the opening, which has changed nothing by then but what every opening does first:
    /// temporary files are gone, and a new ledger has its first segment.
    ///
    /// # Errors
    /// As there, or if snapshots cannot be looked for; and if `look` errs.
    pub fn recover_from_snapshot(
        storage: S,
        options: &Options,
        look: &mut dyn FnMut(Seq) -> Result<(), String>,
    ) -> Result<Recovered<S>, LedgerError> {
        let snapshot = newest_whole(&storage, log_of(&storage), Seq(u64::MAX), &|_| Ok(true), &mut || look(Seq(0)))?;
        let start = snapshot.as_ref().map(Snapshot::start);
        let (log, recovery) =
            Self::recover_behind(storage, options, start, &mut |batch| entries_of(batch, &mut |seq, _, _| look(seq)))?;
        Ok((log, recovery, snapshot))
    }

    fn recover_behind(
        storage: S,
        options: &Options,
        start: Option<Start>,
        on_batch: &mut dyn FnMut(&SeenBatch<'_>) -> Result<(), LedgerError>,
    ) -> Result<(Self, Recovery), LedgerError> {
        let directory = storage.place("");
        let lock = storage
            .lock()
            .map_err(LedgerError::io(directory.as_str(), "lock the ledger"))?
            .ok_or_else(|| LedgerError::InUse { place: directory.clone() })?;
        storage.sync_directory().map_err(LedgerError::io(directory.as_str(), "sync the directory"))?;
        let names = storage.list().map_err(LedgerError::io(directory.as_str(), "list the directory"))?;
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY_SUFFIX)) {
            storage.remove(name).map_err(LedgerError::io(storage.place(name), "remove a temporary file"))?;
        }
        let mark = known_mark(&storage)?;
        let attempts = Arc::new(Attempts::default());
        let mut spares = Spares::inline(storage.clone(), options.segment_bytes, Arc::clone(&attempts));
        let segments = match segments(&storage, &names, mark, start.as_ref())? {
            Some(segments) => segments,
            None => {
                create_first(&storage, options, mark, start, &mut spares)?;
                1..=1
            }
        };
        let mut places = Places::default();
        let scan = Scan { storage: &storage, segments, mark, start, sync: true, patient: false };
        let end = scan.run(&mut |seen| match seen {
            Seen::Segment(header) => {
                let first = Place { segment: header.index, offset: SEGMENT_HEAD_BYTES, first_seq: header.first_seq };
                places.note_segment(first, header.segment_bytes);
                Ok(())
            }
            Seen::Batch(batch) => {
                places.note_batch(batch.place);
                on_batch(&batch)
            }
        })?;
        if mark.is_none() && end.head > Seq(0) {
            tracing::warn!(
                event = "marks_missing", %directory,
                "the files `epoch` and `witness` are missing; a loss of the last entries would not be noticed this time"
            );
        }
        let file = settle_tail(&storage, &end)?;
        let mut witness = Witness::open(&storage)?;
        let epoch = mark.map_or(0, |mark| mark.epoch).max(end.epoch);
        if mark.map_or(Seq(0), |mark| mark.head) < end.head {
            // What was read is durable now, and whoever goes on with the same epoch notes nothing else.
            witness.note(&Mark { log_id: end.log_id, epoch, head: end.head, root: end.root, segment: end.segments });
        }
        let shared = Arc::new(Shared {
            storage,
            log_id: end.log_id,
            head: AtomicU64::new(end.head.0),
            places: RwLock::new(places),
            nearly_full: AtomicBool::new(false),
            half_full: AtomicBool::new(false),
            attempts,
            stats: StatsCell::default(),
            findings: Findings::default(),
        });
        let log = Self {
            shared,
            active: Active { file, index: end.segments, segment_bytes: end.segment_bytes, offset: end.offset },
            head: end.head,
            root: end.root,
            epoch,
            segment_bytes: options.segment_bytes,
            buffer: Vec::new(),
            failed: false,
            marked: false,
            noted: end.head,
            witness,
            spares: Some(spares),
            _lock: lock,
        };
        log.note_room();
        let End { batches, head, root, log_id, torn, .. } = end;
        Ok((log, Recovery { entries: head.0, batches, head, root, log_id, epoch, torn }))
    }
}

/// Where there is no segment: errs if there has been one. The file `epoch` is written after the first one.
pub(super) fn refuse_lost_segments<S: Storage>(storage: &S, mark: Option<Mark>, start: Option<Start>) -> Result<(), LedgerError> {
    let Some(known) = mark.map(|mark| mark.head).max(start.map(|start| start.seq)) else { return Ok(()) };
    let what = format!("there is no segment, although the ledger has had {} entries", known.0);
    Err(LedgerError::Incomplete { place: storage.place(""), what })
}

/// Errs if there is no ledger or no start would open it: reads what one reads behind this snapshot. Without one only names and the mark
/// are looked at, not the log.
pub(super) fn check_opens<S: Storage>(storage: &S, start: Option<Start>) -> Result<(), LedgerError> {
    let mark = known_mark(storage)?;
    let names = storage.list().map_err(LedgerError::io(storage.place(""), "list the directory"))?;
    let Some(segments) = segments(storage, &names, mark, start.as_ref())? else {
        refuse_lost_segments(storage, mark, start)?;
        return Err(LedgerError::no_ledger(storage.place("")));
    };
    if start.is_some() {
        Scan { storage, segments, mark, start, sync: false, patient: false }.run(&mut |_| Ok(()))?;
    }
    Ok(())
}

/// Makes the first segment.
fn create_first<S: Storage>(
    storage: &S,
    options: &Options,
    mark: Option<Mark>,
    start: Option<Start>,
    spares: &mut Spares<S>,
) -> Result<(), LedgerError> {
    refuse_lost_segments(storage, mark, start)?;
    let spare = spares.take().map_err(LedgerError::io(storage.place(""), "allocate the first segment"))?;
    let (log_id, segment_bytes) = (options.new_log_id, options.segment_bytes);
    link_segment(storage, &spare, &SegmentHeader { log_id, index: 1, segment_bytes, first_seq: Seq(1), prev: [0; 32] })
}

/// Opens the last segment for writing, with nothing but zeros behind its last batch.
fn settle_tail<S: Storage>(storage: &S, end: &End) -> Result<S::File, LedgerError> {
    let name = segment_name(end.segments);
    let place = storage.place(&name);
    let file = storage.open(&name).map_err(LedgerError::io(place.as_str(), "open the segment"))?;
    let size = file.size().map_err(LedgerError::io(place.as_str(), "look at the segment"))?;
    if let Some(torn) = &end.torn {
        tracing::warn!(
            event = "torn_tail", file = %torn.file, offset = torn.offset, bytes = torn.bytes, expected = end.head.0 + 1,
            "an interrupted write, never acknowledged, is cleared away"
        );
    }
    let torn_end = end.torn.as_ref().map_or(end.offset, |torn| torn.offset + torn.bytes);
    // A file that was cut short gets its zeros back; the remains of an interrupted write lie within what there is of it.
    let dirty = [(end.offset, torn_end), (size, end.segment_bytes)];
    let zeros = vec![0; 256 * BLOCK_BYTES];
    let mut changed = false;
    for (mut from, to) in dirty {
        while from < to {
            let chunk = zeros.len().min((to - from) as usize);
            file.write_at(&zeros[..chunk], from).map_err(LedgerError::io(place.as_str(), "clear the tail of the segment"))?;
            from += chunk as u64;
            changed = true;
        }
    }
    if changed {
        file.sync().map_err(LedgerError::io(place.as_str(), "sync the cleared tail of the segment"))?;
    }
    Ok(file)
}
