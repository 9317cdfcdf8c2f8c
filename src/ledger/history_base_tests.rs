//! The history of a ledger whose first segments are gone: it goes on from the peaks of a snapshot, and whatever it says is what the
//! whole ledger says; what it cannot tell it refuses, and what is wrong with peaks is noticed.
use super::history::{Peaks, HISTORY_NAME};
use super::history_tests::{append, consistency, prove, root, written, SEGMENT};
use super::snapshot::{newest_good, snapshot_name, snapshots, Pace, Snapshot};
use super::{
    back_up, restore, segment_name, verify, AuditWork, LedgerError, Log, MemoryFile, MemoryStorage, Options, Reader, Storage,
};
use super::{Faults, ReadFault};
use crate::domain::{HistoryAnswer, HistoryQuestion, LogId, Seq, Unproven};
use std::sync::{Arc, Mutex};

/// A snapshot of all that is durable, from the one before it; `change` may first change the peaks that it gets.
fn take_snapshot(
    log: &Log<MemoryStorage>,
    storage: &MemoryStorage,
    change: impl FnOnce(&mut Option<Peaks>),
) -> Snapshot<MemoryFile> {
    let base = newest_good(storage, None, Seq(u64::MAX)).unwrap();
    let mut work = AuditWork::behind(&log.reader(), base, u64::MAX, [1, 2, 3, 4]);
    while work.step().unwrap() {}
    assert_eq!(work.audit().broken, None);
    change(&mut work.cut.peaks);
    work.snapshot(&mut |_| Pace::AtOnce).unwrap();
    newest_good(storage, None, Seq(u64::MAX)).unwrap().unwrap()
}

/// Opens the log behind its newest snapshot.
fn reopen(storage: &MemoryStorage) -> Log<MemoryStorage> {
    let base = newest_good(storage, None, Seq(u64::MAX)).unwrap();
    let options = Options::for_simulation(SEGMENT, LogId([7; 16]));
    Log::open_after(storage.clone(), &options, base.as_ref(), &mut |_, _, _| Ok(())).unwrap().0
}

/// Takes the segments away that come before the one with the last batch of the snapshot, and the file of the history.
fn strip(storage: &MemoryStorage, snapshot: &Snapshot<MemoryFile>) {
    (1..snapshot.head().last_batch.segment).for_each(|index| storage.remove(&segment_name(index)).unwrap());
    // There is none if nobody has asked yet.
    let _ = storage.remove(HISTORY_NAME);
}

fn is_archived(answer: Result<HistoryAnswer, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Archived { .. }))
}

/// Everything that can be asked, of a ledger that has all of its segments and of one whose history begins behind `base` batches.
fn compare(whole: &Reader<MemoryStorage>, part: &Reader<MemoryStorage>, base: u64, through: Seq) {
    let current = root(whole);
    assert_eq!(root(part), current);
    let archived = Unproven::Archived { size_min: base };
    for seq in 1..=current.through.0 {
        if Seq(seq) < part.first() {
            assert!(is_archived(part.history(&HistoryQuestion::Proof { seq: Seq(seq), size: None })));
            continue;
        }
        for size in [None, Some(base - 1), Some(base), Some(base + 1), Some((base + current.size) / 2), Some(current.size + 1)] {
            let expected = prove(whole, seq, size);
            match Seq(seq) <= through {
                true => assert_eq!(prove(part, seq, size), Err(archived), "entry {seq}, base {base}"),
                false => assert_eq!(prove(part, seq, size), expected, "entry {seq} in {size:?}, base {base}"),
            }
        }
    }
    for from in 1..=current.size {
        for to in [from, (from + current.size) / 2, current.size, current.size + 1] {
            let expected = consistency(whole, from, to);
            match from < base && expected.is_ok() {
                true => assert_eq!(consistency(part, from, to), Err(archived)),
                false => assert_eq!(consistency(part, from, to), expected, "{from} to {to}, base {base}"),
            }
        }
    }
}

#[test]
fn behind_the_peaks_of_any_snapshot_the_history_is_that_of_the_whole_ledger() {
    for base in (1..40).chain([63, 64, 65]) {
        let storage = MemoryStorage::new();
        let mut log = written(&storage, base);
        let snapshot = take_snapshot(&log, &storage, |_| {});
        assert_eq!(snapshot.front().peaks.as_ref().map(Peaks::size), Some(base));
        append(&mut log, 13);
        drop(log);
        let whole = reopen(&storage.fork());
        strip(&storage, &snapshot);
        let part = reopen(&storage);
        // Nothing is lost with segments that are still there.
        let (size, through) = match part.reader().first() {
            Seq(1) => (1, Seq(0)),
            _ => (base, snapshot.head().seq),
        };
        compare(&whole.reader(), &part.reader(), size, through);
        assert_eq!(part.reader().first() == Seq(1), snapshot.head().last_batch.segment == 1, "base {base}");
    }
}

