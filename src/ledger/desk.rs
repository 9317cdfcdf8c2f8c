//! The lookup desk: a thread that answers questions about durable entries, so that no core ever waits for a disk.
//!
//! In idle moments it makes the indexes of sealed segments, so that no question has to wait for that.
use super::reader::Reader;
use super::storage::Storage;
use super::LedgerError;
use crate::domain::{Found, Question};
use crossbeam_channel::{bounded, RecvTimeoutError, Sender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the desk must have been idle before it makes an index.
const IDLE: Duration = Duration::from_millis(500);

/// What an answer is: the entry, nothing, or why neither can be told.
pub type Answer = Result<Option<Found>, LedgerError>;

/// The desk. Dropping it answers what is queued and ends its thread.
pub struct LookupDesk<T> {
    queue: Option<Sender<(Question, T)>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> LookupDesk<T> {
    /// Starts the thread. At most `questions_max` wait; `deliver` gets each answer, on the desk's thread, with the token of its question.
    pub fn spawn<S: Storage>(
        reader: Reader<S>,
        questions_max: usize,
        deliver: Box<dyn Fn(T, Answer) + Send>,
    ) -> std::io::Result<Self> {
        let (queue, questions) = bounded::<(Question, T)>(questions_max);
        let run = move || loop {
            match questions.recv_timeout(IDLE) {
                Ok((question, token)) => deliver(token, reader.find(&question)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = reader.index_one_segment() {
                        tracing::error!(%error, "a sealed segment could not be indexed");
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("ledger-lookup".into()).spawn(run)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues the question; gives the token back if too many wait.
    pub fn ask(&self, question: Question, token: T) -> Result<(), T> {
        let queue = self.queue.as_ref().expect("open until it is dropped");
        queue.try_send((question, token)).map_err(|error| match error {
            TrySendError::Full((_, token)) | TrySendError::Disconnected((_, token)) => token,
        })
    }
}

impl<T> Drop for LookupDesk<T> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the desk has been reported by its own thread; there is nothing to add.
            let _ = thread.join();
        }
    }
}
