//! What snapshots say of the log, held against it while it is verified: where they were taken, the accounts, and the peaks of the history.
//!
//! The auditor that makes snapshots and the history's file come to the peaks each for itself: where they agree, both are right. Where the
//! file is missing or says something else, the peaks are made of the entries. That takes a hash of each, more work than everything else
//! that a verification does, so a thread of its own does it, of copies of the batches, and only up to the newest snapshot.
use super::rest::Elsewhere;
use crate::domain::{hex, LogId, Root, Seq};
use crate::ledger::books::Books;
use crate::ledger::history::{append_batch, coverage, Peaks, HISTORY_NAME};
use crate::ledger::layout::BatchHeader;
use crate::ledger::places::Place;
use crate::ledger::scan::SeenBatch;
use crate::ledger::snapshot::{snapshot_name, snapshots, Snapshot, SnapshotFault, SnapshotHead};
use crate::ledger::storage::{Storage, StorageFile};
use crate::ledger::LedgerError;
use crossbeam_channel::{bounded, Receiver, Sender};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::thread::JoinHandle;

/// Batches that may wait for the thread.
const BATCHES_AHEAD_MAX: usize = 16;

/// What one snapshot says.
#[derive(Clone)]
struct Claim {
    file: String,
    log_id: LogId,
    seq: Seq,
    root: Root,
    peaks: Option<Peaks>,
    /// The file of the history, if that says something else.
    contradicted_by: Option<String>,
}

impl Claim {
    fn of<F: StorageFile>(snapshot: &Snapshot<F>) -> Self {
        let SnapshotHead { log_id, seq, root, .. } = *snapshot.head();
        let peaks = snapshot.front().peaks.clone();
        Self { file: snapshot.place().to_owned(), log_id, seq, root, peaks, contradicted_by: None }
    }

    /// Whether it was taken behind the batch that has its last entry.
    fn check_place(&self, batch: &SeenBatch<'_>) -> Result<(), Bad> {
        if (self.seq, self.root) != (batch.header.last_seq(), batch.root) {
            return Err(Bad::contradicted(
                &self.file,
                format!("the log has no batch that ends with entry {} and its chain hash", self.seq.0),
            ));
        }
        Ok(())
    }

    /// It says that there were entries behind the end of the log.
    fn ahead_of(&self, head: Seq) -> LedgerError {
        let Seq(newest) = self.seq;
        let what = format!(
            "it has the entries up to {newest}, and the log ends with entry {}: what came behind that was durable and is lost",
            head.0
        );
        let next = format!(
            "put the segments back from a backup. If there is none, `ronctl ledger restore --from` this snapshot makes a ledger \
             elsewhere that goes on behind entry {newest}; to go on behind entry {} instead, and give up what followed, remove this \
             snapshot while no server runs",
            head.0
        );
        LedgerError::Mendable { place: self.file.clone(), missing: true, what: what.into(), next: next.into() }
    }

    /// Whether it has all accounts as the entries up to there have left them.
    fn check_accounts<F: StorageFile>(&self, snapshot: &Snapshot<F>, books: &Books) -> Result<(), Bad> {
        let assets: Vec<&str> = snapshot.front().assets.iter().map(|sums| &*sums.asset).collect();
        let mut wrong = None;
        let read = snapshot.for_each_account(&mut |state| {
            wrong = wrong.take().or_else(|| books.contradiction(state, &assets));
            Ok(())
        });
        read.map_err(Bad::rotten)?;
        let (said, right) = (snapshot.head().accounts, books.accounts());
        let missing = || (said != right).then(|| format!("it has {said} accounts, and the entries up to there name {right}"));
        wrong.or_else(missing).map_or(Ok(()), |what| Err(Bad::contradicted(&self.file, what)))
    }

