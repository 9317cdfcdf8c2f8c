//! A time in which the server may say that it cannot write, or that a quota is used up, how soon it did, and how long anybody waited for any answer meanwhile.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Shared by the load, which hears the answers, and by whoever makes the outage.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Times>);

/// How the answers of an outage came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// From its beginning until the first write was refused.
    pub refused_after: Option<Duration>,
    /// The longest that a request waited for its answer, of whatever kind, while the ledger was away: from when it was sent, or the
    /// beginning of the outage, to its answer, or the ledger's return.
    pub slowest: Option<Duration>,
}

#[derive(Debug, Default)]
struct Times {
    began: Option<Instant>,
    /// Quotas are said to be used up, and nothing else.
    storm: Option<Instant>,
    returned: Option<Instant>,
    answers: Answers,
}

impl Outage {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writes may be refused.
    pub fn begin(&self) {
        *self.times() = Times { began: Some(Instant::now()), ..Times::default() };
    }

    /// From now on writes may be refused because a quota is used up, and for no other reason.
    pub fn begin_storm(&self) {
        *self.times() = Times { storm: Some(Instant::now()), ..Times::default() };
    }

    /// What was away comes back now: how long an answer takes from here on says nothing of the outage. Refusals are still allowed.
    pub fn comes_back(&self) {
        self.times().returned.get_or_insert_with(Instant::now);
    }

    /// It is over, or there was none.
    pub fn end(&self) {
        let mut times = self.times();
        (times.began, times.storm) = (None, None);
    }

    /// Whether quotas may be said to be used up.
    pub fn is_storm(&self) -> bool {
        self.times().storm.is_some()
    }

    /// Whether it is under way.
    pub fn is_under_way(&self) -> bool {
        self.times().began.is_some()
    }

    /// A write was refused because of it.
    pub fn note_refusal(&self) {
        let mut times = self.times();
        let after = times.began.or(times.storm).map(|began| began.elapsed());
        times.answers.refused_after = times.answers.refused_after.or(after);
    }

    /// An answer has come now, to a request that waited so long for it.
    pub fn note_answer(&self, waited: Duration) {
        let mut times = self.times();
        let Some(began) = times.began else { return };
        let now = Instant::now();
        let end = times.returned.map_or(now, |returned| returned.min(now));
        let sent = now.checked_sub(waited).unwrap_or(began);
        let meanwhile = end.saturating_duration_since(sent.max(began));
        times.answers.slowest = times.answers.slowest.max(Some(meanwhile));
    }

    /// How the answers of the last outage came; taken once.
    pub fn take_answers(&self) -> Answers {
        std::mem::take(&mut self.times().answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_no_outage_and_ends_with_it() {
        let outage = Outage::default();
        outage.begin_storm();
        assert!(outage.is_storm() && !outage.is_under_way());
        outage.note_refusal();
        outage.end();
        assert!(!outage.is_storm() && outage.take_answers().refused_after.is_some());
    }

    #[test]
    fn only_what_was_waited_for_in_the_outage_counts() {
        let outage = Outage::default();
        outage.note_answer(Duration::from_secs(5));
        outage.note_refusal();
        assert_eq!(outage.take_answers(), Answers::default(), "there is no outage");
        let before = Instant::now();
        outage.begin();
        std::thread::sleep(Duration::from_millis(20));
        outage.note_refusal();
        outage.note_answer(Duration::from_secs(3_600));
        let first = outage.take_answers();
        assert!(first.refused_after >= Some(Duration::from_millis(20)), "{first:?}");
        assert!(first.slowest >= Some(Duration::from_millis(20)) && first.slowest <= Some(before.elapsed()), "{first:?}");
        outage.comes_back();
        let back = before.elapsed();
        std::thread::sleep(back);
        outage.note_answer(Duration::from_secs(3_600));
        let late = outage.take_answers().slowest.unwrap();
        assert!(late >= Duration::from_millis(20) && late <= back, "{late:?} of {back:?}");
        outage.note_answer(Duration::from_millis(1));
        assert!(outage.take_answers().slowest < Some(late), "it was sent when the ledger was back");
    }
}
