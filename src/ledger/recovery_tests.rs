//! Opening a log: what was appended is found again, a torn tail goes, damage inside is refused with its place, whatever is missing
//! or foreign is named. All over the disk in memory.
use super::engine::Engine as _;
use super::layout::{SegmentHeader, BATCH_HEAD_BYTES, BLOCK_BYTES, SEGMENT_HEAD_BYTES};
use super::mark::EPOCH_NAME;
use super::sample::{lane_batch, open};
use super::witness::WITNESS_NAME;
use super::{segment_name, verify, AppendError, LedgerError, Log, MemoryStorage, Options, ReadFile, Storage, StorageFile};
use crate::domain::{Entry, LogId, Seq};

const SEGMENT: u64 = 32 << 10;

/// A log of these batches of one lane, each with so many entries; not closed in order, and without a witness of the last commit, as
/// a power loss leaves it. Also the offsets of the batches.
fn written(counts: &[u32]) -> (MemoryStorage, Vec<u64>, Vec<Vec<u8>>) {
    let storage = MemoryStorage::new();
    let (mut log, recovery, _) = open(&storage, SEGMENT).unwrap();
    assert_eq!((recovery.head, recovery.epoch, recovery.root, recovery.torn), (Seq(0), 1, [0; 32], None));
    let (mut next, mut offsets, mut entries) = (1, Vec::new(), Vec::new());
    for count in counts {
        let batch = lane_batch(0, next, *count);
        let mut rest = &batch.bytes[..];
        while !rest.is_empty() {
            let (entry, after) = Entry::parse(rest).unwrap();
            entries.push(entry.bytes().to_vec());
            rest = after;
        }
        let placed = log.append(&[batch]).unwrap();
        assert_eq!(placed.first_seq, Seq(next));
        assert_eq!(log.head(), (Seq(next + u64::from(*count) - 1), placed.root));
        offsets.push(log.active.offset - super::layout::extent_bytes(super::batch::body_bytes(&[lane_batch(0, next, *count)])));
        next += u64::from(*count);
    }
    drop(log);
    storage.remove(WITNESS_NAME).unwrap();
    (storage, offsets, entries)
}

fn refusal(storage: &MemoryStorage) -> LedgerError {
    match open(storage, SEGMENT) {
        Ok((_, recovery, _)) => panic!("opened with {recovery:?}"),
        Err(error) => error,
    }
}

