//! `ronctl cap attenuate`: narrows a capability that one holds. Needs neither server nor keyring nor configuration.
//!
//! The token comes from a file or from standard input, never from the command line, which every user of the machine can read.
use std::path::PathBuf;
use std::time::Duration;

use super::limits::Limits;
use super::{mint, token};
use crate::access::{attenuate, MintRequest};
use crate::operator::context::{mint_failure, Context};
use crate::operator::exit::{Exit, Failure};
use crate::worker::unix_now;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl cap attenuate --token-file alice.token --scopes wallet:read --ttl 10m
  ronctl cap attenuate --token-file alice.token --to svc:storage --max-amount 500 > storage.token
  ronctl cap mint --subject alice --scopes 'wallet:*' --ttl 8h | ronctl cap attenuate --caveat 'asset = roc'

The narrower token keeps the token id: what limits or revokes the one does so to the other. The signature is not checked, which only the
server can do. Discharges of third parties have to be bound to the narrower token.")]
pub struct Attenuate {
    /// File with the token, or - for standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub token_file: PathBuf,
    /// Only these of what it allows: a list of wallet:issue, transfer, spend, burn, hold, capture, release, read
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// For no longer than this from now on, such as 900s, 15m or 8h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,
    /// A caveat as it stands in the token; may be given more than once
    #[arg(long, value_name = "NAME = VALUE")]
    pub caveat: Vec<String>,
}

impl Attenuate {
    /// Makes the narrower token and prints it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(Failure::usage("--ttl is at least 1s", ""));
        }
        let token = token::read(&self.token_file)?;
        let request = MintRequest { scopes: self.scopes.clone(), ttl: self.ttl.unwrap_or_default(), ..self.limits.request() };
        let narrower = attenuate(token.trim(), &request, &self.caveat, unix_now()).map_err(|fault| mint_failure(&fault))?;
        mint::print(context, &narrower)
    }
}
