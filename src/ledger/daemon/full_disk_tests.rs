//! A daemon whose disk is full: what its wallet is told, what waits, and that it goes on once there is room, whoever writes then.
use super::chair::SILENCE_MAX;
use super::stepped::{SteppedDaemon, SteppedLine};
use super::tests::{exchange, serve, Silent};
use crate::domain::Seq;
use crate::ledger::layout::BLOCK_BYTES;
use crate::ledger::protocol::{Refused, Request};
use crate::ledger::sample::{lane_batch, open};
use crate::ledger::spares::{spare_name, RETRY};
use crate::ledger::{Heard, Link, Log, MemoryStorage, ReadFile, Storage};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 << 10;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// So many commits of one block fit into a segment.
const COMMITS: u64 = SEGMENT / BLOCK - 2;
/// Longer than anything takes; only a test that has failed waits for so long.
const SOON: Duration = Duration::from_secs(60);

/// A log that allocates ahead.
fn log(storage: &MemoryStorage) -> Log<MemoryStorage> {
    let (mut log, ..) = open(storage, SEGMENT).unwrap();
    log.allocate_ahead().unwrap();
    log
}

/// A disk that is full although the next segment is there: all that wants room is its mark.
fn fill_behind_the_spare(storage: &MemoryStorage) {
    while storage.open(&spare_name()).and_then(|spare| spare.size()).unwrap_or(0) < SEGMENT {
        std::thread::yield_now();
    }
    storage.limit_bytes(Some(0));
}

/// A wallet that writes to a daemon without threads.
struct Wallet {
    link: Link,
    line: SteppedLine,
    /// What it was told last.
    writable: bool,
}

impl Wallet {
    /// Asks for the ledger; also what it is told.
    fn connect(daemon: &mut SteppedDaemon<MemoryStorage>, pid: u32) -> (Self, Vec<Heard>) {
        Self::connect_at(daemon, pid, Duration::ZERO)
    }

    fn connect_at(daemon: &mut SteppedDaemon<MemoryStorage>, pid: u32, now: Duration) -> (Self, Vec<Heard>) {
        let mut link = Link::new(1, 1000);
        link.connected();
        let mut wallet = Self { link, line: daemon.accept(pid), writable: false };
        let heard = wallet.exchange_at(daemon, now);
        (wallet, heard)
    }

    fn exchange(&mut self, daemon: &mut SteppedDaemon<MemoryStorage>) -> Vec<Heard> {
        self.exchange_at(daemon, Duration::ZERO)
    }

    fn exchange_at(&mut self, daemon: &mut SteppedDaemon<MemoryStorage>, now: Duration) -> Vec<Heard> {
        let heard = exchange(&mut self.link, daemon, &mut self.line, now);
        let told = |heard: &Heard| if let Heard::State { writable, .. } = heard { Some(*writable) } else { None };
        self.writable = heard.iter().rev().find_map(told).unwrap_or(self.writable);
        heard
    }

    /// Sends one entry after the other until it is told to stop; returns how many are durable.
    fn fill(&mut self, daemon: &mut SteppedDaemon<MemoryStorage>) -> u64 {
        assert!(self.writable, "there is much room in the segment");
        for number in 1.. {
            self.link.push(lane_batch(0, number, 1));
            self.exchange(daemon);
            if !self.writable {
                return number - self.link.in_doubt() as u64;
            }
        }
        unreachable!("a segment is full some time")
    }
}

#[test]
fn once_there_is_room_the_next_wallet_writes_although_the_one_whose_batch_waited_is_gone() {
    let storage = MemoryStorage::new();
    let log = log(&storage);
    let mut daemon = SteppedDaemon::new(log);
    let (mut first, _) = Wallet::connect(&mut daemon, 11);
    fill_behind_the_spare(&storage);
    assert_eq!((first.fill(&mut daemon), first.link.in_doubt()), (COMMITS, 1), "it is the next segment that has no room");
    daemon.leave(&mut first.line);
    let (_, heard) = Wallet::connect(&mut daemon, 12);
    assert!(matches!(&heard[..], [Heard::Fault(fault)] if fault.refused == Refused::Unavailable), "{heard:?}");

    storage.limit_bytes(None);
    let (mut next, _) = Wallet::connect(&mut daemon, 12);
    assert!(next.writable, "there was room for its epoch, so there may be room for the next segment");
    next.link.push(lane_batch(0, 1, 1));
    let heard = next.exchange(&mut daemon);
    let durable = |heard: &Heard| matches!(heard, Heard::Durable(durable) if durable.first_seq == Seq(COMMITS + 1));
    assert!(heard.iter().any(durable), "{heard:?}");
    daemon.close().unwrap();
}

