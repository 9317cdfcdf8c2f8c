//! The alert rules: each has cases in which it fires and in which it does not, leads to a section of the runbook, and asks for what the
//! service exports; those of the runbook's appendix are as they are there.
use super::expressions::{asked, wrong};
use super::{anchors, none, read, rows, set, spans};
use serde_norway::Value;
use std::collections::BTreeSet;

const RULES: &str = "ops/alerts/wallet.yml";
const CASES: &str = "ops/alerts/wallet_test.yml";
const SEVERITIES: [&str; 2] = ["warn", "page"];

/// The group of the appendix, which has all of them.
const GROUP: &str = "svc-wallet";
const P95: &str =
    "histogram_quantile(0.95, sum(rate(request_latency_seconds_bucket{service=\"svc-wallet\"}[5m])) by (le)) > 0.15";
/// What others rely on, word for word: name, time, severity and expression.
const OF_THE_APPENDIX: [(&str, &str, &str, &str); 6] = [
    ("WalletHighP95Latency", "5m", "warn", P95),
    ("WalletHighP95LatencyPage", "15m", "page", P95),
    (
        "WalletErrorRate",
        "10m",
        "page",
        "(sum(rate(http_requests_total{service=\"svc-wallet\",status=~\"5..\"}[5m])) / \
         sum(rate(http_requests_total{service=\"svc-wallet\"}[5m]))) > 0.01",
    ),
    ("WalletSequenceConflicts", "10m", "warn", "sum(rate(wallet_conflicts_total[1m])) > 10"),
    ("WalletQuotaStorm", "10m", "warn", "sum(rate(quota_exhaustions_total[5m])) / sum(rate(http_requests_total[5m])) > 0.01"),
    ("WalletLedgerDown", "2m", "page", "sum(rate(ledger_connect_errors_total[1m])) > 0"),
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{value:?} has no text {name}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_sequence().unwrap_or_else(|| panic!("{value:?} has no list {name}"))
}

fn yaml(path: &str) -> Value {
    serde_norway::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all alerts.
pub fn names() -> BTreeSet<String> {
    set(alerts().iter().map(|alert| text(alert, "alert")))
}

/// Every rule of the file.
fn alerts() -> Vec<Value> {
    list(&yaml(RULES), "groups").iter().flat_map(|group| list(group, "rules").to_vec()).collect()
}

#[test]
fn every_alert_asks_for_what_is_exported_and_leads_to_the_runbook() {
    let alerts = alerts();
    let headings = anchors(&read("RUNBOOK.md"));
    let mut wrong_ones = Vec::new();
    for alert in &alerts {
        let name = text(alert, "alert");
        wrong_ones.extend(wrong(text(alert, "expr")).into_iter().map(|what| format!("{name}: {what}")));
        assert!(SEVERITIES.contains(&text(&alert["labels"], "severity")), "{name}");
        assert!(!text(&alert["annotations"], "summary").is_empty(), "{name}");
        let runbook = text(&alert["annotations"], "runbook");
        if !runbook.strip_prefix("RUNBOOK.md#").is_some_and(|anchor| headings.contains(anchor)) {
            wrong_ones.push(format!("{name}: {runbook} leads nowhere"));
        }
    }
    none(&wrong_ones);
    assert_eq!(names().len(), alerts.len(), "an alert stands twice");
    assert_eq!(list(&yaml(RULES), "groups").iter().map(|group| text(group, "name")).collect::<Vec<_>>(), [GROUP]);
    for (name, time, severity, asks) in OF_THE_APPENDIX {
        let alert = alerts.iter().find(|alert| alert["alert"] == name).unwrap_or_else(|| panic!("{name} is gone"));
        assert_eq!(
            (text(alert, "for"), text(&alert["labels"], "severity"), text(alert, "expr")),
            (time, severity, asks),
            "{name}"
        );
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let (mut fires, mut is_silent) = (BTreeSet::new(), BTreeSet::new());
    let alerts = alerts();
    let named = |name: &str| alerts.iter().find(|alert| alert["alert"] == name).unwrap_or_else(|| panic!("there is no {name}"));
    for case in list(&yaml(CASES), "tests") {
        let given: Vec<String> =
            list(case, "input_series").iter().flat_map(|one| asked(text(one, "series")).series).map(|(name, _)| name).collect();
        none(&list(case, "input_series").iter().flat_map(|one| wrong(text(one, "series"))).collect::<Vec<_>>());
        for check in list(case, "alert_rule_test") {
            let name = text(check, "alertname");
            // Silence says nothing about an alert that is given nothing to look at.
            let looks_at = asked(text(named(name), "expr")).series;
            assert!(looks_at.iter().all(|(series, _)| given.contains(series)), "{name} is not given what it asks for: {case:?}");
            let found = if list(check, "exp_alerts").is_empty() { &mut is_silent } else { &mut fires };
            found.insert(name.to_owned());
        }
    }
    let all = names();
    assert_eq!(fires, all, "those that fire");
    assert_eq!(is_silent, all, "those that do not");
}

#[test]
fn every_alert_is_explained() {
    let explained = rows("docs/OBSERVABILITY.md", "alert");
    let severities = explained.iter().map(|row| format!("{} {}", spans(&row[0])[0], row[1]));
    let alerts = alerts();
    let rules = alerts.iter().map(|alert| format!("{} {}", text(alert, "alert"), text(&alert["labels"], "severity")));
    assert_eq!(severities.collect::<Vec<_>>(), rules.collect::<Vec<_>>(), "in the order of the file");
}
