//! Malformed input against the running server: every vector of `vectors/malformed_http.json` and `vectors/smuggling.json` by
//! status and by what becomes of the connection, and a table of JSON bodies, queries and headers that are framed well and wrong in themselves.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use support::{body, request, Request, Server};

#[derive(serde::Deserialize)]
struct Vectors {
    limits: std::collections::BTreeMap<String, usize>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    request: Option<String>,
    request_parts: Option<Vec<(String, usize)>>,
    request_hex: Option<String>,
    status: u16,
    statuses: Option<Vec<u16>>,
    close: bool,
    #[serde(default)]
    accept: bool,
    #[serde(default)]
    accepted: usize,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let hex =
            |text: &String| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
        let parts =
            |parts: &Vec<(String, usize)>| parts.iter().flat_map(|(text, times)| text.repeat(*times).into_bytes()).collect();
        let plain = self.request.as_ref().map(|text| text.clone().into_bytes());
        plain.or_else(|| self.request_parts.as_ref().map(parts)).or_else(|| self.request_hex.as_ref().map(hex)).unwrap()
    }

    /// Whether the last accepted request is a HEAD.
    fn asks_head(&self) -> bool {
        self.request.as_ref().is_some_and(|text| text.starts_with("HEAD"))
    }
}

#[test]
fn every_vector_has_its_status_and_leaves_the_connection_as_it_says() {
    let Vectors { limits, mut cases } = serde_json::from_str(include_str!("vectors/malformed_http.json")).unwrap();
    let smuggling: Vectors = serde_json::from_str(include_str!("vectors/smuggling.json")).unwrap();
    cases.extend(smuggling.cases);
    assert_eq!(limits["body_bytes_max"], 1 << 20, "the server's default");
    assert!(cases.iter().filter(|case| !case.accept).count() >= 60);
    let server = Server::start();
    for case in &cases {
        let Case { name, status, close, accept, .. } = case;
        let mut client = server.connect();
        client.send(case.bytes());
        if case.asks_head() {
            assert_eq!(client.reply_to_head().status, *status, "{name}");
            client.assert_usable(name);
            continue;
        }
        // Requests that are well framed are answered before the one that is not; a token is never sent.
        let before = if *accept { 0 } else { case.accepted };
        for reply in client.replies(before) {
            assert!(matches!(reply.status, 200 | 401), "{name}: {reply}");
        }
        let expected = match (&case.statuses, accept) {
            (Some(statuses), true) => statuses.clone(),
            (Some(_) | None, _) => vec![*status],
        };
        for (index, expected) in expected.iter().enumerate() {
            let reply = client.try_reply(false).unwrap_or_else(|error| panic!("{name}: no reply {index}: {error}"));
            assert_eq!(reply.status, *expected, "{name}: reply {index}: {reply}");
            let last = index + 1 == expected_len(case);
            let announced = reply.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            assert_eq!(announced, *close && last, "{name}: the client is told what becomes of the connection: {reply}");
            if reply.status >= 400 {
                let json = reply.json();
                assert_eq!(json["http"].as_u64(), Some(u64::from(*expected)), "{name}: {reply}");
                assert_eq!(json["corr_id"].as_str(), reply.header("X-Corr-ID"), "{name}: {reply}");
                assert_eq!(reply.header("Allow").is_some(), reply.status == 405, "{name}: {reply}");
            }
        }
        if *close {
            client.assert_closed(name);
        } else {
            client.assert_usable(name);
        }
    }
    let refused = cases.iter().filter(|case| case.status == 400 && case.close).count() as f64;
    server.metric_reaches("rejected_total{reason=\"bad_request\"}", refused);
}

fn expected_len(case: &Case) -> usize {
    case.statuses.as_ref().map_or(1, Vec::len)
}

/// Sends each request twice on one connection, and a good one at the end.
fn refuse_all(server: &Server, cases: &[(Request, u16, &str)]) {
    let mut client = server.connect();
    for (request, status, code) in cases {
        for _ in 0..2 {
            client.call(request).refused(*status, code);
        }
        client.assert_usable(code);
    }
}

