//! `loadtest startup`: how long a server with many accounts takes to be ready, and how much memory that needs.
//!
//! Starts of one ledger: after an orderly end, from the snapshot alone; and some times after a kill, from the same snapshot and the
//! entries behind it. After the last one a sample of accounts must hold what they should. With a ledger daemon both are ended and
//! started, the daemon first.

use std::{
    sync::{atomic::AtomicBool, Arc},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde::Serialize;

use crate::{
    args::StartupArgs,
    books,
    daemon::{Daemon, Disk},
    engine::{Engine, Pace, Plan},
    fault::Fault,
    machine,
    progress::{grouped, Progress},
    report::{print_floors, print_verdict, Report},
    run,
    server::{Server, ServerPlan},
    spread::Spread,
};

/// Accounts of which balance and nonce are compared after the last start.
const COMPARED_MAX: u32 = 100_000;

/// One start.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    /// What it had to read.
    pub of: &'static str,
    /// Until `/readyz` said 200, in milliseconds.
    pub ready_ms: u64,
    /// The most memory that the process has had until then, in bytes.
    pub memory_bytes_max: u64,
}

/// Result of `startup`.
#[derive(Clone, Debug, Serialize)]
pub struct StartupReport {
    /// `startup`.
    pub command: &'static str,
    /// Accounts in the snapshot.
    pub accounts: u64,
    /// Entries behind it.
    pub entries: u64,
    /// Whether the ledger is a daemon.
    pub daemon: bool,
    /// CPUs of the server.
    pub server_cpus: Vec<usize>,
    /// The starts, in order.
    pub starts: Vec<Start>,
    /// Milliseconds of the starts after a kill.
    pub ready_ms_after_a_kill: Spread,
    /// Accounts that were compared after the last one.
    pub compared: u64,
    /// Accounts that did not hold what they should, or had another nonce.
    pub wrong: u64,
    /// That a start took longer than is allowed.
    pub too_late: Option<String>,
    /// Everything was as it should be, and no start took longer than was allowed.
    pub ok: bool,
}

/// The server, and the daemon of its ledger if it has one.
struct Service {
    server: Server,
    daemon: Option<Daemon>,
}

impl Service {
    /// Starts both; until the server is ready.
    fn start(&mut self, stop: &AtomicBool) -> Result<Duration, Fault> {
        let begin = Instant::now();
        if let Some(daemon) = &mut self.daemon {
            daemon.start_well(stop)?;
        }
        self.server.start(stop)?;
        Ok(begin.elapsed())
    }

    fn stop(&mut self) -> Result<(), Fault> {
        self.server.stop()?;
        self.daemon.as_mut().map_or(Ok(()), Daemon::stop)
    }

    fn kill(&mut self) -> Result<(), Fault> {
        self.server.process().signal(Signal::KILL);
        self.server.reap_killed()?;
        self.daemon.as_mut().map_or(Ok(()), Daemon::kill)
    }

    /// The most memory that either has had, in bytes, added up.
    fn memory_bytes_max(&mut self) -> u64 {
        let server = self.server.pid().map_or(0, machine::memory_bytes_max);
        server + self.daemon.as_mut().map_or(0, |daemon| machine::memory_bytes_max(daemon.process().pid()))
    }
}

