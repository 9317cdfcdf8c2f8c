//! Group commit without I/O: which lane batches go into the next ledger batch, and what each of them is answered. Pure.
//!
//! Invariants: entries of a lane keep their order and are numbered without gaps within an epoch; a lane batch that comes a second
//! time is never appended again, it is answered with its old place once that is durable.
use super::layout::SECTION_HEAD_BYTES;
use crate::domain::limits::LANE_BATCH_BYTES_MAX;
use crate::domain::{Durable, LaneBatch, Root, Seq};
use std::collections::VecDeque;

/// Acknowledged batches per lane whose places are remembered for repeats.
pub const REMEMBERED_PER_LANE_MAX: usize = 256;

/// Entries of one lane that became durable together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePlace {
    /// Number of the first one within the lane.
    pub lane_first: u64,
    /// How many.
    pub count: u32,
    /// Where the first one stands.
    pub first_seq: Seq,
    /// Chain hash after their batch.
    pub root: Root,
}

/// Where a commit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its first entry.
    pub first_seq: Seq,
    /// Chain hash after it.
    pub root: Root,
}

struct Lane {
    /// Number of the next entry that has not come yet.
    next: u64,
    acknowledged: VecDeque<LanePlace>,
}

impl Lane {
    fn remember(&mut self, place: LanePlace) {
        if self.acknowledged.len() == REMEMBERED_PER_LANE_MAX {
            self.acknowledged.pop_front();
        }
        self.acknowledged.push_back(place);
    }
}

/// What a lane batch is to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It comes next.
    Next,
    /// It came before, as it is.
    Repeat,
    /// It leaves numbers out, or has some that came before and some that did not, or none that could be.
    Misfit,
}

/// The lane batches of one commit, and what must be remembered between commits.
pub struct GroupCommit {
    lanes: Vec<Lane>,
    batches: Vec<LaneBatch>,
    repeats: Vec<LaneBatch>,
    body_bytes: usize,
    body_bytes_max: usize,
}

impl GroupCommit {
    /// For a fresh epoch of a log that takes bodies of at most `body_bytes_max` bytes.
    pub fn new(lanes: u16, body_bytes_max: usize) -> Self {
        let lane = || Lane { next: 1, acknowledged: VecDeque::new() };
        let lanes = (0..lanes).map(|_| lane()).collect();
        Self { lanes, batches: Vec::new(), repeats: Vec::new(), body_bytes: 0, body_bytes_max }
    }

    /// For an epoch that goes on after the log was opened again. Its writer has seen so many entries of each lane acknowledged; what is
    /// durable behind them is to be noted before anything is admitted.
    pub fn resumed(acknowledged: &[u64], body_bytes_max: usize) -> Self {
        let mut group = Self::new(acknowledged.len() as u16, body_bytes_max);
        for (lane, through) in group.lanes.iter_mut().zip(acknowledged) {
            lane.next = through.saturating_add(1);
        }
        group
    }

    /// Takes note of entries of a lane that are in the log; false if they leave numbers out, or there is no such lane.
    pub fn note(&mut self, lane: u16, place: LanePlace) -> bool {
        let Some(lane) = self.lanes.get_mut(usize::from(lane)) else { return false };
        if place.lane_first > lane.next {
            return false;
        }
        lane.next = lane.next.max(place.lane_first + u64::from(place.count));
        lane.remember(place);
        true
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> u16 {
        self.lanes.len() as u16
    }

    /// Number of the last entry of each lane that has come; with nothing admitted, the last durable one.
    pub fn through(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.next - 1).collect()
    }

    /// What a batch of this name is.
    pub fn standing(&self, lane: u16, lane_first: u64, count: u32) -> Standing {
        let Some(lane) = self.lanes.get(usize::from(lane)) else { return Standing::Misfit };
        let Some(end) = lane_first.checked_add(u64::from(count)).filter(|_| count > 0 && lane_first > 0) else {
            return Standing::Misfit;
        };
        if lane_first == lane.next {
            Standing::Next
        } else if end <= lane.next {
            Standing::Repeat
        } else {
            Standing::Misfit
        }
    }

    /// Where a batch went that is durable; `None` if it is not, or if that is so long ago that it was forgotten.
    pub fn place_of(&self, lane: u16, lane_first: u64, count: u32) -> Option<Placed> {
        let end = lane_first.checked_add(u64::from(count))?;
        let places = &self.lanes.get(usize::from(lane))?.acknowledged;
        let holds = |known: &&LanePlace| known.lane_first <= lane_first && end <= known.lane_first + u64::from(known.count);
        let known = places.iter().rev().find(holds)?;
        Some(Placed { first_seq: Seq(known.first_seq.0 + (lane_first - known.lane_first)), root: known.root })
    }

