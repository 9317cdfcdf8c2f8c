//! `ronctl ledger verify`: replays a whole ledger and checks every promise it makes, without changing a byte.
//!
//! It may run beside a server. What it finds is either a ledger that keeps all its promises, or the first place where one is
//! broken, explained.
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::entry::Shown;
use super::Directory;
use crate::domain::{hex, Entry, Found, Seq};
use crate::ledger::{
    AccountBooks, Elsewhere, Extent, LedgerError, Progress, Refuted, Report, Rest, Start, Suspect, Verification, KEYS_TTL,
};
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

  ronctl ledger verify --keys-ttl 1h

Checked are the chain of hashes, the numbering of entries, the nonces of every account, that no idempotency key was used twice
while it is remembered, that no balance was ever below zero, and for each asset that what was issued and not burned is what the
accounts hold; and that snapshots were taken where they say and have accounts, sums under budgets and peaks of the history as they were
there. All segments that are here are read; if the first ones are gone, balances begin with the oldest snapshot. The first thing that is wrong ends this; then each
segment behind it is read by itself, and all are named whose own hashes do not hold. Said is also what a start of the server would
do, and what is not as it should be and harms no entry, such as a damaged index. Nothing is written; a server may run meanwhile.
Ends with 0 if the ledger is whole, 1 if it is not.")]
pub struct Verify {
    #[command(flatten)]
    directory: Directory,
    /// How long the wallet remembered idempotency keys, 0s to leave them out; otherwise idempotency.ttl of the configuration, or 24h if
    /// there is none
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keys_ttl: Option<Duration>,
}

