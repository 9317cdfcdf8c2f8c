//! Proves what the framing of HTTP/1.1 says to good and bad input, and that it never matters how the input was cut.
//!
//! `vectors/malformed_http.json` and `vectors/smuggling.json` hold the single cases. Around them stand properties over generated pipelines and over
//! damaged ones: every way of cutting the same bytes yields the same requests and the same fault. Seeds are printed; a
//! failing one is repeated by `HTTP_SEED=<seed> cargo test --test http_framing`.
#![allow(clippy::unwrap_used)]
mod framing;

use framing::{drive, pipeline, vectors, Case, Outcome, Random};
use std::collections::{BTreeSet, HashSet};
use svc_wallet::http::{Encoding, Framer, Limits, Step};

#[test]
fn every_vector_has_its_outcome() {
    let (cases, limits) = vectors();
    assert!(cases.iter().filter(|case| !case.accept).count() >= 80);
    assert!(cases.iter().filter(|case| case.accept).count() >= 20);
    let mut names = HashSet::new();
    for case in &cases {
        let Case { name, .. } = case;
        assert!(names.insert(name), "{name}: the name is used twice");
        assert!(case.rfc.contains(' '), "{name}: name a document and a section");
        let outcome = drive([&case.bytes()[..]], &limits);
        assert_eq!(outcome.requests.len(), case.accepted, "{name}: {outcome:?}");
        if case.accept {
            assert_eq!(outcome.fault, None, "{name}");
            assert_eq!(outcome.closed, case.close, "{name}");
            assert!(case.close || outcome.left_bytes == 0, "{name}: {} bytes are left", outcome.left_bytes);
            let statuses = case.statuses.clone().unwrap_or_else(|| vec![case.status]);
            assert_eq!((statuses.len(), statuses.last()), (case.accepted, Some(&case.status)), "{name}");
        } else {
            let fault = outcome.fault.unwrap_or_else(|| panic!("{name}: is not refused"));
            assert_eq!((fault.status, fault.close), (case.status, case.close), "{name}: {fault}");
            assert!(fault.message.len() > 20, "{name}: says too little: {fault}");
        }
    }
}

#[test]
fn the_ways_to_smuggle_a_request_are_all_among_the_vectors() {
    let (cases, _) = vectors();
    let classes: BTreeSet<&str> = cases.iter().filter_map(|case| case.class.as_deref()).collect();
    let wanted = [
        "8-bit",
        "CL.0",
        "CL.CL",
        "CL.TE",
        "Connection",
        "Expect",
        "NUL",
        "TE.CL",
        "TE.TE",
        "absolute-form",
        "bare CR",
        "bare LF",
        "chunk extension",
        "chunk size",
        "chunk trailer",
        "duplicate header",
        "obs-fold",
        "request line",
        "space before the colon",
    ];
    assert_eq!(classes.into_iter().collect::<Vec<_>>(), wanted);
    // Whatever is let through was meant: no request of the vectors reaches what is to be smuggled, but one that is a request by itself.
    let limits = Limits::default();
    for case in cases.iter().filter(|case| case.class.is_some()) {
        let smuggled = drive([&case.bytes()[..]], &limits).requests.iter().any(|seen| seen.path == "/v1/seq");
        assert!(!smuggled, "{}: the smuggled request is served", case.name);
    }
}

#[test]
fn every_vector_has_the_same_outcome_however_it_is_cut() {
    let (cases, limits) = vectors();
    let mut random = Random::seeded(11);
    for case in cases {
        let input = case.bytes();
        let whole = drive([&input[..]], &limits);
        if input.len() < 32 * 1024 {
            assert_eq!(drive(input.chunks(1), &limits), whole, "{}: byte by byte", case.name);
        }
        for bytes_max in [7, 100, 5000] {
            assert_eq!(drive(random.pieces(&input, bytes_max), &limits), whole, "{}", case.name);
        }
    }
}

#[test]
fn pipelines_cut_anywhere_yield_the_same_requests() {
    let mut random = Random::seeded(12);
    let limits = Limits::default();
    for _ in 0..20 {
        let (input, requests) = pipeline(&mut random, 4);
        let expected = Outcome { requests, ..Outcome::default() };
        assert_eq!(drive([&input[..]], &limits), expected);
        assert_eq!(drive(input.chunks(1), &limits), expected);
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            assert_eq!(drive([first, second], &limits), expected, "cut at {at}");
        }
    }
    for _ in 0..500 {
        let count = 1 + random.below(30);
        let (input, requests) = pipeline(&mut random, count);
        let pieces = random.pieces(&input, 300);
        assert_eq!(drive(pieces, &limits), Outcome { requests, ..Outcome::default() });
    }
}

