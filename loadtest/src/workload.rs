//! Which request comes next, and whether its reply is right.
//!
//! A nonce must be strictly the next of its account, and requests on different connections may overtake each other; so
//! every account is debited by one connection only (`account % connections`), and credited by all. The hot account (number
//! 0) is debited by connection 0 and credited by everybody; together that makes its share of the traffic.
//! Repeats are exact: half of them repeat a spend of the sample, old or new, and half follow right behind a spend
//! that is still in flight on the same connection. It does not know sockets or time.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{Class, Source},
    memory::{Journal, Sample},
    model::Model,
    operations::Op,
    outage::Outage,
    reply::Reply,
    requests::{Requests, Spend, AMOUNT_RANGE},
    rng::{Random, Share},
    tally::{code_of, text, Tally},
};

/// The hot account's number.
const HOT: u32 = 0;
/// Accounts tried for a debit before a read is sent instead.
const CANDIDATES_MAX: u32 = 8;

/// The shares of the traffic; what is left are plain spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Balance reads, of all requests.
    pub reads: Share,
    /// Exact repeats, of all requests.
    pub repeats: Share,
    /// Deliberate overdrafts, of all requests.
    pub refusals: Share,
    /// Spends that touch the hot account, of all spends.
    pub hot: Share,
    /// Other operations, of all spends.
    pub operations: Share,
}

/// What is remembered about a request in flight.
#[derive(Clone, Copy, Debug)]
pub enum Ticket {
    /// A fresh spend; `repeated` if its repeat follows right behind.
    Spend {
        /// The spend.
        spend: Spend,
        /// A repeat follows, so the receipt is kept until then.
        repeated: bool,
    },
    /// A deliberate overdraft.
    Overdraft(Spend),
    /// A balance read of this account.
    Read(u32),
    /// A repeat of a sampled spend.
    RepeatSampled(u32),
    /// A repeat of the spend right before it on this connection.
    RepeatPrevious(Spend),
}

/// How far replies are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Against the contract, to the byte where it asks for that.
    CheckAll,
    /// Any 200 will do: the bare responder answers everything alike.
    AnyReply,
}

/// State of the load.
pub struct Workload {
    /// The request templates.
    pub requests: Requests,
    /// What the server must hold.
    pub model: Model,
    /// What was answered.
    pub tally: Tally,
    /// Receipts to repeat.
    pub sample: Sample,
    /// Every receipt, if a crash test asked for it.
    pub journal: Option<Journal>,
    /// Spends of which nobody knows whether they took effect, each account's in order of nonce.
    pub in_doubt: Vec<Spend>,
    /// Raised while the server may say that it cannot write; reads have to go on.
    pub outage: Arc<Outage>,
    mix: Mix,
    trust: Trust,
    random: Random,
    next_key: u64,
    /// Of the spends on connection 0, those that debit the hot account.
    hot_debits: Share,
    /// Of all other spends, those that credit it.
    hot_credits: Share,
    lanes: Vec<Lane>,
}

/// What belongs to one connection.
struct Lane {
    /// How many accounts this connection debits.
    accounts: u32,
    /// A spend whose repeat is sent next.
    repeat_next: Option<Spend>,
    /// The last receipt of a spend whose repeat follows.
    previous: Vec<u8>,
}

impl Workload {
    /// A load over all accounts of the model. There must be at least two accounts more than connections.
    pub fn new(requests: Requests, model: Model, mix: Mix, connections: usize, trust: Trust, seed: u64) -> Workload {
        let connections_count = u32::try_from(connections).expect("connections are limited by the file descriptors");
        assert!(model.len() >= connections_count + 2, "every connection debits at least one account");
        let (hot_debits, hot_credits) = hot_shares(mix.hot, connections);
        let lanes = (0..connections_count)
            .map(|lane| Lane {
                accounts: (model.len() - lane).div_ceil(connections_count),
                repeat_next: None,
                previous: Vec::with_capacity(1024),
            })
            .collect();
        Workload {
            requests,
            model,
            tally: Tally::default(),
            sample: Sample::new(seed ^ 0x5A),
            journal: None,
            in_doubt: Vec::new(),
            outage: Arc::default(),
            mix,
            trust,
            random: Random::new(seed),
            next_key: 1,
            hot_debits,
            hot_credits,
            lanes,
        }
    }

