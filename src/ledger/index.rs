//! From what an entry is found by to the entry: an immutable sorted file per sealed segment, sorted sets in memory for the segment
//! being written.
//!
//! Nothing here is the truth: an index file that is missing or damaged is made again from its segment, and every hit is confirmed by
//! the entry itself. This file knows which segments to look into; `index_file` looks into one, and `index_format` knows the bytes.
use super::cursor::Cursor;
use super::handles::EachKeys;
use super::index_file::IndexFile;
use super::index_format::{hashes, Pair, Pairs, Run, Subject};
use super::log::Shared;
use super::places::Places;
use super::reader::visit;
use super::storage::{index_name, replace, Storage, StorageFile};
use super::LedgerError;
use crate::domain::{Entry, KeyId, Period, Seq, UnixMs};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, RwLockReadGuard};

/// Keys that are handed over together.
pub(super) const KEYS_TOGETHER_MAX: usize = 1 << 14;
/// How much of a segment is read, in bytes of batches, before the keys in it are handed over, however few there are.
const READ_TOGETHER_BYTES: usize = 1 << 20;
/// How much of a segment is read at once for indexing, in bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// Hits that are taken from an index at once.
const CANDIDATES_MAX: usize = 128;

/// What is looked for, and where.
pub(super) struct Wanted {
    pub run: Run,
    pub hash: u64,
    /// Only entries before this one.
    pub before: Seq,
    /// Sealed segments without entries of this time are passed over.
    pub accepted: Option<Period>,
    /// Sealed segments that are looked into at most, and then none after one whose index had to be made; `None` for all.
    pub segments_max: Option<usize>,
}

/// The index of one segment.
enum Segment<F> {
    File(IndexFile<F>),
    /// Just made, whether or not it could be written.
    Made(Pairs),
}

impl<F: StorageFile> Segment<F> {
    fn accepted(&self) -> Period {
        match self {
            Segment::File(file) => file.head().accepted,
            Segment::Made(pairs) => pairs.accepted,
        }
    }
}

/// The index over the whole log.
pub(super) struct Index<S: Storage> {
    shared: Arc<Shared<S>>,
    /// Where the sets of the active segment end; `None` before the first question.
    cursor: Option<Cursor<S>>,
    active: [BTreeSet<Pair>; Run::ALL.len()],
    /// When the entries of sealed segments were accepted, as far as it has been read.
    accepted: BTreeMap<u64, Period>,
    /// Up to this segment the files have been seen to exist, or could not be written.
    built_through: u64,
    /// Segments that could not be read when their index was to be made. Left to whoever asks: in idle moments the same damage would only be
    /// read again and again.
    unreadable: BTreeSet<u64>,
}

impl<S: Storage> Index<S> {
    pub(super) fn new(shared: Arc<Shared<S>>) -> Self {
        let (active, accepted, unreadable) = (Default::default(), BTreeMap::new(), BTreeSet::new());
        Self { shared, cursor: None, active, accepted, built_through: 0, unreadable }
    }

