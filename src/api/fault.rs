//! Faults of HTTP in the words of the contract.
use crate::domain::{Code, Refusal};
use crate::http;

/// A fault of framing or of how a body is encoded, as a refusal. Statuses for which the contract has no code of their own keep
/// their status under BAD_REQUEST.
pub fn fault_refusal(fault: &http::Fault) -> Refusal {
    let code = match fault.status {
        405 => Code::MethodNotAllowed,
        413 => Code::LimitsExceeded,
        500 => Code::InternalError,
        _ => Code::BadRequest,
    };
    Refusal { status: fault.status, ..Refusal::new(code, fault.message.clone()) }
}