#[test]
fn a_later_snapshot_a_reopening_a_crash_and_damage_change_nothing() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 45);
    let older = take_snapshot(&log, &storage, |_| {});
    append(&mut log, 20);
    take_snapshot(&log, &storage, |_| {});
    append(&mut log, 5);
    drop(log);
    let whole = reopen(&storage.fork());
    let whole = whole.reader();
    strip(&storage, &older);
    // The older of two is what the history goes on from: it has more to prove.
    compare(&whole, &reopen(&storage.fork()).reader(), 45, older.head().seq);
    let log = reopen(&storage);
    compare(&whole, &log.reader(), 45, older.head().seq);
    drop(log);
    let kept = reopen(&storage.fork()).reader();
    kept.advance_history(1).unwrap();
    assert_eq!((kept.history_peaks().0.size(), root(&kept)), (70, root(&whole)));
    for lost in 0..4 {
        let mut count = 0;
        let after = storage.crash(&mut || {
            count += 1;
            lost > 0 && count % lost == 0
        });
        compare(&whole, &reopen(&after).reader(), 45, older.head().seq);
    }
    let mut length = 0;
    storage.tamper(HISTORY_NAME, |bytes| length = bytes.len());
    for byte in (0..length).step_by(29) {
        let bad = storage.fork();
        bad.tamper(HISTORY_NAME, |bytes| bytes[byte] ^= 1);
        let log = reopen(&bad);
        let reader = log.reader();
        // Where damage shows in a question, whoever asked has to come again.
        let consistent = |from, to| consistency(&reader, from, to).or_else(|_| consistency(&reader, from, to));
        for from in 45..=70 {
            assert_eq!(consistent(from, 70), consistency(&whole, from, 70), "byte {byte}");
        }
    }
    // A snapshot that is damaged is passed over, also in a place where opening it does not show.
    storage.remove(HISTORY_NAME).unwrap();
    storage.tamper(&snapshot_name(older.head().seq), |bytes| bytes[4096 + 80] ^= 1);
    let log = reopen(&storage);
    assert_eq!(
        (root(&log.reader()), consistency(&log.reader(), 64, 70)),
        (root(&whole), Err(Unproven::Archived { size_min: 65 }))
    );
}

#[test]
fn a_restored_ledger_goes_on_with_the_roots_of_the_one_that_was_copied() {
    for base in [1, 2, 31, 32, 47] {
        let source = MemoryStorage::new();
        let log = written(&source, base);
        let known = root(&log.reader());
        let (elsewhere, new) = (MemoryStorage::new(), MemoryStorage::new());
        back_up(&source, &elsewhere, "ledger.snap", &mut |_| {}).unwrap();
        restore(&elsewhere, "ledger.snap", &new, SEGMENT).unwrap();
        let mut log = reopen(&new);
        assert_eq!(root(&log.reader()), known, "also before its first batch");
        append(&mut log, 9);
        let reader = log.reader();
        let later = root(&reader);
        assert_eq!(
            (later.size, consistency(&reader, base, base + 9).map(|proof| (proof.from, proof.to))),
            (base + 9, Ok((known, later)))
        );
        for seq in known.through.0 + 1..=later.through.0 {
            assert_eq!(prove(&reader, seq, None).unwrap().inclusion.root, later);
        }
        assert!(is_archived(reader.history(&HistoryQuestion::Proof { seq: known.through, size: None })));
        if base > 1 {
            assert_eq!(consistency(&reader, base - 1, base), Err(Unproven::Archived { size_min: base }));
        }
        // A snapshot of it has the peaks of all batches, and so has a copy of a copy.
        let snapshot = take_snapshot(&log, &new, |_| {});
        assert_eq!(snapshot.front().peaks, Some(reader.history_peaks().0));
        let again = MemoryStorage::new();
        back_up(&new, &elsewhere, "again.snap", &mut |_| {}).unwrap();
        restore(&elsewhere, "again.snap", &again, SEGMENT).unwrap();
        assert_eq!(root(&reopen(&again).reader()), later);
        drop(log);
        assert!(verify(&new, &mut |_| {}).is_ok());
        // What another course of the same ledger has left behind is not believed.
        let other = MemoryStorage::new();
        restore(&elsewhere, "ledger.snap", &other, SEGMENT).unwrap();
        let mut nodes = Vec::new();
        new.tamper(HISTORY_NAME, |bytes| nodes = bytes.clone());
        super::StorageFile::write_at(&other.create(HISTORY_NAME).unwrap(), &nodes, 0).unwrap();
        let mut log = reopen(&other);
        append(&mut log, 30);
        assert_eq!(consistency(&log.reader(), base, base + 30).map(|proof| proof.from), Ok(known));
    }
}

