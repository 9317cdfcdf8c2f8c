//! Simulated clients: they issue, spend, hold, capture, overdraw, repeat, give up and read, and remember what they were promised.
mod late;

use crate::core::Answer;
use crate::edge::{Called, Sent};
use crate::grants::{grants, Demand, UNDER_A_CEILING, UNDER_BUDGETS};
use crate::linearizability::{Effect, Operation};
use crate::model::{Placed, ASSETS, CEILING};
use crate::rng::Rng;
use crate::wishes::{escrow, extreme, left_of_budget, memo, refusal_name, some_grant, Wish, ESCROWS};
use crate::world::World;
use std::collections::BTreeMap;
use svc_wallet::domain::limits::ISSUED_PER_CORE_MAX;
use svc_wallet::domain::{Account, Asset, Code, CoreId, Entry, Op, Seq};
use svc_wallet::engine::{Request, Ticket};

/// A write under way.
struct Write {
    wish: usize,
    deadline: u64,
    /// The last nonce of its account that was promised before it was sent.
    promised: u64,
    /// What its account had been credited with for sure, before it was sent.
    credited: u128,
    /// Whether a hold by the account to which this releases was promised before it was sent.
    holds: bool,
}

/// A read under way.
struct Read {
    account: String,
    asset: usize,
    sent: u64,
    height_min: Seq,
}

pub struct Clients {
    wishes: Vec<Wish>,
    writes: BTreeMap<u64, Write>,
    /// Writes to wallets that were replaced.
    late: BTreeMap<u64, Write>,
    reads: BTreeMap<u64, Read>,
    promises: BTreeMap<(String, String), Placed>,
    /// The newest promise to each account.
    heights: BTreeMap<String, Seq>,
    ticket_next: u64,
    key_next: u64,
    nonces: BTreeMap<String, u64>,
    /// All that was ever asked to be debited, per account and asset; the largest number if that is too much to be told.
    asked: BTreeMap<(String, usize), u128>,
    /// All that was promised to be credited, per account and asset, or less.
    credited: BTreeMap<(String, usize), u128>,
    /// All that was ever asked to be issued, per asset.
    asked_to_issue: [u128; ASSETS.len()],
    /// Completed reads.
    observed: Vec<(String, Operation)>,
    /// Counts calls and answers, so that no two happen at once.
    moment: u64,
}

impl Clients {
    pub fn new() -> Self {
        Self {
            wishes: Vec::new(),
            writes: BTreeMap::new(),
            late: BTreeMap::new(),
            reads: BTreeMap::new(),
            promises: BTreeMap::new(),
            heights: BTreeMap::new(),
            ticket_next: 0,
            key_next: 0,
            nonces: BTreeMap::new(),
            asked: BTreeMap::new(),
            credited: BTreeMap::new(),
            asked_to_issue: [0; ASSETS.len()],
            observed: Vec::new(),
            moment: 0,
        }
    }

    fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// Some client does something.
    pub fn act(&mut self, world: &mut World, rng: &mut Rng) {
        let dice = rng.below(100);
        let (read, repeat) = (world.swarm.read_percent, world.swarm.repeat_percent);
        if dice < read {
            self.read(world, rng);
        } else if dice < read + repeat && !self.wishes.is_empty() {
            let index = rng.below(self.wishes.len() as u64) as usize;
            let again = self.wishes[index].sent.is_some();
            if again {
                let what = match self.wishes[index].answered {
                    true => "client: repeat of an answered request",
                    false => "client: repeat of an unanswered request",
                };
                world.coverage.count(what);
            }
            self.send(world, index, rng);
        } else {
            self.wish(world, rng);
            self.send(world, self.wishes.len() - 1, rng);
        }
    }

    fn ticket(&mut self, world: &World, rng: &mut Rng) -> Ticket {
        self.ticket_next += 1;
        let core = CoreId(rng.below(world.cores.len() as u64) as u16);
        Ticket { core, connection: rng.below(4) as u32, generation: 0, request: self.ticket_next }
    }

    fn some_account(&self, world: &World, rng: &mut Rng) -> String {
        if rng.percent(world.swarm.hot_percent) {
            return "account:0".into();
        }
        format!("account:{}", rng.below(world.swarm.accounts))
    }

