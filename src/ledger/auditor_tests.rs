//! The auditor beside a log that is written: what it follows, when it takes snapshots, what it says of a ledger that is wrong.
use super::*;
use crate::domain::{Draft, Key, LogId, Nonce, Op, Seq, Totals, UnixMs, Untold};
use crate::ledger::comparison::DIFFERENCES_MAX;
use crate::ledger::handles::ReadLedger;
use crate::ledger::memory::MemoryStorage;
use crate::ledger::sample::{draft, entry, lane_batch_of, open, spends};
use crate::ledger::scan::Start;
use crate::ledger::snapshot::{newest_good, snapshot_name, snapshots, AssetSums};
use crate::ledger::{Faults, ReadFault};
use std::sync::Mutex;

const SEGMENT_BYTES: u64 = 64 << 10;

/// A log in which `a` was issued 1000 and has made so many spends, one batch each.
fn log_of(spent: u64) -> (MemoryStorage, crate::ledger::Log<MemoryStorage>) {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT_BYTES).unwrap();
    log.append(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "a", 1000, 0)])]).unwrap();
    for nonce in 1..=spent {
        log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
    }
    (storage, log)
}

fn never() -> Schedule {
    Schedule {
        every: Duration::from_secs(3600),
        entries: u64::MAX,
        keys_ttl: Duration::from_secs(86_400),
        look_every: Duration::from_millis(5),
    }
}

/// Waits for what another thread will do soon.
fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_committed_is_followed_and_the_end_leaves_a_snapshot_of_it() {
    let (storage, mut log) = log_of(30);
    let auditor = Auditor::spawn(&log.reader(), None, never(), None).unwrap();
    until("the audit", || auditor.audit().through == Seq(31));
    let sums = AssetSums { asset: "roc".into(), issued: 1000, burned: 0, held: 0 };
    assert_eq!(auditor.audit().sums, [sums]);
    assert_eq!((auditor.audit().snapshot, auditor.audit().broken), (Seq(0), None));
    for nonce in 31..=40 {
        log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
    }
    auditor.close();
    let (head, root) = log.head();
    log.close().unwrap();
    let found = newest_good(&storage, Some(LogId([7; 16])), Seq(u64::MAX)).unwrap().unwrap();
    assert_eq!((found.head().seq, found.head().root, found.head().batches), (head, root, 41));
}

#[test]
fn the_sums_of_an_asset_are_told_once_something_was_read_and_never_of_a_ledger_that_is_wrong() {
    let findings = Findings::default();
    assert_eq!(findings.totals("roc", Seq(0)), Err(Untold::NotYet));
    findings.publish(Audit::default());
    assert_eq!(findings.totals("roc", Seq(0)), Ok(Totals::default()), "an empty ledger has nothing to be read");
    assert_eq!(findings.totals("roc", Seq(1)), Err(Untold::NotYet));
    let sums = |burned| vec![AssetSums { asset: "roc".into(), issued: 9, burned, held: 2 }];
    let audit = Audit { through: Seq(7), sums: sums(4), ..Audit::default() };
    findings.publish(audit.clone());
    let through = Seq(7);
    assert_eq!(findings.totals("roc", Seq(9)), Ok(Totals { issued: 9, burned: 4, in_accounts: 5, held: 2, through }));
    assert_eq!(findings.totals("ron", Seq(9)), Ok(Totals { through, ..Totals::default() }));
    findings.publish(Audit { sums: sums(10), ..audit.clone() });
    assert_eq!(findings.totals("roc", Seq(9)), Err(Untold::Broken), "more burned than issued");
    findings.publish(Audit { broken: Some("a rule".into()), ..audit });
    assert_eq!(findings.totals("ron", Seq(9)), Err(Untold::Broken));
}

