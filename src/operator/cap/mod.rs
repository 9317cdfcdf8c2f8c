//! `ronctl cap`: capabilities, made from the keyring, narrowed and read by anyone, revoked by the operator.
pub mod attenuate;
pub mod inspect;
pub mod limits;
pub mod mint;
pub mod revoke;
mod token;

use super::context::Context;
use super::exit::{Exit, Failure};

/// What can be done with capabilities.
#[derive(Debug, clap::Subcommand)]
pub enum Cap {
    /// Make a capability and print it alone on standard output
    Mint(mint::Mint),
    /// Show what a capability says about itself, without checking its signature
    Inspect(inspect::Inspect),
    /// Narrow a capability that one holds, offline and without a key
    Attenuate(attenuate::Attenuate),
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
            Cap::Attenuate(command) => command.run(context),
            Cap::Revoke(command) => command.run(context),
            Cap::Revocations(command) => command.run(context),
        }
    }
}
