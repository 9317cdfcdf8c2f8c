//! One line of the stream as bytes: how its members are written, how it is chained to the line before, how it is read back.
//!
//! A line is a JSON object with `v`, `n`, `ts`, `kind` first, in this order, then what belongs to its kind, then `hash`: BLAKE3 over the hash
//! of the line before and every byte of this line before `,"hash":`, in hex. What the kinds mean is in [`super::chain`] and
//! `write`; this file knows bytes only.
use crate::domain::{bytes_of_hex, push_escaped, push_hex};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// The version of the format that is written here.
pub const VERSION: u8 = 1;
/// Longest line that is read, in bytes; what is written stays below a half of it.
pub const LINE_BYTES_MAX: usize = 16 << 10;

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}\n";
const HASH_HEX: usize = 64;
const ENDING_BYTES: usize = BEFORE_HASH.len() + HASH_HEX + AFTER_HASH.len();

/// The hash of a line, which chains the next one to it.
pub type Hash = [u8; 32];

/// The hash of a line with this content behind a line with that hash.
fn hash_of(before: &Hash, content: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(content);
    *hasher.finalize().as_bytes()
}

/// A line that is being written.
pub(super) struct Pen<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
}

impl<'o> Pen<'o> {
    pub fn begin(out: &'o mut Vec<u8>, n: u64, ts: u64, kind: &'static str) -> Self {
        let start = out.len();
        out.extend_from_slice(b"{\"v\":1");
        let mut pen = Self { out, start };
        pen.number("n", n);
        pen.number("ts", ts);
        pen.plain("kind", kind);
        pen
    }

    fn name(&mut self, name: &'static str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// A text in which JSON escapes nothing.
    pub fn plain(&mut self, name: &'static str, text: &str) {
        debug_assert!(text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\'));
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    /// Any text.
    pub fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        self.out.push(b'"');
        push_escaped(self.out, text);
        self.out.push(b'"');
    }

    pub fn text_or_null(&mut self, name: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.raw(name, "null"),
        }
    }

    /// `true`, `false`, `null`, or an object that the caller has written.
    pub fn raw(&mut self, name: &'static str, json: &str) {
        self.name(name);
        self.out.extend_from_slice(json.as_bytes());
    }

    pub fn hex(&mut self, name: &'static str, bytes: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        push_hex(self.out, bytes);
        self.out.push(b'"');
    }

    /// Ends the line; returns its hash.
    pub fn seal(self, before: &Hash) -> Hash {
        let hash = hash_of(before, &self.out[self.start..]);
        self.out.extend_from_slice(BEFORE_HASH);
        push_hex(self.out, &hash);
        self.out.extend_from_slice(AFTER_HASH);
        assert!(self.out.len() - self.start <= LINE_BYTES_MAX, "every member has a bound");
        hash
    }
}

/// Splits a line, line feed included, into what is hashed and the hash that it states; `None` if it does not end as a line does.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], Hash)> {
    let (content, ending) = line.split_at(line.len().checked_sub(ENDING_BYTES)?);
    let hash = ending.strip_prefix(BEFORE_HASH)?.strip_suffix(AFTER_HASH)?;
    Some((content, bytes_of_hex(std::str::from_utf8(hash).ok()?)?))
}

/// Whether the line states the hash that it has behind a line with that one.
pub(super) fn is_chained(before: &Hash, content: &[u8], stated: &Hash) -> bool {
    hash_of(before, content) == *stated
}

/// A text of a line, borrowed from it where nothing in it is escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The members of a line, as far as a reader needs them; those of later versions are passed over.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)] // The names are those of the format.
pub struct Line<'a> {
    pub v: u8,
    pub n: u64,
    pub ts: u64,
    #[serde(borrow)]
    pub kind: Text<'a>,
    #[serde(borrow)]
    pub outcome: Option<Text<'a>>,
    pub seq: Option<u64>,
    #[serde(borrow)]
    pub txid: Option<Text<'a>>,
    #[serde(borrow)]
    pub code: Option<Text<'a>>,
    #[serde(borrow)]
    pub op: Option<Text<'a>>,
    #[serde(borrow)]
    pub from: Option<Text<'a>>,
    #[serde(borrow)]
    pub to: Option<Text<'a>>,
    pub from_seq: Option<u64>,
    pub to_seq: Option<u64>,
    #[serde(borrow)]
    pub asset: Option<Text<'a>>,
    #[serde(borrow)]
    pub amount_minor: Option<Text<'a>>,
    #[serde(borrow)]
    pub token_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub subject: Option<Text<'a>>,
    #[serde(borrow)]
    pub key_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub corr_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub event: Option<Text<'a>>,
    pub ok: Option<bool>,
    pub nonce: Option<u64>,
    #[serde(borrow)]
    pub idem: Option<Text<'a>>,
    pub file: Option<u32>,
    #[serde(borrow)]
    pub prev: Option<Text<'a>>,
    #[serde(borrow)]
    pub log: Option<Text<'a>>,
    #[serde(borrow)]
    pub head: Option<Text<'a>>,
    pub through: Option<u64>,
    pub accepted: Option<u64>,
    pub refused: Option<u64>,
    pub dropped: Option<u64>,
    pub count: Option<u64>,
    pub signature: Option<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> Line<'a> {
    /// Reads the members of a line without looking at its hash.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Whether it is an operation that the ledger has taken.
    pub fn is_accepted(&self) -> bool {
        &*self.kind == "op" && self.outcome.as_deref() == Some("accepted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Vec<u8> {
        let mut out = b"before".to_vec();
        let mut pen = Pen::begin(&mut out, 7, 1_500, "token");
        pen.text("subject", "a\"b\\c\u{1}\u{e4}");
        pen.hex("token_id", &[0xab; 16]);
        pen.text_or_null("key_id", None);
        pen.seal(&[9; 32]);
        out.split_off(6)
    }

    #[test]
    fn a_line_reads_back_as_it_was_meant() {
        let bytes = line();
        let (content, hash) = split(&bytes).unwrap();
        assert!(is_chained(&[9; 32], content, &hash) && !is_chained(&[8; 32], content, &hash));
        assert!(bytes.starts_with(br#"{"v":1,"n":7,"ts":1500,"kind":"token","subject":"a\"b\\c\u0001"#));
        let read = Line::read(&bytes).unwrap();
        assert_eq!((read.v, read.n, read.ts, &*read.kind), (VERSION, 7, 1_500, "token"));
        assert_eq!(read.subject.as_deref(), Some("a\"b\\c\u{1}\u{e4}"));
        assert_eq!(read.token_id.as_deref(), Some(&*"ab".repeat(16)));
        assert!(read.key_id.is_none() && !read.is_accepted());
        assert_eq!(bytes_of_hex::<16>(read.token_id.as_deref().unwrap()), Some([0xab; 16]));
    }

    #[test]
    fn no_cut_and_no_changed_byte_passes() {
        let good = line();
        let passes = |bytes: &[u8]| split(bytes).is_some_and(|(content, hash)| is_chained(&[9; 32], content, &hash));
        assert!(passes(&good));
        assert!((0..good.len()).all(|end| !passes(&good[..end])));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!passes(&bad), "{at}");
        }
    }
}
