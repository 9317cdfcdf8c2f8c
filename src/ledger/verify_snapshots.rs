//! What snapshots say of the log, held against it while it is verified: where they were taken, and the peaks of the history.
//!
//! The peaks take a hash of every entry, about as much work as everything else that a verification does. So a thread of its own makes
//! them, of copies of the batches, and only up to the newest snapshot.
use super::history::{append_batch, coverage, Peaks, HISTORY_NAME};
use super::layout::BatchHeader;
use super::places::Place;
use super::scan::SeenBatch;
use super::snapshot::{snapshot_name, snapshots, Snapshot, SnapshotHead};
use super::storage::{Storage, StorageFile};
use super::LedgerError;
use crate::domain::{LogId, Root, Seq};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::thread::JoinHandle;

/// Batches that may wait for the thread.
const BATCHES_AHEAD_MAX: usize = 16;

/// What one snapshot says.
struct Claim {
    file: String,
    log_id: LogId,
    seq: Seq,
    root: Root,
    peaks: Peaks,
}

impl Claim {
    fn of<F: StorageFile>(snapshot: &Snapshot<F>) -> Option<Self> {
        let (SnapshotHead { log_id, seq, root, .. }, file) = (snapshot.head().clone(), snapshot.place().to_owned());
        snapshot.front().peaks.clone().map(|peaks| Self { file, log_id, seq, root, peaks })
    }

    /// Looks at it with the batch that has its last entry, and the peaks up to there.
    fn check(&self, batch: &SeenBatch<'_>, peaks: &Peaks) -> Result<(), LedgerError> {
        // What lies there and belongs to another ledger is used by nobody.
        let same_log = self.log_id == batch.header.log_id;
        if same_log && (self.seq, self.root) != (batch.header.last_seq(), batch.root) {
            return Err(refuted(
                &self.file,
                &format!("the log has no batch that ends with entry {} and its chain hash", self.seq.0),
            ));
        }
        if same_log && self.peaks != *peaks {
            let what = format!("its peaks are not those of the history of the first {} batches", peaks.size());
            return Err(refuted(&self.file, &what));
        }
        Ok(())
    }
}

fn refuted(file: &str, what: &str) -> LedgerError {
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

/// The thread, as long as there is anything to compare.
pub(super) struct Comparison {
    batches: Option<Sender<Copied>>,
    newest: Seq,
    thread: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl Comparison {
    /// Begins behind `base`, or with the first batch. Snapshots that cannot be opened, and those without peaks, say nothing.
    ///
    /// # Errors
    /// If the peaks of `base` are not those of the history's file, or there is no thread.
    pub fn begin<S: Storage>(storage: &S, names: &[String], base: Option<&Snapshot<S::File>>) -> Result<Self, LedgerError> {
        let (after, begun) = match base {
            Some(base) => (base.head().seq, base.front().peaks.clone()),
            None => (Seq(0), Some(Peaks::default())),
        };
        if let Some(claim) = base.and_then(Claim::of) {
            compare_file(storage, &claim)?;
        }
        let later = snapshots(names).into_iter().rev().filter(|seq| *seq > after);
        let opened = later.filter_map(|seq| Snapshot::open(storage, &snapshot_name(seq)).ok());
        let claims: Vec<Claim> = opened.filter_map(|snapshot| Claim::of(&snapshot)).collect();
        let (Some(begun), Some(newest)) = (begun, claims.last().map(|claim| claim.seq)) else {
            return Ok(Self { batches: None, newest: after, thread: None });
        };
        let (batches, copies) = bounded::<Copied>(BATCHES_AHEAD_MAX);
        let run = move || compare(begun, &claims, &copies);
        let spawned = std::thread::Builder::new().name("verify-snapshots".into()).spawn(run);
        let thread = spawned.map_err(LedgerError::io(storage.place(""), "start the thread that compares snapshots"))?;
        Ok(Self { batches: Some(batches), newest, thread: Some(thread) })
    }

    /// The next batch of the log.
    pub fn follow(&mut self, batch: &SeenBatch<'_>) {
        let Some(batches) = &self.batches else { return };
        let SeenBatch { file, place, ref header, root, body } = *batch;
        let copied = Copied { file: file.to_owned(), place, header: header.clone(), root, body: body.to_vec() };
        // The thread ends early if it has found something.
        if batches.send(copied).is_err() || batch.header.last_seq() >= self.newest {
            self.batches = None;
        }
    }

    /// What was found, once the thread has come to its end.
    pub fn end(mut self) -> Result<(), LedgerError> {
        self.batches = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(found)) => found,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

fn compare(mut peaks: Peaks, claims: &[Claim], copies: &Receiver<Copied>) -> Result<(), LedgerError> {
    let mut claims = claims.iter().peekable();
    for Copied { file, place, header, root, body } in copies {
        let batch = SeenBatch { file: &file, place, header, root, body: &body };
        append_batch(&mut peaks, &batch)?;
        while let Some(claim) = claims.next_if(|claim| claim.seq <= batch.header.last_seq()) {
            claim.check(&batch, &peaks)?;
        }
    }
    Ok(())
}

/// The snapshot that stands in for archived segments: nothing but the file of the history has its peaks as well, if it is there and whole.
fn compare_file<S: Storage>(storage: &S, claim: &Claim) -> Result<(), LedgerError> {
    let Ok(found) = coverage(storage, claim.log_id, claim.peaks.size()) else { return Ok(()) };
    if found.peaks.is_some_and(|peaks| peaks != claim.peaks) {
        let (file, place) = (storage.place(HISTORY_NAME), claim.file.clone());
        let what = format!("its peaks of the history are not those in {file}, and one of the two files is wrong");
        return Err(LedgerError::Incomplete { place, what });
    }
    Ok(())
}
