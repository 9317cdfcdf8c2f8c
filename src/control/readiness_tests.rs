//! The table of failures of the design: for each state, what `/readyz` says and which of reads and writes go on.
use super::*;
use serde_json::{json, Value};

#[test]
fn the_dependencies_are_called_by_the_same_names_everywhere() {
    assert_eq!(NOT_READY_REASONS[..Dep::ALL.len()], Dep::ALL.map(Dep::as_str));
}

fn serving() -> Readiness {
    let readiness = Readiness::new();
    Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
    readiness.recovered();
    readiness
}

fn check(readiness: &Readiness, status: u16, missing: &[&str], writes: bool, reads: bool) {
    let snapshot = readiness.snapshot();
    let body: Value = serde_json::from_str(&snapshot.body).unwrap();
    assert_eq!((snapshot.status, snapshot.ready, readiness.ready()), (status, status == 200, status == 200), "{body}");
    assert_eq!((readiness.writes_open(), readiness.reads_open()), (writes, reads), "{body}");
    assert_eq!((&body["writes"], &body["reads"]), (&json!(writes), &json!(reads)), "{body}");
    assert_eq!(body["ready"], json!(status == 200));
    if status == 200 {
        assert_eq!(body["deps"], json!(["ledger", "accounting", "policy", "registry"]));
        assert!(body.get("missing").is_none() && body.get("degraded").is_none() && snapshot.retry_after.is_none());
    } else {
        assert_eq!((&body["degraded"], &body["missing"], &body["retry_after"]), (&json!(true), &json!(missing), &json!(1)));
        assert_eq!(snapshot.retry_after, Some(1));
    }
}

#[test]
fn the_ready_body_begins_as_the_contract_has_it() {
    let body = serving().snapshot().body;
    assert!(body.starts_with(r#"{"ready":true,"deps":["ledger","accounting","policy","registry"],"#), "{body}");
}

#[test]
fn nothing_is_served_before_recovery() {
    let readiness = Readiness::new();
    check(&readiness, 503, &["ledger", "accounting", "policy", "registry"], false, false);
    Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
    check(&readiness, 503, &[], false, false);
    readiness.recovered();
    check(&readiness, 200, &[], true, true);
}

#[test]
fn each_missing_dependency_closes_what_it_must_and_comes_back() {
    for (dep, writes) in [(Dep::Ledger, false), (Dep::Accounting, true), (Dep::Policy, false), (Dep::Registry, true)] {
        let readiness = serving();
        readiness.down(dep, "no /secret/path");
        check(&readiness, 503, &[dep.as_str()], writes, true);
        let snapshot = readiness.snapshot();
        assert!(!snapshot.body.contains("/secret/path"));
        assert!(snapshot.body_with_reasons.contains(&format!("{{\"{}\":\"no /secret/path\"}}", dep.as_str())));
        readiness.up(dep);
        check(&readiness, 200, &[], true, true);
    }
}

#[test]
fn a_dependency_that_keeps_coming_and_going_is_not_ready_until_it_stays_and_shuts_nothing_meanwhile() {
    let readiness = serving();
    let bounce = || {
        readiness.down(Dep::Ledger, "it is gone");
        check(&readiness, 503, &["ledger"], false, true);
        readiness.up(Dep::Ledger);
    };
    bounce();
    check(&readiness, 200, &[], true, true);
    bounce();
    check(&readiness, 503, &["ledger"], true, true);
    assert!(readiness.snapshot().body_with_reasons.contains("keeps coming and going"));
    assert_eq!(readiness.state().lacked(), Lacks { deps: [true, false, false, false], ..Lacks::default() });
}

#[test]
fn the_operator_takes_the_service_out_of_rotation_and_puts_it_back() {
    let readiness = serving();
    readiness.take_out_of_rotation(true);
    check(&readiness, 503, &[], true, true);
    let told: Value = serde_json::from_str(&readiness.snapshot().body_with_reasons).unwrap();
    assert_eq!((&told["draining"], &told["reasons"]["drain"]), (&json!(true), &json!(OUT_OF_ROTATION)));
    assert_eq!(readiness.state().lacked(), Lacks { draining: true, ..Lacks::default() });
    readiness.take_out_of_rotation(false);
    check(&readiness, 200, &[], true, true);
}

#[test]
fn a_standby_says_that_it_is_one() {
    let readiness = Readiness::new();
    readiness.stand_by(true);
    let told: Value = serde_json::from_str(&readiness.snapshot().body_with_reasons).unwrap();
    assert_eq!(told["reasons"]["standby"], json!(STANDS_BY));
    assert!(readiness.state().lacked().stands_by && readiness.state().lacked().in_the_way()[6]);
    readiness.stand_by(false);
    assert!(!readiness.state().lacked().stands_by);
}

#[test]
fn pressure_drops_readiness_and_nothing_else() {
    let readiness = serving();
    readiness.pressure(Some("too much"));
    check(&readiness, 503, &[], true, true);
    let reasons = serde_json::from_str::<Value>(&readiness.snapshot().body_with_reasons).unwrap()["reasons"].clone();
    assert_eq!(reasons, json!({"pressure": "too much"}));
    readiness.pressure(None);
    check(&readiness, 200, &[], true, true);
}

#[test]
fn injected_faults_are_for_the_operator_and_take_nothing_out_of_service_by_themselves() {
    let readiness = serving();
    readiness.note_faults(vec!["latency of requests".to_owned()]);
    check(&readiness, 200, &[], true, true);
    let snapshot = readiness.snapshot();
    let told: Value = serde_json::from_str(&snapshot.body_with_reasons).unwrap();
    assert_eq!(told["faults"], json!(["latency of requests"]));
    assert!(!snapshot.body.contains("faults"));
    readiness.note_faults(Vec::new());
    assert!(!readiness.snapshot().body_with_reasons.contains("faults"));
}

#[test]
fn a_drain_is_told_first_and_then_closes_writes_for_good() {
    let readiness = serving();
    readiness.tell_drain();
    check(&readiness, 503, &[], true, true);
    readiness.drain();
    check(&readiness, 503, &[], false, true);
    Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
    check(&readiness, 503, &[], false, true);
}

#[test]
fn the_version_grows_exactly_when_the_answer_changes() {
    let readiness = serving();
    let version = readiness.version();
    let other_handle = readiness.clone();
    readiness.up(Dep::Ledger);
    assert_eq!(other_handle.version(), version);
    readiness.down(Dep::Ledger, "one");
    readiness.down(Dep::Ledger, "two");
    readiness.down(Dep::Ledger, "two");
    assert_eq!(other_handle.version(), version + 2);
    assert!(!other_handle.writes_open());
}
