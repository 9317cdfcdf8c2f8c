//! The rules that the sources keep, checked on the sources: who imports whom, what the pure modules may not touch, how
//! large a file may be, and what may not be left behind. Each check is first shown to fail on a small bad source.
//!
//! Comments, strings and code under `#[cfg(test)]` are blanked first, at the same offsets, so that lines stay right. It
//! does not know types or macros: a rule broken through an alias or a macro of another crate is not seen.
#[path = "architecture/bounds.rs"]
mod bounds;
#[path = "architecture/code.rs"]
mod code;

use code::{blanked, paths, tokens, without_tests, Token};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which modules a module may import, besides itself. The order is that of the layers, lowest first.
const IMPORTS: [(&str, &[&str]); 20] = [
    ("domain", &[]),
    ("stream", &[]),
    ("ring", &["domain"]),
    ("shard", &["domain"]),
    ("engine", &["domain", "ring", "shard"]),
    ("ledger", &["domain", "shard"]),
    ("access", &["domain"]),
    ("http", &[]),
    ("api", &["domain", "access", "http"]),
    // Counters and histograms are plain values of each core; telemetry publishes them, so it stands below the worker.
    ("telemetry", &["domain"]),
    ("config", &["domain", "stream"]),
    ("worker", &["domain", "ring", "shard", "engine", "ledger", "access", "http", "api", "telemetry"]),
    ("registry", &["domain", "stream", "access", "config"]),
    ("accounting", &["domain", "stream", "shard", "ledger", "config", "telemetry"]),
    ("audit", &["domain", "ledger", "config", "telemetry"]),
    ("control", &["*"]),
    ("accountingd", &["domain", "ledger", "config", "control", "accounting"]),
    ("ledgerd", &["domain", "ledger", "config", "telemetry", "control"]),
    ("registryd", &["domain", "stream", "config", "control", "registry"]),
    ("operator", &["*"]),
];

/// Modules that nothing below them may import; `*` above does not include them.
const TOP: [&str; 4] = ["accountingd", "ledgerd", "registryd", "operator"];

/// Modules without clock, randomness, input, output or async, as a whole.
const PURE: [&str; 4] = ["domain", "ring", "shard", "engine"];

/// Files of other modules that are pure as well. Each says so in its header, and no file that is not listed does.
const PURE_FILES: [&str; 22] = [
    "src/http/fields.rs",
    "src/ledger/backoff.rs",
    "src/ledger/batch.rs",
    "src/ledger/books.rs",
    "src/ledger/daemon/session.rs",
    "src/ledger/history/mmr.rs",
    "src/ledger/history/verify.rs",
    "src/ledger/index_format.rs",
    "src/ledger/layout.rs",
    "src/ledger/merge.rs",
    "src/ledger/places.rs",
    "src/ledger/protocol/answers.rs",
    "src/ledger/protocol/audit.rs",
    "src/ledger/protocol/mod.rs",
    "src/ledger/protocol/reply.rs",
    "src/ledger/protocol/request.rs",
    "src/ledger/remote/link.rs",
    "src/ledger/scrub/plan.rs",
    "src/ledger/snapshot/account.rs",
    "src/ledger/snapshot/format.rs",
    "src/ledger/snapshot/tail.rs",
    "src/ledger/verify/repeats.rs",
];

/// Modules through which value goes: in integers only (I-5).
const VALUE: [&str; 6] = ["domain", "ring", "shard", "engine", "ledger", "api"];

/// Paths that a pure file may not name. `std::sync` is among them for its channels and locks: a pure file shares nothing.
const IMPURE: [&[&str]; 19] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "io"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["std", "os"],
    &["std", "sync"],
    &["rand"],
    &["getrandom"],
    &["fastrand"],
    &["crossbeam_channel"],
    &["atomic_waker"],
    &["tracing"],
    &["metrics"],
    &["monoio"],
    &["rustix"],
    &["socket2"],
    &["tokio"],
];

/// The one file of the pure modules that may share something between threads, and so may name `std::sync`.
const SHARED: &str = "src/shard/budgets.rs";

/// What stands under an impure path and is a plain value: addresses are read and written without a network.
const VALUES: [&[&str]; 2] = [&["std", "net", "Ipv4Addr"], &["std", "net", "Ipv6Addr"]];

/// Macros that a pure file may not call.
const IMPURE_MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "thread_local"];

