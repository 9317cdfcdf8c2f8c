//! Scrubbing as an operator sees it: what rots on the disk of a running server or daemon shows in metrics, log and `ronctl ledger inspect`,
//! is refused and not served, is mended or can be, and a restart does not begin again.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::{body, eventually, Daemon, Server, Wallet};

const DAMAGED_SEGMENTS: &str = "wallet_scrub_damaged_files{kind=\"segment\"}";
const DAMAGED_INDEXES: &str = "wallet_scrub_damaged_files{kind=\"index\"}";
const LAST_END: &str = "wallet_scrub_last_end_time_seconds";

/// What `ronctl ledger inspect` says of a ledger, and what it ends with.
fn inspect(ledger: &Path) -> (Value, Option<i32>) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ronctl"));
    let output = command.args(["--json", "ledger", "inspect", "--dir"]).arg(ledger).env_clear().output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

/// Spends until the ledger has begun another segment; the first transaction, alone in the first batch.
fn fill_a_segment(wallet: &mut Wallet, next_segment: &Path) -> String {
    let first = wallet.issue("filler", 10_000_000).txid();
    let memo = "m".repeat(256);
    let mut nonce = 0;
    while !next_segment.exists() {
        let mut spends = Vec::new();
        for _ in 0..64 {
            nonce += 1;
            let text = body("filler", "elsewhere", 1, nonce).replace('}', &format!(r#","memo":"{memo}"}}"#));
            spends.extend(wallet.write("/v1/transfer", &format!("f{nonce}"), &text).bytes());
        }
        wallet.client.send(spends);
        wallet.client.replies(64).into_iter().for_each(|reply| drop(reply.ok()));
    }
    first
}

/// Turns one bit of a file, durably; a second call turns it back.
fn rot(file: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    file.sync_all().unwrap();
}

/// What stands in the first batch of a segment, behind its head.
const IN_THE_FIRST_BATCH: u64 = 8192 + 300;

#[test]
fn rot_in_a_running_server_is_found_told_refused_and_over_when_the_file_is_good_again() {
    let mut server = Server::prepared(&[("ledger.scrub_every", "1s"), ("ledger.scrub_bytes_per_second", "1GiB")]);
    server.launch();
    let mut wallet = server.wallet();
    let txid = fill_a_segment(&mut wallet, &server.segment(2));
    let index = server.path("ledger/index-0000000001.idx");
    eventually("the segment is indexed", || index.exists().then_some(()));
    let before = server.metric_reaches(LAST_END, 1_700_000_000.0);
    server.metric_reaches(LAST_END, before + 1.0);
    assert_eq!((server.metric(DAMAGED_SEGMENTS), server.metric(DAMAGED_INDEXES)), (0.0, 0.0));
    let (told, code) = inspect(&server.path("ledger"));
    assert_eq!((code, &told["scrub"]["damaged_files"]), (Some(0), &serde_json::json!([])), "{told}");
    assert!(told["scrub"]["ended"]["at"].as_u64().unwrap() > 1_700_000_000_000, "{told}");

    rot(&server.segment(1), IN_THE_FIRST_BATCH);
    server.metric_reaches(DAMAGED_SEGMENTS, 1.0);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("\"scrub_damaged\"")).unwrap_or_else(|| panic!("{log}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["level"], &line["kind"], &line["offset"]), (&"ERROR".into(), &"segment".into(), &8192.into()), "{line}");
    assert!(line["file"].as_str().unwrap().ends_with("segment-0000000001.log") && line["cause"].is_string(), "{line}");
    assert!(line["message"].as_str().unwrap().contains("backup"), "{line}");
    let (told, code) = inspect(&server.path("ledger"));
    assert_eq!((code, &told["scrub"]["damaged_files"][0]), (Some(1), &"segment-0000000001.log".into()), "{told}");
    let config = server.path("svc-wallet.toml");
    let status = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ronctl"));
        let output = command
            .args(arguments)
            .args(["status", "--config"])
            .arg(&config)
            .current_dir(server.directory())
            .env_clear()
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("the status tells it", || status(&[]).contains("DAMAGED: 1 segments; `ronctl ledger inspect`").then_some(()));
    let told: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!(told["status"]["scrub"]["damaged_segments"], 1, "{told}");
    assert!(told["status"]["audit"]["broken"].is_null(), "{told}");
    // It serves on, but not what has rotted. What was read before the rot may still be in memory, so another process is asked.
    assert_eq!(server.page("/readyz").status, 200);
    let (_, next) = wallet.seq("filler");
    wallet.spend("filler", "elsewhere", 1, next, "on").ok();
    server.stop();
    server.launch();
    let mut wallet = server.wallet();
    wallet.tx(&txid).refused(500, "INTERNAL_ERROR");
    server.metric_reaches(DAMAGED_SEGMENTS, 1.0);

    rot(&server.segment(1), IN_THE_FIRST_BATCH);
    eventually("the file is good again", || (server.metric(DAMAGED_SEGMENTS) == 0.0).then_some(()));
    wallet.tx(&txid).ok();

    let whole = std::fs::read(&index).unwrap();
    rot(&index, 30);
    eventually("the index is dropped", || server.log().contains("\"kind\":\"index\"").then_some(()));
    eventually("it is made again", || std::fs::read(&index).is_ok_and(|bytes| bytes == whole).then_some(()));
    eventually("it was read again", || {
        let (told, code) = inspect(&server.path("ledger"));
        (code == Some(0) && told["scrub"]["damaged_files"].as_array().unwrap().is_empty()).then_some(())
    });
}

#[test]
fn a_restart_does_not_begin_again() {
    let mut server = Server::prepared(&[("ledger.scrub_every", "14days")]);
    server.launch();
    server.wallet().issue("somebody", 1).ok();
    assert_eq!(server.metric(LAST_END), 0.0, "nothing is sealed, so nothing was read");
    // The end leaves a snapshot.
    server.stop();
    server.launch();
    let ended = server.metric_reaches(LAST_END, 1_700_000_000.0);
    let at = inspect(&server.path("ledger")).0["scrub"]["ended"]["at"].as_u64().unwrap();
    assert_eq!(ended, at as f64 / 1000.0);
    for _ in 0..2 {
        server.stop();
        server.launch();
        assert_eq!(server.metric_reaches(LAST_END, 1_700_000_000.0), ended, "the next pass is not due for two weeks");
    }
    assert!(!server.log().contains("\"scrub_ended\""), "{}", server.log());
}

#[test]
fn a_daemon_scrubs_and_its_wallet_shows_it() {
    let arguments = ["--scrub-every", "1s", "--scrub-bytes-per-second", "1000000000"];
    let mut daemon = Daemon::prepared(&arguments);
    daemon.launch();
    let mut server = Server::prepared(&[("deps.ledger_sock", &daemon.sock())]);
    server.launch();
    fill_a_segment(&mut server.wallet(), &daemon.path("ledger/segment-0000000002.log"));
    server.metric_reaches(LAST_END, 1_700_000_000.0);
    rot(&daemon.path("ledger/segment-0000000001.log"), IN_THE_FIRST_BATCH);
    server.metric_reaches(DAMAGED_SEGMENTS, 1.0);
    assert!(daemon.log().contains("\"scrub_damaged\""), "{}", daemon.log());
    assert!(!server.log().contains("\"scrub_damaged\""), "it is for the daemon to log");
    server.stop();
    daemon.stop();
    let (told, code) = inspect(&daemon.path("ledger"));
    assert_eq!((code, &told["scrub"]["damaged_files"][0]), (Some(1), &"segment-0000000001.log".into()), "{told}");
}
