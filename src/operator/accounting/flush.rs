//! `ronctl accounting flush`: the server counts everything that is durable now.
use crate::control::Action;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{bar, grouped};
use serde_json::Value;

/// Length of the bar, in characters.
const BAR_WIDTH: usize = 24;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl accounting flush
  ronctl --json accounting flush | jq .through

It ends with 0 once everything that was durable when it began is counted and on the disk of the counters. The server is asked on its admin
socket; if the counters cannot be written, it says why.")]
pub struct Flush {}

impl Flush {
    /// Asks the server until everything is counted.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let told = until_counted(context, Action::FlushCounters)?;
        if context.output.json {
            context.output.value(&told)?;
        } else {
            let through = grouped(u128::from(told["through"].as_u64().unwrap_or_default()));
            let sink = told["sink"].as_str().unwrap_or_default();
            context.output.line(&format!("counted through entry {through}, kept in {sink}"))?;
        }
        Ok(Exit::Done)
    }
}

/// Gives this order, and then asks for flushes until everything is counted that was durable at first.
pub(super) fn until_counted(context: &Context, first: Action) -> Result<Value, Failure> {
    let config = context.config()?;
    let (mut action, mut head, mut begun) = (first, None, None);
    loop {
        let told = context.ask_server(&config, action, "");
        context.output.progress("");
        let told = told?;
        let number = |member: &str| {
            let next = "use a ronctl of the version of the server";
            told[member].as_u64().ok_or_else(|| Failure::internal(format!("the server does not tell {member:?}"), next))
        };
        let (through, newest) = (number("through")?, number("head")?);
        let head = *head.get_or_insert(newest);
        let begun = *begun.get_or_insert(through);
        if through >= head {
            return Ok(told);
        }
        action = Action::FlushCounters;
        let [done, whole] = [through - begun.min(through), head - begun.min(head)];
        let [through, head] = [through, head].map(|number| grouped(u128::from(number)));
        context.output.progress(&format!("{} entry {through} of {head}", bar(done, whole, BAR_WIDTH)));
    }
}
