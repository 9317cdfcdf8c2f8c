//! Wallets whose ledger is behind the daemon: how they begin and end, with it or without it, and one that was paused and replaced.
//!
//! One that was replaced is asked on, as by clients that do not know. Whatever receipt it still hands out is of the ledger, and sooner
//! or later it learns what happened. What it answers to reads, and what it refuses, is of the past, and not looked at.
use crate::clients::Clients;
use crate::core::Core;
use crate::daemon::Wallet;
use crate::rng::Rng;
use crate::world::{Ended, World};
use std::ops::ControlFlow;
use std::time::Duration;
use svc_wallet::domain::Seq;
use svc_wallet::ledger::engine::Tenure;
use svc_wallet::ledger::{Fault, Refused};

/// Longer than the silence after which a wallet may be replaced.
const PAUSE: Duration = Duration::from_secs(3);
/// How often a wallet asks for the ledger at its start.
const ATTEMPTS_MAX: u32 = 60;

/// A wallet that was paused and replaced, with its cores.
pub struct Replaced {
    cores: Vec<Core>,
    wallet: Option<Wallet>,
    /// When it goes on.
    until: u64,
}

impl World {
    /// Whether everything runs that has to: the process with the ledger, and the one with the cores if that is another one.
    pub fn runs(&self) -> bool {
        self.process.is_some() && self.has_cores()
    }

    /// Whether there are cores that clients are connected to.
    pub fn has_cores(&self) -> bool {
        self.remote.as_ref().map_or(self.process.is_some(), |remote| remote.wallet.is_some())
    }

    /// Whether the daemon is gone and its wallet goes on without it for now.
    pub fn daemon_stays_away(&mut self, rng: &mut Rng) -> bool {
        if self.process.is_some() || self.remote.is_none() || !self.has_cores() {
            return false;
        }
        if let Some(until) = self.remote().away_until {
            return self.tick < until;
        }
        self.lose_daemon(rng);
        let quiet = self.faults().quiet;
        if !quiet && rng.percent(25) {
            self.coverage.count("wallet: gone with its daemon");
            self.kill_wallet(rng);
            return false;
        }
        let ticks = if quiet { 0 } else { rng.below(40) };
        if ticks > 0 {
            self.coverage.count("daemon: away for a while");
        }
        self.remote().away_until = Some(self.tick + ticks);
        ticks > 0
    }

    /// Starts what does not run, be it the daemon, the wallet, or both.
    pub fn start_behind(&mut self, rng: &mut Rng, cores: u16) {
        if self.process.is_none() {
            self.start_daemon(rng, cores);
        }
        if self.ended.is_none() && !self.has_cores() {
            self.start_wallet(rng, cores);
        }
    }

    fn start_daemon(&mut self, rng: &mut Rng, cores: u16) {
        self.lose_daemon(rng);
        self.remote().away_until = None;
        self.start_process(rng, cores);
    }

