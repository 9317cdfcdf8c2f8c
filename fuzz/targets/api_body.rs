//! Runs the target `api_body` of `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| svc_wallet_fuzz::target("api_body")(input));
