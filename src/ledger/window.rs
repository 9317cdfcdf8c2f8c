//! Reading a segment in large pieces, and the batches in it checked but for their order.
//!
//! Invariants: what lies beyond the end of the file reads as zeros; where it is asked for and can be done, what is read comes from
//! the disk and not from the cache of the system. What follows what is not known here.
use super::batch::{check_body, check_place};
use super::layout::{BatchHeader, Fault, BATCH_HEAD_BYTES, BLOCK_BYTES};
use super::storage::{aligned_start, read_zero_filled, StorageFile};
use super::LedgerError;
use crate::domain::{LogId, Root};
use std::io;

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
    pub(crate) fn past_the_cache(mut self, unbuffered: io::Result<F>) -> Result<Self, LedgerError> {
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
            let ahead = self.ahead(offset).map_err(LedgerError::io(self.place.as_str(), "see how long the segment is"))?;
            (self.start, self.length) = (offset, length.max(ahead));
            self.room.resize((self.length + BLOCK_BYTES).max(self.room.len()), 0);
            self.room_start = aligned_start(&self.room);
            self.fill().map_err(LedgerError::io(self.place.as_str(), "read the segment"))?;
        }
        let at = self.room_start + (offset - self.start) as usize;
        Ok(&self.room[at..at + length])
    }

    /// How much to read at this place: not far beyond the end of the file, where there is nothing but zeros.
    fn ahead(&self, offset: u64) -> io::Result<usize> {
        let left = self.file.size()?.saturating_sub(offset).next_multiple_of(BLOCK_BYTES as u64);
        Ok(self.bytes_max.min(usize::try_from(left).unwrap_or(usize::MAX)))
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

    /// Whether it still reads past the cache.
    pub(crate) fn passes_the_cache(&self) -> bool {
        self.unbuffered.is_some()
    }

    /// The file, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::disk::DiskStorage;
    use crate::ledger::layout::is_zero;
    use crate::ledger::memory::MemoryStorage;
    use crate::ledger::storage::Storage;

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
