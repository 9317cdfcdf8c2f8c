//! A raw HTTP client: sends bytes as they are given, reads replies one by one, and notices the end of the connection.
use super::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header that stands once; `None` if it is absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice: {self}");
        value
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The field `code` of an error.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("no code: {self}")).to_owned()
    }

    /// Fails unless the reply is a receipt or another success; returns itself.
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self}");
        self
    }

    /// Fails unless the reply is this refusal; returns itself.
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self}");
        self
    }

    /// Whether it is a receipt that had been given before.
    pub fn replayed(&self) -> bool {
        self.header("Idempotency-Replayed") == Some("true")
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends, and does not mind if the server has closed meanwhile: what it said before is still to be read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        match self.try_send(bytes.as_ref()) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            outcome => outcome.expect("the server takes what is sent within the time"),
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> std::io::Result<bool> {
        let mut piece = [0u8; 16 << 10];
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }

    /// The next reply; an error if the connection ends or breaks before it is complete.
    pub fn try_reply(&mut self, to_head: bool) -> std::io::Result<Reply> {
        let head_bytes = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(self.buffer[..head_bytes - 4].to_vec()).expect("a head is ASCII");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let fields = lines.map(|line| line.split_once(':').unwrap_or_else(|| panic!("not a field: {line:?}")));
        let headers = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        let bodiless = to_head || status < 200 || matches!(status, 204 | 304);
        let length = reply.header("Content-Length").map(|value| value.parse().expect("a length is a number"));
        assert!(length.is_some() || bodiless, "a reply without a length: {reply}");
        let body_bytes: usize = if bodiless { 0 } else { length.unwrap_or(0) };
        while self.buffer.len() < head_bytes + body_bytes {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        reply.body = self.buffer[head_bytes..head_bytes + body_bytes].to_vec();
        self.buffer.drain(..head_bytes + body_bytes);
        Ok(reply)
    }

    /// The next reply.
    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).expect("a reply arrives in time")
    }

    /// The next reply, which is to a HEAD.
    pub fn reply_to_head(&mut self) -> Reply {
        self.try_reply(true).expect("a reply arrives in time")
    }

    /// The next replies, in their order.
    pub fn replies(&mut self, count: usize) -> Vec<Reply> {
        (0..count).map(|_| self.reply()).collect()
    }

    /// Sends a request and reads its reply.
    pub fn call(&mut self, request: &Request) -> Reply {
        self.send(request.bytes());
        self.reply()
    }

    /// Waits until the server closes; what arrives before is returned. Fails if it stays open.
    pub fn closed(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return std::mem::take(&mut self.buffer),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return std::mem::take(&mut self.buffer),
                Err(error) => panic!("the connection was not closed: {error}"),
            }
        }
    }

    /// Fails unless the server closes without sending anything more.
    pub fn assert_closed(&mut self, what: &str) {
        let rest = self.closed();
        assert!(rest.is_empty(), "{what}: more than expected: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Fails unless another request is answered on this connection, and nothing else.
    pub fn assert_usable(&mut self, what: &str) {
        assert!(self.buffer.is_empty(), "{what}: more than expected: {:?}", String::from_utf8_lossy(&self.buffer));
        self.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let reply = self.try_reply(false).unwrap_or_else(|error| panic!("{what}: the connection is not usable: {error}"));
        assert_eq!((reply.status, reply.json()["ok"].as_bool()), (200, Some(true)), "{what}: {reply}");
    }
}

/// A request to be sent.
#[derive(Clone)]
pub struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A request of HTTP/1.1 without anything but `Host`.
pub fn request(method: &str, target: &str) -> Request {
    let headers = vec![("Host".to_owned(), "localhost".to_owned())];
    Request { line: format!("{method} {target} HTTP/1.1"), headers, body: Vec::new() }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// A body declared as JSON.
    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    /// A body with its length and nothing else.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
