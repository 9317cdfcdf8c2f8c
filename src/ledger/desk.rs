//! The lookup desk: a thread that answers questions about durable entries, so that no core ever waits for a disk.
//!
//! In idle moments it makes the indexes of sealed segments and lets the history follow the log, so that no question has to wait
//! for that.
use super::handles::ReadLedger;
use super::LedgerError;
use crate::domain::{Found, HistoryAnswer, HistoryQuestion, Page, PageQuestion, Question, Totals, Untold};
use crossbeam_channel::{bounded, RecvTimeoutError, Sender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the desk must have been idle before it makes an index.
pub(super) const IDLE: Duration = Duration::from_millis(500);

/// Between two steps of a history that is far behind, so that the cores are hardly slowed down.
pub(super) const HISTORY_REST: Duration = Duration::from_millis(20);

/// What was found out.
#[derive(Debug)]
pub enum Told {
    /// The entry, or that there is none.
    Entry(Option<Found>),
    /// Entries of an account.
    Page(Page),
    /// What the history says.
    History(Box<HistoryAnswer>),
    /// What the audit says of an asset.
    Totals(Result<Totals, Untold>),
}

/// What an answer is: what was found out, or why that cannot be told.
pub type Answer = Result<Told, LedgerError>;

enum Inquiry {
    Entry(Question),
    Page(PageQuestion),
    History(HistoryQuestion),
    Totals(Box<str>),
}

/// The desk. Dropping it answers what is queued and ends its thread.
pub struct LookupDesk<T> {
    queue: Option<Sender<(Inquiry, T)>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> LookupDesk<T> {
    /// Starts the thread. At most `questions_max` wait; `deliver` gets each answer, on the desk's thread, with the token of its question.
    pub fn spawn(
        mut reader: Box<dyn ReadLedger>,
        questions_max: usize,
        deliver: Box<dyn Fn(T, Answer) + Send>,
    ) -> std::io::Result<Self> {
        let (queue, questions) = bounded::<(Inquiry, T)>(questions_max);
        let run = move || {
            let mut wait = IDLE;
            loop {
                match questions.recv_timeout(wait) {
                    Ok((Inquiry::Entry(question), token)) => deliver(token, reader.find(&question).map(Told::Entry)),
                    Ok((Inquiry::Page(question), token)) => deliver(token, reader.page(&question).map(Told::Page)),
                    Ok((Inquiry::History(question), token)) => {
                        deliver(token, reader.history(&question).map(|answer| Told::History(Box::new(answer))))
                    }
                    Ok((Inquiry::Totals(asset), token)) => {
                        let totals = reader.findings().totals(&asset, reader.head());
                        deliver(token, Ok(Told::Totals(totals)));
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => wait = if reader.prepare() { HISTORY_REST } else { IDLE },
                }
            }
        };
        let thread = std::thread::Builder::new().name("ledger-lookup".into()).spawn(run)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues the question; gives the token back if too many wait.
    pub fn ask(&self, question: Question, token: T) -> Result<(), T> {
        self.put(Inquiry::Entry(question), token)
    }

    /// As [`LookupDesk::ask`], about the entries of an account.
    pub fn ask_page(&self, question: PageQuestion, token: T) -> Result<(), T> {
        self.put(Inquiry::Page(question), token)
    }

    /// As [`LookupDesk::ask`], about the history.
    pub fn ask_history(&self, question: HistoryQuestion, token: T) -> Result<(), T> {
        self.put(Inquiry::History(question), token)
    }

    /// As [`LookupDesk::ask`], about the sums of an asset.
    pub fn ask_totals(&self, asset: Box<str>, token: T) -> Result<(), T> {
        self.put(Inquiry::Totals(asset), token)
    }

    fn put(&self, inquiry: Inquiry, token: T) -> Result<(), T> {
        let queue = self.queue.as_ref().expect("open until it is dropped");
        queue.try_send((inquiry, token)).map_err(|error| match error {
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
