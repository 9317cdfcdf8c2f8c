//! Publication of what the cores counted: adds their deltas to a Prometheus recorder and renders `/metrics`.
//!
//! Invariants: every counter exists from the start with the value 0, so that the first event is seen as an increase, but for the
//! statuses of a route that no alert compares; every label value comes from a fixed table. The recorder is this value's own and
//! never installed for the whole process, so several publishers can live side by side. Nothing here runs on a core.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge as GaugeHandle, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde::Serialize;

use super::feed::{DropCounts, DROP_REASONS};
use super::labels::{
    check_outcome, gauge_name, outcome, reload_name, tally_keys, BuildInfo, Check, Labels, Reload, SpanFate, NOT_READY_REASONS,
    REGISTRY_OUTCOMES, SCRUBBED_KINDS,
};
use super::names::{self, Kind};
use super::stats::{CoreStats, Gauge, Tally, STATUSES, STATUS_SLOTS};
use crate::domain::limits::CORES_MAX;
use crate::domain::{CoreId, Op, Reason, Seq, UnixMs};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
/// Statuses that exist from the start for each served route, because alerts compare their rates. A series for every status of every
/// route would be many times more, nearly all of them 0 for ever.
const STATUSES_FROM_START: [u16; 4] = [200, 429, 500, 503];
const MICROS_PER_SECOND: f64 = 1e6;
const MILLIS_PER_SECOND: f64 = 1e3;

/// Why no publisher could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublisherFault {
    /// `metrics.latency_buckets_ms` is empty, has a zero, or does not rise.
    Buckets,
    /// There are more cores than the service supports.
    Cores(u16),
}

impl std::fmt::Display for PublisherFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PublisherFault::Buckets => f.write_str(
                "metrics.latency_buckets_ms must list at least one number of milliseconds, each above 0 and above the one before",
            ),
            PublisherFault::Cores(cores) => write!(f, "{cores} cores are more than the {CORES_MAX} that one server can have"),
        }
    }
}

impl std::error::Error for PublisherFault {}

/// The figures of one core since the start, for the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoreFigures {
    /// Index of the core.
    pub core: u16,
    /// Replies since the start.
    pub answered: u64,
    /// Part of the last second for which it has had a processor, in percent.
    pub busy_percent: u64,
    /// Commands sent to other cores since the start.
    pub forwarded: u64,
    /// Open connections.
    pub connections: u64,
    /// Requests admitted and not answered yet.
    pub inflight: u64,
    /// Accounts in the core's slice.
    pub accounts: u64,
    /// Idempotency keys remembered.
    pub remembered_keys: u64,
    /// Entries that wait for the ledger.
    pub lane_pending: u64,
}

/// Which part of a time it was busy for which a processor was used for so many microseconds of it.
fn busy_ratio(used_us: u64, time: Duration) -> f64 {
    (used_us as f64 / (time.as_micros() as f64).max(1.0)).min(1.0)
}

/// Adds up what the cores hand over and renders it; can be shared between threads.
#[derive(Debug)]
pub struct Publisher {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    labels: Labels,
    rejections: Vec<Counter>,
    operations: Vec<Counter>,
    conflicts: Counter,
    replays: Counter,
    /// By tally; a time-out counts both as the cause of an end and as a slow client.
    tallies: Vec<Vec<Counter>>,
    gauges: Vec<GaugeHandle>,
    ledger_commit: Histogram,
    ledger_batch: Histogram,
    cores: Mutex<Cores>,
}

/// What must be added up over the cores, and the handles that are made when first needed.
#[derive(Debug)]
struct Cores {
    figures: Vec<CoreFigures>,
    /// By core.
    answered: Vec<Counter>,
    busy: Vec<GaugeHandle>,
    /// By core, the processor time that it had used when it was heard last, in microseconds, and when that was.
    cpu: Vec<(u64, Instant)>,
    states: Vec<[u64; Gauge::COUNT]>,
    requests: Vec<Option<Counter>>,
    latencies: Vec<Option<Histogram>>,
}

