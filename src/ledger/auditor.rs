//! The auditor: a thread that replays what was committed, beside everything else, keeps the sums, and takes snapshots.
//!
//! It reads entries back from the disk, by rules of its own, so that a mistake of the cores or of the committer shows. Invariants:
//! it only follows what is durable; after a broken rule it follows no further, says so for ever, and no snapshot is taken any more;
//! its memory is bounded by the accounts that were touched since the last snapshot. It knows neither cores nor metrics.
use super::comparison::{Comparison, Held, Holders, Live, Stated};
use super::cursor::Cursor;
use super::handles::AuditLedger;
use super::log::Shared;
use super::reader::{visit, Reader};
use super::scan::SeenBatch;
use super::snapshot::{keep_only, make, snapshot_name, state_of, AssetSums, Cut, Snapshot, SnapshotError, Tail};
use super::storage::Storage;
use super::LedgerError;
use crate::domain::{AssetValue, Seq, UnixMs};
use ahash::RandomState;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches that are followed before the auditor looks whether it is to end.
const BATCHES_PER_STEP: u64 = 256;
/// How much is read at once, in bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// Touched accounts from which on a snapshot is due, whatever the schedule says: each needs some 200 bytes of memory.
const TOUCHED_MAX: usize = 8 << 20;
/// How many times as long as a piece of a snapshot took the next one waits: the disk belongs to the commits.
const REST: u32 = 2;
/// Accounts that are compared at one look.
pub(super) const COMPARED_MAX: usize = 32;
/// Priority of the auditor's thread: 0 is everybody's, 19 goes last.
const AUDITOR_NICE: i32 = 10;

/// When snapshots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Time between two of them.
    pub every: Duration,
    /// Entries after which one is due before that.
    pub entries: u64,
    /// How long the keys of issues are remembered: snapshots carry them on.
    pub keys_ttl: Duration,
    /// Time between two looks for new entries.
    pub look_every: Duration,
}

impl Schedule {
    /// As often as a service needs it.
    pub const LOOK_EVERY: Duration = Duration::from_millis(500);

    /// None but the one at the end.
    #[cfg(test)]
    pub fn no_snapshots() -> Self {
        let day = Duration::from_secs(86_400);
        Self { every: day, entries: u64::MAX, keys_ttl: day, look_every: Duration::from_millis(5) }
    }
}

/// What the auditor has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The last entry that was replayed.
    pub through: Seq,
    /// The sums of every asset after it.
    pub sums: Vec<AssetSums>,
    /// The entry after which the newest snapshot was taken; 0 if there is none.
    pub snapshot: Seq,
    /// How long the last snapshot took, in milliseconds; 0 if none was taken since the start.
    pub snapshot_ms: u64,
    /// Snapshots that could not be taken since the start.
    pub snapshots_failed: u64,
    /// Accounts of which ledger and cores have been seen to agree since the start.
    pub agreed: u64,
    /// Which rule is broken, and by which entry, or which account is not served as the ledger says. Nothing may be written any more.
    pub broken: Option<String>,
}

enum Order {
    Snapshot,
    /// What these accounts hold, or those that were touched last if none is named.
    Held(Vec<Box<str>>, Sender<Option<Holders>>),
}

