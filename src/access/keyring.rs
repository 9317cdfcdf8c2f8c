//! The keyring: the secrets that sign capabilities, one of them active for minting, all of them good for verifying.
//!
//! Its clear form is JSON, so that secrets can be decoded straight out of a buffer that is wiped afterwards:
//!
//! ```json
//! {"version": 1, "serial": 7, "active": "k-3f9a01c2",
//!  "keys": [{"id": "k-3f9a01c2", "created": 1764500000000, "hybrid": true, "secret": "<32 bytes, standard base64>"}]}
//! ```
//!
//! `serial` counts the changes, `created` is a time in Unix milliseconds, and a key with `hybrid` signs with ML-DSA-65 as well; files of
//! earlier versions have none of them. How the file is sealed and where it is, is not known here.
//!
//! Invariants: secrets lie in guarded memory from the moment that they are read; one key is active; no two have the same id.
use super::guarded::{wiped, Guarded};
use super::identifier::key_id_well_formed;
use super::private_file::Text;
use super::signing::{self, PublicKey, Signature};
use crate::domain::UnixMs;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use macaroon::MacaroonKey;
use serde::Deserialize;
use std::io::{self, Write};
use zeroize::{Zeroize, Zeroizing};

pub(super) const SECRET_BYTES: usize = 32;
/// 32 bytes are 44 characters of base64, and decoding may touch up to 33 bytes.
const SECRET_DECODED_BYTES_MAX: usize = 36;
/// Most keys of one keyring.
pub const KEYS_MAX: usize = 16;
/// Version of the clear form.
pub(super) const VERSION: u32 = 1;

/// The keys of one service. Shown by its ids only.
pub struct Keyring {
    keys: Vec<KeyEntry>,
    /// In the order of the keys.
    secrets: Guarded<Secrets>,
    active: usize,
    serial: u64,
    sealing: Sealing,
}

/// How the file of a keyring is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// In the clear form of earlier versions.
    Clear,
    /// Sealed with the opening key.
    Sealed,
    /// Sealed with the opening key, X25519 and ML-KEM-768.
    Hybrid,
}

impl Sealing {
    /// Its name in the audit stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Sealing::Clear => "clear",
            Sealing::Sealed => "sealed",
            Sealing::Hybrid => "hybrid",
        }
    }
}

/// What may be known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its id, which every capability names that it has signed.
    pub id: Box<str>,
    /// When it was made, if that is known.
    pub created: Option<UnixMs>,
    /// Whether its signatures are hybrid.
    pub hybrid: bool,
}

/// Keys in the form that the macaroon crate wants, so that it can use them where they are.
struct Secrets([MacaroonKey; KEYS_MAX]);

impl Secrets {
    fn blank() -> Guarded<Self> {
        Guarded::new(Self([[0; SECRET_BYTES].into(); KEYS_MAX]))
    }
}

impl Zeroize for Secrets {
    fn zeroize(&mut self) {
        self.0.iter_mut().for_each(|key| key.zeroize());
    }
}

impl Keyring {
    /// A keyring with one fresh key.
    pub(super) fn fresh(now: UnixMs) -> io::Result<Self> {
        let mut keyring = Self { keys: Vec::new(), secrets: Secrets::blank(), active: 0, serial: 0, sealing: Sealing::Sealed };
        keyring.add(now, false)?;
        keyring.serial = 1;
        Ok(keyring)
    }

