//! A small ledger with snapshots, indexes and a history, whose files are changed anywhere: what is still read was there before. And the
//! formats in these files, read from any bytes: what is accepted is written again as the same bytes.
use crate::domain::{AccountState, Draft, Entry, Key, LogId, Op, Period, Seq, TokenId, UnixMs};
use crate::ledger::batch::{for_each_entry, sections};
use crate::ledger::history::Peaks;
use crate::ledger::index_file::IndexFile;
use crate::ledger::index_format::{hashes, Head, Pair, Pairs, Run, Subject};
use crate::ledger::layout::{BatchHeader, Fault, BLOCK_BYTES};
use crate::ledger::places::Place;
use crate::ledger::sample::{draft, entry, lane_batch_of, open};
use crate::ledger::snapshot::{make, Cut, Snapshot, Tail};
use crate::ledger::storage::{index_name, index_number, ReadFile, Storage, StorageFile};
use crate::ledger::{segment_number, MemoryStorage, Verification};
use ahash::RandomState;
use std::sync::OnceLock;

/// Six batches of one block each fit a segment.
const SEGMENT: u64 = 8 * BLOCK_BYTES as u64;
const LOG: LogId = LogId([7; 16]);
const ENTRIES: u64 = 15;

/// A ledger that was closed in order, its entries, a snapshot after the last one, and the index of the first segment.
struct Ledger {
    storage: MemoryStorage,
    entries: Vec<Vec<u8>>,
    states: Vec<String>,
    pairs: Pairs,
}

const SUBJECT: Subject = Subject { log_id: LOG, segment: 1, first: Seq(1), last: Seq(6) };

fn ledger() -> &'static Ledger {
    static LEDGER: OnceLock<Ledger> = OnceLock::new();
    LEDGER.get_or_init(|| {
        let storage = MemoryStorage::new();
        let (mut log, ..) = open(&storage, SEGMENT).expect("an empty directory");
        let mut entries = Vec::new();
        for seq in 1..=ENTRIES {
            let bytes = match seq {
                1 => entry(Op::Issue, "", "a", 1_000, 0),
                2 => entry(Op::Hold, "a", "escrow", 10, 1),
                _ => transfer(seq),
            };
            log.append(&[lane_batch_of(0, seq, std::slice::from_ref(&bytes))]).expect("a storage that does not fail");
            entries.push(bytes);
        }
        while log.reader().index_one_segment().expect("an index") {}
        log.close().expect("a storage that does not fail");
        let mut tail = Tail::new(Seq(0), UnixMs(0), Vec::new(), RandomState::with_seed(1));
        let mut pairs = Pairs::new();
        for (at, bytes) in entries.iter().enumerate() {
            let (entry, _) = Entry::parse(bytes).expect("a good entry");
            tail.apply(Seq(at as u64 + 1), &entry).expect("a good history");
            if Seq(at as u64 + 1) <= SUBJECT.last {
                pairs.add(at as u32, &entry);
            }
        }
        pairs.sort();
        let last_batch = Place { segment: 1, offset: 8192, first_seq: Seq(1) };
        let cut =
            Cut { last_batch, root: [9; 32], epoch: 3, batches: 1, peaks: Peaks::new(1, vec![[4; 32]]), ..Cut::beginning(LOG) };
        let snapshot = make::<_, MemoryStorage>(&storage, SNAPSHOT, None, &tail, &cut, None).expect("a snapshot");
        let states = states(&snapshot).expect("a good snapshot");
        Ledger { storage, entries, states, pairs }
    })
}

/// Every third one counts against a budget, of several tokens.
fn transfer(seq: u64) -> Vec<u8> {
    let (key, mut bytes) = (format!("key-{seq}"), Vec::new());
    let draft = draft(Op::Transfer, "a", ["b", "c"][seq as usize % 2], u128::from(seq), seq - 1);
    let key = Key::new(&key).expect("a good key");
    Draft { key, budget: seq % 3 == 0, token: TokenId([seq as u8 % 4; 16]), ..draft }.encode(&mut bytes);
    bytes
}

/// Not under a name that the ledger looks for: its start does not belong to the chain.
const SNAPSHOT: &str = "fuzzed";

fn states(snapshot: &Snapshot<impl ReadFile>) -> Result<Vec<String>, String> {
    let mut states = Vec::new();
    let mut note = |state: &AccountState<'_>| {
        states.push(format!("{state:?}"));
        Ok(())
    };
    snapshot.for_each_account(&mut note).map_err(|fault| fault.what)?;
    let mut note = |token, spent| {
        states.push(format!("{token:?} {spent}"));
        Ok(())
    };
    snapshot.for_each_budget(&mut note).map_err(|fault| fault.what)?;
    Ok(states)
}

