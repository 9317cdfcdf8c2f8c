//! A collector behind HTTP: one POST on a connection of its own, with one deadline for all of it.
use crate::stream::{Host, Until};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How long a POST and its answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where spans are taken, unless the URL has a path.
const PATH: &str = "/v1/traces";
/// What is read of an answer at most, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Most header fields of an answer.
const HEADERS_MAX: usize = 64;
/// Statuses that ask for another attempt, as OTLP has them.
const AGAIN: [u16; 4] = [429, 502, 503, 504];

/// Where spans are sent.
pub(super) struct Collector {
    host: Host,
    path: String,
}

/// Why spans were not taken.
pub(super) struct Refused {
    /// For the operator.
    pub reason: String,
    /// Whether another attempt may succeed.
    pub again: bool,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { reason: error.to_string(), again: true }
    }
}

impl Collector {
    /// That at this URL; `None` if it is none.
    pub fn of_url(url: &str) -> Option<Self> {
        let (host, path) = Host::of_url(url)?;
        let path = if path.trim_matches('/').is_empty() { PATH } else { path };
        Some(Self { host, path: path.to_owned() })
    }

    /// Sends a request; how many of its spans were rejected in what was otherwise taken.
    ///
    /// # Errors
    /// If none was taken.
    pub fn post(&self, body: &[u8]) -> Result<u64, Refused> {
        let deadline = Instant::now() + PATIENCE;
        let stream = self.host.connect(deadline)?;
        let mut stream = Until::new(&stream, deadline);
        let (path, authority, length) = (&self.path, &self.host.authority, body.len());
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&answer);
        let (Ok(httparse::Status::Complete(head_bytes)), Some(status)) = (parsed, response.code) else {
            return Err(Refused { reason: "its answer is no HTTP/1".to_owned(), again: false });
        };
        if !(200..300).contains(&status) {
            return Err(Refused { reason: format!("it answers with status {status}"), again: AGAIN.contains(&status) });
        }
        let said: Value = serde_json::from_slice(&answer[head_bytes..]).unwrap_or_default();
        let rejected = &said["partialSuccess"]["rejectedSpans"];
        Ok(rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0))
    }
}
