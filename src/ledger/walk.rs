//! Reading a ledger's directory from any entry on, without changing a byte: also beside a running server, and as far as a damaged
//! ledger can be read.
//!
//! Invariant: a batch is handed on only after the chain from the head of its segment to it has been checked, as `scan` checks it.
//! Segments that are gone from the front of the directory are no fault here; the books are for `verify`.
use super::batch::{check_place, sections, Section};
use super::layout::{is_zero, BatchHeader, SegmentHeader, BATCH_HEAD_BYTES, BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use super::mark::{Mark, EPOCH_NAME};
use super::reader::visit;
use super::scan::{read_header, End, Scan, Seen, SeenBatch, Torn};
use super::scrub::ScrubState;
use super::storage::{index_name, read_zero_filled, segment_name, segment_number, ReadFile, Storage};
use super::witness::{known_mark, WITNESS_NAME};
use super::LedgerError;
use crate::domain::{Entry, LogId, Root, Seq};
use std::ops::ControlFlow;

/// A segment file as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Number of the segment, from its name.
    pub index: u64,
    /// The file.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its header, or what is wrong with both copies of it.
    pub header: Result<SegmentHeader, String>,
    /// Whether there is an index file for it.
    pub indexed: bool,
}

/// What the headers of the batches of a segment say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentUse {
    /// How many batches.
    pub batches: u64,
    /// The last entry; `None` if there is no batch.
    pub last: Option<Seq>,
    /// Chain hash after it.
    pub root: Option<Root>,
    /// Epoch of the last batch.
    pub epoch: u64,
    /// Where the last batch ends, in bytes.
    pub bytes_used: u64,
    /// What stands there, if it is neither the end of the segment nor zeros.
    pub fault: Option<String>,
}

/// A batch that has been checked.
pub struct Batch<'a>(&'a SeenBatch<'a>);

impl Batch<'_> {
    /// The segment file.
    pub fn file(&self) -> &str {
        self.0.file
    }

    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        &self.0.header
    }

    /// Chain hash after it.
    pub fn root(&self) -> &Root {
        &self.0.root
    }

    /// The entries of each lane.
    pub fn sections(&self) -> Result<Vec<Section<'_>>, LedgerError> {
        sections(&self.0.header, self.0.body).map_err(|fault| LedgerError::Damaged {
            file: self.0.file.to_owned(),
            offset: self.0.place.offset,
            expected: self.0.place.first_seq,
            what: fault.to_string(),
        })
    }

    /// Hands over the entries until the receiver has enough.
    pub fn visit(&self, each: impl FnMut(Seq, Entry<'_>) -> ControlFlow<()>) -> Result<ControlFlow<()>, LedgerError> {
        visit(self.0, each)
    }
}

/// Where a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkEnd {
    /// The last entry that was seen, of a whole batch.
    pub head: Seq,
    /// The remains of an interrupted write behind it, or of one that is going on.
    pub torn: Option<Torn>,
}

/// A ledger's directory, listed once.
pub struct Walk<S> {
    storage: S,
    mark: Result<Option<Mark>, LedgerError>,
    segments: Vec<SegmentFile>,
    others: Vec<String>,
}

impl<S: Storage> Walk<S> {
    /// Lists the directory and reads the headers of the segments. That there is no segment at all is an error.
    pub fn open(storage: S) -> Result<Self, LedgerError> {
        // The mark first: a writer may begin a segment meanwhile, and the mark must not know of one that the list has not.
        let mark = known_mark(&storage);
        let mut names = storage.list().map_err(LedgerError::io(storage.place(""), "list the directory"))?;
        names.sort_unstable();
        let mut segments = Vec::new();
        for index in names.iter().filter_map(|name| segment_number(name)) {
            let indexed = names.contains(&index_name(index));
            segments.push(look_at(&storage, index, indexed)?);
        }
        if segments.is_empty() {
            return Err(LedgerError::no_ledger(storage.place("")));
        }
        let others = names.into_iter().filter(|name| segment_number(name).is_none()).collect();
        Ok(Self { storage, mark, segments, others })
    }

    /// The segments, in their order.
    pub fn segments(&self) -> &[SegmentFile] {
        &self.segments
    }

    /// The names of all files that are no segments.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// What the file `epoch` says; `None` if there is none.
    pub fn mark(&self) -> Result<Option<&Mark>, &LedgerError> {
        self.mark.as_ref().map(Option::as_ref)
    }

