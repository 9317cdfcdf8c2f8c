//! When it is to be noted how far the ledger reaches: once, after nothing was committed for a while.
//!
//! Whoever commits tells the time, waits, and notes.
use std::time::{Duration, Instant};

/// Once nothing was committed for so long, it is noted how far the ledger reaches.
const NOTE_AFTER: Duration = Duration::from_secs(1);

/// What was committed last, until it is noted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    committed: Option<Instant>,
}

impl Quiet {
    /// Something was committed.
    pub fn committed(&mut self, now: Instant) {
        self.committed = Some(now);
    }

    /// How long it must stay quiet until there is something to note; `None` if there is nothing.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let committed = self.committed?;
        Some(NOTE_AFTER.saturating_sub(now.saturating_duration_since(committed)))
    }

    /// Whether it is to be noted now; then it counts as noted.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let due = self.left(now) == Some(Duration::ZERO);
        if due {
            self.committed = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_noted_once_after_each_time_that_nothing_was_committed_for_long_enough() {
        let (mut quiet, mut now) = (Quiet::default(), Instant::now());
        assert_eq!((quiet.left(now), quiet.take_due(now)), (None, false));
        for _ in 0..2 {
            quiet.committed(now);
            assert_eq!(quiet.left(now), Some(NOTE_AFTER));
            now += NOTE_AFTER / 2;
            assert!(!quiet.take_due(now));
            // Another commit: it is quiet from here on.
            quiet.committed(now);
            now += NOTE_AFTER - Duration::from_nanos(1);
            assert_eq!((quiet.take_due(now), quiet.left(now)), (false, Some(Duration::from_nanos(1))));
            now += Duration::from_nanos(1);
            assert!(quiet.take_due(now));
            assert_eq!((quiet.left(now), quiet.take_due(now + NOTE_AFTER)), (None, false));
        }
    }
}
