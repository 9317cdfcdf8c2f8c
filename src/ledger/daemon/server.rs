//! The socket of the daemon: who may connect, one thread for each connection, the end of all of them.
//!
//! Invariant: the ledger is closed once, by the one who stops the server; no connection commits after that.
use super::chair::Chair;
use super::connection::Connection;
use super::idle;
use super::peer::Peer;
use crate::domain::LogId;
use crate::ledger::audit::Audit;
use crate::ledger::auditor::Auditor;
use crate::ledger::backoff::Backoff;
use crate::ledger::committer::OnFatal;
use crate::ledger::comparison::Holders;
use crate::ledger::handles::AuditLedger;
use crate::ledger::log::{Log, Watch};
use crate::ledger::protocol::{Fault, Refused};
use crate::ledger::reader::Reader;
use crate::ledger::schedule::Schedule;
use crate::ledger::scrub::Scrubbing;
use crate::ledger::snapshot::Snapshot;
use crate::ledger::storage::Storage;
use crate::ledger::LedgerError;
use rustix::event::{poll, PollFd, PollFlags};
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections at the same time. A wallet that serves has four: for its commits, for look-ups, for its counters and for the audit. While
/// it starts it has three: for the commits to come, for the snapshot, and for the entries and keys behind it.
const CONNECTIONS_MAX: usize = 32;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two log lines about connections that were refused, at first and at the most: a standby tries for days.
const REFUSAL_NOTE_EVERY: Duration = Duration::from_secs(1);
const REFUSAL_NOTE_EVERY_MAX: Duration = Duration::from_secs(60);

/// How long the auditor has for an answer: it may be taking a snapshot.
const AUDITOR_PATIENCE: Duration = Duration::from_secs(2);

/// The users whose processes may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted(pub Vec<u32>);

/// What all connections share.
pub(super) struct Site<S: Storage> {
    /// `None` once the ledger is closed.
    pub chair: Mutex<Option<Chair<Log<S>>>>,
    pub log_id: LogId,
    pub reader: Reader<S>,
    pub watch: Watch<S>,
    /// `None` once it is closed.
    auditor: Mutex<Option<Auditor>>,
    /// Readable from the moment on at which the server ends.
    pub stop: UnixStream,
    pub on_fatal: Mutex<Option<OnFatal>>,
    started: Instant,
    refusals: Mutex<Refusals>,
}

struct Refusals {
    pauses: Backoff,
    /// When the last connection was refused.
    last: Duration,
    left_out: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        let pauses = Backoff::new(REFUSAL_NOTE_EVERY, REFUSAL_NOTE_EVERY_MAX);
        Self { pauses, last: Duration::ZERO, left_out: 0 }
    }
}

impl<S: Storage> Site<S> {
    /// The time as the chair knows it.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn auditor<T>(&self, ask: impl FnOnce(&Auditor) -> T) -> Option<T> {
        self.auditor.lock().expect("no thread panics while it holds the auditor").as_ref().map(ask)
    }

    /// What the audit has found; `None` once the daemon ends.
    pub fn audit(&self) -> Option<Audit> {
        self.auditor(AuditLedger::audit)
    }

    /// What these accounts hold, or those that were touched last if none is named; `None` if the auditor has no time soon.
    pub fn held(&self, accounts: Vec<Box<str>>) -> Option<Holders> {
        let answers = self.auditor(|auditor| auditor.ask_held(accounts))??;
        answers.recv_timeout(AUDITOR_PATIENCE).ok()?
    }

    /// A wallet writes that remembers idempotency keys for so long, in milliseconds: snapshots have to carry them on.
    pub fn keep_keys(&self, ttl_ms: u64) {
        self.auditor(|auditor| auditor.keep_keys(ttl_ms));
    }

    /// Logs why a connection was refused, but not more often than is good to read.
    pub fn note_refusal(&self, peer: Peer, fault: &Fault) {
        let mut refusals = self.refusals.lock().expect("no thread panics while it holds the count");
        let now = self.now();
        if now.saturating_sub(std::mem::replace(&mut refusals.last, now)) > REFUSAL_NOTE_EVERY_MAX {
            refusals.pauses.forget();
        }
        if !refusals.pauses.is_over(now) {
            refusals.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut refusals.left_out);
        refusals.pauses.failed(now);
        let (cause, reason) = (fault.refused, &fault.text);
        let Peer { pid, uid } = peer;
        tracing::warn!(event = "connection_refused", pid, uid, ?cause, %reason, left_out, "a connection was refused");
    }
}

/// The running server. Dropping it without [`Server::stop`] leaves its threads to the end of the process.
pub struct Server<S: Storage> {
    site: Arc<Site<S>>,
    stop: UnixStream,
    accepting: JoinHandle<()>,
    preparing: JoinHandle<()>,
}

