//! Having the processor fetch what is about to be looked at. Nothing else comes of it.
use super::{Reservation, Shard, Window};
use crate::domain::{Account, Entry, Op};

impl Shard {
    /// Has the processor fetch what [`Shard::decide`] will look at for these entries. A large slice lies in memory and not in a cache,
    /// and much of the time of a spend would be waiting for it. Only speeds up.
    pub fn expect_requests<'e>(&mut self, entries: impl Iterator<Item = Entry<'e>> + Clone) {
        let mut touched = std::mem::take(&mut self.touched);
        self.accounts.touch(entries.clone().map(|entry| entry.owner()), &mut touched);
        self.touched = touched;
        let keys = entries.map(|entry| self.hashed_key(&entry));
        let known = keys.map(|key| u32::from(self.debit_keys.touches(key)) + u32::from(self.issue_keys.touches(key)));
        std::hint::black_box(known.sum::<u32>());
    }

    /// The same for [`Shard::restore`] of these accounts.
    pub fn expect_accounts<'n>(&mut self, names: impl Iterator<Item = Account<'n>>) {
        self.accounts.touch(names, &mut self.touched);
    }

    /// The same for [`Shard::replay`] and [`Shard::credit`] of entries read back, as far as their accounts live here.
    pub fn expect_replay<'e>(
        &mut self,
        entries: impl Iterator<Item = Entry<'e>> + Clone,
        lives_here: impl Fn(Account<'_>) -> bool + Copy,
    ) {
        let mut touched = std::mem::take(&mut self.touched);
        let accounts = entries.clone().flat_map(|entry| entry.from().into_iter().chain(entry.to()));
        self.accounts.touch(accounts.filter(|account| lives_here(*account)), &mut touched);
        self.touched = touched;
        let owned = entries.filter(|entry| lives_here(entry.owner()));
        let known = owned.map(|entry| u32::from(self.keys_of(entry.op()).find(self.hashed_key(&entry)).is_some()));
        std::hint::black_box(known.sum::<u32>());
    }

    fn keys_of(&self, op: Op) -> &Window {
        if op.debits() {
            &self.debit_keys
        } else {
            &self.issue_keys
        }
    }

    /// The same for [`Shard::settle`] and [`Shard::credit`]: since the decision, other requests have been through the cache.
    pub fn expect_settlements<'e>(
        &mut self,
        entries: impl Iterator<Item = Entry<'e>>,
        reservations: impl Iterator<Item = &'e Reservation> + Clone,
    ) {
        let mut touched = std::mem::take(&mut self.touched);
        self.accounts.touch(entries.filter_map(|entry| entry.to()), &mut touched);
        self.touched = touched;
        self.accounts.touch_records(reservations.clone().map(|reservation| reservation.account));
        let known = reservations.map(|reservation| u32::from(self.debit_keys.find(reservation.key).is_some()));
        std::hint::black_box(known.sum::<u32>());
    }
}
