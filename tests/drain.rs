//! Readiness as a balancer sees it: it goes before anything else does when a server is told to end or is pressed, everything is served
//! until then, and a standby takes over a ledger that was let go.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};
use support::{eventually, Client, Daemon, Server, Wallet, POLICY};
use svc_wallet::access::Custody;

/// A spend over a connection of its own, as a balancer may open one at any time; `None` if there is nobody any more.
fn spend(server: &Server, nonce: u64) -> Option<u16> {
    let mut client = Client::try_connect(server.http).ok()?;
    let wallet = Wallet::new(Client::try_connect(server.http).ok()?, server.token().to_owned());
    client.send(wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).bytes());
    client.try_reply(false).ok().map(|reply| reply.status)
}

#[test]
fn readiness_drops_first_and_everything_is_served_until_the_listeners_close() {
    const NOTICE: Duration = Duration::from_secs(2);
    let mut server = Server::with(&[("timeouts.drain_notice_ms", "2000")]);
    server.wallet().issue("a", 1_000_000);
    server.signal(Signal::TERM);
    let ready = eventually("readiness drops", || Some(server.page("/readyz")).filter(|ready| ready.status == 503));
    let told = Instant::now();
    let json = ready.json();
    assert_eq!((&json["draining"], &json["writes"], &json["missing"]), (&json!(true), &json!(true), &json!([])), "{ready}");
    // The first tenths of a second of two: new connections are accepted, and writes and reads are served on them.
    for nonce in 1..=20 {
        assert_eq!(spend(&server, nonce), Some(200), "{:?} after readiness was off", told.elapsed());
    }
    eventually("the listeners close", || Client::try_connect(server.http).is_err().then_some(()));
    assert!(told.elapsed() > NOTICE / 2, "only {:?} after readiness was off", told.elapsed());
    let exit = server.wait_exit();
    assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    server.launch();
    assert_eq!(server.wallet().balance("b"), 20);
}

#[test]
fn a_server_that_its_operator_takes_out_of_rotation_serves_on_and_comes_back() {
    let server = Server::start();
    server.wallet().issue("a", 1_000);
    let told = server.ronctl_text("drain on");
    assert!(told.contains("out of rotation"), "{told}");
    let ready = server.page("/readyz");
    let json = ready.json();
    assert_eq!(
        (ready.status, &json["draining"], &json["writes"], &json["missing"]),
        (503, &json!(true), &json!(true), &json!([]))
    );
    assert_eq!(spend(&server, 1), Some(200));
    server.metric_reaches("wallet_not_ready{reason=\"drain\"}", 1.0);
    let status = String::from_utf8(server.ronctl("status").stdout).unwrap();
    assert!(status.contains("out of rotation until ronctl drain off"), "{status}");
    server.ronctl_json("drain on");
    assert_eq!(server.ronctl_json("drain off")["draining"], json!(false));
    // A commit that took long may be in the way for a moment.
    eventually("it is ready", || (server.page("/readyz").status == 200).then_some(()));
    eventually("the log tells both", || {
        let log = server.log();
        (log.contains("drain: asked for") && log.contains("\"event\":\"ready\"")).then_some(())
    });
    eventually("each stands in the audit stream", || {
        let events = String::from_utf8(server.ronctl("audit search --event drain").stdout).unwrap();
        (events.matches("what o").count() == 3).then_some(())
    });
}

#[test]
fn a_server_near_its_ceiling_is_not_ready_and_serves_on() {
    let daemon = Daemon::start();
    let server = Server::with(&[("deps.ledger_sock", &daemon.sock()), ("limits.inflight", "10"), ("timeouts.write_ms", "20000")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    daemon.pause();
    let spends: Vec<u8> = (1..=10).flat_map(|nonce| wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).bytes()).collect();
    wallet.client.send(spends);
    let ready = eventually("the server is pressed", || {
        let ready = server.page("/readyz");
        (ready.status == 503 && ready.json()["pressure"] == true).then_some(ready)
    });
    let reason = ready.json()["reasons"]["pressure"].to_string();
    assert!(reason.contains("limits.inflight is 10") || reason.contains("ledger.commit_max"), "{ready}");
    server.metric_reaches("inflight", 10.0);
    daemon.signal(Signal::CONT);
    eventually("the server is ready", || (server.page("/readyz").status == 200).then_some(()));
    let replies = wallet.client.replies(10);
    // What waited when the daemon had been silent for too long was told that it does not know.
    assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status)), "{replies:?}");
    eventually("everything has happened once", || (server.wallet().balance("b") == 10).then_some(()));
}

