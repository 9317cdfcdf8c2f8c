//! Where a ledger behind a socket has its files: for commands on the same machine, which read them by themselves; and whether anybody
//! answers there at all.
use super::connect::connect_to;
use super::reader::{unexpected, Connection, Trouble};
use crate::domain::LogId;
use crate::ledger::protocol::{Inquiry, Reply, Request, Role};
use crate::ledger::LedgerError;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon has to take a greeting, and then to answer it.
const GREETING_PATIENCE: Duration = Duration::from_secs(1);

/// Whether the daemon behind this socket answers a greeting, were it with a refusal.
pub fn answers(socket: &Path) -> bool {
    let greeted = connect_to(socket).and_then(|mut stream| {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(GREETING_PATIENCE))?;
        stream.set_read_timeout(Some(GREETING_PATIENCE))?;
        let mut greeting = Vec::new();
        Request::Hello(Role::Reader).encode(&mut greeting);
        stream.write_all(&greeting)?;
        stream.read_exact(&mut [0])
    });
    greeted.is_ok()
}

/// The absolute path of the directory that the daemon behind this socket keeps its ledger in, as the daemon sees it, and which log that
/// is: whoever looks from elsewhere may find another one under this path, or none.
///
/// # Errors
/// If the daemon cannot be reached, does not admit this user, or keeps its ledger in no directory.
pub fn directory_behind(socket: &Path) -> Result<(PathBuf, LogId), LedgerError> {
    const ID: u64 = 1;
    let place = || format!("unix://{}", socket.display());
    let asked = Connection::open(socket, None).and_then(|mut connection| {
        connection.send(&Request::Ask { id: ID, inquiry: Inquiry::Directory })?;
        let log_id = connection.log_id();
        connection.receive(|reply| match reply {
            Reply::Directory { id: ID, path } => Ok((PathBuf::from(OsStr::from_bytes(path)), log_id)),
            Reply::Nothing { id: ID } => {
                let what = "it keeps its ledger in no directory".to_owned();
                Err(Trouble::Told(LedgerError::Declined { place: place(), what }))
            }
            other => Err(unexpected(&other)),
        })
    });
    asked.map_err(|trouble| match trouble {
        Trouble::Told(error) => error,
        Trouble::Lost(what) => LedgerError::Unreachable { place: place(), what },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_daemon_answers_if_it_says_anything_and_not_if_it_is_silent_or_gone() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("s");
        assert!(!answers(&socket), "nobody is there");
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(!answers(&socket), "it accepts, as far as the system does that for it, and is silent");
        let says = std::thread::spawn(move || {
            // The first one has given up.
            drop(listener.accept());
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"no").unwrap();
        });
        assert!(answers(&socket));
        says.join().unwrap();
    }
}
