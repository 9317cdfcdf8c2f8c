//! Reading a log from its first byte to its head, checking everything on the way: for recovery and for `verify`.
//!
//! Changes nothing. Invariants: a batch is handed on only after header, place, order, body, padding and the segments around it have
//! been checked; where the log stops being readable, it decides between an interrupted last write and damage (see `judge`).
use super::batch::{check_body, check_order, check_place, Position};
use super::layout::{
    body_bytes_max, extent_bytes, is_zero, BatchHeader, Fault, SegmentHeader, BATCH_HEAD_BYTES, BLOCK_BYTES, SEGMENT_HEAD_BYTES,
};
use super::mark::Mark;
use super::places::Place;
use super::storage::{aligned_start, read_zero_filled, segment_name, segment_number, Storage, StorageFile};
use super::LedgerError;
use crate::domain::limits::SEGMENT_BYTES_MAX;
use crate::domain::{LogId, Root, Seq};
use std::io;
use std::time::Duration;

/// How much is read at once, in bytes.
const WINDOW_BYTES: usize = 4 << 20;
/// How long a writer may take over one batch before a reader beside it calls the batch bad.
const PATIENCE: Duration = Duration::from_millis(50);

/// Header, chain hash and body of a batch, or what is wrong with it.
pub(crate) type Checked<'a> = Result<(BatchHeader, Root, &'a [u8]), Fault>;

/// Reads a file in large pieces, in ascending order; what is beyond the end reads as zeros.
pub(crate) struct Window<F> {
    file: F,
    /// The same file past the cache of the system: what is read, unless it cannot be.
    unbuffered: Option<F>,
    place: String,
    start: u64,
    length: usize,
    /// What was read, and a block more, so that it can begin where memory is aligned.
    room: Vec<u8>,
    room_start: usize,
    bytes_max: usize,
}

impl<F: StorageFile> Window<F> {
    /// Reads ahead up to `bytes_max` bytes at a time.
    pub(crate) fn new(file: F, place: String, bytes_max: usize) -> Self {
        Self { file, unbuffered: None, place, start: 0, length: 0, room: Vec::new(), room_start: 0, bytes_max }
    }

    /// Reads from this handle, which goes past the cache, as long as that can be done. `bytes_max` is then whole blocks.
    fn past_the_cache(mut self, unbuffered: io::Result<F>) -> Result<Self, LedgerError> {
        assert_eq!(self.bytes_max % BLOCK_BYTES, 0);
        self.unbuffered = match unbuffered {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            Err(error) => return Err(LedgerError::io(self.place, "open the segment past the cache")(error)),
        };
        Ok(self)
    }

    /// `length` bytes at `offset`.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> Result<&[u8], LedgerError> {
        let end = self.start + self.length as u64;
        if offset < self.start || offset + length as u64 > end {
            (self.start, self.length) = (offset, length.max(self.bytes_max));
            self.room.resize((self.length + BLOCK_BYTES).max(self.room.len()), 0);
            self.room_start = aligned_start(&self.room);
            self.fill().map_err(LedgerError::io(self.place.as_str(), "read the segment"))?;
        }
        let at = self.room_start + (offset - self.start) as usize;
        Ok(&self.room[at..at + length])
    }

    fn fill(&mut self) -> io::Result<()> {
        let bytes = &mut self.room[self.room_start..][..self.length];
        if let Some(unbuffered) = &self.unbuffered {
            match read_zero_filled(unbuffered, bytes, self.start) {
                // Not every file system that opens a file for reading past its cache can do it.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.unbuffered = None,
                read => return read,
            }
        }
        read_zero_filled(&self.file, bytes, self.start)
    }

    /// Forgets what was read, so that the next call sees the file as it is then.
    pub(crate) fn forget(&mut self) {
        self.length = 0;
    }

    /// The batch at this place, checked but for its order. The outer error is the disk's.
    pub(crate) fn batch(
        &mut self,
        log_id: LogId,
        segment: u64,
        segment_bytes: u64,
        offset: u64,
    ) -> Result<Checked<'_>, LedgerError> {
        let decoded = BatchHeader::decode(self.get(offset, BLOCK_BYTES)?).and_then(|(header, root)| {
            check_place(&header, log_id, segment, offset, segment_bytes)?;
            Ok((header, root))
        });
        let (header, root) = match decoded {
            Ok(decoded) => decoded,
            Err(fault) => return Ok(Err(fault)),
        };
        let rest = &self.get(offset, header.extent_bytes() as usize)?[BATCH_HEAD_BYTES..];
        Ok(check_body(&header, rest).map(|body| (header, root, body)))
    }
}

