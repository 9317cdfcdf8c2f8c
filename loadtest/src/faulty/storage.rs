//! A directory on a real file system that loses, on SIGKILL, what a power loss would lose; or lies; or has no room.
//!
//! What is written stays in the memory of this process until the file is synced; a seeded choice of blocks or sectors reaches the
//! file at once, as the cache of a system may write early whatever it likes. So a process that is killed leaves what was synced,
//! and any part of the rest. Names are durable at once: a new name may be there without its content, which is the harder case.
//! What a disk does beyond that is switched by files in the directory of [`Switches`], so that the test can do it at any moment.
//! It does not interpret a byte of what it stores.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc, Mutex, MutexGuard,
    },
};

use svc_wallet::ledger::{DiskFile, DiskStorage, ReadFile, Storage, StorageFile};

use super::held::{Held, SECTOR_BYTES};
use crate::rng::{Random, Share};

/// What the cache of a system writes as one piece, in bytes.
const BLOCK_BYTES: usize = 4096;

/// The files by which a test switches a disk, and by which the disk tells.
#[derive(Clone, Debug)]
pub struct Switches(PathBuf);

impl Switches {
    /// Switches in this directory, which exists.
    pub fn in_directory(directory: &Path) -> Switches {
        Switches(directory.to_owned())
    }

    /// While this file is there, nothing grows.
    pub fn full(&self) -> PathBuf {
        self.0.join("full")
    }

    /// While this file is there, syncs say that they have succeeded, and do nothing.
    pub fn lie(&self) -> PathBuf {
        self.0.join("lie")
    }

    /// While this file is there, syncs of segments fail: those that a commit waits for. A new segment that cannot be synced ahead is
    /// lack of room to a ledger, and no commit would come that could fail.
    pub fn fail_syncs(&self) -> PathBuf {
        self.0.join("fail-syncs")
    }

    /// Made as soon as so many syncs of segments have lied that the wallet must have got an acknowledgement for the first.
    pub fn lied(&self) -> PathBuf {
        self.0.join("lied")
    }
}

/// After so many syncs of segments that lied, one batch at least has been acknowledged: its writer answers before it goes on.
const LIES_UNTIL_ACKNOWLEDGED: u64 = 2;

/// What all handles of a file share.
struct Kept {
    held: Mutex<Held>,
    /// Whether it has the name of a segment, so that a commit is behind its sync. A spare gets that name while it is open.
    is_segment: AtomicBool,
}

struct Shared {
    disk: DiskStorage,
    switches: Switches,
    /// What is held of each file that is open, by name.
    held: Mutex<HashMap<String, Arc<Kept>>>,
    random: Mutex<Random>,
    lies: AtomicU64,
    /// A lie loses all of what was written, so that the ledger ends sooner and looks whole; otherwise parts of it, which leaves gaps.
    lies_keep_all: bool,
}

/// The directory; clones share it.
#[derive(Clone)]
pub struct FaultyStorage(Arc<Shared>);

/// An open file; clones share it.
#[derive(Clone)]
pub struct FaultyFile {
    shared: Arc<Shared>,
    file: DiskFile,
    kept: Arc<Kept>,
}

/// Which part of a write reaches the file before it is synced.
#[derive(Clone, Copy)]
enum Early {
    Nothing,
    /// Some of its blocks of 4 KiB.
    Blocks,
    /// Some of its sectors.
    Sectors,
}

impl FaultyStorage {
    /// The directory, with what it has. The seed decides what reaches a file early.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn create(directory: &Path, switches: Switches, seed: u64) -> io::Result<FaultyStorage> {
        let disk = DiskStorage::create(directory)?;
        let mut random = Random::new(seed);
        let lies_keep_all = random.chance(Share::of(0.5));
        let (held, random, lies) = (Mutex::default(), Mutex::new(random), AtomicU64::new(0));
        Ok(FaultyStorage(Arc::new(Shared { disk, switches, held, random, lies, lies_keep_all })))
    }

    fn file(&self, name: &str, file: DiskFile, fresh: bool) -> io::Result<FaultyFile> {
        let mut all = lock(&self.0.held);
        let kept = match all.get(name).filter(|_| !fresh) {
            Some(kept) => Arc::clone(kept),
            None => {
                let held = Mutex::new(Held::of(file.size()?));
                let kept = Arc::new(Kept { held, is_segment: AtomicBool::new(is_segment(name)) });
                all.insert(name.to_owned(), Arc::clone(&kept));
                kept
            }
        };
        Ok(FaultyFile { shared: Arc::clone(&self.0), file, kept })
    }
}

