//! The audit stream from the outside, with the real binaries: what is spent and refused stands in it, over a SIGKILL as well; what it
//! counts is what the ledger has; so does what is done to the service, and by whom; a disk that takes nothing stops no spend; a peer behind a socket gets every line once.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
mod support;

use rustix::process::{kill_process, Pid, Signal};
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use support::{eventually, Server};

const HEIGHT: &str = "wallet_audit_stream_height";

/// `ronctl --json audit` with these arguments, about this server's files.
fn audit(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.arg("--json").arg("--config").arg(server.path("svc-wallet.toml")).arg("audit").args(arguments);
    command.current_dir(server.directory()).stdin(Stdio::null()).output().unwrap()
}

/// The verdict of `ronctl audit verify`, which must be this one.
fn verified(server: &Server, good: bool) -> Value {
    let ledger = server.path("ledger");
    let done = audit(server, &["verify", "--up-to-date", "--ledger", ledger.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(if good { 0 } else { 1 }), "{said}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The lines that a search finds.
fn found(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let done = audit(server, &[&["search"][..], arguments].concat());
    let lines: Vec<Value> = done
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(done.status.code(), Some(if lines.is_empty() { 1 } else { 0 }), "{}", String::from_utf8_lossy(&done.stderr));
    lines
}

/// Everything in the files of the stream.
fn text(server: &Server) -> String {
    let mut text = String::new();
    for file in std::fs::read_dir(server.path("audit")).unwrap().map(|file| file.unwrap()) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        text += &std::fs::read_to_string(file.path()).unwrap();
    }
    text
}

#[test]
fn spends_and_refusals_stand_in_the_stream_over_a_sigkill_and_as_many_as_in_the_ledger() {
    let mut server = Server::start();
    let (mut wallet, mut nonce) = (server.wallet(), 0);
    wallet.issue("alice", 1_000_000);
    let mut spend = |wallet: &mut support::Wallet, count: u64| {
        for _ in 0..count {
            nonce += 1;
            wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}")).ok();
        }
        nonce
    };
    spend(&mut wallet, 50);
    wallet.spend("alice", "bob", 1, 7_000, "k-conflict").refused(409, "NONCE_CONFLICT");
    wallet.spend("bob", "alice", 1_000_000, 1, "k-funds").refused(409, "INSUFFICIENT_FUNDS");
    let narrow = server.mint(|wanted| {
        wanted.subject = "till \"3\"".to_owned();
        wanted.accounts = vec!["till:*".to_owned()];
    });
    support::Wallet::new(server.connect(), narrow.clone()).spend("alice", "bob", 1, 51, "k-narrow").refused(403, "FORBIDDEN");
    let expired = server.mint_expired();
    support::Wallet::new(server.connect(), expired.clone())
        .spend("alice", "bob", 1, 51, "k-expired")
        .refused(401, "UNAUTHORIZED");
    support::Wallet::new(server.connect(), "nonsense".to_owned())
        .spend("alice", "bob", 1, 51, "k-foreign")
        .refused(401, "UNAUTHORIZED");
    wallet.balance("alice");
    assert!(wallet.spend("alice", "bob", 1, 50, "k-50").ok().replayed(), "a repeat is no operation");
    server.metric_reaches(HEIGHT, 51.0);
    eventually("the refusals are written", || (text(&server).matches("\"outcome\":\"refused\"").count() == 5).then_some(()));
    // Whatever of these the stream has at the SIGKILL.
    let nonce_at_kill = spend(&mut wallet, 200);
    server.crash_and_restart();
    let mut wallet = server.wallet();
    assert_eq!(wallet.seq("alice").0, nonce_at_kill);
    spend(&mut wallet, 25);
    server.signal(Signal::HUP);
    let reloads = || text(&server).matches("\"event\":\"reload\",\"ok\":true").count();
    eventually("policy, topology and keyring are told", || (reloads() == 3).then_some(()));
    server.stop();

    let report = verified(&server, true);
    assert_eq!((&report["accepted"], &report["ledger"]["equal"], &report["through"]), (&276.into(), &276.into(), &276.into()));
    assert_eq!((&report["refused"], &report["dropped"], &report["ledger"]["behind"]), (&5.into(), &0.into(), &0.into()));
    assert_eq!(report["checkpoint"]["through"], 276);
    let text = text(&server);
    for secret in [server.token(), &narrow, &expired, "nonsense"] {
        assert!(!text.contains(secret));
    }
    assert_eq!(std::fs::metadata(server.path("audit")).unwrap().permissions().mode() & 0o777, 0o700);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = events.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["start", "start", "reload", "reload", "reload", "stop"], "a crash is a start without a stop before it");

    let refused = found(&server, &["--outcome", "refused", "--account", "alice"]);
    let mut told: Vec<_> = refused
        .iter()
        .map(|line| [&line["code"], &line["reason"], &line["subject"]].map(|member| member.as_str().unwrap()))
        .collect();
    assert!(refused.iter().all(|line| line["policy_version"].is_u64()), "{refused:?}");
    // They come from the cores that have refused them, in any order.
    told.sort_unstable();
    let expected =
        [["FORBIDDEN", "cap", "till \"3\""], ["INSUFFICIENT_FUNDS", "funds", "tests"], ["NONCE_CONFLICT", "conflict", "tests"]];
    assert_eq!(told, expected, "those whose bodies were read");
    let unread = found(&server, &["--outcome", "refused", "--subject", "tests"]);
    assert_eq!(unread.iter().filter(|line| line["code"] == "UNAUTHORIZED" && line["from"].is_null()).count(), 1, "{unread:?}");
    let accepted = found(&server, &["--outcome", "accepted", "--subject", "tests"]);
    assert_eq!(accepted.len(), 276, "whose each operation is was known, over the crash as well");
    let one = &accepted[7];
    let [txid, corr] = ["txid", "corr_id"].map(|member| one[member].as_str().unwrap());
    assert_eq!(found(&server, &["--txid", txid]), found(&server, &["--corr-id", corr]));
    assert_eq!(found(&server, &["--txid", txid]), std::slice::from_ref(one));
    assert!(found(&server, &["--subject", "nobody"]).is_empty());

    // A hand in the files, and the operator is told where. Refused lines may stand before the first that was accepted.
    let file = server.path("audit/audit-0000000001.jsonl");
    let written = std::fs::read_to_string(&file).unwrap();
    let spend = written.lines().find(|line| line.contains("\"accepted\"") && line.contains("\"amount_minor\":\"1\"")).unwrap();
    let forged = spend.replacen("\"amount_minor\":\"1\"", "\"amount_minor\":\"9\"", 1);
    std::fs::write(&file, written.replacen(spend, &forged, 1)).unwrap();
    let report = verified(&server, false);
    assert!(report["damages"][0]["what"].as_str().unwrap().contains("its hash does not fit"), "{report}");
    assert_eq!(report["ledger"]["differing"], 1, "{report}");
    server.launch();
    eventually("it goes on in a new file", || server.path("audit/audit-0000000002.jsonl").exists().then_some(()));
    server.stop();
    assert!(server.log().contains("audit_damaged"), "{}", server.log());
}

