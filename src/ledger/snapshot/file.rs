//! A snapshot file, read block by block.
//!
//! Invariant: nothing is handed on before its hash was right. Who keeps how many snapshots, and when one is taken, is not known here.
use super::super::layout::BLOCK_BYTES;
use super::super::scan::Start;
use super::super::storage::{aligned_start, ReadFile, Storage};
use super::super::LedgerError;
use super::account::{divide, for_each_state, Divided, RECORD_BYTES_MAX};
use super::format::{decode_budget, decode_key, name_budgets, BlockHead, Extents, Footer, Front, SnapshotHead};
use super::format::{BLOCK_HEAD_BYTES, BUDGET_BYTES, FRONT_AT, RECORDS_BYTES, USED_KEY_BYTES};
use crate::domain::{AccountState, TokenId, UsedKey};
use std::io;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 4 << 20;

/// Accounts, keys or budgets that are checked between two looks whether to go on: some milliseconds of reading.
const RECORDS_BETWEEN_LOOKS: u64 = 1 << 14;

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub struct SnapshotFault {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the snapshot {} cannot be used: {}", self.file, self.what)
    }
}

impl std::error::Error for SnapshotFault {}

impl From<SnapshotFault> for LedgerError {
    fn from(fault: SnapshotFault) -> Self {
        LedgerError::Incomplete { place: fault.file, what: fault.what }
    }
}

/// Takes the name and the record of an account.
type EachRecord<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), SnapshotFault>;
/// Takes a token id and what was debited under it.
type EachBudget<'a> = &'a mut dyn FnMut(TokenId, u128) -> Result<(), SnapshotFault>;
/// Takes the head of a block and what is in it.
type EachBlock<'a> = &'a mut dyn FnMut(&BlockHead, &[u8]) -> Result<(), SnapshotFault>;

/// A snapshot that can be read. Opening reads head, front and footer; the blocks are checked as they are read.
#[derive(Clone)]
pub struct Snapshot<F> {
    file: F,
    /// The file is read past the cache of the system, in whole blocks.
    direct: bool,
    place: String,
    head: SnapshotHead,
    front: Front,
    footer: std::sync::Arc<Footer>,
}

impl<F: ReadFile> Snapshot<F> {
    /// Opens a snapshot of this name.
    pub fn open<S: Storage<File = F>>(storage: &S, name: &str) -> Result<Self, SnapshotFault> {
        Self::read_from(storage.open(name), false, storage.place(name))
    }

    /// Opens it so that what is read comes from the disk, where that can be done.
    pub(crate) fn open_past_the_cache<S: Storage<File = F>>(storage: &S, name: &str) -> Result<Self, SnapshotFault> {
        let place = storage.place(name);
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::InvalidInput;
        match storage.open_unbuffered(name) {
            Err(error) if refused(&error) => Self::open(storage, name),
            opened => {
                // Not every file system that opens a file for reading past its cache can do it.
                let mut room = vec![0; 2 * BLOCK_BYTES];
                let start = aligned_start(&room);
                let first = opened.as_ref().ok().map(|file| file.read_at(&mut room[start..start + BLOCK_BYTES], 0));
                match first {
                    Some(Err(error)) if refused(&error) => Self::open(storage, name),
                    Some(_) | None => Self::read_from(opened, true, place),
                }
            }
        }
    }

    pub(crate) fn read_from(opened: io::Result<F>, direct: bool, place: String) -> Result<Self, SnapshotFault> {
        let fault = |what: String| SnapshotFault { file: place.clone(), what };
        let file = opened.map_err(|error| fault(format!("it cannot be opened: {error}")))?;
        let read = |offset: u64, length: u64| read_exactly(&file, direct, offset, length as usize).map_err(fault);
        let mut block = [0; BLOCK_BYTES];
        block.copy_from_slice(&read(0, BLOCK_BYTES as u64)?);
        let head = SnapshotHead::decode(&block).map_err(fault)?;
        let size = file.size().map_err(|error| fault(format!("it cannot be read: {error}")))?;
        if size != head.extents.file_bytes() {
            return Err(fault(format!("it has {size} bytes, its head says {}", head.extents.file_bytes())));
        }
        let front = Front::decode(&read(FRONT_AT, head.extents.front_bytes)?, head.batches).map_err(fault)?;
        let footer = read(head.extents.footer_at(), head.extents.footer_bytes)?;
        if *blake3::hash(&footer).as_bytes() != head.extents.footer_hash {
            return Err(fault("its footer does not match its hash".into()));
        }
        let footer = std::sync::Arc::new(Footer::decode(&footer, head.extents.blocks).map_err(fault)?);
        Ok(Self { file, direct, place, head, front, footer })
    }

