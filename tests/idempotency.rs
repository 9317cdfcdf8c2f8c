//! A repeat gets the first answer, byte for byte (I-12): on any connection, at any time, after a restart and after a crash,
//! whatever has become of the account; and a refused request uses up neither its key nor its nonce.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use std::sync::Barrier;
use support::{body, eventually, request, Reply, Server};

/// Fails unless `again` is the first receipt over again.
fn assert_repeat(first: &Reply, again: &Reply) {
    assert_eq!(again.status, 200, "{again}");
    assert_eq!(String::from_utf8_lossy(&again.body), String::from_utf8_lossy(&first.body));
    assert!(again.replayed(), "not marked as a repeat: {again}");
}

#[test]
fn repeats_are_byte_identical_for_every_operation_and_under_both_prefixes() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let steps = [
        ("issue", r#"{"to":"a","asset":"roc","amount_minor":"1000","memo":"first"}"#.to_owned()),
        ("transfer", body("a", "b", 10, 1)),
        ("burn", r#"{"from":"a","asset":"roc","amount_minor":"5","nonce":2}"#.to_owned()),
        ("hold", body("a", "escrow:1", 100, 3)),
        ("capture", body("escrow:1", "c", 60, 1)),
        ("release", body("escrow:1", "a", 40, 2)),
    ];
    let mut receipts = Vec::new();
    for (op, text) in &steps {
        let first = wallet.post(&format!("/v1/{op}"), &format!("key-{op}"), text).ok();
        assert!(!first.replayed(), "{first}");
        let json = first.json();
        assert_eq!((json["op"].as_str(), json["settlement_status"].as_str()), (Some(*op), Some("accepted")), "{first}");
        receipts.push(first);
    }
    for ((op, text), first) in steps.iter().zip(&receipts) {
        let alias = if *op == "transfer" { "spend" } else { op };
        for path in [format!("/v1/{op}"), format!("/wallet/{op}"), format!("/wallet/{alias}")] {
            assert_repeat(first, &wallet.post(&path, &format!("key-{op}"), text));
        }
        let read_back = wallet.tx(&first.txid()).ok();
        assert_eq!(read_back.body, first.body, "{op}");
        assert!(!read_back.replayed(), "{read_back}");
    }
    assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.balance("c"), wallet.balance("escrow:1")), (925, 10, 60, 0));
    server.metric_reaches("wallet_idem_replays_total", 3.0 * steps.len() as f64);
}

#[test]
fn receipts_carry_what_the_contract_lists_in_its_order_and_their_own_hash() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let issued = wallet.issue("a", u128::from(u64::MAX) + 5);
    let spent = wallet.spend("a", "b", u128::from(u64::MAX) + 1, 1, "k-1").ok();
    for (reply, absent) in [(&issued, &["from", "nonce"][..]), (&spent, &[])] {
        let text = String::from_utf8(reply.body.clone()).unwrap();
        let order = [
            "txid",
            "op",
            "from",
            "to",
            "asset",
            "amount_minor",
            "nonce",
            "idem",
            "ts",
            "ledger_seq_start",
            "ledger_seq_end",
            "ledger_root",
            "settlement_status",
            "receipt_hash",
        ];
        let present: Vec<&str> = order.into_iter().filter(|name| !absent.contains(name)).collect();
        let places: Vec<usize> = present.iter().map(|name| text.find(&format!("\"{name}\":")).expect(name)).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]) && !text.contains(' '), "{text}");
        let serde_json::Value::Object(mut fields) = reply.json() else { panic!("{text}") };
        assert_eq!(fields.len(), present.len(), "{text}");
        let hash = fields.remove("receipt_hash").unwrap();
        // The map of serde_json is sorted, and its text has no spaces.
        let sorted: std::collections::BTreeMap<_, _> = fields.into_iter().collect();
        let canonical = serde_json::to_string(&sorted).unwrap();
        assert_eq!(hash.as_str().unwrap(), format!("b3:{}", blake3::hash(canonical.as_bytes()).to_hex()), "{canonical}");
        let txid = reply.txid();
        assert!(txid.len() == 29 && txid.starts_with("tx_"), "{txid}");
        assert_eq!(reply.json()["ledger_root"].as_str().map(str::len), Some(64));
    }
    assert_eq!(spent.json()["amount_minor"].as_str(), Some("18446744073709551616"));
}

