//! The files of a stream as they are written: one at a time, at its end only, and what an interrupted write has left is cut off.
//!
//! Invariants: one process writes, because it holds the lock of the directory; after a failed write the file is cut back to its last good
//! length before anything else is written, so that what was given up cannot come back beside its successor. When the server finds a
//! line that is not what was written, it cuts only if nothing behind that line is known to have been on the disk: a checkpoint is
//! written after a sync of everything before it, so damage before one is no interrupted write, and is left as it is.
use super::chain::{Chain, Fault};
use super::fault::AuditFault;
use super::line::Line;
use super::lines::{file_name, files, Lines, Next};
use crate::domain::bytes_of_hex;
use crate::ledger::{ReadFile, Storage, StorageFile};
use std::io;

/// How a checkpoint shows in bytes that may be damaged.
const CHECKPOINT: &[u8] = b"\"kind\":\"checkpoint\"";
/// What is searched at once.
const SEARCH_BYTES: usize = 256 << 10;

/// What was found of a stream.
#[derive(Debug)]
pub(super) struct Found {
    /// Behind the last good line.
    pub chain: Chain,
    /// Bytes of an interrupted write that were cut off.
    pub torn: u64,
    /// What is damaged: the newest file is left as it is, and the stream has to go on in another one.
    pub damaged: Option<String>,
    /// Whether there is a file to go on in.
    pub begun: bool,
}

/// The open files.
pub(super) struct Store<S: Storage> {
    storage: S,
    _lock: S::Lock,
    file: Option<S::File>,
    number: u32,
    length: u64,
    /// Whether something may stand behind `length`.
    must_cut: bool,
}

/// How a file ends.
enum End {
    Whole,
    Torn,
    Damaged(Fault),
}

impl<S: Storage> Store<S> {
    /// Takes the lock.
    pub fn open(storage: S) -> Result<Self, AuditFault> {
        let place = storage.place("");
        let lock = storage.lock().map_err(AuditFault::io(place.as_str(), "take the lock of the stream"))?;
        let lock = lock.ok_or(AuditFault::InUse { place })?;
        Ok(Self { storage, _lock: lock, file: None, number: 0, length: 0, must_cut: false })
    }

    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Bytes of the present file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether there is a file to write to.
    pub fn is_begun(&self) -> bool {
        self.file.is_some()
    }

    /// What the present file is called, for messages.
    pub fn place(&self) -> String {
        self.storage.place(&file_name(self.number))
    }

    /// Reads the newest file, and what it builds on, and cuts an interrupted write off. Each good line is shown to `each`.
    pub fn recover(&mut self, each: &mut dyn FnMut(&Line<'_>)) -> io::Result<Found> {
        let numbers = files(&self.storage)?;
        let Some(newest) = numbers.last().copied() else {
            return Ok(Found { chain: Chain::BEGINNING, torn: 0, damaged: None, begun: false });
        };
        let file = self.storage.open(&file_name(newest))?;
        let size = file.size()?;
        (self.number, self.must_cut) = (newest, false);
        let first = first_line(&file)?.and_then(|first| Chain::before(&first).ok().filter(|before| before.file + 1 == newest));
        if let Some(mut chain) = first {
            let (good, end) = read(&file, &mut chain, each)?;
            let damaged = match end {
                End::Damaged(fault) => Some(format!("{} at byte {good}: {fault}", self.place())),
                End::Whole | End::Torn => None,
            };
            if damaged.is_some() {
                return Ok(Found { chain, torn: 0, damaged, begun: false });
            }
            (self.file, self.length, self.must_cut) = (Some(file), good, good < size);
            if self.must_cut {
                // Durably, before anything is written: what was cut off must not show up between new lines after the next crash.
                self.cut()?;
                self.sync()?;
            }
            return Ok(Found { chain, torn: size - good, damaged: None, begun: good > 0 });
        }
        // Its first line is not there: it was just being made, or is damaged.
        let is_damaged = has_checkpoint(&file, 0)?;
        let mut before = (Chain::BEGINNING, None);
        if let Some(number) = numbers.len().checked_sub(2).map(|at| numbers[at]) {
            let (name, earlier) = (file_name(number), self.storage.open(&file_name(number))?);
            let chain = first_line(&earlier)?.and_then(|first| Chain::before(&first).ok());
            let mut chain = chain.unwrap_or(Chain { file: number - 1, ..Chain::BEGINNING });
            let damaged = match read(&earlier, &mut chain, each)? {
                (good, End::Torn) => Some(format!("{} at byte {good}: {}", self.storage.place(&name), Fault::Torn)),
                (good, End::Damaged(fault)) => Some(format!("{} at byte {good}: {fault}", self.storage.place(&name))),
                (_, End::Whole) => None,
            };
            before = (Chain { file: number, ..chain }, damaged);
        }
        let (mut chain, mut damaged) = before;
        if is_damaged {
            chain.file = newest;
            damaged = Some(format!("{} at byte 0: {}", self.place(), Fault::Hash));
            return Ok(Found { chain, torn: 0, damaged, begun: false });
        }
        // Made anew under the same name.
        self.number = newest - 1;
        chain.file = newest - 1;
        Ok(Found { chain, torn: size, damaged, begun: false })
    }

    /// Makes the next file, in place of what an interrupted making has left.
    pub fn create(&mut self, number: u32) -> io::Result<()> {
        self.file = None;
        let file = self.storage.create(&file_name(number))?;
        self.storage.sync_directory()?;
        (self.file, self.number, self.length, self.must_cut) = (Some(file), number, 0, false);
        Ok(())
    }

    /// Appends lines. After an error nothing was appended, and the next call cuts first.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.cut()?;
        let file = self.file.as_ref().expect("a file is begun before lines are written");
        self.must_cut = true;
        file.write_at(lines, self.length)?;
        self.must_cut = false;
        self.length += lines.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        if let (true, Some(file)) = (self.must_cut, &self.file) {
            file.cut(self.length)?;
            self.must_cut = false;
        }
        Ok(())
    }

