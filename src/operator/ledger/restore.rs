//! `ronctl ledger restore`: a new ledger that goes on from a snapshot.
use std::path::PathBuf;

use super::snapshot::{described, folder_and_name, shown};
use super::{refused, Directory};
use crate::ledger::{restore, DiskStorage, LedgerError};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Size of the first segment, in bytes; those after it have the size that the configuration says.
const FIRST_SEGMENT_SIZE: u64 = 64 << 20;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger restore --from /tmp/ledger.snap --dir /var/lib/ron/ledger
  ronctl ledger restore --from ledger.snap

The directory must not have a ledger: move the old one aside first. The server must not run. The snapshot is read as a whole and
checked before anything can be built on it. The restored ledger has the identity, the chain and the history of the one that was copied:
later roots continue those of before. What was in the segments before is not in a snapshot: repeats, receipts and proofs of old entries
are answered once those segments are in the directory again. Entries after the snapshot are lost: reconcile with whoever has receipts.")]
pub struct Restore {
    #[command(flatten)]
    directory: Directory,
    /// Snapshot to begin from
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

impl Restore {
    /// Makes the ledger and says what is in it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let directory = self.directory.path(context)?;
        let (folder, name) = folder_and_name(&self.from)?;
        let place = |path: &std::path::Path| path.display().to_string();
        let source = DiskStorage::read_only(folder).map_err(LedgerError::io(place(folder), "open the directory of the snapshot"));
        let source = source.map_err(|error| super::unreadable(&error))?;
        let ledger = DiskStorage::create(&directory).map_err(LedgerError::io(place(&directory), "make the ledger's directory"));
        let ledger = ledger.map_err(|error| Failure::internal(error.to_string(), ""))?;
        let made = restore(&source, name, &ledger, FIRST_SEGMENT_SIZE).map_err(|error| refused(&error))?;
        if context.output.json {
            context.output.value(&described(&made))?;
        } else {
            let next =
                "start the server; then compare the sums with the counters, and clients' last receipts with `ronctl wallet seq`";
            context.output.line(&format!("{}\n\nrestored to {}; {next}", shown(context, &made), directory.display()))?;
        }
        Ok(Exit::Done)
    }
}
