//! What was logged last of the connection to the daemon, so that one reason is not told again and again.
use crate::ledger::backoff::Backoff;
use std::time::{Duration, Instant};

/// Time between two log lines about connections that were lost for the same reason, at first and at the most: a standby waits for days.
const LOSS_NOTE_EVERY: Duration = Duration::from_secs(1);
const LOSS_NOTE_EVERY_MAX: Duration = Duration::from_secs(600);

/// Why a connection was lost, as it was logged last.
pub(super) struct Noted {
    reason: String,
    begun: Instant,
    pauses: Backoff,
}

impl Default for Noted {
    fn default() -> Self {
        let pauses = Backoff::new(LOSS_NOTE_EVERY, LOSS_NOTE_EVERY_MAX);
        Self { reason: String::new(), begun: Instant::now(), pauses }
    }
}

impl Noted {
    /// Whether this is to be logged now: the same reason not too often, and ever more seldom.
    pub fn is_due(&mut self, reason: &str, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.begun);
        if self.reason != reason {
            self.reason = reason.to_owned();
            self.pauses.forget();
        }
        let due = self.pauses.is_over(now);
        if due {
            self.pauses.failed(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_is_logged_once_a_second_and_another_one_at_once() {
        let (mut noted, began) = (Noted::default(), Instant::now());
        let mut due = |reason: &str, after_ms| noted.is_due(reason, began + Duration::from_millis(after_ms));
        assert_eq!([due("in use", 0), due("in use", 1), due("in use", 999)], [true, false, false]);
        assert_eq!(
            [due("in use", 1_000), due("in use", 1_001), due("gone", 1_002), due("gone", 1_003)],
            [true, false, true, false]
        );
        assert!(due("in use", 1_004));
    }
}
