//! A disk in memory that forgets like a real one: for tests, and for the simulator that drives the production code.
//!
//! It keeps what was written apart from what is durable, in sectors, and names apart from durable names. `crash` decides for each
//! sector and for each change of a name whether it survived; what else goes wrong is decided by [`Faults`]. Nothing is random here.
mod faults;

pub use faults::{Fate, Faults, ReadFault, SyncFault, WriteFault};

use super::storage::{ReadFile, Storage, StorageFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What survives or is lost as one piece, in bytes, unless [`MemoryStorage::with_sectors`] says otherwise.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Contents {
    /// Where a sector lies in the file as it is now; empty if it is beyond the end.
    fn extent(&self, sector: usize, sector_bytes: usize) -> std::ops::Range<usize> {
        let end = ((sector + 1) * sector_bytes).min(self.live.len());
        (sector * sector_bytes).min(end)..end
    }
}

#[derive(Clone)]
struct Disk {
    sector_bytes: usize,
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The state of the directory after each change that is not durable yet.
    changes: Vec<BTreeMap<String, usize>>,
    bytes_max: Option<u64>,
    /// Opening fails: the process has no file descriptor left.
    refuse_files: bool,
    fail_syncs: bool,
    /// How many more changes succeed.
    changes_left: Option<u64>,
    syncs: u64,
    writes: u64,
    faults: Option<Arc<Mutex<dyn Faults>>>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            sector_bytes: SECTOR_BYTES,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            bytes_max: None,
            refuse_files: false,
            fail_syncs: false,
            changes_left: None,
            syncs: 0,
            writes: 0,
            faults: None,
        }
    }
}

impl Disk {
    /// What the faults decide about the file at this place; nothing without faults.
    fn ask<T>(&self, at: usize, decide: impl FnOnce(&mut dyn Faults, &str) -> Option<T>) -> Option<T> {
        let faults = self.faults.as_ref()?;
        let name = self.names.iter().find(|(_, known)| **known == at).map_or("", |(name, _)| name);
        decide(&mut *faults.lock().expect("no thread panics while it decides on faults"), name)
    }

    /// Writes the dirty sectors of a file into the durable copy of another one, or elsewhere in its own.
    fn misdirect(&mut self, at: usize, file: &str, bytes: i64) {
        let Some(target) = self.names.get(file).copied() else { return };
        let sectors = std::mem::take(&mut self.files[at].dirty);
        for sector in sectors {
            let extent = self.files[at].extent(sector, self.sector_bytes);
            let moved = self.files[at].live[extent.clone()].to_vec();
            let start = usize::try_from(extent.start as i64 + bytes).unwrap_or(usize::MAX);
            let durable = &mut self.files[target].durable;
            if start.saturating_add(moved.len()) <= durable.len() {
                durable[start..start + moved.len()].copy_from_slice(&moved);
            }
        }
    }

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

