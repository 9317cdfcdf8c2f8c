//! What the auditor does, without its thread: it replays what was committed, batch by batch, keeps the sums, and makes snapshots.
//!
//! It reads entries back from the disk, by rules of its own. Invariants: after a broken rule it follows no further, and makes no
//! snapshot any more; its memory is bounded by the accounts that were touched since the last snapshot, and the issues since then whose
//! keys are still remembered; a snapshot that has rotted is built upon no more.
use super::comparison::Held;
use super::cursor::Cursor;
use super::reader::{visit, Reader};
use super::scan::SeenBatch;
use super::scrub::Scrubbed;
use super::snapshot::{
    keep_only, make, newest_whole, snapshot_name, state_of, AssetSums, Cut, Pace, Snapshot, SnapshotError, SnapshotHead, Tail,
};
use super::storage::{Storage, StorageFile};
use super::LedgerError;
use crate::domain::{AssetValue, Seq, Totals, UnixMs, Untold};
use ahash::RandomState;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Batches that are followed before the auditor looks whether it is to end.
const BATCHES_PER_STEP: u64 = 256;
/// Entries after which it does so earlier: batches may be large.
const ENTRIES_PER_STEP: u64 = 1 << 16;
/// How much is read at once, in bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// Faults of the last snapshot that are passed over once there is none to go back to, before one is looked for again: that reads all
/// of them. There are one or two at every look.
const PASSED_OVER: u32 = 512;
/// Accounts that are compared at one look: those that were touched last, and others in turn.
pub(super) const COMPARED_MAX: usize = 128;
/// Accounts of them that were touched last.
const TOUCHED_LAST_MAX: usize = 32;

/// What the auditor has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The last entry that was replayed.
    pub through: Seq,
    /// The sums of every asset after it.
    pub sums: Vec<AssetSums>,
    /// The entry after which the newest snapshot was taken; 0 if there is none.
    pub snapshot: Seq,
    /// When the newest entry that it has was accepted; 0 if there is none.
    pub snapshot_newest: UnixMs,
    /// How long the last snapshot took, in milliseconds; 0 if none was taken since the start.
    pub snapshot_ms: u64,
    /// Snapshots that were taken since the start.
    pub snapshots_taken: u64,
    /// Snapshots that could not be taken since the start.
    pub snapshots_failed: u64,
    /// Looks that could not read what was committed, since the start.
    pub reads_failed: u64,
    /// Accounts of which ledger and cores have been seen to agree since the start.
    pub agreed: u64,
    /// What reading everything again has come to.
    pub scrub: Scrubbed,
    /// Which rule is broken, and by which entry, or which account is not served as the ledger says. Nothing may be written any more.
    pub broken: Option<String>,
}

/// Where an auditor puts what it has found, and everybody else finds it; clones are the same place. Whoever waits for it waits for a
/// copy of a few numbers; still no core does.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<Option<Audit>>>);

impl Findings {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Audit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, audit: Audit) {
        *self.lock() = Some(audit);
    }

    /// What was found last; `None` before the first look.
    pub fn found(&self) -> Option<Audit> {
        self.lock().clone()
    }

    /// The last entry that was replayed, without a copy of the rest.
    pub(super) fn through(&self) -> Seq {
        self.lock().as_ref().map_or(Seq(0), |audit| audit.through)
    }

    /// Whether a rule is broken, without a copy of the rest.
    pub fn broken(&self) -> Option<String> {
        self.lock().as_ref()?.broken.clone()
    }

    /// The sums of an asset; zeros if no entry has named it. `head` is the last durable entry: of a ledger with entries nothing is
    /// told before some have been read.
    pub fn totals(&self, asset: &str, head: Seq) -> Result<Totals, Untold> {
        let found = self.lock();
        let audit = found.as_ref().ok_or(Untold::NotYet)?;
        if audit.broken.is_some() {
            return Err(Untold::Broken);
        }
        if audit.through == Seq(0) && head > Seq(0) {
            return Err(Untold::NotYet);
        }
        let through = audit.through;
        let Some(sums) = audit.sums.iter().find(|sums| sums.asset == asset) else {
            return Ok(Totals { through, ..Totals::default() });
        };
        let AssetSums { issued, burned, held, .. } = *sums;
        // An account below zero is found at the latest when a snapshot is taken; a sum below zero is found here.
        let in_accounts = issued.checked_sub(burned).ok_or(Untold::Broken)?;
        Ok(Totals { issued, burned, in_accounts, held, through })
    }
}

/// What the auditor does, without its thread: what has been replayed, and from where it goes on.
pub struct AuditWork<S: Storage> {
    reader: Reader<S>,
    /// The last snapshot, and the one before it if that is kept as well.
    base: Option<Snapshot<S::File>>,
    kept: Option<Seq>,
    cursor: Option<Cursor<S>>,
    pub(super) tail: Tail,
    pub(super) cut: Cut,
    hasher: RandomState,
    /// Accounts that were touched last.
    recent: VecDeque<Box<str>>,
    /// The account that was compared last in turn; none before the first and behind the last one.
    turn: Box<str>,
    pub(super) broken: Option<String>,
    /// The last snapshot could not be read any more, and its entries are replayed again.
    pub(super) fell_back: bool,
    /// The last snapshot cannot be read any more and there is none to go back to: faults that are still passed over until one is looked
    /// for again.
    in_vain: Option<u32>,
}

