//! `ronctl` as a program: what it prints where, and what it ends with. No server is needed; where one has to answer, a thread
//! of the test answers one request with prepared bytes.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// A directory with a configuration whose server would listen at `http`.
fn installation(http: SocketAddr) -> TempDir {
    let directory = TempDir::new().unwrap();
    let root = directory.path().display();
    let metrics = nobody();
    let config = format!(
        "[bind]\nhttp = \"{http}\"\nmetrics = \"{metrics}\"\n\n[deps]\nledger_sock = \"embedded:{root}/ledger\"\n\
         accounting_sock = \"embedded:{root}/accounting\"\nregistry_url = \"file:{root}/registry.json\"\n\n\
         [security]\npolicy_file = \"{root}/policy.json\"\nkeyring = \"{root}/keyring\"\n\
         revocations = \"{root}/revocations\"\n"
    );
    fs::write(directory.path().join("svc-wallet.toml"), config).unwrap();
    directory
}

fn command(directory: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args(arguments.split(' ')).current_dir(directory).env_clear();
    command.env("RON_CONFIG", directory.join("svc-wallet.toml")).stdin(Stdio::null());
    command
}

fn ronctl(directory: &Path, arguments: &str) -> Output {
    command(directory, arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Answers one request and returns it.
fn answering_once(status: u16, body: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let (address, thread) = answering(status, vec![body]);
    (address, std::thread::spawn(|| thread.join().unwrap().remove(0)))
}

/// Answers one request with each of these bodies and returns the requests.
fn answering(status: u16, bodies: Vec<&'static str>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |body: &str| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0u8; 4096];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the request is cut short");
            request.extend_from_slice(&buffer[..count]);
        }
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8(request).unwrap()
    };
    (address, std::thread::spawn(move || bodies.into_iter().map(answer).collect()))
}

const MINT: &str = "cap mint --subject alice --scopes wallet:* --ttl 900s";

#[test]
fn a_minted_token_stands_alone_on_standard_output() {
    let directory = installation(nobody());
    let minted = ronctl(directory.path(), MINT);
    assert_eq!((minted.status.code(), stderr(&minted).as_str()), (Some(0), ""));
    let token = stdout(&minted);
    assert!(token.ends_with('\n') && token.lines().count() == 1, "{token:?}");
    assert!(token.trim_end().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)), "{token:?}");
    let keyring = fs::metadata(directory.path().join("keyring")).unwrap();
    assert_eq!(keyring.permissions().mode() & 0o777, 0o600);

    let inspected = ronctl(directory.path(), &format!("--json cap inspect {}", token.trim_end()));
    let described: serde_json::Value = serde_json::from_str(&stdout(&inspected)).unwrap();
    assert_eq!((inspected.status.code(), &described["subject"]), (Some(0), &"alice".into()));
    assert_eq!(described["expired"], false);

    let again: serde_json::Value = serde_json::from_str(&stdout(&ronctl(directory.path(), &format!("--json {MINT}")))).unwrap();
    assert_ne!(again["token"].as_str().unwrap(), token.trim_end(), "every token has an id of its own");
}

