//! The wire contract: routes, requests to calls, outcomes to replies. The only place that knows the JSON of the API.
//!
//! The path of a request: [`routes::resolve`] finds the handler, [`IncomingHeaders`] collects what counts of the headers,
//! [`interpret`] checks capability, shape, caveats and policy in this order and yields a [`Call`]; the writers of [`reply`]
//! turn what came of it into bytes.
//! Deliberately not known here: sockets, framing, balances, and what the owner core decides.
mod body;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod headers;
mod interpret;
pub mod proof;
mod query;
pub mod reply;
pub mod routes;

pub use body::BODY_FIELDS;
pub use fault::fault_refusal;
pub use headers::{correlation, IncomingHeaders, TraceContext};
pub use interpret::{interpret, may_read, Call, Incoming, Scratch};
pub use routes::{resolve, Method, Resolved, Route};
