//! What is done to a core's requests on purpose: which are late, and which writes meet a quota that is used up.
use super::Front;
use crate::api::Route;
use crate::domain::{QuotaScope, Refusal};
use crate::worker::connection::Phase;
use std::time::Duration;

impl Front {
    /// How late what has just begun to arrive is to be, and since when it waits, in microseconds of the core's clock; `None` if it is not to
    /// be late, or if it goes on with a request that has waited.
    ///
    /// This is where the core looks what is done to requests now: once for all that it has just read of a connection.
    pub fn lateness(&mut self, place: u32) -> Option<(Duration, u64)> {
        self.disturbed = self.site.disturbance.get();
        let (late_ms, share) = self.disturbed.late?;
        let now_us = self.clock.now_us();
        let connection = self.connections.get(place).expect("only the task that serves a connection removes it");
        if connection.partial_since_ms.is_some() || !self.turns.take(share) {
            return None;
        }
        // Whoever waits here is not slow to send.
        connection.enter(Phase::Answering, now_us / 1000);
        Some((Duration::from_millis(u64::from(late_ms)), now_us))
    }

    /// Whether requests are late on purpose.
    pub fn is_late(&self) -> bool {
        self.site.disturbance.get().late.is_some()
    }

    /// Refuses some of these writes as if the quota of everybody were used up, if that is to be.
    pub(super) fn storm(&mut self, route: Route) -> Result<(), Refusal> {
        match self.disturbed.refused.filter(|_| route.op().is_some()) {
            Some(share) if self.turns.take(share) => Err(Refusal::quota(QuotaScope::Global)),
            Some(_) | None => Ok(()),
        }
    }
}
