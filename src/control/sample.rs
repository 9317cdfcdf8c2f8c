//! Ledgers, snapshots and slices for the tests of the start.
use crate::domain::{Account, Amount, Asset, CoreId, Draft, Key, LaneBatch, LogId, Op, TokenId, UnixMs};
use crate::engine::Engine;
use crate::ledger::{Auditor, Log, MemoryStorage, Options, Schedule};
use crate::ring::Ring;
use crate::shard::{Budgets, Settings};
use std::ops::Range;
use std::time::Duration;

/// When everything happens.
pub(super) const NOW: UnixMs = UnixMs(1_700_000_000_000);

pub(crate) fn options() -> Options {
    Options::for_simulation(8 << 20, LogId([7; 16]))
}

/// The entries of so many issues to one of seven accounts, each with a key of its number.
pub(super) fn issues(numbers: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let (key, account) = (format!("k-{number}"), format!("account-{}", number % 7));
        let draft = Draft {
            op: Op::Issue,
            from: None,
            to: Some(Account::new(&account).unwrap()),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(1).unwrap(),
            nonce: None,
            key: Key::new(&key).unwrap(),
            memo: None,
            corr: "corr",
            token: TokenId([4; 16]),
            ceiling: false,
            budget: false,
            daily_max: false,
            ts: NOW,
        };
        draft.encode(&mut bytes);
    }
    bytes
}

/// A ledger of so many batches of 1024 issues.
pub(crate) fn ledger(batches: u64) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (mut log, _) = Log::open(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
    for batch in 0..batches {
        let lane_first = batch * 1024 + 1;
        let bytes = issues(lane_first..lane_first + 1024);
        log.append(&[LaneBatch { lane: 0, lane_first, count: 1024, bytes }]).unwrap();
    }
    log.close().unwrap();
    storage
}

/// Takes a snapshot after the last entry.
pub(crate) fn snapshot_of(log: &Log<MemoryStorage>) {
    let day = Duration::from_secs(86_400);
    let schedule = Schedule { every: day, entries: u64::MAX, keys_ttl: day, look_every: day };
    Auditor::spawn(&log.reader(), None, schedule, None).unwrap().close();
}

/// So many empty slices, which remember keys for a second.
pub(super) fn slices(cores: u16) -> Vec<Engine> {
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1_000, keys_max: 1 << 20 };
    let budgets = Budgets::default();
    (0..cores).map(|core| Engine::new(CoreId(core), Ring::new(cores), settings, &budgets)).collect()
}

/// What they hold, and how many keys they remember.
pub(super) fn state(engines: &[Engine]) -> (Vec<String>, usize) {
    let mut balances = Vec::new();
    for engine in engines {
        engine.shard().for_each_balance(|account, asset, balance, nonce| {
            balances.push(format!("{account} {asset} {} {} {}", balance.amount, balance.held, nonce.0));
        });
    }
    balances.sort();
    (balances, engines.iter().map(|engine| engine.shard().figures().keys).sum())
}
