//! The file of public keys that somebody trusts: `ronctl kms export` writes it, what verifies reads it.
//!
//! ```json
//! {"version": 1, "keys": [{"id": "k-3f9a01c2", "ed25519": "<32 bytes, base64>", "ml_dsa_65": "<1952 bytes, base64>"}]}
//! ```
//!
//! A key without `ml_dsa_65` is not hybrid. Nothing in it is secret; that it is the right one is for whoever keeps it to see to.
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde::{Deserialize, Serialize};

use super::exit::Failure;
use super::output::printable;
use crate::access::{PublicKey, WrittenFault, WrittenSignature};

/// Longest file that is read, in bytes.
const PUBLIC_KEYS_BYTES_MAX: u64 = 4 << 20;
const VERSION: u32 = 1;

/// Public keys, none of them twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicKeys {
    keys: Vec<PublicKey>,
    /// Whether signatures of the others prove nothing.
    hybrid_alone: bool,
}

/// The keys that a command checks signatures with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// Check signatures with these public keys, as `ronctl kms export --out FILE` has written them
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// What has to be signed has to be signed by a hybrid key: signatures by Ed25519 alone prove nothing
    #[arg(long, value_name = "hybrid=on", value_parser = expected, requires = "keys")]
    pub expect: Option<()>,
}

fn expected(text: &str) -> Result<(), String> {
    (text == "hybrid=on").then_some(()).ok_or_else(|| "write hybrid=on, or leave it out".to_owned())
}

impl Trust {
    /// The keys; none if no file is named.
    ///
    /// # Errors
    /// If the file cannot be read, or is none of public keys.
    pub fn read(&self) -> Result<Option<PublicKeys>, Failure> {
        let keys = self.keys.as_deref().map(read).transpose()?;
        Ok(keys.map(|keys| PublicKeys { hybrid_alone: self.expect.is_some(), ..keys }))
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    keys: Vec<WrittenKey>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    id: String,
    ed25519: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ml_dsa_65: Option<String>,
}

impl WrittenKey {
    fn read(&self) -> Result<PublicKey, String> {
        public_key(&self.id, &self.ed25519, self.ml_dsa_65.as_deref())
    }
}

/// A public key from its halves in base64.
///
/// # Errors
/// If one is not base64 of its length.
pub fn public_key(id: &str, ed25519: &str, ml_dsa_65: Option<&str>) -> Result<PublicKey, String> {
    let wrong = || format!("a public key of {} is not base64 of its length", printable(id));
    let ed25519 = STANDARD.decode(ed25519).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    let ml_dsa_65 = ml_dsa_65.map(|text| {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.into_boxed_slice().try_into().ok());
        bytes.ok_or_else(wrong)
    });
    Ok(PublicKey { id: id.to_owned(), ed25519, ml_dsa_65: ml_dsa_65.transpose()? })
}

impl PublicKeys {
    /// These keys, which are those of one keyring.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys, hybrid_alone: false }
    }

    /// Adds keys that are not there, and returns how many these were.
    ///
    /// # Errors
    /// The id of a key that is there with other public keys: ids are never used again.
    pub fn add(&mut self, keys: Vec<PublicKey>) -> Result<usize, String> {
        let before = self.keys.len();
        for key in keys {
            match self.find(&key.id) {
                None => self.keys.push(key),
                Some(known) if *known == key => {}
                Some(_) => return Err(key.id),
            }
        }
        Ok(self.keys.len() - before)
    }

    /// The key of this id.
    pub fn find(&self, id: &str) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Checks a signature with the key that it names. Returns whether it proves anything: not where a hybrid one is expected and the key is
    /// none, because whoever breaks Ed25519 can sign with an old classical key.
    ///
    /// # Errors
    /// That the key is not here, or what `verify` says.
    pub fn check(
        &self,
        signature: &WrittenSignature,
        verify: impl FnOnce(&PublicKey) -> Result<(), WrittenFault>,
    ) -> Result<bool, String> {
        let key = self.find(&signature.key);
        let key = key.ok_or_else(|| format!("the public keys that were given have none of key {}", printable(&signature.key)))?;
        verify(key).map_err(|fault| format!("by key {}: {fault}", key.id))?;
        Ok(key.is_hybrid() || !self.hybrid_alone)
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let written = |key: &PublicKey| WrittenKey {
            id: key.id.clone(),
            ed25519: STANDARD.encode(key.ed25519),
            ml_dsa_65: key.ml_dsa_65.as_ref().map(|public| STANDARD.encode(&public[..])),
        };
        let written = Written { version: VERSION, keys: self.keys.iter().map(written).collect() };
        serde_json::to_string_pretty(&written).expect("it has only texts and numbers") + "\n"
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(text).map_err(|fault| fault.to_string())?;
        if written.version != VERSION {
            return Err(format!("version {} is not known; this build reads version {VERSION}", written.version));
        }
        let mut keys = Self::default();
        for key in written.keys {
            let key = key.read()?;
            if keys.find(&key.id).is_some() {
                return Err(format!("key {} is there twice", key.id));
            }
            keys.keys.push(key);
        }
        Ok(keys)
    }
}

