//! The counters of a server whose disk does not take them, from the outside: readiness ends past their bound, writes and reads do not, and
//! afterwards each entry is counted once.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{eventually, Server};
use svc_wallet::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, LogId, Op, TokenId, UnixMs};
use svc_wallet::ledger::{DiskStorage, Log, Options};

/// An issue that was accepted ten minutes ago, in a ledger that no server has opened yet.
fn write_old_ledger(directory: &Path) {
    let ten_minutes_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - 600_000;
    let mut bytes = Vec::new();
    let draft = Draft {
        op: Op::Issue,
        from: None,
        to: Some(Account::new("a").unwrap()),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(1_000).unwrap(),
        nonce: None,
        key: Key::new("old").unwrap(),
        memo: None,
        corr: "corr",
        token: TokenId([4; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(ten_minutes_ago),
    };
    draft.encode(&mut bytes);
    let options = Options::for_simulation(8 << 20, LogId([9; 16]));
    let (mut log, _) = Log::open(DiskStorage::create(directory).unwrap(), &options, &mut |_, _, _| Ok(())).unwrap();
    log.append(&[LaneBatch { lane: 0, lane_first: 1, count: 1, bytes }]).unwrap();
    log.close().unwrap();
}

/// The counters are to hold an entry that is older than their bound, and their disk takes nothing. They are flushed every ten seconds, so
/// that is how long this takes.
#[test]
fn counters_that_cannot_be_written_end_readiness_past_their_bound_and_neither_writes_nor_reads() {
    let mut server = Server::prepared(&[("deps.ledger_sock", "embedded:./ledger")]);
    write_old_ledger(&server.path("ledger"));
    std::fs::create_dir(server.path("accounting")).unwrap();
    let counters = server.path("accounting/counters.jsonl");
    std::os::unix::fs::symlink("/dev/full", &counters).unwrap();
    // The first flush may come before anybody has seen it ready.
    server.launch_unready();

    let missing = eventually("readiness drops", || {
        let ready = server.page("/readyz");
        (ready.status == 503 && ready.json()["missing"] == serde_json::json!(["accounting"])).then_some(ready)
    });
    let json = missing.json();
    assert_eq!(json["missing"], serde_json::json!(["accounting"]), "{missing}");
    assert_eq!((json["writes"].as_bool(), json["reads"].as_bool()), (Some(true), Some(true)), "{missing}");
    server.metric_reaches("accounting_flush_lag_seconds", 600.0);
    server.metric_reaches("wallet_accounting_flushes_total{outcome=\"failed\"}", 1.0);
    eventually("the metric says so", || (server.metric("wallet_ready") == 0.0).then_some(()));
    assert!(server.log().contains("accounting_flush_failed"), "{}", server.log());
    let mut wallet = server.wallet();
    wallet.spend("a", "b", 10, 1, "k-1").ok();
    assert_eq!((wallet.balance("a"), wallet.balance("b")), (990, 10));

    // With a disk that takes them, the counters catch up with all that the ledger has.
    server.stop();
    std::fs::remove_file(&counters).unwrap();
    for start in 1..=2 {
        server.launch();
        server.stop();
        check_counted_once(&std::fs::read_to_string(&counters).unwrap(), start);
    }
}

/// The counters have the issue of the old ledger and the spend, each once, however often the server has started.
fn check_counted_once(counted: &str, start: u32) {
    let (mut sums, mut through) = (BTreeMap::new(), 0);
    for line in counted.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["from_seq"], through + 1, "start {start}: the lines cover the ledger without a gap: {counted}");
        through = line["through_seq"].as_u64().unwrap();
        for delta in line["deltas"].as_array().unwrap() {
            let column = |number: usize| delta[number].as_str().unwrap().to_owned();
            let (count, amount) = sums.entry([0, 1, 2, 3].map(column)).or_insert((0, 0));
            *count += delta[4].as_u64().unwrap();
            *amount += column(5).parse::<u128>().unwrap();
        }
    }
    assert_eq!(through, 2, "start {start}: {counted}");
    let sum = |delta: [&str; 4], amount| (delta.map(str::to_owned), (1, amount));
    let expected = BTreeMap::from([
        sum(["a", "roc", "issue", "credit"], 1_000),
        sum(["a", "roc", "transfer", "debit"], 10),
        sum(["b", "roc", "transfer", "credit"], 10),
    ]);
    assert_eq!(sums, expected, "start {start}: each entry is counted once: {counted}");
}
