//! Streams that are read and written up to a deadline, however slowly the peer sends or takes its bytes.
//!
//! A timeout of a socket is one of each read or write, and begins again with the next byte: here what is left until the deadline is set
//! before each of them.
mod host;

pub use host::Host;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A stream of which each read and each write can be bounded in time.
pub trait Limit {
    /// From now on a read or a write fails that takes longer than this, which is above zero.
    ///
    /// # Errors
    /// If the system refuses.
    fn limit(&self, time: Duration) -> io::Result<()>;
}

impl Limit for TcpStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time)).and_then(|()| self.set_write_timeout(Some(time)))
    }
}

impl Limit for UnixStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time)).and_then(|()| self.set_write_timeout(Some(time)))
    }
}

impl<S: Limit + ?Sized> Limit for &S {
    fn limit(&self, time: Duration) -> io::Result<()> {
        (**self).limit(time)
    }
}

impl<S: Limit + ?Sized> Limit for &mut S {
    fn limit(&self, time: Duration) -> io::Result<()> {
        (**self).limit(time)
    }
}

/// A stream, of the kind that blocks, of which all reads and writes together end with a deadline: they fail with
/// [`ErrorKind::TimedOut`] then, and not before. Signals interrupt none of them.
#[derive(Debug)]
pub struct Until<S> {
    stream: S,
    deadline: Instant,
}

impl<S: Limit> Until<S> {
    /// This stream until then.
    pub fn new(stream: S, deadline: Instant) -> Self {
        Self { stream, deadline }
    }

    fn in_time<T>(&mut self, mut work: impl FnMut(&mut S) -> io::Result<T>) -> io::Result<T> {
        loop {
            self.stream.limit(left(self.deadline)?)?;
            match work(&mut self.stream) {
                // The system says that it would block where the time is over, and may be a tick early.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                done => return done,
            }
        }
    }
}

impl<S: Limit + Read> Read for Until<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.in_time(|stream| stream.read(bytes))
    }
}

impl<S: Limit + Write> Write for Until<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.in_time(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.in_time(Write::flush)
    }
}

/// What is left until a deadline.
///
/// # Errors
/// [`ErrorKind::TimedOut`] if nothing is.
pub fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_deals_out_its_bytes_one_by_one_is_waited_for_no_longer_than_until_the_deadline() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Each byte comes well within what is left, and they never end.
        std::thread::spawn(move || while theirs.write_all(b"x").is_ok() {});
        let deadline = Instant::now() + Duration::from_millis(200);
        let fault = io::copy(&mut Until::new(&ours, deadline), &mut io::sink()).unwrap_err();
        assert!(Instant::now() >= deadline && fault.kind() == ErrorKind::TimedOut, "{fault}");
        // What is over is not begun any more.
        let fault = Until::new(&ours, deadline).write_all(b"x").unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_peer_that_takes_or_sends_nothing_ends_a_write_and_a_read() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let soon = || Until::new(&ours, Instant::now() + Duration::from_millis(20));
        assert_eq!(soon().write_all(&vec![0; 64 << 20]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(soon().read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
