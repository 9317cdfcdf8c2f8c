//! `ronctl proof verify`: whether a transaction is part of the history with a trusted or a signed root, without a server.
use super::signed::{self, Signatures};
use super::trusted::Trusted;
use super::{consistency, content, not_proven, proven, read_body, Doubt};
use crate::access::SignedRoot;
use crate::api::proof::{ConsistencyBody, ProofBody, RootBody};
use crate::api::reply;
use crate::domain::{Entry, HistoryRoot, Proof};
use crate::ledger::history::verify_inclusion;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, printable, rfc3339, Output};
use crate::operator::public_keys::Trust;
use serde_json::{json, Value};
use std::path::PathBuf;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl proof verify --proof proof.json --root root.json
  ronctl proof verify --proof proof.json --root HEX --receipt receipt.json
  ronctl proof verify --proof old-proof.json --consistency consistency.json --root root.json
  ronctl proof verify --proof proof.json --keys public-keys.json --receipt receipt.json
  ronctl proof verify --proof proof.json --keys public-keys.json --expect hybrid=on

The root is the one that you trust: 64 hexadecimal digits, these with :SIZE, or a file that `ronctl proof root --out FILE` has written. The
`ledger_root` of a receipt is another hash and no such root, see docs/LEDGER.md, Two hashes. A proof under an earlier root also needs the proof that the trusted root continues it.

With --keys the root has to be signed by one of these keys, and every signature that is there has to fit, of a hybrid key both. Then --root may be
left out: what is trusted is whoever has the key. With --expect hybrid=on only signatures of hybrid keys count. No server is asked. Ends with 0 if the
transaction is part of the ledger, with 1 and the reason if that is not proven.")]
pub struct Verify {
    /// The proof, as `ronctl proof get --tx TXID` has fetched it; - for standard input
    #[arg(long, value_name = "FILE")]
    pub proof: PathBuf,
    /// The trusted root
    #[arg(long, value_name = "ROOT", required_unless_present = "keys")]
    pub root: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// How many batches the trusted root has
    #[arg(long, value_name = "SIZE", requires = "root")]
    pub size: Option<u64>,
    /// The proof that the trusted root continues the one of the proof
    #[arg(long, value_name = "FILE")]
    pub consistency: Option<PathBuf>,
    /// A receipt that was kept, to be compared with the entry
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
}

impl Verify {
    /// Checks and says what was proven.
    pub fn run(&self, output: &Output) -> Result<Exit, Failure> {
        let trusted = self.root.as_deref().map(Trusted::read).transpose()?.map(|trusted| trusted.of_size(self.size));
        let signatures = Signatures::under(&self.trust)?;
        let bytes = content(&self.proof)?;
        let continued = self.consistency.as_deref().map(content).transpose()?;
        let kept = self.receipt.as_deref().map(content).transpose()?;
        match checked(&bytes, continued.as_deref(), kept.as_deref(), trusted.as_ref(), signatures) {
            Ok(verdict) => verdict.show(output),
            Err(doubt) => not_proven(output, &doubt),
        }
    }
}

/// What was proven.
#[derive(Debug)]
struct Verdict {
    proof: Proof,
    /// The root that is trusted: that of the proof, or one that continues it.
    root: HistoryRoot,
    receipt: Value,
    /// Whether a receipt was given, and is this one.
    compared: bool,
    /// Who has signed the root, as far as that was checked.
    signed: Vec<SignedRoot>,
}

