//! Every metric of the service in one table: its name, its kind and what it says.
//!
//! The names without the prefix `wallet_` and those of the wire contract are what alerts and people already use; they never
//! change. Labels have few values, all from fixed tables: never an account, a key or a transaction.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at start.
    Counter,
    /// A state.
    Gauge,
    /// A distribution with fixed buckets.
    Histogram,
}

/// One metric of the service.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name on `/metrics`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it says, for a person who reads `/metrics`.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// All metrics of the service.
        pub const METRICS: &[Metric] = &[$(Metric { name: $name, kind: Kind::$kind, help: $help },)*];
    };
}

metrics! {
    REQUEST_LATENCY Histogram "request_latency_seconds" "Time from when a core took a whole request in until its reply stood in the output.";
    REQUESTS Counter "http_requests_total" "Replies by route, method and status.";
    INFLIGHT Gauge "inflight" "Requests admitted and not answered yet, over all cores.";
    REJECTED Counter "rejected_total" "Refused requests by reason.";
    OPERATIONS Counter "wallet_requests_total" "Requests for a change by operation, whatever became of them.";
    CONFLICTS Counter "wallet_conflicts_total" "Refusals with 409 over a nonce or an idempotency key.";
    REPLAYS Counter "wallet_idem_replays_total" "Repeated requests answered with the first receipt.";
    QUOTA_EXHAUSTIONS Counter "quota_exhaustions_total" "Requests refused because a quota was used up.";
    LEDGER_CONNECT_ERRORS Counter "ledger_connect_errors_total" "Failed attempts to get the ledger room for more entries, and lost or failed connections to its daemon.";
    LEDGER_COMMIT Histogram "ledger_commit_seconds" "Time of one group commit: write and sync.";
    LEDGER_BATCH_ENTRIES Histogram "ledger_batch_entries" "Entries made durable by one group commit.";
    ACCOUNTING_LAG Gauge "accounting_flush_lag_seconds" "Age of the oldest durable entry that the counters do not hold yet.";
    CONSERVATION_CHECKS Counter "wallet_conservation_checks_total" "Checks that what is served is what the ledger says, by outcome.";
    POLICY_VERSION Gauge "policy_version" "Version of the policy in force.";
    REGISTRY_VERSION Gauge "registry_version" "Version of the topology in force.";
    REGISTRY_AGE Gauge "wallet_registry_age_seconds" "Time since the last good answer about the topology; before there was one, since the first question.";
    REGISTRY_QUESTIONS Counter "wallet_registry_questions_total" "Questions for the topology, by outcome.";
    KEYRING_VERSION Gauge "keyring_version" "Serial number of the keyring in force: how often it was changed.";
    KEYRING_KEYS Gauge "wallet_keyring_keys" "Keys on the keyring in force.";
    KEYRING_SEALED Gauge "wallet_keyring_sealed" "1 if the file of the keyring is sealed, else 0.";
    KEYRING_HYBRID Gauge "wallet_keyring_hybrid" "1 if the keyring is sealed and signs with post-quantum algorithms beside the classical ones, else 0.";
    FAULTS_ACTIVE Gauge "wallet_faults_active" "Faults that are injected on purpose now.";
    READY Gauge "wallet_ready" "1 while /readyz answers 200, else 0.";
    NOT_READY Gauge "wallet_not_ready" "1 for each reason for which /readyz does not answer 200 now, else 0.";
    CONNECTIONS Gauge "wallet_connections" "Open client connections.";
    CONNECTIONS_ACCEPTED Counter "wallet_connections_accepted_total" "Accepted client connections.";
    CONNECTIONS_REFUSED Counter "wallet_connections_refused_total" "Client connections refused at the cap.";
    CONNECTIONS_CLOSED Counter "wallet_connections_closed_total" "Ended client connections by cause.";
    SLOW_CLIENTS Counter "wallet_slow_clients_total" "Connections cut because the client was too slow, by what it was slow at.";
    ACCEPT_ERRORS Counter "wallet_accept_errors_total" "Failed accepts, usually for want of file descriptors.";
    KEYS_EVICTED Counter "wallet_idempotency_keys_evicted_total" "Idempotency keys forgotten before their time for want of room.";
    FORWARDS Counter "wallet_forwards_total" "Commands sent to the core that owns their account.";
    FORWARD_BATCHES Counter "wallet_forward_batches_total" "Batches of messages between cores.";
    FORWARD_PENDING Gauge "wallet_forward_pending" "Messages that wait for another core's inbox.";
    INBOX_STALLS Counter "wallet_inbox_stalls_total" "Messages that found another core's inbox full.";
    TOKEN_CACHE Counter "wallet_token_cache_total" "Look-ups of verified tokens by outcome.";
    CACHED_TOKENS Gauge "wallet_cached_tokens" "Verified tokens that are cached.";
    LEDGER_QUESTIONS Counter "wallet_ledger_questions_total" "Requests answered from the ledger and not from memory.";
    ACCOUNTS Gauge "wallet_accounts" "Accounts in memory.";
    BUDGETS Gauge "wallet_budgets" "Token ids under whose budgets something was debited.";
    REMEMBERED_KEYS Gauge "wallet_remembered_keys" "Idempotency keys in memory.";
    LANE_PENDING Gauge "wallet_lane_pending" "Entries handed to the ledger and not acknowledged yet.";
    LEDGER_HEIGHT Gauge "wallet_ledger_height" "Position of the newest durable entry.";
    AUDITED_HEIGHT Gauge "wallet_audited_height" "Position of the newest entry that was read back and replayed.";
    SNAPSHOT_HEIGHT Gauge "wallet_snapshot_height" "Position of the newest entry that a snapshot has.";
    SNAPSHOTS Counter "ledger_snapshots_total" "Snapshots of the ledger that were taken or could not be, by outcome.";
    SNAPSHOT_SECONDS Gauge "ledger_snapshot_seconds" "How long the last snapshot took; 0 if none was taken since the start.";
    SNAPSHOT_TIME Gauge "ledger_snapshot_time_seconds" "When the newest entry that a snapshot has was accepted, in seconds since the Unix epoch; 0 without a snapshot.";
    SCRUB_LAST_END Gauge "wallet_scrub_last_end_time_seconds" "End of the last pass that read everything durable again, in seconds since the Unix epoch.";
    SCRUB_DAMAGED Gauge "wallet_scrub_damaged_files" "Files of the ledger that were damaged when they were read again last, by kind.";
    SIGNED_HEIGHT Gauge "wallet_signed_root_height" "The last entry that the newest signed root of the history covers; 0 without one.";
    SIGNED_TIME Gauge "wallet_signed_root_time_seconds" "When the newest signed root was signed, in seconds since the Unix epoch; 0 without one.";
    ROOT_SIGNINGS Counter "wallet_root_signings_total" "Roots of the history that were signed and kept, or could not be, by outcome.";
    REVOCATIONS Gauge "wallet_revocations" "Entries of the list of revoked capabilities that is in force.";
    RELOADS Counter "wallet_reloads_total" "Reloads of policy, registry, revocations and keyring by outcome.";
    ACCOUNTING_FLUSHES Counter "wallet_accounting_flushes_total" "Flushes of the counters by outcome.";
    AUDIT_HEIGHT Gauge "wallet_audit_stream_height" "Position of the newest entry that the audit stream has.";
    AUDIT_LAG Gauge "wallet_audit_stream_lag_seconds" "For how long the audit stream has been behind the ledger; 0 while it is not.";
    AUDIT_LINES Gauge "wallet_audit_stream_lines" "The last line that was written of the audit stream.";
    AUDIT_SENT Gauge "wallet_audit_stream_sent_lines" "The last line of the audit stream that its peer was sent; 0 without a peer.";
    AUDIT_DROPPED Counter "wallet_audit_stream_dropped_total" "What the audit stream has counted and not written, by reason.";
    AUDIT_FAILURES Counter "wallet_audit_stream_failures_total" "Attempts to bring the audit stream on that failed.";
    SPANS Counter "wallet_spans_total" "Spans of requests that belong to a recorded trace, by what became of them on the way to the collector.";
    LOG_LINES_DROPPED Counter "wallet_log_lines_dropped_total" "Log lines dropped because standard error was too slow.";
    CORE_ANSWERED Counter "wallet_core_answered_total" "Replies of each core.";
    CORE_BUSY Gauge "wallet_core_busy_ratio" "Part of the last second for which the thread of each core has had a processor.";
    CORES Gauge "wallet_cores" "Core workers of this server.";
    IO_DRIVER Gauge "wallet_io_driver" "1 for the driver that the cores run on.";
    BUILD_INFO Gauge "wallet_build_info" "1; the labels name version and revision.";
    START_TIME Gauge "process_start_time_seconds" "Start of the process, in seconds since the Unix epoch.";
}

