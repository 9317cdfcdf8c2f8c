//! Whether the service may be sent work: which dependency is missing, and which of reads and writes are still served.
//!
//! Invariants: a write is open only while the ledger takes entries and a policy is in force, and never once the drain has begun;
//! the drain cannot be taken back; `ready` holds only when every dependency is there and nothing is under pressure. The
//! dependencies whose failure the service can live with (counters, topology) make it not ready without closing writes.
//!
//! This file does not know how a dependency is watched, nor who asks. It uses no clock.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// After how many seconds a client should ask again.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// What the service needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dep {
    /// Takes entries and makes them durable.
    Ledger,
    /// Takes the counters within the bound of its lag.
    Accounting,
    /// A policy is in force.
    Policy,
    /// The topology is known and not older than its bound.
    Registry,
}

impl Dep {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Dep; 4] = [Dep::Ledger, Dep::Accounting, Dep::Policy, Dep::Registry];

    /// The name in `/readyz`.
    pub fn as_str(self) -> &'static str {
        match self {
            Dep::Ledger => "ledger",
            Dep::Accounting => "accounting",
            Dep::Policy => "policy",
            Dep::Registry => "registry",
        }
    }
}

/// The answer to `/readyz` at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether everything is there.
    pub ready: bool,
    /// 200 or 503.
    pub status: u16,
    /// For a 503, the value of `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// The JSON body for anybody: no reasons, because they name paths and addresses.
    pub body: Arc<str>,
    /// The JSON body for the operator: with the reason for each missing dependency.
    pub body_with_reasons: Arc<str>,
}

/// The shared state; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    writes_open: AtomicBool,
    reads_open: AtomicBool,
    version: AtomicU64,
    state: Mutex<State>,
}

/// How far the way out is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// Nobody goes.
    No,
    /// It is told that the service will go, and everything is served.
    Told,
    /// Nothing new is begun.
    Begun,
}

#[derive(Debug)]
struct State {
    /// For each dependency what it lacks; `None` if nothing.
    missing: [Option<String>; Dep::ALL.len()],
    recovered: bool,
    /// Why the service is under pressure, if it is.
    pressure: Option<String>,
    drain: Drain,
    /// What is in the way of the audit stream, which holds nothing up.
    audit: Option<String>,
    /// The faults that are injected on purpose.
    faults: Vec<String>,
    snapshot: Snapshot,
}

#[derive(Serialize)]
struct Body<'a> {
    ready: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    degraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deps: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<std::collections::BTreeMap<&'static str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    writes: bool,
    reads: bool,
    draining: bool,
    pressure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    faults: &'a [String],
}

impl State {
    fn lacks(&self, dep: Dep) -> bool {
        self.missing[dep as usize].is_some()
    }

    fn ready(&self) -> bool {
        self.recovered && self.drain == Drain::No && self.pressure.is_none() && self.missing.iter().all(Option::is_none)
    }

    fn writes(&self) -> bool {
        self.recovered && self.drain != Drain::Begun && !self.lacks(Dep::Ledger) && !self.lacks(Dep::Policy)
    }

    fn reads(&self) -> bool {
        self.recovered
    }

    fn body(&self, with_reasons: bool) -> Arc<str> {
        let ready = self.ready();
        let missing: Vec<_> = Dep::ALL.into_iter().filter(|dep| self.lacks(*dep)).collect();
        let reasons = missing.iter().filter_map(|dep| Some((dep.as_str(), self.missing[*dep as usize].as_deref()?)));
        let reasons = reasons.chain(self.pressure.as_deref().map(|reason| ("pressure", reason))).collect();
        let body = Body {
            ready,
            degraded: !ready,
            deps: ready.then(|| Dep::ALL.map(Dep::as_str).into()),
            missing: (!ready).then(|| missing.iter().map(|dep| dep.as_str()).collect()),
            reasons: (!ready && with_reasons).then_some(reasons),
            retry_after: (!ready).then_some(RETRY_AFTER_SECONDS),
            writes: self.writes(),
            reads: self.reads(),
            draining: self.drain != Drain::No,
            pressure: self.pressure.is_some(),
            audit: self.audit.as_deref().filter(|_| with_reasons),
            faults: if with_reasons { &self.faults } else { &[] },
        };
        serde_json::to_string(&body).expect("the body has only texts, numbers and flags").into()
    }

