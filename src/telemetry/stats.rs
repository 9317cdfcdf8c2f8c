//! The counters and latency histograms of one core: plain memory of one thread, no atomics, no locks, no clock.
//!
//! A core fills one [`CoreStats`], hands it to the control thread about once a second and goes on with another one that came
//! back [`reset`](CoreStats::reset). Every figure is therefore a delta since the last hand-over, but for the [`Gauge`]s, which
//! are the state at that moment. What the indexes of routes and methods mean is known to the publisher only.
use hdrhistogram::Histogram;

use crate::domain::{Op, QuotaScope, Reason};

/// Index into the caller's table of route labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex(pub u8);

/// Index into the caller's table of method labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodIndex(pub u8);

/// Longest latency that is told apart, in microseconds; longer ones count as this.
pub const LATENCY_US_MAX: u64 = 60_000_000;
/// Significant decimal digits of a recorded latency: an error of at most 1%, at 11 KiB a histogram.
const LATENCY_DIGITS: u8 = 2;

/// The statuses that are counted under their own number; any other one counts as `other`.
pub(super) const STATUSES: [u16; 26] = [
    200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 417, 422, 426, 429, 431, 500, 501, 502, 503,
    505,
];
/// Counters of one route and method: one for each status, and one for all others, which comes first.
pub(super) const STATUS_SLOTS: usize = STATUSES.len() + 1;
const STATUS_NUMBERS: usize = 600;

/// For each status number its counter.
static STATUS_SLOT: [u8; STATUS_NUMBERS] = status_slots();

const fn status_slots() -> [u8; STATUS_NUMBERS] {
    let mut table = [0u8; STATUS_NUMBERS];
    let mut index = 0;
    while index < STATUSES.len() {
        table[STATUSES[index] as usize] = index as u8 + 1;
        index += 1;
    }
    table
}

macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All values, in the order in which they are numbered.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
        }
    };
}

numbered! {
    /// A named event that a core counts beside requests, refusals and operations.
    Tally {
        /// A connection was accepted.
        ConnectionAccepted,
        /// A connection was refused because the cap on connections was reached.
        ConnectionRefused,
        /// A connection ended as both sides agreed.
        ConnectionClosed,
        /// A connection was cut because a request did not arrive in time.
        ReadTimeout,
        /// A connection was cut because a reply was not taken in time.
        WriteTimeout,
        /// A connection was closed because nothing happened on it.
        IdleTimeout,
        /// A connection was closed after a framing error or a broken socket.
        ConnectionError,
        /// Accepting failed for want of file descriptors or memory.
        AcceptFault,
        /// A command was forwarded to the core that owns its account.
        Forward,
        /// A batch of messages was sent to another core.
        ForwardBatch,
        /// A message to another core had to wait, or was refused, because its inbox was full.
        InboxStall,
        /// A token was found in the core's cache of verified tokens.
        TokenCacheHit,
        /// A token had to be verified in full.
        TokenCacheMiss,
        /// The quota of an account was used up.
        AccountQuota,
        /// The quota of a subject was used up.
        SubjectQuota,
        /// The quota of all requests was used up.
        GlobalQuota,
        /// A request was answered by the ledger and not from memory: a receipt, or an old repeat.
        LedgerQuestion,
        /// An idempotency key was forgotten before its time because too many were remembered.
        KeyEvicted,
    }
}

numbered! {
    /// A state of one core at the moment of the hand-over; the publisher shows the sum over all cores.
    Gauge {
        /// Connections that are open.
        Connections,
        /// Requests that were admitted and are not answered yet.
        Inflight,
        /// Accounts in the core's slice.
        Accounts,
        /// Token ids under whose budgets something was debited; told by one core for all.
        Budgets,
        /// Idempotency keys that are remembered.
        RememberedKeys,
        /// Entries that were handed to the ledger and are not acknowledged yet.
        LanePending,
        /// Messages that wait for another core's inbox.
        ForwardPending,
        /// Tokens in the cache of verified tokens.
        CachedTokens,
    }
}

/// What one core counted since the last hand-over.
#[derive(Debug)]
pub struct CoreStats {
    routes: usize,
    methods: usize,
    /// By route, then method, then status.
    answers: Box<[u64]>,
    /// By route, then method; made at the first answer, because most pairs are never asked for.
    latencies: Box<[Option<Histogram<u32>>]>,
    rejections: [u64; Reason::ALL.len()],
    operations: [u64; Op::ALL.len()],
    conflicts: u64,
    replays: u64,
    tallies: [u64; Tally::COUNT],
    gauges: [u64; Gauge::COUNT],
    cpu_us: u64,
}

