//! The topology as the service tells it: in readiness, version, metrics, log and audit stream, and to the operator.
//!
//! A thread of the registry asks for it; here the main thread looks at what has become of that, with everything else that it looks at.
//! The service starts without the answer of a registry behind HTTP and is not ready until there is one; a file has to be good at the
//! start. What was good once stays in force, and the service stays ready by it for `registry.max_age`.
use super::fault::{refused, ServiceFault};
use super::{Dep, PageReply, Readiness, SharedVersion};
use crate::audit::{Event, EventKind};
use crate::config::{self, Config, RegistryDep};
use crate::ledger::Disturbance;
use crate::registry::{Registry, Source, Standing, StartFault, Watch};
use crate::telemetry::{Publisher, Reload};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The topology of the service.
pub(super) struct Topology {
    watch: Watch,
    source: String,
    max_age: Duration,
    /// What was told last.
    told: Mutex<Told>,
}

struct Told {
    version: Option<u64>,
    trouble: Option<Arc<str>>,
    looks: u64,
}

impl Topology {
    /// Reads the file, or begins to ask the registry. What is done to the questions on purpose is done by `disturbance`.
    pub fn start(config: &Config, disturbance: Disturbance) -> Result<Self, ServiceFault> {
        let config::Registry { poll_every, timeout, max_age } = config.registry;
        let dep = &config.deps.registry;
        let source = Source::new(dep, timeout, poll_every).map_err(ServiceFault::Refused)?;
        let shown = source.to_string();
        let watch = Watch::start_with(source, poll_every, Box::new(move || disturbance.pass())).map_err(|fault| match fault {
            StartFault::Bad(reason) => ServiceFault::Refused(format!("registry {}: {reason}", place(dep))),
            StartFault::Thread(error) => refused("cannot start the thread of the registry")(error),
        })?;
        // What a file said is known before anybody looks.
        let version = watch.standing().topology.map(|topology| topology.version());
        Ok(Self { watch, source: shown, max_age, told: Mutex::new(Told { version, trouble: None, looks: 0 }) })
    }

    /// The version in force.
    pub fn version(&self) -> Option<u64> {
        self.watch.standing().topology.map(|topology| topology.version())
    }

    /// Has the topology asked for now.
    pub fn reload(&self) {
        self.watch.look();
    }

    /// Tells what is new since the last look; returns what the audit stream is to have of it.
    pub fn look(&self, readiness: &Readiness, publisher: &Publisher, version: &SharedVersion) -> Option<Event> {
        let standing = self.watch.standing();
        match self.missing(&standing) {
            None => readiness.up(Dep::Registry),
            Some(reason) => readiness.down(Dep::Registry, reason),
        }
        let in_force = standing.topology.as_deref().map(Registry::version);
        let now = Told { version: in_force, trouble: standing.trouble, looks: standing.looks };
        let before = std::mem::replace(
            &mut *self.told.lock().unwrap_or_else(PoisonError::into_inner),
            Told { trouble: now.trouble.clone(), ..now },
        );
        let (is_new, looked) = (in_force != before.version, now.looks != before.looks);
        let source = self.source.as_str();
        if let Some(in_force) = in_force.filter(|_| is_new) {
            publisher.registry_version(in_force);
            version.registry_version(in_force);
        }
        if before.trouble.is_some() && now.trouble.is_none() {
            tracing::info!(event = "registry_goes_on", source, "there are good answers about the topology again");
        }
        let event = |ok| {
            publisher.reload(Reload::Registry, ok);
            let event = Event::new(EventKind::Reload, ok).with("what", "registry");
            Some(event.with("version", in_force.unwrap_or(0).to_string()))
        };
        match now.trouble {
            Some(error) if looked || before.trouble.as_ref() != Some(&error) => {
                tracing::error!(event = "registry_reload_failed", source, %error, version = in_force, "the topology stays as it is");
                event(false)
            }
            None if looked || is_new => {
                tracing::info!(event = "registry_reloaded", source, version = in_force, "the topology was read");
                event(true)
            }
            Some(_) | None => None,
        }
    }

    /// Why the service is not ready by the topology that it has; the same words for the same cause.
    fn missing(&self, standing: &Standing) -> Option<String> {
        let source = &self.source;
        let why = standing.trouble.as_deref().unwrap_or("it has not answered yet");
        if standing.topology.is_none() {
            return Some(format!("there is no topology yet from {source}: {why}"));
        }
        let age = humantime::format_duration(self.max_age);
        (standing.heard.elapsed() > self.max_age).then(|| format!("no good answer from {source} for more than {age}: {why}"))
    }

    /// Publishes the figures.
    pub fn publish(&self, publisher: &Publisher) {
        let standing = self.watch.standing();
        publisher.registry(standing.heard.elapsed().as_secs_f64(), standing.outcomes);
    }

    /// What the operator is told: the topology in force, where it comes from and how old the last good answer is.
    pub fn page(&self) -> PageReply {
        let standing = self.watch.standing();
        let topology = standing.topology.as_deref();
        let page = serde_json::json!({
            "source": self.source,
            "version": topology.map(Registry::version),
            "age_seconds": topology.map(|_| standing.heard.elapsed().as_secs_f64()),
            "max_age_seconds": self.max_age.as_secs_f64(),
            "trouble": standing.trouble.as_deref(),
            "cells": topology.map(Registry::cells),
        });
        PageReply::json(page.to_string())
    }
}

/// Where it is, as a file is called on the command line.
fn place(dep: &RegistryDep) -> String {
    match dep {
        RegistryDep::File(path) => path.display().to_string(),
        RegistryDep::Http(url) => url.clone(),
    }
}

/// Whether a service could start with this source. A registry behind HTTP may come later.
pub(super) fn findings(config: &Config) -> Result<(), String> {
    match &config.deps.registry {
        RegistryDep::File(path) => {
            Registry::load(path).map(drop).map_err(|fault| format!("registry {}: {fault}", path.display()))
        }
        dep @ RegistryDep::Http(_) => Source::new(dep, config.registry.timeout, config.registry.poll_every).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use crate::registry::Outcome;
    use crate::telemetry::REGISTRY_OUTCOMES;

    #[test]
    fn outcomes_are_called_by_the_same_names_everywhere() {
        assert_eq!(REGISTRY_OUTCOMES, Outcome::ALL.map(Outcome::as_str));
    }
}
