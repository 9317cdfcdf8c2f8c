//! When something that has failed is tried again: each pause is twice as long as the one before it, up to the longest. Pure.
//!
//! The time is told by the caller, and it is for the caller to try.
use std::time::Duration;

/// The pauses between attempts that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    until: Duration,
}

impl Backoff {
    /// Nothing has failed yet; these are the first pause and the longest one.
    pub fn new(first: Duration, longest: Duration) -> Self {
        assert!(first <= longest, "pauses only grow");
        Self { first, longest, next: first, until: Duration::ZERO }
    }

    /// It has failed at this time; returns how long to pause.
    pub fn failed(&mut self, now: Duration) -> Duration {
        let pause = self.next;
        self.until = now.saturating_add(pause);
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// It has not failed, or something else is tried next.
    pub fn forget(&mut self) {
        *self = Self::new(self.first, self.longest);
    }

    /// Whether it may be tried at this time.
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        assert!(backoff.is_over(Duration::ZERO));
        let mut now = seconds(100);
        for pause in [1, 2, 4, 5, 5].map(seconds) {
            assert_eq!(backoff.failed(now), pause);
            assert!(!backoff.is_over(now) && !backoff.is_over(now + pause - Duration::from_nanos(1)));
            now += pause;
            assert!(backoff.is_over(now));
        }
        backoff.failed(now);
        backoff.forget();
        assert!(backoff.is_over(now));
        assert_eq!(backoff.failed(now), seconds(1));
        backoff.failed(Duration::MAX);
        assert!(!backoff.is_over(now), "nothing overflows");
    }
}
