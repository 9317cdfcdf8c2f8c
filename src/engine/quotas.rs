//! The buckets of quotas, by name.
use crate::domain::{Quota, UnixMs};
use ahash::RandomState;
use std::collections::HashMap;

/// Buckets that are kept before those that are full again are looked for and dropped.
const BUCKETS_MIN: usize = 4096;
const NS_PER_MS: u64 = 1_000_000;

/// Buckets that are not full. A name stands for itself by its hash: two that share one share a bucket, which takes nothing but some
/// quota away, and whoever wants that has to guess the keys of the hash.
pub struct Buckets {
    hasher: RandomState,
    /// When each is full again, in nanoseconds since the Unix epoch.
    full_ns: HashMap<u64, u64, RandomState>,
    purge_at: usize,
}

impl Buckets {
    /// All buckets are full.
    pub fn new(hasher: RandomState) -> Self {
        Self { full_ns: HashMap::with_hasher(hasher.clone()), hasher, purge_at: BUCKETS_MIN }
    }

    /// Takes one request out of the bucket with this name; false if there is none in it.
    pub fn take(&mut self, quota: Quota, name: &str, now: UnixMs) -> bool {
        let now_ns = now.0.saturating_mul(NS_PER_MS);
        if self.full_ns.len() >= self.purge_at {
            self.full_ns.retain(|_, full_ns| *full_ns > now_ns);
            self.purge_at = BUCKETS_MIN.max(2 * self.full_ns.len());
        }
        let full_ns = self.full_ns.entry(self.hasher.hash_one(name)).or_insert(0);
        let taken;
        (*full_ns, taken) = quota.take(*full_ns, now_ns);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_own_bucket_and_full_ones_are_forgotten() {
        let mut buckets = Buckets::new(RandomState::with_seeds(1, 2, 3, 4));
        let quota = Quota::new(10, 2).unwrap();
        let taken = |buckets: &mut Buckets, name: &str, ms: u64| buckets.take(quota, name, UnixMs(ms));
        let four = ["a", "a", "a", "b"].map(|name| taken(&mut buckets, name, 1_000));
        assert_eq!(four, [true, true, false, true]);
        assert!(taken(&mut buckets, "a", 1_100) && !taken(&mut buckets, "a", 1_100));
        for number in 0..10 * BUCKETS_MIN as u64 {
            assert!(taken(&mut buckets, &format!("n{number}"), 2_000 + number));
        }
        assert!(buckets.full_ns.len() <= BUCKETS_MIN + 1, "{}", buckets.full_ns.len());
    }
}
