//! `ronctl migrate`: brings the files of a service to the versions that this program reads, each with a backup, or says what it would do.
//!
//! | file | role |
//! |---|---|
//! | `survey` | which files there are, and which version of its form each has |
//! | `steps` | the table of steps from one version to the next |
//! | `carry` | one step on one file: backup, the new version aside, synced, renamed |
//! | `idle` | nobody else uses the files meanwhile |
mod carry;
mod idle;
mod steps;
mod survey;

use std::path::PathBuf;

use serde_json::{json, Value};

use super::context::{known_service, Context};
use super::exit::{Exit, Failure};
use super::output::Style;
use crate::config::LedgerDep;
use carry::Stage;
use steps::{Step, STEPS};
use survey::{Form, Found};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl migrate svc-wallet --dry-run
  ronctl migrate svc-wallet
  ronctl --config /etc/ron/svc-wallet.toml --json migrate svc-wallet --dry-run
  ronctl migrate svc-wallet --ledger-dir /var/lib/ron/ledger

Looks at every file that the configuration leads to: the configuration itself, policy, keyring, revocations, topology, counters, audit stream,
signed roots, and the ledger with its indexes and snapshots. What has an older version is brought to that of this program: first a backup is made
beside the file, with its permissions, then the new version is written aside, synced and renamed. Interrupted, it can be repeated. Files of newer
versions end it before anything is changed. The servers must not run, but --dry-run changes nothing and can be run beside them. Ends with 1 if a
file is of a newer version or damaged, or could not be migrated. The version of a policy is here that of its form, the member `form`.")]
pub struct Migrate {
    /// The service: svc-wallet
    service: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Directory of the ledger, if it is that of a daemon
    #[arg(long, value_name = "DIR")]
    ledger_dir: Option<PathBuf>,
}

/// What became of a file.
struct Told {
    found: Found,
    steps: Vec<&'static Step>,
    backups: Vec<PathBuf>,
    failure: Option<Failure>,
}

impl Migrate {
    /// Looks, and migrates unless it is a dry run.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        known_service(&self.service)?;
        let config = context.config()?;
        let ledger = survey::ledger_directory(&config, self.ledger_dir.as_deref());
        // Taken before the files are looked at: what is seen stays as it is.
        let guard = if self.dry_run { None } else { Some(idle::take(context, &config, ledger.as_deref())?) };
        // Once: a key in the environment can be taken from there once only.
        let session = steps::Session { custody: crate::control::custody(&config.security) };
        let found = survey::survey(&config, &session.custody, ledger.as_deref())?;
        let newer: Vec<&Found> = found.iter().filter(|found| matches!(found.form, Form::Newer { .. })).collect();
        let refused = (!newer.is_empty() && !self.dry_run).then(|| newer_than_this(&newer));
        let mut told = Vec::with_capacity(found.len());
        let count = found.len();
        for (number, found) in (1..).zip(found) {
            let mut one = Told { steps: steps::path(STEPS, found.kind, &found.form), backups: Vec::new(), failure: None, found };
            if guard.is_some() && refused.is_none() && !one.steps.is_empty() {
                let place = one.found.path.display().to_string();
                context.output.progress(&format!("{number} of {count}: {place}"));
                migrate(&session, &mut one, &mut |_, _| Ok(()))?;
            }
            told.push(one);
        }
        context.output.progress("");
        drop(guard);
        // Where it is, its daemon alone knows, and that has to be down.
        let left_out = ledger.is_none() && matches!(config.deps.ledger, LedgerDep::Unix(_));
        self.tell(context, &told, left_out)?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let sound = |one: &Told| one.failure.is_none() && !matches!(one.found.form, Form::Newer { .. } | Form::Damaged(_));
        Ok(if told.iter().all(sound) { Exit::Done } else { Exit::No })
    }

    fn tell(&self, context: &Context, told: &[Told], left_out: bool) -> Result<(), Failure> {
        let output = &context.output;
        if output.json {
            let files: Vec<Value> = told.iter().map(|one| one.json(self.dry_run)).collect();
            return output
                .value(&json!({"service": self.service, "dry_run": self.dry_run, "ledger_left_out": left_out, "files": files}));
        }
        let mut rows = Vec::new();
        for one in told {
            let style = match (&one.found.form, &one.failure) {
                (Form::Current(_), None) => Style::Good,
                (Form::Older(_), None) => Style::Warning,
                (Form::Newer { .. } | Form::Damaged(_), _) | (_, Some(_)) => Style::Bad,
            };
            rows.push(format!(
                "{:<12} {}: {}",
                one.found.kind,
                one.found.path.display(),
                output.paint(style, &one.words(self.dry_run))
            ));
            rows.extend(one.backups.iter().map(|backup| format!("{:<12} backup: {}", "", backup.display())));
        }
        let changed: usize = told.iter().filter(|one| !one.backups.is_empty() && one.failure.is_none()).count();
        let open = told.iter().filter(|one| !one.steps.is_empty()).count();
        rows.push(match (self.dry_run, open, changed) {
            (_, 0, _) => "nothing to migrate".to_owned(),
            (true, open, _) => format!("would migrate {open} of {} files; nothing was changed", told.len()),
            (false, open, changed) => format!("migrated {changed} of {open} files"),
        });
        if told.iter().any(|one| one.found.kind == survey::KEYRING && !one.backups.is_empty()) {
            rows.push(
                "the backup of the keyring has its keys in the clear: remove it once the servers run with the new one".to_owned(),
            );
        }
        if left_out {
            rows.push("the ledger is that of a daemon and was left out: name its directory with --ledger-dir".to_owned());
        }
        output.line(&rows.join("\n"))
    }
}

