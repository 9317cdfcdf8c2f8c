//! HTTP/1.1 as clients meet it: persistence, pipelining, HEAD and OPTIONS, leave to send a body, codings and their bombs, and
//! what becomes of clients that are slow, idle, too many or too greedy.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use std::io::Write;
use std::time::{Duration, Instant};
use support::{body, request, Client, Request, Server};

const GOOD: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_connection_serves_request_after_request_until_one_says_close() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    for nonce in 1..=50 {
        let reply = wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok();
        assert_eq!(reply.header("Connection"), None, "HTTP/1.1 need not be told: {reply}");
        assert!(reply.header("Date").is_some() && reply.header("X-Wallet-Core").is_some(), "{reply}");
        assert_eq!(wallet.balance("a"), 1_000 - u128::from(nonce), "whoever got a receipt sees its effect");
    }
    let last = wallet.transfer("a", "b", 1, 51, "k-51").header("Connection", "close");
    wallet.client.send([last.bytes(), GOOD.to_vec()].concat());
    let reply = wallet.client.reply().ok();
    assert_eq!(reply.header("Connection"), Some("close"), "{reply}");
    wallet.client.assert_closed("what follows Connection: close is not read");
}

#[test]
fn http_1_0_closes_unless_it_asks_for_more() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().ok().header("Connection"), Some("close"));
    client.assert_closed("HTTP/1.0");
    let mut client = server.connect();
    for _ in 0..3 {
        client.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.reply().ok().header("Connection"), Some("keep-alive"));
    }
    let text = body("a", "b", 1, 1);
    let head = format!("POST /v1/transfer HTTP/1.0\r\nAuthorization: Bearer {}\r\nIdempotency-Key: k\r\n", server.token());
    client.send(format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    client.reply().refused(409, "INSUFFICIENT_FUNDS");
    client.assert_closed("HTTP/1.0 without keep-alive");
}

#[test]
fn pipelined_replies_come_in_the_order_of_their_requests_however_long_each_takes() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let accounts: Vec<String> = (0..10).map(|number| format!("acct:{number}")).collect();
    accounts.iter().for_each(|account| drop(wallet.issue(account, 1_000)));
    // Spends wait for the disk, balances of foreign accounts for another core, the rest for nothing. More than a connection may
    // have in flight.
    let mut requests = Vec::new();
    for round in 1..=20u64 {
        for (number, account) in accounts.iter().enumerate() {
            requests.push(wallet.transfer(account, "sink", 1, round, &format!("k-{round}")));
            requests.push(match number % 4 {
                0 => request("GET", "/healthz"),
                1 => wallet.read(&format!("/v1/balance?account={account}&asset=roc")),
                2 => request("GET", "/nowhere"),
                _ => wallet.read(&format!("/v1/seq?account={account}")),
            });
        }
    }
    let corr = |index: usize| format!("corr-{index}");
    let numbered = requests.iter().enumerate().map(|(index, request)| request.clone().header("X-Corr-ID", &corr(index)));
    wallet.client.send(numbered.flat_map(|request| request.bytes()).collect::<Vec<u8>>());
    for index in 0..requests.len() {
        let reply = wallet.client.reply();
        assert_eq!(reply.header("X-Corr-ID"), Some(corr(index).as_str()), "reply {index}: {reply}");
        let expected = if index % 2 == 1 && (index / 2) % 10 % 4 == 2 { 404 } else { 200 };
        assert_eq!(reply.status, expected, "reply {index}: {reply}");
        if index % 2 == 0 {
            let nonce = (index / 2 / accounts.len()) as u64 + 1;
            assert_eq!(reply.json()["nonce"].as_u64(), Some(nonce), "reply {index}: {reply}");
        }
    }
    assert_eq!(wallet.balance("sink"), 200);
}

