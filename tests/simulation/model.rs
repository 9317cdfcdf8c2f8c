//! The simple model that every history is held against: what the durable entries add up to, and what was promised to clients.
use std::collections::BTreeMap;
use svc_wallet::domain::{Entry, Op, Root, Seq};

/// What was promised in a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
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

/// What a set of entries adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub accounts: BTreeMap<String, Sums>,
    pub issued: u128,
    pub burned: u128,
    pub entries: u64,
    keys: BTreeMap<(String, String), u64>,
}

impl Books {
    /// Adds a durable entry; panics where an invariant is broken.
    pub fn apply(&mut self, entry: &Entry<'_>) {
        self.entries += 1;
        let owner = entry.owner().as_str().to_owned();
        let earlier = self.keys.insert((owner.clone(), entry.key().as_str().to_owned()), self.entries);
        assert_eq!(earlier, None, "I-1: one entry per (account, key): {owner} {}", entry.key());
        let amount = entry.amount().minor_units();
        if let Some(from) = entry.from() {
            let sums = self.accounts.entry(from.as_str().to_owned()).or_default();
            assert_eq!(entry.nonce().unwrap().0, sums.nonce + 1, "I-1: one entry per (account, nonce): {from}");
            sums.nonce += 1;
            sums.debited += amount;
            if entry.op().draws_held() {
                sums.held -= amount as i128;
                assert!(sums.held >= 0, "I-2: held value of {from} below zero");
            }
            sums.balance();
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
        let total: u128 = self.issued - self.burned;
        debug_assert!(total <= self.issued);
    }

    /// I-3: what was issued and not burned is on the accounts.
    pub fn assert_conserved(&self) {
        let total: u128 = self.accounts.values().map(Sums::balance).sum();
        assert_eq!(total, self.issued - self.burned, "I-3: conservation");
    }

    pub fn sums(&self, account: &str) -> Sums {
        self.accounts.get(account).cloned().unwrap_or_default()
    }
}
