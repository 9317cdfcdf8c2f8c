//! The flush: from the durable ledger to one more line, and how far that is behind.
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::line::{write_line, DELTAS_MAX};
use super::store::{Store, StoreFault};
use super::sums::Sums;
use super::{Tail, TailFault};
use crate::domain::{LogId, Seq, UnixMs};

const MILLIS_PER_SECOND: f64 = 1e3;

/// How much is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most entries of one flush.
    pub entries_max: u64,
    /// Most deltas of one flush, up to 250,000; an entry has two at most.
    pub deltas_max: usize,
    /// Size at which a file is full, in bytes. A single line may be longer.
    pub file_bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries_max: 1_000_000, deltas_max: DELTAS_MAX, file_bytes_max: 64 << 20 }
    }
}

/// What one flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// How many entries it counted.
    pub entries: u64,
    /// The last entry that is counted now.
    pub through: Seq,
    /// Whether that was the newest one; if not, flush again at once.
    pub caught_up: bool,
}

/// Why a flush, or the start, failed. Nothing was counted then, and nothing is lost: the ledger has it.
#[derive(Debug)]
pub enum CountersFault {
    /// The files cannot be used.
    Store(StoreFault),
    /// The counters belong to another ledger.
    OtherLedger {
        /// The identity of the ledger that is served.
        expected: LogId,
        /// The identity of the ledger that was counted.
        found: LogId,
    },
    /// The counters hold entries that the ledger does not have: it was restored from an older copy.
    AheadOfLedger {
        /// The last entry that is counted.
        through: Seq,
        /// The newest entry of the ledger.
        head: Seq,
    },
    /// The ledger's reader left entries out.
    Gap {
        /// The entry that should have come.
        expected: Seq,
        /// What came instead; `None` if nothing came.
        found: Option<Seq>,
    },
    /// The ledger cannot be read.
    Tail(TailFault),
}

impl std::fmt::Display for CountersFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CountersFault::Store(cause) => write!(f, "counters: {cause}"),
            CountersFault::OtherLedger { expected, found } => write!(
                f,
                "counters: the directory belongs to ledger {:032x}, not to {:032x}; give each ledger its own directory",
                u128::from_be_bytes(found.0),
                u128::from_be_bytes(expected.0)
            ),
            CountersFault::AheadOfLedger { through, head } => write!(
                f,
                "counters: they hold entries up to {}, but the ledger ends at {}; after a restore move their directory aside",
                through.0, head.0
            ),
            CountersFault::Gap { expected, found } => {
                write!(f, "counters: entry {} of the ledger was expected, but the reader gave ", expected.0)?;
                match found {
                    Some(found) => write!(f, "{}", found.0),
                    None => f.write_str("nothing"),
                }
            }
            CountersFault::Tail(cause) => write!(f, "counters: the ledger cannot be read: {cause}"),
        }
    }
}

impl std::error::Error for CountersFault {}

/// How far the counters are behind; clones are handles to the same figure, so that it grows even while a flush is stuck.
#[derive(Clone, Debug)]
pub struct FlushLag {
    /// When the oldest entry that is not counted was made, or the moment before it; 0 if there is none.
    behind_since_ms: Arc<AtomicU64>,
}

impl FlushLag {
    /// Age of the oldest durable entry that is not counted, in seconds; 0 if there was none at the last flush.
    pub fn seconds(&self, now: UnixMs) -> f64 {
        match self.behind_since_ms.load(Ordering::Relaxed) {
            0 => 0.0,
            since => now.0.saturating_sub(since) as f64 / MILLIS_PER_SECOND,
        }
    }

    fn set(&self, since: Option<UnixMs>) {
        self.behind_since_ms.store(since.map_or(0, |since| since.0.max(1)), Ordering::Relaxed);
    }
}

/// The counters of one ledger.
#[derive(Debug)]
pub struct Counters {
    log: LogId,
    /// `None` if nothing may be left on disk.
    store: Option<Store>,
    bounds: Bounds,
    through: Seq,
    caught_up_at: UnixMs,
    lag: FlushLag,
    sums: Sums,
    line: String,
}

impl Counters {
    /// Opens the counters in a directory, made if there is none, and goes on where they end.
    ///
    /// # Panics
    /// If `bounds` allow nothing, or more deltas than a line can have: the caller's mistake.
    pub fn open(directory: &Path, log: LogId, bounds: Bounds, now: UnixMs) -> Result<Self, CountersFault> {
        let (store, last) = Store::open(directory, bounds.file_bytes_max).map_err(CountersFault::Store)?;
        let mut counters = Self::in_memory(log, bounds, now);
        counters.store = Some(store);
        if let Some(last) = last {
            if last.log != log {
                return Err(CountersFault::OtherLedger { expected: log, found: last.log });
            }
            counters.through = last.through;
        }
        Ok(counters)
    }

