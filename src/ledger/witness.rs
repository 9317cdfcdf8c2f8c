//! The file `witness`: marks of the last commits, each written after its batch was durable and before anybody was told.
//!
//! It is not synced, so it costs a commit no wait. A process that is killed leaves it in the cache of the system, and a power loss
//! leaves what was written back by then: never more than the truth. So it only ever raises the mark of the file `epoch`: a damaged
//! last batch cannot be taken for an interrupted write if one of these names it. A mark that is torn or damaged, or of another log,
//! is evidence that is missing, and no fault; a file that the disk does not let be read is one, as for every other file.
use super::layout::is_zero;
use super::log::is_lack_of_room;
use super::mark::{Mark, MARK_BYTES};
use super::scan::log_of_segments;
use super::storage::{replace, ReadFile, Storage, StorageFile};
use super::LedgerError;
use std::io;

/// Name of the file.
pub const WITNESS_NAME: &str = "witness";

/// Each mark has a sector of its own, so that a torn write costs one.
const SECTOR_BYTES: usize = 512;
/// How many marks are kept.
const SLOTS: usize = 8;

/// The marks of the last commits, as they are written.
pub(super) struct Witness<F> {
    /// Nothing if there was no room to make it: no commit depends on it.
    file: Option<F>,
    next: usize,
    /// The last mark could not be written. What is there stays true, and the next one is tried.
    failing: bool,
}

impl<F: StorageFile> Witness<F> {
    /// Opens the file, or makes it with room for all marks. A log without room for that is opened all the same: it can be read.
    pub(super) fn open<S: Storage<File = F>>(storage: &S) -> Result<Self, LedgerError> {
        let io = |doing| LedgerError::io(storage.place(WITNESS_NAME), doing);
        let file = match storage.open(WITNESS_NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match replace(storage, WITNESS_NAME, &[0; SLOTS * SECTOR_BYTES]) {
                    Err(error) if is_lack_of_room(&error) => {
                        tracing::warn!(
                            event = "witness_not_made", %error,
                            "no room for the file `witness`; until the next start, damage to the very last commit may pass for an \
                             interrupted write"
                        );
                        return Ok(Self { file: None, next: 0, failing: false });
                    }
                    made_or_not => made_or_not.map_err(io("make the witness file"))?,
                }
                storage.open(WITNESS_NAME)
            }
            opened_or_not => opened_or_not,
        };
        let file = file.map_err(io("open the witness file"))?;
        let newest = slots(storage, &file)?.map(|(slot, mark)| (mark.head, slot)).max();
        Ok(Self { file: Some(file), next: newest.map_or(0, |(_, slot)| (slot + 1) % SLOTS), failing: false })
    }

    /// A batch is durable.
    pub(super) fn note(&mut self, mark: &Mark) {
        let Some(file) = &self.file else { return };
        let written = file.write_at(&mark.encode(), (self.next * SECTOR_BYTES) as u64);
        match &written {
            Err(error) if !self.failing => {
                tracing::error!(
                    event = "witness_failed", %error,
                    "the file `witness` cannot be written; until it can be, damage to the very last commit may pass for an interrupted \
                     write"
                )
            }
            Ok(()) if self.failing => tracing::info!(event = "witness_goes_on", "the file `witness` can be written again"),
            _ => {}
        }
        self.failing = written.is_err();
        self.next = (self.next + 1) % SLOTS;
    }
}

fn slots<S: Storage>(storage: &S, file: &S::File) -> Result<impl Iterator<Item = (usize, Mark)>, LedgerError> {
    let mut bytes = [0; SLOTS * SECTOR_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(unreadable(storage))?;
    bytes[read..].fill(0);
    Ok((0..SLOTS).filter_map(move |slot| Some((slot, Mark::decode(&bytes[slot * SECTOR_BYTES..][..MARK_BYTES])?.ok()?))))
}

fn unreadable<S: Storage>(storage: &S) -> impl FnOnce(io::Error) -> LedgerError {
    LedgerError::io(storage.place(WITNESS_NAME), "read the witness file")
}

/// How far the log certainly reached: what the file `epoch` says, or a later commit of the same log that has a witness. `None` if
/// neither is there.
///
/// # Errors
/// If one of them cannot be read, or `epoch` is damaged.
pub(super) fn known_mark<S: Storage>(storage: &S) -> Result<Option<Mark>, LedgerError> {
    let noted = Mark::read(storage)?;
    let log_id = noted.map(|noted| noted.log_id).or_else(|| log_of_segments(storage));
    let seen = match storage.open(WITNESS_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(storage)(error)),
        Ok(file) => {
            let marks = slots(storage, &file)?.map(|(_, mark)| mark);
            marks.filter(|mark| log_id.map_or(true, |log_id| log_id == mark.log_id)).max_by_key(|mark| mark.head)
        }
    };
    Ok(match (noted, seen) {
        (Some(noted), Some(seen)) if seen.head > noted.head => {
            Some(Mark { epoch: noted.epoch.max(seen.epoch), segment: noted.segment.max(seen.segment), ..seen })
        }
        (noted, seen) => noted.or(seen),
    })
}

