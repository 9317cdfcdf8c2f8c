//! `ronctl ledger` and `ronctl wallet seq --from-ledger` on ledgers that are whole, damaged, inconsistent or gone: what they print
//! where, and what they end with. The ledgers are written by the library, as a server would.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use svc_wallet::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, LogId, Nonce, Op, TokenId, UnixMs};
use svc_wallet::ledger::{segment_name, DiskStorage, Log, Options};
use tempfile::TempDir;

const BLOCK: u64 = 4096;
/// Six batches of one block fit a segment.
const SEGMENT: u64 = 8 * BLOCK;

fn entry(op: Op, from: &str, to: &str, amount: u128, nonce: u64, memo: Option<&str>, ts: u64) -> Vec<u8> {
    let (mut bytes, key) = (Vec::new(), format!("key-{}", nonce + 1));
    let draft = Draft {
        op,
        from: op.debits().then(|| Account::new(from).unwrap()),
        to: op.credits().then(|| Account::new(to).unwrap()),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(amount).unwrap(),
        nonce: op.debits().then_some(Nonce(nonce)),
        key: Key::new(&key).unwrap(),
        memo,
        corr: "corr",
        token: TokenId([4; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(ts),
    };
    draft.encode(&mut bytes);
    bytes
}

fn write(directory: &Path, batches: &[Vec<Vec<u8>>]) {
    let storage = DiskStorage::create(directory).unwrap();
    let options = Options::for_simulation(SEGMENT, LogId([9; 16]));
    let (mut log, _) = Log::open(storage, &options, &mut |_, _, _| Ok(())).unwrap();
    let mut lane_first = 1;
    for entries in batches {
        let count = entries.len() as u32;
        log.append(&[LaneBatch { lane: 3, lane_first, count, bytes: entries.concat() }]).unwrap();
        lane_first += u64::from(count);
    }
    log.close().unwrap();
}

/// Entry 1 gives alice 1000; entries 2 to 11, a batch each and a second apart, send 1 to bob with nonces 1 to 10. Two segments.
fn whole() -> (TempDir, PathBuf) {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("ledger");
    let mut batches = vec![vec![entry(Op::Issue, "", "alice", 1000, 0, Some("a, \"b\""), 0)]];
    batches.extend((1..=10).map(|nonce| vec![entry(Op::Transfer, "alice", "bob", 1, nonce, None, nonce * 1000)]));
    write(&directory, &batches);
    (place, directory)
}

fn ronctl(place: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args(arguments.split(' ')).current_dir(place).env_clear().stdin(Stdio::null());
    command.output().unwrap()
}

/// Standard output of a command that ends with this code.
fn told(place: &Path, arguments: &str, code: i32) -> String {
    let output = ronctl(place, arguments);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{arguments}: {stdout}{stderr}");
    stdout
}

fn json(place: &Path, arguments: &str, code: i32) -> Value {
    serde_json::from_str(&told(place, &format!("--json {arguments}"), code)).unwrap()
}

/// What a command writes to standard error when it ends with this code.
fn complaint(place: &Path, arguments: &str, code: i32) -> String {
    let output = ronctl(place, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments}");
    String::from_utf8(output.stderr).unwrap()
}

fn damage(directory: &Path, segment: u64, at: u64) {
    let path = directory.join(segment_name(segment));
    let mut bytes = fs::read(&path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn verify_tells_the_figures_of_a_whole_ledger() {
    let (place, _) = whole();
    let text = told(place.path(), "ledger verify --dir ledger", 0);
    for part in ["The ledger is whole.", "11, verified in ", "/s", "issued 1_000, burned 0, on accounts 1_000"] {
        assert!(text.contains(part), "{text}");
    }
    let report = json(place.path(), "ledger verify --dir ledger", 0);
    assert_eq!((&report["whole"], &report["entries"], &report["segments"]), (&true.into(), &11.into(), &2.into()));
    assert!(report["entries_per_second"].as_u64().unwrap() > 0);
}

#[test]
fn verify_explains_the_entry_that_breaks_a_rule() {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("ledger");
    let bad = entry(Op::Transfer, "alice", "bob", 999, 2, None, 2000);
    write(
        &directory,
        &[vec![entry(Op::Issue, "", "alice", 10, 0, None, 0)], vec![entry(Op::Transfer, "alice", "bob", 1, 1, None, 1000), bad]],
    );
    let text = told(place.path(), "ledger verify --dir ledger", 1);
    for part in [
        "The ledger is inconsistent.",
        "transfer takes 999 roc of alice, which has 9 free",
        "at byte   12288",
        "everything up to entry 2 keeps its promises",
        "The entry",
        "amount          999 minor units",
        "time            1970-01-01T00:00:02Z",
        "Its accounts before it",
        "alice  last nonce 1, 9 roc",
        "bob    last nonce 0, 1 roc",
        "next ",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let found = json(place.path(), "ledger verify --dir ledger", 1);
    assert_eq!((&found["kind"], &found["entry"]), (&"inconsistent".into(), &3.into()));
    assert_eq!(found["suspect"]["accounts_before"][0]["values"][0]["free"], "9");
}

#[test]
fn verify_names_what_is_damaged_behind_the_first_damage() {
    let (place, directory) = whole();
    damage(&directory, 1, 4 * BLOCK + 250);
    let text = told(place.path(), "ledger verify --dir ledger", 1);
    assert!(text.contains("it stopped here. 1 segment was read by itself: its hashes are right"), "{text}");
    damage(&directory, 2, 3 * BLOCK + 250);
    let text = told(place.path(), "ledger verify --dir ledger", 1);
    for part in ["at byte   16384", "Damaged as well", "segment-0000000002.log", "at byte 12288: the body does not match"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let found = json(place.path(), "ledger verify --dir ledger", 1);
    assert_eq!((&found["rest"]["read_apart"], found["rest"]["damaged"].as_array().unwrap().len()), (&1.into(), 1));
}

#[test]
fn inspect_goes_from_the_log_down_to_one_entry() {
    let (place, directory) = whole();
    let log = json(place.path(), "ledger inspect --dir ledger", 0);
    assert_eq!((&log["head"], &log["epoch"], &log["log_id"]), (&11.into(), &1.into(), &"09".repeat(16).into()));
    let segments: Vec<_> =
        log["segments"].as_array().unwrap().iter().map(|one| (&one["first"], &one["last"], &one["sealed"])).collect();
    assert_eq!(segments, [(&1.into(), &6.into(), &true.into()), (&7.into(), &11.into(), &false.into())]);
    let text = told(place.path(), "ledger inspect --dir ledger", 0);
    assert!(text.contains("sealed") && text.contains("through entry 11, noted in the file `epoch`"), "{text}");
    fs::rename(directory.join("epoch"), place.path().join("epoch")).unwrap();
    let text = told(place.path(), "ledger inspect --dir ledger", 0);
    assert!(text.contains("through entry 11, noted in the file `witness`"), "{text}");
    fs::rename(place.path().join("epoch"), directory.join("epoch")).unwrap();

    let lines = told(place.path(), "--json ledger inspect --dir ledger --segment 2", 0);
    let batches: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((batches.len(), &batches[0]["first"], &batches[0]["lanes"][0]["lane"]), (5, &7.into(), &3.into()));
    assert_eq!(batches[1]["previous"], batches[0]["root"]);

    let batch = json(place.path(), "ledger inspect --dir ledger --batch 8", 0);
    assert_eq!((&batch["offset"], &batch["rows"][0]["nonce"]), (&(3 * BLOCK).into(), &7.into()));
    let one = json(place.path(), "ledger inspect --dir ledger --entry 8", 0);
    assert_eq!((&one["entry"]["nonce"], &one["entry"]["amount_minor"]), (&7.into(), &"1".into()));
    let txid = one["entry"]["txid"].as_str().unwrap();
    let receipt: Value = serde_json::from_str(one["receipt"].as_str().unwrap()).unwrap();
    assert_eq!((&receipt["txid"], &receipt["ledger_root"]), (&txid.into(), &batches[1]["root"]));
    assert_eq!(json(place.path(), &format!("ledger inspect --dir ledger --entry {txid}"), 0), one);
    assert!(told(place.path(), "ledger inspect --dir ledger --entry 1", 0).contains("memo            a, \"b\""));

    assert!(complaint(place.path(), "ledger inspect --dir ledger --entry 12", 1).contains("ends with entry 11"));
    assert!(complaint(place.path(), "ledger inspect --dir ledger --segment 3", 1).contains("segments 1 to 2"));
    let foreign = "tx_00000000000080000000000000";
    assert!(complaint(place.path(), &format!("ledger inspect --dir ledger --entry {foreign}"), 1).contains("not in this ledger"));
    for wrong in ["--entry 0", "--entry 1 --batch 1", "--segment x"] {
        complaint(place.path(), &format!("ledger inspect --dir ledger {wrong}"), 2);
    }
    complaint(place.path(), "ledger inspect --dir nowhere", 2);
}

#[test]
fn a_restored_ledger_ends_where_its_snapshot_does() {
    let (place, _) = whole();
    fs::create_dir(place.path().join("configs")).unwrap();
    let configuration =
        "[deps]\nledger_sock = \"embedded:./l\"\naccounting_sock = \"embedded:./a\"\nregistry_url = \"file:./r\"\n\
        [security]\npolicy_file = \"./p\"\n[ledger]\nsegment_bytes = \"8MiB\"\n";
    fs::write(place.path().join("configs/svc-wallet.toml"), configuration).unwrap();
    let log = json(place.path(), "ledger inspect --dir ledger", 0);
    told(place.path(), "ledger snapshot --dir ledger --out ledger.snap", 0);
    // The first segment is as large as it is said, or else configured.
    for (option, bytes) in [("", 8 << 20), (" --segment-bytes 16777216", 16 << 20)] {
        let directory = format!("restored-{bytes}");
        told(place.path(), &format!("ledger restore --from ledger.snap --dir {directory}{option}"), 0);
        let restored = json(place.path(), &format!("ledger inspect --dir {directory}"), 0);
        for member in ["log_id", "epoch", "head", "root"] {
            assert_eq!(restored[member], log[member], "{member}");
        }
        assert_eq!((&restored["mark"]["head"], &restored["segments"][0]["bytes"]), (&11.into(), &bytes.into()));
        let text = told(place.path(), &format!("ledger inspect --dir {directory}"), 0);
        assert!(text.contains("last entry   11\n"), "{text}");
        let text = told(place.path(), &format!("ledger verify --dir {directory}"), 0);
        assert!(text.contains(": the next one is 12\n") && !text.contains("12 to 11"), "{text}");
        let gone = complaint(place.path(), &format!("ledger inspect --dir {directory} --entry 12"), 1);
        assert!(gone.contains("ends with entry 11"), "{gone}");
    }
    for bytes in ["0", "8388609", "1048576", "x"] {
        let wrong = format!("ledger restore --from ledger.snap --dir other --segment-bytes {bytes}");
        assert!(complaint(place.path(), &wrong, 2).contains("multiple of 4096"));
    }
}

#[test]
fn of_a_bad_copy_no_directory_is_made() {
    let (place, _) = whole();
    for missing in ["nothing.snap", "nowhere/nothing.snap"] {
        let told = complaint(place.path(), &format!("ledger restore --from {missing} --dir new"), 2);
        assert!(told.contains("cannot open the snapshot"), "{told}");
    }
    told(place.path(), "ledger snapshot --dir ledger --out ledger.snap", 0);
    let good = fs::read(place.path().join("ledger.snap")).unwrap();
    // In the head, in the front, in the accounts, and cut short.
    for at in [20, 4100, 4096 + 200, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(place.path().join("bad.snap"), bad).unwrap();
        let told = complaint(place.path(), "ledger restore --from bad.snap --dir new", 1);
        assert!(told.contains("name a file that `ronctl ledger snapshot` has written"), "{told}");
    }
    fs::write(place.path().join("bad.snap"), &good[..good.len() / 2]).unwrap();
    complaint(place.path(), "ledger restore --from bad.snap --dir new", 1);
    assert!(!place.path().join("new").exists());
    told(place.path(), "ledger restore --from ledger.snap --dir new", 0);
}

#[test]
fn a_directory_that_is_not_there_is_told_as_such() {
    let (place, _) = whole();
    fs::write(place.path().join("file"), "").unwrap();
    for command in ["verify", "inspect", "export --format csv", "snapshot --out s", "archive --to a"] {
        let told = complaint(place.path(), &format!("ledger {command} --dir nowhere"), 2);
        assert!(told.contains("nowhere: there is no ledger") && told.contains("--dir") && !told.contains("start"), "{told}");
        let told = complaint(place.path(), &format!("ledger {command} --dir file"), 2);
        assert!(told.contains("not a directory"), "{told}");
    }
    assert!(!place.path().join("nowhere").exists());
}

/// Whether something may go or not, of these nothing does.
#[test]
fn nothing_is_archived_from_what_is_no_ledger_or_one_that_no_start_opens() {
    let (place, directory) = whole();
    fs::create_dir(place.path().join("empty")).unwrap();
    let refused = |directory: &str, says: &[&str]| {
        let told = complaint(place.path(), &format!("ledger archive --dir {directory} --to archive"), 1);
        assert!(says.iter().all(|part| told.contains(part)), "{told}");
        assert!(!place.path().join("archive").exists(), "{told}");
    };
    refused("empty", &["empty: there is no ledger here"]);
    assert_eq!(fs::read_dir(place.path().join("empty")).unwrap().count(), 0);
    let (epoch, last) = (directory.join("epoch"), directory.join(segment_name(2)));
    let good = fs::read(&epoch).unwrap();
    let mut bad = good.clone();
    bad[33] ^= 1;
    fs::write(&epoch, bad).unwrap();
    refused("ledger", &["epoch", "does not match its own hash"]);
    fs::write(&epoch, good).unwrap();
    fs::rename(&last, place.path().join("aside")).unwrap();
    refused("ledger", &["segment-0000000002.log is missing"]);
    fs::rename(place.path().join("aside"), &last).unwrap();
    assert!(told(place.path(), "ledger archive --dir ledger --to archive", 0).contains("no segment may go"));
}

#[test]
fn of_a_damaged_ledger_is_shown_what_can_be_read() {
    let (place, directory) = whole();
    damage(&directory, 1, 4 * BLOCK + 250);
    let lines = ronctl(place.path(), "--json ledger inspect --dir ledger --segment 1");
    assert_eq!((lines.status.code(), String::from_utf8(lines.stdout).unwrap().lines().count()), (Some(1), 2));
    assert!(String::from_utf8(lines.stderr).unwrap().contains("at byte 16384"));
    told(place.path(), "ledger inspect --dir ledger --entry 2", 0);
    let refused = complaint(place.path(), "ledger inspect --dir ledger --entry 5", 1);
    assert!(refused.contains("at byte 16384") && refused.contains("`ronctl ledger verify --dir ledger`"), "{refused}");
    told(place.path(), "ledger inspect --dir ledger --entry 8", 0);
    damage(&directory, 1, 3 * BLOCK);
    let log = json(place.path(), "ledger inspect --dir ledger", 1);
    assert!(log["segments"][0]["fault"].as_str().unwrap().contains("hash"), "{log}");
    assert_eq!(log["segments"][1]["fault"], Value::Null);
}

#[test]
fn inspect_remarks_on_what_is_missing_and_ends_with_1() {
    let (place, directory) = whole();
    assert_eq!(json(place.path(), "ledger inspect --dir ledger", 0)["gaps"], serde_json::json!([]));
    let last = fs::read(directory.join(segment_name(2))).unwrap();
    damage(&directory, 2, 2 * BLOCK + 9);
    let text = told(place.path(), "ledger inspect --dir ledger", 1);
    assert!(text.contains("durable up to entry 11 before, and what can be read ends with entry 6"), "{text}");
    fs::remove_file(directory.join(segment_name(2))).unwrap();
    let gaps = json(place.path(), "ledger inspect --dir ledger", 1)["gaps"].to_string();
    assert!(gaps.contains(&segment_name(2)) && gaps.contains("is missing"), "{gaps}");
    fs::write(directory.join(segment_name(2)), last).unwrap();
    told(place.path(), "ledger inspect --dir ledger", 0);
}

#[test]
fn export_writes_the_range_and_the_accounts_that_are_asked_for() {
    let (place, _) = whole();
    let lines = told(place.path(), "ledger export --dir ledger --format jsonl", 0);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[10]["seq"], &rows[10]["time"]), (11, &11.into(), &"1970-01-01T00:00:10Z".into()));
    let seqs = |arguments: &str| {
        let text = told(place.path(), &format!("ledger export --dir ledger --format csv {arguments}"), 0);
        let mut lines = text.split_terminator("\r\n").map(str::to_owned);
        assert!(lines.next().unwrap().starts_with("seq,txid,time,op,from,to,"));
        lines.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(seqs("--from 5 --to 8"), [5, 6, 7, 8]);
    assert_eq!(seqs("--account bob --to 3"), [2, 3]);
    assert_eq!(seqs("--account nobody --account alice --to 2"), [1, 2]);
    assert!(seqs("--account nobody").is_empty());
    assert_eq!(seqs("--since 1970-01-01T00:00:03Z --until 1970-01-01T00:00:05Z"), [4, 5]);
    let first = told(place.path(), "ledger export --dir ledger --format csv --to 1", 0);
    assert!(first.contains(",key-1,\"a, \"\"b\"\"\",corr,"), "{first}");
    for wrong in [
        "--format xml",
        "--format csv --account a.b",
        "--format csv --since noon",
        "--format csv --from 0",
        "--format csv --from 5 --to 2",
        "--format csv --since 1970-01-01T00:00:05Z --until 1970-01-01T00:00:05Z",
        "--format csv --force",
    ] {
        complaint(place.path(), &format!("ledger export --dir ledger {wrong}"), 2);
    }
}

/// Who polls must be able to tell that there is nothing new from a typing error, and both from an export.
#[test]
fn an_export_from_behind_the_end_says_so_and_writes_nothing() {
    let (place, _) = whole();
    for arguments in ["--format csv --from 12", "--format jsonl --from 99", "--format csv --from 12 --to 20 --out out.csv"] {
        let output = ronctl(place.path(), &format!("ledger export --dir ledger {arguments}"));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments}: {told}");
        assert!(told.contains("the last entry of the ledger is 11, and --from asks for "), "{told}");
    }
    let names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger"], "no file is begun");
    let last = told(place.path(), "ledger export --dir ledger --format csv --from 11", 0);
    assert_eq!(last.split_terminator("\r\n").count(), 2, "{last}");
    let none = told(place.path(), "ledger export --dir ledger --format csv --from 11 --account nobody", 0);
    assert_eq!(none.split_terminator("\r\n").count(), 1, "an entry that is not wanted is an answer: {none}");
}

#[test]
fn an_exported_file_is_complete_or_not_there() {
    let (place, directory) = whole();
    let file = place.path().join("out.jsonl");
    let command = "ledger export --dir ledger --format jsonl --out out.jsonl";
    assert_eq!(json(place.path(), command, 0)["entries"], 11);
    let good = fs::read(&file).unwrap();
    assert!(complaint(place.path(), command, 2).contains("--force"));
    told(place.path(), &format!("{command} --force"), 0);
    assert_eq!(fs::read(&file).unwrap(), good);
    damage(&directory, 2, 4 * BLOCK + 250);
    let output = ronctl(place.path(), "ledger export --dir ledger --format jsonl");
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().lines().count()), (Some(1), 8));
    assert!(String::from_utf8(output.stderr).unwrap().contains("incomplete, it ends after entry 8"));
    let told = complaint(place.path(), "ledger export --dir ledger --format jsonl --from 10", 1);
    assert!(told.contains("nothing was exported: ") && told.contains("where entry 9 is expected"), "{told}");
    complaint(place.path(), &format!("{command} --force"), 1);
    complaint(place.path(), "ledger export --dir ledger --format jsonl --out other.jsonl", 1);
    assert_eq!(fs::read(&file).unwrap(), good, "what was there stays");
    let names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_full_disk_under_an_export_is_no_success() {
    let (place, _) = whole();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args("ledger export --dir ledger --format csv".split(' ')).current_dir(place.path()).env_clear();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(command.stdout(full).status().unwrap().code(), Some(4));
}

#[test]
fn the_last_nonce_is_read_from_the_ledger_without_a_server() {
    let (place, directory) = whole();
    let text = told(place.path(), "wallet seq --account alice --from-ledger --dir ledger", 0);
    assert!(text.contains("last confirmed nonce  10\n") && text.contains("next nonce            11\n"), "{text}");
    for (account, last) in [("alice", 10), ("bob", 0), ("nobody", 0)] {
        let seq = json(place.path(), &format!("wallet seq --account {account} --from-ledger --dir ledger"), 0);
        assert_eq!((&seq["last_nonce"], &seq["through"]), (&last.into(), &11.into()));
    }
    fs::remove_file(directory.join(segment_name(1))).unwrap();
    assert_eq!(json(place.path(), "wallet seq --account alice --from-ledger --dir ledger", 0)["last_nonce"], 10);
    assert!(complaint(place.path(), "wallet seq --account bob --from-ledger --dir ledger", 1).contains("segments before 2"));
    assert!(complaint(place.path(), "ledger export --dir ledger --format csv --from 5 --to 2", 2)
        .contains("--from 5 lies behind --to 2"));
    complaint(place.path(), "wallet seq --account a.b --from-ledger --dir ledger", 2);
    // A question to the server as well, before a token is made.
    for question in
        ["seq --account ", "seq --account  --from-ledger --dir ledger", "balance --asset roc --account ", "entries --account "]
    {
        let told = complaint(place.path(), &format!("wallet {question}"), 2);
        assert!(told.contains("the name of the account is empty"), "{told}");
    }
    complaint(place.path(), "wallet seq --account alice --dir ledger", 2);
}
