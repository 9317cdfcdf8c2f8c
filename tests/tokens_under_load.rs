//! Bad tokens of every kind among good spends, on all cores at once: each is answered right, good ones go on, and the books say that
//! nothing but the good ones took effect. Beside that, one capability in use is revoked, taken back, and revoked over a restart.
//!
//! What the flood costs good traffic is measured by `loadtest compare tokens`; no time decides here.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine as _;
use macaroon::{Format, Macaroon};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{body, eventually, request, Server, Wallet};

const SPENDERS: usize = 4;
const STRANGERS: usize = 3;
const SPENDS: u64 = 400;

fn narrowed(token: &str, caveat: &str) -> String {
    let mut macaroon = Macaroon::deserialize(token).unwrap();
    macaroon.add_first_party_caveat(caveat.into());
    macaroon.serialize(Format::V2).unwrap()
}

/// Tokens that have to be refused with UNAUTHORIZED, and one that its holder has narrowed to reading.
fn bad(server: &Server, round: u64) -> Vec<(&'static str, String, u16)> {
    let whole = server.token();
    let bytes = URL_SAFE_NO_PAD.decode(whole).unwrap();
    let mut flipped = bytes.clone();
    let bit = (round * 37) as usize % (8 * bytes.len());
    flipped[bit / 8] ^= 1 << (bit % 8);
    let cut = (round as usize * 13) % (whole.len() - 1);
    vec![
        ("flipped", URL_SAFE_NO_PAD.encode(flipped), 401),
        ("cut", whole[..cut].to_owned(), 401),
        ("expired", narrowed(whole, "exp = 2020-01-01T00:00:00Z"), 401),
        ("not yet", narrowed(whole, "nbf = 2099-01-01T00:00:00Z"), 401),
        ("elsewhere", narrowed(whole, "aud = svc-storage"), 401),
        ("narrowed", narrowed(whole, "scope = wallet:read"), 403),
        ("new caveat", narrowed(whole, &format!("colour = {round}")), 403),
    ]
}

