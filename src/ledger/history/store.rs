//! The nodes of the history in a file, in the order in which they are made. `docs/LEDGER.md` draws it.
//!
//! Nothing here is the truth, and nothing is synced: every node carries a check of its own that knows its place and its log, so
//! that what a crash has left out, what is damaged and what is foreign is an error when it is read.
use super::base::Base;
use super::mmr::{mountains, node_count, Peaks, Subtree};
use crate::domain::{Digest, LogId, Seq};
use crate::ledger::layout::{array_at, put, u64_at, BLOCK_BYTES, FORMAT_VERSION, ZERO_BLOCK};
use crate::ledger::storage::{Storage, StorageFile};
use std::io;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Name of the file.
pub const HISTORY_NAME: &str = "history.mmr";

/// The magic number.
pub(in crate::ledger) const MAGIC: [u8; 8] = *b"RONHISTO";
const HASH_AT: usize = BLOCK_BYTES - 32;
const PEAKS_AT: usize = 80;
/// A range that could not be numbered any more, in batches.
const SIZE_END: u64 = 1 << 62;
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
    base: Base,
}

fn head_block(log_id: LogId, base: &Base) -> [u8; BLOCK_BYTES] {
    let mut block = ZERO_BLOCK;
    put(&mut block, 0, MAGIC);
    put(&mut block, 8, FORMAT_VERSION.to_le_bytes());
    put(&mut block, 16, log_id.0);
    put(&mut block, 32, base.peaks.size().to_le_bytes());
    put(&mut block, 40, base.through.0.to_le_bytes());
    put(&mut block, 48, base.chain);
    for (number, peak) in base.peaks.hashes().iter().enumerate() {
        put(&mut block, PEAKS_AT + 32 * number, *peak);
    }
    let hash = *blake3::hash(&block[..HASH_AT]).as_bytes();
    put(&mut block, HASH_AT, hash);
    block
}