#[test]
fn refused_requests_use_up_neither_key_nor_nonce() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let over = wallet.transfer("a", "b", 100, 1, "the-key");
    wallet.client.call(&over).refused(409, "INSUFFICIENT_FUNDS");
    wallet.issue("a", 99);
    wallet.client.call(&over).refused(409, "INSUFFICIENT_FUNDS");
    wallet.spend("a", "b", 1, 2, "the-key").refused(409, "NONCE_CONFLICT");
    wallet.post("/v1/transfer", "the-key", &body("a", "b", 1, 1).replace("roc", "usd")).refused(403, "FORBIDDEN");
    wallet.post("/v1/transfer", "the-key", "{").refused(400, "BAD_REQUEST");
    let expired = server.mint_expired();
    let late = request("POST", "/v1/transfer").token(&expired).key("the-key").json(body("a", "b", 1, 1));
    wallet.client.call(&late).refused(401, "UNAUTHORIZED");
    assert_eq!((wallet.balance("a"), wallet.seq("a")), (99, (0, 1)));
    let done = wallet.spend("a", "b", 99, 1, "the-key").ok();
    assert!(!done.replayed(), "{done}");
    assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a")), (0, 99, (1, 2)));
}

#[test]
fn a_repeat_is_answered_when_the_account_is_out_of_funds_and_the_token_is_another_one() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let first = wallet.spend("a", "b", 100, 1, "all").ok();
    assert_repeat(&first, &wallet.spend("a", "b", 100, 1, "all"));
    wallet.spend("a", "b", 1, 2, "more").refused(409, "INSUFFICIENT_FUNDS");
    wallet.token = server.mint(|wanted| wanted.accounts = vec!["a".to_owned()]);
    assert_repeat(&first, &wallet.spend("a", "b", 100, 1, "all"));
    assert_eq!((wallet.balance("a"), server.wallet().balance("b")), (0, 100));
}

#[test]
fn the_scope_of_a_key_is_the_debited_account_and_for_issues_the_credited_one() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let issue = |to: &str| format!(r#"{{"to":"{to}","asset":"roc","amount_minor":"10"}}"#);
    let [first, second] = ["a", "b"].map(|to| wallet.post("/v1/issue", "same", &issue(to)).ok());
    assert_ne!(first.txid(), second.txid());
    let [third, fourth] = [("a", "c"), ("b", "c")].map(|(from, to)| wallet.spend(from, to, 1, 1, "one").ok());
    assert_ne!(third.txid(), fourth.txid());
    assert!(![first, second, third, fourth].iter().any(Reply::replayed));
    // One account, one key: an issue and a debit do not share it.
    wallet.spend("a", "c", 1, 2, "same").refused(409, "IDEMPOTENCY_CONFLICT");
    wallet.post("/v1/issue", "same", &issue("a").replace("\"10\"", "\"11\"")).refused(409, "IDEMPOTENCY_CONFLICT");
}