/// A batch on its way to whoever rebuilds something from it.
pub(crate) struct SeenBatch<'a> {
    pub file: &'a str,
    pub place: Place,
    pub header: BatchHeader,
    pub root: Root,
    pub body: &'a [u8],
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

/// The numbers of the segments, which must be 1 and the following, up to the one that the mark names or beyond: a crash may come
/// between the name of a segment and the mark. The error says which one is missing; that there is none at all is for the caller.
pub(crate) fn segment_count<S: Storage>(storage: &S, names: &[String], mark: Option<Mark>) -> Result<u64, LedgerError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    for (expected, number) in (1..).zip(&numbers) {
        if expected != *number {
            let what = format!("{} is missing, although {} exists", segment_name(expected), segment_name(*number));
            return Err(LedgerError::Incomplete { place: storage.place(""), what });
        }
    }
    let count = numbers.len() as u64;
    if let Some(mark) = mark.filter(|mark| count > 0 && mark.segment > count) {
        let (missing, last) = (segment_name(count + 1), mark.segment);
        let what = format!("{missing} is missing, although the file `epoch` has noted segments up to number {last}");
        return Err(LedgerError::Incomplete { place: storage.place(""), what });
    }
    Ok(count)
}

/// How a scan is made.
pub(crate) struct Scan<'a, S> {
    pub storage: &'a S,
    pub segments: u64,
    pub mark: Option<Mark>,
    /// Make each file durable before it is read, and read the last one past the cache: what was read must not be lost afterwards.
    pub sync: bool,
    /// A writer may be at work: look again before calling something bad.
    pub patient: bool,
}

