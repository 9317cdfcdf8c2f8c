//! The table of steps from one version of a file to the next. A version to come adds its rows here, and migrates whatever is behind it by
//! following them.
use super::survey::{Form, KEYRING};
use crate::access::Custody;
use crate::ledger::{index_anew, DiskStorage, INDEX_KIND};
use crate::operator::exit::{Exit, Failure};
use std::path::Path;

/// What the steps need besides the file.
pub struct Session {
    /// What opens and seals the keyring.
    pub custody: Custody,
}

/// From one version of one kind of file to the next.
#[derive(Debug)]
pub struct Step {
    /// The kind of file.
    pub kind: &'static str,
    /// The version that it leads from.
    pub from: u32,
    /// The version that it leads to.
    pub to: u32,
    /// What it does, as a verb.
    pub does: &'static str,
    /// The whole of the new file, made from the old one, which it leaves alone.
    pub rewrite: fn(&Session, &Path) -> Result<Vec<u8>, Failure>,
}

/// All steps.
pub const STEPS: &[Step] = &[
    Step { kind: KEYRING, from: 1, to: 2, does: "seal it under the key that security.kms leads to", rewrite: seal_keyring },
    Step { kind: INDEX_KIND, from: 1, to: 2, does: "make it anew from its segment", rewrite: remake_index },
];

/// The steps that lead a file of this form to the newest version; none if it needs none, or none leads on.
pub fn path(steps: &'static [Step], kind: &str, form: &Form) -> Vec<&'static Step> {
    let Form::Older(mut version) = *form else { return Vec::new() };
    let mut found = Vec::new();
    while let Some(step) = steps.iter().find(|step| step.kind == kind && step.from == version) {
        version = step.to;
        found.push(step);
    }
    found
}

fn refused(message: String) -> Failure {
    Failure { exit: Exit::No, message, next: String::new() }
}

fn seal_keyring(session: &Session, _: &Path) -> Result<Vec<u8>, Failure> {
    session.custody.resealed().map_err(|fault| refused(fault.to_string()))
}

fn remake_index(_: &Session, path: &Path) -> Result<Vec<u8>, Failure> {
    let (directory, name) = (path.parent().unwrap_or(Path::new(".")), path.file_name().unwrap_or_default());
    let storage = DiskStorage::read_only(directory).map_err(|fault| refused(fault.to_string()))?;
    index_anew(&storage, &name.to_string_lossy()).map_err(|fault| refused(fault.to_string()))
}
