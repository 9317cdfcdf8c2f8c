//! What the entries behind a snapshot have done to the accounts that they touch: enough to make the next snapshot from the last
//! one, in memory that those accounts bound, and the keys of issues whose time is not over. Pure.
//!
//! Rules are checked as far as they can be without the state before: nonces follow each other within the tail. Whether the
//! first nonce fits, and whether any balance went below zero on the way, is checked against the state before in [`Delta::onto`].
//! Deliberately shares no code with the cores that decide: a mistake there must show here.
use crate::domain::{
    Account, AccountState, AssetValue, DayCount, Entry, KeyId, Nonce, Op, Payer, Seq, TokenId, UnixMs, UsedKey, DAY_MS,
};
use ahash::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Keys of issues before it is looked for those whose time is over; then at twice what was left.
const KEYS_MIN: usize = 4096;

/// What an asset's entries add up to, in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssetSums {
    /// The name of the asset.
    pub asset: String,
    /// All that was ever issued.
    pub issued: u128,
    /// All that was ever burned.
    pub burned: u128,
    /// What holds have placed and captures and releases have not taken.
    pub held: u128,
}

/// Additions and subtractions in their order, relative to an amount that is not known yet.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// How much more there is than at the beginning. One of the two is zero.
    surplus: u128,
    /// How much less.
    deficit: u128,
    /// The largest deficit so far: what must have been there at the beginning.
    shortfall: u128,
}

impl Flow {
    fn add(&mut self, amount: u128) -> Option<()> {
        let filled = amount.min(self.deficit);
        self.deficit -= filled;
        self.surplus = self.surplus.checked_add(amount - filled)?;
        Some(())
    }

    fn take(&mut self, amount: u128) -> Option<()> {
        let taken = amount.min(self.surplus);
        self.surplus -= taken;
        self.deficit = self.deficit.checked_add(amount - taken)?;
        self.shortfall = self.shortfall.max(self.deficit);
        Some(())
    }

    /// The amount after it, `None` if it was below zero at any point or leaves 128 bits.
    fn onto(&self, before: u128) -> Option<u128> {
        before.checked_sub(self.shortfall)?;
        // What comes in may come before what goes out; the end is in any case what counts.
        (before - self.deficit).checked_add(self.surplus)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Flows {
    asset: u16,
    free: Flow,
    held: Flow,
}

/// What the tail did to one account.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    first_nonce: u64,
    last_nonce: u64,
    flows: Vec<Flows>,
    more: Option<Box<Rare>>,
}

/// What few accounts have.
#[derive(Debug, Default)]
struct Rare {
    payers: BTreeSet<(u16, Box<str>)>,
    day_counts: BTreeMap<(TokenId, u16), Counted>,
}

/// What was debited under one ceiling: on its newest day, and in all. A debit of an earlier day counts as one of the newest.
#[derive(Debug, Default)]
struct Counted {
    day: u64,
    on_day: u128,
    in_all: u128,
}

impl Counted {
    fn add(&mut self, day: u64, amount: u128) {
        if day > self.day {
            (self.day, self.on_day) = (day, 0);
        }
        self.on_day = self.on_day.saturating_add(amount);
        self.in_all = self.in_all.saturating_add(amount);
    }
}

impl Delta {
    fn flows(&mut self, asset: u16) -> &mut Flows {
        let at = self.flows.iter().position(|flows| flows.asset == asset).unwrap_or_else(|| {
            // Most accounts have one asset, and there are millions of them: no room for more than one is made in advance.
            self.flows.reserve_exact(1);
            self.flows.push(Flows { asset, ..Flows::default() });
            self.flows.len() - 1
        });
        &mut self.flows[at]
    }

    fn note_nonce(&mut self, nonce: u64) -> Result<(), u64> {
        if self.last_nonce == 0 {
            self.first_nonce = nonce;
        } else if self.last_nonce.checked_add(1) != Some(nonce) {
            return Err(self.last_nonce);
        }
        self.last_nonce = nonce;
        Ok(())
    }

    fn count_day(&mut self, entry: &Entry<'_>, token: TokenId, asset: u16, amount: u128) {
        let day = entry.ts().0 / DAY_MS;
        let counts = &mut self.more.get_or_insert_with(Box::default).day_counts;
        counts.entry((token, asset)).or_default().add(day, amount);
    }

