//! A directory in the memory of this process, for a ledger that is to leave nothing on a disk: it goes with the process.
//!
//! Invariants: no system call makes, opens or changes a file; all files together are never longer than the bound, which is what a full
//! disk is elsewhere; pieces of which only zeros were written take no memory.
use super::storage::{ReadFile, Storage, StorageFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// What is allocated at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A directory in memory; clones are handles to the same one.
#[derive(Clone)]
pub struct RamStorage {
    names: Arc<Mutex<BTreeMap<String, RamFile>>>,
    room: Arc<Room>,
    /// Whether there is a writer.
    locked: Arc<AtomicBool>,
}

/// How long all files may be together.
struct Room {
    bytes_max: u64,
    used: AtomicU64,
}

impl Room {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.bytes_max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        taken.map(drop).map_err(|_| rustix::io::Errno::NOSPC.into())
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl RamStorage {
    /// An empty directory whose files may be this long together.
    pub fn new(bytes_max: u64) -> Self {
        let room = Room { bytes_max, used: AtomicU64::new(0) };
        Self { names: Arc::default(), room: Arc::new(room), locked: Arc::default() }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, RamFile>> {
        self.names.lock().expect("no thread panics while it holds the names")
    }
}

/// The writer lock of a directory in memory.
pub struct RamLock(Arc<AtomicBool>);

impl Drop for RamLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Storage for RamStorage {
    type File = RamFile;
    type Lock = RamLock;

    fn lock(&self) -> io::Result<Option<RamLock>> {
        Ok((!self.locked.swap(true, Ordering::Acquire)).then(|| RamLock(self.locked.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<RamFile> {
        let contents = Contents { length: 0, pieces: Vec::new(), room: self.room.clone() };
        let file = RamFile(Arc::new(RwLock::new(contents)));
        self.names().insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<RamFile> {
        self.names().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What was written is what there is: no cache lies in between.
    fn open_unbuffered(&self, name: &str) -> io::Result<RamFile> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names();
        let file = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.names().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}

/// An open file in memory; it is there as long as it has a name or somebody has it open.
#[derive(Clone)]
pub struct RamFile(Arc<RwLock<Contents>>);

struct Contents {
    length: u64,
    /// None for those that are zeros.
    pieces: Vec<Option<Box<[u8]>>>,
    room: Arc<Room>,
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.room.give_back(self.length);
    }
}

impl Contents {
    fn grow(&mut self, length: u64) -> io::Result<()> {
        if length > self.length {
            self.room.take(length - self.length)?;
            self.length = length;
            self.pieces.resize_with(length.div_ceil(PIECE_BYTES as u64) as usize, || None);
        }
        Ok(())
    }
}

/// The parts of a range that lie in one piece each: number of the piece, place in it, place in the range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PIECE_BYTES as u64) as usize;
        let bytes = (length - done).min(PIECE_BYTES - within);
        let range = done..done + bytes;
        done += bytes;
        (bytes > 0).then_some(((at / PIECE_BYTES as u64) as usize, within, range))
    })
}

const POISONED: &str = "no thread panics while it holds a file";

impl ReadFile for RamFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let contents = self.0.read().expect(POISONED);
        let length = buffer.len().min(contents.length.saturating_sub(offset) as usize);
        for (piece, within, range) in parts(offset, length) {
            let bytes = range.len();
            match &contents.pieces[piece] {
                Some(piece) => buffer[range].copy_from_slice(&piece[within..within + bytes]),
                None => buffer[range].fill(0),
            }
        }
        Ok(length)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.read().expect(POISONED).length)
    }
}

impl StorageFile for RamFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut contents = self.0.write().expect(POISONED);
        contents.grow(offset + bytes.len() as u64)?;
        for (piece, within, range) in parts(offset, bytes.len()) {
            let (piece, bytes) = (&mut contents.pieces[piece], &bytes[range]);
            if piece.is_none() && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let piece = piece.get_or_insert_with(|| vec![0; PIECE_BYTES].into_boxed_slice());
            piece[within..within + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut contents = self.0.write().expect(POISONED);
        if length < contents.length {
            contents.room.give_back(contents.length - length);
            contents.length = length;
            contents.pieces.truncate(length.div_ceil(PIECE_BYTES as u64) as usize);
            let within = (length % PIECE_BYTES as u64) as usize;
            if let (Some(Some(last)), 1..) = (contents.pieces.last_mut(), within) {
                // What is grown again begins with zeros.
                last[within..].fill(0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Op;
    use crate::ledger::layout::BLOCK_BYTES;
    use crate::ledger::sample::{entry, lane_batch_of, open};

    #[test]
    fn what_is_written_is_read_across_pieces_and_zeros_take_no_memory() {
        let storage = RamStorage::new(1 << 20);
        let file = storage.create("a.tmp").unwrap();
        file.write_at(&[0; 3 * PIECE_BYTES], 0).unwrap();
        assert!(file.0.read().unwrap().pieces.iter().all(Option::is_none));
        let bytes: Vec<u8> = (0..PIECE_BYTES + 200).map(|at| at as u8 | 1).collect();
        file.write_at(&bytes, PIECE_BYTES as u64 - 100).unwrap();
        storage.rename("a.tmp", "a").unwrap();
        assert!(storage.open("a.tmp").is_err() && storage.list().unwrap() == ["a"]);
        let mut read = vec![7; 3 * PIECE_BYTES];
        assert_eq!(storage.open("a").unwrap().read_at(&mut read, 0).unwrap(), read.len());
        let mut expected = vec![0; 3 * PIECE_BYTES];
        expected[PIECE_BYTES - 100..2 * PIECE_BYTES + 100].copy_from_slice(&bytes);
        assert_eq!(read, expected);
        file.cut(PIECE_BYTES as u64 + 50).unwrap();
        assert_eq!((file.size().unwrap(), file.read_at(&mut read, PIECE_BYTES as u64).unwrap()), (PIECE_BYTES as u64 + 50, 50));
        file.write_at(&[9], 2 * PIECE_BYTES as u64).unwrap();
        assert_eq!(file.read_at(&mut read[..60], PIECE_BYTES as u64 + 40).unwrap(), 60);
        assert_eq!((read[9], &read[10..60]), (bytes[149], &[0; 50][..]), "what was cut off does not come back");
    }

    #[test]
    fn all_files_share_a_bound_and_give_back_what_nobody_has_open_any_more() {
        let storage = RamStorage::new(1000);
        let (one, two) = (storage.create("one").unwrap(), storage.create("two").unwrap());
        one.write_at(&[1; 600], 0).unwrap();
        assert_eq!(two.write_at(&[1; 401], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        two.write_at(&[1; 400], 0).unwrap();
        one.write_at(&[2; 600], 0).unwrap();
        storage.remove("two").unwrap();
        assert!(one.write_at(&[1], 600).is_err(), "somebody has it open");
        drop(two);
        one.write_at(&[1; 400], 600).unwrap();
        one.cut(0).unwrap();
        storage.create("three").unwrap().write_at(&[1; 1000], 0).unwrap();
    }

    #[test]
    fn there_is_one_writer_at_a_time() {
        let storage = RamStorage::new(0);
        let lock = storage.lock().unwrap().unwrap();
        assert!(storage.clone().lock().unwrap().is_none());
        drop(lock);
        assert!(storage.lock().unwrap().is_some());
    }

    #[test]
    fn a_ledger_lives_in_it_and_a_full_one_takes_nothing_more() {
        let storage = RamStorage::new(1 << 20);
        let (mut log, ..) = open(&storage, 16 * BLOCK_BYTES as u64).unwrap();
        assert!(log.append(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "alice", 1000, 0)])]).is_ok());
        let mut taken = 0;
        for nonce in 1..=1000 {
            if log.append(&[lane_batch_of(0, nonce + 1, &[entry(Op::Transfer, "alice", "bob", 1, nonce)])]).is_err() {
                break;
            }
            taken = nonce;
        }
        assert!((100..1000).contains(&taken), "{taken}");
        drop(log);
        let (log, recovery, _) = open(&storage, 16 * BLOCK_BYTES as u64).unwrap();
        assert_eq!((recovery.entries, log.reader().head().0), (taken + 1, taken + 1), "as long as the process lives");
    }
}
