//! Other users of the machine at the sockets that are not theirs: the daemon's and the operator's. What keeps them out is taken away step by
//! step, until only the credentials that the kernel tells are left. Becoming another user takes root; without it only modes are looked at.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::fs::Uid;
use std::fs::{metadata, set_permissions, Permissions};
use std::io::{ErrorKind, Read, Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use support::{eventually, Daemon, Server, PATIENCE};

/// Nobody, on most systems; on no system the owner of anything here.
const STRANGER: u32 = 65_534;

/// Whether the part that takes another user can be tried; if not, that is told.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("LEFT OUT: becoming another user takes root");
    }
    is_root
}

fn mode(path: &Path) -> u32 {
    metadata(path).unwrap().permissions().mode() & 0o777
}

fn open_up(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What a thread of another user gets at a socket to which it sends these bytes: everything until the end.
fn as_stranger(socket: &Path, sent: &[u8]) -> Result<Vec<u8>> {
    let (socket, sent): (PathBuf, Vec<u8>) = (socket.to_owned(), sent.to_owned());
    let attempt = std::thread::spawn(move || -> Result<Vec<u8>> {
        let stranger = Uid::from_raw(STRANGER);
        // Of this thread alone; it takes the rights of root away as well.
        rustix::thread::set_thread_res_uid(stranger, stranger, stranger).unwrap();
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // The other end may have closed already; what it has said can be read all the same.
        let _ = stream.write_all(&sent);
        let mut told = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return Ok(told),
                Ok(count) => told.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(told),
                Err(error) => return Err(error),
            }
        }
    });
    attempt.join().unwrap()
}

#[test]
fn other_users_are_kept_from_the_socket_of_the_daemon() {
    let daemon = Daemon::start();
    let (socket, run) = (daemon.socket(), daemon.path("run"));
    assert_eq!((mode(&socket), mode(&run)), (0o600, 0o700));
    if !is_root() {
        return;
    }
    // A hello of a reader, as a wallet sends it.
    let hello = [&[24, 0, 0, 0, 1, 0, 0, 0][..], b"RONWIRED", &4u32.to_le_bytes(), &[2, 0, 0, 0], &[0; 8]].concat();
    let denied = |what: &str| {
        let error = as_stranger(&socket, &hello).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
    };
    open_up(run.parent().unwrap(), 0o755);
    denied("the directory of the socket is closed");
    open_up(&run, 0o755);
    denied("the socket is closed");
    open_up(&socket, 0o666);
    let told = String::from_utf8_lossy(&as_stranger(&socket, &hello).unwrap()).into_owned();
    assert!(told.contains("is not admitted") && told.contains(&format!("user {STRANGER}")), "{told:?}");
    assert!(told.len() < 300, "a stranger is told nothing else: {told:?}");
    // The owner is let in on the same socket.
    let mut own = UnixStream::connect(&socket).unwrap();
    own.set_read_timeout(Some(PATIENCE)).unwrap();
    own.write_all(&hello).unwrap();
    let mut head = [0; 8];
    own.read_exact(&mut head).unwrap();
    assert!(u32::from_le_bytes([head[0], head[1], head[2], head[3]]) > 0);
    eventually("the refusal in the log", || daemon.log().contains("is not admitted").then_some(()));
}

#[test]
fn other_users_are_kept_from_the_socket_of_the_operator() {
    let server = Server::start();
    let socket = server.path("admin.sock");
    assert_eq!(mode(&socket), 0o600);
    if !is_root() {
        return;
    }
    open_up(server.directory(), 0o755);
    let request = b"GET /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let error = as_stranger(&socket, request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    // Only the credentials are left.
    open_up(&socket, 0o666);
    assert_eq!(String::from_utf8_lossy(&as_stranger(&socket, request).unwrap()), "");
    let refused = format!("\"event\":\"admin_refused\",\"uid\":{STRANGER}");
    eventually("the refusal in the log", || server.log().contains(&refused).then_some(()));
    let mut own = UnixStream::connect(&socket).unwrap();
    own.set_read_timeout(Some(PATIENCE)).unwrap();
    own.write_all(request).unwrap();
    let mut told = String::new();
    own.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("svc-wallet"), "the owner is served: {told}");
}
