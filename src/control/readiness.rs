//! Whether the service may be sent work: which dependency is missing, and which of reads and writes are still served.
//!
//! Invariants: a write is open only while the ledger takes entries and a policy is in force, and never once the drain has begun;
//! the drain cannot be taken back; `ready` holds only when every dependency is there and stays, nothing is under pressure, and the
//! operator has not taken the service out of rotation. The dependencies whose failure the service can live with (counters, topology)
//! make it not ready without closing writes. Each change of what is missing is logged once.
//!
//! This file does not know how a dependency is watched, nor who asks.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::steadiness::Steadiness;
use crate::telemetry::{Publisher, NOT_READY_REASONS};

/// What is told of a dependency that is there and has yet to show that it stays.
const UNSTEADY: &str = "it is there again, and counts as missing until it has stayed for a moment: it keeps coming and going";
/// What is told of a wallet that waits for the ledger of another one.
const STANDS_BY: &str = "another wallet has the ledger, and this one takes over when that one lets go of it";
/// What is told while the operator has taken the service out of rotation.
const OUT_OF_ROTATION: &str = "asked for with ronctl drain on; ronctl drain off ends it";

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

/// What keeps the service from being ready, without the reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lacks {
    /// The dependencies that are missing or keep coming and going, in the order of [`Dep::ALL`].
    deps: [bool; Dep::ALL.len()],
    /// More arrives than is done.
    pressure: bool,
    /// The service will go, or the operator has taken it out of rotation.
    draining: bool,
    /// It waits for a ledger that another wallet has.
    stands_by: bool,
}

impl Lacks {
    /// As [`NOT_READY_REASONS`] has them.
    fn in_the_way(&self) -> [bool; NOT_READY_REASONS.len()] {
        let [ledger, accounting, policy, registry] = self.deps;
        [ledger, accounting, policy, registry, self.pressure, self.draining, self.stands_by]
    }
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
    steadiness: [Steadiness; Dep::ALL.len()],
    /// The dependencies that are there and have yet to show that they stay, as it was at the last look.
    unsteady: [bool; Dep::ALL.len()],
    recovered: bool,
    /// Whether it has been ready: what was never ready has not lost anything.
    was_ready: bool,
    /// Why the service is under pressure, if it is.
    pressure: Option<String>,
    /// Whether the operator has taken the service out of rotation.
    out_of_rotation: bool,
    /// Whether it waits for a ledger that another wallet has.
    stands_by: bool,
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

    /// Why it does not count as there, if it does not.
    fn absence(&self, dep: Dep) -> Option<&str> {
        self.missing[dep as usize].as_deref().or_else(|| self.unsteady[dep as usize].then_some(UNSTEADY))
    }

    /// What is in the way of being ready, and why.
    fn reasons(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let absent = Dep::ALL.into_iter().filter_map(|dep| Some((dep.as_str(), self.absence(dep)?)));
        let pressure = self.pressure.as_deref().map(|reason| ("pressure", reason));
        let standby = self.stands_by.then_some(("standby", STANDS_BY));
        absent.chain(pressure).chain(self.out_of_rotation.then_some(("drain", OUT_OF_ROTATION))).chain(standby)
    }

    fn drains(&self) -> bool {
        self.drain != Drain::No || self.out_of_rotation
    }

    fn ready(&self) -> bool {
        self.recovered && self.lacked() == Lacks::default()
    }

    fn writes(&self) -> bool {
        self.recovered && self.drain != Drain::Begun && !self.lacks(Dep::Ledger) && !self.lacks(Dep::Policy)
    }

    fn reads(&self) -> bool {
        self.recovered
    }

    fn lacked(&self) -> Lacks {
        let deps = Dep::ALL.map(|dep| self.absence(dep).is_some());
        Lacks { deps, pressure: self.pressure.is_some(), draining: self.drains(), stands_by: self.stands_by }
    }

    /// Tells what it lacks now, which is another thing than before.
    fn log(&self, lacks: Lacks) {
        let (writes, reads) = (self.writes(), self.reads());
        if lacks == Lacks::default() {
            tracing::info!(event = "ready", writes, reads, "work may be sent here");
            return;
        }
        let reason = self.reasons().map(|(what, why)| format!("{what}: {why}")).collect::<Vec<_>>().join("; ");
        let Lacks { pressure, draining, .. } = lacks;
        tracing::warn!(event = "not_ready", reason, pressure, draining, writes, reads, "no work should be sent here");
    }

    fn look_at_steadiness(&mut self, now: Instant) {
        for dep in Dep::ALL {
            let is_missing = self.lacks(dep);
            let steadiness = &mut self.steadiness[dep as usize];
            steadiness.note(is_missing, now);
            self.unsteady[dep as usize] = steadiness.is_held(now);
        }
    }

    fn body(&self, with_reasons: bool) -> Arc<str> {
        let ready = self.ready();
        let missing = Dep::ALL.into_iter().filter(|dep| self.absence(*dep).is_some()).map(Dep::as_str);
        let body = Body {
            ready,
            degraded: !ready,
            deps: ready.then(|| Dep::ALL.map(Dep::as_str).into()),
            missing: (!ready).then(|| missing.collect()),
            reasons: (!ready && with_reasons).then(|| self.reasons().collect()),
            retry_after: (!ready).then_some(RETRY_AFTER_SECONDS),
            writes: self.writes(),
            reads: self.reads(),
            draining: self.drains(),
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
            steadiness: Default::default(),
            unsteady: Default::default(),
            recovered: false,
            was_ready: false,
            pressure: None,
            out_of_rotation: false,
            stands_by: false,
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

    /// The operator takes the service out of rotation, or puts it back: not ready, while everything that arrives is served.
    pub fn take_out_of_rotation(&self, is_out: bool) {
        self.change(|state| state.out_of_rotation = is_out);
    }

    /// The service waits for a ledger that another wallet has, or does no longer.
    pub fn stand_by(&self, stands_by: bool) {
        self.change(|state| state.stands_by = stands_by);
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

    /// Shows in the metrics whether the service is ready, and what is in the way.
    pub fn publish(&self, publisher: &Publisher) {
        let state = self.state();
        publisher.readiness(state.ready(), state.lacked().in_the_way());
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
        let before = state.lacked();
        change(&mut state);
        state.look_at_steadiness(Instant::now());
        let lacks = state.lacked();
        state.was_ready |= state.ready();
        // An end that was asked for is told by whoever begins it.
        if state.was_ready && lacks != before && state.drain == Drain::No {
            state.log(lacks);
        }
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
#[path = "readiness_tests.rs"]
mod tests;
