//! A registry behind HTTP as a source: one GET on a connection of its own, with one deadline for all of it.
//!
//! What was taken last is asked for with `If-None-Match`, and with `?wait=SECONDS`: a registry that knows it answers when there is
//! something new, or after that time; one that does not answers at once. It is asked in HTTP/1.0, so that the answer ends with its length
//! or with the connection. Redirects are not followed: a topology comes from the address that was configured, or not at all.
//!
//! Own code, because a deadline that holds however the bytes of an answer are dealt out is what matters here. ureq 3.2, tried in its place,
//! lets a peer that sends a byte a second go on as long as it likes.
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::source::{Answer, SourceFault, TOPOLOGY_PATH};
use super::topology::FILE_BYTES_MAX;
use super::Registry;
use crate::stream::{Host, Until};

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most header fields of an answer.
const HEADERS_MAX: usize = 64;
/// What is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;
/// Longest entity tag that is sent back, in bytes.
const TAG_BYTES_MAX: usize = 256;
/// Longest time for which a registry is asked to wait for something new; one that waits is asked again at once.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A registry behind HTTP and the entity tag of what was taken last.
#[derive(Debug)]
pub(super) struct HttpSource {
    host: Host,
    path: String,
    timeout: Duration,
    wait: Duration,
    /// That of the answer which came last.
    read: Option<String>,
    /// That of the answer which was taken last.
    taken: Option<String>,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    tag: Option<String>,
    /// Length of the body, if it does not end with the connection.
    length: Option<u64>,
}

