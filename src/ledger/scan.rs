//! Reading a log from its first byte to its head, checking everything on the way: for recovery and for `verify`.
//!
//! Changes nothing. Invariants: a batch is handed on only after header, place, order, body, padding and the segments around it have
//! been checked; where the log stops being readable, it decides between an interrupted last write and damage (see `judge`).
use super::batch::{check_order, check_place, Position};
use super::layout::{body_bytes_max, extent_bytes, is_zero, BatchHeader, Fault, SegmentHeader, BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use super::mark::Mark;
use super::places::Place;
use super::snapshot::snapshot_seq;
use super::storage::{read_zero_filled, segment_name, segment_number, ReadFile, Storage, StorageFile};
use super::walk::first_of;
use super::window::Window;
use super::witness::known_mark;
use super::LedgerError;
use crate::domain::limits::SEGMENT_BYTES_MAX;
use crate::domain::{LogId, Root, Seq};
use std::io;
use std::time::Duration;

/// How much is read at once, in bytes.
const WINDOW_BYTES: usize = 4 << 20;
/// How long a writer may take over one batch before a reader beside it calls the batch bad.
const PATIENCE: Duration = Duration::from_millis(50);

/// A batch on its way to whoever rebuilds something from it.
pub(crate) struct SeenBatch<'a> {
    pub file: &'a str,
    pub place: Place,
    pub header: BatchHeader,
    pub root: Root,
    pub body: &'a [u8],
}

/// The header of a segment from whichever of its two copies is intact, the first one before the second, and which that is.
///
/// # Errors
/// If the file cannot be read. The inner error says what is wrong with the second copy; then the first is not intact either.
pub(super) fn read_header(file: &impl ReadFile) -> io::Result<Result<(SegmentHeader, u64), Fault>> {
    let mut decoded = Err(Fault::HeaderHash);
    for copy in 0..2 {
        let mut block = [0; BLOCK_BYTES];
        read_zero_filled(file, &mut block, copy * BLOCK_BYTES as u64)?;
        decoded = SegmentHeader::decode(&block).map(|header| (header, copy));
        if decoded.is_ok() {
            break;
        }
    }
    Ok(decoded)
}

/// What the scan meets, in order.
pub(crate) enum Seen<'a> {
    Segment(SegmentHeader),
    Batch(SeenBatch<'a>),
}

/// What an interrupted write left behind the last batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment file.
    pub file: String,
    /// Where the last intact batch ends, in bytes.
    pub offset: u64,
    /// How far behind that the remains reach, in bytes.
    pub bytes: u64,
}

/// Where the log ends.
pub(crate) struct End {
    pub log_id: LogId,
    pub segments: u64,
    pub segment_bytes: u64,
    pub offset: u64,
    pub batches: u64,
    pub head: Seq,
    pub root: Root,
    pub epoch: u64,
    pub torn: Option<Torn>,
}

/// A place behind which the log is read, because a snapshot has all that comes before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub log_id: LogId,
    /// The last entry that the snapshot has.
    pub seq: Seq,
    /// Chain hash after it.
    pub root: Root,
    /// Epoch of its batch.
    pub epoch: u64,
    /// How many batches the snapshot has.
    pub batches: u64,
    /// Where the last of them stands.
    pub last_batch: Place,
}

/// Number of the first and of the last segment.
pub(crate) type Segments = std::ops::RangeInclusive<u64>;

/// The segments that must be there: from 1, or from the first one that `start` needs or an earlier one, without gaps, up to the one
/// that the mark names or beyond: a crash may come between the name of a segment and the mark. `None` if there is none at all. The
/// error says which one is missing.
pub(crate) fn segments<S: Storage>(
    storage: &S,
    names: &[String],
    mark: Option<Mark>,
    start: Option<&Start>,
) -> Result<Option<Segments>, LedgerError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else { return Ok(None) };
    // The snapshot may be all that is left of what came before: then the log goes on with the next segment.
    let first_max = start.map_or(1, |start| start.last_batch.segment + 1);
    if first > first_max && start.is_none() {
        // Only what two snapshots stand in for is archived, so they have been there.
        return Err(LedgerError::Uncovered {
            place: storage.place(""),
            missing: (1, first - 1),
            snapshots: names.iter().filter(|name| snapshot_seq(name).is_some()).count(),
        });
    }
    if first > first_max {
        return Err(LedgerError::gap(storage.place(""), first_max, first));
    }
    for (expected, number) in (first..).zip(&numbers) {
        if expected != *number {
            return Err(LedgerError::gap(storage.place(""), expected, *number));
        }
    }
    let last_min = mark.map_or(0, |mark| mark.segment).max(start.map_or(0, |start| start.last_batch.segment));
    if last < last_min {
        let missing = segment_name(last + 1);
        let what = format!("{missing} is missing, although segments up to number {last_min} have been noted");
        return Err(LedgerError::Incomplete { place: storage.place(""), what });
    }
    Ok(Some(first..=last))
}

