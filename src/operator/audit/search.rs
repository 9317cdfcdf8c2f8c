//! `ronctl audit search`: lines by what is in them, one file after the other, in memory that does not grow with the stream.
use std::collections::HashSet;

use super::shown::shown;
use super::{unreadable, Lines, Place};
use crate::audit::{Follower, Line};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::ledger::export::unix_ms;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Outcome {
    /// It is in the ledger
    Accepted,
    /// It was refused
    Refused,
    /// The client was told that nobody knows
    Unknown,
}

/// Arguments of the command.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:
  ronctl audit search --account alice
  ronctl audit search --subject till-3 --outcome refused --since 2026-11-01T00:00:00Z
  ronctl --json audit search --corr-id 7f3a9c0e0000000000000001
  ronctl audit search --txid tx_0000000000002K4C0R6V8M3A1B

A line is shown if it has everything that is asked for. --subject also finds operations under tokens of which the stream says later whose
they are. Hashes are not checked here: `ronctl audit verify` does that. Ends with 0 if something was found, 1 if nothing was.")]
pub struct Search {
    #[command(flatten)]
    place: Place,
    /// Operations that debit or credit this account, or were to
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Lines about this token, by its id in hex
    #[arg(long, value_name = "HEX")]
    token_id: Option<String>,
    /// Lines about tokens of this subject
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Operations with this correlation id
    #[arg(long, value_name = "ID")]
    corr_id: Option<String>,
    /// The operation with this transaction id
    #[arg(long, value_name = "TXID")]
    txid: Option<String>,
    /// Operations with this outcome
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<Outcome>,
    /// Control events with this name, such as start, stop or reload
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Only lines of this time (RFC 3339) or later
    #[arg(long, value_name = "TIME", value_parser = unix_ms)]
    since: Option<u64>,
    /// Only lines before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = unix_ms)]
    until: Option<u64>,
}

impl Search {
    /// Reads and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let storage = self.place.storage(context)?;
        let failed = |fault: std::io::Error| unreadable(&storage, &fault);
        let (mut tokens, mut line) = (HashSet::new(), Vec::new());
        if let Some(subject) = &self.subject {
            let mut lines = Follower::from_file(storage.clone(), 1);
            while lines.next(&mut line).map_err(failed)? {
                let token =
                    Line::read(&line).filter(|line| &*line.kind == "token" && line.subject.as_deref() == Some(subject.as_str()));
                tokens.extend(token.and_then(|line| line.token_id).map(|token| token.to_string()));
            }
        }
        let mut lines = Follower::from_file(storage.clone(), 1);
        let (mut out, mut found) = (Lines::new(), 0u64);
        while lines.next(&mut line).map_err(failed)? {
            if Line::read(&line).is_some_and(|line| self.wants(&line, &tokens)) {
                found += 1;
                if !out.put(&shown(&context.output, &line))? {
                    return Ok(Exit::Done);
                }
            }
        }
        out.flush()?;
        context.output.hint(&format!("{found} lines"));
        Ok(if found > 0 { Exit::Done } else { Exit::No })
    }

    fn wants(&self, line: &Line<'_>, tokens: &HashSet<String>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().map_or(true, |wanted| found == Some(wanted));
        let account = |wanted: &String| [&line.from, &line.to].into_iter().any(|name| name.as_deref() == Some(wanted.as_str()));
        let outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
            Outcome::Unknown => "unknown",
        });
        let by_token = || line.subject.is_none() && line.token_id.as_deref().is_some_and(|token| tokens.contains(token));
        self.account.as_ref().map_or(true, account)
            && is(&self.token_id, line.token_id.as_deref())
            && (is(&self.subject, line.subject.as_deref()) || by_token())
            && is(&self.corr_id, line.corr_id.as_deref())
            && is(&self.txid, line.txid.as_deref())
            && is(&self.event, line.event.as_deref())
            && outcome.map_or(true, |outcome| line.outcome.as_deref() == Some(outcome))
            && self.since.map_or(true, |since| line.ts >= since)
            && self.until.map_or(true, |until| line.ts < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_wanted_if_it_has_everything_that_is_asked_for() {
        let json = br#"{"v":1,"n":7,"ts":1500,"kind":"op","outcome":"refused","code":"FORBIDDEN","op":"transfer","from":"a","to":"b","token_id":"ab","subject":null,"corr_id":"c"}"#;
        let line = Line::read(json).unwrap();
        let own = HashSet::from(["ab".to_owned()]);
        let text = |text: &str| Some(text.to_owned());
        let place = || Place { dir: None };
        let wanted = [
            Search::default(),
            Search { account: text("b"), outcome: Some(Outcome::Refused), ..Search::default() },
            Search { subject: text("alice"), corr_id: text("c"), token_id: text("ab"), ..Search::default() },
            Search { since: Some(1500), until: Some(1501), place: place(), ..Search::default() },
        ];
        assert!(wanted.iter().all(|search| search.wants(&line, &own)));
        let others = [
            Search { account: text("c"), ..Search::default() },
            Search { account: text("a"), outcome: Some(Outcome::Accepted), ..Search::default() },
            Search { outcome: Some(Outcome::Unknown), ..Search::default() },
            Search { txid: text("tx_1"), ..Search::default() },
            Search { event: text("start"), ..Search::default() },
            Search { since: Some(1501), ..Search::default() },
            Search { until: Some(1500), ..Search::default() },
        ];
        assert!(others.iter().all(|search| !search.wants(&line, &own)));
        assert!(!Search { subject: text("alice"), ..Search::default() }.wants(&line, &HashSet::new()));
    }
}
