//! Answers about durable entries, off the cores and beside the writer.
//!
//! Every answer is read from the segment and verified by the hashes of its batch; the directory and the index only say where to
//! look. Entries that are not durable yet do not exist for a reader.
use super::batch::for_each_entry;
use super::cursor::Cursor;
use super::handles::EachKeys;
use super::history::{History, Peaks, STEP_ENTRIES_MAX};
use super::index::{Index, Wanted};
use super::index_format::{debit_hash, party_hash, Run};
use super::layout::{Fault, BLOCK_BYTES};
use super::log::Shared;
use super::recent::Recent;
use super::scan::SeenBatch;
use super::storage::Storage;
use super::LedgerError;
use crate::domain::{
    Account, Entry, Found, HistoryAnswer, HistoryQuestion, Key, KeyId, KeyUse, LogId, Page, PageQuestion, Question, Root, Seq,
    UnixMs,
};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How much a scan reads at once, in bytes.
const SCAN_WINDOW_BYTES: usize = 1 << 20;
/// Sealed segments that are looked into for one page of an account's entries.
const PAGE_SEGMENTS_MAX: usize = 64;

/// A handle for reading the log; clones share the index and the batches looked into last.
pub struct Reader<S: Storage> {
    shared: Arc<Shared<S>>,
    index: Arc<Mutex<Index<S>>>,
    recent: Arc<Mutex<Recent>>,
    history: Arc<Mutex<History<S>>>,
}

impl<S: Storage> Clone for Reader<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            index: Arc::clone(&self.index),
            recent: Arc::clone(&self.recent),
            history: Arc::clone(&self.history),
        }
    }
}

/// Why the walk over the entries of a batch ended early.
enum Stop {
    Enough,
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// Hands over the entries of a batch until the receiver has enough.
pub(super) fn visit(
    batch: &SeenBatch<'_>,
    mut each: impl FnMut(Seq, Entry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, LedgerError> {
    let walked = for_each_entry(&batch.header, batch.body, |seq, entry| match each(seq, entry) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Enough),
    });
    match walked {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(Stop::Enough) => Ok(ControlFlow::Break(())),
        Err(Stop::Fault(fault)) => Err(LedgerError::Damaged {
            file: batch.file.to_string(),
            offset: batch.place.offset,
            expected: batch.place.first_seq,
            what: fault.to_string(),
        }),
    }
}

impl<S: Storage> Reader<S> {
    pub(super) fn new(shared: Arc<Shared<S>>) -> Self {
        let index = Arc::new(Mutex::new(Index::new(Arc::clone(&shared))));
        let history = Arc::new(Mutex::new(History::new(Arc::clone(&shared))));
        Self { index, recent: Arc::default(), history, shared }
    }

    pub(super) fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }

    /// The last durable entry.
    pub fn head(&self) -> Seq {
        self.shared.head()
    }

    /// The first entry that can be read: what came before it is in an archive.
    pub fn first(&self) -> Seq {
        self.shared.first()
    }

    /// The identity of the log.
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    /// The answer; `None` if there is no such durable entry. May read and, once per sealed segment, index a whole segment.
    pub fn find(&self, question: &Question) -> Result<Option<Found>, LedgerError> {
        let head = self.shared.head();
        let wanted = |run, hash, accepted| Wanted { run, hash, before: Seq(head.0 + 1), accepted, segments_max: None };
        match question {
            Question::At(seq) => self.at(*seq),
            Question::Debit { account, nonce } => {
                let wanted = wanted(Run::Debits, debit_hash(account, *nonce), None);
                let found = self.newest(&wanted, &|entry| {
                    entry.from().is_some_and(|from| from.as_str() == &**account) && entry.nonce() == Some(*nonce)
                })?;
                // Whoever asks knows that there is one.
                if found.is_none() && self.first() > Seq(1) {
                    return Err(LedgerError::Archived { place: self.shared.storage.place(""), first: self.first() });
                }
                Ok(found)
            }
            Question::Key(wanted_use) => {
                let KeyUse { account, key, accepted } = &**wanted_use;
                let (Some(owner), Some(key)) = (Account::new(account), Key::new(key)) else { return Ok(None) };
                let wanted = wanted(Run::Keys, KeyId::of(owner, key).0, Some(*accepted));
                self.newest(&wanted, &|entry| entry.owner() == owner && entry.key() == key)
            }
        }
    }