    /// Whether it has what was debited under every budget, as the entries up to there add it up.
    fn check_budgets<F: StorageFile>(&self, snapshot: &Snapshot<F>, books: &Books) -> Result<(), Bad> {
        let (mut said, mut wrong) = (0, None);
        let read = snapshot.for_each_budget(&mut |token, spent| {
            said += 1;
            let right = books.budget(token);
            let differs = (spent != right).then(|| {
                let id = hex(&token.0);
                format!("it has {spent} debited under the budget of the token id {id}, and the entries have debited {right}")
            });
            wrong = wrong.take().or(differs);
            Ok(())
        });
        read.map_err(Bad::rotten)?;
        let right = books.budgets();
        let missing =
            || (said != right).then(|| format!("it has {said} budgets, and the entries up to there debit under {right}"));
        wrong.or_else(missing).map_or(Ok(()), |what| Err(Bad::contradicted(&self.file, what)))
    }

    /// Its peaks, if they are not those up to there. The error is that of the file of the history.
    fn check_peaks(&self, log_id: LogId, right: &Peaks) -> Result<Option<Bad>, LedgerError> {
        let size = right.size();
        if self.log_id == log_id && self.peaks.as_ref().is_some_and(|peaks| peaks != right) {
            let what = format!("its peaks are not those of the history of the first {size} batches");
            return Ok(Some(Bad::contradicted(&self.file, what)));
        }
        if let Some(place) = self.contradicted_by.clone().filter(|_| self.log_id == log_id) {
            let what = format!("it does not have the first {size} batches as they are");
            let next = "move segments that are in an archive back, then remove this file while no server runs; it is made again";
            return Err(LedgerError::Mendable { place, missing: false, what: what.into(), next: next.into() });
        }
        Ok(None)
    }
}

/// A snapshot that is of no use.
pub(super) struct Bad {
    file: String,
    what: String,
    /// It does not match its own hashes, so a start passes it over. Otherwise only the entries tell, and a start believes it.
    rotten: bool,
}

impl Bad {
    /// It cannot be read.
    pub(super) fn rotten(fault: SnapshotFault) -> Self {
        Self { file: fault.file, what: fault.what, rotten: true }
    }

    /// It says something else than the entries up to there, which are whole.
    pub(super) fn contradicted(file: &str, what: String) -> Self {
        Self { file: file.to_owned(), what, rotten: false }
    }

    /// Of these, at least one, the one fault that names all, and the one thing to do. `needed`: the segments before them are gone, and
    /// no good snapshot is left in their place.
    pub(super) fn fault(bad: &[Bad], needed: bool) -> LedgerError {
        let (first, others) = bad.split_first().expect("at least one");
        let others = others.iter().map(|other| format!("; {} is not good either: {}", other.file, other.what));
        let next = match (needed, bad.iter().all(|bad| bad.rotten)) {
            (true, _) => {
                "do not remove it: no other snapshot stands in for the segments that are gone; before the next start, move those back \
                 into the directory (RUNBOOK.md, Old segments), or put a copy of it from a backup in its place"
            }
            (false, true) => {
                "no entry is lost by it: a start passes it over, and the next snapshots take its place; see whether the disk has other \
                 faults"
            }
            (false, false) => {
                "no entry is lost by it, but a start may believe it: remove what is named here before the next start, while no server \
                 runs; another one is made"
            }
        };
        let what = first.what.clone() + &others.collect::<String>();
        LedgerError::Mendable { place: first.file.clone(), missing: false, what: what.into(), next: next.into() }
    }
}

/// A batch on its way to the thread.
struct Copied {
    file: String,
    place: Place,
    header: BatchHeader,
    root: Root,
    body: Vec<u8>,
}

/// What is still to be compared, and the thread, if one is needed.
pub(super) struct Comparison<F> {
    claims: VecDeque<(Claim, Snapshot<F>)>,
    bad: Vec<Bad>,
    batches: Option<Sender<Copied>>,
    thread: Option<JoinHandle<Result<Vec<Bad>, LedgerError>>>,
    /// The last entry that the thread needs.
    newest: Seq,
    /// The newest snapshot whose place the log has passed.
    passed: Option<Seq>,
    /// Files of snapshots that are not of this log, or have another one's name.
    foreign: Vec<String>,
}

