//! What snapshots say of budgets, as `verify` holds it against the entries.
use super::tests::{audit, copy, flip, verified, SEGMENT};
use crate::domain::{Draft, Op, Seq, TokenId};
use crate::ledger::sample::{draft, lane_batch_of, open};
use crate::ledger::snapshot::{newest_good, snapshot_name, Pace};
use crate::ledger::{segment_name, MemoryStorage, Start, Storage};

const ENTRIES: u64 = 20;

/// Whether an entry counts against a budget.
type Counted = fn(u64) -> bool;

/// `a` gets 1000 and sends 5 nineteen times, under the budget of one of two tokens where `counted` says so. A snapshot is behind each
/// of these entries.
fn ledger(snapshots: &[u64], counted: impl Fn(u64) -> bool) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT).unwrap();
    for seq in 1..=ENTRIES {
        let (key, mut bytes) = (format!("k{seq}"), Vec::new());
        let draft = match seq {
            1 => draft(Op::Issue, "", "a", 1000, 0),
            _ => draft(Op::Transfer, "a", "b", 5, seq - 1),
        };
        let budget = seq > 1 && counted(seq);
        let token = TokenId([(seq % 2) as u8; 16]);
        Draft { key: crate::domain::Key::new(&key).unwrap(), token, budget, ..draft }.encode(&mut bytes);
        log.append(&[lane_batch_of(0, seq, &[bytes])]).unwrap();
        if snapshots.contains(&seq) {
            audit(&log, &storage).snapshot(&mut |_| Pace::AtOnce).unwrap();
        }
    }
    while log.reader().index_one_segment().unwrap() {}
    log.close().unwrap();
    storage
}

/// A sum as it stands in a snapshot.
fn sum(token: u8, spent: u128) -> Vec<u8> {
    [[token; 16], spent.to_le_bytes()].concat()
}

fn sums(storage: &MemoryStorage) -> Vec<(u8, u128)> {
    let mut sums = Vec::new();
    let snapshot = newest_good(storage, None, Seq(u64::MAX)).unwrap().unwrap();
    let mut note = |token: TokenId, spent| {
        sums.push((token.0[0], spent));
        Ok(())
    };
    snapshot.for_each_budget(&mut note).unwrap();
    sums
}

#[test]
fn sums_are_verified_from_the_first_entry_and_behind_a_snapshot() {
    let storage = ledger(&[10, 16], |_| true);
    assert_eq!(sums(&storage), [(0, 40), (1, 35)], "up to entry 16");
    assert_eq!(verified(&storage).unwrap().books_from, Seq(0));
    storage.remove(&segment_name(1)).unwrap();
    assert_eq!(verified(&storage).unwrap().books_from, Seq(10));
}

/// Snapshots of ledgers that differ in what counts, as if they had been taken of this one.
#[test]
fn a_snapshot_with_another_sum_is_named() {
    let cases: [(Counted, &str); 3] = [
        (|seq| seq != 8, "it has 45 debited under the budget of the token id 00000000000000000000000000000000, and the entries have debited 50"),
        (|seq| seq % 2 == 0, "it has 1 budgets, and the entries up to there debit under 2"),
        (|_| false, "it has 0 budgets, and the entries up to there debit under 2"),
    ];
    for (counted, expected) in cases {
        let (right, wrong) = (ledger(&[], |_| true), ledger(&[], counted));
        let (of_right, ..) = open(&right.fork(), SEGMENT).unwrap();
        let (of_wrong, ..) = open(&wrong, SEGMENT).unwrap();
        let cut = audit(&of_right, &right).cut;
        let mut work = audit(&of_wrong, &wrong);
        work.cut = cut;
        work.snapshot(&mut |_| Pace::AtOnce).unwrap();
        copy(&wrong, &right, &snapshot_name(Seq(ENTRIES)));
        let told = verified(&right).unwrap_err().to_string();
        assert!(told.contains(expected) && told.contains("a start may believe it"), "{told}");
    }
}

#[test]
fn rotten_sums_are_named_and_a_start_passes_the_snapshot_over() {
    let storage = ledger(&[10, 16], |_| true);
    let name = snapshot_name(Seq(16));
    let mut at = None;
    storage.tamper(&name, |bytes| at = bytes.windows(32).position(|record| record == sum(1, 35)));
    let at = at.expect("the second sum is there");
    // In a token id, in a sum, in the length and in the hash of the block.
    for byte in [at, at + 16, at - 72, at - 60] {
        let bad = storage.fork();
        flip(&bad, &name, byte);
        let refuted = verified(&bad).unwrap_err();
        assert!(refuted.to_string().contains("a start passes it over"), "{refuted}");
        let Some(Start::Serves { snapshot, .. }) = refuted.start else { panic!("it serves") };
        assert_eq!(snapshot, Some(Seq(10)), "byte {byte}");
    }
}
