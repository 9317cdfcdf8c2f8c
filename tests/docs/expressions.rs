//! Expressions of PromQL, as far as it takes to see which metrics they name, and by which labels.
use super::{rows, spans};
use std::collections::{BTreeMap, BTreeSet};
use svc_wallet::telemetry::names::{Kind, METRICS};

/// Words that are no metrics although they stand like one.
const KEYWORDS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "inf"];
/// Words behind which parentheses hold names of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// What Prometheus itself puts on every series.
const OF_THE_SCRAPE: [&str; 2] = ["instance", "job"];

/// What an expression asks for: names of series, each with the labels that it is chosen by, and the labels that are grouped by.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    pub series: Vec<(String, Vec<String>)>,
    pub grouped: Vec<String>,
}

/// Takes an expression apart. Variables of a dashboard may stand in texts and as times.
pub fn asked(expression: &str) -> Asked {
    let (mut found, mut rest) = (Asked::default(), expression);
    while let Some(letter) = rest.chars().next() {
        let taken = match letter {
            '"' => rest[1..].find('"').expect("a text ends") + 2,
            '[' => rest.find(']').expect("a range ends") + 1,
            '0'..='9' | '$' => word(&rest[1..]) + 1,
            'a'..='z' | 'A'..='Z' | '_' => {
                let (name, behind) = rest.split_at(word(rest));
                let next = behind.trim_start();
                if GROUPINGS.contains(&name) {
                    let (labels, _) =
                        next.strip_prefix('(').and_then(|inside| inside.split_once(')')).expect("labels in parentheses");
                    found.grouped.extend(labels.split(',').map(|label| label.trim().to_owned()));
                    rest.find(')').expect("it was found") + 1
                } else if KEYWORDS.contains(&name) || next.starts_with('(') || ["by", "without"].contains(&&next[..word(next)]) {
                    // A word between two operands, a function, or an aggregation whose labels come first.
                    name.len()
                } else {
                    let matchers = matchers(behind);
                    found.series.push((name.to_owned(), chosen_by(matchers)));
                    name.len() + matchers.len()
                }
            }
            other => other.len_utf8(),
        };
        rest = &rest[taken..];
    }
    found
}

/// How many letters of a word a text begins with.
fn word(text: &str) -> usize {
    text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len())
}

/// The matchers in braces that a text begins with, if it does; a brace within a value is none.
fn matchers(text: &str) -> &str {
    if !text.starts_with('{') {
        return "";
    }
    let mut within = false;
    let end = text.find(|letter| {
        within ^= letter == '"';
        letter == '}' && !within
    });
    &text[..=end.expect("braces end")]
}

/// The labels of matchers such as `{a="b",c=~"d"}`.
fn chosen_by(matchers: &str) -> Vec<String> {
    let names = matchers.split('"').step_by(2).map(|name| name.trim_matches(|letter: char| !letter.is_ascii_lowercase()));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What is wrong with an expression: names of series that the service does not export, and labels that they do not have.
pub fn wrong(expression: &str) -> Vec<String> {
    let documented = labels();
    let asked = asked(expression);
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::from(OF_THE_SCRAPE.map(str::to_owned)));
    for (name, chosen) in &asked.series {
        let Some(labels) = labels_of(name, &documented) else {
            wrong.push(format!("{name} is not exported: {expression}"));
            continue;
        };
        let strange = chosen.iter().filter(|label| !labels.contains(*label) && !OF_THE_SCRAPE.contains(&label.as_str()));
        wrong.extend(strange.map(|label| format!("{name} has no label {label}: {expression}")));
        known.extend(labels);
    }
    let strange = asked.grouped.iter().filter(|label| !known.contains(*label));
    wrong.extend(strange.map(|label| format!("nothing has the label {label}: {expression}")));
    if asked.series.is_empty() {
        wrong.push(format!("asks for nothing: {expression}"));
    }
    wrong
}

/// The labels of a series, if the service exports it; `up` is that of Prometheus.
fn labels_of(series: &str, documented: &BTreeMap<String, BTreeSet<String>>) -> Option<BTreeSet<String>> {
    if series == "up" {
        return Some(BTreeSet::new());
    }
    let exported = METRICS.iter().find_map(|metric| match metric.kind {
        Kind::Counter | Kind::Gauge => (metric.name == series).then_some((metric.name, None)),
        Kind::Histogram => match series.strip_prefix(metric.name)? {
            "_bucket" => Some((metric.name, Some("le"))),
            "_sum" | "_count" => Some((metric.name, None)),
            _ => None,
        },
    });
    let (metric, bound) = exported?;
    let mut labels = documented[metric].clone();
    labels.extend(bound.map(str::to_owned));
    Some(labels)
}

/// The labels of each metric, as they are documented.
fn labels() -> BTreeMap<String, BTreeSet<String>> {
    let rows = rows("docs/OBSERVABILITY.md", "metric").into_iter().filter(|row| row.len() == 4);
    rows.map(|row| (spans(&row[0])[0].to_owned(), spans(&row[2]).into_iter().map(str::to_owned).collect())).collect()
}

#[test]
fn an_expression_is_taken_apart_as_it_is_meant() {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let found = asked(
        "histogram_quantile(0.95, sum by (le, route) (rate(request_latency_seconds_bucket{service=\"up {wallet}\", route=~\"a|b\"}[$__rate_interval]))) \
         > on (instance) wallet_ready{instance=~\"$instance\"} offset 5m and time() - 14 * 86400 > inflight",
    );
    let series =
        [("request_latency_seconds_bucket", &["service", "route"][..]), ("wallet_ready", &["instance"]), ("inflight", &[])];
    let series = series.map(|(name, labels)| (name.to_owned(), owned(labels)));
    assert_eq!(found, Asked { series: series.into(), grouped: owned(&["le", "route", "instance"]) });
    for good in
        ["up == 0", "sum(rate(rejected_total[5m])) by (reason)", "ledger_commit_seconds_sum / ledger_commit_seconds_count"]
    {
        assert!(wrong(good).is_empty(), "{good}");
    }
    for (bad, part) in [
        ("wallet_redy == 0", "wallet_redy is not exported"),
        ("rate(request_latency_seconds[5m])", "request_latency_seconds is not exported"),
        ("rate(inflight_bucket[5m])", "inflight_bucket is not exported"),
        ("rejected_total{cause=\"cap\"}", "rejected_total has no label cause"),
        ("rejected_total{le=\"1\"}", "rejected_total has no label le"),
        ("sum by (route) (inflight)", "nothing has the label route"),
        ("time() > 1", "asks for nothing"),
    ] {
        let told = wrong(bad);
        assert!(told.len() == 1 && told[0].starts_with(part), "{bad}: {told:?}");
    }
}