#[test]
fn snapshots_follow_the_schedule_the_order_and_each_other_and_two_are_kept() {
    let (storage, mut log) = log_of(9);
    let auditor = Auditor::spawn(&log.reader(), None, Schedule { entries: 5, ..never() }, None).unwrap();
    until("the first snapshot", || auditor.audit().snapshot == Seq(10));
    for (spent, due) in [(15u64, Seq(16)), (17, Seq(18)), (24, Seq(25))] {
        for nonce in log.head().0 .0..=spent {
            log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
        }
        until("the audit", || auditor.audit().through == due);
        auditor.take_snapshot();
        until("the next snapshot", || auditor.audit().snapshot == due);
        let newest = newest_good(&storage, None, due).unwrap().unwrap().head().newest;
        assert_eq!((auditor.audit().snapshot_newest, auditor.audit().snapshots_failed), (newest, 0));
    }
    assert!(auditor.audit().snapshots_taken >= 4);
    drop(auditor);
    // The one before it came by the order or, if the auditor has looked in between, by the schedule.
    let kept = snapshots(&storage.list().unwrap());
    assert!(matches!(kept[..], [Seq(25), Seq(18..=24)]), "{kept:?}");
    // Behind the last snapshot the audit goes on with what is new alone.
    let base = newest_good(&storage, None, Seq(u64::MAX)).unwrap();
    log.append(&[spends(0, 26, "a", 25..26)]).unwrap();
    let auditor = Auditor::spawn(&log.reader(), base, never(), None).unwrap();
    until("the audit", || auditor.audit().through == Seq(26));
    assert_eq!((auditor.audit().snapshot, auditor.audit().broken), (Seq(25), None));
}

/// With an hour between two looks, nothing but the order itself brings the snapshot.
#[test]
fn a_snapshot_that_is_asked_for_is_taken_whatever_else_is_asked_meanwhile() {
    let (_storage, mut log) = log_of(0);
    let auditor =
        Auditor::spawn(&log.reader(), None, Schedule { look_every: Duration::from_secs(3600), ..never() }, None).unwrap();
    for nonce in 1..=50 {
        log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
        let answer = auditor.ask_held(vec!["a".into()]);
        auditor.take_snapshot();
        until("the snapshot", || auditor.audit().snapshot == Seq(1 + nonce));
        drop(answer);
    }
}

#[test]
fn a_log_is_opened_behind_a_snapshot_with_the_same_entries_and_only_if_they_belong_together() {
    let (storage, log) = log_of(40);
    let auditor = Auditor::spawn(&log.reader(), None, never(), None).unwrap();
    auditor.close();
    log.close().unwrap();
    let (mut log, ..) = open(&storage, SEGMENT_BYTES).unwrap();
    for nonce in 41..=60 {
        log.append(&[spends(0, nonce, "a", nonce..nonce + 1)]).unwrap();
    }
    let head = log.head();
    log.close().unwrap();
    let start = |seq| newest_good(&storage, None, seq).unwrap().unwrap().start();
    let reopen = |storage: &MemoryStorage, start| {
        let mut seen = Vec::new();
        let options = crate::ledger::Options::for_simulation(SEGMENT_BYTES, LogId([7; 16]));
        let opened = crate::ledger::Log::open_behind(storage.clone(), &options, Some(start), &mut |batch| {
            seen.push(batch.place.first_seq.0);
            Ok(())
        });
        opened.map(|(log, recovery)| (log.head(), recovery.batches, seen))
    };
    let whole = start(Seq(u64::MAX));
    assert_eq!(reopen(&storage, whole).unwrap(), (head, 61, (42..=61).collect()));
    // The segments before the one with the last batch of the snapshot are not needed, the snapshot's own is.
    let without = storage.fork();
    for segment in 1..whole.last_batch.segment {
        without.remove(&crate::ledger::segment_name(segment)).unwrap();
    }
    assert_eq!(reopen(&without, whole).unwrap(), (head, 61, (42..=61).collect()));
    assert!(matches!(open(&without, SEGMENT_BYTES).err().unwrap(), LedgerError::Uncovered { .. }));
    without.remove(&crate::ledger::segment_name(whole.last_batch.segment)).unwrap();
    let refused = reopen(&without, whole).unwrap_err().to_string();
    assert!(refused.contains("missing") || refused.contains("does not continue"), "{refused}");
    // Of another history.
    for other in [Start { root: [1; 32], ..whole }, Start { seq: Seq(40), ..whole }] {
        let refused = reopen(&storage, other).unwrap_err().to_string();
        assert!(refused.contains("the last batch of the snapshot"), "{refused}");
    }
    let refused = reopen(&storage, Start { log_id: LogId([9; 16]), ..whole }).unwrap_err().to_string();
    assert!(refused.contains("another ledger"), "{refused}");
}

