//! `ronctl ledger restore`: a new ledger that goes on from a snapshot.
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::snapshot::{described, folder_and_name, shown};
use super::{refused, Directory};
use crate::domain::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::domain::UnixMs;
use crate::ledger::layout::BLOCK_BYTES;
use crate::ledger::snapshot::Snapshot;
use crate::ledger::{restore, BackupError, DiskStorage, LedgerError, KEYS_TTL};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, rfc3339};
use crate::worker::unix_now;

/// Size of the first segment if neither the command line nor a configuration says it, in bytes.
const FIRST_SEGMENT_SIZE: u64 = 64 << 20;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger restore --from /tmp/ledger.snap --dir /var/lib/ron/ledger
  ronctl ledger restore --from ledger.snap
  ronctl ledger restore --from ledger.snap --dir /var/lib/ron/ledger --segment-bytes 268435456

The directory must not have a ledger: move the old one aside first. The server must not run. The snapshot is read as a whole and
checked before anything is made. The restored ledger has the identity, the chain and the history of the one that was copied: later roots
continue those of before. What was in the segments before is not in a snapshot: repeats, receipts and proofs of old entries are answered
once those segments are in the directory again. Entries after the snapshot are lost: reconcile with whoever has receipts. For a daemon,
give --dir, and --segment-bytes if its own setting is not that of the wallet.")]
pub struct Restore {
    #[command(flatten)]
    directory: Directory,
    /// Snapshot to begin from
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Size of the first segment in bytes; otherwise ledger.segment_bytes of the configuration, or 64 MiB if there is none
    #[arg(long, value_name = "BYTES", value_parser = segment_bytes)]
    segment_bytes: Option<u64>,
}

fn segment_bytes(text: &str) -> Result<u64, String> {
    let good = |bytes: &u64| (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(bytes) && bytes % BLOCK_BYTES as u64 == 0;
    text.parse()
        .ok()
        .filter(good)
        .ok_or_else(|| format!("write a multiple of {BLOCK_BYTES} from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"))
}

/// Until when keys of debits in a snapshot, the newest of which was accepted then, would have been refused with another request; nothing
/// if their time is over.
fn keys_unknown_until(newest: UnixMs, keys_ttl: Duration, now: UnixMs) -> Option<UnixMs> {
    let until = newest.0.saturating_add(u64::try_from(keys_ttl.as_millis()).unwrap_or(u64::MAX));
    (until > now.0).then_some(UnixMs(until))
}

impl Restore {
    /// Makes the ledger and says what is in it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let directory = self.directory.path(context)?;
        let (folder, name) = folder_and_name(&self.from)?;
        if let Err(fault) = std::fs::File::open(&self.from) {
            let message = format!("cannot open the snapshot {}: {fault}", self.from.display());
            return Err(Failure::usage(message, "name a file that `ronctl ledger snapshot` has written"));
        }
        let place = |path: &std::path::Path| path.display().to_string();
        let source = DiskStorage::read_only(folder).map_err(LedgerError::io(place(folder), "open the directory of the snapshot"));
        let source = source.map_err(|error| super::unreadable(&error))?;
        let segment_bytes = match self.segment_bytes {
            Some(bytes) => bytes,
            None => self.directory.setting(context, FIRST_SEGMENT_SIZE, |config| config.ledger.segment_bytes)?,
        };
        let keys_ttl = self.directory.setting(context, KEYS_TTL, |config| config.idempotency.ttl)?;
        // All of it is read before a directory is made: of a bad copy nothing is to be left.
        let copy = Snapshot::open(&source, name).and_then(|copy| copy.verify());
        copy.map_err(|fault| Failure {
            next: "name a file that `ronctl ledger snapshot` has written, or an older copy; nothing was made".to_owned(),
            ..refused(&BackupError::from(fault))
        })?;
        let ledger = DiskStorage::create(&directory).map_err(LedgerError::io(place(&directory), "make the ledger's directory"));
        let ledger = ledger.map_err(|error| Failure::internal(error.to_string(), ""))?;
        let made = restore(&source, name, &ledger, segment_bytes).map_err(|error| refused(&error))?;
        let unknown = keys_unknown_until(made.head().newest, keys_ttl, unix_now());
        let unknown = unknown.and_then(|until| rfc3339(until.0));
        if context.output.json {
            let mut told = described(&made);
            told["keys_unknown_until"] = json!(unknown);
            context.output.value(&told)?;
        } else {
            let next =
                "start the server; then compare the sums with the counters, and clients' last receipts with `ronctl wallet seq`";
            context.output.line(&format!("{}\n\nrestored to {}; {next}", shown(context, &made), directory.display()))?;
            if let Some(until) = unknown {
                let (through, place) = (grouped(u128::from(made.head().seq.0)), directory.display());
                context.output.line(&format!(
                    "\nUntil {until} idempotency keys of debits up to entry {through} are unknown: such a key is accepted again with another \
                     request and a new nonce; an exact repeat is not. To prevent that, move the old segments, as far as they have nothing behind \
                     entry {through}, into {place} before the start."
                ))?;
            }
        }
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unknown_until_the_time_of_the_newest_is_over() {
        let hour = Duration::from_secs(3_600);
        let cases =
            [(7_000, hour, 7_000, Some(3_607_000)), (7_000, hour, 3_606_999, Some(3_607_000)), (7_000, hour, 3_607_000, None)];
        for (newest, ttl, now, expected) in cases {
            assert_eq!(keys_unknown_until(UnixMs(newest), ttl, UnixMs(now)), expected.map(UnixMs), "{now}");
        }
        assert_eq!(keys_unknown_until(UnixMs(1), Duration::MAX, UnixMs(2)), Some(UnixMs(u64::MAX)));
    }
}
