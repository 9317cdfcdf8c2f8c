//! The snapshots in a ledger's directory: made from the last one and the tail, read back, named, and kept two at a time.
//!
//! Invariants: a snapshot gets its name only after it is durable, was read back past the cache of the system, and adds up; the
//! one that it was made from stays until the next one. Nothing here decides when.
use super::super::history::{append_batch, Peaks};
use super::super::scan::{SeenBatch, Start};
use super::super::storage::{ReadFile, Storage, StorageFile, TEMPORARY_SUFFIX};
use super::super::LedgerError;
use super::account::{encode, parse, Lists};
use super::file::{Snapshot, SnapshotFault};
use super::format::{Extents, Front, SnapshotHead};
use super::tail::{lives, Delta, Merged, Tail, Touched};
use super::writer::{Paced, Writer};
use crate::domain::{Account, AccountState, LogId, Nonce, Root, Seq, TokenId, UsedKey, DAY_MS};
use std::cmp::Ordering;
use std::io;
use std::iter::Peekable;

/// Name of the snapshot after an entry.
pub fn snapshot_name(seq: Seq) -> String {
    format!("snapshot-{:020}.snap", seq.0)
}

/// The entry in the name of a snapshot; `None` for all other names.
pub fn snapshot_seq(name: &str) -> Option<Seq> {
    let digits = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?;
    let seq = Seq(digits.parse().ok()?);
    (snapshot_name(seq) == name).then_some(seq)
}

/// The entries after which there are snapshots, the newest first.
pub fn snapshots(names: &[String]) -> Vec<Seq> {
    let mut found: Vec<Seq> = names.iter().filter_map(|name| snapshot_seq(name)).collect();
    found.sort_unstable_by(|left, right| right.cmp(left));
    found
}

/// Where in the log a snapshot is taken.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub log_id: LogId,
    pub root: Root,
    pub epoch: u64,
    pub batches: u64,
    pub last_batch: super::super::places::Place,
    /// The peaks of the history over the batches up to here; `None` if they are not known.
    pub peaks: Option<Peaks>,
    /// How long the keys of issues are remembered, in milliseconds.
    pub keys_ttl_ms: u64,
}

impl Cut {
    /// Where a snapshot was taken.
    pub fn of<F: ReadFile>(snapshot: &Snapshot<F>) -> Self {
        let Start { log_id, root, epoch, batches, last_batch, .. } = snapshot.start();
        let peaks = snapshot.front().peaks.clone();
        Self { log_id, root, epoch, batches, last_batch, peaks, ..Self::beginning(log_id) }
    }

    /// Moves behind the next batch, whose entries could be read.
    pub fn follow(&mut self, batch: &SeenBatch<'_>) -> Result<(), LedgerError> {
        if let Some(peaks) = &mut self.peaks {
            append_batch(peaks, batch)?;
        }
        (self.root, self.epoch, self.last_batch) = (batch.root, batch.header.epoch, batch.place);
        self.batches += 1;
        Ok(())
    }

    /// Before the first entry of a log.
    pub fn beginning(log_id: LogId) -> Self {
        let last_batch = super::super::places::Place { segment: 0, offset: 0, first_seq: Seq(0) };
        Self { log_id, root: [0; 32], epoch: 0, batches: 0, last_batch, peaks: Some(Peaks::default()), keys_ttl_ms: u64::MAX }
    }
}

/// Why there is no new snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// The disk refused. Nothing is lost; the next attempt may succeed.
    Io(io::Error),
    /// The last snapshot, or the new one when it was read back, is not what was written.
    Fault(SnapshotFault),
    /// The entries do not fit the state before them: no correct writer can have written them.
    Rule(String),
}

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotError::Io(error) => write!(f, "the snapshot could not be written: {error}"),
            SnapshotError::Fault(fault) => fault.fmt(f),
            SnapshotError::Rule(what) => write!(f, "the ledger breaks a rule: {what}; run `ronctl ledger verify`"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        SnapshotError::Io(error)
    }
}

impl From<SnapshotFault> for SnapshotError {
    fn from(fault: SnapshotFault) -> Self {
        SnapshotError::Fault(fault)
    }
}

/// Makes a snapshot from the last one and the tail behind it, under this name in the storage, which need not be the ledger's.
pub(crate) fn make<S: Storage, B: Storage>(
    storage: &S,
    name: &str,
    base: Option<&Snapshot<B::File>>,
    tail: &Tail,
    cut: &Cut,
    paced: Option<Paced<'_>>,
) -> Result<Snapshot<S::File>, SnapshotError> {
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    let made = write::<S, B>(storage, &temporary, base, tail, cut, paced).and_then(|head| read_back(storage, &temporary, &head));
    if let Err(error) = made {
        // Best effort: what stays is overwritten by the next attempt.
        let _ = storage.remove(&temporary);
        return Err(error);
    }
    storage.rename(&temporary, name)?;
    storage.sync_directory()?;
    Ok(Snapshot::open(storage, name)?)
}

