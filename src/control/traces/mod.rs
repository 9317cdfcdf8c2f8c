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
use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long an end waits for what is left. A collector that hangs, or whose name is looked up for ever, keeps nobody.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The running thread, if there is one.
#[derive(Default)]
pub(super) struct Traces(Option<Running>);

struct Running {
    /// Dropped to end it.
    stop: Sender<()>,
    /// Has its last sender dropped when it has ended.
    ended: Receiver<()>,
}

impl Traces {
    /// Starts the thread if a collector is named; cores tell the feed.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn start(config: &Config, publisher: &Arc<Publisher>) -> io::Result<(Option<SpanFeed>, Self)> {
        #[cfg(feature = "otlp")]
        if let Some(url) = &config.traces.otlp {
            let (feed, running) = export::start(url, publisher.clone())?;
            return Ok((Some(feed), Self(Some(running))));
        }
        let _ = (config, publisher);
        Ok((None, Self::default()))
    }

    /// Lets what is left be sent, as far as that is done soon. Whatever comes of it, the process may end then.
    pub fn stop(self) {
        if let Some(Running { stop, ended }) = self.0 {
            drop(stop);
            let _ = ended.recv_timeout(LAST_PATIENCE);
        }
    }
}
