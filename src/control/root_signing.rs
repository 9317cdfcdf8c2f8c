//! The thread that signs roots of the history: on a schedule if the ledger has grown, and once more when everything has been committed.
//!
//! Nobody waits for it. What it has signed stands on a board, where the cores find it, and in a file, which may be lost: then later roots
//! are signed. Roots that the ledger does not continue any more, because it was restored from an older copy or changed, are told
//! and taken off the board: their file is put aside.
use super::keys::InForce;
use super::root_file::RootFile;
use super::system::step_back;
use crate::access::{RootBoard, SignedRoot};
use crate::config::Config;
use crate::domain::{HistoryAnswer, HistoryQuestion, HistoryRoot, Seq, UnixMs, Unproven};
use crate::ledger::ReadLedger;
use crate::telemetry::Publisher;
use crate::worker::unix_now;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a history that has not followed the ledger yet is asked again, before it is left for the next time.
const BEHIND_TRIES_MAX: u32 = 100;
/// Time between two of these questions.
const BEHIND_PAUSE: Duration = Duration::from_millis(10);

/// The running thread.
pub(super) struct RootSigning {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

struct Signer {
    ledger: Box<dyn ReadLedger>,
    keyring: InForce,
    board: Arc<RootBoard>,
    file: Option<RootFile>,
    publisher: Arc<Publisher>,
    /// Whether the ledger is known to continue what is on the board.
    compared: bool,
    /// Whether the newest root on the board is in the file.
    written: bool,
    /// What was told last.
    told: Option<String>,
}

impl RootSigning {
    /// Reads what was signed before, and signs the history of this ledger from now on; what is signed is on the board.
    pub fn start(
        config: &Config,
        ledger: Box<dyn ReadLedger>,
        keyring: InForce,
        publisher: Arc<Publisher>,
    ) -> io::Result<(Self, Arc<RootBoard>)> {
        let (board, every) = (Arc::<RootBoard>::default(), config.ledger.sign_roots_every);
        let is_empty = ledger.head() == Seq(0);
        let mut signer = Signer::new(ledger, keyring, board.clone(), config.signed_roots(), publisher);
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new().name("roots".to_owned()).spawn(move || {
            step_back();
            // What an earlier run has left is signed at once.
            if !is_empty {
                signer.round();
            }
            signer.run(&stopped, every);
        })?;
        Ok((Self { stop, thread }, board))
    }

    /// Signs the root that there is now, and ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        // A panic of it has ended the process.
        let _ = self.thread.join();
    }
}

impl Signer {
    fn new(
        ledger: Box<dyn ReadLedger>,
        keyring: InForce,
        board: Arc<RootBoard>,
        file: Option<PathBuf>,
        publisher: Arc<Publisher>,
    ) -> Self {
        let (file, kept) = file.map(|path| RootFile::open(path, ledger.log_id())).unzip();
        if let (Some(file), Some(kept)) = (&file, kept) {
            let path = file.path().display();
            match kept {
                Ok(kept) => {
                    if kept.left_out > 0 {
                        let lines = kept.left_out;
                        tracing::warn!(event = "roots_left_out", file = %path, lines, "lines that are no signed roots of this ledger are left out");
                    }
                    board.replace(kept.roots);
                }
                Err(error) => {
                    tracing::error!(event = "roots_unread", file = %path, %error, "the signed roots could not be read; it is begun anew");
                }
            }
        }
        let signer = Self { ledger, keyring, board, file, publisher, compared: false, written: true, told: None };
        signer.publish();
        signer
    }

