//! `ronctl cap`: capabilities, made from the keyring and read by anyone.
pub mod inspect;
pub mod mint;

use super::context::Context;
use super::exit::{Exit, Failure};

/// What can be done with capabilities.
#[derive(Debug, clap::Subcommand)]
pub enum Cap {
    /// Make a capability and print it alone on standard output
    Mint(mint::Mint),
    /// Show what a capability says about itself, without checking its signature
    Inspect(inspect::Inspect),
}

impl Cap {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Cap::Mint(command) => command.run(context),
            Cap::Inspect(command) => command.run(context),
        }
    }
}
