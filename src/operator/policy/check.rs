//! `ronctl policy check`: a policy file, read as the server would read it, and held against the policy in force.
use super::compare::{changes, Change};
use super::InForce;
use crate::access::{self, PolicyFault, PolicyFlaw, PolicyFlaws};
use crate::config::Config;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl policy check /etc/ron/policy.d/wallet.policy.json
  ronctl policy check new.json && mv new.json /etc/ron/policy.d/wallet.policy.json && ronctl policy reload
  ronctl --json policy check new.json

Nothing is changed. A file that the server would refuse ends the command with 1, and each error is told with its field and its line. The file
is compared with what the server has in force; if none answers, with the file that the configuration names.

An editor that knows JSON Schema checks a policy while it is written: configs/policy.schema.json of the sources is its schema, and the member
\"$schema\" of a policy may name it.")]
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
        let policy = match access::Policy::load(&file) {
            Ok(policy) => policy,
            Err(fault) => return Ok(refused(context, &fault)),
        };
        let checked = policy.to_json();
        let none = || Err("no server is configured here".to_owned());
        let compared = config.as_ref().map_or_else(none, |config| compared(context, config, &file));
        let compared = compared.map(|(with, before)| (with, changes(&before, &checked)));
        if context.output.json {
            let mut told = json!({"file": file.display().to_string(), "ok": true, "version": policy.version()});
            match compared {
                Ok((with, changes)) => {
                    told["compared_with"] = with.into();
                    told["changes"] = changes.iter().map(Change::json).collect();
                }
                Err(why) => told["not_compared"] = why.into(),
            }
            context.output.value(&told)?;
            return Ok(Exit::Done);
        }
        context.output.line(&format!("{}: a good policy, version {}", file.display(), policy.version()))?;
        match compared {
            Ok((with, changes)) if changes.is_empty() => context.output.line(&format!("nothing changes against {with}"))?,
            Ok((with, changes)) => {
                context.output.line(&format!("changes against {with}:"))?;
                for change in &changes {
                    context.output.line(&format!("  {}", change.line()))?;
                }
                if changes.iter().all(|change| change.path != "version") {
                    context.output.line("the version stays the same: give it another one, which tells whether it is in force")?;
                }
            }
            Err(why) => context.output.line(&format!("not compared with a policy in force: {why}"))?,
        }
        Ok(Exit::Done)
    }
}

/// Tells why the server would refuse the file: people every flaw on a line of its own, programs all of them beside the first one.
fn refused(context: &Context, fault: &PolicyFault) -> Exit {
    let output = &context.output;
    let failure = |message| Failure { exit: Exit::No, message, next: "correct it there; nothing was changed".to_owned() };
    let PolicyFault::Malformed { path, flaws: PolicyFlaws { told, more, .. } } = fault else {
        output.failure(&failure(fault.to_string()));
        return Exit::No;
    };
    let message = match told.as_slice() {
        [first, ..] if output.json || told.len() == 1 => first.to_string(),
        several => {
            let mut lines = vec![format!("{} errors", several.len() + more)];
            lines.extend(several.iter().map(ToString::to_string));
            lines.extend((*more > 0).then(|| format!("and {more} more")));
            lines.join("\n  - ")
        }
    };
    let error = |flaw: &PolicyFlaw| json!({"path": flaw.path, "message": flaw.message, "line": flaw.line, "column": flaw.column});
    let members = json!({"errors": told.iter().map(error).collect::<Vec<_>>(), "more": more});
    output.failure_with(&failure(format!("policy {}: {message}", path.display())), members);
    Exit::No
}

/// What a file is compared with, and that policy; or why with nothing.
fn compared(context: &Context, config: &Config, file: &Path) -> Result<(String, Value), String> {
    let configured = &config.security.policy_file;
    match InForce::ask(context, config) {
        Ok(told) => Ok((format!("version {} in force", told.version()), told.policy)),
        Err(failure) if failure.exit != Exit::Unreachable => Err(failure.message),
        Err(failure) if file.canonicalize().ok() == configured.canonicalize().ok() => Err(failure.message),
        Err(_) => {
            let read = access::Policy::load(configured).map_err(|fault| fault.to_string())?;
            Ok((format!("{}, because no server answers", configured.display()), read.to_json()))
        }
    }
}
