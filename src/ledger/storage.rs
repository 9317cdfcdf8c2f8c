//! What the ledger asks of a disk, and how its files are named. The simulator puts a disk in memory behind the same trait.
//!
//! A storage is one directory. What was written is durable only after `sync` of the file; a name only after `sync_directory`.
use super::layout::BLOCK_BYTES;
use std::io;
use std::path::PathBuf;

/// An open file as its readers see it; clones share it.
pub trait ReadFile: Clone + Send + Sync + 'static {
    /// Fills the buffer from this offset; returns fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// An open file; clones share it.
pub trait StorageFile: ReadFile {
    /// Writes all bytes at this offset, growing the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable. After an error nothing is known about it, and asking again tells nothing.
    fn sync(&self) -> io::Result<()>;
    /// Lets the file end here; what stood behind is gone, durably after the next sync.
    fn cut(&self, length: u64) -> io::Result<()>;
}

/// A directory that holds one ledger; clones share it.
pub trait Storage: Clone + Send + Sync + 'static {
    /// Its files.
    type File: StorageFile;
    /// The writer lock; dropping it lets go.
    type Lock: Send + 'static;

    /// Takes the writer lock; `None` if another writer holds it.
    fn lock(&self) -> io::Result<Option<Self::Lock>>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file, in place of an old one of this name.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// As [`Storage::create`], for a file that is written in whole blocks from memory that begins where a block may, and that nobody
    /// reads soon: where it can be done, past the cache of the system. Writing fails with `InvalidInput` where it cannot.
    fn create_unbuffered(&self, name: &str) -> io::Result<Self::File> {
        self.create(name)
    }
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file that exists, to read what the disk has rather than what the cache of the system shows: after a sync that
    /// failed the two differ, and a later sync that succeeds tells nothing. It is read in whole blocks, into memory that begins
    /// at `aligned_start`. Opening or reading fails with `InvalidInput` where this cannot be done. There is deliberately no
    /// default: a storage that forgot it would believe its cache.
    fn open_unbuffered(&self, name: &str) -> io::Result<Self::File>;
    /// Renames a file, in place of an old one of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// The absolute path under which other processes find it; `None` if it is in none.
    fn directory(&self) -> Option<PathBuf> {
        None
    }
    /// The full name for messages; the directory itself for the empty name.
    fn place(&self, name: &str) -> String;
}

/// Name under which files are prepared; whatever still has this ending when a log is opened is removed.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Name of a segment file.
pub fn segment_name(index: u64) -> String {
    format!("segment-{index:010}.log")
}

/// The number in the name of a segment file; `None` for all other names.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let index = digits.parse().ok()?;
    (segment_name(index) == name).then_some(index)
}

/// Name of the index file of a sealed segment.
pub fn index_name(index: u64) -> String {
    format!("index-{index:010}.idx")
}

/// The number of an index file, which is that of its segment; `None` for all other names.
pub fn index_number(name: &str) -> Option<u64> {
    let index = name.strip_prefix("index-")?.strip_suffix(".idx")?.parse().ok()?;
    (index_name(index) == name).then_some(index)
}

/// How far into `room` the first block boundary of memory is: less than one block, which the caller allocates in addition.
pub fn aligned_start(room: &[u8]) -> usize {
    room.as_ptr().align_offset(BLOCK_BYTES)
}

/// Reads exactly the buffer; what lies beyond the end of the file reads as zeros.
pub fn read_zero_filled(file: &impl ReadFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buffer, offset)?;
    buffer[read..].fill(0);
    Ok(())
}

/// Writes a small file so that after a crash the old or the new content is there, never a mixture.
pub fn replace<S: Storage>(storage: &S, name: &str, content: &[u8]) -> io::Result<()> {
    prepare(storage, name, content)?;
    install(storage, name)
}

/// The first half of [`replace`]: the new content is durable under a temporary name. It needs room; the second half does not.
pub fn prepare<S: Storage>(storage: &S, name: &str, content: &[u8]) -> io::Result<()> {
    let file = storage.create(&format!("{name}{TEMPORARY_SUFFIX}"))?;
    file.write_at(content, 0)?;
    file.sync()
}

/// The second half of [`replace`]: what was prepared takes the place of the old content, durably.
pub fn install<S: Storage>(storage: &S, name: &str) -> io::Result<()> {
    storage.rename(&format!("{name}{TEMPORARY_SUFFIX}"), name)?;
    storage.sync_directory()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(segment_number(&segment_name(42)), Some(42));
        assert_eq!(segment_name(1), "segment-0000000001.log");
        for other in ["segment-1.log", "segment-0000000001.log.tmp", "segment-+000000001.log", "index-0000000001.idx", "lock"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }
}
