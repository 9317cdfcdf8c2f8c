//! What a wallet and the ledger daemon say to each other, as bytes. Pure.
//!
//! A frame is a head of 8 bytes and a body: 4 bytes length of the body, 1 byte kind, 3 bytes zero. All numbers are little endian.
//! `docs/LEDGER.md` draws every kind. Reading trusts nothing: lengths are bounded before anything is kept, and what is not exactly
//! as drawn is refused with a sentence that says why.
mod answers;
mod audit;
mod reply;
mod request;

pub use reply::{Acknowledged, Fault, Refused, Reply};
pub use request::{Inquiry, Request, Role, Tenant};

use super::layout::{array_at, u32_at};
use crate::domain::limits::{ACCOUNT_BYTES_MAX, BATCH_BYTES_MAX, LANE_BATCH_BYTES_MAX};

/// First bytes of every connection, in the body of the first frame.
pub const MAGIC: [u8; 8] = *b"RONWIRED";
/// The version of the protocol; both ends must have the same.
pub const PROTOCOL_VERSION: u32 = 7;
/// Lane batches of one lane that a wallet may have in doubt at any time. A daemon remembers more places than that.
pub const IN_DOUBT_BATCHES_MAX: usize = 128;
/// Largest body of a frame to the daemon, in bytes: a lane batch and its name.
pub const REQUEST_BODY_BYTES_MAX: usize = LANE_BATCH_BYTES_MAX + 64;
/// Largest body of a frame from the daemon, in bytes: the entries of one ledger batch and their place, or the sums of as many assets as a
/// ledger can have.
pub const REPLY_BODY_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;
/// Values of accounts, one for each asset that they hold, that are told together.
pub const HELD_VALUES_MAX: usize = 1 << 16;
/// Longest piece of a snapshot, in bytes.
pub const PIECE_BYTES_MAX: usize = 4 << 20;
/// Longest text of a refusal, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

/// Length of the head of a frame.
pub const FRAME_HEAD_BYTES: usize = 8;

const _: () = assert!(IN_DOUBT_BATCHES_MAX < super::merge::REMEMBERED_PER_LANE_MAX);
const _: () =
    assert!(PIECE_BYTES_MAX + 16 <= REPLY_BODY_BYTES_MAX && super::index::KEYS_TOGETHER_MAX * 8 + 16 <= REPLY_BODY_BYTES_MAX);
const _: () = assert!((HELD_VALUES_MAX + 1) * 65 < REPLY_BODY_BYTES_MAX);
const _: () = assert!(ACCOUNT_BYTES_MAX + 16 < REQUEST_BODY_BYTES_MAX);

/// Why bytes are not a frame of this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes as they arrive, cut into frames.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    /// How much of them has been handed out.
    taken: usize,
    body_bytes_max: usize,
}

impl Frames {
    /// For frames whose bodies have at most so many bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, body_bytes_max }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// The end of what has arrived, to be read into by the caller: `read` gets a buffer of this many bytes and says how many of
    /// them are filled now.
    ///
    /// # Errors
    /// What `read` says; nothing has arrived then.
    pub fn fill<E>(&mut self, length: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.compact();
        let before = self.bytes.len();
        self.bytes.resize(before + length, 0);
        let outcome = read(&mut self.bytes[before..]);
        self.bytes.truncate(before + outcome.as_ref().map_or(0, |count| *count));
        outcome
    }

    fn compact(&mut self) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken > self.body_bytes_max {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Bytes that have arrived and were not handed out.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether [`Frames::take`] would return a frame.
    ///
    /// # Errors
    /// As there.
    pub fn has_whole(&self) -> Result<bool, Malformed> {
        let rest = &self.bytes[self.taken..];
        if rest.len() < FRAME_HEAD_BYTES {
            return Ok(false);
        }
        let (length, kind) = (u32_at(rest, 0) as usize, rest[4]);
        if rest[5..FRAME_HEAD_BYTES] != [0; 3] {
            return Err(Malformed("the head of a frame has bytes that are not zero where they must be".into()));
        }
        if length > self.body_bytes_max {
            return Err(Malformed(format!(
                "a frame of kind {kind} says that it has {length} bytes, and {} are the most",
                self.body_bytes_max
            )));
        }
        Ok(rest.len() >= FRAME_HEAD_BYTES + length)
    }

    /// The next whole frame: its kind and its body.
    ///
    /// # Errors
    /// If the head is not one of this protocol, or the body is too large. Nothing behind it can be understood.
    pub fn take(&mut self) -> Result<Option<(u8, &[u8])>, Malformed> {
        if !self.has_whole()? {
            return Ok(None);
        }
        let kind = self.bytes[self.taken + 4];
        let end = self.taken + FRAME_HEAD_BYTES + u32_at(&self.bytes[self.taken..], 0) as usize;
        let start = self.taken + FRAME_HEAD_BYTES;
        self.taken = end;
        Ok(Some((kind, &self.bytes[start..end])))
    }
}

/// Appends a frame whose body `write` appends.
fn frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind, 0, 0, 0]);
    write(out);
    let length = u32::try_from(out.len() - start - FRAME_HEAD_BYTES).expect("bodies are bounded far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// A text as it fits into a frame.
fn shortened(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Takes a body apart, field by field.
struct Fields<'a> {
    rest: &'a [u8],
    name: &'static str,
}

impl<'a> Fields<'a> {
    fn new(name: &'static str, body: &'a [u8]) -> Self {
        Self { rest: body, name }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if self.rest.len() < count {
            return Err(Malformed(format!("a frame {} is too short", self.name)));
        }
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(array_at(self.bytes(N)?, 0))
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    fn zeros(&mut self, count: usize) -> Result<(), Malformed> {
        if self.bytes(count)?.iter().any(|byte| *byte != 0) {
            return Err(Malformed(format!("a frame {} has bytes that are not zero where they must be", self.name)));
        }
        Ok(())
    }

    fn rest(self) -> &'a [u8] {
        self.rest
    }

    fn text(self) -> Result<&'a str, Malformed> {
        let Self { rest, name } = self;
        std::str::from_utf8(rest).map_err(|_| Malformed(format!("a frame {name} has a text that is not UTF-8")))
    }

    fn end(self) -> Result<(), Malformed> {
        if !self.rest.is_empty() {
            return Err(Malformed(format!("a frame {} is too long", self.name)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
