//! The account hash ring: which slot an account hashes to, and which core owns the slot.
//!
//! `slot = XXH3-64(account) >> 50`, 16,384 slots, stable for ever: gateways compute the same number. Slots are dealt to cores in
//! contiguous ranges, so the owner of a slot follows from the number of cores alone. The ring knows no account and no state.
use crate::domain::limits::{CORES_MAX, SLOTS};
use crate::domain::{Account, CoreId, KeyId};

/// How far the 64-bit hash is shifted so that exactly the slot number is left.
const SHIFT: u32 = 64 - SLOTS.trailing_zeros();
const _: () = assert!(SHIFT == 50);

/// A slot of the ring, 0 to 16,383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// The slot of an account name.
pub fn slot(account: Account<'_>) -> Slot {
    Slot((xxhash_rust::xxh3::xxh3_64(account.as_bytes()) >> SHIFT) as u16)
}

/// The dealing of all slots to a number of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    cores: u16,
}

impl Ring {
    /// A ring over this many cores.
    ///
    /// # Panics
    /// If `cores` is 0 or above [`CORES_MAX`]; the configuration is checked before.
    pub fn new(cores: u16) -> Self {
        assert!(cores > 0 && usize::from(cores) <= CORES_MAX);
        Self { cores }
    }

    /// How many cores share the slots.
    pub fn cores(self) -> u16 {
        self.cores
    }

    /// The core that owns a slot.
    pub fn core(self, slot: Slot) -> CoreId {
        CoreId((usize::from(slot.0) * usize::from(self.cores) / SLOTS) as u16)
    }

    /// The core that owns the account of an idempotency key.
    pub fn owner_of_key(self, id: KeyId) -> CoreId {
        self.core(Slot((id.0 >> SHIFT) as u16))
    }

    /// The core that owns an account.
    pub fn owner(self, account: Account<'_>) -> CoreId {
        if self.cores == 1 {
            return CoreId(0);
        }
        self.core(slot(account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_what_gateways_compute() {
        // Reference values of XXH3-64 with seed 0: the published hash of the empty input is 2d06800538d394c2.
        assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        let account = Account::new("acct:alice").unwrap();
        assert_eq!(u64::from(slot(account).0), xxhash_rust::xxh3::xxh3_64(b"acct:alice") >> 50);
        let key = KeyId::of(account, crate::domain::Key::new("k").unwrap());
        assert_eq!(Ring::new(7).owner_of_key(key), Ring::new(7).owner(account));
    }

    #[test]
    fn every_slot_has_one_owner_and_ranges_are_contiguous_and_even() {
        for cores in [1u16, 2, 3, 7, 64, 256] {
            let ring = Ring::new(cores);
            let mut counts = vec![0usize; usize::from(cores)];
            let mut last = 0;
            for number in 0..SLOTS as u16 {
                let core = ring.core(Slot(number)).0;
                assert!(core == last || core == last + 1);
                last = core;
                counts[usize::from(core)] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{cores} cores: {least}..{most}");
        }
    }
}
