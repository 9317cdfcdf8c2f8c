//! The process that keeps the counters of wallets on this machine: arguments, its socket, signals, an orderly end. What it keeps, and how,
//! is in [`crate::accounting`].
mod books;
mod server;

use crate::accounting::{files_behind, SinkFault};
use crate::control::{bind_admin, check_socket_directory, SignalEvent, Signals, Supervisor};
use books::Books;
use server::Server;
use std::path::{Path, PathBuf};

/// The value of the field `service` of the log.
pub const SERVICE: &str = "ron-accounting";

/// Keeps the counters of the wallets on this machine behind a unix socket: the same files that svc-wallet writes by itself.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "ron-accounting",
    version,
    after_help = "Examples:
  ron-accounting --dir ./var/counters --sock unix:///run/ron-accounting/accounting.sock
  ron-accounting --dir /var/lib/ron/counters --sock unix:///run/ron-accounting/accounting.sock --allow-uid 1001

A wallet uses it with deps.accounting_sock = \"unix:///run/ron-accounting/accounting.sock\". The socket has mode 0600; its directory is made with
mode 0700 and must not be open to others. Each ledger has a directory of its name in DIR. Every entry of it is counted there once, however
often either side is killed; `ronctl accounting show` reads it. SIGTERM and SIGINT end the daemon in order.
Exit codes: 0 ended in order, 1 could not start, 2 arguments, 130/143 ended at once."
)]
pub struct Args {
    /// Directory of the counters; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Where to listen: unix:///PATH
    #[arg(long, value_name = "SOCKET", value_parser = crate::config::socket_path)]
    pub sock: PathBuf,
    /// User whose processes may connect; repeatable. If none is given: the user of this process, and root
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,
}

/// Keeps counters until a signal asks for an end.
///
/// # Errors
/// If something stands in the way of a start; a sentence that says what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let (_signals, events) = Signals::listen().map_err(|error| format!("cannot take over the signals: {error}"))?;
    let supervisor = Supervisor::of_process();
    check_socket_directory(&args.sock)?;
    let books = Books::open(&args.dir).map_err(|fault| fault.to_string())?;
    let socket = bind_admin(&args.sock).map_err(|fault| fault.to_string())?;
    let listener = socket.listener().map_err(|error| format!("{}: {error}", args.sock.display()))?;
    let mut users = args.allow_uid.clone();
    if users.is_empty() {
        users = vec![rustix::process::geteuid().as_raw(), 0];
    }
    let (directory, ledgers) = (args.dir.display().to_string(), books.logs().len());
    Server { books: books.into(), users }
        .start(listener)
        .map_err(|error| format!("cannot start the thread that accepts: {error}"))?;
    tracing::info!(event = "accounting_served", directory, socket = %args.sock.display(), ledgers, "counters are kept");
    supervisor.ready("keeping counters");
    // It lives as long as it answers whoever asks.
    let is_well = || answers(&args.sock);
    // There is nothing to read again, nor to take a snapshot of.
    while let Ok(SignalEvent::Reload | SignalEvent::Snapshot) = supervisor.wait(&events, is_well) {}
    supervisor.ending("ending");
    // A line that is being written now is whole or is cut off by the next start; its wallet asks which.
    tracing::info!(event = "accounting_ended", "no counters are kept any more");
    Ok(())
}

/// Whether the daemon behind this socket answers a question, were it with a refusal.
fn answers(socket: &Path) -> bool {
    !matches!(files_behind(socket), Err(SinkFault::Absent { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_daemon_answers_if_it_refuses_and_not_if_it_is_silent_or_gone() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("s");
        assert!(!answers(&socket), "nobody is there");
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(!answers(&socket), "the system accepts for it, and it is silent");
        let refuses = std::thread::spawn(move || {
            // The first one has given up.
            drop(listener.accept());
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"error\":\"there is no room\"}\n").unwrap();
        });
        assert!(answers(&socket));
        refuses.join().unwrap();
    }
}
