//! `ronctl accounting reconcile`: the counters held against the ledger.
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::flush::until_counted;
use super::show::table;
use super::{counted, Counters, REPAIR};
use crate::accounting::{Difference, Flows, Position, Stretch};
use crate::control::Action;
use crate::domain::{hex, Entry, Seq};
use crate::ledger::snapshot::{newest_good, Snapshot};
use crate::ledger::{DiskFile, DiskStorage, LedgerError, Walk};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::ledger::{unreadable, Directory};
use crate::operator::output::grouped;
use serde_json::json;

/// Most differences that are listed for people.
const LISTED_MAX: usize = 50;
/// Entries between two progress lines.
const PROGRESS_ENTRIES: u64 = 10_000;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl accounting reconcile
  ronctl accounting reconcile --snapshot /tmp/ledger.snap
  ronctl accounting reconcile --entries --dir /var/lib/ron/ledger --counters /var/lib/ron/accounting
  ronctl accounting reconcile --repair

Credits less debits of each account and asset are held against the balances of a ledger snapshot, and the number of debits against the nonce: the
newest good snapshot of the ledger, or one that `ronctl ledger snapshot` has written. Entries between the snapshot and the last flush
are read from the ledger, so that both speak of the same entry. Where there is no snapshot, where the counters do not begin with the
first entry, and with --entries, every operation is counted again from the entries instead. A server may run meanwhile.

It ends with 0 if everything agrees, and with 1 if something differs, which is listed. With --repair the server then sets the counters aside
(set-aside-TIME in their directory), counts the whole ledger anew, and both are compared once more. The ledger is never changed.")]
pub struct Reconcile {
    #[command(flatten)]
    ledger: Directory,
    #[command(flatten)]
    counters: Counters,
    /// Snapshot to compare with; otherwise the newest good one of the ledger
    #[arg(long, value_name = "FILE", conflicts_with = "entries")]
    snapshot: Option<PathBuf>,
    /// Count every operation again from the entries
    #[arg(long)]
    entries: bool,
    /// If something differs, have the server count everything anew
    #[arg(long)]
    repair: bool,
}

/// What was compared, and what came of it.
struct Compared {
    stretch: Stretch,
    /// With what.
    with: String,
    differences: Vec<Difference>,
}

