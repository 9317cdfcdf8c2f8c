//! The client against a server in this process: keep-alive, replies in pieces, every way in which a reply can be wrong.
use std::net::TcpListener;
use std::time::Duration;

use super::*;
use crate::operator::fake::{reply, Fake};
use rustix::net::{AddressFamily, SocketType};

fn client(address: SocketAddr) -> Client {
    Client::new(Address::Tcp(address), Duration::from_secs(5))
}

#[test]
fn one_connection_carries_many_exchanges() {
    let fake = Fake::start(vec![vec![reply(200, "X-A: b\r\n", "{\"n\":1}"), reply(409, "", "{\"n\":2}")]]);
    let mut client = client(fake.address);
    let request =
        Request { method: "POST", target: "/v1/issue", headers: &[("Idempotency-Key", "k1")], body: Some("{\"to\":\"a\"}") };
    let first = client.exchange(&request).unwrap();
    assert_eq!((first.status, first.header("x-a"), first.json()["n"].as_u64()), (200, Some("b"), Some(1)));
    let second = client.exchange(&Request::get("/v1/seq?account=a")).unwrap();
    assert_eq!((second.status, second.json()["n"].as_u64()), (409, Some(2)));
    let address = fake.address;
    let requests = fake.finish();
    assert_eq!(
        requests[0],
        format!(
            "POST /v1/issue HTTP/1.1\r\nHost: {address}\r\nIdempotency-Key: k1\r\nContent-Type: application/json\r\n\
             Content-Length: 10\r\n\r\n{{\"to\":\"a\"}}"
        )
    );
    assert!(requests[1].starts_with("GET /v1/seq?account=a HTTP/1.1\r\nHost: "));
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_once() {
    let fake = Fake::start(vec![vec![reply(200, "", "1")], vec![reply(200, "", "2")]]);
    let mut client = client(fake.address);
    assert_eq!(client.exchange(&Request::get("/a")).unwrap().body, b"1");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.exchange(&Request::get("/b")).unwrap().body, b"2");
    assert_eq!(fake.finish().len(), 2);
}

#[test]
fn connection_close_and_interim_replies_are_understood() {
    let mut with_interim = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    with_interim.extend(reply(200, "Connection: close\r\n", "1"));
    let until_close = b"HTTP/1.0 200 OK\r\n\r\nall of it".to_vec();
    let fake = Fake::start(vec![vec![with_interim], vec![until_close]]);
    let mut client = client(fake.address);
    assert_eq!(client.exchange(&Request::get("/a")).unwrap().body, b"1");
    assert_eq!(client.exchange(&Request::get("/b")).unwrap().body, b"all of it");
    fake.finish();
}

#[test]
fn replies_that_are_wrong_are_named_for_what_they_are() {
    let cases: [(&[u8], &str); 6] = [
        (b"SSH-2.0-x\r\n\r\n", "not HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "no number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n12", "more than its Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", "in the middle of a reply"),
    ];
    for (bytes, expected) in cases {
        let fake = Fake::start(vec![vec![bytes.to_vec()]]);
        let message = client(fake.address).exchange(&Request::get("/")).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(&fake.address.to_string()), "{message}");
        fake.finish();
    }
}

#[test]
fn nobody_there_and_nobody_answering_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut patient = Client::new(Address::Tcp(address), Duration::from_millis(40));
    assert!(matches!(patient.exchange(&Request::get("/")), Err(ClientError::TimedOut { .. })));
    // Bound and not listening: nobody is there, and nobody else can take the port.
    let held = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&held).unwrap()).unwrap();
    assert!(matches!(client(address).exchange(&Request::get("/")), Err(ClientError::Connect { .. })));
    let mut unix = Client::new(Address::Unix(PathBuf::from("/nonexistent/admin.sock")), Duration::from_secs(1));
    let message = unix.exchange(&Request::get("/status")).unwrap_err().to_string();
    assert!(message.contains("unix:/nonexistent/admin.sock"), "{message}");
}

#[test]
fn names_in_a_query_are_percent_encoded() {
    assert_eq!(percent_encoded("acct:a/b-c_9"), "acct:a/b-c_9");
    assert_eq!(percent_encoded("a b&c=d%ä"), "a%20b%26c%3Dd%25%C3%A4");
}
