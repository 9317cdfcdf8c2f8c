//! Counts of what was answered: as intended, or not, and then by status and code, with the first replies shown.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{operations::ByOperation, reply::Reply};

/// Replies shown for each kind of trouble.
const SAMPLES_MAX: usize = 3;
/// Bytes of a reply that are shown.
const SAMPLE_BYTES_MAX: usize = 300;
/// Kinds of trouble that are told apart; the rest falls into one.
const KINDS_MAX: usize = 40;

/// Replies of one kind that should not have been.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trouble {
    /// How many.
    pub count: u64,
    /// The first few.
    pub samples: Vec<String>,
}

/// Counts of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Fresh spends answered with their receipt.
    pub spends: u64,
    /// Balance reads answered.
    pub reads: u64,
    /// Exact repeats answered with the first receipt, byte for byte.
    pub repeats: u64,
    /// Deliberate overdrafts refused as intended.
    pub intended_refusals: u64,
    /// Spends whose connection broke, or whose outcome the server did not know.
    pub in_doubt: u64,
    /// Requests refused with 503 while the server was known to have lost its ledger, or room in it.
    pub unavailable: u64,
    /// Writes refused with 429 while quotas were known to be said to be used up.
    pub busy: u64,
    /// Writes that were acknowledged, those in doubt that were repeated included.
    pub by_operation: ByOperation,
    /// Everything else, by kind.
    pub unexpected: BTreeMap<String, Trouble>,
}

impl Tally {
    /// How many replies should not have been.
    pub fn unexpected_count(&self) -> u64 {
        self.unexpected.values().map(|trouble| trouble.count).sum()
    }

    /// Adds what another part of the run has counted.
    pub fn add(&mut self, other: Tally) {
        let Tally { spends, reads, repeats, intended_refusals, in_doubt, unavailable, busy, by_operation, unexpected } = other;
        self.spends += spends;
        self.reads += reads;
        self.repeats += repeats;
        self.intended_refusals += intended_refusals;
        self.in_doubt += in_doubt;
        self.unavailable += unavailable;
        self.busy += busy;
        by_operation.into_iter().for_each(|(op, count)| *self.by_operation.entry(op).or_default() += count);
        for (kind, trouble) in unexpected {
            let sum = self.unexpected.entry(kind).or_default();
            sum.count += trouble.count;
            sum.samples.extend(trouble.samples);
            sum.samples.truncate(SAMPLES_MAX);
        }
    }

    /// Counts a reply that should not have been, under its status and code.
    pub fn refused(&mut self, what: &str, reply: &Reply<'_>) {
        let kind = format!("{what}: {} {}", reply.status, code_of(reply.body).unwrap_or_else(|| "without a code".into()));
        self.trouble(kind, || text(reply.body));
    }

    /// Counts anything else that should not have been. The sample is made only if it will be shown.
    pub fn trouble(&mut self, kind: impl Into<String>, sample: impl FnOnce() -> String) {
        let mut kind = kind.into();
        if self.unexpected.len() >= KINDS_MAX && !self.unexpected.contains_key(&kind) {
            kind = "other kinds".into();
        }
        let trouble = self.unexpected.entry(kind).or_default();
        trouble.count += 1;
        if trouble.samples.len() < SAMPLES_MAX {
            trouble.samples.push(sample());
        }
    }
}

/// The `code` of an error body.
pub fn code_of(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get("code")?.as_str().map(str::to_owned)
}

/// The beginning of a body, for people.
pub fn text(body: &[u8]) -> String {
    let shown = &body[..body.len().min(SAMPLE_BYTES_MAX)];
    let ellipsis = if shown.len() < body.len() { "..." } else { "" };
    format!("{}{ellipsis}", String::from_utf8_lossy(shown))
}
