//! From written values to typed ones: which reader and which range belong to which key, and what must fit together.
//!
//! Every key is read before anything is refused, so that one run shows everything that is wrong.
use super::error::{none_or_error, ConfigError, Origin, Problem};
use super::keys::{find, CONFIG_ENV};
use super::raw::Raw;
use super::sources::Merged;
use super::value::{self, Reading};
use super::{cores, place};
use super::{
    Audit, Bind, Config, Deps, Faults, FeatureFlags, Idempotency, Ledger, Limits, Metrics, Registry, Runtime, Security, Service,
    Timeouts, Traces, SERVICE_NAME,
};
use crate::domain::limits::{BATCH_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Shortest and longest time that a peer may be given.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
/// A registry that waits for less than a second would be asked all the time; after a day without a question a change has been forgotten.
const REGISTRY_POLL_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const REGISTRY_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const REGISTRY_MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// A day of repeats is promised by default; a month of keys is more than memory should be asked to hold.
const IDEMPOTENCY_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// Clocks that are kept by NTP differ by far less than a second. More than five minutes would be a second lifetime, not a leeway.
const CLOCK_LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
/// A request body is never larger than what one ledger batch can carry, and never smaller than a single spend.
const BODY_BYTES: RangeInclusive<u64> = 4_096..=BATCH_BYTES_MAX as u64;
/// A start replays what came after the last snapshot: more often than each second would only burden the disk.
pub const SNAPSHOT_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
/// Most latent errors of disks are found within two weeks; more often than each second would only burden them.
pub const SCRUB_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(14 * 86_400);
pub const SCRUB_BYTES_PER_SECOND: RangeInclusive<u64> = (64 << 10)..=(4 << 30);
/// From the smallest segments up to more than machines have.
const LEDGER_MEMORY_BYTES: RangeInclusive<u64> = (32 << 20)..=(1 << 40);
/// Whoever holds a receipt waits so long for a signed root that covers it.
const DRAIN_NOTICE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
const COMMIT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const WAIT_IN_USE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
const SIGN_ROOTS_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
pub const SNAPSHOT_ENTRIES: RangeInclusive<u64> = 1_000..=1_000_000_000;
/// Files are read whole when a start looks for their end; smaller ones are for those who like many.
const AUDIT_ROTATE_BYTES: RangeInclusive<u64> = (64 << 10)..=(1 << 30);
const AUDIT_KEEP: RangeInclusive<u64> = 1..=1_000_000;
const AUDIT_REFUSALS: RangeInclusive<u64> = 1..=1_000_000;
const INFLIGHT: RangeInclusive<u64> = 1..=1_000_000;
const DECOMPRESS_RATIO: RangeInclusive<u64> = 1..=1_000;
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
const PIPELINE_DEPTH: RangeInclusive<u64> = 1..=1_024;
const KEYS: RangeInclusive<u64> = 1_024..=100_000_000;
/// Most buckets of one histogram; each costs one time series per label set.
const BUCKETS_MAX: usize = 64;
/// Longest service name and audience, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Reads every key and checks what they must have in common.
pub(super) fn config(merged: Merged) -> Result<Config, ConfigError> {
    let Merged { values, file, absent, problems, unread } = merged;
    let mut reader = Reader { values, problems, unread, lacks: false };
    let sections = (
        reader.service(),
        reader.bind(),
        reader.timeouts(),
        reader.limits(),
        reader.runtime(),
        reader.deps(),
        (reader.registry(), reader.security()),
        (
            reader.ledger(),
            reader.audit(),
            reader.idempotency(),
            (reader.metrics(), reader.traces(), reader.faults()),
            reader.feature_flags(),
        ),
    );
    if reader.lacks && !absent.is_empty() {
        let places = absent.join(" and no ");
        let message = format!("no file is named, and this user can see no {places}; name one with --config FILE or {CONFIG_ENV}");
        reader.problems.insert(0, Problem { subject: "--config".to_owned(), origin: None, message });
    }
    none_or_error(reader.problems)?;
    let origins: BTreeMap<&'static str, Origin> = reader.values.into_iter().map(|(name, (_, origin))| (name, origin)).collect();
    let whole = "a section without a value has left a problem";
    let (
        service,
        bind,
        timeouts,
        limits,
        runtime,
        deps,
        (registry, security),
        (ledger, audit, idempotency, (metrics, traces, faults), feature_flags),
    ) = sections;
    Ok(Config {
        service: service.expect(whole),
        bind: bind.expect(whole),
        timeouts: timeouts.expect(whole),
        limits: limits.expect(whole),
        runtime: runtime.expect(whole),
        deps: deps.expect(whole),
        registry: registry.expect(whole),
        security: security.expect(whole),
        ledger: ledger.expect(whole),
        audit: audit.expect(whole),
        idempotency: idempotency.expect(whole),
        metrics: metrics.expect(whole),
        traces: traces.expect(whole),
        faults: faults.expect(whole),
        feature_flags: feature_flags.expect(whole),
        file,
        origins,
    })
}

struct Reader {
    values: BTreeMap<&'static str, (Raw, Origin)>,
    problems: Vec<Problem>,
    /// See [`Merged::unread`].
    unread: bool,
    /// A key that has to have a value has none.
    lacks: bool,
}

impl Reader {
    fn service(&mut self) -> Option<Service> {
        let name = self.value("service.name", |raw| match value::text(raw)? {
            SERVICE_NAME => Ok(SERVICE_NAME.to_owned()),
            other => Err(format!("{other:?} is not the name of this program, which alerts select by; write {SERVICE_NAME:?}")),
        });
        let role = self.value("service.role", |raw| match value::text(raw)? {
            "wallet" => Ok("wallet".to_owned()),
            other => Err(format!("{other:?} is not the role of this program; write \"wallet\"")),
        });
        Some(Service { name: name?, role: role? })
    }

    fn bind(&mut self) -> Option<Bind> {
        let http = self.value("bind.http", place::address);
        let metrics = self.value("bind.metrics", place::address);
        let admin = self.optional("bind.admin", place::socket);
        let bind = Bind { http: http?, metrics: metrics?, admin: admin? };
        if bind.http.port() == bind.metrics.port() && bind.http.port() != 0 {
            let message = format!("port {} is also that of bind.http; choose another one", bind.metrics.port());
            self.refuse("bind.metrics", message);
            return None;
        }
        Some(bind)
    }

    fn timeouts(&mut self) -> Option<Timeouts> {
        let mut time = |key| self.value(key, |raw| value::millis(raw, TIMEOUT));
        let (read, write, idle) = (time("timeouts.read_ms"), time("timeouts.write_ms"), time("timeouts.idle_ms"));
        let drain_notice = self.value("timeouts.drain_notice_ms", |raw| value::millis(raw, DRAIN_NOTICE));
        Some(Timeouts { read: read?, write: write?, idle: idle?, drain_notice: drain_notice? })
    }

    fn limits(&mut self) -> Option<Limits> {
        let inflight = self.count("limits.inflight", INFLIGHT);
        let per_endpoint = self.value("limits.inflight_per_endpoint", |raw| value::ceilings(raw, INFLIGHT));
        let body = self.value("limits.body_max_bytes", |raw| value::bytes(raw, BODY_BYTES));
        let ratio = self.value("limits.decompress_max_ratio", |raw| value::integer(raw, DECOMPRESS_RATIO));
        let connections = self.count("limits.connections", CONNECTIONS);
        let depth = self.count("limits.pipeline_depth", PIPELINE_DEPTH);
        Some(Limits {
            inflight: inflight?,
            inflight_per_endpoint: per_endpoint?,
            body_bytes_max: usize::try_from(body?).expect("the range fits"),
            decompress_ratio_max: u32::try_from(ratio?).expect("the range fits"),
            connections: connections?,
            pipeline_depth: depth?,
        })
    }

    fn runtime(&mut self) -> Option<Runtime> {
        let cores = self.value("runtime.cores", cores::cores);
        let driver = self.value("runtime.driver", cores::driver);
        Some(Runtime { cores: cores?, driver: driver? })
    }

    fn deps(&mut self) -> Option<Deps> {
        let ledger = self.value("deps.ledger_sock", place::ledger);
        let accounting = self.value("deps.accounting_sock", place::accounting);
        let registry = self.value("deps.registry_url", place::registry);
        let deps = Deps { ledger: ledger?, accounting: accounting?, registry: registry? };
        let (ledger, accounting) = (deps.ledger.to_string(), deps.accounting.to_string());
        if ledger == accounting {
            self.refuse("deps.accounting_sock", format!("{accounting} is also the ledger's; give each its own"));
            return None;
        }
        Some(deps)
    }

    fn registry(&mut self) -> Option<Registry> {
        let poll_every = self.value("registry.poll_every", |raw| value::duration(raw, REGISTRY_POLL_EVERY));
        let timeout = self.value("registry.timeout", |raw| value::duration(raw, REGISTRY_TIMEOUT));
        let max_age = self.value("registry.max_age", |raw| value::duration(raw, REGISTRY_MAX_AGE));
        let registry = Registry { poll_every: poll_every?, timeout: timeout?, max_age: max_age? };
        let answered_within = registry.poll_every + registry.timeout;
        if registry.max_age < answered_within {
            let [max_age, within] = [registry.max_age, answered_within].map(value::shown_duration);
            let message = format!("{max_age} is over before a registry that is well has to answer again; write at least {within}, which registry.poll_every and registry.timeout are together");
            self.refuse("registry.max_age", message);
            return None;
        }
        Some(registry)
    }

    fn security(&mut self) -> Option<Security> {
        let amnesia = self.value("security.amnesia", value::switch);
        let require_caps = self.value("security.require_caps", |raw| match value::switch(raw)? {
            true => Ok(true),
            false => {
                Err("false is refused: every request carries a capability, there is no ambient trust; write true".to_owned())
            }
        });
        let policy_file = self.value("security.policy_file", place::path);
        let keyring = self.value("security.keyring", place::path);
        let kms = self.value("security.kms", place::kms);
        let audience = self.value("security.audience", name);
        let clock_leeway = self.value("security.clock_leeway", |raw| value::duration(raw, CLOCK_LEEWAY));
        let revocations = self.value("security.revocations", place::path);
        Some(Security {
            amnesia: amnesia?,
            require_caps: require_caps?,
            policy_file: policy_file?,
            keyring: keyring?,
            kms: kms?,
            audience: audience?,
            clock_leeway: clock_leeway?,
            revocations: revocations?,
        })
    }

    fn ledger(&mut self) -> Option<Ledger> {
        let range = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        let segment_bytes = self.value("ledger.segment_bytes", |raw| {
            let bytes = value::bytes(raw, range)?;
            match bytes % 4_096 {
                0 => Ok(bytes),
                _ => Err(format!("{} is not a multiple of 4096; write for example \"64MiB\"", value::shown_bytes(bytes))),
            }
        });
        let snapshot_every = self.value("ledger.snapshot_every", |raw| value::duration(raw, SNAPSHOT_EVERY));
        let snapshot_entries = self.count("ledger.snapshot_entries", SNAPSHOT_ENTRIES);
        let scrub_every = self.value("ledger.scrub_every", |raw| value::duration(raw, SCRUB_EVERY));
        let scrub_rate = self.value("ledger.scrub_bytes_per_second", |raw| value::bytes(raw, SCRUB_BYTES_PER_SECOND));
        let memory = self.value("ledger.memory_max_bytes", |raw| value::bytes(raw, LEDGER_MEMORY_BYTES));
        let sign_roots_every = self.value("ledger.sign_roots_every", |raw| value::duration(raw, SIGN_ROOTS_EVERY));
        let commit_max = self.value("ledger.commit_max", |raw| value::duration(raw, COMMIT));
        let wait_in_use = self.value("ledger.wait_in_use", |raw| value::duration(raw, WAIT_IN_USE));
        Some(Ledger {
            commit_max: commit_max?,
            wait_in_use: wait_in_use?,
            memory_bytes_max: memory?,
            segment_bytes: segment_bytes?,
            snapshot_every: snapshot_every?,
            snapshot_entries: snapshot_entries? as u64,
            scrub_every: scrub_every?,
            scrub_bytes_per_second: scrub_rate?,
            sign_roots_every: sign_roots_every?,
        })
    }

    fn audit(&mut self) -> Option<Audit> {
        let sink = self.value("audit.sink", place::audit_sink);
        let path = self.optional("audit.path", place::path);
        let rotate_bytes = self.value("audit.rotate_bytes", |raw| value::bytes(raw, AUDIT_ROTATE_BYTES));
        let keep = self.value("audit.keep", |raw| match raw {
            Raw::Text(text) if text.trim() == "all" => Ok(None),
            number => value::integer(number, AUDIT_KEEP).map(Some).map_err(|message| format!("{message}, or \"all\"")),
        });
        let refusals_per_second = self.value("audit.refusals_per_second", |raw| value::integer(raw, AUDIT_REFUSALS));
        Some(Audit {
            sink: sink?,
            path: path?,
            rotate_bytes: rotate_bytes?,
            keep: keep?.map(|count| u32::try_from(count).expect("the range fits")),
            refusals_per_second: refusals_per_second?,
        })
    }

    fn idempotency(&mut self) -> Option<Idempotency> {
        let ttl = self.value("idempotency.ttl", |raw| value::duration(raw, IDEMPOTENCY_TTL));
        let keys_max = self.count("idempotency.keys_max", KEYS);
        Some(Idempotency { ttl: ttl?, keys_max: keys_max? })
    }

    fn metrics(&mut self) -> Option<Metrics> {
        let buckets = self.value("metrics.latency_buckets_ms", |raw| value::buckets_ms(raw, BUCKETS_MAX));
        Some(Metrics { latency_buckets_ms: buckets? })
    }

    fn traces(&mut self) -> Option<Traces> {
        Some(Traces { otlp: self.value("traces.otlp", place::collector)? })
    }

    fn faults(&mut self) -> Option<Faults> {
        Some(Faults { allowed: self.value("faults.allowed", value::switch)? })
    }

    fn feature_flags(&mut self) -> Option<FeatureFlags> {
        let tor = self.value("feature_flags.tor", value::switch);
        let legacy_pay = self.value("feature_flags.legacy_pay", value::switch);
        Some(FeatureFlags { tor: tor?, legacy_pay: legacy_pay? })
    }

    fn count(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        self.value(key, |raw| value::integer(raw, range)).map(|number| usize::try_from(number).expect("the range fits"))
    }

    /// The value of a key that has to have one. `None` has left a problem.
    fn value<T>(&mut self, key: &'static str, read: impl FnOnce(&Raw) -> Reading<T>) -> Option<T> {
        match self.optional(key, read)? {
            Some(value) => Some(value),
            // The file is the problem.
            None if self.unread => None,
            None => {
                self.lacks = true;
                let env = find(key).and_then(|key| key.env);
                let or_env = env.map_or(String::new(), |name| format!(", set {name} in the environment"));
                let name = key.rsplit('.').next().unwrap_or(key);
                let message =
                    format!("has no value and no default; write `{name}` in the file{or_env}, or give --set {key}=VALUE");
                self.problems.push(Problem { subject: key.to_owned(), origin: None, message });
                None
            }
        }
    }

    /// The value of a key that may have none. The outer `None` has left a problem.
    fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Raw) -> Reading<T>) -> Option<Option<T>> {
        let Some((raw, _)) = self.values.get(key) else { return Some(None) };
        match read(raw) {
            Ok(value) => Some(Some(value)),
            Err(message) => {
                self.refuse(key, message);
                None
            }
        }
    }

    fn refuse(&mut self, key: &'static str, message: String) {
        let origin = self.values.get(key).map(|(_, origin)| origin.clone());
        self.problems.push(Problem { subject: key.to_owned(), origin, message });
    }
}

/// A name that is safe in a metric label, a log line and a caveat.
fn name(raw: &Raw) -> Reading<String> {
    let name = value::text(raw)?;
    let known = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !known || name.len() > NAME_BYTES_MAX {
        return Err(format!("{raw} is not a name; write 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 - _ ."));
    }
    Ok(name.to_owned())
}
