//! The JSON of proofs of history: written by the server, read by whoever verifies, in this one place.
//!
//! Hashes and the identity of the ledger are lower-case hex, the entry is base64url without padding. Whatever is read strictly has
//! one form only, so that no byte of a proof can change without being noticed. Whether a proof holds, or a signature fits, is not known
//! here.
use crate::access::{Capability, RootBoard, SignedRoot, WrittenSignature};
use crate::domain::{
    bytes_of_hex, hex, Code, Consistency, Digest, Entry, Found, HistoryAnswer, HistoryRoot, Inclusion, LogId, Path, Proof,
    Refusal, Seq, TxId, Unproven,
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use serde::{Deserialize, Serialize};

/// A root, with its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootBody {
    /// How many batches it covers.
    pub size: u64,
    /// The last entry that it covers.
    pub seq: u64,
    /// The hash, hex.
    pub hash: String,
    /// Signatures of the root; empty if it is not signed.
    pub signatures: Vec<WrittenSignature>,
}

/// The reply to a question about the current root, or the newest signed one; and a line of the file of signed roots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurrentRootBody {
    /// Identity of the ledger, hex.
    pub log_id: String,
    /// The root.
    pub root: RootBody,
}

/// The place of an entry in its batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    /// The first entry of the batch.
    pub first_seq: u64,
    /// How many entries it has.
    pub entries: u64,
    /// Place of the entry in it, from 0: its position less `first_seq`.
    pub index: u64,
    /// From the entry upwards, hex.
    pub path: Vec<String>,
    /// The other peaks of the batch, hex.
    pub peaks: Vec<String>,
}

/// The place of a batch in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryBody {
    /// Number of the batch, from 0.
    pub index: u64,
    /// From the batch upwards, hex.
    pub path: Vec<String>,
    /// The other peaks of the history, hex.
    pub peaks: Vec<String>,
}

/// The proof that an entry is part of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofBody {
    /// The transaction.
    pub txid: String,
    /// Identity of the ledger, hex.
    pub log_id: String,
    /// Position of the entry.
    pub seq: u64,
    /// The bytes of the entry, base64url.
    pub entry: String,
    /// The chain hash after its batch, as in its receipt, hex.
    pub ledger_root: String,
    /// Its place in the batch.
    pub batch: BatchBody,
    /// The place of the batch in the history.
    pub history: HistoryBody,
    /// The root to which all this leads.
    pub root: RootBody,
}

/// The proof that a later history begins with the whole of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyBody {
    /// Identity of the ledger, hex.
    pub log_id: String,
    /// The earlier root.
    pub from: RootBody,
    /// The later root.
    pub to: RootBody,
    /// The peaks of the earlier history, hex.
    pub peaks: Vec<String>,
    /// The mountains that came after it, hex.
    pub additions: Vec<String>,
}

/// A member that does not have the form that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFault(&'static str);

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BodyFault {}

fn texts(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(|hash| hex(hash)).collect()
}

fn hash_of(text: &str) -> Result<Digest, BodyFault> {
    bytes_of_hex(text).ok_or(BodyFault("a hash is not 64 lower-case hexadecimal digits"))
}

fn hashes_of(texts: &[String]) -> Result<Vec<Digest>, BodyFault> {
    texts.iter().map(|text| hash_of(text)).collect()
}

fn log_of(text: &str) -> Result<LogId, BodyFault> {
    bytes_of_hex(text).map(LogId).ok_or(BodyFault("log_id: not 32 lower-case hexadecimal digits"))
}

impl From<&HistoryRoot> for RootBody {
    fn from(root: &HistoryRoot) -> Self {
        Self { size: root.size, seq: root.through.0, hash: hex(&root.hash), signatures: Vec::new() }
    }
}

impl From<&SignedRoot> for RootBody {
    fn from(signed: &SignedRoot) -> Self {
        Self { signatures: vec![signed.signature.clone()], ..Self::from(&signed.root) }
    }
}

