//! Index files as bytes; `docs/LEDGER.md` draws them. Pure.
//!
//! An index file says under which hash of what an entry can be found. Invariant: a head that decodes belongs to its subject and
//! says the same as when it was written; a block that decodes was written for this head, in this place. Whether an entry that
//! stands under a hash is the one that was looked for is for the entry itself to say.
use super::layout::{array_at, put, u32_at, u64_at, BLOCK_BYTES, ZERO_BLOCK};
use crate::domain::{Account, Entry, KeyId, LogId, Nonce, Period, Seq, UnixMs};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The magic number.
pub(super) const MAGIC: [u8; 8] = *b"RONINDEX";
/// Files of version 1, which had another magic number, knew debits only.
pub(super) const VERSION: u32 = 2;

const VERSION_AT: usize = 8;
const LOG_AT: usize = VERSION_AT + 8;
const SEGMENT_AT: usize = LOG_AT + 16;
const FIRST_AT: usize = SEGMENT_AT + 8;
const LAST_AT: usize = FIRST_AT + 8;
const PAIRS_AT: usize = LAST_AT + 8;
const EARLIEST_AT: usize = PAIRS_AT + 8 * Run::ALL.len();
const LATEST_AT: usize = EARLIEST_AT + 8;
const HASH_AT: usize = BLOCK_BYTES - 32;

const PAIR_BYTES: usize = 12;
const CHECK_AT: usize = BLOCK_BYTES - 8;
/// Pairs that a block holds.
pub(super) const PAIRS_PER_BLOCK: usize = CHECK_AT / PAIR_BYTES;

const _: () = assert!(LATEST_AT + 8 <= HASH_AT && PAIRS_PER_BLOCK * PAIR_BYTES <= CHECK_AT);

/// What an entry can be found by. Each has its own sorted pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The debited account and its nonce.
    Debits,
    /// The account that owns the entry and the idempotency key.
    Keys,
    /// The debited account, and the credited one.
    Parties,
}

impl Run {
    /// All of them, in the order in which they stand in a file.
    pub const ALL: [Run; 3] = [Run::Debits, Run::Keys, Run::Parties];
}

/// An entry under one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    /// The hash of what the entry is found by.
    pub hash: u64,
    /// How far the entry is behind the first one of the segment.
    pub at: u32,
}

/// The hash under which a debit stands.
pub(super) fn debit_hash(account: &str, nonce: Nonce) -> u64 {
    xxh3_64_with_seed(account.as_bytes(), nonce.0)
}

/// The hash under which the entries of an account stand.
pub(super) fn party_hash(account: &str) -> u64 {
    xxh3_64(account.as_bytes())
}

/// Everything that an entry is found by.
pub(super) fn hashes(entry: &Entry<'_>) -> impl Iterator<Item = (Run, u64)> {
    let debit = entry.from().zip(entry.nonce()).map(|(from, nonce)| (Run::Debits, debit_hash(from.as_str(), nonce)));
    let key = (Run::Keys, KeyId::of(entry.owner(), entry.key()).0);
    let party = |account: Account<'_>| (Run::Parties, party_hash(account.as_str()));
    [debit, Some(key), entry.from().map(party), entry.to().map(party)].into_iter().flatten()
}

/// What an index file is about: the log, the segment, its first and last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub log_id: LogId,
    pub segment: u64,
    pub first: Seq,
    pub last: Seq,
}

/// The head block of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub subject: Subject,
    /// How many pairs each run has.
    pub pairs: [u64; Run::ALL.len()],
    /// From when to when the entries of the segment were accepted.
    pub accepted: Period,
}

