//! Latencies by class, without losing the tail: one hdrhistogram each, in nanoseconds, at three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::engine::Class;

/// Longer latencies are recorded as this: one minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// The histograms of one drive.
#[derive(Clone, Debug)]
pub struct Latencies {
    classes: [Histogram<u64>; 4],
}

/// The figures of one histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Replies measured.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 90 of 100 are at most this.
    pub p90_us: f64,
    /// 95 of 100.
    pub p95_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Latencies {
    /// Empty histograms; recording allocates nothing.
    pub fn new() -> Latencies {
        let empty = || Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are constants in order");
        Latencies { classes: [empty(), empty(), empty(), empty()] }
    }

    /// Counts one reply.
    pub fn record(&mut self, class: Class, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.classes[index(class)].saturating_record(nanoseconds);
    }

    /// Counts what others have counted.
    pub fn add(&mut self, others: &Latencies) {
        for (class, other) in self.classes.iter_mut().zip(&others.classes) {
            class.add(other).expect("all histograms have the same bounds");
        }
    }

    /// The figures of one class.
    pub fn of(&self, class: Class) -> Summary {
        summary(&self.classes[index(class)])
    }

    /// The figures of all replies together.
    pub fn all(&self) -> Summary {
        let mut sum = self.classes[0].clone();
        for class in &self.classes[1..] {
            sum.add(class).expect("all histograms have the same bounds");
        }
        summary(&sum)
    }

    /// The 99th percentile of fresh spends, or of reads if there are none: for the progress line.
    pub fn quick_p99(&self) -> Duration {
        let spends = &self.classes[index(Class::Spend)];
        let shown = if spends.is_empty() { &self.classes[index(Class::Read)] } else { spends };
        Duration::from_nanos(shown.value_at_quantile(0.99))
    }
}

fn index(class: Class) -> usize {
    match class {
        Class::Spend => 0,
        Class::Read => 1,
        Class::Repeat => 2,
        Class::Refusal => 3,
    }
}

fn summary(histogram: &Histogram<u64>) -> Summary {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Summary {
        count: histogram.len(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p95_us: at(0.95),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: histogram.max() as f64 / 1_000.0,
    }
}
