//! The server of the control plane: one thread accepts, each connection has a thread of its own for a few seconds at most.
//!
//! Plain blocking threads, because probes must be answered whatever the cores are doing. Invariants: at most
//! [`CONNECTIONS_MAX`] connections at once, and one more cuts the oldest, so that slow or silent peers never keep a
//! probe out; a connection lives [`CONNECTION_TIME`] at most, however its bytes are dealt out; a head is
//! [`HEAD_BYTES_MAX`] at most; bodies are read only of what the admin socket is asked to do, up to [`BODY_BYTES_MAX`]; each connection
//! carries one reply.
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::SockRef;

use super::page::{Action, ActionFault, Page, PageReply, Pages, Surface};
use super::socket::AdminSocket;
use crate::api::IncomingHeaders;
use crate::domain::{hex, Code};
use crate::ledger::Peer;
use crate::stream::{Limit, Until};

/// Most connections at once.
pub const CONNECTIONS_MAX: usize = 32;
/// How long a connection lives at most, from accept to close.
pub const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// Longest request head, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Longest body of what the admin socket is asked to do, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// What can be done with every page, as the header `Allow` lists it.
const ALLOW: &str = "GET, HEAD, OPTIONS";
/// How long, and for how many bytes, a refused client may go on sending before the connection is closed under it.
const LINGER_TIME: Duration = Duration::from_millis(200);
const LINGER_BYTES_MAX: usize = 64 << 10;
/// Pause after a failed accept: want of file descriptors does not go away within microseconds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the acceptor looks again whether a cut connection has made room.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct ControlServer {
    listener: Arc<dyn Listener>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    address: Option<SocketAddr>,
}

impl ControlServer {
    /// Serves the public pages on a bound TCP listener.
    pub fn serve_port(listener: TcpListener, pages: Arc<dyn Pages>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Self::serve(Arc::new(listener), Some(address), Surface::Port, pages)
    }

    /// Serves all pages on the admin socket.
    pub fn serve_admin(socket: AdminSocket, pages: Arc<dyn Pages>) -> io::Result<Self> {
        Self::serve(Arc::new(socket), None, Surface::Admin, pages)
    }

    /// Where the port listens; `None` for the admin socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    fn serve(
        listener: Arc<dyn Listener>,
        address: Option<SocketAddr>,
        surface: Surface,
        pages: Arc<dyn Pages>,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (accepting, stop) = (Arc::clone(&listener), Arc::clone(&stopping));
        let name = match surface {
            Surface::Port => "control-port",
            Surface::Admin => "control-admin",
        };
        let accept = move || accept_until_stopped(&*accepting, &stop, surface, &pages);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(accept)?;
        Ok(Self { listener, stopping, thread: Some(thread), address })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.listener.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What both kinds of listener have in common.
trait Listener: std::fmt::Debug + Send + Sync {
    fn accept_one(&self) -> io::Result<Box<dyn Connection>>;
    /// Ends a waiting accept with an error.
    fn wake(&self);
}

impl Listener for TcpListener {
    fn accept_one(&self) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(self.accept()?.0))
    }

    fn wake(&self) {
        let _ = SockRef::from(self).shutdown(Shutdown::Both);
    }
}

impl Listener for AdminSocket {
    fn accept_one(&self) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(self.accept()?))
    }

    fn wake(&self) {
        self.shut();
    }
}

/// What both kinds of connection have in common.
trait Connection: Limit + Read + Write + Send {
    fn twin(&self) -> io::Result<Box<dyn Connection>>;
    fn shut(&self, how: Shutdown);
    /// Whose it is, if the kernel knows: of this machine.
    fn user(&self) -> Option<u32>;
}

macro_rules! connection {
    ($stream:ty, $user:expr) => {
        impl Connection for $stream {
            fn twin(&self) -> io::Result<Box<dyn Connection>> {
                Ok(Box::new(self.try_clone()?))
            }

            fn shut(&self, how: Shutdown) {
                let _ = self.shutdown(how);
            }

            fn user(&self) -> Option<u32> {
                $user(self)
            }
        }
    };
}

connection!(TcpStream, |_: &TcpStream| None);
connection!(UnixStream, |stream: &UnixStream| Peer::of(stream).ok().map(|peer| peer.uid));

/// The connections that are open, oldest first.
#[derive(Default)]
struct Slots {
    open: Mutex<Vec<Slot>>,
    freed: Condvar,
}

struct Slot {
    number: u64,
    connection: Box<dyn Connection>,
    cut: bool,
}

