//! `ronctl policy reload`: the server reads its policy file again, as on SIGHUP, and says what came of it.
use super::compare::{changes, Change};
use super::InForce;
use crate::control::Action;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use serde_json::json;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl policy reload
  ronctl --json policy reload

It is in force on all cores when the command ends with 0: no request that arrives later is decided under the policy before. A file that is no policy
changes nothing and ends the command with 2. Look before with: ronctl policy check")]
pub struct Reload {}

impl Reload {
    /// Asks the server.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let before = InForce::ask(context, &config)?;
        let told = context.ask_server(&config, Action::ReloadPolicy, "")?;
        let Some(after) = InForce::of(&told) else {
            return Err(Failure::internal("the server does not tell its policy", "use a ronctl of the version of the server"));
        };
        let changes = changes(&before.policy, &after.policy);
        if context.output.json {
            let changes: Vec<_> = changes.iter().map(Change::json).collect();
            context.output.value(
                &json!({"file": after.file, "before": before.version(), "version": after.version(), "changes": changes}),
            )?;
            return Ok(Exit::Done);
        }
        context.output.line(&format!("version {} of {} is in force on all cores", after.version(), after.file))?;
        if changes.is_empty() {
            context.output.line("it is what was in force before")?;
        }
        for change in &changes {
            context.output.line(&format!("  {}", change.line()))?;
        }
        Ok(Exit::Done)
    }
}
