//! Receipts that are remembered: a bounded sample to repeat and compare, and, for crash tests, every one of a round.
//!
//! Both own their memory from the start or grow by doubling; neither formats nor hashes while the load runs.

use crate::{
    requests::{Spend, TXID_RANGE},
    rng::{Random, Share},
};

/// Room for one sampled receipt, in bytes; longer ones are not sampled.
const SLOT_BYTES: usize = 768;
/// Receipts in the sample.
const SLOTS: usize = 16_384;

struct Slot {
    spend: Spend,
    body_bytes: usize,
    /// Repeats of it that are in flight; it is not replaced meanwhile.
    pinned: u32,
}

/// A random sample of acknowledged spends, old and new, with their receipts.
pub struct Sample {
    slots: Vec<Slot>,
    bodies: Vec<u8>,
    random: Random,
}

impl Sample {
    /// An empty sample.
    pub fn new(seed: u64) -> Sample {
        Sample { slots: Vec::with_capacity(SLOTS), bodies: Vec::with_capacity(SLOTS * SLOT_BYTES), random: Random::new(seed) }
    }

    /// May remember a receipt: the first ones all, later ones one in eight in a random place, so that some stay long.
    pub fn offer(&mut self, spend: &Spend, body: &[u8]) {
        if body.len() > SLOT_BYTES {
            return;
        }
        let slot = Slot { spend: *spend, body_bytes: body.len(), pinned: 0 };
        let number = if self.slots.len() < SLOTS {
            self.slots.push(slot);
            self.bodies.resize(self.slots.len() * SLOT_BYTES, 0);
            self.slots.len() - 1
        } else {
            let place = self.random.below(SLOTS as u64) as usize;
            if !self.random.chance(Share::of(0.125)) || self.slots[place].pinned > 0 {
                return;
            }
            self.slots[place] = slot;
            place
        };
        self.bodies[number * SLOT_BYTES..][..body.len()].copy_from_slice(body);
    }

    /// A random one, pinned until [`Sample::unpin`].
    pub fn pick(&mut self) -> Option<(u32, Spend)> {
        if self.slots.is_empty() {
            return None;
        }
        let number = self.random.below(self.slots.len() as u64) as usize;
        self.slots[number].pinned += 1;
        Some((number as u32, self.slots[number].spend))
    }

    /// The repeat has been answered or lost.
    pub fn unpin(&mut self, number: u32) {
        self.slots[number as usize].pinned -= 1;
    }

    /// The receipt, as first received.
    pub fn body(&self, number: u32) -> &[u8] {
        let number = number as usize;
        &self.bodies[number * SLOT_BYTES..][..self.slots[number].body_bytes]
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

/// Every receipt of a round, one after the other.
#[derive(Default)]
pub struct Journal {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Enough of a receipt to find it and to compare it byte for byte, in 61 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The transaction's id.
    pub txid: [u8; TXID_RANGE.end - TXID_RANGE.start],
    /// BLAKE3 of the receipt.
    pub hash: [u8; 32],
}

impl Journal {
    /// Remembers a receipt.
    pub fn push(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        self.ends.push(self.bytes.len());
    }

    /// Empties the journal into fingerprints.
    pub fn take_fingerprints(&mut self) -> Vec<Fingerprint> {
        let mut start = 0;
        let mut found = Vec::with_capacity(self.ends.len());
        for end in self.ends.drain(..) {
            found.extend(Fingerprint::of(&self.bytes[start..end]));
            start = end;
        }
        self.bytes.clear();
        found
    }
}

impl Fingerprint {
    /// `None` if the body is too short to be a receipt.
    pub fn of(body: &[u8]) -> Option<Fingerprint> {
        let txid = body.get(TXID_RANGE)?.try_into().ok()?;
        Some(Fingerprint { txid, hash: *blake3::hash(body).as_bytes() })
    }
}

/// Whether a receipt's own hash is right: `"b3:"` and BLAKE3 of the same object without `receipt_hash`, keys sorted, no
/// spaces.
pub fn receipt_hash_holds(body: &[u8]) -> bool {
    let Ok(serde_json::Value::Object(mut object)) = serde_json::from_slice(body) else { return false };
    let Some(serde_json::Value::String(claimed)) = object.remove("receipt_hash") else { return false };
    // A BTreeMap sorts by bytes, whichever map the JSON library was built with.
    let sorted: std::collections::BTreeMap<String, serde_json::Value> = object.into_iter().collect();
    let Ok(bytes) = serde_json::to_vec(&sorted) else { return false };
    claimed == format!("b3:{}", blake3::hash(&bytes).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Op;

    #[test]
    fn the_sample_keeps_what_it_was_given_and_never_replaces_a_pinned_one() {
        let mut sample = Sample::new(3);
        assert!(sample.pick().is_none());
        let spend = |key| Spend { from: 1, to: 2, amount_minor: 100, nonce: key, key, op: Op::Transfer };
        sample.offer(&spend(1), b"first");
        let (number, picked) = sample.pick().unwrap();
        assert_eq!((picked, sample.body(number)), (spend(1), &b"first"[..]));
        for key in 2..500_000 {
            sample.offer(&spend(key), &key.to_le_bytes());
        }
        assert_eq!((sample.len(), sample.body(number)), (SLOTS, &b"first"[..]));
        sample.unpin(number);
        let (other, picked) = sample.pick().unwrap();
        if picked.key != 1 {
            assert_eq!(sample.body(other), picked.key.to_le_bytes());
        }
    }

    #[test]
    fn a_receipt_hash_is_checked_over_the_sorted_object() {
        let hash = blake3::hash(br#"{"a":"1","txid":"x"}"#).to_hex();
        assert!(receipt_hash_holds(format!(r#"{{"txid":"x","a":"1","receipt_hash":"b3:{hash}"}}"#).as_bytes()));
        assert!(!receipt_hash_holds(format!(r#"{{"txid":"x","a":"2","receipt_hash":"b3:{hash}"}}"#).as_bytes()));
        assert!(!receipt_hash_holds(b"{}"));
    }
}