/// The handle of the auditor's thread. Dropping it ends the thread without a snapshot.
pub struct Auditor {
    audit: Arc<Mutex<Audit>>,
    orders: Option<Sender<Order>>,
    hurry: Arc<AtomicBool>,
    keys_ttl_ms: Arc<AtomicU64>,
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
        let mut seeds = [0u8; 8];
        getrandom::fill(&mut seeds).map_err(|error| std::io::Error::other(error.to_string()))?;
        let hasher = RandomState::with_seed(u64::from_le_bytes(seeds) as usize);
        let work = Work::new(reader.shared(), base, hasher);
        let keys_ttl_ms = Arc::new(AtomicU64::new(u64::try_from(schedule.keys_ttl.as_millis()).unwrap_or(u64::MAX)));
        let audit = Arc::new(Mutex::new(work.audit()));
        let (orders, wanted) = bounded(1);
        let hurry = Arc::new(AtomicBool::new(false));
        let mut desk = Desk {
            work,
            audit: Arc::clone(&audit),
            schedule,
            comparison: live.map(Comparison::new),
            agreed: 0,
            hurry: Arc::clone(&hurry),
            keys_ttl_ms: Arc::clone(&keys_ttl_ms),
            taken: Instant::now(),
            snapshot_ms: 0,
            failed: 0,
        };
        let run = move || -> Last {
            if let Err(error) = rustix::process::setpriority_process(None, AUDITOR_NICE) {
                tracing::debug!(%error, "the auditor works with everybody's priority");
            }
            desk.run(&wanted);
            Box::new(move || {
                desk.follow(true);
                desk.snapshot();
            })
        };
        let thread = std::thread::Builder::new().name("ledger-audit".into()).spawn(run)?;
        Ok(Self { audit, orders: Some(orders), hurry, keys_ttl_ms, thread: Some(thread) })
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