impl Head {
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = ZERO_BLOCK;
        put(&mut block, 0, MAGIC);
        put(&mut block, VERSION_AT, VERSION.to_le_bytes());
        put(&mut block, LOG_AT, self.subject.log_id.0);
        put(&mut block, SEGMENT_AT, self.subject.segment.to_le_bytes());
        put(&mut block, FIRST_AT, self.subject.first.0.to_le_bytes());
        put(&mut block, LAST_AT, self.subject.last.0.to_le_bytes());
        for (run, pairs) in self.pairs.iter().enumerate() {
            put(&mut block, PAIRS_AT + 8 * run, pairs.to_le_bytes());
        }
        put(&mut block, EARLIEST_AT, self.accepted.first.0.to_le_bytes());
        put(&mut block, LATEST_AT, self.accepted.last.0.to_le_bytes());
        let hash = *blake3::hash(&block[..HASH_AT]).as_bytes();
        put(&mut block, HASH_AT, hash);
        block
    }

    /// `None` if the block is damaged, of another version, or about something else.
    pub fn decode(block: &[u8; BLOCK_BYTES], subject: Subject) -> Option<Self> {
        let accepted = Period { first: UnixMs(u64_at(block, EARLIEST_AT)), last: UnixMs(u64_at(block, LATEST_AT)) };
        let pairs = std::array::from_fn(|run| u64_at(block, PAIRS_AT + 8 * run));
        let head = Self { subject, pairs, accepted };
        (head.encode() == *block).then_some(head)
    }

    /// How many blocks a run takes.
    pub fn blocks(&self, run: Run) -> u64 {
        self.pairs[run as usize].div_ceil(PAIRS_PER_BLOCK as u64)
    }

    /// How long the file is, in bytes; `None` if no file can be so long.
    pub fn file_bytes(&self) -> Option<u64> {
        let blocks = Run::ALL.iter().try_fold(1u64, |blocks, run| blocks.checked_add(self.blocks(*run)))?;
        blocks.checked_mul(BLOCK_BYTES as u64)
    }

    /// The number of a run's block within the file; the head is block 0.
    pub fn block_of(&self, run: Run, number: u64) -> u64 {
        let before: u64 = Run::ALL[..run as usize].iter().map(|earlier| self.blocks(*earlier)).sum();
        1 + before + number
    }

    /// Binds a block to its place and to this very head.
    fn check(&self, block: &[u8; BLOCK_BYTES], number: u64) -> u64 {
        let Subject { segment, first, .. } = self.subject;
        xxh3_64_with_seed(&block[..CHECK_AT], segment.rotate_left(32) ^ first.0.rotate_left(16) ^ number)
    }

    /// A block of a run; `number` is its place in the file.
    pub(super) fn encode_block(&self, number: u64, pairs: &[Pair]) -> [u8; BLOCK_BYTES] {
        let mut block = ZERO_BLOCK;
        for (place, pair) in block.chunks_exact_mut(PAIR_BYTES).zip(pairs) {
            put(place, 0, pair.hash.to_le_bytes());
            put(place, 8, pair.at.to_le_bytes());
        }
        let check = self.check(&block, number);
        put(&mut block, CHECK_AT, check.to_le_bytes());
        block
    }

    /// The pairs of a run's block, read from there; `None` if it is damaged.
    pub fn decode_block(&self, run: Run, number: u64, bytes: [u8; BLOCK_BYTES]) -> Option<Block> {
        if u64_at(&bytes, CHECK_AT) != self.check(&bytes, self.block_of(run, number)) {
            return None;
        }
        let left = self.pairs[run as usize] - number * PAIRS_PER_BLOCK as u64;
        Some(Block { bytes, pairs: left.min(PAIRS_PER_BLOCK as u64) as usize })
    }
}

/// A block whose check value was right: pairs in ascending order.
pub(super) struct Block {
    bytes: [u8; BLOCK_BYTES],
    pairs: usize,
}

impl Block {
    /// How many pairs it has.
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// The pair at a place below [`Block::len`].
    pub fn pair(&self, place: usize) -> Pair {
        let bytes = &self.bytes[place * PAIR_BYTES..][..PAIR_BYTES];
        Pair { hash: u64::from_le_bytes(array_at(bytes, 0)), at: u32_at(bytes, 8) }
    }
}

/// The pairs of a whole segment, in ascending order.
pub(super) struct Pairs {
    pub runs: [Vec<Pair>; Run::ALL.len()],
    pub accepted: Period,
}

impl Pairs {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { runs: [const { Vec::new() }; Run::ALL.len()], accepted: Period::EMPTY }
    }

    /// Adds an entry of the segment. Before anything is looked up, [`Pairs::sort`].
    pub fn add(&mut self, at: u32, entry: &Entry<'_>) {
        hashes(entry).for_each(|(run, hash)| self.runs[run as usize].push(Pair { hash, at }));
        self.accepted = self.accepted.and(Period { first: entry.ts(), last: entry.ts() });
    }

    /// Brings the pairs into their order.
    pub fn sort(&mut self) {
        self.runs.iter_mut().for_each(|pairs| pairs.sort_unstable());
    }

    /// The whole file.
    pub fn encode(&self, subject: Subject) -> Vec<u8> {
        let pairs = std::array::from_fn(|run| self.runs[run].len() as u64);
        let head = Head { subject, pairs, accepted: self.accepted };
        let blocks: u64 = Run::ALL.iter().map(|run| head.blocks(*run)).sum();
        let mut bytes = Vec::with_capacity((1 + blocks as usize) * BLOCK_BYTES);
        bytes.extend_from_slice(&head.encode());
        let chunks = self.runs.iter().flat_map(|pairs| pairs.chunks(PAIRS_PER_BLOCK));
        for (number, pairs) in (1..).zip(chunks) {
            bytes.extend_from_slice(&head.encode_block(number, pairs));
        }
        bytes
    }

    /// Up to `limit` entries under this hash that stand before `end`, the last first.
    pub fn newest(&self, run: Run, hash: u64, end: u32, limit: usize) -> Vec<u32> {
        let pairs = &self.runs[run as usize];
        let before = &pairs[..pairs.partition_point(|pair| *pair < Pair { hash, at: end })];
        before.iter().rev().take_while(|pair| pair.hash == hash).take(limit).map(|pair| pair.at).collect()
    }
}