    /// The state after the tail, from the state before it; the lists live in `lists`. The error says which rule is broken.
    pub(crate) fn onto<'a, 'l>(
        &'a self,
        name: Account<'a>,
        before: Option<&AccountState<'a>>,
        day_min: u64,
        lists: &'l mut Merged<'a>,
    ) -> Result<AccountState<'l>, String>
    where
        'a: 'l,
    {
        let last_nonce = self.nonce_onto(name, before.map_or(0, |before| before.last_nonce.0))?;
        lists.values.clear();
        lists.values.extend(before.iter().flat_map(|before| before.values));
        for flows in &self.flows {
            let at = lists.values.binary_search_by_key(&flows.asset, |value| value.asset).unwrap_or_else(|at| {
                lists.values.insert(at, AssetValue { asset: flows.asset, free: 0, held: 0 });
                at
            });
            let value = &mut lists.values[at];
            let after = flows.free.onto(value.free).zip(flows.held.onto(value.held));
            let (free, held) = after.ok_or_else(|| {
                format!(
                    "{name} had {} free and {} held of asset {}, which does not cover what was taken",
                    value.free, value.held, flows.asset
                )
            })?;
            *value = AssetValue { asset: flows.asset, free, held };
        }
        lists.values.retain(|value| value.free != 0 || value.held != 0);
        lists.merge_rare(before, self.more.as_deref(), day_min);
        let Merged { values, payers, day_counts } = lists;
        Ok(AccountState { name, last_nonce: Nonce(last_nonce), values, payers, day_counts })
    }

    fn nonce_onto(&self, name: Account<'_>, before: u64) -> Result<u64, String> {
        if self.last_nonce == 0 {
            return Ok(before);
        }
        if before.checked_add(1) != Some(self.first_nonce) {
            return Err(format!("{name} debits with nonce {} after {before}", self.first_nonce));
        }
        Ok(self.last_nonce)
    }
}

/// The lists of a merged state. Kept for their memory.
#[derive(Default)]
pub(crate) struct Merged<'a> {
    values: Vec<AssetValue>,
    payers: Vec<Payer<'a>>,
    day_counts: Vec<DayCount>,
}

impl<'a> Merged<'a> {
    fn merge_rare(&mut self, before: Option<&AccountState<'a>>, more: Option<&'a Rare>, day_min: u64) {
        self.payers.clear();
        self.day_counts.clear();
        let known = before.map_or(&[][..], |before| before.payers);
        let counted = before.map_or(&[][..], |before| before.day_counts);
        self.payers.extend_from_slice(known);
        self.day_counts.extend_from_slice(counted);
        if let Some(more) = more {
            self.payers.extend(more.payers.iter().map(|(asset, account)| Payer {
                asset: *asset,
                account: Account::new(account).expect("only checked names are kept"),
            }));
            for ((token, asset), counted) in &more.day_counts {
                let known = self.day_counts.iter_mut().find(|known| (known.token, known.asset) == (*token, *asset));
                match known {
                    Some(known) if known.day >= counted.day => known.spent = known.spent.saturating_add(counted.in_all),
                    Some(known) => (known.day, known.spent) = (counted.day, counted.on_day),
                    None => {
                        let (day, spent) = (counted.day, counted.on_day);
                        self.day_counts.push(DayCount { token: *token, asset: *asset, day, spent });
                    }
                }
            }
        }
        self.payers.sort_unstable();
        self.payers.dedup();
        self.day_counts.retain(|count| count.day >= day_min);
        self.day_counts.sort_unstable_by_key(|count| (count.token, count.asset));
    }
}

/// Whether the time of a key is not over when the newest entry is this one.
pub(super) fn lives(key: &UsedKey, newest: UnixMs, ttl_ms: u64) -> bool {
    key.used.0.saturating_add(ttl_ms) > newest.0
}

/// The tail of the log behind some entry.
pub(crate) struct Tail {
    assets: Vec<AssetSums>,
    accounts: HashMap<Box<str>, Delta, RandomState>,
    through: Seq,
    newest: UnixMs,
    issue_keys: Vec<UsedKey>,
    budgets: BTreeMap<TokenId, u128>,
    /// From how many keys on it is looked for those whose time is over.
    keys_max: usize,
}

impl Tail {
    /// Nothing behind this entry, when the assets were these and the newest entry was made at `newest`. `hasher` is keyed at
    /// random by the caller, so that nobody can choose colliding names.
    pub fn new(through: Seq, newest: UnixMs, assets: Vec<AssetSums>, hasher: RandomState) -> Self {
        let (accounts, issue_keys, budgets) = (HashMap::with_hasher(hasher), Vec::new(), BTreeMap::new());
        Self { assets, accounts, through, newest, issue_keys, budgets, keys_max: KEYS_MIN }
    }