    /// What it is of.
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Where the log goes on behind it.
    pub(crate) fn start(&self) -> Start {
        let SnapshotHead { log_id, seq, root, epoch, batches, last_batch, .. } = self.head;
        Start { log_id, seq, root, epoch, batches, last_batch }
    }

    /// Assets and peaks of the history.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// The file, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong with it, as an error.
    pub(crate) fn fault(&self, what: impl Into<String>) -> SnapshotFault {
        SnapshotFault { file: self.place.clone(), what: what.into() }
    }

    /// Reads all of it and checks every hash.
    pub(crate) fn verify(&self) -> Result<(), SnapshotFault> {
        self.verify_while(&mut || Ok(()))
    }

    /// As [`Snapshot::verify`]; `look` is called now and then, and may end it with an error, which is then a fault like any other.
    pub(crate) fn verify_while(&self, look: &mut dyn FnMut() -> Result<(), String>) -> Result<(), SnapshotFault> {
        let mut seen = 0u64;
        let mut step = || {
            seen += 1;
            let looks = seen % RECORDS_BETWEEN_LOOKS == 0;
            if looks {
                look().map_err(|what| self.fault(what))
            } else {
                Ok(())
            }
        };
        self.for_each_record(&mut |_, _| step())?;
        self.for_each_key_while(&mut |_| step())?;
        self.for_each_budget_while(&mut |_, _| step())
    }

    /// Hands over the records of every account, undivided but with right hashes, as name and bytes, in the order of the names.
    pub(crate) fn for_each_record(&self, each: EachRecord<'_>) -> Result<(), SnapshotFault> {
        let mut digest = blake3::Hasher::new();
        digest.update(&self.front.encode());
        let (mut accounts, mut previous) = (0u64, Vec::new());
        self.for_each_block(self.head.extents.blocks_at(), self.head.extents.keys_at(), &mut |head, mut records| {
            digest.update(&head.encode());
            let mut count = 0;
            while !records.is_empty() {
                let Divided { name, record, rest } = divide(records).map_err(|what| self.fault(what))?;
                if previous.as_slice() >= name {
                    return Err(self.fault("its accounts are not in order"));
                }
                previous.clear();
                previous.extend_from_slice(name);
                each(name, record)?;
                (records, count) = (rest, count + 1);
            }
            accounts += u64::from(count);
            (count == head.records).then_some(()).ok_or_else(|| self.fault("a block has another number of records than it says"))
        })?;
        name_budgets(&mut digest, self.head.extents.budgets_bytes, &self.head.extents.budgets_hash);
        if accounts != self.head.accounts || *digest.finalize().as_bytes() != self.head.digest {
            return Err(self.fault("its accounts are not those that its head speaks of"));
        }
        Ok(())
    }

