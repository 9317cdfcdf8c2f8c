//! Runs the target `ledger_entries` of `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| svc_wallet_fuzz::target("ledger_entries")(input));
