//! The values of the wallet: what a spend is made of, independent of how it arrives, where it is decided and how it is kept.
//!
//! Imports nothing from the other modules. No clock, no randomness, no I/O.
mod account;
mod allowance;
mod amount;
mod entry;
mod history;
mod key_id;
mod lane;
pub mod limits;
mod op;
mod quota;
mod read;
mod receipt;
mod refusal;
mod state;
mod text;
mod totals;
mod txid;

pub use account::{Account, Asset, Key};
pub use allowance::Allowance;
pub use amount::Amount;
pub use entry::{Draft, Entry, EntryFault, TokenId};
pub use history::{Consistency, Digest, HistoryAnswer, HistoryQuestion, HistoryRoot, Inclusion, Path, Proof, Unproven};
pub use key_id::KeyId;
pub use lane::{Durable, KeyUse, LaneBatch, Page, PageQuestion, Question};
pub use op::Op;
pub use quota::{Quota, QuotaScope, QUOTA_MAX};
pub use read::Read;
pub use receipt::{Balance, Found, LastNonce, Root};
pub use refusal::{Code, Reason, Refusal, Why};
pub use state::{AccountState, AssetValue, DayCount, Payer, UsedKey, DAY_MS};
pub use text::{bytes_of_hex, hex, misleads, push_escaped, push_hex};
pub use totals::{Totals, Untold};
pub use txid::{LogId, TxId};

/// Position of an entry in the ledger; dense, the first entry is 1, and 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A debit number of one account: the first debit is 1, each further debit is exactly one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub u64);

/// A span of time, both ends included; empty if `first` is above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub first: UnixMs,
    /// The last moment.
    pub last: UnixMs,
}

impl Period {
    /// No moment.
    pub const EMPTY: Self = Self { first: UnixMs(u64::MAX), last: UnixMs(0) };

    /// Whether a moment belongs to both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first.max(other.first) <= self.last.min(other.last)
    }

    /// The shortest span that covers both.
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Index of a core worker, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);