#[test]
fn bodies_that_are_not_what_the_contract_says_are_refused_and_the_connection_stays() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let good = body("a", "b", 1, 1);
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let deep = "[".repeat(100_000);
    let texts = [
        String::new(),
        " ".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"text\"".to_owned(),
        "12".to_owned(),
        format!("[{good}]"),
        format!("{good}{good}"),
        format!("{good},"),
        format!("{good}x"),
        deep,
        good.replace('"', "'"),
        swap("}", ",}"),
        swap("}", r#","extra":1}"#),
        swap("}", r#","nonce":1}"#),
        swap("}", r#","seq":1}"#),
        swap("}", r#","from":"a"}"#),
        swap("}", r#","memo":5}"#),
        swap("}", r#","memo":"a\u0000b"}"#),
        swap("}", r#","memo":"a\nb"}"#),
        swap("}", &format!(r#","memo":"{}"}}"#, "m".repeat(257))),
        swap("}", r#","idempotency_key":"a b"}"#),
        swap("}", r#","idempotency_key":7}"#),
        swap(r#""from":"a","#, ""),
        swap(r#""to":"b","#, ""),
        swap(r#""asset":"roc","#, ""),
        swap(r#","nonce":1"#, ""),
        swap(r#""amount_minor":"1","#, ""),
        swap(r#""to":"b""#, r#""to":"a""#),
        swap(r#""to":"b""#, r#""to":"""#),
        swap(r#""to":"b""#, r#""to":"a b""#),
        swap(r#""to":"b""#, r#""to":"ä""#),
        swap(r#""to":"b""#, r#""to":null"#),
        swap(r#""to":"b""#, r#""to":["b"]"#),
        swap(r#""to":"b""#, r#""to":{"b":1}"#),
        swap(r#""to":"b""#, &format!(r#""to":"{}""#, "b".repeat(257))),
        swap(r#""to":"b""#, r#""To":"b""#),
        swap("roc", "ROC"),
        swap("roc", "r-c"),
        swap("roc", ""),
        swap("roc", "rocrocrocrocrocro"),
        swap(r#""1""#, r#""0""#),
        swap(r#""1""#, r#""-1""#),
        swap(r#""1""#, r#""+1""#),
        swap(r#""1""#, r#""1.0""#),
        swap(r#""1""#, r#""1e3""#),
        swap(r#""1""#, r#""01""#),
        swap(r#""1""#, r#"" 1""#),
        swap(r#""1""#, r#""0x1""#),
        swap(r#""1""#, r#""1_000""#),
        swap(r#""1""#, r#""340282366920938463463374607431768211456""#),
        swap(r#""1""#, r#""""#),
        swap(r#""1""#, "0"),
        swap(r#""1""#, "-1"),
        swap(r#""1""#, "1.0"),
        swap(r#""1""#, "1e3"),
        swap(r#""1""#, "1E3"),
        swap(r#""1""#, "01"),
        swap(r#""1""#, "340282366920938463463374607431768211456"),
        swap(r#""1""#, "NaN"),
        swap(r#""1""#, "true"),
        swap(r#""1""#, "null"),
        swap(r#""nonce":1"#, r#""nonce":0"#),
        swap(r#""nonce":1"#, r#""nonce":-1"#),
        swap(r#""nonce":1"#, r#""nonce":1.0"#),
        swap(r#""nonce":1"#, r#""nonce":"1""#),
        swap(r#""nonce":1"#, r#""nonce":null"#),
        swap(r#""nonce":1"#, r#""nonce":18446744073709551616"#),
    ];
    let mut cases: Vec<_> = texts.iter().map(|text| (wallet.write("/v1/transfer", "k", text), 400, "BAD_REQUEST")).collect();
    let mut invalid = good.clone().into_bytes();
    invalid[9] = 0xff;
    cases.push((request("POST", "/v1/transfer").token(server.token()).key("k").json(invalid), 400, "BAD_REQUEST"));
    for (path, text) in [
        ("/v1/issue", swap("}", r#","to":"c"}"#)),
        ("/v1/issue", good.clone()),
        ("/v1/burn", good.clone()),
        ("/v1/hold", swap(r#","nonce":1"#, "")),
        ("/v1/capture", swap(r#""from":"a","#, "")),
        ("/v1/release", swap(r#""to":"b","#, "")),
    ] {
        cases.push((wallet.write(path, "k", &text), 400, "BAD_REQUEST"));
    }
    assert!(cases.len() >= 60);
    refuse_all(&server, &cases);
    assert_eq!((wallet.balance("a"), wallet.seq("a")), (1_000, (0, 1)));
    wallet.spend("a", "b", 1, 1, "k").ok();
}

#[test]
fn headers_and_queries_that_are_not_what_the_contract_says_are_refused_and_the_connection_stays() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let token = server.token();
    let post = || request("POST", "/v1/transfer").token(token);
    let good = body("a", "b", 1, 1);
    let keyed = |key: &str| post().key(key).json(good.clone());
    let typed = |content_type: &str| post().key("k").header("Content-Type", content_type).body(good.clone());
    let encoded = |encoding: &str| keyed("k").header("Content-Encoding", encoding);
    let mut cases = vec![
        (post().json(good.clone()), 400, "BAD_REQUEST"),
        (keyed(""), 400, "BAD_REQUEST"),
        (keyed("\"\""), 400, "BAD_REQUEST"),
        (keyed("\"open"), 400, "BAD_REQUEST"),
        (keyed("a b"), 400, "BAD_REQUEST"),
        (keyed("a/b"), 400, "BAD_REQUEST"),
        (keyed("a,b"), 400, "BAD_REQUEST"),
        (keyed("ä"), 400, "BAD_REQUEST"),
        (keyed(&"k".repeat(65)), 400, "BAD_REQUEST"),
        (keyed("k").key("l"), 400, "BAD_REQUEST"),
        (keyed("k").header("Content-Type", "text/plain"), 400, "BAD_REQUEST"),
        (typed("text/plain"), 400, "BAD_REQUEST"),
        (typed("application/x-www-form-urlencoded"), 400, "BAD_REQUEST"),
        (post().key("k").body(good.clone()), 400, "BAD_REQUEST"),
        (keyed("k").token(token), 400, "BAD_REQUEST"),
        (encoded("br"), 415, "BAD_REQUEST"),
        (encoded("gzip, gzip"), 415, "BAD_REQUEST"),
        (encoded("gzip"), 400, "BAD_REQUEST"),
        (encoded("deflate"), 400, "BAD_REQUEST"),
        (encoded("zstd"), 400, "BAD_REQUEST"),
        (request("POST", "/v1/transfer?x=1").token(token).key("k").json(good.clone()), 400, "BAD_REQUEST"),
    ];
    for target in [
        "/v1/balance",
        "/v1/balance?",
        "/v1/balance?account=a",
        "/v1/balance?asset=roc",
        "/v1/balance?account=&asset=roc",
        "/v1/balance?account=a&asset=",
        "/v1/balance?account=a&asset=roc&x=1",
        "/v1/balance?account=a&account=a&asset=roc",
        "/v1/balance?account=a&asset=roc&",
        "/v1/balance?account=a&asset=ROC",
        "/v1/balance?account=a+b&asset=roc",
        "/v1/balance?account=%61%&asset=roc",
        "/v1/balance?account=%6&asset=roc",
        "/v1/balance?account=%zz&asset=roc",
        "/v1/balance?account=%00&asset=roc",
        "/v1/balance?account=%20&asset=roc",
        "/v1/balance?account=%c3%a4&asset=roc",
        "/v1/balance?Account=a&asset=roc",
        "/v1/balance?account;asset",
        "/v1/seq",
        "/v1/seq?account=",
        "/v1/seq?account=a&asset=roc",
        "/v1/seq?account=a.b",
    ] {
        cases.push((request("GET", target).token(token), 400, "BAD_REQUEST"));
    }
    let long = format!("/v1/seq?account={}", "a".repeat(257));
    cases.push((request("GET", &long).token(token), 400, "BAD_REQUEST"));
    assert!(cases.len() >= 40);
    refuse_all(&server, &cases);
    // Strangers get nothing decoded: who they are comes first.
    for coding in ["gzip", "br"] {
        let stranger = request("POST", "/v1/transfer")
            .key("k")
            .header("Content-Type", "application/json")
            .header("Content-Encoding", coding);
        wallet.client.call(&stranger.body("not gzip")).refused(401, "UNAUTHORIZED");
    }
    // What looks odd and is right.
    for target in
        ["/v1/balance?asset=roc&account=%61", "/wallet/balance?account=a&asset=roc", "/v1/balance?account=a%2Fb:c&asset=roc"]
    {
        wallet.get(target).ok();
    }
    for (nonce, content_type) in (1..).zip(["application/json; charset=utf-8", "APPLICATION/JSON", "application/json;x"]) {
        let key = format!("k-{nonce}");
        let text = body("a", "b", 1, nonce);
        wallet.client.call(&post().key(&key).header("Content-Type", content_type).body(text)).ok();
    }
}

#[test]
fn any_damage_to_a_good_request_is_answered_with_a_status_or_a_closed_connection() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000_000);
    let good = wallet.transfer("a", "b", 1, 1, "k").header("Connection", "close").bytes();
    // A plain generator: which bytes are damaged does not matter, only that they are the same ones next time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.insert(at, b"\r\n\0 :,{}\"0"[random(10)]),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut client = server.connect();
        client.send(&bytes);
        client.finish();
        while let Ok(reply) = client.try_reply(false) {
            assert!((200..=505).contains(&reply.status) && reply.status != 500, "round {round}: {reply}");
        }
    }
    server.connect().assert_usable("after all the damage");
    assert!(wallet.balance("a") >= 999_600, "at most one unit a round was spent");
}
