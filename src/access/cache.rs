//! The capabilities that one core has verified, by the end of their signatures and by their discharges.
//!
//! Invariants: bounded by a number of entries, each bounded by the caps on token and discharges; service, time, revocations and
//! caveats that are not understood are looked at on every use; a token that fails verification is not remembered; what is sent is
//! compared with what is remembered in constant time, or nearly a token would be told from another one by the time it takes. When
//! full, the entry goes that was not used since the hand last passed it (second chance).
use super::capability::Capability;
use super::keyring::Keyring;
use super::revocations::{RevocationBoard, Revocations};
use super::token;
use crate::domain::{Refusal, TokenId, UnixMs, Why};
use ahash::RandomState;
use constant_time_eq::constant_time_eq;
use hashbrown::HashTable;
use std::sync::Arc;
use std::time::Duration;

/// Whether this is the build that takes everybody for somebody who may do everything. It exists to measure what the checks cost, is made
/// with `RUSTFLAGS="--cfg unchecked_capabilities"`, and serves loopback addresses alone.
pub const UNCHECKED: bool = cfg!(unchecked_capabilities);

/// Verified capabilities of one core.
pub struct TokenCache {
    keyring: Arc<Keyring>,
    audience: Box<str>,
    /// How far the clocks of issuers may be off, in milliseconds.
    leeway_ms: u64,
    board: Arc<RevocationBoard>,
    /// What was on the board when it was looked at last.
    revocations: Arc<Revocations>,
    /// The number of that list; every list has its own, and none has 0.
    epoch: u64,
    capacity: usize,
    hasher: RandomState,
    /// Places in `slots`, found by the hash of signature and discharges.
    table: HashTable<u32>,
    slots: Vec<Slot>,
    hand: usize,
    /// The place that was asked for last.
    newest: usize,
    /// Whether that was found for the request at hand.
    believed: bool,
    lookups: Lookups,
    /// The capability that was verified in full since somebody last asked.
    fresh: Option<Arc<Capability>>,
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
    /// The list of revocations that `revoked` is about.
    epoch: u64,
    revoked: bool,
    used: bool,
    /// Somebody wants to have it from [`TokenCache::take_fresh`] again.
    untold: bool,
}

impl TokenCache {
    /// An empty cache of at most `capacity` capabilities for the service named `audience`, with clocks that are right and nothing
    /// revoked.
    ///
    /// # Panics
    /// If `capacity` is 0 or over 2^32 - 1.
    pub fn new(keyring: Arc<Keyring>, audience: &str, capacity: usize) -> Self {
        assert!(capacity > 0 && u32::try_from(capacity).is_ok());
        let board = Arc::<RevocationBoard>::default();
        let (epoch, revocations) = board.current();
        Self {
            keyring,
            audience: audience.into(),
            leeway_ms: 0,
            board,
            revocations,
            epoch,
            capacity,
            hasher: RandomState::new(),
            table: HashTable::new(),
            slots: Vec::new(),
            hand: 0,
            newest: 0,
            believed: false,
            lookups: Lookups::default(),
            fresh: None,
        }
    }

    /// The same, with clocks that may be off by so much.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        self.leeway_ms = u64::try_from(leeway.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The same, refusing what stands on this board from the moment on at which it does.
    #[must_use]
    pub fn with_revocations(mut self, board: Arc<RevocationBoard>) -> Self {
        (self.epoch, self.revocations) = board.current();
        self.board = board;
        self
    }

