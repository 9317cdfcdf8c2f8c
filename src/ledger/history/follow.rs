//! The history of one log: it follows the durable head in bounded steps and answers with proofs.
//!
//! Invariants: it never covers a batch that is not durable, and no proof leaves that does not verify. The file of nodes is not
//! believed: when it is opened, what covers the last batch is compared with the segment; a proof that does not lead to the root
//! in memory means that the file is damaged, and the whole is made again from the segments; if the first of them are gone, from the
//! peaks of a snapshot on.
use super::base::Base;
use super::leaf::{leaf_of, Entries};
use super::mmr::{additions, mountains, node_count, path, Peaks, Subtree};
use super::store::{Node, NodeFile, HISTORY_NAME};
use super::verify::{verify_consistency, verify_inclusion};
use crate::domain::{Consistency, Digest, Found, HistoryAnswer, HistoryRoot, Inclusion, Path, Proof, Seq, Unproven};
use crate::ledger::cursor::Cursor;
use crate::ledger::layout::BLOCK_BYTES;
use crate::ledger::log::Shared;
use crate::ledger::snapshot::snapshots;
use crate::ledger::storage::{Storage, StorageFile};
use crate::ledger::LedgerError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of a segment is read at once while following, in bytes.
const WINDOW_BYTES: usize = 256 << 10;

/// How many entries the history takes in at most before a question about it is answered, and in an idle moment.
pub const STEP_ENTRIES_MAX: u64 = 32_768;

/// How long the history rests in idle moments once the ledger could not be read: what is damaged stays so for longer than a moment.
const REST_AFTER_ERROR: Duration = Duration::from_secs(60);

