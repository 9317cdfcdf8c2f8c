//! One fault under load: injected, seen, removed, settled; then the load without any, and the question whether all is there, once.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    faults::{Planned, Refuses},
    stage::Stage,
};
use crate::{
    args::{ChaosArgs, TrafficArgs},
    books::{self, Books},
    crash::victim::{pause, wait_for},
    doubt::{self, Resolved},
    engine::{Ending, Engine, Pace, Plan},
    fault::Fault,
    memory::{Fingerprint, Journal},
    outage::Outage,
    progress::Progress,
    receipts::{self, Found},
    report::Phase,
    run,
    workload::Workload,
};

/// Load before a fault, and after it.
const LEAD: Duration = Duration::from_millis(300);
/// Time between two looks at readiness.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The promise for the time until it is ready again.
pub const READY_WITHIN: Duration = Duration::from_secs(300);
/// A load ends at the latest after this, whatever becomes of the fault.
const LOAD_MAX: Duration = Duration::from_secs(900);
/// The faults are removed; without that they would last so long.
const LASTS: &str = "--for=15m";

/// What was seen of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Which.
    pub fault: String,
    /// The load around it and while it was active.
    pub load: Phase,
    /// From when it was asked for until the server said that it is not ready; absent if it never did.
    pub not_ready_after_ms: Option<u64>,
    /// When it had to; absent if it need not.
    pub not_ready_within_ms: Option<u64>,
    /// Until the first write was refused because of it.
    pub refused_after_ms: Option<u64>,
    /// Whether some writes had to be refused.
    pub has_to_refuse: bool,
    /// Writes refused with 503.
    pub unavailable: u64,
    /// Writes refused with 429.
    pub busy: u64,
    /// Requests that were told anything else than their answer, 503 or 429 where it is allowed.
    pub otherwise: u64,
    /// From its removal until the server was ready; absent if it did not become so.
    pub ready_after_ms: Option<u64>,
    /// The spends in doubt behind it.
    pub resolved: Resolved,
    /// The books behind it.
    pub books: Books,
    /// What else is wrong.
    pub wrong: Vec<String>,
}

/// What the conductor of a fault has seen.
struct Conducted {
    not_ready_after: Option<Duration>,
    ready_after: Option<Duration>,
    wrong: Vec<String>,
}

/// What was found in the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Safety {
    /// Receipts that were acknowledged, and found again byte for byte.
    pub found: Found,
    /// Entries of the ledger when it was replayed.
    pub entries: u64,
    /// Entries that it has to have: those of the preparation, and one for each receipt.
    pub entries_expected: u64,
    /// Operations of the audit stream that are these entries.
    pub audited: u64,
    /// How often the server's own audit has found something wrong.
    pub violations: u64,
}

/// The load as it goes on from fault to fault.
pub struct Course<'a> {
    /// How the test is.
    pub args: &'a ChaosArgs,
    /// How the load is.
    pub traffic: &'a TrafficArgs,
    /// The load.
    pub workload: &'a mut Workload,
    /// All receipts so far.
    pub receipts: Vec<Fingerprint>,
    /// No progress.
    pub quiet: bool,
    /// Ctrl-C.
    pub stop: &'a Arc<AtomicBool>,
}

