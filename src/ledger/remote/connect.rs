//! Connecting to the socket of a daemon without waiting for it.
use rustix::net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection, on which reading and writing do not wait either.
///
/// # Errors
/// If nobody listens there, or this process may not connect; and if so many connections wait to be accepted that another one would
/// have to wait as well: whoever listens hangs or is stopped.
pub(crate) fn connect_to(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connecting = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&connecting, &SocketAddrUnix::new(socket)?) {
        Ok(()) => Ok(connecting.into()),
        Err(rustix::io::Errno::AGAIN) => {
            Err(io::Error::other("it accepts no connection: it hangs or is stopped, and as many as may wait do"))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen};

    #[test]
    fn nobody_waits_for_a_daemon_that_accepts_no_connection() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("s");
        assert_eq!(connect_to(&socket).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listening = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listening, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        listen(&listening, 1).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            match connect_to(&socket) {
                Ok(connection) => waiting.push(connection),
                Err(error) => break error.to_string(),
            }
            assert!(waiting.len() < 100, "the queue has an end");
        };
        assert!(refused.contains("it hangs or is stopped") && !waiting.is_empty(), "{refused}");
    }
}
