//! Procedures for a server with its ledger in the process: counters, keys, and the ways of a ledger to another disk and back.
use crate::place::Place;
use crate::told;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// What each account was credited less what it was debited, and issues less burns, over the lines of counters in this text.
fn counted(said: &str) -> (BTreeMap<String, i128>, i128) {
    let (mut accounts, mut conserved) = (BTreeMap::new(), 0);
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for delta in line["deltas"].as_array().unwrap() {
            let [account, op, side, amount] = [0, 2, 3, 5].map(|at| delta[at].as_str().unwrap());
            let amount: i128 = amount.parse().unwrap();
            let amount = if side == "credit" { amount } else { -amount };
            *accounts.entry(account.to_owned()).or_default() += amount;
            conserved += if matches!(op, "issue" | "burn") { amount } else { 0 };
        }
    }
    (accounts, conserved)
}

#[test]
fn backup_restore_and_archive_do_what_they_say() {
    let place = Place::serving();
    assert_eq!(place.state(), (990, 10, (10, 11)));
    let entry = |seq: u64| place.ronctl(&format!("ledger inspect --entry {seq}"))["entry"]["txid"].as_str().unwrap().to_owned();
    let archived = entry(3);
    let first = place.wallet().tx(&archived).ok().body;
    let kept = place.spend(30, 11).ok();
    let mut lost = Vec::new();
    let mut restored = String::new();
    for name in [
        "counters-flush",
        "counters-reconcile",
        "rotate",
        "hybrid",
        "auditor",
        "copy",
        "copy-restore",
        "archive",
        "archive-back",
        "snapshot",
        "snapshot-restore",
        "lost",
        "counters",
        "audit",
    ] {
        // What a client has got, and what a copy made before it lacks.
        match name {
            "copy-restore" => lost.push(place.spend(5, 12).ok()),
            "snapshot-restore" => lost.push(place.spend(7, 13).ok()),
            _ => {}
        }
        let said = place.block(name);
        match name {
            "rotate" => {
                told(&said, &["signs from now on"]);
                assert_eq!(place.state(), (960, 40, (11, 12)), "the token of the first key is as good as before");
            }
            "hybrid" => {
                told(&said, &["signs from now on"]);
                assert_eq!(place.ronctl("kms status")["hybrid"], "on");
                let keys: Value = serde_json::from_slice(&fs::read(place.path("var/public-keys.json")).unwrap()).unwrap();
                let hybrid = keys["keys"].as_array().unwrap().iter().map(|key| key["ml_dsa_65"].is_string());
                assert_eq!(hybrid.collect::<Vec<_>>(), [false, false, true]);
                assert_eq!(place.state(), (960, 40, (11, 12)));
            }
            "auditor" => {
                told(&said, &["The transaction is part of the ledger.", "signed", "by key k-"]);
                let root: Value = serde_json::from_slice(&fs::read(place.path("var/root.json")).unwrap()).unwrap();
                assert!(root["root"]["signatures"][0]["key"].is_string(), "{root}");
            }
            "counters-flush" => {
                told(&said, &["accounting_flush_lag_seconds", "counted through entry 12", "alice    roc    transfer   debit"]);
            }
            "counters-reconcile" => {
                told(&said, &["the counters of entries 1 to 12 agree with the snapshot ./var/drift.snap", "agree with"]);
            }
            "copy" => {
                told(&said, &["The ledger is whole."]);
                let [copied, served] =
                    ["ledger.backup", "ledger"].map(|name| place.ronctl(&format!("ledger verify --dir var/{name}")));
                assert_eq!((&copied["head"], &copied["root"]), (&12.into(), &served["root"]));
                assert_eq!(place.state(), (960, 40, (11, 12)));
            }
            "copy-restore" => {
                told(&said, &["The ledger is whole.", "last confirmed nonce  11", "next nonce            12"]);
                assert_eq!(place.state(), (960, 40, (11, 12)));
                let mut wallet = place.wallet();
                assert_eq!(wallet.tx(&kept.txid()).ok().body, kept.body);
                assert!(place.spend(30, 11).ok().replayed());
                wallet.tx(&lost[0].txid()).refused(404, "NOT_FOUND");
                place.spend(6, 12).ok();
            }
            "archive" => {
                told(
                    &said,
                    &["1 segments moved", "The ledger is whole.", "not here    entries 1 to 6: the snapshot after entry 12"],
                );
                assert_eq!(place.state(), (954, 46, (12, 13)));
                let mut wallet = place.wallet();
                wallet.tx(&archived).refused(503, "UPSTREAM_UNAVAILABLE");
                assert_eq!(wallet.tx(&kept.txid()).ok().body, kept.body);
            }
            "archive-back" => {
                told(&said, &["The ledger is whole."]);
                assert_eq!(place.wallet().tx(&archived).ok().body, first);
                assert_eq!(place.state(), (954, 46, (12, 13)));
            }
            "snapshot" => told(&said, &["13", "1_000 on all accounts"]),
            "snapshot-restore" => {
                told(&said, &["1_000 on all accounts", "The ledger is whole.", "last confirmed nonce  12"]);
                assert_eq!(place.state(), (954, 46, (12, 13)));
                let mut wallet = place.wallet();
                wallet.tx(&kept.txid()).refused(503, "UPSTREAM_UNAVAILABLE");
                place.spend(30, 11).refused(503, "UPSTREAM_UNAVAILABLE");
                wallet.tx(&lost[1].txid()).refused(404, "NOT_FOUND");
                restored = said;
            }
            "lost" => {
                assert_eq!(said.lines().count(), 2, "names, and the one entry that is lost: {said}");
                told(&said, &[&lost[1].txid()]);
                told(&restored, &["through entry  13"]);
            }
            "counters" => {
                let (accounts, conserved) = counted(&said);
                // The last line counts the lost entry as well, which was 7 from alice to bob.
                assert_eq!((accounts["alice"] + 7, accounts["bob"] - 7, conserved), (954, 46, 1000), "{said}");
            }
            "audit" => {
                told(
                    &said,
                    &[
                        "The audit stream is whole.",
                        "The audit stream is whole and signed.",
                        "restored",
                        "subject tests",
                        "event start",
                    ],
                );
                let report = place.ronctl("audit verify");
                assert_eq!((&report["good"], report["rewinds"].as_array().unwrap().len()), (&true.into(), 2), "{report}");
            }
            other => panic!("nothing is known about block {other}"),
        }
    }
    place.spend(8, 13).ok();
    assert_eq!(place.state(), (946, 54, (13, 14)), "the client goes on where it was told to");
}