impl RootBody {
    /// This root, with its signature if it is on the board.
    fn on(board: &RootBoard, root: &HistoryRoot) -> Self {
        board.of(root).map_or_else(|| Self::from(root), |signed| Self::from(&*signed))
    }

    /// The root as a value.
    pub fn read(&self) -> Result<HistoryRoot, BodyFault> {
        Ok(HistoryRoot { size: self.size, through: Seq(self.seq), hash: hash_of(&self.hash)? })
    }
}

impl CurrentRootBody {
    /// A signed root of this ledger.
    pub fn signed(log_id: LogId, signed: &SignedRoot) -> Self {
        Self { log_id: hex(&log_id.0), root: RootBody::from(signed) }
    }

    /// The ledger and the root as values.
    pub fn read(&self) -> Result<(LogId, HistoryRoot), BodyFault> {
        Ok((log_of(&self.log_id)?, self.root.read()?))
    }
}

impl ProofBody {
    fn new(log_id: LogId, found: &Found, place: &Inclusion) -> Self {
        let entry = Entry::parse_own(&found.entry).0;
        Self {
            txid: TxId::new(log_id, found.seq, &entry).to_string(),
            log_id: hex(&log_id.0),
            seq: found.seq.0,
            entry: URL_SAFE_NO_PAD.encode(&found.entry),
            ledger_root: hex(&found.root),
            batch: BatchBody {
                first_seq: place.first_seq.0,
                entries: place.entries,
                index: found.seq.0 - place.first_seq.0,
                path: texts(&place.in_batch.siblings),
                peaks: texts(&place.in_batch.peaks),
            },
            history: HistoryBody {
                index: place.batch,
                path: texts(&place.in_history.siblings),
                peaks: texts(&place.in_history.peaks),
            },
            root: RootBody::from(&place.root),
        }
    }

    /// The proof as a value, its entry well formed and the members that say the same thing twice in agreement.
    pub fn read(&self) -> Result<Proof, BodyFault> {
        let log_id = log_of(&self.log_id)?;
        let entry = URL_SAFE_NO_PAD.decode(&self.entry).map_err(|_| BodyFault("entry: not base64url without padding"))?;
        let (parsed, rest) = Entry::parse(&entry).map_err(|_| BodyFault("entry: not an entry of a ledger"))?;
        if !rest.is_empty() {
            return Err(BodyFault("entry: there are bytes behind the entry"));
        }
        if TxId::new(log_id, Seq(self.seq), &parsed).to_string() != self.txid {
            return Err(BodyFault("txid: not that of this entry at this position of this ledger"));
        }
        if self.seq.checked_sub(self.batch.first_seq) != Some(self.batch.index) {
            return Err(BodyFault("batch.index: not seq less first_seq"));
        }
        let found = Found { entry: entry.into(), seq: Seq(self.seq), root: hash_of(&self.ledger_root)? };
        let inclusion = Inclusion {
            first_seq: Seq(self.batch.first_seq),
            entries: self.batch.entries,
            in_batch: Path { siblings: hashes_of(&self.batch.path)?, peaks: hashes_of(&self.batch.peaks)? },
            batch: self.history.index,
            in_history: Path { siblings: hashes_of(&self.history.path)?, peaks: hashes_of(&self.history.peaks)? },
            root: self.root.read()?,
        };
        Ok(Proof { log_id, found, inclusion })
    }
}

impl From<&Proof> for ProofBody {
    fn from(proof: &Proof) -> Self {
        Self::new(proof.log_id, &proof.found, &proof.inclusion)
    }
}

impl From<&Consistency> for ConsistencyBody {
    fn from(proof: &Consistency) -> Self {
        Self {
            log_id: hex(&proof.log_id.0),
            from: RootBody::from(&proof.from),
            to: RootBody::from(&proof.to),
            peaks: texts(&proof.peaks),
            additions: texts(&proof.additions),
        }
    }
}

