//! The policy of a running server: read at start, read again when that is asked for, shown to whoever operates it.
//!
//! Whoever asks on the admin socket waits until the new policy is in force on all cores, or hears why the one before stays. After a signal
//! the log and the audit stream tell that.
use super::notes::{asked_by, Notes};
use super::page::{ActionFault, PageReply};
use super::revocations::{revocation_events, Change};
use super::SharedVersion;
use crate::access::{Policy, PolicyBoard, PolicyFault};
use crate::audit::{Event, EventKind};
use crate::domain::{hex, Code, UnixMs};
use crate::ledger::Disturbance;
use crate::telemetry::{Publisher, Reload};
use crate::worker::unix_now;
use crossbeam_channel::{bounded, Sender};
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the policy again for whoever does not wait for it: the file may be slow to read.
pub(super) struct PolicyReloads {
    asks: Sender<()>,
}

impl PolicyReloads {
    /// With a thread for it, which ends some time after this is dropped.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn start(policy: Arc<PolicyKeeper>) -> io::Result<Self> {
        // One that waits is as good as many.
        let (asks, asked) = bounded(1);
        let reload = move || {
            for () in asked {
                // What came of it has been told where it belongs.
                let _ = policy.reload(None);
            }
        };
        std::thread::Builder::new().name("policy".to_owned()).spawn(reload)?;
        Ok(Self { asks })
    }

    /// Asks for it.
    pub fn ask(&self) {
        let _ = self.asks.try_send(());
    }
}

/// The file, what was read from it last, and whom that is told.
pub(super) struct PolicyKeeper {
    path: PathBuf,
    board: Arc<PolicyBoard>,
    /// When the one in force was read. Held while one is read: two who ask at once are served one after the other.
    loaded: Mutex<UnixMs>,
    publisher: Arc<Publisher>,
    version: SharedVersion,
    /// What is done to its readings on purpose.
    disturbance: Disturbance,
    /// Open once the service has started.
    notes: Notes,
}

impl PolicyKeeper {
    /// With the policy that was read from this file at start.
    pub fn new(
        path: PathBuf,
        policy: Policy,
        publisher: Arc<Publisher>,
        version: SharedVersion,
        notes: Notes,
        disturbance: Disturbance,
    ) -> Self {
        publisher.policy_version(policy.version());
        version.policy_version(policy.version());
        let board = Arc::new(PolicyBoard::new(policy));
        Self { path, board, loaded: Mutex::new(unix_now()), publisher, version, disturbance, notes }
    }

    /// Where the cores find it.
    pub fn board(&self) -> Arc<PolicyBoard> {
        self.board.clone()
    }

    /// The policy in force.
    pub fn current(&self) -> Arc<Policy> {
        self.board.current().1
    }

    /// Reads the file again if it says something else than what is in force.
    pub fn look_again(&self) {
        let found = Policy::load(&self.path);
        if found.as_ref().map_or(true, |found| *found != *self.board.current().1) {
            // What came of it has been told where it belongs; after an error the one that was read before stays.
            let _ = self.reload(None);
        }
    }

    /// Reads the file again, and puts what it says in force on all cores at once. After an error what was in force stays. `uid` is the user
    /// who asked on the admin socket, and none after a signal.
    pub fn reload(&self, uid: Option<u32>) -> Result<(), PolicyFault> {
        let passed = self.disturbance.pass();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.board.current().1;
        let before = old.version();
        let read = match passed {
            Ok(()) => Policy::load(&self.path),
            Err(reason) => Err(PolicyFault::Unreadable { path: self.path.clone(), source: io::Error::other(reason) }),
        };
        self.publisher.reload(Reload::Policy, read.is_ok());
        let event = Event::new(EventKind::Reload, read.is_ok()).with("what", "policy");
        let (event, outcome) = match read {
            Ok(policy) => {
                let version = policy.version();
                if policy.revocations() != old.revocations() {
                    let change = Change::between(old.revocations(), policy.revocations());
                    let told = revocation_events(&change, &hex(&policy.revocations().digest()));
                    told.into_iter().for_each(|event| self.notes.note(asked_by(event.with("by", "policy"), uid)));
                }
                self.board.put(policy);
                *loaded = unix_now();
                self.publisher.policy_version(version);
                self.version.policy_version(version);
                tracing::info!(event = "policy_reloaded", version, before, "another policy is in force on all cores");
                (event.with("version", version.to_string()).with("before", before.to_string()), Ok(()))
            }
            Err(error) => {
                tracing::error!(event = "policy_reload_failed", version = before, %error, "the old policy stays in force");
                (event.with("version", before.to_string()).with("error", error.to_string()), Err(error))
            }
        };
        self.notes.note(asked_by(event, uid));
        outcome
    }

    /// The policy in force, for whoever operates the server.
    pub fn page(&self) -> PageReply {
        let loaded = *self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let policy = self.board.current().1.to_json();
        PageReply::json(json!({"file": self.path.display().to_string(), "loaded_ms": loaded.0, "policy": policy}).to_string())
    }

    /// [`PolicyKeeper::reload`], asked for on the admin socket.
    pub fn act(&self, uid: u32) -> Result<PageReply, ActionFault> {
        self.notes.when_open()?;
        match self.reload(Some(uid)) {
            Ok(()) => Ok(self.page()),
            Err(fault) => Err(ActionFault {
                status: 422,
                code: Code::BadRequest,
                message: format!("{fault}; the old policy stays in force"),
            }),
        }
    }
}
