//! That each durable entry is counted exactly once: over crashes at every byte, full disks, rotations and restarts.
use std::collections::BTreeMap;
use std::fs;

use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::accounting::{read_lines, Line, LineFault, Store};
use crate::domain::{Account, Amount, Asset, Draft, Entry, Key, Nonce, Op, TokenId};

const LOG: LogId = LogId([7; 16]);
const NOW: UnixMs = UnixMs(1_000_000);
const SMALL: Bounds = Bounds { entries_max: 10, deltas_max: 100, file_bytes_max: 1_000 };

/// An encoded entry; an empty name is an absent account.
pub fn entry(op: Op, from: &str, to: &str, amount: u128) -> Vec<u8> {
    entry_at(op, from, to, amount, NOW)
}

fn entry_at(op: Op, from: &str, to: &str, amount: u128, ts: UnixMs) -> Vec<u8> {
    let draft = Draft {
        op,
        from: Account::new(from),
        to: Account::new(to),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(amount).unwrap(),
        nonce: Some(Nonce(1)),
        key: Key::new("k").unwrap(),
        memo: None,
        corr: "c",
        token: TokenId([0; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts,
    };
    let mut bytes = Vec::new();
    draft.encode(&mut bytes);
    bytes
}

/// A ledger in memory.
#[derive(Default)]
struct Memory {
    entries: Vec<Vec<u8>>,
    broken: bool,
    skips: bool,
}

impl Memory {
    /// Entries of three accounts; entry number n was made n seconds after 900,000.
    fn with(count: u64) -> Self {
        let mut memory = Self::default();
        memory.grow(count);
        memory
    }

    fn grow(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.entries.len() as u64 + 1;
            let payer = ["ann", "bob", "eve"][(number % 3) as usize];
            self.entries.push(entry_at(Op::Transfer, payer, "shop", u128::from(number), UnixMs(900_000 + 1_000 * number)));
        }
    }
}

impl Tail for Memory {
    fn head(&mut self) -> Result<Seq, TailFault> {
        Ok(Seq(self.entries.len() as u64))
    }

    fn scan(&mut self, from: Seq, each: &mut dyn FnMut(Seq, Entry<'_>) -> ControlFlow<()>) -> Result<(), TailFault> {
        for number in from.0..=self.entries.len() as u64 {
            if self.broken {
                return Err("the disk is gone".into());
            }
            let seq = if self.skips && number == from.0 + 1 { Seq(number + 1) } else { Seq(number) };
            if each(seq, Entry::parse(&self.entries[number as usize - 1]).unwrap().0).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A sink of which a test keeps a handle.
impl Sink for Arc<Mutex<Store>> {
    fn through(&mut self, log: LogId) -> Result<Seq, SinkFault> {
        self.lock().unwrap().through(log)
    }

    fn append(&mut self, stretch: Stretch, line: &str) -> Result<(), SinkFault> {
        self.lock().unwrap().append(stretch, line)
    }

    fn set_aside(&mut self, log: LogId) -> Result<(), SinkFault> {
        self.lock().unwrap().set_aside(log)
    }
}

fn store(directory: &Path) -> Result<Store, CountersFault> {
    Store::open(directory, SMALL.file_bytes_max).map_err(CountersFault::Sink)
}

fn open_of(directory: &Path, log: LogId) -> Result<Counters, CountersFault> {
    let mut counters = Counters::new(Box::new(store(directory)?), log, SMALL, Seq(0), NOW);
    counters.look().map(|_| counters)
}

fn open(directory: &Path) -> Result<Counters, CountersFault> {
    open_of(directory, LOG)
}

fn flush_all(counters: &mut Counters, tail: &mut Memory) {
    while !counters.flush(tail, NOW).unwrap().caught_up {}
}

/// Every account's totals over all files, checking that the lines cover the ledger densely.
fn totals(directory: &Path) -> (Seq, BTreeMap<String, (u64, u128)>) {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|found| found.unwrap().path()).collect();
    // `counters.jsonl` sorts behind the numbered ones and is the newest.
    paths.sort();
    let (mut through, mut totals) = (Seq(0), BTreeMap::new());
    for path in paths {
        for line in fs::read(&path).unwrap().split_inclusive(|byte| *byte == b'\n') {
            let line = Line::parse(line).unwrap_or_else(|fault| panic!("{path:?}: {fault}"));
            assert_eq!(line.from, Seq(through.0 + 1), "{path:?}");
            through = line.through;
            for delta in line.deltas {
                let total: &mut (u64, u128) = totals.entry(format!("{} {}", delta.account, delta.side)).or_default();
                *total = (total.0 + delta.count, total.1 + delta.amount);
            }
        }
    }
    (through, totals)
}

fn check(directory: &Path, entries: u64) {
    let mut expected = BTreeMap::new();
    for number in 1..=entries {
        for name in [["ann debit", "bob debit", "eve debit"][(number % 3) as usize], "shop credit"] {
            let total: &mut (u64, u128) = expected.entry(name.to_owned()).or_default();
            *total = (total.0 + 1, total.1 + u128::from(number));
        }
    }
    assert_eq!(totals(directory), (Seq(entries), expected));
}

#[test]
fn flushes_are_bounded_and_restarts_go_on_where_the_last_one_ended() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(25);
    let mut counters = open(place.path()).unwrap();
    assert_eq!(counters.flush(&mut ledger, NOW).unwrap(), Flushed { entries: 10, through: Seq(10), caught_up: false });
    drop(counters);
    let mut counters = open(place.path()).unwrap();
    assert_eq!(counters.through(), Seq(10));
    assert_eq!(counters.flush(&mut ledger, NOW).unwrap(), Flushed { entries: 10, through: Seq(20), caught_up: false });
    assert_eq!(counters.flush(&mut ledger, NOW).unwrap(), Flushed { entries: 5, through: Seq(25), caught_up: true });
    assert_eq!(counters.flush(&mut ledger, NOW).unwrap(), Flushed { entries: 0, through: Seq(25), caught_up: true });
    check(place.path(), 25);
}

#[test]
fn a_flush_ends_before_it_has_too_many_deltas() {
    let pair = |number: u64| entry(Op::Transfer, &format!("from{number}"), &format!("to{number}"), 1);
    let mut ledger = Memory { entries: (0..9).map(pair).collect(), ..Memory::default() };
    let bounds = Bounds { deltas_max: 5, ..SMALL };
    let mut counters = Counters::in_memory(LOG, bounds, Seq(0), NOW);
    assert_eq!(counters.flush(&mut ledger, NOW).unwrap().entries, 2);
}

#[test]
fn a_crash_at_any_byte_of_the_last_line_counts_nothing_twice() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(12);
    flush_all(&mut open(place.path()).unwrap(), &mut ledger);
    let path = place.path().join("counters.jsonl");
    let whole = fs::read(&path).unwrap();
    let first_line = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in first_line..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let mut counters = open(place.path()).unwrap();
        assert_eq!(counters.through(), Seq(10), "{end}");
        flush_all(&mut counters, &mut ledger);
        check(place.path(), 12);
    }
    // A power loss can also leave the length and lose the content.
    let mut holes = whole.clone();
    holes[first_line..].fill(0);
    fs::write(&path, &holes).unwrap();
    flush_all(&mut open(place.path()).unwrap(), &mut ledger);
    check(place.path(), 12);
}

#[test]
fn damage_inside_is_reported_with_file_and_offset() {
    let place = tempfile::tempdir().unwrap();
    flush_all(&mut open(place.path()).unwrap(), &mut Memory::with(12));
    let path = place.path().join("counters.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"torn");
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let second = bytes[first_line..].iter().position(|byte| *byte == b'\n').unwrap() + first_line;
    bytes[second - 10] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let fault = open(place.path()).unwrap_err();
    let at_second = matches!(&fault, CountersFault::Sink(SinkFault::Damaged { offset, cause: LineFault::Check, .. })
        if *offset == first_line as u64);
    assert!(at_second && fault.to_string().contains("counters.jsonl"), "{fault}");
}

#[test]
fn a_full_disk_makes_the_lag_grow_and_nothing_is_lost_or_doubled() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(3);
    let store = Arc::new(Mutex::new(store(place.path()).unwrap()));
    let mut counters = Counters::new(Box::new(store.clone()), LOG, SMALL, Seq(0), NOW);
    flush_all(&mut counters, &mut ledger);
    assert_eq!(counters.flush_lag_seconds(NOW), 0.0);
    ledger.grow(2);
    store.lock().unwrap().break_writes();
    for later_ms in [0, 60_000] {
        let now = UnixMs(1_000_000 + later_ms);
        assert!(matches!(counters.flush(&mut ledger, now), Err(CountersFault::Sink(SinkFault::Io { .. }))));
        // Entry 4 was made at second 904.
        assert_eq!(counters.lag().seconds(now), 96.0 + later_ms as f64 / 1_000.0);
    }
    assert_eq!(counters.through(), Seq(3));
    // The failed write left a longer line behind than the one that is written next.
    store.lock().unwrap().mend(&[b'x'; 900]);
    flush_all(&mut counters, &mut ledger);
    assert_eq!(counters.flush_lag_seconds(NOW), 0.0);
    check(place.path(), 5);
}

#[test]
fn full_files_are_put_aside_and_a_crash_in_between_is_survived() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(150);
    flush_all(&mut open(place.path()).unwrap(), &mut ledger);
    let files = fs::read_dir(place.path()).unwrap().count();
    assert!(files >= 3, "{files}");
    for found in fs::read_dir(place.path()).unwrap() {
        assert!(found.unwrap().metadata().unwrap().len() <= SMALL.file_bytes_max);
    }
    check(place.path(), 150);
    // A crash between putting a file aside and making the next one.
    fs::rename(place.path().join("counters.jsonl"), place.path().join("counters.000999.jsonl")).unwrap();
    let mut counters = open(place.path()).unwrap();
    assert_eq!(counters.through(), Seq(150));
    ledger.grow(40);
    flush_all(&mut counters, &mut ledger);
    check(place.path(), 190);
    assert!(place.path().join("counters.001000.jsonl").exists());
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(5);
    let mut counters = open(place.path()).unwrap();
    assert!(matches!(open(place.path()), Err(CountersFault::Sink(SinkFault::InUse(_)))));
    flush_all(&mut counters, &mut ledger);
    assert!(matches!(counters.flush(&mut Memory::with(4), NOW), Err(CountersFault::AheadOfLedger { .. })));
    drop(counters);
    let other = open_of(place.path(), LogId([8; 16]));
    assert!(matches!(other, Err(CountersFault::Sink(SinkFault::OtherLedger { .. }))));
    check(place.path(), 5);
}

