//! The books as an auditor keeps them: every entry applied in order, every rule checked. Pure.
//!
//! Deliberately shares no code with the cores that decide: a mistake there must show here. Rules: the nonces of a debited account
//! are 1, 2, 3 and so on; neither the free nor the held part of any balance goes below zero; per asset, issued less burned is the
//! sum of all balances. An entry that breaks a rule changes no nonce and no value, so that the books can say what came before it.
//!
//! Names lie one behind the other in one piece of memory and accounts in another, found by a table of indices: no entry allocates
//! unless it names a new account.
use crate::domain::{AccountState, AssetValue, Entry, Nonce, Op, TokenId};
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::BTreeMap;

/// Entries whose accounts are looked for side by side.
const EXPECTED_AT_ONCE: usize = 16;

/// The value of one account in one asset, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// What the account may spend.
    pub free: u128,
    /// What holds have placed here, which only capture and release take.
    pub held: u128,
}

/// One account: exactly one line of the processor's cache.
#[repr(align(64))]
struct Record {
    name_at: u64,
    name_bytes: u16,
    /// The asset in which the account was first named.
    asset: u32,
    last_nonce: u64,
    value: Value,
    /// Further assets; most accounts have none.
    #[allow(clippy::box_collection)] // A bare vector would make every record a cache line larger.
    more: Option<Box<Vec<(u32, Value)>>>,
}

const _: () = assert!(std::mem::size_of::<Record>() == 64);

impl Record {
    fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        &names[self.name_at as usize..][..usize::from(self.name_bytes)]
    }

    fn value(&mut self, asset: u32) -> &mut Value {
        if self.asset == asset {
            return &mut self.value;
        }
        let more = self.more.get_or_insert_with(Default::default);
        let at = more.iter().position(|(known, _)| *known == asset).unwrap_or_else(|| {
            more.push((asset, Value::default()));
            more.len() - 1
        });
        &mut more[at].1
    }

    /// The value in every asset that the account has ever had.
    fn values(&self) -> impl Iterator<Item = (u32, Value)> + '_ {
        std::iter::once((self.asset, self.value)).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }
}

/// What the books say of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountBooks {
    /// Its name.
    pub account: String,
    /// The nonce of its last debit; 0 if there was none.
    pub last_nonce: Nonce,
    /// What it has, with the name of each asset that ever moved here.
    pub values: Vec<(String, Value)>,
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
pub struct Books {
    hasher: RandomState,
    table: HashTable<u32>,
    records: Vec<Record>,
    names: Vec<u8>,
    assets: Vec<AssetTotals>,
    /// What was debited under each token id by entries that count against a budget, in minor units.
    budgets: BTreeMap<TokenId, u128>,
}

impl Books {
    /// Empty books. The seeds key the table of accounts and show in nothing that the books say; drawn at random, they keep anyone
    /// from choosing names that make it slow.
    pub fn new([a, b, c, d]: [u64; 4]) -> Self {
        let hasher = RandomState::with_seeds(a, b, c, d);
        let (records, names, assets, budgets) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        Self { hasher, table: HashTable::new(), records, names, assets, budgets }
    }

    /// Begins with an asset as a snapshot has it; assets come in the order of their numbers.
    pub fn begin_asset(&mut self, asset: &str, issued: u128, burned: u128) {
        let at = self.asset(asset.as_bytes()) as usize;
        (self.assets[at].issued, self.assets[at].burned) = (issued, burned);
    }

    /// Begins with an account as a snapshot has it.
    pub fn begin_account(&mut self, state: &AccountState<'_>) {
        let first = state.values.first().map_or(0, |value| u32::from(value.asset));
        let at = self.find_or_create(state.name.as_bytes(), first);
        self.records[at].last_nonce = state.last_nonce.0;
        for AssetValue { asset, free, held } in state.values {
            *self.records[at].value(u32::from(*asset)) = Value { free: *free, held: *held };
        }
    }

    /// Begins with what a snapshot says was debited under a token id, in minor units.
    pub fn begin_budget(&mut self, token: TokenId, spent: u128) {
        self.budgets.insert(token, spent);
    }