fn damaged(storage: &MemoryStorage) -> (String, u64, Seq, String) {
    let error = refusal(storage);
    let text = error.to_string();
    match error {
        LedgerError::Damaged { file, offset, expected, what } => {
            assert!(
                text.contains(&file) && text.contains(&offset.to_string()) && text.contains("ronctl ledger verify"),
                "{text}"
            );
            (file, offset, expected, what)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_entry_comes_back_over_many_segments_and_openings() {
    let storage = MemoryStorage::new();
    let mut expected = 0u64;
    let mut last_root = [0; 32];
    for epoch in 1..=6 {
        let (mut log, recovery, entries) = open(&storage, SEGMENT).unwrap();
        assert_eq!((recovery.epoch, recovery.head, recovery.root), (epoch, Seq(expected), last_root));
        assert_eq!(entries.concat(), lane_batch(0, 1, expected as u32).bytes);
        for _ in 0..9 {
            let count = 1 + (expected % 50) as u32;
            log.append(&[lane_batch(0, expected + 1, count)]).unwrap();
            expected += u64::from(count);
        }
        last_root = log.head().1;
        if epoch % 2 == 0 {
            log.close().unwrap();
        }
    }
    assert!(storage.list().unwrap().iter().filter(|name| name.starts_with("segment-")).count() > 5);
}

#[test]
fn one_commit_is_one_write_and_one_sync_and_a_witness() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let before = storage.operations();
    log.append(&[lane_batch(0, 1, 10), lane_batch(1, 1, 10)]).unwrap();
    assert_eq!(storage.operations(), (before.0 + 2, before.1 + 1));
}

#[test]
fn after_a_kill_damage_to_the_very_last_commit_is_refused() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    log.append(&[lane_batch(0, 1, 2)]).unwrap();
    let last = log.active.offset as usize;
    log.append(&[lane_batch(0, 3, 2)]).unwrap();
    drop(log);
    for byte in [0, 100, 300] {
        let rotten = storage.fork();
        rotten.tamper(&segment_name(1), |bytes| bytes[last + byte] ^= 1);
        let (_, offset, expected, what) = damaged(&rotten);
        assert_eq!((offset, expected), (last as u64, Seq(3)), "byte {byte}: {what}");
        let told = verify(&rotten, &mut |_| ()).unwrap_err().to_string();
        assert!(told.contains(&what), "the auditor says the same: {told}");
    }
    let lost = storage.fork();
    lost.tamper(&segment_name(1), |bytes| bytes[last..].fill(0));
    assert!(damaged(&lost).3.contains("durable up to entry 4"));
    // What survived a loss of power has a witness as soon as it was read, also where nobody takes a new epoch.
    let read_once = storage.fork();
    read_once.remove(WITNESS_NAME).unwrap();
    drop(Log::recover(read_once.clone(), &Options::for_simulation(SEGMENT, LogId([7; 16])), &mut |_, _, _| Ok(())).unwrap());
    read_once.tamper(&segment_name(1), |bytes| bytes[last] ^= 1);
    assert_eq!(damaged(&read_once).2, Seq(3));
    // Without marks it is a shorter log.
    storage.tamper(WITNESS_NAME, Vec::clear);
    assert_eq!(open(&storage, SEGMENT).unwrap().2.len(), 4);
}

#[test]
fn the_last_batch_cut_at_any_byte_is_dropped_and_only_that() {
    let (storage, offsets, entries) = written(&[3, 5, 60]);
    let last = offsets[2] as usize;
    let body: usize = entries[8..].iter().map(Vec::len).sum::<usize>() + super::layout::SECTION_HEAD_BYTES;
    let used = BATCH_HEAD_BYTES + body;
    assert!(used > BLOCK_BYTES, "the last batch spans blocks");
    for cut in 0..used {
        let as_zeros = storage.fork();
        as_zeros.tamper(&segment_name(1), |bytes| bytes[last + cut..].fill(0));
        let cut_short = storage.fork();
        cut_short.tamper(&segment_name(1), |bytes| bytes.truncate(last + cut));
        for (damaged, kind) in [(as_zeros, "zeros"), (cut_short, "short")] {
            let (mut log, recovery, found) = open(&damaged, SEGMENT).unwrap();
            assert_eq!(found, entries[..8], "{kind} from byte {cut}");
            assert_eq!(recovery.torn.is_some(), cut > 0, "{kind} from byte {cut}");
            if cut % 97 == 0 {
                log.append(&[lane_batch(0, 1, 2)]).unwrap();
                drop(log);
                let (_, recovery, again) = open(&damaged.crash(&mut || false), SEGMENT).unwrap();
                assert_eq!((again.len(), recovery.torn), (10, None), "{kind} from byte {cut}");
            }
        }
    }
    let padding_gone = storage.fork();
    padding_gone.tamper(&segment_name(1), |bytes| bytes.truncate(last + used));
    assert_eq!(open(&padding_gone, SEGMENT).unwrap().2, entries);
}

#[test]
fn a_bit_flipped_anywhere_inside_is_refused_with_its_place() {
    let (storage, offsets, _) = written(&[3, 5, 2]);
    for byte in 0..BLOCK_BYTES {
        let bad = storage.fork();
        bad.tamper(&segment_name(1), |bytes| bytes[offsets[1] as usize + byte] ^= 1 << (byte % 8));
        let (file, offset, expected, _) = damaged(&bad);
        assert_eq!((file, offset, expected), (format!("memory:{}", segment_name(1)), offsets[1], Seq(4)), "byte {byte}");
    }
    let wiped = storage.fork();
    wiped.tamper(&segment_name(1), |bytes| bytes[offsets[1] as usize..][..BLOCK_BYTES].fill(0));
    assert!(damaged(&wiped).3.contains("intact batch follows"));
}

#[test]
fn damage_in_a_sealed_segment_is_refused_even_at_its_end() {
    let (storage, _, _) = written(&[30; 14]);
    let sealed_end = (SEGMENT as usize) - BLOCK_BYTES;
    let wiped = storage.fork();
    wiped.tamper(&segment_name(1), |bytes| bytes[8192 + 4096..].fill(0));
    let (file, _, _, what) = damaged(&wiped);
    assert!(file.ends_with(&segment_name(1)) && what.contains("are missing"), "{what}");
    storage.tamper(&segment_name(1), |bytes| bytes[sealed_end + 4000] ^= 1);
    assert!(damaged(&storage).0.ends_with(&segment_name(1)));
}

#[test]
fn more_than_one_write_can_leave_is_not_a_torn_tail() {
    let (storage, offsets, _) = written(&[1]);
    let tail = offsets[0] as usize + BLOCK_BYTES;
    let torn = storage.fork();
    torn.tamper(&segment_name(1), |bytes| bytes[tail + 5000] = 1);
    let found = open(&torn, SEGMENT).unwrap().1.torn.unwrap();
    assert_eq!((found.offset, found.bytes), (tail as u64, 5001));
    // Beyond what the intact header of a torn batch claims for itself.
    let (storage, offsets, _) = written(&[1, 1]);
    storage.tamper(&segment_name(1), |bytes| {
        bytes[offsets[1] as usize + BATCH_HEAD_BYTES + 30] ^= 1;
        bytes[offsets[1] as usize + BLOCK_BYTES + 9] = 1;
    });
    assert!(damaged(&storage).3.contains("more than the one write"));
}

#[test]
fn padding_that_is_not_zero_behind_an_intact_body_is_damage_even_in_the_last_batch() {
    let (storage, offsets, _) = written(&[1, 1]);
    storage.tamper(&segment_name(1), |bytes| bytes[offsets[1] as usize + BLOCK_BYTES - 1] = 1);
    assert!(damaged(&storage).3.contains("padding"));
}

#[test]
fn after_an_orderly_close_even_the_last_batch_is_not_given_up() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    log.append(&[lane_batch(0, 1, 2)]).unwrap();
    log.close().unwrap();
    let flipped = storage.fork();
    flipped.tamper(&segment_name(1), |bytes| bytes[8192 + 300] ^= 1);
    assert!(damaged(&flipped).3.contains("durable up to entry 2"));
    let wiped = storage.fork();
    wiped.tamper(&segment_name(1), |bytes| bytes[8192..].fill(0));
    assert!(damaged(&wiped).3.contains("durable up to entry 2"));
    assert!(open(&storage, SEGMENT).is_ok());
}

