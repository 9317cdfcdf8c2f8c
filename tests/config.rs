//! Configuration from the outside: the shipped files load, precedence holds, and every bad input is answered with its key,
//! its place and what to do. No test touches the environment of the process.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.

#[path = "config/bad_values.rs"]
mod bad_values;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use svc_wallet::access::Policy;
use svc_wallet::config::check::check;
use svc_wallet::config::{
    AccountingDep, Config, ConfigError, Cores, Driver, Flags, LedgerDep, Origin, Problem, RegistryDep, Sources,
};
use svc_wallet::registry::Registry;

/// The keys that have no default, so that a case can be about something else.
const REQUIRED: &str = r#"
[deps]
ledger_sock = "embedded:./var/ledger"
accounting_sock = "embedded:./var/accounting"
registry_url = "file:./configs/registry.json"
[security]
policy_file = "./configs/policy.json"
"#;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name)
}

fn flags(config: Option<&Path>, set: &[&str]) -> Flags {
    Flags { config: config.map(Path::to_owned), set: set.iter().map(|one| (*one).to_owned()).collect() }
}

fn load_with(config: Option<&Path>, set: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::load(&Sources { flags: flags(config, set), env: &env, files_default: &[] })
}

fn file_of(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let file = file_of(text);
    load_with(Some(file.path()), &[], &[])
}

#[test]
fn the_runbooks_example_loads_with_the_values_it_shows() {
    let config = load_with(Some(&shipped("svc-wallet.example.toml")), &[], &[]).unwrap();
    assert_eq!(config.service.name, "svc-wallet");
    assert_eq!(config.bind.http.to_string(), "0.0.0.0:8080");
    assert_eq!(config.bind.metrics.to_string(), "0.0.0.0:9090");
    assert_eq!(config.bind.admin, None);
    assert_eq!(config.timeouts.read, Duration::from_secs(3));
    assert_eq!(config.timeouts.write, Duration::from_secs(3));
    assert_eq!(config.timeouts.idle, Duration::from_secs(10));
    assert_eq!(
        (config.limits.inflight, config.limits.body_bytes_max, config.limits.decompress_ratio_max),
        (1_024, 1_048_576, 10)
    );
    assert_eq!(config.deps.ledger, LedgerDep::Unix("/var/run/ron/ledger.sock".into()));
    assert_eq!(config.deps.accounting, AccountingDep::Unix("/var/run/ron/accounting.sock".into()));
    assert_eq!(config.deps.registry, RegistryDep::Http("http://svc-registry:8080".into()));
    assert!(!config.security.amnesia && config.security.require_caps);
    assert_eq!(config.security.policy_file, Path::new("/etc/ron/policy.d/wallet.policy.json"));
    let buckets = [5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 250.0, 400.0, 800.0, 1_600.0];
    assert_eq!(config.metrics.latency_buckets_ms, buckets);
    assert!(!config.feature_flags.tor && !config.feature_flags.legacy_pay);
}

#[test]
fn the_shipped_policy_and_topology_load() {
    let policy = Policy::load(&shipped("policy.json")).unwrap();
    let topology = Registry::load(&shipped("registry.json")).unwrap();
    assert_eq!((policy.version(), topology.version()), (1, 1));
}

#[test]
fn the_runbooks_example_can_be_run_and_what_is_changed_to_the_impossible_is_told_with_its_line() {
    load_with(Some(&shipped("svc-wallet.example.toml")), &[], &[]).unwrap().supported().unwrap();
    let text = std::fs::read_to_string(shipped("svc-wallet.example.toml")).unwrap().replace("tor = false", "tor = true");
    let file = file_of(&text);
    let told = load_with(Some(file.path()), &[], &[]).unwrap().supported().unwrap_err().to_string();
    let line = text.lines().position(|line| line.starts_with("tor = true")).unwrap() + 1;
    assert!(told.contains(&format!("{}:{line}", file.path().display())), "{told}");
}