fn write<S: Storage, B: Storage>(
    storage: &S,
    temporary: &str,
    base: Option<&Snapshot<B::File>>,
    tail: &Tail,
    cut: &Cut,
    paced: Option<Paced<'_>>,
) -> Result<SnapshotHead, SnapshotError> {
    let front = Front { assets: tail.assets().to_vec(), peaks: cut.peaks.clone() };
    let mut merge = Merge {
        writer: Writer::begin(storage.create(temporary)?, &front, paced)?,
        // Ceilings are counted per day; a request may have been stamped before midnight and decided after it.
        day_min: (tail.newest().0 / DAY_MS).saturating_sub(1),
        assets: front.assets.len(),
        sums: vec![(0, 0); front.assets.len()],
    };
    let touched = tail.in_order();
    let mut next = touched.iter().peekable();
    let mut stopped = None;
    if let Some(base) = base {
        let walked = base.for_each_record(&mut |name, record| {
            let mut step = || -> Result<(), SnapshotError> {
                while let Some(Touched { account, delta, .. }) = next.peek() {
                    match account.as_bytes().cmp(name) {
                        Ordering::Less => merge.changed(*account, None, delta)?,
                        Ordering::Equal => {
                            merge.changed(*account, Some(record), delta)?;
                            next.next();
                            return Ok(());
                        }
                        Ordering::Greater => break,
                    }
                    next.next();
                }
                merge.unchanged(name, record)
            };
            step().map_err(|error| {
                stopped = Some(error);
                SnapshotFault { file: String::new(), what: "stopped".into() }
            })
        });
        if let Some(error) = stopped {
            return Err(error);
        }
        walked?;
    }
    for Touched { account, delta, .. } in next {
        merge.changed(*account, None, delta)?;
    }
    merge.check_sums(&front)?;
    merge.keys(base, tail, cut.keys_ttl_ms)?;
    merge.budgets(base, tail)?;
    let mut head = SnapshotHead {
        log_id: cut.log_id,
        seq: tail.through(),
        root: cut.root,
        epoch: cut.epoch,
        batches: cut.batches,
        last_batch: cut.last_batch,
        newest: tail.newest(),
        accounts: 0,
        digest: [0; 32],
        extents: Extents::default(),
    };
    merge.writer.finish(&mut head)?;
    Ok(head)
}

/// What is written, and what it adds up to.
struct Merge<'a, F> {
    writer: Writer<'a, F>,
    day_min: u64,
    assets: usize,
    /// Free and held value per asset.
    sums: Vec<(u128, u128)>,
}

