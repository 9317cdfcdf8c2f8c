//! The log opened for writing: one batch, one write, one sync. It rolls to the next segment by itself.
//!
//! Invariants: what `append` has returned is durable; after a failed write or sync nothing is appended any more. There is no
//! thread in here but the one that allocates segments ahead, and that one only if asked for.
use super::audit::Findings;
use super::batch::{assemble, body_bytes, sections, Position};
use super::cursor::Cursor;
use super::engine::{Appended, Engine, ReadBatch, Tenure};
use super::layout::{body_bytes_max, extent_bytes, SegmentHeader, BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use super::mark::{Mark, EPOCH_NAME};
use super::merge::Placed;
use super::places::{Place, Places};
use super::reader::Reader;
use super::spares::{spare_name, Attempts, Spares};
use super::stats::{CommitStats, StatsCell};
use super::storage::{segment_name, Storage, StorageFile};
use super::witness::Witness;
use super::LedgerError;
use crate::domain::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::domain::{LaneBatch, LogId, Root, Seq};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Instant;

/// How much is read at once when batches are read back, in bytes.
const READ_WINDOW_BYTES: usize = 1 << 20;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) segment_bytes: u64,
    pub(super) new_log_id: LogId,
}

impl Options {
    /// New segments get this size in bytes, rounded down to whole blocks; a new log gets a random identity.
    ///
    /// # Panics
    /// If the size is not within the configurable range: the configuration has checked it.
    pub fn new(segment_bytes: u64) -> Self {
        assert!((SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes), "a segment size of {segment_bytes} bytes");
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the operating system has randomness from its start on");
        Self::for_simulation(segment_bytes, LogId(id))
    }

    /// Without randomness and with segments as small as three blocks, so that tests and simulations roll often.
    pub fn for_simulation(segment_bytes: u64, new_log_id: LogId) -> Self {
        let segment_bytes = segment_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        assert!((SEGMENT_HEAD_BYTES + BLOCK_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&segment_bytes));
        Self { segment_bytes, new_log_id }
    }
}

/// What readers and watchers on other threads see of the log.
pub(super) struct Shared<S> {
    pub storage: S,
    pub log_id: LogId,
    /// The last durable entry. Stored after the sync, with release; whoever loads it with acquire can read up to there.
    pub head: AtomicU64,
    pub places: RwLock<Places>,
    /// The active segment has little room left.
    pub nearly_full: AtomicBool,
    /// It has less than half of its room left.
    pub half_full: AtomicBool,
    /// How the attempts to allocate the next segment went.
    pub attempts: Arc<Attempts>,
    /// What commits cost.
    pub stats: StatsCell,
    /// What the audit has found last.
    pub findings: Findings,
}

impl<S> Shared<S> {
    pub(super) fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// The first entry that is in the directory.
    pub(super) fn first(&self) -> Seq {
        let places = self.places.read().expect("no thread panics while it holds the places");
        places.first_seq().expect("a log has at least one segment")
    }

    pub(super) fn is_writable(&self) -> bool {
        !(self.nearly_full.load(Ordering::Relaxed) && self.attempts.starved())
    }
}

pub(super) struct Active<F> {
    pub file: F,
    pub index: u64,
    pub segment_bytes: u64,
    /// Where the next batch begins, in bytes.
    pub offset: u64,
}

/// Why a batch was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// There is no room for the next segment, or no file descriptor to make it with. Nothing was written; the same call may succeed
    /// later.
    NoRoom(std::io::Error),
    /// A write or sync failed. Whether the batch is durable is unknown, and the log takes no further one.
    Failed(LedgerError),
}

/// A log that this process alone may write.
pub struct Log<S: Storage> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) active: Active<S::File>,
    pub(super) head: Seq,
    pub(super) root: Root,
    pub(super) epoch: u64,
    pub(super) segment_bytes: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) failed: bool,
    /// Whether the file `epoch` names the segment that is written; after an opening without a new epoch it may not.
    pub(super) marked: bool,
    /// The head that a quiet moment has noted.
    pub(super) noted: Seq,
    pub(super) witness: Witness<S::File>,
    // Before the lock: the allocator must be gone before another process may open the log.
    pub(super) spares: Option<Spares<S>>,
    pub(super) _lock: S::Lock,
}

