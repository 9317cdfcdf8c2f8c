//! `ronctl audit`: the audit stream's files. Nothing here writes; a running server's stream is only read.
mod search;
mod shown;
mod tail;
mod verify;

use std::io::{BufWriter, ErrorKind, StdoutLock, Write};
use std::path::PathBuf;

use super::context::Context;
use super::exit::{Exit, Failure};
use crate::ledger::{DiskStorage, Storage};

/// What can be done with an audit stream.
#[derive(Debug, clap::Subcommand)]
pub enum Audit {
    /// Check every line of the stream and compare its accepted operations with the ledger
    Verify(verify::Verify),
    /// Show the last lines, and with --follow those that come
    Tail(tail::Tail),
    /// Find lines by account, token, subject, correlation id, transaction, outcome or time
    Search(search::Search),
}

impl Audit {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Audit::Verify(command) => command.run(context),
            Audit::Tail(command) => command.run(context),
            Audit::Search(command) => command.run(context),
        }
    }
}

/// Which stream a command is about.
#[derive(Debug, Default, clap::Args)]
pub struct Place {
    /// Directory of the stream; otherwise that of the configuration
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn storage(&self, context: &Context) -> Result<DiskStorage, Failure> {
        const NAME_IT: &str = "name the directory of the stream with --dir";
        let directory = match &self.dir {
            Some(directory) => directory.clone(),
            None => {
                let config = context.config()?;
                let named = config.audit_stream();
                named.ok_or_else(|| Failure::usage("this configuration keeps no audit stream (audit.sink)", NAME_IT))?
            }
        };
        let storage = DiskStorage::read_only(&directory).map_err(|fault| match fault.kind() {
            ErrorKind::NotFound => {
                Failure::usage(format!("{}: there is no directory of this name", directory.display()), NAME_IT)
            }
            _ => Failure::internal(format!("cannot read {}: {fault}", directory.display()), ""),
        })?;
        if crate::audit::files(&storage).map_err(|fault| unreadable(&storage, &fault))?.is_empty() {
            return Err(Failure::usage(format!("{}: there is no audit stream", directory.display()), NAME_IT));
        }
        Ok(storage)
    }
}

fn unreadable(storage: &DiskStorage, fault: &std::io::Error) -> Failure {
    Failure::internal(format!("cannot read the audit stream in {}: {fault}", storage.place("")), "")
}

/// Standard output for many lines; a reader that went away is no fault.
struct Lines(BufWriter<StdoutLock<'static>>);

impl Lines {
    fn new() -> Self {
        Self(BufWriter::new(std::io::stdout().lock()))
    }

    /// Writes a line, without its line feed; false if nobody reads any more.
    fn put(&mut self, line: &[u8]) -> Result<bool, Failure> {
        told(self.0.write_all(line).and_then(|()| self.0.write_all(b"\n")))
    }

    fn flush(&mut self) -> Result<bool, Failure> {
        told(self.0.flush())
    }
}

fn told(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(fault) if fault.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(fault) => Err(Failure::output(&fault)),
    }
}
