//! The idempotency window: which keys were used lately, and where their entries are.
//!
//! A record is the stable id of a key and a place: the lane number while the entry is being committed, its ledger position
//! afterwards. Who finds a place confirms it against the entry itself, so equal ids cost a look-up and never a wrong answer. Keys
//! leave in the order in which they came, a chunk at a time, when they are older than the time to live or when there are too many;
//! never while they are being committed. Those that leave before their time are put into a filter, so that they can be looked up.
use super::forgotten::Forgotten;
use super::parts::Parts;
use crate::domain::{KeyId, Period, Seq, UnixMs};
use ahash::RandomState;
use std::collections::VecDeque;

/// Keys that are forgotten together, unless the window has room for only few.
const CHUNK: usize = 1024;
/// At least so many chunks fit into a window.
const CHUNKS: usize = 16;
/// Keys forgotten before their time that the filter is made for, for each that the window has room for.
pub const FORGOTTEN_PER_KEY: usize = 8;
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

/// A key's id with its hash for the tables of this process, which is keyed at random so that nobody can crowd them.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey {
    id: KeyId,
    hash: u64,
}

impl HashedKey {
    /// Hashes an id; all windows and questions to them need the same hasher.
    pub fn new(id: KeyId, hasher: &RandomState) -> Self {
        Self { id, hash: hasher.hash_one(id.0) }
    }
}

#[derive(Clone, Copy)]
struct Remembered {
    id: KeyId,
    place: u64,
}

/// Keys in the order in which they came, with the time in which their entries were accepted.
struct Chunk {
    accepted: Period,
    keys: Vec<KeyId>,
}

/// The keys that one slice remembers.
pub struct Window {
    hasher: RandomState,
    parts: Parts<Remembered>,
    order: VecDeque<Chunk>,
    ttl_ms: u64,
    keys_max: usize,
    chunk_keys: usize,
    /// Whether keys may go before their time when there are too many; else whoever fills the window has to ask [`Window::full`].
    evicts: bool,
    forgotten: Forgotten,
    evicted: usize,
    count: usize,
    complete: bool,
}

impl Window {
    /// An empty window that remembers a key for at least `ttl_ms`. If it `evicts`, it holds at most about `keys_max` keys, and the
    /// oldest go first.
    pub fn new(hasher: RandomState, ttl_ms: u64, keys_max: usize, evicts: bool) -> Self {
        Self {
            hasher,
            parts: Parts::new(),
            order: VecDeque::new(),
            ttl_ms,
            keys_max,
            chunk_keys: (keys_max / CHUNKS).clamp(1, CHUNK),
            evicts,
            forgotten: Forgotten::new(ttl_ms, keys_max.saturating_mul(FORGOTTEN_PER_KEY)),
            evicted: 0,
            count: 0,
            complete: true,
        }
    }

    /// How long a key is remembered at least, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms
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

    /// Where the entry with this key is, if the key is remembered.
    pub fn find(&self, key: HashedKey) -> Option<Place> {
        let found = self.parts.of(key.hash).find(key.hash, |known| known.id == key.id)?;
        Some(if found.place & PENDING != 0 { Place::Pending(found.place & !PENDING) } else { Place::Durable(Seq(found.place)) })
    }

    /// When the key was used, if it may be one that was forgotten before its time. Keys of ledger positions up to `searched`, if it
    /// is given, have been looked for already.
    pub fn may_have_forgotten(&self, key: HashedKey, searched: Option<Seq>) -> Option<Period> {
        let again = searched.map_or(true, |through| self.forgotten.newest() > through);
        self.forgotten.may_know(key.hash).filter(|_| again)
    }

    /// Whether a key is known here in any way: touches what a decision about it will look at.
    pub fn touches(&self, key: HashedKey) -> bool {
        self.find(key).is_some() | self.forgotten.may_know(key.hash).is_some()
    }

    /// Remembers a key, or moves one that is remembered to another place.
    pub fn remember(&mut self, key: HashedKey, place: Place, now: UnixMs) {
        let place = match place {
            Place::Pending(number) => number | PENDING,
            Place::Durable(seq) => seq.0,
        };
        let part = self.parts.of_mut(key.hash);
        if let Some(known) = part.find_mut(key.hash, |known| known.id == key.id) {
            known.place = place;
            return;
        }
        self.insert(key, place, now);
    }

    /// Remembers a key that [`Window::find`] has just not found.
    pub fn remember_new(&mut self, key: HashedKey, number: u64, now: UnixMs) {
        debug_assert_eq!(self.find(key), None);
        self.insert(key, number | PENDING, now);
    }

    /// Remembers a key in place of another one with the same id, if there is one: that is as good as forgotten.
    pub fn remember_instead(&mut self, key: HashedKey, number: u64, now: UnixMs) {
        if let Some(Place::Durable(seq)) = self.find(key) {
            // The new key leaves the window together with the old one, so both are among the forgotten ones from now on.
            let accepted = Period { first: UnixMs(now.0.saturating_sub(self.ttl_ms)), last: now };
            self.forgotten.insert(key.hash, seq, accepted);
            self.complete = false;
        }
        self.remember(key, Place::Pending(number), now);
    }

    fn insert(&mut self, key: HashedKey, place: u64, now: UnixMs) {
        let hasher = &self.hasher;
        let part = self.parts.of_mut(key.hash);
        part.insert_unique(key.hash, Remembered { id: key.id, place }, |known| hasher.hash_one(known.id.0));
        self.count += 1;
        let accepted = Period { first: now, last: now };
        match self.order.back_mut() {
            Some(chunk) if chunk.keys.len() < self.chunk_keys => {
                chunk.accepted = chunk.accepted.and(accepted);
                chunk.keys.push(key.id);
            }
            Some(_) | None => {
                // Two chunks may go for each that comes, so that keys leave at least as fast as they arrive.
                self.expire(now);
                self.expire(now);
                let mut keys = Vec::with_capacity(self.chunk_keys);
                keys.push(key.id);
                self.order.push_back(Chunk { accepted, keys });
            }
        }
    }