/// The control events so far, each without the members that every line has.
fn events(server: &Server) -> Vec<Value> {
    let of_event = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|line| line["kind"] == "event");
    let mut events: Vec<Value> = text(server).lines().filter_map(of_event).collect();
    for event in &mut events {
        let members = event.as_object_mut().unwrap();
        members.retain(|name, _| !["v", "n", "ts", "kind", "hash"].contains(&name.as_str()));
    }
    events
}

#[test]
fn what_is_done_to_the_service_stands_there_with_its_subject_and_whoever_asked_for_it() {
    let mut server = Server::start();
    let uid = rustix::process::geteuid().as_raw().to_string();
    let told = |event: Value| {
        eventually(&format!("{event} is told"), || events(&server).into_iter().find(|found| *found == event));
    };
    let revocation = |change: &str, what: &str, name: &str| json!({"event": "revocation", "ok": true, "change": change, "what": what, "name": name});
    let token = "00112233445566778899aabbccddeeff";
    server.ronctl_text(&format!("cap revoke --token-id {token}"));
    told(revocation("revoked", "token", token));
    server.ronctl_text("cap revoke --subject eve");
    told(revocation("revoked", "subject", "eve"));
    server.ronctl_text("cap revoke --undo --subject eve");
    told(revocation("taken_back", "subject", "eve"));
    server.ronctl_text("policy reload");
    told(json!({"event": "reload", "ok": true, "what": "policy", "version": "3", "before": "3", "uid": uid}));
    server.ronctl_text("accounting flush");
    told(json!({"event": "counters", "ok": true, "what": "flush", "uid": uid}));
    let first = events(&server)[0].clone();
    let old = first["active"].as_str().unwrap().to_owned();
    server.ronctl_text("kms rotate");
    let find =
        |of: &dyn Fn(&Value) -> bool| eventually("the rotation is told", || events(&server).into_iter().find(|event| of(event)));
    let added = find(&|event| event["added"].is_string());
    let fresh = added["added"].as_str().unwrap().to_owned();
    server.ronctl_text(&format!("kms retire {old}"));
    let retired = find(&|event| event["retired"].is_string());
    assert_eq!((&retired["retired"], &retired["active"]), (&json!(old), &json!(fresh)), "{retired}");
    assert_eq!((&retired["hybrid"], &retired["sealing"], &retired["uid"]), (&json!("off"), &json!("sealed"), &Value::Null));
    assert!(events(&server).iter().any(|event| event["activated"] == *fresh));

    // What a start finds in force is told: what was changed while nothing ran shows by comparison.
    let list = |events: &[Value]| events.iter().rev().find(|event| event["digest"].is_string()).cloned().unwrap();
    let last = list(&events(&server));
    assert_eq!((&last["entries"], &last["taken_back"]), (&json!("1"), &json!("1")), "{last}");
    let start = |server: &Server, number: usize| {
        let starts = || events(server).into_iter().filter(|event| event["event"] == "start").collect::<Vec<_>>();
        eventually("the start is told", || starts().get(number).cloned())
    };
    server.stop();
    server.launch();
    let unchanged = start(&server, 1);
    assert_eq!((&unchanged["revocations"], &unchanged["revocations_digest"]), (&json!("1"), &last["digest"]), "{unchanged}");
    assert_eq!((&unchanged["keyring_version"], &unchanged["keys"]), (&retired["version"], &json!(fresh)), "{unchanged}");
    assert_eq!(unchanged["policy_version"], "3");
    server.stop();
    server.ronctl_text("cap revoke --subject mallory");
    server.launch();
    let changed = start(&server, 2);
    assert_eq!(changed["revocations"], "2");
    assert_ne!(changed["revocations_digest"], unchanged["revocations_digest"]);
}