#[test]
fn a_broken_rule_is_told_and_no_snapshot_is_taken_of_it() {
    let (storage, mut log) = log_of(3);
    log.append(&[spends(0, 5, "a", 9..10)]).unwrap();
    log.append(&[spends(0, 6, "a", 10..11)]).unwrap();
    let auditor =
        Auditor::spawn(&log.reader(), None, Schedule { every: Duration::from_millis(1), entries: 1, ..never() }, None).unwrap();
    until("the verdict", || auditor.broken().is_some());
    let told = auditor.broken().unwrap();
    assert!(told.contains("entry 5 ") && told.contains("nonce 9 after 3"), "{told}");
    assert_eq!(log.reader().findings().totals("roc", Seq(6)), Err(Untold::Broken));
    auditor.close();
    assert_eq!(snapshots(&storage.list().unwrap()), []);
}

#[test]
fn a_full_disk_costs_the_snapshot_and_nothing_else() {
    let (storage, log) = log_of(3);
    storage.limit_bytes(Some(0));
    let auditor = Auditor::spawn(&log.reader(), None, Schedule { every: Duration::from_millis(1), ..never() }, None).unwrap();
    until("the failure", || auditor.audit().snapshots_failed > 0);
    assert_eq!((auditor.audit().snapshots_taken, auditor.audit().snapshot_newest), (0, UnixMs(0)));
    assert_eq!((auditor.broken(), auditor.audit().snapshot), (None, Seq(0)));
    storage.limit_bytes(None);
    auditor.take_snapshot();
    until("the snapshot", || auditor.audit().snapshot == Seq(4));
}

/// So much time has gone by for a desk, and no more does.
fn set_time(desk: &mut Desk<MemoryStorage>, elapsed: Duration) {
    desk.elapsed = Box::new(move || elapsed);
}

#[test]
fn a_snapshot_that_failed_is_tried_again_after_a_pause_that_grows_or_at_once_if_somebody_asks() {
    let (storage, log) = log_of(3);
    let mut desk = Desk::new(&log.reader(), None, Schedule { entries: 1, ..never() }, None).unwrap();
    storage.limit_bytes(Some(0));
    // A round of the thread, without the thread.
    let round = |desk: &mut Desk<MemoryStorage>| {
        desk.follow(false);
        if desk.due() {
            desk.snapshot();
        }
        desk.failed
    };
    set_time(&mut desk, Duration::ZERO);
    (0..5).for_each(|_| assert_eq!(round(&mut desk), 1, "one attempt, and then a pause"));
    desk.snapshot_on_demand();
    assert_eq!(desk.failed, 2, "whoever asks does not wait");
    // Every pause is over after the longest one. In each round that comes then there is one attempt more.
    let mut elapsed = Duration::ZERO;
    for failed in 3..6 {
        elapsed += 2 * RETRY_MAX;
        set_time(&mut desk, elapsed);
        (0..3).for_each(|_| assert_eq!(round(&mut desk), failed));
    }
    desk.publish();
    assert_eq!((desk.findings.found().unwrap().snapshots_failed, desk.work.audit().snapshot), (5, Seq(0)));
    // Where there is no room for more accounts the pause is kept as well, and the end waits for nothing.
    desk.touched_max = 1;
    (0..5).for_each(|_| assert!(!desk.follow(false)));
    assert_eq!(desk.failed, 5);
    assert!(!desk.follow(true));
    assert_eq!(desk.failed, 6);
    storage.limit_bytes(None);
    desk.snapshot_on_demand();
    assert_eq!((desk.work.audit().snapshot, desk.failed), (Seq(4), 6));
    assert!(desk.may_try(), "after a success there is no pause");
}

