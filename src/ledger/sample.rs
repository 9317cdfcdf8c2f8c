//! Well-formed entries and lane batches for the tests of the ledger.
use super::{LedgerError, Log, MemoryStorage, Options, Recovery, Storage};
use crate::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, LogId, Nonce, Op, Seq, TokenId, UnixMs};

/// A draft with the given operation and accounts; everything else is ordinary.
pub(super) fn draft<'a>(op: Op, from: &'a str, to: &'a str, amount: u128, nonce: u64) -> Draft<'a> {
    Draft {
        op,
        from: op.debits().then(|| Account::new(from).expect("a valid sample")),
        to: op.credits().then(|| Account::new(to).expect("a valid sample")),
        asset: Asset::new("roc").expect("a valid sample"),
        amount: Amount::new(amount).expect("a valid sample"),
        nonce: op.debits().then_some(Nonce(nonce)),
        key: Key::new("key-1").expect("a valid sample"),
        memo: None,
        corr: "corr",
        token: TokenId([4; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(1_700_000_000_000),
    }
}

/// The encoded form of [`draft`], with a key of its own for each nonce.
pub(super) fn entry(op: Op, from: &str, to: &str, amount: u128, nonce: u64) -> Vec<u8> {
    let (mut bytes, key) = (Vec::new(), format!("key-{}", nonce + 1));
    Draft { key: Key::new(&key).expect("a valid sample"), ..draft(op, from, to, amount, nonce) }.encode(&mut bytes);
    bytes
}

/// A lane batch whose entries, issues first to last, are told apart by lane and number: entry `n` of lane `l` issues `n` to `l<l>/<n>`.
pub(super) fn lane_batch(lane: u16, lane_first: u64, count: u32) -> LaneBatch {
    let mut bytes = Vec::new();
    for number in lane_first..lane_first + u64::from(count) {
        bytes.extend(entry(Op::Issue, "", &format!("l{lane}/{number}"), u128::from(number), 0));
    }
    LaneBatch { lane, lane_first, count, bytes }
}

/// A lane batch of these entries.
pub(super) fn lane_batch_of(lane: u16, lane_first: u64, entries: &[Vec<u8>]) -> LaneBatch {
    LaneBatch { lane, lane_first, count: entries.len() as u32, bytes: entries.concat() }
}

/// A lane batch in which `account`, funded before, sends 1 to `payee` with each of these nonces.
pub(super) fn spends(lane: u16, lane_first: u64, account: &str, nonces: std::ops::Range<u64>) -> LaneBatch {
    let entries: Vec<_> = nonces.map(|nonce| entry(Op::Transfer, account, "payee", 1, nonce)).collect();
    lane_batch_of(lane, lane_first, &entries)
}

/// An opened log, what was found, and the bytes of every entry.
pub(super) type Opened<S = MemoryStorage> = (Log<S>, Recovery, Vec<Vec<u8>>);

/// Opens a log in memory with segments of this size; returns it with what was found and every entry's bytes.
pub(super) fn open<S: Storage>(storage: &S, segment_bytes: u64) -> Result<Opened<S>, LedgerError> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let options = Options::for_simulation(segment_bytes, LogId([7; 16]));
    let (log, recovery) = Log::open(storage.clone(), &options, &mut |seq, _, entry| {
        assert_eq!(seq, Seq(entries.len() as u64 + 1));
        entries.push(entry.bytes().to_vec());
        Ok(())
    })?;
    assert_eq!((recovery.entries, recovery.head), (entries.len() as u64, Seq(entries.len() as u64)));
    Ok((log, recovery, entries))
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}
