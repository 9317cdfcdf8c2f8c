//! What figures are called on `/metrics`: the caller's tables, and the labels of every counted event.
//!
//! All label values are fixed here or by the caller's static tables, so that no request can make a new one.
use super::names;
use super::stats::{Gauge, MethodIndex, RouteIndex, Tally};
use crate::domain::UnixMs;

/// The label tables that give the indexes of [`CoreStats`](super::CoreStats) their meaning.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    /// Value of the label `service`.
    pub service: &'static str,
    /// Values of the label `route`, by [`RouteIndex`]; one of them should stand for every unknown route.
    pub routes: &'static [&'static str],
    /// Values of the label `method`, by [`MethodIndex`]; one of them should stand for every unknown method.
    pub methods: &'static [&'static str],
    /// The pairs that exist, to be shown from the start with the value 0.
    pub served: &'static [(RouteIndex, MethodIndex)],
}

/// What never changes while the process runs.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Version of the package.
    pub version: &'static str,
    /// Revision of the sources, or `unknown`.
    pub revision: &'static str,
    /// The driver that the cores run on: `io_uring` or `epoll`.
    pub driver: &'static str,
    /// How many core workers there are.
    pub cores: u16,
    /// When the process started.
    pub started: UnixMs,
}

/// The outcome of one check that no value appeared or vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Issued minus burned equals the sum of the balances, for every asset.
    Holds,
    /// It does not.
    Violated,
    /// The check could not be carried out.
    Failed,
}

/// What can be read again while the service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The policy file.
    Policy,
    /// The topology.
    Registry,
    /// The revoked capabilities.
    Revocations,
    /// The keyring.
    Keyring,
}

impl Reload {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Policy, Self::Registry, Self::Revocations, Self::Keyring];
}

/// A counter's name and its labels.
pub(super) type Named = (&'static str, &'static [(&'static str, &'static str)]);

pub(super) fn tally_keys(tally: Tally) -> &'static [Named] {
    match tally {
        Tally::ConnectionAccepted => &[(names::CONNECTIONS_ACCEPTED, &[])],
        Tally::ConnectionRefused => &[(names::CONNECTIONS_REFUSED, &[])],
        Tally::ConnectionClosed => &[(names::CONNECTIONS_CLOSED, &[("cause", "done")])],
        Tally::ReadTimeout => {
            &[(names::CONNECTIONS_CLOSED, &[("cause", "read_timeout")]), (names::SLOW_CLIENTS, &[("cause", "read")])]
        }
        Tally::WriteTimeout => {
            &[(names::CONNECTIONS_CLOSED, &[("cause", "write_timeout")]), (names::SLOW_CLIENTS, &[("cause", "write")])]
        }
        Tally::IdleTimeout => &[(names::CONNECTIONS_CLOSED, &[("cause", "idle")])],
        Tally::ConnectionError => &[(names::CONNECTIONS_CLOSED, &[("cause", "error")])],
        Tally::AcceptFault => &[(names::ACCEPT_ERRORS, &[])],
        Tally::Forward => &[(names::FORWARDS, &[])],
        Tally::ForwardBatch => &[(names::FORWARD_BATCHES, &[])],
        Tally::InboxStall => &[(names::INBOX_STALLS, &[])],
        Tally::TokenCacheHit => &[(names::TOKEN_CACHE, &[("outcome", "hit")])],
        Tally::TokenCacheMiss => &[(names::TOKEN_CACHE, &[("outcome", "miss")])],
        Tally::AccountQuota => &[(names::QUOTA_EXHAUSTIONS, &[("scope", "account")])],
        Tally::SubjectQuota => &[(names::QUOTA_EXHAUSTIONS, &[("scope", "subject")])],
        Tally::GlobalQuota => &[(names::QUOTA_EXHAUSTIONS, &[("scope", "global")])],
        Tally::LedgerQuestion => &[(names::LEDGER_QUESTIONS, &[])],
        Tally::KeyEvicted => &[(names::KEYS_EVICTED, &[])],
    }
}

pub(super) fn gauge_name(gauge: Gauge) -> &'static str {
    match gauge {
        Gauge::Connections => names::CONNECTIONS,
        Gauge::Inflight => names::INFLIGHT,
        Gauge::Accounts => names::ACCOUNTS,
        Gauge::Budgets => names::BUDGETS,
        Gauge::RememberedKeys => names::REMEMBERED_KEYS,
        Gauge::LanePending => names::LANE_PENDING,
        Gauge::ForwardPending => names::FORWARD_PENDING,
        Gauge::CachedTokens => names::CACHED_TOKENS,
    }
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanFate {
    /// The collector has taken it.
    Sent,
    /// It has not.
    Failed,
    /// There was no room for it in the queue.
    Dropped,
}

impl SpanFate {
    /// All of them.
    pub const ALL: [SpanFate; 3] = [SpanFate::Sent, SpanFate::Failed, SpanFate::Dropped];

    /// The label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SpanFate::Sent => "sent",
            SpanFate::Failed => "failed",
            SpanFate::Dropped => "dropped",
        }
    }
}

/// Why the service may not be ready: a dependency that is missing, more work than is done, a drain, or that it waits for the ledger of another
/// wallet.
pub const NOT_READY_REASONS: [&str; 7] = ["ledger", "accounting", "policy", "registry", "pressure", "drain", "standby"];

/// What becomes of questions for the topology, in the order in which it is counted.
pub const REGISTRY_OUTCOMES: [&str; 4] = ["changed", "unchanged", "unreachable", "refused"];

/// What files are read again, in the order in which they are counted.
pub const SCRUBBED_KINDS: [&str; 3] = ["segment", "index", "snapshot"];

pub(super) fn check_outcome(check: Check) -> &'static str {
    match check {
        Check::Holds => "ok",
        Check::Violated => "violated",
        Check::Failed => "failed",
    }
}

pub(super) fn reload_name(what: Reload) -> &'static str {
    match what {
        Reload::Policy => "policy",
        Reload::Registry => "registry",
        Reload::Revocations => "revocations",
        Reload::Keyring => "keyring",
    }
}

pub(super) fn outcome(ok: bool) -> &'static str {
    if ok {
        "ok"
    } else {
        "failed"
    }
}