    fn run(&mut self, stopped: &Receiver<()>, every: Duration) {
        loop {
            let ended = stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout);
            self.round();
            if ended {
                return;
            }
        }
    }

    fn round(&mut self) {
        let outcome = self.sign();
        if let Ok(true) = outcome {
            self.publisher.root_signings(true, 1);
        }
        if outcome.is_err() {
            self.publisher.root_signings(false, 1);
        }
        self.tell(outcome.err());
    }

    /// Signs the current root if the history has grown, and keeps it; whether there was something to do.
    fn sign(&mut self) -> Result<bool, String> {
        if !self.compared {
            self.compare()?;
            self.compared = true;
        }
        let covered = self.board.newest().map_or(Seq(0), |newest| newest.root.through);
        if self.ledger.head() > covered {
            let root = self.current()?;
            let signed = SignedRoot::sign(&self.keyring.get(), self.ledger.log_id(), root, unix_now());
            self.board.put(signed.map_err(|fault| format!("the root of {} batches could not be signed: {fault}", root.size))?);
            self.written = false;
            self.publish();
        }
        let wrote = !self.written;
        self.write()?;
        Ok(wrote)
    }

    fn write(&mut self) -> Result<(), String> {
        if let (false, Some(file)) = (self.written, &mut self.file) {
            let path = file.path().display().to_string();
            file.append(&self.board.all()).map_err(|error| format!("{path}: cannot write the signed root: {error}"))?;
        }
        self.written = true;
        Ok(())
    }

    /// The current root. Waits a moment for a history that has not followed the ledger so far yet.
    fn current(&mut self) -> Result<HistoryRoot, String> {
        for _ in 0..BEHIND_TRIES_MAX {
            match self.ask(&HistoryQuestion::Root)? {
                HistoryAnswer::Root(Ok(root)) => return Ok(root),
                HistoryAnswer::Root(Err(Unproven::Behind)) => std::thread::sleep(BEHIND_PAUSE),
                answer => return Err(format!("the history has no root: {answer:?}")),
            }
        }
        Err("the history has not followed the ledger so far yet".to_owned())
    }

    /// Holds the roots that were kept against the ledger, and takes those off the board that it does not continue.
    fn compare(&mut self) -> Result<(), String> {
        let Some(newest) = self.board.newest() else { return Ok(()) };
        let current = self.current()?;
        let mut roots = self.board.all();
        while let Some(last) = roots.last() {
            if self.continues(&last.root, &current)? {
                break;
            }
            roots.pop();
        }
        if roots.last() == Some(&newest) {
            return Ok(());
        }
        let (batches, through, key) = (newest.root.size, newest.root.through.0, &newest.signature.key);
        let aside = self.file.as_mut().map(|file| (file.put_aside(), file.write_anew(&roots)));
        let aside = aside.map(|(aside, written)| aside.and_then(|aside| written.map(|()| aside)));
        let kept = match aside {
            None => "nowhere".to_owned(),
            Some(Ok(path)) => path.display().to_string(),
            Some(Err(error)) => format!("not kept: {error}"),
        };
        tracing::error!(
            event = "roots_differ", batches, through, key, kept,
            "the ledger does not continue the newest signed root: it was restored from an older copy, or changed; the roots that were signed \
             are kept, and those that it does not continue are shown to nobody"
        );
        self.board.replace(roots.iter().map(|root| SignedRoot::clone(root)));
        self.publish();
        Ok(())
    }

    /// Whether the current root continues an earlier one, as far as it can be told.
    fn continues(&mut self, earlier: &HistoryRoot, current: &HistoryRoot) -> Result<bool, String> {
        if earlier.size >= current.size {
            return Ok(earlier == current);
        }
        match self.ask(&HistoryQuestion::Consistency { from: earlier.size, to: current.size })? {
            HistoryAnswer::Consistency(Ok(proof)) => Ok(proof.from == *earlier),
            // The batches before it are in an archive: there is nothing to hold it against.
            HistoryAnswer::Consistency(Err(Unproven::Archived { .. })) => Ok(true),
            answer => Err(format!("the history does not say how it continues: {answer:?}")),
        }
    }

    fn ask(&mut self, question: &HistoryQuestion) -> Result<HistoryAnswer, String> {
        self.ledger.history(question).map_err(|error| error.to_string())
    }

    fn publish(&self) {
        if let Some(newest) = self.board.newest() {
            self.publisher.signed_root(newest.root.through, UnixMs(newest.signature.ts));
        }
    }

    /// Says what is in the way when it changes, and when nothing is any more.
    fn tell(&mut self, trouble: Option<String>) {
        match (&trouble, &self.told) {
            (Some(what), told) if told.as_ref() != Some(what) => {
                tracing::error!(event = "roots_failed", reason = %what, "no root was signed; spends go on, and it is tried again");
            }
            (None, Some(_)) => tracing::info!(event = "roots_go_on", "roots are signed again"),
            (Some(_), _) | (None, None) => {}
        }
        self.told = trouble;
    }
}

#[cfg(test)]
#[path = "root_signing_tests.rs"]
mod tests;
