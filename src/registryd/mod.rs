//! The process of the registry: a topology file behind HTTP, for wallets that ask for it.
//!
//! The file is read by the same reader, and under the same rules, as in a wallet: a bad file, an older version or another content under
//! the same version never takes the place of what is served. What it serves is in `server`, when somebody who waits is answered in `board`.
mod board;
mod request;
mod server;

#[cfg(any(test, fuzzing))]
pub(crate) use request::fuzzing;

use crate::config::RegistryDep;
use crate::control::{SignalEvent, Signals, Supervisor};
use crate::registry::{Registry, Source, Standing, StartFault, Watch};
use board::Board;
use crossbeam_channel::RecvTimeoutError;
use server::Server;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The value of the field `service` of the log.
pub const SERVICE: &str = "svc-registry";

/// Time between two looks at what has been read of the file.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest pause before a file that was bad is read again.
const BAD_FILE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Serves a topology file over HTTP to the wallets that are configured with deps.registry_url = "http://HOST:PORT".
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "svc-registry",
    version,
    after_help = "Examples:
  svc-registry --file ./configs/registry.json
  svc-registry --file /etc/ron/registry.json --listen 10.0.0.5:8500

A change of the file is noticed by itself, and on SIGHUP; raise its version. A bad file leaves the topology before it in place, and the
log says why. SIGTERM and SIGINT end it.
GET /v1/topology has the topology with an ETag; with If-None-Match and ?wait=SECONDS it answers when there is another one, or with 304
after that time, 60 seconds at most. GET /healthz says that it is alive. There is no TLS and no authority: listen where only wallets are.
Exit codes: 0 ended in order, 1 could not start, 2 arguments, 130/143 ended at once."
)]
pub struct Args {
    /// The topology, as docs/INTEROP.md has it
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Where to listen: an IP address and a port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8500")]
    pub listen: SocketAddr,
}

/// Serves the file until a signal asks for an end.
///
/// # Errors
/// If something stands in the way of a start; a sentence that says what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let (_signals, events) = Signals::listen().map_err(|error| format!("cannot take over the signals: {error}"))?;
    let supervisor = Supervisor::of_process();
    let file = RegistryDep::File(args.file.clone());
    let source = Source::new(&file, BAD_FILE_PAUSE_MAX, BAD_FILE_PAUSE_MAX)?;
    let watch = Watch::start(source, BAD_FILE_PAUSE_MAX).map_err(|fault| match fault {
        StartFault::Bad(reason) => format!("registry {}: {reason}", args.file.display()),
        StartFault::Thread(error) => format!("cannot start the thread that reads the file: {error}"),
    })?;
    let mut told = watch.standing();
    let first = told.topology.clone().expect("a file is read before the start returns");
    let listener = TcpListener::bind(args.listen).map_err(|error| {
        format!("cannot listen on {}: {error}; stop what listens there or choose another address with --listen", args.listen)
    })?;
    let board = Arc::new(Board::new(&first));
    let server = Server::start(listener, board.clone()).map_err(|error| format!("cannot serve {}: {error}", args.listen))?;
    let (file, version) = (args.file.display().to_string(), first.version());
    tracing::info!(event = "topology_served", listen = %server.address(), file, version, "serving the topology");
    supervisor.ready("serving the topology");
    loop {
        match events.recv_timeout(LOOK_EVERY) {
            Ok(SignalEvent::Reload) => watch.look(),
            // There is nothing to take one of.
            Ok(SignalEvent::Snapshot) | Err(RecvTimeoutError::Timeout) => {}
            Ok(SignalEvent::Drain | SignalEvent::Exit(_)) | Err(RecvTimeoutError::Disconnected) => break,
        }
        supervisor.lives(|| server.answers());
        let standing = watch.standing();
        follow(&board, &told, &standing);
        told = standing;
    }
    supervisor.ending("ending");
    server.stop();
    tracing::info!(event = "topology_ended", "nothing is served any more");
    Ok(())
}

/// Publishes what is new, and tells it.
fn follow(board: &Board, before: &Standing, now: &Standing) {
    let version = |standing: &Standing| standing.topology.as_deref().map(Registry::version);
    if let Some(topology) = now.topology.as_deref().filter(|_| version(now) != version(before)) {
        board.publish(topology);
        tracing::info!(event = "topology_changed", version = topology.version(), "another topology is served");
    }
    match &now.trouble {
        Some(error) if before.trouble.as_ref() != Some(error) || now.looks != before.looks => {
            tracing::error!(event = "topology_refused", %error, version = version(now), "the topology before it is served on");
        }
        Some(_) | None => {}
    }
}