    fn read(&mut self, world: &mut World, rng: &mut Rng) {
        let account = if rng.percent(15) { escrow(rng.below(ESCROWS)) } else { self.some_account(world, rng) };
        let ticket = self.ticket(world, rng);
        let (grant, of_balance) = (&grants()[some_grant(world, rng)], rng.percent(70));
        let asset = rng.below(world.swarm.assets) as usize;
        let (path, query) = match of_balance {
            true => ("/v1/balance", format!("account={account}&asset={}", ASSETS[asset])),
            false => ("/v1/seq", format!("account={account}")),
        };
        let sent = Sent { path: path.into(), query: Some(query), key: None, body: String::new() };
        let read = of_balance.then_some(ASSETS[asset]);
        let demand = Demand { op: None, account: Some(&account), to: None, asset: read, amount: 0, key: None };
        let Some(called) = world.call(ticket.core, grant, sent, &demand) else { return };
        let height_min = self.heights.get(&account).copied().unwrap_or_default();
        let sent = self.moment();
        self.reads.insert(ticket.request, Read { account: account.clone(), asset, sent, height_min });
        let account = Account::new(&account).unwrap();
        let asset = Asset::new(ASSETS[asset]).unwrap();
        let request = match called {
            Called::Balance => Request::Balance { account, asset },
            Called::LastNonce => Request::LastNonce { account },
            Called::Write { .. } => panic!("a read is called a write"),
        };
        world.submit(ticket, request);
    }

    fn wish(&mut self, world: &mut World, rng: &mut Rng) {
        let operations = world.swarm.operations;
        let mut dice = rng.below(operations.iter().sum());
        let mut chosen = 0;
        while dice >= operations[chosen] {
            dice -= operations[chosen];
            chosen += 1;
        }
        let op = [Op::Issue, Op::Transfer, Op::Burn, Op::Hold, Op::Capture, Op::Release][chosen];
        let account = self.some_account(world, rng);
        let other = format!("account:{}", rng.below(world.swarm.accounts));
        let held = escrow(rng.below(ESCROWS));
        let (from, to) = match op {
            Op::Issue => (None, Some(account)),
            Op::Transfer if account == other => (Some(account), Some(held)),
            Op::Transfer => (Some(account), Some(other)),
            Op::Burn => (Some(account), None),
            Op::Hold => (Some(account), Some(held)),
            Op::Capture | Op::Release => (Some(held), Some(other)),
        };
        let asset = rng.below(world.swarm.assets) as usize;
        let amount = if rng.percent(world.swarm.extreme_percent) {
            extreme(world, from.as_deref(), asset, rng)
        } else if rng.percent(world.swarm.huge_percent) {
            1_000_000
        } else {
            1 + u128::from(rng.below(60))
        };
        // Keys that are forgotten early are not used twice on purpose.
        let again = rng.percent(world.swarm.key_again_percent) && self.key_next > 0 && !world.swarm.forgetful;
        let key = if again { rng.below(self.key_next) } else { self.key_next };
        self.key_next = self.key_next.max(key + 1);
        if again {
            world.coverage.count("client: other request under a used key");
        }
        let under_a_ceiling = from.is_some() && rng.percent(world.swarm.ceiling_percent);
        let under_a_budget = from.is_some() && rng.percent(world.swarm.budget_percent);
        let grant = match (under_a_budget, under_a_ceiling) {
            (true, _) => *rng.pick(&UNDER_BUDGETS),
            (false, true) => UNDER_A_CEILING,
            (false, false) => some_grant(world, rng),
        };
        // Some clients know what is left.
        let amount = if under_a_budget && rng.percent(20) { left_of_budget(world, grant).unwrap_or(amount) } else { amount };
        let key = format!("k{key}");
        let mut wish = Wish { op, from, to, asset, amount, nonce: None, key, grant, sent: None, receipt: None, answered: false };
        let allowed = grants()[grant].allows(&wish.demand(), world.now).is_ok();
        wish.nonce = wish.from.as_ref().map(|from| {
            let last = self.nonces.get(from).copied().unwrap_or(0);
            if rng.percent(world.swarm.wrong_nonce_percent) {
                world.coverage.count("client: used nonce");
                return last.saturating_sub(2) + rng.below(4) + 1;
            }
            // Some clients send the next debit before the last one is answered.
            if rng.percent(60) && allowed {
                self.nonces.insert(from.clone(), last + 1);
            }
            last + 1
        });
        self.wishes.push(wish);
    }

