//! Reading the lines of a directory from the first to the last, beside the process that writes them.
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::line::{Line, LineFault, LINE_BYTES_MAX};
use super::sink::{SinkFault, Stretch};
use super::store::files;
use crate::domain::Seq;

/// How often reading is begun again because the writer has gone to another file meanwhile.
const ATTEMPTS: u32 = 5;

/// Why the lines cannot be read.
#[derive(Debug)]
pub enum ReadFault {
    /// A file cannot be read, or a line is damaged.
    Sink(SinkFault),
    /// Lines are missing, or are there twice.
    Gap {
        /// The file.
        path: PathBuf,
        /// The entry with which the next line should begin.
        expected: Seq,
        /// The one with which it does.
        found: Seq,
    },
    /// Nothing has been counted there.
    Nothing(PathBuf),
}

impl std::fmt::Display for ReadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadFault::Sink(cause) => write!(f, "counters: {cause}"),
            ReadFault::Gap { path, expected, found } => {
                let path = path.display();
                write!(f, "counters: {path}: the line behind entry {} begins with entry {}", expected.0 - 1, found.0)
            }
            ReadFault::Nothing(path) => write!(f, "counters: {}: there are none yet", path.display()),
        }
    }
}

impl std::error::Error for ReadFault {}

/// Hands every whole line to `each`, in order, and returns which entries they count together. The last line may be torn: it is being
/// written, or its writer is gone, and is left out. `begin` is called before the first one, and again if reading has to begin again.
///
/// # Errors
/// If a file cannot be read, a line is damaged, or the lines do not follow each other.
pub fn read_lines(directory: &Path, begin: &mut dyn FnMut(), each: &mut dyn FnMut(Line)) -> Result<Stretch, ReadFault> {
    let mut attempt = 1;
    loop {
        begin();
        match read_once(directory, each) {
            // The writer has put a file aside between the listing and the reading.
            Err(ReadFault::Gap { .. } | ReadFault::Sink(SinkFault::Io { .. })) if attempt < ATTEMPTS => attempt += 1,
            read => return read,
        }
    }
}

fn read_once(directory: &Path, each: &mut dyn FnMut(Line)) -> Result<Stretch, ReadFault> {
    let mut counted: Option<Stretch> = None;
    let paths = files(directory).map_err(ReadFault::Sink)?;
    let mut bytes = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let io = |what| move |cause| ReadFault::Sink(SinkFault::Io { what, path: path.clone(), cause });
        let mut reader = BufReader::new(File::open(path).map_err(io("open it"))?);
        let mut offset = 0;
        loop {
            bytes.clear();
            let bound = LINE_BYTES_MAX as u64 + 1;
            let read = reader.by_ref().take(bound).read_until(b'\n', &mut bytes).map_err(io("read it"))?;
            if read == 0 {
                break;
            }
            let may_be_torn = number + 1 == paths.len() && reader.fill_buf().map_err(io("read it"))?.is_empty();
            let line = match Line::parse(&bytes) {
                Ok(line) => line,
                Err(LineFault::Torn | LineFault::Check) if may_be_torn => break,
                Err(cause) => return Err(ReadFault::Sink(SinkFault::Damaged { path: path.clone(), offset, cause })),
            };
            let stretch = line.stretch();
            counted = Some(match counted {
                None => stretch,
                Some(counted) if counted.log != stretch.log => {
                    let (expected, found) = (counted.log, stretch.log);
                    return Err(ReadFault::Sink(SinkFault::OtherLedger { expected, found }));
                }
                Some(counted) if stretch.from.0 == counted.through.0 + 1 => Stretch { through: stretch.through, ..counted },
                Some(counted) => {
                    let expected = Seq(counted.through.0 + 1);
                    return Err(ReadFault::Gap { path: path.clone(), expected, found: stretch.from });
                }
            });
            each(line);
            offset += read as u64;
        }
    }
    counted.ok_or_else(|| ReadFault::Nothing(directory.to_owned()))
}
