//! Copies of a ledger's state: a snapshot of all that is durable into a file elsewhere, and a ledger that goes on from such a file.
//!
//! Invariants: making a copy changes nothing in the ledger and may be done beside its writer; a restored ledger has the identity and
//! the chain of the one that was copied, its history goes on from the peaks in the copy, and it takes its first batch in a segment of its
//! own. What was in the segments before the copy is not in it: repeats, receipts and proofs of old entries need those segments as well.
use super::audit::apply;
use super::error::verify_beside;
use super::history::{coverage, HISTORY_NAME};
use super::index_file::IndexFile;
use super::index_format::Subject;
use super::layout::SegmentHeader;
use super::log::link_segment;
use super::mark::{Mark, EPOCH_NAME};
use super::recovery::check_opens;
use super::scan::{log_of, read_header, segments, Scan, Seen};
use super::snapshot::{make, newest_good, newest_whole, snapshot_name, Cut, Snapshot, SnapshotError, SnapshotFault, Tail};
use super::spares::{Attempts, Spares};
use super::storage::{index_name, segment_name, segment_number, Storage, StorageFile};
use super::witness::{known_mark, WITNESS_NAME};
use super::LedgerError;
use crate::domain::{LogId, Seq, UnixMs};
use ahash::RandomState;
use std::io::ErrorKind;
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
    /// Segments have gone to an archive, and others that should have gone have not.
    Halfway {
        /// How many have gone.
        moved: u64,
        /// The last of them.
        through: String,
        /// What ended it.
        cause: Box<BackupError>,
    },
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackupError::Ledger(error) => error.fmt(f),
            BackupError::Snapshot(error) => error.fmt(f),
            BackupError::Place(what) => f.write_str(what),
            BackupError::Halfway { moved, through, cause } => {
                let which = if *moved == 1 {
                    format!("1 segment, up to {through}, was")
                } else {
                    format!("{moved} segments, up to {through}, were")
                };
                write!(f, "{which} moved into the archive, and the next one was not: {cause}")
            }
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
    let base = newest_whole(ledger, log_of(ledger), Seq(u64::MAX), &|_| Ok(true), &mut || Ok(()))?;
    let (tail, cut) = read_behind(ledger, base.as_ref(), progress)?;
    Ok(make::<T, S>(target, name, base.as_ref(), &tail, &cut, None)?)
}

