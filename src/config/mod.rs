//! The configuration: from flags, environment, file and defaults to one typed value that cannot be half right.
//!
//! [`Config::load`] reports every problem at once, with key, origin and cure. [`Config::supported`] is asked separately
//! whether this version can run what was configured, so that a file for a larger installation still loads and can be
//! checked. Secrets are not configured but kept in files; only their paths are known here.
pub mod check;
mod cores;
mod describe;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod place;
mod raw;
mod read;
mod sources;
mod supported;
mod value;

pub(crate) use raw::Raw;
pub(crate) use value::{bytes, integer};

pub use cores::{cpus_usable, Cores, Driver};
pub use describe::Described;
pub use error::{ConfigError, Origin, Problem};
pub use keys::CONFIG_ENV;
pub use place::{socket_path, AccountingDep, AuditSink, Kms, LedgerDep, RegistryDep};
pub(crate) use read::{SCRUB_BYTES_PER_SECOND, SCRUB_EVERY, SNAPSHOT_ENTRIES, SNAPSHOT_EVERY};
pub use sources::{files_default, first_there, Flags, Sources};
pub use supported::{Feature, FEATURES};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The effective configuration of one server.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[service]`
    pub service: Service,
    /// `[bind]`
    pub bind: Bind,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[limits]`
    pub limits: Limits,
    /// `[runtime]`
    pub runtime: Runtime,
    /// `[deps]`
    pub deps: Deps,
    /// `[registry]`
    pub registry: Registry,
    /// `[security]`
    pub security: Security,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[audit]`
    pub audit: Audit,
    /// `[idempotency]`
    pub idempotency: Idempotency,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[traces]`
    pub traces: Traces,
    /// `[faults]`
    pub faults: Faults,
    /// `[feature_flags]`
    pub feature_flags: FeatureFlags,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    origins: BTreeMap<&'static str, Origin>,
}

/// The only value of `service.name`: metrics and alerts know the service by it.
pub const SERVICE_NAME: &str = "svc-wallet";

/// `[service]`: who this is.
#[derive(Clone, Debug)]
pub struct Service {
    /// Label `service` of metrics and logs; always [`SERVICE_NAME`].
    pub name: String,
    /// Role in the stack; always `wallet`.
    pub role: String,
}

/// `[bind]`: where it listens.
#[derive(Clone, Debug)]
pub struct Bind {
    /// The API.
    pub http: SocketAddr,
    /// Health, readiness, metrics and version.
    pub metrics: SocketAddr,
    /// The unix socket of `ronctl`, if there is to be one.
    pub admin: Option<PathBuf>,
}

/// `[timeouts]`: how long a peer may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a request to arrive once it has begun.
    pub read: Duration,
    /// For a reply to leave, and for in-flight work to finish in a drain.
    pub write: Duration,
    /// Between two requests of a connection.
    pub idle: Duration,
    /// Between not ready and closed listeners, in a drain.
    pub drain_notice: Duration,
}

/// `[limits]`: how much is taken on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests in flight over all cores.
    pub inflight: usize,
    /// Those of single endpoints, by their names.
    pub inflight_per_endpoint: Vec<(&'static str, usize)>,
    /// Largest body in bytes, before and after decompression.
    pub body_bytes_max: usize,
    /// How many times larger a body may become by decompression.
    pub decompress_ratio_max: u32,
    /// Open connections of the server.
    pub connections: usize,
    /// Requests in flight of one connection.
    pub pipeline_depth: usize,
}

impl Limits {
    /// The ceiling of an endpoint of this name, if it has one of its own.
    pub fn inflight_of(&self, endpoint: &str) -> Option<usize> {
        self.inflight_per_endpoint.iter().find(|(name, _)| *name == endpoint).map(|(_, ceiling)| *ceiling)
    }
}

/// `[runtime]`: threads and their event loops.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The CPUs asked for; [`Cores::resolve`] turns them into CPU numbers.
    pub cores: Cores,
    /// The event loop asked for.
    pub driver: Driver,
}

/// `[deps]`: the parts that may live elsewhere.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The ledger.
    pub ledger: LedgerDep,
    /// The counters' sink.
    pub accounting: AccountingDep,
    /// The topology.
    pub registry: RegistryDep,
}

/// `[registry]`: how the topology is asked for.
#[derive(Clone, Debug)]
pub struct Registry {
    /// How long a registry behind HTTP is asked to wait for something new, and how often one is asked that does not wait.
    pub poll_every: Duration,
    /// How long a connection may take, and a question with its answer.
    pub timeout: Duration,
    /// For how long the topology is good after the last good answer.
    pub max_age: Duration,
}

