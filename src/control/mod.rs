//! The control plane: health, readiness, metrics and version on their own port, the admin socket, signals, and the drain.
//!
//! Nothing here runs on a core or on the path of a spend; the cores read one flag of [`Readiness`] and nothing else.
mod auditing;
mod conservation;
mod console;
mod counting;
mod custody;
mod distant;
mod ephemeral;
mod fault;
mod faults;
mod http;
mod keys;
mod ledger;
mod notes;
mod page;
mod pages;
mod policy;
mod preflight;
mod pressure;
mod process;
mod readiness;
mod rebuild;
mod replay;
mod revocations;
mod root_file;
mod root_signing;
mod service;
mod signals;
mod site;
mod slices;
mod socket;
mod steadiness;
mod supervisor;
mod system;
mod topology;
mod traces;
mod version;
pub(crate) mod watch;

#[cfg(test)]
pub(crate) mod sample;

pub use custody::{custody, custody_under};
pub use fault::ServiceFault;
pub use faults::{FaultRequest, DEPS as FAULT_DEPS, KINDS as FAULT_KINDS};
#[cfg(any(test, fuzzing))]
pub(crate) use http::fuzzing;
pub use http::ControlServer;
pub use page::{Action, ActionFault, Page, PageReply, Pages, Surface};
pub use preflight::findings;
pub use process::{daemon, DaemonFault};
pub use readiness::{Dep, Readiness, Snapshot};
pub(crate) use replay::{note_progress, Interruption};
#[cfg(any(test, fuzzing))]
pub(crate) use root_file::fuzzing as root_file_fuzzing;
pub use service::{run, EXIT_REPLACED, SERVICE};
pub use signals::{SignalEvent, Signals, AFTER_HELP, EXIT_SIGINT, EXIT_SIGTERM};
pub use socket::{
    abstract_name, bind_admin, bind_admin_without_file, check_socket_directory, look_at_socket, AdminFault, AdminSocket,
};
pub use supervisor::Supervisor;
pub use version::{health_body, SharedVersion, Version, REVISION};
