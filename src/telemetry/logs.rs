//! The log: one JSON object a line on standard error, at a cost that no caller and no reader can drive up.
//!
//! Each line has `ts`, `level`, `service`, `target` and `message`; the fields of the event stand beside them, and `corr_id`,
//! `reason`, `trace_id` and `route` of the enclosing spans are lifted to the top when the event has none of its own.
//!
//! Invariants: a line is at most [`LINE_BYTES_MAX`] long; a thread that logs below the level error never waits for the reader of
//! standard error, because its lines go through a queue of [`QUEUE_LINES_MAX`] and are dropped and counted when that is full;
//! an error is written at once, after everything that is queued, so that it survives the end of the process. Nothing of
//! the crate that handles capabilities is ever written, whatever the filter says: it prints tokens.
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Select, Sender, TrySendError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

/// Longest line, in bytes; fields that would exceed it are left out.
pub const LINE_BYTES_MAX: usize = 8 << 10;
/// Longest value of one field, in bytes; the rest is cut off.
pub const VALUE_BYTES_MAX: usize = 2 << 10;
/// Most lines that wait for standard error.
pub const QUEUE_LINES_MAX: usize = 4_096;
/// The part of a line that the closing fields need.
const CLOSING_BYTES: usize = 64;
/// Fields that every line has; an event's field of the same name gets a `_` before it.
const OWN_FIELDS: [&str; 4] = ["ts", "level", "service", "target"];
/// Fields that are lifted from the spans.
const LIFTED_FIELDS: [&str; 4] = ["corr_id", "reason", "trace_id", "route"];
/// The crate that prints tokens at level debug.
const SILENCED_CRATE: &str = "macaroon";

/// Why the log could not be set up.
#[derive(Debug)]
pub enum LogFault {
    /// The filter cannot be understood.
    Filter(tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    Twice,
    /// The thread that writes could not be started.
    Thread(std::io::Error),
}

impl std::fmt::Display for LogFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogFault::Filter(cause) => {
                write!(f, "the log filter (RUST_LOG) is not like `info` or `info,svc_wallet=debug`: {cause}")
            }
            LogFault::Twice => f.write_str("the log of this process was set up before"),
            LogFault::Thread(cause) => write!(f, "no thread for the log: {cause}"),
        }
    }
}

impl std::error::Error for LogFault {}

/// Keeps the log; when it is dropped, everything that is queued is written first.
#[derive(Clone)]
pub struct LogGuard {
    sink: Arc<Sink>,
}

impl LogGuard {
    /// Writes everything that is queued; waits for the reader of standard error.
    pub fn flush(&self) {
        self.sink.write(None);
    }

    /// Lines dropped since the start because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Sets up the log of this process on standard error. `filter` is what `RUST_LOG` says; without it, `info`.
pub fn init(service: &'static str, filter: Option<&str>) -> Result<LogGuard, LogFault> {
    let (subscriber, guard) = subscriber(service, filter, Box::new(std::io::stderr()))?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogFault::Twice)?;
    Ok(guard)
}

/// Says why the process could not start, or not end in order, as the last line of its log; a fault of several lines makes several. A
/// person at a terminal reads it as plain text below, and so does everybody if the log is not set up or its filter leaves errors out.
pub fn fatal(service: &'static str, fault: &dyn std::fmt::Display) {
    let told = fault.to_string();
    for line in told.lines() {
        tracing::error!(event = "fatal", "{line}");
    }
    if std::io::stderr().is_terminal() || !tracing::enabled!(Level::ERROR) {
        // If standard error is gone, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{service}: {told}");
    }
}

/// A log on any writer, to be installed by the caller.
pub fn subscriber(
    service: &'static str,
    filter: Option<&str>,
    writer: Box<dyn Write + Send>,
) -> Result<(impl Subscriber + Send + Sync, LogGuard), LogFault> {
    let filter = EnvFilter::builder()
        .with_default_directive(Level::INFO.into())
        .parse(filter.unwrap_or(""))
        .map_err(LogFault::Filter)?
        .add_directive(format!("{SILENCED_CRATE}=off").parse().expect("the directive is a constant"));
    let (queue, queued) = crossbeam_channel::bounded(QUEUE_LINES_MAX);
    let sink = Arc::new(Sink { queue, queued, writer: Mutex::new(writer), dropped: AtomicU64::new(0) });
    let writing = Arc::clone(&sink);
    let thread = std::thread::Builder::new().name("log".to_owned());
    thread.spawn(move || writing.run()).map_err(LogFault::Thread)?;
    let layer = JsonLines { service, sink: Arc::clone(&sink) };
    Ok((tracing_subscriber::registry().with(filter).with(layer), LogGuard { sink }))
}

