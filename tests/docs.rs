//! Holds the pages for people to the sources: links and anchors, files that are named, keys of the configuration, metrics, routes,
//! error codes, log events, bounds, the code map, vectors, and the commands of the runbook. Where a page has a table of
//! something, the table is complete and nothing in it is made up.
//!
//! It reads Markdown as far as these pages use it: headings, tables, links, code spans and fenced blocks.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.

#[path = "docs/alerts.rs"]
mod alerts;
#[path = "docs/coverage.rs"]
mod coverage;
#[path = "docs/dashboards.rs"]
mod dashboards;
#[path = "docs/events.rs"]
mod events;
#[path = "docs/expressions.rs"]
mod expressions;
#[path = "docs/reference.rs"]
mod reference;
#[path = "docs/security.rs"]
mod security;
#[path = "docs/statements.rs"]
mod statements;
#[path = "docs/units.rs"]
mod units;
#[path = "docs/walkthroughs.rs"]
mod walkthroughs;

use clap::Parser;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use svc_wallet::api::{resolve, Method, Resolved, Route};
use svc_wallet::config::{Config, Flags, Sources};
use svc_wallet::control::Action;
use svc_wallet::domain::{Account, Code, Entry, LogId, Refusal, Seq, TxId};
use svc_wallet::ring::{slot, Ring};
use svc_wallet::telemetry::names::{Kind, METRICS};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below a directory with one of these extensions, as paths from the root.
fn files(directory: &str, extensions: &[&str]) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(directory)]);
    while let Some(next) = open.pop() {
        for path in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|known| extensions.iter().any(|wanted| *known == **wanted)) {
                found.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Every page for people.
fn pages() -> Vec<String> {
    let mut pages = files("docs", &["md", "mmd"]);
    pages.extend(["README.md", "RUNBOOK.md", "CHANGELOG.md"].map(str::to_owned));
    pages
}

/// The lines of a page outside of fenced blocks, and those inside with the language of their block.
fn split(text: &str) -> (Vec<&str>, Vec<(&str, &str)>) {
    let (mut prose, mut code, mut language) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), language) {
            (Some(opened), None) => language = Some(opened),
            (Some(_), Some(_)) => language = None,
            (None, Some(language)) => code.push((language, line)),
            (None, None) => prose.push(line),
        }
    }
    (prose, code)
}

