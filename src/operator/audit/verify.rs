//! `ronctl audit verify`: every line of a stream by its hash and its rules, and its accepted operations against the ledger.
//!
//! It may run beside a server: the stream is read first and the ledger afterwards, so that what came meanwhile only shows as behind.
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{json, Map, Value};

use super::{unreadable, Place};
use crate::access::{WrittenSignature, AUDIT_CHECKPOINT};
use crate::audit::{verify, Anchored, CheckSignature, Compared, Comparison, Damage, Expected, Hash, Report};
use crate::domain::{bytes_of_hex, hex, Seq};
use crate::ledger::{DiskStorage, Walk};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::ledger::{unreadable as unreadable_ledger, Directory};
use crate::operator::output::{bar, grouped, Output, Style};
use crate::operator::public_keys::{PublicKeys, Trust};

/// Time between two progress lines.
const PROGRESS_MS: u64 = 100;
/// Length of the bar, in characters.
const BAR_WIDTH: usize = 24;
/// Entries between two looks at the clock.
const LOOK_ENTRIES: u64 = 4096;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl audit verify
  ronctl audit verify --up-to-date
  ronctl --json audit verify | jq .ledger.equal
  ronctl audit verify --dir /var/lib/ron/audit --ledger /var/lib/ron/ledger
  ronctl audit verify --dir ./audit.copy --no-ledger
  ronctl audit verify --keys public-keys.json
  ronctl audit verify --keys public-keys.json --expect hybrid=on
  ronctl audit verify --keys public-keys.json --at-least 1412:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Checked are the chain of hashes over all lines and files, the numbering, that files and checkpoints say what stands before them, and that the
accepted operations follow the ledger without a gap; then each of them is compared with its entry in the ledger, byte for byte.

With --keys the signatures of checkpoints are checked too: each checkpoint has to be signed, and the newest with --expect hybrid=on by a hybrid
key. For a stream that began under a version that signed none, --signed-from says from which line on. Whoever can write the files can still cut
them back to an earlier checkpoint while no server runs: note the anchor that this prints where they cannot write, and give it to the next check
as --at-least. Nothing is written; a server may run meanwhile. Ends with 0 if everything is as it was written, 1 if it is not.")]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// Directory of the ledger; otherwise that of the configuration, or of the daemon behind its socket
    #[arg(long, value_name = "DIR", conflicts_with = "no_ledger")]
    ledger: Option<PathBuf>,
    /// Check the stream alone
    #[arg(long)]
    no_ledger: bool,
    /// Also say no if the ledger has entries that the stream has not come to
    #[arg(long, conflicts_with = "no_ledger")]
    up_to_date: bool,
    /// Let entries be left out of the stream that the ledger has: they were in an archive when the stream came to them, and were put back
    #[arg(long, conflicts_with = "no_ledger")]
    gaps_allowed: bool,
    #[command(flatten)]
    trust: Trust,
    /// Checkpoints before this line need no signature
    #[arg(long, value_name = "LINE", requires = "keys")]
    signed_from: Option<u64>,
    /// Say no unless the stream still has this line with this hash: the anchor of an earlier check
    #[arg(long, value_name = "LINE:HASH", value_parser = anchor)]
    at_least: Option<(u64, Hash)>,
}

/// A line and its hash, as the anchor of a check is printed.
fn anchor(text: &str) -> Result<(u64, Hash), String> {
    let read = text.split_once(':').and_then(|(line, hash)| Some((line.parse().ok()?, bytes_of_hex(hash)?)));
    read.ok_or_else(|| "write the number of a line, a colon, and its hash in hex".to_owned())
}

/// What came of it.
struct Verdict {
    report: Report,
    compared: Option<Compared>,
    /// Whether signatures were checked.
    checked: bool,
    gaps_allowed: bool,
    took: Duration,
}

