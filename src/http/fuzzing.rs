//! What must hold of the framing, of chunked and compressed bodies and of queries, whatever bytes arrive; `src/fuzzing.rs` feeds it.
//!
//! Each check compares two ways to the same answer: another cut of the input, another reader, or writing what was read once more.
use super::{decode, fields, pairs, Encoding, Framer, Limits, Method, Request, Step, MEMBERS_MAX};
use super::{BODY_BYTES_CAP, CHUNK_LINE_BYTES_MAX, HEADERS_CAP, HEAD_BYTES_CAP};
use std::io::Write;

/// A request as it came out.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: Method,
    path: String,
    query: Option<String>,
    http_1_0: bool,
    keep_alive: bool,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    consumed: usize,
}

impl Seen {
    fn of(request: &Request<'_>) -> Self {
        let head = &request.head;
        Self {
            method: head.method(),
            path: head.path().to_owned(),
            query: head.query().map(str::to_owned),
            http_1_0: head.http_1_0(),
            keep_alive: head.keep_alive(),
            fields: head.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            body: request.body.to_vec(),
            consumed: request.consumed,
        }
    }

    /// The same request in the plainest spelling, its length stated.
    fn written(&self) -> Vec<u8> {
        let method = match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Options => "OPTIONS",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Trace => "TRACE",
            Method::Connect => "CONNECT",
            Method::Other => "OTHER",
        };
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        let minor = if self.http_1_0 { '0' } else { '1' };
        let mut bytes = format!("{method} {}{query} HTTP/1.{minor}\r\n", self.path).into_bytes();
        for (name, value) in self.fields.iter().filter(|(name, _)| !frames(name)) {
            bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
        }
        bytes.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What does not depend on how the body was framed.
    fn said(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        let fields: Vec<_> = self.fields.iter().filter(|(name, _)| !frames(name)).collect();
        (self.method, &self.path, &self.query, self.http_1_0, self.keep_alive, fields, &self.body)
    }
}

fn frames(name: &[u8]) -> bool {
    fields::is_named(name, b"content-length") || fields::is_named(name, b"transfer-encoding")
}

/// Everything that a connection yields: its requests, the status of its fault, and how much of it nobody consumed.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Seen>,
    fault: Option<u16>,
    left_bytes: usize,
}

fn drive(input: &[u8], piece_bytes: usize, limits: &Limits) -> Outcome {
    let (mut framer, mut buffer) = (Framer::default(), Vec::new());
    let mut outcome = Outcome { requests: Vec::new(), fault: None, left_bytes: 0 };
    let mut arrived = 0;
    'connection: for piece in input.chunks(piece_bytes.max(1)) {
        buffer.extend_from_slice(piece);
        arrived += piece.len();
        loop {
            let consumed = match framer.next(&mut buffer, limits) {
                Step::NeedMore { .. } => {
                    assert!(buffer.len() <= limits.request_bytes_max(), "waits for more than a request can have");
                    break;
                }
                Step::Refused(fault) => {
                    assert!(fault.close && (400..=505).contains(&fault.status), "{fault}");
                    outcome.fault = Some(fault.status);
                    break 'connection;
                }
                Step::Request(request) => {
                    let seen = Seen::of(&request);
                    check(&seen, limits);
                    let consumed = seen.consumed;
                    let last = !seen.keep_alive;
                    outcome.requests.push(seen);
                    if last {
                        buffer.drain(..consumed);
                        break 'connection;
                    }
                    consumed
                }
            };
            buffer.drain(..consumed);
        }
    }
    outcome.left_bytes = buffer.len() + input.len() - arrived;
    outcome
}

/// What holds of every request that is let through.
fn check(seen: &Seen, limits: &Limits) {
    let count = |lower: &[u8]| seen.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(lower)).count();
    let (lengths, codings) = (count(b"content-length"), count(b"transfer-encoding"));
    assert!(lengths + codings <= 1, "two fields frame one body");
    assert!(lengths + codings == 1 || seen.body.is_empty(), "a body that nothing frames");
    assert!(count(b"host") == 1 || (seen.http_1_0 && count(b"host") == 0), "a request to no host, or to two");
    assert!(seen.body.len() <= limits.body_bytes_max && seen.fields.len() <= limits.headers_max);
    assert!(seen.path.starts_with('/') || (seen.path == "*" && seen.method == Method::Options), "{}", seen.path);
    for (name, value) in &seen.fields {
        assert!(!name.is_empty() && name.iter().all(|byte| fields::is_token_byte(*byte)), "{name:?}");
        assert!(value.iter().all(|byte| fields::is_value_byte(*byte)), "{value:?}");
    }
}