/// Collections whose order is random unless a hasher is given, with the number of their parameters including the hasher.
const HASHED: [(&str, usize); 4] = [("HashMap", 3), ("HashSet", 2), ("AHashMap", 3), ("AHashSet", 2)];

/// What stands before a module that is no part of the product: tests, and what a fuzzer calls.
const TEST_MARKS: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"];

/// Most lines of a file, and of a file under `src/bin`.
const LINES_MAX: usize = 500;
const BIN_LINES_MAX: usize = 59;

/// A source file: its path from the root of the workspace, what is written in it, and the same with everything blanked
/// that is not code of the product.
struct Source {
    path: String,
    text: String,
    code: String,
    is_test: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.starts_with("benches/");
        Self { path: path.to_owned(), text: text.to_owned(), code: without_tests(&blanked(text)), is_test }
    }

    /// The module of the library to which the file belongs: `engine` for `src/engine/lane.rs`.
    fn module(&self) -> Option<&str> {
        let (module, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        (module != "bin").then_some(module)
    }

    fn header(&self) -> String {
        self.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
    }

    fn is_pure(&self) -> bool {
        self.module().is_some_and(|module| PURE.contains(&module)) || PURE_FILES.contains(&&*self.path)
    }

    fn says_pure(&self) -> bool {
        self.header().split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "Pure")
    }
}

