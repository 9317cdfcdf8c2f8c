//! `ronctl ledger inspect`: what is in a ledger, from the list of its segments down to one entry, as far as it can be read.
//!
//! What is shown of a batch or an entry has been checked by its hashes, from the head of its segment on. Damage ends the reading
//! with a message that says where; what was shown before it is good.
use std::ops::ControlFlow;

use serde_json::{json, Value};

use super::entry::Shown;
use super::{unreadable, Directory};
use crate::domain::{hex, Entry, LogId, Root, Seq, TxId};
use crate::ledger::layout::BatchHeader;
use crate::ledger::{Batch, DiskStorage, LedgerError, ScrubPass, ScrubState, SegmentFile, SegmentUse, Walk};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, rfc3339, Output, Style};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger inspect
  ronctl ledger inspect --segment 1
  ronctl ledger inspect --batch 42
  ronctl ledger inspect --entry 42
  ronctl --json ledger inspect --entry tx_00000000000000000000000000

Without an option: the log, its segments and its other files, from the headers alone, and when everything was read again last. With --json one object; with --segment
one object a line for each batch. Nothing is written, and a server may run meanwhile. Of a damaged ledger it shows what can
be read, says where that stops, and ends with 1.")]
pub struct Inspect {
    #[command(flatten)]
    directory: Directory,
    /// Show the batches of this segment
    #[arg(long, value_name = "N", conflicts_with_all = ["batch", "entry"])]
    segment: Option<u64>,
    /// Show the batch that has this entry
    #[arg(long, value_name = "SEQ", conflicts_with = "entry")]
    batch: Option<u64>,
    /// Show this entry, by its number or its transaction id
    #[arg(long, value_name = "SEQ|TXID", value_parser = wanted)]
    entry: Option<Wanted>,
}

/// Which entry is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Seq(Seq),
    Tx(TxId),
}

impl Wanted {
    fn seq(self) -> Seq {
        match self {
            Wanted::Seq(seq) => seq,
            Wanted::Tx(txid) => txid.seq,
        }
    }
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let number = || text.parse().ok().filter(|seq| *seq > 0).map(|seq| Wanted::Seq(Seq(seq)));
    TxId::parse(text).map(Wanted::Tx).or_else(number).ok_or_else(|| "neither a number from 1 on nor a transaction id".to_owned())
}

impl Inspect {
    /// Reads and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let walk = self.directory.walk(context)?;
        let output = &context.output;
        match (self.segment, self.batch, self.entry) {
            (Some(index), _, _) => segment(output, &walk, index),
            (_, Some(seq), _) => in_batch(&walk, Seq(seq), |batch, log_id| show_batch(output, batch, log_id)),
            (_, _, Some(wanted)) => in_batch(&walk, wanted.seq(), |batch, log_id| show_entry(output, batch, log_id, wanted)),
            (None, None, None) => overview(output, &walk),
        }
    }
}

fn number(number: u64) -> String {
    grouped(u128::from(number))
}

/// The first and the last entry of a batch.
fn range(header: &BatchHeader) -> String {
    format!("{} to {}", number(header.first_seq.0), number(header.last_seq().0))
}

fn no(message: String, next: &str) -> Failure {
    Failure { exit: Exit::No, message, next: next.to_owned() }
}

