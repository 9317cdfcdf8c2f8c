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
use super::sink::{Sink, SinkFault, Stretch};
use crate::domain::{LogId, Seq};
use crate::ledger::unix_now;

const CURRENT: &str = "counters.jsonl";
/// What the names of directories begin with in which counters are that count no more.
const ASIDE: &str = "set-aside-";
/// What such a name ends with as long as not everything has been moved there: whoever opens the files moves the rest.
const UNFINISHED: &str = ".unfinished";
const CHUNK_BYTES: usize = 64 << 10;

/// The open files of one ledger's counters.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Held for its lock, and to make names durable.
    directory_file: File,
    /// `None` after a rotation until the next file is made.
    file: Option<File>,
    /// Length of the whole lines in the current file.
    length: u64,
    /// What the last whole line counts.
    last: Option<Stretch>,
    /// Where everything from before is being moved.
    aside: Option<PathBuf>,
    /// Whether the next line is the first of a count from the beginning.
    anew: bool,
    /// Number of the newest full file; 0 if there is none.
    newest_full: u32,
    file_bytes_max: u64,
    /// Whether something may stand behind `length`.
    must_repair: bool,
}

impl Store {
    /// Opens the files in a directory, made if there is none, and cuts off a torn last line.
    ///
    /// # Errors
    /// If the directory cannot be used, another process uses it, or a line is damaged that is not the last one.
    pub fn open(directory: &Path, file_bytes_max: u64) -> Result<Self, SinkFault> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fault("make the directory", directory))?;
        let directory_file = File::open(directory).map_err(fault("open the directory", directory))?;
        match rustix::fs::flock(&directory_file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(SinkFault::InUse(directory.to_owned())),
            Err(cause) => return Err(fault("lock the directory", directory)(cause.into())),
        }
        let unfinished = names(directory)?.into_iter().find(|name| name.starts_with(ASIDE) && name.ends_with(UNFINISHED));
        if let Some(unfinished) = unfinished {
            finish_setting_aside(directory, &directory_file, &directory.join(unfinished))?;
        }
        let newest_full = names(directory)?.iter().filter_map(|name| full_number(name)).max().unwrap_or(0);
        let mut store = Self {
            directory: directory.to_owned(),
            directory_file,
            file: None,
            length: 0,
            last: None,
            aside: None,
            anew: false,
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
                event = "accounting_torn",
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
            store.last = last_line(&full, &path, false)?.0.map(|line| line.stretch());
            return Ok(store);
        }
        store.last = last.map(|line| line.stretch());
        Ok(store)
    }

    /// Appends a line and makes it durable. After an error nothing was appended, and the next call tries to mend first.
    fn write(&mut self, line: &[u8]) -> Result<(), SinkFault> {
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

    fn repair(&mut self) -> Result<(), SinkFault> {
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

    fn rotate(&mut self) -> Result<(), SinkFault> {
        let (path, full) = (self.path(), self.full_path(self.newest_full + 1));
        fs::rename(&path, &full).map_err(fault("rename it", &path))?;
        self.newest_full += 1;
        self.file = None;
        self.length = 0;
        Ok(())
    }

    fn open_current(&self) -> Result<File, SinkFault> {
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

    /// Moves aside what is still to be moved.
    fn finish_aside(&mut self) -> Result<(), SinkFault> {
        if let Some(unfinished) = &self.aside {
            self.directory_file.sync_all().map_err(fault("make its names durable", &self.directory))?;
            finish_setting_aside(&self.directory, &self.directory_file, unfinished)?;
            self.aside = None;
        }
        Ok(())
    }

    fn full_path(&self, number: u32) -> PathBuf {
        self.directory.join(full_name(number))
    }
}

impl Sink for Store {
    fn through(&mut self, log: LogId) -> Result<Seq, SinkFault> {
        self.finish_aside()?;
        match self.last {
            None => Ok(Seq(0)),
            Some(last) if last.log == log => Ok(last.through),
            Some(last) => Err(SinkFault::OtherLedger { expected: log, found: last.log }),
        }
    }

    fn append(&mut self, stretch: Stretch, line: &str) -> Result<(), SinkFault> {
        // Who counts first may begin behind what is in an archive of the ledger; who counts anew may not: that is a line from before.
        match self.through(stretch.log)? {
            Seq(0) if !self.anew || stretch.from == Seq(1) => {}
            Seq(through) if stretch.from.0 == through + 1 => {}
            Seq(through) => return Err(SinkFault::OutOfPlace { expected: Seq(through + 1), found: stretch.from }),
        }
        self.write(line.as_bytes())?;
        (self.last, self.anew) = (Some(stretch), false);
        Ok(())
    }

    fn set_aside(&mut self, _log: LogId) -> Result<(), SinkFault> {
        self.finish_aside()?;
        let unfinished = self.directory.join(format!("{ASIDE}{}{UNFINISHED}", unix_now().0));
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(fault("make the directory", &unfinished))?;
        // Whatever comes of it, what is here now is not written to any more, and nothing else is before all of it has been moved.
        (self.file, self.length, self.last, self.newest_full, self.must_repair) = (None, 0, None, 0, false);
        (self.aside, self.anew) = (Some(unfinished), true);
        self.finish_aside()
    }
}

/// Moves all files of counters into this directory, and gives it its last name.
fn finish_setting_aside(directory: &Path, directory_file: &File, unfinished: &Path) -> Result<(), SinkFault> {
    for name in names(directory)? {
        if name == CURRENT || full_number(&name).is_some() {
            let from = directory.join(&name);
            fs::rename(&from, unfinished.join(&name)).map_err(fault("move it aside", &from))?;
        }
    }
    fs::rename(unfinished, unfinished.with_extension("")).map_err(fault("rename it", unfinished))?;
    directory_file.sync_all().map_err(fault("make its names durable", directory))
}

fn fault<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SinkFault + 'a {
    move |cause| SinkFault::Io { what, path: path.to_owned(), cause }
}

/// The names in the directory that are text.
fn names(directory: &Path) -> Result<Vec<String>, SinkFault> {
    let list = || fault("list it", directory);
    let found = fs::read_dir(directory).map_err(list())?.map(|found| Ok(found.map_err(list())?.file_name().into_string().ok()));
    found.filter_map(Result::transpose).collect()
}

/// The number of a full file.
fn full_number(name: &str) -> Option<u32> {
    name.strip_prefix("counters.")?.strip_suffix(".jsonl")?.parse().ok()
}

/// The files in which lines stand, in the order in which they were written; the last one is still written to.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>, SinkFault> {
    let names = names(directory)?;
    let mut full: Vec<_> = names.iter().filter_map(|name| full_number(name)).collect();
    full.sort_unstable();
    let current = names.iter().any(|name| name == CURRENT).then(|| CURRENT.to_owned());
    Ok(full.into_iter().map(full_name).chain(current).map(|name| directory.join(name)).collect())
}