impl Told {
    fn words(&self, dry_run: bool) -> String {
        let steps = || {
            let done = self.steps.iter().map(|step| format!("to {}: {}", step.to, step.does));
            done.collect::<Vec<_>>().join(", then ")
        };
        match (&self.found.form, &self.failure) {
            (_, Some(failure)) => format!("not migrated: {failure}"),
            (Form::Current(Some(version)), None) => format!("version {version}, current"),
            (Form::Current(None), None) => "read by this version; its form has no versions".to_owned(),
            (Form::Older(version), None) if self.steps.is_empty() => {
                format!("version {version}, and no step leads on from there")
            }
            (Form::Older(version), None) if dry_run => format!("version {version}, would be brought {}", steps()),
            (Form::Older(version), None) if self.backups.is_empty() => format!("version {version}, to be brought {}", steps()),
            (Form::Older(version), None) => format!("version {version}, brought {}", steps()),
            (Form::Newer { version, read }, None) => {
                format!("version {version} is newer than {read}, the newest that is read here")
            }
            (Form::Damaged(why), None) => format!("damaged: {why}"),
        }
    }

    fn json(&self, dry_run: bool) -> Value {
        let (state, version) = match &self.found.form {
            Form::Current(version) => ("current", *version),
            Form::Older(version) => ("older", Some(*version)),
            Form::Newer { version, .. } => ("newer", Some(*version)),
            Form::Damaged(_) => ("damaged", None),
        };
        let steps: Vec<Value> =
            self.steps.iter().map(|step| json!({"from": step.from, "to": step.to, "does": step.does})).collect();
        let backups: Vec<String> = self.backups.iter().map(|backup| backup.display().to_string()).collect();
        let migrated = !backups.is_empty() && self.failure.is_none();
        json!({
            "kind": self.found.kind, "file": self.found.path.display().to_string(), "state": state, "version": version, "steps": steps,
            "migrated": migrated, "backups": backups, "told": self.words(dry_run),
        })
    }
}

fn newer_than_this(newer: &[&Found]) -> Failure {
    let names: Vec<String> = newer.iter().map(|found| found.path.display().to_string()).collect();
    Failure {
        exit: Exit::No,
        message: format!("nothing was changed: a later version has written {}", names.join(", ")),
        next: "use the programs of the version that wrote them, or bring back the backup from before that upgrade".to_owned(),
    }
}

/// Brings a file from version to version. What a step refuses is noted with the file; what the system refuses ends the command.
fn migrate(
    session: &steps::Session,
    one: &mut Told,
    watch: &mut dyn FnMut(Stage, &std::path::Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for step in one.steps.clone() {
        let bytes = match (step.rewrite)(session, &one.found.path) {
            Ok(bytes) => bytes,
            Err(failure) => {
                one.failure = Some(failure);
                return Ok(());
            }
        };
        let backup = carry::carry(&one.found.path, step.from, &bytes, watch)?;
        one.backups.push(backup);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