impl Verify {
    /// Checks and prints what was found.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let keys = self.trust.read()?;
        let storage = self.place.storage(context)?;
        let (output, began) = (&context.output, Instant::now());
        let mut meter = Meter { output, next: Duration::ZERO, began };
        let mut check = |signed: &[u8], signature: &Map<String, Value>| match &keys {
            Some(keys) => fits(keys, signed, signature),
            None => Ok(true),
        };
        let check = keys.is_some().then_some(&mut check as CheckSignature<'_>);
        let expected = Expected { check, signed_from: self.signed_from.unwrap_or(0), anchor: self.at_least };
        let report = verify(&storage, expected, &mut |progress| {
            let (done, all) = progress.bytes;
            meter.tell(done, all, || format!("line {}", grouped(u128::from(progress.lines))));
        });
        output.progress("");
        let report = report.map_err(|fault| unreadable(&storage, &fault))?;
        let compared = match self.no_ledger {
            true => None,
            false => Some(self.compare(context, &storage, &report, &mut meter)?),
        };
        output.progress("");
        let (checked, gaps_allowed) = (keys.is_some(), self.gaps_allowed);
        let verdict = Verdict { report, compared, checked, gaps_allowed, took: began.elapsed() };
        let good = verdict.is_good(self.up_to_date);
        if output.json {
            output.value(&verdict.json(good))?;
        } else {
            verdict.print(output, good)?;
        }
        Ok(if good { Exit::Done } else { Exit::No })
    }

    fn compare(
        &self,
        context: &Context,
        storage: &DiskStorage,
        report: &Report,
        meter: &mut Meter<'_>,
    ) -> Result<Compared, Failure> {
        let walk: Walk<DiskStorage> = Directory { dir: self.ledger.clone() }.walk(context)?;
        let log = walk.log_id();
        if let (Some(stream), Some(log)) = (report.log, log.filter(|log| report.log.is_some_and(|stream| stream != *log))) {
            let what = format!("the stream belongs to ledger {}, and this is {}", hex(&stream.0), hex(&log.0));
            return Err(Failure::usage(what, "name the directory of its ledger with --ledger"));
        }
        let Some(log) = log else {
            return Err(Failure::usage("the ledger has no header that can be read", "run ronctl ledger verify"));
        };
        let first =
            walk.segments().first().and_then(|segment| segment.header.as_ref().ok()).map_or(Seq(1), |header| header.first_seq);
        let from = Seq(report.entries.0 .0 + 1).max(first);
        let mut comparison = Comparison::new(storage.clone(), log, report);
        let mut failed = None;
        let end = walk.from(from, &mut |batch| {
            batch.visit(|seq, entry| {
                if seq < from {
                    return ControlFlow::Continue(());
                }
                if seq.0 % LOOK_ENTRIES == 0 {
                    meter.tell(seq.0, report.entries.1 .0, || format!("entry {} of the ledger", grouped(u128::from(seq.0))));
                }
                match comparison.entry(seq, &entry) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(fault) => {
                        failed = Some(fault);
                        ControlFlow::Break(())
                    }
                }
            })
        });
        if let Some(fault) = failed {
            return Err(unreadable(storage, &fault));
        }
        let end = end.map_err(|fault| unreadable_ledger(&fault))?;
        let mut compared = comparison.end();
        if let Some(surplus) = report.entries.1 .0.checked_sub(end.head.0).filter(|surplus| *surplus > 0) {
            let what =
                format!("the ledger ends with entry {}, and the stream has come to entry {}", end.head.0, report.entries.1 .0);
            compared.differing += surplus;
            compared.differences.push(what);
        }
        Ok(compared)
    }
}

/// Whether a signature of a checkpoint is that of what is signed, and proves it.
fn fits(keys: &PublicKeys, signed: &[u8], signature: &Map<String, Value>) -> Result<bool, String> {
    let read = WrittenSignature::deserialize(signature);
    let signature = read.map_err(|fault| format!("what stands there is no signature: {fault}"))?;
    keys.check(&signature, |key| signature.verify(key, AUDIT_CHECKPOINT, signed))
}

