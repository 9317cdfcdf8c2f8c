//! The table of every key: its name, its default, the environment variable that overrides it, and what it means.
//!
//! Defaults are written as a person would write them and are read by the same code as a file's values. It does not
//! know how a value is read, nor which values are in range.

/// One key of the configuration.
pub struct Key {
    /// Full name, `section.key`.
    pub name: &'static str,
    /// The value when nobody gives one; `None` where there is no safe one, or where none is needed.
    pub default: Option<&'static str>,
    /// The environment variable that overrides the file.
    pub env: Option<&'static str>,
    /// What it means, in one line.
    pub meaning: &'static str,
}

const fn with_default(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default: Some(default), env: None, meaning }
}

const fn required(name: &'static str, env: &'static str, meaning: &'static str) -> Key {
    Key { name, default: None, env: Some(env), meaning }
}

/// The variable that names the configuration file.
pub const CONFIG_ENV: &str = "RON_CONFIG";

/// Every key, in the order in which they are shown.
pub static KEYS: [Key; 52] = [
    with_default("service.name", "svc-wallet", "label `service` of metrics and logs; this program is svc-wallet"),
    with_default("service.role", "wallet", "role in the stack; this program is the wallet"),
    with_default("bind.http", "0.0.0.0:8080", "address of the API"),
    with_default("bind.metrics", "0.0.0.0:9090", "address of health, readiness, metrics and version"),
    Key { name: "bind.admin", default: None, env: None, meaning: "unix socket for ronctl; without it there is none" },
    with_default("timeouts.read_ms", "3000", "longest time for a request to arrive once it has begun"),
    with_default("timeouts.write_ms", "3000", "longest time for a reply to leave, and for a drain"),
    with_default("timeouts.idle_ms", "10000", "longest time between two requests of a connection"),
    with_default("timeouts.drain_notice_ms", "200", "time for which everything is served between not ready and closed listeners"),
    with_default("limits.inflight", "1024", "requests in flight over all cores; more are answered 429"),
    with_default(
        "limits.inflight_per_endpoint",
        "",
        "those of single endpoints, such as [\"entries=64\", \"proof=16\"]; more are answered 429",
    ),
    with_default("limits.body_max_bytes", "1MiB", "largest body, before and after decompression"),
    with_default("limits.decompress_max_ratio", "10", "how many times larger a body may become by decompression"),
    with_default("limits.connections", "16384", "open connections of the server; one more is answered 503 and closed"),
    with_default("limits.pipeline_depth", "64", "requests in flight of one connection"),
    with_default("runtime.cores", "auto", "auto, a number of cores, or a list of CPUs such as 0-3,6"),
    with_default("runtime.driver", "auto", "auto, io_uring or epoll"),
    required("deps.ledger_sock", "LEDGER_SOCK", "where the ledger is: unix:///PATH or embedded:DIR"),
    required("deps.accounting_sock", "ACCOUNTING_SOCK", "where the counters go: unix:///PATH or embedded:DIR"),
    required(
        "deps.registry_url",
        "REGISTRY_URL",
        "where the topology comes from: http://HOST or file:PATH; noticed when it changes, read again on SIGHUP",
    ),
    with_default(
        "registry.poll_every",
        "10s",
        "how long a registry behind HTTP is asked to wait for a change, or how often it is asked",
    ),
    with_default("registry.timeout", "2s", "longest time for a connection to it, and for a question and its answer"),
    with_default("registry.max_age", "5m", "time after the last good answer for which the service stays ready"),
    Key {
        name: "security.amnesia",
        default: Some("off"),
        env: Some("AMNESIA"),
        meaning: "on: keep everything in memory and leave nothing on disk",
    },
    with_default("security.require_caps", "true", "every request carries a capability; only true is accepted"),
    required("security.policy_file", "POLICY_FILE", "the policy; read at start, and again on SIGHUP"),
    with_default("security.keyring", "/var/lib/ron/wallet.keyring", "root keys of the capabilities, mode 0600"),
    with_default(
        "security.kms",
        "file",
        "where the key is that opens the keyring: file (beside it), file:PATH, credential:NAME or env:NAME",
    ),
    with_default("security.audience", "svc-wallet", "the `aud` that a capability must name"),
    with_default("security.clock_leeway", "5s", "how far the clocks of whoever wrote `exp` and `nbf` may be off"),
    with_default(
        "security.revocations",
        "/var/lib/ron/wallet.revocations",
        "revoked capabilities, mode 0600; read at start and whenever it changes",
    ),
    with_default("ledger.segment_bytes", "64MiB", "size of one ledger segment of an embedded ledger"),
    with_default("ledger.snapshot_every", "15m", "time between two snapshots of an embedded ledger"),
    with_default("ledger.snapshot_entries", "5_000_000", "entries after which a snapshot is due before that"),
    with_default("ledger.scrub_every", "7days", "time between the ends of two passes that read an embedded ledger again"),
    with_default("ledger.scrub_bytes_per_second", "8MiB", "what such a pass reads at most in one second"),
    with_default("ledger.memory_max_bytes", "1GiB", "how long an embedded ledger may become under security.amnesia"),
    with_default("ledger.commit_max", "500ms", "a commit that takes longer puts the server under pressure"),
    with_default("ledger.wait_in_use", "4s", "time for which a start waits for a daemon's ledger that another wallet has"),
    with_default("ledger.sign_roots_every", "10s", "time between two signed roots of the history of a ledger that grows"),
    with_default(
        "audit.sink",
        "file",
        "where the audit stream goes: off, file, or unix:///PATH for files and a peer behind a socket",
    ),
    Key {
        name: "audit.path",
        default: None,
        env: None,
        meaning: "directory of the audit stream; without it `audit` beside the ledger",
    },
    with_default("audit.rotate_bytes", "64MiB", "size at which a file of the audit stream is full; a new day begins one as well"),
    with_default("audit.keep", "all", "files of the audit stream that are kept: all, or a number"),
    with_default(
        "audit.refusals_per_second",
        "1_000",
        "refusals that the audit stream takes in a second; more are counted in it",
    ),
    with_default("idempotency.ttl", "24h", "how long a key is remembered in memory at the least"),
    with_default("idempotency.keys_max", "4_000_000", "keys remembered in memory, per core"),
    with_default(
        "metrics.latency_buckets_ms",
        "5,10,20,30,50,75,100,150,200,250,400,800,1600",
        "upper bounds of the latency histograms",
    ),
    with_default(
        "traces.otlp",
        "off",
        "http://HOST:PORT of the OpenTelemetry collector that gets the spans of recorded traces, in builds with the feature otlp, or off",
    ),
    with_default("faults.allowed", "false", "whether ronctl chaos may inject faults on purpose; not where there is real value"),
    with_default("feature_flags.tor", "false", "Tor transport at the edge; refused, it does not exist yet"),
    with_default("feature_flags.legacy_pay", "false", "legacy payment integration; refused, it does not exist yet"),
];

