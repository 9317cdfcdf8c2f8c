//! Signed roots of the history, and where the thread that signs puts them so that every core finds them.
//!
//! What is signed of a root has a fixed layout; numbers are little endian, and the time of the signature follows as behind every message:
//!
//! ```text
//!    0  16  log UUID
//!   16   8  number of batches
//!   24   8  the last entry
//!   32  32  hash of the root
//! ```
//!
//! Invariant: the roots on the board are of one ledger and one course of it; each covers more than the one before.
use super::keyring::{KeyUnusable, Keyring};
use super::signing::PublicKey;
use super::written_signature::{WrittenFault, WrittenSignature, LEDGER_ROOT};
use crate::domain::{HistoryRoot, LogId, Seq, UnixMs};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

/// Signed roots that are kept; of more the oldest go. An entry that those covered is covered by the ones that are left.
pub const ROOTS_MAX: usize = 1024;
const MESSAGE_BYTES: usize = 64;

/// A root with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRoot {
    /// The root.
    pub root: HistoryRoot,
    /// By the key that was active then.
    pub signature: WrittenSignature,
}

fn message(log_id: LogId, root: &HistoryRoot) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[..16].copy_from_slice(&log_id.0);
    message[16..24].copy_from_slice(&root.size.to_le_bytes());
    message[24..32].copy_from_slice(&root.through.0.to_le_bytes());
    message[32..].copy_from_slice(&root.hash);
    message
}

impl SignedRoot {
    /// Signs a root of this ledger with the active key of the keyring.
    ///
    /// # Errors
    /// As [`Keyring::sign`].
    pub fn sign(keyring: &Keyring, log_id: LogId, root: HistoryRoot, now: UnixMs) -> Result<Self, KeyUnusable> {
        let signature = WrittenSignature::make(keyring, LEDGER_ROOT, &message(log_id, &root), now)?;
        Ok(Self { root, signature })
    }

    /// Checks that the signature is that of this root of this ledger by this key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, key: &PublicKey, log_id: LogId) -> Result<(), WrittenFault> {
        self.signature.verify(key, LEDGER_ROOT, &message(log_id, &self.root))
    }
}

/// The signed roots of the ledger, from the oldest to the newest.
#[derive(Debug, Default)]
pub struct RootBoard(RwLock<VecDeque<Arc<SignedRoot>>>);

impl RootBoard {
    /// Puts these in the place of all. They are in their order.
    pub fn replace(&self, roots: impl IntoIterator<Item = SignedRoot>) {
        let mut roots: VecDeque<_> = roots.into_iter().map(Arc::new).collect();
        assert!(roots.iter().zip(roots.iter().skip(1)).all(|(one, next)| one.root.size < next.root.size), "roots in their order");
        roots.drain(..roots.len().saturating_sub(ROOTS_MAX));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = roots;
    }

    /// Adds the next one.
    pub fn put(&self, root: SignedRoot) {
        let mut roots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        assert!(roots.back().map_or(true, |last| last.root.size < root.root.size), "a root covers more than the one before");
        if roots.len() == ROOTS_MAX {
            roots.pop_front();
        }
        roots.push_back(Arc::new(root));
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<SignedRoot>> {
        self.read(|roots| roots.iter().cloned().collect())
    }

    /// The newest one.
    pub fn newest(&self) -> Option<Arc<SignedRoot>> {
        self.read(|roots| roots.back().cloned())
    }

    /// The oldest one that covers this entry.
    pub fn covering(&self, seq: Seq) -> Option<Arc<SignedRoot>> {
        self.read(|roots| roots.get(roots.partition_point(|signed| signed.root.through < seq)).cloned())
    }

    /// This very root, if it is signed.
    pub fn of(&self, root: &HistoryRoot) -> Option<Arc<SignedRoot>> {
        self.read(|roots| {
            let place = roots.binary_search_by_key(&root.size, |signed| signed.root.size).ok()?;
            roots.get(place).filter(|signed| signed.root == *root).cloned()
        })
    }

    fn read<T>(&self, look: impl FnOnce(&VecDeque<Arc<SignedRoot>>) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
#[path = "signed_root_tests.rs"]
mod tests;
