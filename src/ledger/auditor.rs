//! The auditor: a thread that replays what was committed, beside everything else, compares it with what is served, and takes snapshots.
//!
//! Invariants: it only follows what is durable; after a broken rule, or a difference that stays, it says so for ever. What it does with
//! a batch is in `audit`. It knows neither cores nor metrics.
use super::audit::{Audit, AuditWork, Findings};
use super::backoff::Backoff;
use super::comparison::{Comparison, Held, Holders, Live, Stated};
use super::handles::AuditLedger;
use super::reader::Reader;
use super::schedule::Schedule;
use super::scrub::{Scrubber, Scrubbing};
use super::snapshot::{Pace, Snapshot, SnapshotError};
use super::storage::Storage;
use super::LedgerError;
use ahash::RandomState;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Touched accounts from which on a snapshot is due, whatever the schedule says: each needs some 250 bytes of memory.
const TOUCHED_MAX: usize = 8 << 20;
/// Keys of issues since the last snapshot that are still remembered, from which on one is due as well: each needs 24 bytes.
const KEYS_MAX: usize = 16 << 20;
/// Pause after a snapshot that failed; each is twice as long as the one before, up to the longest.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// How many times as long as a piece of a snapshot took the next one waits: the disk belongs to the commits.
const REST: u32 = 2;
/// Time between two log lines about how far an orderly end is.
const ENDING_NOTE_EVERY: Duration = Duration::from_secs(5);
/// Priority of the auditor's thread: 0 is everybody's, 19 goes last.
const AUDITOR_NICE: i32 = 10;

enum Order {
    /// Look at once.
    Look,
    /// What these accounts hold, or those that were touched last if none is named.
    Held(Vec<Box<str>>, Sender<Option<Holders>>),
}

/// The handle of the auditor's thread, and of the one that scrubs, if there is one. Dropping it ends them without a snapshot.
pub struct Auditor {
    findings: Findings,
    orders: Option<Sender<Order>>,
    hurry: Arc<AtomicBool>,
    /// Somebody has asked for a snapshot.
    wanted: Arc<AtomicBool>,
    keys_ttl_ms: Arc<AtomicU64>,
    scrubber: Option<Scrubber>,
    thread: Option<JoinHandle<Last>>,
}

/// What is left to do for an orderly end: on the thread of whoever waits for it, which has not stepped back behind all others.
type Last = Box<dyn FnOnce() + Send>;

impl Auditor {
    /// Starts the thread. It begins behind `base`, the snapshot from which the service started, or with the first entry.
    /// What the ledger says of the accounts that were touched last is compared with what is served, if there is anybody to ask.
    pub fn spawn<S: Storage>(
        reader: &Reader<S>,
        base: Option<Snapshot<S::File>>,
        schedule: Schedule,
        live: Option<Box<dyn Live>>,
    ) -> std::io::Result<Self> {
        let mut desk = Desk::new(reader, base, schedule, live)?;
        let (findings, hurry, wanted) = (desk.findings.clone(), Arc::clone(&desk.hurry), Arc::clone(&desk.wanted));
        let keys_ttl_ms = Arc::clone(&desk.keys_ttl_ms);
        findings.publish(desk.work.audit());
        let (orders, to_do) = bounded(1);
        let run = move || -> Last {
            if let Err(error) = rustix::process::setpriority_process(None, AUDITOR_NICE) {
                tracing::debug!(%error, "the auditor works with everybody's priority");
            }
            desk.run(&to_do);
            Box::new(move || {
                desk.work.look_again();
                desk.end();
            })
        };
        let thread = std::thread::Builder::new().name("ledger-audit".into()).spawn(run)?;
        Ok(Self { findings, orders: Some(orders), hurry, wanted, keys_ttl_ms, scrubber: None, thread: Some(thread) })
    }

    /// From now on everything that is durable is also read again, by a thread of its own.
    ///
    /// # Errors
    /// If that cannot be started.
    pub fn scrub<S: Storage>(&mut self, reader: &Reader<S>, scrubbing: Scrubbing) -> std::io::Result<()> {
        self.scrubber = Some(Scrubber::spawn(reader, scrubbing)?);
        Ok(())
    }

    /// Asks what these accounts hold, or those that were touched last if none is named. The answer comes when the thread is free; `None`
    /// if it has an order already.
    pub(super) fn ask_held(&self, accounts: Vec<Box<str>>) -> Option<Receiver<Option<Holders>>> {
        let (answer, answers) = bounded(1);
        self.orders.as_ref()?.try_send(Order::Held(accounts, answer)).ok()?;
        Some(answers)
    }

