//! Finding entries by place and by nonce over several segments, the lookup desk, scans, and `verify`.
use super::sample::{draft, entry, lane_batch_of, open, spends};
use super::storage::index_name;
use super::{segment_name, verify, Answer, Faults, LedgerError, LookupDesk, MemoryStorage, ReadFault, Reader, Storage, Told};
use crate::domain::{
    Entry, Found, HistoryAnswer, HistoryQuestion, Key, KeyId, KeyUse, LaneBatch, Nonce, Op, PageQuestion, Period, Question, Seq,
    UnixMs,
};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;

/// One issue to each of three accounts, then 100 batches of three debits: several segments. `alice` spends in all of them.
fn written(storage: &MemoryStorage) -> (super::Log<MemoryStorage>, Vec<Vec<u8>>) {
    let (mut log, _, _) = open(storage, SEGMENT).unwrap();
    let mut entries: Vec<_> = ["alice", "bob", "carol"].map(|name| entry(Op::Issue, "", name, 1000, 0)).into();
    log.append(&[lane_batch_of(0, 1, &entries)]).unwrap();
    for step in 0..100 {
        let other = ["bob", "carol"][step as usize % 2];
        let three = [
            entry(Op::Transfer, "alice", other, 1, 2 * step + 1),
            entry(Op::Transfer, other, "alice", 1, step / 2 + 1),
            entry(Op::Hold, "alice", "escrow", 1, 2 * step + 2),
        ];
        log.append(&[lane_batch_of(0, entries.len() as u64 + 1, &three)]).unwrap();
        entries.extend(three);
    }
    (log, entries)
}

fn debit(account: &str, nonce: u64) -> Question {
    Question::Debit { account: account.into(), nonce: Nonce(nonce) }
}

fn page_of(account: &str, before: Option<u64>, limit: usize) -> PageQuestion {
    PageQuestion { account: account.into(), before: before.map(Seq), limit }
}

fn check_finds(reader: &Reader<MemoryStorage>, entries: &[Vec<u8>]) {
    for (seq, bytes) in (1..).zip(entries) {
        let at = reader.find(&Question::At(Seq(seq))).unwrap().expect("every place is found");
        assert_eq!((&at.entry[..], at.seq), (&bytes[..], Seq(seq)));
        let (entry, _) = Entry::parse(bytes).unwrap();
        if let Some(from) = entry.from() {
            let found = reader.find(&debit(from.as_str(), entry.nonce().unwrap().0)).unwrap();
            assert_eq!(found, Some(at), "{from} {:?}", entry.nonce());
        }
    }
    for nothing in [Question::At(Seq(0)), Question::At(Seq(entries.len() as u64 + 1)), debit("alice", 201), debit("dave", 1)] {
        assert_eq!(reader.find(&nothing).unwrap(), None, "{nothing:?}");
    }
}

#[test]
fn every_entry_is_found_by_place_and_by_nonce_before_and_after_reopening() {
    let storage = MemoryStorage::new();
    let (log, entries) = written(&storage);
    check_finds(&log.reader(), &entries);
    drop(log);
    let (log, _, _) = open(&storage, SEGMENT).unwrap();
    let names = storage.list().unwrap();
    assert!(names.contains(&index_name(6)) && names.contains(&segment_name(7)), "{names:?}");
    check_finds(&log.reader(), &entries);
}

#[test]
fn the_index_is_made_again_when_it_is_damaged_missing_or_cannot_be_written() {
    let storage = MemoryStorage::new();
    let (log, entries) = written(&storage);
    let reader = log.reader();
    while reader.index_one_segment().unwrap() {}
    assert!(!reader.index_one_segment().unwrap());
    for segment in 1..=6 {
        storage.tamper(&index_name(segment), |bytes| {
            let middle = 4096 + (segment as usize * 31) % 400;
            bytes[middle] ^= 1;
        });
    }
    storage.remove(&index_name(3)).unwrap();
    check_finds(&reader, &entries);
    for segment in 1..=6 {
        storage.remove(&index_name(segment)).unwrap();
    }
    storage.limit_bytes(Some(0));
    check_finds(&reader, &entries);
    assert!(!storage.list().unwrap().contains(&index_name(1)));
}

/// The positions of the entries of an account, newest first.
fn positions(entries: &[Vec<u8>], account: &str) -> Vec<u64> {
    let is_party = |bytes: &[u8]| {
        let entry = Entry::parse(bytes).unwrap().0;
        [entry.from(), entry.to()].into_iter().flatten().any(|party| party.as_str() == account)
    };
    let seqs = 1..=entries.len() as u64;
    seqs.rev().filter(|seq| is_party(&entries[*seq as usize - 1])).collect()
}

