//! `ronctl dto`: what goes over the wire, held against what was written down about it.
mod difference;
mod errors;
mod lint;
mod probes;
mod product;
mod replies;
mod requests;
pub(super) mod schema;
mod vectors;

pub use difference::{Difference, Report};
pub use lint::{lint, Copies, Fault, Lint};
pub use vectors::Vectors;

use super::context::Context;
use super::exit::{Exit, Failure};

/// What can be done with the shapes of requests and replies.
#[derive(Debug, clap::Subcommand)]
pub enum Dto {
    /// Hold what this version reads and writes against the OpenAPI document and the golden vectors
    Lint(Lint),
}

impl Dto {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Dto::Lint(command) => command.run(context),
        }
    }
}