impl<S: Storage> Server<S> {
    /// Serves this log on this socket, and has it audited from `base` on, the snapshot behind which it was opened. `on_fatal` is called when the ledger can take nothing any more; the process must end then.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        mut log: Log<S>,
        base: Option<Snapshot<S::File>>,
        schedule: Schedule,
        listener: UnixListener,
        admitted: Admitted,
        on_fatal: OnFatal,
    ) -> Result<Self, LedgerError> {
        log.allocate_ahead()?;
        let place = || "the socket of the daemon".to_owned();
        let (stop, stopped) = UnixStream::pair().map_err(LedgerError::io(place(), "make a pair of sockets"))?;
        listener.set_nonblocking(true).map_err(LedgerError::io(place(), "prepare the socket"))?;
        let (log_id, reader, watch, tenure) = (log.log_id(), log.reader(), log.watch(), log.tenure());
        let auditor = Auditor::spawn(&reader, base, schedule, None).map_err(LedgerError::io(place(), "start the auditor"))?;
        let site = Arc::new(Site {
            chair: Mutex::new(Some(Chair::new(log, tenure, log_id))),
            log_id,
            reader,
            watch,
            auditor: Mutex::new(Some(auditor)),
            stop: stopped,
            on_fatal: Mutex::new(Some(on_fatal)),
            started: Instant::now(),
            refusals: Mutex::default(),
        });
        let accepting = {
            let site = Arc::clone(&site);
            let accept = move || accept(&site, &listener, &admitted);
            let thread = std::thread::Builder::new().name("ledger-accept".into());
            thread.spawn(accept).map_err(LedgerError::io(place(), "start the thread that accepts"))?
        };
        let preparing = idle::spawn(&site).map_err(LedgerError::io(place(), "start the thread for idle work"))?;
        Ok(Self { site, stop, accepting, preparing })
    }

    /// From now on everything that is durable is also read again.
    ///
    /// # Errors
    /// If the thread for it cannot be started.
    pub fn scrub(&self, scrubbing: Scrubbing) -> std::io::Result<()> {
        let mut auditor = self.site.auditor.lock().expect("no thread panics while it holds the auditor");
        auditor.as_mut().map_or(Ok(()), |auditor| auditor.scrub(&self.site.reader, scrubbing))
    }

    /// Asks for a snapshot now.
    pub fn take_snapshot(&self) {
        self.site.auditor(Auditor::take_snapshot);
    }

    /// Accepts nobody any more, lets the commit under way finish, closes the ledger, tells everybody.
    ///
    /// # Errors
    /// If the end could not be noted in the ledger.
    pub fn stop(self) -> Result<(), LedgerError> {
        // Not before the chair is free: nobody is told that the daemon ends while a commit is under way.
        let chair = self.site.chair.lock().expect("a thread that panics ends the process").take();
        drop(self.stop);
        for thread in [self.accepting, self.preparing] {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        // What is committed is behind the last snapshot now.
        let auditor = self.site.auditor.lock().expect("a thread that panics ends the process").take();
        auditor.into_iter().for_each(Auditor::close);
        chair.map_or(Ok(()), Chair::close)
    }
}

fn accept<S: Storage>(site: &Arc<Site<S>>, listener: &UnixListener, admitted: &Admitted) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut waiting = [PollFd::new(listener, PollFlags::IN), PollFd::new(&site.stop, PollFlags::IN)];
        // A signal may end the wait early; then there is nothing to accept.
        let _ = poll(&mut waiting, None);
        if !waiting[1].revents().is_empty() {
            return;
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error, "a connection could not be accepted");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(
                    event = "peer_unknown", %error,
                    "the process at the other end cannot be told; its connection is closed"
                );
                continue;
            }
        };
        let mut connection = Connection::new(Arc::clone(site), stream, peer);
        let full = open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX;
        let guard = Counted(Arc::clone(&open));
        if !admitted.0.contains(&peer.uid) && !peer.is_this_process() {
            let text = format!("user {} is not admitted; start ron-ledger with --allow-uid {}", peer.uid, peer.uid);
            connection.refuse(Fault { refused: Refused::Stranger, epoch: 0, text });
            continue;
        }
        if full {
            let text = format!("{CONNECTIONS_MAX} connections are open already");
            connection.refuse(Fault { refused: Refused::Unavailable, epoch: 0, text });
            continue;
        }
        let serve = move || {
            connection.serve();
            drop(guard);
        };
        if let Err(error) = std::thread::Builder::new().name("ledger-client".into()).spawn(serve) {
            tracing::warn!(event = "thread_failed", %error, "no thread for a connection");
        }
    }
}

/// Counts an open connection down when it ends.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
