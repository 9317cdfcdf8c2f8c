//! Signatures of the keyring's keys: Ed25519, and for a hybrid key ML-DSA-65 (FIPS 204) beside it.
//!
//! Both signing keys come from the secret of the key: HKDF-SHA256 without salt, for the texts `svc-wallet signing 1 ed25519` and
//! `svc-wallet signing 1 ml-dsa-65`, gives the 32 bytes of each seed. What is signed is the name of the kind of message, a zero byte,
//! and the message, so that no signature can be shown for something of another kind.
//!
//! Invariants: of a hybrid key both signatures are made, and both are needed to verify; a signature of another posture than that of its
//! key is refused; a signing key lives as long as one signature takes.
use super::guarded::{wiped, Guarded};
use super::seal::derive;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, PqdsaKeyPair, UnparsedPublicKey, ED25519, ML_DSA_65, ML_DSA_65_SIGNING};

const SEED_BYTES: usize = 32;
/// Lengths of an Ed25519 public key and signature (RFC 8032), and of those of ML-DSA-65.
pub const ED25519_PUBLIC_BYTES: usize = 32;
/// An Ed25519 signature.
pub const ED25519_SIGNATURE_BYTES: usize = 64;
/// An ML-DSA-65 public key.
pub const ML_DSA_65_PUBLIC_BYTES: usize = 1952;
/// An ML-DSA-65 signature.
pub const ML_DSA_65_SIGNATURE_BYTES: usize = 3309;
const ED25519_INFO: &[u8] = b"svc-wallet signing 1 ed25519";
const ML_DSA_65_INFO: &[u8] = b"svc-wallet signing 1 ml-dsa-65";

/// What anybody may know of a key, and needs in order to check its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The id of the key on the keyring.
    pub id: String,
    /// Its Ed25519 public key.
    pub ed25519: [u8; ED25519_PUBLIC_BYTES],
    /// Its ML-DSA-65 public key, if it is hybrid.
    pub ml_dsa_65: Option<Box<[u8; ML_DSA_65_PUBLIC_BYTES]>>,
}

/// The signatures of one key on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The id of the key.
    pub key: String,
    /// By Ed25519.
    pub ed25519: [u8; ED25519_SIGNATURE_BYTES],
    /// By ML-DSA-65, if the key is hybrid.
    pub ml_dsa_65: Option<Box<[u8; ML_DSA_65_SIGNATURE_BYTES]>>,
}

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    /// It is of another key than the one at hand.
    OtherKey,
    /// The key is hybrid and one of the two is missing, or it is not and there are two.
    Posture,
    /// The Ed25519 signature does not fit.
    Ed25519,
    /// The ML-DSA-65 signature does not fit.
    MlDsa65,
}

impl std::fmt::Display for SignatureFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SignatureFault::OtherKey => "the signature is of another key",
            SignatureFault::Posture => "the key and its signature do not agree on whether ML-DSA-65 is needed",
            SignatureFault::Ed25519 => "the Ed25519 signature is not that of this message by this key",
            SignatureFault::MlDsa65 => "the ML-DSA-65 signature is not that of this message by this key",
        })
    }
}

impl std::error::Error for SignatureFault {}

fn framed(kind: &str, message: &[u8]) -> Vec<u8> {
    [kind.as_bytes(), &[0], message].concat()
}

fn ed25519(secret: &[u8]) -> Result<Ed25519KeyPair, Unspecified> {
    let mut seed = Guarded::new([0u8; SEED_BYTES]);
    derive(&[], secret, &[ED25519_INFO], &mut seed[..])?;
    Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| Unspecified)
}

fn ml_dsa_65(secret: &[u8]) -> Result<PqdsaKeyPair, Unspecified> {
    let mut seed = Guarded::new([0u8; SEED_BYTES]);
    derive(&[], secret, &[ML_DSA_65_INFO], &mut seed[..])?;
    PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &seed[..]).map_err(|_| Unspecified)
}

/// The public half of what a secret signs with.
pub(super) fn public_key(id: &str, secret: &[u8], hybrid: bool) -> Result<PublicKey, Unspecified> {
    wiped(|| {
        let ed25519 = ed25519(secret)?.public_key().as_ref().try_into().map_err(|_| Unspecified)?;
        let ml_dsa_65 = match hybrid {
            false => None,
            true => Some(boxed(ml_dsa_65(secret)?.public_key().as_ref())?),
        };
        Ok(PublicKey { id: id.to_owned(), ed25519, ml_dsa_65 })
    })
}

/// Signs a message of this kind.
pub(super) fn sign(id: &str, secret: &[u8], hybrid: bool, kind: &str, message: &[u8]) -> Result<Signature, Unspecified> {
    wiped(|| {
        let framed = framed(kind, message);
        let ed25519 = ed25519(secret)?.sign(&framed).as_ref().try_into().map_err(|_| Unspecified)?;
        let ml_dsa_65 = match hybrid {
            false => None,
            true => {
                let mut signature = vec![0u8; ML_DSA_65_SIGNATURE_BYTES];
                let length = ml_dsa_65(secret)?.sign(&framed, &mut signature)?;
                Some(boxed(&signature[..length])?)
            }
        };
        Ok(Signature { key: id.to_owned(), ed25519, ml_dsa_65 })
    })
}

fn boxed<const N: usize>(bytes: &[u8]) -> Result<Box<[u8; N]>, Unspecified> {
    Box::<[u8]>::from(bytes).try_into().map_err(|_| Unspecified)
}

impl PublicKey {
    /// Whether the key is hybrid, so that two signatures are needed.
    pub fn is_hybrid(&self) -> bool {
        self.ml_dsa_65.is_some()
    }

    /// Checks the signature of a message of this kind.
    ///
    /// # Errors
    /// What is wrong with it. Of a hybrid key both signatures have to fit.
    pub fn verify(&self, kind: &str, message: &[u8], signature: &Signature) -> Result<(), SignatureFault> {
        if signature.key != self.id {
            return Err(SignatureFault::OtherKey);
        }
        let framed = framed(kind, message);
        let by_ed25519 = UnparsedPublicKey::new(&ED25519, &self.ed25519);
        by_ed25519.verify(&framed, &signature.ed25519).map_err(|_| SignatureFault::Ed25519)?;
        match (&self.ml_dsa_65, &signature.ml_dsa_65) {
            (None, None) => Ok(()),
            (Some(public), Some(signature)) => {
                let by_ml_dsa_65 = UnparsedPublicKey::new(&ML_DSA_65, &public[..]);
                by_ml_dsa_65.verify(&framed, &signature[..]).map_err(|_| SignatureFault::MlDsa65)
            }
            (Some(_), None) | (None, Some(_)) => Err(SignatureFault::Posture),
        }
    }
}

#[cfg(test)]
#[path = "signing_tests.rs"]
mod tests;
