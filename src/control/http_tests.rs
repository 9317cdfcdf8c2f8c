//! The server of the control plane over real sockets: every page, every refusal, and that nobody can keep a probe out.
use super::*;
use crate::control::{bind_admin, health_body};

fn pages() -> Arc<dyn Pages> {
    Arc::new(|page: Page| match page {
        Page::Health => PageReply::json(health_body("svc-wallet")),
        Page::Ready => PageReply { status: 503, retry_after: Some(1), ..PageReply::json("{\"ready\":false}") },
        Page::Metrics => PageReply::metrics("metric 1\n".repeat(100_000)),
        Page::Version => PageReply::json("{}"),
        Page::Console => PageReply { content_policy: Some("default-src 'none'"), ..PageReply::json("<p>") },
        Page::Policy => PageReply::json("{\"policy\":1}"),
        Page::Status => PageReply::json("{\"status\":1}"),
        Page::Registry | Page::Faults | Page::Revocations => PageReply::json("{\"version\":1}"),
    })
}

fn server() -> (ControlServer, SocketAddr) {
    let server = ControlServer::serve_port(TcpListener::bind("127.0.0.1:0").unwrap(), pages()).unwrap();
    let address = server.address().unwrap();
    (server, address)
}

fn exchange(connection: &mut (impl Read + Write), request: &[u8]) -> (u16, String, String) {
    connection.write_all(request).unwrap();
    let mut reply = String::new();
    connection.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply:?}"));
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

fn get(address: SocketAddr, target: &str) -> (u16, String, String) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Request-ID: probe-1\r\n\r\n");
    exchange(&mut TcpStream::connect(address).unwrap(), request.as_bytes())
}

#[test]
fn every_public_page_is_served_and_status_is_not() {
    let (_server, address) = server();
    let (status, head, body) = get(address, "/healthz");
    assert_eq!((status, body.as_str()), (200, r#"{"ok":true,"service":"svc-wallet"}"#));
    assert!(head.contains("x-corr-id: probe-1") && head.contains("connection: close"), "{head}");
    assert!(head.contains("content-type: application/json") && head.contains("content-length: 34"), "{head}");
    let (status, head, _) = get(address, "/readyz");
    assert_eq!(status, 503);
    assert!(head.contains("\r\nretry-after: 1"), "{head}");
    let (status, head, body) = get(address, "/metrics?x=y");
    assert_eq!((status, body.len()), (200, 900_000));
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(get(address, "/version").0, 200);
    let (status, _, body) = get(address, "/status");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["code"], &body["http"], &body["corr_id"]),
        (404, &"NOT_FOUND".into(), &404.into(), &"probe-1".into())
    );
}

#[test]
fn bad_requests_are_refused_in_the_form_of_the_contract() {
    let (_server, address) = server();
    let long_header = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
    let many_headers = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX));
    let cases: [(&str, u16, &str); 12] = [
        ("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405, "METHOD_NOT_ALLOWED"),
        ("options /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "NOT_FOUND"),
        ("GET /healthz HTTP/1.1\nHost: x\n\n", 400, "BAD_REQUEST"),
        // Refused as soon as it is seen: the rest may never come.
        ("GET /healthz HTTP/1.1\r\nHost: x\nA: b", 400, "BAD_REQUEST"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "NOT_FOUND"),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "BAD_REQUEST"),
        ("\u{1}\u{2}\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /healthz HTTP/3.7\r\n\r\n", 400, "BAD_REQUEST"),
        (&long_header, 431, "BAD_REQUEST"),
        (&many_headers, 431, "BAD_REQUEST"),
    ];
    for (request, status, code) in cases {
        let (found, head, body) = exchange(&mut TcpStream::connect(address).unwrap(), request.as_bytes());
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{request:?}");
        assert_eq!(body["corr_id"].as_str().map(str::len), Some(32));
        assert_eq!(head.contains("\r\nallow: GET, HEAD, OPTIONS"), status == 405, "{head}");
    }
}

