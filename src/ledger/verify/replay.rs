//! Replaying a whole log against every promise it makes, without changing a byte; also beside a running server.
//!
//! Beside a writer it sees some prefix of the log that was durable or was just being written: a batch that looks bad is looked at
//! again before it is called so.
use super::base::{Base, Before};
use super::keys::KeyPasses;
use super::remarks::{remarks, Remark};
use super::repeats::{key_id, Candidates, Fingerprints, Rule, FINGERPRINTS_MAX};
use super::rest::Rest;
use super::snapshots::Comparison;
use super::start::{rehearse, Start};
use crate::domain::{Entry, Found, LogId, Root, Seq};
use crate::ledger::batch::for_each_entry;
use crate::ledger::books::{AccountBooks, AssetTotals, Books};
use crate::ledger::disk::DiskStorage;
use crate::ledger::layout::{Fault, SegmentHeader};
use crate::ledger::scan::{log_of, segments, Scan, Seen, SeenBatch, Segments, Torn};
use crate::ledger::storage::{segment_name, ReadFile, Storage};
use crate::ledger::witness::known_mark;
use crate::ledger::LedgerError;
use std::path::Path;
use std::time::Duration;

/// How far a verification has come; told once per segment and once per so many batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The segment that is being read.
    pub segment: u64,
    /// The last segment.
    pub segments: u64,
    /// Entries verified so far.
    pub entries: u64,
    /// How far the reading has come, in bytes of all segments.
    pub bytes: u64,
    /// Bytes of all segments when the verification began.
    pub bytes_all: u64,
    /// The entries have been verified, and are read again for the sake of their keys.
    pub again: bool,
}

/// Batches between two reports of progress.
const BATCHES_PER_REPORT: u64 = 256;
/// Entries whose accounts the books look for side by side.
const GROUP_ENTRIES: usize = 16;
/// How long keys are remembered if nobody says it: the default of the wallet.
pub const KEYS_TTL: Duration = Duration::from_secs(24 * 3600);

/// How much of a ledger there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many segments.
    pub segments: u64,
    /// How many batches.
    pub batches: u64,
    /// How many entries.
    pub entries: u64,
}

/// A log that keeps all its promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The identity of the log.
    pub log_id: LogId,
    /// The last opening that wrote something, or was noted in the file `epoch`.
    pub epoch: u64,
    /// What is here. All of it was read.
    pub here: Extent,
    /// The oldest segment that is here.
    pub first_segment: u64,
    /// What there has ever been: what is here, and what lies in an archive or was left behind when the ledger was restored.
    pub ever: Extent,
    /// The last entry.
    pub head: Seq,
    /// Chain hash after it.
    pub root: Root,
    /// How many accounts have ever been named.
    pub accounts: u64,
    /// The last entry that is not here any more; 0 if all are.
    pub archived_through: Seq,
    /// The last entry of the snapshot with which the books begin; 0 if they begin with the first entry. Of entries that are here and in
    /// the snapshot, bytes, chain, order, nonces and keys were checked, but no balances.
    pub books_from: Seq,
    /// The totals per asset.
    pub assets: Vec<AssetTotals>,
    /// The remains of an interrupted write, which the next opening will clear away.
    pub torn: Option<Torn>,
    /// What a start would do.
    pub start: Start,
    /// What is not as it should be and does no harm to any entry.
    pub remarks: Vec<Remark>,
}

/// The first thing that is wrong.
#[derive(Debug)]
pub struct Refuted {
    /// What it is and where.
    pub fault: LedgerError,
    /// The entry that breaks a rule, if it is the books that say no.
    pub suspect: Option<Box<Suspect>>,
    /// Entries that were verified before it, of whole batches.
    pub entries: u64,
    /// What a start would do; nothing if that could not be found out.
    pub start: Option<Start>,
    /// What came of what was not verified because of it.
    pub rest: Box<Rest>,
}

/// An intact entry that breaks a rule of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The log.
    pub log_id: LogId,
    /// The entry and its place.
    pub found: Found,
    /// The accounts that it names as they were before it, the debited one first. One that was never named before may be missing.
    pub accounts: Vec<AccountBooks>,
    /// The entry that had used its idempotency key, if that is what is wrong.
    pub repeats: Option<Seq>,
    /// The same, if it is here.
    pub earlier: Option<Found>,
}