    /// Remembers a key read back from the ledger, unless its time is over.
    pub fn replay(&mut self, key: HashedKey, seq: Seq, used: UnixMs, now: UnixMs) {
        if !self.lives(used, now) {
            self.complete = false;
            return;
        }
        self.remember(key, Place::Durable(seq), used);
    }

    /// Whether the time of a key that was used then is not over.
    pub fn lives(&self, used: UnixMs, now: UnixMs) -> bool {
        used.0.saturating_add(self.ttl_ms) > now.0
    }

    /// Takes note of a key that was used in this time and that will be looked up in the ledger when it is used again.
    pub fn forget(&mut self, key: HashedKey, accepted: Period) {
        self.forgotten.insert(key.hash, Seq(0), accepted);
        self.complete = false;
    }

    /// How many keys were forgotten before their time since the last call.
    pub fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    /// Forgets at most one chunk of keys that are too old or too many; returns whether it did.
    pub fn expire(&mut self, now: UnixMs) -> bool {
        let Some(oldest) = self.order.front() else { return false };
        let old = !self.lives(oldest.accepted.last, now);
        let crowded = self.evicts && self.count > self.keys_max;
        if !(old || crowded) {
            return false;
        }
        let hashed = |id: &KeyId| HashedKey::new(*id, &self.hasher);
        let committing = oldest.keys.iter().any(|id| matches!(self.find(hashed(id)), Some(Place::Pending(_))));
        if committing {
            return false;
        }
        let chunk = self.order.pop_front().expect("the front was just looked at");
        for id in chunk.keys {
            let hash = self.hasher.hash_one(id.0);
            if let Ok(found) = self.parts.of_mut(hash).find_entry(hash, |known| known.id == id) {
                let (known, _) = found.remove();
                self.count -= 1;
                if !old {
                    self.forgotten.insert(hash, Seq(known.place), chunk.accepted);
                    self.evicted += 1;
                }
            }
        }
        self.complete = false;
        true
    }

    /// Lets go of forgotten keys whose time is over, a bounded part at a time.
    pub fn expire_forgotten(&mut self, now: UnixMs) {
        self.forgotten.expire(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> RandomState {
        RandomState::with_seeds(1, 2, 3, 4)
    }

    fn key(n: u64) -> HashedKey {
        HashedKey::new(KeyId(n), &hasher())
    }

    #[test]
    fn a_key_is_found_until_its_time_is_over() {
        let mut window = Window::new(hasher(), 10_000, 1 << 20, true);
        for n in 0..3000 {
            window.remember(key(n), Place::Durable(Seq(n + 1)), UnixMs(n));
        }
        assert!(window.complete());
        assert_eq!(window.find(key(7)), Some(Place::Durable(Seq(8))));
        assert!(!window.expire(UnixMs(11_022)));
        assert_eq!(window.len(), 3000, "the newest key of the first chunk came at 1023");
        assert!(window.expire(UnixMs(11_023)));
        assert_eq!((window.len(), window.find(key(7))), (1976, None));
        assert!(!window.complete());
    }

    #[test]
    fn too_many_keys_push_out_the_oldest_but_never_one_being_committed() {
        let mut window = Window::new(hasher(), 1000, 2000, true);
        for n in 0..3000 {
            window.remember(key(n), Place::Pending(n), UnixMs(0));
        }
        assert!(!window.expire(UnixMs(0)));
        for n in 0..3000 {
            window.remember(key(n), Place::Durable(Seq(n + 1)), UnixMs(0));
        }
        while window.expire(UnixMs(0)) {}
        assert_eq!((window.len(), window.take_evicted(), window.take_evicted()), (2000, 1000, 0));
        for n in 0..3000 {
            let accepted = Period { first: UnixMs(0), last: UnixMs(0) };
            let (known, forgotten) = (window.find(key(n)), window.may_have_forgotten(key(n), None));
            assert!(known.is_some() || forgotten == Some(accepted), "key {n} is remembered or known to be forgotten");
        }
        assert_eq!(window.may_have_forgotten(key(0), Some(Seq(999))), Some(Period { first: UnixMs(0), last: UnixMs(0) }));
        assert_eq!(window.may_have_forgotten(key(0), Some(Seq(1000))), None, "all that was forgotten has been looked through");
        window.expire_forgotten(UnixMs(1000));
        assert_eq!(window.may_have_forgotten(key(0), None), None, "its time is over");
    }

    #[test]
    fn keys_leave_as_fast_as_they_come_without_anybody_sweeping() {
        let mut window = Window::new(hasher(), 1000, 4096, true);
        for n in 0..100_000 {
            window.remember(key(n), Place::Durable(Seq(n + 1)), UnixMs(0));
        }
        assert!(window.len() <= 4096 + 2 * CHUNK, "{}", window.len());
    }

    #[test]
    fn a_window_that_does_not_evict_keeps_every_key_for_its_time_through_a_replay() {
        let mut window = Window::new(hasher(), 1000, 2000, false);
        for n in 0..5000 {
            window.replay(key(n), Seq(n + 1), UnixMs(500), UnixMs(900));
        }
        assert!(window.full() && window.complete());
        assert_eq!(window.find(key(0)), Some(Place::Durable(Seq(1))));
        assert!(!window.expire(UnixMs(1499)) && window.expire(UnixMs(1500)));
    }
}
