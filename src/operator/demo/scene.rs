//! One step of the demonstration: a request, its reply, and what was expected of it.
//!
//! A step that turns out otherwise is noted and the play goes on; only a server that does not answer ends it. This file does
//! not know which requests there are, and tokens never get into a step.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use serde_json::{json, Value};

use super::show;
use crate::operator::client::{Client, Reply, Request};
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::Output;

/// A capability with the name under which the demonstration speaks of it.
pub struct Token {
    /// How people are told whose token this is.
    pub name: &'static str,
    /// The token itself; never shown.
    pub secret: String,
}

/// A request as the script writes it down.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The step in a few words.
    pub title: &'a str,
    /// What happens here and why, in plain words.
    pub why: &'a str,
    /// The capability to send; `None` sends none.
    pub token: Option<&'a Token>,
    /// GET or POST.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Idempotency key; every POST has one.
    pub key: Option<&'a str>,
    /// Body; every POST has one.
    pub body: Option<&'a str>,
}

/// One thing that a reply has to be.
pub enum Expect<'a> {
    /// Accepted: status 200.
    Accepted,
    /// Refused with this status and this code.
    Refused(u16, &'a str),
    /// The member at this JSON pointer reads like this.
    Member(&'a str, &'a str),
    /// This header field has this value.
    Header(&'a str, &'a str),
    /// The body is, byte for byte, the one of an earlier reply, which has this name.
    SameBytes(&'a str, &'a [u8]),
}

/// An expectation and whether it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The expectation in words; if it was not met, with what was there instead.
    pub what: String,
    /// Whether it was met.
    pub held: bool,
}

impl Check {
    /// A check that was made elsewhere.
    pub fn new(what: impl Into<String>, held: bool) -> Self {
        Self { what: what.into(), held }
    }
}

/// The request of a step, as it is shown.
#[derive(Clone, Debug)]
pub struct Asked {
    /// GET or POST.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Whose token was sent.
    pub token: Option<&'static str>,
    /// Idempotency key.
    pub key: Option<String>,
    /// Body.
    pub body: Option<String>,
}

/// A step that was played: an exchange, or something that was done to the server.
#[derive(Clone, Debug)]
pub struct Step {
    /// Counted from 1.
    pub number: usize,
    /// The step in a few words.
    pub title: String,
    /// What happens here and why.
    pub why: String,
    /// The request and its reply, if the step is an exchange.
    pub exchange: Option<(Asked, Reply)>,
    /// Which earlier reply has the very same body, so that it need not be shown again.
    pub same_as: Option<String>,
    /// What was found, if the step is something else.
    pub facts: Vec<String>,
    /// What was expected.
    pub checks: Vec<Check>,
}

impl Step {
    /// The step as JSON, bodies as values.
    pub fn to_json(&self) -> Value {
        let mut step = json!({"step": self.number, "title": self.title, "why": self.why});
        if let Some((asked, reply)) = &self.exchange {
            let body = asked.body.as_deref().and_then(|body| serde_json::from_str::<Value>(body).ok());
            step["request"] = json!({
                "method": asked.method, "target": asked.target, "token": asked.token, "idempotency_key": asked.key, "body": body,
            });
            step["reply"] = json!({
                "status": reply.status, "replayed": reply.header("idempotency-replayed") == Some("true"),
                "elapsed_us": reply.elapsed.as_micros() as u64, "body": reply.json(),
            });
        }
        if !self.facts.is_empty() {
            step["facts"] = json!(self.facts);
        }
        step["checks"] = self.checks.iter().map(|check| json!({"what": check.what, "held": check.held})).collect();
        step
    }
}

/// Plays steps against one server, shows each as it happens and keeps them all.
pub struct Stage {
    output: Output,
    client: Client,
    interrupted: Arc<AtomicBool>,
    steps: Vec<Step>,
}

impl Stage {
    /// An empty stage before the server that this client reaches.
    pub fn new(output: Output, client: Client, interrupted: Arc<AtomicBool>) -> Self {
        Self { output, client, interrupted, steps: Vec::new() }
    }

    /// Sends the request, shows it with the reply, and notes which expectations were met.
    pub fn ask(&mut self, ask: Ask<'_>, expectations: &[Expect<'_>]) -> Result<Reply, Failure> {
        self.check_interrupt()?;
        let bearer = ask.token.map(|token| format!("Bearer {}", token.secret));
        let mut headers = Vec::new();
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        headers.extend(ask.key.map(|key| ("Idempotency-Key", key)));
        let request = Request { method: ask.method, target: ask.target, headers: &headers, body: ask.body };
        let reply = self.client.exchange(&request).map_err(|fault| {
            Failure::unreachable(format!("step \"{}\" got no reply: {fault}", ask.title), "the log of the server is shown below")
        })?;
        let asked = Asked {
            method: ask.method.to_owned(),
            target: ask.target.to_owned(),
            token: ask.token.map(|token| token.name),
            key: ask.key.map(str::to_owned),
            body: ask.body.map(str::to_owned),
        };
        let checks = expectations.iter().map(|expect| meet(expect, &reply)).collect();
        let same_as = expectations.iter().find_map(|expect| match expect {
            Expect::SameBytes(which, bytes) => (reply.body == *bytes).then(|| (*which).to_owned()),
            Expect::Accepted | Expect::Refused(..) | Expect::Member(..) | Expect::Header(..) => None,
        });
        self.play(ask.title, ask.why, Some((asked, reply.clone())), same_as, Vec::new(), checks)?;
        Ok(reply)
    }

    /// Shows and notes something that was done to the server, and what came of it.
    pub fn note(&mut self, title: &str, why: &str, facts: Vec<String>, checks: Vec<Check>) -> Result<(), Failure> {
        self.play(title, why, None, None, facts, checks)
    }

    fn play(
        &mut self,
        title: &str,
        why: &str,
        exchange: Option<(Asked, Reply)>,
        same_as: Option<String>,
        facts: Vec<String>,
        checks: Vec<Check>,
    ) -> Result<(), Failure> {
        let number = self.steps.len() + 1;
        let step = Step { number, title: title.to_owned(), why: why.to_owned(), exchange, same_as, facts, checks };
        if !self.output.json {
            self.output.line(&show::step(&self.output, &step))?;
        }
        self.steps.push(step);
        Ok(())
    }

    /// Fails once Ctrl-C was pressed; whoever owns the server then cleans up.
    pub fn check_interrupt(&self) -> Result<(), Failure> {
        if !self.interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = "interrupted; the server was stopped and its directory removed".to_owned();
        Err(Failure { exit: Exit::No, message, next: String::new() })
    }

    /// All that was played so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

