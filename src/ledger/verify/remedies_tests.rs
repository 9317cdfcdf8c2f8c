//! What `verify` says and advises about a damaged ledger: the advice, done, helps and costs no entry, and everything damaged is named.
use super::base::Base;
use super::tests::{batch_at, copy, flip, flip_batch, ledger, start, verified, SEGMENT};
use crate::domain::Seq;
use crate::ledger::layout::BLOCK_BYTES;
use crate::ledger::mark::EPOCH_NAME;
use crate::ledger::sample::open;
use crate::ledger::snapshot::snapshot_name;
use crate::ledger::witness::WITNESS_NAME;
use crate::ledger::{segment_name, LedgerError, MemoryStorage, Storage};

/// What is advised about a damaged `epoch` helps, with every entry.
#[test]
fn a_damaged_epoch_that_is_moved_aside_costs_nothing() {
    for keeps_witness in [true, false] {
        let storage = ledger(1);
        flip(&storage, EPOCH_NAME, 33);
        assert!(start(&storage).is_err() && verified(&storage).is_err());
        storage.remove(EPOCH_NAME).unwrap();
        if !keeps_witness {
            storage.remove(WITNESS_NAME).unwrap();
        }
        let report = verified(&storage).unwrap();
        assert_eq!((report.head, report.remarks.len()), (Seq(20), usize::from(!keeps_witness)));
        assert_eq!(start(&storage).unwrap(), (Some(Seq(14)), Seq(20)));
        open(&storage, SEGMENT).unwrap().0.close().unwrap();
        assert_eq!(verified(&storage).unwrap().remarks, []);
    }
}

/// What is said of snapshots that are damaged, and what to do.
fn told(storage: &MemoryStorage, damaged: &[u64]) -> String {
    damaged.iter().for_each(|seq| flip(storage, &snapshot_name(Seq(*seq)), 4_200));
    let fault = verified(storage).unwrap_err().fault;
    assert!(matches!(fault, LedgerError::Mendable { missing: false, .. }), "{fault}");
    let told = fault.to_string();
    assert!(damaged.iter().all(|seq| told.contains(&snapshot_name(Seq(*seq)))), "each is named: {told}");
    told
}

#[test]
fn a_damaged_snapshot_may_only_go_where_no_start_depends_on_it() {
    let whole = ledger(1);
    for (damaged, begins) in [(&[8][..], Some(Seq(14))), (&[14], Some(Seq(8))), (&[8, 14], None)] {
        let storage = whole.fork();
        let told = told(&storage, damaged);
        assert!(told.contains("no entry is lost") && told.contains("a start passes it over"), "{told}");
        assert_eq!(start(&storage).unwrap(), (begins, Seq(20)));
    }
    let archived = whole.fork();
    archived.remove(&segment_name(1)).unwrap();
    for (damaged, begins) in [(&[8][..], Seq(14)), (&[14], Seq(8))] {
        let storage = archived.fork();
        let told = told(&storage, damaged);
        assert!(told.contains("a start passes it over"), "the other one stands in: {told}");
        assert_eq!(start(&storage).unwrap(), (Some(begins), Seq(20)));
    }
    let told = told(&archived, &[8, 14]);
    assert!(told.contains("do not remove it") && told.contains("move those back"), "{told}");
    assert!(start(&archived).is_err());
    copy(&whole, &archived, &segment_name(1));
    assert_eq!(start(&archived).unwrap(), (None, Seq(20)));
}

#[test]
fn a_snapshot_that_a_server_replaces_before_the_books_begin_is_no_fault() {
    let storage = ledger(1);
    storage.remove(&segment_name(1)).unwrap();
    let mut names = storage.list().unwrap();
    names.push(snapshot_name(Seq(5)));
    let base = Base::oldest_if_needed(&storage, &names, None).unwrap();
    assert_eq!((base.snapshot.map(|snapshot| snapshot.head().seq), base.damaged.len()), (Some(Seq(8)), 0));
    storage.create(&snapshot_name(Seq(5))).unwrap();
    assert_eq!(Base::oldest_if_needed(&storage, &names, None).unwrap().damaged.len(), 1, "one that is there and empty is");
}

