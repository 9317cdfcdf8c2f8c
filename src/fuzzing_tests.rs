//! Every target holds on its seeds, on the corpus under `fuzz/corpus`, and on some thousands of changes of both. What is changed, and how,
//! follows from a fixed seed; `FUZZ_SEED=n` is another one.
//!
//! `FUZZ_WRITE=1` writes the seeds into the corpus.
use super::TARGETS;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the fuzzer lives.
fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a directory of the corpus, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = fuzz().join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    /// Changes an input in one to four places, as fuzzers do; `other` lends a part of itself.
    fn change(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        const SPICE: &[u8] = b"\r\n\0 \t:;,=&%{}[]\"\\0179afz/*\x7f\x80\xff";
        let mut bytes = input.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(8) {
                0 | 1 if at < bytes.len() => bytes[at] = SPICE[self.below(SPICE.len())],
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 => bytes.insert(at, SPICE[self.below(SPICE.len())]),
                4 => bytes.truncate(at),
                5 => {
                    let end = (at + 1 + self.below(9)).min(bytes.len());
                    drop(bytes.drain(at.min(end)..end));
                }
                6 => {
                    let from = self.below(other.len() + 1);
                    let part = &other[from..(from + 1 + self.below(40)).min(other.len())];
                    drop(bytes.splice(at..at, part.iter().copied()));
                }
                _ => {
                    let end = (at + 1 + self.below(30)).min(bytes.len());
                    let part = bytes[at.min(end)..end].to_vec();
                    drop(bytes.splice(at..at, part));
                }
            }
        }
        bytes
    }
}

/// Runs one input; a property that fails is told with it.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name} does not hold on {} bytes: {:?}\nin hexadecimal: {hex}", input.len(), String::from_utf8_lossy(input));
    }
}

fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let inputs: Vec<Vec<u8>> = (target.seeds)().into_iter().chain(corpus(name)).collect();
    for input in &inputs {
        run(name, target.run, input);
        // However little arrives.
        for end in 0..input.len().min(64) {
            run(name, target.run, &input[..end]);
        }
    }
    let seed = std::env::var("FUZZ_SEED").map_or(1, |text| text.parse().expect("FUZZ_SEED is a number"));
    println!("FUZZ_SEED={seed}");
    let mut dice = Dice(seed);
    for _ in 0..target.changes {
        let (input, other) = (&inputs[dice.below(inputs.len())], &inputs[dice.below(inputs.len())]);
        let changed = dice.change(input, other);
        run(name, target.run, &changed);
    }
}

/// A test for each target, and one that none is missing.
macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test] fn $name() { holds(stringify!($name)) })*

        #[test]
        fn no_target_is_missing() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

tests! {
    http_framing http_chunked http_compressed http_query api_body api_query macaroons caveats policy_file keyring_file
    sealed_keyring revocation_file audit_stream signed_roots public_keys registry_answers config_file
    registry_file ledger_entries ledger_scan snapshot_file snapshot_records index_file index_blocks control_requests topology_requests accounting_lines
    frames_to_daemon frames_from_daemon
}

/// The least that a directory of the corpus holds, and the most that all of it may have, in bytes: it stands in the repository.
const CORPUS_BYTES_MAX: usize = 512 << 10;

#[test]
fn every_target_has_a_binary_and_its_seeds_stand_in_the_corpus() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let mut bytes = 0;
    for target in &TARGETS {
        let name = target.name;
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"\n")),
            "fuzz/Cargo.toml has no {name}"
        );
        let binary = std::fs::read_to_string(fuzz().join(format!("targets/{name}.rs"))).unwrap();
        assert!(binary.contains(&format!("target(\"{name}\")")), "targets/{name}.rs runs another target");
        let directory = fuzz().join("corpus").join(name);
        if std::env::var_os("FUZZ_WRITE").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            for (number, seed) in (target.seeds)().iter().enumerate() {
                std::fs::write(directory.join(format!("seed-{number:02}")), seed).unwrap();
            }
        }
        let held: BTreeSet<Vec<u8>> = corpus(name).into_iter().collect();
        let missing = (target.seeds)().into_iter().filter(|seed| !held.contains(seed)).count();
        assert_eq!(missing, 0, "{name}: seeds are missing in the corpus; FUZZ_WRITE=1 cargo test --lib fuzzing writes them");
        bytes += held.iter().map(Vec::len).sum::<usize>();
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes; keep what reaches more code (cargo fuzz cmin)");
    let directories = std::fs::read_dir(fuzz().join("corpus")).unwrap().count();
    assert_eq!(directories, TARGETS.len(), "a directory of the corpus belongs to no target");
}

#[test]
fn a_target_that_does_not_hold_is_told_with_its_input() {
    let told = std::panic::catch_unwind(|| run("small", |input| assert!(input.len() < 3), b"a\xffb")).unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    assert!(told.contains("small does not hold on 3 bytes") && told.ends_with("61ff62"), "{told}");
    run("small", |input| assert!(input.len() < 3), b"a");
    let mut dice = Dice(1);
    let changed: BTreeSet<Vec<u8>> = (0..500).map(|_| dice.change(b"abc", b"defgh")).collect();
    assert!(changed.len() > 300, "only {} different changes", changed.len());
}