/// `[security]`: authority and its files.
#[derive(Clone, Debug)]
pub struct Security {
    /// Whether nothing may be left on disk.
    pub amnesia: bool,
    /// Whether every request has to carry a capability; always true, or the configuration is refused.
    pub require_caps: bool,
    /// The policy.
    pub policy_file: PathBuf,
    /// Root keys of the capabilities; only the path is known here.
    pub keyring: PathBuf,
    /// Where the key is that opens it; only the place is known here.
    pub kms: Kms,
    /// The `aud` that a capability has to name.
    pub audience: String,
    /// How far the clocks of issuers may be off.
    pub clock_leeway: Duration,
    /// What is revoked, if the file is there.
    pub revocations: PathBuf,
}

/// `[ledger]`: the files of an embedded ledger, and what is signed of any.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Size of a segment, in bytes.
    pub segment_bytes: u64,
    /// Time between two snapshots.
    pub snapshot_every: Duration,
    /// Entries after which a snapshot is due before that.
    pub snapshot_entries: u64,
    /// Time between the ends of two passes of scrubbing.
    pub scrub_every: Duration,
    /// What scrubbing reads at most, in bytes per second.
    pub scrub_bytes_per_second: u64,
    /// How long all files of a ledger in memory may be together, in bytes.
    pub memory_bytes_max: u64,
    /// A commit that takes longer puts the server under pressure.
    pub commit_max: Duration,
    /// How long a start waits for a daemon's ledger that another wallet has.
    pub wait_in_use: Duration,
    /// Time between two signed roots.
    pub sign_roots_every: Duration,
}

/// `[audit]`: the audit stream.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Where it goes, as written; [`Config::audit_sink`] is what counts.
    pub sink: AuditSink,
    /// Directory of its files, if one was named; [`Config::audit_directory`] is what counts.
    pub path: Option<PathBuf>,
    /// Size at which a file is full, in bytes.
    pub rotate_bytes: u64,
    /// Files that are kept; all if absent.
    pub keep: Option<u32>,
    /// Refusals that are written in one second; what is more is counted.
    pub refusals_per_second: u64,
}

/// `[idempotency]`: what is remembered in memory.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// How long a key is remembered at the least.
    pub ttl: Duration,
    /// Keys remembered per core.
    pub keys_max: usize,
}

/// `[metrics]`: the shape of what is exported.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Upper bounds of the latency histograms in milliseconds, positive and ascending.
    pub latency_buckets_ms: Vec<f64>,
}

/// `[traces]`: what is told of requests that belong to a recorded trace.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The URL of the OpenTelemetry collector that gets their spans, if one does.
    pub otlp: Option<String>,
}

/// `[faults]`: what may go wrong on purpose.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Whether faults may be injected on the admin socket.
    pub allowed: bool,
}

/// `[feature_flags]`: what a build may leave out.
#[derive(Clone, Debug)]
pub struct FeatureFlags {
    /// Tor transport at the edge.
    pub tor: bool,
    /// The legacy payment integration.
    pub legacy_pay: bool,
}

impl Config {
    /// Merges, reads and checks everything.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        read::config(sources::merge(sources))
    }

    /// Where the audit stream goes: what is written, but nowhere under amnesia unless that was asked for, which is then refused.
    pub fn audit_sink(&self) -> &AuditSink {
        match self.security.amnesia && *self.origin("audit.sink") == Origin::Default {
            true => &AuditSink::Off,
            false => &self.audit.sink,
        }
    }

    /// The directory of the audit stream: what is written, or `audit` beside an embedded ledger, or else beside embedded counters, or else
    /// beside the keyring.
    pub fn audit_directory(&self) -> PathBuf {
        let beside = match (&self.deps.ledger, &self.deps.accounting) {
            (LedgerDep::Embedded(directory), _) | (LedgerDep::Unix(_), AccountingDep::Embedded(directory)) => directory,
            (LedgerDep::Unix(_), AccountingDep::Unix(_)) => &self.security.keyring,
        };
        self.audit.path.clone().unwrap_or_else(|| beside.with_file_name("audit"))
    }

    /// The directory of the audit stream, if there is to be a stream.
    pub fn audit_stream(&self) -> Option<PathBuf> {
        (*self.audit_sink() != AuditSink::Off).then(|| self.audit_directory())
    }

    /// The file of signed roots, wherever the ledger is: beside embedded counters, whose directory no other server has, or else beside the
    /// keyring, with `.roots` behind the name; `None` under amnesia.
    pub fn signed_roots(&self) -> Option<PathBuf> {
        let beside = match &self.deps.accounting {
            AccountingDep::Embedded(directory) => directory,
            AccountingDep::Unix(_) => &self.security.keyring,
        };
        let mut name = beside.file_name().filter(|_| !self.security.amnesia)?.to_owned();
        name.push(".roots");
        Some(beside.with_file_name(name))
    }

    /// Where the value of a key came from.
    ///
    /// # Panics
    /// If there is no such key: the caller's mistake.
    pub fn origin(&self, key: &str) -> &Origin {
        assert!(keys::find(key).is_some(), "there is no key {key}");
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}
