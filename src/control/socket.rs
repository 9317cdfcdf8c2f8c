//! The admin socket, and that of a daemon: a unix socket that only its owner can open, and that a server that crashed does not block for ever.
//!
//! Invariants: the socket is never open to others, not even for the moment between its creation and a change of its mode; a
//! file that is not a socket, and a socket somebody listens on, are never removed; on the way out only the own socket is; whoever connects
//! to an admin socket is served only as root or as the user of the server, whatever the modes of files say.
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::ledger::Peer;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

const DIRECTORY_MODE: u32 = 0o700;
const SOCKET_MODE: u32 = 0o600;
const BACKLOG: i32 = 64;

/// Why the admin socket could not be opened.
#[derive(Debug)]
pub enum AdminFault {
    /// Another process listens there.
    InUse(PathBuf),
    /// Something that is no socket stands at that path.
    NotASocket(PathBuf),
    /// The path is longer than a socket's path can be.
    PathTooLong(PathBuf),
    /// The operating system refused.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
}

impl std::fmt::Display for AdminFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdminFault::InUse(path) => {
                write!(f, "{}: another server listens on this socket; stop it or choose another path", path.display())
            }
            AdminFault::NotASocket(path) => {
                write!(f, "{}: this is no socket and is left alone; choose another path", path.display())
            }
            AdminFault::PathTooLong(path) => {
                write!(f, "{}: the path of a socket can have 107 bytes at most; choose a shorter one", path.display())
            }
            AdminFault::Io { what, path, cause } => write!(f, "{}: cannot {what}: {cause}", path.display()),
        }
    }
}

impl std::error::Error for AdminFault {}

/// The listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    /// Its file, and what tells that from another one; none if it has but a name.
    file: Option<(PathBuf, (u64, u64))>,
}

impl AdminSocket {
    /// Another handle of the listening socket; it accepts no longer than this file exists.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Ends a waiting accept with an error.
    pub(super) fn shut(&self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }

    /// The next connection of root or of the own user. The mode of its file keeps others out, but a file can be opened up, and a socket
    /// without one has no mode: so they are cut off here in any case.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (connection, _) = self.listener.accept()?;
            let uid = Peer::of(&connection)?.uid;
            if uid == 0 || uid == rustix::process::geteuid().as_raw() {
                return Ok(connection);
            }
            tracing::warn!(event = "admin_refused", uid, "another user has connected to the admin socket, and was cut off");
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let Some((path, identity)) = &self.file else { return };
        let still_ours = fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == *identity);
        if still_ours {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether [`bind_admin`] would be refused for what stands at `path`. Nothing is touched.
pub fn look_at_socket(path: &Path) -> Result<(), AdminFault> {
    SockAddr::unix(path).map_err(|_| AdminFault::PathTooLong(path.to_owned()))?;
    is_stale(path).map(|_| ())
}

/// Opens the admin socket at `path`, making its directory (mode 0700) if there is none.
pub fn bind_admin(path: &Path) -> Result<AdminSocket, AdminFault> {
    let fault = |what| move |cause| AdminFault::Io { what, path: path.to_owned(), cause };
    let address = SockAddr::unix(path).map_err(|_| AdminFault::PathTooLong(path.to_owned()))?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists()) {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(fault("make its directory"))?;
    }
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fault("make a socket"))?;
    // On Linux the file takes its mode from the socket, so it never exists with a wider one.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(SOCKET_MODE))
        .map_err(|cause| fault("restrict the socket")(cause.into()))?;
    socket.bind(&address).map_err(fault("bind the socket"))?;
    let found = fs::symlink_metadata(path).map_err(fault("find the socket that was just bound"))?;
    assert_eq!(found.mode() & 0o177, 0, "the admin socket must not be open to others");
    socket.listen(BACKLOG).map_err(fault("listen"))?;
    Ok(AdminSocket { listener: UnixListener::from(socket), file: Some((path.to_owned(), (found.dev(), found.ino()))) })
}

/// The name of an admin socket that has no file, for a server that leaves none: the absolute path at which it would be.
///
/// # Errors
/// If the path is too long for a name, or the current directory cannot be told.
pub fn abstract_name(path: &Path) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(std::path::absolute(path)?.as_os_str().as_bytes())
}