impl Tally {
    /// That of a quota which was used up.
    pub fn of_quota(scope: QuotaScope) -> Self {
        match scope {
            QuotaScope::Account => Self::AccountQuota,
            QuotaScope::Subject => Self::SubjectQuota,
            QuotaScope::Global => Self::GlobalQuota,
        }
    }
}

impl CoreStats {
    /// Empty figures for this many routes and methods.
    ///
    /// # Panics
    /// If there is no route or no method, or more than 256 of either: the caller's tables are wrong.
    pub fn new(routes: usize, methods: usize) -> Self {
        assert!((1..=256).contains(&routes) && (1..=256).contains(&methods));
        Self {
            routes,
            methods,
            answers: vec![0; routes * methods * STATUS_SLOTS].into_boxed_slice(),
            latencies: vec![None; routes * methods].into_boxed_slice(),
            rejections: [0; Reason::ALL.len()],
            operations: [0; Op::ALL.len()],
            conflicts: 0,
            replays: 0,
            tallies: [0; Tally::COUNT],
            gauges: [0; Gauge::COUNT],
            cpu_us: 0,
        }
    }

    /// Counts a reply and its latency, in microseconds from when the core took the whole request in until its reply stood in the
    /// connection's output.
    ///
    /// # Panics
    /// If route or method is outside the tables: the caller's mistake.
    pub fn answered(&mut self, route: RouteIndex, method: MethodIndex, status: u16, latency_us: u64) {
        let pair = self.pair(route, method);
        let slot = STATUS_SLOT.get(usize::from(status)).copied().unwrap_or(0);
        self.answers[pair * STATUS_SLOTS + usize::from(slot)] += 1;
        self.latencies[pair].get_or_insert_with(new_latencies).saturating_record(latency_us.min(LATENCY_US_MAX));
    }

    /// Counts a refused request.
    pub fn rejected(&mut self, reason: Reason) {
        self.rejections[reason as usize] += 1;
    }

    /// Counts a request that asked for a change, whatever became of it.
    pub fn operation(&mut self, op: Op) {
        self.operations[op as usize - Op::ALL[0] as usize] += 1;
    }

    /// Counts a 409 over a nonce or an idempotency key.
    pub fn conflict(&mut self) {
        self.conflicts += 1;
    }

    /// Counts a repeat that was answered with the first receipt.
    pub fn replay(&mut self) {
        self.replays += 1;
    }

    /// Counts one event.
    pub fn tally(&mut self, tally: Tally) {
        self.tallies[tally as usize] += 1;
    }

    /// Counts several events of one kind.
    pub fn tally_many(&mut self, tally: Tally, count: u64) {
        self.tallies[tally as usize] += count;
    }

    /// Sets a state; to be called for every gauge before each hand-over.
    pub fn gauge(&mut self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize] = value;
    }

    /// Sets how much processor time the core has used since its start, in microseconds; to be called before each hand-over.
    pub fn cpu(&mut self, micros: u64) {
        self.cpu_us = micros;
    }

    /// That time.
    pub fn cpu_us(&self) -> u64 {
        self.cpu_us
    }

    /// Empties everything for reuse and keeps the memory.
    pub fn reset(&mut self) {
        self.answers.fill(0);
        for latencies in self.latencies.iter_mut().flatten() {
            if !latencies.is_empty() {
                latencies.reset();
            }
        }
        self.rejections.fill(0);
        self.operations.fill(0);
        self.conflicts = 0;
        self.replays = 0;
        self.tallies.fill(0);
        self.gauges.fill(0);
    }

    /// How many replies were counted, over all routes, methods and statuses.
    pub fn answers_total(&self) -> u64 {
        self.answers.iter().sum()
    }

    /// How often an event was counted.
    pub fn count(&self, tally: Tally) -> u64 {
        self.tallies[tally as usize]
    }

    /// How many requests were refused for this reason.
    pub fn rejections(&self, reason: Reason) -> u64 {
        self.rejections[reason as usize]
    }

    /// How many requests asked for this operation.
    pub fn operations(&self, op: Op) -> u64 {
        self.operations[op as usize - Op::ALL[0] as usize]
    }

    /// How many conflicts were counted.
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// How many repeats were counted.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// The state that was set last.
    pub fn state(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize]
    }

    /// Numbers of routes and methods that the figures were made for.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.routes, self.methods)
    }

    /// Every counter of replies that is not zero: pair of route and method, slot of the status, count.
    pub(super) fn answers(&self) -> impl Iterator<Item = (usize, usize, u64)> + '_ {
        let counted = self.answers.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(index, count)| (index / STATUS_SLOTS, index % STATUS_SLOTS, *count))
    }

    /// The latencies of every pair of route and method that was asked for, in microseconds.
    pub(super) fn latencies(&self) -> impl Iterator<Item = (usize, &Histogram<u32>)> {
        let made = self.latencies.iter().enumerate().filter_map(|(pair, made)| made.as_ref().map(|made| (pair, made)));
        made.filter(|(_, latencies)| !latencies.is_empty())
    }

    fn pair(&self, route: RouteIndex, method: MethodIndex) -> usize {
        let (route, method) = (usize::from(route.0), usize::from(method.0));
        assert!(route < self.routes && method < self.methods, "route {route} or method {method} is outside the label tables");
        route * self.methods + method
    }
}

