//! Scrubbing on a disk in memory: what rots, cannot be read, goes away or comes back, over restarts, and what is done about it.
use super::check::{self, Verdict};
use super::paced::{Paced, PIECE_BYTES};
use super::state::{ScrubPass, ScrubState, SCRUB_NAME};
use super::work::{Next, Work};
use super::{Scrubber, Scrubbing};
use crate::domain::{LogId, Question, Seq, UnixMs};
use crate::ledger::layout::{BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use crate::ledger::memory::{Faults, MemoryStorage, ReadFault, SyncFault};
use crate::ledger::reader::Reader;
use crate::ledger::sample::{lane_batch, open};
use crate::ledger::snapshot::{newest_good, snapshot_name, snapshots};
use crate::ledger::storage::{index_name, segment_name, ReadFile, Storage, StorageFile};
use crate::ledger::{restore, Auditor, Log, Options, Schedule, Walk};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 4 * BLOCK_BYTES as u64;
const EVERY: Duration = Duration::from_secs(1000);
const SCRUBBING: Scrubbing = Scrubbing { every: EVERY, bytes_per_second: u64::MAX };
const BEGIN: UnixMs = UnixMs(1_700_000_000_000);

/// Two batches a segment, four segments, of which three are sealed and indexed, and a snapshot of all of it.
fn written() -> (MemoryStorage, Log<MemoryStorage>, Reader<MemoryStorage>) {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT).unwrap();
    (0..8).for_each(|batch| assert!(log.append(&[lane_batch(1, 1 + 3 * batch, 3)]).is_ok()));
    let reader = log.reader();
    while reader.index_one_segment().unwrap() {}
    Auditor::spawn(&reader, None, Schedule::no_snapshots(), None).unwrap().close();
    assert_eq!(snapshots(&storage.list().unwrap()), [Seq(24)]);
    (storage, log, reader)
}

fn work(reader: &Reader<MemoryStorage>) -> Work<MemoryStorage> {
    Work::new(reader, SCRUBBING, Box::new(|_, _| true))
}

/// Steps until a pass has ended; what it came to.
fn pass(work: &mut Work<MemoryStorage>, storage: &MemoryStorage, now: UnixMs) -> ScrubPass {
    assert_eq!(work.step(now), Next::Now, "a pass is due");
    for _ in 0..100 {
        assert_eq!(work.step(now), Next::Now);
        let state = ScrubState::read(storage).unwrap().unwrap_or_default();
        if let (Some(last), None) = (state.last, state.pass) {
            if last.at == now {
                return last;
            }
        }
    }
    panic!("the pass does not end");
}

fn damaged(storage: &MemoryStorage) -> Vec<String> {
    ScrubState::read(storage).unwrap().unwrap().damaged.into_iter().collect()
}

fn later(now: UnixMs) -> UnixMs {
    UnixMs(now.0 + EVERY.as_millis() as u64)
}

#[test]
fn a_pass_reads_every_sealed_file_once_and_the_next_one_ends_an_interval_later() {
    let (storage, mut log, reader) = written();
    let mut work = work(&reader);
    let first = pass(&mut work, &storage, BEGIN);
    assert_eq!((first.files, first.damaged), (8, 0), "four segments, three indexes, the snapshot");
    assert!(first.bytes >= 3 * SEGMENT, "{first:?}");
    assert_eq!((work.figures().last_end, work.figures().damaged), (BEGIN, [0; 3]));
    assert_eq!(work.step(BEGIN), Next::At(later(BEGIN)));
    assert_eq!(work.step(UnixMs(later(BEGIN).0 - 1)), Next::At(later(BEGIN)));
    // What was sealed meanwhile belongs to the next pass; its index is not there yet.
    (8..10).for_each(|batch| assert!(log.append(&[lane_batch(1, 1 + 3 * batch, 3)]).is_ok()));
    assert_eq!(pass(&mut work, &storage, later(BEGIN)).files, 9);
}

