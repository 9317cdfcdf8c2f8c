//! The keyring of a running server: a changed file is noticed, opened, and handed to every core.
//!
//! A thread of its own, because opening may take long: stretching a passphrase is made to. Cores that have the new keyring keep what
//! they have verified with keys that are still on it. A file that cannot be opened, or holds an earlier keyring than the one in force, leaves
//! that in force, and is told and counted once; it is tried again every few seconds, and at once when it changes and on SIGHUP.
use super::notes::{asked_by, Notes};
use super::SharedVersion;
use crate::access::{Custody, Keyring, KeyringFault, Sealing, Stamp};
use crate::audit::{Event, EventKind};
use crate::telemetry::{Publisher, Reload};
use crate::worker::{Letter, Mailbox, Order};
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks at the file.
const KEYRING_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time after which a file is tried again that could not be opened and does not look different: the cause may lie elsewhere, or pass. Opening
/// may cost tenths of a second.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Within this time after the file was changed it is in force on all cores.
const KEYRING_WITHIN: Duration = Duration::from_secs(1);
// What is left is for stretching a passphrase, which takes some tenths of a second.
const _: () = assert!(
    2 * KEYRING_LOOK_EVERY.as_millis() <= KEYRING_WITHIN.as_millis(),
    "a change is noticed with half of its time to spare"
);

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
        let looker = Looker { custody, in_force, stamp, failed: None, telling };
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
    pub notes: Notes,
}

struct Looker {
    custody: Custody,
    in_force: InForce,
    /// That of the file which was looked at last, whether it was good or not.
    stamp: Option<Stamp>,
    /// When it was tried last, if it could not be put in force, and what was told of that.
    failed: Option<(Instant, String)>,
    telling: Telling,
}

impl Looker {
    fn run(mut self, asked: &Receiver<()>) {
        loop {
            match asked.recv_timeout(KEYRING_LOOK_EVERY) {
                Ok(()) => self.reload(true),
                Err(RecvTimeoutError::Timeout) if self.custody.stamp() != self.stamp => self.reload(true),
                Err(RecvTimeoutError::Timeout) if self.failed.as_ref().is_some_and(|(at, _)| at.elapsed() >= RETRY_EVERY) => {
                    self.reload(false);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Puts what is in the file in force; what stands in the way is told if it is another thing than before, or in any case.
    fn reload(&mut self, in_any_case: bool) {
        // Taken before the file is read: what changes meanwhile is noticed at the next look.
        self.stamp = self.custody.stamp();
        let in_force = self.in_force.get();
        let fault = match self.custody.open() {
            Ok(keyring) if keyring.serial() >= in_force.serial() => {
                self.failed = None;
                return self.telling.put(&self.in_force, &Arc::new(keyring), None);
            }
            Ok(keyring) => self.custody.earlier(&keyring, &in_force),
            Err(fault) => fault,
        };
        let told = fault.to_string();
        let known = self.failed.replace((Instant::now(), told.clone()));
        if in_any_case || known.map_or(true, |(_, known)| known != told) {
            self.telling.failed(&fault, &in_force);
        }
    }
}

impl Telling {
    /// Puts another keyring in force. Cores that have it keep what they have verified with a key that is still on it. `uid` is the user who
    /// asked on the admin socket, if somebody did.
    pub(super) fn put(&self, in_force: &InForce, keyring: &Arc<Keyring>, uid: Option<u32>) {
        for core in &self.cores {
            core.put(Letter::Order(Order::Keyring(keyring.clone())));
        }
        let before = in_force.replace(keyring.clone());
        self.changed(&before, keyring, uid);
    }

    /// Tells of a keyring that was read again and is in force.
    fn changed(&self, before: &Keyring, keyring: &Keyring, uid: Option<u32>) {
        self.posture(keyring);
        self.publisher.reload(Reload::Keyring, true);
        let (version, active, keys) = (keyring.serial(), keyring.active_id(), keyring.keys().len());
        tracing::info!(event = "keyring_reloaded", version, active, keys, "the keyring was read again");
        self.notes.note(asked_by(change(before, keyring), uid));
    }

    /// Tells of one that cannot be opened, while another one stays in force.
    fn failed(&self, fault: &KeyringFault, in_force: &Keyring) {
        self.publisher.reload(Reload::Keyring, false);
        tracing::error!(event = "keyring_reload_failed", error = %fault, "the old keyring stays in force");
        let event = Event::new(EventKind::Reload, false).with("what", "keyring").with("error", fault.to_string());
        self.notes.note(event.with("version", in_force.serial().to_string()));
    }

    pub(super) fn posture(&self, keyring: &Keyring) {
        self.version.keyring_version(keyring.serial());
        let hybrid = keyring.is_hybrid() && keyring.sealing() == Sealing::Hybrid;
        self.version.post_quantum(hybrid);
        self.publisher.keyring(keyring.serial(), keyring.keys().len(), keyring.sealing() != Sealing::Clear, hybrid);
    }
}

/// What is another in this keyring than in the one before, by the names of the keys.
fn change(before: &Keyring, after: &Keyring) -> Event {
    let missing =
        |of: &Keyring, from: &Keyring| of.ids().filter(|id| !from.ids().any(|known| known == *id)).collect::<Vec<_>>().join(" ");
    let (added, retired) = (missing(after, before), missing(before, after));
    let activated = if before.active_id() == after.active_id() { "" } else { after.active_id() };
    let event = if before.keys() == after.keys() && activated.is_empty() {
        Event::new(EventKind::Reload, true).with("what", "keyring")
    } else {
        Event::new(EventKind::KeyRotation, true).with("active", after.active_id()).with("keys", after.keys().len().to_string())
    };
    let named = [("added", added), ("retired", retired), ("activated", activated.to_owned())];
    let named = named.into_iter().filter(|(_, ids)| !ids.is_empty());
    let event = named.fold(event, |event, (name, ids)| event.with(name, ids));
    let hybrid = if after.is_hybrid() { "on" } else { "off" };
    event.with("hybrid", hybrid).with("sealing", after.sealing().as_str()).with("version", after.serial().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::unix_now;

    #[test]
    fn a_change_names_the_keys_that_came_and_went() {
        let first = Keyring::ephemeral(unix_now()).unwrap();
        let second = first.rotated(unix_now(), Some(true)).unwrap();
        let third = second.rotated(unix_now(), None).unwrap();
        let [one, two, three] = [&first, &second, &third].map(Keyring::active_id);
        let rotation = |keys: &str, active: &str| {
            Event::new(EventKind::KeyRotation, true).with("active", active).with("keys", keys).with("added", active)
        };
        let tail = |event: Event, active: &str, version: &str| {
            event.with("activated", active).with("hybrid", "on").with("sealing", "hybrid").with("version", version)
        };
        assert_eq!(change(&first, &second), tail(rotation("2", two), two, "2"));
        assert_eq!(change(&second, &third), tail(rotation("2", three).with("retired", one), three, "3"));
        let same = Event::new(EventKind::Reload, true).with("what", "keyring").with("hybrid", "on");
        assert_eq!(change(&third, &third), same.with("sealing", "hybrid").with("version", "3"));
    }
}
