//! The audit stream: every economic operation, accepted or refused, and every control event, as lines that are chained by hashes.
//!
//! It stands apart from the log and the metrics, and no spend waits for it. `docs/OBSERVABILITY.md` describes the format.
//!
//! | file | role |
//! |---|---|
//! | `line` | one line as bytes: its members, its hash, how it is read back |
//! | `chain`, `write` | the rules by which lines follow each other, and how each kind is written |
//! | `store`, `lines` | the files: recovery, appending, rotation; reading them as lines |
//! | `stream` | the writer: out of the ledger, the cores' queues and the control events |
//! | `holders`, `event`, `figures`, `fault` | whose tokens are; control events; what is told about the stream; what can be in its way |
//! | `signer` | who signs checkpoints, and whether the last one was signed so |
//! | `peer` | sends the lines on over a unix socket |
//! | `verify` | checks a whole stream, and compares it with the ledger |
//!
//! Deliberately not known here: HTTP, capabilities, keys and how they sign, what a core decides, and threads: `control` runs it.
mod chain;
mod event;
mod fault;
mod figures;
mod holders;
mod line;
mod lines;
mod peer;
mod signer;
mod store;
mod stream;
mod verify;
mod write;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod sample;

pub use chain::{Chain, Fault, Totals};
pub use event::{Event, EventKind};
pub use fault::AuditFault;
pub use figures::AuditFigures;
pub use line::{Hash, Line, Text, LINE_BYTES_MAX, VERSION};
pub use lines::{file_name, files, Follower, Lines, Next};
pub use peer::deliver;
pub use signer::Signer;
pub use stream::{Bounds, Recovered, Stream, EVENTS_MAX};
pub use verify::{verify, Anchored, CheckSignature, Compared, Comparison, Damage, Expected, Progress, Report, Signatures};
