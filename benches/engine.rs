//! What a core spends on one spend inside the engine: decide, reserve, encode into the lane, settle, credit. And what the history
//! spends beside it: on a batch that it follows, and on a proof.
#![allow(missing_docs)] // criterion_group makes a public function.
use criterion::{criterion_group, criterion_main, BatchSize, Criterion};
use std::time::{Duration, Instant};
use svc_wallet::domain::{
    Account, Allowance, Amount, Asset, CoreId, Draft, Durable, Entry, HistoryAnswer, HistoryQuestion, Key, LaneBatch, LogId,
    Nonce, Op, Seq, TokenId, UnixMs,
};
use svc_wallet::engine::{Engine, Gate, Outcome, Output, Repeat, Request, Ticket};
use svc_wallet::ledger::history::HISTORY_NAME;
use svc_wallet::ledger::{Log, MemoryStorage, Options, Storage};
use svc_wallet::ring::Ring;
use svc_wallet::shard::{Budgets, Settings};

/// Spends that one ledger batch carries, as under load.
const BATCH: u64 = 64;

/// Counts receipts, and keeps what the ledger is asked: keys that look like forgotten ones.
#[derive(Default)]
struct Receipts(u64, Vec<Repeat>);

impl Output for Receipts {
    fn reply(&mut self, _: Ticket, outcome: Outcome<'_>) {
        assert!(matches!(outcome, Outcome::Receipt { .. }), "{outcome:?}");
        self.0 += 1;
    }

    fn ask(&mut self, repeat: Repeat) -> Result<(), Repeat> {
        self.1.push(repeat);
        Ok(())
    }
}

fn entry(op: Op, from: Option<&str>, to: &str, amount: u128, nonce: u64, key: &str) -> Vec<u8> {
    entry_under(false, op, from, to, amount, nonce, key)
}

/// Under a budget or not.
fn entry_under(budget: bool, op: Op, from: Option<&str>, to: &str, amount: u128, nonce: u64, key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let draft = Draft {
        op,
        from: from.and_then(Account::new),
        to: Account::new(to),
        asset: Asset::new("roc").expect("a well-formed asset"),
        amount: Amount::new(amount).expect("not zero"),
        nonce: from.map(|_| Nonce(nonce)),
        key: Key::new(key).expect("a well-formed key"),
        memo: None,
        corr: "0123456789abcdef",
        token: TokenId::default(),
        ceiling: false,
        budget,
        daily_max: false,
        ts: UnixMs(1_000),
    };
    draft.encode(&mut bytes);
    bytes
}

fn commit(engine: &mut Engine, seq: &mut u64, out: &mut Receipts) {
    for mistaken in std::mem::take(&mut out.1) {
        engine.answered(mistaken, None, Gate::Open, out);
    }
    while let Some(batch) = engine.take_batch() {
        let first_seq = Seq(*seq);
        *seq += u64::from(batch.count);
        engine.committed(Durable { batch, first_seq, root: [0; 32] }, out);
    }
}

/// Spends of a capability without a budget, and of one with it, whose sum all cores share.
fn spends(criterion: &mut Criterion) {
    let under_a_budget = Allowance { budget: Amount::new(u128::MAX), ..Allowance::default() };
    let name = "engine: 64 spends decided and settled";
    for (name, allowance) in [(name, Allowance::default()), ("engine: 64 spends under a budget", under_a_budget)] {
        let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1 << 30, keys_max: 1 << 20 };
        let mut engine = Engine::new(CoreId(0), Ring::new(1), settings, &Budgets::default());
        let ticket = Ticket { core: CoreId(0), connection: 0, generation: 0, request: 0 };
        let (mut seq, mut nonce, mut out) = (1, 0, Receipts::default());
        let issue = entry(Op::Issue, None, "account:payer", 1 << 100, 0, "issue");
        let issue = Entry::parse(&issue).expect("just encoded").0;
        engine.submit(ticket, Request::Write { entry: issue, allowance: Allowance::default() }, Gate::Open, &mut out);
        commit(&mut engine, &mut seq, &mut out);
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let first = nonce + 1;
                    nonce += BATCH;
                    let budget = allowance.budget.is_some();
                    let spend = |number| {
                        let key = format!("k{number}");
                        entry_under(budget, Op::Transfer, Some("account:payer"), "account:payee", 1, number, &key)
                    };
                    (first..first + BATCH).map(spend).collect::<Vec<_>>()
                },
                |entries| {
                    for bytes in &entries {
                        let entry = Entry::parse(bytes).expect("just encoded").0;
                        engine.submit(ticket, Request::Write { entry, allowance }, Gate::Open, &mut out);
                    }
                    commit(&mut engine, &mut seq, &mut out);
                },
                BatchSize::PerIteration,
            );
        });
        assert_eq!(out.0, nonce + 1, "every spend was answered with a receipt");
    }
}