#[cold]
fn new_latencies() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("the bounds are constants that the library accepts")
}

#[cfg(test)]
mod tests {
    //! That every figure lands where it belongs, that nothing is lost at the edges, and that a reset leaves nothing behind.
    use super::*;

    fn filled() -> CoreStats {
        let mut stats = CoreStats::new(3, 2);
        stats.answered(RouteIndex(2), MethodIndex(1), 200, 1_000);
        stats.answered(RouteIndex(2), MethodIndex(1), 200, 2_000);
        stats.answered(RouteIndex(0), MethodIndex(0), 503, u64::MAX);
        stats.answered(RouteIndex(0), MethodIndex(0), 299, 0);
        stats.answered(RouteIndex(0), MethodIndex(0), u16::MAX, 0);
        for reason in Reason::ALL {
            stats.rejected(reason);
        }
        for op in Op::ALL {
            stats.operation(op);
        }
        for tally in Tally::ALL {
            stats.tally(*tally);
        }
        for gauge in Gauge::ALL {
            stats.gauge(*gauge, 9);
        }
        stats.tally_many(Tally::Forward, 4);
        stats.conflict();
        stats.replay();
        stats
    }

    #[test]
    fn each_figure_lands_in_its_own_place() {
        let stats = filled();
        let slot_of = |status: u16| 1 + STATUSES.iter().position(|known| *known == status).unwrap();
        let answers: Vec<_> = stats.answers().collect();
        assert_eq!(answers, [(0, 0, 2), (0, slot_of(503), 1), (5, slot_of(200), 2)]);
        assert_eq!(stats.answers_total(), 5);
        for reason in Reason::ALL {
            assert_eq!(stats.rejections(reason), 1, "{reason:?}");
        }
        for op in Op::ALL {
            assert_eq!(stats.operations(op), 1, "{op:?}");
        }
        for tally in Tally::ALL {
            let expected = if *tally == Tally::Forward { 5 } else { 1 };
            assert_eq!(stats.count(*tally), expected, "{tally:?}");
        }
        for gauge in Gauge::ALL {
            assert_eq!(stats.state(*gauge), 9, "{gauge:?}");
        }
        assert_eq!((stats.conflicts(), stats.replays()), (1, 1));
    }

    #[test]
    fn latencies_are_kept_within_one_percent_and_capped() {
        let stats = filled();
        let latencies: Vec<_> = stats.latencies().collect();
        assert_eq!(latencies.iter().map(|(pair, _)| *pair).collect::<Vec<_>>(), [0, 5]);
        assert_eq!(latencies[0].1.len(), 3);
        assert!(latencies[0].1.max().abs_diff(LATENCY_US_MAX) <= LATENCY_US_MAX / 100);
        assert!(latencies[1].1.max().abs_diff(2_000) <= 20);
    }

    #[test]
    fn a_reset_leaves_nothing_behind() {
        let mut stats = filled();
        stats.reset();
        assert_eq!((stats.answers().count(), stats.latencies().count()), (0, 0));
        assert!(Reason::ALL.iter().all(|reason| stats.rejections(*reason) == 0));
        assert!(Op::ALL.iter().all(|op| stats.operations(*op) == 0));
        assert!(Tally::ALL.iter().all(|tally| stats.count(*tally) == 0));
        assert!(Gauge::ALL.iter().all(|gauge| stats.state(*gauge) == 0));
        assert_eq!((stats.conflicts(), stats.replays()), (0, 0));
        stats.answered(RouteIndex(2), MethodIndex(1), 200, 7);
        assert_eq!(stats.latencies().map(|(_, latencies)| latencies.len()).sum::<u64>(), 1);
    }

    #[test]
    #[should_panic(expected = "outside the label tables")]
    fn a_method_outside_the_table_does_not_count_for_another_route() {
        CoreStats::new(3, 2).answered(RouteIndex(0), MethodIndex(2), 200, 1);
    }
}