    /// The file that says how far the log has certainly reached, if one does: of two, the one that knows more.
    pub fn noted_in(&self) -> Option<&'static str> {
        let mark = self.mark.as_ref().ok()?.as_ref()?;
        let noted = Mark::read(&self.storage).ok().flatten();
        Some(if noted.is_some_and(|noted| noted.head >= mark.head) { EPOCH_NAME } else { WITNESS_NAME })
    }

    /// What is kept of the scrubbing, without what was found of segments that were archived since; `None` if nothing is.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn scrub(&self) -> std::io::Result<Option<ScrubState>> {
        let mut state = ScrubState::read(&self.storage)?;
        if let (Some(state), Some(first)) = (&mut state, self.segments.first()) {
            state.forget_archived(first.index);
        }
        Ok(state)
    }

    /// The identity of the log, from the first header that can be read.
    pub fn log_id(&self) -> Option<LogId> {
        self.segments.iter().find_map(|segment| segment.header.as_ref().ok()).map(|header| header.log_id)
    }

    /// Goes through the headers of the batches of a segment, not their bodies, as far as one follows the other.
    pub fn survey(&self, segment: &SegmentFile) -> Result<SegmentUse, LedgerError> {
        survey(&self.storage, segment)
    }

    /// What is missing of the log, by the surveys of its segments in their order, and by the mark: each in a sentence. What is gone from the
    /// front is not: it may be in an archive.
    pub fn gaps(&self, surveys: &[SegmentUse]) -> Vec<String> {
        assert_eq!(surveys.len(), self.segments.len(), "a survey of every segment");
        let missing = |first: u64, last: u64, although: String| match (segment_name(first), segment_name(last)) {
            (first, last) if first == last => format!("{first} is missing, although {although}"),
            (first, last) => format!("{first} to {last} are missing, although {although}"),
        };
        let end = |(segment, used): (&SegmentFile, &SegmentUse)| {
            let begin = segment.header.as_ref().ok().map(|header| Seq(header.first_seq.0.saturating_sub(1)));
            used.last.or(begin)
        };
        let mut gaps = Vec::new();
        for (pair, used) in self.segments.windows(2).zip(surveys) {
            let (segment, next) = (&pair[0], &pair[1]);
            if next.index > segment.index + 1 {
                let although = format!("{} exists", segment_name(next.index));
                gaps.push(missing(segment.index + 1, next.index - 1, although));
                continue;
            }
            let (Some(last), Ok(header)) = (end((segment, used)), &next.header) else { continue };
            if used.fault.is_none() && header.first_seq.0 != last.0.saturating_add(1) {
                let (file, behind, first) = (segment_name(segment.index), segment_name(next.index), header.first_seq.0);
                gaps.push(format!("{file} ends with entry {}, and {behind} begins with entry {first}", last.0));
            }
        }
        let Ok(Some(mark)) = &self.mark else { return gaps };
        let last = self.segments[self.segments.len() - 1].index;
        let head = self.segments.iter().zip(surveys).rev().find_map(end).unwrap_or_default();
        if last < mark.segment {
            gaps.push(missing(last + 1, mark.segment, "the file `epoch` names the last of them".to_owned()));
        } else if head < mark.head {
            gaps.push(format!(
                "the log was durable up to entry {} before, and what can be read ends with entry {}",
                mark.head.0, head.0
            ));
        }
        gaps
    }

    /// Hands over every batch from the one with the entry `from` on, until the receiver has enough or the log ends. What is wrong
    /// with the log before that is the error; what was handed over until then is good.
    pub fn from(
        &self,
        from: Seq,
        each: &mut dyn FnMut(&Batch<'_>) -> Result<ControlFlow<()>, LedgerError>,
    ) -> Result<WalkEnd, LedgerError> {
        let begins = |segment: &SegmentFile| segment.header.as_ref().is_ok_and(|header| header.first_seq <= from.max(Seq(1)));
        match self.segments.iter().rposition(begins) {
            Some(at) => self.run(at, self.segments.len(), from, each),
            None => {
                let first = &self.segments[0];
                Err(match &first.header {
                    Ok(header) => LedgerError::Archived { place: self.storage.place(""), first: header.first_seq },
                    Err(what) => self.headless(first, what),
                })
            }
        }
    }

    /// As [`Walk::from`], through one segment.
    pub fn segment(
        &self,
        segment: &SegmentFile,
        each: &mut dyn FnMut(&Batch<'_>) -> Result<ControlFlow<()>, LedgerError>,
    ) -> Result<WalkEnd, LedgerError> {
        let at = self.segments.iter().position(|known| known.index == segment.index);
        let at = at.expect("a segment of this walk");
        self.run(at, at + 1, Seq(0), each)
    }

    /// Reads a segment as a whole, which must end where the next one begins.
    pub(super) fn sealed(&self, segment: &SegmentFile, next: &SegmentFile) -> Result<(), LedgerError> {
        let at = self.segments.iter().position(|known| known.index == segment.index);
        let mut end = self.beginning(at.expect("a segment of this walk"))?;
        let scan = self.scan();
        scan.segment(segment.index, &mut end, &mut |_| Ok(()))?;
        scan.follows(next.index, &end)
    }

    fn scan(&self) -> Scan<'_, S> {
        let mark = self.mark.as_ref().ok().copied().flatten();
        let segments = self.segments[0].index..=self.segments[self.segments.len() - 1].index;
        Scan { storage: &self.storage, segments, mark, start: None, sync: false, patient: true }
    }

    fn run(
        &self,
        begin: usize,
        behind: usize,
        from: Seq,
        each: &mut dyn FnMut(&Batch<'_>) -> Result<ControlFlow<()>, LedgerError>,
    ) -> Result<WalkEnd, LedgerError> {
        let scan = self.scan();
        let mut end = self.beginning(begin)?;
        for (at, segment) in self.segments.iter().enumerate().take(behind).skip(begin) {
            let expected = self.segments[begin].index + (at - begin) as u64;
            if segment.index != expected {
                return Err(LedgerError::gap(self.storage.place(""), expected, segment.index));
            }
            let mut enough = false;
            let mut head = end.head;
            let scanned = scan.segment(segment.index, &mut end, &mut |seen| {
                let Seen::Batch(batch) = seen else { return Ok(()) };
                head = batch.header.last_seq();
                enough = head >= from && each(&Batch(&batch))?.is_break();
                if enough {
                    // Only an error ends a scan; nobody sees this one.
                    return Err(LedgerError::Incomplete { place: String::new(), what: String::new() });
                }
                Ok(())
            });
            if enough {
                return Ok(WalkEnd { head, torn: None });
            }
            scanned?;
        }
        if behind == self.segments.len() {
            scan.check_reached(&end)?;
        }
        Ok(WalkEnd { head: end.head, torn: end.torn })
    }

    fn headless(&self, segment: &SegmentFile, what: &str) -> LedgerError {
        let (file, expected) = (segment.file.clone(), first_of(&self.storage, segment.index));
        LedgerError::Damaged { file, offset: 0, expected, what: what.to_owned() }
    }

    /// What a scan knows before this segment, taken from the segment's own header.
    fn beginning(&self, at: usize) -> Result<End, LedgerError> {
        let segment = &self.segments[at];
        let header = segment.header.as_ref().map_err(|what| self.headless(segment, what))?;
        Ok(End {
            log_id: header.log_id,
            segments: self.segments[self.segments.len() - 1].index,
            segment_bytes: header.segment_bytes,
            offset: SEGMENT_HEAD_BYTES,
            batches: 0,
            head: Seq(header.first_seq.0.saturating_sub(1)),
            root: header.prev,
            epoch: 0,
            torn: None,
        })
    }
}

/// Goes through the headers of the batches of a segment, as far as one follows the other.
fn survey<S: Storage>(storage: &S, segment: &SegmentFile) -> Result<SegmentUse, LedgerError> {
    let Ok(header) = &segment.header else { return Ok(SegmentUse::default()) };
    let broken = || LedgerError::io(segment.file.as_str(), "read the segment");
    let file = storage.open(&segment_name(segment.index)).map_err(broken())?;
    let mut used = SegmentUse { bytes_used: SEGMENT_HEAD_BYTES, ..SegmentUse::default() };
    while used.bytes_used + BLOCK_BYTES as u64 <= header.segment_bytes {
        let mut bytes = [0; BATCH_HEAD_BYTES];
        read_zero_filled(&file, &mut bytes, used.bytes_used).map_err(broken())?;
        if is_zero(&bytes) {
            break;
        }
        let checked = BatchHeader::decode(&bytes).and_then(|(batch, root)| {
            check_place(&batch, header.log_id, segment.index, used.bytes_used, header.segment_bytes)?;
            Ok((batch, root))
        });
        match checked {
            Ok((batch, root)) => {
                used.batches += 1;
                (used.last, used.root, used.epoch) = (Some(batch.last_seq()), Some(root), batch.epoch);
                used.bytes_used += batch.extent_bytes();
            }
            Err(fault) => {
                used.fault = Some(fault.to_string());
                break;
            }
        }
    }
    Ok(used)
}

/// The entry with which a segment begins, told by the headers of the one before it; 0 if they do not tell it.
pub(super) fn first_of<S: Storage>(storage: &S, index: u64) -> Seq {
    if index == 1 {
        return Seq(1);
    }
    let last_before = || {
        let segment = look_at(storage, index.checked_sub(1)?, false).ok()?;
        let whole = segment.header.as_ref().is_ok_and(|header| header.segment_bytes == segment.size);
        let used = survey(storage, &segment).ok()?;
        used.last.filter(|_| whole && used.fault.is_none())
    };
    last_before().map_or(Seq(0), |last| Seq(last.0 + 1))
}

fn look_at<S: Storage>(storage: &S, index: u64, indexed: bool) -> Result<SegmentFile, LedgerError> {
    let name = segment_name(index);
    let place = storage.place(&name);
    let broken = || LedgerError::io(place.as_str(), "read the segment header");
    let file = storage.open(&name).map_err(broken())?;
    let size = file.size().map_err(broken())?;
    let header = read_header(&file).map_err(broken())?;
    let header = header.map(|(header, _)| header).map_err(|fault| format!("segment header: {fault}"));
    Ok(SegmentFile { index, file: place, size, header, indexed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::MemoryStorage;
    use crate::ledger::sample::{lane_batch, open};

    const SEGMENT: u64 = 8 * BLOCK_BYTES as u64;

    /// Ten batches of three entries in segments that hold six batches each.
    fn written() -> MemoryStorage {
        let storage = MemoryStorage::new();
        let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
        (0..10).for_each(|batch| assert!(log.append(&[lane_batch(1, 1 + 3 * batch, 3)]).is_ok()));
        log.close().unwrap();
        storage
    }

    fn entries_from(walk: &Walk<MemoryStorage>, from: u64, most: usize) -> (Vec<u64>, Result<WalkEnd, LedgerError>) {
        let mut seen = Vec::new();
        let end = walk.from(Seq(from), &mut |batch| {
            batch.visit(|seq, _| {
                seen.push(seq.0);
                if seen.len() == most {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        });
        (seen, end)
    }

    #[test]
    fn it_begins_with_the_batch_that_has_the_entry_and_ends_when_told() {
        let walk = Walk::open(written()).unwrap();
        assert_eq!(walk.segments().iter().map(|segment| segment.index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(walk.mark().unwrap().map(|mark| mark.head), Some(Seq(30)));
        for (from, first) in [(0, 1), (1, 1), (3, 1), (4, 4), (18, 16), (19, 19), (30, 28)] {
            let (seen, end) = entries_from(&walk, from, usize::MAX);
            assert_eq!(seen, (first..=30).collect::<Vec<_>>(), "from {from}");
            assert_eq!(end.unwrap(), WalkEnd { head: Seq(30), torn: None });
        }
        assert!(entries_from(&walk, 31, 1).0.is_empty());
        let (seen, end) = entries_from(&walk, 5, 4);
        assert_eq!((seen, end.unwrap().head), (vec![4, 5, 6, 7], Seq(9)));
    }

    #[test]
    fn headers_tell_what_is_in_a_segment() {
        let storage = written();
        let walk = Walk::open(storage.fork()).unwrap();
        let used = walk.survey(&walk.segments()[0]).unwrap();
        assert_eq!((used.batches, used.last, used.bytes_used, used.fault), (6, Some(Seq(18)), SEGMENT, None));
        let used = walk.survey(&walk.segments()[1]).unwrap();
        assert_eq!((used.batches, used.last, used.bytes_used, used.epoch), (4, Some(Seq(30)), 6 * BLOCK_BYTES as u64, 1));
        storage.tamper(&segment_name(1), |bytes| bytes[4 * BLOCK_BYTES] ^= 1);
        let walk = Walk::open(storage).unwrap();
        let used = walk.survey(&walk.segments()[0]).unwrap();
        assert_eq!((used.batches, used.last), (2, Some(Seq(6))));
        assert!(used.fault.unwrap().contains("does not match its hash"));
    }

    #[test]
    fn a_damaged_ledger_is_read_up_to_the_damage_and_again_from_the_next_segment() {
        let storage = written();
        storage.tamper(&segment_name(1), |bytes| bytes[4 * BLOCK_BYTES + 300] ^= 1);
        let walk = Walk::open(storage).unwrap();
        let (seen, end) = entries_from(&walk, 1, usize::MAX);
        assert_eq!(seen, (1..=6).collect::<Vec<_>>());
        assert!(matches!(end, Err(LedgerError::Damaged { expected: Seq(7), .. })), "{end:?}");
        assert_eq!(entries_from(&walk, 20, usize::MAX).0, (19..=30).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_missing_is_named() {
        let storage = written();
        storage.remove(&segment_name(1)).unwrap();
        let walk = Walk::open(storage.fork()).unwrap();
        assert_eq!(entries_from(&walk, 19, usize::MAX).0, (19..=30).collect::<Vec<_>>());
        assert!(entries_from(&walk, 5, 1).1.unwrap_err().to_string().contains("begins with entry 19"));
        storage.remove(&segment_name(2)).unwrap();
        assert!(Walk::open(storage).is_err_and(|fault| fault.to_string().contains("no ledger here")));
    }

    #[test]
    fn what_is_missing_shows_in_the_headers_and_the_mark() {
        let gaps = |storage: &MemoryStorage| {
            let walk = Walk::open(storage.fork()).unwrap();
            let surveys: Vec<_> = walk.segments().iter().map(|segment| walk.survey(segment).unwrap()).collect();
            walk.gaps(&surveys).join("; ")
        };
        let storage = MemoryStorage::new();
        let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
        (0..30).for_each(|batch| assert!(log.append(&[lane_batch(1, 1 + 3 * batch, 3)]).is_ok()));
        log.close().unwrap();
        assert_eq!(Walk::open(storage.fork()).unwrap().segments().len(), 5);
        let without = |gone: &[u64]| {
            let storage = storage.fork();
            gone.iter().for_each(|index| storage.remove(&segment_name(*index)).unwrap());
            gaps(&storage)
        };
        let [second, third, fourth, fifth] = [2, 3, 4, 5].map(segment_name);
        assert_eq!((without(&[]), without(&[1]), without(&[1, 2])), Default::default(), "they may be in an archive");
        assert_eq!(without(&[3]), format!("{third} is missing, although {fourth} exists"));
        assert_eq!(without(&[2, 3]), format!("{second} to {third} are missing, although {fourth} exists"));
        assert_eq!(without(&[5]), format!("{fifth} is missing, although the file `epoch` names the last of them"));
        let zeroed = |segment: u64, from: usize| {
            let storage = storage.fork();
            storage.tamper(&segment_name(segment), |bytes| bytes[from * BLOCK_BYTES..].fill(0));
            gaps(&storage)
        };
        assert_eq!(zeroed(2, 6), format!("{second} ends with entry 30, and {third} begins with entry 37"));
        let ends = |head: u64| format!("the log was durable up to entry 90 before, and what can be read ends with entry {head}");
        assert_eq!((zeroed(5, 7), zeroed(5, 2)), (ends(87), ends(72)));
        // The header of the last batch does not match its hash: it could pass for an interrupted write, but for the mark.
        storage.tamper(&segment_name(5), |bytes| bytes[7 * BLOCK_BYTES + 9] ^= 1);
        assert_eq!(gaps(&storage), ends(87));
    }

    #[test]
    fn the_loss_of_the_end_is_noticed_and_a_torn_end_is_told() {
        let storage = written();
        storage.tamper(&segment_name(2), |bytes| bytes[5 * BLOCK_BYTES..].fill(0));
        let (seen, end) = entries_from(&Walk::open(storage).unwrap(), 20, usize::MAX);
        assert_eq!(seen, (19..=27).collect::<Vec<_>>());
        assert!(end.unwrap_err().to_string().contains("durable up to entry 30"));
        let storage = written();
        storage.tamper(&segment_name(2), |bytes| bytes[6 * BLOCK_BYTES + 9] = 1);
        let (_, end) = entries_from(&Walk::open(storage).unwrap(), 20, usize::MAX);
        assert_eq!(end.unwrap().torn.map(|torn| (torn.offset, torn.bytes)), Some((6 * BLOCK_BYTES as u64, 10)));
    }
}
