//! Spends that were sent and never answered: each is repeated with its key, twice.
//!
//! The contract says that repeating is always safe. So the first repeat must be answered 200, with
//! `Idempotency-Replayed: true` exactly if the account's nonce says that the spend had taken effect, and the second must
//! be the same receipt byte for byte, replayed. Repeats of one account go over one connection in order of nonce.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    books::{self, Stated},
    engine::{Class, Engine, Plan, Source},
    fault::Fault,
    operations::Op,
    progress::Progress,
    reply::Reply,
    requests::Spend,
    tally::text,
    workload::Workload,
};

/// What was under way when the server became ready again has to be settled after so long.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at that.
const SETTLE_LOOK_EVERY: Duration = Duration::from_millis(5);

/// How the spends in doubt came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Spends in doubt.
    pub in_doubt: u64,
    /// Those that had taken effect: their repeat was answered with the first receipt.
    pub had_taken_effect: u64,
    /// Those that had not: their repeat took effect.
    pub took_effect_now: u64,
    /// Those answered in any other way.
    pub wrong: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Second,
}

struct Repeats<'a> {
    workload: &'a mut Workload,
    pass: Pass,
    /// The spends by connection, and how far each list has been sent.
    lists: Vec<(Vec<Spend>, usize)>,
    /// Last nonce of each account concerned, as the server stated it before the first repeat.
    durable: HashMap<u32, u64>,
    receipts: HashMap<u64, Vec<u8>>,
    resolved: Resolved,
}

impl Source for Repeats<'_> {
    type Ticket = Spend;

    fn next(&mut self, connection: usize, out: &mut Vec<u8>) -> Option<Spend> {
        let (list, sent) = &mut self.lists[connection];
        let spend = *list.get(*sent)?;
        *sent += 1;
        self.workload.requests.spend(&spend, out);
        Some(spend)
    }

    fn answered(&mut self, _connection: usize, spend: Spend, reply: &Reply<'_>) -> Class {
        if reply.status != 200 {
            self.resolved.wrong += 1;
            self.workload.tally.refused("a spend in doubt, repeated", reply);
            return Class::Refusal;
        }
        let problem = match self.pass {
            Pass::First => self.first_answer(&spend, reply),
            Pass::Second if !reply.replayed => Some("the second repeat of a spend in doubt is not marked as replayed"),
            Pass::Second if self.receipts.get(&spend.key).is_some_and(|first| first != reply.body) => {
                Some("the second repeat of a spend in doubt got another receipt")
            }
            Pass::Second => None,
        };
        if let Some(problem) = problem {
            self.resolved.wrong += 1;
            self.workload.tally.trouble(problem, || format!("{spend:?}: {}", text(reply.body)));
        }
        Class::Repeat
    }

    fn lost(&mut self, _connection: usize, spend: Spend) {
        self.resolved.wrong += 1;
        self.workload.tally.trouble("a connection broke on a spend in doubt", || format!("{spend:?}"));
    }

    fn troubles(&self) -> u64 {
        self.resolved.wrong
    }
}

impl Repeats<'_> {
    /// Takes the receipt in and says what is wrong with it.
    fn first_answer(&mut self, spend: &Spend, reply: &Reply<'_>) -> Option<&'static str> {
        // An issue has no nonce that could tell; if it is made twice, the books show it.
        let by_nonce = self.durable.get(&spend.from).is_some_and(|last| *last >= spend.nonce);
        let had_taken_effect = if spend.op == Op::Issue { reply.replayed } else { by_nonce };
        self.receipts.insert(spend.key, reply.body.to_vec());
        let receipt_matches = self.workload.requests.receipt_matches(spend, reply.body);
        self.workload.accept(spend, reply.body);
        if had_taken_effect {
            self.resolved.had_taken_effect += 1;
        } else {
            self.resolved.took_effect_now += 1;
        }
        match (had_taken_effect, reply.replayed) {
            _ if !receipt_matches => Some("the receipt of a spend in doubt is not of that spend"),
            (true, false) => Some("a spend in doubt had taken effect, and was answered as a fresh one"),
            (false, true) => Some("a spend in doubt had not taken effect, and was answered as a repeat"),
            (true, true) | (false, false) => None,
        }
    }
}

/// Reads the nonces of these accounts once nothing of them is under way any more: a server that has lost its ledger for a while
/// goes on with what it had taken.
fn settled(engine: &mut Engine, workload: &mut Workload, accounts: &[u32], quiet: bool) -> Result<Vec<Stated>, Fault> {
    let begin = Instant::now();
    loop {
        let mut progress = Progress::new("reading nonces", Some(2 * accounts.len() as u64), quiet);
        let stated = books::read(engine, &workload.requests, accounts, &mut progress)?;
        let under_way = stated.iter().filter(|stated| !stated.is_settled()).count();
        if under_way == 0 {
            return Ok(stated);
        }
        if begin.elapsed() > SETTLE_WAIT_MAX {
            let after = SETTLE_WAIT_MAX.as_secs();
            workload.tally.trouble("spends do not settle", || format!("{under_way} accounts after {after} s"));
            return Ok(stated);
        }
        std::thread::sleep(SETTLE_LOOK_EVERY);
    }
}

/// Repeats every spend in doubt and takes the receipts into the model. The engine must have as many connections as the
/// load had.
///
/// # Errors
/// Those of the engine. A wrong answer is a finding, counted in the tally.
pub fn resolve(engine: &mut Engine, workload: &mut Workload, quiet: bool) -> Result<Resolved, Fault> {
    let mut spends = std::mem::take(&mut workload.in_doubt);
    spends.sort_unstable();
    let mut accounts: Vec<u32> = spends.iter().map(|spend| spend.from).collect();
    accounts.dedup();
    workload.model.release_held();
    let total = spends.len() as u64;
    let stated = settled(engine, workload, &accounts, quiet)?;
    let durable = accounts.iter().zip(&stated).filter_map(|(account, stated)| Some((*account, stated.last_nonce?))).collect();
    let connections = engine.connections();
    let mut lists = vec![(Vec::new(), 0); connections];
    for spend in spends {
        lists[spend.from as usize % connections].0.push(spend);
    }
    let resolved = Resolved { in_doubt: total, ..Resolved::default() };
    let mut repeats = Repeats { workload, pass: Pass::First, lists, durable, receipts: HashMap::new(), resolved };
    let mut progress = Progress::new("repeating what is in doubt", Some(total), quiet);
    engine.drive(&mut repeats, &Plan::everything(), &mut progress)?;
    repeats.pass = Pass::Second;
    repeats.lists.iter_mut().for_each(|(_, sent)| *sent = 0);
    let mut progress = Progress::new("repeating it once more", Some(total), quiet);
    engine.drive(&mut repeats, &Plan::everything(), &mut progress)?;
    Ok(repeats.resolved)
}
