//! Faults that are injected on purpose into a real server of two cores: what clients see of each, what readiness says, that everything
//! goes on by itself afterwards and nothing was lost or done twice, and that log, audit stream and metrics tell it.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{body, eventually, topology, Daemon, Registry, Server, Wallet};

/// Longer than any test takes: what ends before was ended.
const LONG: &str = "--for 10m";

/// No connection is closed because a test waits for something else meanwhile.
fn chaotic(settings: &[(&str, &str)]) -> Server {
    let own = [("runtime.cores", "2"), ("faults.allowed", "true"), ("timeouts.idle_ms", "5m")];
    Server::with(&[&own[..], settings].concat())
}

/// Injects a fault, and returns its name.
fn inject(server: &Server, arguments: &str) -> String {
    let injected = server.ronctl_json(&format!("chaos inject --target svc-wallet {arguments}"));
    injected["id"].as_str().unwrap().to_owned()
}

fn clear(server: &Server) {
    server.ronctl_json("chaos clear");
}

fn refused(server: &Server, arguments: &str) -> String {
    let output = server.ronctl(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments}");
    String::from_utf8(output.stderr).unwrap()
}

/// What the audit stream tells of faults, as `what` and `fault`; an end in order has written all of it.
fn audited(server: &Server) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(server.path("audit")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let lines: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_faults = events.filter(|line| line["event"] == "fault_injection");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_faults.map(|line| (text(&line["what"]), text(&line["fault"]))).collect()
}

