//! What the control thread does between signals: looks at the ledger and the counters, opens and shuts the gate for writes,
//! collects the cores' figures and publishes them.
use super::auditing::Auditing;
use super::counting::Counting;
use super::policy::PolicyReloads;
use super::pressure::{Load, Pressure};
use super::revocations::{revocation_events, Looked, RevocationWatch};
use super::supervisor::Heard;
use super::topology::Topology;
use super::SERVICE;
use super::{Dep, Readiness, SharedVersion, SignalEvent};
use crate::audit::{Event, EventKind};
use crate::domain::{hex, CoreId};
use crate::engine::Gate;
use crate::ledger::{Audit, AuditLedger, WatchLedger};
use crate::telemetry::logs::LogGuard;
use crate::telemetry::{Check, CoreStats, Publisher, Reload};
use crate::worker::{unix_now, Mailbox, Site, Workers, LEDGER_DOWN_PATIENCE, SWEEP_EVERY};
use crossbeam_channel::Receiver;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time between two looks at what the service depends on.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Within this time after the connection to the ledger was lost writes are refused, those that wait for their commit included.
const REFUSED_WITHIN: Duration = Duration::from_millis(200);
// The loss is found at the next look. What was let in just before it has its patience then, and is given up by the next sweep.
const _: () = assert!(
    LOOK_EVERY.as_millis() + LEDGER_DOWN_PATIENCE.as_millis() + SWEEP_EVERY.as_millis() < REFUSED_WITHIN.as_millis(),
    "without the ledger writes are refused in time, and there is room for threads that wake late"
);
/// Within this time after the file of revocations was changed every core refuses what is revoked.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
// What is left is for reading the longest list, and for a thread that wakes late.
const _: () =
    assert!(4 * LOOK_EVERY.as_millis() < REVOKED_WITHIN.as_millis(), "a change is noticed with most of its time to spare");
/// Time between two collections of figures.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// A core that has said nothing for so long is stuck.
const CORE_PATIENCE: Duration = Duration::from_secs(10);
/// Lag of the counters beyond which the service is not ready (runbook: counters drift alert).
const ACCOUNTING_LAG_SECONDS_MAX: f64 = 60.0;

/// What the watcher reads again while the service runs.
pub(super) struct Files {
    pub topology: Arc<Topology>,
    pub revocations: RevocationWatch,
    pub policy: PolicyReloads,
}

/// The control thread's view of the service.
pub(super) struct Watcher {
    publisher: Arc<Publisher>,
    topology: Arc<Topology>,
    revocations: RefCell<RevocationWatch>,
    policy: PolicyReloads,
    version: SharedVersion,
    status: Arc<Mutex<String>>,
    ledger: Box<dyn WatchLedger>,
    epoch: u64,
    driver: &'static str,
    started: Instant,
    published: Cell<Option<Instant>>,
    pressure: RefCell<Pressure>,
    /// The inboxes of the cores.
    inboxes: Vec<Mailbox>,
    /// What a commit may take.
    commit_max: Duration,
    heard: Heard,
    /// Whether the ledger takes entries, as it was found at the last look.
    writable: Cell<bool>,
    /// What the audit has found, as far as it has answered.
    audit: RefCell<Option<Audit>>,
    /// The audit stream, if there is one.
    stream: Option<Arc<Auditing>>,
}

impl Watcher {
    pub fn new(
        publisher: Arc<Publisher>,
        files: Files,
        version: SharedVersion,
        status: Arc<Mutex<String>>,
        ledger: Box<dyn WatchLedger>,
        epoch: u64,
        driver: &'static str,
    ) -> Self {
        let Files { topology, revocations, policy } = files;
        tracing::info!(event = "revocations_loaded", entries = revocations.entries(), "the list of revocations is in force");
        publisher.revocations(revocations.entries());
        let revocations = RefCell::new(revocations);
        let (started, published) = (Instant::now(), Cell::new(None));
        let audit = RefCell::new(None);
        let writable = Cell::new(ledger.trouble().is_none());
        Self {
            publisher,
            topology,
            revocations,
            policy,
            version,
            status,
            ledger,
            epoch,
            driver,
            started,
            published,
            pressure: RefCell::default(),
            inboxes: Vec::new(),
            commit_max: Duration::MAX,
            heard: Heard::default(),
            writable,
            audit,
            stream: None,
        }
    }

    /// With an audit stream to look after.
    pub fn with_stream(self, stream: Option<Arc<Auditing>>) -> Self {
        Self { stream, ..self }
    }

