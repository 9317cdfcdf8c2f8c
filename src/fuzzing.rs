//! Everything that reads bytes of others, as functions of bytes: what a fuzzer calls, and what `cargo test` calls with the corpus and with
//! changes of it.
//!
//! A target panics if one of its properties does not hold; they stand beside the code that they are about, in the `fuzzing` of each module.
//! `fuzz/` has the fuzzer, a binary for each target, and the corpus: the seeds that are made here, and what the fuzzer has found that
//! reaches more code. This module is built for tests and for the fuzzer alone.
use crate::registry::Registry;
use crate::{access, accounting, api, audit, config, control, http, ledger, operator, registry, registryd};

/// One reader.
pub struct Target {
    /// Name of its binary and of its directory of the corpus.
    pub name: &'static str,
    /// Reads the bytes, and panics if something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many changed inputs `cargo test` runs: fewer where a run takes long.
    pub changes: usize,
}

macro_rules! target {
    ($name:literal, $($module:ident)::+, $run:ident, $seeds:ident, $changes:literal) => {
        Target { name: $name, run: $($module)::+::$run, seeds: $($module)::+::$seeds, changes: $changes }
    };
}

/// All of them.
pub const TARGETS: [Target; 29] = [
    target!("http_framing", http::fuzzing, framing, framing_seeds, 3000),
    target!("http_chunked", http::fuzzing, chunked, chunked_seeds, 3000),
    target!("http_compressed", http::fuzzing, compressed, compressed_seeds, 1500),
    target!("http_query", http::fuzzing, query, query_seeds, 5000),
    target!("api_body", api::fuzzing, body, body_seeds, 5000),
    target!("api_query", api::fuzzing, read_query, read_query_seeds, 5000),
    target!("macaroons", access::fuzzing, macaroons, macaroons_seeds, 3000),
    target!("caveats", access::fuzzing, caveats, caveats_seeds, 1000),
    target!("policy_file", access::fuzzing, policy, policy_seeds, 3000),
    target!("keyring_file", access::fuzzing, keyrings, keyrings_seeds, 1500),
    target!("sealed_keyring", access::fuzzing, sealed, sealed_seeds, 1500),
    target!("revocation_file", access::fuzzing, revocations, revocations_seeds, 3000),
    target!("audit_stream", audit::fuzzing, lines, lines_seeds, 2000),
    target!("signed_roots", control::root_file_fuzzing, roots, roots_seeds, 3000),
    target!("public_keys", operator::public_keys::fuzzing, keys_and_proofs, keys_and_proofs_seeds, 2000),
    target!("registry_answers", registry::fuzzing, answers, answers_seeds, 5000),
    target!("config_file", config::fuzzing, file, file_seeds, 1000),
    Target { name: "registry_file", run: topology, seeds: topology_seeds, changes: 3000 },
    target!("ledger_entries", ledger::fuzzing, entries, entries_seeds, 5000),
    target!("ledger_scan", ledger::fuzzing, changed_ledger, changes_seeds, 200),
    target!("snapshot_file", ledger::fuzzing, changed_snapshot, changes_seeds, 1000),
    target!("snapshot_records", ledger::fuzzing, records, records_seeds, 5000),
    target!("index_file", ledger::fuzzing, changed_index, changes_seeds, 1000),
    target!("index_blocks", ledger::fuzzing, index_blocks, index_blocks_seeds, 1000),
    target!("control_requests", control::fuzzing, requests, requests_seeds, 3000),
    target!("topology_requests", registryd::fuzzing, requests, requests_seeds, 3000),
    target!("accounting_lines", accounting::protocol::fuzzing, requests, requests_seeds, 2000),
    target!("frames_to_daemon", ledger::fuzzing, to_daemon, to_daemon_seeds, 2000),
    target!("frames_from_daemon", ledger::fuzzing, from_daemon, from_daemon_seeds, 2000),
];

/// A topology: every slot has an owner, and what was read is read again as it is written.
fn topology(input: &[u8]) {
    let Ok(registry) = Registry::parse(input) else { return };
    let written = serde_json::to_vec(&registry).expect("a registry is plain data");
    assert_eq!(Registry::parse(&written).ok().as_ref(), Some(&registry));
    for cell in registry.cells() {
        assert!(registry.owner(cell.slots.0) == cell && registry.owner(cell.slots.1) == cell);
    }
}

fn topology_seeds() -> Vec<Vec<u8>> {
    let shipped = include_bytes!("../configs/registry.json").to_vec();
    let two = r#"{"cells":[{"name":"b","slots":[100,16383],"addresses":["https://[::1]:1"]},
        {"addresses":["http://a.example:8080"],"name":"a","slots":[0,99]}],"version":3}"#;
    vec![shipped, two.as_bytes().to_vec()]
}

#[cfg(test)]
#[path = "fuzzing_tests.rs"]
mod tests;