#[test]
fn a_commit_that_takes_too_long_drops_readiness_before_anything_is_refused() {
    let daemon = Daemon::start();
    let server = Server::with(&[("deps.ledger_sock", &daemon.sock()), ("ledger.commit_max", "100ms")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    daemon.pause();
    wallet.client.send(wallet.transfer("a", "b", 1, 1, "one").bytes());
    let ready = eventually("the server is pressed", || Some(server.page("/readyz")).filter(|ready| ready.status == 503));
    let json = ready.json();
    assert!(json["reasons"]["pressure"].as_str().is_some_and(|reason| reason.contains("ledger.commit_max is 100 ms")), "{ready}");
    assert_eq!((&json["pressure"], &json["reads"]), (&json!(true), &json!(true)), "{ready}");
    assert_eq!(server.wallet().balance("a"), 1_000, "reads are served");
    daemon.signal(Signal::CONT);
    eventually("the server is ready", || (server.page("/readyz").status == 200).then_some(()));
    let reply = wallet.client.reply();
    assert!([200, 503].contains(&reply.status), "{reply}");
    wallet.spend("a", "b", 1, 1, "one").ok();
    assert_eq!(wallet.balance("b"), 1);
}

/// A wallet that has the ledger of this daemon, one that waits for it, and what the other says of that.
fn with_standby(daemon: &Daemon) -> (Server, Server, String) {
    let sock = daemon.sock();
    let settings = [("deps.ledger_sock", sock.as_str()), ("ledger.wait_in_use", "1h")];
    let one = Server::with(&settings);
    let mut other = Server::prepared(&settings);
    other.launch_unready();
    let waiting = eventually("the standby says what it waits for", || {
        let reason = other.page("/readyz").json()["reasons"]["ledger"].as_str().unwrap_or_default().to_owned();
        reason.contains("has the ledger").then_some(reason)
    });
    (one, other, waiting)
}

#[test]
fn a_standby_takes_over_what_the_other_wallet_lets_go() {
    let daemon = Daemon::start();
    let (mut one, mut other, waiting) = with_standby(&daemon);
    assert!(waiting.contains(&format!("process {}", one.pid().as_raw_nonzero())), "{waiting}");
    assert!(Client::try_connect(other.http).is_err(), "nobody is let in before it has the ledger");
    assert_eq!(other.metric("wallet_not_ready{reason=\"standby\"}"), 1.0, "nobody has to be paged for it");
    one.wallet().issue("a", 1_000);
    let mut spent = 0;
    for _ in 0..2 {
        spent += 1;
        let receipt = one.wallet().spend("a", "b", 1, spent, &format!("k-{spent}")).ok();
        one.stop();
        eventually("the standby is ready", || (other.page("/readyz").status == 200).then_some(()));
        // Each server has keys of its own here, and a token of its own.
        let mut wallet = other.wallet();
        assert_eq!(wallet.tx(&receipt.txid()).ok().body, receipt.body);
        assert_eq!(wallet.balance("b"), u128::from(spent));
        one.launch_unready();
        std::mem::swap(&mut one, &mut other);
    }
}

#[test]
fn a_standby_is_held_to_the_files_as_they_are_when_it_takes_over() {
    let daemon = Daemon::start();
    let (mut one, mut other, _) = with_standby(&daemon);
    let mut wallet = one.wallet();
    wallet.issue("a", 1_000);
    wallet.issue("frozen", 1_000);
    // While it waits an account is frozen, a subject is revoked, and a key is added, of which the next token is.
    other.set_policy(&POLICY.replace("\"version\": 3", "\"version\": 4, \"frozen\": [\"frozen\"]"));
    let mint = |subject: &str| {
        other.ronctl_text(&format!("cap mint --subject {subject} --scopes wallet:* --ttl 900s")).trim().to_owned()
    };
    other.ronctl_text("cap revoke --subject lost");
    let before = mint("lost");
    let custody = Custody::beside(&other.path("wallet.keyring"));
    let (_, key) = custody.add_key(None).unwrap();
    custody.activate(&key).unwrap();
    let after = mint("found");
    one.stop();
    // The first request that it lets in is held to all of that.
    let mut client = eventually("the standby listens", || Client::try_connect(other.http).ok());
    let fresh = Wallet::new(Client::try_connect(other.http).unwrap(), after);
    client.send(fresh.transfer("frozen", "b", 1, 1, "f").bytes());
    client.reply().refused(403, "FORBIDDEN");
    client.send(fresh.transfer("a", "b", 1, 1, "a").bytes());
    client.reply().ok();
    let lost = Wallet::new(Client::try_connect(other.http).unwrap(), before);
    client.send(lost.transfer("a", "b", 1, 2, "l").bytes());
    client.reply().refused(401, "UNAUTHORIZED");
    assert_eq!(other.page("/version").json()["policy_version"], 4);
}

#[test]
fn a_daemon_that_comes_back_is_left_to_the_wallet_that_had_its_ledger() {
    let mut daemon = Daemon::start();
    let (one, other, _) = with_standby(&daemon);
    let waits = |words: &str| {
        eventually("the standby waits", || {
            let ready = other.page("/readyz").json();
            ready["reasons"]["ledger"].as_str().unwrap_or_default().contains(words).then_some(())
        });
    };
    one.wallet().issue("a", 1_000);
    for nonce in 1..=2 {
        daemon.kill();
        waits("onnect");
        daemon.launch();
        eventually("the wallet is ready", || (one.page("/readyz").status == 200).then_some(()));
        one.wallet().spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok();
        waits("has the ledger");
    }
}