/// What the head of a file of this log says of its beginning; `None` if it is not one.
fn base_of(block: &[u8; BLOCK_BYTES], log_id: LogId) -> Option<Base> {
    let size = Some(u64_at(block, 32)).filter(|size| *size < SIZE_END)?;
    let hashes = (0..size.count_ones() as usize).map(|number| array_at(block, PEAKS_AT + 32 * number)).collect();
    let base = Base { peaks: Peaks::new(size, hashes)?, through: Seq(u64_at(block, 40)), chain: array_at(block, 48) };
    (head_block(log_id, &base) == *block).then_some(base)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<F: StorageFile> NodeFile<F> {
    /// A file in place of any that is there, which begins here.
    pub fn create<S: Storage<File = F>>(storage: &S, log_id: LogId, base: Base) -> io::Result<Self> {
        let file = storage.create(HISTORY_NAME)?;
        file.write_at(&head_block(log_id, &base), 0)?;
        Ok(Self { file, seed: xxh3_64(&log_id.0), base })
    }

    /// The file that is there, and how many batches it may cover. Fails if there is none for this log.
    pub fn open<S: Storage<File = F>>(storage: &S, log_id: LogId) -> io::Result<(Self, u64)> {
        let file = storage.open(HISTORY_NAME)?;
        let mut block = ZERO_BLOCK;
        let read = file.read_at(&mut block, 0)?;
        let base = base_of(&block, log_id).filter(|_| read == BLOCK_BYTES);
        let base = base.ok_or_else(|| invalid("the history belongs to another ledger or is damaged"))?;
        let nodes = (file.size()? - BLOCK_BYTES as u64) / NODE_BYTES as u64;
        let size = leaves_within(node_count(base.peaks.size()) + nodes);
        Ok((Self { file, seed: xxh3_64(&log_id.0), base }, size))
    }

    /// Where it begins.
    pub fn base(&self) -> &Base {
        &self.base
    }

    fn offset(&self, position: u64) -> u64 {
        BLOCK_BYTES as u64 + (position - node_count(self.base.peaks.size())) * NODE_BYTES as u64
    }

    fn check(&self, node: &[u8], position: u64) -> u64 {
        xxh3_64_with_seed(&node[..CHECK_AT], self.seed ^ position)
    }

    fn decode(&self, bytes: &[u8], position: u64) -> Option<Node> {
        let right = bytes.len() == NODE_BYTES && u64_at(bytes, CHECK_AT) == self.check(bytes, position);
        right.then(|| Node { digest: array_at(bytes, 0), last: Seq(u64_at(bytes, LAST_AT)) })
    }

    fn read(&self, position: u64) -> io::Result<Node> {
        let mut bytes = [0; NODE_BYTES];
        let read = self.file.read_at(&mut bytes, self.offset(position))?;
        self.decode(&bytes[..read], position).ok_or_else(|| invalid("a node of the history is missing or damaged"))
    }

    /// The top of a tree, which does not lie within a peak of the base.
    pub fn top(&self, subtree: Subtree) -> io::Result<Digest> {
        let base = &self.base.peaks;
        let peak = mountains(base.size()).zip(base.hashes()).find(|(mountain, _)| *mountain == subtree);
        match peak {
            Some((_, hash)) => Ok(*hash),
            None => self.read(subtree.position()).map(|node| node.digest),
        }
    }

    /// The leaf of a batch behind the base.
    pub fn leaf(&self, batch: u64) -> io::Result<Node> {
        self.read(Subtree { start: batch, height: 0 }.position())
    }

    /// The last entry of so many batches; not fewer than the base has.
    pub fn end_of(&self, size: u64) -> io::Result<Seq> {
        if size == self.base.peaks.size() {
            return Ok(self.base.through);
        }
        self.leaf(size - 1).map(|leaf| leaf.last)
    }

    /// All nodes behind the base, up to the first that is missing, damaged or cannot be read.
    pub fn read_all(&self) -> impl Iterator<Item = Node> + '_ {
        let (mut ahead, mut at, mut position) = (Vec::new(), 0, node_count(self.base.peaks.size()));
        std::iter::from_fn(move || {
            if at == ahead.len() {
                ahead.resize(NODES_AHEAD * NODE_BYTES, 0);
                let read = self.file.read_at(&mut ahead, self.offset(position)).ok()?;
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
        self.file.write_at(&bytes, self.offset(position))
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
        NodeFile::create(&storage, log_id, Base::default()).unwrap().write(0, &nodes).unwrap();
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

    #[test]
    fn a_file_that_begins_later_has_the_peaks_and_the_nodes_behind_them() {
        let (storage, log_id) = (MemoryStorage::new(), LogId([1; 16]));
        let mut peaks = Peaks::default();
        (0..11).for_each(|number| peaks.append([number; 32], &mut |_| {}));
        let base = Base { peaks: peaks.clone(), through: Seq(40), chain: [9; 32] };
        let file = NodeFile::create(&storage, log_id, base.clone()).unwrap();
        let mut made = Vec::new();
        peaks.append([11; 32], &mut |digest| made.push(Node { digest, last: Seq(43) }));
        file.write(node_count(11), &made).unwrap();
        let (file, size) = NodeFile::open(&storage, log_id).unwrap();
        assert_eq!((file.base(), size, made.len()), (&base, 12, 3));
        assert_eq!((file.end_of(11).unwrap(), file.end_of(12).unwrap(), file.leaf(11).unwrap()), (Seq(40), Seq(43), made[0]));
        for (mountain, hash) in mountains(12).zip(peaks.hashes()) {
            assert_eq!(file.top(mountain).unwrap(), *hash);
        }
        assert!(file.read_all().eq(made));
        storage.tamper(HISTORY_NAME, |bytes| assert_eq!(bytes.len(), BLOCK_BYTES + 3 * NODE_BYTES));
        // The peak of 8 batches, one that was taken in, one that there is not.
        for (start, height, right) in [(0, 3, true), (8, 2, true), (12, 0, false)] {
            assert_eq!(file.top(Subtree { start, height }).is_ok(), right, "{start} {height}");
        }
    }
}
