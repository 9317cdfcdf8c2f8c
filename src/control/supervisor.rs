//! What a program tells systemd: that it is ready, what it is at, that it lives, and that it ends.
//!
//! The protocol is that of sd_notify(3): a message is one datagram to the unix socket that `NOTIFY_SOCKET` names, in the file system or,
//! behind an @, among the abstract names. Without that variable nobody has asked, and nothing is told. A message that cannot be delivered
//! is logged and changes nothing: whoever waits for it acts by itself.
use super::SignalEvent;
use crate::domain::CoreId;
use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How long a message waits for a supervisor that does not read.
const TELL_PATIENCE: Duration = Duration::from_millis(100);
/// How often it is looked whether a sign of life is due, in the time between two of them.
const LOOKS: u32 = 4;
/// Time of the watchdog from the beginning of an orderly end on, which `TimeoutStopSec=` bounds: a last snapshot takes as long as it takes.
const ENDING_MAX: Duration = Duration::from_secs(86_400);

/// Whoever has started this process and wants to hear of it, if there is somebody.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Time between two signs of life, half of what the supervisor waits; `None` if it waits for none.
    every: Option<Duration>,
    told: Cell<Option<Instant>>,
}

impl Supervisor {
    /// The one that the environment of this process names.
    pub fn of_process() -> Self {
        Self::of(&|name| std::env::var_os(name), std::process::id())
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>, process: u32) -> Self {
        let name = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let opened = open(&name);
            opened
                .map_err(|error| tracing::warn!(event = "supervisor_unheard", ?name, %error, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_for_us = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(process));
        let every = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_for_us);
        let every = every.map(|micros| Duration::from_micros(micros) / 2).filter(|_| socket.is_some());
        Self { socket, every, told: Cell::new(None) }
    }

    /// What the process is at: one line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={line}"));
    }

    /// The start is over; what waits for this process may go on.
    pub fn ready(&self, line: &str) {
        self.tell(&format!("READY=1\nSTATUS={line}"));
    }

    /// A sign of life, if one is due and the process is well. Without one for the time of its watchdog the supervisor ends the process.
    pub fn lives(&self, is_well: impl FnOnce() -> bool) {
        let Some(every) = self.every else { return };
        if self.told.get().map_or(true, |told| told.elapsed() >= every) && is_well() {
            self.tell("WATCHDOG=1");
            self.told.set(Some(Instant::now()));
        }
    }

    /// The next signal. Until one comes there are signs of life, as long as the process is well.
    ///
    /// # Errors
    /// If no signal will come any more.
    pub fn wait(&self, signals: &Receiver<SignalEvent>, is_well: impl Fn() -> bool) -> Result<SignalEvent, RecvError> {
        let Some(every) = self.every else { return signals.recv() };
        loop {
            self.lives(&is_well);
            match signals.recv_timeout(every / LOOKS) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Ok(signal) => return Ok(signal),
            }
        }
    }

    /// An orderly end has begun. There are no signs of life from here on.
    pub fn ending(&self, line: &str) {
        let watchdog = self.every.map_or(String::new(), |_| format!("\nWATCHDOG_USEC={}", ENDING_MAX.as_micros()));
        self.tell(&format!("STOPPING=1\nSTATUS={line}{watchdog}"));
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(event = "supervisor_unheard", message, %error, "the supervisor could not be told");
        }
    }
}

fn open(name: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(std::io::Error::other("it is neither an absolute path nor a name behind @")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TELL_PATIENCE))?;
    Ok((socket, address))
}

/// When each core was heard last.
#[derive(Debug, Default)]
pub(super) struct Heard(RefCell<BTreeMap<CoreId, Instant>>);

impl Heard {
    pub fn note(&self, core: CoreId) {
        self.0.borrow_mut().insert(core, Instant::now());
    }