    /// Hands over the state of every account, checked in every field, in the order of the names.
    pub fn for_each_account(&self, each: &mut dyn FnMut(&AccountState<'_>) -> Result<(), String>) -> Result<(), SnapshotFault> {
        let assets = self.front.assets.len();
        self.for_each_record(&mut |_, record| for_each_state(record, assets, each).map_err(|what| self.fault(what)))
    }

    /// Hands over the keys that issues have used, in the order of the entries.
    pub fn for_each_key(&self, each: &mut dyn FnMut(&UsedKey)) -> Result<(), SnapshotFault> {
        self.for_each_key_while(&mut |key| {
            each(key);
            Ok(())
        })
    }

    fn for_each_key_while(&self, each: &mut dyn FnMut(&UsedKey) -> Result<(), SnapshotFault>) -> Result<(), SnapshotFault> {
        let mut hash = blake3::Hasher::new();
        self.for_each_block(self.head.extents.keys_at(), self.head.extents.budgets_at(), &mut |head, keys| {
            hash.update(&head.encode());
            if keys.len() % USED_KEY_BYTES != 0 {
                return Err(self.fault("a block of keys has another length than it says"));
            }
            keys.chunks_exact(USED_KEY_BYTES).try_for_each(|key| each(&decode_key(key)))
        })?;
        let right = *hash.finalize().as_bytes() == self.head.extents.keys_hash;
        right.then_some(()).ok_or_else(|| self.fault("its keys are not those that its head speaks of"))
    }

    /// Hands over what was debited under each token id with a budget, in minor units, in the order of the ids.
    pub fn for_each_budget(&self, each: &mut dyn FnMut(TokenId, u128) -> Result<(), String>) -> Result<(), SnapshotFault> {
        self.for_each_budget_while(&mut |token, spent| each(token, spent).map_err(|what| self.fault(what)))
    }

    fn for_each_budget_while(&self, each: EachBudget<'_>) -> Result<(), SnapshotFault> {
        let Extents { budgets_bytes, budgets_hash, .. } = self.head.extents;
        if budgets_bytes == 0 {
            return Ok(());
        }
        let (mut hash, mut previous) = (blake3::Hasher::new(), None);
        self.for_each_block(self.head.extents.budgets_at(), self.head.extents.footer_at(), &mut |head, budgets| {
            hash.update(&head.encode());
            if budgets.len() != head.records as usize * BUDGET_BYTES {
                return Err(self.fault("a block of budgets has another length than it says"));
            }
            budgets.chunks_exact(BUDGET_BYTES).map(decode_budget).try_for_each(|(token, spent)| {
                if previous.replace(token).is_some_and(|previous| previous >= token) || spent == 0 {
                    return Err(self.fault("its budgets are not in order"));
                }
                each(token, spent)
            })
        })?;
        let right = *hash.finalize().as_bytes() == budgets_hash;
        right.then_some(()).ok_or_else(|| self.fault("its budgets are not those that its head speaks of"))
    }

    fn for_each_block(&self, at: u64, end: u64, each: EachBlock<'_>) -> Result<(), SnapshotFault> {
        let mut ahead = Ahead { snapshot: self, at, end, room: Vec::new(), from: 0 };
        while ahead.at < end {
            let head = BlockHead::decode(ahead.peek(BLOCK_HEAD_BYTES)?);
            if head.bytes == 0 {
                return Err(self.fault("a block is empty"));
            }
            if head.bytes as usize > RECORDS_BYTES + RECORD_BYTES_MAX {
                return Err(self.fault("a block is longer than any writer makes it"));
            }
            let (at, length) = (ahead.at, BLOCK_HEAD_BYTES + head.bytes as usize);
            each(&head, self.records_in(at, ahead.peek(length)?)?)?;
            ahead.pass(length);
        }
        Ok(())
    }

    /// The records of the block that begins at this place of the file, if they have the hash that its head says.
    fn records_in<'a>(&self, at: u64, block: &'a [u8]) -> Result<&'a [u8], SnapshotFault> {
        let cut = || self.fault("a block is cut short");
        let (head, records) = block.split_at_checked(BLOCK_HEAD_BYTES).ok_or_else(cut)?;
        let head = BlockHead::decode(head);
        let records = records.get(..head.bytes as usize).ok_or_else(cut)?;
        let right = *blake3::hash(records).as_bytes() == head.hash;
        right.then_some(records).ok_or_else(|| self.fault(format!("the block at byte {at} does not match its hash")))
    }

    /// The names of up to so many accounts behind this one, in their order.
    pub(crate) fn names_after(&self, name: &[u8], count: usize) -> Result<Vec<Box<str>>, SnapshotFault> {
        let first = self.footer.blocks.partition_point(|(_, first)| &first[..] <= name).saturating_sub(1);
        let mut names = Vec::with_capacity(count);
        for index in first..self.footer.blocks.len() {
            if names.len() >= count {
                break;
            }
            let (at, block) = self.block(index)?;
            let mut records = self.records_in(at, &block)?;
            while !records.is_empty() && names.len() < count {
                let Divided { name: found, rest, .. } = divide(records).map_err(|what| self.fault(what))?;
                if found > name {
                    let text = std::str::from_utf8(found).map_err(|_| self.fault("a record's name is none"))?;
                    names.push(text.into());
                }
                records = rest;
            }
        }
        Ok(names)
    }

    /// A block of accounts with its head, and where it begins.
    fn block(&self, index: usize) -> Result<(u64, Vec<u8>), SnapshotFault> {
        let (at, _) = self.footer.blocks[index];
        let end = self.footer.blocks.get(index + 1).map_or(self.head.extents.keys_at(), |(next, _)| *next);
        let block = read_exactly(&self.file, self.direct, at, (end - at) as usize).map_err(|what| self.fault(what))?;
        Ok((at, block))
    }

    /// The record of one account; `None` if it has none.
    pub(super) fn record_of(&self, name: &[u8]) -> Result<Option<Vec<u8>>, SnapshotFault> {
        let blocks = &self.footer.blocks;
        let after = blocks.partition_point(|(_, first)| &first[..] <= name);
        let Some(index) = after.checked_sub(1) else { return Ok(None) };
        let (at, block) = self.block(index)?;
        let mut records = self.records_in(at, &block)?;
        while !records.is_empty() {
            let Divided { name: found, record, rest } = divide(records).map_err(|what| self.fault(what))?;
            if found == name {
                return Ok(Some(record.to_vec()));
            }
            records = rest;
        }
        Ok(None)
    }
}