/// A copy of the ledger in which the files of these names were changed. `input` is a row of changes: file, kind, 2 bytes of place, and
/// one of length, then as many bytes. Returns the names of what was changed.
fn changed(names: &[String], mut input: &[u8]) -> (MemoryStorage, Vec<String>) {
    let storage = ledger().storage.fork();
    let mut touched = Vec::new();
    while let [file, kind, low, high, length, rest @ ..] = input {
        let name = &names[usize::from(*file) % names.len()];
        let (new, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        storage.tamper(name, |bytes| {
            // Every block can be reached, and its beginning and end more easily than the rest.
            let wanted = usize::from(u16::from_le_bytes([*low, *high]));
            let at = wanted.min(bytes.len());
            match kind % 5 {
                0 => bytes[at..].iter_mut().zip(new).for_each(|(byte, new)| *byte = *new),
                1 => bytes[at..].iter_mut().zip(new).for_each(|(byte, new)| *byte ^= *new),
                2 => bytes.truncate(at),
                3 => drop(bytes.splice(at..at, new.iter().copied())),
                _ => {
                    // A block that belongs elsewhere.
                    let from = usize::from(*length) * BLOCK_BYTES;
                    let to = at / BLOCK_BYTES * BLOCK_BYTES;
                    if from.max(to) + BLOCK_BYTES <= bytes.len() {
                        bytes.copy_within(from..from + BLOCK_BYTES, to);
                    }
                }
            }
        });
        touched.push(name.clone());
        input = rest;
    }
    (storage, touched)
}

/// Changes to all files of a ledger: what opens has the entries that were there, from the first one on and without gaps; all of them, if
/// what notes the head was not touched. A verification never finds more.
pub(crate) fn changed_ledger(input: &[u8]) {
    let ledger = ledger();
    let names: Vec<String> = ledger.storage.list().expect("a directory").into_iter().filter(|name| name != SNAPSHOT).collect();
    let (storage, touched) = changed(&names, input);
    let is_noted = touched.iter().all(|name| segment_number(name).is_some() || index_number(name).is_some());
    let verified = Verification::default().run(&storage, &mut |_| ());
    let opened = open(&storage.fork(), SEGMENT);
    if let Ok((.., entries)) = &opened {
        assert!(ledger.entries.starts_with(entries), "an entry is read that was not there");
        assert!(!is_noted || entries.len() == ledger.entries.len(), "{} of {ENTRIES} entries are left", entries.len());
    }
    if let Ok(report) = verified {
        assert!(report.head <= Seq(ENTRIES));
        assert!(opened.is_ok(), "verified, and does not open");
    }
    if touched.is_empty() {
        assert!(opened.is_ok());
    }
}

/// Changes to a snapshot: what is read of it is what was written, or nothing.
pub(crate) fn changed_snapshot(input: &[u8]) {
    let (storage, touched) = changed(&[SNAPSHOT.to_owned()], input);
    let read = Snapshot::open(&storage, SNAPSHOT).map_err(|fault| fault.what).and_then(|snapshot| states(&snapshot));
    assert!(read.is_ok() || !touched.is_empty());
    if let Ok(states) = read {
        assert_eq!(states, ledger().states);
    }
}

/// Changes to an index file: an answer is the one that was right before, or there is none.
pub(crate) fn changed_index(input: &[u8]) {
    let ledger = ledger();
    let (storage, touched) = changed(&[index_name(1)], input);
    let file = storage.open(&index_name(1)).expect("the index is there");
    let opened = IndexFile::open(file, SUBJECT);
    assert!(opened.is_ok() || !touched.is_empty());
    let Ok(index) = opened else { return };
    for bytes in &ledger.entries {
        let (entry, _) = Entry::parse(bytes).expect("a good entry");
        for (run, hash) in hashes(&entry) {
            let Ok(found) = index.newest(run, hash, u32::MAX, 20) else { continue };
            assert_eq!(found, ledger.pairs.newest(run, hash, u32::MAX, 20));
        }
    }
}

/// An index file whose checks are right and whose contents are anything: searching it ends, and finds no entry behind the end that was
/// asked for. `input` says how many pairs the runs have, then gives pairs, a few for each block.
pub(crate) fn index_blocks(input: &[u8]) {
    let Some((counts, pairs)) = input.split_at_checked(24) else { return };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let pairs: Vec<Pair> =
        pairs.chunks_exact(12).map(|bytes| Pair { hash: number(&bytes[..8]), at: number(&bytes[8..]) as u32 }).collect();
    let counts = [&counts[..8], &counts[8..16], &counts[16..]].map(number);
    let head = Head { subject: SUBJECT, pairs: counts, accepted: Period::EMPTY };
    // As many blocks as the head says, unless it says too many.
    let wanted = head.file_bytes().map_or(0, |bytes| bytes / BLOCK_BYTES as u64 - 1).min(40);
    let mut bytes = head.encode().to_vec();
    let groups = pairs.chunks(3).chain(std::iter::repeat(&[][..]));
    for (number, pairs) in (1..=wanted).zip(groups) {
        bytes.extend_from_slice(&head.encode_block(number, pairs));
    }
    let storage = MemoryStorage::new();
    storage.create("index").and_then(|file| file.write_at(&bytes, 0)).expect("a storage that does not fail");
    let Ok(index) = IndexFile::open(storage.open("index").expect("just made"), SUBJECT) else { return };
    for run in Run::ALL {
        for hash in [0, u64::MAX].into_iter().chain(pairs.iter().map(|pair| pair.hash)) {
            let found = index.newest(run, hash, 6, 20).unwrap_or_default();
            assert!(found.len() <= 20 && found.iter().all(|at| *at < 6), "{found:?}");
        }
    }
}

/// Entries, one behind the other, and the sections of a batch: what is read is encoded again as the same bytes.
pub(crate) fn entries(input: &[u8]) {
    let mut rest = input;
    while let Ok((entry, after)) = Entry::parse(rest) {
        assert_eq!([entry.bytes(), after].concat(), rest);
        let (op, from, to, asset, amount) = (entry.op(), entry.from(), entry.to(), entry.asset(), entry.amount());
        let (nonce, key, memo, corr) = (entry.nonce(), entry.key(), entry.memo(), entry.corr());
        let (token, ts) = (entry.token(), entry.ts());
        let (ceiling, budget) = (entry.counts_against_ceiling(), entry.counts_against_budget());
        let daily_max = entry.counts_against_daily_max();
        let mut again = Vec::new();
        Draft { op, from, to, asset, amount, nonce, key, memo, corr, token, ceiling, budget, daily_max, ts }.encode(&mut again);
        assert_eq!(again, entry.bytes(), "{entry:?}");
        assert!(entry.same_request(&entry) && hashes(&entry).count() >= 2);
        rest = after;
    }
    let [claimed_sections, claimed_entries, body @ ..] = input else { return };
    let header = BatchHeader {
        sections: (*claimed_sections).into(),
        epoch: 1,
        first_seq: Seq(1),
        entries: (*claimed_entries).into(),
        body_bytes: body.len() as u32,
        segment: 1,
        offset: 0,
        durable_through: Seq(0),
        log_id: LOG,
        prev: [0; 32],
        body_hash: [0; 32],
    };
    let Ok(found) = sections(&header, body) else { return };
    assert_eq!(found.iter().map(|section| section.bytes.len() + 24).sum::<usize>(), body.len());
    assert_eq!(found.iter().map(|section| section.count).sum::<u32>(), header.entries);
    let mut next = 1;
    let each = |seq: Seq, _: Entry<'_>| {
        assert_eq!(seq, Seq(next));
        next += 1;
        Ok(())
    };
    if for_each_entry::<Fault>(&header, body, each).is_ok() {
        assert_eq!(next, 1 + u64::from(header.entries));
    }
}

