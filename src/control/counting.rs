//! The thread that keeps the counters up with the ledger, off the cores and off the control thread.
use super::system::step_back;
use crate::accounting::{Bounds, Counters, CountersFault, FlushLag, Tail, TailFault};
use crate::domain::{Entry, Seq};
use crate::ledger::{Disturbance, ReadLedger};
use crate::telemetry::Publisher;
use crate::worker::unix_now;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two flushes. Counters are transient and may lag; rarer flushes leave the disk to the ledger.
const FLUSH_EVERY: Duration = Duration::from_secs(10);

/// The running counters.
pub(super) struct Counting {
    lag: FlushLag,
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

impl Counting {
    /// Opens the counters of this ledger, in memory if there is no directory, and keeps them up with it. Each flush is counted at the publisher, and
    /// disturbed on purpose by `disturbance`.
    ///
    /// # Errors
    /// If the directory cannot be used or belongs to another ledger.
    pub fn start(
        directory: Option<&Path>,
        reader: Box<dyn ReadLedger>,
        publisher: Arc<Publisher>,
        disturbance: Disturbance,
    ) -> Result<Self, CountersFault> {
        let mut counters = match directory {
            Some(directory) => Counters::open(directory, reader.log_id(), Bounds::default(), unix_now())?,
            None => Counters::in_memory(reader.log_id(), Bounds::default(), unix_now()),
        };
        counters.begin_behind(Seq(reader.first().0 - 1));
        let lag = counters.lag();
        let (stop, stopped) = channel();
        let count = move || {
            step_back();
            let mut tail = LedgerTail { ledger: reader, disturbance };
            loop {
                let ending = !matches!(stopped.recv_timeout(FLUSH_EVERY), Err(RecvTimeoutError::Timeout));
                catch_up(&mut counters, &mut tail, &publisher);
                if ending {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("accounting".into())
            .spawn(count)
            .map_err(|error| CountersFault::Tail(error.into()))?;
        Ok(Self { lag, stop: Some(stop), thread: Some(thread) })
    }

    /// Age of the oldest durable entry that is not counted, in seconds.
    pub fn lag_seconds(&self) -> f64 {
        self.lag.seconds(unix_now())
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

fn catch_up(counters: &mut Counters, tail: &mut LedgerTail, publisher: &Publisher) {
    loop {
        let flushed = counters.flush(tail, unix_now());
        publisher.accounting_flush(flushed.is_ok());
        match flushed {
            Ok(flushed) if flushed.caught_up => return,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(event = "accounting_flush_failed", %error, "the counters fall behind; the ledger has everything");
                return;
            }
        }
    }
}
