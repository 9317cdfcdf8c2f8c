//! A ledger entry: self-contained bytes, encoded once on the way in and never re-encoded.
//!
//! Layout, little endian; the fixed part is 64 bytes and the names follow it in this order without padding:
//!
//! ```text
//!  0 u16 total length      2 u8 op              3 u8 format (2)
//!  4 u16 `from` length     6 u16 `to` length    8 u16 memo length    10 u8 asset length   11 u8 key length
//! 12 u8 corr id length    13 u8 flags          14 u16 zero
//! 16 u64 unix ms          24 u64 nonce         32 u128 amount
//! 48 16 bytes token id
//! 64 from, to, asset, key, memo, corr id
//! ```
//!
//! Flags: 1 a memo was given, 2 a nonce was given, 4 the debit counts against a daily ceiling of its token, 8 against a budget of it,
//! 16 against what the policy lets its operation debit in a day.
use super::limits::{CORR_BYTES_MAX, ENTRY_BYTES_MAX, ENTRY_HEAD_BYTES, MEMO_BYTES_MAX};
use super::{Account, Amount, Asset, Key, Nonce, Op, UnixMs};

const FORMAT: u8 = 2;
const FLAG_MEMO: u8 = 1;
const FLAG_NONCE: u8 = 2;
const FLAG_CEILING: u8 = 4;
const FLAG_BUDGET: u8 = 8;
const FLAG_DAILY: u8 = 16;
const TS_AT: usize = 16;

/// The random id of the capability under which the entry was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

impl TokenId {
    /// The id under which the policy counts what an operation debits in a day. No token has it: theirs are random.
    pub fn of_operation(op: Op) -> Self {
        let mut id = *b"policy daily max";
        id[15] = op as u8;
        Self(id)
    }
}

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
    /// Whether the capability limits the sum of all debits under its id, so that replay counts this one; only for debits.
    pub budget: bool,
    /// Whether the policy limits what the operation debits in a day, so that replay counts this one; only for debits.
    pub daily_max: bool,
    /// When the request was accepted.
    pub ts: UnixMs,
}