#[test]
fn damaged_pipelines_have_one_outcome_however_they_are_cut() {
    let mut random = Random::seeded(13);
    let limits = Limits { head_bytes_max: 400, headers_max: 7, body_bytes_max: 55, ..Limits::default() };
    let (mut refused, mut served) = (0, 0);
    for _ in 0..4000 {
        let (mut input, _) = pipeline(&mut random, 3);
        for _ in 0..1 + random.below(3) {
            let (at, interesting) = (random.below(input.len()), b"\r\n\0 \t:;,0f+-\xff"[random.below(13)]);
            match random.below(4) {
                0 => input[at] = random.next() as u8,
                1 => input[at] = interesting,
                2 => input.insert(at, interesting),
                _ => drop(input.remove(at)),
            }
        }
        let whole = drive([&input[..]], &limits);
        assert_eq!(drive(input.chunks(1), &limits), whole, "{:?}", String::from_utf8_lossy(&input));
        let pieces = random.pieces(&input, 60);
        assert_eq!(drive(pieces, &limits), whole, "{:?}", String::from_utf8_lossy(&input));
        refused += usize::from(whole.fault.is_some());
        served += whole.requests.len();
    }
    assert!(refused > 1000 && served > 1000, "the damage is of both kinds: {refused} refused, {served} served");
}

#[test]
fn leave_to_send_a_body_is_given_once_and_only_to_those_who_wait() {
    let limits = Limits { body_bytes_max: 10, ..Limits::default() };
    let asks = |input: &str, piece: usize| {
        let (mut framer, mut buffer, mut asked) = (Framer::default(), Vec::new(), 0);
        for part in input.as_bytes().chunks(piece) {
            buffer.extend_from_slice(part);
            if let Step::NeedMore { expect_continue } = framer.next(&mut buffer, &limits) {
                asked += usize::from(expect_continue);
            }
        }
        asked
    };
    let head =
        |version: &str, fields: &str| format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n\r\n");
    for (fields, body) in [("Content-Length: 2", "{}"), ("Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n")] {
        let head = head("1.1", fields);
        assert_eq!(asks(&format!("{head}{body}"), 1), 1, "{fields}");
        assert_eq!(asks(&head, head.len()), 1, "{fields}");
        assert_eq!(asks(&format!("{head}{}", &body[..1]), 1000), 0, "{fields}: the body has begun");
    }
    assert_eq!(asks(&head("1.1", "Content-Length: 0"), 1), 0, "there is no body to wait for");
    assert_eq!(asks(&head("1.1", "Content-Length: 11"), 1), 0, "the body is refused");
    assert_eq!(asks(&head("1.0", "Content-Length: 2"), 1), 0, "HTTP/1.0 does not know it");
}

#[test]
fn input_is_looked_at_once() {
    // Whatever has been scanned is spoilt behind the framer's back: if it looked again, it would refuse.
    let limits = Limits::default();
    let (mut framer, mut buffer) = (Framer::default(), b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec());
    for _ in 0..100 {
        assert!(matches!(framer.next(&mut buffer, &limits), Step::NeedMore { .. }));
        buffer.fill(0);
        buffer.extend_from_slice(b"more\r\nX: ");
    }
    let (mut framer, mut buffer) =
        (Framer::default(), b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    let body_at = buffer.len();
    for count in 1..100 {
        let arrived_at = buffer.len();
        buffer.extend_from_slice(b"3\r\nabc\r\n");
        assert!(matches!(framer.next(&mut buffer, &limits), Step::NeedMore { .. }));
        assert!(arrived_at - body_at >= 3 * (count - 1));
        buffer[body_at + 3 * count..].fill(0);
    }
    buffer.extend_from_slice(b"0\r\n\r\n");
    let Step::Request(request) = framer.next(&mut buffer, &limits) else { panic!("the body has ended") };
    assert_eq!(request.body, b"abc".repeat(99));
}

#[test]
fn the_bound_of_a_request_is_enough_for_the_largest_one() {
    let limits = Limits { head_bytes_max: 120, headers_max: 4, body_bytes_max: 500, ..Limits::default() };
    let bound = limits.request_bytes_max();
    let mut random = Random::seeded(14);
    let head = "\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for _ in 0..2000 {
        // Chunks and extensions of any size, without an end: some call must give an answer within the bound.
        let (mut framer, mut buffer) = (Framer::default(), head.as_bytes().to_vec());
        while matches!(framer.next(&mut buffer, &limits), Step::NeedMore { .. }) {
            assert!(buffer.len() <= bound, "{} bytes are buffered, the bound is {bound}", buffer.len());
            let size = 1 + random.below(40);
            let extension = "e".repeat(random.below(30));
            let chunk = format!("{size:x};{extension}\r\n{}\r\n", "x".repeat(size)).into_bytes();
            buffer.extend_from_slice(&chunk[..chunk.len().min(bound + 1 - buffer.len())]);
        }
    }
}