impl Course<'_> {
    /// Injects a fault under load, sees what becomes of it, removes it, and settles what is in doubt.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub fn fault(&mut self, stage: &Stage, planned: Planned) -> Result<Seen, Fault> {
        let tally = &self.workload.tally;
        let (troubles, unavailable, busy) = (tally.unexpected_count(), tally.unavailable, tally.busy);
        let ending = Ending { flag: Arc::default(), abandon: false };
        let over = Arc::clone(&ending.flag);
        let plan = Plan { ending: Some(ending), ..self.plan(LOAD_MAX) };
        let mut engine = self.engine(stage)?;
        let mut progress = Progress::new(planned.name(), None, self.quiet);
        let (outage, stop, each) = (Arc::clone(&self.workload.outage), Arc::clone(self.stop), self.args.each);
        let (driven, conducted) = std::thread::scope(|scope| {
            let conductor = scope.spawn(|| {
                let conducted = conduct(stage, &planned, each, &outage, &stop);
                over.store(true, Ordering::Release);
                conducted
            });
            let driven = engine.drive(self.workload, &plan, &mut progress);
            (driven, conductor.join())
        });
        let conducted = conducted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let load = Phase::new(planned.name(), plan.pace, &driven?);
        self.workload.outage.end();
        let tally = &self.workload.tally;
        let otherwise = tally.unexpected_count() - troubles;
        let (unavailable, busy) = (tally.unavailable - unavailable, tally.busy - busy);
        let refused_after = self.workload.outage.take_answers().refused_after;
        let in_ms = |time: Duration| time.as_millis() as u64;
        let mut wrong = conducted.wrong;
        if !load.complete() {
            wrong.push(format!("{} connections broke", load.disconnected));
        }
        let (resolved, books) = self.settle(stage)?;
        Ok(Seen {
            fault: planned.name(),
            load,
            not_ready_after_ms: conducted.not_ready_after.map(in_ms),
            not_ready_within_ms: planned.not_ready_within.map(in_ms),
            refused_after_ms: refused_after.map(in_ms),
            has_to_refuse: planned.refuses != Refuses::Nothing,
            unavailable,
            busy,
            otherwise,
            ready_after_ms: conducted.ready_after.map(in_ms),
            resolved,
            books,
            wrong,
        })
    }

    /// The load without a fault, for as long as it is to be observed; and how many requests of it were refused.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn afterwards(&mut self, stage: &Stage) -> Result<(Phase, u64), Fault> {
        let (plan, troubles) = (self.plan(self.args.window), self.workload.tally.unexpected_count());
        let outcome = self.engine(stage)?.drive(self.workload, &plan, &mut Progress::new("afterwards", None, self.quiet))?;
        self.receipts.extend(take_journal(self.workload));
        let refused = self.workload.tally.unexpected_count() - troubles;
        Ok((Phase::new("afterwards", plan.pace, &outcome), refused))
    }

    fn plan(&self, duration: Duration) -> Plan {
        Plan { pace: Pace::PerSecond(self.args.rate as f64), duration: Some(duration), requests: None, ending: None }
    }

    fn engine(&mut self, stage: &Stage) -> Result<Engine, Fault> {
        self.workload.reset_lanes();
        let (connections, pipeline) = (self.traffic.connections as usize, self.traffic.pipeline as usize);
        Engine::connect(stage.address(), connections, pipeline, self.traffic.patience, self.stop)
    }

    /// Repeats what is in doubt, twice, and compares the books.
    fn settle(&mut self, stage: &Stage) -> Result<(Resolved, Books), Fault> {
        let mut reader = run::preparation_engine(self.traffic, stage.address(), self.stop)?;
        let resolved = doubt::resolve(&mut reader, self.workload, true)?;
        self.receipts.extend(take_journal(self.workload));
        let mut progress = Progress::new("checking the books", Some(2 * self.traffic.accounts), self.quiet);
        let books = books::check(&mut reader, &self.workload.requests, &self.workload.model, &mut progress)?;
        Ok((resolved, books))
    }
}

/// Injects the fault, looks at readiness, removes it, and waits until the server is ready.
fn conduct(stage: &Stage, planned: &Planned, each: Duration, outage: &Outage, stop: &AtomicBool) -> Result<Conducted, Fault> {
    pause(LEAD, stop)?;
    match planned.refuses {
        Refuses::Nothing => {}
        Refuses::Busy => outage.begin_storm(),
        Refuses::Unavailable => outage.begin(),
    }
    let injected = Instant::now();
    stage.operate(&[&["chaos", "inject", "--target=svc-wallet", LASTS], planned.arguments].concat())?;
    let mut wrong = Vec::new();
    if let Some(expected) = planned.reload {
        let (succeeded, said) = stage.try_operate(&["policy", "reload"])?;
        if succeeded != expected {
            wrong.push(format!("the policy was {}read again: {said}", if succeeded { "" } else { "not " }));
        }
    }
    let longest = each.max(planned.not_ready_within.unwrap_or_default());
    let mut not_ready_after = None;
    while injected.elapsed() < if planned.not_ready_within.is_some() && not_ready_after.is_none() { longest } else { each } {
        if not_ready_after.is_none() && !stage.is_ready() {
            not_ready_after = Some(injected.elapsed());
        }
        pause(LOOK_EVERY, stop)?;
    }
    let removed = Instant::now();
    stage.operate(&["chaos", "clear"])?;
    outage.comes_back();
    let ready = wait_for(READY_WITHIN, stop, || stage.is_ready())?;
    let ready_after = ready.then(|| removed.elapsed());
    pause(LEAD, stop)?;
    Ok(Conducted { not_ready_after, ready_after, wrong })
}

/// Fetches every receipt, ends the service, and replays its ledger.
///
/// # Errors
/// Any [`Fault`]; among them a ledger that is not whole.
pub fn safety(
    workload: &mut Workload,
    traffic: &TrafficArgs,
    stage: &mut Stage,
    wanted: &[Fingerprint],
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Safety, Fault> {
    let mut reader = run::preparation_engine(traffic, stage.address(), stop)?;
    let mut progress = Progress::new("finding receipts", Some(wanted.len() as u64), quiet);
    let found = receipts::fetch(&mut reader, &workload.requests, wanted, &mut workload.tally, &mut progress)?;
    drop(reader);
    let violations = stage.violations()?;
    let closed = stage.close()?;
    let entries_expected = run::entries_prepared(traffic) + wanted.len() as u64;
    Ok(Safety { found, entries: closed.entries, entries_expected, audited: closed.audited, violations })
}

fn take_journal(workload: &mut Workload) -> Vec<Fingerprint> {
    workload.journal.as_mut().map(Journal::take_fingerprints).unwrap_or_default()
}
