//! The process of the ledger daemon: arguments, its socket, signals, an orderly end. What it serves is in [`crate::ledger`].
mod settings;

pub use settings::{Args, Settings};

use crate::control::{
    bind_admin, check_socket_directory, look_at_socket, note_progress, Interruption, SignalEvent, Signals, Supervisor,
};
use crate::domain::Seq;
use crate::ledger::{answers, Admitted, DiskStorage, LedgerError, Log, Options, Recovered, Server, Storage};
use crate::telemetry::logs::LogGuard;
use crossbeam_channel::Receiver;

/// The value of the field `service` of the log.
pub const SERVICE: &str = "ron-ledger";

/// Opens the ledger, serves it until a signal asks for an end, and closes it.
///
/// # Errors
/// If something stands in the way of a start, or the ledger cannot be closed in order; a sentence that says what to do.
pub fn run(settings: &Settings, log: &LogGuard) -> Result<(), String> {
    let directory = settings.directory.display();
    // Before a directory is made: a daemon that cannot listen leaves no ledger behind.
    check_socket_directory(&settings.socket)?;
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
    let supervisor = Supervisor::of_process();
    supervisor.status("reading the ledger");
    // The lock of the directory decides who owns the ledger; only its owner touches the socket.
    let Some((ledger, recovery, snapshot)) = recover(storage, options, &events)? else { return Ok(()) };
    check_socket_directory(&settings.socket)?;
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
    supervisor.ready("serving the ledger");
    // It lives as long as it answers whoever asks.
    let is_well = || answers(&settings.socket);
    // The second signal to end ends it at once, by itself.
    loop {
        match supervisor.wait(&events, is_well) {
            // A daemon has nothing to read again.
            Ok(SignalEvent::Reload) => {}
            Ok(SignalEvent::Snapshot) => server.take_snapshot(),
            Ok(SignalEvent::Drain | SignalEvent::Exit(_)) | Err(_) => break,
        }
    }
    supervisor.ending("closing the ledger");
    let stopped = server.stop();
    drop(socket);
    stopped.map_err(|error| error.to_string())?;
    tracing::info!(event = "ledger_stopped", "the ledger is closed");
    Ok(())
}

/// Opens the ledger; `None` if a signal asked for an end while it was read.
fn recover<S: Storage>(storage: S, options: &Options, events: &Receiver<SignalEvent>) -> Result<Option<Recovered<S>>, String> {
    let mut interruption = Interruption::new(events);
    let recovered = Log::recover_from_snapshot(storage, options, &mut |seq| {
        if seq > Seq(0) {
            note_progress(seq);
        }
        interruption.look(seq.0)
    });
    match (recovered, interruption.given_up_at()) {
        (Ok(recovered), _) => Ok(Some(recovered)),
        (Err(_), Some(seq)) => {
            let entries = seq.saturating_sub(1);
            let what = "a signal asked for an end while the ledger was being read; the ledger is as it was";
            tracing::info!(event = "start_given_up", entries, "{what}");
            Ok(None)
        }
        (Err(error), None) => Err(error.to_string()),
    }
}

/// Lets a panic of any thread end the process after its message.
fn end_with_any_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::{ledger, options, snapshot_of};
    use crate::ledger::MemoryStorage;

    /// What reading this ledger comes to if these signals have come: its last entry, or that it was given up.
    fn recovered(storage: &MemoryStorage, signals: &[SignalEvent]) -> Option<Seq> {
        let (sender, events) = crossbeam_channel::bounded(2);
        signals.iter().for_each(|signal| sender.send(*signal).unwrap());
        let recovered = recover(storage.clone(), &options(), &events).unwrap();
        recovered.map(|(_, recovery, _)| recovery.head)
    }

    #[test]
    fn a_signal_to_end_gives_the_reading_up_and_changes_nothing_of_the_ledger() {
        let storage = ledger(17);
        let head = Seq(17 * 1024);
        let end = [SignalEvent::Snapshot, SignalEvent::Drain];
        for has_snapshot in [false, true] {
            let before = storage.operations().0;
            assert_eq!(recovered(&storage, &end), None, "a snapshot: {has_snapshot}");
            assert_eq!(storage.operations().0, before, "nothing was written");
            // The lock is free again.
            assert_eq!(recovered(&storage, &[SignalEvent::Reload]), Some(head));
            if !has_snapshot {
                // Behind it there is no entry: whoever ends from now on does so while the snapshot is read.
                let (log, _) = Log::open(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
                snapshot_of(&log);
                log.close().unwrap();
            }
        }
    }
}
