//! From (account, nonce) to the entry: a sorted file per sealed segment, a map in memory for the segment being written.
//!
//! Nothing here is the truth: an index file that is missing or damaged is made again from its segment, and every hit is confirmed by
//! the entry itself. `docs/LEDGER.md` draws the file.
use super::cursor::Cursor;
use super::layout::{array_at, put, u32_at, u64_at, BLOCK_BYTES, FORMAT_VERSION, ZERO_BLOCK};
use super::log::Shared;
use super::reader::visit;
use super::storage::{index_name, replace, Storage, StorageFile};
use super::LedgerError;
use crate::domain::{Found, LogId, Nonce, Seq};
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const MAGIC: [u8; 8] = *b"RONDEBIT";
const HASH_AT: usize = BLOCK_BYTES - 32;
const PAIR_BYTES: usize = 16;
const PAIRS_PER_BLOCK: usize = 255;
const CHECK_AT: usize = BLOCK_BYTES - 8;
/// How much of a segment is read at once for indexing, in bytes.
const WINDOW_BYTES: usize = 1 << 20;

const _: () = assert!(PAIRS_PER_BLOCK * PAIR_BYTES <= CHECK_AT);

/// (hash of account and nonce, sequence number)
type Pair = (u64, u64);

fn hash_of(account: &str, nonce: Nonce) -> u64 {
    xxh3_64_with_seed(account.as_bytes(), nonce.0)
}

/// What identifies an index file: the log, the segment, its first and last entry.
#[derive(Clone, Copy)]
struct Subject {
    log_id: LogId,
    segment: u64,
    first: Seq,
    last: Seq,
}

impl Subject {
    fn head_block(&self, pairs: u64) -> [u8; BLOCK_BYTES] {
        let mut block = ZERO_BLOCK;
        put(&mut block, 0, MAGIC);
        put(&mut block, 8, FORMAT_VERSION.to_le_bytes());
        put(&mut block, 16, self.log_id.0);
        put(&mut block, 32, self.segment.to_le_bytes());
        put(&mut block, 40, self.first.0.to_le_bytes());
        put(&mut block, 48, self.last.0.to_le_bytes());
        put(&mut block, 56, pairs.to_le_bytes());
        let hash = *blake3::hash(&block[..HASH_AT]).as_bytes();
        put(&mut block, HASH_AT, hash);
        block
    }

    fn check(&self, block: &[u8], number: u64) -> u64 {
        xxh3_64_with_seed(&block[..CHECK_AT], self.segment.rotate_left(32) ^ number)
    }

    /// The whole file.
    fn encode(&self, pairs: &[Pair]) -> Vec<u8> {
        let mut bytes = self.head_block(pairs.len() as u64).to_vec();
        for (number, chunk) in (0..).zip(pairs.chunks(PAIRS_PER_BLOCK)) {
            let mut block = ZERO_BLOCK;
            for (at, (hash, seq)) in chunk.iter().enumerate() {
                put(&mut block, at * PAIR_BYTES, hash.to_le_bytes());
                put(&mut block, at * PAIR_BYTES + 8, seq.to_le_bytes());
            }
            let check = self.check(&block, number);
            put(&mut block, CHECK_AT, check.to_le_bytes());
            bytes.extend_from_slice(&block);
        }
        bytes
    }
}

/// An index file that belongs to its subject. Blocks are checked as they are read.
struct IndexFile<F> {
    file: F,
    subject: Subject,
    pairs: u64,
}

