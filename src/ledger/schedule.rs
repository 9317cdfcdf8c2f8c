//! When the auditor takes snapshots, and how long they carry keys on.
use std::time::Duration;

/// When snapshots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Time between two of them.
    pub every: Duration,
    /// Entries after which one is due before that.
    pub entries: u64,
    /// How long the keys of issues are remembered: snapshots carry them on.
    pub keys_ttl: Duration,
    /// Time between two looks for new entries.
    pub look_every: Duration,
}

impl Schedule {
    /// As often as a service needs it.
    pub const LOOK_EVERY: Duration = Duration::from_millis(500);

    /// None but the one at the end.
    #[cfg(test)]
    pub fn no_snapshots() -> Self {
        let day = Duration::from_secs(86_400);
        Self { every: day, entries: u64::MAX, keys_ttl: day, look_every: Duration::from_millis(5) }
    }
}
