//! Several engines, one ledger and the wires between them on one thread: the production code, with every delivery a choice.
use crate::rng::Rng;
use std::collections::VecDeque;
use svc_wallet::domain::{CoreId, Durable, Entry, LaneBatch, LogId, Seq, UnixMs};
use svc_wallet::engine::{Engine, Gate, Message, Outcome, Output, Repeat, Request, Ticket};
use svc_wallet::ledger::{Log, MemoryStorage, Options};
use svc_wallet::ring::Ring;
use svc_wallet::shard::Settings;

/// An answer that reached its client.
#[derive(Clone, Debug)]
pub enum Answer {
    Receipt { entry: Vec<u8>, seq: Seq, root: [u8; 32], replayed: bool },
    Balance { account: String, amount: u128, height: Seq },
    Refused { code: svc_wallet::domain::Code, expected: Option<u64> },
    Other,
}

/// What the engines of one core said since it was last looked at.
#[derive(Default)]
struct Said {
    replies: Vec<(Ticket, Answer)>,
    questions: VecDeque<Repeat>,
}

impl Output for Said {
    fn reply(&mut self, ticket: Ticket, outcome: Outcome<'_>) {
        let answer = match outcome {
            Outcome::Receipt { entry, seq, root, replayed } => {
                Answer::Receipt { entry: entry.bytes().to_vec(), seq, root, replayed }
            }
            Outcome::Balance { account, balance, .. } => {
                Answer::Balance { account: account.as_str().to_owned(), amount: balance.amount, height: balance.height }
            }
            Outcome::LastNonce { .. } => Answer::Other,
            Outcome::Refused(refusal) => Answer::Refused { code: refusal.code, expected: refusal.expected.map(|nonce| nonce.0) },
        };
        self.replies.push((ticket, answer));
    }

    fn ask(&mut self, repeat: Repeat) -> Result<(), Repeat> {
        self.questions.push_back(repeat);
        Ok(())
    }
}

struct Core {
    engine: Engine,
    inbox: VecDeque<Message>,
    lane: VecDeque<LaneBatch>,
    acknowledged: VecDeque<Durable>,
    said: Said,
}

pub struct World {
    cores: Vec<Core>,
    log: Option<Log<MemoryStorage>>,
    storage: MemoryStorage,
    settings: Settings,
    pub now: UnixMs,
    /// Every durable entry that a client may count on, as the ledger holds it.
    pub events: Events,
}

/// How often each thing happened, so that a run can show that it really did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    pub commits: u64,
    pub merged_commits: u64,
    pub forwards: u64,
    pub questions: u64,
    pub crashes: u64,
    pub torn: u64,
}

const SEGMENT_BYTES: u64 = 256 << 10;

fn options() -> Options {
    Options::for_simulation(SEGMENT_BYTES, LogId([7; 16]))
}

impl World {
    pub fn new(cores: u16, settings: Settings) -> Self {
        let mut world = Self {
            cores: Vec::new(),
            log: None,
            storage: MemoryStorage::new(),
            settings,
            now: UnixMs(1_000_000),
            events: Events::default(),
        };
        world.open(cores);
        world
    }

    pub fn cores(&self) -> u16 {
        self.cores.len() as u16
    }

    fn open(&mut self, cores: u16) {
        let ring = Ring::new(cores);
        let mut engines: Vec<Engine> = (0..cores).map(|core| Engine::new(CoreId(core), ring, self.settings)).collect();
        let now = self.now;
        let (log, recovery) = Log::open(self.storage.clone(), &options(), &mut |seq, _, entry| {
            engines.iter_mut().try_for_each(|engine| engine.replay(&entry, seq, now))
        })
        .unwrap_or_else(|error| panic!("the ledger does not open: {error}"));
        self.events.torn += u64::from(recovery.torn.is_some());
        self.log = Some(log);
        self.cores = engines
            .into_iter()
            .map(|engine| Core {
                engine,
                inbox: VecDeque::new(),
                lane: VecDeque::new(),
                acknowledged: VecDeque::new(),
                said: Said::default(),
            })
            .collect();
    }

    /// Power loss: memory is gone, and of what was not synced the disk keeps what chance keeps. Then everything starts again.
    pub fn crash(&mut self, rng: &mut Rng, cores: u16) {
        self.events.crashes += 1;
        self.log = None;
        self.storage = self.storage.crash(&mut || rng.percent(50));
        self.open(cores);
    }

    /// A clean end and a new start.
    pub fn restart(&mut self, cores: u16) {
        self.log.take().expect("a world has a log").close().expect("nothing failed");
        self.open(cores);
    }

    /// A write that reaches the disk in part, and then the power is gone: what a crash inside a commit leaves behind.
    pub fn crash_in_commit(&mut self, rng: &mut Rng, cores: u16) {
        let parts: Vec<LaneBatch> = self.cores.iter_mut().flat_map(|core| core.lane.drain(..)).collect();
        if !parts.is_empty() {
            self.storage.fail_after(Some(rng.below(2)));
            let failed = self.log.as_mut().expect("a world has a log").append(&parts);
            assert!(failed.is_err(), "a commit whose sync fails is not acknowledged");
            self.storage.fail_after(None);
        }
        self.crash(rng, cores);
    }

    /// A client's request arrives at a core. As the driver does, the core first takes everything from its inbox.
    pub fn submit(&mut self, ticket: Ticket, request: Request<'_>) {
        let index = usize::from(ticket.core.0);
        self.empty_inbox(index);
        let core = &mut self.cores[index];
        core.engine.submit(ticket, request, Gate::Open, &mut core.said);
    }