    /// The capability of a token that is valid now. `discharges` is the header `X-Wallet-Discharge` as it came.
    ///
    /// Refuses with UNAUTHORIZED what is not a token of this service, has a wrong signature, was revoked, is for another service or
    /// out of its time, and with FORBIDDEN what has a caveat that is not understood.
    pub fn verify(&mut self, token: &[u8], discharges: Option<&[u8]>, now: UnixMs) -> Result<&Arc<Capability>, Refusal> {
        if UNCHECKED {
            return Ok(self.anybody());
        }
        self.newest = self.place_of(token, discharges)?;
        self.believed = true;
        if self.board.epoch() != self.epoch {
            (self.epoch, self.revocations) = self.board.current();
        }
        let slot = &mut self.slots[self.newest];
        slot.used = true;
        if std::mem::take(&mut slot.untold) {
            self.fresh = Some(slot.capability.clone());
        }
        if slot.epoch != self.epoch {
            (slot.epoch, slot.revoked) = (self.epoch, self.revocations.cover(&slot.capability));
        }
        if slot.revoked {
            return Err(Refusal::unauthorized(Why::Revoked));
        }
        slot.capability.check(&self.audience, now, self.leeway_ms)?;
        Ok(&slot.capability)
    }

    /// A capability without a caveat, for the build that checks none.
    fn anybody(&mut self) -> &Arc<Capability> {
        if self.slots.is_empty() {
            let capability = Arc::new(Capability::new("anybody", "unchecked", TokenId::default()));
            self.slots.push(Slot {
                hash: 0,
                token: Box::default(),
                discharges: None,
                capability,
                epoch: 0,
                revoked: false,
                used: false,
                untold: false,
            });
        }
        self.believed = true;
        &self.slots[self.newest].capability
    }

    /// Forgets who asked last; to be called when a new request is begun.
    pub fn begin(&mut self) {
        self.believed = false;
    }

    /// Whose capability the request since [`TokenCache::begin`] has come with, whatever became of it; `None` unless its signature was
    /// right.
    pub fn holder(&self) -> Option<&Arc<Capability>> {
        self.believed.then(|| &self.slots[self.newest].capability)
    }

    /// The place of a token, which is verified in full if it has none.
    fn place_of(&mut self, token: &[u8], discharges: Option<&[u8]>) -> Result<usize, Refusal> {
        let hash = self.hasher.hash_one((signature_end(token), discharges));
        let same = |slot: &Slot| constant_time_eq(&slot.token, token) && same_discharges(slot.discharges.as_deref(), discharges);
        let known = self.table.find(hash, |place| self.slots[*place as usize].hash == hash).map(|place| *place as usize);
        if let Some(place) = known.filter(|place| same(&self.slots[*place])) {
            self.lookups.hits += 1;
            return Ok(place);
        }
        self.lookups.misses += 1;
        let capability = Arc::new(token::verify(&self.keyring, token, discharges)?);
        let (token, discharges) = (token.into(), discharges.map(Box::from));
        self.fresh = Some(capability.clone());
        let slot = Slot { hash, token, discharges, capability, epoch: 0, revoked: false, used: false, untold: false };
        // One token of each hash is kept: its holder can write a token in many ways, by the locations, which are not signed, and all of
        // them have one signature.
        let Some(place) = known else { return Ok(self.insert(slot)) };
        self.slots[place] = slot;
        Ok(place)
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

    /// The capability that had to be verified in full since the last call, if one had.
    pub fn take_fresh(&mut self) -> Option<Arc<Capability>> {
        self.fresh.take()
    }

    /// Has [`TokenCache::take_fresh`] tell the capability of the present request once more when its token comes again.
    pub fn tell_again(&mut self) {
        if self.believed {
            self.slots[self.newest].untold = true;
        }
    }

    /// Verifies with another keyring from now on, between two requests. What was verified with a key that is not on it any more is
    /// forgotten; all else is kept.
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
        // Nothing stands where it stood. What is in `fresh` was verified when it came, and is still to be told.
        (self.hand, self.newest, self.believed) = (0, 0, false);
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

/// The last bytes of a token, which are of its signature, as random as a hash and as hard to choose: so they tell a token that is right
/// from all others. Discharges are hashed whole, because their holder may write the same ones in many ways.
fn signature_end(token: &[u8]) -> &[u8] {
    &token[token.len().saturating_sub(32)..]
}

fn same_discharges(known: Option<&[u8]>, sent: Option<&[u8]>) -> bool {
    match (known, sent) {
        (Some(known), Some(sent)) => constant_time_eq(known, sent),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
