//! Which seeds are played beside the fixed ones: fresh ones in every run, one that is named, or as many as there is time for. The
//! names in the environment are those of `tests/simulation/`.
use super::{play, play_to_the_end};
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds in every run that no other run has played.
const FRESH: u64 = 60;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    1_000_000 + now.as_nanos() as u64 % 1_000_000_000_000
}

/// Past the capture of the test harness: the log of a run that passed has to say what it has played.
fn say(what: &str) {
    writeln!(std::io::stderr(), "{what}").expect("the log of the run takes a line");
}

/// Both lives of a seed; what failed if something did.
fn broken(seed: u64) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        play(seed);
        play_to_the_end(seed);
    }));
    let panic = played.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// Plays seeds from the first one on, on all processors, until there are enough, the time is up, or too many have failed.
fn run(first: u64, seeds: u64, seconds: u64) {
    let (began, next) = (Instant::now(), AtomicU64::new(first));
    let (failures_max, failed) = (number("SIM_FAILURES_MAX").unwrap_or(20), AtomicU64::new(0));
    let work = || {
        let (mut lives, mut failures) = (0u64, Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = began.elapsed().as_secs() >= seconds || failed.load(Ordering::Relaxed) >= failures_max;
            if seed - first >= seeds || late {
                return (lives, failures);
            }
            lives += 2;
            if let Some(what) = broken(seed) {
                failed.fetch_add(1, Ordering::Relaxed);
                failures.push((seed, what));
            }
        }
    };
    let (mut lives, mut failures) = (0, Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (played, broken) = worker.join().expect("a failing life is caught");
            lives += played;
            failures.extend(broken);
        }
    });
    failures.sort();
    say(&format!(
        "lives of links from seed {first} on: {lives} in {:.1} s, {} failed",
        began.elapsed().as_secs_f64(),
        failures.len()
    ));
    failures.iter().for_each(|(seed, what)| say(&format!("FAILED seed {seed}: {what}")));
    if let Some((seed, what)) = failures.first() {
        let again = format!("SIM_SEED={seed} cargo test --lib daemon::simulation::seeds::one_seed -- --nocapture");
        panic!("{} of {lives} histories failed; seed {seed}: {what}\n{again}", failures.len());
    }
}

#[test]
fn fresh_seeds_keep_every_promise() {
    let first = fresh();
    say(&format!("fresh seeds of links {first}..{}", first + FRESH));
    run(first, FRESH, u64::MAX);
}

#[test]
fn one_seed() {
    let seed = number("SIM_SEED").unwrap_or(0);
    println!("{:?}", play(seed));
    println!("{:?}", play_to_the_end(seed));
}

/// For hours: `SIM_SECONDS=14400 cargo test --release --lib daemon::simulation -- --ignored`.
#[test]
#[ignore = "runs as long as it is told to"]
fn for_hours() {
    run(
        number("SIM_FIRST").unwrap_or_else(fresh),
        number("SIM_SEEDS").unwrap_or(u64::MAX / 2),
        number("SIM_SECONDS").unwrap_or(60),
    );
}
