//! `ronctl ledger export`: entries as lines of JSON or as CSV, read with their hashes checked and written as they come.
//!
//! Memory does not grow with the ledger. A file gets its name only when it is complete and on the disk; what goes to standard
//! output and is cut short by a fault ends with a message and an exit code that says so.
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use super::entry::{Row, Shown};
use super::{unreadable, Directory};
use crate::access::directory_of;
use crate::domain::{Account, Entry, Seq};
use crate::ledger::{DiskStorage, LedgerError, Walk};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{bar, grouped, rfc3339, Output};

/// Time between two progress lines.
const PROGRESS_MS: u64 = 100;
/// Length of the bar, in characters.
const BAR_WIDTH: usize = 24;
/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 1 << 18;

/// The columns, which are also the members of a line of JSON.
pub const COLUMNS: [&str; 17] = [
    "seq",
    "txid",
    "time",
    "op",
    "from",
    "to",
    "asset",
    "amount_minor",
    "nonce",
    "idem",
    "memo",
    "corr_id",
    "token_id",
    "ceiling",
    "ledger_root",
    "budget",
    "daily_max",
];

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values with a line of names first (RFC 4180)
    Csv,
}

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger export --format jsonl | jq -r .txid
  ronctl ledger export --format csv --account alice --account bob --out statement.csv
  ronctl ledger export --format jsonl --from 1000 --to 1999 --dir /var/lib/ron/ledger
  ronctl ledger export --format csv --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --out november.csv

Columns, and members of a line of JSON: seq, txid, time, op, from, to, asset, amount_minor, nonce, idem, memo, corr_id,
token_id, ceiling, ledger_root, budget, daily_max. Hashes are checked while reading; a server may run meanwhile. A file is either complete or
not there. What goes to standard output is complete only if the command ends with 0.

If --from lies behind the last entry, nothing is written, no line of names and no file, and the command ends with 1; the message names
the last entry. So a script that asks again and again for what is new goes on at 0, waits at 1 and stops at anything else.")]
pub struct Export {
    #[command(flatten)]
    directory: Directory,
    /// How to write entries
    #[arg(long)]
    format: Format,
    /// First entry
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// Last entry; otherwise the last one of the ledger
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// Only entries that debit or credit this account; may be given more than once
    #[arg(long = "account", value_name = "ID")]
    accounts: Vec<String>,
    /// Only entries accepted at this time (RFC 3339) or later
    #[arg(long, value_name = "TIME", value_parser = unix_ms)]
    since: Option<u64>,
    /// Only entries accepted before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = unix_ms)]
    until: Option<u64>,
    /// File to write to; otherwise standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "out")]
    force: bool,
}

/// Milliseconds since the Unix epoch of an RFC 3339 time, or what is wrong with it.
pub(in crate::operator) fn unix_ms(text: &str) -> Result<u64, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|fault| format!("{fault}; write it as 2026-11-24T16:30:00Z"))?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|_| "it lies before 1970".to_owned())
}

/// Why an export ended before its end.
enum Cut {
    /// The first entry that was asked for is not there yet; this is the last one.
    Behind(Seq),
    Ledger(LedgerError),
    Write(io::Error),
}

impl From<LedgerError> for Cut {
    fn from(fault: LedgerError) -> Self {
        Cut::Ledger(fault)
    }
}

impl From<io::Error> for Cut {
    fn from(fault: io::Error) -> Self {
        Cut::Write(fault)
    }
}

/// How many entries were written, and the last one that was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    entries: u64,
    through: u64,
}

