//! What the stream tells about itself while it runs; clones are handles to the same figures. Nobody waits for anybody here but for a copy.
use crate::domain::{Seq, UnixMs};
use crate::telemetry::feed::{DropCounts, DROP_REASONS};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const MILLIS_PER_SECOND: f64 = 1e3;

/// The figures of one stream.
#[derive(Clone, Debug, Default)]
pub struct AuditFigures(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: AtomicU64,
    through: AtomicU64,
    caught_up_ms: AtomicU64,
    failures: AtomicU64,
    dropped: [AtomicU64; DROP_REASONS.len()],
    /// The last line that the peer was sent; 0 without a peer.
    sent: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl AuditFigures {
    /// The stream is begun, or goes on, at this moment.
    pub fn new(now: UnixMs) -> Self {
        let figures = Self::default();
        figures.caught_up(now);
        figures
    }

    pub(super) fn written(&self, lines: u64, through: Seq) {
        self.0.lines.store(lines, Ordering::Relaxed);
        self.0.through.store(through.0, Ordering::Relaxed);
    }

    pub(super) fn caught_up(&self, now: UnixMs) {
        self.0.caught_up_ms.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn dropped_more(&self, counts: &DropCounts) {
        for (total, count) in self.0.dropped.iter().zip(counts) {
            total.fetch_add(*count, Ordering::Relaxed);
        }
    }

    /// Notes what is in the way, or that nothing is any more.
    pub fn set_trouble(&self, trouble: Option<String>) {
        if trouble.is_some() {
            self.0.failures.fetch_add(1, Ordering::Relaxed);
        }
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn sent(&self, line: u64) {
        self.0.sent.store(line, Ordering::Relaxed);
    }

    /// What is in the way of the stream; `None` while nothing is.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last entry of the ledger that stands in the stream.
    pub fn through(&self) -> Seq {
        Seq(self.0.through.load(Ordering::Relaxed))
    }

    /// The last line that was written.
    pub fn lines(&self) -> u64 {
        self.0.lines.load(Ordering::Relaxed)
    }

    /// The last line that the peer behind a socket was sent.
    pub fn sent_line(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Attempts that failed since the start.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// What was dropped since the start, by reason.
    pub fn dropped(&self) -> DropCounts {
        std::array::from_fn(|place| self.0.dropped[place].load(Ordering::Relaxed))
    }

    /// For how long the stream has been behind a ledger with this head, in seconds; 0 if it is not.
    pub fn lag_seconds(&self, head: Seq, now: UnixMs) -> f64 {
        if self.through() >= head {
            return 0.0;
        }
        now.0.saturating_sub(self.0.caught_up_ms.load(Ordering::Relaxed)) as f64 / MILLIS_PER_SECOND
    }
}
