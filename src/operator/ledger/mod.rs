//! `ronctl ledger`: the ledger's files, read and never written.
pub mod verify;

use super::context::Context;
use super::exit::{Exit, Failure};

/// What can be done with a ledger.
#[derive(Debug, clap::Subcommand)]
pub enum Ledger {
    /// Replay the whole ledger and check every hash, number, nonce and balance
    Verify(verify::Verify),
}

impl Ledger {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Ledger::Verify(command) => command.run(context),
        }
    }
}
