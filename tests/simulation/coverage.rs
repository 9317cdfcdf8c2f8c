//! How often each fault really fired, and how often each kind of answer, decision and verdict really came: a simulation that never
//! reaches a case proves nothing about it.
use std::collections::BTreeMap;

/// Everything that a set of seeds must reach. What is counted and not listed here is a mistake of the simulator.
pub const EXPECTED: [&str; 173] = [
    "amount: beyond what may still be issued",
    "amount: more than may ever be issued",
    "amount: much of what may be issued",
    "amount: much of what was issued moves",
    "amount: no account has so much",
    "amount: small, all was issued before",
    "amount: with a ceiling near 128 bits",
    "answer: balance",
    "answer: last nonce",
    "answer: receipt",
    "answer: replayed receipt",
    "archive: nothing may go",
    "archive: refused",
    "archive: segments moved",
    "asset: another than the first",
    "audit: back to the first entry",
    "audit: back to the snapshot before",
    "budget: exactly used up",
    "budget: refused",
    "budget: refused for a debit that was not durable",
    "budget: spent",
    "capability: for less at once",
    "capability: none",
    "capability: of a key that is gone",
    "capability: of another key",
    "capability: out of time or for another service",
    "capability: too narrow",
    "capability: with a caveat less",
    "capability: with a caveat that nobody understands",
    "capability: with another signature",
    "capability: without its discharge",
    "ceiling: reached in one of several assets",
    "ceiling: reached",
    "client: connection cut",
    "client: other request under a used key",
    "client: repeat of an answered request",
    "client: repeat of an unanswered request",
    "client: timeout",
    "client: used nonce",
    "clock: backward",
    "clock: forward",
    "commit: acknowledged late, as by a slow disk",
    "commit: lanes merged",
    "commit: one lane",
    "commit: repeated lane batch",
    "commit: segment begun",
    "core: credit handed to another core",
    "core: forwarded request",
    "core: inbox full",
    "core: lane queue full",
    "core: not ready",
    "crash: anywhere",
    "crash: behind a commit in a new segment",
    "crash: behind a note",
    "crash: behind a recovery",
    "crash: behind a snapshot",
    "crash: behind an index",
    "crash: behind an orderly end",
    "crash: in a commit",
    "crash: in a note",
    "crash: in a restoration",
    "crash: in a snapshot",
    "crash: in an index",
    "crash: in an orderly end",
    "crash: in archiving",
    "crash: in recovery",
    "crash: in the history",
    "crash: process killed, cache kept",
    "crash: sector garbled",
    "crash: sector kept",
    "crash: sector lost",
    "crash: sector torn inside",
    "daemon: and its wallet killed",
    "daemon: away for a while",
    "daemon: ended by a commit that failed",
    "daemon: no epoch could be taken",
    "daemon: no room",
    "daemon: place of an earlier commit told",
    "disk: bit rot",
    "disk: full",
    "disk: latent read error",
    "disk: lost write to a snapshot",
    "disk: lost write",
    "disk: misdirected read",
    "disk: misdirected write to a snapshot",
    "disk: misdirected write",
    "disk: no room for the next segment, found ahead",
    "disk: older extent again",
    "disk: read error",
    "disk: room again",
    "disk: short write",
    "disk: sync error",
    "disk: write error",
    "forgotten key: first answer again",
    "forgotten key: other request refused",
    "history: begun anew or behind",
    "history: bit rot",
    "history: earlier root continued",
    "history: entry proven",
    "index: bit rot",
    "index: damaged one made again",
    "index: made in an idle moment",
    "index: removed",
    "linearizability: account checked",
    "link: acknowledgement lost",
    "link: acknowledgement out of turn",
    "link: acknowledgement repeated",
    "link: batches sent again",
    "link: cut",
    "model: live state compared",
    "probe: key after a whole replay",
    "probe: key behind a snapshot",
    "question: at a position",
    "question: by key",
    "question: by key, found",
    "question: by key, nothing",
    "question: by nonce",
    "quiet: noted how far the ledger reaches",
    "quiet: nothing could be noted",
    "recovery: epoch taken",
    "recovery: in-doubt commit gone",
    "recovery: in-doubt commit kept",
    "recovery: read or sync failed",
    "recovery: torn tail cleared",
    "refusal: BUSY",
    "refusal: FORBIDDEN",
    "refusal: IDEMPOTENCY_CONFLICT",
    "refusal: INSUFFICIENT_FUNDS",
    "refusal: INTERNAL_ERROR",
    "refusal: LIMITS_EXCEEDED",
    "refusal: NONCE_CONFLICT",
    "refusal: RETRY_LATER",
    "refusal: UPSTREAM_UNAVAILABLE",
    "restore: cut off, and done all the same",
    "restore: cut off, does not start",
    "restore: done",
    "scrub: damaged snapshots named at rest",
    "scrub: index found damaged",
    "scrub: nothing to read",
    "scrub: pass ended",
    "scrub: segment found damaged",
    "scrub: snapshot found damaged",
    "second writer: refused",
    "snapshot: bit rot",
    "snapshot: compared with the whole ledger",
    "snapshot: could not be written",
    "snapshot: damage seen in time",
    "snapshot: made from a rotten one",
    "snapshot: several assets on an account",
    "snapshot: taken",
    "snapshot: with budgets",
    "start: newest snapshot",
    "start: the snapshot before the newest",
    "start: whole ledger, no snapshot is good",
    "start: whole ledger, no snapshot yet",
    "verdict: everything in order",
    "verdict: fault detected, log refused",
    "verdict: last commit lost to a lie",
    "verdict: lie survived or repaired",
    "verify: damaged snapshot named",
    "wallet: another one has the ledger",
    "wallet: asked after it was replaced",
    "wallet: goes on with its epoch",
    "wallet: gone with its daemon",
    "wallet: killed, the daemon goes on",
    "wallet: learned that it was replaced",
    "wallet: paused and replaced",
    "wallet: receipt after it was replaced",
    "wire: cut",
    "wire: half open",
    "wire: stalled",
    "world: embedded ledger",
    "world: ledger behind the daemon",
];

/// A search that ended at its bound: rare, and no seed has to have one.
pub const GIVEN_UP: &str = "linearizability: given up";

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Coverage) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What has never happened of what is expected.
    pub fn missing(&self) -> Vec<&'static str> {
        EXPECTED.iter().copied().filter(|what| !self.0.contains_key(what)).collect()
    }

    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// What has happened and is not on the list.
    pub fn unlisted(&self) -> Vec<&'static str> {
        self.0.keys().copied().filter(|what| !EXPECTED.contains(what) && *what != GIVEN_UP).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>12}  {what}"))
    }
}
