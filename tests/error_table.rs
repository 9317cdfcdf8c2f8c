//! Every row of the error table of the wire contract, provoked from the outside: code, status, `retryable`, the echoed
//! correlation id, and what belongs to the code: `details`, `Retry-After`, `Allow`, `WWW-Authenticate`.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use support::{body, request, Client, Reply, Request, Server};

const CORR: &str = "tests:corr-1";

/// What every error has in common.
fn check(reply: &Reply, status: u16, code: &str, retryable: bool) {
    let json = reply.json();
    assert_eq!((reply.status, json["code"].as_str()), (status, Some(code)), "{reply}");
    assert_eq!(json["http"].as_u64(), Some(u64::from(status)), "{reply}");
    assert_eq!(json["retryable"].as_bool(), Some(retryable), "{reply}");
    assert!(json["message"].as_str().is_some_and(|message| message.len() > 10), "{reply}");
    assert_eq!(json["corr_id"].as_str(), reply.header("X-Corr-ID"), "{reply}");
    assert_eq!(reply.header("Content-Type"), Some("application/json"), "{reply}");
    assert_eq!(reply.header("Retry-After").is_some(), retryable, "{reply}");
    assert_eq!(reply.header("Allow").is_some(), code == "METHOD_NOT_ALLOWED", "{reply}");
    assert_eq!(reply.header("WWW-Authenticate").is_some(), code == "UNAUTHORIZED", "{reply}");
    assert_eq!(json.get("details").is_some(), code == "NONCE_CONFLICT", "{reply}");
    // The order of the contract, compact: clients without a JSON parser look for it.
    let text = String::from_utf8(reply.body.clone()).unwrap();
    let places =
        ["{\"code\":\"", ",\"http\":", ",\"message\":\"", ",\"retryable\":", ",\"corr_id\":\""].map(|part| text.find(part));
    assert!(places.iter().all(Option::is_some) && places.windows(2).all(|pair| pair[0] < pair[1]), "{text}");
    for inner in ["/tmp", "panicked", "src/"] {
        assert!(!text.contains(inner), "{text}");
    }
}

/// Sends a request with a correlation id, checks the error and that the connection can still be used.
fn refuse(client: &mut Client, request: Request, status: u16, code: &str) -> Reply {
    let reply = client.call(&request.header("X-Corr-ID", CORR));
    check(&reply, status, code, matches!(code, "BUSY" | "RETRY_LATER" | "UPSTREAM_UNAVAILABLE"));
    assert_eq!(reply.header("X-Corr-ID"), Some(CORR), "{reply}");
    client.assert_usable(code);
    reply
}

#[test]
fn bad_request() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let good = body("a", "b", 1, 1);
    let unknown = good.replace("nonce", "nonse");
    let zero = good.replace("\"1\"", "\"0\"");
    for request in [
        wallet.write("/v1/transfer", "k", "{"),
        wallet.write("/v1/transfer", "k", &unknown),
        wallet.write("/v1/transfer", "k", &zero),
        wallet.write("/v1/transfer", "no spaces in keys", &good),
        request("POST", "/v1/transfer").token(server.token()).json(good.clone()),
        wallet.read("/v1/balance?account=a"),
    ] {
        refuse(&mut wallet.client, request, 400, "BAD_REQUEST");
    }
    wallet.spend("a", "b", 1, 1, "k").ok();
}