    /// Counters that leave nothing on disk: entries are read and let go, so that the lag means the same as ever.
    ///
    /// # Panics
    /// As [`Counters::open`].
    pub fn in_memory(log: LogId, bounds: Bounds, now: UnixMs) -> Self {
        assert!(bounds.entries_max > 0 && (2..=DELTAS_MAX).contains(&bounds.deltas_max), "the bounds allow no work");
        let lag = FlushLag { behind_since_ms: Arc::new(AtomicU64::new(0)) };
        Self { log, store: None, bounds, through: Seq(0), caught_up_at: now, lag, sums: Sums::default(), line: String::new() }
    }

    /// Begins behind this entry if nothing has been counted yet: what came before it is in an archive of the ledger.
    pub fn begin_behind(&mut self, seq: Seq) {
        if self.through == Seq(0) {
            self.through = seq;
        }
    }

    /// The last entry that is counted.
    pub fn through(&self) -> Seq {
        self.through
    }

    /// A handle to the lag, for the metrics and for readiness.
    pub fn lag(&self) -> FlushLag {
        self.lag.clone()
    }

    /// Age of the oldest durable entry that is not counted, in seconds.
    pub fn flush_lag_seconds(&self, now: UnixMs) -> f64 {
        self.lag.seconds(now)
    }

    /// Counts what became durable since the last flush, as far as the bounds allow. Reads the ledger and syncs a file: not for
    /// a core. After an error wait a while before the next call: it begins anew.
    pub fn flush(&mut self, tail: &mut dyn Tail, now: UnixMs) -> Result<Flushed, CountersFault> {
        // Until more is known, anything since the last time that nothing was left may be uncounted.
        if self.lag.behind_since_ms.load(Ordering::Relaxed) == 0 {
            self.lag.set(Some(self.caught_up_at));
        }
        let head = tail.head().map_err(CountersFault::Tail)?;
        if head < self.through {
            return Err(CountersFault::AheadOfLedger { through: self.through, head });
        }
        if head == self.through {
            self.caught_up(now);
            return Ok(Flushed { entries: 0, through: self.through, caught_up: true });
        }
        let first = Seq(self.through.0 + 1);
        let added = self.add_up(tail, first)?;
        let entries = added.last.0 - self.through.0;
        if let Some(store) = &mut self.store {
            write_line(&mut self.line, self.log, first, added.last, &self.sums);
            store.append(self.line.as_bytes()).map_err(CountersFault::Store)?;
        }
        self.through = added.last;
        let caught_up = added.next_ts.is_none() && self.through >= head;
        if caught_up {
            self.caught_up(now);
        } else {
            self.lag.set(Some(added.next_ts.unwrap_or(added.last_ts)));
        }
        Ok(Flushed { entries, through: self.through, caught_up })
    }

    fn caught_up(&mut self, now: UnixMs) {
        self.caught_up_at = now;
        self.lag.set(None);
    }

    fn add_up(&mut self, tail: &mut dyn Tail, first: Seq) -> Result<Added, CountersFault> {
        self.sums.clear();
        let (sums, bounds, lag) = (&mut self.sums, self.bounds, &self.lag);
        let mut added: Option<Added> = None;
        let mut gap = None;
        let scanned = tail.scan(first, &mut |seq, entry| {
            let expected = added.as_ref().map_or(first, |added| Seq(added.last.0 + 1));
            if seq != expected {
                gap = Some(CountersFault::Gap { expected, found: Some(seq) });
                return ControlFlow::Break(());
            }
            match &mut added {
                None => lag.set(Some(entry.ts())),
                Some(added) => {
                    let full = seq.0 - first.0 >= bounds.entries_max || sums.len() + 2 > bounds.deltas_max;
                    if full {
                        added.next_ts = Some(entry.ts());
                        return ControlFlow::Break(());
                    }
                }
            }
            sums.add(&entry);
            added = Some(Added { last: seq, last_ts: entry.ts(), next_ts: None });
            ControlFlow::Continue(())
        });
        scanned.map_err(CountersFault::Tail)?;
        match gap {
            Some(gap) => Err(gap),
            None => added.ok_or(CountersFault::Gap { expected: first, found: None }),
        }
    }
}

/// A stretch of entries that was added up.
struct Added {
    last: Seq,
    last_ts: UnixMs,
    /// When the first entry was made that did not fit; `None` if all did.
    next_ts: Option<UnixMs>,
}

#[cfg(test)]
#[path = "counters_tests.rs"]
pub(super) mod tests;