    /// A key that this run has not used.
    pub fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Forgets repeats that were about to be sent, before the load goes on over new connections.
    pub fn reset_lanes(&mut self) {
        for lane in &mut self.lanes {
            lane.repeat_next = None;
        }
    }

    fn draw_parties(&mut self, connection: usize) -> (u32, u32) {
        let count = self.lanes.len() as u32;
        let lane = connection as u32;
        let hot_lane = connection == 0;
        if hot_lane && self.random.chance(self.hot_debits) {
            return (HOT, 1 + self.random.below(u64::from(self.model.len() - 1)) as u32);
        }
        let mut from = lane + count * self.random.below(u64::from(self.lanes[connection].accounts)) as u32;
        if from == HOT && self.mix.hot != Share::NONE && self.lanes[connection].accounts > 1 {
            from = count;
        }
        if from != HOT && self.random.chance(self.hot_credits) {
            return (from, HOT);
        }
        let others = u64::from(self.model.len() - 1);
        let drawn = self.random.below(others) as u32;
        (from, if drawn >= from { drawn + 1 } else { drawn })
    }

    fn next_spend(&mut self, connection: usize, repeated: bool, out: &mut Vec<u8>) -> Ticket {
        let width = u64::from(AMOUNT_RANGE.end - AMOUNT_RANGE.start);
        let amount_minor = AMOUNT_RANGE.start + self.random.below(width) as u32;
        let op = if self.random.chance(self.mix.operations) { Op::draw_other(&mut self.random) } else { Op::Transfer };
        // What no account can do now gives way to a transfer.
        for attempt in 0..2 * CANDIDATES_MAX {
            let op = if attempt < CANDIDATES_MAX { op } else { Op::Transfer };
            let (from, to) = self.draw_parties(connection);
            if let Some((nonce, to)) = self.reserve(op, from, to, amount_minor) {
                let spend = Spend { from, nonce, to, amount_minor, key: self.fresh_key(), op };
                self.requests.spend(&spend, out);
                if repeated {
                    self.lanes[connection].repeat_next = Some(spend);
                }
                return Ticket::Spend { spend, repeated };
            }
        }
        self.next_read(out)
    }

    /// The nonce of such a write of this account, and who is credited.
    fn reserve(&mut self, op: Op, from: u32, to: u32, amount_minor: u32) -> Option<(u64, u32)> {
        let to = match op {
            Op::Issue => return Some((0, from)),
            Op::Burn => from,
            Op::Release => self.model.payer(from)?,
            Op::Transfer | Op::Hold | Op::Capture => to,
        };
        self.model.reserve(from, amount_minor, op).map(|nonce| (nonce, to))
    }

    fn next_read(&mut self, out: &mut Vec<u8>) -> Ticket {
        let account = self.random.below(u64::from(self.model.len())) as u32;
        self.requests.balance(account, out);
        Ticket::Read(account)
    }

    fn next_repeat(&mut self, connection: usize, out: &mut Vec<u8>) -> Ticket {
        let sampled = if self.random.chance(Share::of(0.5)) { self.sample.pick() } else { None };
        match sampled {
            Some((number, spend)) => {
                self.requests.spend(&spend, out);
                Ticket::RepeatSampled(number)
            }
            None => self.next_spend(connection, true, out),
        }
    }

    fn next_overdraft(&mut self, connection: usize, out: &mut Vec<u8>) -> Ticket {
        let (from, to) = self.draw_parties(connection);
        let Some(nonce) = self.model.peek_nonce(from) else { return self.next_read(out) };
        let spend = Spend { from, nonce, to, amount_minor: AMOUNT_RANGE.start, key: self.fresh_key(), op: Op::Transfer };
        self.requests.overdraft(&spend, out);
        Ticket::Overdraft(spend)
    }

    /// Takes the receipt of a fresh spend in.
    pub fn accept(&mut self, spend: &Spend, body: &[u8]) {
        self.model.settle(spend);
        *self.tally.by_operation.entry(spend.op).or_default() += 1;
        self.sample.offer(spend, body);
        if let Some(journal) = &mut self.journal {
            journal.push(body);
        }
    }

