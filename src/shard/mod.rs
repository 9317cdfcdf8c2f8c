//! The account slice of one core: decides debits, settles what became durable, and can be rebuilt from the ledger.
//!
//! `decide` either refuses or reserves; reserving takes the amount from what is available at once. `settle` and `credit` happen
//! only for durable entries. No interleaving can overspend, and nothing is ever rolled back. The slice knows no clock, no
//! connection and no disk: time comes in with the entries.
mod accounts;
mod budgets;
mod ceilings;
mod escrow;
mod expect;
mod forgotten;
mod parts;
mod restore;
mod window;

pub use accounts::{AccountIx, AssetIx};
pub use budgets::Budgets;
pub use window::Place;

use crate::domain::limits::ISSUED_PER_CORE_MAX;
use crate::domain::{Account, Allowance, Amount, Asset, Balance, Code, Entry, KeyId, KeyUse, LastNonce, Nonce, Op};
use crate::domain::{Period, Question, Refusal, Seq, TokenId, UnixMs};
use accounts::{Accounts, Holding, Record};
use ahash::RandomState;
use ceilings::Ceilings;
use escrow::Escrows;
use window::{HashedKey, Window};

/// What a slice has to be told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Random keys for the in-memory tables.
    pub hash_seeds: [u64; 4],
    /// How long an idempotency key is remembered at least, in milliseconds.
    pub idempotency_ttl_ms: u64,
    /// How many idempotency keys of debits, and how many of issues, are remembered at most.
    pub keys_max: usize,
}

/// What `decide` found.
#[derive(Debug)]
pub enum Decision {
    /// The value is reserved; the entry must now be committed.
    Reserved(Reservation),
    /// The key is being committed under this lane number: wait for its outcome.
    Join(u64),
    /// The ledger has to be asked before the request can be answered.
    Ask(Question),
    /// All checks passed, but the ledger takes nothing now.
    Shut,
    /// No.
    Refused(Refusal),
}

/// Where a reserved entry will change something when it is durable.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    account: AccountIx,
    asset: AssetIx,
    key: HashedKey,
}

/// Figures of a slice for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Accounts in memory.
    pub accounts: usize,
    /// Idempotency keys in memory.
    pub keys: usize,
}

/// One core's accounts and all that is needed to decide on them.
pub struct Shard {
    accounts: Accounts,
    assets: Vec<Box<str>>,
    issued: Vec<u128>,
    escrows: Escrows,
    ceilings: Ceilings,
    /// Shared with the slices of all other cores.
    budgets: Budgets,
    debit_keys: Window,
    issue_keys: Window,
    key_hasher: RandomState,
    height: Seq,
    /// Hashes of accounts that are being touched, kept for its memory.
    touched: Vec<u64>,
}

impl Shard {
    /// An empty slice, which counts under budgets together with all that have these.
    pub fn new(settings: Settings, budgets: Budgets) -> Self {
        let [a, b, c, d] = settings.hash_seeds;
        let hasher = || RandomState::with_seeds(a, b, c, d);
        let key_hasher = RandomState::with_seeds(d, c, b, a);
        let window = |evicts| Window::new(key_hasher.clone(), settings.idempotency_ttl_ms, settings.keys_max, evicts);
        Self {
            accounts: Accounts::new(hasher()),
            assets: Vec::new(),
            issued: Vec::new(),
            escrows: Escrows::new(hasher()),
            ceilings: Ceilings::new(hasher()),
            budgets,
            debit_keys: window(true),
            issue_keys: window(false),
            key_hasher,
            height: Seq(0),
            touched: Vec::new(),
        }
    }

