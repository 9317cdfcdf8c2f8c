//! The dashboards: what Grafana takes them for, and that every expression asks for what the service exports.
use super::expressions::{asked, wrong};
use super::{files, none, read};
use serde_json::Value;
use std::collections::BTreeSet;
use svc_wallet::telemetry::names::METRICS;

const KINDS: [&str; 3] = ["row", "stat", "timeseries"];
const UNITS: [&str; 6] = ["none", "short", "s", "reqps", "ops", "percentunit"];
/// Columns of a dashboard.
const WIDTH: u64 = 24;
/// The first version of the schema with a data source as an object everywhere.
const SCHEMA_MIN: u64 = 36;

fn dashboards() -> Vec<(String, Value)> {
    let paths = files("ops/dashboards", &["json"]);
    assert_eq!(paths, ["ops/dashboards/ledger.json", "ops/dashboards/service.json"]);
    paths.into_iter().map(|path| (path.clone(), serde_json::from_str(&read(&path)).unwrap())).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn text(value: &Value) -> &str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn every_expression_of_a_dashboard_asks_for_what_is_exported() {
    let (mut wrong_ones, mut shown) = (Vec::new(), BTreeSet::new());
    for (path, dashboard) in dashboards() {
        let panels = list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row");
        for target in panels.flat_map(|panel| list(&panel["targets"])) {
            let expression = text(&target["expr"]);
            wrong_ones.extend(wrong(expression).into_iter().map(|what| format!("{path}: {what}")));
            shown.extend(asked(expression).series.into_iter().map(|(name, _)| name));
        }
    }
    none(&wrong_ones);
    let is_shown = |name: &str| shown.iter().any(|series| series.starts_with(name));
    let missing: Vec<&str> = METRICS.iter().map(|metric| metric.name).filter(|name| !is_shown(name)).collect();
    assert!(missing.is_empty(), "on no dashboard: {missing:?}");
}

#[test]
fn a_dashboard_has_the_form_that_grafana_reads() {
    let mut uids = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        assert!(uids.insert(text(&dashboard["uid"]).to_owned()), "{path}: its uid is that of another one");
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= SCHEMA_MIN && !text(&dashboard["title"]).is_empty(), "{path}");
        let variables: Vec<&str> = list(&dashboard["templating"]["list"]).iter().map(|one| text(&one["name"])).collect();
        assert_eq!(variables, ["datasource", "instance"], "{path}");
        let panels = list(&dashboard["panels"]);
        assert!(panels.len() > 20, "{path}");
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{path}: two panels have one id");
        let mut taken = BTreeSet::new();
        for panel in panels {
            let title = text(&panel["title"]);
            let [x, y, width, height] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(width > 0 && height > 0 && x + width <= WIDTH, "{path}: {title} is beside the grid");
            let cells = (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y)));
            assert!(cells.into_iter().all(|cell| taken.insert(cell)), "{path}: {title} is over another panel");
            let kind = text(&panel["type"]);
            assert!(KINDS.contains(&kind), "{path}: {title} is a {kind}");
            if kind != "row" {
                check_panel(&format!("{path}: {title}"), panel);
            }
        }
    }
}

/// A panel says what it shows and in which unit, and asks the data source that was chosen, for the servers that were chosen.
fn check_panel(what: &str, panel: &Value) {
    assert!(text(&panel["description"]).ends_with('.'), "{what}");
    assert!(UNITS.contains(&text(&panel["fieldConfig"]["defaults"]["unit"])), "{what}");
    let targets = list(&panel["targets"]);
    let names: BTreeSet<&str> = targets.iter().map(|target| text(&target["refId"])).collect();
    assert!(!targets.is_empty() && names.len() == targets.len(), "{what}");
    for target in targets {
        for of in [panel, target] {
            assert_eq!(
                (&of["datasource"]["type"], &of["datasource"]["uid"]),
                (&"prometheus".into(), &"${datasource}".into()),
                "{what}"
            );
        }
        assert!(text(&target["expr"]).contains("instance=~\"$instance\""), "{what}: all servers are asked");
    }
}
