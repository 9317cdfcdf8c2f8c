//! Daily ceilings: how much a capability has debited from an account today, in one asset.
//!
//! The count follows from the ledger, because entries made under a ceiling say so; a day is a UTC day of the entry's time.
//! Tokens narrowed from one another share their token id and therefore the count.
use super::accounts::{AccountIx, AssetIx};
use crate::domain::{TokenId, UnixMs, DAY_MS};
use ahash::RandomState;
use std::collections::HashMap;

/// Counts that are kept before those of days gone by are looked for and dropped.
const COUNTS_MIN: usize = 4096;

/// What was debited under one capability from one account in one asset.
#[derive(Clone, Copy)]
struct Count {
    /// The newest day on which something was.
    day: u64,
    /// How much on that day, in minor units.
    spent: u128,
}

/// What was debited under ceilings. Each count has a day of its own, so that one entry with a time far ahead resets no other.
pub struct Ceilings {
    counts: HashMap<(TokenId, AccountIx, AssetIx), Count, RandomState>,
    purge_at: usize,
    /// The day up to which counts were last dropped: it follows the entries one day at a time, however far ahead one of them is.
    purge_day: u64,
}

impl Ceilings {
    /// Nothing debited yet.
    pub fn new(hasher: RandomState) -> Self {
        Self { counts: HashMap::with_hasher(hasher), purge_at: COUNTS_MIN, purge_day: u64::MAX }
    }

    /// What was debited on the day of `ts`, in minor units. A request stamped before midnight and decided after it counts as
    /// today's, so that the day's limit holds.
    pub fn spent(&self, ts: UnixMs, token: TokenId, account: AccountIx, asset: AssetIx) -> u128 {
        let count = self.counts.get(&(token, account, asset));
        count.filter(|count| ts.0 / DAY_MS <= count.day).map_or(0, |count| count.spent)
    }

    /// Takes a count over from a snapshot.
    pub fn restore(&mut self, token: TokenId, account: AccountIx, asset: AssetIx, day: u64, spent: u128) {
        self.counts.insert((token, account, asset), Count { day, spent });
    }

    /// Counts a debit.
    pub fn count(&mut self, ts: UnixMs, token: TokenId, account: AccountIx, asset: AssetIx, amount: u128) {
        let day = ts.0 / DAY_MS;
        self.purge_day = day.min(self.purge_day.saturating_add(1));
        if self.counts.len() >= self.purge_at {
            self.counts.retain(|_, count| count.day + 1 >= self.purge_day);
            self.purge_at = COUNTS_MIN.max(2 * self.counts.len());
        }
        let count = self.counts.entry((token, account, asset)).or_insert(Count { day, spent: 0 });
        if day > count.day {
            *count = Count { day, spent: 0 };
        }
        count.spent = count.spent.saturating_add(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Account;
    use crate::shard::accounts::Accounts;

    #[test]
    fn a_time_far_ahead_resets_no_other_count_and_old_days_are_dropped() {
        let hasher = || RandomState::with_seeds(1, 2, 3, 4);
        let mut accounts = Accounts::new(hasher());
        let mut ceilings = Ceilings::new(hasher());
        let (token, asset) = (TokenId::default(), AssetIx(0));
        let mut account = |name: &str| accounts.find_or_create(Account::new(name).unwrap());
        let (first, ahead) = (account("a"), account("b"));
        let today = UnixMs(10 * DAY_MS);
        ceilings.count(today, token, first, asset, 7);
        ceilings.count(UnixMs(99 * DAY_MS), token, ahead, asset, 1);
        assert_eq!(ceilings.spent(today, token, first, asset), 7);
        assert_eq!(ceilings.spent(UnixMs(11 * DAY_MS), token, first, asset), 0, "another day begins with nothing");
        for number in 0..2 * COUNTS_MIN {
            ceilings.count(UnixMs(20 * DAY_MS), token, account(&format!("c{number}")), asset, 1);
        }
        assert!(ceilings.counts.len() <= 2 * COUNTS_MIN + 1 && ceilings.spent(today, token, first, asset) == 0);
    }

    #[test]
    fn counts_of_tokens_that_are_new_each_day_do_not_pile_up() {
        let hasher = || RandomState::with_seeds(1, 2, 3, 4);
        let (mut accounts, mut ceilings, mut number) = (Accounts::new(hasher()), Ceilings::new(hasher()), 0u128);
        let account = accounts.find_or_create(Account::new("a").unwrap());
        for day in 10..70 {
            for _ in 0..2_000 {
                number += 1;
                ceilings.count(UnixMs(day * DAY_MS), TokenId(number.to_le_bytes()), account, AssetIx(0), 1);
            }
        }
        assert!(ceilings.counts.len() <= 4 * COUNTS_MIN, "{}", ceilings.counts.len());
    }

    #[test]
    fn a_time_far_ahead_drops_no_count_of_today_however_many_there_are() {
        let hasher = || RandomState::with_seeds(1, 2, 3, 4);
        let mut accounts = Accounts::new(hasher());
        let mut ceilings = Ceilings::new(hasher());
        let (token, asset, today) = (TokenId::default(), AssetIx(0), UnixMs(10 * DAY_MS));
        let all: Vec<_> = (0..COUNTS_MIN).map(|n| accounts.find_or_create(Account::new(&format!("a{n}")).unwrap())).collect();
        all.iter().for_each(|account| ceilings.count(today, token, *account, asset, 7));
        ceilings.count(UnixMs(99 * DAY_MS), token, accounts.find_or_create(Account::new("ahead").unwrap()), asset, 1);
        assert!(all.iter().all(|account| ceilings.spent(today, token, *account, asset) == 7));
    }
}
