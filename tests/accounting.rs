//! The counters behind `ron-accounting`, and the operator's commands for them, from the outside: each entry is counted once whoever is
//! killed, a daemon that is away costs readiness alone, and counters that were forced apart are found and counted anew.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{eventually, Accounting, Server, PATIENCE};

fn ronctl(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args(arguments).current_dir(server.directory()).env_clear().stdin(Stdio::null());
    command.env("RON_CONFIG", server.path("svc-wallet.toml"));
    command.envs(server.setting("deps.accounting_sock").map(|sock| ("ACCOUNTING_SOCK", sock)));
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The JSON of a command that ends with this code.
fn json_of(server: &Server, code: i32, arguments: &[&str]) -> Value {
    let output = ronctl(server, &[&["--json", "accounting"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", told(&output)))
}

/// What is counted, and through which entry.
fn counted(server: &Server) -> (u64, Value) {
    let shown = json_of(server, 0, &["show"]);
    (shown["through"].as_u64().unwrap(), shown["flows"].clone())
}

fn flow(account: &str, op: &str, side: &str, entries: u64, amount: u64) -> Value {
    json!({"account": account, "asset": "roc", "op": op, "side": side, "entries": entries, "amount_minor": amount.to_string()})
}

fn is_ready(server: &Server) {
    eventually("the server is ready", || (server.page("/readyz").status == 200).then_some(()));
}

fn lacks_counters(server: &Server) -> Value {
    eventually("the counters are missed", || {
        let ready = server.page("/readyz").json();
        (ready["missing"] == json!(["accounting"])).then_some(ready)
    })
}

#[test]
fn each_entry_is_counted_once_whoever_is_killed() {
    let mut accounting = Accounting::start();
    let mut server = Server::with(&[("deps.accounting_sock", &accounting.sock())]);
    server.wallet().issue("a", 1_000_000);
    let mut nonce = 0;
    for round in 0..6 {
        let mut wallet = server.wallet();
        for _ in 0..20 {
            nonce += 1;
            wallet.spend("a", "b", 7, nonce, &format!("k-{nonce}")).ok();
        }
        // In the middle of a flush, before it, or behind it.
        let flush = std::thread::scope(|scope| {
            let flushing = scope.spawn(|| ronctl(&server, &["accounting", "flush"]));
            std::thread::sleep(std::time::Duration::from_millis(3 * round));
            match round % 2 {
                0 => accounting.kill(),
                _ => rustix::process::kill_process(server.pid(), Signal::KILL).unwrap(),
            }
            flushing.join().unwrap()
        });
        assert!([0, 1, 3, 4].contains(&flush.status.code().unwrap()), "{}", told(&flush));
        match round % 2 {
            0 => accounting.launch(),
            _ => {
                server.wait_exit();
                server.launch();
            }
        }
    }
    is_ready(&server);
    json_of(&server, 0, &["flush"]);
    let expected = [
        flow("a", "issue", "credit", 1, 1_000_000),
        flow("a", "transfer", "debit", 120, 840),
        flow("b", "transfer", "credit", 120, 840),
    ];
    assert_eq!(counted(&server), (121, json!(expected)));
    for arguments in [&["reconcile"][..], &["reconcile", "--entries"]] {
        let compared = json_of(&server, 0, arguments);
        assert_eq!((&compared["differences"], &compared["through"]), (&json!([]), &json!(121)), "{compared}");
    }
    let people = ronctl(&server, &["accounting", "show", "--account", "b"]);
    assert!(told(&people).contains("entries 1 to 121") && !told(&people).contains("issue"), "{}", told(&people));
    // An orderly end of the wallet counts what is left.
    server.wallet().issue("c", 5);
    server.stop();
    server.launch();
    assert_eq!(counted(&server).0, 122);
    accounting.stop();
}

#[test]
fn a_daemon_that_is_away_costs_readiness_alone_and_only_until_it_is_back() {
    let mut accounting = Accounting::prepared(&[]);
    let mut server = Server::prepared(&[("deps.accounting_sock", &accounting.sock())]);
    server.launch_unready();
    lacks_counters(&server);
    server.wallet().issue("a", 100);
    accounting.launch();
    is_ready(&server);

    accounting.kill();
    let ready = lacks_counters(&server);
    assert_eq!((&ready["writes"], &ready["reads"]), (&json!(true), &json!(true)), "{ready}");
    let mut wallet = server.wallet();
    wallet.spend("a", "b", 40, 1, "one").ok();
    assert_eq!(wallet.balance("b"), 40);
    let refused = ronctl(&server, &["accounting", "flush"]);
    assert!(refused.status.code() == Some(4) && told(&refused).contains("ron-accounting behind unix://"), "{}", told(&refused));
    let refused = ronctl(&server, &["accounting", "show"]);
    assert!(refused.status.code() == Some(3) && told(&refused).contains("start ron-accounting"), "{}", told(&refused));
    eventually("it is told", || server.log().contains("\"event\":\"accounting_lost\"").then_some(()));
    accounting.launch();
    is_ready(&server);
    eventually("it is told", || server.log().contains("\"event\":\"accounting_goes_on\"").then_some(()));

    // One that is there and does not answer is missed as well.
    accounting.pause();
    let ready = lacks_counters(&server);
    assert!(ready["reasons"]["accounting"].as_str().unwrap().contains("does not answer within"), "{ready}");
    wallet.spend("a", "b", 40, 2, "two").ok();
    accounting.signal(Signal::CONT);
    is_ready(&server);
    json_of(&server, 0, &["flush"]);
    assert_eq!(counted(&server).0, 3);
}

/// Writes a line anew with another amount, and the check value that belongs to it: damage that only the ledger tells.
fn forge(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let content = line.split(",\"check\":").next().unwrap().replace(from, to);
            let check: String =
                blake3::hash(content.as_bytes()).as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{content},\"check\":\"{check}\"}}\n")
        })
        .collect();
    let forged = lines.concat();
    assert_ne!(forged, text);
    std::fs::write(path, forged).unwrap();
}

/// Counters are forced apart, found, and counted anew. `stop` and `start` are around the forgery.
fn drift(server: &mut Server, file: impl Fn(&Server) -> PathBuf, around: &mut dyn FnMut(&mut Server, bool)) {
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    wallet.spend("a", "b", 30, 1, "one").ok();
    json_of(server, 0, &["flush"]);
    json_of(server, 0, &["reconcile"]);
    let before = counted(server);

    around(server, true);
    forge(&file(server), "\"b\",\"roc\",\"transfer\",\"credit\",1,\"30\"", "\"b\",\"roc\",\"transfer\",\"credit\",1,\"31\"");
    around(server, false);
    let snapshot = ronctl(server, &["ledger", "snapshot", "--out", "ledger.snap"]);
    assert!(snapshot.status.success(), "{}", told(&snapshot));
    for arguments in [&["reconcile"][..], &["reconcile", "--snapshot", "ledger.snap"], &["reconcile", "--entries"]] {
        let found = json_of(server, 1, arguments);
        let [difference] = &found["differences"].as_array().unwrap()[..] else { panic!("{found}") };
        assert_eq!(
            (&difference["account"], &difference["counted"], &difference["ledger"]),
            (&json!("b"), &json!("31"), &json!("30"))
        );
    }
    let people = ronctl(server, &["accounting", "reconcile"]);
    assert!(told(&people).contains("1 difference to the"), "{}", told(&people));

    // Spends go on, and what they do is counted as well.
    server.wallet().spend("a", "b", 5, 2, "two").ok();
    let repaired = json_of(server, 0, &["reconcile", "--repair"]);
    assert_eq!((&repaired["repaired"], &repaired["differences"]), (&json!(true), &json!([])), "{repaired}");
    assert_eq!(before.0 + 1, counted(server).0);
    let aside = std::fs::read_dir(file(server).parent().unwrap()).unwrap();
    let aside = aside.filter(|found| found.as_ref().unwrap().file_name().to_str().unwrap().starts_with("set-aside-"));
    assert_eq!(aside.count(), 1, "what was wrong is kept");
    // What is right is not repaired again.
    assert_eq!(json_of(server, 0, &["reconcile", "--repair"])["repaired"], json!(false));
}

#[test]
fn counters_of_the_server_that_were_forced_apart_are_found_and_counted_anew() {
    let mut server = Server::start();
    let around = &mut |server: &mut Server, stop: bool| {
        if stop {
            server.stop();
        } else {
            server.launch();
        }
    };
    drift(&mut server, |server| server.path("accounting/counters.jsonl"), around);
}

#[test]
fn counters_of_the_daemon_that_were_forced_apart_are_found_and_counted_anew() {
    let accounting = std::cell::RefCell::new(Accounting::start());
    let sock = accounting.borrow().sock();
    let mut server = Server::with(&[("deps.accounting_sock", &sock)]);
    let around = &mut |server: &mut Server, stop: bool| {
        if stop {
            accounting.borrow_mut().stop();
        } else {
            accounting.borrow_mut().launch();
            is_ready(server);
        }
    };
    let file = |_: &Server| {
        let mut ledgers = std::fs::read_dir(accounting.borrow().path("counters")).unwrap();
        ledgers.next().unwrap().unwrap().path().join("counters.jsonl")
    };
    drift(&mut server, file, around);
}

/// Sends a line and returns the answer.
fn ask(stream: &UnixStream, line: &[u8]) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever is turned away may be cut off before everything is said.
    let _ = (&*stream).write_all(line);
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn nonsense_is_refused_with_a_reason_and_others_are_served() {
    let accounting = Accounting::start();
    let stream = UnixStream::connect(accounting.socket()).unwrap();
    for (line, answer) in [
        ("hello\n", "cut short"),
        ("{\"v\":1,\"ask\":\"through\"}\n", "name the ledger"),
        ("{\"v\":1,\"ask\":\"files\"}\n", "\"logs\":[]"),
        ("{\"v\":1,\"ask\":\"through\",\"log\":\"00000000000000000000000000000001\"}\n", "{\"through\":0}"),
    ] {
        let answered = ask(&stream, line.as_bytes());
        assert!(answered.contains(answer), "{line}: {answered}");
    }
    // A line that begins in the middle of a ledger that nobody has counted is taken; one that leaves a gap is not.
    let counted = |from: u64, through: u64| {
        let log = "00000000000000000000000000000001";
        let content = format!("{{\"v\":1,\"log\":\"{log}\",\"from_seq\":{from},\"through_seq\":{through},\"deltas\":[]");
        let check: String = blake3::hash(content.as_bytes()).as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        ask(&stream, format!("{content},\"check\":\"{check}\"}}\n").as_bytes())
    };
    assert_eq!(counted(5, 9), "{\"through\":9}\n");
    for (from, through) in [(5, 9), (9, 12), (11, 12)] {
        let refused = counted(from, through);
        assert!(refused.contains("entry 10 comes next"), "{refused}");
    }
    assert_eq!(counted(10, 12), "{\"through\":12}\n");
    // A line without an end costs its connection, and nobody else anything.
    let endless = UnixStream::connect(accounting.socket()).unwrap();
    let answered = ask(&endless, &vec![b'x'; (8 << 20) + 2]);
    assert!(answered.contains("longer than"), "{answered}");
    assert_eq!(
        ask(&stream, b"{\"v\":1,\"ask\":\"through\",\"log\":\"00000000000000000000000000000001\"}\n"),
        "{\"through\":12}\n"
    );
}

#[test]
fn who_is_not_admitted_is_told_and_what_stands_in_the_way_of_a_start_as_well() {
    let mut accounting = Accounting::prepared(&["--allow-uid", "4242424"]);
    accounting.launch();
    let stream = UnixStream::connect(accounting.socket()).unwrap();
    let answered = ask(&stream, b"");
    assert!(answered.contains("is not admitted; start the daemon with --allow-uid"), "{answered}");
    eventually("it is logged", || accounting.log().contains("accounting_turned_away").then_some(()));

    let run = |dir: &Path, sock: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ron-accounting"));
        let output = command.arg("--dir").arg(dir).arg("--sock").arg(sock).output().unwrap();
        (output.status.code(), told(&output))
    };
    let (sock, counters) = (accounting.sock(), accounting.path("counters"));
    let (code, said) = run(&accounting.path("other"), &sock);
    assert!(code == Some(1) && said.contains("another server listens on this socket"), "{said}");
    let (code, said) = run(&accounting.path("other"), "tcp://h");
    assert!(code == Some(2) && said.contains("three slashes"), "{said}");
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, said) = run(&accounting.path("other"), &format!("unix://{}/a.sock", open.path().display()));
    assert!(code == Some(1) && said.contains("chmod 700"), "{said}");
    // Damage is told before anything is served.
    accounting.stop();
    let ledger = counters.join("00000000000000000000000000000001");
    std::fs::create_dir(&ledger).unwrap();
    std::fs::write(ledger.join("counters.000001.jsonl"), "damage\n").unwrap();
    let refused = accounting.launch_refused();
    assert!(refused.status.code() == Some(1) && refused.log.contains("counters.000001.jsonl: line at byte 0"), "{}", refused.log);
}
