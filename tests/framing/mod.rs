//! What the tests of the framing share: requests as they come out of a framer, the vectors, and requests made at random.
#![allow(dead_code)] // Each test binary uses a part of this module.
use svc_wallet::http::{Fault, Framer, Limits, Method, Step};

/// A request as it came out, owned so that outcomes can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub keep_alive: bool,
    pub consumed: usize,
}

/// Everything that one connection yields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub requests: Vec<Seen>,
    pub fault: Option<Fault>,
    /// Whether the last request asked for the connection to close.
    pub closed: bool,
    /// Bytes that no request has consumed.
    pub left_bytes: usize,
}

/// Feeds the pieces to a framer as a worker would.
pub fn drive<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limits: &Limits) -> Outcome {
    let (mut framer, mut buffer, mut outcome) = (Framer::default(), Vec::new(), Outcome::default());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if outcome.closed || outcome.fault.is_some() {
            continue;
        }
        loop {
            let consumed = match framer.next(&mut buffer, limits) {
                Step::NeedMore { .. } => break,
                Step::Refused(fault) => {
                    let again = framer.next(&mut buffer, limits);
                    assert!(matches!(again, Step::Refused(same) if same == fault), "a fault is final");
                    outcome.fault = Some(fault);
                    break;
                }
                Step::Request(request) => {
                    let head = &request.head;
                    outcome.closed = !head.keep_alive();
                    outcome.requests.push(Seen {
                        method: head.method(),
                        path: head.path().to_owned(),
                        query: head.query().map(str::to_owned),
                        headers: head.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
                        body: request.body.to_vec(),
                        keep_alive: head.keep_alive(),
                        consumed: request.consumed,
                    });
                    request.consumed
                }
            };
            buffer.drain(..consumed);
            if outcome.closed {
                break;
            }
        }
    }
    outcome.left_bytes = buffer.len();
    outcome
}

/// Marsaglia's xorshift, enough to choose cuts and damage.
pub struct Random(u64);

impl Random {
    /// The generator of a test, from `HTTP_SEED` or a fixed seed.
    pub fn seeded(fixed: u64) -> Self {
        let seed = std::env::var("HTTP_SEED").map_or(fixed, |text| text.parse().expect("HTTP_SEED is a number"));
        println!("HTTP_SEED={seed}");
        Self(seed.max(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pieces<'i>(&mut self, mut input: &'i [u8], bytes_max: usize) -> Vec<&'i [u8]> {
        let mut pieces = Vec::new();
        while !input.is_empty() {
            let (piece, rest) = input.split_at(1 + self.below(bytes_max.min(input.len())));
            pieces.push(piece);
            input = rest;
        }
        pieces
    }
}

#[derive(serde::Deserialize)]
struct Vectors {
    about: Vec<String>,
    limits: VectorLimits,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorLimits {
    head_bytes_max: usize,
    headers_max: usize,
    body_bytes_max: usize,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub class: Option<String>,
    pub name: String,
    pub rfc: String,
    pub request: Option<String>,
    pub request_parts: Option<Vec<(String, usize)>>,
    pub request_hex: Option<String>,
    pub status: u16,
    pub statuses: Option<Vec<u16>>,
    pub close: bool,
    #[serde(default)]
    pub accept: bool,
    #[serde(default)]
    pub accepted: usize,
}

impl Case {
    pub fn bytes(&self) -> Vec<u8> {
        match (&self.request, &self.request_parts, &self.request_hex) {
            (Some(text), None, None) => text.as_bytes().to_vec(),
            (None, Some(parts), None) => parts.iter().flat_map(|(text, times)| text.repeat(*times).into_bytes()).collect(),
            (None, None, Some(hex)) => {
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
            }
            _ => panic!("{}: a case has exactly one form of request", self.name),
        }
    }
}

/// The cases of both files of vectors, their names told apart, and the limits that both assume.
pub fn vectors() -> (Vec<Case>, Limits) {
    let (mut cases, mut found) = (Vec::new(), Limits::default());
    for text in [include_str!("../vectors/malformed_http.json"), include_str!("../vectors/smuggling.json")] {
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        assert!(!vectors.about.is_empty());
        let VectorLimits { head_bytes_max, headers_max, body_bytes_max } = vectors.limits;
        found = Limits { head_bytes_max, headers_max, body_bytes_max, ..Limits::default() };
        cases.extend(vectors.cases);
    }
    for case in &mut cases {
        case.name = case.class.as_ref().map_or(case.name.clone(), |class| format!("{class}: {}", case.name));
    }
    (cases, found)
}

/// A pipeline of well-formed requests in many shapes, and what must come out.
pub fn pipeline(random: &mut Random, count: usize) -> (Vec<u8>, Vec<Seen>) {
    let (mut input, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let from = input.len();
        input.extend_from_slice(&b"\r\n\r\n"[..2 * random.below(3)]);
        let (method, name) = [(Method::Get, "GET"), (Method::Post, "POST"), (Method::Other, "MERGE")][random.below(3)];
        let path = format!("/v1/{}", "p".repeat(random.below(20)));
        let query = (random.below(2) == 0).then(|| format!("a={}", random.next()));
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut fields = vec![("Host".to_owned(), "localhost:8080".to_owned())];
        for number in 0..random.below(6) {
            fields.push((format!("X-{number}"), "v".repeat(random.below(40))));
        }
        let body: Vec<u8> = (0..random.below(60)).map(|_| random.next() as u8).collect();
        let chunked = random.below(2) == 0;
        fields.push(match chunked {
            true => ("Transfer-Encoding".to_owned(), "chunked".to_owned()),
            false => ("Content-Length".to_owned(), body.len().to_string()),
        });
        input.extend_from_slice(format!("{name} {target} HTTP/1.1\r\n").as_bytes());
        for (name, value) in &fields {
            input.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        input.extend_from_slice(b"\r\n");
        if chunked {
            for chunk in random.pieces(&body, 20) {
                let extension = ["", ";e", " ; e=\"x\""][random.below(3)];
                input.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice([&b"0\r\n\r\n"[..], b"000;l\r\nT: v\r\n\r\n"][random.below(2)]);
        } else {
            input.extend_from_slice(&body);
        }
        let headers = fields.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
        let consumed = input.len() - from;
        expected.push(Seen { method, path, query, headers, body, keep_alive: true, consumed });
    }
    (input, expected)
}
