//! `ronctl status`: is the server ready, and if not, what does it wait for.
//!
//! The admin socket is asked first, because it tells reasons and numbers that nobody else needs to know; without it, the port
//! for health and metrics answers what it can. What is shown is what the server says: members that this version does not know
//! are shown under their own names.
use serde_json::{json, Value};

use crate::control::Page;

use super::client::{Client, ClientError, Request};
use super::context::{unreachable, Context};
use super::exit::{Exit, Failure};
use super::members::{readable, Members};
use super::output::{grouped, printable, rfc3339, Output, Style};

/// Members of `/readyz`, `/version` and `/status` that have a line of their own; `/status` may repeat those of the others.
const SHOWN: [&str; 23] = [
    "ready",
    "degraded",
    "deps",
    "missing",
    "reasons",
    "retry_after",
    "writes",
    "reads",
    "draining",
    "pressure",
    "faults",
    "name",
    "version",
    "git_revision",
    "features",
    "pq",
    "policy_version",
    "registry_version",
    "driver",
    "driver_note",
    "readiness",
    "audit",
    "scrub",
];

/// What is said of a figure that the server does not know yet.
const UNKNOWN: &str = "not yet known: the auditor of the ledger has not answered since the start";

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl status
  ronctl --config /etc/ron/svc-wallet.toml --json status

With the admin socket of the server (bind.admin) it also shows its figures, what the audit has found, and when everything on disk was
last read again and what was damaged then. Ends with 0 if the server is ready, 1 if it is not, 3 if it does not answer.")]
pub struct Status {}

/// What the server told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    /// Where it was asked.
    asked: String,
    /// Where a browser finds the console.
    console: String,
    /// The body of `/readyz`, with reasons if the admin socket gave it.
    readiness: Value,
    /// The body of `/version`.
    version: Value,
    /// The body of `/status`, in its order; nothing without the admin socket.
    status: Members,
}

impl Status {
    /// Asks and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let told = ask(context)?;
        let ready = told.readiness["ready"] == json!(true);
        if context.output.json {
            let status: serde_json::Map<String, Value> = told.status.0.iter().cloned().collect();
            let value = json!({"asked": told.asked, "console": told.console, "readiness": told.readiness, "version": told.version, "status": status});
            context.output.value(&value)?;
        } else {
            context.output.line(&summary(&context.output, &told))?;
        }
        Ok(if ready { Exit::Done } else { Exit::No })
    }
}

fn ask(context: &Context) -> Result<Told, Failure> {
    let config = context.config()?;
    let mut metrics = context.metrics(&config);
    let mut told = Told { console: format!("http://{}{}", metrics.address(), Page::Console.path()), ..Told::default() };
    if let Some(mut admin) = context.admin(&config) {
        match told.take(&mut admin, true) {
            // No socket, or not for this user: the other port may still answer.
            Ok(()) | Err(ClientError::Connect { .. }) => {}
            Err(fault) => return Err(silent(&fault)),
        }
    }
    if told.readiness.is_null() || told.version.is_null() {
        told.take(&mut metrics, false).map_err(|fault| silent(&fault))?;
    }
    if told.readiness.is_null() {
        return Err(unreachable(&ClientError::NotUnderstood {
            address: metrics.address().clone(),
            fault: "it has no /readyz that says whether it is ready",
        }));
    }
    Ok(told)
}

/// A server that does not tell its status: this command is what others send people to.
fn silent(fault: &ClientError) -> Failure {
    let failure = unreachable(fault);
    match fault {
        ClientError::TimedOut { .. } => Failure {
            next: "it accepts connections and hangs or is stopped: look at its process and at its log".to_owned(),
            ..failure
        },
        ClientError::Connect { .. } | ClientError::Broken { .. } | ClientError::NotUnderstood { .. } => failure,
    }
}