    fn empty_inbox(&mut self, index: usize) {
        let core = &mut self.cores[index];
        while let Some(message) = core.inbox.pop_front() {
            core.engine.receive(message, Gate::Open, &mut core.said);
        }
    }

    /// One thing happens somewhere; returns the replies that left the core meanwhile.
    pub fn step(&mut self, rng: &mut Rng) -> Vec<(Ticket, Answer)> {
        let index = rng.below(self.cores.len() as u64) as usize;
        match rng.below(6) {
            0 => self.empty_inbox(index),
            1 => self.acknowledge(index),
            2 => self.answer_question(index),
            3 => self.commit(rng),
            4 => return self.release(index),
            _ => return self.hand_over(index),
        }
        Vec::new()
    }

    /// Everything that is under way arrives; returns all replies.
    pub fn settle(&mut self, rng: &mut Rng) -> Vec<(Ticket, Answer)> {
        let mut replies = Vec::new();
        while !self.idle() {
            for index in 0..self.cores.len() {
                self.empty_inbox(index);
                self.acknowledge(index);
                self.answer_question(index);
                replies.extend(self.hand_over(index));
            }
            self.commit(rng);
        }
        replies
    }

    fn idle(&mut self) -> bool {
        self.cores.iter_mut().all(|core| {
            let outboxes = core.engine.outboxes().iter().all(|outbox| outbox.first.is_empty() && outbox.answers.is_empty());
            outboxes
                && core.inbox.is_empty()
                && core.lane.is_empty()
                && core.acknowledged.is_empty()
                && core.said.replies.is_empty()
                && core.said.questions.is_empty()
                && core.engine.pending() == 0
        })
    }

    /// Every core forgets what is too old, as its sweep does.
    pub fn expire_keys(&mut self) {
        for core in &mut self.cores {
            core.engine.expire_keys(self.now);
        }
    }

    fn acknowledge(&mut self, index: usize) {
        let core = &mut self.cores[index];
        if let Some(durable) = core.acknowledged.pop_front() {
            core.engine.committed(durable, &mut core.said);
        }
    }

    fn answer_question(&mut self, index: usize) {
        let reader = self.log.as_ref().expect("a world has a log").reader();
        let core = &mut self.cores[index];
        if let Some(repeat) = core.said.questions.pop_front() {
            self.events.questions += 1;
            let found = reader.find(&repeat.question).unwrap_or_else(|error| panic!("the ledger cannot be read: {error}"));
            core.engine.answered(repeat, found, Gate::Open, &mut core.said);
        }
    }

    /// What a core's flush does: batches to the lane, first messages, then answers, and only then the replies.
    fn hand_over(&mut self, index: usize) -> Vec<(Ticket, Answer)> {
        while let Some(batch) = self.cores[index].engine.take_batch() {
            self.cores[index].lane.push_back(batch);
        }
        self.cores[index].engine.credits_handed_over();
        for answers in [false, true] {
            for to in 0..self.cores.len() {
                let outbox = &mut self.cores[index].engine.outboxes()[to];
                let messages = std::mem::take(if answers { &mut outbox.answers } else { &mut outbox.first });
                self.events.forwards += messages.len() as u64;
                self.cores[to].inbox.extend(messages);
            }
        }
        std::mem::take(&mut self.cores[index].said.replies)
    }

    /// Replies leave before the flush, as when a connection's task runs first: only while no credit waits.
    fn release(&mut self, index: usize) -> Vec<(Ticket, Answer)> {
        let core = &mut self.cores[index];
        if core.engine.credits_waiting() {
            return Vec::new();
        }
        std::mem::take(&mut core.said.replies)
    }

    /// The committer takes what some lanes have queued, as one batch.
    fn commit(&mut self, rng: &mut Rng) {
        let mut parts = Vec::new();
        for core in &mut self.cores {
            let take = rng.below(core.lane.len() as u64 + 1) as usize;
            parts.extend(core.lane.drain(..take));
        }
        if parts.is_empty() {
            return;
        }
        self.events.commits += 1;
        self.events.merged_commits += u64::from(parts.len() > 1);
        let placed = self.log.as_mut().expect("a world has a log").append(&parts).expect("the disk has room and works");
        let mut first_seq = placed.first_seq;
        for batch in parts {
            let next = Seq(first_seq.0 + u64::from(batch.count));
            let core = &mut self.cores[usize::from(batch.lane)];
            core.acknowledged.push_back(Durable { batch, first_seq, root: placed.root });
            first_seq = next;
        }
    }

    /// Every durable entry, in order.
    pub fn for_each_entry(&self, mut each: impl FnMut(Seq, &[u8; 32], Entry<'_>)) {
        let reader = self.log.as_ref().expect("a world has a log").reader();
        let end = reader.scan(Seq(1), &mut |seq, root, entry| {
            each(seq, root, entry);
            std::ops::ControlFlow::Continue(())
        });
        end.unwrap_or_else(|error| panic!("the ledger cannot be read: {error}"));
    }

    /// (account, amount, held, nonce) of every account of every core, sorted.
    pub fn balances(&self) -> Vec<(String, u128, u128, u64)> {
        let mut rows = Vec::new();
        for core in &self.cores {
            core.engine.shard().for_each_balance(|account, _, balance, nonce| {
                rows.push((account.to_owned(), balance.amount, balance.held, nonce.0));
            });
        }
        rows.sort();
        rows
    }
}
