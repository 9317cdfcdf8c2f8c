//! The effective configuration for people and for machines: each key's value and where it came from.
use super::error::Origin;
use super::keys::KEYS;
use super::value::{grouped, shown_bytes, shown_duration};
use super::Config;
use serde_json::{json, Value};

/// One key of the effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Full name.
    pub key: &'static str,
    /// The value in the form in which it can be written into a file.
    pub shown: String,
    /// The value for machines: times in milliseconds, sizes in bytes; `null` if there is none.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
    /// Whether it does nothing under amnesia.
    pub idle: bool,
    /// What the key means, in one line.
    pub meaning: &'static str,
}

impl Config {
    /// Every key with its effective value, in the order of the sections. Paths are told, contents of files never.
    pub fn describe(&self) -> Vec<Described> {
        let describe = |key: &super::keys::Key| {
            let (shown, value) = self.shown(key.name);
            let (origin, idle) = (self.origin(key.name).clone(), self.is_idle(key.name));
            Described { key: key.name, shown, value, origin, idle, meaning: key.meaning }
        };
        KEYS.iter().map(describe).collect()
    }

    fn shown(&self, key: &str) -> (String, Value) {
        let text = |text: String| (format!("{text:?}"), Value::String(text));
        let path = |path: &std::path::Path| text(path.display().to_string());
        let switch = |on: bool| (on.to_string(), Value::Bool(on));
        let count = |number: usize| (grouped(number as u64), json!(number));
        let size = |bytes: u64| (format!("{:?}", shown_bytes(bytes)), json!(bytes));
        let time = |time: std::time::Duration| {
            (format!("{:?}", shown_duration(time)), json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
        };
        match key {
            "service.name" => text(self.service.name.clone()),
            "service.role" => text(self.service.role.clone()),
            "bind.http" => text(self.bind.http.to_string()),
            "bind.metrics" => text(self.bind.metrics.to_string()),
            "bind.admin" => self.bind.admin.as_deref().map_or(("(none)".to_owned(), Value::Null), path),
            "timeouts.read_ms" => time(self.timeouts.read),
            "timeouts.write_ms" => time(self.timeouts.write),
            "timeouts.idle_ms" => time(self.timeouts.idle),
            "timeouts.drain_notice_ms" => time(self.timeouts.drain_notice),
            "limits.inflight" => count(self.limits.inflight),
            "limits.inflight_per_endpoint" => {
                let ceilings = self.limits.inflight_per_endpoint.iter().map(|(name, ceiling)| json!(format!("{name}={ceiling}")));
                let value = Value::Array(ceilings.collect());
                (value.to_string(), value)
            }
            "limits.body_max_bytes" => size(self.limits.body_bytes_max as u64),
            "limits.decompress_max_ratio" => count(self.limits.decompress_ratio_max as usize),
            "limits.connections" => count(self.limits.connections),
            "limits.pipeline_depth" => count(self.limits.pipeline_depth),
            "runtime.cores" => text(self.runtime.cores.to_string()),
            "runtime.driver" => text(self.runtime.driver.as_str().to_owned()),
            "deps.ledger_sock" => text(self.deps.ledger.to_string()),
            "deps.accounting_sock" => text(self.deps.accounting.to_string()),
            "deps.registry_url" => text(self.deps.registry.to_string()),
            "registry.poll_every" => time(self.registry.poll_every),
            "registry.timeout" => time(self.registry.timeout),
            "registry.max_age" => time(self.registry.max_age),
            "security.amnesia" => text(if self.security.amnesia { "on" } else { "off" }.to_owned()),
            "security.require_caps" => switch(self.security.require_caps),
            "security.policy_file" => path(&self.security.policy_file),
            "security.keyring" => path(&self.security.keyring),
            "security.kms" => text(self.security.kms.to_string()),
            "security.audience" => text(self.security.audience.clone()),
            "security.clock_leeway" => time(self.security.clock_leeway),
            "security.revocations" => path(&self.security.revocations),
            "ledger.segment_bytes" => size(self.ledger.segment_bytes),
            "ledger.snapshot_every" => time(self.ledger.snapshot_every),
            "ledger.snapshot_entries" => count(self.ledger.snapshot_entries as usize),
            "ledger.scrub_every" => time(self.ledger.scrub_every),
            "ledger.scrub_bytes_per_second" => size(self.ledger.scrub_bytes_per_second),
            "ledger.memory_max_bytes" => size(self.ledger.memory_bytes_max),
            "ledger.commit_max" => time(self.ledger.commit_max),
            "ledger.wait_in_use" => time(self.ledger.wait_in_use),
            "ledger.sign_roots_every" => time(self.ledger.sign_roots_every),
            "audit.sink" => text(self.audit.sink.to_string()),
            "audit.path" => self.audit.path.as_deref().map_or(("(none)".to_owned(), Value::Null), path),
            "audit.rotate_bytes" => size(self.audit.rotate_bytes),
            "audit.keep" => self.audit.keep.map_or_else(|| text("all".to_owned()), |files| count(files as usize)),
            "audit.refusals_per_second" => count(self.audit.refusals_per_second as usize),
            "idempotency.ttl" => time(self.idempotency.ttl),
            "idempotency.keys_max" => count(self.idempotency.keys_max),
            "metrics.latency_buckets_ms" => {
                let bounds: Vec<Value> = self.metrics.latency_buckets_ms.iter().map(|bound| plain(*bound)).collect();
                let value = Value::Array(bounds);
                (value.to_string(), value)
            }
            "traces.otlp" => text(self.traces.otlp.clone().unwrap_or_else(|| "off".to_owned())),
            "faults.allowed" => switch(self.faults.allowed),
            "feature_flags.tor" => switch(self.feature_flags.tor),
            "feature_flags.legacy_pay" => switch(self.feature_flags.legacy_pay),
            unknown => unreachable!("{unknown} is in the table of keys but not shown"),
        }
    }
}

/// A bound without a fraction that it does not have.
fn plain(bound: f64) -> Value {
    if bound.fract() == 0.0 && bound < 1e15 {
        json!(bound as u64)
    } else {
        json!(bound)
    }
}
