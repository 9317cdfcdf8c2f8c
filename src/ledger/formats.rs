//! Which version of its format each file of a ledger's directory has, told from its head alone; and an index file made anew.
//!
//! What is whole by its head may be damaged further on: that is for `verify` and scrubbing to say. Nothing is written here.
use super::history::HISTORY_NAME;
use super::index_format::{self, Pairs, Subject};
use super::layout::{u32_at, Fault, SegmentHeader, BLOCK_BYTES, FORMAT_VERSION, ZERO_BLOCK};
use super::mark::{Mark, EPOCH_NAME, MARK_BYTES};
use super::scrub::{ScrubState, SCRUB_NAME};
use super::snapshot::{self, snapshot_seq};
use super::storage::{index_name, index_number, read_zero_filled, segment_name, segment_number, ReadFile, Storage};
use super::walk::Walk;
use super::witness::{self, WITNESS_NAME};
use super::LedgerError;
use crate::domain::Seq;
use std::io;
use std::ops::ControlFlow;

/// Magic number of index files of version 1, which knew debits only. Their head has its hash where every head has it.
const INDEX_MAGIC_BEFORE: [u8; 8] = *b"RONDEBIT";
/// Where the hash of a head block stands, in bytes.
const HASH_AT: usize = BLOCK_BYTES - 32;

/// A file of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFormat {
    /// Its name in the directory.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// The version of its format.
    pub version: FormatVersion,
}

/// How the version of a file compares with what this code reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatVersion {
    /// It is read.
    Current(u32),
    /// It was read by earlier versions, and is not any more.
    Older(u32),
    /// A later version has written it.
    Newer {
        /// Its version.
        version: u32,
        /// The newest that is read.
        read: u32,
    },
    /// Its head is not what was written, and why.
    Damaged(String),
}

/// The kind of an index file.
pub const INDEX_KIND: &str = "index";

/// All files of a ledger whose format has a version, in the order of their names.
///
/// # Errors
/// If the directory or a file cannot be read.
pub fn formats<S: Storage>(storage: &S) -> io::Result<Vec<FileFormat>> {
    let mut names = storage.list()?;
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let looked_at = match name.as_str() {
            EPOCH_NAME => Some(("epoch", mark(storage)?)),
            WITNESS_NAME => Some(("witness", witness::flaw(storage)?.map_or(current(FORMAT_VERSION), FormatVersion::Damaged))),
            HISTORY_NAME => Some(("history", headed(storage, &name, &[(super::history::MAGIC, &[FORMAT_VERSION])])?)),
            SCRUB_NAME => Some(("scrub", scrub(storage)?)),
            _ if segment_number(&name).is_some() => Some(("segment", segment(storage, &name)?)),
            _ if index_number(&name).is_some() => {
                let known = [(index_format::MAGIC, &[index_format::VERSION][..]), (INDEX_MAGIC_BEFORE, &[])];
                Some((INDEX_KIND, headed(storage, &name, &known)?))
            }
            _ if snapshot_seq(&name).is_some() => {
                Some(("snapshot", headed(storage, &name, &[(snapshot::MAGIC, &snapshot::VERSIONS)])?))
            }
            _ => None,
        };
        found.extend(looked_at.map(|(kind, version)| FileFormat { name, kind, version }));
    }
    Ok(found)
}

fn current(version: u32) -> FormatVersion {
    FormatVersion::Current(version)
}

/// What a version number is, of those that are read.
fn judged(version: u32, read: &[u32]) -> FormatVersion {
    match read {
        _ if read.contains(&version) => current(version),
        [.., newest] if version > *newest => FormatVersion::Newer { version, read: *newest },
        _ => FormatVersion::Older(version),
    }
}

/// A file with a head block that ends with its own hash: the version under one of these magic numbers, with the versions that are read.
fn headed<S: Storage>(storage: &S, name: &str, known: &[([u8; 8], &[u32])]) -> io::Result<FormatVersion> {
    let mut block = ZERO_BLOCK;
    read_zero_filled(&storage.open(name)?, &mut block, 0)?;
    if blake3::hash(&block[..HASH_AT]).as_bytes()[..] != block[HASH_AT..] {
        return Ok(FormatVersion::Damaged("its head does not match its hash".to_owned()));
    }
    let versions = known.iter().find(|(magic, _)| block[..8] == *magic).map(|(_, versions)| *versions);
    Ok(match versions {
        Some(versions) => judged(u32_at(&block, 8), versions),
        None => FormatVersion::Damaged("its magic number is another one".to_owned()),
    })
}

fn segment<S: Storage>(storage: &S, name: &str) -> io::Result<FormatVersion> {
    let file = storage.open(name)?;
    let mut why = String::new();
    for copy in 0..2 {
        let mut block = ZERO_BLOCK;
        read_zero_filled(&file, &mut block, copy * BLOCK_BYTES as u64)?;
        match SegmentHeader::decode(&block) {
            Ok(_) => return Ok(current(FORMAT_VERSION)),
            Err(Fault::Version(version)) => return Ok(judged(version, &[FORMAT_VERSION])),
            Err(fault) => why = fault.to_string(),
        }
    }
    Ok(FormatVersion::Damaged(format!("both copies of its header are damaged: {why}")))
}

