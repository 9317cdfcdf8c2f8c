//! Runs the target `policy_file` of `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| svc_wallet_fuzz::target("policy_file")(input));
