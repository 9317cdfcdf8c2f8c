//! Snapshots: the state of all accounts after some entry, so that a start need not read the whole log.
//!
//! | file | role |
//! |---|---|
//! | `account` | one account's state as bytes (pure) |
//! | `tail` | what the entries since the last snapshot did (pure) |
//! | `format` | head, front, blocks and footer as bytes (pure) |
//! | `writer` | writing in order |
//! | `file` | reading block by block |
//! | `store` | the next one from the last one and the tail; which there are |
//!
//! A snapshot is never the truth: it can be made again from the log, and one that is damaged is not used. Nothing in here knows
//! when one is taken, nor how a core keeps its accounts.
mod account;
mod file;
mod format;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod store;
mod tail;
mod writer;

pub use file::{Snapshot, SnapshotFault};
pub use format::{Digest, Front, SnapshotHead};
pub use store::{newest_good, snapshot_name, snapshot_seq, snapshots, SnapshotError, SnapshotSource};
pub use tail::AssetSums;
pub use writer::Pace;

pub(crate) use account::{for_each_state, names};
pub(super) use format::{MAGIC, VERSIONS};
pub(crate) use store::newest_of;
pub(super) use store::{keep_only, make, newest_whole, state_of, Cut};
pub(super) use tail::Tail;

#[cfg(test)]
mod tests;
