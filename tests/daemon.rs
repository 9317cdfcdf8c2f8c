//! A wallet whose ledger is a daemon: it behaves as with its own; it outlives the daemon's death under load, without loss or
//! repetition and without a restart; and there is one of it at a time.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{eventually, Client, Daemon, Reply, Server, Wallet};

/// A wallet on this daemon, with its directory but no process yet.
fn wallet_on(daemon: &Daemon) -> Server {
    Server::prepared(&[("deps.ledger_sock", &daemon.sock())])
}

fn started_on(daemon: &Daemon) -> Server {
    let mut server = wallet_on(daemon);
    server.launch();
    server
}

#[test]
fn a_wallet_on_a_daemon_spends_reads_repeats_and_comes_back() {
    let mut daemon = Daemon::start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&daemon.socket()), mode(daemon.socket().parent().unwrap())), (0o600, 0o700));
    let mut server = started_on(&daemon);
    let mut wallet = server.wallet();
    let mut receipts = vec![wallet.issue("a", 1_000)];
    receipts.extend((1..=50).map(|nonce| wallet.spend("a", "b", 2, nonce, &format!("k-{nonce}")).ok()));
    server.metric_reaches("ledger_commit_seconds_count", 51.0);
    for _ in 0..2 {
        let mut wallet = server.wallet();
        assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a")), (900, 100, (50, 51)));
        for receipt in &receipts {
            assert_eq!(wallet.tx(&receipt.txid()).ok().body, receipt.body);
        }
        let again = wallet.spend("a", "b", 2, 7, "k-7").ok();
        assert_eq!((again.body == receipts[7].body, again.replayed()), (true, true), "{again}");
        // Asked by nonce, because the key is another one: answered from the daemon's index.
        wallet.spend("a", "b", 2, 7, "other").refused(409, "NONCE_CONFLICT");
        drop(wallet);
        server.stop();
        server.launch();
    }
    server.stop();
    daemon.stop();
    assert!(!daemon.socket().exists(), "an orderly end takes the socket away");
    let log = daemon.log();
    assert!(log.contains("ledger_ending") && log.contains("snapshot_taken") && log.contains("ledger_stopped"), "{log}");
    let report = svc_wallet::ledger::verify_directory(&daemon.path("ledger"), &mut |_| ()).unwrap();
    assert_eq!((report.here.entries, report.epoch, report.torn), (51, 3, None));
}

/// Spends one unit at a time; whatever is not a receipt is repeated until it is one. Returns the receipts.
fn spend_on(http: std::net::SocketAddr, token: &str, account: &str, done: &AtomicBool, count: &AtomicUsize) -> Vec<Reply> {
    let mut wallet = Wallet::new(Client::connect(http), token.to_owned());
    let mut receipts: Vec<Reply> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let nonce = receipts.len() as u64 + 1;
        let receipt = eventually("a spend gets its receipt", || {
            let reply = wallet.spend(account, "sink", 1, nonce, &format!("k-{nonce}"));
            if reply.status == 200 {
                return Some(reply);
            }
            reply.refused(503, "UPSTREAM_UNAVAILABLE");
            None
        });
        receipts.push(receipt);
        count.fetch_add(1, Ordering::Relaxed);
    }
    receipts
}

