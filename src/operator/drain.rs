//! `ronctl drain`: takes a server out of rotation for a while, and puts it back. It serves whatever arrives all the same.
use super::context::Context;
use super::exit::{Exit, Failure};
use super::output::printable;
use crate::control::Action;

/// Whether the server is out of rotation.
#[derive(Debug, clap::Subcommand)]
pub enum Drain {
    /// Take the server out of rotation: /readyz answers 503, and whatever arrives is served
    On(On),
    /// Put it back
    Off(Off),
}

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl drain on
  ronctl drain on && systemctl restart svc-wallet

Whoever distributes the work looks at /readyz and turns away; how many requests are in flight still is the metric inflight. It lasts until
ronctl drain off, or the next start. A server that is told to end drains by itself: this is for work on the machine, and for a look at what
the others do without it.")]
pub struct On {}

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl drain off

It ends with 0 as well if the server is not ready for another reason; ronctl status says which.")]
pub struct Off {}

impl Drain {
    /// Asks the server.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let (action, told) = match self {
            Drain::On(_) => (
                Action::DrainOn,
                "out of rotation: /readyz answers 503, and whatever arrives is served; ronctl drain off ends it",
            ),
            Drain::Off(_) => (Action::DrainOff, "in rotation"),
        };
        let readiness = context.ask_server(&context.config()?, action, "")?;
        if context.output.json {
            context.output.value(&readiness)?;
            return Ok(Exit::Done);
        }
        context.output.line(told)?;
        let reasons = readiness["reasons"].as_object().into_iter().flatten().filter(|(what, _)| *what != "drain");
        for (what, why) in reasons {
            context.output.line(&format!("not ready, {what}: {}", printable(why.as_str().unwrap_or_default())))?;
        }
        Ok(Exit::Done)
    }
}
