//! How processes end and begin: power losses at any moment, killed processes, interrupted recoveries, and the verdict about what
//! the ledger holds afterwards.
use crate::ceilings::Ceilings;
use crate::copies::state;
use crate::core::Core;
use crate::daemon::Writing;
use crate::model::{Model, State};
use crate::rng::Rng;
use crate::scrubbing::scrub_work;
use crate::snapshots::is_whole;
use crate::swarm::Lie;
use crate::world::{Ended, Process, World};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;
use svc_wallet::domain::{Entry, LogId, Root, Seq};
use svc_wallet::engine::Engine;
use svc_wallet::ledger::snapshot::{snapshot_name, snapshots, Snapshot};
use svc_wallet::ledger::{
    Fate, GroupCommit, LedgerError, Log, MemoryFile, MemoryStorage, Options, Recovery, SteppedDaemon, Storage, Verification,
};

/// Changes to the disk after one of which the power goes: a few more than replacing the file `epoch` takes, a commit that begins a
/// segment, and a recovery. That all of it has been done before the power goes is counted as well, so no step can be out of reach.
const MARK_CHANGES: u64 = 7;
pub const SEGMENT_CHANGES: u64 = 24;
const RECOVERY_CHANGES: u64 = 18;

/// An opened log, and the engines that were rebuilt from it.
pub struct Opened {
    log: Log<MemoryStorage>,
    recovery: Recovery,
    /// Where the replay has begun, and what was replayed.
    snapshot: Option<Snapshot<MemoryFile>>,
    found: Vec<(Vec<u8>, Root)>,
    engines: Vec<Engine>,
}