#[test]
fn a_daemon_that_is_killed_under_load_and_started_again_costs_no_receipt_and_no_restart() {
    const CLIENTS: usize = 6;
    let mut daemon = Daemon::start();
    let server = started_on(&daemon);
    let accounts: Vec<String> = (0..CLIENTS).map(|number| format!("payer:{number}")).collect();
    accounts.iter().for_each(|account| drop(server.wallet().issue(account, 1_000_000)));
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let receipts: Vec<Vec<Reply>> = std::thread::scope(|scope| {
        let clients: Vec<_> = accounts
            .iter()
            .map(|account| scope.spawn(|| spend_on(server.http, server.token(), account, &done, &count)))
            .collect();
        for round in 0..5 {
            let before = count.load(Ordering::Relaxed);
            eventually("the load runs", || (count.load(Ordering::Relaxed) > before + 100 + 37 * round).then_some(()));
            // Every other time in order: then it starts from a snapshot that has what the wallet has no answer to.
            match round % 2 {
                0 => daemon.kill(),
                _ => daemon.stop(),
            }
            let page = eventually("the loss shows", || Some(server.page("/readyz")).filter(|page| page.status == 503));
            assert_eq!(page.json()["missing"], serde_json::json!(["ledger"]), "{page}");
            assert_eq!((page.json()["writes"].as_bool(), page.json()["reads"].as_bool()), (Some(false), Some(true)), "{page}");
            assert!(server.wallet().balance("sink") > 0, "reads go on");
            daemon.launch();
            eventually("ready again", || (server.page("/readyz").status == 200).then_some(()));
        }
        let before = count.load(Ordering::Relaxed);
        eventually("the load goes on", || (count.load(Ordering::Relaxed) > before + 50).then_some(()));
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut wallet = server.wallet();
    let spent: usize = receipts.iter().map(Vec::len).sum();
    assert_eq!(wallet.balance("sink"), spent as u128, "each spend happened once");
    for (account, receipts) in accounts.iter().zip(&receipts) {
        assert_eq!(wallet.seq(account).0, receipts.len() as u64);
        for (nonce, receipt) in (1..).zip(receipts) {
            assert_eq!(wallet.tx(&receipt.txid()).ok().body, receipt.body, "{account} {nonce}");
        }
    }
    server.metric_reaches("ledger_connect_errors_total", 4.0);
    assert!(daemon.log().contains("a wallet goes on with its epoch"), "{}", daemon.log());
    assert!(started_from(&daemon) > 0, "{}", daemon.log());
}

/// The entry behind which the daemon has read its ledger at its last start.
fn started_from(daemon: &Daemon) -> u64 {
    // It listens before it says so.
    let line = eventually("the daemon says that it serves", || {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("ledger_started"))?;
        serde_json::from_str::<serde_json::Value>(line).ok()
    });
    line["from_snapshot"].as_u64().unwrap()
}

#[test]
fn the_daemon_takes_snapshots_and_its_wallet_has_what_it_serves_audited() {
    let mut daemon = Daemon::prepared(&["--snapshot-every", "1s"]);
    daemon.launch();
    assert_eq!(started_from(&daemon), 0);
    let mut server = started_on(&daemon);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    (1..=20).for_each(|nonce| drop(wallet.spend("a", "b", 2, nonce, &format!("k-{nonce}")).ok()));
    server.metric_reaches("wallet_audited_height", 21.0);
    server.metric_reaches("wallet_snapshot_height", 21.0);
    // One at the start, and one of accounts that agree with what a replay comes to.
    server.metric_reaches("wallet_conservation_checks_total{outcome=\"ok\"}", 2.0);
    assert_eq!(server.metric("wallet_conservation_checks_total{outcome=\"violated\"}"), 0.0);
    daemon.kill();
    eventually("the loss shows", || (server.page("/readyz").status == 503).then_some(()));
    daemon.launch();
    assert_eq!(started_from(&daemon), 21);
    eventually("ready again", || (server.page("/readyz").status == 200).then_some(()));
    wallet.spend("a", "b", 2, 21, "k-21").ok();
    server.metric_reaches("wallet_audited_height", 22.0);
    drop(wallet);
    // A wallet that comes later reads the snapshot and what is behind it, and still knows the keys before it.
    server.stop();
    server.launch();
    let log = server.log();
    let recovered = log.lines().rfind(|line| line.contains("\"recovered\"")).unwrap();
    let recovered: serde_json::Value = serde_json::from_str(recovered).unwrap();
    assert!(recovered["from_snapshot"].as_u64() >= Some(21), "{recovered}");
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a")), (958, 42, (21, 22)));
    let again = wallet.spend("a", "b", 2, 7, "k-7").ok();
    assert!(again.replayed() && again.json()["nonce"].as_u64() == Some(7), "{again}");
    wallet.spend("a", "b", 3, 22, "k-7").refused(409, "IDEMPOTENCY_CONFLICT");
    let body = r#"{"to":"a","asset":"roc","amount_minor":"1000"}"#;
    let issue = wallet.write("/v1/issue", "issue-a", body);
    assert!(wallet.client.call(&issue).ok().replayed(), "the key of an issue is in the snapshot");
}

#[test]
fn a_daemon_passes_over_a_damaged_snapshot() {
    let mut daemon = Daemon::start();
    let mut server = started_on(&daemon);
    for nonce in 1..=3 {
        let mut wallet = server.wallet();
        wallet.post(
            "/v1/issue",
            &format!("i-{nonce}"),
            &format!(r#"{{"to":"a","asset":"roc","amount_minor":"5","nonce":{nonce}}}"#),
        );
        drop(wallet);
        server.stop();
        daemon.stop();
        daemon.launch();
        server.launch();
    }
    let newest = started_from(&daemon);
    let file = daemon.path("ledger").join(format!("snapshot-{newest:020}.snap"));
    daemon.kill();
    let mut bytes = std::fs::read(&file).unwrap();
    // The accounts begin behind the head and the front.
    let at = 4096 + 200;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    daemon.launch();
    assert!(started_from(&daemon) < newest, "{}", daemon.log());
    assert!(daemon.log().contains("the snapshot before it is used"), "{}", daemon.log());
}

#[test]
fn without_a_daemon_writes_are_refused_soon_and_what_was_pending_settles_later() {
    let mut daemon = Daemon::start();
    let server = Server::with(&[("deps.ledger_sock", &daemon.sock()), ("timeouts.write_ms", "20000")]);
    let mut wallet = server.wallet();
    let issued = wallet.issue("a", 1_000);
    server.metric_reaches("wallet_audited_height", 1.0);
    // Stopped, the daemon takes the spend and does not answer; killed, it never will.
    daemon.pause();
    let spend = wallet.transfer("a", "b", 3, 1, "k-1");
    wallet.client.send(spend.bytes());
    std::thread::sleep(Duration::from_millis(50));
    daemon.kill();
    let lost = Instant::now();
    wallet.client.reply().refused(503, "UPSTREAM_UNAVAILABLE");
    let pending = lost.elapsed();
    wallet.spend("a", "b", 4, 2, "k-2").refused(503, "UPSTREAM_UNAVAILABLE");
    // Far below the 20 s of the time limit; how far is a figure, and this machine may be busy.
    assert!(pending < Duration::from_secs(5), "{pending:?}");
    // What the wallet has itself is served.
    assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a").0), (1_000, 0, 0), "reads go on");
    assert_eq!(wallet.get("/v1/assets/roc/totals").ok().json()["issued_minor"], "1000");
    // What only the ledger has can be had again later, and the client is told so.
    wallet.tx(&issued.txid()).refused(503, "UPSTREAM_UNAVAILABLE");
    for target in ["/v1/accounts/a/entries", "/v1/ledger/root", &format!("/v1/tx/{}/proof", issued.txid())] {
        wallet.get(target).refused(503, "UPSTREAM_UNAVAILABLE");
    }
    let repeat = wallet.write("/v1/issue", "issue-a", r#"{"to":"a","asset":"roc","amount_minor":"1000"}"#);
    let told = wallet.client.call(&repeat).refused(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!(told.json()["retryable"].as_bool(), Some(true), "{told}");
    daemon.launch();
    eventually("ready again", || (server.page("/readyz").status == 200).then_some(()));
    assert_eq!(wallet.client.call(&repeat).ok().body, issued.body);
    let receipt = wallet.client.call(&spend).ok();
    assert_eq!(receipt.json()["nonce"].as_u64(), Some(1));
    assert_eq!((wallet.balance("a"), wallet.balance("b")), (997, 3), "it happened once");
    wallet.spend("a", "b", 4, 2, "k-2").ok();
}

#[test]
fn a_daemon_that_hangs_is_noticed_although_its_connection_stays_open() {
    let daemon = Daemon::start();
    let server = started_on(&daemon);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    daemon.pause();
    let page = eventually("it is noticed", || Some(server.page("/readyz")).filter(|page| page.status == 503));
    assert_eq!((page.json()["writes"].as_bool(), page.json()["reads"].as_bool()), (Some(false), Some(true)), "{page}");
    wallet.spend("a", "b", 3, 1, "k-1").refused(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!(wallet.balance("a"), 1_000);
    daemon.signal(Signal::CONT);
    eventually("ready again", || (server.page("/readyz").status == 200).then_some(()));
    wallet.spend("a", "b", 3, 1, "k-1").ok();
    assert_eq!((wallet.balance("a"), wallet.balance("b")), (997, 3), "it happened once");
}

#[test]
fn a_wallet_that_was_paused_and_replaced_ends_and_says_why() {
    let daemon = Daemon::start();
    let mut first = started_on(&daemon);
    first.wallet().issue("a", 1_000);
    let mut second = wallet_on(&daemon);
    second.set("security.keyring", &first.path("wallet.keyring").display().to_string());
    let refused = second.launch_refused();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.log);
    let pid = format!("process {} of user", first.pid().as_raw_nonzero());
    let last = refused.log.lines().last().unwrap();
    assert!(last.contains("it is in use, and was for 4 s") && last.contains(&pid), "{}", refused.log);
    assert_eq!(last.matches("stop that").count(), 1, "{last}");
    let noted = refused.log.matches("no connection to the ledger").count();
    assert!((1..=6).contains(&noted), "{noted} lines for one reason: {}", refused.log);

    first.signal(Signal::STOP);
    second.launch();
    let mut wallet = Wallet::new(second.connect(), first.token().to_owned());
    wallet.spend("a", "b", 10, 1, "second").ok();
    first.signal(Signal::CONT);
    let exit = first.wait_exit();
    // Not the code of a failed start: a supervisor is told not to start it again after this one.
    assert_eq!(exit.status.code(), Some(svc_wallet::control::EXIT_REPLACED), "{}", exit.log);
    for part in ["FATAL", "epoch 2", "epoch 1", "another server has replaced it"] {
        assert!(exit.log.contains(part), "{part:?} is missing: {}", exit.log);
    }
    wallet.spend("a", "b", 10, 2, "third").ok();
    assert_eq!((wallet.balance("a"), wallet.balance("b")), (980, 20));
    // The one that was replaced may come back when the other one has gone.
    second.stop();
    first.launch();
    assert_eq!(first.wallet().balance("b"), 20);
}

#[test]
fn a_wallet_that_is_started_first_waits_says_so_and_can_be_ended() {
    let mut daemon = Daemon::prepared(&[]);
    let mut server = wallet_on(&daemon);
    server.launch_unready();
    let page = server.page("/readyz");
    assert_eq!((page.status, page.json()["missing"][0].as_str()), (503, Some("ledger")), "{page}");
    assert_eq!(server.page("/healthz").status, 200);
    server.signal(Signal::TERM);
    let exit = server.wait_exit();
    assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    assert!(exit.log.contains("start_given_up") && exit.log.contains("see whether ron-ledger runs there"), "{}", exit.log);

    server.launch_unready();
    daemon.launch();
    eventually("ready", || (server.page("/readyz").status == 200).then_some(()));
    server.wallet().issue("a", 1);
    server.metric_reaches("ledger_connect_errors_total", 1.0);
    let page = String::from_utf8(server.page("/metrics").body).unwrap();
    let help = page.lines().find(|line| line.starts_with("# HELP ledger_connect_errors_total")).unwrap();
    assert!(help.contains("daemon"), "{help}");
}

#[test]
fn a_user_who_is_not_admitted_gets_nothing() {
    let mut daemon = Daemon::prepared(&["--allow-uid", "54321"]);
    daemon.launch();
    let mut server = wallet_on(&daemon);
    server.launch_unready();
    eventually("the refusal is logged on both sides", || {
        let told = daemon.log().contains("is not admitted") && server.log().contains("--allow-uid");
        told.then_some(())
    });
    assert_eq!(server.page("/readyz").status, 503);
    server.stop();
}

#[test]
fn one_daemon_for_one_ledger_and_no_socket_where_others_could_put_theirs() {
    let daemon = Daemon::start();
    let run = |dir: &std::path::Path, sock: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ron-ledger"));
        let output = command.arg("--dir").arg(dir).arg("--sock").arg(sock).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = run(&daemon.path("ledger"), &daemon.path("run/other.sock"));
    assert_eq!(code, Some(1), "{told}");
    let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).expect(&told);
    assert_eq!((&last["event"], &last["service"]), (&"fatal".into(), &"ron-ledger".into()), "{last}");
    assert!(last["message"].as_str().unwrap().contains("in use"), "{told}");
    let (code, told) = run(&daemon.path("ledger-2"), &daemon.socket());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("another server listens"), "{told}");
    assert!(!daemon.path("ledger-2").exists(), "no ledger is left where none can be served");
    let open = daemon.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, told) = run(&daemon.path("ledger-3"), &open.join("l.sock"));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("chmod 700"), "{told}");
    assert!(!daemon.path("ledger-3").exists());
    assert!(started_on(&daemon).wallet().issue("a", 1).status == 200, "the first daemon is left alone");
}

