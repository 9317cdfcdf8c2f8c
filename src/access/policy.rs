//! The policy: what the service does for everybody alike, whatever their capabilities allow.
//!
//! It is read from a JSON file, of which only `version`, `operations` and `assets` have to be there; `configs/policy.schema.json` is the
//! JSON Schema of it:
//!
//! ```json
//! {
//!   "form": 1,
//!   "version": 7,
//!   "operations": ["issue", "transfer", "burn", "hold", "capture", "release"],
//!   "assets": {"roc": {"amount_max": {"transfer": "1000000"}, "daily_max": {"transfer": "5000000"}}, "ron": {}},
//!   "quotas": {"account": {"rate": 50, "burst": 100}, "subject": {"rate": 500, "burst": 500}, "global": {"rate": 90000, "burst": 9000}},
//!   "frozen": ["alice", "shop:*"],
//!   "denied": {"accounts": ["mallory"], "subjects": ["eve"]},
//!   "revoked": {"tokens": ["00112233445566778899aabbccddeeff"], "subjects": ["trudy"], "keys": ["k-1"]},
//!   "degraded": ["balance", "seq", "tx"]
//! }
//! ```
//!
//! Invariants: a file is taken as a whole or refused as a whole; an unknown or repeated field refuses it; amounts are decimal strings, so
//! that no JSON tool rounds them on the way. A policy never changes: another one takes its place.
use super::account_set::AccountSet;
use super::board::Board;
use super::capability::Capability;
use super::policy_fault::{PolicyFault, PolicyFlaws};
use super::policy_reader;
use super::revocations::{Revocations, Revoked};
use crate::domain::{Account, Allowance, Amount, Asset, Code, Op, Quota, QuotaScope, Read, Refusal, Why};
use serde_json::{json, Map, Value};
use std::io;
use std::path::Path;

/// Longest policy file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The form of the file that is read and written; one that names none has this one.
pub const FORM: u32 = 1;

/// Where the policy in force is.
pub type PolicyBoard = Board<Policy>;

/// A policy that was read without fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) version: u64,
    pub(super) operations: [bool; Op::ALL.len()],
    /// Ordered by name.
    pub(super) assets: Vec<AssetRule>,
    pub(super) quotas: [Option<Quota>; QuotaScope::ALL.len()],
    /// Accounts that nothing new is taken from.
    pub(super) frozen: AccountSet,
    /// Accounts that are neither debited nor credited nor read.
    pub(super) denied: AccountSet,
    /// Subjects whose requests are refused; ordered.
    pub(super) denied_subjects: Vec<Box<str>>,
    /// As it is written; ordered.
    pub(super) revoked: Vec<Revoked>,
    /// The same, for looking up.
    pub(super) revocations: Revocations,
    /// Whether a read is served while the service is not ready.
    pub(super) degraded: [bool; Read::ALL.len()],
}

/// Ceilings by operation.
pub(super) type Ceilings = [Option<Amount>; Op::ALL.len()];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AssetRule {
    pub(super) name: Box<str>,
    /// Of one request.
    pub(super) amount_max: Ceilings,
    /// Of all debits of one account in one UTC day.
    pub(super) daily_max: Ceilings,
}

