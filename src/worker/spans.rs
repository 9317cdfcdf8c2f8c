//! What a core tells of requests that belong to a recorded trace: a span each, if somebody wants to know.
use super::connection::Meta;
use crate::domain::CoreId;
use crate::telemetry::{Span, SpanFeed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes the spans of one core.
pub struct SpanTeller {
    feed: Option<SpanFeed>,
    /// The id of the last span. Cores of all processes begin at random numbers, so that no two spans have the same.
    last_id: u64,
}

impl SpanTeller {
    /// Tells this feed, if there is one. `random` is a number of the process.
    pub fn new(feed: Option<SpanFeed>, random: u64, core: CoreId) -> Self {
        Self { feed, last_id: random.rotate_left(u32::from(core.0)) }
    }

    /// A request was answered.
    pub fn answered(&mut self, meta: &Meta, status: u16, took_us: u64) {
        let Some((feed, context)) = self.feed.as_ref().zip(meta.trace.filter(|context| context.is_recorded)) else { return };
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        feed.tell(Span {
            trace: context.trace,
            parent: context.parent,
            id: self.last_id.to_be_bytes(),
            route: meta.route.as_str(),
            method: meta.method.as_str(),
            status,
            owner: meta.owner,
            corr: meta.corr.as_str().into(),
            began_us: now_us.saturating_sub(took_us),
            took_us,
        });
    }
}
