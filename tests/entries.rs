//! The entries of an account over HTTP: pages newest first over several segments, with a cursor that stays good while others write,
//! after a restart, and whatever has become of the index files.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::path::PathBuf;
use support::{body, eventually, Server, Wallet};

/// A page: the positions of its entries and the next cursor.
fn page(wallet: &mut Wallet, account: &str, query: &str) -> (Vec<Value>, Option<String>) {
    let reply = wallet.get(&format!("/v1/accounts/{account}/entries{query}")).ok();
    let Value::Object(mut page) = reply.json() else { panic!("{reply}") };
    assert_eq!(page["account"], account.replace("%2F", "/").as_str());
    let Some(Value::Array(entries)) = page.remove("entries") else { panic!("{reply}") };
    (entries, page["next_cursor"].as_str().map(str::to_owned))
}

/// All entries, some at a time.
fn all_entries(wallet: &mut Wallet, account: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut query) = (Vec::new(), format!("?limit={limit}"));
    loop {
        let (entries, next) = page(wallet, account, &query);
        assert!(entries.len() <= limit);
        all.extend(entries);
        let Some(cursor) = next else { return all };
        query = format!("?limit={limit}&cursor={cursor}");
    }
}

fn position(entry: &Value) -> u64 {
    entry["ledger_seq_start"].as_u64().unwrap()
}

/// Fills the ledger with many spends of another account until its segment is full.
fn begin_segment(server: &Server, wallet: &mut Wallet, nonce: &mut u64, number: u32) {
    let memo = "m".repeat(256);
    while !server.segment(number).exists() {
        let mut spends = Vec::new();
        for _ in 0..64 {
            *nonce += 1;
            let text = body("filler", "elsewhere", 1, *nonce).replace('}', &format!(r#","memo":"{memo}"}}"#));
            spends.extend(wallet.write("/v1/transfer", &format!("f{nonce}"), &text).bytes());
        }
        wallet.client.send(spends);
        wallet.client.replies(64).into_iter().for_each(|reply| drop(reply.ok()));
    }
}

fn index(server: &Server, number: u32) -> PathBuf {
    server.path(&format!("ledger/index-{number:010}.idx"))
}

#[test]
fn entries_are_read_backwards_over_several_segments_whatever_became_of_the_index() {
    let mut server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("filler", 10_000_000);
    let mut filled = 0;
    let mut receipts = vec![wallet.issue("user:a/1", 1_000).json()];
    for segment in 2..=3 {
        for nonce in receipts.len() as u64..receipts.len() as u64 + 5 {
            receipts.push(wallet.spend("user:a/1", "shop", 1, nonce, &format!("k{nonce}")).ok().json());
        }
        begin_segment(&server, &mut wallet, &mut filled, segment);
    }
    receipts.push(wallet.spend("user:a/1", "shop", 1, 11, "k11").ok().json());
    receipts.reverse();
    for limit in [1, 4, 100] {
        assert_eq!(all_entries(&mut wallet, "user:a/1", limit), receipts, "by {limit}");
    }
    assert_eq!(all_entries(&mut wallet, "user:a%2F1", 7), receipts, "the slash may be encoded");
    let (shop, cursor) = page(&mut wallet, "shop", "?limit=11");
    assert_eq!((shop, cursor), (receipts[..11].to_vec(), None), "the other party sees the same, and not who was issued what");
    assert_eq!(page(&mut wallet, "nobody", ""), (Vec::new(), None));
    let at = position(&receipts[5]);
    let (rest, _) = page(&mut wallet, "user:a/1", &format!("?cursor={at}"));
    assert_eq!(rest, receipts[6..], "a cursor is a place and needs no page before");

    eventually("both sealed segments are indexed", || {
        [1, 2].into_iter().all(|number| index(&server, number).exists()).then_some(())
    });
    server.stop();
    std::fs::remove_file(index(&server, 1)).unwrap();
    let mut bytes = std::fs::read(index(&server, 2)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    std::fs::write(index(&server, 2), &bytes).unwrap();
    server.launch();
    let mut wallet = server.wallet();
    assert_eq!(all_entries(&mut wallet, "user:a/1", 3), receipts, "after the loss of one index and the damage of another");
    eventually("they are made again", || {
        let whole = index(&server, 1).exists() && std::fs::read(index(&server, 2)).unwrap() != bytes;
        whole.then_some(())
    });
}

#[test]
fn a_cursor_stays_good_while_others_write() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    for nonce in 1..=20 {
        wallet.spend("a", "b", 1, nonce, &format!("k{nonce}")).ok();
    }
    let before = all_entries(&mut wallet, "a", 100);
    let (mut seen, mut cursor) = page(&mut wallet, "a", "?limit=3");
    let mut nonce = 20;
    while let Some(next) = cursor {
        nonce += 1;
        let written = wallet.spend("a", "b", 1, nonce, &format!("k{nonce}")).ok().json();
        assert_eq!(page(&mut wallet, "b", "?limit=1").0, [written], "what was acknowledged is on the first page at once");
        let (entries, following) = page(&mut wallet, "a", &format!("?limit=3&cursor={next}"));
        seen.extend(entries);
        cursor = following;
    }
    assert_eq!(seen, before, "nothing twice, nothing left out, and what came later is not among it");
    assert_eq!(all_entries(&mut wallet, "a", 100).len() as u64, nonce + 1);
}

#[test]
fn entries_are_shown_as_far_as_the_capability_reaches() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("acct:a", 10);
    let ron = r#"{"to":"acct:a","asset":"ron","amount_minor":"5"}"#;
    let ron = wallet.post("/v1/issue", "ron", ron).ok().json();
    let reader = |change: fn(&mut svc_wallet::access::MintRequest)| {
        let token = server.mint(|wanted| {
            wanted.scopes = vec!["wallet:read".to_owned()];
            change(wanted);
        });
        Wallet::new(server.connect(), token)
    };
    assert_eq!(page(&mut reader(|_| ()), "acct:a", "").0.len(), 2);
    let mut only_ron = reader(|wanted| wanted.assets = vec!["ron".to_owned()]);
    assert_eq!(page(&mut only_ron, "acct:a", ""), (vec![ron], None));
    let mut other = reader(|wanted| wanted.accounts = vec!["acct:b".to_owned()]);
    other.get("/v1/accounts/acct:a/entries").refused(403, "FORBIDDEN");
    let mut writer = Wallet::new(server.connect(), server.mint(|wanted| wanted.scopes = vec!["wallet:transfer".to_owned()]));
    writer.get("/v1/accounts/acct:a/entries").refused(403, "FORBIDDEN");
    let refused = wallet.get("/v1/accounts/acct:a/entries?limit=1000").refused(400, "BAD_REQUEST");
    assert!(refused.json()["message"].as_str().unwrap().contains("from 1 to 100"), "{refused}");
    wallet.get("/v1/accounts/acct:a/entries?cursor=abc").refused(400, "BAD_REQUEST");
    wallet.get("/v1/accounts/a.b/entries").refused(400, "BAD_REQUEST");
    let reply = wallet.get("/wallet/accounts/acct%3Aa/entries").ok();
    assert_eq!((reply.header("X-Wallet-Core"), reply.json()["entries"].as_array().map(Vec::len)), (None, Some(2)));
}
