//! Where a topology comes from: a file or a registry behind HTTP, asked in the same way.
use std::time::Duration;

use super::file::FileSource;
use super::http::HttpSource;
use super::Registry;
use crate::config::RegistryDep;

/// Where a registry behind HTTP has the topology, unless its URL has a path.
pub const TOPOLOGY_PATH: &str = "/v1/topology";
/// Time between two looks whether a file has changed.
const FILE_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest reason of a fault, in bytes: a registry may answer with anything, and the reason goes into the log and to the operator.
const REASON_BYTES_MAX: usize = 400;

/// A good answer, as far as a source can tell.
#[derive(Debug)]
pub enum Answer {
    /// What was taken last is still what there is.
    Unchanged,
    /// A topology, which may be the one that was taken last.
    Topology(Registry),
}

/// Why there was no good answer. The same cause has the same text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFault {
    /// Nothing answered, or not in time.
    Unreachable(String),
    /// The answer, or the file, is no topology.
    Refused(String),
}

impl SourceFault {
    /// The cause, in one line of bounded length.
    pub fn reason(&self) -> String {
        let (SourceFault::Unreachable(text) | SourceFault::Refused(text)) = self;
        let mut reason: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        if reason.len() > REASON_BYTES_MAX {
            let end = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
            reason.truncate(end);
            reason.push_str("...");
        }
        reason
    }
}

/// A place to ask for the topology.
#[derive(Debug)]
pub struct Source {
    place: Place,
    shown: String,
    poll_every: Duration,
}

#[derive(Debug)]
enum Place {
    File(FileSource),
    Http(Box<HttpSource>),
}

impl Source {
    /// The source that a configuration names, with `registry.timeout` and `registry.poll_every`.
    ///
    /// # Errors
    /// What is wrong with its URL.
    pub fn new(dep: &RegistryDep, timeout: Duration, poll_every: Duration) -> Result<Self, String> {
        let place = match dep {
            RegistryDep::File(path) => Place::File(FileSource::new(path)),
            RegistryDep::Http(url) => Place::Http(Box::new(HttpSource::new(url, timeout, poll_every)?)),
        };
        Ok(Self { place, shown: dep.to_string(), poll_every })
    }

    /// Whether it is a file on this machine.
    pub fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Asks for the topology: waits for an answer within the bounds of the source. `at_once` neither lets a registry wait for something
    /// new nor trusts the stamp of a file.
    ///
    /// # Errors
    /// Why there is no good answer.
    pub fn ask(&mut self, at_once: bool) -> Result<Answer, SourceFault> {
        match &mut self.place {
            Place::File(file) => file.ask(at_once),
            Place::Http(registry) => registry.ask(at_once),
        }
    }

    /// The last answer has been taken: from now on it is what is in force, and an unchanged one need not be told again.
    pub fn taken(&mut self) {
        match &mut self.place {
            Place::File(file) => file.taken(),
            Place::Http(registry) => registry.taken(),
        }
    }

    /// When to ask again, after an answer without news that has taken so long.
    pub(super) fn pause(&self, took: Duration) -> Duration {
        match &self.place {
            Place::File(_) => FILE_LOOK_EVERY,
            // It has waited for news, as it was asked to; it may count the time a little otherwise.
            Place::Http(registry) if took >= registry.wait().mul_f32(0.9) => Duration::ZERO,
            Place::Http(_) => self.poll_every.saturating_sub(took),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_waits_is_asked_again_at_once_and_one_that_does_not_when_its_time_has_come() {
        let (timeout, poll_every) = (Duration::from_secs(1), Duration::from_secs(10));
        let registry = Source::new(&RegistryDep::Http("http://r".to_owned()), timeout, poll_every).unwrap();
        assert_eq!(registry.pause(Duration::from_millis(3)), Duration::from_millis(9_997));
        assert_eq!(registry.pause(Duration::from_millis(10_003)), Duration::ZERO);
        let rare = Source::new(&RegistryDep::Http("http://r".to_owned()), timeout, Duration::from_secs(3_600)).unwrap();
        assert_eq!(rare.pause(Duration::from_secs(60)), Duration::ZERO, "it waits for a minute at most");
        assert_eq!(rare.pause(Duration::from_secs(1)), Duration::from_secs(3_599));
        let file = Source::new(&RegistryDep::File("r".into()), timeout, poll_every).unwrap();
        assert!(file.is_file() && file.pause(Duration::ZERO) == FILE_LOOK_EVERY);
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let fault = SourceFault::Refused(format!("a\nb\u{1b}[1m{}", "ä".repeat(1_000)));
        let reason = fault.reason();
        assert!(reason.starts_with("a b [1mä") && reason.ends_with("ä..."), "{reason}");
        assert!(reason.len() <= REASON_BYTES_MAX + 3);
    }
}