/// Cores that serve this state of `a`, and the one before it to the next so many questions.
struct Served {
    now: Mutex<Held>,
    late: std::sync::atomic::AtomicU32,
}

impl Live for Arc<Served> {
    fn held(&self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        let late = self.late.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |late| late.checked_sub(1)).is_ok();
        let of = |account: &str| match account {
            "a" if late => Held::new(Nonce(2), vec![("roc".into(), 998, 0)]),
            "a" => self.now.lock().unwrap().clone(),
            _ => Held::new(Nonce(0), vec![("roc".into(), 3, 0)]),
        };
        Some(accounts.iter().map(|account| of(account)).collect())
    }
}

#[test]
fn what_is_served_is_compared_with_the_ledger_and_a_difference_that_stays_is_told() {
    let (_storage, log) = log_of(3);
    let right = Held::new(Nonce(3), vec![("roc".into(), 997, 0)]);
    // For a moment an acknowledgement may be on its way.
    let served = Arc::new(Served { now: Mutex::new(right), late: (DIFFERENCES_MAX - 1).into() });
    let live: Box<dyn Live> = Box::new(Arc::clone(&served));
    let auditor = Auditor::spawn(&log.reader(), None, never(), Some(live)).unwrap();
    until("agreement", || auditor.audit().agreed > 2 * u64::from(DIFFERENCES_MAX));
    assert_eq!((auditor.broken(), served.late.load(Ordering::Relaxed)), (None, 0));
    *served.now.lock().unwrap() = Held::new(Nonce(3), vec![("roc".into(), 998, 0)]);
    until("the verdict", || auditor.broken().is_some());
    let told = auditor.broken().unwrap();
    assert!(told.contains("account a ") && told.contains("998") && told.contains("997"), "{told}");
}

/// Whether nothing can be read.
struct Unreadable(bool);

impl Faults for Unreadable {
    fn read(&mut self, _: &str, _: u64, _: usize) -> Option<ReadFault> {
        self.0.then_some(ReadFault::Error)
    }
}

#[test]
fn damage_to_what_was_committed_is_told_and_one_that_can_be_read_again_is_not() {
    let (storage, log) = log_of(30);
    let good = storage.fork();
    storage.tamper(&crate::ledger::segment_name(1), |bytes| bytes[40 << 10] ^= 1);
    let auditor = Auditor::spawn(&log.reader(), None, never(), None).unwrap();
    until("the verdict", || auditor.broken().is_some());
    let (told, audit) = (auditor.broken().unwrap(), auditor.audit());
    assert!(told.contains("segment-0000000001.log") && audit.reads_failed >= 2 && audit.through < Seq(31), "{told} {audit:?}");
    drop((auditor, log));
    let (log, ..) = open(&good, SEGMENT_BYTES).unwrap();
    let faults = Arc::new(Mutex::new(Unreadable(true)));
    good.set_faults(faults.clone());
    let auditor = Auditor::spawn(&log.reader(), None, never(), None).unwrap();
    until("some looks in vain", || auditor.audit().reads_failed > 3);
    assert_eq!(auditor.broken(), None, "a disk that does not answer says nothing about the ledger");
    faults.lock().unwrap().0 = false;
    until("the audit", || auditor.audit().through == Seq(31));
}

