//! The hybrid form of the sealed keyring: X25519 and ML-KEM-768 (FIPS 203) beside the opening key.
//!
//! Whenever a file is written there is a fresh pair of keys of each kind. Their private halves stand in the file, sealed with a key that
//! is derived from the root for the text `svc-wallet keyring 2 private`; with an ephemeral X25519 key and an encapsulation two
//! secrets are shared with the pair. The key of the file is HKDF-SHA256, with the salt of the file, of
//!
//! ```text
//! root (32) | secret of ML-KEM-768 (32) | secret of X25519 (32)
//! ```
//!
//! for the text `svc-wallet keyring 2 hybrid`, the ephemeral public key, the public key of the X25519 pair, and the ciphertext.
//!
//! Invariants: all three secrets are needed, whichever of them somebody may have; every part is authenticated with what is sealed.
use super::guarded::Guarded;
use super::opening_key::KEY_BYTES;
use super::seal::{cipher, nonce, NAME, SALT_BYTES};
use aws_lc_rs::aead::{Aad, LessSafeKey, MAX_TAG_LEN};
use aws_lc_rs::agreement::{agree, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, ML_KEM_768};

const X25519_BYTES: usize = 32;
/// The decapsulation key of ML-KEM-768, and its ciphertext.
const ML_KEM_768_PRIVATE_BYTES: usize = 2400;
const ML_KEM_768_CIPHERTEXT_BYTES: usize = 1088;
const TAG_BYTES: usize = MAX_TAG_LEN;
const PRIVATE_BYTES: usize = X25519_BYTES + ML_KEM_768_PRIVATE_BYTES;
const SHARED_BYTES: usize = 3 * KEY_BYTES;
const PRIVATE_INFO: &[u8] = b" private";
const HYBRID_INFO: &[u8] = b" hybrid";

/// What the hybrid form has in the file beside what every sealed file has.
pub(super) struct Capsule {
    /// Both private halves, sealed with the root.
    pub(super) private: Box<[u8; PRIVATE_BYTES + TAG_BYTES]>,
    /// The public half of the ephemeral X25519 key.
    pub(super) ephemeral: [u8; X25519_BYTES],
    /// The encapsulation of the secret of ML-KEM-768.
    pub(super) ciphertext: Box<[u8; ML_KEM_768_CIPHERTEXT_BYTES]>,
}

impl Capsule {
    /// The parts in the order in which they are authenticated.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.private[..], &self.ephemeral, &self.ciphertext[..]].concat()
    }
}

/// Both private halves, the one of X25519 first.
type Private = Guarded<[u8; PRIVATE_BYTES]>;

/// A cipher for a new file, and what a reader needs in order to come to the same one.
pub(super) fn sealing(
    salt: &[u8; SALT_BYTES],
    root: &Guarded<[u8; KEY_BYTES]>,
    authenticated: &[u8],
) -> Result<(LessSafeKey, Capsule), Unspecified> {
    let mut private: Private = Guarded::new([0; PRIVATE_BYTES]);
    getrandom::fill(&mut private[..X25519_BYTES]).map_err(|_| Unspecified)?;
    let own_public = PrivateKey::from_private_key(&X25519, &private[..X25519_BYTES])?.compute_public_key()?;
    let decapsulation = DecapsulationKey::generate(&ML_KEM_768)?;
    private[X25519_BYTES..].copy_from_slice(decapsulation.key_bytes()?.as_ref());

    let mut ephemeral = Guarded::new([0u8; X25519_BYTES]);
    getrandom::fill(&mut ephemeral[..]).map_err(|_| Unspecified)?;
    let ephemeral = PrivateKey::from_private_key(&X25519, &ephemeral[..])?;
    let ephemeral_public: [u8; X25519_BYTES] = ephemeral.compute_public_key()?.as_ref().try_into().map_err(|_| Unspecified)?;
    let (ciphertext, by_ml_kem) = decapsulation.encapsulation_key()?.encapsulate()?;
    let ciphertext: Box<[u8; ML_KEM_768_CIPHERTEXT_BYTES]> =
        Box::<[u8]>::from(ciphertext.as_ref()).try_into().map_err(|_| Unspecified)?;
    let file_cipher = agree(&ephemeral, UnparsedPublicKey::new(&X25519, own_public.as_ref()), Unspecified, |by_x25519| {
        combined(salt, root, by_ml_kem.as_ref(), by_x25519, [&ephemeral_public, own_public.as_ref(), &ciphertext[..]])
    })?;

    let tag = cipher(salt, &root[..], &[NAME, PRIVATE_INFO])?.seal_in_place_separate_tag(
        nonce(),
        Aad::from(authenticated),
        &mut private[..],
    )?;
    let mut sealed = Box::new([0u8; PRIVATE_BYTES + TAG_BYTES]);
    sealed[..PRIVATE_BYTES].copy_from_slice(&private[..]);
    sealed[PRIVATE_BYTES..].copy_from_slice(tag.as_ref());
    Ok((file_cipher, Capsule { private: sealed, ephemeral: ephemeral_public, ciphertext }))
}

/// The cipher of a file that is there.
pub(super) fn opening(
    salt: &[u8; SALT_BYTES],
    root: &Guarded<[u8; KEY_BYTES]>,
    authenticated: &[u8],
    capsule: &Capsule,
) -> Result<LessSafeKey, Unspecified> {
    let mut private = Guarded::new([0u8; PRIVATE_BYTES + TAG_BYTES]);
    private.copy_from_slice(&capsule.private[..]);
    let opened = cipher(salt, &root[..], &[NAME, PRIVATE_INFO])?;
    let private = opened.open_in_place(nonce(), Aad::from(authenticated), &mut private[..])?;
    let own = PrivateKey::from_private_key(&X25519, &private[..X25519_BYTES])?;
    let own_public = own.compute_public_key()?;
    let decapsulation = DecapsulationKey::new(&ML_KEM_768, &private[X25519_BYTES..])?;
    let by_ml_kem = decapsulation.decapsulate(Ciphertext::from(&capsule.ciphertext[..]))?;
    agree(&own, UnparsedPublicKey::new(&X25519, &capsule.ephemeral), Unspecified, |by_x25519| {
        let info = [&capsule.ephemeral[..], own_public.as_ref(), &capsule.ciphertext[..]];
        combined(salt, root, by_ml_kem.as_ref(), by_x25519, info)
    })
}

fn combined(
    salt: &[u8; SALT_BYTES],
    root: &Guarded<[u8; KEY_BYTES]>,
    by_ml_kem: &[u8],
    by_x25519: &[u8],
    [ephemeral, own, ciphertext]: [&[u8]; 3],
) -> Result<LessSafeKey, Unspecified> {
    let mut shared = Guarded::new([0u8; SHARED_BYTES]);
    for (part, secret) in shared.chunks_exact_mut(KEY_BYTES).zip([&root[..], by_ml_kem, by_x25519]) {
        part.copy_from_slice(secret);
    }
    cipher(salt, &shared[..], &[NAME, HYBRID_INFO, ephemeral, own, ciphertext])
}