impl Verdict {
    fn is_good(&self, up_to_date: bool) -> bool {
        let says_it = |found: &Compared| found.differing == 0 && (self.gaps_allowed || found.left_out == 0);
        let ledger = self.compared.as_ref().map_or(true, |found| says_it(found) && (!up_to_date || found.behind == 0));
        self.report.is_whole() && ledger && self.is_signed() && self.is_anchored()
    }

    /// Whether every checkpoint that has to have a signature has one, every signature fits, and that of the newest proves it; true if
    /// nobody asked.
    fn is_signed(&self) -> bool {
        let signatures = &self.report.signatures;
        let is_proven = signatures.last.is_some() && signatures.last == self.report.checkpoint;
        !self.checked || signatures.bad == 0 && signatures.lacking.is_none() && is_proven
    }

    /// Whether the line that was seen earlier is still there; true if none was named.
    fn is_anchored(&self) -> bool {
        matches!(self.report.anchored, Anchored::Unasked | Anchored::Kept)
    }

    /// The line and hash that a later check can be given.
    fn anchor(&self) -> Option<String> {
        self.report.settled.map(|(line, hash)| format!("{line}:{}", hex(&hash)))
    }

    fn json(&self, good: bool) -> Value {
        let Self { report, compared, checked, took, .. } = self;
        let signatures = &report.signatures;
        let anchored = match report.anchored {
            Anchored::Unasked => Value::Null,
            Anchored::Kept => json!("kept"),
            Anchored::Other => json!("other"),
            Anchored::Missing => json!("missing"),
            Anchored::Removed => json!("removed"),
        };
        let pair = |(one, other): (Seq, Seq)| json!([one.0, other.0]);
        let damage = |damage: &Damage| json!({"file": damage.file, "offset": damage.offset, "what": damage.what});
        json!({
            "good": good, "whole": report.is_whole(), "files": report.files, "first_line": report.lines.0, "last_line": report.lines.1,
            "log_id": report.log.map(|log| hex(&log.0)), "head": hex(&report.head),
            "anchor": self.anchor(), "anchored": anchored,
            "accepted": report.totals.accepted, "refused": report.totals.refused, "dropped": report.totals.dropped,
            "accepted_here": report.accepted_here, "begins_behind": report.entries.0 .0, "through": report.entries.1 .0,
            "checkpoint": report.checkpoint.map(|(line, through)| json!({"line": line, "through": through.0})),
            "signatures": {
                "checked": checked, "signed": signatures.signed, "unsigned": signatures.unsigned, "bad": checked.then_some(signatures.bad),
                "last": signatures.last.map(|(line, through)| json!({"line": line, "through": through.0})),
                "lacking": signatures.lacking.as_ref().map(|(first, last)| json!({"first": damage(first), "last_line": last})),
                "bad_ones": signatures.bad_ones.iter().map(damage).collect::<Value>(),
            },
            "gaps": report.gaps.iter().copied().map(pair).collect::<Value>(),
            "rewinds": report.rewinds.iter().map(|(line, to)| json!({"line": line, "to": to.0})).collect::<Value>(),
            "torn": report.torn.as_ref().map(|(file, offset, bytes)| json!({"file": file, "offset": offset, "bytes": bytes})),
            "damages": report.damages.iter().map(damage).collect::<Value>(),
            "ledger": compared.as_ref().map(|found| json!({
                "equal": found.equal, "first": found.first.0, "behind": found.behind, "differing": found.differing,
                "differences": found.differences, "left_out": found.left_out, "first_left_out": found.first_left_out.0,
            })),
            "elapsed_ms": took.as_millis() as u64,
        })
    }

