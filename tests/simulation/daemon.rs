//! Worlds whose ledger is behind the daemon: a wallet's link, the daemon's session, chair and log are the production code, and what goes
//! between them are bytes on a wire that may be cut anywhere, half open, slow or stalled.
//!
//! The daemon and the wallet are two processes, and either may end without the other (`wallet`). Questions about entries do not take
//! this way: the daemon's reader answers them.
use crate::link::copy;
use crate::rng::Rng;
use crate::wallet::Replaced;
use crate::world::{Ended, World};
use std::time::Duration;
use svc_wallet::domain::{Durable, Entry, LaneBatch, Root, Seq};
use svc_wallet::engine::Gate;
use svc_wallet::ledger::engine::{Engine as _, Tenure};
use svc_wallet::ledger::{
    AppendError, Fault, Heard, LedgerError, Link, Log, Mark, MemoryStorage, Placed, Refused, SteppedDaemon, SteppedLine,
};

/// How a process has the ledger open.
pub enum Writing {
    /// For itself.
    Alone(Box<Log<MemoryStorage>>),
    /// For a wallet.
    Served(Box<SteppedDaemon<MemoryStorage>>),
}

impl Writing {
    fn alone(&mut self) -> &mut Log<MemoryStorage> {
        match self {
            Writing::Alone(log) => log,
            Writing::Served(_) => panic!("a daemon writes only what its wallet sends"),
        }
    }

    pub fn daemon(&mut self) -> &mut SteppedDaemon<MemoryStorage> {
        match self {
            Writing::Alone(_) => panic!("an embedded ledger serves nobody"),
            Writing::Served(daemon) => daemon,
        }
    }

    pub fn append(&mut self, parts: &[LaneBatch]) -> Result<Placed, AppendError> {
        self.alone().append(parts)
    }

    pub fn note(&mut self) -> Result<(), LedgerError> {
        self.alone().note()
    }

    /// What the thread does that allocates segments ahead.
    pub fn attempt_ahead(&mut self) {
        match self {
            Writing::Alone(log) => log.attempt_ahead(),
            Writing::Served(daemon) => daemon.attempt_ahead(),
        }
    }

    pub fn head(&mut self) -> (Seq, Root) {
        self.alone().head()
    }

    pub fn close(self) -> Result<(), LedgerError> {
        match self {
            Writing::Alone(log) => log.close(),
            Writing::Served(daemon) => daemon.close(),
        }
    }
}

/// What such a world has besides.
#[derive(Default)]
pub struct Remote {
    /// The present one; there is always one between two steps.
    pub wallet: Option<Wallet>,
    /// Those that were paused and replaced, and do not know it yet.
    pub replaced: Vec<Replaced>,
    /// Connections that a wallet has given up, of which the daemon does not know yet.
    half_open: Vec<Wire>,
    /// The daemon's time.
    pub clock: Duration,
    /// Until when the daemon is not started again.
    pub away_until: Option<u64>,
    /// How many processes of wallets there have been.
    pub pids: u32,
}

/// The part of a wallet that writes to the daemon.
pub struct Wallet {
    pub pid: u32,
    pub link: Link,
    pub wire: Option<Wire>,
    /// It was told that the daemon's disk has no room.
    full: bool,
    /// Its first grant.
    pub granted: Option<Tenure>,
    /// Why its connection was ended last.
    pub refused: Option<Fault>,
}

/// A connection: the daemon's end, and what is on its way.
pub struct Wire {
    line: SteppedLine,
    to_daemon: Vec<u8>,
    to_wallet: Vec<u8>,
    stalled_until: u64,
}

impl Wallet {
    pub fn new(pid: u32, cores: u16, keys_ttl_ms: u64) -> Self {
        Self { pid, link: Link::new(cores, keys_ttl_ms), wire: None, full: false, granted: None, refused: None }
    }
}

/// All of it, or some.
fn some(length: usize, all: bool, rng: &mut Rng) -> usize {
    if all {
        length
    } else {
        rng.below(length as u64 + 1) as usize
    }
}

