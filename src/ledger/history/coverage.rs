//! How much of the history its file has, whole: for whoever is about to take away what it could be made again from.
use super::mmr::Peaks;
use super::store::{Node, NodeFile};
use crate::domain::LogId;
use crate::ledger::storage::Storage;
use std::io;

/// What is in the file.
pub(in crate::ledger) struct Coverage {
    /// So many batches are covered, and every node above them is what its leaves make of it.
    pub size: u64,
    /// There is more, and that is damaged.
    pub is_damaged: bool,
}

/// Reads all nodes of the file and makes all but the leaves again. Fails if there is no file for this log.
pub(in crate::ledger) fn coverage<S: Storage>(storage: &S, log_id: LogId) -> io::Result<Coverage> {
    let (nodes, size) = NodeFile::open(storage, log_id)?;
    let mut peaks = Peaks::default();
    let mut stored = nodes.read_from(0);
    while peaks.size() < size {
        let covered = peaks.size();
        let Some(leaf) = stored.next() else { return Ok(Coverage { size: covered, is_damaged: true }) };
        // The first node that a leaf makes is itself.
        let (mut itself, mut whole) = (Some(leaf), true);
        peaks.append(leaf.digest, &mut |digest| {
            let node = itself.take().or_else(|| stored.next());
            whole &= node == Some(Node { digest, last: leaf.last });
        });
        if !whole {
            return Ok(Coverage { size: covered, is_damaged: true });
        }
    }
    Ok(Coverage { size, is_damaged: false })
}