/// The log that lies here, by the file `epoch` or else by the oldest segment; nothing if neither can be read.
pub(crate) fn log_of<S: Storage>(storage: &S) -> Option<LogId> {
    if let Some(mark) = known_mark(storage).ok()? {
        return Some(mark.log_id);
    }
    log_of_segments(storage)
}

/// The log that lies here, by the oldest segment alone.
pub(super) fn log_of_segments<S: Storage>(storage: &S) -> Option<LogId> {
    let first = storage.list().ok()?.iter().filter_map(|name| segment_number(name)).min()?;
    let file = storage.open(&segment_name(first)).ok()?;
    read_header(&file).ok()?.ok().map(|(header, _)| header.log_id)
}

/// How a scan is made.
pub(crate) struct Scan<'a, S> {
    pub storage: &'a S,
    pub segments: Segments,
    pub mark: Option<Mark>,
    /// Where to begin; from the first segment on if there is none.
    pub start: Option<Start>,
    /// Make each file durable before it is read, and read the last one past the cache: what was read must not be lost afterwards.
    pub sync: bool,
    /// A writer may be at work: look again before calling something bad.
    pub patient: bool,
}

impl<S: Storage> Scan<'_, S> {
    /// Reads all segments.
    pub(crate) fn run(&self, each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>) -> Result<End, LedgerError> {
        self.run_from(self.at_first(), each)
    }

    /// What is known before the first entry, or behind the snapshot.
    pub(crate) fn at_first(&self) -> End {
        End {
            log_id: self.start.map_or_else(LogId::default, |start| start.log_id),
            segments: *self.segments.end(),
            segment_bytes: 0,
            offset: 0,
            batches: self.start.map_or(0, |start| start.batches),
            head: self.start.map_or(Seq(0), |start| start.seq),
            root: self.start.map_or([0; 32], |start| start.root),
            epoch: self.start.map_or(0, |start| start.epoch),
            torn: None,
        }
    }

    /// What is known before the first segment if what came before it is gone: what its own header says, and no epoch or batch.
    pub(crate) fn beginning(&self) -> Result<End, LedgerError> {
        let mut end = self.at_first();
        let (_, header) = self.open(*self.segments.start(), &end, false)?;
        (end.log_id, end.head, end.root) = (header.log_id, Seq(header.first_seq.0.saturating_sub(1)), header.prev);
        Ok(end)
    }

    /// Reads all segments, behind what is known before the first one.
    pub(crate) fn run_from(
        &self,
        mut end: End,
        each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>,
    ) -> Result<End, LedgerError> {
        for index in self.segments.clone() {
            match &self.start {
                Some(start) if index < start.last_batch.segment => self.pass(index, &end, each)?,
                Some(start) if index == start.last_batch.segment => {
                    let (file, header) = self.open(index, &end, false)?;
                    each(Seen::Segment(header.clone()))?;
                    self.batches(file, &header, Some(start), &mut end, each)?;
                }
                Some(_) | None => self.segment(index, &mut end, each)?,
            }
        }
        self.check_reached(&end)?;
        Ok(end)
    }

    /// Errs if the log was durable beyond its end.
    pub(super) fn check_reached(&self, end: &End) -> Result<(), LedgerError> {
        let Some(mark) = self.mark.filter(|mark| mark.head > end.head) else { return Ok(()) };
        let cut = self.cut_short(end.segments, end.segment_bytes);
        let what = format!("the log was durable up to entry {} before, but ends here{cut}", mark.head.0);
        Err(self.damaged(end.segments, end.offset, end.head, what))
    }

    /// What to add to a message about entries that are not there, if the file is shorter than its header says.
    fn cut_short(&self, index: u64, segment_bytes: u64) -> String {
        match self.storage.open(&segment_name(index)).and_then(|file| file.size()) {
            Ok(size) if size < segment_bytes => format!("; the file has {size} bytes, its header says {segment_bytes}"),
            Ok(_) | Err(_) => String::new(),
        }
    }

    /// A segment that the snapshot has: it must be there and belong here, and is not read.
    fn pass(&self, index: u64, end: &End, each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        let (_, header) = self.open(index, end, false)?;
        each(Seen::Segment(header))
    }

    /// Where the last batch of the snapshot ends. It must stand where the snapshot says: else they are not of one history.
    fn behind(&self, start: &Start, window: &mut Window<S::File>, header: &SegmentHeader) -> Result<u64, LedgerError> {
        let Place { segment, offset, first_seq } = start.last_batch;
        let refuse = |what: String| {
            let what = format!("the last batch of the snapshot after entry {} should be here: {what}", start.seq.0);
            Err(self.damaged(segment, offset, Seq(first_seq.0 - 1), what))
        };
        match window.batch(header.log_id, segment, header.segment_bytes, offset)? {
            Err(fault) => refuse(fault.to_string()),
            Ok((found, root, _)) if (found.first_seq, found.last_seq(), root) != (first_seq, start.seq, start.root) => {
                refuse(format!("it is another one, with the entries {} to {}", found.first_seq.0, found.last_seq().0))
            }
            Ok((found, ..)) => Ok(offset + found.extent_bytes()),
        }
    }

    fn damaged(&self, index: u64, offset: u64, head: Seq, what: String) -> LedgerError {
        let file = self.storage.place(&segment_name(index));
        LedgerError::Damaged { file, offset, expected: Seq(head.0 + 1), what }
    }

    /// The header of a segment, from whichever copy is intact, checked against its name and, if it `continues` what was read, the
    /// log before it.
    fn open(&self, index: u64, end: &End, continues: bool) -> Result<(S::File, SegmentHeader), LedgerError> {
        let place = self.storage.place(&segment_name(index));
        let file = self.storage.open(&segment_name(index)).map_err(LedgerError::io(place.as_str(), "open the segment"))?;
        if self.sync && (continues || self.start.is_some_and(|start| index == start.last_batch.segment)) {
            file.sync().map_err(LedgerError::io(place.as_str(), "sync the segment"))?;
        }
        let read = read_header(&file).map_err(LedgerError::io(place.as_str(), "read the segment header"))?;
        if matches!(read, Ok((_, 1))) {
            tracing::warn!(event = "segment_header_damaged", file = %place,
                "the first copy of the segment header is damaged, the second is good");
        }
        let refuse = |what: String| match continues {
            true => self.damaged(index, 0, end.head, what),
            // What is known is the end of a snapshot, and the segment lies before that.
            false => {
                let file = self.storage.place(&segment_name(index));
                LedgerError::Damaged { file, offset: 0, expected: first_of(self.storage, index), what }
            }
        };
        let (header, _) = read.map_err(|fault| match fault {
            Fault::Version(version) => LedgerError::Unsupported { file: place.clone(), offset: 0, version },
            Fault::HeaderHash | Fault::BodyHash => refuse("neither copy of the segment header matches its hash".into()),
            Fault::Misfit(what) => refuse(what),
        })?;
        let known = (self.start.is_some() || index > *self.segments.start()).then_some(end.log_id);
        if known.is_some_and(|known| known != header.log_id) {
            return Err(LedgerError::Incomplete { place, what: "the segment belongs to another ledger".into() });
        }
        if self.mark.is_some_and(|mark| mark.log_id != header.log_id) {
            let what = "the segment belongs to another ledger, or the file `epoch` does".into();
            return Err(LedgerError::Incomplete { place, what });
        }
        if header.index != index {
            return Err(refuse(format!("the file is segment {} under another name", header.index)));
        }
        if continues && header.first_seq.0 > end.head.0 + 1 {
            let cut = self.cut_short(index - 1, end.segment_bytes);
            let (first, last) = (end.head.0 + 1, header.first_seq.0 - 1);
            let what = format!("entries {first} to {last} are missing: {place} begins after them{cut}");
            return Err(self.damaged(index - 1, end.offset, end.head, what));
        }
        if continues && (header.first_seq.0 != end.head.0 + 1 || header.prev != end.root) {
            return Err(refuse("the segment does not continue the chain of the one before it".into()));
        }
        let size = file.size().map_err(LedgerError::io(place.as_str(), "look at the segment"))?;
        let (least, most) = (SEGMENT_HEAD_BYTES + BLOCK_BYTES as u64, SEGMENT_BYTES_MAX);
        if !(least..=most).contains(&header.segment_bytes)
            || header.segment_bytes % BLOCK_BYTES as u64 != 0
            || size > header.segment_bytes
        {
            return Err(refuse(format!("the file has {size} bytes, its header says {}", header.segment_bytes)));
        }
        Ok((file, header))
    }

    /// Whether a segment goes on where `end` says that the log has come.
    pub(super) fn follows(&self, index: u64, end: &End) -> Result<(), LedgerError> {
        self.open(index, end, true).map(drop)
    }

    /// Reads one segment, which goes on where `end` says that the log has come.
    pub(super) fn segment(
        &self,
        index: u64,
        end: &mut End,
        each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let (file, header) = self.open(index, end, true)?;
        each(Seen::Segment(header.clone()))?;
        self.batches(file, &header, None, end, each)
    }

    /// Reads the batches of a segment, from the first one on or from the one behind `start`.
    fn batches(
        &self,
        file: S::File,
        header: &SegmentHeader,
        start: Option<&Start>,
        end: &mut End,
        each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let (index, log_id, segment_bytes) = (header.index, header.log_id, header.segment_bytes);
        (end.log_id, end.segment_bytes) = (log_id, segment_bytes);
        let place = self.storage.place(&segment_name(index));
        // A small segment is read whole, and no more is made ready for it than it has.
        let window_bytes = WINDOW_BYTES.min(segment_bytes as usize);
        let mut window = Window::new(file.clone(), place.clone(), window_bytes);
        // A sync that fails ends the process, so only what was written last can be in the cache and not on the disk: a batch in
        // the last segment. A segment gets a successor only after all that it has was synced.
        let past_the_cache = self.sync && index == end.segments;
        if past_the_cache {
            window = window.past_the_cache(self.storage.open_unbuffered(&segment_name(index)))?;
        }
        end.offset = match start {
            Some(start) => self.behind(start, &mut window, header)?,
            None => SEGMENT_HEAD_BYTES,
        };
        let mut looked_again = false;
        while end.offset + BLOCK_BYTES as u64 <= segment_bytes {
            let offset = end.offset;
            let blank = is_zero(window.get(offset, BLOCK_BYTES)?);
            let first_seq = Seq(end.head.0 + 1);
            let fault = match window.batch(log_id, index, segment_bytes, offset)? {
                Ok((header, root, body)) => {
                    let position = Position { log_id, segment: index, offset, first_seq, prev: end.root, epoch: end.epoch };
                    check_order(&header, &position).map_err(|fault| self.damaged(index, offset, end.head, fault.to_string()))?;
                    self.check_mark(&header, &root, index, end)?;
                    end.offset += header.extent_bytes();
                    (end.head, end.root, end.epoch) = (header.last_seq(), root, header.epoch);
                    end.batches += 1;
                    let place_of_batch = Place { segment: index, offset, first_seq };
                    each(Seen::Batch(SeenBatch { file: &place, place: place_of_batch, header, root, body }))?;
                    looked_again = false;
                    continue;
                }
                Err(fault) => fault,
            };
            let remains = Remains::survey(&mut window, log_id, index, segment_bytes, offset)?;
            if blank && remains.bytes == 0 {
                break;
            }
            if self.patient && !looked_again {
                std::thread::sleep(PATIENCE);
                window.forget();
                looked_again = true;
                continue;
            }
            self.judge(index, end, &fault, &remains)?;
            end.torn = Some(Torn { file: place.clone(), offset, bytes: remains.bytes });
            break;
        }
        if past_the_cache && !window.passes_the_cache() && self.mark.map_or(Seq(0), |mark| mark.head) < end.head {
            tracing::warn!(event = "cache_not_bypassed", file = %place, "the file system cannot be read past its cache; if a sync \
                failed before this start, the last entries may not be on the disk");
        }
        if past_the_cache {
            self.look_into_the_cache(Window::new(file, place, window_bytes), index, end)?;
        }
        Ok(())
    }

    /// The cache may go on showing a write whose sync has failed. Readers would see it, and it would come back in part with later
    /// writes; so it is cleared away as an interrupted write is, if it can be one.
    fn look_into_the_cache(&self, mut cached: Window<S::File>, index: u64, end: &mut End) -> Result<(), LedgerError> {
        let shown = Remains::survey(&mut cached, end.log_id, index, end.segment_bytes, end.offset)?;
        let on_disk = end.torn.as_ref().map_or(0, |torn| torn.bytes);
        if shown.bytes == 0 {
            return Ok(());
        }
        self.judge_remains(index, end, "the disk does not have what the cache of the system shows", &shown)?;
        end.torn = Some(Torn { file: cached.place().to_owned(), offset: end.offset, bytes: shown.bytes.max(on_disk) });
        Ok(())
    }

    fn check_mark(&self, header: &BatchHeader, root: &Root, index: u64, end: &End) -> Result<(), LedgerError> {
        let Some(mark) = self.mark.filter(|mark| (header.first_seq..=header.last_seq()).contains(&mark.head)) else {
            return Ok(());
        };
        if mark.head == header.last_seq() && mark.root == *root {
            return Ok(());
        }
        let what = format!("the chain hash after entry {} is not the one that was noted in `epoch` or `witness`", mark.head.0);
        Err(self.damaged(index, end.offset, end.head, what))
    }

    /// Whether what stands behind the last good batch may be an interrupted write: then it was never acknowledged. It may not if
    /// anything was written after it, if it is larger than one write, if it was once durable, or if it is intact and still wrong.
    fn judge(&self, index: u64, end: &End, fault: &Fault, remains: &Remains) -> Result<(), LedgerError> {
        match fault {
            Fault::Version(version) => {
                let file = self.storage.place(&segment_name(index));
                Err(LedgerError::Unsupported { file, offset: end.offset, version: *version })
            }
            Fault::Misfit(what) => Err(self.damaged(index, end.offset, end.head, what.clone())),
            Fault::HeaderHash | Fault::BodyHash => self.judge_remains(index, end, &fault.to_string(), remains),
        }
    }

    fn judge_remains(&self, index: u64, end: &End, fault: &str, remains: &Remains) -> Result<(), LedgerError> {
        let refuse = |what: String| Err(self.damaged(index, end.offset, end.head, what));
        if index < end.segments {
            return refuse(format!("{fault}, and another segment follows"));
        }
        if let Some(later) = remains.batch_at {
            return refuse(format!("{fault}, yet an intact batch follows at byte {later}"));
        }
        let bytes_max = remains.header_bytes.unwrap_or(extent_bytes(body_bytes_max(end.segment_bytes)));
        if remains.bytes > bytes_max {
            return refuse(format!(
                "{fault}, and {} bytes are in use, more than the one write that can be interrupted",
                remains.bytes
            ));
        }
        if let Some(mark) = self.mark.filter(|mark| mark.head > end.head) {
            return refuse(format!("{fault}, although the log was durable up to entry {} before", mark.head.0));
        }
        Ok(())
    }
}

