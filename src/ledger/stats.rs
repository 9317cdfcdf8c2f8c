//! What commits cost, collected by the committer and taken by the control thread about once a second.
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest commit that is told apart from longer ones, in microseconds.
const COMMIT_US_MAX: u64 = 60_000_000;
/// Most entries per batch that are told apart from more.
const ENTRIES_MAX: u64 = 1 << 20;

/// The commits since the last time somebody took the figures.
#[derive(Clone, Debug)]
pub struct CommitStats {
    /// Duration of write and sync per commit, in microseconds.
    pub commit_us: Histogram<u64>,
    /// Entries per commit.
    pub batch_entries: Histogram<u64>,
    /// Entry bytes made durable, without headers and padding.
    pub bytes: u64,
}

impl Default for CommitStats {
    fn default() -> Self {
        let histogram = |most| Histogram::new_with_bounds(1, most, 2).expect("constant bounds in order");
        Self { commit_us: histogram(COMMIT_US_MAX), batch_entries: histogram(ENTRIES_MAX), bytes: 0 }
    }
}

/// How long something that others wait for has been under way, for whoever looks.
#[derive(Debug)]
pub(super) struct UnderWay {
    made: Instant,
    /// When it began, in microseconds since this was made and one more; 0 if nothing is under way.
    begun_us: AtomicU64,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self { made: Instant::now(), begun_us: AtomicU64::new(0) }
    }
}

impl UnderWay {
    /// It begins, or the next part of what was begun before.
    pub(super) fn begin(&self) {
        self.begin_at(Instant::now());
    }

    /// It began then.
    pub(super) fn begin_at(&self, then: Instant) {
        self.begun_us.store(then.duration_since(self.made).as_micros() as u64 + 1, Ordering::Relaxed);
    }

    /// Nothing is under way any more.
    pub(super) fn end(&self) {
        self.begun_us.store(0, Ordering::Relaxed);
    }

    /// How long it has taken so far; nothing if nothing is under way.
    pub(super) fn time(&self) -> Duration {
        match self.begun_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            begun => self.made.elapsed().saturating_sub(Duration::from_micros(begun - 1)),
        }
    }
}

/// The figures between committer and control thread. The lock is held for two increments or one swap.
#[derive(Default)]
pub(super) struct StatsCell {
    stats: Mutex<CommitStats>,
    /// The commit under way.
    pub commit: UnderWay,
}

impl StatsCell {
    pub(super) fn record(&self, took: Duration, entries: u64, bytes: u64) {
        let mut stats = self.stats.lock().expect("no thread panics while it holds the figures");
        stats.commit_us.saturating_record(took.as_micros() as u64);
        stats.batch_entries.saturating_record(entries);
        stats.bytes += bytes;
    }

    pub(super) fn take(&self) -> CommitStats {
        let fresh = CommitStats::default();
        std::mem::replace(&mut *self.stats.lock().expect("no thread panics while it holds the figures"), fresh)
    }
}
