//! Daily ceilings: how much a capability has debited from an account today, in one asset.
//!
//! The count follows from the ledger, because entries made under a ceiling say so; a day is a UTC day of the entry's time.
//! Tokens narrowed from one another share their token id and therefore the count.
use super::accounts::{AccountIx, AssetIx};
use crate::domain::{TokenId, UnixMs};
use ahash::RandomState;
use std::collections::HashMap;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What was debited under ceilings on the newest day seen.
pub struct Ceilings {
    day: u64,
    spent: HashMap<(TokenId, AccountIx, AssetIx), u128, RandomState>,
}

impl Ceilings {
    /// Nothing debited yet.
    pub fn new(hasher: RandomState) -> Self {
        Self { day: 0, spent: HashMap::with_hasher(hasher) }
    }

    /// What was debited on the day of `ts`, in minor units. A request stamped before midnight and decided after it counts as
    /// today's, so that the day's limit holds.
    pub fn spent(&self, ts: UnixMs, token: TokenId, account: AccountIx, asset: AssetIx) -> u128 {
        if ts.0 / DAY_MS > self.day {
            return 0;
        }
        self.spent.get(&(token, account, asset)).copied().unwrap_or(0)
    }

    /// Counts a debit.
    pub fn count(&mut self, ts: UnixMs, token: TokenId, account: AccountIx, asset: AssetIx, amount: u128) {
        let day = ts.0 / DAY_MS;
        if day > self.day {
            self.day = day;
            self.spent.clear();
        }
        let spent = self.spent.entry((token, account, asset)).or_default();
        *spent = spent.saturating_add(amount);
    }
}
