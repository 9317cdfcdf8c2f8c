//! The capabilities that one core has verified, by the whole text of their tokens.
//!
//! Invariants: bounded by a number of entries, each bounded by the caps on token and discharges; service, time and caveats
//! that are not understood are looked at on every use; a token that fails verification is not remembered. When full, the
//! entry goes that was not used since the hand last passed it (second chance).
use super::capability::Capability;
use super::keyring::Keyring;
use super::token;
use crate::domain::{Refusal, UnixMs};
use ahash::RandomState;
use hashbrown::HashTable;
use std::sync::Arc;

/// Verified capabilities of one core.
pub struct TokenCache {
    keyring: Arc<Keyring>,
    audience: Box<str>,
    capacity: usize,
    hasher: RandomState,
    /// Places in `slots`, found by the hash of token and discharges.
    table: HashTable<u32>,
    slots: Vec<Slot>,
    hand: usize,
    /// The place that was asked for last.
    newest: usize,
    lookups: Lookups,
}

/// Look-ups of tokens since somebody last took the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// The token was in the cache.
    pub hits: u64,
    /// The token had to be verified in full, whatever came of it.
    pub misses: u64,
}

struct Slot {
    hash: u64,
    token: Box<[u8]>,
    discharges: Option<Box<[u8]>>,
    capability: Arc<Capability>,
    used: bool,
}

impl TokenCache {
    /// An empty cache of at most `capacity` capabilities for the service named `audience`.
    ///
    /// # Panics
    /// If `capacity` is 0 or over 2^32 - 1.
    pub fn new(keyring: Arc<Keyring>, audience: &str, capacity: usize) -> Self {
        assert!(capacity > 0 && u32::try_from(capacity).is_ok());
        Self {
            keyring,
            audience: audience.into(),
            capacity,
            hasher: RandomState::new(),
            table: HashTable::new(),
            slots: Vec::new(),
            hand: 0,
            newest: 0,
            lookups: Lookups::default(),
        }
    }

    /// The capability of a token that is valid now. `discharges` is the header `X-Wallet-Discharge` as it came.
    ///
    /// Refuses with UNAUTHORIZED what is not a token of this service, has a wrong signature, is for another service or
    /// out of its time, and with FORBIDDEN what has a caveat that is not understood.
    pub fn verify(&mut self, token: &[u8], discharges: Option<&[u8]>, now: UnixMs) -> Result<&Arc<Capability>, Refusal> {
        self.newest = self.place_of(token, discharges)?;
        let slot = &mut self.slots[self.newest];
        slot.used = true;
        slot.capability.check(&self.audience, now)?;
        Ok(&slot.capability)
    }

    /// The place of a token, which is verified in full if it has none.
    fn place_of(&mut self, token: &[u8], discharges: Option<&[u8]>) -> Result<usize, Refusal> {
        let same = |slot: &Slot| *slot.token == *token && slot.discharges.as_deref() == discharges;
        // Requests of one client come together, and comparing costs less than hashing.
        if self.slots.get(self.newest).is_some_and(same) {
            self.lookups.hits += 1;
            return Ok(self.newest);
        }
        let hash = self.hasher.hash_one((token, discharges));
        if let Some(place) = self.table.find(hash, |place| same(&self.slots[*place as usize])) {
            self.lookups.hits += 1;
            return Ok(*place as usize);
        }
        self.lookups.misses += 1;
        let capability = Arc::new(token::verify(&self.keyring, token, discharges)?);
        Ok(self.insert(Slot { hash, token: token.into(), discharges: discharges.map(Box::from), capability, used: false }))
    }

    fn insert(&mut self, slot: Slot) -> usize {
        let hash = slot.hash;
        let place = if self.slots.len() < self.capacity {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let place = self.evict();
            self.slots[place] = slot;
            place
        };
        let slots = &self.slots;
        self.table.insert_unique(hash, place as u32, |place| slots[*place as usize].hash);
        place
    }

    /// Frees one place; ends after at most two rounds, because the first one clears every mark.
    fn evict(&mut self) -> usize {
        while std::mem::take(&mut self.slots[self.hand].used) {
            self.hand = (self.hand + 1) % self.slots.len();
        }
        let place = self.hand;
        self.hand = (self.hand + 1) % self.slots.len();
        let entry = self.table.find_entry(self.slots[place].hash, |known| *known as usize == place);
        entry.expect("every slot is in the table").remove();
        place
    }

    /// Verifies with another keyring from now on. What was verified with a key that is not on it any more is forgotten; all else is
    /// kept.
    pub fn change_keyring(&mut self, keyring: Arc<Keyring>) {
        let old = std::mem::replace(&mut self.keyring, keyring);
        let Self { keyring, slots, table, .. } = self;
        let before = slots.len();
        slots.retain(|slot| keyring.shares(&old, slot.capability.key_id()));
        if slots.len() == before {
            return;
        }
        table.clear();
        for (place, slot) in slots.iter().enumerate() {
            table.insert_unique(slot.hash, place as u32, |place| slots[*place as usize].hash);
        }
        (self.hand, self.newest) = (0, 0);
    }

    /// The look-ups since the last call.
    pub fn take_lookups(&mut self) -> Lookups {
        std::mem::take(&mut self.lookups)
    }

    /// How many capabilities are held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
