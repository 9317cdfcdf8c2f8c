//! Scrubbing: everything that is durable is read again, again and again, at a bounded rate, so that what a disk has lost is known while
//! there are still copies of it.
//!
//! | file | role |
//! |---|---|
//! | `plan` | when a pass begins and how long a reading rests (pure) |
//! | `state` | what is kept of the passes, so that a restart goes on where the last process was |
//! | `paced` | a storage that is only read, at a pace |
//! | `check` | whether one file is what was written |
//! | `work` | the passes, file by file |
//! | `scrubber` | the thread around that |
//!
//! It changes nothing but an index that is damaged, which is dropped, and its own file. What it finds is told, never served: every
//! reader checks the same hashes.
mod check;
mod paced;
mod plan;
mod scrubber;
mod state;
mod work;

#[cfg(test)]
mod tests;

pub(super) use check::{index as index_verdict, Verdict};
pub(super) use scrubber::Scrubber;
pub use state::{Kind, ScrubPass, ScrubState, Scrubbed, SCRUB_NAME};
pub use work::{Next, Work};

use std::time::Duration;

/// How often and how fast everything is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrubbing {
    /// Time between the ends of two passes.
    pub every: Duration,
    /// What is read at most, in bytes per second.
    pub bytes_per_second: u64,
}