#[test]
fn whatever_bit_of_a_sealed_segment_rots_is_found_and_only_a_good_copy_ends_that() {
    let (original, _log, _) = written();
    let bytes = |storage: &MemoryStorage| {
        let mut bytes = Vec::new();
        storage.tamper(&segment_name(2), |content| bytes.clone_from(content));
        bytes
    };
    // Both copies of the header, head, body and padding of both batches, and the zeros behind them.
    let heads = [0, 10, BLOCK_BYTES as u64 + 4000];
    let batches = [0, 100, 190, 300, 4095].map(|at| SEGMENT_HEAD_BYTES + at);
    let second = [0, 4095].map(|at| SEGMENT_HEAD_BYTES + BLOCK_BYTES as u64 + at);
    for offset in heads.into_iter().chain(batches).chain(second) {
        let storage = original.fork();
        let (log, ..) = open(&storage, SEGMENT).unwrap();
        let reader = log.reader();
        let mut work = work(&reader);
        let whole = bytes(&storage);
        storage.rot(&segment_name(2), offset, 4);
        let found = pass(&mut work, &storage, BEGIN);
        assert_eq!((found.damaged, damaged(&storage)), (1, vec![segment_name(2)]), "byte {offset}");
        assert_eq!(work.figures().damaged, [1, 0, 0]);
        // It stays known, and is counted again, until the file is good.
        assert_eq!(pass(&mut work, &storage, later(BEGIN)).damaged, 1);
        storage.tamper(&segment_name(2), |content| *content = whole);
        let good = pass(&mut work, &storage, later(later(BEGIN)));
        assert_eq!((good.damaged, damaged(&storage), work.figures().damaged), (0, vec![], [0; 3]));
    }
}

#[test]
fn what_has_rotted_is_refused_and_not_served() {
    let (storage, _log, reader) = written();
    storage.rot(&segment_name(1), SEGMENT_HEAD_BYTES + 300, 1);
    assert_eq!(pass(&mut work(&reader), &storage, BEGIN).damaged, 1);
    let told = reader.find(&Question::At(Seq(1))).unwrap_err().to_string();
    assert!(told.contains("does not match"), "{told}");
    assert!(reader.find(&Question::At(Seq(7))).unwrap().is_some(), "other segments are");
}

#[test]
fn a_segment_that_does_not_continue_the_one_before_or_is_gone_is_damage() {
    let (storage, _log, reader) = written();
    // Intact by all of its own hashes: a segment of another history in the place of the third.
    let other = MemoryStorage::new();
    let (mut log, ..) = open(&other, SEGMENT).unwrap();
    (0..8).for_each(|batch| assert!(log.append(&[lane_batch(2, 1 + 3 * batch, 3)]).is_ok()));
    let mut foreign = Vec::new();
    other.tamper(&segment_name(3), |content| foreign.clone_from(content));
    let mut own = Vec::new();
    storage.tamper(&segment_name(3), |content| own = std::mem::replace(content, foreign));
    let mut work = work(&reader);
    assert_eq!(pass(&mut work, &storage, BEGIN).damaged, 2);
    assert_eq!(damaged(&storage), [segment_name(2), segment_name(3)], "neither side fits the other");
    storage.tamper(&segment_name(3), |content| *content = own);
    storage.remove(&segment_name(1)).unwrap();
    assert_eq!((pass(&mut work, &storage, later(BEGIN)).damaged, damaged(&storage)), (1, vec![segment_name(1)]));
}

#[test]
fn a_damaged_index_is_dropped_and_made_again() {
    let (storage, _log, reader) = written();
    let mut whole = Vec::new();
    storage.tamper(&index_name(2), |content| whole.clone_from(content));
    for offset in [20, whole.len() as u64 - 1] {
        let mut work = work(&reader);
        let now = UnixMs(BEGIN.0 + 2 * offset * EVERY.as_millis() as u64);
        storage.rot(&index_name(2), offset, 1);
        assert_eq!(pass(&mut work, &storage, now).damaged, 1, "byte {offset}");
        assert!(!storage.list().unwrap().contains(&index_name(2)), "dropped");
        assert_eq!((work.figures().damaged, damaged(&storage)), ([0, 1, 0], vec![index_name(2)]), "and told of");
        assert!(reader.index_one_segment().unwrap(), "an idle moment makes it again");
        storage.tamper(&index_name(2), |content| assert_eq!(*content, whole));
        assert_eq!((pass(&mut work, &storage, later(now)).damaged, work.figures().damaged), (0, [0; 3]));
    }
}