impl<F: StorageFile> Comparison<F> {
    /// Begins behind `base`, or with the first batch. Every later snapshot is read as a whole; what is `bad` is told at the end.
    ///
    /// # Errors
    /// If the peaks of `base` are not those of the history's file, or there is no thread.
    pub fn begin<S: Storage<File = F>>(
        storage: &S,
        names: &[String],
        base: Option<&Snapshot<F>>,
        log_id: Option<LogId>,
        mut bad: Vec<Bad>,
    ) -> Result<Self, LedgerError> {
        let after = base.map_or(Seq(0), |base| base.head().seq);
        let begun = base.map_or_else(|| Some(Peaks::default()), |base| base.front().peaks.clone());
        let later = snapshots(names).into_iter().rev().filter(|seq| *seq > after);
        let (mut opened, mut foreign) = (Vec::new(), Vec::new());
        for seq in later {
            let whole = Snapshot::open(storage, &snapshot_name(seq)).and_then(|snapshot| snapshot.verify().map(|()| snapshot));
            match whole {
                Ok(snapshot) if snapshot.head().seq == seq && log_id.map_or(true, |log_id| snapshot.head().log_id == log_id) => {
                    opened.push(snapshot);
                }
                Ok(snapshot) => foreign.push(snapshot.place().to_owned()),
                // A server that runs beside has taken newer ones in its place.
                Err(_) if is_gone(storage, seq) => {}
                Err(fault) => bad.push(Bad::rotten(fault)),
            }
        }
        let mut claims: VecDeque<Claim> = base.map(Claim::of).into_iter().chain(opened.iter().map(Claim::of)).collect();
        let mut open = unsettled(storage, claims.make_contiguous());
        if base.is_some() {
            let claim = claims.pop_front().expect("the first one is of the base");
            if let Some(file) = open.iter().find(|open| open.seq == claim.seq).and_then(|open| open.contradicted_by.clone()) {
                let what = format!("its peaks of the history are not those in {file}, and one of the two files is wrong");
                let next =
                    "move the archived segments back into the directory (RUNBOOK.md, Old segments) and verify again: then the \
                            entries tell which; or put the copies of both from one backup in their place"
                        .into();
                return Err(LedgerError::Mendable { place: claim.file, missing: false, what: what.into(), next });
            }
            open.retain(|open| open.seq > after);
        }
        let passed = base.map(|_| after);
        let claims = claims.into_iter().zip(opened).collect();
        let mut comparison = Self { claims, bad, batches: None, thread: None, newest: after, passed, foreign };
        if let (Some(begun), Some(newest)) = (begun, open.last().map(|claim| claim.seq)) {
            let (batches, copies) = bounded::<Copied>(BATCHES_AHEAD_MAX);
            let run = move || compare(begun, &open, &copies);
            let spawned = std::thread::Builder::new().name("verify-snapshots".into()).spawn(run);
            let spawned = spawned.map_err(LedgerError::io(storage.place(""), "start the thread that compares snapshots"))?;
            (comparison.batches, comparison.thread, comparison.newest) = (Some(batches), Some(spawned), newest);
        }
        Ok(comparison)
    }

    /// The next batch of the log, which is in the books.
    pub fn follow(&mut self, batch: &SeenBatch<'_>, books: &Books) {
        let last = batch.header.last_seq();
        while self.claims.front().is_some_and(|(claim, _)| claim.seq <= last) {
            let (claim, snapshot) = self.claims.pop_front().expect("just seen");
            let found = claim.check_place(batch).and_then(|()| claim.check_accounts(&snapshot, books));
            let found = found.and_then(|()| claim.check_budgets(&snapshot, books));
            self.passed = Some(claim.seq);
            self.bad.extend(found.err());
        }
        let Some(batches) = &self.batches else { return };
        let SeenBatch { file, place, ref header, root, body } = *batch;
        let copied = Copied { file: file.to_owned(), place, header: header.clone(), root, body: body.to_vec() };
        // The thread ends early if it has found something.
        if batches.send(copied).is_err() || last >= self.newest {
            self.batches = None;
        }
    }