/// The text of every code span of a line.
fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The anchor of a heading, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = split(text).0.into_iter().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Targets of the links of a page, images included.
fn links(text: &str) -> Vec<String> {
    let prose = split(text).0.join("\n");
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The rows of every table of a page whose first column has this title.
fn rows(page: &str, title: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let (mut found, mut inside) = (Vec::new(), false);
    for line in split(&text).0 {
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.trim_end().strip_suffix('|')) else {
            inside &= line.starts_with("|-");
            continue;
        };
        let cells: Vec<String> = row.split(" |").map(|cell| cell.trim().to_owned()).collect();
        if inside {
            found.push(cells);
        } else {
            inside = cells[0] == title;
        }
    }
    assert!(!found.is_empty(), "{page} has no table whose first column is {title:?}");
    found
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn set<T: Into<String>>(items: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    items.into_iter().map(Into::into).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let alerts = files("ops", &["yml"]).into_iter().map(|path| {
        let links = read(&path).split('"').filter(|text| text.contains(".md#")).map(|text| format!("../../{text}")).collect();
        (path, links)
    });
    let told: Vec<(String, Vec<String>)> =
        pages().into_iter().map(|page| (page.clone(), links(&read(&page)))).chain(alerts).collect();
    assert!(told.iter().map(|(_, links)| links.len()).sum::<usize>() > 50, "the links were not found");
    for (page, targets) in told {
        for target in targets.iter().filter(|target| !target.contains("://")) {
            let (file, wanted) = target.split_once('#').map_or((target.as_str(), None), |(file, wanted)| (file, Some(wanted)));
            let path = if file.is_empty() { PathBuf::from(&page) } else { Path::new(&page).parent().unwrap().join(file) };
            let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
                wrong.push(format!("{page}: {target} leads to no file"));
                continue;
            };
            if wanted.is_some_and(|wanted| !anchors(&text).contains(wanted)) {
                wrong.push(format!("{page}: {target} leads to no heading"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_file_that_is_named_exists() {
    const FOLDERS: [&str; 8] = ["src/", "tests/", "docs/", "configs/", "benches/", "loadtest/", "ops/", ".ci/"];
    let mut named = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        for path in
            split(&text).0.into_iter().flat_map(spans).filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder)))
        {
            named += 1;
            // What stands behind two colons is the name of a test, which is looked for elsewhere.
            let file = path.split(' ').next().unwrap().split("::").next().unwrap();
            if !root().join(file).exists() {
                wrong.push(format!("{page}: {path} does not exist"));
            }
        }
    }
    assert!(named > 50, "the named files were not found");
    none(&wrong);
}

#[test]
fn nothing_is_left_to_be_written_and_no_path_of_some_machine_is_named() {
    const ROOTS: [&str; 18] = [
        "/v1",
        "/wallet",
        "/healthz",
        "/readyz",
        "/metrics",
        "/version",
        "/status",
        "/policy",
        "/registry",
        "/console",
        "/faults",
        "/revocations",
        "/etc/",
        "/var/",
        "/tmp/",
        "/proc/",
        "/run/",
        "/usr/",
    ];
    let markers = [concat!("TO", "DO"), concat!("TB", "D"), concat!("FIX", "ME"), "lorem", "coming soon", "to be filled"];
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        wrong.extend(markers.iter().filter(|marker| text.contains(**marker)).map(|marker| format!("{page}: {marker}")));
        for (number, line) in text.lines().enumerate() {
            let words = line.split(|letter: char| letter.is_whitespace() || "`\"'()=|,".contains(letter));
            for word in words.filter(|word| word.starts_with('/') && word.len() > 1) {
                let known = ROOTS.iter().any(|root| word.starts_with(root))
                    || Action::ALL.iter().any(|action| action.path() == word)
                    || ["/PATH", "/bin/kill"].contains(&word);
                if !known {
                    wrong.push(format!("{page}:{}: {word} is a path that readers do not have", number + 1));
                }
            }
            let numbered =
                |word: &str| ["issue #", "issue no", "ticket ", "pull request"].iter().any(|known| word.contains(known));
            if numbered(&line.to_lowercase()) {
                wrong.push(format!("{page}:{}: names something that readers do not see", number + 1));
            }
        }
    }
    none(&wrong);
}

const REQUIRED: [&str; 4] = [
    "deps.ledger_sock=embedded:./l",
    "deps.accounting_sock=embedded:./a",
    "deps.registry_url=file:./r",
    "security.policy_file=./p",
];

/// The effective configuration with these flags on top of what is required: key to value.
fn configured(flags: &[String]) -> BTreeMap<String, serde_json::Value> {
    let set = REQUIRED.iter().map(|flag| (*flag).to_owned()).chain(flags.iter().cloned()).collect();
    let config = Config::load(&Sources { flags: Flags { config: None, set }, env: &|_| None, files_default: &[] });
    config
        .unwrap_or_else(|error| panic!("{flags:?}: {error}"))
        .describe()
        .into_iter()
        .map(|one| (one.key.into(), one.value))
        .collect()
}

#[test]
fn the_keys_of_the_configuration_are_those_that_are_documented() {
    let rows = rows("docs/CONFIG.md", "key");
    let effective = configured(&[]);
    let documented: Vec<String> = rows.iter().map(|row| spans(&row[0])[0].to_owned()).collect();
    assert_eq!(set(documented.clone()), set(effective.keys().cloned()));
    assert_eq!(documented.len(), effective.len(), "a key is documented twice");
    for row in &rows {
        let key = spans(&row[0])[0];
        match spans(&row[1]).first() {
            Some(default) => {
                let given = configured(&[format!("{key}={default}")]);
                assert_eq!(given[key], effective[key], "the documented default of {key}");
            }
            None if row[1] == "none" => assert!(effective[key].is_null(), "{key} has a default"),
            None => assert!(REQUIRED.iter().any(|flag| flag.starts_with(key)), "{key} is not required"),
        }
    }
    let asked = RefCell::new(BTreeSet::new());
    let env = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    let _ = Config::load(&Sources { flags: Flags::default(), env: &env, files_default: &[] });
    let told = rows.iter().flat_map(|row| spans(&row[2]).into_iter().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(set(told.chain(["RON_CONFIG".to_owned()])), asked.into_inner());
    for name in ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK"] {
        assert!(read("RUNBOOK.md").contains(name), "{name}");
    }
}

#[test]
fn what_is_said_to_be_refused_is_refused() {
    for row in rows("docs/CONFIG.md", "value") {
        let (key, value) = spans(&row[0])[0].split_once(" = ").unwrap();
        let value = value.trim_matches('"').replace("...", if value.contains("http") { "host:80" } else { "/x" });
        let set = REQUIRED.iter().map(|flag| (*flag).to_owned()).chain([format!("{key}={value}")]).collect();
        let config = Config::load(&Sources { flags: Flags { config: None, set }, env: &|_| None, files_default: &[] }).unwrap();
        let problems = config.supported().unwrap_err().problems;
        assert_eq!(problems.iter().map(|problem| problem.subject.as_str()).collect::<Vec<_>>(), [key]);
    }
}

#[test]
fn the_metrics_are_those_that_are_documented() {
    let kind = |kind: Kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let listed = rows("docs/OBSERVABILITY.md", "metric").into_iter().filter(|row| row.len() == 4);
    let documented: Vec<(String, String)> = listed.map(|row| (spans(&row[0])[0].to_owned(), row[1].clone())).collect();
    let exported: Vec<(String, String)> = METRICS.iter().map(|metric| (metric.name.into(), kind(metric.kind).into())).collect();
    assert_eq!(documented, exported, "in the order of the sources");
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    let words = |text: &str| -> Vec<String> {
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').map(str::to_owned).collect()
    };
    for page in pages().into_iter().chain(files("ops", &["yml"])) {
        for word in words(&read(&page)) {
            let name = word.trim_end_matches("_bucket");
            let is_a_file = ["wallet_topology", "wallet_test"].contains(&name);
            let like_a_metric = (name.starts_with("wallet_") && !is_a_file) || name.ends_with("_total");
            assert!(!like_a_metric || names.contains(name), "{page}: {word} is no metric");
        }
    }
}

/// The paths of the API.
fn served() -> BTreeSet<String> {
    let mut served = BTreeSet::from(["/wallet/spend".to_owned()]);
    for route in Route::ALL.into_iter().filter(|route| *route != Route::Unknown) {
        let name = match route {
            Route::Tx => "tx/{txid}",
            Route::Proof => "tx/{txid}/proof",
            Route::LedgerRoot => "ledger/root",
            Route::Consistency => "ledger/consistency",
            Route::Entries => "accounts/{account}/entries",
            Route::Totals => "assets/{asset}/totals",
            other => other.as_str(),
        };
        match route.scopes() {
            Some(_) => served.extend([format!("/v1/{name}"), format!("/wallet/{name}")]),
            None => served.extend([format!("/{name}")]),
        }
    }
    served
}

#[test]
fn the_routes_are_those_that_are_documented() {
    let mut documented = BTreeMap::new();
    for row in rows("docs/API.md", "method") {
        for path in spans(&row[1]) {
            let method = if row[0] == "POST" { Method::Post } else { Method::Get };
            let Resolved::Handler(route) = resolve(method, &path.replace("{txid}", "tx_0").replace("{asset}", "roc")) else {
                panic!("{} {path} is no route", row[0])
            };
            let scopes: Vec<String> = spans(&row[2]).into_iter().map(str::to_owned).collect();
            let wanted =
                scopes.iter().filter_map(|scope| svc_wallet::access::ScopeSet::named(scope)).reduce(|one, other| one.with(other));
            assert_eq!(wanted, route.scopes(), "scopes of {path}");
            documented.insert(path.to_owned(), route);
        }
    }
    assert_eq!(set(documented.into_keys()), served());
}

#[test]
fn the_error_codes_are_those_that_are_documented() {
    let row = |refusal: Refusal| {
        let retryable = if refusal.code.retryable() { "yes" } else { "no" };
        format!("{} {} {retryable}", refusal.code.as_str(), refusal.status)
    };
    let built = Code::ALL.map(|code| row(Refusal::new(code, ""))).into_iter().chain([row(Refusal::too_large(""))]);
    let documented = rows("docs/API.md", "code").into_iter().map(|row| row[..3].join(" "));
    assert_eq!(set(documented), set(built));
}

/// Every event that is logged.
fn logged() -> BTreeSet<String> {
    let mut logged = BTreeSet::new();
    for path in files("src", &["rs"]) {
        for rest in read(&path).split("event = \"").skip(1) {
            logged.insert(rest.split('"').next().unwrap().to_owned());
        }
    }
    logged
}

#[test]
fn the_log_events_are_those_that_are_documented() {
    let documented = rows("docs/OBSERVABILITY.md", "event").into_iter().map(|row| spans(&row[0])[0].to_owned());
    assert_eq!(set(documented), logged());
}

#[test]
fn the_bounds_are_those_of_the_sources() {
    for row in rows("docs/CONCURRENCY.md", "constant") {
        let (name, value, file) = (spans(&row[0])[0], spans(&row[1])[0], spans(&row[2])[0]);
        let text = read(file);
        let line = text.lines().find(|line| line.contains(&format!("const {name}: ")));
        let line = line.unwrap_or_else(|| panic!("{file} has no {name}"));
        assert!(line.ends_with(&format!(" = {value};")), "{file}: {line}");
    }
}

#[test]
fn the_code_map_has_every_module() {
    let mapped = rows("docs/ARCHITECTURE.md", "folder").into_iter().map(|row| spans(&row[0])[0].to_owned());
    let mapped = set(mapped.filter(|folder| folder.starts_with("src/")));
    let folders = std::fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    assert_eq!(mapped, set(folders.map(|path| format!("{}/", path.strip_prefix(root()).unwrap().display()))));
    let invariants = rows("docs/ARCHITECTURE.md", "invariant").into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(invariants, (1..=12).map(|number| format!("I-{number}")).collect::<Vec<_>>());
}

#[test]
fn the_vectors_of_the_ring_and_of_transaction_ids_are_right() {
    for row in rows("docs/INTEROP.md", "account") {
        let account = Account::new(spans(&row[0])[0]).unwrap();
        let hash = xxhash_rust::xxh3::xxh3_64(account.as_str().as_bytes());
        let core = |cores| Ring::new(cores).owner(account).0.to_string();
        let expected = [format!("`{hash:016x}`"), slot(account).0.to_string(), core(2), core(3), core(8)];
        assert_eq!(row[1..], expected, "{account}");
        let formula = |cores: u64| ((hash >> 50) * cores / 16_384).to_string();
        assert_eq!([core(2), core(3), core(8)], [formula(2), formula(3), formula(8)], "as the page tells gateways to compute it");
    }
    let text = read("docs/INTEROP.md");
    let hex: String = split(&text).1.into_iter().filter(|(language, _)| *language == "hex").map(|(_, line)| line).collect();
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
    let (entry, rest) = Entry::parse(&bytes).unwrap();
    assert!(rest.is_empty());
    for row in rows("docs/INTEROP.md", "position") {
        let seq = Seq(row[0].parse().unwrap());
        let id = TxId::new(LogId(*b"0123456789abcdef"), seq, &entry);
        assert_eq!(row[1..], [format!("`{:016x}`", id.check), format!("`{id}`")]);
    }
}

#[test]
fn the_commands_of_ronctl_are_understood() {
    let mut seen = 0;
    for page in pages() {
        let text = read(&page);
        let lines = split(&text).1.into_iter().filter(|(language, _)| *language == "sh").map(|(_, line)| line);
        for line in lines.filter(|line| line.contains("ronctl ")) {
            let (_, command) = line.split_once("ronctl ").unwrap();
            let command = command.split([')', '>', '<', '#', '|', ';']).next().unwrap();
            let words = command.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
            let parsed = svc_wallet::operator::Cli::try_parse_from(std::iter::once("ronctl").chain(words));
            assert!(parsed.is_ok(), "{page}: {line}\n{}", parsed.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} commands were found");
}

#[test]
fn a_supervisor_is_told_not_to_start_a_server_that_was_replaced() {
    let code = svc_wallet::control::EXIT_REPLACED;
    let page = read("RUNBOOK.md");
    let unit = read("ops/systemd/svc-wallet.service");
    assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={code}")));
    assert!(page.contains(&format!("\n| {code} | after `FATAL: this server can never write`")));
    assert!(![0, 1, 2, 130, 143].contains(&code), "the code of something else");
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let text = "# A `b`: c-d\ntext `x` [l](f.md#g)\n```sh\nronctl [no](link)\n```\n## E\n";
    assert_eq!(anchors(text), set(["a-b-c-d", "e"]));
    assert_eq!(links(text), ["f.md#g"]);
    assert_eq!(split(text).1, [("sh", "ronctl [no](link)")]);
    assert_eq!(spans("a `b` c `d e`"), ["b", "d e"]);
}
