//! `loadtest crash`: a service that is killed, paused, filled up or deceived under load, and nothing acknowledged may be missing.
//!
//! After each round: every receipt of this ledger's life is fetched and compared byte for byte; every spend that was sent and not
//! answered is repeated with its key, twice; then the books must balance. After some rounds the ledger's life ends: all receipts are
//! fetched once more, those of the last repeats among them, the service ends in order, and its ledger is replayed and must have as
//! many entries as there are receipts. The first round that finds something is the last one.
//!
//! | file | role |
//! |---|---|
//! | `variant` | the kinds of rounds, and how rounds are shared among them |
//! | `victim` | what a round does something to |
//! | `stage` | that as real processes |
//! | `round` | one round and its verdict |
//! | `upkeep` | how ledgers are kept, and what of that took place |
//! | `small_disk` | file systems that can be filled up |
//! | `report` | the sums, for people and programs |

mod report;
mod round;
mod small_disk;
mod stage;
pub mod upkeep;
pub mod variant;
pub mod victim;

#[cfg(test)]
mod tests;

use std::sync::{atomic::AtomicBool, Arc};

pub use report::CrashReport;
use round::Scene;
pub use stage::closed;
use stage::Stage;
use variant::Variant;
use victim::Victim;

use crate::{
    args::{CrashArgs, Preset, Rate},
    fault::Fault,
    machine,
    memory::{Fingerprint, Journal},
    progress::Progress,
    receipts,
    report::check_traffic,
    rng::{Random, Share},
    run,
    server::ServerPlan,
    workload::Workload,
};

/// What is kept of a run, whatever it ends with.
struct Course<'a> {
    args: &'a CrashArgs,
    report: CrashReport,
    quiet: bool,
    stop: &'a Arc<AtomicBool>,
}

/// The command.
///
/// # Errors
/// Any [`Fault`]; among them a service that does not start again.
pub fn run(args: &CrashArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<CrashReport, Fault> {
    let mut args = with_defaults(args);
    let left_out = leave_out_what_cannot_be_mounted(&mut args, quiet)?;
    check_traffic(&args.traffic)?;
    check(&args)?;
    machine::raise_open_files(args.traffic.connections + 128)?;
    let cpu = machine::generator_cpu(args.traffic.cpu, &args.server.server_cpus.0)?;
    let plan = ServerPlan::new(&args.server, cpu)?;
    machine::pin(&[cpu])?;
    let seed = machine::seed(args.traffic.seed);
    if !quiet {
        eprintln!("seed {seed}");
    }
    let report = CrashReport { left_out, refused_within_ms: args.refused_within_ms, ..CrashReport::new(seed, args.rounds) };
    let mut course = Course { args: &args, report, quiet, stop };
    for (variant, rounds) in variant::shares(&args.variant.0, args.rounds) {
        if !course.run_variant(variant, rounds, &plan)? {
            break;
        }
    }
    Ok(course.report)
}

/// Where file systems may not be mounted, a full disk is only what a storage says; the rounds go to the other variants. Gives the reason.
fn leave_out_what_cannot_be_mounted(args: &mut CrashArgs, quiet: bool) -> Result<Option<String>, Fault> {
    let variants = &mut args.variant.0;
    if !variants.iter().any(|variant| variant.on_a_small_disk()) {
        return Ok(None);
    }
    let Err(why) = small_disk::permitted() else { return Ok(None) };
    variants.retain(|variant| !variant.on_a_small_disk());
    if variants.is_empty() {
        return Err(Fault::Usage(format!("no file system can be mounted here, so that disk-full is all there is: {why}")));
    }
    if !quiet {
        eprintln!("left out: small-disk and small-disk-embedded: {why}");
    }
    Ok(Some(why))
}

fn check(args: &CrashArgs) -> Result<(), Fault> {
    let least = args.variant.0.len() as u64;
    if args.rounds < least.max(1) || args.rounds_per_ledger == 0 || args.kill_after_min > args.kill_after_max {
        return Err(Fault::Usage(format!(
            "--rounds is at least {least}, one for each variant, --rounds-per-ledger at least 1, and --kill-after-min not after \
             --kill-after-max"
        )));
    }
    match args.rate {
        Rate::Max | Rate::PerSecond(_) => Ok(()),
        Rate::OfMax(_) => Err(Fault::Usage("the --rate of crash is a number or max".into())),
    }
}

/// A crash test has repeats, a hot account and all operations unless something else is asked for.
fn with_defaults(args: &CrashArgs) -> CrashArgs {
    let mut args = args.clone();
    if args.traffic.workload == Preset::Spend {
        args.traffic.repeat_share.get_or_insert(Share::of(0.01));
        args.traffic.hot_share.get_or_insert(Share::of(0.2));
        args.traffic.operation_share.get_or_insert(Share::of(0.3));
    }
    args
}

impl Course<'_> {
    /// All rounds of a variant, each ledger on a service of its own; false if one of them found something.
    fn run_variant(&mut self, variant: Variant, rounds: u64, plan: &ServerPlan) -> Result<bool, Fault> {
        let per_ledger = if variant.ends_its_ledger() { 1 } else { self.args.rounds_per_ledger };
        let mut left = rounds;
        let mut random = Random::new(self.report.seed ^ (variant as u64 + 1).wrapping_mul(0xC4A5_0000_0001));
        while left > 0 {
            let rounds = left.min(per_ledger);
            let seed = random.draw();
            let mut stage = Stage::start(variant, plan, self.args.upkeep, rounds, seed, self.stop)?;
            let mut workload = run::workload(&self.args.traffic, stage.address(), &stage.token()?, "load:", seed);
            let lived =
                life(self.args, variant, rounds, seed, &mut stage, &mut workload, &mut self.report, self.quiet, self.stop);
            if !matches!(lived, Ok(true) | Err(Fault::Interrupted)) {
                stage.keep();
            }
            if !lived? {
                return Ok(false);
            }
            left -= rounds;
        }
        Ok(true)
    }
}

