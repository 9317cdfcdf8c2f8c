//! A registry that answers as a test says, and counts what it is asked.
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A listener on a port of its own; it lives as long as the process of the test.
pub(super) struct Fake {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    /// Answers each connection, on a thread of its own, with what `answer` writes; it gets the number of the question, from 0, its head,
    /// and the connection.
    pub fn start(answer: impl Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<AtomicUsize>::default();
        let (count, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (number, answer) = (count.fetch_add(1, Ordering::SeqCst), answer.clone());
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut head = String::new();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
                    answer(number, &head, &mut stream);
                });
            }
        });
        Self { url, asked }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A whole answer with a tag and a body.
pub(super) fn reply(status: &str, tag: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nETag: \"{tag}\"\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Writes an answer; whoever asked may be gone.
pub(super) fn write(stream: &mut TcpStream, bytes: &str) {
    let _ = stream.write_all(bytes.as_bytes());
}

/// The text of a topology with one cell.
pub(super) fn topology(version: u64) -> String {
    super::sample::text(version, "a")
}
