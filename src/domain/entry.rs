//! A ledger entry: self-contained bytes, encoded once on the way in and never re-encoded.
//!
//! Layout, little endian; the fixed part is 80 bytes and the names follow it in this order without padding:
//!
//! ```text
//!  0 u16 total length      2 u8 op              3 u8 format (1)
//!  4 u16 `from` length     6 u16 `to` length    8 u16 memo length    10 u8 asset length   11 u8 key length
//! 12 u8 corr id length    13 u8 flags          14 u16 zero
//! 16 u64 unix ms          24 u64 nonce         32 u128 amount
//! 48 16 bytes fingerprint 64 16 bytes token id
//! 80 from, to, asset, key, memo, corr id
//! ```
//!
//! Flags: 1 a memo was given, 2 a nonce was given, 4 the debit counts against a daily ceiling of its token.
use super::limits::{ACCOUNT_BYTES_MAX, ASSET_BYTES_MAX, CORR_BYTES_MAX, ENTRY_BYTES_MAX, ENTRY_HEAD_BYTES, MEMO_BYTES_MAX};
use super::{Account, Amount, Asset, Key, Nonce, Op, UnixMs};

const FORMAT: u8 = 1;
const FLAG_MEMO: u8 = 1;
const FLAG_NONCE: u8 = 2;
const FLAG_CEILING: u8 = 4;
const TS_AT: usize = 16;

/// BLAKE3 of the operation and all body fields but the key, cut to 16 bytes: two requests are the same if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// The random id of the capability under which the entry was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenId(pub [u8; 16]);

/// The fields of an entry before it is encoded.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What to do.
    pub op: Op,
    /// The debited account; `None` exactly for issue.
    pub from: Option<Account<'a>>,
    /// The credited account; `None` exactly for burn.
    pub to: Option<Account<'a>>,
    /// The asset that moves.
    pub asset: Asset<'a>,
    /// How much of it.
    pub amount: Amount,
    /// The debit number; mandatory for debits, for issue a client's own reference.
    pub nonce: Option<Nonce>,
    /// The idempotency key.
    pub key: Key<'a>,
    /// A client's own words; at most 256 bytes.
    pub memo: Option<&'a str>,
    /// The correlation id; at most 64 bytes.
    pub corr: &'a str,
    /// The capability that allowed it.
    pub token: TokenId,
    /// Whether the capability limits the day's debits, so that replay counts this one.
    pub ceiling: bool,
    /// When the request was accepted.
    pub ts: UnixMs,
}

