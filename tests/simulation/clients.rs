//! Simulated clients: they issue, spend, hold, capture, overdraw, repeat and read, and remember what they were promised.
use crate::model::{Books, Promise};
use crate::rng::Rng;
use crate::world::{Answer, World};
use std::collections::BTreeMap;
use svc_wallet::domain::{Account, Amount, Asset, Code, CoreId, Draft, Entry, Key, Nonce, Op, Seq, TokenId};
use svc_wallet::engine::{Request, Ticket};

const ACCOUNTS: u64 = 12;
const ESCROWS: u64 = 3;

/// What a request asked for, to be sent again with the same key until it is answered.
struct Attempt {
    bytes: Vec<u8>,
    sent: bool,
    answered: bool,
}

/// A read that is under way, with what was promised about the account before it was sent.
struct Read {
    account: String,
    credited_min: u128,
    debited_min: u128,
    height_min: Seq,
}

/// How often each kind of answer came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub receipts: u64,
    pub replays: u64,
    pub reads: u64,
    pub funds: u64,
    pub nonces: u64,
    pub key_conflicts: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.receipts += other.receipts;
        self.replays += other.replays;
        self.reads += other.reads;
        self.funds += other.funds;
        self.nonces += other.nonces;
        self.key_conflicts += other.key_conflicts;
    }

    pub fn assert_diverse(&self) {
        for count in [self.receipts, self.replays, self.reads, self.funds, self.nonces, self.key_conflicts] {
            assert!(count > 20, "{self:?}");
        }
    }
}

pub struct Clients {
    attempts: Vec<Attempt>,
    /// For each write under way its attempt, and the last nonce of its account that was promised before it was sent.
    tickets: BTreeMap<u64, (usize, u64)>,
    reads: BTreeMap<u64, Read>,
    promises: BTreeMap<(String, String), Promise>,
    promised: Books,
    ticket_next: u64,
    key_next: u64,
    nonces: BTreeMap<String, u64>,
    /// Keys are forgotten soon: then no key is used twice on purpose, and an issue is sent once only, because only debits are
    /// protected by their nonce for ever.
    forgetful: bool,
    pub tally: Tally,
}

fn name(number: u64) -> String {
    if number < ACCOUNTS {
        format!("account:{number}")
    } else {
        format!("escrow:{}", number - ACCOUNTS)
    }
}

impl Clients {
    pub fn new(forgetful: bool) -> Self {
        Self {
            attempts: Vec::new(),
            tickets: BTreeMap::new(),
            reads: BTreeMap::new(),
            promises: BTreeMap::new(),
            promised: Books::default(),
            ticket_next: 0,
            key_next: 0,
            nonces: BTreeMap::new(),
            forgetful,
            tally: Tally::default(),
        }
    }

    /// Some client does something.
    pub fn act(&mut self, world: &mut World, rng: &mut Rng) {
        match rng.below(10) {
            0 => self.read(world, rng),
            1 | 2 => self.repeat_one(world, rng),
            _ => self.fresh(world, rng),
        }
    }

    fn ticket(&mut self, core: u16) -> Ticket {
        self.ticket_next += 1;
        Ticket { core: CoreId(core), connection: 0, generation: 0, request: self.ticket_next }
    }

    fn read(&mut self, world: &mut World, rng: &mut Rng) {
        let account = name(rng.below(ACCOUNTS + ESCROWS));
        let sums = self.promised.sums(&account);
        let of_account = |promise: &&Promise| {
            let entry = Entry::parse(&promise.entry).unwrap().0;
            entry.from().map(Account::as_str) == Some(&account) || entry.to().map(Account::as_str) == Some(&account)
        };
        let height_min = self.promises.values().filter(of_account).map(|promise| promise.seq).max().unwrap_or_default();
        let ticket = self.ticket(rng.below(u64::from(world.cores())) as u16);
        let read = Read { account: account.clone(), credited_min: sums.credited, debited_min: sums.debited, height_min };
        self.reads.insert(ticket.request, read);
        world.submit(ticket, Request::Balance { account: Account::new(&account).unwrap(), asset: Asset::new("roc").unwrap() });
    }

    fn repeat_one(&mut self, world: &mut World, rng: &mut Rng) {
        if self.attempts.is_empty() {
            return;
        }
        let index = rng.below(self.attempts.len() as u64) as usize;
        let core = rng.below(u64::from(world.cores())) as u16;
        self.send(world, index, core);
    }

    /// Every request that has no answer is sent again.
    pub fn repeat_all(&mut self, world: &mut World) {
        for index in 0..self.attempts.len() {
            if !self.attempts[index].answered {
                self.send(world, index, (index % usize::from(world.cores())) as u16);
            }
        }
    }

