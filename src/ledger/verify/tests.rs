//! `verify` held against the truth: one fault of each kind is planted in a ledger of four segments, two snapshots, indexes and a history.
//! For each it must say where it is, what it is and what to do; and what it says of a start is what opening the ledger comes to.
use super::base::books_of;
use crate::domain::{Draft, Key, LogId, Op, Seq, UnixMs};
use crate::ledger::books::Books;
use crate::ledger::history_tests::root;
use crate::ledger::layout::{BatchHeader, SegmentHeader, BATCH_HEAD_BYTES, BLOCK_BYTES};
use crate::ledger::mark::EPOCH_NAME;
use crate::ledger::recovery::entries_of;
use crate::ledger::sample::{draft, entry, lane_batch_of, open};
use crate::ledger::scan::log_of;
use crate::ledger::snapshot::{newest_good, newest_whole, snapshot_name, Pace, Snapshot};
use crate::ledger::storage::index_name;
use crate::ledger::witness::WITNESS_NAME;
use crate::ledger::{
    segment_name, AuditWork, LedgerError, Log, MemoryStorage, Options, ReadFile, Refuted, Report, Start, Storage,
};
use crate::ledger::{StorageFile, Verification};
use std::ops::ControlFlow;

/// Six batches of one block each fit a segment.
pub(super) const SEGMENT: u64 = 8 * BLOCK_BYTES as u64;
pub(super) const HISTORY: &str = crate::ledger::history::HISTORY_NAME;
/// Behind these entries there are snapshots.
const SNAPSHOTS: [u64; 2] = [8, 14];

pub(super) fn issue(key: &str, ts: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Draft { key: Key::new(key).unwrap(), ts: UnixMs(ts), ..draft(Op::Issue, "", "a", 1_000, 0) }.encode(&mut bytes);
    bytes
}

/// Twenty entries, a batch each: `a` gets 1000 and sends `amount` to `b` nineteen times.
pub(super) fn ledger(amount: u128) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT).unwrap();
    for seq in 1..=20 {
        let bytes = match seq {
            1 => issue("issue-1", 1_700_000_000_000),
            _ => entry(Op::Transfer, "a", "b", amount, seq - 1),
        };
        log.append(&[lane_batch_of(0, seq, &[bytes])]).unwrap();
        if SNAPSHOTS.contains(&seq) {
            audit(&log, &storage).snapshot(&mut |_| Pace::AtOnce).unwrap();
        }
    }
    let reader = log.reader();
    while reader.index_one_segment().unwrap() {}
    root(&reader);
    drop(reader);
    log.close().unwrap();
    storage
}

pub(super) fn audit(log: &Log<MemoryStorage>, storage: &MemoryStorage) -> AuditWork<MemoryStorage> {
    let base = newest_good(storage, None, Seq(u64::MAX)).unwrap();
    let mut work = AuditWork::behind(&log.reader(), base, u64::MAX, [1, 2, 3, 4]);
    while work.step().unwrap() {}
    work
}

/// Opens the ledger as a server does and replays what follows the snapshot; where it began and where it ended.
pub(super) fn start(storage: &MemoryStorage) -> Result<(Option<Seq>, Seq), LedgerError> {
    let storage = storage.fork();
    let snapshot = newest_whole(&storage, log_of(&storage), Seq(u64::MAX), &|_| Ok(true), &mut || Ok(()))?;
    let mut books = snapshot.as_ref().map_or_else(|| Books::new([1, 2, 3, 4]), |snapshot| books_of(snapshot).unwrap());
    let options = Options::for_simulation(SEGMENT, LogId([8; 16]));
    let (log, recovery) = Log::open_behind(storage, &options, snapshot.as_ref().map(Snapshot::start), &mut |batch| {
        entries_of(batch, &mut |_, _, entry| books.apply(&entry))
    })?;
    let from = snapshot.map(|snapshot| snapshot.head().seq);
    if let Some(Seq(from)) = from {
        log.reader().keys_before(Seq(from + 1), UnixMs(0), &mut |_, _| ControlFlow::Continue(()))?;
    }
    Ok((from, recovery.head))
}

pub(super) fn verified(storage: &MemoryStorage) -> Result<Report, Refuted> {
    Verification::default().run(storage, &mut |_| ())
}

pub(super) fn flip(storage: &MemoryStorage, name: &str, at: usize) {
    storage.tamper(name, |bytes| bytes[at] ^= 1);
}

pub(super) fn copy(from: &MemoryStorage, to: &MemoryStorage, name: &str) {
    let file = from.open(name).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    to.create(name).unwrap().write_at(&bytes, 0).unwrap();
}

/// Where the batch with this entry begins in its segment.
pub(super) fn batch_at(seq: u64) -> (String, usize) {
    (segment_name((seq - 1) / 6 + 1), (2 + (seq as usize - 1) % 6) * BLOCK_BYTES)
}

