//! Proves that under `security.amnesia` nothing is left on a disk (I-9): a whole life of the real server leaves its directory as it was and
//! has no file open to write; keys and an embedded ledger go with the process; with a daemon the truth stays there. `.ci/tier-amnesia`
//! looks at the system calls as well.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{eventually, Daemon, Server, Wallet};

/// Files that the tests themselves write: what the server says, and its configuration.
const OF_THE_TEST: [&str; 2] = ["server.log", "svc-wallet.toml"];

/// A server that is to leave nothing, in a directory without keys, and no process yet.
fn forgetful(settings: &[(&str, &str)]) -> Server {
    let server = Server::prepared(&[&[("security.amnesia", "on"), ("audit.sink", "off")], settings].concat());
    for name in ["wallet.keyring", "wallet.keyring.key"] {
        fs::remove_file(server.path(name)).unwrap();
    }
    server
}

/// Everything in a directory, with what changes when something is done to it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                open.push(entry.path());
            }
            if !OF_THE_TEST.iter().any(|name| entry.file_name() == *name) {
                found.insert(entry.path(), (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
            }
        }
    }
    found
}

fn ronctl(server: &Server, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.arg("--json").arg("--config").arg(server.path("svc-wallet.toml")).args(arguments.split(' '));
    // The configuration of tests is in flags of the server, and ronctl has the environment.
    command.env("AMNESIA", "on").current_dir(server.directory()).stdin(Stdio::null()).output().unwrap()
}

