//! Several engines, one ledger and the wires between them on one thread: the production code, with every delivery a choice.
//!
//! The actors are the cores (inbox, hand-over, release of replies), their links to the ledger, the committer, the lookup desk, the disk
//! and the operator who starts a process again that has ended. One step is one turn of one of them; between any two the power may go.
use crate::core::{Answer, Core};
use crate::coverage::Coverage;
use crate::daemon::{Remote, Writing};
use crate::disk::DiskFaults;
use crate::link::{copy, Arrival};
use crate::model::Model;
use crate::older::OlderExtents;
use crate::rng::Rng;
use crate::swarm::{Lie, Swarm};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use svc_wallet::domain::{Durable, Entry, HistoryRoot, UnixMs};
use svc_wallet::engine::{Gate, Message, Request, Ticket};
use svc_wallet::ledger::{AppendError, AuditWork, GroupCommit, Mark, MemoryStorage, Placed, Reader, ScrubWork, Watch};
use svc_wallet::shard::Settings;

/// The process that has the ledger open for writing: the server itself, or the daemon.
pub struct Process {
    pub log: Writing,
    pub watch: Watch<MemoryStorage>,
    pub reader: Reader<MemoryStorage>,
    pub group: GroupCommit,
    /// What the auditor's thread does.
    pub work: AuditWork<MemoryStorage>,
    /// What the thread that scrubs does.
    pub scrub: ScrubWork<MemoryStorage>,
    /// What was collected found no room on the disk and is tried again.
    pub full: bool,
}

/// Why a history goes on no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The disk lied, or garbled what it was writing, and the ledger refuses to open.
    Refused(String),
    /// The disk lied about what it was last asked to write, and that is gone: the documented risk of a single copy.
    LastCommitLost,
}

/// The time at which every history begins: soon another day.
pub const BEGINNING: u64 = 86_400_000 * 20_000 - 1_000;

pub struct World {
    pub cores: Vec<Core>,
    pub process: Option<Process>,
    /// Only where that is the daemon.
    pub remote: Option<Remote>,
    pub storage: MemoryStorage,
    pub faults: Arc<Mutex<DiskFaults>>,
    pub settings: Settings,
    pub swarm: Swarm,
    pub model: Model,
    /// What was being appended when the process ended: there as a whole or not at all.
    pub in_doubt: Vec<Vec<u8>>,
    /// The last entry that the file `epoch` has noted.
    pub marked: u64,
    pub epoch: u64,
    pub now: UnixMs,
    pub tick: u64,
    pub not_ready_until: u64,
    pub full_until: u64,
    /// The power is about to go: whatever changes the disk fails after a while, for no reason of its own.
    pub failing: bool,
    /// A sector was garbled by a power loss since the server ran last.
    pub garbled: bool,
    /// The power went since the server ran last.
    pub power_lost: bool,
    pub ended: Option<Ended>,
    /// Snapshots in which bits have flipped.
    pub rotten: BTreeSet<String>,
    /// What a crash took from the disk, and may come back.
    pub older: OlderExtents,
    /// Index files that were damaged or removed, with what they held then.
    pub bad_indexes: BTreeMap<String, Option<Vec<u8>>>,
    /// Something may be wrong with the file of the history.
    pub history_rotten: bool,
    /// Every root of the history that was ever told, by its size.
    pub roots: BTreeMap<u64, HistoryRoot>,
    pub coverage: Coverage,
    /// Set by the environment, to read one history: tells every step.
    pub aloud: bool,
}

