//! The thread that writes to a ledger behind a socket: it moves bytes between the link and the socket, batches from the lanes to the
//! link, and acknowledgements to the cores; and it connects again and again while there is no connection.
//!
//! Invariants: it never waits for the socket alone, so lanes are emptied and acknowledgements delivered whatever the daemon does;
//! what is not acknowledged stays in the link, or in the lane's queue when the link has enough.
use super::connect::connect_to;
use super::link::{Heard, Link};
use super::noted::Noted;
use super::reader::{not_reached, RemoteReader};
use super::snapshots::RemoteSnapshots;
use super::state::{RemoteWatch, State};
use crate::domain::{Durable, LaneBatch, LogId};
use crate::ledger::bell::Bell;
use crate::ledger::committer::{prefer_this_thread, LaneSender, OnFatal};
use crate::ledger::disturbance::Disturbance;
use crate::ledger::engine::Tenure;
use crate::ledger::protocol::{Fault, Refused};
use crate::ledger::LedgerError;
use crossbeam_channel::Receiver;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{recv, send, RecvFlags, SendFlags};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two signs of life to the daemon, which replaces a wallet that gives none for two seconds.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// How long the daemon may say nothing before the ledger counts as out of reach.
const QUIET_MAX: Duration = Duration::from_millis(1_500);
/// First and longest pause between two attempts to connect; each is shortened at random by up to a half.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
const CONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long the last acknowledgements may take at the end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at what is still missing then.
const CLOSE_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a wallet that waits leaves a daemon that has come back to the one that had its ledger.
const YIELD: Duration = Duration::from_secs(2);
/// What is read of the socket at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes that wait for the socket before no more batches are taken from the lanes.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// Batches that are kept back at once while the ledger is late on purpose; more wait in the lanes.
const LATE_BATCHES_MAX: usize = 256;

/// What a start has come to.
#[derive(Debug)]
pub enum Begun {
    /// Not yet, for this reason; and whether another wallet has the ledger.
    Waiting(String, bool),
    /// The ledger can be written.
    Granted {
        /// The identity of the log.
        log_id: LogId,
        /// The tenure of this process.
        tenure: Tenure,
    },
}

/// How long what is kept and waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long the daemon keeps keys of issues.
    pub keys_ttl: Duration,
    /// How long a start waits for a ledger that another wallet has.
    pub in_use: Duration,
}

/// The handle of the thread.
pub struct RemoteWriter {
    state: Arc<State>,
    bell: Arc<Bell>,
    closing: Arc<AtomicBool>,
    lanes: Vec<LaneSender>,
    thread: Option<JoinHandle<usize>>,
}

