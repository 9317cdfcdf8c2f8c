//! `ronctl proof root`: the current root of the history, to be kept.
//!
//! A root that is kept is what everything else is checked against. So a file that has one is only replaced by a root that provably
//! continues it; the proof is fetched and checked here, and whatever else is in the file stays.
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::signed::Signatures;
use super::{consistency, content, keep, read_body, Doubt};
use crate::api::proof::CurrentRootBody;
use crate::domain::HistoryRoot;
use crate::operator::client::Reply;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::kept_file::replace;
use crate::operator::output::grouped;
use crate::operator::public_keys::Trust;
use crate::operator::wallet::{ask, refusal, Authority};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl proof root
  ronctl proof root --out root.json
  ronctl proof root --signed --keys public-keys.json --out root.json

Keep the root where the operator of the server cannot change it: with it every earlier receipt and every later root can be checked. It is
the root of the history, which covers every batch; `ledger_root` in a receipt is another hash, see docs/LEDGER.md, Two hashes.

If the file has a root already, the proof that the new one continues it is asked for and checked, and only then the file is replaced. If
that is not proven, the file stays and the command ends with 1: somebody has changed the history, or this is another ledger.

With --keys the root has to be signed, and its signatures have to fit; --signed asks for the newest root that is, which may be some seconds
older than the current one.")]
pub struct Root {
    /// Write to a file instead of standard output; a root in it is replaced only by one that continues it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the file whatever is in it
    #[arg(long, requires = "out")]
    force: bool,
    /// Ask for the newest root that is signed, instead of the current one
    #[arg(long)]
    signed: bool,
    #[command(flatten)]
    trust: Trust,
    #[command(flatten)]
    authority: Authority,
}

/// What becomes of a file that is there.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    /// It has this very root.
    Same,
    /// It has an earlier one; the proof between these sizes decides.
    Earlier { from: u64, to: u64 },
}

