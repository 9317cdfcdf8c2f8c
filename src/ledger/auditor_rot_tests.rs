//! Snapshots that rot under a running auditor: what it goes back to, what it says meanwhile, and where there is nothing to go back to.
use super::*;
use crate::ledger::storage::StorageFile;
use crate::ledger::{Faults, ReadFault};

/// A byte before the name of an account changes in the snapshot after so many spends; another time, it changes back.
fn rot(storage: &MemoryStorage, spent: u64) {
    storage.tamper(&snapshot_name(Seq(spent + 1)), |bytes| {
        let name = bytes.windows(5).position(|bytes| bytes == b"payee").unwrap();
        bytes[name - 1] ^= 1;
    });
}

/// The newest snapshot is what an auditor makes that has never seen anything bad.
fn check_like_new(storage: &MemoryStorage, log: &crate::ledger::Log<MemoryStorage>) {
    let (name, fresh) = (snapshot_name(log.head().0), storage.fork());
    snapshots(&fresh.list().unwrap()).into_iter().for_each(|seq| fresh.remove(&snapshot_name(seq)).unwrap());
    let (again, ..) = open(&fresh, SEGMENT_BYTES).unwrap();
    let mut desk = Desk::new(&again.reader(), None, never(), None).unwrap();
    assert!(desk.follow(true));
    desk.snapshot();
    let content = |storage: &MemoryStorage| {
        let mut content = Vec::new();
        storage.tamper(&name, |bytes| content = bytes.clone());
        content
    };
    assert!(content(storage) == content(&fresh) && !content(&fresh).is_empty(), "{name}");
}

#[test]
fn behind_a_snapshot_that_rots_the_one_before_it_or_the_whole_log_is_replayed_again() {
    for (rotten, from) in [(vec![20], 11), (vec![10, 20], 0)] {
        let (storage, mut log) = log_of(3);
        let mut desk = desk_of(&storage, &mut log, &[5, 10, 20]);
        for nonce in 21..=30 {
            log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
        }
        assert!(desk.follow(false));
        desk.publish();
        let before = desk.findings.found().unwrap();
        rotten.iter().for_each(|spent| rot(&storage, *spent));
        desk.snapshot();
        assert_eq!((desk.failed, desk.work.audit().snapshot, desk.work.audit().broken), (1, Seq(from), None));
        desk.publish();
        let told = desk.findings.found().unwrap();
        assert_eq!((told.through, &told.sums), (before.through, &before.sums), "what was replayed stays so for everybody else");
        assert!(desk.follow(false) && desk.due());
        desk.snapshot();
        assert_eq!((desk.failed, desk.work.audit().snapshot, desk.due()), (1, Seq(31), false));
        let kept: Vec<Seq> = [31, from].into_iter().filter(|seq| *seq > 0).map(Seq).collect();
        assert_eq!(snapshots(&storage.list().unwrap()), kept, "what has rotted is gone");
        check_like_new(&storage, &log);
    }
}

#[test]
fn rot_that_shows_in_a_comparison_is_gone_back_behind_as_well() {
    let (storage, mut log) = log_of(3);
    let mut desk = desk_of(&storage, &mut log, &[10, 20]);
    rot(&storage, 20);
    let accounts: Vec<Box<str>> = vec!["a".into()];
    assert_eq!(Stated::held(&mut desk, &accounts), None);
    assert_eq!((desk.work.audit().snapshot, desk.due()), (Seq(11), false), "nothing is due before it was replayed again");
    let held = Stated::held(&mut desk, &accounts).unwrap();
    assert_eq!(held, [Held::new(Nonce(20), vec![("roc".into(), 980, 0)])]);
    assert!(desk.due());
}

