//! The blocks of RUNBOOK.md behind `<!-- run: NAME -->` do what the page says: they are run as they are printed, one after the other, by
//! a shell in a temporary directory, and what comes of each step is looked at.
//!
//! The place is that of a reader: a copy of the shipped `configs/`, with free ports and with small files for the ledger, because each is
//! written full of zeros; and the programs of this build where the page has `./target/release/`. `pidof` knows only the servers of the
//! place, so that nobody else's is ended. The place begins with a ledger that the library has written, of small segments, so that
//! there is something to archive without writing for minutes.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{free_port, Client, Reply, Wallet};
use svc_wallet::access::{mint, Keyring, MintRequest};
use svc_wallet::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, LogId, Nonce, Op, TokenId, UnixMs};
use svc_wallet::ledger::{DiskStorage, Log, Options};
use tempfile::TempDir;

/// The servers that blocks start.
const SERVERS: [(&str, &str); 2] =
    [("svc-wallet", env!("CARGO_BIN_EXE_svc-wallet")), ("ron-ledger", env!("CARGO_BIN_EXE_ron-ledger"))];
/// The start of the server and the wait for it, as every block has them that needs them.
const START: &str = "./target/release/svc-wallet --config ./configs/svc-wallet.toml 2>>./var/svc-wallet.log &\n\
                     until ./target/release/ronctl status; do sleep 1; done\n";
/// What the environment of a server may have.
const OWN_VARIABLES: [&str; 7] =
    ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK", "RUST_LOG"];
/// How long a block may take. None is expected to come near.
const BLOCK_PATIENCE: Duration = Duration::from_secs(180);
/// Six batches of one block fit such a segment.
const SEGMENT: u64 = 8 * 4096;
/// Entries of the ledger with which a place begins.
const FIRST_ENTRIES: u64 = 11;

/// The marked blocks of the page, in their order: name and commands.
fn blocks() -> Vec<(String, String)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("RUNBOOK.md")).unwrap();
    let mut marked = Vec::new();
    for part in page.split("<!-- run: ").skip(1) {
        let (name, rest) = part.split_once(" -->\n```sh\n").expect("a mark is followed by a block of sh");
        let (commands, _) = rest.split_once("\n```\n").expect("a block ends");
        assert!(!name.contains('\n'), "{name}: a mark is followed by a block of sh");
        marked.push((name.to_owned(), format!("{commands}\n")));
    }
    marked
}

