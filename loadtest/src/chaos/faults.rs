//! What is injected, and what has to be seen of each: whether readiness drops, and what writes may be told.

use std::time::Duration;

/// The promise for a dependency that is gone.
const NOT_READY_WITHIN: Duration = Duration::from_secs(2);
/// For so long the server of this test lives with the last topology.
pub const REGISTRY_MAX_AGE: Duration = Duration::from_millis(1_500);

/// What writes may be told beside their receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    /// Nothing.
    Nothing,
    /// 429 BUSY.
    Busy,
    /// 503 UPSTREAM_UNAVAILABLE.
    Unavailable,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// As it is asked for: the arguments behind `ronctl chaos inject`.
    pub arguments: &'static [&'static str],
    /// The server has to say within this time that it is not ready.
    pub not_ready_within: Option<Duration>,
    /// What writes may be told.
    pub refuses: Refuses,
    /// `ronctl policy reload` meanwhile has to succeed, or has to fail.
    pub reload: Option<bool>,
}

impl Planned {
    /// For people: `disconnect ron-ledger`.
    pub fn name(&self) -> String {
        let words = self.arguments.iter().filter_map(|argument| argument.split_once('='));
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    }
}

const fn harmless(arguments: &'static [&'static str]) -> Planned {
    Planned { arguments, not_ready_within: None, refuses: Refuses::Nothing, reload: None }
}

/// All of them, in the order in which they are injected.
pub const FAULTS: [Planned; 10] = [
    harmless(&["--fault=latency", "--ms=50"]),
    Planned { refuses: Refuses::Busy, ..harmless(&["--fault=quota_storm"]) },
    harmless(&["--fault=latency", "--dep=ron-ledger", "--ms=50"]),
    Planned {
        not_ready_within: Some(NOT_READY_WITHIN),
        refuses: Refuses::Unavailable,
        ..harmless(&["--fault=disconnect", "--dep=ron-ledger"])
    },
    harmless(&["--fault=latency", "--dep=registry"]),
    Planned { not_ready_within: Some(NOT_READY_WITHIN), ..harmless(&["--fault=disconnect", "--dep=registry"]) },
    harmless(&["--fault=latency", "--dep=ron-accounting"]),
    Planned { not_ready_within: Some(NOT_READY_WITHIN), ..harmless(&["--fault=disconnect", "--dep=ron-accounting"]) },
    Planned { reload: Some(true), ..harmless(&["--fault=latency", "--dep=policy"]) },
    Planned { reload: Some(false), ..harmless(&["--fault=disconnect", "--dep=policy"]) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_runbook_is_among_them_and_each_has_a_name_of_its_own() {
        let names: Vec<String> = FAULTS.iter().map(Planned::name).collect();
        for name in ["latency 50", "quota_storm", "disconnect ron-ledger", "disconnect registry", "latency policy"] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name} in {names:?}");
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