    /// Applies the next entry. The error says which rule it breaks; the tail is then not to be used any more.
    pub fn apply(&mut self, seq: Seq, entry: &Entry<'_>) -> Result<(), String> {
        assert_eq!(seq.0, self.through.0 + 1, "the entries are applied in their order");
        let amount = entry.amount().minor_units();
        let asset = self.asset(entry.asset().as_str());
        let op = entry.op();
        self.sum(asset, op, amount).ok_or_else(|| format!("the total of {} leaves 128 bits", entry.asset().as_str()))?;
        if let Some(from) = entry.from() {
            let nonce = entry.nonce().map_or(0, |nonce| nonce.0);
            let delta = self.account(from.as_str());
            delta.note_nonce(nonce).map_err(|last| format!("{from} debits with nonce {nonce} after {last}"))?;
            let flows = delta.flows(asset);
            let flow = if op.draws_held() { &mut flows.held } else { &mut flows.free };
            flow.take(amount).ok_or_else(|| format!("the debits of {from} leave 128 bits"))?;
            entry.daily_counts().for_each(|id| delta.count_day(entry, id, asset, amount));
            if entry.counts_against_budget() {
                let spent = self.budgets.entry(entry.token()).or_default();
                *spent = spent.checked_add(amount).ok_or("what is debited under a budget leaves 128 bits")?;
            }
        }
        if let Some(to) = entry.to() {
            let delta = self.account(to.as_str());
            let flows = delta.flows(asset);
            let flow = if op == Op::Hold { &mut flows.held } else { &mut flows.free };
            flow.add(amount).ok_or_else(|| format!("the balance of {to} leaves 128 bits"))?;
            if let (Op::Hold, Some(payer)) = (op, entry.from()) {
                delta.more.get_or_insert_with(Box::default).payers.insert((asset, payer.as_str().into()));
            }
        }
        if op == Op::Issue {
            self.issue_keys.push(UsedKey { id: KeyId::of(entry.owner(), entry.key()), seq, used: entry.ts() });
        }
        self.through = seq;
        self.newest = self.newest.max(entry.ts());
        Ok(())
    }

    /// Drops keys of issues that were used so long before the newest entry, in milliseconds, that no snapshot carries them on any more:
    /// newer entries only make that longer. Looks at them only once there are twice as many as were left.
    pub fn forget_keys(&mut self, ttl_ms: u64) {
        if self.issue_keys.len() >= self.keys_max {
            let newest = self.newest;
            self.issue_keys.retain(|key| lives(key, newest, ttl_ms));
            self.keys_max = KEYS_MIN.max(2 * self.issue_keys.len());
        }
    }

    fn sum(&mut self, asset: u16, op: Op, amount: u128) -> Option<()> {
        let sums = &mut self.assets[usize::from(asset)];
        match op {
            Op::Issue => sums.issued = sums.issued.checked_add(amount)?,
            Op::Burn => sums.burned = sums.burned.checked_add(amount)?,
            Op::Hold => sums.held = sums.held.checked_add(amount)?,
            Op::Capture | Op::Release => sums.held = sums.held.checked_sub(amount)?,
            Op::Transfer => {}
        }
        Some(())
    }

    fn asset(&mut self, name: &str) -> u16 {
        let at = self.assets.iter().position(|sums| sums.asset == name).unwrap_or_else(|| {
            self.assets.push(AssetSums { asset: name.into(), ..AssetSums::default() });
            self.assets.len() - 1
        });
        u16::try_from(at).expect("the policy lists fewer than 65,536 assets")
    }

    fn account(&mut self, name: &str) -> &mut Delta {
        if !self.accounts.contains_key(name) {
            self.accounts.insert(name.into(), Delta::default());
        }
        self.accounts.get_mut(name).expect("just inserted")
    }

    /// The last entry that was applied.
    pub fn through(&self) -> Seq {
        self.through
    }

    /// When the newest entry was made, of the tail and of what came before it.
    pub fn newest(&self) -> UnixMs {
        self.newest
    }

    /// The assets in the order in which they first came, with their sums over the whole log.
    pub fn assets(&self) -> &[AssetSums] {
        &self.assets
    }

    /// The keys that issues in the tail have used, in the order of the entries; those whose time is over may be missing.
    pub fn issue_keys(&self) -> &[UsedKey] {
        &self.issue_keys
    }

    /// What the tail debits under budgets, in minor units, in the order of the token ids.
    pub fn budgets(&self) -> impl Iterator<Item = (TokenId, u128)> + '_ {
        self.budgets.iter().map(|(token, spent)| (*token, *spent))
    }

    /// How many accounts or budgets the tail touches, of which there are more.
    pub fn touched(&self) -> usize {
        self.accounts.len().max(self.budgets.len())
    }

    /// What the tail did to an account; `None` if it did nothing.
    pub fn delta(&self, account: &str) -> Option<&Delta> {
        self.accounts.get(account)
    }

    /// The touched accounts in the order of their names.
    pub fn in_order(&self) -> Vec<Touched<'_>> {
        let accounts = self.accounts.iter().map(|(name, delta)| {
            let account = Account::new(name).expect("only checked names are kept");
            Touched { first: first_bytes(name), account, delta }
        });
        let mut accounts: Vec<_> = accounts.collect();
        accounts.sort_unstable_by(|left, right| {
            left.first.cmp(&right.first).then_with(|| left.account.as_bytes().cmp(right.account.as_bytes()))
        });
        accounts
    }
}

/// A touched account.
pub(crate) struct Touched<'a> {
    /// The beginning of its name, which decides most comparisons: names are all over the memory, and sorting millions of them would wait
    /// for that all the time.
    first: [u64; 2],
    pub account: Account<'a>,
    pub delta: &'a Delta,
}

/// The first bytes of a name, in its order; zeros behind a short one.
fn first_bytes(name: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    let first = u128::from_be_bytes(bytes);
    [(first >> 64) as u64, first as u64]
}
