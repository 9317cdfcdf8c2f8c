//! `ronctl migrate` on the files of a real service that were set back to older versions: dry run, backups, the steps, and a server that goes on
//! with what came of them; and what it refuses and tells of newer and of damaged files.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{body, eventually, Daemon, Server};

const BLOCK: usize = 4096;
const INDEX: &str = "ledger/index-0000000001.idx";

/// A server with its ledger in its own process, on whatever else the tests run.
fn service() -> Server {
    Server::with(&[("deps.ledger_sock", "embedded:./ledger"), ("runtime.cores", "1")])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The exit code, and what is told of each file.
fn migrate(server: &Server, arguments: &str) -> (Option<i32>, Vec<Value>) {
    let output = server.ronctl(&format!("--json migrate svc-wallet{arguments}"));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (output.status.code(), value["files"].as_array().unwrap().clone())
}

fn of<'t>(files: &'t [Value], name: &str) -> &'t Value {
    files.iter().find(|file| file["file"].as_str().unwrap().ends_with(name)).unwrap_or_else(|| panic!("{name}: {files:?}"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Changes the head block of a file of the ledger, and makes its hash fit again.
fn rehead(path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes[..BLOCK]);
    let hash = *blake3::hash(&bytes[..BLOCK - 32]).as_bytes();
    bytes[BLOCK - 32..BLOCK].copy_from_slice(&hash);
    fs::write(path, bytes).unwrap();
}

/// An index file as version 1 had it: another magic number, and debits alone.
fn index_before(path: &Path) {
    rehead(path, |head| {
        head[..8].copy_from_slice(b"RONDEBIT");
        head[8..12].copy_from_slice(&1u32.to_le_bytes());
        head[64..BLOCK - 32].fill(0);
    });
}

/// A keyring as earlier versions had it, in the clear, from the golden vectors.
fn clear_keyring() -> String {
    let vectors: Value = serde_json::from_str(include_str!("vectors/keyring.json")).unwrap();
    let file = &vectors["files"][0];
    assert_eq!(file["sealing"], "clear");
    file["file"].to_string()
}

/// Fills the first segment, so that it is sealed and indexed, and returns the txid of an entry in it.
fn fill(server: &Server) -> String {
    let mut wallet = server.wallet();
    let first = wallet.issue("a", 1_000_000).txid();
    let (to, memo) = ("b".repeat(256), "m".repeat(256));
    let mut nonce = 0;
    while !server.segment(3).exists() {
        let spend = |nonce: u64| {
            let body = body("a", &to, 1, nonce).replace('}', &format!(r#","memo":"{memo}"}}"#));
            wallet.write("/v1/transfer", &format!("k-{nonce}"), &body).bytes()
        };
        let requests: Vec<u8> = (nonce + 1..=nonce + 64).flat_map(spend).collect();
        nonce += 64;
        wallet.client.send(requests);
        wallet.client.replies(64).into_iter().for_each(|reply| drop(reply.ok()));
    }
    first
}

#[test]
fn older_files_are_migrated_with_backups_and_a_server_goes_on_with_them() {
    let mut server = service();
    let txid = fill(&server);
    let index = server.path(INDEX);
    eventually("the first segment is indexed", || index.exists().then_some(()));
    let receipt = server.wallet().tx(&txid).ok().body;
    let busy = server.ronctl("migrate svc-wallet");
    assert_eq!((busy.status.code(), text(&busy.stdout)), (Some(4), String::new()));
    let said = text(&busy.stderr);
    assert!(said.contains("svc-wallet runs") && said.contains("nothing was changed") && said.contains("next: stop it"), "{said}");
    assert_eq!(migrate(&server, " --dry-run").0, Some(0), "a look is possible beside a server");
    assert!(server.stop().status.success());

    // All of it is of this version.
    let (code, files) = migrate(&server, "");
    assert_eq!(code, Some(0), "{files:?}");
    for (name, version) in [
        ("svc-wallet.toml", None),
        ("policy.json", Some(1)),
        ("registry.json", None),
        ("wallet.keyring", Some(2)),
        ("counters.jsonl", Some(1)),
        ("audit-0000000001.jsonl", Some(1)),
        ("segment-0000000001.log", Some(1)),
        (INDEX, Some(2)),
        ("ledger/epoch", Some(1)),
        ("ledger/witness", Some(1)),
        ("ledger/history.mmr", Some(1)),
    ] {
        let told = of(&files, name);
        assert_eq!(
            (&told["state"], told["version"].as_u64(), &told["migrated"]),
            (&"current".into(), version, &false.into()),
            "{told}"
        );
    }
    let snapshot = files.iter().find(|file| file["kind"] == "snapshot").expect("an orderly end takes a snapshot");
    assert_eq!((&snapshot["state"], &snapshot["version"]), (&"current".into(), &1.into()));
    assert!(text(&server.ronctl("migrate svc-wallet").stdout).ends_with("\nnothing to migrate\n"));

    // Set back: the index of the first segment, and the keyring.
    let made_by_the_server = fs::read(&index).unwrap();
    index_before(&index);
    let keyring = server.path("wallet.keyring");
    fs::write(&keyring, clear_keyring()).unwrap();
    let before = [fs::read(&index).unwrap(), fs::read(&keyring).unwrap()];
    let listed = |place: &Path| {
        let mut names: Vec<PathBuf> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let names = [server.path("."), server.path("ledger")].map(|place| listed(&place));
    let (code, files) = migrate(&server, " --dry-run");
    assert_eq!(code, Some(0), "{files:?}");
    for (name, does) in [(INDEX, "make it anew from its segment"), ("wallet.keyring", "seal it under")] {
        let told = of(&files, name);
        assert_eq!((&told["state"], &told["version"], &told["migrated"]), (&"older".into(), &1.into(), &false.into()), "{told}");
        assert!(told["told"].as_str().unwrap().starts_with(&format!("version 1, would be brought to 2: {does}")), "{told}");
    }
    assert_eq!([fs::read(&index).unwrap(), fs::read(&keyring).unwrap()], before, "a dry run changes nothing");
    assert_eq!([server.path("."), server.path("ledger")].map(|place| listed(&place)), names, "and makes nothing");

    let (code, files) = migrate(&server, "");
    assert_eq!(code, Some(0), "{files:?}");
    for (name, before) in [INDEX, "wallet.keyring"].iter().zip(&before) {
        let told = of(&files, name);
        assert_eq!((&told["migrated"], told["backups"].as_array().unwrap().len()), (&true.into(), 1), "{told}");
        let backup = PathBuf::from(told["backups"][0].as_str().unwrap());
        assert!(backup.ends_with(format!("{name}.v1.bak")), "{backup:?}");
        assert_eq!((&fs::read(&backup).unwrap(), mode(&backup)), (before, 0o600));
    }
    assert!(fs::read(&index).unwrap() == made_by_the_server, "the same bytes as a server makes");
    assert_eq!((mode(&index), mode(&keyring)), (0o600, 0o600));
    assert!(!text(&fs::read(&keyring).unwrap()).contains("secret"));
    assert_eq!(of(&migrate(&server, "").1, "wallet.keyring")["state"], "current", "a second run has nothing to do");

    // What earlier versions have signed is still good, and the index leads to what it led to.
    let status: Value = serde_json::from_slice(&server.ronctl("--json kms status").stdout).unwrap();
    assert_eq!(status["active"], "k-00000001", "{status}");
    server.launch();
    let token = text(&server.ronctl("cap mint --subject a --scopes wallet:* --ttl 900s").stdout);
    let mut client = server.connect();
    let reply = client.call(&support::request("GET", &format!("/v1/tx/{txid}")).token(token.trim())).ok();
    assert_eq!(reply.body, receipt);
    assert!(!server.log().contains("making the index of a segment"), "{}", server.log());
}

#[test]
fn newer_files_end_it_before_anything_is_changed_and_damaged_ones_are_told() {
    let mut server = service();
    server.wallet().issue("a", 10);
    assert!(server.stop().status.success());
    let keyring = server.path("wallet.keyring");
    fs::write(&keyring, clear_keyring()).unwrap();
    let damaged = |told: &Value| (told["state"].as_str().unwrap().to_owned(), told["told"].as_str().unwrap().to_owned());
    let newest = fs::read_dir(server.path("ledger")).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = newest.filter(|path| path.display().to_string().contains("snapshot")).max().unwrap();
    let snapshot_name = snapshot.file_name().unwrap().to_str().unwrap().to_owned();
    let revocations = server.path("wallet.revocations");
    let (history, audit) = (server.path("ledger/history.mmr"), server.path("audit/audit-0000000001.jsonl"));
    let newer = |path: &Path| rehead(path, |head| head[8..12].copy_from_slice(&9u32.to_le_bytes()));
    type Change<'c> = &'c dyn Fn(&Path);
    let line = |path: &Path| fs::write(path, fs::read_to_string(path).unwrap().replacen("{\"v\":1", "{\"v\":9", 1)).unwrap();
    let json = |path: &Path| fs::write(path, r#"{"version":9,"revocations":[],"check":""}"#).unwrap();
    let keys = |path: &Path| fs::write(path, r#"{"version":9}"#).unwrap();
    let policy = server.path("policy.json");
    let form = |path: &Path| fs::write(path, r#"{"form":9,"version":1,"rules":[]}"#).unwrap();
    let cases: [(&Path, &str, u64, Change<'_>); 6] = [
        (&snapshot, &snapshot_name, 2, &newer),
        (&history, "history.mmr", 1, &newer),
        (&audit, "audit-0000000001.jsonl", 1, &line),
        (&revocations, "wallet.revocations", 1, &json),
        (&keyring, "wallet.keyring", 2, &keys),
        (&policy, "policy.json", 1, &form),
    ];
    for (path, name, read, change) in cases {
        let before = fs::read(path).ok();
        change(path);
        let (changed, keys) = (fs::read(path).unwrap(), fs::read(&keyring).unwrap());
        let output = server.ronctl("migrate svc-wallet");
        let (told, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{name}: {told}{said}");
        assert!(
            told.contains(&format!("{name}: version 9 is newer than {read}, the newest that is read here")),
            "{name}: {told}"
        );
        assert!(said.contains("nothing was changed: a later version has written") && said.contains(name), "{said}");
        assert!(said.contains("next: use the programs of the version that wrote them"), "{said}");
        assert_eq!((fs::read(path).unwrap(), fs::read(&keyring).unwrap()), (changed, keys), "{name}");
        assert!(!server.path("wallet.keyring.v1.bak").exists());
        assert_eq!(migrate(&server, " --dry-run").0, Some(1), "{name}");
        match before {
            Some(before) => fs::write(path, before).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }
    // Damaged files are told; what can be migrated is.
    fs::write(&policy, "{").unwrap();
    let mut bytes = fs::read(&snapshot).unwrap();
    bytes[100] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    let (code, files) = migrate(&server, "");
    assert_eq!(code, Some(1));
    assert_eq!(damaged(of(&files, &snapshot_name)), ("damaged".into(), "damaged: its head does not match its hash".into()));
    assert!(damaged(of(&files, "policy.json")).1.contains("policy.json"), "{files:?}");
    assert_eq!(of(&files, "wallet.keyring")["migrated"], true);
}

#[test]
fn an_index_whose_segment_is_not_there_is_left_as_it_is() {
    let mut server = service();
    fill(&server);
    let index = server.path(INDEX);
    eventually("the first segment is indexed", || index.exists().then_some(()));
    assert!(server.stop().status.success());
    index_before(&index);
    let before = fs::read(&index).unwrap();
    fs::rename(server.segment(1), server.path("archived")).unwrap();
    let (code, files) = migrate(&server, "");
    let told = of(&files, INDEX);
    assert_eq!((code, &told["migrated"]), (Some(1), &false.into()), "{told}");
    assert!(told["told"].as_str().unwrap().contains("segment-0000000001.log is not here"), "{told}");
    assert_eq!(fs::read(&index).unwrap(), before);
    fs::rename(server.path("archived"), server.segment(1)).unwrap();
    let (code, files) = migrate(&server, "");
    assert_eq!((code, &of(&files, INDEX)["migrated"]), (Some(0), &true.into()), "{files:?}");
}

#[test]
fn the_ledger_of_a_daemon_is_left_out_until_its_directory_is_named() {
    let mut daemon = Daemon::start();
    let mut server = Server::with(&[("deps.ledger_sock", &daemon.sock())]);
    server.wallet().issue("a", 10);
    assert!(server.stop().status.success());
    let configuration = fs::read_to_string(server.path("svc-wallet.toml")).unwrap();
    fs::write(server.path("svc-wallet.toml"), configuration.replace("embedded:./ledger", &daemon.sock())).unwrap();
    let busy = server.ronctl("migrate svc-wallet");
    let said = text(&busy.stderr);
    assert!(busy.status.code() == Some(4) && said.contains("ron-ledger runs: it answers at unix://"), "{said}");
    daemon.stop();
    let output = server.ronctl("migrate svc-wallet");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.ends_with("was left out: name its directory with --ledger-dir\n") && !told.contains("segment-"), "{told}");
    let named = format!(" --ledger-dir {}", daemon.path("ledger").display());
    let (code, files) = migrate(&server, &named);
    assert_eq!((code, &of(&files, "segment-0000000001.log")["state"]), (Some(0), &"current".into()), "{files:?}");
    // A daemon without a socket that is known here is noticed by its lock.
    daemon.launch();
    let config = fs::read_to_string(server.path("svc-wallet.toml")).unwrap();
    fs::write(server.path("svc-wallet.toml"), config.replace(&daemon.sock(), "unix:///nonexistent/ledger.sock")).unwrap();
    let busy = server.ronctl(&format!("migrate svc-wallet{named}"));
    let said = text(&busy.stderr);
    assert!(busy.status.code() == Some(4) && said.contains("in use by ron-ledger"), "{said}");
}

#[test]
fn another_service_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_ronctl")).args(["migrate", "svc-rewarder"]).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("svc-rewarder is not known here"), "{}", text(&output.stderr));
}
