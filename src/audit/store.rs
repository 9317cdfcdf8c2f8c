//! The files of a stream as they are written: one at a time, at its end only, and what an interrupted write has left is cut off.
//!
//! Invariants: one process writes, because it holds the lock of the directory; after a failed write the file is cut back to its last good
//! length before anything else is written, so that what was given up cannot come back beside its successor. When the server finds a
//! line that is not what was written, it cuts only if nothing behind that line is known to have been on the disk: a checkpoint is
//! written after a sync of everything before it, so damage before one is no interrupted write, and is left as it is.
//!
//! A sync that failed is told once, and one that succeeds afterwards tells nothing about what the first one should have made durable. So
//! after a failure, and at a start, which does not know of failures before it, what is behind the last good sync is written again, and only
//! then synced.
use super::chain::{Chain, Fault};
use super::fault::AuditFault;
use super::line::{Line, LINE_BYTES_MAX};
use super::lines::{file_name, files, Lines, Next};
use crate::domain::bytes_of_hex;
use crate::ledger::{ReadFile, Storage, StorageFile};
use std::io;

/// How a checkpoint shows in bytes that may be damaged.
const CHECKPOINT: &[u8] = b"\"kind\":\"checkpoint\"";
/// What is searched at once.
const SEARCH_BYTES: usize = 256 << 10;
/// What is written again at once.
const AGAIN_BYTES: usize = 1 << 20;

/// What was found of a stream.
#[derive(Debug)]
pub(super) struct Found {
    /// Behind the last good line.
    pub chain: Chain,
    /// Bytes of an interrupted write that were cut off.
    pub torn: u64,
    /// Behind what is known to be on the disk.
    pub sure: Chain,
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
    /// Bytes of the present file that are known to be on the disk.
    synced: u64,
    /// Whether a sync of what is behind them may have failed.
    is_unsure: bool,
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
        Ok(Self { storage, _lock: lock, file: None, number: 0, length: 0, must_cut: false, synced: 0, is_unsure: false })
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
            return Ok(Found { chain: Chain::BEGINNING, torn: 0, sure: Chain::BEGINNING, damaged: None, begun: false });
        };
        let file = self.storage.open(&file_name(newest))?;
        let size = file.size()?;
        (self.number, self.must_cut) = (newest, false);
        let first = first_line(&file)?.and_then(|first| Chain::before(&first).ok().filter(|before| before.file + 1 == newest));
        if let Some(mut chain) = first {
            let (good, end, (synced, sure)) = read(&file, &mut chain, each)?;
            let damaged = match end {
                End::Damaged(fault) => Some(format!("{} at byte {good}: {fault}", self.place())),
                End::Whole | End::Torn => None,
            };
            if damaged.is_some() {
                return Ok(Found { sure: chain.clone(), chain, torn: 0, damaged, begun: false });
            }
            (self.length, self.must_cut) = (good, good < size);
            (self.synced, self.is_unsure) = (synced, good > synced);
            let file = self.file.insert(file).clone();
            if self.must_cut {
                // Durably, before anything is written: what was cut off must not show up between new lines after the next crash.
                self.cut()?;
                file.sync()?;
            }
            return Ok(Found { chain, torn: size - good, sure, damaged: None, begun: good > 0 });
        }
        // Its first line is not there: it was just being made, or is damaged.
        let is_damaged = has_checkpoint(&file, 0)?;
        let mut before = (Chain::BEGINNING, None);
        if let Some(number) = numbers.len().checked_sub(2).map(|at| numbers[at]) {
            let (name, earlier) = (file_name(number), self.storage.open(&file_name(number))?);
            let chain = first_line(&earlier)?.and_then(|first| Chain::before(&first).ok());
            let mut chain = chain.unwrap_or(Chain { file: number - 1, ..Chain::BEGINNING });
            let damaged = match read(&earlier, &mut chain, each)? {
                (good, End::Torn, _) => Some(format!("{} at byte {good}: {}", self.storage.place(&name), Fault::Torn)),
                (good, End::Damaged(fault), _) => Some(format!("{} at byte {good}: {fault}", self.storage.place(&name))),
                (_, End::Whole, _) => None,
            };
            before = (Chain { file: number, ..chain }, damaged);
        }
        let (mut chain, mut damaged) = before;
        if is_damaged {
            chain.file = newest;
            damaged = Some(format!("{} at byte 0: {}", self.place(), Fault::Hash));
            return Ok(Found { sure: chain.clone(), chain, torn: 0, damaged, begun: false });
        }
        // Made anew under the same name.
        self.number = newest - 1;
        chain.file = newest - 1;
        Ok(Found { sure: chain.clone(), chain, torn: size, damaged, begun: false })
    }

    /// Makes the next file, in place of what an interrupted making has left.
    pub fn create(&mut self, number: u32) -> io::Result<()> {
        self.file = None;
        let file = self.storage.create(&file_name(number))?;
        self.storage.sync_directory()?;
        (self.file, self.number, self.length, self.must_cut) = (Some(file), number, 0, false);
        (self.synced, self.is_unsure) = (0, false);
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

    /// Makes what was appended durable. After an error it has to be written again first.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        assert!(!self.is_unsure, "what may not be on the disk is written again before anything is synced");
        self.is_unsure = true;
        file.sync()?;
        (self.is_unsure, self.synced) = (false, self.length);
        Ok(())
    }

    /// Whether a sync may have failed of what is behind the last good one.
    pub fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// Writes what is behind the last good sync again, as the system still shows it, and syncs it. `chain` is at that place, and then at
    /// the end. False if something else is shown than what was written.
    pub fn write_again(&mut self, chain: &mut Chain) -> io::Result<bool> {
        let Some(file) = self.file.clone() else { return Ok(false) };
        let (mut lines, mut line) = (Lines::from(file.clone(), self.synced), Vec::new());
        let (mut again, mut from) = (Vec::new(), self.synced);
        while lines.offset() < self.length {
            let is_good = lines.next(&mut line)? == Next::Line && lines.offset() <= self.length && chain.follow(&line).is_ok();
            if !is_good {
                return Ok(false);
            }
            again.extend_from_slice(&line);
            if again.len() >= AGAIN_BYTES || lines.offset() == self.length {
                file.write_at(&again, from)?;
                from = lines.offset();
                again.clear();
            }
        }
        file.sync()?;
        (self.is_unsure, self.synced) = (false, self.length);
        Ok(true)
    }

    /// Ends the present file behind the last good sync; the stream has to go on in another one.
    pub fn leave(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.cut(self.synced)?;
            file.sync()?;
        }
        (self.file, self.is_unsure) = (None, false);
        Ok(())
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

