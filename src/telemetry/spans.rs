//! What cores tell of answered requests that belong to a trace which is recorded: spans, in one bounded queue that no core waits for. What
//! does not fit is counted and let go.
use crossbeam_channel::{bounded, Receiver, Sender};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Spans that wait to be sent on.
pub const SPANS_MAX: usize = 8192;

/// One request from when a core took it in until its reply stood in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: [u8; 16],
    /// The span of whoever sent the request.
    pub parent: [u8; 8],
    /// This span; random, and not zero.
    pub id: [u8; 8],
    /// The label of its route.
    pub route: &'static str,
    /// The label of its method.
    pub method: &'static str,
    /// The status of the reply.
    pub status: u16,
    /// The core that owns the account asked about, if there is one.
    pub owner: Option<u16>,
    /// The correlation id.
    pub corr: Box<str>,
    /// When it began, in microseconds since the Unix epoch.
    pub began_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// The cores' end of the queue; clones are of the same one.
#[derive(Clone, Debug)]
pub struct SpanFeed {
    spans: Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// The other end.
#[derive(Debug)]
pub struct Spans {
    /// Has them in the order in which requests were answered; ends with the last [`SpanFeed`].
    pub queue: Receiver<Span>,
    dropped: Arc<AtomicU64>,
}

/// Both ends of a queue.
pub fn spans() -> (SpanFeed, Spans) {
    let (spans, queue) = bounded(SPANS_MAX);
    let dropped = Arc::<AtomicU64>::default();
    (SpanFeed { spans, dropped: dropped.clone() }, Spans { queue, dropped })
}

impl SpanFeed {
    /// Tells a span if there is room for it.
    pub fn tell(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Spans {
    /// How many did not fit since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_full_queue_and_what_does_not_fit_is_counted() {
        let (feed, spans) = spans();
        let span = |took_us| Span {
            trace: [1; 16],
            parent: [2; 8],
            id: [3; 8],
            route: "transfer",
            method: "POST",
            status: 200,
            owner: Some(1),
            corr: "c".into(),
            began_us: 5,
            took_us,
        };
        (0..SPANS_MAX as u64 + 3).for_each(|number| feed.tell(span(number)));
        assert_eq!((spans.take_dropped(), spans.take_dropped()), (3, 0));
        assert_eq!(spans.queue.recv(), Ok(span(0)));
        drop(feed);
        assert_eq!(spans.queue.iter().count(), SPANS_MAX - 1);
    }
}