impl World {
    pub fn remote(&mut self) -> &mut Remote {
        self.remote.as_mut().expect("only worlds behind a daemon come here")
    }

    pub fn wallet(&mut self) -> &mut Wallet {
        self.remote().wallet.as_mut().expect("a wallet runs between two steps")
    }

    /// What a wallet lets its cores do; nothing if the ledger is embedded.
    pub fn gate_of_wallet(&self) -> Option<Gate> {
        let wallet = self.remote.as_ref()?.wallet.as_ref();
        let writes = wallet.is_some_and(|wallet| wallet.link.is_up() && !wallet.full);
        Some(if writes { Gate::Open } else { Gate::LedgerDown })
    }

    /// One turn of the wallet's link, of the wire, and of the daemon.
    pub fn converse(&mut self, all: bool, rng: &mut Rng) {
        self.remote().clock += Duration::from_millis(1);
        if self.remote().wallet.is_none() {
            return;
        }
        let turn = |rng: &mut Rng| all || rng.percent(60);
        if turn(rng) {
            self.connect();
        }
        if turn(rng) {
            self.push_batches(all, rng);
        }
        if rng.percent(30) {
            self.wallet().link.beat();
        }
        if turn(rng) {
            self.send(all, rng);
        }
        if turn(rng) {
            self.serve();
        }
        self.serve_half_open(all, rng);
        if turn(rng) {
            self.hear(all, rng);
        }
    }

    /// The wallet connects if it is not connected and the daemon is there.
    pub fn connect(&mut self) {
        let (Some(process), Some(remote)) = (&mut self.process, &mut self.remote) else { return };
        let wallet = remote.wallet.as_mut().expect("a wallet runs between two steps");
        if wallet.wire.is_none() {
            wallet.link.connected();
            let line = process.log.daemon().accept(wallet.pid);
            wallet.wire = Some(Wire { line, to_daemon: Vec::new(), to_wallet: Vec::new(), stalled_until: 0 });
        }
    }

    /// What the lanes have queued goes to the link, as much as it takes.
    fn push_batches(&mut self, all: bool, rng: &mut Rng) {
        let Self { cores, remote, .. } = self;
        let wallet = remote.as_mut().and_then(|remote| remote.wallet.as_mut()).expect("a wallet runs between two steps");
        for (lane, core) in cores.iter_mut().enumerate() {
            for _ in 0..some(core.link.towards.len(), all, rng) {
                if !wallet.link.has_room(lane as u16) {
                    break;
                }
                wallet.link.push(core.link.towards.pop_front().expect("counted"));
            }
        }
    }

    /// Some of what is on its way arrives at the daemon.
    pub fn send(&mut self, all: bool, rng: &mut Rng) {
        let tick = self.tick;
        let Wallet { link, wire, .. } = self.wallet();
        let Some(wire) = wire.as_mut() else { return };
        wire.to_daemon.append(link.output());
        if tick >= wire.stalled_until {
            let arrived: Vec<u8> = wire.to_daemon.drain(..some(wire.to_daemon.len(), all, rng)).collect();
            wire.line.arrive(&arrived);
        }
    }

    /// The daemon works on what has arrived.
    pub fn serve(&mut self) {
        let Some(mut wire) = self.wallet().wire.take() else { return };
        self.serve_wire(&mut wire);
        self.wallet().wire = Some(wire);
    }

    fn serve_wire(&mut self, wire: &mut Wire) {
        let (now, segments) = (self.remote().clock, self.last_segment());
        let told = self.faults().told;
        let Some(process) = &mut self.process else { return };
        match process.log.daemon().serve(&mut wire.line, now) {
            Ok(served) => {
                if served.full {
                    assert!(self.failing || self.full_until > 0 || self.faults().told > told, "no room for no reason");
                    self.coverage.count("daemon: no room");
                }
                if served.places > 0 {
                    self.coverage.count("daemon: place of an earlier commit told");
                }
                if !served.durable.is_empty() {
                    self.made_durable(&served.durable, &segments);
                }
            }
            Err(error) => {
                self.say(|| format!("the daemon ends: {error}"));
                self.coverage.count("daemon: ended by a commit that failed");
                let entries = wire.line.admitted().iter().flat_map(|part| Entry::all_own(&part.bytes));
                self.in_doubt = entries.map(|entry| entry.bytes().to_vec()).collect();
                self.process = None;
            }
        }
        wire.to_wallet.append(wire.line.output());
    }