/// Files of modules that are declared under one of [`TEST_MARKS`], as paths from the root of the workspace.
fn test_files(source: &Source) -> Vec<String> {
    let code = blanked(&source.text);
    let mut files = Vec::new();
    for start in TEST_MARKS.iter().flat_map(|mark| code.match_indices(mark)).map(|(start, _)| start) {
        let item = &source.text[start..code[start..].find(['{', ';']).map_or(code.len(), |at| start + at)];
        let Some((attributes, name)) = item.rsplit_once("mod ") else { continue };
        let directory = Path::new(&source.path).parent().unwrap_or(Path::new(""));
        let stem = Path::new(&source.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
        let own = if matches!(stem, "mod" | "lib" | "main") { directory.to_owned() } else { directory.join(stem) };
        let named = attributes.split_once("path").and_then(|(_, rest)| rest.split('"').nth(1));
        let paths = match named {
            Some(named) => vec![directory.join(named)],
            None => vec![own.join(format!("{}.rs", name.trim())), own.join(name.trim()).join("mod.rs")],
        };
        files.extend(paths.iter().map(|path| path.display().to_string()));
    }
    files
}

/// What is wrong with one file, as lines `path:line: message`.
fn check(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |line: usize, message: String| wrong.push(format!("{}:{line}: {message}", source.path));
    let lines = source.text.lines().count();
    let lines_max = if source.path.starts_with("src/bin/") { BIN_LINES_MAX } else { LINES_MAX };
    if lines > lines_max {
        say(lines, format!("the file has {lines} lines; split it, {lines_max} is the most"));
    }
    if !source.text.starts_with("//!") {
        say(1, "the file does not begin with a `//!` header that says its role".to_owned());
    }
    if tokens(&blanked(&source.text)).is_empty() {
        say(1, "the file has no code".to_owned());
    }
    for marker in [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X:")] {
        if let Some(at) = source.text.find(marker) {
            say(line_at(&source.text, at), format!("`{marker}` is left behind; do it, or write down why not"));
        }
    }
    let code = if source.is_test { blanked(&source.text) } else { source.code.clone() };
    let tokens = tokens(&code);
    for (at, token) in tokens.iter().enumerate() {
        let follows =
            |texts: &[&str]| texts.iter().enumerate().all(|(n, text)| tokens.get(at + 1 + n).is_some_and(|t| t.text == *text));
        if matches!(token.text, "todo" | "unimplemented" | "dbg") && follows(&["!"]) {
            say(token.line, format!("`{}!` is left behind", token.text));
        }
        if token.text == "." && follows(&["unwrap", "(", ")"]) && !source.is_test {
            say(token.line, "`.unwrap()` outside tests; handle it, or `expect` with why it cannot fail".to_owned());
        }
        if matches!(token.text, "f32" | "f64") && !source.is_test && source.module().is_some_and(|module| VALUE.contains(&module))
        {
            say(token.line, format!("`{}` where value is in integers only", token.text));
        }
        if token.text == "Rfc2822" {
            say(token.line, "dates of RFC 2822 are not parsed here: see RUSTSEC-2026-0009 in deny.toml".to_owned());
        }
        if token.text == "unsafe" && !has_safety_comment(&source.text, token.line) {
            say(token.line, "`unsafe` without a `// SAFETY:` comment before it".to_owned());
        }
    }
    if !source.is_test {
        check_imports(source, &mut say);
        check_purity(source, &mut say);
    }
    wrong.dedup();
    wrong
}

fn check_imports(source: &Source, say: &mut impl FnMut(usize, String)) {
    let Some(module) = source.module() else { return };
    let Some((_, allowed)) = IMPORTS.iter().find(|(known, _)| *known == module) else {
        return say(1, format!("the module `{module}` is not in the table of modules"));
    };
    // `src/engine/mod.rs` is one level below the root of the crate, `src/engine/lane.rs` is two.
    let inner = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inner.split('/').count();
    for (path, line) in paths(&source.code) {
        let supers = path.iter().take_while(|segment| **segment == "super").count();
        let imported = match path.first() {
            Some(&("crate" | "svc_wallet")) => path.get(1),
            Some(&"super") if supers >= depth => path.get(supers),
            Some(_) | None => None,
        };
        let Some(imported) = imported.filter(|imported| **imported != module) else { continue };
        let is_allowed = allowed.contains(imported) || (allowed.contains(&"*") && !TOP.contains(imported));
        if !is_allowed {
            say(line, format!("`{module}` imports `{imported}`, but may import only {allowed:?}"));
        }
    }
}

fn check_purity(source: &Source, say: &mut impl FnMut(usize, String)) {
    match (PURE_FILES.contains(&&*source.path), source.says_pure()) {
        (true, false) => say(1, "a pure file whose header does not say \"Pure\"".to_owned()),
        (false, true) if !source.is_pure() => say(1, "the header says \"Pure\", but the file is not listed as pure".to_owned()),
        (true, true) | (false, true | false) => {}
    }
    if !source.is_pure() {
        return;
    }
    for (path, line) in paths(&source.code) {
        let from_std: Vec<&str> = path.iter().map(|segment| if *segment == "core" { "std" } else { *segment }).collect();
        let impure = IMPURE.iter().any(|impure| from_std.starts_with(impure) && (impure.len() > 1 || path.len() > 1));
        let value = VALUES.iter().any(|value| from_std.starts_with(value));
        let shared = source.path == SHARED && from_std.starts_with(&["std", "sync"]);
        let clock = path.iter().any(|segment| matches!(*segment, "Instant" | "SystemTime")) || from_std == ["std", "time", "*"];
        let random_keys = from_std.starts_with(&["std"]) && path.contains(&"RandomState");
        if (impure && !value && !shared) || clock || random_keys {
            say(line, format!("`{}` in a pure file: no clock, randomness, input, output or threads here", path.join("::")));
        }
        if path.iter().any(|segment| matches!(*segment, "async" | "await")) {
            say(line, "async in a pure file".to_owned());
        }
    }
    let tokens = tokens(&source.code);
    for (at, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
        if IMPURE_MACROS.contains(&token.text) && next(1) == "!" {
            say(token.line, format!("`{}!` in a pure file: no input, output or threads here", token.text));
        }
        if token.text == "RandomState" && next(1) == "::" && next(2) != "with_seeds" {
            say(token.line, "`RandomState` with keys of its own in a pure file; make it `with_seeds`".to_owned());
        }
        let Some((_, parameters)) = HASHED.iter().find(|(name, _)| *name == token.text) else { continue };
        let keyed = match next(1) {
            "::" => matches!(next(2), "with_hasher" | "with_capacity_and_hasher"),
            "<" => parameters_at(&tokens[at + 1..]) == *parameters,
            _ => true,
        };
        if !keyed {
            say(token.line, format!("`{}` with random keys in a pure file; give it a hasher", token.text));
        }
    }
}

/// How many parameters stand between the angle brackets that open here.
fn parameters_at(tokens: &[Token<'_>]) -> usize {
    let (mut depth, mut commas, mut last) = (0usize, 0, "");
    for token in tokens {
        match token.text {
            "<" | "(" | "[" => depth += 1,
            // The arrow of a function type closes nothing.
            ">" if last == "-" => {}
            ">" | ")" | "]" if depth == 1 => return commas + usize::from(last != ","),
            ">" | ")" | "]" => depth -= 1,
            "," if depth == 1 => commas += 1,
            _ => {}
        }
        last = token.text;
    }
    0
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Whether the comment right above the line, attributes aside, or on it, argues why the code is sound.
fn has_safety_comment(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let argues = |line: &&str| line.contains("// SAFETY:");
    let above = lines[..line - 1].iter().rev().take_while(|line| line.trim_start().starts_with(['/', '#']));
    argues(&lines[line - 1]) || above.copied().any(|line| argues(&line))
}

/// All sources of the workspace, with the files of test modules marked.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = Vec::new();
    let mut directories: Vec<PathBuf> = ["src", "tests", "benches", "loadtest"].iter().map(|name| root.join(name)).collect();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.expect("a readable directory").path())
        {
            match entry.is_dir() {
                true if entry.file_name().is_some_and(|name| name != "target") => directories.push(entry),
                false if entry.extension().is_some_and(|extension| extension == "rs") => files.push(entry),
                true | false => {}
            }
        }
    }
    files.sort();
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(root).expect("found below the root").display().to_string();
        Source::new(&path, &std::fs::read_to_string(file).expect("a readable source"))
    };
    let mut sources: Vec<Source> = files.iter().map(read).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        source.is_test |= tests.contains(&source.path);
    }
    sources
}

