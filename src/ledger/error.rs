//! What can go wrong with a ledger, in sentences that say where and what to do next.
use super::storage::segment_name;
use crate::domain::Seq;
use std::path::Path;

/// A fault of the ledger. None of them is a client's mistake, and after most of them the process must not serve writes.
#[derive(Debug)]
pub enum LedgerError {
    /// Another process holds the writer lock.
    InUse {
        /// The directory of the ledger.
        place: String,
    },
    /// The operating system refused a call.
    Io {
        /// The file or directory.
        place: String,
        /// What was tried, as "to write the batch".
        doing: &'static str,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// Bytes that were acknowledged, or that cannot come from an interrupted write, are not what was written.
    Damaged {
        /// The segment file.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// The entry that should begin there; 0 if that is not known.
        expected: Seq,
        /// What is wrong.
        what: String,
    },
    /// Written by a version that this one cannot read.
    Unsupported {
        /// The file.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// The format version found there.
        version: u32,
    },
    /// A file that must exist does not, or does not belong here.
    Incomplete {
        /// The file or directory.
        place: String,
        /// What is missing or foreign.
        what: String,
    },
    /// A file that is missing or damaged, and for which there is a better remedy than a backup of the directory.
    Mendable {
        /// The file, or the directory where it is missing.
        place: String,
        /// Whether something is missing; otherwise what is there is not what it should be.
        missing: bool,
        /// What is wrong.
        what: Box<str>,
        /// What to do about it.
        next: Box<str>,
    },
    /// The first segments are not there, and no snapshot stands in for them.
    Uncovered {
        /// The directory.
        place: String,
        /// Numbers of the first and of the last segment that are missing.
        missing: (u64, u64),
        /// Snapshots in the directory, none of which can be used.
        snapshots: usize,
    },
    /// The entry stood in a segment that is not in the directory any more, and a snapshot stands in for it.
    Archived {
        /// The directory.
        place: String,
        /// The first entry that is there.
        first: Seq,
    },
    /// The ledger cannot be reached now, or does not answer. It may again later.
    Unreachable {
        /// Where it should be.
        place: String,
        /// What happened, and what to do.
        what: String,
    },
    /// A newer writer has taken the ledger over: this one can never append again.
    Fenced {
        /// The ledger.
        place: String,
        /// The epoch of this writer.
        own: u64,
        /// The epoch of the newer one.
        newer: u64,
    },
    /// The ledger does not do what was asked of it; nothing was changed.
    Declined {
        /// The ledger.
        place: String,
        /// What, why, and what to do instead.
        what: String,
    },
    /// An intact entry breaks a rule of the books, or the caller that rebuilds its state could not take it.
    Broken {
        /// The segment file.
        file: String,
        /// Where its batch begins, in bytes.
        offset: u64,
        /// The entry.
        seq: Seq,
        /// Which rule, and how.
        what: String,
    },
}

impl LedgerError {
    /// What to do about segments for which nothing stands in.
    pub(crate) const BRING_BACK: &'static str =
        "if they are in an archive, move them back into the directory (RUNBOOK.md, Old segments) and \
         start again; otherwise restore the directory from a backup (RUNBOOK.md, Back up and restore)";

    /// Whether it is what is on the disk that is wrong: reading it again comes to the same.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            LedgerError::Damaged { .. }
                | LedgerError::Unsupported { .. }
                | LedgerError::Incomplete { .. }
                | LedgerError::Mendable { .. }
        )
    }

    /// There is no segment in this directory, and nothing says that there has been one.
    pub(crate) fn no_ledger(place: String) -> Self {
        let next = "name the directory of the ledger with --dir; if this is it, restore it from a backup".into();
        LedgerError::Mendable { place, missing: true, what: "there is no ledger here: no segment file".into(), next }
    }

    /// This segment is not in the directory, although a later one is.
    pub(crate) fn gap(place: String, missing: u64, later: u64) -> Self {
        let what = format!("{} is missing, although {} exists", segment_name(missing), segment_name(later));
        let next = "put back that one file, from the archive or from any backup that has a later segment as well: a segment that another \
                    one follows never changes; do not restore the whole directory, which would lose what came after the backup \
                    (RUNBOOK.md, The ledger is damaged)";
        LedgerError::Mendable { place, missing: true, what: what.into(), next: next.into() }
    }

    /// Which segments are missing, and why nothing stands in for them, if that is what is wrong.
    pub(crate) fn uncovered(&self) -> Option<String> {
        let LedgerError::Uncovered { missing, snapshots, .. } = self else { return None };
        let (first, last) = (segment_name(missing.0), segment_name(missing.1));
        let which = if first == last { format!("{first} is not there") } else { format!("{first} to {last} are not there") };
        Some(match snapshots {
            0 => format!("{which}, and there is no snapshot in their place"),
            1 => format!("{which}, and the one snapshot that is there cannot be used in their place"),
            count => format!("{which}, and none of the {count} snapshots that are there can be used in their place"),
        })
    }

    /// For `map_err`: an I/O error with its place and purpose.
    pub(crate) fn io(place: impl Into<String>, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let place = place.into();
        move |source| LedgerError::Io { place, doing, source }
    }
}