/// Why the file of nodes did not yield what was asked of it.
enum Fault {
    /// It holds something else than the ledger says.
    File(&'static str),
    /// It cannot be read.
    Io(io::Error),
    /// The ledger itself cannot be read.
    Ledger(LedgerError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<LedgerError> for Fault {
    fn from(error: LedgerError) -> Self {
        Fault::Ledger(error)
    }
}

/// The accumulator over the durable batches.
pub(in crate::ledger) struct History<S: Storage> {
    shared: Arc<Shared<S>>,
    /// `None` until it is first needed, or if it could not be made.
    nodes: Option<NodeFile<S::File>>,
    peaks: Peaks,
    through: Seq,
    /// Behind the last batch that is covered; `None` after an error.
    cursor: Option<Cursor<S>>,
    /// It was told that the file cannot be written.
    told: bool,
    /// What it would go on from, as long as that cannot be written: finding it takes the reading of a whole snapshot.
    base: Option<Base>,
    /// The snapshots of which none has what it could go on from.
    without: Option<Vec<Seq>>,
    /// When and behind which entry it last failed in an idle moment.
    failed: Option<(Instant, Seq)>,
}

impl<S: Storage> History<S> {
    pub fn new(shared: Arc<Shared<S>>) -> Self {
        Self {
            shared,
            nodes: None,
            peaks: Peaks::default(),
            through: Seq(0),
            cursor: None,
            told: false,
            base: None,
            without: None,
            failed: None,
        }
    }

    /// The peaks of what is covered, and its last entry.
    pub fn peaks(&self) -> (&Peaks, Seq) {
        (&self.peaks, self.through)
    }

    fn root(&self) -> HistoryRoot {
        let (size, through) = (self.peaks.size(), self.through);
        HistoryRoot { size, through, hash: self.peaks.root(self.shared.log_id, through) }
    }

    /// Takes in further batches until they have so many entries or the durable head is reached; whether more are left that can be
    /// taken in at once. What cannot be written is taken in later.
    pub fn advance(&mut self, entries_max: u64) -> Result<bool, LedgerError> {
        let head = self.shared.head();
        if self.nodes.is_none() {
            self.open(head)?;
        }
        let Some(nodes) = &self.nodes else { return Ok(false) };
        if self.through >= head {
            return Ok(false);
        }
        let next = Seq(self.through.0 + 1);
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => Cursor::before_batch_of(&self.shared, next, head, WINDOW_BYTES)?,
        };
        let (mut peaks, mut through, mut made) = (self.peaks.clone(), self.through, Vec::new());
        while through.0 - self.through.0 < entries_max {
            let Some(batch) = cursor.next_batch(head)? else { break };
            let last = batch.header.last_seq();
            let leaf = leaf_of(&batch)?;
            peaks.append(leaf, &mut |digest| made.push(Node { digest, last }));
            through = last;
        }
        if let Err(error) = nodes.write(node_count(self.peaks.size()), &made) {
            self.warn(&error);
            return Ok(false);
        }
        (self.peaks, self.through, self.cursor, self.told) = (peaks, through, Some(cursor), false);
        Ok(through < head)
    }

    /// As [`History::advance`], but after an error it rests before it tries the same entries again. A question does not wait for that.
    pub fn advance_in_idle(&mut self, entries_max: u64, now: Instant) -> Result<bool, LedgerError> {
        let through = self.through;
        let rests = |(at, behind): (Instant, Seq)| behind == through && now.saturating_duration_since(at) < REST_AFTER_ERROR;
        if self.failed.is_some_and(rests) {
            return Ok(false);
        }
        let advanced = self.advance(entries_max);
        // What is in an archive is looked for again at once: that reads no segment.
        let failed = matches!(&advanced, Err(error) if !matches!(error, LedgerError::Archived { .. }));
        self.failed = failed.then_some((now, self.through));
        advanced
    }

    /// Goes on where the file ends, or begins anew if it is missing, damaged or foreign.
    fn open(&mut self, head: Seq) -> Result<(), LedgerError> {
        let opened = NodeFile::open(&self.shared.storage, self.shared.log_id).map_err(Fault::Io);
        match opened.and_then(|(nodes, size)| Ok((self.checked(&nodes, size, head)?, nodes))) {
            Ok(((peaks, through), nodes)) => {
                (self.peaks, self.through, self.cursor, self.nodes) = (peaks, through, None, Some(nodes));
            }
            Err(Fault::Ledger(error)) => return Err(error),
            Err(Fault::File(what)) => self.begin_anew(what)?,
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => self.begin_anew("there is no such file yet")?,
            Err(Fault::Io(error)) => self.begin_anew(&error.to_string())?,
        }
        Ok(())
    }

    /// Drops everything; the next steps make it again from the segments. If the first of them are gone, it goes on behind the oldest
    /// snapshot that has peaks; if there is none, the file stays as it is, and nothing can be proven.
    fn begin_anew(&mut self, why: &str) -> Result<(), LedgerError> {
        let (file, first) = (self.shared.storage.place(HISTORY_NAME), self.shared.first());
        (self.nodes, self.peaks, self.through, self.cursor) = (None, Peaks::default(), Seq(0), None);
        let base = match first {
            Seq(1) => Some(Base::default()),
            _ => self.base_of_snapshot()?,
        };
        let base = base.ok_or_else(|| LedgerError::Archived { place: self.shared.storage.place(""), first })?;
        let (peaks, through) = (base.peaks.clone(), base.through);
        if self.shared.head() == Seq(0) {
            // A ledger without entries has nothing to make again: that is a first start and no loss.
            tracing::debug!(%file, "the history begins with the ledger");
        } else if !self.told && through == Seq(0) {
            tracing::info!(event = "history_begun_anew", %file, why, "making the history from the segments");
        } else if !self.told {
            tracing::warn!(
                event = "history_shortened", %file, why, through = through.0,
                "the history goes on from a snapshot; what is before it cannot be proven"
            );
        }
        match NodeFile::create(&self.shared.storage, self.shared.log_id, base.clone()) {
            Ok(nodes) => (self.nodes, self.peaks, self.through) = (Some(nodes), peaks, through),
            Err(error) => {
                self.base = Some(base);
                self.warn(&error);
            }
        }
        Ok(())
    }

    /// What it can go on from. Read once, not at every idle moment and every question: of snapshots that do not have it only other
    /// snapshots can.
    fn base_of_snapshot(&mut self) -> Result<Option<Base>, LedgerError> {
        let (shared, head) = (&self.shared, self.shared.head());
        if let Some(base) = self.base.take() {
            if base.fits(shared, head)? {
                return Ok(Some(base));
            }
        }
        let names = shared.storage.list().map_err(LedgerError::io(shared.storage.place(""), "look for snapshots"))?;
        let there = snapshots(&names);
        if self.without.as_ref() == Some(&there) {
            return Ok(None);
        }
        let found = Base::of_snapshot(shared, &there, head)?;
        self.without = found.is_none().then_some(there);
        Ok(found)
    }

    /// Says once, until it works again, that there is no way to write.
    fn warn(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            let file = self.shared.storage.place(HISTORY_NAME);
            tracing::warn!(
                event = "history_unwritten", %file, %error,
                "could not write the history; there are no proofs of later entries until that works"
            );
        }
    }

    /// The peaks over as many batches as the file has whole, at most `size`, once the last of them was compared with the segment.
    fn checked(&self, nodes: &NodeFile<S::File>, mut size: u64, head: Seq) -> Result<(Peaks, Seq), Fault> {
        let base = nodes.base();
        if base.peaks.size() > 0 && self.shared.first() == Seq(1) {
            return Err(Fault::File("it lacks what the segments have again"));
        }
        if size == 0 {
            // It was begun with the ledger, and the process ended before it came to the first entries.
            return Err(Fault::File("it has no entry yet"));
        }
        // The nodes of a range without its last batch are among those of the range: so the end that a crash has left out is cut.
        while let Some(bad) = mountains(size).find(|mountain| nodes.top(*mountain).is_err()) {
            size = bad.start + (1 << bad.height) - 1;
        }
        if size == 0 {
            return Err(Fault::File("it covers nothing"));
        }
        if size == base.peaks.size() {
            let fits = base.fits(&self.shared, head)?;
            let here = fits.then(|| (base.peaks.clone(), base.through));
            return here.ok_or(Fault::File("it begins behind other entries than the ledger has"));
        }
        let (first, leaf) = (self.first_of(nodes, size - 1)?, nodes.leaf(size - 1)?);
        if first > leaf.last || leaf.last > head {
            return Err(Fault::File("it covers other entries than the ledger has"));
        }
        if first < self.shared.first() {
            return Err(Fault::File("it ends before the first segment that is there"));
        }
        let mut cursor = Cursor::before_batch_of(&self.shared, first, head, BLOCK_BYTES)?;
        let batch = cursor.next_batch(head)?.expect("the entry is durable, so its batch is not behind the head");
        let same = (batch.header.first_seq, batch.header.last_seq()) == (first, leaf.last);
        if !same || leaf_of(&batch)? != leaf.digest {
            return Err(Fault::File("its last batch is another one than that of the ledger"));
        }
        let hashes = mountains(size).map(|mountain| nodes.top(mountain));
        let peaks = Peaks::new(size, hashes.collect::<io::Result<_>>()?).expect("one peak for each mountain");
        Ok((peaks, leaf.last))
    }

    /// The first entry of a batch behind the base.
    fn first_of(&self, nodes: &NodeFile<S::File>, batch: u64) -> io::Result<Seq> {
        Ok(Seq(nodes.end_of(batch)?.0.saturating_add(1)))
    }

    /// The current root.
    pub fn current(&self, wanted: Seq) -> Result<HistoryRoot, Unproven> {
        if self.through < wanted || self.nodes.is_none() {
            return Err(Unproven::Behind);
        }
        Ok(self.root())
    }

    /// The entry with its place in the history of so many batches, or the current one.
    pub fn prove(&mut self, size: Option<u64>, found: Found) -> Result<HistoryAnswer, LedgerError> {
        let place = match self.nodes.as_ref().filter(|_| found.seq <= self.through) {
            None => Ok(Err(Unproven::Behind)),
            Some(nodes) if found.seq <= nodes.base().through => Ok(Err(archived(nodes))),
            Some(nodes) => self.inclusion(nodes, size, &found),
        };
        Ok(HistoryAnswer::Proof(found, self.believed(place)?))
    }

    /// How the root of `to` batches continues that of `from`.
    pub fn continued(&mut self, from: u64, to: u64) -> Result<HistoryAnswer, LedgerError> {
        let current = self.peaks.size();
        let proof = match &self.nodes {
            None => Ok(Err(Unproven::Behind)),
            Some(_) if from > to => Ok(Err(Unproven::WrongOrder)),
            Some(_) if from == 0 || to > current => Ok(Err(Unproven::NoSuchSize { current })),
            Some(nodes) if from < nodes.base().peaks.size() => Ok(Err(archived(nodes))),
            Some(nodes) => self.consistency(nodes, from, to).map(Ok),
        };
        Ok(HistoryAnswer::Consistency(self.believed(proof)?))
    }

    /// What the file yielded; if it is not to be believed, the history begins anew and whoever asked has to come again.
    fn believed<T>(&mut self, outcome: Result<Result<T, Unproven>, Fault>) -> Result<Result<T, Unproven>, LedgerError> {
        match outcome {
            Ok(answer) => return Ok(answer),
            Err(Fault::Ledger(error)) => return Err(error),
            Err(Fault::File(what)) => self.begin_anew(what)?,
            Err(Fault::Io(error)) => self.begin_anew(&error.to_string())?,
        }
        Ok(Err(Unproven::Behind))
    }

    fn inclusion(
        &self,
        nodes: &NodeFile<S::File>,
        size: Option<u64>,
        found: &Found,
    ) -> Result<Result<Inclusion, Unproven>, Fault> {
        let current = self.peaks.size();
        let size = size.unwrap_or(current);
        let batch = self.batch_of(nodes, found.seq)?;
        if size == 0 || size > current {
            return Ok(Err(Unproven::NoSuchSize { current }));
        }
        if batch >= size {
            return Ok(Err(Unproven::NotReached { size_min: batch + 1 }));
        }
        let first_seq = self.first_of(nodes, batch)?;
        let head = self.shared.head();
        let mut cursor = Cursor::before_batch_of(&self.shared, found.seq, head, BLOCK_BYTES)?;
        let seen = cursor.next_batch(head)?.expect("the entry is durable, so its batch is not behind the head");
        let entries = Entries::of(&seen)?;
        let index = found.seq.0.checked_sub(first_seq.0).filter(|index| *index < entries.count());
        let index = index.ok_or(Fault::File("it places the entry in another batch"))?;
        let in_history = self.path(nodes, batch, size)?;
        let root = self.root_of(nodes, size)?;
        let inclusion = Inclusion { first_seq, entries: entries.count(), in_batch: entries.path(index), batch, in_history, root };
        let proof = Proof { log_id: self.shared.log_id, found: found.clone(), inclusion };
        verify_inclusion(&proof).map_err(|_| Fault::File("its hashes do not lead from the entry to the root"))?;
        Ok(Ok(proof.inclusion))
    }

    /// The batch that holds a covered entry.
    fn batch_of(&self, nodes: &NodeFile<S::File>, seq: Seq) -> io::Result<u64> {
        let (mut low, mut high) = (nodes.base().peaks.size(), self.peaks.size());
        while low < high {
            let middle = low + (high - low) / 2;
            if nodes.leaf(middle)?.last < seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The peaks of so many batches; `None` if the file does not have them, or not right.
    pub fn peaks_of(&self, size: u64) -> Option<Peaks> {
        let nodes = self.nodes.as_ref().filter(|nodes| size >= nodes.base().peaks.size())?;
        if size >= self.peaks.size() {
            return (size == self.peaks.size()).then(|| self.peaks.clone());
        }
        let to_current = self.continuation(nodes, size, self.root()).ok().filter(|proof| verify_consistency(proof).is_ok())?;
        Peaks::new(size, to_current.peaks)
    }

    fn path(&self, nodes: &NodeFile<S::File>, batch: u64, size: u64) -> io::Result<Path> {
        path(batch, size, &mut |subtree| nodes.top(subtree))
    }

    /// The root of so many batches, which the current one is shown to continue.
    fn root_of(&self, nodes: &NodeFile<S::File>, size: u64) -> Result<HistoryRoot, Fault> {
        if size == self.peaks.size() {
            return Ok(self.root());
        }
        let to_current = self.continuation(nodes, size, self.root())?;
        verify_consistency(&to_current).map_err(|_| Fault::File("the current root does not continue an earlier one"))?;
        Ok(to_current.from)
    }

    fn consistency(&self, nodes: &NodeFile<S::File>, from: u64, to: u64) -> Result<Consistency, Fault> {
        let to = self.root_of(nodes, to)?;
        let proof = self.continuation(nodes, from, to)?;
        verify_consistency(&proof).map_err(|_| Fault::File("a root does not continue an earlier one"))?;
        Ok(proof)
    }

    /// What leads from the root of so many batches, as the file has it, to a later one.
    fn continuation(&self, nodes: &NodeFile<S::File>, from: u64, to: HistoryRoot) -> Result<Consistency, Fault> {
        let top = |subtree: Subtree| nodes.top(subtree);
        let hashes: Vec<Digest> = mountains(from).map(top).collect::<io::Result<_>>()?;
        let peaks = Peaks::new(from, hashes.clone()).expect("one peak for each mountain");
        let (through, log_id) = (nodes.end_of(from)?, self.shared.log_id);
        let root = HistoryRoot { size: from, through, hash: peaks.root(log_id, through) };
        let additions = additions(from, to.size).map(top).collect::<io::Result<_>>()?;
        Ok(Consistency { log_id, from: root, to, peaks: hashes, additions })
    }
}

fn archived<F: StorageFile>(nodes: &NodeFile<F>) -> Unproven {
    Unproven::Archived { size_min: nodes.base().peaks.size() }
}