impl ConsistencyBody {
    /// The proof as a value.
    pub fn read(&self) -> Result<Consistency, BodyFault> {
        Ok(Consistency {
            log_id: log_of(&self.log_id)?,
            from: self.from.read()?,
            to: self.to.read()?,
            peaks: hashes_of(&self.peaks)?,
            additions: hashes_of(&self.additions)?,
        })
    }
}

fn body(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists of them are always JSON")
}

/// The body of the reply to a question about the history; `of` is the transaction that a proof was asked for, and what allows it. Roots
/// that are on the board have their signatures.
pub fn history(
    log_id: LogId,
    of: Option<(TxId, &Capability)>,
    answer: &HistoryAnswer,
    board: &RootBoard,
) -> Result<Vec<u8>, Refusal> {
    let not_found = || Refusal::new(Code::NotFound, "no such transaction");
    match (answer, of) {
        (HistoryAnswer::NoEntry, _) | (HistoryAnswer::Proof(..), None) => Err(not_found()),
        (HistoryAnswer::Proof(found, place), Some((id, capability))) => {
            let entry = Entry::parse_own(&found.entry).0;
            if TxId::new(log_id, found.seq, &entry) != id {
                return Err(not_found());
            }
            super::may_read(capability, &entry)?;
            let place = place.as_ref().map_err(|why| unproven(*why))?;
            let root = RootBody::on(board, &place.root);
            Ok(body(&ProofBody { root, ..ProofBody::new(log_id, found, place) }))
        }
        (HistoryAnswer::Root(root), _) => {
            let root = root.as_ref().map_err(|why| unproven(*why))?;
            Ok(body(&CurrentRootBody { log_id: hex(&log_id.0), root: RootBody::on(board, root) }))
        }
        (HistoryAnswer::Consistency(proof), _) => {
            let proof = proof.as_ref().map_err(|why| unproven(*why))?;
            let (from, to) = (RootBody::on(board, &proof.from), RootBody::on(board, &proof.to));
            Ok(body(&ConsistencyBody { from, to, ..ConsistencyBody::from(proof) }))
        }
    }
}

/// The body of the reply to a question about the newest signed root.
pub fn newest_signed(log_id: LogId, board: &RootBoard) -> Result<Vec<u8>, Refusal> {
    let signed = board.newest();
    let signed =
        signed.ok_or_else(|| Refusal::new(Code::RetryLater, "no root of this ledger has been signed yet; retry in a moment"))?;
    Ok(body(&CurrentRootBody::signed(log_id, &signed)))
}

fn unproven(why: Unproven) -> Refusal {
    match why {
        Unproven::Behind => {
            Refusal::new(Code::RetryLater, "the history has not followed the ledger so far yet; retry in a moment")
        }
        Unproven::NoSuchSize { current } => bad(format!("there is no root of this size: sizes are 1 to {current} batches now")),
        Unproven::NotReached { size_min } => {
            bad(format!("the root of this size does not reach the transaction; ask for one of at least {size_min} batches"))
        }
        Unproven::Archived { size_min } => Refusal::archived(format!(
            "what came before the root of {size_min} batches is in an archive that is not connected: repeating the request is safe and \
             helps once the operator has brought it back, not before"
        )),
        Unproven::WrongOrder => bad("from is the smaller size, to the larger one".to_owned()),
    }
}

fn bad(message: String) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

/// Reads a size in batches out of the query: from 1, without sign and leading zero.
pub(super) fn size_parameter(name: &'static str, value: &str) -> Result<u64, Refusal> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let size = plain.then(|| value.parse().ok()).flatten();
    size.ok_or_else(|| bad(format!("{name}: not a number of batches, from 1, in the query")))
}

/// Reads out of the query whether a signed root is wanted.
pub(super) fn signed_parameter(value: &str) -> Result<bool, Refusal> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad("signed: not true or false in the query".to_owned())),
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