/// What these requests are answered: status, headers that belong to the body, and the body.
fn answers(wallet: &mut Wallet, targets: &[String]) -> Vec<(String, u16, String)> {
    targets
        .iter()
        .map(|target| {
            let reply = wallet.get(target);
            let mut told = reply.json();
            // A refusal names its own correlation id.
            told.as_object_mut().map(|told| told.remove("corr_id"));
            (target.clone(), reply.status, told.to_string())
        })
        .collect()
}

#[test]
fn proofs_pages_and_look_ups_are_the_same_behind_a_daemon_as_embedded() {
    let mut server = Server::start();
    let mut wallet = server.wallet();
    let mut txids = vec![wallet.issue("a", 1_000).txid()];
    txids.extend((1..=20).map(|nonce| wallet.spend("a", "b", 2, nonce, &format!("k-{nonce}")).ok().txid()));
    drop(wallet);
    // The last root is signed at an orderly end, and from then on it has its signature wherever the ledger is.
    server.stop();
    server.launch();
    let mut wallet = server.wallet();
    let mut targets = vec!["/v1/ledger/root".to_owned()];
    targets.extend(txids.iter().map(|txid| format!("/v1/tx/{txid}/proof")));
    targets.extend(txids.iter().map(|txid| format!("/v1/tx/{txid}")));
    let queries = [
        "ledger/consistency?from=1&to=5",
        "ledger/consistency?from=1&to=9999",
        "ledger/consistency?from=5&to=1",
        "accounts/a/entries",
        "accounts/b/entries?limit=3",
        "accounts/nobody/entries",
        "tx/tx_00000000000000000000000000/proof",
    ];
    targets.extend(queries.iter().map(|query| format!("/v1/{query}")));
    targets.push(format!("/v1/accounts/a/entries?limit=4&before={}", txids[9]));
    targets.push(format!("/v1/tx/{}/proof?size=1", txids[0]));
    targets.push(format!("/v1/tx/{}/proof?size=1", txids[20]));
    let embedded = answers(&mut wallet, &targets);
    assert!(embedded.iter().filter(|(_, status, _)| *status == 200).count() > 40, "{embedded:?}");
    drop(wallet);
    server.stop();

    let mut daemon = Daemon::prepared(&[]);
    daemon.adopt(&server.path("ledger"));
    daemon.launch();
    server.set("deps.ledger_sock", &daemon.sock());
    server.launch();
    let mut wallet = server.wallet();
    assert_eq!(answers(&mut wallet, &targets), embedded);
    // A daemon that is gone is told as such, and its return needs nothing.
    daemon.kill();
    eventually("the loss shows", || (server.page("/readyz").status == 503).then_some(()));
    wallet.get(&targets[0]).refused(503, "UPSTREAM_UNAVAILABLE");
    daemon.launch();
    eventually("answers again", || (wallet.get(&targets[0]).status == 200).then_some(()));
    assert_eq!(answers(&mut wallet, &targets), embedded);
}