impl Export {
    /// Reads and writes.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        if let Some(bad) = self.accounts.iter().find(|name| Account::new(name).is_none()) {
            return Err(Failure::usage(format!("{bad:?} is not the name of an account"), "1 to 256 of A-Z a-z 0-9 : / - _"));
        }
        if let Some(to) = self.to.filter(|to| *to < self.from) {
            let message = format!("--from {} lies behind --to {to}, so no entry can be meant", self.from);
            return Err(Failure::usage(message, "name the first entry with --from and the last one with --to"));
        }
        if let Some((since, until)) = self.since.zip(self.until).filter(|(since, until)| until <= since) {
            let [since, until] = [since, until].map(|ms| rfc3339(ms).unwrap_or_else(|| ms.to_string()));
            let message = format!("--until {until} is not later than --since {since}, so no entry can be meant");
            return Err(Failure::usage(message, "entries are meant that were accepted at --since or later, and before --until"));
        }
        let walk = self.directory.walk(context)?;
        match &self.out {
            Some(path) => self.to_file(context, &walk, path),
            None => self.to_stdout(context, &walk),
        }
    }

    fn to_stdout(&self, context: &Context, walk: &Walk<DiskStorage>) -> Result<Exit, Failure> {
        let mut writer = BufWriter::with_capacity(WRITE_BYTES, io::stdout().lock());
        let mut written = Written::default();
        let done = self.write(&context.output, walk, &mut writer, &mut written);
        // What is good is handed over even if what follows is not.
        let done = match (done, writer.flush()) {
            (Ok(()), Err(fault)) => Err(Cut::Write(fault)),
            (done, _) => done,
        };
        context.output.progress("");
        match done {
            Ok(()) => {
                context.output.hint(&format!("{} entries", grouped(u128::from(written.entries))));
                Ok(Exit::Done)
            }
            Err(Cut::Write(fault)) if fault.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
            Err(Cut::Write(fault)) => Err(Failure::output(&fault)),
            Err(Cut::Ledger(fault)) => Err(cut_short(&fault, written)),
            Err(Cut::Behind(head)) => Err(self.behind(head)),
        }
    }

    fn to_file(&self, context: &Context, walk: &Walk<DiskStorage>, path: &Path) -> Result<Exit, Failure> {
        let taken =
            || Failure::usage(format!("{} is there already", path.display()), "choose another name, or replace it with --force");
        if !self.force && fs::symlink_metadata(path).is_ok() {
            return Err(taken());
        }
        let failed =
            |fault: &io::Error| Failure::internal(format!("cannot write {}: {fault}", path.display()), super::after_io(fault));
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial)
            .map_err(|fault| Failure::usage(format!("cannot create {}: {fault}", partial.display()), "choose another place"))?;
        let mut writer = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut written = Written::default();
        let done = self.write(&context.output, walk, &mut writer, &mut written).and_then(|()| {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            publish(&partial, path, self.force)?;
            Ok(())
        });
        context.output.progress("");
        if done.is_err() {
            // The message tells what failed; a remainder under this name is overwritten by the next attempt.
            let _ = fs::remove_file(&partial);
        }
        match done {
            Ok(()) => self.summary(&context.output, path, written),
            Err(Cut::Write(fault)) if fault.kind() == ErrorKind::AlreadyExists => Err(taken()),
            Err(Cut::Write(fault)) => Err(failed(&fault)),
            Err(Cut::Ledger(fault)) => Err(unreadable(&fault)),
            Err(Cut::Behind(head)) => Err(self.behind(head)),
        }
    }

    fn behind(&self, head: Seq) -> Failure {
        Failure {
            exit: Exit::No,
            message: format!(
                "nothing to export: the last entry of the ledger is {}, and --from asks for {} on",
                head.0, self.from
            ),
            next: "ask again when there is more, or name an earlier entry with --from".to_owned(),
        }
    }

    fn summary(&self, output: &Output, path: &Path, written: Written) -> Result<Exit, Failure> {
        if output.json {
            output.value(&json!({"file": path.display().to_string(), "entries": written.entries, "through": written.through}))?;
        } else {
            output.line(&format!("{} entries in {}", grouped(u128::from(written.entries)), path.display()))?;
        }
        Ok(Exit::Done)
    }

    fn write(&self, output: &Output, walk: &Walk<DiskStorage>, writer: &mut dyn Write, written: &mut Written) -> Result<(), Cut> {
        let accounts: HashSet<&[u8]> = self.accounts.iter().map(String::as_bytes).collect();
        let Some(log_id) = walk.log_id() else { return Err(self.headless(walk)) };
        let last = self.to.unwrap_or(u64::MAX);
        let names = (self.format == Format::Csv).then(|| format!("{}\r\n", COLUMNS.join(",")));
        let mut names = names.unwrap_or_default();
        let mut progress = Meter::new(output, walk, self.from, last);
        let mut failed = None;
        let end = walk.from(Seq(self.from), &mut |batch| {
            progress.tell(batch.header().first_seq.0);
            batch.visit(|seq, entry| {
                if seq.0 < self.from {
                    return ControlFlow::Continue(());
                }
                if seq.0 > last {
                    return ControlFlow::Break(());
                }
                written.through = seq.0;
                if let Err(fault) = writer.write_all(std::mem::take(&mut names).as_bytes()) {
                    failed = Some(fault);
                    return ControlFlow::Break(());
                }
                if !self.wants(&accounts, &entry) {
                    return ControlFlow::Continue(());
                }
                written.entries += 1;
                let row = Shown { log_id, seq, root: batch.root(), entry }.row();
                match self.write_row(writer, &row) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(fault) => {
                        failed = Some(fault);
                        ControlFlow::Break(())
                    }
                }
            })
        })?;
        if let Some(fault) = failed {
            return Err(Cut::Write(fault));
        }
        // A ledger without entries is exported whole, from its first one.
        if end.head < Seq(self.from) && self.from > 1 {
            return Err(Cut::Behind(end.head));
        }
        Ok(writer.write_all(names.as_bytes())?)
    }

    fn headless(&self, walk: &Walk<DiskStorage>) -> Cut {
        let place = walk.segments().first().map_or_else(String::new, |segment| segment.file.clone());
        Cut::Ledger(LedgerError::Incomplete { place, what: "no segment has a header that can be read".into() })
    }

    fn wants(&self, accounts: &HashSet<&[u8]>, entry: &Entry<'_>) -> bool {
        let ts = entry.ts().0;
        let in_time = self.since.map_or(true, |since| ts >= since) && self.until.map_or(true, |until| ts < until);
        let named = || [entry.from(), entry.to()].into_iter().flatten().any(|name| accounts.contains(name.as_bytes()));
        in_time && (accounts.is_empty() || named())
    }

    fn write_row(&self, writer: &mut dyn Write, row: &Row<'_>) -> io::Result<()> {
        match self.format {
            Format::Jsonl => {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            }
            Format::Csv => writer.write_all(csv(row).as_bytes()),
        }
    }
}

