//! Runs the target `http_framing` of `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| svc_wallet_fuzz::target("http_framing")(input));
