//! Entries that no correct server writes, keys whatever the memory, and ledgers whose first segments are gone, as `verify` sees them;
//! on the ledger of `tests`.
use super::tests::{batch_at, check_start, copy, flip, flip_batch, issue, ledger, start, verified, HISTORY, NEWEST, SEGMENT};
use crate::domain::{LogId, Op, Seq};
use crate::ledger::sample::{entry, lane_batch_of, open};
use crate::ledger::snapshot::{newest_good, snapshot_name};
use crate::ledger::storage::index_name;
use crate::ledger::{segment_name, LedgerError, Log, MemoryStorage, Options, Start, Storage, Verification, KEYS_TTL};
use std::time::Duration;

#[test]
fn entries_that_no_server_writes_are_named_and_a_start_does_what_is_said() {
    let ts = 1_700_000_000_000;
    let hour = 3_600_000;
    let cases = [
        ("a doubled issue", (9, issue("issue-1", ts + hour)), Some("key issue-1 a second time: entry 1 has used it"), true),
        ("one at the end", (20, issue("issue-1", ts + hour)), Some("key issue-1 a second time: entry 1 has used it"), true),
        ("a new key", (20, issue("issue-2", ts)), None, true),
        ("a key whose time is over", (20, issue("issue-1", ts + 25 * hour)), None, true),
        ("a nonce that is left out", (9, entry(Op::Transfer, "a", "b", 1, 9)), Some("nonce 9 after 7"), false),
        ("more than there is", (9, entry(Op::Transfer, "a", "b", 5_000, 8)), Some("993 free"), false),
    ];
    for (name, (at, bytes), expected, serves) in cases {
        // Nonces behind a replaced debit would not fit; so what follows it is left out.
        let storage = MemoryStorage::new();
        let (mut log, ..) = open(&storage, SEGMENT).unwrap();
        for seq in 1..=at {
            let usual = if seq == 1 { issue("issue-1", ts) } else { entry(Op::Transfer, "a", "b", 1, seq - 1) };
            log.append(&[lane_batch_of(0, seq, &[if seq == at { bytes.clone() } else { usual }])]).unwrap();
        }
        log.close().unwrap();
        match (verified(&storage), expected) {
            (Ok(_), None) => {}
            (Err(refuted), Some(text)) => {
                let LedgerError::Broken { seq, file, offset, what } = &refuted.fault else { panic!("{name}: {refuted}") };
                let (segment, begins) = batch_at(at);
                assert_eq!((seq.0, *offset as usize, file.ends_with(&segment)), (at, begins, true), "{name}");
                assert!(what.contains(text), "{name}: {what}");
                let suspect = refuted.suspect.as_ref().unwrap();
                assert_eq!(suspect.found.seq, Seq(at), "{name}");
                assert_eq!(suspect.earlier.as_ref().map(|found| found.seq), serves.then_some(Seq(1)), "{name}");
                check_start(name, &storage, refuted.start.as_ref().unwrap(), serves.then_some(None));
            }
            (verdict, _) => panic!("{name}: {verdict:?}"),
        }
    }
}

#[test]
fn keys_are_found_whatever_fits_memory_and_whatever_else_is_wrong() {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT).unwrap();
    for seq in 1..=500u64 {
        let key = format!("k-{}", if seq == 400 { 77 } else { seq });
        log.append(&[lane_batch_of(0, seq, &[issue(&key, seq)])]).unwrap();
    }
    log.close().unwrap();
    let told = |keys_max: usize, keys_ttl: Duration, storage: &MemoryStorage| {
        Verification { keys_max, keys_ttl }
            .run(storage, &mut |_| ())
            .map(|report| report.head)
            .map_err(|refuted| refuted.to_string())
    };
    for keys_max in [7, 100, 499, 500, 1_000] {
        let refuted = told(keys_max, KEYS_TTL, &storage).unwrap_err();
        assert!(refuted.contains("entry 400 ") && refuted.contains("key k-77 a second time: entry 77"), "{refuted}");
    }
    assert_eq!(told(100, Duration::ZERO, &storage), Ok(Seq(500)), "keys are not looked at");
    assert_eq!(told(100, Duration::from_millis(300), &storage), Ok(Seq(500)), "its time is over");
    // What comes first is told.
    for (seq, first) in [(450, "entry 400 "), (300, "entry 300 is expected")] {
        let storage = storage.fork();
        flip_batch(&storage, seq, 200);
        let refuted = told(100, KEYS_TTL, &storage).unwrap_err();
        assert!(refuted.contains(first), "{refuted}");
    }
}