#[test]
fn every_source_keeps_the_rules() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the sources were not found");
    let wrong: Vec<String> = sources.iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{} rules broken:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_files_that_are_listed_as_pure_are_there() {
    let sources = sources();
    let found: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    for path in &PURE_FILES {
        assert!(found.contains(path), "{path} is listed as pure and does not exist");
    }
    // The tables of files in the headers of the ledger and its folders mark the same ones.
    let roots = sources.iter().filter(|source| source.path.starts_with("src/ledger/") && source.path.ends_with("/mod.rs"));
    let mut marked = BTreeSet::new();
    for root in roots {
        let (header, folder) = (root.header(), root.path.trim_end_matches("mod.rs"));
        let rows = header.lines().filter(|line| line.contains("(pure)"));
        marked.extend(rows.flat_map(|line| line.split('`').skip(1).step_by(2)).map(|name| format!("{folder}{name}.rs")));
    }
    let listed = PURE_FILES.iter().filter(|path| path.starts_with("src/ledger/")).map(|path| (*path).to_owned());
    assert_eq!(marked, listed.collect::<BTreeSet<_>>());
}

#[test]
fn every_module_of_the_library_is_in_the_table() {
    let listed: BTreeSet<&str> = IMPORTS.iter().map(|(module, _)| *module).collect();
    let found = sources();
    let found: BTreeSet<&str> = found.iter().filter_map(Source::module).collect();
    assert!(found.is_subset(&listed), "not in the table: {:?}", found.difference(&listed));
    for (position, (module, allowed)) in IMPORTS.iter().enumerate() {
        let lower: Vec<&str> = IMPORTS[..position].iter().map(|(lower, _)| *lower).collect();
        for import in allowed.iter().filter(|import| **import != "*") {
            assert!(lower.contains(import), "{module} imports {import}, which does not stand below it");
        }
    }
}