#[test]
fn sixty_four_spends_of_one_account_in_one_packet_are_all_served() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 64);
    let spends: Vec<u8> = (1..=64).flat_map(|nonce| wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).bytes()).collect();
    wallet.client.send(spends);
    for (nonce, reply) in (1..).zip(wallet.client.replies(64)) {
        assert_eq!(reply.ok().json()["nonce"].as_u64(), Some(nonce));
    }
    assert_eq!((wallet.balance("a"), wallet.balance("b")), (0, 64));
}

#[test]
fn a_spend_cut_in_two_at_every_byte_is_one_spend() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100_000);
    let length = wallet.transfer("a", "b", 1, 100, "key-100").bytes().len();
    for at in 1..length {
        let nonce = at as u64;
        let spend = wallet.transfer("a", "b", 1, nonce, &format!("key-{nonce:03}")).bytes();
        let (first, second) = spend.split_at(at.min(spend.len() - 1));
        wallet.client.send(first);
        // Without a pause the kernel may join the parts; the framing is proven elsewhere, this is about the connection.
        if at % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        wallet.client.send(second);
        let reply = wallet.client.reply();
        assert_eq!((reply.status, reply.replayed()), (200, false), "cut at {at}: {reply}");
    }
    // And one in single bytes.
    let nonce = length as u64;
    for byte in wallet.transfer("a", "b", 1, nonce, "single").bytes() {
        wallet.client.send([byte]);
    }
    wallet.client.reply().ok();
    assert_eq!(wallet.balance("b"), u128::from(nonce));
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let mut wallet = server.wallet();
    let txid = wallet.issue("a", 7).txid();
    let targets = ["/healthz", "/version", "/nowhere", "/v1/seq?account=nobody", "/v1/seq", &format!("/v1/tx/{txid}")];
    for target in targets {
        let get = wallet.get(target);
        let head = request("HEAD", target).token(server.token()).bytes();
        wallet.client.send([head.clone(), head].concat());
        for _ in 0..2 {
            let head = wallet.client.reply_to_head();
            assert_eq!(head.status, get.status, "{target}");
            assert_eq!(head.header("Content-Type"), get.header("Content-Type"), "{target}");
            let lengths = [&head, &get].map(|reply| reply.header("Content-Length").unwrap().parse::<usize>().unwrap());
            // Times and correlation ids have a fixed width, so the body would have been as long.
            assert_eq!(lengths[0], lengths[1], "{target}: {head} {get}");
        }
        wallet.client.assert_usable(target);
    }
}

#[test]
fn options_tells_what_is_allowed_without_a_capability() {
    let server = Server::start();
    let mut client = server.connect();
    for (target, allow) in [
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("/v1/transfer", "POST, OPTIONS"),
        ("/wallet/spend", "POST, OPTIONS"),
        ("/v1/balance", "GET, HEAD, OPTIONS"),
        ("/readyz", "GET, HEAD, OPTIONS"),
    ] {
        let reply = client.call(&request("OPTIONS", target));
        assert_eq!((reply.status, reply.header("Allow")), (204, Some(allow)), "{target}: {reply}");
        assert_eq!(reply.header("Content-Length"), None, "RFC 9110, 8.6: {reply}");
        client.assert_usable(target);
    }
    client.call(&request("OPTIONS", "/nowhere")).refused(404, "NOT_FOUND");
}

/// A spend whose body is still to be sent, and the body.
fn announced(server: &Server, nonce: u64, framing: &str) -> (Vec<u8>, String) {
    let head = request("POST", "/v1/transfer").token(server.token()).key(&format!("k-{nonce}"));
    let head = head.header("Content-Type", "application/json").header("Expect", "100-continue");
    let text = body("a", "b", 1, nonce);
    let (name, value) = match framing {
        "chunked" => ("Transfer-Encoding", "chunked".to_owned()),
        _ => ("Content-Length", text.len().to_string()),
    };
    let text = if framing == "chunked" { format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()) } else { text };
    (head.header(name, &value).bytes(), text)
}

