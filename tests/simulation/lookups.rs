//! Look-ups: the desk answers questions of cores from segments and index files, whatever is damaged or missing of the latter; and
//! probes, which are requests that are made again on a copy of the ledger.
use crate::core::{Answer, Core};
use crate::model::Placed;
use crate::rng::Rng;
use crate::snapshots::bytes;
use crate::world::World;
use svc_wallet::domain::{Allowance, Amount, Code, Draft, Entry, Found, Key, LastNonce, Question, Refusal, UnixMs};
use svc_wallet::engine::{Gate, Request, Ticket};
use svc_wallet::ledger::{MemoryStorage, Reader, Storage};
use svc_wallet::shard::Shard;

impl World {
    /// The lookup desk answers one question.
    pub fn answer_question(&mut self, index: usize) {
        if self.process.is_none() {
            // The daemon is away; the question waits for it.
            return;
        }
        let Some(repeat) = self.cores[index].said.questions.pop_front() else { return };
        let by_key = matches!(repeat.question, Question::Key(_));
        self.coverage.count(match repeat.question {
            Question::At(_) => "question: at a position",
            Question::Debit { .. } => "question: by nonce",
            Question::Key(_) => "question: by key",
        });
        let gate = self.gate(index);
        let told = self.faults().told;
        let found = self.process().reader.find(&repeat.question);
        let excused = self.lied().is_some() || self.faults().told > told;
        match found {
            Ok(found) => {
                self.check_found(&repeat.question, found.as_ref());
                if by_key {
                    let told = if found.is_some() { "question: by key, found" } else { "question: by key, nothing" };
                    self.coverage.count(told);
                }
                let core = &mut self.cores[index];
                let before = core.said.replies.len();
                core.answered(repeat, Ok(found), gate);
                for (_, answer) in core.said.replies.iter().skip(before).filter(|_| by_key) {
                    match answer {
                        Answer::Receipt { .. } => self.coverage.count("forgotten key: first answer again"),
                        Answer::Refused { code: Code::IdempotencyConflict, .. } => {
                            self.coverage.count("forgotten key: other request refused")
                        }
                        Answer::Refused { .. } | Answer::Balance { .. } | Answer::LastNonce { .. } => {}
                    }
                }
            }
            Err(error) => {
                assert!(excused, "the ledger cannot be read: {error}");
                let refusal = Refusal::new(Code::InternalError, "the ledger could not be read");
                self.cores[index].answered(repeat, Err(refusal), gate);
            }
        }
        self.note_indexes();
    }

    /// What was found is what was committed, and nothing that was committed is missed.
    fn check_found(&self, question: &Question, found: Option<&Found>) {
        if let Some(found) = found {
            let placed = self.model.at(found.seq).expect("what is found is durable");
            assert_eq!((&*found.entry, found.root), (&*placed.entry, placed.root), "what is found is what was committed");
        }
        let expected = match question {
            Question::At(seq) => self.model.at(*seq),
            Question::Debit { account, nonce } => self.model.debit(account, *nonce),
            Question::Key(wanted) => self.model.under_key(&wanted.account, &wanted.key).filter(|placed| {
                let ts = Entry::parse(&placed.entry).unwrap().0.ts();
                (wanted.accepted.first..=wanted.accepted.last).contains(&ts)
            }),
        };
        if let Some(expected) = expected {
            assert_eq!(found.map(|found| found.seq), Some(expected.seq), "what was committed is found: {question:?}");
        }
    }

    /// In an idle moment the desk makes an index and follows the history.
    pub fn prepare(&mut self, rng: &mut Rng) {
        let told = self.faults().told;
        let before = self.indexes();
        let process = self.process();
        let (indexed, followed) = (process.reader.index_one_segment(), process.reader.advance_history(1 + rng.below(40)));
        let excused = self.lied().is_some() || self.failing || self.faults().told > told;
        assert!(excused || indexed.is_ok() && followed.is_ok(), "the desk cannot prepare: {indexed:?} {followed:?}");
        if indexed.is_ok_and(|made| made) {
            // Without its file an index is made in memory alone.
            self.coverage.count(match (self.failing, self.indexes() > before) {
                (false, _) => "index: made in an idle moment",
                (true, true) => "crash: behind an index",
                (true, false) => "crash: in an index",
            });
        }
        self.note_indexes();
    }

    fn indexes(&self) -> usize {
        self.storage.list().unwrap().into_iter().filter(|name| name.ends_with(".idx")).count()
    }

