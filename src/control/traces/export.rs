//! The thread that sends spans: in batches, each tried a few times with growing pauses.
use super::super::service::{random_words, SERVICE};
use super::super::system::step_back;
use super::collector::Collector;
use super::otlp::{request, Resource};
use super::Running;
use crate::telemetry::{spans, Publisher, Span, SpanFate, SpanFeed, Spans};
use crossbeam_channel::{bounded, RecvTimeoutError, TryRecvError};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks at what there is to send.
const SEND_EVERY: Duration = Duration::from_millis(200);
/// Most spans of one request.
const BATCH_MAX: usize = 512;
/// Attempts for a batch.
const TRIES_MAX: u32 = 4;
/// Pause behind the first one that failed; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Starts the thread.
pub(super) fn start(url: &str, publisher: Arc<Publisher>) -> io::Result<(SpanFeed, Running)> {
    let collector = Collector::of_url(url).ok_or_else(|| io::Error::other(format!("{url} is no address of a collector")))?;
    let (feed, spans) = spans();
    let [instance, ..] = random_words();
    let resource = Resource { service: SERVICE, version: env!("CARGO_PKG_VERSION"), instance: format!("{instance:016x}") };
    let place = url.to_owned();
    let mut exporter = Exporter {
        collector,
        place,
        resource,
        spans,
        publisher,
        batch: Vec::with_capacity(BATCH_MAX),
        tries: 0,
        not_before: Instant::now(),
        is_in_trouble: false,
    };
    let ((stop, stopped), (ending, ended)) = (bounded::<()>(0), bounded(0));
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
        let _ending = ending;
        step_back();
        while stopped.recv_timeout(SEND_EVERY) == Err(RecvTimeoutError::Timeout) {
            exporter.send(&|| stopped.try_recv() == Err(TryRecvError::Disconnected));
        }
        exporter.send(&|| true);
    })?;
    Ok((feed, Running { stop, ended }))
}

struct Exporter {
    collector: Collector,
    place: String,
    resource: Resource,
    spans: Spans,
    publisher: Arc<Publisher>,
    /// What is being sent.
    batch: Vec<Span>,
    tries: u32,
    not_before: Instant,
    /// Whether the last attempt has failed, which is told once.
    is_in_trouble: bool,
}

impl Exporter {
    /// Sends what there is, as far as the collector takes it. Once the end has come, nothing is tried again.
    fn send(&mut self, has_ended: &dyn Fn() -> bool) {
        self.publisher.spans(SpanFate::Dropped, self.spans.take_dropped());
        while has_ended() || Instant::now() >= self.not_before {
            if self.batch.is_empty() {
                self.batch.extend(self.spans.queue.try_iter().take(BATCH_MAX));
            }
            if self.batch.is_empty() {
                return;
            }
            let all = self.batch.len() as u64;
            match self.collector.post(request(&self.resource, &self.batch).to_string().as_bytes()) {
                Ok(rejected) => {
                    if std::mem::take(&mut self.is_in_trouble) {
                        tracing::info!(event = "spans_go_on", collector = %self.place, "the collector takes spans again");
                    }
                    self.publisher.spans(SpanFate::Sent, all.saturating_sub(rejected));
                    self.publisher.spans(SpanFate::Failed, rejected.min(all));
                    self.end_batch();
                }
                Err(refused) => {
                    if !std::mem::replace(&mut self.is_in_trouble, true) {
                        let reason = &refused.reason;
                        tracing::warn!(event = "spans_failed", collector = %self.place, %reason, "the collector takes no spans");
                    }
                    self.tries += 1;
                    let is_last = has_ended();
                    if is_last || !refused.again || self.tries == TRIES_MAX {
                        self.publisher.spans(SpanFate::Failed, all);
                        self.end_batch();
                    } else {
                        self.not_before = Instant::now() + FIRST_PAUSE * (1 << (self.tries - 1));
                    }
                    if is_last {
                        let left = self.spans.queue.try_iter().count() as u64;
                        self.publisher.spans(SpanFate::Failed, left);
                        return;
                    }
                }
            }
        }
    }

    fn end_batch(&mut self) {
        self.batch.clear();
        self.tries = 0;
    }
}