#[test]
fn a_new_epoch_is_no_room_for_a_segment() {
    let storage = MemoryStorage::new();
    storage.limit_bytes(Some(SEGMENT + 3 * BLOCK));
    let log = log(&storage);
    let watch = log.watch();
    let mut daemon = SteppedDaemon::new(log);
    while watch.failed_allocations() == 0 {
        std::thread::yield_now();
    }
    let (mut first, _) = Wallet::connect(&mut daemon, 11);
    assert!(first.fill(&mut daemon) < COMMITS && first.link.in_doubt() == 0, "it hears of it before anything waits");
    daemon.leave(&mut first.line);
    let (mut next, _) = Wallet::connect(&mut daemon, 12);
    assert!(next.link.is_up() && !next.writable);
    storage.limit_bytes(None);
    while !watch.is_writable() {
        std::thread::yield_now();
    }
    next.exchange(&mut daemon);
    assert!(next.writable, "the thread that allocates has found the room");
}

#[test]
fn a_wallet_whose_batch_is_held_back_is_heard_all_the_same_and_replaced_only_once_it_is_silent() {
    let storage = MemoryStorage::new();
    let mut daemon = SteppedDaemon::new(log(&storage));
    let (mut wallet, _) = Wallet::connect(&mut daemon, 11);
    fill_behind_the_spare(&storage);
    for number in 0..60 {
        wallet.link.push(lane_batch(0, 1 + 30 * number, 30));
    }
    wallet.exchange(&mut daemon);
    let admitted = wallet.line.admitted().len();
    assert!(!wallet.writable && (1..60).contains(&admitted), "one batch waits for the commit after {admitted}");
    let late = SILENCE_MAX - Duration::from_millis(1);
    wallet.link.beat();
    wallet.exchange_at(&mut daemon, late);
    let refused = |daemon: &mut SteppedDaemon<MemoryStorage>, now| {
        let (_, heard) = Wallet::connect_at(daemon, 12, now);
        let [Heard::Fault(fault)] = &heard[..] else { panic!("{heard:?}") };
        fault.refused
    };
    assert_eq!(refused(&mut daemon, 2 * late), Refused::InUse);
    // It says nothing more, however often the daemon looks; what it has sent before is still there.
    wallet.exchange_at(&mut daemon, 2 * late);
    assert_eq!(refused(&mut daemon, late + SILENCE_MAX), Refused::Unavailable, "there is no room for a new epoch");
}

fn until(so: impl Fn() -> bool, what: &str) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn with_a_batch_held_back_a_full_disk_is_tried_at_its_pace_and_not_for_a_wallet_that_is_gone() {
    let storage = MemoryStorage::new();
    let (log, ..) = open(&storage, SEGMENT).unwrap();
    let watch = log.watch();
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("l.sock");
    let server = serve(log, &socket);
    let mut wallet = Silent::writer(&socket);
    assert!(wallet.hear_writable());
    fill_behind_the_spare(&storage);
    // One segment takes some of it, one commit has room for some more, and there is more than that.
    let batches: Vec<_> = (0..).map(|number| lane_batch(0, 1 + 30 * number, 30)).take(60).collect();
    let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
    assert!((2 * SEGMENT + 1..3 * SEGMENT).contains(&(bytes as u64)), "{bytes} bytes");
    for batch in &batches {
        wallet.say(&[Request::Batch { lane: 0, lane_first: batch.lane_first, count: 30, entries: &batch.bytes }]);
    }
    // The first of these attempts may have begun before all of that had arrived.
    let tried = || watch.failed_allocations();
    let before = tried();
    until(|| tried() >= before.max(1) + 2, "the segment is full");
    // Nothing that is sent may keep the daemon awake for longer than it takes to read it.
    wallet.say(&[Request::Heartbeat]);
    let (before, began) = (tried(), Instant::now());
    until(|| tried() >= before + 6, "it is tried again");
    assert!(began.elapsed() >= 4 * RETRY, "six attempts within {:?}", began.elapsed());

    drop(wallet);
    let rests = || {
        let before = tried();
        std::thread::sleep(3 * RETRY);
        tried() == before
    };
    until(rests, "what a wallet has sent that is gone is tried no more");
    storage.limit_bytes(None);
    let mut next = Silent::writer(&socket);
    assert!(next.hear_writable());
    server.stop().unwrap();
}