impl std::fmt::Display for LedgerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LedgerError::InUse { place } => {
                write!(f, "the ledger in {place} is in use: another server has it open; stop that server, or give this one a directory of its own")
            }
            LedgerError::Io { place, doing, source } => {
                write!(f, "could not {doing} ({place}): {source}; check the disk, its free space and the permissions, then start again")
            }
            LedgerError::Damaged { file, offset, expected, what } => {
                write!(f, "the ledger is damaged in {file} at byte {offset}")?;
                if *expected > Seq(0) {
                    write!(f, ", where entry {} is expected", expected.0)?;
                }
                let verify = verify_beside(file);
                write!(f, ": {what}; nothing was changed; run {verify} for the extent, then restore this file from a backup")
            }
            LedgerError::Unsupported { file, offset, version } => write!(
                f,
                "{file} at byte {offset} has format version {version}, which this server does not know; nothing was changed; start a \
                 server that is at least as new as the one that wrote it"
            ),
            LedgerError::Incomplete { place, what } => {
                write!(f, "the ledger is incomplete in {place}: {what}; nothing was changed; restore the directory from a backup")
            }
            LedgerError::Mendable { place, missing, what, next } => {
                let kind = if *missing { "incomplete" } else { "damaged" };
                write!(f, "the ledger is {kind} in {place}: {what}; nothing was changed; {next}")
            }
            LedgerError::Uncovered { place, .. } => write!(
                f,
                "the ledger in {place} begins behind its first entry: {}; nothing was changed; {}",
                self.uncovered().unwrap_or_default(),
                Self::BRING_BACK
            ),
            LedgerError::Archived { place, first } => write!(
                f,
                "the ledger in {place} begins with entry {}; what came before is in an archive, or was left behind when the ledger was \
                 restored; move those segments into the directory to read it",
                first.0
            ),
            LedgerError::Unreachable { place, what } => {
                write!(f, "the ledger at {place} cannot be reached: {what}")
            }
            LedgerError::Fenced { place, own, newer } => write!(
                f,
                "the ledger at {place} is written in epoch {newer} now, this server was epoch {own}: another server has replaced it, and \
                 nothing of this one is accepted any more; stop one of the two for good. Clients repeat what they have no receipt for"
            ),
            LedgerError::Declined { place, what } => write!(f, "the ledger at {place} did not do this: {what}"),
            LedgerError::Broken { file, offset, seq, what } => write!(
                f,
                "entry {} of the ledger, in the batch in {file} at byte {offset}, does not fit what came before it: {what}; keep a copy \
                 of the directory and run {}",
                seq.0,
                verify_beside(file)
            ),
        }
    }
}

/// The command that verifies the ledger to which this file belongs.
pub(crate) fn verify_beside(file: &str) -> String {
    verify_in(Path::new(file).parent().unwrap_or(Path::new("")))
}

/// The command that verifies the ledger in this directory.
pub(crate) fn verify_in(directory: &Path) -> String {
    match directory.as_os_str().is_empty() {
        true => "`ronctl ledger verify`".to_owned(),
        false => format!("`ronctl ledger verify --dir {}`", directory.display()),
    }
}

impl std::error::Error for LedgerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LedgerError::Io { source, .. } => Some(source),
            LedgerError::InUse { .. }
            | LedgerError::Damaged { .. }
            | LedgerError::Unsupported { .. }
            | LedgerError::Incomplete { .. }
            | LedgerError::Mendable { .. }
            | LedgerError::Uncovered { .. }
            | LedgerError::Archived { .. }
            | LedgerError::Unreachable { .. }
            | LedgerError::Fenced { .. }
            | LedgerError::Declined { .. }
            | LedgerError::Broken { .. } => None,
        }
    }
}