fn is_segment(name: &str) -> bool {
    name.starts_with("segment-")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds what is kept of a file")
}

impl Shared {
    fn refuse_if_full(&self) -> io::Result<()> {
        if self.switches.full().exists() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    fn early(&self) -> Early {
        if self.lies_keep_all && self.switches.lie().exists() {
            return Early::Nothing;
        }
        match lock(&self.random).below(3) {
            0 => Early::Nothing,
            1 => Early::Blocks,
            _sectors => Early::Sectors,
        }
    }
}

impl Storage for FaultyStorage {
    type File = FaultyFile;
    type Lock = <DiskStorage as Storage>::Lock;

    fn lock(&self) -> io::Result<Option<Self::Lock>> {
        self.0.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        self.0.refuse_if_full()?;
        self.file(name, self.0.disk.create(name)?, true)
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        self.file(name, self.0.disk.open(name)?, false)
    }

    fn open_unbuffered(&self, name: &str) -> io::Result<FaultyFile> {
        self.file(name, self.0.disk.open_unbuffered(name)?, false)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut all = lock(&self.0.held);
        self.0.disk.rename(from, to)?;
        match all.remove(from) {
            Some(kept) => {
                kept.is_segment.store(is_segment(to), Ordering::Relaxed);
                all.insert(to.to_owned(), kept);
            }
            None => drop(all.remove(to)),
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut all = lock(&self.0.held);
        self.0.disk.remove(name)?;
        all.remove(name);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.0.disk.sync_directory()
    }

    fn directory(&self) -> Option<std::path::PathBuf> {
        self.0.disk.directory()
    }

    fn place(&self, name: &str) -> String {
        self.0.disk.place(name)
    }
}

impl ReadFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let held = lock(&self.kept.held);
        let read = self.file.read_at(buffer, offset)?;
        Ok(if held.is_empty() { read } else { held.show(buffer, read, offset) })
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.kept.held).bytes())
    }
}

