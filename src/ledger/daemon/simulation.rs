//! A wallet's link and the daemon's lines and chair over a simulated network and disk: connections are cut at any byte in either
//! direction, half of them go on delivering for a while, the daemon crashes and loses what was not synced, syncs fail, the disk is
//! full for a while, other wallets take the ledger. What must hold: each batch is acknowledged once, in the order of its lane, with the place where its bytes are in the log;
//! the log holds each batch once; a wallet that was replaced learns so and nothing of it arrives any more.
//!
//! A failing seed is printed; `SIM_SEED=n cargo test --lib daemon::simulation::seeds::one_seed` plays it alone.
mod seeds;

use super::chair::SILENCE_MAX;
use super::stepped::{SteppedDaemon, SteppedLine};
use crate::domain::{Durable, LaneBatch, LogId};
use crate::ledger::protocol::{Fault, Refused};
use crate::ledger::remote::{Heard, Link};
use crate::ledger::sample::{lane_batch, open, Dice};
use crate::ledger::{Log, MemoryStorage, Options};
use std::collections::BTreeMap;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const LANES: u16 = 3;
const LOG: LogId = LogId([7; 16]);
/// The numbers of their processes.
const WALLET: u32 = 1;
const OTHER: u32 = 2;

/// One connection: the daemon's end, and the bytes on their way.
struct Wire {
    line: SteppedLine,
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
    /// `None` while it is being started.
    daemon: Option<SteppedDaemon<MemoryStorage>>,
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
            daemon: None,
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
        self.daemon = Some(SteppedDaemon::new(log));
    }

    fn daemon(&mut self) -> &mut SteppedDaemon<MemoryStorage> {
        self.daemon.as_mut().expect("the daemon runs")
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
        self.daemon = None;
        self.storage.limit_bytes(None);
        // Also in the middle of a commit: what the disk has of a batch that was not acknowledged is chance.
        self.storage = self.storage.crash(&mut || self.dice.roll() % 2 == 0);
        self.start_daemon();
    }

    fn connect(&mut self) {
        self.link.connected();
        let line = self.daemon().accept(WALLET);
        self.wire = Some(Wire { line, to_daemon: Vec::new(), to_wallet: Vec::new() });
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
        } else {
            self.daemon().leave(&mut wire.line);
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
            wire.line.arrive(&arrived);
        }
        for wire in &mut self.forgotten {
            let arrived = std::mem::take(&mut wire.to_daemon);
            wire.line.arrive(&arrived);
        }
    }

    /// The daemon works on what has arrived.
    fn serve(&mut self) {
        let Self { daemon, wire, forgotten, events, now, .. } = self;
        let daemon = daemon.as_mut().expect("the daemon runs");
        for wire in wire.iter_mut().chain(forgotten) {
            let Ok(served) = daemon.serve(&mut wire.line, *now) else {
                // What is fatal ends the daemon; its supervisor starts it again.
                events.failed += 1;
                self.storage.fail_syncs(false);
                return self.crash_daemon();
            };
            events.places += served.places as u64;
            events.full += u64::from(served.full);
            let told = std::mem::take(wire.line.output());
            wire.to_wallet.extend_from_slice(&told);
            if served.places > 0 {
                // An acknowledgement that is repeated does no harm.
                wire.to_wallet.extend_from_slice(&told);
            }
        }
    }

    /// The wallet takes what has arrived, all of it or a part.
    fn hear(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let some = self.dice.below(wire.to_wallet.len() as u64 + 1) as usize;
        let arrived: Vec<u8> = wire.to_wallet.drain(..some).collect();
        self.link.input().push(&arrived);
        while let Some(heard) = self.link.next().expect("what the daemon says is of the protocol") {
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
                Heard::Fault(fault) => panic!("a wallet is refused for no reason: {fault:?}"),
            }
        }
        if wire.line.ended() && wire.to_wallet.is_empty() {
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
                    0..=2 => self.storage.fail_syncs(true),
                    3..=4 => self.storage.limit_bytes(Some(0)),
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
        self.daemon = None;
        self.storage.limit_bytes(None);
        let (_, _, entries) = open(&self.storage.crash(&mut || false), SEGMENT).unwrap();
        let mut next = [1u64; LANES as usize];
        for Durable { batch, first_seq, .. } in &self.acknowledged {
            let number = &mut next[usize::from(batch.lane)];
            assert_eq!(batch.lane_first, *number, "{scene}: acknowledged once and in order");
            *number += u64::from(batch.count);
            let first = first_seq.0 as usize - 1;
            let there = entries.get(first..first + batch.count as usize).map(<[_]>::concat);
            assert_eq!(there.as_ref(), Some(&batch.bytes), "{scene}: what was acknowledged is in the log");
        }
        let mut seen: BTreeMap<&[u8], usize> = BTreeMap::new();
        entries.iter().for_each(|entry| *seen.entry(entry).or_default() += 1);
        assert!(seen.values().all(|count| *count == 1), "{scene}: an entry stands twice in the log");
        entries.len()
    }
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
    let mut other = Link::new(LANES, 1_000);
    other.connected();
    let mut line = world.daemon().accept(OTHER);
    for turn in 0..4 {
        if turn == 2 {
            world.events.replaced += 1;
            other.push(LaneBatch { lane: 0, ..lane_batch(9, 1, 2) });
        }
        line.arrive(other.output());
        other.output().clear();
        let now = world.now;
        world.daemon().serve(&mut line, now).unwrap();
        other.input().push(line.output());
        line.output().clear();
        while other.next().unwrap().is_some() {}
    }
    assert_eq!((other.is_up(), other.in_doubt()), (true, 0), "another wallet has the ledger and writes");
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
