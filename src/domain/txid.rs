//! Transaction ids: `tx_` and 26 characters of Crockford base 32 that hold the ledger position and a check value.
//!
//! The check value binds the id to one log and one entry, so that an id of another ledger, or a guessed one, finds nothing.
//! It is a locator, not a secret.
use super::{Entry, Seq};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const PREFIX: &str = "tx_";
/// Characters of the encoded 128 bits.
const DIGITS: usize = 26;

/// The identity of one ledger, made at random when it is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

/// The name of a transaction on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxId {
    /// Where the entry is.
    pub seq: Seq,
    /// What the entry at that place must yield, or the id belongs to something else.
    pub check: u64,
}

impl TxId {
    /// Length on the wire, in bytes.
    pub const TEXT_BYTES: usize = PREFIX.len() + DIGITS;

    /// The id of the entry at this position of this log.
    pub fn new(log: LogId, seq: Seq, entry: &Entry<'_>) -> Self {
        let mut place = [0u8; 24];
        place[..16].copy_from_slice(&log.0);
        place[16..].copy_from_slice(&seq.0.to_le_bytes());
        Self { seq, check: xxh3_64_with_seed(entry.bytes(), xxh3_64(&place)) }
    }

    /// Reads the form on the wire; `None` if it is not one that [`TxId::text`] can yield.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?.as_bytes();
        if digits.len() != DIGITS || digits[0] > b'7' {
            return None;
        }
        let mut bits = 0u128;
        for digit in digits {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            bits = bits << 5 | value as u128;
        }
        Some(Self { seq: Seq((bits >> 64) as u64), check: bits as u64 })
    }

    /// The form on the wire, always ASCII.
    pub fn text(self) -> [u8; Self::TEXT_BYTES] {
        let mut text = [b'0'; Self::TEXT_BYTES];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        let mut bits = u128::from(self.seq.0) << 64 | u128::from(self.check);
        for place in text[PREFIX.len()..].iter_mut().rev() {
            *place = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        text
    }
}

impl std::fmt::Display for TxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("the alphabet is ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Amount, Asset, Draft, Key, Op, TokenId, UnixMs};

    fn issue(key: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let draft = Draft {
            op: Op::Issue,
            from: None,
            to: Account::new("a"),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(1).unwrap(),
            nonce: None,
            key: Key::new(key).unwrap(),
            memo: None,
            corr: "",
            token: TokenId::default(),
            ceiling: false,
            budget: false,
            daily_max: false,
            ts: UnixMs(1),
        };
        draft.encode(&mut bytes);
        bytes
    }

    #[test]
    fn text_and_id_are_inverse() {
        let bytes = issue("k");
        let (entry, _) = Entry::parse(&bytes).unwrap();
        for seq in [0, 1, 42, u64::MAX] {
            let id = TxId::new(LogId([7; 16]), Seq(seq), &entry);
            let text = id.to_string();
            assert_eq!(text.len(), TxId::TEXT_BYTES);
            assert_eq!(TxId::parse(&text), Some(id));
        }
        for bad in ["", "tx_", "tx_8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "tx_0000000000000000000000000U", "TX_00000000000000000000000000"]
        {
            assert_eq!(TxId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_check_value_binds_log_position_and_entry() {
        let (bytes, other_bytes) = (issue("k"), issue("l"));
        let (entry, other) = (Entry::parse(&bytes).unwrap().0, Entry::parse(&other_bytes).unwrap().0);
        let check = |log, seq, entry| TxId::new(LogId([log; 16]), Seq(seq), entry).check;
        let checks = [check(7, 1, &entry), check(8, 1, &entry), check(7, 2, &entry), check(7, 1, &other)];
        for (index, one) in checks.iter().enumerate() {
            assert!(!checks[..index].contains(one), "{index}");
        }
    }
}
