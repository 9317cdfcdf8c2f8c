//! `ronctl demo`: the whole wallet in one minute, on a server of its own that is gone afterwards.
//!
//! Everything shown is real: the server is the `svc-wallet` program, the requests go over HTTP, the kill is SIGKILL, and the
//! ledger that is verified in the end is the one that the server wrote.
mod sandbox;
mod scene;
mod script;
mod show;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use self::sandbox::Sandbox;
use self::scene::{Check, Stage, Token};
use self::script::Tokens;
use super::client::{Address, Client};
use super::context::{mint_failure, Context};
use super::exit::{Exit, Failure};
use super::output::{grouped, Output, Style};
use crate::access::{mint, Keyring, MintRequest};
use crate::ledger::verify_directory;
use crate::worker::unix_now;

/// How long one request of the demonstration may take.
const ANSWER_MS_MAX: u64 = 5_000;
/// How long its tokens are good.
const TOKEN_S: u64 = 600;
/// The audience that a server expects unless it is configured otherwise.
const AUDIENCE: &str = "svc-wallet";

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl demo
  ronctl --json demo | jq '.steps[] | {title, checks}'

Nothing of yours is touched: the server listens on free loopback ports, keeps its files in a temporary directory, and both
are gone when the command ends, however it ends. Ends with 0 only if everything was as expected.")]
pub struct Demo {
    /// Server program; otherwise svc-wallet in the directory of ronctl
    #[arg(long, value_name = "PROGRAM")]
    pub server: Option<PathBuf>,
}

impl Demo {
    /// Plays everything, cleans up, and says whether all was as expected.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let output = context.output;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(|fault| Failure::internal(format!("cannot listen for signals: {fault}"), ""))?;
        }
        let mut sandbox = Sandbox::create(self.server_program()?, Arc::clone(&interrupted))?;
        let client = Client::new(Address::Tcp(sandbox.http()), Duration::from_millis(ANSWER_MS_MAX));
        let mut stage = Stage::new(output, client, interrupted);
        let started = Instant::now();
        let outcome = play(&mut stage, &mut sandbox);
        drop(sandbox);
        let as_expected = outcome.is_ok() && stage.steps().iter().flat_map(|step| &step.checks).all(|check| check.held);
        if output.json {
            let steps: Vec<Value> = stage.steps().iter().map(scene::Step::to_json).collect();
            output.value(
                &json!({"as_expected": as_expected, "elapsed_ms": started.elapsed().as_millis() as u64, "steps": steps}),
            )?;
        }
        outcome?;
        if !output.json {
            output.line(&closing(&output, &stage, started.elapsed()))?;
        }
        Ok(if as_expected { Exit::Done } else { Exit::No })
    }

    fn server_program(&self) -> Result<PathBuf, Failure> {
        if let Some(program) = &self.server {
            return std::path::absolute(program)
                .map_err(|fault| Failure::usage(format!("cannot find {}: {fault}", program.display()), ""));
        }
        let own = std::env::current_exe().map_err(|fault| Failure::internal(format!("cannot find this program: {fault}"), ""))?;
        let program = own.with_file_name("svc-wallet");
        if program.is_file() {
            return Ok(program);
        }
        Err(Failure::usage(
            format!("there is no server beside this program: {} is missing", program.display()),
            "build all programs with `cargo build --release`, or name one with --server PROGRAM",
        ))
    }
}

fn play(stage: &mut Stage, sandbox: &mut Sandbox) -> Result<(), Failure> {
    let (pid, ready) = sandbox.start()?;
    stage.note(
        "A server of its own",
        "One process with everything in it: the wallet, its ledger, its counters.",
        vec![
            format!("svc-wallet, process {pid}, on http://{}", sandbox.http()),
            format!("its files are in {}", sandbox.path("").display()),
        ],
        vec![Check::new(format!("ready {} after its start", show::elapsed(ready)), true)],
    )?;
    let tokens = tokens(sandbox)?;
    let kept = with_log(sandbox, script::first_act(stage, &tokens))?;
    crash(stage, sandbox)?;
    with_log(sandbox, script::second_act(stage, &tokens, &kept))?;
    let (status, elapsed) = sandbox.stop()?;
    stage.note(
        "SIGTERM: the server stops in good order",
        "It refuses new work first, finishes what it has begun, syncs the ledger and ends.",
        vec![format!("ended {} after the signal", show::elapsed(elapsed))],
        vec![Check::new(format!("it ended by itself: {status}"), status.code() == Some(0))],
    )?;
    verify(stage, &sandbox.path("ledger"))
}

