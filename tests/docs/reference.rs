//! RUNBOOK.md and the product name the same things: the tables of its reference are complete and nothing in them is made up, and every
//! metric, key, path and alert that is named elsewhere on the page is there.
use super::{alerts, configured, none, read, rows, served, set, spans, split};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use std::collections::BTreeSet;
use svc_wallet::control::{Action, Page};
use svc_wallet::operator::Cli;
use svc_wallet::registry::TOPOLOGY_PATH;
use svc_wallet::telemetry::names::METRICS;

const PAGE: &str = "RUNBOOK.md";
/// Where files of a machine are, which are no endpoints.
const FOLDERS: [&str; 6] = ["/etc/", "/var/", "/usr/", "/proc/", "/run/", "/tmp/"];

/// What is named in the first cells of the table with this title, once each.
fn named(title: &str) -> BTreeSet<String> {
    let all: Vec<String> =
        rows(PAGE, title).iter().flat_map(|row| spans(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>()).collect();
    let names = set(all.clone());
    assert_eq!(names.len(), all.len(), "the table of each {title} in {PAGE} has one of them twice");
    names
}

/// Fails with the rows that have to be added to a table or taken out of it.
fn compare(title: &str, product: &BTreeSet<String>) {
    let named = named(title);
    let missing = product.difference(&named).map(|name| {
        format!("{PAGE}, Reference: the table \"{title}\" lacks a row `{name}`; add it, with a word on what an operator does with it and a link")
    });
    let made_up = named
        .difference(product)
        .map(|name| format!("{PAGE}, Reference: the table \"{title}\" has `{name}`, which does not exist"));
    none(&missing.chain(made_up).collect::<Vec<_>>());
    for row in rows(PAGE, title) {
        assert!(row.iter().all(|cell| !cell.is_empty()), "{PAGE}: {row:?} says nothing of what it names");
    }
}

fn metrics() -> BTreeSet<String> {
    set(METRICS.iter().map(|metric| metric.name))
}

fn keys() -> BTreeSet<String> {
    configured(&[]).into_keys().collect()
}

/// Method and path of everything that answers: the API, the control plane with the socket of the operator, and the registry.
fn endpoints() -> BTreeSet<String> {
    let writes = set(rows("docs/API.md", "method").iter().filter(|row| row[0] == "POST").flat_map(|row| spans(&row[1])));
    let api = served().into_iter().map(|path| format!("{} {path}", if writes.contains(&path) { "POST" } else { "GET" }));
    let pages = Page::ALL.map(|page| format!("GET {}", page.path()));
    let actions = Action::ALL.map(|action| format!("POST {}", action.path()));
    api.chain(pages).chain(actions).chain([format!("GET {TOPOLOGY_PATH}")]).collect()
}

#[test]
fn the_metrics_are_those_of_the_product() {
    compare("metric", &metrics());
}

#[test]
fn the_keys_are_those_of_the_configuration() {
    compare("key", &keys());
}

#[test]
fn the_endpoints_are_those_of_all_surfaces() {
    compare("endpoint", &endpoints());
}

#[test]
fn the_alerts_are_those_of_the_rules() {
    compare("alert", &alerts::names());
}

/// Words with `_` that are no metrics: events, members and labels, as the pages about them have them.
fn other_words() -> BTreeSet<String> {
    let pages =
        ["docs/OBSERVABILITY.md", "docs/API.md", "docs/CONFIG.md", "docs/SECURITY.md", "docs/LEDGER.md", "docs/INTEROP.md"]
            .map(read);
    let spans = pages.iter().flat_map(|page| split(page).0).flat_map(spans).map(|span| span.trim_matches('"'));
    set(spans
        .flat_map(|span| span.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_'))
        .filter(|word| word.contains('_')))
}

/// What is wrong with the text between two backticks.
fn fault(
    span: &str,
    metrics: &BTreeSet<String>,
    keys: &BTreeSet<String>,
    paths: &BTreeSet<String>,
    others: &BTreeSet<String>,
) -> Option<String> {
    let lower = |text: &str, more: &str| {
        text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || more.contains(letter))
    };
    let name = span.split('{').next().unwrap_or(span);
    let section = |key: &str| key.split('.').next().unwrap_or(key).to_owned();
    if let Some(path) = span.strip_prefix("GET ").or(span.strip_prefix("POST ")).or(span.starts_with('/').then_some(span)) {
        let is_a_file = FOLDERS.iter().any(|folder| path.starts_with(folder));
        return (!is_a_file && !paths.contains(path)).then(|| "is no endpoint".to_owned());
    }
    if lower(name, "_.") && name.contains('.') && keys.iter().any(|key| section(key) == section(name)) {
        return (!keys.contains(name)).then(|| "is no key of the configuration".to_owned());
    }
    let like_a_metric = lower(name, "_") && name.contains('_');
    (like_a_metric && !metrics.contains(name) && !others.contains(name))
        .then(|| "is no metric, no event and no member".to_owned())
}

#[test]
fn what_is_named_elsewhere_on_the_page_exists() {
    let text = read(PAGE);
    let (metrics, keys, others) = (metrics(), keys(), other_words());
    let paths = set(endpoints().iter().filter_map(|endpoint| endpoint.split_once(' ')).map(|(_, path)| path));
    let all: Vec<&str> = split(&text).0.into_iter().flat_map(spans).collect();
    assert!(all.len() > 300, "the code spans were not found");
    let mut wrong: Vec<String> = all
        .iter()
        .filter_map(|span| Some(format!("{PAGE}: `{span}` {}", fault(span, &metrics, &keys, &paths, &others)?)))
        .collect();
    let alerts = alerts::names();
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let like_an_alert = |word: &&str| {
        word.strip_prefix("Wallet").is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_uppercase()))
    };
    wrong.extend(
        words.filter(like_an_alert).filter(|word| !alerts.contains(*word)).map(|word| format!("{PAGE}: {word} is no alert")),
    );
    none(&wrong);
    for (span, is_wrong) in [
        ("wallet_redy", true),
        ("policy_versions", true),
        ("limits.inflights", true),
        ("/readiness", true),
        ("POST /wallet/spent", true),
        ("rejected_total{reason=\"cap\"}", false),
        ("scrub_slow", false),
        ("/etc/ron/svc-wallet.toml", false),
        ("history.mmr", false),
    ] {
        assert_eq!(fault(span, &metrics, &keys, &paths, &others).is_some(), is_wrong, "{span}");
    }
}

