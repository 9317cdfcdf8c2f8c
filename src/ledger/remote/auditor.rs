//! The audit of a ledger behind a socket, as its wallet has it: what the daemon's auditor has found, and the comparison with what is
//! served, which is made here.
//!
//! Invariant: a rule that was seen broken stays broken, whatever the daemon says afterwards.
use super::reader::RemoteReader;
use crate::ledger::audit::{Audit, Findings};
use crate::ledger::comparison::{Comparison, Live};
use crate::ledger::handles::{AuditLedger, ReadLedger};
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// The handle of the thread. Dropping it ends the thread.
pub struct RemoteAuditor {
    findings: Findings,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RemoteAuditor {
    /// Starts the thread, which looks this often.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut reader: RemoteReader, look_every: Duration, live: Box<dyn Live>) -> std::io::Result<Self> {
        let findings = reader.findings().clone();
        let (stop, stopped) = bounded(0);
        let run = move || look(&mut reader, look_every, &mut Comparison::new(live), &stopped);
        let thread = std::thread::Builder::new().name("ledger-audit".into()).spawn(run)?;
        Ok(Self { findings, stop: Some(stop), thread: Some(thread) })
    }
}

fn look(reader: &mut RemoteReader, look_every: Duration, comparison: &mut Comparison, stopped: &Receiver<()>) {
    let findings = reader.findings().clone();
    while stopped.recv_timeout(look_every) == Err(RecvTimeoutError::Timeout) {
        let told = reader.audit().unwrap_or_else(|error| {
            // That the daemon is gone is told by the link; what was found before stays.
            tracing::debug!(%error, "the daemon cannot be asked what its audit has found");
            None
        });
        let mut differs = None;
        if reader.is_cut_off() {
            // While acknowledgements cannot come, the cores are behind the ledger.
            comparison.forget();
        } else {
            differs = comparison.look(reader);
        }
        if let Some(what) = &differs {
            tracing::error!(%what, "the cores do not serve what the ledger says; nothing more is written");
        }
        let mut found = findings.lock();
        let broken = found.as_mut().and_then(|found| found.broken.take());
        if told.is_some() {
            *found = told;
        }
        if found.is_none() && differs.is_none() {
            continue;
        }
        let found = found.get_or_insert_with(Audit::default);
        if let (None, Some(what)) = (&broken, &found.broken) {
            tracing::error!(%what, "the ledger breaks a rule, says its daemon; nothing more is written");
        }
        found.broken = broken.or(found.broken.take()).or(differs);
        found.agreed = comparison.agreed();
    }
}

impl AuditLedger for RemoteAuditor {
    fn audit(&self) -> Audit {
        self.findings.audit()
    }

    fn broken(&self) -> Option<String> {
        self.findings.broken()
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
