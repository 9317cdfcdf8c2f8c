//! Crashes: whatever was acknowledged is there byte for byte afterwards, whatever was not is wholly there or wholly absent.
//!
//! One test lets the power go at every single change that a small life of the log makes to the disk, one plays random lives and
//! crashes, recoveries included, and one does so through the committer, with segments allocated ahead. A failing seed is printed; put it into `one_seed` to see it alone.
use super::sample::{lane_batch, open, Dice};
use super::{Committer, LedgerError, MemoryStorage};
use crate::domain::{Durable, LaneBatch};
use crossbeam_channel::unbounded;

const SEGMENT: u64 = 24 << 10;

/// Opens the log and appends until an error. Adds the entry bytes of acknowledged batches, then those of the one in doubt.
fn live(
    storage: &MemoryStorage,
    batches: u64,
    mut size: impl FnMut() -> u32,
    acknowledged: &mut Vec<LaneBatch>,
) -> (Result<(), LedgerError>, Option<LaneBatch>) {
    let (mut log, _, _) = match open(storage, SEGMENT) {
        Ok(opened) => opened,
        Err(error) => return (Err(error), None),
    };
    for _ in 0..batches {
        let next = acknowledged.last().map_or(1, |last| last.lane_first + u64::from(last.count));
        let batch = lane_batch(0, next, size());
        if log.append(std::slice::from_ref(&batch)).is_err() {
            return (Ok(()), Some(batch));
        }
        acknowledged.push(batch);
    }
    (log.close(), None)
}

/// Opens what a crash has left and compares. Takes over a batch that was in doubt and survived.
fn check(storage: &MemoryStorage, acknowledged: &mut Vec<LaneBatch>, in_doubt: Option<LaneBatch>, scene: &str) {
    let (_, recovery, entries) = open(storage, SEGMENT).unwrap_or_else(|error| panic!("{scene}: {error}"));
    let expected: Vec<u8> = acknowledged.iter().flat_map(|batch| batch.bytes.clone()).collect();
    let found = entries.concat();
    if found == expected {
        return;
    }
    let batch = in_doubt.unwrap_or_else(|| panic!("{scene}: {recovery:?}"));
    assert_eq!(found, [&expected[..], &batch.bytes[..]].concat(), "{scene}");
    acknowledged.push(batch);
}

#[test]
fn the_power_may_go_at_every_single_change() {
    let mut fired = 0;
    for changes in 0.. {
        let mut survivors = 0;
        for keep_every in [0, 1, 2, 3] {
            let storage = MemoryStorage::new();
            storage.fail_after(Some(changes));
            let mut acknowledged = Vec::new();
            let mut count = 0;
            let (ended, in_doubt) = live(&storage, 9, || 20, &mut acknowledged);
            survivors += u32::from(ended.is_ok() && in_doubt.is_none());
            let after = storage.crash(&mut || {
                count += 1;
                keep_every > 0 && count % keep_every == 0
            });
            check(&after, &mut acknowledged, in_doubt, &format!("change {changes}, kept every {keep_every}"));
        }
        if survivors == 4 {
            break;
        }
        fired += 1;
    }
    assert!(fired > 40, "only {fired} changes were cut off");
}

fn play(seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let mut storage = MemoryStorage::new();
    let mut acknowledged = Vec::new();
    let (mut torn, mut rolled) = (0, 0);
    for life in 0..6 {
        // Short lives may end while the log is being opened, so recovery is interrupted too.
        storage.fail_after(Some(dice.below(if life % 3 == 1 { 12 } else { 90 })));
        let mut sizes = Dice(dice.roll());
        let (_, in_doubt) = live(&storage, 12, || 1 + sizes.below(60) as u32, &mut acknowledged);
        let keep_percent = dice.below(101);
        storage = storage.crash(&mut || dice.below(100) < keep_percent);
        let before = storage.fork();
        check(&storage, &mut acknowledged, in_doubt, &format!("seed {seed}, life {life}"));
        let (_, recovery, _) = open(&before, SEGMENT).unwrap();
        torn += u64::from(recovery.torn.is_some());
        rolled += u64::from(recovery.batches > 4);
    }
    (torn, rolled)
}

#[test]
fn no_acknowledged_entry_is_lost_in_random_crashes() {
    let (mut torn, mut rolled) = (0, 0);
    for seed in 0..150 {
        let played = play(seed);
        torn += played.0;
        rolled += played.1;
    }
    assert!(torn > 25 && rolled > 150, "the dice produced only {torn} torn tails and {rolled} rolls");
}

/// One life through the committer, ended by the power; returns whether it ended before everything was acknowledged.
fn play_committer(seed: u64) -> bool {
    let mut dice = Dice(seed);
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    log.allocate_ahead().unwrap();
    let tenure = log.tenure();
    storage.fail_after(Some(dice.below(160)));
    let (acknowledge, acknowledged) = unbounded();
    let deliver = Box::new(move |durable| acknowledge.send(durable).expect("the test listens to the end"));
    let committer = Committer::spawn_with(log, tenure, 2, deliver, Box::new(|_| ())).unwrap();
    let mut next = [1, 1];
    for _ in 0..40 {
        let lane = dice.below(2) as u16;
        let number = &mut next[usize::from(lane)];
        let batch = lane_batch(lane, *number, 1 + dice.below(40) as u32);
        *number += u64::from(batch.count);
        // All batches fit the queue of one lane, so a push fails only if the committer has ended.
        if committer.lane(lane).push(batch).is_err() {
            break;
        }
        if dice.below(3) == 0 {
            std::thread::yield_now();
        }
    }
    let cut_off = committer.close().is_err();
    let keep_percent = dice.below(101);
    let after = storage.crash(&mut || dice.below(100) < keep_percent);
    let (_, _, entries) = open(&after, SEGMENT).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    for Durable { batch, first_seq, .. } in acknowledged.try_iter() {
        let first = first_seq.0 as usize - 1;
        assert_eq!(entries[first..first + batch.count as usize].concat(), batch.bytes, "seed {seed}");
    }
    cut_off
}

#[test]
fn the_committer_loses_nothing_that_it_acknowledged() {
    let cut_off = (0..100).filter(|seed| play_committer(*seed)).count();
    assert!(cut_off > 20, "only {cut_off} lives were cut off");
}

#[test]
fn one_seed() {
    play(1);
}
