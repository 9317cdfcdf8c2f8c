//! A snapshot file that is being written, in order and at the pace of its caller.
//!
//! Invariant: the head is written last, so that a file without one is none.
use super::super::storage::StorageFile;
use super::format::{encode_budget, encode_key, name_budgets, BlockHead, Digest, Extents, Footer, Front, SnapshotHead};
use super::format::{BUDGET_BYTES, FRONT_AT, RECORDS_BYTES, USED_KEY_BYTES};
use crate::domain::{TokenId, UsedKey};
use std::io;

/// How much is written at once, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// How a piece of a snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Synced by itself, so that nobody's commit waits for more than that.
    Piecewise,
    /// Synced together with all that follows: nobody commits any more, and somebody waits for the whole.
    AtOnce,
}

/// Is called after each piece with the bytes that have been written, has the time to rest if the disk belongs to others, and says how the
/// next one is written.
pub(crate) type Paced<'a> = &'a mut dyn FnMut(u64) -> Pace;

/// A snapshot that is being written. Records come in the order of their accounts' names.
pub(super) struct Writer<'a, F> {
    file: F,
    paced: Option<Paced<'a>>,
    pace: Pace,
    /// What has not been written yet, and where it goes.
    buffer: Vec<u8>,
    buffer_at: u64,
    records: Vec<u8>,
    count: u32,
    first: Box<[u8]>,
    footer: Footer,
    digest: blake3::Hasher,
    accounts: u64,
    front_bytes: u64,
    /// Where the accounts and the keys end, once they have.
    accounts_end: Option<u64>,
    keys_end: Option<u64>,
    keys_hash: blake3::Hasher,
    budgets_hash: blake3::Hasher,
}

impl<'a, F: StorageFile> Writer<'a, F> {
    /// Writes into an empty file. If it is paced, each piece is followed by a call, and the first one is synced.
    pub fn begin(file: F, front: &Front, paced: Option<Paced<'a>>) -> io::Result<Self> {
        let front = front.encode();
        let mut digest = blake3::Hasher::new();
        digest.update(&front);
        let mut writer = Self {
            file,
            pace: if paced.is_some() { Pace::Piecewise } else { Pace::AtOnce },
            paced,
            buffer: Vec::with_capacity(WRITE_BYTES + RECORDS_BYTES),
            buffer_at: FRONT_AT,
            records: Vec::with_capacity(2 * RECORDS_BYTES),
            count: 0,
            first: Box::default(),
            footer: Footer::default(),
            digest,
            accounts: 0,
            front_bytes: front.len() as u64,
            accounts_end: None,
            keys_end: None,
            keys_hash: blake3::Hasher::new(),
            budgets_hash: blake3::Hasher::new(),
        };
        writer.put(&front)?;
        Ok(writer)
    }

    /// Appends the record of one account, which may already be bytes.
    pub fn record(&mut self, name: &[u8], encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if self.count == 0 {
            self.first = name.into();
        }
        encode(&mut self.records);
        self.count += 1;
        self.accounts += 1;
        if self.records.len() >= RECORDS_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    /// Appends a key that an issue has used; after all accounts, in the order of the entries.
    pub fn key(&mut self, key: &UsedKey) -> io::Result<()> {
        self.end_accounts()?;
        self.records.extend_from_slice(&encode_key(key));
        self.count += 1;
        if self.records.len() + USED_KEY_BYTES > RECORDS_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    /// Appends what was debited under a token id; after all keys, in the order of the ids.
    pub fn budget(&mut self, token: TokenId, spent: u128) -> io::Result<()> {
        self.end_keys()?;
        self.records.extend_from_slice(&encode_budget(token, spent));
        self.count += 1;
        if self.records.len() + BUDGET_BYTES > RECORDS_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_accounts(&mut self) -> io::Result<u64> {
        if let Some(end) = self.accounts_end {
            return Ok(end);
        }
        let end = self.end_part()?;
        Ok(*self.accounts_end.insert(end))
    }

    fn end_keys(&mut self) -> io::Result<u64> {
        self.end_accounts()?;
        if let Some(end) = self.keys_end {
            return Ok(end);
        }
        let end = self.end_part()?;
        Ok(*self.keys_end.insert(end))
    }

    fn end_part(&mut self) -> io::Result<u64> {
        if self.count > 0 {
            self.end_block()?;
        }
        Ok(self.buffer_at + self.buffer.len() as u64)
    }

    fn end_block(&mut self) -> io::Result<()> {
        let head = BlockHead::of(&self.records, self.count).encode();
        if self.accounts_end.is_none() {
            let at = self.buffer_at + self.buffer.len() as u64;
            self.footer.blocks.push((at, std::mem::take(&mut self.first)));
            self.digest.update(&head);
        } else if self.keys_end.is_none() {
            self.keys_hash.update(&head);
        } else {
            self.budgets_hash.update(&head);
        }
        self.put(&head)?;
        let records = std::mem::take(&mut self.records);
        self.put(&records)?;
        self.records = records;
        self.records.clear();
        self.count = 0;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.buffer_at)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        if self.pace == Pace::Piecewise {
            self.file.sync()?;
        }
        if let Some(paced) = &mut self.paced {
            self.pace = paced(self.buffer_at);
        }
        Ok(())
    }

    /// Ends the file, durably. `head` gets what only the writer knows.
    pub fn finish(mut self, head: &mut SnapshotHead) -> io::Result<()> {
        let (accounts_end, keys_end, budgets_end) = (self.end_accounts()?, self.end_keys()?, self.end_part()?);
        let budgets_bytes = budgets_end - keys_end;
        let budgets_hash = if budgets_bytes == 0 { Digest::default() } else { *self.budgets_hash.finalize().as_bytes() };
        name_budgets(&mut self.digest, budgets_bytes, &budgets_hash);
        let footer = self.footer.encode();
        head.accounts = self.accounts;
        head.digest = *self.digest.finalize().as_bytes();
        head.extents = Extents {
            front_bytes: self.front_bytes,
            blocks: self.footer.blocks.len() as u64,
            blocks_bytes: accounts_end - FRONT_AT - self.front_bytes,
            keys_bytes: keys_end - accounts_end,
            keys_hash: *self.keys_hash.finalize().as_bytes(),
            budgets_bytes,
            budgets_hash,
            footer_bytes: footer.len() as u64,
            footer_hash: *blake3::hash(&footer).as_bytes(),
        };
        self.put(&footer)?;
        self.write()?;
        self.file.sync()?;
        self.file.write_at(&head.encode(), 0)?;
        self.file.sync()
    }
}