#[test]
fn a_ledger_that_cannot_be_read_or_has_gaps_is_a_fault_and_counts_nothing() {
    let mut counters = Counters::in_memory(LOG, SMALL, Seq(0), NOW);
    let mut ledger = Memory { broken: true, ..Memory::with(5) };
    assert!(matches!(counters.flush(&mut ledger, NOW), Err(CountersFault::Tail(_))));
    assert_eq!(counters.flush_lag_seconds(UnixMs(NOW.0 + 5_000)), 5.0);
    let mut ledger = Memory { skips: true, ..Memory::with(5) };
    let gap = counters.flush(&mut ledger, NOW);
    assert!(matches!(gap, Err(CountersFault::Gap { expected: Seq(2), found: Some(Seq(3)) })), "{gap:?}");
    assert_eq!(counters.through(), Seq(0));
}

#[test]
fn files_are_for_the_owner_only_and_amnesia_leaves_none() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("deep/counters");
    flush_all(&mut open(&directory).unwrap(), &mut Memory::with(5));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("counters.jsonl"))), (0o700, 0o600));
    let mut counters = Counters::in_memory(LOG, SMALL, Seq(0), NOW);
    flush_all(&mut counters, &mut Memory::with(5));
    assert_eq!(counters.through(), Seq(5));
}