#[test]
fn a_client_that_waits_gets_leave_to_send_its_body() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let client = &mut wallet.client;
    for (nonce, framing) in [(1, "length"), (2, "chunked")] {
        let (head, text) = announced(&server, nonce, framing);
        client.send(head);
        assert_eq!(client.reply().status, 100, "{framing}");
        client.send(text);
        client.reply().ok();
    }
    // Whoever does not wait is not told; whoever waits behind another request is told after its reply.
    let (head, text) = announced(&server, 3, "length");
    client.send([head, text.into_bytes()].concat());
    client.reply().ok();
    let (head, text) = announced(&server, 4, "length");
    client.send([GOOD.to_vec(), head].concat());
    assert_eq!(client.reply().status, 200);
    assert_eq!(client.reply().status, 100);
    client.send(text);
    client.reply().ok();
    // A body that would be refused is not asked for.
    let head = request("POST", "/v1/transfer").header("Expect", "100-continue").header("Content-Length", "2000000");
    client.send(head.bytes());
    client.reply().refused(413, "LIMITS_EXCEEDED");
    client.assert_closed("too large");
    assert_eq!(server.wallet().balance("b"), 4);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::with(&[("limits.body_max_bytes", "4096")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    for framing in ["Content-Length: 4097\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1001\r\n"] {
        let mut client = server.connect();
        client.send(format!("POST /v1/transfer HTTP/1.1\r\nHost: a\r\n{framing}"));
        client.reply().refused(413, "LIMITS_EXCEEDED");
        client.assert_closed(framing);
    }
    // A client that sends everything at once can still read why.
    let mut client = server.connect();
    client.send(
        [b"POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n".to_vec(), vec![b'x'; 500_000]].concat(),
    );
    client.reply().refused(413, "LIMITS_EXCEEDED");
    // Exactly at the cap it is only JSON that counts.
    let padded = format!("{}{}", body("a", "b", 1, 1), " ".repeat(4096 - body("a", "b", 1, 1).len()));
    wallet.post("/v1/transfer", "k", &padded).ok();
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 19).unwrap()
}

fn encoded(server: &Server, key: &str, coding: &str, bytes: Vec<u8>) -> Request {
    request("POST", "/v1/transfer").token(server.token()).key(key).header("Content-Encoding", coding).json(bytes)
}