/// The ledger without its first segments, and with what is left of those that are before the snapshots.
fn archived(first: u64) -> MemoryStorage {
    let storage = ledger(1);
    (1..first).for_each(|index| storage.remove(&segment_name(index)).unwrap());
    storage
}

#[test]
fn of_an_archived_ledger_all_that_is_here_is_read_and_counted_for_itself() {
    for (first, begins, from) in [(2, 7, 8), (3, 13, 14)] {
        let storage = archived(first);
        if first == 3 {
            storage.remove(&snapshot_name(Seq(8))).unwrap();
        }
        let report = verified(&storage).unwrap();
        let here = (report.here.segments, report.here.batches, report.here.entries, report.first_segment);
        assert_eq!(here, (5 - first, 21 - begins, 21 - begins, first));
        assert_eq!((report.ever.segments, report.ever.batches, report.ever.entries), (4, 20, 20));
        assert_eq!((report.archived_through, report.books_from, report.accounts), (Seq(begins - 1), Seq(from), 2));
        assert_eq!((report.assets[0].issued, report.assets[0].balances), (1_000, 1_000));
        // Also what lies before the snapshot with which the books begin.
        flip_batch(&storage, begins, 210);
        let refuted = verified(&storage).unwrap_err();
        assert!(refuted.to_string().contains(&format!("entry {begins} is expected")), "{refuted}");
        check_start("archived", &storage, refuted.start.as_ref().unwrap(), NEWEST);
    }
    // A snapshot that does not follow from what is before it.
    let (right, other) = (archived(2), ledger(2));
    right.remove(HISTORY).unwrap();
    copy(&other, &right, &snapshot_name(Seq(8)));
    let refuted = verified(&right).unwrap_err().to_string();
    assert!(refuted.contains(&snapshot_name(Seq(8))) && refuted.contains("no batch that ends with entry 8"), "{refuted}");
    // The older one is damaged: the newer one stands in, and what is between them is still read.
    let storage = archived(2);
    flip(&storage, &snapshot_name(Seq(8)), 4_200);
    let refuted = verified(&storage).unwrap_err();
    assert!(refuted.to_string().contains(&snapshot_name(Seq(8))), "{refuted}");
    check_start("the older one", &storage, refuted.start.as_ref().unwrap(), NEWEST);
    // The key of an issue that is not here any more.
    let storage = archived(2);
    let snapshot = newest_good(&storage, None, Seq(u64::MAX)).unwrap();
    let options = Options::for_simulation(SEGMENT, LogId([7; 16]));
    let (mut log, _) = Log::open_after(storage.clone(), &options, snapshot.as_ref(), &mut |_, _, _| Ok(())).unwrap();
    log.append(&[lane_batch_of(0, 21, &[issue("issue-1", 1_700_000_000_000)])]).unwrap();
    log.close().unwrap();
    let refuted = verified(&storage).unwrap_err();
    assert!(
        refuted.to_string().contains("entry 21 ") && refuted.to_string().contains("entry 1, which is not here any more"),
        "{refuted}"
    );
    assert_eq!(refuted.suspect.unwrap().repeats, Some(Seq(1)));
}

#[test]
fn damage_before_the_snapshot_is_met_by_a_start_that_reads_its_segment_for_keys() {
    let storage = ledger(1);
    flip_batch(&storage, 3, 300);
    check_start("with an index", &storage, &verified(&storage).unwrap_err().start.unwrap(), NEWEST);
    let cases: [fn(&MemoryStorage); 2] =
        [|storage| storage.remove(&index_name(1)).unwrap(), |storage| flip(storage, &index_name(1), 100)];
    for spoil in cases {
        let storage = storage.fork();
        spoil(&storage);
        let Some(Start::Refuses(why)) = verified(&storage).unwrap_err().start else { panic!("it is read for its keys") };
        assert!(why.contains("would read it for its keys"), "{why}");
        assert!(matches!(start(&storage), Err(LedgerError::Damaged { expected: Seq(3), .. })));
        // Without the damage, the index alone keeps no server from serving.
        flip_batch(&storage, 3, 300);
        check_start("without damage", &storage, &verified(&storage).unwrap().start, NEWEST);
    }
}