impl Draft<'_> {
    /// Appends the encoded entry to `out`.
    ///
    /// # Panics
    /// If `from`, `to` or `nonce` do not fit the operation, or a text is over its limit: the caller's mistake.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert_eq!(self.op.debits(), self.from.is_some());
        assert_eq!(self.op.credits(), self.to.is_some());
        assert!(self.nonce.is_some() || !self.op.debits());
        let memo = self.memo.unwrap_or("");
        assert!(memo.len() <= MEMO_BYTES_MAX && self.corr.len() <= CORR_BYTES_MAX);
        let from = self.from.map_or("", Account::as_str);
        let to = self.to.map_or("", Account::as_str);
        let asset = self.asset.as_str();
        let key = self.key.as_str();
        let total = ENTRY_HEAD_BYTES + from.len() + to.len() + asset.len() + key.len() + memo.len() + self.corr.len();
        assert!(total <= ENTRY_BYTES_MAX);
        let mut flags = 0;
        if self.memo.is_some() {
            flags |= FLAG_MEMO;
        }
        if self.nonce.is_some() {
            flags |= FLAG_NONCE;
        }
        if self.ceiling {
            flags |= FLAG_CEILING;
        }
        let mut head = [0u8; ENTRY_HEAD_BYTES];
        head[0..2].copy_from_slice(&(total as u16).to_le_bytes());
        head[2] = self.op as u8;
        head[3] = FORMAT;
        head[4..6].copy_from_slice(&(from.len() as u16).to_le_bytes());
        head[6..8].copy_from_slice(&(to.len() as u16).to_le_bytes());
        head[8..10].copy_from_slice(&(memo.len() as u16).to_le_bytes());
        head[10] = asset.len() as u8;
        head[11] = key.len() as u8;
        head[12] = self.corr.len() as u8;
        head[13] = flags;
        head[TS_AT..24].copy_from_slice(&self.ts.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.nonce.unwrap_or_default().0.to_le_bytes());
        head[32..48].copy_from_slice(&self.amount.minor_units().to_le_bytes());
        head[64..80].copy_from_slice(&self.token.0);
        let fingerprint = fingerprint(&head, &[from, to, asset, memo]);
        head[48..64].copy_from_slice(&fingerprint.0);
        out.extend_from_slice(&head);
        for text in [from, to, asset, key, memo, self.corr] {
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Hashes operation, nonce, amount, lengths and body fields; time, token, key and correlation id do not count.
fn fingerprint(head: &[u8; ENTRY_HEAD_BYTES], texts: &[&str; 4]) -> Fingerprint {
    /// Operation, flags, lengths, nonce and amount.
    const FIXED_BYTES: usize = 33;
    const INPUT_BYTES_MAX: usize = FIXED_BYTES + 2 * ACCOUNT_BYTES_MAX + ASSET_BYTES_MAX + MEMO_BYTES_MAX;
    let mut input = [0u8; INPUT_BYTES_MAX];
    input[0] = head[2];
    input[1] = head[13] & (FLAG_MEMO | FLAG_NONCE);
    input[2..8].copy_from_slice(&head[4..10]);
    input[8..32].copy_from_slice(&head[24..48]);
    input[32] = head[10];
    let mut end = FIXED_BYTES;
    for text in texts {
        input[end..end + text.len()].copy_from_slice(text.as_bytes());
        end += text.len();
    }
    let mut cut = [0u8; 16];
    cut.copy_from_slice(&blake3::hash(&input[..end]).as_bytes()[..16]);
    Fingerprint(cut)
}

/// What is wrong with bytes that should be an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFault {
    /// Fewer bytes than the entry says it has, or than any entry has.
    Short,
    /// A format or operation number of another version.
    Unknown,
    /// A length, name, amount or flag that no encoder writes.
    Malformed,
}

impl std::fmt::Display for EntryFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EntryFault::Short => "the entry is cut short",
            EntryFault::Unknown => "the entry has a format or operation that this version does not know",
            EntryFault::Malformed => "the entry has a field that no version writes",
        })
    }
}

/// A view of one encoded entry that has been checked field by field.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    bytes: &'a [u8],
    op: Op,
    texts: &'a str,
    /// Ends of from, to, asset, key and memo within `texts`; the correlation id is the rest.
    ends: [u16; 5],
}

