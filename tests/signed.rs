//! Signed roots and signed checkpoints from the outside: what a holder of receipts and an auditor of the stream check with public keys alone,
//! over rotations, an orderly end and restarts; and that nothing that was changed passes.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::{eventually, Server, Wallet};

fn ronctl(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args(["--config", "svc-wallet.toml"]).args(arguments);
    command.current_dir(server.directory()).env_clear().stdin(Stdio::null()).output().unwrap()
}

/// What it says to programs; it must end in this way.
fn told(server: &Server, code: i32, arguments: &[&str]) -> Value {
    let output = ronctl(server, &[&["--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// Public keys of all keys that the keyring has had whenever this was called.
fn export(server: &Server) {
    told(server, 0, &["kms", "export", "--out", "keys.json"]);
}

fn proof(wallet: &mut Wallet, txid: &str) -> Value {
    wallet.get(&format!("/v1/tx/{txid}/proof")).ok().json()
}

/// The proof under a signed root, once there is one that covers the transaction.
fn signed_proof(wallet: &mut Wallet, txid: &str) -> Value {
    eventually("the root is signed", || {
        let proof = proof(wallet, txid);
        (!proof["root"]["signatures"].as_array().unwrap().is_empty()).then_some(proof)
    })
}

fn keep(server: &Server, name: &str, content: &Value) {
    fs::write(server.path(name), content.to_string()).unwrap();
}

fn signer(root: &Value) -> &str {
    root["signatures"][0]["key"].as_str().unwrap()
}

fn last_line(file: &Path) -> Value {
    serde_json::from_str(fs::read_to_string(file).unwrap().lines().last().unwrap()).unwrap()
}

#[test]
fn a_receipt_is_tied_to_a_signed_root_and_nothing_that_was_changed_passes() {
    let server = Server::with(&[("ledger.sign_roots_every", "1s")]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 100);
    let receipt = wallet.spend("alice", "bob", 42, 1, "k1").ok();
    let txid = receipt.txid();
    let good = signed_proof(&mut wallet, &txid);
    export(&server);
    keep(&server, "receipt.json", &receipt.json());
    keep(&server, "proof.json", &good);
    let verify = ["proof", "verify", "--keys", "keys.json", "--proof"];
    let verdict = told(&server, 0, &[&verify[..], &["proof.json", "--receipt", "receipt.json"]].concat());
    assert_eq!((&verdict["proven"], &verdict["receipt_matches"]), (&true.into(), &true.into()), "{verdict}");
    assert_eq!(verdict["signed"][0]["key"].as_str(), Some(signer(&good["root"])));
    let output = ronctl(&server, &[&verify[..], &["proof.json"]].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("signed") && said.contains("Ed25519") && said.contains("42 roc"), "{said}");

    // Later roots do not change under which root it is proven.
    for nonce in 2..6 {
        wallet.spend("alice", "bob", 1, nonce, &format!("k{nonce}")).ok();
    }
    let later = wallet.spend("alice", "bob", 1, 6, "k6").ok().txid();
    let newer = signed_proof(&mut wallet, &later);
    assert!(newer["root"]["size"].as_u64() > good["root"]["size"].as_u64());
    assert_eq!(proof(&mut wallet, &txid), good);
    let [from, to] = [&good, &newer].map(|proof| proof["root"]["size"].as_u64().unwrap());
    keep(&server, "consistency.json", &wallet.get(&format!("/v1/ledger/consistency?from={from}&to={to}")).ok().json());
    let from = format!("{}:{from}", good["root"]["hash"].as_str().unwrap());
    let between = ["proof", "consistency", "--proof", "consistency.json", "--keys", "keys.json", "--from", &from];
    assert_eq!(told(&server, 0, &between)["signed"][0]["key"].as_str(), Some(signer(&newer["root"])));
    let both = [&verify[..], &["proof.json", "--consistency", "consistency.json"]].concat();
    assert_eq!(told(&server, 0, &both)["root"]["size"], newer["root"]["size"]);

    // The newest signed root is fetched, checked and kept.
    let root = ["proof", "root", "--signed", "--keys", "keys.json", "--out", "root.json", "--token", server.token()];
    told(&server, 0, &root);
    let kept: Value = serde_json::from_slice(&fs::read(server.path("root.json")).unwrap()).unwrap();
    assert_eq!(kept["root"]["hash"], newer["root"]["hash"]);

    let stranger = Server::start();
    export(&stranger);
    fs::copy(stranger.path("keys.json"), server.path("other.json")).unwrap();
    let not_theirs = ["proof", "root", "--signed", "--keys", "other.json", "--token", server.token()];
    told(&server, 1, &not_theirs);
    type Change<'c> = &'c dyn Fn(&mut Value);
    let changes: [(Change<'_>, &str); 6] = [
        (&|proof| proof["root"]["signatures"][0]["ts"] = 7.into(), "is not signed as it says"),
        (&|proof| proof["root"]["signatures"] = newer["root"]["signatures"].clone(), "is not signed as it says"),
        (&|proof| proof["root"]["signatures"] = serde_json::json!([]), "is not signed"),
        (&|proof| proof["root"]["signatures"][0]["key"] = "k-none".into(), "none of key k-none"),
        (&|proof| proof["root"]["hash"] = newer["root"]["hash"].clone(), "the proof does not hold"),
        (&|proof| proof["root"] = newer["root"].clone(), "the proof does not hold"),
    ];
    for (change, part) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        keep(&server, "bad.json", &bad);
        let verdict = told(&server, 1, &[&verify[..], &["bad.json"]].concat());
        assert!(verdict["what"].as_str().unwrap().contains(part), "{verdict} instead of {part}");
    }
    let verdict = told(&server, 1, &["proof", "verify", "--proof", "proof.json", "--keys", "other.json"]);
    assert!(verdict["what"].as_str().unwrap().contains("none of key"), "{verdict}");
    told(&server, 2, &["proof", "verify", "--proof", "proof.json"]);
    told(&server, 2, &["proof", "verify", "--proof", "proof.json", "--keys", "receipt.json"]);
}

#[test]
fn after_an_orderly_end_the_last_root_is_signed_and_ties_what_came_before() {
    let mut server = Server::with(&[("ledger.sign_roots_every", "1h")]);
    let mut wallet = server.wallet();
    let txid = wallet.issue("alice", 100).txid();
    assert_eq!(proof(&mut wallet, &txid)["root"]["signatures"], serde_json::json!([]), "nothing is signed yet");
    wallet.get("/v1/ledger/root?signed=true").refused(503, "RETRY_LATER");
    wallet.get("/v1/ledger/root?signed=yes").refused(400, "BAD_REQUEST");
    for nonce in 1..=30 {
        wallet.spend("alice", "bob", 1, nonce, &format!("k{nonce}")).ok();
    }
    drop(wallet);
    server.stop();
    let file = server.path("accounting.roots");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let last = last_line(&file);
    assert_eq!(last["root"]["seq"], 31, "everything that was committed");

    server.launch();
    export(&server);
    let mut wallet = server.wallet();
    let found = proof(&mut wallet, &txid);
    assert_eq!(found["root"], last["root"]);
    keep(&server, "proof.json", &found);
    keep(&server, "root.json", &last);
    told(&server, 0, &["proof", "verify", "--proof", "proof.json", "--keys", "keys.json", "--root", "root.json"]);
    for target in ["/v1/ledger/root", "/wallet/ledger/root?signed=true", "/v1/ledger/root?signed=false"] {
        assert_eq!(wallet.get(target).ok().json(), last, "{target}");
    }
    assert_eq!(server.metric("wallet_signed_root_height"), 31.0);

    // What was signed may be lost or torn: what is there is signed anew.
    for content in [None, Some("{\"log_id\"")] {
        server.stop();
        match content {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        server.launch();
        let mut wallet = server.wallet();
        let again = signed_proof(&mut wallet, &txid);
        assert_eq!(again["root"]["hash"], found["root"]["hash"]);
        keep(&server, "proof.json", &again);
        told(&server, 0, &["proof", "verify", "--proof", "proof.json", "--keys", "keys.json"]);
    }
}

#[test]
fn rotations_of_either_kind_are_followed_while_the_server_serves() {
    let mut server = Server::with(&[("ledger.sign_roots_every", "1s")]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 100);
    let mut signers = Vec::new();
    for (nonce, hybrid) in [(1, None), (2, Some("on")), (3, Some("off"))] {
        if let Some(hybrid) = hybrid {
            told(&server, 0, &["kms", "rotate", "--hybrid", hybrid]);
        }
        export(&server);
        let active = told(&server, 0, &["kms", "status"])["active"].as_str().unwrap().to_owned();
        let txid = wallet.spend("alice", "bob", 1, nonce, &format!("k{nonce}")).ok().txid();
        let proof = signed_proof(&mut wallet, &txid);
        assert_eq!(signer(&proof["root"]), active);
        assert_eq!(proof["root"]["signatures"][0]["ml_dsa_65"].is_string(), hybrid == Some("on"));
        keep(&server, &format!("proof-{nonce}.json"), &proof);
        signers.push(active);
        // The checkpoint of an orderly end is signed by the same key.
        if nonce < 3 {
            drop(wallet);
            server.stop();
            server.launch();
            wallet = server.wallet();
        }
    }
    told(&server, 0, &["kms", "retire", &signers[0]]);
    export(&server);
    drop(wallet);
    server.stop();
    for nonce in 1..=3 {
        let proof = format!("proof-{nonce}.json");
        let verdict = told(&server, 0, &["proof", "verify", "--keys", "keys.json", "--proof", &proof]);
        assert_eq!(verdict["signed"][0]["hybrid"], nonce == 2, "{verdict}");
    }

    // Whoever breaks Ed25519 signs with a classical key, and those stay in the file: where hybrid is expected they prove nothing.
    for nonce in 1..=3 {
        let proof = format!("proof-{nonce}.json");
        let expected = ["proof", "verify", "--keys", "keys.json", "--expect", "hybrid=on", "--proof", &proof];
        let verdict = told(&server, i32::from(nonce != 2), &expected);
        let what = verdict["what"].as_str().unwrap_or_default();
        assert_eq!(what.contains("is signed by no hybrid key, and hybrid=on is expected"), nonce != 2, "{verdict}");
    }
    told(&server, 2, &["proof", "verify", "--keys", "keys.json", "--expect", "hybrid=off", "--proof", "proof-2.json"]);
    told(&server, 2, &["proof", "verify", "--root", "proof-2.json", "--expect", "hybrid=on", "--proof", "proof-2.json"]);
    let report = audit(&server, 1, &["--keys", "keys.json", "--expect", "hybrid=on"]);
    let signatures = &report["signatures"];
    assert_eq!((&signatures["bad"], &report["whole"]), (&0.into(), &true.into()), "{report}");
    assert!(signatures["last"]["line"].as_u64() > Some(0) && signatures["last"] != report["checkpoint"], "{report}");
    told(&server, 0, &["kms", "rotate", "--hybrid", "on"]);
    export(&server);
    server.launch();
    let minted = told(&server, 0, &["cap", "mint", "--subject", "tests", "--scopes", "wallet:*", "--ttl", "900s"]);
    let mut wallet = Wallet::new(server.connect(), minted["token"].as_str().unwrap().to_owned());
    let txid = wallet.spend("alice", "bob", 1, 4, "k4").ok().txid();
    keep(&server, "proof-4.json", &signed_proof(&mut wallet, &txid));
    told(&server, 0, &["proof", "verify", "--keys", "keys.json", "--expect", "hybrid=on", "--proof", "proof-4.json"]);
    let root = ["proof", "root", "--signed", "--keys", "keys.json", "--expect", "hybrid=on", "--token", &wallet.token];
    told(&server, 0, &root);
    drop(wallet);
    server.stop();
    let report = audit(&server, 0, &["--keys", "keys.json", "--expect", "hybrid=on"]);
    assert_eq!(
        report["signatures"]["last"], report["checkpoint"],
        "the newest is hybrid, and covers what is before it: {report}"
    );

    // Of a hybrid signature either half alone is none.
    let hybrid: Value = serde_json::from_slice(&fs::read(server.path("proof-2.json")).unwrap()).unwrap();
    let mut stripped = hybrid.clone();
    stripped["root"]["signatures"][0].as_object_mut().unwrap().remove("ml_dsa_65");
    keep(&server, "bad.json", &stripped);
    told(&server, 1, &["proof", "verify", "--keys", "keys.json", "--proof", "bad.json"]);

    let report = audit(&server, 0, &["--keys", "keys.json"]);
    let signatures = &report["signatures"];
    assert_eq!(
        (&signatures["bad"], &signatures["unsigned"], &signatures["checked"]),
        (&0.into(), &0.into(), &true.into()),
        "{report}"
    );
    assert!(signatures["signed"].as_u64() >= Some(3) && signatures["last"] == report["checkpoint"], "{report}");
    let stream = fs::read_to_string(server.path("audit/audit-0000000001.jsonl")).unwrap();
    for key in &signers {
        assert!(stream.contains(&format!("\"signature\":{{\"key\":\"{key}\"")), "{key} has signed no checkpoint");
    }
}

/// The verdict of `ronctl audit verify`, which must be this one.
fn audit(server: &Server, code: i32, more: &[&str]) -> Value {
    let ledger = server.path("ledger");
    told(server, code, &[&["audit", "verify", "--ledger", ledger.to_str().unwrap()], more].concat())
}

#[test]
fn the_checkpoints_of_the_audit_stream_are_signed_and_only_the_right_keys_say_so() {
    let mut server = Server::start();
    server.wallet().issue("alice", 100);
    server.metric_reaches("wallet_audit_stream_height", 1.0);
    server.stop();
    export(&server);
    let report = audit(&server, 0, &["--keys", "keys.json"]);
    assert!(report["signatures"]["signed"].as_u64() >= Some(1), "{report}");
    let anchor = report["anchor"].as_str().unwrap().to_owned();
    assert_eq!(audit(&server, 0, &["--at-least", &anchor])["anchored"], "kept");
    let unchecked = audit(&server, 0, &[]);
    assert_eq!((&unchecked["signatures"]["checked"], &unchecked["signatures"]["bad"]), (&false.into(), &Value::Null));
    let stranger = Server::start();
    export(&stranger);
    let other = stranger.path("keys.json");
    let report = audit(&server, 1, &["--keys", other.to_str().unwrap()]);
    assert_eq!((&report["good"], &report["whole"], &report["signatures"]["last"]), (&false.into(), &true.into(), &Value::Null));
    assert!(report["signatures"]["bad_ones"][0]["what"].as_str().unwrap().contains("none of key"), "{report}");

    // A line that somebody has changed, all hashes made anew behind it: the ledger does not know of refusals and events, the key does.
    let file = server.path("audit/audit-0000000001.jsonl");
    let written = fs::read_to_string(&file).unwrap();
    let forged = chained(&written.replacen("\"event\":\"start\",\"ok\":true", "\"event\":\"start\",\"ok\":false", 1));
    assert_ne!(forged, written);
    fs::write(&file, &forged).unwrap();
    assert_eq!(audit(&server, 0, &[])["good"], true, "the chain does not tell");
    let report = audit(&server, 1, &["--keys", "keys.json"]);
    assert!(
        report["signatures"]["bad_ones"][0]["what"].as_str().unwrap().contains("the Ed25519 signature is not that"),
        "{report}"
    );
    // Nor does it help to leave the signatures out.
    let without: String = forged.lines().map(unsigned).collect();
    fs::write(&file, chained(&without)).unwrap();
    let report = audit(&server, 1, &["--keys", "keys.json"]);
    assert_eq!((&report["signatures"]["bad"], &report["signatures"]["signed"]), (&0.into(), &0.into()), "{report}");
    let lacking = report["signatures"]["lacking"].clone();
    assert!(lacking["first"]["what"].as_str().unwrap().contains("is not signed"), "{lacking}");

    // Nor that the server goes on behind it and signs what comes: it says so, and what has no signature stays without one.
    server.launch();
    server.stop();
    assert!(server.log().contains("audit_distrusted"), "{}", server.log());
    let stream = fs::read_to_string(&file).unwrap();
    assert!(stream.contains("\"event\":\"stream\",\"ok\":false,\"what\":\"checkpoint\""), "{stream}");
    let report = audit(&server, 1, &["--keys", "keys.json"]);
    assert_eq!((&report["signatures"]["last"], &report["signatures"]["bad"]), (&report["checkpoint"], &0.into()), "{report}");
    assert_eq!(report["signatures"]["lacking"], lacking);
    let from = (lacking["last_line"].as_u64().unwrap() + 1).to_string();
    audit(&server, 0, &["--keys", "keys.json", "--signed-from", &from]);
    assert_eq!(audit(&server, 1, &["--at-least", &anchor])["anchored"], "other", "whoever has kept a line sees it in any case");
    server.launch();
    server.stop();
    assert!(!server.log().contains("audit_distrusted"), "its own checkpoint is good");
}

fn unsigned(line: &str) -> String {
    match line.split_once("\"signature\":{") {
        Some((before, rest)) => format!("{before}\"signature\":null,{}\n", rest.split_once("},").unwrap().1),
        None => format!("{line}\n"),
    }
}

/// Lines with their hashes made anew, and the heads of checkpoints.
fn chained(lines: &str) -> String {
    let (mut head, mut out) = ([0; 32], String::new());
    for line in lines.lines() {
        let mut content = line.split_once(",\"hash\":").unwrap().0.to_owned();
        if let Some(at) = content.find("\"head\":\"") {
            content.replace_range(at + 8..at + 72, &svc_wallet::domain::hex(&head));
        }
        let hash = blake3::Hasher::new().update(&head).update(content.as_bytes()).finalize();
        head = *hash.as_bytes();
        out += &format!("{content},\"hash\":\"{}\"}}\n", hash.to_hex());
    }
    out
}
