//! Signatures of roots, checked with the public keys that the caller trusts, if there are any.
//!
//! With keys every signature of every root that was given has to fit, and the root under which something is proven has to have one.
use super::Doubt;
use crate::access::SignedRoot;
use crate::api::proof::RootBody;
use crate::domain::{HistoryRoot, LogId};
use crate::operator::exit::Failure;
use crate::operator::output::{grouped, rfc3339};
use crate::operator::public_keys::{PublicKeys, Trust};
use serde_json::{json, Value};

/// The signatures of the roots that were given.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    keys: Option<PublicKeys>,
    good: Vec<(LogId, SignedRoot)>,
    /// Roots with good signatures by keys that are not hybrid, where hybrid ones are expected.
    classical: Vec<(LogId, HistoryRoot)>,
}

impl Signatures {
    /// Reads the file of public keys; without one nothing is checked.
    pub fn under(trust: &Trust) -> Result<Self, Failure> {
        Ok(Self { keys: trust.read()?, ..Self::default() })
    }

    /// Whether they are checked.
    pub fn are_checked(&self) -> bool {
        self.keys.is_some()
    }

    /// Checks those of a root of this ledger.
    pub fn add(&mut self, log_id: LogId, body: &RootBody) -> Result<(), Doubt> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let root = body.read().map_err(|fault| Doubt::new(fault.to_string(), ""))?;
        for signature in &body.signatures {
            let signed = SignedRoot { root, signature: signature.clone() };
            let counts = keys.check(signature, |key| signed.verify(key, log_id)).map_err(|what| {
                Doubt::new(
                    format!("the root of {} batches is not signed as it says: {what}", grouped(u128::from(root.size))),
                    "if the keys were rotated, get the public keys again; otherwise somebody has changed the root or its signature",
                )
            })?;
            match counts {
                true => self.good.push((log_id, signed)),
                false => self.classical.push((log_id, root)),
            }
        }
        Ok(())
    }

    /// Those of this root, of which there has to be one if they are checked.
    pub fn of(&self, log_id: LogId, root: &HistoryRoot) -> Result<Vec<SignedRoot>, Doubt> {
        let mut signed: Vec<SignedRoot> = Vec::new();
        for (_, good) in self.good.iter().filter(|(log, good)| *log == log_id && good.root == *root) {
            // The same root may stand in several files.
            if !signed.contains(good) {
                signed.push(good.clone());
            }
        }
        if signed.is_empty() && self.classical.contains(&(log_id, *root)) {
            return Err(Doubt::new(
                format!(
                    "the root of {} batches is signed by no hybrid key, and hybrid=on is expected",
                    grouped(u128::from(root.size))
                ),
                "have the server sign with one (`ronctl kms rotate --hybrid on`), and get a root that it has signed since then",
            ));
        }
        if self.are_checked() && signed.is_empty() {
            return Err(Doubt::new(
                format!("the root of {} batches is not signed", grouped(u128::from(root.size))),
                "ask again in a moment: `ronctl proof get --tx TXID` and `ronctl proof root --signed` get a signed root once there is one",
            ));
        }
        Ok(signed)
    }
}

/// Who has signed a root and when, for people.
pub(super) fn rows(signed: &[SignedRoot]) -> Vec<(&'static str, String)> {
    let said = |signed: &SignedRoot| {
        let signature = &signed.signature;
        let time = rfc3339(signature.ts).unwrap_or_else(|| signature.ts.to_string());
        let how = if signature.ml_dsa_65.is_some() { "Ed25519 and ML-DSA-65" } else { "Ed25519" };
        format!("by key {} at {time}, {how}", signature.key)
    };
    signed.iter().map(|signed| ("signed", said(signed))).collect()
}

/// The same for programs.
pub(super) fn members(signed: &[SignedRoot]) -> Value {
    let member = |signed: &SignedRoot| {
        let signature = &signed.signature;
        json!({"key": signature.key, "ts": signature.ts, "hybrid": signature.ml_dsa_65.is_some()})
    };
    signed.iter().map(member).collect()
}
