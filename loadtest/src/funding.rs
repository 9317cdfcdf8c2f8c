//! Before the load: take over what accounts hold already, and issue what the load will spend.

use crate::{
    books,
    engine::{Class, Engine, Plan, Source},
    fault::Fault,
    progress::Progress,
    reply::Reply,
    tally::text,
    workload::Workload,
};

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