#[test]
fn an_expired_token_is_called_expired() {
    let directory = installation(nobody());
    let token = stdout(&ronctl(directory.path(), "cap mint --subject a --scopes wallet:read --ttl 1s"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let mut inspect = command(directory.path(), "cap inspect -");
    let mut child = inspect.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("has expired"), "{}", stdout(&output));
}

#[test]
fn a_discharge_is_described_as_what_it_is() {
    let directory = installation(nobody());
    let key = macaroon::MacaroonKey::generate(b"of a third party");
    let mut discharge = macaroon::Macaroon::create(Some("https://kyc".into()), &key, "customer\u{202e} 17".into()).unwrap();
    discharge.add_first_party_caveat("max_amount = 9".into());
    discharge.add_first_party_caveat("max_amount = 5".into());
    discharge.add_first_party_caveat("exp = 2099-01-01T00:00:00Z".into());
    let text = discharge.serialize(macaroon::Format::V2).unwrap();
    let shown = fed(directory.path(), &["inspect", "-"], &text);
    let said = stdout(&shown);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    for part in ["for customer? 17", "https://kyc", "smallest holds:\n  - at most 5 minor", "clock_leeway", "no capability"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    discharge.add_first_party_caveat("colour = blue".into());
    let shown = fed(directory.path(), &["inspect", "-"], &discharge.serialize(macaroon::Format::V2).unwrap());
    assert_eq!(shown.status.code(), Some(1), "{}", stdout(&shown));
}

/// Runs it with this on standard input.
fn fed(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = command(directory, "cap");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_token_is_narrowed_without_a_key_and_says_in_words_what_is_left() {
    let directory = installation(nobody());
    let token = stdout(&ronctl(directory.path(), MINT));
    // Where there is neither configuration nor keyring.
    let elsewhere = TempDir::new().unwrap();
    let narrower = ["attenuate", "--scopes", "wallet:spend,read", "--ttl", "60s", "--to", "svc:*", "--max-amount", "5"];
    let output = fed(elsewhere.path(), &[&narrower[..], &["--caveat", " asset = roc "]].concat(), &token);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let narrow = stdout(&output);
    assert!(narrow.lines().count() == 1 && narrow != token, "{narrow:?}");
    let json = |token: &str| -> serde_json::Value {
        serde_json::from_str(&stdout(&fed(elsewhere.path(), &["--json", "inspect", "-"], token))).unwrap()
    };
    let (before, after) = (json(&token), json(&narrow));
    assert_eq!((&before["token_id"], &before["subject"]), (&after["token_id"], &after["subject"]));
    assert!(after["expires"].as_str() < before["expires"].as_str(), "{after}");
    assert_eq!(after["allows"], serde_json::json!(["transfer", "read"]));
    let told = stdout(&fed(elsewhere.path(), &["inspect", "-"], &narrow));
    for part in [
        "allows       to transfer and read, within the limits below",
        "only for the scopes wallet:spend,read",
        "credits only the accounts svc:*",
        "at most 5 minor units in one request",
        "only the assets roc",
        "whether it was revoked",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // A file does as well, and what was narrowed can be narrowed again.
    fs::write(elsewhere.path().join("a.token"), &narrow).unwrap();
    let later = ["attenuate", "--token-file", "a.token", "--not-before", "2099-01-01T00:00:00Z"];
    let later = stdout(&fed(elsewhere.path(), &later, ""));
    let inspected = fed(elsewhere.path(), &["inspect", "-"], &later);
    assert_eq!(inspected.status.code(), Some(1), "it is of no use yet");
    assert!(stdout(&inspected).contains("not valid yet"), "{}", stdout(&inspected));
    for (arguments, part) in [
        (&["--caveat", "colour = blue"][..], "does not understand the caveat \"colour = blue\""),
        (&["--caveat", "exp = tomorrow"], "does not understand"),
        (&["--scopes", "wallet:fly"], "scopes has to be a list"),
        (&["--ttl", "0s"], "at least 1s"),
        (&["--account", "a*b"], "accounts has to be"),
        (&[], "nothing was given that narrows it"),
    ] {
        let output = fed(elsewhere.path(), &[&["attenuate"][..], arguments].concat(), &token);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr(&output).contains(part) && !stderr(&output).contains(token.trim()), "{}", stderr(&output));
    }
    let longer = format!("account = {}", "a".repeat(4000));
    assert!(stderr(&fed(elsewhere.path(), &["attenuate", "--caveat", &longer], &token)).contains("over 4096 bytes"));
}

#[test]
fn what_is_revoked_is_listed_and_taken_back() {
    let directory = installation(nobody());
    let id = "00112233445566778899aabbccddeeff";
    let list =
        || -> serde_json::Value { serde_json::from_str(&stdout(&ronctl(directory.path(), "--json cap revocations"))).unwrap() };
    assert_eq!(list()["revocations"], serde_json::json!([]));
    for (arguments, code, told) in [
        ("cap revoke --undo --subject alice", 1, "subject alice is not revoked"),
        (&*format!("cap revoke --token-id {id} --reason lost"), 0, &*format!("revoked: token {id}")),
        ("cap revoke --subject alice", 0, "revoked: subject alice"),
        ("cap revoke --subject alice --reason again", 1, "subject alice was revoked before"),
        ("cap revoke --key-id k-1", 0, "revoked: key k-1"),
        ("cap revoke --undo --subject alice", 0, "taken back: subject alice"),
    ] {
        let output = ronctl(directory.path(), arguments);
        assert_eq!((output.status.code(), stdout(&output).trim_end()), (Some(code), told), "{arguments}: {}", stderr(&output));
    }
    let left = list()["revocations"].clone();
    assert_eq!(
        (left[0]["kind"].as_str(), left[0]["name"].as_str(), left[0]["reason"].as_str()),
        (Some("token"), Some(id), Some("lost"))
    );
    assert_eq!((left[1]["name"].as_str(), left.as_array().unwrap().len()), (Some("k-1"), 2));
    assert!(stdout(&ronctl(directory.path(), "cap revocations")).contains(&format!("token    {id}  since ")));
    let path = directory.path().join("revocations");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // A damaged list is neither shown nor written over.
    let text = fs::read_to_string(&path).unwrap().replace("k-1", "k-2");
    fs::write(&path, &text).unwrap();
    for arguments in ["cap revocations", "cap revoke --subject bob"] {
        let output = ronctl(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(stderr(&output).contains("its check does not fit"), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn what_is_typed_wrongly_ends_with_two() {
    let directory = installation(nobody());
    for arguments in [
        "nothing",
        "cap mint --subject alice --scopes wallet:* --ttl soon",
        "cap mint --subject alice --scopes wallet:everything --ttl 900s",
        "cap mint --subject alice --scopes wallet:read --ttl 0s",
        "cap mint --subject alice --scopes wallet:read --ttl 900s --not-before soon",
        "cap inspect nonsense",
        "cap attenuate --scopes wallet:read",
        "cap attenuate --token-file /nonexistent --scopes wallet:read",
        "cap revoke --token-id 0011",
        "cap revoke --key-id K",
        "wallet tx tx_1",
        "wallet balance --account a --asset roc --token @/nonexistent",
        "wallet entries --account a --limit 0",
        "wallet entries --account a --limit 5 --all",
        "--config /nonexistent.toml status",
        "ledger verify --dir /nonexistent/ledger",
    ] {
        let output = ronctl(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments}");
    }
    let fault = ronctl(directory.path(), "--json wallet tx tx_1");
    let fault: serde_json::Value = serde_json::from_str(&stderr(&fault)).unwrap();
    assert_eq!(fault["error"]["exit"], 2);
}

#[test]
fn a_server_that_is_not_there_ends_with_three() {
    let directory = installation(nobody());
    ronctl(directory.path(), MINT);
    for arguments in ["wallet balance --account alice --asset roc", "wallet seq --account alice", "status"] {
        let output = ronctl(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments}");
        let told = stderr(&output);
        assert!(told.contains("cannot connect to 127.0.0.1:") && told.contains("next: "), "{told}");
    }
}

#[test]
fn a_balance_is_asked_for_with_a_narrow_token_and_shown() {
    let body = r#"{"account":"alice","asset":"roc","amount_minor":"750","held_minor_units":"0","as_of_height":2,"stale_ms":0}"#;
    for (arguments, expected) in [("", "amount       750\n"), ("--json ", body)] {
        let (address, server) = answering_once(200, body);
        let directory = installation(address);
        ronctl(directory.path(), MINT);
        let output = ronctl(directory.path(), &format!("{arguments}wallet balance --account alice --asset roc"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains(expected), "{}", stdout(&output));
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /v1/balance?account=alice&asset=roc HTTP/1.1\r\n"), "{request}");
        let token = request.lines().find_map(|line| line.strip_prefix("Authorization: Bearer ")).unwrap();
        let described = stdout(&ronctl(directory.path(), &format!("--json cap inspect {token}")));
        assert!(described.contains("wallet:read") && described.contains("alice"), "{described}");
    }
}

#[test]
fn the_sums_of_an_asset_are_asked_for_over_all_accounts_and_shown() {
    let body = r#"{"asset":"roc","issued_minor":"1000","burned_minor":"50","in_accounts_minor":"950","held_minor_units":"7","as_of_height":12}"#;
    let lines = "asset        roc\nissued       1000\nburned       50\nin accounts  950\nof it held   7\nas of entry  12\n";
    for (arguments, expected) in [("", lines.to_owned()), ("--json ", format!("{body}\n"))] {
        let (address, server) = answering_once(200, body);
        let directory = installation(address);
        ronctl(directory.path(), MINT);
        let output = ronctl(directory.path(), &format!("{arguments}wallet totals --asset roc"));
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), expected), "{}", stderr(&output));
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /v1/assets/roc/totals HTTP/1.1\r\n"), "{request}");
        let token = request.lines().find_map(|line| line.strip_prefix("Authorization: Bearer ")).unwrap();
        let described = stdout(&ronctl(directory.path(), &format!("--json cap inspect {token}")));
        assert!(described.contains("wallet:read") && !described.contains("account = "), "{described}");
    }
}

#[test]
fn entries_are_asked_for_page_by_page_and_told_in_lines() {
    let first = r#"{"account":"al/ice","entries":[{"txid":"tx_2","op":"transfer","from":"al/ice","to":"bob","asset":"roc","amount_minor":"250","nonce":1,"idem":"k","ts":1700000000000,"ledger_seq_start":8}],"next_cursor":"8"}"#;
    let last = r#"{"account":"al/ice","entries":[{"txid":"tx_1","op":"issue","to":"al/ice","asset":"roc","amount_minor":"1000","idem":"i","ts":1690000000000,"ledger_seq_start":3}],"next_cursor":null}"#;
    let empty = r#"{"account":"al/ice","entries":[],"next_cursor":"5"}"#;
    let run = |bodies: Vec<&'static str>, arguments: &str| {
        let (address, server) = answering(200, bodies);
        let directory = installation(address);
        ronctl(directory.path(), MINT);
        let output = ronctl(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let targets = server.join().unwrap().into_iter().map(|request| request.split(' ').nth(1).unwrap().to_owned());
        (stdout(&output), targets.collect::<Vec<_>>())
    };
    let entries = "/v1/accounts/al/ice/entries?limit=";
    let (told, targets) = run(vec![first, empty, last], "wallet entries --account al/ice --all");
    assert_eq!(targets, [format!("{entries}100"), format!("{entries}100&cursor=8"), format!("{entries}100&cursor=5")]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("-250 roc") && lines[0].contains("to bob"), "{told}");
    assert!(lines[1].contains("+1000 roc") && lines[1].contains("2023-07-22T"), "{told}");
    let (told, targets) = run(vec![first], "wallet entries --account al/ice --limit 1 --cursor 9");
    assert_eq!(targets, [format!("{entries}1&cursor=9")]);
    assert!(told.contains("--cursor 8"), "{told}");
    let (told, _) = run(vec![first, last], "--json wallet entries --account al/ice --all");
    assert_eq!(told, format!("{first}\n{last}\n"));
}

#[test]
fn a_refusal_ends_with_one_and_never_shows_the_token() {
    let body = r#"{"code":"UNAUTHORIZED","http":401,"message":"the capability has expired","retryable":false,"corr_id":"c"}"#;
    for arguments in ["", "--json "] {
        let (address, server) = answering_once(401, body);
        let directory = installation(address);
        let output = ronctl(directory.path(), &format!("{arguments}wallet seq --account alice --token s3cr3t"));
        assert_eq!(output.status.code(), Some(1));
        let told = stdout(&output) + &stderr(&output);
        assert!(told.contains("UNAUTHORIZED") && !told.contains("s3cr3t"), "{told}");
        server.join().unwrap();
    }
}

#[test]
fn a_full_disk_under_standard_output_is_no_success() {
    let directory = installation(nobody());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(directory.path(), MINT).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}

#[test]
fn a_directory_without_a_ledger_does_not_pass_for_a_whole_one() {
    let directory = installation(nobody());
    let output = ronctl(directory.path(), &format!("ledger verify --dir {}", directory.path().display()));
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("incomplete"), "{}", stdout(&output));
}

#[test]
fn help_names_every_exit_code() {
    let directory = installation(nobody());
    let help = ronctl(directory.path(), "--help");
    assert_eq!(help.status.code(), Some(0));
    let text = stdout(&help);
    for line in ["  0  done", "  1  the answer is \"no\"", "  2  ", "  3  ", "  4  ", "Examples:"] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colour, although nobody looks");
}
