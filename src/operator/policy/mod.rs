//! `ronctl policy`: the rules that bind everybody. Checks a file before it is taken, shows what is in force, and puts the file in force.
pub mod check;
pub mod compare;
pub mod reload;
#[cfg(test)]
mod schema_tests;
pub mod show;

use super::client::Request;
use super::context::Context;
use super::exit::{Exit, Failure};
use crate::config::Config;
use crate::control::Page;
use serde_json::Value;

/// What can be done with the policy.
#[derive(Debug, clap::Subcommand)]
pub enum Policy {
    /// Read a policy file as the server would, and tell what it would change
    Check(check::Check),
    /// Show the policy in force
    Show(show::Show),
    /// Let the server read its policy file again
    Reload(reload::Reload),
}

impl Policy {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Policy::Check(command) => command.run(context),
            Policy::Show(command) => command.run(context),
            Policy::Reload(command) => command.run(context),
        }
    }
}

/// What the server says of the policy in force: the file, when it was read, and the whole of it.
struct InForce {
    file: String,
    loaded_ms: u64,
    policy: Value,
}

impl InForce {
    /// Asks on the admin socket.
    fn ask(context: &Context, config: &Config) -> Result<Self, Failure> {
        let mut client = context.admin(config).ok_or_else(|| {
            Failure::usage(
                "the policy in force is told on the admin socket, and the configuration has none",
                "set bind.admin, and start the server again",
            )
        })?;
        let reply = context.exchange(&mut client, &Request::get(Page::Policy.path()))?;
        Self::of(&reply.json())
            .ok_or_else(|| Failure::internal("the server does not tell its policy", "use a ronctl of the version of the server"))
    }

    fn of(told: &Value) -> Option<Self> {
        let (file, loaded_ms) = (told["file"].as_str()?.to_owned(), told["loaded_ms"].as_u64()?);
        told["policy"].is_object().then(|| Self { file, loaded_ms, policy: told["policy"].clone() })
    }

    fn version(&self) -> u64 {
        self.policy["version"].as_u64().unwrap_or_default()
    }
}