impl StorageFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut held = lock(&self.kept.held);
        if offset + bytes.len() as u64 > held.bytes() {
            self.shared.refuse_if_full()?;
        }
        let early = self.shared.early();
        let mut random = lock(&self.shared.random);
        let (mut block, mut passed) = (None, false);
        let mut passes = |sector: u64| match early {
            Early::Nothing => false,
            Early::Sectors => random.chance(Share::of(0.5)),
            Early::Blocks => {
                let this = sector * SECTOR_BYTES as u64 / BLOCK_BYTES as u64;
                if block != Some(this) {
                    (block, passed) = (Some(this), random.chance(Share::of(0.5)));
                }
                passed
            }
        };
        let under = &mut |buffer: &mut [u8], offset: u64| self.file.read_at(buffer, offset);
        held.write(bytes, offset, under, &mut passes, &mut |bytes, offset| self.file.write_at(bytes, offset))
    }

    fn sync(&self) -> io::Result<()> {
        // First what the disk has: the longest stretch of a commit, during which nothing of this write is safe.
        self.file.sync()?;
        let commits = self.kept.is_segment.load(Ordering::Relaxed);
        if commits && self.shared.switches.fail_syncs().exists() {
            // What is held is still read by this process, and goes with it: so does a cache whose pages could not be written.
            return Err(rustix::io::Errno::IO.into());
        }
        if self.shared.switches.lie().exists() {
            if commits && self.shared.lies.fetch_add(1, Ordering::Relaxed) + 1 == LIES_UNTIL_ACKNOWLEDGED {
                fs::write(self.shared.switches.lied(), "")?;
            }
            return Ok(());
        }
        // What is in the file now outlives this process, which is all that a SIGKILL asks for.
        lock(&self.kept.held).apply(&mut |bytes, offset| self.file.write_at(bytes, offset))
    }

    fn cut(&self, _: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "no file of a ledger is ever cut"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(place: &Path) -> FaultyStorage {
        FaultyStorage::create(&place.join("ledger"), Switches::in_directory(place), 5).unwrap()
    }

    /// What a process finds that comes after one that was killed now.
    fn after_a_kill(place: &Path, name: &str) -> Vec<u8> {
        fs::read(place.join("ledger").join(name)).unwrap()
    }

    #[test]
    fn what_was_synced_outlives_the_process_and_of_the_rest_any_part() {
        let place = tempfile::tempdir().unwrap();
        let storage = storage(place.path());
        let (mut lost, mut kept) = (0, 0);
        for round in 0..60 {
            let name = format!("segment-{round}");
            let file = storage.create(&name).unwrap();
            file.write_at(&[1; 2 * BLOCK_BYTES], 0).unwrap();
            file.sync().unwrap();
            assert_eq!(after_a_kill(place.path(), &name), [1; 2 * BLOCK_BYTES]);
            file.write_at(&[2; 2 * BLOCK_BYTES], 0).unwrap();
            let mut shown = vec![0; 2 * BLOCK_BYTES];
            assert_eq!(storage.open(&name).unwrap().read_at(&mut shown, 0).unwrap(), shown.len());
            assert!(shown.iter().all(|byte| *byte == 2), "readers of this process see what was written");
            for sector in after_a_kill(place.path(), &name).chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
                *(if sector[0] == 1 { &mut lost } else { &mut kept }) += 1;
            }
        }
        assert!(lost > 300 && kept > 100, "{lost} sectors lost, {kept} kept");
    }

    #[test]
    fn a_disk_that_lies_loses_what_it_said_was_synced_and_tells_the_test_so() {
        let place = tempfile::tempdir().unwrap();
        let storage = storage(place.path());
        let switches = Switches::in_directory(place.path());
        let file = storage.create("spare.tmp").unwrap();
        file.write_at(&[1; 400 * SECTOR_BYTES], 0).unwrap();
        file.sync().unwrap();
        // As the ledger does, by the handle that it had before the file got its name.
        storage.rename("spare.tmp", "segment-1").unwrap();
        fs::write(switches.lie(), "").unwrap();
        for (lie, told) in [(1, false), (2, true)] {
            file.write_at(&[2; 400 * SECTOR_BYTES], 0).unwrap();
            file.sync().unwrap();
            assert_eq!(switches.lied().exists(), told, "after {lie}");
        }
        assert!(after_a_kill(place.path(), "segment-1").contains(&1), "something is lost");
        fs::remove_file(switches.lie()).unwrap();
        file.sync().unwrap();
        assert_eq!(after_a_kill(place.path(), "segment-1"), [2; 400 * SECTOR_BYTES]);
    }

    #[test]
    fn a_sync_of_a_segment_that_fails_leaves_what_was_written_to_readers_and_to_no_later_process() {
        let place = tempfile::tempdir().unwrap();
        let storage = storage(place.path());
        let switches = Switches::in_directory(place.path());
        let (file, other) = (storage.create("segment-1").unwrap(), storage.create("spare.tmp").unwrap());
        file.write_at(&[1; 400 * SECTOR_BYTES], 0).unwrap();
        file.sync().unwrap();
        fs::write(switches.fail_syncs(), "").unwrap();
        for file in [&file, &other] {
            file.write_at(&[2; 400 * SECTOR_BYTES], 0).unwrap();
        }
        let failed = file.sync().unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        other.sync().unwrap();
        assert_eq!(after_a_kill(place.path(), "spare.tmp"), [2; 400 * SECTOR_BYTES]);
        let mut shown = [0; 400 * SECTOR_BYTES];
        file.read_at(&mut shown, 0).unwrap();
        assert_eq!(shown, [2; 400 * SECTOR_BYTES]);
        assert!(after_a_kill(place.path(), "segment-1").contains(&1), "something is lost");
    }

    #[test]
    fn a_full_disk_lets_nothing_grow_and_everything_else_go_on() {
        let place = tempfile::tempdir().unwrap();
        let storage = storage(place.path());
        let switches = Switches::in_directory(place.path());
        let file = storage.create("a").unwrap();
        file.write_at(&[1; 1_000], 0).unwrap();
        fs::write(switches.full(), "").unwrap();
        let full = |result: io::Result<()>| result.unwrap_err().raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error());
        assert!(full(storage.create("b").map(drop)) && full(file.write_at(&[2; 2], 999)));
        file.write_at(&[2; 2], 998).unwrap();
        file.sync().unwrap();
        assert_eq!(after_a_kill(place.path(), "a")[997..], [1, 2, 2]);
        fs::remove_file(switches.full()).unwrap();
        file.write_at(&[3; 2], 999).unwrap();
        assert_eq!((file.size().unwrap(), storage.list().unwrap()), (1_001, vec!["a".to_owned()]));
    }
}
