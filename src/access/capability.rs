//! A verified capability and the question put to it: may this request be made?
//!
//! Invariants: every caveat of a kind has to hold, independently of the others; where a request has nothing that a caveat
//! speaks about (a read has no receiver), the caveat holds, but for one case: value must not leave through an operation
//! without receiver when the capability limits receivers.
//! Deliberately not known here: signatures, bytes of tokens, and what was debited before (the owner core counts that).
use super::caveat::{Caveat, List, Patterns};
use super::scope::ScopeSet;
use crate::domain::{Account, Allowance, Amount, Asset, Code, Key, Refusal, TokenId, UnixMs, Why};

/// What a holder may do. Only made from a token whose signature was right.
#[derive(Debug)]
pub struct Capability {
    pub(super) subject: Box<str>,
    pub(super) key_id: Box<str>,
    pub(super) token: TokenId,
    audiences: Vec<Box<str>>,
    expires: Option<UnixMs>,
    not_before: UnixMs,
    scopes: Vec<ScopeSet>,
    accounts: Vec<Patterns>,
    to: Vec<Patterns>,
    assets: Vec<List>,
    keys: Vec<Patterns>,
    amount_max: Option<u128>,
    ceiling: Option<u128>,
    budget: Option<u128>,
    not_understood: bool,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Scopes of which any one suffices.
    pub scopes: ScopeSet,
    /// Every account that is debited or read.
    pub accounts: &'a [Account<'a>],
    /// The account that is credited.
    pub to: Option<Account<'a>>,
    /// The asset that is moved or read.
    pub asset: Option<Asset<'a>>,
    /// How much is moved; `None` for reads.
    pub amount: Option<Amount>,
    /// The idempotency key; `None` for reads.
    pub key: Option<Key<'a>>,
    /// Whether value leaves an account: ceilings and budgets count it, and a limit on receivers wants to see one.
    pub debits: bool,
}

impl Capability {
    pub(super) fn new(subject: &str, key_id: &str, token: TokenId) -> Self {
        Self {
            subject: subject.into(),
            key_id: key_id.into(),
            token,
            audiences: Vec::new(),
            expires: None,
            not_before: UnixMs(0),
            scopes: Vec::new(),
            accounts: Vec::new(),
            to: Vec::new(),
            assets: Vec::new(),
            keys: Vec::new(),
            amount_max: None,
            ceiling: None,
            budget: None,
            not_understood: false,
        }
    }

    /// Adds a caveat; `None` is one that was not understood.
    pub(super) fn narrow(&mut self, caveat: Option<Caveat>) {
        let least = |known: Option<u128>, more: u128| Some(known.map_or(more, |known| known.min(more)));
        match caveat {
            None => self.not_understood = true,
            Some(Caveat::Audience(audience)) => self.audiences.push(audience),
            Some(Caveat::Expires(at)) => self.expires = Some(self.expires.map_or(at, |known| known.min(at))),
            Some(Caveat::NotBefore(at)) => self.not_before = self.not_before.max(at),
            Some(Caveat::Scopes(scopes)) => self.scopes.push(scopes),
            Some(Caveat::Accounts(patterns)) => self.accounts.push(patterns),
            Some(Caveat::To(patterns)) => self.to.push(patterns),
            Some(Caveat::Assets(assets)) => self.assets.push(assets),
            Some(Caveat::AmountMax(units)) => self.amount_max = least(self.amount_max, units),
            Some(Caveat::DailyCeiling(units)) => self.ceiling = least(self.ceiling, units),
            Some(Caveat::Budget(units)) => self.budget = least(self.budget, units),
            Some(Caveat::Keys(patterns)) => self.keys.push(patterns),
        }
    }

