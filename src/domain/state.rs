//! What the entries of the ledger have made of one account, apart from how it is kept in memory or in a file.
use super::{Account, KeyId, Nonce, Seq, TokenId, UnixMs};

/// The value of an account in one asset, in minor units. Assets are numbered by a table that goes with the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssetValue {
    /// Number of the asset.
    pub asset: u16,
    /// What the account can spend.
    pub free: u128,
    /// What holds have placed here and captures and releases have not taken.
    pub held: u128,
}

/// What one capability with a daily ceiling has debited from an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayCount {
    /// The capability.
    pub token: TokenId,
    /// Number of the asset.
    pub asset: u16,
    /// The day, counted from 1970-01-01 UTC.
    pub day: u64,
    /// How much on that day, in minor units.
    pub spent: u128,
}

/// Whoever placed held value on an escrow account, and may get it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payer<'a> {
    /// Number of the asset.
    pub asset: u16,
    /// The account that paid.
    pub account: Account<'a>,
}

/// One account. Everything in it is in ascending order and without repeats, and no value is zero, so that equal states are
/// equal bytes wherever they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState<'a> {
    /// Its name.
    pub name: Account<'a>,
    /// The nonce of its newest debit; 0 if there was none.
    pub last_nonce: Nonce,
    /// Its value per asset.
    pub values: &'a [AssetValue],
    /// Who paid into it by a hold.
    pub payers: &'a [Payer<'a>],
    /// What was debited under daily ceilings lately.
    pub day_counts: &'a [DayCount],
}

/// An idempotency key that an issue has used: nothing but its being remembered keeps the issue from being made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedKey {
    /// The account and its key.
    pub id: KeyId,
    /// The entry.
    pub seq: Seq,
    /// When the entry was made.
    pub used: UnixMs,
}

/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;
