//! Headers of segments and batches as bytes; `docs/LEDGER.md` draws them. Pure.
//!
//! Invariants: a header that decodes has a right checksum, known magic and version, and zeros wherever the format has nothing to
//! say, so decode and encode are inverse. Whether it stands where it should is for [`super::batch`] and the scan to say.
use crate::domain::limits::BATCH_BYTES_MAX;
use crate::domain::{LogId, Root, Seq};

/// Everything is aligned to blocks of this size, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// The only format version so far.
pub const FORMAT_VERSION: u32 = 1;
/// Where the first batch of a segment begins, in bytes: after the two copies of the segment header.
pub const SEGMENT_HEAD_BYTES: u64 = 2 * BLOCK_BYTES as u64;
/// Length of a batch header, in bytes; the body follows at once.
pub const BATCH_HEAD_BYTES: usize = ROOT_AT + 32;
/// Length of a section header within a body, in bytes.
pub const SECTION_HEAD_BYTES: usize = 24;

pub(super) const ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

const SEGMENT_MAGIC: [u8; 8] = *b"RONSEGMT";
const BATCH_MAGIC: [u8; 8] = *b"RONBATCH";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;

const SEGMENT_LOG_AT: usize = VERSION_AT + 8;
const SEGMENT_INDEX_AT: usize = SEGMENT_LOG_AT + 16;
const SEGMENT_BYTES_AT: usize = SEGMENT_INDEX_AT + 8;
const SEGMENT_FIRST_AT: usize = SEGMENT_BYTES_AT + 8;
const SEGMENT_PREV_AT: usize = SEGMENT_FIRST_AT + 8;
const SEGMENT_HASH_AT: usize = BLOCK_BYTES - 32;

const SECTIONS_AT: usize = VERSION_AT + 4;
const EPOCH_AT: usize = SECTIONS_AT + 4;
const FIRST_AT: usize = EPOCH_AT + 8;
const ENTRIES_AT: usize = FIRST_AT + 8;
const BODY_BYTES_AT: usize = ENTRIES_AT + 4;
const INDEX_AT: usize = BODY_BYTES_AT + 4;
const OFFSET_AT: usize = INDEX_AT + 8;
const DURABLE_AT: usize = OFFSET_AT + 8;
const LOG_AT: usize = DURABLE_AT + 8;
const PREV_AT: usize = LOG_AT + 16;
const BODY_HASH_AT: usize = PREV_AT + 32;
const RESERVED_AT: usize = BODY_HASH_AT + 32;
const ROOT_AT: usize = RESERVED_AT + 16;

const _: () = assert!(BATCH_HEAD_BYTES == 192 && SEGMENT_PREV_AT + 32 <= SEGMENT_HASH_AT);
const _: () = assert!(BATCH_BYTES_MAX + BATCH_HEAD_BYTES + BLOCK_BYTES < u32::MAX as usize);

/// Why bytes are not the header or batch that they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The header does not match its own hash: an interrupted write or damage.
    HeaderHash,
    /// The body does not match the hash in its header: an interrupted write or damage.
    BodyHash,
    /// An intact header of an unknown version.
    Version(u32),
    /// Intact by its hash, yet not what any writer puts there; the text says what.
    Misfit(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::HeaderHash => f.write_str("the header does not match its hash"),
            Fault::BodyHash => f.write_str("the body does not match the hash in its header"),
            Fault::Version(version) => write!(f, "format version {version} is unknown"),
            Fault::Misfit(what) => f.write_str(what),
        }
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK_BYTES).all(|chunk| chunk == &ZERO_BLOCK[..chunk.len()])
}

/// Rounds up to whole blocks.
pub fn round_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// Bytes that a batch with this body occupies on disk.
pub fn extent_bytes(body_bytes: usize) -> u64 {
    round_up((BATCH_HEAD_BYTES + body_bytes) as u64)
}

/// The largest body that one commit may have in segments of this size, in bytes.
pub fn body_bytes_max(segment_bytes: u64) -> usize {
    let room = segment_bytes.saturating_sub(SEGMENT_HEAD_BYTES + BLOCK_BYTES as u64);
    usize::try_from(room).unwrap_or(usize::MAX).min(BATCH_BYTES_MAX)
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// The head of a segment file; stored twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub log_id: LogId,
    /// Number of the segment, from 1.
    pub index: u64,
    /// Full size of the file, in bytes.
    pub segment_bytes: u64,
    /// The entry with which its first batch begins.
    pub first_seq: Seq,
    /// Chain hash before its first batch.
    pub prev: Root,
}

