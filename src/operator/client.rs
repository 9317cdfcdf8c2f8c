//! A small blocking HTTP/1.1 client: one keep-alive connection, TCP or unix socket, a deadline for every exchange.
//!
//! Replies have a Content-Length, or end with the connection; nothing else is understood, because the wallet sends nothing
//! else. Every wait and every buffer is bounded. This file knows neither routes nor tokens.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::control::abstract_name;

/// Largest head of a reply, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest body of a reply, in bytes; metrics are the largest thing that is ever read.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Most header fields of a reply.
const HEADERS_MAX: usize = 64;
/// Bytes asked for with one read.
const READ_BYTES: usize = 16 << 10;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Address and port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A unix socket without a file, by the path at which it would be.
    Abstract(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(path) => write!(f, "unix:@{}", path.display()),
        }
    }
}

/// Why an exchange brought no reply.
#[derive(Debug)]
pub enum ClientError {
    /// No connection could be made.
    Connect {
        /// To where.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// Connected, but the reply was not complete in time.
    TimedOut {
        /// With whom.
        address: Address,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The connection broke during the exchange.
    Broken {
        /// With whom.
        address: Address,
        /// How.
        source: io::Error,
    },
    /// What answers is no HTTP server as the wallet is one, or the reply is over its cap.
    NotUnderstood {
        /// Who.
        address: Address,
        /// What is wrong with the reply.
        fault: &'static str,
    },
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientError::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            ClientError::TimedOut { address, timeout } => {
                write!(f, "{address} did not answer within {} ms", timeout.as_millis())
            }
            ClientError::Broken { address, source } => write!(f, "the connection to {address} broke: {source}"),
            ClientError::NotUnderstood { address, fault } => write!(f, "{address} answers, but not as a wallet: {fault}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Method name.
    pub method: &'a str,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    /// Header fields besides Host and Content-Length.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body; without one, no Content-Length is sent.
    pub body: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A GET without header fields of its own.
    pub fn get(target: &'a str) -> Self {
        Self { method: "GET", target, headers: &[], body: None }
    }
}

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// Body bytes.
    pub body: Vec<u8>,
    /// From the first byte sent to the last byte read.
    pub elapsed: Duration,
}

impl Reply {
    /// The first header field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body read as JSON; `Null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }
}

enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                stream.set_nodelay(true)?;
                Ok(Wire::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).map(Wire::Unix),
            Address::Abstract(path) => UnixStream::connect_addr(&abstract_name(path)?).map(Wire::Unix),
        }
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout))),
            Wire::Unix(stream) => stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout))),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.write_all(bytes),
            Wire::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.read(buffer),
            Wire::Unix(stream) => stream.read(buffer),
        }
    }
}

/// A connection to one server, made when it is first needed and kept while the server keeps it.
pub struct Client {
    address: Address,
    timeout: Duration,
    wire: Option<Wire>,
}

/// How one exchange on one connection went wrong.
enum Fault {
    /// Nothing of a reply came: the server had closed a connection that was kept.
    Stale(io::Error),
    Io(io::Error),
    Late,
    Reply(&'static str),
}

impl Client {
    /// A client that gives every exchange this much time.
    pub fn new(address: Address, timeout: Duration) -> Self {
        Self { address, timeout, wire: None }
    }

    /// Where the server listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request and waits for the whole reply.
    ///
    /// A kept connection that turns out to be closed is replaced once and the request sent again: harmless, for every request
    /// of the wallet that changes something carries an idempotency key.
    pub fn exchange(&mut self, request: &Request<'_>) -> Result<Reply, ClientError> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let bytes = encode(request, &self.address);
        if let Some(wire) = self.wire.take() {
            match self.on_wire(wire, &bytes, started, deadline) {
                Ok(reply) => return Ok(reply),
                Err(Fault::Stale(_)) => {}
                Err(fault) => return Err(self.error(fault)),
            }
        }
        let wire = Wire::connect(&self.address, self.timeout)
            .map_err(|source| ClientError::Connect { address: self.address.clone(), source })?;
        self.on_wire(wire, &bytes, started, deadline).map_err(|fault| self.error(fault))
    }

    fn error(&self, fault: Fault) -> ClientError {
        let address = self.address.clone();
        match fault {
            Fault::Stale(source) | Fault::Io(source) => ClientError::Broken { address, source },
            Fault::Late => ClientError::TimedOut { address, timeout: self.timeout },
            Fault::Reply(fault) => ClientError::NotUnderstood { address, fault },
        }
    }