#[test]
fn the_key_may_stand_in_one_of_three_places_and_the_header_wins() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let token = server.token().to_owned();
    let post = |name: Option<(&str, &str)>, in_body: &str, nonce: u64| {
        let text = body("a", "b", 1, nonce).replace('}', &format!(r#","idempotency_key":{in_body}}}"#));
        let request = request("POST", "/v1/transfer").token(&token);
        name.map_or(request.clone(), |(name, value)| request.header(name, value)).json(text)
    };
    let first = wallet.client.call(&post(None, "\"k-1\"", 1)).ok();
    assert_eq!(first.json()["idem"].as_str(), Some("k-1"));
    // The key is not part of what is compared, so the same key elsewhere is a repeat.
    for name in ["Idempotency-Key", "X-Idempotency-Key", "idempotency-key"] {
        assert_repeat(&first, &wallet.client.call(&post(Some((name, "k-1")), "null", 1)));
    }
    assert_repeat(&first, &wallet.client.call(&post(Some(("Idempotency-Key", "\"k-1\"")), "\"another\"", 1)));
    let second = wallet.client.call(&post(Some(("Idempotency-Key", "k-2")), "\"k-1\"", 2)).ok();
    assert_eq!((second.json()["idem"].as_str(), second.replayed()), (Some("k-2"), false), "the header wins");
    let text = body("a", "b", 1, 3);
    let two = request("POST", "/v1/transfer").token(&token).key("k-3").header("X-Idempotency-Key", "k-4").json(text);
    wallet.client.call(&two).refused(400, "BAD_REQUEST");
    assert_eq!(wallet.seq("a"), (2, 3));
}

#[test]
fn what_is_written_differently_and_means_the_same_is_a_repeat() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let first = wallet.spend("a", "b", 7, 1, "k").ok();
    for text in [
        r#"{"nonce":1,"amount_minor":"7","asset":"roc","to":"b","from":"a"}"#,
        r#"{"from":"a","to":"b","asset":"roc","amount_minor":7,"seq":1}"#,
        "{ \"from\" : \"\\u0061\",\n\"to\":\"b\",\t\"asset\":\"roc\",\"amount_minor\":\"7\",\"nonce\":1,\"memo\":null,\"idempotency_key\":null }",
    ] {
        assert_repeat(&first, &wallet.post("/wallet/spend", "k", text));
    }
}

