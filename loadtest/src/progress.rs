//! The line on standard error that tells that something is happening, and how fast.
//!
//! On a terminal one line is rewritten; otherwise whole lines are written, so that a log stays readable.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::latency::Latencies;

const INTERVAL: Duration = Duration::from_millis(400);

/// Who is working, and towards what.
pub struct Progress {
    label: String,
    total: Option<u64>,
    quiet: bool,
    terminal: bool,
    begin: Instant,
    last: Instant,
    last_done: u64,
}

impl Progress {
    /// A line for one piece of work. `total` is the number of replies that it will take, if that is known.
    pub fn new(label: impl Into<String>, total: Option<u64>, quiet: bool) -> Progress {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Progress { label: label.into(), total, quiet, terminal, begin: now, last: now, last_done: 0 }
    }

    /// Writes the line if it is time to.
    pub fn tick(&mut self, now: Instant, done: u64, troubles: u64, latencies: &Latencies) {
        let past = now.duration_since(self.last);
        if self.quiet || past < INTERVAL {
            return;
        }
        let rate = (done - self.last_done) as f64 / past.as_secs_f64();
        let of = self.total.map(|total| format!(" of {}", grouped(total))).unwrap_or_default();
        let unexpected = if troubles == 0 { String::new() } else { format!("   UNEXPECTED {troubles}") };
        self.write(&format!(
            "{:>6.1} s  {:<26} {}{of} replies   {}/s   p99 {}{unexpected}",
            now.duration_since(self.begin).as_secs_f64(),
            self.label,
            grouped(done),
            grouped(rate as u64),
            short_duration(latencies.quick_p99()),
        ));
        (self.last, self.last_done) = (now, done);
    }

    /// Clears the line of a terminal; the result is somebody else's to print.
    pub fn done(&mut self, done: u64, latencies: &Latencies) {
        if self.terminal && !self.quiet {
            let mut out = std::io::stderr().lock();
            let _no_terminal_left = write!(out, "\r\x1b[K");
        } else if !self.quiet && self.last_done > 0 {
            let elapsed = self.begin.elapsed().as_secs_f64();
            let p99 = short_duration(latencies.quick_p99());
            self.write(&format!("{elapsed:>6.1} s  {:<26} {} replies, done   p99 {p99}", self.label, grouped(done)));
        }
    }

    fn write(&self, line: &str) {
        let mut out = std::io::stderr().lock();
        // A closed standard error must not end a test.
        let _no_reader_left =
            if self.terminal { write!(out, "\r{line}\x1b[K").and_then(|()| out.flush()) } else { writeln!(out, "{line}") };
    }
}

/// A number with a comma every three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits and the unit that suits them.
pub fn short_duration(duration: Duration) -> String {
    let microseconds = duration.as_secs_f64() * 1e6;
    if microseconds < 1_000.0 {
        format!("{microseconds:.0} us")
    } else if microseconds < 100_000.0 {
        format!("{:.2} ms", microseconds / 1e3)
    } else if microseconds < 1_000_000.0 {
        format!("{:.0} ms", microseconds / 1e3)
    } else {
        format!("{:.2} s", microseconds / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_read_well() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (microseconds, text) in [(950, "950 us"), (1_500, "1.50 ms"), (250_000, "250 ms"), (2_500_000, "2.50 s")] {
            assert_eq!(short_duration(Duration::from_micros(microseconds)), text);
        }
    }
}