fn checked(
    bytes: &[u8],
    continued: Option<&[u8]>,
    kept: Option<&[u8]>,
    trusted: Option<&Trusted>,
    mut signatures: Signatures,
) -> Result<Verdict, Doubt> {
    let body: ProofBody = read_body(bytes, "the proof").map_err(|doubt| match serde_json::from_slice::<ConsistencyBody>(bytes) {
        Ok(_) => Doubt::new(
            "this is a proof that one root continues another, and not one of a transaction",
            "check it with `ronctl proof consistency --proof FILE`, or give it with --consistency beside the proof of a transaction",
        ),
        Err(_) => doubt,
    })?;
    let next = "fetch it again with `ronctl proof get --tx TXID`";
    let proof = body.read().map_err(|fault| Doubt::new(format!("the proof contradicts itself: {fault}"), next))?;
    verify_inclusion(&proof).map_err(|fault| Doubt::new(format!("the proof does not hold: {fault}"), next))?;
    signatures.add(proof.log_id, &body.root)?;
    let root = match continued {
        None => proof.inclusion.root,
        Some(bytes) => {
            let continued = consistency::checked(bytes, &mut signatures)?;
            if (continued.log_id, continued.from) != (proof.log_id, proof.inclusion.root) {
                let what = format!("the consistency proof does not begin with the root of the proof, {} batches", body.root.size);
                return Err(Doubt::new(what, "fetch one from that size: `ronctl proof get --from SIZE --to SIZE`"));
            }
            continued.to
        }
    };
    let next =
        "fetch a proof under the trusted root with --size SIZE, or give the proof that the trusted root continues this one \
                with --consistency FILE";
    if let Some(trusted) = trusted {
        trusted.check_not(&proof.found.root)?;
        trusted.check(&root, proof.log_id, next)?;
        trusted.add_to(&mut signatures)?;
    }
    let signed = signatures.of(proof.log_id, &root)?;
    let receipt = receipt_of(&proof);
    if let Some(kept) = kept {
        compare(kept, &receipt)?;
    }
    Ok(Verdict { proof, root, receipt, compared: kept.is_some(), signed })
}

/// The receipt that follows from a proof.
fn receipt_of(proof: &Proof) -> Value {
    let mut text = Vec::new();
    reply::receipt(&mut text, proof.log_id, &entry_of(proof), proof.found.seq, &proof.found.root);
    serde_json::from_slice(&text).expect("a receipt is JSON")
}

fn entry_of(proof: &Proof) -> Entry<'_> {
    Entry::parse(&proof.found.entry).expect("a proof that holds has an entry").0
}

fn compare(kept: &[u8], receipt: &Value) -> Result<(), Doubt> {
    let kept: Value = read_body(kept, "the receipt")?;
    let (Some(kept), Some(made)) = (kept.as_object(), receipt.as_object()) else {
        return Err(Doubt::new("the receipt is no JSON object", "give the receipt as the server sent it"));
    };
    let differing = made.keys().chain(kept.keys()).find(|name| kept.get(*name) != made.get(*name));
    match differing {
        None => Ok(()),
        Some(name) => {
            let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            let what = format!(
                "the receipt is not that of this entry: {name} is {} in the receipt and {} in the ledger",
                shown(kept.get(name)),
                shown(made.get(name))
            );
            Err(Doubt::new(what, "compare with the receipt of the same txid"))
        }
    }
}

impl Verdict {
    fn show(&self, output: &Output) -> Result<Exit, Failure> {
        let (found, place) = (&self.proof.found, &self.proof.inclusion);
        let entry = entry_of(&self.proof);
        let body = ProofBody::from(&self.proof);
        let members = json!({
            "proven": true, "txid": body.txid, "log_id": body.log_id, "seq": found.seq.0, "batch": place.batch,
            "receipt": self.receipt, "receipt_matches": self.compared.then_some(true), "memo": entry.memo(), "corr_id": entry.corr(),
            "root": RootBody::from(&self.root), "signed": signed::members(&self.signed),
        });
        let text = |name: &str| self.receipt[name].as_str().unwrap_or_default().to_owned();
        let number = |number: u64| grouped(u128::from(number));
        let mut rows = vec![("transaction", body.txid), ("operation", entry.op().as_str().to_owned())];
        rows.extend(entry.from().map(|from| ("from", from.as_str().to_owned())));
        rows.extend(entry.to().map(|to| ("to", to.as_str().to_owned())));
        rows.push(("amount", format!("{} {}", grouped(entry.amount().minor_units()), entry.asset().as_str())));
        rows.extend(entry.nonce().map(|nonce| ("nonce", number(nonce.0))));
        rows.push(("key", entry.key().as_str().to_owned()));
        rows.extend(entry.memo().map(|memo| ("memo", printable(memo))));
        rows.push(("time", rfc3339(entry.ts().0).unwrap_or_else(|| entry.ts().0.to_string())));
        rows.push(("entry", format!("{}, in batch {} of ledger {}", number(found.seq.0), number(place.batch), body.log_id)));
        rows.push(("ledger root", text("ledger_root")));
        rows.push(("receipt hash", text("receipt_hash")));
        if self.compared {
            rows.push(("receipt", "the one that was given is exactly this entry".to_owned()));
        }
        let under = format!("{} batches, through entry {}", number(self.root.size), number(self.root.through.0));
        rows.push(("proven under", under));
        rows.extend(signed::rows(&self.signed));
        proven(output, "The transaction is part of the ledger.", &rows, &members)
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