#[test]
fn a_damaged_snapshot_is_told_and_left_alone() {
    let (storage, _log, reader) = written();
    let name = snapshot_name(Seq(24));
    let mut size = 0;
    storage.tamper(&name, |content| size = content.len() as u64);
    for offset in [30, BLOCK_BYTES as u64 + 60, size - 1] {
        let bad = storage.fork();
        let (log, ..) = open(&bad, SEGMENT).unwrap();
        bad.rot(&name, offset, 1);
        let mut work = work(&log.reader());
        assert_eq!((pass(&mut work, &bad, BEGIN).damaged, damaged(&bad)), (1, vec![name.clone()]), "byte {offset}");
        assert_eq!(work.figures().damaged, [0, 0, 1]);
        // The auditor keeps two: this one goes in its time, and nothing is told of it any more.
        bad.remove(&name).unwrap();
        assert_eq!((pass(&mut work, &bad, later(BEGIN)).damaged, work.figures().damaged), (0, [0; 3]));
    }
    assert_eq!(
        check::snapshot(&storage, LogId([9; 16]), Seq(24)),
        Verdict::Damaged(check::Fault {
            offset: 0,
            what: "it is one of another ledger, or of another place".into(),
            unjudged: false
        })
    );
    assert_eq!(check::snapshot(&storage, reader.log_id(), Seq(9)), Verdict::Gone);
}

/// Opens the log behind its newest snapshot, as a server does.
fn reopened(storage: &MemoryStorage) -> Log<MemoryStorage> {
    let newest = newest_good(storage, None, Seq(u64::MAX)).unwrap();
    let options = Options::for_simulation(SEGMENT, LogId([7; 16]));
    Log::open_after(storage.clone(), &options, newest.as_ref(), &mut |_, _, _| Ok(())).unwrap().0
}

#[test]
fn a_segment_that_was_damaged_and_then_archived_is_not_called_damaged_for_ever() {
    let (storage, log, reader) = written();
    for name in [segment_name(1), index_name(2)] {
        storage.rot(&name, 20, 1);
    }
    assert_eq!(pass(&mut work(&reader), &storage, BEGIN).damaged, 2);
    assert_eq!(damaged(&storage), [index_name(2), segment_name(1)]);
    drop((log, reader));
    // Somebody has mended the segment, and archived both before it was read again.
    [1, 2].iter().for_each(|segment| storage.remove(&segment_name(*segment)).unwrap());
    assert_eq!(Walk::open(storage.clone()).unwrap().scrub().unwrap().unwrap().figures().damaged, [0; 3]);
    let log = reopened(&storage);
    let mut work = work(&log.reader());
    assert_eq!((work.figures().damaged, damaged(&storage)), ([0; 3], vec![]), "also for whoever reads the file");
    assert_eq!(pass(&mut work, &storage, later(BEGIN)).damaged, 0);
    // One that the log has and that is gone from the disk is damage, archived or not.
    storage.remove(&segment_name(3)).unwrap();
    assert_eq!((pass(&mut work, &storage, later(later(BEGIN))).damaged, damaged(&storage)), (1, vec![segment_name(3)]));
}

#[test]
fn damage_in_the_segment_that_is_being_written_is_found_as_far_as_it_is_durable() {
    let (storage, log, reader) = written();
    let mut work = work(&reader);
    for (offset, expected) in
        [(100, 1), (BLOCK_BYTES as u64 + 9, 1), (2 * BLOCK_BYTES as u64 + 30, 1), (3 * BLOCK_BYTES as u64 + 250, 1)]
    {
        storage.rot(&segment_name(4), offset, 1);
        assert_eq!(
            pass(&mut work, &storage, UnixMs(BEGIN.0 + offset * EVERY.as_millis() as u64)).damaged,
            expected,
            "at {offset}"
        );
        assert_eq!(damaged(&storage), [segment_name(4)]);
        storage.rot(&segment_name(4), offset, 1);
    }
    drop(log);
}