impl Root {
    /// Asks and keeps the answer.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let signatures = Signatures::under(&self.trust)?;
        let target = if self.signed { "/v1/ledger/root?signed=true" } else { "/v1/ledger/root" };
        let reply = ask(context, &self.authority, target, None)?;
        if reply.status == 200 && signatures.are_checked() {
            is_signed(&reply, signatures).map_err(|doubt| unsigned(&doubt))?;
        }
        let Some(file) = self.out.as_deref().filter(|_| reply.status == 200) else {
            return keep(&context.output, &reply, None);
        };
        if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
            // A pipe or a terminal keeps nothing.
            return keep(&context.output, &reply, Some(file));
        }
        if self.force || fs::symlink_metadata(file).is_err() {
            return written(context, file, &reply);
        }
        let kept = read::<CurrentRootBody>(&content(file)?).ok_or_else(|| no_root(file))?;
        let new = read::<CurrentRootBody>(&reply.body).ok_or_else(|| Failure::internal("the server sent no root", ""))?;
        if self.signed && new.root.size < kept.root.size {
            return Err(refused(
                file,
                &Doubt::new("the newest signed root is an older one; there will be a newer one in a moment", ""),
            ));
        }
        match compared(&kept, &new).map_err(|doubt| refused(file, &doubt))? {
            Kept::Same if kept.root.signatures.is_empty() && !new.root.signatures.is_empty() => written(context, file, &reply),
            Kept::Same => {
                context.output.hint(&format!("{} has this root already", file.display()));
                Ok(Exit::Done)
            }
            Kept::Earlier { from, to } => {
                let target = format!("/v1/ledger/consistency?from={from}&to={to}");
                let proof = ask(context, &self.authority, &target, None)?;
                if proof.status != 200 {
                    return Err(refused(file, &Doubt::new(format!("that is not proven: {}", refusal(&proof).message), "")));
                }
                continues(&kept, &new, &proof.body).map_err(|doubt| refused(file, &doubt))?;
                let batches = grouped(u128::from(from));
                context.output.hint(&format!("the new root continues the one of {batches} batches that was kept"));
                written(context, file, &reply)
            }
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

fn root_of(body: &CurrentRootBody) -> Result<HistoryRoot, Doubt> {
    body.root.read().map_err(|fault| Doubt::new(fault.to_string(), ""))
}

/// Whether the root of a reply is signed by one of the keys.
fn is_signed(reply: &Reply, mut signatures: Signatures) -> Result<(), Doubt> {
    let body: CurrentRootBody = read_body(&reply.body, "the root")?;
    let (log_id, root) = body.read().map_err(|fault| Doubt::new(fault.to_string(), ""))?;
    signatures.add(log_id, &body.root)?;
    signatures.of(log_id, &root).map(drop)
}

fn unsigned(doubt: &Doubt) -> Failure {
    Failure { exit: Exit::No, message: doubt.what.clone(), next: doubt.next.to_owned() }
}

/// What a new root is to the one that is kept, as far as it can be told without a proof.
fn compared(kept: &CurrentRootBody, new: &CurrentRootBody) -> Result<Kept, Doubt> {
    let (earlier, later) = (root_of(kept)?, root_of(new)?);
    let sizes = [earlier.size, later.size].map(|size| grouped(u128::from(size)));
    if kept.log_id != new.log_id {
        return Err(Doubt::new(format!("it has the root of another ledger, {}, not of {}", kept.log_id, new.log_id), ""));
    }
    if earlier.size > later.size {
        let what =
            format!("it has a root of {} batches, and the server has {} only: what was kept is gone there", sizes[0], sizes[1]);
        return Err(Doubt::new(what, ""));
    }
    if earlier.size < later.size {
        return Ok(Kept::Earlier { from: earlier.size, to: later.size });
    }
    if earlier == later {
        return Ok(Kept::Same);
    }
    Err(Doubt::new(format!("it has another root of {} batches: the history was changed", sizes[0]), ""))
}

/// Whether a proof shows that the new root continues the one that is kept.
fn continues(kept: &CurrentRootBody, new: &CurrentRootBody, proof: &[u8]) -> Result<(), Doubt> {
    let proof = consistency::checked(proof, &mut Signatures::default())?;
    // The hash of a root covers the identity of its ledger.
    if proof.from == root_of(kept)? && proof.to == root_of(new)? {
        return Ok(());
    }
    Err(Doubt::new("the proof that the server sent is between other roots than these two: the history was changed", ""))
}

fn written(context: &Context, file: &Path, reply: &Reply) -> Result<Exit, Failure> {
    replace(file, &reply.body)
        .map_err(|fault| Failure::usage(format!("cannot write {}: {fault}", file.display()), "name another file with --out"))?;
    context.output.hint(&format!("written to {}", file.display()));
    Ok(Exit::Done)
}

fn no_root(file: &Path) -> Failure {
    let message = format!("{} is there already and has no root; it was left as it is", file.display());
    Failure::usage(message, "name another file with --out, or replace it with --force")
}

fn refused(file: &Path, doubt: &Doubt) -> Failure {
    Failure {
        exit: Exit::No,
        message: format!("{} is kept as it is: {}", file.display(), doubt.what),
        next: "keep that file and write the new root to another one; ask the operator of the server why they differ, and check with \
               `ronctl proof consistency` what they send; --force replaces the root that you have trusted so far"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(log: u8, size: u64, hash: u8) -> CurrentRootBody {
        let [log, hash] =
            [[log; 16].map(|byte| format!("{byte:02x}")).concat(), [hash; 32].map(|byte| format!("{byte:02x}")).concat()];
        let text = format!(r#"{{"log_id":"{log}","root":{{"size":{size},"seq":{size},"hash":"{hash}","signatures":[]}}}}"#);
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_a_later_root_of_the_same_ledger_can_take_the_place_of_one_that_is_kept() {
        let kept = root(1, 1_200, 7);
        assert_eq!(compared(&kept, &root(1, 1_200, 7)), Ok(Kept::Same));
        assert_eq!(compared(&kept, &root(1, 1_350, 8)), Ok(Kept::Earlier { from: 1_200, to: 1_350 }));
        for (new, part) in [
            (root(2, 1_350, 8), "another ledger"),
            (root(1, 1_200, 8), "the history was changed"),
            (root(1, 1_100, 8), "1_200 batches, and the server has 1_100 only"),
        ] {
            let doubt = compared(&kept, &new).unwrap_err();
            assert!(doubt.what.contains(part), "{doubt:?}");
            assert_eq!(refused(Path::new("root.json"), &doubt).exit, Exit::No);
        }
        assert!(continues(&kept, &root(1, 1_350, 8), b"{}").is_err());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_also_behind_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (file, link) = (place.path().join("a"), place.path().join("b"));
        replace(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing is left over");
    }
}
