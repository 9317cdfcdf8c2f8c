//! What else is wrong with a ledger whose verification had to stop: the segments that it did not come to, each read by itself.
//!
//! A segment names its log, its first entry and the chain hash before it, so its own hashes, the order of its batches and the seam to
//! the next one can be checked without what came before. Balances, nonces and keys cannot.
use super::replay::{Progress, Refuted};
use crate::ledger::storage::Storage;
use crate::ledger::walk::{SegmentFile, Walk};
use crate::ledger::LedgerError;
use std::ops::ControlFlow;

/// Something that is wrong, besides what has ended a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The file.
    pub file: String,
    /// What is wrong with it, and where in it.
    pub what: String,
}

/// What came of the files that a verification had not come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// The first segment that was not verified; none if all were.
    pub unverified: Option<u64>,
    /// How many of those were read, each by itself.
    pub apart: u64,
    /// What is wrong with them, and with snapshots.
    pub faults: Vec<Elsewhere>,
}

impl Rest {
    /// Of a verification that came to no segment at all.
    pub(super) fn all() -> Self {
        Self { unverified: Some(0), ..Self::default() }
    }

    /// Reads them. Where the disk itself has refused, nothing more is asked of it.
    pub(super) fn read<S: Storage>(refuted: &mut Refuted, storage: &S, progress: &mut dyn FnMut(Progress)) {
        let Some(unverified) = refuted.rest.unverified.filter(|_| !matches!(refuted.fault, LedgerError::Io { .. })) else {
            return;
        };
        let walk = match Walk::open(storage.clone()) {
            Ok(walk) => walk,
            Err(LedgerError::Io { .. }) => return,
            // There is no segment.
            Err(_) => return refuted.rest.unverified = None,
        };
        let segments = walk.segments();
        let known = file_of(&refuted.fault);
        let size = |segments: &[SegmentFile]| segments.iter().map(|segment| segment.size).sum::<u64>();
        for (at, segment) in segments.iter().enumerate() {
            if segment.index < unverified || known == Some(&segment.file) {
                continue;
            }
            progress(Progress {
                segment: segment.index,
                segments: segments[segments.len() - 1].index,
                entries: refuted.entries,
                bytes: size(&segments[..at]),
                bytes_all: size(segments),
                again: false,
            });
            refuted.rest.apart += 1;
            // The next one speaks for itself if it has no header, and of one that is missing nothing can be said.
            let next = segments.get(at + 1).filter(|next| next.header.is_ok() && next.index == segment.index + 1);
            let read = match next {
                Some(next) => walk.sealed(segment, next),
                None => walk.segment(segment, &mut |_| Ok(ControlFlow::Continue(()))).map(drop),
            };
            refuted.rest.faults.extend(read.err().map(|fault| elsewhere(segment, &fault)));
        }
    }
}

/// The one file in which this is wrong, as far as it is one.
fn file_of(fault: &LedgerError) -> Option<&String> {
    match fault {
        LedgerError::Damaged { file, .. } | LedgerError::Unsupported { file, .. } => Some(file),
        LedgerError::Incomplete { place, .. } | LedgerError::Mendable { place, .. } => Some(place),
        _ => None,
    }
}

fn elsewhere(segment: &SegmentFile, fault: &LedgerError) -> Elsewhere {
    match fault {
        LedgerError::Damaged { file, offset, what, .. } => {
            Elsewhere { file: file.clone(), what: format!("at byte {offset}: {what}") }
        }
        LedgerError::Incomplete { place, what } => Elsewhere { file: place.clone(), what: what.clone() },
        other => Elsewhere { file: segment.file.clone(), what: other.to_string() },
    }
}
