//! A hash table in parts, so that growing rehashes a small part at a time and stops nobody for long.
use hashbrown::HashTable;

/// How many parts there are; growing one of them rehashes 1/64 of what is in all.
const PARTS: usize = 64;

/// The parts of one table. What is in them is found by hash, as in [`HashTable`].
pub(super) struct Parts<T>(Vec<HashTable<T>>);

impl<T> Parts<T> {
    /// Nothing in any part.
    pub fn new() -> Self {
        Self((0..PARTS).map(|_| HashTable::new()).collect())
    }

    /// Makes room for so many more in all, if their hashes spread evenly.
    pub fn reserve(&mut self, more: usize, hasher: impl Fn(&T) -> u64) {
        for part in &mut self.0 {
            part.reserve(more.div_ceil(PARTS), &hasher);
        }
    }

    /// The part for a hash.
    pub fn of(&self, hash: u64) -> &HashTable<T> {
        &self.0[index(hash)]
    }

    /// The part for a hash, to be changed.
    pub fn of_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        &mut self.0[index(hash)]
    }
}

/// The middle of the hash: a part looks at the lowest bits to find a place and at the highest to tell neighbours apart, and with
/// bits that all of its hashes have in common it would crowd them into few places.
fn index(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}
