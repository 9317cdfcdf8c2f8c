//! A wallet's link and the daemon's session and chair over a simulated network and disk: connections are cut at any byte in either
//! direction, half of them go on delivering for a while, the daemon crashes and loses what was not synced, syncs fail, the disk is
//! full for a while, other wallets take the ledger. What must hold: each batch is acknowledged once, in the order of its lane, with the place where its bytes are in the log;
//! the log holds each batch once; a wallet that was replaced learns so and nothing of it arrives any more.
//!
//! A failing seed is printed; `SIM_SEED=n cargo test --lib daemon::simulation::seeds::one_seed` plays it alone.
mod seeds;

use super::chair::{Chair, Committed, Peer, Seat, Turned, SILENCE_MAX};
use super::session::{Session, Wanted};
use crate::domain::{Durable, LaneBatch, LogId};
use crate::ledger::protocol::{Fault, Refused, Reply};
use crate::ledger::remote::{Heard, Link};
use crate::ledger::sample::{lane_batch, open, Dice};
use crate::ledger::{LedgerError, Log, MemoryStorage, Options};
use std::collections::BTreeMap;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const LANES: u16 = 3;
const LOG: LogId = LogId([7; 16]);
const WALLET: Peer = Peer { pid: 1, uid: 1 };
const OTHER: Peer = Peer { pid: 2, uid: 1 };

/// One connection: the daemon's end, and the bytes on their way.
struct Wire {
    session: Session,
    seat: Option<Seat>,
    held_back: Option<LaneBatch>,
    to_daemon: Vec<u8>,
    to_wallet: Vec<u8>,
}

/// What happened, so that a test can see that its dice were thrown well.
#[derive(Debug, Default)]
struct Events {
    cuts: u64,
    half_open: u64,
    crashes: u64,
    trouble: u64,
    failed: u64,
    full: u64,
    places: u64,
    acknowledged: u64,
    replaced: u64,
}

