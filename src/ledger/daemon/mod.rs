//! The daemon's half of the protocol: a ledger that wallets reach through a socket, one of them writing at a time.
//!
//! | file | role |
//! |---|---|
//! | `session` | one connection as bytes in, requests out, replies as bytes out (pure) |
//! | `chair` | who may write, what is committed for it, what it is told |
//! | `line` | the daemon's end of a connection without I/O: what a wallet that writes wants is done with the chair |
//! | `peer` | the process at the other end |
//! | `idle` | what is done ahead of questions |
//! | `server`, `connection` | the socket and the threads around them |
//! | `answers` | what a connection that reads is told |
//! | `stepped` | the same without threads and sockets, for simulations |
//!
//! Deliberately unknown here: configuration, signals, accounts. An entry is looked at only to see that it is one.
mod answers;
mod chair;
mod connection;
mod idle;
mod line;
mod peer;
pub use peer::Peer;
mod server;
pub(super) mod session;
mod stepped;

#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod majority_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use server::{Admitted, Server};
pub use stepped::{Served, SteppedDaemon, SteppedLine};
