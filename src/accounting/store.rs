//! The files of the counters: `counters.jsonl`, which grows, and `counters.NNNNNN.jsonl`, which are full.
//!
//! Invariants: one process writes at a time, because it holds a lock on the directory; a line counts exactly if it is whole;
//! after a failed write or sync the file is cut back to its last good length before anything else is written, so that a
//! line that was given up cannot come back beside its successor.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::line::{Line, LineFault, LINE_BYTES_MAX};

const CURRENT: &str = "counters.jsonl";
const CHUNK_BYTES: usize = 64 << 10;

/// Why the files of the counters cannot be used.
#[derive(Debug)]
pub enum StoreFault {
    /// Another process writes there.
    InUse(PathBuf),
    /// A line that is not the last one is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the line begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        cause: LineFault,
    },
    /// The operating system refused.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
}

impl std::fmt::Display for StoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreFault::InUse(path) => {
                write!(f, "{}: another process writes counters here; give each server its own directory", path.display())
            }
            StoreFault::Damaged { path, offset, cause } => write!(
                f,
                "{}: line at byte {offset}: {cause}; move the whole directory aside and the counters are derived anew from the ledger",
                path.display()
            ),
            StoreFault::Io { what, path, cause } => write!(f, "{}: cannot {what}: {cause}", path.display()),
        }
    }
}

impl std::error::Error for StoreFault {}

/// The open files.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// Held for its lock, and to make names durable.
    directory_file: File,
    /// `None` after a rotation until the next file is made.
    file: Option<File>,
    /// Length of the whole lines in the current file.
    length: u64,
    /// Number of the newest full file; 0 if there is none.
    newest_full: u32,
    file_bytes_max: u64,
    /// Whether something may stand behind `length`.
    must_repair: bool,
}

impl Store {
    /// Opens the files, cuts off a torn last line, and returns the last whole one.
    pub fn open(directory: &Path, file_bytes_max: u64) -> Result<(Self, Option<Line>), StoreFault> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fault("make the directory", directory))?;
        let directory_file = File::open(directory).map_err(fault("open the directory", directory))?;
        match rustix::fs::flock(&directory_file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreFault::InUse(directory.to_owned())),
            Err(cause) => return Err(fault("lock the directory", directory)(cause.into())),
        }
        let newest_full = newest_full(directory)?;
        let mut store = Self {
            directory: directory.to_owned(),
            directory_file,
            file: None,
            length: 0,
            newest_full,
            file_bytes_max,
            must_repair: false,
        };
        let path = store.path();
        let file = store.open_current()?;
        let (last, whole) = last_line(&file, &path, true)?;
        store.length = whole;
        let found = file.metadata().map_err(fault("look at it", &path))?.len();
        store.file = Some(file);
        if whole < found {
            tracing::warn!(
                reason = "torn last line",
                "{}: cut {} bytes off; they are derived again from the ledger",
                path.display(),
                found - whole
            );
            store.must_repair = true;
            store.repair()?;
        }
        if last.is_none() && newest_full > 0 {
            let path = store.full_path(newest_full);
            let full = File::open(&path).map_err(fault("open it", &path))?;
            let (last, _) = last_line(&full, &path, false)?;
            return Ok((store, last));
        }
        Ok((store, last))
    }

    /// Appends a line and makes it durable. After an error nothing was appended, and the next call tries to mend first.
    pub fn append(&mut self, line: &[u8]) -> Result<(), StoreFault> {
        self.repair()?;
        if self.length > 0 && self.length + line.len() as u64 > self.file_bytes_max {
            self.rotate()?;
        }
        let path = self.path();
        if self.file.is_none() {
            self.file = Some(self.open_current()?);
        }
        let file = self.file.as_ref().expect("it was opened just now");
        self.must_repair = true;
        file.write_all_at(line, self.length).map_err(fault("append to it", &path))?;
        file.sync_data().map_err(fault("make it durable", &path))?;
        self.must_repair = false;
        self.length += line.len() as u64;
        Ok(())
    }

    fn repair(&mut self) -> Result<(), StoreFault> {
        if !self.must_repair {
            return Ok(());
        }
        let path = self.path();
        if let Some(file) = &self.file {
            file.set_len(self.length).map_err(fault("cut a torn line off", &path))?;
            file.sync_data().map_err(fault("make it durable", &path))?;
        }
        self.must_repair = false;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StoreFault> {
        let (path, full) = (self.path(), self.full_path(self.newest_full + 1));
        fs::rename(&path, &full).map_err(fault("rename it", &path))?;
        self.newest_full += 1;
        self.file = None;
        self.length = 0;
        Ok(())
    }

    fn open_current(&self) -> Result<File, StoreFault> {
        let path = self.path();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(fault("open it", &path))?;
        self.directory_file.sync_all().map_err(fault("make its name durable", &path))?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(CURRENT)
    }

    fn full_path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("counters.{number:06}.jsonl"))
    }
}

fn fault<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreFault + 'a {
    move |cause| StoreFault::Io { what, path: path.to_owned(), cause }
}

fn newest_full(directory: &Path) -> Result<u32, StoreFault> {
    let mut newest = 0;
    for found in fs::read_dir(directory).map_err(fault("list it", directory))? {
        let name = found.map_err(fault("list it", directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("counters.")?.strip_suffix(".jsonl")?.parse().ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(newest)
}

/// The last whole line of a file, and the length up to its end. One line behind it may be torn if that `may_be_torn`.
fn last_line(file: &File, path: &Path, may_be_torn: bool) -> Result<(Option<Line>, u64), StoreFault> {
    let length = file.metadata().map_err(fault("look at it", path))?.len();
    let mut end = length;
    while end > 0 {
        let start = line_start(file, path, end)?;
        let mut bytes = vec![0; usize::try_from(end - start).expect("a line is far shorter than memory")];
        file.read_exact_at(&mut bytes, start).map_err(fault("read it", path))?;
        match Line::parse(&bytes) {
            Ok(line) => return Ok((Some(line), end)),
            Err(LineFault::Torn | LineFault::Check) if may_be_torn && end == length => end = start,
            Err(cause) => return Err(StoreFault::Damaged { path: path.to_owned(), offset: start, cause }),
        }
    }
    Ok((None, 0))
}

/// Where the line begins that ends at `end`.
fn line_start(file: &File, path: &Path, end: u64) -> Result<u64, StoreFault> {
    let mut chunk = [0u8; CHUNK_BYTES];
    // The line's own line feed does not count.
    let mut upper = end - 1;
    while upper > 0 {
        let lower = upper.saturating_sub(CHUNK_BYTES as u64);
        let bytes = &mut chunk[..usize::try_from(upper - lower).expect("at most one chunk")];
        file.read_exact_at(bytes, lower).map_err(fault("read it", path))?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(lower + at as u64 + 1);
        }
        upper = lower;
        if end - upper > LINE_BYTES_MAX as u64 {
            return Err(StoreFault::Damaged { path: path.to_owned(), offset: upper, cause: LineFault::Torn });
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    //! What the tests of the counters need to break a file; the files themselves are tested there.
    use super::*;

    impl Store {
        /// Makes every write fail, as a full disk does, until the file is [mended](Store::mend).
        pub fn break_writes(&mut self) {
            self.file = Some(File::open(self.path()).unwrap());
        }

        /// Lets writes succeed again, with `torn` left behind the last whole line by the failed one.
        pub fn mend(&mut self, torn: &[u8]) {
            let file = OpenOptions::new().read(true).write(true).open(self.path()).unwrap();
            file.write_all_at(torn, self.length).unwrap();
            self.file = Some(file);
        }
    }
}
