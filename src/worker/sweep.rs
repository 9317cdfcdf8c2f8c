//! The coarse look at all connections of a core, some times a second: cuts clients that are too slow or idle too long and
//! answers requests that the ledger did not confirm in time. One timer per core instead of one per read.
use super::connection::Phase;
use super::core::Core;
use crate::domain::{Code, Refusal};
use crate::engine::{Gate, Ticket};
use crate::telemetry::Tally;
use rustix::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Time between two sweeps; a limit is overrun by at most this much.
pub const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// How long a request waits for its commit while the ledger is known to take nothing: with the time until that is known and the
/// time between two sweeps, its client has its answer within 200 ms.
const LEDGER_DOWN_PATIENCE: Duration = Duration::from_millis(40);

/// The limits that a sweep enforces.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a request to its last.
    pub read: Duration,
    /// From a request to its answer, and for a reply to be taken by the client.
    pub write: Duration,
    /// From a reply to the first byte of the next request.
    pub idle: Duration,
}

/// Looks at every connection once.
pub fn sweep(core: &mut Core, timeouts: &Timeouts) {
    let now_ms = core.front.now_ms();
    let now_us = core.front.now_us();
    let draining = core.draining;
    let confirmation = match core.front.gate() {
        Gate::Open | Gate::NotReady => timeouts.write,
        Gate::LedgerDown => timeouts.write.min(LEDGER_DOWN_PATIENCE),
    };
    let mut overdue = Vec::new();
    let core_id = core.front.core();
    for (place, connection) in core.front.connections.iter_mut() {
        let elapsed = Duration::from_millis(now_ms.saturating_sub(connection.since_ms));
        connection.closing |= draining;
        let cause = match connection.phase {
            Phase::Idle if draining => Some(Tally::ConnectionClosed),
            Phase::Idle => (elapsed >= timeouts.idle).then_some(Tally::IdleTimeout),
            Phase::Reading => (elapsed >= timeouts.read).then_some(Tally::ReadTimeout),
            Phase::Writing => (elapsed >= timeouts.write).then_some(Tally::WriteTimeout),
            Phase::Lingering => (elapsed >= timeouts.read).then_some(Tally::ConnectionClosed),
            Phase::Answering => None,
        };
        if let (Some(cause), None) = (cause, connection.cut) {
            connection.cut = Some(cause);
            // SAFETY: the descriptor stays open while the connection is in the table: the task that owns the stream takes the
            // connection out of the table before it drops the stream, on this same thread.
            #[allow(unsafe_code)]
            let socket = unsafe { BorrowedFd::borrow_raw(connection.socket) };
            // Shutting down makes the read or write that the task waits for return; a socket that is gone already needs nothing.
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
        if connection.unanswered() > 0 {
            let limit_us = now_us.saturating_sub(confirmation.as_micros() as u64);
            let generation = connection.generation();
            let late = connection.overdue(limit_us);
            overdue.extend(late.map(|request| Ticket { core: core_id, connection: place, generation, request }));
        }
    }
    for ticket in overdue {
        let message = "the ledger did not confirm in time and the outcome is unknown; repeating the same request is safe";
        core.front.refuse(ticket, Refusal::new(Code::UpstreamUnavailable, message));
    }
    core.front.note_time();
    let now = core.front.unix_now();
    let evicted = core.engine.expire_keys(now);
    core.front.stats.tally_many(Tally::KeyEvicted, evicted as u64);
    core.want_flush();
}
