//! Backup and restore with the real programs, and what they say to other programs: a copy beside a running server, a new ledger from it,
//! and a server that goes on; and old segments that go to an archive and come back. The steps of RUNBOOK.md are run by `runbook`.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::{body, eventually, Server, Wallet};

/// Runs `ronctl`, which must succeed, and returns what it said to programs.
fn ronctl(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_ronctl")).arg("--json").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ronctl {arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_ledger_is_copied_while_it_serves_and_a_server_goes_on_from_the_copy() {
    let mut server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    let first = wallet.spend("alice", "bob", 30, 1, "key-1").ok();
    wallet.post("/v1/hold", "key-2", &body("alice", "escrow", 50, 2)).ok();
    let old = first.json()["txid"].as_str().unwrap().to_owned();

    // 1. Copy, while the server serves.
    let (ledger, copy) = (server.path("ledger"), server.path("ledger.snap"));
    let made = ronctl(&["ledger", "snapshot", "--dir", text(&ledger), "--out", text(&copy)]);
    assert_eq!((made["entry"].as_u64(), made["accounts"].as_u64()), (Some(3), Some(3)));
    assert_eq!((&made["assets"][0]["balances"], &made["assets"][0]["held"]), (&"1000".into(), &"50".into()));
    let known = caught_up(&mut wallet);
    let lost = wallet.spend("alice", "bob", 1, 3, "key-3").ok();

    // 2. Stop, and put the ledger and its counters aside.
    assert!(server.stop().status.success());
    std::fs::rename(&ledger, server.path("ledger.old")).unwrap();
    std::fs::rename(server.path("accounting"), server.path("accounting.old")).unwrap();

    // 3. Restore. A directory that has a ledger is left alone.
    let restored = ronctl(&["ledger", "restore", "--from", text(&copy), "--dir", text(&ledger)]);
    assert_eq!((&restored["digest"], &restored["log_id"]), (&made["digest"], &made["log_id"]));
    let until = restored["keys_unknown_until"].as_str().expect("the keys are in their time").to_owned();
    let again = Command::new(env!("CARGO_BIN_EXE_ronctl"))
        .args(["ledger", "restore", "--from", text(&copy), "--dir", text(&ledger)])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("has a ledger already"));

    // 4. Start, and reconcile.
    server.launch();
    let told = keys_unknown(&server).expect("the start says the same");
    assert_eq!((&told["level"], &told["before"]), (&"WARN".into(), &4.into()));
    let until_second = |text: &str| text[..19].to_owned();
    assert_eq!(until_second(told["until"].as_str().unwrap()), until_second(&until));
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance("alice"), wallet.balance("bob"), wallet.balance("escrow")), (920, 30, 50));
    assert_eq!(wallet.seq("alice"), (2, 3), "the client is told where to go on");
    let txid = lost.json()["txid"].as_str().unwrap().to_owned();
    wallet.tx(&txid).refused(404, "NOT_FOUND");
    // What was in the segments before is not in a copy, and nothing pretends that it is.
    wallet.tx(&old).refused(503, "UPSTREAM_UNAVAILABLE");
    wallet.spend("alice", "bob", 30, 1, "key-1").refused(503, "UPSTREAM_UNAVAILABLE");
    // Nor is an issue made twice: its key is in the copy.
    let again = r#"{"to":"alice","asset":"roc","amount_minor":"1000"}"#;
    wallet.post("/v1/issue", "issue-alice", again).refused(503, "UPSTREAM_UNAVAILABLE");
    // 5. Go on.
    let later = wallet.spend("alice", "bob", 20, 3, "key-4").ok();
    // Proofs go on: to the root that was known before the loss, and of every receipt since.
    let size = caught_up(&mut wallet);
    wallet.get(&format!("/v1/ledger/consistency?from={known}&to={size}")).ok();
    wallet.get(&format!("/v1/tx/{}/proof", later.txid())).ok();
    wallet.get(&format!("/v1/tx/{old}/proof")).refused(503, "UPSTREAM_UNAVAILABLE");
    wallet.get("/v1/ledger/consistency?from=1&to=1").refused(503, "UPSTREAM_UNAVAILABLE");
    wallet.post("/v1/release", "key-5", &body("escrow", "alice", 50, 1)).ok();
    server.crash_and_restart();
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance("alice"), wallet.balance("bob"), wallet.balance("escrow")), (950, 50, 0));
    assert!(server.stop().status.success());
    let report = ronctl(&["ledger", "verify", "--dir", text(&ledger)]);
    assert_eq!(
        (report["whole"].as_bool(), report["archived_through"].as_u64(), report["head"].as_u64()),
        (Some(true), Some(3), Some(5))
    );
}

/// What the start has said of keys that are unknown.
fn keys_unknown(server: &Server) -> Option<Value> {
    let log = server.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find(|line| line["event"] == "keys_unknown")
}