#[test]
fn where_too_many_accounts_are_touched_snapshots_are_taken_on_the_way() {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, 4 << 20).unwrap();
    for number in 0..600 {
        log.append(&[lane_batch_of(0, 1 + number, &[entry(Op::Issue, "", &format!("account/{number:04}"), 1, 0)])]).unwrap();
    }
    let mut desk = Desk::new(&log.reader(), None, never(), None).unwrap();
    desk.touched_max = 100;
    storage.limit_bytes(Some(0));
    for _ in 0..3 {
        assert!(!desk.follow(true), "without a snapshot it goes no further");
        assert!((100..400).contains(&desk.work.tail.touched()), "{}", desk.work.tail.touched());
    }
    storage.limit_bytes(None);
    assert!(desk.follow(true));
    assert_eq!((desk.work.audit().through, desk.failed), (Seq(600), 3));
    assert!(desk.work.audit().snapshot >= Seq(512));
}

/// A log of so many issues, each a second after the one before.
fn issues_in_time(count: u64) -> (MemoryStorage, crate::ledger::Log<MemoryStorage>) {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, 4 << 20).unwrap();
    let entries: Vec<_> = (0..count)
        .map(|number| {
            let ordinary = draft(Op::Issue, "", "a", 1, 0);
            let (key, ts) = (format!("key-{number}"), UnixMs(ordinary.ts.0 + 1000 * number));
            let mut bytes = Vec::new();
            Draft { key: Key::new(&key).unwrap(), ts, ..ordinary }.encode(&mut bytes);
            bytes
        })
        .collect();
    for (number, entries) in entries.chunks(10).enumerate() {
        log.append(&[lane_batch_of(0, 1 + 10 * number as u64, entries)]).unwrap();
    }
    (storage, log)
}

/// The entries whose keys a snapshot has.
fn keys_of(storage: &MemoryStorage, seq: u64) -> Vec<u64> {
    let mut keys = Vec::new();
    let snapshot = crate::ledger::snapshot::Snapshot::open(storage, &snapshot_name(Seq(seq))).unwrap();
    snapshot.for_each_key(&mut |key| keys.push(key.seq.0)).unwrap();
    keys
}

#[test]
fn keys_of_issues_whose_time_is_over_take_no_memory_in_a_replay_and_the_others_are_all_kept() {
    const ISSUES: u64 = 40_000;
    const REMEMBERED: u64 = 100;
    let (storage, log) = issues_in_time(ISSUES);
    let schedule = Schedule { keys_ttl: Duration::from_secs(REMEMBERED), ..never() };
    let mut desk = Desk::new(&log.reader(), None, schedule, None).unwrap();
    let mut most = 0;
    desk.work.cut.keys_ttl_ms = desk.keys_ttl_ms.load(Ordering::Relaxed);
    while desk.work.step().unwrap() {
        most = most.max(desk.work.tail.issue_keys().len());
    }
    assert!(desk.follow(false) && most < 8192, "{most}");
    desk.snapshot();
    assert_eq!(keys_of(&storage, ISSUES), (ISSUES - REMEMBERED + 1..=ISSUES).collect::<Vec<_>>());
}

#[test]
fn where_too_many_keys_are_remembered_snapshots_are_taken_on_the_way() {
    const ISSUES: u64 = 12_000;
    let (storage, log) = issues_in_time(ISSUES);
    let mut desk = Desk::new(&log.reader(), None, never(), None).unwrap();
    desk.keys_max = 3_000;
    storage.limit_bytes(Some(0));
    for _ in 0..3 {
        assert!(!desk.follow(false), "without a snapshot it goes no further");
        assert!((3_000..6_000).contains(&desk.work.tail.issue_keys().len()));
    }
    storage.limit_bytes(None);
    assert!(desk.follow(true) && desk.work.tail.issue_keys().len() < 3_000);
    desk.snapshot();
    assert_eq!(keys_of(&storage, ISSUES), (1..=ISSUES).collect::<Vec<_>>());
}