/// Reads the entries of an account page by page; how many pages there were.
fn check_entries(reader: &Reader<MemoryStorage>, entries: &[Vec<u8>], account: &str, limit: usize) -> usize {
    let (mut read, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = reader.page(&page_of(account, before, limit)).unwrap();
        assert!(page.entries.len() <= limit);
        page.entries.iter().for_each(|found| assert_eq!(&found.entry[..], entries[found.seq.0 as usize - 1]));
        read.extend(page.entries.iter().map(|found| found.seq.0));
        pages += 1;
        before = page.before.map(|before| before.0);
        if before.is_none() {
            break;
        }
    }
    assert_eq!(read, positions(entries, account), "{account} by {limit}");
    pages
}

#[test]
fn entries_of_an_account_are_read_backwards_and_a_page_makes_one_index_at_most() {
    let storage = MemoryStorage::new();
    let (log, entries) = written(&storage);
    let reader = log.reader();
    let made = || storage.list().unwrap().iter().filter(|name| name.ends_with(".idx")).count();
    let first = reader.page(&page_of("carol", None, 1000)).unwrap();
    assert!(made() == 1 && !first.entries.is_empty(), "the page ends where an index had to be made");
    assert_eq!(first.before.map(|before| before.0), Some(first.entries.last().unwrap().seq.0), "and says where to go on");
    for limit in [1, 7, 1000] {
        for account in ["alice", "bob", "carol", "escrow", "nobody"] {
            check_entries(&reader, &entries, account, limit);
        }
    }
    assert_eq!(made(), 7);
    assert_eq!(check_entries(&reader, &entries, "alice", 1000), 1, "with all indexes there it is one page");
    let pages = check_entries(&reader, &entries, "alice", 25);
    assert_eq!(pages, positions(&entries, "alice").len().div_ceil(25), "no page is empty, the last one included");
    for segment in 1..=7 {
        storage.tamper(&index_name(segment), |bytes| bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x11));
    }
    check_entries(&reader, &entries, "bob", 10);
    check_entries(&log.reader(), &entries, "alice", 10);
}

#[test]
fn an_old_key_is_found_by_its_account_and_only_in_its_time() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let keyed = |op, from, to, nonce, key: &str, ts| {
        let mut bytes = Vec::new();
        let draft = crate::domain::Draft { key: Key::new(key).unwrap(), ts: UnixMs(ts), ..draft(op, from, to, 1, nonce) };
        draft.encode(&mut bytes);
        bytes
    };
    let mut entries = Vec::new();
    for nonce in 1..=600u64 {
        // Each key is used twice, and by another account as well.
        let key = format!("k{}", nonce % 300);
        let three = [
            keyed(Op::Issue, "", "alice", 0, &format!("i{nonce}"), nonce),
            keyed(Op::Transfer, "alice", "bob", nonce, &key, nonce),
            keyed(Op::Issue, "", "bob", 0, &key, nonce),
        ];
        log.append(&[lane_batch_of(0, entries.len() as u64 + 1, &three)]).unwrap();
        entries.extend(three);
    }
    let reader = log.reader();
    let always = Period { first: UnixMs(0), last: UnixMs(u64::MAX) };
    let find = |account: &str, key: &str, accepted| {
        let question = Question::Key(Box::new(KeyUse { account: account.into(), key: key.into(), accepted }));
        reader.find(&question).unwrap().map(|found| found.seq.0)
    };
    for (account, last) in [("alice", 2), ("bob", 3)] {
        assert_eq!(find(account, "k7", always), Some(306 * 3 + last), "the newest use");
        assert_eq!(find(account, "k300", always), None);
    }
    assert_eq!((find("alice", "i9", always), find("bob", "i9", always)), (Some(25), None));
    let early = Period { first: UnixMs(0), last: UnixMs(20) };
    assert_eq!(find("alice", "k7", early), Some(20), "segments of another time are passed over");
    assert_eq!(find("alice", "k7", Period { first: UnixMs(10_000), last: UnixMs(20_000) }), None);

    let mut seen: Vec<(KeyId, Period)> = Vec::new();
    let take = &mut |keys: &[KeyId], accepted| {
        seen.extend(keys.iter().map(|key| (*key, accepted)));
        ControlFlow::Continue(())
    };
    reader.keys_before(Seq(900), UnixMs(0), take).unwrap();
    for (seq, bytes) in (1..900).zip(&entries) {
        let entry = Entry::parse(bytes).unwrap().0;
        let id = KeyId::of(entry.owner(), entry.key());
        let known =
            seen.iter().any(|(key, accepted)| *key == id && accepted.overlaps(Period { first: entry.ts(), last: entry.ts() }));
        assert!(known, "entry {seq}");
    }
    assert!(seen.len() < 1200, "segments that begin later are left out");
    let mut late = 0;
    let count = &mut |keys: &[KeyId], accepted: Period| {
        assert!(keys.is_empty() || accepted.last >= UnixMs(590), "of no use");
        late += keys.len();
        ControlFlow::Continue(())
    };
    reader.keys_before(log.head().0, UnixMs(590), count).unwrap();
    assert!(late >= 30, "the segment that is being written is among them");
    let mut first = 0;
    let enough = &mut |keys: &[KeyId], _| {
        first += keys.len();
        if first > 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    reader.keys_before(Seq(900), UnixMs(0), enough).unwrap();
    assert!(first > 0 && first < seen.len(), "it ends when the receiver has enough");
}

