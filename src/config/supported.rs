//! What a valid configuration may ask for and this version cannot do. It is refused at start, not ignored.
use super::error::{none_or_error, ConfigError, Problem};
use super::{AccountingDep, Config, RegistryDep};

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
        match self.deps.accounting {
            AccountingDep::Embedded(_) => {}
            AccountingDep::Unix(_) => {
                refuse("deps.accounting_sock", "counters behind a socket are not available in this version; use embedded:DIR");
            }
        }
        match self.deps.registry {
            RegistryDep::File(_) => {}
            RegistryDep::Http(_) => {
                refuse("deps.registry_url", "a registry behind http is not available in this version; use file:PATH");
            }
        }
        if self.security.amnesia {
            let message = "the RAM-only posture is not available in this version, and starting without it would leave on disk \
                           what you asked to forget; write \"off\"";
            refuse("security.amnesia", message);
        }
        if self.feature_flags.tor {
            refuse("feature_flags.tor", "the Tor transport is not part of this build; write false");
        }
        if self.feature_flags.legacy_pay {
            refuse("feature_flags.legacy_pay", "the legacy payment integration is not part of this build; write false");
        }
        none_or_error(problems)
    }
}
