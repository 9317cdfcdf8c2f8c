//! What the owner core answers when it does not refuse.
use super::{Nonce, Seq};

/// BLAKE3 hash of the ledger chain after some batch; all zero before the first.
pub type Root = [u8; 32];

/// A durable entry together with its place: all that a receipt is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The encoded entry, readable with [`super::Entry::parse`].
    pub entry: Box<[u8]>,
    /// Its position in the ledger.
    pub seq: Seq,
    /// The chain hash after the batch that holds it.
    pub root: Root,
}

/// A balance of one account in one asset. Durable value only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// All value on the account, held value included, in minor units.
    pub amount: u128,
    /// The part of it that holds have placed here and that only capture and release can take, in minor units.
    pub held: u128,
    /// The newest ledger position that the owner core has seen. A credit of an earlier one, committed by another core in the same batch,
    /// may still be on its way, and is not acknowledged before it has arrived.
    pub height: Seq,
}

/// How far the debits of an account have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastNonce {
    /// Nonce of the last durable debit; 0 if there is none.
    pub confirmed: Nonce,
    /// The nonce that the next debit has to carry; debits that are being committed are counted.
    pub next: Nonce,
}
