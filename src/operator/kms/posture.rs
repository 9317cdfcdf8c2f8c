//! How a keyring is kept and which keys are on it, whether it is in a file or in the memory of a server alone.
use serde::Deserialize;

use super::failure;
use crate::access::{Keyring, PublicKey, Sealing};
use crate::config::Config;
use crate::control::{custody, Action};
use crate::domain::UnixMs;
use crate::operator::context::Context;
use crate::operator::exit::Failure;
use crate::operator::public_keys::public_key;

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

/// The public halves of its keys, which it tells with them.
#[derive(Deserialize)]
struct ToldPublic {
    keys: Vec<PublicHalves>,
}

#[derive(Deserialize)]
struct PublicHalves {
    id: String,
    ed25519: String,
    ml_dsa_65: Option<String>,
}

/// The public keys of the keyring of this configuration, in a file or in the memory of a server.
pub fn public_keys(context: &Context, config: &Config) -> Result<Vec<PublicKey>, Failure> {
    if !config.security.amnesia {
        let keyring = custody(&config.security).open().map_err(|fault| failure(&fault))?;
        return keyring.public_keys().map_err(|fault| Failure::internal(fault.to_string(), "try again"));
    }
    let ToldPublic { keys } = told(context, config, "{}")?;
    let keys = keys.iter().map(|key| public_key(&key.id, &key.ed25519, key.ml_dsa_65.as_deref()));
    keys.collect::<Result<_, _>>().map_err(not_told)
}

/// What the server that has the keys answers about them.
fn told<T: serde::de::DeserializeOwned>(context: &Context, config: &Config, body: &str) -> Result<T, Failure> {
    serde_json::from_value(context.ask_server(config, Action::Keys, body)?).map_err(not_told)
}

fn not_told(fault: impl std::fmt::Display) -> Failure {
    Failure::internal(format!("the server does not tell its keys: {fault}"), "use a ronctl of the version of the server")
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
        let Told { active, hybrid, version, keys } = told(context, config, body)?;
        let place = "(in the memory of the server)".to_owned();
        Ok(Self { place, kms: MEMORY.to_owned(), hybrid, sealed: true, active, version, keys })
    }
}
