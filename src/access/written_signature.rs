//! A signature as it is written in JSON, with the time at which it was made; and the kinds of what is signed for others.
//!
//! Signed is the message and behind it that time: Unix milliseconds, 8 bytes, little endian. Signatures are base64url without padding,
//! which has one spelling for each.
use super::keyring::{KeyUnusable, Keyring};
use super::signing::{PublicKey, Signature, SignatureFault};
use crate::domain::UnixMs;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use serde::{Deserialize, Serialize};

/// A root of the history: [`super::SignedRoot`].
pub const LEDGER_ROOT: &str = "ledger root";
/// A checkpoint of the audit stream.
pub const AUDIT_CHECKPOINT: &str = "audit checkpoint";

/// The signatures of one key on one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenSignature {
    /// The id of the key.
    pub key: String,
    /// When it was made, Unix milliseconds. It is signed as well.
    pub ts: u64,
    /// By Ed25519, base64url.
    pub ed25519: String,
    /// By ML-DSA-65, if the key is hybrid, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ml_dsa_65: Option<String>,
}

/// Why a written signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenFault {
    /// It is not base64url of its length.
    Spelling,
    /// It can be read, and does not fit.
    Signature(SignatureFault),
}

impl std::fmt::Display for WrittenFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WrittenFault::Spelling => f.write_str("a signature is not base64url without padding of its length"),
            WrittenFault::Signature(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for WrittenFault {}

fn timed(message: &[u8], ts: u64) -> Vec<u8> {
    [message, &ts.to_le_bytes()].concat()
}

impl WrittenSignature {
    /// Signs a message of this kind with the active key of the keyring.
    ///
    /// # Errors
    /// As [`Keyring::sign`].
    pub fn make(keyring: &Keyring, kind: &str, message: &[u8], now: UnixMs) -> Result<Self, KeyUnusable> {
        let Signature { key, ed25519, ml_dsa_65 } = keyring.sign(kind, &timed(message, now.0))?;
        let ml_dsa_65 = ml_dsa_65.map(|signature| URL_SAFE_NO_PAD.encode(&signature[..]));
        Ok(Self { key, ts: now.0, ed25519: URL_SAFE_NO_PAD.encode(ed25519), ml_dsa_65 })
    }

    /// Checks the signature of a message of this kind.
    ///
    /// # Errors
    /// What is wrong with it. Of a hybrid key both have to fit.
    pub fn verify(&self, key: &PublicKey, kind: &str, message: &[u8]) -> Result<(), WrittenFault> {
        let signature = self.read().ok_or(WrittenFault::Spelling)?;
        key.verify(kind, &timed(message, self.ts), &signature).map_err(WrittenFault::Signature)
    }

    fn read(&self) -> Option<Signature> {
        let ed25519 = URL_SAFE_NO_PAD.decode(&self.ed25519).ok()?.try_into().ok()?;
        let ml_dsa_65 = match &self.ml_dsa_65 {
            None => None,
            Some(text) => Some(URL_SAFE_NO_PAD.decode(text).ok()?.into_boxed_slice().try_into().ok()?),
        };
        Some(Signature { key: self.key.clone(), ed25519, ml_dsa_65 })
    }
}
