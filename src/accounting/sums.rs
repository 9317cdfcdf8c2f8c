//! Sums over a stretch of entries, per account, asset, operation and side; pure, and bounded by its caller.
use std::collections::HashMap;

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

/// Bytes of a key before the names: operation, side, length of the asset.
const KEY_HEAD_BYTES: usize = 3;

/// Sums that grow entry by entry.
#[derive(Debug, Default)]
pub(super) struct Sums {
    sums: HashMap<Box<[u8]>, Sum, ahash::RandomState>,
    /// Sums that were full: their amount and the next one do not fit 128 bits together.
    full: Vec<(Box<[u8]>, Sum)>,
    key: Vec<u8>,
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
        self.sums.len() + self.full.len()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.sums.clear();
        self.full.clear();
    }

    /// Gives every sum to `each`, in an order that depends on the entries only.
    pub fn for_each(&self, mut each: impl FnMut(Label<'_>, Sum)) {
        let all = self.full.iter().map(|(key, sum)| (key, sum)).chain(&self.sums);
        let mut all: Vec<_> = all.map(|(key, sum)| (label(key), *sum)).collect();
        // A full sum and the one that goes on from it stay in the order in which they were filled: the sort is stable.
        all.sort_by_key(|(label, _)| (label.account, label.asset, label.op as u8, label.side));
        all.into_iter().for_each(|(label, sum)| each(label, sum));
    }

    fn add_side(&mut self, account: Account<'_>, asset: Asset<'_>, op: Op, side: Side, amount: u128) {
        self.key.clear();
        self.key.extend_from_slice(&[op as u8, side as u8, asset.as_bytes().len() as u8]);
        self.key.extend_from_slice(asset.as_bytes());
        self.key.extend_from_slice(account.as_bytes());
        let Some(sum) = self.sums.get_mut(self.key.as_slice()) else {
            self.sums.insert(self.key.as_slice().into(), Sum { count: 1, amount });
            return;
        };
        match sum.amount.checked_add(amount) {
            Some(total) => *sum = Sum { count: sum.count + 1, amount: total },
            None => {
                self.full.push((self.key.as_slice().into(), *sum));
                *sum = Sum { count: 1, amount };
            }
        }
    }
}

fn label(key: &[u8]) -> Label<'_> {
    let op = Op::from_number(key[0]).expect("the key was made from an operation");
    let side = if key[1] == Side::Debit as u8 { Side::Debit } else { Side::Credit };
    let names = std::str::from_utf8(&key[KEY_HEAD_BYTES..]).expect("the key was made from texts");
    let (asset, account) = names.split_at(usize::from(key[2]));
    Label { account, asset, op, side }
}
