//! The rules of the stream: what each line has to be behind the one before. The writer keeps them, recovery and verification check them.
//!
//! Invariants: lines are numbered densely; each is chained by its hash to the one before, over the ends of files as well; accepted
//! operations come in the order of the ledger, each once, and where some are left out or taken back a line says so.
use super::line::{is_chained, split, Hash, Line, VERSION};
use crate::domain::{bytes_of_hex, LogId, Seq};

/// How many there have been since the stream began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines of accepted operations, those that were taken back included.
    pub accepted: u64,
    /// Lines of operations that were refused, or of which the client was told that nobody knows.
    pub refused: u64,
    /// Lines that there would have been, and that were dropped and counted.
    pub dropped: u64,
}

/// What is wrong with a line, in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not end as a line does.
    Torn,
    /// Its bytes, or those of the line before, are not what was written.
    Hash,
    /// It is of a version that is not known here.
    Version(u8),
    /// It is chained, and still breaks a rule: no version of the writer writes it here.
    Rule(&'static str),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Torn => f.write_str("the line is cut short"),
            Fault::Hash => f.write_str("the line, or the one before it, is not what was written: its hash does not fit"),
            Fault::Version(version) => write!(f, "the line has version {version}, which this program does not know"),
            Fault::Rule(what) => f.write_str(what),
        }
    }
}

/// Length of what is signed of a checkpoint.
pub(super) const SIGNED_BYTES: usize = 88;

/// A place in the stream: everything that the next line depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the last line.
    pub n: u64,
    /// Its hash.
    pub head: Hash,
    /// The last entry of the ledger that the stream has come to.
    pub through: Seq,
    /// What there has been.
    pub totals: Totals,
    /// The ledger; `None` before the first line.
    pub log: Option<LogId>,
    /// The file of the last line; 0 before the first.
    pub file: u32,
    /// Whether the last line is a checkpoint.
    pub at_checkpoint: bool,
}

impl Chain {
    /// Before the first line of a stream.
    pub const BEGINNING: Self = Self {
        n: 0,
        head: [0; 32],
        through: Seq(0),
        totals: Totals { accepted: 0, refused: 0, dropped: 0 },
        log: None,
        file: 0,
        at_checkpoint: false,
    };

    /// Before the first line of a file, as that line says it: for a file whose predecessor is not looked at.
    pub fn before(first: &[u8]) -> Result<Self, Fault> {
        split(first).ok_or(Fault::Torn)?;
        let line = Line::read(first).ok_or(Fault::Hash)?;
        known(&line)?;
        if &*line.kind != "begin" {
            return Err(Fault::Rule("a file does not begin with a line of the kind begin"));
        }
        let (n, head, file) = (line.n.checked_sub(1), line.prev.as_deref().and_then(bytes_of_hex), line.file);
        let told = (n, head, file, line.through, totals(&line));
        let (Some(n), Some(head), Some(file @ 1..), Some(through), Some(totals)) = told else {
            return Err(Fault::Rule("the first line of a file lacks something"));
        };
        let log = (file > 1).then(|| line.log.as_deref().and_then(bytes_of_hex).map(LogId)).flatten();
        Ok(Self { n, head, through: Seq(through), totals, log, file: file - 1, at_checkpoint: false })
    }