impl RemoteWriter {
    /// Starts the thread, which connects to this socket until it has the ledger. `deliver` gets every acknowledgement, on that thread;
    /// it must not block. What is done to the ledger on purpose is done by `disturbance`. `on_fatal` is called when this process can never write
    /// again; it must end then.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn(
        socket: &Path,
        lanes: u16,
        patience: Patience,
        disturbance: Disturbance,
        deliver: Box<dyn Fn(Durable) + Send>,
        on_fatal: OnFatal,
    ) -> Result<Self, LedgerError> {
        let state = Arc::new(State::new(socket.to_owned(), disturbance));
        let bell = Arc::new(Bell::of_files().map_err(LedgerError::io(state.place(), "make an eventfd"))?);
        let closing = Arc::new(AtomicBool::new(false));
        let (senders, queues): (Vec<_>, Vec<_>) = (0..lanes).map(|_| LaneSender::new(Arc::clone(&bell))).unzip();
        let runner = Runner {
            link: Link::new(lanes, patience.keys_ttl.as_millis() as u64),
            queues,
            late: VecDeque::new(),
            deliver,
            on_fatal: Some(on_fatal),
            state: Arc::clone(&state),
            bell: Arc::clone(&bell),
            closing: Arc::clone(&closing),
            socket: None,
            unanswered: None,
            quiet: false,
            beaten: Instant::now(),
            pause: CONNECT_PAUSE,
            next_attempt: Instant::now(),
            noted: Noted::default(),
            started: Instant::now(),
            in_use: patience.in_use,
            waiting: Waiting::default(),
        };
        let run = move || {
            prefer_this_thread();
            runner.run()
        };
        let thread = std::thread::Builder::new().name("ledger-link".into()).spawn(run);
        let thread = thread.map_err(LedgerError::io(state.place(), "start the thread of the link"))?;
        Ok(Self { state, bell, closing, lanes: senders, thread: Some(thread) })
    }

    /// How the start goes. Once the ledger was granted, this is not to be called any more.
    ///
    /// # Errors
    /// If this process cannot have the ledger.
    pub fn begun(&self) -> Result<Begun, LedgerError> {
        match self.state.take_begun() {
            Some(Ok((log_id, tenure))) => Ok(Begun::Granted { log_id, tenure }),
            Some(Err(error)) => Err(error),
            None => Ok(Begun::Waiting(self.state.waits_for(), self.state.is_in_use())),
        }
    }

    /// The sender of a lane, to be given to its core.
    pub fn lane(&self, lane: u16) -> LaneSender {
        self.lanes[usize::from(lane)].clone()
    }

    /// A handle for watching the ledger.
    pub fn watch(&self) -> RemoteWatch {
        RemoteWatch(Arc::clone(&self.state))
    }

    /// A handle for reading what is durable in this log.
    pub fn reader(&self, log_id: LogId) -> RemoteReader {
        RemoteReader::new(Arc::clone(&self.state), log_id)
    }

    /// The snapshots of this ledger.
    pub fn snapshots(&self, log_id: LogId) -> RemoteSnapshots {
        RemoteSnapshots::new(self.state.place(), self.reader(log_id))
    }

    /// Waits for the last acknowledgements, for a bounded time, and lets go of the ledger. Nobody may push any more. What is not
    /// acknowledged by then may be durable or not.
    pub fn close(mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.closing.store(true, Ordering::Release);
        self.bell.ring();
        match thread.join() {
            Ok(0) => {}
            Ok(batches) => tracing::error!(
                event = "unacknowledged",
                batches,
                "the ledger did not acknowledge these in time; clients repeat what they have no receipt for"
            ),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct Runner {
    link: Link,
    queues: Vec<Receiver<LaneBatch>>,
    /// Batches that are kept back because the ledger is to be late, with the time since when, the oldest first.
    late: VecDeque<(Instant, LaneBatch)>,
    deliver: Box<dyn Fn(Durable) + Send>,
    on_fatal: Option<OnFatal>,
    state: Arc<State>,
    bell: Arc<Bell>,
    closing: Arc<AtomicBool>,
    socket: Option<UnixStream>,
    /// When something was asked for the first time that was not answered yet.
    unanswered: Option<Instant>,
    /// It was not heard for too long, though it is connected.
    quiet: bool,
    /// When it was sent a sign of life.
    beaten: Instant,
    pause: Duration,
    next_attempt: Instant,
    noted: Noted,
    started: Instant,
    /// How long a ledger is waited for that another wallet has.
    in_use: Duration,
    waiting: Waiting,
}

/// What a wallet knows that waits for a ledger.
#[derive(Default)]
struct Waiting {
    /// The last connection ended because another wallet has it.
    refused: bool,
    /// Its daemon was gone meanwhile: once it is back, the other wallet goes first.
    yields: bool,
}

/// Why a connection is given up.
enum Loss {
    /// The other end is gone, or was not understood, for this reason.
    Broken(String),
    /// This process can never write again.
    Final(LedgerError),
}

impl Runner {
    /// Returns how many batches were not acknowledged.
    fn run(mut self) -> usize {
        let mut until = None;
        loop {
            if self.closing.load(Ordering::Acquire) {
                let until = *until.get_or_insert_with(|| Instant::now() + CLOSE_PATIENCE);
                let waiting = self.late.len() + self.queues.iter().map(Receiver::len).sum::<usize>();
                if self.link.in_doubt() + waiting == 0 || Instant::now() >= until {
                    return self.link.in_doubt() + waiting;
                }
            }
            let turned = self.turn();
            match turned {
                Ok(()) => {}
                Err(Loss::Broken(reason)) => self.lose(&reason),
                Err(Loss::Final(error)) => {
                    self.lose(&error.to_string());
                    if self.link.epoch().is_none() {
                        self.state.begin(Err(error));
                        return 0;
                    }
                    tracing::error!(
                        event = "writing_ended", %error,
                        "FATAL: this server can never write to its ledger again; the process ends"
                    );
                    if let Some(on_fatal) = self.on_fatal.take() {
                        on_fatal(&error);
                    }
                    return self.link.in_doubt();
                }
            }
        }
    }

    fn turn(&mut self) -> Result<(), Loss> {
        let connects = self.socket.is_none() && Instant::now() >= self.next_attempt;
        if let Some(reason) = self.state.disturbed().filter(|_| connects || self.socket.is_some()) {
            return Err(Loss::Broken(reason));
        }
        if connects {
            self.connect()?;
        }
        self.take_batches();
        if self.beaten.elapsed() >= HEARTBEAT_EVERY {
            self.link.beat();
            self.beaten = Instant::now();
            self.unanswered.get_or_insert(self.beaten);
        }
        self.send()?;
        self.sleep();
        self.receive()?;
        // From the first heartbeat that was not answered on: a wallet that did not run itself has not asked.
        let silent = self.unanswered.map_or(Duration::ZERO, |since| since.elapsed());
        if self.socket.is_some() && silent > QUIET_MAX {
            let quiet = format!("the ledger daemon has not answered for {} ms", silent.as_millis());
            if !self.quiet {
                self.quiet = true;
                self.state.errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    event = "ledger_silent", reason = %quiet, in_doubt = self.link.in_doubt(),
                    "the ledger daemon is connected and silent; writes are refused"
                );
            }
            self.state.set_trouble(Some(quiet));
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), Loss> {
        let socket = connect_to(&self.state.socket)
            .map_err(|error| Loss::Broken(format!("{}: {}", self.state.place(), not_reached(&error))))?;
        if std::mem::take(&mut self.waiting.yields) {
            self.next_attempt = Instant::now() + YIELD;
            return Ok(());
        }
        self.socket = Some(socket);
        (self.unanswered, self.quiet) = (Some(Instant::now()), false);
        self.link.connected();
        Ok(())
    }

    fn lose(&mut self, reason: &str) {
        self.state.errors.fetch_add(1, Ordering::Relaxed);
        let is_new = self.socket.take().is_some() || self.pause == CONNECT_PAUSE;
        if is_new && self.noted.is_due(reason, Instant::now()) {
            tracing::warn!(
                event = "ledger_disconnected", %reason, in_doubt = self.link.in_doubt(),
                "no connection to the ledger; trying again and again"
            );
        }
        if self.link.is_up() {
            self.pause = CONNECT_PAUSE;
        }
        let refused = std::mem::take(&mut self.waiting.refused);
        self.waiting.yields = self.state.is_in_use() && !refused && self.link.epoch().is_none();
        self.state.set_trouble(Some(reason.to_owned()));
        self.link.disconnected();
        let shorter = getrandom::u32().map_or(0, |random| random % 1024);
        self.next_attempt = Instant::now() + self.pause - self.pause / 2 * shorter / 1024;
        self.pause = (self.pause * 2).min(CONNECT_PAUSE_MAX);
    }

    fn take_batches(&mut self) {
        let delay = self.state.disturbance.delay();
        if !delay.is_zero() || !self.late.is_empty() {
            return self.take_late_batches(delay);
        }
        for (number, queue) in self.queues.iter().enumerate() {
            while self.link.has_room(number as u16) && self.link.output().len() < OUTPUT_BYTES_MAX {
                let Ok(batch) = queue.try_recv() else { break };
                if self.link.in_doubt() == 0 {
                    self.state.stats.commit.begin();
                }
                self.link.push(batch);
            }
        }
    }

    /// As [`Runner::take_batches`], but what is taken is handed on only after this time.
    fn take_late_batches(&mut self, delay: Duration) {
        let now = Instant::now();
        for queue in &self.queues {
            let room = LATE_BATCHES_MAX.saturating_sub(self.late.len());
            self.late.extend(queue.try_iter().take(room).map(|batch| (now, batch)));
        }
        while self.next_late(delay).is_some_and(|left| left.is_zero()) {
            let (_, batch) = self.late.pop_front().expect("it was just looked at");
            self.link.push(batch);
        }
        self.late.front().into_iter().for_each(|(since, _)| self.state.stats.commit.begin_at(*since));
    }

    /// Something is durable: the next commit is under way, if anything waits for one.
    fn note_progress(&self) {
        match (self.link.in_doubt(), self.late.front()) {
            (0, None) => self.state.stats.commit.end(),
            (_, None) => self.state.stats.commit.begin(),
            (_, Some((since, _))) => self.state.stats.commit.begin_at(*since),
        }
    }

    /// In what time the first of the batches that are kept back is to be handed on, if the link has room for it.
    fn next_late(&mut self, delay: Duration) -> Option<Duration> {
        let (since, lane) = self.late.front().map(|(since, batch)| (*since, batch.lane))?;
        let room = self.link.has_room(lane) && self.link.output().len() < OUTPUT_BYTES_MAX;
        room.then(|| delay.saturating_sub(since.elapsed()))
    }

    /// Whether a lane has something that would be taken now.
    fn batches_wait(&mut self) -> bool {
        if !self.late.is_empty() {
            return self.late.len() < LATE_BATCHES_MAX && self.queues.iter().any(|queue| !queue.is_empty());
        }
        let room = self.link.output().len() < OUTPUT_BYTES_MAX;
        room && self.queues.iter().enumerate().any(|(number, queue)| !queue.is_empty() && self.link.has_room(number as u16))
    }

    fn send(&mut self) -> Result<(), Loss> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let output = self.link.output();
        let mut sent = 0;
        while sent < output.len() {
            match send(socket, &output[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => break,
                // What the daemon said last, and why it went, is still to be read; the end shows there.
                Err(_) => sent = output.len(),
            }
        }
        output.drain(..sent);
        Ok(())
    }

    fn sleep(&mut self) {
        self.bell.lie_down();
        let quiet = !self.batches_wait() && !self.closing.load(Ordering::Acquire);
        let pause = match (quiet, &self.socket) {
            (false, _) => Duration::ZERO,
            (true, Some(_)) => HEARTBEAT_EVERY.saturating_sub(self.beaten.elapsed()),
            (true, None) => self.next_attempt.saturating_duration_since(Instant::now()),
        };
        let pause = self.next_late(self.state.disturbance.delay()).map_or(pause, |left| pause.min(left));
        // While closing, what is missing is an answer or a connection.
        let closing = self.closing.load(Ordering::Acquire);
        let pause = if closing { pause.min(CLOSE_LOOK_EVERY) } else { pause };
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        let wants = if self.link.output().is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let bell = PollFd::new(&*self.bell, PollFlags::IN);
        // A signal may end the wait early; then there is nothing to do.
        let _ = match &self.socket {
            Some(socket) => poll(&mut [bell, PollFd::new(socket, wants)], Some(&timeout)),
            None => poll(&mut [bell], Some(&timeout)),
        };
        self.bell.get_up();
    }

    fn receive(&mut self) -> Result<(), Loss> {
        let mut ended = None;
        while let Some(socket) = &self.socket {
            let read = |buffer: &mut [u8]| recv(socket, buffer, RecvFlags::DONTWAIT).map(|(_, count)| count);
            match self.link.input().fill(READ_BYTES, read) {
                Ok(0) => ended = Some("the ledger daemon has closed the connection".to_owned()),
                Ok(READ_BYTES) => continue,
                Ok(_) | Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => ended = Some(format!("the connection to the ledger daemon broke: {error}")),
            }
            break;
        }
        self.hear()?;
        ended.map_or(Ok(()), |reason| Err(Loss::Broken(reason)))
    }

    fn hear(&mut self) -> Result<(), Loss> {
        while let Some(heard) = self.link.next().map_err(|malformed| Loss::Broken(malformed.0))? {
            self.unanswered = None;
            if std::mem::take(&mut self.quiet) {
                self.state.set_trouble(None);
                tracing::info!(event = "ledger_answers", "the ledger daemon answers again");
            }
            match heard {
                Heard::Granted(tenure) => self.granted(tenure),
                Heard::Durable(durable) => {
                    self.state.reached(crate::domain::Seq(durable.first_seq.0 + u64::from(durable.batch.count) - 1));
                    (self.deliver)(durable);
                    self.note_progress();
                }
                Heard::Commit { commit_us, entries, bytes } => {
                    self.state.stats.record(Duration::from_micros(u64::from(commit_us)), entries, bytes);
                }
                Heard::State { head, writable, scarce, failed_allocations } => {
                    self.state.reached(head);
                    self.state.failed_allocations.store(failed_allocations, Ordering::Relaxed);
                    self.state.scarce.store(scarce, Ordering::Relaxed);
                    self.state.set_full(!writable);
                }
                Heard::Fault(fault) => return Err(self.fault(fault)),
            }
        }
        Ok(())
    }

    fn granted(&mut self, tenure: Tenure) {
        self.pause = CONNECT_PAUSE;
        self.state.reached(tenure.head);
        self.state.first.store(self.link.first().0, Ordering::Release);
        self.state.set_trouble(None);
        let log_id = self.link.log_id().expect("told before anything is granted");
        let in_doubt = self.link.in_doubt();
        let Tenure { epoch, head, .. } = tenure;
        tracing::info!(event = "ledger_connected", epoch, head = head.0, in_doubt, "connected to the ledger");
        self.state.begin(Ok((log_id, tenure)));
    }

    fn fault(&mut self, fault: Fault) -> Loss {
        let place = self.state.place();
        if self.link.is_replaced(&fault) {
            return Loss::Final(LedgerError::Fenced { place, own: self.link.epoch().unwrap_or(0), newer: fault.epoch });
        }
        let Fault { refused, text, .. } = fault;
        if matches!(refused, Refused::InUse) {
            self.waiting.refused = true;
            self.state.in_use.store(true, Ordering::Relaxed);
        }
        match (refused, self.link.epoch()) {
            (Refused::Foreign, _) => Loss::Final(LedgerError::Declined { place, what: text }),
            (Refused::InUse, None) if self.started.elapsed() > self.in_use => {
                let waited = self.in_use.as_secs_f64();
                let what = format!("it is in use, and was for {waited} s (ledger.wait_in_use): {text}");
                Loss::Final(LedgerError::Declined { place, what })
            }
            (Refused::Fenced | Refused::InUse | Refused::Malformed | Refused::Unavailable | Refused::Stranger, _) => {
                Loss::Broken(text)
            }
        }
    }
}
