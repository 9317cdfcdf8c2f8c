//! The counters: how often and for how much each account was debited and credited, derived from the durable ledger alone.
//!
//! Nothing on the spend path knows of them. A thread of its own calls [`Counters::flush`] every few seconds; each flush reads
//! what became durable, adds it up per account, asset, operation and side, and appends one line to `counters.jsonl`:
//!
//! ```json
//! {"v":1,"log":"…","from_seq":1,"through_seq":9,"deltas":[["alice","roc","transfer","debit",3,"300"]],"check":"…"}
//! ```
//!
//! The columns of a delta are account, asset, operation, side, how many entries, and their sum in minor units. `log` is the
//! identity of the ledger, `check` the first 16 bytes of the BLAKE3 hash of what stands before it, in hex. Invariants: the
//! lines cover the ledger densely from 1 and each entry exactly once, whatever crashes, because a line and its position are one
//! write and what is torn is cut off; sizes of lines, files and flushes are bounded. A disk that is full makes the lag grow and
//! stops nothing.
//! Lines go to a [`Sink`]: files of this process ([`Store`]), those of `ron-accounting` behind a socket ([`Remote`]), or nowhere. The daemon
//! itself is in `accountingd`.
mod counters;
mod line;
mod position;
pub(crate) mod protocol;
mod read;
mod remote;
mod sink;
mod store;
mod sums;

use std::ops::ControlFlow;

use crate::domain::{Entry, Seq};

pub use counters::{Bounds, Counters, CountersFault, FlushLag, Flushed};
pub use line::{Delta, Line, LineFault, FORMAT};
pub use position::{Difference, Flows, Label, Position};
pub use read::{read_lines, ReadFault};
pub use remote::{files_behind, Remote};
pub use sink::{Sink, SinkFault, Stretch};
pub use store::Store;
pub use sums::Side;

/// Why the ledger could not be read.
pub type TailFault = Box<dyn std::error::Error + Send + Sync>;

/// The durable ledger as the counters see it.
pub trait Tail {
    /// Position of the newest durable entry; 0 if there is none.
    fn head(&mut self) -> Result<Seq, TailFault>;

    /// Gives the durable entries from `from` on, in order and without gaps, to `each`, until it breaks or the head is reached.
    fn scan(&mut self, from: Seq, each: &mut dyn FnMut(Seq, Entry<'_>) -> ControlFlow<()>) -> Result<(), TailFault>;
}
