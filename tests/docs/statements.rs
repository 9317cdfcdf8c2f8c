//! Statements of the pages that are in no table: the promised version of Rust, the sections of the runbook, the picture of the topology, what
//! the product is built from, the protocol of the ledger daemon, the figures of a core, and what has been published once.
use super::{alerts, anchors, configured, files, logged, none, read, root, rows, served, set, spans};
use std::collections::BTreeSet;
use svc_wallet::control::{Action, Page};
use svc_wallet::domain::{Code, Refusal};
use svc_wallet::registry::TOPOLOGY_PATH;
use svc_wallet::telemetry::{names::METRICS, CoreFigures};

#[test]
fn the_promised_version_of_rust_is_told_the_same_everywhere() {
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    assert_eq!(version, "1.80");
    let inherits = |path: &str| read(path).lines().any(|line| line == "rust-version.workspace = true");
    assert!(inherits("Cargo.toml") && inherits("loadtest/Cargo.toml"), "every package promises it");
    assert!(read("README.md").contains(&format!("with Rust {version} or newer")));
    assert!(read("RUNBOOK.md").contains(&format!("| smallest version of Rust | {version}.0 |")));
    assert!(read(".ci/run").contains("cargo \"+$version\" check --locked --workspace"), "it is built with it");
    assert!(read("deny.toml").contains(&format!("and {version} is promised")));
}

#[test]
fn the_runbook_has_the_sections_that_operators_look_for() {
    let there = anchors(&read("RUNBOOK.md"));
    let wanted = [
        "at-a-glance",
        "start",
        "stop",
        "health-and-readiness",
        "what-goes-wrong",
        "look-inside",
        "procedures",
        "capabilities-are-refused",
        "sequence-conflicts",
        "the-ledger-daemon-is-out-of-reach",
        "counters-behind-the-ledger",
        "change-the-policy",
        "files-although-amnesia-is-on",
        "back-up-and-restore",
        "upgrade",
        "practise-failure",
        "scaling-notes",
        "security",
        "checklist-before-traffic",
        "reference",
        "read-on",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|anchor| !there.contains(*anchor)).collect();
    assert!(missing.is_empty(), "RUNBOOK.md lacks {missing:?}");
}

#[test]
fn every_page_is_in_the_index() {
    let index = read("docs/README.md");
    let missing = files("docs", &["md", "mmd", "yaml"]).into_iter().filter(|page| page != "docs/README.md");
    let missing = missing.filter(|page| !index.contains(&format!("({})", page.trim_start_matches("docs/"))));
    none(&missing.map(|page| format!("docs/README.md lacks a row for {page}")).collect::<Vec<_>>());
}

#[test]
fn the_diagram_has_every_part_of_the_runbook() {
    let diagram = read("docs/diagrams/wallet_topology.mmd");
    let parts =
        ["svc-wallet", "svc-gateway", "svc-passport", "ron-auth", "ron-ledger", "ron-accounting", "ron-audit", "svc-registry"];
    let arrows = ["Client[\"client\"] --> Gateway", "caps verify", "-. \"commit", "-. \"counters", "/metrics", "append-only"];
    let missing: Vec<&str> =
        parts.into_iter().chain(arrows).chain(["Prometheus", "svc-rewarder"]).filter(|part| !diagram.contains(part)).collect();
    assert!(missing.is_empty(), "the diagram lacks {missing:?}");
}

#[test]
fn nothing_of_the_stack_is_built_in() {
    let lock = read("Cargo.lock");
    let packages = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let of_the_stack: Vec<&str> = packages.filter(|name| name.starts_with("ron-") || name.starts_with("svc-")).collect();
    assert_eq!(of_the_stack, ["svc-wallet"], "interfaces are sockets and HTTP");
}