/// What the entries behind a snapshot have done, up to the end of what is there.
fn read_behind<S: Storage>(
    ledger: &S,
    base: Option<&Snapshot<S::File>>,
    progress: &mut dyn FnMut(Seq),
) -> Result<(Tail, Cut), BackupError> {
    // The mark first: a writer may begin a segment meanwhile, and the mark must not know of one that the list has not.
    let mark = known_mark(ledger)?;
    let names = ledger.list().map_err(LedgerError::io(ledger.place(""), "list the directory"))?;
    let start = base.map(Snapshot::start);
    let Some(segments) = segments(ledger, &names, mark, start.as_ref())? else {
        return Err(LedgerError::no_ledger(ledger.place("")).into());
    };
    let hasher = RandomState::new();
    let mut tail = match base {
        Some(base) => Tail::new(base.head().seq, base.head().newest, base.front().assets.clone(), hasher),
        None => Tail::new(Seq(0), UnixMs(0), Vec::new(), hasher),
    };
    let mut cut = base.map_or_else(|| Cut::beginning(Default::default()), Cut::of);
    Scan { storage: ledger, segments, mark, start, sync: false, patient: true }.run(&mut |seen| {
        match seen {
            Seen::Segment(header) => cut.log_id = header.log_id,
            Seen::Batch(batch) => {
                let (file, offset, seq) = (batch.file.to_owned(), batch.place.offset, batch.header.first_seq);
                apply(&mut tail, &batch)?.map_err(|what| LedgerError::Broken { file, offset, seq, what })?;
                cut.follow(&batch)?;
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
    let kept = |name: &str| segment_number(name).is_some() || [EPOCH_NAME, WITNESS_NAME].contains(&name);
    let used = names.iter().find(|name| kept(name));
    if let Some(used) = used {
        return Err(BackupError::Place(format!(
            "{place} has a ledger already: {used}; nothing was changed; move it aside, or name another directory with --dir"
        )));
    }
    // Read, checked and written anew rather than copied: what is not whole does not become a ledger.
    let tail = Tail::new(copy.head().seq, copy.head().newest, copy.front().assets.clone(), RandomState::new());
    let restored = make::<S, T>(ledger, &snapshot_name(copy.head().seq), Some(&copy), &tail, &Cut::of(&copy), None)?;
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

/// The last segment that may go to an archive: all of its entries are in both of the snapshots that are kept, and the file of the
/// history, which is made durable for that, covers its batches. And all of them were accepted before `keys_over`, so that their keys are
/// remembered no more: which were used is told by their segments. `None` if none may.
///
/// # Errors
/// If there is no ledger, or one that no start would open; and if there is a segment that the snapshots stand in for, and the history
/// does not have it: without its segments it cannot be made again.
pub fn archivable_through<S: Storage>(ledger: &S, keys_over: UnixMs) -> Result<Option<u64>, BackupError> {
    let log_id = log_of(ledger);
    let good = |newest| newest_good(ledger, log_id, newest).map_err(LedgerError::io(ledger.place(""), "look for snapshots"));
    let newest = good(Seq(u64::MAX))?;
    check_opens(ledger, newest.as_ref().map(Snapshot::start))?;
    let Some(newest) = newest else { return Ok(None) };
    let Some(older) = good(Seq(newest.head().seq.0.saturating_sub(1)))? else { return Ok(None) };
    // Not only their heads: what is to stand in for segments is read as a whole.
    newest.verify()?;
    older.verify()?;
    archivable_behind(ledger, &older, keys_over)
}

/// As [`archivable_through`], as far as the older of the two snapshots decides it.
fn archivable_behind<S: Storage>(ledger: &S, older: &Snapshot<S::File>, keys_over: UnixMs) -> Result<Option<u64>, BackupError> {
    let last = older.head().last_batch.segment.saturating_sub(1);
    let names = ledger.list().map_err(LedgerError::io(ledger.place(""), "list the directory"))?;
    let Some(first) = names.iter().filter_map(|name| segment_number(name)).min().filter(|first| *first <= last) else {
        return Ok(None);
    };
    check_history(ledger, older, first == 1).map_err(BackupError::Place)?;
    let mut through = None;
    for segment in first..=last {
        if accepted_until(ledger, older.head().log_id, segment)? >= keys_over {
            break;
        }
        through = Some(segment);
    }
    Ok(through)
}

/// When the last entry of a sealed segment was accepted, as its index says: where that entry's keys end to be remembered.
fn accepted_until<S: Storage>(ledger: &S, log_id: LogId, segment: u64) -> Result<UnixMs, BackupError> {
    let first = |segment| -> Result<Seq, BackupError> {
        let name = segment_name(segment);
        let read = ledger.open(&name).and_then(|file| read_header(&file));
        let read = read.map_err(LedgerError::io(ledger.place(&name), "read the header of the segment"))?;
        let (header, _) = read.map_err(|fault| {
            BackupError::Place(format!("{0}: {fault}; run {1}", ledger.place(&name), verify_beside(&ledger.place(&name))))
        })?;
        Ok(header.first_seq)
    };
    let subject = Subject { log_id, segment, first: first(segment)?, last: Seq(first(segment + 1)?.0 - 1) };
    let name = index_name(segment);
    let index = ledger.open(&name).and_then(|file| IndexFile::open(file, subject));
    let index = index.map_err(|error| {
        BackupError::Place(format!(
            "no segment was moved: the index {} says until when the keys in its segment are remembered, and it cannot be used: {error}; \
             start the server, which makes it again in an idle moment, stop it and archive again",
            ledger.place(&name)
        ))
    })?;
    Ok(index.head().accepted.last)
}

/// Sees to it that the file of the history has, durably and whole, all that the segments behind an archive's could not make again. The
/// error says what is missing and what to do. `from_the_first`: all segments are there.
fn check_history<S: Storage>(ledger: &S, older: &Snapshot<S::File>, from_the_first: bool) -> Result<(), String> {
    let (log_id, batches) = (older.head().log_id, older.head().batches);
    let place = ledger.place(HISTORY_NAME);
    let kept = "no segment was moved: proofs need the history, which cannot be made again without them";
    let follow = "start the server, wait until `ronctl proof root` has answered, stop the server and archive again";
    let remake = match from_the_first {
        true => format!("remove that file; {follow}"),
        false => format!("move the archived segments back and remove that file; {follow}"),
    };
    let synced = ledger.open(HISTORY_NAME).and_then(|file| file.sync()).and_then(|()| ledger.sync_directory());
    let found = match synced.and_then(|()| coverage(ledger, log_id, &[batches])) {
        Ok(found) => found,
        // What was lost with earlier segments is not lost once more; the history goes on behind what goes now.
        Err(error) if error.kind() == ErrorKind::NotFound && !from_the_first => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(format!("{kept}, and {place} is not there yet; {follow}"))
        }
        Err(error) => return Err(format!("{kept}, and {place} cannot be used: {error}; {remake}")),
    };
    if found.is_damaged {
        return Err(format!("{kept}, and {place} is damaged behind the first {} batches; {remake}", found.size));
    }
    if found.size < batches {
        let size = found.size;
        return Err(format!("{kept}, and {place} has {size} of the {batches} batches of the older snapshot; {follow}"));
    }
    if found.peaks.first().zip(older.front().peaks.as_ref()).is_some_and(|(peaks, claimed)| peaks != claimed) {
        let what = "do not agree on the first";
        return Err(format!(
            "{kept}, and {place} and {} {what} {batches} batches; {} says which is wrong",
            older.place(),
            verify_beside(&place)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of all entries are over their time.
    const EVERY_KEY: UnixMs = UnixMs(u64::MAX);
    use crate::domain::{LogId, Op};
    use crate::ledger::engine::Engine;
    use crate::ledger::memory::MemoryStorage;
    use crate::ledger::sample::{entry, lane_batch_of, open, spends};
    use crate::ledger::{archive_segments, Auditor, Log, Options, Schedule};
    use std::time::Duration;

    const SEGMENT_BYTES: u64 = 64 << 10;

    /// As [`ledger`], and the history has followed it to its end, and its sealed segments have indexes.
    fn proven_ledger(snapshots_after: &[u64]) -> MemoryStorage {
        let storage = ledger(snapshots_after);
        let (log, ..) = open(&storage, SEGMENT_BYTES).unwrap();
        while log.reader().advance_history(1 << 20).unwrap() {}
        while log.reader().index_one_segment().unwrap() {}
        log.close().unwrap();
        storage
    }

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
        // No byte of a snapshot that rots gets into the copy.
        let source = ledger(&[20, 30]);
        let mut bytes = 0;
        source.tamper(&snapshot_name(Seq(31)), |content| bytes = content.len());
        let whole = back_up(&source, &MemoryStorage::new(), "ledger.snap", &mut |_| {}).unwrap();
        for at in 0..bytes {
            let rotten = source.fork();
            rotten.tamper(&snapshot_name(Seq(31)), |bytes| bytes[at] ^= 0x80);
            let copy = back_up(&rotten, &MemoryStorage::new(), "ledger.snap", &mut |_| {}).unwrap();
            assert_eq!(copy.head(), whole.head(), "byte {at}");
        }
        // A snapshot of another ledger is left alone.
        let (other, name) = (MemoryStorage::new(), snapshot_name(Seq(32)));
        let log = Log::open(other.clone(), &Options::for_simulation(SEGMENT_BYTES, LogId([8; 16])), &mut |_, _, _| Ok(()));
        let (mut log, _) = log.unwrap();
        log.append(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "b", 1000, 0)])]).unwrap();
        log.append(&[spends(0, 2, "b", 1..32)]).unwrap();
        log.close().unwrap();
        back_up(&other, &source, &name, &mut |_| {}).unwrap();
        assert_eq!(newest_good(&source, None, Seq(u64::MAX)).unwrap().unwrap().head().log_id, LogId([8; 16]));
        let copy = back_up(&source, &MemoryStorage::new(), "ledger.snap", &mut |_| {}).unwrap();
        assert_eq!(copy.head(), whole.head());
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
        assert_eq!(archivable_through(&ledger(&[30]), EVERY_KEY).unwrap(), None);
        let storage = proven_ledger(&[40, 60]);
        let last = archivable_through(&storage, EVERY_KEY).unwrap().unwrap();
        let (older, newer) = (snapshot_name(Seq(41)), snapshot_name(Seq(61)));
        let archive = MemoryStorage::new();
        assert_eq!(archive_segments(&storage, &archive, last, &mut |_| {}).unwrap(), last);
        assert_eq!(go_on(&storage.fork(), 66).unwrap(), Seq(67));
        let start = newest_good(&storage, None, Seq(u64::MAX)).unwrap().map(|snapshot| snapshot.start());
        let options = Options::for_simulation(SEGMENT_BYTES, LogId([7; 16]));
        let (mut log, _) = Log::open_behind(storage.fork(), &options, start, &mut |_| Ok(())).unwrap();
        let first = log.reader().first();
        assert!(first > Seq(1) && log.truncate_before(first).is_ok(), "what has been archived is not there any more");
        assert!(log.truncate_before(Seq(first.0 + 1)).is_err());
        drop(log);
        let report = crate::ledger::verify(&storage, &mut |_| {}).unwrap();
        assert_eq!((report.archived_through, report.head, report.assets[0].balances), (Seq(first.0 - 1), Seq(66), 1000));
        assert_eq!((report.books_from, report.ever.entries, report.here.entries), (Seq(41), 66, 67 - first.0));
        // Also from the older of the two.
        let one = storage.fork();
        one.tamper(&newer, |bytes| bytes[100] ^= 1);
        assert_eq!(go_on(&one, 66).unwrap(), Seq(67));
        // A copy needs one of them.
        back_up(&one, &archive, "ledger.snap", &mut |_| {}).unwrap();
        one.tamper(&older, |bytes| bytes[100] ^= 1);
        assert!(back_up(&one, &archive, "ledger.snap", &mut |_| {}).is_err());
        let told = go_on(&one, 66).unwrap_err().to_string();
        let which = match last {
            1 => format!("{} is not there", segment_name(1)),
            _ => format!("{} to {} are not there", segment_name(1), segment_name(last)),
        };
        for part in [&*which, "none of the 2 snapshots", "if they are in an archive, move them back", "otherwise restore"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        // What is advised helps.
        for index in 1..=last {
            let (name, mut bytes) = (segment_name(index), Vec::new());
            archive.tamper(&name, |segment| bytes.clone_from(segment));
            let file = one.create(&name).unwrap();
            file.write_at(&bytes, 0).unwrap();
            file.sync().unwrap();
        }
        assert_eq!(go_on(&one, 67).unwrap(), Seq(68));
        let damaged = ledger(&[40, 60]);
        damaged.tamper(&older, |bytes| bytes[4200] ^= 1);
        assert!(archivable_through(&damaged, EVERY_KEY).is_err(), "a snapshot that does not hold stands in for nothing");
    }

    #[test]
    fn a_segment_stays_as_long_as_keys_in_it_are_remembered() {
        let storage = proven_ledger(&[40, 60]);
        let accepted = UnixMs(1_700_000_000_000);
        let without = storage.fork();
        without.remove(&index_name(1)).unwrap();
        let told = archivable_through(&without, accepted).unwrap_err().to_string();
        assert!(told.contains("index-0000000001.idx") && told.contains("archive again"), "{told}");
        assert_eq!(archivable_through(&storage, accepted).unwrap(), None, "a key of then may come again");
        let over = archivable_through(&storage, UnixMs(accepted.0 + 1)).unwrap();
        assert!(over.is_some() && over == archivable_through(&storage, EVERY_KEY).unwrap());
        // One of the two copies of a header is enough, as it is for everybody else.
        for (at, good) in [(vec![10], true), (vec![4096 + 10], true), (vec![10, 4096 + 10], false)] {
            let half = storage.fork();
            half.tamper(&segment_name(2), |bytes| at.iter().for_each(|at| bytes[*at] ^= 1));
            assert_eq!(archivable_through(&half, EVERY_KEY).ok(), good.then_some(over), "{at:?}");
        }
    }

    #[test]
    fn nothing_is_archived_that_the_history_does_not_have_durably_and_whole() {
        let storage = proven_ledger(&[40, 60]);
        let refused = |what: &dyn Fn(&MemoryStorage), expected: &[&str]| {
            let storage = storage.fork();
            what(&storage);
            let told = archivable_through(&storage, EVERY_KEY).unwrap_err().to_string();
            assert!(expected.iter().all(|expected| told.contains(expected)), "{told}");
        };
        refused(&|storage| storage.remove(HISTORY_NAME).unwrap(), &["is not there yet", "start the server"]);
        // Nor is anything taken out of a ledger that no start would open.
        let newest = storage.list().unwrap().iter().filter_map(|name| segment_number(name)).max().unwrap();
        refused(&|storage| storage.tamper(EPOCH_NAME, |bytes| bytes[33] ^= 1), &["epoch"]);
        refused(&|storage| storage.remove(&segment_name(newest)).unwrap(), &[&segment_name(newest), "is missing"]);
        refused(
            &|storage| storage.tamper(&segment_name(newest), |bytes| bytes[28_672..].fill(0)),
            &["was durable up to entry 66"],
        );
        refused(&|storage| storage.fail_syncs(true), &["cannot be used"]);
        refused(&|storage| storage.tamper(HISTORY_NAME, |bytes| bytes[16] ^= 1), &["another ledger", "remove that file"]);
        let whole = 4096 + 48 * (2 * 41 - 3);
        refused(&|storage| storage.tamper(HISTORY_NAME, |bytes| bytes.truncate(whole - 1)), &["has 40 of the 41 batches"]);
        let mut size = 0;
        storage.tamper(HISTORY_NAME, |bytes| size = bytes.len());
        for byte in (4096..size).step_by(37) {
            refused(&|storage| storage.tamper(HISTORY_NAME, |bytes| bytes[byte] ^= 1), &["is damaged behind the first"]);
        }
        storage.tamper(HISTORY_NAME, |bytes| bytes.truncate(whole));
        assert_eq!(
            archivable_through(&storage, EVERY_KEY).unwrap(),
            archivable_through(&proven_ledger(&[40, 60]), EVERY_KEY).unwrap()
        );
        // What has been looked at survives a crash.
        let storage = proven_ledger(&[40, 60]).crash(&mut || true);
        archivable_through(&storage, EVERY_KEY).unwrap();
        assert!(archivable_through(&storage.crash(&mut || false), EVERY_KEY).unwrap().is_some());
        // Nothing is asked of the history if nothing goes, or if what there is cannot be lost any more.
        let archive = MemoryStorage::new();
        let last = archivable_through(&storage, EVERY_KEY).unwrap().unwrap();
        archive_segments(&storage, &archive, last - 1, &mut |_| {}).unwrap();
        storage.tamper(HISTORY_NAME, |bytes| bytes[5000] ^= 1);
        let told = archivable_through(&storage, EVERY_KEY).unwrap_err().to_string();
        assert!(told.contains("move the archived segments back"), "{told}");
        storage.remove(HISTORY_NAME).unwrap();
        assert_eq!(archivable_through(&storage, EVERY_KEY).unwrap(), Some(last));
        archive_segments(&storage, &archive, last, &mut |_| {}).unwrap();
        assert_eq!(archivable_through(&storage, EVERY_KEY).unwrap(), None);
    }
}
