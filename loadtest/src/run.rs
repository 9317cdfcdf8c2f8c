//! `loadtest run`: fund, load, settle what is in doubt, and check the books.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{atomic::AtomicBool, Arc},
    time::Duration,
};

use crate::{
    args::{Rate, RunArgs, TrafficArgs},
    baseline::{BareLoad, Responder},
    books::{self, Books},
    doubt::{self, Resolved},
    engine::{Engine, Outcome, Pace, Plan},
    fault::Fault,
    funding,
    latency::Summary,
    machine,
    memory::receipt_hash_holds,
    model::Model,
    progress::Progress,
    report::{self, Phase, RunReport},
    requests::{Naming, Requests},
    rng::Share,
    server::{Server, ServerPlan},
    spread::{self, Spread},
    tokens::Token,
    workload::{Trust, Workload},
};

/// Requests outstanding on each connection while accounts are funded and read.
const PREPARATION_PIPELINE: usize = 16;
/// How long each phase lasts if nothing is said.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// The command.
///
/// # Errors
/// Any [`Fault`]; what the load itself finds is in the report.
pub fn run(args: &RunArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<RunReport, Fault> {
    report::check_traffic(&args.traffic)?;
    if args.baseline && args.rate != Rate::Max {
        return Err(Fault::Usage("--baseline compares saturating rates: leave out --rate, or say max".into()));
    }
    machine::raise_open_files(2 * args.traffic.connections + 64)?;
    let own = args.target.is_none();
    let server_cpus = if own { args.server.server_cpus.0.clone() } else { Vec::new() };
    let cpu = machine::generator_cpu(args.traffic.cpu, &server_cpus)?;
    let plan = if own { Some(ServerPlan::new(&args.server, cpu)?) } else { None };
    machine::pin(&[cpu])?;
    let mut server = None;
    let (address, token) = match (args.target, plan) {
        (None, Some(plan)) => {
            let server = server.insert(Server::prepare(plan)?);
            server.start(stop)?;
            (server.address(), server.token()?)
        }
        (Some(address), _) => (address, given_token(args)?),
        (None, None) => unreachable!("a server of one's own has a plan"),
    };
    let mut report = load(args, address, &token, !own, quiet, stop)?;
    report.server_cpus = server_cpus;
    report.generator_cpu = cpu;
    if let Some(server) = &mut server {
        server.stop()?;
    }
    Ok(report)
}

fn given_token(args: &RunArgs) -> Result<Token, Fault> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Token::new(token),
        (None, Some(path)) => {
            Token::new(&std::fs::read_to_string(path).map_err(Fault::io(format!("reading {}", path.display())))?)
        }
        (None, None) => Err(Fault::Usage("--target needs --token-file; mint one with `ronctl cap mint`".into())),
    }
}

