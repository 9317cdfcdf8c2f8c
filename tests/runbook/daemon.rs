//! Procedures for a server with daemons: the ledger in another process, the counters in another, the registry behind HTTP.
use crate::place::Place;
use crate::support::{eventually, Client};
use crate::told;
use serde_json::Value;

#[test]
fn a_daemon_and_its_wallet_are_stopped_copied_archived_restored_and_started_as_it_says() {
    let place = Place::new();
    let archived = place.ronctl("ledger inspect --entry 3")["entry"]["txid"].as_str().unwrap().to_owned();
    let (mut first, mut kept) = (Vec::new(), None);
    let mut lost = Vec::new();
    for name in [
        "daemon-start",
        "daemon-copy",
        "daemon-copy-restore",
        "daemon-archive",
        "daemon-archive-back",
        "daemon-snapshot",
        "daemon-restore",
        "daemon-stop",
    ] {
        // What a client has got, and what a copy made before it lacks.
        match name {
            "daemon-copy-restore" => lost.push(place.spend(5, 12).ok()),
            "daemon-restore" => lost.push(place.spend(7, 13).ok()),
            _ => {}
        }
        let said = place.block(name);
        match name {
            "daemon-start" => {
                assert_eq!(place.state(), (990, 10, (10, 11)));
                first = place.wallet().tx(&archived).ok().body;
                kept = Some(place.spend(30, 11).ok());
            }
            "daemon-copy" => {
                told(&said, &["The ledger is whole."]);
                let [copied, served] =
                    ["ledger.backup", "ledger"].map(|name| place.ronctl(&format!("ledger verify --dir var/{name}")));
                assert_eq!((&copied["head"], &copied["root"]), (&12.into(), &served["root"]));
                assert_eq!(place.state(), (960, 40, (11, 12)));
            }
            "daemon-copy-restore" => {
                told(&said, &["The ledger is whole.", "last confirmed nonce  11"]);
                assert_eq!(place.state(), (960, 40, (11, 12)));
                let (mut wallet, kept) = (place.wallet(), kept.as_ref().unwrap());
                assert_eq!(wallet.tx(&kept.txid()).ok().body, kept.body);
                assert!(place.spend(30, 11).ok().replayed());
                wallet.tx(&lost[0].txid()).refused(404, "NOT_FOUND");
                place.spend(6, 12).ok();
            }
            "daemon-archive" => {
                told(
                    &said,
                    &["1 segments moved", "The ledger is whole.", "not here    entries 1 to 6: the snapshot after entry 12"],
                );
                assert_eq!(place.state(), (954, 46, (12, 13)));
                place.wallet().tx(&archived).refused(503, "UPSTREAM_UNAVAILABLE");
            }
            "daemon-archive-back" => {
                told(&said, &["The ledger is whole."]);
                assert_eq!(place.wallet().tx(&archived).ok().body, first);
            }
            "daemon-snapshot" => told(&said, &["through entry  13", "1_000 on all accounts"]),
            "daemon-restore" => {
                told(&said, &["The ledger is whole.", "last confirmed nonce  12"]);
                assert_eq!(place.state(), (954, 46, (12, 13)));
                place.wallet().tx(&lost[1].txid()).refused(404, "NOT_FOUND");
                place.spend(8, 13).ok();
            }
            "daemon-stop" => {
                assert!(!place.path("var/run/ledger.sock").exists(), "an orderly end takes the socket away");
                let report = place.ronctl("ledger verify --dir var/ledger");
                assert_eq!((&report["head"], &report["torn"]), (&14.into(), &Value::Null));
            }
            other => panic!("nothing is known about block {other}"),
        }
    }
}

/// A server with its ledger in a daemon, both under `systemctl`, after `ledger-unit`.
fn with_a_ledger_daemon() -> Place {
    let place = Place::serving();
    let socket = format!("unix://{}", place.path("var/run/ledger.sock").display());
    place.run("stop", "kill $(pidof svc-wallet)\nwhile pidof svc-wallet; do sleep 0.1; done\n");
    place.edit("configs/svc-wallet.toml", "embedded:./var/ledger", &socket);
    place.block("ledger-unit");
    place
}

