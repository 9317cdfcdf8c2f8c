//! `ronctl ledger verify`: replays a whole ledger and checks every promise it makes, without changing a byte.
//!
//! It may run beside a server. What it finds is either a ledger that keeps all its promises, or the first place where one is
//! broken, explained.
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::entry::{hex, Shown};
use super::Directory;
use crate::domain::{Entry, Seq};
use crate::ledger::{verify_directory, AccountBooks, LedgerError, Progress, Refuted, Report, Suspect};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{bar, grouped, Output, Style};

/// Time between two progress lines.
const PROGRESS_MS: u64 = 100;
/// Length of the bar, in characters.
const BAR_WIDTH: usize = 24;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger verify
  ronctl ledger verify --dir /var/lib/ron/ledger
  ronctl --json ledger verify | jq .ledger_root

Checked are the chain of hashes, the numbering of entries, the nonces of every account, that no balance was ever below zero,
and for each asset that what was issued and not burned is what the accounts hold; and that snapshots were taken where they say
and have the peaks of the history up to there. Nothing is written; a server may run
meanwhile. Ends with 0 if the ledger is whole, 1 if it is not.")]
pub struct Verify {
    #[command(flatten)]
    directory: Directory,
}

impl Verify {
    /// Replays and prints what was found.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let directory = self.directory.existing(context)?;
        let output = &context.output;
        let started = Instant::now();
        let mut next = Duration::ZERO;
        let verdict = verify_directory(&directory, &mut |progress| {
            let elapsed = started.elapsed();
            if elapsed >= next {
                next = elapsed + Duration::from_millis(PROGRESS_MS);
                output.progress(&progress_line(&progress, elapsed));
            }
        });
        output.progress("");
        match verdict {
            Ok(report) => whole(output, &report, started.elapsed()),
            Err(refuted) => broken(output, &refuted),
        }
    }
}

fn per_second(entries: u64, elapsed: Duration) -> u128 {
    u128::from(entries) * 1_000_000 / elapsed.as_micros().max(1)
}

fn progress_line(progress: &Progress, elapsed: Duration) -> String {
    let Progress { segment, segments, entries, bytes, bytes_all } = *progress;
    let left = u128::from(bytes_all.saturating_sub(bytes)) * elapsed.as_millis() / u128::from(bytes.max(1));
    let rate = grouped(per_second(entries, elapsed));
    format!(
        "{} {:>3}%  segment {segment} of {segments}, {} entries, {rate}/s, {} s left",
        bar(bytes, bytes_all, BAR_WIDTH),
        bytes * 100 / bytes_all.max(1),
        grouped(u128::from(entries)),
        left.div_ceil(1000)
    )
}

fn whole(output: &Output, report: &Report, elapsed: Duration) -> Result<Exit, Failure> {
    let torn = report.torn.as_ref();
    if output.json {
        let assets: Vec<Value> = report
            .assets
            .iter()
            .map(|totals| {
                json!({
                    "asset": totals.asset, "issued": totals.issued.to_string(), "burned": totals.burned.to_string(),
                    "balances": totals.balances.to_string(), "held": totals.held.to_string(),
                })
            })
            .collect();
        output.value(&json!({
            "whole": true, "entries": report.entries, "batches": report.batches, "segments": report.segments,
            "accounts": report.accounts, "head": report.head.0, "ledger_root": hex(&report.root), "root": hex(&report.root), "log_id": hex(&report.log_id.0),
            "epoch": report.epoch, "archived_through": report.archived_through.0, "assets": assets, "elapsed_ms": elapsed.as_millis() as u64,
            "entries_per_second": per_second(report.entries, elapsed) as u64,
            "torn": torn.map(|torn| json!({"file": torn.file, "offset": torn.offset, "bytes": torn.bytes})),
        }))?;
        return Ok(Exit::Done);
    }
    output.line(&output.paint(Style::Good, "The ledger is whole."))?;
    let rate = grouped(per_second(report.entries, elapsed));
    let mut rows = vec![
        ("entries", format!("{}, verified in {} ms, {rate}/s", grouped(u128::from(report.entries)), elapsed.as_millis())),
        ("batches", grouped(u128::from(report.batches))),
        ("segments", grouped(u128::from(report.segments))),
        ("accounts", grouped(u128::from(report.accounts))),
        ("ledger", format!("{}, epoch {}", hex(&report.log_id.0), report.epoch)),
        ("chain hash", hex(&report.root)),
    ];
    if report.archived_through > Seq(0) {
        let through = grouped(u128::from(report.archived_through.0));
        rows.push(("archived", format!("entries up to {through}: a snapshot stands in for them; it was read and adds up")));
    }
    rows.extend(report.assets.iter().map(|totals| {
        let [issued, burned, balances, held] = [totals.issued, totals.burned, totals.balances, totals.held].map(grouped);
        (totals.asset.as_str(), format!("issued {issued}, burned {burned}, on accounts {balances}, of it held {held}"))
    }));
    output.line(&output.fields(&rows))?;
    if let Some(torn) = torn {
        let remark = format!(
            "Behind the last entry are {} bytes of an interrupted write ({}, from byte {}). They were never acknowledged; the next \
             start of the server clears them away.",
            torn.bytes, torn.file, torn.offset
        );
        output.line(&output.paint(Style::Faint, &remark))?;
    }
    Ok(Exit::Done)
}