struct World {
    dice: Dice,
    storage: MemoryStorage,
    chair: Option<Chair<Log<MemoryStorage>>>,
    link: Link,
    wire: Option<Wire>,
    /// Connections that the wallet has given up, and of which the daemon does not know yet.
    forgotten: Vec<Wire>,
    now: Duration,
    next: [u64; LANES as usize],
    acknowledged: Vec<Durable>,
    events: Events,
    fenced: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            dice: Dice(seed),
            storage: MemoryStorage::new(),
            chair: None,
            link: Link::new(LANES, 1_000),
            wire: None,
            forgotten: Vec::new(),
            now: Duration::ZERO,
            next: [1; LANES as usize],
            acknowledged: Vec::new(),
            events: Events::default(),
            fenced: false,
        };
        world.start_daemon();
        world
    }

    fn start_daemon(&mut self) {
        let options = Options::for_simulation(SEGMENT, LOG);
        let (log, _) = Log::recover(self.storage.clone(), &options, &mut |_, _, _| Ok(())).unwrap();
        let tenure = log.tenure();
        self.chair = Some(Chair::new(log, tenure, LOG));
    }

    fn crash_daemon(&mut self) {
        self.events.crashes += 1;
        self.forgotten.clear();
        if let Some(wire) = self.wire.as_mut() {
            // What was on its way to the wallet may still arrive, cut anywhere.
            let kept = self.dice.below(wire.to_wallet.len() as u64 + 1) as usize;
            wire.to_wallet.truncate(kept);
            self.hear();
        }
        self.wire = None;
        self.link.disconnected();
        self.chair = None;
        self.storage.limit_bytes(None);
        // Also in the middle of a commit: what the disk has of a batch that was not acknowledged is chance.
        self.storage = self.storage.crash(&mut || self.dice.roll() % 2 == 0);
        self.start_daemon();
    }

    fn connect(&mut self) {
        self.link.connected();
        let head = open_head(self.chair.as_ref());
        self.wire = Some(Wire {
            session: Session::new(LOG, head, crate::domain::Seq(1)),
            seat: None,
            held_back: None,
            to_daemon: Vec::new(),
            to_wallet: Vec::new(),
        });
    }

    /// The wallet loses its connection; the daemon may notice at once, or go on for a while with what is on its way.
    fn cut(&mut self) {
        let Some(mut wire) = self.wire.take() else { return };
        self.events.cuts += 1;
        let output = std::mem::take(self.link.output());
        wire.to_daemon.extend_from_slice(&output);
        let kept = self.dice.below(wire.to_daemon.len() as u64 + 1) as usize;
        wire.to_daemon.truncate(kept);
        self.link.disconnected();
        if self.dice.below(2) == 0 {
            self.events.half_open += 1;
            self.forgotten.push(wire);
        } else if let (Some(seat), Some(chair)) = (wire.seat, &mut self.chair) {
            chair.leave(seat);
        }
    }

    fn push(&mut self) {
        let lane = self.dice.below(u64::from(LANES)) as u16;
        if self.fenced || !self.link.has_room(lane) {
            return;
        }
        let next = &mut self.next[usize::from(lane)];
        let batch = lane_batch(lane, *next, 1 + self.dice.below(12) as u32);
        *next += u64::from(batch.count);
        self.link.push(batch);
    }

    /// Some of what is on its way arrives.
    fn deliver(&mut self) {
        let output = std::mem::take(self.link.output());
        if let Some(wire) = &mut self.wire {
            wire.to_daemon.extend_from_slice(&output);
            let some = self.dice.below(wire.to_daemon.len() as u64 + 1) as usize;
            let arrived: Vec<u8> = wire.to_daemon.drain(..some).collect();
            wire.session.input().push(&arrived);
        }
        for wire in &mut self.forgotten {
            let arrived = std::mem::take(&mut wire.to_daemon);
            wire.session.input().push(&arrived);
        }
    }

    /// The daemon works on what has arrived.
    fn serve(&mut self) {
        let chair = self.chair.as_mut().expect("the daemon runs");
        let mut served = Ok(Told::default());
        if let Some(wire) = &mut self.wire {
            served = serve(chair, wire, self.now);
            wire.to_wallet.append(wire.session.output());
        }
        for wire in &mut self.forgotten {
            served = served.and_then(|served| Ok(serve(chair, wire, self.now)?.and(served)));
        }
        match served {
            Ok(told) => {
                self.events.places += told.places;
                self.events.full += u64::from(told.full);
            }
            Err(_) => {
                // What is fatal ends the daemon; its supervisor starts it again.
                self.events.failed += 1;
                self.storage.fail_syncs(false);
                self.crash_daemon();
            }
        }
    }

    /// The wallet takes what has arrived, all of it or a part.
    fn hear(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let some = self.dice.below(wire.to_wallet.len() as u64 + 1) as usize;
        let arrived: Vec<u8> = wire.to_wallet.drain(..some).collect();
        self.link.input().push(&arrived);
        while let Some(heard) = self.link.next().unwrap() {
            match heard {
                Heard::Durable(durable) => {
                    self.events.acknowledged += 1;
                    self.acknowledged.push(durable);
                }
                Heard::Granted(_) | Heard::Commit { .. } | Heard::State { .. } => {}
                Heard::Fault(fault) if fault.refused == Refused::Fenced && self.link.epoch().is_some() => {
                    self.fenced |= self.link.is_replaced(&fault);
                }
                Heard::Fault(Fault { refused: Refused::InUse, .. }) => {}
                // No epoch could be taken: it may have been said some time ago.
                Heard::Fault(Fault { refused: Refused::Unavailable, .. }) if self.events.trouble > 0 => {}
                Heard::Fault(fault) => panic!("{fault:?}"),
            }
        }
        if wire.session.ended() && wire.to_wallet.is_empty() {
            self.wire = None;
            self.link.disconnected();
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        match self.dice.below(100) {
            0..=19 => self.push(),
            _ if self.wire.is_none() && !self.fenced => self.connect(),
            20..=43 => self.deliver(),
            44..=67 => self.serve(),
            68..=93 => self.hear(),
            94..=95 => self.cut(),
            96 => self.crash_daemon(),
            97 => {
                self.events.trouble += 1;
                match self.dice.below(8) {
                    0..=3 => self.storage.fail_syncs(true),
                    4 => self.storage.limit_bytes(Some(0)),
                    _ => self.storage.limit_bytes(None),
                }
            }
            _ => self.link.beat(),
        }
    }

    /// No faults any more: everything that the wallet has handed over becomes durable and is acknowledged.
    fn come_to_rest(&mut self) {
        self.storage.fail_syncs(false);
        self.storage.limit_bytes(None);
        for _ in 0..200 {
            if self.link.in_doubt() == 0 {
                return;
            }
            if self.wire.is_none() {
                self.connect();
            }
            for _ in 0..20 {
                self.deliver();
                self.serve();
                self.hear();
            }
        }
        panic!("{} batches stay in doubt without a fault", self.link.in_doubt());
    }

    /// Everything that was acknowledged is in the log where it was said to be; and the log has nothing twice.
    fn check(&mut self, scene: &str) -> usize {
        self.wire = None;
        self.forgotten.clear();
        self.chair = None;
        self.storage.limit_bytes(None);
        let (_, _, entries) = open(&self.storage.crash(&mut || false), SEGMENT).unwrap();
        let mut next = [1u64; LANES as usize];
        for Durable { batch, first_seq, .. } in &self.acknowledged {
            let number = &mut next[usize::from(batch.lane)];
            assert_eq!(batch.lane_first, *number, "{scene}: acknowledged once and in order");
            *number += u64::from(batch.count);
            let first = first_seq.0 as usize - 1;
            assert_eq!(entries[first..first + batch.count as usize].concat(), batch.bytes, "{scene}");
        }
        let mut seen: BTreeMap<&[u8], usize> = BTreeMap::new();
        entries.iter().for_each(|entry| *seen.entry(entry).or_default() += 1);
        assert!(seen.values().all(|count| *count == 1), "{scene}: an entry stands twice in the log");
        entries.len()
    }
}

