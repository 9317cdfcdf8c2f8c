//! The coarse look at all connections of a core, some times a second: cuts clients that are too slow or idle too long and
//! answers requests that the ledger did not confirm in time. One timer per core instead of one per read.
use super::connection::{Connection, Phase};
use super::core::Core;
use crate::api::Route;
use crate::domain::{Code, Refusal};
use crate::engine::{Gate, Ticket};
use crate::telemetry::Tally;
use rustix::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Time between two sweeps; a limit is overrun by at most this much.
pub const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// How long a write waits for its commit while the ledger is known to take nothing: with the time until that is known and the
/// time between two sweeps, its client has its answer within 200 ms. Reads go on while the ledger is away and wait for no commit.
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

impl Timeouts {
    /// How long a request of this route waits for its answer.
    fn answer(&self, route: Route, gate: Gate) -> Duration {
        match (route.op(), gate) {
            (Some(_), Gate::LedgerDown) => self.write.min(LEDGER_DOWN_PATIENCE),
            (Some(_), Gate::Open | Gate::NotReady) | (None, Gate::Open | Gate::NotReady | Gate::LedgerDown) => self.write,
        }
    }
}

/// Numbers of the requests of a connection that have waited for their answers as long as they may.
fn overdue<'a>(connection: &'a Connection, timeouts: &'a Timeouts, gate: Gate, now_us: u64) -> impl Iterator<Item = u64> + 'a {
    connection.overdue(move |meta| {
        let patience_us = timeouts.answer(meta.route, gate).as_micros() as u64;
        meta.started_us <= now_us.saturating_sub(patience_us)
    })
}

/// Looks at every connection once.
pub fn sweep(core: &mut Core, timeouts: &Timeouts) {
    let now_ms = core.front.now_ms();
    let now_us = core.front.now_us();
    let draining = core.draining;
    let gate = core.front.gate();
    let mut late = Vec::new();
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
            let generation = connection.generation();
            let overdue = overdue(connection, timeouts, gate, now_us);
            late.extend(overdue.map(|request| Ticket { core: core_id, connection: place, generation, request }));
        }
    }
    for ticket in late {
        let message = "the ledger did not confirm in time and the outcome is unknown; repeating the same request is safe";
        core.front.refuse(ticket, Refusal::new(Code::UpstreamUnavailable, message));
    }
    core.front.note_time();
    let now = core.front.unix_now();
    let evicted = core.engine.expire_keys(now);
    core.front.stats.tally_many(Tally::KeyEvicted, evicted as u64);
    core.want_flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Method;
    use crate::http;
    use crate::worker::connection::{Corr, Meta};

    const TIMEOUTS: Timeouts =
        Timeouts { read: Duration::from_secs(1), write: Duration::from_secs(2), idle: Duration::from_secs(3) };

    /// The routes of those of these requests, all complete at the beginning, that are late after this time.
    fn late(gate: Gate, timeouts: &Timeouts, after: Duration) -> Vec<Route> {
        let mut connection = Connection::new(1, 0, 0);
        for route in Route::ALL {
            let number = connection.expect(Meta {
                route,
                method: Method::Other,
                connection: http::Connection::Stays,
                admitted: true,
                owner: None,
                corr: Corr::made(1, 2),
                trace: None,
                started_us: 1,
            });
            assert_eq!(number, route as u64);
        }
        let now_us = 1 + after.as_micros() as u64;
        overdue(&connection, timeouts, gate, now_us).map(|number| Route::ALL[number as usize]).collect()
    }

    #[test]
    fn while_the_ledger_is_down_only_writes_are_given_up_early() {
        let just_before = |time: Duration| time - Duration::from_micros(1);
        let writes = [Route::Issue, Route::Transfer, Route::Burn, Route::Hold, Route::Capture, Route::Release];
        assert_eq!(late(Gate::LedgerDown, &TIMEOUTS, just_before(LEDGER_DOWN_PATIENCE)), []);
        assert_eq!(late(Gate::LedgerDown, &TIMEOUTS, LEDGER_DOWN_PATIENCE), writes);
        assert_eq!(late(Gate::LedgerDown, &TIMEOUTS, just_before(TIMEOUTS.write)), writes, "reads go on");
        assert_eq!(late(Gate::LedgerDown, &TIMEOUTS, TIMEOUTS.write), Route::ALL);
        for gate in [Gate::Open, Gate::NotReady] {
            assert_eq!(late(gate, &TIMEOUTS, just_before(TIMEOUTS.write)), []);
            assert_eq!(late(gate, &TIMEOUTS, TIMEOUTS.write), Route::ALL);
        }
        let short = Timeouts { write: LEDGER_DOWN_PATIENCE / 2, ..TIMEOUTS };
        assert_eq!(late(Gate::LedgerDown, &short, short.write), Route::ALL, "a shorter limit holds for all");
    }
}