    fn send(&mut self, world: &mut World, index: usize, core: u16) {
        let attempt = &mut self.attempts[index];
        let bytes = attempt.bytes.clone();
        let entry = Entry::parse(&bytes).unwrap().0;
        if std::mem::replace(&mut attempt.sent, true) && self.forgetful && entry.op() == Op::Issue {
            attempt.answered = true;
            return;
        }
        // Whatever it was answered before: now it is in doubt again.
        attempt.answered = false;
        let ticket = self.ticket(core);
        let promised = entry.from().map_or(0, |from| self.promised.sums(from.as_str()).nonce);
        self.tickets.insert(ticket.request, (index, promised));
        world.submit(ticket, Request::Write { entry, ceiling: None });
    }

    fn fresh(&mut self, world: &mut World, rng: &mut Rng) {
        let escrow = || name(ACCOUNTS);
        let account = name(rng.below(ACCOUNTS));
        let other =
            name((rng.below(ACCOUNTS - 1) + 1 + account.trim_start_matches("account:").parse::<u64>().unwrap()) % ACCOUNTS);
        let hot = name(0);
        let (op, from, to) = match rng.below(20) {
            0..=4 => (Op::Issue, None, Some(account)),
            5..=9 => (Op::Transfer, Some(account), Some(other)),
            10 | 11 if account != hot => (Op::Transfer, Some(account), Some(hot)),
            12 | 13 => (Op::Burn, Some(account), None),
            14 | 15 => (Op::Hold, Some(account), Some(name(ACCOUNTS + rng.below(ESCROWS)))),
            16 | 17 => (Op::Capture, Some(escrow()), Some(other)),
            18 => (Op::Release, Some(escrow()), Some(account)),
            _ => (Op::Transfer, Some(account), Some(other)),
        };
        let amount = if rng.percent(10) { 1_000_000 } else { 1 + rng.below(60) };
        let nonce = from.as_ref().map(|from| {
            let last = self.nonces.get(from).copied().unwrap_or(0);
            Nonce(if rng.percent(5) { last.saturating_sub(1) + rng.below(4) + 1 } else { last + 1 })
        });
        // Sometimes a key is used again for another request.
        let key = if rng.percent(4) && self.key_next > 0 && !self.forgetful { rng.below(self.key_next) } else { self.key_next };
        self.key_next = self.key_next.max(key + 1);
        let key = format!("k{key}");
        let mut bytes = Vec::new();
        let draft = Draft {
            op,
            from: from.as_deref().map(|from| Account::new(from).unwrap()),
            to: to.as_deref().map(|to| Account::new(to).unwrap()),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(u128::from(amount)).unwrap(),
            nonce,
            key: Key::new(&key).unwrap(),
            memo: None,
            corr: "sim",
            token: TokenId::default(),
            ceiling: false,
            ts: world.now,
        };
        draft.encode(&mut bytes);
        self.attempts.push(Attempt { bytes, sent: false, answered: false });
        let core = rng.below(u64::from(world.cores())) as u16;
        self.send(world, self.attempts.len() - 1, core);
    }

    /// Answers reached their clients.
    pub fn take(&mut self, replies: Vec<(Ticket, Answer)>, world: &World) {
        for (ticket, answer) in replies {
            if let Some(read) = self.reads.remove(&ticket.request) {
                self.check_read(&read, &answer, world);
            } else if let Some((index, promised)) = self.tickets.remove(&ticket.request) {
                self.check_answer(index, promised, answer);
            }
        }
    }

