//! For tests: a server in this process that answers with bytes prepared beforehand and remembers what it was asked.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::{spawn, JoinHandle};
use std::time::Duration;

/// What the server does on one connection: one element for each request; the connection is closed after the last one.
pub type Connection = Vec<Vec<u8>>;

pub struct Fake {
    pub address: SocketAddr,
    requests: Receiver<String>,
    thread: JoinHandle<()>,
}

impl Fake {
    /// Serves one connection after the other, each by its script, and then stops listening.
    pub fn start(connections: Vec<Connection>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let thread = spawn(move || {
            for connection in connections {
                let (stream, _) = listener.accept().unwrap();
                serve(stream, connection, &sender);
            }
        });
        Self { address, requests, thread }
    }

    /// Waits until every script was played and returns the requests, head and body.
    pub fn finish(self) -> Vec<String> {
        self.thread.join().unwrap();
        self.requests.try_iter().collect()
    }
}

fn serve(mut stream: TcpStream, replies: Connection, requests: &Sender<String>) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for reply in replies {
        let Some(request) = read_request(&mut stream) else { return };
        requests.send(request).unwrap();
        // In two pieces, so that the reader has to wait for the second one.
        let (first, second) = reply.split_at(reply.len() / 2);
        for piece in [first, second] {
            if stream.write_all(piece).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A reply with this status, header lines (each with its CRLF) and body.
pub fn reply(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}