    fn send(&mut self, world: &mut World, index: usize, rng: &mut Rng) {
        let ticket = self.ticket(world, rng);
        let moment = self.moment();
        let wish = &mut self.wishes[index];
        // Only debits are protected for ever, by their nonce: whoever wants to issue once must not repeat it after the time of the key.
        if world.swarm.forgetful && wish.op == Op::Issue && wish.sent.is_some() {
            return;
        }
        // Whatever it was answered before: now it is in doubt again, or refused for good.
        let called = world.call(ticket.core, &grants()[wish.grant], wish.request(index), &wish.demand());
        wish.answered = called.is_none();
        let (bytes, allowance) = match called {
            None => return,
            Some(Called::Write { entry, allowance }) => (entry, allowance),
            Some(called) => panic!("a write is called {called:?}"),
        };
        if wish.sent.is_none() {
            wish.sent = Some(moment);
            let asked = match &wish.from {
                Some(from) => self.asked.entry((from.clone(), wish.asset)).or_default(),
                None => &mut self.asked_to_issue[wish.asset],
            };
            *asked = asked.saturating_add(wish.amount);
        }
        let entry = Entry::parse(&bytes).unwrap().0;
        let same = wish.is(&entry) && entry.memo() == memo(index).as_deref() && entry.ts() == world.now;
        assert!(same && grants()[wish.grant].id == entry.token(), "what is let through is what was asked: {entry:?}");
        let from = wish.from.clone().unwrap_or_default();
        let write = Write {
            wish: index,
            deadline: world.tick + world.swarm.timeout_ticks,
            promised: self.promised_nonce(&from),
            credited: self.credited.get(&(from, self.wishes[index].asset)).copied().unwrap_or(0),
            holds: self.holds(&self.wishes[index]),
        };
        self.writes.insert(ticket.request, write);
        world.submit(ticket, Request::Write { entry, allowance });
    }

    /// Whether the account that a wish pays was promised a hold on the account that it draws on.
    fn holds(&self, wish: &Wish) -> bool {
        let payer = wish.to.clone().unwrap_or_default();
        let of_payer = self.promises.range((payer.clone(), String::new())..).take_while(|((owner, _), _)| *owner == payer);
        of_payer
            .map(|(_, promise)| Entry::parse(&promise.entry).unwrap().0)
            .filter(|entry| entry.asset().as_str() == ASSETS[wish.asset])
            .any(|entry| entry.op() == Op::Hold && entry.to().map(Account::as_str) == wish.from.as_deref())
    }

    /// The highest nonce of an account that was promised.
    fn promised_nonce(&self, account: &str) -> u64 {
        let of_account = self.promises.range((account.to_owned(), String::new())..);
        let of_account = of_account.take_while(|((owner, _), _)| owner == account);
        of_account
            .filter_map(|(_, promise)| Entry::parse(&promise.entry).unwrap().0.nonce())
            .map(|nonce| nonce.0)
            .max()
            .unwrap_or(0)
    }

    /// Clients give up waiting; some connections are cut. What was asked for may happen all the same.
    pub fn give_up(&mut self, world: &mut World, rng: &mut Rng) {
        let cut = rng.rarely(world.swarm.cut_connection);
        let before = self.writes.len();
        if cut {
            world.coverage.count("client: connection cut");
            self.writes.retain(|request, _| request % 4 != 0);
            self.reads.retain(|request, _| request % 4 != 0);
        }
        let cut = before - self.writes.len();
        self.writes.retain(|_, write| write.deadline > world.tick);
        for _ in 0..before - cut - self.writes.len() {
            world.coverage.count("client: timeout");
        }
    }

    /// Nothing is under way any more: what has no answer now gets none, because its process ended or its connection was cut.
    pub fn give_up_hanging(&mut self, world: &World) {
        assert!(self.writes.is_empty() && self.reads.is_empty(), "everything that is under way is answered at {}", world.tick);
    }

    /// Some requests that have no answer are sent again.
    pub fn repeat_unanswered(&mut self, world: &mut World, rng: &mut Rng, most: usize) {
        let open = |wish: &Wish| !(wish.answered || world.swarm.forgetful && wish.op == Op::Issue);
        let open: Vec<usize> = (0..self.wishes.len()).filter(|index| open(&self.wishes[*index])).take(most).collect();
        for index in open {
            self.send(world, index, rng);
        }
    }

    /// Answers reached their clients.
    pub fn take(&mut self, replies: Vec<(Ticket, Answer)>, world: &mut World) {
        for (ticket, answer) in replies {
            let moment = self.moment();
            if let Some(read) = self.reads.remove(&ticket.request) {
                self.take_read(read, answer, moment, world);
            } else if let Some(write) = self.writes.remove(&ticket.request) {
                self.take_answer(&write, answer, moment, world);
            }
        }
    }