#[test]
fn segment_headers_bear_one_bad_copy_and_no_more() {
    let (storage, _, entries) = written(&[3, 3]);
    for copy in 0..2 {
        let one = storage.fork();
        one.tamper(&segment_name(1), |bytes| bytes[copy * BLOCK_BYTES + 40] ^= 1);
        assert_eq!(open(&one, SEGMENT).unwrap().2, entries);
    }
    let both = storage.fork();
    both.tamper(&segment_name(1), |bytes| bytes[..2 * BLOCK_BYTES].fill(0));
    assert!(damaged(&both).3.contains("neither copy"));
    let newer = storage.fork();
    newer.tamper(&segment_name(1), |bytes| {
        bytes[8] = 9;
        let hash = *blake3::hash(&bytes[..BLOCK_BYTES - 32]).as_bytes();
        bytes[BLOCK_BYTES - 32..BLOCK_BYTES].copy_from_slice(&hash);
        bytes[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
    });
    assert!(matches!(refusal(&newer), LedgerError::Damaged { .. }), "the last copy read is the one that decides");
    newer.tamper(&segment_name(1), |bytes| bytes.copy_within(..BLOCK_BYTES, BLOCK_BYTES));
    assert!(refusal(&newer).to_string().contains("format version 9"));
}

#[test]
fn what_is_missing_foreign_or_misplaced_is_named() {
    let (storage, _, _) = written(&[30; 14]);
    let names = storage.list().unwrap();
    assert!(names.contains(&segment_name(3)), "{names:?}");

    let missing = storage.fork();
    missing.remove(&segment_name(2)).unwrap();
    assert!(refusal(&missing).to_string().contains(&segment_name(2)));

    let last_missing = storage.fork();
    last_missing.remove(&segment_name(3)).unwrap();
    assert!(refusal(&last_missing).to_string().contains(&segment_name(3)));
    assert!(verify(&last_missing, &mut |_| ()).unwrap_err().to_string().contains(&segment_name(3)));

    let swapped = storage.fork();
    for (from, to) in [(segment_name(2), "aside".into()), (segment_name(3), segment_name(2)), ("aside".into(), segment_name(3))] {
        swapped.rename(&from, &to).unwrap();
    }
    assert!(damaged(&swapped).3.contains("segment 3 under another name"));

    let foreign = storage.fork();
    foreign.tamper(&segment_name(2), |bytes| {
        let (log_id, index, prev) = (LogId([8; 16]), 2, [0; 32]);
        let header = SegmentHeader { log_id, index, segment_bytes: SEGMENT, first_seq: Seq(1), prev };
        bytes[..2 * BLOCK_BYTES].copy_from_slice(&header.encode().repeat(2));
    });
    assert!(refusal(&foreign).to_string().contains("another ledger"));

    let misdirected = storage.fork();
    misdirected.tamper(&segment_name(1), |bytes| bytes.copy_within(8192..8192 + BLOCK_BYTES, 8192 + 4 * BLOCK_BYTES));
    assert!(damaged(&misdirected).0.ends_with(&segment_name(1)));

    let emptied = storage.fork();
    for index in 1..=3 {
        emptied.remove(&segment_name(index)).unwrap();
    }
    assert!(refusal(&emptied).to_string().contains("there is no segment"));

    let unmarked = storage.fork();
    unmarked.remove(EPOCH_NAME).unwrap();
    let (_, recovery, _) = open(&unmarked, SEGMENT).unwrap();
    assert_eq!(recovery.epoch, 2, "the epoch then follows from the batches");
    storage.tamper(EPOCH_NAME, |bytes| bytes[40] ^= 1);
    assert!(refusal(&storage).to_string().contains("epoch"));
}

#[test]
fn without_epoch_a_witness_of_another_log_says_nothing() {
    let other = MemoryStorage::new();
    let foreign = Options::for_simulation(SEGMENT, LogId([8; 16]));
    let (mut log, _) = Log::open(other.clone(), &foreign, &mut |_, _, _| Ok(())).unwrap();
    log.append(&[lane_batch(0, 1, 40)]).unwrap();
    drop(log);
    let (storage, _, entries) = written(&[3, 4]);
    let mut bytes = Vec::new();
    other.tamper(WITNESS_NAME, |content| bytes.clone_from(content));
    storage.create(WITNESS_NAME).unwrap();
    storage.tamper(WITNESS_NAME, |content| *content = bytes);
    storage.remove(EPOCH_NAME).unwrap();
    assert_eq!(verify(&storage, &mut |_| ()).unwrap().head, Seq(7));
    assert_eq!(open(&storage, SEGMENT).unwrap().2, entries);
}

#[test]
fn a_log_without_room_for_its_witness_is_still_read() {
    let (storage, _, _) = written(&[3, 4]);
    storage.limit_bytes(Some(0));
    let options = Options::for_simulation(SEGMENT, LogId([7; 16]));
    let (log, recovery) = Log::recover(storage.clone(), &options, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(recovery.head, Seq(7));
    drop(log);
    // It makes one when there is room.
    storage.limit_bytes(None);
    open(&storage, SEGMENT).unwrap().0.append(&[lane_batch(0, 8, 1)]).unwrap();
    assert!(storage.list().unwrap().iter().any(|name| name == WITNESS_NAME));
}

#[test]
fn a_mark_that_names_no_segment_asks_for_none() {
    let (storage, _, entries) = written(&[30; 14]);
    storage.tamper(EPOCH_NAME, |bytes| {
        bytes[80..88].fill(0);
        let hash = *blake3::hash(&bytes[..88]).as_bytes();
        bytes[88..].copy_from_slice(&hash);
    });
    let (log, _, found) = open(&storage, SEGMENT).unwrap();
    assert_eq!(found, entries);
    drop(log);
    storage.remove(&segment_name(3)).unwrap();
    assert!(refusal(&storage).to_string().contains(&segment_name(3)), "the opening has noted it");
}

#[test]
fn a_roll_without_room_for_the_mark_changes_nothing_and_succeeds_later() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let room = SEGMENT / BLOCK_BYTES as u64 - 2;
    for number in 1..=room {
        log.append(&[lane_batch(0, number, 1)]).unwrap();
    }
    storage.limit_bytes(Some(SEGMENT));
    let refused = log.append(&[lane_batch(0, room + 1, 1)]);
    assert!(matches!(refused, Err(AppendError::NoRoom(_))), "{refused:?}");
    assert!(log.shared.attempts.starved() && !storage.list().unwrap().contains(&segment_name(2)));
    storage.limit_bytes(None);
    log.append(&[lane_batch(0, room + 1, 1)]).unwrap();
    drop(log);
    assert_eq!(open(&storage.crash(&mut || false), SEGMENT).unwrap().1.head, Seq(room + 1));
}

#[test]
fn damage_to_the_last_batch_is_seen_once_a_quiet_moment_has_noted_it() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    log.append(&[lane_batch(0, 1, 1)]).unwrap();
    let damaged = |storage: &MemoryStorage| {
        let bad = storage.crash(&mut || false);
        bad.tamper(&segment_name(1), |bytes| bytes[SEGMENT_HEAD_BYTES as usize + 200] ^= 1);
        bad
    };
    let (_, recovery, _) = open(&damaged(&storage), SEGMENT).unwrap();
    assert!(recovery.torn.is_some(), "before, it looks like an interrupted write");
    log.note().unwrap();
    assert!(matches!(refusal(&damaged(&storage)), LedgerError::Damaged { .. }));
    // Nothing new, nothing written; and without room nothing is lost but the note.
    storage.limit_bytes(Some(0));
    log.note().unwrap();
    storage.limit_bytes(None);
    log.append(&[lane_batch(0, 2, 1)]).unwrap();
    storage.limit_bytes(Some(0));
    assert!(log.note().is_err());
    storage.limit_bytes(None);
    log.append(&[lane_batch(0, 3, 1)]).unwrap();
    log.note().unwrap();
    drop(log);
    assert_eq!(open(&storage.crash(&mut || false), SEGMENT).unwrap().1.head, Seq(3));
}

