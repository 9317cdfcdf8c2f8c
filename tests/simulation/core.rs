//! One simulated core: the production engine, its inbox, its lane, and what it has said.
use crate::ceilings::{Budgeted, Ceilings};
use crate::edge::Edge;
use crate::link::Link;
use std::collections::VecDeque;
use svc_wallet::domain::{Code, Durable, Entry, Found, Refusal, Root, Seq};
use svc_wallet::engine::{Engine, Gate, Message, Outcome, Output, Owned, Repeat, Request, Ticket};

/// An answer that reached its client.
#[derive(Clone, Debug)]
pub enum Answer {
    Receipt { entry: Vec<u8>, seq: Seq, root: Root, replayed: bool },
    Balance { account: String, amount: u128, height: Seq },
    LastNonce { account: String, confirmed: u64 },
    Refused { code: Code, expected: Option<u64> },
}

/// What the engine of one core said since it was last looked at.
#[derive(Default)]
pub struct Said {
    pub replies: Vec<(Ticket, Answer)>,
    pub questions: VecDeque<Repeat>,
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
            Outcome::LastNonce { account, last } => {
                Answer::LastNonce { account: account.as_str().to_owned(), confirmed: last.confirmed.0 }
            }
            Outcome::Refused(refusal) => Answer::Refused { code: refusal.code, expected: refusal.expected.map(|nonce| nonce.0) },
        };
        self.replies.push((ticket, answer));
    }

    fn ask(&mut self, repeat: Repeat) -> Result<(), Repeat> {
        self.questions.push_back(repeat);
        Ok(())
    }
}

pub struct Core {
    pub edge: Edge,
    pub engine: Engine,
    pub inbox: VecDeque<Message>,
    pub link: Link,
    pub said: Said,
    pub ceilings: Ceilings,
    /// Entries that were refused because of a daily ceiling, and rightly so.
    pub over_ceiling: Vec<Vec<u8>>,
    /// What was decided under budgets.
    pub budgeted: Vec<Budgeted>,
}

impl Core {
    pub fn new(engine: Engine) -> Self {
        Self::behind(engine, Ceilings::default())
    }

    /// After a start, with what was let through under ceilings and budgets before.
    pub fn behind(engine: Engine, ceilings: Ceilings) -> Self {
        let (edge, said) = (Edge::new(), Said::default());
        let (over_ceiling, budgeted) = (Vec::new(), Vec::new());
        Self { edge, engine, inbox: VecDeque::new(), link: Link::default(), said, ceilings, over_ceiling, budgeted }
    }

    pub fn empty_inbox(&mut self, gate: Gate) {
        while let Some(message) = self.inbox.pop_front() {
            if let Message::Forward(ticket, Owned::Write(entry, allowance)) = &message {
                self.ceilings.ask(*ticket, &Entry::parse(entry).unwrap().0, *allowance);
            }
            self.engine.receive(message, gate, &mut self.said);
            self.watch_ceilings();
        }
    }

    pub fn submit(&mut self, ticket: Ticket, request: Request<'_>, gate: Gate) {
        if let Request::Write { entry, allowance } = &request {
            if self.engine.ring().owner(entry.owner()) == self.engine.core() {
                self.ceilings.ask(ticket, entry, *allowance);
            }
        }
        self.engine.submit(ticket, request, gate, &mut self.said);
        self.watch_ceilings();
    }

    /// The ledger has answered a question, or says that it cannot.
    pub fn answered(&mut self, repeat: Repeat, found: Result<Option<Found>, Refusal>, gate: Gate) {
        match found {
            Ok(found) => self.engine.answered(repeat, found, gate, &mut self.said),
            Err(refusal) => self.engine.unanswered(repeat, refusal, gate, &mut self.said),
        }
        self.watch_ceilings();
    }

    pub fn committed(&mut self, durable: Durable) {
        self.engine.committed(durable, &mut self.said);
        self.watch_ceilings();
    }

    fn watch_ceilings(&mut self) {
        let (refused, budgeted) = self.ceilings.watch(&mut self.engine, &self.said.replies);
        self.over_ceiling.extend(refused);
        self.budgeted.extend(budgeted);
    }

    /// Whether nothing is under way here.
    pub fn is_idle(&mut self) -> bool {
        let outboxes = self.engine.outboxes().iter().all(|outbox| outbox.first.is_empty() && outbox.answers.is_empty());
        outboxes
            && self.inbox.is_empty()
            && self.link.is_idle()
            && self.said.replies.is_empty()
            && self.said.questions.is_empty()
            && self.engine.pending() == 0
    }
}