fn overview(output: &Output, walk: &Walk<DiskStorage>) -> Result<Exit, Failure> {
    let mut surveyed = Vec::with_capacity(walk.segments().len());
    for (number, file) in (1..).zip(walk.segments()) {
        output.progress(&format!("segment {number} of {}", walk.segments().len()));
        surveyed.push((file, walk.survey(file).map_err(|fault| unreadable(&fault))?));
    }
    output.progress("");
    let epoch_fault = walk.mark().err().map(ToString::to_string);
    let mark = walk.mark().ok().flatten();
    let newest = surveyed.iter().map(|(_, used)| used.epoch).max();
    let epoch = newest.unwrap_or(0).max(mark.map_or(0, |mark| mark.epoch));
    let (head, root) = surveyed.iter().rev().find_map(|(file, used)| end_of(file, used)).unwrap_or_default();
    let log_id = walk.log_id().map_or_else(|| "unknown".to_owned(), |id| hex(&id.0));
    let last = walk.segments().last().map(|segment| segment.index);
    let fault = |file: &SegmentFile, used: &SegmentUse| file.header.clone().err().or_else(|| used.fault.clone());
    // Behind the last batch of the last segment something may just be written.
    let damaged = surveyed.iter().any(|(file, used)| file.header.is_err() || (used.fault.is_some() && Some(file.index) != last));
    let scrub = walk.scrub();
    let scrubbed = scrub.as_ref().ok().and_then(Option::as_ref);
    let rotten = scrubbed.is_some_and(|state| state.figures().damaged[0] > 0);
    let gaps = walk.gaps(&surveyed.iter().map(|(_, used)| used.clone()).collect::<Vec<_>>());
    let exit = if damaged || !gaps.is_empty() || epoch_fault.is_some() || rotten { Exit::No } else { Exit::Done };
    if output.json {
        let segments = surveyed.iter().map(|(file, used)| {
            json!({
                "segment": file.index, "file": file.file, "bytes": file.size, "bytes_used": used.bytes_used, "batches": used.batches,
                "first": file.header.as_ref().ok().map(|header| header.first_seq.0), "last": used.last.map(|seq| seq.0),
                "sealed": Some(file.index) != last, "indexed": file.indexed, "fault": fault(file, used),
            })
        });
        output.value(&json!({
            "log_id": log_id, "epoch": epoch, "head": head.0, "ledger_root": hex(&root), "root": hex(&root), "segments": segments.collect::<Vec<_>>(),
            "mark": mark.map(|mark| json!({"epoch": mark.epoch, "head": mark.head.0, "root": hex(&mark.root), "segment": mark.segment})),
            "epoch_fault": epoch_fault, "gaps": gaps, "other_files": walk.others(), "scrub": scrubbed.map(scrub_json),
        }))?;
        return Ok(exit);
    }
    let noted = match (mark, &epoch_fault) {
        (_, Some(fault)) => fault.clone(),
        (None, None) => "neither `epoch` nor `witness` says how far".to_owned(),
        (Some(mark), None) => {
            let file = walk.noted_in().unwrap_or_default();
            format!("through entry {}, noted in the file `{file}`", grouped(u128::from(mark.head.0)))
        }
    };
    output.line(&output.fields(&[
        ("ledger", log_id),
        ("epoch", number(epoch)),
        ("last entry", grouped(u128::from(head.0))),
        ("chain hash", hex(&root)),
        ("certain", noted),
        (
            "read again",
            scrub.as_ref().map_or_else(|fault| format!("that cannot be told: {fault}"), |state| scrub_text(state.as_ref())),
        ),
        ("other files", walk.others().join(", ")),
    ]))?;
    for name in scrubbed.iter().flat_map(|state| &state.damaged) {
        output.line(&output.paint(Style::Bad, &format!("{name} was damaged when it was read again")))?;
    }
    for gap in &gaps {
        output.line(&output.paint(Style::Bad, gap))?;
    }
    output.line("")?;
    let line = |cells: [&str; 8]| {
        let [segment, first, last, batches, used, size, state, index] = cells;
        format!("{segment:>8}{first:>14}{last:>14}{batches:>10}{used:>15}{size:>15}  {state:<7}{index}")
    };
    let names = ["segment", "first entry", "last entry", "batches", "bytes used", "bytes", "state", "index"];
    output.line(&output.paint(Style::Faint, &line(names)))?;
    for (file, used) in &surveyed {
        let [batches, bytes_used, size] = [used.batches, used.bytes_used, file.size].map(number);
        let entry = |seq: Option<Seq>| seq.map_or_else(|| "-".to_owned(), |seq| grouped(u128::from(seq.0)));
        let first = entry(file.header.as_ref().ok().map(|header| header.first_seq));
        let state = if Some(file.index) == last { "active" } else { "sealed" };
        let index = if file.indexed { "yes" } else { "no" };
        output.line(&line([&file.index.to_string(), &first, &entry(used.last), &batches, &bytes_used, &size, state, index]))?;
        if let Some(what) = fault(file, used) {
            let at = if file.header.is_ok() { used.bytes_used } else { 0 };
            output.line(&output.paint(Style::Bad, &format!("          at byte {}: {what}", number(at))))?;
        }
    }
    Ok(exit)
}

fn scrub_json(state: &ScrubState) -> Value {
    let pass = |pass: ScrubPass| json!({"at": pass.at.0, "files": pass.files, "bytes": pass.bytes, "damaged": pass.damaged});
    json!({"ended": state.last.map(pass), "under_way": state.pass.map(pass), "damaged_files": state.damaged})
}