impl HttpSource {
    /// The registry at this URL, `http://host[:port][/path]`. A question may take `timeout`, and a registry that can wait is asked to do so
    /// for `wait` before that, in whole seconds.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str, timeout: Duration, wait: Duration) -> Result<Self, String> {
        let wrong = || format!("{url} is not an address of a registry; write http://HOST:PORT");
        let (host, path) = Host::of_url(url).ok_or_else(wrong)?;
        let path = if path.trim_matches('/').is_empty() { TOPOLOGY_PATH } else { path };
        Ok(Self {
            host,
            path: path.to_owned(),
            timeout,
            wait: Duration::from_secs(wait.min(WAIT_MAX).as_secs()),
            read: None,
            taken: None,
        })
    }

    /// For how long a registry that can wait does so, before it says that there is nothing new.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// What the registry says; `at_once` does not let it wait.
    pub fn ask(&mut self, at_once: bool) -> Result<Answer, SourceFault> {
        let wait = if at_once || self.taken.is_none() { Duration::ZERO } else { self.wait };
        let stream = self.connect()?;
        let deadline = Instant::now() + self.timeout + wait;
        let mut stream = Until::new(&stream, deadline);
        stream.write_all(self.question(wait).as_bytes()).map_err(|error| self.fault(&error))?;
        let mut bytes = Vec::new();
        let head = self.read_head(&mut stream, &mut bytes)?;
        self.read = head.tag;
        match head.status {
            200 => {}
            304 if self.taken.is_some() => return Ok(Answer::Unchanged),
            304 => return Err(SourceFault::Refused("it answers 304 to a question for everything".to_owned())),
            status @ 300..=399 => {
                return Err(SourceFault::Refused(format!("it answers {status}, and redirects are not followed")));
            }
            status => return Err(SourceFault::Refused(format!("it answers with status {status}"))),
        }
        self.read_body(&mut stream, &mut bytes, head.length)?;
        Registry::parse(&bytes).map(Answer::Topology).map_err(|fault| SourceFault::Refused(fault.to_string()))
    }

    /// What came last has been taken.
    pub fn taken(&mut self) {
        self.taken = self.read.take();
    }

    fn question(&self, wait: Duration) -> String {
        let query = if wait.is_zero() { String::new() } else { format!("?wait={}", wait.as_secs()) };
        let known = self.taken.as_ref().map_or_else(String::new, |tag| format!("If-None-Match: {tag}\r\n"));
        let (path, authority) = (&self.path, &self.host.authority);
        format!("GET {path}{query} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n{known}\r\n")
    }

    fn connect(&self) -> Result<TcpStream, SourceFault> {
        self.host.connect(Instant::now() + self.timeout).map_err(|error| self.fault(&error))
    }

    /// Reads the head, and leaves in `bytes` what came behind it.
    fn read_head(&self, stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<Head, SourceFault> {
        loop {
            if self.read_more(stream, bytes)? == 0 {
                return Err(cut());
            }
            match parse(bytes)? {
                Some((head, head_bytes)) if head_bytes <= HEAD_BYTES_MAX => {
                    bytes.drain(..head_bytes);
                    return Ok(head);
                }
                None if bytes.len() <= HEAD_BYTES_MAX => {}
                Some(_) | None => {
                    let what = format!("the head of its answer is larger than {HEAD_BYTES_MAX} bytes");
                    return Err(SourceFault::Refused(what));
                }
            }
        }
    }

    /// Reads until `bytes` is the whole body.
    fn read_body(&self, stream: &mut impl Read, bytes: &mut Vec<u8>, length: Option<u64>) -> Result<(), SourceFault> {
        loop {
            if length.unwrap_or(0).max(bytes.len() as u64) > FILE_BYTES_MAX {
                return Err(SourceFault::Refused(format!(
                    "its answer is too large; a registry has {FILE_BYTES_MAX} bytes at most"
                )));
            }
            if let Some(length) = length.filter(|length| *length <= bytes.len() as u64) {
                bytes.truncate(length as usize);
                return Ok(());
            }
            if self.read_more(stream, bytes)? == 0 {
                return if length.is_none() { Ok(()) } else { Err(cut()) };
            }
        }
    }

    /// Reads once; 0 at the end of the stream.
    fn read_more(&self, stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<usize, SourceFault> {
        let mut piece = [0; READ_BYTES];
        let read = stream.read(&mut piece).map_err(|error| self.fault(&error))?;
        bytes.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    fn fault(&self, error: &io::Error) -> SourceFault {
        SourceFault::Unreachable(match error.kind() {
            ErrorKind::TimedOut => format!("it does not answer within {:?}", self.timeout),
            _ => error.to_string(),
        })
    }
}

/// The head at the beginning of these bytes and how long it is; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, SourceFault> {
    let no_http = || SourceFault::Refused("its answer is no HTTP/1.1".to_owned());
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(no_http()),
    };
    let mut head = Head { status: response.code.ok_or_else(no_http)?, tag: None, length: None };
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).map_err(|_| no_http())?.trim();
        if field.name.eq_ignore_ascii_case("etag") {
            let fits = value.len() <= TAG_BYTES_MAX && value.bytes().all(|byte| byte.is_ascii_graphic());
            head.tag = fits.then(|| value.to_owned());
        } else if field.name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().map_err(|_| no_http())?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(SourceFault::Refused(
                "its answer has a Transfer-Encoding, which a question in HTTP/1.0 forbids".to_owned(),
            ));
        }
    }
    Ok(Some((head, head_bytes)))
}

fn cut() -> SourceFault {
    SourceFault::Unreachable("it closed the connection before its answer was complete".to_owned())
}

/// What must hold of the heads of answers, whatever a registry sends; `src/fuzzing.rs` feeds it.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::*;

    /// What is read of a head is read of it alone, and no sooner than it is complete; what is believed of it keeps its bounds.
    pub(crate) fn answers(input: &[u8]) {
        let Ok(Some((head, head_bytes))) = parse(input) else { return };
        assert!(head_bytes <= input.len());
        assert!(matches!(parse(&input[..head_bytes]), Ok(Some((again, bytes))) if again == head && bytes == head_bytes));
        assert!(!matches!(parse(&input[..head_bytes - 1]), Ok(Some(_))), "a head is complete before its end");
        assert!(head.tag.map_or(true, |tag| tag.len() <= TAG_BYTES_MAX && tag.bytes().all(|byte| byte.is_ascii_graphic())));
    }

    /// Inputs from which a fuzzer of [`answers`] begins.
    pub(crate) fn answers_seeds() -> Vec<Vec<u8>> {
        let texts = [
            "HTTP/1.1 200 OK\r\nETag: \"v-7\"\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
            "HTTP/1.0 304 Not Modified\r\netag: W/\"7\"\r\n\r\n",
            "HTTP/1.1 301 Moved\r\nLocation: http://elsewhere\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        texts.map(|text| text.as_bytes().to_vec()).into()
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
