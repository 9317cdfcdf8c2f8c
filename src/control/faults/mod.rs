//! Faults that an operator injects on purpose, to see how the service and its clients live with them (runbook: chaos testing).
//!
//! | file | role |
//! |---|---|
//! | `request` | what can be asked for, its bounds, and which combinations make no sense |
//! | `set` | which faults are active, until when, and what they come to together |
//! | `switches` | where the service meets them: one for each dependency, and one for requests |
//!
//! Invariants: nothing is injected unless `faults.allowed` says so; every fault ends by itself after a bounded time, on a thread that does
//! nothing else, so whoever injected it may be gone and the main thread may be busy; each beginning and each end is in the log and in
//! the audit stream. Faults are asked for on the admin socket alone.
mod request;
mod set;
mod switches;

pub use request::{FaultRequest, DEPS, KINDS};
pub(super) use switches::Switches;

use super::notes::{asked_by, Notes};
use super::page::{ActionFault, PageReply};
use super::Readiness;
use crate::audit::{Event, EventKind};
use crate::domain::Code;
use crate::telemetry::Publisher;
use crate::worker::unix_now;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use request::Spec;
use serde::Deserialize;
use serde_json::json;
use set::{Active, Set};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is said where they are not allowed.
const NOT_ALLOWED: &str =
    "faults are not allowed on this server: set faults.allowed = true in its configuration, or start it with --set \
                           faults.allowed=true; not where it holds real value";

/// What must hold of the bodies of both actions: a fault that makes sense ends in time, and is the same when it is asked for as it is told.
#[cfg(any(test, fuzzing))]
pub(super) fn bodies(input: &[u8]) {
    let set = &mut Set::default();
    if let Ok(Clear { id }) = serde_json::from_slice(input) {
        assert!(id.and_then(|id| set.take(&id)).is_none(), "nothing was active");
    }
    let Ok(wanted) = serde_json::from_slice::<FaultRequest>(input) else { return };
    let Ok(spec) = Spec::of(&wanted) else { return };
    assert_eq!(Spec::of(&spec.request()), Ok(spec));
    assert!(spec.lasts <= Duration::from_secs(3_600) && !spec.describe().is_empty());
    let active = set.add(spec, Instant::now(), unix_now()).expect("there is room for one");
    assert_eq!(active.spec, spec);
}

/// The faults of a service.
pub(super) struct Faults {
    allowed: bool,
    shared: Arc<Shared>,
    /// Wakes the thread that ends them; it ends with this.
    wake: Sender<()>,
}

struct Shared {
    set: Mutex<Set>,
    switches: Switches,
    readiness: Readiness,
    publisher: Arc<Publisher>,
    /// Open once the service has started: from then on faults can be injected.
    notes: Notes,
}

/// The body of the question to end some.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clear {
    id: Option<String>,
}

