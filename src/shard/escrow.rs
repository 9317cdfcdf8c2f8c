//! Held value: what holds have placed on escrow accounts, and which payers placed it.
//!
//! Held value is apart from free value: only capture and release can take it. The set of payers only grows, so the order in which
//! holds from different cores arrive does not matter, and replay comes to the same state.
use super::accounts::{AccountIx, AssetIx, Holding};
use ahash::RandomState;
use std::collections::{BTreeSet, HashMap};

/// The held value of one escrow account in one asset.
#[derive(Debug, Default)]
pub struct Escrow {
    /// How much is held, and how much of it no capture or release has reserved.
    pub held: Holding,
    payers: BTreeSet<Box<str>>,
}

impl Escrow {
    /// Whether this account placed value here.
    pub fn has_payer(&self, account: &str) -> bool {
        self.payers.contains(account)
    }

    /// Takes a payer over from a snapshot.
    pub fn restore_payer(&mut self, payer: &str) {
        self.payers.insert(payer.into());
    }

    /// Adds value that a payer placed.
    pub fn place(&mut self, payer: &str, amount: u128) {
        self.held.settled = self.held.settled.checked_add(amount).expect("issued value is capped below 2^128");
        self.held.available = self.held.available.checked_add(amount).expect("issued value is capped below 2^128");
        if !self.has_payer(payer) {
            self.payers.insert(payer.into());
        }
    }
}

/// All escrow accounts of a slice.
pub struct Escrows(HashMap<(AccountIx, AssetIx), Escrow, RandomState>);

impl Escrows {
    /// No held value.
    pub fn new(hasher: RandomState) -> Self {
        Self(HashMap::with_hasher(hasher))
    }

    /// All held value, with its asset.
    pub fn iter(&self) -> impl Iterator<Item = (AssetIx, &Escrow)> {
        self.0.iter().map(|((_, asset), escrow)| (*asset, escrow))
    }

    /// The held value of an account, if a hold ever placed some.
    pub fn find(&self, account: AccountIx, asset: AssetIx) -> Option<&Escrow> {
        self.0.get(&(account, asset))
    }

    /// The held value of an account that has been found before, to be changed.
    pub fn find_mut(&mut self, account: AccountIx, asset: AssetIx) -> Option<&mut Escrow> {
        self.0.get_mut(&(account, asset))
    }

    /// The held value of an account, made empty if there was none.
    pub fn find_or_create(&mut self, account: AccountIx, asset: AssetIx) -> &mut Escrow {
        self.0.entry((account, asset)).or_default()
    }
}