impl<F: StorageFile> Merge<'_, F> {
    fn changed(&mut self, account: Account<'_>, record: Option<&[u8]>, delta: &Delta) -> Result<(), SnapshotError> {
        let (mut lists, mut merged) = (Lists::default(), Merged::default());
        let before = record.map(|record| self.parse(record, &mut lists)).transpose()?;
        let state = delta.onto(account, before.as_ref(), self.day_min, &mut merged).map_err(SnapshotError::Rule)?;
        self.write(&state)
    }

    fn unchanged(&mut self, name: &[u8], record: &[u8]) -> Result<(), SnapshotError> {
        let mut lists = Lists::default();
        let state = self.parse(record, &mut lists)?;
        if state.day_counts.iter().any(|count| count.day < self.day_min) {
            let day_counts: Vec<_> = state.day_counts.iter().filter(|count| count.day >= self.day_min).copied().collect();
            return self.write(&AccountState { day_counts: &day_counts, ..state });
        }
        self.add_up(&state)?;
        Ok(self.writer.record(name, |out| out.extend_from_slice(record))?)
    }

    fn parse<'a, 'l>(&self, record: &'a [u8], lists: &'l mut Lists<'a>) -> Result<AccountState<'l>, SnapshotError>
    where
        'a: 'l,
    {
        let (state, _) = parse(record, self.assets, lists).map_err(|what| SnapshotError::Rule(what.into()))?;
        Ok(state)
    }

    fn write(&mut self, state: &AccountState<'_>) -> Result<(), SnapshotError> {
        self.add_up(state)?;
        Ok(self.writer.record(state.name.as_bytes(), |out| encode(state, out))?)
    }

    fn add_up(&mut self, state: &AccountState<'_>) -> Result<(), SnapshotError> {
        for value in state.values {
            let (free, held) = &mut self.sums[usize::from(value.asset)];
            let sum = free.checked_add(value.free).zip(held.checked_add(value.held));
            (*free, *held) = sum.ok_or_else(|| SnapshotError::Rule("the balances of an asset leave 128 bits".into()))?;
        }
        Ok(())
    }

    /// The keys of the snapshot before and of the tail, without those whose time is over.
    fn keys<B: ReadFile>(&mut self, base: Option<&Snapshot<B>>, tail: &Tail, ttl_ms: u64) -> Result<(), SnapshotError> {
        let lives = |key: &UsedKey| lives(key, tail.newest(), ttl_ms);
        let mut written = Ok(());
        if let Some(base) = base {
            base.for_each_key(&mut |key| {
                if written.is_ok() && lives(key) {
                    written = self.writer.key(key);
                }
            })?;
        }
        written?;
        tail.issue_keys().iter().filter(|key| lives(key)).try_for_each(|key| self.writer.key(key))?;
        Ok(())
    }

    /// The budgets of the snapshot before, raised by what the tail debits under them, and those that are new.
    fn budgets<B: ReadFile>(&mut self, base: Option<&Snapshot<B>>, tail: &Tail) -> Result<(), SnapshotError> {
        let mut more = tail.budgets().peekable();
        let mut written = Ok(());
        if let Some(base) = base {
            base.for_each_budget(&mut |token, spent| {
                if written.is_ok() {
                    written = self.raise(token, spent, &mut more);
                }
                Ok(())
            })?;
        }
        written?;
        more.try_for_each(|(token, spent)| self.writer.budget(token, spent))?;
        Ok(())
    }

    /// What was debited under a token id before, behind those of the tail that come before it.
    fn raise(
        &mut self,
        token: TokenId,
        spent: u128,
        more: &mut Peekable<impl Iterator<Item = (TokenId, u128)>>,
    ) -> Result<(), SnapshotError> {
        while let Some((earlier, spent)) = more.next_if(|(next, _)| *next < token) {
            self.writer.budget(earlier, spent)?;
        }
        let added = more.next_if(|(next, _)| *next == token).map_or(0, |(_, added)| added);
        let sum = spent.checked_add(added);
        let sum = sum.ok_or_else(|| SnapshotError::Rule("what is debited under a budget leaves 128 bits".into()))?;
        Ok(self.writer.budget(token, sum)?)
    }

    fn check_sums(&self, front: &Front) -> Result<(), SnapshotError> {
        for (sums, (free, held)) in front.assets.iter().zip(&self.sums) {
            let expected = sums.issued.checked_sub(sums.burned);
            if expected.is_none() || expected != free.checked_add(*held) || sums.held != *held {
                let (issued, burned, all_held, asset) = (sums.issued, sums.burned, sums.held, &sums.asset);
                return Err(SnapshotError::Rule(format!(
                    "{issued} {asset} issued less {burned} burned, {all_held} of it held, are not the {free} free and {held} held \
                     on all accounts"
                )));
            }
        }
        Ok(())
    }
}

