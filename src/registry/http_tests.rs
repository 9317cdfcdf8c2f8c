//! What a registry may answer, one answer each: what is taken, and what is refused with its reason.
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::registry::fake::{reply, topology, write, Fake};

const TIMEOUT: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_secs(7);

/// What a registry does with a connection.
type Says = Box<dyn Fn(&mut TcpStream) + Send + Sync>;

fn source(url: &str) -> HttpSource {
    HttpSource::new(url, TIMEOUT, WAIT).unwrap()
}

/// The reason for which this answer is refused.
fn refused(answer: String) -> String {
    let fake = Fake::start(move |_, _, stream| write(stream, &answer));
    match source(fake.url()).ask(false) {
        Err(SourceFault::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topology_is_asked_for_with_its_tag_and_a_wait_once_it_was_taken() {
    let heads = std::sync::Arc::<Mutex<Vec<String>>>::default();
    let seen = heads.clone();
    let fake = Fake::start(move |number, head, stream| {
        seen.lock().unwrap().push(head.to_lowercase());
        match number {
            0 | 1 => write(stream, &reply("200 OK", "one", &topology(1))),
            _ => write(stream, "HTTP/1.1 304 Not Modified\r\nETag: \"one\"\r\n\r\n"),
        }
    });
    let mut registry = source(fake.url());
    assert!(matches!(registry.ask(false), Ok(Answer::Topology(found)) if found.version() == 1));
    // As long as nobody has taken it, it is asked for as at first.
    assert!(matches!(registry.ask(false), Ok(Answer::Topology(_))));
    registry.taken();
    for at_once in [false, true] {
        assert!(matches!(registry.ask(at_once), Ok(Answer::Unchanged)));
    }
    registry.taken();
    assert!(matches!(registry.ask(true), Ok(Answer::Unchanged)), "the tag is still known");
    let heads = heads.lock().unwrap();
    for head in &heads[..2] {
        assert!(head.starts_with("get /v1/topology http/1.0\r\n") && !head.contains("if-none-match"), "{head}");
    }
    assert!(heads[2].starts_with("get /v1/topology?wait=7 http/1.0\r\n"), "{}", heads[2]);
    assert!(heads[3].starts_with("get /v1/topology http/1.0\r\n"), "{}", heads[3]);
    assert!(heads[2..].iter().all(|head| head.contains("if-none-match: \"one\"\r\n")), "{heads:?}");
}

#[test]
fn a_registry_may_wait_for_longer_than_an_answer_may_take() {
    let fake = Fake::start(|number, _, stream| match number {
        0 => write(stream, &reply("200 OK", "one", &topology(1))),
        _ => {
            std::thread::sleep(3 * TIMEOUT);
            write(stream, "HTTP/1.1 304 Not Modified\r\n\r\n");
        }
    });
    let mut registry = source(fake.url());
    assert!(matches!(registry.ask(false), Ok(Answer::Topology(_))));
    registry.taken();
    assert!(matches!(registry.ask(false), Ok(Answer::Unchanged)));
    assert!(matches!(registry.ask(true), Err(SourceFault::Unreachable(_))), "unless it was not asked to wait");
}

#[test]
fn a_path_of_the_url_is_kept() {
    let fake = Fake::start(|_, head, stream| {
        let status = if head.starts_with("GET /other/place HTTP") { "200 OK" } else { "404 Not Found" };
        write(stream, &reply(status, "t", &topology(1)));
    });
    assert!(matches!(source(&format!("{}/other/place", fake.url())).ask(false), Ok(Answer::Topology(_))));
    assert!(matches!(source(&format!("{}/", fake.url())).ask(false), Err(SourceFault::Refused(why)) if why.contains("404")));
    assert!(HttpSource::new("http://h\"x", TIMEOUT, WAIT).is_err());
}

#[test]
fn what_is_no_topology_is_refused_with_its_reason() {
    let good = topology(1);
    let huge = " ".repeat(FILE_BYTES_MAX as usize + 1);
    let cases = [
        (reply("200 OK", "t", "garbage"), "is not of the form"),
        (reply("200 OK", "t", &topology(0)), "version 0"),
        (reply("200 OK", "t", &good.replace("16383", "9")), "slot 10 "),
        (reply("200 OK", "t", &huge), "too large"),
        (format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{huge}"), "too large"),
        (reply("500 Internal Server Error", "t", &good), "status 500"),
        (reply("206 Partial Content", "t", &good), "status 206"),
        ("HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(), "304"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "302, and redirects are not",
        ),
        ("HTTP/1.1 308 Permanent Redirect\r\nLocation: /v1/other\r\nContent-Length: 0\r\n\r\n".to_owned(), "308"),
        ("SSH-2.0-x\r\n\r\n".to_owned(), "no HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), "a Transfer-Encoding"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(), "no HTTP/1.1"),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX)), "the head of its answer is larger"),
    ];
    for (answer, part) in cases {
        let shown: String = answer.chars().take(60).collect();
        let reason = refused(answer);
        assert!(reason.contains(part), "{shown}: {reason}");
    }
}

#[test]
fn the_largest_topology_is_taken() {
    let text = topology(1);
    let text = format!("{text}{}", " ".repeat(FILE_BYTES_MAX as usize - text.len()));
    let fake = Fake::start(move |_, _, stream| write(stream, &reply("200 OK", "t", &text)));
    assert!(matches!(source(fake.url()).ask(false), Ok(Answer::Topology(_))));
}

#[test]
fn silence_and_slowness_end_in_time_wherever_they_begin() {
    let drip = |stream: &mut std::net::TcpStream, begin: &str| {
        write(stream, begin);
        // Longer than the test may take, in steps that are shorter than its bound.
        for _ in 0..600 {
            std::thread::sleep(TIMEOUT / 5);
            write(stream, " ");
        }
    };
    let answers: [Says; 3] = [
        Box::new(|_| std::thread::sleep(TIMEOUT * 120)),
        Box::new(move |stream| drip(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX: ")),
        Box::new(move |stream| drip(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")),
    ];
    for answer in answers {
        let fake = Fake::start(move |_, _, stream| answer(stream));
        let started = Instant::now();
        let told = source(fake.url()).ask(false);
        assert!(matches!(&told, Err(SourceFault::Unreachable(why)) if why == "it does not answer within 500ms"), "{told:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[test]
fn a_registry_that_is_not_there_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let told = source(&format!("http://{address}")).ask(false);
    assert!(matches!(&told, Err(SourceFault::Unreachable(why)) if why.contains("refused")), "{told:?}");
    let cut = Fake::start(|_, _, _| {});
    assert!(matches!(source(cut.url()).ask(false), Err(SourceFault::Unreachable(_))));
}