#[test]
fn what_became_of_a_line_is_asked_when_nobody_knows() {
    /// A sink that keeps lines, or loses them, and never says so.
    #[derive(Debug)]
    struct Mute(Arc<Mutex<Store>>, bool);

    impl Sink for Mute {
        fn through(&mut self, log: LogId) -> Result<Seq, SinkFault> {
            self.0.through(log)
        }

        fn append(&mut self, stretch: Stretch, line: &str) -> Result<(), SinkFault> {
            self.1 = !self.1;
            if self.1 {
                self.0.append(stretch, line)?;
            }
            Err(SinkFault::Absent { socket: "/s".into(), what: "the answer was lost".to_owned() })
        }

        fn set_aside(&mut self, log: LogId) -> Result<(), SinkFault> {
            self.0.set_aside(log)
        }
    }

    let place = tempfile::tempdir().unwrap();
    let store = Arc::new(Mutex::new(store(place.path()).unwrap()));
    let mut counters = Counters::new(Box::new(Mute(store, false)), LOG, SMALL, Seq(0), NOW);
    let mut ledger = Memory::with(25);
    let mut lost = 0;
    while !counters.flush(&mut ledger, NOW).is_ok_and(|flushed| flushed.caught_up) {
        lost += 1;
        assert!(lost < 20);
    }
    assert!(lost >= 3, "each line's answer was lost");
    check(place.path(), 25);
}