/// Where lines go: a bounded queue before a writer.
struct Sink {
    queue: Sender<String>,
    queued: Receiver<String>,
    writer: Mutex<Box<dyn Write + Send>>,
    dropped: AtomicU64,
}

impl Sink {
    /// Writes for ever: the log lives as long as the process.
    fn run(&self) {
        // Lines are taken only under the writer's lock, so that no other line can overtake one that was taken.
        let mut queue = Select::new();
        queue.recv(&self.queued);
        loop {
            queue.ready();
            self.write(None);
        }
    }

    fn enqueue(&self, line: String) {
        match self.queue.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes what is queued now, then `last`. A standard error that cannot be written to has nowhere to be reported.
    fn write(&self, last: Option<String>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for line in self.queued.try_iter().take(QUEUE_LINES_MAX).chain(last) {
            let _ = writer.write_all(line.as_bytes());
        }
        let _ = writer.flush();
    }
}

/// Turns events into lines.
struct JsonLines {
    service: &'static str,
    sink: Arc<Sink>,
}

/// The lifted fields of one span, as JSON values.
#[derive(Default)]
struct Lifted([Option<String>; LIFTED_FIELDS.len()]);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut lifted = Lifted::default();
        attributes.record(&mut Fields(&mut lifted));
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(lifted);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            if let Some(lifted) = span.extensions_mut().get_mut::<Lifted>() {
                values.record(&mut Fields(lifted));
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target().split("::").next() == Some(SILENCED_CRATE) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut line = Line { text: String::with_capacity(256), lifted: [false; LIFTED_FIELDS.len()] };
        line.text.push_str("{\"ts\":\"");
        write_time(&mut line.text, now);
        line.text.push_str("\",\"level\":\"");
        line.text.push_str(metadata.level().as_str());
        line.text.push_str("\",\"service\":");
        line.text.push_str(&quoted(self.service));
        line.text.push_str(",\"target\":");
        line.text.push_str(&quoted(metadata.target()));
        event.record(&mut Fields(&mut line));
        // From the innermost span outwards, so that the nearest value is the one that is shown.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(lifted) = span.extensions().get::<Lifted>() {
                for (index, value) in lifted.0.iter().enumerate() {
                    if let Some(value) = value.as_ref().filter(|_| !line.lifted[index]) {
                        line.take(LIFTED_FIELDS[index], value.clone());
                    }
                }
            }
        }
        line.text.push_str("}\n");
        if *metadata.level() == Level::ERROR {
            self.sink.write(Some(line.text));
        } else {
            self.sink.enqueue(line.text);
        }
    }
}

/// Something that takes fields as JSON values.
trait Take {
    fn take(&mut self, name: &str, value: String);
}

impl Take for Lifted {
    fn take(&mut self, name: &str, value: String) {
        if let Some(index) = LIFTED_FIELDS.iter().position(|lifted| *lifted == name) {
            self.0[index] = Some(value);
        }
    }
}

struct Line {
    text: String,
    lifted: [bool; LIFTED_FIELDS.len()],
}

impl Take for Line {
    fn take(&mut self, name: &str, value: String) {
        if let Some(index) = LIFTED_FIELDS.iter().position(|lifted| *lifted == name) {
            self.lifted[index] = true;
        }
        if self.text.len() + name.len() + value.len() + CLOSING_BYTES > LINE_BYTES_MAX {
            return;
        }
        let clash = OWN_FIELDS.contains(&name);
        self.text.push(',');
        self.text.push_str(&if clash { quoted(&format!("_{name}")) } else { quoted(name) });
        self.text.push(':');
        self.text.push_str(&value);
    }
}

/// Feeds the fields of an event or a span to a [`Take`].
struct Fields<'a, T>(&'a mut T);

impl<T: Take> Visit for Fields<'_, T> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = Cut(String::new());
        // Fails only where the text was cut off, which is what is wanted.
        let _ = write!(text, "{value:?}");
        self.0.take(field.name(), quoted(&text.0));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Cut(String::new());
        let _ = text.write_str(value);
        self.0.take(field.name(), quoted(&text.0));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.take(field.name(), value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.take(field.name(), value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.take(field.name(), value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let json = if value.is_finite() { value.to_string() } else { quoted(&value.to_string()) };
        self.0.take(field.name(), json);
    }
}

/// A text that ends at [`VALUE_BYTES_MAX`].
struct Cut(String);

impl std::fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = VALUE_BYTES_MAX - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(std::fmt::Error)
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("every text is a JSON string")
}

