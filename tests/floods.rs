//! Floods against the running server: bombs, names, half-open and slow connections, churn, pipelines, tokens of every size. What they may
//! take is bounded in bytes and counts, never by a time: the kernel tells the most memory that the process has held since the flood
//! began, and the bounds stand in `docs/SECURITY.md` as well, which is held to them. Meanwhile somebody asks as clients do, over a
//! connection of its own each time; how long an answer takes at the longest is told, and is not judged.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{body, eventually, request, Client, Request, Server};

const MIB: u64 = 1 << 20;
/// Pause between two questions of the witness of a flood.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What each flood may add to the memory of the process, in MiB, as `docs/SECURITY.md` says it.
const BOUNDS: [(&str, u64); 8] = [
    ("decompression bombs", 48),
    ("names by the thousand", 24),
    ("large bodies that never end", 352),
    ("half-open connections", 32),
    ("a megabyte of pipelined requests", 16),
    ("clients that never read", 48),
    ("clients that never read large replies", 24),
    ("tokens of every size", 24),
];

/// Somebody who asks during a flood, and has to be answered.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Witness {
    fn start(server: &Server) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, http) = (stop.clone(), server.http);
        let question = request("GET", "/v1/seq?account=a").token(server.token());
        let thread = std::thread::spawn(move || {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                Client::try_connect(http).unwrap().call(&question).ok();
                (count, longest) = (count + 1, longest.max(began.elapsed()));
                std::thread::sleep(ASK_EVERY);
            }
            (count, longest)
        });
        Self { stop, thread }
    }

    /// How often it was answered, and how long that took at the longest.
    fn end(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The memory of a server before a flood.
struct Before<'a> {
    server: &'a Server,
    bytes: u64,
    witness: Witness,
}

impl<'a> Before<'a> {
    /// Looks at the memory, and lets the kernel begin anew with the most that is held.
    fn flood(server: &'a Server) -> Self {
        std::fs::write(format!("/proc/{}/clear_refs", server.pid().as_raw_nonzero()), "5").unwrap();
        let bytes = held(server, "VmRSS:");
        Self { server, bytes, witness: Witness::start(server) }
    }

    /// Fails if the flood of this name has taken more than it may.
    fn bounded(self, flood: &str) {
        let (_, mib_max) = BOUNDS.iter().find(|(name, _)| *name == flood).unwrap();
        let taken = held(self.server, "VmHWM:").saturating_sub(self.bytes);
        let (count, longest) = self.witness.end();
        println!("{flood}: {} KiB of at most {mib_max} MiB; others were answered {count} times, within {longest:?}", taken >> 10);
        assert!(count > 0, "nobody was answered during the flood");
        assert!(taken <= mib_max * MIB, "{flood} took {} KiB, the bound is {mib_max} MiB", taken >> 10);
    }
}

/// A line of what the kernel tells of the process, in bytes.
fn held(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Open files of the process.
fn files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).unwrap().count()
}

/// A server on two cores, whatever the machine has.
fn server(settings: &[(&str, &str)]) -> Server {
    Server::with(&[&[("runtime.cores", "2")][..], settings].concat())
}

fn gzip_at(level: flate2::Compression, data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    gzip_at(flate2::Compression::fast(), data)
}

