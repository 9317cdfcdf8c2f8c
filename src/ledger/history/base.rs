//! Where a history begins: with the first batch, or behind the batches whose peaks a snapshot has.
//!
//! The peaks are all that later nodes need of what came before them. So a history goes on from a snapshot when the first segments are
//! not there: roots are those of the whole history, and only what lies before cannot be proven.
use super::mmr::Peaks;
use crate::domain::{Root, Seq};
use crate::ledger::cursor::Cursor;
use crate::ledger::log::Shared;
use crate::ledger::snapshot::{snapshot_name, Snapshot};
use crate::ledger::storage::Storage;
use crate::ledger::LedgerError;
use std::sync::Arc;

/// What came before the first node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    /// The peaks over its batches.
    pub peaks: Peaks,
    /// Its last entry.
    pub through: Seq,
    /// Chain hash after that.
    pub chain: Root,
}

impl Base {
    /// The peaks of the oldest of these snapshots, which are in descending order, from which the log can be followed to its head; `None`
    /// if there is none that has any. The snapshot is read as a whole for that.
    pub fn of_snapshot<S: Storage>(shared: &Arc<Shared<S>>, there: &[Seq], head: Seq) -> Result<Option<Self>, LedgerError> {
        let storage = &shared.storage;
        for seq in there.iter().rev().copied() {
            let Ok(snapshot) = Snapshot::open(storage, &snapshot_name(seq)) else { continue };
            let of_this_log = (snapshot.head().log_id, snapshot.head().seq) == (shared.log_id, seq);
            let Some(peaks) = snapshot.front().peaks.clone().filter(|_| of_this_log) else { continue };
            let base = Self { peaks, through: seq, chain: snapshot.head().root };
            if !base.fits(shared, head)? {
                continue;
            }
            match snapshot.verify() {
                Ok(()) => return Ok(Some(base)),
                Err(fault) => tracing::warn!(event = "history_base_damaged", %fault, "the history does not go on from it"),
            }
        }
        Ok(None)
    }

    /// Whether the log goes on behind it, and is the one that led to it.
    pub fn fits<S: Storage>(&self, shared: &Arc<Shared<S>>, head: Seq) -> Result<bool, LedgerError> {
        Cursor::goes_on_behind(shared, self.through, &self.chain, head)
    }
}
