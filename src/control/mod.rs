//! The control plane: health, readiness, metrics and version on their own port, the admin socket, signals, and the drain.
//!
//! Nothing here runs on a core or on the path of a spend; the cores read one flag of [`Readiness`] and nothing else.
mod http;
mod lifecycle;
mod page;
mod readiness;
mod signals;
mod socket;
mod version;

pub use http::ControlServer;
pub use lifecycle::{Drain, Facts, Phase, Step, Windows};
pub use page::{Page, PageReply, Pages, Surface};
pub use readiness::{Dep, Readiness, Snapshot};
pub use signals::{SignalEvent, Signals, EXIT_SIGINT, EXIT_SIGTERM};
pub use socket::{bind_admin, AdminFault, AdminSocket};
pub use version::{health_body, Version, REVISION};