/// What there is from the first bad place to the end of a segment.
struct Remains {
    /// How far anything but zeros reaches, in bytes.
    bytes: u64,
    /// An intact batch of this log in its right place after the bad one.
    batch_at: Option<u64>,
    /// The extent that the header of the bad batch states, if that header is intact.
    header_bytes: Option<u64>,
}

impl Remains {
    fn survey<F: StorageFile>(
        window: &mut Window<F>,
        log_id: LogId,
        index: u64,
        segment_bytes: u64,
        from: u64,
    ) -> Result<Self, LedgerError> {
        let mut remains = Self { bytes: 0, batch_at: None, header_bytes: None };
        let mut offset = from;
        while offset < segment_bytes {
            let block = window.get(offset, BLOCK_BYTES)?;
            if !is_zero(block) {
                let last = block.iter().rposition(|byte| *byte != 0).expect("some byte is not zero");
                remains.bytes = offset - from + last as u64 + 1;
                if let Ok((header, _)) = BatchHeader::decode(block) {
                    if offset == from {
                        remains.header_bytes = Some(header.extent_bytes());
                    } else if remains.batch_at.is_none() && check_place(&header, log_id, index, offset, segment_bytes).is_ok() {
                        remains.batch_at = Some(offset);
                    }
                }
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(remains)
    }
}
