//! Where the lines of the counters go, and how each is counted exactly once whatever fails on either side.
//!
//! A line says which entries of which ledger it counts, and a sink takes it only right behind what it has. So the number of the last entry
//! that is counted is the number of the flush: who does not know whether a line arrived asks for it, and goes on from there.
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::line::LineFault;
use crate::domain::{LogId, Seq};

/// Which entries a line counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The ledger.
    pub log: LogId,
    /// The first entry.
    pub from: Seq,
    /// The last one.
    pub through: Seq,
}

/// Takes lines and keeps them.
pub trait Sink: Send + fmt::Debug {
    /// The last entry of this ledger that is counted there; 0 if none is. Asked also to see whether it is there at all.
    ///
    /// # Errors
    /// If it cannot be told, or what is kept there is of another ledger.
    fn through(&mut self, log: LogId) -> Result<Seq, SinkFault>;

    /// Takes a whole line and keeps it for good. After an error nobody knows whether it did: [`Sink::through`] does.
    ///
    /// # Errors
    /// If it was not taken, or no answer came.
    fn append(&mut self, stretch: Stretch, line: &str) -> Result<(), SinkFault>;

    /// Moves everything about this ledger aside, where nobody counts it any more: the next line counts from the beginning.
    ///
    /// # Errors
    /// If it cannot be moved.
    fn set_aside(&mut self, log: LogId) -> Result<(), SinkFault>;
}

/// Why a sink cannot be used.
#[derive(Debug)]
pub enum SinkFault {
    /// Another process writes there.
    InUse(PathBuf),
    /// A line that is not the last one is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the line begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        cause: LineFault,
    },
    /// The counters belong to another ledger.
    OtherLedger {
        /// The identity of the ledger that is served.
        expected: LogId,
        /// The identity of the ledger that was counted.
        found: LogId,
    },
    /// A line does not begin right behind what is counted.
    OutOfPlace {
        /// The entry that comes next.
        expected: Seq,
        /// The first one of the line.
        found: Seq,
    },
    /// The operating system refused.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The daemon is not there, or does not answer.
    Absent {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        what: String,
    },
    /// The daemon says no.
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        what: String,
    },
}

impl fmt::Display for SinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkFault::InUse(path) => {
                write!(f, "{}: another process writes counters here; give each server its own directory", path.display())
            }
            SinkFault::Damaged { path, offset, cause } => write!(
                f,
                "{}: line at byte {offset}: {cause}; move the whole directory aside and the counters are derived anew from the ledger",
                path.display()
            ),
            SinkFault::OtherLedger { expected, found } => write!(
                f,
                "the directory belongs to ledger {:032x}, not to {:032x}; give each ledger its own directory",
                u128::from_be_bytes(found.0),
                u128::from_be_bytes(expected.0)
            ),
            SinkFault::OutOfPlace { expected, found } => {
                write!(f, "a line that begins with entry {} does not fit: entry {} comes next", found.0, expected.0)
            }
            SinkFault::Io { what, path, cause } => write!(f, "{}: cannot {what}: {cause}", path.display()),
            SinkFault::Absent { socket, what } | SinkFault::Refused { socket, what } => {
                write!(f, "ron-accounting behind unix://{}: {what}", socket.display())
            }
        }
    }
}

impl std::error::Error for SinkFault {}

/// Keeps nothing but the number, for a server that leaves nothing on disk: entries are read and let go, so that the lag means the same
/// as ever.
#[derive(Debug, Default)]
pub(super) struct Forgetful {
    through: Seq,
}

impl Sink for Forgetful {
    fn through(&mut self, _log: LogId) -> Result<Seq, SinkFault> {
        Ok(self.through)
    }

    fn append(&mut self, stretch: Stretch, _line: &str) -> Result<(), SinkFault> {
        self.through = stretch.through;
        Ok(())
    }

    fn set_aside(&mut self, _log: LogId) -> Result<(), SinkFault> {
        self.through = Seq(0);
        Ok(())
    }
}
