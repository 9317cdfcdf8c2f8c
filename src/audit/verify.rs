//! Checks a whole stream, and compares its accepted operations with the ledger, byte for byte.
//!
//! Of a file with damage the lines before it are checked, and the next file is taken up again; so each damaged file is named once, with the
//! first place. What is behind the last line of the newest file, without being one, is what an interrupted write has left.
use super::chain::{Chain, Fault, Totals, SIGNED_BYTES};
use super::line::{split, Hash, Line};
use super::lines::{file_name, files, Follower, Lines, Next};
use crate::domain::{bytes_of_hex, Entry, LogId, Seq};
use crate::ledger::{ReadFile, Storage};
use serde_json::{Map, Value};
use std::io;

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes that have been read, and that there are.
    pub bytes: (u64, u64),
    /// Lines that have been checked.
    pub lines: u64,
}

/// Something in a stream that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// Checks the signature of a checkpoint: what is signed of it, and what stands in its line. Says whether one that fits proves anything.
pub type CheckSignature<'c> = &'c mut dyn FnMut(&[u8], &Map<String, Value>) -> Result<bool, String>;

/// What is known of a stream before it is checked.
#[derive(Default)]
pub struct Expected<'c> {
    /// How signatures of checkpoints are checked; not at all if absent.
    pub check: Option<CheckSignature<'c>>,
    /// Checkpoints from this line on have to be signed; with 0 all have to be.
    pub signed_from: u64,
    /// A line that an earlier check has seen, and its hash.
    pub anchor: Option<(u64, Hash)>,
}

/// What became of a line that was seen earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchored {
    /// Nobody has named one.
    #[default]
    Unasked,
    /// It is there as it was.
    Kept,
    /// Another line has its number.
    Other,
    /// The stream ends before it, or lacks it.
    Missing,
    /// Its file was removed.
    Removed,
}

/// Signatures that do not fit and are told one by one.
const BAD_SIGNATURES_MAX: usize = 16;

/// What was found of the signatures of checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Checkpoints with a signature, whether it was checked or not.
    pub signed: u64,
    /// Checkpoints without one.
    pub unsigned: u64,
    /// Those of them that have to have one: the first, and the line of the last.
    pub lacking: Option<(Damage, u64)>,
    /// The last checkpoint with a signature that was not found bad, nor to prove nothing: its line, and the last entry before it.
    pub last: Option<(u64, Seq)>,
    /// Signatures that do not fit.
    pub bad: u64,
    /// The first few of these.
    pub bad_ones: Vec<Damage>,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The ledger of the stream; `None` if there is no good line.
    pub log: Option<LogId>,
    /// Files that are there.
    pub files: u64,
    /// The first and the last line that are there; the first is above 1 if older files were removed.
    pub lines: (u64, u64),
    /// What there has been since the stream began, removed files included.
    pub totals: Totals,
    /// Lines of accepted operations that are here.
    pub accepted_here: u64,
    /// The entry behind which the lines that are here begin, and the last one that the stream has come to.
    pub entries: (Seq, Seq),
    /// Hash of the last line.
    pub head: Hash,
    /// The last checkpoint: its line, and the last entry before it.
    pub checkpoint: Option<(u64, Seq)>,
    /// The last line that is known to be on the disk, and its hash: no loss of power takes it away.
    pub settled: Option<(u64, Hash)>,
    /// What is signed of the checkpoints that are here.
    pub signatures: Signatures,
    /// Stretches of the ledger that were in an archive when the stream came to them.
    pub gaps: Vec<(Seq, Seq)>,
    /// Lines behind which the ledger was taken back, and to which entry.
    pub rewinds: Vec<(u64, Seq)>,
    /// What is behind the last line without being one: file, place, bytes.
    pub torn: Option<(String, u64, u64)>,
    /// What became of a line that was seen earlier.
    pub anchored: Anchored,
    /// What is wrong.
    pub damages: Vec<Damage>,
}

