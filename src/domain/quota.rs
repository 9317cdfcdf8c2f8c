//! Quotas: how many requests may come in a second, and how many at once after a pause.
//!
//! The bucket is kept as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371): one number for each, and
//! no refilling.
use std::num::NonZeroU32;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// Highest rate and largest burst of a quota.
pub const QUOTA_MAX: u32 = 1_000_000;

/// What a quota counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaScope {
    /// The writes of one account: those that debit it, or issue to it.
    Account,
    /// The requests of one subject, whatever its tokens are.
    Subject,
    /// All requests to the service.
    Global,
}

impl QuotaScope {
    /// All of them, in the order in which they are numbered.
    pub const ALL: [QuotaScope; 3] = [QuotaScope::Account, QuotaScope::Subject, QuotaScope::Global];

    /// The word in policies and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            QuotaScope::Account => "account",
            QuotaScope::Subject => "subject",
            QuotaScope::Global => "global",
        }
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    rate: NonZeroU32,
    burst: NonZeroU32,
}

impl Quota {
    /// So many requests per second in the long run, and so many at once after a pause; `None` unless both are from 1 to [`QUOTA_MAX`].
    pub fn new(rate: u32, burst: u32) -> Option<Self> {
        let within = |value: u32| NonZeroU32::new(value).filter(|value| value.get() <= QUOTA_MAX);
        Some(Self { rate: within(rate)?, burst: within(burst)? })
    }

    /// Requests per second.
    pub fn rate(self) -> u32 {
        self.rate.get()
    }

    /// Requests at once.
    pub fn burst(self) -> u32 {
        self.burst.get()
    }

    /// Takes one request out of a bucket that will be full again at `full_ns`, at the time `now_ns`, both in nanoseconds of one clock:
    /// when it will be full after that, or in how many nanoseconds there is room for the next request.
    ///
    /// A bucket that is emptier than it can be, because the clock went back or the quota was another one, counts as empty.
    pub fn take(self, full_ns: u64, now_ns: u64) -> Result<u64, u64> {
        let each_ns = NS_PER_SECOND / u64::from(self.rate.get());
        let whole_ns = each_ns * u64::from(self.burst.get());
        let empty_ns = full_ns.clamp(now_ns, now_ns.saturating_add(whole_ns)) - now_ns;
        match empty_ns + each_ns {
            after_ns if after_ns <= whole_ns => Ok(now_ns.saturating_add(after_ns)),
            after_ns => Err(after_ns - whole_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the requests at these times pass.
    fn passed(quota: Quota, times_ns: impl Iterator<Item = u64>) -> usize {
        let mut full = 0;
        let taken = |now| quota.take(full, now).map(|after| full = after).is_ok();
        times_ns.map(taken).filter(|taken| *taken).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let quota = Quota::new(10, 5).unwrap();
        let start = 1_700_000_000 * NS_PER_SECOND;
        assert_eq!(passed(quota, std::iter::repeat(start).take(100)), 5);
        // A thousand requests a second for ten seconds: the burst, and ten for each second.
        assert_eq!(passed(quota, (0..10_000).map(|n| start + n * 1_000_000)), 5 + 99);
        // Whoever keeps to the rate is never refused.
        assert_eq!(passed(Quota::new(10, 1).unwrap(), (0..50).map(|n| start + n * 100_000_000)), 50);
        assert_eq!(quota.take(start + 500_000_000, start), Err(100_000_000), "it says how long to wait");
    }

    #[test]
    fn a_clock_that_goes_back_keeps_nobody_out_for_longer_than_a_bucket_takes_to_fill() {
        let quota = Quota::new(10, 5).unwrap();
        let (now, far) = (1_000 * NS_PER_SECOND, 9_000 * NS_PER_SECOND);
        assert_eq!(quota.take(far, now), Err(100_000_000));
        assert!(quota.take(far, far).is_ok());
        assert_eq!(quota.take(u64::MAX, u64::MAX), Ok(u64::MAX));
    }

    #[test]
    fn nothing_and_too_much_are_no_quotas() {
        for (rate, burst) in [(0, 1), (1, 0), (QUOTA_MAX + 1, 1), (1, QUOTA_MAX + 1)] {
            assert_eq!(Quota::new(rate, burst), None);
        }
        let largest = Quota::new(QUOTA_MAX, QUOTA_MAX).unwrap();
        assert_eq!((largest.rate(), largest.burst()), (QUOTA_MAX, QUOTA_MAX));
        assert!(largest.take(0, u64::MAX).is_ok() && Quota::new(1, QUOTA_MAX).unwrap().take(0, 0).is_ok());
    }
}