/// Inputs from which fuzzers of changes begin.
pub(crate) fn changes_seeds() -> Vec<Vec<u8>> {
    let cut = [2, 2, 0, 0x30, 0];
    let flip = [3, 1, 0x10, 0x20, 1, 1];
    let write = [0, 0, 0, 0x20, 3, b'x', b'y', b'z'];
    let insert = [1, 3, 8, 0, 2, 0, 0];
    let moved = [4, 4, 0, 0x40, 2];
    vec![Vec::new(), cut.into(), flip.into(), write.into(), insert.into(), moved.into(), [&cut[..], &flip].concat()]
}

/// Inputs from which a fuzzer of [`index_blocks`] begins.
pub(crate) fn index_blocks_seeds() -> Vec<Vec<u8>> {
    let counts = |counts: [u64; 3]| counts.map(u64::to_le_bytes).concat();
    let block = [&7u64.to_le_bytes()[..], &3u32.to_le_bytes(), &9u64.to_le_bytes(), &1u32.to_le_bytes()].concat();
    vec![
        [counts([2, 2, 2]), block.repeat(3)].concat(),
        [counts([6, 6, 12]), block.clone()].concat(),
        [counts([u64::MAX; 3]), block].concat(),
    ]
}

/// Inputs from which a fuzzer of [`entries`] begins.
pub(crate) fn entries_seeds() -> Vec<Vec<u8>> {
    let entries = &ledger().entries;
    let section = |bytes: &[u8], count: u32| {
        let head = [&[0, 0, 0, 0][..], &count.to_le_bytes(), &1u64.to_le_bytes(), &(bytes.len() as u32).to_le_bytes(), &[0; 4]];
        [&head.concat(), bytes].concat()
    };
    let one = [&[1, 1][..], &section(&entries[0], 1)].concat();
    let two = [&[2, 3][..], &section(&entries[1..3].concat(), 2), &section(&entries[3], 1)].concat();
    vec![entries[..3].concat(), one, two]
}