    /// An index file rots or is gone.
    pub fn damage_index(&mut self, rng: &mut Rng) {
        let names: Vec<String> = self.storage.list().unwrap().into_iter().filter(|name| name.ends_with(".idx")).collect();
        if names.is_empty() {
            return;
        }
        let name = rng.pick(&names).clone();
        if rng.percent(50) {
            self.coverage.count("index: bit rot");
            let length = bytes(&self.storage, &name).len() as u64;
            (0..8).for_each(|_| self.storage.rot(&name, rng.below(length.max(1)), 1 << rng.below(8)));
        } else {
            self.coverage.count("index: removed");
            self.storage.remove(&name).unwrap();
            self.storage.sync_directory().unwrap();
        }
        self.say(|| format!("{name} is damaged or gone"));
        self.bad_indexes.insert(name.clone(), self.storage.open(&name).ok().map(|_| bytes(&self.storage, &name)));
    }

    /// Notes which damaged indexes were made again. While the power goes, nothing was: what stands there now may not be there afterwards.
    fn note_indexes(&mut self) {
        if self.failing {
            return;
        }
        let Self { bad_indexes, storage, coverage, .. } = self;
        bad_indexes.retain(|name, bad| {
            let made = storage.open(name).is_ok() && bad.as_ref() != Some(&bytes(storage, name));
            if made {
                coverage.count("index: damaged one made again");
            }
            !made
        });
    }
}

/// A committed entry whose key is still remembered.
pub struct Probe<'a> {
    pub first: Entry<'a>,
    placed: &'a Placed,
    now: UnixMs,
}

/// What a probe has to be answered.
pub enum Expected<'a> {
    First(&'a Placed),
    Conflict,
}

impl<'a> Probe<'a> {
    /// Nothing if the time of its key is over, or was over at any time: clocks go back.
    pub fn new(placed: &'a Placed, now: UnixMs, ttl_ms: u64) -> Option<Self> {
        let first = Entry::parse(&placed.entry).unwrap().0;
        (first.ts().0.saturating_add(ttl_ms) > now.0).then_some(Self { first, placed, now })
    }

    /// The same request again, and another one under its key.
    pub fn requests(&self, shard: &Shard) -> [(Vec<u8>, Expected<'a>); 2] {
        let Self { first, placed, now } = self;
        let LastNonce { next, .. } = shard.last_nonce(first.owner());
        let key = Key::new(first.key().as_str()).unwrap();
        let draft = |amount, nonce| {
            let mut bytes = Vec::new();
            let (op, asset, token, from, to) = (first.op(), first.asset(), first.token(), first.from(), first.to());
            Draft {
                op,
                from,
                to,
                asset,
                amount,
                nonce,
                key,
                memo: first.memo(),
                corr: "probe",
                token,
                ceiling: false,
                budget: false,
                daily_max: false,
                ts: *now,
            }
            .encode(&mut bytes);
            bytes
        };
        let other = Amount::new(first.amount().minor_units() + 1).unwrap();
        let again = draft(first.amount(), first.nonce());
        [(again, Expected::First(placed)), (draft(other, first.nonce().map(|_| next)), Expected::Conflict)]
    }
}

impl Expected<'_> {
    pub fn fits(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Expected::First(placed), Answer::Receipt { entry, seq, root, replayed }) => {
                *replayed && (entry, seq, root) == (&placed.entry, &placed.seq, &placed.root)
            }
            (Expected::Conflict, Answer::Refused { code, .. }) => *code == Code::IdempotencyConflict,
            (Expected::First(_) | Expected::Conflict, _) => false,
        }
    }
}

/// The answer of the owner core, which asks the ledger if it has to.
pub fn answer(core: &mut Core, asked: &[u8], reader: &Reader<MemoryStorage>) -> Answer {
    let ticket = Ticket { core: core.engine.core(), connection: 0, generation: 0, request: 0 };
    let entry = Entry::parse(asked).unwrap().0;
    core.engine.submit(ticket, Request::Write { entry, allowance: Allowance::default() }, Gate::Open, &mut core.said);
    while let Some(repeat) = core.said.questions.pop_front() {
        let found = reader.find(&repeat.question).expect("what a used key is asked for can be read");
        core.engine.answered(repeat, found, Gate::Open, &mut core.said);
    }
    let (_, answer) =
        core.said.replies.pop().unwrap_or_else(|| panic!("I-12: a key that was used is let through again: {entry:?}"));
    answer
}
