//! What docs/WALKTHROUGHS.md shows exists: its commands, the events of its log lines, its metrics.
use super::{logged, read};
use clap::Parser;
use std::collections::BTreeSet;
use svc_wallet::operator::Cli;
use svc_wallet::telemetry::names::METRICS;

#[test]
fn the_log_lines_have_events_that_there_are() {
    let (logged, page) = (logged(), read("docs/WALKTHROUGHS.md"));
    let shown = page.split("\"event\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let shown: BTreeSet<&str> = shown.collect();
    assert!(shown.len() > 5, "{shown:?}");
    let of_the_audit = ["fault_injection", "start", "stop", "reload"];
    let unknown: Vec<_> = shown.iter().filter(|event| !logged.contains(**event) && !of_the_audit.contains(event)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_metrics_are_exported_and_the_commands_understood() {
    let page = read("docs/WALKTHROUGHS.md");
    let (mut metrics, mut commands) = (0, 0);
    for line in page.lines() {
        if let Some(command) = line.strip_prefix("$ ronctl ") {
            let words = command.split([' ', '\'', '"']).filter(|word| !word.is_empty());
            let words = words.take_while(|word| !["|", "<", ">", "&&", "2>&1"].contains(word));
            assert!(Cli::try_parse_from(["ronctl"].into_iter().chain(words)).is_ok(), "{line}");
            commands += 1;
        }
        let name = line.split(['{', ' ']).next().unwrap_or("");
        let is_series = name.contains('_') && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let value = line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok());
        if is_series && value {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(METRICS.iter().any(|metric| metric.name == name || metric.name == base), "{line}");
            metrics += 1;
        }
    }
    assert!(metrics > 5 && commands > 15, "{metrics} metrics and {commands} commands");
}
