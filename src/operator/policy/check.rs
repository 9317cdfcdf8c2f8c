//! `ronctl policy check`: a policy file, read as the server would read it, and held against the policy in force.
use super::compare::{changes, Change};
use super::InForce;
use crate::access;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl policy check /etc/ron/policy.d/wallet.policy.json
  ronctl policy check new.json && mv new.json /etc/ron/policy.d/wallet.policy.json && ronctl policy reload
  ronctl --json policy check new.json

Nothing is changed. A file that the server would refuse ends the command with 1, and the message names the field and the line. The file is
compared with what the server has in force; if none answers, with the file that the configuration names.")]
pub struct Check {
    /// The policy file; by default the one that the configuration names
    file: Option<PathBuf>,
}

impl Check {
    /// Reads the file and tells the differences.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        // A file can be checked where no server is configured.
        let config = if self.file.is_none() || context.has_config() { Some(context.config()?) } else { None };
        let named = config.as_ref().map(|config| config.security.policy_file.clone());
        let Some(file) = self.file.clone().or(named) else { unreachable!("without a file there is a configuration") };
        let policy = access::Policy::load(&file).map_err(|fault| Failure {
            exit: Exit::No,
            message: fault.to_string(),
            next: "correct it there; nothing was changed".to_owned(),
        })?;
        let checked = policy.to_json();
        let compared = config.as_ref().map(|config| match InForce::ask(context, config) {
            Ok(told) => (format!("version {} in force", told.version()), Some(told.policy)),
            Err(_) => {
                let path = &config.security.policy_file;
                let read = access::Policy::load(path).ok().map(|policy| policy.to_json());
                (format!("{}, because no server answers", path.display()), read)
            }
        });
        let (with, changes) = match compared {
            Some((with, Some(before))) => (Some(with), changes(&before, &checked)),
            Some((with, None)) => {
                context.output.hint(&format!("not compared with {with}: it cannot be read"));
                (None, Vec::new())
            }
            None => (None, Vec::new()),
        };
        if context.output.json {
            let told: Vec<_> = changes.iter().map(Change::json).collect();
            let place = file.display().to_string();
            context.output.value(
                &json!({"file": place, "ok": true, "version": policy.version(), "compared_with": with, "changes": told}),
            )?;
            return Ok(Exit::Done);
        }
        context.output.line(&format!("{}: a good policy, version {}", file.display(), policy.version()))?;
        match with {
            Some(with) if changes.is_empty() => context.output.line(&format!("nothing changes against {with}"))?,
            Some(with) => {
                context.output.line(&format!("changes against {with}:"))?;
                for change in &changes {
                    context.output.line(&format!("  {}", change.line()))?;
                }
            }
            None => {}
        }
        Ok(Exit::Done)
    }
}
