//! The terms of HTTP in those of the API.
use crate::api;
use crate::http;

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
