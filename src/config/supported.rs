//! What a valid configuration may ask for and this version cannot do. It is refused at start, not ignored.
use super::error::{none_or_error, ConfigError, Problem};
use super::{AccountingDep, AuditSink, Config, Kms, LedgerDep, Origin};

/// A part of the service that can be built in, by a feature of Cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The name of the feature.
    pub name: &'static str,
    /// What it stands for.
    pub about: &'static str,
    /// Whether this build has it.
    pub built_in: bool,
}

/// All of them. The first two do nothing yet: they hold the places of what is to come, so that builds and configurations can be told apart
/// today.
pub const FEATURES: [Feature; 3] = [
    Feature { name: "arti", about: "the Tor transport", built_in: cfg!(feature = "arti") },
    Feature { name: "legacy_pay", about: "the legacy payment integration", built_in: cfg!(feature = "legacy_pay") },
    Feature { name: "otlp", about: "the export of traces", built_in: cfg!(feature = "otlp") },
];

impl Feature {
    /// Why it cannot be turned on, and what to do.
    fn refusal(&self) -> String {
        let Self { name, about, built_in } = self;
        let built = if *built_in { "was built in" } else { "was not built in" };
        format!("{about} does not exist yet in this version: the feature {name} {built}, and holds its place only; write false")
    }
}

impl Config {
    /// Whether this version can run as configured. A configuration that loads may still ask for more.
    ///
    /// # Errors
    /// All that it cannot do, each with what to write instead.
    pub fn supported(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, message: &str| {
            let origin = Some(self.origin(key).clone());
            problems.push(Problem { subject: key.to_owned(), origin, message: message.to_owned() });
        };
        if self.security.amnesia {
            self.refuse_what_leaves_files(&mut refuse);
        }
        let stream = self.audit_stream();
        let taken = |directory: &std::path::Path| stream.as_deref() == Some(directory);
        let by_ledger = matches!(&self.deps.ledger, LedgerDep::Embedded(directory) if taken(directory));
        if by_ledger || matches!(&self.deps.accounting, AccountingDep::Embedded(directory) if taken(directory)) {
            refuse("audit.path", "the directory is also that of the ledger or of the counters; give the audit stream its own");
        }
        if cfg!(unchecked_capabilities) && !(self.bind.http.ip().is_loopback() && self.bind.metrics.ip().is_loopback()) {
            refuse(
                "security.require_caps",
                "this build checks no capability, to measure what that costs; it serves loopback addresses alone",
            );
        }
        let wanted = [("feature_flags.tor", self.feature_flags.tor), ("feature_flags.legacy_pay", self.feature_flags.legacy_pay)];
        for ((key, wanted), feature) in wanted.into_iter().zip(&FEATURES) {
            if wanted {
                refuse(key, &feature.refusal());
            }
        }
        if self.traces.otlp.is_some() && !cfg!(feature = "otlp") {
            refuse("traces.otlp", "this build has no export of traces; build it with --features otlp, or leave the key out");
        }
        none_or_error(problems)
    }

    /// Whether the value of a key, wherever it comes from, does nothing under amnesia: it names a place that is left alone. That is no
    /// mistake, because the same file is to do for servers that leave files.
    pub(super) fn is_idle(&self, key: &str) -> bool {
        let idle = match key {
            "security.keyring" | "security.kms" | "audit.path" => true,
            "deps.ledger_sock" => matches!(self.deps.ledger, LedgerDep::Embedded(_)),
            "deps.accounting_sock" => matches!(self.deps.accounting, AccountingDep::Embedded(_)),
            _ => false,
        };
        self.security.amnesia && idle
    }

