//! The file `epoch`: which opening of the log is the current one, and how far the log certainly reached.
//!
//! It is replaced when a log is opened, before anything is written, when a segment is begun, before its first batch, and when the
//! log is closed. So it fences (each opening has a higher number), it bounds what a damaged tail can hide (entries up to its mark
//! are never taken for an interrupted write), and the loss of the last segment shows.
use super::layout::{array_at, put, u32_at, u64_at, FORMAT_VERSION};
use super::storage::{install, prepare, replace, ReadFile, Storage};
use super::LedgerError;
use crate::domain::{LogId, Root, Seq};

/// Name of the file.
pub const EPOCH_NAME: &str = "epoch";

const MAGIC: [u8; 8] = *b"RONEPOCH";
const SEGMENT_AT: usize = 80;
const HASH_AT: usize = SEGMENT_AT + 8;
/// Length of an encoded mark, in bytes.
pub(super) const MARK_BYTES: usize = HASH_AT + 32;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The log that it belongs to.
    pub log_id: LogId,
    /// The opening of the log, from 1.
    pub epoch: u64,
    /// The last entry that was durable when the file was written; always the end of a batch.
    pub head: Seq,
    /// Chain hash after that entry.
    pub root: Root,
    /// The newest segment, which was durable under its name by then; 0 if unknown, in a file from before this was noted.
    pub segment: u64,
}

impl Mark {
    pub(super) fn encode(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 16, self.log_id.0);
        put(&mut bytes, 32, self.epoch.to_le_bytes());
        put(&mut bytes, 40, self.head.0.to_le_bytes());
        put(&mut bytes, 48, self.root);
        put(&mut bytes, SEGMENT_AT, self.segment.to_le_bytes());
        let hash = *blake3::hash(&bytes[..HASH_AT]).as_bytes();
        put(&mut bytes, HASH_AT, hash);
        bytes
    }

    /// Reads the file; `None` if there is none.
    pub fn read<S: Storage>(storage: &S) -> Result<Option<Self>, LedgerError> {
        let place = storage.place(EPOCH_NAME);
        let file = match storage.open(EPOCH_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::io(place, "open the epoch file")(error)),
        };
        let mut bytes = [0; MARK_BYTES];
        let read = file.read_at(&mut bytes, 0).map_err(LedgerError::io(place.as_str(), "read the epoch file"))?;
        match Self::decode(&bytes[..read]) {
            Some(Ok(mark)) => Ok(Some(mark)),
            Some(Err(version)) => Err(LedgerError::Unsupported { file: place, offset: 0, version }),
            None => Err(LedgerError::Mendable {
                place,
                missing: false,
                what: "the file does not match its own hash; no entry is in it".into(),
                next: move_aside(&storage.place("")).into(),
            }),
        }
    }

    /// What these bytes say; `None` if they are none, or damaged. The error is a version that is unknown.
    pub(super) fn decode(bytes: &[u8]) -> Option<Result<Self, u32>> {
        let whole = bytes.len() == MARK_BYTES && bytes[..8] == MAGIC;
        if !whole || blake3::hash(&bytes[..HASH_AT]).as_bytes()[..] != bytes[HASH_AT..] {
            return None;
        }
        Some(match u32_at(bytes, 8) {
            FORMAT_VERSION => Ok(Self {
                log_id: LogId(array_at(bytes, 16)),
                epoch: u64_at(bytes, 32),
                head: Seq(u64_at(bytes, 40)),
                root: array_at(bytes, 48),
                segment: u64_at(bytes, SEGMENT_AT),
            }),
            version => Err(version),
        })
    }

    /// Replaces the file, durably.
    pub fn write<S: Storage>(&self, storage: &S) -> Result<(), LedgerError> {
        replace(storage, EPOCH_NAME, &self.encode()).map_err(LedgerError::io(storage.place(EPOCH_NAME), "write the epoch file"))
    }

    /// Writes the new content aside, durably: the half of [`Mark::write`] that needs room.
    pub fn prepare<S: Storage>(&self, storage: &S) -> std::io::Result<()> {
        prepare(storage, EPOCH_NAME, &self.encode())
    }

    /// Replaces the file by what was prepared, durably.
    pub fn install<S: Storage>(storage: &S) -> Result<(), LedgerError> {
        install(storage, EPOCH_NAME).map_err(LedgerError::io(storage.place(EPOCH_NAME), "replace the epoch file"))
    }
}

/// What to do about a damaged file. Only a person may go on without it, because it may be all that knows of a lost last segment.
fn move_aside(directory: &str) -> String {
    format!(
        "do not restore the directory for this, which would lose all that came after the backup: compare the last receipts with head and \
         chain hash of `ronctl ledger inspect --dir {directory}`, move this file aside, and start; the file `witness` or the last batch \
         stands in for it, and it is written again (RUNBOOK.md, The ledger is damaged)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::MemoryStorage;

    #[test]
    fn the_mark_is_read_as_written_and_damage_is_refused() {
        let storage = MemoryStorage::new();
        assert_eq!(Mark::read(&storage).unwrap(), None);
        let mark = Mark { log_id: LogId([1; 16]), epoch: 2, head: Seq(3), root: [4; 32], segment: 5 };
        mark.write(&storage).unwrap();
        assert_eq!(Mark::read(&storage.crash(&mut || false)).unwrap(), Some(mark));
        for byte in 0..MARK_BYTES {
            let bad = storage.fork();
            bad.tamper(EPOCH_NAME, |bytes| bytes[byte] ^= 1);
            assert!(Mark::read(&bad).is_err(), "byte {byte}");
        }
        storage.tamper(EPOCH_NAME, |bytes| bytes.truncate(50));
        let told = Mark::read(&storage).unwrap_err().to_string();
        assert!(told.contains("damaged in memory:epoch") && told.contains("move this file aside, and start"), "{told}");
    }
}
