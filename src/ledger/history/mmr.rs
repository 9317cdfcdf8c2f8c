//! A Merkle mountain range: an append-only list of leaves whose peaks are the roots of perfect binary trees, the highest first. Pure.
//!
//! It is used twice: over the entries of a batch, and over the batches of the ledger. Appending to `n` leaves makes at most
//! log2(n) nodes and changes none, so nodes are kept in the order in which they are made. `docs/LEDGER.md` states the hashes.
//!
//! Nothing that a stranger sends can make the functions here panic or run long: sizes fix the number of hashes before one is
//! made. Deliberately does not know where nodes are kept.
use crate::domain::{Digest, LogId, Path, Root, Seq};

/// Keys of BLAKE3 that keep the four kinds of hashes apart.
const ENTRY_KEY: &[u8; 32] = b"svc-wallet history 1: entry leaf";
const BATCH_KEY: &[u8; 32] = b"svc-wallet history 1: batch leaf";
const NODE_KEY: &[u8; 32] = b"svc-wallet history 1: inner node";
const ROOT_KEY: &[u8; 32] = b"svc-wallet history 1: whole root";

/// The leaf of an entry at its position in the ledger.
pub(super) fn entry_leaf(seq: Seq, entry: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(ENTRY_KEY);
    hasher.update(&seq.0.to_le_bytes()).update(entry);
    *hasher.finalize().as_bytes()
}

/// The leaf of a batch with this chain hash, first entry, and peaks over its entries.
pub(super) fn batch_leaf(chain: &Root, first_seq: Seq, entries: &Peaks) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(BATCH_KEY);
    hasher.update(chain).update(&first_seq.0.to_le_bytes()).update(&entries.size.to_le_bytes());
    for peak in &entries.hashes {
        hasher.update(peak);
    }
    *hasher.finalize().as_bytes()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    *blake3::keyed_hash(NODE_KEY, &both).as_bytes()
}

/// A perfect tree over `1 << height` leaves from the leaf `start` on, which is a multiple of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subtree {
    pub start: u64,
    pub height: u32,
}

impl Subtree {
    /// Where its top stands among all nodes in the order in which they are made, from 0.
    pub fn position(self) -> u64 {
        node_count(self.start) + ((2 << self.height) - 2)
    }

    fn holds(self, leaf: u64) -> bool {
        leaf >= self.start && (leaf - self.start) >> self.height == 0
    }
}

/// How many nodes so many leaves make; leaves below 2^62.
pub(super) fn node_count(leaves: u64) -> u64 {
    2 * leaves - u64::from(leaves.count_ones())
}

/// The perfect trees of which a range of so many leaves consists, from left to right: one for each bit that is set.
pub(super) fn mountains(size: u64) -> impl Iterator<Item = Subtree> {
    (0..u64::BITS).rev().filter(move |height| size >> height & 1 == 1).map(move |height| {
        let above = if height + 1 == u64::BITS { 0 } else { size >> (height + 1) << (height + 1) };
        Subtree { start: above, height }
    })
}

/// The largest perfect trees that lead from a range of `from` leaves to one of `to` when they are appended in this order.
pub(super) fn additions(from: u64, to: u64) -> impl Iterator<Item = Subtree> {
    let mut start = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(start).filter(|left| *left > 0)?;
        let next = Subtree { start, height: start.trailing_zeros().min(left.ilog2()) };
        start += 1 << next.height;
        Some(next)
    })
}

/// The peaks of a range: all that is needed to append to it and to know its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    size: u64,
    hashes: Vec<Digest>,
}

impl Peaks {
    /// The peaks of a range of so many leaves, from left to right; `None` if there cannot be so many of them.
    pub fn new(size: u64, hashes: Vec<Digest>) -> Option<Self> {
        (hashes.len() == size.count_ones() as usize).then_some(Self { size, hashes })
    }

    /// How many leaves the range has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The peaks themselves, from left to right: one for each bit that is set in the size.
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// The root of a history with these peaks.
    pub fn root(&self, log_id: LogId, through: Seq) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(ROOT_KEY);
        hasher.update(&log_id.0).update(&self.size.to_le_bytes()).update(&through.0.to_le_bytes());
        for peak in &self.hashes {
            hasher.update(peak);
        }
        *hasher.finalize().as_bytes()
    }

    /// Appends a leaf and hands over the nodes that this makes, itself first.
    pub(super) fn append(&mut self, leaf: Digest, made: &mut impl FnMut(Digest)) {
        self.append_subtree(0, leaf, made);
    }

    /// Appends a whole tree over `1 << height` leaves, of which the size is a multiple.
    fn append_subtree(&mut self, height: u32, top: Digest, made: &mut impl FnMut(Digest)) {
        let mut hash = top;
        made(hash);
        for _ in 0..(self.size >> height).trailing_ones() {
            let left = self.hashes.pop().expect("there is a peak for each bit of the size");
            hash = node(&left, &hash);
            made(hash);
        }
        self.hashes.push(hash);
        self.size += 1 << height;
    }

    /// The range that these trees make of this one up to `to` leaves; `None` if they are not as many as that takes.
    pub(super) fn extended(mut self, to: u64, tops: &[Digest]) -> Option<Self> {
        if self.size > to || additions(self.size, to).count() != tops.len() {
            return None;
        }
        for (subtree, top) in additions(self.size, to).zip(tops) {
            self.append_subtree(subtree.height, *top, &mut |_| {});
        }
        Some(self)
    }
}

/// The path of a leaf in a range of so many, out of the tops that `top` knows.
pub(super) fn path<E>(leaf: u64, size: u64, top: &mut impl FnMut(Subtree) -> Result<Digest, E>) -> Result<Path, E> {
    let mut path = Path::default();
    for mountain in mountains(size) {
        if !mountain.holds(leaf) {
            path.peaks.push(top(mountain)?);
            continue;
        }
        for height in 0..mountain.height {
            path.siblings.push(top(Subtree { start: ((leaf >> height) ^ 1) << height, height })?);
        }
    }
    Ok(path)
}

/// The peaks to which a path leads from this leaf; `None` if the path does not have the shape that leaf and size demand.
pub(super) fn peaks_above(hash: Digest, leaf: u64, size: u64, path: &Path) -> Option<Peaks> {
    let (place, mountain) = mountains(size).enumerate().find(|(_, mountain)| mountain.holds(leaf))?;
    if path.siblings.len() != mountain.height as usize || path.peaks.len() + 1 != size.count_ones() as usize {
        return None;
    }
    let climb = |hash: Digest, (height, sibling): (usize, &Digest)| match leaf >> height & 1 {
        0 => node(&hash, sibling),
        _ => node(sibling, &hash),
    };
    let peak = path.siblings.iter().enumerate().fold(hash, climb);
    let mut hashes = path.peaks.clone();
    hashes.insert(place, peak);
    Peaks::new(size, hashes)
}

#[cfg(test)]
#[path = "mmr_tests.rs"]
mod tests;