/// Gauges of which there is one each, and that are there from the start.
pub const WITHOUT_LABELS: [&str; 23] = [
    ACCOUNTING_LAG,
    POLICY_VERSION,
    REGISTRY_VERSION,
    REGISTRY_AGE,
    KEYRING_VERSION,
    KEYRING_KEYS,
    KEYRING_SEALED,
    KEYRING_HYBRID,
    FAULTS_ACTIVE,
    READY,
    LEDGER_HEIGHT,
    AUDITED_HEIGHT,
    SNAPSHOT_HEIGHT,
    SNAPSHOT_SECONDS,
    SNAPSHOT_TIME,
    SCRUB_LAST_END,
    SIGNED_HEIGHT,
    SIGNED_TIME,
    REVOCATIONS,
    AUDIT_HEIGHT,
    AUDIT_LAG,
    AUDIT_LINES,
    AUDIT_SENT,
];

/// Upper bounds of the buckets of [`LEDGER_COMMIT`], in seconds.
pub const LEDGER_COMMIT_BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Upper bounds of the buckets of [`LEDGER_BATCH_ENTRIES`].
pub const LEDGER_BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_conventions_of_prometheus() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..index].iter().all(|earlier| earlier.name != metric.name), "{}", metric.name);
            assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        }
    }

    #[test]
    fn the_names_of_the_contract_are_there() {
        let contract = "request_latency_seconds http_requests_total inflight rejected_total wallet_requests_total \
            wallet_conflicts_total wallet_idem_replays_total quota_exhaustions_total ledger_connect_errors_total \
            ledger_commit_seconds ledger_batch_entries accounting_flush_lag_seconds wallet_conservation_checks_total \
            policy_version registry_version wallet_ready";
        for name in contract.split_whitespace() {
            assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
        }
    }
}
