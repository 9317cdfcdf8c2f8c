//! `loadtest crash`: SIGKILL under load, restart on the same directory, and nothing acknowledged may be missing.
//!
//! After each restart: every receipt that was ever acknowledged is fetched and compared byte for byte; every spend that was sent
//! and not answered is repeated with its key, twice; then the books must balance. At the end all receipts are fetched once more,
//! those of the last repeats among them. The first round that finds something is the last one.

use std::{
    net::SocketAddr,
    sync::{atomic::AtomicBool, Arc},
    time::Duration,
};

use serde::Serialize;

use crate::{
    args::{CrashArgs, Preset},
    books::{self, Books},
    doubt::{self, Resolved},
    engine::{Engine, Pace, Plan},
    fault::Fault,
    machine,
    memory::{Fingerprint, Journal},
    progress::{grouped, Progress},
    receipts::{self, Found},
    report::{self, Report},
    rng::{Random, Share},
    run,
    server::{Server, ServerPlan},
    tally::Tally,
    workload::Workload,
};

/// The load goes on at most this long after the latest kill; by then every connection is broken.
const AFTER_KILL_MAX: Duration = Duration::from_secs(10);

/// A server that can be killed and started again on what it left behind.
pub trait Victim {
    /// Where it answers now.
    fn address(&self) -> SocketAddr;
    /// Something that kills it, from another thread, at once.
    fn killer(&mut self) -> Box<dyn FnOnce() + Send>;
    /// Starts it again after the kill and waits until it is ready; gives the time that it took.
    ///
    /// # Errors
    /// Any [`Fault`].
    fn restart(&mut self, stop: &AtomicBool) -> Result<Duration, Fault>;
}

impl Victim for Server {
    fn address(&self) -> SocketAddr {
        Server::address(self)
    }

    fn killer(&mut self) -> Box<dyn FnOnce() + Send> {
        let pid = self.pid();
        Box::new(move || {
            // The child is not reaped before this ran, so the id cannot have passed to another process.
            if let Some(pid) = pid {
                let _seen_by_reap = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        })
    }

    fn restart(&mut self, stop: &AtomicBool) -> Result<Duration, Fault> {
        self.reap_killed()?;
        self.start(stop)
    }
}

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// From 1.
    pub number: u64,
    /// When the kill came after the load began.
    pub killed_after_ms: u64,
    /// Replies per second until then.
    pub rate: f64,
    /// Receipts that had been acknowledged in this round.
    pub acknowledged: u64,
    /// Receipts asked for after the restart: all that were ever acknowledged.
    pub found: Found,
    /// What became of the requests without a reply.
    pub resolved: Resolved,
    /// From the start of the process to readiness.
    pub restart_ms: u64,
    /// The books afterwards.
    pub books: Books,
    /// Nothing was found.
    pub ok: bool,
}

/// Result of `crash`.
#[derive(Clone, Debug, Serialize)]
pub struct CrashReport {
    /// `crash`.
    pub command: &'static str,
    /// Gives the same load and the same moments again.
    pub seed: u64,
    /// Rounds that were asked for.
    pub rounds_asked: u64,
    /// Those that took place.
    pub rounds: Vec<Round>,
    /// All receipts of all rounds, at the end.
    pub found_at_end: Option<Found>,
    /// All replies.
    pub tally: Tally,
    /// Everything was as it should be.
    pub ok: bool,
}

