//! Random histories of the whole spend path on one thread: clients, several engines, one ledger, a disk that fails, tears and lies.
//! `docs/SIMULATION.md` says what is injected and what is checked.
//!
//! A failing seed is printed; `SIM_SEED=n cargo test --test simulation one_seed -- --nocapture` tells its history step by step.
#![allow(clippy::unwrap_used)] // Tests may; the lint knows only functions marked as such.
mod ceilings;
mod clients;
mod copies;
mod core;
mod coverage;
mod daemon;
mod disk;
mod edge;
mod failures;
mod grants;
mod history;
mod linearizability;
mod link;
mod lookups;
mod model;
mod older;
mod power;
mod proofs;
mod rng;
mod runner;
mod scrubbing;
mod snapshots;
mod swarm;
mod wallet;
mod wishes;
mod world;

use coverage::GIVEN_UP;
use runner::{number, run, Plan};
use std::io::Write;

/// Seeds that every run plays; they reach everything that there is to reach.
const FIXED: u64 = 1500;
/// Other seeds in every run.
const FRESH: u64 = 300;

fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    1_000_000 + now.as_nanos() as u64 % 1_000_000_000_000
}

#[test]
fn fixed_seeds_keep_every_promise_and_reach_everything() {
    let seeds = number("SIM_SEEDS").unwrap_or(FIXED);
    let summary = run(&Plan { first: 0, seeds, seconds: None });
    println!("{summary}");
    summary.assert_no_failure();
    assert_eq!(summary.coverage.unlisted(), Vec::<&str>::new(), "counted and not listed");
    if seeds >= FIXED {
        assert_eq!(summary.coverage.missing(), Vec::<&str>::new(), "never reached");
        let (decided, given_up) = (summary.coverage.get("linearizability: account checked"), summary.coverage.get(GIVEN_UP));
        assert!(given_up * 100 < decided, "{given_up} histories of accounts were too tangled to decide, {decided} were not");
    }
}

#[test]
fn fresh_seeds_keep_every_promise() {
    let first = fresh();
    // Past the capture: the log of a run that passed has to say what it has played.
    writeln!(std::io::stderr(), "fresh seeds {first}..{}", first + FRESH).unwrap();
    run(&Plan { first, seeds: FRESH, seconds: None }).assert_no_failure();
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..40 {
        assert_eq!(history::play(seed, false), history::play(seed, false), "seed {seed}");
    }
}

/// Tells the history of one seed.
#[test]
fn one_seed() {
    let seed = number("SIM_SEED");
    let outcome = history::play(seed.unwrap_or(1), seed.is_some());
    println!("{}", outcome.coverage);
}

/// For hours: `SIM_SECONDS=14400 SIM_SUMMARY=summary.txt cargo test --release --test simulation -- --ignored --nocapture`.
#[test]
#[ignore = "runs as long as it is told to"]
fn for_hours() {
    let first = number("SIM_FIRST").unwrap_or_else(fresh);
    let plan = Plan { first, seeds: number("SIM_SEEDS").unwrap_or(u64::MAX / 2), seconds: number("SIM_SECONDS").or(Some(60)) };
    let summary = run(&plan);
    println!("{summary}");
    let path = std::env::var("SIM_SUMMARY").unwrap_or_else(|_| "target/simulation-summary.txt".into());
    std::fs::write(&path, summary.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("written to {path}");
    summary.assert_no_failure();
}
