//! The figures of one frame, as programs get them and as the frame draws them.
use super::sample::{Between, EVERY};
use crate::domain::{Op, Read, Reason};
use serde::Serialize;
use serde_json::Value;

/// What a name comes to each second, and since the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// The operation, core or reason.
    pub name: String,
    /// Each second; nothing before there are two samples.
    pub per_second: Option<f64>,
    /// Since the start.
    pub total: f64,
}

/// A core.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Core {
    /// Its replies.
    #[serde(flatten)]
    pub replies: Counted,
    /// Part of the last second for which it had a processor.
    pub busy: Option<f64>,
}

/// Quantiles, in seconds; nothing if nothing was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: Option<f64>,
    /// Of 95%.
    pub p95: Option<f64>,
    /// Of 99%.
    pub p99: Option<f64>,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    /// The newest durable entry.
    pub height: Option<f64>,
    /// The newest entry that was read back and replayed.
    pub audited: Option<f64>,
    /// The newest entry that a snapshot has.
    pub snapshot: Option<f64>,
    /// Group commits each second.
    pub commits_per_second: Option<f64>,
    /// Entries of a group commit, on average.
    pub entries_per_commit: Option<f64>,
    /// How long one takes.
    pub commit: Quantiles,
    /// Entries that are not acknowledged yet.
    pub pending: Option<f64>,
    /// Failed attempts, and lost connections.
    pub connect_errors: Option<f64>,
}

/// Versions in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Versions {
    /// Of the policy.
    pub policy: Option<f64>,
    /// Of the topology.
    pub registry: Option<f64>,
    /// Of the keyring.
    pub keyring: Option<f64>,
}

/// All of one frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Where the server was asked.
    pub asked: String,
    /// Its version and revision.
    pub version: Value,
    /// The body of its page of readiness.
    pub readiness: Value,
    /// How long it has been up, in seconds.
    pub up_seconds: Option<f64>,
    /// Replies each second.
    pub requests_per_second: Option<f64>,
    /// Those of them with a status of 500 and more.
    pub errors_per_second: Option<f64>,
    /// Requests in flight.
    pub inflight: Option<f64>,
    /// Open connections.
    pub connections: Option<f64>,
    /// Each operation, and the reads together.
    pub operations: Vec<Counted>,
    /// Of all requests.
    pub latency: Quantiles,
    /// Replies of each core.
    pub cores: Vec<Core>,
    /// The ledger.
    pub ledger: Ledger,
    /// Refused requests by reason.
    pub refusals: Vec<Counted>,
    /// Versions in force.
    pub versions: Versions,
    /// Checks in which what is served was not what the ledger says.
    pub violations: f64,
    /// Faults that are injected on purpose; nothing where the server cannot have any.
    pub faults_active: Option<f64>,
}

impl Figures {
    /// What follows from two samples and the pages of that moment. `now` is a time in seconds since the Unix epoch.
    pub fn of(asked: &str, between: &Between<'_>, readiness: &Value, version: &Value, now: f64) -> Self {
        let sample = between.now();
        let sum = |name: &str| sample.sum(name, EVERY);
        let counted = |name: &str, metric: &str, label: &str| {
            let fits: (&str, &dyn Fn(&str) -> bool) = (label, &|value| value == name);
            let total = sample.sum(metric, fits).unwrap_or(0.0);
            Counted { name: name.to_owned(), per_second: between.rate(metric, fits), total }
        };
        let quantiles = |name: &str| Quantiles {
            p50: between.quantile(name, 0.5),
            p95: between.quantile(name, 0.95),
            p99: between.quantile(name, 0.99),
        };
        let reads: (&str, &dyn Fn(&str) -> bool) = ("route", &|route| Read::ALL.into_iter().any(|read| read.as_str() == route));
        let total = sample.sum("http_requests_total", reads).unwrap_or(0.0);
        let reads = Counted { name: "reads".to_owned(), per_second: between.rate("http_requests_total", reads), total };
        let operations = Op::ALL.into_iter().map(|op| counted(op.as_str(), "wallet_requests_total", "op")).chain([reads]);
        let commits_per_second = between.rate("ledger_commit_seconds_count", EVERY);
        let entries = between.rate("ledger_batch_entries_sum", EVERY);
        Self {
            asked: asked.to_owned(),
            version: version.clone(),
            readiness: readiness.clone(),
            up_seconds: sum("process_start_time_seconds").map(|started| (now - started).max(0.0)),
            requests_per_second: between.rate("http_requests_total", EVERY),
            errors_per_second: between.rate("http_requests_total", ("status", &|status| status.starts_with('5'))),
            inflight: sum("inflight"),
            connections: sum("wallet_connections"),
            operations: operations.collect(),
            latency: quantiles("request_latency_seconds"),
            cores: sample
                .values_of("wallet_core_answered_total", "core")
                .iter()
                .map(|core| Core {
                    replies: counted(core, "wallet_core_answered_total", "core"),
                    busy: sample.sum("wallet_core_busy_ratio", ("core", &|of| of == core)),
                })
                .collect(),
            ledger: Ledger {
                height: sum("wallet_ledger_height"),
                audited: sum("wallet_audited_height"),
                snapshot: sum("wallet_snapshot_height"),
                commits_per_second,
                entries_per_commit: commits_per_second
                    .filter(|commits| *commits > 0.0)
                    .and_then(|commits| Some(entries? / commits)),
                commit: quantiles("ledger_commit_seconds"),
                pending: sum("wallet_lane_pending"),
                connect_errors: sum("ledger_connect_errors_total"),
            },
            refusals: Reason::ALL.map(|reason| counted(reason.as_str(), "rejected_total", "reason")).into(),
            versions: Versions {
                policy: sum("policy_version"),
                registry: sum("registry_version"),
                keyring: sum("keyring_version"),
            },
            violations: sample
                .sum("wallet_conservation_checks_total", ("outcome", &|outcome| outcome == "violated"))
                .unwrap_or(0.0),
            faults_active: sum("wallet_faults_active"),
        }
    }

    /// Whether the server says that it is ready.
    pub fn ready(&self) -> bool {
        self.readiness["ready"] == Value::Bool(true)
    }
}