fn open_head(chair: Option<&Chair<Log<MemoryStorage>>>) -> crate::domain::Seq {
    assert!(chair.is_some(), "the daemon runs");
    crate::domain::Seq(0)
}

/// What a connection was told: how many places that it had asked for, and whether there was no room for what it sent.
#[derive(Clone, Copy, Default)]
struct Told {
    places: u64,
    full: bool,
}

impl Told {
    fn and(self, other: Told) -> Self {
        Self { places: self.places + other.places, full: self.full || other.full }
    }
}

/// What the thread of a connection does, without the thread. Fails if the daemon has to end.
fn serve(chair: &mut Chair<Log<MemoryStorage>>, wire: &mut Wire, now: Duration) -> Result<Told, LedgerError> {
    match try_serve(chair, wire, now) {
        Ok(told) => Ok(told),
        Err(Turned::Away(fault)) => {
            wire.session.end(fault);
            Ok(Told::default())
        }
        Err(Turned::Fatal(error)) => Err(error),
    }
}

fn try_serve(chair: &mut Chair<Log<MemoryStorage>>, wire: &mut Wire, now: Duration) -> Result<Told, Turned> {
    let mut places = Vec::new();
    if let (Some(seat), true) = (wire.seat, wire.session.input().waiting() > 0) {
        chair.heard(seat, now)?;
    }
    loop {
        let wanted = match wire.held_back.take() {
            Some(batch) => Wanted::Batch(batch),
            None => match wire.session.next() {
                Some(wanted) => wanted,
                None => break,
            },
        };
        match wanted {
            Wanted::Acquire { lanes } => {
                let (seat, granted) = chair.acquire(WALLET, lanes, now)?;
                wire.seat = Some(seat);
                wire.session.grant(&granted);
            }
            Wanted::Resume(tenant) => {
                let (seat, granted) = chair.resume(WALLET, &tenant, now)?;
                wire.seat = Some(seat);
                wire.session.grant(&granted);
            }
            Wanted::Batch(batch) => match chair.admit(wire.seat.unwrap(), batch)? {
                Ok(None) => {}
                Ok(Some(place)) => places.push(place),
                Err(batch) => {
                    wire.held_back = Some(batch);
                    break;
                }
            },
            Wanted::Place { lane, lane_first, count } => places.push(chair.place(wire.seat.unwrap(), lane, lane_first, count)?),
            Wanted::Heartbeat => {}
            Wanted::Ask { .. } | Wanted::Read { .. } | Wanted::ReadKeys { .. } => {
                unreachable!("a writer does not read")
            }
        }
    }
    let mut told = Told { places: places.len() as u64, full: false };
    if told.places > 0 {
        // Told twice: an acknowledgement that is repeated does no harm.
        wire.session.reply(&Reply::Durable { commit_us: 0, batches: places.clone() });
        wire.session.reply(&Reply::Durable { commit_us: 0, batches: places });
    }
    if let Some(seat) = wire.seat {
        match chair.commit(seat)? {
            Committed::Durable(batches) => wire.session.reply(&Reply::Durable { commit_us: 1, batches }),
            Committed::NoRoom(_) => told.full = true,
            Committed::Nothing => {}
        }
    }
    Ok(told)
}

