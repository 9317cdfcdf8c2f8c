//! The history beside a writer: proofs of every entry, a file of nodes that is cut, damaged, foreign, gone or cannot be written.
use super::history::{verify_consistency, verify_inclusion, HISTORY_NAME};
use super::sample::{entry, lane_batch, lane_batch_of, open, Dice};
use super::{Log, MemoryStorage, Reader, Storage};
use crate::domain::{Consistency, HistoryAnswer, HistoryQuestion, HistoryRoot, LaneBatch, Op, Proof, Seq, Unproven};
use std::time::{Duration, Instant};

pub(super) const SEGMENT: u64 = 64 << 10;
/// Where the nodes begin in the file, in bytes, and how long one is.
const NODES_AT: usize = 4096;
const NODE_BYTES: usize = 48;

/// Batches of 1 to 9 entries over several segments.
pub(super) fn written(storage: &MemoryStorage, batches: u64) -> Log<MemoryStorage> {
    let (mut log, _, _) = open(storage, SEGMENT).unwrap();
    append(&mut log, batches);
    log
}

pub(super) fn append(log: &mut Log<MemoryStorage>, batches: u64) {
    for _ in 0..batches {
        let first = log.head().0 .0 + 1;
        log.append(&[lane_batch(0, first, first as u32 % 9 + 1)]).unwrap();
    }
}

