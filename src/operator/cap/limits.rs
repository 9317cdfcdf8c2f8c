//! By what a capability is limited, in the words in which `cap mint` and `cap attenuate` take it.
use crate::access::MintRequest;

/// Limits of a capability, each of which becomes a caveat.
#[derive(Debug, clap::Args)]
pub struct Limits {
    /// Only these accounts may be debited or read; a name may end with *
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub account: Vec<String>,
    /// Only these accounts may be credited; a name may end with *
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub to: Vec<String>,
    /// Only these assets
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub asset: Vec<String>,
    /// Most minor units in one request
    #[arg(long, value_name = "N")]
    pub max_amount: Option<u128>,
    /// Most minor units debited in one UTC day
    #[arg(long, value_name = "N")]
    pub daily_ceiling: Option<u128>,
    /// Most minor units debited in all, ever, over all accounts and assets
    #[arg(long, value_name = "N")]
    pub budget: Option<u128>,
    /// Only idempotency keys of this form; may end with *
    #[arg(long, value_name = "PREFIX*")]
    pub idem: Option<String>,
    /// Not valid before this time, RFC 3339 such as 2027-01-15T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
}

impl Limits {
    /// A request with these limits, and with nothing else.
    pub fn request(&self) -> MintRequest {
        MintRequest {
            accounts: self.account.clone(),
            to: self.to.clone(),
            assets: self.asset.clone(),
            max_amount: self.max_amount,
            daily_ceiling: self.daily_ceiling,
            budget: self.budget,
            idem: self.idem.clone(),
            not_before: self.not_before.clone(),
            ..MintRequest::default()
        }
    }
}