impl Publisher {
    /// A publisher with all metrics described and all counters at 0. `latency_buckets_ms` are upper bounds.
    pub fn new(labels: Labels, build: &BuildInfo, latency_buckets_ms: &[f64]) -> Result<Self, PublisherFault> {
        if usize::from(build.cores) > CORES_MAX {
            return Err(PublisherFault::Cores(build.cores));
        }
        let recorder = recorder(latency_buckets_ms)?;
        for metric in names::METRICS {
            let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let counter = |name, labels: &[(&'static str, &'static str)]| recorder.register_counter(&key(name, labels), &METADATA);
        let pairs = labels.routes.len() * labels.methods.len();
        // A core has a number and no name: its label is the one that is made here, at the start.
        let of_cores = |name| (0..build.cores).map(move |core| Key::from_parts(name, vec![Label::new("core", core.to_string())]));
        let publisher = Self {
            handle: recorder.handle(),
            labels,
            rejections: Reason::ALL.map(|reason| counter(names::REJECTED, &[("reason", reason.as_str())])).into(),
            operations: Op::ALL.map(|op| counter(names::OPERATIONS, &[("op", op.as_str())])).into(),
            conflicts: counter(names::CONFLICTS, &[]),
            replays: counter(names::REPLAYS, &[]),
            tallies: Tally::ALL
                .iter()
                .map(|tally| tally_keys(*tally).iter().map(|(name, labels)| counter(name, labels)).collect())
                .collect(),
            gauges: Gauge::ALL.iter().map(|gauge| recorder.register_gauge(&key(gauge_name(*gauge), &[]), &METADATA)).collect(),
            ledger_commit: recorder.register_histogram(&key(names::LEDGER_COMMIT, &[]), &METADATA),
            ledger_batch: recorder.register_histogram(&key(names::LEDGER_BATCH_ENTRIES, &[]), &METADATA),
            cores: Mutex::new(Cores {
                answered: of_cores(names::CORE_ANSWERED).map(|key| recorder.register_counter(&key, &METADATA)).collect(),
                busy: of_cores(names::CORE_BUSY).map(|key| recorder.register_gauge(&key, &METADATA)).collect(),
                cpu: (0..build.cores).map(|_| (0, Instant::now())).collect(),
                figures: (0..build.cores).map(|core| CoreFigures { core, ..CoreFigures::default() }).collect(),
                states: vec![[0; Gauge::COUNT]; usize::from(build.cores)],
                requests: vec![None; pairs * STATUS_SLOTS],
                latencies: vec![None; pairs],
            }),
            recorder,
        };
        publisher.register_the_rest(build);
        Ok(publisher)
    }

    fn register_the_rest(&self, build: &BuildInfo) {
        for name in [names::LEDGER_CONNECT_ERRORS, names::LOG_LINES_DROPPED] {
            self.counter(name, &[]).increment(0);
        }
        self.audit_losses(&DropCounts::default(), 0);
        for name in names::WITHOUT_LABELS {
            self.set(name, &[], 0.0);
        }
        self.scrubbed(UnixMs(0), Default::default());
        self.readiness(false, Default::default());
        SpanFate::ALL.into_iter().for_each(|fate| self.spans(fate, 0));
        self.registry(0.0, Default::default());
        for outcome in [Check::Holds, Check::Violated, Check::Failed] {
            self.counter(names::CONSERVATION_CHECKS, &[("outcome", check_outcome(outcome))]).increment(0);
        }
        for ok in [true, false] {
            self.snapshots(ok, 0);
            self.root_signings(ok, 0);
            self.counter(names::ACCOUNTING_FLUSHES, &[("outcome", outcome(ok))]).increment(0);
            for what in Reload::ALL {
                self.counter(names::RELOADS, &[("what", reload_name(what)), ("outcome", outcome(ok))]).increment(0);
            }
        }
        self.set(names::CORES, &[], f64::from(build.cores));
        self.set(names::IO_DRIVER, &[("driver", build.driver)], 1.0);
        self.set(names::BUILD_INFO, &[("version", build.version), ("revision", build.revision)], 1.0);
        self.set(names::START_TIME, &[], build.started.0 as f64 / MILLIS_PER_SECOND);
        let mut cores = self.cores();
        for (route, method) in self.labels.served {
            let pair = usize::from(route.0) * self.labels.methods.len() + usize::from(method.0);
            let _ = self.latency(&mut cores, pair);
            for (slot, _) in STATUSES.iter().enumerate().filter(|(_, status)| STATUSES_FROM_START.contains(status)) {
                let _ = self.request(&mut cores, pair, slot + 1);
            }
        }
    }

    /// Adds what a core counted since its last hand-over, and takes over its states.
    ///
    /// # Panics
    /// If the figures were made for other label tables, or the core does not exist: the caller's mistake.
    pub fn absorb(&self, core: CoreId, stats: &CoreStats) {
        assert_eq!(stats.shape(), (self.labels.routes.len(), self.labels.methods.len()), "the figures belong to other tables");
        let mut cores = self.cores();
        let index = usize::from(core.0);
        assert!(index < cores.states.len(), "core {index} does not exist");
        for (pair, slot, count) in stats.answers() {
            self.request(&mut cores, pair, slot).increment(count);
        }
        for (pair, latencies) in stats.latencies() {
            let histogram = self.latency(&mut cores, pair);
            add(histogram, latencies, MICROS_PER_SECOND);
        }
        for (counter, reason) in self.rejections.iter().zip(Reason::ALL) {
            counter.increment(stats.rejections(reason));
        }
        for (counter, op) in self.operations.iter().zip(Op::ALL) {
            counter.increment(stats.operations(op));
        }
        self.conflicts.increment(stats.conflicts());
        self.replays.increment(stats.replays());
        for (counters, tally) in self.tallies.iter().zip(Tally::ALL) {
            counters.iter().for_each(|counter| counter.increment(stats.count(*tally)));
        }
        for (position, (handle, gauge)) in self.gauges.iter().zip(Gauge::ALL).enumerate() {
            cores.states[index][position] = stats.state(*gauge);
            handle.set(cores.states.iter().map(|states| states[position]).sum::<u64>() as f64);
        }
        cores.answered[index].increment(stats.answers_total());
        let (cpu_us, heard) = std::mem::replace(&mut cores.cpu[index], (stats.cpu_us(), Instant::now()));
        let busy = busy_ratio(stats.cpu_us().saturating_sub(cpu_us), heard.elapsed());
        cores.busy[index].set(busy);
        let figures = &mut cores.figures[index];
        figures.answered += stats.answers_total();
        figures.busy_percent = (busy * 100.0).round() as u64;
        figures.forwarded += stats.count(Tally::Forward);
        figures.connections = stats.state(Gauge::Connections);
        figures.inflight = stats.state(Gauge::Inflight);
        figures.accounts = stats.state(Gauge::Accounts);
        figures.remembered_keys = stats.state(Gauge::RememberedKeys);
        figures.lane_pending = stats.state(Gauge::LanePending);
    }

    /// Adds the group commits of the ledger since the last call: how long each took, in microseconds, and how many entries it had.
    pub fn ledger_committed(&self, commit_us: &hdrhistogram::Histogram<u64>, batch_entries: &hdrhistogram::Histogram<u64>) {
        add(&self.ledger_commit, commit_us, MICROS_PER_SECOND);
        add(&self.ledger_batch, batch_entries, 1.0);
    }

    /// Shows how many attempts to get the ledger room for more entries have failed since the start.
    pub fn ledger_connect_errors(&self, total: u64) {
        self.counter(names::LEDGER_CONNECT_ERRORS, &[]).absolute(total);
    }

    /// Shows the position of the newest durable entry.
    pub fn ledger_height(&self, height: Seq) {
        self.set(names::LEDGER_HEIGHT, &[], height.0 as f64);
    }

    /// Shows the age of the oldest durable entry that the counters do not hold yet, in seconds.
    pub fn accounting_lag(&self, seconds: f64) {
        self.set(names::ACCOUNTING_LAG, &[], seconds);
    }

    /// Counts a flush of the counters.
    pub fn accounting_flush(&self, ok: bool) {
        self.counter(names::ACCOUNTING_FLUSHES, &[("outcome", outcome(ok))]).increment(1);
    }

    /// Shows how far the audit has come, and the newest snapshot.
    pub fn audited(&self, through: Seq, snapshot: Seq) {
        self.set(names::AUDITED_HEIGHT, &[], through.0 as f64);
        self.set(names::SNAPSHOT_HEIGHT, &[], snapshot.0 as f64);
    }

    /// Shows when the newest entry of the newest snapshot was accepted, and how long that snapshot took, in milliseconds.
    pub fn newest_snapshot(&self, newest: UnixMs, took_ms: u64) {
        self.set(names::SNAPSHOT_TIME, &[], newest.0 as f64 / MILLIS_PER_SECOND);
        self.set(names::SNAPSHOT_SECONDS, &[], took_ms as f64 / MILLIS_PER_SECOND);
    }

    /// Counts snapshots that were taken, or that could not be.
    pub fn snapshots(&self, ok: bool, count: u64) {
        self.counter(names::SNAPSHOTS, &[("outcome", outcome(ok))]).increment(count);
    }

    /// Shows when everything was read again last, and how many files were damaged then, in the order of [`SCRUBBED_KINDS`].
    pub fn scrubbed(&self, last_end: UnixMs, damaged: [u64; SCRUBBED_KINDS.len()]) {
        self.set(names::SCRUB_LAST_END, &[], last_end.0 as f64 / MILLIS_PER_SECOND);
        for (kind, files) in SCRUBBED_KINDS.into_iter().zip(damaged) {
            self.set(names::SCRUB_DAMAGED, &[("kind", kind)], files as f64);
        }
    }

    /// Counts roots that were signed and kept, or could not be.
    pub fn root_signings(&self, ok: bool, count: u64) {
        self.counter(names::ROOT_SIGNINGS, &[("outcome", outcome(ok))]).increment(count);
    }

    /// Shows the last entry that the newest signed root covers, and when it was signed.
    pub fn signed_root(&self, through: Seq, signed: UnixMs) {
        self.set(names::SIGNED_HEIGHT, &[], through.0 as f64);
        self.set(names::SIGNED_TIME, &[], signed.0 as f64 / MILLIS_PER_SECOND);
    }

    /// Counts a check of conservation that was really carried out or really tried.
    pub fn conservation_check(&self, check: Check) {
        self.counter(names::CONSERVATION_CHECKS, &[("outcome", check_outcome(check))]).increment(1);
    }

    /// Counts a reload.
    pub fn reload(&self, what: Reload, ok: bool) {
        self.counter(names::RELOADS, &[("what", reload_name(what)), ("outcome", outcome(ok))]).increment(1);
    }

    /// Shows how many entries the list of revocations in force has.
    pub fn revocations(&self, entries: usize) {
        self.set(names::REVOCATIONS, &[], entries as f64);
    }

    /// Shows the version of the policy in force.
    pub fn policy_version(&self, version: u64) {
        self.set(names::POLICY_VERSION, &[], version as f64);
    }

    /// Shows the version of the topology in force.
    pub fn registry_version(&self, version: u64) {
        self.set(names::REGISTRY_VERSION, &[], version as f64);
    }

    /// Shows how old the last good answer about the topology is, and how often each of [`REGISTRY_OUTCOMES`] came since the start.
    pub fn registry(&self, age_seconds: f64, outcomes: [u64; REGISTRY_OUTCOMES.len()]) {
        self.set(names::REGISTRY_AGE, &[], age_seconds);
        for (outcome, count) in REGISTRY_OUTCOMES.into_iter().zip(outcomes) {
            self.counter(names::REGISTRY_QUESTIONS, &[("outcome", outcome)]).absolute(count);
        }
    }

    /// Shows the keyring in force: how often it was changed, how many keys it has, whether its file is sealed, and whether it is hybrid.
    pub fn keyring(&self, version: u64, keys: usize, sealed: bool, hybrid: bool) {
        self.set(names::KEYRING_VERSION, &[], version as f64);
        self.set(names::KEYRING_KEYS, &[], keys as f64);
        self.set(names::KEYRING_SEALED, &[], f64::from(u8::from(sealed)));
        self.set(names::KEYRING_HYBRID, &[], f64::from(u8::from(hybrid)));
    }

    /// Counts spans by what became of them.
    pub fn spans(&self, fate: SpanFate, count: u64) {
        self.counter(names::SPANS, &[("outcome", fate.as_str())]).increment(count);
    }

    /// Shows how many faults are injected on purpose now.
    pub fn faults_active(&self, count: usize) {
        self.set(names::FAULTS_ACTIVE, &[], count as f64);
    }

    /// Shows whether `/readyz` answers 200, and which of [`NOT_READY_REASONS`] are in the way.
    pub fn readiness(&self, ready: bool, in_the_way: [bool; NOT_READY_REASONS.len()]) {
        self.set(names::READY, &[], f64::from(u8::from(ready)));
        for (reason, holds) in NOT_READY_REASONS.into_iter().zip(in_the_way) {
            self.set(names::NOT_READY, &[("reason", reason)], f64::from(u8::from(holds)));
        }
    }

    /// Shows how far the audit stream is: the last entry it has, for how long it has been behind, its last line, and the last one that was
    /// sent on.
    pub fn audit_stream(&self, through: Seq, lag_seconds: f64, lines: u64, sent: u64) {
        self.set(names::AUDIT_HEIGHT, &[], through.0 as f64);
        self.set(names::AUDIT_LAG, &[], lag_seconds);
        self.set(names::AUDIT_LINES, &[], lines as f64);
        self.set(names::AUDIT_SENT, &[], sent as f64);
    }

    /// Shows what the audit stream has dropped since the start, and how many of its attempts have failed.
    pub fn audit_losses(&self, dropped: &DropCounts, failures: u64) {
        for (reason, count) in DROP_REASONS.into_iter().zip(dropped) {
            self.counter(names::AUDIT_DROPPED, &[("reason", reason)]).absolute(*count);
        }
        self.counter(names::AUDIT_FAILURES, &[]).absolute(failures);
    }

    /// Shows how many log lines were dropped since the start.
    pub fn log_lines_dropped(&self, total: u64) {
        self.counter(names::LOG_LINES_DROPPED, &[]).absolute(total);
    }

    /// The figures of each core since the start, in the order of the cores.
    pub fn figures(&self) -> Vec<CoreFigures> {
        self.cores().figures.clone()
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples into their buckets. To be called about once a second: until then each sample takes memory.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn cores(&self) -> MutexGuard<'_, Cores> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn set(&self, name: &'static str, labels: &[(&'static str, &'static str)], value: f64) {
        self.recorder.register_gauge(&key(name, labels), &METADATA).set(value);
    }

    fn request<'a>(&self, cores: &'a mut Cores, pair: usize, slot: usize) -> &'a Counter {
        cores.requests[pair * STATUS_SLOTS + slot].get_or_insert_with(|| {
            let mut labels = self.pair_labels(pair);
            let status = slot.checked_sub(1).map_or_else(|| "other".to_owned(), |index| STATUSES[index].to_string());
            labels.push(Label::new("status", status));
            self.recorder.register_counter(&Key::from_parts(names::REQUESTS, labels), &METADATA)
        })
    }

    fn latency<'a>(&self, cores: &'a mut Cores, pair: usize) -> &'a Histogram {
        cores.latencies[pair].get_or_insert_with(|| {
            self.recorder.register_histogram(&Key::from_parts(names::REQUEST_LATENCY, self.pair_labels(pair)), &METADATA)
        })
    }

    fn pair_labels(&self, pair: usize) -> Vec<Label> {
        let (route, method) = (pair / self.labels.methods.len(), pair % self.labels.methods.len());
        vec![
            Label::from_static_parts("service", self.labels.service),
            Label::from_static_parts("route", self.labels.routes[route]),
            Label::from_static_parts("method", self.labels.methods[method]),
        ]
    }
}

