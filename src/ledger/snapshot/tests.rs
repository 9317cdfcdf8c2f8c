//! Snapshots made one from the other over random histories are those made at once, and what was damaged is never believed.
use super::*;
use crate::domain::{AccountState, Entry, LogId, Op, Seq, TokenId, UnixMs};
use crate::ledger::history::Peaks;
use crate::ledger::memory::{Faults, MemoryStorage, SyncFault};
use crate::ledger::places::Place;
use crate::ledger::sample::{draft, Dice};
use crate::ledger::storage::{ReadFile, Storage, StorageFile};
use ahash::RandomState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const LOG: LogId = LogId([7; 16]);

fn tail(base: Option<&Snapshot<<MemoryStorage as Storage>::File>>) -> Tail {
    let hasher = RandomState::with_seed(1);
    match base {
        Some(base) => Tail::new(base.head().seq, base.head().newest, base.front().assets.clone(), hasher),
        None => Tail::new(Seq(0), UnixMs(0), Vec::new(), hasher),
    }
}

fn cut() -> Cut {
    let last_batch = Place { segment: 1, offset: 8192, first_seq: Seq(1) };
    Cut { last_batch, root: [9; 32], epoch: 3, batches: 1, peaks: Peaks::new(1, vec![[4; 32]]), ..Cut::beginning(LOG) }
}

fn snapshot(
    storage: &MemoryStorage,
    base: Option<&Snapshot<<MemoryStorage as Storage>::File>>,
    tail: &Tail,
) -> Result<Snapshot<<MemoryStorage as Storage>::File>, SnapshotError> {
    make::<_, MemoryStorage>(storage, &snapshot_name(tail.through()), base, tail, &cut(), None)
}

/// A correct history: value is issued, moved, held, captured, released and burned, now and then under a daily ceiling or a budget.
fn history(seed: u64, entries: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice(seed);
    let mut free: BTreeMap<String, u128> = BTreeMap::new();
    let mut held: BTreeMap<String, (u128, String)> = BTreeMap::new();
    let mut nonces: BTreeMap<String, u64> = BTreeMap::new();
    let mut made = Vec::new();
    let mut now = 1_700_000_000_000;
    while made.len() < entries {
        now += dice.below(20_000_000);
        let from = format!("a{}", dice.below(12));
        let to = format!("b{}", dice.below(12));
        let escrow = format!("escrow:{}", dice.below(5));
        let (op, debited, credited) = match dice.below(8) {
            0 => (Op::Issue, String::new(), from.clone()),
            1 => (Op::Burn, from.clone(), String::new()),
            2 => (Op::Hold, from.clone(), escrow.clone()),
            3 => (Op::Capture, escrow.clone(), to.clone()),
            4 => (Op::Release, escrow.clone(), held.get(&escrow).map_or(from.clone(), |(_, payer)| payer.clone())),
            _ => (Op::Transfer, from.clone(), to.clone()),
        };
        let room = match op {
            Op::Issue => 1000,
            Op::Capture | Op::Release => held.get(&escrow).map_or(0, |(held, _)| *held),
            Op::Burn | Op::Hold | Op::Transfer => free.get(&debited).copied().unwrap_or(0),
        };
        if room == 0 {
            continue;
        }
        let amount = 1 + u128::from(dice.roll()) % room;
        let nonce = nonces.entry(debited.clone()).or_default();
        *nonce += u64::from(op.debits());
        let mut draft = draft(op, &debited, &credited, amount, *nonce);
        (draft.ts, draft.ceiling) = (UnixMs(now), op.debits() && dice.below(3) == 0);
        (draft.token, draft.budget) = (TokenId([dice.below(7) as u8; 16]), op.debits() && dice.below(3) == 0);
        let mut bytes = Vec::new();
        draft.encode(&mut bytes);
        made.push(bytes);
        match op {
            Op::Capture | Op::Release => held.get_mut(&escrow).unwrap().0 -= amount,
            Op::Burn | Op::Hold | Op::Transfer => *free.get_mut(&debited).unwrap() -= amount,
            Op::Issue => {}
        }
        match op {
            Op::Hold => held.entry(credited).or_insert((0, debited)).0 += amount,
            Op::Burn => {}
            Op::Issue | Op::Transfer | Op::Capture | Op::Release => *free.entry(credited).or_default() += amount,
        }
    }
    made
}

fn apply(tail: &mut Tail, entries: &[Vec<u8>]) {
    for bytes in entries {
        let seq = Seq(tail.through().0 + 1);
        tail.apply(seq, &Entry::parse(bytes).unwrap().0).unwrap();
    }
}

