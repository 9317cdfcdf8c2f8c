//! `ronctl kms seal`: the same keys, sealed anew.
use serde_json::json;

use super::{failure, wait_until_served};
use crate::config::Kms;
use crate::control::{custody, custody_under};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl kms seal
  ronctl kms seal --under file:/etc/ron/wallet.key
  ronctl kms seal --under env:NEW_PASSPHRASE

Seals a keyring that is in the clear form of earlier versions, or seals it with another key, and changes nothing else. If the key is to be
in a file that is not there, a fresh one is made: keep a copy of that file apart from the keyring.")]
pub struct Seal {
    /// What is to open it from now on, as security.kms says it, and has to say it then; without it, what opens it now
    #[arg(long, value_name = "KMS")]
    under: Option<Kms>,
}

impl Seal {
    /// Writes the keyring.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let now = custody(&config.security);
        let under = self.under.as_ref().map(|kms| custody_under(&config.security, kms));
        let keyring = now.seal(under.as_ref().unwrap_or(&now)).map_err(|fault| failure(&fault))?;
        let kms = under.as_ref().unwrap_or(&now).kms();
        if self.under.is_none() {
            wait_until_served(context, &config, &keyring)?;
        }
        if context.output.json {
            context.output.value(&json!({"sealed": true, "kms": kms.to_string(), "version": keyring.serial()}))?;
            return Ok(Exit::Done);
        }
        context.output.line(&format!("sealed with {kms}; the keyring has version {}", keyring.serial()))?;
        if let Some(under) = &self.under {
            context.output.line(&format!("next: set security.kms to \"{under}\" and restart the servers"))?;
        }
        Ok(Exit::Done)
    }
}
