//! The audit of a ledger behind a socket, as its wallet has it: what the daemon's auditor has found, and the comparison with what is
//! served, which is made here.
//!
//! Invariant: a rule that was seen broken stays broken, whatever the daemon says afterwards.
use super::reader::RemoteReader;
use crate::ledger::audit::Audit;
use crate::ledger::comparison::{Comparison, Live};
use crate::ledger::handles::AuditLedger;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The handle of the thread. Dropping it ends the thread.
pub struct RemoteAuditor {
    audit: Arc<Mutex<Audit>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RemoteAuditor {
    /// Starts the thread, which looks this often.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut reader: RemoteReader, look_every: Duration, live: Box<dyn Live>) -> std::io::Result<Self> {
        let audit = Arc::new(Mutex::new(Audit::default()));
        let (stop, stopped) = bounded(0);
        let found = Arc::clone(&audit);
        let run = move || look(&mut reader, look_every, &mut Comparison::new(live), &stopped, &found);
        let thread = std::thread::Builder::new().name("ledger-audit".into()).spawn(run)?;
        Ok(Self { audit, stop: Some(stop), thread: Some(thread) })
    }
}

fn look(
    reader: &mut RemoteReader,
    look_every: Duration,
    comparison: &mut Comparison,
    stopped: &Receiver<()>,
    found: &Mutex<Audit>,
) {
    while stopped.recv_timeout(look_every) == Err(RecvTimeoutError::Timeout) {
        let told = reader.audit().unwrap_or_else(|error| {
            // That the daemon is gone is told by the link; what was found before stays.
            tracing::debug!(%error, "the daemon cannot be asked what its audit has found");
            None
        });
        let differs = comparison.look(reader);
        if let Some(what) = &differs {
            tracing::error!(%what, "the cores do not serve what the ledger says; nothing more is written");
        }
        let mut found = locked(found);
        let broken = found.broken.take();
        if let Some(told) = told {
            *found = told;
        }
        if let (None, Some(what)) = (&broken, &found.broken) {
            tracing::error!(%what, "the ledger breaks a rule, says its daemon; nothing more is written");
        }
        found.broken = broken.or(found.broken.take()).or(differs);
        found.agreed = comparison.agreed();
    }
}

fn locked(audit: &Mutex<Audit>) -> MutexGuard<'_, Audit> {
    audit.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AuditLedger for RemoteAuditor {
    fn audit(&self) -> Audit {
        locked(&self.audit).clone()
    }

    fn broken(&self) -> Option<String> {
        locked(&self.audit).broken.clone()
    }
}

impl Drop for RemoteAuditor {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process or was told by it; there is nothing to add.
            let _ = thread.join();
        }
    }
}
