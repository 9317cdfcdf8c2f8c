//! The file of revocations: what `ronctl cap revoke` writes and a server reads, at its start and whenever it has changed.
//!
//! ```json
//! {"version": 1,
//!  "revocations": [{"kind": "token", "name": "<32 hexadecimal digits>", "at": "2026-11-30T07:00:00Z", "reason": "lost"}],
//!  "check": "<BLAKE3 of the list as it stands in compact JSON>"}
//! ```
//!
//! Invariants: it is taken as a whole or refused as a whole, so that damage never takes a revocation back; it is a regular file that
//! neither group nor others can touch; a new one takes the place of the old one complete and synced. Two commands that change it at
//! once wait for each other. A file that was never there revokes nothing; one that has gone is a fault, which an empty file beside it tells.
use super::caveat::{rfc3339, unix_ms};
use super::private_file::{self, chown, directory_of, Guard, ReadFault};
use super::revocations::{Revocation, Revocations, Revoked};
use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most entries of a list.
pub const REVOCATIONS_MAX: usize = 16_384;
/// Longest reason of an entry, in bytes.
pub const REASON_BYTES_MAX: usize = 128;
/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The version of the form of the file.
pub const VERSION: u32 = 1;
/// What the name of the file ends with that says that there has been a list.
const KNOWN: &str = ".known";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    revocations: Vec<WrittenEntry>,
    check: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    kind: String,
    name: String,
    at: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Every entry of the file, in its order; none if there never was one.
pub fn load(path: &Path) -> Result<Vec<Revocation>, RevocationFault> {
    Ok(entries(path)?.unwrap_or_default())
}

/// The list of the file, to be put in force; `None` if there never was one.
pub fn load_list(path: &Path) -> Result<Option<Revocations>, RevocationFault> {
    let entries = entries(path)?;
    Ok(entries.map(|entries| Revocations::of(entries.iter().map(|entry| &entry.what))))
}

fn entries(path: &Path) -> Result<Option<Vec<Revocation>>, RevocationFault> {
    let Some(text) = read(path)? else {
        return if beside(path, KNOWN).exists() { Err(RevocationFault::Gone { path: path.into() }) } else { Ok(None) };
    };
    parse(&text).map(Some).map_err(|flaw| RevocationFault::Malformed { path: path.into(), flaw })
}

/// Changes the file: `change` gets the entries that it has and says whether they are to be written. A missing directory is made with
/// mode 0700. Nobody else changes the file meanwhile. What root makes belongs to whoever has the directory, which is the server's.
pub fn change<T>(path: &Path, change: impl FnOnce(&mut Vec<Revocation>) -> (T, bool)) -> Result<T, RevocationFault> {
    let broken = |source| RevocationFault::Unwritable { path: path.into(), source };
    let directory = directory_of(path);
    private_file::make_directory(directory).map_err(broken)?;
    let held = File::open(directory).map_err(broken)?;
    flock(&held, FlockOperation::LockExclusive).map_err(|error| broken(error.into()))?;
    let mut entries = load(path)?;
    let (told, changed) = change(&mut entries);
    if entries.len() > REVOCATIONS_MAX {
        return Err(RevocationFault::TooMany { path: path.into() });
    }
    if changed {
        let owner = private_file::heir(path).map_err(broken)?;
        let mark = || {
            let marked = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside(path, KNOWN));
            marked.and_then(|file| chown(&file, owner))
        };
        replace(path, &written(&entries), owner).and_then(|()| mark()).and_then(|()| held.sync_all()).map_err(broken)?;
    }
    Ok(told)
}

fn check_of(entries: &[WrittenEntry]) -> String {
    let list = serde_json::to_vec(entries).expect("an entry is made of texts");
    blake3::hash(&list).to_hex().to_string()
}

pub(super) fn written(entries: &[Revocation]) -> Vec<u8> {
    let entry = |entry: &Revocation| WrittenEntry {
        kind: entry.what.kind().to_owned(),
        name: entry.what.name(),
        at: rfc3339(entry.at).expect("the clock shows a year of four digits"),
        reason: entry.reason.clone(),
    };
    let revocations: Vec<WrittenEntry> = entries.iter().map(entry).collect();
    let check = check_of(&revocations);
    let mut text = serde_json::to_vec_pretty(&Written { version: VERSION, revocations, check }).expect("a list is made of texts");
    text.push(b'\n');
    text
}

/// The same text with the check that fits what it says, if it has the form of a list.
#[cfg(any(test, fuzzing))]
pub(super) fn mended(text: &[u8]) -> Option<Vec<u8>> {
    let mut written: Written = serde_json::from_slice(text).ok()?;
    written.check = check_of(&written.revocations);
    serde_json::to_vec(&written).ok()
}

