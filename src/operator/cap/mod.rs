//! `ronctl cap`: capabilities, made from the keyring, read by anyone, revoked by the operator.
pub mod inspect;
pub mod mint;
pub mod revoke;

use super::context::Context;
use super::exit::{Exit, Failure};

/// What can be done with capabilities.
#[derive(Debug, clap::Subcommand)]
pub enum Cap {
    /// Make a capability and print it alone on standard output
    Mint(mint::Mint),
    /// Show what a capability says about itself, without checking its signature
    Inspect(inspect::Inspect),
    /// Refuse a capability, all of a subject or all of a key from now on, or take that back
    Revoke(revoke::Revoke),
    /// Show what is revoked
    Revocations(revoke::List),
}

impl Cap {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Cap::Mint(command) => command.run(context),
            Cap::Inspect(command) => command.run(context),
            Cap::Revoke(command) => command.run(context),
            Cap::Revocations(command) => command.run(context),
        }
    }
}
