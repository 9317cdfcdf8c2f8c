//! The server of the registry: one thread accepts, each connection has a thread of its own for one request and its reply.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections at once, one more is answered 503; a head has [`HEAD_BYTES_MAX`] bytes and
//! [`HEAD_TIME`] at most, a reply [`REPLY_TIME`], however their bytes are dealt out; whoever waits for another topology and goes away
//! gives its place back.
use super::board::Board;
use super::request::{parse, Asked, Malformed, Request};
use super::SERVICE;
use crate::control::health_body;
use crate::domain::Code;
use crate::stream::Until;
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most connections at once; each wallet that waits for another topology has one.
const CONNECTIONS_MAX: usize = 512;
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long a head may take to arrive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a reply may take to leave.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// How long the server has to answer itself, once connected; connecting has as long.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// Pause after a failed accept: want of file descriptors does not go away within microseconds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long an end waits for replies that are on their way.
const END_TIME: Duration = Duration::from_secs(1);
/// Time between two looks whether they have left.
const END_LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running server.
pub(super) struct Server {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    board: Arc<Board>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Serves what is on the board.
    pub fn start(listener: TcpListener, board: Arc<Board>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        let (stopping, open) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let accept = {
            let (listener, stopping, open, board) = (listener.clone(), stopping.clone(), open.clone(), board.clone());
            move || accept_until_stopped(&listener, &stopping, &open, &board)
        };
        let thread = thread::Builder::new().name("registry-accept".to_owned()).spawn(accept)?;
        Ok(Self { address, listener, stopping, open, board, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a question gets an answer, whatever it is.
    pub fn answers(&self) -> bool {
        answers(self.address)
    }

    /// Accepts nobody any more, answers those who wait, and gives replies a moment to leave.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        self.board.end();
        let _ = self.thread.join();
        let until = Instant::now() + END_TIME;
        while self.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            thread::sleep(END_LOOK_EVERY);
        }
    }
}

/// Whether whoever listens at this address answers a question. While this machine does not have the address, nobody is asked, and nothing is
/// wrong with who listens there.
fn answers(address: SocketAddr) -> bool {
    if UdpSocket::bind((address.ip(), 0)).is_err() {
        return true;
    }
    let asked = TcpStream::connect_timeout(&address, PROBE_TIME).and_then(|stream| {
        let mut stream = Until::new(&stream, Instant::now() + PROBE_TIME);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n")?;
        stream.read_exact(&mut [0])
    });
    asked.is_ok()
}

/// The place of one connection, given back however it ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(open.clone());
        (open.fetch_add(1, Ordering::SeqCst) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn accept_until_stopped(listener: &TcpListener, stopping: &AtomicBool, open: &Arc<AtomicUsize>, board: &Arc<Board>) {
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(event = "accept_failed", reason = %error, "a connection could not be accepted");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Some(place) = Place::take(open) else {
            // Few bytes, which a fresh connection has room for.
            let _ = stream.set_nonblocking(true);
            let _ =
                (&stream).write_all(&refusal(503, Code::RetryLater, "there are too many connections; ask again").bytes(false));
            continue;
        };
        let board = board.clone();
        let serve = move || {
            let _place = place;
            // A peer that is gone or too slow gets nothing; that is its own affair and not logged.
            let _ = serve_one(&stream, &board);
        };
        if let Err(error) = thread::Builder::new().name("registry-client".to_owned()).spawn(serve) {
            tracing::warn!(event = "thread_failed", reason = %error, "no thread could be started for a connection");
        }
    }
}

fn serve_one(stream: &TcpStream, board: &Board) -> io::Result<()> {
    let (reply, head_only) = match read_head(stream)? {
        Ok(Request { asked, head_only }) => (answer(&asked, board, stream), head_only),
        Err(malformed) => (refused(malformed), false),
    };
    Until::new(stream, Instant::now() + REPLY_TIME).write_all(&reply.bytes(head_only))?;
    stream.shutdown(Shutdown::Write)?;
    // What was sent behind the head is read and dropped: closing over it would reset the connection under the reply.
    let mut rest = [0; HEAD_BYTES_MAX];
    stream.set_read_timeout(Some(END_LOOK_EVERY))?;
    let mut stream = stream;
    stream.read(&mut rest).map(drop)
}

/// Reads a head; fails if the peer closes before it is complete.
fn read_head(stream: &TcpStream) -> io::Result<Result<Request, Malformed>> {
    let mut stream = Until::new(stream, Instant::now() + HEAD_TIME);
    let mut head = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        match stream.read(&mut head[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        match parse(&head[..filled]) {
            Some(request) => return Ok(request),
            None if filled == HEAD_BYTES_MAX => return Ok(Err(Malformed::TooLarge)),
            None => {}
        }
    }
}

fn answer(asked: &Asked, board: &Board, stream: &TcpStream) -> Reply {
    let Asked::Topology { known, wait } = asked else {
        return Reply { body: health_body(SERVICE).as_bytes().into(), ..Reply::new(200) };
    };
    let is_known = |tag: &str| known.iter().any(|one| one == "*" || one == tag);
    match board.other_than(is_known, *wait, || is_there(stream)) {
        Some(published) => Reply { tag: Some(published.tag), body: published.body, ..Reply::new(200) },
        None => Reply { tag: Some(board.tag()), ..Reply::new(304) },
    }
}

/// Whether the peer has not closed its side.
fn is_there(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0; 1]));
    let blocks = stream.set_nonblocking(false).is_ok();
    blocks && !matches!(&looked, Ok(0)) && looked.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |_| true)
}

fn refused(malformed: Malformed) -> Reply {
    match malformed {
        Malformed::Syntax => refusal(400, Code::BadRequest, "this is not an HTTP/1.1 request"),
        Malformed::TooLarge => refusal(431, Code::BadRequest, "the head of the request is too large; 8 KiB at most"),
        Malformed::Page => refusal(404, Code::NotFound, "no such page; there are /v1/topology and /healthz"),
        Malformed::Method => refusal(405, Code::MethodNotAllowed, "this page can only be read, with GET or HEAD"),
        Malformed::Query => refusal(400, Code::BadRequest, "the query is not understood; write ?wait=SECONDS or nothing"),
    }
}

fn refusal(status: u16, code: Code, message: &str) -> Reply {
    let body = serde_json::json!({
        "code": code.as_str(),
        "http": status,
        "message": message,
        "retryable": code.retryable(),
    });
    Reply { body: body.to_string().as_bytes().into(), ..Reply::new(status) }
}

struct Reply {
    status: u16,
    tag: Option<String>,
    body: Arc<[u8]>,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self { status, tag: None, body: Arc::new([]) }
    }

    fn bytes(&self, head_only: bool) -> Vec<u8> {
        let phrase = match self.status {
            200 => "OK",
            304 => "Not Modified",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "",
        };
        let mut head = format!("HTTP/1.1 {} {phrase}\r\nconnection: close\r\ncache-control: no-cache\r\n", self.status);
        if let Some(tag) = &self.tag {
            head.push_str(&format!("etag: {tag}\r\n"));
        }
        if self.status != 304 {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", self.body.len()));
        }
        match self.status {
            405 => head.push_str("allow: GET, HEAD\r\n"),
            503 => head.push_str("retry-after: 1\r\n"),
            _ => {}
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_if_it_says_anything_and_not_if_it_is_silent_or_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!answers(address), "the system accepts for it, and it is silent");
        drop(listener);
        assert!(!answers(address), "nobody is there");
        // An address of documentation is no machine's.
        assert!(answers("192.0.2.7:80".parse().unwrap()), "it is not for this machine to say");
    }
}
