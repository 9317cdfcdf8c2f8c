//! Runs the target `sealed_keyring` of `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| svc_wallet_fuzz::target("sealed_keyring")(input));