impl SegmentHeader {
    /// One copy of the header.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = ZERO_BLOCK;
        put(&mut block, MAGIC_AT, SEGMENT_MAGIC);
        put(&mut block, VERSION_AT, FORMAT_VERSION.to_le_bytes());
        put(&mut block, SEGMENT_LOG_AT, self.log_id.0);
        put(&mut block, SEGMENT_INDEX_AT, self.index.to_le_bytes());
        put(&mut block, SEGMENT_BYTES_AT, self.segment_bytes.to_le_bytes());
        put(&mut block, SEGMENT_FIRST_AT, self.first_seq.0.to_le_bytes());
        put(&mut block, SEGMENT_PREV_AT, self.prev);
        let hash = *blake3::hash(&block[..SEGMENT_HASH_AT]).as_bytes();
        put(&mut block, SEGMENT_HASH_AT, hash);
        block
    }

    /// Reads one copy.
    pub fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, Fault> {
        if blake3::hash(&block[..SEGMENT_HASH_AT]).as_bytes()[..] != block[SEGMENT_HASH_AT..] {
            return Err(Fault::HeaderHash);
        }
        check_kind(block, SEGMENT_MAGIC)?;
        let header = Self {
            log_id: LogId(array_at(block, SEGMENT_LOG_AT)),
            index: u64_at(block, SEGMENT_INDEX_AT),
            segment_bytes: u64_at(block, SEGMENT_BYTES_AT),
            first_seq: Seq(u64_at(block, SEGMENT_FIRST_AT)),
            prev: array_at(block, SEGMENT_PREV_AT),
        };
        if header.encode() != *block {
            return Err(Fault::Misfit("a reserved field of the segment header is not zero".into()));
        }
        Ok(header)
    }
}

fn check_kind(bytes: &[u8], magic: [u8; 8]) -> Result<(), Fault> {
    if bytes[..8] != magic {
        return Err(Fault::Misfit("the magic number is another one".into()));
    }
    match u32_at(bytes, VERSION_AT) {
        FORMAT_VERSION => Ok(()),
        version => Err(Fault::Version(version)),
    }
}

/// The head of a batch. Its hash is the chain hash: it covers the previous one and the hash of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// How many sections the body has.
    pub sections: u32,
    /// The opening of the log under which it was written.
    pub epoch: u64,
    /// Its first entry; the others follow densely.
    pub first_seq: Seq,
    /// How many entries the body has.
    pub entries: u32,
    /// Length of the body without padding, in bytes.
    pub body_bytes: u32,
    /// The segment in which it must stand.
    pub segment: u64,
    /// The offset in that segment at which it must stand, in bytes.
    pub offset: u64,
    /// The last entry that was durable when the batch was written.
    pub durable_through: Seq,
    /// The log that it belongs to.
    pub log_id: LogId,
    /// Chain hash before it.
    pub prev: Root,
    /// BLAKE3 of the body.
    pub body_hash: Root,
}

impl BatchHeader {
    /// The bytes of the header and the chain hash after this batch, which are also its last 32 bytes.
    pub fn encode(&self) -> ([u8; BATCH_HEAD_BYTES], Root) {
        let mut bytes = [0; BATCH_HEAD_BYTES];
        put(&mut bytes, MAGIC_AT, BATCH_MAGIC);
        put(&mut bytes, VERSION_AT, FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, SECTIONS_AT, self.sections.to_le_bytes());
        put(&mut bytes, EPOCH_AT, self.epoch.to_le_bytes());
        put(&mut bytes, FIRST_AT, self.first_seq.0.to_le_bytes());
        put(&mut bytes, ENTRIES_AT, self.entries.to_le_bytes());
        put(&mut bytes, BODY_BYTES_AT, self.body_bytes.to_le_bytes());
        put(&mut bytes, INDEX_AT, self.segment.to_le_bytes());
        put(&mut bytes, OFFSET_AT, self.offset.to_le_bytes());
        put(&mut bytes, DURABLE_AT, self.durable_through.0.to_le_bytes());
        put(&mut bytes, LOG_AT, self.log_id.0);
        put(&mut bytes, PREV_AT, self.prev);
        put(&mut bytes, BODY_HASH_AT, self.body_hash);
        let root = *blake3::hash(&bytes[..ROOT_AT]).as_bytes();
        put(&mut bytes, ROOT_AT, root);
        (bytes, root)
    }