#[test]
fn without_peaks_nothing_is_proven_and_nothing_is_lost_until_the_segments_are_back() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 40);
    let snapshot = take_snapshot(&log, &storage, |peaks| *peaks = None);
    assert_eq!(snapshot.front().peaks, None);
    append(&mut log, 10);
    drop(log);
    let original = storage.fork();
    let whole = reopen(&original);
    root(&whole.reader());
    strip(&storage, &snapshot);
    let damaged = original.fork();
    // The tops of the first 16 and the first 32 batches.
    damaged.tamper(HISTORY_NAME, |bytes| [30, 62].iter().for_each(|node| bytes[4096 + 48 * node] ^= 1));
    (1..snapshot.head().last_batch.segment).for_each(|index| damaged.remove(&segment_name(index)).unwrap());
    for storage in [storage, damaged] {
        let before = storage.list().unwrap();
        let log = reopen(&storage);
        let reader = log.reader();
        (0..3).for_each(|_| assert!(is_archived(reader.history(&HistoryQuestion::Root))));
        assert_eq!(storage.list().unwrap(), before);
        drop(log);
        for index in 1..snapshot.head().last_batch.segment {
            let mut bytes = Vec::new();
            original.tamper(&segment_name(index), |content| bytes = content.clone());
            super::StorageFile::write_at(&storage.create(&segment_name(index)).unwrap(), &bytes, 0).unwrap();
        }
        compare(&whole.reader(), &reopen(&storage).reader(), 1, Seq(0));
    }
}

#[test]
fn a_history_that_began_behind_a_snapshot_is_made_whole_when_the_segments_are_back() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 40);
    let snapshot = take_snapshot(&log, &storage, |_| {});
    append(&mut log, 10);
    drop(log);
    let original = storage.fork();
    strip(&storage, &snapshot);
    let log = reopen(&storage);
    assert!(consistency(&log.reader(), 1, 50).is_err());
    root(&log.reader());
    drop(log);
    let mut nodes = Vec::new();
    storage.tamper(HISTORY_NAME, |bytes| nodes = bytes.clone());
    super::StorageFile::write_at(&original.create(HISTORY_NAME).unwrap(), &nodes, 0).unwrap();
    assert!(consistency(&reopen(&original).reader(), 1, 50).is_ok());
}

/// Counts what is read of snapshots.
#[derive(Default)]
struct Counted(u64);

impl Faults for Counted {
    fn read(&mut self, file: &str, _: u64, _: usize) -> Option<ReadFault> {
        self.0 += u64::from(file.starts_with("snapshot-"));
        None
    }
}

#[test]
fn what_the_history_goes_on_from_is_read_once_and_not_at_every_step_that_fails() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 40);
    let snapshot = take_snapshot(&log, &storage, |_| {});
    append(&mut log, 10);
    drop(log);
    strip(&storage, &snapshot);
    let counted = Arc::new(Mutex::new(Counted::default()));
    for damaged in [false, true] {
        let storage = storage.fork();
        let reader = reopen(&storage).reader();
        if damaged {
            storage.tamper(&snapshot_name(snapshot.head().seq), |bytes| bytes[5000] ^= 1);
        } else {
            storage.limit_bytes(Some(0));
        }
        storage.set_faults(counted.clone());
        let step = || {
            assert_eq!(reader.advance_history(1).is_err(), damaged);
            assert_eq!(reader.history_peaks().0.size(), 0, "there is no history yet");
            counted.lock().unwrap().0
        };
        let once = step();
        (0..5).for_each(|_| assert_eq!(step(), once));
        // Room, or another snapshot, and it goes on.
        if damaged {
            storage.tamper(&snapshot_name(snapshot.head().seq), |bytes| bytes[5000] ^= 1);
            storage.create(&snapshot_name(Seq(1))).unwrap();
        }
        storage.limit_bytes(None);
        while reader.advance_history(10).unwrap() {}
        assert_eq!(reader.history_peaks().0.size(), 50);
    }
}

