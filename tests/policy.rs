//! The policy of a running server of two cores: another one is in force on all of them at once or not at all, and every rule binds whoever
//! asks, whatever the capability allows.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::{json, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use support::{body, eventually, request, Daemon, Server};

/// A policy with these members beside what every one of them has.
fn policy(version: u64, more: Value) -> String {
    let mut whole = json!({
        "version": version,
        "operations": ["issue", "transfer", "burn", "hold", "capture", "release"],
        "assets": {"roc": {}, "ron": {}},
    });
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    whole.to_string()
}

fn with_policy(more: Value) -> Server {
    let mut server = Server::prepared(&[("runtime.cores", "2")]);
    server.set_policy(&policy(1, more));
    server.launch();
    server
}

#[test]
fn a_reload_is_in_force_for_every_request_after_it_on_every_core() {
    let mut server = with_policy(json!({}));
    let mut wallets: Vec<_> = (0..6).map(|_| server.wallet()).collect();
    for (number, wallet) in wallets.iter_mut().enumerate() {
        wallet.issue(&format!("payer:{number}"), 1_000);
    }
    let mut nonces = [0u64; 6];
    for version in 2..12u64 {
        // Each in turn allows the one and not the other.
        let (allowed, denied) = if version % 2 == 0 { ("transfer", "burn") } else { ("burn", "transfer") };
        server.set_policy(&policy(version, json!({"operations": ["issue", allowed]})));
        let reloaded = server.ronctl_json("policy reload");
        assert_eq!((reloaded["before"].as_u64(), reloaded["version"].as_u64()), (Some(version - 1), Some(version)));
        for (number, (wallet, nonce)) in wallets.iter_mut().zip(&mut nonces).enumerate() {
            let payer = format!("payer:{number}");
            let burn = format!(r#"{{"from":"{payer}","asset":"roc","amount_minor":"1","nonce":{}}}"#, *nonce + 1);
            let transfer = body(&payer, "shop", 1, *nonce + 1);
            let body_of = |op: &str| if op == "burn" { &burn } else { &transfer };
            wallet.post(&format!("/v1/{denied}"), &format!("d-{version}"), body_of(denied)).refused(403, "FORBIDDEN");
            wallet.post(&format!("/v1/{allowed}"), &format!("a-{version}"), body_of(allowed)).ok();
            *nonce += 1;
        }
    }
    assert_eq!(server.metric_reaches("policy_version", 11.0), 11.0);
    assert_eq!(server.page("/version").json()["policy_version"], 11);
    let exit = server.stop();
    assert_eq!(exit.log.matches("\"policy_reloaded\"").count(), 10, "{}", exit.log);
}

/// Both policies refuse these spends, each by a rule that the other one lacks: whoever is let through was shown half of each.
#[test]
fn no_request_sees_half_of_two_policies_under_load() {
    const ACCOUNTS: usize = 16;
    const CHANGES: u64 = 120;
    let too_much = json!({"assets": {"roc": {"amount_max": {"transfer": "1"}}, "ron": {}}});
    let frozen = json!({"frozen": ["payer:*"]});
    let mut server = with_policy(json!({}));
    let mut wallet = server.wallet();
    (0..ACCOUNTS).for_each(|number| drop(wallet.issue(&format!("payer:{number}"), 1_000)));
    server.set_policy(&policy(2, too_much.clone()));
    server.ronctl_json("policy reload");
    let (stop, counted) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (mut wallet, stop, counted) = (server.wallet(), &stop, &counted);
            scope.spawn(move || {
                // Requests go to the cores of their accounts, whichever core has the connection.
                for round in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let accounts: Vec<_> = (0..ACCOUNTS).map(|number| format!("payer:{number}")).collect();
                    let spend = |account: &String| wallet.transfer(account, "shop", 2, 1, &format!("{client}-{round}")).bytes();
                    let spends: Vec<u8> = accounts.iter().flat_map(spend).collect();
                    wallet.client.send(spends);
                    for reply in wallet.client.replies(ACCOUNTS) {
                        match (reply.status, reply.code().as_str()) {
                            (403, "LIMITS_EXCEEDED") => counted[0].fetch_add(1, Ordering::Relaxed),
                            (403, "FORBIDDEN") => counted[1].fetch_add(1, Ordering::Relaxed),
                            other => panic!("{other:?} is the answer of neither policy: {reply}"),
                        };
                    }
                }
            });
        }
        for version in 3..3 + CHANGES {
            let more = if version % 2 == 0 { too_much.clone() } else { frozen.clone() };
            std::fs::write(server.path("next.json"), policy(version, more)).unwrap();
            std::fs::rename(server.path("next.json"), server.path("policy.json")).unwrap();
            server.signal(Signal::HUP);
            eventually("it is in force", || (server.page("/version").json()["policy_version"] == version).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let [too_much, frozen] = counted.map(AtomicU64::into_inner);
    assert!(too_much > 100 && frozen > 100, "both policies were met: {too_much} and {frozen}");
    for core in 0..2 {
        server.metric_reaches(&format!("wallet_core_answered_total{{core=\"{core}\"}}"), 1.0);
    }
}

#[test]
fn a_file_that_is_no_policy_changes_nothing_and_is_told_wherever_it_is_asked_for() {
    let mut server = with_policy(json!({"frozen": ["alice"]}));
    let mut wallet = server.wallet();
    wallet.issue("alice", 10);
    server.set_policy("{\"version\": 2,\n \"operatons\": []}");
    let check = server.ronctl("policy check policy.json");
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(check.status.code() == Some(1) && said.contains("line 2") && said.contains("did you mean operations"), "{said}");
    let check = server.ronctl("--json policy check policy.json");
    let told: Value = serde_json::from_slice(&check.stderr).unwrap();
    let paths: Vec<&str> = told["errors"].as_array().unwrap().iter().map(|error| error["path"].as_str().unwrap()).collect();
    assert_eq!((check.status.code(), paths, &told["more"]), (Some(1), vec!["operatons", "operations", "assets"], &json!(0)));
    assert!(told["error"]["message"].as_str().unwrap().contains("operatons: unknown name"), "{told}");
    let reload = server.ronctl("policy reload");
    let said = String::from_utf8(reload.stderr).unwrap();
    assert!(reload.status.code() == Some(2) && said.contains("operatons") && said.contains("stays in force"), "{said}");
    server.signal(Signal::HUP);
    server.metric_reaches("wallet_reloads_total{what=\"policy\",outcome=\"failed\"}", 2.0);
    assert_eq!((server.metric("policy_version"), server.page("/readyz").status), (1.0, 200));
    wallet.spend("alice", "bob", 1, 1, "k1").refused(403, "FORBIDDEN");
    // The right file, by SIGHUP this time.
    server.set_policy(&policy(3, json!({})));
    let check = server.ronctl_json("policy check policy.json");
    let changes: Vec<&str> = check["changes"].as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap()).collect();
    assert_eq!((check["ok"].as_bool(), changes), (Some(true), vec!["frozen", "version"]));
    server.signal(Signal::HUP);
    server.metric_reaches("policy_version", 3.0);
    assert_eq!(server.page("/readyz").status, 200);
    wallet.spend("alice", "bob", 1, 1, "k1").ok();
    assert_eq!(server.ronctl_json("policy show")["policy"]["version"], 3);
    server.stop();
    let lines: String = std::fs::read_dir(server.path("audit"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let of_policy: Vec<&str> = lines.lines().filter(|line| line.contains("\"what\":\"policy\"")).collect();
    assert_eq!(of_policy.len(), 3, "two failed, one did not: {lines}");
    // Without a server it is compared with the file of the configuration, and that one with nothing.
    std::fs::write(server.path("other.json"), policy(4, json!({}))).unwrap();
    for (file, said) in [("other.json", "because no server answers"), ("policy.json", "not compared")] {
        let check = server.ronctl(&format!("policy check {file}"));
        let told = [check.stdout, check.stderr].map(|told| String::from_utf8(told).unwrap()).concat();
        assert!(check.status.code() == Some(0) && told.contains(said), "{told}");
    }
    assert_eq!(server.ronctl("policy show").status.code(), Some(3), "nobody there to ask");
}

#[test]
fn who_is_frozen_pays_nothing_new_and_who_is_denied_is_not_served() {
    let mut server = with_policy(json!({}));
    let mut wallet = server.wallet();
    for account in ["alice", "bob", "mallory"] {
        wallet.issue(account, 100);
    }
    let first = wallet.spend("alice", "bob", 1, 1, "k1").ok();
    let [eve, revoked] = ["eve", "gone"].map(|subject| server.mint(|wanted| wanted.subject = subject.to_owned()));
    let revoked_id = svc_wallet::access::inspect(&revoked).unwrap().token_id;
    let rules = json!({
        "frozen": ["ali*"],
        "denied": {"accounts": ["mallory"], "subjects": ["eve"]},
        "revoked": {"tokens": [revoked_id]},
    });
    server.set_policy(&policy(2, rules));
    server.ronctl_json("policy reload");
    wallet.spend("alice", "bob", 1, 2, "k2").refused(403, "FORBIDDEN");
    let again = wallet.spend("alice", "bob", 1, 1, "k1").ok();
    assert!(again.replayed() && again.body == first.body, "a repeat is answered");
    wallet.spend("bob", "alice", 1, 1, "b1").ok();
    wallet.spend("mallory", "bob", 1, 1, "m1").refused(403, "FORBIDDEN");
    wallet.spend("bob", "mallory", 1, 2, "b2").refused(403, "FORBIDDEN");
    wallet.get("/v1/balance?account=mallory&asset=roc").refused(403, "FORBIDDEN");
    for (token, status, code) in [(&eve, 403, "FORBIDDEN"), (&revoked, 401, "UNAUTHORIZED")] {
        let read = request("GET", "/v1/balance?account=bob&asset=roc").token(token);
        wallet.client.call(&read).refused(status, code);
        let write = request("POST", "/v1/transfer").token(token).key("x").json(body("bob", "alice", 1, 2));
        wallet.client.call(&write).refused(status, code);
    }
    server.set_policy(&policy(3, json!({})));
    server.ronctl_json("policy reload");
    wallet.spend("alice", "bob", 1, 2, "k2").ok();
    let read = request("GET", "/v1/balance?account=bob&asset=roc").token(&revoked);
    wallet.client.call(&read).ok();
    // What a policy revokes and takes back stands in the audit stream, as what the file of revocations does.
    eventually("both are told", || {
        let told = String::from_utf8(server.ronctl("--json audit search --event revocation").stdout).unwrap();
        let one = |change: &str| format!(r#""change":"{change}","what":"token","name":"{revoked_id}","by":"policy""#);
        (told.contains(&one("revoked")) && told.contains(&one("taken_back"))).then_some(())
    });
}

/// Sends so many spends of one account as fast as they are answered: how many passed, and in how many seconds.
fn storm(server: &Server, account: &str, token: &str, count: usize) -> (u64, f64) {
    let mut client = server.connect();
    let (began, mut nonce) = (Instant::now(), 1);
    for number in 0..count {
        let spend = request("POST", "/v1/transfer")
            .token(token)
            .key(&format!("{account}-{number}"))
            .json(body(account, "shop", 1, nonce));
        let reply = client.call(&spend);
        if reply.status == 200 {
            nonce += 1;
        } else {
            assert_eq!(reply.header("retry-after"), Some("1"));
            reply.refused(429, "BUSY");
        }
    }
    (nonce - 1, began.elapsed().as_secs_f64())
}

#[test]
fn quotas_let_a_burst_through_and_then_their_rate_and_count_who_is_refused() {
    for scope in ["account", "subject", "global"] {
        let mut server = with_policy(json!({}));
        let mut wallet = server.wallet();
        ["a", "b"].iter().for_each(|account| drop(wallet.issue(account, 1_000)));
        let [one, other] = ["one", "other"].map(|subject| server.mint(|wanted| wanted.subject = subject.to_owned()));
        server.set_policy(&policy(2, json!({"quotas": {scope: {"rate": 2, "burst": 5}}})));
        server.ronctl_json("policy reload");
        let (passed, seconds) = storm(&server, "a", &one, 60);
        assert!(passed >= 5 && passed <= 5 + (2.0 * seconds).ceil() as u64, "{scope}: {passed} in {seconds} s");
        // Who shares the bucket finds it used up, who does not finds a full one.
        let shared = scope == "global";
        let (passed, seconds) = storm(&server, "b", &other, 5);
        let most = (2.0 * seconds).ceil() as u64 + 1;
        assert!(if shared { passed <= most } else { passed == 5 }, "{scope}: {passed} in {seconds} s");
        server.metric_reaches(&format!("quota_exhaustions_total{{scope=\"{scope}\"}}"), 1.0);
        assert!(server.metric_reaches("rejected_total{reason=\"busy\"}", 1.0) >= 1.0);
        // A refusal consumed nothing, and there is room again by itself.
        let next = next_nonce(&server, "a");
        let again = request("POST", "/v1/transfer").token(&one).key("a-later").json(body("a", "shop", 1, next));
        let mut client = server.connect();
        eventually("the quota has room again", || (client.call(&again).status == 200).then_some(()));
    }
}

/// The next nonce, asked for until the quota has room for the question.
fn next_nonce(server: &Server, account: &str) -> u64 {
    let mut wallet = server.wallet();
    eventually("there is room for a read", || {
        let reply = wallet.get(&format!("/v1/seq?account={account}"));
        (reply.status == 200).then(|| reply.json()["next_nonce"].as_u64().unwrap())
    })
}

#[test]
fn what_an_operation_may_debit_in_a_day_holds_over_tokens_and_kills_and_snapshots() {
    let mut server = with_policy(json!({"assets": {"roc": {"daily_max": {"transfer": "50"}}}}));
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    wallet.spend("alice", "bob", 30, 1, "k1").ok();
    let over = |server: &Server, token: &str, nonce| {
        let spend = request("POST", "/v1/transfer").token(token).key("over").json(body("alice", "bob", 21, nonce));
        let refused = server.connect().call(&spend).refused(403, "LIMITS_EXCEEDED");
        assert!(refused.json()["message"].as_str().unwrap().contains("in a day"), "{refused}");
    };
    over(&server, server.token(), 2);
    over(&server, &server.mint(|wanted| wanted.subject = "somebody else".to_owned()), 2);
    wallet.post("/v1/burn", "burn", r#"{"from":"alice","asset":"roc","amount_minor":"40","nonce":2}"#).ok();
    server.crash_and_restart();
    over(&server, server.token(), 3);
    server.wallet().spend("alice", "bob", 20, 3, "k3").ok();
    // An orderly end leaves a snapshot, from which the next start counts on.
    server.stop();
    server.launch();
    over(&server, server.token(), 4);
    server.stop();
    let verified = server.ronctl("ledger verify");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[test]
fn without_its_ledger_a_server_reads_what_the_policy_lets_it() {
    let mut daemon = Daemon::start();
    let sock = daemon.sock();
    let mut server = Server::prepared(&[("deps.ledger_sock", &sock)]);
    server.set_policy(&policy(1, json!({"degraded": ["seq"]})));
    server.launch();
    let mut wallet = server.wallet();
    wallet.issue("alice", 10);
    wallet.get("/v1/balance?account=alice&asset=roc").ok();
    daemon.kill();
    eventually("the server notices", || (server.page("/readyz").status == 503).then_some(()));
    let refused = wallet.get("/v1/balance?account=alice&asset=roc").refused(503, "RETRY_LATER");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(wallet.seq("alice"), (0, 1));
    daemon.launch();
    eventually("it is ready again", || (server.page("/readyz").status == 200).then_some(()));
    wallet.get("/v1/balance?account=alice&asset=roc").ok();
}
