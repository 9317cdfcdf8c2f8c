//! The nodes of the history in a file, in the order in which they are made. `docs/LEDGER.md` draws it.
//!
//! Nothing here is the truth, and nothing is synced: every node carries a check of its own that knows its place and its log, so
//! that what a crash has left out, what is damaged and what is foreign is an error when it is read.
use super::mmr::node_count;
use crate::domain::{Digest, LogId, Seq};
use crate::ledger::layout::{array_at, put, u64_at, BLOCK_BYTES, FORMAT_VERSION, ZERO_BLOCK};
use crate::ledger::storage::{Storage, StorageFile};
use std::io;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Name of the file.
pub const HISTORY_NAME: &str = "history.mmr";

const MAGIC: [u8; 8] = *b"RONHISTO";
const HASH_AT: usize = BLOCK_BYTES - 32;
const LAST_AT: usize = 32;
const CHECK_AT: usize = LAST_AT + 8;
const NODE_BYTES: usize = CHECK_AT + 8;
/// How many nodes are read at once when all of them are.
const NODES_AHEAD: usize = 8192;

/// A node and the last entry below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub digest: Digest,
    pub last: Seq,
}

/// The open file of one log.
pub(super) struct NodeFile<F> {
    file: F,
    seed: u64,
}

fn head_block(log_id: LogId) -> [u8; BLOCK_BYTES] {
    let mut block = ZERO_BLOCK;
    put(&mut block, 0, MAGIC);
    put(&mut block, 8, FORMAT_VERSION.to_le_bytes());
    put(&mut block, 16, log_id.0);
    let hash = *blake3::hash(&block[..HASH_AT]).as_bytes();
    put(&mut block, HASH_AT, hash);
    block
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn offset(position: u64) -> u64 {
    BLOCK_BYTES as u64 + position * NODE_BYTES as u64
}

impl<F: StorageFile> NodeFile<F> {
    /// An empty file in place of any that is there.
    pub fn create<S: Storage<File = F>>(storage: &S, log_id: LogId) -> io::Result<Self> {
        let file = storage.create(HISTORY_NAME)?;
        file.write_at(&head_block(log_id), 0)?;
        Ok(Self { file, seed: xxh3_64(&log_id.0) })
    }

    /// The file that is there, and how many batches it may cover. Fails if there is none for this log.
    pub fn open<S: Storage<File = F>>(storage: &S, log_id: LogId) -> io::Result<(Self, u64)> {
        let file = storage.open(HISTORY_NAME)?;
        let mut block = ZERO_BLOCK;
        let read = file.read_at(&mut block, 0)?;
        if read != BLOCK_BYTES || block != head_block(log_id) {
            return Err(invalid("the history belongs to another ledger or is damaged"));
        }
        let nodes = (file.size()? - BLOCK_BYTES as u64) / NODE_BYTES as u64;
        Ok((Self { file, seed: xxh3_64(&log_id.0) }, leaves_within(nodes)))
    }

    fn check(&self, node: &[u8], position: u64) -> u64 {
        xxh3_64_with_seed(&node[..CHECK_AT], self.seed ^ position)
    }

    fn decode(&self, bytes: &[u8], position: u64) -> Option<Node> {
        let right = bytes.len() == NODE_BYTES && u64_at(bytes, CHECK_AT) == self.check(bytes, position);
        right.then(|| Node { digest: array_at(bytes, 0), last: Seq(u64_at(bytes, LAST_AT)) })
    }

    /// The node at this position.
    pub fn read(&self, position: u64) -> io::Result<Node> {
        let mut bytes = [0; NODE_BYTES];
        let read = self.file.read_at(&mut bytes, offset(position))?;
        self.decode(&bytes[..read], position).ok_or_else(|| invalid("a node of the history is missing or damaged"))
    }

    /// The nodes from this position on, up to the first that is missing, damaged or cannot be read.
    pub fn read_from(&self, mut position: u64) -> impl Iterator<Item = Node> + '_ {
        let (mut ahead, mut at) = (Vec::new(), 0);
        std::iter::from_fn(move || {
            if at == ahead.len() {
                ahead.resize(NODES_AHEAD * NODE_BYTES, 0);
                let read = self.file.read_at(&mut ahead, offset(position)).ok()?;
                ahead.truncate(read);
                at = 0;
            }
            let node = self.decode(ahead.get(at..at + NODE_BYTES)?, position)?;
            (at, position) = (at + NODE_BYTES, position + 1);
            Some(node)
        })
    }

    /// Writes these nodes from this position on.
    pub fn write(&self, position: u64, nodes: &[Node]) -> io::Result<()> {
        let mut bytes = vec![0; nodes.len() * NODE_BYTES];
        for (position, (node, bytes)) in (position..).zip(nodes.iter().zip(bytes.chunks_mut(NODE_BYTES))) {
            put(bytes, 0, node.digest);
            put(bytes, LAST_AT, node.last.0.to_le_bytes());
            let check = self.check(bytes, position);
            put(bytes, CHECK_AT, check.to_le_bytes());
        }
        self.file.write_at(&bytes, offset(position))
    }
}

/// The most leaves that make at most so many nodes.
fn leaves_within(nodes: u64) -> u64 {
    let (mut fit, mut beyond) = (0, nodes + 1);
    while beyond - fit > 1 {
        let middle = fit + (beyond - fit) / 2;
        if node_count(middle) <= nodes {
            fit = middle;
        } else {
            beyond = middle;
        }
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MemoryStorage;

    #[test]
    fn whole_leaves_are_counted() {
        // Leaves make 1, 2, 1, 3, 1, 2, 1, 4 nodes.
        let counts = (0..=15).map(leaves_within).collect::<Vec<_>>();
        assert_eq!(counts, [0, 1, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7, 7, 7, 7, 8]);
    }

    #[test]
    fn a_damaged_moved_or_foreign_node_is_never_believed() {
        let storage = MemoryStorage::new();
        let log_id = LogId([1; 16]);
        let nodes: Vec<Node> = (0..7).map(|number| Node { digest: [number; 32], last: Seq(u64::from(number)) }).collect();
        NodeFile::create(&storage, log_id).unwrap().write(0, &nodes).unwrap();
        let (file, leaves) = NodeFile::open(&storage, log_id).unwrap();
        assert_eq!((leaves, file.read(6).unwrap()), (4, nodes[6]));
        assert!(file.read(7).is_err());
        for bit in 0..NODE_BYTES * 8 {
            let bad = storage.fork();
            bad.tamper(HISTORY_NAME, |bytes| bytes[BLOCK_BYTES + 2 * NODE_BYTES + bit / 8] ^= 1 << (bit % 8));
            let (file, _) = NodeFile::open(&bad, log_id).unwrap();
            assert!(file.read(2).is_err(), "bit {bit}");
            assert_eq!(file.read(3).unwrap(), nodes[3]);
        }
        let moved = storage.fork();
        moved.tamper(HISTORY_NAME, |bytes| bytes.copy_within(BLOCK_BYTES..BLOCK_BYTES + NODE_BYTES, BLOCK_BYTES + NODE_BYTES));
        assert!(NodeFile::open(&moved, log_id).unwrap().0.read(1).is_err());
        assert!(NodeFile::open(&storage, LogId([2; 16])).is_err());
        for byte in (0..BLOCK_BYTES).step_by(13) {
            let bad = storage.fork();
            bad.tamper(HISTORY_NAME, |bytes| bytes[byte] ^= 1);
            assert!(NodeFile::open(&bad, log_id).is_err(), "byte {byte}");
        }
    }
}