/// Names by which the runbook's prose calls some keys, so that whoever types one is told where it lives.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("http_addr", "bind.http"),
    ("metrics_addr", "bind.metrics"),
    ("read_timeout_ms", "timeouts.read_ms"),
    ("write_timeout_ms", "timeouts.write_ms"),
    ("idle_timeout_ms", "timeouts.idle_ms"),
    ("inflight_ceiling", "limits.inflight"),
    ("idempotency_ttl", "idempotency.ttl"),
    ("policy", "security.policy_file"),
    ("caps", "security.require_caps"),
];

/// The key of this full name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether some key lives in this section.
pub fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| section_of(key) == name)
}

/// The known full name that is most like `name`: the same key in another section comes first, then spelling.
pub fn nearest(name: &str) -> &'static str {
    let leaf = leaf(name);
    if let Some((_, known)) = OTHER_NAMES.iter().find(|(other, _)| *other == leaf) {
        return known;
    }
    let distance = |key: &&Key| {
        let whole = strsim::damerau_levenshtein(key.name, name);
        let of_leaf = strsim::damerau_levenshtein(self::leaf(key.name), leaf);
        (whole.min(of_leaf * 2 + 1), whole)
    };
    KEYS.iter().min_by_key(distance).expect("the table is not empty").name
}

/// The section whose name is most like `name`; a common beginning counts more than a common length.
pub fn nearest_section(name: &str) -> &'static str {
    let likeness = |section: &&str| strsim::jaro_winkler(section, name);
    let by_likeness = |one: &&str, other: &&str| likeness(one).total_cmp(&likeness(other));
    KEYS.iter().map(section_of).max_by(by_likeness).expect("the table is not empty")
}

fn section_of(key: &Key) -> &'static str {
    key.name.split_once('.').expect("every key has a section").0
}

fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_a_key_without_default_can_be_given_otherwise() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(key.name.split('.').count() == 2, "{}", key.name);
            assert!(KEYS[index + 1..].iter().all(|other| other.name != key.name), "{}", key.name);
            let can_do_without = ["bind.admin", "audit.path"].contains(&key.name);
            assert!(key.default.is_some() || can_do_without || key.env.is_some(), "{}", key.name);
        }
        for (_, known) in OTHER_NAMES {
            assert!(find(known).is_some(), "{known}");
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let cases = [
            ("limits.inflght", "limits.inflight"),
            ("limit.inflight", "limits.inflight"),
            ("bind.read_ms", "timeouts.read_ms"),
            ("http_addr", "bind.http"),
            ("limits.body_bytes_max", "limits.body_max_bytes"),
            ("security.amnesa", "security.amnesia"),
            ("deps.ledger", "deps.ledger_sock"),
            ("runtime.core", "runtime.cores"),
        ];
        for (wrong, meant) in cases {
            assert_eq!(nearest(wrong), meant, "{wrong}");
        }
        assert_eq!(nearest_section("timeout"), "timeouts");
        assert_eq!(nearest_section("features"), "feature_flags");
    }
}
