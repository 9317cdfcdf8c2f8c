//! `ronctl proof consistency`: whether a later root continues an earlier one, without a server.
use super::signed::{self, Signatures};
use super::trusted::Trusted;
use super::{content, not_proven, proven, read_body, Doubt};
use crate::access::SignedRoot;
use crate::api::proof::{ConsistencyBody, RootBody};
use crate::domain::Consistency as Proof;
use crate::ledger::history::verify_consistency;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, Output};
use crate::operator::public_keys::Trust;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl proof consistency --from old-root.json --to root.json --proof consistency.json
  ronctl --json proof consistency --from HEX:1200 --to HEX:1350 --proof -
  ronctl proof consistency --from old-root.json --proof consistency.json --keys public-keys.json

A root is 64 hexadecimal digits, these with :SIZE, or a file that `ronctl proof root --out FILE` has written. With --keys the later root has to
be signed, and every signature that is there has to fit; then --to may be left out. No server is asked. Ends
with 0 if the later root continues the earlier one, with 1 and the reason if that is not proven.")]
pub struct Consistency {
    /// The earlier root
    #[arg(long, value_name = "ROOT")]
    pub from: String,
    /// The later root
    #[arg(long, value_name = "ROOT", required_unless_present = "keys")]
    pub to: Option<String>,
    /// The proof, as `ronctl proof get --from SIZE --to SIZE` has fetched it; - for standard input
    #[arg(long, value_name = "FILE")]
    pub proof: PathBuf,
    #[command(flatten)]
    trust: Trust,
}

impl Consistency {
    /// Checks and says what was proven.
    pub fn run(&self, output: &Output) -> Result<Exit, Failure> {
        let (from, to) = (Trusted::read(&self.from)?, self.to.as_deref().map(Trusted::read).transpose()?);
        let mut signatures = Signatures::under(&self.trust)?;
        let bytes = content(&self.proof)?;
        let checked = checked(&bytes, &mut signatures).and_then(|proof| {
            let next = "fetch the proof between the sizes of the two roots: `ronctl proof get --from SIZE --to SIZE`";
            from.check(&proof.from, proof.log_id, next)?;
            from.add_to(&mut signatures)?;
            if let Some(to) = &to {
                to.check(&proof.to, proof.log_id, next)?;
                to.add_to(&mut signatures)?;
            }
            let signed = signatures.of(proof.log_id, &proof.to)?;
            Ok((proof, signed))
        });
        match checked {
            Ok((proof, signed)) => show(output, &proof, &signed),
            Err(doubt) => not_proven(output, &doubt),
        }
    }
}

/// The proof, which holds, as do the signatures of its roots. Whether its roots are the right ones is not known.
pub(super) fn checked(bytes: &[u8], signatures: &mut Signatures) -> Result<Proof, Doubt> {
    let body: ConsistencyBody = read_body(bytes, "the consistency proof")?;
    let next = "fetch it again with `ronctl proof get --from SIZE --to SIZE`";
    let proof = body.read().map_err(|fault| Doubt::new(fault.to_string(), next))?;
    verify_consistency(&proof).map_err(|fault| Doubt::new(format!("the consistency proof does not hold: {fault}"), next))?;
    signatures.add(proof.log_id, &body.from)?;
    signatures.add(proof.log_id, &body.to)?;
    Ok(proof)
}

fn show(output: &Output, proof: &Proof, signed: &[SignedRoot]) -> Result<Exit, Failure> {
    let describe = |root: &crate::domain::HistoryRoot| {
        format!("{} batches, through entry {}", grouped(u128::from(root.size)), grouped(u128::from(root.through.0)))
    };
    let log_id = ConsistencyBody::from(proof).log_id;
    let mut rows = vec![("earlier", describe(&proof.from)), ("later", describe(&proof.to)), ("ledger", log_id.clone())];
    rows.extend(signed::rows(signed));
    let members = json!({"proven": true, "log_id": log_id, "from": RootBody::from(&proof.from), "to": RootBody::from(&proof.to),
        "signed": signed::members(signed)});
    proven(output, "The later root continues the earlier one: nothing up to there was changed.", &rows, &members)
}
