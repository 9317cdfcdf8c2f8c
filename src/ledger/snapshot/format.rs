//! Head, front, blocks and footer of a snapshot file as bytes. Pure.
//!
//! Invariants: what decodes is right by its hash and in every field; the digest covers the front and every block of accounts and of
//! budgets, so it names the state and nothing of how the file came about. `docs/LEDGER.md` draws the file.
use super::super::history::Peaks;
use super::super::layout::{array_at, put, u32_at, u64_at, BLOCK_BYTES, ZERO_BLOCK};
use super::super::places::Place;
use super::tail::AssetSums;
use crate::domain::{Asset, KeyId, LogId, Root, Seq, TokenId, UnixMs, UsedKey};

/// The magic number.
pub(in crate::ledger) const MAGIC: [u8; 8] = *b"RONSNAPS";
/// The version without budgets, which is written where there are none, so that earlier versions can read it.
const VERSION_WITHOUT_BUDGETS: u32 = 1;
const VERSION: u32 = 2;
/// The versions that are read, the newest last.
pub(in crate::ledger) const VERSIONS: [u32; 2] = [VERSION_WITHOUT_BUDGETS, VERSION];
/// Where the front begins, in bytes: after the head.
pub(super) const FRONT_AT: u64 = BLOCK_BYTES as u64;
/// Length of the head of a block of records, in bytes.
pub(super) const BLOCK_HEAD_BYTES: usize = 40;
/// Records are put into one block until it has so many bytes.
pub(super) const RECORDS_BYTES: usize = 64 << 10;
/// Length of a peak of the history, in bytes.
const PEAK_BYTES: usize = size_of::<Digest>();
/// Longest front, in bytes.
const FRONT_BYTES_MAX: u64 = 8 << 20;
const HASH_AT: usize = BLOCK_BYTES - 32;

/// The digest of a state.
pub type Digest = [u8; 32];

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The log.
    pub log_id: LogId,
    /// The last entry that is in it.
    pub seq: Seq,
    /// Chain hash after it.
    pub root: Root,
    /// Epoch of its batch.
    pub epoch: u64,
    /// How many batches are in it.
    pub batches: u64,
    /// Where the last of them stands.
    pub last_batch: Place,
    /// When the newest entry was made.
    pub newest: UnixMs,
    /// How many accounts there are.
    pub accounts: u64,
    /// The digest of the state.
    pub digest: Digest,
    /// How the rest of the file is divided.
    pub(super) extents: Extents,
}

/// Lengths of the parts of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extents {
    pub front_bytes: u64,
    pub blocks: u64,
    pub blocks_bytes: u64,
    pub keys_bytes: u64,
    pub keys_hash: Digest,
    /// Without budgets there are no bytes, and the hash is all zero.
    pub budgets_bytes: u64,
    pub budgets_hash: Digest,
    pub footer_bytes: u64,
    pub footer_hash: Digest,
}

impl Extents {
    pub fn blocks_at(&self) -> u64 {
        FRONT_AT + self.front_bytes
    }

    pub fn keys_at(&self) -> u64 {
        self.blocks_at() + self.blocks_bytes
    }

    pub fn budgets_at(&self) -> u64 {
        self.keys_at() + self.keys_bytes
    }

    pub fn footer_at(&self) -> u64 {
        self.budgets_at() + self.budgets_bytes
    }

    pub fn file_bytes(&self) -> u64 {
        self.footer_at() + self.footer_bytes
    }
}

