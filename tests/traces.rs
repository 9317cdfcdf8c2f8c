//! The spans of recorded traces reach an OpenTelemetry collector, whatever becomes of it, and nobody waits for it. Needs the feature `otlp`.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use support::{eventually, Server};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector: what it was sent, and what it answers to each request in turn, the last of which it goes on with.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start(answers: &'static [(u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let told = requests.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let body = Self::request(&mut stream);
                told.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                let (status, answer) = answers[number.min(answers.len() - 1)];
                let head =
                    format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
                // Whoever asked may be gone.
                let _ = stream.write_all(format!("{head}{answer}").as_bytes());
            }
        });
        Self { url, requests }
    }

    fn request(stream: &mut TcpStream) -> Vec<u8> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut chunk).unwrap();
            bytes.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("POST /v1/traces HTTP/1.0\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Type: application/json"), "{head}");
            let length = head.split_once("\r\nContent-Length: ").unwrap().1;
            if body.len() == length.split("\r\n").next().unwrap().parse::<usize>().unwrap() {
                return body.as_bytes().to_vec();
            }
        }
    }

    /// The spans of all requests.
    fn spans(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        let spans = requests.iter().flat_map(|request| request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap());
        spans.cloned().collect()
    }
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn attribute<'a>(attributes: &'a Value, key: &str) -> &'a Value {
    let found = attributes.as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("{key} is missing in {attributes}"))["value"]
}

#[test]
fn each_request_of_a_recorded_trace_is_a_span_of_it() {
    let collector = Collector::start(&[(200, "{}")]);
    let server = Server::with(&[("traces.otlp", &collector.url)]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 100);
    let spend = |nonce: u64, flags: &str| {
        let corr = format!("corr-{nonce}");
        wallet
            .transfer("alice", "bob", 1, nonce, &format!("k-{nonce}"))
            .header("traceparent", &traceparent(flags))
            .header("X-Corr-ID", &corr)
    };
    let (recorded, not_recorded, refused) = (spend(1, "01"), spend(2, "00"), spend(9, "01"));
    wallet.client.call(&recorded).ok();
    wallet.client.call(&not_recorded).ok();
    wallet.client.call(&refused).refused(409, "NONCE_CONFLICT");
    let spans = eventually("both have come", || Some(collector.spans()).filter(|spans| spans.len() >= 2));
    for (span, (status, corr)) in spans.iter().zip([("200", "corr-1"), ("409", "corr-9")]) {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!(PARENT)), "{span}");
        assert_eq!((&span["name"], &span["kind"], &span["status"]), (&json!("POST transfer"), &json!(2), &json!({})), "{span}");
        let id = span["spanId"].as_str().unwrap();
        assert!(id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()) && id != "0".repeat(16), "{span}");
        let [began, ended] =
            ["startTimeUnixNano", "endTimeUnixNano"].map(|at| span[at].as_str().unwrap().parse::<u64>().unwrap());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(began <= ended && ended <= now && now - began < 3_600_000_000_000, "{span}");
        let attributes = &span["attributes"];
        assert_eq!(attribute(attributes, "http.response.status_code"), &json!({"intValue": status}));
        assert_eq!(attribute(attributes, "http.request.method"), &json!({"stringValue": "POST"}));
        assert_eq!(attribute(attributes, "wallet.route"), &json!({"stringValue": "transfer"}));
        assert_eq!(attribute(attributes, "wallet.corr_id"), &json!({"stringValue": corr}));
        assert!(attribute(attributes, "wallet.core")["intValue"].is_string(), "{span}");
    }
    assert_ne!(spans[0]["spanId"], spans[1]["spanId"]);
    let resource = &collector.requests.lock().unwrap()[0]["resourceSpans"][0]["resource"]["attributes"];
    assert_eq!(attribute(resource, "service.name"), &json!({"stringValue": "svc-wallet"}));
    assert_eq!(attribute(resource, "service.version"), &json!({"stringValue": env!("CARGO_PKG_VERSION")}));
    server.metric_reaches("wallet_spans_total{outcome=\"sent\"}", 2.0);
    // Nothing of a token or an amount is told.
    let told = serde_json::to_string(&spans).unwrap();
    assert!(!told.contains(server.token()) && !told.contains("alice"), "{told}");
}

#[test]
fn a_collector_that_is_busy_is_tried_again_and_one_that_refuses_is_not() {
    let collector = Collector::start(&[
        (503, ""),
        (200, r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"one is too old"}}"#),
        (400, "no"),
        (200, "{}"),
    ]);
    let server = Server::with(&[("traces.otlp", &collector.url)]);
    let mut wallet = server.wallet();
    let mut read = |count: f64, outcome: &str| {
        let balance = support::request("GET", "/v1/balance?account=alice&asset=roc").token(server.token());
        wallet.client.call(&balance.header("traceparent", &traceparent("01"))).ok();
        server.metric_reaches(&format!("wallet_spans_total{{outcome=\"{outcome}\"}}"), count);
    };
    read(1.0, "failed");
    assert_eq!(collector.requests.lock().unwrap().len(), 2, "busy once, and then it rejects the span");
    read(2.0, "failed");
    read(1.0, "sent");
    assert_eq!(collector.requests.lock().unwrap().len(), 4);
    eventually("the log tells each change", || {
        let log = server.log();
        let told = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
        (told("spans_failed") == 2 && told("spans_go_on") == 2).then_some(())
    });
}

#[test]
fn without_its_collector_a_server_serves_and_ends_in_order_and_with_it_the_last_span_is_sent() {
    let gone = format!("http://127.0.0.1:{}", support::free_port());
    let collector = Collector::start(&[(200, "{}")]);
    for url in [&gone, &collector.url] {
        let mut server = Server::with(&[("traces.otlp", url)]);
        let mut wallet = server.wallet();
        wallet.issue("alice", 100);
        for nonce in 1..=20 {
            let spend = wallet.transfer("alice", "bob", 1, nonce, &format!("k-{nonce}"));
            wallet.client.call(&spend.header("traceparent", &traceparent("01"))).ok();
        }
        let exit = server.stop();
        assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    }
    // One that is slow to answer may be sent some of them again.
    let ids: std::collections::BTreeSet<String> = collector.spans().iter().map(|span| span["spanId"].to_string()).collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn the_build_says_that_it_has_the_export() {
    let server = Server::start();
    let version = server.page("/version").json();
    assert!(version["features"].as_array().unwrap().contains(&json!("otlp")), "{version}");
}