#[test]
fn the_parts_that_it_is_built_from_are_used() {
    // The design card names them, each with where it does its work.
    const PARTS: [(&str, &str); 12] = [
        ("monoio", "src/worker"),
        ("serde", "src"),
        ("simd-json", "src/api"),
        ("crossbeam-channel", "src"),
        ("hdrhistogram", "src"),
        ("metrics", "src/telemetry"),
        ("metrics-exporter-prometheus", "src/telemetry"),
        ("tracing", "src"),
        ("ahash", "src"),
        ("zeroize", "src/access"),
        ("macaroon", "src/access"),
        ("criterion", "benches"),
    ];
    let manifest = read("Cargo.toml");
    let mut wrong = Vec::new();
    for (part, folder) in PARTS {
        let name = format!("{}::", part.replace('-', "_"));
        let is_declared = manifest.lines().any(|line| line.starts_with(&format!("{part} = ")));
        if !is_declared || !files(folder, &["rs"]).iter().any(|path| read(path).contains(&name)) {
            wrong.push(format!("{part} is declared and used in {folder}/: that is not so"));
        }
    }
    none(&wrong);
}

#[test]
fn release_builds_can_be_profiled() {
    let manifest = read("Cargo.toml");
    let (_, profile) = manifest.split_once("[profile.release]\n").unwrap();
    let profile = profile.split("\n[").next().unwrap();
    for line in ["debug = \"line-tables-only\"", "strip = false"] {
        assert!(profile.lines().any(|one| one == line), "{line} is gone, and with it the names in profiles");
    }
}

#[test]
fn the_version_of_the_protocol_of_the_daemon_is_told() {
    let source = read("src/ledger/protocol/mod.rs");
    let version = source.split_once("pub const PROTOCOL_VERSION: u32 = ").and_then(|(_, rest)| rest.split_once(';')).unwrap().0;
    let page = read("docs/LEDGER.md");
    assert!(page.contains(&format!("\n## The daemon's protocol\n\nVersion {version}, over a unix stream socket.")), "{version}");
    let upgrade = format!("protocol of the daemon has version {version}: upgrade `svc-wallet` and `ron-ledger` together");
    assert!(read("CHANGELOG.md").contains(&upgrade), "{version}");
}

#[test]
fn the_figures_of_a_core_are_those_that_are_documented() {
    let page = read("docs/OBSERVABILITY.md");
    let (_, told) = page.split_once("and `cores`, one object for each with ").unwrap();
    let told = spans(told.split_once(". ").unwrap().0);
    let figures = serde_json::to_value(CoreFigures::default()).unwrap();
    assert_eq!(set(told), set(figures.as_object().unwrap().keys().cloned()));
}

/// What is offered now, a line for each, as `tests/docs/published.txt` has what was.
fn offered() -> BTreeSet<String> {
    let writes = set(rows("docs/API.md", "method").iter().filter(|row| row[0] == "POST").flat_map(|row| spans(&row[1])));
    let api = served().into_iter().map(|path| format!("endpoint {} {path}", if writes.contains(&path) { "POST" } else { "GET" }));
    let pages = Page::ALL.map(|page| format!("endpoint GET {}", page.path()));
    let actions = Action::ALL.map(|action| format!("endpoint POST {}", action.path()));
    let metrics = METRICS.iter().map(|metric| format!("metric {} {}", format!("{:?}", metric.kind).to_lowercase(), metric.name));
    let code = |refusal: Refusal| {
        format!("code {} {} {}", refusal.code.as_str(), refusal.status, if refusal.code.retryable() { "yes" } else { "no" })
    };
    let codes = Code::ALL.map(|one| code(Refusal::new(one, ""))).into_iter().chain([code(Refusal::too_large(""))]);
    let keys = configured(&[]).into_keys().map(|key| format!("key {key}"));
    let topology = [format!("endpoint GET {TOPOLOGY_PATH}")];
    let events = logged().into_iter().map(|event| format!("event {event}"));
    let alerts = alerts::names().into_iter().map(|alert| format!("alert {alert}"));
    api.chain(pages).chain(actions).chain(metrics).chain(codes).chain(keys).chain(topology).chain(events).chain(alerts).collect()
}

#[test]
fn what_was_published_is_still_there() {
    let offered = offered();
    let text = std::fs::read_to_string(root().join("tests/docs/published.txt")).unwrap();
    let published: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(published.len() > 240, "the list was not read");
    none(
        &published
            .iter()
            .filter(|line| !offered.contains(**line))
            .map(|line| format!("others rely on it, and it is gone: {line}"))
            .collect::<Vec<_>>(),
    );
}
