//! The threads of the audit stream: one that writes it, off the cores and off the control thread, and one that sends it on, if it has a peer.
//!
//! Whatever is in its way, spends go on: it is told in the log, in the metrics and in `/readyz`, and tried again.
use super::keys::InForce;
use super::system::step_back;
use crate::access::{WrittenSignature, AUDIT_CHECKPOINT};
use crate::audit::{deliver, AuditFault, AuditFigures, Bounds, Event, EventKind, Recovered, Signer, Stream, EVENTS_MAX};
use crate::config::{AuditSink, Config};
use crate::domain::{Seq, UnixMs};
use crate::ledger::{DiskStorage, RamStorage, ReadLedger, Storage};
use crate::telemetry::feed::Intake;
use crate::worker::unix_now;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two rounds of the stream.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Segments of the ledger for which the stream leaves room on the disk.
const ROOM_SEGMENTS: u64 = 4;
/// Full files of the stream that are kept in memory, until the peer has them.
const FILES_IN_MEMORY_MAX: u32 = 3;
/// A stream that has been behind the ledger for longer, in seconds, is told in `/readyz`.
const LAG_SECONDS_MAX: f64 = 60.0;

/// The running stream.
pub(super) struct Auditing {
    figures: AuditFigures,
    events: Sender<Event>,
    events_dropped: Arc<AtomicU64>,
    stop: Option<Sender<()>>,
    writer: Option<JoinHandle<()>>,
    peer: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

/// What the writing thread takes along.
struct Writer<S: Storage> {
    stream: Stream<S>,
    ledger: Box<dyn ReadLedger>,
    feeds: Vec<Intake>,
    events: Receiver<Event>,
    events_dropped: Arc<AtomicU64>,
    figures: AuditFigures,
    /// None if the stream is in memory.
    directory: Option<PathBuf>,
    /// Bytes that are left on the disk.
    room_bytes: u64,
    recovered: bool,
    /// What was told last.
    told: Option<String>,
}

/// What a stream is made from, wherever it is kept.
struct Parts {
    ledger: Box<dyn ReadLedger>,
    feeds: Vec<Intake>,
    keyring: InForce,
    peer: Option<PathBuf>,
    /// Bytes that are left on the disk.
    room_bytes: u64,
}

impl Auditing {
    /// Starts the stream of this configuration; `None` if it is off. `ledger` is read, refusals come from these feeds, and checkpoints are
    /// signed with the keyring in force.
    ///
    /// # Errors
    /// If the directory cannot be used or belongs to another ledger.
    pub fn start(
        config: &Config,
        ledger: Box<dyn ReadLedger>,
        feeds: Vec<Intake>,
        keyring: InForce,
    ) -> Result<Option<Self>, AuditFault> {
        let peer = match config.audit_sink() {
            AuditSink::Off => return Ok(None),
            AuditSink::File => None,
            AuditSink::Unix(path) => Some(path.clone()),
        };
        let crate::config::Audit { rotate_bytes, keep, refusals_per_second, .. } = config.audit;
        let bounds = Bounds { rotate_bytes, keep, refusals_per_second };
        let parts = Parts { ledger, feeds, keyring, peer, room_bytes: ROOM_SEGMENTS * config.ledger.segment_bytes };
        if config.security.amnesia {
            // One file more is there while it is written, and the lines of one batch may be longer than a file.
            let keep = keep.unwrap_or(FILES_IN_MEMORY_MAX).min(FILES_IN_MEMORY_MAX);
            let storage = RamStorage::new(2 * u64::from(FILES_IN_MEMORY_MAX + 1) * rotate_bytes);
            return Self::run(storage, None, Bounds { keep: Some(keep), ..bounds }, parts).map(Some);
        }
        let directory = config.audit_directory();
        let storage = DiskStorage::create(&directory).map_err(failed(&directory, "use the directory of the stream"))?;
        Self::run(storage, Some(directory), bounds, parts).map(Some)
    }

    fn run<S: Storage>(storage: S, directory: Option<PathBuf>, bounds: Bounds, parts: Parts) -> Result<Self, AuditFault> {
        let Parts { ledger, feeds, keyring, peer, room_bytes } = parts;
        let figures = AuditFigures::new(unix_now());
        let place = PathBuf::from(storage.place(""));
        let stream = Stream::open(storage.clone(), ledger.log_id(), bounds, figures.clone())?;
        let stream = stream.signed_by(signer(keyring));
        let (events, to_tell) = bounded(EVENTS_MAX);
        let events_dropped = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            stream,
            ledger,
            feeds,
            events: to_tell,
            events_dropped: events_dropped.clone(),
            figures: figures.clone(),
            directory,
            room_bytes,
            recovered: false,
            told: None,
        };
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new().name("audit".into());
        let thread = thread.spawn(move || {
            step_back();
            writer.run(&stopped);
        });
        let writer = Some(thread.map_err(failed(&place, "start the thread of the stream"))?);
        let peer = match peer {
            None => None,
            Some(path) => {
                let (ending, figures) = (Arc::new(AtomicBool::new(false)), figures.clone());
                let stop = ending.clone();
                let thread = std::thread::Builder::new().name("audit-peer".into()).spawn(move || {
                    step_back();
                    deliver(&storage, &path, &figures, &stop);
                });
                Some((ending, thread.map_err(failed(&place, "start the thread that sends the stream on"))?))
            }
        };
        Ok(Self { figures, events, events_dropped, stop: Some(stop), writer, peer })
    }