/// Narrow and wide bounds, chosen by a byte.
fn limits_of(choice: u8) -> Limits {
    let [head, headers, body] = [choice & 3, choice >> 2 & 3, choice >> 4 & 3].map(usize::from);
    Limits {
        head_bytes_max: [64, 200, 4096, HEAD_BYTES_CAP][head],
        headers_max: [1, 4, 16, HEADERS_CAP][headers],
        body_bytes_max: [1, 30, 1000, 1 << 20][body],
        ..Limits::default()
    }
}

/// A byte for the bounds, one for a cut, then what arrives on a connection: requests and fault are the same however it is cut, and each
/// request is read again as it was said.
pub(crate) fn framing(input: &[u8]) {
    let [choice, piece, bytes @ ..] = input else { return };
    let limits = limits_of(*choice);
    let whole = drive(bytes, bytes.len(), &limits);
    assert_eq!(drive(bytes, 1, &limits), whole, "byte by byte");
    assert_eq!(drive(bytes, 2 + usize::from(*piece), &limits), whole, "in pieces");
    let consumed: usize = whole.requests.iter().map(|seen| seen.consumed).sum();
    // Of a chunked body that was refused, some framing is gone already.
    assert!(whole.left_bytes <= bytes.len() - consumed);
    let wide = Limits { head_bytes_max: HEAD_BYTES_CAP, headers_max: HEADERS_CAP, ..limits };
    for seen in whole.requests.iter().filter(|seen| seen.fields.len() < HEADERS_CAP && seen.written().len() < HEAD_BYTES_CAP) {
        let again = drive(&seen.written(), usize::MAX, &wide);
        assert_eq!((again.requests.len(), again.fault, again.left_bytes), (1, None, 0), "{seen:?}");
        assert_eq!(again.requests[0].said(), seen.said());
    }
}

/// The data of a chunked body, how many bytes it takes, and the lines of its trailers; read in the plainest way.
fn dechunked(body: &[u8]) -> Option<(Vec<u8>, usize, usize)> {
    let line = |from: usize| {
        let end = body.get(from..)?.windows(2).position(|two| two == b"\r\n")?;
        let line = &body[from..from + end];
        (!line.contains(&b'\n') && !line.contains(&b'\r')).then_some((line, from + end + 2))
    };
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let (size, after) = line(at)?;
        let text = std::str::from_utf8(size.split(|byte| !byte.is_ascii_hexdigit()).next()?).ok()?;
        let rest = size[text.len()..].trim_ascii_start();
        if text.is_empty() || text.len() > 16 || !(rest.first().map_or(size.len() == text.len(), |first| *first == b';')) {
            return None;
        }
        if size.len() > CHUNK_LINE_BYTES_MAX || !rest.iter().all(|byte| fields::is_value_byte(*byte)) {
            return None;
        }
        let bytes = usize::try_from(u64::from_str_radix(text, 16).ok()?).ok()?;
        at = after;
        if bytes == 0 {
            break;
        }
        data.extend_from_slice(body.get(at..at.checked_add(bytes)?)?);
        at += bytes;
        at = body[at..].starts_with(b"\r\n").then_some(at + 2)?;
    }
    let mut trailers = 0;
    loop {
        let (trailer, after) = line(at)?;
        at = after;
        if trailer.is_empty() {
            return Some((data, at, trailers));
        }
        trailers += 1;
        let colon = trailer.iter().position(|byte| *byte == b':')?;
        let (name, value) = trailer.split_at(colon);
        let forbidden = frames(name) || fields::is_named(name, b"host") || fields::is_named(name, b"content-encoding");
        let well_formed = !name.is_empty() && name.iter().all(|byte| fields::is_token_byte(*byte));
        if forbidden || !well_formed || !value.iter().all(|byte| fields::is_value_byte(*byte)) {
            return None;
        }
    }
}

/// A byte for a cut, then a chunked body: a plain reader takes the same data and the same bytes, and refuses what is refused.
pub(crate) fn chunked(input: &[u8]) {
    let [piece, body @ ..] = input else { return };
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let limits = Limits::default();
    let found = drive(&[HEAD, body].concat(), 1 + usize::from(*piece), &limits).requests.pop();
    let expected = dechunked(body);
    if let Some(seen) = &found {
        let (data, consumed, _) = expected.as_ref().expect("a plain reader refuses this body");
        assert_eq!((&seen.body, seen.consumed), (data, HEAD.len() + consumed));
        let one_chunk = [HEAD, format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n0\r\n\r\n"].concat();
        let one_chunk = if data.is_empty() { [HEAD, b"0\r\n\r\n"].concat() } else { one_chunk };
        assert_eq!(drive(&one_chunk, usize::MAX, &limits).requests[0].body, *data);
    } else if let Some((data, consumed, trailers)) = expected {
        // Only for its amount of framing may a body be refused that is well formed.
        let framing = consumed - data.len();
        assert!(framing > limits.head_bytes_max || trailers > limits.headers_max || data.len() > limits.body_bytes_max);
    }
}

fn encoded(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    const INTO_MEMORY: &str = "writing into memory does not fail";
    let level = flate2::Compression::fast();
    match encoding {
        Encoding::Identity => data.to_vec(),
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).expect(INTO_MEMORY);
            encoder.finish().expect(INTO_MEMORY)
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(data).expect(INTO_MEMORY);
            encoder.finish().expect(INTO_MEMORY)
        }
        Encoding::Zstd => zstd::stream::encode_all(data, 1).expect(INTO_MEMORY),
    }
}

