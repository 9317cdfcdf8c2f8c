//! `ronctl registry`: the topology that a server has in force, or what the place that it comes from says now.
use serde::Deserialize;
use serde_json::Value;

use super::client::Request;
use super::context::Context;
use super::exit::{Exit, Failure};
use super::output::{printable, Output, Style};
use crate::config::{Config, RegistryDep};
use crate::control::Page;
use crate::registry::{Answer, Cell, Source, SourceFault};

/// Commands about the topology.
#[derive(Debug, clap::Subcommand)]
pub enum Registry {
    /// Show the topology in force: its version and age, where it comes from, and its cells
    Show(Show),
}

impl Registry {
    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Registry::Show(command) => command.run(context),
        }
    }
}

/// Arguments of `registry show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl registry show
  ronctl registry show --source
  ronctl --config /etc/ron/svc-wallet.toml --json registry show

Without --source the server is asked, over its admin socket (bind.admin): what it has in force, the age of the last good answer about it,
and what is wrong with the last one. With --source the file or the registry of deps.registry_url is asked, and no server. Ends with 0 if
a topology is shown and nothing is wrong with the last answer, 1 if something is, 3 if nobody answers.")]
pub struct Show {
    /// Ask the file or registry that the configuration names, and not the server
    #[arg(long)]
    source: bool,
}

/// A topology and what is known of it.
#[derive(Debug, Deserialize)]
struct Told {
    source: String,
    version: Option<u64>,
    age_seconds: Option<f64>,
    max_age_seconds: Option<f64>,
    trouble: Option<String>,
    cells: Option<Vec<Cell>>,
}

impl Show {
    fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let page = if self.source { ask_source(&config)? } else { ask_server(context, &config)? };
        let told = Told::deserialize(&page).map_err(|_| {
            Failure::internal("what the server says of its topology is not understood", "use a ronctl of its version")
        })?;
        if context.output.json {
            context.output.value(&page)?;
        } else {
            context.output.line(&summary(&context.output, &told))?;
        }
        Ok(if told.version.is_some() && told.trouble.is_none() { Exit::Done } else { Exit::No })
    }
}

fn ask_server(context: &Context, config: &Config) -> Result<Value, Failure> {
    let mut admin = context.admin(config).ok_or_else(|| {
        Failure::usage("the server has no admin socket to ask", "set bind.admin and start it again, or ask the source: --source")
    })?;
    let reply = context.exchange(&mut admin, &Request::get(Page::Registry.path()))?;
    match reply.status {
        200 => Ok(reply.json()),
        404 => Err(Failure::internal("the server does not know this question", "use a ronctl of its version")),
        status => Err(Failure::internal(format!("the server answers with status {status}"), "see its log")),
    }
}

fn ask_source(config: &Config) -> Result<Value, Failure> {
    let dep = &config.deps.registry;
    let source = Source::new(dep, config.registry.timeout, config.registry.poll_every);
    let mut source = source.map_err(|fault| Failure::usage(fault, "correct deps.registry_url"))?;
    let asked = source.ask(true);
    let told = |fault: &SourceFault| format!("{source}: {}", fault.reason());
    let found = match asked {
        Ok(Answer::Topology(found)) => found,
        Ok(Answer::Unchanged) => return Err(Failure::internal("nothing was asked for before, and nothing has changed", "")),
        Err(fault @ SourceFault::Unreachable(_)) => {
            return Err(Failure::unreachable(told(&fault), "start svc-registry, or correct deps.registry_url"))
        }
        Err(fault @ SourceFault::Refused(_)) => {
            let next = match dep {
                RegistryDep::File(_) => "correct the file; docs/INTEROP.md has its form",
                RegistryDep::Http(_) => "look at the registry and at its log",
            };
            return Err(Failure::usage(told(&fault), next));
        }
    };
    Ok(serde_json::json!({
        "source": source.to_string(),
        "version": found.version(),
        "age_seconds": 0,
        "max_age_seconds": config.registry.max_age.as_secs_f64(),
        "trouble": null,
        "cells": found.cells(),
    }))
}

fn summary(output: &Output, told: &Told) -> String {
    let version = told
        .version
        .map_or_else(|| output.paint(Style::Bad, "none yet"), |version| output.paint(Style::Strong, &version.to_string()));
    let age = match (told.age_seconds, told.max_age_seconds) {
        (Some(age), Some(max)) => {
            let style = if age > max { Style::Bad } else { Style::Good };
            format!("{}, good for {max:.0} s", output.paint(style, &format!("{age:.1} s")))
        }
        (Some(_), None) | (None, _) => "-".to_owned(),
    };
    let mut rows = vec![("source", printable(&told.source)), ("version", version), ("last good answer", age)];
    if let Some(trouble) = &told.trouble {
        rows.push(("last answer", output.paint(Style::Bad, &printable(trouble))));
    }
    let mut text = output.fields(&rows);
    let cells = told.cells.as_deref().unwrap_or_default();
    let width = cells.iter().map(|cell| cell.name.len()).max().unwrap_or(0);
    for Cell { name, slots: (first, last), addresses } in cells {
        let slots = format!("slots {first}-{last}");
        text.push_str(&format!("\n{name:width$}  {slots:17}  {}", addresses.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_shown_with_what_is_wrong() {
        let output = Output { json: false, colour: false, hints: false };
        let page = serde_json::json!({
            "source": "http://r:1", "version": 3, "age_seconds": 400.25, "max_age_seconds": 300.0, "trouble": "it does not answer",
            "cells": [{"name": "a", "slots": [0, 99], "addresses": ["http://h:1", "http://i:1"]},
                      {"name": "longer", "slots": [100, 16_383], "addresses": ["http://[::1]:2"]}],
        });
        let told = Told::deserialize(&page).unwrap();
        assert_eq!(
            summary(&output, &told),
            "source            http://r:1\nversion           3\nlast good answer  400.2 s, good for 300 s\n\
             last answer       it does not answer\n\
             a       slots 0-99         http://h:1 http://i:1\nlonger  slots 100-16383    http://[::1]:2"
        );
        let nothing = serde_json::json!({"source": "http://r:1", "version": null, "age_seconds": null, "max_age_seconds": 300.0, "trouble": null, "cells": null});
        let told = Told::deserialize(&nothing).unwrap();
        assert_eq!(summary(&output, &told), "source            http://r:1\nversion           none yet\nlast good answer  -");
    }
}
