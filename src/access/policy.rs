//! The policy: which assets exist for this service, which operations are allowed, and how much one request may move.
//!
//! It binds every holder alike and is read from a JSON file:
//!
//! ```json
//! {
//!   "version": 1,
//!   "operations": ["issue", "transfer", "burn", "hold", "capture", "release"],
//!   "assets": {"roc": {"amount_max": {"transfer": "1000000000"}}, "ron": {}}
//! }
//! ```
//!
//! Invariants: a file is taken as a whole or refused as a whole; an unknown or repeated field refuses it; amounts are
//! decimal strings, so that no JSON tool rounds them on the way.
use super::policy_reader;
use crate::domain::{Amount, Asset, Code, Op, Refusal};
use std::path::{Path, PathBuf};

/// Longest policy file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A policy that was read without fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) version: u64,
    pub(super) operations: [bool; Op::ALL.len()],
    /// Ordered by name.
    pub(super) assets: Vec<AssetRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AssetRule {
    pub(super) name: Box<str>,
    pub(super) amount_max: [Option<Amount>; Op::ALL.len()],
}

/// Place of an operation in a table of all of them.
pub(super) fn place(op: Op) -> usize {
    op as usize - Op::ALL[0] as usize
}

impl Policy {
    /// Reads the policy of a file.
    pub fn load(path: &Path) -> Result<Self, PolicyFault> {
        let broken = |source| PolicyFault::Unreadable { path: path.into(), source };
        let length = std::fs::metadata(path).map_err(broken)?.len();
        if length > FILE_BYTES_MAX {
            return Err(PolicyFault::Malformed { path: path.into(), flaw: format!("it is longer than {FILE_BYTES_MAX} bytes") });
        }
        let text = std::fs::read(path).map_err(broken)?;
        Self::parse(&text).map_err(|flaw| PolicyFault::Malformed { path: path.into(), flaw })
    }

    /// Reads the policy of a text; the error says what is wrong, in which field and on which line.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        policy_reader::read(text)
    }

    /// The number that its author gave it, told by `/version` and the metric `policy_version`.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The names of the listed assets, in order.
    pub fn assets(&self) -> impl Iterator<Item = &str> {
        self.assets.iter().map(|rule| &*rule.name)
    }

    /// Whether a request may move this much of the asset: FORBIDDEN for what is not listed, LIMITS_EXCEEDED for too much.
    pub fn permits(&self, op: Op, asset: Asset<'_>, amount: Amount) -> Result<(), Refusal> {
        if !self.operations[place(op)] {
            return Err(Refusal::new(Code::Forbidden, "the policy does not allow this operation"));
        }
        let rule = self.rule(asset)?;
        if rule.amount_max[place(op)].is_some_and(|amount_max| amount > amount_max) {
            return Err(Refusal::new(Code::LimitsExceeded, "the amount is above the ceiling of the policy; send less at once"));
        }
        Ok(())
    }

    /// Whether the asset is listed; reads ask for no more.
    pub fn permits_read(&self, asset: Asset<'_>) -> Result<(), Refusal> {
        self.rule(asset).map(drop)
    }

    fn rule(&self, asset: Asset<'_>) -> Result<&AssetRule, Refusal> {
        let found = self.assets.binary_search_by(|rule| rule.name.as_bytes().cmp(asset.as_bytes()));
        let unlisted = || Refusal::new(Code::Forbidden, "the policy does not list this asset");
        found.map(|index| &self.assets[index]).map_err(|_| unlisted())
    }
}

/// Why there is no policy.
#[derive(Debug)]
pub enum PolicyFault {
    /// The system does not let it be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was read and is not a policy.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        flaw: String,
    },
}

impl std::fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "policy {}: cannot be read: {source}; check security.policy_file", path.display())
            }
            Self::Malformed { path, flaw } => write!(f, "policy {}: {flaw}", path.display()),
        }
    }
}