pub(super) fn flip_batch(storage: &MemoryStorage, seq: u64, at: usize) {
    let (name, offset) = batch_at(seq);
    flip(storage, &name, offset + at);
}

/// Takes away all that says how far the log has reached.
fn unmark(storage: &MemoryStorage) {
    storage.remove(EPOCH_NAME).unwrap();
    storage.remove(WITNESS_NAME).unwrap();
}

/// Writes the epoch file of the ledger again, with these bytes changed and the right hash.
fn change_mark(storage: &MemoryStorage, change: impl Fn(&mut [u8])) {
    storage.tamper(EPOCH_NAME, |bytes| {
        change(bytes);
        let hash = *blake3::hash(&bytes[..88]).as_bytes();
        bytes[88..].copy_from_slice(&hash);
    });
}

/// What verification must come to.
enum Verdict {
    /// Whole, with remarks about this file.
    Remark(&'static str),
    Fault(&'static str),
}
use Verdict::{Fault, Remark};

/// What a start must come to: from this snapshot on, or refused.
pub(super) type Begins = Option<Option<u64>>;
pub(super) const NEWEST: Begins = Some(Some(14));
const REFUSED: Begins = None;

struct Case {
    name: &'static str,
    plant: fn(&MemoryStorage),
    verdict: Verdict,
    /// The file in which it is.
    place: String,
    /// What is said, and what to do.
    says: &'static [&'static str],
    start: Begins,
}

fn case(
    name: &'static str,
    plant: fn(&MemoryStorage),
    verdict: Verdict,
    place: String,
    says: &'static [&'static str],
    start: Begins,
) -> Case {
    Case { name, plant, verdict, place, says, start }
}

fn kind(fault: &LedgerError) -> &'static str {
    match fault {
        LedgerError::Damaged { .. } => "damaged",
        LedgerError::Broken { .. } => "inconsistent",
        LedgerError::Unsupported { .. } => "unsupported",
        LedgerError::Incomplete { .. } | LedgerError::Mendable { missing: true, .. } => "incomplete",
        LedgerError::Mendable { missing: false, .. } => "damaged",
        other => panic!("{other}"),
    }
}

