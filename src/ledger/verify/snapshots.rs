//! What snapshots say of the log, held against it while it is verified: where they were taken, the accounts, and the peaks of the history.
//!
//! The auditor that makes snapshots and the history's file come to the peaks each for itself: where they agree, both are right. Where the
//! file is missing or says something else, the peaks are made of the entries. That takes a hash of each, more work than everything else
//! that a verification does, so a thread of its own does it, of copies of the batches, and only up to the newest snapshot.
use crate::domain::{LogId, Root, Seq};
use crate::ledger::books::Books;
use crate::ledger::history::{append_batch, coverage, Peaks, HISTORY_NAME};
use crate::ledger::layout::BatchHeader;
use crate::ledger::places::Place;
use crate::ledger::scan::SeenBatch;
use crate::ledger::snapshot::{snapshot_name, snapshots, Snapshot, SnapshotHead};
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
    fn check_place(&self, batch: &SeenBatch<'_>) -> Result<(), LedgerError> {
        if (self.seq, self.root) != (batch.header.last_seq(), batch.root) {
            return Err(refuted(
                &self.file,
                &format!("the log has no batch that ends with entry {} and its chain hash", self.seq.0),
            ));
        }
        Ok(())
    }

    /// It says that there were entries behind the end of the log.
    fn ahead_of(&self, head: Seq) -> LedgerError {
        let Seq(newest) = self.seq;
        let what = format!(
            "it has the entries up to {newest}, and the log ends with entry {}: what came behind that was durable and is lost; put the \
             segments back from a backup. If there is none, `ronctl ledger restore --from` this snapshot makes a ledger elsewhere that \
             goes on behind entry {newest}; to go on behind entry {} instead, and give up what followed, remove this snapshot while no \
             server runs",
            head.0, head.0
        );
        LedgerError::Incomplete { place: self.file.clone(), what }
    }

    /// Whether it has all accounts as the entries up to there have left them.
    fn check_accounts<F: StorageFile>(&self, snapshot: &Snapshot<F>, books: &Books) -> Result<(), LedgerError> {
        let assets: Vec<&str> = snapshot.front().assets.iter().map(|sums| &*sums.asset).collect();
        let mut wrong = None;
        let read = snapshot.for_each_account(&mut |state| {
            wrong = wrong.take().or_else(|| books.contradiction(state, &assets));
            Ok(())
        });
        read.map_err(|fault| refuted(&fault.file, &fault.what))?;
        let (said, right) = (snapshot.head().accounts, books.accounts());
        let missing = || (said != right).then(|| format!("it has {said} accounts, and the entries up to there name {right}"));
        wrong.or_else(missing).map_or(Ok(()), |what| Err(refuted(&self.file, &what)))
    }

    /// Whether its peaks are those up to there.
    fn check_peaks(&self, log_id: LogId, right: &Peaks) -> Result<(), LedgerError> {
        let size = right.size();
        if self.log_id == log_id && self.peaks.as_ref().is_some_and(|peaks| peaks != right) {
            return Err(refuted(&self.file, &format!("its peaks are not those of the history of the first {size} batches")));
        }
        if let Some(place) = self.contradicted_by.clone().filter(|_| self.log_id == log_id) {
            let what = format!(
                "it does not have the first {size} batches as they are; remove it while no server runs, and it is made again"
            );
            return Err(LedgerError::Incomplete { place, what });
        }
        Ok(())
    }
}

pub(super) fn refuted(file: &str, what: &str) -> LedgerError {
    let what =
        format!("{what}; the entries up to there are whole; remove this snapshot while no server runs, and another one is made");
    LedgerError::Incomplete { place: file.to_owned(), what }
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
    found: Result<(), LedgerError>,
    batches: Option<Sender<Copied>>,
    thread: Option<JoinHandle<Result<(), LedgerError>>>,
    /// The last entry that the thread needs.
    newest: Seq,
    /// The newest snapshot whose place the log has passed.
    passed: Option<Seq>,
    /// Files of snapshots that are not of this log, or have another one's name.
    foreign: Vec<String>,
}