    /// Reads the header at the start of `bytes`, which must hold at least one.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Root), Fault> {
        let root: Root = array_at(bytes, ROOT_AT);
        if *blake3::hash(&bytes[..ROOT_AT]).as_bytes() != root {
            return Err(Fault::HeaderHash);
        }
        check_kind(bytes, BATCH_MAGIC)?;
        let header = Self {
            sections: u32_at(bytes, SECTIONS_AT),
            epoch: u64_at(bytes, EPOCH_AT),
            first_seq: Seq(u64_at(bytes, FIRST_AT)),
            entries: u32_at(bytes, ENTRIES_AT),
            body_bytes: u32_at(bytes, BODY_BYTES_AT),
            segment: u64_at(bytes, INDEX_AT),
            offset: u64_at(bytes, OFFSET_AT),
            durable_through: Seq(u64_at(bytes, DURABLE_AT)),
            log_id: LogId(array_at(bytes, LOG_AT)),
            prev: array_at(bytes, PREV_AT),
            body_hash: array_at(bytes, BODY_HASH_AT),
        };
        if !is_zero(&bytes[RESERVED_AT..ROOT_AT]) {
            return Err(Fault::Misfit("a reserved field of the batch header is not zero".into()));
        }
        Ok((header, root))
    }

    /// Bytes that the batch occupies on disk, padding included.
    pub fn extent_bytes(&self) -> u64 {
        extent_bytes(self.body_bytes as usize)
    }

    /// The last entry of the batch.
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0.saturating_add(u64::from(self.entries)).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader { log_id: LogId([1; 16]), index: 7, segment_bytes: 1 << 26, first_seq: Seq(99), prev: [3; 32] }
    }

    fn batch() -> BatchHeader {
        BatchHeader {
            sections: 2,
            epoch: 3,
            first_seq: Seq(4),
            entries: 5,
            body_bytes: 6,
            segment: 7,
            offset: 8192,
            durable_through: Seq(3),
            log_id: LogId([9; 16]),
            prev: [10; 32],
            body_hash: [11; 32],
        }
    }

    #[test]
    fn headers_survive_the_round_trip_and_no_flipped_bit() {
        let block = segment().encode();
        assert_eq!(SegmentHeader::decode(&block), Ok(segment()));
        let (bytes, root) = batch().encode();
        assert_eq!(BatchHeader::decode(&bytes), Ok((batch(), root)));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(Fault::HeaderHash), "bit {bit}");
        }
        for bit in 0..BATCH_HEAD_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(&bad), Err(Fault::HeaderHash), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = batch().encode().0;
        put(&mut bytes, VERSION_AT, 2u32.to_le_bytes());
        let root = *blake3::hash(&bytes[..ROOT_AT]).as_bytes();
        put(&mut bytes, ROOT_AT, root);
        assert_eq!(BatchHeader::decode(&bytes), Err(Fault::Version(2)));
        put(&mut bytes, MAGIC_AT, *b"OTHERLOG");
        let root = *blake3::hash(&bytes[..ROOT_AT]).as_bytes();
        put(&mut bytes, ROOT_AT, root);
        assert!(matches!(BatchHeader::decode(&bytes), Err(Fault::Misfit(_))));
    }

    #[test]
    fn the_chain_hash_covers_every_field_before_it() {
        let (_, root) = batch().encode();
        let mut other = batch();
        other.prev[31] ^= 1;
        assert_ne!(other.encode().1, root);
        other = batch();
        other.body_hash[0] ^= 1;
        assert_ne!(other.encode().1, root);
    }

    #[test]
    fn extents_are_whole_blocks() {
        assert_eq!(extent_bytes(1), 4096);
        assert_eq!(extent_bytes(BLOCK_BYTES - BATCH_HEAD_BYTES), 4096);
        assert_eq!(extent_bytes(BLOCK_BYTES - BATCH_HEAD_BYTES + 1), 8192);
        assert_eq!(body_bytes_max(64 << 20), BATCH_BYTES_MAX);
        assert!(extent_bytes(body_bytes_max(1 << 16)) + SEGMENT_HEAD_BYTES <= 1 << 16);
    }
}
