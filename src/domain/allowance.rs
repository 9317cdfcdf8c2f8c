//! What a capability still allows to be debited, as far as only sums over earlier debits can tell.
use super::Amount;

/// Limits on sums of debits. The request that is asked about is part of each sum; `None` does not limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The most that may be debited under the token id in one UTC day, from one account in one asset.
    pub daily_ceiling: Option<Amount>,
    /// The most that may ever be debited under the token id, in minor units added up over all accounts and assets.
    pub budget: Option<Amount>,
}

// Every request that is handed on carries one, and most have none of both.
const _: () = assert!(size_of::<Allowance>() == 32);