/// One life of a wallet that nobody replaces.
fn play(seed: u64) -> Events {
    let mut world = World::new(seed);
    for _ in 0..400 {
        world.step();
    }
    world.come_to_rest();
    let entries = world.check(&format!("seed {seed}"));
    let handed_over: u64 = world.next.iter().map(|next| next - 1).sum();
    assert_eq!(entries as u64, handed_over, "seed {seed}: everything is in the log once");
    world.events
}

/// A life that ends because another wallet takes the ledger.
fn play_to_the_end(seed: u64) -> Events {
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.step();
    }
    if world.link.epoch().is_none() {
        return world.events;
    }
    // Paused: nothing of it is heard, whatever is on its way. The disk is good meanwhile.
    world.storage.fail_syncs(false);
    world.storage.limit_bytes(None);
    world.now += SILENCE_MAX;
    let chair = world.chair.as_mut().unwrap();
    let (seat, _) = chair.acquire(OTHER, LANES, world.now).unwrap();
    world.events.replaced += 1;
    let theirs = lane_batch(9, 1, 2);
    assert_eq!(chair.admit(seat, LaneBatch { lane: 0, ..theirs }).unwrap(), Ok(None));
    assert!(matches!(chair.commit(seat).unwrap(), Committed::Durable(_)));
    let before = open(&world.storage.fork(), SEGMENT).unwrap().2.len();
    // Goes on, with faults or without.
    for _ in 0..400 {
        world.step();
    }
    for _ in 0..40 {
        if world.wire.is_none() && !world.fenced {
            world.connect();
        }
        world.link.beat();
        world.deliver();
        world.serve();
        world.hear();
    }
    for _ in 0..40 {
        world.hear();
    }
    assert!(world.fenced, "seed {seed}: a wallet that was replaced is told so");
    assert_eq!(world.check(&format!("seed {seed}")), before, "seed {seed}: nothing of it arrives any more");
    world.events
}

#[test]
fn whatever_is_cut_or_crashes_each_batch_is_in_the_log_once_and_acknowledged_once() {
    let mut sum = Events::default();
    for seed in 0..400 {
        let events = play(seed);
        sum.cuts += events.cuts;
        sum.half_open += events.half_open;
        sum.crashes += events.crashes;
        sum.failed += events.failed;
        sum.full += events.full;
        sum.places += events.places;
        sum.acknowledged += events.acknowledged;
    }
    let enough = sum.cuts > 1_000
        && sum.half_open > 500
        && sum.crashes > 500
        && sum.failed > 50
        && sum.full > 50
        && sum.places > 200
        && sum.acknowledged > 10_000;
    assert!(enough, "the dice were thrown badly: {sum:?}");
}

#[test]
fn a_wallet_that_was_replaced_never_commits_again_and_is_told() {
    let replaced: u64 = (1_000..1_240).map(|seed| play_to_the_end(seed).replaced).sum();
    assert!(replaced > 120, "only {replaced} wallets were replaced");
}
