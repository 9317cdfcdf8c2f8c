//! `ronctl kms rotate`: a fresh key signs from now on.
//!
//! In two steps, so that a token of the fresh key is known wherever it is shown: the key is added; once the server has it, it becomes the
//! active one.
use serde_json::json;

use super::posture::Posture;
use super::{failure, wait_until_served, Served};
use crate::config::Config;
use crate::control::custody;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl kms rotate
  ronctl kms rotate --hybrid on
  ronctl --json kms rotate

With --hybrid on the fresh key signs with Ed25519 and ML-DSA-65, and the keyring is sealed with X25519 and ML-KEM-768 beside the opening key;
with off neither. Servers go on serving, and no valid token is refused: the keys before stay on the keyring until `ronctl kms retire KEY_ID`. A clear
keyring is sealed by it. Rotate where the keyring is; copies of it on other machines have to be brought there, by two copies: see
RUNBOOK.md, Rotate the keys. Under security.amnesia the server is asked on its admin socket, and the key before stays valid until the next
rotation.")]
pub struct Rotate {
    /// Whether the fresh key is hybrid; otherwise it is as the active one is
    #[arg(long, value_name = "on|off", value_parser = switch, conflicts_with = "activate")]
    hybrid: Option<bool>,
    /// Only add the key; let it sign with a second `ronctl kms rotate --activate KEY_ID`, once every copy of the keyring has it
    #[arg(long, conflicts_with = "activate")]
    add_only: bool,
    /// Only let this key sign, which is on the keyring already
    #[arg(long, value_name = "KEY_ID")]
    activate: Option<String>,
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

impl Rotate {
    /// Changes the keyring.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        if config.security.amnesia {
            return self.in_memory(context, &config);
        }
        let custody = custody(&config.security);
        let mut outcome = None;
        let id = match &self.activate {
            Some(id) => id.as_str().into(),
            None => {
                let (keyring, id) = custody.add_key(self.hybrid).map_err(|fault| failure(&fault))?;
                let served = wait_until_served(context, &config, &keyring)?;
                outcome = Some((keyring, served));
                id
            }
        };
        if !self.add_only {
            let keyring = custody.activate(&id).map_err(|fault| failure(&fault))?;
            let served = wait_until_served(context, &config, &keyring)?;
            outcome = Some((keyring, served));
        }
        let (keyring, served) = outcome.expect("--activate and --add-only exclude each other");
        if context.output.json {
            context.output.value(
                &json!({"key": id, "active": keyring.active_id(), "hybrid": keyring.is_hybrid(), "version": keyring.serial()}),
            )?;
            return Ok(Exit::Done);
        }
        let what = if keyring.active_id() == &*id { "signs from now on" } else { "is on the keyring and does not sign yet" };
        context.output.line(&format!("key {id} {what}; the keyring has version {}", keyring.serial()))?;
        if served == Served::Nobody {
            context.output.hint("no server answers; one that starts reads this keyring");
        }
        Ok(Exit::Done)
    }

    /// One server has the keyring, and does it in one step. What the key before has signed is valid until the next rotation.
    fn in_memory(&self, context: &Context, config: &Config) -> Result<Exit, Failure> {
        if self.add_only || self.activate.is_some() {
            return Err(Failure::usage(
                "under security.amnesia one server alone has the keys, and takes a fresh one in one step",
                "",
            ));
        }
        let Posture { active, hybrid, version, .. } = Posture::rotated_in_memory(context, config, self.hybrid)?;
        if context.output.json {
            context.output.value(&json!({"key": active, "active": active, "hybrid": hybrid, "version": version}))?;
            return Ok(Exit::Done);
        }
        context.output.line(&format!("key {active} signs from now on; the keyring has version {version}"))?;
        Ok(Exit::Done)
    }
}
