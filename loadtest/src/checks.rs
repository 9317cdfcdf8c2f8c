//! Proof that the tests find what they look for: each command's logic against a right wallet, which passes, and against
//! wallets that are wrong in one way each, which must be caught; and that latency has no coordinated omission. Crashes have theirs in `crash/tests.rs`.

use std::{
    sync::{atomic::AtomicBool, Arc},
    time::Duration,
};

use clap::Parser;

use crate::{
    args::{Cli, Command, IdleArgs, RunArgs},
    baseline::{placeholder_token, BareLoad},
    engine::{Class, Engine, Pace, Plan},
    fake::{Fake, Flaw},
    idle,
    progress::Progress,
    report::RunReport,
    responder, run,
    tokens::Token,
};

fn stop() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

fn token() -> Token {
    Token::new("token").unwrap()
}

fn run_args(extra: &[&str]) -> RunArgs {
    let line = ["loadtest", "run", "--connections", "4", "--pipeline", "8", "--accounts", "50", "--warmup", "0s", "--seed", "5"];
    match Cli::parse_from(line.iter().chain(extra)).command {
        Command::Run(args) => args,
        _other => unreachable!("the line says run"),
    }
}

fn load(flaw: Flaw) -> RunReport {
    let fake = Fake::start(flaw);
    let mix = ["--read-share", "10%", "--repeat-share", "10%", "--refusal-share", "5%", "--hot-share", "20%"];
    let args = run_args(&[&mix[..], &["--requests", "4_000"]].concat());
    run::load(&args, fake.address(), &token(), false, true, &stop()).unwrap()
}

#[test]
fn a_right_wallet_passes_and_everything_that_was_asked_is_counted() {
    let report = load(Flaw::None);
    assert!(report.ok, "{report:?}");
    let tally = &report.tally;
    assert_eq!(tally.spends + tally.reads + tally.repeats + tally.intended_refusals, report.phases[0].answered);
    assert!(report.phases[0].answered >= 4_000 && report.receipt_hashes_checked > 1_000);
    for (what, count) in [("reads", tally.reads), ("repeats", tally.repeats), ("refusals", tally.intended_refusals)] {
        assert!(count > 100, "{count} {what}");
    }
    assert_eq!(report.books.sum_minor, (50u64 * 1_000_000_000).to_string());
}

#[test]
fn a_wrong_wallet_is_caught_whatever_is_wrong_with_it() {
    let cases = [
        (Flaw::AltersRepeats, "a repeat got another receipt"),
        (Flaw::HidesRepeats, "a repeat came without Idempotency-Replayed: true"),
        (Flaw::WrongHash, "a receipt's own hash is wrong"),
        (Flaw::Fails, "spend, outcome unknown: 500 INTERNAL_ERROR"),
        (Flaw::LosesWrites, "spend: 409 NONCE_CONFLICT"),
        (Flaw::AllowsOverdrafts, "overdraft"),
    ];
    for (flaw, kind) in cases {
        let report = load(flaw);
        assert!(!report.ok, "{flaw:?} was not caught");
        assert!(report.tally.unexpected.keys().any(|found| found.starts_with(kind)), "{flaw:?}: {:?}", report.tally.unexpected);
    }
    for flaw in [Flaw::LosesCredits, Flaw::AppliesRepeats, Flaw::LosesWrites, Flaw::AllowsOverdrafts] {
        let report = load(flaw);
        assert!(!report.ok && !report.books.balanced(), "{flaw:?} left the books balanced");
    }
}

#[test]
fn a_spend_with_an_unknown_outcome_is_repeated_and_the_books_balance_again() {
    let report = load(Flaw::Fails);
    let resolved = report.resolved.expect("some spends failed");
    assert!(resolved.in_doubt > 0, "{report:?}");
    assert!(report.books.balanced(), "{report:?}");
    assert_eq!((resolved.took_effect_now, resolved.wrong), (resolved.in_doubt, 0), "none of them had taken effect");
}

