//! The spans of recorded traces on their way to an OpenTelemetry collector, if `traces.otlp` names one: a thread that sends what the cores
//! have told. Nobody waits for it: what the collector does not take in a few attempts is counted and let go.
//!
//! It is in builds with the feature `otlp`; without it the configuration is refused that asks for it.
#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod otlp;

use crate::config::Config;
use crate::telemetry::{Publisher, SpanFeed};
use crossbeam_channel::Sender;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The running thread, if there is one.
#[derive(Default)]
pub(super) struct Traces(Option<(Sender<()>, JoinHandle<()>)>);

impl Traces {
    /// Starts the thread if a collector is named; cores tell the feed.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn start(config: &Config, publisher: &Arc<Publisher>) -> io::Result<(Option<SpanFeed>, Self)> {
        #[cfg(feature = "otlp")]
        if let Some(url) = &config.traces.otlp {
            let (feed, stop, thread) = export::start(url, publisher.clone())?;
            return Ok((Some(feed), Self(Some((stop, thread)))));
        }
        let _ = (config, publisher);
        Ok((None, Self::default()))
    }

    /// Sends what is left, in one attempt, and ends.
    pub fn stop(self) {
        if let Some((stop, thread)) = self.0 {
            drop(stop);
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}