    /// Decides on a request whose owner account lives here. `lane_number` is the place in the lane that it gets if it is reserved;
    /// nothing is reserved unless the ledger is `open`.
    /// If the key has been looked for in the ledger through the position `searched`, it is not asked about for what stands there.
    // Inlined, because a decision that comes back through memory has to wait for everything that was written before it.
    #[inline(always)]
    pub fn decide(
        &mut self,
        entry: &Entry<'_>,
        allowance: Allowance,
        lane_number: u64,
        open: bool,
        searched: Option<Seq>,
    ) -> Decision {
        let key = self.hashed_key(entry);
        let unsearched = |place: &Place| match (place, searched) {
            (Place::Durable(seq), Some(through)) => *seq > through,
            (Place::Durable(_), None) | (Place::Pending(_), _) => true,
        };
        let known = |window: &Window| window.find(key).filter(unsearched);
        match known(&self.debit_keys).or_else(|| known(&self.issue_keys)) {
            Some(Place::Pending(number)) => return Decision::Join(number),
            Some(Place::Durable(seq)) => return Decision::Ask(Question::At(seq)),
            None => {}
        }
        if let Some(accepted) = self.debit_keys.may_have_forgotten(key, searched) {
            return Decision::Ask(key_question(entry, accepted));
        }
        let decision = if entry.op().debits() {
            self.decide_debit(entry, allowance, open, key)
        } else {
            self.decide_issue(entry, open, key)
        };
        if let Decision::Reserved(_) = decision {
            let window = if entry.op().debits() { &mut self.debit_keys } else { &mut self.issue_keys };
            match searched {
                None => window.remember_new(key, lane_number, entry.ts()),
                Some(_) => window.remember_instead(key, lane_number, entry.ts()),
            }
        }
        decision
    }

    #[inline(always)]
    fn decide_debit(&mut self, entry: &Entry<'_>, allowance: Allowance, open: bool, key: HashedKey) -> Decision {
        let account = entry.owner();
        let nonce = entry.nonce().expect("a debit has a nonce").0;
        let Some(ix) = self.accounts.find(account) else {
            let refusal = if nonce == 1 { insufficient_funds() } else { Refusal::nonce(Nonce(1)) };
            return Decision::Refused(if allowance.frozen { frozen() } else { refusal });
        };
        let record = self.accounts.get(ix);
        if record.reserved.checked_add(1) != Some(nonce) {
            let maybe_repeat = nonce >= 1 && nonce <= record.confirmed && !self.debit_keys.complete();
            let refusal = || if allowance.frozen { frozen() } else { Refusal::nonce(Nonce(record.reserved.saturating_add(1))) };
            return if maybe_repeat {
                Decision::Ask(Question::Debit { account: account.as_str().into(), nonce: Nonce(nonce) })
            } else {
                Decision::Refused(refusal())
            };
        }
        if allowance.frozen {
            return Decision::Refused(frozen());
        }
        let asset = self.asset(entry.asset());
        let amount = entry.amount().minor_units();
        let over_ceiling = self.over_ceilings(entry, allowance, ix, asset);
        if let Some(refusal) = over_ceiling.or_else(|| self.unfunded(entry, ix, asset)) {
            return Decision::Refused(refusal);
        }
        if !open {
            return Decision::Shut;
        }
        assert_eq!(entry.counts_against_budget(), allowance.budget.is_some(), "replay counts what was counted here");
        assert_eq!(entry.counts_against_daily_max(), allowance.daily_max.is_some(), "replay counts what was counted here");
        if let Some(budget) = allowance.budget {
            // Last of all: nothing refuses after it, so nothing has to be taken back.
            if !self.budgets.charge(entry.token(), amount, budget.minor_units()) {
                return Decision::Refused(over_budget());
            }
        }
        let record = self.accounts.get_mut(ix);
        record.reserved = nonce;
        let holding = match entry.op().draws_held() {
            true => &mut self.escrows.find_mut(ix, asset).expect("held value was just found").held,
            false => record.holding_mut(asset),
        };
        assert!(holding.available >= amount && holding.available <= holding.settled);
        holding.available -= amount;
        entry.daily_counts().for_each(|id| self.ceilings.count(entry.ts(), id, ix, asset, amount));
        Decision::Reserved(Reservation { account: ix, asset, key })
    }