/// Cores that serve each account with 5, but this one with 6.
struct AllButOne(&'static str);

impl Live for AllButOne {
    fn held(&self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        let of = |account: &str| Held::new(Nonce(0), vec![("roc".into(), if account == self.0 { 6 } else { 5 }, 0)]);
        Some(accounts.iter().map(|account| of(account)).collect())
    }
}

#[test]
fn every_account_has_its_turn_to_be_compared_however_long_it_was_not_touched() {
    let storage = MemoryStorage::new();
    let (mut log, ..) = open(&storage, SEGMENT_BYTES).unwrap();
    for number in 0..1_000u64 {
        log.append(&[lane_batch_of(0, 1 + number, &[entry(Op::Issue, "", &format!("account-{number:04}"), 5, 0)])]).unwrap();
    }
    let seen_to_differ = |account| {
        let base = newest_good(&storage, None, Seq(u64::MAX)).unwrap();
        let auditor = Auditor::spawn(&log.reader(), base, never(), Some(Box::new(AllButOne(account)))).unwrap();
        until("a snapshot", || {
            auditor.take_snapshot();
            auditor.audit().snapshot == Seq(1_000)
        });
        until("a verdict, or more looks than it needs", || auditor.broken().is_some() || auditor.audit().agreed > 5_000);
        auditor.broken()
    };
    for cold in ["account-0000", "account-0500", "account-0999"] {
        let told = seen_to_differ(cold).expect("it differs");
        assert!(told.contains(cold), "{told}");
    }
    assert_eq!(seen_to_differ("nobody"), None);
}

/// The hashes of the batch are right, and still one of its entries cannot be read: nothing of the batch counts, for no snapshot, and it
/// is read again in whole.
#[test]
fn of_a_batch_with_an_entry_that_cannot_be_read_nothing_is_applied() {
    let (storage, mut log) = log_of(3);
    let mut batch = spends(0, 5, "a", 4..7);
    let second = batch.bytes.len() / 3;
    // The format of the second of three entries of the same length.
    batch.bytes[second + 3] ^= 0x80;
    log.append(&[batch]).unwrap();
    let mut desk = Desk::new(&log.reader(), None, never(), None).unwrap();
    for look in 1..=2 {
        desk.judged = false;
        assert!(!desk.follow(false));
        assert_eq!((desk.work.tail.through(), desk.reads_failed), (Seq(4), look));
        assert_eq!(desk.work.held(&["a".into()]).unwrap(), [Held::new(Nonce(3), vec![("roc".into(), 997, 0)])]);
        if look == 1 {
            desk.snapshot();
            let taken = newest_good(&storage, None, Seq(u64::MAX)).unwrap().unwrap();
            assert_eq!((taken.head().seq, taken.head().batches), (Seq(4), 4));
        }
    }
    let told = desk.work.audit().broken.unwrap();
    assert!(told.contains("entry 6 cannot be read"), "{told}");
}

/// A desk that has followed a log to its head, in which `a` has made so many spends, with snapshots after each of these.
fn desk_of(storage: &MemoryStorage, log: &mut crate::ledger::Log<MemoryStorage>, snapshots_after: &[u64]) -> Desk<MemoryStorage> {
    let base = newest_good(storage, None, Seq(u64::MAX)).unwrap();
    let mut desk = Desk::new(&log.reader(), base, never(), None).unwrap();
    for after in snapshots_after {
        for nonce in log.head().0 .0..=*after {
            log.append(&[spends(0, 1 + nonce, "a", nonce..nonce + 1)]).unwrap();
        }
        assert!(desk.follow(false));
        desk.snapshot();
        assert_eq!(desk.work.audit().snapshot, Seq(after + 1));
    }
    desk.publish();
    desk
}

#[cfg(test)]
#[path = "auditor_rot_tests.rs"]
mod rot;