fn cases() -> Vec<Case> {
    let segment = segment_name;
    let snapshot = |seq| snapshot_name(Seq(seq));
    vec![
        case(
            "a bit in the header of a batch behind the snapshots",
            |l| flip_batch(l, 16, 20),
            Fault("damaged"),
            segment(3),
            &["at byte 20480", "entry 16 is expected", "restore this file"],
            REFUSED,
        ),
        case(
            "the same before them",
            |l| flip_batch(l, 3, 20),
            Fault("damaged"),
            segment(1),
            &["at byte 16384", "entry 3 is expected"],
            NEWEST,
        ),
        case(
            "a bit in a body behind the snapshots",
            |l| flip_batch(l, 16, BATCH_HEAD_BYTES + 30),
            Fault("damaged"),
            segment(3),
            &["at byte 20480", "entry 16", "hash"],
            REFUSED,
        ),
        case(
            "the same before them",
            |l| flip_batch(l, 9, BATCH_HEAD_BYTES + 30),
            Fault("damaged"),
            segment(2),
            &["entry 9", "hash"],
            NEWEST,
        ),
        case(
            "a bit in the last batch, which was noted",
            |l| flip_batch(l, 20, 200),
            Fault("damaged"),
            segment(4),
            &["entry 20", "durable up to entry 20"],
            REFUSED,
        ),
        case(
            "a bit in the padding",
            |l| flip_batch(l, 2, BLOCK_BYTES - 1),
            Fault("damaged"),
            segment(1),
            &["entry 2", "padding"],
            NEWEST,
        ),
        case(
            "two batches in each other's place",
            |l| {
                l.tamper(&segment_name(3), |bytes| {
                    let (left, right) = bytes[3 * BLOCK_BYTES..].split_at_mut(BLOCK_BYTES);
                    left.swap_with_slice(&mut right[..BLOCK_BYTES]);
                })
            },
            Fault("damaged"),
            segment(3),
            &["entry 14", "was written for segment 3 byte"],
            REFUSED,
        ),
        case(
            "a bit in one copy of a segment header",
            |l| flip(l, &segment_name(2), 40),
            Remark("one of the two copies"),
            segment(2),
            &["at byte 0", "restore this file"],
            NEWEST,
        ),
        case(
            "a bit in the other copy",
            |l| flip(l, &segment_name(2), BLOCK_BYTES + 40),
            Remark("one of the two copies"),
            segment(2),
            &["at byte 4096"],
            NEWEST,
        ),
        case(
            "a bit in both copies",
            |l| [40, BLOCK_BYTES + 40].iter().for_each(|at| flip(l, &segment_name(2), *at)),
            Fault("damaged"),
            segment(2),
            &["neither copy"],
            REFUSED,
        ),
        case(
            "a segment header of another ledger",
            |l| {
                l.tamper(&segment_name(2), |bytes| {
                    let (log_id, index, prev) = (LogId([8; 16]), 2, [0; 32]);
                    let header = SegmentHeader { log_id, index, segment_bytes: SEGMENT, first_seq: Seq(7), prev };
                    bytes[..2 * BLOCK_BYTES].copy_from_slice(&header.encode().repeat(2));
                })
            },
            Fault("incomplete"),
            segment(2),
            &["another ledger"],
            REFUSED,
        ),
        case(
            "a batch of another ledger",
            |l| {
                l.tamper(&batch_at(16).0, |bytes| {
                    let at = batch_at(16).1;
                    let (mut header, _) = BatchHeader::decode(&bytes[at..at + BATCH_HEAD_BYTES]).unwrap();
                    header.log_id = LogId([8; 16]);
                    bytes[at..at + BATCH_HEAD_BYTES].copy_from_slice(&header.encode().0);
                })
            },
            Fault("damaged"),
            segment(3),
            &["entry 16", "batch of another ledger"],
            REFUSED,
        ),
        case(
            "a segment that is missing",
            |l| l.remove(&segment_name(2)).unwrap(),
            Fault("incomplete"),
            String::new(),
            &["segment-0000000002.log is missing", "put back that one file", "do not restore the whole directory"],
            REFUSED,
        ),
        case(
            "the last segment missing",
            |l| l.remove(&segment_name(4)).unwrap(),
            Fault("incomplete"),
            String::new(),
            &["segment-0000000004.log is missing"],
            REFUSED,
        ),
        case(
            "a file cut short in front",
            |l| l.tamper(&segment_name(1), |bytes| bytes.truncate(4 * BLOCK_BYTES)),
            Fault("damaged"),
            segment(1),
            &["entries 3 to 6 are missing", "the file has 16384 bytes, its header says 32768"],
            NEWEST,
        ),
        case(
            "a file cut short behind",
            |l| l.tamper(&segment_name(3), |bytes| bytes.truncate(6 * BLOCK_BYTES)),
            Fault("damaged"),
            segment(3),
            &["entries 17 to 18 are missing"],
            REFUSED,
        ),
        case(
            "the last file cut short",
            |l| l.tamper(&segment_name(4), |bytes| bytes.truncate(2 * BLOCK_BYTES)),
            Fault("damaged"),
            segment(4),
            &["durable up to entry 20", "the file has 8192 bytes, its header says 32768"],
            REFUSED,
        ),
        case(
            "a bit in the epoch file",
            |l| flip(l, EPOCH_NAME, 33),
            Fault("damaged"),
            EPOCH_NAME.into(),
            &["does not match its own hash", "do not restore the directory", "move this file aside, and start"],
            REFUSED,
        ),
        case(
            "an epoch file of another ledger",
            |l| change_mark(l, |bytes| bytes[16] ^= 1),
            Fault("incomplete"),
            segment(1),
            &["or the file `epoch` does"],
            REFUSED,
        ),
        case(
            "an epoch file that knows more",
            |l| change_mark(l, |bytes| bytes[40] = 25),
            Fault("damaged"),
            segment(4),
            &["durable up to entry 25"],
            REFUSED,
        ),
        case(
            "a bit in the witness",
            |l| flip(l, WITNESS_NAME, 3 * 512 + 50),
            Remark("1 of the 8 marks in it are damaged"),
            WITNESS_NAME.into(),
            &["very last batch"],
            NEWEST,
        ),
        case("no epoch file", unmark, Remark("it is missing"), EPOCH_NAME.into(), &["a start warns", "no other server"], NEWEST),
        case(
            "a bit in the newest snapshot",
            |l| flip(l, &snapshot_name(Seq(14)), 4_200),
            Fault("damaged"),
            snapshot(14),
            &["a start passes it over"],
            Some(Some(8)),
        ),
        case(
            "the same in the older one",
            |l| flip(l, &snapshot_name(Seq(8)), 4_200),
            Fault("damaged"),
            snapshot(8),
            &["a start passes it over"],
            NEWEST,
        ),
        case(
            "a snapshot with a wrong balance",
            |l| {
                // Of a ledger in which all spends were larger, as if it had been taken here.
                let other = ledger(2);
                let (right, _, _) = open(&l.fork(), SEGMENT).unwrap();
                let (wrong, _, _) = open(&other, SEGMENT).unwrap();
                [&other, l].iter().for_each(|storage| storage.remove(&snapshot_name(Seq(14))).unwrap());
                let cut = |log: &Log<MemoryStorage>, storage: &MemoryStorage| audit(log, storage).cut;
                let mut work = audit(&wrong, &other);
                work.cut = cut(&right, l);
                work.snapshot(&mut |_| Pace::AtOnce).unwrap();
                copy(&other, l, &snapshot_name(Seq(20)));
            },
            Fault("damaged"),
            snapshot(20),
            &["it has a with 962 roc free", "brought it to 981", "a start may believe it: remove"],
            Some(Some(20)),
        ),
        case(
            "a snapshot of another ledger",
            |l| {
                let other = MemoryStorage::new();
                let (mut log, _) =
                    Log::open(other.clone(), &Options::for_simulation(SEGMENT, LogId([8; 16])), &mut |_, _, _| Ok(())).unwrap();
                for seq in 1..=16 {
                    log.append(&[lane_batch_of(0, seq, &[issue(&format!("i-{seq}"), 1)])]).unwrap();
                }
                audit(&log, &other).snapshot(&mut |_| Pace::AtOnce).unwrap();
                copy(&other, l, &snapshot_name(Seq(16)));
            },
            Remark("one of another ledger"),
            snapshot(16),
            &["a start passes it over"],
            NEWEST,
        ),
        case(
            "a snapshot that is newer than the log's end",
            |l| {
                unmark(l);
                l.tamper(&segment_name(3), |bytes| bytes[3 * BLOCK_BYTES..].fill(0));
                l.remove(&segment_name(4)).unwrap();
            },
            Fault("incomplete"),
            snapshot(14),
            &["up to 14, and the log ends with entry 13", "from a backup", "ledger restore --from", "remove this snapshot"],
            REFUSED,
        ),
        case(
            "a bit in the head of an index",
            |l| flip(l, &index_name(2), 40),
            Remark("index is damaged at byte 0"),
            index_name(2),
            &["makes it again"],
            NEWEST,
        ),
        case(
            "a bit in a block of an index",
            |l| flip(l, &index_name(1), 5_000),
            Remark("index is damaged at byte 4096"),
            index_name(1),
            &["makes it again"],
            NEWEST,
        ),
        case(
            "a bit in the head of the history",
            |l| flip(l, HISTORY, 40),
            Remark(""),
            HISTORY.into(),
            &["makes it again"],
            NEWEST,
        ),
        case(
            "a bit in a node of the history",
            |l| flip(l, HISTORY, BLOCK_BYTES + 48 * 5 + 3),
            Remark("damaged"),
            HISTORY.into(),
            &["makes it again"],
            NEWEST,
        ),
    ]
}

