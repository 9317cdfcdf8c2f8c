//! Whether a dependency that is there stays: one that keeps coming and going counts as missing a moment longer, so that readiness does
//! not flap with it. The first time it goes and comes back shows at once, both ways.
use std::time::{Duration, Instant};

/// A dependency that goes within this time of its return keeps coming and going.
const STEADY_TIME: Duration = Duration::from_secs(30);
/// How long it has to stay after such a return, the first time; twice as long after each further one.
const HOLD_TIME: Duration = Duration::from_secs(1);
/// And at most.
const HOLD_TIME_MAX: Duration = Duration::from_secs(4);

/// The comings and goings of one dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steadiness {
    is_missing: bool,
    /// Whether it was there before it went missing: the first time that it is there is no return.
    was_there: bool,
    returned: Option<Instant>,
    /// How often in a row it went soon after a return.
    bounces: u32,
}

impl Default for Steadiness {
    /// That of one that has not been there yet.
    fn default() -> Self {
        Self { is_missing: true, was_there: false, returned: None, bounces: 0 }
    }
}

impl Steadiness {
    /// It is missing, or there, at this time.
    pub fn note(&mut self, is_missing: bool, now: Instant) {
        match (std::mem::replace(&mut self.is_missing, is_missing), is_missing) {
            (false, true) => {
                let is_soon = self.returned.is_some_and(|returned| now.duration_since(returned) < STEADY_TIME);
                self.bounces = if is_soon { self.bounces.saturating_add(1) } else { 0 };
            }
            (true, false) => {
                self.returned = self.was_there.then_some(now);
                self.was_there = true;
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Whether it is there and has yet to show that it stays.
    pub fn is_held(&self, now: Instant) -> bool {
        let hold = self.bounces.checked_sub(1).map(|further| HOLD_TIME.saturating_mul(1 << further.min(8)).min(HOLD_TIME_MAX));
        let returned = self.returned.filter(|_| !self.is_missing);
        hold.zip(returned).is_some_and(|(hold, returned)| now.duration_since(returned) < hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_shows_at_once_and_whoever_comes_and_goes_has_to_stay_for_longer_each_time() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut steadiness = Steadiness::default();
        steadiness.note(true, at(0));
        steadiness.note(false, at(10));
        steadiness.note(true, at(20));
        steadiness.note(false, at(100));
        assert!(!steadiness.is_held(at(100)), "it went once, soon after it was there at last");
        let mut now = 100;
        for hold in [1_000, 2_000, 4_000, 4_000] {
            steadiness.note(true, at(now + 50));
            assert!(!steadiness.is_held(at(now + 60)), "it is missing, and not held");
            steadiness.note(false, at(now + 100));
            steadiness.note(false, at(now + 200));
            now += 100;
            assert!(steadiness.is_held(at(now + hold - 1)) && !steadiness.is_held(at(now + hold)), "after {now} ms");
            now += hold;
        }
        // It stayed for long: the next time counts as the first.
        now += 30_000;
        steadiness.note(true, at(now));
        steadiness.note(false, at(now + 10));
        assert!(!steadiness.is_held(at(now + 10)));
    }
}