/// Writes down what one of several programs in `directory` is replaced by.
fn tool(directory: &Path, name: &str, commands: &str) {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{commands}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A directory as a reader has it. Dropping it ends the servers that blocks have started, by their process ids.
struct Place {
    directory: TempDir,
    http: SocketAddr,
    control: SocketAddr,
    token: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["configs", "target/release", "tools", "var"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let [http, control] = [free_port(), free_port()];
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")).unwrap() {
            let file = file.unwrap();
            let mut text = fs::read_to_string(file.path()).unwrap();
            let changes = match file.file_name().to_str().unwrap() {
                "svc-wallet.toml" => vec![
                    ("127.0.0.1:8080", format!("127.0.0.1:{http}")),
                    ("127.0.0.1:9090", format!("127.0.0.1:{control}")),
                    ("segment_bytes = \"64MiB\"", "segment_bytes = \"8MiB\"".to_owned()),
                ],
                "ron-ledger.toml" => vec![("64MiB", "8MiB".to_owned())],
                _ => vec![],
            };
            for (shipped, ours) in changes {
                assert_eq!(text.matches(shipped).count(), 1, "{shipped} in {:?}", file.path());
                text = text.replace(shipped, &ours);
            }
            fs::write(at("configs").join(file.file_name()), text).unwrap();
        }
        for (name, program) in SERVERS {
            let pid = at(name);
            let commands = format!("echo $$ > '{0}.pid' && exec '{program}' \"$@\"", pid.display());
            tool(&at("target/release"), name, &commands);
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ronctl"), at("target/release/ronctl")).unwrap();
        // A process that has ended and that nobody has waited for has no program any more.
        let known = format!("pid=$(cat '{}'/\"$1\".pid)", directory.path().display());
        tool(&at("tools"), "pidof", &format!("{known} && readlink \"/proc/$pid/exe\" >&2 && echo \"$pid\""));

        write_ledger(&at("var/ledger"));
        let keyring = Keyring::open_or_create(&at("var/wallet.keyring")).unwrap();
        let wanted = MintRequest {
            subject: "tests".to_owned(),
            scopes: vec!["wallet:*".to_owned()],
            ttl: Duration::from_secs(3600),
            audience: "svc-wallet".to_owned(),
            ..MintRequest::default()
        };
        let token = mint(&keyring, &wanted, now()).unwrap();
        let [http, control] = [http, control].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self { directory, http, control, token }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs commands as a shell does that stops at the first that fails, and returns what they wrote.
    fn run(&self, name: &str, commands: &str) -> String {
        let said = self.path("said");
        let file = File::create(&said).unwrap();
        let path = format!("{}:{}", self.path("tools").display(), std::env::var("PATH").unwrap());
        let commands = commands.replace("127.0.0.1:9090", &self.control.to_string());
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &commands]).current_dir(self.directory.path()).env("PATH", path);
        for name in OWN_VARIABLES {
            shell.env_remove(name);
        }
        // A file and no pipe: servers that a block starts keep it open.
        shell.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut shell = shell.spawn().expect("bash is needed");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = shell.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > BLOCK_PATIENCE {
                shell.kill().unwrap();
                break shell.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = String::from_utf8(fs::read(said).unwrap()).unwrap();
        assert!(status.success(), "block {name} ended with {status}:\n{said}\n{}", self.logs());
        said
    }

    /// Runs `ronctl`, which must succeed, and returns what it said to programs.
    fn ronctl(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.run(arguments, &format!("./target/release/ronctl --json {arguments}"))).unwrap()
    }

    fn wallet(&self) -> Wallet {
        Wallet::new(Client::connect(self.http), self.token.clone())
    }

    /// What `alice` and `bob` have, and the last and the next nonce of `alice`.
    fn state(&self) -> (u128, u128, (u64, u64)) {
        let mut wallet = self.wallet();
        (wallet.balance("alice"), wallet.balance("bob"), wallet.seq("alice"))
    }

    fn spend(&self, amount: u128, nonce: u64) -> Reply {
        self.wallet().spend("alice", "bob", amount, nonce, &format!("spend-{nonce}-{amount}"))
    }

    fn logs(&self) -> String {
        let log = |(name, _): &(&str, &str)| fs::read_to_string(self.path(&format!("var/{name}.log"))).unwrap_or_default();
        SERVERS.iter().map(log).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (name, program) in SERVERS {
            let pid = fs::read_to_string(self.path(&format!("{name}.pid"))).ok();
            let Some(pid) = pid.and_then(|pid| pid.trim().parse().ok()) else { continue };
            if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|running| running == Path::new(program)) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Entry 1 gives alice 1000; those after it send 1 to bob each, with nonces from 1 on. Two segments.
fn write_ledger(directory: &Path) {
    let options = Options::for_simulation(SEGMENT, LogId([9; 16]));
    let (mut log, _) = Log::open(DiskStorage::create(directory).unwrap(), &options, &mut |_, _, _| Ok(())).unwrap();
    for seq in 1..=FIRST_ENTRIES {
        let op = if seq == 1 { Op::Issue } else { Op::Transfer };
        let (mut bytes, key) = (Vec::new(), format!("first-{seq}"));
        let draft = Draft {
            op,
            from: op.debits().then(|| Account::new("alice").unwrap()),
            to: Some(Account::new(if seq == 1 { "alice" } else { "bob" }).unwrap()),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(if seq == 1 { 1000 } else { 1 }).unwrap(),
            nonce: op.debits().then_some(Nonce(seq - 1)),
            key: Key::new(&key).unwrap(),
            memo: None,
            corr: "corr",
            token: TokenId([4; 16]),
            ceiling: false,
            budget: false,
            daily_max: false,
            // Their keys are over their time, so that segments of them may be archived.
            ts: UnixMs(now().0 - 2 * 86_400_000),
        };
        draft.encode(&mut bytes);
        log.append(&[LaneBatch { lane: 0, lane_first: seq, count: 1, bytes }]).unwrap();
    }
    log.close().unwrap();
}

/// Fails unless all of this was said.
fn told(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

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
    let place = Place::new();
    place.run("start", START);
    assert_eq!(place.state(), (990, 10, (10, 11)));
    let entry = |seq: u64| place.ronctl(&format!("ledger inspect --entry {seq}"))["entry"]["txid"].as_str().unwrap().to_owned();
    let archived = entry(3);
    let first = place.wallet().tx(&archived).ok().body;
    let kept = place.spend(30, 11).ok();
    let mut lost = Vec::new();
    let mut restored = String::new();
    let (marked, mut ran) = (blocks(), Vec::new());
    for (name, commands) in marked.iter().filter(|(name, _)| !name.starts_with("daemon-") && name != "chaos") {
        ran.push(name.as_str());
        // What a client has got, and what a copy made before it lacks.
        match name.as_str() {
            "copy-restore" => lost.push(place.spend(5, 12).ok()),
            "snapshot-restore" => lost.push(place.spend(7, 13).ok()),
            _ => {}
        }
        let said = place.run(name, commands);
        match name.as_str() {
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
    assert_eq!(
        ran,
        [
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
            "audit"
        ]
    );
    place.spend(8, 13).ok();
    assert_eq!(place.state(), (946, 54, (13, 14)), "the client goes on where it was told to");
}

#[test]
fn a_daemon_and_its_wallet_are_stopped_copied_archived_restored_and_started_as_it_says() {
    let place = Place::new();
    let archived = place.ronctl("ledger inspect --entry 3")["entry"]["txid"].as_str().unwrap().to_owned();
    let (mut first, mut kept) = (Vec::new(), None);
    let (marked, mut ran) = (blocks(), Vec::new());
    let mut environment = String::new();
    let mut lost = Vec::new();
    for (name, commands) in marked.iter().filter(|(name, _)| name.starts_with("daemon-")) {
        ran.push(name.as_str());
        // What a client has got, and what a copy made before it lacks.
        match name.as_str() {
            "daemon-copy-restore" => lost.push(place.spend(5, 12).ok()),
            "daemon-restore" => lost.push(place.spend(7, 13).ok()),
            _ => {}
        }
        // A reader stays in one shell, which keeps what is exported.
        let said = place.run(name, &format!("{environment}{commands}"));
        environment.extend(commands.lines().filter(|line| line.starts_with("export ")).map(|line| format!("{line}\n")));
        match name.as_str() {
            "daemon-start" => {
                assert_eq!(place.state(), (990, 10, (10, 11)));
                first = place.wallet().tx(&archived).ok().body;
                kept = Some(place.spend(30, 11).ok());
            }
            "daemon-copy" => {
                told(&said, &["The ledger is whole."]);
                let [copied, served] =
                    ["ledger.backup", "ledger"].map(|name| place.ronctl(&format!("ledger verify --dir var/{name}")));
                assert_eq!((&copied["head"], &copied["root"]), (&12.into(), &served["root"]));
                assert_eq!(place.state(), (960, 40, (11, 12)));
            }
            "daemon-copy-restore" => {
                told(&said, &["The ledger is whole.", "last confirmed nonce  11"]);
                assert_eq!(place.state(), (960, 40, (11, 12)));
                let (mut wallet, kept) = (place.wallet(), kept.as_ref().unwrap());
                assert_eq!(wallet.tx(&kept.txid()).ok().body, kept.body);
                assert!(place.spend(30, 11).ok().replayed());
                wallet.tx(&lost[0].txid()).refused(404, "NOT_FOUND");
                place.spend(6, 12).ok();
            }
            "daemon-archive" => {
                told(
                    &said,
                    &["1 segments moved", "The ledger is whole.", "not here    entries 1 to 6: the snapshot after entry 12"],
                );
                assert_eq!(place.state(), (954, 46, (12, 13)));
                place.wallet().tx(&archived).refused(503, "UPSTREAM_UNAVAILABLE");
            }
            "daemon-archive-back" => {
                told(&said, &["The ledger is whole."]);
                assert_eq!(place.wallet().tx(&archived).ok().body, first);
            }
            "daemon-snapshot" => told(&said, &["through entry  13", "1_000 on all accounts"]),
            "daemon-restore" => {
                told(&said, &["The ledger is whole.", "last confirmed nonce  12"]);
                assert_eq!(place.state(), (954, 46, (12, 13)));
                place.wallet().tx(&lost[1].txid()).refused(404, "NOT_FOUND");
                place.spend(8, 13).ok();
            }
            "daemon-stop" => {
                assert!(!place.path("var/run/ledger.sock").exists(), "an orderly end takes the socket away");
                let report = place.ronctl("ledger verify --dir var/ledger");
                assert_eq!((&report["head"], &report["torn"]), (&14.into(), &Value::Null));
            }
            other => panic!("nothing is known about block {other}"),
        }
    }
    let expected = ["start", "copy", "copy-restore", "archive", "archive-back", "snapshot", "restore", "stop"];
    assert_eq!(ran, expected.map(|name| format!("daemon-{name}")));
}

#[test]
fn faults_are_injected_shown_and_cleared_as_it_says() {
    let place = Place::new();
    place.run("start", START);
    let marked = blocks();
    let (_, commands) = marked.iter().find(|(name, _)| name == "chaos").expect("a block about faults");
    let said = place.run("chaos", commands);
    let faults = ["latency of 100% of the requests by 200 ms", "disconnect of ron-ledger", "quota storm over 50% of the writes"];
    for (number, fault) in (1..).zip(faults) {
        assert!(said.matches(&format!("f-{number}  {fault}, until ")).count() >= 2, "injected and listed: {said}");
    }
    told(&said, &["ended: f-1, f-2, f-3"]);
    place.spend(30, 11).ok();
    assert_eq!(place.state(), (960, 40, (11, 12)));
}
