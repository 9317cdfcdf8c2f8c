//! `ronctl cap inspect`: what a capability says about itself. Needs neither server nor keyring, and so proves nothing.
use std::io::Read;

use serde_json::json;

use crate::access::{inspect, Description};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{Output, Style};
use crate::worker::unix_now;

/// Longest text that is read from standard input, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl cap inspect \"$TOKEN\"
  ronctl cap mint --subject alice --scopes wallet:read --ttl 900s | ronctl cap inspect -

The signature is not checked: only the server can say whether a token is genuine. Ends with 1 if the token has expired.")]
pub struct Inspect {
    /// Capability to show, or - to read it from standard input, which keeps it out of the process list
    #[arg(value_name = "TOKEN")]
    pub token: String,
}

impl Inspect {
    /// Reads the token and prints what it says.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let text = if self.token == "-" { from_standard_input()? } else { self.token.clone() };
        let description = inspect(text.trim()).ok_or_else(|| {
            Failure::usage(
                "this is not a capability in the form of this service",
                "copy the whole token, or make one with `ronctl cap mint`",
            )
        })?;
        // Both are RFC 3339 in UTC; a token without an expiry never expires.
        let expired = description.expires.as_deref().and_then(unix_ms).is_some_and(|expires| expires <= unix_now().0);
        show(&context.output, &description, expired)?;
        Ok(if expired { Exit::No } else { Exit::Done })
    }
}

fn from_standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|fault| Failure::usage(format!("cannot read a token from standard input: {fault}"), ""))?;
    Ok(text)
}

/// Milliseconds since the Unix epoch of an RFC 3339 time; `None` if it is none, or lies before the epoch.
fn unix_ms(text: &str) -> Option<u64> {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

fn show(output: &Output, description: &Description, expired: bool) -> Result<(), Failure> {
    if output.json {
        return output.value(&json!({
            "subject": description.subject, "key_id": description.key_id, "token_id": description.token_id,
            "issued": description.issued, "expires": description.expires, "expired": expired,
            "caveats": description.caveats, "signature_checked": false,
        }));
    }
    let expires = match (&description.expires, expired) {
        (Some(expires), true) => output.paint(Style::Bad, &format!("{expires} (has expired)")),
        (Some(expires), false) => expires.clone(),
        (None, _) => output.paint(Style::Warning, "never"),
    };
    output.line(&output.fields(&[
        ("subject", description.subject.clone()),
        ("token id", description.token_id.clone()),
        ("signed with", description.key_id.clone()),
        ("issued", description.issued.clone()),
        ("expires", expires),
    ]))?;
    output.line(&output.paint(Style::Faint, "It is limited, all at once:"))?;
    for caveat in &description.caveats {
        output.line(&format!("  - {caveat}"))?;
    }
    output.line(&output.paint(Style::Faint, "The signature was not checked; only the server can say whether it is genuine."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_as_numbers() {
        assert_eq!(unix_ms("1970-01-01T00:00:01Z"), Some(1000));
        assert_eq!(unix_ms("1970-01-01T01:00:01+01:00"), Some(1000));
        assert_eq!(unix_ms("yesterday"), None);
    }
}
