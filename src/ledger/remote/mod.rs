//! The wallet's half of the protocol: a ledger behind a socket, with the same handles as one in this process.
//!
//! | file | role |
//! |---|---|
//! | `link` | the writing connection as bytes in and out, over all its lives (pure) |
//! | `writer`, `state` | the thread around it, and what others see of it |
//! | `connect` | how each of its connections is made |
//! | `noted` | what was logged last of the connection |
//! | `reader` | the connection for questions and for reading all entries |
//! | `directory` | where its files are, for commands that read them |
//! | `snapshots` | its snapshots, in pieces |
//! | `auditor` | what the daemon's audit has found, compared with what is served |
mod auditor;
mod connect;
mod directory;
pub(super) mod link;
mod noted;
mod reader;
mod snapshots;
mod state;
mod writer;

pub use auditor::RemoteAuditor;
pub(crate) use connect::connect_to;
pub use directory::{answers, directory_behind};
pub use link::{Heard, Link};
pub use reader::RemoteReader;
pub use snapshots::{RemoteFile, RemoteSnapshots};
pub use state::RemoteWatch;
pub use writer::{Begun, Patience, RemoteWriter};

#[cfg(test)]
mod tests;
