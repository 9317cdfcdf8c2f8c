//! The files of a stream as lines: one file, or one file after the other while the stream goes on.
//!
//! Nothing here looks at hashes, so that whoever wants to look into a damaged stream can.
use super::line::LINE_BYTES_MAX;
use crate::ledger::{ReadFile, Storage};
use std::io;

/// What is read of a file at once.
const READ_BYTES: usize = 256 << 10;

/// Name of a file of the stream.
pub fn file_name(number: u32) -> String {
    format!("audit-{number:010}.jsonl")
}

/// The number in the name of a file; `None` for all other names.
pub fn file_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()?;
    (file_name(number) == name && number > 0).then_some(number)
}

/// The numbers of the files of a stream, in their order.
pub fn files<S: Storage>(storage: &S) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = storage.list()?.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What a file has next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole line.
    Line,
    /// The end, or bytes that are no line: what an interrupted write has left, or what is just being written.
    Rest,
}

/// The lines of one file, from a place on.
pub struct Lines<F> {
    file: F,
    /// Where the next line begins.
    offset: u64,
    /// What has been read from there on.
    ahead: Vec<u8>,
    used: usize,
}

impl<F: ReadFile> Lines<F> {
    /// From the beginning.
    pub fn of(file: F) -> Self {
        Self::from(file, 0)
    }

    /// From this place on, at which a line begins.
    pub fn from(file: F, offset: u64) -> Self {
        Self { file, offset, ahead: Vec::new(), used: 0 }
    }

    /// Where the next line begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Puts the next line into `line`, line feed included, in place of what is there, or the rest, which is not passed over: a later
    /// call may find a line there.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Next> {
        line.clear();
        loop {
            let ahead = &self.ahead[self.used..];
            if let Some(at) = memchr::memchr(b'\n', ahead) {
                line.extend_from_slice(&ahead[..=at]);
                self.used += at + 1;
                self.offset += at as u64 + 1;
                return Ok(Next::Line);
            }
            if ahead.len() > LINE_BYTES_MAX || !self.read_on()? {
                line.extend_from_slice(&self.ahead[self.used..]);
                return Ok(Next::Rest);
            }
        }
    }

    /// Whether there was more.
    fn read_on(&mut self) -> io::Result<bool> {
        self.ahead.drain(..self.used);
        self.used = 0;
        let known = self.ahead.len();
        self.ahead.resize(known + READ_BYTES, 0);
        let read = self.file.read_at(&mut self.ahead[known..], self.offset + known as u64);
        self.ahead.truncate(known + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

/// The lines of a stream from a file on, as far as they are there, over the ends of files.
pub struct Follower<S: Storage> {
    storage: S,
    number: u32,
    lines: Option<Lines<S::File>>,
}

impl<S: Storage> Follower<S> {
    /// From the first line of this file on, or of the next one that is there.
    pub fn from_file(storage: S, number: u32) -> Self {
        Self { storage, number, lines: None }
    }

    /// The file of the last line, and where the next one begins.
    pub fn place(&self) -> (u32, u64) {
        (self.number, self.lines.as_ref().map_or(0, Lines::offset))
    }

    /// Puts the next line into `line`; false if there is none now. Remains of an interrupted write before the next file are passed over.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let Some(lines) = &mut self.lines else {
                let Some(number) = files(&self.storage)?.into_iter().find(|number| *number >= self.number) else {
                    return Ok(false);
                };
                self.lines = Some(Lines::of(self.storage.open(&file_name(number))?));
                self.number = number;
                continue;
            };
            if lines.next(line)? == Next::Line {
                return Ok(true);
            }
            // Once there is a next file, nothing is written to this one any more; what came before it was made is read first.
            if !files(&self.storage)?.iter().any(|number| *number > self.number) {
                return Ok(false);
            }
            if lines.next(line)? == Next::Line {
                return Ok(true);
            }
            self.lines = None;
            self.number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{MemoryStorage, StorageFile};

    #[test]
    fn only_our_own_names_are_files_of_a_stream() {
        assert_eq!(file_number(&file_name(42)), Some(42));
        for other in ["audit-1.jsonl", "audit-0000000000.jsonl", "audit-0000000001.jsonl.tmp", "lock", "audit-+000000001.jsonl"] {
            assert_eq!(file_number(other), None, "{other}");
        }
    }

    #[test]
    fn lines_are_followed_as_they_come_and_over_the_ends_of_files() {
        let storage = MemoryStorage::new();
        let mut follower = Follower::from_file(storage.clone(), 1);
        let mut line = Vec::new();
        assert!(!follower.next(&mut line).unwrap());
        let first = storage.create(&file_name(3)).unwrap();
        first.write_at(b"one\ntw", 0).unwrap();
        assert!(follower.next(&mut line).unwrap());
        assert_eq!((&*line, follower.place()), (&b"one\n"[..], (3, 4)));
        assert!(!follower.next(&mut line).unwrap());
        first.write_at(b"o\ntorn", 6).unwrap();
        assert!(follower.next(&mut line).unwrap());
        assert_eq!(line, b"two\n");
        storage.create(&file_name(4)).unwrap().write_at(b"three\n", 0).unwrap();
        assert!(follower.next(&mut line).unwrap());
        assert_eq!((&*line, follower.place()), (&b"three\n"[..], (4, 6)));
        assert!(!follower.next(&mut line).unwrap());
    }

    #[test]
    fn what_is_no_line_does_not_fill_the_memory() {
        let storage = MemoryStorage::new();
        let file = storage.create(&file_name(1)).unwrap();
        file.write_at(&vec![0; 4 << 20], 0).unwrap();
        let mut lines = Lines::of(file);
        let mut rest = Vec::new();
        assert_eq!(lines.next(&mut rest).unwrap(), Next::Rest);
        assert!(rest.len() <= LINE_BYTES_MAX + READ_BYTES && lines.offset() == 0);
    }
}