#[test]
fn good_spends_go_on_among_bad_tokens_and_only_they_take_effect() {
    let server = Server::with(&[("runtime.cores", "2"), ("timeouts.idle_ms", "10m")]);
    let stranger = Server::prepared(&[]);
    let revoked = server.mint(|wanted| wanted.subject = "mallory".to_owned());
    server.ronctl_text("cap revoke --subject mallory");
    server.metric_reaches("wallet_revocations", 1.0);
    let mut admin = server.wallet();
    (0..SPENDERS).for_each(|number| drop(admin.issue(&format!("payer:{number}"), u128::from(SPENDS))));
    let (done, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..STRANGERS {
            scope.spawn(|| {
                let mut client = server.connect();
                let mut round = 0u64;
                while !done.load(Ordering::Relaxed) || round < 20 {
                    round += 1;
                    let mut tokens = bad(&server, round);
                    tokens.push(("foreign key", stranger.token().to_owned(), 401));
                    tokens.push(("revoked", revoked.clone(), 401));
                    for (name, token, status) in tokens {
                        // Each would be a good spend of the first payer if it were let through.
                        let (nonce, key) = (1, format!("bad-{round}"));
                        let spend = request("POST", "/wallet/spend").token(&token).key(&key);
                        let reply = client.call(&spend.json(body("payer:0", "thief", 1, nonce)));
                        assert_eq!(reply.status, status, "{name}: {reply}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let spenders: Vec<_> = (0..SPENDERS)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    let mut wallet = server.wallet();
                    for nonce in 1..=SPENDS {
                        wallet.spend(&format!("payer:{number}"), "payee", 1, nonce, &format!("good-{nonce}")).ok();
                    }
                })
            })
            .collect();
        let ended: Vec<_> = spenders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert_eq!(admin.balance("payee"), SPENDERS as u128 * u128::from(SPENDS));
    assert_eq!(admin.balance("thief"), 0);
    let refused = refused.into_inner() as f64;
    server.metric_reaches("rejected_total{reason=\"cap\"}", refused);
    // The log has said why, and without a token.
    let log = server.log();
    let told = log.lines().filter(|line| line.contains("\"event\":\"denied\"")).count();
    assert!(told > 0 && told as f64 <= refused, "{told} lines for {refused} refusals");
    for token in [server.token(), stranger.token(), revoked.as_str()] {
        assert!(!log.contains(token) && !log.contains(&token[..token.len() / 2]), "a token is in the log");
    }
}

#[test]
fn what_is_revoked_in_use_is_refused_on_every_core_until_it_is_taken_back() {
    let mut server = Server::with(&[("runtime.cores", "2"), ("timeouts.idle_ms", "10m")]);
    let token = server.mint(|wanted| wanted.subject = "alice".to_owned());
    let read = |account: &str, token: &str| request("GET", &format!("/v1/seq?account={account}")).token(token);
    // Many connections, so that both cores have some; each has used the token before.
    let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
    let mut all_answer = |status: u16| {
        eventually(&format!("every connection is answered {status}"), || {
            let told: Vec<u16> = clients.iter_mut().map(|client| client.call(&read("a", &token)).status).collect();
            told.iter().all(|told| *told == status).then_some(())
        });
    };
    let narrower = narrowed(&token, "account = a");
    let mut other = server.connect();
    all_answer(200);
    other.call(&read("a", &narrower)).ok();
    let key = svc_wallet::access::inspect(&token).unwrap().key_id;
    let id = svc_wallet::access::inspect(&token).unwrap().token_id;
    for what in [["--token-id", &id], ["--subject", "alice"], ["--key-id", &key]] {
        let told = server.ronctl_json(&format!("cap revoke {}", what.join(" ")));
        assert_eq!(told["in_force"], true);
        other.call(&read("a", &narrower)).refused(401, "UNAUTHORIZED");
        all_answer(401);
        server.ronctl_text(&format!("cap revoke --undo {} {}", what[0], what[1]));
        all_answer(200);
        other.call(&read("a", &narrower)).ok();
    }
    // A damaged file leaves the list in force, is logged and counted, and refuses the next start.
    server.ronctl_text(&format!("cap revoke --token-id {id}"));
    all_answer(401);
    let path = server.path("wallet.revocations");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() - 9]).unwrap();
    server.metric_reaches("wallet_reloads_total{what=\"revocations\",outcome=\"failed\"}", 1.0);
    assert!(server.log().contains("\"event\":\"revocations_failed\""), "{}", server.log());
    all_answer(401);
    drop(clients);
    drop(other);
    server.stop();
    let exit = server.launch_refused();
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    assert!(exit.log.contains("wallet.revocations") && exit.log.contains("ronctl cap revoke"), "{}", exit.log);
    std::fs::write(&path, &good).unwrap();
    server.launch();
    let mut wallet = Wallet::new(server.connect(), token.clone());
    wallet.get("/v1/seq?account=a").refused(401, "UNAUTHORIZED");
    // A signal has the file read again although nothing is new about it.
    let before = server.metric("wallet_reloads_total{what=\"revocations\",outcome=\"ok\"}");
    server.signal(rustix::process::Signal::HUP);
    server.metric_reaches("wallet_reloads_total{what=\"revocations\",outcome=\"ok\"}", before + 1.0);
    server.ronctl_text(&format!("cap revoke --undo --token-id {id}"));
    eventually("it is believed again", || (wallet.get("/v1/seq?account=a").status == 200).then_some(()));
}

#[test]
fn a_list_that_the_server_does_not_take_is_no_success() {
    let server = Server::start();
    let config = server.path("svc-wallet.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert_eq!(text.matches("wallet.revocations").count(), 1, "{text}");
    std::fs::write(&config, text.replace("wallet.revocations", "elsewhere.revocations")).unwrap();
    let output = server.ronctl("cap revoke --subject alice");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("elsewhere.revocations is written, but the server has not taken it within 3 s"), "{told}");
}

#[test]
fn every_kind_of_revocation_outlives_a_restart_and_a_list_that_has_gone_refuses_it() {
    let mut server = Server::with(&[("runtime.cores", "2")]);
    let of_key = server.token().to_owned();
    let key = svc_wallet::access::inspect(&of_key).unwrap().key_id;
    server.ronctl_text("kms rotate");
    let [of_id, of_subject, good] = ["alice", "eve", "alice"].map(|subject| {
        server.ronctl_text(&format!("cap mint --subject {subject} --scopes wallet:* --ttl 900s")).trim().to_owned()
    });
    let id = svc_wallet::access::inspect(&of_id).unwrap().token_id;
    let bad: Vec<String> =
        [&of_key, &of_id, &of_subject].into_iter().flat_map(|token| [token.clone(), narrowed(token, "account = a")]).collect();
    // Each on connections of its own, so that both cores are asked.
    let answers = |server: &Server, status: u16| {
        for token in bad.iter().cycle().take(8 * bad.len()) {
            let read = request("GET", "/v1/seq?account=a").token(token);
            assert_eq!(server.connect().call(&read).status, status, "{token}");
        }
        server.connect().call(&request("GET", "/v1/seq?account=a").token(&good)).ok();
    };
    answers(&server, 200);
    for what in [["--token-id", &id], ["--subject", "eve"], ["--key-id", &key]] {
        server.ronctl_text(&format!("cap revoke {}", what.join(" ")));
    }
    server.metric_reaches("wallet_revocations", 3.0);
    answers(&server, 401);
    for _ in 0..2 {
        server.stop();
        server.launch();
        answers(&server, 401);
    }
    server.kill();
    server.launch();
    answers(&server, 401);
    server.stop();
    std::fs::remove_file(server.path("wallet.revocations")).unwrap();
    let exit = server.launch_refused();
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    assert!(exit.log.contains("wallet.revocations: it is not there any more; put it back, or remove"), "{}", exit.log);
    // Whoever wants nothing to be revoked any more says so.
    std::fs::remove_file(server.path("wallet.revocations.known")).unwrap();
    server.launch();
    answers(&server, 200);
}
