//! What counters amount to, and what a ledger does, in forms that can be compared.
//!
//! Sums wrap at 128 bits: a busy account's credits may exceed them together, and still their difference to its debits is its balance.
use std::collections::{BTreeMap, BTreeSet};

use super::line::Line;
use super::sums::Side;
use crate::domain::{Account, AccountState, Entry};

/// What a sum belongs to: account, asset, operation, side.
pub type Label = (String, String, String, &'static str);

/// How often and for how much, by what it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows(BTreeMap<Label, (u64, u128)>);

impl Flows {
    /// Adds what a line counts.
    pub fn add_line(&mut self, line: Line) {
        for delta in line.deltas {
            self.add((delta.account, delta.asset, delta.op, Side::of(&delta.side).as_str()), delta.count, delta.amount);
        }
    }

    /// Adds both sides of an entry.
    pub fn add_entry(&mut self, entry: &Entry<'_>) {
        for (account, side) in sides(entry) {
            let label =
                (account.as_str().to_owned(), entry.asset().as_str().to_owned(), entry.op().as_str().to_owned(), side.as_str());
            self.add(label, 1, entry.amount().minor_units());
        }
    }

    fn add(&mut self, label: Label, count: u64, amount: u128) {
        let flow = self.0.entry(label).or_default();
        *flow = (flow.0.wrapping_add(count), flow.1.wrapping_add(amount));
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, (u64, u128))> {
        self.0.iter().map(|(label, flow)| (label, *flow))
    }

    /// What is counted otherwise here than there.
    pub fn differences(&self, ledger: &Self) -> Vec<Difference> {
        let labels: BTreeSet<_> = self.0.keys().chain(ledger.0.keys()).collect();
        let mut found = Vec::new();
        for label in labels {
            let [counted, right] = [self, ledger].map(|flows| flows.0.get(label).copied().unwrap_or_default());
            let (account, asset, op, side) = label;
            for (what, counted, right) in
                [("entries", u128::from(counted.0), u128::from(right.0)), ("minor units", counted.1, right.1)]
            {
                if counted != right {
                    let what = format!("{what}, {op} {side}");
                    found.push(Difference { account: account.clone(), asset: Some(asset.clone()), what, counted, right });
                }
            }
        }
        found
    }
}

/// Where accounts stand: the balance in each asset, and how often each was debited, which is its last nonce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    balances: BTreeMap<(String, String), u128>,
    debits: BTreeMap<String, u64>,
}

impl Position {
    /// Where flows lead that begin with the first entry.
    pub fn of(flows: &Flows) -> Self {
        let mut position = Self::default();
        for ((account, asset, _, side), (count, amount)) in flows.iter() {
            position.moves(account, asset, Side::of(side), count, amount);
        }
        position.tidied()
    }

    /// Adds what a snapshot says of an account; its assets are numbered as there.
    pub fn add_state(&mut self, state: &AccountState<'_>, assets: &[String]) {
        let account = state.name.as_str();
        for value in state.values {
            let asset = assets.get(usize::from(value.asset)).map_or("?", String::as_str);
            self.moves(account, asset, Side::Credit, 0, value.free.wrapping_add(value.held));
        }
        if state.last_nonce.0 > 0 {
            self.debits.insert(account.to_owned(), state.last_nonce.0);
        }
    }

    /// Goes on over an entry.
    pub fn add_entry(&mut self, entry: &Entry<'_>) {
        for (account, side) in sides(entry) {
            self.moves(account.as_str(), entry.asset().as_str(), side, 1, entry.amount().minor_units());
        }
    }

    /// Goes back over an entry.
    pub fn take_entry(&mut self, entry: &Entry<'_>) {
        for (account, side) in sides(entry) {
            let amount = entry.amount().minor_units().wrapping_neg();
            self.moves(account.as_str(), entry.asset().as_str(), side, 1u64.wrapping_neg(), amount);
        }
    }

    fn moves(&mut self, account: &str, asset: &str, side: Side, count: u64, amount: u128) {
        let balance = self.balances.entry((account.to_owned(), asset.to_owned())).or_default();
        *balance = match side {
            Side::Debit => balance.wrapping_sub(amount),
            Side::Credit => balance.wrapping_add(amount),
        };
        if side == Side::Debit {
            let debits = self.debits.entry(account.to_owned()).or_default();
            *debits = debits.wrapping_add(count);
        }
    }

    /// Without what is zero, so that equal positions are equal.
    fn tidied(mut self) -> Self {
        self.balances.retain(|_, balance| *balance != 0);
        self.debits.retain(|_, debits| *debits != 0);
        self
    }

