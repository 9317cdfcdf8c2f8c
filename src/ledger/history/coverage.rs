//! How much of the history its file has, whole: for whoever is about to take away what it could be made again from.
use super::mmr::Peaks;
use super::store::NodeFile;
use crate::domain::LogId;
use crate::ledger::storage::Storage;
use std::io;

/// What is in the file.
pub(in crate::ledger) struct Coverage {
    /// So many batches are covered, and every node above them is what its leaves make of it.
    pub size: u64,
    /// There is more, and that is damaged.
    pub is_damaged: bool,
    /// The peaks of the sizes that were asked for, as far as the file has them.
    pub peaks: Vec<Peaks>,
}

/// Reads all nodes of the file and makes all but the leaves again. Fails if there is no file for this log.
pub(in crate::ledger) fn coverage<S: Storage>(storage: &S, log_id: LogId, asked: &[u64]) -> io::Result<Coverage> {
    let (nodes, size) = NodeFile::open(storage, log_id)?;
    let mut peaks = nodes.base().peaks.clone();
    let mut found = Coverage { size: peaks.size(), is_damaged: false, peaks: Vec::new() };
    let mut stored = nodes.read_all();
    loop {
        found.size = peaks.size();
        if asked.contains(&found.size) {
            found.peaks.push(peaks.clone());
        }
        if found.size == size {
            return Ok(found);
        }
        let (leaf, mut whole) = (stored.next(), true);
        // The first node that a leaf makes is itself.
        let mut itself = leaf;
        peaks.append(leaf.map_or([0; 32], |leaf| leaf.digest), &mut |digest| {
            let node = itself.take().or_else(|| stored.next());
            whole &= node.is_some_and(|node| node.digest == digest && Some(node.last) == leaf.map(|leaf| leaf.last));
        });
        if !whole {
            return Ok(Coverage { is_damaged: true, ..found });
        }
    }
}
