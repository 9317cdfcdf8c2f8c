//! Entries per second that `ronctl ledger verify` replays, by the clock and by the time that its thread was given.
//!
//! Writes a ledger of issues and spends to a temporary directory, as a server would under load, and verifies it some times over.
//! The figure of the thread's own time holds on a machine that does other things as well. Run: `cargo bench --bench verify`;
//! `--entries N`, `--accounts N` and `--batch N` (entries in one commit) behind `--` change the ledger, `--keep DIR` leaves it there,
//! `--rounds N` tells how often, and with `--at-least N` a median of the thread's own figures below that ends with exit code 1.
use std::path::{Path, PathBuf};
use std::time::Instant;

use svc_wallet::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, Nonce, Op, TokenId, UnixMs};
use svc_wallet::ledger::{verify_directory, DiskStorage, Log, Options};

/// Size of a segment, in bytes.
const SEGMENT_BYTES: u64 = 64 << 20;
/// How often the ledger is verified; the first time also brings it into the cache of the system.
const ROUNDS: u64 = 4;

/// What is written.
struct Plan {
    entries: u64,
    accounts: u64,
    batch: u64,
    rounds: usize,
    keep: Option<PathBuf>,
    at_least: u64,
}

impl Plan {
    fn of_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        // `cargo test` runs benchmarks without this flag, `cargo bench` with it, and `cargo bench -- --test` with both.
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let quick = has("--test") || !has("--bench");
        let given = |name: &str| arguments.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
        let number = |name: &str, otherwise: u64| given(name).map_or(otherwise, |text| text.parse().expect("a whole number"));
        let (entries, accounts) = if quick { (20_000, 1_000) } else { (4_000_000, 100_000) };
        Self {
            entries: number("--entries", entries),
            accounts: number("--accounts", accounts),
            batch: number("--batch", 200),
            rounds: number("--rounds", if quick { 1 } else { ROUNDS }).max(1) as usize,
            keep: given("--keep").map(PathBuf::from),
            at_least: number("--at-least", 0),
        }
    }
}

/// Nanoseconds for which this thread was on a CPU, in user space and in the kernel.
fn on_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells how long a thread ran");
    text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("the first number is nanoseconds")
}

/// The accounts are funded in their turn, then each pays in its turn, in an order that no prefetcher guesses.
fn encode(bytes: &mut Vec<u8>, number: u64, plan: &Plan) {
    let name = |number: u64| format!("account:{:08}", number % plan.accounts);
    let (op, from, to, amount) = if number < plan.accounts {
        (Op::Issue, None, name(number), 1 << 60)
    } else {
        let from = number.wrapping_mul(7_368_787) % plan.accounts;
        let to = (from + 1 + number.wrapping_mul(9_973_331) % (plan.accounts - 1)) % plan.accounts;
        (Op::Transfer, Some(name(from)), name(to), 25)
    };
    let key = format!("key-{number:012}");
    let draft = Draft {
        op,
        from: from.as_deref().and_then(Account::new),
        to: Account::new(&to),
        asset: Asset::new("roc").expect("a well-formed asset"),
        amount: Amount::new(amount).expect("not zero"),
        nonce: from.is_some().then_some(Nonce(number / plan.accounts)),
        key: Key::new(&key).expect("a well-formed key"),
        memo: None,
        corr: "0123456789abcdef",
        token: TokenId([7; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(1_700_000_000_000 + number / 200),
    };
    draft.encode(bytes);
}

fn write(directory: &Path, plan: &Plan) {
    let storage = DiskStorage::create(directory).expect("a directory for the ledger");
    let (mut log, recovery) =
        Log::open(storage, &Options::new(SEGMENT_BYTES), &mut |_, _, _| Ok(())).expect("a ledger that can be opened");
    let mut written = recovery.entries;
    while written < plan.entries {
        let count = plan.batch.min(plan.entries - written);
        let mut bytes = Vec::new();
        (written..written + count).for_each(|number| encode(&mut bytes, number, plan));
        let part = LaneBatch { lane: 0, lane_first: written + 1, count: count as u32, bytes };
        log.append(&[part]).expect("room on the disk");
        written += count;
    }
    log.close().expect("room on the disk");
}

fn main() {
    let plan = Plan::of_arguments();
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let directory = plan.keep.clone().unwrap_or_else(|| temporary.path().join("ledger"));
    write(&directory, &plan);
    let mut rates = Vec::new();
    for round in 1..=plan.rounds {
        let (started, ran) = (Instant::now(), on_cpu_ns());
        let report = verify_directory(&directory, &mut |_| ()).expect("a ledger that keeps all its promises");
        let (elapsed, on_cpu) = (started.elapsed(), on_cpu_ns() - ran);
        assert_eq!((report.here.entries, report.accounts), (plan.entries, plan.accounts.min(plan.entries)));
        let per_second = |ns: u128| u128::from(plan.entries) * 1_000_000_000 / ns.max(1);
        rates.push(per_second(u128::from(on_cpu)) as u64);
        println!(
            "verify, round {round}: {} entries, {} accounts, {} per commit: {} per second by the clock, {} per second of its thread",
            plan.entries,
            plan.accounts,
            plan.batch,
            per_second(elapsed.as_nanos()),
            per_second(u128::from(on_cpu))
        );
    }
    rates.sort_unstable();
    let (median, least, most) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    println!("verify: {median} per second of its thread (median of {}; {least} to {most})", rates.len());
    if median < plan.at_least {
        println!("FLOOR: {median} per second are below the floor of {}", plan.at_least);
        std::process::exit(1);
    }
}