impl Suspect {
    /// Whether it is its idempotency key that is wrong, and nothing else.
    pub(super) fn is_key(&self) -> bool {
        self.repeats.is_some()
    }
}

impl std::fmt::Display for Refuted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Refuted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.source()
    }
}

impl From<LedgerError> for Refuted {
    fn from(fault: LedgerError) -> Self {
        Self { fault, suspect: None, entries: 0, start: None, rest: Box::new(Rest::all()) }
    }
}

/// Verifies the ledger in a directory; see [`Verification::run`].
pub fn verify_directory(directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
    Verification::default().directory(directory, progress)
}

/// Verifies a ledger; see [`Verification::run`].
pub fn verify<S: Storage>(storage: &S, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
    Verification::default().run(storage, progress)
}

/// What has to be known of a ledger, because it does not say it itself.
#[derive(Clone, Copy, Debug)]
pub struct Verification {
    /// How long its wallet remembers idempotency keys; nothing if keys are not to be looked at.
    pub keys_ttl: Duration,
    /// How many keys are held at once.
    pub(super) keys_max: usize,
}

impl Default for Verification {
    fn default() -> Self {
        Self::of_keys(KEYS_TTL)
    }
}

impl Verification {
    /// With keys that are remembered for so long.
    pub fn of_keys(keys_ttl: Duration) -> Self {
        Self { keys_ttl, keys_max: FINGERPRINTS_MAX }
    }

