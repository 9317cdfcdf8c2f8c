//! Before the load: take over what accounts hold already, issue what the load will spend, and place what it will capture.

use std::time::{Duration, Instant};

use crate::{
    books,
    engine::{Class, Engine, Plan, Source},
    fault::Fault,
    operations::Op,
    progress::Progress,
    reply::Reply,
    requests::Spend,
    tally::text,
    workload::Workload,
};

/// What was placed on an account of another core is there after so long.
const HEARD_WAIT_MAX: Duration = Duration::from_secs(10);

struct Funding<'a> {
    workload: &'a mut Workload,
    amount_minor: u128,
    next: u32,
    failures: u64,
    sample: Option<String>,
}

impl Source for Funding<'_> {
    type Ticket = u32;

    fn next(&mut self, _connection: usize, out: &mut Vec<u8>) -> Option<u32> {
        if self.next == self.workload.model.len() {
            return None;
        }
        let account = self.next;
        let key = self.workload.fresh_key();
        self.workload.requests.issue(account, self.amount_minor, key, out);
        self.next += 1;
        Some(account)
    }

    fn answered(&mut self, _connection: usize, account: u32, reply: &Reply<'_>) -> Class {
        if reply.status == 200 && !reply.replayed {
            self.workload.model.issue(account, self.amount_minor);
            return Class::Spend;
        }
        self.failures += 1;
        self.sample.get_or_insert_with(|| format!("status {}: {}", reply.status, text(reply.body)));
        Class::Refusal
    }

    fn lost(&mut self, _connection: usize, _account: u32) {
        self.failures += 1;
        self.sample.get_or_insert_with(|| "a connection broke".into());
    }

    fn troubles(&self) -> u64 {
        self.failures
    }
}

/// Reads what all accounts hold and where their nonces stand.
///
/// # Errors
/// Those of the engine, and [`Fault::Preparation`] if the accounts cannot be read.
pub fn adopt(engine: &mut Engine, workload: &mut Workload, progress: &mut Progress) -> Result<(), Fault> {
    let accounts: Vec<u32> = (0..workload.model.len()).collect();
    let stated = books::read(engine, &workload.requests, &accounts, progress)?;
    for (account, stated) in accounts.iter().zip(stated) {
        workload.model.adopt(*account, stated.balance.unwrap_or(0), stated.last_nonce.unwrap_or(0));
    }
    Ok(())
}

/// Issues the same amount to every account.
///
/// # Errors
/// Those of the engine, and [`Fault::Preparation`] if any account could not be funded.
pub fn fund(engine: &mut Engine, workload: &mut Workload, amount_minor: u128, progress: &mut Progress) -> Result<(), Fault> {
    let total = workload.model.len();
    let mut funding = Funding { workload, amount_minor, next: 0, failures: 0, sample: None };
    engine.drive(&mut funding, &Plan::everything(), progress)?;
    let unasked = total - funding.next;
    match funding.sample {
        Some(sample) => Err(Fault::Preparation(format!("{} of {total} accounts were not funded: {sample}", funding.failures))),
        None if unasked > 0 => Err(Fault::Preparation(format!("{unasked} of {total} accounts were not funded"))),
        None => Ok(()),
    }
}

/// Places held value of each account on its neighbour.
struct Placing<'a> {
    workload: &'a mut Workload,
    amount_minor: u32,
    next: u32,
    failure: Option<String>,
}

impl Source for Placing<'_> {
    type Ticket = Spend;

    fn next(&mut self, _connection: usize, out: &mut Vec<u8>) -> Option<Spend> {
        let count = self.workload.model.len();
        if self.next == count {
            return None;
        }
        let (from, to) = (self.next, (self.next + 1) % count);
        let nonce = self.workload.model.reserve(from, self.amount_minor, Op::Hold)?;
        let hold = Spend { from, nonce, to, amount_minor: self.amount_minor, key: self.workload.fresh_key(), op: Op::Hold };
        self.workload.requests.spend(&hold, out);
        self.next += 1;
        Some(hold)
    }

    fn answered(&mut self, _connection: usize, hold: Spend, reply: &Reply<'_>) -> Class {
        if reply.status == 200 && !reply.replayed && self.workload.requests.receipt_matches(&hold, reply.body) {
            self.workload.model.place(&hold);
            return Class::Spend;
        }
        self.failure.get_or_insert_with(|| format!("status {}: {}", reply.status, text(reply.body)));
        Class::Refusal
    }

    fn lost(&mut self, _connection: usize, _hold: Spend) {
        self.failure.get_or_insert_with(|| "a connection broke".into());
    }

    fn troubles(&self) -> u64 {
        u64::from(self.failure.is_some())
    }
}

/// Places a tenth of what each account was given on its neighbour, for captures and releases to take, and waits until all cores have
/// heard of it.
///
/// # Errors
/// Those of the engine, and [`Fault::Preparation`] if any hold was not taken.
pub fn place(engine: &mut Engine, workload: &mut Workload, funded_minor: u64, progress: &mut Progress) -> Result<(), Fault> {
    let total = workload.model.len();
    let amount_minor = u32::try_from(funded_minor / 10).unwrap_or(u32::MAX).max(1);
    let mut placing = Placing { workload, amount_minor, next: 0, failure: None };
    engine.drive(&mut placing, &Plan::everything(), progress)?;
    match placing.failure {
        Some(sample) => return Err(Fault::Preparation(format!("a hold was not taken: {sample}"))),
        None if placing.next < total => return Err(Fault::Preparation("an account cannot pay its hold; raise --fund".into())),
        None => {}
    }
    let accounts: Vec<u32> = (0..total).collect();
    let begin = Instant::now();
    loop {
        let stated = books::read(engine, &workload.requests, &accounts, &mut Progress::new("", None, true))?;
        let heard = |(number, stated): (&u32, &books::Stated)| stated.balance == Some(workload.model.account(*number).balance);
        if accounts.iter().zip(&stated).all(heard) {
            return Ok(());
        }
        if begin.elapsed() > HEARD_WAIT_MAX {
            return Err(Fault::Preparation(format!("held value is not there after {} s", HEARD_WAIT_MAX.as_secs())));
        }
    }
}