    /// Goes on by one line, given with its line feed. After an error the place is as it was.
    pub fn follow<'a>(&mut self, bytes: &'a [u8]) -> Result<Line<'a>, Fault> {
        let (content, hash) = split(bytes).ok_or(Fault::Torn)?;
        if !is_chained(&self.head, content, &hash) {
            return Err(Fault::Hash);
        }
        let line = Line::read(bytes).ok_or(Fault::Rule("the line is no JSON object with the members of its kind"))?;
        known(&line)?;
        if line.n != self.n + 1 {
            return Err(Fault::Rule("the line has another number than the next one"));
        }
        let mut next = Self { n: line.n, head: hash, at_checkpoint: false, ..self.clone() };
        match &*line.kind {
            "begin" => next.begin(self, &line)?,
            _ if self.file == 0 => return Err(Fault::Rule("the stream does not begin with a line of the kind begin")),
            "op" => next.operation(self, &line)?,
            "gap" | "rewind" => next.stretch(self, &line)?,
            "dropped" => {
                let count = line.count.ok_or(Fault::Rule("the line does not say how many were dropped"))?;
                next.totals.dropped = next.totals.dropped.saturating_add(count);
            }
            "checkpoint" => {
                let head = line.head.as_deref().and_then(bytes_of_hex);
                let told = (head, line.through, totals(&line));
                if told != (Some(self.head), Some(self.through.0), Some(self.totals)) {
                    return Err(Fault::Rule("the checkpoint does not say what stands before it"));
                }
                next.at_checkpoint = true;
            }
            "token" | "event" => {}
            _ => return Err(Fault::Rule("the line is of a kind that this program does not know")),
        }
        *self = next;
        Ok(line)
    }

    /// What is signed of a checkpoint that is the next line; `None` before the first line. Numbers are little endian:
    ///
    /// ```text
    ///    0  16  log UUID
    ///   16   8  number of the line
    ///   24  32  hash of the line before
    ///   56   8  the last entry of the ledger that the stream has come to
    ///   64  24  totals: accepted, refused, dropped
    /// ```
    pub(super) fn signed(&self) -> Option<[u8; SIGNED_BYTES]> {
        let mut signed = [0; SIGNED_BYTES];
        let Totals { accepted, refused, dropped } = self.totals;
        signed[..16].copy_from_slice(&self.log?.0);
        signed[16..24].copy_from_slice(&(self.n + 1).to_le_bytes());
        signed[24..56].copy_from_slice(&self.head);
        for (place, number) in [self.through.0, accepted, refused, dropped].into_iter().enumerate() {
            signed[56 + 8 * place..][..8].copy_from_slice(&number.to_le_bytes());
        }
        Some(signed)
    }

    fn begin(&mut self, before: &Self, line: &Line<'_>) -> Result<(), Fault> {
        let log = line
            .log
            .as_deref()
            .and_then(bytes_of_hex)
            .map(LogId)
            .ok_or(Fault::Rule("the file does not say of which ledger it is"))?;
        if before.log.is_some_and(|known| known != log) {
            return Err(Fault::Rule("the file belongs to another ledger than the one before it"));
        }
        let prev = line.prev.as_deref().and_then(bytes_of_hex);
        let told = (prev, line.through, totals(line));
        if told != (Some(before.head), Some(before.through.0), Some(before.totals)) {
            return Err(Fault::Rule("the file does not say what stands before it"));
        }
        let file = line.file.filter(|file| *file == before.file + 1);
        self.file = file.ok_or(Fault::Rule("the file has another number than the next one"))?;
        self.log = Some(log);
        Ok(())
    }

    fn operation(&mut self, before: &Self, line: &Line<'_>) -> Result<(), Fault> {
        match line.outcome.as_deref() {
            Some("accepted") => {
                if line.seq != Some(before.through.0 + 1) {
                    return Err(Fault::Rule("the operation is not the next one of the ledger"));
                }
                self.through = Seq(before.through.0 + 1);
                self.totals.accepted += 1;
            }
            Some("refused" | "unknown") => self.totals.refused += 1,
            Some(_) | None => return Err(Fault::Rule("the operation has no outcome that this program knows")),
        }
        Ok(())
    }

    fn stretch(&mut self, before: &Self, line: &Line<'_>) -> Result<(), Fault> {
        let (Some(from), Some(to)) = (line.from_seq, line.to_seq) else {
            return Err(Fault::Rule("the line does not say which entries it is about"));
        };
        let fits = match &*line.kind {
            "gap" => from == before.through.0 + 1 && to >= from,
            _ => from == before.through.0 && to < from,
        };
        if !fits {
            return Err(Fault::Rule("the line is about other entries than those that follow"));
        }
        self.through = Seq(to);
        Ok(())
    }
}

fn known(line: &Line<'_>) -> Result<(), Fault> {
    (line.v == VERSION).then_some(()).ok_or(Fault::Version(line.v))
}

fn totals(line: &Line<'_>) -> Option<Totals> {
    Some(Totals { accepted: line.accepted?, refused: line.refused?, dropped: line.dropped? })
}