    /// The snapshots of which it is known that they are of no use, if the log could not be read to its end.
    pub fn given_up(&mut self) -> Vec<Elsewhere> {
        self.bad.drain(..).map(|bad| Elsewhere { file: bad.file, what: bad.what }).collect()
    }

    /// What was found, once the thread has come to its end and the log to its head: the newest snapshot, and the files of those that
    /// are not of this log.
    pub fn end(mut self, head: Seq) -> Result<(Option<Seq>, Vec<String>), LedgerError> {
        self.batches = None;
        let by_thread = match self.thread.take().map(JoinHandle::join) {
            None => Ok(Vec::new()),
            Some(Ok(found)) => found,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
        // First what costs entries.
        self.claims.back().map_or(Ok(()), |(newest, _)| Err(newest.ahead_of(head)))?;
        let (by_peaks, history) = by_thread.map_or_else(|fault| (Vec::new(), Err(fault)), |bad| (bad, Ok(())));
        for bad in by_peaks {
            if self.bad.iter().all(|known| known.file != bad.file) {
                self.bad.push(bad);
            }
        }
        if !self.bad.is_empty() {
            // Where one is needed, the books begin with a good one.
            return Err(Bad::fault(&self.bad, false));
        }
        history?;
        Ok((self.passed, self.foreign))
    }
}

/// Whether a server has replaced it meanwhile.
pub(super) fn is_gone<S: Storage>(storage: &S, seq: Seq) -> bool {
    storage.open(&snapshot_name(seq)).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Those whose peaks the file of the history does not confirm.
fn unsettled<S: Storage>(storage: &S, claims: &[Claim]) -> Vec<Claim> {
    let sizes: Vec<u64> = claims.iter().filter_map(|claim| claim.peaks.as_ref()).map(Peaks::size).collect();
    let Some(first) = claims.first().filter(|_| !sizes.is_empty()) else { return Vec::new() };
    let known = coverage(storage, first.log_id, &sizes).map_or_else(|_| Vec::new(), |found| found.peaks);
    let open = claims.iter().filter_map(|claim| {
        let peaks = claim.peaks.as_ref()?;
        let told = known.iter().find(|known| known.size() == peaks.size());
        let contradicted_by = told.map(|_| storage.place(HISTORY_NAME));
        (told != Some(peaks)).then(|| Claim { contradicted_by, ..claim.clone() })
    });
    open.collect()
}

fn compare(mut peaks: Peaks, claims: &[Claim], copies: &Receiver<Copied>) -> Result<Vec<Bad>, LedgerError> {
    let mut bad = Vec::new();
    let mut claims = claims.iter().peekable();
    for Copied { file, place, header, root, body } in copies {
        let batch = SeenBatch { file: &file, place, header, root, body: &body };
        append_batch(&mut peaks, &batch)?;
        while let Some(claim) = claims.next_if(|claim| claim.seq <= batch.header.last_seq()) {
            bad.extend(claim.check_peaks(batch.header.log_id, &peaks)?);
        }
    }
    Ok(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::MemoryStorage;

    #[test]
    fn a_snapshot_that_a_server_has_replaced_meanwhile_is_no_fault() {
        let storage = MemoryStorage::new();
        let names = [snapshot_name(Seq(7))];
        let compared = || Comparison::begin(&storage, &names, None, None, Vec::new()).unwrap().end(Seq(9));
        assert_eq!(compared().unwrap(), (None, Vec::new()));
        storage.create(&names[0]).unwrap();
        assert!(compared().unwrap_err().to_string().contains(&names[0]), "one that is there and empty is");
    }
}