    fn decide_issue(&mut self, entry: &Entry<'_>, open: bool, key: HashedKey) -> Decision {
        if self.issue_keys.full() {
            let message = "too many issues within the idempotency window; retry later or raise idempotency.keys_max";
            return Decision::Refused(Refusal::new(Code::Busy, message));
        }
        let asset = self.asset(entry.asset());
        let amount = entry.amount().minor_units();
        let issued = self.issued[usize::from(asset.0)].checked_add(amount).filter(|issued| *issued <= ISSUED_PER_CORE_MAX);
        let Some(issued) = issued else {
            return Decision::Refused(Refusal::new(Code::LimitsExceeded, "more of this asset than can ever be issued"));
        };
        if !open {
            return Decision::Shut;
        }
        self.issued[usize::from(asset.0)] = issued;
        let account = self.accounts.find_or_create(entry.owner());
        Decision::Reserved(Reservation { account, asset, key })
    }

    fn over_ceilings(&self, entry: &Entry<'_>, allowance: Allowance, account: AccountIx, asset: AssetIx) -> Option<Refusal> {
        const BY_TOKEN: &str = "the capability's daily ceiling does not allow this amount today";
        const BY_POLICY: &str = "what the policy allows this operation in a day does not allow this amount today";
        let of_token = allowance.daily_ceiling.map(|ceiling| (ceiling, entry.token(), BY_TOKEN));
        let of_policy = allowance.daily_max.map(|most| (most, TokenId::of_operation(entry.op()), BY_POLICY));
        let over = |(ceiling, id, _): &(Amount, TokenId, &str)| {
            let total = self.ceilings.spent(entry.ts(), *id, account, asset).checked_add(entry.amount().minor_units());
            !total.is_some_and(|total| total <= ceiling.minor_units())
        };
        let over = of_token.filter(over).or_else(|| of_policy.filter(over));
        over.map(|(_, _, message)| Refusal::new(Code::LimitsExceeded, message))
    }

    fn unfunded(&self, entry: &Entry<'_>, account: AccountIx, asset: AssetIx) -> Option<Refusal> {
        let amount = entry.amount().minor_units();
        if !entry.op().draws_held() {
            let available = self.accounts.get(account).holding(asset).available;
            return (available < amount).then(insufficient_funds);
        }
        let Some(escrow) = self.escrows.find(account, asset) else { return Some(nothing_held()) };
        let to = entry.to().expect("capture and release credit an account");
        if entry.op() == Op::Release && !escrow.has_payer(to.as_str()) {
            return Some(Refusal::new(
                Code::Forbidden,
                "a release goes back to a payer of the hold; use capture to pay somebody else",
            ));
        }
        (escrow.held.available < amount).then(nothing_held)
    }

    /// Settles an entry that was reserved and became durable at `seq`; the credit is not part of it.
    pub fn settle(&mut self, reservation: &Reservation, entry: &Entry<'_>, seq: Seq) {
        let Reservation { account, asset, key } = *reservation;
        self.height = self.height.max(seq);
        if !entry.op().debits() {
            self.issue_keys.remember(key, Place::Durable(seq), entry.ts());
            return;
        }
        let record = self.accounts.get_mut(account);
        let nonce = entry.nonce().expect("a debit has a nonce").0;
        assert_eq!(record.confirmed + 1, nonce, "debits of one account become durable in the order of their nonces");
        record.confirmed = nonce;
        let holding = match entry.op().draws_held() {
            true => &mut self.escrows.find_mut(account, asset).expect("value was reserved here").held,
            false => record.holding_mut(asset),
        };
        holding.settled = holding.settled.checked_sub(entry.amount().minor_units()).expect("what is reserved is settled");
        assert!(holding.available <= holding.settled);
        self.debit_keys.remember(key, Place::Durable(seq), entry.ts());
    }

    /// Adds the value of a durable entry to the account that it credits, which lives here.
    pub fn credit(&mut self, entry: &Entry<'_>, seq: Seq) {
        self.height = self.height.max(seq);
        let to = entry.to().expect("only entries that credit an account are handed on as credits");
        let amount = entry.amount().minor_units();
        let ix = self.accounts.find_or_create(to);
        let asset = self.asset(entry.asset());
        if entry.op() == Op::Hold {
            let payer = entry.from().expect("a hold has a payer");
            self.escrows.find_or_create(ix, asset).place(payer.as_str(), amount);
            return;
        }
        let holding = self.accounts.get_mut(ix).holding_mut(asset);
        holding.settled = holding.settled.checked_add(amount).expect("issued value is capped below 2^128");
        holding.available = holding.available.checked_add(amount).expect("issued value is capped below 2^128");
    }

