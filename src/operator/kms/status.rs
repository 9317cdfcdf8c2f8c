//! `ronctl kms status`: how the keyring is kept and which keys are on it.
//!
//! With `--expect` it answers whether the posture is the one that is expected, so that a deployment can stop there.
use serde_json::{json, Value};

use super::posture::{Key, Posture};
use super::Served;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{rfc3339, Style};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl kms status
  ronctl kms status --expect hybrid=on
  ronctl kms status --expect sealed=on,hybrid=off
  ronctl --json kms status

What can be expected: hybrid (on, off), sealed (on, off), kms (as in the configuration), active (a key id) and version (a number); several are separated
by commas. If one is not so, the command ends with 1; so it does if something is expected and the server that answers has another version of
the keyring in force.")]
pub struct Status {
    /// End with 1 unless all of this holds
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = expectation)]
    expect: Vec<(String, String)>,
}

/// Properties that can be expected, in the order in which they are shown.
const PROPERTIES: [&str; 5] = ["hybrid", "sealed", "kms", "active", "version"];

fn expectation(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if !PROPERTIES.contains(&name) {
        return Err(format!("{name:?} is not known; write one of {}", PROPERTIES.join(", ")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl Status {
    /// Shows it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let posture = Posture::of(context, &config)?;
        let served = Served::ask(context, &config)?;
        let is = |name: &str| property(&posture, name);
        let mut unmet: Vec<String> = self
            .expect
            .iter()
            .filter(|(name, value)| is(name) != *value)
            .map(|(name, value)| format!("{name}={value} is expected, and it is {}", is(name)))
            .collect();
        match served {
            Served::Version(version) if version != posture.version && !self.expect.is_empty() => unmet.push(format!(
                "the server is expected to have version {} of the keyring in force, and it has {version}",
                posture.version
            )),
            Served::Version(_) | Served::Nobody => {}
        }
        let exit = if unmet.is_empty() { Exit::Done } else { Exit::No };
        if context.output.json {
            let mut members = json!({"keyring": posture.place});
            for name in PROPERTIES {
                members[name] = Value::String(is(name));
            }
            members["version"] = posture.version.into();
            members["keys"] =
                posture.keys.iter().map(|key| json!({"id": key.id, "hybrid": key.hybrid, "created": made(key)})).collect();
            members["server_version"] = match served {
                Served::Version(version) => version.into(),
                Served::Nobody => Value::Null,
            };
            members["unmet"] = unmet.into();
            context.output.value(&members)?;
            return Ok(exit);
        }
        let mut rows = vec![("keyring", posture.place.clone())];
        rows.extend(PROPERTIES.map(|name| (name, is(name))));
        for key in &posture.keys {
            let made = made(key).map_or("age unknown".to_owned(), |at| format!("made {at}"));
            let hybrid = if key.hybrid { "hybrid" } else { "not hybrid" };
            rows.push(("key", format!("{}, {hybrid}, {made}", key.id)));
        }
        rows.push(("server", served.shown()));
        rows.extend(unmet.iter().map(|unmet| ("NOT MET", context.output.paint(Style::Bad, unmet))));
        context.output.line(&context.output.fields(&rows))?;
        if !posture.sealed {
            context.output.hint("the keyring is in the clear form; seal it with: ronctl kms seal");
        }
        Ok(exit)
    }
}

fn made(key: &Key) -> Option<String> {
    key.created.and_then(rfc3339)
}

fn property(posture: &Posture, name: &str) -> String {
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    match name {
        "hybrid" => switch(posture.hybrid),
        "sealed" => switch(posture.sealed),
        "kms" => posture.kms.clone(),
        "active" => posture.active.clone(),
        "version" => posture.version.to_string(),
        unknown => unreachable!("{unknown} is not among the properties"),
    }
}
