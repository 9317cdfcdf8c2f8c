//! What is not as it should be in a ledger that keeps all its promises: files that a server makes again, or can do without.
use crate::domain::Seq;
use crate::ledger::history::{coverage, HISTORY_NAME};
use crate::ledger::index_format::Subject;
use crate::ledger::layout::{SegmentHeader, BLOCK_BYTES};
use crate::ledger::mark::{Mark, EPOCH_NAME};
use crate::ledger::scrub::{index_verdict, Verdict};
use crate::ledger::storage::{index_name, read_zero_filled, segment_name, Storage};
use crate::ledger::witness::{flaw, WITNESS_NAME};
use std::io::ErrorKind;

/// Something that does no harm to any entry, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
    /// What a start of the server does about it, and what is for people to do.
    pub next: &'static str,
}

/// Looks at everything that is not read for the entries. `foreign` are the files of snapshots that are not of this log.
pub(super) fn remarks<S: Storage>(
    storage: &S,
    headers: &[SegmentHeader],
    head: Seq,
    mark: Option<Mark>,
    foreign: Vec<String>,
) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if mark.is_none() && head > Seq(0) {
        remarks.push(Remark {
            file: storage.place(EPOCH_NAME),
            what: "it is missing, and `witness` has no mark either: nothing says how far the log has certainly reached, so entries or segments that are lost from its end \
                   would not be noticed"
                .into(),
            next: "a start warns, goes on with the epoch after that of the last batch, and writes the file again; before it, compare head \
                   and root with the last receipt or root that is kept elsewhere, and see that no other server has the ledger",
        });
    }
    remarks.extend(bad_witness(storage));
    headers.iter().for_each(|header| remarks.extend(bad_copy(storage, header)));
    let sealed = headers.iter().zip(headers.iter().skip(1));
    remarks.extend(sealed.filter_map(|(header, next)| bad_index(storage, header, Seq(next.first_seq.0 - 1))));
    remarks.extend(bad_history(storage, headers));
    remarks.extend(foreign.into_iter().map(|file| Remark {
        file,
        what: "the snapshot is whole, and it is one of another ledger, or of another entry than its name says".into(),
        next: "a start passes it over; move it to where it belongs, or remove it",
    }));
    remarks
}

fn bad_witness<S: Storage>(storage: &S) -> Option<Remark> {
    let look = || flaw(storage).unwrap_or_else(|error| Some(error.to_string()));
    // A server may have been writing it.
    look()?;
    Some(Remark {
        file: storage.place(WITNESS_NAME),
        what: look()?,
        next: "a start goes on, and the next commits write it anew; until then, damage to the very last batch may pass for an interrupted \
               write unless `epoch` has noted that batch; see whether the disk has other faults",
    })
}

/// A segment of whose header one copy is damaged.
fn bad_copy<S: Storage>(storage: &S, header: &SegmentHeader) -> Option<Remark> {
    let name = segment_name(header.index);
    let file = storage.open(&name).ok()?;
    let bad = (0..2).map(|copy| copy * BLOCK_BYTES as u64).find(|offset| {
        let mut block = [0; BLOCK_BYTES];
        let read = read_zero_filled(&file, &mut block, *offset);
        read.is_err() || SegmentHeader::decode(&block).map_or(true, |found| found != *header)
    })?;
    Some(Remark {
        file: storage.place(&name),
        what: format!("one of the two copies of the segment header, at byte {bad}, is damaged"),
        next: "a start goes on with the other copy; restore this file from a backup, because one more fault makes it unreadable",
    })
}

fn bad_index<S: Storage>(storage: &S, header: &SegmentHeader, last: Seq) -> Option<Remark> {
    // A segment without entries has no index.
    let (log_id, segment, first) = (header.log_id, header.index, header.first_seq);
    if last < first {
        return None;
    }
    let what = match index_verdict(storage, Subject { log_id, segment, first, last }) {
        Verdict::Good | Verdict::Gone => return None,
        Verdict::Damaged(fault) => format!("the index is damaged at byte {}: {}", fault.offset, fault.what),
        Verdict::Unjudged(what) => format!("the index could not be looked at: {what}"),
    };
    let next =
        "nothing is answered from it; a server makes it again from its segment by itself; see whether the disk has other faults";
    Some(Remark { file: storage.place(&index_name(segment)), what, next })
}

fn bad_history<S: Storage>(storage: &S, headers: &[SegmentHeader]) -> Option<Remark> {
    let first = headers.first()?;
    let look = || match coverage(storage, first.log_id, &[]) {
        Ok(found) => found.is_damaged.then(|| format!("a node is damaged behind the first {} batches", found.size)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    };
    look()?;
    // A server may have been writing it.
    let next = if first.first_seq > Seq(1) {
        "a start begins it anew behind a snapshot, and proofs of what is before that are refused; put the archived segments back first \
         to have it made as a whole"
    } else {
        "a server makes it again from the segments; proofs are refused until then"
    };
    look().map(|what| Remark { file: storage.place(HISTORY_NAME), what, next })
}
