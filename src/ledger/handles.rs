//! What the rest of the service has in hand of a ledger, the same whether it is in this process or behind a socket.
use super::audit::{Audit, Findings};
use super::history::STEP_ENTRIES_MAX;
use super::log::Watch;
use super::reader::Reader;
use super::stats::CommitStats;
use super::storage::Storage;
use super::LedgerError;
use crate::domain::{
    Entry, Found, HistoryAnswer, HistoryQuestion, KeyId, LogId, Page, PageQuestion, Period, Question, Root, Seq, UnixMs,
};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What the receiver of entries says to each: the entry, its position, and the chain hash of its batch.
pub type EachEntry<'a> = &'a mut dyn FnMut(Seq, &Root, Entry<'_>) -> ControlFlow<()>;

/// What the receiver of keys says to some of them, and to none, which shows that it goes on: the keys, and the time in which their
/// entries were accepted.
pub type EachKeys<'a> = &'a mut dyn FnMut(&[KeyId], Period) -> ControlFlow<()>;

/// Reading what is durable; for threads that may wait.
pub trait ReadLedger: Send {
    /// The identity of the log.
    fn log_id(&self) -> LogId;

    /// The last durable entry, as far as it is known here.
    fn head(&self) -> Seq;

    /// The first entry that can be read: what came before it is in an archive.
    fn first(&self) -> Seq;

    /// The answer; `None` if there is no such durable entry.
    ///
    /// # Errors
    /// If the ledger cannot be read or reached.
    fn find(&mut self, question: &Question) -> Result<Option<Found>, LedgerError>;

    /// Hands over the durable entries from `from` on until `each` breaks or the head is reached, and returns where to go on.
    ///
    /// # Errors
    /// If the ledger cannot be read or reached; what was handed over before is good.
    fn scan(&mut self, from: Seq, each: EachEntry<'_>) -> Result<Seq, LedgerError>;

    /// Hands over the idempotency keys of the entries before `end` that were accepted at `since` or later, until `each` breaks; others
    /// may be among them, and some may come twice.
    ///
    /// # Errors
    /// If the ledger cannot be read or reached.
    fn keys_before(&mut self, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<(), LedgerError>;

    /// The answer out of the history.
    ///
    /// # Errors
    /// If the ledger cannot be read or reached, or cannot be told what is in an archive.
    fn history(&mut self, question: &HistoryQuestion) -> Result<HistoryAnswer, LedgerError>;

    /// A page of an account's entries.
    ///
    /// # Errors
    /// If the ledger cannot be read or reached.
    fn page(&mut self, question: &PageQuestion) -> Result<Page, LedgerError>;

    /// What the audit has found last.
    fn findings(&self) -> &Findings;

    /// Does some work for later questions, in an idle moment; whether there is more of it that can be done at once.
    fn prepare(&mut self) -> bool;
}

impl<S: Storage> ReadLedger for Reader<S> {
    fn log_id(&self) -> LogId {
        Reader::log_id(self)
    }

    fn head(&self) -> Seq {
        Reader::head(self)
    }

    fn first(&self) -> Seq {
        Reader::first(self)
    }

    fn find(&mut self, question: &Question) -> Result<Option<Found>, LedgerError> {
        Reader::find(self, question)
    }

    fn scan(&mut self, from: Seq, each: EachEntry<'_>) -> Result<Seq, LedgerError> {
        Reader::scan(self, from, each)
    }

    fn keys_before(&mut self, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<(), LedgerError> {
        Reader::keys_before(self, end, since, each)
    }

    fn history(&mut self, question: &HistoryQuestion) -> Result<HistoryAnswer, LedgerError> {
        Reader::history(self, question)
    }

    fn page(&mut self, question: &PageQuestion) -> Result<Page, LedgerError> {
        Reader::page(self, question)
    }

    fn findings(&self) -> &Findings {
        &self.shared().findings
    }

    /// One index, one step of the history.
    fn prepare(&mut self) -> bool {
        if let Err(error) = self.index_one_segment() {
            tracing::error!(
                event = "index_failed", %error,
                "a sealed segment could not be indexed; that is tried again when an entry is looked up in it"
            );
        }
        self.advance_history_in_idle(STEP_ENTRIES_MAX, Instant::now()).unwrap_or_else(|error| {
            if matches!(error, LedgerError::Archived { .. }) {
                // Nothing can be proven until the archived segments are back; whoever asks is told.
                tracing::debug!(%error, "the history cannot be made again");
                return false;
            }
            tracing::error!(event = "history_failed", %error, "the history could not follow the ledger");
            false
        })
    }
}

/// What the audit of the ledger has found, wherever it runs; never waits.
pub trait AuditLedger {
    /// All of it; nothing before the first answer of whoever audits.
    fn found(&self) -> Option<Audit>;

    /// As [`AuditLedger::found`], with zeros before the first answer.
    fn audit(&self) -> Audit {
        self.found().unwrap_or_default()
    }

    /// Whether a rule is broken, without a look at the rest.
    fn broken(&self) -> Option<String>;
}

/// Watching the ledger; never waits.
pub trait WatchLedger: Send {
    /// The last durable entry.
    fn head(&self) -> Seq;

    /// Why the ledger takes nothing now, for the operator; `None` if it does.
    fn trouble(&self) -> Option<String>;

    /// Failed attempts, since the start, to reach the ledger or to get it room for its next segment.
    fn connect_errors(&self) -> u64;

    /// The figures of commits since the last call.
    fn take_stats(&self) -> CommitStats;

    /// How long the commit under way has taken so far; nothing if there is none.
    fn commit_age(&self) -> Duration;

    /// Whether there is no room for the next segment, and less than half of it in the one that is written.
    fn is_scarce(&self) -> bool;
}

impl<S: Storage> WatchLedger for Watch<S> {
    fn head(&self) -> Seq {
        Watch::head(self)
    }

    fn trouble(&self) -> Option<String> {
        let full = !self.is_writable();
        full.then(|| "the disk has no room for the next segment; free space in the ledger directory".to_owned())
    }

    fn connect_errors(&self) -> u64 {
        self.failed_allocations()
    }

    fn take_stats(&self) -> CommitStats {
        Watch::take_stats(self)
    }

    fn commit_age(&self) -> Duration {
        Watch::commit_age(self)
    }

    fn is_scarce(&self) -> bool {
        Watch::is_scarce(self)
    }
}