    /// What is in the configuration because somebody wrote it there, and contradicts amnesia.
    fn refuse_what_leaves_files(&self, refuse: &mut dyn FnMut(&str, &str)) {
        if matches!(self.audit_sink(), AuditSink::File) {
            let message =
                "files of an audit stream are what security.amnesia is not to leave; write \"off\", or \"unix:///PATH\" for \
                           lines that go from memory to whoever listens there";
            refuse("audit.sink", message);
        }
        if *self.origin("security.kms") != Origin::Default && self.security.kms != Kms::File(None) {
            let message =
                "nothing has to be opened: under security.amnesia the keys are fresh at each start, in memory alone; leave \
                           the key out";
            refuse("security.kms", message);
        }
        if let AccountingDep::Unix(_) = self.deps.accounting {
            let message = "under security.amnesia counters are in memory alone, and the daemon behind this socket writes them to its disk; write \
                           embedded:DIR, where nothing will be written";
            refuse("deps.accounting_sock", message);
        }
        if matches!(self.deps.ledger, LedgerDep::Embedded(_)) && self.ledger.memory_bytes_max < 4 * self.ledger.segment_bytes {
            refuse(
                "ledger.memory_max_bytes",
                "a ledger in memory needs room for four segments; write more, or a smaller ledger.segment_bytes",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Sources};

    const LEDGER: &str = "deps.ledger_sock=embedded:./var/ledger";
    const COUNTERS: &str = "deps.accounting_sock=embedded:/srv/counters";

    fn config(set: &[&str]) -> Config {
        let elsewhere = [
            "deps.ledger_sock=unix:///l",
            "deps.accounting_sock=unix:///a",
            "deps.registry_url=file:r",
            "security.policy_file=p",
        ];
        let set = elsewhere.iter().chain(set).map(|flag| (*flag).to_owned()).collect();
        Config::load(&Sources { flags: Flags { config: None, set }, env: &|_| None, files_default: &[] }).unwrap()
    }

    fn refused(set: &[&str]) -> Vec<String> {
        let error = config(&[&[LEDGER, COUNTERS][..], set].concat()).supported().err();
        error.map_or(Vec::new(), |error| error.problems.into_iter().map(|problem| problem.subject).collect())
    }

    #[test]
    fn what_does_not_exist_is_refused_whether_or_not_it_was_built_in() {
        for built_in in [false, true] {
            let feature = Feature { built_in, ..FEATURES[0] };
            let told = feature.refusal();
            assert!(told.starts_with("the Tor transport does not exist yet in this version: the feature arti was "), "{told}");
            assert_eq!((told.contains("was built in"), told.contains("was not built in")), (built_in, !built_in), "{told}");
        }
        assert_eq!(
            refused(&["feature_flags.tor=true", "feature_flags.legacy_pay=true"]),
            ["feature_flags.tor", "feature_flags.legacy_pay"]
        );
        assert_eq!(
            FEATURES.map(|feature| feature.built_in),
            [cfg!(feature = "arti"), cfg!(feature = "legacy_pay"), cfg!(feature = "otlp")]
        );
        let refused = refused(&["traces.otlp=http://127.0.0.1:4318"]);
        assert_eq!(refused, if cfg!(feature = "otlp") { &[][..] } else { &["traces.otlp"] });
    }

    #[test]
    fn the_audit_stream_is_beside_the_data_unless_it_is_elsewhere() {
        let place = |set: &[&str]| config(set).audit_directory().display().to_string();
        assert_eq!(place(&["security.keyring=/k/ring"]), "/k/audit", "both are behind sockets");
        assert_eq!(place(&[LEDGER, COUNTERS]), "./var/audit");
        assert_eq!(place(&[COUNTERS]), "/srv/audit");
        assert_eq!(place(&[LEDGER, "audit.path=/x"]), "/x");
        assert_eq!(refused(&[]), Vec::<String>::new());
        assert_eq!(refused(&["audit.path=./var/ledger"]), ["audit.path"]);
        assert_eq!(refused(&["audit.path=/srv/counters"]), ["audit.path"]);
    }

    #[test]
    fn under_amnesia_there_is_no_stream_and_one_that_is_asked_for_is_refused() {
        let sink = |set: &[&str]| config(set).audit_sink().clone();
        assert_eq!(sink(&[]), AuditSink::File);
        assert_eq!(sink(&["security.amnesia=on"]), AuditSink::Off);
        assert_eq!(sink(&["security.amnesia=on", "audit.sink=unix:///p"]), AuditSink::Unix("/p".into()));
        assert_eq!(sink(&["audit.sink=unix:///run/a.sock"]), AuditSink::Unix("/run/a.sock".into()));
        assert_eq!(refused(&["security.amnesia=on", "audit.sink=file"]), ["audit.sink"]);
        assert_eq!(refused(&["security.amnesia=on", "audit.sink=unix:///p"]), Vec::<String>::new());
        assert_eq!(refused(&["security.amnesia=on", "security.kms=env:KEY"]), ["security.kms"]);
        assert_eq!(refused(&["security.amnesia=on", "security.kms=file"]), Vec::<String>::new());
        assert_eq!(refused(&["security.amnesia=on", "deps.accounting_sock=unix:///a"]), ["deps.accounting_sock"]);
        assert_eq!(refused(&["security.amnesia=on", "ledger.memory_max_bytes=128MiB"]), ["ledger.memory_max_bytes"]);
        assert_eq!(refused(&["security.amnesia=off", "ledger.memory_max_bytes=128MiB"]), Vec::<String>::new());
    }

    #[test]
    fn signed_roots_are_beside_the_counters_wherever_the_ledger_is_and_nowhere_under_amnesia() {
        let file = |set: &[&str]| config(set).signed_roots();
        for ledger in [LEDGER, "deps.ledger_sock=unix:///l"] {
            assert_eq!(file(&[ledger, COUNTERS]), Some("/srv/counters.roots".into()));
        }
        assert_eq!(file(&[LEDGER, COUNTERS, "security.amnesia=on"]), None);
        assert_eq!(file(&[LEDGER, "security.keyring=/k/ring"]), Some("/k/ring.roots".into()), "the counters are behind a socket");
    }
}
