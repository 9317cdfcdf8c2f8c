//! How a keyring is kept and which keys are on it, whether it is in a file or in the memory of a server alone.
use serde::Deserialize;

use super::failure;
use crate::access::{Keyring, Sealing};
use crate::config::Config;
use crate::control::{custody, Action};
use crate::domain::UnixMs;
use crate::operator::context::Context;
use crate::operator::exit::Failure;

/// What the configuration key is said to be under amnesia, where nothing has to be opened.
const MEMORY: &str = "memory";

/// What is shown, and can be expected, of a keyring.
pub struct Posture {
    /// Where it is.
    pub place: String,
    /// Where the key is that opens it.
    pub kms: String,
    /// Whether everything about it is hybrid.
    pub hybrid: bool,
    /// Whether it is sealed, or nowhere to be read.
    pub sealed: bool,
    /// The id of the key that signs.
    pub active: String,
    /// Its serial number.
    pub version: u64,
    /// The keys on it.
    pub keys: Vec<Key>,
}

/// One key.
#[derive(Deserialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Whether it is hybrid.
    pub hybrid: bool,
    /// When it was made, if that is known, in Unix milliseconds.
    pub created: Option<u64>,
}

/// What a server tells that has it in memory.
#[derive(Deserialize)]
struct Told {
    active: String,
    hybrid: bool,
    version: u64,
    keys: Vec<Key>,
}

impl Posture {
    /// That of the keyring of this configuration.
    pub fn of(context: &Context, config: &Config) -> Result<Self, Failure> {
        if config.security.amnesia {
            return Self::in_memory(context, config, "{}");
        }
        let keyring = custody(&config.security).open().map_err(|fault| failure(&fault))?;
        Ok(Self::in_file(&keyring, config))
    }

    /// That after a fresh key signs on the keyring of a server that has it in memory.
    pub fn rotated_in_memory(context: &Context, config: &Config, hybrid: Option<bool>) -> Result<Self, Failure> {
        Self::in_memory(context, config, &serde_json::json!({"rotate": {"hybrid": hybrid}}).to_string())
    }

    fn in_file(keyring: &Keyring, config: &Config) -> Self {
        let key = |key: &crate::access::KeyEntry| Key {
            id: key.id.to_string(),
            hybrid: key.hybrid,
            created: key.created.map(|UnixMs(created)| created),
        };
        Self {
            place: config.security.keyring.display().to_string(),
            kms: config.security.kms.to_string(),
            hybrid: keyring.is_hybrid() && keyring.sealing() == Sealing::Hybrid,
            sealed: keyring.sealing() != Sealing::Clear,
            active: keyring.active_id().to_owned(),
            version: keyring.serial(),
            keys: keyring.keys().iter().map(key).collect(),
        }
    }

    fn in_memory(context: &Context, config: &Config, body: &str) -> Result<Self, Failure> {
        let told = context.ask_server(config, Action::Keys, body)?;
        let Told { active, hybrid, version, keys } = serde_json::from_value(told).map_err(|error| {
            Failure::internal(format!("the server does not tell its keys: {error}"), "use a ronctl of the version of the server")
        })?;
        let place = "(in the memory of the server)".to_owned();
        Ok(Self { place, kms: MEMORY.to_owned(), hybrid, sealed: true, active, version, keys })
    }
}
