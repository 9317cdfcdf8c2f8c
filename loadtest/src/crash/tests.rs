//! Proof that each kind of round finds what it looks for: a wallet that keeps its promises survives all of them, and one that is
//! wrong in a single way is caught.

use std::sync::{atomic::AtomicBool, Arc};

use clap::Parser;

use super::{life, variant::Variant, CrashReport};
use crate::{
    args::{Cli, Command, CrashArgs},
    fake::{Fake, Flaw},
    operations::Op,
    report::Report,
    run,
    tokens::Token,
};

const ROUNDS: u64 = 3;
/// Variants whose wallet goes on while its ledger is away.
const OUTAGES: [Variant; 5] = [Variant::Daemon, Variant::DiskFull, Variant::SmallDisk, Variant::LoseUnsynced, Variant::SyncError];
/// Variants that kill the wallet.
const KILLS: [Variant; 3] = [Variant::Embedded, Variant::Wallet, Variant::Both];

fn crash_args(extra: &[&str]) -> CrashArgs {
    let line = ["loadtest", "crash", "--connections", "4", "--pipeline", "8", "--accounts", "50", "--rounds", "3"];
    let more = [
        "--kill-after-min",
        "50ms",
        "--kill-after-max",
        "150ms",
        "--repeat-share",
        "1%",
        "--hot-share",
        "20%",
        "--operation-share",
        "30%",
    ];
    match Cli::parse_from(line.iter().chain(&more).chain(extra)).command {
        Command::Crash(args) => args,
        _other => unreachable!("the line says crash"),
    }
}

fn crash_with(flaw: Flaw, variant: Variant, extra: &[&str]) -> CrashReport {
    let args = crash_args(extra);
    let mut report = CrashReport::new(9, ROUNDS);
    let lives = if variant.ends_its_ledger() { ROUNDS } else { 1 };
    for _ in 0..lives {
        let mut fake = Fake::for_variant(flaw, variant);
        let token = Token::new("token").unwrap();
        let mut workload = run::workload(&args.traffic, fake.address(), &token, "load:", 9);
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = ROUNDS / lives;
        if !life(&args, variant, rounds, 9, &mut fake, &mut workload, &mut report, true, &stop).unwrap() {
            break;
        }
    }
    report
}

fn crash(flaw: Flaw, variant: Variant) -> CrashReport {
    crash_with(flaw, variant, &[])
}

/// Fails unless the flaw is found, in the column that it belongs to and, if a kind of trouble is named, as that.
fn is_caught(flaw: Flaw, variant: Variant, column: impl Fn(&CrashReport) -> u64, kind: &str) {
    let report = crash(flaw, variant);
    assert!(!report.ok, "{flaw:?} was not caught in {variant:?}: {report:?}");
    assert!(column(&report) > 0, "{flaw:?} in {variant:?} is not where it belongs: {:?}", report.variants);
    let named = report.tally.unexpected.keys().any(|found| found.starts_with(kind));
    assert!(named || kind.is_empty(), "{flaw:?} in {variant:?}: {:?}", report.tally.unexpected);
}

fn missing(report: &CrashReport) -> u64 {
    report.variants[0].missing
}

fn doubled(report: &CrashReport) -> u64 {
    report.variants[0].doubled
}

fn not_audited(report: &CrashReport) -> u64 {
    report.variants[0].not_audited
}

fn unexplained(report: &CrashReport) -> u64 {
    report.variants[0].unexplained
}

#[test]
fn a_wallet_that_keeps_its_promises_survives_everything() {
    for variant in Variant::ALL {
        let report = crash(Flaw::None, variant);
        assert!(report.ok, "{report:?}");
        let sums = &report.variants[0];
        assert_eq!((report.rounds.len() as u64, sums.rounds, report.variants.len()), (ROUNDS, ROUNDS, 1));
        assert!(report.rounds.iter().all(|round| round.acknowledged > 0), "{report:?}");
        assert!(Op::OTHERS.iter().all(|op| report.tally.by_operation.get(op) > Some(&0)), "{report:?}");
        let (detected, ended) = if variant == Variant::LyingSync { (ROUNDS, 0) } else { (0, 1) };
        assert_eq!((sums.detected, sums.ledgers_verified), (detected, ended), "{variant:?}");
        assert_eq!(sums.ended, if variant == Variant::SyncError { ROUNDS } else { 0 }, "{variant:?}");
        assert_eq!(sums.kills_survived, if variant.kills() { ROUNDS } else { 0 }, "{variant:?}");
        let refuses = OUTAGES.contains(&variant) || variant == Variant::SmallDiskEmbedded;
        assert_eq!(sums.unavailable > 0, refuses, "{variant:?}: {sums:?}");
        let doubts = KILLS.contains(&variant) || OUTAGES.contains(&variant) || variant == Variant::Replace;
        assert!(sums.in_doubt > 0 || !doubts, "{variant:?}: {sums:?}");
        report.print();
    }
}

#[test]
fn so_does_it_under_a_load_of_a_fixed_rate() {
    for variant in [Variant::Embedded, Variant::Daemon, Variant::Replace] {
        let report = crash_with(Flaw::None, variant, &["--rate", "2_000"]);
        assert!(report.ok && report.variants[0].acknowledged > 0, "{report:?}");
    }
}