    /// From the next snapshot on the keys of issues are carried on for so long, in milliseconds.
    pub(super) fn keep_keys(&self, ttl_ms: u64) {
        self.keys_ttl_ms.store(ttl_ms, Ordering::Relaxed);
    }

    /// Asks for a snapshot, which is taken when the thread is free. What became of it is logged.
    pub fn take_snapshot(&self) {
        self.wanted.store(true, Ordering::Release);
        if let Some(orders) = &self.orders {
            // If there is an order already, the thread looks after that one.
            let _ = orders.try_send(Order::Look);
        }
    }

    /// Follows what is durable to its end, takes a snapshot of it without rests, and ends the thread.
    pub fn close(mut self) {
        if let Some(last) = self.stop() {
            last();
        }
    }

    fn stop(&mut self) -> Option<Last> {
        self.hurry.store(true, Ordering::Release);
        self.orders = None;
        self.scrubber = None;
        match self.thread.take()?.join() {
            Ok(last) => Some(last),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl AuditLedger for Auditor {
    fn found(&self) -> Option<Audit> {
        let scrub = self.scrubber.as_ref().map(Scrubber::figures).unwrap_or_default();
        self.findings.found().map(|found| Audit { scrub, ..found })
    }

    fn broken(&self) -> Option<String> {
        self.findings.broken()
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// What belongs to the thread.
struct Desk<S: Storage> {
    work: AuditWork<S>,
    findings: Findings,
    schedule: Schedule,
    comparison: Option<Comparison>,
    /// Accounts that were seen to agree.
    agreed: u64,
    /// The service waits for the end: no rests.
    hurry: Arc<AtomicBool>,
    /// When it was last told how far the end is.
    ending_noted: Instant,
    wanted: Arc<AtomicBool>,
    keys_ttl_ms: Arc<AtomicU64>,
    taken: Instant,
    /// When a snapshot that failed is tried again, in the time since the beginning.
    retry: Backoff,
    elapsed: Box<dyn Fn() -> Duration + Send>,
    /// Touched accounts from which on a snapshot is due, whatever the schedule says.
    touched_max: usize,
    /// Remembered keys from which on one is due.
    keys_max: usize,
    snapshot_ms: u64,
    made: u64,
    failed: u64,
    reads_failed: u64,
    /// What the last look found damaged.
    damaged: Option<String>,
    /// This round has already said what it could not read.
    judged: bool,
    /// It was said that the last snapshot cannot tell what accounts should hold.
    untold: bool,
}

impl<S: Storage> Desk<S> {
    fn new(
        reader: &Reader<S>,
        base: Option<Snapshot<S::File>>,
        schedule: Schedule,
        live: Option<Box<dyn Live>>,
    ) -> std::io::Result<Self> {
        let began = Instant::now();
        let mut seeds = [0u8; 8];
        getrandom::fill(&mut seeds).map_err(|error| std::io::Error::other(error.to_string()))?;
        let work = AuditWork::new(reader, base, RandomState::with_seed(u64::from_le_bytes(seeds) as usize));
        let keys_ttl_ms = u64::try_from(schedule.keys_ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            findings: reader.shared().findings.clone(),
            work,
            schedule,
            comparison: live.map(Comparison::new),
            agreed: 0,
            hurry: Arc::default(),
            ending_noted: Instant::now(),
            wanted: Arc::default(),
            keys_ttl_ms: Arc::new(AtomicU64::new(keys_ttl_ms)),
            taken: began,
            retry: Backoff::new(RETRY, RETRY_MAX),
            elapsed: Box::new(move || began.elapsed()),
            touched_max: TOUCHED_MAX,
            keys_max: KEYS_MAX,
            snapshot_ms: 0,
            made: 0,
            failed: 0,
            reads_failed: 0,
            damaged: None,
            judged: false,
            untold: false,
        })
    }

    fn run(&mut self, orders: &Receiver<Order>) {
        loop {
            let order = orders.recv_timeout(self.schedule.look_every);
            if matches!(order, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            self.judged = false;
            if self.follow(false) {
                self.compare();
            }
            if let Ok(Order::Held(accounts, answer)) = order {
                // Whoever asked may have given up.
                drop(answer.send(self.holders(accounts)));
            }
            if self.wanted.swap(false, Ordering::AcqRel) {
                self.snapshot_on_demand();
            } else if self.due() {
                self.snapshot();
            }
            self.publish();
        }
    }

    /// What an orderly end waits for: the rest of the log is followed, and the last snapshot taken.
    fn end(&mut self) {
        self.judged = false;
        let (behind, since_snapshot) = (self.work.unread(), self.work.since_snapshot());
        if behind + since_snapshot > 0 && !self.work.is_broken() {
            let what = "the rest is audited and a snapshot of it taken; a second signal ends at once, which is safe as well";
            tracing::info!(event = "ledger_ending", behind, since_snapshot, "{what}");
        }
        self.ending_noted = Instant::now();
        self.snapshot_at_the_end();
    }

    /// Follows the log to its head; whether it got there. Takes a snapshot on the way where there are too many accounts or keys, and
    /// goes no further if there can be none. To the end it tries that whatever has failed a moment ago.
    fn follow(&mut self, to_the_end: bool) -> bool {
        self.work.cut.keys_ttl_ms = self.keys_ttl_ms.load(Ordering::Relaxed);
        while !self.work.is_broken() {
            if self.is_full() {
                if to_the_end || self.may_try() {
                    self.snapshot();
                }
                if self.is_full() {
                    return false;
                }
            }
            match self.work.step() {
                Ok(true) => {}
                Ok(false) => return !self.work.is_broken(),
                Err(error) => {
                    self.note_unread(&error);
                    return false;
                }
            }
            self.damaged = None;
            self.publish();
            if to_the_end && is_due(&mut self.ending_noted) {
                let (through, behind) = (self.work.tail.through().0, self.work.unread());
                tracing::info!(event = "ledger_ending", through, behind, "auditing the rest of the ledger before it is closed");
            }
            if !to_the_end && self.hurry.load(Ordering::Acquire) {
                return false;
            }
        }
        false
    }

    /// What was committed cannot be read. It is read again at the next look; bytes that are wrong then as well are lost, and whatever
    /// is written on top of them would be lost with the next start.
    ///
    /// Once in a round: an answer for the daemon's wallet reads again at once. What was replayed before and is replayed again, because
    /// a snapshot has rotted, ends nothing: it is old, and was right.
    fn note_unread(&mut self, error: &LedgerError) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        self.reads_failed += 1;
        let what = error.to_string();
        let damaged = error.is_damage();
        if damaged && self.damaged.as_ref() == Some(&what) && !self.is_behind_itself() {
            tracing::error!(event = "ledger_broken", %what, "what was committed is damaged; nothing more is written");
            self.work.broken = Some(what);
        } else {
            tracing::error!(event = "auditor_read_failed", %error, "the auditor cannot read what was committed; it tries again");
            self.damaged = Some(what).filter(|_| damaged);
        }
    }

    /// Compares the accounts that were touched last with what the cores hold.
    fn compare(&mut self) {
        let Some(mut comparison) = self.comparison.take() else { return };
        let differs = comparison.look(self);
        self.agreed = comparison.agreed();
        self.comparison = Some(comparison);
        if let Some(what) = differs {
            tracing::error!(event = "cores_differ", %what, through = self.work.tail.through().0, "the cores do not serve what the ledger says; nothing more is written");
            self.work.broken = Some(what);
        }
    }

    /// What these accounts hold, or those that were touched last if none is named.
    fn holders(&mut self, accounts: Vec<Box<str>>) -> Option<Holders> {
        if accounts.is_empty() {
            return self.touched();
        }
        let held = self.held(&accounts)?;
        Some(accounts.into_iter().zip(held).collect())
    }

    /// Whether entries are replayed again that were replayed before.
    fn is_behind_itself(&self) -> bool {
        self.work.tail.through() < self.findings.through()
    }

    fn due(&self) -> bool {
        let behind = self.work.since_snapshot();
        behind > 0
            && self.may_try()
            && !self.is_behind_itself()
            && (self.taken.elapsed() >= self.schedule.every
                || behind >= self.schedule.entries
                || self.work.fell_back
                || self.is_full())
    }

    /// Whether the pause after a snapshot that failed is over, if there was one.
    fn may_try(&self) -> bool {
        self.retry.is_over((self.elapsed)())
    }

    fn is_full(&self) -> bool {
        self.work.tail.touched() >= self.touched_max || self.work.tail.issue_keys().len() >= self.keys_max
    }

    /// As [`Desk::snapshot`], for somebody who is to be told why there is none.
    fn snapshot_on_demand(&mut self) {
        let reason = match &self.work.broken {
            Some(broken) => format!("the audit has failed: {broken}"),
            None if self.work.since_snapshot() == 0 => {
                format!("nothing was committed since the one after entry {}", self.work.tail.through().0)
            }
            None if self.is_behind_itself() => {
                "entries are being replayed again, because a snapshot cannot be read any more".to_owned()
            }
            None => {
                self.work.look_again();
                return self.snapshot();
            }
        };
        tracing::info!(event = "snapshot_not_taken", %reason, "no snapshot was taken");
    }

    fn snapshot(&mut self) {
        if self.work.is_broken() || self.work.since_snapshot() == 0 {
            return;
        }
        let began = Instant::now();
        let fell_back = std::mem::take(&mut self.work.fell_back);
        let mut piece = Instant::now();
        self.work.cut.keys_ttl_ms = self.keys_ttl_ms.load(Ordering::Relaxed);
        let Self { work, hurry, ending_noted, .. } = self;
        let made = work.snapshot(&mut |snapshot_bytes| {
            if hurry.load(Ordering::Acquire) {
                if is_due(ending_noted) {
                    tracing::info!(event = "ledger_ending", snapshot_bytes, "writing a snapshot before the ledger is closed");
                }
                return Pace::AtOnce;
            }
            std::thread::sleep(REST * piece.elapsed());
            piece = Instant::now();
            Pace::Piecewise
        });
        match made {
            Ok(()) => {
                self.taken = Instant::now();
                self.retry.forget();
                self.made += 1;
                self.snapshot_ms = began.elapsed().as_millis() as u64;
                let seq = self.work.tail.through().0;
                tracing::info!(event = "snapshot_taken", seq, took_ms = self.snapshot_ms, "took a snapshot of the ledger");
            }
            Err(error) => {
                self.failed += 1;
                let mut pause = Duration::ZERO;
                if self.work.fell_back {
                    // From another base it is another attempt, and comes as soon as the entries behind that one were replayed.
                    self.retry.forget();
                } else {
                    // What made it due stays so.
                    self.work.fell_back = fell_back;
                    pause = self.retry.failed((self.elapsed)());
                }
                let again_in_s = pause.as_secs();
                tracing::error!(event = "snapshot_failed", %error, again_in_s, "no snapshot was taken; the ledger itself is not concerned, and the next attempt follows");
                if let SnapshotError::Rule(what) = error {
                    self.work.broken = Some(what);
                }
            }
        }
    }

    /// What the last snapshot could tell. That it cannot is said once, until it can.
    fn told<T>(&mut self, outcome: Result<T, SnapshotError>) -> Option<T> {
        match outcome {
            Ok(told) => {
                self.untold = false;
                Some(told)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.untold, true) {
                    tracing::error!(event = "accounts_not_compared", %error, "the auditor cannot tell what accounts should hold");
                }
                None
            }
        }
    }

    /// The last snapshot. If the one before it turns out to have rotted, what is behind an earlier one is replayed, and then it is made.
    fn snapshot_at_the_end(&mut self) {
        for _ in 0..2 {
            if self.follow(true) {
                // One that fails for another reason would fail again.
                self.work.fell_back = false;
                self.snapshot();
            }
            if !self.work.fell_back {
                break;
            }
        }
    }

    fn publish(&self) {
        let Self { snapshot_ms, made: snapshots_taken, failed: snapshots_failed, reads_failed, agreed, .. } = *self;
        let mut now = Audit { snapshot_ms, snapshots_taken, snapshots_failed, reads_failed, agreed, ..self.work.audit() };
        let mut found = self.findings.lock();
        if let Some(before) = found.take().filter(|before| now.through < before.through) {
            // What is replayed once more was replayed before.
            (now.through, now.sums) = (before.through, before.sums);
        }
        *found = Some(now);
    }
}

impl<S: Storage> Stated for Desk<S> {
    fn touched(&mut self) -> Option<Holders> {
        let accounts = self.work.next_compared();
        let accounts = self.told(accounts)?;
        let held = self.work.held(&accounts);
        Some(accounts.into_iter().zip(self.told(held)?).collect())
    }

    fn held(&mut self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        // If it cannot be followed, the cores may be ahead of what could be read back.
        if !self.follow(false) {
            return None;
        }
        let held = self.work.held(accounts);
        self.told(held)
    }
}

/// Whether it is time to say how far an orderly end is.
fn is_due(noted: &mut Instant) -> bool {
    let due = noted.elapsed() >= ENDING_NOTE_EVERY;
    if due {
        *noted = Instant::now();
    }
    due
}

#[cfg(test)]
#[path = "auditor_tests.rs"]
mod tests;
