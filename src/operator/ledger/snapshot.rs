//! `ronctl ledger snapshot`: a copy of the ledger's state in one file, made beside a running server or without one.
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{json, Value};

use super::{refused, Directory};
use crate::access::directory_of;
use crate::domain::{hex, Seq};
use crate::ledger::snapshot::Snapshot;
use crate::ledger::{back_up, DiskFile, DiskStorage, LedgerError};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::grouped;

/// Entries between two progress lines.
const PROGRESS_ENTRIES: u64 = 10_000;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl ledger snapshot --out /tmp/ledger.snap
  ronctl --json ledger snapshot --dir /var/lib/ron/ledger --out ledger.snap | jq .digest

The file holds every account's balances, nonce and holds, the sums per asset, and the keys of recent issues, after the last entry
that is there when it is made. It is made from the newest snapshot in the ledger's directory and the entries behind it, synced, read
back and checked. Nothing in the ledger changes; a server may run meanwhile. `ronctl ledger restore` makes a ledger of it.")]
pub struct SnapshotTo {
    #[command(flatten)]
    directory: Directory,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

impl SnapshotTo {
    /// Makes the copy and says what is in it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let ledger = self.directory.storage(context)?;
        if !self.force && self.out.exists() {
            return Err(Failure::usage(
                format!("{} is there already and was left alone", self.out.display()),
                "choose another file, or say --force",
            ));
        }
        let (folder, name) = folder_and_name(&self.out)?;
        if !folder.is_dir() {
            let message = format!("there is no directory {}", folder.display());
            return Err(Failure::usage(message, "make it, or see whether its disk is mounted"));
        }
        let target = DiskStorage::create(folder).map_err(LedgerError::io(folder.display().to_string(), "use the directory"));
        let target = target.map_err(|error| Failure::internal(error.to_string(), ""))?;
        let (output, began) = (&context.output, Instant::now());
        let mut told = 0;
        let made = back_up(&ledger, &target, name, &mut |Seq(seq)| {
            if seq >= told {
                told = seq + PROGRESS_ENTRIES;
                output.progress(&format!("entry {}", grouped(u128::from(seq))));
            }
        });
        output.progress("");
        let made = made.map_err(|error| refused(&error))?;
        if output.json {
            output.value(&described(&made))?;
        } else {
            let took = began.elapsed().as_secs_f64();
            output.line(&format!("{}\n\nwritten in {took:.1} s to {}", shown(context, &made), self.out.display()))?;
        }
        Ok(Exit::Done)
    }
}

/// The directory of a file, and its name in there.
pub(in crate::operator) fn folder_and_name(file: &Path) -> Result<(&Path, &str), Failure> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::usage(format!("{} is not the name of a file", file.display()), "name a file"))?;
    Ok((directory_of(file), name))
}

/// What is in a snapshot, for programs.
pub(super) fn described(snapshot: &Snapshot<DiskFile>) -> Value {
    let head = snapshot.head();
    let asset = |sums: &crate::ledger::snapshot::AssetSums| {
        let balances = sums.issued.saturating_sub(sums.burned);
        json!({"asset": sums.asset, "issued": sums.issued.to_string(), "burned": sums.burned.to_string(),
            "balances": balances.to_string(), "held": sums.held.to_string()})
    };
    json!({
        "file": snapshot.place(), "log_id": hex(&head.log_id.0), "entry": head.seq.0, "ledger_root": hex(&head.root), "root": hex(&head.root),
        "accounts": head.accounts, "digest": hex(&head.digest),
        "assets": snapshot.front().assets.iter().map(asset).collect::<Vec<_>>(),
    })
}

/// The same for people.
pub(super) fn shown(context: &Context, snapshot: &Snapshot<DiskFile>) -> String {
    let head = snapshot.head();
    let mut rows = vec![
        ("ledger", hex(&head.log_id.0)),
        ("through entry", grouped(u128::from(head.seq.0))),
        ("chain hash", hex(&head.root)),
        ("accounts", grouped(u128::from(head.accounts))),
        ("digest", hex(&head.digest)),
    ];
    for sums in &snapshot.front().assets {
        let balances = sums.issued.saturating_sub(sums.burned);
        let (issued, burned, held) = (grouped(sums.issued), grouped(sums.burned), grouped(sums.held));
        let text = format!("{} on all accounts ({issued} issued, {burned} burned, {held} held)", grouped(balances));
        rows.push((sums.asset.as_str(), text));
    }
    context.output.fields(&rows)
}