/// Checks every line that is there, and the signatures of checkpoints if it is told how.
///
/// # Errors
/// If a file cannot be read; what is wrong with its content is in the report.
pub fn verify<S: Storage>(storage: &S, mut expected: Expected<'_>, progress: &mut dyn FnMut(Progress)) -> io::Result<Report> {
    let numbers = files(storage)?;
    let opened = numbers.iter().map(|number| storage.open(&file_name(*number))).collect::<io::Result<Vec<_>>>()?;
    let sizes = opened.iter().map(ReadFile::size).collect::<io::Result<Vec<u64>>>()?;
    let (mut read, all) = (0, sizes.iter().sum());
    let mut report = Report { files: numbers.len() as u64, ..Report::default() };
    let mut chain = Chain::BEGINNING;
    let mut line = Vec::new();
    for (at, (number, file)) in numbers.iter().zip(opened).enumerate() {
        let (place, is_newest) = (storage.place(&file_name(*number)), at + 1 == numbers.len());
        let mut lines = Lines::of(file);
        let damage = |offset: u64, what: String| Damage { file: place.clone(), offset, what };
        if at > 0 && *number != numbers[at - 1] + 1 {
            let what = format!("the file before it is {}, so {} is missing", file_name(numbers[at - 1]), file_name(number - 1));
            report.damages.push(damage(0, what));
        }
        let mut is_first = true;
        loop {
            let offset = lines.offset();
            let next = lines.next(&mut line)?;
            if next == Next::Rest {
                // The newest file may have grown since it was measured, and end in a line that is just being written.
                let rest = sizes[at].saturating_sub(offset).max(line.len() as u64);
                if is_newest && rest > 0 {
                    report.torn = Some((place.clone(), offset, rest));
                } else if !line.is_empty() {
                    report.damages.push(damage(offset, Fault::Torn.to_string()));
                }
                break;
            }
            if std::mem::take(&mut is_first) {
                if let Err(fault) = enter(&mut chain, *number, &line, at == 0, &mut report) {
                    report.damages.push(damage(offset, fault));
                }
                report.anchor(&chain, expected.anchor);
            }
            let signed = chain.signed();
            match chain.follow(&line) {
                Ok(read) => {
                    report.note(&chain, &read);
                    report.anchor(&chain, expected.anchor);
                    if chain.at_checkpoint {
                        if let Err(what) = report.signatures.note(&chain, &read, signed, expected.check.as_mut()) {
                            report.signatures.bad_one(damage(offset, what));
                        }
                        if read.signature.is_none() && read.n >= expected.signed_from {
                            let first = damage(offset, format!("the checkpoint in line {} is not signed", read.n));
                            report.signatures.lacking.get_or_insert((first, 0)).1 = read.n;
                        }
                    }
                }
                Err(fault) => {
                    report.damages.push(damage(offset, format!("{fault}; the rest of this file is not checked")));
                    break;
                }
            }
            if chain.n % 1024 == 0 {
                progress(Progress { bytes: (read + lines.offset(), all), lines: chain.n });
            }
        }
        read += sizes[at];
    }
    (report.log, report.totals, report.head) = (chain.log, chain.totals, chain.head);
    (report.lines.1, report.entries.1) = (chain.n, chain.through);
    report.anchor_end(expected.anchor);
    Ok(report)
}

/// Stands before the first line of a file. If the file does not go on from the one before, its own word is taken, and what is wrong said.
fn enter(chain: &mut Chain, number: u32, first: &[u8], is_oldest: bool, report: &mut Report) -> Result<(), String> {
    let before = match Chain::before(first) {
        Ok(before) => before,
        Err(fault) => {
            chain.file = number - 1;
            return Err(fault.to_string());
        }
    };
    if is_oldest {
        (report.lines.0, report.entries.0) = (before.n + 1, before.through);
        *chain = before;
        if chain.file + 1 != number {
            return Err("the file says that it has another number".to_owned());
        }
        return Ok(());
    }
    // Behind damage the writer goes on from the last good line, under the number of the file that has it.
    chain.file = number - 1;
    let told = (before.n, before.head, before.through, before.totals, before.file);
    if told == (chain.n, chain.head, chain.through, chain.totals, chain.file) {
        return Ok(());
    }
    *chain = before;
    Err("the file does not go on where the one before it ends".to_owned())
}

impl Signatures {
    fn note(
        &mut self,
        chain: &Chain,
        line: &Line<'_>,
        signed: Option<[u8; SIGNED_BYTES]>,
        check: Option<&mut CheckSignature<'_>>,
    ) -> Result<(), String> {
        let Some(signature) = &line.signature else {
            self.unsigned += 1;
            return Ok(());
        };
        self.signed += 1;
        let fits = match (check, signed) {
            (None, _) => Ok(true),
            (Some(check), Some(signed)) => check(&signed, signature),
            (Some(_), None) => Err("nothing before it says of which ledger it is".to_owned()),
        };
        if fits.map_err(|what| format!("checkpoint in line {}: {what}", line.n))? {
            self.last = Some((line.n, chain.through));
        }
        Ok(())
    }

    fn bad_one(&mut self, damage: Damage) {
        self.bad += 1;
        if self.bad_ones.len() < BAD_SIGNATURES_MAX {
            self.bad_ones.push(damage);
        }
    }
}

impl Report {
    fn note(&mut self, chain: &Chain, line: &Line<'_>) {
        match &*line.kind {
            "op" if line.is_accepted() => self.accepted_here += 1,
            "checkpoint" => {
                self.checkpoint = Some((line.n, chain.through));
                self.settled = line.head.as_deref().and_then(bytes_of_hex).map(|head| (line.n - 1, head));
            }
            "gap" => self.gaps.extend(line.from_seq.zip(line.to_seq).map(|(from, to)| (Seq(from), Seq(to)))),
            "rewind" => {
                self.rewinds.extend(line.to_seq.map(|to| (line.n, Seq(to))));
                // What was left out above that entry stands behind this line, or is left out once more.
                self.gaps.retain(|(from, _)| *from <= chain.through);
                self.gaps.iter_mut().for_each(|(_, to)| *to = chain.through.min(*to));
            }
            _ => {}
        }
    }

