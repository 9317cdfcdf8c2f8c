//! The sealed form of a keyring: version 2 of the file. `docs/SECURITY.md` has the format for people.
//!
//! ```json
//! {"version": 2, "serial": 7, "salt": "<32 bytes>",
//!  "argon2id": {"memory_kib": 65536, "passes": 3, "lanes": 4},
//!  "hybrid": {"private": "<2448 bytes>", "ephemeral": "<32 bytes>", "ciphertext": "<1088 bytes>"},
//!  "sealed": "<ChaCha20-Poly1305 of the clear form, and its tag>"}
//! ```
//!
//! The root is the opening key itself, or Argon2id of the passphrase with the salt. The key of the file is derived from the root, and in
//! the hybrid form (`hybrid`) from two shared secrets besides. Every member but `sealed` is authenticated with it. The salt is fresh
//! whenever a file is written, so the key of a file is used once, and the nonce is zero.
//!
//! Invariants: nothing is believed of a file before its tag has been checked, but what its key is derived with, and that within bounds;
//! what is opened is written into guarded memory only.
use super::guarded::Guarded;
use super::hybrid::{self, Capsule};
use super::opening_key::{OpeningKey, KEY_BYTES};
use super::private_file::{blank, Text};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey, CHACHA20_POLY1305, NONCE_LEN};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{Prk, Salt, HKDF_SHA256};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Version of the sealed form.
pub(super) const VERSION: u32 = 2;
pub(super) const SALT_BYTES: usize = 32;
/// Names this format, and everything that is derived for it.
pub(super) const NAME: &[u8] = b"svc-wallet keyring 2";
/// What new files ask of whoever guesses a passphrase (RFC 9106, section 4, second recommended option).
const ARGON2ID: Argon2id = Argon2id { memory_kib: 64 << 10, passes: 3, lanes: 4 };
/// The most that a file may ask for.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// Output length of HKDF.
struct Length(usize);

