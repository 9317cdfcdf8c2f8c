//! `ronctl cap inspect`: what a capability says about itself. Needs neither server nor keyring, and so proves nothing.
use std::path::Path;

use serde_json::json;

use super::token;
use crate::access::{inspect, Description};
use crate::api::Route;
use crate::domain::UnixMs;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{Output, Style};
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
  ronctl cap inspect \"$TOKEN\"
  ronctl cap mint --subject alice --scopes wallet:read --ttl 900s | ronctl cap inspect -

The signature is not checked: only the server can say whether a token is genuine, and whether it was revoked. Ends with 1 if the token
allows nothing now: it has expired, is not valid yet, or has a caveat that denies everything.")]
pub struct Inspect {
    /// Capability to show, or - to read it from standard input, which keeps it out of the process list
    #[arg(value_name = "TOKEN")]
    pub token: String,
}

impl Inspect {
    /// Reads the token and prints what it says.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let text = if self.token == "-" { token::read(Path::new("-"))? } else { self.token.clone() };
        let description = inspect(text.trim()).ok_or_else(|| {
            Failure::usage(
                "this is not a capability in the form of this service",
                "copy the whole token, or make one with `ronctl cap mint`",
            )
        })?;
        let now = unix_now();
        let allows = allowed(&description);
        show(&context.output, &description, &allows, now)?;
        let usable = !allows.is_empty() && !description.expired(now) && !description.early(now);
        Ok(if usable { Exit::Done } else { Exit::No })
    }
}

/// What the token reaches by its scopes, whenever it is valid.
fn allowed(description: &Description) -> Vec<&'static str> {
    let reached = KINDS.iter().filter(|(_, route)| description.reaches(route.scopes().expect("it needs a capability")));
    reached.map(|(name, _)| *name).collect()
}

fn show(output: &Output, description: &Description, allows: &[&str], now: UnixMs) -> Result<(), Failure> {
    let (expired, early) = (description.expired(now), description.early(now));
    if output.json {
        return output.value(&json!({
            "subject": description.subject, "key_id": description.key_id, "token_id": description.token_id,
            "issued": description.issued, "not_before": description.not_before, "expires": description.expires,
            "expired": expired, "early": early, "allows": allows, "third_parties": description.third_parties,
            "caveats": description.caveats, "signature_checked": false,
        }));
    }
    let expires = match (&description.expires, expired) {
        (Some(expires), true) => output.paint(Style::Bad, &format!("{expires} (has expired)")),
        (Some(expires), false) => expires.clone(),
        (None, _) => output.paint(Style::Warning, "never"),
    };
    let allows = match (allows, description.not_understood) {
        (_, true) => output.paint(Style::Bad, "nothing: a caveat of it is not understood"),
        ([], false) => output.paint(Style::Bad, "nothing: its scopes have nothing of this service in common"),
        (kinds, false) => format!("to {}, within the limits below", in_a_row(kinds)),
    };
    let mut rows = vec![
        ("subject", description.subject.clone()),
        ("token id", description.token_id.clone()),
        ("signed with", description.key_id.clone()),
        ("issued", description.issued.clone()),
        ("allows", allows),
    ];
    if let Some(from) = &description.not_before {
        rows.push(("from", if early { output.paint(Style::Bad, &format!("{from} (not valid yet)")) } else { from.clone() }));
    }
    rows.push(("until", expires));
    if !description.third_parties.is_empty() {
        rows.push(("needs", format!("a discharge from {}", in_a_row(&description.third_parties))));
    }
    output.line(&output.fields(&rows))?;
    output.line(&output.paint(Style::Faint, "It is limited, all at once:"))?;
    for caveat in &description.caveats {
        output.line(&format!("  - {caveat}"))?;
    }
    let unknown = "The signature was not checked; only the server can say whether it is genuine, and whether it was revoked.";
    output.line(&output.paint(Style::Faint, unknown))
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
