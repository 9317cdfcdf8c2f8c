//! Which files the configuration leads to, and which version of its form each has.
//!
//! Versions are told from heads and first lines; whether a file is whole beyond that is for `ronctl ledger verify` and `audit verify` to say.
use crate::access::{load_revocations, Custody, KeyringFault, Policy, PolicyFault, PolicyFlaws, POLICY_FORM};
use crate::config::{AccountingDep, Config, LedgerDep, RegistryDep};
use crate::ledger::{formats, DiskStorage, FormatVersion};
use crate::operator::exit::Failure;
use crate::registry::Registry;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The kind of a keyring.
pub const KEYRING: &str = "keyring";
/// How much of the first line of a file of lines is looked at, in bytes.
const BEGINNING_BYTES: u64 = 64;
/// Largest file of JSON whose version is looked at, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub kind: &'static str,
    /// Where.
    pub path: PathBuf,
    /// The version of its form.
    pub form: Form,
}

/// The version of the form of a file, and how that compares with what this program reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// It is read; without a version if the form has none of its own.
    Current(Option<u32>),
    /// There is a newer form that it can be brought to.
    Older(u32),
    /// A later version has written it.
    Newer {
        /// Its version.
        version: u32,
        /// The newest that is read.
        read: u32,
    },
    /// It is not what any version writes, and why.
    Damaged(String),
}

/// The one member that tells the version of a list of revocations.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Where the ledger is, as far as that is known without its daemon.
pub fn ledger_directory(config: &Config, named: Option<&Path>) -> Option<PathBuf> {
    match (named, &config.deps.ledger) {
        (Some(named), _) => Some(named.to_owned()),
        (None, LedgerDep::Embedded(_)) if config.security.amnesia => None,
        (None, LedgerDep::Embedded(directory)) => Some(directory.clone()),
        (None, LedgerDep::Unix(_)) => None,
    }
}

/// All files that there are.
///
/// # Errors
/// If a directory or a file cannot be read.
pub fn survey(config: &Config, custody: &Custody, ledger: Option<&Path>) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let mut add = |kind, path: &Path, form: Form| found.push(Found { kind, path: path.to_owned(), form });
    if let Some(file) = &config.file {
        // It was read as a whole before this.
        add("config", file, Form::Current(None));
    }
    let file = &config.security.policy_file;
    add("policy", file, policy(file));
    if !config.security.amnesia && config.security.keyring.exists() {
        add(KEYRING, &config.security.keyring, keyring(custody)?);
    }
    let revocations = &config.security.revocations;
    if revocations.exists() {
        add("revocations", revocations, revocation_list(revocations)?);
    }
    if let RegistryDep::File(file) = &config.deps.registry {
        add("topology", file, whole(Registry::load(file).map(drop)));
    }
    if config.security.amnesia {
        return Ok(found);
    }
    if let AccountingDep::Embedded(directory) = &config.deps.accounting {
        for path in lines_in(directory, "counters")? {
            let form = first_line(&path, u32::from(crate::accounting::FORMAT))?;
            add("counters", &path, form);
        }
    }
    if let Some(directory) = config.audit_stream() {
        for path in lines_in(&directory, "audit-")? {
            let form = first_line(&path, u32::from(crate::audit::VERSION))?;
            add("audit", &path, form);
        }
    }
    if let Some(roots) = config.signed_roots().filter(|roots| roots.exists()) {
        add("signed roots", &roots, Form::Current(None));
    }
    if let Some(directory) = ledger.filter(|directory| directory.is_dir()) {
        let listed =
            DiskStorage::read_only(directory).and_then(|storage| formats(&storage)).map_err(|fault| unread(directory, &fault))?;
        for file in listed {
            let form = match file.version {
                FormatVersion::Current(version) => Form::Current(Some(version)),
                FormatVersion::Older(version) => Form::Older(version),
                FormatVersion::Newer { version, read } => Form::Newer { version, read },
                FormatVersion::Damaged(why) => Form::Damaged(why),
            };
            add(file.kind, &directory.join(&file.name), form);
        }
    }
    Ok(found)
}

fn unread(path: &Path, fault: &io::Error) -> Failure {
    Failure::internal(format!("cannot read {}: {fault}", path.display()), "run it as the user of the service")
}

/// A file whose form has no versions: it is read as a whole.
fn whole<E: std::fmt::Display>(read: Result<(), E>) -> Form {
    read.map_or_else(|fault| Form::Damaged(fault.to_string()), |()| Form::Current(None))
}

/// What a version is, of a form of which one version is read.
fn judged(version: u32, read: u32) -> Form {
    match version.cmp(&read) {
        std::cmp::Ordering::Less => Form::Older(version),
        std::cmp::Ordering::Equal => Form::Current(Some(version)),
        std::cmp::Ordering::Greater => Form::Newer { version, read },
    }
}

/// The form of a policy, which is not the version that its author gives to what it says.
fn policy(path: &Path) -> Form {
    match Policy::load(path) {
        Ok(_) => Form::Current(Some(POLICY_FORM)),
        Err(PolicyFault::Malformed { flaws: PolicyFlaws { other_form: Some(form), .. }, .. })
            if form > u64::from(POLICY_FORM) =>
        {
            Form::Newer { version: u32::try_from(form).unwrap_or(u32::MAX), read: POLICY_FORM }
        }
        Err(fault) => Form::Damaged(fault.to_string()),
    }
}

fn keyring(custody: &Custody) -> Result<Form, Failure> {
    match custody.form() {
        Ok((version, [.., read])) => Ok(judged(version, read)),
        Err(fault @ KeyringFault::Unreadable { .. }) => {
            Err(Failure::internal(fault.to_string(), "run it as the user of the service"))
        }
        Err(fault) => Ok(Form::Damaged(fault.to_string())),
    }
}

fn revocation_list(path: &Path) -> Result<Form, Failure> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|fault| unread(path, &fault))?;
    let read = crate::access::REVOCATIONS_VERSION;
    Ok(match serde_json::from_slice::<Versioned>(&text) {
        Ok(Versioned { version }) if version == read => match load_revocations(path) {
            Ok(_) => Form::Current(Some(version)),
            Err(fault) => Form::Damaged(fault.to_string()),
        },
        Ok(Versioned { version }) => judged(version, read),
        Err(fault) => Form::Damaged(fault.to_string()),
    })
}

/// The files of lines in a directory whose names begin like this, in order; none if there is no directory.
fn lines_in(directory: &Path, beginning: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let listed = match std::fs::read_dir(directory) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(files),
        listed => listed.map_err(|fault| unread(directory, &fault))?,
    };
    for entry in listed {
        let path = entry.map_err(|fault| unread(directory, &fault))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(beginning) && name.ends_with(".jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The version of the first line. Lines are chained or numbered: one that is damaged further on is found by whoever reads them all.
fn first_line(path: &Path, read: u32) -> Result<Form, Failure> {
    let mut line = Vec::new();
    let file = File::open(path).map_err(|fault| unread(path, &fault))?;
    file.take(BEGINNING_BYTES).read_to_end(&mut line).map_err(|fault| unread(path, &fault))?;
    if line.is_empty() {
        return Ok(Form::Current(Some(read)));
    }
    Ok(match version_of(&line) {
        Some(version) => judged(version, read),
        None => Form::Damaged("its first line is not what was written".to_owned()),
    })
}

/// The version of a line: of its members, `v` is the first.
fn version_of(line: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("{\"v\":")?;
    text.split([',', '}']).next()?.parse().ok()
}