/// Writes the header into a spare and makes it the segment `header.index`, durably.
pub(super) fn link_segment<S: Storage>(storage: &S, file: &S::File, header: &SegmentHeader) -> Result<(), LedgerError> {
    let name = segment_name(header.index);
    let place = storage.place(&name);
    let both = header.encode().repeat(2);
    file.write_at(&both, 0).map_err(LedgerError::io(place.as_str(), "write the segment header"))?;
    file.sync().map_err(LedgerError::io(place.as_str(), "sync the segment header"))?;
    storage.rename(&spare_name(), &name).map_err(LedgerError::io(place.as_str(), "name the segment"))?;
    storage.sync_directory().map_err(LedgerError::io(storage.place(""), "sync the directory"))
}

impl<S: Storage> Log<S> {
    /// Appends these lane batches as one batch and makes it durable: one write, one sync, or a little more when a segment is full.
    ///
    /// # Panics
    /// If the body is larger than [`Log::body_bytes_max`] or the batches do not follow each other: the caller's mistake.
    pub fn append(&mut self, parts: &[LaneBatch]) -> Result<Placed, AppendError> {
        let body_bytes = body_bytes(parts);
        assert!(body_bytes <= self.body_bytes_max(), "a body of {body_bytes} bytes");
        let extent = extent_bytes(body_bytes);
        self.refuse_if_failed("append").map_err(AppendError::Failed)?;
        if self.active.offset + extent > self.active.segment_bytes {
            self.roll()?;
        } else if !self.marked {
            self.mark_now()?;
        }
        let position = Position {
            log_id: self.shared.log_id,
            segment: self.active.index,
            offset: self.active.offset,
            first_seq: Seq(self.head.0 + 1),
            prev: self.root,
            epoch: self.epoch,
        };
        let started = Instant::now();
        self.shared.stats.commit.begin();
        let root = assemble(parts, &position, &mut self.buffer);
        assert_eq!(self.buffer.len() as u64, extent);
        self.write(&position).map_err(|error| self.fail(error))?;
        let count: u64 = parts.iter().map(|part| u64::from(part.count)).sum();
        let bytes: u64 = parts.iter().map(|part| part.bytes.len() as u64).sum();
        self.shared.stats.commit.end();
        self.shared.stats.record(started.elapsed(), count, bytes);
        (self.head, self.root) = (Seq(self.head.0 + count), root);
        self.active.offset += extent;
        let mark = self.mark(self.active.index);
        self.witness.note(&mark);
        let Position { segment, offset, first_seq, .. } = position;
        self.shared.places.write().expect("no thread panics while it holds the places").note_batch(Place {
            segment,
            offset,
            first_seq,
        });
        self.shared.head.store(self.head.0, Ordering::Release);
        self.note_room();
        Ok(Placed { first_seq, root })
    }

    fn write(&self, position: &Position) -> Result<(), LedgerError> {
        let place = || self.shared.storage.place(&segment_name(position.segment));
        self.active
            .file
            .write_at(&self.buffer, position.offset)
            .map_err(|error| LedgerError::io(place(), "write the batch")(error))?;
        self.active.file.sync().map_err(|error| LedgerError::io(place(), "sync the batch")(error))
    }

    fn fail(&mut self, error: LedgerError) -> AppendError {
        self.failed = true;
        AppendError::Failed(error)
    }

    /// Begins the next segment. What needs room comes first, so that without it nothing has changed; nothing after that opens a file. `epoch` names the segment
    /// before the first batch is written to it, so that entries in it cannot be lost with it unnoticed; and after its name is
    /// durable, so that no crash leaves a mark that asks for a segment which never was.
    fn roll(&mut self) -> Result<(), AppendError> {
        self.prepare_mark(self.active.index + 1)?;
        let spare = self.spares.as_mut().expect("set but while it is exchanged").take().map_err(AppendError::NoRoom)?;
        self.begin_segment(spare).map_err(|error| self.fail(error))
    }

    /// Names the segment in `epoch`, as an opening with a new epoch does, before anything is written to it.
    fn mark_now(&mut self) -> Result<(), AppendError> {
        self.prepare_mark(self.active.index)?;
        Mark::install(&self.shared.storage).map_err(|error| self.fail(error))?;
        self.marked = true;
        Ok(())
    }

    /// Writes the mark that names this segment aside: of all that the next batch needs, what takes room and a file descriptor.
    fn prepare_mark(&mut self, segment: u64) -> Result<(), AppendError> {
        let prepared = self.mark(segment).prepare(&self.shared.storage);
        match prepared {
            Ok(()) => {
                self.shared.attempts.note_mark(true);
                Ok(())
            }
            Err(error) if is_lack_of_room(&error) || is_lack_of_descriptors(&error) => {
                self.shared.attempts.note_mark(false);
                Err(AppendError::NoRoom(error))
            }
            Err(error) => {
                let place = self.shared.storage.place(EPOCH_NAME);
                Err(self.fail(LedgerError::io(place, "prepare the epoch file")(error)))
            }
        }
    }

