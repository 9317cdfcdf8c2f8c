//! The thread that keeps the counters up with the ledger, off the cores and off the control thread, and what the operator asks of it.
use super::page::{ActionFault, PageReply};
use super::system::step_back;
use super::Action;
use crate::accounting::{Bounds, Counters, CountersFault, FlushLag, Remote, Sink, SinkFault, Store, Tail, TailFault};
use crate::config::AccountingDep;
use crate::domain::{hex, Code, Entry, LogId, Seq};
use crate::ledger::{Disturbance, ReadLedger};
use crate::telemetry::Publisher;
use crate::worker::unix_now;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two flushes. Counters are transient and may lag; rarer flushes leave the disk to the ledger.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// Time between two looks whether their daemon is there.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a flush goes on before it is looked for orders and for the end.
const SLICE: Duration = Duration::from_millis(500);
/// How long an orderly end waits for what is left to be counted.
const LAST_MAX: Duration = Duration::from_secs(5);
/// How long a flush that the operator has asked for goes on before it is told how far it is.
const ORDER_MAX: Duration = Duration::from_secs(2);
/// How long the operator waits for that: a flush of the thread's own may be under way.
const ORDER_PATIENCE: Duration = Duration::from_secs(4);
/// Orders that may wait.
const ORDERS_MAX: usize = 4;

/// What the operator asks for, and where the answer goes.
struct Order {
    action: Action,
    /// Nobody waits for it any more then.
    until: Instant,
    answer: Sender<Result<PageReply, CountersFault>>,
}

/// Where the operator's orders are given; clones lead to the same thread, once there is one.
#[derive(Clone, Default)]
pub(super) struct CountersDesk(Arc<OnceLock<Sender<Order>>>);

impl CountersDesk {
    /// Has the thread do it, and tells how far the counters are then.
    pub fn act(&self, action: Action) -> Result<PageReply, ActionFault> {
        let later = |message: &str| ActionFault { status: 503, code: Code::RetryLater, message: message.to_owned() };
        let orders = self.0.get().ok_or_else(|| later("the service is starting; try again"))?;
        let (answer, answered) = bounded(1);
        let until = Instant::now() + ORDER_PATIENCE;
        orders
            .try_send(Order { action, until, answer })
            .map_err(|_| later("the counters are busy or at their end; try again"))?;
        match answered.recv_timeout(ORDER_PATIENCE) {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(fault @ CountersFault::Archived { .. })) => {
                Err(ActionFault { status: 422, code: Code::BadRequest, message: fault.to_string() })
            }
            Ok(Err(fault)) => Err(ActionFault { status: 503, code: Code::UpstreamUnavailable, message: fault.to_string() }),
            Err(_) => Err(later("the counters are busy with a flush; try again")),
        }
    }
}

/// The running counters.
pub(super) struct Counting {
    lag: FlushLag,
    trouble: Arc<Mutex<Option<String>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct LedgerTail {
    ledger: Box<dyn ReadLedger>,
    disturbance: Disturbance,
}

impl Tail for LedgerTail {
    fn head(&mut self) -> Result<Seq, TailFault> {
        self.disturbance.pass().map_err(|reason| format!("the counters are {reason}"))?;
        Ok(self.ledger.head())
    }

