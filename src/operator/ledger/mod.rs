//! `ronctl ledger`: the ledger's files. Nothing here writes an entry; a running server's ledger is only read.
pub mod archive;
mod entry;
pub mod export;
mod holder;
pub mod inspect;
pub mod restore;
pub mod snapshot;
pub mod verify;

pub(super) use snapshot::folder_and_name;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::{Exit, Failure};
use crate::config::{Config, LedgerDep};
use crate::domain::LogId;
use crate::ledger::snapshot::SnapshotError;
use crate::ledger::{
    directory_behind, is_lack_of_room, log_of, segment_number, verify_beside, verify_in, BackupError, DiskStorage, LedgerError,
    Storage, Walk,
};

/// What can be done with a ledger.
#[derive(Debug, clap::Subcommand)]
pub enum Ledger {
    /// Replay the whole ledger and check every hash, number, nonce and balance
    Verify(verify::Verify),
    /// Show what is in the ledger: its segments, the batches of one, one batch, or one entry field by field
    Inspect(inspect::Inspect),
    /// Write entries as lines of JSON or as a table for other programs
    Export(export::Export),
    /// Copy the state of all accounts into one file, to be restored from
    Snapshot(snapshot::SnapshotTo),
    /// Make a new ledger that goes on from a snapshot
    Restore(restore::Restore),
    /// Move old segments, which two snapshots stand in for, to another directory
    Archive(archive::Archive),
}

impl Ledger {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Ledger::Verify(command) => command.run(context),
            Ledger::Inspect(command) => command.run(context),
            Ledger::Export(command) => command.run(context),
            Ledger::Snapshot(command) => command.run(context),
            Ledger::Restore(command) => command.run(context),
            Ledger::Archive(command) => command.run(context),
        }
    }
}

/// What is in a directory instead of this log; nothing if that log is there, or it cannot be told: then reading it says why.
fn other_than(directory: &Path, log_id: LogId) -> Option<&'static str> {
    let names = match DiskStorage::read_only(directory).and_then(|storage| storage.list().map(|names| (storage, names))) {
        Ok((storage, names)) => match log_of(&storage) {
            Some(found) => return (found != log_id).then_some("another ledger is there"),
            None => names,
        },
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Some("there is no such directory"),
        Err(_) => return None,
    };
    let empty = !names.iter().any(|name| segment_number(name).is_some());
    empty.then_some("no ledger is there")
}

fn elsewhere(socket: &Path, directory: &Path, found: &str) -> Failure {
    let (socket, directory) = (socket.display(), directory.display());
    Failure::usage(
        format!("the daemon behind unix://{socket} says that its ledger is in {directory}, and seen from here {found}"),
        "the daemon runs elsewhere, in a container for example: name the directory as it is seen from here with --dir DIR",
    )
}

/// What to do about a directory that is not there.
const NAME_IT: &str = "name the directory of the ledger with --dir";

/// Which ledger a command is about.
#[derive(Debug, clap::Args)]
pub struct Directory {
    /// Directory of the ledger; otherwise that of the configuration, or of the daemon behind its socket
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Directory {
    /// The directory that was named, or the one that the server uses; a daemon is asked for its own.
    pub fn path(&self, context: &Context) -> Result<PathBuf, Failure> {
        if let Some(directory) = &self.dir {
            return Ok(directory.clone());
        }
        match context.config()?.deps.ledger {
            LedgerDep::Embedded(directory) => Ok(directory),
            LedgerDep::Unix(socket) => {
                context.output.progress(&format!("asking ron-ledger behind unix://{} for its directory", socket.display()));
                let told = directory_behind(&socket);
                context.output.progress("");
                let (directory, log_id) = told.map_err(|fault| {
                    let message = format!("the configured ledger is that of a daemon, which cannot tell its directory: {fault}");
                    Failure::unreachable(
                        message,
                        "name its directory: --dir DIR; commands that only read can also ask the daemon, once ron-ledger runs and answers this user",
                    )
                })?;
                match other_than(&directory, log_id) {
                    Some(found) => Err(elsewhere(&socket, &directory, found)),
                    None => Ok(directory),
                }
            }
        }
    }

    /// The same, listed and ready to be read.
    pub fn walk(&self, context: &Context) -> Result<Walk<DiskStorage>, Failure> {
        Walk::open(self.storage(context)?).map_err(|fault| unreadable(&fault))
    }

    /// The same, which must be there.
    pub fn existing(&self, context: &Context) -> Result<PathBuf, Failure> {
        let path = self.path(context)?;
        match std::fs::metadata(&path) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                Err(Failure::usage(format!("{}: there is no ledger, and no directory of this name", path.display()), NAME_IT))
            }
            Ok(found) if !found.is_dir() => {
                Err(Failure::usage(format!("{}: there is no ledger: this is not a directory", path.display()), NAME_IT))
            }
            // What else is wrong shows when it is read.
            Err(_) | Ok(_) => Ok(path),
        }
    }

    /// The same, to be read only.
    pub fn storage(&self, context: &Context) -> Result<DiskStorage, Failure> {
        let path = self.existing(context)?;
        let opened = DiskStorage::read_only(&path).map_err(LedgerError::io(path.display().to_string(), "open the ledger"));
        opened.map_err(|fault| unreadable(&fault))
    }

    /// A setting that the configuration has; `or` if a directory was named and there is no configuration. Whoever names the directory
    /// needs none, but one that is there has to be good.
    pub fn setting<T>(&self, context: &Context, or: T, of: impl FnOnce(&Config) -> T) -> Result<T, Failure> {
        if self.dir.is_some() && !context.has_config() {
            return Ok(or);
        }
        context.config().map(|config| of(&config))
    }
}

