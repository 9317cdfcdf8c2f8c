//! A core's lane to the ledger: reserved entries in their order, first waiting to be handed over, then waiting to be durable.
use super::Ticket;
use crate::domain::limits::LANE_BATCH_BYTES_MAX;
use crate::domain::{Entry, LaneBatch};
use crate::shard::Reservation;
use std::collections::VecDeque;

/// An entry that is being committed.
pub(super) struct Pending {
    pub reservation: Reservation,
    pub ticket: Ticket,
    /// Requests with the same key that wait for the outcome of this one.
    pub joined: Vec<Joined>,
}

/// A request whose key is being committed for another one, or for the same one sent before.
pub(super) struct Joined {
    pub ticket: Ticket,
    /// The entry that the request would have made.
    pub entry: Box<[u8]>,
}

/// The entries of one core on their way to the ledger.
pub(super) struct Lane {
    number: u16,
    /// Lane number of the first pending entry; they are numbered from 1.
    first_pending: u64,
    pending: VecDeque<Pending>,
    /// Encoded entries that have not been handed over.
    open: VecDeque<LaneBatch>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

/// Buffers kept for reuse; more are given back to the allocator.
const SPARE_MAX: usize = 8;

impl Lane {
    pub fn new(number: u16) -> Self {
        Self { number, first_pending: 1, pending: VecDeque::new(), open: VecDeque::new(), spare: Vec::new() }
    }

    /// The number that the next entry gets.
    pub fn next_number(&self) -> u64 {
        self.first_pending + self.pending.len() as u64
    }

    /// How many entries are not durable yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Queues an entry under [`Lane::next_number`].
    pub fn push(&mut self, entry: &Entry<'_>, pending: Pending) {
        let number = self.next_number();
        let fits = self.open.back().is_some_and(|batch| batch.bytes.len() + entry.bytes().len() <= LANE_BATCH_BYTES_MAX);
        if !fits {
            let bytes = self.spare.pop().unwrap_or_default();
            self.open.push_back(LaneBatch { lane: self.number, lane_first: number, count: 0, bytes });
        }
        let batch = self.open.back_mut().expect("a batch with room was just found or made");
        assert_eq!(batch.lane_first + u64::from(batch.count), number);
        batch.bytes.extend_from_slice(entry.bytes());
        batch.count += 1;
        self.pending.push_back(pending);
    }

    /// Entries of the newest batch that has not been handed over.
    pub fn batched(&self) -> u32 {
        self.open.back().map_or(0, |batch| batch.count)
    }

    /// The oldest batch that has not been handed over.
    pub fn take_open(&mut self) -> Option<LaneBatch> {
        self.open.pop_front()
    }

    /// Takes a batch back that could not be handed over now.
    pub fn untake(&mut self, batch: LaneBatch) {
        self.open.push_front(batch);
    }

    /// The pending entry with a lane number.
    pub fn find(&mut self, number: u64) -> &mut Pending {
        let index = number.checked_sub(self.first_pending).expect("the window names only pending numbers") as usize;
        &mut self.pending[index]
    }

    /// The oldest pending entry, which must have this lane number: entries become durable in their order.
    pub fn pop(&mut self, number: u64) -> Pending {
        assert_eq!(number, self.first_pending, "the ledger acknowledges a lane in its order");
        self.first_pending += 1;
        self.pending.pop_front().expect("the ledger acknowledges only what was handed over")
    }

    /// What the oldest pending entries have reserved.
    pub fn oldest(&self, count: usize) -> impl Iterator<Item = &Reservation> + Clone {
        self.pending.range(..count).map(|pending| &pending.reservation)
    }

    /// Keeps a buffer for reuse.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}
