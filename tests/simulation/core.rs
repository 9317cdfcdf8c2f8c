//! One simulated core: the production engine, its inbox, its lane, and what it has said.
use crate::link::Link;
use std::collections::VecDeque;
use svc_wallet::domain::{Code, Root, Seq};
use svc_wallet::engine::{Engine, Gate, Message, Outcome, Output, Repeat, Ticket};

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
    pub engine: Engine,
    pub inbox: VecDeque<Message>,
    pub link: Link,
    pub said: Said,
}

impl Core {
    pub fn new(engine: Engine) -> Self {
        Self { engine, inbox: VecDeque::new(), link: Link::default(), said: Said::default() }
    }

    pub fn empty_inbox(&mut self, gate: Gate) {
        while let Some(message) = self.inbox.pop_front() {
            self.engine.receive(message, gate, &mut self.said);
        }
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
