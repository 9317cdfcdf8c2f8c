//! Finds the words for a head that could not be read.
//!
//! Runs only when a request is already refused, so it may look at the bytes again to say what is wrong with them.
use super::{Fault, Limits};

/// The fault behind an error of `httparse` in a head that is complete.
pub(super) fn explain(error: httparse::Error, bytes: &[u8], limits: &Limits) -> Fault {
    let line_end = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
    match error {
        httparse::Error::TooManyHeaders => {
            Fault::closing(431, format!("more than {} header fields; send fewer", limits.headers_max))
        }
        httparse::Error::HeaderName => explain_name(&bytes[line_end..]),
        httparse::Error::HeaderValue => Fault::malformed("a header value holds a control byte; send visible text only"),
        httparse::Error::Version | httparse::Error::Token | httparse::Error::NewLine | httparse::Error::Status => {
            explain_request_line(&bytes[..line_end])
        }
    }
}

fn explain_name(lines: &[u8]) -> Fault {
    for line in lines.split(|&byte| byte == b'\n').skip(1) {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Fault::malformed("a header line begins with space; folded lines are obsolete, write each field on one line");
        }
        let name = &line[..memchr::memchr(b':', line).unwrap_or(line.len())];
        if name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Fault::malformed("there is space between a header name and its colon; remove it");
        }
    }
    Fault::malformed("a header line is not a name made of token characters, a colon and a value")
}

fn explain_request_line(line: &[u8]) -> Fault {
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let parts = line.split(|&byte| byte == b' ').count();
    match version {
        // 1.0 and 1.1 would have been understood, so something before them was wrong.
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if parts == 3 && major.is_ascii_digit() && minor.is_ascii_digit() => {
            if *major == b'1' && matches!(minor, b'0' | b'1') {
                Fault::malformed("the request line holds a byte that its method or target may not")
            } else {
                Fault::closing(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
            }
        }
        _ => Fault::malformed("the request line is not a method, a target and a version with one space between them"),
    }
}