impl<F: StorageFile> IndexFile<F> {
    fn open(file: F, subject: Subject) -> io::Result<Self> {
        let mut block = ZERO_BLOCK;
        file.read_at(&mut block, 0)?;
        let pairs = u64_at(&block, 56);
        if u32_at(&block, 8) != FORMAT_VERSION || block != subject.head_block(pairs) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the index file belongs to something else or is damaged"));
        }
        Ok(Self { file, subject, pairs })
    }

    fn block(&self, number: u64) -> io::Result<Vec<Pair>> {
        let mut block = ZERO_BLOCK;
        self.file.read_at(&mut block, (number + 1) * BLOCK_BYTES as u64)?;
        if u64_at(&block, CHECK_AT) != self.subject.check(&block, number) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a block of the index file is damaged"));
        }
        let count = (self.pairs - number * PAIRS_PER_BLOCK as u64).min(PAIRS_PER_BLOCK as u64) as usize;
        let pair = |bytes: &[u8]| (u64::from_le_bytes(array_at(bytes, 0)), u64::from_le_bytes(array_at(bytes, 8)));
        Ok(block[..count * PAIR_BYTES].chunks(PAIR_BYTES).map(pair).collect())
    }

    /// All entries under this hash.
    fn lookup(&self, hash: u64) -> io::Result<Vec<Seq>> {
        let blocks = self.pairs.div_ceil(PAIRS_PER_BLOCK as u64);
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            let last = self.block(middle)?.last().map_or(0, |pair| pair.0);
            if last < hash {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        for number in low..blocks {
            let pairs = self.block(number)?;
            found.extend(pairs.iter().filter(|pair| pair.0 == hash).map(|pair| Seq(pair.1)));
            if pairs.last().is_some_and(|pair| pair.0 > hash) {
                break;
            }
        }
        Ok(found)
    }
}

/// The index over the whole log.
pub(super) struct DebitIndex<S: Storage> {
    shared: Arc<Shared<S>>,
    /// Where the map of the active segment ends; `None` before the first question.
    cursor: Option<Cursor<S>>,
    active: BTreeSet<Pair>,
    /// Up to this segment the files have been seen to exist, or could not be written.
    built_through: u64,
}

