//! The way of one lane to the ledger and back: batches and acknowledgements on it may be late, lost, repeated, or cut off.
//!
//! What is not acknowledged is kept and sent again, in order; an acknowledgement out of turn is not used.
use std::collections::VecDeque;
use svc_wallet::domain::{Durable, LaneBatch};

/// A second copy of a batch, as a sender has that may have to repeat itself.
pub fn copy(batch: &LaneBatch) -> LaneBatch {
    LaneBatch { lane: batch.lane, lane_first: batch.lane_first, count: batch.count, bytes: batch.bytes.clone() }
}

#[derive(Default)]
pub struct Link {
    /// Sent and not acknowledged, oldest first.
    unacknowledged: VecDeque<LaneBatch>,
    /// On the way to the ledger.
    pub towards: VecDeque<LaneBatch>,
    /// On the way back, with the tick of arrival.
    back: VecDeque<(u64, Durable)>,
    /// Nothing arrives before this tick.
    cut_until: u64,
    /// The connection was cut, and what is not acknowledged has not been sent again yet: nothing newer may go before it.
    broken: bool,
}

/// What became of an arriving acknowledgement.
pub enum Arrival {
    Nothing,
    InTurn(Durable),
    Repeated,
    OutOfTurn,
}

impl Link {
    pub fn send(&mut self, batch: LaneBatch) {
        self.unacknowledged.push_back(copy(&batch));
        if !self.broken {
            self.towards.push_back(batch);
        }
    }

    pub fn is_cut(&self, tick: u64) -> bool {
        tick < self.cut_until
    }

    /// The connection is gone with everything on it.
    pub fn cut(&mut self, until: u64) {
        self.towards.clear();
        self.back.clear();
        (self.cut_until, self.broken) = (until, true);
    }

    pub fn acknowledge(&mut self, due: u64, durable: Durable) {
        self.back.push_back((due, durable));
    }

    pub fn arrive(&mut self, tick: u64) -> Arrival {
        if self.is_cut(tick) || self.back.front().map_or(true, |(due, _)| *due > tick) {
            return Arrival::Nothing;
        }
        let (_, durable) = self.back.pop_front().expect("just looked at");
        let expected = self.unacknowledged.front().map_or(u64::MAX, |batch| batch.lane_first);
        match durable.batch.lane_first.cmp(&expected) {
            std::cmp::Ordering::Less => Arrival::Repeated,
            std::cmp::Ordering::Greater => Arrival::OutOfTurn,
            std::cmp::Ordering::Equal => {
                let kept = self.unacknowledged.pop_front().expect("just looked at");
                assert_eq!(kept, durable.batch, "an acknowledgement is for what was sent");
                Arrival::InTurn(durable)
            }
        }
    }

    /// Whether something waits for an acknowledgement that is not on its way.
    pub fn is_overdue(&self, tick: u64) -> bool {
        !self.is_cut(tick) && !self.unacknowledged.is_empty() && self.towards.is_empty() && self.back.is_empty()
    }

    pub fn send_again(&mut self) {
        self.broken = false;
        self.towards = self.unacknowledged.iter().map(copy).collect();
    }

    pub fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty() && self.towards.is_empty() && self.back.is_empty()
    }
}
