//! Why a request was not carried out. A refusal is a value; it consumes neither key nor nonce and writes nothing.
use super::Nonce;

/// The error codes of the wire contract; clients branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed request.
    BadRequest,
    /// No valid capability.
    Unauthorized,
    /// A caveat or the policy denies it.
    Forbidden,
    /// An amount ceiling (403) or a size cap (413).
    LimitsExceeded,
    /// No such route or transaction.
    NotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The debit would take more than is available.
    InsufficientFunds,
    /// Not the next nonce of the debited account.
    NonceConflict,
    /// The key was used for another request.
    IdempotencyConflict,
    /// Too much at once; try again.
    Busy,
    /// Not ready for writes; try again.
    RetryLater,
    /// The ledger did not confirm in time; the outcome is unknown, repeating is safe.
    UpstreamUnavailable,
    /// Our fault.
    InternalError,
}

impl Code {
    /// All codes, in the order of the contract's table.
    pub const ALL: [Code; 13] = [
        Code::BadRequest,
        Code::Unauthorized,
        Code::Forbidden,
        Code::LimitsExceeded,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::InsufficientFunds,
        Code::NonceConflict,
        Code::IdempotencyConflict,
        Code::Busy,
        Code::RetryLater,
        Code::UpstreamUnavailable,
        Code::InternalError,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "BAD_REQUEST",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Forbidden => "FORBIDDEN",
            Code::LimitsExceeded => "LIMITS_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Code::InsufficientFunds => "INSUFFICIENT_FUNDS",
            Code::NonceConflict => "NONCE_CONFLICT",
            Code::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Code::Busy => "BUSY",
            Code::RetryLater => "RETRY_LATER",
            Code::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Code::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether the same request may succeed later without being changed.
    pub fn retryable(self) -> bool {
        matches!(self, Code::Busy | Code::RetryLater | Code::UpstreamUnavailable)
    }

    /// The value of `reason` under which `rejected_total` counts it; `None` for what is not a rejection.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Code::BadRequest => Some(Reason::BadRequest),
            Code::Unauthorized => Some(Reason::Cap),
            Code::Forbidden => Some(Reason::Policy),
            Code::LimitsExceeded => Some(Reason::Limits),
            Code::InsufficientFunds => Some(Reason::Funds),
            Code::NonceConflict | Code::IdempotencyConflict => Some(Reason::Conflict),
            Code::Busy => Some(Reason::Busy),
            Code::RetryLater => Some(Reason::NotReady),
            Code::UpstreamUnavailable => Some(Reason::Upstream),
            Code::NotFound | Code::MethodNotAllowed | Code::InternalError => None,
        }
    }
}

/// The bounded values of the label `reason` of `rejected_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the label values themselves.
pub enum Reason {
    Cap,
    Policy,
    BadRequest,
    Limits,
    Funds,
    Conflict,
    Busy,
    NotReady,
    Upstream,
}

impl Reason {
    /// All values, in the order in which they are numbered.
    pub const ALL: [Reason; 9] = [
        Reason::Cap,
        Reason::Policy,
        Reason::BadRequest,
        Reason::Limits,
        Reason::Funds,
        Reason::Conflict,
        Reason::Busy,
        Reason::NotReady,
        Reason::Upstream,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Cap => "cap",
            Reason::Policy => "policy",
            Reason::BadRequest => "bad_request",
            Reason::Limits => "limits",
            Reason::Funds => "funds",
            Reason::Conflict => "conflict",
            Reason::Busy => "busy",
            Reason::NotReady => "not_ready",
            Reason::Upstream => "upstream",
        }
    }
}

/// A refused request: the code that clients branch on, and a sentence for people that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: Code,
    /// HTTP status; fixed by the code but for LIMITS_EXCEEDED, which is 403 for ceilings and 413 for sizes.
    pub status: u16,
    /// Why `rejected_total` counts it; usually that of the code. A caveat that denies is `cap`, a policy that denies `policy`.
    pub reason: Option<Reason>,
    /// What is wrong and what to do; never a secret, a token or another holder's data.
    pub message: std::borrow::Cow<'static, str>,
    /// For NONCE_CONFLICT the nonce that would have been right.
    pub expected: Option<Nonce>,
    /// For UPSTREAM_UNAVAILABLE whether the answer is in an archive, so that no repeat helps before the operator has acted.
    pub archived: bool,
}

impl Refusal {
    /// A refusal with the status and the reason that belong to the code (403 for LIMITS_EXCEEDED).
    pub fn new(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        let status = match code {
            Code::BadRequest => 400,
            Code::Unauthorized => 401,
            Code::Forbidden | Code::LimitsExceeded => 403,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::InsufficientFunds | Code::NonceConflict | Code::IdempotencyConflict => 409,
            Code::Busy => 429,
            Code::InternalError => 500,
            Code::RetryLater | Code::UpstreamUnavailable => 503,
        };
        Self { code, status, reason: code.reason(), message: message.into(), expected: None, archived: false }
    }

    /// LIMITS_EXCEEDED for something too large to be read: status 413.
    pub fn too_large(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { status: 413, ..Self::new(Code::LimitsExceeded, message) }
    }

    /// FORBIDDEN because a caveat of the capability denies it, counted as `cap`.
    pub fn caveat(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { reason: Some(Reason::Cap), ..Self::new(Code::Forbidden, message) }
    }

    /// NONCE_CONFLICT with the nonce that the account expects.
    pub fn nonce(expected: Nonce) -> Self {
        let message = format!("not the next nonce of the debited account; resend with nonce {}", expected.0);
        Self { expected: Some(expected), ..Self::new(Code::NonceConflict, message) }
    }

    /// UPSTREAM_UNAVAILABLE because the answer is in segments that are not here. It is no NOT_FOUND: what was asked for exists, and
    /// nobody may conclude that it did not happen.
    pub fn archived(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { archived: true, ..Self::new(Code::UpstreamUnavailable, message) }
    }
}