/// Accounts of a slice that is larger than the caches.
const ACCOUNTS: u64 = 200_000;
/// Spends that are read from one pipelined connection at once.
const READ: usize = 16;

/// The same among many accounts, where the time goes into waiting for memory, unless the engine is told what comes.
fn many_accounts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine: 64 spends among 200,000 accounts");
    for expected in [false, true] {
        let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1 << 30, keys_max: 1 << 20 };
        let mut engine = Engine::new(CoreId(0), Ring::new(1), settings, &Budgets::default());
        let ticket = Ticket { core: CoreId(0), connection: 0, generation: 0, request: 0 };
        let (mut seq, mut made, mut out) = (1, 0u64, Receipts::default());
        let name = |number: u64| format!("load:{:08}", number % ACCOUNTS);
        for number in 0..ACCOUNTS {
            let issue = entry(Op::Issue, None, &name(number), 1 << 40, 0, &format!("i{number}"));
            let issue = Entry::parse(&issue).expect("just encoded").0;
            engine.submit(ticket, Request::Write { entry: issue, allowance: Allowance::default() }, Gate::Open, &mut out);
            commit(&mut engine, &mut seq, &mut out);
        }
        group.bench_function(if expected { "expected" } else { "not expected" }, |bencher| {
            bencher.iter_batched(
                || {
                    let first = made;
                    made += BATCH;
                    let spend = |number: u64| {
                        // Each account pays in its turn, in an order that no prefetcher guesses.
                        let from = name(number.wrapping_mul(7_368_787) % ACCOUNTS);
                        let to = name(number.wrapping_mul(9_973_331) % ACCOUNTS + 1);
                        let to = if to == from { name(0) + "x" } else { to };
                        entry(Op::Transfer, Some(&from), &to, 1, number / ACCOUNTS + 1, &format!("k{number}"))
                    };
                    (first..first + BATCH).map(spend).collect::<Vec<_>>()
                },
                |entries| {
                    for read in entries.chunks(READ) {
                        let parsed = || read.iter().map(|bytes| Entry::parse_own(bytes).0);
                        if expected {
                            engine.expect(parsed());
                        }
                        for entry in parsed() {
                            engine.submit(
                                ticket,
                                Request::Write { entry, allowance: Allowance::default() },
                                Gate::Open,
                                &mut out,
                            );
                        }
                    }
                    commit(&mut engine, &mut seq, &mut out);
                },
                BatchSize::PerIteration,
            );
        });
        assert_eq!(out.0, made + ACCOUNTS, "every spend was answered with a receipt");
    }
}

/// Batches of 200 entries on a disk in memory, so that the disk is not measured.
fn history(criterion: &mut Criterion) {
    const BATCHES: u64 = 300;
    const ENTRIES: u64 = 200;
    let storage = MemoryStorage::new();
    let options = Options::for_simulation(64 << 20, LogId([1; 16]));
    let (mut log, _) = Log::open(storage.clone(), &options, &mut |_, _, _| Ok(())).expect("an empty disk");
    for batch in 0..BATCHES {
        let bytes = (0..ENTRIES)
            .flat_map(|number| {
                let nonce = batch * ENTRIES + number + 1;
                entry(Op::Transfer, Some("account:payer"), "account:payee", 1, nonce, &format!("key-{nonce}"))
            })
            .collect();
        let lane_first = batch * ENTRIES + 1;
        log.append(&[LaneBatch { lane: 0, lane_first, count: ENTRIES as u32, bytes }]).expect("room");
    }
    let mut group = criterion.benchmark_group("history");
    group.bench_function("follow a batch of 200 entries", |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut spent, mut left) = (Duration::ZERO, iterations);
            while left > 0 {
                // Anew, from the first batch on; without the first, which makes the file.
                let _ = storage.remove(HISTORY_NAME);
                let reader = log.reader();
                reader.advance_history(1).expect("a sound log");
                let steps = left.min(BATCHES - 1);
                let started = Instant::now();
                for _ in 0..steps {
                    reader.advance_history(1).expect("a sound log");
                }
                spent += started.elapsed();
                assert_eq!(reader.history_peaks().0.size(), steps + 1);
                left -= steps;
            }
            spent
        });
    });
    let reader = log.reader();
    while reader.advance_history(u64::MAX).expect("a sound log") {}
    let mut seq = 0;
    group.bench_function("prove an entry of 300 batches", |bencher| {
        bencher.iter(|| {
            seq = (seq + 7_919) % (BATCHES * ENTRIES);
            let answer = reader.history(&HistoryQuestion::Proof { seq: Seq(seq + 1), size: None }).expect("a sound log");
            assert!(matches!(answer, HistoryAnswer::Proof(_, Ok(_))));
        });
    });
    group.finish();
}

criterion_group!(benches, spends, many_accounts, history);
criterion_main!(benches);