/// A ledger with snapshots after 40 and after 60 spends, and without the segments before the older one.
fn ledger_behind_its_snapshots() -> (MemoryStorage, crate::ledger::Log<MemoryStorage>) {
    let (storage, mut log) = log_of(3);
    drop(desk_of(&storage, &mut log, &[40, 60]));
    drop(log);
    let newest = newest_good(&storage, None, Seq(u64::MAX)).unwrap();
    let older = newest_good(&storage, None, Seq(60)).unwrap().unwrap();
    for segment in 1..older.head().last_batch.segment {
        storage.remove(&crate::ledger::segment_name(segment)).unwrap();
    }
    let options = crate::ledger::Options::for_simulation(SEGMENT_BYTES, LogId([7; 16]));
    let opened = crate::ledger::Log::open_after(storage.clone(), &options, newest.as_ref(), &mut |_, _, _| Ok(()));
    let (log, _) = opened.unwrap();
    (storage, log)
}

#[test]
fn where_there_is_nothing_to_go_back_to_it_stays_and_the_log_is_not_called_broken() {
    let (storage, mut log) = ledger_behind_its_snapshots();
    let mut desk = desk_of(&storage, &mut log, &[]);
    log.append(&[spends(0, 1, "a", 61..62)]).unwrap();
    [40, 60].iter().for_each(|spent| rot(&storage, *spent));
    assert!(desk.follow(false));
    for failed in 1..4 {
        desk.snapshot();
        assert_eq!((desk.failed, desk.work.audit().snapshot, desk.work.audit().through), (failed, Seq(61), Seq(62)));
        assert!(desk.work.audit().broken.is_none() && !desk.due(), "it is tried again when the next one is due");
    }
    // A snapshot of another course of the log is none to go back to either: its entries are not those before the next ones.
    let (other, mut course) = log_of(3);
    for nonce in 4..=40 {
        course.append(&[spends(1, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
    }
    drop(desk_of(&other, &mut course, &[40]));
    let mut bytes = Vec::new();
    other.tamper(&snapshot_name(Seq(41)), |content| bytes = content.clone());
    storage.tamper(&snapshot_name(Seq(41)), |content| *content = bytes);
    desk.work.look_again();
    desk.snapshot();
    assert_eq!((desk.failed, desk.work.audit().snapshot), (4, Seq(61)));
    // If the reading gets better, so does everything else.
    rot(&storage, 60);
    desk.snapshot();
    assert_eq!(desk.work.audit().snapshot, Seq(62));
}

/// Counts the readings of one file.
struct Counted {
    file: String,
    reads: u64,
}

impl Faults for Counted {
    fn read(&mut self, file: &str, _: u64, _: usize) -> Option<ReadFault> {
        self.reads += u64::from(file == self.file);
        None
    }
}

#[test]
fn where_there_is_nothing_to_go_back_to_that_is_not_found_out_at_every_look() {
    let (storage, mut log) = ledger_behind_its_snapshots();
    let mut desk = desk_of(&storage, &mut log, &[]);
    log.append(&[spends(0, 1, "a", 61..62)]).unwrap();
    [40, 60].iter().for_each(|spent| rot(&storage, *spent));
    let counted = Arc::new(Mutex::new(Counted { file: snapshot_name(Seq(41)), reads: 0 }));
    storage.set_faults(counted.clone());
    let look = |desk: &mut Desk<MemoryStorage>| {
        assert!(desk.follow(false) && Stated::touched(desk).is_none());
        counted.lock().unwrap().reads
    };
    let once = look(&mut desk);
    assert!(once > 0, "the older snapshot was looked at");
    (0..200).for_each(|_| assert_eq!(look(&mut desk), once));
    for _ in 0..400 {
        look(&mut desk);
    }
    assert_eq!(look(&mut desk), 2 * once, "now and then it is");
}

/// Another file of the same name and content, but for one byte that is good again.
fn replace_rotten(storage: &MemoryStorage, spent: u64) {
    rot(storage, spent);
    let name = snapshot_name(Seq(spent + 1));
    let mut bytes = Vec::new();
    storage.tamper(&name, |content| bytes = content.clone());
    rot(storage, spent);
    storage.create("copy").unwrap().write_at(&bytes, 0).unwrap();
    storage.rename("copy", &name).unwrap();
}

/// The older one is gone back to; the auditor's own, which it holds open as it was, is opened anew.
#[test]
fn a_good_copy_of_either_snapshot_and_a_request_mend_an_auditor_that_has_lost_both() {
    for (mended, from) in [(40, 41), (60, 61)] {
        let (storage, mut log) = ledger_behind_its_snapshots();
        let mut desk = desk_of(&storage, &mut log, &[]);
        log.append(&[spends(0, 1, "a", 61..62)]).unwrap();
        [40, 60].iter().for_each(|spent| rot(&storage, *spent));
        (0..3).for_each(|_| assert!(desk.follow(false) && Stated::touched(&mut desk).is_none()));
        replace_rotten(&storage, mended);
        assert!(Stated::touched(&mut desk).is_none(), "nobody has said so");
        desk.snapshot_on_demand();
        assert_eq!((desk.failed, desk.work.audit().snapshot), (1, Seq(from)));
        assert!(desk.follow(false) && desk.due());
        desk.snapshot();
        assert_eq!((desk.work.audit().snapshot, desk.work.audit().broken), (Seq(62), None));
        assert!(Stated::touched(&mut desk).is_some());
    }
}

#[test]
fn rot_that_shows_when_accounts_have_their_turn_is_gone_back_behind_as_well() {
    let (storage, mut log) = log_of(3);
    let mut desk = desk_of(&storage, &mut log, &[10, 20]);
    rot(&storage, 20);
    assert!(Stated::touched(&mut desk).is_none());
    assert_eq!(desk.work.audit().snapshot, Seq(11));
    assert!(desk.follow(false) && Stated::touched(&mut desk).is_some());
}

#[test]
fn old_damage_that_shows_while_entries_are_replayed_again_ends_nothing_and_costs_no_snapshot() {
    let (storage, mut log) = log_of(3);
    let mut desk = desk_of(&storage, &mut log, &[10, 20]);
    log.append(&[spends(0, 22, "a", 21..22)]).unwrap();
    assert!(desk.follow(false));
    desk.publish();
    [10, 20].iter().for_each(|spent| rot(&storage, *spent));
    let damage = || storage.tamper(&crate::ledger::segment_name(1), |bytes| bytes[(8 << 10) + 200] ^= 1);
    damage();
    desk.snapshot();
    assert_eq!(desk.work.audit().snapshot, Seq(0), "it begins with the first entry again");
    for _ in 0..3 {
        desk.judged = false;
        assert!(!desk.follow(false) && !desk.due());
    }
    assert_eq!((desk.work.audit().broken, desk.reads_failed), (None, 3));
    assert_eq!(snapshots(&storage.list().unwrap()), [Seq(21), Seq(11)], "they stay for people to look at");
    damage();
    desk.judged = false;
    assert!(desk.follow(false) && desk.due(), "the segment is good again");
}

/// What is owed after a fall back stays owed if the disk is full just then.
#[test]
fn a_snapshot_that_is_due_because_another_has_rotted_stays_due_when_it_fails() {
    let (storage, mut log) = log_of(3);
    let mut desk = desk_of(&storage, &mut log, &[10, 20]);
    rot(&storage, 20);
    assert!(Stated::touched(&mut desk).is_none() && desk.follow(false) && desk.due());
    set_time(&mut desk, Duration::ZERO);
    storage.limit_bytes(Some(0));
    desk.snapshot();
    storage.limit_bytes(None);
    assert!(!desk.due(), "there is a pause");
    set_time(&mut desk, RETRY_MAX);
    assert!(desk.due());
    storage.limit_bytes(Some(0));
    desk.snapshot_at_the_end();
    assert_eq!(desk.failed, 2, "the end tries it once");
    storage.limit_bytes(None);
    log.append(&[spends(0, 22, "a", 21..22)]).unwrap();
    rot(&storage, 10);
    desk.snapshot_at_the_end();
    assert_eq!((desk.work.audit().snapshot, desk.failed), (Seq(22), 3), "and once more behind an earlier one");
}