impl SnapshotHead {
    pub(super) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = ZERO_BLOCK;
        put(&mut block, 0, MAGIC);
        let version = if self.extents.budgets_bytes == 0 { VERSION_WITHOUT_BUDGETS } else { VERSION };
        put(&mut block, 8, version.to_le_bytes());
        put(&mut block, 16, self.log_id.0);
        put(&mut block, 32, self.seq.0.to_le_bytes());
        put(&mut block, 40, self.root);
        put(&mut block, 72, self.epoch.to_le_bytes());
        put(&mut block, 80, self.batches.to_le_bytes());
        put(&mut block, 88, self.last_batch.segment.to_le_bytes());
        put(&mut block, 96, self.last_batch.offset.to_le_bytes());
        put(&mut block, 104, self.last_batch.first_seq.0.to_le_bytes());
        put(&mut block, 112, self.newest.0.to_le_bytes());
        put(&mut block, 120, self.accounts.to_le_bytes());
        put(&mut block, 128, self.digest);
        put(&mut block, 160, self.extents.front_bytes.to_le_bytes());
        put(&mut block, 168, self.extents.blocks.to_le_bytes());
        put(&mut block, 176, self.extents.blocks_bytes.to_le_bytes());
        put(&mut block, 184, self.extents.keys_bytes.to_le_bytes());
        put(&mut block, 192, self.extents.keys_hash);
        put(&mut block, 224, self.extents.footer_bytes.to_le_bytes());
        put(&mut block, 232, self.extents.footer_hash);
        put(&mut block, 264, self.extents.budgets_bytes.to_le_bytes());
        put(&mut block, 272, self.extents.budgets_hash);
        let hash = *blake3::hash(&block[..HASH_AT]).as_bytes();
        put(&mut block, HASH_AT, hash);
        block
    }

    /// Reads the head; the error says what is wrong with it.
    pub(super) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, String> {
        if block[..8] != MAGIC {
            return Err("it is not a snapshot of a ledger".into());
        }
        if blake3::hash(&block[..HASH_AT]).as_bytes()[..] != block[HASH_AT..] {
            return Err("its head does not match its hash".into());
        }
        let version = u32_at(block, 8);
        if !VERSIONS.contains(&version) {
            return Err(format!("its format version {version} is unknown; use a version at least as new as its writer"));
        }
        let u64_of = |at| u64_at(block, at);
        let place = Place { segment: u64_of(88), offset: u64_of(96), first_seq: Seq(u64_of(104)) };
        let head = Self {
            log_id: LogId(array_at(block, 16)),
            seq: Seq(u64_of(32)),
            root: array_at(block, 40),
            epoch: u64_of(72),
            batches: u64_of(80),
            last_batch: place,
            newest: UnixMs(u64_of(112)),
            accounts: u64_of(120),
            digest: array_at(block, 128),
            extents: Extents {
                front_bytes: u64_of(160),
                blocks: u64_of(168),
                blocks_bytes: u64_of(176),
                keys_bytes: u64_of(184),
                keys_hash: array_at(block, 192),
                footer_bytes: u64_of(224),
                footer_hash: array_at(block, 232),
                budgets_bytes: u64_of(264),
                budgets_hash: array_at(block, 272),
            },
        };
        let Extents { front_bytes, blocks_bytes, keys_bytes, budgets_bytes, footer_bytes, .. } = head.extents;
        let most = FRONT_AT + FRONT_BYTES_MAX;
        let lengths =
            [blocks_bytes, keys_bytes, budgets_bytes, footer_bytes].iter().try_fold(most, |sum, bytes| sum.checked_add(*bytes));
        if head.encode() != *block || front_bytes > FRONT_BYTES_MAX || lengths.is_none() || place.first_seq > head.seq {
            return Err("its head says what no writer writes".into());
        }
        Ok(head)
    }
}

/// What stands before the accounts: the assets, and how far the history has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// The assets with their sums, in the order of their numbers.
    pub assets: Vec<AssetSums>,
    /// The peaks of the history over all batches that are in the snapshot; `None` if it was made without.
    pub peaks: Option<Peaks>,
}

impl Front {
    pub(super) fn encode(&self) -> Vec<u8> {
        let peaks = self.peaks.as_ref().map_or(&[][..], Peaks::hashes);
        let mut bytes = (self.assets.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&((PEAK_BYTES * peaks.len()) as u32).to_le_bytes());
        for sums in &self.assets {
            bytes.push(sums.asset.len() as u8);
            bytes.extend_from_slice(sums.asset.as_bytes());
            for sum in [sums.issued, sums.burned, sums.held] {
                bytes.extend_from_slice(&sum.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&peaks.concat());
        assert!(bytes.len() as u64 <= FRONT_BYTES_MAX);
        bytes
    }

    /// Reads the front of a snapshot of so many batches; the error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8], batches: u64) -> Result<Self, String> {
        let wrong = || "its list of assets says what no writer writes".to_string();
        let (counts, mut rest) = bytes.split_at_checked(8).ok_or_else(wrong)?;
        let mut front = Self::default();
        for _ in 0..u32_at(counts, 0) {
            let (length, after) = rest.split_first().ok_or_else(wrong)?;
            let (name, after) = after.split_at_checked(usize::from(*length)).ok_or_else(wrong)?;
            let (sums, after) = after.split_at_checked(48).ok_or_else(wrong)?;
            let asset = Asset::of_bytes(name).ok_or_else(wrong)?.as_str().to_owned();
            let sum = |at| u128::from_le_bytes(array_at(sums, at));
            front.assets.push(AssetSums { asset, issued: sum(0), burned: sum(16), held: sum(32) });
            rest = after;
        }
        if rest.len() != u32_at(counts, 4) as usize || front.assets.len() > usize::from(u16::MAX) {
            return Err(wrong());
        }
        if !rest.is_empty() {
            let hashes = rest.chunks(PEAK_BYTES).map(|hash| hash.try_into().ok()).collect::<Option<Vec<_>>>();
            let peaks = hashes.and_then(|hashes| Peaks::new(batches, hashes));
            let wrong = || format!("its {} bytes of peaks are not those of a history of {batches} batches", rest.len());
            front.peaks = Some(peaks.ok_or_else(wrong)?);
        }
        Ok(front)
    }
}

/// The head of a block of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub bytes: u32,
    pub records: u32,
    pub hash: Digest,
}