#[test]
fn options_tells_what_can_be_done_with_a_page_and_with_all_of_them() {
    let (_server, address) = server();
    for target in ["/healthz", "/metrics?x=y", "*"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (status, head, body) = exchange(&mut TcpStream::connect(address).unwrap(), request.as_bytes());
        assert_eq!((status, body.as_str()), (204, ""), "{target}");
        assert!(head.starts_with("HTTP/1.1 204 No Content\r\n") && head.contains("\r\nallow: GET, HEAD, OPTIONS"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("content-type"), "{head}");
    }
}

#[test]
fn correlation_ids_are_those_of_the_api() {
    let (_server, address) = server();
    let echoed = |fields: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let (_, head, _) = exchange(&mut TcpStream::connect(address).unwrap(), request.as_bytes());
        let field = format!("{head}\r\n");
        field.split_once("\r\nx-corr-id: ").unwrap().1.split_once("\r\n").unwrap().0.to_owned()
    };
    let all_that_fit: String = (b'!'..=b'~').map(char::from).filter(|letter| !"\"\\".contains(*letter)).collect();
    for id in [&all_that_fit[..64], &all_that_fit[all_that_fit.len() - 64..], "a/b+c=", "x"] {
        assert_eq!(echoed(&format!("X-Corr-ID: {id}\r\n")), id);
    }
    let too_long = "c".repeat(65);
    for bad in ["a b", "a\"b", "a\\b", "\u{e4}", &too_long] {
        assert_eq!(echoed(&format!("X-Corr-ID: {bad}\r\n")).len(), 32, "{bad:?} is replaced");
        assert_eq!(echoed(&format!("X-Corr-ID: {bad}\r\nX-Correlation-ID: c\r\nX-Request-ID: r\r\n")), "r");
    }
}

#[test]
fn head_has_no_body_and_old_clients_need_no_host() {
    let (_server, address) = server();
    let (status, head, body) = exchange(&mut TcpStream::connect(address).unwrap(), b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: 34"), "{head}");
    assert_eq!(exchange(&mut TcpStream::connect(address).unwrap(), b"GET /healthz HTTP/1.0\r\n\r\n").0, 200);
}

#[test]
fn silent_and_slow_peers_do_not_keep_a_probe_out() {
    let (_server, address) = server();
    let silent: Vec<_> = (0..2 * CONNECTIONS_MAX)
        .map(|number| {
            let mut peer = TcpStream::connect(address).unwrap();
            if number % 2 == 0 {
                peer.write_all(b"GET /metr").unwrap();
            } else {
                // A scraper that asks for a lot and reads nothing.
                peer.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            }
            peer
        })
        .collect();
    let began = Instant::now();
    for _ in 0..CONNECTIONS_MAX {
        assert_eq!(get(address, "/healthz").0, 200);
    }
    assert!(began.elapsed() < CONNECTION_TIME, "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn a_peer_that_sends_a_byte_now_and_then_is_cut_at_the_deadline() {
    let (_server, address) = server();
    let mut peer = TcpStream::connect(address).unwrap();
    let began = Instant::now();
    while began.elapsed() < CONNECTION_TIME + Duration::from_secs(2) {
        if peer.write_all(b"G").is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let lived = began.elapsed();
    assert!(lived >= CONNECTION_TIME && lived < CONNECTION_TIME + Duration::from_secs(1), "{lived:?}");
}

#[test]
fn the_admin_socket_has_the_status_too_and_both_stop_when_dropped() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("admin.sock");
    let admin = ControlServer::serve_admin(bind_admin(&path).unwrap(), pages()).unwrap();
    let request = b"GET /status HTTP/1.1\r\nHost: admin\r\n\r\n";
    let (status, _, body) = exchange(&mut UnixStream::connect(&path).unwrap(), request);
    assert_eq!((status, body.as_str()), (200, "{\"status\":1}"));
    drop(admin);
    assert!(!path.exists());
    let (port, address) = server();
    drop(port);
    assert!(TcpStream::connect(address).is_err());
}
