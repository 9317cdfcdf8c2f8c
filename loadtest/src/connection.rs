//! One keep-alive connection of the generator: two buffers and a non-blocking socket.
//!
//! Nothing is allocated while requests and replies keep to the sizes of the first ones. It does not know what is asked or
//! when; the engine keeps the order of what is in flight.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use mio::net::TcpStream;

use crate::reply::{self, Malformed, Reply};

/// Room for replies; a batch of 64 receipts with their heads fits.
const INPUT_BYTES: usize = 64 * 1024;
/// A reply longer than this is not one of the server's.
const INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What reading ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Everything that had arrived is in the buffer.
    Drained,
    /// The buffer is full, more may be waiting.
    More,
    /// The peer has closed; what came before is in the buffer.
    Closed,
}

/// A connection and its buffers.
pub struct Connection {
    stream: TcpStream,
    /// Requests that are still to be written; the engine appends here.
    pub out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    start: usize,
    end: usize,
    open: bool,
}

impl Connection {
    /// Connects, waiting for the handshake; afterwards nothing blocks.
    ///
    /// # Errors
    /// Whatever the system says about the socket.
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream: TcpStream::from_std(stream),
            out: Vec::with_capacity(16 * 1024),
            written: 0,
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            open: true,
        })
    }

    /// The socket, for the registration with the poll.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// False once either side has given up.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Gives up: nothing is written or read any more.
    pub fn close(&mut self) {
        self.open = false;
        self.out.clear();
        self.written = 0;
        // A socket that the peer has reset cannot be shut down, and need not be.
        let _already_gone = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Writes what the socket takes; the rest stays for the next writable event.
    ///
    /// # Errors
    /// Anything but "would block": the connection is broken then.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once into the buffer. A short read means that the socket is drained, unless the peer is known to have
    /// closed (`peer_closed`), in which case only a read of nothing ends it: events are edge-triggered.
    ///
    /// # Errors
    /// Anything but "would block": the connection is broken then.
    pub fn fill(&mut self, peer_closed: bool) -> io::Result<Fill> {
        self.make_room()?;
        loop {
            let room = self.input.len() - self.end;
            match self.stream.read(&mut self.input[self.end..]) {
                Ok(0) => return Ok(Fill::Closed),
                Ok(bytes) => {
                    self.end += bytes;
                    return Ok(if bytes < room && !peer_closed { Fill::Drained } else { Fill::More });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fill::Drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next complete reply out of the buffer.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are no reply.
    pub fn next_reply(&mut self) -> Result<Option<Reply<'_>>, Malformed> {
        match reply::parse(&self.input[self.start..self.end])? {
            Some((reply, used)) => {
                self.start += used;
                Ok(Some(reply))
            }
            None => Ok(None),
        }
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.input.len() {
                if self.end >= INPUT_BYTES_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply is longer than 4 MiB"));
                }
                self.input.resize(self.end * 2, 0);
            }
        }
        Ok(())
    }
}
