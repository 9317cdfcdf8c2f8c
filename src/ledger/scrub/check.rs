//! Whether one file is what was written: every hash in it, and what must be zero. It is read past the cache of the system where that can
//! be done, because the cache may have what the disk has lost.
//!
//! What was found is for the caller to act on.
use crate::domain::{LogId, Root, Seq};
use crate::ledger::batch::{check_order, Position};
use crate::ledger::index_format::{Head, Run, Subject};
use crate::ledger::layout::{is_zero, SegmentHeader, BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use crate::ledger::snapshot::{snapshot_name, Snapshot};
use crate::ledger::storage::{index_name, segment_name, Storage, StorageFile};
use crate::ledger::window::Window;
use crate::ledger::LedgerError;
use std::io;

/// How much of a segment or an index is looked at at once, in bytes; whole blocks.
const WINDOW_BYTES: usize = 1 << 20;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Fault {
    /// Where, in bytes, if that can be said.
    pub offset: u64,
    pub what: String,
    /// The system has refused for a reason that is not the file's, such as too many open files.
    pub unjudged: bool,
}

/// What reading a file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Verdict {
    Good,
    /// There is no such file.
    Gone,
    Damaged(Fault),
    /// The system has refused for another reason, such as too many open files: nothing is known.
    Unjudged(String),
}

/// Whether an answer of the system says something about the file, and not about this process.
fn is_about_the_file(error: &io::Error) -> bool {
    use rustix::io::Errno;
    !matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN))
}

impl From<Result<(), Fault>> for Verdict {
    fn from(checked: Result<(), Fault>) -> Self {
        match checked {
            Ok(()) => Verdict::Good,
            Err(Fault { unjudged: true, what, .. }) => Verdict::Unjudged(what),
            Err(fault) => Verdict::Damaged(fault),
        }
    }
}

fn fault(offset: u64, what: impl ToString) -> Fault {
    Fault { offset, what: what.to_string(), unjudged: false }
}

fn refused(offset: u64, what: &str, error: &io::Error) -> Fault {
    Fault { unjudged: !is_about_the_file(error), ..fault(offset, format!("it cannot be {what}: {error}")) }
}

fn unreadable(offset: u64) -> impl Fn(LedgerError) -> Fault {
    move |error| match error {
        LedgerError::Io { source, .. } => refused(offset, "read", &source),
        other => fault(offset, other),
    }
}

/// What the directory of the log says of a segment that another one follows, or of the one that is being written, as far as it is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub log_id: LogId,
    pub index: u64,
    pub segment_bytes: u64,
    pub first: Seq,
    pub last: Seq,
}

fn open<S: Storage>(storage: &S, name: &str, window_bytes: usize) -> io::Result<Result<Window<S::File>, Fault>> {
    let window = Window::new(storage.open(name)?, storage.place(name), window_bytes);
    Ok(window.past_the_cache(storage.open_unbuffered(name)).map_err(unreadable(0)))
}

/// Opens a segment, which must be there.
fn open_segment<S: Storage>(storage: &S, index: u64, window_bytes: usize) -> Result<Window<S::File>, Fault> {
    open(storage, &segment_name(index), window_bytes).map_err(|error| refused(0, "opened", &error))?
}

fn block_at<F: StorageFile>(window: &mut Window<F>, offset: u64) -> Result<&[u8; BLOCK_BYTES], Fault> {
    let block = window.get(offset, BLOCK_BYTES).map_err(unreadable(offset))?;
    Ok(block.try_into().expect("a whole block was asked for"))
}

/// Reads a sealed segment: both copies of its header, every batch, the zeros behind them, and that the next segment continues it.
pub(super) fn segment<S: Storage>(storage: &S, sealed: &Sealed) -> Verdict {
    check_segment(storage, sealed).into()
}

/// Reads the durable part of the segment that is being written: both copies of its header, and every batch.
pub(super) fn active<S: Storage>(storage: &S, active: &Sealed) -> Verdict {
    open_segment(storage, active.index, WINDOW_BYTES).and_then(|mut window| check_batches(&mut window, active)).map(|_| ()).into()
}

fn check_segment<S: Storage>(storage: &S, sealed: &Sealed) -> Result<(), Fault> {
    let mut window = open_segment(storage, sealed.index, WINDOW_BYTES)?;
    let (mut offset, root) = check_batches(&mut window, sealed)?;
    while offset < sealed.segment_bytes {
        let length = (sealed.segment_bytes - offset).min(WINDOW_BYTES as u64);
        if !is_zero(window.get(offset, length as usize).map_err(unreadable(offset))?) {
            return Err(fault(offset, "there is something behind the last batch"));
        }
        offset += length;
    }
    // If that one cannot be read, it is for its own check to say so.
    match prev_of(storage, sealed.index + 1) {
        Some(prev) if prev != root => Err(fault(SEGMENT_HEAD_BYTES, "the next segment does not continue its chain")),
        Some(_) | None => Ok(()),
    }
}

