//! The ledger's directory on a real file system.
//!
//! The lock is `flock` on the file `lock`: it goes with the process, however that ends. Nothing here interprets a byte.
use super::storage::{Storage, StorageFile};
use rustix::fs::{flock, FlockOperation, OFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a dying process may still hold the lock, and how often to look.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Ledger files are for the server's user alone: they tell who paid whom.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A directory on disk.
#[derive(Clone, Debug)]
pub struct DiskStorage {
    directory: Arc<Path>,
    read_only: bool,
}

impl DiskStorage {
    /// The directory, created with its parents if it is not there; it is then for the server's user alone, its parents are not.
    pub fn create(directory: &Path) -> io::Result<Self> {
        if !directory.is_dir() {
            let parent =
                directory.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
            fs::create_dir_all(&parent)?;
            fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory)?;
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { directory: directory.into(), read_only: false })
    }

    /// A directory that exists, to be looked at only: files open without write access, everything else is an error.
    pub fn read_only(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        Ok(Self { directory: directory.into(), read_only: true })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn create_with(&self, name: &str, flags: OFlags) -> io::Result<DiskFile> {
        self.writable()?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(FILE_MODE).custom_flags(flags.bits() as i32);
        Ok(DiskFile(Arc::new(options.open(self.path(name))?)))
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the ledger was opened for reading only"));
        }
        Ok(())
    }
}

impl Storage for DiskStorage {
    type File = DiskFile;
    type Lock = File;

    fn lock(&self) -> io::Result<Option<File>> {
        self.writable()?;
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(FILE_MODE).open(self.path("lock"))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                    if started.elapsed() >= LOCK_WAIT_MAX {
                        return Ok(None);
                    }
                    std::thread::sleep(LOCK_POLL);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        self.create_with(name, OFlags::empty())
    }

    fn create_unbuffered(&self, name: &str) -> io::Result<DiskFile> {
        self.create_with(name, OFlags::DIRECT)
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(!self.read_only).open(self.path(name))?;
        Ok(DiskFile(Arc::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn place(&self, name: &str) -> String {
        if name.is_empty() { self.directory.to_path_buf() } else { self.path(name) }.display().to_string()
    }
}

/// An open file on disk.
#[derive(Clone, Debug)]
pub struct DiskFile(Arc<File>);

impl StorageFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_directory_is_for_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("deep/ledger");
        for _ in 0..2 {
            let storage = DiskStorage::create(&directory).unwrap();
            assert!(storage.lock().unwrap().is_some());
            assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(fs::metadata(directory.join("lock")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(place.path().join("file"), "").unwrap();
        assert!(DiskStorage::create(&place.path().join("file")).is_err());
    }
}
