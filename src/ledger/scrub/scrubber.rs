//! The thread that scrubs: behind everybody else, at its rate, until it is told to end.
use super::plan::rest_after;
use super::state::Scrubbed;
use super::work::{Next, Work};
use super::Scrubbing;
use crate::ledger::clock::unix_now;
use crate::ledger::reader::Reader;
use crate::ledger::storage::Storage;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks whether a pass is due: what there is to read grows meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Priority of the thread: 0 is everybody's, 19 goes last.
const SCRUB_NICE: i32 = 19;

/// The handle of the thread. Dropping it ends the thread.
pub(in crate::ledger) struct Scrubber {
    figures: Arc<Mutex<Scrubbed>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn<S: Storage>(reader: &Reader<S>, scrubbing: Scrubbing) -> std::io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let resting = stopped.clone();
        let after = move |bytes, took| goes_on(&resting, rest_after(bytes, took, scrubbing.bytes_per_second));
        let mut work = Work::new(reader, scrubbing, Box::new(after));
        let figures = Arc::new(Mutex::new(work.figures()));
        let told = Arc::clone(&figures);
        let run = move || {
            if let Err(error) = rustix::process::setpriority_process(None, SCRUB_NICE) {
                tracing::debug!(%error, "scrubbing goes on with everybody's priority");
            }
            let mut pause = Duration::ZERO;
            while goes_on(&stopped, pause) {
                let now = unix_now();
                pause = match work.step(now) {
                    Next::Now => Duration::ZERO,
                    Next::At(due) => Duration::from_millis(due.0.saturating_sub(now.0)).min(LOOK_EVERY),
                };
                *told.lock().unwrap_or_else(PoisonError::into_inner) = work.figures();
            }
            work.save(unix_now());
        };
        let thread = std::thread::Builder::new().name("ledger-scrub".into()).spawn(run)?;
        Ok(Self { figures, stop: Some(stop), thread: Some(thread) })
    }

    /// What others are told.
    pub fn figures(&self) -> Scrubbed {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits; false if the thread is to end, and then at once.
fn goes_on(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process or was told by it; there is nothing to add.
            let _ = thread.join();
        }
    }
}
