//! `--check-config`: the effective configuration with its origins, and everything that stands in the way of a start.
//!
//! What lies outside of the configuration, such as files and addresses, is looked at by the caller's function: this module reads
//! no other file and asks nothing of the machine.
use super::{Config, ConfigError, Described, Problem, Sources};
use serde_json::{json, Value};
use std::fmt::Write;
use std::io::{self, ErrorKind, Write as _};

/// The outcome of a check, ready to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For standard output; ends with a line feed.
    pub text: String,
    /// Whether a server would start with it, as far as can be told without starting one.
    pub ok: bool,
}

impl Report {
    /// Prints it. Whoever reads only its beginning has seen enough.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print(&self) -> io::Result<()> {
        match writeln!(io::stdout(), "{}", self.text.trim_end()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            printed => printed.map_err(|error| io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))),
        }
    }
}

/// What a usable configuration does not promise.
const NOT_CHECKED: &str = "Seen at the start only: whether the addresses are free, and what is in the ledger and the counters.";

/// Checks the configuration, and with `look_around` what it names. The report is a table for people, or one JSON object.
pub fn check(sources: &Sources<'_>, as_json: bool, look_around: &dyn Fn(&Config) -> Vec<Problem>) -> Report {
    let (config, problems) = match Config::load(sources) {
        Ok(config) => {
            let mut problems = config.supported().err().map_or(Vec::new(), |ConfigError { problems }| problems);
            problems.extend(look_around(&config));
            (Some(config), problems)
        }
        Err(ConfigError { problems }) => (None, problems),
    };
    let text = if as_json { json_of(config.as_ref(), &problems) } else { table_of(config.as_ref(), &problems) };
    Report { text, ok: problems.is_empty() }
}

fn table_of(config: Option<&Config>, problems: &[Problem]) -> String {
    let mut text = String::new();
    if let Some(config) = config {
        let described = config.describe();
        let width = |measure: fn(&Described) -> usize| described.iter().map(measure).max().unwrap_or(0);
        let (key_width, value_width) = (width(|one| one.key.len()), width(|one| one.shown.chars().count().min(48)));
        for one in &described {
            let idle = if one.idle { ", not used under amnesia" } else { "" };
            line(&mut text, &format!("{:key_width$}  {:value_width$}  {}{idle}", one.key, one.shown, one.origin));
        }
        line(&mut text, "");
    }
    match problems.len() {
        0 => {
            line(&mut text, "The configuration is valid, and this version can run it here.");
            line(&mut text, NOT_CHECKED);
        }
        1 => line(&mut text, "The configuration cannot be used, 1 problem:"),
        count => line(&mut text, &format!("The configuration cannot be used, {count} problems:")),
    }
    problems.iter().for_each(|problem| line(&mut text, &format!("  - {problem}")));
    text
}

fn json_of(config: Option<&Config>, problems: &[Problem]) -> String {
    let value_of = |one: &Described| {
        let (origin, used) = (one.origin.to_string(), !one.idle);
        json!({ "key": one.key, "value": one.value, "origin": origin, "used": used, "meaning": one.meaning })
    };
    let problem_of = |problem: &Problem| {
        json!({
            "subject": problem.subject,
            "origin": problem.origin.as_ref().map(ToString::to_string),
            "message": problem.message,
        })
    };
    let report = json!({
        "ok": problems.is_empty(),
        "file": config.and_then(|config| config.file.as_ref()).map(|file| file.display().to_string()),
        "values": config.map_or(Value::Null, |config| config.describe().iter().map(value_of).collect()),
        "problems": problems.iter().map(problem_of).collect::<Value>(),
    });
    format!("{report}\n")
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}
