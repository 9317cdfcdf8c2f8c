//! SIGUSR1 to a running server or daemon takes a snapshot now, while it serves; the log says what became of
//! it, and the metrics count it.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{eventually, Daemon, Server};

/// The first line of this event that the log has and that is none of the first `seen` ones.
fn event(log: impl Fn() -> String, name: &str, seen: usize) -> Value {
    eventually(name, || {
        let log = log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == name).nth(seen)
    })
}

fn snapshot_file(ledger: PathBuf, seq: u64) -> PathBuf {
    ledger.join(format!("snapshot-{seq:020}.snap"))
}

fn no_snapshot_yet(ledger: &Path) {
    let names = std::fs::read_dir(ledger).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".snap")).count(), 0);
}

/// Waits until the metrics tell of so many snapshots, and of so many that failed.
fn told_by_metrics(server: &Server, taken: f64, failed: f64) {
    server.metric_reaches("ledger_snapshots_total{outcome=\"ok\"}", taken);
    server.metric_reaches("ledger_snapshots_total{outcome=\"failed\"}", failed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    // The newest entry in it was accepted in this test.
    let newest = server.metric("ledger_snapshot_time_seconds");
    assert!((now - 120.0..=now).contains(&newest), "{newest} is not just before {now}");
}

#[test]
fn an_embedded_ledger_is_snapshot_on_demand_while_it_is_written() {
    let mut server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    wallet.spend("a", "b", 1, 1, "k1").ok();
    no_snapshot_yet(&server.path("ledger"));
    server.signal(Signal::USR1);
    let taken = event(|| server.log(), "snapshot_taken", 0);
    assert_eq!((&taken["seq"], &taken["level"]), (&2.into(), &"INFO".into()), "{taken}");
    assert!(taken["took_ms"].is_u64() && snapshot_file(server.path("ledger"), 2).exists(), "{taken}");
    server.signal(Signal::USR1);
    let told = event(|| server.log(), "snapshot_not_taken", 0);
    assert!(told["reason"].as_str().unwrap().contains("nothing was committed since the one after entry 2"), "{told}");
    wallet.spend("a", "b", 1, 2, "k2").ok();
    server.signal(Signal::USR1);
    assert_eq!(event(|| server.log(), "snapshot_taken", 1)["seq"], 3);
    told_by_metrics(&server, 2.0, 0.0);
    // What stands in the way of a file keeps the next one from being taken.
    wallet.spend("a", "b", 1, 3, "k3").ok();
    let name = format!("{}.tmp", snapshot_file(server.path("ledger"), 4).display());
    std::fs::create_dir(&name).unwrap();
    server.signal(Signal::USR1);
    assert_eq!(event(|| server.log(), "snapshot_failed", 0)["level"], "ERROR");
    told_by_metrics(&server, 2.0, 1.0);
    std::fs::remove_dir(&name).unwrap();
    // A start begins behind it.
    server.crash_and_restart();
    assert_eq!(event(|| server.log(), "recovered", 0)["from_snapshot"], 3);
    assert_eq!(server.wallet().balance("b"), 3);
}

#[test]
fn the_ledger_of_a_daemon_is_snapshot_by_the_daemon() {
    let mut daemon = Daemon::start();
    let mut server = Server::prepared(&[("deps.ledger_sock", &daemon.sock())]);
    server.launch();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    server.signal(Signal::USR1);
    let told = event(|| server.log(), "snapshot_not_taken", 0);
    assert!(told["reason"].as_str().unwrap().contains("send SIGUSR1 to ron-ledger"), "{told}");
    no_snapshot_yet(&daemon.path("ledger"));
    daemon.signal(Signal::USR1);
    assert_eq!(event(|| daemon.log(), "snapshot_taken", 0)["seq"], 1);
    assert!(snapshot_file(daemon.path("ledger"), 1).exists());
    told_by_metrics(&server, 1.0, 0.0);
    daemon.signal(Signal::USR1);
    let told = event(|| daemon.log(), "snapshot_not_taken", 0);
    assert!(told["reason"].as_str().unwrap().contains("entry 1"), "{told}");
    wallet.spend("a", "b", 1, 1, "k1").ok();
    daemon.kill();
    daemon.launch();
    assert_eq!(event(|| daemon.log(), "ledger_started", 0)["from_snapshot"], 1);
}

#[test]
fn an_embedded_ledger_is_snapshot_on_its_schedule() {
    // By time: nobody asks for it.
    let server = Server::with(&[("deps.ledger_sock", "embedded:./ledger"), ("ledger.snapshot_every", "1s")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 5_000);
    eventually("there is one", || snapshot_file(server.path("ledger"), 1).exists().then_some(()));
    server.metric_reaches("wallet_snapshot_height", 1.0);
    // By entries: the time is far away.
    let every = [("ledger.snapshot_every", "7days"), ("ledger.snapshot_entries", "1000")];
    let server = Server::with(&[&[("deps.ledger_sock", "embedded:./ledger")], &every[..]].concat());
    let mut wallet = server.wallet();
    wallet.issue("a", 5_000);
    for nonce in 1..1_000 {
        wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok();
    }
    let height = server.metric_reaches("wallet_snapshot_height", 1_000.0);
    assert!(snapshot_file(server.path("ledger"), height as u64).exists());
}
