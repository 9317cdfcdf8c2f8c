//! `ronctl cap inspect`: what a capability, or a discharge, says about itself. Needs neither server nor keyring, and so proves nothing.
use std::path::Path;

use serde_json::{json, Value};

use super::token;
use crate::access::{inspect, inspect_discharge, Description, Discharge, Limits};
use crate::api::Route;
use crate::domain::UnixMs;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{printable, Output, Style};
use crate::worker::unix_now;

/// What can be done with a capability, and a route that stands for it.
const KINDS: [(&str, Route); 7] = [
    ("issue", Route::Issue),
    ("transfer", Route::Transfer),
    ("burn", Route::Burn),
    ("hold", Route::Hold),
    ("capture", Route::Capture),
    ("release", Route::Release),
    ("read", Route::Balance),
];

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl cap inspect - < alice.token
  ronctl cap mint --subject alice --scopes wallet:read --ttl 900s | ronctl cap inspect -

The signature is not checked: only the server can say whether a token is genuine, and whether it was revoked. Ends with 1 if the token
allows nothing now: it has expired, is not valid yet, or has a caveat that denies everything.")]
pub struct Inspect {
    /// Capability or discharge to show, or - to read it from standard input: every user of the machine can read a command line
    #[arg(value_name = "TOKEN")]
    pub token: String,
}

impl Inspect {
    /// Reads the token and prints what it says.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let text = if self.token == "-" { token::read(Path::new("-"))? } else { self.token.clone() };
        let (text, now, output) = (text.trim(), unix_now(), &context.output);
        if let Some(description) = inspect(text) {
            let allows = allowed(&description.limits);
            show(output, &description, &allows, now)?;
            return Ok(usable(&description.limits, !allows.is_empty(), now));
        }
        let discharge = inspect_discharge(text).ok_or_else(|| {
            Failure::usage(
                "this is neither a capability in the form of this service nor a discharge",
                "copy the whole token, or make one with `ronctl cap mint`",
            )
        })?;
        show_discharge(output, &discharge, now)?;
        Ok(usable(&discharge.limits, !discharge.limits.not_understood, now))
    }
}

fn usable(limits: &Limits, allows: bool, now: UnixMs) -> Exit {
    if allows && !limits.expired(now) && !limits.early(now) {
        Exit::Done
    } else {
        Exit::No
    }
}

/// What the token reaches by its scopes, whenever it is valid.
fn allowed(limits: &Limits) -> Vec<&'static str> {
    let reached = KINDS.iter().filter(|(_, route)| limits.reaches(route.scopes().expect("it needs a capability")));
    reached.map(|(name, _)| *name).collect()
}

fn show(output: &Output, description: &Description, allows: &[&str], now: UnixMs) -> Result<(), Failure> {
    let limits = &description.limits;
    if output.json {
        let mut members = json!({
            "subject": description.subject, "key_id": description.key_id, "token_id": description.token_id, "issued": description.issued,
            "allows": allows, "signature_checked": false,
        });
        add_members(&mut members, limits, now);
        return output.value(&members);
    }
    let allows = match (allows, limits.not_understood) {
        (_, true) => output.paint(Style::Bad, "nothing: a caveat of it is not understood"),
        ([], false) => output.paint(Style::Bad, "nothing: its scopes have nothing of this service in common"),
        (kinds, false) => format!("to {}, within the limits below", in_a_row(kinds)),
    };
    let mut rows = vec![
        ("subject", printable(&description.subject)),
        ("token id", description.token_id.clone()),
        ("signed with", description.key_id.clone()),
        ("issued", description.issued.clone()),
        ("allows", allows),
    ];
    rows.extend(times_and_needs(output, limits, now));
    output.line(&output.fields(&rows))?;
    show_limits(output, limits)?;
    let unknown = "The signature was not checked; only the server can say whether it is genuine, and whether it was revoked.";
    output.line(&output.paint(Style::Faint, unknown))
}

fn show_discharge(output: &Output, discharge: &Discharge, now: UnixMs) -> Result<(), Failure> {
    let limits = &discharge.limits;
    if output.json {
        let mut members = json!({"discharge": {"location": discharge.location, "id": discharge.id}, "signature_checked": false});
        add_members(&mut members, limits, now);
        return output.value(&members);
    }
    let location = if discharge.location.is_empty() { "(not said)".to_owned() } else { discharge.location.clone() };
    let mut rows = vec![("discharge", format!("for {}", discharge.id)), ("made by", location)];
    rows.extend(times_and_needs(output, limits, now));
    output.line(&output.fields(&rows))?;
    show_limits(output, limits)?;
    let unknown =
        "This is no capability: it counts only beside the token that asks for it, to which it is bound, in X-Wallet-Discharge.";
    output.line(&output.paint(Style::Faint, unknown))
}

fn add_members(members: &mut Value, limits: &Limits, now: UnixMs) {
    for (name, value) in [
        ("not_before", json!(limits.not_before)),
        ("expires", json!(limits.expires)),
        ("expired", json!(limits.expired(now))),
        ("early", json!(limits.early(now))),
        ("third_parties", json!(limits.third_parties)),
        ("caveats", json!(limits.caveats)),
        ("smallest", json!(limits.smallest)),
    ] {
        members[name] = value;
    }
}

fn times_and_needs(output: &Output, limits: &Limits, now: UnixMs) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(from) = &limits.not_before {
        let early = limits.early(now);
        rows.push(("from", if early { output.paint(Style::Bad, &format!("{from} (not valid yet)")) } else { from.clone() }));
    }
    let expires = match (&limits.expires, limits.expired(now)) {
        (Some(expires), true) => output.paint(Style::Bad, &format!("{expires} (has expired)")),
        (Some(expires), false) => expires.clone(),
        (None, _) => output.paint(Style::Warning, "never"),
    };
    rows.push(("until", expires));
    if !limits.third_parties.is_empty() {
        rows.push(("needs", format!("a discharge from {}", in_a_row(&limits.third_parties))));
    }
    rows
}

fn show_limits(output: &Output, limits: &Limits) -> Result<(), Failure> {
    output.line(&output.paint(Style::Faint, "It is limited, all at once:"))?;
    limits.caveats.iter().try_for_each(|caveat| output.line(&format!("  - {caveat}")))?;
    if !limits.smallest.is_empty() {
        output.line(&output.paint(Style::Faint, "Of several limits of a kind the smallest holds:"))?;
        limits.smallest.iter().try_for_each(|limit| output.line(&format!("  - {limit}")))?;
    }
    if limits.expires.is_some() || limits.not_before.is_some() {
        let leeway = "At both ends the server gives its leeway, security.clock_leeway, 5 s unless configured.";
        output.line(&output.paint(Style::Faint, leeway))?;
    }
    Ok(())
}

/// Names as a sentence has them.
fn in_a_row<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_a_row() {
        let told = [&[][..], &["a"], &["a", "b"], &["a", "b", "c"]].map(in_a_row);
        assert_eq!(told, ["", "a", "a and b", "a, b and c"]);
    }

    #[test]
    fn every_kind_of_request_is_named_once() {
        for route in Route::ALL {
            let Some(scopes) = route.scopes() else { continue };
            let named = KINDS.iter().filter(|(_, known)| known.scopes() == Some(scopes)).count();
            assert_eq!(named, 1, "{route:?}");
        }
    }
}