/// Reads such a file.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn read(file: &Path) -> Result<PublicKeys, Failure> {
    let wrong = |what: String| {
        Failure::usage(format!("{}: {what}", file.display()), "give a file that `ronctl kms export --out FILE` has written")
    };
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).and_then(|file| file.take(PUBLIC_KEYS_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|fault| wrong(format!("cannot be read: {fault}")))?;
    if bytes.len() as u64 > PUBLIC_KEYS_BYTES_MAX {
        return Err(wrong(format!("is longer than {PUBLIC_KEYS_BYTES_MAX} bytes")));
    }
    PublicKeys::parse(&bytes).map_err(|what| wrong(format!("this is no file of public keys: {what}")))
}

/// What must hold of files of public keys, and of the proofs that are checked with them, whatever is in them; `src/fuzzing.rs` feeds it.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::*;
    use crate::api::proof::ProofBody;
    use crate::ledger::history::verify_inclusion;

    const PROOF: &str = include_str!("../../tests/vectors/history.json");

    /// What is read is written and read again the same, and a proof that holds is the one of the seeds, whatever its signatures say.
    pub(crate) fn keys_and_proofs(input: &[u8]) {
        if let Ok(keys) = PublicKeys::parse(input) {
            assert_eq!(PublicKeys::parse(keys.text().as_bytes()), Ok(keys));
        }
        let Some(proof) = serde_json::from_slice::<ProofBody>(input).ok().and_then(|body| body.read().ok()) else { return };
        if verify_inclusion(&proof).is_ok() {
            let again = serde_json::to_vec(&ProofBody::from(&proof)).expect("texts and numbers are JSON");
            let again = serde_json::from_slice::<ProofBody>(&again).ok().and_then(|body| body.read().ok());
            assert_eq!(again.as_ref(), Some(&proof));
        }
    }

    /// Inputs from which a fuzzer of [`keys_and_proofs`] begins.
    pub(crate) fn keys_and_proofs_seeds() -> Vec<Vec<u8>> {
        let key = |id: &str, hybrid: bool| PublicKey {
            id: id.to_owned(),
            ed25519: [7; 32],
            ml_dsa_65: hybrid.then(|| Box::new([9; 1952])),
        };
        let keys = [vec![key("k-1", false)], vec![key("k-2", true), key("k-1", false)]];
        let keys = keys.map(|keys| PublicKeys::new(keys).text().into_bytes());
        let vectors: serde_json::Value = serde_json::from_str(PROOF).expect("the vectors are JSON");
        let proofs = vectors["proofs"].as_array().expect("a list").iter().take(2);
        keys.into_iter().chain(proofs.map(|proof| proof.to_string().into_bytes())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, fill: u8, hybrid: bool) -> PublicKey {
        PublicKey { id: id.to_owned(), ed25519: [fill; 32], ml_dsa_65: hybrid.then(|| Box::new([fill; 1952])) }
    }

    #[test]
    fn keys_are_read_as_they_were_written_and_never_replaced() {
        let mut keys = PublicKeys::new(vec![key("k-1", 1, false), key("k-2", 2, true)]);
        assert_eq!(PublicKeys::parse(keys.text().as_bytes()), Ok(keys.clone()));
        assert_eq!(keys.add(vec![key("k-2", 2, true), key("k-3", 3, true)]), Ok(1));
        assert_eq!(PublicKeys::parse(keys.text().as_bytes()), Ok(keys.clone()));
        for other in [key("k-2", 9, true), key("k-2", 2, false)] {
            assert_eq!(keys.add(vec![other]), Err("k-2".to_owned()));
        }
        let short = STANDARD.encode([1; 31]);
        for bad in [
            "{}".to_owned(),
            r#"{"version":2,"keys":[]}"#.to_owned(),
            format!(r#"{{"version":1,"keys":[{{"id":"k","ed25519":"{short}"}}]}}"#),
            keys.text().replace("k-1", "k-2"),
            keys.text().replacen("ml_dsa_65\": \"", "ml_dsa_65\": \"A", 1),
        ] {
            assert!(PublicKeys::parse(bad.as_bytes()).is_err(), "{bad:.100}");
        }
    }
}
