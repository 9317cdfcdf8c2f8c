//! What all cores of one server share: fixed at start, or behind an atomic that the control thread writes and cores read.
use super::admission::{Admission, Ceilings};
use super::disturbance::Disturbance;
use super::quotas::SharedQuotas;
use super::sweep::Timeouts;
use crate::access::{PolicyBoard, RevocationBoard, RootBoard};
use crate::api::Route;
use crate::domain::LogId;
use crate::engine::Gate;
use crate::http;
use crate::telemetry::SpanFeed;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// The gate for writes, opened and shut by the control thread.
#[derive(Debug)]
pub struct SharedGate(AtomicU8);

impl SharedGate {
    /// A gate in this state.
    pub fn new(gate: Gate) -> Self {
        Self(AtomicU8::new(gate as u8))
    }

    /// Opens or shuts it.
    pub fn set(&self, gate: Gate) {
        self.0.store(gate as u8, Ordering::Relaxed);
    }

    /// Its state.
    pub fn get(&self) -> Gate {
        match self.0.load(Ordering::Relaxed) {
            number if number == Gate::Open as u8 => Gate::Open,
            number if number == Gate::LedgerDown as u8 => Gate::LedgerDown,
            _ => Gate::NotReady,
        }
    }
}

/// A reply of the control plane, served on the HTTP port as well.
#[derive(Clone, Debug)]
pub struct ControlReply {
    /// 200 or 503.
    pub status: u16,
    /// JSON.
    pub body: Arc<str>,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

/// Answers `/healthz`, `/readyz` and `/version`.
pub type ControlPlane = dyn Fn(Route) -> ControlReply + Send + Sync;

/// What all cores share.
pub struct Site {
    /// The ceiling on requests in flight.
    pub admission: Ceilings,
    /// Whether writes are let through.
    pub gate: SharedGate,
    /// Cores that have nothing left to do for themselves while the service ends. A core goes on serving the others until
    /// all have come so far: requests and credits of theirs may still be on their way to it.
    pub cores_finished: AtomicUsize,
    /// Whom capabilities must be meant for.
    pub audience: String,
    /// How far the clocks of their issuers may be off.
    pub clock_leeway: Duration,
    /// What is revoked.
    pub revocations: Arc<RevocationBoard>,
    /// The signed roots of the history.
    pub roots: Arc<RootBoard>,
    /// Verified tokens that a core remembers.
    pub tokens_max: usize,
    /// The policy in force.
    pub policy: Arc<PolicyBoard>,
    /// Its quotas that all cores share.
    pub quotas: SharedQuotas,
    /// What is done to requests on purpose.
    pub disturbance: Arc<Disturbance>,
    /// The ledger's identity, part of every transaction id.
    pub log_id: LogId,
    /// Bounds of a request.
    pub http_limits: http::Limits,
    /// Requests of one connection in flight.
    pub pipeline_depth: usize,
    /// The cap on open connections.
    pub connections: Admission,
    /// The cap on bytes of input buffers that have grown for large requests: [`super::LARGE_INPUT_BYTES_MAX`].
    pub large_input: Arc<Admission>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// A random number that tells the correlation ids of this process from others'.
    pub process: u64,
    /// Where requests of recorded traces are told, if somewhere.
    pub spans: Option<SpanFeed>,
    /// Answers for the control plane's routes.
    pub control_plane: Box<ControlPlane>,
}
