//! Copies of a ledger's state: a snapshot of all that is durable into a file elsewhere, and a ledger that goes on from such a file.
//!
//! Invariants: making a copy changes nothing in the ledger and may be done beside its writer; a restored ledger has the identity and
//! the chain of the one that was copied, and takes its first batch in a segment of its own. What was in the segments before the copy is
//! not in it: repeats, receipts and proofs of old entries need those segments as well.
use super::audit::apply;
use super::layout::SegmentHeader;
use super::log::link_segment;
use super::mark::Mark;
use super::scan::{segments, Scan, Seen};
use super::snapshot::{make, newest_good, snapshot_name, Cut, Snapshot, SnapshotError, SnapshotFault, Tail};
use super::spares::{Attempts, Spares};
use super::storage::{segment_number, Storage};
use super::LedgerError;
use crate::domain::{Seq, UnixMs};
use ahash::RandomState;
use std::sync::Arc;

/// Why there is no copy, or no restored ledger.
#[derive(Debug)]
pub enum BackupError {
    /// The ledger cannot be read, or not be made.
    Ledger(LedgerError),
    /// The snapshot cannot be made.
    Snapshot(SnapshotError),
    /// The place is not one where this can be done; the text says why and what to do.
    Place(String),
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackupError::Ledger(error) => error.fmt(f),
            BackupError::Snapshot(error) => error.fmt(f),
            BackupError::Place(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<LedgerError> for BackupError {
    fn from(error: LedgerError) -> Self {
        BackupError::Ledger(error)
    }
}

impl From<SnapshotError> for BackupError {
    fn from(error: SnapshotError) -> Self {
        BackupError::Snapshot(error)
    }
}

impl From<SnapshotFault> for BackupError {
    fn from(fault: SnapshotFault) -> Self {
        BackupError::Snapshot(fault.into())
    }
}

/// Makes a snapshot of everything in a ledger into another directory, under this name: from the newest good snapshot and what follows
/// it. `progress` is told the last entry that was read, now and then.
pub fn back_up<S: Storage, T: Storage>(
    ledger: &S,
    target: &T,
    name: &str,
    progress: &mut dyn FnMut(Seq),
) -> Result<Snapshot<T::File>, BackupError> {
    let mut newest = Seq(u64::MAX);
    loop {
        let base = newest_good(ledger, None, newest).map_err(LedgerError::io(ledger.place(""), "look for snapshots"))?;
        let (tail, cut) = read_behind(ledger, base.as_ref(), progress)?;
        match (make::<T, S>(target, name, base.as_ref(), &tail, &cut, None), base) {
            // Only reading all of it shows whether the last snapshot is good; the one before it is.
            (Err(SnapshotError::Fault(fault)), Some(base)) if fault.file == base.place() => {
                tracing::warn!(%fault, "the snapshot before it is used");
                newest = Seq(base.head().seq.0 - 1);
            }
            (made, _) => return Ok(made?),
        }
    }
}

/// What the entries behind a snapshot have done, up to the end of what is there.
fn read_behind<S: Storage>(
    ledger: &S,
    base: Option<&Snapshot<S::File>>,
    progress: &mut dyn FnMut(Seq),
) -> Result<(Tail, Cut), BackupError> {
    // The mark first: a writer may begin a segment meanwhile, and the mark must not know of one that the list has not.
    let mark = Mark::read(ledger)?;
    let names = ledger.list().map_err(LedgerError::io(ledger.place(""), "list the directory"))?;
    let start = base.map(Snapshot::start);
    let Some(segments) = segments(ledger, &names, mark, start.as_ref())? else {
        let what = "there is no ledger here: no segment file".to_owned();
        return Err(LedgerError::Incomplete { place: ledger.place(""), what }.into());
    };
    let hasher = RandomState::new();
    let mut tail = match base {
        Some(base) => Tail::new(base.head().seq, base.head().newest, base.front().assets.clone(), hasher),
        None => Tail::new(Seq(0), UnixMs(0), Vec::new(), hasher),
    };
    let mut cut = base.map_or_else(|| Cut::beginning(Default::default()), |base| Cut::at(&base.start()));
    Scan { storage: ledger, segments, mark, start, sync: false, patient: true }.run(&mut |seen| {
        match seen {
            Seen::Segment(header) => cut.log_id = header.log_id,
            Seen::Batch(batch) => {
                let (file, offset, seq) = (batch.file.to_owned(), batch.place.offset, batch.header.first_seq);
                apply(&mut tail, &batch)?.map_err(|what| LedgerError::Broken { file, offset, seq, what })?;
                cut.follow(&batch);
                progress(tail.through());
            }
        }
        Ok(())
    })?;
    if tail.through() == Seq(0) {
        return Err(BackupError::Place("the ledger has no entry yet; there is nothing to copy".into()));
    }
    Ok((tail, cut))
}

/// Makes a ledger in a directory that has none, which goes on from this snapshot. `segment_bytes` is the size of its first segment.
pub fn restore<S: Storage, T: Storage>(
    source: &T,
    name: &str,
    ledger: &S,
    segment_bytes: u64,
) -> Result<Snapshot<S::File>, BackupError> {
    let copy = Snapshot::open(source, name)?;
    let place = ledger.place("");
    let lock = ledger.lock().map_err(LedgerError::io(place.as_str(), "lock the ledger"))?;
    let _lock = lock.ok_or_else(|| LedgerError::InUse { place: place.clone() })?;
    let names = ledger.list().map_err(LedgerError::io(place.as_str(), "list the directory"))?;
    let used = names.iter().find(|name| segment_number(name).is_some() || *name == super::mark::EPOCH_NAME);
    if let Some(used) = used {
        return Err(BackupError::Place(format!(
            "{place} has a ledger already: {used}; nothing was changed; move it aside, or name another directory with --dir"
        )));
    }
    // Read, checked and written anew rather than copied: what is not whole does not become a ledger.
    let tail = Tail::new(copy.head().seq, copy.head().newest, copy.front().assets.clone(), RandomState::new());
    let restored = make::<S, T>(ledger, &snapshot_name(copy.head().seq), Some(&copy), &tail, &Cut::at(&copy.start()), None)?;
    if restored.head().digest != copy.head().digest {
        return Err(BackupError::Place(format!("{} is not what its digest says; nothing is to be built on it", copy.place())));
    }
    let start = copy.start();
    let index = start.last_batch.segment + 1;
    let header = SegmentHeader { log_id: start.log_id, index, segment_bytes, first_seq: Seq(start.seq.0 + 1), prev: start.root };
    let mut spares = Spares::inline(ledger.clone(), segment_bytes, Arc::new(Attempts::default()));
    let spare = spares.take().map_err(LedgerError::io(place, "allocate the first segment"))?;
    link_segment(ledger, &spare, &header)?;
    Mark { log_id: start.log_id, epoch: start.epoch, head: start.seq, root: start.root, segment: index }.write(ledger)?;
    Ok(restored)
}

/// The last segment that may go to an archive: all of its entries are in both of the snapshots that are kept. `None` if none may.
pub fn archivable_through<S: Storage>(ledger: &S) -> Result<Option<u64>, BackupError> {
    let mut newest = Seq(u64::MAX);
    let mut through = None;
    for _ in 0..2 {
        let found = newest_good(ledger, None, newest).map_err(LedgerError::io(ledger.place(""), "look for snapshots"))?;
        let Some(snapshot) = found else { return Ok(None) };
        // Not only its head: what is to stand in for segments is read as a whole.
        snapshot.verify()?;
        through = Some(snapshot.head().last_batch.segment.saturating_sub(1));
        newest = Seq(snapshot.head().seq.0.saturating_sub(1));
    }
    Ok(through.filter(|segment| *segment > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LogId, Op};
    use crate::ledger::memory::MemoryStorage;
    use crate::ledger::sample::{entry, lane_batch_of, open, spends};
    use crate::ledger::{archive_segments, Auditor, Log, Options, Schedule};
    use std::time::Duration;

    const SEGMENT_BYTES: u64 = 64 << 10;

    /// A ledger in which `a` has made so many spends, with snapshots after each of these.
    fn ledger(snapshots_after: &[u64]) -> MemoryStorage {
        let storage = MemoryStorage::new();
        let (mut log, ..) = open(&storage, SEGMENT_BYTES).unwrap();
        log.append(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "a", 1000, 0)])]).unwrap();
        let day = Duration::from_secs(86_400);
        let schedule = Schedule { every: day, entries: u64::MAX, keys_ttl: day, look_every: day };
        let mut nonce = 1;
        for after in snapshots_after {
            while nonce <= *after {
                log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
                nonce += 1;
            }
            let base = newest_good(&storage, None, Seq(u64::MAX)).unwrap();
            Auditor::spawn(&log.reader(), base, schedule, None).unwrap().close();
        }
        for nonce in nonce..nonce + 5 {
            log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
        }
        log.close().unwrap();
        storage
    }

    /// Opens behind the newest snapshot and appends a spend with this nonce.
    fn go_on(storage: &MemoryStorage, nonce: u64) -> Result<Seq, LedgerError> {
        let start = newest_good(storage, None, Seq(u64::MAX)).unwrap().map(|snapshot| snapshot.start());
        let options = Options::for_simulation(SEGMENT_BYTES, LogId([8; 16]));
        let (mut log, _) = Log::open_behind(storage.clone(), &options, start, &mut |_| Ok(()))?;
        assert_eq!(log.log_id(), LogId([7; 16]), "the same ledger");
        let placed = log.append(&[spends(0, 1, "a", nonce..nonce + 1)]).unwrap();
        log.close()?;
        Ok(placed.first_seq)
    }

    #[test]
    fn a_copy_holds_everything_and_a_ledger_goes_on_from_it_and_from_nothing_less() {
        for snapshots in [&[][..], &[20], &[20, 30]] {
            let source = ledger(snapshots);
            let before = source.list().unwrap();
            let elsewhere = MemoryStorage::new();
            let copy = back_up(&source, &elsewhere, "ledger.snap", &mut |_| {}).unwrap();
            assert_eq!(source.list().unwrap(), before, "nothing changed");
            let spent = snapshots.last().copied().unwrap_or(0) + 5;
            assert_eq!(copy.head().seq, Seq(1 + spent));
            let new = MemoryStorage::new();
            restore(&elsewhere, "ledger.snap", &new, SEGMENT_BYTES).unwrap();
            let again = restore(&elsewhere, "ledger.snap", &new, SEGMENT_BYTES).err().unwrap().to_string();
            assert!(again.contains("has a ledger already"), "{again}");
            assert_eq!(go_on(&new, spent + 1).unwrap(), Seq(spent + 2));
            assert_eq!(go_on(&new.crash(&mut || false), spent + 2).unwrap(), Seq(spent + 3));
            // From here on there is no way back to the beginning.
            assert!(open(&new, SEGMENT_BYTES).is_err());
        }
        let damaged = MemoryStorage::new();
        back_up(&ledger(&[20]), &damaged, "ledger.snap", &mut |_| {}).unwrap();
        damaged.tamper("ledger.snap", |bytes| bytes[4200] ^= 1);
        let new = MemoryStorage::new();
        assert!(restore(&damaged, "ledger.snap", &new, SEGMENT_BYTES).is_err());
        assert!(new.list().unwrap().iter().all(|name| segment_number(name).is_none()));
        let empty = MemoryStorage::new();
        open(&empty, SEGMENT_BYTES).unwrap().0.close().unwrap();
        let refused = back_up(&empty, &damaged, "x.snap", &mut |_| {}).err().unwrap().to_string();
        assert!(refused.contains("no entry yet"), "{refused}");
    }

    #[test]
    fn only_what_both_snapshots_hold_is_archived_and_the_ledger_goes_on_without_it() {
        assert_eq!(archivable_through(&ledger(&[30])).unwrap(), None);
        let storage = ledger(&[40, 60]);
        let last = archivable_through(&storage).unwrap().unwrap();
        let (older, newer) = (snapshot_name(Seq(41)), snapshot_name(Seq(61)));
        let archive = MemoryStorage::new();
        assert_eq!(archive_segments(&storage, &archive, last, &mut |_| {}).unwrap(), last);
        assert_eq!(go_on(&storage.fork(), 66).unwrap(), Seq(67));
        let report = crate::ledger::verify(&storage, &mut |_| {}).unwrap();
        assert_eq!((report.archived_through, report.head, report.assets[0].balances), (Seq(41), Seq(66), 1000));
        // Also from the older of the two.
        let one = storage.fork();
        one.tamper(&newer, |bytes| bytes[100] ^= 1);
        assert_eq!(go_on(&one, 66).unwrap(), Seq(67));
        // A copy needs one of them.
        back_up(&one, &archive, "ledger.snap", &mut |_| {}).unwrap();
        one.tamper(&older, |bytes| bytes[100] ^= 1);
        assert!(go_on(&one, 66).is_err() && back_up(&one, &archive, "ledger.snap", &mut |_| {}).is_err());
        let damaged = ledger(&[40, 60]);
        damaged.tamper(&older, |bytes| bytes[4200] ^= 1);
        assert!(archivable_through(&damaged).is_err(), "a snapshot that does not hold stands in for nothing");
    }
}
