//! An entry that no correct server writes gets into the ledger of a daemon while its wallet serves: the audit finds it, the wallet
//! refuses every write from then on and says why everywhere where an operator looks, and reads go on.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
mod support;

use serde_json::Value;
use std::process::Command;
use support::{eventually, Daemon, Server};
use svc_wallet::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, Nonce, Op, TokenId, UnixMs};
use svc_wallet::ledger::{DiskStorage, Log, Options};

const VIOLATED: &str = "wallet_conservation_checks_total{outcome=\"violated\"}";

/// A transfer of 1 from `a` to `b` with this nonce.
fn transfer(nonce: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let draft = Draft {
        op: Op::Transfer,
        from: Some(Account::new("a").unwrap()),
        to: Some(Account::new("b").unwrap()),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(1).unwrap(),
        nonce: Some(Nonce(nonce)),
        key: Key::new("k-2").unwrap(),
        memo: None,
        corr: "corr",
        token: TokenId([4; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(1_700_000_000_000),
    };
    draft.encode(&mut bytes);
    bytes
}

/// What a command prints, and what it ends with.
fn ronctl(server: &Server, arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.arg("--config").arg(server.path("svc-wallet.toml")).args(arguments.split(' ')).current_dir(server.directory());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn status(server: &Server) -> Value {
    serde_json::from_str(&ronctl(server, "--json status").1).unwrap()
}

#[test]
fn a_wrong_entry_in_the_ledger_closes_the_gate_and_is_told_everywhere() {
    let mut daemon = Daemon::start();
    let mut server =
        Server::with(&[("deps.ledger_sock", &daemon.sock()), ("runtime.cores", "1"), ("timeouts.write_ms", "20000")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    wallet.spend("a", "b", 10, 1, "k-1").ok();
    server.metric_reaches("wallet_audited_height", 2.0);
    let writable = |server: &Server| status(server).pointer("/status/ledger/writable").and_then(Value::as_bool);
    eventually("a ledger that can be written", || (writable(&server) == Some(true)).then_some(()));
    assert_eq!(server.metric(VIOLATED), 0.0);

    // The wallet has handed in a second spend, and the daemon ends before it has read it. In its place another program writes an
    // entry that leaves nonces out, as the third entry of the one lane.
    daemon.pause();
    let spend = wallet.transfer("a", "b", 1, 2, "k-2");
    wallet.client.send(spend.bytes());
    server.metric_reaches("wallet_lane_pending", 1.0);
    daemon.kill();
    let storage = DiskStorage::create(&daemon.path("ledger")).unwrap();
    let (mut log, _) = Log::recover(storage, &Options::new(8 << 20), &mut |_, _, _| Ok(())).unwrap();
    log.append(&[LaneBatch { lane: 0, lane_first: 3, count: 1, bytes: transfer(7) }]).unwrap();
    log.close().unwrap();
    daemon.launch();

    server.metric_reaches(VIOLATED, 1.0);
    let page = server.page("/readyz");
    assert_eq!((page.status, &page.json()["missing"]), (503, &serde_json::json!(["ledger"])), "{page}");
    assert_eq!((page.json()["writes"].as_bool(), page.json()["reads"].as_bool()), (Some(false), Some(true)), "{page}");
    let reason = page.json()["reasons"]["ledger"].as_str().unwrap().to_owned();
    for part in ["the audit has failed", "entry 3", "nonce", "ronctl ledger verify"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let mut wallet = server.wallet();
    wallet.spend("a", "b", 1, 3, "k-3").refused(503, "UPSTREAM_UNAVAILABLE");
    assert!(wallet.balance("b") >= 10, "reads go on");
    eventually("the status says so", || (writable(&server) == Some(false)).then_some(()));
    assert!(server.log().contains("the ledger breaks a rule, says its daemon"), "{}", server.log());
    eventually("the daemon says so", || daemon.log().contains("the ledger breaks a rule").then_some(()));
    // It is counted once, and what was found stays.
    let before = server.metric("ledger_connect_errors_total");
    daemon.kill();
    server.metric_reaches("ledger_connect_errors_total", before + 1.0);
    daemon.launch();
    eventually("the wallet is connected", || (server.log().matches("connected to the ledger").count() == 3).then_some(()));
    assert_eq!((server.metric(VIOLATED), server.metric("wallet_audited_height")), (1.0, 2.0));
    let page = server.page("/readyz");
    assert_eq!((page.status, page.json()["reasons"]["ledger"].as_str()), (503, Some(reason.as_str())), "{page}");

    // As the runbook has it: it is found in the files as well, and a start does not help.
    let (code, told) = ronctl(&server, &format!("ledger verify --dir {}", daemon.path("ledger").display()));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("inconsistent") && told.contains("7"), "{told}");
    server.stop();
    let refused = server.launch_refused();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.log);
    assert!(refused.log.contains("entry 3 does not fit"), "{}", refused.log);
}