impl<S: Storage> Scan<'_, S> {
    /// Reads all segments.
    pub(crate) fn run(&self, each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>) -> Result<End, LedgerError> {
        assert!(self.segments > 0, "a log has at least one segment");
        let mut end = End {
            log_id: LogId::default(),
            segments: self.segments,
            segment_bytes: 0,
            offset: 0,
            batches: 0,
            head: Seq(0),
            root: [0; 32],
            epoch: 0,
            torn: None,
        };
        for index in 1..=self.segments {
            self.segment(index, &mut end, each)?;
        }
        if let Some(mark) = self.mark.filter(|mark| mark.head > end.head) {
            let what =
                format!("the log was durable up to entry {} when it was last opened or closed, but ends here", mark.head.0);
            return Err(self.damaged(self.segments, end.offset, end.head, what));
        }
        Ok(end)
    }

    fn damaged(&self, index: u64, offset: u64, head: Seq, what: String) -> LedgerError {
        let file = self.storage.place(&segment_name(index));
        LedgerError::Damaged { file, offset, expected: Seq(head.0 + 1), what }
    }

    /// The header of a segment, from whichever copy is intact, checked against its name and the log before it.
    fn open(&self, index: u64, end: &End) -> Result<(S::File, SegmentHeader), LedgerError> {
        let place = self.storage.place(&segment_name(index));
        let file = self.storage.open(&segment_name(index)).map_err(LedgerError::io(place.as_str(), "open the segment"))?;
        if self.sync {
            file.sync().map_err(LedgerError::io(place.as_str(), "sync the segment"))?;
        }
        let mut decoded = Err(Fault::HeaderHash);
        for copy in 0..2 {
            let mut block = [0; BLOCK_BYTES];
            read_zero_filled(&file, &mut block, copy * BLOCK_BYTES as u64)
                .map_err(LedgerError::io(place.as_str(), "read the segment header"))?;
            decoded = SegmentHeader::decode(&block);
            if decoded.is_ok() {
                if copy > 0 {
                    tracing::warn!(file = %place, "the first copy of the segment header is damaged, the second is good");
                }
                break;
            }
        }
        let refuse = |what: String| self.damaged(index, 0, end.head, what);
        let header = decoded.map_err(|fault| match fault {
            Fault::Version(version) => LedgerError::Unsupported { file: place.clone(), offset: 0, version },
            Fault::HeaderHash | Fault::BodyHash => refuse("neither copy of the segment header matches its hash".into()),
            Fault::Misfit(what) => refuse(what),
        })?;
        let foreign = (index > 1 && header.log_id != end.log_id) || self.mark.is_some_and(|mark| mark.log_id != header.log_id);
        if foreign {
            return Err(LedgerError::Incomplete { place, what: "the segment belongs to another ledger".into() });
        }
        if header.index != index {
            return Err(refuse(format!("the file is segment {} under another name", header.index)));
        }
        if header.first_seq.0 > end.head.0 + 1 {
            let what = format!("entries {} to {} are missing: {place} begins after them", end.head.0 + 1, header.first_seq.0 - 1);
            return Err(self.damaged(index - 1, end.offset, end.head, what));
        }
        if header.first_seq.0 != end.head.0 + 1 || header.prev != end.root {
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

    fn segment(
        &self,
        index: u64,
        end: &mut End,
        each: &mut dyn FnMut(Seen<'_>) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let (file, header) = self.open(index, end)?;
        let (log_id, segment_bytes) = (header.log_id, header.segment_bytes);
        (end.log_id, end.segment_bytes, end.offset) = (log_id, segment_bytes, SEGMENT_HEAD_BYTES);
        each(Seen::Segment(header))?;
        let place = self.storage.place(&segment_name(index));
        let mut window = Window::new(file.clone(), place.clone(), WINDOW_BYTES);
        // A sync that fails ends the process, so only what was written last can be in the cache and not on the disk: a batch in
        // the last segment. A segment gets a successor only after all that it has was synced.
        let past_the_cache = self.sync && index == self.segments;
        if past_the_cache {
            window = window.past_the_cache(self.storage.open_unbuffered(&segment_name(index)))?;
        }
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
        if past_the_cache && window.unbuffered.is_none() && self.mark.map_or(Seq(0), |mark| mark.head) < end.head {
            tracing::warn!(file = %place, "the file system cannot be read past its cache; if a sync failed before this start, \
                the last entries may not be on the disk");
        }
        if past_the_cache {
            self.look_into_the_cache(Window::new(file, place, WINDOW_BYTES), index, end)?;
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
        end.torn = Some(Torn { file: cached.place, offset: end.offset, bytes: shown.bytes.max(on_disk) });
        Ok(())
    }

    fn check_mark(&self, header: &BatchHeader, root: &Root, index: u64, end: &End) -> Result<(), LedgerError> {
        let Some(mark) = self.mark.filter(|mark| (header.first_seq..=header.last_seq()).contains(&mark.head)) else {
            return Ok(());
        };
        if mark.head == header.last_seq() && mark.root == *root {
            return Ok(());
        }
        let what = format!("the chain hash after entry {} is not the one that the file `epoch` has noted", mark.head.0);
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
        if index < self.segments {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::disk::DiskStorage;
    use crate::ledger::memory::MemoryStorage;

    /// Whatever the file system of the temporary directory can do: past the cache or, where that cannot be done, through it.
    #[test]
    fn a_file_is_read_past_the_cache_as_through_it_even_if_it_was_cut_within_a_block() {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::create(directory.path()).unwrap();
        for length in [0, 1, 511, 512, BLOCK_BYTES, 3 * BLOCK_BYTES + 700, 6 * BLOCK_BYTES] {
            let file = storage.create("a").unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            file.write_at(&bytes, 0).unwrap();
            file.sync().unwrap();
            let window = Window::new(file, "a".into(), 2 * BLOCK_BYTES);
            let mut window = window.past_the_cache(storage.open_unbuffered("a")).unwrap();
            for (block, blocks) in [(0, 1), (1, 1), (2, 3), (3, 4), (0, 8), (7, 1)] {
                let found = window.get((block * BLOCK_BYTES) as u64, blocks * BLOCK_BYTES).unwrap();
                let rest = &bytes[length.min(block * BLOCK_BYTES)..length.min((block + blocks) * BLOCK_BYTES)];
                assert_eq!((&found[..rest.len()], is_zero(&found[rest.len()..])), (rest, true), "{length} bytes, block {block}");
            }
        }
    }

    #[test]
    fn where_the_cache_cannot_be_passed_it_is_read() {
        let storage = MemoryStorage::new();
        let file = storage.create("a").unwrap();
        file.write_at(&[7; BLOCK_BYTES], 0).unwrap();
        for fault in [io::ErrorKind::InvalidInput, io::ErrorKind::PermissionDenied] {
            let window = Window::new(file.clone(), "a".into(), BLOCK_BYTES).past_the_cache(Err(fault.into()));
            match fault {
                io::ErrorKind::InvalidInput => assert_eq!(window.unwrap().get(0, BLOCK_BYTES).unwrap(), &[7; BLOCK_BYTES]),
                _ => assert!(window.is_err()),
            }
        }
    }
}