#[test]
fn compressed_bodies_are_understood_and_bombs_are_not() {
    type Coder = fn(&[u8]) -> Vec<u8>;
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    for (nonce, (coding, code)) in (1..).zip([("gzip", gzip as Coder), ("deflate", deflate), ("zstd", zstd), ("X-GZIP", gzip)]) {
        let (key, text) = (format!("k-{nonce}"), body("a", "b", 1, nonce));
        wallet.client.call(&encoded(&server, &key, coding, code(text.as_bytes()))).ok();
        // The same in chunks of seven bytes.
        let compressed = code(text.as_bytes());
        let head = request("POST", "/v1/transfer").token(server.token()).key(&key).header("Content-Encoding", coding);
        let mut bytes = head.header("Content-Type", "application/json").header("Transfer-Encoding", "chunked").bytes();
        for piece in compressed.chunks(7) {
            bytes.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        wallet.client.send(bytes);
        assert!(wallet.client.reply().ok().replayed(), "{coding}");
        // Ten times its size is the most that a body may become, and a megabyte; damage is told from that.
        for size in [100_000, 5_000_000] {
            let bomb = code(&vec![b' '; size]);
            wallet.client.call(&encoded(&server, "bomb", coding, bomb)).refused(413, "LIMITS_EXCEEDED");
        }
        let mut damaged = code(text.as_bytes());
        let end = damaged.len();
        damaged.truncate(end - 3);
        wallet.client.call(&encoded(&server, "cut", coding, damaged)).refused(400, "BAD_REQUEST");
        wallet
            .client
            .call(&encoded(&server, "more", coding, [code(text.as_bytes()), vec![1, 2, 3]].concat()))
            .refused(400, "BAD_REQUEST");
        wallet.client.assert_usable(coding);
    }
    assert_eq!(wallet.balance("b"), 4);
}

/// Waits until the server closes, which must not be before `least` has passed; the server counts in whole milliseconds.
fn cut_after(client: &mut Client, least: Duration, started: Instant, what: &str) {
    client.assert_closed(what);
    let took = started.elapsed();
    assert!(took + Duration::from_millis(2) >= least, "{what}: cut after {took:?}, too early");
}

#[test]
fn slow_requests_are_cut_and_counted_and_do_not_keep_others_out() {
    let read = Duration::from_millis(400);
    let server = Server::with(&[("timeouts.read_ms", "400"), ("timeouts.idle_ms", "60000")]);
    let post = "POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n";
    let beginnings = [
        "G",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: ",
        post,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\nab",
    ];
    std::thread::scope(|scope| {
        for beginning in beginnings {
            let mut client = server.connect();
            // One that sends a byte now and then, for ever, and one that falls silent.
            let mut dribbling = server.connect();
            scope.spawn(move || {
                let started = Instant::now();
                client.send(beginning);
                cut_after(&mut client, read, started, beginning);
            });
            scope.spawn(move || {
                let started = Instant::now();
                dribbling.send(beginning);
                let mut watch = Client::from(dribbling.stream().try_clone().unwrap());
                let dribble = std::thread::spawn(move || {
                    while dribbling.try_send(b"a").is_ok() {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
                cut_after(&mut watch, read, started, beginning);
                dribble.join().unwrap();
            });
        }
        let mut wallet = server.wallet();
        wallet.issue("a", 100);
        for nonce in 1..=20 {
            wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok();
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    server.metric_reaches("wallet_slow_clients_total{cause=\"read\"}", 2.0 * beginnings.len() as f64);
}

#[test]
fn idle_connections_are_closed_after_their_own_time_and_not_before() {
    let idle = Duration::from_millis(1_500);
    let server = Server::with(&[("timeouts.read_ms", "200"), ("timeouts.write_ms", "200"), ("timeouts.idle_ms", "1500")]);
    let started = Instant::now();
    let mut silent = server.connect();
    let mut used = server.connect();
    used.assert_usable("first");
    // Far longer than reading or writing may take, and still within the time between requests.
    std::thread::sleep(Duration::from_millis(700));
    let last = Instant::now();
    used.assert_usable("a connection may idle longer than a request may take");
    cut_after(&mut silent, idle, started, "never used");
    cut_after(&mut used, idle, last, "used and left");
    server.metric_reaches("wallet_connections_closed_total{cause=\"idle\"}", 2.0);
    assert_eq!(server.metric("wallet_slow_clients_total{cause=\"read\"}"), 0.0);
    assert_eq!(server.metric("wallet_slow_clients_total{cause=\"write\"}"), 0.0);
}

#[test]
fn a_client_that_does_not_read_is_cut_and_others_are_served() {
    let server = Server::with(&[("timeouts.write_ms", "2000")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    let mut greedy = server.connect();
    greedy.stream().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let started = Instant::now();
    let many = GOOD.repeat(1_000);
    // Asks for ever and never reads: first the buffers fill up, then the connection is cut.
    loop {
        match greedy.try_send(&many) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        assert!(started.elapsed() < support::PATIENCE, "the greedy client was not cut");
    }
    server.metric_reaches("wallet_slow_clients_total{cause=\"write\"}", 1.0);
    wallet.spend("a", "b", 1, 1, "k").ok();
}

#[test]
fn a_client_that_leaves_before_its_reply_leaves_nothing_behind() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    for nonce in 1..=20 {
        let mut client = server.connect();
        client.send(wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).bytes());
        drop(client);
        // Whether it was served or not, the request can be repeated.
        wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok();
    }
    assert_eq!((wallet.balance("b"), wallet.seq("a")), (20, (20, 21)));
    drop(wallet);
    support::eventually("nothing is in flight and nobody connected", || {
        (server.metric("inflight") + server.metric("wallet_connections") == 0.0).then_some(())
    });
}
