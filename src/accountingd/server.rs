//! The socket of the daemon: who may connect, and one thread for each connection.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::books::Books;
use crate::accounting::protocol::{Answer, Request, REQUEST_BYTES_MAX};
use crate::ledger::Peer;

/// Connections at the same time. A wallet has one.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a peer may take nothing of its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// What all connections share.
pub(super) struct Server {
    pub books: Arc<Books>,
    /// The users whose processes may connect.
    pub users: Vec<u32>,
}

impl Server {
    /// Accepts connections from now on until the process ends.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn start(self, listener: UnixListener) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("accounting-accept".to_owned());
        thread.spawn(move || self.accept(&listener)).map(|_| ())
    }

    fn accept(&self, listener: &UnixListener) {
        let served = Arc::new(AtomicUsize::new(0));
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(event = "accept_failed", %error, "a connection could not be accepted");
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            if let Err(error) = self.admit(stream, &served) {
                tracing::warn!(event = "accounting_turned_away", %error, "a connection was not served");
            }
        }
    }

    /// Serves a connection on a thread of its own, if it may have one.
    fn admit(&self, stream: UnixStream, served: &Arc<AtomicUsize>) -> io::Result<()> {
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        let peer = Peer::of(&stream)?;
        let refuse = |error: String| {
            // Whoever is turned away is told, if it listens.
            let _ = (&stream).write_all(Answer::Error { error: error.clone() }.line().as_bytes());
            Err(io::Error::other(error))
        };
        if !self.users.contains(&peer.uid) && !peer.is_this_process() {
            return refuse(format!("{peer} is not admitted; start the daemon with --allow-uid {}", peer.uid));
        }
        if served.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            served.fetch_sub(1, Ordering::Relaxed);
            return refuse(format!("{CONNECTIONS_MAX} connections are served already"));
        }
        let place = Place(served.clone());
        let books = self.books.clone();
        let thread = std::thread::Builder::new().name("accounting".to_owned());
        let serve = move || {
            let _place = place;
            // A peer that goes in the middle of a line has said nothing.
            let _ = serve(&stream, &books);
        };
        thread.spawn(serve).map(|_| ())
    }
}

/// One of the connections that are served.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(mut stream: &UnixStream, books: &Books) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.by_ref().take(REQUEST_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if read > REQUEST_BYTES_MAX {
            let error = format!("a line is longer than {REQUEST_BYTES_MAX} bytes");
            return stream.write_all(Answer::Error { error }.line().as_bytes());
        }
        let answer = match (Request::parse(&line), std::str::from_utf8(&line)) {
            (Ok(request), Ok(text)) => books.answer(&request, text),
            (Ok(_), Err(error)) => Answer::Error { error: error.to_string() },
            (Err(error), _) => Answer::Error { error },
        };
        stream.write_all(answer.line().as_bytes())?;
        // Memory for a long line is not kept for the short ones that follow.
        line.shrink_to(4 << 10);
    }
}