/// What is wrong and where, as far as the fault has a place.
struct Finding<'a> {
    kind: &'static str,
    file: &'a str,
    offset: Option<u64>,
    entry: Option<u64>,
    what: String,
    means: &'static str,
    next: &'static str,
    suspect: Option<&'a Suspect>,
}

fn broken(output: &Output, refuted: &Refuted) -> Result<Exit, Failure> {
    let finding = match &refuted.fault {
        LedgerError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            return Err(Failure::usage(refuted.fault.to_string(), "name the directory of the ledger with --dir"));
        }
        LedgerError::Io { .. }
        | LedgerError::InUse { .. }
        | LedgerError::Archived { .. }
        | LedgerError::Unreachable { .. }
        | LedgerError::Fenced { .. }
        | LedgerError::Declined { .. } => return Err(Failure::internal(refuted.fault.to_string(), "")),
        LedgerError::Uncovered { place, .. } => Finding {
            kind: "incomplete",
            file: place,
            offset: None,
            entry: None,
            what: refuted.fault.uncovered().unwrap_or_default(),
            means: "the ledger begins behind its first entry, and nothing that can be read says what came before",
            next: LedgerError::BRING_BACK,
            suspect: None,
        },
        LedgerError::Damaged { file, offset, expected, what } => Finding {
            kind: "damaged",
            file,
            offset: Some(*offset),
            entry: Some(expected.0),
            what: what.clone(),
            means: "these bytes are not what the server wrote there: disk, file system or a hand has changed them",
            next: "stop the server, keep a copy of the directory, and restore this file from a backup",
            suspect: None,
        },
        LedgerError::Broken { file, offset, seq, what } => Finding {
            kind: "inconsistent",
            file,
            offset: Some(*offset),
            entry: Some(seq.0),
            what: what.clone(),
            means: "the hashes are right, so the entry was written as it is, although the rules forbid it after what came before",
            next: "stop the server and keep a copy of the directory; report entry, accounts and version: this is a fault of the \
                   program that wrote it, and no backup mends it",
            suspect: refuted.suspect.as_deref(),
        },
        LedgerError::Unsupported { file, offset, version } => Finding {
            kind: "unsupported",
            file,
            offset: Some(*offset),
            entry: None,
            what: format!("format version {version}, which this program does not know"),
            means: "a newer server wrote it; that says nothing about whether it is whole",
            next: "verify with a version that is at least as new as the server that wrote it",
            suspect: None,
        },
        LedgerError::Incomplete { place, what } => Finding {
            kind: "incomplete",
            file: place,
            offset: None,
            entry: None,
            what: what.clone(),
            means: "a file that belongs to the ledger is not there, or one that is there does not belong to it",
            next: "check the directory, or restore it from a backup",
            suspect: None,
        },
    };
    show(output, &finding, refuted.entries)?;
    Ok(Exit::No)
}

