//! The name under which an idempotency key is remembered in memory and found in the ledger's index.
use super::limits::SLOTS;
use super::{Account, Key};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The leading bits: the slot of the account on the hash ring.
const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// A stable hash of (account, idempotency key), where the account is the one that owns the entry. Its first 14 bits are those of
/// the account's XXH3-64, so that it tells the slot and with it the core that the key belongs to; the other 50 are those of the
/// key's XXH3-64, seeded with the account's. Whoever finds something under it confirms that by the entry itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl KeyId {
    /// The name of this key of this account.
    pub fn of(owner: Account<'_>, key: Key<'_>) -> Self {
        let account = xxh3_64(owner.as_bytes());
        let rest = u64::MAX >> SLOT_BITS;
        Self(account & !rest | xxh3_64_with_seed(key.as_bytes(), account) >> SLOT_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_with_the_slot_and_tells_accounts_and_keys_apart() {
        let id = |account: &str, key: &str| KeyId::of(Account::new(account).unwrap(), Key::new(key).unwrap());
        assert_eq!(id("acct:a", "k").0 >> 50, xxh3_64(b"acct:a") >> 50);
        let mut ids: Vec<_> = (0..10_000).map(|n| id(&format!("a{}", n % 100), &format!("k{}", n / 100))).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 10_000);
    }
}