impl<S: Storage> DebitIndex<S> {
    pub(super) fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared, cursor: None, active: BTreeSet::new(), built_through: 0 }
    }

    fn range(&self) -> (u64, u64) {
        let places = self.shared.places.read().expect("no thread panics while it holds the places");
        places.range().expect("a log has at least one segment")
    }

    /// Offers every entry that may be this debit to `confirm`, newest segment first, until one is confirmed.
    pub(super) fn search(
        &mut self,
        account: &str,
        nonce: Nonce,
        confirm: &mut dyn FnMut(Seq) -> Result<Option<Found>, LedgerError>,
    ) -> Result<Option<Found>, LedgerError> {
        let hash = hash_of(account, nonce);
        // The head before the segments: then every entry up to the head is in one of them.
        let head = self.shared.head();
        let (first, last) = self.range();
        self.extend_active(last, head)?;
        for (_, seq) in self.active.range((hash, 0)..=(hash, u64::MAX)) {
            if let Some(found) = confirm(Seq(*seq))? {
                return Ok(Some(found));
            }
        }
        for segment in (first..last).rev() {
            for seq in self.lookup_sealed(segment, hash)? {
                if let Some(found) = confirm(seq)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn extend_active(&mut self, segment: u64, head: Seq) -> Result<(), LedgerError> {
        // Taken out, so that after an error the next question starts from the beginning of the segment.
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.segment() == segment => cursor,
            Some(_) | None => {
                self.active.clear();
                self.start_of(segment)?
            }
        };
        let active = &mut self.active;
        collect(&mut cursor, head, &mut |pair| {
            active.insert(pair);
        })?;
        self.cursor = Some(cursor);
        Ok(())
    }

    fn start_of(&self, segment: u64) -> Result<Cursor<S>, LedgerError> {
        let place = self.shared.places.read().expect("no thread panics while it holds the places").segment_start(segment);
        Cursor::at(&self.shared, place.expect("the segment is in the directory"), WINDOW_BYTES)
    }

    fn subject(&self, segment: u64) -> Subject {
        let places = self.shared.places.read().expect("no thread panics while it holds the places");
        let (first, last) = places.sealed(segment).expect("another segment follows");
        Subject { log_id: self.shared.log_id, segment, first, last }
    }

    fn open(&self, subject: Subject) -> io::Result<IndexFile<S::File>> {
        IndexFile::open(self.shared.storage.open(&index_name(subject.segment))?, subject)
    }

    fn lookup_sealed(&mut self, segment: u64, hash: u64) -> Result<Vec<Seq>, LedgerError> {
        let subject = self.subject(segment);
        match self.open(subject).and_then(|file| file.lookup(hash)) {
            Ok(found) => Ok(found),
            Err(error) => {
                let file = self.shared.storage.place(&index_name(segment));
                tracing::info!(%file, %error, "making the index of a segment");
                let pairs = self.build(subject)?;
                let start = pairs.partition_point(|pair| pair.0 < hash);
                Ok(pairs[start..].iter().take_while(|pair| pair.0 == hash).map(|pair| Seq(pair.1)).collect())
            }
        }
    }

    /// Makes the index of a sealed segment and tries to write it; without a file it is made again when it is next needed.
    fn build(&self, subject: Subject) -> Result<Vec<Pair>, LedgerError> {
        let mut pairs = Vec::new();
        collect(&mut self.start_of(subject.segment)?, subject.last, &mut |pair| pairs.push(pair))?;
        pairs.sort_unstable();
        let name = index_name(subject.segment);
        if let Err(error) = replace(&self.shared.storage, &name, &subject.encode(&pairs)) {
            tracing::warn!(file = %self.shared.storage.place(&name), %error, "could not write the index of a segment");
        }
        Ok(pairs)
    }

    /// Builds the first index file that is missing; whether there was one.
    pub(super) fn build_one(&mut self) -> Result<bool, LedgerError> {
        let (first, last) = self.range();
        for segment in first.max(self.built_through + 1)..last {
            let subject = self.subject(segment);
            let exists = self.open(subject).is_ok();
            if !exists {
                self.build(subject)?;
            }
            self.built_through = segment;
            if !exists {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The pairs of all debits from the cursor up to the head.
fn collect<S: Storage>(cursor: &mut Cursor<S>, head: Seq, each: &mut dyn FnMut(Pair)) -> Result<(), LedgerError> {
    while let Some(batch) = cursor.next_batch(head)? {
        let _ = visit(&batch, |seq, entry| {
            if let (Some(from), Some(nonce)) = (entry.from(), entry.nonce()) {
                each((hash_of(from.as_str(), nonce), seq.0));
            }
            ControlFlow::Continue(())
        })?;
    }
    assert!(cursor.next_seq() > head, "the walk ends at the head");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::MemoryStorage;

    fn file(pairs: &[Pair]) -> (MemoryStorage, Subject) {
        let storage = MemoryStorage::new();
        let subject = Subject { log_id: LogId([1; 16]), segment: 3, first: Seq(1), last: Seq(9) };
        replace(&storage, "i", &subject.encode(pairs)).unwrap();
        (storage, subject)
    }

    #[test]
    fn every_pair_is_found_also_where_hashes_collide_across_blocks() {
        let mut pairs: Vec<Pair> = (0..1000).map(|number| (number * 7, number)).collect();
        pairs.extend((0..600).map(|number| (700, 10_000 + number)));
        pairs.sort_unstable();
        let (storage, subject) = file(&pairs);
        let index = IndexFile::open(storage.open("i").unwrap(), subject).unwrap();
        for number in (0..1000).filter(|number| *number != 100) {
            assert_eq!(index.lookup(number * 7).unwrap(), [Seq(number)]);
            assert_eq!(index.lookup(number * 7 + 1).unwrap(), []);
        }
        assert_eq!(index.lookup(700).unwrap().len(), 601);
        let (storage, subject) = file(&[]);
        assert_eq!(IndexFile::open(storage.open("i").unwrap(), subject).unwrap().lookup(1).unwrap(), []);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_never_believed() {
        let pairs: Vec<Pair> = (0..300).map(|number| (number, number)).collect();
        let (storage, subject) = file(&pairs);
        for byte in (0..3 * BLOCK_BYTES).step_by(17) {
            let bad = storage.fork();
            bad.tamper("i", |bytes| bytes[byte] ^= 0x40);
            let all = || {
                let index = IndexFile::open(bad.open("i")?, subject)?;
                (0..300).try_for_each(|hash| index.lookup(hash).map(|found| assert_eq!(found, [Seq(hash)])))
            };
            assert!(all().is_err(), "byte {byte}");
        }
        for foreign in [Subject { segment: 4, ..subject }, Subject { last: Seq(8), ..subject }] {
            assert!(IndexFile::open(storage.open("i").unwrap(), foreign).is_err());
        }
    }
}