    /// Makes what was appended durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), StorageFile::sync)
    }

    /// Removes the oldest files until so many are left.
    pub fn keep(&self, count: u32) -> io::Result<()> {
        let numbers = files(&self.storage)?;
        let surplus = numbers.len().saturating_sub(count as usize);
        numbers[..surplus].iter().try_for_each(|number| self.storage.remove(&file_name(*number)))
    }
}

fn first_line<F: ReadFile>(file: &F) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    Ok((Lines::of(file.clone()).next(&mut line)? == Next::Line).then_some(line))
}

/// Follows a file line by line; returns where the good ones end, and what is behind.
fn read<F: ReadFile>(file: &F, chain: &mut Chain, each: &mut dyn FnMut(&Line<'_>)) -> io::Result<(u64, End)> {
    let mut lines = Lines::of(file.clone());
    let (mut line, mut good) = (Vec::new(), 0);
    loop {
        let fault = match lines.next(&mut line)? {
            Next::Rest if line.is_empty() => return Ok((good, End::Whole)),
            Next::Rest => Fault::Torn,
            Next::Line => match chain.follow(&line) {
                Ok(read) => {
                    each(&read);
                    good = lines.offset();
                    continue;
                }
                Err(fault) => fault,
            },
        };
        // A line of a later version, or one that is chained and breaks a rule, was written whole.
        let is_chained = matches!(fault, Fault::Version(_) | Fault::Rule(_));
        let damaged = is_chained || has_checkpoint(file, good)?;
        return Ok((good, if damaged { End::Damaged(fault) } else { End::Torn }));
    }
}

/// Whether a checkpoint stands behind the line that begins at this place. One in that line itself says nothing: it is what may be torn.
fn has_checkpoint<F: ReadFile>(file: &F, from: u64) -> io::Result<bool> {
    let mut bytes = vec![0; SEARCH_BYTES];
    let (mut at, size, mut line_ended) = (from, file.size()?, false);
    while at < size {
        let read = file.read_at(&mut bytes, at)?;
        let ended = memchr::memchr(b'\n', &bytes[..read]);
        let begin = if line_ended { Some(0) } else { ended };
        if begin.is_some_and(|begin| memchr::memmem::find(&bytes[begin..read], CHECKPOINT).is_some()) {
            return Ok(true);
        }
        if read < bytes.len() {
            break;
        }
        line_ended |= ended.is_some();
        // What the end of this piece may have begun is looked at again.
        at += (read - CHECKPOINT.len()) as u64;
    }
    Ok(false)
}

/// The ledger that the newest file is of, if its first line can be read.
pub(super) fn log_of<S: Storage>(storage: &S) -> io::Result<Option<crate::domain::LogId>> {
    let Some(newest) = files(storage)?.last().copied() else { return Ok(None) };
    let first = first_line(&storage.open(&file_name(newest))?)?;
    let log = first.as_deref().and_then(Line::read).and_then(|line| bytes_of_hex(line.log.as_deref()?));
    Ok(log.map(crate::domain::LogId))
}

/// The transaction id of the last line about this accepted entry; `None` if no file has one.
pub(super) fn txid_of<S: Storage>(storage: &S, seq: u64) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    for number in files(storage)?.into_iter().rev() {
        let mut lines = Lines::of(storage.open(&file_name(number))?);
        let mut found = None;
        while lines.next(&mut line)? == Next::Line {
            let read = Line::read(&line).filter(|read| read.is_accepted() && read.seq == Some(seq));
            found = read.and_then(|read| read.txid.map(|txid| txid.to_string())).or(found);
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
