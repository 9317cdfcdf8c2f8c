//! The process at the other end of a connection, as the kernel tells.
//!
//! It is asked for with `libc`: a process that cannot be seen from here has the number 0, and the process number of `rustix` is a type
//! for which that is no value.
use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0 if it cannot be seen from here, because it is in another PID namespace.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

impl Peer {
    /// Who has made this connection.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn of(socket: &UnixStream) -> io::Result<Self> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
        let into = std::ptr::from_mut(&mut found).cast();
        // SAFETY: the descriptor is open as long as the socket is borrowed; the kernel writes at most `bytes` bytes, the size of
        // `found`, and any bytes are a value of its three integers.
        #[allow(unsafe_code)]
        let told = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, into, &mut bytes) };
        if told != 0 {
            return Err(io::Error::last_os_error());
        }
        assert_eq!(bytes as usize, size_of::<libc::ucred>(), "the kernel tells whole credentials");
        Ok(Self { pid: found.pid.unsigned_abs(), uid: found.uid })
    }

    /// Whether this process itself is at the other end.
    pub fn is_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Whether these are certainly one process. Of those that cannot be seen from here that is never certain.
    pub fn is_the_process(&self, other: &Self) -> bool {
        self.pid != 0 && self == other
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, uid } = self;
        match pid {
            0 => write!(f, "a process of user {uid} in another PID namespace"),
            pid => write!(f, "process {pid} of user {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_who_has_connected() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let this = Peer { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() };
        assert_eq!(Peer::of(&socket).unwrap(), this);
    }

    #[test]
    fn processes_that_cannot_be_seen_are_never_one() {
        let peers = [(7, 1), (8, 1), (7, 2), (0, 1)].map(|(pid, uid)| Peer { pid, uid });
        for (number, peer) in peers.iter().enumerate() {
            for (other_number, other) in peers.iter().enumerate() {
                assert_eq!(peer.is_the_process(other), number == other_number && peer.pid != 0, "{peer}, {other}");
            }
        }
        assert_eq!(peers[0].to_string(), "process 7 of user 1");
        assert_eq!(peers[3].to_string(), "a process of user 1 in another PID namespace");
    }
}