#[test]
fn a_reader_follows_the_writer() {
    let storage = MemoryStorage::new();
    let (mut log, mut entries) = written(&storage);
    let reader = log.reader();
    for step in 0..40 {
        let nonce = 201 + step;
        assert_eq!(reader.find(&debit("alice", nonce)).unwrap(), None);
        let batch = spends(0, 1, "alice", nonce..nonce + 1);
        entries.push(batch.bytes.clone());
        log.append(&[batch]).unwrap();
        assert_eq!(reader.find(&debit("alice", nonce)).unwrap().unwrap().seq, log.head().0);
    }
    assert_eq!(reader.head(), Seq(entries.len() as u64));
}

#[test]
fn a_scan_goes_on_where_the_last_one_ended() {
    let storage = MemoryStorage::new();
    let (mut log, entries) = written(&storage);
    let reader = log.reader();
    let mut seen = Vec::new();
    let mut from = Seq(0);
    loop {
        let mut left = 7;
        let next = reader
            .scan(from, &mut |seq, root, entry| {
                assert_eq!(seq.0, seen.len() as u64 + 1);
                assert_ne!(*root, [0; 32]);
                seen.push(entry.bytes().to_vec());
                left -= 1;
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        if left > 0 {
            assert_eq!(next, Seq(entries.len() as u64 + 1));
            break;
        }
        from = next;
    }
    assert_eq!(seen, entries);
    log.append(&[spends(0, 1, "alice", 201..203)]).unwrap();
    let mut more = 0;
    let end = reader.scan(Seq(304), &mut |_, _, _| {
        more += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((end.unwrap(), more), (Seq(306), 2));
}

#[test]
fn damage_is_reported_and_never_returned_as_an_answer() {
    let storage = MemoryStorage::new();
    let (log, _) = written(&storage);
    let reader = log.reader();
    let found = reader.find(&Question::At(Seq(4))).unwrap().unwrap();
    let mut bytes = Vec::new();
    draft(Op::Transfer, "alice", "bob", 1, 1).encode(&mut bytes);
    assert!(Entry::parse(&found.entry).unwrap().0.same_request(&Entry::parse(&bytes).unwrap().0));
    storage.tamper(&segment_name(1), |bytes| bytes[8192 + 4096 + 250] ^= 4);
    assert_eq!(reader.find(&Question::At(Seq(4))).unwrap(), Some(found), "what was verified is kept");
    let reader = log.reader();
    let error = reader.find(&Question::At(Seq(4))).unwrap_err();
    assert!(matches!(&error, LedgerError::Damaged { offset: 12288, .. }), "{error}");
    assert!(reader.scan(Seq(1), &mut |_, _, _| ControlFlow::Continue(())).is_err());
    assert!(reader.find(&Question::At(Seq(7))).unwrap().is_some(), "its neighbour is still readable");
}

fn found(answer: Answer) -> Option<Found> {
    match answer.unwrap() {
        Told::Entry(found) => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_desk_answers_each_question_with_its_token_and_refuses_when_full() {
    let storage = MemoryStorage::new();
    let (log, entries) = written(&storage);
    let (send, answers) = crossbeam_channel::bounded(0);
    let desk =
        LookupDesk::spawn(Box::new(log.reader()), 3, Box::new(move |token: u64, answer| send.send((token, answer)).unwrap()))
            .unwrap();
    let mut asked = 0;
    while desk.ask(Question::At(Seq(asked + 1)), asked + 1).is_ok() {
        asked += 1;
    }
    assert!((3..=4).contains(&asked), "three wait and one may be being answered, not {asked}");
    assert_eq!((desk.ask(debit("alice", 1), 99), desk.ask_page(page_of("alice", None, 1), 98)), (Err(99), Err(98)));
    for expected in 1..=asked {
        let (token, answer) = answers.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((token, &found(answer).unwrap().entry[..]), (expected, &entries[expected as usize - 1][..]));
    }
    desk.ask(debit("carol", 50), 7).unwrap();
    assert!(found(answers.recv_timeout(Duration::from_secs(10)).unwrap().1).is_some());
    desk.ask_page(page_of("alice", Some(2), 5), 9).unwrap();
    let (token, answer) = answers.recv_timeout(Duration::from_secs(10)).unwrap();
    let Told::Page(page) = answer.unwrap() else { panic!("no page") };
    assert_eq!((token, page.entries[0].seq, page.before), (9, Seq(1), None));
    desk.ask_history(HistoryQuestion::Root, 8).unwrap();
    let (token, answer) = answers.recv_timeout(Duration::from_secs(10)).unwrap();
    let Told::History(answer) = answer.unwrap() else { panic!("no answer of the history") };
    let HistoryAnswer::Root(Ok(root)) = *answer else { panic!("{answer:?}") };
    assert_eq!((token, root.through, root.size), (8, log.head().0, 101));
    while !storage.list().unwrap().contains(&index_name(6)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(desk);
}

fn verified(batches: &[LaneBatch]) -> Result<super::Report, LedgerError> {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    batches.iter().for_each(|batch| assert!(log.append(std::slice::from_ref(batch)).is_ok()));
    verify(&storage, &mut |_| ()).map_err(|refuted| refuted.fault)
}

#[test]
fn verify_reports_a_sound_log_beside_its_writer() {
    let storage = MemoryStorage::new();
    let (log, entries) = written(&storage);
    let mut told = Vec::new();
    let report = verify(&storage, &mut |progress| told.push((progress.segment, progress.segments))).unwrap();
    assert_eq!(told, (1..=8).map(|segment| (segment, 8)).collect::<Vec<_>>());
    assert_eq!((report.head, report.root), log.head());
    assert_eq!((report.here.entries, report.here.batches, report.accounts), (entries.len() as u64, 101, 4));
    let totals = &report.assets[0];
    assert_eq!((totals.issued, totals.burned, totals.balances, totals.held), (3000, 0, 3000, 100));
    storage.tamper(&segment_name(8), |bytes| bytes[60 << 10] = 1);
    let torn = verify(&storage, &mut |_| ()).unwrap().torn.expect("remains are told, not touched");
    assert_eq!(torn, verify(&storage, &mut |_| ()).unwrap().torn.unwrap());
}

#[test]
fn verify_explains_the_first_broken_entry() {
    let issue = lane_batch_of(0, 1, &[entry(Op::Issue, "", "a", 10, 0)]);
    let cases = [
        (vec![entry(Op::Transfer, "a", "b", 5, 1), entry(Op::Transfer, "a", "b", 6, 2)], Seq(3), "5 free"),
        (vec![entry(Op::Transfer, "a", "b", 1, 1), entry(Op::Transfer, "a", "b", 1, 1)], Seq(3), "nonce 1 after 1"),
        (vec![entry(Op::Hold, "a", "e", 5, 1), entry(Op::Capture, "e", "b", 6, 1)], Seq(3), "5 held"),
        (vec![entry(Op::Hold, "a", "e", 5, 1), entry(Op::Transfer, "e", "b", 1, 1)], Seq(3), "0 free"),
    ];
    for (entries, expected, text) in cases {
        match verified(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "a", 10, 0)]), lane_batch_of(0, 2, &entries)]) {
            Err(LedgerError::Broken { seq, what, offset, .. }) => {
                assert_eq!((seq, offset), (expected, 8192 + 4096));
                assert!(what.contains(text), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(verified(&[issue]).is_ok());
    let nothing = verify(&MemoryStorage::new(), &mut |_| ()).unwrap_err();
    assert!(nothing.to_string().contains("no ledger here"));
}

#[test]
fn the_entry_that_breaks_a_rule_is_told_with_its_accounts_before_it() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let bad = entry(Op::Transfer, "a", "b", 6, 2);
    let entries = [entry(Op::Issue, "", "a", 10, 0), entry(Op::Transfer, "a", "b", 5, 1), bad.clone(), bad.clone()];
    assert!(log.append(&[lane_batch_of(0, 1, &entries)]).is_ok());
    let suspect = verify(&storage, &mut |_| ()).unwrap_err().suspect.expect("the books say no");
    assert_eq!((suspect.found.seq, &*suspect.found.entry, suspect.log_id), (Seq(3), &bad[..], log.log_id()));
    let told: Vec<_> =
        suspect.accounts.iter().map(|books| (&*books.account, books.last_nonce.0, books.values[0].1.free)).collect();
    assert_eq!(told, [("a", 1, 5), ("b", 0, 5)]);
}

#[test]
fn keys_of_a_time_that_is_not_over_are_told_also_from_before_the_clock_went_back() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    // Two segments late, and then some of an hour before.
    for number in 0..60 {
        let ts = UnixMs(if number < 30 { 10_000_000 } else { 6_400_000 });
        let entries: Vec<Vec<u8>> = (0..40)
            .map(|at| {
                let key = format!("k-{number}-{at}");
                let mut bytes = Vec::new();
                crate::domain::Draft { key: Key::new(&key).unwrap(), ts, ..draft(Op::Issue, "", "alice", 1, 0) }
                    .encode(&mut bytes);
                bytes
            })
            .collect();
        log.append(&[lane_batch_of(0, 1 + 40 * number, &entries)]).unwrap();
    }
    let early = KeyId::of(crate::domain::Account::new("alice").unwrap(), Key::new("k-0-0").unwrap());
    let told = |reader: &Reader<MemoryStorage>| {
        let mut found = false;
        let look = &mut |keys: &[KeyId], _| {
            found |= keys.contains(&early);
            ControlFlow::Continue(())
        };
        reader.keys_before(Seq(2_401), UnixMs(9_000_000), look).unwrap();
        found
    };
    let reader = log.reader();
    assert!(storage.list().unwrap().contains(&segment_name(4)) && told(&reader), "without indexes");
    while reader.index_one_segment().unwrap() {}
    assert!(told(&reader), "with them");
}

/// A disk that can read so many bytes of each file, and counts those that it has read.
struct Meter {
    readable: u64,
    read: u64,
}

impl Faults for Meter {
    fn read(&mut self, _: &str, offset: u64, bytes: usize) -> Option<ReadFault> {
        self.read += bytes as u64;
        (offset + bytes as u64 > self.readable).then_some(ReadFault::Error)
    }
}

#[test]
fn keys_of_the_segment_that_is_written_come_while_it_is_read_and_nothing_behind_their_end_is() {
    const BATCHES: u64 = 400;
    const WINDOW: u64 = 1 << 20;
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, 16 << 20).unwrap();
    log.append(&[lane_batch_of(0, 1, &[entry(Op::Issue, "", "alice", 1 << 40, 0)])]).unwrap();
    for batch in 0..BATCHES {
        log.append(&[spends(0, 2 + 200 * batch, "alice", 1 + 200 * batch..201 + 200 * batch)]).unwrap();
    }
    let (head, reader) = (log.head().0, log.reader());
    assert!(!storage.list().unwrap().contains(&segment_name(2)));
    let meter = Arc::new(Mutex::new(Meter { readable: u64::MAX, read: 0 }));
    storage.set_faults(meter.clone());
    let read = |end: Seq, since: UnixMs| {
        let (mut keys, mut silent) = (0, 0);
        meter.lock().unwrap().read = 0;
        let told = reader.keys_before(end, since, &mut |told, _| {
            keys += told.len() as u64;
            silent = silent.max(std::mem::take(&mut meter.lock().unwrap().read));
            ControlFlow::Continue(())
        });
        told.map(|()| (keys, silent))
    };
    for (since, expected) in [(UnixMs(0), head.0), (UnixMs(u64::MAX), 0)] {
        let (keys, silent) = read(Seq(head.0 + 1), since).unwrap();
        assert_eq!(keys, expected);
        // What is read ahead, and what has to come together before something is said.
        assert!(silent <= 3 * WINDOW, "{silent} bytes were read without a word");
    }
    // Whoever wants the keys of the first half needs no more than that half.
    meter.lock().unwrap().readable = 5 * WINDOW;
    assert!(read(Seq(head.0 + 1), UnixMs(0)).is_err());
    assert_eq!(read(Seq(10_001), UnixMs(0)).unwrap().0, 10_000, "not one more");
}
