//! `ronctl cap mint`: makes a capability with the active key of the server's keyring (runbook, section 6).
//!
//! Standard output gets the token and nothing else, so that `TOKEN=$(ronctl cap mint ...)` works. A keyring that is not there
//! yet is made, exactly as the server makes it on its first start, so that tokens can be minted before. Under amnesia the server is asked,
//! which alone has the keys.
use std::time::Duration;

use serde_json::json;

use super::limits::Limits;
use crate::access::{inspect, MintRequest};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl cap mint --subject alice --scopes 'wallet:*' --ttl 900s
  ronctl cap mint --subject till-3 --scopes wallet:spend,wallet:read --ttl 8h --account 'till:3*' --max-amount 5000
  ronctl cap mint --subject campaign --scopes wallet:spend --ttl 30d --account 'fund:*' --budget 1000000
  TOKEN=$(ronctl cap mint --subject auditor --scopes wallet:read --ttl 15m)

Whoever holds the token can narrow it further offline, with `ronctl cap attenuate`; nobody can widen it.")]
pub struct Mint {
    /// For whom the capability is; shown in logs and in the audit trail
    #[arg(long, value_name = "USER")]
    pub subject: String,
    /// What it allows: wallet:* or a list of wallet:issue, transfer, spend, burn, hold, capture, release, read
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    pub scopes: Vec<String>,
    /// How long it is valid, such as 900s, 15m or 8h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,
}

impl Mint {
    /// Makes the token and prints it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let request = self.request(&config.security.audience);
        let token = context.mint(&config, &request, |custody| {
            let opened = custody.open_or_create().map_err(|fault| Failure::usage(fault.to_string(), ""))?;
            Ok(opened.0)
        })?;
        print(context, &token)
    }

    fn request(&self, audience: &str) -> MintRequest {
        MintRequest {
            subject: self.subject.clone(),
            scopes: self.scopes.clone(),
            ttl: self.ttl,
            audience: audience.to_owned(),
            ..self.limits.request()
        }
    }
}

/// Prints a token that was made, alone on standard output.
pub(super) fn print(context: &Context, token: &str) -> Result<Exit, Failure> {
    let expires = inspect(token).and_then(|description| description.limits.expires);
    if context.output.json {
        context.output.value(&json!({"token": token, "expires": expires}))?;
        return Ok(Exit::Done);
    }
    context.output.line(token)?;
    let until = expires.map_or(String::new(), |expires| format!(" until {expires}"));
    context.output.hint(&format!("valid{until}; send it as: Authorization: Bearer TOKEN"));
    Ok(Exit::Done)
}