impl Slots {
    fn open(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot, cutting the oldest connections until there is one.
    fn take(&self, number: u64, connection: Box<dyn Connection>, stop: &AtomicBool) {
        let mut open = self.open();
        while open.len() >= CONNECTIONS_MAX && !stop.load(Ordering::SeqCst) {
            if let Some(oldest) = open.iter_mut().find(|slot| !slot.cut) {
                oldest.connection.shut(Shutdown::Both);
                oldest.cut = true;
            }
            open = self.freed.wait_timeout(open, ROOM_PAUSE).unwrap_or_else(PoisonError::into_inner).0;
        }
        open.push(Slot { number, connection, cut: false });
    }

    fn give_back(&self, number: u64) {
        self.open().retain(|slot| slot.number != number);
        self.freed.notify_all();
    }
}

fn accept_until_stopped(listener: &dyn Listener, stop: &AtomicBool, surface: Surface, pages: &Arc<dyn Pages>) {
    let slots = Arc::new(Slots::default());
    for number in 0u64.. {
        let accepted = listener.accept_one();
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (connection, twin) = match accepted.and_then(|connection| Ok((connection.twin()?, connection))) {
            Ok(both) => both,
            Err(error) => {
                tracing::warn!(event = "accept_failed", reason = %error, "the control plane could not accept a connection");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        slots.take(number, twin, stop);
        let (slots_of_thread, pages) = (Arc::clone(&slots), Arc::clone(pages));
        let serve = move || {
            serve_one(connection, surface, &*pages);
            slots_of_thread.give_back(number);
        };
        if let Err(error) = std::thread::Builder::new().name("control-connection".to_owned()).spawn(serve) {
            tracing::warn!(
                event = "thread_failed", reason = %error,
                "the control plane could not start a thread for a connection"
            );
            slots.give_back(number);
        }
    }
}

/// Answers one request. A peer that is gone or too slow gets nothing; that is its own affair and not logged.
fn serve_one(mut connection: Box<dyn Connection>, surface: Surface, pages: &dyn Pages) {
    let deadline = Instant::now() + CONNECTION_TIME;
    let Ok(Some(mut request)) = read_request(&mut *connection, deadline) else {
        return;
    };
    let action = request.action(surface);
    if action.is_some() && read_body(&mut *connection, &mut request, deadline).is_err() {
        return;
    }
    let acted = action.zip(connection.user()).and_then(|(action, uid)| pages.act(action, &request.body, uid));
    let reply = answer(&request, surface, pages, acted);
    if Until::new(&mut *connection, deadline).write_all(&reply).is_err() {
        return;
    }
    connection.shut(Shutdown::Write);
    if request.more_follows {
        // Closing with unread bytes would reset the connection, and the reply could be lost on its way.
        discard(&mut *connection, deadline.min(Instant::now() + LINGER_TIME));
    }
}

/// What is known of a request.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    line: Result<Line, Malformed>,
    corr_id: Option<String>,
    /// Whether bytes may follow the head.
    more_follows: bool,
    /// Length of the body, if that is all that is said of it.
    body_bytes: Option<usize>,
    /// What of it was read.
    body: Vec<u8>,
}

impl Request {
    fn refused(malformed: Malformed) -> Self {
        Self { line: Err(malformed), corr_id: None, more_follows: true, body_bytes: None, body: Vec::new() }
    }

    /// What is asked to be done, with a body that can be read.
    fn action(&self, surface: Surface) -> Option<Action> {
        let line = self.line.as_ref().ok().filter(|line| line.method == "POST")?;
        self.body_bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX)?;
        Action::of(&line.target, surface)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    method: String,
    target: String,
}

/// Why a head is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malformed {
    TooLarge,
    Syntax,
    LineEnds,
    Host,
}

/// Reads a head; `None` if the peer closed before it was complete.
fn read_request(connection: &mut dyn Connection, deadline: Instant) -> io::Result<Option<Request>> {
    let mut connection = Until::new(connection, deadline);
    let mut head = [0u8; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        let read = connection.read(&mut head[filled..])?;
        if read == 0 {
            return Ok(None);
        }
        filled += read;
        if let Some(request) = parse(&head[..filled]) {
            return Ok(Some(request));
        }
        if filled == HEAD_BYTES_MAX {
            return Ok(Some(Request::refused(Malformed::TooLarge)));
        }
    }
}

/// Reads the rest of a body whose length is known.
fn read_body(connection: &mut dyn Connection, request: &mut Request, deadline: Instant) -> io::Result<()> {
    let filled = request.body.len();
    request.body.resize(request.body_bytes.unwrap_or(0).max(filled), 0);
    Until::new(connection, deadline).read_exact(&mut request.body[filled..])?;
    request.more_follows = false;
    Ok(())
}

/// `None` while the head is not complete.
fn parse(bytes: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let refused = |malformed| Some(Request::refused(malformed));
    let head_bytes = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) if has_bare_line_feed(&bytes[..head_bytes]) => {
            return refused(Malformed::LineEnds);
        }
        Ok(httparse::Status::Partial) if has_bare_line_feed(bytes) => return refused(Malformed::LineEnds),
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return refused(Malformed::TooLarge),
        Err(_) => return refused(Malformed::Syntax),
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return refused(Malformed::Syntax);
    };
    let named = |name: &'static str| parsed.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let hosts = named("host").count();
    let host_fits = hosts == 1 || (hosts == 0 && parsed.version == Some(0));
    let mut known = IncomingHeaders::default();
    parsed.headers.iter().for_each(|header| known.observe(header.name.as_bytes(), header.value));
    let corr_id = known.corr.map(str::to_owned);
    let body_follows = named("content-length").chain(named("transfer-encoding")).next().is_some();
    let length = named("content-length").next().and_then(|length| std::str::from_utf8(length.value).ok()?.parse().ok());
    let one_length = named("content-length").count() == 1 && named("transfer-encoding").next().is_none();
    let body_bytes = length.filter(|_| one_length);
    let body = bytes[head_bytes..].iter().copied().take(body_bytes.unwrap_or(0)).collect();
    let line = Line { method: method.to_owned(), target: target.to_owned() };
    let line = if host_fits { Ok(line) } else { Err(Malformed::Host) };
    Some(Request { line, corr_id, more_follows: body_follows || head_bytes < bytes.len(), body_bytes, body })
}