/// The life of one ledger: so many rounds against a service whose accounts do not exist yet. False if something was found.
///
/// # Errors
/// Any [`Fault`].
#[allow(clippy::too_many_arguments)]
pub fn life(
    args: &CrashArgs,
    variant: Variant,
    rounds: u64,
    seed: u64,
    victim: &mut dyn Victim,
    workload: &mut Workload,
    report: &mut CrashReport,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<bool, Fault> {
    run::prepare(workload, &args.traffic, victim.address(), false, quiet, stop)?;
    workload.journal = Some(Journal::default());
    let scene = Scene { args, variant, quiet, stop };
    let mut random = Random::new(seed ^ 0xC4A5);
    let mut history: Vec<Fingerprint> = Vec::new();
    let mut ended = false;
    for _ in 0..rounds {
        let number = report.rounds.len() as u64 + 1;
        let (round, receipts) = scene.round(victim, workload, number, &history, Random::new(random.draw()))?;
        if !quiet {
            eprintln!("{}", report::line(&round));
        }
        history.extend(receipts);
        let ok = round.ok;
        ended = round.detected.is_some();
        report.take_round(round);
        if !ok {
            report.take_upkept(variant, victim.upkept());
            report.take_tally(std::mem::take(&mut workload.tally));
            return Ok(false);
        }
    }
    run::check_hashes(workload);
    // Before the orderly end, which takes a snapshot in any case.
    report.take_upkept(variant, victim.upkept());
    if !ended {
        let mut reader = run::preparation_engine(&args.traffic, victim.address(), stop)?;
        let mut progress = Progress::new("all receipts once more", Some(history.len() as u64), quiet);
        let found = receipts::fetch(&mut reader, &workload.requests, &history, &mut workload.tally, &mut progress)?;
        drop(reader);
        report.take_end(variant, found, victim.close()?, run::entries_prepared(&args.traffic) + history.len() as u64);
    }
    report.take_tally(std::mem::take(&mut workload.tally));
    Ok(report.ok_so_far())
}
