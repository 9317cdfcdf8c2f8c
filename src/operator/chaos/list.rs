//! `ronctl chaos list`: which faults are active.
use super::line;
use crate::control::Page;
use crate::operator::client::Request;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl chaos list
  ronctl --json chaos list | jq '.active[].id'

Tells as well whether the server lets faults be injected.")]
pub struct List {}

impl List {
    /// Asks the server and shows them.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let mut client = context.admin(&config).ok_or_else(|| {
            let what = "faults are told on the admin socket, and the configuration has none";
            Failure::usage(what, "set bind.admin, and start the server again")
        })?;
        let told = context.exchange(&mut client, &Request::get(Page::Faults.path()))?.json();
        let Some(active) = told["active"].as_array() else {
            return Err(Failure::internal("the server does not tell its faults", "use a ronctl of the version of the server"));
        };
        if context.output.json {
            context.output.value(&told)?;
            return Ok(Exit::Done);
        }
        for fault in active {
            context.output.line(&line(fault))?;
        }
        if active.is_empty() {
            let allowed = told["allowed"].as_bool() == Some(true);
            let more = if allowed { "" } else { ", and none is allowed: faults.allowed is false" };
            context.output.line(&format!("no fault is active{more}"))?;
        }
        Ok(Exit::Done)
    }
}