impl<'a> Entry<'a> {
    /// Reads the entry at the start of `bytes` and returns it with what follows it.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), EntryFault> {
        let (entry, rest) = Self::divide(bytes)?;
        entry.check()?;
        Ok((entry, rest))
    }

    /// As [`Entry::parse`], for bytes that this process encoded or parsed before: their fields are not checked again.
    ///
    /// # Panics
    /// If the bytes are not divided as an entry is.
    pub fn parse_own(bytes: &'a [u8]) -> (Self, &'a [u8]) {
        let (entry, rest) = Self::divide(bytes).expect("the bytes were encoded or checked by this process");
        debug_assert_eq!(entry.check(), Ok(()));
        (entry, rest)
    }

    /// Finds the fields without looking into them.
    fn divide(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), EntryFault> {
        if bytes.len() < ENTRY_HEAD_BYTES {
            return Err(EntryFault::Short);
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let total = usize::from(u16_at(0));
        if bytes[3] != FORMAT {
            return Err(EntryFault::Unknown);
        }
        let op = Op::from_number(bytes[2]).ok_or(EntryFault::Unknown)?;
        if !(ENTRY_HEAD_BYTES..=ENTRY_BYTES_MAX).contains(&total) {
            return Err(EntryFault::Malformed);
        }
        if bytes.len() < total {
            return Err(EntryFault::Short);
        }
        let lengths = [u16_at(4), u16_at(6), u16::from(bytes[10]), u16::from(bytes[11]), u16_at(8)];
        let mut ends = [0u16; 5];
        let mut end = 0u16;
        for (place, length) in ends.iter_mut().zip(lengths) {
            end = end.checked_add(length).ok_or(EntryFault::Malformed)?;
            *place = end;
        }
        if ENTRY_HEAD_BYTES + usize::from(end) + usize::from(bytes[12]) != total {
            return Err(EntryFault::Malformed);
        }
        let texts = std::str::from_utf8(&bytes[ENTRY_HEAD_BYTES..total]).map_err(|_| EntryFault::Malformed)?;
        if ends.iter().any(|end| !texts.is_char_boundary(usize::from(*end))) {
            return Err(EntryFault::Malformed);
        }
        Ok((Self { bytes: &bytes[..total], op, texts, ends }, &bytes[total..]))
    }

    fn check(&self) -> Result<(), EntryFault> {
        let from_fits = if self.op.debits() { Account::new(self.text(0)).is_some() } else { self.text(0).is_empty() };
        let to_fits = if self.op.credits() { Account::new(self.text(1)).is_some() } else { self.text(1).is_empty() };
        let fits = from_fits
            && to_fits
            && Asset::new(self.text(2)).is_some()
            && Key::new(self.text(3)).is_some()
            && self.text(4).len() <= MEMO_BYTES_MAX
            && self.corr().len() <= CORR_BYTES_MAX
            && u128::from_le_bytes(self.array(32)) > 0
            && (self.nonce().is_some() || !self.op.debits())
            && self.flags() & !(FLAG_MEMO | FLAG_NONCE | FLAG_CEILING) == 0
            && self.bytes[14..16] == [0, 0];
        fits.then_some(()).ok_or(EntryFault::Malformed)
    }

    fn text(&self, index: usize) -> &'a str {
        let start = if index == 0 { 0 } else { usize::from(self.ends[index - 1]) };
        &self.texts[start..usize::from(self.ends[index])]
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0u8; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }

    fn flags(&self) -> u8 {
        self.bytes[13]
    }

    /// The encoded form.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the entry does.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The debited account; `None` for issue.
    pub fn from(&self) -> Option<Account<'a>> {
        self.op.debits().then(|| Account::checked(self.text(0)))
    }

    /// The credited account; `None` for burn.
    pub fn to(&self) -> Option<Account<'a>> {
        self.op.credits().then(|| Account::checked(self.text(1)))
    }

    /// The account whose owner core decides: the debited one, for issue the credited one. Idempotency keys are scoped to it.
    pub fn owner(&self) -> Account<'a> {
        self.from().or_else(|| self.to()).expect("every operation debits or credits")
    }

    /// The asset that moves.
    pub fn asset(&self) -> Asset<'a> {
        Asset::checked(self.text(2))
    }

    /// How much of it.
    pub fn amount(&self) -> Amount {
        Amount::new(u128::from_le_bytes(self.array(32))).expect("checked when the entry was parsed")
    }

    /// The debit number; for issue a client's own reference.
    pub fn nonce(&self) -> Option<Nonce> {
        (self.flags() & FLAG_NONCE != 0).then(|| Nonce(u64::from_le_bytes(self.array(24))))
    }

    /// The idempotency key.
    pub fn key(&self) -> Key<'a> {
        Key::checked(self.text(3))
    }

    /// The client's own words.
    pub fn memo(&self) -> Option<&'a str> {
        (self.flags() & FLAG_MEMO != 0).then(|| self.text(4))
    }

    /// The correlation id of the request.
    pub fn corr(&self) -> &'a str {
        &self.texts[usize::from(self.ends[4])..]
    }

    /// When the request was accepted.
    pub fn ts(&self) -> UnixMs {
        UnixMs(u64::from_le_bytes(self.array(TS_AT)))
    }

    /// What makes two requests the same.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.array(48))
    }

    /// The capability that allowed it.
    pub fn token(&self) -> TokenId {
        TokenId(self.array(64))
    }

    /// Whether the debit counts against a daily ceiling of its token.
    pub fn counts_against_ceiling(&self) -> bool {
        self.flags() & FLAG_CEILING != 0
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