impl Faults {
    /// None is active. Where they are allowed a thread waits for the end of those that will be.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(
        allowed: bool,
        switches: Switches,
        readiness: Readiness,
        publisher: Arc<Publisher>,
        notes: Notes,
    ) -> io::Result<Self> {
        let set = Mutex::new(Set::default());
        let shared = Arc::new(Shared { set, switches, readiness, publisher, notes });
        // One that waits is as good as many.
        let (wake, woken) = bounded(1);
        if allowed {
            let shared = shared.clone();
            std::thread::Builder::new().name("faults".into()).spawn(move || shared.end_in_time(&woken))?;
        }
        Ok(Self { allowed, shared, wake })
    }

    /// Which are active, for whoever operates the server.
    pub fn page(&self) -> PageReply {
        let now = Instant::now();
        let active: Vec<_> = self.shared.set().active().iter().map(|fault| fault.to_json(now)).collect();
        PageReply::json(json!({"allowed": self.allowed, "active": active}).to_string())
    }

    /// Injects the fault that this body asks for.
    pub fn inject(&self, body: &[u8], uid: u32) -> Result<PageReply, ActionFault> {
        self.check_allowed(uid)?;
        let wanted: FaultRequest = serde_json::from_slice(body)
            .map_err(|error| bad_request(format!("this is no fault: {error}; use ronctl chaos inject")))?;
        let spec = Spec::of(&wanted).map_err(bad_request)?;
        let now = Instant::now();
        let mut set = self.shared.set();
        let injected = set.add(spec, now, unix_now()).map_err(bad_request)?.clone();
        self.shared.apply(&set);
        let (id, fault, lasts_ms) = (injected.name(), injected.spec.describe(), injected.spec.lasts.as_millis() as u64);
        tracing::warn!(event = "fault_injected", id, fault, lasts_ms, "a fault is injected on purpose");
        self.shared.note(&injected, "injected", Some(uid));
        drop(set);
        let _ = self.wake.try_send(());
        Ok(PageReply::json(injected.to_json(now).to_string()))
    }

    /// Ends the fault that this body names, or all of them.
    pub fn clear(&self, body: &[u8], uid: u32) -> Result<PageReply, ActionFault> {
        self.check_allowed(uid)?;
        let Clear { id } = serde_json::from_slice(body)
            .map_err(|error| bad_request(format!("no id of a fault: {error}; use ronctl chaos clear")))?;
        let mut set = self.shared.set();
        let ended = match &id {
            None => set.take_all(),
            Some(id) => vec![set.take(id).ok_or_else(|| {
                let message =
                    format!("no fault {id:?} is active: it may have ended by itself; ronctl chaos list shows which are");
                ActionFault { status: 404, code: Code::NotFound, message }
            })?],
        };
        self.shared.tell_ended(&set, &ended, "cleared", Some(uid));
        let cleared: Vec<_> = ended.iter().map(Active::name).collect();
        Ok(PageReply::json(json!({"cleared": cleared}).to_string()))
    }

    /// Ends all of them for good, because the service ends.
    pub fn end_all(&self) {
        let mut set = self.shared.set();
        let ended = set.close();
        self.shared.tell_ended(&set, &ended, "ended", None);
    }

    fn check_allowed(&self, uid: u32) -> Result<(), ActionFault> {
        if !self.allowed {
            tracing::warn!(event = "fault_refused", "somebody wants to inject a fault, and faults.allowed is false");
            let event = Event::new(EventKind::FaultInjection, false).with("what", "refused");
            self.shared.notes.note(asked_by(event.with("error", "faults.allowed is false"), Some(uid)));
            return Err(ActionFault { status: 403, code: Code::Forbidden, message: NOT_ALLOWED.to_owned() });
        }
        self.shared.notes.when_open()
    }
}

impl Shared {
    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends each fault when its time is over.
    fn end_in_time(&self, woken: &Receiver<()>) {
        loop {
            let next = self.set().next_end();
            let waited = match next {
                // Nothing ends before something is injected, and then this is woken.
                None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(end) => woken.recv_deadline(end),
            };
            if waited == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            let mut set = self.set();
            let ended = set.take_due(Instant::now());
            self.tell_ended(&set, &ended, "ended", None);
        }
    }

    /// What is left is in force; what has ended is told.
    fn tell_ended(&self, set: &Set, ended: &[Active], how: &'static str, uid: Option<u32>) {
        if ended.is_empty() {
            return;
        }
        self.apply(set);
        for fault in ended {
            let (id, what) = (fault.name(), fault.spec.describe());
            match how {
                "cleared" => tracing::info!(event = "fault_cleared", id, fault = what, "a fault was ended before its time"),
                _ => tracing::info!(event = "fault_ended", id, fault = what, "a fault has ended by itself"),
            }
            self.note(fault, how, uid);
        }
    }

    /// Puts in force what the active faults come to.
    fn apply(&self, set: &Set) {
        self.switches.set(&set.effect());
        self.publisher.faults_active(set.active().len());
        self.readiness.note_faults(set.active().iter().map(|fault| fault.spec.describe()).collect());
    }

    fn note(&self, fault: &Active, what: &'static str, uid: Option<u32>) {
        let event = Event::new(EventKind::FaultInjection, true).with("what", what).with("id", fault.name());
        let event = event.with("fault", fault.spec.describe()).with("lasts", human(fault.spec.lasts));
        self.notes.note(asked_by(event, uid));
    }
}

fn bad_request(message: impl Into<String>) -> ActionFault {
    ActionFault { status: 400, code: Code::BadRequest, message: message.into() }
}

fn human(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}