impl World {
    pub fn new(seed: u64, swarm: &Swarm, settings: Settings, rng: &mut Rng, aloud: bool) -> Self {
        let faults = Arc::new(Mutex::new(DiskFaults::new(seed ^ 0x5ec7_0125, swarm)));
        let storage = MemoryStorage::with_sectors(swarm.sector_bytes);
        storage.set_faults(faults.clone());
        let mut world = Self {
            cores: Vec::new(),
            process: None,
            remote: swarm.behind_daemon.then(Remote::default),
            storage,
            faults,
            settings,
            swarm: swarm.clone(),
            model: Model::default(),
            in_doubt: Vec::new(),
            marked: 0,
            epoch: 0,
            now: UnixMs(BEGINNING),
            tick: 0,
            not_ready_until: 0,
            full_until: 0,
            failing: false,
            garbled: false,
            power_lost: false,
            ended: None,
            rotten: BTreeSet::new(),
            older: OlderExtents::default(),
            bad_indexes: BTreeMap::new(),
            history_rotten: false,
            roots: BTreeMap::new(),
            coverage: Coverage::default(),
            aloud,
        };
        let cores = world.some_cores(rng);
        world.start(rng, cores);
        world
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{:>6}  {}", self.tick, what());
        }
    }

    pub fn faults(&self) -> MutexGuard<'_, DiskFaults> {
        self.faults.lock().unwrap()
    }

    pub fn lied(&self) -> Option<Lie> {
        self.faults().lied
    }

    pub fn some_cores(&self, rng: &mut Rng) -> u16 {
        1 + rng.below(self.swarm.cores_max) as u16
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a server runs between two steps")
    }

    pub fn gate(&self, index: usize) -> Gate {
        if self.tick < self.not_ready_until {
            return Gate::NotReady;
        }
        if let Some(gate) = self.gate_of_wallet() {
            return gate;
        }
        let full = |process: &Process| process.full || !process.watch.is_writable();
        if self.process.as_ref().is_some_and(full) || self.cores[index].link.is_cut(self.tick) {
            return Gate::LedgerDown;
        }
        Gate::Open
    }

    /// A client's request arrives at a core. As the driver does, the core first takes everything from its inbox.
    pub fn submit(&mut self, ticket: Ticket, request: Request<'_>) {
        let index = usize::from(ticket.core.0);
        let gate = self.gate(index);
        let core = &mut self.cores[index];
        core.empty_inbox(gate);
        core.submit(ticket, request, gate);
    }

    /// One thing happens somewhere; returns the replies that left a core meanwhile.
    pub fn step(&mut self, rng: &mut Rng) -> Vec<(Ticket, Answer)> {
        let index = rng.below(self.cores.len() as u64) as usize;
        match rng.below(8) {
            0 => {
                let gate = self.gate(index);
                self.cores[index].empty_inbox(gate);
            }
            1 => self.arrive(index),
            2 => self.answer_question(index),
            3 => self.commit(rng),
            5 if self.remote.is_some() => self.commit(rng),
            4 => return self.release(index),
            6 => self.look_after(rng),
            7 if rng.percent(20) => self.attempt_ahead(),
            5 if self.cores[index].link.is_overdue(self.tick) => {
                self.coverage.count("link: batches sent again");
                self.cores[index].link.send_again();
            }
            _ => return self.hand_over(index, rng),
        }
        Vec::new()
    }

    /// Everybody has a turn.
    pub fn round(&mut self, rng: &mut Rng) -> Vec<(Ticket, Answer)> {
        let mut replies = Vec::new();
        for index in 0..self.cores.len() {
            replies.extend(self.turn(index, rng));
            if self.remote.is_none() && self.cores[index].link.is_overdue(self.tick) {
                self.coverage.count("link: batches sent again");
                self.cores[index].link.send_again();
            }
        }
        self.attempt_ahead();
        self.commit(rng);
        replies
    }

    /// What the thread does that allocates segments ahead.
    pub fn attempt_ahead(&mut self) {
        let Some(process) = &mut self.process else { return };
        let failed = process.watch.failed_allocations();
        process.log.attempt_ahead();
        if process.watch.failed_allocations() > failed {
            self.coverage.count("disk: no room for the next segment, found ahead");
        }
    }

    /// A core does all that it can.
    pub fn turn(&mut self, index: usize, rng: &mut Rng) -> Vec<(Ticket, Answer)> {
        let gate = self.gate(index);
        self.cores[index].empty_inbox(gate);
        self.arrive(index);
        self.answer_question(index);
        self.hand_over(index, rng)
    }

    /// What happens beside the spends: the auditor follows, and the desk uses an idle moment.
    fn look_after(&mut self, rng: &mut Rng) {
        if self.process.is_none() {
            return;
        }
        match rng.below(5) {
            0 => drop(self.follow()),
            1 => self.prepare(rng),
            2 | 3 => self.scrub(),
            _ => drop(self.prove(rng)),
        }
    }

    pub fn is_idle(&mut self) -> bool {
        let busy = match &self.remote {
            None => self.process().full,
            Some(remote) => self.process.is_none() || !remote.replaced.is_empty(),
        };
        !busy && self.cores.iter_mut().all(Core::is_idle)
    }

    /// Every core forgets what is too old, as its sweep does.
    pub fn expire_keys(&mut self) {
        for core in &mut self.cores {
            core.engine.expire_keys(self.now);
        }
    }

    fn arrive(&mut self, index: usize) {
        let core = &mut self.cores[index];
        match core.link.arrive(self.tick) {
            Arrival::Nothing => {}
            Arrival::InTurn(durable) => core.committed(durable),
            Arrival::Repeated | Arrival::OutOfTurn if self.remote.is_some() => {
                panic!("the wallet's link acknowledges each batch once, and in order")
            }
            Arrival::Repeated => self.coverage.count("link: acknowledgement repeated"),
            Arrival::OutOfTurn => self.coverage.count("link: acknowledgement out of turn"),
        }
    }

    /// What a core's flush does: batches to the lane, first messages, then answers, and only then the replies. A full inbox holds
    /// up everything behind it.
    pub fn hand_over(&mut self, index: usize, rng: &mut Rng) -> Vec<(Ticket, Answer)> {
        while let Some(batch) = self.cores[index].engine.take_batch() {
            if rng.percent(self.swarm.lane_full_percent) {
                self.coverage.count("core: lane queue full");
                self.cores[index].engine.untake_batch(batch);
                break;
            }
            self.cores[index].link.send(batch);
        }
        let mut complete = true;
        for answers in [false, true] {
            if answers && !complete {
                break;
            }
            for to in 0..self.cores.len() {
                let outbox = &mut self.cores[index].engine.outboxes()[to];
                let waiting = if answers { &mut outbox.answers } else { &mut outbox.first };
                if !waiting.is_empty() && rng.percent(self.swarm.inbox_full_percent) {
                    self.coverage.count("core: inbox full");
                    complete = false;
                    continue;
                }
                let messages = std::mem::take(waiting);
                for message in &messages {
                    match message {
                        Message::Forward(..) => self.coverage.count("core: forwarded request"),
                        Message::Credit(..) => self.coverage.count("core: credit handed to another core"),
                        Message::Answer(..) => {}
                    }
                }
                self.cores[to].inbox.extend(messages);
            }
            if !answers && complete {
                self.cores[index].engine.credits_handed_over();
            }
        }
        self.release(index)
    }

    /// Replies leave only while no credit waits.
    fn release(&mut self, index: usize) -> Vec<(Ticket, Answer)> {
        let Self { cores, coverage, model, .. } = self;
        let core = &mut cores[index];
        for refused in std::mem::take(&mut core.over_ceiling) {
            let other = model.daily.has_other_asset(&Entry::parse(&refused).unwrap().0);
            coverage.count(if other { "ceiling: reached in one of several assets" } else { "ceiling: reached" });
        }
        for budgeted in std::mem::take(&mut core.budgeted) {
            coverage.count(budgeted.name(&model.budgets));
        }
        if core.engine.credits_waiting() {
            return Vec::new();
        }
        std::mem::take(&mut core.said.replies)
    }

    /// The committer takes what some lanes have queued, and makes it durable.
    pub fn commit(&mut self, rng: &mut Rng) {
        self.commit_of(false, rng);
    }

    /// As [`World::commit`], of all that the lanes have queued or of some of it.
    pub fn commit_of(&mut self, all: bool, rng: &mut Rng) {
        if self.remote.is_some() {
            let all = all || self.failing || self.faults().quiet;
            self.converse(all, rng);
            let fenced = self.remote().wallet.is_some() && self.is_fenced(false);
            assert!(!fenced, "only a wallet that was replaced is told so");
            return;
        }
        let tick = self.tick;
        let Self { cores, process, coverage, .. } = self;
        let process = process.as_mut().expect("a server runs between two steps");
        if !process.full {
            let mut lanes = 0;
            for core in cores.iter_mut().filter(|core| !core.link.is_cut(tick)) {
                let queued = core.link.towards.len() as u64;
                let take = if all { queued } else { rng.below(queued + 1) };
                lanes += u64::from(take > 0);
                for _ in 0..take {
                    let batch = core.link.towards.pop_front().expect("counted");
                    let before = process.group.batches().len();
                    if let Err(batch) = process.group.admit(batch) {
                        core.link.towards.push_front(batch);
                        break;
                    }
                    if process.group.batches().len() == before {
                        coverage.count("commit: repeated lane batch");
                    }
                }
            }
            if process.group.is_empty() {
                return;
            }
            coverage.count(if lanes > 1 { "commit: lanes merged" } else { "commit: one lane" });
        }
        if process.group.batches().is_empty() {
            return self.acknowledge(None, rng);
        }
        let told = self.faults().told;
        let segments = self.last_segment();
        let process = self.process();
        match process.log.append(process.group.batches()) {
            Ok(placed) => self.committed(placed, &segments, rng),
            Err(AppendError::NoRoom(_)) => {
                assert!(self.failing || self.full_until > 0 || self.faults().told > told, "no room for no reason");
                self.coverage.count("disk: full");
                self.process().full = true;
            }
            Err(AppendError::Failed(error)) => {
                self.say(|| format!("the ledger failed: {error}"));
                let again = self.process();
                assert!(again.log.append(&[]).is_err(), "a failed log takes nothing more");
                let parts = self.process().group.batches();
                let entries = parts.iter().flat_map(|part| Entry::all_own(&part.bytes));
                self.in_doubt = entries.map(|entry| entry.bytes().to_vec()).collect();
                self.process = None;
            }
        }
    }

    pub fn last_segment(&self) -> Option<String> {
        use svc_wallet::ledger::Storage;
        self.storage.list().unwrap().into_iter().rfind(|name| name.starts_with("segment-"))
    }

    /// What the committer does once nothing more comes: it notes how far the ledger reaches.
    pub fn note(&mut self) {
        if self.remote.is_some() {
            return self.note_of_daemon();
        }
        let told = self.faults().told;
        let lied = self.lied().is_some();
        match self.process().log.note() {
            Ok(()) => {
                self.coverage.count("quiet: noted how far the ledger reaches");
                // A write that goes astray takes the mark, and what it hits as well: then nothing is noted.
                if lied == self.lied().is_some() {
                    self.marked = self.model.head();
                }
                if self.failing {
                    self.coverage.count("crash: behind a note");
                }
                if self.lied().is_none() && self.tick % 4 == 0 {
                    let durable = self.storage.crash(&mut || false).fork();
                    let mark = Mark::read(&durable).expect("the epoch file is whole").expect("a log that is open has an epoch");
                    assert_eq!(mark.head.0, self.model.head(), "a quiet moment notes durably how far the ledger reaches");
                }
            }
            Err(_) if self.failing => self.coverage.count("crash: in a note"),
            Err(error) => {
                assert!(self.full_until > 0 || self.faults().told > told, "nothing could be noted for no reason: {error}");
                self.coverage.count("quiet: nothing could be noted");
            }
        }
    }

    fn committed(&mut self, placed: Placed, segment_before: &Option<String>, rng: &mut Rng) {
        let segment = self.last_segment();
        assert!(self.storage.is_synced(segment.as_deref().unwrap_or("")), "I-6: acknowledged before it was synced");
        if segment != *segment_before {
            self.coverage.count("commit: segment begun");
            self.marked = self.model.head();
        }
        let Self { process, model, .. } = self;
        let process = process.as_mut().expect("a server runs between two steps");
        model.commit(process.group.batches(), placed.first_seq, placed.root);
        assert_eq!(process.log.head(), (svc_wallet::domain::Seq(model.head()), placed.root), "the head is the last commit");
        if std::mem::take(&mut process.full) {
            self.coverage.count("disk: room again");
        }
        self.say(|| format!("committed up to {}", self.model.head()));
        self.acknowledge(Some(placed), rng);
    }

    fn acknowledge(&mut self, placed: Option<Placed>, rng: &mut Rng) {
        let Self { cores, process, coverage, swarm, tick, model, .. } = self;
        let slow = rng.below(swarm.slow_ticks + 1);
        if slow > 3 {
            coverage.count("commit: acknowledged late, as by a slow disk");
        }
        process.as_mut().expect("a server runs between two steps").group.settle(placed, |durable| {
            let first = model.at(durable.first_seq).expect("what is acknowledged is durable");
            let entry = Entry::all_own(&durable.batch.bytes).next().expect("a batch has entries");
            assert_eq!((entry.bytes(), durable.root), (&*first.entry, first.root), "an acknowledgement names its own place");
            let link = &mut cores[usize::from(durable.batch.lane)].link;
            if rng.percent(swarm.lose_acknowledgement_percent) {
                coverage.count("link: acknowledgement lost");
                return;
            }
            if rng.percent(swarm.repeat_acknowledgement_percent) {
                let again = Durable { batch: copy(&durable.batch), ..durable };
                link.acknowledge(*tick + slow, again);
            }
            link.acknowledge(*tick + slow, durable);
        });
    }
}