#[test]
fn where_nothing_is_there_nothing_is_said_to_have_been_read() {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT).unwrap();
    let reader = log.reader();
    let mut work = work(&reader);
    for now in [BEGIN, later(BEGIN)] {
        assert_eq!(work.step(now), Next::At(later(now)));
        assert_eq!((work.figures().last_end, ScrubState::read(&storage).unwrap()), (UnixMs(0), None));
    }
    // The first pass begins as soon as there is something.
    log.append(&[lane_batch(1, 1, 3)]).unwrap();
    let first = pass(&mut work, &storage, UnixMs(BEGIN.0 + 1));
    assert_eq!((first.files, work.figures().last_end), (1, UnixMs(BEGIN.0 + 1)), "the segment that is being written");

    // All that a pass was to read, the snapshot of a restored ledger, goes before it comes there.
    Auditor::spawn(&log.reader(), None, Schedule::no_snapshots(), None).unwrap().close();
    let (restored, name) = (MemoryStorage::new(), snapshot_name(Seq(3)));
    let snapshot = restore(&storage, &name, &restored, SEGMENT).unwrap();
    let options = Options::for_simulation(SEGMENT, LogId([7; 16]));
    let (log, _) = Log::open_after(restored.clone(), &options, Some(&snapshot), &mut |_, _, _| Ok(())).unwrap();
    let mut work = self::work(&log.reader());
    assert_eq!(work.step(BEGIN), Next::Now);
    restored.remove(&name).unwrap();
    assert_eq!((work.step(BEGIN), work.figures().last_end), (Next::At(later(BEGIN)), UnixMs(0)));
}

/// A disk on which the readings of one file fail so many times.
struct Unreadable {
    file: String,
    times: u32,
}

impl Faults for Unreadable {
    fn read(&mut self, file: &str, _: u64, _: usize) -> Option<ReadFault> {
        if file != self.file || self.times == 0 {
            return None;
        }
        self.times -= 1;
        Some(ReadFault::Error)
    }
}

#[test]
fn a_latent_read_error_is_found_and_one_that_passes_is_not_called_damage() {
    for (times, expected) in [(1, 0), (u32::MAX, 1)] {
        let (storage, _log, reader) = written();
        storage.set_faults(Arc::new(Mutex::new(Unreadable { file: segment_name(2), times })));
        let found = pass(&mut work(&reader), &storage, BEGIN);
        assert_eq!((found.files, found.damaged), (8, expected), "{times} errors");
    }
}

/// The disk has lost what the cache of the system still shows: only a reading past the cache can tell.
#[test]
fn it_is_read_past_the_cache() {
    struct Loses;
    impl Faults for Loses {
        fn sync(&mut self, file: &str) -> Option<SyncFault> {
            (file == segment_name(2)).then_some(SyncFault::Lost)
        }
    }
    let storage = MemoryStorage::new();
    storage.set_faults(Arc::new(Mutex::new(Loses)));
    let (mut log, ..) = open(&storage, SEGMENT).unwrap();
    (0..8).for_each(|batch| assert!(log.append(&[lane_batch(1, 1 + 3 * batch, 3)]).is_ok()));
    let reader = log.reader();
    assert!(reader.find(&Question::At(Seq(7))).unwrap().is_some(), "the cache has it");
    assert_eq!(pass(&mut work(&reader), &storage, BEGIN).damaged, 1);
    assert_eq!(damaged(&storage), [segment_name(2)]);
}