#[test]
fn what_the_worker_asks_about_a_connection() {
    let limits = Limits::default();
    let mut framer = Framer::default();
    let mut buffer = b"\r\n".to_vec();
    assert!(matches!(framer.next(&mut buffer, &limits), Step::NeedMore { .. }));
    assert!(!framer.is_inside_request(buffer.len()), "an empty line is no request");
    for part in [
        "POST / HTTP/1.1\r\n",
        "Host: a\r\nAuthorization: Bearer secret\r\nContent-Encoding: X-GZIP\r\n",
        "Content-Length: 2\r\n\r\n",
        "{",
    ] {
        buffer.extend_from_slice(part.as_bytes());
        assert!(matches!(framer.next(&mut buffer, &limits), Step::NeedMore { .. }));
        assert!(framer.is_inside_request(buffer.len()), "{part:?}");
    }
    buffer.push(b'}');
    let Step::Request(request) = framer.next(&mut buffer, &limits) else { panic!("the request is complete") };
    assert_eq!(request.head.header("authorization"), Some(&b"Bearer secret"[..]));
    assert_eq!(request.head.header("X-None"), None);
    assert_eq!(request.head.encoding(), Ok(Encoding::Gzip));
    assert!(!format!("{:?}", request.head).contains("secret"), "tokens stay out of Debug");
    assert!(!framer.is_inside_request(0));
}

#[test]
fn bounds_are_exact() {
    let limits = Limits { head_bytes_max: 100, headers_max: 3, body_bytes_max: 10, ..Limits::default() };
    let head = |bytes: usize, fields: &str| {
        let unpadded = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}X: \r\n\r\n").len();
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}X: {}\r\n\r\n", "x".repeat(bytes - unpadded))
    };
    let line = |bytes: usize| format!("GET /{}", "x".repeat(bytes - 5));
    for (input, expected) in [
        (head(100, ""), None),
        (head(101, ""), Some(431)),
        (format!("\r\n\r\n{}", head(100, "")), None),
        (format!("\r\n\r\n{}", head(101, "")), Some(431)),
        (head(90, "A:\r\n"), None),
        (head(90, "A:\r\nB:\r\n"), Some(431)),
        (format!("{}0123456789", head(90, "Content-Length: 10\r\n")), None),
        (head(90, "Content-Length: 11\r\n"), Some(413)),
        (format!("{}a\r\n0123456789\r\n0\r\n\r\n", head(90, "Transfer-Encoding: chunked\r\n")), None),
        (format!("{}a\r\n0123456789\r\n1\r\n", head(90, "Transfer-Encoding: chunked\r\n")), Some(413)),
        (line(100), Some(414)),
    ] {
        for piece in [1, 50, input.len()] {
            let outcome = drive(input.as_bytes().chunks(piece), &limits);
            assert_eq!(outcome.fault.map(|fault| fault.status), expected, "{input:?}");
            assert_eq!(outcome.requests.len(), usize::from(expected.is_none()), "{input:?}");
        }
    }
    assert_eq!(drive([line(99).as_bytes()], &limits), Outcome { left_bytes: 99, ..Outcome::default() }, "it may yet end");
}

#[test]
fn content_codings() {
    for (fields, expected) in [
        ("", Ok(Encoding::Identity)),
        ("Content-Encoding: identity\r\n", Ok(Encoding::Identity)),
        ("Content-Encoding:\r\n", Ok(Encoding::Identity)),
        ("Content-Encoding: GZip\r\n", Ok(Encoding::Gzip)),
        ("Content-Encoding: deflate\r\n", Ok(Encoding::Deflate)),
        ("Content-Encoding: zstd\r\n", Ok(Encoding::Zstd)),
        ("Content-Encoding: br\r\n", Err(415)),
        ("Content-Encoding: gzip, gzip\r\n", Err(415)),
        ("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", Err(415)),
        ("Content-Encoding: gzip;q=1\r\n", Err(415)),
    ] {
        let mut buffer = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut framer = Framer::default();
        let Step::Request(request) = framer.next(&mut buffer, &Limits::default()) else { panic!("{fields}") };
        let found = request.head.encoding().map_err(|fault| {
            assert!(!fault.close, "the next request can be read");
            fault.status
        });
        assert_eq!(found, expected, "{fields}");
    }
}
