//! The simple model that every history is held against: the durable entries one by one, and what they add up to.
use crate::grants::{allowed, budget_max};
use std::collections::{BTreeMap, BTreeSet};
use svc_wallet::domain::limits::ISSUED_PER_CORE_MAX;
use svc_wallet::domain::{Entry, LaneBatch, Nonce, Op, Root, Seq, TokenId, UnixMs};

pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is moved. A history uses the first of them, or more.
pub const ASSETS: [&str; 3] = ["roc", "usd", "tok"];

/// The most that an account may debit in a day where a ceiling is given: one for all, so that the model is simple.
pub const CEILING: u128 = 150;

/// The budget of most capabilities that have one: enough for some debits.
pub const BUDGET: u128 = 120;

/// What four cores may issue of an asset together.
const ISSUED_MAX: u128 = 4 * ISSUED_PER_CORE_MAX;

/// A durable entry or what was promised in a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub entry: Vec<u8>,
    pub seq: Seq,
    pub root: Root,
}

/// What an account has of one asset, held value included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    pub balance: u128,
    pub held: u128,
}

/// What was issued and burned of one asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub asset: String,
    pub issued: u128,
    pub burned: u128,
}

/// (account, asset, amount, held) of all that is not zero, the last nonce of every account, and what was debited under budgets.
pub type State = (BTreeSet<(String, String, u128, u128)>, BTreeMap<String, u64>, BTreeMap<TokenId, u128>);

/// The ledger as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub entries: Vec<Placed>,
    /// The last entry of each commit.
    pub commits: Vec<u64>,
    /// By account and asset.
    pub values: BTreeMap<(String, String), Value>,
    /// The last nonce of every account.
    pub nonces: BTreeMap<String, u64>,
    /// In the order of their first entries.
    pub assets: Vec<Issued>,
    /// The latest moment at which an entry was accepted; the clock may have gone back since.
    pub latest: UnixMs,
    keys: BTreeMap<(String, String), Seq>,
    debits: BTreeMap<(String, u64), Seq>,
    /// What durable entries have debited under ceilings.
    pub daily: Daily,
    /// What they have debited under budgets.
    pub budgets: BTreeMap<TokenId, u128>,
}

/// The newest day of each capability, account and asset on which something was debited under a ceiling, and how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daily(pub BTreeMap<([u8; 16], String, String), (u64, u128)>);

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
        assert!(allowed(entry), "I-4: no capability allowed {entry:?}");
        self.latest = entry.ts().max(self.latest);
        let (amount, asset) = (entry.amount().minor_units(), entry.asset().as_str());
        let moved = self.moved(asset);
        match entry.op() {
            Op::Issue => moved.issued = moved.issued.checked_add(amount).expect("I-5: never more is issued than 128 bits hold"),
            Op::Burn => moved.burned += amount,
            Op::Transfer | Op::Hold | Op::Capture | Op::Release => {}
        }
        assert!(moved.issued <= ISSUED_MAX, "I-5: more of {asset} is issued than all cores may");
        if let Some(from) = entry.from() {
            let nonce = self.nonces.entry(from.as_str().to_owned()).or_default();
            assert_eq!(
                entry.nonce().expect("I-1: every debit has a nonce").0,
                *nonce + 1,
                "I-1: one entry per (account, nonce): {from}"
            );
            *nonce += 1;
            self.debits.insert((from.as_str().to_owned(), *nonce), seq);
            let value = self.value(from.as_str(), asset);
            value.balance = value.balance.checked_sub(amount).expect("I-2: no balance below zero");
            if entry.op().draws_held() {
                value.held = value.held.checked_sub(amount).expect("I-2: no held value below zero");
            }
            assert!(value.balance >= value.held, "I-2: free value of {from} below zero");
        }
        if let Some(to) = entry.to() {
            self.nonces.entry(to.as_str().to_owned()).or_default();
            let value = self.value(to.as_str(), asset);
            value.balance = value.balance.checked_add(amount).expect("I-5: a balance fits 128 bits");
            if entry.op() == Op::Hold {
                value.held += amount;
            }
        }
        if entry.counts_against_ceiling() {
            assert!(self.daily.count(entry) <= CEILING, "the daily ceiling holds");
        }
        if entry.counts_against_budget() {
            let spent = self.budgets.entry(entry.token()).or_default();
            *spent += amount;
            assert!(*spent <= budget_max(entry.token()), "the budget holds: {spent} with {entry:?}");
        }
        self.entries.push(Placed { entry: entry.bytes().to_vec(), seq, root });
    }

    fn moved(&mut self, asset: &str) -> &mut Issued {
        let at = self.assets.iter().position(|moved| moved.asset == asset).unwrap_or_else(|| {
            self.assets.push(Issued { asset: asset.to_owned(), issued: 0, burned: 0 });
            self.assets.len() - 1
        });
        &mut self.assets[at]
    }

    fn value(&mut self, account: &str, asset: &str) -> &mut Value {
        self.values.entry((account.to_owned(), asset.to_owned())).or_default()
    }

    /// I-3: what was issued and not burned is on the accounts, of each asset for itself.
    fn assert_conserved(&self) {
        for Issued { asset, issued, burned } in &self.assets {
            let total: u128 = self.values.iter().filter(|((_, of), _)| of == asset).map(|(_, value)| value.balance).sum();
            assert_eq!(total, issued - burned, "I-3: conservation of {asset}");
        }
    }

    /// All that was issued, burned and is held of each asset, in the order of their first entries.
    pub fn totals(&self) -> Vec<(String, u128, u128, u128)> {
        let held = |asset: &str| self.values.iter().filter(|((_, of), _)| of == asset).map(|(_, value)| value.held).sum();
        self.assets.iter().map(|moved| (moved.asset.clone(), moved.issued, moved.burned, held(&moved.asset))).collect()
    }

    /// What was issued of an asset.
    pub fn issued(&self, asset: &str) -> u128 {
        self.assets.iter().find(|moved| moved.asset == asset).map_or(0, |moved| moved.issued)
    }

    /// What an account has of an asset, held value included.
    pub fn balance(&self, account: &str, asset: &str) -> u128 {
        self.values.get(&(account.to_owned(), asset.to_owned())).map_or(0, |value| value.balance)
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

    /// The state that the cores must have.
    pub fn state(&self) -> State {
        let values = self.values.iter().filter(|(_, value)| value.balance > 0);
        let row =
            |((account, asset), value): (&(String, String), &Value)| (account.clone(), asset.clone(), value.balance, value.held);
        (values.map(row).collect(), self.nonces.clone(), self.budgets.clone())
    }
}
