//! A server is started, looked at, and looked after while it serves.
use crate::place::Place;
use crate::support::eventually;
use crate::told;
use std::fs;

#[test]
fn a_server_is_checked_started_and_verified() {
    let place = Place::new();
    told(&place.block("check-config"), &["timeouts.read_ms", "file ./configs/svc-wallet.toml"]);
    let server = place.foreground("start", || place.is_ready());
    told(&place.block("verify"), &["\"ok\":true", "\"ready\":true", "ready                     yes"]);
    assert_eq!(place.state(), (990, 10, (10, 11)));
    place.run("stop", "kill $(pidof svc-wallet)");
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn the_demo_ends_well() {
    told(&Place::new().block("demo"), &["Everything was as it should be."]);
}

#[test]
fn a_server_can_be_looked_into() {
    let place = Place::serving();
    let said = place.block("look");
    told(&said, &["wallet_ready 1", "\"pq\":\"off\"", "next nonce            11", "990", "issued       1000"]);
    let said = place.block("look-ledger");
    told(&said, &["last entry   11", "alice", "last confirmed nonce  10"]);
    assert_eq!(fs::read_to_string(place.path("alice.csv")).unwrap().lines().count(), 12, "names, and the entries of alice");
    told(&place.block("log"), &["\"event\":\"started\""]);
    told(&place.block("ended"), &["\"event\":\"started\""]);
    told(&place.block("unreachable"), &["svc-wallet.service active (running)", "\"ok\":true", "\"event\":\"started\""]);
    told(&place.block("sequence"), &["last confirmed nonce  10", "next nonce            11"]);
    told(
        &place.block("no-writes"),
        &["Filesystem", "ledger_commit_seconds_count", "wallet_lane_pending 0", "wallet_ledger_height 11"],
    );
    told(
        &place.block("rot"),
        &["read again   ", "wallet_scrub_damaged_files{kind=\"segment\"} 0", "wallet_scrub_last_end_time_seconds"],
    );
}

#[test]
fn a_server_is_taken_out_of_rotation_and_put_back() {
    let place = Place::serving();
    told(&place.block("rotation"), &["out of rotation", "\"draining\":true", "inflight 0", "in rotation\n"]);
    eventually("it is ready again", || place.is_ready().then_some(()));
}

#[test]
fn a_correlation_id_leads_to_what_became_of_a_request() {
    let place = Place::serving();
    let mut wallet = place.wallet();
    let spend = wallet.transfer("alice", "bob", 1, 11, "spend-11").header("X-Corr-ID", "complaint-17");
    let txid = wallet.client.call(&spend).ok().txid();
    let mut stranger = place.wallet_with("none");
    let refused = stranger.transfer("alice", "bob", 1, 12, "spend-12").header("X-Corr-ID", "complaint-17");
    stranger.client.call(&refused).refused(401, "UNAUTHORIZED");
    let search = "./target/release/ronctl --json audit search --corr-id complaint-17 || true";
    eventually("both stand in the audit stream", || {
        (place.run("search", search).matches("\"outcome\"").count() == 2).then_some(())
    });
    let said = place.block("corr-id");
    told(&said, &["\"event\":\"denied\"", "\"cause\":\"malformed\"", "accepted  transfer", "refused  UNAUTHORIZED"]);
    told(&place.run("tx", &format!("./target/release/ronctl wallet tx {txid}")), &["spend-11"]);
}

#[test]
fn snapshots_are_taken_and_looked_at() {
    let place = Place::serving();
    told(&place.block("snapshot-now"), &["\"event\":\"snapshot_taken\""]);
    told(
        &place.block("snapshots-old"),
        &["ledger_snapshots_total{outcome=\"ok\"}", "wallet_audited_height", "snapshot_taken", "Filesystem"],
    );
}

#[test]
fn scheduled_snapshots_are_kept_for_a_while() {
    let place = Place::serving();
    place.run("earlier", "mkdir -p ./var/backup\ntouch ./var/backup/ledger-2020010{1..9}T000000Z.snap ./var/backup/ledger-202001{10..16}T000000Z.snap\n");
    place.block("scheduled");
    let kept = || place.run("kept", "ls -1 ./var/backup\n");
    assert_eq!(kept().lines().count(), 14);
    let newest = kept().lines().last().unwrap().to_owned();
    place.run("restore", &format!("./target/release/ronctl ledger restore --from ./var/backup/{newest} --dir ./var/restored\n"));
    assert_eq!(place.ronctl("ledger verify --dir ./var/restored")["head"], 11);
}

#[test]
fn evidence_is_kept_before_anything_else_is_done() {
    let place = Place::serving();
    told(&place.block("evidence"), &["\"ready\":true", "The ledger is whole."]);
    assert!(fs::read_to_string(place.path("audit.log")).unwrap().contains("\"event\":\"started\""));
}

#[test]
fn damage_is_told_with_its_place_and_the_file_epoch_can_be_made_again() {
    let place = Place::new();
    let segment = place.path("var/ledger/segment-0000000001.log");
    let good = fs::read(&segment).unwrap();
    let mut bad = good.clone();
    // Within the third batch of a sealed segment.
    bad[3 * 4096 + 100] ^= 1;
    fs::write(&segment, bad).unwrap();
    let said = place.block_ends("damaged", 1);
    told(&said, &["segment-0000000001.log", "a start"]);
    fs::write(&segment, good).unwrap();
    fs::remove_dir_all(place.path("var/ledger.copy")).unwrap();
    let whole = place.block("damaged");
    told(&whole, &["The ledger is whole."]);
    let chain = whole.lines().find_map(|line| line.strip_prefix("chain hash  ")).unwrap();
    let said = place.block("epoch");
    told(&said, &["The ledger is whole.", "last entry   11", chain]);
    fs::rename(place.path("var/ledger/epoch"), place.path("var/epoch.aside")).unwrap();
    place.run("start", crate::place::START);
    assert_eq!(place.state(), (990, 10, (10, 11)));
    assert!(place.path("var/ledger/epoch").exists(), "written again");
}

#[test]
fn faults_are_injected_shown_and_cleared() {
    let place = Place::serving();
    let said = place.block("chaos");
    let faults = ["latency of 100% of the requests by 200 ms", "disconnect of ron-ledger", "quota storm over 50% of the writes"];
    for (number, fault) in (1..).zip(faults) {
        assert!(said.matches(&format!("f-{number}  {fault}, until ")).count() >= 2, "injected and listed: {said}");
    }
    told(&said, &["ended: f-1, f-2, f-3"]);
    place.block("chaos-clear");
    place.spend(30, 11).ok();
    assert_eq!(place.state(), (960, 40, (11, 12)));
}

#[test]
fn counters_are_flushed_shown_and_held_against_the_ledger() {
    let place = Place::serving();
    let said = place.block("counters-flush");
    told(&said, &["accounting_flush_lag_seconds", "counted through entry 11", "alice    roc    transfer   debit"]);
    let said = place.block("counters-reconcile");
    told(&said, &["the counters of entries 1 to 11 agree with the snapshot ./var/drift.snap", "agree with"]);
}

#[test]
fn files_are_migrated_between_two_versions() {
    let place = Place::serving();
    told(&place.block("migrate-dry-run"), &["wallet.keyring", "svc-wallet.toml"]);
    place.run("stop", "kill $(pidof svc-wallet)\nwhile pidof svc-wallet; do sleep 0.1; done");
    told(&place.block("migrate"), &["wallet.keyring"]);
    place.run("start", crate::place::START);
    assert_eq!(place.state(), (990, 10, (10, 11)));
}