/// Opens the admin socket under that name; it goes with the process.
///
/// # Errors
/// If another server has the name, or it cannot be one.
pub fn bind_admin_without_file(path: &Path) -> Result<AdminSocket, AdminFault> {
    let fault = |what| move |cause| AdminFault::Io { what, path: path.to_owned(), cause };
    let name = abstract_name(path).map_err(fault("make it a name"))?;
    let listener = UnixListener::bind_addr(&name).map_err(|cause| match cause.kind() {
        ErrorKind::AddrInUse => AdminFault::InUse(path.to_owned()),
        _ => fault("bind the socket")(cause),
    })?;
    Ok(AdminSocket { listener, file: None })
}

/// Whether others are kept out of the directory of a socket: whoever can write there can put another one in its place.
///
/// # Errors
/// What to do about it.
pub fn check_socket_directory(socket: &Path) -> Result<(), String> {
    let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    let mode = match fs::metadata(directory) {
        // It is made with mode 0700.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", directory.display())),
        Ok(found) => found.mode() & 0o777,
    };
    if mode & 0o077 != 0 {
        return Err(format!(
            "{}: the directory of the socket has mode {mode:04o} and is open to others; run chmod 700 on it, or choose a directory of \
             its own with --sock",
            directory.display()
        ));
    }
    Ok(())
}

/// Removes a socket that a crashed server left behind: one that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), AdminFault> {
    if is_stale(path)? {
        let cause = |cause| AdminFault::Io { what: "remove the stale socket", path: path.to_owned(), cause };
        fs::remove_file(path).map_err(cause)?;
    }
    Ok(())
}

/// Whether a socket stands there that nobody listens on; false if nothing does.
fn is_stale(path: &Path) -> Result<bool, AdminFault> {
    let fault = |what| move |cause| AdminFault::Io { what, path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(fault("look at it")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(AdminFault::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(fault("tell whether somebody listens on it")(error)),
        Ok(_) => Err(AdminFault::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_can_open_it_and_it_goes_away_with_its_server() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/run/admin.sock");
        let socket = bind_admin(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_is_left_alone_and_a_stale_one_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("admin.sock");
        let _first = bind_admin(&path).unwrap();
        assert!(matches!(bind_admin(&path), Err(AdminFault::InUse(_))));
        assert!(UnixStream::connect(&path).is_ok());
        // A crash leaves the file behind without a listener, as closing does.
        let stale = place.path().join("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        let second = bind_admin(&stale).unwrap();
        assert!(UnixStream::connect(&stale).is_ok());
        drop(second);
    }

    #[test]
    fn one_without_a_file_is_found_by_its_path_and_by_one_server_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("admin.sock");
        let socket = bind_admin_without_file(&path).unwrap();
        assert!(matches!(bind_admin_without_file(&path), Err(AdminFault::InUse(_))));
        let client = UnixStream::connect_addr(&abstract_name(&path).unwrap()).unwrap();
        assert_eq!(Peer::of(&socket.accept().unwrap()).unwrap(), Peer::of(&client).unwrap());
        assert!(!path.exists());
        drop(socket);
        drop(bind_admin_without_file(&path).unwrap());
        assert!(bind_admin_without_file(&place.path().join("x".repeat(120))).is_err());
    }

    #[test]
    fn the_socket_of_a_successor_is_not_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("admin.sock");
        let first = bind_admin(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind_admin(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }

    #[test]
    fn other_files_and_impossible_paths_are_refused_with_the_path() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("precious");
        fs::write(&path, "data").unwrap();
        let fault = bind_admin(&path).unwrap_err();
        assert!(matches!(fault, AdminFault::NotASocket(_)) && fault.to_string().contains("precious"), "{fault}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
        let long = place.path().join("x".repeat(120));
        assert!(matches!(bind_admin(&long), Err(AdminFault::PathTooLong(_))));
        assert!(matches!(bind_admin(&path.join("admin.sock")), Err(AdminFault::Io { .. })));
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("run");
        assert_eq!(check_socket_directory(&directory.join("l.sock")), Ok(()));
        fs::create_dir(&directory).unwrap();
        for (mode, good) in [(0o700, true), (0o500, true), (0o710, false), (0o755, false), (0o702, false)] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            let told = check_socket_directory(&directory.join("l.sock"));
            assert_eq!(told.is_ok(), good, "{mode:o}");
            assert!(good || told.unwrap_err().contains("chmod 700"));
        }
    }
}
