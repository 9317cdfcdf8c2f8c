//! The committer: one plain thread that makes durable whatever the lanes have queued, over and over.
//!
//! While it waits for the disk the next commit collects, and after a small one it rests as long as that took. Invariants: a batch is
//! acknowledged only after its sync; after a failed write or sync nothing is acknowledged any more and the process ends. It never
//! looks into an entry.
use super::log::{AppendError, Log, Shared};
use super::merge::GroupCommit;
use super::reader::Reader;
use super::spares::RETRY;
use super::stats::{CommitStats, StatsCell};
use super::storage::Storage;
use super::LedgerError;
use crate::domain::{Durable, LaneBatch, LogId, Seq};
use crossbeam_channel::{bounded, Receiver, Sender, TrySendError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Batches that may wait in one lane's queue.
pub const LANE_QUEUE_BATCHES_MAX: usize = 64;

/// Entries from which on a commit is worth its price to the processor, which hardly depends on how many there are.
const WORTHWHILE_ENTRIES: u64 = 32;
/// Longest rest after a small commit.
const REST_MAX: Duration = Duration::from_micros(250);

/// Priority of the committer's thread: -20 goes first, 0 is everybody's.
const COMMITTER_NICE: i32 = -15;

/// What is called, on the committer's thread, when the ledger can not go on. The process must end; the default aborts it.
pub type OnFatal = Box<dyn FnOnce(&LedgerError) + Send>;

struct Signals {
    /// The committer sleeps or is about to. Swapped on both sides, so that a push either is seen or wakes.
    idle: AtomicBool,
    closing: AtomicBool,
    stats: StatsCell,
}

impl Signals {
    fn wake(&self, committer: &Thread) {
        if self.idle.swap(false, Ordering::AcqRel) {
            committer.unpark();
        }
    }
}

/// One lane's way to the committer.
#[derive(Clone)]
pub struct LaneSender {
    queue: Sender<LaneBatch>,
    signals: Arc<Signals>,
    committer: Thread,
}

impl LaneSender {
    /// Queues the batch; gives it back if the queue is full or the committer has ended. Never blocks.
    pub fn push(&self, batch: LaneBatch) -> Result<(), LaneBatch> {
        self.queue.try_send(batch).map_err(|error| match error {
            TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch,
        })?;
        self.signals.wake(&self.committer);
        Ok(())
    }
}

/// The handle of the committer's thread. Dropping it closes the log as [`Committer::close`] does, but tells nobody how that went.
pub struct Committer<S: Storage> {
    shared: Arc<Shared<S>>,
    reader: Reader<S>,
    signals: Arc<Signals>,
    lanes: Vec<LaneSender>,
    thread: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl<S: Storage> Committer<S> {
    /// Starts the thread for this many lanes. `deliver` gets every acknowledgement, on the committer's thread and in ledger order;
    /// it must not block. A fatal fault aborts the process after a line in the log.
    pub fn spawn(log: Log<S>, lanes: u16, deliver: Box<dyn Fn(Durable) + Send>) -> Result<Self, LedgerError> {
        Self::spawn_with(log, lanes, deliver, Box::new(|_| std::process::abort()))
    }

    /// As [`Committer::spawn`], with another end than an abort.
    pub fn spawn_with(
        mut log: Log<S>,
        lanes: u16,
        deliver: Box<dyn Fn(Durable) + Send>,
        on_fatal: OnFatal,
    ) -> Result<Self, LedgerError> {
        log.allocate_ahead()?;
        let (shared, reader) = (Arc::clone(&log.shared), log.reader());
        let signals =
            Arc::new(Signals { idle: AtomicBool::new(false), closing: AtomicBool::new(false), stats: StatsCell::default() });
        let (senders, queues): (Vec<_>, Vec<_>) = (0..lanes).map(|_| bounded(LANE_QUEUE_BATCHES_MAX)).unzip();
        let group = GroupCommit::new(lanes, log.body_bytes_max());
        let held_back = queues.iter().map(|_| None).collect();
        let runner = Runner { log, group, queues, held_back, first_lane: 0, deliver, signals: Arc::clone(&signals) };
        let thread = std::thread::Builder::new()
            .name("ledger-commit".into())
            .spawn(move || {
                prefer_this_thread();
                runner.run(on_fatal)
            })
            .map_err(LedgerError::io(shared.storage.place(""), "start the committer's thread"))?;
        let committer = thread.thread().clone();
        let lane = |queue| LaneSender { queue, signals: Arc::clone(&signals), committer: committer.clone() };
        let lanes = senders.into_iter().map(lane).collect();
        Ok(Self { shared, reader, signals, lanes, thread: Some(thread) })
    }

    /// The sender of a lane, to be given to its core.
    pub fn lane(&self, lane: u16) -> LaneSender {
        self.lanes[usize::from(lane)].clone()
    }

    /// A handle for reading what is durable.
    pub fn reader(&self) -> Reader<S> {
        self.reader.clone()
    }

    /// A handle for watching the committer from the control thread.
    pub fn watch(&self) -> Watch<S> {
        Watch { shared: Arc::clone(&self.shared), signals: Arc::clone(&self.signals) }
    }

    /// Commits everything queued, notes the head, lets go of the log and ends the thread. Nobody may push any more. What cannot be
    /// committed because the disk is full is dropped, unacknowledged.
    pub fn close(mut self) -> Result<(), LedgerError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), LedgerError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.signals.closing.store(true, Ordering::Release);
        self.signals.wake(thread.thread());
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl<S: Storage> Drop for Committer<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the ledger was not closed in order");
        }
    }
}