    /// Applies the debit side of an entry read back from the ledger whose owner account lives here. Fails, saying why, if no
    /// correct writer can have written it.
    pub fn replay(&mut self, entry: &Entry<'_>, seq: Seq, now: UnixMs) -> Result<(), String> {
        self.height = self.height.max(seq);
        let key = self.hashed_key(entry);
        let asset = self.asset(entry.asset());
        let amount = entry.amount().minor_units();
        let account = self.accounts.find_or_create(entry.owner());
        if entry.op().debits() {
            self.replay_debit(entry, account, asset, amount)?;
        } else {
            let issued = &mut self.issued[usize::from(asset.0)];
            *issued = issued.checked_add(amount).ok_or("more issued than 128 bits hold")?;
        }
        let window = if entry.op().debits() { &mut self.debit_keys } else { &mut self.issue_keys };
        window.replay(key, seq, entry.ts(), now);
        Ok(())
    }

    fn replay_debit(&mut self, entry: &Entry<'_>, account: AccountIx, asset: AssetIx, amount: u128) -> Result<(), String> {
        let nonce = entry.nonce().expect("a debit has a nonce").0;
        let record = self.accounts.get_mut(account);
        if record.confirmed + 1 != nonce {
            return Err(format!("nonce {nonce} of account {} follows nonce {}", record.name(), record.confirmed));
        }
        record.confirmed = nonce;
        record.reserved = nonce;
        let holding = match entry.op().draws_held() {
            true => &mut self.escrows.find_or_create(account, asset).held,
            false => record.holding_mut(asset),
        };
        let left = holding.settled.checked_sub(amount).ok_or_else(|| format!("account {} would go below zero", entry.owner()))?;
        *holding = Holding { settled: left, available: left };
        entry.daily_counts().for_each(|id| self.ceilings.count(entry.ts(), id, account, asset, amount));
        if entry.counts_against_budget() {
            self.budgets.restore(entry.token(), amount)?;
        }
        Ok(())
    }

    /// The durable balance of an account.
    pub fn balance(&self, account: Account<'_>, asset: Asset<'_>) -> Balance {
        let found = self.accounts.find(account).zip(self.known_asset(asset));
        let Some((ix, asset)) = found else { return Balance { height: self.height, ..Balance::default() } };
        let free = self.accounts.get(ix).holding(asset).settled;
        let held = self.escrows.find(ix, asset).map_or(0, |escrow| escrow.held.settled);
        Balance { amount: free.checked_add(held).expect("issued value is capped below 2^128"), held, height: self.height }
    }

    /// The nonce of an account's newest durable debit, and per asset its free and held value.
    pub fn held(&self, account: Account<'_>) -> (Nonce, Vec<(Box<str>, u128, u128)>) {
        let value = |asset: &str| {
            let balance = self.balance(account, Asset::new(asset).expect("only checked names are stored"));
            (asset.into(), balance.amount - balance.held, balance.held)
        };
        (self.last_nonce(account).confirmed, self.assets.iter().map(|asset| value(asset)).collect())
    }

    /// How far the debits of an account have come.
    pub fn last_nonce(&self, account: Account<'_>) -> LastNonce {
        let record = self.accounts.find(account).map(|ix| self.accounts.get(ix));
        LastNonce {
            confirmed: Nonce(record.map_or(0, |record| record.confirmed)),
            next: Nonce(record.map_or(1, |record| record.reserved.saturating_add(1))),
        }
    }

    /// Forgets old idempotency keys, a bounded number per call, for when no new ones push them out; returns how many had to go
    /// before their time since the last call.
    pub fn expire_keys(&mut self, now: UnixMs) -> usize {
        for window in [&mut self.issue_keys, &mut self.debit_keys] {
            window.expire(now);
        }
        self.debit_keys.expire_forgotten(now);
        self.debit_keys.take_evicted()
    }