impl aws_lc_rs::hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256: a key for a purpose, which `info` names.
pub(super) fn derive(salt: &[u8], secret: &[u8], info: &[&[u8]], into: &mut [u8]) -> Result<(), Unspecified> {
    let derived: Prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    let key = derived.expand(info, Length(into.len()))?;
    key.fill(into)
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Argon2id {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    version: u32,
    serial: u64,
    #[serde(borrow)]
    salt: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon2id>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    hybrid: Option<WrittenCapsule<'a>>,
    #[serde(borrow)]
    sealed: &'a str,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenCapsule<'a> {
    #[serde(borrow)]
    private: &'a str,
    #[serde(borrow)]
    ephemeral: &'a str,
    #[serde(borrow)]
    ciphertext: &'a str,
}

/// What a sealed file tells of itself, checked with its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// How many bytes of clear form there are.
    pub(super) length: usize,
    pub(super) serial: u64,
    /// Whether it was sealed in the hybrid form.
    pub(super) hybrid: bool,
}

/// What stands before the sealed part and is authenticated with it, but for the capsule of the hybrid form.
struct Head {
    serial: u64,
    salt: [u8; SALT_BYTES],
    argon2id: Option<Argon2id>,
}

impl Head {
    fn authenticated(&self) -> Vec<u8> {
        let mut bytes = [NAME, &self.serial.to_le_bytes(), &self.salt].concat();
        bytes.push(u8::from(self.argon2id.is_some()));
        if let Some(Argon2id { memory_kib, passes, lanes }) = self.argon2id {
            bytes.extend([memory_kib, passes, lanes].into_iter().flat_map(u32::to_le_bytes));
        }
        bytes
    }

    fn root(&self, key: &OpeningKey) -> Result<Guarded<[u8; KEY_BYTES]>, String> {
        let mut root = Guarded::new([0u8; KEY_BYTES]);
        match self.argon2id {
            None => root.copy_from_slice(key.bytes()),
            Some(cost) => stretch(key.bytes(), &self.salt, cost, &mut root[..])?,
        }
        Ok(root)
    }
}

/// A cipher whose key is derived from this secret.
pub(super) fn cipher(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Result<LessSafeKey, Unspecified> {
    let mut key = Guarded::new([0u8; KEY_BYTES]);
    derive(salt, secret, info, &mut key[..])?;
    UnboundKey::new(&CHACHA20_POLY1305, &key[..]).map(LessSafeKey::new)
}

fn refused(_: Unspecified) -> String {
    "the cryptographic library refuses to work".to_owned()
}

fn stretch(passphrase: &[u8], salt: &[u8], cost: Argon2id, into: &mut [u8]) -> Result<(), String> {
    let wrong = |_| "the cost of its passphrase is not one that can be had".to_owned();
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(into.len())).map_err(wrong)?;
    let mut blocks = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let outcome = argon2.hash_password_into_with_memory(passphrase, salt, into, &mut blocks);
    blocks.iter_mut().for_each(Zeroize::zeroize);
    outcome.map_err(wrong)
}

/// Each key seals one thing.
pub(super) fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// Seals the clear form, in the hybrid form if that is asked for; what it was is overwritten on the way.
pub(super) fn seal(clear: &mut [u8], serial: u64, key: &OpeningKey, hybrid: bool) -> Result<Vec<u8>, String> {
    let mut salt = [0u8; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let head = Head { serial, salt, argon2id: key.is_passphrase().then_some(ARGON2ID) };
    let root = head.root(key)?;
    let mut authenticated = head.authenticated();
    let (cipher, capsule) = match hybrid {
        false => (cipher(&salt, &root[..], &[NAME]).map_err(refused)?, None),
        true => {
            let (cipher, capsule) = hybrid::sealing(&salt, &root, &authenticated).map_err(refused)?;
            (cipher, Some(capsule))
        }
    };
    authenticated.extend(capsule.iter().flat_map(Capsule::bytes));
    let tag = cipher.seal_in_place_separate_tag(nonce(), Aad::from(authenticated), clear).map_err(refused)?;
    let sealed = STANDARD.encode([&*clear, tag.as_ref()].concat());
    let salt = STANDARD.encode(salt);
    let parts = capsule.map(|Capsule { private, ephemeral, ciphertext }| {
        [&private[..], &ephemeral[..], &ciphertext[..]].map(|part| STANDARD.encode(part))
    });
    let hybrid = parts.as_ref().map(|[private, ephemeral, ciphertext]| WrittenCapsule { private, ephemeral, ciphertext });
    let written = Written { version: VERSION, serial, salt: &salt, argon2id: head.argon2id, hybrid, sealed: &sealed };
    let mut text = serde_json::to_vec_pretty(&written).expect("it has only texts and numbers");
    text.push(b'\n');
    Ok(text)
}

/// What is authenticated, and the text in its parts.
fn head_of(text: &[u8]) -> Result<(Head, Written<'_>), String> {
    // Nothing of the text is secret; still only the place is told, as of the clear form.
    let written: Written<'_> = serde_json::from_slice(text)
        .map_err(|error| format!("line {} column {} is not as a sealed keyring is written", error.line(), error.column()))?;
    if written.version != VERSION {
        return Err(format!("version {} is not the sealed form that this build reads", written.version));
    }
    let mut salt = [0u8; SALT_BYTES];
    let decoded = STANDARD.decode(written.salt).ok().filter(|decoded| decoded.len() == SALT_BYTES);
    salt.copy_from_slice(&decoded.ok_or("the salt is not 32 bytes in base64")?);
    if let Some(cost) = written.argon2id {
        if cost.memory_kib > MEMORY_KIB_MAX || cost.passes > PASSES_MAX || cost.lanes > LANES_MAX {
            return Err("the cost of its passphrase is above what this build spends".to_owned());
        }
    }
    Ok((Head { serial: written.serial, salt, argon2id: written.argon2id }, written))
}

/// Opens the sealed form into guarded memory.
pub(super) fn open(text: &[u8], key: &OpeningKey, clear: &mut Guarded<Text>) -> Result<Opened, String> {
    let (head, written) = head_of(text)?;
    if head.argon2id.is_some() != key.is_passphrase() {
        let (is, was) = if key.is_passphrase() { ("a passphrase", "a key") } else { ("a key", "a passphrase") };
        return Err(format!("it was sealed with {was}, and security.kms leads to {is}"));
    }
    let capsule =
        written.hybrid.map(|written| capsule_of(&written).ok_or("the parts of its hybrid form are not of their lengths"));
    let capsule = capsule.transpose()?;
    let length = STANDARD.decode_slice(written.sealed, &mut clear[..]).map_err(|_| "what is sealed is not base64")?;
    let root = head.root(key)?;
    let mut authenticated = head.authenticated();
    let cipher = match &capsule {
        None => cipher(&head.salt, &root[..], &[NAME]),
        Some(capsule) => hybrid::opening(&head.salt, &root, &authenticated, capsule),
    };
    authenticated.extend(capsule.iter().flat_map(Capsule::bytes));
    let opened = cipher.and_then(|cipher| {
        let opened = cipher.open_in_place(nonce(), Aad::from(authenticated), &mut clear[..length])?;
        Ok(opened.len())
    });
    let length = opened.map_err(|_| "the key does not open it: it is another one, or the file was changed")?;
    Ok(Opened { length, serial: head.serial, hybrid: capsule.is_some() })
}

fn capsule_of(written: &WrittenCapsule<'_>) -> Option<Capsule> {
    let bytes = |text: &str| STANDARD.decode(text).ok();
    Some(Capsule {
        private: bytes(written.private)?.try_into().ok()?,
        ephemeral: bytes(written.ephemeral)?.try_into().ok()?,
        ciphertext: bytes(written.ciphertext)?.try_into().ok()?,
    })
}

/// Checks that a text opens to what was sealed; the text is about to replace the only one that there is.
pub(super) fn opens_to(text: &[u8], key: &OpeningKey, clear: &[u8]) -> bool {
    let mut again = blank();
    open(text, key, &mut again).is_ok_and(|opened| again[..opened.length] == *clear)
}

/// Whether opening it would stretch a passphrase at more than this cost; a fuzzer has other things to do.
#[cfg(any(test, fuzzing))]
pub(super) fn stretches_beyond(text: &[u8], kib: u32) -> bool {
    let cost = head_of(text).ok().and_then(|(head, _)| head.argon2id);
    cost.is_some_and(|cost| u64::from(cost.memory_kib) * u64::from(cost.passes) > u64::from(kib))
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