    /// Verifies the ledger in a directory.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn directory(&self, directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
        let storage = DiskStorage::read_only(directory)
            .map_err(LedgerError::io(directory.display().to_string(), "open the ledger for reading"))?;
        self.run(&storage, progress)
    }

    /// Checks chain, density, hashes, keys and the books of everything that is here.
    ///
    /// # Errors
    /// The first thing that is wrong, what a start would make of it, and what else is wrong with segments behind it.
    pub fn run<S: Storage>(&self, storage: &S, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
        self.replay(storage, progress).map_err(|mut refuted| {
            refuted.start = rehearse(storage, &refuted);
            Rest::read(&mut refuted, storage, progress);
            refuted
        })
    }

    fn replay<S: Storage>(&self, storage: &S, progress: &mut dyn FnMut(Progress)) -> Result<Report, Refuted> {
        // The mark first: a writer may begin a segment meanwhile, and the mark must not know of one that the list has not.
        let mark = known_mark(storage)?;
        let place = storage.place("");
        let names = storage.list().map_err(LedgerError::io(place.as_str(), "list the directory"))?;
        let mut base = Base::oldest_if_needed(storage, &names, mark)?;
        let start = base.snapshot.as_ref().map(|snapshot| snapshot.start());
        let Some(segments) = segments(storage, &names, mark, start.as_ref())? else {
            return Err(LedgerError::no_ledger(place).into());
        };
        let sizes = sizes(storage, segments.clone())?;
        let scan = Scan { storage, segments: segments.clone(), mark, start: None, sync: false, patient: true };
        let beginning = base.beginning(&scan)?;
        let rule = Rule { ttl_ms: u64::try_from(self.keys_ttl.as_millis()).unwrap_or(u64::MAX) };
        let fingerprints = Fingerprints::new([seeds()[0], seeds()[1]]);
        let passes =
            KeyPasses { storage, segments, mark, base: base.snapshot.as_ref(), rule, fingerprints, keys_max: self.keys_max };
        let first = Seq(beginning.head.0 + 1);
        let log_id = log_of(storage);
        let mut comparison =
            Comparison::begin(storage, &names, base.snapshot.as_ref(), log_id, std::mem::take(&mut base.damaged))?;
        let mut audit = Auditor {
            books: base.books,
            before: Before::new(base.snapshot.as_ref().map(|snapshot| (snapshot.start(), snapshot.place().to_owned()))),
            keys: passes.begin(0, first)?,
            log_id: LogId::default(),
            suspect: None,
            headers: Vec::new(),
        };
        let mut told = Told { progress, sizes, now: Progress::of(scan.segments.clone()), before: 0 };
        told.now.bytes_all = told.sizes.iter().sum();
        let (mut batches, mut batches_before) = (0u64, 0u64);
        let scanned = scan.run_from(beginning, &mut |seen| {
            match seen {
                Seen::Segment(header) => {
                    audit.log_id = header.log_id;
                    told.segment(header.index);
                    audit.headers.push(header);
                }
                Seen::Batch(batch) => {
                    audit.audit(&batch)?;
                    if audit.before.has(batch.header.first_seq) {
                        batches_before += 1;
                    } else {
                        comparison.follow(&batch, &audit.books);
                    }
                    batches += 1;
                    told.batch(&batch, batches);
                }
            }
            Ok(())
        });
        let entries = told.now.entries;
        let Auditor { books, suspect, keys, headers, .. } = audit;
        let fault = scanned.as_ref().err();
        let through = match fault {
            Some(LedgerError::Broken { seq, .. }) => Seq(seq.0 - 1),
            Some(_) | None => Seq(first.0 + entries - 1),
        };
        // A segment that was opened and not read to its end is one of those.
        let unverified = fault.map(|_| told.now.segment);
        told.now.again = true;
        let told_again = &mut |batch: &SeenBatch<'_>| told.again(batch);
        let repeats = passes.run(keys, first, through, told_again);
        let rest =
            Box::new(Rest { unverified, faults: fault.map_or_else(Vec::new, |_| comparison.given_up()), ..Rest::default() });
        let refute = |fault, suspect| Refuted { fault, suspect, entries, start: None, rest: rest.clone() };
        // A key that was used twice comes before whatever ended the scan.
        let end = match (scanned, repeats) {
            (_, Ok(Some(repeat))) => return Err(Refuted { rest: rest.clone(), ..repeat.refuted(entries) }),
            (Err(fault), _) => return Err(refute(fault, suspect)),
            (Ok(_), Err(fault)) => return Err(refute(fault, None)),
            (Ok(end), Ok(None)) => end,
        };
        let (newest, foreign) = comparison.end(end.head).map_err(|fault| refute(fault, None))?;
        let accounts = books.accounts();
        let assets = books.close().map_err(|what| LedgerError::Broken {
            file: storage.place(&segment_name(end.segments)),
            offset: end.offset,
            seq: end.head,
            what,
        })?;
        let since = batches - batches_before;
        let whole = start.map_or(0, |start| start.batches) + since;
        Ok(Report {
            log_id: end.log_id,
            epoch: end.epoch.max(mark.map_or(0, |mark| mark.epoch)),
            here: Extent { segments: headers.len() as u64, batches, entries },
            first_segment: *scan.segments.start(),
            ever: Extent { segments: end.segments, batches: whole, entries: end.head.0 },
            head: end.head,
            root: end.root,
            accounts,
            archived_through: Seq(first.0 - 1),
            books_from: start.map_or(Seq(0), |start| start.seq),
            assets,
            start: Start::Serves { snapshot: newest, entries: end.head.0 - newest.map_or(0, |seq| seq.0) },
            remarks: remarks(storage, &headers, end.head, mark, foreign),
            torn: end.torn,
        })
    }
}

/// Tells how far the reading is.
struct Told<'a> {
    progress: &'a mut dyn FnMut(Progress),
    sizes: Vec<u64>,
    now: Progress,
    /// Bytes of the segments before the one that is being read.
    before: u64,
}

impl Progress {
    fn of(segments: Segments) -> Self {
        Self { segment: *segments.start(), segments: *segments.end(), entries: 0, bytes: 0, bytes_all: 0, again: false }
    }
}

impl Told<'_> {
    fn segment(&mut self, index: u64) {
        let first = self.now.segments + 1 - self.sizes.len() as u64;
        self.now.segment = index;
        self.before = self.sizes.iter().take((index - first) as usize).sum();
        self.now.bytes = self.before;
        (self.progress)(self.now);
    }

    fn batch(&mut self, batch: &SeenBatch<'_>, number: u64) {
        self.now.entries += u64::from(batch.header.entries);
        self.now.bytes = self.before + batch.place.offset + batch.header.extent_bytes();
        if number % BATCHES_PER_REPORT == 0 {
            (self.progress)(self.now);
        }
    }

    /// A batch that is read once more.
    fn again(&mut self, batch: &SeenBatch<'_>) {
        if batch.place.segment != self.now.segment {
            self.segment(batch.place.segment);
        }
    }
}