    fn take_read(&mut self, read: Read, answer: Answer, moment: u64, world: &mut World) {
        let (effect, account) = match answer {
            Answer::Balance { account, amount, height } => {
                world.coverage.count("answer: balance");
                assert!(height >= read.height_min, "the owner core had heard of everything promised before the read");
                (Effect::ReadBalance(amount), account)
            }
            Answer::LastNonce { account, confirmed } => {
                world.coverage.count("answer: last nonce");
                (Effect::ReadNonce(confirmed), account)
            }
            Answer::Receipt { .. } | Answer::Refused { .. } => panic!("a read was answered with something else"),
        };
        assert_eq!(account, read.account, "a read is answered for the account that was asked for");
        let Read { sent: call, asset, .. } = read;
        self.observed.push((account, Operation { call, answer: Some(moment), certain: true, asset, effect }));
    }

    fn take_answer(&mut self, write: &Write, answer: Answer, moment: u64, world: &mut World) {
        match answer {
            Answer::Receipt { entry, seq, root, replayed } => {
                world.coverage.count(if replayed { "answer: replayed receipt" } else { "answer: receipt" });
                self.take_receipt(write.wish, Placed { entry, seq, root }, moment, world);
            }
            Answer::Refused { code, expected } => self.take_refusal(write, code, expected, world),
            Answer::Balance { .. } | Answer::LastNonce { .. } => panic!("a write was answered with something else"),
        }
    }

    fn take_receipt(&mut self, index: usize, promise: Placed, moment: u64, world: &mut World) {
        let wish = &mut self.wishes[index];
        let entry = Entry::parse(&promise.entry).unwrap().0;
        assert!(wish.is(&entry), "the receipt is for the request: {entry:?}");
        assert_eq!(world.model.at(promise.seq), Some(&promise), "I-6: what a receipt says is durable before it leaves");
        if entry.op() == Op::Issue && wish.amount > ISSUED_PER_CORE_MAX / 4 {
            world.coverage.count("amount: much of what may be issued");
        } else if wish.amount > ISSUED_PER_CORE_MAX / 4 {
            world.coverage.count("amount: much of what was issued moves");
        }
        if wish.asset > 0 {
            world.coverage.count("asset: another than the first");
        }
        wish.answered = true;
        wish.receipt.get_or_insert(moment);
        for account in [entry.from(), entry.to()].into_iter().flatten() {
            let height = self.heights.entry(account.as_str().to_owned()).or_default();
            *height = promise.seq.max(*height);
        }
        if let (Some(from), Some(nonce)) = (entry.from(), entry.nonce()) {
            let last = self.nonces.entry(from.as_str().to_owned()).or_default();
            *last = nonce.0.max(*last);
        }
        let name = (entry.owner().as_str().to_owned(), entry.key().as_str().to_owned());
        let first = self.promises.entry(name).or_insert_with(|| {
            if let Some(to) = entry.to() {
                let credited = self.credited.entry((to.as_str().to_owned(), wish.asset)).or_default();
                *credited = credited.saturating_add(wish.amount);
            }
            promise.clone()
        });
        assert_eq!(*first, promise, "I-12: a repeat gets the first answer");
    }