/// RFC 3339 in UTC with milliseconds.
fn write_time(text: &mut String, since_epoch: Duration) {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(0);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second, millis) = (time.hour(), time.minute(), time.second(), since_epoch.subsec_millis());
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

#[cfg(test)]
mod tests {
    //! That every line is one JSON object with the promised fields, and that neither size nor a stuck reader can harm.
    use super::*;
    use tracing::{debug, error, info, info_span, warn};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs under `filter`, parsed.
    fn logged(filter: Option<&str>, lines: usize, work: impl FnOnce()) -> Vec<serde_json::Value> {
        let memory = Memory::default();
        let (subscriber, guard) = subscriber("svc-wallet", filter, Box::new(memory.clone())).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        guard.flush();
        let bytes = memory.0.lock().unwrap().clone();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
        let text = String::from_utf8(bytes).unwrap();
        let parsed: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), lines, "{text}");
        parsed
    }

    #[test]
    fn a_line_has_the_promised_fields_at_the_top() {
        let lines = logged(None, 2, || {
            let outer = info_span!("request", corr_id = "outer", reason = "outer reason", account = "never shown");
            let _outer = outer.enter();
            let inner = info_span!("decide", corr_id = tracing::field::Empty);
            inner.record("corr_id", "inner \"quoted\"\n");
            let _inner = inner.enter();
            info!(count = 3u64, share = 0.5, ok = true, service = "other", "a message");
            error!(reason = "own", f64 = f64::NAN, "an error");
            debug!("not at this level");
        });
        let line = &lines[0];
        assert_eq!(line["service"], "svc-wallet");
        assert_eq!(line["_service"], "other");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "a message");
        assert_eq!(line["corr_id"], "inner \"quoted\"\n");
        assert_eq!(line["reason"], "outer reason");
        assert_eq!((&line["count"], &line["share"], &line["ok"]), (&3.into(), &0.5.into(), &true.into()));
        assert!(line["target"].as_str().unwrap().starts_with("svc_wallet::telemetry"));
        assert_eq!(line["ts"].as_str().unwrap().len(), "2026-01-02T03:04:05.678Z".len());
        assert!(line.get("account").is_none());
        assert_eq!((lines[1]["reason"].as_str(), lines[1]["level"].as_str()), (Some("own"), Some("ERROR")));
    }

    #[test]
    fn the_crate_that_prints_tokens_stays_silent_whatever_the_filter() {
        let filter = "trace,macaroon=trace,macaroon::format=trace";
        let lines = logged(Some(filter), 1, || {
            debug!(target: "macaroon", "secret");
            error!(target: "macaroon::format", "secret");
            debug!("shown");
        });
        assert_eq!(lines[0]["message"], "shown");
    }

    #[test]
    fn a_huge_event_is_cut_and_stays_parseable() {
        let long = "ä".repeat(LINE_BYTES_MAX);
        let lines = logged(None, 2, || {
            info!(a = %long, b = ?long, c = long, d = long, e = long, f = "short", "huge");
            info!("\u{1}{long}");
        });
        assert!(lines.iter().all(|line| line.to_string().len() <= LINE_BYTES_MAX));
        assert_eq!(lines[0]["a"].as_str().unwrap().len(), VALUE_BYTES_MAX);
        assert_eq!(lines[0]["f"], "short");
    }

    #[test]
    fn a_stuck_reader_stops_nobody_and_the_loss_is_counted() {
        struct Stuck(crossbeam_channel::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = crossbeam_channel::bounded(0);
        let (subscriber, guard) = subscriber("svc-wallet", None, Box::new(Stuck(stuck))).unwrap();
        tracing::subscriber::with_default(subscriber, || (0..3 * QUEUE_LINES_MAX).for_each(|number| warn!(number)));
        // The writer may have taken a queue full of lines before it got stuck.
        let dropped = guard.dropped();
        assert!((1..=2 * QUEUE_LINES_MAX as u64).contains(&dropped), "{dropped}");
        drop(release);
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_a_hint() {
        let fault = subscriber("svc-wallet", Some("svc_wallet=loud"), Box::new(std::io::sink())).err().unwrap();
        assert!(fault.to_string().contains("RUST_LOG"), "{fault}");
    }
}
