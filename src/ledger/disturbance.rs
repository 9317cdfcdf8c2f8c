//! What is done to a ledger on purpose, to see how the service lives with it: it is late, or out of reach.
//!
//! The wrappers stand where the ledger meets the service: [`Disturbed`] at the interface of its engine, [`DisturbedWatch`] where it is
//! watched; the link to a daemon asks its [`Disturbance`] itself. Invariant: nothing is lost, kept back for good or done twice by one. A
//! commit that is late or held has not been handed to the engine yet, so what waits for it is in the same state as behind a slow disk or
//! one without room. Who disturbs, and until when, is not known here.
use super::engine::{Appended, Engine, ReadBatch, Tenure};
use super::handles::WatchLedger;
use super::stats::{CommitStats, UnderWay};
use super::LedgerError;
use crate::domain::{LaneBatch, Root, Seq};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks whether somebody who is made late still is to be.
const LATE_LOOK_EVERY: Duration = Duration::from_millis(10);
/// The state of what is out of reach; any other one is a delay in milliseconds.
const CUT: u64 = u64::MAX;
/// Why something is out of reach.
pub(super) const OUT_OF_REACH: &str = "out of reach because a fault is injected; `ronctl chaos list` shows it";

/// What is done to a dependency now; clones are handles to the same one. At rest it costs one relaxed load.
#[derive(Clone, Debug, Default)]
pub struct Disturbance(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU64,
    failures: AtomicU64,
    /// Whoever is made late now.
    lateness: UnderWay,
}

impl Disturbance {
    /// Makes the dependency so late each time, or puts it out of reach, from now on; neither ends both.
    pub fn set(&self, delay: Duration, cut: bool) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(CUT - 1).min(CUT - 1);
        self.0.state.store(if cut { CUT } else { delay_ms }, Ordering::Relaxed);
    }

    /// Whether it is out of reach.
    pub fn is_cut(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == CUT
    }

    /// How late it is; nothing while it is out of reach.
    pub fn delay(&self) -> Duration {
        match self.0.state.load(Ordering::Relaxed) {
            CUT => Duration::ZERO,
            delay_ms => Duration::from_millis(delay_ms),
        }
    }

    /// Lets whoever turns to the dependency wait as long as it is to be late, and no longer than that lasts.
    ///
    /// # Errors
    /// If it is out of reach, with the reason; that is counted.
    pub fn pass(&self) -> Result<(), String> {
        let mut began = None;
        let passed = loop {
            if self.is_cut() {
                self.note_failure();
                break Err(OUT_OF_REACH.to_owned());
            }
            let delay = self.delay();
            if delay.is_zero() {
                break Ok(());
            }
            let began = *began.get_or_insert_with(Instant::now);
            let left = delay.saturating_sub(began.elapsed());
            if left.is_zero() {
                break Ok(());
            }
            self.0.lateness.begin_at(began);
            std::thread::sleep(left.min(LATE_LOOK_EVERY));
        };
        if began.is_some() {
            self.0.lateness.end();
        }
        passed
    }

    fn note_failure(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }
}

/// An engine whose appends can be made late, or held as if there were no room.
pub struct Disturbed<E> {
    engine: E,
    disturbance: Disturbance,
}

impl<E> Disturbed<E> {
    /// This engine, as far as it is let alone.
    pub fn new(engine: E, disturbance: Disturbance) -> Self {
        Self { engine, disturbance }
    }
}

impl<E: Engine> Engine for Disturbed<E> {
    fn acquire(&mut self, held: Option<u64>) -> Result<Tenure, LedgerError> {
        self.engine.acquire(held)
    }

    fn append(&mut self, epoch: u64, first_seq: Seq, prev: Root, parts: &[LaneBatch]) -> Appended {
        match self.disturbance.pass() {
            Ok(()) => self.engine.append(epoch, first_seq, prev, parts),
            Err(reason) => Appended::NoRoom(io::Error::other(reason)),
        }
    }

    fn note(&mut self) -> Result<(), LedgerError> {
        self.engine.note()
    }