    fn places(&self) -> RwLockReadGuard<'_, Places> {
        self.shared.places.read().expect("no thread panics while it holds the places")
    }

    fn range(&self) -> (u64, u64) {
        self.places().range().expect("a log has at least one segment")
    }

    /// Offers every entry that may be the wanted one, newest first, until `each` breaks. If that ended early for want of segments that
    /// may be looked into, returns the entry before which nothing has been looked at.
    pub(super) fn search(
        &mut self,
        wanted: &Wanted,
        each: &mut dyn FnMut(Seq) -> Result<ControlFlow<()>, LedgerError>,
    ) -> Result<Option<Seq>, LedgerError> {
        // The head before the segments: then every entry up to the head is in one of them.
        let head = self.shared.head();
        let (first, last) = self.range();
        self.extend_active(last, head)?;
        let Some(newest) = self.places().locate(Seq(wanted.before.0.saturating_sub(1))) else { return Ok(None) };
        let mut segments_left = wanted.segments_max;
        for segment in (first..=newest.segment).rev() {
            if segment == last {
                if self.offer(None, segment, wanted, each)?.is_break() {
                    return Ok(None);
                }
                continue;
            }
            if !self.may_hold(segment, wanted) {
                continue;
            }
            if segments_left == Some(0) {
                return Ok(Some(self.first_of(segment + 1).min(wanted.before)));
            }
            let index = self.open_or_make(segment)?;
            self.unreadable.remove(&segment);
            segments_left = segments_left.map(|left| if matches!(index, Segment::Made(_)) { 0 } else { left - 1 });
            self.accepted.insert(segment, index.accepted());
            if self.may_hold(segment, wanted) && self.offer(Some(index), segment, wanted, each)?.is_break() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// False if it is known that no entry of the segment is of the wanted time.
    fn may_hold(&self, segment: u64, wanted: &Wanted) -> bool {
        let known = wanted.accepted.zip(self.accepted.get(&segment));
        known.map_or(true, |(wanted, accepted)| wanted.overlaps(*accepted))
    }

    /// Offers the hits of one segment; without an index, of the active one.
    fn offer(
        &self,
        index: Option<Segment<S::File>>,
        segment: u64,
        wanted: &Wanted,
        each: &mut dyn FnMut(Seq) -> Result<ControlFlow<()>, LedgerError>,
    ) -> Result<ControlFlow<()>, LedgerError> {
        let Wanted { run, hash, .. } = *wanted;
        let mut index = index;
        let start = self.first_of(segment);
        let mut end = u32::try_from(wanted.before.0.saturating_sub(start.0)).unwrap_or(u32::MAX);
        loop {
            let found = match &index {
                None => {
                    let range = Pair { hash, at: 0 }..Pair { hash, at: end };
                    self.active[run as usize].range(range).rev().take(CANDIDATES_MAX).map(|pair| pair.at).collect()
                }
                Some(Segment::Made(pairs)) => pairs.newest(run, hash, end, CANDIDATES_MAX),
                Some(Segment::File(file)) => match file.newest(run, hash, end, CANDIDATES_MAX) {
                    Ok(found) => found,
                    Err(error) => {
                        index = Some(Segment::Made(self.make(self.subject(segment), &error)?));
                        continue;
                    }
                },
            };
            for at in &found {
                if each(Seq(start.0 + u64::from(*at)))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            match found.last() {
                Some(last) if found.len() == CANDIDATES_MAX => end = *last,
                Some(_) | None => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    fn extend_active(&mut self, segment: u64, head: Seq) -> Result<(), LedgerError> {
        // Taken out, so that after an error the next question starts from the beginning of the segment.
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.segment() == segment => cursor,
            Some(_) | None => {
                self.active = Default::default();
                self.start_of(segment)?
            }
        };
        let start = self.first_of(segment);
        let active = &mut self.active;
        walk(&mut cursor, head, &mut |seq, entry| {
            let at = place_within(start, seq);
            for (run, hash) in hashes(&entry) {
                active[run as usize].insert(Pair { hash, at });
            }
        })?;
        self.cursor = Some(cursor);
        Ok(())
    }

    fn first_of(&self, segment: u64) -> Seq {
        self.places().segment_start(segment).expect("the segment is in the directory").first_seq
    }

    fn start_of(&self, segment: u64) -> Result<Cursor<S>, LedgerError> {
        let place = self.places().segment_start(segment);
        Cursor::at(&self.shared, place.expect("the segment is in the directory"), WINDOW_BYTES)
    }

    fn subject(&self, segment: u64) -> Subject {
        let (first, last) = self.places().sealed(segment).expect("another segment follows");
        Subject { log_id: self.shared.log_id, segment, first, last }
    }

    fn open(&self, subject: Subject) -> io::Result<IndexFile<S::File>> {
        IndexFile::open(self.shared.storage.open(&index_name(subject.segment))?, subject)
    }

    fn open_or_make(&self, segment: u64) -> Result<Segment<S::File>, LedgerError> {
        let subject = self.subject(segment);
        match self.open(subject) {
            Ok(file) => Ok(Segment::File(file)),
            Err(error) => Ok(Segment::Made(self.make(subject, &error)?)),
        }
    }

    /// Makes the index of a sealed segment and tries to write it; without a file it is made again when it is next needed. `cause`
    /// says why there was none.
    fn make(&self, subject: Subject, cause: &io::Error) -> Result<Pairs, LedgerError> {
        let name = index_name(subject.segment);
        let file = self.shared.storage.place(&name);
        if cause.kind() == io::ErrorKind::NotFound {
            tracing::info!(event = "index_made", %file, "making the index of a segment");
        } else {
            tracing::warn!(event = "index_made_anew", %file, error = %cause, "making the index of a segment anew");
        }
        let mut pairs = Pairs::new();
        walk(&mut self.start_of(subject.segment)?, subject.last, &mut |seq, entry| {
            pairs.add(place_within(subject.first, seq), &entry);
        })?;
        pairs.sort();
        if let Err(error) = replace(&self.shared.storage, &name, &pairs.encode(subject)) {
            tracing::warn!(event = "index_unwritten", %file, %error, "could not write the index of a segment");
        }
        Ok(pairs)
    }

    /// Lets go of the index file of a segment, which was found damaged: it is made again in an idle moment, or when it is asked.
    pub(super) fn discard(&mut self, segment: u64) -> io::Result<()> {
        self.built_through = self.built_through.min(segment.saturating_sub(1));
        self.shared.storage.remove(&index_name(segment))?;
        self.shared.storage.sync_directory()
    }

    /// Makes the first index file that is missing; whether there was one. A segment that cannot be read is an error once: the next call
    /// goes on behind it.
    pub(super) fn build_one(&mut self) -> Result<bool, LedgerError> {
        let (first, last) = self.range();
        for segment in first.max(self.built_through + 1)..last {
            if self.unreadable.contains(&segment) {
                continue;
            }
            let index = self.open_or_make(segment);
            self.built_through = segment;
            let made = match index {
                Ok(index) => matches!(index, Segment::Made(_)),
                Err(error) => {
                    self.unreadable.insert(segment);
                    return Err(error);
                }
            };
            if made {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hands over the keys of all entries before this one that were accepted at this time or later, and more: those of segments that have
    /// an index, the oldest first, each with the time in which the entries of its segment were accepted; and nothing for what is too
    /// old, so that the receiver sees it go on. Makes no index: where there is none, the segment is read, and keys are handed over
    /// piece by piece with the time of their piece. Clocks go back, so no segment tells anything about those before it.
    pub(super) fn keys_before(&self, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<(), LedgerError> {
        let (first, last) = self.range();
        for segment in (first..=last).filter(|segment| self.first_of(*segment) < end) {
            let file = if segment == last { None } else { self.open(self.subject(segment)).ok() };
            let told = match file {
                Some(file) if file.head().accepted.last < since => Some(each(&[], file.head().accepted)),
                Some(file) => told_from(&file, each),
                None => None,
            };
            let told = match told {
                Some(told) => told,
                None => self.read_keys(segment, end, since, each)?,
            };
            if told.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands over the keys of the entries of a segment that come before this one, while they are read: a slow disk is not to keep the
    /// receiver waiting for the whole segment.
    fn read_keys(&self, segment: u64, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<ControlFlow<()>, LedgerError> {
        let sealed = self.places().sealed(segment);
        let last = sealed.map_or_else(|| self.shared.head(), |(_, last)| last).min(Seq(end.0 - 1));
        let mut cursor = self.start_of(segment)?;
        let (mut keys, mut accepted, mut read_bytes) = (Vec::with_capacity(KEYS_TOGETHER_MAX), Period::EMPTY, 0);
        let mut hand_over = |keys: &mut Vec<KeyId>, accepted: &mut Period| {
            let wanted = if accepted.last < since { &[][..] } else { &keys[..] };
            let flow = each(wanted, *accepted);
            keys.clear();
            *accepted = Period::EMPTY;
            flow
        };
        while let Some(batch) = cursor.next_batch(last)? {
            read_bytes += batch.body.len();
            let flow = visit(&batch, |seq, entry| {
                if seq > last {
                    return ControlFlow::Continue(());
                }
                keys.push(KeyId::of(entry.owner(), entry.key()));
                accepted = accepted.and(Period { first: entry.ts(), last: entry.ts() });
                if keys.len() < KEYS_TOGETHER_MAX {
                    return ControlFlow::Continue(());
                }
                read_bytes = 0;
                hand_over(&mut keys, &mut accepted)
            })?;
            let flow = if flow.is_continue() && read_bytes >= READ_TOGETHER_BYTES {
                read_bytes = 0;
                hand_over(&mut keys, &mut accepted)
            } else {
                flow
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(hand_over(&mut keys, &mut accepted))
    }
}

/// Hands over the keys in an index file; `None` if it is damaged, after some of them perhaps.
fn told_from<F: StorageFile>(file: &IndexFile<F>, each: EachKeys<'_>) -> Option<ControlFlow<()>> {
    let (mut keys, mut flow) = (Vec::with_capacity(KEYS_TOGETHER_MAX), ControlFlow::Continue(()));
    let read = file.each_hash(Run::Keys, &mut |hash| {
        keys.push(KeyId(hash));
        if keys.len() == KEYS_TOGETHER_MAX {
            flow = each(&keys, file.head().accepted);
            keys.clear();
        }
        flow
    });
    let flow = if flow.is_break() { flow } else { each(&keys, file.head().accepted) };
    read.is_ok().then_some(flow)
}

fn place_within(first: Seq, seq: Seq) -> u32 {
    u32::try_from(seq.0 - first.0).expect("a segment has fewer than 2^32 bytes, so fewer entries")
}

/// Hands over all entries from the cursor up to the head.
fn walk<S: Storage>(cursor: &mut Cursor<S>, head: Seq, each: &mut dyn FnMut(Seq, Entry<'_>)) -> Result<(), LedgerError> {
    while let Some(batch) = cursor.next_batch(head)? {
        let _ = visit(&batch, |seq, entry| {
            each(seq, entry);
            ControlFlow::Continue(())
        })?;
    }
    assert!(cursor.next_seq() > head, "the walk ends at the head");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Faults, MemoryStorage, ReadFault};
    use super::super::sample::{entry, lane_batch_of, open};
    use super::super::storage::segment_name;
    use super::*;
    use crate::domain::{Nonce, Op, Question};
    use crate::ledger::layout::BLOCK_BYTES;
    use std::sync::Mutex;

    /// Counts the reads of one segment.
    struct Reads(u64);

    impl Faults for Reads {
        fn read(&mut self, file: &str, _: u64, _: usize) -> Option<ReadFault> {
            self.0 += u64::from(file == segment_name(2));
            None
        }
    }

    #[test]
    fn a_damaged_segment_is_read_once_in_idle_moments_and_those_behind_it_are_indexed() {
        let storage = MemoryStorage::new();
        let (mut log, ..) = open(&storage, 4 * BLOCK_BYTES as u64).unwrap();
        assert!(log.append(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "alice", 100, 0)])]).is_ok());
        for nonce in 1..10 {
            let spend = entry(Op::Transfer, "alice", "bob", 1, nonce);
            assert!(log.append(&[lane_batch_of(0, nonce + 1, &[spend])]).is_ok());
        }
        let (reader, reads) = (log.reader(), Arc::new(Mutex::new(Reads(0))));
        let indexed = || (1..=5).filter(|segment| storage.open(&index_name(*segment)).is_ok()).collect::<Vec<_>>();
        let spent = |nonce| reader.find(&Question::Debit { account: "alice".into(), nonce: Nonce(nonce) });
        storage.rot(&segment_name(2), 2 * BLOCK_BYTES as u64 + 300, 1);
        storage.set_faults(reads.clone());
        assert!(reader.index_one_segment().unwrap());
        let error = reader.index_one_segment().unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{error}");
        reads.lock().unwrap().0 = 0;
        while reader.index_one_segment().unwrap() {}
        assert_eq!((indexed(), reads.lock().unwrap().0), (vec![1, 3, 4], 0));
        // An index further to the front is made again without another look at it.
        reader.discard_index(1).unwrap();
        while reader.index_one_segment().unwrap() {}
        assert_eq!((indexed(), reads.lock().unwrap().0), (vec![1, 3, 4], 0));
        assert!(spent(3).is_err(), "whoever asks has it tried again");
        storage.rot(&segment_name(2), 2 * BLOCK_BYTES as u64 + 300, 1);
        assert_eq!((spent(3).unwrap().map(|found| found.seq), indexed()), (Some(Seq(4)), vec![1, 2, 3, 4]));
    }
}
