//! `loadtest compare`: the server in two ways, loaded in turns, so that a noisy machine is as noisy for the one as for the other.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{atomic::AtomicBool, Arc},
    time::Duration,
};

use clap::{Args, ValueEnum};
use rustix::process::Signal;
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    args::{count, duration, rate, Rate, ServerArgs, TrafficArgs},
    books::Books,
    daemon::{Daemon, Disk},
    engine::{Engine, Outcome, Pace, Plan},
    fault::Fault,
    flood::{Flood, Flooded},
    machine,
    progress::Progress,
    report::{self, print_books, print_floors, print_phases, print_tally, print_verdict, Phase, Report},
    run,
    server::{Server, ServerPlan},
    spread::{self, Spread},
    tally::Tally,
    tokens::Token,
    workload::Workload,
};

/// A server that was stopped is loaded again after so long.
const AWAKE_AFTER: Duration = Duration::from_millis(20);

/// What differs between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// The ledger: embedded, and behind the socket of its daemon.
    Daemon,
    /// Snapshots: none while the load lasts, and one after the other.
    Snapshots,
    /// Bad tokens: none, and many beside the load, each of which has to be refused as it deserves.
    Tokens,
    /// The audit stream: off, and in files beside the ledger.
    Audit,
    /// Capabilities: believed unread by the build that `--unchecked` names, and checked.
    Authority,
}

/// Arguments of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// What to compare.
    #[arg(value_enum)]
    pub what: Compared,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub traffic: TrafficArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArgs,
    /// Requests per second: a number (20_000) or max.
    #[arg(long, default_value = "max", value_parser = rate)]
    pub rate: Rate,
    /// How long to send, each turn.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// Turns of each.
    #[arg(long, default_value = "5", value_parser = count)]
    pub rounds: u64,
    /// Slices of a turn: the two are loaded for a slice each, in the order ABBA, so that both have the same share of a bad moment.
    #[arg(long, default_value = "4", value_parser = count)]
    pub slices: u64,
    /// Bad tokens per second beside the load, if that is compared.
    #[arg(long, default_value = "5_000", value_parser = count)]
    pub bad_tokens: u64,
    /// The svc-wallet binary that was built to check no capability, with `RUSTFLAGS="--cfg unchecked_capabilities"`, if that is compared.
    #[arg(long, value_name = "PROGRAM", required_if_eq("what", "authority"))]
    pub unchecked: Option<PathBuf>,
    /// A median of the ratios of replies per second below this is a finding.
    #[arg(long)]
    pub at_least: Option<f64>,
    /// A median of the ratios of the 99th percentiles above this is a finding.
    #[arg(long)]
    pub p99_at_most: Option<f64>,
    /// Load that is sent to each before anything is measured.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub warmup: Duration,
}

/// Result of `compare`.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// `compare`.
    pub command: &'static str,
    /// What was compared.
    pub what: Compared,
    /// Gives the same run again.
    pub seed: u64,
    /// Connections of the load.
    pub connections: u64,
    /// Requests outstanding at most on each.
    pub pipeline: u64,
    /// Accounts loaded, on each of the two.
    pub accounts: u64,
    /// CPUs of the servers' cores.
    pub server_cpus: Vec<usize>,
    /// CPU of the generator.
    pub generator_cpu: usize,
    /// Every turn, in order.
    pub phases: Vec<Phase>,
    /// Replies per second, the second to the first, of each round.
    pub rate_ratio: Spread,
    /// 99th percentile of the latencies, the second to the first, of each round.
    pub p99_ratio: Spread,
    /// What does not keep its floor.
    pub below_floor: Vec<String>,
    /// Rounds that ended with a newer snapshot of the second than they began with, if that is compared.
    pub rounds_with_snapshot: Option<u64>,
    /// Bad tokens that were answered, and of them wrongly, if that is compared.
    pub bad_tokens: Option<(u64, u64)>,
    /// What each has answered, warm-up included.
    pub tallies: Vec<Tally>,
    /// The books of each at the end.
    pub books: Vec<Books>,
    /// Everything was as it should be, and no ratio beyond what was allowed.
    pub ok: bool,
}

/// One of the two.
struct Side {
    name: &'static str,
    server: Server,
    daemon: Option<(Daemon, TempDir)>,
    workload: Workload,
    engine: Engine,
    flood: Option<Flood>,
    token: Token,
}

