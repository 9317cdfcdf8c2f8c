//! What must hold of everything that is read from the disk or from the daemon's socket, whatever bytes are there; `src/fuzzing.rs`
//! feeds it.
//!
//! | file | role |
//! |---|---|
//! | `files` | a ledger whose files were changed, and the formats in them |
//! | `wire` | frames to the daemon and from it |
mod files;
mod wire;

pub(crate) use super::snapshot::fuzzing::{records, records_seeds};
pub(crate) use files::{
    changed_index, changed_ledger, changed_snapshot, changes_seeds, entries, entries_seeds, index_blocks, index_blocks_seeds,
};
pub(crate) use wire::{from_daemon, from_daemon_seeds, to_daemon, to_daemon_seeds};
