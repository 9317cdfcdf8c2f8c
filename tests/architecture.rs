//! The rules that the sources keep, checked on the sources: who imports whom, what the pure modules may not touch, how
//! large a file may be, and what may not be left behind. Each check is first shown to fail on a small bad source.
//!
//! Comments, strings and code under `#[cfg(test)]` are blanked first, at the same offsets, so that lines stay right. It
//! does not know types or macros: a rule broken through an alias or a macro of another crate is not seen.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which modules a module may import, besides itself. The order is that of the layers, lowest first.
const IMPORTS: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("ring", &["domain"]),
    ("shard", &["domain"]),
    ("engine", &["domain", "ring", "shard"]),
    ("ledger", &["domain", "shard"]),
    ("access", &["domain"]),
    ("http", &[]),
    ("api", &["domain", "access", "http"]),
    // Counters and histograms are plain values of each core; telemetry publishes them, so it stands below the worker.
    ("telemetry", &["domain"]),
    ("config", &["domain"]),
    ("worker", &["domain", "ring", "shard", "engine", "ledger", "access", "http", "api", "telemetry"]),
    ("registry", &["domain", "ring", "config", "telemetry"]),
    ("accounting", &["domain", "shard", "ledger", "config", "telemetry"]),
    ("audit", &["domain", "ledger", "config", "telemetry"]),
    ("control", &["*"]),
    ("operator", &["*"]),
];

/// Modules that nothing below them may import; `*` above does not include them.
const TOP: [&str; 1] = ["operator"];

/// Modules without clock, randomness, input, output or async, as a whole.
const PURE: [&str; 4] = ["domain", "ring", "shard", "engine"];

/// Paths that a pure file may not name.
const IMPURE: [&[&str]; 14] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "io"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["std", "os"],
    &["rand"],
    &["getrandom"],
    &["fastrand"],
    &["monoio"],
    &["rustix"],
    &["socket2"],
    &["tokio"],
];

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
        let Some(module) = self.module() else { return false };
        let says_pure = || self.header().split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "Pure");
        PURE.contains(&module) || (module == "ledger" && says_pure())
    }
}

/// Replaces comments and the contents of literals by spaces; byte offsets and line feeds stay.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => text_end(bytes, at),
            b'r' if !is_word_before(bytes, at) => raw_text_end(bytes, at).unwrap_or(at),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole literals and comments were replaced")
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(what)).unwrap_or(bytes.len())
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn text_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_text_end(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = from + 1 + hashes;
    (bytes.get(open) == Some(&b'"')).then(|| {
        let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        (find(bytes, open + 1, &close) + close.len()).min(bytes.len())
    })
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], from: usize) -> Option<usize> {
    if bytes.get(from + 1) == Some(&b'\\') {
        return Some(find(bytes, from + 3, b"'") + 1);
    }
    let close = find(bytes, from + 1, b"'");
    let inner = std::str::from_utf8(bytes.get(from + 1..close)?).ok()?;
    (close < bytes.len() && inner.chars().count() == 1).then_some(close + 1)
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || (bytes[at - 1] == b'_'))
}

/// Blanks every item that stands under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let body = out[start..].find(['{', ';']).map_or(out.len(), |at| start + at);
        let mut depth = 0i32;
        let mut end = out.len();
        for (at, letter) in out[body..].char_indices() {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            if depth == 0 {
                end = body + at + letter.len_utf8();
                break;
            }
        }
        let blank: String = out[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Files of modules that are declared under `#[cfg(test)]`, as paths from the root of the workspace.
fn test_files(source: &Source) -> Vec<String> {
    let code = blanked(&source.text);
    let mut files = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
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

/// A word or a sign of the code with the line on which it stands.
#[derive(Clone, Copy, PartialEq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
            let length = match first {
                _ if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push(Token { text: &rest[..length], line: index + 1 });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Every path that the code names, with groups of `use` written out, and the line on which it ends.
fn paths(code: &str) -> Vec<(Vec<&str>, usize)> {
    let tokens = tokens(code);
    let (mut paths, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = path_at(&tokens, at, &[], &mut paths);
    }
    paths
}

/// Reads one path, or one branch of a group, and returns where it ends.
fn path_at<'a>(tokens: &[Token<'a>], from: usize, prefix: &[&'a str], paths: &mut Vec<(Vec<&'a str>, usize)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let is_word = |at: usize| text(at).starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if !is_word(from) {
        return from + 1;
    }
    if text(from) == "as" && !prefix.is_empty() {
        return from + 2;
    }
    let (mut path, mut at) = ([prefix, &[text(from)]].concat(), from + 1);
    while text(at) == "::" {
        if text(at + 1) == "{" {
            at += 2;
            while at < tokens.len() && text(at) != "}" {
                at = path_at(tokens, at, &path, paths);
            }
            return at + 1;
        }
        if !is_word(at + 1) && text(at + 1) != "*" {
            break;
        }
        path.push(text(at + 1));
        at += 2;
    }
    paths.push((path, tokens[at - 1].line));
    at
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
    if !source.is_pure() {
        return;
    }
    for (path, line) in paths(&source.code) {
        let from_std: Vec<&str> = path.iter().map(|segment| if *segment == "core" { "std" } else { *segment }).collect();
        let impure = IMPURE.iter().any(|impure| from_std.starts_with(impure) && (impure.len() > 1 || path.len() > 1));
        let clock = path.iter().any(|segment| matches!(*segment, "Instant" | "SystemTime")) || from_std == ["std", "time", "*"];
        if impure || clock {
            say(line, format!("`{}` in a pure file: no clock, randomness, input, output or threads here", path.join("::")));
        }
        if path.iter().any(|segment| matches!(*segment, "async" | "await")) {
            say(line, "async in a pure file".to_owned());
        }
    }
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
        ("src/ledger/a.rs", "//! The codec. Pure: bytes only.\nuse std::fs::File;\n", "`std::fs::File` in a pure file"),
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
        ("src/http/a.rs", "//! x\nfn a() { b().unwrap_or(1); todo(); }\n"),
        ("tests/a.rs", "//! x\nuse std::fs;\nfn a() { b().unwrap() }\n"),
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