/// Where the good lines of a file end, what is behind, and what is known to be on the disk: what is before the last checkpoint.
type Reading = (u64, End, (u64, Chain));

/// Follows a file line by line.
fn read<F: ReadFile>(file: &F, chain: &mut Chain, each: &mut dyn FnMut(&Line<'_>)) -> io::Result<Reading> {
    let mut lines = Lines::of(file.clone());
    let (mut line, mut good, mut sure) = (Vec::new(), 0, (0, chain.clone()));
    loop {
        let next = lines.next(&mut line)?;
        let before = (good, chain.clone());
        let fault = match next {
            Next::Rest if line.is_empty() => return Ok((good, End::Whole, sure)),
            Next::Rest => Fault::Torn,
            Next::Line => match chain.follow(&line) {
                Ok(read) => {
                    each(&read);
                    if &*read.kind == "checkpoint" {
                        sure = before;
                    }
                    good = lines.offset();
                    continue;
                }
                Err(fault) => fault,
            },
        };
        // A line of a later version, or one that is chained and breaks a rule, was written whole.
        let is_chained = matches!(fault, Fault::Version(_) | Fault::Rule(_));
        let damaged = is_chained || has_checkpoint(file, good)?;
        return Ok((good, if damaged { End::Damaged(fault) } else { End::Torn }, sure));
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

/// The last line of a file, if it is there and ends with one.
pub(super) fn last_line<S: Storage>(storage: &S, number: u32) -> io::Result<Option<Vec<u8>>> {
    if !files(storage)?.contains(&number) {
        return Ok(None);
    }
    let file = storage.open(&file_name(number))?;
    let from = file.size()?.saturating_sub(LINE_BYTES_MAX as u64);
    let mut bytes = vec![0; LINE_BYTES_MAX];
    let read = file.read_at(&mut bytes, from)?;
    Ok(bytes[..read].split_inclusive(|byte| *byte == b'\n').next_back().filter(|line| line.ends_with(b"\n")).map(<[u8]>::to_vec))
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