#[test]
fn what_is_set_aside_is_counted_anew_also_after_a_crash_in_the_middle() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(150);
    let mut counters = open(place.path()).unwrap();
    flush_all(&mut counters, &mut ledger);
    let files = fs::read_dir(place.path()).unwrap().count();
    counters.recount().unwrap();
    assert_eq!(counters.look().unwrap(), Seq(0));
    let aside = fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(&aside).unwrap().count(), files);
    flush_all(&mut counters, &mut ledger);
    drop(counters);
    // Some of its files have been moved, and it has not got its last name.
    let unfinished = aside.with_file_name("set-aside-7.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::rename(place.path().join("counters.000001.jsonl"), unfinished.join("counters.000001.jsonl")).unwrap();
    let mut counters = open(place.path()).unwrap();
    assert_eq!(counters.through(), Seq(0));
    assert_eq!(fs::read_dir(place.path().join("set-aside-7")).unwrap().count(), files);
    flush_all(&mut counters, &mut ledger);
    let (mut lines, mut begun) = (0, 0);
    let counted = read_lines(place.path(), &mut || begun += 1, &mut |_| lines += 1).unwrap();
    assert_eq!((counted, begun), (Stretch { log: LOG, from: Seq(1), through: Seq(150) }, 1));
    assert!(lines >= 15, "{lines}");
}

#[test]
fn a_line_from_before_is_not_taken_by_counters_that_are_counted_anew() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(25);
    flush_all(&mut open(place.path()).unwrap(), &mut ledger);
    let lines = fs::read_to_string(place.path().join("counters.jsonl")).unwrap();
    let late = lines.split_inclusive('\n').nth(1).unwrap();
    let mut sink = store(place.path()).unwrap();
    sink.set_aside(LOG).unwrap();
    let stretch = Line::parse(late.as_bytes()).unwrap().stretch();
    assert!(matches!(sink.append(stretch, late), Err(SinkFault::OutOfPlace { expected: Seq(1), found: Seq(11) })));
    let first = lines.split_inclusive('\n').next().unwrap();
    sink.append(Line::parse(first.as_bytes()).unwrap().stretch(), first).unwrap();
    sink.append(stretch, late).unwrap();
}

#[test]
fn what_cannot_be_moved_aside_is_moved_before_anything_else_is_written() {
    let place = tempfile::tempdir().unwrap();
    let mut ledger = Memory::with(12);
    let mut counters = open(place.path()).unwrap();
    flush_all(&mut counters, &mut ledger);
    // Whatever is moved there is refused by a directory of its name.
    let mut sink = {
        drop(counters);
        store(place.path()).unwrap()
    };
    let blocked = place.path().join("blocked");
    fs::create_dir_all(blocked.join("counters.jsonl/full")).unwrap();
    sink.aside_in(&blocked);
    assert!(sink.through(LOG).is_err(), "nothing is told before all of it has been moved");
    fs::remove_dir_all(blocked.join("counters.jsonl")).unwrap();
    assert_eq!(sink.through(LOG).unwrap(), Seq(0));
    drop(sink);
    fs::remove_dir_all(&blocked).unwrap();
    flush_all(&mut open(place.path()).unwrap(), &mut ledger);
    check(place.path(), 12);
}
