//! The simple model that every history is held against: the durable entries one by one, and what they add up to.
use std::collections::BTreeMap;
use svc_wallet::domain::{Entry, LaneBatch, Nonce, Op, Root, Seq, UnixMs};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The most that an account may debit in a day where a ceiling is given: one for all, so that the model is simple.
pub const CEILING: u128 = 150;

/// A durable entry or what was promised in a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub entry: Vec<u8>,
    pub seq: Seq,
    pub root: Root,
}

/// Credits and debits of one account, and its nonces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub credited: u128,
    pub debited: u128,
    pub held: i128,
    pub nonce: u64,
}

impl Sums {
    pub fn balance(&self) -> u128 {
        self.credited.checked_sub(self.debited).expect("I-2: no balance below zero")
    }
}

/// The ledger as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub entries: Vec<Placed>,
    /// The last entry of each commit.
    pub commits: Vec<u64>,
    pub accounts: BTreeMap<String, Sums>,
    /// The latest moment at which an entry was accepted; the clock may have gone back since.
    pub latest: UnixMs,
    issued: u128,
    burned: u128,
    keys: BTreeMap<(String, String), Seq>,
    debits: BTreeMap<(String, u64), Seq>,
    /// The newest day of each capability and account, and what was debited since.
    daily: BTreeMap<([u8; 16], String), (u64, u128)>,
}

impl Model {
    pub fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A commit became durable.
    pub fn commit(&mut self, parts: &[LaneBatch], first_seq: Seq, root: Root) {
        assert_eq!(first_seq.0, self.head() + 1, "sequence numbers are dense");
        for entry in parts.iter().flat_map(|part| Entry::all_own(&part.bytes)) {
            self.apply(&entry, root);
        }
        self.end_commit();
    }

    pub fn end_commit(&mut self) {
        self.commits.push(self.head());
        self.assert_conserved();
    }

    /// Adds a durable entry; panics where an invariant is broken.
    pub fn apply(&mut self, entry: &Entry<'_>, root: Root) {
        let seq = Seq(self.head() + 1);
        let owner = entry.owner().as_str().to_owned();
        let key = (owner.clone(), entry.key().as_str().to_owned());
        let earlier = self.keys.insert(key, seq);
        assert!(earlier.is_none(), "I-1: one entry per (account, key): {owner} {}", entry.key());
        self.latest = entry.ts().max(self.latest);
        let amount = entry.amount().minor_units();
        if let Some(from) = entry.from() {
            let sums = self.accounts.entry(from.as_str().to_owned()).or_default();
            assert_eq!(entry.nonce().unwrap().0, sums.nonce + 1, "I-1: one entry per (account, nonce): {from}");
            sums.nonce += 1;
            self.debits.insert((from.as_str().to_owned(), sums.nonce), seq);
            sums.debited += amount;
            if entry.op().draws_held() {
                sums.held -= amount as i128;
                assert!(sums.held >= 0, "I-2: held value of {from} below zero");
            }
            assert!(sums.balance() >= sums.held as u128, "I-2: free value of {from} below zero");
        } else {
            self.issued += amount;
        }
        match entry.to() {
            Some(to) => {
                let sums = self.accounts.entry(to.as_str().to_owned()).or_default();
                sums.credited += amount;
                if entry.op() == Op::Hold {
                    sums.held += amount as i128;
                }
            }
            None => self.burned += amount,
        }
        if entry.counts_against_ceiling() {
            let day = entry.ts().0 / DAY_MS;
            let (newest, spent) = self.daily.entry((entry.token().0, owner)).or_default();
            if day > *newest {
                (*newest, *spent) = (day, 0);
            }
            *spent += amount;
            assert!(*spent <= CEILING, "the daily ceiling holds");
        }
        self.entries.push(Placed { entry: entry.bytes().to_vec(), seq, root });
    }

    /// I-3: what was issued and not burned is on the accounts.
    fn assert_conserved(&self) {
        let total: u128 = self.accounts.values().map(Sums::balance).sum();
        assert_eq!(total, self.issued - self.burned, "I-3: conservation");
    }

    /// All that was issued, burned and is held.
    pub fn totals(&self) -> (u128, u128, u128) {
        (self.issued, self.burned, self.accounts.values().map(|sums| sums.held as u128).sum())
    }

    /// The newest entry of an account under a key.
    pub fn under_key(&self, account: &str, key: &str) -> Option<&Placed> {
        let seq = self.keys.get(&(account.to_owned(), key.to_owned()))?;
        self.at(*seq)
    }

    /// The debit of an account with a nonce.
    pub fn debit(&self, account: &str, nonce: Nonce) -> Option<&Placed> {
        self.at(*self.debits.get(&(account.to_owned(), nonce.0))?)
    }

    pub fn at(&self, seq: Seq) -> Option<&Placed> {
        self.entries.get((seq.0 as usize).checked_sub(1)?)
    }

    /// The state that the cores must have: (account, amount, held, nonce), sorted.
    pub fn balances(&self) -> Vec<(String, u128, u128, u64)> {
        let row = |(name, sums): (&String, &Sums)| (name.clone(), sums.balance(), sums.held as u128, sums.nonce);
        self.accounts.iter().map(row).collect()
    }
}