    /// With these inboxes of cores, and this bound of a commit, as measures of pressure.
    pub fn with_load(self, inboxes: Vec<Mailbox>, commit_max: Duration) -> Self {
        Self { inboxes, commit_max, ..self }
    }

    /// The next signal, or nothing after a short while.
    pub fn wait(&self, events: &Receiver<SignalEvent>) -> Option<SignalEvent> {
        events.recv_timeout(LOOK_EVERY).ok()
    }

    /// One look around.
    pub fn look(
        &self,
        readiness: &Readiness,
        site: &Site,
        workers: &Workers,
        auditor: Option<&dyn AuditLedger>,
        counting: &Counting,
        log: &LogGuard,
    ) {
        self.look_at_revocations(false);
        let broken = auditor.and_then(AuditLedger::broken).map(|broken| {
            let what =
                "nothing is written any more; copy the ledger directory away, run ronctl ledger verify, and report a defect";
            format!("the audit has failed: {broken}; {what}")
        });
        let trouble = broken.or_else(|| self.ledger.trouble());
        let writable = trouble.is_none();
        self.writable.set(writable);
        match trouble {
            None => readiness.up(Dep::Ledger),
            Some(reason) => readiness.down(Dep::Ledger, reason),
        }
        if let Some(event) = self.topology.look(readiness, &self.publisher, &self.version) {
            self.note(event);
        }
        let lag = counting.lag_seconds();
        match counting.trouble() {
            None if lag <= ACCOUNTING_LAG_SECONDS_MAX => readiness.up(Dep::Accounting),
            None => readiness.down(Dep::Accounting, format!("the counters are {lag:.0} s behind the ledger")),
            Some(trouble) => readiness.down(Dep::Accounting, trouble),
        }
        let trouble = self.stream.as_ref().and_then(|stream| stream.trouble(self.ledger.head(), unix_now()));
        readiness.note_audit(trouble);
        let load = Load {
            in_flight: (site.admission.all().in_flight(), site.admission.all().ceiling()),
            inbox: self.inboxes.iter().map(Mailbox::fill).max().unwrap_or((0, 1)),
            commit: (self.ledger.commit_age(), self.commit_max),
            is_disk_scarce: self.ledger.is_scarce(),
        };
        readiness.pressure(self.pressure.borrow_mut().look(&load, Instant::now()));
        site.gate.set(gate_for(writable, readiness.writes_open()));
        self.absorb(workers.stats());
        if self.is_due() {
            if let Some(found) = auditor.and_then(AuditLedger::found) {
                self.note_audit(found);
            }
            self.publish_now(readiness, counting, log);
            workers.ask_stats();
        }
    }

    /// Puts the revocations of the file in force if it has changed, or in any case if that is asked for.
    fn look_at_revocations(&self, in_any_case: bool) {
        let before = self.revocations.borrow().seen();
        let looked = self.revocations.borrow_mut().look(in_any_case);
        let is_new = self.revocations.borrow().seen() != before;
        match looked {
            Looked::Unchanged => {}
            Looked::Changed(change) => {
                let entries = change.entries;
                self.publisher.revocations(entries);
                self.publisher.reload(Reload::Revocations, true);
                // A file that could not be read at once is another one at the second attempt as well.
                if is_new || !change.revoked.is_empty() || !change.taken_back.is_empty() {
                    tracing::info!(event = "revocations_loaded", entries, "another list of revocations is in force");
                    let digest = hex(&self.revocations.borrow().digest());
                    revocation_events(&change, &digest).into_iter().for_each(|event| self.note(event));
                }
            }
            Looked::Failed(error) => {
                self.publisher.reload(Reload::Revocations, false);
                let entries = self.revocations.borrow().entries();
                tracing::error!(event = "revocations_failed", entries, %error, "the list before it stays in force");
                self.note(Event::new(EventKind::Revocation, false).with("entries", entries.to_string()).with("error", error));
            }
        }
    }

