//! The sealed form of a keyring: version 2 of the file. `docs/SECURITY.md` has the format for people.
//!
//! ```json
//! {"version": 2, "serial": 7, "salt": "<32 bytes>",
//!  "argon2id": {"memory_kib": 65536, "passes": 3, "lanes": 4},
//!  "sealed": "<ChaCha20-Poly1305 of the clear form, and its tag>"}
//! ```
//!
//! The root is the opening key itself, or Argon2id of the passphrase with the salt. The key of the file is HKDF-SHA256 of the root with
//! the salt. Every member but `sealed` is authenticated with it. The salt is fresh whenever a file is written, so the key of a file is
//! used once, and the nonce is zero.
//!
//! Invariants: nothing is believed of a file before its tag has been checked, but what its key is derived with, and that within bounds;
//! what is opened is written into guarded memory only.
use super::guarded::Guarded;
use super::opening_key::{OpeningKey, KEY_BYTES};
use super::private_file::{blank, Text};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey, CHACHA20_POLY1305, NONCE_LEN};
use aws_lc_rs::hkdf::{Prk, Salt, HKDF_SHA256};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Version of the sealed form.
pub(super) const VERSION: u32 = 2;
const SALT_BYTES: usize = 32;
/// Names this format, and everything that is derived for it.
const NAME: &[u8] = b"svc-wallet keyring 2";
/// What new files ask of whoever guesses a passphrase (RFC 9106, section 4, second recommended option).
const ARGON2ID: Argon2id = Argon2id { memory_kib: 64 << 10, passes: 3, lanes: 4 };
/// The most that a file may ask for.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// Key length of HKDF's output.
struct FileKeyLength;

impl aws_lc_rs::hkdf::KeyType for FileKeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
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
    #[serde(borrow)]
    sealed: &'a str,
}

/// What a sealed file tells of itself, checked with its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// How many bytes of clear form there are.
    pub(super) length: usize,
    pub(super) serial: u64,
}

/// Everything that is authenticated and not sealed.
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

    fn cipher(&self, key: &OpeningKey) -> Result<LessSafeKey, String> {
        let mut root = Guarded::new([0u8; KEY_BYTES]);
        match self.argon2id {
            None => root.copy_from_slice(key.bytes()),
            Some(cost) => stretch(key.bytes(), &self.salt, cost, &mut root[..])?,
        }
        let derived: Prk = Salt::new(HKDF_SHA256, &self.salt).extract(&root[..]);
        let mut file_key = Guarded::new([0u8; KEY_BYTES]);
        let info = [NAME];
        let expanded = derived.expand(&info, FileKeyLength).and_then(|key| key.fill(&mut file_key[..]));
        expanded.map_err(|_| refused())?;
        UnboundKey::new(&CHACHA20_POLY1305, &file_key[..]).map(LessSafeKey::new).map_err(|_| refused())
    }
}

fn refused() -> String {
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

/// Each key seals one file.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// Seals the clear form; what it was is overwritten on the way.
pub(super) fn seal(clear: &mut [u8], serial: u64, key: &OpeningKey) -> Result<Vec<u8>, String> {
    let mut salt = [0u8; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let head = Head { serial, salt, argon2id: key.is_passphrase().then_some(ARGON2ID) };
    let tag = head.cipher(key)?.seal_in_place_separate_tag(nonce(), Aad::from(head.authenticated()), clear);
    let tag = tag.map_err(|_| refused())?;
    let sealed = STANDARD.encode([&*clear, tag.as_ref()].concat());
    let salt = STANDARD.encode(salt);
    let written = Written { version: VERSION, serial, salt: &salt, argon2id: head.argon2id, sealed: &sealed };
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
    let length = STANDARD.decode_slice(written.sealed, &mut clear[..]).map_err(|_| "what is sealed is not base64")?;
    let opened = head.cipher(key)?.open_in_place(nonce(), Aad::from(head.authenticated()), &mut clear[..length]);
    let opened = opened.map_err(|_| "the key does not open it: it is another one, or the file was changed")?;
    Ok(Opened { length: opened.len(), serial: head.serial })
}

/// Checks that a text opens to what was sealed; the text is about to replace the only one that there is.
pub(super) fn opens_to(text: &[u8], key: &OpeningKey, clear: &[u8]) -> bool {
    let mut again = blank();
    open(text, key, &mut again).is_ok_and(|opened| again[..opened.length] == *clear)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