/// What is wrong with the file, if it is there and something is. Marks that were never written are no fault.
pub(super) fn flaw<S: Storage>(storage: &S) -> io::Result<Option<String>> {
    let file = match storage.open(WITNESS_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = [0; SLOTS * SECTOR_BYTES];
    let read = file.read_at(&mut bytes, 0)?;
    if read < bytes.len() {
        return Ok(Some(format!("it has {read} bytes, and should have {}", bytes.len())));
    }
    let is_bad = |sector: &&[u8]| !is_zero(sector) && !matches!(Mark::decode(&sector[..MARK_BYTES]), Some(Ok(_)));
    let bad = bytes.chunks(SECTOR_BYTES).filter(is_bad).count();
    Ok((bad > 0).then(|| format!("{bad} of the {SLOTS} marks in it are damaged")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LogId, Seq};
    use crate::ledger::memory::{Faults, MemoryStorage, ReadFault, WriteFault};
    use std::sync::{Arc, Mutex};

    fn mark(head: u64) -> Mark {
        Mark { log_id: LogId([1; 16]), epoch: 2, head: Seq(head), root: [head as u8; 32], segment: 1 + head / 10 }
    }

    #[test]
    fn the_furthest_commit_that_was_witnessed_raises_the_mark_and_nothing_lowers_it() {
        let storage = MemoryStorage::new();
        assert_eq!(known_mark(&storage).unwrap(), None);
        mark(5).write(&storage).unwrap();
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(5)));
        let mut witness = Witness::open(&storage).unwrap();
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(5)), "a file without a mark");
        for head in [3, 7, 12, 20, 21, 22, 23, 24, 25, 26] {
            witness.note(&mark(head));
            assert_eq!(known_mark(&storage).unwrap(), Some(mark(head.max(5))));
        }
        // Opened again, it goes on behind the newest.
        let mut witness = Witness::open(&storage).unwrap();
        (27..30).for_each(|head| witness.note(&mark(head)));
        let file = storage.open(WITNESS_NAME).unwrap();
        let heads: Vec<u64> = slots(&storage, &file).unwrap().map(|(_, mark)| mark.head.0).collect();
        assert_eq!(heads, [25, 26, 27, 28, 29, 22, 23, 24]);
        let later = Mark { epoch: 9, segment: 40, ..mark(28) };
        later.write(&storage).unwrap();
        assert_eq!(known_mark(&storage).unwrap(), Some(Mark { epoch: 9, segment: 40, ..mark(29) }));
        storage.remove(super::super::mark::EPOCH_NAME).unwrap();
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(29)), "it stands in for a lost `epoch`");
        Mark { log_id: LogId([2; 16]), ..mark(1) }.write(&storage).unwrap();
        assert_eq!(known_mark(&storage).unwrap().unwrap().head, Seq(1), "the marks of another log say nothing");
    }

    /// What goes wrong with the file, as long as it does.
    #[derive(Default)]
    struct Fails {
        writes: bool,
        reads: bool,
    }

    impl Faults for Fails {
        fn write(&mut self, _: &str, _: u64, _: usize) -> Option<WriteFault> {
            self.writes.then_some(WriteFault::Error)
        }

        fn read(&mut self, _: &str, _: u64, _: usize) -> Option<ReadFault> {
            self.reads.then_some(ReadFault::Error)
        }
    }

    #[test]
    fn a_mark_that_cannot_be_written_is_missing_and_the_next_is_tried() {
        let (storage, fails) = (MemoryStorage::new(), Arc::new(Mutex::new(Fails::default())));
        let mut witness = Witness::open(&storage).unwrap();
        storage.set_faults(Arc::clone(&fails) as _);
        witness.note(&mark(1));
        fails.lock().unwrap().writes = true;
        witness.note(&mark(2));
        witness.note(&mark(3));
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(1)));
        fails.lock().unwrap().writes = false;
        witness.note(&mark(4));
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(4)));
    }

    #[test]
    fn marks_that_the_disk_does_not_let_be_read_are_not_taken_for_none() {
        let (storage, fails) = (MemoryStorage::new(), Arc::new(Mutex::new(Fails::default())));
        Witness::open(&storage).unwrap().note(&mark(1));
        storage.set_faults(Arc::clone(&fails) as _);
        fails.lock().unwrap().reads = true;
        let told = known_mark(&storage).unwrap_err().to_string();
        assert!(told.contains("could not read the witness file") && told.contains("start again"), "{told}");
        assert!(Witness::open(&storage).is_err());
        fails.lock().unwrap().reads = false;
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(1)));
    }

    #[test]
    fn damage_to_a_mark_costs_that_one() {
        let storage = MemoryStorage::new();
        mark(1).write(&storage).unwrap();
        let mut witness = Witness::open(&storage).unwrap();
        witness.note(&mark(2));
        witness.note(&mark(3));
        for byte in 0..MARK_BYTES {
            let bad = storage.fork();
            bad.tamper(WITNESS_NAME, |bytes| bytes[SECTOR_BYTES + byte] ^= 1);
            assert_eq!(known_mark(&bad).unwrap(), Some(mark(2)), "byte {byte}");
        }
        storage.tamper(WITNESS_NAME, |bytes| bytes.truncate(SECTOR_BYTES + 50));
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(2)));
        storage.tamper(WITNESS_NAME, Vec::clear);
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(1)));
    }
}