fn mark<S: Storage>(storage: &S) -> io::Result<FormatVersion> {
    let mut bytes = [0; MARK_BYTES];
    let read = storage.open(EPOCH_NAME)?.read_at(&mut bytes, 0)?;
    Ok(match Mark::decode(&bytes[..read]) {
        Some(Ok(_)) => current(FORMAT_VERSION),
        Some(Err(version)) => judged(version, &[FORMAT_VERSION]),
        None => FormatVersion::Damaged("it does not match its own hash".to_owned()),
    })
}

fn scrub<S: Storage>(storage: &S) -> io::Result<FormatVersion> {
    Ok(match ScrubState::read(storage)? {
        Some(_) => current(FORMAT_VERSION),
        None => FormatVersion::Damaged("it cannot be used, and the next pass of scrubbing writes it anew".to_owned()),
    })
}

/// The index file of a sealed segment, as a server would make it, from the segment itself.
///
/// # Errors
/// If the segment or the one behind it is not here, or cannot be read.
pub fn index_anew<S: Storage>(storage: &S, index: &str) -> Result<Vec<u8>, LedgerError> {
    let next = "move the archived segments back and repeat the command, or remove this index: it is made anew once they are back";
    let missing =
        |what: String| LedgerError::Mendable { place: storage.place(index), missing: true, what: what.into(), next: next.into() };
    let number = index_number(index).ok_or_else(|| missing("the file is not named as an index".to_owned()))?;
    let walk = Walk::open(storage.clone())?;
    let of = |number: u64| walk.segments().iter().find(|segment| segment.index == number);
    let first_of = |number: u64| Some(of(number)?.header.as_ref().ok()?.first_seq);
    let needs = |number: u64| missing(format!("an index is made from its segment, and {} is not here", segment_name(number)));
    let segment = of(number).ok_or_else(|| needs(number))?;
    let first = first_of(number).ok_or_else(|| needs(number))?;
    let behind = first_of(number + 1).ok_or_else(|| needs(number + 1))?;
    let mut pairs = Pairs::new();
    walk.segment(segment, &mut |batch| {
        batch.visit(|seq, entry| {
            pairs.add(u32::try_from(seq.0 - first.0).expect("a segment has room for fewer entries"), &entry);
            ControlFlow::Continue(())
        })
    })?;
    pairs.sort();
    let log_id = walk.log_id().expect("a header was read");
    let subject = Subject { log_id, segment: number, first, last: Seq(behind.0 - 1) };
    assert_eq!(index, index_name(number), "an index file has one name");
    Ok(pairs.encode(subject))
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStorage;
    use super::super::storage::{replace, StorageFile};
    use super::*;

    /// A file of one head block with this magic number and version.
    fn headed_by(storage: &MemoryStorage, name: &str, magic: [u8; 8], version: u32) {
        let mut block = ZERO_BLOCK;
        block[..8].copy_from_slice(&magic);
        block[8..12].copy_from_slice(&version.to_le_bytes());
        let hash = *blake3::hash(&block[..HASH_AT]).as_bytes();
        block[HASH_AT..].copy_from_slice(&hash);
        replace(storage, name, &block).unwrap();
    }

    #[test]
    fn versions_are_told_by_the_heads() {
        let storage = MemoryStorage::new();
        let (index, snapshot) = (|number| index_name(number), |seq| snapshot::snapshot_name(Seq(seq)));
        headed_by(&storage, &index(1), INDEX_MAGIC_BEFORE, 1);
        headed_by(&storage, &index(2), *b"RONINDEX", 2);
        headed_by(&storage, &index(3), *b"RONINDEX", 3);
        headed_by(&storage, &index(4), *b"ELSEWHER", 2);
        for version in 1..=3 {
            headed_by(&storage, &snapshot(u64::from(version)), *b"RONSNAPS", version);
        }
        headed_by(&storage, &snapshot(4), *b"RONSNAPS", 2);
        storage.open(&snapshot(4)).unwrap().write_at(&[9], 100).unwrap();
        replace(&storage, EPOCH_NAME, b"short").unwrap();
        replace(&storage, "lock", b"").unwrap();
        let told: Vec<(String, FormatVersion)> =
            formats(&storage).unwrap().into_iter().map(|file| (file.name, file.version)).collect();
        let damaged = |why: &str| FormatVersion::Damaged(why.to_owned());
        let expected = [
            (EPOCH_NAME.to_owned(), damaged("it does not match its own hash")),
            (index(1), FormatVersion::Older(1)),
            (index(2), FormatVersion::Current(2)),
            (index(3), FormatVersion::Newer { version: 3, read: 2 }),
            (index(4), damaged("its magic number is another one")),
            (snapshot(1), FormatVersion::Current(1)),
            (snapshot(2), FormatVersion::Current(2)),
            (snapshot(3), FormatVersion::Newer { version: 3, read: 2 }),
            (snapshot(4), damaged("its head does not match its hash")),
        ];
        assert_eq!(told, expected);
    }
}
