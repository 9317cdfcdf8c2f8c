//! A core's clock: a steady one for durations and the wall clock for what is written down.
use crate::domain::UnixMs;
use crate::http::{http_date, HTTP_DATE_BYTES};
use crate::ledger::unix_now;
use std::time::Instant;

/// Tells the time to one core.
pub struct Clock {
    started: Instant,
    date_second: u64,
    date: String,
}

impl Clock {
    /// A clock that starts at zero.
    pub fn new() -> Self {
        let mut clock = Self { started: Instant::now(), date_second: u64::MAX, date: String::new() };
        clock.note_time();
        clock
    }

    /// Microseconds since the clock was made.
    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The wall clock.
    pub fn unix_now(&self) -> UnixMs {
        unix_now()
    }

    /// Renews the date of replies; to be called several times a second.
    pub fn note_time(&mut self) {
        let second = self.unix_now().0 / 1000;
        if second != self.date_second {
            self.date_second = second;
            self.date.clear();
            self.date.push_str(http_date(second, &mut [0; HTTP_DATE_BYTES]));
        }
    }

    /// The date as HTTP writes it.
    pub fn date(&self) -> &str {
        &self.date
    }
}
