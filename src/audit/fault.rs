//! Why the stream does not come on, in sentences that say where and what to do.
use crate::domain::{LogId, Seq};
use crate::ledger::LedgerError;
use std::io;

/// What is in the way of the stream. None of it stops a spend.
#[derive(Debug)]
pub enum AuditFault {
    /// Another process writes there.
    InUse {
        /// The directory.
        place: String,
    },
    /// The operating system refused.
    Io {
        /// The file or directory.
        place: String,
        /// What was tried, as "append to the stream".
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The operating system could not say that what was written is on the disk.
    Unsynced {
        /// The file.
        place: String,
        /// Its answer.
        what: String,
    },
    /// The stream is of another ledger.
    OtherLedger {
        /// The directory.
        place: String,
        /// The ledger that is served.
        expected: LogId,
        /// The ledger of the stream.
        found: LogId,
    },
    /// Stream and ledger have gone different ways.
    OtherBranch {
        /// The directory.
        place: String,
        /// The last entry that both should have.
        seq: Seq,
    },
    /// The ledger's reader left entries out.
    Missing {
        /// The entry that should have come.
        expected: Seq,
    },
    /// The ledger cannot be read.
    Ledger(LedgerError),
}

impl AuditFault {
    /// For `map_err`: an error of the operating system with its place and purpose.
    pub(super) fn io(place: impl Into<String>, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let place = place.into();
        move |source| AuditFault::Io { place, doing, source }
    }
}

impl From<LedgerError> for AuditFault {
    fn from(error: LedgerError) -> Self {
        AuditFault::Ledger(error)
    }
}

impl std::fmt::Display for AuditFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AuditFault::InUse { place } => {
                write!(f, "audit: another process writes a stream in {place}; give each server its own directory (audit.path)")
            }
            AuditFault::Io { place, doing, source } => write!(f, "audit: cannot {doing} ({place}): {source}"),
            AuditFault::Unsynced { place, what } => write!(
                f,
                "audit: what was written of the stream is perhaps not on the disk ({place}): {what}; it is written once more, and until that \
                 succeeds nothing is added and nothing signed"
            ),
            AuditFault::OtherLedger { place, expected, found } => write!(
                f,
                "audit: the stream in {place} belongs to ledger {:032x}, not to {:032x}; give each ledger its own directory (audit.path)",
                u128::from_be_bytes(found.0),
                u128::from_be_bytes(expected.0)
            ),
            AuditFault::OtherBranch { place, seq } => write!(
                f,
                "audit: the stream in {place} has another entry {} than the ledger: one of them is a copy that went its own way; keep that \
                 directory as evidence, move it aside and start again, which begins a new stream",
                seq.0
            ),
            AuditFault::Missing { expected } => {
                write!(f, "audit: entry {} of the ledger was expected, but its reader gave another one", expected.0)
            }
            AuditFault::Ledger(error) => write!(f, "audit: the ledger cannot be read: {error}"),
        }
    }
}

impl std::error::Error for AuditFault {}
