//! `loadtest idle`: thousands of silent connections and hundreds of slow clients, and a load that must not notice.
//!
//! The same load runs three times: alone, beside the idle connections, and beside idle and slow ones. Every idle
//! connection makes one request when it is opened and one at the end, so each is known to be served all the while.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{atomic::AtomicBool, Arc},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    args::{IdleArgs, Preset, TrafficArgs},
    books::{self, Books},
    engine::{Class, Engine, Pace, Plan, Source},
    fault::Fault,
    machine,
    operations::Op,
    progress::{grouped, Progress},
    reply::Reply,
    report::{self, Phase, Report},
    requests::{Requests, Spend},
    run,
    server::{Server, ServerPlan},
    slow::{Cuts, Script, SlowClients, GRACE},
    tally::Tally,
    workload::Workload,
};

/// A 99th percentile up to this is never called starvation: it is what a user is promised.
const P99_US_PROMISED: f64 = 150_000.0;
/// Files beside the connections.
const OTHER_FILES: u64 = 128;

/// Result of `idle`.
#[derive(Clone, Debug, Serialize)]
pub struct IdleReport {
    /// `idle`.
    pub command: &'static str,
    /// Gives the same load again.
    pub seed: u64,
    /// Idle connections opened.
    pub idle: u64,
    /// How long opening them took.
    pub opened_in_s: f64,
    /// Those that got their first request answered.
    pub answered_at_start: u64,
    /// Those that got their last request answered.
    pub answered_at_end: u64,
    /// What became of the slow clients, by kind.
    pub slow: BTreeMap<&'static str, Cuts>,
    /// The load alone, beside idle, beside idle and slow.
    pub phases: Vec<Phase>,
    /// The largest 99th percentile that is not called starvation, in microseconds.
    pub p99_us_max: f64,
    /// Replies of the load.
    pub tally: Tally,
    /// The books at the end.
    pub books: Books,
    /// Everything was as it should be.
    pub ok: bool,
}

/// One balance read on every connection.
struct Ping<'a> {
    requests: &'a Requests,
    asked: Vec<bool>,
    answered: u64,
    failed: u64,
}

impl Source for Ping<'_> {
    type Ticket = ();

    fn next(&mut self, connection: usize, out: &mut Vec<u8>) -> Option<()> {
        if std::mem::replace(&mut self.asked[connection], true) {
            return None;
        }
        self.requests.balance(0, out);
        Some(())
    }

    fn answered(&mut self, _connection: usize, (): (), reply: &Reply<'_>) -> Class {
        if reply.status == 200 {
            self.answered += 1;
        } else {
            self.failed += 1;
        }
        Class::Read
    }

    fn lost(&mut self, _connection: usize, (): ()) {
        self.failed += 1;
    }

    fn troubles(&self) -> u64 {
        self.failed
    }
}