pub(super) fn root(reader: &Reader<MemoryStorage>) -> HistoryRoot {
    match reader.history(&HistoryQuestion::Root).unwrap() {
        HistoryAnswer::Root(root) => root.unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn prove(reader: &Reader<MemoryStorage>, seq: u64, size: Option<u64>) -> Result<Proof, Unproven> {
    match reader.history(&HistoryQuestion::Proof { seq: Seq(seq), size }).unwrap() {
        HistoryAnswer::Proof(found, place) => {
            assert_eq!(found.seq, Seq(seq));
            let proof = Proof { log_id: reader.log_id(), found, inclusion: place? };
            assert_eq!(verify_inclusion(&proof), Ok(()));
            Ok(proof)
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn consistency(reader: &Reader<MemoryStorage>, from: u64, to: u64) -> Result<Consistency, Unproven> {
    match reader.history(&HistoryQuestion::Consistency { from, to }).unwrap() {
        HistoryAnswer::Consistency(proof) => {
            assert_eq!(proof.as_ref().map(verify_consistency), proof.as_ref().map(|_| Ok(())));
            proof
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_entry_is_proven_under_the_current_root_and_under_earlier_ones() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 60);
    let reader = log.reader();
    let earlier = root(&reader);
    assert_eq!((earlier.size, earlier.through), (60, log.head().0));
    append(&mut log, 41);
    let later = root(&reader);
    assert_eq!((later.size, later.through), (101, log.head().0));
    for seq in 1..=later.through.0 {
        assert_eq!(prove(&reader, seq, None).unwrap().inclusion.root, later);
        let old = prove(&reader, seq, Some(60));
        if seq <= earlier.through.0 {
            assert_eq!(old.unwrap().inclusion.root, earlier);
        } else {
            assert!(matches!(old, Err(Unproven::NotReached { size_min: 61.. })), "{old:?}");
        }
    }
    for (from, to) in [(1, 1), (1, 101), (60, 101), (64, 65), (101, 101)] {
        let proof = consistency(&reader, from, to).unwrap();
        assert_eq!((proof.from.size, proof.to.size), (from, to));
    }
    let proof = consistency(&reader, 60, 101).unwrap();
    assert_eq!((proof.from, proof.to), (earlier, later));
    assert_eq!(consistency(&reader, 2, 1), Err(Unproven::WrongOrder));
    for (from, to) in [(0, 1), (1, 102), (102, 102)] {
        assert_eq!(consistency(&reader, from, to), Err(Unproven::NoSuchSize { current: 101 }), "{from} {to}");
    }
    for size in [0, 102, u64::MAX] {
        assert_eq!(prove(&reader, 1, Some(size)), Err(Unproven::NoSuchSize { current: 101 }));
    }
    for seq in [0, later.through.0 + 1, u64::MAX] {
        let answer = reader.history(&HistoryQuestion::Proof { seq: Seq(seq), size: None }).unwrap();
        assert_eq!(answer, HistoryAnswer::NoEntry);
    }
}

#[test]
fn a_reopened_ledger_goes_on_with_the_same_history() {
    let storage = MemoryStorage::new();
    let log = written(&storage, 50);
    let before = root(&log.reader());
    let bytes = storage.open(HISTORY_NAME).map(|file| super::ReadFile::size(&file).unwrap()).unwrap();
    drop(log);
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let reader = log.reader();
    // One entry only: what the file has is not taken in anew.
    reader.advance_history(1).unwrap();
    assert_eq!(reader.history_peaks().0.size(), 50);
    assert_eq!(root(&reader), before);
    append(&mut log, 1);
    assert_eq!(consistency(&reader, 50, 51).unwrap().from, before);
    assert!(super::ReadFile::size(&storage.open(HISTORY_NAME).unwrap()).unwrap() > bytes);
}

#[test]
fn it_follows_in_steps_and_never_beyond_the_durable_head() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 30);
    let reader = log.reader();
    let mut steps = 0;
    while reader.advance_history(10).unwrap() {
        steps += 1;
        let (peaks, through) = reader.history_peaks();
        assert!(through < log.head().0 && peaks.size() > 0);
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(reader.history_peaks().1, log.head().0);
    assert!(!reader.advance_history(10).unwrap());
    let before = reader.history_peaks();
    append(&mut log, 3);
    assert_eq!(reader.history_peaks(), before, "nothing follows by itself");
    // More entries than one step takes in: the answer is not awaited.
    let entries: Vec<Vec<u8>> = (0..48_000).map(|_| entry(Op::Issue, "", "a", 1, 0)).collect();
    let (mut log, _, _) = open(&MemoryStorage::new(), 64 << 20).unwrap();
    for chunk in entries.chunks(8_000) {
        log.append(&[lane_batch_of(0, log.head().0 .0 + 1, chunk)]).unwrap();
    }
    let reader = log.reader();
    assert_eq!(prove(&reader, 48_000, None), Err(Unproven::Behind));
    assert!(prove(&reader, 48_000, None).is_ok());
}

/// What the history says of a ledger whose file of nodes was tampered with: the truth, at once or after it was made again.
fn check_heals(storage: &MemoryStorage, expected: &HistoryRoot, what: &str) {
    let (log, _, _) = open(storage, SEGMENT).unwrap();
    let reader = log.reader();
    assert_eq!(&root(&reader), expected, "{what}");
    let mut refused = 0;
    for seq in 1..=expected.through.0 {
        for size in [None, Some(expected.size)] {
            let proof = prove(&reader, seq, size).or_else(|why| {
                assert_eq!(why, Unproven::Behind, "{what}");
                refused += 1;
                prove(&reader, seq, size)
            });
            assert_eq!(&proof.unwrap().inclusion.root, expected, "{what}");
        }
    }
    assert!(refused <= 1, "{what}: made again {refused} times");
    for from in 1..=expected.size {
        assert_eq!(&consistency(&reader, from, expected.size).unwrap().to, expected, "{what}");
    }
}

#[test]
fn a_damaged_or_cut_file_is_noticed_and_made_again() {
    let storage = MemoryStorage::new();
    let log = written(&storage, 45);
    let expected = root(&log.reader());
    drop(log);
    let length = NODES_AT + NODE_BYTES * (2 * 45 - 4);
    storage.tamper(HISTORY_NAME, |bytes| assert_eq!(bytes.len(), length));
    let mut dice = Dice(0x5EED);
    for round in 0..60 {
        let bad = storage.fork();
        let at = dice.below(length as u64) as usize;
        bad.tamper(HISTORY_NAME, |bytes| bytes[at] ^= 1 << (round % 8));
        check_heals(&bad, &expected, &format!("byte {at}"));
    }
    for node in 0..86 {
        let bad = storage.fork();
        bad.tamper(HISTORY_NAME, |bytes| bytes[NODES_AT + node * NODE_BYTES..][..NODE_BYTES].fill(0));
        check_heals(&bad, &expected, &format!("node {node} is lost"));
    }
    for cut in (0..length).step_by(37) {
        let bad = storage.fork();
        bad.tamper(HISTORY_NAME, |bytes| bytes.truncate(cut));
        check_heals(&bad, &expected, &format!("cut at {cut}"));
    }
    let bad = storage.fork();
    bad.remove(HISTORY_NAME).unwrap();
    check_heals(&bad, &expected, "gone");
}

#[test]
fn after_a_power_loss_the_history_is_that_of_what_survived() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let storage = MemoryStorage::new();
        let mut log = written(&storage, 20);
        let reader = log.reader();
        root(&reader);
        append(&mut log, 17);
        root(&reader);
        let after = storage.crash(&mut || dice.below(2) == 0);
        let (log, _, _) = open(&after, SEGMENT).unwrap();
        let fresh = storage.fork();
        fresh.remove(HISTORY_NAME).unwrap();
        drop(log);
        let (log, _, _) = open(&fresh, SEGMENT).unwrap();
        let expected = root(&log.reader());
        check_heals(&after, &expected, &format!("seed {seed}"));
    }
}

/// Another history under the same identity: the ledger was restored from a backup and went on from there.
#[test]
fn a_file_of_another_course_of_the_ledger_is_not_believed() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 10);
    let backup = storage.fork();
    append(&mut log, 20);
    root(&log.reader());
    let (mut restored, _, _) = open(&backup, SEGMENT).unwrap();
    let other: Vec<LaneBatch> =
        (0..40).map(|n| lane_batch_of(0, 1, &[entry(Op::Issue, "", &format!("other/{n}"), 1, 0)])).collect();
    for (count, batches) in [(0, &other[..5]), (5, &other[5..])] {
        let first = restored.head().0 .0;
        assert!(count <= first);
        for batch in batches {
            restored.append(&[lane_batch_of(0, 1, std::slice::from_ref(&batch.bytes))]).unwrap();
        }
        let expected = root(&restored.reader());
        let mixed = backup.fork();
        let nodes = read_all(&storage);
        let file = mixed.create(HISTORY_NAME).unwrap();
        super::StorageFile::write_at(&file, &nodes, 0).unwrap();
        check_heals(&mixed, &expected, "restored");
    }
}

fn read_all(storage: &MemoryStorage) -> Vec<u8> {
    let file = storage.open(HISTORY_NAME).unwrap();
    let mut bytes = vec![0; super::ReadFile::size(&file).unwrap() as usize];
    super::ReadFile::read_at(&file, &mut bytes, 0).unwrap();
    bytes
}

#[test]
fn without_room_there_are_no_proofs_of_later_entries_and_nothing_else_fails() {
    let storage = MemoryStorage::new();
    let mut log = written(&storage, 10);
    let reader = log.reader();
    let before = root(&reader);
    append(&mut log, 5);
    storage.limit_bytes(Some(0));
    let later = log.head().0 .0;
    for _ in 0..3 {
        assert!(!reader.advance_history(1000).unwrap(), "a disk without room is not asked again at once");
        assert_eq!(prove(&reader, later, None), Err(Unproven::Behind));
        assert_eq!(reader.history(&HistoryQuestion::Root).unwrap(), HistoryAnswer::Root(Err(Unproven::Behind)));
        assert_eq!(prove(&reader, 1, None).unwrap().inclusion.root, before);
    }
    storage.limit_bytes(None);
    assert_eq!(prove(&reader, later, None).unwrap().inclusion.root.size, 15);
    storage.remove(HISTORY_NAME).unwrap();
    drop(log);
    let (log, _, _) = open(&storage, SEGMENT).unwrap();
    storage.limit_bytes(Some(0));
    let reader = log.reader();
    assert_eq!(prove(&reader, 1, None), Err(Unproven::Behind), "not even the file can be made");
    storage.limit_bytes(None);
    assert!(prove(&reader, 1, None).is_ok());
}

#[test]
fn a_damaged_segment_is_a_fault_of_the_ledger_and_not_of_the_history() {
    let storage = MemoryStorage::new();
    let log = written(&storage, 10);
    storage.tamper(&super::segment_name(1), |bytes| bytes[3 * 4096 + 200] ^= 1);
    let reader = log.reader();
    assert!(reader.history(&HistoryQuestion::Root).is_err());
    assert!(reader.history(&HistoryQuestion::Root).is_err(), "and stays one");
}

#[test]
fn in_idle_moments_a_segment_that_cannot_be_read_is_not_read_again_and_again() {
    let storage = MemoryStorage::new();
    let log = written(&storage, 10);
    let flip = || storage.rot(&super::segment_name(1), 3 * 4096 + 200, 1);
    let (reader, mut now) = (log.reader(), Instant::now());
    let mut idle = |after: Duration| {
        now += after;
        reader.advance_history_in_idle(1000, now)
    };
    flip();
    assert!(idle(Duration::ZERO).is_err());
    for _ in 0..59 {
        assert!(!idle(Duration::from_secs(1)).unwrap(), "it rests");
    }
    assert!(idle(Duration::from_secs(1)).is_err(), "and tries again");
    flip();
    assert!(!idle(Duration::from_secs(59)).unwrap());
    assert_eq!(reader.history_peaks().1, Seq(0));
    assert!(!idle(Duration::from_secs(1)).unwrap());
    assert_eq!(reader.history_peaks().1, log.head().0);
    // A question does not wait.
    drop(log);
    let (log, _, _) = open(&storage, SEGMENT).unwrap();
    let reader = log.reader();
    storage.remove(HISTORY_NAME).unwrap();
    flip();
    assert!(reader.advance_history_in_idle(1000, now).is_err());
    flip();
    assert_eq!(root(&reader).through, log.head().0);
}