    fn renewed(&self) -> Snapshot {
        let ready = self.ready();
        Snapshot {
            ready,
            status: if ready { 200 } else { 503 },
            retry_after: (!ready).then_some(RETRY_AFTER_SECONDS),
            body: self.body(false),
            body_with_reasons: self.body(true),
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Nothing is there yet and nothing is served.
    pub fn new() -> Self {
        let nothing = Snapshot { ready: false, status: 503, retry_after: None, body: "".into(), body_with_reasons: "".into() };
        let mut state = State {
            missing: Dep::ALL.map(|_| Some("not reached yet since the start".to_owned())),
            recovered: false,
            pressure: None,
            drain: Drain::No,
            audit: None,
            faults: Vec::new(),
            snapshot: nothing,
        };
        state.snapshot = state.renewed();
        let (writes_open, reads_open) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { writes_open, reads_open, version: AtomicU64::new(0), state: Mutex::new(state) }) }
    }

    /// The state of the accounts has been read back from the ledger: reads, and with them writes, can be served.
    pub fn recovered(&self) {
        self.change(|state| state.recovered = true);
    }

    /// The dependency is there.
    pub fn up(&self, dep: Dep) {
        self.change(|state| state.missing[dep as usize] = None);
    }

    /// The dependency is missing; `reason` is for the operator.
    pub fn down(&self, dep: Dep, reason: impl Into<String>) {
        self.change(|state| state.missing[dep as usize] = Some(reason.into()));
    }

    /// More work arrives than is done, for this reason. Not ready, so that work goes elsewhere, while what arrives is still answered.
    pub fn pressure(&self, reason: Option<&str>) {
        self.change(|state| state.pressure = reason.map(str::to_owned));
    }

    /// Notes what is in the way of the audit stream, for the operator; work may be sent here all the same.
    pub fn note_audit(&self, trouble: Option<String>) {
        self.change(|state| state.audit = trouble);
    }

    /// Notes the faults that are injected on purpose, for the operator; what they do to the dependencies shows there.
    pub fn note_faults(&self, faults: Vec<String>) {
        self.change(|state| state.faults = faults);
    }

    /// The service will go: not ready, so that work goes elsewhere, while everything that arrives is served. There is no way back.
    pub fn tell_drain(&self) {
        self.change(|state| state.drain = Drain::Told);
    }

    /// The shutdown has begun: no write is let in any more.
    pub fn drain(&self) {
        self.change(|state| state.drain = Drain::Begun);
    }

    /// Whether writes are served: one relaxed load, for the cores.
    pub fn writes_open(&self) -> bool {
        self.shared.writes_open.load(Ordering::Relaxed)
    }

    /// Whether reads are served: one relaxed load, for the cores.
    pub fn reads_open(&self) -> bool {
        self.shared.reads_open.load(Ordering::Relaxed)
    }

    /// Whether every dependency is there and nothing holds the service back.
    pub fn ready(&self) -> bool {
        self.state().snapshot.ready
    }

