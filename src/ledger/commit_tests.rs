//! The committer from the outside: acknowledgements, wakes, a full disk, a disk that fails, the writer lock.
use super::layout::BLOCK_BYTES;
use super::sample::{lane_batch, open};
use super::spares::spare_name;
use super::{
    Committer, DiskStorage, LaneSender, LedgerError, Log, Mark, MemoryStorage, Options, ReadFile, Reader, Storage, Watch,
};
use crate::domain::limits::SEGMENT_BYTES_MIN;
use crate::domain::{Durable, Entry, LaneBatch, Question, Root, Seq};
use crossbeam_channel::{unbounded, Receiver};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 << 10;
const SOON: Duration = Duration::from_secs(20);

fn start(storage: &MemoryStorage, lanes: u16) -> (Committer, Receiver<Durable>, Receiver<String>) {
    let (committer, _, _, acknowledged, died) = start_and_look(storage, lanes);
    (committer, acknowledged, died)
}

type Looked = (Committer, Watch<MemoryStorage>, Reader<MemoryStorage>, Receiver<Durable>, Receiver<String>);

fn start_and_look(storage: &MemoryStorage, lanes: u16) -> Looked {
    let (mut log, _, _) = open(storage, SEGMENT).unwrap();
    log.allocate_ahead().unwrap();
    let (watch, reader, tenure) = (log.watch(), log.reader(), log.tenure());
    let (acknowledge, acknowledged) = unbounded();
    let (die, died) = unbounded();
    let committer = Committer::spawn_with(
        log,
        tenure,
        lanes,
        Box::new(move |durable| acknowledge.send(durable).unwrap()),
        Box::new(move |error| die.send(error.to_string()).unwrap()),
    )
    .unwrap();
    (committer, watch, reader, acknowledged, died)
}

fn push(lane: &LaneSender, mut batch: LaneBatch) {
    let started = Instant::now();
    while let Err(back) = lane.push(batch) {
        assert!(started.elapsed() < SOON, "the queue of a lane does not move");
        batch = back;
        std::thread::yield_now();
    }
}

#[test]
fn how_far_the_ledger_reaches_is_noted_once_nothing_more_comes() {
    let storage = MemoryStorage::new();
    let (committer, acknowledged, _) = start(&storage, 1);
    push(&committer.lane(0), lane_batch(0, 1, 3));
    acknowledged.recv_timeout(SOON).unwrap();
    let noted = || Mark::read(&storage.crash(&mut || false)).unwrap().map(|mark| mark.head);
    assert_eq!(noted(), Some(Seq(0)), "not before a second has passed");
    let began = Instant::now();
    while noted() != Some(Seq(3)) {
        assert!(began.elapsed() < SOON, "it is not noted");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(committer);
}

#[test]
fn every_batch_of_every_lane_is_acknowledged_once_and_in_order() {
    let storage = MemoryStorage::new();
    let (committer, watch, reader, acknowledged, _) = start_and_look(&storage, 4);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let lane = committer.lane(number);
            scope.spawn(move || {
                for step in 0..200 {
                    push(&lane, lane_batch(number, 1 + step * 2, 2));
                }
            });
        }
    });
    let mut next = [1; 4];
    let mut seq = Seq(1);
    for _ in 0..800 {
        let durable = acknowledged.recv_timeout(SOON).unwrap();
        assert_eq!(durable.first_seq, seq, "acknowledged in ledger order");
        assert_eq!(durable.batch.lane_first, next[usize::from(durable.batch.lane)]);
        assert_eq!(durable.batch, lane_batch(durable.batch.lane, durable.batch.lane_first, 2));
        let found = reader.find(&Question::At(seq)).unwrap().unwrap();
        assert_eq!((found.root, &found.entry[..]), (durable.root, &durable.batch.bytes[..found.entry.len()]));
        next[usize::from(durable.batch.lane)] += 2;
        seq = Seq(seq.0 + 2);
    }
    assert_eq!((watch.head(), watch.is_writable()), (Seq(1600), true));
    let stats = watch.take_stats();
    assert!(!stats.commit_us.is_empty() && stats.commit_us.len() == stats.batch_entries.len() && stats.bytes > 0);
    assert_eq!(watch.take_stats().commit_us.len(), 0);
    committer.close().unwrap();
    assert_eq!(acknowledged.try_iter().count(), 0);
    assert_eq!(open(&storage.crash(&mut || false), SEGMENT).unwrap().2.len(), 1600);
}

