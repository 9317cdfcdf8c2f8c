//! `ronctl proof`: fetch proofs of history from a server, and verify them without one.
//!
//! What verifies needs no server, no configuration and no network, and believes nothing but the root that is named on the command
//! line, or the public keys by which one is signed. A proof that does not hold ends with 1, a file that cannot be read with 2.
pub mod consistency;
pub mod get;
pub mod root;
mod signed;
mod trusted;
pub mod verify;

use std::io::Read;
use std::path::Path;

use serde_json::{json, Value};

use super::client::Reply;
use super::context::Context;
use super::exit::{Exit, Failure};
use super::output::{printable, Output, Style};
use super::wallet::refusal;

/// Longest proof or receipt that is read, in bytes.
const PROOF_BYTES_MAX: u64 = 1 << 20;

/// What can be done with proofs.
#[derive(Debug, clap::Subcommand)]
pub enum Proof {
    /// Fetch the proof of a transaction, or the proof that one root continues another
    Get(get::Get),
    /// Fetch the current root of the history, to be kept
    Root(root::Root),
    /// Check that a transaction is part of the history with a root that you trust, or that a key has signed that you trust
    Verify(verify::Verify),
    /// Check that a later root continues an earlier one
    Consistency(consistency::Consistency),
}

impl Proof {
    /// Runs the chosen command.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Proof::Get(command) => command.run(context),
            Proof::Root(command) => command.run(context),
            Proof::Verify(command) => command.run(&context.output),
            Proof::Consistency(command) => command.run(&context.output),
        }
    }
}

/// Puts what the server sent, byte for byte, into a file or on standard output.
fn keep(output: &Output, reply: &Reply, file: Option<&Path>) -> Result<Exit, Failure> {
    if reply.status != 200 {
        return Err(refusal(reply));
    }
    let Some(file) = file else {
        output.line(printable(&String::from_utf8_lossy(&reply.body)).trim_end())?;
        return Ok(Exit::Done);
    };
    std::fs::write(file, &reply.body)
        .map_err(|fault| Failure::usage(format!("cannot write {}: {fault}", file.display()), "name another file with --out"))?;
    output.hint(&format!("written to {}", file.display()));
    Ok(Exit::Done)
}

/// The content of a file, or of standard input for `-`.
fn content(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(PROOF_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(PROOF_BYTES_MAX).read_to_end(&mut bytes))
    };
    read.map_err(|fault| Failure::usage(format!("cannot read {}: {fault}", file.display()), ""))?;
    Ok(bytes)
}

/// Why something is not proven.
#[derive(Debug, PartialEq, Eq)]
struct Doubt {
    what: String,
    next: &'static str,
}

impl Doubt {
    fn new(what: impl Into<String>, next: &'static str) -> Self {
        Self { what: what.into(), next }
    }
}

/// A text that is meant to be a proof, as its members.
fn read_body<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, Doubt> {
    serde_json::from_slice(bytes).map_err(|fault| {
        Doubt::new(format!("{name} is not what the server sends: {fault}"), "fetch it again with `ronctl proof get`")
    })
}

/// Says that something is not proven, and why.
fn not_proven(output: &Output, doubt: &Doubt) -> Result<Exit, Failure> {
    if output.json {
        output.value(&json!({"proven": false, "what": doubt.what, "next": doubt.next}))?;
        return Ok(Exit::No);
    }
    output.line(&output.paint(Style::Bad, "Not proven."))?;
    let mut rows = vec![("what", printable(&doubt.what))];
    if !doubt.next.is_empty() {
        rows.push(("next", doubt.next.to_owned()));
    }
    output.line(&output.fields(&rows))?;
    Ok(Exit::No)
}

/// Says that something is proven: a sentence and details for people, members for programs.
fn proven(output: &Output, sentence: &str, rows: &[(&str, String)], members: &Value) -> Result<Exit, Failure> {
    if output.json {
        output.value(members)?;
        return Ok(Exit::Done);
    }
    output.line(&output.paint(Style::Good, sentence))?;
    output.line(&output.fields(rows))?;
    Ok(Exit::Done)
}