#[test]
fn a_restart_goes_on_where_the_last_process_was() {
    let (storage, _log, reader) = written();
    storage.rot(&segment_name(1), 10, 1);
    let mut first = work(&reader);
    // The pass begins, and two segments with their indexes are read.
    (0..3).for_each(|_| assert_eq!(first.step(BEGIN), Next::Now));
    first.save(BEGIN);
    drop(first);
    let state = ScrubState::read(&storage).unwrap().unwrap();
    assert_eq!((state.next_segment, state.pass.unwrap().files, state.pass.unwrap().damaged), (3, 4, 1));

    let mut second = work(&reader);
    assert_eq!(second.figures().damaged, [1, 0, 0], "what was found is still known");
    // The first one was restored meanwhile; this pass does not come there again.
    storage.rot(&segment_name(1), 10, 1);
    let now = UnixMs(BEGIN.0 + 5);
    let mut steps = 0;
    while ScrubState::read(&storage).unwrap().unwrap().last.is_none() {
        assert_eq!(second.step(now), Next::Now);
        steps += 1;
    }
    assert_eq!(steps, 4, "one sealed segment, the one that is written, the snapshot, the end");
    let last = ScrubState::read(&storage).unwrap().unwrap().last.unwrap();
    assert_eq!((last.at, last.files, last.damaged), (now, 8, 1));
    assert_eq!(work(&reader).step(now), Next::At(later(now)), "and the next process waits for the next interval");

    for spoil in [b"nonsense".to_vec(), Vec::new()] {
        storage.tamper(SCRUB_NAME, |content| *content = spoil);
        assert_eq!(work(&reader).step(now), Next::Now, "without the file the first pass begins again");
    }
}

#[test]
fn the_file_of_another_ledger_is_not_believed() {
    let (storage, _log, reader) = written();
    let foreign =
        ScrubState { log_id: LogId([9; 16]), last: Some(ScrubPass { at: BEGIN, ..ScrubPass::default() }), ..Default::default() };
    foreign.write(&storage).unwrap();
    assert_eq!(work(&reader).figures().last_end, UnixMs(0));
    assert_eq!(pass(&mut work(&reader), &storage, BEGIN).files, 8);
}

#[test]
fn a_full_disk_ends_no_pass() {
    let (storage, _log, reader) = written();
    storage.limit_bytes(Some(0));
    let mut work = work(&reader);
    (0..7).for_each(|_| assert_eq!(work.step(BEGIN), Next::Now));
    assert_eq!(work.step(BEGIN), Next::At(later(BEGIN)), "it has ended although nothing could be written down");
    assert_eq!(work.figures().last_end, BEGIN);
}

#[test]
fn every_reading_is_followed_by_a_rest_and_none_by_another_reading_once_it_is_told_to_end() {
    let (storage, _log, reader) = written();
    let rested = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&rested);
    let mut work = Work::new(
        &reader,
        SCRUBBING,
        Box::new(move |bytes, _| {
            let mut told = told.lock().unwrap();
            told.push(bytes);
            told.len() < 9
        }),
    );
    (0..20).for_each(|_| assert!(matches!(work.step(BEGIN), Next::Now | Next::At(_))));
    let rests = rested.lock().unwrap();
    assert_eq!(rests.len(), 9);
    assert!(rests.iter().sum::<u64>() > 2 * SEGMENT && rests.iter().all(|bytes| *bytes <= PIECE_BYTES as u64), "{rests:?}");
    work.save(BEGIN);
    let state = ScrubState::read(&storage).unwrap().unwrap();
    let pass = state.pass.unwrap();
    assert!(state.last.is_none() && state.damaged.is_empty() && pass.damaged == 0, "what was cut off is no damage: {state:?}");
    assert!((1..4).contains(&state.next_segment), "{state:?}");
}

/// Wherever a process ends within a pass, the next one brings it to an end in which every file counts once.
#[test]
fn a_pass_that_is_interrupted_counts_every_file_once() {
    let (original, _log, _) = written();
    for readings in 1.. {
        let storage = original.fork();
        let (log, ..) = open(&storage, SEGMENT).unwrap();
        storage.rot(&segment_name(2), SEGMENT_HEAD_BYTES + 300, 1);
        let left = Mutex::new(readings);
        let after = move |_, _| {
            let mut left = left.lock().unwrap();
            *left -= 1;
            *left > 0
        };
        let mut first = Work::new(&log.reader(), SCRUBBING, Box::new(after));
        for _ in 0..12 {
            first.step(BEGIN);
        }
        first.save(BEGIN);
        if ScrubState::read(&storage).unwrap().unwrap().last.is_some() {
            assert!(readings > 10, "only {readings} readings in all");
            return;
        }
        let mut second = work(&log.reader());
        for _ in 0..6 {
            second.step(BEGIN);
        }
        let last = ScrubState::read(&storage).unwrap().unwrap().last.expect("it has ended");
        assert_eq!((last.files, last.damaged), (8, 1), "the first process ended after {readings} readings");
    }
}

