//! Why the service does not start: what its parts refuse, as one error with a message that says what to do.
use crate::access::{KeyringFault, PolicyFault, RevocationFault};
use crate::accounting::CountersFault;
use crate::audit::AuditFault;
use crate::ledger::LedgerError;

/// Why the service did not start, or did not end in order.
#[derive(Debug)]
pub enum ServiceFault {
    /// A part that reads a file or opens a socket refused; the message says what to do.
    Refused(String),
    /// The ledger did not open or close.
    Ledger(LedgerError),
}

impl std::fmt::Display for ServiceFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServiceFault::Refused(what) => f.write_str(what),
            ServiceFault::Ledger(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServiceFault {}

impl From<LedgerError> for ServiceFault {
    fn from(error: LedgerError) -> Self {
        ServiceFault::Ledger(error)
    }
}

macro_rules! refused_from {
    ($($fault:ty),*) => {
        $(impl From<$fault> for ServiceFault {
            fn from(fault: $fault) -> Self {
                ServiceFault::Refused(fault.to_string())
            }
        })*
    };
}

refused_from!(KeyringFault, PolicyFault, RevocationFault, CountersFault, AuditFault);

pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServiceFault {
    let what = what.into();
    move |error| ServiceFault::Refused(format!("{what}: {error}"))
}