    /// A page of an account's entries. It has fewer entries than it may have, even none, if many segments had to be looked into, or
    /// the index of one had to be made: [`Page::before`] then says where to go on.
    pub fn page(&self, question: &PageQuestion) -> Result<Page, LedgerError> {
        let account = &*question.account;
        let head_end = Seq(self.shared.head().0 + 1);
        let before = question.before.map_or(head_end, |before| before.min(head_end));
        let (run, hash) = (Run::Parties, party_hash(account));
        let wanted = Wanted { run, hash, before, accepted: None, segments_max: Some(PAGE_SEGMENTS_MAX) };
        let mut page = Page::default();
        let mut index = self.index.lock().expect("no thread panics while it holds the index");
        let unseen = index.search(&wanted, &mut |seq| {
            let is_party =
                |entry: &Entry<'_>| [entry.from(), entry.to()].into_iter().flatten().any(|party| party.as_str() == account);
            let Some(found) = self.confirmed(seq, &is_party)? else { return Ok(ControlFlow::Continue(())) };
            if page.entries.len() == question.limit {
                // One more than was asked for: now it is known that there are older ones.
                page.before = page.entries.last().map(|last| last.seq);
                return Ok(ControlFlow::Break(()));
            }
            page.entries.push(found);
            Ok(ControlFlow::Continue(()))
        })?;
        page.before = page.before.or(unseen);
        let first = self.first();
        if page.before.is_none() && first > Seq(1) {
            // Older entries may be in an archive: the next page says so.
            if page.entries.is_empty() {
                return Err(LedgerError::Archived { place: self.shared.storage.place(""), first });
            }
            page.before = Some(first);
        }
        Ok(page)
    }

    fn at(&self, seq: Seq) -> Result<Option<Found>, LedgerError> {
        let head = self.shared.head();
        if seq == Seq(0) || seq > head {
            return Ok(None);
        }
        let mut recent = self.recent.lock().expect("no thread panics while it holds the recent batches");
        if let Some(found) = recent.find(seq) {
            return Ok(Some(found));
        }
        let mut cursor = Cursor::before(&self.shared, seq, BLOCK_BYTES)?;
        cursor.skip_to(seq, head)?;
        let batch = cursor.next_batch(head)?.expect("the entry is durable, so its batch is not behind the head");
        recent.keep(&batch)?;
        Ok(recent.find(seq))
    }