/// The command.
///
/// # Errors
/// Any [`Fault`]; among them a server that does not start again.
pub fn run(args: &CrashArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<CrashReport, Fault> {
    let args = with_defaults(args);
    report::check_traffic(&args.traffic)?;
    if args.rounds == 0 || args.kill_after_min > args.kill_after_max {
        return Err(Fault::Usage("--rounds is at least 1, and --kill-after-min not after --kill-after-max".into()));
    }
    machine::raise_open_files(args.traffic.connections + 128)?;
    let cpu = machine::generator_cpu(args.traffic.cpu, &args.server.server_cpus.0)?;
    let plan = ServerPlan::new(&args.server, cpu)?;
    machine::pin(&[cpu])?;
    let mut server = Server::prepare(plan)?;
    server.start(stop)?;
    let seed = machine::seed(args.traffic.seed);
    let mut workload = run::workload(&args.traffic, server.address(), &server.token()?, "load:", seed);
    let report = rounds(&args, &mut server, &mut workload, seed, quiet, stop)?;
    server.stop()?;
    Ok(report)
}

/// A crash test has repeats and a hot account unless something else is asked for.
fn with_defaults(args: &CrashArgs) -> CrashArgs {
    let mut args = args.clone();
    if args.traffic.workload == Preset::Spend {
        args.traffic.repeat_share.get_or_insert(Share::of(0.01));
        args.traffic.hot_share.get_or_insert(Share::of(0.2));
    }
    args
}

/// All rounds against a running victim whose accounts do not exist yet.
///
/// # Errors
/// Any [`Fault`].
pub fn rounds(
    args: &CrashArgs,
    victim: &mut dyn Victim,
    workload: &mut Workload,
    seed: u64,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<CrashReport, Fault> {
    if !quiet {
        eprintln!("seed {seed}");
    }
    run::prepare(workload, &args.traffic, victim.address(), false, quiet, stop)?;
    workload.journal = Some(Journal::default());
    let mut random = Random::new(seed ^ 0xC4A5);
    let mut history: Vec<Fingerprint> = Vec::new();
    let mut rounds: Vec<Round> = Vec::new();
    for number in 1..=args.rounds {
        let span = args.kill_after_max - args.kill_after_min;
        let kill_after = args.kill_after_min + span.mul_f64(random.below(1_000_001) as f64 / 1e6);
        let (round, receipts) = round(args, victim, workload, number, kill_after, &history, quiet, stop)?;
        if !quiet {
            eprintln!("{}", line(&round));
        }
        history.extend(receipts);
        let ok = round.ok;
        rounds.push(round);
        if !ok {
            break;
        }
    }
    run::check_hashes(workload);
    let mut reader = run::preparation_engine(&args.traffic, victim.address(), stop)?;
    let mut progress = Progress::new("all receipts once more", Some(history.len() as u64), quiet);
    let found = receipts::fetch(&mut reader, &workload.requests, &history, &mut workload.tally, &mut progress)?;
    let ok = rounds.len() as u64 == args.rounds
        && rounds.iter().all(|round| round.ok)
        && found.asked == found.identical
        && workload.tally.unexpected_count() == 0;
    let tally = std::mem::take(&mut workload.tally);
    Ok(CrashReport { command: "crash", seed, rounds_asked: args.rounds, rounds, found_at_end: Some(found), tally, ok })
}

/// One round; gives the receipts that it added, those of the repeats included.
#[allow(clippy::too_many_arguments)]
fn round(
    args: &CrashArgs,
    victim: &mut dyn Victim,
    workload: &mut Workload,
    number: u64,
    kill_after: Duration,
    history: &[Fingerprint],
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<(Round, Vec<Fingerprint>), Fault> {
    let traffic = &args.traffic;
    let troubles_before = workload.tally.unexpected_count();
    let label = |what: &str| format!("round {number}: {what}");
    let (connections, pipeline) = (traffic.connections as usize, traffic.pipeline as usize);
    let mut engine = Engine::connect(victim.address(), connections, pipeline, traffic.patience, stop)?;
    workload.reset_lanes();
    let kill = victim.killer();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(kill_after);
        kill();
    });
    let plan = Plan { pace: Pace::Max, duration: Some(kill_after + AFTER_KILL_MAX), requests: None };
    let driven = engine.drive(workload, &plan, &mut Progress::new(label("load"), None, quiet));
    killer.join().expect("the killing thread cannot panic");
    let outcome = driven?;
    let survived = outcome.disconnected < engine.connections() as u64;
    if survived {
        workload.tally.trouble("connections outlived the kill", || format!("{} broke", outcome.disconnected));
    }
    drop(engine);

    let restart = victim.restart(stop)?;
    let mut receipts = take_journal(workload);
    let acknowledged = receipts.len() as u64;
    let wanted = [history, &receipts].concat();
    let mut reader = run::preparation_engine(traffic, victim.address(), stop)?;
    let mut progress = Progress::new(label("finding receipts"), Some(wanted.len() as u64), quiet);
    let found = receipts::fetch(&mut reader, &workload.requests, &wanted, &mut workload.tally, &mut progress)?;
    let resolved = doubt::resolve(&mut reader, workload, quiet)?;
    receipts.extend(take_journal(workload));
    let mut progress = Progress::new(label("checking the books"), Some(2 * traffic.accounts), quiet);
    let books = books::check(&mut reader, &workload.requests, &workload.model, &mut progress)?;

    let ok = books.balanced()
        && found.asked == found.identical
        && resolved.wrong == 0
        && resolved.in_doubt == resolved.had_taken_effect + resolved.took_effect_now
        && workload.tally.unexpected_count() == troubles_before;
    let round = Round {
        number,
        killed_after_ms: kill_after.as_millis() as u64,
        rate: outcome.rate(),
        acknowledged,
        found,
        resolved,
        restart_ms: restart.as_millis() as u64,
        books,
        ok,
    };
    Ok((round, receipts))
}

fn take_journal(workload: &mut Workload) -> Vec<Fingerprint> {
    workload.journal.as_mut().map(Journal::take_fingerprints).unwrap_or_default()
}

fn line(round: &Round) -> String {
    format!(
        "round {:>3}  killed after {:>5} ms at {:>8}/s  {:>8} receipts found of {:>8}  in doubt {:>5} = {:>5} + {:>5}  restart \
         {:>5} ms  books {}  {}",
        round.number,
        round.killed_after_ms,
        grouped(round.rate as u64),
        grouped(round.found.identical),
        grouped(round.found.asked),
        round.resolved.in_doubt,
        round.resolved.had_taken_effect,
        round.resolved.took_effect_now,
        round.restart_ms,
        if round.books.balanced() { "balanced" } else { "NOT BALANCED" },
        if round.ok { "ok" } else { "FAILED" }
    )
}

impl Report for CrashReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        println!("in doubt = had taken effect + took effect when repeated; each answered exactly once\n");
        self.rounds.iter().for_each(|round| println!("{}", line(round)));
        let sum = |of: fn(&Round) -> u64| grouped(self.rounds.iter().map(of).sum());
        println!(
            "\n{} of {} rounds: {} spends acknowledged under load, {} in doubt, {} wrong; seed {}",
            self.rounds.len(),
            self.rounds_asked,
            sum(|round| round.acknowledged),
            sum(|round| round.resolved.in_doubt),
            sum(|round| round.resolved.wrong),
            self.seed
        );
        if let Some(found) = &self.found_at_end {
            println!("at the end, {} of {} receipts byte for byte", grouped(found.identical), grouped(found.asked));
        }
        report::print_tally(&self.tally);
        self.rounds.iter().filter(|round| !round.books.balanced()).for_each(|round| report::print_books(&round.books));
        report::print_verdict(self.ok);
    }
}