/// When everything was read again last, and how far the pass under way is.
fn scrub_text(state: Option<&ScrubState>) -> String {
    let of = |pass: ScrubPass| {
        let when = rfc3339(pass.at.0).unwrap_or_else(|| format!("{} ms", pass.at.0));
        let (files, bytes) = (grouped(u128::from(pass.files)), grouped(u128::from(pass.bytes)));
        format!("{when}, {files} files, {bytes} bytes, {} damaged", pass.damaged)
    };
    let ended = state.and_then(|state| state.last).map_or_else(|| "never".to_owned(), |last| format!("ended {}", of(last)));
    let under_way = state.and_then(|state| state.pass).map(|pass| format!("; under way since {}", of(pass)));
    format!("{ended}{}", under_way.unwrap_or_default())
}

/// The last entry of the log up to the end of a segment, and the chain hash after it. A segment that has no batch yet says them of what
/// came before it, also if that is in an archive or in a snapshot only.
fn end_of(file: &SegmentFile, used: &SegmentUse) -> Option<(Seq, Root)> {
    let before = || file.header.as_ref().ok().map(|header| (Seq(header.first_seq.0.saturating_sub(1)), header.prev));
    used.last.zip(used.root).or_else(before)
}

/// What can be said of a batch without its entries.
fn batch_json(batch: &Batch<'_>) -> Result<Value, LedgerError> {
    let header = batch.header();
    let lanes = batch.sections()?;
    let lanes = lanes.iter().map(|section| {
        json!({"lane": section.lane, "first": section.lane_first, "entries": section.count, "bytes": section.bytes.len()})
    });
    Ok(json!({
        "segment": header.segment, "file": batch.file(), "offset": header.offset, "bytes": header.extent_bytes(),
        "body_bytes": header.body_bytes, "first": header.first_seq.0, "last": header.last_seq().0, "entries": header.entries,
        "epoch": header.epoch, "durable_through": header.durable_through.0, "ledger_root": hex(batch.root()), "root": hex(batch.root()), "previous": hex(&header.prev),
        "body_hash": hex(&header.body_hash), "lanes": lanes.collect::<Vec<_>>(),
    }))
}

fn lanes_text(batch: &Batch<'_>) -> Result<String, LedgerError> {
    let lanes = batch.sections()?;
    Ok(lanes.iter().map(|section| format!("{}:{}", section.lane, section.count)).collect::<Vec<_>>().join(" "))
}

