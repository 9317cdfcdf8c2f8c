//! Signals of the operating system as events: the first SIGINT or SIGTERM drains, a second one ends at once, SIGHUP has policy,
//! topology, revocations and keyring read again, SIGUSR1 asks for a snapshot of the ledger.
//!
//! The second signal must work when everything else is stuck, so it is acted upon in the thread that receives it and waits for
//! nobody. Ending at once loses nothing that was acknowledged: it is a crash, and recovery is made for that.
use crossbeam_channel::{Receiver, TrySendError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals as Arrivals;

/// What `svc-wallet --help` says of signals and of how it ends.
pub const AFTER_HELP: &str = "\
Signals: INT and TERM drain, a second one ends at once; HUP reads policy, topology, revocations and keyring again; USR1 takes a snapshot of an
embedded ledger now, while it serves (of the ledger of a daemon: send it to ron-ledger).
Exit codes: 0 ended in order, 1 could not start or stop, 2 configuration, 3 replaced at its ledger, 130/143 ended at once.";

/// Exit code after a second SIGINT.
pub const EXIT_SIGINT: i32 = 128 + SIGINT;
/// Exit code after a second signal of which the last was SIGTERM.
pub const EXIT_SIGTERM: i32 = 128 + SIGTERM;

/// Two snapshots, a reload, and the drain.
const EVENTS_MAX: usize = 4;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalEvent {
    /// Shut down in order.
    Drain,
    /// Read policy, topology, revocations and keyring again.
    Reload,
    /// Take a snapshot of the ledger now.
    Snapshot,
    /// End at once with this code. Never sent through the channel: it is carried out where the signal arrives.
    Exit(i32),
}

/// What the signals so far mean; pure.
#[derive(Debug, Default)]
struct Meaning {
    draining: bool,
}

impl Meaning {
    fn of(&mut self, signal: i32) -> Option<SignalEvent> {
        match signal {
            SIGHUP => Some(SignalEvent::Reload),
            SIGUSR1 => Some(SignalEvent::Snapshot),
            SIGINT | SIGTERM if self.draining => Some(SignalEvent::Exit(128 + signal)),
            SIGINT | SIGTERM => {
                self.draining = true;
                Some(SignalEvent::Drain)
            }
            _ => None,
        }
    }
}

/// The thread that receives signals.
#[derive(Debug)]
pub struct Signals {
    handle: signal_hook::iterator::Handle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGHUP and SIGUSR1 for the whole process. Snapshots that are asked for while two events
    /// wait to be read are left out, and reloads while three do, of which one is a reload, which will read what this one would: so there is
    /// always room for the drain.
    pub fn listen() -> std::io::Result<(Self, Receiver<SignalEvent>)> {
        Self::listen_and_exit_by(signal_hook::low_level::exit)
    }

    fn listen_and_exit_by<R: 'static>(exit: fn(i32) -> R) -> std::io::Result<(Self, Receiver<SignalEvent>)> {
        let mut arrivals = Arrivals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
        let handle = arrivals.handle();
        let (events, reader) = crossbeam_channel::bounded(EVENTS_MAX);
        let receive = move || {
            let mut meaning = Meaning::default();
            for signal in arrivals.forever() {
                match meaning.of(signal) {
                    Some(SignalEvent::Exit(code)) => {
                        exit(code);
                    }
                    Some(SignalEvent::Snapshot) if events.len() + 2 >= EVENTS_MAX => {}
                    Some(SignalEvent::Reload) if events.len() + 1 >= EVENTS_MAX => {}
                    Some(event @ (SignalEvent::Reload | SignalEvent::Snapshot | SignalEvent::Drain)) => {
                        match events.try_send(event) {
                            Ok(()) => {}
                            Err(TrySendError::Full(_)) => unreachable!("there is always room for the one drain"),
                            Err(TrySendError::Disconnected(_)) => return,
                        }
                    }
                    None => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(receive)?;
        Ok((Self { handle, thread: Some(thread) }, reader))
    }
}

impl Drop for Signals {
    /// Stops listening; signals are ignored from then on.
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::time::Duration;

    #[test]
    fn the_first_signal_drains_and_the_second_ends() {
        let mut meaning = Meaning::default();
        let told: Vec<_> = [SIGHUP, SIGTERM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, 12].map(|signal| meaning.of(signal)).into();
        let expected = [
            Some(SignalEvent::Reload),
            Some(SignalEvent::Drain),
            Some(SignalEvent::Reload),
            Some(SignalEvent::Exit(EXIT_SIGINT)),
            Some(SignalEvent::Exit(EXIT_SIGTERM)),
            Some(SignalEvent::Snapshot),
            None,
        ];
        assert_eq!(told, expected);
        assert_eq!((EXIT_SIGINT, EXIT_SIGTERM), (130, 143));
    }

    #[test]
    fn real_signals_arrive_as_events_and_the_second_one_waits_for_nobody() {
        static ENDED_WITH: AtomicI32 = AtomicI32::new(0);
        let (signals, events) = Signals::listen_and_exit_by(|code| ENDED_WITH.store(code, Ordering::SeqCst)).unwrap();
        let wait = Duration::from_secs(5);
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(events.recv_timeout(wait), Ok(SignalEvent::Reload));
        // From here on nobody reads, and reloads and snapshots keep coming.
        for signal in [SIGUSR1, SIGUSR1, SIGUSR1, SIGHUP, SIGHUP, SIGTERM, SIGUSR1, SIGHUP, SIGINT] {
            signal_hook::low_level::raise(signal).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..500 {
            if ENDED_WITH.load(Ordering::SeqCst) != 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(ENDED_WITH.load(Ordering::SeqCst), EXIT_SIGINT);
        let expected = [SignalEvent::Snapshot, SignalEvent::Snapshot, SignalEvent::Reload, SignalEvent::Drain];
        assert_eq!(events.try_iter().collect::<Vec<_>>(), expected);
        drop(signals);
    }
}