fn states(snapshot: &Snapshot<impl StorageFile>) -> Vec<String> {
    let mut states = Vec::new();
    let mut note = |state: &AccountState<'_>| {
        states.push(format!("{state:?}"));
        Ok(())
    };
    snapshot.for_each_account(&mut note).unwrap();
    states
}

fn budgets(snapshot: &Snapshot<impl StorageFile>) -> Result<Vec<(TokenId, u128)>, SnapshotFault> {
    let mut budgets = Vec::new();
    let mut note = |token, spent| {
        budgets.push((token, spent));
        Ok(())
    };
    snapshot.for_each_budget(&mut note)?;
    Ok(budgets)
}

/// What entries debit under budgets.
fn debited(entries: &[Vec<u8>]) -> Vec<(TokenId, u128)> {
    let mut sums = BTreeMap::new();
    for bytes in entries {
        let entry = Entry::parse(bytes).unwrap().0;
        if entry.counts_against_budget() {
            *sums.entry(entry.token()).or_default() += entry.amount().minor_units();
        }
    }
    sums.into_iter().collect()
}

#[test]
fn snapshots_made_step_by_step_are_the_one_made_at_once() {
    for seed in 0..60 {
        let entries = history(seed, 300);
        let storage = MemoryStorage::new();
        let mut base = None;
        let mut dice = Dice(seed + 1000);
        let mut done = 0;
        while done < entries.len() {
            let next = (done + 1 + dice.below(90) as usize).min(entries.len());
            let mut tail = tail(base.as_ref());
            apply(&mut tail, &entries[done..next]);
            base = Some(snapshot(&storage, base.as_ref(), &tail).unwrap());
            done = next;
        }
        let mut whole = tail(None);
        apply(&mut whole, &entries);
        let at_once = snapshot(&MemoryStorage::new(), None, &whole).unwrap();
        let step_by_step = base.unwrap();
        assert_eq!(states(&step_by_step), states(&at_once), "seed {seed}");
        assert_eq!((budgets(&step_by_step).unwrap(), budgets(&at_once).unwrap()), (debited(&entries), debited(&entries)));
        assert_eq!(step_by_step.head(), at_once.head(), "the digest names the state and nothing else; seed {seed}");
        assert_eq!(step_by_step.front(), at_once.front());
        assert_eq!(snapshots(&storage.list().unwrap())[0], Seq(entries.len() as u64));
    }
}

#[test]
fn peaks_are_one_for_each_mountain_of_the_batches_or_there_are_none() {
    let asset = AssetSums { asset: "roc".into(), issued: 5, burned: 1, held: 2 };
    let hashes = |count: u8| (0..count).map(|number| [number; 32]).collect::<Vec<_>>();
    let front = |peaks| Front { assets: vec![asset.clone()], peaks };
    for (batches, count) in [(1, 1), (6, 2), (7, 3), (1 << 40, 1)] {
        let peaks = Peaks::new(batches, hashes(count));
        assert!(peaks.is_some());
        assert_eq!(Front::decode(&front(peaks.clone()).encode(), batches), Ok(front(peaks.clone())));
        let fault = Front::decode(&front(peaks).encode(), (1 << 41) - 1).unwrap_err();
        assert!(fault.contains("are not those of a history"), "{fault}");
        // Snapshots of before have none.
        assert_eq!(Front::decode(&front(None).encode(), batches), Ok(front(None)));
    }
    let mut half = front(Peaks::new(6, hashes(2))).encode();
    half.pop();
    half[4] -= 1;
    assert!(Front::decode(&half, 6).unwrap_err().contains("63 bytes of peaks"));
}

#[test]
fn keys_of_issues_are_carried_on_until_their_time_is_over() {
    let issue = |number: u64, at: u64| {
        let (key, mut bytes) = (format!("k{number}"), Vec::new());
        let mut draft = draft(Op::Issue, "", "a", 1, 0);
        (draft.ts, draft.key) = (UnixMs(at), crate::domain::Key::new(&key).unwrap());
        draft.encode(&mut bytes);
        bytes
    };
    let storage = MemoryStorage::new();
    let keys = |snapshot: &Snapshot<<MemoryStorage as Storage>::File>| {
        let mut keys = Vec::new();
        snapshot.for_each_key(&mut |key| keys.push((key.seq.0, key.used.0))).unwrap();
        keys
    };
    let mut base = None;
    for (number, expected) in [(1, vec![(1, 1000)]), (2, vec![(1, 1000), (2, 2000)]), (3, vec![(2, 2000), (3, 3000)])] {
        let mut tail = tail(base.as_ref());
        apply(&mut tail, &[issue(number, number * 1000)]);
        let cut = Cut { keys_ttl_ms: 2000, ..cut() };
        let name = snapshot_name(tail.through());
        base = Some(make::<_, MemoryStorage>(&storage, &name, base.as_ref(), &tail, &cut, None).unwrap());
        assert_eq!(keys(base.as_ref().unwrap()), expected);
    }
    let name = snapshot_name(Seq(3));
    let keys_at = base.unwrap().head().extents.keys_at() as usize;
    storage.tamper(&name, |bytes| bytes[keys_at + 45] ^= 1);
    let bad = newest_good(&storage, None, Seq(3)).unwrap().unwrap();
    assert!(bad.for_each_key(&mut |_| {}).is_err());
}