    fn read(&mut self, from: Seq, each: &mut dyn FnMut(ReadBatch<'_>) -> ControlFlow<()>) -> Result<(), LedgerError> {
        self.engine.read(from, each)
    }

    fn truncate_before(&mut self, seq: Seq) -> Result<(), LedgerError> {
        self.engine.truncate_before(seq)
    }

    fn body_bytes_max(&self) -> usize {
        self.engine.body_bytes_max()
    }

    fn place(&self) -> String {
        self.engine.place()
    }

    fn close(self) -> Result<(), LedgerError> {
        self.engine.close()
    }
}

/// What is seen of such a ledger: that it is out of reach counts as a failed attempt to reach it at every look.
pub struct DisturbedWatch<W> {
    watch: W,
    disturbance: Disturbance,
}

impl<W> DisturbedWatch<W> {
    /// The watch of the engine that is disturbed in this way.
    pub fn new(watch: W, disturbance: Disturbance) -> Self {
        Self { watch, disturbance }
    }
}

impl<W: WatchLedger> WatchLedger for DisturbedWatch<W> {
    fn head(&self) -> Seq {
        self.watch.head()
    }

    fn trouble(&self) -> Option<String> {
        if self.disturbance.is_cut() {
            self.disturbance.note_failure();
            return Some(format!("the ledger is {OUT_OF_REACH}"));
        }
        self.watch.trouble()
    }

    fn connect_errors(&self) -> u64 {
        self.watch.connect_errors() + self.disturbance.failures()
    }

    fn take_stats(&self) -> CommitStats {
        self.watch.take_stats()
    }

    fn commit_age(&self) -> Duration {
        self.watch.commit_age().max(self.disturbance.0.lateness.time())
    }

    fn is_scarce(&self) -> bool {
        self.watch.is_scarce()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::MemoryStorage;
    use crate::ledger::sample::{lane_batch, open};

    #[test]
    fn what_is_held_is_not_in_the_log_and_is_taken_once_when_it_is_let_go() {
        let (log, ..) = open(&MemoryStorage::new(), 8 << 20).unwrap();
        let (tenure, watch, disturbance) = (log.tenure(), log.watch(), Disturbance::default());
        let mut engine = Disturbed::new(log, disturbance.clone());
        let watch = DisturbedWatch::new(watch, disturbance.clone());
        assert_eq!((watch.trouble(), watch.connect_errors()), (None, 0));
        disturbance.set(Duration::from_secs(3_600), true);
        let parts = [lane_batch(0, 1, 3)];
        for attempt in 1..4 {
            let held = engine.append(tenure.epoch, Seq(1), tenure.root, &parts);
            assert!(matches!(&held, Appended::NoRoom(error) if error.to_string().contains("chaos list")), "{held:?}");
            assert!(watch.trouble().is_some_and(|trouble| trouble.starts_with("the ledger is out of reach")));
            assert_eq!((watch.head(), watch.connect_errors()), (Seq(0), 2 * attempt));
        }
        disturbance.set(Duration::ZERO, false);
        assert!(watch.trouble().is_none());
        assert!(matches!(engine.append(tenure.epoch, Seq(1), tenure.root, &parts), Appended::Acked(_)));
        assert_eq!((watch.head(), watch.connect_errors()), (Seq(3), 6));
    }

    #[test]
    fn whoever_is_late_waits_that_long_and_no_longer_than_the_fault_lasts() {
        let disturbance = Disturbance::default();
        let delay = Duration::from_millis(30);
        disturbance.set(delay, false);
        let began = Instant::now();
        assert_eq!(disturbance.pass(), Ok(()));
        assert!(began.elapsed() >= delay);
        disturbance.set(Duration::from_secs(3_600), false);
        let waiting = std::thread::spawn({
            let disturbance = disturbance.clone();
            move || disturbance.pass()
        });
        disturbance.set(Duration::ZERO, false);
        assert_eq!(waiting.join().unwrap(), Ok(()));
        // A dependency that goes out of reach meanwhile is that.
        disturbance.set(Duration::MAX, true);
        assert!(disturbance.is_cut() && disturbance.delay().is_zero() && disturbance.pass().is_err());
    }
}
