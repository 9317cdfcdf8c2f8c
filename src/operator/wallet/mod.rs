//! `ronctl wallet`: questions to the running server about accounts and transactions, over HTTP like any client.
pub mod balance;
pub mod entries;
pub mod seq;
pub mod totals;
pub mod tx;

use std::path::Path;

use super::client::{Reply, Request};
use super::context::Context;
use super::exit::{Exit, Failure};
use super::members::{readable, Members};
use super::output::{printable, rfc3339, Output, Style};
use crate::domain::Account;

/// Longest token file that is read, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 64 << 10;

/// Members that are moments in milliseconds since the Unix epoch.
const TIMES: [&str; 2] = ["as_of", "ts"];

/// What can be asked.
#[derive(Debug, clap::Subcommand)]
pub enum Wallet {
    /// Show how much of an asset an account has
    Balance(balance::Balance),
    /// Show the entries of an account, newest first
    Entries(entries::Entries),
    /// Show the last confirmed nonce of an account, and the next one
    Seq(seq::Seq),
    /// Show what was issued and burned of an asset, and what all accounts have of it
    Totals(totals::Totals),
    /// Show the receipt of a transaction, byte for byte as it was first sent
    Tx(tx::Tx),
}

impl Wallet {
    /// Runs the chosen question.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Wallet::Balance(command) => command.run(context),
            Wallet::Entries(command) => command.run(context),
            Wallet::Seq(command) => command.run(context),
            Wallet::Totals(command) => command.run(context),
            Wallet::Tx(command) => command.run(context),
        }
    }
}

/// Whose authority a question is asked with.
#[derive(Debug, clap::Args)]
pub struct Authority {
    /// Capability to ask with, or @FILE to read it from a file; without it, one is made for this question from the keyring
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// The name of an account as it was typed, if it can be one.
pub(super) fn account_named(typed: &str) -> Result<Account<'_>, Failure> {
    let rule = "1 to 256 of A-Z a-z 0-9 : / - _";
    if typed.is_empty() {
        return Err(Failure::usage("the name of the account is empty", format!("name one with --account: {rule}")));
    }
    Account::new(typed).ok_or_else(|| Failure::usage(format!("{typed:?} is not the name of an account"), rule))
}

/// Asks the server; `account` narrows the token that is made for the question.
pub(super) fn ask(context: &Context, authority: &Authority, target: &str, account: Option<&str>) -> Result<Reply, Failure> {
    // Before a token is made for it, which would be blamed for the name.
    account.map(account_named).transpose()?;
    let config = context.config()?;
    let token = match &authority.token {
        Some(given) => given_token(given)?,
        None => context.read_token(&config, account)?,
    };
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let request = Request { headers: &headers, ..Request::get(target) };
    context.exchange(&mut context.wallet(&config), &request)
}

fn given_token(given: &str) -> Result<String, Failure> {
    let text = match given.strip_prefix('@') {
        Some(path) => read_token_file(Path::new(path))?,
        None => given.to_owned(),
    };
    let token = text.trim();
    let sendable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if sendable {
        Ok(token.to_owned())
    } else {
        Err(Failure::usage("the token has characters that no token has", "make one with `ronctl cap mint`"))
    }
}

fn read_token_file(path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|fault| Failure::usage(format!("cannot read the token file {}: {fault}", path.display()), ""))?;
    Ok(text)
}

