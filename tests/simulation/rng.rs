//! A small seeded generator, so that one number names one history.

/// xorshift64*, never zero.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True with this probability in percent.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True with this probability in ten thousandths.
    pub fn rarely(&mut self, ten_thousandths: u64) -> bool {
        ten_thousandths > 0 && self.below(10_000) < ten_thousandths
    }

    /// In so many percent of all cases a number from 1 to `most`, else 0: how strong a fault is that most seeds do without.
    pub fn sometimes(&mut self, percent: u64, most: u64) -> u64 {
        let on = self.percent(percent);
        let strength = 1 + self.below(most);
        if on {
            strength
        } else {
            0
        }
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