    /// What is otherwise here than there.
    pub fn differences(self, ledger: Self) -> Vec<Difference> {
        let (counted, right) = (self.tidied(), ledger.tidied());
        let places: BTreeSet<_> = counted.balances.keys().chain(right.balances.keys()).cloned().collect();
        let balances = places.into_iter().filter_map(|place| {
            let [counted, right] = [&counted, &right].map(|position| position.balances.get(&place).copied().unwrap_or_default());
            let (account, asset) = place;
            (counted != right).then(|| Difference { account, asset: Some(asset), what: "balance".to_owned(), counted, right })
        });
        let accounts: BTreeSet<_> = counted.debits.keys().chain(right.debits.keys()).cloned().collect();
        let debits = accounts.into_iter().filter_map(|account| {
            let [counted, right] =
                [&counted, &right].map(|position| u128::from(position.debits.get(&account).copied().unwrap_or_default()));
            (counted != right).then(|| Difference { account, asset: None, what: "debits".to_owned(), counted, right })
        });
        let mut found: Vec<_> = balances.chain(debits).collect();
        found.sort_by(|one, other| (&one.account, &one.asset, &one.what).cmp(&(&other.account, &other.asset, &other.what)));
        found
    }
}

/// Something that counters and ledger say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The account.
    pub account: String,
    /// The asset, if it is about one.
    pub asset: Option<String>,
    /// What is compared.
    pub what: String,
    /// What the counters say; a balance below zero has wrapped at 128 bits.
    pub counted: u128,
    /// What the ledger says.
    pub right: u128,
}

/// Who is debited and who is credited.
fn sides<'a>(entry: &Entry<'a>) -> impl Iterator<Item = (Account<'a>, Side)> {
    let debit = entry.from().map(|account| (account, Side::Debit));
    debit.into_iter().chain(entry.to().map(|account| (account, Side::Credit)))
}

#[cfg(test)]
mod tests {
    use super::super::counters::tests::entry;
    use super::*;
    use crate::domain::{AssetValue, Nonce, Op};

    /// Entries and where they lead.
    fn followed(entries: &[Vec<u8>]) -> (Flows, Position) {
        let (mut flows, mut position) = (Flows::default(), Position::default());
        for bytes in entries {
            let (entry, _) = Entry::parse(bytes).unwrap();
            flows.add_entry(&entry);
            position.add_entry(&entry);
        }
        (flows, position)
    }

    fn history() -> Vec<Vec<u8>> {
        vec![
            entry(Op::Issue, "", "ann", 100),
            entry(Op::Transfer, "ann", "bob", 30),
            entry(Op::Burn, "bob", "", 10),
            entry(Op::Transfer, "ann", "bob", 70),
        ]
    }

    #[test]
    fn flows_lead_to_the_position_of_their_entries_and_back() {
        let (flows, position) = followed(&history());
        assert_eq!(Position::of(&flows).differences(position.clone()), []);
        let mut back = position;
        for bytes in history().iter().rev() {
            back.take_entry(&Entry::parse(bytes).unwrap().0);
        }
        assert_eq!(back.tidied(), Position::default());
    }

    #[test]
    fn a_snapshot_says_the_same_and_each_difference_is_told() {
        let (flows, _) = followed(&history());
        let bob = [AssetValue { asset: 0, free: 50, held: 40 }];
        let mut snapshot = Position::default();
        for (name, last_nonce, values) in [("ann", 2, &[][..]), ("bob", 1, &bob[..])] {
            let name = Account::new(name).unwrap();
            let state = AccountState { name, last_nonce: Nonce(last_nonce), values, payers: &[], day_counts: &[] };
            snapshot.add_state(&state, &["roc".to_owned()]);
        }
        assert_eq!(Position::of(&flows).differences(snapshot.clone()), []);
        snapshot.add_entry(&Entry::parse(&entry(Op::Burn, "bob", "", 1)).unwrap().0);
        let found = Position::of(&flows).differences(snapshot);
        let told: Vec<_> = found.iter().map(|found| (&*found.account, &*found.what, found.counted, found.right)).collect();
        assert_eq!(told, [("bob", "debits", 1, 2), ("bob", "balance", 90, 89)]);
    }

    #[test]
    fn flows_differ_in_number_and_amount_of_each_operation() {
        let (flows, _) = followed(&history());
        let (other, _) = followed(&[history(), vec![entry(Op::Hold, "ann", "esc", 5)]].concat());
        let found = flows.differences(&other);
        let told: Vec<_> = found.iter().map(|found| (&*found.account, &*found.what, found.counted, found.right)).collect();
        let expected = [
            ("ann", "entries, hold debit", 0, 1),
            ("ann", "minor units, hold debit", 0, 5),
            ("esc", "entries, hold credit", 0, 1),
            ("esc", "minor units, hold credit", 0, 5),
        ];
        assert_eq!(told, expected);
        assert_eq!(flows.differences(&flows.clone()), []);
    }
}