#[test]
fn a_ledger_daemon_is_started_lost_looked_for_and_restarted() {
    let place = with_a_ledger_daemon();
    assert_eq!(place.state(), (990, 10, (10, 11)));
    place.run("kill", "kill -9 $(pidof ron-ledger)");
    eventually("it is noticed", || (!place.is_ready()).then_some(()));
    place.spend(30, 11).refused(503, "UPSTREAM_UNAVAILABLE");
    eventually("it is published", || place.publishes("wallet_ready 0"));
    let said = place.block_ends("not-ready", 1);
    told(&said, &["ActiveState=active", "NRestarts=0", "\"event\":\"started\"", "\"missing\":[\"ledger\"]", "wallet_ready 0"]);
    told(
        &said,
        &["quota_exhaustions_total{scope=\"account\"} 0", "accounting_flush_lag_seconds", "rejected_total{reason=\"cap\"} 0"],
    );
    let errors = said.split("ledger_connect_errors_total ").nth(1).and_then(|rest| rest.lines().next()).expect(&said);
    assert!(errors.parse::<f64>().unwrap() > 0.0, "{errors}");
    eventually("the refusal is published", || place.publishes("rejected_total{reason=\"upstream\"} 1"));
    let said = place.block("many-fail");
    told(&said, &["http_requests_total{", "status=\"503\"", "rejected_total{reason=\"upstream\"} 1", "\"ready\":false"]);
    let said = place.block("ledger-restart");
    told(&said, &["\"ready\":true", "\"writes\":true"]);
    place.spend(30, 11).ok();
    assert_eq!(place.state(), (960, 40, (11, 12)), "once");
}

#[test]
fn a_ledger_daemon_is_started_by_hand() {
    let place = Place::new();
    let socket = place.path("var/run/ledger.sock");
    let daemon = place.foreground("ledger-by-hand", || socket.exists());
    place.export("export LEDGER_SOCK=unix://$PWD/var/run/ledger.sock");
    assert_eq!(place.ronctl("ledger verify")["head"], 11);
    place.run("stop", "kill $(pidof ron-ledger)");
    assert_eq!(daemon.ends(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn counters_go_to_a_daemon_by_hand_and_as_a_unit() {
    let place = Place::new();
    let socket = place.path("var/run-accounting/accounting.sock");
    let daemon = place.foreground("accounting-by-hand", || socket.exists());
    place.run("stop", "kill $(pidof ron-accounting)");
    assert_eq!(daemon.ends(), Some(0));
    place.edit("configs/svc-wallet.toml", "embedded:./var/accounting", &format!("unix://{}", socket.display()));
    place.block("accounting-unit");
    assert!(place.is_ready());
    place.spend(30, 11).ok();
    place.run("flush", "./target/release/ronctl accounting flush");
    let shown = place.run("show", "./target/release/ronctl accounting show --account alice");
    told(&shown, &["alice", "transfer", "debit"]);
}

#[test]
fn the_topology_comes_from_a_registry_that_may_go_and_come_back() {
    let place = Place::new();
    let answers = || Client::try_connect(place.registry()).is_ok();
    let registry = place.foreground("registry-by-hand", answers);
    let wallet = place.foreground("registry-wallet", || place.is_ready());
    told(&place.block("registry-look"), &["\"version\":", "cell-1", "slots 0-16383"]);
    told(
        &place.block("topology"),
        &["cell-1", "registry_version 1", "wallet_registry_age_seconds", "wallet_registry_questions_total"],
    );
    place.export(&format!("export REGISTRY_URL=http://{}", place.registry()));
    told(&place.block("registry-lost"), &["last good answer", "version           1"]);
    place.run("stop", "kill $(pidof svc-registry)");
    assert_eq!(registry.ends(), Some(0));
    let shown = || place.run("show", "./target/release/ronctl registry show || true");
    eventually("it is noticed", || shown().contains("last answer").then_some(()));
    told(&place.block_ends("registry-lost", 1), &["last answer       Connection refused", "cell-1  slots 0-16383"]);
    assert_eq!(place.state(), (990, 10, (10, 11)), "it serves on");
    place.run("stop", "kill $(pidof svc-wallet)");
    assert_eq!(wallet.ends(), Some(0));
}