impl<F: StorageFile> Comparison<F> {
    /// Begins behind `base`, or with the first batch. Every later snapshot is read as a whole; one that is `damaged` is told at the end.
    ///
    /// # Errors
    /// If the peaks of `base` are not those of the history's file, or there is no thread.
    pub fn begin<S: Storage<File = F>>(
        storage: &S,
        names: &[String],
        base: Option<&Snapshot<F>>,
        log_id: Option<LogId>,
        damaged: Option<LedgerError>,
    ) -> Result<Self, LedgerError> {
        let after = base.map_or(Seq(0), |base| base.head().seq);
        let begun = base.map_or_else(|| Some(Peaks::default()), |base| base.front().peaks.clone());
        let later = snapshots(names).into_iter().rev().filter(|seq| *seq > after);
        let (mut found, mut foreign) = (damaged.map_or(Ok(()), Err), Vec::new());
        let mut opened = Vec::new();
        for seq in later {
            let whole = Snapshot::open(storage, &snapshot_name(seq)).and_then(|snapshot| snapshot.verify().map(|()| snapshot));
            match whole {
                Ok(snapshot) if snapshot.head().seq == seq && log_id.map_or(true, |log_id| snapshot.head().log_id == log_id) => {
                    opened.push(snapshot);
                }
                Ok(snapshot) => foreign.push(snapshot.place().to_owned()),
                // A server that runs beside has taken newer ones in its place.
                Err(_) if is_gone(storage, seq) => {}
                Err(fault) => found = found.and(Err(refuted(&fault.file, &fault.what))),
            }
        }
        let mut claims: VecDeque<Claim> = base.map(Claim::of).into_iter().chain(opened.iter().map(Claim::of)).collect();
        let mut open = unsettled(storage, claims.make_contiguous());
        if base.is_some() {
            let claim = claims.pop_front().expect("the first one is of the base");
            if let Some(file) = open.iter().find(|open| open.seq == claim.seq).and_then(|open| open.contradicted_by.clone()) {
                let what = format!("its peaks of the history are not those in {file}, and one of the two files is wrong");
                return Err(LedgerError::Incomplete { place: claim.file, what });
            }
            open.retain(|open| open.seq > after);
        }
        let passed = base.map(|_| after);
        let claims = claims.into_iter().zip(opened).collect();
        let mut comparison = Self { claims, found, batches: None, thread: None, newest: after, passed, foreign };
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
            self.passed = Some(claim.seq);
            self.found = std::mem::replace(&mut self.found, Ok(())).and(found);
        }
        let Some(batches) = &self.batches else { return };
        let SeenBatch { file, place, ref header, root, body } = *batch;
        let copied = Copied { file: file.to_owned(), place, header: header.clone(), root, body: body.to_vec() };
        // The thread ends early if it has found something.
        if batches.send(copied).is_err() || last >= self.newest {
            self.batches = None;
        }
    }

    /// What was found, once the thread has come to its end and the log to its head: the newest snapshot, and the files of those that
    /// are not of this log.
    pub fn end(mut self, head: Seq) -> Result<(Option<Seq>, Vec<String>), LedgerError> {
        self.batches = None;
        let by_thread = match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(found)) => found,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
        let ahead = self.claims.back().map_or(Ok(()), |(newest, _)| Err(newest.ahead_of(head)));
        self.found.and(by_thread).and(ahead)?;
        Ok((self.passed, self.foreign))
    }
}

fn is_gone<S: Storage>(storage: &S, seq: Seq) -> bool {
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

fn compare(mut peaks: Peaks, claims: &[Claim], copies: &Receiver<Copied>) -> Result<(), LedgerError> {
    let mut claims = claims.iter().peekable();
    for Copied { file, place, header, root, body } in copies {
        let batch = SeenBatch { file: &file, place, header, root, body: &body };
        append_batch(&mut peaks, &batch)?;
        while let Some(claim) = claims.next_if(|claim| claim.seq <= batch.header.last_seq()) {
            claim.check_peaks(batch.header.log_id, &peaks)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::MemoryStorage;

    #[test]
    fn a_snapshot_that_a_server_has_replaced_meanwhile_is_no_fault() {
        let storage = MemoryStorage::new();
        let names = [snapshot_name(Seq(7))];
        let compared = || Comparison::begin(&storage, &names, None, None, None).unwrap().end(Seq(9));
        assert_eq!(compared().unwrap(), (None, Vec::new()));
        storage.create(&names[0]).unwrap();
        assert!(compared().unwrap_err().to_string().contains(&names[0]), "one that is there and empty is");
    }
}