#[test]
fn a_wallet_that_forgets_or_changes_what_it_acknowledged_is_caught() {
    for variant in KILLS.iter().chain(&OUTAGES) {
        is_caught(Flaw::ForgetsAtRestart, *variant, missing, "an acknowledged receipt, fetched: 404 NOT_FOUND");
        is_caught(Flaw::AltersReceiptsAtRestart, *variant, missing, "an acknowledged receipt came back different");
    }
    is_caught(Flaw::AltersRepeats, Variant::Embedded, unexplained, "");
}

#[test]
fn a_wallet_that_does_something_twice_or_not_at_all_is_caught() {
    for variant in [Variant::Embedded, Variant::Daemon, Variant::Pause, Variant::Replace] {
        is_caught(Flaw::LosesCredits, variant, doubled, "");
        is_caught(Flaw::AppliesRepeats, variant, doubled, "");
        is_caught(Flaw::HasAnEntryBesides, variant, doubled, "");
        is_caught(Flaw::KeepsWhatIsHeld, variant, doubled, "");
        is_caught(Flaw::AuditsOneLess, variant, not_audited, "");
    }
    for variant in OUTAGES {
        is_caught(Flaw::AppliesWhatItRefuses, variant, doubled, "");
    }
}

#[test]
fn an_issue_that_its_key_does_not_protect_is_caught() {
    for variant in [Variant::Embedded, Variant::Daemon, Variant::Pause] {
        let report = crash_with(Flaw::AppliesRepeatedIssues, variant, &["--operation-share", "100%", "--repeat-share", "20%"]);
        assert!(!report.ok && doubled(&report) > 0, "{variant:?}: {report:?}");
    }
}

#[test]
fn an_outage_is_no_excuse_for_what_it_does_not_explain() {
    for variant in OUTAGES {
        is_caught(Flaw::RefusesBeforehand, variant, unexplained, "spend, outcome unknown: 503 UPSTREAM_UNAVAILABLE");
        is_caught(Flaw::DoesNotReadInAnOutage, variant, unexplained, "balance read: 503 UPSTREAM_UNAVAILABLE");
        is_caught(Flaw::BreaksInAnOutage, variant, unexplained, "connections broke although their wallet went on");
    }
}

#[test]
fn a_wallet_that_was_replaced_and_goes_on_is_caught() {
    let fetched = "an acknowledged receipt";
    is_caught(Flaw::AcknowledgesWhenReplaced, Variant::Replace, missing, fetched);
    let kind = "a wallet that was replaced has not ended as it must";
    is_caught(Flaw::DoesNotEndWhenReplaced, Variant::Replace, unexplained, kind);
}

#[test]
fn a_wallet_that_believes_a_disk_that_lied_is_caught() {
    is_caught(Flaw::ServesAfterALie, Variant::LyingSync, unexplained, "what a disk had lost was not noticed");
    is_caught(Flaw::ServesAfterALie, Variant::LyingSync, missing, "an acknowledged receipt, fetched: 404 NOT_FOUND");
}

#[test]
fn a_wallet_that_goes_on_after_a_lie_that_cost_nothing_is_right() {
    let report = crash(Flaw::LosesNothingByALie, Variant::LyingSync);
    assert!(report.ok, "{report:?}");
    let sums = &report.variants[0];
    assert_eq!((sums.rounds, sums.detected, sums.ledgers_verified), (ROUNDS, 0, ROUNDS));
    report.print();
}

#[test]
fn a_daemon_that_passes_over_a_failed_sync_is_caught() {
    is_caught(Flaw::PassesOverAFailedSync, Variant::SyncError, unexplained, "a sync that failed was passed over");
    assert_eq!(crash(Flaw::PassesOverAFailedSync, Variant::SyncError).variants[0].ended, 0);
}

#[test]
fn an_earlier_receipt_that_is_missing_for_one_round_is_missed_in_that_round() {
    let report = crash(Flaw::ForgetsOneForARound, Variant::Embedded);
    // At the end it is back, so only looking for every receipt after each restart can tell.
    let second = report.rounds.last().unwrap();
    assert!(!report.ok && second.number == 2 && second.found.identical + 1 == second.found.asked, "{report:?}");
}

#[test]
fn every_round_is_followed_by_a_look_for_every_receipt_so_far() {
    for variant in KILLS.iter().chain(&OUTAGES) {
        let report = crash(Flaw::None, *variant);
        let mut earlier = 0;
        for round in &report.rounds {
            assert_eq!(round.found.asked, earlier + round.acknowledged, "{report:?}");
            assert_eq!(round.found.identical, round.found.asked, "{report:?}");
            earlier += round.acknowledged + round.resolved.in_doubt;
        }
    }
}

#[test]
fn a_wallet_that_forgets_keys_is_caught_by_repeating_what_is_in_doubt() {
    // Only spends whose effect outlived the kill can show it, so it is looked for in several runs.
    let caught = (0..5).any(|_| !crash(Flaw::ForgetsKeysAtRestart, Variant::Embedded).ok);
    assert!(caught);
}
