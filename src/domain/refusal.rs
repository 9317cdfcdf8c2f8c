//! Why a request was not carried out. A refusal is a value; it consumes neither key nor nonce and writes nothing.
use super::{Nonce, QuotaScope};

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
    pub const fn as_str(self) -> &'static str {
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

/// Why nothing is authorized: for the log alone. A client is told the same for all of them, because whoever tries tokens could learn
/// from the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// There is no bearer token.
    NoToken,
    /// It is no macaroon in the form of this service, or one of its discharges is none.
    Malformed,
    /// It names a key that is not on the keyring.
    UnknownKey,
    /// Its signature is wrong.
    Signature,
    /// A discharge is missing, foreign, not bound to the token, or not asked for.
    Discharge,
    /// It was revoked, or its subject or key was.
    Revoked,
    /// It is for another service.
    Audience,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
}

impl Why {
    /// All of them.
    pub const ALL: [Why; 9] = [
        Why::NoToken,
        Why::Malformed,
        Why::UnknownKey,
        Why::Signature,
        Why::Discharge,
        Why::Revoked,
        Why::Audience,
        Why::Expired,
        Why::NotYet,
    ];

    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::NoToken => "no_token",
            Why::Malformed => "malformed",
            Why::UnknownKey => "unknown_key",
            Why::Signature => "signature",
            Why::Discharge => "discharge",
            Why::Revoked => "revoked",
            Why::Audience => "audience",
            Why::Expired => "expired",
            Why::NotYet => "not_yet",
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
    /// For BUSY whose quota is used up, if one is.
    pub quota: Option<QuotaScope>,
    /// For UNAUTHORIZED why, which the client is not told.
    pub why: Option<Why>,
}

/// What every client is told that has no valid capability, whatever is wrong with what it sent.
const UNAUTHORIZED: &str = "no capability that is valid here and now; send Authorization: Bearer <macaroon>, or get a new one";

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
        Self {
            code,
            status,
            reason: code.reason(),
            message: message.into(),
            expected: None,
            archived: false,
            quota: None,
            why: None,
        }
    }

    /// UNAUTHORIZED, with the one message that all of them have.
    pub fn unauthorized(why: Why) -> Self {
        Self { why: Some(why), ..Self::new(Code::Unauthorized, UNAUTHORIZED) }
    }

    /// LIMITS_EXCEEDED for something too large to be read: status 413.
    pub fn too_large(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { status: 413, ..Self::new(Code::LimitsExceeded, message) }
    }

    /// FORBIDDEN because a caveat of the capability denies it, counted as `cap`.
    pub fn caveat(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { reason: Some(Reason::Cap), ..Self::new(Code::Forbidden, message) }
    }

    /// BUSY because a quota of the policy is used up. The next request fits into it within a second, for no quota lets fewer through.
    pub fn quota(scope: QuotaScope) -> Self {
        let message = match scope {
            QuotaScope::Account => {
                "the policy's quota of writes for this account is used up; retry after a moment, and send fewer"
            }
            QuotaScope::Subject => {
                "the policy's quota of requests for this subject is used up; retry after a moment, and send fewer"
            }
            QuotaScope::Global => "the policy's quota of requests for everybody is used up; retry after a moment",
        };
        Self { quota: Some(scope), ..Self::new(Code::Busy, message) }
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
