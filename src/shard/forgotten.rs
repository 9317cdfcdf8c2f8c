//! The keys that were forgotten before their time was over: a filter that never misses one, and takes few others for one.
//!
//! It is a Bloom filter in blocks of one cache line, so that a question costs one look into memory. Each block has a part for each of
//! a few generations of keys; a generation whose keys are all over their time is emptied and used again. Memory is fixed; it is
//! taken with the first key and given back when no generation is left. With more keys than it is made for, more of the others are
//! taken for forgotten ones, and each of them costs a look-up in the ledger; none of the forgotten ones is ever missed.
//!
//! It knows randomly keyed hashes only, so that nobody can choose keys that fill one block.
use crate::domain::{Period, Seq, UnixMs};

/// Generations of keys; one more than are needed for the time to live, so that one can be emptied meanwhile.
const GENERATIONS: usize = 4;
/// Keys within the time to live that one block is made for: 4 bytes for each.
const KEYS_PER_BLOCK: usize = 16;
/// Bits that a key sets in its part of the block.
const BITS_PER_KEY: u32 = 6;
/// Blocks that are emptied at once: 1 MiB, some hundred microseconds.
const EMPTIED_TOGETHER: usize = 1 << 14;

/// The part of a block that belongs to one generation.
type Part = u128;

const _: () = assert!(GENERATIONS * std::mem::size_of::<Part>() == 64);

#[derive(Clone, Copy, Debug)]
enum Generation {
    Empty,
    /// Keys of this time, and how many.
    Holds(Period, usize),
    /// Its part of the blocks below this one has been emptied.
    Emptying(usize),
}

/// The filter.
pub struct Forgotten {
    ttl_ms: u64,
    blocks: usize,
    /// Blocks of one part for each generation, behind some parts that bring them to the beginning of a cache line.
    parts: Vec<Part>,
    start: usize,
    generations: [Generation; GENERATIONS],
    current: usize,
    newest: Seq,
}

/// Where a key belongs.
struct Spot {
    block: usize,
    bits: Part,
}

