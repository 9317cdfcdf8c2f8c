//! The idempotency window: which keys were used lately, and where their entries are.
//!
//! A record is a 64-bit hash of (account, key) and a place: the lane number while the entry is being committed, its ledger
//! position afterwards. Who finds a place confirms it against the entry itself, so a hash collision costs a look-up and
//! never a wrong answer. Keys leave in the order in which they came, a chunk at a time, when they are older than the time to
//! live or when there are too many; never while they are being committed.
use super::parts::Parts;
use crate::domain::{Seq, UnixMs};
use std::collections::VecDeque;

/// Keys that are forgotten together.
const CHUNK: usize = 1024;
/// Set in a packed place that is a lane number.
const PENDING: u64 = 1 << 63;

/// Where the entry of a remembered key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Being committed, under this number of the core's lane.
    Pending(u64),
    /// Durable, at this ledger position.
    Durable(Seq),
}

#[derive(Clone, Copy)]
struct Remembered {
    hash: u64,
    place: u64,
}

/// Hashes in the order in which they came, with the time of the newest.
struct Chunk {
    newest: UnixMs,
    hashes: Vec<u64>,
}

/// The keys that one slice remembers.
pub struct Window {
    parts: Parts<Remembered>,
    order: VecDeque<Chunk>,
    ttl_ms: u64,
    keys_max: usize,
    /// Whether keys may go before their time when there are too many; else whoever fills the window has to ask [`Window::full`].
    evicts: bool,
    evicted: usize,
    count: usize,
    complete: bool,
}

