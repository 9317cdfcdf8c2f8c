//! The bare responder as a process of its own, and loads against it that look exactly like those against the server.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{atomic::AtomicBool, Arc},
};

use crate::{
    args::{BaselineArgs, TrafficArgs},
    engine::{Engine, Outcome, Pace, Plan},
    fault::Fault,
    machine,
    model::Model,
    progress::Progress,
    report::{self, Phase},
    requests::{Naming, Requests},
    tally::Tally,
    workload::{Trust, Workload},
};

/// A responder that runs until this is dropped.
pub struct Responder {
    child: Child,
    address: SocketAddr,
}

impl Responder {
    /// Starts one on these CPUs.
    ///
    /// # Errors
    /// [`Fault::Program`] if it does not tell its address.
    pub fn start(cpus: &[usize]) -> Result<Responder, Fault> {
        let own = std::env::current_exe().map_err(Fault::io("finding this program"))?;
        let list = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(own);
        command.args(["responder", "--cpus", &list]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Fault::io("starting the bare responder"))?;
        let mut line = String::new();
        let output = child.stdout.take().expect("standard output was asked for as a pipe");
        let told = BufReader::new(output).read_line(&mut line);
        let address = told.ok().and_then(|_| line.trim().parse().ok());
        // Made before the check, so that the child is stopped either way.
        let responder = Responder { child, address: address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))) };
        match address {
            Some(_) => Ok(responder),
            None => Err(Fault::Program { what: "the bare responder".into(), cause: "did not start; see above".into() }),
        }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _already_gone = self.child.kill().and_then(|()| self.child.wait().map(|_| ()));
    }
}

/// Connections to a responder and a load for it.
pub struct BareLoad {
    engine: Engine,
    workload: Workload,
}

impl BareLoad {
    /// Connects as many as the load against the server has.
    ///
    /// # Errors
    /// [`Fault::Connect`].
    pub fn new(
        address: SocketAddr,
        traffic: &TrafficArgs,
        token: &str,
        seed: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<BareLoad, Fault> {
        let (connections, pipeline) = (traffic.connections as usize, traffic.pipeline as usize);
        let engine = Engine::connect(address, connections, pipeline, traffic.patience, stop)?;
        let naming = Naming {
            host: address.to_string(),
            token: token.to_owned(),
            account_prefix: "load:".into(),
            asset: traffic.asset.clone(),
            run_tag: machine::run_tag(),
        };
        let mut model = Model::new(traffic.accounts as u32);
        (0..model.len()).for_each(|account| model.issue(account, u128::from(traffic.fund)));
        let workload = Workload::new(Requests::new(naming), model, traffic.mix(), connections, Trust::AnyReply, seed);
        Ok(BareLoad { engine, workload })
    }

    /// Loads the responder once.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn drive(&mut self, plan: &Plan, progress: &mut Progress) -> Result<Outcome, Fault> {
        self.engine.drive(&mut self.workload, plan, progress)
    }

    /// What was answered so far.
    pub fn tally(&self) -> &Tally {
        &self.workload.tally
    }
}

/// A token of the usual size: the responder does not read it, but it has to be sent.
pub fn placeholder_token() -> String {
    "A".repeat(300)
}

/// The command: only the responder.
///
/// # Errors
/// Those of the engine and of the start.
pub fn run(args: &BaselineArgs, quiet: bool, stop: &Arc<AtomicBool>) -> Result<report::BaselineReport, Fault> {
    report::check_traffic(&args.traffic)?;
    machine::raise_open_files(args.traffic.connections + 64)?;
    let cpu = machine::generator_cpu(args.traffic.cpu, &args.server_cpus.0)?;
    machine::pin(&[cpu])?;
    let seed = machine::seed(args.traffic.seed);
    let responder = Responder::start(&args.server_cpus.0)?;
    let mut load = BareLoad::new(responder.address(), &args.traffic, &placeholder_token(), seed, stop)?;
    let plan = Plan { pace: Pace::Max, duration: Some(args.duration), requests: None, ending: None };
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let name = format!("responder {round} of {}", args.rounds);
        let outcome = load.drive(&plan, &mut Progress::new(&name, None, quiet))?;
        rounds.push(Phase::new(name, plan.pace, &outcome));
    }
    let rate_median = report::median(rounds.iter().map(|phase| phase.rate));
    Ok(report::BaselineReport {
        command: "baseline",
        seed,
        connections: args.traffic.connections,
        pipeline: args.traffic.pipeline,
        server_cpus: args.server_cpus.0.clone(),
        generator_cpu: cpu,
        rounds,
        rate_median,
        unexpected: load.tally().unexpected.clone(),
    })
}
