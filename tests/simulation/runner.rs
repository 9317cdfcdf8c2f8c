//! Many seeds on all processors, and what they came to.
use crate::coverage::Coverage;
use crate::history::play;
use std::io::Write as _;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures after which a run ends early, unless `SIM_FAILURES_MAX` says otherwise.
const FAILURES_MAX: u64 = 20;

/// Which seeds, and for how long at most.
pub struct Plan {
    pub first: u64,
    pub seeds: u64,
    pub seconds: Option<u64>,
}

/// A seed whose history broke a promise, and which.
pub struct Failure {
    pub seed: u64,
    pub what: String,
}

#[derive(Default)]
pub struct Summary {
    pub first: u64,
    pub histories: u64,
    pub steps: u64,
    pub took: Duration,
    pub failures: Vec<Failure>,
    pub coverage: Coverage,
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

/// Plays all seeds of the plan.
pub fn run(plan: &Plan) -> Summary {
    let started = Instant::now();
    let (next, told) = (AtomicU64::new(plan.first), AtomicU64::new(0));
    let (failed, failures_max) = (AtomicU64::new(0), number("SIM_FAILURES_MAX").unwrap_or(FAILURES_MAX));
    let work = || {
        let mut summary = Summary::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = plan.seconds.is_some_and(|seconds| started.elapsed().as_secs() >= seconds);
            if seed - plan.first >= plan.seeds || late || failed.load(Ordering::Relaxed) >= failures_max {
                return summary;
            }
            match catch_unwind(AssertUnwindSafe(|| play(seed, false))) {
                Ok(outcome) => {
                    summary.steps += outcome.steps;
                    summary.coverage.add(&outcome.coverage);
                }
                Err(panic) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    let text = panic.downcast_ref::<String>().cloned();
                    let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
                    // At once, and past the capture of test output: the run may go on for hours.
                    let _ = writeln!(std::io::stderr(), "FAILED seed {seed}: {what}");
                    summary.failures.push(Failure { seed, what });
                }
            }
            summary.histories += 1;
            let minutes = started.elapsed().as_secs() / 60;
            if told.fetch_max(minutes, Ordering::Relaxed) < minutes {
                let _ = writeln!(std::io::stderr(), "{} histories after {minutes} min", seed + 1 - plan.first);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut total = Summary { first: plan.first, ..Summary::default() };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let part = worker.join().expect("a failing history is caught");
            total.histories += part.histories;
            total.steps += part.steps;
            total.coverage.add(&part.coverage);
            total.failures.extend(part.failures);
        }
    });
    total.failures.sort_by_key(|failure| failure.seed);
    total.took = started.elapsed();
    total
}

impl Summary {
    pub fn assert_no_failure(&self) {
        let Some(Failure { seed, what }) = self.failures.first() else { return };
        let again = format!("SIM_SEED={seed} cargo test --test simulation one_seed -- --nocapture");
        panic!("{} of {} histories failed; seed {seed}: {what}\n{again}", self.failures.len(), self.histories);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(f, "seeds from         {:>12}", self.first)?;
        writeln!(f, "histories          {:>12}", self.histories)?;
        writeln!(f, "seconds            {seconds:>12.1}")?;
        writeln!(f, "histories/s        {:>12.0}", self.histories as f64 / seconds.max(1e-9))?;
        writeln!(f, "steps              {:>12}", self.steps)?;
        writeln!(f, "failures           {:>12}", self.failures.len())?;
        for Failure { seed, what } in &self.failures {
            writeln!(f, "FAILED seed {seed}: {what}")?;
        }
        write!(f, "{}", self.coverage)
    }
}