    /// Tells of something that was done to the service; never waits.
    pub fn note(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the stream tells about itself.
    pub fn figures(&self) -> &AuditFigures {
        &self.figures
    }

    /// Why the stream is not where it should be, for the operator.
    pub fn trouble(&self, head: Seq, now: UnixMs) -> Option<String> {
        let lag = self.figures.lag_seconds(head, now);
        self.figures
            .trouble()
            .or_else(|| (lag > LAG_SECONDS_MAX).then(|| format!("the audit stream is {lag:.0} s behind the ledger")))
    }

    /// Follows the ledger to its end, says that the service ends, and ends the threads.
    pub fn stop(mut self) {
        self.stop = None;
        if let Some(writer) = self.writer.take() {
            // A panic was reported by its own thread; the ledger has everything that was accepted.
            let _ = writer.join();
        }
        if let Some((ending, thread)) = self.peer.take() {
            ending.store(true, Ordering::Release);
            let _ = thread.join();
        }
    }
}

fn failed(place: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> AuditFault {
    let place = place.display().to_string();
    move |source| AuditFault::Io { place, doing, source }
}

/// Signs checkpoints with the keyring in force, and checks with it those that it finds.
fn signer(keyring: InForce) -> Signer {
    let own = keyring.clone();
    Signer {
        sign: Box::new(move |signed, now| signature(&keyring, signed, now)),
        check: Box::new(move |signed, found| check(&own, signed, found)),
    }
}

fn check(keyring: &InForce, signed: &[u8], found: &Map<String, Value>) -> Result<(), String> {
    let signature = WrittenSignature::deserialize(found).map_err(|_| "what stands there is no signature".to_owned())?;
    let keys = keyring.get().public_keys().map_err(|fault| fault.to_string())?;
    let key = keys.iter().find(|key| key.id == signature.key);
    let key = key.ok_or_else(|| format!("it is signed by key {:?}, which is not in the keyring", signature.key))?;
    signature.verify(key, AUDIT_CHECKPOINT, signed).map_err(|fault| fault.to_string())
}

/// The signature of a checkpoint.
fn signature(keyring: &InForce, signed: &[u8], now: UnixMs) -> Option<String> {
    match WrittenSignature::make(&keyring.get(), AUDIT_CHECKPOINT, signed, now) {
        Ok(signature) => Some(serde_json::to_string(&signature).expect("texts and a number are always JSON")),
        Err(error) => {
            tracing::error!(event = "checkpoint_unsigned", %error, "a checkpoint of the audit stream cannot be signed and is not written; it is tried again in ten seconds");
            None
        }
    }
}

impl<S: Storage> Writer<S> {
    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            let ending = stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout);
            self.catch_up();
            if ending {
                if self.recovered {
                    let closed = self.stream.close(unix_now(), Some(&Event::new(EventKind::Stop, true)));
                    self.tell(closed.err().map(|fault| fault.to_string()));
                }
                return;
            }
        }
    }

    /// Takes what there is, as far as that can be done now.
    fn catch_up(&mut self) {
        loop {
            match self.round() {
                Ok(true) => {}
                Ok(false) => return self.tell(None),
                Err(what) => return self.tell(Some(what)),
            }
        }
    }

    fn round(&mut self) -> Result<bool, String> {
        self.check_room()?;
        if !self.recovered {
            let found = self.stream.recover(unix_now()).map_err(|fault| fault.to_string())?;
            self.recovered = true;
            tell_recovered(&found);
        }
        self.stream.events_dropped(self.events_dropped.swap(0, Ordering::Relaxed));
        self.stream.round(unix_now(), &mut *self.ledger, &self.feeds, &self.events).map_err(|fault| fault.to_string())
    }

    /// The stream may fill its disk, but not take the ledger's next segments.
    fn check_room(&self) -> Result<(), String> {
        let Some(directory) = &self.directory else { return Ok(()) };
        match room_on(directory) {
            // How much there is changes all the time, and each other reason is told anew.
            Ok(room) if room < self.room_bytes => Err(format!(
                "audit: {} has less than {} MiB of room, which are left to the ledger; make room, and the stream catches up by itself",
                directory.display(),
                self.room_bytes >> 20
            )),
            // What cannot be told is found out by writing.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Says what is in the way when it changes, and when nothing is any more.
    fn tell(&mut self, trouble: Option<String>) {
        match (&trouble, &self.told) {
            (Some(what), told) if told.as_ref() != Some(what) => {
                tracing::error!(event = "audit_failed", reason = %what, "the audit stream falls behind; spends go on, and it is tried again");
            }
            (None, Some(_)) => tracing::info!(event = "audit_goes_on", "the audit stream is written again"),
            (Some(_), _) | (None, None) => {}
        }
        self.figures.set_trouble(trouble.clone());
        self.told = trouble;
    }
}

fn tell_recovered(found: &Recovered) {
    let Recovered { line, through, torn, damaged, distrusted } = found;
    if *torn > 0 {
        tracing::warn!(event = "audit_torn", bytes = torn, line, "an interrupted write of the audit stream was cut off");
    }
    if let Some(what) = damaged {
        tracing::error!(
            event = "audit_damaged", %what, line,
            "the audit stream is not what was written; that file is left as it is, and the stream goes on in a new one: keep a copy of the \
             directory, and run ronctl audit verify"
        );
    }
    if let Some(what) = distrusted {
        tracing::error!(
            event = "audit_distrusted", %what, line,
            "the last checkpoint of the audit stream is not one that this server is known to have signed; it goes on behind it: keep a copy of \
             the directory, and run ronctl audit verify with --keys"
        );
    }
    tracing::info!(event = "audit_recovered", line, through = through.0, "the audit stream goes on");
}

/// Bytes that this user may still use on the disk of a directory.
fn room_on(directory: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