#[test]
fn unauthorized() {
    let server = Server::start();
    let stranger = Server::prepared(&[]);
    let mut client = server.connect();
    let whole = server.token();
    let mut damaged = whole.to_owned().into_bytes();
    let last = damaged.len() - 3;
    damaged[last] = if damaged[last] == b'A' { b'B' } else { b'A' };
    let tokens = [
        String::new(),
        "not-a-macaroon".to_owned(),
        "x".repeat(9000),
        String::from_utf8(damaged).unwrap(),
        whole[..whole.len() / 2].to_owned(),
        stranger.token().to_owned(),
        server.mint_expired(),
        server.mint(|wanted| wanted.audience = "another-service".to_owned()),
    ];
    let read = || request("GET", "/v1/seq?account=a");
    for token in tokens {
        let reply = refuse(&mut client, read().token(&token), 401, "UNAUTHORIZED");
        assert!(reply.header("WWW-Authenticate").unwrap().starts_with("Bearer"), "{reply}");
    }
    refuse(&mut client, read(), 401, "UNAUTHORIZED");
    refuse(&mut client, read().header("Authorization", "Basic YTpi"), 401, "UNAUTHORIZED");
    // The scheme has no case (RFC 9110, 11.1).
    client.call(&read().header("Authorization", &format!("bearer {whole}"))).ok();
}

/// The token with one more caveat, as any holder can add it.
fn narrowed(token: &str, caveat: &str) -> String {
    let mut macaroon = macaroon::Macaroon::deserialize(token).unwrap();
    macaroon.add_first_party_caveat(caveat.into());
    macaroon.serialize(macaroon::Format::V2).unwrap()
}

#[test]
fn forbidden() {
    let mut server = Server::prepared(&[]);
    server.set_policy(
        r#"{"version": 1, "operations": ["issue", "transfer", "hold", "capture", "release"], "assets": {"roc": {}, "ron": {}}}"#,
    );
    server.launch();
    let mut wallet = server.wallet();
    wallet.issue("a:1", 100);
    let spend = || body("a:1", "b:1", 1, 1);
    let with = |token: &str| request("POST", "/v1/transfer").token(token).key("k").json(spend());
    // Caveats that the server knows and that do not hold, however they came into the token.
    for caveat in [
        "scope = wallet:read",
        "scope = issue",
        "account = c:*",
        "to = c:*, d",
        "asset = ron",
        "idem = other-*",
        "colour = blue",
        "max_amount",
    ] {
        let token = narrowed(server.token(), caveat);
        refuse(&mut wallet.client, with(&token), 403, "FORBIDDEN");
    }
    let reader = server.mint(|wanted| wanted.scopes = vec!["wallet:read".to_owned()]);
    refuse(&mut wallet.client, with(&reader), 403, "FORBIDDEN");
    let foreign = server.mint(|wanted| wanted.accounts = vec!["b:*".to_owned()]);
    refuse(&mut wallet.client, request("GET", "/v1/balance?account=a:1&asset=roc").token(&foreign), 403, "FORBIDDEN");
    // The policy: an asset that it does not list, an operation that it does not allow.
    let unlisted = wallet.write("/v1/transfer", "k", &spend().replace("roc", "usd"));
    refuse(&mut wallet.client, unlisted, 403, "FORBIDDEN");
    let burn = wallet.write("/v1/burn", "k", r#"{"from":"a:1","asset":"roc","amount_minor":"1","nonce":1}"#);
    refuse(&mut wallet.client, burn, 403, "FORBIDDEN");
    // A narrowing that holds changes nothing.
    let fitting = narrowed(server.token(), "account = a:*, c");
    wallet.client.call(&with(&fitting)).ok();
}

#[test]
fn limits_exceeded() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 10_000_000);
    let burn = wallet.write("/v1/burn", "k", r#"{"from":"a","asset":"roc","amount_minor":"1000001","nonce":1}"#);
    refuse(&mut wallet.client, burn, 403, "LIMITS_EXCEEDED");
    let small = server.mint(|wanted| wanted.max_amount = Some(5));
    let over = request("POST", "/v1/transfer").token(&small).key("k").json(body("a", "b", 6, 1));
    refuse(&mut wallet.client, over, 403, "LIMITS_EXCEEDED");
    let daily = server.mint(|wanted| wanted.daily_ceiling = Some(10));
    let spend = |nonce, key: &str| request("POST", "/v1/transfer").token(&daily).key(key).json(body("a", "b", 6, nonce));
    wallet.client.call(&spend(1, "first")).ok();
    refuse(&mut wallet.client, spend(2, "second"), 403, "LIMITS_EXCEEDED");
    wallet.client.call(&spend(1, "first")).ok();
    // A body over the cap by its declared length: the rest of the connection has no certain meaning.
    for framing in ["Content-Length: 1048577\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n100001\r\n"] {
        let mut client = server.connect();
        client.send(format!("POST /v1/transfer HTTP/1.1\r\nHost: a\r\nX-Corr-ID: {CORR}\r\n{framing}"));
        let reply = client.reply();
        check(&reply, 413, "LIMITS_EXCEEDED", false);
        assert_eq!(reply.header("X-Corr-ID"), Some(CORR), "{reply}");
        assert_eq!(reply.header("Connection"), Some("close"), "{reply}");
        client.assert_closed(framing);
    }
}

