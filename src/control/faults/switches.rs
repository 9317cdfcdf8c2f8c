//! Where the service meets the faults: one switch for each dependency, and one that all cores share.
use super::request::Dep;
use super::set::Effect;
use crate::{ledger, worker};
use std::sync::Arc;

/// The switches; clones are handles to the same ones, and all are off at the start.
#[derive(Clone, Default)]
pub(crate) struct Switches {
    /// Requests, at the cores.
    pub requests: Arc<worker::Disturbance>,
    /// Commits.
    pub ledger: ledger::Disturbance,
    /// Flushes of the counters.
    pub accounting: ledger::Disturbance,
    /// Questions for the topology.
    pub registry: ledger::Disturbance,
    /// Readings of the policy.
    pub policy: ledger::Disturbance,
}

impl Switches {
    /// Puts this in force.
    pub(super) fn set(&self, effect: &Effect) {
        self.requests.set(effect.requests);
        for dep in Dep::ALL {
            let switch = match dep {
                Dep::Ledger => &self.ledger,
                Dep::Accounting => &self.accounting,
                Dep::Registry => &self.registry,
                Dep::Policy => &self.policy,
            };
            let of = effect.of(dep);
            switch.set(of.delay, of.cut);
        }
    }
}