#[test]
fn each_fault_is_named_with_its_place_and_a_start_does_what_is_said() {
    let good = ledger(1);
    let report = verified(&good).unwrap();
    assert_eq!((&report.remarks[..], report.head), (&[][..], Seq(20)));
    assert_eq!(
        (report.start, start(&good).unwrap()),
        (Start::Serves { snapshot: Some(Seq(14)), entries: 6 }, (Some(Seq(14)), Seq(20)))
    );
    for Case { name, plant, verdict, place, says, start: begins } in cases() {
        let storage = good.fork();
        plant(&storage);
        let (text, said) = match (verified(&storage), verdict) {
            (Err(refuted), Fault(expected)) => {
                assert_eq!(kind(&refuted.fault), expected, "{name}: {refuted}");
                (refuted.to_string(), refuted.start.expect("the disk can be read"))
            }
            (Ok(report), Remark(what)) => {
                let [remark] = &report.remarks[..] else { panic!("{name}: {:?}", report.remarks) };
                assert!(remark.what.contains(what), "{name}: {remark:?}");
                (format!("{} {} {}", remark.file, remark.what, remark.next), report.start)
            }
            (Ok(report), Fault(_)) => panic!("{name}: nothing was found: {report:?}"),
            (Err(refuted), Remark(_)) => panic!("{name}: {refuted}"),
        };
        for part in says.iter().copied().chain([&*place]) {
            assert!(text.contains(part), "{name}: {part} is missing in: {text}");
        }
        check_start(name, &storage, &said, begins);
    }
}

pub(super) fn check_start(name: &str, storage: &MemoryStorage, said: &Start, begins: Begins) {
    match (said, begins, start(storage)) {
        (Start::Serves { snapshot, entries }, Some(expected), Ok((from, head))) => {
            assert_eq!((*snapshot, from), (expected.map(Seq), expected.map(Seq)), "{name}");
            assert_eq!(*entries, head.0 - from.map_or(0, |from| from.0), "{name}");
        }
        (Start::Refuses(why), None, Err(fault)) => assert_eq!(**why, *fault.to_string(), "{name}"),
        (said, _, came) => panic!("{name}: said {said:?}, came {came:?}"),
    }
}