    fn check_answer(&mut self, index: usize, promised: u64, answer: Answer) {
        let asked = self.attempts[index].bytes.clone();
        let asked = Entry::parse(&asked).unwrap().0;
        match answer {
            Answer::Receipt { entry: bytes, seq, root, replayed } => {
                let promise = Promise { entry: bytes.clone(), seq, root };
                let entry = Entry::parse(&bytes).unwrap().0;
                assert!(entry.same_request(&asked), "the receipt is for the request");
                assert_eq!((entry.key(), entry.owner()), (asked.key(), asked.owner()));
                self.attempts[index].answered = true;
                self.tally.receipts += 1;
                self.tally.replays += u64::from(replayed);
                if let (Some(from), Some(nonce)) = (entry.from(), entry.nonce()) {
                    let last = self.nonces.entry(from.as_str().to_owned()).or_default();
                    *last = (*last).max(nonce.0);
                }
                let name = (entry.owner().as_str().to_owned(), entry.key().as_str().to_owned());
                match self.promises.get(&name) {
                    Some(first) => assert_eq!(*first, promise, "I-12: a repeat gets the first answer"),
                    None => {
                        self.count_promise(&entry);
                        self.promises.insert(name, promise);
                    }
                }
            }
            Answer::Refused { code, expected } => {
                assert_eq!(expected.is_some(), code == Code::NonceConflict);
                assert!(
                    expected.map_or(true, |expected| expected > promised),
                    "the nonce that is asked for has not been promised"
                );
                self.attempts[index].answered = true;
                self.tally.funds += u64::from(code == Code::InsufficientFunds);
                self.tally.nonces += u64::from(code == Code::NonceConflict);
                self.tally.key_conflicts += u64::from(code == Code::IdempotencyConflict);
                let expected = [Code::InsufficientFunds, Code::NonceConflict, Code::IdempotencyConflict, Code::Forbidden];
                assert!(expected.contains(&code), "{code:?}");
                if code == Code::NonceConflict {
                    // The next request asks the account where it stands, as a client would.
                    let from = asked.from().unwrap().as_str();
                    let known = self.promised.sums(from).nonce;
                    self.nonces.insert(from.to_owned(), known);
                }
            }
            Answer::Balance { .. } | Answer::Other => panic!("a write was answered with something else"),
        }
    }

    /// Adds what was promised to the sums of the accounts; order does not matter for them.
    fn count_promise(&mut self, entry: &Entry<'_>) {
        let amount = entry.amount().minor_units();
        if let Some(from) = entry.from() {
            let sums = self.promised.accounts.entry(from.as_str().to_owned()).or_default();
            sums.debited += amount;
            sums.nonce = sums.nonce.max(entry.nonce().unwrap().0);
        }
        if let Some(to) = entry.to() {
            self.promised.accounts.entry(to.as_str().to_owned()).or_default().credited += amount;
        }
    }

    fn check_read(&mut self, read: &Read, answer: &Answer, world: &World) {
        let Answer::Balance { account, amount, height } = answer else { panic!("a read was answered with something else") };
        assert_eq!(*account, read.account);
        assert!(*height >= read.height_min, "the owner core had heard of everything promised before the read");
        let now = books(world).sums(account);
        assert!(*amount + now.debited >= read.credited_min, "a read missed a credit that was promised before it was sent");
        assert!(*amount + read.debited_min <= now.credited, "a read missed a debit that was promised before it was sent");
        self.tally.reads += 1;
    }

    /// Every promise is in the ledger, byte for byte.
    pub fn check_promises(&self, world: &World) {
        let mut kept = 0;
        world.for_each_entry(|seq, root, entry| {
            let name = (entry.owner().as_str().to_owned(), entry.key().as_str().to_owned());
            if let Some(promise) = self.promises.get(&name) {
                assert_eq!(*promise, Promise { entry: entry.bytes().to_vec(), seq, root: *root }, "I-6: a promise changed");
                kept += 1;
            }
        });
        assert_eq!(kept, self.promises.len(), "I-6: a promise was lost");
    }

    /// The process that the clients talked to is gone. What has no answer is in doubt, even where another copy of it was refused.
    pub fn forget_connections(&mut self) {
        for (_, (index, _)) in std::mem::take(&mut self.tickets) {
            self.attempts[index].answered = false;
        }
        self.reads.clear();
    }

    pub fn settled(&self) -> bool {
        self.tickets.is_empty() && self.reads.is_empty() && self.attempts.iter().all(|attempt| attempt.answered)
    }

    /// At rest: the live state is what the ledger adds up to, before and after a restart. Returns the last chain hash.
    pub fn check_end(&self, world: &mut World) -> [u8; 32] {
        self.check_promises(world);
        let books = books(world);
        books.assert_conserved();
        let promises = self.promises.len() as u64;
        assert!(
            books.entries == promises || (self.forgetful && books.entries > promises),
            "every entry was asked for and answered"
        );
        let live = world.balances();
        for (account, amount, held, nonce) in &live {
            let sums = books.sums(account);
            assert_eq!((*amount, *held as i128, *nonce), (sums.balance(), sums.held, sums.nonce), "{account}");
        }
        world.restart(3);
        assert_eq!(world.balances(), live, "I-7: the ledger alone gives the same state");
        let mut last = [0; 32];
        world.for_each_entry(|_, root, _| last = *root);
        last
    }
}

fn books(world: &World) -> Books {
    let mut books = Books::default();
    world.for_each_entry(|_, _, entry| books.apply(&entry));
    books
}