    /// The entry at this place, if it is one that was looked for.
    fn confirmed(&self, seq: Seq, is_it: &dyn Fn(&Entry<'_>) -> bool) -> Result<Option<Found>, LedgerError> {
        let found = self.at(seq)?;
        Ok(found.filter(|found| Entry::parse(&found.entry).is_ok_and(|(entry, _)| is_it(&entry))))
    }

    fn newest(&self, wanted: &Wanted, is_it: &dyn Fn(&Entry<'_>) -> bool) -> Result<Option<Found>, LedgerError> {
        let mut index = self.index.lock().expect("no thread panics while it holds the index");
        let mut newest = None;
        index.search(wanted, &mut |seq| {
            newest = self.confirmed(seq, is_it)?;
            Ok(if newest.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(newest)
    }

    /// Hands over the idempotency keys of the entries before `end` that were accepted at `since` or later, with the span in which
    /// their entries were accepted: for a start-up that does not replay these entries. Whole segments are handed over, the oldest first, so
    /// keys of other entries are among them. A segment without an index is read; it is not indexed for this.
    pub fn keys_before(&self, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<(), LedgerError> {
        // Beside the index that answers questions: these do not wait for a receiver that is slow.
        Index::new(Arc::clone(&self.shared)).keys_before(end, since, each)
    }

    /// Lets go of the index file of a segment, which was found damaged.
    pub(super) fn discard_index(&self, segment: u64) -> std::io::Result<()> {
        self.index.lock().expect("no thread panics while it holds the index").discard(segment)
    }

    /// Writes the index of one sealed segment that has none; whether it did. For idle moments.
    pub fn index_one_segment(&self) -> Result<bool, LedgerError> {
        self.index.lock().expect("no thread panics while it holds the index").build_one()
    }

    /// Lets the history follow the durable head until it has taken in so many entries; whether more are left that can be taken in
    /// at once.
    pub fn advance_history(&self, entries_max: u64) -> Result<bool, LedgerError> {
        self.history.lock().expect("no thread panics while it holds the history").advance(entries_max)
    }

    /// As [`Reader::advance_history`], for idle moments: after an error it rests for a while.
    pub(super) fn advance_history_in_idle(&self, entries_max: u64, now: Instant) -> Result<bool, LedgerError> {
        self.history.lock().expect("no thread panics while it holds the history").advance_in_idle(entries_max, now)
    }

    /// The peaks of the history as far as it has followed, and the last entry that it covers.
    pub fn history_peaks(&self) -> (Peaks, Seq) {
        let history = self.history.lock().expect("no thread panics while it holds the history");
        let (peaks, through) = history.peaks();
        (peaks.clone(), through)
    }

    /// The peaks of the history of so many batches; `None` if it does not have them, or has not come so far yet.
    pub(super) fn history_peaks_of(&self, size: u64) -> Option<Peaks> {
        self.history.lock().expect("no thread panics while it holds the history").peaks_of(size)
    }

    /// The answer out of the history, which first follows the head by one step. Reads little more than one batch.
    pub fn history(&self, question: &HistoryQuestion) -> Result<HistoryAnswer, LedgerError> {
        let head = self.shared.head();
        let found = match question {
            HistoryQuestion::Proof { seq, .. } => self.at(*seq)?,
            HistoryQuestion::Root | HistoryQuestion::Consistency { .. } => None,
        };
        let mut history = self.history.lock().expect("no thread panics while it holds the history");
        history.advance(STEP_ENTRIES_MAX)?;
        match (question, found) {
            (HistoryQuestion::Proof { .. }, None) => Ok(HistoryAnswer::NoEntry),
            (HistoryQuestion::Proof { size, .. }, Some(found)) => history.prove(*size, found),
            (HistoryQuestion::Root, _) => Ok(HistoryAnswer::Root(history.current(head))),
            (HistoryQuestion::Consistency { from, to }, _) => history.continued(*from, *to),
        }
    }

    /// Hands over the durable entries from `from` on, each with the chain hash of its batch, until `each` breaks or the head is
    /// reached. Returns where to go on next time: after the last entry that was handed over.
    pub fn scan(&self, from: Seq, each: &mut dyn FnMut(Seq, &Root, Entry<'_>) -> ControlFlow<()>) -> Result<Seq, LedgerError> {
        let from = from.max(Seq(1));
        let head = self.shared.head();
        if from > head {
            return Ok(from);
        }
        let mut cursor = Cursor::before(&self.shared, from, SCAN_WINDOW_BYTES)?;
        cursor.skip_to(from, head)?;
        let mut next = from;
        while let Some(batch) = cursor.next_batch(head)? {
            let flow = visit(&batch, |seq, entry| {
                if seq < from {
                    return ControlFlow::Continue(());
                }
                next = Seq(seq.0 + 1);
                each(seq, &batch.root, entry)
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(next)
    }
}