    /// Counts what the audit has found since the last look at it.
    fn note_audit(&self, audit: Audit) {
        self.publisher.audited(audit.through, audit.snapshot);
        self.publisher.scrubbed(audit.scrub.last_end, audit.scrub.damaged);
        self.publisher.newest_snapshot(audit.snapshot_newest, audit.snapshot_ms);
        let before = self.audit.replace(Some(audit.clone())).unwrap_or_default();
        let after = audit;
        self.publisher.snapshots(true, after.snapshots_taken.saturating_sub(before.snapshots_taken));
        self.publisher.snapshots(false, after.snapshots_failed.saturating_sub(before.snapshots_failed));
        if after.reads_failed > before.reads_failed {
            self.publisher.conservation_check(Check::Failed);
        }
        if after.broken.is_some() && before.broken.is_none() {
            self.publisher.conservation_check(Check::Violated);
        } else if after.agreed > before.agreed {
            self.publisher.conservation_check(Check::Holds);
        }
    }

    /// Adds up what the cores have handed over.
    pub fn absorb(&self, figures: &Receiver<(CoreId, Box<CoreStats>)>) {
        for (core, stats) in figures.try_iter() {
            self.heard.note(core);
            self.publisher.absorb(core, &stats);
        }
    }

    /// Whether all cores go round.
    pub fn hears(&self, workers: &Workers) -> bool {
        self.heard.all_within(workers.cores(), CORE_PATIENCE)
    }

    fn is_due(&self) -> bool {
        self.published.get().map_or(true, |published| published.elapsed() >= PUBLISH_EVERY)
    }

    /// Publishes what is not the cores' if it was not done within the last second.
    pub fn publish_if_due(&self, readiness: &Readiness, counting: &Counting, log: &LogGuard) {
        if self.is_due() {
            self.publish_now(readiness, counting, log);
        }
    }

    /// Publishes what is not the cores'.
    pub fn publish_now(&self, readiness: &Readiness, counting: &Counting, log: &LogGuard) {
        // What is not ready any more is to be known first.
        readiness.publish(&self.publisher);
        self.published.set(Some(Instant::now()));
        self.publisher.log_lines_dropped(log.dropped());
        let lag = counting.lag_seconds();
        let stats = self.ledger.take_stats();
        self.publisher.ledger_committed(&stats.commit_us, &stats.batch_entries);
        self.publisher.ledger_connect_errors(self.ledger.connect_errors());
        self.publisher.ledger_height(self.ledger.head());
        self.publisher.accounting_lag(lag);
        if let Some(figures) = self.stream.as_ref().map(|stream| stream.figures()) {
            let behind = figures.lag_seconds(self.ledger.head(), unix_now());
            self.publisher.audit_stream(figures.through(), behind, figures.lines(), figures.sent_line());
            self.publisher.audit_losses(&figures.dropped(), figures.failures());
        }
        self.topology.publish(&self.publisher);
        self.publisher.run_upkeep();
        let audit = self.audit.borrow();
        let [commit_us_p50, commit_us_p99] = [0.5, 0.99].map(|quantile| known_quantile(&stats.commit_us, quantile));
        let status = serde_json::json!({
            "service": SERVICE,
            "version": env!("CARGO_PKG_VERSION"),
            "driver": self.driver,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": readiness.ready(),
            "writes": readiness.writes_open(),
            "ledger": {
                "height": self.ledger.head().0,
                "epoch": self.epoch,
                "writable": self.writable.get(),
                "audited": audit.as_ref().map(|audit| audit.through.0),
                "snapshot": audit.as_ref().map(|audit| audit.snapshot.0),
                "commit_us_p50": commit_us_p50,
                "commit_us_p99": commit_us_p99,
            },
            "audit": audit_status(audit.as_ref()),
            "audit_stream": self.stream.as_ref().map_or_else(|| "off".into(), |stream| self.stream_status(stream)),
            "scrub": scrub_status(audit.as_ref()),
            "accounting_lag_seconds": lag,
            "policy_version": self.version.policy(),
            "registry_version": self.topology.version(),
            "cores": self.publisher.figures(),
        });
        *self.status.lock().expect("no thread panics while it holds the status") = status.to_string();
    }

    /// How far the audit stream is, for the operator.
    fn stream_status(&self, stream: &Auditing) -> serde_json::Value {
        let (figures, now) = (stream.figures(), unix_now());
        serde_json::json!({
            "through": figures.through().0,
            "lines": figures.lines(),
            "lag_seconds": figures.lag_seconds(self.ledger.head(), now),
            "dropped": figures.dropped().iter().sum::<u64>(),
            "trouble": stream.trouble(self.ledger.head(), now).unwrap_or_else(|| "none".to_owned()),
        })
    }

    /// Tells the audit stream, if there is one.
    fn note(&self, event: Event) {
        if let Some(stream) = &self.stream {
            stream.note(event);
        }
    }