impl Verify {
    /// Replays and prints what was found.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let directory = self.directory.existing(context)?;
        let output = &context.output;
        let started = Instant::now();
        let mut next = Duration::ZERO;
        let keys_ttl = match self.keys_ttl {
            Some(ttl) => ttl,
            None => self.directory.setting(context, KEYS_TTL, |config| config.idempotency.ttl)?,
        };
        let verdict = Verification::of_keys(keys_ttl).directory(&directory, &mut |progress| {
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
    let Progress { segment, segments, entries, bytes, bytes_all, again } = *progress;
    if again {
        let bar = bar(bytes, bytes_all, BAR_WIDTH);
        return format!("{bar} {:>3}%  segment {segment} of {segments} once more, for its keys", bytes * 100 / bytes_all.max(1));
    }
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
    if output.json {
        output.value(&whole_json(report, elapsed))?;
        return Ok(Exit::Done);
    }
    output.line(&output.paint(Style::Good, "The ledger is whole."))?;
    let count = |number: u64| grouped(u128::from(number));
    let rate = grouped(per_second(report.here.entries, elapsed));
    let mut rows = vec![
        ("entries", format!("{}, verified in {} ms, {rate}/s", count(report.here.entries), elapsed.as_millis())),
        ("batches", count(report.here.batches)),
        ("segments", count(report.here.segments)),
        ("accounts", count(report.accounts)),
        ("ledger", format!("{}, epoch {}", hex(&report.log_id.0), report.epoch)),
        ("chain hash", hex(&report.root)),
    ];
    if report.books_from > Seq(0) {
        let Extent { segments, batches, entries } = report.ever;
        let [gone, first, from] = [report.archived_through.0, report.archived_through.0 + 1, report.books_from.0].map(count);
        rows[0].1 += &match report.here.entries {
            0 => format!(": the next one is {first}"),
            _ => format!(": {first} to {}", count(report.head.0)),
        };
        rows[2].1 += &format!(": {} to {segments}", report.first_segment);
        let all = format!("{} entries, {} batches, {} segments", count(entries), count(batches), count(segments));
        rows.push(("in all", format!("{all}; what is not here is in an archive, or was left behind by a restore")));
        rows.push(("not here", format!("entries 1 to {gone}: the snapshot after entry {from} stands in for them; it adds up")));
        if report.books_from > report.archived_through {
            let checked = "hashes, order, nonces and keys are right; balances are checked from that snapshot on";
            rows.push(("before it", format!("entries {first} to {from} are here: {checked}")));
        }
    }
    rows.extend(report.assets.iter().map(|totals| {
        let [issued, burned, balances, held] = [totals.issued, totals.burned, totals.balances, totals.held].map(grouped);
        (totals.asset.as_str(), format!("issued {issued}, burned {burned}, on accounts {balances}, of it held {held}"))
    }));
    rows.push(("a start", start_text(&report.start)));
    output.line(&output.fields(&rows))?;
    if let Some(torn) = &report.torn {
        let remark = format!(
            "Behind the last entry are {} bytes of an interrupted write ({}, from byte {}). They were never acknowledged; the next \
             start of the server clears them away.",
            torn.bytes, torn.file, torn.offset
        );
        output.line(&output.paint(Style::Faint, &remark))?;
    }
    for remark in &report.remarks {
        output.line(&format!("\n{}", output.paint(Style::Strong, "Not as it should be, and no entry is lost by it")))?;
        output.line(&output.fields(&[
            ("where", remark.file.clone()),
            ("what", remark.what.clone()),
            ("next", remark.next.to_owned()),
        ]))?;
    }
    Ok(Exit::Done)
}

fn whole_json(report: &Report, elapsed: Duration) -> Value {
    let assets = report.assets.iter().map(|totals| {
        json!({
            "asset": totals.asset, "issued": totals.issued.to_string(), "burned": totals.burned.to_string(),
            "balances": totals.balances.to_string(), "held": totals.held.to_string(),
        })
    });
    let remarks = report.remarks.iter().map(|remark| json!({"file": remark.file, "what": remark.what, "next": remark.next}));
    let Extent { segments, batches, entries } = report.here;
    json!({
        "whole": true, "entries": entries, "batches": batches, "segments": segments, "first_segment": report.first_segment,
        "ever": {"entries": report.ever.entries, "batches": report.ever.batches, "segments": report.ever.segments},
        "accounts": report.accounts, "head": report.head.0, "ledger_root": hex(&report.root), "root": hex(&report.root), "log_id": hex(&report.log_id.0),
        "epoch": report.epoch, "archived_through": report.archived_through.0, "books_from": report.books_from.0,
        "assets": assets.collect::<Vec<_>>(), "elapsed_ms": elapsed.as_millis() as u64,
        "entries_per_second": per_second(entries, elapsed) as u64, "start": start_json(&report.start),
        "torn": report.torn.as_ref().map(|torn| json!({"file": torn.file, "offset": torn.offset, "bytes": torn.bytes})),
        "remarks": remarks.collect::<Vec<_>>(),
    })
}

/// What a start of the server would do, in words.
fn start_text(start: &Start) -> String {
    match start {
        Start::Serves { snapshot: None, entries } => format!("reads all {} entries and serves", grouped(u128::from(*entries))),
        Start::Serves { snapshot: Some(seq), entries } => {
            let [seq, entries] = [seq.0, *entries].map(|number| grouped(u128::from(number)));
            format!("begins with the snapshot after entry {seq}, reads the {entries} entries behind it, and serves")
        }
        Start::Refuses(why) => format!("refuses: {why}"),
    }
}

fn start_json(start: &Start) -> Value {
    match start {
        Start::Serves { snapshot, entries } => json!({"serves": true, "snapshot": snapshot.map(|seq| seq.0), "entries": entries}),
        Start::Refuses(why) => json!({"serves": false, "why": why}),
    }
}

/// What to do about an entry that breaks a rule.
const BROKEN_NEXT: &str =
    "stop the server and keep a copy of the directory; report entry, accounts and version: this is a fault of the \
                           program that wrote it, and no backup mends it";
/// The same if it is its key.
const KEY_NEXT: &str =
    "if idempotency.ttl was shorter when this was written, name it with --keys-ttl; if a server ran without the older \
                        segments then, after a restore or with them in an archive, its log says `keys_unknown` and it could not \
                        know the key; otherwise keep a copy of the directory and report both entries and the version: this is a fault of the program that wrote it. Whoever \
                        asked twice has got it twice; take one back with a transfer or a burn";

/// What is wrong and where, as far as the fault has a place.
struct Finding<'a> {
    kind: &'static str,
    file: &'a str,
    offset: Option<u64>,
    entry: Option<u64>,
    what: String,
    means: &'static str,
    next: &'a str,
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
        LedgerError::Mendable { place, missing, what, next } => Finding {
            kind: if *missing { "incomplete" } else { "damaged" },
            file: place,
            offset: None,
            entry: None,
            what: what.to_string(),
            means: match missing {
                true => "a file that belongs to the ledger is not there",
                false => "this file is not what it should be; no entry is in it, and none is lost by it",
            },
            next,
            suspect: None,
        },
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
            entry: Some(expected.0).filter(|entry| *entry > 0),
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
            next: match refuted.suspect.as_deref().and_then(|suspect| suspect.repeats) {
                None => BROKEN_NEXT,
                Some(_) => KEY_NEXT,
            },
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
    show(output, &finding, refuted)?;
    Ok(Exit::No)
}

fn show(output: &Output, finding: &Finding<'_>, refuted: &Refuted) -> Result<(), Failure> {
    if output.json {
        return output.value(&json!({
            "whole": false, "kind": finding.kind, "file": finding.file, "offset": finding.offset, "entry": finding.entry,
            "what": finding.what, "means": finding.means, "next": finding.next, "entries_in_whole_batches": refuted.entries,
            "suspect": finding.suspect.map(suspect_json), "start": refuted.start.as_ref().map(start_json), "rest": rest_json(&refuted.rest),
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
    rows.extend(refuted.start.as_ref().map(|start| ("a start", refused_text(start, &refuted.fault))));
    rows.push(("next", finding.next.to_owned()));
    rows.extend(refuted.rest.unverified.map(|_| ("the rest", rest_text(&refuted.rest))));
    output.line(&output.fields(&rows))?;
    for Elsewhere { file, what } in &refuted.rest.faults {
        output.line(&format!("\n{}", output.paint(Style::Bad, "Damaged as well")))?;
        output.line(&output.fields(&[("where", file.clone()), ("what", what.clone())]))?;
    }
    let Some(suspect) = finding.suspect else { return Ok(()) };
    output.line(&format!("\n{}", output.paint(Style::Strong, "The entry")))?;
    output.line(&output.fields(&shown(suspect, &suspect.found).fields()))?;
    if let Some(earlier) = &suspect.earlier {
        output.line(&format!("\n{}", output.paint(Style::Strong, "The entry that had used its key")))?;
        output.line(&output.fields(&shown(suspect, earlier).fields()))?;
    }
    if suspect.accounts.is_empty() {
        return Ok(());
    }
    output.line(&format!("\n{}", output.paint(Style::Strong, "Its accounts before it")))?;
    let accounts: Vec<(&str, String)> =
        suspect.accounts.iter().map(|books| (books.account.as_str(), account_text(books))).collect();
    output.line(&output.fields(&accounts))
}

/// What can be said of the segments behind the fault.
fn rest_text(rest: &Rest) -> String {
    let apart = match (rest.apart, rest.faults.len()) {
        (0, _) => return "was not looked at: it stopped here".to_owned(),
        (1, _) => "1 segment was read by itself".to_owned(),
        (apart, _) => format!("{} segments were read, each by itself", grouped(u128::from(apart))),
    };
    let found = if rest.faults.is_empty() { "its hashes are right" } else { "what is damaged there is below" };
    format!("was not verified: it stopped here. {apart}: {found}; balances, nonces and keys were not checked")
}

fn rest_json(rest: &Rest) -> Value {
    let faults = rest.faults.iter().map(|fault| json!({"file": fault.file, "what": fault.what}));
    json!({"unverified_from_segment": rest.unverified, "read_apart": rest.apart, "damaged": faults.collect::<Vec<_>>()})
}

/// The same beside a fault, which need not be said twice.
fn refused_text(start: &Start, fault: &LedgerError) -> String {
    match (start, fault) {
        (Start::Refuses(why), _) if **why == *fault.to_string() => "refuses for this reason; nothing is changed by it".to_owned(),
        (Start::Serves { .. }, LedgerError::Damaged { .. }) => {
            format!("{}; what is damaged is refused by its hash, never served", start_text(start))
        }
        _ => start_text(start),
    }
}

fn shown<'a>(suspect: &Suspect, found: &'a Found) -> Shown<'a> {
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
    json!({
        "entry": shown(suspect, &suspect.found).row(), "accounts_before": accounts.collect::<Vec<_>>(),
        "repeats": suspect.repeats.map(|seq| seq.0), "earlier": suspect.earlier.as_ref().map(|found| shown(suspect, found).row()),
    })
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
        let progress = Progress { segment: 1, segments: 2, entries: 500, bytes: 25, bytes_all: 100, again: false };
        let line = progress_line(&progress, Duration::from_secs(1));
        assert_eq!(line, "[######..................]  25%  segment 1 of 2, 500 entries, 500/s, 3 s left");
        let again = progress_line(&Progress { again: true, ..progress }, Duration::from_secs(1));
        assert!(again.contains(" 25%  segment 1 of 2 once more"), "{again}");
        let nothing = Progress { segment: 0, segments: 0, entries: 0, bytes: 0, bytes_all: 0, again: false };
        assert!(progress_line(&nothing, Duration::ZERO).contains("  0%"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_usage_error() {
        let context = Context { output: QUIET, config: None };
        let failure = Verify { directory: Directory { dir: Some("/nonexistent/ledger".into()) }, keys_ttl: None }
            .run(&context)
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{failure}");
    }
}
