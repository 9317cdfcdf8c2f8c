//! The books as an auditor keeps them: every entry applied in order, every rule checked. Pure.
//!
//! Deliberately shares no code with the cores that decide: a mistake there must show here. Rules: the nonces of a debited account
//! are 1, 2, 3 and so on; neither the free nor the held part of any balance goes below zero; per asset, issued less burned is the
//! sum of all balances.
use crate::domain::{Entry, Op};
use std::collections::HashMap;

/// The value of one account in one asset, in minor units.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    free: u128,
    held: u128,
}

#[derive(Default)]
struct AccountState {
    last_nonce: u64,
    /// Few per account: found by looking through them.
    values: Vec<(usize, Value)>,
}

impl AccountState {
    fn value(&mut self, asset: usize) -> &mut Value {
        let at = self.values.iter().position(|(known, _)| *known == asset).unwrap_or_else(|| {
            self.values.push((asset, Value::default()));
            self.values.len() - 1
        });
        &mut self.values[at].1
    }
}

/// The totals of one asset, in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetTotals {
    /// The name of the asset.
    pub asset: String,
    /// All that was ever issued.
    pub issued: u128,
    /// All that was ever burned.
    pub burned: u128,
    /// The sum of all balances, held parts included.
    pub balances: u128,
    /// The held part of that sum.
    pub held: u128,
}

/// The state after some prefix of the log.
#[derive(Default)]
pub struct Books {
    accounts: HashMap<Box<str>, AccountState>,
    assets: Vec<AssetTotals>,
}

impl Books {
    /// Applies one entry; the error says which rule it breaks, and the books are then not to be used any more.
    pub fn apply(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let amount = entry.amount().minor_units();
        let name = entry.asset().as_str();
        let asset = self.assets.iter().position(|totals| totals.asset == name).unwrap_or_else(|| {
            self.assets.push(AssetTotals { asset: name.into(), issued: 0, burned: 0, balances: 0, held: 0 });
            self.assets.len() - 1
        });
        if let Some(from) = entry.from() {
            let nonce = entry.nonce().map_or(0, |nonce| nonce.0);
            let account = self.account(from.as_str());
            if account.last_nonce.checked_add(1) != Some(nonce) {
                return Err(format!("{from} debits with nonce {nonce} after {}", account.last_nonce));
            }
            account.last_nonce = nonce;
            let value = account.value(asset);
            let (part, kind) = if entry.op().draws_held() { (&mut value.held, "held") } else { (&mut value.free, "free") };
            let Some(rest) = part.checked_sub(amount) else {
                return Err(format!("{} takes {amount} {name} of {from}, which has {part} {kind}", entry.op().as_str()));
            };
            *part = rest;
        }
        if let Some(to) = entry.to() {
            let value = self.account(to.as_str()).value(asset);
            let part = if entry.op() == Op::Hold { &mut value.held } else { &mut value.free };
            *part = part.checked_add(amount).ok_or_else(|| format!("the balance of {to} leaves 128 bits"))?;
        }
        let totals = &mut self.assets[asset];
        let sum = match entry.op() {
            Op::Issue => &mut totals.issued,
            Op::Burn => &mut totals.burned,
            Op::Transfer | Op::Hold | Op::Capture | Op::Release => return Ok(()),
        };
        *sum = sum.checked_add(amount).ok_or_else(|| format!("the total of {name} leaves 128 bits"))?;
        Ok(())
    }

    fn account(&mut self, name: &str) -> &mut AccountState {
        if !self.accounts.contains_key(name) {
            self.accounts.insert(name.into(), AccountState::default());
        }
        self.accounts.get_mut(name).expect("just inserted")
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> u64 {
        self.accounts.len() as u64
    }

    /// Sums up all balances and compares them with what was issued and burned. Assets in the order of their names.
    pub fn close(mut self) -> Result<Vec<AssetTotals>, String> {
        for (asset, value) in self.accounts.values().flat_map(|account| &account.values) {
            let totals = &mut self.assets[*asset];
            let sum = value.free.checked_add(value.held).and_then(|value| totals.balances.checked_add(value));
            totals.balances = sum.ok_or_else(|| format!("the balances of {} leave 128 bits", totals.asset))?;
            totals.held += value.held;
        }
        for AssetTotals { asset, issued, burned, balances, .. } in &self.assets {
            if issued.checked_sub(*burned) != Some(*balances) {
                return Err(format!("{issued} {asset} issued less {burned} burned are not the {balances} on all accounts"));
            }
        }
        self.assets.sort_by(|left, right| left.asset.cmp(&right.asset));
        Ok(self.assets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sample::entry;

    fn apply(books: &mut Books, bytes: &[u8]) -> Result<(), String> {
        books.apply(&Entry::parse(bytes).unwrap().0)
    }

    #[test]
    fn a_life_of_value_adds_up() {
        let mut books = Books::default();
        for bytes in [
            entry(Op::Issue, "", "a", 100, 0),
            entry(Op::Transfer, "a", "b", 30, 1),
            entry(Op::Hold, "a", "escrow", 50, 2),
            entry(Op::Capture, "escrow", "shop", 20, 1),
            entry(Op::Release, "escrow", "a", 10, 2),
            entry(Op::Burn, "b", "", 5, 1),
        ] {
            apply(&mut books, &bytes).unwrap();
        }
        assert_eq!(books.accounts(), 4);
        let totals = AssetTotals { asset: "roc".into(), issued: 100, burned: 5, balances: 95, held: 20 };
        assert_eq!(books.close(), Ok(vec![totals]));
    }

    #[test]
    fn every_rule_is_enforced() {
        let cases = [
            (entry(Op::Transfer, "a", "b", 101, 1), "has 100 free"),
            (entry(Op::Burn, "nobody", "", 1, 1), "has 0 free"),
            (entry(Op::Transfer, "a", "b", 1, 2), "nonce 2 after 0"),
            (entry(Op::Capture, "a", "b", 1, 1), "has 0 held"),
            (entry(Op::Transfer, "e", "b", 1, 1), "has 0 free"),
            (entry(Op::Release, "e", "b", 8, 1), "has 7 held"),
            (entry(Op::Issue, "", "big", u128::MAX, 0), "the total of roc"),
        ];
        for (bytes, expected) in cases {
            let mut books = Books::default();
            apply(&mut books, &entry(Op::Issue, "", "a", 100, 0)).unwrap();
            apply(&mut books, &entry(Op::Issue, "", "h", 7, 0)).unwrap();
            apply(&mut books, &entry(Op::Hold, "h", "e", 7, 1)).unwrap();
            let refused = apply(&mut books, &bytes).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