/// Writes this in such a way that the cache shows it and the disk does not have it.
fn write_without_effect(storage: &MemoryStorage, bytes: &[u8], offset: u64) {
    let file = storage.open(&segment_name(1)).unwrap();
    file.write_at(bytes, offset).unwrap();
    storage.fail_syncs(true);
    assert!(file.sync().is_err());
    storage.fail_syncs(false);
}

#[test]
fn what_only_the_cache_has_after_a_failed_sync_is_not_believed() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    log.append(&[lane_batch(0, 1, 1)]).unwrap();
    storage.fail_syncs(true);
    // Two blocks, of which the batch that comes in its place covers one.
    assert!(matches!(log.append(&[lane_batch(0, 2, 60)]), Err(AppendError::Failed(_))));
    storage.fail_syncs(false);
    drop(log);

    let (mut log, recovery, entries) = open(&storage, SEGMENT).unwrap();
    assert_eq!((recovery.head, entries.len()), (Seq(1), 1));
    let torn = recovery.torn.expect("what the cache shows is cleared away");
    assert!(torn.bytes > BLOCK_BYTES as u64, "{torn:?}");
    let again = lane_batch(0, 2, 1);
    log.append(std::slice::from_ref(&again)).unwrap();
    drop(log);
    for crashed in [storage.crash(&mut || false), storage] {
        let (_, recovery, entries) = open(&crashed, SEGMENT).unwrap();
        assert_eq!((recovery.head, recovery.torn), (Seq(2), None));
        assert_eq!(entries.concat(), [lane_batch(0, 1, 1).bytes, again.bytes.clone()].concat());
    }
}