#[test]
fn the_shipped_configuration_loads_and_can_be_run() {
    let config = load_with(Some(&shipped("svc-wallet.toml")), &[], &[]).unwrap();
    config.supported().unwrap();
    assert_eq!(config.bind.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.bind.metrics.to_string(), "127.0.0.1:9090");
    assert_eq!(config.bind.admin.as_deref(), Some(Path::new("./var/admin.sock")));
    assert_eq!(config.deps.ledger, LedgerDep::Embedded("./var/ledger".into()));
    assert_eq!(config.deps.registry, RegistryDep::File("./configs/registry.json".into()));
}

#[test]
fn the_files_that_the_shipped_configuration_names_are_json() {
    for file in ["registry.json", "policy.json"] {
        let text = std::fs::read_to_string(shipped(file)).unwrap_or_else(|error| panic!("configs/{file}: {error}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("configs/{file}: {error}"));
    }
}

#[test]
fn the_shipped_configuration_gives_every_key() {
    let config = load_with(Some(&shipped("svc-wallet.toml")), &[], &[]).unwrap();
    for described in config.describe() {
        assert!(matches!(described.origin, Origin::File { .. }), "{} is not in configs/svc-wallet.toml", described.key);
    }
}

#[test]
fn defaults_are_those_of_the_runbook() {
    let config = load_text(REQUIRED).unwrap();
    assert_eq!(config.bind.http.to_string(), "0.0.0.0:8080");
    assert_eq!(config.bind.metrics.to_string(), "0.0.0.0:9090");
    assert_eq!(config.timeouts.read, Duration::from_millis(3_000));
    assert_eq!(config.timeouts.write, Duration::from_millis(3_000));
    assert_eq!(config.timeouts.idle, Duration::from_millis(10_000));
    assert_eq!((config.limits.inflight, config.limits.body_bytes_max, config.limits.decompress_ratio_max), (1_024, 1 << 20, 10));
    assert_eq!((config.limits.connections, config.limits.pipeline_depth), (16_384, 64));
    assert!(config.limits.inflight_per_endpoint.is_empty());
    assert_eq!((config.runtime.cores, config.runtime.driver), (Cores::Auto, Driver::Auto));
    assert_eq!(config.security.audience, "svc-wallet");
    assert_eq!(config.ledger.segment_bytes, 64 << 20);
    assert_eq!((config.idempotency.ttl, config.idempotency.keys_max), (Duration::from_secs(86_400), 4_000_000));
}

#[test]
fn the_stronger_source_wins() {
    let text = format!("{REQUIRED}amnesia = \"off\"\n[limits]\ninflight = 7\n");
    let file = file_of(&text);
    let origin_of = |set: &[&str], env: &[(&str, &str)], key: &str| {
        let config = load_with(Some(file.path()), set, env).unwrap();
        let value = config.describe().into_iter().find(|described| described.key == key).unwrap().value;
        (value.to_string(), config.origin(key).clone())
    };
    let line = |line| Origin::File { path: file.path().to_owned(), line };
    assert_eq!(origin_of(&[], &[], "limits.inflight"), ("7".into(), line(10)));
    assert_eq!(origin_of(&["limits.inflight=9"], &[], "limits.inflight"), ("9".into(), Origin::Flag));
    assert_eq!(origin_of(&["limits.inflight=9", "limits.inflight=8"], &[], "limits.inflight"), ("8".into(), Origin::Flag));
    assert_eq!(origin_of(&[], &[("AMNESIA", "on")], "security.amnesia"), ("\"on\"".into(), Origin::Env("AMNESIA")));
    assert_eq!(origin_of(&[], &[("AMNESIA", "")], "security.amnesia"), ("\"off\"".into(), line(8)));
    assert_eq!(origin_of(&["security.amnesia=off"], &[("AMNESIA", "on")], "security.amnesia"), ("\"off\"".into(), Origin::Flag));
    let env_of_key = [
        ("POLICY_FILE", "security.policy_file", "/p.json"),
        ("REGISTRY_URL", "deps.registry_url", "http://r:1"),
        ("LEDGER_SOCK", "deps.ledger_sock", "unix:///l.sock"),
        ("ACCOUNTING_SOCK", "deps.accounting_sock", "unix:///a.sock"),
    ];
    for (name, key, value) in env_of_key {
        assert_eq!(origin_of(&[], &[(name, value)], key), (format!("{value:?}"), Origin::Env(name)));
    }
    assert_eq!(origin_of(&[], &[], "limits.connections"), ("16384".into(), Origin::Default));
}

#[test]
fn the_file_is_named_by_flag_then_environment_then_default() {
    let numbered = |number: u32| file_of(&format!("{REQUIRED}[limits]\ninflight = {number}\n"));
    let (by_flag, by_env, by_default) = (numbered(1), numbered(2), numbered(3));
    let inflight = |flag: Option<&Path>, env: Option<&Path>, default: &[&Path]| {
        let env = |name: &str| env.filter(|_| name == "RON_CONFIG").map(|path| path.display().to_string());
        let files: Vec<&str> = default.iter().map(|path| path.to_str().unwrap()).collect();
        let sources = Sources { flags: flags(flag, &[]), env: &env, files_default: &files };
        Config::load(&sources).map(|config| config.limits.inflight)
    };
    let (flag, env, default) = (Some(by_flag.path()), Some(by_env.path()), by_default.path());
    assert_eq!(inflight(flag, env, &[default]), Ok(1));
    assert_eq!(inflight(None, env, &[default]), Ok(2));
    assert_eq!(inflight(None, None, &[default]), Ok(3));
    let absent = Path::new("/nonexistent/svc-wallet.toml");
    // The first default that is there counts. One that is not there is no file; a named one that is not there is an error.
    assert_eq!(inflight(None, None, &[absent, default, by_flag.path()]), Ok(3));
    let error = inflight(None, None, &[absent, Path::new("/nonexistent/either.toml")]).unwrap_err();
    assert_eq!((error.problems.len(), error.problems[0].subject.as_str()), (5, "--config"), "{error}");
    for part in ["no /nonexistent/svc-wallet.toml and no /nonexistent/either.toml", "RON_CONFIG", "LEDGER_SOCK"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let error = inflight(Some(absent), None, &[default]).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/svc-wallet.toml: cannot be read"), "{error}");
    let error = load_with(Some(absent), &[], &[]).unwrap_err();
    assert_eq!(error.problems.len(), 1, "what the file would have said is no problem of its own: {error}");
}

#[test]
fn values_are_read_as_people_write_them() {
    let text = format!(
        "{REQUIRED}amnesia = false\n[timeouts]\nread_ms = \"3s\"\nwrite_ms = \"250ms\"\nidle_ms = \"10_000\"\n\
         [limits]\ninflight = \"2_048\"\nbody_max_bytes = \"1_048_576\"\nconnections = 1_000\n\
         [runtime]\ncores = [0, 3]\ndriver = \"epoll\"\n[ledger]\nsegment_bytes = \"64 MiB\"\n\
         [idempotency]\nttl = \"90m\"\n[metrics]\nlatency_buckets_ms = [0.5, 1, 2.5]\n\
         [bind]\nhttp = \"[::1]:8080\"\nadmin = \"unix:///run/ron/admin.sock\"\n"
    );
    let config = load_text(&text).unwrap();
    assert_eq!(config.timeouts.read, Duration::from_secs(3));
    assert_eq!(config.timeouts.write, Duration::from_millis(250));
    assert_eq!(config.timeouts.idle, Duration::from_secs(10));
    assert_eq!((config.limits.inflight, config.limits.body_bytes_max, config.limits.connections), (2_048, 1 << 20, 1_000));
    assert_eq!((config.runtime.cores, config.runtime.driver), (Cores::List(vec![0, 3]), Driver::Epoll));
    assert_eq!(config.ledger.segment_bytes, 64 << 20);
    assert_eq!(config.idempotency.ttl, Duration::from_secs(5_400));
    assert_eq!(config.metrics.latency_buckets_ms, [0.5, 1.0, 2.5]);
    assert_eq!(config.bind.http.to_string(), "[::1]:8080");
    assert_eq!(config.bind.admin.as_deref(), Some(Path::new("/run/ron/admin.sock")));
}

#[test]
fn every_key_can_be_set_by_a_flag_in_the_form_in_which_it_is_shown() {
    let config = load_with(Some(&shipped("svc-wallet.toml")), &[], &[]).unwrap();
    let described = config.describe();
    let set: Vec<String> = described.iter().map(|one| format!("{}={}", one.key, one.shown.trim_matches('"'))).collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let again = load_with(None, &set, &[]).unwrap();
    for (before, after) in described.iter().zip(again.describe()) {
        assert_eq!((before.key, &before.shown, &before.value), (after.key, &after.shown, &after.value));
        assert_eq!(after.origin, Origin::Flag, "{}", after.key);
    }
}

#[test]
fn names_that_do_not_exist_are_refused_with_the_one_that_was_meant() {
    let cases = [
        ("[limits]\ninflght = 1\n", "limits.inflght", 2, "did you mean `limits.inflight`?"),
        ("[bind]\nread_ms = 1\n", "bind.read_ms", 2, "did you mean `timeouts.read_ms`?"),
        ("\n\n[security]\namnesa = \"on\"\n", "security.amnesa", 4, "did you mean `security.amnesia`?"),
        ("[limit]\ninflight = 1\n", "[limit]", 1, "did you mean [limits]?"),
        ("[features]\ntor = true\n", "[features]", 1, "did you mean [feature_flags]?"),
        ("http_addr = \"0.0.0.0:1\"\n", "http_addr", 1, "did you mean `bind.http`?"),
        ("inflight_ceiling = 1\n", "inflight_ceiling", 1, "did you mean `limits.inflight`?"),
        ("[limits.inflight]\nmax = 1\n", "limits.inflight", 1, "a table is not a whole number"),
        ("[[limits]]\ninflight = 1\n", "limits", 1, "stands outside a section"),
    ];
    for (text, subject, line, expected) in cases {
        let file = file_of(text);
        let error = load_with(Some(file.path()), &[], &[]).unwrap_err();
        let problem = error.problems.iter().find(|problem| problem.subject == subject);
        let problem = problem.unwrap_or_else(|| panic!("{subject} is not among {error}"));
        assert_eq!(problem.origin, Some(Origin::File { path: file.path().to_owned(), line }), "{error}");
        assert!(problem.message.contains(expected), "{expected:?} is missing from {:?}", problem.message);
    }
}

#[test]
fn files_that_are_no_toml_are_refused_with_their_line() {
    for (text, line) in [("[limits\n", 1), ("[limits]\ninflight = \n", 2), ("[a]\nx = 1\nx = 2\n", 3), ("[a]\n[a]\n", 2)] {
        let error = load_text(text).unwrap_err();
        let first = &error.problems[0];
        assert!(first.message.starts_with("is not valid TOML: "), "{error}");
        assert!(matches!(&first.origin, Some(Origin::File { line: at, .. }) if *at == line), "{text:?}: {error}");
    }
    let mut binary = tempfile::NamedTempFile::new().unwrap();
    binary.write_all(&[0xff, 0xfe]).unwrap();
    let error = load_with(Some(binary.path()), &[], &[]).unwrap_err();
    assert!(error.to_string().contains("is not UTF-8 text"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let error = load_with(Some(directory.path()), &[], &[]).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let error = load_text(&"#".repeat((1 << 20) + 1)).unwrap_err();
    assert!(error.to_string().contains("is larger than 1048576 bytes"), "{error}");
}

#[test]
fn flags_and_variables_are_held_to_the_same_rules() {
    let file = file_of(REQUIRED);
    let refused = |set: &[&str], env: &[(&str, &str)]| load_with(Some(file.path()), set, env).unwrap_err().to_string();
    let cases = [
        (refused(&["limits.inflight"], &[]), "--set limits.inflight: is not of the form section.key=value"),
        (
            refused(&["limits.inflght=1"], &[]),
            "limits.inflght (flag --set): there is no such key; did you mean `limits.inflight`?",
        ),
        (refused(&["limits.inflight=none"], &[]), "limits.inflight (flag --set): \"none\" is not a whole number"),
        (refused(&[], &[("AMNESIA", "perhaps")]), "security.amnesia (env AMNESIA): \"perhaps\" is neither on nor off"),
        (refused(&[], &[("LEDGER_SOCK", "here")]), "deps.ledger_sock (env LEDGER_SOCK): \"here\" is neither"),
        (refused(&[], &[("RON_CONFIG", "/nonexistent"), ("REGISTRY_URL", "x")]), "deps.registry_url (env REGISTRY_URL)"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{expected:?} is missing from {error:?}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error =
        load_text("[limits]\ninflight = 0\nconnexions = 1\n[timeouts]\nread_ms = \"x\"\n[security]\nrequire_caps = false\n")
            .unwrap_err();
    let subjects: Vec<&str> = error.problems.iter().map(|problem| problem.subject.as_str()).collect();
    let expected = [
        "limits.connexions",
        "timeouts.read_ms",
        "limits.inflight",
        "deps.ledger_sock",
        "deps.accounting_sock",
        "deps.registry_url",
        "security.require_caps",
        "security.policy_file",
    ];
    assert_eq!(subjects, expected);
    let text = error.to_string();
    assert!(text.starts_with("the configuration cannot be used, 8 problems:\n  - limits.connexions (file "), "{text}");
    assert!(text.contains("has no value and no default; write `ledger_sock` in the file, set LEDGER_SOCK in the environment"));
}

#[test]
fn what_this_version_cannot_do_is_refused_apart_from_loading() {
    let file = file_of(REQUIRED);
    let cases = [
        ("feature_flags.tor=true", if cfg!(feature = "arti") { "arti was built in, and" } else { "arti was not built in, and" }),
        (
            "feature_flags.legacy_pay=true",
            if cfg!(feature = "legacy_pay") { "legacy_pay was built in, and" } else { "legacy_pay was not built in, and" },
        ),
    ];
    for (set, expected) in cases {
        let config = load_with(Some(file.path()), &[set], &[]).unwrap();
        let error = config.supported().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is missing from {error:?}");
    }
    for can_do in ["security.amnesia=on", "deps.registry_url=http://r", "deps.accounting_sock=unix:///a"] {
        load_with(Some(file.path()), &[can_do], &[]).unwrap().supported().unwrap();
    }
    let contradicting = ["security.amnesia=on", "audit.sink=file", "security.kms=env:KEY"];
    let error = load_with(Some(file.path()), &contradicting, &[]).unwrap().supported().unwrap_err().to_string();
    assert!(error.contains("audit.sink (flag --set): files of an audit stream"), "{error}");
    assert!(error.contains("security.kms (flag --set): nothing has to be opened"), "{error}");
}

#[test]
fn a_check_shows_every_value_with_its_origin() {
    let file = file_of(&format!("{REQUIRED}[limits]\ninflight = 7\n"));
    let env = |name: &str| (name == "POLICY_FILE").then(|| "/etc/p.json".to_owned());
    let sources = Sources { flags: flags(Some(file.path()), &["limits.pipeline_depth=9"]), env: &env, files_default: &[] };
    let nothing_around = |_: &Config| Vec::new();
    let report = check(&sources, false, &nothing_around);
    assert!(report.ok, "{}", report.text);
    let line_of = |key: &str| {
        let line = report.text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} is not shown"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line_of("limits.inflight"), ["limits.inflight", "7", "file", &format!("{}:9", file.path().display())]);
    assert_eq!(line_of("limits.pipeline_depth"), ["limits.pipeline_depth", "9", "flag", "--set"]);
    assert_eq!(line_of("security.policy_file"), ["security.policy_file", "\"/etc/p.json\"", "env", "POLICY_FILE"]);
    assert_eq!(line_of("timeouts.read_ms"), ["timeouts.read_ms", "\"3s\"", "default"]);
    let last: Vec<&str> = report.text.lines().rev().take(2).collect();
    assert_eq!(last[1], "The configuration is valid, and this version can run it here.");
    assert!(last[0].starts_with("Seen at the start only: "), "{}", last[0]);

    let report = check(&sources, true, &nothing_around);
    let json: serde_json::Value = serde_json::from_str(&report.text).unwrap();
    assert_eq!(json["ok"], true);
    let values = json["values"].as_array().unwrap();
    let of = |key: &str| values.iter().find(|value| value["key"] == key).unwrap();
    assert_eq!(
        (&of("limits.body_max_bytes")["value"], &of("limits.body_max_bytes")["origin"]),
        (&1_048_576.into(), &"default".into())
    );
    assert_eq!(of("timeouts.idle_ms")["value"], 10_000);
    assert_eq!(of("bind.admin")["value"], serde_json::Value::Null);
}

#[test]
fn a_check_says_what_is_not_used_under_amnesia() {
    let file = file_of(REQUIRED);
    let unused = |set: &[&str]| -> Vec<String> {
        let sources = |as_json| {
            check(&Sources { flags: flags(Some(file.path()), set), env: &|_| None, files_default: &[] }, as_json, &|_| Vec::new())
        };
        let (told, table) = (sources(true), sources(false));
        assert!(told.ok && table.ok, "{}", table.text);
        let told: serde_json::Value = serde_json::from_str(&told.text).unwrap();
        let values = told["values"].as_array().unwrap().iter().filter(|value| value["used"] == false);
        let names: Vec<String> = values.map(|value| value["key"].as_str().unwrap().to_owned()).collect();
        let shown = table.text.lines().filter(|line| line.ends_with(", not used under amnesia"));
        assert_eq!(shown.map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), names);
        names
    };
    let amnesia = "security.amnesia=on";
    let (ledger, counters) = ("deps.ledger_sock=embedded:./l", "deps.accounting_sock=embedded:./c");
    assert_eq!(unused(&[ledger, counters, "audit.path=./a"]), Vec::<String>::new());
    let all = ["deps.ledger_sock", "deps.accounting_sock", "security.keyring", "security.kms", "audit.path"];
    assert_eq!(unused(&[amnesia, ledger, counters, "audit.path=./a"]), all);
    assert_eq!(unused(&[amnesia, "deps.ledger_sock=unix:///l", counters]), all[1..]);
}

#[test]
fn a_check_of_what_cannot_run_says_why() {
    let env = |_: &str| None;
    let example = Sources {
        flags: flags(Some(&shipped("svc-wallet.example.toml")), &["feature_flags.tor=true"]),
        env: &env,
        files_default: &[],
    };
    let nothing_around = |_: &Config| Vec::new();
    let report = check(&example, false, &nothing_around);
    assert!(!report.ok);
    assert!(report.text.contains("bind.http") && report.text.contains("The configuration cannot be used, 1 problem:"));
    let json: serde_json::Value = serde_json::from_str(&check(&example, true, &nothing_around).text).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["subject"], "feature_flags.tor");

    let nothing = Sources { flags: Flags::default(), env: &env, files_default: &[] };
    let report = check(&nothing, true, &|_| unreachable!("there is no configuration to look around with"));
    let json: serde_json::Value = serde_json::from_str(&report.text).unwrap();
    assert!(!report.ok && json["values"].is_null() && json["problems"].as_array().unwrap().len() == 4);
}

#[test]
fn what_stands_in_the_way_around_the_configuration_is_told_with_the_rest() {
    let file = file_of(REQUIRED);
    let env = |_: &str| None;
    let sources = Sources { flags: flags(Some(file.path()), &["feature_flags.tor=true"]), env: &env, files_default: &[] };
    let around = |config: &Config| {
        let key = "security.policy_file";
        vec![Problem { subject: key.to_owned(), origin: Some(config.origin(key).clone()), message: "no such file".to_owned() }]
    };
    let report = check(&sources, false, &around);
    assert!(
        !report.ok && report.text.contains("cannot be used, 2 problems:") && !report.text.contains("is valid"),
        "{}",
        report.text
    );
    let line = format!("  - security.policy_file (file {}:7): no such file\n", file.path().display());
    assert!(report.text.contains(&line), "{}", report.text);
    let json: serde_json::Value = serde_json::from_str(&check(&sources, true, &around).text).unwrap();
    assert_eq!((json["ok"].as_bool(), json["problems"][1]["subject"].as_str()), (Some(false), Some("security.policy_file")));
}