    /// Asks for a snapshot; one that is being taken counts.
    pub fn take_snapshot(&self) {
        if let Some(orders) = &self.orders {
            // If the order before it has not been seen, it is the same order.
            let _ = orders.try_send(Order::Snapshot);
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
        match self.thread.take()?.join() {
            Ok(last) => Some(last),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl AuditLedger for Auditor {
    fn audit(&self) -> Audit {
        self.audit.lock().expect("no thread panics while it holds the audit").clone()
    }

    fn broken(&self) -> Option<String> {
        self.audit.lock().expect("no thread panics while it holds the audit").broken.clone()
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
    work: Work<S>,
    audit: Arc<Mutex<Audit>>,
    schedule: Schedule,
    comparison: Option<Comparison>,
    /// Accounts that were seen to agree.
    agreed: u64,
    /// The service waits for the end: no rests.
    hurry: Arc<AtomicBool>,
    keys_ttl_ms: Arc<AtomicU64>,
    taken: Instant,
    snapshot_ms: u64,
    failed: u64,
}

impl<S: Storage> Desk<S> {
    fn run(&mut self, orders: &Receiver<Order>) {
        loop {
            let order = orders.recv_timeout(self.schedule.look_every);
            if matches!(order, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            if self.follow(false) {
                self.compare();
            }
            let mut wanted = false;
            match order {
                Ok(Order::Snapshot) => wanted = true,
                // Whoever asked may have given up.
                Ok(Order::Held(accounts, answer)) => drop(answer.send(self.holders(accounts))),
                Err(_) => {}
            }
            if wanted || self.due() {
                self.snapshot();
            }
            self.publish();
        }
    }

    /// Follows the log to its head; whether it got there.
    fn follow(&mut self, to_the_end: bool) -> bool {
        while !self.work.is_broken() {
            match self.work.step() {
                Ok(true) => {}
                Ok(false) => return !self.work.is_broken(),
                Err(error) => {
                    // Tried again at the next look: what was read before stays.
                    tracing::error!(%error, "the auditor cannot read what was committed");
                    return false;
                }
            }
            self.publish();
            if !to_the_end && self.hurry.load(Ordering::Acquire) {
                return false;
            }
        }
        false
    }

    /// Compares the accounts that were touched last with what the cores hold.
    fn compare(&mut self) {
        let Some(mut comparison) = self.comparison.take() else { return };
        let differs = comparison.look(self);
        self.agreed = comparison.agreed();
        self.comparison = Some(comparison);
        if let Some(what) = differs {
            tracing::error!(%what, through = self.work.tail.through().0, "the cores do not serve what the ledger says; nothing more is written");
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

    fn due(&self) -> bool {
        let behind = self.work.behind();
        behind > 0
            && (self.taken.elapsed() >= self.schedule.every
                || behind >= self.schedule.entries
                || self.work.tail.touched() >= TOUCHED_MAX)
    }

    fn snapshot(&mut self) {
        if self.work.is_broken() || self.work.behind() == 0 {
            return;
        }
        let began = Instant::now();
        let mut piece = Instant::now();
        self.work.cut.keys_ttl_ms = self.keys_ttl_ms.load(Ordering::Relaxed);
        let hurry = Arc::clone(&self.hurry);
        let made = self.work.snapshot(&mut || {
            if !hurry.load(Ordering::Acquire) {
                std::thread::sleep(REST * piece.elapsed());
            }
            piece = Instant::now();
        });
        self.taken = Instant::now();
        match made {
            Ok(()) => {
                self.snapshot_ms = began.elapsed().as_millis() as u64;
                let seq = self.work.tail.through().0;
                tracing::info!(seq, took_ms = self.snapshot_ms, "took a snapshot of the ledger");
            }
            Err(error) => {
                self.failed += 1;
                tracing::error!(%error, "no snapshot was taken; the ledger itself is not concerned, and the next attempt follows");
                if let SnapshotError::Rule(what) = error {
                    self.work.broken = Some(what);
                }
            }
        }
    }

    fn publish(&self) {
        let Self { snapshot_ms, failed: snapshots_failed, agreed, .. } = *self;
        let audit = Audit { snapshot_ms, snapshots_failed, agreed, ..self.work.audit() };
        *self.audit.lock().expect("no thread panics while it holds the audit") = audit;
    }
}

impl<S: Storage> Stated for Desk<S> {
    fn touched(&mut self) -> Option<Holders> {
        let accounts: Vec<Box<str>> = self.work.recent.iter().cloned().collect();
        let held = self.work.held(&accounts).map_err(note_untold).ok()?;
        Some(accounts.into_iter().zip(held).collect())
    }

    fn held(&mut self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        // If it cannot be followed, the cores may be ahead of what could be read back.
        if !self.follow(false) {
            return None;
        }
        self.work.held(accounts).map_err(note_untold).ok()
    }
}

fn note_untold(error: SnapshotError) {
    tracing::error!(%error, "the auditor cannot tell what accounts should hold");
}

/// What has been replayed, and from where it goes on.
struct Work<S: Storage> {
    shared: Arc<Shared<S>>,
    /// The last snapshot, and the one before it if that is kept as well.
    base: Option<Snapshot<S::File>>,
    kept: Option<Seq>,
    cursor: Option<Cursor<S>>,
    tail: Tail,
    cut: Cut,
    hasher: RandomState,
    /// Accounts that were touched last.
    recent: VecDeque<Box<str>>,
    broken: Option<String>,
}

impl<S: Storage> Work<S> {
    fn new(shared: &Arc<Shared<S>>, base: Option<Snapshot<S::File>>, hasher: RandomState) -> Self {
        let start = base.as_ref().map(Snapshot::start);
        let cut = start.map_or_else(|| Cut::beginning(shared.log_id), |start| Cut::at(&start));
        let tail = tail_behind(base.as_ref(), &hasher);
        Self {
            shared: Arc::clone(shared),
            base,
            kept: None,
            cursor: None,
            tail,
            cut,
            hasher,
            recent: VecDeque::new(),
            broken: None,
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    fn base_seq(&self) -> Seq {
        self.base.as_ref().map_or(Seq(0), |base| base.head().seq)
    }

    /// Entries since the last snapshot.
    fn behind(&self) -> u64 {
        self.tail.through().0 - self.base_seq().0
    }

    fn audit(&self) -> Audit {
        Audit {
            through: self.tail.through(),
            sums: self.tail.assets().to_vec(),
            snapshot: self.base_seq(),
            broken: self.broken.clone(),
            ..Audit::default()
        }
    }

    /// Follows some batches; false if there are no more.
    fn step(&mut self) -> Result<bool, LedgerError> {
        let head = self.shared.head();
        let next = Seq(self.tail.through().0 + 1);
        if next > head {
            return Ok(false);
        }
        // Taken out, so that after an error the next step begins anew behind the last good batch.
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => {
                let mut cursor = Cursor::before(&self.shared, next, WINDOW_BYTES)?;
                cursor.skip_to(next, head)?;
                cursor
            }
        };
        for _ in 0..BATCHES_PER_STEP {
            let Some(batch) = cursor.next_batch(head)? else { break };
            if let Err(what) = apply(&mut self.tail, &batch)? {
                tracing::error!(%what, "the ledger breaks a rule; nothing more is written");
                self.broken = Some(what);
                return Ok(false);
            }
            note_accounts(&mut self.recent, &batch)?;
            self.cut.follow(&batch);
        }
        self.cursor = Some(cursor);
        Ok(true)
    }

    /// What these accounts hold after the last entry that was replayed.
    fn held(&self, accounts: &[Box<str>]) -> Result<Vec<Held>, SnapshotError> {
        accounts.iter().map(|account| self.held_by(account)).collect()
    }

    fn held_by(&self, account: &str) -> Result<Held, SnapshotError> {
        let assets = self.tail.assets();
        state_of(account, self.base.as_ref(), &self.tail, &mut |state| {
            let named = |value: &AssetValue| (assets[usize::from(value.asset)].asset.as_str().into(), value.free, value.held);
            Held::new(state.last_nonce, state.values.iter().map(named).collect())
        })
    }

    fn snapshot(&mut self, paced: &mut dyn FnMut()) -> Result<(), SnapshotError> {
        let seq = self.tail.through();
        let storage = &self.shared.storage;
        let made = make::<S, S>(storage, &snapshot_name(seq), self.base.as_ref(), &self.tail, &self.cut, Some(paced))?;
        self.kept = self.base.as_ref().map(|base| base.head().seq);
        let kept: Vec<Seq> = self.kept.into_iter().chain([seq]).collect();
        if let Err(error) = keep_only(storage, &kept) {
            tracing::warn!(%error, "an old snapshot could not be removed; the next one tries again");
        }
        self.base = Some(made);
        self.tail = tail_behind(self.base.as_ref(), &self.hasher);
        Ok(())
    }
}

fn tail_behind<F: super::storage::StorageFile>(base: Option<&Snapshot<F>>, hasher: &RandomState) -> Tail {
    let (seq, newest, assets) = match base {
        Some(base) => (base.head().seq, base.head().newest, base.front().assets.clone()),
        None => (Seq(0), UnixMs(0), Vec::new()),
    };
    Tail::new(seq, newest, assets, hasher.clone())
}

/// Remembers whom the first entry of a batch concerns.
fn note_accounts(recent: &mut VecDeque<Box<str>>, batch: &SeenBatch<'_>) -> Result<(), LedgerError> {
    let _ = visit(batch, |_, entry| {
        for account in entry.from().into_iter().chain(entry.to()) {
            if !recent.iter().any(|known| **known == *account.as_str()) {
                recent.push_back(account.as_str().into());
            }
        }
        ControlFlow::Break(())
    })?;
    let surplus = recent.len().saturating_sub(COMPARED_MAX);
    recent.drain(..surplus);
    Ok(())
}

/// Applies a batch to a tail. The inner error says which rule it breaks.
pub(super) fn apply(tail: &mut Tail, batch: &SeenBatch<'_>) -> Result<Result<(), String>, LedgerError> {
    let mut broken = Ok(());
    let _ = visit(batch, |seq, entry| match tail.apply(seq, &entry) {
        Ok(()) => ControlFlow::Continue(()),
        Err(what) => {
            let (file, offset) = (batch.file, batch.place.offset);
            broken = Err(format!("entry {} in the batch in {file} at byte {offset}: {what}", seq.0));
            ControlFlow::Break(())
        }
    })?;
    Ok(broken)
}

#[cfg(test)]
#[path = "auditor_tests.rs"]
mod tests;
