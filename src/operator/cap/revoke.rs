//! `ronctl cap revoke` and `ronctl cap revocations`: what is refused although it is genuine and in its time.
//!
//! They work on the file of the server's configuration, and need no server: one that runs notices the change within a second, for which
//! the command waits; one that does not run finds it at its start.
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::access::{
    change_revocations, load_revocation_list, load_revocations, reason_well_formed, Revocation, RevocationFault, Revoked,
    REASON_BYTES_MAX,
};
use crate::config::Config;
use crate::control::{custody, Page};
use crate::domain::hex;
use crate::operator::client::{ClientError, Request};
use crate::operator::context::{unreachable, Context};
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{rfc3339, Style};
use crate::worker::unix_now;

/// How long a server may take to notice a changed list; it looks every 50 ms.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two questions whether it has.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// Arguments of `revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl cap revoke --token-id 00112233445566778899aabbccddeeff --reason 'laptop lost'
  ronctl cap revoke --subject alice
  ronctl cap revoke --key-id k-3f9a01c2
  ronctl cap revoke --undo --subject alice

A token id (see `ronctl cap inspect`) stands for the token and for all that were narrowed from it. It is in force on every core of a running
server when the command ends with 0, and after every start, until it is taken back. Ends with 1 if it was revoked already, or not at all, and with 4 if
the server does not take the list.")]
pub struct Revoke {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub what: What,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Take it back
    #[arg(long)]
    pub undo: bool,
}

/// What is revoked: one of the three.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// The token with this id
    #[arg(long, value_name = "HEX")]
    pub token_id: Option<String>,
    /// Every token of this subject, those to come as well
    #[arg(long, value_name = "USER")]
    pub subject: Option<String>,
    /// Every token that this key has signed
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
}

impl What {
    fn named(&self) -> Result<Revoked, Failure> {
        let (what, rule) = match (&self.token_id, &self.subject, &self.key_id) {
            (Some(id), _, _) => (Revoked::token(id), "a token id has 32 digits of 0-9 a-f; `ronctl cap inspect` shows it"),
            (_, Some(name), _) => (Revoked::subject(name), "a subject has 1 to 128 bytes without control characters"),
            (_, _, Some(id)) => (Revoked::key(id), "a key id has 1 to 32 characters of a-z 0-9 -"),
            (None, None, None) => unreachable!("the command line asks for one of them"),
        };
        what.ok_or_else(|| Failure::usage("this names nothing that could be revoked", rule))
    }
}

impl Revoke {
    /// Changes the file.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let what = self.what.named()?;
        if !reason_well_formed(&self.reason) {
            let rule = format!("a reason has at most {REASON_BYTES_MAX} bytes, without control characters");
            return Err(Failure::usage("this reason cannot be kept", rule));
        }
        let config = context.config()?;
        let entry = Revocation { what: what.clone(), at: unix_now(), reason: self.reason.clone() };
        let changed = change_revocations(&config.security.revocations, |entries| {
            let known = entries.iter().position(|known| known.what == what);
            match (known, self.undo) {
                (Some(place), true) => drop(entries.remove(place)),
                (None, false) => entries.push(entry),
                (Some(_), false) | (None, true) => return (false, false),
            }
            (true, true)
        });
        let changed = changed.map_err(|fault| failed(&fault))?;
        let in_force = wait_until_in_force(context, &config)?;
        let (kind, name) = (what.kind(), what.name());
        let revoked = !self.undo;
        if context.output.json {
            context
                .output
                .value(&json!({"kind": kind, "name": name, "revoked": revoked, "changed": changed, "in_force": in_force}))?;
        } else {
            let told = match (revoked, changed) {
                (true, true) => format!("revoked: {kind} {name}"),
                (true, false) => format!("{kind} {name} was revoked before"),
                (false, true) => format!("taken back: {kind} {name}"),
                (false, false) => format!("{kind} {name} is not revoked"),
            };
            context.output.line(&told)?;
            if in_force {
                context.output.hint("it is in force on every core of the server");
            } else {
                context
                    .output
                    .hint("no server that serves answers at bind.admin: one that runs notices it within a second, any other before it serves");
            }
            if let (true, Revoked::Key(id)) = (revoked, &what) {
                let active = custody(&config.security).open().ok().filter(|keyring| keyring.active_id() == id);
                if active.is_some() {
                    context.output.hint("this key signs new tokens, which are refused as well until another one does");
                }
            }
        }
        Ok(if changed { Exit::Done } else { Exit::No })
    }
}

/// Waits until the server of this configuration has the list of the file in force. False if none answers on an admin socket,
/// or it is not serving yet and reads the file again before it does.
fn wait_until_in_force(context: &Context, config: &Config) -> Result<bool, Failure> {
    let Some(mut admin) = context.admin(config) else { return Ok(false) };
    let path: &Path = &config.security.revocations;
    let began = Instant::now();
    loop {
        // Somebody else may have changed the file as well.
        let list = load_revocation_list(path).map_err(|fault| failed(&fault))?.unwrap_or_default();
        let told = match admin.exchange(&Request::get(Page::Revocations.path())) {
            Ok(reply) if reply.status == 404 => return Ok(false),
            Ok(reply) => reply.json(),
            Err(ClientError::Connect { .. }) => return Ok(false),
            Err(fault) => return Err(unreachable(&fault)),
        };
        if told["digest"].is_null() {
            return Ok(false);
        }
        if told["digest"] == hex(&list.digest()) {
            return Ok(true);
        }
        if began.elapsed() >= NOTICED_WITHIN {
            let what =
                format!("{} is written, but the server has not taken it within {} s", path.display(), NOTICED_WITHIN.as_secs());
            return Err(Failure::internal(what, "see revocations_failed in its log; the list that was in force before still is"));
        }
        std::thread::sleep(ASKED_EVERY);
    }
}

/// Arguments of `revocations`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl cap revocations
  ronctl --json cap revocations")]
pub struct List {}

impl List {
    /// Shows the file.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let path = context.config()?.security.revocations;
        let entries = load_revocations(&path).map_err(|fault| failed(&fault))?;
        let since = |entry: &Revocation| rfc3339(entry.at.0).unwrap_or_default();
        let output = &context.output;
        if output.json {
            let shown = entries.iter().map(
                |entry| json!({"kind": entry.what.kind(), "name": entry.what.name(), "at": since(entry), "reason": entry.reason}),
            );
            output.value(&json!({"file": path.display().to_string(), "revocations": shown.collect::<Vec<_>>()}))?;
            return Ok(Exit::Done);
        }
        if entries.is_empty() {
            output.line(&output.paint(Style::Faint, &format!("nothing is revoked in {}", path.display())))?;
        }
        for entry in &entries {
            let reason = if entry.reason.is_empty() { String::new() } else { format!("  {}", entry.reason) };
            output.line(&format!("{:7}  {}  since {}{reason}", entry.what.kind(), entry.what.name(), since(entry)))?;
        }
        Ok(Exit::Done)
    }
}

/// A file that cannot be used, with the exit code that belongs to it.
fn failed(fault: &RevocationFault) -> Failure {
    match fault {
        RevocationFault::Unwritable { .. } => Failure::internal(fault.to_string(), ""),
        RevocationFault::Unreadable { .. }
        | RevocationFault::Exposed { .. }
        | RevocationFault::Malformed { .. }
        | RevocationFault::TooMany { .. }
        | RevocationFault::Gone { .. } => Failure::usage(fault.to_string(), ""),
    }
}