    /// The caveats that do not depend on the request: service, time, and that all of them were understood. The clock that the times
    /// were written by may be off by `leeway_ms`, in the holder's favour.
    pub(super) fn check(&self, audience: &str, now: UnixMs, leeway_ms: u64) -> Result<(), Refusal> {
        if self.audiences.iter().any(|named| **named != *audience) {
            return Err(Refusal::unauthorized(Why::Audience));
        }
        if self.expires.is_some_and(|expires| now.0 >= expires.0.saturating_add(leeway_ms)) {
            return Err(Refusal::unauthorized(Why::Expired));
        }
        if now.0.saturating_add(leeway_ms) < self.not_before.0 {
            return Err(Refusal::unauthorized(Why::NotYet));
        }
        if self.not_understood {
            return Err(Refusal::caveat("the capability has a caveat that this wallet does not understand, which denies"));
        }
        Ok(())
    }

    /// Whether the capability reaches any of these scopes: all that can be asked before the body has been read.
    pub fn permits_scope(&self, scopes: ScopeSet) -> Result<(), Refusal> {
        if self.scopes.iter().all(|granted| granted.meets(scopes)) {
            return Ok(());
        }
        Err(Refusal::caveat("the scope of the capability does not include this operation"))
    }

    /// Whether every caveat lets the request through, and how far sums of debits are limited, which is for whoever counts them; what
    /// debits nothing is not limited.
    pub fn permits(&self, demand: &Demand<'_>) -> Result<Allowance, Refusal> {
        self.permits_scope(demand.scopes)?;
        if !demand.accounts.iter().all(|account| self.covers_account(*account)) {
            return Err(Refusal::caveat("the capability does not cover the debited or read account"));
        }
        if !self.covers_receiver(demand) {
            return Err(Refusal::caveat("the capability does not allow value to go to this account"));
        }
        if demand.asset.is_some_and(|asset| !self.covers_asset(asset)) {
            return Err(Refusal::caveat("the capability does not cover this asset"));
        }
        if demand.key.is_some_and(|key| !self.keys.iter().all(|patterns| patterns.cover(key.as_str()))) {
            return Err(Refusal::caveat("the capability does not allow this idempotency key"));
        }
        if let (Some(amount), Some(amount_max)) = (demand.amount, self.amount_max) {
            if amount.minor_units() > amount_max {
                return Err(Refusal::new(Code::LimitsExceeded, "the amount is above the ceiling of the capability"));
            }
        }
        if !demand.debits {
            return Ok(Allowance::default());
        }
        let some = |units: Option<u128>, none: &'static str| {
            let amount = |units| Amount::new(units).ok_or_else(|| Refusal::new(Code::LimitsExceeded, none));
            units.map(amount).transpose()
        };
        Ok(Allowance {
            daily_ceiling: some(self.ceiling, "the daily ceiling of the capability is zero")?,
            budget: some(self.budget, "the budget of the capability is zero")?,
            ..Allowance::default()
        })
    }

    /// Whether an entry between these accounts may be read: the capability has to cover one of them, and the asset.
    pub fn permits_receipt(&self, accounts: [Option<Account<'_>>; 2], asset: Asset<'_>) -> Result<(), Refusal> {
        let covered = accounts.into_iter().flatten().any(|account| self.covers_account(account));
        if covered && self.covers_asset(asset) {
            return Ok(());
        }
        Err(Refusal::caveat("the capability covers neither account of this transaction, or not its asset"))
    }

    /// Whether sums over all accounts may be read: with them comes a part of what each of them has.
    pub fn permits_every_account(&self) -> Result<(), Refusal> {
        if self.accounts.iter().all(Patterns::cover_everything) {
            return Ok(());
        }
        Err(Refusal::caveat("the capability is for some accounts only, and this is about all of them"))
    }

    fn covers_account(&self, account: Account<'_>) -> bool {
        self.accounts.iter().all(|patterns| patterns.cover(account.as_str()))
    }

    fn covers_receiver(&self, demand: &Demand<'_>) -> bool {
        match demand.to {
            Some(to) => self.to.iter().all(|patterns| patterns.cover(to.as_str())),
            None => self.to.is_empty() || !demand.debits,
        }
    }

    fn covers_asset(&self, asset: Asset<'_>) -> bool {
        self.assets.iter().all(|assets| assets.holds(asset.as_str()))
    }

    /// For whom the capability was minted.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Which key signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Its own random id, which entries carry.
    pub fn token(&self) -> TokenId {
        self.token
    }
}