pub(super) fn parse(text: &[u8]) -> Result<Vec<Revocation>, String> {
    let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if written.version != VERSION {
        return Err(format!("version {} is not known; this build reads version {VERSION}", written.version));
    }
    if written.revocations.len() > REVOCATIONS_MAX {
        return Err(format!("it has {} entries; {REVOCATIONS_MAX} are possible", written.revocations.len()));
    }
    if check_of(&written.revocations) != written.check {
        return Err("its check does not fit what it says: it was damaged, or changed by hand".to_owned());
    }
    let mut entries: Vec<Revocation> = Vec::with_capacity(written.revocations.len());
    let mut seen = std::collections::BTreeSet::new();
    for (index, entry) in written.revocations.into_iter().enumerate() {
        let what = Revoked::named(&entry.kind, &entry.name);
        let what = what.ok_or_else(|| format!("revocations[{index}] names no token, subject or key"))?;
        // One that is not written again in four digits of a year is none either.
        let at = unix_ms(&entry.at)
            .filter(|at| rfc3339(*at).is_some())
            .ok_or_else(|| format!("revocations[{index}].at is no RFC 3339 time"))?;
        if !reason_well_formed(&entry.reason) {
            return Err(format!("revocations[{index}].reason is over {REASON_BYTES_MAX} bytes or has control characters"));
        }
        if !seen.insert(what.clone()) {
            return Err(format!("revocations[{index}] is there twice"));
        }
        entries.push(Revocation { what, at, reason: entry.reason });
    }
    Ok(entries)
}

/// Whether a reason can be kept.
pub fn reason_well_formed(text: &str) -> bool {
    text.len() <= REASON_BYTES_MAX && !text.chars().any(char::is_control)
}

/// The text of the file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, RevocationFault> {
    let broken = |source| RevocationFault::Unreadable { path: path.into(), source };
    let malformed = |flaw| RevocationFault::Malformed { path: path.into(), flaw };
    let too_long = || malformed(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    let file = match private_file::open(path, Guard::Mode) {
        Ok((file, _)) => file,
        Err(ReadFault::Missing) => return Ok(None),
        Err(ReadFault::NotAFile) => return Err(malformed("it is no regular file".to_owned())),
        Err(ReadFault::Exposed { mode }) => return Err(RevocationFault::Exposed { path: path.into(), mode }),
        Err(ReadFault::TooLong) => return Err(too_long()),
        Err(ReadFault::Unreadable(source)) => return Err(broken(source)),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(broken)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_long());
    }
    Ok(Some(text))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Puts these bytes in the place of the file: written aside, synced, renamed. Its directory is synced by the caller.
fn replace(path: &Path, text: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    let aside = beside(path, ".partial");
    let write = || -> io::Result<()> {
        // What an interrupted command has left behind may have another mode.
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        chown(&file, owner)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    let done = write();
    if done.is_err() {
        // The message tells what failed; a remainder under this name is replaced by the next attempt.
        let _ = fs::remove_file(&aside);
    }
    done
}

/// Why there is no list of revocations, or why it stays what it was.
#[derive(Debug)]
pub enum RevocationFault {
    /// The system does not let it be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let it be written.
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Group or others have permissions on it.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It was read and is no whole list of revocations.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        flaw: String,
    },
    /// With one more it would have too many entries.
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// It is not there, although there has been one.
    Gone {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for RevocationFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "revocations {}: cannot be read: {source}; check its owner and permissions", path.display())
            }
            Self::Unwritable { path, source } => {
                write!(f, "revocations {}: cannot be written: {source}; check its directory", path.display())
            }
            Self::Exposed { path, mode } => write!(
                f,
                "revocations {}: mode {mode:04o} opens it to others than its owner; look at what it says, then run chmod 600 on it",
                path.display()
            ),
            Self::Malformed { path, flaw } => write!(
                f,
                "revocations {}: {flaw}; restore it from a backup, or move it aside and remove {}, which revokes nothing any more, and \
                 revoke anew with `ronctl cap revoke`",
                path.display(),
                beside(path, KNOWN).display()
            ),
            Self::TooMany { path } => write!(
                f,
                "revocations {}: it has {REVOCATIONS_MAX} entries, which is the most; take back those whose tokens have expired, or \
                 revoke by subject or key",
                path.display()
            ),
            Self::Gone { path } => write!(
                f,
                "revocations {}: it is not there any more; put it back, or remove {}, which revokes nothing any more, and revoke anew \
                 with `ronctl cap revoke`",
                path.display(),
                beside(path, KNOWN).display()
            ),
        }
    }
}

impl std::error::Error for RevocationFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } | Self::Unwritable { source, .. } => Some(source),
            Self::Exposed { .. } | Self::Malformed { .. } | Self::TooMany { .. } | Self::Gone { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
