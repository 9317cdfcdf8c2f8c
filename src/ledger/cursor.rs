//! Walking over durable batches beside the writer.
//!
//! Invariant: never looks beyond the durable head it is given, so it never sees a batch that is being written; within that,
//! whatever does not verify is damage.
use super::batch::check_place;
use super::layout::{BatchHeader, Fault, BATCH_HEAD_BYTES, BLOCK_BYTES};
use super::log::Shared;
use super::places::Place;
use super::scan::SeenBatch;
use super::storage::{segment_name, Storage};
use super::window::Window;
use super::LedgerError;
use crate::domain::{Root, Seq};
use std::sync::Arc;

/// A position between two batches.
pub(super) struct Cursor<S: Storage> {
    shared: Arc<Shared<S>>,
    window: Window<S::File>,
    window_bytes: usize,
    file: String,
    segment: u64,
    segment_bytes: u64,
    offset: u64,
    next: Seq,
    /// The head when the window may have been filled; what came later may be missing from it.
    head_seen: Seq,
}

impl<S: Storage> Cursor<S> {
    /// Stands at this place and reads ahead so many bytes at a time.
    pub(super) fn at(shared: &Arc<Shared<S>>, place: Place, window_bytes: usize) -> Result<Self, LedgerError> {
        let name = segment_name(place.segment);
        let path = shared.storage.place(&name);
        let opened = shared.storage.open(&name).map_err(LedgerError::io(path.as_str(), "open the segment"))?;
        let places = shared.places.read().expect("no thread panics while it holds the places");
        Ok(Self {
            shared: Arc::clone(shared),
            window: Window::new(opened, path.clone(), window_bytes),
            window_bytes,
            file: path,
            segment: place.segment,
            segment_bytes: places.segment_bytes(place.segment).expect("places come from the directory"),
            offset: place.offset,
            next: place.first_seq,
            head_seen: Seq(0),
        })
    }

    /// Stands as near before the entry as the directory knows.
    pub(super) fn before(shared: &Arc<Shared<S>>, seq: Seq, window_bytes: usize) -> Result<Self, LedgerError> {
        let place = shared.places.read().expect("no thread panics while it holds the places").locate(seq);
        let place = place.ok_or_else(|| LedgerError::Archived { place: shared.storage.place(""), first: shared.first() })?;
        Self::at(shared, place, window_bytes)
    }

    /// Stands before the batch that holds the entry, which must be durable.
    pub(super) fn before_batch_of(
        shared: &Arc<Shared<S>>,
        seq: Seq,
        head: Seq,
        window_bytes: usize,
    ) -> Result<Self, LedgerError> {
        let mut cursor = Self::before(shared, seq, window_bytes)?;
        cursor.skip_to(seq, head)?;
        Ok(cursor)
    }

    /// Whether a batch of the log ends with this entry and this chain hash, and what follows it is all there: then whatever was made of
    /// the entries up to there can be followed from there.
    pub(super) fn goes_on_behind(shared: &Arc<Shared<S>>, last: Seq, root: &Root, head: Seq) -> Result<bool, LedgerError> {
        let first = shared.first();
        if last > head || last.0 + 1 < first.0 {
            return Ok(false);
        }
        if last == head && last < first {
            // There is no batch yet: all that the log has is the snapshot behind which it was opened.
            return Ok(true);
        }
        let mut cursor = Self::before_batch_of(shared, last.max(first), head, BLOCK_BYTES)?;
        let batch = cursor.next_batch(head)?.expect("the entry is durable, so its batch is not behind the head");
        Ok(match last >= first {
            true => batch.header.last_seq() == last && batch.root == *root,
            false => batch.header.prev == *root,
        })
    }

    /// The segment in which it stands.
    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// The entry with which the next batch begins.
    pub(super) fn next_seq(&self) -> Seq {
        self.next
    }

    fn damaged(&self, fault: &Fault) -> LedgerError {
        LedgerError::Damaged { file: self.file.clone(), offset: self.offset, expected: self.next, what: fault.to_string() }
    }

    /// Moves to the next segment if the next entry is there, and refreshes the window if the log has grown. False at the head.
    fn prepare(&mut self, head: Seq) -> Result<bool, LedgerError> {
        if self.next > head {
            return Ok(false);
        }
        let place = self.shared.places.read().expect("no thread panics while it holds the places").locate(self.next);
        let place = place.expect("a durable entry has a place");
        if place.segment != self.segment {
            *self = Self::at(&self.shared, place, self.window_bytes)?;
        }
        if self.head_seen != head {
            self.window.forget();
            self.head_seen = head;
        }
        Ok(true)
    }

    fn header(&mut self) -> Result<(BatchHeader, Root), LedgerError> {
        let bytes = self.window.get(self.offset, BATCH_HEAD_BYTES)?;
        let checked = BatchHeader::decode(bytes).and_then(|(header, root)| {
            check_place(&header, self.shared.log_id, self.segment, self.offset, self.segment_bytes)?;
            Ok((header, root))
        });
        let (header, root) = checked.map_err(|fault| self.damaged(&fault))?;
        if header.first_seq != self.next {
            return Err(self.damaged(&Fault::Misfit(format!("the batch begins with entry {}", header.first_seq.0))));
        }
        Ok((header, root))
    }

    /// Skips batches that end before the entry, which must be durable. Reads their headers only.
    pub(super) fn skip_to(&mut self, seq: Seq, head: Seq) -> Result<(), LedgerError> {
        while self.prepare(head)? {
            let (header, _) = self.header()?;
            if header.last_seq() >= seq {
                break;
            }
            self.offset += header.extent_bytes();
            self.next = Seq(header.last_seq().0 + 1);
        }
        Ok(())
    }

    /// The next batch, fully checked; `None` at the head.
    pub(super) fn next_batch(&mut self, head: Seq) -> Result<Option<SeenBatch<'_>>, LedgerError> {
        if !self.prepare(head)? {
            return Ok(None);
        }
        self.header()?;
        let (offset, first_seq) = (self.offset, self.next);
        let checked = self.window.batch(self.shared.log_id, self.segment, self.segment_bytes, offset)?;
        let (header, root, body) = checked.map_err(|fault| LedgerError::Damaged {
            file: self.file.clone(),
            offset,
            expected: first_seq,
            what: fault.to_string(),
        })?;
        self.offset += header.extent_bytes();
        self.next = Seq(header.last_seq().0 + 1);
        Ok(Some(SeenBatch { file: &self.file, place: Place { segment: self.segment, offset, first_seq }, header, root, body }))
    }
}
