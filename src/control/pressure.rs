//! Whether more arrives than is done: of requests in flight, of what waits in the inboxes of cores, of the commit that is under way, and of
//! room on the disk of the ledger.
//!
//! It begins at once with the first measure that is above its bound, and ends when all of them have been well below for a while: so
//! readiness follows within a look, and does not flap.
use std::time::{Duration, Instant};

/// Share of a ceiling, in percent, above which the service is under pressure, and below which it no longer is.
const PRESSURE_PERCENT_MIN: usize = 90;
const RELIEF_PERCENT_MAX: usize = 70;
/// A commit counts as quick again below this share of its bound, in percent.
const QUICK_PERCENT_MAX: u128 = 50;
/// How long everything has to be well before pressure ends.
const RELIEF_TIME: Duration = Duration::from_secs(1);

/// The measures at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Requests in flight, and how many may be.
    pub in_flight: (usize, usize),
    /// Letters in the fullest inbox of a core, and how many fit.
    pub inbox: (usize, usize),
    /// How long the commit that is under way has taken so far, and its bound.
    pub commit: (Duration, Duration),
    /// Whether the disk of the ledger has no room for the next segment, and this one is half full.
    pub is_disk_scarce: bool,
}

impl Load {
    /// What is above its bound, for the operator.
    fn excess(&self) -> Option<String> {
        let above = |(now, most): (usize, usize)| percent(now, most) > PRESSURE_PERCENT_MIN;
        let (commit, bound) = self.commit;
        if above(self.in_flight) {
            let (now, most) = self.in_flight;
            return Some(format!("{now} requests are in flight, and limits.inflight is {most}"));
        }
        if commit > bound {
            return Some(format!(
                "a commit has taken {} ms so far, and ledger.commit_max is {} ms",
                commit.as_millis(),
                bound.as_millis()
            ));
        }
        if self.is_disk_scarce {
            return Some("the disk has no room for the next segment of the ledger, and the present one is half full; free space in the ledger directory".to_owned());
        }
        above(self.inbox).then(|| format!("the inbox of a core holds {} letters of {} that fit", self.inbox.0, self.inbox.1))
    }

    /// Whether everything is well below its bound.
    fn is_light(&self) -> bool {
        let below = |(now, most): (usize, usize)| percent(now, most) < RELIEF_PERCENT_MAX;
        let (commit, bound) = self.commit;
        !self.is_disk_scarce
            && below(self.in_flight)
            && below(self.inbox)
            && commit.as_micros() * 100 <= bound.as_micros() * QUICK_PERCENT_MAX
    }
}

fn percent(now: usize, most: usize) -> usize {
    now.saturating_mul(100) / most.max(1)
}

/// Pressure from one look to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Pressure {
    /// Why there is some.
    reason: Option<String>,
    /// Since when everything has been well.
    well_since: Option<Instant>,
}

impl Pressure {
    /// One look; why there is pressure, if there is.
    pub fn look(&mut self, load: &Load, now: Instant) -> Option<&str> {
        if let Some(excess) = load.excess() {
            (self.reason, self.well_since) = (Some(excess), None);
        } else if !load.is_light() {
            self.well_since = None;
        } else if now.duration_since(*self.well_since.get_or_insert(now)) >= RELIEF_TIME {
            self.reason = None;
        }
        self.reason.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIGHT: Load = Load {
        in_flight: (0, 1_000),
        inbox: (0, 1_024),
        commit: (Duration::ZERO, Duration::from_millis(500)),
        is_disk_scarce: false,
    };

    fn commit(ms: u64) -> Load {
        Load { commit: (Duration::from_millis(ms), LIGHT.commit.1), ..LIGHT }
    }

    #[test]
    fn pressure_begins_at_once_with_any_measure_and_says_which() {
        let measures = [
            (Load { in_flight: (910, 1_000), ..LIGHT }, "910 requests are in flight, and limits.inflight is 1000"),
            (Load { inbox: (1_000, 1_024), ..LIGHT }, "1000 letters of 1024"),
            (Load { is_disk_scarce: true, ..LIGHT }, "no room for the next segment"),
            (commit(501), "has taken 501 ms so far, and ledger.commit_max is 500 ms"),
            (Load { in_flight: (1, 1), ..LIGHT }, "1 requests"),
        ];
        for (load, told) in measures {
            let mut pressure = Pressure::default();
            let reason = pressure.look(&load, Instant::now()).unwrap_or_default().to_owned();
            assert!(reason.contains(told), "{reason}");
        }
        for load in [Load { in_flight: (900, 1_000), ..LIGHT }, Load { inbox: (900, 1_024), ..LIGHT }, commit(500)] {
            assert_eq!(Pressure::default().look(&load, Instant::now()), None, "{load:?}");
        }
    }

    #[test]
    fn it_ends_when_everything_has_been_well_for_a_while_and_does_not_flap() {
        let (mut pressure, begin) = (Pressure::default(), Instant::now());
        let mut look = |ms: u64, load: &Load| pressure.look(load, begin + Duration::from_millis(ms)).is_some();
        assert!(look(0, &commit(600)));
        assert!(look(50, &commit(0)) && look(1_000, &commit(0)), "it was well for less than a second");
        assert!(look(1_040, &commit(300)), "and is not well enough");
        assert!(look(1_100, &commit(0)) && look(2_050, &commit(0)));
        assert!(!look(2_100, &commit(0)));
        // One that goes up and down faster than that is under pressure all the while.
        for round in 0..20 {
            assert!(look(3_000 + 700 * round, &commit(600)) && look(3_200 + 700 * round, &commit(0)));
        }
        assert!(!look(60_000, &commit(0)));
    }
}
