//! What a start of the server would do with a ledger as it lies there: found out by doing what a start does, without changing a byte.
use super::base::books_of;
use super::replay::{seeds, Refuted};
use crate::domain::Seq;
use crate::ledger::books::Books;
use crate::ledger::index_format::Subject;
use crate::ledger::recovery::{entries_of, refuse_lost_segments};
use crate::ledger::scan::{log_of, read_header, segments, Scan, Seen, Segments};
use crate::ledger::scrub::{index_verdict, Verdict};
use crate::ledger::snapshot::{newest_whole, Snapshot};
use crate::ledger::storage::{segment_name, Storage};
use crate::ledger::witness::known_mark;
use crate::ledger::LedgerError;

/// What a start would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It serves every balance.
    Serves {
        /// The last entry of the snapshot with which it would begin; none if it would read the whole log.
        snapshot: Option<Seq>,
        /// How many entries it would read behind that.
        entries: u64,
    },
    /// It ends, with this message.
    Refuses(Box<str>),
}

/// What a start would do although the verification has found this; nothing if the disk does not let that be known.
pub(super) fn rehearse<S: Storage>(storage: &S, refuted: &Refuted) -> Option<Start> {
    match attempt(storage, refuted) {
        Ok(start) => Some(start),
        Err(LedgerError::Io { .. }) => None,
        Err(fault) => Some(Start::Refuses(fault.to_string().into())),
    }
}

fn attempt<S: Storage>(storage: &S, refuted: &Refuted) -> Result<Start, LedgerError> {
    let mark = known_mark(storage)?;
    let place = storage.place("");
    let snapshot = newest_whole(storage, log_of(storage), Seq(u64::MAX), &|_| Ok(true), &mut || Ok(()))?;
    let start = snapshot.as_ref().map(Snapshot::start);
    let from = start.map_or(Seq(0), |start| start.seq);
    if met_behind(refuted, from) {
        return Ok(Start::Refuses(refuted.fault.to_string().into()));
    }
    let names = storage.list().map_err(LedgerError::io(place.as_str(), "list the directory"))?;
    let Some(segments) = segments(storage, &names, mark, start.as_ref())? else {
        refuse_lost_segments(storage, mark, start)?;
        return Ok(Start::Serves { snapshot: None, entries: 0 });
    };
    let mut books = match &snapshot {
        Some(snapshot) => books_of(snapshot)?,
        None => Books::new(seeds()),
    };
    let here = segments.clone();
    let end = Scan { storage, segments, mark, start, sync: false, patient: true }.run(&mut |seen| {
        let Seen::Batch(batch) = seen else { return Ok(()) };
        entries_of(&batch, &mut |_, _, entry| books.apply(&entry))
    })?;
    books.close().map_err(|what| LedgerError::Incomplete { place: place.clone(), what })?;
    if let Some(why) = met_among_keys(storage, here, &refuted.fault) {
        return Ok(Start::Refuses(why.into()));
    }
    Ok(Start::Serves { snapshot: snapshot.map(|snapshot| snapshot.head().seq), entries: end.head.0 - from.0 })
}

/// Behind a snapshot a start looks into the indexes for the keys before it, and reads a segment that has none: then it meets this damage
/// although the snapshot has those entries.
fn met_among_keys<S: Storage>(storage: &S, mut segments: Segments, fault: &LedgerError) -> Option<String> {
    let LedgerError::Damaged { file, .. } = fault else { return None };
    let segment = segments.find(|index| storage.place(&segment_name(*index)) == *file)?;
    let header = |index| {
        let file = storage.open(&segment_name(index)).ok()?;
        read_header(&file).ok()?.ok().map(|(header, _)| header)
    };
    let indexed = header(segment).zip(header(segment + 1)).is_some_and(|(header, next)| {
        let subject = Subject { log_id: header.log_id, segment, first: header.first_seq, last: Seq(next.first_seq.0 - 1) };
        matches!(index_verdict(storage, subject), Verdict::Good)
    });
    (!indexed).then(|| format!("{fault}; the segment has no whole index, so a start would read it for its keys"))
}

/// Whether a start that reads the entries behind this one meets the same fault, so that it need not be tried. Of keys it asks nothing.
fn met_behind(refuted: &Refuted, from: Seq) -> bool {
    let is_key = refuted.suspect.as_ref().is_some_and(|suspect| suspect.is_key());
    matches!(&refuted.fault, LedgerError::Damaged { expected: seq, .. } | LedgerError::Broken { seq, .. } if *seq > from && !is_key)
}