    fn begin_segment(&mut self, spare: S::File) -> Result<(), LedgerError> {
        let header = SegmentHeader {
            log_id: self.shared.log_id,
            index: self.active.index + 1,
            segment_bytes: self.segment_bytes,
            first_seq: Seq(self.head.0 + 1),
            prev: self.root,
        };
        link_segment(&self.shared.storage, &spare, &header)?;
        Mark::install(&self.shared.storage)?;
        self.marked = true;
        self.spares.as_mut().expect("set but while it is exchanged").linked();
        tracing::debug!(segment = header.index, first_seq = header.first_seq.0, "began a segment");
        let first = Place { segment: header.index, offset: SEGMENT_HEAD_BYTES, first_seq: header.first_seq };
        let mut places = self.shared.places.write().expect("no thread panics while it holds the places");
        places.note_segment(first, header.segment_bytes);
        self.active =
            Active { file: spare, index: header.index, segment_bytes: header.segment_bytes, offset: SEGMENT_HEAD_BYTES };
        Ok(())
    }

    pub(super) fn note_room(&self) {
        let two_commits = 2 * extent_bytes(self.body_bytes_max());
        let room = self.active.segment_bytes - self.active.offset;
        self.shared.nearly_full.store(room < two_commits.min(self.active.segment_bytes / 4), Ordering::Relaxed);
        self.shared.half_full.store(room < self.active.segment_bytes / 2, Ordering::Relaxed);
    }

    /// No room for the next append, however much is left of the segment.
    pub(super) fn note_full(&self) {
        self.shared.nearly_full.store(true, Ordering::Relaxed);
        self.shared.half_full.store(true, Ordering::Relaxed);
    }

    /// Lets a thread of its own allocate segments ahead from now on.
    pub fn allocate_ahead(&mut self) -> Result<(), LedgerError> {
        let spares = self.spares.take().expect("set but while it is exchanged");
        let place = self.shared.storage.place("");
        self.spares = Some(spares.into_ahead().map_err(LedgerError::io(place, "start the thread that allocates segments"))?);
        Ok(())
    }

    /// One attempt at the next segment, unless it is there: what that thread does, for drivers that have none. How it went is seen by
    /// whoever watches.
    pub fn attempt_ahead(&mut self) {
        self.spares.as_mut().expect("set but while it is exchanged").attempt();
    }

    /// The largest body that one append takes, in bytes, section headers included.
    pub fn body_bytes_max(&self) -> usize {
        body_bytes_max(self.segment_bytes.min(self.active.segment_bytes))
    }

    /// The last durable entry and the chain hash after it.
    pub fn head(&self) -> (Seq, Root) {
        (self.head, self.root)
    }

    /// The identity of the log.
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    /// The present tenure, with the head as it is now. Its epoch is 0 in a log that nobody has acquired yet.
    pub fn tenure(&self) -> Tenure {
        Tenure { epoch: self.epoch, head: self.head, root: self.root }
    }

    fn refuse_if_failed(&self, doing: &'static str) -> Result<(), LedgerError> {
        if !self.failed {
            return Ok(());
        }
        let source = std::io::Error::other("an earlier write or sync failed; the process must end and recover");
        Err(LedgerError::Io { place: self.shared.storage.place(""), doing, source })
    }

    /// A handle for reading what is durable, from any thread.
    pub fn reader(&self) -> Reader<S> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// A handle for watching the log, from any thread.
    pub fn watch(&self) -> Watch<S> {
        Watch { shared: Arc::clone(&self.shared) }
    }

    /// Notes how far the log reaches, so that the next opening can tell if anything of it is lost, and lets go of it.
    pub fn close(self) -> Result<(), LedgerError> {
        assert!(!self.failed, "a log that failed is not closed in order");
        self.mark(self.active.index).write(&self.shared.storage)
    }

    fn mark(&self, segment: u64) -> Mark {
        Mark { log_id: self.shared.log_id, epoch: self.epoch, head: self.head, root: self.root, segment }
    }
}

impl<S: Storage> Engine for Log<S> {
    fn acquire(&mut self, held: Option<u64>) -> Result<Tenure, LedgerError> {
        self.refuse_if_failed("take a new epoch")?;
        if let Some(own) = held.filter(|held| *held < self.epoch) {
            return Err(LedgerError::Fenced { place: self.place(), own, newer: self.epoch });
        }
        let mark = Mark { epoch: self.epoch + 1, ..self.mark(self.active.index) };
        mark.write(&self.shared.storage)?;
        (self.epoch, self.marked) = (mark.epoch, true);
        // So there is room for a mark, and what could not be appended may be tried again: nobody would, if its writer is gone and the
        // next one is told that there is no room.
        self.shared.attempts.note_mark(true);
        self.note_room();
        Ok(self.tenure())
    }