impl Reconcile {
    /// Compares, and repairs if that is asked for.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let first = self.compare(context);
        let differs = match &first {
            Ok(compared) => !compared.differences.is_empty(),
            // Counters that are damaged are repaired as well.
            Err(failure) => failure.next == REPAIR,
        };
        if !(self.repair && differs) {
            return self.tell(context, &first?, false);
        }
        match &first {
            Ok(compared) if !context.output.json => self.list(context, compared)?,
            Ok(_) => {}
            Err(failure) => context.output.hint(&failure.message),
        }
        until_counted(context, Action::Recount)?;
        self.tell(context, &self.compare(context)?, true)
    }

    fn compare(&self, context: &Context) -> Result<Compared, Failure> {
        let log = self.ledger.walk(context)?.log_id();
        let directory = self.counters.path(context, log)?;
        let (stretch, flows) = counted(&directory)?;
        if log.is_some_and(|log| log != stretch.log) {
            let message = format!("the counters in {} are of ledger {}", directory.display(), hex(&stretch.log.0));
            return Err(Failure::usage(message, "name those of this ledger with --counters DIR, or the ledger with --dir DIR"));
        }
        let snapshot = self.snapshot(context, stretch)?;
        // Listed anew: a segment may have begun since, and what has been counted is to be there.
        let walk = self.ledger.walk(context)?;
        let (with, differences) = match snapshot {
            Some(snapshot) => {
                let position = position_at(context, &snapshot, &walk, stretch.through)?;
                (format!("the snapshot {}", snapshot.place()), Position::of(&flows).differences(position))
            }
            None => {
                let mut right = Flows::default();
                read_entries(context, &walk, stretch.from, stretch.through, &mut |entry| right.add_entry(entry))?;
                ("the entries of the ledger".to_owned(), flows.differences(&right))
            }
        };
        Ok(Compared { stretch, with, differences })
    }

    /// The snapshot to compare with; `None` if it has to be the entries.
    fn snapshot(&self, context: &Context, stretch: Stretch) -> Result<Option<Snapshot<DiskFile>>, Failure> {
        if let Some(file) = &self.snapshot {
            if stretch.from > Seq(1) {
                let message = format!("the counters begin with entry {}, so a snapshot says nothing of them", stretch.from.0);
                return Err(Failure::usage(message, "compare with --entries"));
            }
            let (folder, name) = crate::operator::ledger::folder_and_name(file)?;
            let storage =
                DiskStorage::read_only(folder).map_err(LedgerError::io(folder.display().to_string(), "open the directory"));
            let opened = Snapshot::open(&storage.map_err(|fault| unreadable(&fault))?, name);
            let snapshot = opened
                .map_err(|fault| Failure::usage(fault.to_string(), "name one that `ronctl ledger snapshot` has written"))?;
            if snapshot.head().log_id != stretch.log {
                let message = format!("{} is of ledger {}", file.display(), hex(&snapshot.head().log_id.0));
                return Err(Failure::usage(message, format!("the counters are of ledger {}", hex(&stretch.log.0))));
            }
            return Ok(Some(snapshot));
        }
        if self.entries || stretch.from > Seq(1) {
            return Ok(None);
        }
        let storage = self.ledger.storage(context)?;
        newest_good(&storage, Some(stretch.log), Seq(u64::MAX)).map_err(|fault| Failure::internal(fault.to_string(), ""))
    }

    fn tell(&self, context: &Context, compared: &Compared, repaired: bool) -> Result<Exit, Failure> {
        let Compared { stretch, with, differences } = compared;
        if context.output.json {
            let listed: Vec<_> = differences
                .iter()
                .map(|found| {
                    json!({"account": found.account, "asset": found.asset, "what": found.what,
                        "counted": found.counted.to_string(), "ledger": found.right.to_string()})
                })
                .collect();
            context
                .output
                .value(&json!({"from": stretch.from.0, "through": stretch.through.0, "with": with, "repaired": repaired,
                "differences": listed}))?;
        } else {
            self.list(context, compared)?;
            let [from, through] = [stretch.from, stretch.through].map(|seq| grouped(u128::from(seq.0)));
            let verdict = match (differences.len(), repaired) {
                (0, false) => format!("the counters of entries {from} to {through} agree with {with}"),
                (0, true) => format!("counted anew: the counters of entries {from} to {through} agree with {with}"),
                (1, _) => format!("1 difference to {with}, through entry {through}"),
                (many, _) => format!("{many} differences to {with}, through entry {through}"),
            };
            context.output.line(&verdict)?;
            if !differences.is_empty() {
                context.output.hint("the ledger is right: `ronctl accounting reconcile --repair` counts everything anew");
            }
        }
        Ok(if differences.is_empty() { Exit::Done } else { Exit::No })
    }

    fn list(&self, context: &Context, compared: &Compared) -> Result<(), Failure> {
        let listed = compared.differences.iter().take(LISTED_MAX);
        let rows: Vec<_> = listed
            .map(|found| {
                let [counted, right] = [found.counted, found.right].map(|value| shown(value, &found.what));
                [found.account.clone(), found.asset.clone().unwrap_or_default(), found.what.clone(), counted, right]
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        table(context, &["account", "asset", "what", "counters", "ledger"], &rows)?;
        match compared.differences.len() - rows.len() {
            0 => Ok(()),
            more => context.output.line(&format!("and {more} more, which --json lists")),
        }
    }
}

/// A balance of counters that are wrong may lie below zero.
fn shown(value: u128, what: &str) -> String {
    match i128::try_from(value) {
        Err(_) if what == "balance" => format!("-{}", grouped(value.wrapping_neg())),
        Ok(_) | Err(_) => grouped(value),
    }
}

/// Where the ledger stands after this entry, from a snapshot that may be before or behind it.
fn position_at(context: &Context, snapshot: &Snapshot<DiskFile>, walk: &Walk<DiskStorage>, at: Seq) -> Result<Position, Failure> {
    let assets: Vec<String> = snapshot.front().assets.iter().map(|sums| sums.asset.to_string()).collect();
    let mut position = Position::default();
    let read = snapshot.for_each_account(&mut |state| {
        position.add_state(state, &assets);
        Ok(())
    });
    read.map_err(|fault| unreadable(&fault.into()))?;
    let taken = snapshot.head().seq;
    if taken < at {
        read_entries(context, walk, Seq(taken.0 + 1), at, &mut |entry| position.add_entry(entry))?;
    } else if at < taken {
        read_entries(context, walk, Seq(at.0 + 1), taken, &mut |entry| position.take_entry(entry))?;
    }
    Ok(position)
}

/// Hands over the entries `from` to `through`, all of which must be there.
fn read_entries(
    context: &Context,
    walk: &Walk<DiskStorage>,
    from: Seq,
    through: Seq,
    each: &mut dyn FnMut(&Entry<'_>),
) -> Result<(), Failure> {
    let mut last = Seq(from.0 - 1);
    let read = walk.from(from, &mut |batch| {
        batch.visit(|seq, entry| {
            if seq > through {
                return ControlFlow::Break(());
            }
            if seq >= from {
                each(&entry);
                last = seq;
                if seq.0 % PROGRESS_ENTRIES == 0 {
                    context.output.progress(&format!(
                        "entry {} of {}",
                        grouped(u128::from(seq.0)),
                        grouped(u128::from(through.0))
                    ));
                }
            }
            ControlFlow::Continue(())
        })
    });
    context.output.progress("");
    read.map_err(|fault| unreadable(&fault))?;
    if last < through {
        let message = format!("the ledger ends with entry {}, and entry {} has been counted", last.0, through.0);
        let next = "if the ledger was restored from an older copy, move the directory of the counters aside";
        return Err(Failure { exit: Exit::No, message, next: next.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_that_has_wrapped_is_shown_below_zero() {
        assert_eq!(shown(5, "balance"), "5");
        assert_eq!(shown(5u128.wrapping_neg(), "balance"), "-5");
        assert!(!shown(5u128.wrapping_neg(), "debits").starts_with('-'));
    }
}
