//! `ronctl wallet totals`: what was issued and burned of an asset, and what all accounts have of it.
use super::{answer, ask, Authority};
use crate::operator::client::percent_encoded;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl wallet totals --asset roc
  ronctl --json wallet totals --asset roc

The sums are those of the audit, after the entry that is named: in accounts is issued less burned, held value included. They are over
all accounts, so a token of your own must not be narrowed to some. Amounts are in minor units.")]
pub struct Totals {
    /// Asset to ask for, such as roc
    #[arg(long)]
    pub asset: String,
    #[command(flatten)]
    authority: Authority,
}

const NAMES: [(&str, &str); 5] = [
    ("issued_minor", "issued"),
    ("burned_minor", "burned"),
    ("in_accounts_minor", "in accounts"),
    ("held_minor_units", "of it held"),
    ("as_of_height", "as of entry"),
];

impl Totals {
    /// Asks and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        if self.asset.is_empty() {
            return Err(Failure::usage("the name of the asset is empty", "name one with --asset, such as roc"));
        }
        let target = format!("/v1/assets/{}/totals", percent_encoded(&self.asset));
        answer(&context.output, &ask(context, &self.authority, &target, None)?, &NAMES)
    }
}
