//! What framing costs per request: a spend of typical size with a token of typical size, whole, pipelined and chunked, and
//! the reply to it. The input is restored before each iteration, because a body may be changed in place.
#![allow(missing_docs)]
use criterion::{criterion_group, criterion_main, BatchSize, Criterion, Throughput};
use std::hint::black_box;
use svc_wallet::http::{self, Connection, Framer, Limits, ReplyHead, Step};

const BODY: &str = r#"{"from":"user:alice","to":"user:bob","asset":"roc","amount_minor":"1250","nonce":42}"#;

fn spend(framing: &str, body: &str) -> Vec<u8> {
    let token = "A".repeat(300);
    format!(
        "POST /v1/transfer HTTP/1.1\r\nHost: localhost:8080\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: 01890a5d-ac96-774b-bcce-b302099a8057\r\nX-Corr-ID: 7f3a\r\n{framing}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Frames all of the input and reads each field once, as the routes do; the number of requests.
fn frame(input: &mut [u8], limits: &Limits) -> usize {
    let (mut framer, mut rest, mut count) = (Framer::default(), input, 0);
    while !rest.is_empty() {
        let Step::Request(request) = framer.next(rest, limits) else { panic!("the input is whole requests") };
        black_box(request.head.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>());
        black_box(&request.body);
        let consumed = request.consumed;
        rest = &mut rest[consumed..];
        count += 1;
    }
    count
}

fn framing(criterion: &mut Criterion) {
    let limits = Limits::default();
    let plain = spend(&format!("Content-Length: {}", BODY.len()), BODY);
    let chunked = spend("Transfer-Encoding: chunked", &format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()));
    let mut group = criterion.benchmark_group("http_frame");
    for (name, input, count) in [("plain", plain.clone(), 1), ("pipelined_16", plain.repeat(16), 16), ("chunked", chunked, 1)] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || input.clone(),
                |input| assert_eq!(frame(input, &limits) as u64, count),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let body = "x".repeat(420);
    let head = ReplyHead {
        status: 200,
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
        content_type: "application/json",
        connection: Connection::Stays,
        to_head: false,
        extra: &[("X-Corr-ID", b"7f3a")],
    };
    let mut out = Vec::with_capacity(4096);
    criterion.bench_function("http_reply", |bencher| {
        bencher.iter(|| {
            out.clear();
            let begun = http::begin(&mut out, black_box(&head));
            out.extend_from_slice(body.as_bytes());
            http::finish(&mut out, begun);
            black_box(out.len())
        });
    });
}

criterion_group!(benches, framing, replies);
criterion_main!(benches);