    /// Reads again what can change while the service runs: policy, topology and revocations; the keyring has a thread of its own, as
    /// policy and topology have.
    pub fn reload(&self) {
        tracing::info!(event = "reload", "reading policy, topology, revocations and keyring again");
        self.policy.ask();
        self.look_at_revocations(true);
        self.topology.reload();
    }
}

/// A quantile, if anything was recorded.
fn known_quantile(recorded: &hdrhistogram::Histogram<u64>, quantile: f64) -> Option<u64> {
    (!recorded.is_empty()).then(|| recorded.value_at_quantile(quantile))
}

/// What the audit has found, for the operator, and null before it has said anything; `broken` is null as long as every rule holds.
fn audit_status(audit: Option<&Audit>) -> serde_json::Value {
    let Some(audit) = audit else { return serde_json::Value::Null };
    serde_json::json!({
        "through": audit.through.0,
        "broken": audit.broken,
        "reads_failed": audit.reads_failed,
        "snapshots_failed": audit.snapshots_failed,
    })
}

/// What reading everything again has found, for the operator, and null as long as the audit is; `last_end` is null before the first pass
/// has ended.
fn scrub_status(audit: Option<&Audit>) -> serde_json::Value {
    let Some(audit) = audit else { return serde_json::Value::Null };
    let [segments, indexes, snapshots] = audit.scrub.damaged;
    serde_json::json!({
        "last_end": (audit.scrub.last_end.0 > 0).then_some(audit.scrub.last_end.0),
        "damaged_segments": segments,
        "damaged_indexes": indexes,
        "damaged_snapshots": snapshots,
    })
}

/// What becomes of writes, by whether the ledger takes entries and whether everything that writes need is ready.
pub(crate) fn gate_for(writable: bool, writes_open: bool) -> Gate {
    match (writable, writes_open) {
        (true, true) => Gate::Open,
        (false, _) => Gate::LedgerDown,
        (true, false) => Gate::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::SCRUBBED_KINDS;

    #[test]
    fn the_kinds_of_files_are_called_by_the_same_names_everywhere() {
        assert_eq!(SCRUBBED_KINDS, crate::ledger::ScrubKind::ALL.map(crate::ledger::ScrubKind::as_str));
    }

    #[test]
    fn the_status_has_what_audit_and_scrubbing_have_found() {
        use crate::domain::{Seq, UnixMs};
        use crate::ledger::{ScrubKind, Scrubbed};
        assert!(audit_status(None).is_null() && scrub_status(None).is_null(), "what nobody has said is not claimed");
        let fresh = Audit::default();
        assert_eq!(
            audit_status(Some(&fresh)),
            serde_json::json!({"through": 0, "broken": null, "reads_failed": 0, "snapshots_failed": 0})
        );
        assert!(scrub_status(Some(&fresh))["last_end"].is_null());
        let scrub = Scrubbed { last_end: UnixMs(1_500), damaged: [1, 2, 3] };
        let found =
            Audit { through: Seq(9), broken: Some("a rule".to_owned()), reads_failed: 4, snapshots_failed: 5, scrub, ..fresh };
        assert_eq!(
            audit_status(Some(&found)),
            serde_json::json!({"through": 9, "broken": "a rule", "reads_failed": 4, "snapshots_failed": 5})
        );
        let told = scrub_status(Some(&found));
        assert_eq!(told["last_end"], 1_500);
        // Named by kind, in the order in which they are counted.
        for (kind, member) in ScrubKind::ALL.iter().zip(["damaged_segments", "damaged_indexes", "damaged_snapshots"]) {
            assert!(member.contains(&kind.as_str()[..5]) && told[member] == *kind as u64 + 1, "{told}");
        }
    }

    #[test]
    fn a_ledger_that_takes_nothing_is_the_reason_whatever_else_is_missing() {
        let gates = [(true, true), (true, false), (false, true), (false, false)].map(|(writable, open)| gate_for(writable, open));
        assert_eq!(gates, [Gate::Open, Gate::NotReady, Gate::LedgerDown, Gate::LedgerDown]);
    }

    #[test]
    fn without_a_commit_no_time_of_one_is_claimed() {
        let mut recorded = hdrhistogram::Histogram::new(3).unwrap();
        assert_eq!(known_quantile(&recorded, 0.5), None);
        recorded.record(7).unwrap();
        assert_eq!(known_quantile(&recorded, 0.5), Some(7));
    }
}
