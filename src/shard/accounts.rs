//! The accounts of one slice: names, nonces and balances, found by name, addressed by a small index.
//!
//! Names are stored once. The table is split into parts by hash, so that growing rehashes one part at a time, and records
//! live in chunks that never move, so that memory grows by a chunk and not by doubling. Nothing is ever removed.
use super::parts::Parts;
use crate::domain::Account;
use ahash::RandomState;

/// Records that are allocated together.
const CHUNK: usize = 1024;

/// Index of an account within its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountIx(u32);

/// Index of an asset within a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AssetIx(pub(super) u16);

/// Free value of one account in one asset, in minor units. Invariant: `available <= settled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Value that is durable.
    pub settled: u128,
    /// What of it no debit has reserved.
    pub available: u128,
}

/// Longest name that is kept in its record; a longer one has memory of its own.
const INLINE_BYTES: usize = 30;

/// An account's name. Most are short and lie beside the balances, so that comparing them costs no look elsewhere in memory.
#[derive(Debug)]
enum Name {
    Inline(u8, [u8; INLINE_BYTES]),
    Long(Box<[u8]>),
}

impl Name {
    fn new(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_BYTES {
            return Self::Long(bytes.into());
        }
        let mut inline = [0; INLINE_BYTES];
        inline[..bytes.len()].copy_from_slice(bytes);
        Self::Inline(bytes.len() as u8, inline)
    }

    fn len(&self) -> usize {
        match self {
            Self::Inline(length, _) => usize::from(*length),
            Self::Long(bytes) => bytes.len(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// One account. It fills two cache lines that the processor fetches together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Record {
    name: Name,
    /// Nonce of the last durable debit.
    pub confirmed: u64,
    /// Nonce of the last debit that was let through, durable or being committed. Invariant: `confirmed <= reserved`.
    pub reserved: u64,
    first_asset: Option<AssetIx>,
    first: Holding,
    /// Further assets; most accounts have one.
    #[allow(clippy::box_collection)] // A bare vector would make every record a cache line larger.
    more: Option<Box<Vec<(AssetIx, Holding)>>>,
}

impl Record {
    /// The account's name.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.name.as_bytes()).expect("a name is kept as it was given")
    }

    /// The free value in an asset; zero for one never seen.
    pub fn holding(&self, asset: AssetIx) -> Holding {
        if self.first_asset == Some(asset) {
            return self.first;
        }
        let more = self.more.iter().flat_map(|more| more.iter());
        more.into_iter().find(|(other, _)| *other == asset).map_or_else(Holding::default, |(_, holding)| *holding)
    }

    /// The free value in every asset in which there ever was some.
    pub fn holdings(&self) -> impl Iterator<Item = (AssetIx, Holding)> + '_ {
        let more = self.more.iter().flat_map(|more| more.iter().copied());
        self.first_asset.map(|asset| (asset, self.first)).into_iter().chain(more)
    }

    /// The free value in an asset, to be changed.
    pub fn holding_mut(&mut self, asset: AssetIx) -> &mut Holding {
        if self.first_asset.is_none() {
            self.first_asset = Some(asset);
        }
        if self.first_asset == Some(asset) {
            return &mut self.first;
        }
        let more = self.more.get_or_insert_with(Default::default);
        let index = match more.iter().position(|(other, _)| *other == asset) {
            Some(index) => index,
            None => {
                more.push((asset, Holding::default()));
                more.len() - 1
            }
        };
        &mut more[index].1
    }
}

/// All accounts of a slice.
pub struct Accounts {
    hasher: RandomState,
    parts: Parts<AccountIx>,
    chunks: Vec<Vec<Record>>,
    count: usize,
}

impl Accounts {
    /// No accounts; `hasher` is keyed at random by the caller, so that nobody can choose colliding names.
    pub fn new(hasher: RandomState) -> Self {
        Self { hasher, parts: Parts::new(), chunks: Vec::new(), count: 0 }
    }

    /// How many accounts there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The index of an account that has been seen before.
    pub fn find(&self, name: Account<'_>) -> Option<AccountIx> {
        self.find_hashed(self.hash(name.as_bytes()), name.as_bytes())
    }

    fn find_hashed(&self, hash: u64, name: &[u8]) -> Option<AccountIx> {
        self.parts.of(hash).find(hash, |ix| self.get(*ix).name.as_bytes() == name).copied()
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Touches what [`Accounts::find`] will look at for these names, all of them side by side: the processor then waits for memory
    /// once and not for one name after the other. Nothing else comes of it.
    pub fn touch<'n>(&self, names: impl Iterator<Item = Account<'n>>, scratch: &mut Vec<u64>) {
        scratch.clear();
        scratch.extend(names.map(|name| self.hash(name.as_bytes())));
        // Without a look at the name, so that no step waits for the one before; the rare wrong record costs nothing. Table first and
        // records then, because each is one short loop of looks that the processor can do side by side.
        let none = u64::from(u32::MAX);
        for hash in scratch.iter_mut() {
            *hash = self.parts.of(*hash).find(*hash, |_| true).map_or(none, |ix| u64::from(ix.0));
        }
        self.touch_records(scratch.iter().filter(|ix| **ix != none).map(|ix| AccountIx(*ix as u32)));
    }