    fn on_wire(&mut self, mut wire: Wire, bytes: &[u8], started: Instant, deadline: Instant) -> Result<Reply, Fault> {
        set_timeout(&wire, deadline)?;
        wire.write_all(bytes).map_err(|fault| if is_timeout(&fault) { Fault::Late } else { Fault::Stale(fault) })?;
        let mut buffer = Vec::new();
        loop {
            let Some((head, head_bytes)) = parse_head(&buffer)? else {
                if buffer.len() > HEAD_BYTES_MAX {
                    return Err(Fault::Reply("the head of its reply is too long"));
                }
                if read_more(&mut wire, &mut buffer, deadline)? == 0 {
                    let closed = io::Error::new(ErrorKind::UnexpectedEof, "closed before a complete reply");
                    return Err(if buffer.is_empty() { Fault::Stale(closed) } else { Fault::Io(closed) });
                }
                continue;
            };
            buffer.drain(..head_bytes);
            if (100..200).contains(&head.status) {
                continue;
            }
            let whole = read_body(&mut wire, &mut buffer, head.length, deadline)?;
            if head.keeps_open && whole {
                self.wire = Some(wire);
            }
            return Ok(Reply { status: head.status, headers: head.headers, body: buffer, elapsed: started.elapsed() });
        }
    }
}

fn encode(request: &Request<'_>, address: &Address) -> Vec<u8> {
    let host = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) | Address::Abstract(_) => "localhost".to_owned(),
    };
    let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", request.method, request.target);
    for (name, value) in request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = request.body {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(request.body.unwrap_or(""));
    text.into_bytes()
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    /// `None`: the body ends with the connection.
    length: Option<usize>,
    keeps_open: bool,
}

/// The head at the start of `bytes` and how many bytes it takes; `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Fault::Reply("its reply is not HTTP/1")),
    };
    let status = response.code.unwrap_or(0);
    let mut keeps_open = response.version == Some(1);
    let mut length = matches!(status, 204 | 304).then_some(0);
    let mut headers = Vec::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let value = String::from_utf8_lossy(field.value).trim().to_owned();
        if field.name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().map_err(|_| Fault::Reply("its Content-Length is no number"))?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Fault::Reply("its reply has a Transfer-Encoding, which the wallet never sends"));
        } else if field.name.eq_ignore_ascii_case("connection") {
            keeps_open &= !value.eq_ignore_ascii_case("close");
        }
        headers.push((field.name.to_owned(), value));
    }
    Ok(Some((Head { status, headers, length, keeps_open }, head_bytes)))
}

/// Reads until `buffer` is the whole body; says whether the connection can carry another exchange.
fn read_body(wire: &mut Wire, buffer: &mut Vec<u8>, length: Option<usize>, deadline: Instant) -> Result<bool, Fault> {
    if length.unwrap_or(0) > BODY_BYTES_MAX {
        return Err(Fault::Reply("the body of its reply is too long"));
    }
    loop {
        match length {
            Some(length) if buffer.len() == length => return Ok(true),
            Some(length) if buffer.len() > length => return Err(Fault::Reply("it sent more than its Content-Length")),
            Some(_) | None => {}
        }
        if buffer.len() > BODY_BYTES_MAX {
            return Err(Fault::Reply("the body of its reply is too long"));
        }
        if read_more(wire, buffer, deadline)? == 0 {
            if length.is_none() {
                return Ok(false);
            }
            return Err(Fault::Io(io::Error::new(ErrorKind::UnexpectedEof, "closed in the middle of a reply")));
        }
    }
}

fn read_more(wire: &mut Wire, buffer: &mut Vec<u8>, deadline: Instant) -> Result<usize, Fault> {
    let filled = buffer.len();
    buffer.resize(filled + READ_BYTES, 0);
    let outcome = loop {
        set_timeout(wire, deadline)?;
        match wire.read(&mut buffer[filled..]) {
            Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
            outcome => break outcome,
        }
    };
    buffer.truncate(filled + outcome.as_ref().copied().unwrap_or(0));
    outcome.map_err(|fault| match fault {
        fault if is_timeout(&fault) => Fault::Late,
        fault if filled == 0 => Fault::Stale(fault),
        fault => Fault::Io(fault),
    })
}

fn set_timeout(wire: &Wire, deadline: Instant) -> Result<(), Fault> {
    let left = deadline.saturating_duration_since(Instant::now());
    // The operating system takes a timeout of zero for "for ever".
    if left < Duration::from_millis(1) {
        return Err(Fault::Late);
    }
    wire.set_timeout(left).map_err(Fault::Io)
}

fn is_timeout(fault: &io::Error) -> bool {
    matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A value for a query string: everything but letters, digits and `-._~:/` is percent-encoded.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