#[test]
fn a_pass_ends_although_there_is_always_a_newer_snapshot() {
    let (storage, _log, reader) = written();
    let mut work = work(&reader);
    let mut newer = 24;
    while ScrubState::read(&storage).unwrap().unwrap_or_default().last.is_none() {
        newer += 1;
        assert!(newer < 50, "the pass does not end");
        storage.create(&snapshot_name(Seq(newer))).unwrap();
        work.step(BEGIN);
    }
    assert_eq!(ScrubState::read(&storage).unwrap().unwrap().last.unwrap().files, 8);
}

/// So many listings fail.
struct Unlisted(u32);

impl Faults for Unlisted {
    fn list(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

#[test]
fn a_pass_does_not_end_before_the_snapshots_could_be_listed() {
    let (storage, _log, reader) = written();
    let mut work = work(&reader);
    // It begins, and reads three sealed segments and the one that is written.
    (0..5).for_each(|_| assert_eq!(work.step(BEGIN), Next::Now));
    storage.set_faults(Arc::new(Mutex::new(Unlisted(3))));
    let again = |at: u64| UnixMs(BEGIN.0 + at * 60_000);
    assert_eq!((work.step(BEGIN), work.step(again(1))), (Next::At(again(1)), Next::At(again(2))));
    assert_eq!(work.figures().last_end, UnixMs(0));
    assert_eq!((work.step(again(2)), work.step(again(2))), (Next::Now, Next::Now), "the snapshot, the end");
    assert_eq!((work.figures().last_end, ScrubState::read(&storage).unwrap().unwrap().last.unwrap().files), (again(2), 8));
}

#[test]
fn large_readings_are_made_in_pieces_with_a_rest_after_each() {
    let storage = MemoryStorage::new();
    let content: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at / 7) as u8).collect();
    storage.create("a").unwrap().write_at(&content, 0).unwrap();
    let rested = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&rested);
    let paced = Paced::new(storage, Box::new(move |bytes, _| told.lock().map(|mut told| told.push(bytes as usize)).is_ok()));
    let mut buffer = vec![0; 4 * PIECE_BYTES];
    let read = paced.open("a").unwrap().read_at(&mut buffer, 1).unwrap();
    assert_eq!((read, &buffer[..read]), (content.len() - 1, &content[1..]));
    assert_eq!(*rested.lock().unwrap(), [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 4]);
    assert_eq!(paced.bytes(), read as u64);
}

#[test]
fn what_is_scrubbed_cannot_be_changed() {
    let (storage, ..) = written();
    let paced = Paced::new(storage.clone(), Box::new(|_, _| true));
    assert!(paced.create("a").is_err() && paced.remove(&segment_name(1)).is_err() && paced.lock().is_err());
    assert!(paced.rename(&segment_name(1), "a").is_err() && paced.sync_directory().is_err());
    let file = paced.open(&segment_name(1)).unwrap();
    assert!(file.write_at(&[1], 0).is_err() && file.sync().is_err());
}

#[test]
fn the_thread_makes_its_passes_tells_what_it_found_and_ends_at_once() {
    let (storage, _log, reader) = written();
    storage.rot(&segment_name(3), SEGMENT_HEAD_BYTES + 300, 1);
    let scrubber = Scrubber::spawn(&reader, Scrubbing { every: Duration::from_millis(1), ..SCRUBBING }).unwrap();
    let began = Instant::now();
    while scrubber.figures().last_end == UnixMs(0) {
        assert!(began.elapsed() < Duration::from_secs(60), "no pass ends");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(scrubber.figures().damaged, [1, 0, 0]);
    drop(scrubber);
    // At one byte a second the first rest would take hours.
    let slow = Scrubbing { every: Duration::from_millis(1), bytes_per_second: 1 };
    let scrubber = Scrubber::spawn(&reader, slow).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    drop(scrubber);
    assert!(ScrubState::read(&storage).unwrap().unwrap().last.is_some());
}
