//! Quotas: how many requests may come in a second, and how many at once after a pause.
//!
//! The bucket is kept as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371): one number for each, and
//! no refilling.
use std::num::NonZeroU32;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// How far the clocks of cores may be apart, and how late a request may be that was handed on.
const SLACK_NS: u64 = NS_PER_SECOND;
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

    /// Takes one request out of a bucket that will be full again at `full_ns`, at the time `now_ns`, both in nanoseconds of one clock, if there
    /// is one in it. Returns when it will be full after that, which is to be kept either way, and whether there was.
    ///
    /// A bucket that is much emptier than it can be, because the clock went back or the quota was another one, is empty from now on.
    #[must_use]
    pub fn take(self, full_ns: u64, now_ns: u64) -> (u64, bool) {
        let each_ns = NS_PER_SECOND / u64::from(self.rate.get());
        let empty_ns = now_ns.saturating_add(each_ns * u64::from(self.burst.get()));
        let taken_ns = full_ns.max(now_ns).saturating_add(each_ns);
        if taken_ns <= empty_ns {
            return (taken_ns, true);
        }
        // Without the slack every late request would find a bucket that can be cut, and leave some room in it.
        let is_impossible = full_ns > empty_ns.saturating_add(SLACK_NS);
        (if is_impossible { empty_ns } else { full_ns }, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the requests at these times pass.
    fn passed(quota: Quota, times_ns: impl Iterator<Item = u64>) -> usize {
        let (mut full, mut taken) = (0, true);
        let passed = times_ns.filter(|now| {
            (full, taken) = quota.take(full, *now);
            taken
        });
        passed.count()
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
        // One that comes late gets nothing for it.
        let (full, _) = (0..5).fold((0, true), |(full, _), _| quota.take(full, start));
        let late = (0..1_000).fold(full, |full, _| quota.take(full, start - 900_000_000).0);
        assert_eq!(quota.take(late, start), (full, false));
    }

    #[test]
    fn a_clock_that_goes_back_keeps_nobody_out_for_longer_than_a_bucket_takes_to_fill() {
        let quota = Quota::new(10, 5).unwrap();
        let (now, far) = (1_000 * NS_PER_SECOND, 9_000 * NS_PER_SECOND);
        let (full, taken) = quota.take(far, now);
        assert!(!taken);
        assert_eq!(quota.take(full, now), (full, false));
        assert!(quota.take(full, now + 100_000_000).1, "there is room for the next as if it had been emptied now");
        assert!(quota.take(far, far).1);
        assert_eq!(quota.take(u64::MAX, u64::MAX), (u64::MAX, true));
    }

    #[test]
    fn a_larger_quota_is_in_force_at_once_although_the_bucket_of_the_one_before_was_empty() {
        let (slow, fast) = (Quota::new(1, 1_000).unwrap(), Quota::new(50, 100).unwrap());
        let now = 1_000 * NS_PER_SECOND;
        let full = (0..1_000).fold(0, |full, _| slow.take(full, now).0);
        let (full, taken) = fast.take(full, now);
        assert!(!taken && fast.take(full, now + 20_000_000).1);
    }

    #[test]
    fn nothing_and_too_much_are_no_quotas() {
        for (rate, burst) in [(0, 1), (1, 0), (QUOTA_MAX + 1, 1), (1, QUOTA_MAX + 1)] {
            assert_eq!(Quota::new(rate, burst), None);
        }
        let largest = Quota::new(QUOTA_MAX, QUOTA_MAX).unwrap();
        assert_eq!((largest.rate(), largest.burst()), (QUOTA_MAX, QUOTA_MAX));
        assert!(largest.take(0, u64::MAX).1 && Quota::new(1, QUOTA_MAX).unwrap().take(0, 0).1);
    }
}
