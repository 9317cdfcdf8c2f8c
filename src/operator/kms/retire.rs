//! `ronctl kms retire`: a key is taken out, and with it everything that it has signed.
use serde_json::json;

use super::{failure, wait_until_served, Served};
use crate::control::custody;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl kms retire k-3f9a01c2

Tokens of the key are refused from then on, within a second, also those that were verified before. Retire it once the longest lifetime of
its tokens has passed since the rotation; at once, if somebody else may have it. The active key cannot be retired.")]
pub struct Retire {
    /// The key, as `ronctl kms status` lists it
    #[arg(value_name = "KEY_ID")]
    key: String,
}

impl Retire {
    /// Changes the keyring.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let keyring = custody(&config.security).retire(&self.key).map_err(|fault| failure(&fault))?;
        let served = wait_until_served(context, &config, &keyring)?;
        if context.output.json {
            context.output.value(&json!({"retired": self.key, "active": keyring.active_id(), "version": keyring.serial()}))?;
            return Ok(Exit::Done);
        }
        context.output.line(&format!("key {} is retired; the keyring has version {}", self.key, keyring.serial()))?;
        if served == Served::Nobody {
            context.output.hint("no server answers; one that starts reads this keyring");
        }
        Ok(Exit::Done)
    }
}
