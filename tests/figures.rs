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