/// A copy that cannot be made or restored, with the exit code that belongs to it.
pub fn refused(error: &BackupError) -> Failure {
    match error {
        BackupError::Ledger(fault) => unreadable(fault),
        BackupError::Snapshot(SnapshotError::Io(fault)) => Failure::internal(error.to_string(), after_io(fault)),
        BackupError::Snapshot(SnapshotError::Fault(_) | SnapshotError::Rule(_)) => {
            let next = "`ronctl ledger verify` says more about a ledger".to_owned();
            Failure { exit: Exit::No, message: error.to_string(), next }
        }
        BackupError::Place(what) => Failure { exit: Exit::No, message: what.clone(), next: String::new() },
        BackupError::Halfway { cause, .. } => Failure {
            message: error.to_string(),
            next: "every segment is whole in one of the two places; mend this, then repeat the command: it moves the others"
                .to_owned(),
            ..refused(cause)
        },
    }
}

/// What to do about something that the operating system did not let be written.
fn after_io(fault: &std::io::Error) -> &'static str {
    if is_lack_of_room(fault) {
        "make room on that disk, then repeat this command; the ledger is as it was"
    } else {
        ""
    }
}

/// A ledger that somebody else has, with who that is and what to do about it.
fn in_use(place: &str) -> Failure {
    let who = holder::holder(Path::new(place)).unwrap_or_else(|| "another process".to_owned());
    Failure::internal(
        format!("the ledger in {place} is in use by {who}; nothing was changed"),
        "stop that one in order (RUNBOOK.md, Stop), then repeat this command; `ronctl ledger verify`, `inspect`, `export` and `snapshot` \
         work beside it",
    )
}

/// A ledger that cannot be read any further, with the exit code that belongs to it.
pub fn unreadable(fault: &LedgerError) -> Failure {
    match fault {
        LedgerError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Failure::usage(fault.to_string(), NAME_IT),
        LedgerError::InUse { place } => in_use(place),
        LedgerError::Io { source, .. } => Failure::internal(fault.to_string(), after_io(source)),
        LedgerError::Unreachable { .. } | LedgerError::Fenced { .. } | LedgerError::Declined { .. } => {
            Failure::internal(fault.to_string(), "")
        }
        LedgerError::Damaged { file: place, .. }
        | LedgerError::Unsupported { file: place, .. }
        | LedgerError::Incomplete { place, .. }
        | LedgerError::Broken { file: place, .. } => {
            let directory = Path::new(place);
            let command = if directory.is_dir() { verify_in(directory) } else { verify_beside(place) };
            Failure { exit: Exit::No, message: fault.to_string(), next: format!("{command} says what else is wrong") }
        }
        LedgerError::Mendable { .. } | LedgerError::Uncovered { .. } => {
            Failure { exit: Exit::No, message: fault.to_string(), next: String::new() }
        }
        LedgerError::Archived { first, .. } => Failure {
            exit: Exit::No,
            message: fault.to_string(),
            next: format!("ask for entries from {} on, or move the archived segments back", first.0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::snapshot::SnapshotFault;
    use rustix::io::Errno;

    #[test]
    fn a_disk_without_room_is_the_operating_system_that_refuses() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let in_ledger = LedgerError::Io { place: "p".to_owned(), doing: "allocate", source: errno.into() };
            for error in [BackupError::from(SnapshotError::Io(errno.into())), BackupError::from(in_ledger)] {
                let failure = refused(&error);
                assert_eq!(failure.exit, Exit::Internal, "{failure}");
                assert!(failure.next.starts_with("make room on that disk"), "{failure}");
            }
        }
        let other = refused(&SnapshotError::Io(Errno::IO.into()).into());
        assert_eq!((other.exit, &*other.next), (Exit::Internal, ""), "{other}");
        let fault = SnapshotFault { file: "f".to_owned(), what: "w".to_owned() };
        let damaged = refused(&fault.into());
        assert!(damaged.exit == Exit::No && damaged.next.contains("ledger verify"), "{damaged}");
    }
}