impl Forgotten {
    /// An empty filter for keys that live so long, made for about `keys` of them.
    pub fn new(ttl_ms: u64, keys: usize) -> Self {
        Self {
            ttl_ms,
            blocks: keys.div_ceil(KEYS_PER_BLOCK).max(1),
            parts: Vec::new(),
            start: 0,
            generations: [Generation::Empty; GENERATIONS],
            current: 0,
            newest: Seq(0),
        }
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The newest ledger position of a key that was put in with one.
    pub fn newest(&self) -> Seq {
        self.newest
    }

    /// Puts a key in whose entry was accepted in this time and stands at this place of the ledger, 0 if that is not known.
    pub fn insert(&mut self, hash: u64, seq: Seq, accepted: Period) {
        if self.is_empty() {
            // Zeroed by the system as it is touched; filling it here would stop the core.
            self.parts = vec![0; (self.blocks + 1) * GENERATIONS];
            self.start = self.parts.as_ptr().align_offset(64).min(GENERATIONS);
        }
        self.newest = self.newest.max(seq);
        let generation = self.generation_for(accepted);
        let Spot { block, bits } = self.spot(hash);
        self.parts[block + generation] |= bits;
    }

    /// The generation that takes a key of this time.
    fn generation_for(&mut self, accepted: Period) -> usize {
        let share = GENERATIONS - 1;
        if let Generation::Holds(held, keys) = self.generations[self.current] {
            let long = accepted.last.0.saturating_sub(held.first.0) >= self.ttl_ms / share as u64;
            let full = keys >= self.blocks * KEYS_PER_BLOCK / share;
            let next = (self.current + 1) % GENERATIONS;
            if (long || full) && matches!(self.generations[next], Generation::Empty) {
                self.current = next;
            }
        } else if matches!(self.generations[self.current], Generation::Emptying(_)) {
            let empty = self.generations.iter().position(|generation| matches!(generation, Generation::Empty));
            self.current = empty.unwrap_or(self.current);
        }
        let (held, keys) = match self.generations[self.current] {
            Generation::Holds(held, keys) => (held, keys),
            // What is left in a part that was being emptied does no harm: it makes others look forgotten.
            Generation::Empty | Generation::Emptying(_) => (Period::EMPTY, 0),
        };
        self.generations[self.current] = Generation::Holds(held.and(accepted), keys + 1);
        self.current
    }

    /// When the key with this hash was used, if it may be in here.
    pub fn may_know(&self, hash: u64) -> Option<Period> {
        if self.is_empty() {
            return None;
        }
        let Spot { block, bits } = self.spot(hash);
        let parts = &self.parts[block..block + GENERATIONS];
        let mut accepted = None;
        for (part, generation) in parts.iter().zip(&self.generations) {
            if let (true, Generation::Holds(held, _)) = (part & bits == bits, generation) {
                accepted = Some(accepted.map_or(*held, |others: Period| others.and(*held)));
            }
        }
        accepted
    }

    fn spot(&self, hash: u64) -> Spot {
        let block = ((u128::from(hash) * self.blocks as u128) >> 64) as usize;
        // Other bits than those that chose the block.
        let mut rest = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let mut bits: Part = 0;
        for _ in 0..BITS_PER_KEY {
            bits |= 1 << (rest >> 57);
            rest <<= 7;
        }
        Spot { block: self.start + block * GENERATIONS, bits }
    }

    /// Lets go of keys that are over their time, a bounded part at a time.
    pub fn expire(&mut self, now: UnixMs) {
        if self.is_empty() {
            return;
        }
        for generation in &mut self.generations {
            if matches!(generation, Generation::Holds(held, _) if held.last.0.saturating_add(self.ttl_ms) <= now.0) {
                *generation = Generation::Emptying(0);
            }
        }
        if !self.generations.iter().any(|generation| matches!(generation, Generation::Holds(..))) {
            self.parts = Vec::new();
            self.generations = [Generation::Empty; GENERATIONS];
            return;
        }
        for index in 0..GENERATIONS {
            if let Generation::Emptying(from) = self.generations[index] {
                let to = (from + EMPTIED_TOGETHER).min(self.blocks);
                (from..to).for_each(|block| self.parts[self.start + block * GENERATIONS + index] = 0);
                self.generations[index] = if to == self.blocks { Generation::Empty } else { Generation::Emptying(to) };
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_MS: u64 = 3000;

    /// Numbers that look random (SplitMix64).
    fn hash(n: u64) -> u64 {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn at(ms: u64) -> Period {
        Period { first: UnixMs(ms), last: UnixMs(ms) }
    }

    /// Of a million keys that were never put in, how many are taken for forgotten ones.
    fn mistaken(filter: &Forgotten) -> u64 {
        (0..1_000_000).filter(|n| filter.may_know(hash(1 << 40 | n)).is_some()).count() as u64
    }

    /// Full, with keys that came evenly over their time and with keys that came all at once; and far beyond what it is made for.
    #[test]
    fn few_of_the_others_are_taken_for_forgotten_ones_and_none_of_those_is_missed() {
        const KEYS: u64 = 1 << 18;
        for (keys, at_once, mistaken_max) in [
            (KEYS, false, 2_500),
            (KEYS, true, 2_500),
            (KEYS / 2, true, 1_200),
            (KEYS / 10, true, 10),
            (8 * KEYS, true, 1_000_000),
        ] {
            let mut filter = Forgotten::new(TTL_MS, KEYS as usize);
            assert_eq!(mistaken(&filter), 0);
            let used = |n| if at_once { 5 } else { n * TTL_MS / keys };
            (0..keys).for_each(|n| filter.insert(hash(n), Seq(n), at(used(n))));
            for n in 0..keys {
                assert!(filter.may_know(hash(n)).is_some_and(|held| held.overlaps(at(used(n)))), "key {n} of {keys}");
            }
            let mistaken = mistaken(&filter);
            println!("{keys} keys of {KEYS}, at once {at_once}: {mistaken} of 1,000,000 others");
            assert!(mistaken <= mistaken_max, "{mistaken} of 1,000,000 with {keys} keys");
            assert_eq!(filter.parts.len() * 16, (KEYS as usize / 16 + 1) * 64);
            assert_eq!(filter.newest(), Seq(keys - 1));
        }
    }

    #[test]
    fn keys_are_held_for_their_time_and_the_room_is_used_again_for_ever() {
        let mut filter = Forgotten::new(TTL_MS, 16 * 3 * EMPTIED_TOGETHER);
        let mut held_max = 0;
        for ms in 0..10 * TTL_MS {
            filter.insert(hash(ms), Seq(ms), at(ms));
            filter.expire(UnixMs(ms));
            let oldest = ms.saturating_sub(TTL_MS - 1);
            assert!(filter.may_know(hash(oldest)).is_some(), "key of {oldest} at {ms}");
            if ms % 100 == 0 {
                held_max = held_max.max((0..ms).filter(|n| filter.may_know(hash(*n)).is_some()).count() as u64);
            }
        }
        assert!((TTL_MS..TTL_MS + TTL_MS / 2).contains(&held_max), "{held_max} keys were held at once");
        filter.expire(UnixMs(11 * TTL_MS - 2));
        assert!(!filter.is_empty(), "the last key has a millisecond left");
        filter.expire(UnixMs(11 * TTL_MS - 1));
        assert!(filter.is_empty() && filter.may_know(hash(10 * TTL_MS - 1)).is_none());
        filter.insert(hash(7), Seq(7), at(20 * TTL_MS));
        assert!(filter.may_know(hash(7)).is_some() && filter.may_know(hash(10 * TTL_MS - 1)).is_none());
    }
}
