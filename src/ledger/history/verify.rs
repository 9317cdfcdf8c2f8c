//! Whether a proof of history holds. Pure.
//!
//! A proof comes from a stranger: whatever is in it, the answer is yes or a reason. All that a verifier trusts is the root that
//! the caller compares with its own.
use super::mmr::{batch_leaf, entry_leaf, peaks_above, Peaks};
use crate::domain::{Consistency, Entry, HistoryRoot, LogId, Proof, Seq};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofFault {
    /// The bytes of the entry are not one entry.
    Entry,
    /// The entry is not within the batch that the proof names.
    Place,
    /// The path through the batch has more or fewer hashes than a batch of this size has.
    BatchPath,
    /// The path through the history has more or fewer hashes than a history of this size has.
    HistoryPath,
    /// The root ends before the batch does, or a later root before an earlier one.
    Reach,
    /// The hashes lead to another root than the one that the proof names.
    Root,
    /// The peaks are not those of the earlier root.
    EarlierRoot,
}

impl std::fmt::Display for ProofFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ProofFault::Entry => "the bytes of the entry are not one entry of a ledger",
            ProofFault::Place => "the entry does not stand within the batch that the proof names",
            ProofFault::BatchPath => "the path through the batch does not have as many hashes as place and size demand",
            ProofFault::HistoryPath => "the path through the history does not have as many hashes as place and size demand",
            ProofFault::Reach => "the root ends before what it is to cover",
            ProofFault::Root => "the hashes lead to another root: entry, place or a hash on the way is not the one in the ledger",
            ProofFault::EarlierRoot => "the peaks do not make the earlier root",
        })
    }
}

impl std::error::Error for ProofFault {}

/// Whether the root has the hash of these peaks.
fn is_root(root: &HistoryRoot, log_id: LogId, peaks: &Peaks) -> bool {
    peaks.size() == root.size && peaks.root(log_id, root.through) == root.hash
}

/// Checks that the entry is part of the history with the root that the proof names. Whether that root is to be trusted is for the
/// caller to say.
pub fn verify_inclusion(proof: &Proof) -> Result<(), ProofFault> {
    let (found, inclusion) = (&proof.found, &proof.inclusion);
    if !Entry::parse(&found.entry).is_ok_and(|(_, rest)| rest.is_empty()) {
        return Err(ProofFault::Entry);
    }
    let index = found.seq.0.checked_sub(inclusion.first_seq.0).filter(|index| *index < inclusion.entries);
    let index = index.ok_or(ProofFault::Place)?;
    let last = inclusion.first_seq.0.checked_add(inclusion.entries - 1).map(Seq).ok_or(ProofFault::Place)?;
    if inclusion.first_seq == Seq(0) || inclusion.batch >= inclusion.root.size {
        return Err(ProofFault::Place);
    }
    if last > inclusion.root.through {
        return Err(ProofFault::Reach);
    }
    let leaf = entry_leaf(found.seq, &found.entry);
    let entries = peaks_above(leaf, index, inclusion.entries, &inclusion.in_batch).ok_or(ProofFault::BatchPath)?;
    let leaf = batch_leaf(&found.root, inclusion.first_seq, &entries);
    let peaks = peaks_above(leaf, inclusion.batch, inclusion.root.size, &inclusion.in_history);
    let peaks = peaks.ok_or(ProofFault::HistoryPath)?;
    if is_root(&inclusion.root, proof.log_id, &peaks) {
        Ok(())
    } else {
        Err(ProofFault::Root)
    }
}

/// Checks that the history of the later root begins with the whole history of the earlier one.
pub fn verify_consistency(proof: &Consistency) -> Result<(), ProofFault> {
    let (from, to) = (&proof.from, &proof.to);
    if from.size > to.size || from.through > to.through {
        return Err(ProofFault::Reach);
    }
    let peaks = Peaks::new(from.size, proof.peaks.clone()).filter(|peaks| is_root(from, proof.log_id, peaks));
    let later = peaks.ok_or(ProofFault::EarlierRoot)?.extended(to.size, &proof.additions).ok_or(ProofFault::HistoryPath)?;
    if is_root(to, proof.log_id, &later) {
        Ok(())
    } else {
        Err(ProofFault::Root)
    }
}