fn segment(output: &Output, walk: &Walk<DiskStorage>, index: u64) -> Result<Exit, Failure> {
    let Some(file) = walk.segments().iter().find(|segment| segment.index == index) else {
        let numbers = walk.segments().first().zip(walk.segments().last());
        let range = numbers.map_or_else(String::new, |(first, last)| format!("{} to {}", first.index, last.index));
        return Err(no(format!("there is no segment {index}"), &format!("segments {range} are there")));
    };
    let line = |cells: [&str; 6]| {
        let [offset, first, entries, epoch, root, lanes] = cells;
        format!("{offset:>14}{first:>14}{entries:>9}{epoch:>7}  {root:<64}  {lanes}")
    };
    if !output.json {
        let names = ["byte", "first entry", "entries", "epoch", "chain hash", "lane:entries"];
        output.line(&output.paint(Style::Faint, &line(names)))?;
    }
    let mut unwritten = None;
    let end = walk.segment(file, &mut |batch| {
        let header = batch.header();
        let told = if output.json {
            output.value(&batch_json(batch)?)
        } else {
            let [offset, first, entries, epoch] =
                [header.offset, header.first_seq.0, u64::from(header.entries), header.epoch].map(number);
            output.line(&line([&offset, &first, &entries, &epoch, &hex(batch.root()), &lanes_text(batch)?]))
        };
        unwritten = told.err();
        Ok(if unwritten.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    let end = end.map_err(|fault| unreadable(&fault))?;
    if let Some(torn) = end.torn {
        output.hint(&format!(
            "From byte {} on, {} bytes are no batch: written just now, or an interrupted write.",
            torn.offset, torn.bytes
        ));
    }
    Ok(Exit::Done)
}

/// Finds the batch with this entry.
fn in_batch(
    walk: &Walk<DiskStorage>,
    seq: Seq,
    show: impl Fn(&Batch<'_>, LogId) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let mut shown = None;
    let end = walk.from(seq, &mut |batch| {
        shown = Some(show(batch, batch.header().log_id));
        Ok(ControlFlow::Break(()))
    });
    if let Some(shown) = shown {
        return shown;
    }
    let end = end.map_err(|fault| unreadable(&fault))?;
    Err(no(format!("entry {} is not in this ledger, which ends with entry {}", seq.0, end.head.0), ""))
}

fn show_batch(output: &Output, batch: &Batch<'_>, log_id: LogId) -> Result<Exit, Failure> {
    let header = batch.header();
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    let _ = batch
        .visit(|seq, entry| {
            let shown = Shown { log_id, seq, root: batch.root(), entry };
            if output.json {
                rows.push(json!(shown.row()));
            } else {
                lines.push(in_short(seq, &entry));
            }
            ControlFlow::Continue(())
        })
        .map_err(|fault| unreadable(&fault))?;
    if output.json {
        let mut value = batch_json(batch).map_err(|fault| unreadable(&fault))?;
        value["rows"] = rows.into();
        output.value(&value)?;
        return Ok(Exit::Done);
    }
    output.line(&output.fields(&[
        ("entries", format!("{}, {} in all", range(header), number(header.entries.into()))),
        ("file", batch.file().to_owned()),
        ("at byte", {
            let [offset, extent, body] = [header.offset, header.extent_bytes(), u64::from(header.body_bytes)].map(number);
            format!("{offset}, {extent} bytes, body {body}")
        }),
        ("epoch", number(header.epoch)),
        ("durable before", format!("through entry {}", number(header.durable_through.0))),
        ("chain hash", hex(batch.root())),
        ("before it", hex(&header.prev)),
        ("body hash", hex(&header.body_hash)),
        ("lane:entries", lanes_text(batch).map_err(|fault| unreadable(&fault))?),
    ]))?;
    output.line("")?;
    output.line(&lines.join("\n"))?;
    Ok(Exit::Done)
}

fn in_short(seq: Seq, entry: &Entry<'_>) -> String {
    let name = |account: Option<crate::domain::Account<'_>>| account.map_or_else(|| "-".to_owned(), |name| name.to_string());
    let (op, amount) = (entry.op().as_str(), grouped(entry.amount().minor_units()));
    let nonce = entry.nonce().map_or_else(String::new, |nonce| format!(", nonce {}", number(nonce.0)));
    format!("{:>12}  {op:<9}{} -> {}  {amount} {}{nonce}", number(seq.0), name(entry.from()), name(entry.to()), entry.asset())
}

fn show_entry(output: &Output, batch: &Batch<'_>, log_id: LogId, wanted: Wanted) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    let _ = batch
        .visit(|seq, entry| {
            if seq < wanted.seq() {
                return ControlFlow::Continue(());
            }
            bytes = entry.bytes().to_vec();
            ControlFlow::Break(())
        })
        .map_err(|fault| unreadable(&fault))?;
    // The batch was checked while its entries were counted.
    let entry = Entry::parse_own(&bytes).0;
    let shown = Shown { log_id, seq: wanted.seq(), root: batch.root(), entry };
    if let Wanted::Tx(txid) = wanted {
        if shown.txid() != txid {
            let message = format!("{txid} is not in this ledger: entry {} has another id, {}", txid.seq.0, shown.txid());
            return Err(no(message, "look into the ledger of the server that sent the receipt"));
        }
    }
    let header = batch.header();
    if output.json {
        output.value(&json!({
            "entry": shown.row(), "bytes": bytes.len(), "receipt": shown.receipt(), "segment": header.segment, "file": batch.file(),
            "batch_offset": header.offset, "batch_first": header.first_seq.0, "batch_entries": header.entries, "epoch": header.epoch,
        }))?;
        return Ok(Exit::Done);
    }
    let mut rows = shown.fields();
    rows.push(("place", format!("{}, batch at byte {}, entries {}", batch.file(), number(header.offset), range(header))));
    rows.push(("chain hash", format!("{}, epoch {}", hex(batch.root()), number(header.epoch))));
    rows.push(("receipt", shown.receipt()));
    output.line(&output.fields(&rows))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_number_or_transaction() {
        let txid = TxId { seq: Seq(5), check: 9 };
        assert_eq!(wanted(&txid.to_string()), Ok(Wanted::Tx(txid)));
        assert_eq!(wanted("7"), Ok(Wanted::Seq(Seq(7))));
        for bad in ["0", "-1", "tx_1", "", "seven"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
    }
}