#[test]
fn a_snapshot_has_a_version_that_knows_budgets_only_if_it_has_some() {
    let (storage, mut base) = (MemoryStorage::new(), None);
    let transfer = |nonce, budget| {
        let (key, mut bytes) = (format!("k{nonce}"), Vec::new());
        let key = crate::domain::Key::new(&key).unwrap();
        let draft = crate::domain::Draft { budget, key, ..draft(Op::Transfer, "a", "b", 5, nonce) };
        draft.encode(&mut bytes);
        bytes
    };
    let issue = crate::ledger::sample::entry(Op::Issue, "", "a", 100, 0);
    let mut digests = Vec::new();
    for (entries, version, sums) in [
        (vec![issue, transfer(1, false)], 1, vec![]),
        (vec![transfer(2, true)], 2, vec![(TokenId([4; 16]), 5)]),
        (vec![transfer(3, false)], 2, vec![(TokenId([4; 16]), 5)]),
        (vec![transfer(4, true)], 2, vec![(TokenId([4; 16]), 10)]),
    ] {
        let mut tail = tail(base.as_ref());
        apply(&mut tail, &entries);
        let made = snapshot(&storage, base.as_ref(), &tail).unwrap();
        assert_eq!(budgets(&made).unwrap(), sums);
        storage.tamper(&snapshot_name(made.head().seq), |bytes| assert_eq!(bytes[8], version));
        digests.push(made.head().digest);
        base = Some(made);
    }
    // The digest names the budgets as well: here is the same value on the same accounts, counted less.
    let mut less = tail(None);
    let entries = [crate::ledger::sample::entry(Op::Issue, "", "a", 100, 0), transfer(1, false), transfer(2, false)];
    apply(&mut less, &entries);
    assert_ne!(snapshot(&MemoryStorage::new(), None, &less).unwrap().head().digest, digests[1]);
}

#[test]
fn entries_that_do_not_fit_the_state_before_them_make_no_snapshot() {
    let entry = |op, from: &str, to: &str, amount, nonce| crate::ledger::sample::entry(op, from, to, amount, nonce);
    let cases = [
        (vec![entry(Op::Transfer, "a", "b", 101, 1)], "does not cover"),
        // Too early by one: what comes in later does not help.
        (vec![entry(Op::Transfer, "a", "b", 101, 1), entry(Op::Issue, "", "a", 5, 0)], "does not cover"),
        (vec![entry(Op::Transfer, "a", "b", 1, 2)], "nonce 2 after 0"),
        (vec![entry(Op::Burn, "nobody", "", 1, 1)], "does not cover"),
    ];
    for (entries, expected) in cases {
        let storage = MemoryStorage::new();
        let mut first = tail(None);
        apply(&mut first, &[entry(Op::Issue, "", "a", 100, 0)]);
        let base = snapshot(&storage, None, &first).unwrap();
        let mut next = tail(Some(&base));
        apply(&mut next, &entries);
        let refused = snapshot(&storage, Some(&base), &next).err().unwrap();
        assert!(matches!(&refused, SnapshotError::Rule(what) if what.contains(expected)), "{refused}");
        assert_eq!(snapshots(&storage.list().unwrap()), [Seq(1)], "the last good one stays");
    }
}

#[test]
fn no_damage_passes_and_the_one_before_is_used() {
    let entries = history(5, 400);
    let storage = MemoryStorage::new();
    let mut first = tail(None);
    apply(&mut first, &entries[..100]);
    let base = snapshot(&storage, None, &first).unwrap();
    let mut next = tail(Some(&base));
    apply(&mut next, &entries[100..]);
    let newest = snapshot(&storage, Some(&base), &next).unwrap();
    let (name, expected) = (snapshot_name(Seq(400)), states(&newest));
    let size = storage.open(&name).unwrap().size().unwrap() as usize;
    let mut used_older = 0;
    for byte in (0..size).step_by(7) {
        let bad = storage.fork();
        bad.tamper(&name, |bytes| bytes[byte] ^= 0x10);
        let found = newest_good(&bad, Some(LOG), Seq(u64::MAX)).unwrap().expect("the older one is good");
        if found.head().seq == Seq(100) {
            used_older += 1;
            continue;
        }
        // Head and footer are whole; a damaged block shows when it is read, and the zeros behind the head mean nothing.
        let mut seen = Vec::new();
        let read = found.for_each_account(&mut |state| {
            seen.push(format!("{state:?}"));
            Ok(())
        });
        let read = read.and_then(|()| found.for_each_key(&mut |_| {})).and_then(|()| budgets(&found));
        assert!(read.map_or(true, |budgets| seen == expected && budgets == debited(&entries)), "byte {byte}");
    }
    assert!(used_older > 0);
    storage.tamper(&name, |bytes| bytes.truncate(size - 1));
    assert_eq!(newest_good(&storage, Some(LOG), Seq(u64::MAX)).unwrap().unwrap().head().seq, Seq(100));
    assert!(newest_good(&storage, Some(LogId([8; 16])), Seq(u64::MAX)).unwrap().is_none(), "another ledger's");
    keep_only(&storage, &[Seq(400)]).unwrap();
    assert_eq!(snapshots(&storage.list().unwrap()), [Seq(400)]);
}

