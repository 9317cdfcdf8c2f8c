//! The process of the ledger daemon: arguments, its socket, signals, an orderly end. What it serves is in [`crate::ledger`].
mod settings;

pub use settings::{Args, Settings};

use crate::control::{bind_admin, look_at_socket, SignalEvent, Signals};
use crate::ledger::{Admitted, DiskStorage, LedgerError, Log, Options, Server, Storage};
use crate::telemetry::logs::LogGuard;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The value of the field `service` of the log.
pub const SERVICE: &str = "ron-ledger";

/// Opens the ledger, serves it until a signal asks for an end, and closes it.
///
/// # Errors
/// If something stands in the way of a start, or the ledger cannot be closed in order; a sentence that says what to do.
pub fn run(settings: &Settings, log: &LogGuard) -> Result<(), String> {
    let directory = settings.directory.display();
    // Before a directory is made: a daemon that cannot listen leaves no ledger behind.
    check_directory(&settings.socket)?;
    look_at_socket(&settings.socket).map_err(|fault| fault.to_string())?;
    let storage = DiskStorage::create(&settings.directory)
        .map_err(|error| format!("cannot use the ledger directory {directory}: {error}"))?;
    run_on(storage, &Options::new(settings.segment_bytes), settings, log)
}

/// As [`run`], on a storage that the caller has made of the directory: crash tests put one there that loses or refuses writes.
///
/// # Errors
/// Those of [`run`].
pub fn run_on<S: Storage>(storage: S, options: &Options, settings: &Settings, log: &LogGuard) -> Result<(), String> {
    end_with_any_panic();
    let (_signals, events) = Signals::listen().map_err(|error| format!("cannot take over the signals: {error}"))?;
    let directory = storage.place("");
    // The lock of the directory decides who owns the ledger; only its owner touches the socket.
    let (ledger, recovery, snapshot) = Log::recover_from_snapshot(storage, options).map_err(|error| error.to_string())?;
    check_directory(&settings.socket)?;
    let socket = bind_admin(&settings.socket).map_err(|fault| fault.to_string())?;
    let listener = socket.listener().map_err(|error| format!("{}: {error}", settings.socket.display()))?;
    let flush = log.clone();
    let end = Box::new(move |_: &LedgerError| {
        flush.flush();
        std::process::abort();
    });
    let (entries, epoch) = (recovery.entries, recovery.epoch);
    let admitted = Admitted(settings.users.clone());
    let from_snapshot = snapshot.as_ref().map_or(0, |snapshot| snapshot.head().seq.0);
    let server =
        Server::start(ledger, snapshot, settings.schedule, listener, admitted, end).map_err(|error| error.to_string())?;
    server.scrub(settings.scrubbing).map_err(|error| format!("cannot start the thread that scrubs: {error}"))?;
    tracing::info!(event = "ledger_started", %directory, socket = %settings.socket.display(), entries, from_snapshot, epoch, "serving the ledger");
    // The second signal to end ends it at once, by itself.
    loop {
        match events.recv() {
            // A daemon has nothing to read again.
            Ok(SignalEvent::Reload) => {}
            Ok(SignalEvent::Snapshot) => server.take_snapshot(),
            Ok(SignalEvent::Drain | SignalEvent::Exit(_)) | Err(_) => break,
        }
    }
    let stopped = server.stop();
    drop(socket);
    stopped.map_err(|error| error.to_string())?;
    tracing::info!(event = "ledger_stopped", "the ledger is closed");
    Ok(())
}

/// Lets a panic of any thread end the process after its message.
fn end_with_any_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Whoever can write to the directory of the socket can put another one in its place.
fn check_directory(socket: &Path) -> Result<(), String> {
    let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    let mode = match fs::metadata(directory) {
        // It is made with mode 0700.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", directory.display())),
        Ok(found) => found.permissions().mode() & 0o777,
    };
    if mode & 0o077 != 0 {
        return Err(format!(
            "{}: the directory of the socket has mode {mode:04o} and is open to others; run chmod 700 on it, or choose a directory of \
             its own with --sock",
            directory.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_reach_is_refused_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("run");
        assert_eq!(check_directory(&directory.join("l.sock")), Ok(()));
        fs::create_dir(&directory).unwrap();
        for (mode, good) in [(0o700, true), (0o500, true), (0o710, false), (0o755, false), (0o702, false)] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            let told = check_directory(&directory.join("l.sock"));
            assert_eq!(told.is_ok(), good, "{mode:o}");
            assert!(good || told.unwrap_err().contains("chmod 700"));
        }
    }
}