    fn scan(&mut self, from: Seq, each: &mut dyn FnMut(Seq, Entry<'_>) -> ControlFlow<()>) -> Result<(), TailFault> {
        self.ledger.scan(from, &mut |seq, _, entry| each(seq, entry))?;
        Ok(())
    }
}

/// Where counters go.
pub(super) enum Place<'a> {
    /// Nowhere: they are let go.
    Memory,
    /// To files of this process.
    Directory(&'a Path),
    /// To the daemon behind this socket.
    Daemon(&'a Path),
}

impl<'a> Place<'a> {
    /// What the configuration says, unless nothing may be left on disk.
    pub fn of(dep: &'a AccountingDep, amnesia: bool) -> Self {
        match dep {
            _ if amnesia => Place::Memory,
            AccountingDep::Embedded(directory) => Place::Directory(directory),
            AccountingDep::Unix(socket) => Place::Daemon(socket),
        }
    }

    fn name(&self) -> String {
        match self {
            Place::Memory => "memory".to_owned(),
            Place::Directory(directory) => format!("embedded:{}", directory.display()),
            Place::Daemon(socket) => format!("unix://{}", socket.display()),
        }
    }

    fn counters(&self, log: LogId, begin_behind: Seq) -> Result<Counters, CountersFault> {
        let (bounds, now) = (Bounds::default(), unix_now());
        let sink: Box<dyn Sink> = match self {
            Place::Memory => return Ok(Counters::in_memory(log, bounds, begin_behind, now)),
            Place::Directory(directory) => Box::new(Store::open(directory, bounds.file_bytes_max).map_err(CountersFault::Sink)?),
            Place::Daemon(socket) => Box::new(Remote::new(socket.to_path_buf())),
        };
        let bounds = if matches!(self, Place::Daemon(_)) { Bounds::for_daemon() } else { bounds };
        Ok(Counters::new(sink, log, bounds, begin_behind, now))
    }
}

impl Counting {
    /// Opens the counters of this ledger, and keeps them up with it. Each flush is counted at the publisher; `desk` leads to the thread
    /// from now on, and `disturbance` disturbs it on purpose.
    ///
    /// # Errors
    /// If the directory cannot be used or belongs to another ledger. A daemon that is not there is waited for.
    pub fn start(
        place: &Place<'_>,
        reader: Box<dyn ReadLedger>,
        publisher: Arc<Publisher>,
        disturbance: Disturbance,
        desk: &CountersDesk,
    ) -> Result<Self, CountersFault> {
        let mut counters = place.counters(reader.log_id(), Seq(reader.first().0 - 1))?;
        let trouble = Arc::<Mutex<Option<String>>>::default();
        let lag = counters.lag();
        match counters.look() {
            Ok(through) if through > reader.head() => {
                return Err(CountersFault::AheadOfLedger { through, head: reader.head() });
            }
            Err(CountersFault::Sink(SinkFault::Absent { .. })) | Ok(_) => {}
            Err(fault) => return Err(fault),
        }
        let (give, orders) = bounded(ORDERS_MAX);
        let (stop, stopped) = bounded(0);
        let mut clerk = Clerk {
            name: place.name(),
            counters,
            tail: LedgerTail { ledger: reader, disturbance },
            publisher,
            trouble: trouble.clone(),
        };
        let begin = move || {
            step_back();
            clerk.run(&orders, &stopped);
        };
        let thread = std::thread::Builder::new().name("accounting".into()).spawn(begin);
        let thread = thread.map_err(|error| CountersFault::Tail(error.into()))?;
        let _ = desk.0.set(give);
        Ok(Self { lag, trouble, stop: Some(stop), thread: Some(thread) })
    }

    /// Age of the oldest durable entry that is not counted, in seconds.
    pub fn lag_seconds(&self) -> f64 {
        self.lag.seconds(unix_now())
    }

    /// Why the daemon of the counters is not there; `None` if it is, or there is none.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts what is left and ends the thread.
    pub fn stop(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the counters was reported by their own thread; the ledger has everything.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Clerk {
    /// Where the counters go, for the operator.
    name: String,
    counters: Counters,
    tail: LedgerTail,
    publisher: Arc<Publisher>,
    /// Why their daemon is not there.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Clerk {
    fn run(&mut self, orders: &Receiver<Order>, stopped: &Receiver<()>) {
        let mut flush_at = Instant::now();
        loop {
            if Instant::now() >= flush_at {
                // Between two slices of a long count orders are followed, and the end is.
                let is_left = matches!(self.catch_up(Instant::now() + SLICE), Ok(false));
                flush_at = if is_left { Instant::now() } else { Instant::now() + FLUSH_EVERY };
            }
            match orders.recv_timeout(LOOK_EVERY) {
                Ok(order) if Instant::now() >= order.until => {}
                Ok(order) => {
                    let done = self.follow(order.action);
                    // Whoever asked may have gone.
                    let _ = order.answer.send(done);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The desk lives as long as the service.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
            if stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
                // What is left then is counted after the next start.
                let _ = self.catch_up(Instant::now() + LAST_MAX);
                return;
            }
            let was_lost = self.is_lost();
            let absence = self.look();
            self.note(absence);
            if was_lost && !self.is_lost() {
                flush_at = Instant::now();
            }
        }
    }

    /// Why the sink is not there, if it is not.
    fn look(&mut self) -> Option<String> {
        match self.tail.disturbance.is_cut() {
            true => Some("the counters are out of reach because a fault is injected; `ronctl chaos list` shows it".to_owned()),
            false => absence(&self.counters.look()),
        }
    }

    fn follow(&mut self, action: Action) -> Result<PageReply, CountersFault> {
        if action == Action::Recount {
            let first = self.tail.ledger.first();
            if first > Seq(1) {
                return Err(CountersFault::Archived { first });
            }
            self.counters.recount()?;
            tracing::warn!(event = "accounting_recount", "the counters are set aside, and everything is counted anew");
        }
        let caught_up = self.catch_up(Instant::now() + ORDER_MAX)?;
        let told = serde_json::json!({
            "sink": self.name,
            "log": hex(&self.counters.log().0),
            "through": self.counters.through().0,
            "head": self.tail.ledger.head().0,
            "caught_up": caught_up,
            "lag_seconds": self.counters.flush_lag_seconds(unix_now()),
        });
        Ok(PageReply::json(told.to_string()))
    }

    /// Flushes until nothing is left, something fails, or the time is up; whether nothing is left.
    fn catch_up(&mut self, until: Instant) -> Result<bool, CountersFault> {
        loop {
            let flushed = self.counters.flush(&mut self.tail, unix_now());
            self.publisher.accounting_flush(flushed.is_ok());
            let told = flushed.map(|flushed| flushed.caught_up);
            if !self.tail.disturbance.is_cut() {
                self.note(absence(&told));
            }
            match told {
                Ok(true) => return Ok(true),
                Ok(false) if Instant::now() >= until => return Ok(false),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(event = "accounting_flush_failed", %error, "the counters fall behind; the ledger has everything");
                    return Err(error);
                }
            }
        }
    }

    fn is_lost(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes why the daemon of the counters is not there, or that it is, and tells a change.
    fn note(&self, now: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*trouble, &now) {
            (None, Some(reason)) => tracing::error!(event = "accounting_lost", reason, "the daemon of the counters is not there"),
            (Some(_), None) => tracing::info!(event = "accounting_goes_on", "the daemon of the counters is there"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *trouble = now;
    }
}

/// Why the daemon of the counters was not there, if it was not.
fn absence<T>(told: &Result<T, CountersFault>) -> Option<String> {
    match told {
        Err(CountersFault::Sink(fault @ SinkFault::Absent { .. })) => Some(fault.to_string()),
        Ok(_) | Err(_) => None,
    }
}