/// A byte for coding and bounds, then a compressed body: neither output nor memory pass the bounds, a smaller bound refuses with 413,
/// and what was read is read again from another compressor.
pub(crate) fn compressed(input: &[u8]) {
    let [choice, body @ ..] = input else { return };
    let encoding = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::Identity][usize::from(choice & 3)];
    let body_bytes_max = [1, 200, 100_000, 1 << 20][usize::from(choice >> 2 & 3)];
    let decompress_ratio_max = [1, 10, 1000, usize::MAX][usize::from(choice >> 4 & 3)];
    let limits = Limits { body_bytes_max, decompress_ratio_max, ..Limits::default() };
    let mut out = b"left over".to_vec();
    let bytes_max = body_bytes_max.min(decompress_ratio_max.saturating_mul(body.len().max(1)));
    let outcome = decode(encoding, body, &mut out, &limits);
    assert!(out.len() <= bytes_max && out.capacity() <= 2 * (bytes_max + 1).max(64), "{} of {bytes_max}", out.capacity());
    let Err(fault) = outcome else {
        if out.len() > 1 {
            let narrow = Limits { body_bytes_max: out.len() - 1, decompress_ratio_max: usize::MAX, ..limits };
            let fault = decode(encoding, body, &mut Vec::new(), &narrow).expect_err("one byte over the bound");
            assert_eq!(fault.status, 413, "{fault}");
        }
        let wide = Limits { body_bytes_max: BODY_BYTES_CAP, decompress_ratio_max: usize::MAX, ..limits };
        let mut again = Vec::new();
        decode(encoding, &encoded(encoding, &out), &mut again, &wide).expect("what a compressor writes can be read");
        assert_eq!(again, out);
        return;
    };
    assert!(out.is_empty() && !fault.close && matches!(fault.status, 400 | 413), "{fault}");
}

/// A query: every pair is read again from its plainest spelling.
pub(crate) fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for pair in pairs(text) {
        let Ok((key, value)) = pair else { continue };
        let plain = format!("{}={}", escape(&key), escape(&value));
        assert_eq!(pairs(&plain).next(), Some(Ok((key, value))), "{plain}");
    }
    // Each pair lies between two separators, so there are not more than separators and one.
    assert!(pairs(text).count() <= 1 + text.matches('&').count());
}

/// Inputs from which a fuzzer of [`framing`] begins.
pub(crate) fn framing_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET /a?b=c HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST /v1/transfer HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n{\"a\"",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nGET http://b:1/c?d HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A:  b \t\r\nX-B:\r\nX-\u{e9}: \u{e9}\r\n\r\n",
    ];
    texts.iter().map(|text| [b"\x3f\x05", text.as_bytes()].concat()).collect()
}

/// Inputs from which a fuzzer of [`chunked`] begins.
pub(crate) fn chunked_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "A ;x=\"y\"\r\n0123456789\r\n000\r\nA: b\r\nC:\r\n\r\n",
        "1\r\na\r\n1;\r\nb\r\n0;z\r\n\r\n",
    ];
    texts.iter().map(|text| [b"\x03", text.as_bytes()].concat()).collect()
}

/// Inputs from which a fuzzer of [`compressed`] begins.
pub(crate) fn compressed_seeds() -> Vec<Vec<u8>> {
    let codings = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::Identity];
    let of = |(number, encoding): (usize, Encoding)| {
        let one = encoded(encoding, b"{\"to\":\"a\",\"to\":\"a\"}");
        let many = encoded(encoding, b"x").repeat(MEMBERS_MAX + 1);
        [one, many, encoded(encoding, &[b' '; 3000])].map(|body| [&[0x38 | number as u8], &body[..]].concat())
    };
    codings.into_iter().enumerate().flat_map(of).collect()
}

/// Inputs from which a fuzzer of [`query`] begins.
pub(crate) fn query_seeds() -> Vec<Vec<u8>> {
    ["account=acct%3Aa&asset=roc", "a&&b=%c3%a9&=", "limit=10&cursor=%37"].map(|text| text.as_bytes().to_vec()).into()
}
