//! The committer: one plain thread that makes durable whatever the lanes have queued, over and over.
//!
//! While it waits for the disk the next commit collects, and after a small one it rests as long as that took. Invariants: a batch is
//! acknowledged only after its sync; after a failed write or sync nothing is acknowledged any more and the process ends. It never
//! looks into an entry.
use super::bell::Bell;
use super::engine::{Engine, Tenure};
use super::merge::GroupCommit;
use super::quiet::Quiet;
use super::spares::RETRY;
use super::writer::{Writer, Written};
use super::LedgerError;
use crate::domain::{Durable, LaneBatch};
use crossbeam_channel::{bounded, Receiver, Sender, TrySendError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
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

/// One lane's way to whoever commits.
#[derive(Clone)]
pub struct LaneSender {
    queue: Sender<LaneBatch>,
    bell: Arc<Bell>,
}

impl LaneSender {
    /// A way to whoever answers this bell, and what arrives there.
    pub(super) fn new(bell: Arc<Bell>) -> (Self, Receiver<LaneBatch>) {
        let (queue, arrivals) = bounded(LANE_QUEUE_BATCHES_MAX);
        (Self { queue, bell }, arrivals)
    }

    /// Queues the batch; gives it back if the queue is full or nobody commits any more. Never blocks.
    pub fn push(&self, batch: LaneBatch) -> Result<(), LaneBatch> {
        self.queue.try_send(batch).map_err(|error| match error {
            TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch,
        })?;
        self.bell.ring();
        Ok(())
    }
}

struct Signals {
    bell: Arc<Bell>,
    closing: AtomicBool,
}

/// The handle of the committer's thread. Dropping it closes the log as [`Committer::close`] does, but tells nobody how that went.
pub struct Committer {
    signals: Arc<Signals>,
    lanes: Vec<LaneSender>,
    thread: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl Committer {
    /// Starts the thread for this many lanes, on an engine that was acquired. `deliver` gets every acknowledgement, on the
    /// committer's thread and in ledger order; it must not block. A fatal fault aborts the process after a line in the log.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn<E: Engine>(
        engine: E,
        tenure: Tenure,
        lanes: u16,
        deliver: Box<dyn Fn(Durable) + Send>,
    ) -> Result<Self, LedgerError> {
        Self::spawn_with(engine, tenure, lanes, deliver, Box::new(|_| std::process::abort()))
    }

    /// As [`Committer::spawn`], with another end than an abort.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn_with<E: Engine>(
        engine: E,
        tenure: Tenure,
        lanes: u16,
        deliver: Box<dyn Fn(Durable) + Send>,
        on_fatal: OnFatal,
    ) -> Result<Self, LedgerError> {
        let bell = Arc::new(Bell::of_thread());
        let signals = Arc::new(Signals { bell: Arc::clone(&bell), closing: AtomicBool::new(false) });
        let (senders, queues): (Vec<_>, Vec<_>) = (0..lanes).map(|_| LaneSender::new(Arc::clone(&bell))).unzip();
        let (place, group) = (engine.place(), GroupCommit::new(lanes, engine.body_bytes_max()));
        let held_back = queues.iter().map(|_| None).collect();
        let writer = Writer::new(engine, tenure);
        let runner = Runner {
            writer,
            group,
            queues,
            held_back,
            first_lane: 0,
            deliver,
            signals: Arc::clone(&signals),
            quiet: Quiet::default(),
        };
        let thread = std::thread::Builder::new()
            .name("ledger-commit".into())
            .spawn(move || {
                prefer_this_thread();
                runner.signals.bell.answer_here();
                runner.run(on_fatal)
            })
            .map_err(LedgerError::io(place, "start the committer's thread"))?;
        Ok(Self { signals, lanes: senders, thread: Some(thread) })
    }

    /// The sender of a lane, to be given to its core.
    pub fn lane(&self, lane: u16) -> LaneSender {
        self.lanes[usize::from(lane)].clone()
    }

    /// Commits everything queued, notes the head, lets go of the log and ends the thread. Nobody may push any more. What cannot be
    /// committed because the disk is full is dropped, unacknowledged.
    ///
    /// # Errors
    /// If something could not be made durable, or the end not be noted.
    pub fn close(mut self) -> Result<(), LedgerError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), LedgerError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.signals.closing.store(true, Ordering::Release);
        self.signals.bell.ring();
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Err(error) = self.stop() {
            tracing::error!(event = "ledger_close_failed", %error, "the ledger was not closed in order");
        }
    }
}

