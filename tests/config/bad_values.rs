//! Every kind of bad value of every key is refused with the key, the line and what to write instead.
use super::{file_of, load_with, REQUIRED};
use svc_wallet::config::Origin;

/// One bad value per case: key, value as TOML, and what the message must say besides the key and the line.
const BAD_VALUES: [(&str, &str, &str); 98] = [
    ("service.name", "\"\"", "is empty; write a text"),
    ("service.name", "7", "7 is not a text; write it in double quotes"),
    (
        "service.name",
        "\"wallet-7\"",
        "\"wallet-7\" is not the name of this program, which alerts select by; write \"svc-wallet\"",
    ),
    ("service.role", "\"ledger\"", "\"ledger\" is not the role of this program; write \"wallet\""),
    ("bind.http", "\"localhost:8080\"", "write an IP address and a port, such as \"127.0.0.1:8080\""),
    ("bind.http", "8080", "8080 is not a text"),
    ("bind.http", "\"0.0.0.0:99999\"", "is not an address"),
    ("bind.http", "\"0.0.0.0\"", "is not an address"),
    ("bind.metrics", "\"0.0.0.0:8080\"", "port 8080 is also that of bind.http; choose another one"),
    ("bind.metrics", "\"\"", "is empty"),
    ("bind.admin", "\"unix://run/admin.sock\"", "write unix:///PATH with three slashes"),
    ("bind.admin", "\"http://127.0.0.1\"", "is a URL; write the path of a file"),
    ("timeouts.read_ms", "0", "0ms is out of range; choose from 10ms to 10m"),
    ("timeouts.read_ms", "-1", "-1 is not a time; write milliseconds such as 3000"),
    ("timeouts.read_ms", "\"3 parsecs\"", "write milliseconds such as 3000, or a text such as \"3s\""),
    ("timeouts.read_ms", "3.5", "3.5 is not a time"),
    ("timeouts.write_ms", "\"11m\"", "11m is out of range; choose from 10ms to 10m"),
    ("timeouts.idle_ms", "true", "true is not a time"),
    ("timeouts.drain_notice_ms", "\"6m\"", "6m is out of range; choose from 0ms to 5m"),
    ("timeouts.idle_ms", "[1]", "[1] is not a time"),
    ("limits.inflight", "0", "0 is out of range; choose from 1 to 1_000_000"),
    ("limits.inflight", "\"many\"", "\"many\" is not a whole number; write a number from 1 to 1_000_000"),
    ("limits.inflight", "1e3", "1000.0 is not a whole number"),
    ("limits.inflight", "9223372036854775807", "is out of range"),
    ("limits.inflight_per_endpoint", "[\"entries\"]", "\"entries\" is not of the form \"entries=64\""),
    ("limits.inflight_per_endpoint", "[\"spend=64\"]", "\"spend\" is no endpoint; the endpoints are issue, transfer,"),
    ("limits.inflight_per_endpoint", "[\"entries=0\"]", "entries: 0 is out of range; choose from 1 to 1_000_000"),
    ("limits.inflight_per_endpoint", "\"tx=1,tx=2\"", "names tx twice"),
    ("limits.body_max_bytes", "\"1M\"", "is not a size; write bytes such as 1_048_576, or a text such as \"1MiB\""),
    ("limits.body_max_bytes", "\"1GiB\"", "1GiB is out of range; choose from 4KiB to 4MiB"),
    ("limits.body_max_bytes", "0", "0 is out of range"),
    ("limits.decompress_max_ratio", "0", "0 is out of range; choose from 1 to 1_000"),
    ("limits.decompress_max_ratio", "\"10x\"", "is not a whole number"),
    ("limits.connections", "0", "0 is out of range"),
    ("limits.pipeline_depth", "5000", "5_000 is out of range; choose from 1 to 1_024"),
    ("runtime.cores", "\"all\"", "neither auto, a number of cores, nor a list of CPUs"),
    ("runtime.cores", "0", "0 cores is out of range; choose from 1 to 256, or write auto"),
    ("runtime.cores", "\"3-1\"", "counts down from 3 to 1; write the lower CPU first"),
    ("runtime.cores", "[1, 1]", "names CPU 1 twice; name each CPU once"),
    ("runtime.cores", "\"0-5000\"", "CPU 5000 is out of range"),
    ("runtime.cores", "[]", "neither auto"),
    ("runtime.driver", "\"uring\"", "is no driver; write auto, io_uring or epoll"),
    ("deps.ledger_sock", "\"/var/run/ledger.sock\"", "is neither unix:///PATH nor embedded:DIR; write one of them"),
    ("deps.ledger_sock", "\"embedded:\"", "names no directory; write embedded:DIR"),
    ("deps.ledger_sock", "\"unix://var/run/x.sock\"", "names no absolute path"),
    ("deps.accounting_sock", "\"tcp://127.0.0.1:1\"", "is neither unix:///PATH nor embedded:DIR"),
    ("deps.accounting_sock", "\"embedded:./var/ledger\"", "is also the ledger's; give each its own"),
    ("deps.registry_url", "\"https://registry\"", "is neither http://HOST:PORT nor file:PATH"),
    ("deps.registry_url", "\"http://\"", "is not an address of a registry; write http://HOST:PORT"),
    ("deps.registry_url", "\"file:\"", "names no file; write file:PATH"),
    ("registry.poll_every", "10", "10 is not a time with a unit"),
    ("registry.poll_every", "\"500ms\"", "500ms is out of range; choose from 1s to 24h"),
    ("registry.timeout", "\"2m\"", "2m is out of range; choose from 10ms to 1m"),
    ("registry.max_age", "\"999ms\"", "999ms is out of range; choose from 1s to 720h"),
    ("registry.max_age", "\"11s\"", "write at least 12s, which registry.poll_every and registry.timeout are together"),
    ("security.amnesia", "\"maybe\"", "is neither on nor off; write \"on\", \"off\", true or false"),
    ("security.amnesia", "1", "1 is neither on nor off"),
    ("security.require_caps", "false", "every request carries a capability, there is no ambient trust; write true"),
    ("security.policy_file", "\"http://policy\"", "is a URL; write the path of a file"),
    ("security.policy_file", "\"  \"", "is empty"),
    ("security.keyring", "true", "true is not a text"),
    ("security.kms", "\"vault\"", "is neither file, file:PATH, credential:NAME nor env:NAME; write one of them"),
    ("security.kms", "\"file:\"", "names no file; write file:PATH"),
    ("security.kms", "\"credential:../x\"", "has no name of at most 64 letters"),
    ("security.kms", "\"env:A-B\"", "has no name of at most 64 letters"),
    ("security.audience", "\"a b\"", "is not a name"),
    ("security.clock_leeway", "\"6m\"", "6m is out of range; choose from 0ms to 5m"),
    ("security.clock_leeway", "5", "5 is not a time with a unit"),
    ("security.revocations", "\"http://list\"", "is a URL; write the path of a file"),
    ("ledger.segment_bytes", "\"1MiB\"", "1MiB is out of range; choose from 8MiB to 1GiB"),
    ("ledger.segment_bytes", "10_000_001", "is not a multiple of 4096"),
    ("ledger.snapshot_every", "\"0s\"", "0ms is out of range; choose from 1s to 168h"),
    ("ledger.scrub_every", "\"15days\"", "360h is out of range; choose from 1s to 336h"),
    ("ledger.scrub_every", "7", "7 is not a time with a unit"),
    ("ledger.commit_max", "\"1ms\"", "1ms is out of range; choose from 10ms to 1m"),
    ("ledger.commit_max", "500", "500 is not a time with a unit"),
    ("ledger.wait_in_use", "\"31days\"", "744h is out of range; choose from 1s to 720h"),
    ("ledger.sign_roots_every", "\"25h\"", "25h is out of range; choose from 1s to 24h"),
    ("ledger.sign_roots_every", "10", "10 is not a time with a unit"),
    ("ledger.scrub_bytes_per_second", "\"1KiB\"", "1KiB is out of range; choose from 64KiB to 4GiB"),
    ("ledger.memory_max_bytes", "\"1MiB\"", "1MiB is out of range; choose from 32MiB to 1_024GiB"),
    ("ledger.snapshot_entries", "1", "1 is out of range; choose from 1_000 to 1_000_000_000"),
    ("audit.sink", "\"syslog\"", "is neither off, file nor unix:///PATH; write one of them"),
    ("audit.sink", "true", "true is not a text"),
    ("audit.rotate_bytes", "\"1KiB\"", "1KiB is out of range; choose from 64KiB to 1GiB"),
    ("audit.keep", "0", "0 is out of range; choose from 1 to 1_000_000, or \"all\""),
    ("audit.refusals_per_second", "0", "0 is out of range; choose from 1 to 1_000_000"),
    ("idempotency.ttl", "86400", "86400 is not a time with a unit; write a text such as \"24h\""),
    ("idempotency.ttl", "\"31d\"", "744h is out of range; choose from 1s to 720h"),
    ("idempotency.keys_max", "1", "1 is out of range; choose from 1_024 to 100_000_000"),
    ("metrics.latency_buckets_ms", "[]", "has 0 buckets; write 1 to 64 upper bounds"),
    ("metrics.latency_buckets_ms", "[5, 5]", "5 is not above the bound before it; write the bounds in ascending order"),
    ("metrics.latency_buckets_ms", "[0, 5]", "0 is not above zero"),
    ("metrics.latency_buckets_ms", "[\"five\"]", "\"five\" is not a number of milliseconds"),
    ("faults.allowed", "\"sometimes\"", "is neither on nor off; write \"on\", \"off\", true or false"),
    ("traces.otlp", "\"127.0.0.1:4318\"", "is neither off nor an address of a collector; write http://HOST:PORT"),
    ("traces.otlp", "\"https://otel:4318\"", "is neither off nor an address"),
    ("feature_flags.tor", "\"yes\"", "is neither on nor off"),
];

