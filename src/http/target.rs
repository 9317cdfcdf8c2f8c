//! The request target: which of the four forms it has, and whether the method may use it (RFC 9112 section 3.2).
//!
//! The path is handed on as it came, percent-encoding included: what it names is for the routes to say.
use super::{fields, Fault, Method};

/// The parts of a target that a server acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// Begins with `/`, or is `*` for an `OPTIONS` of the whole server. Only an absolute target can leave it out.
    pub path: Option<&'b str>,
    /// What follows the first `?`, without it.
    pub query: Option<&'b str>,
}

impl<'b> Target<'b> {
    /// Reads a target as the method may have it.
    pub fn parse(method: Method, text: &'b str) -> Result<Self, Fault> {
        if method == Method::Connect {
            return Err(Fault::closing(405, "CONNECT is not served: this is not a proxy"));
        }
        if text == "*" {
            if method == Method::Options {
                return Ok(Self { path: Some(text), query: None });
            }
            return Err(Fault::malformed("the target * belongs to OPTIONS alone; name a path"));
        }
        let rest = if text.starts_with('/') { text } else { after_authority(text)? };
        if !fields::is_path_and_query(rest.as_bytes()) {
            return Err(Fault::malformed(if rest.contains('#') {
                "the target has a fragment; leave out everything from # on"
            } else {
                "the target holds a byte that a URI may not; percent-encode it"
            }));
        }
        let (path, query) = match rest.bytes().position(|byte| byte == b'?') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        Ok(Self { path: (!path.is_empty()).then_some(path), query })
    }
}

/// What follows the authority of an absolute target.
fn after_authority(text: &str) -> Result<&str, Fault> {
    let hierarchical = ["http://", "https://"].iter().find_map(|scheme| {
        let head = text.as_bytes().get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme.as_bytes()).then(|| &text[scheme.len()..])
    });
    let Some(rest) = hierarchical else {
        return Err(Fault::malformed("the target is neither a path that begins with / nor an http URI"));
    };
    let end = rest.bytes().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    if !fields::is_authority(&rest.as_bytes()[..end]) {
        return Err(Fault::malformed("the authority of the target is not a host with an optional port"));
    }
    Ok(&rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (method, text, path, query) in [
            (Method::Get, "/", Some("/"), None),
            (Method::Get, "/a/b?c=d?e", Some("/a/b"), Some("c=d?e")),
            (Method::Get, "/a?", Some("/a"), Some("")),
            (Method::Get, "//x/y", Some("//x/y"), None),
            (Method::Get, "/a%2Fb%zz", Some("/a%2Fb%zz"), None),
            (Method::Post, "HTTP://h:1/a", Some("/a"), None),
            (Method::Get, "https://[::1]?q", None, Some("q")),
            (Method::Get, "http://h", None, None),
            (Method::Options, "http://h", None, None),
            (Method::Options, "*", Some("*"), None),
        ] {
            assert_eq!(Target::parse(method, text), Ok(Target { path, query }), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (method, text, status) in [
            (Method::Get, "*", 400),
            (Method::Connect, "h:443", 405),
            (Method::Get, "h:443", 400),
            (Method::Get, "a/b", 400),
            (Method::Get, "ftp://h/", 400),
            (Method::Get, "http:///a", 400),
            (Method::Get, "http://u@h/", 400),
            (Method::Get, "http://h#f", 400),
            (Method::Get, "/a#f", 400),
            (Method::Get, "/é", 400),
            (Method::Get, "/a\"b", 400),
            (Method::Get, "/a\\b", 400),
            (Method::Get, "/{a}", 400),
            (Method::Get, "é://x", 400),
        ] {
            assert_eq!(Target::parse(method, text).map_err(|fault| fault.status), Err(status), "{text}");
        }
    }
}