/// How a command names the process that has the ledger, which is the server or its daemon.
fn in_use(server: &Server) -> String {
    let pid = server.ledger_pid();
    let name = if pid == server.pid() { "svc-wallet" } else { "ron-ledger" };
    format!("in use by {name} (process {})", pid.as_raw_nonzero())
}

/// Waits until the history has come to the head, and returns its size in batches.
fn caught_up(wallet: &mut Wallet) -> u64 {
    eventually("the root", || {
        let reply = wallet.get("/v1/ledger/root");
        (reply.status == 200).then(|| reply.json()["root"]["size"].as_u64().unwrap())
    })
}

#[test]
fn old_segments_go_to_an_archive_and_come_back() {
    let mut server = Server::with(&[("ledger.segment_bytes", "8MiB")]);
    let memo = "m".repeat(200);
    let (mut wallet, mut nonce, mut first) = (server.wallet(), 0, None);
    wallet.issue("alice", 1_000_000);
    // Two snapshots behind the first segments: one at each orderly end.
    for round in 1..=2 {
        while !server.segment(1 + round).exists() {
            let requests: Vec<_> = (0..64)
                .map(|_| {
                    nonce += 1;
                    let body = body("alice", "bob", 1, nonce).replace('}', &format!(",\"memo\":\"{memo}\"}}"));
                    (wallet.write("/wallet/spend", &format!("key-{nonce}"), &body), nonce)
                })
                .collect();
            for (request, _) in &requests {
                let reply = wallet.client.call(request).ok();
                first.get_or_insert_with(|| reply.json()["txid"].as_str().unwrap().to_owned());
            }
        }
        assert!(server.stop().status.success());
        server.launch();
        wallet = server.wallet();
    }
    let first = first.unwrap();
    wallet.tx(&first).ok();
    assert_eq!(keys_unknown(&server), None);
    let (ledger, archive) = (server.path("ledger"), server.path("archive"));
    let busy = Command::new(env!("CARGO_BIN_EXE_ronctl"))
        .args(["ledger", "archive", "--dir", text(&ledger), "--to", text(&archive), "--keys-ttl", "0s"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert_eq!(busy.status.code(), Some(4), "a server has the ledger: {told}");
    assert!(told.contains(&in_use(&server)) && told.contains("stop that one"), "{told}");
    assert!(!archive.exists(), "nothing is begun");
    let copy = server.path("busy.snap");
    ronctl(&["ledger", "snapshot", "--dir", text(&ledger), "--out", text(&copy)]);
    let busy = Command::new(env!("CARGO_BIN_EXE_ronctl"))
        .args(["ledger", "restore", "--from", text(&copy), "--dir", text(&ledger)])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(busy.status.code() == Some(4) && told.contains(&in_use(&server)), "{told}");
    let known = caught_up(&mut wallet);
    assert!(server.stop().status.success());
    // Without the history, what goes could not be proven any more.
    std::fs::rename(ledger.join("history.mmr"), server.path("history.old")).unwrap();
    let unproven = Command::new(env!("CARGO_BIN_EXE_ronctl"))
        .args(["ledger", "archive", "--dir", text(&ledger), "--to", text(&archive), "--keys-ttl", "0s"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&unproven.stderr);
    assert!(unproven.status.code() == Some(1) && told.contains("`ronctl proof root` has answered"), "{told}");
    std::fs::rename(server.path("history.old"), ledger.join("history.mmr")).unwrap();
    let moved = ronctl(&["ledger", "archive", "--dir", text(&ledger), "--to", text(&archive), "--keys-ttl", "0s"]);
    assert_eq!(moved["moved"].as_array().unwrap().len(), 1, "{moved}");
    server.launch();
    let mut wallet = server.wallet();
    assert_eq!(wallet.seq("alice"), (nonce, nonce + 1));
    let gone = wallet.tx(&first).refused(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!(gone.header("Retry-After"), Some("3600"), "nobody should ask every second: {gone}");
    assert_eq!(gone.json()["details"], serde_json::json!({"archived": true}), "{gone}");
    // They went before their keys were over their time, which is said.
    assert!(keys_unknown(&server).is_some(), "{}", server.log());
    let later = wallet.spend("alice", "bob", 1, nonce + 1, "after").ok();
    assert!(caught_up(&mut wallet) > known, "the history goes on");
    wallet.get(&format!("/v1/tx/{}/proof", later.txid())).ok();
    wallet.get(&format!("/v1/ledger/consistency?from=1&to={known}")).ok();
    assert!(server.stop().status.success());
    let name = "segment-0000000001.log";
    std::fs::rename(archive.join(name), ledger.join(name)).unwrap();
    server.launch();
    server.wallet().tx(&first).ok();
    assert_eq!(keys_unknown(&server), None);
    server.wallet().spend("alice", "bob", 1, nonce + 2, "key-1").refused(409, "IDEMPOTENCY_CONFLICT");
}