#[test]
fn not_found() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let stranger = Server::start();
    let txid = stranger.wallet().issue("a", 1).txid();
    wallet.issue("b", 1);
    for target in
        ["/", "/v1", "/v1/", "/v1/nothing", "/v2/balance", "/v1/spend", "/metrics", "/status", "/v1/balance/", "/V1/seq"]
    {
        let request = wallet.read(target);
        refuse(&mut wallet.client, request, 404, "NOT_FOUND");
    }
    // Ids of another ledger, of nothing, and texts that are no id.
    for id in [txid.as_str(), "tx_00000000000000000000000000", "tx_", "tx_zzz", "x", &"t".repeat(500)] {
        let request = wallet.read(&format!("/v1/tx/{id}"));
        refuse(&mut wallet.client, request, 404, "NOT_FOUND");
    }
}

#[test]
fn method_not_allowed() {
    let server = Server::start();
    let mut client = server.connect();
    for (target, methods, allow) in [
        ("/v1/transfer", ["GET", "HEAD", "PUT", "DELETE"], "POST, OPTIONS"),
        ("/wallet/spend", ["GET", "PATCH", "TRACE", "BREW"], "POST, OPTIONS"),
        ("/wallet/issue", ["GET", "PATCH", "TRACE", "BREW"], "POST, OPTIONS"),
        ("/v1/balance", ["POST", "PUT", "DELETE", "get"], "GET, HEAD, OPTIONS"),
        ("/v1/tx/tx_1", ["POST", "PUT", "DELETE", "PATCH"], "GET, HEAD, OPTIONS"),
        ("/healthz", ["POST", "PUT", "DELETE", "PATCH"], "GET, HEAD, OPTIONS"),
    ] {
        for method in methods {
            let request = request(method, target).header("X-Corr-ID", CORR);
            client.send(request.bytes());
            let reply = if method == "HEAD" { client.reply_to_head() } else { client.reply() };
            assert_eq!(reply.status, 405, "{method} {target}: {reply}");
            assert_eq!(reply.header("Allow"), Some(allow), "{method} {target}: {reply}");
            assert_eq!(reply.header("X-Corr-ID"), Some(CORR), "{method} {target}: {reply}");
            if method != "HEAD" {
                check(&reply, 405, "METHOD_NOT_ALLOWED", false);
            }
            client.assert_usable(method);
        }
    }
}

