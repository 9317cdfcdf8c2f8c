//! `ronctl wallet seq`: how far the debits of an account have come; what to tell a client that gets 409 (runbook, section 6).
//!
//! Asks the server, or, when that is down, reads the ledger that it left.
use std::ops::ControlFlow;

use serde_json::json;

use super::{account_named, answer, ask, remark, Authority};
use crate::domain::{Account, Nonce};
use crate::ledger::{DiskStorage, Walk};
use crate::operator::client::percent_encoded;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::ledger::{unreadable, Directory};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl wallet seq --account alice
  ronctl --json wallet seq --account alice
  ronctl wallet seq --account alice --from-ledger --dir /var/lib/ron/ledger

A client that was refused with NONCE_CONFLICT resends with the next nonce and a new idempotency key;
one that never saw a reply repeats its request unchanged, which is always safe. With --from-ledger no
server is needed: the segments are read from the newest back to the one with the last debit.")]
pub struct Seq {
    /// Account to ask for
    #[arg(long)]
    pub account: String,
    /// Read the directory of the ledger instead of asking the server
    #[arg(long, conflicts_with = "token")]
    from_ledger: bool,
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    authority: Authority,
}

const NAMES: [(&str, &str); 3] = [("last_nonce", "last confirmed nonce"), ("next_nonce", "next nonce"), ("as_of", "as of time")];

impl Seq {
    /// Asks and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        if self.from_ledger {
            return self.read(context);
        }
        if self.directory.dir.is_some() {
            return Err(Failure::usage("--dir goes with --from-ledger", "add --from-ledger to read that directory"));
        }
        let target = format!("/v1/seq?account={}", percent_encoded(&self.account));
        let reply = ask(context, &self.authority, &target, Some(&self.account))?;
        let exit = answer(&context.output, &reply, &NAMES)?;
        remark(&context.output, "The next debit of this account carries the next nonce, with an idempotency key of its own.")?;
        Ok(exit)
    }

    fn read(&self, context: &Context) -> Result<Exit, Failure> {
        let account = account_named(&self.account)?;
        let walk = self.directory.walk(context)?;
        let (last, head) = last_debit(&walk, account)?;
        let next = last.0.saturating_add(1);
        let output = &context.output;
        if output.json {
            output.value(&json!({"account": self.account, "last_nonce": last.0, "next_nonce": next, "through": head}))?;
            return Ok(Exit::Done);
        }
        output.line(&output.fields(&[
            ("account", self.account.clone()),
            ("last confirmed nonce", last.0.to_string()),
            ("next nonce", next.to_string()),
            ("as of entry", head.to_string()),
        ]))?;
        remark(output, "Read from the ledger on disk; a server that runs may have come further meanwhile.")?;
        Ok(Exit::Done)
    }
}

/// The nonce of the last debit of this account, 0 if there is none, and the last entry of the ledger.
fn last_debit(walk: &Walk<DiskStorage>, account: Account<'_>) -> Result<(Nonce, u64), Failure> {
    let mut head = None;
    let mut expected = walk.segments().last().map_or(0, |segment| segment.index);
    for segment in walk.segments().iter().rev() {
        if segment.index != expected {
            return Err(gone(&format!("segment {expected} is missing")));
        }
        expected -= 1;
        let mut last = None;
        let end = walk.segment(segment, &mut |batch| {
            batch.visit(|_, entry| {
                if entry.from() == Some(account) {
                    last = entry.nonce();
                }
                ControlFlow::Continue(())
            })
        });
        let end = end.map_err(|fault| unreadable(&fault))?;
        let head = *head.get_or_insert(end.head.0);
        if let Some(last) = last {
            return Ok((last, head));
        }
    }
    match walk.segments().first() {
        Some(first) if first.index > 1 => Err(gone(&format!("segments before {} are not here", first.index))),
        Some(_) | None => Ok((Nonce(0), head.unwrap_or(0))),
    }
}

/// There is no debit in what could be read, and that is not everything.
fn gone(what: &str) -> Failure {
    Failure {
        exit: Exit::No,
        message: format!("no debit of this account has been found, and {what}"),
        next: "ask the server: ronctl wallet seq --account ID".to_owned(),
    }
}