    /// Starts a wallet: it asks for the ledger until it has it, and rebuilds its cores.
    fn start_wallet(&mut self, rng: &mut Rng, cores: u16) {
        let was_quiet = self.faults().quiet;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt == 3 {
                // An operator who finds the disk full makes room.
                self.storage.limit_bytes(None);
                self.full_until = 0;
            }
            if attempt == 6 {
                self.faults().quiet = true;
            }
            if self.process.is_none() {
                self.start_daemon(rng, cores);
            }
            if self.ended.is_some() || self.begin_wallet(rng, cores) {
                self.faults().quiet = was_quiet;
                return;
            }
            self.give_up_wallet(rng);
        }
        panic!("a wallet gets the ledger");
    }

    /// Whether it has the ledger, and its cores are rebuilt.
    fn begin_wallet(&mut self, rng: &mut Rng, cores: u16) -> bool {
        let told = self.faults().told;
        let lied = self.lied().is_some();
        let keys_ttl_ms = self.settings.idempotency_ttl_ms;
        let remote = self.remote();
        remote.pids += 1;
        remote.wallet = Some(Wallet::new(remote.pids, cores, keys_ttl_ms));
        self.connect();
        for _ in 0..3 {
            self.send(true, rng);
            self.serve();
            self.hear(true, rng);
        }
        let refused = self.wallet().refused.take();
        match (self.wallet().granted, refused) {
            (Some(tenure), None) => {
                assert!(tenure.epoch > self.epoch, "each wallet has a higher epoch");
                self.epoch = tenure.epoch;
                if lied == self.lied().is_some() {
                    self.marked = self.model.head();
                }
                return self.process.is_some() && self.rebuild(&tenure, told, rng, cores);
            }
            (None, None) => assert!(self.process.is_none(), "a daemon that is there answers"),
            (None, Some(Fault { refused: Refused::InUse, .. })) => {
                self.coverage.count("wallet: another one has the ledger");
                if rng.percent(50) {
                    self.remote().clock += PAUSE;
                } else {
                    self.close_half_open();
                }
            }
            (None, Some(Fault { refused: Refused::Unavailable, text, .. })) => {
                let excused = self.full_until > 0 || self.faults().told > told;
                assert!(excused || self.lied().is_some(), "no epoch can be had for no reason: {text}");
                self.coverage.count("daemon: no epoch could be taken");
            }
            (granted, Some(fault)) => panic!("refused at the start with {granted:?}: {fault:?}"),
        }
        false
    }

    /// The cores from the newest good snapshot and what follows it, as `src/control/distant.rs` does.
    fn rebuild(&mut self, tenure: &Tenure, told: u64, rng: &mut Rng, cores: u16) -> bool {
        let (snapshot, mut engines) = self.load_engines(cores);
        let begin = snapshot.as_ref().map_or(0, |snapshot| snapshot.head().seq.0);
        let (mut at, now) = (begin, self.now);
        let Self { process, model, .. } = self;
        let reader = &process.as_ref().expect("the daemon has just granted the ledger").reader;
        let scanned = reader.scan(Seq(begin + 1), &mut |seq, root, entry| {
            at += 1;
            let placed = model.at(seq).expect("nobody writes while a wallet starts");
            assert_eq!(
                (seq.0, entry.bytes(), *root),
                (at, &*placed.entry, placed.root),
                "I-7: the ledger is read as it was written"
            );
            let replayed = engines.iter_mut().try_for_each(|engine| engine.replay(&entry, seq, now));
            replayed.expect("what was committed can be replayed");
            ControlFlow::Continue(())
        });
        let guarded = scanned.and_then(|_| match &snapshot {
            Some(_) => self.guard_earlier_keys(&self.process.as_ref().expect("as before").reader, Seq(begin), &mut engines),
            None => Ok(()),
        });
        if let Err(error) = guarded {
            let excused = self.faults().told > told;
            assert!(excused || self.lied().is_some(), "the ledger cannot be read: {error}");
            if !excused {
                self.ended = Some(Ended::Refused(error.to_string()));
            }
            return false;
        }
        assert_eq!((at, tenure.head.0), (self.model.head(), self.model.head()), "all of the ledger was read");
        self.run_on(engines);
        assert_eq!(self.state(), self.model.state(), "I-7: the ledger alone gives the state");
        self.say(|| format!("a wallet runs with {cores} cores in epoch {} from entry {at} on", tenure.epoch));
        if self.lied().is_none() && rng.percent(25) {
            self.probe_keys(rng);
        }
        true
    }

    /// The wallet did not come so far as to be of use.
    fn give_up_wallet(&mut self, rng: &mut Rng) {
        self.cores.clear();
        if let Some(Wallet { wire: Some(wire), .. }) = self.remote().wallet.take() {
            self.end_wire(wire, rng);
        }
    }

    /// The process of the wallet is killed.
    pub fn kill_wallet(&mut self, rng: &mut Rng) {
        self.say(|| "the wallet is killed".into());
        if self.remote().wallet.as_ref().is_some_and(|wallet| wallet.wire.is_some()) {
            self.cut_wire(rng);
        }
        self.give_up_wallet(rng);
    }

    /// A process is killed, or both of them.
    pub fn kill_some(&mut self, rng: &mut Rng) {
        match if self.remote.is_some() { rng.below(3) } else { 3 } {
            0 => {
                self.coverage.count("wallet: killed, the daemon goes on");
                self.kill_wallet(rng);
            }
            1 => {
                self.coverage.count("daemon: and its wallet killed");
                self.kill_wallet(rng);
                self.kill();
            }
            _ => self.kill(),
        }
    }

    /// The process of the wallet is paused, and another one is to take its place.
    pub fn pause_wallet(&mut self, clients: &mut Clients, rng: &mut Rng) {
        if !self.runs() || self.remote().replaced.len() >= 2 {
            return;
        }
        self.say(|| "the wallet is paused and replaced".into());
        self.coverage.count("wallet: paused and replaced");
        clients.set_aside();
        let (cores, until) = (std::mem::take(&mut self.cores), self.tick + 1 + rng.below(80));
        let wallet = self.remote().wallet.take();
        self.remote().replaced.push(Replaced { cores, wallet, until });
        if rng.percent(50) {
            self.remote().clock += PAUSE;
        }
    }

    /// Puts a wallet that was replaced in the place of the present one, or back.
    pub fn exchange(&mut self, index: usize) {
        let Self { cores, remote, .. } = self;
        let remote = remote.as_mut().expect("only worlds behind a daemon come here");
        std::mem::swap(cores, &mut remote.replaced[index].cores);
        std::mem::swap(&mut remote.wallet, &mut remote.replaced[index].wallet);
    }

    /// Those that were replaced go on, until they learn it.
    pub fn step_replaced(&mut self, clients: &mut Clients, all: bool, rng: &mut Rng) {
        for index in (0..self.remote.as_ref().map_or(0, |remote| remote.replaced.len())).rev() {
            if !all && (self.tick < self.remote().replaced[index].until || rng.percent(50)) {
                continue;
            }
            self.exchange(index);
            if !all && rng.percent(15) {
                self.coverage.count("wallet: asked after it was replaced");
                clients.ask_replaced(self, rng);
            }
            for core in 0..self.cores.len() {
                let replies = self.turn(core, rng);
                clients.take_late(replies, self);
            }
            self.converse(all, rng);
            let fenced = self.is_fenced(true);
            self.exchange(index);
            if fenced {
                self.say(|| "a wallet learns that it was replaced".into());
                self.coverage.count("wallet: learned that it was replaced");
                self.remote().replaced.remove(index);
            }
        }
    }
}