impl Draft<'_> {
    /// Appends the encoded entry to `out`.
    ///
    /// # Panics
    /// If `from`, `to`, `nonce`, `budget` or `daily_max` do not fit the operation, or a text is over its limit: the caller's mistake.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert_eq!(self.op.debits(), self.from.is_some());
        assert_eq!(self.op.credits(), self.to.is_some());
        assert!(self.nonce.is_some() || !self.op.debits());
        assert!(self.op.debits() || !(self.budget || self.daily_max));
        let from = self.from.map_or(&[][..], Account::as_bytes);
        let to = self.to.map_or(&[][..], Account::as_bytes);
        let (asset, key) = (self.asset.as_bytes(), self.key.as_bytes());
        let (memo, corr) = (self.memo.unwrap_or("").as_bytes(), self.corr.as_bytes());
        assert!(memo.len() <= MEMO_BYTES_MAX && corr.len() <= CORR_BYTES_MAX);
        let total = ENTRY_HEAD_BYTES + from.len() + to.len() + asset.len() + key.len() + memo.len() + corr.len();
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
        if self.budget {
            flags |= FLAG_BUDGET;
        }
        if self.daily_max {
            flags |= FLAG_DAILY;
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
        head[12] = corr.len() as u8;
        head[13] = flags;
        head[TS_AT..24].copy_from_slice(&self.ts.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.nonce.unwrap_or_default().0.to_le_bytes());
        head[32..48].copy_from_slice(&self.amount.minor_units().to_le_bytes());
        head[48..64].copy_from_slice(&self.token.0);
        out.reserve(total);
        out.extend_from_slice(&head);
        for text in [from, to, asset, key, memo, corr] {
            out.extend_from_slice(text);
        }
    }
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
    texts: &'a [u8],
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

    /// The entries that lie one behind the other in `bytes`, which are as for [`Entry::parse_own`].
    pub fn all_own(bytes: &'a [u8]) -> impl Iterator<Item = Self> + Clone {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let (entry, after) = (!rest.is_empty()).then(|| Self::parse_own(rest))?;
            rest = after;
            Some(entry)
        })
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
        let (bytes, rest) = bytes.split_at(total);
        Ok((Self { bytes, op, texts: &bytes[ENTRY_HEAD_BYTES..], ends }, rest))
    }

    fn check(&self) -> Result<(), EntryFault> {
        let from_fits = if self.op.debits() { Account::of_bytes(self.text(0)).is_some() } else { self.text(0).is_empty() };
        let to_fits = if self.op.credits() { Account::of_bytes(self.text(1)).is_some() } else { self.text(1).is_empty() };
        let fits = from_fits
            && to_fits
            && Asset::of_bytes(self.text(2)).is_some()
            && Key::of_bytes(self.text(3)).is_some()
            && self.text(4).len() <= MEMO_BYTES_MAX
            && std::str::from_utf8(self.text(4)).is_ok()
            && self.text(5).len() <= CORR_BYTES_MAX
            && std::str::from_utf8(self.text(5)).is_ok()
            && u128::from_le_bytes(self.array(32)) > 0
            && (self.nonce().is_some() || !self.op.debits())
            // What is absent leaves no bytes behind: an entry is written in one way only.
            && (self.flags() & FLAG_NONCE != 0 || self.array(24) == [0; 8])
            && (self.flags() & FLAG_MEMO != 0 || self.text(4).is_empty())
            && (self.flags() & (FLAG_BUDGET | FLAG_DAILY) == 0 || self.op.debits())
            && self.flags() & !(FLAG_MEMO | FLAG_NONCE | FLAG_CEILING | FLAG_BUDGET | FLAG_DAILY) == 0
            && self.bytes[14..16] == [0, 0];
        fits.then_some(()).ok_or(EntryFault::Malformed)
    }

    /// From, to, asset, key, memo or correlation id, in this order.
    fn text(&self, index: usize) -> &'a [u8] {
        let start = if index == 0 { 0 } else { usize::from(self.ends[index - 1]) };
        let end = self.ends.get(index).map_or(self.texts.len(), |end| usize::from(*end));
        &self.texts[start..end]
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
        (self.flags() & FLAG_MEMO != 0).then(|| utf8(self.text(4)))
    }

    /// The correlation id of the request.
    pub fn corr(&self) -> &'a str {
        utf8(self.text(5))
    }

    /// When the request was accepted.
    pub fn ts(&self) -> UnixMs {
        UnixMs(u64::from_le_bytes(self.array(TS_AT)))
    }

    /// Whether both come from the same request: operation and all fields of the body but the key. Time, capability and
    /// correlation id do not count.
    pub fn same_request(&self, other: &Entry<'_>) -> bool {
        (self.op, self.nonce(), self.amount()) == (other.op, other.nonce(), other.amount())
            && (self.from(), self.to(), self.asset()) == (other.from(), other.to(), other.asset())
            && self.memo() == other.memo()
    }

    /// The capability that allowed it.
    pub fn token(&self) -> TokenId {
        TokenId(self.array(48))
    }

    /// Whether the debit counts against a daily ceiling of its token.
    pub fn counts_against_ceiling(&self) -> bool {
        self.flags() & FLAG_CEILING != 0
    }

    /// Under which ids the debit counts against ceilings of the day: that of its token, and that of its operation, under which the policy counts.
    pub fn daily_counts(&self) -> impl Iterator<Item = TokenId> {
        let of_token = self.counts_against_ceiling().then(|| self.token());
        of_token.into_iter().chain(self.counts_against_daily_max().then(|| TokenId::of_operation(self.op)))
    }

    /// Whether the debit counts against what the policy lets its operation debit in a day.
    pub fn counts_against_daily_max(&self) -> bool {
        self.flags() & FLAG_DAILY != 0
    }

    /// Whether the debit counts against a budget of its token.
    pub fn counts_against_budget(&self) -> bool {
        self.flags() & FLAG_BUDGET != 0
    }
}

fn utf8(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("checked when the entry was parsed")
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