#[test]
fn insufficient_funds_and_conflicts() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let request = wallet.transfer("a", "b", 101, 1, "over");
    refuse(&mut wallet.client, request, 409, "INSUFFICIENT_FUNDS");
    let request = wallet.transfer("nobody", "b", 1, 1, "over");
    refuse(&mut wallet.client, request, 409, "INSUFFICIENT_FUNDS");
    wallet.spend("a", "b", 10, 1, "one").ok();
    for (nonce, key) in [(1, "other"), (3, "other"), (u64::MAX, "other")] {
        let request = wallet.transfer("a", "b", 1, nonce, key);
        let reply = refuse(&mut wallet.client, request, 409, "NONCE_CONFLICT");
        assert_eq!(reply.json()["details"]["expected"].as_u64(), Some(2), "{reply}");
    }
    let request = wallet.transfer("nobody", "b", 1, 2, "over");
    let reply = refuse(&mut wallet.client, request, 409, "NONCE_CONFLICT");
    assert_eq!(reply.json()["details"]["expected"].as_u64(), Some(1), "{reply}");
    // The same key for anything else: amount, receiver, nonce, memo, operation.
    let with_memo = body("a", "b", 10, 1).replace('}', r#","memo":"x"}"#);
    let burn = r#"{"from":"a","asset":"roc","amount_minor":"10","nonce":1}"#;
    for (path, text) in [
        ("/v1/transfer", body("a", "b", 11, 1)),
        ("/v1/transfer", body("a", "c", 10, 1)),
        ("/wallet/spend", body("a", "b", 10, 2)),
        ("/v1/transfer", with_memo),
        ("/v1/burn", burn.to_owned()),
    ] {
        let request = wallet.write(path, "one", &text);
        refuse(&mut wallet.client, request, 409, "IDEMPOTENCY_CONFLICT");
    }
    assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a")), (90, 10, (1, 2)));
}

#[test]
fn busy_above_the_ceiling_of_requests_in_flight() {
    let server = Server::with(&[("limits.inflight", "1")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1000);
    // Two spends in one packet: while the first waits for the disk, there is no room for the second.
    for round in 0..20u64 {
        let nonce = 2 * round + 1;
        let first = wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}"));
        let second = wallet.transfer("a", "b", 1, nonce + 1, &format!("k-{}", nonce + 1)).header("X-Corr-ID", CORR);
        wallet.client.send([first.bytes(), second.bytes()].concat());
        wallet.client.reply().ok();
        let reply = wallet.client.reply();
        if reply.status == 200 {
            continue;
        }
        check(&reply, 429, "BUSY", true);
        assert_eq!((reply.header("X-Corr-ID"), reply.header("Retry-After")), (Some(CORR), Some("1")));
        // Nothing was used up: the same request is served now, and control pages are served at any load.
        wallet.client.call(&second).ok();
        wallet.client.assert_usable("after BUSY");
        server.metric_reaches("rejected_total{reason=\"busy\"}", 1.0);
        return;
    }
    panic!("two requests of one packet were never in flight together");
}

#[test]
fn busy_above_the_ceiling_of_an_endpoint_while_the_others_have_room() {
    let server = Server::with(&[("limits.inflight_per_endpoint", "transfer=1")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1000);
    // As above; the burn between the two has room.
    for round in 0..20u64 {
        let nonce = 3 * round + 1;
        let first = wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}"));
        let burn = format!(r#"{{"from":"a","asset":"roc","amount_minor":"1","nonce":{}}}"#, nonce + 1);
        let burn = request("POST", "/v1/burn").token(server.token()).key(&format!("k-{}", nonce + 1)).json(burn);
        let second = wallet.transfer("a", "b", 1, nonce + 2, &format!("k-{}", nonce + 2)).header("X-Corr-ID", CORR);
        wallet.client.send([first.bytes(), burn.bytes(), second.bytes()].concat());
        wallet.client.reply().ok();
        wallet.client.reply().ok();
        let reply = wallet.client.reply();
        if reply.status == 200 {
            continue;
        }
        check(&reply, 429, "BUSY", true);
        let message = reply.json()["message"].to_string();
        assert!(message.contains("of this endpoint"), "{message}");
        wallet.client.call(&second).ok();
        return;
    }
    panic!("two transfers of one packet were never in flight together");
}

#[test]
fn retry_later_while_draining() {
    let mut server = Server::prepared(&[]);
    // The notice before the listeners close is short; a machine under load may miss it, so there are several tries.
    for round in 0..5 {
        server.launch();
        let mut wallet = server.wallet();
        if round == 0 {
            wallet.issue("a", 1_000_000);
        }
        let (_, first) = wallet.seq("a");
        server.signal(Signal::TERM);
        let mut refused = None;
        for nonce in first.. {
            let spend = wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).header("X-Corr-ID", CORR);
            wallet.client.send(spend.bytes());
            match wallet.client.try_reply(false) {
                Ok(reply) if reply.status == 200 => {}
                Ok(reply) => {
                    let read = wallet.get("/v1/balance?account=b&asset=roc");
                    refused = Some((reply, read));
                    break;
                }
                Err(_) => break,
            }
        }
        let exit = server.wait_exit();
        assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
        if let Some((reply, read)) = refused {
            check(&reply, 503, "RETRY_LATER", true);
            assert_eq!(reply.header("X-Corr-ID"), Some(CORR));
            assert_eq!(read.status, 200, "reads are served while writes are not: {read}");
            return;
        }
    }
    panic!("no write met the drain");
}

