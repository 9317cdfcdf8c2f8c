//! `ronctl audit tail`: the last lines, and those that come, over the ends of files.
use std::collections::VecDeque;
use std::time::Duration;

use super::shown::shown;
use super::{unreadable, Lines, Place};
use crate::audit::{file_name, files, Follower, Next};
use crate::ledger::Storage;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Pause before it is looked for more lines.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most lines that are shown of what is there.
const LINES_MAX: u64 = 100_000;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl audit tail
  ronctl audit tail --lines 100 --follow
  ronctl --json audit tail --follow | jq -r 'select(.outcome == \"refused\") | .corr_id'

Hashes are not checked here: `ronctl audit verify` does that. With --json each line is written as it stands in the stream.")]
pub struct Tail {
    #[command(flatten)]
    place: Place,
    /// How many of the last lines
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=LINES_MAX))]
    lines: u64,
    /// Go on with lines as they come, until it is interrupted
    #[arg(short, long)]
    follow: bool,
}

impl Tail {
    /// Reads and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let storage = self.place.storage(context)?;
        let failed = |fault: std::io::Error| unreadable(&storage, &fault);
        let numbers = files(&storage).map_err(failed)?;
        let newest = numbers.last().copied().expect("a stream has a file");
        let mut follower = Follower::from_file(storage.clone(), newest);
        let (count, mut line) = (self.lines as usize, Vec::new());
        let mut last: VecDeque<Vec<u8>> = VecDeque::new();
        let keep = |kept: &mut VecDeque<Vec<u8>>, line: &[u8]| {
            kept.push_back(line.to_vec());
            let surplus = kept.len().saturating_sub(count);
            kept.drain(..surplus);
        };
        while follower.next(&mut line).map_err(failed)? {
            keep(&mut last, &line);
        }
        for number in numbers.iter().rev().skip(1) {
            if last.len() >= count {
                break;
            }
            let mut earlier = VecDeque::new();
            let mut lines = crate::audit::Lines::of(storage.open(&file_name(*number)).map_err(failed)?);
            while lines.next(&mut line).map_err(failed)? == Next::Line {
                keep(&mut earlier, &line);
            }
            earlier.append(&mut last);
            let surplus = earlier.len().saturating_sub(count);
            earlier.drain(..surplus);
            last = earlier;
        }
        let mut out = Lines::new();
        for line in last {
            if !out.put(&shown(&context.output, &line))? {
                return Ok(Exit::Done);
            }
        }
        loop {
            if !out.flush()? || !self.follow {
                return Ok(Exit::Done);
            }
            std::thread::sleep(LOOK_EVERY);
            while follower.next(&mut line).map_err(failed)? {
                if !out.put(&shown(&context.output, &line))? {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}