impl std::error::Error for PolicyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Malformed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;

    const SMALL: &str = r#"{"version": 7, "operations": ["transfer", "burn"],
        "assets": {"ron": {}, "roc": {"amount_max": {"transfer": "1000"}}}}"#;

    fn refusal(op: Op, asset: &str, units: u128) -> Option<(Code, Option<Reason>)> {
        let policy = Policy::parse(SMALL.as_bytes()).unwrap();
        let outcome = policy.permits(op, Asset::new(asset).unwrap(), Amount::new(units).unwrap());
        outcome.err().map(|refusal| (refusal.code, refusal.reason))
    }

    #[test]
    fn operations_assets_and_ceilings_are_held_to() {
        let forbidden = Some((Code::Forbidden, Some(Reason::Policy)));
        assert_eq!(refusal(Op::Transfer, "roc", 1000), None);
        assert_eq!(refusal(Op::Transfer, "roc", 1001), Some((Code::LimitsExceeded, Some(Reason::Limits))));
        assert_eq!(refusal(Op::Burn, "roc", u128::MAX), None);
        assert_eq!(refusal(Op::Transfer, "ron", u128::MAX), None);
        assert_eq!(refusal(Op::Issue, "roc", 1), forbidden);
        assert_eq!(refusal(Op::Transfer, "usd", 1), forbidden);
        let policy = Policy::parse(SMALL.as_bytes()).unwrap();
        assert_eq!((policy.version(), policy.assets().collect::<Vec<_>>()), (7, vec!["roc", "ron"]));
        assert!(policy.permits_read(Asset::new("ron").unwrap()).is_ok());
        assert_eq!(policy.permits_read(Asset::new("usd").unwrap()).unwrap_err().code, Code::Forbidden);
    }

    #[test]
    fn faults_name_field_line_and_nearest_name() {
        for (text, parts) in [
            ("", vec!["line 1"]),
            ("[]", vec!["line 1", "object"]),
            (r#"{"version": 1, "operations": []}"#, vec!["assets", "missing"]),
            (r#"{"version": 1, "assets": {"roc": {}}}"#, vec!["operations", "missing"]),
            (r#"{"operations": [], "assets": {"roc": {}}}"#, vec!["version", "missing"]),
            ("{\"version\": 1,\n \"asets\": {}}", vec!["asets", "did you mean assets", "line 2"]),
            (r#"{"version": 1, "colour": 1}"#, vec!["colour", "version, operations, assets"]),
            (r#"{"version": 1, "version": 1}"#, vec!["version", "repeated"]),
            (r#"{"version": -1}"#, vec!["line 1", "version"]),
            (r#"{"version": "1"}"#, vec!["line 1", "version"]),
            (r#"{"operations": ["tranfer"]}"#, vec!["operations", "tranfer", "did you mean transfer"]),
            (r#"{"operations": ["burn", "burn"]}"#, vec!["operations", "burn", "repeated"]),
            (r#"{"assets": {}}"#, vec!["assets", "at least one"]),
            (r#"{"assets": {"ROC": {}}}"#, vec!["assets.ROC", "a-z 0-9 _"]),
            (r#"{"assets": {"roc": {}, "roc": {}}}"#, vec!["assets.roc", "repeated"]),
            (r#"{"assets": {"roc": {"max_amount": {}}}}"#, vec!["assets.roc.max_amount", "did you mean amount_max"]),
            (r#"{"assets": {"roc": {"amount_max": {"burn": 5}}}}"#, vec!["assets.roc.amount_max.burn", "line 1"]),
            (r#"{"assets": {"roc": {"amount_max": {"burn": "0"}}}}"#, vec!["assets.roc.amount_max.burn", "decimal"]),
            (r#"{"assets": {"roc": {"amount_max": {"brun": "1"}}}}"#, vec!["assets.roc.amount_max.brun", "did you mean burn"]),
            (r#"{"assets": {"roc": {"amount_max": {}, "amount_max": {}}}}"#, vec!["assets.roc.amount_max", "repeated"]),
            (r#"{"version": 1, "operations": [], "assets": {"roc": {}}} x"#, vec!["line 1"]),
        ] {
            let flaw = Policy::parse(text.as_bytes()).unwrap_err();
            for part in parts {
                assert!(flaw.contains(part), "{text}: {flaw:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn faults_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        assert!(matches!(Policy::load(&path), Err(PolicyFault::Unreadable { .. })));
        std::fs::write(&path, "{}").unwrap();
        let fault = Policy::load(&path).unwrap_err().to_string();
        assert!(fault.contains("policy.json") && fault.contains("version"), "{fault}");
        std::fs::write(&path, SMALL).unwrap();
        assert_eq!(Policy::load(&path).unwrap().version(), 7);
    }

    #[test]
    fn the_shipped_policy_lists_roc_and_ron_and_allows_every_operation() {
        let policy = Policy::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/policy.json")).unwrap();
        assert_eq!(policy.assets().collect::<Vec<_>>(), ["roc", "ron"]);
        for op in Op::ALL {
            assert!(policy.permits(op, Asset::new("roc").unwrap(), Amount::new(1).unwrap()).is_ok());
        }
    }
}