/// Lets the committer go before busy threads when a sync has ended: everybody waits for it, and it needs little. Without the
/// right to do so (CAP_SYS_NICE, RLIMIT_NICE) it goes on as all others.
pub(super) fn prefer_this_thread() {
    if let Err(error) = rustix::process::setpriority_process(None, COMMITTER_NICE) {
        tracing::debug!(%error, "the committer has no priority over other threads");
    }
}

/// How long to rest after a commit, so that the next one is larger: as long as it took if others are on their way, as more than one
/// entry shows. Whoever is alone waits for nobody.
pub(super) fn rest_after(entries: u64, took: Duration) -> Duration {
    let small = (2..WORTHWHILE_ENTRIES).contains(&entries);
    if small {
        took.min(REST_MAX)
    } else {
        Duration::ZERO
    }
}

struct Runner<E> {
    writer: Writer<E>,
    group: GroupCommit,
    queues: Vec<Receiver<LaneBatch>>,
    /// Per lane the batch that did not fit into the last commit.
    held_back: Vec<Option<LaneBatch>>,
    /// The lane that is served first, another one each time, so that none starves.
    first_lane: usize,
    deliver: Box<dyn Fn(Durable) + Send>,
    signals: Arc<Signals>,
    /// When it is to be noted how far the log reaches.
    quiet: Quiet,
}

impl<E: Engine> Runner<E> {
    fn run(mut self, on_fatal: OnFatal) -> Result<(), LedgerError> {
        loop {
            // Before collecting: what was pushed before closing is then collected for sure.
            let closing = self.signals.closing.load(Ordering::Acquire);
            self.collect();
            if self.group.is_empty() {
                if closing {
                    return self.writer.close();
                }
                self.sleep();
                continue;
            }
            match self.commit() {
                Ok(true) => {}
                Ok(false) => return self.writer.close(),
                Err(error) => {
                    tracing::error!(
                        event = "ledger_failed", %error,
                        "FATAL: the ledger cannot make entries durable; nothing more is acknowledged, the process ends"
                    );
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

    /// Sleeps until something is pushed; once it is quiet for a while, how far the log reaches is noted.
    fn sleep(&mut self) {
        self.signals.bell.lie_down();
        match (self.is_quiet(), self.quiet.left(Instant::now())) {
            (false, _) => {}
            (true, None) => std::thread::park(),
            (true, Some(left)) => std::thread::park_timeout(left),
        }
        self.signals.bell.get_up();
        if self.is_quiet() && self.quiet.take_due(Instant::now()) {
            self.writer.note();
        }
    }

    fn is_quiet(&self) -> bool {
        self.queues.iter().all(Receiver::is_empty) && !self.signals.closing.load(Ordering::Acquire)
    }

    /// Makes what was collected durable and acknowledges it. False if it was given up because the disk is full and the log closes.
    fn commit(&mut self) -> Result<bool, LedgerError> {
        let batches = self.group.batches();
        if batches.is_empty() {
            self.group.settle(None, &self.deliver);
            return Ok(true);
        }
        let entries: u64 = batches.iter().map(|batch| u64::from(batch.count)).sum();
        let mut was_full = false;
        let (placed, took) = loop {
            let started = Instant::now();
            match self.writer.append(self.group.batches()) {
                Written::Placed(placed) => break (placed, started.elapsed()),
                Written::Ended(error) => return Err(error),
                Written::NoRoom(error) => {
                    if !was_full {
                        tracing::error!(
                            event = "commits_wait", %error, entries,
                            "no room for the next ledger segment, or no file descriptor, as the error says; commits wait for it"
                        );
                    }
                    was_full = true;
                    if self.signals.closing.load(Ordering::Acquire) {
                        tracing::error!(
                            event = "unacknowledged",
                            entries,
                            "the ledger closes without room for these entries; they were not acknowledged"
                        );
                        return Ok(false);
                    }
                    std::thread::park_timeout(RETRY);
                }
            }
        };
        if was_full {
            tracing::warn!(event = "commits_go_on", "there is room for the next ledger segment again; commits go on");
        }
        self.group.settle(Some(placed), &self.deliver);
        self.quiet.committed(Instant::now());
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
