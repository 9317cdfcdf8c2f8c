//! The quotas that no core keeps for itself, because the requests that they count arrive on all of them: those of subjects, and that of all
//! requests. Only policies that have such quotas touch any of this.
use crate::access::Policy;
use crate::domain::{Quota, QuotaScope, Refusal, UnixMs};
use crate::engine::Buckets;
use ahash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Parts of the table of subjects, so that cores seldom wait for each other.
const STRIPES: usize = 64;
const NS_PER_MS: u64 = 1_000_000;

/// Their buckets.
pub struct SharedQuotas {
    hasher: RandomState,
    subjects: [Mutex<Buckets>; STRIPES],
    /// When the one bucket of all requests is full again, in nanoseconds since the Unix epoch.
    all_full_ns: AtomicU64,
}

impl Default for SharedQuotas {
    /// All buckets are full.
    fn default() -> Self {
        let hasher = RandomState::new();
        let buckets = |_| Mutex::new(Buckets::new(hasher.clone()));
        Self { subjects: std::array::from_fn(buckets), all_full_ns: AtomicU64::new(0), hasher }
    }
}

impl SharedQuotas {
    /// Takes a request of this subject out of its bucket, and then out of that of all requests: who is refused takes nothing from others.
    pub fn take(&self, policy: &Policy, subject: &str, now: UnixMs) -> Result<(), Refusal> {
        let of_subject = policy.quota(QuotaScope::Subject);
        if !of_subject.map_or(true, |quota| self.take_of_subject(quota, subject, now)) {
            return Err(Refusal::quota(QuotaScope::Subject));
        }
        if !policy.quota(QuotaScope::Global).map_or(true, |quota| self.take_of_all(quota, now)) {
            return Err(Refusal::quota(QuotaScope::Global));
        }
        Ok(())
    }

    fn take_of_subject(&self, quota: Quota, subject: &str, now: UnixMs) -> bool {
        let stripe = self.hasher.hash_one(subject) as usize % STRIPES;
        // A bucket is changed in one step, so it is right even if somebody has panicked with the lock in hand.
        self.subjects[stripe].lock().unwrap_or_else(PoisonError::into_inner).take(quota, subject, now)
    }

    fn take_of_all(&self, quota: Quota, now: UnixMs) -> bool {
        let now_ns = now.0.saturating_mul(NS_PER_MS);
        let take = |full_ns| Some(quota.take(full_ns, now_ns).0);
        let before = self.all_full_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        quota.take(before.expect("there is always something to store"), now_ns).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn policy(quotas: &str) -> Policy {
        let text = format!(r#"{{"version":1,"operations":[],"assets":{{"roc":{{}}}},"quotas":{quotas}}}"#);
        Policy::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_subject_that_is_over_its_quota_takes_nothing_from_the_others() {
        let quotas = SharedQuotas::default();
        let policy = policy(r#"{"subject":{"rate":1,"burst":2},"global":{"rate":1,"burst":4}}"#);
        let now = UnixMs(1_000_000);
        let taken = |subject: &str| quotas.take(&policy, subject, now).map_err(|refusal| refusal.quota).err().flatten();
        let (own, all) = (Some(QuotaScope::Subject), Some(QuotaScope::Global));
        assert_eq!(["a", "a", "a", "a", "a"].map(taken), [None, None, own, own, own]);
        assert_eq!(["b", "b", "c", "d"].map(taken), [None, None, all, all]);
        assert!(quotas.take(&self::policy("{}"), "a", now).is_ok(), "without quotas nothing is counted");
    }

    #[test]
    fn many_threads_take_exactly_what_is_in_the_bucket_of_all() {
        let (quotas, policy) = (Arc::new(SharedQuotas::default()), Arc::new(policy(r#"{"global":{"rate":1,"burst":1000}}"#)));
        let takers: Vec<_> = (0..4)
            .map(|number| {
                let (quotas, policy) = (quotas.clone(), policy.clone());
                let take = move |_: &u32| quotas.take(&policy, &number.to_string(), UnixMs(5_000)).is_ok();
                std::thread::spawn(move || (0..500u32).filter(take).count())
            })
            .collect();
        assert_eq!(takers.into_iter().map(|taker| taker.join().unwrap()).sum::<usize>(), 1000);
    }
}