/// Prints an answer: the members under the names given for them, others under their own; as JSON exactly what the server sent.
fn answer(output: &Output, reply: &Reply, names: &[(&str, &str)]) -> Result<Exit, Failure> {
    if output.json {
        output.line(printable(&String::from_utf8_lossy(&reply.body)).trim_end())?;
        return Ok(if reply.status == 200 { Exit::Done } else { Exit::No });
    }
    if reply.status != 200 {
        return Err(refusal(reply));
    }
    let members = Members::read(&reply.body).unwrap_or_default();
    let rows: Vec<(&str, String)> = members
        .0
        .iter()
        .map(|(name, value)| {
            let shown = names.iter().find(|(known, _)| known == name).map_or(name.as_str(), |(_, shown)| *shown);
            let time = TIMES.contains(&name.as_str()).then(|| value.as_u64().and_then(rfc3339)).flatten();
            (shown, time.unwrap_or_else(|| readable(value)))
        })
        .collect();
    output.line(&output.fields(&rows))?;
    Ok(Exit::Done)
}

/// The server's "no" in words, with what to do about it.
pub(super) fn refusal(reply: &Reply) -> Failure {
    let body = reply.json();
    let text = |name: &str| printable(body[name].as_str().unwrap_or_default());
    let next = match reply.status {
        503 if body["details"]["archived"] == true => {
            "asking again does not help: the operator has to move the archived segments back, see RUNBOOK.md, Old segments"
        }
        401 => {
            "the server does not accept the token: use the server's own keyring (--config), or make one with `ronctl cap mint`"
        }
        // Refused whatever the token: the server's words begin so.
        403 if text("message").starts_with("the policy") => {
            "no token helps: the policy of the server (the file in security.policy_file) decides this; correct the request, or list it there \
             and restart the server"
        }
        403 => "the token may not do this: make one with `ronctl cap mint --scopes wallet:read`",
        429 | 503 => "try again in a moment; `ronctl status` says what the server waits for",
        _ => "",
    };
    let message = format!("the server says no: {} {}: {}", reply.status, text("code"), text("message"));
    Failure { exit: Exit::No, message, next: next.to_owned() }
}

/// A line for people below an answer.
fn remark(output: &Output, text: &str) -> Result<(), Failure> {
    if output.json {
        return Ok(());
    }
    output.line(&output.paint(Style::Faint, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_token_is_taken_as_given_or_from_a_file() {
        assert_eq!(given_token(" MDAx-_= \n"), Ok("MDAx-_=".to_owned()));
        for bad in ["", "a b", "a\r\nX: y", "ä"] {
            assert_eq!(given_token(bad).unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "MDAx\n").unwrap();
        assert_eq!(given_token(&format!("@{}", file.path().display())), Ok("MDAx".to_owned()));
        assert!(given_token("@/nonexistent/token").unwrap_err().message.contains("/nonexistent/token"));
    }

    #[test]
    fn a_refusal_is_told_with_its_code_and_a_way_out() {
        let body = br#"{"code":"UNAUTHORIZED","http":401,"message":"expired"}"#.to_vec();
        let reply = Reply { status: 401, headers: Vec::new(), body, elapsed: Duration::ZERO };
        let failure = refusal(&reply);
        assert_eq!(failure.exit, Exit::No);
        assert_eq!(failure.message, "the server says no: 401 UNAUTHORIZED: expired");
        assert!(failure.next.contains("ronctl cap mint"));
        let unlisted = br#"{"code":"FORBIDDEN","http":403,"message":"the policy does not list this asset"}"#.to_vec();
        let failure = refusal(&Reply { status: 403, body: unlisted, ..reply.clone() });
        assert!(failure.next.contains("security.policy_file") && !failure.next.contains("cap mint"), "{}", failure.next);
        let narrow = br#"{"code":"FORBIDDEN","http":403,"message":"the token does not allow this account"}"#.to_vec();
        let failure = refusal(&Reply { status: 403, body: narrow, ..reply.clone() });
        assert!(failure.next.contains("ronctl cap mint"), "{}", failure.next);
        let archived = br#"{"code":"UPSTREAM_UNAVAILABLE","http":503,"message":"a","details":{"archived":true}}"#.to_vec();
        let failure = refusal(&Reply { status: 503, body: archived, ..reply });
        assert!(failure.next.contains("move the archived segments back"), "{}", failure.next);
    }
}