#[test]
fn each_rule_is_seen_to_be_broken() {
    let long = format!("//! x\n{}", "fn a() {}\n".repeat(LINES_MAX));
    let long_bin = format!("//! x\n{}", "fn a() {}\n".repeat(BIN_LINES_MAX));
    let marker = concat!("//! x\nfn a() {} // FIX", "ME later\n");
    let cases = [
        ("src/domain/a.rs", "//! x\nuse crate::ring::Slot;\n", ":2: `domain` imports `ring`"),
        ("src/ring/a.rs", "//! x\nuse crate::{domain::Account, shard::{Slice, Hold}};\n", ":2: `ring` imports `shard`"),
        ("src/shard/a.rs", "//! x\nfn a() {\n    crate::engine::step();\n}\n", ":3: `shard` imports `engine`"),
        ("src/shard/mod.rs", "//! x\nuse super::engine::Engine;\n", ":2: `shard` imports `engine`"),
        ("src/shard/a.rs", "//! x\nuse super::super::engine::Engine;\n", ":2: `shard` imports `engine`"),
        ("src/shard/a/b.rs", "//! x\nuse super::super::super::{domain, worker};\n", "`shard` imports `worker`"),
        ("src/http/a.rs", "//! x\nuse crate::domain::Amount;\n", "`http` imports `domain`"),
        ("src/control/a.rs", "//! x\nuse crate::operator::demo;\n", "`control` imports `operator`"),
        ("src/util/a.rs", "//! x\nfn a() {}\n", "the module `util` is not in the table"),
        ("src/engine/a.rs", "//! x\nuse std::time::Instant;\n", "`std::time::Instant` in a pure file"),
        ("src/engine/a.rs", "//! x\nuse std::time::{Duration, SystemTime};\n", "`std::time::SystemTime` in a pure file"),
        ("src/engine/a.rs", "//! x\nuse std::time::*;\n", "`std::time::*` in a pure file"),
        ("src/ring/a.rs", "//! x\nuse std::{fmt, io};\n", "`std::io` in a pure file"),
        ("src/ring/a.rs", "//! x\nfn a() { std::fs::read(\"x\"); }\n", "`std::fs::read` in a pure file"),
        ("src/shard/a.rs", "//! x\nfn a() { getrandom::fill(&mut []); }\n", "`getrandom::fill` in a pure file"),
        ("src/shard/a.rs", "//! x\nasync fn a() {}\n", ":2: async in a pure file"),
        ("src/shard/a.rs", "//! x\nfn a() {\n    eprintln!(\"b\");\n}\n", ":3: `eprintln!` in a pure file"),
        ("src/shard/a.rs", "//! x\nfn a() { b(HashMap::new()) }\n", ":2: `HashMap` with random keys in a pure file"),
        ("src/shard/a.rs", "//! x\nfn a() { b(HashSet::<u8>::new()) }\n", ":2: `HashSet` with random keys in a pure file"),
        ("src/shard/a.rs", "//! x\nstruct A(HashMap<u8, (u8, Vec<u8>)>);\n", ":2: `HashMap` with random keys in a pure file"),
        ("src/ring/a.rs", "//! x\nfn a() { b(c::RandomState::new()) }\n", ":2: `RandomState` with keys of its own"),
        ("src/ring/a.rs", "//! x\nuse std::hash::RandomState;\n", "`std::hash::RandomState` in a pure file"),
        ("src/ring/a.rs", "//! x\nfn a() { tracing::info!(b); }\n", "`tracing::info` in a pure file"),
        ("src/ring/a.rs", "//! x\nuse std::sync::{mpsc};\n", "`std::sync::mpsc` in a pure file"),
        ("src/shard/budgets.rs", "//! x\nuse std::{sync::Mutex, thread};\n", "`std::thread` in a pure file"),
        ("src/ring/a.rs", "//! x\nfn a() { crossbeam_channel::bounded(1); }\n", "`crossbeam_channel::bounded` in a pure file"),
        ("src/ring/a.rs", "//! x\nfn a() { std::env::var(\"b\"); }\n", "`std::env::var` in a pure file"),
        ("src/http/fields.rs", "//! Pure.\nuse std::net::{Ipv6Addr, TcpStream};\n", "`std::net::TcpStream` in a pure file"),
        ("src/ledger/batch.rs", "//! The codec. Pure.\nuse std::fs::File;\n", "`std::fs::File` in a pure file"),
        ("src/ledger/batch.rs", "//! The codec.\nuse std::fmt;\n", ":1: a pure file whose header does not say \"Pure\""),
        ("src/ledger/a.rs", "//! The codec. Pure: bytes only.\nuse std::fmt;\n", ":1: the header says \"Pure\", but"),
        ("src/http/a.rs", "fn a() {}\n", "does not begin with a `//!` header"),
        ("src/http/a.rs", "//! x\n// nothing\n", "the file has no code"),
        ("src/http/a.rs", "//! x\nfn a() { todo!() }\n", "`todo!` is left behind"),
        ("src/http/a.rs", "//! x\nfn a() { dbg!(1); }\n", "`dbg!` is left behind"),
        ("tests/a.rs", "//! x\nfn a() { unimplemented!() }\n", "`unimplemented!` is left behind"),
        ("src/http/a.rs", marker, "is left behind"),
        ("src/http/a.rs", "//! x\nfn a() {\n    b()\n        .unwrap();\n}\n", ":4: `.unwrap()` outside tests"),
        ("src/http/a.rs", "//! x\n#[cfg(test)]\nmod t {}\nfn a() { b().unwrap(); }\n", ":4: `.unwrap()` outside tests"),
        ("src/http/a.rs", "//! x\nfn a() { unsafe { b() } }\n", ":2: `unsafe` without"),
        ("src/http/a.rs", "//! x\n// SAFETY: y\nfn a() {}\nfn c() { unsafe { b() } }\n", ":4: `unsafe` without"),
        ("src/http/a.rs", "//! x\nuse time::format_description::well_known::Rfc2822;\n", ":2: dates of RFC 2822"),
        ("src/ledger/a.rs", "//! x\nfn a(b: u128) -> f64 { c(b) }\n", ":2: `f64` where value is in integers only"),
        ("loadtest/src/a.rs", "//! x\nfn a() { b().unwrap() }\n", "`.unwrap()` outside tests"),
        ("src/http/a.rs", &long, "the file has 501 lines; split it"),
        ("src/bin/a.rs", &long_bin, "the file has 60 lines; split it, 59 is the most"),
    ];
    for (path, text, expected) in cases {
        let wrong = check(&Source::new(path, text));
        assert_eq!(wrong.len(), 1, "{path}: {text:?} gave {wrong:?}");
        assert!(wrong[0].starts_with(path) && wrong[0].contains(expected), "{expected:?} is missing from {wrong:?}");
    }
}