fn told(server: &Server, arguments: &str) -> Value {
    let done = ronctl(server, arguments);
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn refused(server: &Server, arguments: &str) -> String {
    let done = ronctl(server, arguments);
    assert!(!done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn minted(server: &Server) -> String {
    let told = told(server, "cap mint --subject tests --scopes wallet:* --ttl 900s");
    told["token"].as_str().unwrap().to_owned()
}

fn wallet(server: &Server, token: &str) -> Wallet {
    Wallet::new(server.connect(), token.to_owned())
}

fn status_of(server: &Server, token: &str) -> u16 {
    wallet(server, token).get("/v1/balance?account=alice&asset=roc").status
}

/// Regular files that a process has open to write, but for where its log goes.
fn open_to_write(server: &Server) -> Vec<PathBuf> {
    let process = PathBuf::from(format!("/proc/{}", server.pid().as_raw_nonzero()));
    // What is closed while it is looked at was not open.
    let writes = |number: &str| {
        let Ok(info) = fs::read_to_string(process.join("fdinfo").join(number)) else { return false };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap() & 0b11 != 0
    };
    let numbers = fs::read_dir(process.join("fd")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let open: Vec<String> = numbers.filter(|number| writes(number)).collect();
    let files = open.into_iter().filter_map(|number| fs::read_link(process.join("fd").join(number)).ok());
    files.filter(|path| path.is_file() && path.file_name().is_some_and(|name| name != OF_THE_TEST[0])).collect()
}

/// A line of `/proc/PID/status`, in kB.
fn kilobytes(server: &Server, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Starts, load, repeats, refusals, reload, a snapshot that is asked for.
fn live(server: &mut Server, token: &str) {
    let mut wallet = wallet(server, token);
    wallet.issue("alice", 1_000);
    for nonce in 1..=200 {
        wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}")).ok();
    }
    assert!(wallet.spend("alice", "bob", 1, 7, "k-7").ok().replayed());
    wallet.spend("bob", "alice", 1_000, 1, "k-too-much").refused(409, "INSUFFICIENT_FUNDS");
    assert_eq!((wallet.balance("alice"), wallet.balance("bob")), (800, 200));
    server.signal(Signal::USR1);
    server.signal(Signal::HUP);
    eventually("the reload is told", || server.log().contains("registry_reloaded").then_some(()));
    server.metric_reaches("wallet_requests_total{op=\"transfer\"}", 1.0);
}

#[test]
fn a_whole_life_leaves_the_disk_as_it_was_and_a_second_one_knows_nothing_of_it() {
    let mut server = forgetful(&[]);
    let before = contents(server.directory());
    server.launch();
    let token = minted(&server);
    live(&mut server, &token);
    eventually("the snapshot is in memory", || server.log().contains("snapshot_taken").then_some(()));
    assert_eq!(open_to_write(&server), Vec::<PathBuf>::new());
    assert!(server.page("/version").ok().json()["features"].as_array().unwrap().contains(&"amnesia".into()));
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    assert_eq!(kilobytes(&server, "VmSwap"), 0);
    let has_swap = fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1;
    assert!(!has_swap || kilobytes(&server, "VmLck") > 0, "what could be swapped out is locked");
    let status = told(&server, "status");
    assert_eq!((&status["readiness"]["ready"], &status["asked"]), (&true.into(), &"unix:@./admin.sock".into()), "{status}");
    let exit = server.stop();
    assert!(!exit.log.contains(&token));
    assert_eq!(contents(server.directory()), before, "nothing was made, changed or removed");

    server.launch();
    assert_eq!(status_of(&server, &token), 401, "the key of the token went with the process");
    let token = minted(&server);
    let mut wallet = wallet(&server, &token);
    assert_eq!((wallet.balance("alice"), wallet.seq("alice").0), (0, 0), "the ledger as well");
    server.kill();
    assert_eq!(contents(server.directory()), before, "nor by a process that was killed");
}

#[test]
fn with_a_daemon_the_truth_stays_there_and_a_restart_comes_back_from_it_alone() {
    let daemon = Daemon::start();
    let mut server = forgetful(&[("deps.ledger_sock", &daemon.sock())]);
    let before = contents(server.directory());
    server.launch();
    let token = minted(&server);
    live(&mut server, &token);
    server.kill();
    server.launch();
    let token = minted(&server);
    let mut wallet = wallet(&server, &token);
    assert_eq!((wallet.balance("alice"), wallet.balance("bob"), wallet.seq("alice")), (800, 200, (200, 201)));
    assert!(wallet.spend("alice", "bob", 1, 9, "k-9").ok().replayed());
    assert_eq!(open_to_write(&server), Vec::<PathBuf>::new());
    server.stop();
    assert_eq!(contents(server.directory()), before);
}

#[test]
fn keys_rotate_in_memory_and_the_one_before_stays_valid_once() {
    let mut server = forgetful(&[]);
    server.launch();
    let first = minted(&server);
    assert_eq!(told(&server, "kms status --expect hybrid=off,kms=memory,version=1")["unmet"], Value::Array(Vec::new()));
    let rotated = told(&server, "kms rotate --hybrid on");
    assert_eq!((&rotated["hybrid"], &rotated["version"]), (&true.into(), &2.into()));
    let second = minted(&server);
    assert_eq!((status_of(&server, &first), status_of(&server, &second)), (200, 200));
    eventually("the posture is told", || (server.page("/version").ok().json()["pq"] == "hybrid").then_some(()));
    told(&server, "kms status --expect hybrid=on");
    told(&server, "kms rotate");
    eventually("two rotations end a key", || (status_of(&server, &first) == 401).then_some(()));
    assert_eq!(status_of(&server, &second), 200);
    for command in ["kms retire k-1", "kms seal", "kms rotate --add-only"] {
        assert!(refused(&server, command).contains("under security.amnesia"), "{command}");
    }
    assert!(refused(&server, "cap mint --subject x --scopes wallet:all --ttl 900s").contains("scopes"));
    assert!(!server.path("wallet.keyring").exists());
    server.stop();
    assert!(refused(&server, "cap mint --subject x --scopes wallet:* --ttl 900s").contains("admin.sock"));
}

#[test]
fn a_full_memory_refuses_writes_and_serves_reads() {
    let mut server = forgetful(&[("ledger.memory_max_bytes", "32MiB")]);
    server.launch();
    let token = minted(&server);
    let mut wallet = wallet(&server, &token);
    wallet.issue("alice", 1_000_000);
    let mut accepted = 0;
    let refused = (1..=50_000).find_map(|nonce| {
        let reply = wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}"));
        accepted += u64::from(reply.status == 200);
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.expect("the memory is bounded");
    assert_eq!(refused.status, 503, "{refused}");
    assert!(accepted > 1_000, "{accepted}");
    assert_eq!((wallet.balance("bob"), wallet.seq("alice").0), (u128::from(accepted), accepted));
    assert_eq!(server.page("/readyz").status, 503);
    assert!(kilobytes(&server, "VmRSS") < 512 << 10);
}

#[test]
fn what_contradicts_it_is_refused() {
    let mut server = forgetful(&[]);
    server.set("audit.sink", "file");
    server.set("security.kms", "env:KEY");
    let exit = server.launch_refused();
    assert_eq!(exit.status.code(), Some(2), "{}", exit.log);
    assert!(exit.log.contains("audit.sink") && exit.log.contains("security.kms"), "{}", exit.log);
}

#[test]
fn a_peer_gets_the_audit_stream_from_memory() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("peer.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = forgetful(&[("audit.sink", format!("unix://{}", path.display()).as_str())]);
    let before = contents(server.directory());
    server.launch();
    let token = minted(&server);
    let (mut peer, _) = listener.accept().unwrap();
    writeln!(peer, "0").unwrap();
    wallet(&server, &token).issue("alice", 1_000);
    let mut lines = BufReader::new(peer).lines().map(|line| line.unwrap());
    let accepted = lines.find(|line| line.contains("\"outcome\":\"accepted\"")).unwrap();
    assert!(accepted.contains("\"to\":\"alice\"") && !accepted.contains(&token), "{accepted}");
    drop(lines);
    server.stop();
    assert_eq!(contents(server.directory()), before);
}

#[test]
fn what_it_signs_can_be_checked_with_keys_that_were_exported_before_its_end() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("peer.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let sink = format!("unix://{}", path.display());
    let mut server = forgetful(&[("audit.sink", &sink), ("ledger.sign_roots_every", "1s")]);
    server.launch();
    let (mut peer, _) = listener.accept().unwrap();
    writeln!(peer, "0").unwrap();
    let (keys, stream) = (place.path().join("keys.json"), place.path().join("audit-0000000001.jsonl"));
    let mut kept = fs::File::create(&stream).unwrap();
    let copy = std::thread::spawn(move || std::io::copy(&mut peer, &mut kept).unwrap());

    let (keys, mut signers) = (keys.display(), Vec::new());
    for rotation in [None, Some("kms rotate --hybrid on"), Some("kms rotate")] {
        rotation.iter().for_each(|rotation| _ = told(&server, rotation));
        let mut wallet = wallet(&server, &minted(&server));
        let exported = ronctl(&server, &format!("kms export --out {keys}"));
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let active = told(&server, "kms status")["active"].as_str().unwrap().to_owned();
        let txid = wallet.issue(&active, 100).txid();
        let proof = eventually("the root is signed", || {
            let proof = wallet.get(&format!("/v1/tx/{txid}/proof")).ok();
            (!proof.json()["root"]["signatures"].as_array().unwrap().is_empty()).then_some(proof)
        });
        let file = place.path().join("proof.json");
        fs::write(&file, &proof.body).unwrap();
        let verdict = told(&server, &format!("proof verify --keys {keys} --proof {}", file.display()));
        assert_eq!((&verdict["proven"], &verdict["signed"][0]["key"]), (&true.into(), &active.as_str().into()), "{verdict}");
        let signed = format!("\"signature\":{{\"key\":\"{active}\"");
        signers.push((active, signed));
    }
    let (last, signed) = &signers[2];
    // An orderly end signs the last checkpoint, and gives it to the peer.
    server.stop();
    copy.join().unwrap();
    let lines = fs::read_to_string(&stream).unwrap();
    assert!(lines.contains(signed), "the last key has signed: {lines}");
    assert_eq!(lines.matches("\"event\":\"key_rotation\"").count(), 2);
    let user = format!("\"uid\":\"{}\"", rustix::process::geteuid().as_raw());
    let minted = |line: &&str| line.contains("\"event\":\"mint\",\"ok\":true,\"subject\":\"tests\"") && line.contains(&user);
    assert_eq!(lines.lines().filter(minted).count(), 3, "{lines}");
    assert_eq!(lines.lines().filter(|line| line.contains("\"activated\"") && line.contains(&user)).count(), 2, "{lines}");
    let directory = place.path().display();
    let report = told(&server, &format!("audit verify --dir {directory} --no-ledger --keys {keys}"));
    assert_eq!((&report["good"], &report["signatures"]["bad"]), (&true.into(), &0.into()), "{report}");
    assert_eq!(report["signatures"]["last"], report["checkpoint"], "{report}");
    // Without the key that signed last nobody can.
    let known: Value = serde_json::from_slice(&fs::read(place.path().join("keys.json")).unwrap()).unwrap();
    let others: Vec<&Value> = known["keys"].as_array().unwrap().iter().filter(|key| key["id"] != **last).collect();
    assert_eq!(others.len(), 2);
    let fewer = place.path().join("fewer.json");
    fs::write(&fewer, serde_json::json!({"version": 1, "keys": others}).to_string()).unwrap();
    let done = ronctl(&server, &format!("audit verify --dir {directory} --no-ledger --keys {}", fewer.display()));
    assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn other_users_get_nothing_from_an_admin_socket_without_a_file() {
    if !rustix::process::geteuid().is_root() {
        println!("LEFT OUT: becoming another user takes root");
        return;
    }
    let mut server = forgetful(&[]);
    server.launch();
    let name = SocketAddr::from_abstract_name(server.path("admin.sock").as_os_str().as_encoded_bytes()).unwrap();
    let ask = |name: &SocketAddr| {
        let mut socket = UnixStream::connect_addr(name).unwrap();
        let _ = socket.write_all(b"POST /keys HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
        let mut told = String::new();
        let _ = socket.read_to_string(&mut told);
        told
    };
    assert!(ask(&name).contains("\"active\""), "the owner is answered");
    let asked = std::thread::spawn(move || {
        let stranger = rustix::fs::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(stranger, stranger, stranger).unwrap();
        ask(&name)
    });
    assert_eq!(asked.join().unwrap(), "");
    eventually("the refusal in the log", || server.log().contains("admin_refused").then_some(()));
    assert_eq!(told(&server, "kms status")["version"], 1, "and the socket serves its owner");
}
