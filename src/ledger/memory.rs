//! A disk in memory that forgets like a real one: for tests, and for the simulator that drives the production code.
//!
//! It keeps what was written apart from what is durable, in sectors of 512 bytes, and names apart from durable names. `crash`
//! decides for each sector and for each change of a name whether it survived; nothing else is random.
use super::storage::{Storage, StorageFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What survives or is lost as one piece, in bytes.
pub const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Default)]
struct Disk {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The state of the directory after each change that is not durable yet.
    changes: Vec<BTreeMap<String, usize>>,
    bytes_max: Option<u64>,
    fail_syncs: bool,
    /// How many more changes succeed.
    changes_left: Option<u64>,
    syncs: u64,
    writes: u64,
}

impl Disk {
    fn changed(&mut self) {
        self.changes.push(self.names.clone());
    }

    /// Called before every change.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("injected error")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// A directory in memory; clones are handles to the same one.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
    /// Held by exactly one lock guard at a time.
    writer: Arc<Mutex<bool>>,
}

impl MemoryStorage {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no thread panics while it holds the disk")
    }

    /// What a machine finds that comes up again after a power loss now: everything durable, and of the rest what `keep` keeps.
    /// The old handles go on with the old disk, as a process does that has not noticed yet that it is dead.
    pub fn crash(&self, keep: &mut dyn FnMut() -> bool) -> Self {
        let mut disk = self.disk().clone();
        for file in &mut disk.files {
            let mut survived = std::mem::take(&mut file.durable);
            if survived.len() != file.live.len() && keep() {
                survived.resize(file.live.len(), 0);
            }
            for sector in std::mem::take(&mut file.dirty) {
                let end = ((sector + 1) * SECTOR_BYTES).min(survived.len()).min(file.live.len());
                let start = sector * SECTOR_BYTES;
                if start < end && keep() {
                    survived[start..end].copy_from_slice(&file.live[start..end]);
                }
            }
            file.live.clone_from(&survived);
            file.durable = survived;
        }
        for change in std::mem::take(&mut disk.changes) {
            if !keep() {
                break;
            }
            disk.durable_names = change;
        }
        disk.names.clone_from(&disk.durable_names);
        (disk.fail_syncs, disk.changes_left) = (false, None);
        Self { disk: Arc::new(Mutex::new(disk)), writer: Arc::default() }
    }

    /// An independent copy of the disk as it is, without a lock on it.
    pub fn fork(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk().clone())), writer: Arc::default() }
    }

    /// Lets files grow only while all of them together have at most so many bytes.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.disk().bytes_max = bytes_max;
    }

    /// Lets so many changes (writes, syncs, names) succeed and every later one fail: the moment at which the power goes.
    pub fn fail_after(&self, changes: Option<u64>) {
        self.disk().changes_left = changes;
    }

    /// From now on syncs fail, or succeed again. What a failed sync should have made durable is lost although it stays readable.
    pub fn fail_syncs(&self, fail: bool) {
        self.disk().fail_syncs = fail;
    }

    /// How many writes and syncs of files there have been.
    pub fn operations(&self) -> (u64, u64) {
        let disk = self.disk();
        (disk.writes, disk.syncs)
    }

    /// Changes the bytes of a file behind everybody's back, durably.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let at = disk.find(name).expect("a file to tamper with");
        let file = &mut disk.files[at];
        change(&mut file.live);
        file.durable.clone_from(&file.live);
        file.dirty.clear();
    }
}

/// The writer lock of a directory in memory.
pub struct MemoryLock(Arc<Mutex<bool>>);

impl Drop for MemoryLock {
    fn drop(&mut self) {
        if let Ok(mut held) = self.0.lock() {
            *held = false;
        }
    }
}

