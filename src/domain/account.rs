//! Names that arrive from outside: accounts, assets and idempotency keys. A value of these types has been checked.
use super::limits::{ACCOUNT_BYTES_MAX, ASSET_BYTES_MAX, KEY_BYTES_MAX};

/// An account name: 1 to 256 bytes of `A-Z a-z 0-9 : / - _`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account<'a>(&'a [u8]);

/// An asset name: 1 to 16 bytes of `a-z 0-9 _`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asset<'a>(&'a [u8]);

/// An idempotency key: 1 to 64 bytes of `A-Z a-z 0-9 - _ : .`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a [u8]);

const ACCOUNT: u8 = 1;
const ASSET: u8 = 2;
const KEY: u8 = 4;

/// For each byte, the kinds of name in which it may stand.
static ALPHABET: [u8; 256] = alphabet();

const fn alphabet() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' => ACCOUNT | KEY,
            b'a'..=b'z' | b'0'..=b'9' | b'_' => ACCOUNT | ASSET | KEY,
            b':' | b'-' => ACCOUNT | KEY,
            b'/' => ACCOUNT,
            b'.' => KEY,
            _ => 0,
        };
        byte += 1;
    }
    table
}

fn well_formed(bytes: &[u8], bytes_max: usize, kind: u8) -> bool {
    // Without a way out in between: what is not too long is nearly always good.
    let common = || bytes.iter().fold(kind, |common, &byte| common & ALPHABET[usize::from(byte)]);
    (1..=bytes_max).contains(&bytes.len()) && common() != 0
}

macro_rules! name {
    ($name:ident, $bytes_max:expr, $kind:expr) => {
        impl<'a> $name<'a> {
            /// Checks length and alphabet; `None` if either is wrong.
            pub fn new(text: &'a str) -> Option<Self> {
                Self::of_bytes(text.as_bytes())
            }

            /// The same for bytes, which need not be text.
            pub fn of_bytes(bytes: &'a [u8]) -> Option<Self> {
                well_formed(bytes, $bytes_max, $kind).then_some(Self(bytes))
            }

            /// A name that was checked when it was first read; repeating that on every look would cost more than the look.
            pub(super) fn checked(bytes: &'a [u8]) -> Self {
                debug_assert!(Self::of_bytes(bytes).is_some());
                Self(bytes)
            }

            /// The name as it was given.
            pub fn as_bytes(self) -> &'a [u8] {
                self.0
            }

            /// The name as text; where bytes will do they are cheaper, because they need not be looked at.
            pub fn as_str(self) -> &'a str {
                std::str::from_utf8(self.0).expect("the alphabets are ASCII")
            }
        }

        impl std::fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.as_str())
            }
        }
    };
}

name!(Account, ACCOUNT_BYTES_MAX, ACCOUNT);
name!(Asset, ASSET_BYTES_MAX, ASSET);
name!(Key, KEY_BYTES_MAX, KEY);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets_and_lengths_follow_the_contract() {
        assert!(Account::new("acct:a/b-c_9Z").is_some());
        assert!(Key::new("a.b:C-1_").is_some());
        assert!(Asset::new("roc_2").is_some());
        for bad in ["", "a b", "a.b", "a%", "ä", &"x".repeat(257)] {
            assert!(Account::new(bad).is_none(), "{bad:?}");
        }
        for bad in ["", "ROC", "a-b", &"x".repeat(17)] {
            assert!(Asset::new(bad).is_none(), "{bad:?}");
        }
        for bad in ["", "a/b", "a b", &"x".repeat(65)] {
            assert!(Key::new(bad).is_none(), "{bad:?}");
        }
        assert!(Account::new(&"x".repeat(256)).is_some());
    }
}