    fn made_durable(&mut self, durable: &[Durable], segment_before: &Option<String>) {
        let segment = self.last_segment();
        assert!(self.storage.is_synced(segment.as_deref().unwrap_or("")), "I-6: acknowledged before it was synced");
        let parts: Vec<LaneBatch> = durable.iter().map(|durable| copy(&durable.batch)).collect();
        let mut next = durable[0].first_seq;
        for Durable { batch, first_seq, root } in durable {
            assert_eq!((*first_seq, *root), (next, durable[0].root), "one commit has one place");
            next = Seq(next.0 + u64::from(batch.count));
        }
        if segment != *segment_before {
            // It is noted before anything is written to it.
            self.coverage.count("commit: segment begun");
            self.marked = self.model.head();
        }
        self.model.commit(&parts, durable[0].first_seq, durable[0].root);
        let merged = parts.iter().any(|part| part.lane != parts[0].lane);
        self.coverage.count(if merged { "commit: lanes merged" } else { "commit: one lane" });
        self.say(|| format!("the daemon committed up to {}", self.model.head()));
    }

    fn serve_half_open(&mut self, all: bool, rng: &mut Rng) {
        for mut wire in std::mem::take(&mut self.remote().half_open) {
            if !all && rng.percent(70) {
                self.remote().half_open.push(wire);
                continue;
            }
            let arrived = std::mem::take(&mut wire.to_daemon);
            wire.line.arrive(&arrived);
            self.serve_wire(&mut wire);
            if !all && rng.percent(50) {
                self.remote().half_open.push(wire);
            } else if let Some(process) = &mut self.process {
                process.log.daemon().leave(&mut wire.line);
            }
        }
    }

    /// The wallet takes what has arrived, all of it or a part.
    pub fn hear(&mut self, all: bool, rng: &mut Rng) {
        let tick = self.tick;
        let Wallet { link, wire, .. } = self.wallet();
        let Some(wire) = wire.as_mut() else { return };
        wire.to_wallet.append(wire.line.output());
        if tick < wire.stalled_until {
            return;
        }
        let arrived: Vec<u8> = wire.to_wallet.drain(..some(wire.to_wallet.len(), all, rng)).collect();
        link.input().push(&arrived);
        let over = wire.line.ended() && wire.to_wallet.is_empty();
        loop {
            let heard = self.wallet().link.next().unwrap_or_else(|malformed| panic!("the wallet is told nonsense: {malformed}"));
            let Some(heard) = heard else { break };
            match heard {
                Heard::Granted(tenure) => self.granted(tenure),
                Heard::Durable(durable) => self.acknowledged(durable, rng),
                Heard::Commit { entries, .. } => assert!(entries > 0, "a commit has entries"),
                Heard::State { head, writable, .. } => {
                    assert!(head.0 <= self.model.head(), "I-6: what is told to be durable is");
                    self.wallet().full = !writable;
                }
                Heard::Fault(fault) => self.wallet().refused = Some(fault),
            }
        }
        if over {
            let wallet = self.wallet();
            wallet.wire = None;
            wallet.link.disconnected();
        }
    }

    fn granted(&mut self, tenure: Tenure) {
        let root = if tenure.head == Seq(0) { Some([0; 32]) } else { self.model.at(tenure.head).map(|placed| placed.root) };
        assert_eq!(root, Some(tenure.root), "a grant is of the ledger as it is");
        let first = self.wallet().granted.replace(tenure).is_none();
        if !first {
            self.coverage.count("wallet: goes on with its epoch");
        }
    }

    fn acknowledged(&mut self, durable: Durable, rng: &mut Rng) {
        let first = self.model.at(durable.first_seq).expect("what is acknowledged is durable");
        let entry = Entry::all_own(&durable.batch.bytes).next().expect("a batch has entries");
        assert_eq!((entry.bytes(), durable.root), (&*first.entry, first.root), "an acknowledgement names its own place");
        let due = self.tick + rng.below(self.swarm.slow_ticks + 1);
        self.cores[usize::from(durable.batch.lane)].link.acknowledge(due, durable);
    }

