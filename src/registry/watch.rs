//! The thread that asks for the topology, and what there is to know of it at any moment.
//!
//! It tells nobody: whoever wants to know looks at its [`Standing`]. Nobody waits for it either, because its question may wait long for
//! an answer.
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};

use super::pauses::{in_upper_half, Pauses};
use super::{Answer, Held, Registry, Source, SourceFault, Taken};

/// Pause between two questions with good answers at the least: a registry that always has news does not keep this thread busy.
const QUESTION_PAUSE: Duration = Duration::from_millis(250);
/// First pause after a question without a good answer.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after one, unless questions are asked more often anyway.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another topology was taken.
    Changed,
    /// What is in force is what there is.
    Unchanged,
    /// Nothing answered.
    Unreachable,
    /// What was answered is no topology, or none that may take the place of the one in force.
    Refused,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 4] = [Outcome::Changed, Outcome::Unchanged, Outcome::Unreachable, Outcome::Refused];

    /// Its name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Changed => "changed",
            Outcome::Unchanged => "unchanged",
            Outcome::Unreachable => "unreachable",
            Outcome::Refused => "refused",
        }
    }
}

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The topology in force, once there was one.
    pub topology: Option<Arc<Registry>>,
    /// When the last good answer came; before there was one, when the first question was asked.
    pub heard: Instant,
    /// Why the last question had no good answer; `None` if it had one, or none was answered yet.
    pub trouble: Option<Arc<str>>,
    /// How often each outcome came, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// How many questions were answered that [`Watch::look`] has asked for.
    pub looks: u64,
}

/// Is asked before each question of the thread: it may take its time, and the question fails with what it errs with.
pub type Before = Box<dyn FnMut() -> Result<(), String> + Send>;

/// The running thread; it ends some time after this is dropped.
#[derive(Debug)]
pub struct Watch {
    asks: Sender<()>,
    standing: Arc<Mutex<Standing>>,
}

impl Watch {
    /// Begins to ask. What a file says is known when this returns.
    ///
    /// # Errors
    /// If it is a file and bad, with the cause; or if no thread can be had.
    pub fn start(source: Source, poll_every: Duration) -> Result<Self, StartFault> {
        Self::start_with(source, poll_every, Box::new(|| Ok(())))
    }

    /// As [`Watch::start`], with something before each question but the first one of a file.
    ///
    /// # Errors
    /// Those of [`Watch::start`].
    pub fn start_with(mut source: Source, poll_every: Duration, before: Before) -> Result<Self, StartFault> {
        let mut standing =
            Standing { topology: None, heard: Instant::now(), trouble: None, outcomes: [0; Outcome::ALL.len()], looks: 0 };
        let mut held = Held::default();
        if source.is_file() {
            let outcome = take(&mut source, &mut held, true);
            standing.note(&held, outcome).map_err(|fault| StartFault::Bad(fault.reason()))?;
        }
        let standing = Arc::new(Mutex::new(standing));
        // One that waits is as good as many.
        let (asks, asked) = bounded(1);
        let pauses = Pauses::new(FIRST_PAUSE, poll_every.min(LONGEST_PAUSE));
        let asker = Asker { source, before, held, pauses, standing: standing.clone() };
        let thread = std::thread::Builder::new().name("registry".to_owned());
        thread.spawn(move || asker.run(&asked)).map_err(StartFault::Thread)?;
        Ok(Self { asks, standing })
    }

    /// Asks for a question now, as soon as the one under way is answered.
    pub fn look(&self) {
        let _ = self.asks.try_send(());
    }

    /// What is known now.
    pub fn standing(&self) -> Standing {
        locked(&self.standing).clone()
    }
}

/// Why the thread was not started.
#[derive(Debug)]
pub enum StartFault {
    /// The file cannot be used.
    Bad(String),
    /// The system has no thread for it.
    Thread(io::Error),
}

struct Asker {
    source: Source,
    before: Before,
    held: Held,
    pauses: Pauses,
    standing: Arc<Mutex<Standing>>,
}

impl Asker {
    fn run(mut self, asked: &Receiver<()>) {
        let mut pause = if self.source.is_file() { self.source.pause(Duration::ZERO) } else { Duration::ZERO };
        loop {
            let in_any_case = match asked.recv_timeout(pause) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            pause = self.ask(in_any_case);
        }
    }

    /// One question; returns how long to wait before the next.
    fn ask(&mut self, in_any_case: bool) -> Duration {
        let started = Instant::now();
        let outcome = match (self.before)() {
            Ok(()) => take(&mut self.source, &mut self.held, in_any_case),
            Err(reason) => Err(SourceFault::Unreachable(reason)),
        };
        let noted = {
            let mut standing = locked(&self.standing);
            standing.looks += u64::from(in_any_case);
            standing.note(&self.held, outcome)
        };
        // Without randomness pauses are as long as they can be.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        match noted {
            Ok(taken) => {
                self.pauses.forget();
                let pause = if taken == Taken::Changed { Duration::ZERO } else { self.source.pause(started.elapsed()) };
                in_upper_half(pause, random).max(QUESTION_PAUSE)
            }
            Err(_) => self.pauses.failed(random),
        }
    }
}

/// Asks, and puts a good answer in force.
fn take(source: &mut Source, held: &mut Held, in_any_case: bool) -> Result<Taken, SourceFault> {
    let taken = match source.ask(in_any_case)? {
        Answer::Unchanged => return Ok(Taken::Unchanged),
        Answer::Topology(found) => held.take(found).map_err(|fault| SourceFault::Refused(fault.to_string()))?,
    };
    source.taken();
    Ok(taken)
}

impl Standing {
    fn note(&mut self, held: &Held, outcome: Result<Taken, SourceFault>) -> Result<Taken, SourceFault> {
        let kind = match &outcome {
            Ok(Taken::Changed) => Outcome::Changed,
            Ok(Taken::Unchanged) => Outcome::Unchanged,
            Err(SourceFault::Unreachable(_)) => Outcome::Unreachable,
            Err(SourceFault::Refused(_)) => Outcome::Refused,
        };
        self.outcomes[kind as usize] += 1;
        self.trouble = outcome.as_ref().err().map(|fault| fault.reason().into());
        if outcome.is_ok() {
            self.topology = held.current().cloned();
            self.heard = Instant::now();
        }
        outcome
    }
}

fn locked(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