    fn take_refusal(&mut self, write: &Write, code: Code, expected: Option<u64>, world: &mut World) {
        let wish = &mut self.wishes[write.wish];
        world.coverage.count(refusal_name(code));
        assert_eq!(expected.is_some(), code == Code::NonceConflict, "a conflict of nonces, and nothing else, names the next one");
        // Not now is no answer to what was wished.
        wish.answered = !matches!(code, Code::UpstreamUnavailable | Code::RetryLater);
        let from = wish.from.clone().unwrap_or_default();
        match code {
            Code::InsufficientFunds => {
                let asked = self.asked.get(&(from.clone(), wish.asset)).copied().unwrap_or(0);
                let enough = write.credited >= asked && asked < u128::MAX;
                if wish.amount > ISSUED_PER_CORE_MAX {
                    world.coverage.count("amount: no account has so much");
                }
                assert!(!enough || wish.op.draws_held(), "a debit of what is certainly there is not refused: {from}");
            }
            Code::NonceConflict => {
                let expected = expected.expect("just compared");
                assert!(expected > write.promised, "the nonce that is asked for has not been promised");
                self.nonces.insert(from, expected - 1);
            }
            Code::IdempotencyConflict => {
                let (key, owner) = (wish.key.clone(), wish.owner().to_owned());
                let same = |other: &&Wish| other.sent.is_some() && other.key == key && other.owner() == owner;
                let others = self.wishes.iter().filter(same).count();
                assert!(others > 1, "a key that was used once is in conflict with nothing");
                let first = world.model.under_key(&owner, &key).expect("the first request under the key is durable");
                let first = Entry::parse(&first.entry).unwrap().0;
                let same = self.wishes[write.wish].is(&first) && first.memo() == memo(write.wish).as_deref();
                assert!(!same, "I-12: a repeat gets the first answer, not a conflict: {key} of {owner}");
            }
            Code::Forbidden => {
                assert!(wish.op == Op::Release && !write.holds, "a release is forbidden only if it goes back to no payer");
            }
            Code::LimitsExceeded if wish.op == Op::Issue => {
                let asked = self.asked_to_issue[wish.asset];
                assert!(
                    asked > ISSUED_PER_CORE_MAX,
                    "what may still be issued is not refused: {} of {asked} in all",
                    wish.amount
                );
                world.coverage.count(match wish.amount {
                    0..=1_000_000 => "amount: small, all was issued before",
                    1_000_001..=ISSUED_PER_CORE_MAX => "amount: beyond what may still be issued",
                    _ => "amount: more than may ever be issued",
                });
            }
            Code::LimitsExceeded => {
                let grant = &grants()[wish.grant];
                assert!(grant.has_ceiling() || grant.budget().is_some(), "only a ceiling or a budget limits");
                if grant.has_ceiling() && wish.amount > u128::MAX - CEILING {
                    world.coverage.count("amount: with a ceiling near 128 bits");
                }
            }
            Code::UpstreamUnavailable | Code::RetryLater => {}
            Code::InternalError => {
                let faults = world.faults();
                assert!(faults.told > 0 || faults.lied.is_some(), "the ledger could be read");
            }
            Code::Busy => {
                let small = world.settings.keys_max < 1 << 16;
                assert!(wish.op == Op::Issue && small, "only a window that is full of issues is too busy");
            }
            Code::BadRequest | Code::Unauthorized | Code::NotFound | Code::MethodNotAllowed => {
                panic!("a refusal that nothing here provokes: {code:?}")
            }
        }
    }

    /// Every promise is in the ledger, byte for byte.
    pub fn check_promises(&self, world: &World) {
        world.model.assert_holds(self.promises.values().cloned());
    }

    /// The process that the clients talked to is gone. What has no answer is in doubt, even where another copy of it was refused.
    pub fn forget_connections(&mut self) {
        for (_, write) in std::mem::take(&mut self.writes) {
            self.wishes[write.wish].answered = false;
        }
        self.reads.clear();
    }

    pub fn is_settled(&self, world: &World) -> bool {
        let done = |wish: &Wish| wish.answered || (world.swarm.forgetful && wish.op == Op::Issue);
        self.writes.is_empty() && self.reads.is_empty() && self.wishes.iter().all(done)
    }

    /// What every account went through, as its clients saw it. Which wishes without a receipt came true is taken from the ledger.
    pub fn histories(&self, world: &World) -> BTreeMap<String, Vec<Operation>> {
        let mut histories: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
        for (account, operation) in &self.observed {
            histories.entry(account.clone()).or_default().push(*operation);
        }
        // Two wishes may be the same request under the same key: they come true once.
        let mut fulfilled: BTreeMap<Seq, (&Wish, u64, Option<u64>)> = BTreeMap::new();
        for wish in &self.wishes {
            let placed = world.model.under_key(wish.owner(), &wish.key);
            let Some(placed) = placed.filter(|placed| wish.is(&Entry::parse(&placed.entry).unwrap().0)) else { continue };
            let Some(sent) = wish.sent else { continue };
            let (_, call, answer) = fulfilled.entry(placed.seq).or_insert((wish, sent, wish.receipt));
            *call = sent.min(*call);
            *answer = [*answer, wish.receipt].into_iter().flatten().min();
        }
        assert_eq!(fulfilled.len() as u64, world.model.head(), "every entry was asked for");
        for (wish, call, answer) in fulfilled.into_values() {
            let mut note = |account: &String, effect| {
                let operation = Operation { call, answer, certain: true, asset: wish.asset, effect };
                histories.entry(account.clone()).or_default().push(operation);
            };
            let amount = wish.amount;
            if let (Some(from), Some(nonce)) = (&wish.from, wish.nonce) {
                note(from, Effect::Debit { nonce, amount });
            }
            if let Some(to) = &wish.to {
                note(to, Effect::Credit(amount));
            }
        }
        histories
    }
}
