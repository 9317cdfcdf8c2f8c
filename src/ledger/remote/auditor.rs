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
    /// Looks for the first time, and starts the thread, which looks this often. A daemon that does not answer now is asked again.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut reader: RemoteReader, look_every: Duration, live: Box<dyn Live>) -> std::io::Result<Self> {
        let (findings, mut counts) = (reader.findings().clone(), Counts::default());
        if let Ok(Some(mut audit)) = reader.audit() {
            counts.settle(&mut audit);
            *findings.lock() = Some(audit);
        }
        let (stop, stopped) = bounded(0);
        let run = move || look(&mut reader, look_every, counts, &mut Comparison::new(live), &stopped);
        let thread = std::thread::Builder::new().name("ledger-audit".into()).spawn(run)?;
        Ok(Self { findings, stop: Some(stop), thread: Some(thread) })
    }
}

/// What the daemon has counted since this wallet began: what was counted before then is old, and must not alarm anybody anew; and a
/// daemon that was started again counts from nothing.
#[derive(Default)]
struct Counts {
    /// What it said last; nothing before its first answer.
    before: Option<[u64; 3]>,
    since: [u64; 3],
}

impl Counts {
    /// Makes counts since the beginning of this wallet of those since the beginning of the daemon.
    fn settle(&mut self, audit: &mut Audit) {
        let counts = [&mut audit.snapshots_taken, &mut audit.snapshots_failed, &mut audit.reads_failed];
        let now = [*counts[0], *counts[1], *counts[2]];
        let before = self.before.replace(now).unwrap_or(now);
        for (((since, count), now), before) in self.since.iter_mut().zip(counts).zip(now).zip(before) {
            *since += now.checked_sub(before).unwrap_or(now);
            *count = *since;
        }
    }
}

fn look(
    reader: &mut RemoteReader,
    look_every: Duration,
    mut counts: Counts,
    comparison: &mut Comparison,
    stopped: &Receiver<()>,
) {
    let findings = reader.findings().clone();
    while stopped.recv_timeout(look_every) == Err(RecvTimeoutError::Timeout) {
        let mut told = reader.audit().unwrap_or_else(|error| {
            // That the daemon is gone is told by the link; what was found before stays.
            tracing::debug!(%error, "the daemon cannot be asked what its audit has found");
            None
        });
        if let Some(told) = &mut told {
            counts.settle(told);
        }
        let mut differs = None;
        if reader.is_cut_off() {
            // While acknowledgements cannot come, the cores are behind the ledger.
            comparison.forget();
        } else {
            differs = comparison.look(reader);
        }
        if let Some(what) = &differs {
            tracing::error!(
                event = "cores_differ", %what,
                "the cores do not serve what the ledger says; nothing more is written"
            );
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
            tracing::error!(event = "ledger_broken", %what, "the ledger breaks a rule, says its daemon; nothing more is written");
        }
        found.broken = broken.or(found.broken.take()).or(differs);
        found.agreed = comparison.agreed();
    }
}

impl AuditLedger for RemoteAuditor {
    fn found(&self) -> Option<Audit> {
        self.findings.found()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_counted_before_is_old_and_one_that_starts_again_loses_nothing() {
        let mut counts = Counts::default();
        let mut settled = |[snapshots_taken, snapshots_failed, reads_failed]: [u64; 3]| {
            let mut audit = Audit { snapshots_taken, snapshots_failed, reads_failed, ..Audit::default() };
            counts.settle(&mut audit);
            [audit.snapshots_taken, audit.snapshots_failed, audit.reads_failed]
        };
        assert_eq!(settled([100, 5, 3]), [0, 0, 0]);
        assert_eq!(settled([101, 7, 3]), [1, 2, 0]);
        // Started again between two looks.
        assert_eq!(settled([0, 1, 2]), [1, 3, 2]);
        assert_eq!(settled([2, 1, 3]), [3, 3, 3]);
    }
}
