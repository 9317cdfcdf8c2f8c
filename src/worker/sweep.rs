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
pub const LEDGER_DOWN_PATIENCE: Duration = Duration::from_millis(40);

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
        core.front.give_up(ticket, Refusal::new(Code::UpstreamUnavailable, message));
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
    use crate::control::watch::{gate_for, LOOK_EVERY};
    use crate::domain::{Account, Allowance, Amount, Asset, CoreId, Draft, Entry, Key, Op, TokenId, UnixMs};
    use crate::engine::{Engine, Outcome, Output, Repeat, Request};
    use crate::http;
    use crate::ring::Ring;
    use crate::shard::{Budgets, Settings};
    use crate::worker::connection::{Corr, Meta};
    use crate::worker::SharedGate;

    const TIMEOUTS: Timeouts =
        Timeouts { read: Duration::from_secs(1), write: Duration::from_secs(2), idle: Duration::from_secs(3) };

    fn meta(route: Route, started_us: u64) -> Meta {
        Meta {
            route,
            method: Method::Other,
            connection: http::Connection::Stays,
            admitted: true,
            owner: None,
            corr: Corr::made(1, 2),
            trace: None,
            started_us,
        }
    }

    /// The routes of those of these requests, all complete at the beginning, that are late after this time.
    fn late(gate: Gate, timeouts: &Timeouts, after: Duration) -> Vec<Route> {
        let mut connection = Connection::new(1, 0, 0);
        for route in Route::ALL {
            assert_eq!(connection.expect(meta(route, 1)), route as u64);
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

    /// When the connection to the ledger is lost, in milliseconds, and how long the test goes on.
    const LOST_MS: u64 = 300;
    const END_MS: u64 = 600;

    /// What the engine says to a write that it refuses.
    #[derive(Default)]
    struct Refused(Option<Code>);

    impl Output for Refused {
        fn reply(&mut self, _: Ticket, outcome: Outcome<'_>) {
            let Outcome::Refused(refusal) = outcome else { unreachable!("nothing is committed or read here") };
            self.0 = Some(refusal.code);
        }

        fn ask(&mut self, _: Repeat) -> Result<(), Repeat> {
            unreachable!("no key is used twice here")
        }
    }

    fn issue(number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let key = number.to_string();
        let draft = Draft {
            op: Op::Issue,
            from: None,
            to: Account::new("account"),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(1).unwrap(),
            nonce: None,
            key: Key::new(&key).unwrap(),
            memo: None,
            corr: "c",
            token: TokenId::default(),
            ceiling: false,
            budget: false,
            daily_max: false,
            ts: UnixMs(number),
        };
        draft.encode(&mut bytes);
        bytes
    }

    /// A write comes every millisecond, and none is committed: the time at which each was refused, by the time at which it came. The
    /// control thread looks, and the core sweeps, at these times and as often as they do; everything else takes no time.
    fn refusals(first_look_ms: u64, first_sweep_ms: u64) -> Vec<Option<u64>> {
        let gate = SharedGate::new(Gate::Open);
        let mut connection = Connection::new(1, 0, 0);
        let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1 << 40, keys_max: 1 << 12 };
        let mut engine = Engine::new(CoreId(0), Ring::new(1), settings, &Budgets::default());
        let mut refused = vec![None; END_MS as usize];
        for now_ms in 0..END_MS {
            // Nothing comes at the very beginning of the clock, which is longer ago than any patience.
            let now_us = now_ms * 1_000 + 1;
            let is_due = |first_ms: u64, every: Duration| now_ms % every.as_millis() as u64 == first_ms;
            if is_due(first_look_ms, LOOK_EVERY) {
                gate.set(gate_for(now_ms < LOST_MS, true));
            }
            if is_due(first_sweep_ms, SWEEP_EVERY) {
                let late: Vec<u64> = overdue(&connection, &TIMEOUTS, gate.get(), now_us).collect();
                for number in late {
                    connection.answer(number, |_| ());
                    refused[number as usize] = Some(now_ms);
                }
            }
            let request = connection.expect(meta(Route::Issue, now_us));
            assert_eq!(request, now_ms, "one write in each millisecond");
            let (entry, mut said) = (issue(now_ms), Refused::default());
            let write = Request::Write { entry: Entry::parse(&entry).unwrap().0, allowance: Allowance::default() };
            engine.submit(Ticket { core: CoreId(0), connection: 0, generation: 1, request }, write, gate.get(), &mut said);
            if let Some(code) = said.0 {
                assert_eq!(code, Code::UpstreamUnavailable);
                connection.answer(request, |_| ());
                refused[request as usize] = Some(now_ms);
            }
        }
        refused
    }

    /// Whenever the control thread looks and the core sweeps: a write that comes after the next look is refused at once, and whatever
    /// waits for its commit is answered after one look, one patience and one sweep.
    #[test]
    fn without_the_ledger_every_write_is_refused_within_a_look_a_patience_and_a_sweep() {
        const PHASES: usize = 7;
        let [look, patience, sweep] = [LOOK_EVERY, LEDGER_DOWN_PATIENCE, SWEEP_EVERY].map(|time| time.as_millis() as u64);
        let bound = LOST_MS + look + patience + sweep;
        let mut slowest = 0;
        for (first_look, first_sweep) in
            (0..look).step_by(PHASES).flat_map(|look| (0..sweep).step_by(PHASES).map(move |sweep| (look, sweep)))
        {
            let refused = refusals(first_look, first_sweep);
            let first = refused.iter().flatten().min().copied().unwrap();
            assert!(
                (LOST_MS..=LOST_MS + look).contains(&first),
                "looks from {first_look} ms on: the first refusal at {first} ms"
            );
            for (came, refused) in (0..).zip(refused) {
                let phases = format!("looks from {first_look} ms on, sweeps from {first_sweep} ms on");
                let at = refused.unwrap_or_else(|| panic!("{phases}: what came at {came} ms has no answer"));
                assert!(at <= bound.max(came), "{phases}: what came at {came} ms was refused at {at} ms");
                slowest = slowest.max(if came < bound { at } else { 0 });
            }
        }
        // All three matter: without any of them no write would wait so long.
        assert!(slowest + 3 * PHASES as u64 >= bound, "the slowest refusal came at {slowest} ms, the bound is {bound} ms");
    }
}