impl Window {
    /// An empty window that remembers a key for at least `ttl_ms`. If it `evicts`, it holds at most about `keys_max` keys, and the
    /// oldest go first.
    pub fn new(ttl_ms: u64, keys_max: usize, evicts: bool) -> Self {
        Self { parts: Parts::new(), order: VecDeque::new(), ttl_ms, keys_max, evicts, evicted: 0, count: 0, complete: true }
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no key was ever forgotten: what is not here was never used.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Notes that there were keys before those that will be remembered.
    pub fn begin_incomplete(&mut self) {
        self.complete = false;
    }

    /// Whether there is no room for one more key.
    pub fn full(&self) -> bool {
        self.count >= self.keys_max
    }

    /// Where the entry with this hash is, if the key is remembered.
    pub fn find(&self, hash: u64) -> Option<Place> {
        let found = self.parts.of(hash).find(hash, |known| known.hash == hash)?;
        Some(if found.place & PENDING != 0 { Place::Pending(found.place & !PENDING) } else { Place::Durable(Seq(found.place)) })
    }

    /// Touches what [`Window::find`] and [`Window::remember`] will look at for these hashes, all of them side by side.
    pub fn touch(&self, hashes: impl Iterator<Item = u64>) {
        let touched = hashes.fold(0, |found, hash| found + usize::from(self.find(hash).is_some()));
        std::hint::black_box(touched);
    }

    /// Remembers a key, or moves one that is remembered to another place.
    pub fn remember(&mut self, hash: u64, place: Place, now: UnixMs) {
        let place = match place {
            Place::Pending(number) => number | PENDING,
            Place::Durable(seq) => seq.0,
        };
        let part = self.parts.of_mut(hash);
        if let Some(known) = part.find_mut(hash, |known| known.hash == hash) {
            known.place = place;
            return;
        }
        self.insert(hash, place, now);
    }

    /// Remembers a key that [`Window::find`] has just not found.
    pub fn remember_new(&mut self, hash: u64, number: u64, now: UnixMs) {
        debug_assert_eq!(self.find(hash), None);
        self.insert(hash, number | PENDING, now);
    }

    fn insert(&mut self, hash: u64, place: u64, now: UnixMs) {
        let part = self.parts.of_mut(hash);
        part.insert_unique(hash, Remembered { hash, place }, |known| known.hash);
        self.count += 1;
        match self.order.back_mut() {
            Some(chunk) if chunk.hashes.len() < CHUNK => {
                chunk.newest = chunk.newest.max(now);
                chunk.hashes.push(hash);
            }
            Some(_) | None => {
                // Two chunks may go for each that comes, so that keys leave at least as fast as they arrive.
                self.expire(now);
                self.expire(now);
                let mut hashes = Vec::with_capacity(CHUNK);
                hashes.push(hash);
                self.order.push_back(Chunk { newest: now, hashes });
            }
        }
    }

    /// Remembers a key read back from the ledger, unless its time is over.
    pub fn replay(&mut self, hash: u64, seq: Seq, used: UnixMs, now: UnixMs) {
        if used.0.saturating_add(self.ttl_ms) <= now.0 {
            self.complete = false;
            return;
        }
        self.remember(hash, Place::Durable(seq), used);
    }

    /// How many keys were forgotten before their time since the last call.
    pub fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    /// Forgets at most one chunk of keys that are too old or too many; returns whether it did.
    pub fn expire(&mut self, now: UnixMs) -> bool {
        let Some(oldest) = self.order.front() else { return false };
        let old = oldest.newest.0.saturating_add(self.ttl_ms) <= now.0;
        let crowded = self.evicts && self.count > self.keys_max;
        if !(old || crowded) {
            return false;
        }
        let committing = oldest.hashes.iter().any(|hash| matches!(self.find(*hash), Some(Place::Pending(_))));
        if committing {
            return false;
        }
        let chunk = self.order.pop_front().expect("the front was just looked at");
        for hash in chunk.hashes {
            if let Ok(found) = self.parts.of_mut(hash).find_entry(hash, |known| known.hash == hash) {
                found.remove();
                self.count -= 1;
                self.evicted += usize::from(!old);
            }
        }
        self.complete = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn a_key_is_found_until_its_time_is_over() {
        let mut window = Window::new(10_000, 1 << 20, true);
        for n in 0..3000 {
            window.remember(hash(n), Place::Durable(Seq(n + 1)), UnixMs(n));
        }
        assert!(window.complete());
        assert_eq!(window.find(hash(7)), Some(Place::Durable(Seq(8))));
        assert!(!window.expire(UnixMs(11_022)));
        assert_eq!(window.len(), 3000, "the newest key of the first chunk came at 1023");
        assert!(window.expire(UnixMs(11_023)));
        assert_eq!((window.len(), window.find(hash(7))), (1976, None));
        assert!(!window.complete());
    }

    #[test]
    fn too_many_keys_push_out_the_oldest_but_never_one_being_committed() {
        let mut window = Window::new(1000, 2000, true);
        for n in 0..3000 {
            window.remember(hash(n), Place::Pending(n), UnixMs(0));
        }
        assert!(!window.expire(UnixMs(0)));
        for n in 0..3000 {
            window.remember(hash(n), Place::Durable(Seq(n + 1)), UnixMs(0));
        }
        assert!(window.expire(UnixMs(0)));
        assert!(!window.expire(UnixMs(0)));
        assert_eq!((window.len(), window.take_evicted(), window.take_evicted()), (1976, 1024, 0));
    }

    #[test]
    fn keys_leave_as_fast_as_they_come_without_anybody_sweeping() {
        let mut window = Window::new(1000, 4096, true);
        for n in 0..100_000 {
            window.remember(hash(n), Place::Durable(Seq(n + 1)), UnixMs(0));
        }
        assert!(window.len() <= 4096 + 2 * CHUNK, "{}", window.len());
    }

    #[test]
    fn a_window_that_does_not_evict_keeps_every_key_for_its_time_through_a_replay() {
        let mut window = Window::new(1000, 2000, false);
        for n in 0..5000 {
            window.replay(hash(n), Seq(n + 1), UnixMs(500), UnixMs(900));
        }
        assert!(window.full() && window.complete());
        assert_eq!(window.find(hash(0)), Some(Place::Durable(Seq(1))));
        assert!(!window.expire(UnixMs(1499)) && window.expire(UnixMs(1500)));
    }
}