    /// Grows with every change of the answer, so that a copy of the answer can be renewed only when it must.
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// The present answer to `/readyz`.
    pub fn snapshot(&self) -> Snapshot {
        self.state().snapshot.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let snapshot = state.renewed();
        if snapshot != state.snapshot {
            state.snapshot = snapshot;
            self.shared.writes_open.store(state.writes(), Ordering::Relaxed);
            self.shared.reads_open.store(state.reads(), Ordering::Relaxed);
            self.shared.version.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    //! The table of failures of the design: for each state, what `/readyz` says and which of reads and writes go on.
    use super::*;
    use serde_json::{json, Value};

    fn serving() -> Readiness {
        let readiness = Readiness::new();
        Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
        readiness.recovered();
        readiness
    }

    fn check(readiness: &Readiness, status: u16, missing: &[&str], writes: bool, reads: bool) {
        let snapshot = readiness.snapshot();
        let body: Value = serde_json::from_str(&snapshot.body).unwrap();
        assert_eq!((snapshot.status, snapshot.ready, readiness.ready()), (status, status == 200, status == 200), "{body}");
        assert_eq!((readiness.writes_open(), readiness.reads_open()), (writes, reads), "{body}");
        assert_eq!((&body["writes"], &body["reads"]), (&json!(writes), &json!(reads)), "{body}");
        assert_eq!(body["ready"], json!(status == 200));
        if status == 200 {
            assert_eq!(body["deps"], json!(["ledger", "accounting", "policy", "registry"]));
            assert!(body.get("missing").is_none() && body.get("degraded").is_none() && snapshot.retry_after.is_none());
        } else {
            assert_eq!((&body["degraded"], &body["missing"], &body["retry_after"]), (&json!(true), &json!(missing), &json!(1)));
            assert_eq!(snapshot.retry_after, Some(1));
        }
    }

    #[test]
    fn the_ready_body_begins_as_the_contract_has_it() {
        let body = serving().snapshot().body;
        assert!(body.starts_with(r#"{"ready":true,"deps":["ledger","accounting","policy","registry"],"#), "{body}");
    }

    #[test]
    fn nothing_is_served_before_recovery() {
        let readiness = Readiness::new();
        check(&readiness, 503, &["ledger", "accounting", "policy", "registry"], false, false);
        Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
        check(&readiness, 503, &[], false, false);
        readiness.recovered();
        check(&readiness, 200, &[], true, true);
    }

    #[test]
    fn each_missing_dependency_closes_what_it_must_and_comes_back() {
        for (dep, writes) in [(Dep::Ledger, false), (Dep::Accounting, true), (Dep::Policy, false), (Dep::Registry, true)] {
            let readiness = serving();
            readiness.down(dep, "no /secret/path");
            check(&readiness, 503, &[dep.as_str()], writes, true);
            let snapshot = readiness.snapshot();
            assert!(!snapshot.body.contains("/secret/path"));
            assert!(snapshot.body_with_reasons.contains(&format!("{{\"{}\":\"no /secret/path\"}}", dep.as_str())));
            readiness.up(dep);
            check(&readiness, 200, &[], true, true);
        }
    }

    #[test]
    fn pressure_drops_readiness_and_nothing_else() {
        let readiness = serving();
        readiness.pressure(Some("too much"));
        check(&readiness, 503, &[], true, true);
        let reasons = serde_json::from_str::<Value>(&readiness.snapshot().body_with_reasons).unwrap()["reasons"].clone();
        assert_eq!(reasons, json!({"pressure": "too much"}));
        readiness.pressure(None);
        check(&readiness, 200, &[], true, true);
    }

    #[test]
    fn injected_faults_are_for_the_operator_and_take_nothing_out_of_service_by_themselves() {
        let readiness = serving();
        readiness.note_faults(vec!["latency of requests".to_owned()]);
        check(&readiness, 200, &[], true, true);
        let snapshot = readiness.snapshot();
        let told: Value = serde_json::from_str(&snapshot.body_with_reasons).unwrap();
        assert_eq!(told["faults"], json!(["latency of requests"]));
        assert!(!snapshot.body.contains("faults"));
        readiness.note_faults(Vec::new());
        assert!(!readiness.snapshot().body_with_reasons.contains("faults"));
    }

    #[test]
    fn a_drain_is_told_first_and_then_closes_writes_for_good() {
        let readiness = serving();
        readiness.tell_drain();
        check(&readiness, 503, &[], true, true);
        readiness.drain();
        check(&readiness, 503, &[], false, true);
        Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
        check(&readiness, 503, &[], false, true);
    }

    #[test]
    fn the_version_grows_exactly_when_the_answer_changes() {
        let readiness = serving();
        let version = readiness.version();
        let other_handle = readiness.clone();
        readiness.up(Dep::Ledger);
        assert_eq!(other_handle.version(), version);
        readiness.down(Dep::Ledger, "one");
        readiness.down(Dep::Ledger, "two");
        readiness.down(Dep::Ledger, "two");
        assert_eq!(other_handle.version(), version + 2);
        assert!(!other_handle.writes_open());
    }
}