#[test]
fn accounts_of_an_earlier_run_are_taken_over() {
    let fake = Fake::start(Flaw::None);
    for _ in 0..2 {
        let report = run::load(&run_args(&["--requests", "500"]), fake.address(), &token(), true, true, &stop()).unwrap();
        assert!(report.ok, "{report:?}");
    }
}

#[test]
fn latency_counts_from_the_intended_time() {
    let fake = Fake::start(Flaw::None);
    let args = run_args(&["--connections", "1", "--pipeline", "1"]);
    let mut workload = run::workload(&args.traffic, fake.address(), &token(), "load:", 1);
    run::prepare(&mut workload, &args.traffic, fake.address(), false, true, &stop()).unwrap();
    let mut engine = Engine::connect(fake.address(), 1, 1, Duration::from_secs(5), &stop()).unwrap();
    let plan = Plan { pace: Pace::PerSecond(500.0), duration: None, requests: Some(500), ending: None };
    fake.pause_once(Duration::from_millis(300));
    let outcome = engine.drive(&mut workload, &plan, &mut Progress::new("", None, true)).unwrap();
    assert_eq!((outcome.answered, outcome.unsent), (500, 0));
    // 150 requests were due while the one reply was held back; a closed loop would have seen a single slow one.
    let summary = outcome.latencies.of(Class::Spend);
    assert!(summary.p90_us > 100_000.0, "p90 is {} us", summary.p90_us);
    assert!(outcome.elapsed >= Duration::from_millis(990) && outcome.elapsed < Duration::from_secs(5));
}

#[test]
fn the_bare_responder_answers_the_same_load() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || responder::serve(|address| sender.send(address).unwrap()).unwrap());
    let address = receiver.recv().unwrap();
    let args = run_args(&[]);
    let mut load = BareLoad::new(address, &args.traffic, &placeholder_token(), 1, &stop()).unwrap();
    let plan = Plan { pace: Pace::Max, duration: None, requests: Some(5_000), ending: None };
    let outcome = load.drive(&plan, &mut Progress::new("", None, true)).unwrap();
    assert_eq!((outcome.answered, outcome.disconnected, load.tally().unexpected_count()), (5_000, 0, 0));
}

fn idle_report(flaw: Flaw) -> idle::IdleReport {
    let fake = Fake::start(flaw);
    let timeout = format!("{}ms", fake.read_timeout().as_millis());
    let line = ["loadtest", "idle", "--connections", "40", "--slow", "12", "--duration", "300ms", "--rate", "500"];
    let more = ["--load-connections", "4", "--accounts", "50", "--read-timeout", &timeout];
    let Command::Idle(args) = Cli::parse_from(line.iter().chain(&more)).command else { unreachable!("the line says idle") };
    let args: IdleArgs = args;
    let traffic = idle::traffic(&args);
    let mut workload = run::workload(&traffic, fake.address(), &token(), "load:", 3);
    idle::measure(&args, &traffic, fake.address(), &mut workload, true, &stop()).unwrap()
}

#[test]
fn idle_connections_are_served_and_slow_clients_are_cut() {
    let report = idle_report(Flaw::None);
    // Not `report.ok`: that also judges latencies, which say nothing on a machine that is busy with other tests.
    assert!(report.books.balanced() && report.phases.iter().all(|phase| phase.complete()), "{report:?}");
    assert!(report.slow.values().all(|cuts| cuts.overdue == 0 && cuts.refused == 0), "{report:?}");
    assert_eq!((report.answered_at_start, report.answered_at_end), (40, 40));
    let heads = &report.slow["dribbling heads"];
    assert!(heads.cut > 0 && heads.cut_ms_min >= 290, "{heads:?}");
}

#[test]
fn a_wallet_that_never_cuts_slow_clients_is_caught() {
    let report = idle_report(Flaw::NeverCuts);
    assert!(!report.ok);
    assert!(report.slow["dribbling bodies"].overdue > 0, "{:?}", report.slow);
}