/// Adds recorded values to a published histogram, each divided by `unit`.
fn add<T: hdrhistogram::Counter>(published: &Histogram, recorded: &hdrhistogram::Histogram<T>, unit: f64) {
    for step in recorded.iter_recorded() {
        let value = recorded.median_equivalent(step.value_iterated_to());
        published.record_many(value as f64 / unit, step.count_at_value().as_u64() as usize);
    }
}

fn recorder(latency_buckets_ms: &[f64]) -> Result<PrometheusRecorder, PublisherFault> {
    let rising = latency_buckets_ms.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || latency_buckets_ms.first().map_or(true, |first| *first <= 0.0) {
        return Err(PublisherFault::Buckets);
    }
    let latency: Vec<f64> = latency_buckets_ms.iter().map(|bound| bound / MILLIS_PER_SECOND).collect();
    let tables = [
        (names::REQUEST_LATENCY, latency.as_slice()),
        (names::LEDGER_COMMIT, names::LEDGER_COMMIT_BUCKETS),
        (names::LEDGER_BATCH_ENTRIES, names::LEDGER_BATCH_BUCKETS),
    ];
    let builder = tables.into_iter().try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets).map_err(|_| PublisherFault::Buckets)
    })?;
    Ok(builder.build_recorder())
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect::<Vec<_>>())
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