    fn spend_answered(&mut self, connection: usize, spend: &Spend, repeated: bool, reply: &Reply<'_>) -> Class {
        if repeated {
            self.lanes[connection].previous.clear();
        }
        let as_promised = match self.trust {
            Trust::CheckAll => !reply.replayed && self.requests.receipt_matches(spend, reply.body),
            Trust::AnyReply => true,
        };
        if reply.status == 200 && as_promised {
            self.tally.spends += 1;
            self.accept(spend, reply.body);
            if repeated {
                self.lanes[connection].previous.extend_from_slice(reply.body);
            }
            return Class::Spend;
        }
        if reply.status == 200 {
            // It took effect, but the reply is wrong; the books go on from what was asked for.
            let kind = if reply.replayed { "a fresh spend was answered as a repeat" } else { "a receipt is not of its spend" };
            self.tally.trouble(kind, || format!("{spend:?}: {}", text(reply.body)));
            self.model.settle(spend);
            return Class::Spend;
        }
        let unavailable = is_refusal(reply, 503, "UPSTREAM_UNAVAILABLE");
        // Behind a spend in doubt: the server may be there again, and does not know the nonce before this one.
        let behind = self.model.is_held(spend.from) && is_refusal(reply, 409, "NONCE_CONFLICT");
        if self.outage.is_storm() && is_refusal(reply, 429, "BUSY") {
            self.tally.busy += 1;
            self.outage.note_refusal();
            self.model.refuse(spend);
            return Class::Refusal;
        }
        if unavailable || behind || reply.status == 500 {
            self.refused_or_unavailable("spend, outcome unknown", reply, behind);
            self.doubt(*spend);
        } else if self.model.refuse(spend) {
            self.tally.refused("spend behind a refused one", reply);
        } else {
            self.tally.refused("spend", reply);
        }
        Class::Refusal
    }

    /// Counts a refusal that is to be expected during an outage, and only then.
    fn refused_or_unavailable(&mut self, what: &str, reply: &Reply<'_>, behind: bool) {
        if (behind || is_refusal(reply, 503, "UPSTREAM_UNAVAILABLE")) && self.outage.is_under_way() {
            self.tally.unavailable += 1;
            self.outage.note_refusal();
        } else {
            self.tally.refused(what, reply);
        }
    }

    fn doubt(&mut self, spend: Spend) {
        self.tally.in_doubt += 1;
        if spend.op != Op::Issue {
            self.model.hold(spend.from);
        }
        self.in_doubt.push(spend);
    }

    fn repeat_answered(tally: &mut Tally, trust: Trust, first: &[u8], reply: &Reply<'_>) -> Class {
        assert_eq!(reply.status, 200, "a refusal was counted before");
        if trust == Trust::CheckAll && reply.body != first {
            tally.trouble("a repeat got another receipt", || format!("first {} then {}", text(first), text(reply.body)));
        } else if trust == Trust::CheckAll && !reply.replayed {
            tally.trouble("a repeat came without Idempotency-Replayed: true", || text(reply.body));
        } else {
            tally.repeats += 1;
        }
        Class::Repeat
    }
}

impl Source for Workload {
    type Ticket = Ticket;

    fn next(&mut self, connection: usize, out: &mut Vec<u8>) -> Option<Ticket> {
        if let Some(spend) = self.lanes[connection].repeat_next.take() {
            self.requests.spend(&spend, out);
            return Some(Ticket::RepeatPrevious(spend));
        }
        let drawn = self.random.draw();
        let reads = self.mix.reads;
        let repeats = reads.plus(self.mix.repeats);
        let refusals = repeats.plus(self.mix.refusals);
        Some(if reads.holds(drawn) {
            self.next_read(out)
        } else if repeats.holds(drawn) {
            self.next_repeat(connection, out)
        } else if refusals.holds(drawn) {
            self.next_overdraft(connection, out)
        } else {
            self.next_spend(connection, false, out)
        })
    }