fn missing(server: &Server) -> Vec<String> {
    let page = server.page("/readyz").json();
    let names = page["missing"].as_array().cloned().unwrap_or_default();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn is_ready(server: &Server) -> bool {
    server.page("/readyz").status == 200
}

/// Spends until one is answered with this status, each with the key of its nonce, and returns the nonce of that one.
fn spend_until(wallet: &mut Wallet, nonce: &mut u64, status: u16) {
    eventually(&format!("a spend is answered with {status}"), || {
        let reply = wallet.spend("alice", "bob", 1, *nonce, &format!("k-{nonce}"));
        *nonce += u64::from(reply.status == 200);
        assert!([200, 429, 503].contains(&reply.status), "{reply}");
        (reply.status == status).then_some(())
    });
}

/// The ledger is out of reach for a while: of writes, and of nothing else.
fn is_cut_off_from_its_ledger(server: &mut Server, daemon: bool) {
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    let first = wallet.spend("alice", "bob", 1, 1, "k-1").ok();
    let errors = server.metric("ledger_connect_errors_total");
    // Some are under way when it happens: whatever they are told, each happens once.
    let mut under_way: Vec<Wallet> = (0..8).map(|_| server.wallet()).collect();
    under_way.iter_mut().enumerate().for_each(|(number, wallet)| drop(wallet.issue(&format!("payer:{number}"), 100)));
    let spends: Vec<_> = (0..8).map(|number| body(&format!("payer:{number}"), "shop", 1, 1)).collect();
    inject(server, &format!("--fault=disconnect --dep=ron-ledger {LONG}"));
    for (wallet, spend) in under_way.iter_mut().zip(&spends) {
        let request = wallet.write("/v1/transfer", "under-way", spend);
        wallet.client.send(request.bytes());
    }
    for wallet in &mut under_way {
        let reply = wallet.client.reply();
        assert!(reply.status == 200 || reply.code() == "UPSTREAM_UNAVAILABLE", "{reply}");
    }
    eventually("it is not ready", || (!is_ready(server)).then_some(()));
    assert_eq!(missing(server), ["ledger"]);
    let page = server.page("/readyz").json();
    assert!(page["reasons"]["ledger"].as_str().unwrap().contains("a fault is injected"), "{page}");
    assert_eq!(page["faults"], serde_json::json!(["disconnect of ron-ledger"]));
    assert_eq!((&page["writes"], &page["reads"]), (&false.into(), &true.into()));
    // Fresh writes are refused at once, and reads go on.
    for number in 0..5 {
        let refused = wallet.spend("alice", "bob", 1, 2, "k-2").refused(503, "UPSTREAM_UNAVAILABLE");
        assert!(refused.header("Retry-After").is_some(), "{number}: {refused}");
    }
    assert_eq!((wallet.balance("alice"), wallet.seq("alice").0), (999, 1));
    let receipt = wallet.tx(&first.txid());
    assert_eq!(receipt.status, if daemon { 503 } else { 200 }, "{receipt}");
    server.metric_reaches("ledger_connect_errors_total", errors + 1.0);
    assert_eq!(server.metric_reaches("wallet_faults_active", 1.0), 1.0);
    clear(server);
    eventually("it is ready again by itself", || is_ready(server).then_some(()));
    for (number, (wallet, spend)) in under_way.iter_mut().zip(&spends).enumerate() {
        let again = eventually("what was under way can be repeated", || {
            Some(wallet.post("/v1/transfer", "under-way", spend)).filter(|reply| reply.status == 200)
        });
        assert_eq!(again.body, wallet.post("/v1/transfer", "under-way", spend).ok().body);
        assert_eq!(wallet.balance(&format!("payer:{number}")), 99);
    }
    wallet.spend("alice", "bob", 1, 2, "k-2").ok();
    assert_eq!((wallet.balance("alice"), wallet.balance("bob"), wallet.balance("shop")), (998, 2, 8));
    server.stop();
    let what: Vec<_> = audited(server);
    let disconnect = |what: &str| (what.to_owned(), "disconnect of ron-ledger".to_owned());
    assert_eq!(what, [disconnect("injected"), disconnect("cleared")]);
    let log = server.log();
    assert!(log.contains("\"fault_injected\"") && log.contains("\"fault_cleared\""), "{log}");
    let verified = server.ronctl("ledger verify --dir ledger");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[test]
fn without_its_embedded_ledger_it_refuses_writes_and_goes_on_by_itself() {
    let mut server = chaotic(&[("deps.ledger_sock", "embedded:./ledger")]);
    is_cut_off_from_its_ledger(&mut server, false);
}

#[test]
fn without_its_ledger_daemon_it_refuses_writes_and_goes_on_by_itself() {
    let mut daemon = Daemon::start();
    let sock = daemon.sock();
    let mut server = chaotic(&[("deps.ledger_sock", &sock), ("audit.path", "./audit")]);
    std::os::unix::fs::symlink(daemon.path("ledger"), server.path("ledger")).unwrap();
    is_cut_off_from_its_ledger(&mut server, true);
    daemon.stop();
}

#[test]
fn a_ledger_that_is_late_makes_every_write_late_and_no_read() {
    let mut daemon = Daemon::start();
    let sock = daemon.sock();
    for ledger in ["embedded:./ledger", &sock] {
        let mut server = chaotic(&[("deps.ledger_sock", ledger)]);
        let mut wallet = server.wallet();
        wallet.issue("alice", 1_000);
        let late = Duration::from_millis(300);
        inject(&server, &format!("--fault=latency --dep=ron-ledger --ms 300 {LONG}"));
        for nonce in 1..4 {
            let began = Instant::now();
            wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}")).ok();
            assert!(began.elapsed() >= late, "{ledger}: a spend took {:?}", began.elapsed());
        }
        // Somebody reads while a spend waits for its commit, and is answered before it.
        let mut reader = server.wallet();
        let spend = wallet.transfer("alice", "bob", 1, 4, "k-4");
        wallet.client.send(spend.bytes());
        assert_eq!(reader.balance("alice"), 997);
        wallet.client.reply().ok();
        assert!(is_ready(&server), "a slow ledger is there");
        // What waits when it is cleared waits no longer.
        clear(&server);
        inject(&server, &format!("--fault=latency --dep=ron-ledger --ms 10000 {LONG}"));
        let (began, spend) = (Instant::now(), wallet.transfer("alice", "bob", 1, 5, "k-5"));
        wallet.client.send(spend.bytes());
        eventually("it has been taken", || (server.metric("wallet_lane_pending") > 0.0).then_some(()));
        // That is longer than a commit may take.
        let pressed =
            eventually("it is pressed", || Some(server.page("/readyz")).filter(|ready| ready.json()["pressure"] == true));
        assert!(pressed.json()["reasons"]["pressure"].to_string().contains("ledger.commit_max"), "{pressed}");
        clear(&server);
        wallet.client.reply().ok();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(reader.balance("bob"), 5);
        server.stop();
    }
    daemon.stop();
}

#[test]
fn a_policy_that_is_slow_to_read_on_sighup_holds_nothing_else_up() {
    let daemon = Daemon::start();
    let mut server = chaotic(&[("deps.ledger_sock", &daemon.sock())]);
    server.wallet().issue("alice", 10);
    inject(&server, &format!("--fault=latency --dep=policy --ms 10000 {LONG}"));
    server.signal(Signal::HUP);
    eventually("it has heard", || server.log().contains("\"event\":\"reload\"").then_some(()));
    daemon.pause();
    eventually("it notices that the ledger is silent", || (!is_ready(&server)).then_some(()));
    assert!(!server.log().contains("\"event\":\"policy_reloaded\""), "the policy is still being read");
    daemon.signal(Signal::CONT);
    clear(&server);
    eventually("the policy has been read", || server.log().contains("\"event\":\"policy_reloaded\"").then_some(()));
    eventually("it is ready", || is_ready(&server).then_some(()));
    server.stop();
}

#[test]
fn an_end_in_order_commits_what_a_fault_held_back() {
    let mut server = chaotic(&[("deps.ledger_sock", "embedded:./ledger")]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 10);
    inject(&server, &format!("--fault=latency --dep=ron-ledger --ms 10000 {LONG}"));
    let spend = wallet.transfer("alice", "bob", 1, 1, "k-1");
    wallet.client.send(spend.bytes());
    eventually("it has been taken", || (server.metric("wallet_lane_pending") > 0.0).then_some(()));
    server.stop();
    wallet.client.reply().ok();
    assert_eq!(audited(&server).iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["injected", "ended"]);
    server.launch();
    assert_eq!(server.wallet().balance("bob"), 1);
}

#[test]
fn late_requests_wait_while_their_core_serves_others() {
    let server = chaotic(&[]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    let late = Duration::from_millis(400);
    inject(&server, &format!("--fault=latency --ms 400 {LONG}"));
    let began = Instant::now();
    wallet.spend("alice", "bob", 1, 1, "k-1").ok();
    assert!(began.elapsed() >= late);
    // Forty wait at once, on two cores: together they take about as long as one, and one after the other twenty times as long.
    let mut many: Vec<Wallet> = (0..40).map(|_| server.wallet()).collect();
    let began = Instant::now();
    for wallet in &mut many {
        let read = wallet.read("/v1/balance?account=alice&asset=roc");
        wallet.client.send(read.bytes());
    }
    many.iter_mut().for_each(|wallet| drop(wallet.client.reply().ok()));
    assert!((late..20 * late).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(
        server.metric_reaches("request_latency_seconds_count{service=\"svc-wallet\",route=\"balance\",method=\"GET\"}", 40.0)
            >= 40.0
    );
    let fast = "request_latency_seconds_bucket{service=\"svc-wallet\",route=\"balance\",method=\"GET\",le=\"0.25\"}";
    assert_eq!(server.metric(fast), 0.0, "the figures tell how late they were");
    clear(&server);
    // Requests in pieces, and many at once, are late once each.
    inject(&server, &format!("--fault=latency --ms 50 {LONG}"));
    let spends: Vec<u8> =
        (2..12).flat_map(|nonce| wallet.transfer("alice", "bob", 1, nonce, &format!("k-{nonce}")).bytes()).collect();
    for piece in spends.chunks(100) {
        wallet.client.send(piece);
    }
    wallet.client.replies(10).into_iter().for_each(|reply| drop(reply.ok()));
    clear(&server);
    assert_eq!(wallet.balance("bob"), 11);
    // A share of them.
    inject(&server, &format!("--fault=latency --ms 10000 --rate 0.001 {LONG}"));
    let began = Instant::now();
    assert_eq!((wallet.balance("bob"), wallet.balance("alice")), (11, 989));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_storm_refuses_its_share_of_the_writes_and_counts_them() {
    let mut server = chaotic(&[]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    inject(&server, &format!("--fault=quota_storm {LONG}"));
    let (mut nonce, mut refused) = (1, 0);
    while nonce <= 30 {
        let reply = wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}"));
        if reply.status == 200 {
            nonce += 1;
            continue;
        }
        assert_eq!(reply.header("Retry-After"), Some("1"));
        assert_eq!(reply.refused(429, "BUSY").json()["retryable"], true);
        refused += 1;
        assert!(refused < 200, "half of them are let through");
    }
    assert!((20..=40).contains(&refused), "{refused} of {} were refused", refused + 30);
    (0..20).for_each(|_| assert_eq!(wallet.balance("bob"), 30));
    let counted = server.metric_reaches("quota_exhaustions_total{scope=\"global\"}", f64::from(refused));
    assert_eq!(counted, f64::from(refused));
    assert!(is_ready(&server));
    clear(&server);
    inject(&server, &format!("--fault=quota_storm --rate 1 {LONG}"));
    wallet.spend("alice", "bob", 1, 31, "k-31").refused(429, "BUSY");
    clear(&server);
    wallet.spend("alice", "bob", 1, 31, "k-31").ok();
    server.stop();
    assert_eq!(audited(&server).len(), 4);
}

#[test]
fn without_its_registry_it_is_not_ready_after_a_time_and_serves_on() {
    let registry = Registry::start(&topology(7, "cell-1"));
    let url = registry.url();
    let settings = [
        ("deps.registry_url", url.as_str()),
        ("registry.poll_every", "1s"),
        ("registry.timeout", "500ms"),
        ("registry.max_age", "2s"),
    ];
    let server = chaotic(&settings);
    let mut wallet = server.wallet();
    wallet.issue("alice", 10);
    inject(&server, &format!("--fault=disconnect --dep=registry {LONG}"));
    server.metric_reaches("wallet_registry_questions_total{outcome=\"unreachable\"}", 1.0);
    eventually("it is not ready", || (missing(&server) == ["registry"]).then_some(()));
    wallet.spend("alice", "bob", 1, 1, "k-1").ok();
    let shown = server.ronctl("registry show");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("a fault is injected"), "{shown}");
    clear(&server);
    eventually("it is ready again by itself", || is_ready(&server).then_some(()));
    // A registry that is late is there.
    inject(&server, &format!("--fault=latency --dep=registry --ms 300 {LONG}"));
    registry.set(&topology(8, "cell-1"));
    server.metric_reaches("registry_version", 8.0);
}

#[test]
fn without_their_sink_the_server_is_not_ready_serves_on_and_catches_up() {
    let mut server = chaotic(&[]);
    let mut wallet = server.wallet();
    inject(&server, &format!("--fault=disconnect --dep=ron-accounting {LONG}"));
    wallet.issue("alice", 10);
    server.metric_reaches("wallet_accounting_flushes_total{outcome=\"failed\"}", 1.0);
    server.metric_reaches("accounting_flush_lag_seconds", 0.5);
    wallet.spend("alice", "bob", 1, 1, "k-1").ok();
    let ready = server.page("/readyz").json();
    assert_eq!(ready["missing"], serde_json::json!(["accounting"]), "{ready}");
    clear(&server);
    eventually("it is ready again by itself", || is_ready(&server).then_some(()));
    let flushed = server.metric("wallet_accounting_flushes_total{outcome=\"ok\"}");
    server.metric_reaches("wallet_accounting_flushes_total{outcome=\"ok\"}", flushed + 1.0);
    eventually("they have caught up", || (server.metric("accounting_flush_lag_seconds") == 0.0).then_some(()));
    assert!(server.stop().log.contains("the counters are out of reach"));
}

#[test]
fn without_the_policy_the_one_in_force_stays() {
    let server = chaotic(&[]);
    inject(&server, &format!("--fault=disconnect --dep=policy {LONG}"));
    let said = refused(&server, "policy reload");
    assert!(said.contains("a fault is injected") && said.contains("stays in force"), "{said}");
    server.metric_reaches("wallet_reloads_total{what=\"policy\",outcome=\"failed\"}", 1.0);
    assert!(is_ready(&server) && server.metric("policy_version") == 3.0);
    clear(&server);
    inject(&server, &format!("--fault=latency --dep=policy --ms 300 {LONG}"));
    let began = Instant::now();
    server.ronctl_json("policy reload");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn where_faults_are_not_allowed_none_is_injected_and_the_key_is_named() {
    let mut server = Server::start();
    for command in ["chaos inject --target svc-wallet --fault=latency", "chaos clear"] {
        let said = refused(&server, command);
        assert!(said.contains("set faults.allowed = true in its configuration"), "{said}");
    }
    let list = server.ronctl("chaos list");
    assert_eq!(String::from_utf8(list.stdout).unwrap(), "no fault is active, and none is allowed: faults.allowed is false\n");
    // No other way leads there.
    for (address, path) in [(server.control, "/faults"), (server.http, "/faults"), (server.http, "/v1/faults")] {
        for method in ["GET", "POST"] {
            let mut client = support::Client::connect(address);
            let reply = client.call(&support::request(method, path).json(r#"{"fault":"latency"}"#));
            assert!([404, 405].contains(&reply.status), "{method} {path} on {address}: {reply}");
        }
    }
    assert_eq!(server.metric("wallet_faults_active"), 0.0);
    server.stop();
    assert_eq!(audited(&server).iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["refused", "refused"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    let server = chaotic(&[]);
    for (arguments, expected) in [
        ("--fault=disconnect", "say which, --dep=ron-ledger"),
        ("--fault=quota_storm --dep=policy", "leave --dep out"),
        ("--fault=latency --for 2h", "choose up to 1h"),
        ("--fault=latency --ms 0", "choose from 1 to 10000"),
        ("--fault=latency --rate 2", "a share of the requests from 0.001 to 1"),
        ("--fault=earthquake", "latency, disconnect, quota_storm"),
        ("--fault=latency --target ron-ledger", "svc-wallet"),
    ] {
        let said = refused(&server, &format!("chaos inject {arguments}"));
        assert!(said.contains(expected), "{arguments}: {said}");
    }
    let said = refused(&server, "chaos clear f-9");
    assert!(said.contains("chaos list"), "{said}");
    assert_eq!(server.ronctl_json("chaos clear")["cleared"], serde_json::json!([]));
    assert_eq!(server.ronctl_json("chaos list"), serde_json::json!({"allowed": true, "active": []}));
}

#[test]
fn a_fault_ends_by_itself_when_whoever_injected_it_is_gone() {
    let mut server = chaotic(&[("deps.ledger_sock", "embedded:./ledger")]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    let mut nonce = 1;
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args(["--config", "svc-wallet.toml", "chaos", "inject", "--fault=disconnect", "--dep=ron-ledger", "--for", "3s"]);
    let mut child = command.current_dir(server.directory()).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    spend_until(&mut wallet, &mut nonce, 503);
    child.kill().unwrap();
    child.wait().unwrap();
    // Another one, which ends later and does not hold the first one up.
    let later = inject(&server, "--fault=quota_storm --rate 0.001 --for 10m");
    let list = server.ronctl_json("chaos list");
    assert_eq!(list["active"].as_array().unwrap().len(), 2, "{list}");
    spend_until(&mut wallet, &mut nonce, 200);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    let list = server.ronctl_json("chaos list");
    assert_eq!((list["active"].as_array().unwrap().len(), &list["active"][0]["id"]), (1, &Value::from(later.as_str())));
    eventually("it is ready again", || is_ready(&server).then_some(()));
    let shown = String::from_utf8(server.ronctl("status").stdout).unwrap();
    assert!(shown.contains("fault injected") && shown.contains("quota storm over 0.1% of the writes"), "{shown}");
    server.ronctl_json(&format!("chaos clear {later}"));
    server.stop();
    let what: Vec<String> = audited(&server).into_iter().map(|(what, _)| what).collect();
    assert_eq!(what, ["injected", "injected", "ended", "cleared"]);
    assert!(server.log().contains("\"fault_ended\""), "{}", server.log());
}