    /// As [`Accounts::touch`], for accounts that have been found before.
    pub fn touch_records(&self, accounts: impl Iterator<Item = AccountIx>) {
        // A field of each cache line at least.
        let fields = |record: &Record| record.confirmed ^ record.first.settled as u64 ^ record.name.len() as u64;
        let touched = accounts.map(|ix| fields(self.get(ix))).fold(0, |all, fields| all ^ fields);
        std::hint::black_box(touched);
    }

    /// The index of an account, which is created with nothing on it if it was never seen.
    pub fn find_or_create(&mut self, name: Account<'_>) -> AccountIx {
        let name = name.as_bytes();
        let hash = self.hash(name);
        if let Some(found) = self.find_hashed(hash, name) {
            return found;
        }
        let ix = AccountIx(u32::try_from(self.count).expect("a slice holds fewer than 2^32 accounts"));
        if self.count % CHUNK == 0 {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let record =
            Record { name: Name::new(name), confirmed: 0, reserved: 0, first_asset: None, first: Holding::default(), more: None };
        self.chunks.last_mut().expect("a chunk was just made or has room").push(record);
        self.count += 1;
        let Self { hasher, parts, chunks, .. } = self;
        parts.of_mut(hash).insert_unique(hash, ix, |ix| hasher.hash_one(record_of(chunks, *ix).name.as_bytes()));
        ix
    }

    /// Makes room for so many more accounts, so that adding them does not stop to make it bit by bit.
    pub fn reserve(&mut self, more: usize) {
        let Self { hasher, parts, chunks, .. } = self;
        parts.reserve(more, |ix| hasher.hash_one(record_of(chunks, *ix).name.as_bytes()));
    }

    /// The record of an index that this table gave out.
    pub fn get(&self, ix: AccountIx) -> &Record {
        record_of(&self.chunks, ix)
    }

    /// The record of an index that this table gave out, to be changed.
    pub fn get_mut(&mut self, ix: AccountIx) -> &mut Record {
        &mut self.chunks[ix.0 as usize / CHUNK][ix.0 as usize % CHUNK]
    }

    /// All accounts, in the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.chunks.iter().flatten()
    }
}

fn record_of(chunks: &[Vec<Record>], ix: AccountIx) -> &Record {
    &chunks[ix.0 as usize / CHUNK][ix.0 as usize % CHUNK]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Account<'_> {
        Account::new(name).unwrap()
    }

    #[test]
    fn names_lead_to_the_same_record_however_many_there_are() {
        let mut accounts = Accounts::new(RandomState::with_seeds(1, 2, 3, 4));
        let indices: Vec<_> = (0..5000).map(|n| accounts.find_or_create(named(&format!("a{n}")))).collect();
        assert_eq!(accounts.len(), 5000);
        for (n, ix) in indices.iter().enumerate() {
            assert_eq!(accounts.find(named(&format!("a{n}"))), Some(*ix));
            assert_eq!(accounts.get(*ix).name(), format!("a{n}"));
        }
        assert_eq!(accounts.find(named("a5000")), None);
        let long = "x".repeat(INLINE_BYTES + 1);
        let ix = accounts.find_or_create(named(&long));
        assert_eq!((accounts.find(named(&long)), accounts.get(ix).name()), (Some(ix), long.as_str()));
        assert_eq!(accounts.find(named(&long[1..])), None);
    }

    #[test]
    fn names_that_meet_under_one_key_are_spread_under_another() {
        // What somebody could choose who knew the key: names that all come to one place in 4096.
        let place = |hasher: &RandomState, name: &str| hasher.hash_one(name.as_bytes()) >> 52;
        let known = RandomState::with_seeds(1, 2, 3, 4);
        let chosen: Vec<String> =
            (0..).map(|number| format!("acct:{number}")).filter(|name| place(&known, name) == 7).take(64).collect();
        for seed in 0..8 {
            let other = RandomState::with_seeds(5, 6, 7, seed);
            let places: std::collections::BTreeSet<u64> = chosen.iter().map(|name| place(&other, name)).collect();
            assert!(places.len() > 48, "64 chosen names come to {} places under seed {seed}", places.len());
        }
    }

    #[test]
    fn assets_do_not_mix() {
        let mut accounts = Accounts::new(RandomState::with_seeds(1, 2, 3, 4));
        let ix = accounts.find_or_create(named("a"));
        for asset in 0..3 {
            accounts.get_mut(ix).holding_mut(AssetIx(asset)).settled = 10 + u128::from(asset);
        }
        let settled: Vec<u128> = (0..4).map(|asset| accounts.get(ix).holding(AssetIx(asset)).settled).collect();
        assert_eq!(settled, [10, 11, 12, 0]);
    }

    #[test]
    fn a_record_stays_small() {
        assert_eq!(std::mem::size_of::<Record>(), 128);
    }
}