    fn answered(&mut self, connection: usize, ticket: Ticket, reply: &Reply<'_>) -> Class {
        match ticket {
            Ticket::Spend { spend, repeated } => self.spend_answered(connection, &spend, repeated, reply),
            Ticket::Overdraft(spend) => {
                if self.trust == Trust::AnyReply
                    || (reply.status == 409 && code_of(reply.body).as_deref() == Some("INSUFFICIENT_FUNDS"))
                {
                    self.tally.intended_refusals += 1;
                } else {
                    let funds = self.model.account(spend.from).balance;
                    self.refused_or_unavailable(&format!("overdraft of an account with about {funds}"), reply, false);
                }
                Class::Refusal
            }
            Ticket::Read(account) => {
                let expected = self.trust == Trust::AnyReply || self.requests.is_balance_of(account, reply.body);
                if reply.status == 200 && expected {
                    self.tally.reads += 1;
                } else {
                    self.tally.refused("balance read", reply);
                }
                Class::Read
            }
            Ticket::RepeatSampled(number) => {
                self.sample.unpin(number);
                if reply.status != 200 {
                    self.refused_or_unavailable("repeat", reply, false);
                    return Class::Refusal;
                }
                Self::repeat_answered(&mut self.tally, self.trust, self.sample.body(number), reply)
            }
            Ticket::RepeatPrevious(spend) => {
                if reply.status != 200 {
                    let behind = self.model.is_held(spend.from) && is_refusal(reply, 409, "NONCE_CONFLICT");
                    self.refused_or_unavailable("repeat", reply, behind);
                    return Class::Refusal;
                }
                let first = &self.lanes[connection].previous;
                if !first.is_empty() {
                    return Self::repeat_answered(&mut self.tally, self.trust, first, reply);
                }
                // The first had failed, and this one went through.
                match self.in_doubt.iter().position(|doubtful| *doubtful == spend) {
                    Some(index) => drop(self.in_doubt.swap_remove(index)),
                    None => self.model.revive(&spend),
                }
                self.accept(&spend, reply.body);
                Class::Repeat
            }
        }
    }

    fn waited(&mut self, since_sent: Duration) {
        self.outage.note_answer(since_sent);
    }

    fn lost(&mut self, _connection: usize, ticket: Ticket) {
        match ticket {
            Ticket::Spend { spend, .. } => self.doubt(spend),
            Ticket::RepeatSampled(number) => self.sample.unpin(number),
            // These change nothing, whether they arrived or not.
            Ticket::Overdraft(_) | Ticket::Read(_) | Ticket::RepeatPrevious(_) => {}
        }
    }

    fn troubles(&self) -> u64 {
        self.tally.unexpected_count()
    }
}

fn is_refusal(reply: &Reply<'_>, status: u16, code: &str) -> bool {
    reply.status == status && code_of(reply.body).as_deref() == Some(code)
}

/// Splits the hot account's share into debits on connection 0 and credits from all other spends. Half of the share would
/// be debits, but no more than connection 0 can carry.
fn hot_shares(hot: Share, connections: usize) -> (Share, Share) {
    let share = hot.fraction();
    if share == 0.0 {
        return (Share::NONE, Share::NONE);
    }
    let lanes = connections as f64;
    let debits = (share / 2.0 * lanes).min(1.0);
    let carried = debits / lanes;
    (Share::of(debits), Share::of((share - carried) / (1.0 - carried).max(f64::MIN_POSITIVE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Naming;

    #[test]
    fn a_write_may_be_told_that_quotas_are_used_up_only_when_they_are_said_to_be() {
        let naming =
            Naming { host: "h".into(), token: "t".into(), account_prefix: "load:".into(), asset: "roc".into(), run_tag: 1 };
        let none = Share::NONE;
        let mix = Mix { reads: none, repeats: none, refusals: none, hot: none, operations: none };
        let mut model = Model::new(3);
        (0..3).for_each(|account| model.issue(account, 10_000));
        let mut workload = Workload::new(Requests::new(naming), model, mix, 1, Trust::CheckAll, 1);
        let told = |workload: &mut Workload, status, body: &[u8]| {
            let ticket = workload.next(0, &mut Vec::new()).unwrap();
            workload.answered(0, ticket, &Reply { status, replayed: false, close: false, body });
            (workload.tally.busy, workload.tally.unexpected_count(), workload.in_doubt.len())
        };
        let busy = br#"{"code":"BUSY"}"#;
        assert_eq!(told(&mut workload, 429, busy), (0, 1, 0), "nobody has said so");
        workload.outage.begin_storm();
        assert_eq!(told(&mut workload, 429, busy), (1, 1, 0));
        assert_eq!(told(&mut workload, 429, b"{}"), (1, 2, 0), "not in these words");
        assert_eq!(told(&mut workload, 503, br#"{"code":"UPSTREAM_UNAVAILABLE"}"#), (1, 3, 1), "for no other reason");
        workload.outage.begin();
        assert_eq!(told(&mut workload, 429, busy), (1, 4, 1));
        assert!((0..3).all(|account| workload.model.account(account).balance == 10_000), "what is refused takes nothing");
    }
}
