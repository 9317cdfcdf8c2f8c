//! Figures that no reply shows: how tokens were looked up, the flushes of the counters, and the check of conservation at start.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use support::Server;

#[test]
fn tokens_flushes_and_the_check_of_conservation_are_counted() {
    let mut server = Server::with(&[("runtime.cores", "1")]);
    let checked = |server: &Server| server.metric_reaches("wallet_conservation_checks_total{outcome=\"ok\"}", 1.0);
    checked(&server);
    let mut wallet = server.wallet();
    wallet.issue("alice", 100);
    wallet.spend("alice", "bob", 40, 1, "k-1").ok();
    wallet.post("/v1/burn", "k-2", r#"{"from":"bob","asset":"roc","amount_minor":"15","nonce":1}"#).ok();
    assert_eq!(wallet.balance("bob"), 25);
    assert_eq!(server.metric_reaches("wallet_token_cache_total{outcome=\"hit\"}", 3.0), 3.0, "all but the first");
    assert_eq!(server.metric("wallet_token_cache_total{outcome=\"miss\"}"), 1.0);
    server.metric_reaches("wallet_accounting_flushes_total{outcome=\"ok\"}", 1.0);
    assert_eq!(server.metric("wallet_accounting_flushes_total{outcome=\"failed\"}"), 0.0);
    server.crash_and_restart();
    checked(&server);
    assert_eq!(server.metric("wallet_conservation_checks_total{outcome=\"violated\"}"), 0.0);
    assert_eq!(server.wallet().balance("bob"), 25);
}

#[test]
fn refusals_and_replays_are_logged_with_the_trace_that_they_belong_to() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut server = Server::prepared(&[]);
    server.log_at("debug");
    server.launch();
    let mut wallet = server.wallet();
    wallet.issue("alice", 100);
    let spend = wallet.transfer("alice", "bob", 1, 1, "k-1").header("traceparent", PARENT);
    wallet.client.call(&spend).ok();
    assert!(wallet.client.call(&spend).ok().replayed());
    let bad = wallet.transfer("alice", "bob", 1, 7, "k-7").header("traceparent", PARENT);
    wallet.client.call(&bad).refused(409, "NONCE_CONFLICT");
    let not_one = wallet.transfer("alice", "bob", 1, 8, "k-8").header("traceparent", &PARENT.to_uppercase());
    wallet.client.call(&not_one).refused(409, "NONCE_CONFLICT");
    let exit = server.stop();
    let lines: Vec<serde_json::Value> = exit.log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).map(|line| &line["trace_id"]).collect::<Vec<_>>();
    let trace = serde_json::json!("0af7651916cd43dd8448eb211c80319c");
    assert_eq!(of("replayed"), [&trace]);
    assert_eq!(of("refused"), [&trace, &serde_json::Value::Null]);
}
