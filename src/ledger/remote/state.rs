//! What the service sees of a ledger behind a socket, kept up to date by the thread that writes to it.
use crate::domain::{LogId, Seq};
use crate::ledger::audit::Findings;
use crate::ledger::disturbance::{Disturbance, OUT_OF_REACH};
use crate::ledger::engine::Tenure;
use crate::ledger::handles::WatchLedger;
use crate::ledger::stats::{CommitStats, StatsCell};
use crate::ledger::LedgerError;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What others see.
pub(super) struct State {
    pub socket: PathBuf,
    head: AtomicU64,
    /// The first entry that can be read.
    pub first: AtomicU64,
    pub errors: AtomicU64,
    pub failed_allocations: AtomicU64,
    /// Whether another wallet had the ledger when it was asked for last.
    pub in_use: AtomicBool,
    /// Whether the daemon has no room for its next segment, as it has told last.
    pub scarce: AtomicBool,
    pub stats: StatsCell,
    /// What the audit of the daemon and the comparison with what is served have found last.
    pub findings: Findings,
    /// What is done to it on purpose.
    pub disturbance: Disturbance,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Why the daemon cannot be reached now.
    trouble: Option<String>,
    /// Whether its disk has no room.
    full: bool,
    begun: Option<Result<(LogId, Tenure), LedgerError>>,
}

impl State {
    pub fn new(socket: PathBuf, disturbance: Disturbance) -> Self {
        let inner = Inner { trouble: Some("the ledger daemon has not been reached yet".to_owned()), full: false, begun: None };
        Self {
            socket,
            head: AtomicU64::new(0),
            first: AtomicU64::new(1),
            errors: AtomicU64::new(0),
            failed_allocations: AtomicU64::new(0),
            in_use: AtomicBool::new(false),
            scarce: AtomicBool::new(false),
            stats: StatsCell::default(),
            findings: Findings::default(),
            disturbance,
            inner: Mutex::new(inner),
        }
    }

    /// The ledger's name for messages.
    pub fn place(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    pub fn reached(&self, head: Seq) {
        self.head.fetch_max(head.0, Ordering::AcqRel);
    }

    /// Whether another wallet had the ledger when it was asked for last.
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Why the daemon cannot be reached now; one whose disk is full can.
    pub fn out_of_reach(&self) -> Option<String> {
        // At once: the thread that cuts the connection may be asleep for a moment.
        self.disturbed().or_else(|| self.inner().trouble.clone())
    }

    /// Why nothing can be written now.
    pub fn trouble(&self) -> Option<String> {
        let inner = self.inner();
        let full = "the daemon's disk has no room for the next segment; free space in its ledger directory";
        self.disturbed().or_else(|| inner.trouble.clone()).or_else(|| inner.full.then(|| full.to_owned()))
    }

    /// What a wallet waits for that nothing was granted to yet.
    pub fn waits_for(&self) -> String {
        self.trouble().unwrap_or_else(|| "the ledger daemon has not answered yet".into())
    }

    /// Why it is out of reach, if that is so on purpose.
    pub fn disturbed(&self) -> Option<String> {
        self.disturbance.is_cut().then(|| format!("the ledger daemon is {OUT_OF_REACH}"))
    }

    /// The daemon can be reached, or cannot for this reason.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.inner().trouble = trouble;
    }

    /// The daemon has told whether there is room on its disk.
    pub fn set_full(&self, full: bool) {
        self.inner().full = full;
    }

    /// The first grant, or why there will be none.
    pub fn begin(&self, begun: Result<(LogId, Tenure), LedgerError>) {
        self.inner().begun = Some(begun);
    }

    pub fn take_begun(&self) -> Option<Result<(LogId, Tenure), LedgerError>> {
        self.inner().begun.take()
    }
}

/// A handle for watching a ledger behind a socket.
#[derive(Clone)]
pub struct RemoteWatch(pub(super) Arc<State>);

impl WatchLedger for RemoteWatch {
    fn head(&self) -> Seq {
        self.0.head()
    }

    fn trouble(&self) -> Option<String> {
        self.0.trouble()
    }

    fn connect_errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed) + self.0.failed_allocations.load(Ordering::Relaxed)
    }

    fn take_stats(&self) -> CommitStats {
        self.0.stats.take()
    }

    fn commit_age(&self) -> Duration {
        self.0.stats.commit.time()
    }

    fn is_scarce(&self) -> bool {
        self.0.scarce.load(Ordering::Relaxed)
    }
}
