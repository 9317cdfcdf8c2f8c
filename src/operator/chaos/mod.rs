//! `ronctl chaos`: faults on purpose, to see how the service and its clients live with them (runbook, section 9). The server does it, is
//! asked on its admin socket, and refuses unless its configuration allows it.
pub mod clear;
pub mod inject;
pub mod list;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::output::{printable, rfc3339};
use serde_json::Value;

/// What can be done with faults.
#[derive(Debug, clap::Subcommand)]
pub enum Chaos {
    /// Inject a fault that ends by itself
    Inject(inject::Inject),
    /// Show the faults that are active
    List(list::List),
    /// End a fault, or all of them, before their time
    Clear(clear::Clear),
}

impl Chaos {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Chaos::Inject(command) => command.run(context),
            Chaos::List(command) => command.run(context),
            Chaos::Clear(command) => command.run(context),
        }
    }
}

/// One fault in a line: what it is called, what it does, and when it ends.
fn line(fault: &Value) -> String {
    let text = |name: &str| fault[name].as_str().map_or_else(|| "?".to_owned(), printable);
    let left = std::time::Duration::from_millis(fault["left_ms"].as_u64().unwrap_or_default());
    let end = fault["end_ms"].as_u64().and_then(rfc3339).unwrap_or_else(|| "?".to_owned());
    let left = humantime::format_duration(std::time::Duration::from_secs(left.as_secs_f64().ceil() as u64));
    format!("{}  {}, until {end} ({left} left)", text("id"), text("what"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_a_line() {
        let fault = serde_json::json!({"id": "f-1", "what": "disconnect of ron-ledger", "left_ms": 29_001, "end_ms": 1_500});
        assert_eq!(line(&fault), "f-1  disconnect of ron-ledger, until 1970-01-01T00:00:01.5Z (30s left)");
        assert_eq!(line(&Value::Null), "?  ?, until ? (0s left)");
    }
}
