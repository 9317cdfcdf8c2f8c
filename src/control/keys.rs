//! The keyring of a running server: a changed file is noticed, opened, and handed to every core.
//!
//! A thread of its own, because opening may take long: stretching a passphrase is made to. Cores that have the new keyring keep what
//! they have verified with keys that are still on it. A file that cannot be opened leaves the old keyring in force, and is told and
//! counted once; the next change of the file, or a SIGHUP, is another attempt.
use super::auditing::Auditing;
use super::SharedVersion;
use crate::access::{Custody, Keyring, KeyringFault, Sealing, Stamp};
use crate::audit::{Event, EventKind};
use crate::telemetry::{Publisher, Reload};
use crate::worker::{Letter, Mailbox, Order};
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks at the file; a change is in force on all cores within a second.
const KEYRING_LOOK_EVERY: Duration = Duration::from_millis(250);

/// The keyring in force, for whoever signs with its active key.
#[derive(Clone)]
pub(super) struct InForce(Arc<Mutex<Arc<Keyring>>>);

impl InForce {
    /// Begins with this one.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self(Arc::new(Mutex::new(keyring)))
    }

    /// The keyring in force.
    pub fn get(&self) -> Arc<Keyring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in force, and returns the one before.
    pub fn replace(&self, keyring: Arc<Keyring>) -> Arc<Keyring> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), keyring)
    }
}

/// The thread that looks after the keyring.
pub(super) struct KeyWatch {
    asks: Sender<()>,
    thread: JoinHandle<()>,
}

impl KeyWatch {
    /// Begins to look; `stamp` is that of the file from which the keyring in force was read.
    pub fn start(custody: Custody, in_force: InForce, stamp: Option<Stamp>, telling: Telling) -> io::Result<Self> {
        // One that waits is as good as many.
        let (asks, asked) = bounded(1);
        telling.posture(&in_force.get());
        let looker = Looker { custody, in_force, stamp, telling };
        let thread = std::thread::Builder::new().name("keys".to_owned()).spawn(move || looker.run(&asked))?;
        Ok(Self { asks, thread })
    }

    /// Asks for a look now, whether the file has changed or not.
    pub fn look(&self) {
        let _ = self.asks.try_send(());
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.asks);
        // A panic of it has ended the process.
        let _ = self.thread.join();
    }
}

/// Whom the keyring in force is told.
pub(super) struct Telling {
    /// The cores, which verify with it.
    pub cores: Vec<Mailbox>,
    pub publisher: Arc<Publisher>,
    pub version: SharedVersion,
    /// The audit stream, if there is one, as long as there is.
    pub stream: Option<Weak<Auditing>>,
}

struct Looker {
    custody: Custody,
    in_force: InForce,
    /// That of the file which was looked at last, whether it was good or not.
    stamp: Option<Stamp>,
    telling: Telling,
}

impl Looker {
    fn run(mut self, asked: &Receiver<()>) {
        loop {
            match asked.recv_timeout(KEYRING_LOOK_EVERY) {
                Ok(()) => self.reload(),
                Err(RecvTimeoutError::Timeout) if self.custody.stamp() == self.stamp => {}
                Err(RecvTimeoutError::Timeout) => self.reload(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn reload(&mut self) {
        // Taken before the file is read: what changes meanwhile is noticed at the next look.
        self.stamp = self.custody.stamp();
        match self.custody.open() {
            Ok(keyring) => self.telling.put(&self.in_force, &Arc::new(keyring)),
            Err(fault) => self.telling.failed(&fault, &self.in_force.get()),
        }
    }
}

impl Telling {
    /// Puts another keyring in force. Cores that have it keep what they have verified with a key that is still on it.
    pub(super) fn put(&self, in_force: &InForce, keyring: &Arc<Keyring>) {
        for core in &self.cores {
            core.put(Letter::Order(Order::Keyring(keyring.clone())));
        }
        let before = in_force.replace(keyring.clone());
        self.changed(&before, keyring);
    }

    /// Tells of a keyring that was read again and is in force.
    fn changed(&self, before: &Keyring, keyring: &Keyring) {
        self.posture(keyring);
        self.publisher.reload(Reload::Keyring, true);
        let (version, active, keys) = (keyring.serial(), keyring.active_id(), keyring.keys().len());
        tracing::info!(event = "keyring_reloaded", version, active, keys, "the keyring was read again");
        let rotated = before.keys() != keyring.keys() || before.active_id() != active;
        let event = if rotated {
            Event::new(EventKind::KeyRotation, true).with("active", active).with("keys", keys.to_string())
        } else {
            Event::new(EventKind::Reload, true).with("what", "keyring")
        };
        self.note(event.with("version", version.to_string()));
    }

    /// Tells of one that cannot be opened, while another one stays in force.
    fn failed(&self, fault: &KeyringFault, in_force: &Keyring) {
        self.publisher.reload(Reload::Keyring, false);
        tracing::error!(event = "keyring_reload_failed", error = %fault, "the old keyring stays in force");
        let event = Event::new(EventKind::Reload, false).with("what", "keyring").with("error", fault.to_string());
        self.note(event.with("version", in_force.serial().to_string()));
    }

    fn note(&self, event: Event) {
        if let Some(stream) = self.stream.as_ref().and_then(Weak::upgrade) {
            stream.note(event);
        }
    }

    pub(super) fn posture(&self, keyring: &Keyring) {
        self.version.keyring_version(keyring.serial());
        let hybrid = keyring.is_hybrid() && keyring.sealing() == Sealing::Hybrid;
        self.version.post_quantum(hybrid);
        self.publisher.keyring(keyring.serial(), keyring.keys().len(), keyring.sealing() != Sealing::Clear, hybrid);
    }
}