/// Counts the syncs of files.
#[derive(Default)]
struct Syncs(usize);

impl Faults for Syncs {
    fn sync(&mut self, _: &str) -> Option<SyncFault> {
        self.0 += 1;
        None
    }
}

#[test]
fn pieces_are_synced_one_by_one_until_somebody_waits_for_the_whole() {
    let mut many = tail(None);
    let entry = crate::ledger::sample::entry;
    let issues: Vec<_> = (0..60_000).map(|n| entry(Op::Issue, "", &format!("account/{n}"), 1 + n, 0)).collect();
    apply(&mut many, &issues);
    let snapshots = [0, 2, usize::MAX].map(|piecewise| {
        let (storage, syncs) = (MemoryStorage::new(), Arc::new(Mutex::new(Syncs::default())));
        storage.set_faults(syncs.clone());
        let mut written = Vec::new();
        let mut pace = |bytes| {
            written.push(bytes);
            if written.len() <= piecewise {
                Pace::Piecewise
            } else {
                Pace::AtOnce
            }
        };
        let name = snapshot_name(many.through());
        let made = make::<_, MemoryStorage>(&storage, &name, None, &many, &cut(), Some(&mut pace)).unwrap();
        assert!(written.len() >= 4 && written.windows(2).all(|pair| pair[0] < pair[1]), "{written:?}");
        // The first piece, those that were asked for, the last of all, and the head.
        assert_eq!(syncs.lock().unwrap().0, written.len().min(piecewise.saturating_add(1)) + 2);
        states(&made)
    });
    assert!(snapshots.iter().all(|states| *states == snapshots[0]));
}

#[test]
fn touched_accounts_come_in_the_order_of_their_names_whatever_these_begin_with() {
    let long = "an-account-of-some-tenant:";
    let names = ["b", "a", "a0", "ab", "an-account-of-so", "an-account-of-som", "an-account-of-s", "0123456789abcde", "z"];
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.extend((0..300).flat_map(|n| [format!("{long}{n}"), format!("{n}"), format!("{n:016}"), format!("{n:016}x")]));
    let mut touched = tail(None);
    let issues: Vec<_> = names.iter().map(|name| crate::ledger::sample::entry(Op::Issue, "", name, 1, 0)).collect();
    apply(&mut touched, &issues);
    names.sort_unstable();
    let told: Vec<String> = touched.in_order().iter().map(|touched| touched.account.as_str().to_owned()).collect();
    assert_eq!(told, names);
}

#[test]
fn every_account_is_found_by_its_name_and_only_they() {
    const ACCOUNTS: u128 = 200_000;
    let storage = MemoryStorage::new();
    let mut many = tail(None);
    let issues: Vec<_> =
        (0..ACCOUNTS).map(|n| crate::ledger::sample::entry(Op::Issue, "", &format!("account/{n}"), 1 + n, 0)).collect();
    apply(&mut many, &issues);
    let snapshot = snapshot(&storage, None, &many).unwrap();
    // More than is read at once.
    assert!(snapshot.head().extents.blocks_bytes > 8 << 20);
    assert_eq!(states(&snapshot).len() as u128, ACCOUNTS);
    for n in (0..ACCOUNTS).step_by(997) {
        let name = format!("account/{n}");
        let record = snapshot.record_of(name.as_bytes()).unwrap().unwrap();
        let mut lists = account::Lists::default();
        let (state, _) = account::parse(&record, 1, &mut lists).unwrap();
        assert_eq!((state.name.as_str(), state.values[0].free), (name.as_str(), 1 + n));
    }
    for absent in ["account/", "account/200000", "a", "z"] {
        assert_eq!(snapshot.record_of(absent.as_bytes()).unwrap(), None, "{absent}");
    }
}
