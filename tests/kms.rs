//! Proves that keys rotate while the server serves: no valid token is refused on the way, a retired key is refused everywhere and for
//! good, and a keyring that cannot be opened leaves the old one in force.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{eventually, Server, Wallet};

fn refused(server: &Server, arguments: &str, code: i32) -> String {
    let output = server.ronctl(arguments);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments}: {complaint}");
    complaint
}

fn minted(server: &Server) -> String {
    server.ronctl_text("cap mint --subject tests --scopes wallet:* --ttl 900s").trim().to_owned()
}

/// The status of a read with this token on a connection of its own, which may be with any core.
fn status(server: &Server, token: &str) -> u16 {
    Wallet::new(server.connect(), token.to_owned()).get("/v1/seq?account=a").status
}

/// Puts a file in the place of the keyring, at once.
fn put(server: &Server, bytes: &[u8]) {
    let aside = server.path("aside");
    fs::write(&aside, bytes).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(aside, server.path("wallet.keyring")).unwrap();
}

#[test]
fn keys_rotate_and_retire_under_load_without_refusing_a_valid_token() {
    let server = Server::start();
    let first = server.token().to_owned();
    let first_key = server.ronctl_json("kms status")["active"].as_str().unwrap().to_owned();
    server.wallet().issue("a", 1_000_000);
    let (ended, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut keys = vec![first_key.clone()];
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (server, ended, requests, first) = (&server, &ended, &requests, &first);
            scope.spawn(move || {
                let mut wallet = Wallet::new(server.connect(), first.clone());
                while !ended.load(Ordering::Relaxed) {
                    // Of a key that may have been made active a moment ago.
                    if client % 2 == 1 {
                        wallet.token = minted(server);
                    }
                    for _ in 0..20 {
                        let reply = wallet.get("/v1/balance?account=a&asset=roc");
                        assert_eq!(reply.status, 200, "{reply}");
                        requests.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for (how, hybrid) in [("kms rotate", false), ("kms rotate --hybrid on", true), ("kms rotate --hybrid off", false)] {
            let rotated = server.ronctl_json(how);
            assert_eq!((&rotated["key"], &rotated["hybrid"]), (&rotated["active"], &hybrid.into()), "{rotated}");
            keys.push(rotated["key"].as_str().unwrap().to_owned());
            // Tokens of this key are made and read before the next one comes.
            let before = requests.load(Ordering::Relaxed);
            eventually("requests go on", || (requests.load(Ordering::Relaxed) > before + 160).then_some(()));
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(requests.load(Ordering::Relaxed) > 200);
    let shown = server.ronctl_json("kms status");
    let listed: Vec<&str> = shown["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!(listed, keys);
    assert_eq!(
        (shown["version"].as_u64(), shown["server_version"].as_u64()),
        (Some(7), Some(7)),
        "two changes for each rotation"
    );
    let second = minted(&server);
    for _ in 0..16 {
        assert_eq!((status(&server, &first), status(&server, &second)), (200, 200));
    }

    // The active one cannot go; the first one can, and with it what is in the caches of all cores.
    assert!(refused(&server, &format!("kms retire {}", keys[3]), 2).contains("is the active key"));
    assert!(refused(&server, "kms retire k-none", 2).contains("there is no key k-none; there are"));
    // How soon is a relation between constants; no clock decides here.
    server.ronctl_text(&format!("kms retire {first_key}"));
    eventually("the first token is refused", || (status(&server, &first) == 401).then_some(()));
    for _ in 0..16 {
        assert_eq!((status(&server, &first), status(&server, &second)), (401, 200));
    }
    assert_eq!(server.metric_reaches("keyring_version", 8.0), 8.0);
    assert_eq!(server.metric("wallet_keyring_keys"), 3.0);
    assert_eq!(server.metric("wallet_reloads_total{what=\"keyring\",outcome=\"failed\"}"), 0.0);
}

#[test]
fn hybrid_is_turned_on_and_off_while_the_server_serves() {
    let mut server = Server::start();
    let token = server.token().to_owned();
    let pq = |server: &Server| server.page("/version").ok().json()["pq"].as_str().unwrap().to_owned();
    let hybrid_in_file = |server: &Server| fs::read_to_string(server.path("wallet.keyring")).unwrap().contains("\"hybrid\"");
    server.ronctl_text("kms status --expect hybrid=off");
    assert_eq!((pq(&server).as_str(), hybrid_in_file(&server)), ("off", false));
    for round in 0..2 {
        let rotated = server.ronctl_json("kms rotate --hybrid on");
        assert_eq!(rotated["hybrid"], true, "{rotated}");
        server.ronctl_text("kms status --expect hybrid=on,sealed=on");
        assert_eq!((pq(&server).as_str(), hybrid_in_file(&server)), ("hybrid", true), "{round}");
        assert_eq!(server.metric("wallet_keyring_hybrid"), 1.0);
        // A rotation without a word stays with what is.
        assert_eq!(server.ronctl_json("kms rotate")["hybrid"], true);
        let output = server.ronctl("kms status --expect hybrid=off");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!((status(&server, &token), status(&server, &minted(&server))), (200, 200));
        assert_eq!(server.ronctl_json("kms rotate --hybrid off")["hybrid"], false);
        server.ronctl_text("kms status --expect hybrid=off,sealed=on");
        assert_eq!((pq(&server).as_str(), hybrid_in_file(&server)), ("off", false), "{round}");
        assert_eq!((status(&server, &token), status(&server, &minted(&server))), (200, 200));
    }
    server.ronctl_text("kms rotate --hybrid on");
    server.stop();
    server.launch();
    assert_eq!((pq(&server).as_str(), status(&server, &token)), ("hybrid", 200));

    // Public keys of all keys, the hybrid ones with both; what is in the file stays when a key is retired.
    server.ronctl_text("kms export --out keys.json");
    let exported = |server: &Server| -> Value { serde_json::from_slice(&fs::read(server.path("keys.json")).unwrap()).unwrap() };
    let keys = exported(&server)["keys"].as_array().unwrap().clone();
    let hybrid: Vec<bool> = keys.iter().map(|key| key["ml_dsa_65"].is_string()).collect();
    assert_eq!(hybrid, [false, true, true, false, true, true, false, true]);
    server.ronctl_text(&format!("kms retire {}", keys[0]["id"].as_str().unwrap()));
    server.ronctl_text("kms export --out keys.json");
    assert_eq!(exported(&server)["keys"].as_array().unwrap(), &keys);
    assert_eq!(server.ronctl_json("kms export")["keys"].as_array().unwrap().len(), 7);
}

#[test]
fn a_retired_key_stays_retired_after_a_restart() {
    let mut server = Server::start();
    let first = server.token().to_owned();
    let key = server.ronctl_json("kms status")["active"].as_str().unwrap().to_owned();
    server.stop();
    // Without a server nobody waits.
    server.ronctl_text("kms rotate");
    server.ronctl_text(&format!("kms retire {key}"));
    server.launch();
    assert_eq!((status(&server, &first), status(&server, &minted(&server))), (401, 200));
}

#[test]
fn a_key_can_be_added_everywhere_before_it_signs() {
    let server = Server::start();
    let before = server.ronctl_json("kms status")["active"].as_str().unwrap().to_owned();
    let added = server.ronctl_json("kms rotate --add-only");
    assert_eq!(added["active"].as_str(), Some(&*before));
    let key = added["key"].as_str().unwrap();
    assert_eq!(server.ronctl_json(&format!("kms rotate --activate {key}"))["active"].as_str(), Some(key));
    assert!(refused(&server, "kms rotate --activate k-none", 2).contains("there is no key k-none"));
    // There is a most.
    for _ in 2..16 {
        server.ronctl_text("kms rotate --add-only");
    }
    assert!(refused(&server, "kms rotate", 2).contains("retire one that is not needed any more"));
}

#[test]
fn two_servers_with_copies_of_one_keyring_take_a_fresh_key_one_after_the_other() {
    let one = Server::start();
    let mut two = Server::prepared(&[]);
    let copy = |to: &Server| put(to, &fs::read(one.path("wallet.keyring")).unwrap());
    fs::copy(one.path("wallet.keyring.key"), two.path("wallet.keyring.key")).unwrap();
    copy(&two);
    two.launch();
    let good_on_both = |two: &Server, token: &str| assert_eq!((status(&one, token), status(two, token)), (200, 200));
    let first = one.token().to_owned();
    good_on_both(&two, &first);
    // Known everywhere before it signs anywhere.
    let key = one.ronctl_json("kms rotate --add-only")["key"].as_str().unwrap().to_owned();
    copy(&two);
    let version = |server: &Server| server.metric("keyring_version");
    eventually("both have the keyring", || (version(&one) > 1.0 && version(&one) == version(&two)).then_some(()));
    assert_eq!(one.ronctl_json(&format!("kms rotate --activate {key}"))["active"].as_str(), Some(&*key));
    let second = minted(&one);
    good_on_both(&two, &second);
    copy(&two);
    eventually("it signs on the other one as well", || (two.ronctl_json("kms status")["active"] == *key).then_some(()));
    let third = minted(&two);
    for token in [&first, &second, &third] {
        good_on_both(&two, token);
    }
}

#[test]
fn a_keyring_that_cannot_be_opened_leaves_the_old_one_in_force() {
    let server = Server::start();
    let token = server.token().to_owned();
    let good = fs::read(server.path("wallet.keyring")).unwrap();
    let failed = "wallet_reloads_total{what=\"keyring\",outcome=\"failed\"}";
    put(&server, b"{}");
    server.metric_reaches(failed, 1.0);
    fs::set_permissions(server.path("wallet.keyring"), fs::Permissions::from_mode(0o644)).unwrap();
    server.metric_reaches(failed, 2.0);
    fs::remove_file(server.path("wallet.keyring")).unwrap();
    server.metric_reaches(failed, 3.0);
    assert_eq!(status(&server, &token), 200);
    assert!(refused(&server, "kms rotate", 2).contains("no such file"));
    // It is not tried again and again, but when somebody asks for it.
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!(server.metric(failed), 3.0);
    server.signal(rustix::process::Signal::HUP);
    server.metric_reaches(failed, 4.0);
    put(&server, &good);
    server.metric_reaches("wallet_reloads_total{what=\"keyring\",outcome=\"ok\"}", 1.0);
    assert_eq!(status(&server, &token), 200);
    let log = server.log();
    assert!(log.contains("\"event\":\"keyring_reload_failed\"") && log.contains("\"event\":\"keyring_reloaded\""), "{log}");
}

#[test]
fn an_earlier_keyring_does_not_bring_a_retired_key_back() {
    let server = Server::start();
    let old = server.token().to_owned();
    let first = server.ronctl_json("kms status")["active"].as_str().unwrap().to_owned();
    let earlier = fs::read(server.path("wallet.keyring")).unwrap();
    server.ronctl_text("kms rotate");
    server.ronctl_text(&format!("kms retire {first}"));
    let later = fs::read(server.path("wallet.keyring")).unwrap();
    let fresh = minted(&server);
    let failed = "wallet_reloads_total{what=\"keyring\",outcome=\"failed\"}";
    put(&server, &earlier);
    server.metric_reaches(failed, 1.0);
    assert_eq!((status(&server, &old), status(&server, &fresh)), (401, 200));
    assert!(server.log().contains("its version 1 is earlier than 4, which is in force"), "{}", server.log());
    put(&server, &later);
    let loaded = "wallet_reloads_total{what=\"keyring\",outcome=\"ok\"}";
    server.metric_reaches(loaded, 4.0);
    assert_eq!((status(&server, &old), status(&server, &fresh)), (401, 200));
}

#[test]
fn the_posture_is_told_and_checked() {
    let mut server = Server::prepared(&[]);
    let text = r#"{"version":1,"active":"k-1","keys":[{"id":"k-1","secret":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}]}"#;
    fs::write(server.path("wallet.keyring"), text).unwrap();
    fs::remove_file(server.path("wallet.keyring.key")).unwrap();
    server.launch();
    let token = minted(&server);
    server.ronctl_text("kms status --expect sealed=off,active=k-1,version=0,kms=file");
    let output = server.ronctl("kms status --expect sealed=on");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && shown.contains("sealed=on is expected, and it is off"), "{shown}");
    refused(&server, "kms status --expect nothing=on", 2);
    // Sealing changes no key.
    server.ronctl_text("kms seal");
    server.ronctl_text("kms status --expect sealed=on,active=k-1,version=1");
    assert!(!fs::read_to_string(server.path("wallet.keyring")).unwrap().contains("AQEBAQ"));
    assert_eq!(server.metric_reaches("wallet_keyring_sealed", 1.0), 1.0);
    assert_eq!(status(&server, &token), 200);
    assert_eq!(server.ronctl_json("kms status")["server_version"].as_u64(), Some(1));

    // Under another key, which the configuration has to lead to from then on.
    let said = server.ronctl_text("kms seal --under file:./other.key");
    assert!(said.contains("set security.kms to \"file:./other.key\""), "{said}");
    assert!(refused(&server, "kms status", 2).contains("the key does not open it"));
    assert_eq!(status(&server, &token), 200, "a running server has what it had");
    server.stop();
    server.set("security.kms", "file:./other.key");
    server.launch();
    assert_eq!(status(&server, &token), 200);
    let hidden = fs::read_to_string(server.path("other.key")).unwrap();
    assert!(hidden.starts_with("key:") && !server.log().contains(hidden.trim()));
}

#[test]
fn what_is_expected_is_expected_of_the_server_that_runs_as_well() {
    let mut server = Server::start();
    server.stop();
    // A configuration with another keyring, which the server does not look at.
    for name in ["wallet.keyring", "wallet.keyring.key"] {
        fs::copy(server.path(name), server.path(&name.replace("wallet", "next"))).unwrap();
    }
    let text = fs::read_to_string(server.path("svc-wallet.toml")).unwrap().replace("./wallet.keyring", "./next.keyring");
    fs::write(server.path("next.toml"), text).unwrap();
    let directory = server.directory().to_owned();
    let of_next = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
        command.args(["--config", "next.toml", "kms"]).args(arguments.split(' '));
        let output = command.current_dir(&directory).env_clear().stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(of_next("rotate --hybrid on").0, Some(0));
    assert_eq!(of_next("status --expect hybrid=on").0, Some(0), "nobody serves");
    server.launch();
    let (code, said) = of_next("status --expect hybrid=on");
    assert!(code == Some(1) && said.contains("expected to have version 3 of the keyring in force, and it has 1"), "{said}");
    assert_eq!(of_next("status").0, Some(0), "nothing is expected");
    server.ronctl_text("kms status --expect hybrid=off");
}