#[test]
fn peaks_come_back_into_snapshots_once_the_history_has_them() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 20);
    take_snapshot(&log, &storage, |peaks| *peaks = None);
    append(&mut log, 1);
    // Nobody has followed so far.
    assert_eq!(take_snapshot(&log, &storage, |peaks| assert_eq!(*peaks, None)).front().peaks, None);
    append(&mut log, 1);
    let reader = log.reader();
    root(&reader);
    let mut work = AuditWork::behind(&reader, newest_good(&storage, None, Seq(u64::MAX)).unwrap(), u64::MAX, [1, 2, 3, 4]);
    while work.step().unwrap() {}
    append(&mut log, 5);
    root(&reader);
    // Also if the history is further by then.
    work.snapshot(&mut |_| Pace::AtOnce).unwrap();
    let peaks = newest_good(&storage, None, Seq(u64::MAX)).unwrap().unwrap().front().peaks.clone();
    assert_eq!(peaks.map(|peaks| peaks.size()), Some(22));
    assert!(verify(&storage, &mut |_| {}).is_ok());
}

#[test]
fn verify_notices_a_snapshot_that_does_not_belong_to_the_log() {
    let right = MemoryStorage::new();
    let mut log = written(&right, 21);
    take_snapshot(&log, &right, |_| {});
    append(&mut log, 9);
    take_snapshot(&log, &right, |_| {});
    append(&mut log, 3);
    drop(log);
    assert!(verify(&right, &mut |_| {}).is_ok());
    let told = |storage: &MemoryStorage| verify(storage, &mut |_| {}).unwrap_err().to_string();

    for (newer, size) in [(false, 21), (true, 30)] {
        let storage = MemoryStorage::new();
        let mut log = written(&storage, 21);
        let wrong = |peaks: &mut Option<Peaks>| {
            let mut hashes = peaks.as_ref().unwrap().hashes().to_vec();
            hashes[0][5] ^= 1;
            *peaks = Peaks::new(peaks.as_ref().unwrap().size(), hashes);
        };
        let mut snapshot = take_snapshot(&log, &storage, |peaks| {
            if !newer {
                wrong(peaks)
            }
        });
        append(&mut log, 9);
        if newer {
            snapshot = take_snapshot(&log, &storage, wrong);
        }
        append(&mut log, 40);
        let reader = log.reader();
        let current = root(&reader);
        drop(log);
        let fault = told(&storage);
        assert!(fault.contains(snapshot.place()) && fault.contains(&format!("the first {size} batches")), "{fault}");
        // Also where it stands in for segments, as long as the file of the history is there.
        snapshots(&storage.list().unwrap()).into_iter().filter(|seq| *seq != snapshot.head().seq).for_each(|seq| {
            storage.remove(&snapshot_name(seq)).unwrap();
        });
        (1..snapshot.head().last_batch.segment).for_each(|index| storage.remove(&segment_name(index)).unwrap());
        if snapshot.head().last_batch.segment > 1 {
            let fault = told(&storage);
            assert!(fault.contains(snapshot.place()) && fault.contains("one of the two files is wrong"), "{fault}");
            assert_eq!(root(&reopen(&storage).reader()), current, "a history that is there is not made of a snapshot");
        }
    }

    // Without the file, and with one that is wrong, the entries decide who is right.
    let storage = right.fork();
    assert!(verify(&storage, &mut |_| {}).is_ok());
    let (log, ..) = super::sample::open(&storage, SEGMENT).unwrap();
    root(&log.reader());
    drop(log);
    assert!(verify(&storage, &mut |_| {}).is_ok());
    let (other, mut nodes) = (MemoryStorage::new(), Vec::new());
    let mut log = written(&other, 20);
    log.append(&[super::sample::lane_batch(1, 5, 3)]).unwrap();
    append(&mut log, 20);
    root(&log.reader());
    drop(log);
    other.tamper(HISTORY_NAME, |bytes| nodes = bytes.clone());
    storage.tamper(HISTORY_NAME, |bytes| *bytes = nodes);
    let fault = told(&storage);
    assert!(fault.contains(HISTORY_NAME) && fault.contains("the first 21 batches"), "{fault}");

    // A snapshot of another course of the same ledger: its entries never were in this one.
    let other = MemoryStorage::new();
    let mut log = written(&other, 20);
    log.append(&[super::sample::lane_batch(1, 5, 3)]).unwrap();
    let foreign = take_snapshot(&log, &other, |_| {});
    let (mut bytes, name) = (Vec::new(), snapshot_name(foreign.head().seq));
    other.tamper(&name, |content| bytes = content.clone());
    super::StorageFile::write_at(&right.create(&name).unwrap(), &bytes, 0).unwrap();
    let fault = told(&right);
    assert!(fault.contains(&name) && fault.contains("no batch that ends with entry"), "{fault}");
}
