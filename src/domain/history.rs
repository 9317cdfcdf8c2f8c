//! Proofs of history: what shows to somebody who trusts one hash that an entry belongs to the ledger, and that a later ledger
//! continues an earlier one.
//!
//! `docs/LEDGER.md` has the hashes and the rules; this file has the values alone and knows neither hashing nor files.
use super::{Found, LogId, Seq};

/// A keyed BLAKE3 hash of the history: of a leaf, an inner node or the whole.
pub type Digest = [u8; 32];

/// The history up to some batch in one hash: all that a verifier has to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRoot {
    /// How many batches it covers, counted from the first of the ledger.
    pub size: u64,
    /// The last entry that it covers.
    pub through: Seq,
    /// The hash over the identity of the ledger, the two numbers above and the peaks.
    pub hash: Digest,
}

/// The way from one leaf of a mountain range to all of its peaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The neighbours on the way from the leaf to the peak above it, the lowest first.
    pub siblings: Vec<Digest>,
    /// The other peaks, from left to right.
    pub peaks: Vec<Digest>,
}

/// Where an entry stands in its batch and its batch in the history, with the hashes that lead from one to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The first entry of the batch.
    pub first_seq: Seq,
    /// How many entries the batch has.
    pub entries: u64,
    /// From the entry to the peaks of its batch.
    pub in_batch: Path,
    /// The number of the batch, from 0.
    pub batch: u64,
    /// From the batch to the peaks of the history.
    pub in_history: Path,
    /// The root to which it leads.
    pub root: HistoryRoot,
}

/// An entry with the proof that it is part of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The ledger.
    pub log_id: LogId,
    /// The entry, its position and the chain hash of its batch: all that its receipt is made of.
    pub found: Found,
    /// Its place.
    pub inclusion: Inclusion,
}

/// The proof that a later history begins with the whole of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The ledger.
    pub log_id: LogId,
    /// The earlier root.
    pub from: HistoryRoot,
    /// The later root, or the same one.
    pub to: HistoryRoot,
    /// The peaks of the earlier history, from left to right.
    pub peaks: Vec<Digest>,
    /// The mountains of the batches that came after it, in the order in which they are appended.
    pub additions: Vec<Digest>,
}

/// A question about the history, answered off the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryQuestion {
    /// Which proof leads from the entry at this position to the root of this size, or to the current root?
    Proof {
        /// The entry.
        seq: Seq,
        /// Of how many batches, if it is not to be the current root.
        size: Option<u64>,
    },
    /// What is the current root?
    Root,
    /// How does the root of the one size continue that of the other?
    Consistency {
        /// Batches of the earlier root.
        from: u64,
        /// Batches of the later root.
        to: u64,
    },
}

/// What the history answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryAnswer {
    /// There is no such durable entry.
    NoEntry,
    /// The entry, which may be shown only to whom it concerns, and its place or why that cannot be proven.
    Proof(Found, Result<Inclusion, Unproven>),
    /// The current root: it covers every entry that was durable when it was asked for.
    Root(Result<HistoryRoot, Unproven>),
    /// How one root continues the other.
    Consistency(Result<Consistency, Unproven>),
}

/// Why there is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// The history has not followed the ledger so far yet; a moment later it will have.
    Behind,
    /// There is no root of this size: the history has so many batches now.
    NoSuchSize {
        /// Batches of the current root.
        current: u64,
    },
    /// The root of this size does not reach the entry; the first that does has so many batches.
    NotReached {
        /// Batches of the smallest root that covers the entry.
        size_min: u64,
    },
    /// The later root has fewer batches than the earlier one.
    WrongOrder,
    /// The hashes are in segments that are in an archive, or were left behind when the ledger was restored.
    Archived {
        /// Batches of the smallest root that there is; only entries behind it are proven.
        size_min: u64,
    },
}

impl Unproven {
    /// What it is to whoever named no root: the one that was chosen is of this ledger, so the history comes to it later.
    #[must_use]
    pub fn of_chosen_root(self) -> Self {
        match self {
            Unproven::NoSuchSize { .. } | Unproven::NotReached { .. } => Unproven::Behind,
            Unproven::Behind | Unproven::WrongOrder | Unproven::Archived { .. } => self,
        }
    }
}