/// The command.
///
/// # Errors
/// Any [`Fault`].
pub fn run(args: &CompareArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<CompareReport, Fault> {
    report::check_traffic(&args.traffic)?;
    let pace = match args.rate {
        Rate::Max => Pace::Max,
        Rate::PerSecond(rate) => Pace::PerSecond(rate),
        Rate::OfMax(_) => return Err(Fault::Usage("the --rate of compare is a number or max".into())),
    };
    if args.rounds == 0 || args.slices == 0 {
        return Err(Fault::Usage("--rounds and --slices are at least 1".into()));
    }
    machine::raise_open_files(4 * args.traffic.connections + 128)?;
    let server_cpus = args.server.server_cpus.0.clone();
    let cpu = machine::generator_cpu(args.traffic.cpu, &server_cpus)?;
    let plan = ServerPlan::new(&args.server, cpu)?;
    machine::pin(&[cpu])?;
    let seed = machine::seed(args.traffic.seed);
    let names = match args.what {
        Compared::Daemon => ["embedded", "daemon"],
        Compared::Snapshots => ["without snapshots", "with snapshots"],
        Compared::Tokens => ["good tokens alone", "beside bad tokens"],
        Compared::Audit => ["without audit", "with audit"],
        Compared::Authority => ["capabilities unchecked", "capabilities checked"],
    };
    let mut sides = Vec::new();
    for (second, name) in [false, true].into_iter().zip(names) {
        let mut side = Side::start(args, &plan, name, second, seed, quiet, stop)?;
        if let (Compared::Tokens, Some(first)) = (args.what, sides.first()) {
            side.flood = Some(side.flooded(&plan, first, args.bad_tokens)?);
        }
        sides.push(side);
    }
    let mut phases = Vec::new();
    let (mut rate_ratios, mut p99_ratios) = (Vec::new(), Vec::new());
    let (mut rounds_with_snapshot, mut snapshot) = (0, sides[1].newest_snapshot()?);
    let idle = args.what == Compared::Snapshots;
    sides.iter_mut().for_each(|side| side.rest(idle));
    for round in 1..=args.rounds {
        let turns = one_round(args, pace, round, &mut sides, quiet)?;
        let newest = sides[1].newest_snapshot()?;
        rounds_with_snapshot += u64::from(newest > snapshot);
        snapshot = newest;
        rate_ratios.push(ratio(turns[1].rate, turns[0].rate));
        p99_ratios.push(ratio(turns[1].all.p99_us, turns[0].all.p99_us));
        phases.extend(turns);
    }
    sides.iter_mut().for_each(|side| side.wake(idle));
    let (rate_ratio, p99_ratio) = (Spread::of(rate_ratios), Spread::of(p99_ratios));
    let rates = spread::below("the ratio of replies/s", rate_ratio.median, args.at_least);
    let below_floor: Vec<_> =
        rates.into_iter().chain(spread::above("the ratio of the p99", p99_ratio.median, args.p99_at_most)).collect();
    let rounds_with_snapshot = (args.what == Compared::Snapshots).then_some(rounds_with_snapshot);
    let flooded = sides[1].flood.take().map(Flood::end);
    let (mut tallies, mut books) = (Vec::new(), Vec::new());
    let refused_well = flooded.map_or(true, |Flooded { answered, wrong }| answered > 0 && wrong == 0);
    let mut ok = refused_well && below_floor.is_empty() && phases.iter().all(Phase::complete) && rounds_with_snapshot != Some(0);
    for side in sides {
        let (tally, found) = side.end(args, quiet, stop)?;
        ok &= found.balanced() && tally.unexpected_count() == 0;
        tallies.push(tally);
        books.push(found);
    }
    Ok(CompareReport {
        command: "compare",
        what: args.what,
        seed,
        connections: args.traffic.connections,
        pipeline: args.traffic.pipeline,
        accounts: args.traffic.accounts,
        server_cpus,
        generator_cpu: cpu,
        phases,
        rate_ratio,
        p99_ratio,
        below_floor,
        rounds_with_snapshot,
        bad_tokens: flooded.map(|flooded| (flooded.answered, flooded.wrong)),
        tallies,
        books,
        ok,
    })
}

/// Both, a slice each in turns; the figures of a side are those of all its slices together.
fn one_round(args: &CompareArgs, pace: Pace, round: u64, sides: &mut [Side], quiet: bool) -> Result<Vec<Phase>, Fault> {
    let idle = args.what == Compared::Snapshots;
    let duration = Some(args.duration.div_f64(args.slices as f64));
    let plan = Plan { pace, duration, requests: None, ending: None };
    let mut outcomes: [Option<Outcome>; 2] = [None, None];
    let name = |side: &Side| format!("{} {round} of {}", side.name, args.rounds);
    for slice in 0..args.slices {
        let order = if slice % 2 == 0 { [0, 1] } else { [1, 0] };
        for number in order {
            let side = &mut sides[number];
            side.wake(idle);
            let mut progress = Progress::new(name(side), None, quiet);
            let outcome = side.engine.drive(&mut side.workload, &plan, &mut progress)?;
            side.rest(idle);
            match &mut outcomes[number] {
                Some(sum) => sum.add(outcome),
                none => *none = Some(outcome),
            }
        }
    }
    let phases = sides.iter().zip(&outcomes).filter_map(|(side, outcome)| Some(Phase::new(name(side), pace, outcome.as_ref()?)));
    Ok(phases.collect())
}

/// The second to the first; 0 if there is no first.
fn ratio(second: f64, first: f64) -> f64 {
    if first > 0.0 {
        second / first
    } else {
        0.0
    }
}

impl Side {
    fn start(
        args: &CompareArgs,
        plan: &ServerPlan,
        name: &'static str,
        second: bool,
        seed: u64,
        quiet: bool,
        stop: &Arc<AtomicBool>,
    ) -> Result<Side, Fault> {
        let mut plan = plan.clone();
        let mut daemon = None;
        match (args.what, second) {
            (Compared::Daemon, false) | (Compared::Tokens, _) | (Compared::Authority, true) => {}
            (Compared::Daemon, true) => {
                let place = plan.directory()?;
                let mut made = Daemon::prepare(Disk::Real(None), place.path(), &plan)?;
                made.start_well(stop)?;
                plan.ledger = Some(made.socket());
                daemon = Some((made, place));
            }
            (Compared::Authority, false) => plan.program = machine::server_program(args.unchecked.clone())?,
            (Compared::Audit, second) => {
                plan.audit = if second { "file" } else { "off" };
            }
            (Compared::Snapshots, second) => {
                let every = if second { "1s" } else { "168h" };
                plan.more = format!("\n[ledger]\nsnapshot_every = \"{every}\"\nsnapshot_entries = 1000000000\n");
            }
        }
        let traffic = &args.traffic;
        let mut server = Server::prepare(plan)?;
        server.start(stop)?;
        let unchecked = args.what == Compared::Authority && !second;
        if server.is_unchecked()? != unchecked {
            let program = server.program().display();
            let how = if unchecked { "with" } else { "without" };
            return Err(Fault::Usage(format!("{program}: has to be built {how} RUSTFLAGS=\"--cfg unchecked_capabilities\"")));
        }
        let token = server.token()?;
        let mut workload = run::workload(traffic, server.address(), &token, "load:", seed);
        run::prepare(&mut workload, traffic, server.address(), false, quiet, stop)?;
        let engine = run::warmed_up(&mut workload, traffic, server.address(), args.warmup, quiet, stop)?;
        Ok(Side { name, server, daemon, workload, engine, flood: None, token })
    }

    /// Bad tokens for this side, which rest until it is loaded. That of the other side is one of a foreign key.
    fn flooded(&self, plan: &ServerPlan, other: &Side, per_second: u64) -> Result<Flood, Fault> {
        let ronctl = plan.program.with_file_name("ronctl");
        Flood::start(self.server.address(), &ronctl, &self.server.config_path(), &other.token, per_second as f64)
    }

    /// Stops what it does beside its load, so that a snapshot that is not finished yet does not slow the other one down.
    fn rest(&mut self, idle: bool) {
        self.flood.iter().for_each(|flood| flood.go(false));
        if idle {
            self.server.process().signal(Signal::STOP);
        }
    }

    /// Lets it go on.
    fn wake(&mut self, idle: bool) {
        if idle {
            self.server.process().signal(Signal::CONT);
            std::thread::sleep(AWAKE_AFTER);
        }
        self.flood.iter().for_each(|flood| flood.go(true));
    }

    /// Name of the newest snapshot of an embedded ledger, if there is one.
    fn newest_snapshot(&self) -> Result<Option<OsString>, Fault> {
        let directory = self.server.ledger_directory();
        if self.daemon.is_some() {
            return Ok(None);
        }
        let listed = std::fs::read_dir(&directory).map_err(Fault::io(format!("listing {}", directory.display())))?;
        let names = listed.filter_map(Result::ok).map(|entry| entry.file_name());
        Ok(names.filter(|name| name.to_string_lossy().ends_with(".snap")).max())
    }

    /// Looks at the books and ends the processes.
    fn end(mut self, args: &CompareArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<(Tally, Books), Fault> {
        let run::Aftermath { books, .. } = run::aftermath(&mut self.workload, &args.traffic, self.server.address(), quiet, stop)?;
        self.server.stop()?;
        if let Some((mut daemon, _place)) = self.daemon {
            daemon.stop()?;
        }
        Ok((self.workload.tally, books))
    }
}

impl Report for CompareReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        println!(
            "{} connections x pipeline {}, {} accounts, cores on CPU {:?}, generator on CPU {}, seed {}\n",
            self.connections,
            self.pipeline,
            crate::progress::grouped(self.accounts),
            self.server_cpus,
            self.generator_cpu,
            self.seed
        );
        print_phases(&self.phases);
        println!("\nthe second to the first: replies/s {}", self.rate_ratio);
        println!("                         p99       {}", self.p99_ratio);
        if let Some(rounds) = self.rounds_with_snapshot {
            println!("the second has taken a snapshot in {rounds} of the rounds");
        }
        if let Some((answered, wrong)) = self.bad_tokens {
            println!("bad tokens answered: {}, wrongly: {wrong}", crate::progress::grouped(answered));
        }
        for (tally, books) in self.tallies.iter().zip(&self.books) {
            println!();
            print_tally(tally);
            print_books(books);
        }
        print_floors(&self.below_floor);
        print_verdict(self.ok);
    }
}