/// The size of each segment file, in bytes.
fn sizes<S: Storage>(storage: &S, segments: Segments) -> Result<Vec<u64>, LedgerError> {
    let size = |index| {
        let name = segment_name(index);
        let size = storage.open(&name).and_then(|file| file.size());
        size.map_err(LedgerError::io(storage.place(&name), "look at the segment"))
    };
    segments.map(size).collect()
}

/// What keys the table of accounts; names that make it slow cannot be chosen ahead.
pub(super) fn seeds() -> [u64; 4] {
    let mut bytes = [[0; 8]; 4];
    for seed in &mut bytes {
        getrandom::fill(seed).expect("the operating system has randomness from its start on");
    }
    bytes.map(u64::from_le_bytes)
}

/// A batch that cannot be taken apart, or an entry that the books refuse.
enum Unfit<'a> {
    Fault(Fault),
    Entry(Seq, Entry<'a>, String),
}

impl From<Fault> for Unfit<'_> {
    fn from(fault: Fault) -> Self {
        Unfit::Fault(fault)
    }
}

/// Enters batch after batch into the books, and keeps what is to be known of the entry that they refuse.
struct Auditor {
    books: Books,
    before: Before,
    keys: Candidates,
    log_id: LogId,
    suspect: Option<Box<Suspect>>,
    headers: Vec<SegmentHeader>,
}

impl Auditor {
    fn audit(&mut self, batch: &SeenBatch<'_>) -> Result<(), LedgerError> {
        let (file, offset) = (batch.file.to_string(), batch.place.offset);
        let entered = self.enter(batch).map_err(|unfit| match unfit {
            Unfit::Fault(fault) => {
                LedgerError::Damaged { file, offset, expected: batch.header.first_seq, what: fault.to_string() }
            }
            Unfit::Entry(seq, entry, what) => {
                self.suspect = Some(Box::new(self.describe(seq, &entry, &batch.root)));
                LedgerError::Broken { file, offset, seq, what }
            }
        });
        entered.and_then(|()| self.before.arrive(batch, &self.books))
    }

    fn enter<'a>(&mut self, batch: &SeenBatch<'a>) -> Result<(), Unfit<'a>> {
        let mut group = Vec::with_capacity(GROUP_ENTRIES);
        let mut next = batch.header.first_seq;
        for_each_entry(&batch.header, batch.body, |_, entry| {
            group.push(entry);
            if group.len() == GROUP_ENTRIES {
                next = self.apply(&group, next)?;
                group.clear();
            }
            Ok::<(), Unfit<'a>>(())
        })?;
        self.apply(&group, next)?;
        Ok(())
    }

    /// Applies neighbours, and returns the number of the entry after them.
    fn apply<'a>(&mut self, group: &[Entry<'a>], first: Seq) -> Result<Seq, Unfit<'a>> {
        group.iter().for_each(|entry| self.keys.note(key_id(entry), entry.ts()));
        if self.before.has(first) {
            return self.before.apply(group, first).map_err(|(seq, entry, what)| Unfit::Entry(seq, entry, what));
        }
        self.books.expect(group);
        let mut seq = first;
        for entry in group {
            self.books.apply(entry).map_err(|what| Unfit::Entry(seq, *entry, what))?;
            seq = Seq(seq.0 + 1);
        }
        Ok(seq)
    }

    fn describe(&self, seq: Seq, entry: &Entry<'_>, root: &Root) -> Suspect {
        let named = [entry.from(), entry.to()].into_iter().flatten();
        // In front of a snapshot the books are those behind it.
        let known = named.filter(|_| !self.before.has(seq));
        let accounts = known.filter_map(|name| self.books.account(name.as_str())).collect();
        let found = Found { entry: entry.bytes().into(), seq, root: *root };
        Suspect { log_id: self.log_id, found, accounts, repeats: None, earlier: None }
    }
}
