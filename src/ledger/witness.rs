//! The file `witness`: marks of the last commits, each written after its batch was durable and before anybody was told.
//!
//! It is not synced, so it costs a commit no wait. A process that is killed leaves it in the cache of the system, and a power loss
//! leaves what was written back by then: never more than the truth. So it only ever raises the mark of the file `epoch`: a damaged
//! last batch cannot be taken for an interrupted write if one of these names it. What of it cannot be read, or is of another log,
//! is evidence that is missing, and no fault.
use super::log::is_lack_of_room;
use super::mark::{Mark, MARK_BYTES};
use super::scan::log_of_segments;
use super::storage::{replace, ReadFile, Storage, StorageFile};
use super::LedgerError;

/// Name of the file.
pub const WITNESS_NAME: &str = "witness";

/// Each mark has a sector of its own, so that a torn write costs one.
const SECTOR_BYTES: usize = 512;
/// How many marks are kept.
const SLOTS: usize = 8;

/// The marks of the last commits, as they are written.
pub(super) struct Witness<F> {
    /// Nothing if there was no room to make it, or after a write that failed: what is there stays true, and no commit depends on more.
    file: Option<F>,
    next: usize,
}

impl<F: StorageFile> Witness<F> {
    /// Opens the file, or makes it with room for all marks. A log without room for that is opened all the same: it can be read.
    pub(super) fn open<S: Storage<File = F>>(storage: &S) -> Result<Self, LedgerError> {
        let io = |doing| LedgerError::io(storage.place(WITNESS_NAME), doing);
        let file = match storage.open(WITNESS_NAME) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match replace(storage, WITNESS_NAME, &[0; SLOTS * SECTOR_BYTES]) {
                    Err(error) if is_lack_of_room(&error) => {
                        tracing::warn!(%error, "no room for the file `witness`; until the next start, damage to the very last commit may \
                            pass for an interrupted write");
                        return Ok(Self { file: None, next: 0 });
                    }
                    made_or_not => made_or_not.map_err(io("make the witness file"))?,
                }
                storage.open(WITNESS_NAME)
            }
            opened_or_not => opened_or_not,
        };
        let file = file.map_err(io("open the witness file"))?;
        let newest = slots(&file).map(|(slot, mark)| (mark.head, slot)).max();
        Ok(Self { file: Some(file), next: newest.map_or(0, |(_, slot)| (slot + 1) % SLOTS) })
    }

    /// A batch is durable.
    pub(super) fn note(&mut self, mark: &Mark) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_at(&mark.encode(), (self.next * SECTOR_BYTES) as u64) {
            tracing::error!(%error, "the file `witness` cannot be written; until the next start, damage to the very last commit may \
                pass for an interrupted write");
            self.file = None;
        }
        self.next = (self.next + 1) % SLOTS;
    }
}

fn slots(file: &impl ReadFile) -> impl Iterator<Item = (usize, Mark)> {
    let mut bytes = [0; SLOTS * SECTOR_BYTES];
    let read = file.read_at(&mut bytes, 0).unwrap_or_else(|error| {
        tracing::warn!(%error, "the file `witness` cannot be read");
        0
    });
    bytes[read..].fill(0);
    (0..SLOTS).filter_map(move |slot| Some((slot, Mark::decode(&bytes[slot * SECTOR_BYTES..][..MARK_BYTES])?.ok()?)))
}

/// How far the log certainly reached: what the file `epoch` says, or a later commit of the same log that has a witness. `None` if
/// neither is there.
///
/// # Errors
/// If `epoch` cannot be read, or is damaged.
pub(super) fn known_mark<S: Storage>(storage: &S) -> Result<Option<Mark>, LedgerError> {
    let noted = Mark::read(storage)?;
    let log_id = noted.map(|noted| noted.log_id).or_else(|| log_of_segments(storage));
    let seen = storage.open(WITNESS_NAME).ok().and_then(|file| {
        let marks = slots(&file).map(|(_, mark)| mark);
        marks.filter(|mark| log_id.map_or(true, |log_id| log_id == mark.log_id)).max_by_key(|mark| mark.head)
    });
    Ok(match (noted, seen) {
        (Some(noted), Some(seen)) if seen.head > noted.head => {
            Some(Mark { epoch: noted.epoch.max(seen.epoch), segment: noted.segment.max(seen.segment), ..seen })
        }
        (noted, seen) => noted.or(seen),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LogId, Seq};
    use crate::ledger::memory::MemoryStorage;

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
        let heads: Vec<u64> = slots(&file).map(|(_, mark)| mark.head.0).collect();
        assert_eq!(heads, [25, 26, 27, 28, 29, 22, 23, 24]);
        let later = Mark { epoch: 9, segment: 40, ..mark(28) };
        later.write(&storage).unwrap();
        assert_eq!(known_mark(&storage).unwrap(), Some(Mark { epoch: 9, segment: 40, ..mark(29) }));
        storage.remove(super::super::mark::EPOCH_NAME).unwrap();
        assert_eq!(known_mark(&storage).unwrap(), Some(mark(29)), "it stands in for a lost `epoch`");
        Mark { log_id: LogId([2; 16]), ..mark(1) }.write(&storage).unwrap();
        assert_eq!(known_mark(&storage).unwrap().unwrap().head, Seq(1), "the marks of another log say nothing");
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
