//! Verification: everything that is in a ledger's directory is held against every promise, without changing a byte.
//!
//! | file | role |
//! |---|---|
//! | `replay` | the reading of all batches: chain, numbers, books; and the verdict |
//! | `base` | the books with which the reading begins, where the first segments are not here |
//! | `repeats` | idempotency keys that are used twice (pure) |
//! | `keys` | as many passes over keys as memory needs |
//! | `snapshots` | what snapshots say, against the books and the history |
//! | `start` | what a start of the server would do |
//! | `rest` | what else is wrong behind the fault that ended a verification |
//! | `remarks` | what is not as it should be and harms no entry |
mod base;
mod keys;
mod remarks;
mod repeats;
mod replay;
mod rest;
mod snapshots;
mod start;

#[cfg(test)]
mod budgets_tests;
#[cfg(test)]
mod entries_tests;
#[cfg(test)]
mod remedies_tests;
#[cfg(test)]
mod tests;

pub use remarks::Remark;
pub use replay::{verify, verify_directory, Extent, Progress, Refuted, Report, Suspect, Verification, KEYS_TTL};
pub use rest::{Elsewhere, Rest};
pub use start::Start;