/// A part of the file that is read from one end to the other, more at once than is asked for.
struct Ahead<'a, F> {
    snapshot: &'a Snapshot<F>,
    /// The place in the file that comes next, and where the part ends.
    at: u64,
    end: u64,
    /// What has been read, and how much of it is done with.
    room: Vec<u8>,
    from: usize,
}

impl<F: ReadFile> Ahead<'_, F> {
    /// The next so many bytes.
    fn peek(&mut self, length: usize) -> Result<&[u8], SnapshotFault> {
        if self.at + length as u64 > self.end {
            return Err(self.snapshot.fault("a block is cut short"));
        }
        let have = self.room.len() - self.from;
        if have < length {
            // What is left of the last reading stays in front.
            self.room.drain(..self.from);
            self.from = 0;
            let more = (READ_BYTES.max(length - have) as u64).min(self.end - self.at - have as u64) as usize;
            let Snapshot { file, direct, .. } = self.snapshot;
            let read = read_exactly(file, *direct, self.at + have as u64, more).map_err(|what| self.snapshot.fault(what))?;
            self.room.extend_from_slice(&read);
        }
        Ok(&self.room[self.from..self.from + length])
    }

    fn pass(&mut self, length: usize) {
        self.from += length;
        self.at += length as u64;
    }
}

fn read_exactly(file: &impl ReadFile, direct: bool, offset: u64, length: usize) -> Result<Vec<u8>, String> {
    // Past the cache only whole blocks are read, into memory that begins where a block may.
    let before = if direct { offset as usize % BLOCK_BYTES } else { 0 };
    let span = if direct { (before + length).next_multiple_of(BLOCK_BYTES) } else { length };
    let mut room = vec![0; if direct { span + BLOCK_BYTES } else { span }];
    let start = if direct { aligned_start(&room) } else { 0 };
    match file.read_at(&mut room[start..start + span], offset - before as u64) {
        Ok(read) if read >= before + length => {
            room.truncate(start + before + length);
            room.drain(..start + before);
            Ok(room)
        }
        Ok(_) => Err(format!("it ends before byte {}", offset + length as u64)),
        Err(error) => Err(format!("it cannot be read at byte {offset}: {error}")),
    }
}
