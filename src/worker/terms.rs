//! The terms of HTTP in those of the API.
use crate::api;
use crate::domain::{Code, Refusal};
use crate::http;

/// A fault of framing or of how a body is encoded, in the words of the contract. Statuses for which the contract has no code of
/// their own keep their status under BAD_REQUEST.
pub(super) fn fault_refusal(fault: &http::Fault) -> Refusal {
    let code = match fault.status {
        405 => Code::MethodNotAllowed,
        413 => Code::LimitsExceeded,
        500 => Code::InternalError,
        _ => Code::BadRequest,
    };
    Refusal { status: fault.status, ..Refusal::new(code, fault.message.clone()) }
}

/// The method as far as the API tells methods apart.
pub(super) fn method_of(method: http::Method) -> api::Method {
    match method {
        http::Method::Get => api::Method::Get,
        http::Method::Head => api::Method::Head,
        http::Method::Post => api::Method::Post,
        http::Method::Options => api::Method::Options,
        http::Method::Put
        | http::Method::Delete
        | http::Method::Patch
        | http::Method::Trace
        | http::Method::Connect
        | http::Method::Other => api::Method::Other,
    }
}
