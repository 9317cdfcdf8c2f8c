//! Why a request is not served, before anyone has looked at what it asks for.
//!
//! The one error type of this module; `api` turns it into an error body. It does not know the codes of the wire contract.
use std::borrow::Cow;

/// A refusal by the protocol: a status, a sentence for the client, and what becomes of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Status of the reply, 400 to 505.
    pub status: u16,
    /// What was wrong and what to send instead. Never holds bytes of the request, which may be secret.
    pub message: Cow<'static, str>,
    /// Whether the connection must be closed after the reply, because where the next request begins is not certain.
    pub close: bool,
}

impl Fault {
    /// A fault after which nothing more can be read from the connection.
    pub(super) fn closing(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), close: true }
    }

    /// A fault of one well-framed request: the next one can be served.
    pub(super) fn staying(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), close: false }
    }

    /// A malformed request: 400, and the connection closes.
    pub(super) fn malformed(message: &'static str) -> Self {
        Self::closing(400, message)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.message)
    }
}

impl std::error::Error for Fault {}
