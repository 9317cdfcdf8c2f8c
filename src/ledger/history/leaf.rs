//! The leaf of a batch: the mountain range over its entries, and what it is in the range over the batches.
use super::mmr::{batch_leaf, entry_leaf, path, Peaks, Subtree};
use crate::domain::{Digest, Path};
use crate::ledger::reader::visit;
use crate::ledger::scan::SeenBatch;
use crate::ledger::LedgerError;
use std::ops::ControlFlow;

/// The peaks over the entries of a batch; each node that is made on the way is handed over.
fn peaks_of(batch: &SeenBatch<'_>, made: &mut impl FnMut(Digest)) -> Result<Peaks, LedgerError> {
    let mut peaks = Peaks::default();
    let _ = visit(batch, |seq, entry| {
        peaks.append(entry_leaf(seq, entry.bytes()), made);
        ControlFlow::Continue(())
    })?;
    Ok(peaks)
}

/// The leaf of a batch.
pub(super) fn leaf_of(batch: &SeenBatch<'_>) -> Result<Digest, LedgerError> {
    let entries = peaks_of(batch, &mut |_| {})?;
    Ok(batch_leaf(&batch.root, batch.header.first_seq, &entries))
}

/// Appends a batch to the range over the batches.
pub(in crate::ledger) fn append_batch(peaks: &mut Peaks, batch: &SeenBatch<'_>) -> Result<(), LedgerError> {
    peaks.append(leaf_of(batch)?, &mut |_| {});
    Ok(())
}

/// The mountain range over the entries of one batch, with all of its nodes in the order in which they are made.
pub(super) struct Entries {
    nodes: Vec<Digest>,
    count: u64,
}

impl Entries {
    pub fn of(batch: &SeenBatch<'_>) -> Result<Self, LedgerError> {
        let mut nodes = Vec::with_capacity(2 * batch.header.entries as usize);
        let count = peaks_of(batch, &mut |digest| nodes.push(digest))?.size();
        Ok(Self { nodes, count })
    }

    /// How many entries there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// From one of them to the peaks.
    pub fn path(&self, index: u64) -> Path {
        let mut top = |subtree: Subtree| Ok::<_, std::convert::Infallible>(self.nodes[subtree.position() as usize]);
        match path(index, self.count, &mut top) {
            Ok(path) => path,
            Err(never) => match never {},
        }
    }
}