    /// Whether each of so many cores was heard within this time.
    pub fn all_within(&self, cores: usize, patience: Duration) -> bool {
        let heard = self.0.borrow();
        heard.len() == cores && heard.values().all(|at| at.elapsed() <= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor that is told by this socket, with these further variables, of a process with the number 7.
    fn told_by(name: &str, more: &[(&str, &str)]) -> Supervisor {
        let all: Vec<(String, OsString)> =
            more.iter().chain(&[("NOTIFY_SOCKET", name)]).map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Supervisor::of(&|wanted| all.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()), 7)
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 256];
        socket.set_nonblocking(true).unwrap();
        socket.recv(&mut bytes).ok().map(|length| String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    #[test]
    fn what_is_told_arrives_by_a_path_and_by_an_abstract_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let abstract_name = format!("svc-wallet-supervisor-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
        for (socket, name) in [(&by_path, path.to_str().unwrap().to_owned()), (&by_name, format!("@{abstract_name}"))] {
            let supervisor = told_by(&name, &[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "7")]);
            supervisor.status("reading");
            supervisor.ready("serving");
            supervisor.lives(|| false);
            supervisor.lives(|| true);
            supervisor.lives(|| true);
            supervisor.ending("closing");
            let told: Vec<String> = std::iter::from_fn(|| heard(socket)).collect();
            let ending = "STOPPING=1\nSTATUS=closing\nWATCHDOG_USEC=86400000000";
            assert_eq!(told, ["STATUS=reading", "READY=1\nSTATUS=serving", "WATCHDOG=1", ending], "{name}");
        }
    }

    #[test]
    fn a_signal_is_waited_for_with_signs_of_life_as_long_as_all_is_well() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        for is_well in [true, false] {
            let supervisor = told_by(path.to_str().unwrap(), &[("WATCHDOG_USEC", "8000")]);
            let (signal, signals) = crossbeam_channel::bounded(1);
            let looks = Cell::new(0);
            let look = || {
                looks.set(looks.get() + 1);
                if looks.get() == 3 {
                    signal.send(SignalEvent::Drain).unwrap();
                }
                is_well
            };
            assert_eq!(supervisor.wait(&signals, look), Ok(SignalEvent::Drain));
            let told = std::iter::from_fn(|| heard(&socket)).count();
            assert_eq!((looks.get(), told), (3, if is_well { 3 } else { 0 }));
        }
        let (_, no_signals) = crossbeam_channel::bounded(1);
        assert_eq!(told_by(path.to_str().unwrap(), &[]).wait(&no_signals, || true), Err(RecvError));
    }

    #[test]
    fn signs_of_life_are_given_when_they_are_due_to_whoever_has_asked_for_them() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let name = path.to_str().unwrap();
        let often = told_by(name, &[("WATCHDOG_USEC", "2")]);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1));
            often.lives(|| true);
        }
        assert_eq!(std::iter::from_fn(|| heard(&socket)).collect::<Vec<_>>(), ["WATCHDOG=1"; 3]);
        for more in
            [&[][..], &[("WATCHDOG_USEC", "0")], &[("WATCHDOG_USEC", "2"), ("WATCHDOG_PID", "8")], &[("WATCHDOG_USEC", "x")]]
        {
            let never = told_by(name, more);
            never.lives(|| panic!("nobody has asked"));
            never.ending("closing");
            assert_eq!(heard(&socket).unwrap(), "STOPPING=1\nSTATUS=closing", "{more:?}");
        }
    }

    #[test]
    fn a_supervisor_that_is_not_there_is_no_reason_to_fail() {
        for name in ["", "relative", "@", "/nowhere/notify", &format!("/{}", "x".repeat(200))] {
            let supervisor = told_by(name, &[("WATCHDOG_USEC", "2")]);
            supervisor.ready("serving");
            supervisor.lives(|| true);
            supervisor.ending("closing");
        }
    }

    #[test]
    fn all_cores_have_to_be_heard() {
        let heard = Heard::default();
        heard.note(CoreId(0));
        assert!(!heard.all_within(2, Duration::from_secs(60)), "the second one was never heard");
        heard.note(CoreId(1));
        assert!(heard.all_within(2, Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(2));
        assert!(!heard.all_within(2, Duration::from_millis(1)));
    }
}