    /// Takes the batch into the commit, or gives it back if there is no room left: it goes first into the next one.
    ///
    /// # Panics
    /// If the batch skips a number of its lane, overlaps an earlier one in part, or is empty or too large: the lane's mistake.
    pub fn admit(&mut self, batch: LaneBatch) -> Result<(), LaneBatch> {
        assert!(batch.count > 0 && !batch.bytes.is_empty() && batch.bytes.len() <= LANE_BATCH_BYTES_MAX, "size of a lane batch");
        let lane = &mut self.lanes[usize::from(batch.lane)];
        let end = batch.lane_first + u64::from(batch.count);
        if end <= lane.next {
            self.repeats.push(batch);
            return Ok(());
        }
        assert_eq!(batch.lane_first, lane.next, "lane {} skips or cuts entries", batch.lane);
        let shares = self.batches.last().is_some_and(|last| last.lane == batch.lane);
        let bytes = batch.bytes.len() + if shares { 0 } else { SECTION_HEAD_BYTES };
        if self.body_bytes + bytes > self.body_bytes_max {
            assert!(!self.batches.is_empty(), "a lane batch of {bytes} bytes fits no segment");
            return Err(batch);
        }
        lane.next = end;
        self.body_bytes += bytes;
        self.batches.push(batch);
        Ok(())
    }

    /// Gives up what was admitted and not settled, as if it had never come: whoever sent it is gone, and sends it again.
    pub fn withdraw(&mut self) {
        for batch in self.batches.drain(..).rev() {
            self.lanes[usize::from(batch.lane)].next = batch.lane_first;
        }
        self.repeats.clear();
        self.body_bytes = 0;
    }

    /// What has to be appended; empty if there are at most repeats.
    pub fn batches(&self) -> &[LaneBatch] {
        &self.batches
    }

    /// Whether nobody waits for an answer.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.repeats.is_empty()
    }

    /// Answers everything admitted, in ledger order, repeats last. `placed` is where [`Self::batches`] went, durable by now.
    pub fn settle(&mut self, placed: Option<Placed>, mut deliver: impl FnMut(Durable)) {
        assert_eq!(placed.is_some(), !self.batches.is_empty(), "a place for every commit, and for nothing else");
        if let Some(Placed { mut first_seq, root }) = placed {
            for batch in self.batches.drain(..) {
                let (lane_first, count) = (batch.lane_first, batch.count);
                self.lanes[usize::from(batch.lane)].remember(LanePlace { lane_first, count, first_seq, root });
                deliver(Durable { batch, first_seq, root });
                first_seq = Seq(first_seq.0 + u64::from(count));
            }
        }
        self.body_bytes = 0;
        for batch in std::mem::take(&mut self.repeats) {
            let place = self.place_of(batch.lane, batch.lane_first, batch.count);
            let Placed { first_seq, root } = place.expect("a lane repeats only batches as it sent them, and only recent ones");
            deliver(Durable { batch, first_seq, root });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{batch::body_bytes, sample};

    fn settle(group: &mut GroupCommit, placed: Option<Placed>) -> Vec<(u16, u64, Seq, u8)> {
        let mut answers = Vec::new();
        group.settle(placed, |durable| {
            answers.push((durable.batch.lane, durable.batch.lane_first, durable.first_seq, durable.root[0]));
        });
        answers
    }

    fn placed(first_seq: u64, root: u8) -> Option<Placed> {
        Some(Placed { first_seq: Seq(first_seq), root: [root; 32] })
    }

    #[test]
    fn every_batch_gets_its_own_place() {
        let mut group = GroupCommit::new(3, 1 << 20);
        for batch in [sample::lane_batch(0, 1, 2), sample::lane_batch(0, 3, 1), sample::lane_batch(2, 1, 4)] {
            group.admit(batch).unwrap();
        }
        assert_eq!(group.body_bytes, body_bytes(group.batches()));
        assert_eq!(settle(&mut group, placed(10, 1)), [(0, 1, Seq(10), 1), (0, 3, Seq(12), 1), (2, 1, Seq(13), 1)]);
        assert!(group.is_empty());
    }

    #[test]
    fn a_repeat_is_answered_with_its_old_place_and_not_appended() {
        let mut group = GroupCommit::new(1, 1 << 20);
        group.admit(sample::lane_batch(0, 1, 2)).unwrap();
        group.admit(sample::lane_batch(0, 1, 2)).unwrap();
        assert_eq!(group.batches().len(), 1);
        assert_eq!(settle(&mut group, placed(5, 7)), [(0, 1, Seq(5), 7), (0, 1, Seq(5), 7)]);
        group.admit(sample::lane_batch(0, 3, 1)).unwrap();
        settle(&mut group, placed(7, 8));
        group.admit(sample::lane_batch(0, 2, 1)).unwrap();
        group.admit(sample::lane_batch(0, 3, 1)).unwrap();
        assert!(group.batches().is_empty() && !group.is_empty());
        assert_eq!(settle(&mut group, None), [(0, 2, Seq(6), 7), (0, 3, Seq(7), 8)]);
    }

    #[test]
    fn what_does_not_fit_is_given_back_and_fits_next_time() {
        let first = sample::lane_batch(0, 1, 4);
        let mut group = GroupCommit::new(2, first.bytes.len() + SECTION_HEAD_BYTES + 10);
        group.admit(first).unwrap();
        let back = group.admit(sample::lane_batch(1, 1, 1)).unwrap_err();
        assert_eq!(settle(&mut group, placed(1, 1)).len(), 1);
        group.admit(back).unwrap();
        assert_eq!(settle(&mut group, placed(5, 2)), [(1, 1, Seq(5), 2)]);
    }

    #[test]
    #[should_panic(expected = "skips or cuts")]
    fn a_gap_is_a_mistake() {
        let _ = GroupCommit::new(1, 1 << 20).admit(sample::lane_batch(0, 2, 1));
    }
}
