//! The root that the caller trusts: a hash, with its size if that is known, or a file that `ronctl proof root` has written.
use super::signed::Signatures;
use super::{content, Doubt};
use crate::api::proof::{CurrentRootBody, RootBody};
use crate::domain::{bytes_of_hex, Digest, HistoryRoot, LogId};
use crate::operator::exit::Failure;
use std::path::Path;

/// What is trusted. A root's hash covers its size and its ledger, so the hash alone is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trusted {
    hash: Digest,
    size: Option<u64>,
    log_id: Option<LogId>,
    /// As it stands in a file.
    body: Option<RootBody>,
}

impl Trusted {
    /// Reads `HEX`, `HEX:SIZE`, or a file.
    pub fn read(given: &str) -> Result<Self, Failure> {
        let (hash, size) = given.split_once(':').map_or((given, None), |(hash, size)| (hash, Some(size)));
        if let Some(hash) = bytes_of_hex(&hash.to_ascii_lowercase()) {
            let size = size.map(|size| size.parse().map_err(|_| not_a_root(given))).transpose()?;
            return Ok(Self { hash, size, log_id: None, body: None });
        }
        if !Path::new(given).exists() {
            return Err(not_a_root(given));
        }
        let body: CurrentRootBody = serde_json::from_slice(&content(Path::new(given))?).map_err(|_| not_a_root(given))?;
        let (log_id, root) = body.read().map_err(|_| not_a_root(given))?;
        Ok(Self { hash: root.hash, size: Some(root.size), log_id: Some(log_id), body: Some(body.root) })
    }

    /// The same, of a size that is also known from elsewhere.
    pub fn of_size(self, size: Option<u64>) -> Self {
        Self { size: size.or(self.size), ..self }
    }

    /// Has its signatures checked, if it has any.
    pub fn add_to(&self, signatures: &mut Signatures) -> Result<(), Doubt> {
        self.log_id.zip(self.body.as_ref()).map_or(Ok(()), |(log_id, body)| signatures.add(log_id, body))
    }

    /// Whether this is rather the chain hash that receipts call `ledger_root`: an easy mistake, because both are 64 digits.
    pub fn check_not(&self, chain_hash: &Digest) -> Result<(), Doubt> {
        if self.hash != *chain_hash {
            return Ok(());
        }
        let what = "what was given as the trusted root is the ledger_root of the receipt: the chain hash of its batch, not a root of the history";
        Err(Doubt::new(
            what,
            "give a root that `ronctl proof root` has fetched; docs/LEDGER.md, Two hashes, says what each is for",
        ))
    }

    /// Whether this is the root to which a proof leads.
    pub fn check(&self, root: &HistoryRoot, log_id: LogId, next: &'static str) -> Result<(), Doubt> {
        if self.log_id.is_some_and(|known| known != log_id) {
            return Err(Doubt::new("the proof is of another ledger than the trusted root", ""));
        }
        if root.hash != self.hash {
            let what = format!("the proof leads to another root than the trusted one: to that of {} batches", root.size);
            return Err(Doubt::new(what, next));
        }
        if self.size.is_some_and(|size| size != root.size) {
            return Err(Doubt::new(format!("the root with this hash has {} batches", root.size), "correct the size"));
        }
        Ok(())
    }
}

fn not_a_root(given: &str) -> Failure {
    let next = "give 64 hexadecimal digits, or these with :SIZE, or a file that `ronctl proof root --out FILE` has written";
    Failure::usage(format!("{given:?} is not a root"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_a_hash_a_hash_with_its_size_or_a_file() {
        let digits = "Ab".repeat(32);
        let trusted = Trusted { hash: [0xAB; 32], size: None, log_id: None, body: None };
        assert_eq!(Trusted::read(&digits), Ok(trusted.clone()));
        assert_eq!(Trusted::read(&format!("{digits}:7")), Ok(trusted.clone().of_size(Some(7))));
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = "ab".repeat(32);
        let log = "01".repeat(16);
        let text = format!(r#"{{"log_id":"{log}","root":{{"size":7,"seq":9,"hash":"{hash}","signatures":[]}}}}"#);
        std::fs::write(file.path(), text).unwrap();
        let read = Trusted::read(file.path().to_str().unwrap()).unwrap();
        assert_eq!(read.body.as_ref().map(|body| body.seq), Some(9));
        assert_eq!(Trusted { body: None, ..read }, Trusted { size: Some(7), log_id: Some(LogId([1; 16])), ..trusted });
        std::fs::write(file.path(), "{}").unwrap();
        for bad in
            [&digits[1..], &format!("{digits}:x"), &format!("{digits}:"), "/nonexistent", "", file.path().to_str().unwrap()]
        {
            assert_eq!(Trusted::read(bad).unwrap_err().exit, crate::operator::exit::Exit::Usage, "{bad}");
        }
    }
}