#[test]
fn decompression_bombs_take_no_more_memory_than_bodies() {
    const BOMB_BYTES: usize = 96 << 20;
    let server = server(&[]);
    let zeros = vec![b' '; BOMB_BYTES];
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&zeros).unwrap();
    let (gz, zlib, zstd) = (gzip(&zeros), zlib.finish().unwrap(), zstd::stream::encode_all(&zeros[..], 3).unwrap());
    drop(zeros);
    let bombs = [
        ("gzip", gz.clone(), 413),
        ("deflate", zlib, 413),
        ("zstd", zstd, 413),
        // One layer is undone, and what comes out is no JSON; a second one is not.
        ("gzip", gzip_at(flate2::Compression::none(), &gz), 400),
        ("gzip, gzip", gzip(&gz), 415),
        // Many small members, each of which costs a decoder.
        ("gzip", gzip(b" ").repeat(1_000), 400),
    ];
    assert!(bombs.iter().all(|(_, bomb, _)| bomb.len() < MIB as usize), "a bomb fits into a body");
    let before = Before::flood(&server);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (server, bombs) = (&server, &bombs);
            scope.spawn(move || {
                let mut client = server.connect();
                for round in 0..3 {
                    for (coding, bomb, status) in bombs {
                        let request = request("POST", "/v1/transfer").key("k").header("Content-Encoding", coding);
                        let stranger = (worker + round) % 2 == 0;
                        let request = if stranger { request } else { request.token(server.token()) };
                        let expected = if stranger { 401 } else { *status };
                        let reply = client.call(&request.json(bomb.clone()));
                        assert_eq!(reply.status, expected, "{coding}: {reply}");
                    }
                }
            });
        }
    });
    before.bounded("decompression bombs");
    server.wallet().issue("a", 1);
}