#[test]
fn no_wake_is_lost() {
    let (committer, acknowledged, _) = start(&MemoryStorage::new(), 1);
    let lane = committer.lane(0);
    for number in 1..=3000 {
        push(&lane, lane_batch(0, number, 1));
        assert_eq!(acknowledged.recv_timeout(SOON).expect("an idle committer wakes").first_seq, Seq(number));
    }
}

#[test]
fn a_batch_that_is_sent_again_gets_its_old_place() {
    let storage = MemoryStorage::new();
    let (committer, acknowledged, _) = start(&storage, 1);
    let lane = committer.lane(0);
    for batch in [(1, 2), (3, 1), (1, 2), (3, 1)] {
        push(&lane, lane_batch(0, batch.0, batch.1));
    }
    let places: Vec<_> = (0..4).map(|_| acknowledged.recv_timeout(SOON).unwrap()).collect();
    let mut firsts: Vec<_> = places.iter().map(|durable| durable.first_seq.0).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [1, 1, 3, 3]);
    for durable in &places {
        assert_eq!(durable.first_seq.0, durable.batch.lane_first);
    }
    committer.close().unwrap();
    assert_eq!(open(&storage, SEGMENT).unwrap().2.len(), 3);
}

#[test]
fn a_full_disk_holds_commits_back_and_loses_none() {
    let storage = MemoryStorage::new();
    storage.limit_bytes(Some(SEGMENT + 2 * 4096));
    let (committer, watch, _, acknowledged, died) = start_and_look(&storage, 1);
    let lane = committer.lane(0);
    let room = (SEGMENT / BLOCK_BYTES as u64) - 2;
    for number in 1..=room {
        push(&lane, lane_batch(0, number, 1));
        acknowledged.recv_timeout(SOON).unwrap();
    }
    push(&lane, lane_batch(0, room + 1, 1));
    let started = Instant::now();
    while watch.is_writable() {
        assert!(started.elapsed() < SOON, "a full disk shows");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(acknowledged.recv_timeout(Duration::from_millis(250)).is_err());
    storage.limit_bytes(None);
    let durable = acknowledged.recv_timeout(SOON).expect("goes on by itself");
    assert_eq!(durable.first_seq, Seq(room + 1));
    assert!(watch.is_writable() && died.is_empty());
    committer.close().unwrap();
    assert_eq!(open(&storage, SEGMENT).unwrap().2.len() as u64, room + 1);
}

#[test]
fn without_file_descriptors_commits_wait_as_they_do_for_room() {
    let storage = MemoryStorage::new();
    let (committer, watch, _, acknowledged, died) = start_and_look(&storage, 1);
    let started = Instant::now();
    while storage.open(&spare_name()).and_then(|spare| spare.size()).unwrap_or(0) < SEGMENT {
        assert!(started.elapsed() < SOON, "the next segment is allocated ahead");
        std::thread::sleep(Duration::from_millis(1));
    }
    storage.refuse_files(true);
    let room = (SEGMENT / BLOCK_BYTES as u64) - 2;
    for number in 1..=room {
        push(&committer.lane(0), lane_batch(0, number, 1));
        acknowledged.recv_timeout(SOON).unwrap();
    }
    push(&committer.lane(0), lane_batch(0, room + 1, 1));
    let started = Instant::now();
    while watch.is_writable() {
        assert!(died.is_empty(), "the process ends for want of descriptors");
        assert!(started.elapsed() < SOON, "a lack of descriptors shows");
        std::thread::sleep(Duration::from_millis(5));
    }
    storage.refuse_files(false);
    assert_eq!(acknowledged.recv_timeout(SOON).expect("goes on by itself").first_seq, Seq(room + 1));
    assert!(watch.is_writable() && died.is_empty());
    committer.close().unwrap();
    assert_eq!(open(&storage.crash(&mut || false), SEGMENT).unwrap().2.len() as u64, room + 1);
}

#[test]
fn closing_does_not_wait_for_room() {
    let storage = MemoryStorage::new();
    storage.limit_bytes(Some(SEGMENT + 2 * 4096));
    let (committer, acknowledged, _) = start(&storage, 1);
    for number in 0..20 {
        push(&committer.lane(0), lane_batch(0, 1 + number * 30, 30));
    }
    committer.close().unwrap();
    let count: usize = acknowledged.try_iter().map(|durable| durable.batch.count as usize).sum();
    storage.limit_bytes(None);
    assert_eq!(open(&storage, SEGMENT).unwrap().2.len(), count);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_end_is_called() {
    let storage = MemoryStorage::new();
    let (committer, acknowledged, died) = start(&storage, 2);
    push(&committer.lane(0), lane_batch(0, 1, 1));
    acknowledged.recv_timeout(SOON).unwrap();
    storage.fail_syncs(true);
    push(&committer.lane(1), lane_batch(1, 1, 1));
    assert!(died.recv_timeout(SOON).unwrap().contains("sync the batch"));
    storage.fail_syncs(false);
    let started = Instant::now();
    while committer.lane(0).push(lane_batch(0, 2, 1)).is_ok() {
        assert!(started.elapsed() < SOON, "a committer that has ended takes nothing");
    }
    assert!(acknowledged.try_recv().is_err());
    assert!(matches!(committer.close(), Err(LedgerError::Io { .. })));
    assert_eq!(open(&storage.crash(&mut || false), SEGMENT).unwrap().2.len(), 1);
}

#[test]
fn a_failed_log_stays_failed() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    storage.fail_syncs(true);
    assert!(matches!(log.append(&[lane_batch(0, 1, 1)]), Err(super::AppendError::Failed(_))));
    storage.fail_syncs(false);
    assert!(matches!(log.append(&[lane_batch(0, 1, 1)]), Err(super::AppendError::Failed(_))));
}

#[test]
fn a_ledger_on_disk_has_one_writer_and_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/ledger");
    let options = Options::new(SEGMENT_BYTES_MIN);
    let mut ignore = |_: Seq, _: &Root, _: Entry<'_>| Ok(());
    let (log, recovery) = Log::open(DiskStorage::create(&path).unwrap(), &options, &mut ignore).unwrap();
    let refused = Log::open(DiskStorage::create(&path).unwrap(), &options, &mut ignore).err().unwrap();
    assert!(matches!(refused, LedgerError::InUse { .. }));
    let text = refused.to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains("another server"), "{text}");

    let (acknowledge, acknowledged) = unbounded();
    let tenure = log.tenure();
    let committer = Committer::spawn(log, tenure, 1, Box::new(move |durable| acknowledge.send(durable).unwrap())).unwrap();
    for number in 1..=10 {
        push(&committer.lane(0), lane_batch(0, 1 + (number - 1) * 100, 100));
        acknowledged.recv_timeout(SOON).unwrap();
    }
    let beside = super::verify_directory(&path, &mut |_| ()).unwrap();
    assert_eq!((beside.here.entries, beside.log_id, beside.torn), (1000, recovery.log_id, None));
    committer.close().unwrap();

    let mut count = 0;
    let (_, again) = Log::open(DiskStorage::create(&path).unwrap(), &options, &mut |_, _, _| {
        count += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((count, again.epoch, again.log_id, again.torn), (1000, 2, recovery.log_id, None));
    let names = DiskStorage::create(&path).unwrap().list().unwrap();
    assert!(names.contains(&"segment-0000000001.log".to_string()) && names.contains(&"epoch".to_string()), "{names:?}");
}