/// Every command of `ronctl` that does something, as it is typed.
fn commands() -> BTreeSet<String> {
    fn leaves(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
        let below: Vec<_> = command.get_subcommands().filter(|one| one.get_name() != "help").collect();
        if below.is_empty() {
            found.insert(path.to_owned());
        }
        below.iter().for_each(|one| leaves(one, &format!("{path} {}", one.get_name()), found));
    }
    let mut found = BTreeSet::new();
    leaves(&Cli::command(), "ronctl", &mut found);
    found
}

/// Whether a command in running text could be typed so: what is left out is no fault, what is not there is one.
fn is_understood(span: &str) -> bool {
    let words =
        span.split_whitespace().map(|word| word.trim_matches(['\'', '"'])).take_while(|word| !["...", ">", "|"].contains(word));
    match Cli::try_parse_from(words) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument),
    }
}

#[test]
fn every_command_of_ronctl_is_on_the_page_and_no_other() {
    let text = read(PAGE);
    let missing = commands().into_iter().filter(|command| {
        let mut places = text.split(command.as_str()).skip(1);
        !places.any(|rest| !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '-'))
            && !text.contains(&command.replacen("ronctl", "ronctl --json", 1))
    });
    none(&missing.map(|command| format!("{PAGE} does not say what `{command}` is for")).collect::<Vec<_>>());
    let (prose, _) = split(&text);
    let typed = prose.into_iter().flat_map(spans).filter(|span| span.starts_with("ronctl "));
    none(&typed.filter(|span| !is_understood(span)).map(|span| format!("{PAGE}: `{span}` is no command")).collect::<Vec<_>>());
    assert!(
        is_understood("ronctl kms rotate --activate KEY_ID")
            && is_understood("ronctl wallet tx TXID")
            && is_understood("ronctl kms")
    );
    assert!(!is_understood("ronctl kms turn") && !is_understood("ronctl ledger snapshot --to FILE") && commands().len() > 25);
}