#[test]
fn a_disk_that_takes_nothing_stops_no_spend_and_is_caught_up_with() {
    let mut server = Server::prepared(&[]);
    std::fs::create_dir(server.path("audit")).unwrap();
    let file = server.path("audit/audit-0000000001.jsonl");
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    server.launch();
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    for nonce in 1..=20 {
        wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}")).ok();
    }
    let ready = eventually("readiness tells it to the operator", || {
        let page = server.page("/readyz").ok();
        page.json()["audit"].as_str().map(str::to_owned)
    });
    assert!(ready.contains("cannot append to the stream"), "{ready}");
    assert!(wallet.get("/readyz").ok().json()["audit"].is_null(), "and to nobody else");
    server.metric_reaches("wallet_audit_stream_failures_total", 2.0);
    server.metric_reaches("wallet_audit_stream_lag_seconds", 0.1);
    server.stop();
    std::fs::remove_file(&file).unwrap();
    server.launch();
    server.metric_reaches(HEIGHT, 21.0);
    server.stop();
    let report = verified(&server, true);
    assert_eq!((&report["ledger"]["equal"], &report["accepted"]), (&21.into(), &21.into()));
}

#[test]
fn a_peer_gets_every_line_once_however_often_it_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("peer.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = Server::with(&[("audit.sink", format!("unix://{}", path.display()).as_str())]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    let mut got: Vec<String> = Vec::new();
    for nonce in 1..=3 {
        let (mut peer, _) = listener.accept().unwrap();
        writeln!(peer, "{}", got.len()).unwrap();
        wallet.spend("alice", "bob", 1, nonce, &format!("k-{nonce}")).ok();
        let mut lines = BufReader::new(peer);
        let wanted = format!("\"seq\":{},", nonce + 1);
        while !got.last().is_some_and(|line| line.contains(&wanted)) {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the connection holds");
            got.push(line);
        }
    }
    let numbers: Vec<u64> = got.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=got.len() as u64).collect::<Vec<_>>());
    assert!(text(&server).starts_with(&got.concat()), "as they stand in the file");
    drop(listener);
    server.stop();
    verified(&server, true);

    // Moved aside, the stream begins anew, and so do its numbers: a peer that says which line it has gets what it does not know.
    std::fs::rename(server.path("audit"), server.path("audit.before")).unwrap();
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    server.launch();
    let (mut peer, _) = listener.accept().unwrap();
    let last: Value = serde_json::from_str(&got[0]).unwrap();
    writeln!(peer, "1 {}", last["hash"].as_str().unwrap()).unwrap();
    let mut line = String::new();
    BufReader::new(peer).read_line(&mut line).unwrap();
    assert!(line.contains("\"n\":1,") && line != got[0], "{line}");
    drop(listener);
    server.stop();
    assert!(server.log().contains("audit_peer_apart"), "{}", server.log());
}

#[test]
fn the_tail_shows_the_last_lines_and_those_that_come() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000);
    server.metric_reaches(HEIGHT, 1.0);
    let mut tail = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    tail.args(["--json", "audit", "tail", "--lines", "1", "--follow", "--dir"]).arg(server.path("audit"));
    let mut tail = tail.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines =
        BufReader::new(tail.stdout.take().unwrap()).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let last = lines.next().unwrap()["n"].as_u64().unwrap();
    wallet.spend("alice", "bob", 5, 1, "k-1").ok();
    let came = lines.find(|line| line["seq"] == 2).unwrap();
    assert!(came["n"].as_u64().unwrap() > last && came["to"] == "bob");
    kill_process(Pid::from_child(&tail), Signal::KILL).unwrap();
    tail.wait().unwrap();
}

#[test]
fn without_a_sink_there_is_no_stream() {
    let mut server = Server::with(&[("audit.sink", "off")]);
    server.wallet().issue("alice", 1_000);
    server.stop();
    assert!(!server.path("audit").exists());
    let done = audit(&server, &["verify", "--dir", "./audit"]);
    assert_eq!(done.status.code(), Some(2), "{}", String::from_utf8_lossy(&done.stderr));
}
