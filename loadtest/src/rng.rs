//! The generator's random numbers: SplitMix64, seeded, so that a printed seed gives the same run again.
//!
//! Not for secrets. Drawing costs about a nanosecond and never allocates, which is why a whole crate is not needed.

/// A probability, kept as the part of the 64-bit range that a draw has to fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u64);

impl Share {
    /// Never.
    pub const NONE: Share = Share(0);

    /// The share of a fraction between 0 and 1; values outside are clamped.
    pub fn of(fraction: f64) -> Share {
        // The cast saturates, so 1.0 becomes the whole range but one value in 2^64.
        Share((fraction.clamp(0.0, 1.0) * 18_446_744_073_709_551_616.0) as u64)
    }

    /// The fraction between 0 and 1.
    pub fn fraction(self) -> f64 {
        self.0 as f64 / 18_446_744_073_709_551_616.0
    }

    /// Both shares together, at most everything.
    pub fn plus(self, other: Share) -> Share {
        Share(self.0.saturating_add(other.0))
    }

    /// Whether this drawn value falls into the share.
    pub fn holds(self, drawn: u64) -> bool {
        drawn < self.0
    }
}

/// A seeded stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream that is the same for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero");
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// True with the given probability.
    pub fn chance(&mut self, share: Share) -> bool {
        share.holds(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_and_shares_come_out_as_asked() {
        let mut one = Random::new(7);
        let mut two = Random::new(7);
        assert!((0..1000).all(|_| one.draw() == two.draw()));
        let hits = (0..100_000).filter(|_| one.chance(Share::of(0.2))).count();
        assert!((19_000..21_000).contains(&hits), "{hits} of 100000 for a share of 20%");
        assert!((0..1000).all(|_| one.below(3) < 3));
        assert!((0..1000).all(|_| !one.chance(Share::NONE) && one.chance(Share::of(1.0))));
    }
}