/// What `read` makes of the state of an account after the tail behind a snapshot; of an empty one if it was never seen.
pub(crate) fn state_of<F: ReadFile, T>(
    account: &str,
    base: Option<&Snapshot<F>>,
    tail: &Tail,
    read: &mut dyn FnMut(&AccountState<'_>) -> T,
) -> Result<T, SnapshotError> {
    let name = Account::new(account).ok_or_else(|| SnapshotError::Rule(format!("{account} is no account")))?;
    let record = base.map(|base| base.record_of(account.as_bytes())).transpose()?.flatten();
    let (mut lists, mut merged) = (Lists::default(), Merged::default());
    let assets = tail.assets().len();
    let before = record.as_ref().map(|record| parse(record, assets, &mut lists)).transpose();
    let before = before.map_err(|what| SnapshotError::Rule(what.into()))?.map(|(state, _)| state);
    match (tail.delta(account), &before) {
        (Some(delta), _) => Ok(read(&delta.onto(name, before.as_ref(), 0, &mut merged).map_err(SnapshotError::Rule)?)),
        (None, Some(state)) => Ok(read(state)),
        (None, None) => Ok(read(&AccountState { name, last_nonce: Nonce(0), values: &[], payers: &[], day_counts: &[] })),
    }
}

/// Reads the new snapshot as the disk has it.
fn read_back<S: Storage>(storage: &S, temporary: &str, head: &SnapshotHead) -> Result<(), SnapshotError> {
    let snapshot = Snapshot::open_past_the_cache(storage, temporary)?;
    if snapshot.head() != head {
        let what = "its head is not the one that was written".into();
        return Err(SnapshotFault { file: snapshot.place().to_owned(), what }.into());
    }
    Ok(snapshot.verify()?)
}

/// Removes all snapshots but those after these entries, and newer ones: where entries are replayed again there may be some.
pub(crate) fn keep_only<S: Storage>(storage: &S, kept: &[Seq]) -> io::Result<()> {
    let newest = kept.iter().max().copied().unwrap_or_default();
    for seq in snapshots(&storage.list()?) {
        if !kept.contains(&seq) && seq <= newest {
            storage.remove(&snapshot_name(seq))?;
        }
    }
    storage.sync_directory()
}

/// The newest snapshot of this log, not newer than `seq_max`, that `fits` and is good in all its parts, which are read for that; `None`
/// if there is none. `look` is called now and then and may end the reading with an error.
///
/// # Errors
/// If it cannot be told which there are, or whether one fits; and if `look` errs.
pub(crate) fn newest_whole<S: Storage>(
    storage: &S,
    log_id: Option<LogId>,
    seq_max: Seq,
    fits: &dyn Fn(&SnapshotHead) -> Result<bool, LedgerError>,
    look: &mut dyn FnMut() -> Result<(), String>,
) -> Result<Option<Snapshot<S::File>>, LedgerError> {
    let unread = LedgerError::io(storage.place(""), "look for snapshots");
    let (mut newest, mut ended) = (Some(seq_max.0), false);
    while let Some(seq_max) = newest {
        let found = match newest_good(storage, log_id, Seq(seq_max)) {
            Ok(found) => found,
            Err(error) => return Err(unread(error)),
        };
        let Some(snapshot) = found else { break };
        if fits(snapshot.head())? {
            let verified = snapshot.verify_while(&mut || {
                let looked = look();
                ended = looked.is_err();
                looked
            });
            match verified {
                Ok(()) => return Ok(Some(snapshot)),
                Err(fault) if ended => return Err(unread(io::Error::other(fault.what))),
                Err(fault) => {
                    tracing::error!(event = "snapshot_damaged", %fault, "the snapshot before it is used, or the whole ledger")
                }
            }
        }
        newest = snapshot.head().seq.0.checked_sub(1);
    }
    Ok(None)
}

/// Where the snapshots of a ledger are read.
pub trait SnapshotSource {
    /// Their files.
    type File: ReadFile;

    /// The entries after which there are snapshots, the newest first.
    ///
    /// # Errors
    /// If that cannot be told now.
    fn snapshots(&self) -> io::Result<Vec<Seq>>;

    /// Opens the snapshot after this entry.
    ///
    /// # Errors
    /// If it cannot be used.
    fn open_snapshot(&self, seq: Seq) -> Result<Snapshot<Self::File>, SnapshotFault>;

    /// Whether everything could be reached since this was asked last: otherwise a fault tells nothing about the snapshot.
    ///
    /// # Errors
    /// What was out of reach, as `NotConnected`.
    fn reached(&self) -> io::Result<()>;
}

impl<S: Storage> SnapshotSource for S {
    type File = S::File;

    fn snapshots(&self) -> io::Result<Vec<Seq>> {
        Ok(snapshots(&self.list()?))
    }

    fn open_snapshot(&self, seq: Seq) -> Result<Snapshot<S::File>, SnapshotFault> {
        Snapshot::open(self, &snapshot_name(seq))
    }

    /// A disk is always there; what it cannot read is lost.
    fn reached(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest snapshot of this log that can be opened, not newer than `seq_max`. One that cannot is left where it is, with a warning.
///
/// # Errors
/// If it cannot be told which there are, or, as `NotConnected`, what is in them could not be reached.
pub fn newest_good<P: SnapshotSource>(source: &P, log_id: Option<LogId>, seq_max: Seq) -> io::Result<Option<Snapshot<P::File>>> {
    newest_of(source, log_id, &|seq| seq <= seq_max)
}

/// As [`newest_good`], of those that `may` be taken.
///
/// # Errors
/// If it cannot be told which there are, or, as `NotConnected`, what is in them could not be reached.
pub(crate) fn newest_of<P: SnapshotSource>(
    source: &P,
    log_id: Option<LogId>,
    may: &dyn Fn(Seq) -> bool,
) -> io::Result<Option<Snapshot<P::File>>> {
    let listed = source.snapshots();
    source.reached()?;
    for seq in listed?.into_iter().filter(|seq| may(*seq)) {
        let opened = source.open_snapshot(seq);
        source.reached()?;
        match opened {
            Ok(snapshot) if snapshot.head().seq == seq && log_id.map_or(true, |log_id| snapshot.head().log_id == log_id) => {
                return Ok(Some(snapshot));
            }
            Ok(snapshot) => {
                tracing::warn!(
                    event = "snapshot_foreign",
                    file = snapshot.place(),
                    "the snapshot belongs to another ledger or place, and is left alone"
                )
            }
            Err(fault) => tracing::warn!(event = "snapshot_unread", %fault, "the snapshot before it is used"),
        }
    }
    Ok(None)
}
