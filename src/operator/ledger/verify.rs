//! `ronctl ledger verify`: replays a whole ledger and checks every promise it makes, without changing a byte.
//!
//! It may run beside a server. What it finds is either a ledger that keeps all its promises, or the first place where one is
//! broken, explained.
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::config::LedgerDep;
use crate::ledger::{verify_directory, LedgerError, Report};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, Output, Style};

/// Time between two progress lines.
const PROGRESS_MS: u64 = 100;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger verify
  ronctl ledger verify --dir /var/lib/ron/ledger
  ronctl --json ledger verify | jq .root

Checked are the chain of hashes, the numbering of entries, the nonces of every account, that no balance was ever below zero,
and for each asset that what was issued and not burned is what the accounts hold. Nothing is written; a server may run
meanwhile. Ends with 0 if the ledger is whole, 1 if it is not.")]
pub struct Verify {
    /// Directory of the ledger; otherwise that of the configuration
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Verify {
    /// Replays and prints what was found.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let directory = self.directory(context)?;
        let output = &context.output;
        let started = Instant::now();
        let mut next = Duration::ZERO;
        let verdict = verify_directory(&directory, &mut |progress| {
            let elapsed = started.elapsed();
            if elapsed >= next {
                next = elapsed + Duration::from_millis(PROGRESS_MS);
                let entries = grouped(u128::from(progress.entries));
                let rate = grouped(per_second(progress.entries, elapsed));
                output.progress(&format!("segment {} of {}, {entries} entries, {rate}/s", progress.segment, progress.segments));
            }
        });
        output.progress("");
        match verdict {
            Ok(report) => whole(output, &report, started.elapsed()),
            Err(fault) => broken(output, &fault),
        }
    }

    fn directory(&self, context: &Context) -> Result<PathBuf, Failure> {
        if let Some(directory) = &self.dir {
            return Ok(directory.clone());
        }
        match context.config()?.deps.ledger {
            LedgerDep::Embedded(directory) => Ok(directory),
            LedgerDep::Unix(socket) => Err(Failure::usage(
                format!("the configured ledger is a daemon behind {}, whose directory is not known here", socket.display()),
                "name its directory: ronctl ledger verify --dir DIR",
            )),
        }
    }
}

fn per_second(entries: u64, elapsed: Duration) -> u128 {
    u128::from(entries) * 1_000_000 / elapsed.as_micros().max(1)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
            "accounts": report.accounts, "head": report.head.0, "root": hex(&report.root), "log_id": hex(&report.log_id.0),
            "epoch": report.epoch, "assets": assets, "elapsed_ms": elapsed.as_millis() as u64,
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
        ("root", hex(&report.root)),
    ];
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
    next: &'static str,
}

fn broken(output: &Output, fault: &LedgerError) -> Result<Exit, Failure> {
    let finding = match fault {
        LedgerError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            return Err(Failure::usage(fault.to_string(), "name the directory of the ledger with --dir"));
        }
        LedgerError::Io { .. } | LedgerError::InUse { .. } => return Err(Failure::internal(fault.to_string(), "")),
        LedgerError::Damaged { file, offset, expected, what } => Finding {
            kind: "damaged",
            file,
            offset: Some(*offset),
            entry: Some(expected.0),
            what: what.clone(),
            next: "stop the server, keep a copy of the directory, and restore this file from a backup",
        },
        LedgerError::Broken { file, offset, seq, what } => Finding {
            kind: "inconsistent",
            file,
            offset: Some(*offset),
            entry: Some(seq.0),
            what: what.clone(),
            next: "stop the server and keep a copy of the directory: the bytes are intact, so this was written as it is",
        },
        LedgerError::Unsupported { file, offset, version } => Finding {
            kind: "unsupported",
            file,
            offset: Some(*offset),
            entry: None,
            what: format!("format version {version}, which this program does not know"),
            next: "verify with a version that is at least as new as the server that wrote it",
        },
        LedgerError::Incomplete { place, what } => Finding {
            kind: "incomplete",
            file: place,
            offset: None,
            entry: None,
            what: what.clone(),
            next: "check the directory, or restore it from a backup",
        },
    };
    show(output, &finding)?;
    Ok(Exit::No)
}

fn show(output: &Output, finding: &Finding<'_>) -> Result<(), Failure> {
    if output.json {
        return output.value(&json!({
            "whole": false, "kind": finding.kind, "file": finding.file, "offset": finding.offset, "entry": finding.entry,
            "what": finding.what, "next": finding.next,
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
    rows.push(("next", finding.next.to_owned()));
    output.line(&output.fields(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Seq;

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
        for fault in &answers {
            assert_eq!(broken(&QUIET, fault), Ok(Exit::No), "{fault}");
        }
        assert_eq!(broken(&QUIET, &io(ErrorKind::NotFound)).unwrap_err().exit, Exit::Usage);
        assert_eq!(broken(&QUIET, &io(ErrorKind::PermissionDenied)).unwrap_err().exit, Exit::Internal);
    }

    #[test]
    fn rates_and_hashes_are_written_as_people_read_them() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
        assert_eq!(per_second(0, Duration::ZERO), 0);
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_usage_error() {
        let context = Context { output: QUIET, config: None };
        let failure = Verify { dir: Some(PathBuf::from("/nonexistent/ledger")) }.run(&context).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{failure}");
    }
}
