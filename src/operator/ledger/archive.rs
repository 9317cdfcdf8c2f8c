//! `ronctl ledger archive`: moves segments that both kept snapshots stand in for to another directory.
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{refused, unreadable, Directory};
use crate::domain::UnixMs;
use crate::ledger::{archivable_through, archive_segments, DiskStorage, LedgerError, SegmentFile, Storage, KEYS_TTL};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::worker::unix_now;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger archive --to /mnt/archive/ledger
  ronctl --json ledger archive --to /mnt/archive/ledger --dir /var/lib/ron/ledger

Moved are sealed segments whose entries are all in both of the kept snapshots, which are read and checked first, whose batches are all in
the history of proofs, and whose idempotency keys are over their time: a key that could still come again is looked up in its segment. Nothing moves
out of a ledger that a start would refuse. All that are to go are read and checked before the first one moves:
if something is missing or damaged, nothing is moved and the message says what to do. Each segment is copied, synced, read back and only
then removed; a call that was interrupted is finished by the next one. The server must not run meanwhile. Receipts,
repeats and proofs of archived entries are answered with 503 until their segments are moved back; balances and new spends need none.")]
pub struct Archive {
    #[command(flatten)]
    directory: Directory,
    /// Directory of the archive; made if there is none
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How long the wallet remembers idempotency keys; otherwise idempotency.ttl of the configuration, or 24h if there is none
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keys_ttl: Option<Duration>,
}

impl Archive {
    /// Keys of entries that were accepted before this are remembered no more.
    fn keys_over(&self, context: &Context) -> Result<UnixMs, Failure> {
        let ttl = match self.keys_ttl {
            Some(ttl) => ttl,
            None => self.directory.setting(context, KEYS_TTL, |config| config.idempotency.ttl)?,
        };
        Ok(UnixMs(unix_now().0.saturating_sub(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))))
    }

    /// Moves what may go and says what went.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let path = self.directory.path(context)?;
        // Looked at for reading first: where there is no ledger, not even a lock is made.
        self.directory.walk(context)?;
        let failed = |error: LedgerError| unreadable(&error);
        let ledger = DiskStorage::create(&path).map_err(LedgerError::io(path.display().to_string(), "open the ledger"));
        let ledger = ledger.map_err(failed)?;
        let lock = ledger.lock().map_err(LedgerError::io(ledger.place(""), "lock the ledger")).map_err(failed)?;
        let _lock = lock.ok_or_else(|| failed(LedgerError::InUse { place: ledger.place("") }))?;
        let mut moved: Vec<String> = Vec::new();
        if let Some(last) = archivable_through(&ledger, self.keys_over(context)?).map_err(|error| refused(&error))? {
            let archive = DiskStorage::create(&self.to);
            let archive = archive.map_err(LedgerError::io(self.to.display().to_string(), "use the archive")).map_err(failed)?;
            let mut each = |segment: &SegmentFile| {
                context.output.hint(&format!("moved {}", segment.file));
                moved.push(segment.file.clone());
            };
            archive_segments(&ledger, &archive, last, &mut each).map_err(|error| refused(&error))?;
        }
        if context.output.json {
            context.output.value(&json!({"moved": moved, "archive": self.to.display().to_string()}))?;
        } else if moved.is_empty() {
            let why = "each holds entries that are not in both of two snapshots, or whose keys are still remembered";
            context.output.line(&format!("no segment may go: {why}"))?;
        } else {
            context.output.line(&format!("{} segments moved to {}", moved.len(), self.to.display()))?;
        }
        Ok(Exit::Done)
    }
}