/// The command.
///
/// # Errors
/// Any [`Fault`]; [`Fault::Usage`] if the limit of open files is too low.
pub fn run(args: &IdleArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<IdleReport, Fault> {
    let needed = args.connections + args.slow + args.load_connections + OTHER_FILES;
    machine::raise_open_files(needed)?;
    let cpu = machine::generator_cpu(args.cpu, &args.server.server_cpus.0)?;
    let mut plan = ServerPlan::new(&args.server, cpu)?;
    machine::pin(&[cpu])?;
    plan.read_timeout = args.read_timeout;
    plan.connections = needed;
    let mut server = Server::prepare(plan)?;
    server.start(stop)?;
    let traffic = traffic(args);
    report::check_traffic(&traffic)?;
    let seed = machine::seed(args.seed);
    let mut workload = run::workload(&traffic, server.address(), &server.token()?, "load:", seed);
    let report = measure(args, &traffic, server.address(), &mut workload, quiet, stop)?;
    server.stop()?;
    Ok(IdleReport { seed, ..report })
}

/// The load's arguments.
pub fn traffic(args: &IdleArgs) -> TrafficArgs {
    TrafficArgs {
        connections: args.load_connections,
        pipeline: 4,
        accounts: args.accounts,
        fund: 1_000_000_000,
        asset: "roc".into(),
        workload: Preset::Spend,
        read_share: None,
        repeat_share: None,
        refusal_share: None,
        hot_share: None,
        operation_share: None,
        seed: args.seed,
        cpu: args.cpu,
        patience: Duration::from_secs(15),
    }
}

/// Everything against a server that runs and whose accounts do not exist yet.
///
/// # Errors
/// Any [`Fault`].
pub fn measure(
    args: &IdleArgs,
    traffic: &TrafficArgs,
    address: SocketAddr,
    workload: &mut Workload,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<IdleReport, Fault> {
    run::prepare(workload, traffic, address, false, quiet, stop)?;
    let (connections, pipeline) = (traffic.connections as usize, traffic.pipeline as usize);
    let mut engine = Engine::connect(address, connections, pipeline, traffic.patience, stop)?;
    let mut phases = Vec::new();
    let mut load = |name: &str, duration: Duration, workload: &mut Workload| -> Result<(), Fault> {
        let plan =
            Plan { pace: Pace::PerSecond(args.rate.max(1) as f64), duration: Some(duration), requests: None, ending: None };
        let outcome = engine.drive(workload, &plan, &mut Progress::new(name, None, quiet))?;
        phases.push(Phase::new(name, plan.pace, &outcome));
        Ok(())
    };
    load("load alone", args.duration, workload)?;

    let begin = Instant::now();
    let mut idle = Engine::connect(address, args.connections as usize, 1, traffic.patience, stop)?;
    let answered_at_start = ping(&mut idle, &workload.requests, quiet)?;
    let opened_in_s = begin.elapsed().as_secs_f64();
    load("beside idle", args.duration, workload)?;

    let slow = SlowClients::start(address, args.slow, script(&workload.requests), args.read_timeout);
    // Long enough for the slow to be cut and to come back.
    let duration = args.duration.max(args.read_timeout * 2 + GRACE * 2);
    let loaded = load("beside idle and slow", duration, workload);
    let cuts = slow.finish();
    loaded?;
    let answered_at_end = ping(&mut idle, &workload.requests, quiet)?;
    drop(idle);
    drop(engine);

    let mut reader = run::preparation_engine(traffic, address, stop)?;
    let mut progress = Progress::new("checking the books", Some(2 * traffic.accounts), quiet);
    let books = books::check(&mut reader, &workload.requests, &workload.model, &mut progress)?;
    let tally = std::mem::take(&mut workload.tally);
    let p99_us_max = (phases[0].all.p99_us * args.starvation_factor).max(P99_US_PROMISED);
    let ok = answered_at_start == args.connections
        && answered_at_end == args.connections
        && cuts.values().all(|cuts| cuts.overdue == 0 && cuts.refused == 0 && (cuts.cut > 0 || cuts.opened == 0))
        && phases.iter().all(|phase| phase.complete() && phase.unsent == 0 && phase.all.p99_us <= p99_us_max)
        && tally.unexpected_count() == 0
        && books.balanced();
    Ok(IdleReport {
        command: "idle",
        seed: 0,
        idle: args.connections,
        opened_in_s,
        answered_at_start,
        answered_at_end,
        slow: cuts,
        phases,
        p99_us_max,
        tally,
        books,
        ok,
    })
}

fn ping(engine: &mut Engine, requests: &Requests, quiet: bool) -> Result<u64, Fault> {
    let total = engine.connections();
    let mut ping = Ping { requests, asked: vec![false; total], answered: 0, failed: 0 };
    let mut progress = Progress::new("a request on every idle one", Some(total as u64), quiet);
    engine.drive(&mut ping, &Plan::everything(), &mut progress)?;
    Ok(ping.answered)
}

/// The slow ones ask for things that would be granted, if only they finished asking.
fn script(requests: &Requests) -> Script {
    let mut script = Script { post: Vec::new(), get: Vec::new() };
    // Never complete, so neither nonce nor key is ever used.
    requests.spend(&Spend { from: 0, nonce: 1, to: 1, amount_minor: 100, key: 0, op: Op::Transfer }, &mut script.post);
    requests.balance(0, &mut script.get);
    script
}

impl Report for IdleReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        println!(
            "idle connections     {} opened in {:.1} s; {} answered at the start, {} at the end",
            grouped(self.idle),
            self.opened_in_s,
            grouped(self.answered_at_start),
            grouped(self.answered_at_end)
        );
        for (kind, cuts) in &self.slow {
            println!(
                "{kind:<20} {} opened, {} cut after {} / {} / {} ms (min / median / max), {} overdue, {} refused",
                cuts.opened, cuts.cut, cuts.cut_ms_min, cuts.cut_ms_p50, cuts.cut_ms_max, cuts.overdue, cuts.refused
            );
        }
        println!();
        report::print_phases(&self.phases);
        println!("\np99 may be up to {:.0} ms before it is called starvation", self.p99_us_max / 1e3);
        report::print_tally(&self.tally);
        report::print_books(&self.books);
        report::print_verdict(self.ok);
    }
}