impl World {
    /// Power loss: memory is gone, and of what was not synced the disk keeps what chance keeps, whole, torn or garbled.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        self.process = None;
        self.power_lost = true;
        self.note_written();
        // The nodes of the history are not synced: what is missing shows when it is read.
        self.history_rotten = true;
        let (keep, garble) = (self.swarm.keep_percent, self.swarm.garble_percent);
        let Self { coverage, garbled, .. } = self;
        let storage = self.storage.crash_with(&mut || {
            let (fate, what) = if rng.percent(garble) {
                *garbled = true;
                match rng.percent(50) {
                    true => (Fate::Garbled(1 + rng.below(255) as u8), "crash: sector garbled"),
                    false => (Fate::Shorn(rng.below(512) as usize), "crash: sector torn inside"),
                }
            } else if rng.percent(keep) {
                (Fate::Kept, "crash: sector kept")
            } else {
                (Fate::Lost, "crash: sector lost")
            };
            coverage.count(what);
            fate
        });
        self.storage = storage;
    }

    /// Power loss between two steps.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.say(|| "power loss".into());
        self.coverage.count("crash: anywhere");
        self.lose_power(rng);
    }

    /// The process is killed; the cache of the system is not lost.
    pub fn kill(&mut self) {
        self.say(|| "killed".into());
        self.coverage.count("crash: process killed, cache kept");
        self.process = None;
    }

    /// Power loss somewhere inside of a commit, if there is something to commit.
    pub fn crash_in_commit(&mut self, rng: &mut Rng) {
        self.say(|| "power loss in a commit".into());
        // Whatever is under way gets to the committer. Replies that leave meanwhile are lost with their connections; but those of a
        // wallet outlive its daemon.
        let ends = if self.remote.is_none() { self.cores.len() } else { 0 };
        for index in 0..ends {
            let gate = self.gate(index);
            self.cores[index].empty_inbox(gate);
            drop(self.hand_over(index, rng));
        }
        let segments = self.last_segment();
        let changes = if rng.percent(50) { 3 } else { SEGMENT_CHANGES };
        if self.crash_after(rng.below(changes), rng) && self.last_segment() != segments {
            self.coverage.count("crash: behind a commit in a new segment");
        }
    }

    /// Power loss after so many changes of a commit; whether it was done before.
    pub fn crash_after(&mut self, changes: u64, rng: &mut Rng) -> bool {
        self.storage.fail_after(Some(changes));
        self.failing = true;
        let head = self.model.head();
        self.commit_of(true, rng);
        self.failing = false;
        let done = self.model.head() > head;
        if self.process.is_none() {
            self.coverage.count("crash: in a commit");
        }
        self.lose_power(rng);
        done
    }

    /// Power loss while a quiet moment is noted.
    pub fn crash_in_note(&mut self, rng: &mut Rng) {
        self.say(|| "power loss in a note".into());
        self.storage.fail_after(Some(rng.below(MARK_CHANGES)));
        self.failing = true;
        self.note();
        self.failing = false;
        self.lose_power(rng);
    }

    /// Power loss while the server ends in order.
    pub fn crash_in_close(&mut self, rng: &mut Rng) {
        self.say(|| "power loss in an orderly end".into());
        self.storage.fail_after(Some(rng.below(MARK_CHANGES)));
        let (lied, process) = (self.lied().is_some(), self.process.take().expect("a server runs between two steps"));
        if process.log.close().is_ok() {
            self.coverage.count("crash: behind an orderly end");
            if lied == self.lied().is_some() {
                self.marked = self.model.head();
            }
        } else {
            self.coverage.count("crash: in an orderly end");
        }
        self.lose_power(rng);
    }

    /// A second server is started on the same ledger.
    pub fn second_writer(&mut self) {
        let second = Log::open(self.storage.clone(), &self.options(), &mut |_, _, _| Ok(()));
        assert!(matches!(second.err(), Some(LedgerError::InUse { .. })), "the second writer is refused");
        self.coverage.count("second writer: refused");
    }

    pub fn options(&self) -> Options {
        Options::for_simulation(self.swarm.segment_bytes, LogId([7; 16]))
    }

    /// As the daemon does: it takes no epoch, and has no cores.
    fn open_daemon(&self) -> Result<Opened, LedgerError> {
        let (log, recovery, snapshot) = Log::recover_from_snapshot(self.storage.clone(), &self.options(), &mut |_| Ok(()))?;
        let (begin, mut found) = (snapshot.as_ref().map_or(0, |snapshot| snapshot.head().seq.0), Vec::new());
        log.reader().scan(Seq(begin + 1), &mut |_, root, entry| {
            found.push((entry.bytes().to_vec(), *root));
            ControlFlow::Continue(())
        })?;
        Ok(Opened { log, recovery, snapshot, found, engines: Vec::new() })
    }

    fn open(&self, cores: u16) -> Result<Opened, LedgerError> {
        if self.remote.is_some() {
            return self.open_daemon();
        }
        let (snapshot, mut engines) = self.load_engines(cores);
        let begin = snapshot.as_ref().map_or(0, |snapshot| snapshot.head().seq.0);
        let mut found = Vec::new();
        let (log, recovery) =
            Log::open_after(self.storage.clone(), &self.options(), snapshot.as_ref(), &mut |seq, root, entry| {
                found.push((entry.bytes().to_vec(), *root));
                assert_eq!(seq.0, begin + found.len() as u64, "sequence numbers are dense");
                engines.iter_mut().try_for_each(|engine| engine.replay(&entry, seq, self.now))
            })?;
        if snapshot.is_some() {
            self.guard_earlier_keys(&log.reader(), Seq(begin), &mut engines)?;
        }
        Ok(Opened { log, recovery, snapshot, found, engines })
    }

    /// Starts whatever does not run.
    pub fn start(&mut self, rng: &mut Rng, cores: u16) {
        match self.remote {
            None => self.start_process(rng, cores),
            Some(_) => self.start_behind(rng, cores),
        }
    }

    /// Starts the process with the ledger on what is there, again and again until it runs or refuses for good.
    pub fn start_process(&mut self, rng: &mut Rng, cores: u16) {
        assert!(self.process.is_none(), "what runs is not started");
        // An operator who finds the disk full makes room; an error of the disk passes sooner or later.
        self.storage.limit_bytes(None);
        self.full_until = 0;
        self.note_written();
        self.bring_back(rng);
        let was_quiet = self.faults().quiet;
        for attempt in 0.. {
            if attempt == 6 {
                self.faults().quiet = true;
            }
            let told = self.faults().told;
            let interrupted = attempt < 4 && rng.percent(self.swarm.power_loss_in_recovery_percent) && !was_quiet;
            if interrupted {
                self.coverage.count("crash: in recovery");
                self.storage.fail_after(Some(rng.below(RECOVERY_CHANGES)));
                if self.open(cores).is_ok() {
                    self.coverage.count("crash: behind a recovery");
                }
                self.lose_power(rng);
                continue;
            }
            let opened = self.open(cores);
            match opened {
                Ok(opened) => {
                    self.faults().quiet = was_quiet;
                    return self.take_over(opened, rng);
                }
                Err(error) if self.faults().told > told => {
                    self.say(|| format!("could not start: {error}"));
                    self.coverage.count("recovery: read or sync failed");
                }
                Err(error) => {
                    // Garbage in the padding of a batch whose body is intact can be an interrupted write or damage; the ledger
                    // does not guess. What is not acknowledged may be the cause, but nobody is served a wrong answer.
                    let unsure = self.garbled && error.to_string().contains("the padding after the body");
                    assert!(unsure || self.lied().is_some(), "the ledger does not open although the disk told no lie: {error}");
                    self.say(|| format!("refused: {error}"));
                    self.faults().quiet = was_quiet;
                    self.ended = Some(Ended::Refused(error.to_string()));
                    return;
                }
            }
        }
    }

    /// The log was opened: holds what was found against what must be there, and lets the server run on it.
    fn take_over(&mut self, Opened { log, recovery, snapshot, found, engines }: Opened, rng: &mut Rng) {
        let begin = snapshot.as_ref().map_or(0, |snapshot| {
            let placed = self.model.at(snapshot.head().seq).expect("a snapshot never claims more than was durable");
            assert_eq!(snapshot.head().root, placed.root, "a snapshot is of this ledger");
            snapshot.head().seq.0
        });
        self.note_beginning(snapshot.as_ref().map(|_| Seq(begin)));
        let known = self.model.entries[begin as usize..].iter().zip(&found);
        let same = known.take_while(|(placed, (entry, root))| (&placed.entry, &placed.root) == (entry, root)).count();
        let same = begin + same as u64;
        let end = begin + found.len() as u64;
        assert!(same == self.model.head() || same == end, "I-6: entry {} has changed", same + 1);
        if same < self.model.head() {
            return self.judge_loss(same, &recovery);
        }
        let more = &found[(same - begin) as usize..];
        if !self.in_doubt.is_empty() {
            let entries: Vec<_> = more.iter().map(|(entry, _)| entry.clone()).collect();
            assert!(entries.is_empty() || entries == self.in_doubt, "an unacknowledged commit is there as a whole or not at all");
            let kept = !entries.is_empty();
            self.coverage.count(if kept { "recovery: in-doubt commit kept" } else { "recovery: in-doubt commit gone" });
        } else {
            assert!(more.is_empty(), "I-7: nothing is there that nobody has committed: {} entries", more.len());
        }
        self.in_doubt.clear();
        for (entry, root) in more {
            self.model.apply(&Entry::parse(entry).unwrap().0, *root);
        }
        if !more.is_empty() {
            self.model.end_commit();
        }
        if recovery.torn.is_some() {
            self.coverage.count("recovery: torn tail cleared");
            let was_quiet = std::mem::replace(&mut self.faults().quiet, true);
            if self.lied().is_none() {
                self.audit();
            }
            self.faults().quiet = was_quiet;
        }
        (self.garbled, self.power_lost) = (false, false);
        self.note_gone();
        if self.remote.is_some() {
            assert!(recovery.epoch >= self.epoch, "a daemon knows the epoch that it has granted");
        } else {
            assert!(recovery.epoch > self.epoch, "each opening has a higher epoch");
            self.coverage.count("recovery: epoch taken");
            self.marked = self.model.head();
        }
        self.epoch = recovery.epoch;
        let group = GroupCommit::new(engines.len() as u16, log.body_bytes_max());
        let reader = log.reader();
        let watch = log.watch();
        let work = self.audit_work(&reader, snapshot);
        let scrub = scrub_work(&reader);
        let log = match self.remote {
            None => Writing::Alone(Box::new(log)),
            Some(_) => Writing::Served(Box::new(SteppedDaemon::new(log))),
        };
        self.process = Some(Process { reader, watch, group, work, scrub, full: false, log });
        if self.remote.is_some() {
            self.say(|| format!("the daemon runs from entry {} on, behind entry {begin}", self.model.head()));
            return;
        }
        self.run_on(engines);
        assert_eq!(self.state(), self.model.state(), "I-7: the ledger alone gives the state");
        self.say(|| format!("runs with {} cores from entry {} on, behind entry {begin}", self.cores.len(), self.model.head()));
        if self.lied().is_none() && rng.percent(25) {
            self.probe_keys(rng);
        }
    }

    /// Cores that go on from these engines, and from what the ledger says of ceilings and budgets.
    pub fn run_on(&mut self, engines: Vec<Engine>) {
        let budgets = Rc::new(RefCell::new(self.model.budgets.clone()));
        let ceilings = || Ceilings::behind(&self.model.daily, Rc::clone(&budgets));
        self.cores = engines.into_iter().map(|engine| Core::behind(engine, ceilings())).collect();
    }

    /// Something acknowledged is not there. With one copy that may be if the disk lied about the very last commit, nothing was
    /// written or noted since, and the power went, with the witness of it, or that could not be written; a misdirected write may take the one that it hit as well.
    fn judge_loss(&mut self, head: u64, recovery: &Recovery) {
        let lost = self.model.commits.iter().filter(|commit| **commit > head).count();
        let lie = self.lied().unwrap_or_else(|| panic!("I-6: entries behind {head} of {} are lost", self.model.head()));
        let at_risk = if lie == Lie::MisdirectedWrite { 2 } else { 1 };
        assert!(lost <= at_risk, "I-6: {lost} commits were lost to one {lie:?}, and nobody was told: {recovery:?}");
        let unwitnessed = self.power_lost || self.faults().unwitnessed;
        assert!(unwitnessed, "I-6: entries behind {head} were lost to one {lie:?}, although the cache has their witness");
        assert!(head >= self.marked, "I-6: entries up to {} were noted as durable, {head} are there", self.marked);
        assert!(head == 0 || self.model.commits.contains(&head), "a commit was lost in part");
        self.ended = Some(Ended::LastCommitLost);
    }

    /// A clean end and a new start.
    pub fn restart(&mut self, rng: &mut Rng, cores: u16) {
        let process = self.process.take().expect("a server runs between two steps");
        process.log.close().expect("a ledger at rest is closed in order");
        if self.remote.is_some() {
            self.kill_wallet(rng);
        }
        self.marked = self.model.head();
        self.start(rng, cores);
    }

    /// The auditor reads the whole ledger of a server that is at rest.
    pub fn audit(&mut self) {
        let storage = self.storage.fork();
        // A clock that goes to and fro within so short a time leaves no trace of what was forgotten meanwhile.
        let ttl_ms = if self.swarm.forgetful { 0 } else { self.settings.idempotency_ttl_ms };
        let verified = |storage: &MemoryStorage| Verification::of_keys(Duration::from_millis(ttl_ms)).run(storage, &mut |_| ());
        let names = snapshots(&storage.list().unwrap()).into_iter().map(snapshot_name);
        let damaged: Vec<String> = names.filter(|name| !is_whole(&storage, name)).collect();
        if !damaged.is_empty() {
            let told = verified(&storage).expect_err("a snapshot is damaged").to_string();
            assert!(damaged.iter().any(|name| told.contains(name)), "{damaged:?} not named: {told}");
            self.coverage.count("verify: damaged snapshot named");
            damaged.iter().for_each(|name| storage.remove(name).unwrap());
        }
        let report = verified(&storage).unwrap_or_else(|error| panic!("the ledger does not verify: {error}"));
        let root = self.model.entries.last().map_or([0; 32], |placed| placed.root);
        assert_eq!(
            (report.head.0, report.root, report.torn),
            (self.model.head(), root, None),
            "the auditor sees the same ledger"
        );
    }

    /// What the cores have.
    pub fn state(&self) -> State {
        state(self.cores.iter().map(|core| &core.engine))
    }

    /// The last chain hash with the state: equal for equal histories.
    pub fn fingerprint(&self) -> (Root, u64) {
        (self.model.entries.last().map_or([0; 32], |placed| placed.root), self.tick)
    }
}

impl Model {
    /// Every promise that was made is kept.
    pub fn assert_holds(&self, promises: impl Iterator<Item = crate::model::Placed>) {
        for promise in promises {
            assert_eq!(self.at(promise.seq), Some(&promise), "I-6: a promise was lost or changed");
        }
    }
}