    /// Compares the last line of the chain with the one that was seen earlier, if it is that one.
    fn anchor(&mut self, chain: &Chain, anchor: Option<(u64, Hash)>) {
        if let Some((_, hash)) = anchor.filter(|(n, _)| *n == chain.n && self.anchored != Anchored::Kept) {
            self.anchored = if hash == chain.head { Anchored::Kept } else { Anchored::Other };
        }
    }

    fn anchor_end(&mut self, anchor: Option<(u64, Hash)>) {
        if let (Some((n, _)), Anchored::Unasked) = (anchor, self.anchored) {
            self.anchored = if n < self.lines.0 { Anchored::Removed } else { Anchored::Missing };
        }
    }

    /// Whether everything that is there is as it was written.
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty() && self.files > 0
    }
}

/// What a comparison with the ledger has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Entries of the ledger that stand in the stream as they are.
    pub equal: u64,
    /// The first entry that was compared; 0 if none was.
    pub first: Seq,
    /// Entries that the stream has not come to yet.
    pub behind: u64,
    /// Entries that a gap of the stream leaves out and that were handed in all the same.
    pub left_out: u64,
    /// The first of them; 0 if there is none.
    pub first_left_out: Seq,
    /// Entries that differ, that the stream lacks, or that the ledger does not have: the first few of them, in words.
    pub differences: Vec<String>,
    /// How many there are.
    pub differing: u64,
}

/// Differences that are told one by one.
const DIFFERENCES_MAX: usize = 16;

/// Compares entries, which are handed in in their order, with the lines of a stream that was checked.
pub struct Comparison<'r, S: Storage> {
    report: &'r Report,
    log: LogId,
    lines: Follower<S>,
    line: Vec<u8>,
    /// The entry of `line`; `None` before the first, and behind the last line.
    at: Option<Seq>,
    scratch: Vec<u8>,
    found: Compared,
}

impl<'r, S: Storage> Comparison<'r, S> {
    /// With the stream in this directory, of this ledger.
    pub fn new(storage: S, log: LogId, report: &'r Report) -> Self {
        let lines = Follower::from_file(storage, 1);
        Self { report, log, lines, line: Vec::new(), at: None, scratch: Vec::new(), found: Compared::default() }
    }

    /// The next entry of the ledger.
    ///
    /// # Errors
    /// If the stream cannot be read.
    pub fn entry(&mut self, seq: Seq, entry: &Entry<'_>) -> io::Result<()> {
        let (begin, through) = self.report.entries;
        if seq <= begin {
            return Ok(());
        }
        // Lines behind damage are not checked, and compared all the same: that tells what is wrong with them.
        if seq > through && self.report.damages.is_empty() {
            self.found.behind += 1;
            return Ok(());
        }
        if self.report.gaps.iter().any(|(from, to)| (*from..=*to).contains(&seq)) {
            if self.found.left_out == 0 {
                self.found.first_left_out = seq;
            }
            self.found.left_out += 1;
            return Ok(());
        }
        if self.found.first == Seq(0) {
            self.found.first = seq;
        }
        while self.at.map_or(true, |at| at < seq) {
            if !self.advance()? {
                break;
            }
        }
        if self.at != Some(seq) && seq > through {
            self.found.behind += 1;
            return Ok(());
        }
        if self.at != Some(seq) {
            self.differs(format!("entry {} of the ledger is not in the stream", seq.0));
            return Ok(());
        }
        let Some(line) = Line::read(&self.line) else { return Ok(()) };
        let mut chain = Chain { n: line.n.saturating_sub(1), through: Seq(seq.0 - 1), ..Chain::BEGINNING };
        self.scratch.clear();
        chain.write_accepted(&mut self.scratch, self.log, seq, entry, line.subject.as_deref());
        let same = split(&self.line).map(|(content, _)| content) == split(&self.scratch).map(|(content, _)| content);
        if same {
            self.found.equal += 1;
        } else {
            let what = format!("line {} does not say what entry {} of the ledger does", line.n, seq.0);
            self.differs(what);
        }
        Ok(())
    }

    /// Behind the last entry.
    pub fn end(self) -> Compared {
        self.found
    }

    fn differs(&mut self, what: String) {
        self.found.differing += 1;
        if self.found.differences.len() < DIFFERENCES_MAX {
            self.found.differences.push(what);
        }
    }

    /// The next accepted operation that was not taken back.
    fn advance(&mut self) -> io::Result<bool> {
        while self.lines.next(&mut self.line)? {
            let Some(line) = Line::read(&self.line).filter(Line::is_accepted) else { continue };
            let Some(seq) = line.seq.map(Seq) else { continue };
            if !self.report.rewinds.iter().any(|(n, to)| *n > line.n && seq > *to) {
                self.at = Some(seq);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
