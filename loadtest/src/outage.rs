//! A time in which the server may say that it cannot write, and how soon it did.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Shared by the load, which hears the refusals, and by whoever makes the outage.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    began: Option<Instant>,
    refused_after: Option<Duration>,
}

impl Outage {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writes may be refused.
    pub fn begin(&self) {
        *self.times() = Times { began: Some(Instant::now()), refused_after: None };
    }

    /// It is over, or there was none.
    pub fn end(&self) {
        self.times().began = None;
    }

    /// Whether it is under way.
    pub fn is_under_way(&self) -> bool {
        self.times().began.is_some()
    }

    /// A write was refused because of it.
    pub fn note_refusal(&self) {
        let mut times = self.times();
        let after = times.began.map(|began| began.elapsed());
        times.refused_after = times.refused_after.or(after);
    }

    /// When the first write was refused, from the beginning of the last outage on; taken once.
    pub fn take_first_refusal(&self) -> Option<Duration> {
        self.times().refused_after.take()
    }
}
