//! The flush: from the durable ledger to one more line, and how far that is behind.
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::line::{write_line, DAEMON_DELTAS_MAX, DELTAS_MAX};
use super::sink::{Forgetful, Sink, SinkFault, Stretch};
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

impl Bounds {
    /// For lines that a daemon takes, which bounds them.
    pub fn for_daemon() -> Self {
        Self { deltas_max: DAEMON_DELTAS_MAX, ..Self::default() }
    }
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

/// Why a flush, or the start, failed. Nothing is lost: the ledger has it.
#[derive(Debug)]
pub enum CountersFault {
    /// Lines cannot be kept.
    Sink(SinkFault),
    /// The counters hold entries that the ledger does not have: it was restored from an older copy.
    AheadOfLedger {
        /// The last entry that is counted.
        through: Seq,
        /// The newest entry of the ledger.
        head: Seq,
    },
    /// Not everything can be counted anew: the beginning of the ledger is in an archive.
    Archived {
        /// The first entry that is there.
        first: Seq,
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
            CountersFault::Sink(cause) => write!(f, "counters: {cause}"),
            CountersFault::AheadOfLedger { through, head } => write!(
                f,
                "counters: they hold entries up to {}, but the ledger ends at {}; after a restore move their directory aside",
                through.0, head.0
            ),
            CountersFault::Archived { first } => write!(
                f,
                "counters: everything can be counted anew only with the whole ledger, and it begins with entry {}; move the archived segments \
                 back first",
                first.0
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
    sink: Box<dyn Sink>,
    bounds: Bounds,
    /// Entries up to here are not counted: they are in an archive of the ledger.
    begin_behind: Seq,
    through: Seq,
    /// Everything is being counted anew: as long as that goes on, what is not counted yet is no lag.
    anew: bool,
    /// Whether the sink may have more than is known here, or less: it has to be asked.
    unsure: bool,
    caught_up_at: UnixMs,
    lag: FlushLag,
    sums: Sums,
    line: String,
}

impl Counters {
    /// Goes on where the sink ends, as soon as that can be told, and not before the entry behind `begin_behind`.
    ///
    /// # Panics
    /// If `bounds` allow nothing, or more deltas than a line can have: the caller's mistake.
    pub fn new(sink: Box<dyn Sink>, log: LogId, bounds: Bounds, begin_behind: Seq, now: UnixMs) -> Self {
        assert!(bounds.entries_max > 0 && (2..=DELTAS_MAX).contains(&bounds.deltas_max), "the bounds allow no work");
        let lag = FlushLag { behind_since_ms: Arc::new(AtomicU64::new(0)) };
        let (through, sums, line) = (begin_behind, Sums::default(), String::new());
        Self { log, sink, bounds, begin_behind, through, anew: false, unsure: true, caught_up_at: now, lag, sums, line }
    }

    /// Counters that leave nothing on disk.
    ///
    /// # Panics
    /// As [`Counters::new`].
    pub fn in_memory(log: LogId, bounds: Bounds, begin_behind: Seq, now: UnixMs) -> Self {
        Self::new(Box::<Forgetful>::default(), log, bounds, begin_behind, now)
    }

    /// Asks the sink how far it is. What it says is what is counted.
    ///
    /// # Errors
    /// If it is not there, or holds the counters of another ledger.
    pub fn look(&mut self) -> Result<Seq, CountersFault> {
        let told = self.sink.through(self.log);
        self.unsure = told.is_err();
        self.through = match told.map_err(CountersFault::Sink)? {
            Seq(0) => self.begin_behind,
            through => through,
        };
        Ok(self.through)
    }

    /// Moves what is counted aside, so that everything is counted anew by the flushes that follow.
    ///
    /// # Errors
    /// If the sink cannot move it.
    pub fn recount(&mut self) -> Result<(), CountersFault> {
        (self.unsure, self.anew, self.begin_behind) = (true, true, Seq(0));
        self.sink.set_aside(self.log).map_err(CountersFault::Sink)
    }

    /// The ledger that is counted.
    pub fn log(&self) -> LogId {
        self.log
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
        if self.unsure {
            self.look()?;
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
        let stretch = Stretch { log: self.log, from: first, through: added.last };
        write_line(&mut self.line, stretch, &self.sums);
        self.unsure = true;
        self.sink.append(stretch, &self.line).map_err(CountersFault::Sink)?;
        (self.through, self.unsure) = (added.last, false);
        let caught_up = added.next_ts.is_none() && self.through >= head;
        if caught_up {
            self.caught_up(now);
        } else {
            let uncounted = added.next_ts.unwrap_or(added.last_ts);
            self.lag.set(Some(if self.anew { now } else { uncounted }));
        }
        Ok(Flushed { entries, through: self.through, caught_up })
    }

    fn caught_up(&mut self, now: UnixMs) {
        (self.caught_up_at, self.anew) = (now, false);
        self.lag.set(None);
    }

    fn add_up(&mut self, tail: &mut dyn Tail, first: Seq) -> Result<Added, CountersFault> {
        self.sums.clear();
        let (sums, bounds, lag, anew) = (&mut self.sums, self.bounds, &self.lag, self.anew);
        let mut added: Option<Added> = None;
        let mut gap = None;
        let scanned = tail.scan(first, &mut |seq, entry| {
            let expected = added.as_ref().map_or(first, |added| Seq(added.last.0 + 1));
            if seq != expected {
                gap = Some(CountersFault::Gap { expected, found: Some(seq) });
                return ControlFlow::Break(());
            }
            match &mut added {
                None if anew => {}
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