impl<S: Storage> AuditWork<S> {
    /// Begins behind `base`, or with the first entry; snapshots carry the keys of issues on for this time in milliseconds. The seeds
    /// key the table of accounts and show in nothing that comes of it.
    pub fn behind(reader: &Reader<S>, base: Option<Snapshot<S::File>>, keys_ttl_ms: u64, [a, b, c, d]: [u64; 4]) -> Self {
        let mut work = Self::new(reader, base, RandomState::with_seeds(a, b, c, d));
        work.cut.keys_ttl_ms = keys_ttl_ms;
        work
    }

    pub(super) fn new(reader: &Reader<S>, base: Option<Snapshot<S::File>>, hasher: RandomState) -> Self {
        let cut = base.as_ref().map_or_else(|| Cut::beginning(reader.log_id()), Cut::of);
        let tail = tail_behind(base.as_ref(), &hasher);
        Self {
            reader: reader.clone(),
            base,
            kept: None,
            cursor: None,
            tail,
            cut,
            hasher,
            recent: VecDeque::new(),
            turn: Box::default(),
            broken: None,
            fell_back: false,
            in_vain: None,
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    fn base_seq(&self) -> Seq {
        self.base.as_ref().map_or(Seq(0), |base| base.head().seq)
    }

    /// Entries since the last snapshot.
    pub(super) fn since_snapshot(&self) -> u64 {
        self.tail.through().0 - self.base_seq().0
    }

    /// Durable entries that have not been replayed yet.
    pub(super) fn unread(&self) -> u64 {
        self.reader.head().0 - self.tail.through().0
    }

    /// What has been found; without the figures that only the thread knows.
    pub fn audit(&self) -> Audit {
        Audit {
            through: self.tail.through(),
            sums: self.tail.assets().to_vec(),
            snapshot: self.base_seq(),
            snapshot_newest: self.base.as_ref().map_or(UnixMs(0), |base| base.head().newest),
            broken: self.broken.clone(),
            ..Audit::default()
        }
    }

    /// Follows some batches; false if there are no more.
    ///
    /// # Errors
    /// If they cannot be read; the next step tries again.
    pub fn step(&mut self) -> Result<bool, LedgerError> {
        let head = self.reader.head();
        let next = Seq(self.tail.through().0 + 1);
        if next > head {
            return Ok(false);
        }
        // Taken out, so that after an error the next step begins anew behind the last good batch.
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => Cursor::before_batch_of(self.reader.shared(), next, head, WINDOW_BYTES)?,
        };
        for _ in 0..BATCHES_PER_STEP {
            let Some(batch) = cursor.next_batch(head)? else { break };
            if let Err(what) = apply(&mut self.tail, &batch)? {
                tracing::error!(event = "ledger_broken", %what, "the ledger breaks a rule; nothing more is written");
                self.broken = Some(what);
                return Ok(false);
            }
            note_accounts(&mut self.recent, &batch)?;
            self.cut.follow(&batch)?;
            if self.tail.through().0 - next.0 >= ENTRIES_PER_STEP {
                break;
            }
        }
        self.tail.forget_keys(self.cut.keys_ttl_ms);
        self.cursor = Some(cursor);
        Ok(true)
    }

    /// Accounts to be compared: those that were touched last, and the next ones of the last snapshot, in the order of their names and
    /// around again. So every account has its turn.
    ///
    /// # Errors
    /// If the last snapshot cannot be read any more: then there is something to be followed again.
    pub(super) fn next_compared(&mut self) -> Result<Vec<Box<str>>, SnapshotError> {
        let mut accounts: Vec<Box<str>> = self.recent.iter().cloned().collect();
        let Some(base) = &self.base else { return Ok(accounts) };
        let next = base.names_after(self.turn.as_bytes(), COMPARED_MAX - TOUCHED_LAST_MAX);
        let next = self.fall_back_after(next.map_err(SnapshotError::from))?;
        self.turn = next.last().cloned().unwrap_or_default();
        let others = next.into_iter().filter(|name| !self.recent.contains(name));
        accounts.extend(others);
        Ok(accounts)
    }

    /// What these accounts hold after the last entry that was replayed.
    ///
    /// # Errors
    /// If the last snapshot cannot be read any more: then there is something to be followed again.
    pub(super) fn held(&mut self, accounts: &[Box<str>]) -> Result<Vec<Held>, SnapshotError> {
        let held = accounts.iter().map(|account| self.held_by(account)).collect();
        self.fall_back_after(held)
    }

    fn held_by(&self, account: &str) -> Result<Held, SnapshotError> {
        let assets = self.tail.assets();
        state_of(account, self.base.as_ref(), &self.tail, &mut |state| {
            let named = |value: &AssetValue| (assets[usize::from(value.asset)].asset.as_str().into(), value.free, value.held);
            Held::new(state.last_nonce, state.values.iter().map(named).collect())
        })
    }

    /// Takes a snapshot of what has been replayed. `paced` is called after each piece with the bytes that have been written, and says how
    /// the next one is. Two snapshots are kept.
    ///
    /// # Errors
    /// If it could not be made. What there was before stays; if the last snapshot cannot be read any more, there is something to be
    /// followed again before the next attempt.
    pub fn snapshot(&mut self, paced: &mut dyn FnMut(u64) -> Pace) -> Result<(), SnapshotError> {
        let seq = self.tail.through();
        // Behind a snapshot without peaks they are not carried along, and there is one witness less.
        self.cut.peaks = self.cut.peaks.take().or_else(|| self.reader.history_peaks_of(self.cut.batches));
        let storage = self.reader.shared().storage.clone();
        let made = make::<S, S>(&storage, &snapshot_name(seq), self.base.as_ref(), &self.tail, &self.cut, Some(paced));
        let made = self.fall_back_after(made)?;
        self.kept = self.base.as_ref().map(|base| base.head().seq);
        let kept: Vec<Seq> = self.kept.into_iter().chain([seq]).collect();
        if let Err(error) = keep_only(&storage, &kept) {
            tracing::warn!(event = "snapshot_kept", %error, "an old snapshot could not be removed; the next one tries again");
        }
        self.base = Some(made);
        self.tail = tail_behind(self.base.as_ref(), &self.hasher);
        self.in_vain = None;
        Ok(())
    }

    /// Somebody may have mended what could not be read: at the next fault a snapshot to go back to is looked for whatever came before.
    pub(super) fn look_again(&mut self) {
        self.in_vain = self.in_vain.map(|_| 0);
    }

    /// Goes back to the snapshot before, or to the first entry, if this is a fault of the snapshot on which everything here builds.
    fn fall_back_after<T>(&mut self, outcome: Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        let fault = match &outcome {
            Err(SnapshotError::Fault(fault)) if self.base.as_ref().is_some_and(|base| base.place() == fault.file) => fault,
            Ok(_) | Err(SnapshotError::Fault(_) | SnapshotError::Io(_) | SnapshotError::Rule(_)) => return outcome,
        };
        if let Some(left @ 1..) = self.in_vain {
            self.in_vain = Some(left - 1);
            return outcome;
        }
        match self.earlier_base() {
            Ok(base) => {
                let through = base.as_ref().map_or(0, |base| base.head().seq.0);
                tracing::warn!(
                    event = "auditor_went_back", %fault, through,
                    "the entries since an earlier snapshot are replayed again"
                );
                let cut = base.as_ref().map_or_else(|| Cut::beginning(self.reader.log_id()), Cut::of);
                self.cut = Cut { keys_ttl_ms: self.cut.keys_ttl_ms, ..cut };
                self.tail = tail_behind(base.as_ref(), &self.hasher);
                (self.base, self.kept, self.cursor, self.fell_back) = (base, None, None, true);
                self.in_vain = None;
            }
            Err(error) => {
                if self.in_vain.is_none() {
                    tracing::error!(
                        event = "snapshot_lost", %fault, %error,
                        "the last snapshot cannot be read, and there is nothing to go back to: no snapshot can be made, no account compared, \
                         and the next start would refuse; put the copy of a backup in the place of one of the snapshots and ask for a \
                         snapshot, or bring the archived segments back before the next start"
                    );
                }
                self.in_vain = Some(PASSED_OVER);
            }
        }
        outcome
    }

    /// The newest snapshot that is good in all its parts and not newer than the present one, which may have become good again; `None`
    /// stands for the first entry.
    fn earlier_base(&self) -> Result<Option<Snapshot<S::File>>, LedgerError> {
        let (shared, head) = (self.reader.shared(), self.reader.head());
        let goes_on = |of: &SnapshotHead| Cursor::goes_on_behind(shared, of.seq, &of.root, head);
        match (
            newest_whole(&shared.storage, Some(shared.log_id), self.base_seq(), &goes_on, &mut || Ok(()))?,
            self.reader.first(),
        ) {
            (Some(snapshot), _) => Ok(Some(snapshot)),
            (None, Seq(1)) => Ok(None),
            (None, first) => Err(LedgerError::Archived { place: shared.storage.place(""), first }),
        }
    }
}

fn tail_behind<F: StorageFile>(base: Option<&Snapshot<F>>, hasher: &RandomState) -> Tail {
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
    let surplus = recent.len().saturating_sub(TOUCHED_LAST_MAX);
    recent.drain(..surplus);
    Ok(())
}

/// Applies a batch to a tail. The inner error says which rule it breaks.
///
/// # Errors
/// If not all of it can be read. Then nothing of it was applied: a tail that ends within a batch fits no place of the log.
pub(super) fn apply(tail: &mut Tail, batch: &SeenBatch<'_>) -> Result<Result<(), String>, LedgerError> {
    let _ = visit(batch, |_, _| ControlFlow::Continue(()))?;
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