/// The command.
///
/// # Errors
/// Any [`Fault`].
pub fn run(args: &StartupArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<StartupReport, Fault> {
    let traffic = &args.traffic;
    crate::report::check_traffic(traffic)?;
    if args.starts == 0 {
        return Err(Fault::Usage("--starts is at least 1".into()));
    }
    machine::raise_open_files(2 * traffic.connections + 64)?;
    let server_cpus = args.server.server_cpus.0.clone();
    let cpu = machine::generator_cpu(traffic.cpu, &server_cpus)?;
    let mut plan = ServerPlan::new(&args.server, cpu)?;
    // Every account's issue is remembered, and no snapshot is taken but the one at the orderly end.
    let keys_max = (traffic.accounts + args.entries).clamp(1_024, 100_000_000);
    plan.more =
        format!("\n[idempotency]\nkeys_max = {keys_max}\n\n[ledger]\nsnapshot_every = \"168h\"\nsnapshot_entries = 1000000000\n");
    let place = plan.directory()?;
    let daemon = args.daemon.then(|| Daemon::prepare(Disk::Real(None), place.path(), &plan)).transpose()?;
    plan.ledger = daemon.as_ref().map(Daemon::socket);
    machine::pin(&[cpu])?;
    let mut service = Service { server: Server::prepare(plan)?, daemon };
    service.start(stop)?;
    let token = service.server.token()?;
    let address = service.server.address();
    let mut workload = run::workload(traffic, address, &token, "acct", machine::seed(traffic.seed));
    run::prepare(&mut workload, traffic, address, false, quiet, stop)?;
    let mut starts = Vec::new();
    service.stop()?;
    let ready = service.start(stop)?;
    starts.push(start("a snapshot", ready, &mut service));
    {
        let (connections, pipeline) = (traffic.connections as usize, traffic.pipeline as usize);
        let mut engine = Engine::connect(address, connections, pipeline, traffic.patience, stop)?;
        let plan = Plan { pace: Pace::Max, duration: None, requests: Some(args.entries), ending: None };
        engine.drive(&mut workload, &plan, &mut Progress::new("entries behind the snapshot", plan.requests, quiet))?;
    }
    for _ in 0..args.starts {
        service.kill()?;
        let ready = service.start(stop)?;
        starts.push(start("a snapshot and the entries", ready, &mut service));
    }
    let compared: Vec<u32> = (0..workload.model.len().min(COMPARED_MAX)).collect();
    let mut engine = run::preparation_engine(traffic, address, stop)?;
    let mut progress = Progress::new("comparing accounts", Some(2 * compared.len() as u64), quiet);
    let stated = books::read(&mut engine, &workload.requests, &compared, &mut progress)?;
    let differs = |(number, stated): &(&u32, &books::Stated)| {
        let account = workload.model.account(**number);
        (stated.balance, stated.last_nonce) != (Some(account.balance), Some(account.confirmed_nonce))
    };
    let wrong = compared.iter().zip(&stated).filter(differs).count() as u64;
    service.stop()?;
    let in_time =
        args.ready_within.map_or(true, |most| starts.iter().all(|start| u128::from(start.ready_ms) <= most.as_millis()));
    let killed = starts.iter().skip(1).map(|start| start.ready_ms as f64);
    let ready_ms_after_a_kill = Spread::of(killed);
    let too_late = args.ready_within.filter(|_| !in_time).map(|most| format!("a start took longer than {most:?}"));
    let ok = wrong == 0 && in_time && workload.tally.unexpected_count() == 0;
    let (accounts, entries, compared) = (traffic.accounts, args.entries, compared.len() as u64);
    Ok(StartupReport {
        command: "startup",
        accounts,
        entries,
        daemon: args.daemon,
        server_cpus,
        starts,
        ready_ms_after_a_kill,
        compared,
        wrong,
        too_late,
        ok,
    })
}

fn start(of: &'static str, ready: Duration, service: &mut Service) -> Start {
    Start { of, ready_ms: ready.as_millis() as u64, memory_bytes_max: service.memory_bytes_max() }
}

impl Report for StartupReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        let (accounts, entries) = (grouped(self.accounts), grouped(self.entries));
        let ledger = if self.daemon { "on a ledger daemon" } else { "with an embedded ledger" };
        println!(
            "{accounts} accounts in the snapshot, {entries} entries behind it, server on CPU {:?} {ledger}\n",
            self.server_cpus
        );
        println!("{:<28} {:>12} {:>16}", "start from", "ready after", "memory at most");
        for start in &self.starts {
            println!("{:<28} {:>9} ms {:>12} MiB", start.of, grouped(start.ready_ms), grouped(start.memory_bytes_max >> 20));
        }
        println!("\nready after a kill, ms: {}", self.ready_ms_after_a_kill);
        println!("{} accounts compared, {} wrong", grouped(self.compared), grouped(self.wrong));
        print_floors(&self.too_late);
        print_verdict(self.ok);
    }
}
