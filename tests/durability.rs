//! What survives: every acknowledged receipt after SIGKILL under load, the ledger after a torn or damaged tail, one writer at a
//! time, the same books on another number of cores, and an orderly end on a signal.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{body, eventually, request, Client, Reply, Server, Wallet};

/// What one client was told and what it does not know.
struct Told {
    account: String,
    /// Receipts in the order of their nonces, from 1.
    receipts: Vec<Reply>,
}

const DEPTH: u64 = 16;

/// Spends one unit at a time from its own account, sixteen in flight, until the server is gone or refuses because it drains.
fn spend_from(server: (std::net::SocketAddr, &str), account: &str, from: u64, acknowledged: &AtomicUsize) -> Told {
    let mut wallet = Wallet::new(Client::connect(server.0), server.1.to_owned());
    let mut told = Told { account: account.to_owned(), receipts: Vec::new() };
    for first in (from..).step_by(DEPTH as usize) {
        let spends =
            (first..first + DEPTH).flat_map(|nonce| wallet.transfer(account, "sink", 1, nonce, &format!("k-{nonce}")).bytes());
        if wallet.client.try_send(&spends.collect::<Vec<u8>>()).is_err() {
            return told;
        }
        for _ in 0..DEPTH {
            match wallet.client.try_reply(false) {
                Ok(reply) if reply.status == 200 => told.receipts.push(reply),
                Ok(reply) => {
                    reply.refused(503, "RETRY_LATER");
                    return told;
                }
                Err(_) => return told,
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    unreachable!("nonces do not end")
}

#[test]
fn every_acknowledged_receipt_is_found_after_sigkill_under_load() {
    const CLIENTS: usize = 8;
    let mut server = Server::start();
    let accounts: Vec<String> = (0..CLIENTS).map(|number| format!("payer:{number}")).collect();
    accounts.iter().for_each(|account| drop(server.wallet().issue(account, 1_000_000)));
    let mut spent = [0u64; CLIENTS];
    for round in 0..3 {
        let acknowledged = AtomicUsize::new(0);
        let (http, token) = (server.http, server.token().to_owned());
        let told: Vec<Told> = std::thread::scope(|scope| {
            let clients: Vec<_> = accounts
                .iter()
                .zip(spent)
                .map(|(account, spent)| {
                    let (token, acknowledged) = (&token, &acknowledged);
                    scope.spawn(move || spend_from((http, token), account, spent + 1, acknowledged))
                })
                .collect();
            // Some hundred acknowledgements into the load, at a moment that differs from round to round.
            eventually("the load runs", || (acknowledged.load(Ordering::Relaxed) > 300 + 217 * round).then_some(()));
            server.kill();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        server.launch();
        let mut wallet = server.wallet();
        for (index, Told { account, receipts }) in told.iter().enumerate() {
            for (nonce, receipt) in (spent[index] + 1..).zip(receipts) {
                let key = format!("k-{nonce}");
                assert_eq!(wallet.tx(&receipt.txid()).ok().body, receipt.body, "round {round}: {account} {nonce}");
                let again = wallet.spend(account, "sink", 1, nonce, &key).ok();
                assert_eq!((again.body == receipt.body, again.replayed()), (true, true), "round {round}: {account} {nonce}");
            }
            // What was in doubt is either there or not; repeated, it is there exactly once.
            let acknowledged = spent[index] + receipts.len() as u64;
            let (confirmed, next) = wallet.seq(account);
            assert!((acknowledged..=acknowledged + DEPTH).contains(&confirmed), "{account}: {acknowledged} {confirmed}");
            assert_eq!(next, confirmed + 1, "nothing is pending after a restart");
            for nonce in acknowledged + 1..=acknowledged + DEPTH {
                let reply = wallet.spend(account, "sink", 1, nonce, &format!("k-{nonce}")).ok();
                assert_eq!(reply.replayed(), nonce <= confirmed, "{account} {nonce}: {reply}");
            }
            spent[index] = acknowledged + DEPTH;
            assert_eq!(wallet.balance(account), 1_000_000 - u128::from(spent[index]));
        }
        assert_eq!(wallet.balance("sink"), u128::from(spent.iter().sum::<u64>()), "round {round}: the books balance");
    }
}

/// Balances and nonces of some accounts.
fn books(server: &Server, accounts: &[String]) -> Vec<(u128, (u64, u64))> {
    let mut wallet = server.wallet();
    accounts.iter().map(|account| (wallet.balance(account), wallet.seq(account))).collect()
}

#[test]
fn another_number_of_cores_has_the_same_books_and_receipts() {
    let mut server = Server::with(&[("runtime.cores", "1")]);
    let accounts: Vec<String> = (0..30).map(|number| format!("acct/{number}")).collect();
    let mut wallet = server.wallet();
    accounts.iter().for_each(|account| drop(wallet.issue(account, 1_000)));
    let mut receipts = Vec::new();
    for round in 0..90u64 {
        let (from, to) = (&accounts[round as usize % 30], &accounts[(round as usize * 7 + 11) % 30]);
        receipts.push(wallet.spend(from, to, u128::from(round) + 1, round / 30 + 1, &format!("k-{round}")).ok());
    }
    let before = books(&server, &accounts);
    assert_eq!(before.iter().map(|(balance, _)| balance).sum::<u128>(), 30_000);
    for cores in ["auto", "1", "auto"] {
        server.stop();
        server.set("runtime.cores", cores);
        server.launch();
        assert_eq!(books(&server, &accounts), before, "on {cores} cores");
        let mut wallet = server.wallet();
        for receipt in &receipts {
            assert_eq!(wallet.tx(&receipt.txid()).ok().body, receipt.body);
        }
    }
}

#[test]
fn a_second_server_on_one_ledger_refuses_and_leaves_the_first_alone() {
    let first = Server::start();
    first.wallet().issue("a", 5);
    let mut second = Server::prepared(&[]);
    second.set("deps.ledger_sock", &format!("embedded:{}", first.path("ledger").display()));
    let exit = second.launch_refused();
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    // Whatever reads the log finds the reason in it, as its last line.
    let lines: Vec<serde_json::Value> = exit.log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["level"], &last["event"], &last["service"]),
        (&"ERROR".into(), &"fatal".into(), &"svc-wallet".into()),
        "{last}"
    );
    for part in ["another server", &first.path("ledger").display().to_string()] {
        assert!(last["message"].as_str().unwrap().contains(part), "{part:?} is missing: {last}");
    }
    let mut wallet = first.wallet();
    wallet.spend("a", "b", 1, 1, "k").ok();
    assert_eq!(wallet.balance("a"), 4);
}

#[test]
fn a_second_server_on_one_port_refuses() {
    let first = Server::start();
    for (key, address) in [("bind.http", first.http), ("bind.metrics", first.control)] {
        let mut second = Server::prepared(&[(key, &address.to_string())]);
        let exit = second.launch_refused();
        assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
        assert!(exit.log.contains(key) && exit.log.contains(&address.to_string()), "{}", exit.log);
    }
    first.connect().assert_usable("the first server");
}

/// A ledger of forty single-entry batches, one block each behind two blocks of header.
fn small_ledger(server: &Server) -> Vec<Reply> {
    let mut wallet = server.wallet();
    let mut receipts = vec![wallet.issue("a", 1_000)];
    receipts.extend((1..40).map(|nonce| wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok()));
    receipts
}

const BLOCK: u64 = 4096;

/// Where the batch of the entry with this number begins.
fn batch_at(number: u64) -> u64 {
    (2 + number - 1) * BLOCK
}

fn flip(path: &Path, at: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

#[test]
fn a_bit_that_flipped_inside_the_ledger_is_refused_with_file_and_offset() {
    let mut server = Server::start();
    small_ledger(&server);
    server.kill();
    let segment = server.segment(1);
    // In the header of a batch, in its hash chain, in its body, in the first batch and in the last but one.
    for (number, within, bit) in [(20, 0, 1), (20, 100, 8), (20, 192 + 30, 2), (20, 192 + 200, 128), (1, 40, 1), (39, 250, 4)] {
        let at = batch_at(number) + within;
        flip(&segment, at, bit);
        let exit = server.launch_refused();
        assert_eq!(exit.status.code(), Some(1), "entry {number}, byte {at}: {}", exit.log);
        let offset = format!("at byte {}", batch_at(number));
        for part in [segment.file_name().unwrap().to_str().unwrap(), &offset, "damaged", "ronctl"] {
            assert!(exit.log.contains(part), "entry {number}, byte {at}: {part:?} is missing: {}", exit.log);
        }
        flip(&segment, at, bit);
    }
    server.launch();
    assert_eq!(server.wallet().balance("b"), 39);
}

#[test]
fn a_last_batch_that_was_cut_short_is_cleared_away() {
    let mut server = Server::start();
    let receipts = small_ledger(&server);
    server.kill();
    let segment = server.segment(1);
    let whole = std::fs::read(&segment).unwrap();
    let (last, end) = (batch_at(40) as usize, batch_at(41) as usize);
    let used = end - whole[last..end].iter().rev().take_while(|byte| **byte == 0).count();
    let epoch = std::fs::read(server.path("ledger/epoch")).unwrap();
    // The write stopped after some bytes: in the header, between header and body, in the body, one byte before its end. And
    // once the file itself ends there, as after a crash of a file system that had not allocated it.
    for (cut, shortened) in [(last + 1, false), (last + 100, false), (last + 192, false), (used - 40, true), (used - 1, false)] {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        if shortened {
            bytes.truncate(cut);
        }
        std::fs::write(&segment, bytes).unwrap();
        // Each try starts from the state that the crash left, as if the others had not been.
        std::fs::write(server.path("ledger/epoch"), &epoch).unwrap();
        // A write that is interrupted has no witness yet, and is not counted.
        let _ = std::fs::remove_file(server.path("ledger/witness"));
        std::fs::remove_dir_all(server.path("accounting")).unwrap();
        server.launch();
        assert!(server.log().contains("interrupted write"), "cut at {cut}: {}", server.log());
        let mut wallet = server.wallet();
        assert_eq!((wallet.balance("b"), wallet.seq("a")), (38, (38, 39)), "cut at {cut}");
        wallet.tx(&receipts[39].txid()).refused(404, "NOT_FOUND");
        assert_eq!(wallet.tx(&receipts[38].txid()).ok().body, receipts[38].body);
        // Its nonce is free again, and what is written now is there the next time.
        let other = wallet.spend("a", "c", 2, 39, "instead").ok();
        server.crash_and_restart();
        let mut wallet = server.wallet();
        assert_eq!(wallet.tx(&other.txid()).ok().body, other.body, "cut at {cut}");
        assert_eq!((wallet.balance("b"), wallet.balance("c")), (38, 2), "cut at {cut}");
        server.kill();
    }
}

#[test]
fn a_ledger_whose_acknowledged_end_is_missing_is_refused() {
    let mut server = Server::start();
    small_ledger(&server);
    // An orderly end notes how far the ledger reached, so the loss of its last batch cannot pass for an interrupted write.
    server.stop();
    let segment = server.segment(1);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[batch_at(40) as usize..].fill(0);
    std::fs::write(&segment, bytes).unwrap();
    let exit = server.launch_refused();
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    assert!(exit.log.contains("segment-0000000001.log") && exit.log.contains("40"), "{}", exit.log);
}

#[test]
fn sigterm_drops_readiness_first_finishes_what_is_in_flight_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::with(&[("timeouts.write_ms", "20000"), ("timeouts.read_ms", "20000")]);
        let mut wallet = server.wallet();
        wallet.issue("a", 1_000);
        // A request that is not complete holds the drain until its client leaves.
        let mut held = server.connect();
        held.send("POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
        let mut idle = server.connect();
        idle.assert_usable("before the signal");
        let spends: Vec<u8> =
            (1..=64).flat_map(|nonce| wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).bytes()).collect();
        wallet.client.send(spends);
        let first = wallet.client.reply().ok();
        let signalled = Instant::now();
        server.signal(signal);
        // Everything that was sent is answered, with a receipt or with a refusal that says to retry; behind a refusal, nonces
        // are no longer the next ones.
        let mut receipts = vec![first];
        let mut refused = 0;
        for reply in wallet.client.replies(63) {
            match (reply.status, refused) {
                (200, 0) => receipts.push(reply),
                (409, 1..) => drop(reply.refused(409, "NONCE_CONFLICT")),
                _ => {
                    refused += 1;
                    reply.refused(503, "RETRY_LATER");
                }
            }
        }
        let page = eventually("readiness drops while the port still answers", || {
            let reply = server.try_page("/readyz").expect("the control port answers during the drain");
            let json = reply.json();
            (reply.status == 503 && json["draining"] == true && json["writes"] == false).then_some(reply)
        });
        assert!(page.header("Retry-After").is_some(), "{page}");
        assert_eq!(server.page("/healthz").status, 200, "alive while it drains");
        idle.assert_closed("idle connections are closed");
        eventually("the listeners are closed", || Client::try_connect(server.http).is_err().then_some(()));
        assert_eq!(server.page("/readyz").status, 503, "the control port answers to the end");
        drop(held);
        let exit = server.wait_exit();
        assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
        assert!(signalled.elapsed() < Duration::from_secs(15), "{:?}", signalled.elapsed());
        server.launch();
        let mut wallet = server.wallet();
        for receipt in &receipts {
            assert_eq!(wallet.tx(&receipt.txid()).ok().body, receipt.body);
        }
        assert_eq!(wallet.balance("b"), receipts.len() as u128);
    }
}

#[test]
fn a_drain_under_load_ends_soon_and_keeps_every_receipt() {
    const CLIENTS: usize = 6;
    // Far longer than the drain may take: nothing may have to wait for this time to be over.
    let mut server = Server::with(&[("timeouts.write_ms", "25000")]);
    let accounts: Vec<String> = (0..CLIENTS).map(|number| format!("payer:{number}")).collect();
    accounts.iter().for_each(|account| drop(server.wallet().issue(account, 1_000_000)));
    let acknowledged = AtomicUsize::new(0);
    let (http, token) = (server.http, server.token().to_owned());
    let (told, exit, took) = std::thread::scope(|scope| {
        let clients: Vec<_> = accounts
            .iter()
            .map(|account| {
                let (token, acknowledged) = (&token, &acknowledged);
                scope.spawn(move || spend_from((http, token), account, 1, acknowledged))
            })
            .collect();
        eventually("the load runs", || (acknowledged.load(Ordering::Relaxed) > 300).then_some(()));
        let signalled = Instant::now();
        server.signal(Signal::TERM);
        let exit = server.wait_exit();
        let took = signalled.elapsed();
        let told: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (told, exit, took)
    });
    assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    assert!(took < Duration::from_secs(15), "the drain took {took:?}: {}", exit.log);
    server.launch();
    let mut wallet = server.wallet();
    for Told { account, receipts } in &told {
        for (nonce, receipt) in (1..).zip(receipts) {
            let again = wallet.spend(account, "sink", 1, nonce, &format!("k-{nonce}")).ok();
            assert_eq!((again.body == receipt.body, again.replayed()), (true, true), "{account} {nonce}");
        }
        // Nothing that was refused, and nothing that was not answered, was half done.
        let (confirmed, next) = wallet.seq(account);
        assert!((receipts.len() as u64..=receipts.len() as u64 + DEPTH).contains(&confirmed), "{account}");
        assert_eq!((next, wallet.balance(account)), (confirmed + 1, 1_000_000 - u128::from(confirmed)), "{account}");
    }
}

#[test]
fn a_core_without_connections_serves_the_others_to_the_end_of_the_drain() {
    let mut server = Server::with(&[("timeouts.write_ms", "25000")]);
    let mut wallet = server.wallet();
    // Enough accounts that every core has some of them, and one connection: with several cores most have none, and nothing to
    // wait for but what this one still sends them.
    let reads: Vec<u8> =
        (0..32).flat_map(|number| wallet.read(&format!("/v1/balance?account=acct:{number}&asset=roc")).bytes()).collect();
    let took = std::thread::scope(|scope| {
        let (sent, received) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while wallet.client.try_send(&reads).is_ok() {
                for _ in 0..32 {
                    let Ok(reply) = wallet.client.try_reply(false) else { return };
                    reply.ok();
                }
                let _ = sent.send(());
            }
        });
        received.recv().unwrap();
        let signalled = Instant::now();
        server.stop();
        signalled.elapsed()
    });
    assert!(took < Duration::from_secs(15), "the drain took {took:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = Server::with(&[("timeouts.write_ms", "60000"), ("timeouts.read_ms", "60000")]);
        let receipt = server.wallet().issue("a", 10);
        let mut held = server.connect();
        held.send("POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
        server.signal(Signal::TERM);
        eventually("the drain has begun", || (server.try_page("/readyz").ok()?.status == 503).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        let signalled = Instant::now();
        server.signal(second);
        let exit = server.wait_exit();
        assert_eq!(exit.status.code(), Some(code), "{}", exit.log);
        assert!(signalled.elapsed() < Duration::from_secs(10), "{:?}", signalled.elapsed());
        server.launch();
        assert_eq!(server.wallet().tx(&receipt.txid()).ok().body, receipt.body);
    }
}

#[test]
fn a_ledger_of_several_segments_is_read_back_whole() {
    let mut server = Server::start();
    let mut wallet = server.wallet();
    let memo = "m".repeat(256);
    wallet.issue("payer", 1_000_000);
    let mut last = None;
    let mut nonce = 0;
    while !server.segment(2).exists() {
        let spends: Vec<u8> = (0..64)
            .flat_map(|_| {
                nonce += 1;
                let text = body("payer", &"t".repeat(256), 1, nonce).replace('}', &format!(r#","memo":"{memo}"}}"#));
                request("POST", "/v1/transfer").token(server.token()).key(&format!("{nonce:0>64}")).json(text).bytes()
            })
            .collect();
        wallet.client.send(spends);
        last = wallet.client.replies(64).pop();
        assert!(nonce < 64_000, "a segment of 8 MiB does not fill up");
    }
    let last = last.unwrap().ok();
    server.crash_and_restart();
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance("payer"), wallet.seq("payer")), (1_000_000 - u128::from(nonce), (nonce, nonce + 1)));
    assert_eq!(wallet.tx(&last.txid()).ok().body, last.body);
    // Damage in a sealed segment is found even if it is in its last batch.
    server.kill();
    let segment = server.segment(1);
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    flip(&segment, at, 1);
    let exit = server.launch_refused();
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    assert!(exit.log.contains("segment-0000000001.log") && exit.log.contains("at byte"), "{}", exit.log);
}
