//! Sums over a stretch of entries, per account, asset, operation and side; pure, and bounded by its caller.
use ahash::RandomState;
use hashbrown::HashTable;

use crate::domain::{Account, Asset, Entry, Op};

/// Whether an account gave or got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// It gave.
    Debit = 0,
    /// It got.
    Credit = 1,
}

impl Side {
    /// The side that has this name in a line.
    pub(super) fn of(name: &str) -> Self {
        if name == Side::Debit.as_str() {
            Side::Debit
        } else {
            Side::Credit
        }
    }

    /// The name in a line.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Debit => "debit",
            Side::Credit => "credit",
        }
    }
}

/// How many entries, and their sum in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub count: u64,
    pub amount: u128,
}

/// What a sum belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label<'a> {
    pub account: &'a str,
    pub asset: &'a str,
    pub op: Op,
    pub side: Side,
}

/// A sum, and where the names are that it belongs to.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    op: Op,
    side: Side,
    asset_bytes: u8,
    account_bytes: u16,
    /// Where the asset begins, and the account behind it.
    names_at: u32,
    sum: Sum,
}

impl Slot {
    fn names<'n>(&self, names: &'n [u8]) -> (&'n [u8], &'n [u8]) {
        let both = &names[self.names_at as usize..][..usize::from(self.asset_bytes) + usize::from(self.account_bytes)];
        both.split_at(usize::from(self.asset_bytes))
    }
}

/// Sums that grow entry by entry.
#[derive(Debug, Default)]
pub(super) struct Sums {
    hasher: RandomState,
    /// Places in `slots`, by the hash of what they belong to.
    table: HashTable<u32>,
    /// In the order in which the first entry of each came.
    slots: Vec<Slot>,
    /// The names of all slots, one behind the other, so that counting allocates nothing.
    names: Vec<u8>,
}

impl Sums {
    /// Adds both sides of an entry.
    pub fn add(&mut self, entry: &Entry<'_>) {
        let (op, asset, amount) = (entry.op(), entry.asset(), entry.amount().minor_units());
        if let Some(account) = entry.from() {
            self.add_side(account, asset, op, Side::Debit, amount);
        }
        if let Some(account) = entry.to() {
            self.add_side(account, asset, op, Side::Credit, amount);
        }
    }

    /// How many deltas there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
        self.slots.clear();
        self.names.clear();
    }

    /// Gives every sum to `each`, in the order in which they were begun.
    pub fn for_each(&self, mut each: impl FnMut(Label<'_>, Sum)) {
        let text = |name| std::str::from_utf8(name).expect("names of entries are ASCII");
        for slot in &self.slots {
            let (asset, account) = slot.names(&self.names);
            each(Label { account: text(account), asset: text(asset), op: slot.op, side: slot.side }, slot.sum);
        }
    }

    fn add_side(&mut self, account: Account<'_>, asset: Asset<'_>, op: Op, side: Side, amount: u128) {
        let (account, asset) = (account.as_bytes(), asset.as_bytes());
        let Self { hasher, table, slots, names } = self;
        let hash = hasher.hash_one((op as u8, side, asset, account));
        let next = u32::try_from(slots.len()).expect("the caller bounds the deltas");
        let belongs = |slot: &Slot| slot.op == op && slot.side == side && slot.names(names) == (asset, account);
        if let Some(place) = table.find_mut(hash, |place| belongs(&slots[*place as usize])) {
            let slot = &mut slots[*place as usize];
            match slot.sum.amount.checked_add(amount) {
                Some(total) => slot.sum = Sum { count: slot.sum.count + 1, amount: total },
                None => {
                    // Full: its amount and this one do not fit 128 bits together, so it goes on in a slot of the same names.
                    let more = Slot { sum: Sum { count: 1, amount }, ..*slot };
                    *place = next;
                    slots.push(more);
                }
            }
            return;
        }
        let names_at = u32::try_from(names.len()).expect("the caller bounds the deltas");
        names.extend_from_slice(asset);
        names.extend_from_slice(account);
        let (asset_bytes, account_bytes) = (asset.len() as u8, account.len() as u16);
        slots.push(Slot { hash, op, side, asset_bytes, account_bytes, names_at, sum: Sum { count: 1, amount } });
        table.insert_unique(hash, next, |place| slots[*place as usize].hash);
    }
}