/// What is named besides the fault that ended the verification, and how many segments were read for it.
fn rest(plant: impl Fn(&MemoryStorage)) -> (u64, Vec<(String, String)>) {
    let storage = ledger(1);
    plant(&storage);
    let rest = verified(&storage).unwrap_err().rest;
    let faults = rest.faults.into_iter().map(|fault| (fault.file.rsplit(':').next().unwrap().to_owned(), fault.what)).collect();
    (rest.apart, faults)
}

#[test]
fn behind_the_first_damage_all_other_is_named() {
    assert_eq!(rest(|l| flip_batch(l, 3, 20)), (3, Vec::new()));
    let (apart, faults) = rest(|l| [3, 9, 20].iter().for_each(|seq| flip_batch(l, *seq, 200)));
    assert_eq!((apart, faults.len()), (3, 2), "{faults:?}");
    for ((file, what), seq) in faults.iter().zip([9, 20]) {
        assert!(*file == batch_at(seq).0 && what.starts_with(&format!("at byte {}", batch_at(seq).1)), "{file}: {what}");
    }
    // A header, what it leaves unsaid of its neighbour, and a snapshot.
    let (apart, faults) = rest(|l| {
        flip_batch(l, 3, 20);
        [40, BLOCK_BYTES + 40].iter().for_each(|at| flip(l, &segment_name(3), *at));
        flip(l, &snapshot_name(Seq(8)), 4_200);
    });
    let files: Vec<&str> = faults.iter().map(|(file, _)| &**file).collect();
    assert_eq!((apart, &files[..]), (3, &[&*snapshot_name(Seq(8)), &*segment_name(3)][..]), "{faults:?}");
    // Where nothing could be read in order, everything is.
    assert_eq!(rest(|l| flip(l, EPOCH_NAME, 33)), (4, Vec::new()));
    let (apart, faults) = rest(|l| {
        l.remove(&segment_name(2)).unwrap();
        flip_batch(l, 15, 20);
    });
    assert_eq!((apart, &*faults[0].0, faults.len()), (3, &*segment_name(3), 1));
    let empty = verified(&MemoryStorage::new()).unwrap_err();
    assert_eq!((&empty.fault.to_string().contains("no ledger here"), empty.rest.unverified), (&true, None));
    // And where everything was read, nothing again.
    assert_eq!(rest(|l| flip(l, &snapshot_name(Seq(14)), 4_200)), (0, Vec::new()));
}

#[test]
fn a_witness_that_was_cut_short_is_remarked_on_and_costs_nothing() {
    let storage = ledger(1);
    storage.tamper(WITNESS_NAME, |bytes| bytes.truncate(700));
    let report = verified(&storage).unwrap();
    let [remark] = &report.remarks[..] else { panic!("{:?}", report.remarks) };
    assert!(remark.file.ends_with(WITNESS_NAME) && remark.what == "it has 700 bytes, and should have 4096", "{remark:?}");
    assert_eq!(start(&storage).unwrap(), (Some(Seq(14)), Seq(20)));
}

/// A start that begins behind a snapshot looks at the segments before it all the same, and says which entry belongs there.
#[test]
fn a_header_that_is_damaged_before_a_snapshot_is_no_place_behind_it() {
    for (segment, expected) in [(1, 1), (2, 7)] {
        let storage = ledger(1);
        [40, BLOCK_BYTES + 40].iter().for_each(|at| flip(&storage, &segment_name(segment), *at));
        let place = format!("{} at byte 0, where entry {expected} is expected", segment_name(segment));
        for told in [start(&storage).unwrap_err().to_string(), verified(&storage).unwrap_err().to_string()] {
            assert!(told.contains(&place), "{told}");
        }
        // What comes before it is in an archive, so nobody knows.
        if segment == 2 {
            storage.remove(&segment_name(1)).unwrap();
            for told in [start(&storage).unwrap_err().to_string(), verified(&storage).unwrap_err().to_string()] {
                assert!(told.contains(&format!("{} at byte 0: ", segment_name(segment))), "{told}");
            }
        }
    }
}