impl Storage for MemoryStorage {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn lock(&self) -> io::Result<Option<MemoryLock>> {
        let mut held = self.writer.lock().expect("no thread panics while it holds the flag");
        Ok((!std::mem::replace(&mut *held, true)).then(|| MemoryLock(Arc::clone(&self.writer))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut disk = self.disk();
        disk.step()?;
        let at = disk.files.len();
        disk.files.push(Contents::default());
        disk.names.insert(name.into(), at);
        disk.changed();
        Ok(MemoryFile { disk: Arc::clone(&self.disk), at, unbuffered: false })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let at = self.disk().find(name)?;
        Ok(MemoryFile { disk: Arc::clone(&self.disk), at, unbuffered: false })
    }

    fn open_unbuffered(&self, name: &str) -> io::Result<MemoryFile> {
        Ok(MemoryFile { unbuffered: true, ..self.open(name)? })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let at = disk.find(from)?;
        disk.names.remove(from);
        disk.names.insert(to.into(), at);
        disk.changed();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.find(name)?;
        disk.names.remove(name);
        disk.changed();
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.changes.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}

/// An open file in memory.
#[derive(Clone)]
pub struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    at: usize,
    /// Reads see what is durable, not what was written last.
    unbuffered: bool,
}

impl MemoryFile {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no thread panics while it holds the disk")
    }
}

impl StorageFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk();
        let file = &disk.files[self.at];
        let bytes = if self.unbuffered { &file.durable } else { &file.live };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let read = buffer.len().min(bytes.len() - start);
        buffer[..read].copy_from_slice(&bytes[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.writes += 1;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        let growth = end.saturating_sub(disk.files[self.at].live.len()) as u64;
        let used: u64 = disk.names.values().map(|at| disk.files[*at].live.len() as u64).sum();
        if growth > 0 && disk.bytes_max.is_some_and(|bytes_max| used + growth > bytes_max) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        let file = &mut disk.files[self.at];
        if file.live.len() < end {
            file.live.resize(end, 0);
        }
        file.live[start..end].copy_from_slice(bytes);
        file.dirty.extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let fail = disk.fail_syncs;
        disk.syncs += 1;
        let file = &mut disk.files[self.at];
        let dirty = std::mem::take(&mut file.dirty);
        if fail {
            return Err(io::Error::other("injected sync error"));
        }
        file.durable.resize(file.live.len(), 0);
        for sector in dirty {
            let end = ((sector + 1) * SECTOR_BYTES).min(file.live.len());
            let start = (sector * SECTOR_BYTES).min(end);
            file.durable[start..end].copy_from_slice(&file.live[start..end]);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk().files[self.at].live.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_forgets_what_was_not_synced_and_nothing_else() {
        let storage = MemoryStorage::new();
        let file = storage.create("a").unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync().unwrap();
        assert_eq!(storage.crash(&mut || false).list().unwrap(), Vec::<String>::new());
        storage.sync_directory().unwrap();
        file.write_at(&[2; 1024], 0).unwrap();
        storage.rename("a", "b").unwrap();
        let read = |storage: &MemoryStorage, name: &str| {
            let mut bytes = [0; 1024];
            storage.open(name).unwrap().read_at(&mut bytes, 0).unwrap();
            (bytes[0], bytes[1023])
        };
        assert_eq!(read(&storage, "b"), (2, 2));
        assert_eq!(read(&storage.crash(&mut || false), "a"), (1, 1));
        assert_eq!(read(&storage.crash(&mut || true), "b"), (2, 2));
        let mut first = true;
        assert_eq!(read(&storage.crash(&mut || std::mem::take(&mut first)), "a"), (2, 1));
    }

    #[test]
    fn a_failed_sync_leaves_the_new_bytes_readable_and_the_old_ones_on_disk() {
        let storage = MemoryStorage::new();
        let file = storage.create("a").unwrap();
        file.write_at(&[1; 512], 0).unwrap();
        file.sync().unwrap();
        file.write_at(&[2; 512], 0).unwrap();
        storage.fail_syncs(true);
        assert!(file.sync().is_err());
        storage.fail_syncs(false);
        file.sync().unwrap();
        let first = |file: MemoryFile| {
            let mut byte = [0];
            file.read_at(&mut byte, 0).unwrap();
            byte[0]
        };
        assert_eq!((first(storage.open("a").unwrap()), first(storage.open_unbuffered("a").unwrap())), (2, 1));
    }

    #[test]
    fn the_lock_is_exclusive_and_goes_with_its_holder() {
        let storage = MemoryStorage::new();
        let lock = storage.lock().unwrap();
        assert!(lock.is_some() && storage.clone().lock().unwrap().is_none());
        drop(lock);
        assert!(storage.lock().unwrap().is_some());
    }
}
