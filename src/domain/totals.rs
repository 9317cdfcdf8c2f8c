//! What the audit says of one asset as a whole.
use super::Seq;

/// The sums of one asset over all accounts, in minor units, after some entry of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All that was ever issued.
    pub issued: u128,
    /// All that was ever burned.
    pub burned: u128,
    /// What all accounts have, held value included: what was issued less what was burned.
    pub in_accounts: u128,
    /// The part of what the accounts have that holds have placed, and that captures and releases have not taken.
    pub held: u128,
    /// The last entry that is counted.
    pub through: Seq,
}

/// Why there are no totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// The audit has not read the ledger yet; a moment later it will have.
    NotYet,
    /// The audit has found something that cannot be. Nothing is written any more, and no sum can be trusted.
    Broken,
}