fn full_name(number: u32) -> String {
    format!("counters.{number:06}.jsonl")
}

/// The last whole line of a file, and the length up to its end. One line behind it may be torn if that `may_be_torn`.
fn last_line(file: &File, path: &Path, may_be_torn: bool) -> Result<(Option<Line>, u64), SinkFault> {
    let length = file.metadata().map_err(fault("look at it", path))?.len();
    let mut end = length;
    while end > 0 {
        let start = line_start(file, path, end)?;
        let mut bytes = vec![0; usize::try_from(end - start).expect("a line is far shorter than memory")];
        file.read_exact_at(&mut bytes, start).map_err(fault("read it", path))?;
        match Line::parse(&bytes) {
            Ok(line) => return Ok((Some(line), end)),
            Err(LineFault::Torn | LineFault::Check) if may_be_torn && end == length => end = start,
            Err(cause) => return Err(SinkFault::Damaged { path: path.to_owned(), offset: start, cause }),
        }
    }
    Ok((None, 0))
}

/// Where the line begins that ends at `end`.
fn line_start(file: &File, path: &Path, end: u64) -> Result<u64, SinkFault> {
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
            return Err(SinkFault::Damaged { path: path.to_owned(), offset: upper, cause: LineFault::Torn });
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

        /// Begins to move everything into this directory, as [`Sink::set_aside`] does.
        pub fn aside_in(&mut self, unfinished: &Path) {
            (self.file, self.length, self.last, self.newest_full) = (None, 0, None, 0);
            (self.aside, self.anew) = (Some(unfinished.to_owned()), true);
        }

        /// Lets writes succeed again, with `torn` left behind the last whole line by the failed one.
        pub fn mend(&mut self, torn: &[u8]) {
            let file = OpenOptions::new().read(true).write(true).open(self.path()).unwrap();
            file.write_all_at(torn, self.length).unwrap();
            self.file = Some(file);
        }
    }
}