fn meet(expect: &Expect<'_>, reply: &Reply) -> Check {
    match expect {
        Expect::Accepted if reply.status == 200 => Check::new("accepted", true),
        Expect::Accepted => Check::new(format!("expected 200, got {}", answer(reply)), false),
        Expect::Refused(status, code) => {
            let held = reply.status == *status && reply.json()["code"] == *code;
            let got = if held { String::new() } else { format!(", got {}", answer(reply)) };
            Check::new(format!("refused with {status} {code}{got}"), held)
        }
        Expect::Member(pointer, expected) => {
            let name = pointer.trim_start_matches('/').replace('/', ".");
            let found = reply.json().pointer(pointer).map(crate::operator::members::readable);
            let held = found.as_deref() == Some(*expected);
            let got = if held { String::new() } else { format!(", got {}", found.as_deref().unwrap_or("nothing")) };
            Check::new(format!("{name} is {expected}{got}"), held)
        }
        Expect::Header(name, expected) => {
            let found = reply.header(name);
            let held = found == Some(*expected);
            let got = if held { String::new() } else { format!(", got {}", found.unwrap_or("none")) };
            Check::new(format!("the reply says {name}: {expected}{got}"), held)
        }
        Expect::SameBytes(which, bytes) => {
            let held = reply.body == *bytes;
            let outcome = if held { "byte for byte" } else { "expected byte for byte, but it differs from" };
            Check::new(format!("{outcome} {which}"), held)
        }
    }
}

fn answer(reply: &Reply) -> String {
    match reply.json()["code"].as_str() {
        Some(code) => format!("{} {code}", reply.status),
        None => reply.status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Reply { status, headers, body: body.as_bytes().to_vec(), elapsed: Duration::from_micros(7) }
    }

    #[test]
    fn each_expectation_is_met_or_says_what_was_there_instead() {
        let good = reply(200, &[("idempotency-replayed", "true")], r#"{"amount_minor":"5","details":{"expected":2}}"#);
        let bad = reply(409, &[], r#"{"code":"NONCE_CONFLICT"}"#);
        let cases = [
            (Expect::Accepted, &good, true, "accepted"),
            (Expect::Accepted, &bad, false, "expected 200, got 409 NONCE_CONFLICT"),
            (Expect::Refused(409, "NONCE_CONFLICT"), &bad, true, "refused with 409 NONCE_CONFLICT"),
            (Expect::Refused(409, "BUSY"), &bad, false, "refused with 409 BUSY, got 409 NONCE_CONFLICT"),
            (Expect::Refused(409, "BUSY"), &good, false, "refused with 409 BUSY, got 200"),
            (Expect::Member("/details/expected", "2"), &good, true, "details.expected is 2"),
            (Expect::Member("/amount_minor", "6"), &good, false, "amount_minor is 6, got 5"),
            (Expect::Member("/amount_minor", "6"), &bad, false, "amount_minor is 6, got nothing"),
            (Expect::Header("Idempotency-Replayed", "true"), &good, true, "the reply says Idempotency-Replayed: true"),
            (Expect::Header("Idempotency-Replayed", "true"), &bad, false, "the reply says Idempotency-Replayed: true, got none"),
            (Expect::SameBytes("the first", b"x"), &good, false, "expected byte for byte, but it differs from the first"),
        ];
        for (expect, reply, held, what) in cases {
            assert_eq!(meet(&expect, reply), Check::new(what, held));
        }
        assert!(meet(&Expect::SameBytes("it", &good.body), &good).held);
    }

    #[test]
    fn a_step_as_json_has_values_for_bodies_and_no_token() {
        let asked = Asked {
            method: "POST".to_owned(),
            target: "/v1/issue".to_owned(),
            token: Some("operator"),
            key: Some("k".to_owned()),
            body: Some(r#"{"to":"a"}"#.to_owned()),
        };
        let step = Step {
            number: 3,
            title: "t".to_owned(),
            why: "w".to_owned(),
            exchange: Some((asked, reply(200, &[], "{\"a\":1}"))),
            same_as: None,
            facts: Vec::new(),
            checks: vec![Check::new("c", true)],
        };
        let value = step.to_json();
        assert_eq!(value["request"]["body"]["to"], "a");
        assert_eq!(value["reply"], json!({"status": 200, "replayed": false, "elapsed_us": 7, "body": {"a": 1}}));
        assert_eq!(value["checks"][0], json!({"what": "c", "held": true}));
    }
}
