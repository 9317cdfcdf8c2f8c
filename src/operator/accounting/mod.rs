//! `ronctl accounting`: the counters, which are derived from the ledger: flushed now, shown, and held against it.
pub mod flush;
pub mod reconcile;
pub mod show;

use std::path::PathBuf;

use super::context::Context;
use super::exit::{Exit, Failure};
use crate::accounting::{files_behind, read_lines, Flows, ReadFault, Stretch};
use crate::config::AccountingDep;
use crate::domain::{hex, LogId};

/// What can be done with the counters.
#[derive(Debug, clap::Subcommand)]
pub enum Accounting {
    /// Count everything that is durable now, without waiting for the next flush
    Flush(flush::Flush),
    /// Show how often and for how much accounts were debited and credited
    Show(show::Show),
    /// Hold the counters against the ledger, list what differs, and count anew if that is asked for
    Reconcile(reconcile::Reconcile),
}

impl Accounting {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Accounting::Flush(command) => command.run(context),
            Accounting::Show(command) => command.run(context),
            Accounting::Reconcile(command) => command.run(context),
        }
    }
}

/// Which counters a command is about.
#[derive(Debug, clap::Args)]
pub struct Counters {
    /// Directory of the counters; otherwise that of the configuration, or of the daemon behind its socket
    #[arg(long = "counters", value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Counters {
    /// Their directory. A daemon may count several ledgers: `log` says which is meant, if that is known.
    fn path(&self, context: &Context, log: Option<LogId>) -> Result<PathBuf, Failure> {
        if let Some(directory) = &self.directory {
            return Ok(directory.clone());
        }
        let config = context.config()?;
        if config.security.amnesia {
            let message = "under security.amnesia the server keeps no counters";
            return Err(Failure::usage(
                message,
                "what its ledger holds is told by `ronctl wallet entries` and `ronctl wallet totals`",
            ));
        }
        match config.deps.accounting {
            AccountingDep::Embedded(directory) => Ok(directory),
            AccountingDep::Unix(socket) => {
                let (directory, logs) = files_behind(&socket).map_err(|fault| {
                    Failure::unreachable(fault.to_string(), "start ron-accounting, or name the directory with --counters DIR")
                })?;
                let log = match (log.map(|log| hex(&log.0)), &*logs) {
                    (Some(log), _) => log,
                    (None, [log]) => log.clone(),
                    (None, []) => {
                        return Err(Failure {
                            exit: Exit::No,
                            message: "nothing has been counted yet".into(),
                            next: FLUSH.into(),
                        })
                    }
                    (None, several) => {
                        let message = format!("the daemon counts {} ledgers: {}", several.len(), several.join(", "));
                        let next = format!("name the directory of one, --counters {}/NAME", directory.display());
                        return Err(Failure::usage(message, next));
                    }
                };
                Ok(directory.join(log))
            }
        }
    }
}

/// What to do about counters that are damaged.
const REPAIR: &str = "`ronctl accounting reconcile --repair` sets them aside and counts everything anew";
const FLUSH: &str = "they are written within ten seconds, or by `ronctl accounting flush`";

/// Everything that the counters in this directory say, and of which entries.
fn counted(directory: &std::path::Path) -> Result<(Stretch, Flows), Failure> {
    let flows = std::cell::RefCell::new(Flows::default());
    let read =
        read_lines(directory, &mut || *flows.borrow_mut() = Flows::default(), &mut |line| flows.borrow_mut().add_line(line));
    let stretch = read.map_err(|fault| match fault {
        ReadFault::Nothing(_) => Failure { exit: Exit::No, message: fault.to_string(), next: FLUSH.to_owned() },
        ReadFault::Gap { .. } | ReadFault::Sink(_) => {
            Failure { exit: Exit::No, message: fault.to_string(), next: REPAIR.to_owned() }
        }
    })?;
    Ok((stretch, flows.into_inner()))
}