#[test]
fn every_bad_value_is_refused_with_its_key_its_line_and_what_to_do() {
    for (key, value, expected) in BAD_VALUES {
        let (section, name) = key.split_once('.').unwrap();
        // The bad line replaces the good one where the key is required, so that it is the only thing wrong.
        let mut text = String::new();
        let mut placed = false;
        for line in REQUIRED.lines().filter(|line| !line.starts_with(&format!("{name} ="))) {
            text += &format!("{line}\n");
            if line == format!("[{section}]") {
                text += &format!("{name} = {value}\n");
                placed = true;
            }
        }
        if !placed {
            text += &format!("[{section}]\n{name} = {value}\n");
        }
        let line = 1 + text.lines().position(|line| line.starts_with(&format!("{name} ="))).unwrap();
        let file = file_of(&text);
        let Err(error) = load_with(Some(file.path()), &[], &[]) else { panic!("{key} = {value} was accepted") };
        assert_eq!(error.problems.len(), 1, "{key} = {value}: {error}");
        let problem = &error.problems[0];
        assert_eq!(problem.subject, key, "{error}");
        assert_eq!(problem.origin, Some(Origin::File { path: file.path().to_owned(), line }), "{error}");
        assert!(problem.message.contains(expected), "{key} = {value}: {expected:?} is missing from {:?}", problem.message);
    }
}
