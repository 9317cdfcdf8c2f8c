//! `loadtest chaos`: the success criteria of the runbook for faults that are injected on purpose, each with a verdict.
//!
//! A steady open-loop load of spends and reads goes on while one fault after the other is injected through the admin socket, as an
//! operator does it, seen by readiness and by clients, and removed. Behind each the outcome of every spend in doubt is settled and the
//! books are compared; in the end the load goes on undisturbed for a while and is measured, every receipt is fetched, and the ledger is
//! replayed.
//!
//! | file | role |
//! |---|---|
//! | `faults` | what is injected, and what has to be seen of it |
//! | `stage` | the service as real processes, and the operator's commands |
//! | `course` | one fault under load, and the time afterwards |
//! | `report` | the criteria, for people and programs |

mod course;
mod faults;
mod report;
mod stage;

use std::sync::{atomic::AtomicBool, Arc};

use course::Course;
pub use report::ChaosReport;
use stage::Stage;

use crate::{
    args::{ChaosArgs, Preset, TrafficArgs},
    fault::Fault,
    machine,
    memory::Journal,
    report::check_traffic,
    rng::Share,
    run,
    server::ServerPlan,
};

/// The command.
///
/// # Errors
/// Any [`Fault`]; what the faults reveal is in the report.
pub fn run(args: &ChaosArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<ChaosReport, Fault> {
    let traffic = traffic(args);
    check_traffic(&traffic)?;
    if args.rate == 0 || args.window.is_zero() || args.budget.fraction() <= 0.0 {
        return Err(Fault::Usage("--rate, --window and --budget are above 0".into()));
    }
    machine::raise_open_files(2 * traffic.connections + 128)?;
    let cpu = machine::generator_cpu(traffic.cpu, &args.server.server_cpus.0)?;
    let plan = ServerPlan::new(&args.server, cpu)?;
    machine::pin(&[cpu])?;
    let seed = machine::seed(traffic.seed);
    let mut stage = Stage::start(plan, args.embedded, stop)?;
    let examined = examine(args, &traffic, seed, &mut stage, quiet, stop);
    if !matches!(&examined, Ok(report) if report.ok) && !matches!(examined, Err(Fault::Interrupted)) {
        stage.keep();
    }
    examined
}

fn examine(
    args: &ChaosArgs,
    traffic: &TrafficArgs,
    seed: u64,
    stage: &mut Stage,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<ChaosReport, Fault> {
    let mut workload = run::workload(traffic, stage.address(), &stage.token()?, "load:", seed);
    run::prepare(&mut workload, traffic, stage.address(), false, quiet, stop)?;
    workload.journal = Some(Journal::default());
    let mut course = Course { args, traffic, workload: &mut workload, receipts: Vec::new(), quiet, stop };
    let mut seen = Vec::new();
    for fault in faults::FAULTS {
        let one = course.fault(stage, fault)?;
        if !quiet {
            eprintln!("{}", report::line(&one));
        }
        seen.push(one);
    }
    let afterwards = course.afterwards(stage)?;
    let receipts = course.receipts;
    let safety = course::safety(&mut workload, traffic, stage, &receipts, quiet, stop)?;
    Ok(ChaosReport::new(args, seed, seen, afterwards, safety, std::mem::take(&mut workload.tally)))
}

/// The load's arguments. One request at a time on each connection: behind one that is refused none waits with a later nonce.
fn traffic(args: &ChaosArgs) -> TrafficArgs {
    TrafficArgs {
        connections: args.connections,
        pipeline: 1,
        accounts: args.accounts,
        fund: 1_000_000_000,
        asset: "roc".into(),
        workload: Preset::Spend,
        read_share: Some(args.read_share.unwrap_or(Share::of(0.3))),
        repeat_share: None,
        refusal_share: None,
        hot_share: None,
        operation_share: None,
        seed: args.seed,
        cpu: args.cpu,
        patience: args.patience,
    }
}
