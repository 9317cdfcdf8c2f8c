//! What can stop a test from being carried out, as against a test that was carried out and found something.
//!
//! A finding is data of a report and ends with exit code 1; a fault means that nothing was proven, and has its own code.

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

/// Why a test could not be carried out.
#[derive(Debug)]
pub enum Fault {
    /// Somebody pressed Ctrl-C, or sent SIGTERM.
    Interrupted,
    /// The arguments contradict each other or this machine.
    Usage(String),
    /// A program that is needed is not there.
    MissingProgram {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program that was started did not do what it is for.
    Program {
        /// Which program, and what it was to do.
        what: String,
        /// What it said, or how it ended.
        cause: String,
    },
    /// The operating system refused something.
    Io {
        /// What was attempted.
        what: String,
        /// The reason that the system gave.
        cause: io::Error,
    },
    /// No reply came for longer than the patience of the run.
    Stalled {
        /// Requests that were waiting for a reply.
        waiting: u64,
        /// How long nothing was heard.
        patience: Duration,
    },
    /// A connection could not be opened.
    Connect {
        /// The server's address.
        address: SocketAddr,
        /// How many were open already.
        open: usize,
        /// The reason that the system gave.
        cause: io::Error,
    },
    /// A request of the preparation was refused, so the test itself never began.
    Preparation(String),
}

impl Fault {
    /// For `map_err` on an operation of the system.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Fault {
        let what = what.into();
        move |cause| Fault::Io { what, cause }
    }

    /// The process's exit code: 2 for usage, 130 for an interruption, 3 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Fault::Interrupted => 130,
            Fault::Usage(_) => 2,
            Fault::MissingProgram { .. }
            | Fault::Program { .. }
            | Fault::Io { .. }
            | Fault::Stalled { .. }
            | Fault::Connect { .. }
            | Fault::Preparation(_) => 3,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Interrupted => write!(out, "interrupted; what was started has been stopped"),
            Fault::Usage(what) => write!(out, "{what}"),
            Fault::MissingProgram { path } => write!(
                out,
                "{} is not there; build it with `cargo build --release --workspace`, or name it with --server",
                path.display()
            ),
            Fault::Program { what, cause } => write!(out, "{what}: {cause}"),
            Fault::Io { what, cause } => write!(out, "{what}: {cause}"),
            Fault::Stalled { waiting, patience } => write!(
                out,
                "no reply for {:.1} s while {waiting} requests were waiting; see the server's log, or raise --patience",
                patience.as_secs_f64()
            ),
            Fault::Connect { address, open, cause } => {
                write!(out, "connection {} to {address} could not be opened: {cause}", open + 1)
            }
            Fault::Preparation(what) => write!(out, "the preparation failed: {what}"),
        }
    }
}

impl std::error::Error for Fault {}
