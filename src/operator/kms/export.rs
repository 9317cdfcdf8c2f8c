//! `ronctl kms export`: what others need in order to check signatures.
//!
//! The file has public halves only. Keys that are in a file already stay in it: signatures of a key outlive it.
use std::path::{Path, PathBuf};

use super::posture;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::kept_file::replace;
use crate::operator::public_keys::{self, PublicKeys};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl kms export
  ronctl kms export --out public-keys.json

Keep the file where the operator of the server cannot change it, as the roots of the history. Keys that are in it already stay, so that
signatures of retired keys can be checked; export again after each rotation. Under security.amnesia the server is asked on its admin socket:
export to a file before its process ends, or nobody can check what it has signed.")]
pub struct Export {
    /// Write to a file instead of standard output; what is in it stays
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Export {
    /// Prints the keys, or adds them to a file.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let keys = posture::public_keys(context, &config)?;
        let Some(file) = &self.out else {
            context.output.line(PublicKeys::new(keys).text().trim_end())?;
            return Ok(Exit::Done);
        };
        let mut known = if file.exists() { public_keys::read(file)? } else { PublicKeys::default() };
        let added = known.add(keys).map_err(|id| changed(file, &id))?;
        replace(file, known.text().as_bytes()).map_err(|fault| {
            Failure::usage(format!("cannot write {}: {fault}", file.display()), "name another file with --out")
        })?;
        context.output.hint(&format!("{added} keys were added to {}", file.display()));
        Ok(Exit::Done)
    }
}

fn changed(file: &Path, id: &str) -> Failure {
    Failure {
        exit: Exit::No,
        message: format!("{} has key {id} with other public keys; it was left as it is", file.display()),
        next: "this is another keyring, or somebody has changed one of the two; name another file with --out".to_owned(),
    }
}
