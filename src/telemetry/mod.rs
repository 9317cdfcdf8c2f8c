//! What the service tells about itself: counters and latencies of the cores, their publication as metrics, and the log.
//!
//! The cores write into [`CoreStats`], which is plain memory of one thread; [`Publisher`] adds what they hand over to the
//! Prometheus recorder; [`logs`] writes one JSON object a line. Nothing here knows accounts, keys or tokens: labels come from
//! fixed tables only.
pub mod feed;
mod labels;
pub mod logs;
pub mod names;
mod publish;
mod spans;
mod stats;

pub use labels::{BuildInfo, Check, Labels, Reload, SpanFate, NOT_READY_REASONS, REGISTRY_OUTCOMES, SCRUBBED_KINDS};
pub use publish::{CoreFigures, Publisher, PublisherFault};
pub use spans::{spans, Span, SpanFeed, Spans, SPANS_MAX};
pub use stats::{CoreStats, Gauge, MethodIndex, RouteIndex, Tally};
