//! Proofs of history from outside: the vectors, a running server, and `ronctl proof` without one.
#![allow(clippy::unwrap_used)] // The helpers of these tests are not test functions themselves.
mod support;

use serde_json::Value;
use support::{eventually, Reply, Server, Wallet};
use svc_wallet::api::proof::{ConsistencyBody, ProofBody, RootBody};
use svc_wallet::api::reply;
use svc_wallet::domain::bytes_of_hex;
use svc_wallet::domain::{Entry, HistoryRoot, Proof};
use svc_wallet::ledger::history::{verify_consistency, verify_inclusion};

fn vectors() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/history.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_vectors_hold() {
    let vectors = vectors();
    let roots: Vec<HistoryRoot> = serde_json::from_value::<Vec<RootBody>>(vectors["roots"].clone())
        .unwrap()
        .iter()
        .map(|root| root.read().unwrap())
        .collect();
    let proofs: Vec<ProofBody> = serde_json::from_value(vectors["proofs"].clone()).unwrap();
    for body in &proofs {
        let proof = body.read().unwrap();
        assert_eq!(verify_inclusion(&proof), Ok(()), "{}", body.txid);
        assert_eq!(proof.inclusion.root, roots[proof.inclusion.root.size as usize - 1]);
        for other in roots.iter().filter(|root| **root != proof.inclusion.root) {
            let mut moved = proof.clone();
            moved.inclusion.root = *other;
            assert!(verify_inclusion(&moved).is_err(), "{} under the root of {}", body.txid, other.size);
        }
    }
    let consistency: Vec<ConsistencyBody> = serde_json::from_value(vectors["consistency"].clone()).unwrap();
    for body in &consistency {
        let proof = body.read().unwrap();
        assert_eq!(verify_consistency(&proof), Ok(()), "{} to {}", proof.from.size, proof.to.size);
        for (root, size) in [(proof.from, proof.from.size), (proof.to, proof.to.size)] {
            assert_eq!(root, roots[size as usize - 1]);
        }
    }
    assert!(proofs.len() > 10 && consistency.len() > 10);
}

/// A server that signs no root while the test runs: what is proven is proven under the current one.
fn unsigned() -> Server {
    Server::with(&[("ledger.sign_roots_every", "1h")])
}

fn prove(wallet: &mut Wallet, txid: &str, query: &str) -> Reply {
    wallet.get(&format!("/v1/tx/{txid}/proof{query}"))
}

/// The proof of a reply, which has to hold.
fn held(reply: &Reply) -> Proof {
    let body: ProofBody = serde_json::from_slice(&reply.body).unwrap_or_else(|fault| panic!("{fault}: {reply}"));
    let proof = body.read().unwrap();
    assert_eq!(verify_inclusion(&proof), Ok(()), "{reply}");
    proof
}

fn current(wallet: &mut Wallet) -> HistoryRoot {
    let body: RootBody = serde_json::from_value(wallet.get("/v1/ledger/root").ok().json()["root"].clone()).unwrap();
    body.read().unwrap()
}

#[test]
fn a_receipt_is_proven_under_the_current_root_and_under_an_older_one() {
    let server = unsigned();
    let mut wallet = server.wallet();
    let receipts = [wallet.issue("alice", 100), wallet.spend("alice", "bob", 5, 1, "k1").ok()];
    let older = current(&mut wallet);
    assert_eq!(older.through.0, 2);
    wallet.spend("alice", "carol", 5, 2, "k2").ok();
    let newer = current(&mut wallet);
    for receipt in &receipts {
        let proof = held(&prove(&mut wallet, &receipt.txid(), "").ok());
        assert_eq!(proof.inclusion.root, newer);
        let mut made_again = Vec::new();
        let entry = Entry::parse(&proof.found.entry).unwrap().0;
        reply::receipt(&mut made_again, proof.log_id, &entry, proof.found.seq, &proof.found.root);
        assert_eq!(made_again, receipt.body, "the receipt follows from the proof");
        let old = held(&prove(&mut wallet, &receipt.txid(), &format!("?size={}", older.size)).ok());
        assert_eq!(old.inclusion.root, older);
    }
    let target = format!("/wallet/ledger/consistency?from={}&to={}", older.size, newer.size);
    let body: ConsistencyBody = serde_json::from_slice(&wallet.get(&target).ok().body).unwrap();
    let proof = body.read().unwrap();
    assert_eq!((verify_consistency(&proof), proof.from, proof.to), (Ok(()), older, newer));
}

