//! Why there is no policy.
use std::path::PathBuf;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFlaw {
    /// Where it is, such as `quotas.account.rate`, or `frozen, a b` for a text of a list; empty if that is nowhere in particular.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The line, counted from 1.
    pub line: usize,
    /// How many bytes of the line lead up to the end of what is named in `path`.
    pub column: usize,
}

impl std::fmt::Display for PolicyFlaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, message, line, column } = self;
        let colon = if path.is_empty() { "" } else { ": " };
        write!(f, "{path}{colon}{message} at line {line} column {column}")
    }
}

/// Everything that is wrong with a policy, in the order of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFlaws {
    /// The first ones: at least one, and no more than people read at once.
    pub told: Vec<PolicyFlaw>,
    /// How many there are besides.
    pub more: usize,
    /// The form that the file says it has, if this program reads another one.
    pub other_form: Option<u64>,
}

impl std::fmt::Display for PolicyFlaws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, flaw) in self.told.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{flaw}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for PolicyFlaws {}

/// What is wrong with the file of a policy.
#[derive(Debug)]
pub enum PolicyFault {
    /// The system does not let it be read, or it is too long to be one.
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
        flaws: PolicyFlaws,
    },
}

impl std::fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "policy {}: cannot be read: {source}; check security.policy_file", path.display())
            }
            Self::Malformed { path, flaws } => write!(f, "policy {}: {flaws}", path.display()),
        }
    }
}

impl std::error::Error for PolicyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Malformed { flaws, .. } => Some(flaws),
        }
    }
}