    /// Takes note of a key of an account that lives here, used in this time: if it is used again, the ledger is asked. For a start that
    /// does not replay all entries whose keys are still in their time.
    pub fn forget_known(&mut self, key: KeyId, accepted: Period) {
        let key = HashedKey::new(key, &self.key_hasher);
        if self.issue_keys.find(key).is_none() {
            self.debit_keys.forget(key, accepted);
        }
    }

    /// The time from which on the keys of entries are still in their time.
    pub fn keys_since(&self, now: UnixMs) -> UnixMs {
        UnixMs((now.0 + 1).saturating_sub(self.debit_keys.ttl_ms()))
    }

    /// The question for the key of a request among all entries whose keys are still in their time.
    pub fn question_about_key(&self, entry: &Entry<'_>) -> Question {
        key_question(entry, Period { first: self.keys_since(entry.ts()), last: UnixMs(u64::MAX) })
    }

    /// Whether the key of a durable entry is still in its time when this request comes.
    pub fn key_lives(&self, first: &Entry<'_>, request: &Entry<'_>) -> bool {
        self.debit_keys.lives(first.ts(), request.ts())
    }

    /// What was debited under budgets, over all cores.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Figures for metrics.
    pub fn figures(&self) -> Figures {
        Figures { accounts: self.accounts.len(), keys: self.debit_keys.len() + self.issue_keys.len() }
    }

    /// The newest ledger position that this slice knows of.
    pub fn height(&self) -> Seq {
        self.height
    }

    /// What all accounts hold of each asset, held parts included; `None` for a sum that leaves 128 bits.
    pub fn sums(&self) -> Vec<(&str, Option<u128>)> {
        let mut sums = vec![Some(0u128); self.assets.len()];
        let mut add = |asset: AssetIx, amount| {
            let sum = &mut sums[usize::from(asset.0)];
            *sum = sum.and_then(|sum| sum.checked_add(amount));
        };
        self.accounts.iter().flat_map(Record::holdings).for_each(|(asset, holding)| add(asset, holding.settled));
        self.escrows.iter().for_each(|(asset, escrow)| add(asset, escrow.held.settled));
        self.assets.iter().map(|asset| &**asset).zip(sums).collect()
    }

    /// Every account's name, asset, balance and last durable nonce: what a check compares with a replay.
    pub fn for_each_balance(&self, mut each: impl FnMut(&str, &str, Balance, Nonce)) {
        for record in self.accounts.iter() {
            let account = Account::new(record.name()).expect("only checked names are stored");
            for asset in &self.assets {
                let asset = Asset::new(asset).expect("only checked names are stored");
                each(record.name(), asset.as_str(), self.balance(account, asset), Nonce(record.confirmed));
            }
        }
    }

    fn hashed_key(&self, entry: &Entry<'_>) -> HashedKey {
        HashedKey::new(KeyId::of(entry.owner(), entry.key()), &self.key_hasher)
    }

    fn known_asset(&self, asset: Asset<'_>) -> Option<AssetIx> {
        self.assets.iter().position(|known| known.as_bytes() == asset.as_bytes()).map(|index| AssetIx(index as u16))
    }

    fn asset(&mut self, asset: Asset<'_>) -> AssetIx {
        self.known_asset(asset).unwrap_or_else(|| {
            self.assets.push(asset.as_str().into());
            self.issued.push(0);
            AssetIx(u16::try_from(self.assets.len() - 1).expect("the policy lists fewer than 65,536 assets"))
        })
    }
}

fn key_question(entry: &Entry<'_>, accepted: Period) -> Question {
    let (account, key) = (entry.owner().as_str().into(), entry.key().as_str().into());
    Question::Key(Box::new(KeyUse { account, key, accepted }))
}

fn frozen() -> Refusal {
    Refusal::new(Code::Forbidden, "the policy has frozen the debited account; nothing is taken out of it")
}

fn insufficient_funds() -> Refusal {
    Refusal::new(Code::InsufficientFunds, "the debited account has less than this amount available")
}

fn over_budget() -> Refusal {
    Refusal::new(Code::LimitsExceeded, "the capability's budget does not allow this amount any more")
}

fn nothing_held() -> Refusal {
    Refusal::new(Code::InsufficientFunds, "the escrow account holds less than this amount")
}

#[cfg(test)]
mod tests;