#[test]
fn what_is_not_there_or_not_theirs_is_refused() {
    let server = unsigned();
    let mut wallet = server.wallet();
    let txid = wallet.issue("alice", 100).txid();
    let later = wallet.spend("alice", "bob", 5, 1, "k1").ok().txid();
    let size = current(&mut wallet).size;
    for query in ["?size=0", &format!("?size={}", size + 1), "?size=", "?size=x", "?size=1&size=1", "?colour=1"] {
        prove(&mut wallet, &txid, query).refused(400, "BAD_REQUEST");
    }
    let early = prove(&mut wallet, &later, "?size=1").refused(400, "BAD_REQUEST");
    assert!(early.json()["message"].as_str().unwrap().contains("at least 2 batches"), "{early}");
    for query in ["", "?from=1", "?from=2&to=1", "?from=0&to=1", "?from=1&to=99", "?from=1&to=1&x=1"] {
        wallet.get(&format!("/v1/ledger/consistency{query}")).refused(400, "BAD_REQUEST");
    }
    wallet.get("/v1/ledger/root?size=1").refused(400, "BAD_REQUEST");
    let stranger = unsigned();
    let foreign = stranger.wallet().issue("alice", 100).txid();
    for id in [foreign.as_str(), "tx_00000000000000000000000000", "tx_zzz"] {
        prove(&mut wallet, id, "").refused(404, "NOT_FOUND");
    }
    for (change, status) in [
        (
            Box::new(|wanted: &mut svc_wallet::access::MintRequest| wanted.accounts = vec!["carol".into()])
                as Box<dyn FnOnce(&mut _)>,
            403,
        ),
        (Box::new(|wanted: &mut svc_wallet::access::MintRequest| wanted.accounts = vec!["bob".into()]), 200),
        (Box::new(|wanted: &mut svc_wallet::access::MintRequest| wanted.scopes = vec!["wallet:spend".into()]), 403),
    ] {
        let mut other = Wallet::new(server.connect(), server.mint(change));
        assert_eq!(prove(&mut other, &later, "").status, status);
        // Who may not see the transaction is not told either where it stands.
        assert_eq!(prove(&mut other, &later, "?size=1").status, if status == 200 { 400 } else { 403 });
    }
    let mut nobody = Wallet::new(server.connect(), String::new());
    prove(&mut nobody, &txid, "").refused(401, "UNAUTHORIZED");
    nobody.get("/v1/ledger/root").refused(401, "UNAUTHORIZED");
}

#[test]
fn a_history_that_was_lost_or_damaged_is_made_again() {
    let mut server = unsigned();
    let mut wallet = server.wallet();
    let txid = wallet.issue("alice", 100).txid();
    for nonce in 1..=20 {
        wallet.spend("alice", "bob", 1, nonce, &format!("k{nonce}")).ok();
    }
    let root = current(&mut wallet);
    drop(wallet);
    for round in 0..3 {
        server.stop();
        let file = server.segment(1).with_file_name("history.mmr");
        match round {
            0 => std::fs::remove_file(&file).unwrap(),
            1 => std::fs::write(&file, b"nonsense").unwrap(),
            _ => {
                let mut bytes = std::fs::read(&file).unwrap();
                let middle = 4096 + 48 * 3;
                bytes[middle..middle + 48].fill(0);
                std::fs::write(&file, bytes).unwrap();
            }
        }
        server.launch();
        let mut wallet = server.wallet();
        assert_eq!(current(&mut wallet), root, "round {round}");
        let proof = eventually("the history is made again", || {
            let reply = prove(&mut wallet, &txid, "");
            assert!(reply.status == 200 || reply.status == 503 && reply.header("Retry-After") == Some("1"), "{reply}");
            (reply.status == 200).then(|| held(&reply))
        });
        assert_eq!(proof.inclusion.root, root);
        assert_eq!(
            bytes_of_hex::<16>(wallet.get("/v1/ledger/root").ok().json()["log_id"].as_str().unwrap()),
            Some(proof.log_id.0)
        );
    }
}