impl BlockHead {
    pub fn of(records: &[u8], count: u32) -> Self {
        Self { bytes: records.len() as u32, records: count, hash: *blake3::hash(records).as_bytes() }
    }

    pub fn encode(&self) -> [u8; BLOCK_HEAD_BYTES] {
        let mut bytes = [0; BLOCK_HEAD_BYTES];
        put(&mut bytes, 0, self.bytes.to_le_bytes());
        put(&mut bytes, 4, self.records.to_le_bytes());
        put(&mut bytes, 8, self.hash);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Self {
        Self { bytes: u32_at(bytes, 0), records: u32_at(bytes, 4), hash: array_at(bytes, 8) }
    }
}

/// Length of a key that an issue has used, in bytes.
pub(super) const USED_KEY_BYTES: usize = 24;

/// A used key as bytes.
pub(super) fn encode_key(key: &UsedKey) -> [u8; USED_KEY_BYTES] {
    let mut bytes = [0; USED_KEY_BYTES];
    put(&mut bytes, 0, key.id.0.to_le_bytes());
    put(&mut bytes, 8, key.seq.0.to_le_bytes());
    put(&mut bytes, 16, key.used.0.to_le_bytes());
    bytes
}

/// Reads a used key.
pub(super) fn decode_key(bytes: &[u8]) -> UsedKey {
    UsedKey { id: KeyId(u64_at(bytes, 0)), seq: Seq(u64_at(bytes, 8)), used: UnixMs(u64_at(bytes, 16)) }
}

/// Length of what was debited under one token id, in bytes.
pub(super) const BUDGET_BYTES: usize = 32;

/// What was debited under a token id, in minor units, as bytes.
pub(super) fn encode_budget(token: TokenId, spent: u128) -> [u8; BUDGET_BYTES] {
    let mut bytes = [0; BUDGET_BYTES];
    put(&mut bytes, 0, token.0);
    put(&mut bytes, 16, spent.to_le_bytes());
    bytes
}

/// Reads what was debited under a token id.
pub(super) fn decode_budget(bytes: &[u8]) -> (TokenId, u128) {
    (TokenId(array_at(bytes, 0)), u128::from_le_bytes(array_at(bytes, 16)))
}

/// Budgets are part of the state that the digest names, by the hash of their blocks. Without any it is that of earlier versions.
pub(super) fn name_budgets(digest: &mut blake3::Hasher, bytes: u64, hash: &Digest) {
    if bytes > 0 {
        digest.update(hash);
    }
}

/// Where the blocks begin, and with which account: what a look-up searches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    pub blocks: Vec<(u64, Box<[u8]>)>,
}

impl Footer {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, first) in &self.blocks {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&(first.len() as u16).to_le_bytes());
            bytes.extend_from_slice(first);
        }
        bytes
    }

    pub fn decode(mut bytes: &[u8], blocks: u64) -> Result<Self, String> {
        let wrong = || "its footer says what no writer writes".to_string();
        let mut footer = Self::default();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at_checked(10).ok_or_else(wrong)?;
            let length = usize::from(u16::from_le_bytes([head[8], head[9]]));
            let (name, rest) = rest.split_at_checked(length).ok_or_else(wrong)?;
            footer.blocks.push((u64_at(head, 0), name.into()));
            bytes = rest;
        }
        let ordered = footer.blocks.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        (ordered && footer.blocks.len() as u64 == blocks).then_some(footer).ok_or_else(wrong)
    }
}
