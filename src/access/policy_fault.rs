//! Why there is no policy.
use std::path::PathBuf;

/// What is wrong with the file of a policy.
#[derive(Debug)]
pub enum PolicyFault {
    /// The system does not let it be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was read and is not a policy.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        flaw: String,
    },
}

impl std::fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "policy {}: cannot be read: {source}; check security.policy_file", path.display())
            }
            Self::Malformed { path, flaw } => write!(f, "policy {}: {flaw}", path.display()),
        }
    }
}

impl std::error::Error for PolicyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Malformed { .. } => None,
        }
    }
}
