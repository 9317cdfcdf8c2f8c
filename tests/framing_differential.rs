//! The framing held against that of hyper: on every vector, on pipelines made at random and on damaged ones, both accept or refuse the same
//! and split the input into the same requests. Where they differ, the difference stands with its reason in a table of
//! `docs/SECURITY.md`; one that does not stand there fails, and so does a row that nothing shows any more.
//!
//! hyper is driven without a runtime: all input is there, then its end. A failing seed is repeated by
//! `HTTP_SEED=<seed> cargo test --test framing_differential`.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod framing;

use framing::{drive, pipeline, vectors, Outcome, Random};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{poll_fn, Future};
use std::io;
use std::path::Path;
use std::pin::{pin, Pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;
use svc_wallet::http::{Limits, Method};

/// A request as both sides see it.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    /// `OTHER` for a method that the framing has no name for.
    method: String,
    path: String,
    query: Option<String>,
    /// Sorted, with names in lower case.
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// What becomes of a connection whose input has ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    /// All was used up, or something is missing.
    Open,
    /// Something was refused.
    Refused(String),
}

#[derive(Debug)]
struct Told {
    requests: Vec<Said>,
    end: End,
    /// Whether what no request has consumed ends before a head does.
    within_head: bool,
}

fn ours(input: &[u8]) -> Told {
    let Outcome { requests, fault, left_bytes, .. } = drive([input], &Limits::default());
    // Empty lines before a request are no end of a head.
    let mut left = &input[input.len() - left_bytes..];
    while let Some(rest) = left.strip_prefix(b"\r\n") {
        left = rest;
    }
    let within_head = !left.windows(4).any(|four| four == b"\r\n\r\n");
    let said = requests.into_iter().map(|seen| {
        let fields = seen.headers.into_iter().map(|(name, value)| (String::from_utf8(name).unwrap().to_lowercase(), value));
        let mut fields: Vec<_> = fields.collect();
        fields.sort();
        let method = format!("{:?}", seen.method).to_uppercase();
        Said { method, path: seen.path, query: seen.query, fields, body: seen.body }
    });
    let end = fault.map_or(End::Open, |fault| End::Refused(fault.message.into_owned()));
    Told { requests: said.collect(), end, within_head }
}

/// Both directions of a connection in memory.
struct Pipe {
    input: Vec<u8>,
    at: usize,
}

impl Read for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let end = self.input.len().min(self.at + buffer.remaining());
        buffer.put_slice(&self.input[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of every reply.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

struct NoWaker;

impl Wake for NoWaker {
    fn wake(self: Arc<Self>) {}
}

/// Reads a whole request.
async fn read(request: Request<Incoming>) -> hyper::Result<Said> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"];
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        body.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| &data[..]));
    }
    let method = head.method.as_str();
    let fields = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    Ok(Said {
        method: if KNOWN.contains(&method) { method } else { "OTHER" }.to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        fields,
        body,
    })
}

/// Whether hyper only misses the rest of a message.
fn is_incomplete(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let ended = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        if ended || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn hypers(input: &[u8]) -> Told {
    let (seen, wrong) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(None)));
    let service = service_fn(|request: Request<Incoming>| {
        let (seen, wrong) = (Rc::clone(&seen), Rc::clone(&wrong));
        async move {
            match read(request).await {
                Ok(said) => seen.borrow_mut().push(said),
                Err(error) => {
                    *wrong.borrow_mut() = Some(error);
                    return Err(io::Error::other("the body cannot be read"));
                }
            }
            Ok(Response::new(Nothing))
        }
    });
    let pipe = Pipe { input: input.to_vec(), at: 0 };
    let mut connection =
        pin!(Builder::new().half_close(true).header_read_timeout(None::<Duration>).serve_connection(pipe, service));
    let waker = Arc::new(NoWaker).into();
    let mut context = Context::from_waker(&waker);
    let outcome = (0..100_000).find_map(|_| match connection.as_mut().poll(&mut context) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    });
    let error = wrong.borrow_mut().take().or(outcome.expect("hyper comes to an end").err());
    let end = match error {
        Some(error) if !is_incomplete(&error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            End::Refused(format!("{error}{cause}"))
        }
        Some(_) | None => End::Open,
    };
    let requests = seen.borrow().clone();
    Told { requests, end, within_head: false }
}