/// What the control thread sees of the committer.
pub struct Watch<S: Storage> {
    shared: Arc<Shared<S>>,
    signals: Arc<Signals>,
}

impl<S: Storage> Clone for Watch<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), signals: Arc::clone(&self.signals) }
    }
}

impl<S: Storage> Watch<S> {
    /// The last durable entry.
    pub fn head(&self) -> Seq {
        self.shared.head()
    }

    /// The identity of the log.
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    /// False while the segment being written is nearly full and there is no room on the disk for the next one. What is queued then
    /// waits and is committed as soon as there is room again.
    pub fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }

    /// Attempts to allocate the next segment that have failed since the log was opened.
    pub fn failed_allocations(&self) -> u64 {
        self.shared.attempts.failed()
    }

    /// The figures since the last call.
    pub fn take_stats(&self) -> CommitStats {
        self.signals.stats.take()
    }
}

/// Lets the committer go before busy threads when a sync has ended: everybody waits for it, and it needs little. Without the
/// right to do so (CAP_SYS_NICE, RLIMIT_NICE) it goes on as all others.
fn prefer_this_thread() {
    if let Err(error) = rustix::process::setpriority_process(None, COMMITTER_NICE) {
        tracing::debug!(%error, "the committer has no priority over other threads");
    }
}

/// How long to rest after a commit, so that the next one is larger: as long as it took if others are on their way, as more than one
/// entry shows. Whoever is alone waits for nobody.
fn rest_after(entries: u64, took: Duration) -> Duration {
    let small = (2..WORTHWHILE_ENTRIES).contains(&entries);
    if small {
        took.min(REST_MAX)
    } else {
        Duration::ZERO
    }
}

struct Runner<S: Storage> {
    log: Log<S>,
    group: GroupCommit,
    queues: Vec<Receiver<LaneBatch>>,
    /// Per lane the batch that did not fit into the last commit.
    held_back: Vec<Option<LaneBatch>>,
    /// The lane that is served first, another one each time, so that none starves.
    first_lane: usize,
    deliver: Box<dyn Fn(Durable) + Send>,
    signals: Arc<Signals>,
}

impl<S: Storage> Runner<S> {
    fn run(mut self, on_fatal: OnFatal) -> Result<(), LedgerError> {
        loop {
            // Before collecting: what was pushed before closing is then collected for sure.
            let closing = self.signals.closing.load(Ordering::Acquire);
            self.collect();
            if self.group.is_empty() {
                if closing {
                    return self.log.close();
                }
                self.sleep();
                continue;
            }
            match self.commit() {
                Ok(true) => {}
                Ok(false) => return self.log.close(),
                Err(error) => {
                    tracing::error!(%error, "FATAL: the ledger cannot make entries durable; nothing more is acknowledged, the process ends");
                    on_fatal(&error);
                    return Err(error);
                }
            }
        }
    }

    fn collect(&mut self) {
        let lanes = self.queues.len();
        for lane in (0..lanes).map(|step| (self.first_lane + step) % lanes) {
            while let Some(batch) = self.held_back[lane].take().or_else(|| self.queues[lane].try_recv().ok()) {
                if let Err(batch) = self.group.admit(batch) {
                    self.held_back[lane] = Some(batch);
                    break;
                }
            }
        }
        self.first_lane = (self.first_lane + 1) % lanes.max(1);
    }

    fn sleep(&self) {
        self.signals.idle.swap(true, Ordering::AcqRel);
        let quiet = self.queues.iter().all(Receiver::is_empty) && !self.signals.closing.load(Ordering::Acquire);
        if quiet {
            std::thread::park();
        }
        self.signals.idle.swap(false, Ordering::AcqRel);
    }

    /// Makes what was collected durable and acknowledges it. False if it was given up because the disk is full and the log closes.
    fn commit(&mut self) -> Result<bool, LedgerError> {
        let batches = self.group.batches();
        if batches.is_empty() {
            self.group.settle(None, &self.deliver);
            return Ok(true);
        }
        let entries: u64 = batches.iter().map(|batch| u64::from(batch.count)).sum();
        let bytes: u64 = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        let mut was_full = false;
        let (placed, took) = loop {
            let started = Instant::now();
            match self.log.append(self.group.batches()) {
                Ok(placed) => {
                    let took = started.elapsed();
                    self.signals.stats.record(took, entries, bytes);
                    break (placed, took);
                }
                Err(AppendError::Failed(error)) => return Err(error),
                Err(AppendError::NoRoom(error)) => {
                    if !was_full {
                        tracing::error!(%error, entries, "no room for the next ledger segment; free some space, commits wait for it");
                    }
                    was_full = true;
                    if self.signals.closing.load(Ordering::Acquire) {
                        tracing::error!(entries, "the ledger closes without room for these entries; they were not acknowledged");
                        return Ok(false);
                    }
                    self.log.note_full();
                    std::thread::park_timeout(RETRY);
                }
            }
        };
        if was_full {
            tracing::warn!("there is room for the next ledger segment again; commits go on");
        }
        self.group.settle(Some(placed), &self.deliver);
        let rest = rest_after(entries, took);
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_commits_that_are_not_alone_are_followed_by_a_rest() {
        let (short, long) = (Duration::from_micros(80), Duration::from_millis(9));
        let rests =
            [(1, short), (2, short), (31, short), (31, long), (32, short), (500, long)].map(|(n, took)| rest_after(n, took));
        assert_eq!(rests, [Duration::ZERO, short, short, REST_MAX, Duration::ZERO, Duration::ZERO]);
    }
}