    fn print(&self, output: &Output, good: bool) -> Result<(), Failure> {
        let Self { report, compared, checked, took, gaps_allowed } = self;
        let count = |number: u64| grouped(u128::from(number));
        let (style, said) = match (good, report.is_whole()) {
            (true, _) if *checked => (Style::Good, "The audit stream is whole and signed."),
            (true, _) => (Style::Good, "The audit stream is whole."),
            (false, true) if !self.is_signed() => (Style::Bad, "The audit stream is not signed as it should be."),
            (false, true) if !self.is_anchored() => (Style::Bad, "The audit stream is not the one that was checked before."),
            (false, true) => (Style::Bad, "The audit stream is whole, and the ledger says something else."),
            (false, false) => (Style::Bad, "The audit stream is damaged."),
        };
        output.line(&output.paint(style, said))?;
        let lines = report.lines.1 - report.lines.0.saturating_sub(1).min(report.lines.1);
        let mut rows = vec![("lines", format!("{} in {} files, read in {} ms", count(lines), report.files, took.as_millis()))];
        if report.lines.0 > 1 {
            rows.push(("not here", format!("lines before {}: their files were removed", count(report.lines.0))));
        }
        let totals = report.totals;
        rows.push(("accepted", format!("{}, up to entry {} of the ledger", count(totals.accepted), count(report.entries.1 .0))));
        rows.push(("refused", count(totals.refused)));
        rows.push(("dropped", count(totals.dropped)));
        rows.push(("last hash", hex(&report.head)));
        rows.extend(self.anchor().map(|anchor| ("anchor", anchor)));
        rows.extend(report.checkpoint.map(|(line, _)| ("checkpoint", format!("line {}", count(line)))));
        rows.push(("signatures", self.signatures()));
        rows.extend(report.gaps.iter().map(|(from, to)| ("left out", format!("entries {} to {}: in an archive", from.0, to.0))));
        rows.extend(
            report
                .rewinds
                .iter()
                .map(|(line, to)| ("restored", format!("the ledger went back to entry {} at line {line}", to.0))),
        );
        if let Some(found) = compared {
            let from = if found.first == Seq(0) { String::new() } else { format!(", from entry {} on", count(found.first.0)) };
            rows.push(("as in the ledger", format!("{} operations{from}", count(found.equal))));
            rows.push(("behind it", format!("{} entries", count(found.behind))));
            if found.left_out > 0 && *gaps_allowed {
                rows.push(("left out and here", format!("{} entries", count(found.left_out))));
            }
        }
        output.line(&output.fields(&rows))?;
        if let Some((file, offset, bytes)) = &report.torn {
            let remark =
                format!("Behind the last line are {bytes} bytes of an interrupted write, or of one that goes on ({file}, from byte {offset}).");
            output.line(&output.paint(Style::Faint, &remark))?;
        }
        for Damage { file, offset, what } in &report.damages {
            output.line(&format!("\n{}", output.paint(Style::Bad, "Not as it was written")))?;
            output.line(&output.fields(&[("where", format!("{file}, byte {offset}")), ("what", what.clone())]))?;
        }
        for Damage { file, offset, what } in &report.signatures.bad_ones {
            output.line(&format!("\n{}", output.paint(Style::Bad, "Not as it was signed")))?;
            output.line(&output.fields(&[("where", format!("{file}, byte {offset}")), ("what", what.clone())]))?;
        }
        if let Some((first, last)) = self.report.signatures.lacking.as_ref().filter(|_| *checked) {
            output.line(&format!("\n{}", output.paint(Style::Bad, "Not signed")))?;
            let remedy = format!(
                "if an earlier version wrote that far, check with --signed-from {}; else somebody has taken signatures away",
                last + 1
            );
            let rows = [
                ("where", format!("{}, byte {}", first.file, first.offset)),
                ("what", format!("{}; the last such line is {last}", first.what)),
                ("what to do", remedy),
            ];
            output.line(&output.fields(&rows))?;
        }
        if let Some(what) = self.unanchored() {
            output.line(&format!("\n{}\n{what}", output.paint(Style::Bad, "Not as it was checked before")))?;
        }
        if let Some(found) = compared.as_ref().filter(|found| found.left_out > 0 && !gaps_allowed) {
            let what = format!(
                "a gap of the stream leaves out {} entries that the ledger has, from entry {} on; if they were in an archive when the stream \
                 came to them, and were put back, check with --gaps-allowed",
                count(found.left_out),
                found.first_left_out.0
            );
            output.line(&format!("\n{}\n{what}", output.paint(Style::Bad, "Not as in the ledger")))?;
        }
        for what in compared.iter().flat_map(|found| &found.differences) {
            output.line(&format!("\n{}\n{what}", output.paint(Style::Bad, "Not as in the ledger")))?;
        }
        Ok(())
    }