fn crash(stage: &mut Stage, sandbox: &mut Sandbox) -> Result<(), Failure> {
    stage.check_interrupt()?;
    sandbox.kill()?;
    stage.note(
        "kill -9",
        "No warning, no time to save anything. What was acknowledged has to be on the disk by now.",
        vec!["the server is gone".to_owned()],
        Vec::new(),
    )?;
    let (pid, ready) = sandbox.start()?;
    stage.note(
        "The server starts again",
        "It reads its ledger, checks every hash of it, and knows every balance, nonce and key again.",
        vec![format!("svc-wallet, process {pid}")],
        vec![Check::new(format!("ready {} after its start", show::elapsed(ready)), true)],
    )
}

fn verify(stage: &mut Stage, ledger: &Path) -> Result<(), Failure> {
    let checks = match verify_directory(ledger, &mut |_| {}) {
        Err(refuted) => vec![Check::new(refuted.fault.to_string(), false)],
        Ok(report) => {
            let mut checks = vec![Check::new(
                format!("{} entries, one for each accepted request, none for refusals and repeats", report.here.entries),
                report.here.entries == script::ENTRIES,
            )];
            checks.push(Check::new("the chain of hashes is whole and no nonce is missing", true));
            checks.extend(report.assets.iter().map(|totals| {
                let what = format!("{}: {} issued, {} on accounts", totals.asset, totals.issued, totals.balances);
                Check::new(what, totals.issued - totals.burned == totals.balances)
            }));
            checks
        }
    };
    stage.note(
        "The ledger, read back from the disk",
        "Every entry is replayed as an auditor would: hashes, numbering, nonces, balances, and the sum over all accounts.",
        Vec::new(),
        checks,
    )
}

/// A request that got no reply is reported together with what the server had to say.
fn with_log<T>(sandbox: &Sandbox, outcome: Result<T, Failure>) -> Result<T, Failure> {
    outcome.map_err(|failure| match failure.exit {
        Exit::Unreachable => Failure { exit: Exit::Unreachable, ..sandbox.with_log(&failure.message) },
        Exit::Done | Exit::No | Exit::Usage | Exit::Internal => failure,
    })
}

fn tokens(sandbox: &Sandbox) -> Result<Tokens, Failure> {
    let of_keyring = |fault: crate::access::KeyringFault| Failure::internal(fault.to_string(), "");
    let own = Keyring::open(&sandbox.path("keyring")).map_err(of_keyring)?;
    let strange = Keyring::open_or_create(&sandbox.path("mallorys-keyring")).map_err(of_keyring)?;
    let token = |keyring: &Keyring, name: &'static str, scope: &str| {
        let request = MintRequest {
            subject: name.to_owned(),
            scopes: vec![scope.to_owned()],
            ttl: Duration::from_secs(TOKEN_S),
            audience: AUDIENCE.to_owned(),
            ..MintRequest::default()
        };
        mint(keyring, &request, unix_now()).map(|secret| Token { name, secret }).map_err(|fault| mint_failure(&fault))
    };
    Ok(Tokens {
        operator: token(&own, "operator", "wallet:*")?,
        reader: token(&own, "reader", "wallet:read")?,
        stranger: token(&strange, "mallory", "wallet:*")?,
    })
}

fn closing(output: &Output, stage: &Stage, elapsed: Duration) -> String {
    let checks: Vec<&Check> = stage.steps().iter().flat_map(|step| &step.checks).collect();
    let failed: Vec<&&Check> = checks.iter().filter(|check| !check.held).collect();
    let requests = stage.steps().iter().filter(|step| step.exchange.is_some()).count();
    let summary = format!(
        "{requests} requests, one kill -9, {} checks, {}.{} s. Server and directory are gone.",
        grouped(checks.len() as u128),
        elapsed.as_millis() / 1000,
        elapsed.as_millis() % 1000 / 100
    );
    if failed.is_empty() {
        return format!("{}\n{summary}", output.paint(Style::Good, "Everything was as it should be."));
    }
    let mut lines = vec![output.paint(Style::Bad, &format!("{} of {} checks failed:", failed.len(), checks.len()))];
    lines.extend(failed.iter().map(|check| show::check(output, check)));
    lines.push(summary);
    lines.join("\n")
}
