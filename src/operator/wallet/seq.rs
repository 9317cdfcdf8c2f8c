//! `ronctl wallet seq`: how far the debits of an account have come; what to tell a client that gets 409 (runbook, section 6).
use super::{answer, ask, remark, Authority};
use crate::operator::client::percent_encoded;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl wallet seq --account alice
  ronctl --json wallet seq --account alice

A client that was refused with NONCE_CONFLICT resends with the next nonce and a new idempotency key;
one that never saw a reply repeats its request unchanged, which is always safe.")]
pub struct Seq {
    /// Account to ask for
    #[arg(long)]
    pub account: String,
    #[command(flatten)]
    authority: Authority,
}

const NAMES: [(&str, &str); 3] = [("last_nonce", "last confirmed nonce"), ("next_nonce", "next nonce"), ("as_of", "as of time")];

impl Seq {
    /// Asks and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let target = format!("/v1/seq?account={}", percent_encoded(&self.account));
        let reply = ask(context, &self.authority, &target, Some(&self.account))?;
        let exit = answer(&context.output, &reply, &NAMES)?;
        remark(&context.output, "The next debit of this account carries the next nonce, with an idempotency key of its own.")?;
        Ok(exit)
    }
}