    /// A keyring with one fresh key that is in no file: it goes with the process.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn ephemeral(now: UnixMs) -> io::Result<Self> {
        macaroon::initialize().map_err(|_| io::Error::other("the cryptographic library does not start"))?;
        wiped(|| Self::fresh(now))
    }

    /// The keyring that comes after an ephemeral one: a fresh key signs, hybrid or not, or as the one before, which stays valid until the
    /// next rotation; no other does.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn rotated(&self, now: UnixMs, hybrid: Option<bool>) -> io::Result<Self> {
        let before = self.keys[self.active].clone();
        let (keys, serial) = (vec![before], self.serial);
        let mut next = Self { keys, secrets: Secrets::blank(), active: 0, serial, sealing: self.sealing };
        next.secrets.0[0].copy_from_slice(&self.secrets.0[self.active][..]);
        next.add(now, hybrid.unwrap_or(self.is_hybrid()))?;
        next.active = 1;
        next.changed();
        Ok(next)
    }

    /// Reads the clear form. What is wrong is told without anything of it but key ids.
    pub(super) fn parse(text: &[u8], sealing: Sealing) -> Result<Self, String> {
        macaroon::initialize().map_err(|_| "the cryptographic library does not start".to_string())?;
        // Only the place of an error is told: its text can quote the file, and so a secret.
        let written: Written<'_> = serde_json::from_slice(text)
            .map_err(|error| format!("line {} column {} is not as a keyring is written", error.line(), error.column()))?;
        if written.version != VERSION {
            return Err(format!(
                "version {} of the clear form is not known; this build reads version {VERSION}",
                written.version
            ));
        }
        if written.keys.is_empty() || written.keys.len() > KEYS_MAX {
            return Err(format!("it holds {} keys; 1 to {KEYS_MAX} are possible", written.keys.len()));
        }
        let mut keys: Vec<KeyEntry> = Vec::with_capacity(written.keys.len());
        let mut secrets = Secrets::blank();
        for (index, key) in written.keys.iter().enumerate() {
            if !key_id_well_formed(key.id) {
                return Err(format!("the id of keys[{index}] is not 1 to 32 characters of a-z 0-9 -"));
            }
            if keys.iter().any(|known| *known.id == *key.id) {
                return Err(format!("the id {} is there twice", key.id));
            }
            decode(key.secret, &mut secrets.0[index])
                .ok_or_else(|| format!("the secret of key {} is not 32 bytes in base64", key.id))?;
            keys.push(KeyEntry { id: key.id.into(), created: key.created.map(UnixMs), hybrid: key.hybrid });
        }
        let active = keys.iter().position(|key| *key.id == *written.active);
        let active = active.ok_or("the active key is not among the keys")?;
        Ok(Self { keys, secrets, active, serial: written.serial, sealing })
    }

    /// Writes the clear form, and returns its length.
    pub(super) fn write(&self, into: &mut Guarded<Text>) -> io::Result<usize> {
        let capacity = into.len();
        let mut rest = &mut into[..];
        let (serial, active) = (self.serial, self.active_id());
        write!(rest, "{{\n  \"version\": {VERSION},\n  \"serial\": {serial},\n  \"active\": \"{active}\",\n  \"keys\": [")?;
        for (index, key) in self.keys.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(rest, "{comma}\n    {{\"id\": \"{}\", ", key.id)?;
            if let Some(UnixMs(created)) = key.created {
                write!(rest, "\"created\": {created}, ")?;
            }
            if key.hybrid {
                write!(rest, "\"hybrid\": true, ")?;
            }
            let mut encoded = Zeroizing::new([0u8; 4 * SECRET_BYTES.div_ceil(3)]);
            let length = STANDARD.encode_slice(&self.secrets.0[index][..], &mut *encoded).map_err(io::Error::other)?;
            rest.write_all(b"\"secret\": \"")?;
            rest.write_all(&encoded[..length])?;
            rest.write_all(b"\"}")?;
        }
        rest.write_all(b"\n  ]\n}\n")?;
        let left = rest.len();
        Ok(capacity - left)
    }

    /// The id of the key that signs new capabilities.
    pub fn active_id(&self) -> &str {
        &self.keys[self.active].id
    }

    /// The ids of all keys, in the order of the file.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &*key.id)
    }

    /// All keys, in the order of the file.
    pub fn keys(&self) -> &[KeyEntry] {
        &self.keys
    }

    /// How often the file was changed; 0 for files of earlier versions.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// How the file that it was read from is kept.
    pub fn sealing(&self) -> Sealing {
        self.sealing
    }

    /// Whether the key that signs is hybrid: then the file is sealed in the hybrid form as well.
    pub fn is_hybrid(&self) -> bool {
        self.keys[self.active].hybrid
    }

    /// Signs a message of this kind with the active key. The kinds are told apart by their names: a signature of one is none of another.
    ///
    /// # Errors
    /// If the cryptographic library refuses, which it has no reason to.
    pub fn sign(&self, kind: &str, message: &[u8]) -> Result<Signature, KeyUnusable> {
        let (key, secret) = (&self.keys[self.active], &self.secrets.0[self.active]);
        signing::sign(&key.id, secret, key.hybrid, kind, message).map_err(|_| KeyUnusable)
    }

    /// The public halves of all keys, in the order of the file.
    ///
    /// # Errors
    /// As [`Keyring::sign`].
    pub fn public_keys(&self) -> Result<Vec<PublicKey>, KeyUnusable> {
        let keys = self.keys.iter().zip(&self.secrets.0);
        keys.map(|(key, secret)| signing::public_key(&key.id, secret, key.hybrid).map_err(|_| KeyUnusable)).collect()
    }

    /// The key of this id, where it lies: a copy would be one more place to wipe.
    pub(super) fn root(&self, id: &str) -> Option<&MacaroonKey> {
        Some(&self.secrets.0[self.place_of(id)?])
    }

    fn place_of(&self, id: &str) -> Option<usize> {
        self.keys.iter().position(|key| *key.id == *id)
    }

    /// Adds a fresh key, which is not active yet, and returns its id.
    pub(super) fn add(&mut self, now: UnixMs, hybrid: bool) -> io::Result<Box<str>> {
        if self.keys.len() == KEYS_MAX {
            let what = format!(
                "there are {KEYS_MAX} keys, which is the most; retire one that is not needed any more: ronctl kms retire KEY_ID"
            );
            return Err(io::Error::other(what));
        }
        let id: Box<str> = loop {
            let id = format!("k-{:08x}", getrandom::u32()?);
            if self.place_of(&id).is_none() {
                break id.into();
            }
        };
        getrandom::fill(&mut self.secrets.0[self.keys.len()])?;
        self.keys.push(KeyEntry { id: id.clone(), created: Some(now), hybrid });
        Ok(id)
    }

    /// Whether another keyring has the same key under this id: what one has verified the other would.
    pub(super) fn shares(&self, other: &Self, id: &str) -> bool {
        // Both are ours, and nobody waits for the outcome: it need not take the same time whatever it is.
        self.root(id).is_some_and(|key| other.root(id) == Some(key))
    }

    /// Lets this key sign from now on.
    pub(super) fn activate(&mut self, id: &str) -> Result<(), String> {
        self.active = self.place_of(id).ok_or_else(|| self.unknown(id))?;
        Ok(())
    }

    /// Takes a key out that is not active: nothing that it has signed is valid any more.
    pub(super) fn retire(&mut self, id: &str) -> Result<(), String> {
        let place = self.place_of(id).ok_or_else(|| self.unknown(id))?;
        if place == self.active {
            return Err(format!("{id} is the active key; make another one active first: ronctl kms rotate"));
        }
        self.keys.remove(place);
        self.secrets.0[place..].rotate_left(1);
        self.secrets.0[KEYS_MAX - 1].zeroize();
        self.active -= usize::from(place < self.active);
        Ok(())
    }

    fn unknown(&self, id: &str) -> String {
        // What was typed may be anything, so it is not repeated unless it could be an id.
        let named = if key_id_well_formed(id) { id } else { "of this name" };
        format!("there is no key {named}; there are {}", self.ids().collect::<Vec<_>>().join(", "))
    }

    /// From now on as sealed with this serial, which is the next one.
    pub(super) fn changed(&mut self) {
        self.serial += 1;
        self.sealing = if self.is_hybrid() { Sealing::Hybrid } else { Sealing::Sealed };
    }
}

/// The cryptographic library did not sign, or not derive what it signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUnusable;

impl std::fmt::Display for KeyUnusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the cryptographic library does not work with the key")
    }
}

impl std::error::Error for KeyUnusable {}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.ids().collect();
        f.debug_struct("Keyring").field("ids", &ids).field("active", &self.active_id()).finish_non_exhaustive()
    }
}

/// Borrowed from the text, so that no copy of a secret is left behind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    version: u32,
    #[serde(default)]
    serial: u64,
    #[serde(borrow)]
    active: &'a str,
    #[serde(borrow)]
    keys: Vec<WrittenKey<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey<'a> {
    id: &'a str,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    hybrid: bool,
    secret: &'a str,
}

fn decode(text: &str, into: &mut MacaroonKey) -> Option<()> {
    let mut decoded = Zeroizing::new([0u8; SECRET_DECODED_BYTES_MAX]);
    if STANDARD.decode_slice(text, &mut *decoded).ok()? != SECRET_BYTES {
        return None;
    }
    into.copy_from_slice(&decoded[..SECRET_BYTES]);
    Some(())
}
