//! What must hold of a configuration file, whatever it holds; `src/fuzzing.rs` feeds it.
use super::sources::{merge, Flags, Sources};
use super::{read, Config};
use std::path::Path;

/// A configuration file: every value that is accepted is accepted again in the form in which it is shown, and means the same.
pub(crate) fn file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let nothing = || merge(&Sources { flags: Flags::default(), env: &|_| None, files_default: &[] });
    let mut merged = nothing();
    merged.add_file(Path::new("svc-wallet.toml"), text);
    let config = match read::config(merged) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.problems.iter().all(|problem| !problem.message.is_empty()), "a problem without words");
            return;
        }
    };
    let shown = |config: &Config| {
        let told = config.describe().into_iter().filter(|one| !one.value.is_null());
        told.map(|one| (one.key, one.shown, one.value)).collect::<Vec<_>>()
    };
    let (mut lines, mut open) = (String::new(), "");
    for (key, text, _) in shown(&config) {
        let (section, name) = key.split_once('.').expect("keys stand in sections");
        if section != std::mem::replace(&mut open, section) {
            lines.push_str(&format!("[{section}]\n"));
        }
        lines.push_str(&format!("{name} = {text}\n"));
    }
    let mut again = nothing();
    again.add_file(Path::new("svc-wallet.toml"), &lines);
    let again = read::config(again).unwrap_or_else(|error| panic!("what is shown is refused: {error}\n{lines}"));
    assert_eq!(shown(&again), shown(&config));
}

/// Inputs from which a fuzzer of [`file`] begins.
pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    let shipped = include_bytes!("../../configs/svc-wallet.toml").to_vec();
    let small = "[deps]\nledger_sock = \"unix:///run/l\"\naccounting_sock=\"embedded:./a\"\nregistry_url='file:./r'\n\
                 [security]\npolicy_file = \"p\"\n[limits]\nbody_max_bytes = \"64 KiB\"\n[timeouts]\nread_ms = \"3s\"\n\
                 [metrics]\nlatency_buckets_ms = [1, 2.5, 400]\n[runtime]\ncores = \"0-3,6\"\n[ledger]\nsnapshot_every='1h 5m'\n";
    vec![shipped, small.as_bytes().to_vec(), b"limits.inflight = 1979-05-27\n[x]\ny=1".to_vec()]
}