/// Where the last batch ends, and the chain hash after it.
fn check_batches<F: StorageFile>(window: &mut Window<F>, sealed: &Sealed) -> Result<(u64, Root), Fault> {
    let mut root = check_head(window, sealed)?;
    let (mut offset, mut next, mut epoch) = (SEGMENT_HEAD_BYTES, sealed.first, 0);
    while next <= sealed.last {
        let Sealed { log_id, index, segment_bytes, .. } = *sealed;
        if offset + BLOCK_BYTES as u64 > segment_bytes {
            return Err(fault(offset, format!("it ends before entry {}", next.0)));
        }
        let batch = window.batch(log_id, index, segment_bytes, offset).map_err(unreadable(offset))?;
        let (header, found, _) = batch.map_err(|what| fault(offset, what))?;
        let position = Position { log_id, segment: index, offset, first_seq: next, prev: root, epoch };
        check_order(&header, &position).map_err(|what| fault(offset, what))?;
        (root, epoch, next) = (found, header.epoch, Seq(header.last_seq().0 + 1));
        offset += header.extent_bytes();
    }
    Ok((offset, root))
}

/// Both copies of the header; the chain hash before the first batch.
fn check_head<F: StorageFile>(window: &mut Window<F>, sealed: &Sealed) -> Result<Root, Fault> {
    let mut prev = None;
    for copy in 0..2 {
        let offset = copy * BLOCK_BYTES as u64;
        let header = SegmentHeader::decode(block_at(window, offset)?);
        let header = header.map_err(|what| fault(offset, format!("a copy of the segment header: {what}")))?;
        let expected = SegmentHeader {
            log_id: sealed.log_id,
            index: sealed.index,
            segment_bytes: sealed.segment_bytes,
            first_seq: sealed.first,
            prev: prev.unwrap_or(header.prev),
        };
        if header != expected {
            return Err(fault(offset, "the segment header is that of another segment"));
        }
        prev = Some(header.prev);
    }
    Ok(prev.expect("two copies were read"))
}

/// The chain hash before the first batch of a segment, if its header can be read.
fn prev_of<S: Storage>(storage: &S, index: u64) -> Option<Root> {
    let mut window = open_segment(storage, index, BLOCK_BYTES).ok()?;
    let block = block_at(&mut window, 0).ok()?;
    SegmentHeader::decode(block).ok().map(|header| header.prev)
}

/// Reads the index file of a segment.
pub(in crate::ledger) fn index<S: Storage>(storage: &S, subject: Subject) -> Verdict {
    match open(storage, &index_name(subject.segment), WINDOW_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Gone,
        Err(error) => Err(refused(0, "opened", &error)).into(),
        Ok(window) => window.and_then(|mut window| check_index(&mut window, subject)).into(),
    }
}

fn check_index<F: StorageFile>(window: &mut Window<F>, subject: Subject) -> Result<(), Fault> {
    let head = Head::decode(block_at(window, 0)?, subject);
    let head = head.ok_or_else(|| fault(0, "its head is damaged, of another version, or about something else"))?;
    for run in Run::ALL {
        for number in 0..head.blocks(run) {
            let offset = head.block_of(run, number) * BLOCK_BYTES as u64;
            let block = head.decode_block(run, number, *block_at(window, offset)?);
            block.ok_or_else(|| fault(offset, "a block does not match its check value"))?;
        }
    }
    Ok(())
}

/// Reads the snapshot after an entry.
pub(super) fn snapshot<S: Storage>(storage: &S, log_id: LogId, seq: Seq) -> Verdict {
    let name = snapshot_name(seq);
    let checked = Snapshot::open_past_the_cache(storage, &name).and_then(|snapshot| {
        if (snapshot.head().log_id, snapshot.head().seq) != (log_id, seq) {
            return Err(snapshot.fault("it is one of another ledger, or of another place"));
        }
        snapshot.verify()
    });
    match checked {
        Ok(()) => Verdict::Good,
        // Two snapshots are kept, and an older one may go while it is read.
        Err(_) if storage.list().is_ok_and(|names| !names.contains(&name)) => Verdict::Gone,
        Err(found) => match storage.open(&name) {
            Err(error) if !is_about_the_file(&error) => Verdict::Unjudged(found.what),
            Ok(_) | Err(_) => Verdict::Damaged(fault(0, found.what)),
        },
    }
}