impl Told {
    /// Asks one listener for what is still unknown.
    fn take(&mut self, client: &mut Client, admin: bool) -> Result<(), ClientError> {
        if self.readiness.is_null() {
            let reply = client.exchange(&Request::get("/readyz"))?.json();
            if reply["ready"].is_boolean() {
                self.readiness = reply;
                self.asked = client.address().to_string();
            }
        }
        if self.version.is_null() {
            let reply = client.exchange(&Request::get("/version"))?.json();
            if reply["version"].is_string() {
                self.version = reply;
            }
        }
        if admin {
            let reply = client.exchange(&Request::get("/status"))?;
            if reply.status == 200 {
                self.status = Members::read(&reply.body).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn summary(output: &Output, told: &Told) -> String {
    let text = |value: &Value| if value.is_null() { "-".to_owned() } else { readable(value) };
    let mut rows = vec![("server".to_owned(), format!("{} (asked at {})", version_line(&told.version), told.asked))];
    rows.push(("ready".to_owned(), ready_line(output, &told.readiness)));
    rows.extend(missing_rows(&told.readiness));
    for what in ["pressure", "standby"] {
        let reason = told.readiness["reasons"][what].as_str();
        rows.extend(reason.map(|reason| (what.to_owned(), output.paint(Style::Warning, &printable(reason)))));
    }
    let faults = told.readiness["faults"].as_array().into_iter().flatten().filter_map(Value::as_str);
    rows.extend(faults.map(|fault| ("fault injected".to_owned(), output.paint(Style::Warning, &printable(fault)))));
    let driver = match told.version["driver_note"].as_str() {
        Some(note) => output.paint(Style::Warning, &format!("{} ({note})", text(&told.version["driver"]))),
        None => text(&told.version["driver"]),
    };
    rows.push(("driver".to_owned(), driver));
    rows.push(("console".to_owned(), told.console.clone()));
    rows.push(("policy version".to_owned(), text(&told.version["policy_version"])));
    rows.push(("registry version".to_owned(), text(&told.version["registry_version"])));
    let member = |name: &str| told.status.0.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    rows.extend(member("audit").map(|audit| ("audit".to_owned(), audit_line(output, audit))));
    rows.extend(member("scrub").map(|scrub| ("scrubbing".to_owned(), scrub_line(output, scrub))));
    for (name, value) in told.status.0.iter().filter(|(name, _)| !SHOWN.contains(&name.as_str())) {
        flatten(&name.replace('_', " "), value, &mut rows);
    }
    let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    output.fields(&rows)
}

fn version_line(version: &Value) -> String {
    let text = |name: &str| version[name].as_str().unwrap_or("?").to_owned();
    format!("{} {}, revision {}", text("name"), text("version"), text("git_revision"))
}

fn ready_line(output: &Output, readiness: &Value) -> String {
    let flag = |name: &str| readiness[name].as_bool();
    let missing = readiness["missing"].as_array().is_some_and(|missing| missing.contains(&json!("ledger")));
    let served = match (flag("reads"), flag("writes")) {
        (Some(true), Some(true)) => "reads and writes are served",
        // The state of the accounts is in the cores; everything else is read from the ledger.
        (Some(true), Some(false)) if missing => {
            "balances, sequences and totals are served; entries, receipts and proofs as far as the ledger can be read; writes are not"
        }
        (Some(true), Some(false)) => "reads are served, writes are not",
        (Some(false), Some(true)) => "writes are served, reads are not",
        (Some(false), Some(false)) => "neither reads nor writes are served",
        (None, _) | (_, None) => "",
    };
    let mut parts = Vec::new();
    parts.extend((flag("draining") == Some(true)).then(|| drain_of(readiness)));
    parts.extend((flag("pressure") == Some(true)).then_some("it is under pressure"));
    parts.extend((!served.is_empty()).then_some(served));
    let ready = flag("ready") == Some(true);
    let word = if ready { output.paint(Style::Good, "yes") } else { output.paint(Style::Bad, "no") };
    if parts.is_empty() {
        word
    } else {
        format!("{word}, {}", parts.join(", "))
    }
}

/// Why it drains.
pub(super) fn drain_of(readiness: &Value) -> &'static str {
    match readiness["reasons"]["drain"] {
        Value::Null => "it is shutting down",
        _ => "it is out of rotation until ronctl drain off",
    }
}

/// What the audit has found: that a rule is broken comes first, because nothing else matters then.
fn audit_line(output: &Output, audit: &Value) -> String {
    if audit.is_null() {
        return UNKNOWN.to_owned();
    }
    let count = |name: &str| audit[name].as_u64().unwrap_or(0);
    if let Some(broken) = audit["broken"].as_str() {
        let what = printable(broken);
        return output.paint(Style::Bad, &format!("FAILED: {what}; see RUNBOOK.md, The audit has found something"));
    }
    let holds = format!("every rule holds through entry {}", grouped(u128::from(count("through"))));
    let failed: Vec<String> = [("reads_failed", "looks could not read the ledger"), ("snapshots_failed", "snapshots failed")]
        .iter()
        .filter(|(name, _)| count(name) > 0)
        .map(|(name, what)| format!("{} {what} since the start", grouped(u128::from(count(name)))))
        .collect();
    if failed.is_empty() {
        output.paint(Style::Good, &holds)
    } else {
        output.paint(Style::Warning, &format!("{holds}; {}", failed.join("; ")))
    }
}

/// When everything was read again last, and what was damaged.
fn scrub_line(output: &Output, scrub: &Value) -> String {
    if scrub.is_null() {
        return UNKNOWN.to_owned();
    }
    let ended = scrub["last_end"].as_u64().and_then(rfc3339);
    let ended = ended.map_or_else(|| "no pass has ended yet".to_owned(), |end| format!("last pass ended {end}"));
    let kinds = [("damaged_segments", "segments"), ("damaged_indexes", "indexes"), ("damaged_snapshots", "snapshots")];
    let damaged: Vec<String> = kinds
        .iter()
        .filter_map(|(name, kind)| scrub[*name].as_u64().filter(|count| *count > 0).map(|count| format!("{count} {kind}")))
        .collect();
    if damaged.is_empty() {
        return format!("{ended}, nothing damaged");
    }
    let next = "`ronctl ledger inspect` names them; see RUNBOOK.md, A file of the ledger has rotted";
    output.paint(Style::Bad, &format!("{ended}; DAMAGED: {}; {next}", damaged.join(", ")))
}

/// One row for each dependency that is missing, with the reason if it was told.
fn missing_rows(readiness: &Value) -> Vec<(String, String)> {
    let missing = readiness["missing"].as_array().cloned().unwrap_or_default();
    let reason = |name: &str| readiness["reasons"][name].as_str().map(super::output::printable);
    missing
        .iter()
        .filter_map(Value::as_str)
        .map(|name| ("missing".to_owned(), reason(name).map_or(name.to_owned(), |reason| format!("{name}: {reason}"))))
        .collect()
}

/// A value as all figures of this output are written.
fn figure(value: &Value) -> String {
    value.as_u64().map_or_else(|| readable(value), |number| grouped(u128::from(number)))
}

/// Rows for a value: one for a plain value, one for each member of an object, one for each object of a list.
fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Null if name.starts_with("ledger commit") => rows.push((name.to_owned(), "none in the last second".to_owned())),
        Value::Null if name.starts_with("ledger ") => rows.push((name.to_owned(), "not yet known".to_owned())),
        Value::Object(members) => {
            for (inner, value) in members {
                flatten(&format!("{name} {}", inner.replace('_', " ")), value, rows);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let members = item.as_object().cloned().unwrap_or_default();
                let parts: Vec<String> =
                    members.iter().map(|(inner, value)| format!("{} {}", inner.replace('_', " "), figure(value))).collect();
                rows.push((format!("{name} {index}"), parts.join(", ")));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            rows.push((name.to_owned(), figure(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { json: false, colour: false, hints: false };

    fn told(readiness: &str, status: &str) -> Told {
        Told {
            asked: "unix:/run/admin.sock".to_owned(),
            console: "http://127.0.0.1:9090/console".to_owned(),
            readiness: serde_json::from_str(readiness).unwrap(),
            version: json!({"name": "svc-wallet", "version": "1.2.3", "git_revision": "abc", "driver": "io_uring", "policy_version": 7}),
            status: Members::read(status.as_bytes()).unwrap(),
        }
    }

    #[test]
    fn a_ready_server_is_told_in_a_few_lines() {
        let told = told(
            r#"{"ready":true,"reads":true,"writes":true,"draining":false,"pressure":false}"#,
            r#"{"ready":true,"cores":2,"ledger":{"head":12345,"segment_bytes":3},"per_core":[{"connections":1},{"connections":4}]}"#,
        );
        let expected = "\
server                svc-wallet 1.2.3, revision abc (asked at unix:/run/admin.sock)
ready                 yes, reads and writes are served
driver                io_uring
console               http://127.0.0.1:9090/console
policy version        7
registry version      -
cores                 2
ledger head           12_345
ledger segment bytes  3
per core 0            connections 1
per core 1            connections 4";
        assert_eq!(summary(&PLAIN, &told), expected);
    }

    #[test]
    fn what_is_not_known_is_not_told_as_nothing() {
        let ledger = r#"{"height":7,"audited":null,"snapshot":null,"commit_us_p50":null}"#;
        let shown = summary(&PLAIN, &told(r#"{"ready":true}"#, &format!(r#"{{"ledger":{ledger},"audit":null,"scrub":null}}"#)));
        for line in [
            "audit                 not yet known: the auditor",
            "scrubbing             not yet known: the auditor",
            "ledger height         7",
            "ledger audited        not yet known",
            "ledger snapshot       not yet known",
            "ledger commit us p50  none in the last second",
        ] {
            assert!(shown.contains(line), "{line} is missing in\n{shown}");
        }
    }

    #[test]
    fn nobody_is_sent_from_here_to_here() {
        let address = super::super::client::Address::Unix("/run/admin.sock".into());
        let failure = silent(&ClientError::TimedOut { address: address.clone(), timeout: std::time::Duration::from_secs(5) });
        assert!(failure.exit == Exit::Unreachable && failure.next.contains("hangs or is stopped"), "{failure}");
        assert!(!failure.next.contains("ronctl status"), "{failure}");
        let gone = silent(&ClientError::Connect { address, source: std::io::ErrorKind::ConnectionRefused.into() });
        assert!(gone.next.contains("start it"), "{gone}");
    }

    #[test]
    fn a_server_that_is_not_ready_says_why() {
        let told = told(
            r#"{"ready":false,"missing":["ledger","policy"],"reasons":{"ledger":"disk full"},"reads":true,"writes":false,"draining":true,"faults":["disconnect of ron-ledger"]}"#,
            "{}",
        );
        let shown = summary(&PLAIN, &told);
        assert!(
            shown.contains("no, it is shutting down, balances, sequences and totals are served; entries, receipts"),
            "{shown}"
        );
        assert!(shown.contains("missing           ledger: disk full\nmissing           policy\n"), "{shown}");
        let readiness = r#"{"ready":false,"missing":[],"pressure":true,"reasons":{"pressure":"a commit has taken 700 ms"},"reads":true,"writes":true}"#;
        let pressed = summary(&PLAIN, &self::told(readiness, "{}"));
        assert!(pressed.contains("pressure          a commit has taken 700 ms\n"), "{pressed}");
        let starting = summary(&PLAIN, &self::told(r#"{"ready":false,"missing":["policy"],"reads":true,"writes":false}"#, "{}"));
        assert!(starting.contains("no, reads are served, writes are not"), "{starting}");
    }

    #[test]
    fn what_audit_and_scrubbing_have_found_is_told_in_words() {
        let shown = |status: &str| summary(&PLAIN, &told(r#"{"ready":true}"#, status));
        let good = shown(
            r#"{"audit":{"through":1200,"broken":null,"reads_failed":0,"snapshots_failed":0},
                "scrub":{"last_end":1500,"damaged_segments":0,"damaged_indexes":0,"damaged_snapshots":0}}"#,
        );
        assert!(good.contains("audit             every rule holds through entry 1_200\n"), "{good}");
        assert!(good.ends_with("scrubbing         last pass ended 1970-01-01T00:00:01.5Z, nothing damaged"), "{good}");
        let bad = shown(
            r#"{"audit":{"through":7,"broken":"entry 8: \u001bspent twice","reads_failed":0,"snapshots_failed":0},
                "scrub":{"last_end":null,"damaged_segments":1,"damaged_indexes":0,"damaged_snapshots":2}}"#,
        );
        assert!(bad.contains("FAILED: entry 8: \u{fffd}spent twice; see RUNBOOK.md"), "{bad}");
        assert!(bad.contains("no pass has ended yet; DAMAGED: 1 segments, 2 snapshots; `ronctl ledger inspect`"), "{bad}");
        let late = shown(r#"{"audit":{"through":7,"broken":null,"reads_failed":3,"snapshots_failed":0}}"#);
        assert!(late.contains("through entry 7; 3 looks could not read the ledger since the start"), "{late}");
        assert!(!late.contains("scrubbing"), "a server that does not tell is not spoken for: {late}");
    }
}
