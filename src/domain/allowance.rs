//! What capability and policy leave to the core that owns the account, because only it can tell: sums over earlier debits, how many
//! requests there were, and whether this is a repeat.
use super::{Amount, Quota};

/// Limits on a write. The request that is asked about is part of each sum; `None` does not limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The most that may be debited under the token id in one UTC day, from one account in one asset.
    pub daily_ceiling: Option<Amount>,
    /// The most that may ever be debited under the token id, in minor units added up over all accounts and assets.
    pub budget: Option<Amount>,
    /// The most that the policy lets this operation debit in one UTC day, from one account in one asset.
    pub daily_max: Option<Amount>,
    /// How many writes of the account the policy lets through.
    pub quota: Option<Quota>,
    /// Whether the policy has frozen the debited account: repeats are answered, and nothing new is taken out.
    pub frozen: bool,
}

// Every request that is handed on carries one, and most have none of all that.
const _: () = assert!(size_of::<Allowance>() == 64);
