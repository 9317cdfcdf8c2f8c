//! `ronctl chaos clear`: ends a fault, or all of them, before their time.
use crate::control::Action;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use serde_json::{json, Value};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl chaos clear
  ronctl chaos clear f-1")]
pub struct Clear {
    /// Which one, as `ronctl chaos list` names it; without it all of them
    #[arg(value_name = "ID")]
    id: Option<String>,
}

impl Clear {
    /// Asks the server.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let told = context.ask_server(&config, Action::ClearFaults, &json!({"id": self.id}).to_string())?;
        if context.output.json {
            context.output.value(&told)?;
            return Ok(Exit::Done);
        }
        let cleared: Vec<&str> = told["cleared"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let line = if cleared.is_empty() { "no fault was active".to_owned() } else { format!("ended: {}", cleared.join(", ")) };
        context.output.line(&line)?;
        Ok(Exit::Done)
    }
}
