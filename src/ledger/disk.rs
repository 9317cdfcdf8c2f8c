//! The ledger's directory on a real file system.
//!
//! The lock is `flock` on the file `lock`: it goes with the process, however that ends. Nothing here interprets a byte.
use super::layout::BLOCK_BYTES;
use super::storage::{ReadFile, Storage, StorageFile};
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
    /// Stays open, so that a name can be made durable also when the process has no file descriptor left.
    handle: Arc<File>,
    read_only: bool,
}

impl DiskStorage {
    /// The directory, created with its parents if it is not there; it is then for the server's user alone, its parents are not.
    pub fn create(directory: &Path) -> io::Result<Self> {
        make_directory(directory, &mut sync_directory)?;
        Ok(Self { directory: directory.into(), handle: Arc::new(File::open(directory)?), read_only: false })
    }

    /// A directory that exists, to be looked at only: files open without write access, everything else is an error.
    pub fn read_only(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        Ok(Self { directory: directory.into(), handle: Arc::new(File::open(directory)?), read_only: true })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn create_with(&self, name: &str, flags: OFlags) -> io::Result<DiskFile> {
        self.writable()?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(FILE_MODE).custom_flags(flags.bits() as i32);
        Ok(DiskFile { file: Arc::new(options.open(self.path(name))?), unbuffered: !flags.is_empty() })
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

    fn directory(&self) -> Option<PathBuf> {
        std::path::absolute(&self.directory).ok()
    }

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
        Ok(DiskFile { file: Arc::new(file), unbuffered: false })
    }

    fn open_unbuffered(&self, name: &str) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(self.path(name))?;
        Ok(DiskFile { file: Arc::new(file), unbuffered: true })
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
        self.handle.sync_all()
    }

    fn place(&self, name: &str) -> String {
        if name.is_empty() { self.directory.to_path_buf() } else { self.path(name) }.display().to_string()
    }
}

/// Makes the directory for its owner alone, its missing parents for whom the umask says, and every new name durable: each
/// directory that was made is synced, and the one that has the topmost of them.
fn make_directory(directory: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
    for path in missing.iter().rev() {
        let mut builder = fs::DirBuilder::new();
        if *path == directory {
            builder.mode(DIRECTORY_MODE);
        }
        match builder.create(path) {
            // Somebody else was faster, or the path names a directory in two ways.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        sync(parent(path))?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    sync(directory)
}

/// The directory that has this name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// An open file on disk.
#[derive(Clone, Debug)]
pub struct DiskFile {
    file: Arc<File>,
    unbuffered: bool,
}

impl ReadFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    // The end of a file that was cut within a block; asking again from there would not be aligned.
                    if self.unbuffered && read % BLOCK_BYTES != 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl StorageFile for DiskFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn other_processes_find_a_directory_wherever_they_are() {
        let storage = DiskStorage::read_only(Path::new("src")).unwrap();
        assert_eq!(storage.directory(), Some(std::env::current_dir().unwrap().join("src")));
    }

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
        assert!(DiskStorage::create(&place.path().join("file/ledger")).is_err());
    }

    #[test]
    fn a_name_is_made_durable_without_opening_anything() {
        let place = tempfile::tempdir().unwrap();
        let storage = DiskStorage::create(&place.path().join("ledger")).unwrap();
        fs::rename(place.path().join("ledger"), place.path().join("elsewhere")).unwrap();
        assert!(storage.list().is_err(), "nothing can be opened by its path any more");
        storage.sync_directory().unwrap();
    }

    #[test]
    fn every_directory_that_is_made_is_synced_in_the_one_above_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for (directory, expected) in [
            ("a/b/ledger", vec![at(""), at("a"), at("a/b"), at("a/b/ledger")]),
            ("a/b/ledger", vec![]),
            ("a/b/other", vec![at("a/b"), at("a/b/other")]),
            ("new", vec![at(""), at("new")]),
        ] {
            let mut synced = Vec::new();
            make_directory(&at(directory), &mut |path| {
                assert!(path.is_dir(), "{path:?} is synced before it is there");
                synced.push(path.to_path_buf());
                sync_directory(path)
            })
            .unwrap();
            assert_eq!(synced, expected, "{directory}");
        }
        assert_eq!(parent(Path::new("ledger")), Path::new("."));
        let failed = make_directory(&at("c/d"), &mut |_| Err(io::Error::other("injected error")));
        assert!(failed.is_err(), "a sync that fails is told");
    }
}
