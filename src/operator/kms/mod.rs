//! `ronctl kms`: the keyring in custody. Shows its posture, and changes it while servers run.
//!
//! What is changed is a file, or the memory of a server under amnesia; a server that has the file open notices within a second. A fresh
//! key signs only after the server has learnt of it, so that no token is refused in between.
pub mod export;
mod posture;
pub mod retire;
pub mod rotate;
pub mod seal;
pub mod status;

use std::time::{Duration, Instant};

use super::client::{ClientError, Request};
use super::context::Context;
use super::exit::{Exit, Failure};
use crate::access::{Keyring, KeyringFault};
use crate::config::Config;

/// How long a server may take to notice a changed keyring; it looks four times a second, and opening one takes its time.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// Pause between two questions whether it has.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// What can be done with the keyring.
#[derive(Debug, clap::Subcommand)]
pub enum Kms {
    /// Show how the keyring is kept and which keys are on it, and check what is expected of it
    Status(status::Status),
    /// Add a fresh key and let it sign; the keys before it stay valid until they are retired
    Rotate(rotate::Rotate),
    /// Take a key out: nothing that it has signed is valid any more
    Retire(retire::Retire),
    /// Print the public keys that signatures are checked with
    Export(export::Export),
    /// Write the same keys again, sealed with the key that security.kms leads to, or with another one
    Seal(seal::Seal),
}

impl Kms {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Kms::Status(command) => command.run(context),
            Kms::Rotate(command) => command.run(context),
            Kms::Retire(_) | Kms::Seal(_) if context.config()?.security.amnesia => Err(Failure::usage(
                "under security.amnesia there is no file of keys to work on: they are in the memory of the server alone",
                "a key goes out with the second `ronctl kms rotate` after it, or with a restart",
            )),
            Kms::Retire(command) => command.run(context),
            Kms::Export(command) => command.run(context),
            Kms::Seal(command) => command.run(context),
        }
    }
}

/// What a running server says of its keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It has a keyring with this serial number.
    Version(u64),
    /// None answers.
    Nobody,
}

impl Served {
    fn ask(context: &Context, config: &Config) -> Result<Self, Failure> {
        match context.metrics(config).exchange(&Request::get("/version")) {
            Ok(reply) => reply.json()["keyring_version"].as_u64().map(Served::Version).ok_or_else(|| {
                Failure::internal(
                    format!("the server at {} does not say which keyring it has", config.bind.metrics),
                    "check bind.metrics; a server of an earlier version has to be restarted with this one",
                )
            }),
            Err(ClientError::Connect { .. }) => Ok(Served::Nobody),
            Err(fault) => Err(super::context::unreachable(&fault)),
        }
    }

    /// As people read it.
    fn shown(self) -> String {
        match self {
            Served::Version(version) => format!("has version {version}"),
            Served::Nobody => "none answers".to_owned(),
        }
    }
}

/// Waits until the server of this configuration has the keyring in force. If there is none, nobody has to wait.
fn wait_until_served(context: &Context, config: &Config, keyring: &Keyring) -> Result<Served, Failure> {
    let began = Instant::now();
    loop {
        let served = Served::ask(context, config)?;
        match served {
            Served::Nobody => return Ok(served),
            Served::Version(version) if version == keyring.serial() => return Ok(served),
            Served::Version(_) if began.elapsed() < NOTICED_WITHIN => std::thread::sleep(ASKED_EVERY),
            Served::Version(version) => return Err(Failure::internal(
                format!(
                    "the server has not taken version {} of the keyring within {} s, it has {version}",
                    keyring.serial(),
                    NOTICED_WITHIN.as_secs()
                ),
                "see keyring_reload_failed in its log; the keys that were there are still valid, and the command can be repeated",
            )),
        }
    }
}

/// A keyring that cannot be had or changed, with the exit code that belongs to it.
fn failure(fault: &KeyringFault) -> Failure {
    match fault {
        KeyringFault::Missing { .. } | KeyringFault::NotAFile { .. } | KeyringFault::Exposed { .. } => {
            Failure::usage(fault.to_string(), "")
        }
        KeyringFault::Malformed { .. }
        | KeyringFault::Kms { .. }
        | KeyringFault::Earlier { .. }
        | KeyringFault::Unchangeable { .. } => Failure::usage(fault.to_string(), ""),
        KeyringFault::Unreadable { .. } | KeyringFault::Uncreatable { .. } => Failure::internal(fault.to_string(), ""),
    }
}