/// How the two differ on this input, as the table names it; `None` if they do not.
fn difference(ours: &Told, hypers: &Told) -> Option<String> {
    for (one, other) in ours.requests.iter().zip(&hypers.requests) {
        if one == other {
            continue;
        }
        let same_but_path = Said { path: one.path.clone(), ..other.clone() } == *one;
        if same_but_path && (one.method.as_str(), one.path.as_str(), other.path.as_str()) == ("OPTIONS", "*", "/") {
            return Some("a target without a path under OPTIONS means the whole server".to_owned());
        }
        panic!("two readings of one request:\n{one:?}\n{other:?}");
    }
    let (count, other_count) = (ours.requests.len(), hypers.requests.len());
    match (&ours.end, &hypers.end) {
        (End::Refused(message), _) if count < other_count => Some(message.clone()),
        (End::Refused(message), End::Open) if count == other_count => Some(message.clone()),
        (_, End::Refused(message)) if other_count < count => Some(format!("hyper: {message}")),
        (End::Open, End::Refused(_)) if count == other_count && ours.within_head => {
            Some("nothing yet: the head has not ended".to_owned())
        }
        (End::Open, End::Refused(message)) if count == other_count => Some(format!("hyper: {message}")),
        (End::Refused(_), End::Refused(_)) | (End::Open, End::Open) if count == other_count => None,
        _ => panic!("one side serves requests that the other does not:\n{ours:?}\n{hypers:?}"),
    }
}

/// The first column of the table in `docs/SECURITY.md`, each with the other two.
fn documented() -> BTreeMap<String, (String, String)> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| what is said here | hyper |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    let cells = rows.map(|line| line.trim_matches('|').split(" | ").map(cell).collect::<Vec<_>>());
    cells.map(|row| (row[0].clone(), (row[1].clone(), row[2].clone()))).collect()
}

#[test]
fn every_difference_from_hyper_is_explained() {
    let documented = documented();
    assert!(documented.len() > 10, "the table was not found");
    for (row, (hyper, why)) in &documented {
        assert!(hyper.len() > 5 && why.len() > 10, "a row says too little: {row}");
    }
    let mut random = Random::seeded(21);
    let (mut seen, mut unknown) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, String>::new());
    let mut agreed = 0;
    let mut compare = |input: &[u8]| match difference(&ours(input), &hypers(input)) {
        None => agreed += 1,
        Some(difference) => {
            if !documented.contains_key(&difference) {
                unknown.entry(difference.clone()).or_insert_with(|| String::from_utf8_lossy(input).chars().take(400).collect());
            }
            *seen.entry(difference).or_default() += 1;
        }
    };
    let (cases, _) = vectors();
    let mut inputs: Vec<Vec<u8>> = cases.iter().map(framing::Case::bytes).collect();
    inputs.push(b"OPTIONS http://h HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
    inputs.iter().for_each(|input| compare(input));
    inputs.retain(|input| input.len() < 2_000);
    for _ in 0..6_000 {
        let mut input = match random.below(3) {
            0 => inputs[random.below(inputs.len())].clone(),
            _ => pipeline(&mut random, 3).0,
        };
        for _ in 0..random.below(4) {
            let (at, interesting) = (random.below(input.len()), b"\r\n\0 \t:;,0f+-\xff#\"{"[random.below(16)]);
            match random.below(4) {
                0 => input[at] = random.next() as u8,
                1 => input[at] = interesting,
                2 => input.insert(at, interesting),
                _ if input.len() > 1 => drop(input.remove(at)),
                _ => {}
            }
        }
        compare(&input);
    }
    println!("{agreed} alike, {seen:#?}");
    assert!(agreed > 1_500, "only {agreed} inputs are read alike");
    assert!(unknown.is_empty(), "not in the table of docs/SECURITY.md: {unknown:#?}");
    if std::env::var_os("HTTP_SEED").is_none() {
        let stale: Vec<_> = documented.keys().filter(|row| !seen.contains_key(*row)).collect();
        assert!(stale.is_empty(), "no input shows this any more: {stale:?}");
    }
}

#[test]
fn a_difference_is_noticed() {
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(difference(&ours(good), &hypers(good)), None);
    let lax = b"GET / HTTP/1.1\nHost: a\n\n";
    let said = difference(&ours(lax), &hypers(lax)).unwrap();
    assert!(said.contains("bare LF"), "{said}");
    let nothing = Told { requests: Vec::new(), end: End::Open, within_head: false };
    let told = std::panic::catch_unwind(|| difference(&ours(good), &nothing));
    assert!(told.is_err(), "a request that only one side serves is no mere difference");
    assert_eq!(format!("{:?}", Method::Get).to_uppercase(), "GET");
}