    /// Called before every file that is opened or made.
    fn descriptor(&self) -> io::Result<()> {
        if self.refuse_files {
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(())
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

    /// An empty directory on a disk whose sectors have this many bytes.
    pub fn with_sectors(sector_bytes: usize) -> Self {
        let storage = Self::default();
        storage.disk().sector_bytes = sector_bytes;
        storage
    }

    /// From now on these decide what goes wrong; also after a crash, but not on a fork.
    pub fn set_faults(&self, faults: Arc<Mutex<dyn Faults>>) {
        self.disk().faults = Some(faults);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no thread panics while it holds the disk")
    }

    /// What a machine finds that comes up again after a power loss now: everything durable, and of the rest what `keep` keeps.
    /// The old handles go on with the old disk, as a process does that has not noticed yet that it is dead.
    pub fn crash(&self, keep: &mut dyn FnMut() -> bool) -> Self {
        self.crash_with(&mut || if keep() { Fate::Kept } else { Fate::Lost })
    }

    /// As [`MemoryStorage::crash`], where sectors may also be torn or garbled. A new length or a changed name that is not lost is kept.
    pub fn crash_with(&self, fate: &mut dyn FnMut() -> Fate) -> Self {
        let mut disk = self.disk().clone();
        let sector_bytes = disk.sector_bytes;
        for file in &mut disk.files {
            let mut survived = std::mem::take(&mut file.durable);
            if survived.len() != file.live.len() && fate() != Fate::Lost {
                survived.resize(file.live.len(), 0);
            }
            for sector in std::mem::take(&mut file.dirty) {
                let extent = file.extent(sector, sector_bytes);
                let (start, end) = (extent.start, extent.end.min(survived.len()));
                if start >= end {
                    continue;
                }
                let (old, new) = (&mut survived[start..end], &file.live[start..end]);
                match fate() {
                    Fate::Lost => {}
                    Fate::Kept => old.copy_from_slice(new),
                    Fate::Shorn(bytes) => {
                        let bytes = bytes.min(new.len());
                        old[..bytes].copy_from_slice(&new[..bytes]);
                    }
                    Fate::Garbled(mask) => old.iter_mut().zip(new).for_each(|(old, new)| *old = new ^ mask),
                }
            }
            file.live.clone_from(&survived);
            file.durable = survived;
        }
        for change in std::mem::take(&mut disk.changes) {
            if fate() == Fate::Lost {
                break;
            }
            disk.durable_names = change;
        }
        disk.names.clone_from(&disk.durable_names);
        (disk.refuse_files, disk.fail_syncs, disk.changes_left) = (false, false, None);
        Self { disk: Arc::new(Mutex::new(disk)), writer: Arc::default() }
    }

    /// An independent copy of the disk as it is, without a lock on it.
    pub fn fork(&self) -> Self {
        let disk = Disk { faults: None, ..self.disk().clone() };
        Self { disk: Arc::new(Mutex::new(disk)), writer: Arc::default() }
    }

    /// Whether everything that was written to the file of this name has been synced, as far as the disk says.
    pub fn is_synced(&self, name: &str) -> bool {
        let disk = self.disk();
        disk.find(name).map_or(true, |at| disk.files[at].dirty.is_empty())
    }

    /// Bits of a file flip on the disk: the byte at this offset, if the file has one, is XORed with `mask`.
    pub fn rot(&self, name: &str, offset: u64, mask: u8) {
        let mut disk = self.disk();
        let Ok(at) = disk.find(name) else { return };
        let (file, offset) = (&mut disk.files[at], offset as usize);
        for bytes in [&mut file.live, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    /// Lets files grow only while all of them together have at most so many bytes.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.disk().bytes_max = bytes_max;
    }

    /// From now on no file can be opened or made, for want of file descriptors, or it can again.
    pub fn refuse_files(&self, refuse: bool) {
        self.disk().refuse_files = refuse;
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
        let disk = self.disk();
        if disk.faults.as_ref().is_some_and(|faults| faults.lock().expect("no thread panics while it decides on faults").list()) {
            return Err(io::Error::other("injected error of a listing"));
        }
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut disk = self.disk();
        disk.descriptor()?;
        disk.step()?;
        let at = disk.files.len();
        disk.files.push(Contents::default());
        disk.names.insert(name.into(), at);
        disk.changed();
        Ok(MemoryFile { disk: Arc::clone(&self.disk), at, unbuffered: false })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let disk = self.disk();
        disk.descriptor()?;
        let at = disk.find(name)?;
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

impl ReadFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk();
        let offset = match disk.ask(self.at, |faults, name| faults.read(name, offset, buffer.len())) {
            None => offset,
            Some(ReadFault::Error) => return Err(io::Error::other("injected read error")),
            Some(ReadFault::From(other)) => other,
        };
        let file = &disk.files[self.at];
        let bytes = if self.unbuffered { &file.durable } else { &file.live };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let read = buffer.len().min(bytes.len() - start);
        buffer[..read].copy_from_slice(&bytes[start..start + read]);
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk().files[self.at].live.len() as u64)
    }
}

impl StorageFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.writes += 1;
        let fault = disk.ask(self.at, |faults, name| faults.write(name, offset, bytes.len()));
        let bytes = match fault {
            None => bytes,
            Some(WriteFault::Error) => return Err(io::Error::other("injected write error")),
            Some(WriteFault::Short(written)) => &bytes[..written.min(bytes.len())],
        };
        let sector_bytes = disk.sector_bytes;
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
        file.dirty.extend(start / sector_bytes..end.div_ceil(sector_bytes));
        match fault {
            None => Ok(()),
            Some(WriteFault::Error | WriteFault::Short(_)) => Err(io::Error::other("injected short write")),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let fault = if disk.fail_syncs { Some(SyncFault::Error) } else { disk.ask(self.at, |faults, name| faults.sync(name)) };
        disk.syncs += 1;
        match fault {
            Some(SyncFault::Error) => {
                disk.files[self.at].dirty.clear();
                return Err(io::Error::other("injected sync error"));
            }
            Some(SyncFault::Lost) => disk.files[self.at].dirty.clear(),
            Some(SyncFault::Misdirected { file, bytes }) => disk.misdirect(self.at, &file, bytes),
            None => {}
        }
        let sector_bytes = disk.sector_bytes;
        let file = &mut disk.files[self.at];
        file.durable.resize(file.live.len(), 0);
        for sector in std::mem::take(&mut file.dirty) {
            let extent = file.extent(sector, sector_bytes);
            file.durable[extent.clone()].copy_from_slice(&file.live[extent]);
        }
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let sector_bytes = disk.sector_bytes;
        let file = &mut disk.files[self.at];
        file.live.truncate(usize::try_from(length).map_err(io::Error::other)?);
        let sectors = file.live.len().div_ceil(sector_bytes);
        file.dirty.retain(|sector| *sector < sectors);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