fn cut_short(fault: &LedgerError, written: Written) -> Failure {
    let failure = unreadable(fault);
    let how = match written.through {
        0 => "nothing was exported".to_owned(),
        through => format!("the export is incomplete, it ends after entry {through}"),
    };
    Failure { message: format!("{how}: {}", failure.message), ..failure }
}

/// Gives the finished file its name, durably; without `force` never in place of another one.
fn publish(partial: &Path, path: &Path, force: bool) -> io::Result<()> {
    if force {
        fs::rename(partial, path)?;
    } else {
        // A link, unlike a renaming, fails if the name has been taken meanwhile.
        fs::hard_link(partial, path)?;
        fs::remove_file(partial)?;
    }
    File::open(directory_of(path))?.sync_all()
}

/// One line of the table. A field that is absent is empty; a memo that was given and is empty is a pair of quotes.
fn csv(row: &Row<'_>) -> String {
    let text = |text: &str| {
        if text.is_empty() || text.contains([',', '"', '\r', '\n']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let optional = |value: Option<&str>| value.map_or_else(String::new, text);
    let fields: [String; COLUMNS.len()] = [
        row.seq.to_string(),
        row.txid.clone(),
        row.time.clone(),
        row.op.to_owned(),
        optional(row.from),
        optional(row.to),
        row.asset.to_owned(),
        row.amount_minor.clone(),
        row.nonce.map_or_else(String::new, |nonce| nonce.to_string()),
        row.idem.to_owned(),
        optional(row.memo),
        text(row.corr_id),
        row.token_id.clone(),
        row.ceiling.to_string(),
        row.ledger_root.clone(),
        row.budget.to_string(),
        row.daily_max.to_string(),
    ];
    fields.join(",") + "\r\n"
}

/// Tells a person how far it has come.
struct Meter<'o> {
    output: &'o Output,
    first: u64,
    last: u64,
    started: Instant,
    next: Duration,
}

impl<'o> Meter<'o> {
    fn new(output: &'o Output, walk: &Walk<DiskStorage>, first: u64, last: u64) -> Self {
        // A guess is enough here; what cannot be read is found out by reading.
        let head = walk.segments().last().and_then(|segment| walk.survey(segment).ok()).and_then(|used| used.last);
        let last = last.min(head.map_or(first, |head| head.0));
        Self { output, first, last, started: Instant::now(), next: Duration::ZERO }
    }

    fn tell(&mut self, seq: u64) {
        let elapsed = self.started.elapsed();
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + Duration::from_millis(PROGRESS_MS);
        let (done, whole) = (seq.saturating_sub(self.first), (self.last + 1).saturating_sub(self.first));
        let [seq, last] = [seq, self.last].map(|number| grouped(u128::from(number)));
        self.output.progress(&format!("{} entry {seq} of {last}", bar(done, whole, BAR_WIDTH)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row<'static> {
        Row {
            seq: 7,
            txid: "tx_1".into(),
            time: "t".into(),
            op: "burn",
            from: Some("a"),
            to: None,
            asset: "roc",
            amount_minor: u128::MAX.to_string(),
            nonce: Some(1),
            idem: "k",
            memo: None,
            corr_id: "c",
            token_id: "00".into(),
            ceiling: false,
            ledger_root: "11".into(),
            budget: false,
            daily_max: false,
        }
    }

    #[test]
    fn the_columns_are_the_members_in_their_order() {
        let written = serde_json::to_string(&row()).unwrap();
        let places: Vec<usize> = COLUMNS.iter().map(|name| written.find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{written}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap().as_object().unwrap().len(), COLUMNS.len());
    }

    #[test]
    fn fields_are_quoted_where_the_rfc_asks_for_it() {
        assert_eq!(csv(&row()), format!("7,tx_1,t,burn,a,,roc,{},1,k,,c,00,false,11,false,false\r\n", u128::MAX));
        for (memo, expected) in [("", "\"\""), ("tea", "tea"), ("a,b", "\"a,b\""), ("say \"x\"", "\"say \"\"x\"\"\"")] {
            assert!(csv(&Row { memo: Some(memo), ..row() }).contains(&format!(",k,{expected},c,")), "{memo}");
        }
    }

    #[test]
    fn times_are_read_as_moments() {
        assert_eq!(unix_ms("1970-01-01T00:00:01.5Z"), Ok(1500));
        assert_eq!(unix_ms("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(unix_ms("yesterday").unwrap_err().contains("2026-11-24T16:30:00Z"));
        assert!(unix_ms("1969-12-31T23:59:59Z").is_err());
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let (partial, path) = (place.path().join("a.partial"), place.path().join("a"));
        fs::write(&partial, "new").unwrap();
        fs::write(&path, "old").unwrap();
        assert_eq!(publish(&partial, &path, false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        publish(&partial, &path, true).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), partial.exists()), ("new".to_owned(), false));
    }
}