    /// Touches what [`Books::apply`] will look at for these entries, all of it side by side, so that the processor waits for memory
    /// once and not for one account after the other. Nothing else comes of it.
    pub fn expect(&self, entries: &[Entry<'_>]) {
        let mut touched = 0u64;
        for names in entries.chunks(EXPECTED_AT_ONCE) {
            let mut found = [u32::MAX; 2 * EXPECTED_AT_ONCE];
            for (entry, pair) in names.iter().zip(found.chunks_exact_mut(2)) {
                for (name, place) in [entry.from(), entry.to()].iter().flatten().zip(pair) {
                    // Without a look at the name, so that no step waits for the one before; the rare wrong record costs nothing.
                    let first = self.table.find(self.hasher.hash_one(name.as_bytes()), |_| true);
                    *place = first.copied().unwrap_or(u32::MAX);
                }
            }
            let records = found.iter().filter_map(|at| self.records.get(*at as usize));
            touched ^= records.map(|record| record.name(&self.names).first().copied().map_or(0, u64::from)).sum::<u64>();
        }
        std::hint::black_box(touched);
    }

    /// Applies one entry; the error says which rule it breaks, and then no nonce and no value has changed.
    pub fn apply(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let amount = entry.amount().minor_units();
        let asset = self.asset(entry.asset().as_bytes());
        let name = || entry.asset().as_str();
        let totals = &self.assets[asset as usize];
        let (issued, burned) = match entry.op() {
            Op::Issue => (totals.issued.checked_add(amount), Some(totals.burned)),
            Op::Burn => (Some(totals.issued), totals.burned.checked_add(amount)),
            Op::Transfer | Op::Hold | Op::Capture | Op::Release => (Some(totals.issued), Some(totals.burned)),
        };
        let (Some(issued), Some(burned)) = (issued, burned) else {
            return Err(format!("the total of {} leaves 128 bits", name()));
        };
        let under_budget = entry.counts_against_budget().then(|| self.budget(entry.token()).checked_add(amount));
        if under_budget == Some(None) {
            return Err("what is debited under a budget leaves 128 bits".to_owned());
        }
        let mut debited = None;
        if let Some(from) = entry.from() {
            let nonce = entry.nonce().map_or(0, |nonce| nonce.0);
            let at = self.find_or_create(from.as_bytes(), asset);
            let record = &mut self.records[at];
            if record.last_nonce.checked_add(1) != Some(nonce) {
                return Err(format!("{from} debits with nonce {nonce} after {}", record.last_nonce));
            }
            let value = record.value(asset);
            let (part, kind) = if entry.op().draws_held() { (&mut value.held, "held") } else { (&mut value.free, "free") };
            let Some(rest) = part.checked_sub(amount) else {
                return Err(format!("{} takes {amount} {} of {from}, which has {part} {kind}", entry.op().as_str(), name()));
            };
            debited = Some((at, *value));
            let part = if entry.op().draws_held() { &mut value.held } else { &mut value.free };
            *part = rest;
            record.last_nonce = nonce;
        }
        if let Some(to) = entry.to() {
            let at = self.find_or_create(to.as_bytes(), asset);
            let value = self.records[at].value(asset);
            let part = if entry.op() == Op::Hold { &mut value.held } else { &mut value.free };
            match part.checked_add(amount) {
                Some(sum) => *part = sum,
                None => {
                    if let Some((at, before)) = debited {
                        self.records[at].last_nonce -= 1;
                        *self.records[at].value(asset) = before;
                    }
                    return Err(format!("the balance of {to} leaves 128 bits"));
                }
            }
        }
        let totals = &mut self.assets[asset as usize];
        (totals.issued, totals.burned) = (issued, burned);
        if let Some(spent) = under_budget.flatten() {
            self.budgets.insert(entry.token(), spent);
        }
        Ok(())
    }

    fn asset(&mut self, name: &[u8]) -> u32 {
        // There are few.
        let known = self.assets.iter().position(|totals| totals.asset.as_bytes() == name);
        let at = known.unwrap_or_else(|| {
            let asset = String::from_utf8_lossy(name).into_owned();
            self.assets.push(AssetTotals { asset, issued: 0, burned: 0, balances: 0, held: 0 });
            self.assets.len() - 1
        });
        u32::try_from(at).expect("names of assets that have entries of their own are fewer than 2^32")
    }

    fn find(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let found = self.table.find(hash, |at| self.records[*at as usize].name(&self.names) == name);
        found.map(|at| *at as usize)
    }

    fn find_or_create(&mut self, name: &[u8], asset: u32) -> usize {
        let hash = self.hasher.hash_one(name);
        if let Some(found) = self.find(hash, name) {
            return found;
        }
        let at = u32::try_from(self.records.len()).expect("as many accounts do not fit memory");
        let name_bytes = u16::try_from(name.len()).expect("a name has at most 256 bytes");
        let name_at = self.names.len() as u64;
        self.names.extend_from_slice(name);
        self.records.push(Record { name_at, name_bytes, asset, last_nonce: 0, value: Value::default(), more: None });
        let Self { hasher, table, records, names, .. } = self;
        table.insert_unique(hash, at, |at| hasher.hash_one(records[*at as usize].name(names)));
        at as usize
    }

    /// What the books say of an account; `None` if no entry has named it.
    pub fn account(&self, name: &str) -> Option<AccountBooks> {
        let at = self.find(self.hasher.hash_one(name.as_bytes()), name.as_bytes())?;
        let record = &self.records[at];
        let named = |(asset, value): (u32, Value)| (self.assets[asset as usize].asset.clone(), value);
        let values = record.values().map(named).collect();
        Some(AccountBooks { account: name.to_owned(), last_nonce: Nonce(record.last_nonce), values })
    }

    /// What a snapshot says of an account and these books do not; nothing if they agree. `assets` are the names by its numbers.
    pub fn contradiction(&self, state: &AccountState<'_>, assets: &[&str]) -> Option<String> {
        let name = state.name;
        let Some(at) = self.find(self.hasher.hash_one(name.as_bytes()), name.as_bytes()) else {
            return Some(format!("it has {name}, which no entry up to there names"));
        };
        let record = &self.records[at];
        if record.last_nonce != state.last_nonce.0 {
            let (said, right) = (state.last_nonce.0, record.last_nonce);
            return Some(format!("it has {name} at nonce {said}, and the entries have brought it to {right}"));
        }
        let right = |asset: &str| {
            let known = record.values().find(|(number, _)| self.assets[*number as usize].asset == asset);
            known.map_or(Value::default(), |(_, value)| value)
        };
        let said = |asset: &str| {
            let known = state.values.iter().find(|value| assets.get(usize::from(value.asset)) == Some(&asset));
            known.map_or(Value::default(), |value| Value { free: value.free, held: value.held })
        };
        let named = state.values.iter().filter_map(|value| assets.get(usize::from(value.asset)).copied());
        let entered = record.values().map(|(number, _)| &*self.assets[number as usize].asset);
        let wrong = named.chain(entered).find(|asset| said(asset) != right(asset))?;
        let (said, right) = (said(wrong), right(wrong));
        Some(format!(
            "it has {name} with {} {wrong} free and {} held, and the entries have brought it to {} and {}",
            said.free, said.held, right.free, right.held
        ))
    }

    /// What was debited under a token id by entries that count against a budget, in minor units.
    pub fn budget(&self, token: TokenId) -> u128 {
        self.budgets.get(&token).copied().unwrap_or(0)
    }

    /// Under how many token ids there was such a debit.
    pub fn budgets(&self) -> u64 {
        self.budgets.len() as u64
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> u64 {
        self.records.len() as u64
    }

    /// Sums up all balances and compares them with what was issued and burned. Assets in the order of their names.
    pub fn close(mut self) -> Result<Vec<AssetTotals>, String> {
        for (asset, value) in self.records.iter().flat_map(Record::values) {
            let totals = &mut self.assets[asset as usize];
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
    use crate::domain::{Asset, Draft};
    use crate::ledger::sample::{draft, entry};

    fn apply(books: &mut Books, bytes: &[u8]) -> Result<(), String> {
        books.apply(&Entry::parse(bytes).unwrap().0)
    }

    #[test]
    fn a_life_of_value_adds_up() {
        let mut books = Books::new([1, 2, 3, 4]);
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
    fn an_account_is_told_with_each_asset_that_moved_on_it() {
        let mut books = Books::new([1, 2, 3, 4]);
        for (asset, amount) in [("roc", 7), ("ron", 8), ("third", 9), ("ron", 1)] {
            let mut bytes = Vec::new();
            Draft { asset: Asset::new(asset).unwrap(), ..draft(Op::Issue, "", "a", amount, 0) }.encode(&mut bytes);
            apply(&mut books, &bytes).unwrap();
        }
        apply(&mut books, &entry(Op::Hold, "a", "e", 2, 1)).unwrap();
        let values = |values: &[(&str, u128, u128)]| {
            values.iter().map(|(asset, free, held)| (asset.to_string(), Value { free: *free, held: *held })).collect()
        };
        let a = AccountBooks {
            account: "a".into(),
            last_nonce: Nonce(1),
            values: values(&[("roc", 5, 0), ("ron", 9, 0), ("third", 9, 0)]),
        };
        let e = AccountBooks { account: "e".into(), last_nonce: Nonce(0), values: values(&[("roc", 0, 2)]) };
        assert_eq!((books.account("a"), books.account("e"), books.account("nobody")), (Some(a), Some(e), None));
        assert_eq!(books.close().unwrap().iter().map(|totals| totals.balances).collect::<Vec<_>>(), [7, 9, 9]);
    }

    #[test]
    fn a_credit_that_does_not_fit_takes_nothing_from_the_payer() {
        let mut books = Books::new([1, 2, 3, 4]);
        apply(&mut books, &entry(Op::Issue, "", "a", 5, 0)).unwrap();
        // No issue can lead here, for it would leave 128 bits first; the books do not rely on that.
        let at = books.find_or_create(b"b", 0);
        books.records[at].value.free = u128::MAX;
        let before = books.account("a");
        assert!(apply(&mut books, &entry(Op::Transfer, "a", "b", 5, 1)).unwrap_err().contains("the balance of b"));
        assert_eq!(books.account("a"), before);
    }

    #[test]
    fn what_was_expected_is_the_same_as_what_was_not() {
        let names: Vec<String> = (0..1000).map(|number| format!("account-{number}")).collect();
        let mut entries: Vec<Vec<u8>> = names.iter().map(|name| entry(Op::Issue, "", name, 10, 0)).collect();
        for (number, name) in names.iter().enumerate() {
            entries.push(entry(Op::Transfer, name, &names[(number * 7 + 1) % 1000], 3, 1));
        }
        let parsed: Vec<Entry<'_>> = entries.iter().map(|bytes| Entry::parse(bytes).unwrap().0).collect();
        let (mut plain, mut expecting) = (Books::new([1, 2, 3, 4]), Books::new([5, 6, 7, 8]));
        for group in parsed.chunks(37) {
            expecting.expect(group);
            for entry in group {
                assert_eq!((plain.apply(entry), expecting.apply(entry)), (Ok(()), Ok(())));
            }
        }
        assert!(names.iter().all(|name| plain.account(name) == expecting.account(name)));
        assert_eq!(plain.close(), expecting.close());
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
            let mut books = Books::new([1, 2, 3, 4]);
            apply(&mut books, &entry(Op::Issue, "", "a", 100, 0)).unwrap();
            apply(&mut books, &entry(Op::Issue, "", "h", 7, 0)).unwrap();
            apply(&mut books, &entry(Op::Hold, "h", "e", 7, 1)).unwrap();
            let state = |books: &Books| (books.account("a"), books.account("h"), books.account("e"), books.assets.clone());
            let before = state(&books);
            let refused = apply(&mut books, &bytes).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(state(&books), before, "{refused}");
        }
    }
}