#[test]
fn repeats_and_receipts_are_the_same_after_a_restart_and_after_a_crash() {
    let mut server = Server::start();
    let mut wallet = server.wallet();
    let issue = r#"{"to":"a","asset":"roc","amount_minor":"1000"}"#;
    let issued = wallet.post("/v1/issue", "the-issue", issue).ok();
    let spends: Vec<Reply> = (1..=40).map(|nonce| wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok()).collect();
    for crash in [false, true] {
        if crash {
            server.crash_and_restart();
        } else {
            server.stop();
            server.launch();
        }
        let mut wallet = server.wallet();
        assert_repeat(&issued, &wallet.post("/v1/issue", "the-issue", issue));
        for (spend, nonce) in spends.iter().zip(1..) {
            assert_repeat(spend, &wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")));
            assert_eq!(wallet.tx(&spend.txid()).ok().body, spend.body);
        }
        wallet.spend("a", "b", 2, 40, "k-40").refused(409, "IDEMPOTENCY_CONFLICT");
        let conflict = wallet.spend("a", "b", 1, 40, "new").refused(409, "NONCE_CONFLICT");
        assert_eq!(conflict.json()["details"]["expected"].as_u64(), Some(41), "{conflict}");
        assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a")), (960, 40, (40, 41)));
    }
}

#[test]
fn concurrent_repeats_join_the_first_and_all_get_one_answer() {
    const CLIENTS: usize = 16;
    const ROUNDS: u64 = 10;
    let server = Server::start();
    server.wallet().issue("hot", 1_000);
    let barrier = Barrier::new(CLIENTS);
    let answers: Vec<Vec<Reply>> = std::thread::scope(|scope| {
        let repeat = || {
            let mut wallet = server.wallet();
            let spend = |nonce| {
                barrier.wait();
                wallet.spend("hot", "cold", 1, nonce, &format!("k-{nonce}")).ok()
            };
            (1..=ROUNDS).map(spend).collect()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(repeat)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for round in 0..ROUNDS as usize {
        let replies: Vec<&Reply> = answers.iter().map(|replies| &replies[round]).collect();
        assert!(replies.iter().all(|reply| reply.body == replies[0].body), "round {round}: {replies:?}");
        assert_eq!(replies.iter().filter(|reply| !reply.replayed()).count(), 1, "round {round}: exactly one is the first");
    }
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance("hot"), wallet.balance("cold")), (1_000 - u128::from(ROUNDS), u128::from(ROUNDS)));
    assert_eq!(wallet.seq("hot"), (ROUNDS, ROUNDS + 1));
}

#[test]
fn repeats_of_one_packet_join_too() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let spend = wallet.transfer("a", "b", 5, 1, "k").bytes();
    let other = wallet.transfer("a", "b", 6, 1, "k").bytes();
    wallet.client.send([spend.clone(), spend.clone(), other, spend].concat());
    let replies = wallet.client.replies(4);
    assert!(replies[0].status == 200 && !replies[0].replayed(), "{}", replies[0]);
    assert_repeat(&replies[0], &replies[1]);
    replies[2].clone().refused(409, "IDEMPOTENCY_CONFLICT");
    assert_repeat(&replies[0], &replies[3]);
    assert_eq!(wallet.balance("a"), 95);
}

#[test]
fn a_debit_is_repeated_even_when_its_key_has_been_forgotten() {
    let mut server = Server::with(&[("idempotency.ttl", "1s")]);
    let mut wallet = server.wallet();
    // Several accounts, so that with several cores some requests are forwarded and some are not.
    let accounts: Vec<String> = (0..8).map(|number| format!("acct:{number}")).collect();
    let mut firsts = Vec::new();
    for account in &accounts {
        wallet.issue(account, 100);
        firsts.extend((1..=3).map(|nonce| (account, nonce, wallet.spend(account, "sink", 1, nonce, &format!("k-{nonce}")).ok())));
    }
    for restarted in [false, true] {
        if restarted {
            server.crash_and_restart();
        }
        // A key is forgotten a second after its use, and figures are at most about a second old: after this pause they are of a
        // time at which every key has gone. Were they older, the repeats below would be answered from memory, just the same.
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        eventually("all keys are forgotten", || (server.metric("wallet_remembered_keys") == 0.0).then_some(()));
        for (account, nonce, first) in &firsts {
            // Two connections meet both cores sooner or later.
            let mut wallet = server.wallet();
            assert_repeat(first, &wallet.spend(account, "sink", 1, *nonce, &format!("k-{nonce}")));
            let conflict = wallet.spend(account, "sink", 1, *nonce, "another").refused(409, "NONCE_CONFLICT");
            assert_eq!(conflict.json()["details"]["expected"].as_u64(), Some(4), "{account}: {conflict}");
            wallet.spend(account, "sink", 2, *nonce, &format!("k-{nonce}")).refused(409, "IDEMPOTENCY_CONFLICT");
        }
        assert_eq!(server.wallet().balance("sink"), 3 * accounts.len() as u128);
    }
}

/// More debits than the window has keys for, all within the time to live: an old key is guarded all the same.
#[test]
fn a_key_that_was_pushed_out_of_memory_is_not_used_for_another_request() {
    const KEYS: u64 = 4_000;
    let mut server = Server::with(&[("idempotency.keys_max", "1024")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000_000);
    let first = wallet.spend("a", "b", 1, 1, "k-1").ok();
    for nonces in (2..=KEYS).collect::<Vec<_>>().chunks(32) {
        let spends = nonces.iter().map(|nonce| wallet.transfer("a", "b", 1, *nonce, &format!("k-{nonce}")).bytes());
        let spends: Vec<u8> = spends.flatten().collect();
        wallet.client.send(spends);
        wallet.client.replies(nonces.len()).into_iter().for_each(|reply| drop(reply.ok()));
    }
    server.metric_reaches("wallet_idempotency_keys_evicted_total", 1_000.0);
    for restart in ["none", "after a crash", "after an orderly end, from a snapshot"] {
        match restart {
            "none" => {}
            "after a crash" => server.crash_and_restart(),
            _ => {
                server.stop();
                server.launch();
                let told = server.log();
                let from = told.split("\"from_snapshot\":").nth(1).unwrap_or_else(|| panic!("{told}"));
                assert!(from.starts_with(|digit: char| ('1'..='9').contains(&digit)), "no snapshot: {told}");
            }
        }
        let mut wallet = server.wallet();
        for used in [1, 7, KEYS / 2, KEYS] {
            wallet.spend("a", "b", 1, KEYS + 1, &format!("k-{used}")).refused(409, "IDEMPOTENCY_CONFLICT");
        }
        assert_repeat(&first, &wallet.spend("a", "b", 1, 1, "k-1"));
        let body = r#"{"to":"a","asset":"roc","amount_minor":"1"}"#;
        wallet.post("/v1/issue", "k-1", body).refused(409, "IDEMPOTENCY_CONFLICT");
        assert_eq!(wallet.seq("a"), (KEYS, KEYS + 1));
    }
    server.wallet().spend("a", "b", 1, KEYS + 1, "fresh").ok();
}
