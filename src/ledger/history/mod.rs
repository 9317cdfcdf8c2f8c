//! The history: an accumulator over the batches of the ledger, out of which proofs are made that somebody can check who trusts
//! nothing but one hash.
//!
//! | file | role |
//! |---|---|
//! | `mmr` | mountain ranges and the four kinds of hashes (pure) |
//! | `verify` | whether a proof holds (pure) |
//! | `store` | nodes in a file |
//! | `base` | where a history begins: with the first batch, or with the peaks of a snapshot |
//! | `leaf` | what a batch is in the history |
//! | `follow` | behind the durable head, batch by batch, and from there to proofs |
//! | `coverage` | how much of the file is whole, read as a whole |
mod base;
mod coverage;
mod follow;
mod leaf;
mod mmr;
mod store;
mod verify;

pub(super) use coverage::coverage;
pub(super) use follow::History;
pub use follow::STEP_ENTRIES_MAX;
pub(super) use leaf::append_batch;
pub use mmr::Peaks;
pub use store::HISTORY_NAME;
pub(super) use store::MAGIC;
pub use verify::{verify_consistency, verify_inclusion, ProofFault};
