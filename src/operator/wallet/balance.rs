//! `ronctl wallet balance`: how much of an asset an account has, durable value only.
use super::{answer, ask, Authority};
use crate::operator::client::percent_encoded;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl wallet balance --account alice --asset roc
  ronctl --json wallet balance --account escrow:order-7 --asset roc

An account that was never used has 0. Amounts are in minor units.")]
pub struct Balance {
    /// Account to ask for
    #[arg(long)]
    pub account: String,
    /// Asset to ask for, such as roc
    #[arg(long)]
    pub asset: String,
    #[command(flatten)]
    authority: Authority,
}

impl Balance {
    /// Asks and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let target = format!("/v1/balance?account={}&asset={}", percent_encoded(&self.account), percent_encoded(&self.asset));
        let reply = ask(context, &self.authority, &target, Some(&self.account))?;
        let names = [
            ("amount_minor", "amount"),
            ("held_minor_units", "of it held"),
            ("as_of_height", "as of entry"),
            ("as_of", "as of time"),
            ("stale_ms", "stale by ms"),
        ];
        answer(&context.output, &reply, &names)
    }
}
