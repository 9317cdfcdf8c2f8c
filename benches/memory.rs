//! Bytes of memory per account and per remembered idempotency key, as the kernel counts resident memory.
//!
//! Fills a slice through the same replay that a start uses, first with issues whose keys are too old to be remembered, then with
//! spends whose keys are remembered, and divides the growth by the number. Run: `cargo bench --bench memory`.
use svc_wallet::domain::{Account, Amount, Asset, Draft, Entry, Key, Nonce, Op, Seq, TokenId, UnixMs};
use svc_wallet::shard::{Budgets, Settings, Shard};

/// Accounts and keys of a full run, and of the quick run that tests make.
const FULL: u64 = 1_000_000;
const QUICK: u64 = 50_000;

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells how much memory a process has");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("the roll-up has a line for resident memory");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("it is a number of KiB");
    kib * 1024
}

fn main() {
    // `cargo test` runs benchmarks without `--bench`, `cargo bench` with it, and `cargo bench -- --test` with both.
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let quick = has("--test") || !has("--bench");
    let count = if quick { QUICK } else { FULL };
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1000, keys_max: 1 << 30 };
    let mut shard = Shard::new(settings, Budgets::default());
    let mut bytes = Vec::new();
    let now = UnixMs(1_000_000);

    let empty = resident_bytes();
    for number in 0..count {
        let name = format!("account:{number:08}");
        apply(&mut shard, &mut bytes, Op::Issue, None, &name, number, UnixMs(1), now);
    }
    let with_accounts = resident_bytes();
    for number in 0..count {
        let from = format!("account:{number:08}");
        let to = format!("account:{:08}", (number + 1) % count);
        apply(&mut shard, &mut bytes, Op::Transfer, Some(&from), &to, count + number, now, now);
    }
    let with_keys = resident_bytes();
    let figures = shard.figures();
    assert_eq!((figures.accounts as u64, figures.keys as u64), (count, count));
    println!("accounts: {count}, names of 16 bytes: {} bytes each", (with_accounts - empty) / count);
    println!("remembered keys: {count}: {} bytes each", (with_keys - with_accounts) / count);
}

#[allow(clippy::too_many_arguments)] // One entry, field by field.
fn apply(shard: &mut Shard, bytes: &mut Vec<u8>, op: Op, from: Option<&str>, to: &str, number: u64, ts: UnixMs, now: UnixMs) {
    let key = format!("key-{number}");
    let draft = Draft {
        op,
        from: from.and_then(Account::new),
        to: Account::new(to),
        asset: Asset::new("roc").expect("a well-formed asset"),
        amount: Amount::new(1).expect("not zero"),
        nonce: from.map(|_| Nonce(1)),
        key: Key::new(&key).expect("a well-formed key"),
        memo: None,
        corr: "",
        token: TokenId::default(),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts,
    };
    bytes.clear();
    draft.encode(bytes);
    let entry = Entry::parse(bytes).expect("just encoded").0;
    shard.replay(&entry, Seq(number + 1), now).expect("a possible history");
    shard.credit(&entry, Seq(number + 1));
}