/// The parser takes a bare LF for a line end. The API does not, and two parties that read one head differently are how requests
/// are smuggled, so it is refused here as well.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

fn made_corr_id() -> String {
    let mut random = [0u8; 16];
    // Without randomness the id is all zeros: a request is still better answered than not.
    let _ = getrandom::fill(&mut random);
    hex(&random)
}

/// The bytes of the reply: what was done is told, everything else only reads.
fn answer(request: &Request, surface: Surface, pages: &dyn Pages, acted: Option<Result<PageReply, ActionFault>>) -> Vec<u8> {
    let corr_id = request.corr_id.clone().unwrap_or_else(made_corr_id);
    let refusal = |status, code, message: &str| (error_page(status, code, message, &corr_id), false);
    let (reply, head_only) = match (&request.line, acted) {
        (_, Some(Ok(reply))) => (reply, false),
        (_, Some(Err(ActionFault { status, code, message }))) => refusal(status, code, &message),
        (Err(Malformed::TooLarge), None) => {
            refusal(431, Code::BadRequest, "the head of the request is too large; 8 KiB and 64 headers at most")
        }
        (Err(Malformed::Syntax), None) => refusal(400, Code::BadRequest, "this is not an HTTP/1.1 request"),
        (Err(Malformed::LineEnds), None) => {
            refusal(400, Code::BadRequest, "a line of the head ends with a bare LF; end every line with CRLF")
        }
        (Err(Malformed::Host), None) => refusal(400, Code::BadRequest, "an HTTP/1.1 request has exactly one Host header"),
        (Ok(line), None) => match (Page::of(&line.target, surface), line.method.as_str()) {
            // What the server can do as a whole (RFC 9110 section 9.3.7).
            (None, "OPTIONS") if line.target == "*" => (PageReply::options(), false),
            (None, _) => {
                refusal(404, Code::NotFound, "no such page; there are /healthz, /readyz, /metrics, /version and /console")
            }
            (Some(page), "GET") => (pages.page(page), false),
            (Some(page), "HEAD") => (pages.page(page), true),
            (Some(_), "OPTIONS") => (PageReply::options(), false),
            (Some(_), _) => refusal(405, Code::MethodNotAllowed, "this page can only be read, with GET or HEAD"),
        },
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncache-control: no-store\r\nx-corr-id: {corr_id}\r\n",
        reply.status,
        phrase(reply.status),
    );
    if reply.status != 204 {
        // A reply without content must not even have a length (RFC 9110 section 8.6).
        head.push_str(&format!("content-type: {}\r\ncontent-length: {}\r\n", reply.content_type, reply.body.len()));
    }
    if let Some(seconds) = reply.retry_after {
        head.push_str(&format!("retry-after: {seconds}\r\n"));
    }
    if let Some(policy) = reply.content_policy {
        head.push_str(&format!(
            "content-security-policy: {policy}\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n"
        ));
    }
    if matches!(reply.status, 204 | 405) {
        head.push_str(&format!("allow: {ALLOW}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !head_only {
        bytes.extend_from_slice(&reply.body);
    }
    bytes
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    http: u16,
    message: &'a str,
    retryable: bool,
    corr_id: &'a str,
}

fn error_page(status: u16, code: Code, message: &str, corr_id: &str) -> PageReply {
    let body = ErrorBody { code: code.as_str(), http: status, message, retryable: code.retryable(), corr_id };
    let body = serde_json::to_vec(&body).expect("the body has only texts, a number and a flag");
    PageReply { status, ..PageReply::json(body) }
}

fn discard(connection: &mut dyn Connection, deadline: Instant) {
    let mut connection = Until::new(connection, deadline);
    let mut bytes = [0u8; 4 << 10];
    let mut discarded = 0;
    while discarded < LINGER_BYTES_MAX {
        match connection.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(read) => discarded += read,
        }
    }
}

#[cfg(any(test, fuzzing))]
#[path = "http_fuzzing.rs"]
pub(crate) mod fuzzing;

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
