//! Why there is no keyring: every way in which reading, making or changing one can fail, with what to do.
//!
//! No message holds anything that was read from a keyring but key ids.
use std::io;
use std::path::PathBuf;

/// Why there is no keyring.
#[derive(Debug)]
pub enum KeyringFault {
    /// No such file.
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A directory, pipe, socket or device.
    NotAFile {
        /// What was opened.
        path: PathBuf,
    },
    /// Group or others have permissions on it.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system does not let it be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let it be made or replaced.
    Uncreatable {
        /// Where it should have been.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was read and is not a keyring, or cannot be opened.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without anything that could be a secret.
        flaw: String,
    },
    /// The key that opens it cannot be had.
    Kms {
        /// Where it was looked for, as `security.kms` says it.
        place: String,
        /// What is wrong, without anything of the key.
        flaw: String,
    },
    /// It is an earlier one than that in force.
    Earlier {
        /// The file.
        path: PathBuf,
        /// The serial number of what is in the file.
        serial: u64,
        /// That of the keyring in force.
        in_force: u64,
    },
    /// It cannot be changed in this way.
    Unchangeable {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        flaw: String,
    },
}

impl std::fmt::Display for KeyringFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { path } => write!(
                f,
                "keyring {}: no such file; the server makes one on its first start, or restore it from a backup",
                path.display()
            ),
            Self::NotAFile { path } => {
                write!(f, "keyring {}: not a regular file; point security.keyring to a file", path.display())
            }
            Self::Exposed { path, mode } => write!(
                f,
                "keyring {}: mode {mode:04o} opens it to others than its owner; run chmod 600 on it, and replace the keys if \
                 others may have read them",
                path.display()
            ),
            Self::Unreadable { path, source } => {
                write!(f, "keyring {}: cannot be read: {source}; check its owner and permissions", path.display())
            }
            Self::Uncreatable { path, source } => {
                write!(f, "keyring {}: cannot be written: {source}; check that its directory can be written", path.display())
            }
            Self::Malformed { path, flaw } => {
                write!(f, "keyring {}: {flaw}; restore it from a backup, or move it away to get a new one", path.display())
            }
            Self::Kms { place, flaw } => write!(f, "security.kms {place}: {flaw}"),
            Self::Earlier { path, serial, in_force } => write!(
                f,
                "keyring {}: its version {serial} is earlier than {in_force}, which is in force, so that a key that was retired could be \
                 valid again; put the newer one back, or start the server anew to go back on purpose",
                path.display()
            ),
            Self::Unchangeable { path, flaw } => write!(f, "keyring {}: {flaw}", path.display()),
        }
    }
}

impl std::error::Error for KeyringFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } | Self::Uncreatable { source, .. } => Some(source),
            Self::Missing { .. } | Self::NotAFile { .. } | Self::Exposed { .. } | Self::Malformed { .. } => None,
            Self::Kms { .. } | Self::Earlier { .. } | Self::Unchangeable { .. } => None,
        }
    }
}