#[test]
fn what_only_looks_like_a_broken_rule_is_let_through() {
    let cases = [
        ("src/engine/a.rs", "//! x\nuse crate::engine::b;\nuse crate::{domain::A, ring::B, shard::C};\n"),
        ("src/engine/a.rs", "//! x\nuse super::b;\nuse std::time::Duration;\nuse std::collections::VecDeque;\n"),
        (
            "src/engine/a.rs",
            "//! x\n// std::fs is not for us, nor crate::worker.\nconst A: &str = \"std::fs::read().unwrap()\";\n",
        ),
        (
            "src/engine/a.rs",
            "//! x\nconst A: &str = r#\"a \" crate::worker\"#;\nconst B: char = '\"';\nfn a<'a>(b: &'a str) {}\n",
        ),
        ("src/engine/a.rs", "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn b() { c().unwrap(); }\n}\n"),
        ("src/engine/a.rs", "//! x\n/* outer /* inner */ crate::worker */\nfn a(b: u64) { let rand = b; c(rand) }\n"),
        ("src/ledger/a.rs", "//! Segments on disk. Not the purely logical part.\nuse std::fs::File;\n"),
        (
            "src/http/a.rs",
            "//! x\n// SAFETY: the slice has been checked,\n// as the caller promised.\n#[allow(unsafe_code)]\nfn a() { unsafe { b() } }\n",
        ),
        (
            "src/shard/a.rs",
            "//! x\nstruct A(HashMap<u8, B<C, fn(u8) -> u8>, RandomState>);\nfn a() { A(HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4))) }\n",
        ),
        ("src/http/a.rs", "//! x\nfn a() { println!(\"{:?}\", HashMap::<u8, u8>::new()); b().unwrap_or(1); todo(); }\n"),
        ("tests/a.rs", "//! x\nuse std::fs;\nfn a() { b().unwrap() }\n"),
        ("src/shard/budgets.rs", "//! x\nuse std::sync::{Arc, Mutex};\n"),
        ("src/access/a.rs", "//! x\n// As f64.\nfn a(b: f64) -> bool { b > 0.5 }\n"),
        ("src/operator/a.rs", "//! x\nuse crate::{access as a, config, control, ledger};\n"),
    ];
    for (path, text) in cases {
        assert_eq!(check(&Source::new(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn files_of_test_modules_are_found_where_they_are_declared() {
    let text = "//! x\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod others;\nmod product;\n";
    let expected = ["src/a/tests.rs", "src/a/tests/mod.rs", "src/a/b_tests.rs"];
    assert_eq!(test_files(&Source::new("src/a/mod.rs", text)), expected);
    assert_eq!(test_files(&Source::new("src/a/b.rs", text))[..2], ["src/a/b/tests.rs", "src/a/b/tests/mod.rs"]);
}