#[test]
fn names_by_the_thousand_take_no_memory_that_lasts() {
    let server = server(&[]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let before = Before::flood(&server);
    let mut client = server.connect();
    // Header names that nobody has heard of, as many as a head may have, and one more.
    for round in 0..500 {
        let mut flood = request("GET", "/healthz");
        for number in 0..63 {
            flood = flood.header(&format!("X-{round}-{number}"), "v");
        }
        client.call(&flood).ok();
        if round % 100 == 0 {
            let mut other = server.connect();
            assert_eq!(other.call(&flood.header("X-Last", "v")).status, 431);
            other.assert_closed("a head with too many fields");
        }
    }
    // Field names of a body, and names in a query.
    let fields: Vec<String> = (0..60_000).map(|number| format!("\"n{number}\":{number}")).collect();
    let names = format!("{{{}}}", fields.join(","));
    assert!(names.len() < MIB as usize);
    let query: Vec<String> = (0..1_500).map(|number| format!("n{number}=1")).collect();
    for _ in 0..20 {
        wallet.post("/v1/transfer", "k", &names).refused(400, "BAD_REQUEST");
        wallet.get(&format!("/v1/balance?{}", query.join("&"))).refused(400, "BAD_REQUEST");
    }
    // Accounts that nobody has paid into are asked for, not made.
    for number in 0..2_000 {
        assert_eq!(wallet.balance(&format!("nobody:{number}")), 0);
    }
    before.bounded("names by the thousand");
    wallet.spend("a", "b", 1, 1, "k").ok();
}

#[test]
fn large_bodies_that_never_end_share_one_room() {
    const CONNECTIONS: usize = 400;
    // Nobody is cut for being slow: only the room bounds them.
    let server = server(&[("timeouts.read_ms", "300s")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let before = Before::flood(&server);
    // What a stranger may send before anybody asks for a token, but for the last byte.
    let mut unfinished = format!("POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n").into_bytes();
    unfinished.resize(unfinished.len() + MIB as usize - 1, b' ');
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..CONNECTIONS {
        let mut client = server.connect();
        client.send(&unfinished);
        clients.push(client);
        if number % 50 == 0 {
            // Whoever needs no room is served all the same.
            let nonce = number as u64 / 50 + 1;
            wallet.spend("a", "b", 1, nonce, &format!("k-{nonce}")).ok();
        }
    }
    let refused = server.metric_reaches("rejected_total{reason=\"busy\"}", 100.0);
    assert!(refused < CONNECTIONS as f64 - 150.0, "{refused} of {CONNECTIONS} were refused");
    let counted = "http_requests_total{service=\"svc-wallet\",route=\"unknown\",method=\"other\",status=\"429\"}";
    server.metric_reaches(counted, 100.0);
    // Which of them found room depends on who came first on which core; each refused one is told so.
    let (mut told, mut open) = (0, Vec::new());
    for mut client in clients {
        client.stream().set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        match client.try_reply(false) {
            Ok(reply) => {
                let reply = reply.refused(429, "BUSY");
                assert_eq!((reply.header("Connection"), reply.header("Retry-After")), (Some("close"), Some("1")), "{reply}");
                told += 1;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => open.push(client),
            // It has been cut while it went on sending.
            Err(_) => {}
        }
    }
    assert!(told > 0 && open.len() > 150, "{told} were told, {} have room", open.len());
    before.bounded("large bodies that never end");
    // Those that found room keep it.
    let mut first = open.swap_remove(0);
    first.stream().set_read_timeout(Some(support::PATIENCE)).unwrap();
    first.send(b" ");
    first.reply().refused(401, "UNAUTHORIZED");
    drop(open);
    // And when the others are gone, there is room again.
    let padded = format!("{}{}", body("a", "b", 1, 9), " ".repeat(MIB as usize - 100));
    eventually("a large request is served again", || {
        (server.wallet().post("/v1/transfer", "large", &padded).status == 200).then_some(())
    });
}

#[test]
fn half_open_connections_and_churn_leave_nothing_behind() {
    let server = server(&[("timeouts.read_ms", "300s"), ("timeouts.idle_ms", "300s")]);
    server.wallet().issue("a", 1);
    let files_before =
        eventually("the first connection is gone", || (server.metric("wallet_connections") == 0.0).then(|| files(&server)));
    let before = Before::flood(&server);
    let beginnings: [&[u8]; 4] =
        [b"", b"GET /healthz HT", b"POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{", b"\r\n"];
    let mut open: Vec<Client> = Vec::new();
    for number in 0..4_000 {
        let mut client = server.connect();
        client.send(beginnings[number % 4]);
        // Of ten connections, one stays half open; the others leave in the middle.
        if number % 10 == 0 {
            open.push(client);
        }
    }
    assert_eq!(server.wallet().balance("a"), 1);
    before.bounded("half-open connections");
    // Those of who asked meanwhile are gone.
    server.metric_reaches("wallet_connections", 400.0);
    drop(open);
    eventually("every connection is forgotten", || (server.metric("wallet_connections") == 0.0).then_some(()));
    // The ledger and the control plane open files of their own now and then; a connection that keeps one would leave hundreds.
    let files_after = files(&server);
    assert!(files_after <= files_before + 32, "{files_after} files are open, {files_before} were before");
    assert_eq!(server.metric("inflight"), 0.0);
}

#[test]
fn a_megabyte_of_pipelined_requests_is_answered_in_its_order() {
    let server = server(&[]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let before = Before::flood(&server);
    let mut pipeline = Vec::new();
    let mut count = 0;
    while pipeline.len() < MIB as usize {
        let read = if count % 2 == 0 { request("GET", "/healthz") } else { wallet.read("/v1/seq?account=a") };
        pipeline.extend(read.header("X-Corr-ID", &format!("corr-{count}")).bytes());
        count += 1;
    }
    let mut sender = server.connect();
    let mut receiver = Client::from(sender.stream().try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || sender.send(&pipeline));
        for number in 0..count {
            let reply = receiver.reply().ok();
            assert_eq!(reply.header("X-Corr-ID"), Some(format!("corr-{number}").as_str()), "{reply}");
        }
    });
    assert!(count > 2_000, "{count} requests");
    before.bounded("a megabyte of pipelined requests");
}

#[test]
fn clients_that_never_read_large_replies_take_one_each() {
    let server = server(&[("timeouts.write_ms", "300s")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let payee = "b".repeat(64);
    (1..=120).for_each(|nonce| drop(wallet.spend("a", &payee, 1, nonce, &format!("{nonce:064}")).ok()));
    let page = "/v1/accounts/a/entries?limit=100";
    assert!(wallet.get(page).ok().body.len() > 30_000);
    let before = Before::flood(&server);
    let ask = format!("GET {page} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", server.token());
    let many = ask.repeat(200);
    let mut greedy: Vec<Client> = Vec::new();
    for _ in 0..16 {
        let mut client = server.connect();
        // What the kernel takes is none of the server's, and takes long to fill.
        rustix::net::sockopt::set_socket_recv_buffer_size(client.stream(), 4096).unwrap();
        client.stream().set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        while let Ok(()) = client.try_send(many.as_bytes()) {}
        greedy.push(client);
    }
    // Every page that is made has been made.
    eventually("nothing is in flight", || (server.metric("inflight") == 0.0).then_some(()));
    server.wallet().spend("a", "b", 1, 121, "k").ok();
    before.bounded("clients that never read large replies");
}

#[test]
fn clients_that_never_read_take_what_one_reply_takes() {
    let server = server(&[("timeouts.write_ms", "300s")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let before = Before::flood(&server);
    let many: Vec<u8> = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000);
    let mut greedy: Vec<Client> = Vec::new();
    for _ in 0..40 {
        let mut client = server.connect();
        client.stream().set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        // Until neither end takes any more.
        while let Ok(()) = client.try_send(&many) {}
        greedy.push(client);
    }
    // The first connection may have been idle for too long meanwhile.
    server.wallet().spend("a", "b", 1, 1, "k").ok();
    before.bounded("clients that never read");
}

#[test]
fn tokens_of_every_size_are_refused_and_not_remembered() {
    let server = server(&[]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let good = server.token().to_owned();
    let narrowed = |caveats: usize, bytes: usize| {
        let mut macaroon = macaroon::Macaroon::deserialize(&good).unwrap();
        (0..caveats).for_each(|number| macaroon.add_first_party_caveat(format!("account = {number:0>bytes$},a").into()));
        macaroon.serialize(macaroon::Format::V2).unwrap().trim_end_matches('=').to_owned()
    };
    let read = |token: &str| request("GET", "/v1/seq?account=a").token(token);
    // As many caveats and as long as may be, and one more of each.
    let (most, too_many, too_long) = (narrowed(60, 1), narrowed(62, 1), narrowed(1, 3_000));
    let misses = "wallet_token_cache_total{outcome=\"miss\"}";
    wallet.client.call(&read(&most)).ok();
    for token in [&too_many, &too_long] {
        wallet.client.call(&read(token)).refused(401, "UNAUTHORIZED");
    }
    let before = Before::flood(&server);
    let mut flood: Vec<Request> = Vec::new();
    for number in 0..3_000 {
        let token = match number % 4 {
            0 => "A".repeat(number),
            1 => format!("{good}{number}"),
            2 => format!("{number}{}", &good[number.to_string().len()..]),
            _ => "x".repeat(12_000),
        };
        let discharges = vec![good.as_str(); number % 12].join(",");
        flood.push(read(&token).header("X-Wallet-Discharge", &discharges));
    }
    for request in &flood {
        let reply = wallet.client.call(request);
        assert_eq!((reply.status, reply.code().as_str()), (401, "UNAUTHORIZED"), "{reply}");
    }
    server.metric_reaches(misses, 1_000.0);
    // The two that are good, on the core of each connection that came with one.
    assert!(server.metric("wallet_cached_tokens") <= 4.0, "{} tokens are remembered", server.metric("wallet_cached_tokens"));
    before.bounded("tokens of every size");
    wallet.spend("a", "b", 1, 1, "k").ok();
}

#[test]
fn the_bounds_are_those_that_are_documented() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| flood | bound |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("| "));
    let cells = rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    let told: Vec<String> = cells.map(|row| format!("{} {}", row[0], row[1])).collect();
    let wanted: Vec<String> = BOUNDS.iter().map(|(flood, mib_max)| format!("{flood} {mib_max} MiB")).collect();
    assert_eq!(told, wanted);
}
