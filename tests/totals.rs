//! The sums of an asset over HTTP: after every kind of operation, over a restart from a snapshot, embedded and behind a daemon, and to
//! whom they are told.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::{json, Value};
use support::{body, eventually, Daemon, Reply, Server, Wallet};

fn totals_of(wallet: &mut Wallet, asset: &str) -> Reply {
    wallet.get(&format!("/v1/assets/{asset}/totals"))
}

/// The sums after the entry of this receipt, as soon as the audit has come so far.
fn totals_after(wallet: &mut Wallet, receipt: &Reply, asset: &str) -> Value {
    let wanted = receipt.json()["ledger_seq_end"].as_u64().unwrap();
    eventually("the audit has seen the entry", || {
        let told = totals_of(wallet, asset);
        if told.status == 503 {
            told.refused(503, "RETRY_LATER");
            return None;
        }
        let told = told.ok().json();
        (told["as_of_height"].as_u64().unwrap() >= wanted).then_some(told)
    })
}

fn sums(asset: &str, [issued, burned, in_accounts, held]: [&str; 4], height: u64) -> Value {
    json!({
        "asset": asset, "issued_minor": issued, "burned_minor": burned, "in_accounts_minor": in_accounts,
        "held_minor_units": held, "as_of_height": height,
    })
}

/// Every kind of operation, and what the sums are after each. The ledger has seven entries then.
fn operate(wallet: &mut Wallet) {
    let none = totals_of(wallet, "roc").ok();
    assert_eq!(none.json(), sums("roc", ["0"; 4], 0), "an empty ledger");
    assert_eq!(none.header("X-Wallet-Core"), None);
    let receipt = wallet.issue("a", 1_000);
    assert_eq!(totals_after(wallet, &receipt, "roc"), sums("roc", ["1000", "0", "1000", "0"], 1));
    let receipt = wallet.spend("a", "b", 100, 1, "k1").ok();
    assert_eq!(totals_after(wallet, &receipt, "roc"), sums("roc", ["1000", "0", "1000", "0"], 2));
    let burn = r#"{"from":"b","asset":"roc","amount_minor":"30","nonce":1}"#;
    let receipt = wallet.post("/v1/burn", "b1", burn).ok();
    assert_eq!(totals_after(wallet, &receipt, "roc"), sums("roc", ["1000", "30", "970", "0"], 3));
    let receipt = wallet.post("/v1/hold", "h1", &body("a", "order:1", 200, 2)).ok();
    assert_eq!(totals_after(wallet, &receipt, "roc"), sums("roc", ["1000", "30", "970", "200"], 4));
    let receipt = wallet.post("/v1/capture", "c1", &body("order:1", "shop", 150, 1)).ok();
    assert_eq!(totals_after(wallet, &receipt, "roc"), sums("roc", ["1000", "30", "970", "50"], 5));
    let receipt = wallet.post("/v1/release", "r1", &body("order:1", "a", 20, 2)).ok();
    assert_eq!(totals_after(wallet, &receipt, "roc"), sums("roc", ["1000", "30", "970", "30"], 6));
    assert_eq!(totals_after(wallet, &receipt, "ron"), sums("ron", ["0"; 4], 6), "listed, and never issued");
    let ron = r#"{"to":"a","asset":"ron","amount_minor":"7"}"#;
    let receipt = wallet.post("/wallet/issue", "ron", ron).ok();
    assert_eq!(totals_after(wallet, &receipt, "ron"), sums("ron", ["7", "0", "7", "0"], 7));
    let sibling = wallet.get("/wallet/assets/roc/totals").ok();
    assert_eq!(sibling.json(), sums("roc", ["1000", "30", "970", "30"], 7));
}

#[test]
fn the_sums_follow_every_operation_and_survive_restarts() {
    let mut server = Server::start();
    operate(&mut server.wallet());
    for (nonce, orderly) in [(3, true), (4, false)] {
        if orderly {
            server.stop();
            server.launch();
        } else {
            server.crash_and_restart();
        }
        let mut wallet = server.wallet();
        let receipt = wallet.spend("a", "b", 1, nonce, &format!("after-{nonce}")).ok();
        let height = receipt.json()["ledger_seq_end"].as_u64().unwrap();
        let told = totals_after(&mut wallet, &receipt, "roc");
        assert_eq!(told, sums("roc", ["1000", "30", "970", "30"], height), "orderly {orderly}");
    }
}

#[test]
fn behind_a_daemon_the_sums_are_the_same_and_stay_when_it_goes() {
    let mut daemon = Daemon::start();
    let mut server = Server::prepared(&[("deps.ledger_sock", &daemon.sock())]);
    server.launch();
    let mut wallet = server.wallet();
    eventually("the daemon's audit is known", || (totals_of(&mut wallet, "roc").status == 200).then_some(()));
    operate(&mut wallet);
    daemon.kill();
    wallet.spend("a", "b", 1, 3, "k3").refused(503, "UPSTREAM_UNAVAILABLE");
    let told = totals_of(&mut wallet, "roc").ok().json();
    assert_eq!(told, sums("roc", ["1000", "30", "970", "30"], 7), "reads go on");
    daemon.launch();
    let receipt =
        eventually("the spend gets its receipt", || Some(wallet.spend("a", "b", 1, 3, "k3")).filter(|reply| reply.status == 200));
    assert_eq!(totals_after(&mut wallet, &receipt, "roc"), sums("roc", ["1000", "30", "970", "30"], 8));
}

#[test]
fn the_sums_are_told_to_whom_they_concern() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let receipt = wallet.issue("a", 10);
    totals_after(&mut wallet, &receipt, "roc");
    for asset in ["ROC", "roc%20", "rocrocrocrocrocro"] {
        let refused = totals_of(&mut wallet, asset).refused(400, "BAD_REQUEST");
        assert!(refused.json()["message"].as_str().unwrap().contains("in the path"), "{refused}");
    }
    wallet.get("/v1/assets/roc/totals?asset=roc").refused(400, "BAD_REQUEST");
    totals_of(&mut wallet, "usd").refused(403, "FORBIDDEN");
    wallet.get("/v1/balance?account=a&asset=usd").refused(403, "FORBIDDEN");
    wallet.post("/v1/assets/roc/totals", "k", "{}").refused(405, "METHOD_NOT_ALLOWED");
    let holder = |change: fn(&mut svc_wallet::access::MintRequest)| {
        let mut wallet = Wallet::new(server.connect(), server.mint(change));
        totals_of(&mut wallet, "roc")
    };
    holder(|wanted| wanted.scopes = vec!["wallet:read".to_owned()]).ok();
    holder(|wanted| wanted.assets = vec!["roc".to_owned()]).ok();
    holder(|wanted| wanted.accounts = vec!["*".to_owned()]).ok();
    holder(|wanted| wanted.scopes = vec!["wallet:transfer".to_owned()]).refused(403, "FORBIDDEN");
    holder(|wanted| wanted.assets = vec!["ron".to_owned()]).refused(403, "FORBIDDEN");
    let refused = holder(|wanted| wanted.accounts = vec!["a".to_owned(), "acct:*".to_owned()]).refused(403, "FORBIDDEN");
    assert!(refused.json()["message"].as_str().unwrap().contains("some accounts only"), "{refused}");
    Wallet::new(server.connect(), String::new()).get("/v1/assets/roc/totals").refused(401, "UNAUTHORIZED");
}
