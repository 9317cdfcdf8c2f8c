//! What a core hands to the ledger and what it gets back. Entries of one lane keep their order.
use super::{Found, Period, Root, Seq};

/// Encoded entries of one lane, to be appended in this order and made durable together or not at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LaneBatch {
    /// The lane: the index of the core that reserved the entries.
    pub lane: u16,
    /// Number of the first entry within the lane, counted from 1 in each epoch: names the batch for idempotent commits.
    pub lane_first: u64,
    /// How many entries `bytes` holds; at least 1.
    pub count: u32,
    /// The encoded entries, one after the other.
    pub bytes: Vec<u8>,
}

/// The acknowledgement of one [`LaneBatch`]: it is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Durable {
    /// The batch as it was handed over; its buffer can be used again.
    pub batch: LaneBatch,
    /// Ledger position of the first entry; the others follow densely.
    pub first_seq: Seq,
    /// Chain hash after the ledger batch that holds the entries.
    pub root: Root,
}

/// A question to the ledger about one entry, answered off the cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which entry stands at this position?
    At(Seq),
    /// Which entry is the debit with this nonce of this account?
    Debit {
        /// The debited account.
        account: Box<str>,
        /// Its nonce.
        nonce: super::Nonce,
    },
    /// Which is the newest entry with this idempotency key?
    Key(Box<KeyUse>),
}

/// The use of an idempotency key that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The account that owns the entry: the debited one, for an issue the credited one.
    pub account: Box<str>,
    /// The idempotency key.
    pub key: Box<str>,
    /// Entries that were accepted at other times need not be looked at.
    pub accepted: Period,
}

/// A question to the ledger about one page of an account's entries, answered off the cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageQuestion {
    /// Entries that debit or credit this account are asked for.
    pub account: Box<str>,
    /// Only entries before this one; all if absent.
    pub before: Option<Seq>,
    /// At most so many entries; at least 1.
    pub limit: usize,
}

/// A part of an account's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Found>,
    /// There may be older ones, all of them before this entry; `None` if there is none.
    pub before: Option<Seq>,
}
