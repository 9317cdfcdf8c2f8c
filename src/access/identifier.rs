//! The identifier of a macaroon: which key signed it, for whom, its own id, and when it was issued.
//!
//! ```text
//!  0 u8 version (1)    1 16 bytes token id    17 u64 unix ms, little endian
//! 25 u8 key id length  26 key id              .. subject, to the end
//! ```
use crate::domain::{hex, TokenId, UnixMs};

const VERSION: u8 = 1;
const TOKEN_AT: usize = 1;
const ISSUED_AT: usize = TOKEN_AT + 16;
const KEY_ID_AT: usize = ISSUED_AT + 8;
const HEAD_BYTES: usize = KEY_ID_AT + 1;

/// Longest key id, in bytes.
pub(super) const KEY_ID_BYTES_MAX: usize = 32;
/// Longest subject, in bytes.
pub(super) const SUBJECT_BYTES_MAX: usize = 128;

const _: () = assert!(KEY_ID_BYTES_MAX <= u8::MAX as usize);

/// The parts of an identifier. Whoever reads one has to check the signature before believing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identifier<'a> {
    pub(super) token: TokenId,
    pub(super) issued: UnixMs,
    pub(super) key_id: &'a str,
    pub(super) subject: &'a str,
}

impl<'a> Identifier<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        assert!(key_id_well_formed(self.key_id) && subject_well_formed(self.subject));
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.key_id.len() + self.subject.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.token.0);
        bytes.extend_from_slice(&self.issued.0.to_le_bytes());
        bytes.push(self.key_id.len() as u8);
        bytes.extend_from_slice(self.key_id.as_bytes());
        bytes.extend_from_slice(self.subject.as_bytes());
        bytes
    }

    /// `None` if the bytes are not an identifier of this version.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEAD_BYTES || bytes[0] != VERSION {
            return None;
        }
        let mut token = [0u8; 16];
        token.copy_from_slice(&bytes[TOKEN_AT..ISSUED_AT]);
        let mut issued = [0u8; 8];
        issued.copy_from_slice(&bytes[ISSUED_AT..KEY_ID_AT]);
        let names = std::str::from_utf8(&bytes[HEAD_BYTES..]).ok()?;
        let key_id = names.get(..usize::from(bytes[KEY_ID_AT]))?;
        let subject = &names[key_id.len()..];
        (key_id_well_formed(key_id) && subject_well_formed(subject)).then_some(Self {
            token: TokenId(token),
            issued: UnixMs(u64::from_le_bytes(issued)),
            key_id,
            subject,
        })
    }
}

/// A token id for people: 32 hexadecimal digits.
pub fn token_id_text(TokenId(bytes): TokenId) -> String {
    hex(&bytes)
}

/// 1 to 32 bytes of `a-z 0-9 -`.
pub(super) fn key_id_well_formed(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= KEY_ID_BYTES_MAX && text.bytes().all(fits)
}

/// 1 to 128 bytes without control characters.
pub(super) fn subject_well_formed(text: &str) -> bool {
    !text.is_empty() && text.len() <= SUBJECT_BYTES_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_and_parse_are_inverse_and_every_cut_is_refused_or_shorter() {
        let identifier = Identifier { token: TokenId([7; 16]), issued: UnixMs(42), key_id: "k-1", subject: "ülo" };
        let bytes = identifier.encode();
        assert_eq!(Identifier::parse(&bytes), Some(identifier));
        for cut in 0..HEAD_BYTES + 4 {
            assert_eq!(Identifier::parse(&bytes[..cut]), None, "{cut}");
        }
        let mut other = bytes.clone();
        other[0] = 2;
        assert_eq!(Identifier::parse(&other), None);
        let mut long = bytes.clone();
        long[KEY_ID_AT] = 200;
        assert_eq!(Identifier::parse(&long), None);
        let mut torn = bytes;
        torn[KEY_ID_AT] = 4;
        assert_eq!(Identifier::parse(&torn), None, "the key id must not end inside a character");
    }
}