/// A write as far as the policy speaks about it.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What to do.
    pub op: Op,
    /// The debited account.
    pub from: Option<Account<'a>>,
    /// The credited account.
    pub to: Option<Account<'a>>,
    /// The asset that moves.
    pub asset: Asset<'a>,
    /// How much of it.
    pub amount: Amount,
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
            return Err(broken(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes"))));
        }
        let text = std::fs::read(path).map_err(broken)?;
        Self::parse(&text).map_err(|flaws| PolicyFault::Malformed { path: path.into(), flaws })
    }

    /// Reads the policy of a text.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its field and its line.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyFlaws> {
        policy_reader::read(text)
    }

    /// The number that its author gave it, told by `/version` and the metric `policy_version`.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it revokes.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The names of the listed assets, in order.
    pub fn assets(&self) -> impl Iterator<Item = &str> {
        self.assets.iter().map(|rule| &*rule.name)
    }

    /// Whether the policy has not revoked this capability: UNAUTHORIZED as for every other revocation.
    pub fn believes(&self, capability: &Capability) -> Result<(), Refusal> {
        if !self.revoked.is_empty() && self.revocations.cover(capability) {
            return Err(Refusal::unauthorized(Why::Revoked));
        }
        Ok(())
    }

    /// Whether this subject is served at all.
    pub fn permits_subject(&self, subject: &str) -> Result<(), Refusal> {
        match self.denied_subjects.binary_search_by(|denied| (**denied).cmp(subject)) {
            Ok(_) => Err(Refusal::new(Code::Forbidden, "the policy denies requests of this subject")),
            Err(_) => Ok(()),
        }
    }

    /// What the capability allows and the policy leaves of it, for the core that owns the account: FORBIDDEN for what is not listed or is
    /// denied, LIMITS_EXCEEDED for too much at once.
    pub fn permits(&self, wish: &Wish<'_>, allowance: Allowance) -> Result<Allowance, Refusal> {
        let Wish { op, from, to, asset, amount } = *wish;
        if !self.operations[place(op)] {
            return Err(Refusal::new(Code::Forbidden, "the policy does not allow this operation"));
        }
        let rule = self.rule(asset)?;
        for account in [from, to].into_iter().flatten() {
            self.permits_account(account)?;
        }
        if rule.amount_max[place(op)].is_some_and(|amount_max| amount > amount_max) {
            return Err(Refusal::new(Code::LimitsExceeded, "the amount is above the ceiling of the policy; send less at once"));
        }
        let daily_max = rule.daily_max[place(op)];
        let quota = self.quota(QuotaScope::Account);
        Ok(Allowance { daily_max, quota, frozen: from.is_some_and(|from| self.frozen.covers(from)), ..allowance })
    }

    /// Whether the asset is listed; reads ask for no more of it.
    pub fn permits_read(&self, asset: Asset<'_>) -> Result<(), Refusal> {
        self.rule(asset).map(drop)
    }

    /// Whether the account is served at all.
    pub fn permits_account(&self, account: Account<'_>) -> Result<(), Refusal> {
        if self.denied.covers(account) {
            return Err(Refusal::new(Code::Forbidden, "the policy denies requests about this account"));
        }
        Ok(())
    }

    /// How many requests are let through, if that is limited.
    pub fn quota(&self, scope: QuotaScope) -> Option<Quota> {
        self.quotas[scope as usize]
    }

    /// Whether a read is served while the service is not ready.
    pub fn serves_degraded(&self, read: Read) -> bool {
        self.degraded[read as usize]
    }

    fn rule(&self, asset: Asset<'_>) -> Result<&AssetRule, Refusal> {
        let found = self.assets.binary_search_by(|rule| rule.name.as_bytes().cmp(asset.as_bytes()));
        let unlisted = || Refusal::new(Code::Forbidden, "the policy does not list this asset");
        found.map(|index| &self.assets[index]).map_err(|_| unlisted())
    }

    /// The whole policy in its plainest spelling: every member, and lists in order. What reads this reads the same policy.
    pub fn to_json(&self) -> Value {
        let operations: Vec<_> = Op::ALL.into_iter().filter(|op| self.operations[place(*op)]).map(Op::as_str).collect();
        let ceilings = |ceilings: &Ceilings| {
            let given = Op::ALL.into_iter().filter_map(|op| Some((op.as_str().to_owned(), ceilings[place(op)]?)));
            given.map(|(op, units)| (op, json!(units.minor_units().to_string()))).collect::<Map<_, _>>()
        };
        let rule = |rule: &AssetRule| json!({"amount_max": ceilings(&rule.amount_max), "daily_max": ceilings(&rule.daily_max)});
        let assets: Map<_, _> = self.assets.iter().map(|asset| (asset.name.to_string(), rule(asset))).collect();
        let quota = |scope| {
            let quota = self.quota(scope)?;
            Some((scope.as_str().to_owned(), json!({"rate": quota.rate(), "burst": quota.burst()})))
        };
        let revoked = |kind: &str| self.revoked.iter().filter(|what| what.kind() == kind).map(Revoked::name).collect::<Vec<_>>();
        let degraded: Vec<_> = Read::ALL.into_iter().filter(|read| self.serves_degraded(*read)).map(Read::as_str).collect();
        json!({
            "form": FORM,
            "version": self.version,
            "operations": operations,
            "assets": assets,
            "quotas": QuotaScope::ALL.into_iter().filter_map(quota).collect::<Map<_, _>>(),
            "frozen": self.frozen.texts().collect::<Vec<_>>(),
            "denied": {"accounts": self.denied.texts().collect::<Vec<_>>(), "subjects": self.denied_subjects},
            "revoked": {"tokens": revoked("token"), "subjects": revoked("subject"), "keys": revoked("key")},
            "degraded": degraded,
        })
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