#[test]
fn retry_later_above_the_cap_of_connections() {
    let server = Server::with(&[("limits.connections", "2"), ("runtime.cores", "1")]);
    let mut held = [server.connect(), server.connect()];
    held.iter_mut().for_each(|client| client.assert_usable("within the cap"));
    let mut third = server.connect();
    let reply = third.reply();
    assert_eq!((reply.status, reply.code().as_str()), (503, "RETRY_LATER"), "{reply}");
    assert!(reply.header("Retry-After").is_some() && reply.json()["retryable"] == true, "{reply}");
    third.assert_closed("above the cap");
    server.metric_reaches("wallet_connections_refused_total", 1.0);
    held.iter_mut().for_each(|client| client.assert_usable("still within the cap"));
}

#[test]
fn internal_error_if_the_ledger_cannot_be_read_back() {
    use std::os::unix::fs::FileExt;
    let server = Server::start();
    let mut wallet = server.wallet();
    let receipt = wallet.issue("a", 100);
    let txid = receipt.txid();
    let segment = std::fs::OpenOptions::new().read(true).write(true).open(server.segment(1)).unwrap();
    let mut byte = [0u8];
    // The first batch begins behind two blocks of header; this is inside its body.
    let at = 2 * 4096 + 192 + 40;
    segment.read_exact_at(&mut byte, at).unwrap();
    segment.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let request = wallet.read(&format!("/v1/tx/{txid}"));
    let reply = refuse(&mut wallet.client, request, 500, "INTERNAL_ERROR");
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    assert!(!message.contains("segment"), "details are for the log: {message}");
    assert!(server.log().contains("segment-0000000001.log"), "{}", server.log());
    segment.write_all_at(&byte, at).unwrap();
    assert_eq!(wallet.tx(&txid).ok().body, receipt.body);
}

#[test]
fn the_order_of_checks_is_that_of_the_contract() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    wallet.spend("a", "b", 1, 1, "used").ok();
    // Everything is wrong at first, and each step mends what was found: capability, shape, policy, key, nonce, funds.
    let reader = server.mint(|wanted| wanted.scopes = vec!["wallet:read".to_owned()]);
    let usd = |amount, nonce| body("a", "b", amount, nonce).replace("roc", "usd");
    let spend = |token: &str, key: &str, text: String| request("POST", "/v1/transfer").token(token).key(key).json(text);
    let all = server.token();
    for (request, status, code) in [
        (spend("nonsense", "used", "{".to_owned()), 401, "UNAUTHORIZED"),
        (spend(&reader, "used", "{".to_owned()), 403, "FORBIDDEN"),
        (spend(all, "used", "{".to_owned()), 400, "BAD_REQUEST"),
        (spend(all, "used", usd(1000, 7)), 403, "FORBIDDEN"),
        (spend(all, "used", body("a", "b", 1000, 7)), 409, "IDEMPOTENCY_CONFLICT"),
        (spend(all, "fresh", body("a", "b", 1000, 7)), 409, "NONCE_CONFLICT"),
        (spend(all, "fresh", body("a", "b", 1000, 2)), 409, "INSUFFICIENT_FUNDS"),
    ] {
        refuse(&mut wallet.client, request, status, code);
    }
    wallet.client.call(&spend(all, "fresh", body("a", "b", 99, 2))).ok();
}