#[test]
fn a_torn_tail_that_only_seems_cleared_is_cleared_again() {
    let (storage, offsets, entries) = written(&[3, 60]);
    let last = offsets[1] as usize;
    storage.tamper(&segment_name(1), |bytes| bytes[last + 5000..].fill(0));
    write_without_effect(&storage, &[0; 2 * BLOCK_BYTES], offsets[1]);
    let (log, recovery, found) = open(&storage, SEGMENT).unwrap();
    assert_eq!((found, recovery.torn.map(|torn| torn.offset)), (entries[..3].to_vec(), Some(offsets[1])));
    drop(log);
    assert_eq!(open(&storage.crash(&mut || false), SEGMENT).unwrap().1.torn, None);
}

#[test]
fn more_than_one_batch_that_only_the_cache_has_is_damage() {
    let (storage, offsets, _) = written(&[1, 1, 1]);
    let mut bytes = vec![0; 2 * BLOCK_BYTES];
    storage.open(&segment_name(1)).unwrap().read_at(&mut bytes, offsets[1]).unwrap();
    storage.tamper(&segment_name(1), |bytes| bytes[offsets[1] as usize..].fill(0));
    write_without_effect(&storage, &bytes, offsets[1]);
    let (_, offset, expected, what) = damaged(&storage);
    assert_eq!((offset, expected), (offsets[1], Seq(2)));
    assert!(what.contains("the cache of the system shows") && what.contains("intact batch follows"), "{what}");
}

#[test]
fn an_entry_that_the_caller_cannot_take_ends_the_opening() {
    let (storage, _, _) = written(&[3]);
    let options = Options::for_simulation(SEGMENT, LogId([7; 16]));
    let refused = Log::open(storage.clone(), &options, &mut |seq, _, _| if seq == Seq(2) { Err("no".into()) } else { Ok(()) });
    assert!(matches!(refused, Err(LedgerError::Broken { seq: Seq(2), .. })));
    assert!(open(&storage, SEGMENT).is_ok(), "the lock went with the failed opening");
}