    /// What became of the line that was seen earlier, for people, unless it is there.
    fn unanchored(&self) -> Option<&'static str> {
        match self.report.anchored {
            Anchored::Unasked | Anchored::Kept => None,
            Anchored::Other => {
                Some("another line has the number of the anchor: what stood there was changed, or cut off and written anew")
            }
            Anchored::Missing => Some("the stream does not have the line of the anchor: its end was cut off"),
            Anchored::Removed => Some("the file of the anchor was removed: check with an anchor of a line that is here"),
        }
    }

    /// How many checkpoints are signed, for people.
    fn signatures(&self) -> String {
        let (signatures, count) = (&self.report.signatures, |number: u64| grouped(u128::from(number)));
        let said = format!("{} checkpoints signed, {} not", count(signatures.signed), count(signatures.unsigned));
        match (self.checked, signatures.last) {
            (false, _) => format!("{said}; not checked, that needs --keys"),
            (true, None) => format!("{said}; none is good"),
            (true, Some((line, _))) => {
                let behind = self.report.lines.1 - line;
                format!("{said}, {} bad; {} lines are behind the last good one", count(signatures.bad), count(behind))
            }
        }
    }
}

/// Tells a person how far it has come.
struct Meter<'o> {
    output: &'o Output,
    next: Duration,
    began: Instant,
}

impl Meter<'_> {
    fn tell(&mut self, done: u64, all: u64, what: impl FnOnce() -> String) {
        let elapsed = self.began.elapsed();
        if elapsed >= self.next {
            self.next = elapsed + Duration::from_millis(PROGRESS_MS);
            self.output.progress(&format!("{} {}", bar(done, all, BAR_WIDTH), what()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Signatures;

    #[test]
    fn what_is_left_out_unsigned_or_gone_is_no_good_verdict_unless_that_is_expected() {
        let found = Some((7, Seq(3)));
        let signatures = Signatures { signed: 1, last: found, ..Signatures::default() };
        let whole = || Report { files: 1, checkpoint: found, signatures: signatures.clone(), ..Report::default() };
        let verdict = |report: Report, left_out, gaps_allowed| {
            let compared = Some(Compared { left_out, ..Compared::default() });
            Verdict { report, compared, checked: true, gaps_allowed, took: Duration::ZERO }.is_good(true)
        };
        assert!(verdict(whole(), 0, false) && !verdict(whole(), 2, false) && verdict(whole(), 2, true));
        let unsigned = Damage { file: String::new(), offset: 0, what: String::new() };
        let mut lacking = whole();
        lacking.signatures.lacking = Some((unsigned, 5));
        assert!(!verdict(lacking, 0, false));
        for (anchored, good) in
            [(Anchored::Kept, true), (Anchored::Other, false), (Anchored::Missing, false), (Anchored::Removed, false)]
        {
            assert_eq!(verdict(Report { anchored, ..whole() }, 0, false), good, "{anchored:?}");
        }
        let hash = "ab".repeat(32);
        assert_eq!(anchor(&format!("12:{hash}")), Ok((12, [0xab; 32])));
        assert!(["12", "12:ab", "x:", &format!("-1:{hash}")].into_iter().all(|text| anchor(text).is_err()));
    }
}
