//! The books: what the server says about every account, against what the generator knows.
//!
//! Read through the API alone: a balance and a sequence for each account. Balanced means that each account holds exactly
//! what the model says, each last nonce is the last one acknowledged, no balance is negative, and the sum over all accounts
//! is what was issued less what was burned. Held value is part of a balance.

use serde::Serialize;
use serde_json::Value;

use crate::{
    engine::{Class, Engine, Plan, Source},
    fault::Fault,
    model::Model,
    progress::Progress,
    reply::Reply,
    requests::{decimal, Requests},
    tally::text,
};

/// Differences that are shown.
const SAMPLES_MAX: usize = 5;

/// What the check of the books found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Books {
    /// Accounts read.
    pub accounts: u64,
    /// Sum of all balances, in minor units.
    pub sum_minor: String,
    /// What was issued to these accounts, less what was burned: the sum that has to come out.
    pub issued_minor: String,
    /// Accounts whose balance is not what the acknowledged spends add up to.
    pub wrong_balances: u64,
    /// Accounts whose last nonce is not the last one acknowledged.
    pub wrong_nonces: u64,
    /// Accounts below zero.
    pub negative: u64,
    /// Replies that could not be read.
    pub unreadable: u64,
    /// The first few differences.
    pub samples: Vec<String>,
}

impl Books {
    /// Whether everything agrees.
    pub fn balanced(&self) -> bool {
        self.sum_minor == self.issued_minor && self.wrong_balances + self.wrong_nonces + self.negative + self.unreadable == 0
    }
}

impl Stated {
    /// Whether the account has no spend that is neither durable nor refused.
    pub fn is_settled(&self) -> bool {
        self.last_nonce.map(|last| last + 1) == self.next_nonce
    }
}

/// What the server says about one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Minor units; `None` if unreadable or negative.
    pub balance: Option<u128>,
    /// The last confirmed nonce; `None` if unreadable.
    pub last_nonce: Option<u64>,
    /// The next one that is free; between the two are those of spends that are not durable yet. `None` if unreadable.
    pub next_nonce: Option<u64>,
}

/// Reads balance and sequence of a list of accounts, on whichever connection is free.
struct Sweep<'a> {
    requests: &'a Requests,
    accounts: &'a [u32],
    next: usize,
    stated: Vec<Stated>,
    negative: u64,
    unreadable: u64,
    samples: Vec<String>,
}

#[derive(Clone, Copy)]
enum Question {
    Balance(usize),
    Seq(usize),
}

impl Source for Sweep<'_> {
    type Ticket = Question;

    fn next(&mut self, _connection: usize, out: &mut Vec<u8>) -> Option<Question> {
        let index = self.next / 2;
        let account = *self.accounts.get(index)?;
        let question = if self.next % 2 == 0 {
            self.requests.balance(account, out);
            Question::Balance(index)
        } else {
            self.requests.seq(account, out);
            Question::Seq(index)
        };
        self.next += 1;
        Some(question)
    }

    fn answered(&mut self, _connection: usize, question: Question, reply: &Reply<'_>) -> Class {
        let body: Option<Value> = if reply.status == 200 { serde_json::from_slice(reply.body).ok() } else { None };
        let readable = match question {
            Question::Balance(index) => {
                let amount = body.as_ref().and_then(|body| body.get("amount_minor")?.as_str());
                if amount.is_some_and(|amount| amount.starts_with('-')) {
                    self.negative += 1;
                }
                self.stated[index].balance = amount.and_then(|amount| decimal(amount.as_bytes()));
                amount.is_some() && self.requests.is_balance_of(self.accounts[index], reply.body)
            }
            Question::Seq(index) => {
                let number = |name: &str| body.as_ref().and_then(|body| body.get(name)?.as_u64());
                let stated = &mut self.stated[index];
                (stated.last_nonce, stated.next_nonce) = (number("last_nonce"), number("next_nonce"));
                stated.last_nonce.is_some() && stated.next_nonce.is_some()
            }
        };
        if !readable {
            self.unreadable += 1;
            if self.samples.len() < SAMPLES_MAX {
                self.samples.push(format!("status {}: {}", reply.status, text(reply.body)));
            }
        }
        Class::Read
    }

    fn lost(&mut self, _connection: usize, _question: Question) {
        self.unreadable += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push("a connection broke while the books were read".into());
        }
    }

    fn troubles(&self) -> u64 {
        self.unreadable + self.negative
    }
}

/// What the server says about these accounts.
///
/// # Errors
/// Those of the engine; and [`Fault::Preparation`] if a reply cannot be read.
pub fn read(engine: &mut Engine, requests: &Requests, accounts: &[u32], progress: &mut Progress) -> Result<Vec<Stated>, Fault> {
    let mut sweep = Sweep::new(requests, accounts);
    engine.drive(&mut sweep, &Plan::everything(), progress)?;
    match sweep.samples.first() {
        Some(sample) => Err(Fault::Preparation(format!("balances and sequences cannot be read: {sample}"))),
        None => Ok(sweep.stated),
    }
}

/// Checks all accounts against the model.
///
/// # Errors
/// Those of the engine. A difference is not an error but a finding.
pub fn check(engine: &mut Engine, requests: &Requests, model: &Model, progress: &mut Progress) -> Result<Books, Fault> {
    let accounts: Vec<u32> = (0..model.len()).collect();
    let mut sweep = Sweep::new(requests, &accounts);
    engine.drive(&mut sweep, &Plan::everything(), progress)?;
    Ok(sweep.compare(model))
}

impl<'a> Sweep<'a> {
    fn new(requests: &'a Requests, accounts: &'a [u32]) -> Sweep<'a> {
        let stated = vec![Stated::default(); accounts.len()];
        Sweep { requests, accounts, next: 0, stated, negative: 0, unreadable: 0, samples: Vec::new() }
    }

    fn compare(self, model: &Model) -> Books {
        let mut books = Books {
            accounts: self.accounts.len() as u64,
            issued_minor: model.issued_minor().to_string(),
            negative: self.negative,
            unreadable: self.unreadable + (2 * self.accounts.len() - self.next) as u64,
            samples: self.samples,
            ..Books::default()
        };
        let mut sum: u128 = 0;
        for (number, stated) in self.accounts.iter().zip(&self.stated) {
            let account = model.account(*number);
            sum = sum.saturating_add(stated.balance.unwrap_or(0));
            let name = || self.requests.account(*number);
            if stated.balance.is_some_and(|balance| balance != account.balance) {
                books.wrong_balances += 1;
                let stated_balance = stated.balance.unwrap_or(0);
                books.sample(|| format!("{} holds {stated_balance}, and should hold {}", name(), account.balance));
            }
            if stated.last_nonce.is_some_and(|nonce| nonce != account.confirmed_nonce) {
                books.wrong_nonces += 1;
                let nonce = stated.last_nonce.unwrap_or(0);
                books.sample(|| format!("{} is at nonce {nonce}, and should be at {}", name(), account.confirmed_nonce));
            }
        }
        books.sum_minor = sum.to_string();
        books
    }
}

impl Books {
    fn sample(&mut self, sample: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample());
        }
    }
}
