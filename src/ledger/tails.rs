//! What the lanes of the newest epoch have put into the log, as far as a writer may ask for it after a new opening. Pure.
//!
//! A writer that lost its connection names its batches again by epoch, lane and lane number. Those that are in the log are found
//! here; each lane keeps its last sections only, and a writer has no more than that in doubt.
use super::batch::sections;
use super::layout::BatchHeader;
use super::merge::REMEMBERED_PER_LANE_MAX;
use crate::domain::{Root, Seq};
use std::collections::{BTreeMap, VecDeque};

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

/// The last places of each lane that has written in the newest epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneTails {
    epoch: u64,
    /// Whether the first batch of the epoch was seen; if not, more lanes may have written than are known.
    from_its_start: bool,
    lanes: BTreeMap<u16, VecDeque<LanePlace>>,
}

impl LaneTails {
    /// Takes note of the next batch of the log.
    pub fn note(&mut self, header: &BatchHeader, root: &Root, body: &[u8]) {
        if header.epoch != self.epoch {
            // Something came before it: the log's beginning, or a batch of another epoch.
            let from_its_start = header.first_seq == Seq(1) || self.epoch != 0;
            *self = Self { epoch: header.epoch, from_its_start, lanes: BTreeMap::new() };
        }
        // A body that cannot be split is refused where its entries are read.
        let mut first_seq = header.first_seq;
        for section in sections(header, body).unwrap_or_default() {
            let places = self.lanes.entry(section.lane).or_default();
            if places.len() == REMEMBERED_PER_LANE_MAX {
                places.pop_front();
            }
            let (lane_first, count) = (section.lane_first, section.count);
            places.push_back(LanePlace { lane_first, count, first_seq, root: *root });
            first_seq = Seq(first_seq.0 + u64::from(section.count));
        }
    }

    /// Keeps what is of this epoch, which may be one that has written nothing yet. `whole` says whether the whole log was read.
    pub fn forget_before(&mut self, epoch: u64, whole: bool) {
        if self.epoch != epoch {
            let from_its_start = whole || self.epoch != 0;
            *self = Self { epoch, from_its_start, lanes: BTreeMap::new() };
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last places of a lane, the oldest first; `None` if they are not known for sure.
    pub fn of(&self, lane: u16) -> Option<VecDeque<LanePlace>> {
        match self.lanes.get(&lane) {
            Some(places) => Some(places.clone()),
            None => self.from_its_start.then(VecDeque::new),
        }
    }
}
