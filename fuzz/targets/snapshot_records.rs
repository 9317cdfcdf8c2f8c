//! Runs the target `snapshot_records` of `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| svc_wallet_fuzz::target("snapshot_records")(input));
