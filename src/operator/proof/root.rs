//! `ronctl proof root`: the current root of the history.
use super::keep;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::wallet::{ask, Authority};
use std::path::PathBuf;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl proof root
  ronctl proof root --out root.json

Keep the root where the operator of the server cannot change it: with it every earlier receipt and every later root can be checked.")]
pub struct Root {
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    authority: Authority,
}

impl Root {
    /// Asks and keeps the answer.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let reply = ask(context, &self.authority, "/v1/ledger/root", None)?;
        keep(&context.output, &reply, self.out.as_deref())
    }
}