/// Everything against a server that runs. `used` if accounts may exist already.
///
/// # Errors
/// Any [`Fault`].
pub fn load(
    args: &RunArgs,
    address: SocketAddr,
    token: &Token,
    used: bool,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<RunReport, Fault> {
    let traffic = &args.traffic;
    let seed = machine::seed(traffic.seed);
    let mut workload = workload(traffic, address, token, &args.account_prefix, seed);
    prepare(&mut workload, traffic, address, used, quiet, stop)?;

    let mut engine = warmed_up(&mut workload, traffic, address, args.warmup, quiet, stop)?;
    let mut phases = Vec::new();
    let ratio = if args.baseline {
        Some(rounds(args, &mut engine, &mut workload, token, &mut phases, quiet, stop)?)
    } else {
        measure(args, &mut engine, &mut workload, &mut phases, quiet)?;
        None
    };
    let Aftermath { resolved, hashes, books } = aftermath(&mut workload, traffic, address, quiet, stop)?;
    let below_floor = ratio
        .and_then(|ratio| spread::below("the ratio to the bare responder", ratio.median, args.at_least))
        .or_else(|| too_slow(phases.last()?.by_class.get("spend")?, args.p95_at_most));
    let ok = below_floor.is_none()
        && books.balanced()
        && workload.tally.unexpected_count() == 0
        && phases.iter().all(Phase::complete)
        && resolved.is_none();
    Ok(RunReport {
        command: "run",
        seed,
        connections: traffic.connections,
        pipeline: traffic.pipeline,
        accounts: traffic.accounts,
        shares: shares(traffic),
        server_cpus: Vec::new(),
        generator_cpu: 0,
        phases,
        ratio_to_responder: ratio,
        below_floor,
        tally: workload.tally,
        resolved,
        receipt_hashes_checked: hashes,
        books,
        ok,
    })
}

/// What is to be said of spends that were confirmed more slowly than they may be.
fn too_slow(spends: &Summary, p95_at_most: Option<Duration>) -> Option<String> {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    spread::above("the 95th percentile of the spends, in ms,", spends.p95_us / 1_000.0, p95_at_most.map(milliseconds))
}

/// A load for a server, with a model that knows nothing yet.
pub fn workload(traffic: &TrafficArgs, address: SocketAddr, token: &Token, prefix: &str, seed: u64) -> Workload {
    let naming = Naming {
        host: address.to_string(),
        token: token.expose().to_owned(),
        account_prefix: prefix.to_owned(),
        asset: traffic.asset.clone(),
        run_tag: machine::run_tag(),
    };
    let model = Model::new(u32::try_from(traffic.accounts).expect("the number of accounts has been checked"));
    Workload::new(Requests::new(naming), model, traffic.mix(), traffic.connections as usize, Trust::CheckAll, seed)
}

/// Connections for what is not measured: funding, and reading the books.
///
/// # Errors
/// [`Fault::Connect`].
pub fn preparation_engine(traffic: &TrafficArgs, address: SocketAddr, stop: &Arc<AtomicBool>) -> Result<Engine, Fault> {
    Engine::connect(address, (traffic.connections as usize).min(64), PREPARATION_PIPELINE, traffic.patience, stop)
}

/// Takes existing accounts over, if there may be any, and funds them all.
///
/// # Errors
/// Those of the engine, and [`Fault::Preparation`].
pub fn prepare(
    workload: &mut Workload,
    traffic: &TrafficArgs,
    address: SocketAddr,
    used: bool,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<(), Fault> {
    let mut engine = preparation_engine(traffic, address, stop)?;
    if used {
        let mut progress = Progress::new("taking over accounts", Some(2 * traffic.accounts), quiet);
        funding::adopt(&mut engine, workload, &mut progress)?;
    }
    let mut progress = Progress::new("funding accounts", Some(traffic.accounts), quiet);
    funding::fund(&mut engine, workload, u128::from(traffic.fund), &mut progress)?;
    if traffic.mix().operations == Share::NONE {
        return Ok(());
    }
    let mut progress = Progress::new("placing held value", Some(traffic.accounts), quiet);
    funding::place(&mut engine, workload, traffic.fund, &mut progress)
}

/// Entries that [`prepare`] leaves in a ledger that was empty.
pub fn entries_prepared(traffic: &TrafficArgs) -> u64 {
    traffic.accounts * if traffic.mix().operations == Share::NONE { 1 } else { 2 }
}

fn plan(args: &RunArgs, pace: Pace) -> Plan {
    let duration = args.duration.or(if args.requests.is_none() { Some(DURATION_DEFAULT) } else { None });
    Plan { pace, duration, requests: args.requests, ending: None }
}

fn measure(
    args: &RunArgs,
    engine: &mut Engine,
    workload: &mut Workload,
    phases: &mut Vec<Phase>,
    quiet: bool,
) -> Result<(), Fault> {
    let mut phase = |name: String, pace: Pace, workload: &mut Workload| -> Result<Outcome, Fault> {
        let plan = plan(args, pace);
        let outcome = engine.drive(workload, &plan, &mut Progress::new(&name, plan.requests, quiet))?;
        phases.push(Phase::new(name, pace, &outcome));
        Ok(outcome)
    };
    match args.rate {
        Rate::Max => phase("saturating".into(), Pace::Max, workload)?,
        Rate::PerSecond(rate) => phase("open loop".into(), Pace::PerSecond(rate), workload)?,
        Rate::OfMax(fraction) => {
            let saturating = phase("saturating".into(), Pace::Max, workload)?.rate();
            let name = format!("open loop at {:.0}%", fraction * 100.0);
            phase(name, Pace::PerSecond((saturating * fraction).max(1.0)), workload)?
        }
    };
    Ok(())
}

/// Responder and server in turns; gives the ratios.
fn rounds(
    args: &RunArgs,
    engine: &mut Engine,
    workload: &mut Workload,
    token: &Token,
    phases: &mut Vec<Phase>,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Spread, Fault> {
    let responder = Responder::start(&args.server.server_cpus.0)?;
    let seed = machine::seed(args.traffic.seed);
    let mut bare = BareLoad::new(responder.address(), &args.traffic, token.expose(), seed, stop)?;
    let plan = plan(args, Pace::Max);
    let mut ratios = Vec::new();
    for round in 1..=args.rounds {
        let name = format!("responder {round} of {}", args.rounds);
        let without = bare.drive(&plan, &mut Progress::new(&name, plan.requests, quiet))?;
        phases.push(Phase::new(name, Pace::Max, &without));
        let name = format!("server {round} of {}", args.rounds);
        let with = engine.drive(workload, &plan, &mut Progress::new(&name, plan.requests, quiet))?;
        phases.push(Phase::new(name, Pace::Max, &with));
        ratios.push(with.rate() / without.rate());
    }
    Ok(Spread::of(ratios))
}

/// The connections of a load, which have sent some of it if it is to be warmed up.
///
/// # Errors
/// Those of the engine.
pub fn warmed_up(
    workload: &mut Workload,
    traffic: &TrafficArgs,
    address: SocketAddr,
    warmup: Duration,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Engine, Fault> {
    let (connections, pipeline) = (traffic.connections as usize, traffic.pipeline as usize);
    let mut engine = Engine::connect(address, connections, pipeline, traffic.patience, stop)?;
    if warmup > Duration::ZERO {
        let plan = Plan { pace: Pace::Max, duration: Some(warmup), requests: None, ending: None };
        engine.drive(workload, &plan, &mut Progress::new("warm-up", None, quiet))?;
    }
    Ok(engine)
}

/// What is found after a load.
pub struct Aftermath {
    /// Spends without a known outcome, repeated.
    pub resolved: Option<Resolved>,
    /// Sampled receipts whose own hash was checked.
    pub hashes: u64,
    /// The books.
    pub books: Books,
}

/// Settles what is in doubt, and looks at receipts and books.
///
/// # Errors
/// Those of the engine.
pub fn aftermath(
    workload: &mut Workload,
    traffic: &TrafficArgs,
    address: SocketAddr,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Aftermath, Fault> {
    let resolved = settle(traffic, address, workload, quiet, stop)?;
    let hashes = check_hashes(workload);
    let mut reader = preparation_engine(traffic, address, stop)?;
    let mut progress = Progress::new("checking the books", Some(2 * traffic.accounts), quiet);
    let books = books::check(&mut reader, &workload.requests, &workload.model, &mut progress)?;
    Ok(Aftermath { resolved, hashes, books })
}

/// Repeats what is in doubt over new connections; the old ones may be broken.
fn settle(
    traffic: &TrafficArgs,
    address: SocketAddr,
    workload: &mut Workload,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Resolved>, Fault> {
    if workload.in_doubt.is_empty() {
        return Ok(None);
    }
    let mut engine = preparation_engine(traffic, address, stop)?;
    doubt::resolve(&mut engine, workload, quiet).map(Some)
}

/// Checks the hashes inside all sampled receipts; gives their number.
pub fn check_hashes(workload: &mut Workload) -> u64 {
    let count = u32::try_from(workload.sample.len()).expect("the sample is small");
    for number in 0..count {
        let body = workload.sample.body(number);
        if !receipt_hash_holds(body) {
            workload.tally.trouble("a receipt's own hash is wrong", || crate::tally::text(body));
        }
    }
    u64::from(count)
}

fn shares(traffic: &TrafficArgs) -> BTreeMap<&'static str, f64> {
    let mix = traffic.mix();
    let named = [
        ("read", mix.reads),
        ("repeat", mix.repeats),
        ("refusal", mix.refusals),
        ("hot", mix.hot),
        ("operations", mix.operations),
    ];
    named.into_iter().map(|(name, share)| (name, share.fraction())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spends_are_too_slow_above_the_time_and_not_at_it() {
        let figure = |p95_us| Summary { count: 9, p50_us: 1.0, p90_us: 2.0, p95_us, p99_us: 4e5, p999_us: 5e5, max_us: 6e5 };
        let promised = Some(Duration::from_millis(150));
        assert_eq!(too_slow(&figure(150_000.0), promised), None);
        let said = too_slow(&figure(150_001.0), promised).unwrap();
        assert_eq!(said, "the 95th percentile of the spends, in ms, is 150.001, above 150, which it may be at most");
        assert_eq!(too_slow(&figure(1e9), None), None, "nobody has asked");
    }
}