fn ronctl(directory: &std::path::Path, arguments: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_ronctl")).args(arguments).current_dir(directory).env_clear().output().unwrap()
}

/// What a client does over months: keep receipts and a root; later take a new root, and check that all of it still belongs together.
#[test]
fn ronctl_verifies_offline_what_a_client_has_kept() {
    let mut server = unsigned();
    let mut wallet = server.wallet();
    wallet.issue("alice", 100);
    let receipt = wallet.spend("alice", "bob", 42, 1, "k1").ok();
    let kept = tempfile::tempdir().unwrap();
    let keep = |name: &str, reply: Reply| std::fs::write(kept.path().join(name), reply.ok().body).unwrap();
    let older = current(&mut wallet);
    keep("receipt.json", wallet.tx(&receipt.txid()));
    keep("old-root.json", wallet.get("/v1/ledger/root"));
    keep("old-proof.json", prove(&mut wallet, &receipt.txid(), ""));
    for nonce in 2..9 {
        wallet.spend("alice", "bob", 1, nonce, &format!("k{nonce}")).ok();
    }
    let newer = current(&mut wallet);
    keep("root.json", wallet.get("/v1/ledger/root"));
    keep("proof.json", prove(&mut wallet, &receipt.txid(), ""));
    keep("consistency.json", wallet.get(&format!("/v1/ledger/consistency?from={}&to={}", older.size, newer.size)));
    drop(wallet);
    server.stop();
    let hex: String = newer.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let sized = format!("{hex}:{}", newer.size);
    let verify = ["proof", "verify", "--proof"];
    let chain_hash = receipt.json()["ledger_root"].as_str().unwrap().to_owned();
    let cases: [(&[&str], i32, &str); 10] = [
        (&["proof.json", "--root", &chain_hash], 1, "the chain hash of its batch, not a root of the history"),
        (&["proof.json", "--root", "root.json", "--receipt", "receipt.json"], 0, "exactly this entry"),
        (&["proof.json", "--root", &hex], 0, "42 roc"),
        (&["proof.json", "--root", &sized], 0, "The transaction is part of the ledger."),
        (&["old-proof.json", "--root", "old-root.json"], 0, "alice"),
        (&["old-proof.json", "--root", "root.json", "--consistency", "consistency.json"], 0, "through entry 9"),
        (&["old-proof.json", "--root", "root.json"], 1, "another root than the trusted one"),
        (&["proof.json", "--root", &hex, "--size", "1"], 1, "Not proven."),
        (&["receipt.json", "--root", &hex], 1, "not what the server sends"),
        (&["proof.json", "--root", &hex, "--receipt", "root.json"], 1, "the receipt is not that of this entry"),
    ];
    for (arguments, code, part) in cases {
        let output = ronctl(kept.path(), &[&verify[..], arguments].concat());
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told} {}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains(part), "{arguments:?}: {told}");
        let output = ronctl(kept.path(), &[&["--json"], &verify[..], arguments].concat());
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &told["proven"]), (Some(code), &Value::Bool(code == 0)), "{told}");
    }
    let between = ["proof", "consistency", "--proof", "consistency.json", "--from", "old-root.json", "--to"];
    for (to, code, part) in [(&*sized, 0, "continues the earlier one"), ("old-root.json", 1, "another root")] {
        let output = ronctl(kept.path(), &[&between[..], &[to]].concat());
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(code) && told.contains(part), "{to}: {told}");
    }
    for wrong in [&["proof.json", "--root", "abc"][..], &["nothing.json", "--root", &hex], &["proof.json"]] {
        assert_eq!(ronctl(kept.path(), &[&verify[..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

/// A root that somebody trusts is never replaced by one that does not follow from it.
#[test]
fn ronctl_replaces_a_kept_root_only_by_one_that_continues_it() {
    let server = unsigned();
    let mut wallet = server.wallet();
    wallet.issue("alice", 7);
    let kept = tempfile::tempdir().unwrap();
    let (config, file) = (server.path("svc-wallet.toml"), kept.path().join("root.json"));
    let root = |more: &[&str]| {
        let question = ["--config", config.to_str().unwrap(), "proof", "root", "--out", "root.json", "--token", server.token()];
        let output = ronctl(kept.path(), &[&question[..], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let size = || serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap()["root"]["size"].as_u64().unwrap();
    let fetched = |more: &[&str]| {
        let (code, told) = root(more);
        assert_eq!(code, Some(0), "{told}");
        size()
    };
    // The history follows within moments.
    eventually("the first root", || (root(&[]).0 == Some(0)).then_some(()));
    let first = size();
    assert_eq!(fetched(&[]), first, "the same root again");
    wallet.spend("alice", "bob", 1, 1, "k").ok();
    eventually("the history follows", || (wallet.get("/v1/ledger/root").json()["root"]["size"].as_u64()? > first).then_some(()));
    let second = fetched(&[]);
    assert!(second > first, "a root that continues it takes its place");

    let good = std::fs::read_to_string(&file).unwrap();
    let text: Value = serde_json::from_str(&good).unwrap();
    let other = |member: &str, value: Value| {
        let mut text = text.clone();
        text["root"][member] = value;
        text.to_string()
    };
    let mut foreign = text.clone();
    foreign["log_id"] = "00".repeat(16).into();
    for (bad, code, part) in [
        (other("hash", "ab".repeat(32).into()), 1, "the history was changed"),
        (other("size", (second - 1).into()), 1, "the history was changed"),
        (other("size", (second + 1).into()), 1, "what was kept is gone there"),
        (foreign.to_string(), 1, "another ledger"),
        ("something else".to_owned(), 2, "--force"),
    ] {
        std::fs::write(&file, &bad).unwrap();
        let (ended, told) = root(&[]);
        assert!(ended == Some(code) && told.contains(part), "{bad}: {told}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), bad, "it stays as it is");
    }
    assert_eq!((fetched(&["--force"]), std::fs::read_to_string(&file).unwrap()), (second, good));
}

#[test]
fn ronctl_fetches_what_it_verifies() {
    let server = unsigned();
    let mut wallet = server.wallet();
    let txid = wallet.issue("alice", 7).txid();
    wallet.spend("alice", "bob", 1, 1, "k").ok();
    let kept = tempfile::tempdir().unwrap();
    let config = server.path("svc-wallet.toml");
    let config = config.to_str().unwrap();
    let token = server.token();
    let get = |arguments: &[&str]| {
        let output = ronctl(kept.path(), &[&["--config", config, "proof"], arguments, &["--token", token]].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [
        &["root", "--out", "root.json"][..],
        &["get", "--tx", &txid, "--out", "proof.json"],
        &["get", "--tx", &txid, "--size", "1", "--out", "old.json"],
        &["get", "--from", "1", "--to", "2", "--out", "c.json"],
    ] {
        assert_eq!(get(arguments).0, Some(0), "{arguments:?}: {}", get(arguments).2);
    }
    let (code, shown, _) = get(&["get", "--tx", &txid]);
    assert_eq!((code, shown.trim_end()), (Some(0), &*std::fs::read_to_string(kept.path().join("proof.json")).unwrap()));
    let verify = ["proof", "verify", "--root", "root.json", "--proof", "old.json", "--consistency", "c.json"];
    assert_eq!(ronctl(kept.path(), &verify).status.code(), Some(0));
    let (code, _, told) = get(&["get", "--tx", &txid, "--size", "99"]);
    assert!(code == Some(1) && told.contains("1 to 2 batches"), "{told}");
    assert_eq!(get(&["get", "--tx", "tx_1"]).0, Some(2));
}