fn show(output: &Output, finding: &Finding<'_>, verified: u64) -> Result<(), Failure> {
    if output.json {
        return output.value(&json!({
            "whole": false, "kind": finding.kind, "file": finding.file, "offset": finding.offset, "entry": finding.entry,
            "what": finding.what, "means": finding.means, "next": finding.next, "entries_in_whole_batches": verified,
            "suspect": finding.suspect.map(suspect_json),
        }));
    }
    output.line(&output.paint(Style::Bad, &format!("The ledger is {}.", finding.kind)))?;
    let mut rows = vec![("where", finding.file.to_owned())];
    rows.extend(finding.offset.map(|offset| ("at byte", offset.to_string())));
    rows.extend(finding.entry.map(|entry| {
        let before = match entry.saturating_sub(1) {
            0 => "nothing comes before it".to_owned(),
            last => format!("everything up to entry {} keeps its promises", grouped(u128::from(last))),
        };
        ("at entry", format!("{}; {before}", grouped(u128::from(entry))))
    }));
    rows.push(("what", finding.what.clone()));
    rows.push(("means", finding.means.to_owned()));
    rows.push(("next", finding.next.to_owned()));
    output.line(&output.fields(&rows))?;
    let Some(suspect) = finding.suspect else { return Ok(()) };
    output.line(&format!("\n{}", output.paint(Style::Strong, "The entry")))?;
    output.line(&output.fields(&shown(suspect).fields()))?;
    output.line(&format!("\n{}", output.paint(Style::Strong, "Its accounts before it")))?;
    let accounts: Vec<(&str, String)> =
        suspect.accounts.iter().map(|books| (books.account.as_str(), account_text(books))).collect();
    output.line(&output.fields(&accounts))
}

fn shown(suspect: &Suspect) -> Shown<'_> {
    let found = &suspect.found;
    Shown { log_id: suspect.log_id, seq: found.seq, root: &found.root, entry: Entry::parse_own(&found.entry).0 }
}

fn account_text(books: &AccountBooks) -> String {
    let values = books.values.iter().map(|(asset, value)| match value.held {
        0 => format!(", {} {asset}", value.free),
        held => format!(", {} {asset} free and {held} held", value.free),
    });
    format!("last nonce {}{}", books.last_nonce.0, values.collect::<String>())
}

fn suspect_json(suspect: &Suspect) -> Value {
    let accounts = suspect.accounts.iter().map(|books| {
        let values = books
            .values
            .iter()
            .map(|(asset, value)| json!({"asset": asset, "free": value.free.to_string(), "held": value.held.to_string()}));
        json!({"account": books.account, "last_nonce": books.last_nonce.0, "values": values.collect::<Vec<_>>()})
    });
    json!({"entry": shown(suspect).row(), "accounts_before": accounts.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Output = Output { json: true, colour: false, hints: false };

    #[test]
    fn each_fault_ends_with_the_code_that_belongs_to_it() {
        let file = || "000001.seg".to_owned();
        let io = |kind: ErrorKind| LedgerError::Io { place: "p".to_owned(), doing: "read", source: kind.into() };
        let answers = [
            LedgerError::Damaged { file: file(), offset: 4096, expected: Seq(7), what: "hash".to_owned() },
            LedgerError::Broken { file: file(), offset: 4096, seq: Seq(7), what: "nonce".to_owned() },
            LedgerError::Unsupported { file: file(), offset: 0, version: 9 },
            LedgerError::Incomplete { place: "p".to_owned(), what: "empty".to_owned() },
        ];
        for fault in answers {
            let told = fault.to_string();
            assert_eq!(broken(&QUIET, &fault.into()), Ok(Exit::No), "{told}");
        }
        assert_eq!(broken(&QUIET, &io(ErrorKind::NotFound).into()).unwrap_err().exit, Exit::Usage);
        assert_eq!(broken(&QUIET, &io(ErrorKind::PermissionDenied).into()).unwrap_err().exit, Exit::Internal);
    }

    #[test]
    fn rates_are_written_as_people_read_them() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
        assert_eq!(per_second(0, Duration::ZERO), 0);
    }

    #[test]
    fn progress_is_told_against_all_bytes_and_never_divides_by_nothing() {
        let progress = Progress { segment: 1, segments: 2, entries: 500, bytes: 25, bytes_all: 100 };
        let line = progress_line(&progress, Duration::from_secs(1));
        assert_eq!(line, "[######..................]  25%  segment 1 of 2, 500 entries, 500/s, 3 s left");
        let nothing = Progress { segment: 0, segments: 0, entries: 0, bytes: 0, bytes_all: 0 };
        assert!(progress_line(&nothing, Duration::ZERO).contains("  0%"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_usage_error() {
        let context = Context { output: QUIET, config: None };
        let failure = Verify { directory: Directory { dir: Some("/nonexistent/ledger".into()) } }.run(&context).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{failure}");
    }
}