    fn append(&mut self, epoch: u64, first_seq: Seq, prev: Root, parts: &[LaneBatch]) -> Appended {
        if epoch != self.epoch {
            return Appended::Fenced { epoch: self.epoch };
        }
        assert_eq!((first_seq.0, prev), (self.head.0 + 1, self.root), "the one writer of this epoch knows where the log ends");
        match Log::append(self, parts) {
            Ok(placed) => Appended::Acked(placed),
            Err(AppendError::NoRoom(error)) => {
                self.note_full();
                Appended::NoRoom(error)
            }
            Err(AppendError::Failed(error)) => Appended::Unknown(error),
        }
    }

    fn note(&mut self) -> Result<(), LedgerError> {
        self.refuse_if_failed("note how far the log reaches")?;
        if self.noted != self.head {
            self.mark(self.active.index).write(&self.shared.storage)?;
            self.noted = self.head;
        }
        Ok(())
    }

    fn read(&mut self, from: Seq, each: &mut dyn FnMut(ReadBatch<'_>) -> ControlFlow<()>) -> Result<(), LedgerError> {
        let from = from.max(Seq(1));
        if from > self.head {
            return Ok(());
        }
        let mut cursor = Cursor::before(&self.shared, from, READ_WINDOW_BYTES)?;
        cursor.skip_to(from, self.head)?;
        while let Some(batch) = cursor.next_batch(self.head)? {
            let sections = sections(&batch.header, batch.body).map_err(|fault| LedgerError::Damaged {
                file: batch.file.to_owned(),
                offset: batch.place.offset,
                expected: batch.place.first_seq,
                what: fault.to_string(),
            })?;
            let (first_seq, prev, root) = (batch.place.first_seq, batch.header.prev, batch.root);
            if each(ReadBatch { first_seq, prev, root, sections }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn truncate_before(&mut self, seq: Seq) -> Result<(), LedgerError> {
        let first = self.shared.first();
        if seq <= first {
            return Ok(());
        }
        // Only with an archive at hand, and with snapshots and the history looked at, is it known that nothing is lost.
        let what = format!(
            "entries {} to {} stay, because a log that is written lets go of nothing; stop the server, and `ronctl ledger archive` \
             moves the segments that snapshots stand in for",
            first.0,
            seq.0 - 1
        );
        Err(LedgerError::Declined { place: self.place(), what })
    }

    fn body_bytes_max(&self) -> usize {
        Log::body_bytes_max(self)
    }

    fn place(&self) -> String {
        self.shared.storage.place("")
    }

    fn close(self) -> Result<(), LedgerError> {
        Log::close(self)
    }
}

/// What other threads see of a log that is being written.
pub struct Watch<S: Storage> {
    shared: Arc<Shared<S>>,
}

impl<S: Storage> Clone for Watch<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: Storage> Watch<S> {
    /// The last durable entry.
    pub fn head(&self) -> Seq {
        self.shared.head()
    }

    /// The identity of the log.
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    /// False while the segment being written is nearly full and there is no room on the disk for the next one. What is queued then
    /// waits and is committed as soon as there is room again.
    pub fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }

    /// True while there is no room on the disk for the next segment, and less than half of it in the one being written.
    pub fn is_scarce(&self) -> bool {
        self.shared.half_full.load(Ordering::Relaxed) && self.shared.attempts.starved()
    }

    /// Whether the segment being written is half full. Only then can room on the disk decide what [`Watch::is_scarce`] and
    /// [`Watch::is_writable`] say.
    pub fn is_half_full(&self) -> bool {
        self.shared.half_full.load(Ordering::Relaxed)
    }

    /// Attempts to allocate the next segment that have failed since the log was opened.
    pub fn failed_allocations(&self) -> u64 {
        self.shared.attempts.failed()
    }

    /// The figures since the last call.
    pub fn take_stats(&self) -> CommitStats {
        self.shared.stats.take()
    }

    /// How long the commit under way has taken so far; nothing if there is none.
    pub fn commit_age(&self) -> std::time::Duration {
        self.shared.stats.commit.time()
    }
}

pub(crate) fn is_lack_of_room(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// The process has too many files open, or the system has.
fn is_lack_of_descriptors(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