    /// What the wallet does if its connection was refused; whether it was told that it was replaced.
    pub fn is_fenced(&mut self, replaced: bool) -> bool {
        let Some(fault) = self.wallet().refused.take() else { return false };
        let is_replaced = self.wallet().link.is_replaced(&fault);
        let Fault { refused, text, .. } = fault;
        match refused {
            Refused::Fenced if replaced && is_replaced => return true,
            // An older connection of its own was served late.
            Refused::Fenced if !is_replaced => {}
            Refused::Unavailable | Refused::Foreign if self.lied().is_some() => self.ended = Some(Ended::Refused(text)),
            // It tries again.
            Refused::Unavailable => {}
            Refused::Fenced | Refused::Foreign | Refused::InUse | Refused::Malformed | Refused::Stranger => {
                panic!("a wallet is refused for no reason, {refused:?}: {text}")
            }
        }
        false
    }

    /// The connection of the wallet is cut.
    pub fn cut_wire(&mut self, rng: &mut Rng) {
        let wallet = self.wallet();
        let Some(mut wire) = wallet.wire.take() else { return };
        wire.to_daemon.append(wallet.link.output());
        wallet.link.disconnected();
        self.coverage.count("wire: cut");
        self.end_wire(wire, rng);
    }

    /// The wallet's end is gone. The daemon notices at once, or goes on for a while with a part of what is on its way.
    pub fn end_wire(&mut self, mut wire: Wire, rng: &mut Rng) {
        wire.to_daemon.truncate(some(wire.to_daemon.len(), false, rng));
        if rng.percent(50) {
            self.coverage.count("wire: half open");
            self.remote().half_open.push(wire);
        } else if let Some(process) = &mut self.process {
            process.log.daemon().leave(&mut wire.line);
        }
    }

    /// Nothing moves on the connection for a while.
    pub fn stall_wire(&mut self, rng: &mut Rng) {
        let until = self.tick + 1 + rng.below(60);
        if let Some(wire) = &mut self.wallet().wire {
            wire.stalled_until = until;
            self.coverage.count("wire: stalled");
        }
    }

    /// The daemon notices that the wallets of half-open connections are gone.
    pub fn close_half_open(&mut self) {
        for mut wire in std::mem::take(&mut self.remote().half_open) {
            if let Some(process) = &mut self.process {
                process.log.daemon().leave(&mut wire.line);
            }
        }
    }

    /// The daemon's process is gone: some of what it had sent still arrives.
    pub fn lose_daemon(&mut self, rng: &mut Rng) {
        self.remote().half_open.clear();
        self.lose_wire(rng);
        for index in 0..self.remote().replaced.len() {
            self.exchange(index);
            self.lose_wire(rng);
            self.exchange(index);
        }
    }

    fn lose_wire(&mut self, rng: &mut Rng) {
        let Some(Wallet { wire: Some(wire), .. }) = &mut self.remote().wallet else { return };
        wire.to_wallet.append(wire.line.output());
        wire.to_wallet.truncate(some(wire.to_wallet.len(), false, rng));
        wire.stalled_until = 0;
        self.hear(true, rng);
        let wallet = self.wallet();
        wallet.wire = None;
        wallet.link.disconnected();
    }

    /// What a connection does once nothing was committed for a while.
    pub fn note_of_daemon(&mut self) {
        let (Some(process), Some(remote)) = (&mut self.process, &mut self.remote) else { return };
        let Some(Wallet { wire: Some(wire), .. }) = &mut remote.wallet else { return };
        process.log.daemon().note(&mut wire.line);
        if self.lied().is_some() {
            return;
        }
        let noted = Mark::read(&self.storage.crash(&mut || false).fork());
        if noted.is_ok_and(|mark| mark.is_some_and(|mark| mark.head.0 == self.model.head())) {
            self.marked = self.model.head();
        }
    }
}
