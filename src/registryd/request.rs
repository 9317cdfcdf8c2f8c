//! The head of a request to the registry: which page is asked for, what is known already, and how long to wait.
use std::time::Duration;

use crate::registry::TOPOLOGY_PATH;

/// Most header fields of a request.
const HEADERS_MAX: usize = 64;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The topology.
    Topology {
        /// The entity tags that are known, as they were sent.
        known: Vec<String>,
        /// How long to wait for another one.
        wait: Duration,
    },
    /// Whether it is alive.
    Health,
}

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub asked: Asked,
    /// Whether only the head of the reply is wanted.
    pub head_only: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is no HTTP/1 request.
    Syntax,
    /// Its head is too long.
    TooLarge,
    /// There is no such page.
    Page,
    /// It is neither GET nor HEAD.
    Method,
    /// The query is not `wait=SECONDS`.
    Query,
}

/// Reads a head; `None` while it is not complete.
pub(super) fn parse(bytes: &[u8]) -> Option<Result<Request, Malformed>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => Some(request(&parsed)),
        Ok(httparse::Status::Partial) => None,
        Err(_) => Some(Err(Malformed::Syntax)),
    }
}

fn request(parsed: &httparse::Request<'_, '_>) -> Result<Request, Malformed> {
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(Malformed::Syntax) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != TOPOLOGY_PATH && path != "/healthz" {
        return Err(Malformed::Page);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Malformed::Method),
    };
    if path != TOPOLOGY_PATH {
        return Ok(Request { asked: Asked::Health, head_only });
    }
    let wait = Duration::from_secs(seconds(query)?);
    let fields = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("if-none-match"));
    let tags = fields.filter_map(|field| std::str::from_utf8(field.value).ok()).flat_map(|value| value.split(','));
    // Weak tags compare as strong ones do here (RFC 9110 section 13.1.2).
    let known = tags.map(|tag| tag.trim().trim_start_matches("W/").to_owned()).filter(|tag| !tag.is_empty()).collect();
    Ok(Request { asked: Asked::Topology { known, wait }, head_only })
}

fn seconds(query: &str) -> Result<u64, Malformed> {
    if query.is_empty() {
        return Ok(0);
    }
    let written =
        query.strip_prefix("wait=").filter(|written| !written.is_empty() && written.len() < 10).ok_or(Malformed::Query)?;
    if !written.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Query);
    }
    written.parse().map_err(|_| Malformed::Query)
}

/// What must hold of a request, whatever it holds; `src/fuzzing.rs` feeds it.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::*;

    /// A head: what is known of it does not change with what follows, and tags and waits are as they are asked for.
    pub(crate) fn requests(input: &[u8]) {
        let Some(told) = parse(input) else { return };
        assert_eq!(parse(&[input, b"more"].concat()), Some(told.clone()));
        if let Ok(Request { asked: Asked::Topology { known, wait }, .. }) = told {
            assert!(known.iter().all(|tag| !tag.is_empty() && !tag.contains(',')) && wait < Duration::from_secs(1_000_000_000));
        }
    }

    /// Inputs from which a fuzzer of [`requests`] begins.
    pub(crate) fn requests_seeds() -> Vec<Vec<u8>> {
        let seeds = [
            "GET /v1/topology?wait=15 HTTP/1.1\r\nHost: r\r\nIf-None-Match: W/\"1-a\", \"2\"\r\n\r\n",
            "HEAD /healthz HTTP/1.0\r\n\r\nmore",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, fields: &str) -> Option<Result<Request, Malformed>> {
        parse(format!("{line}\r\nHost: r\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let topology = |known: &[&str], wait, head_only| {
            let known = known.iter().map(|tag| (*tag).to_owned()).collect();
            Some(Ok(Request { asked: Asked::Topology { known, wait: Duration::from_secs(wait) }, head_only }))
        };
        assert_eq!(of("GET /v1/topology HTTP/1.1", ""), topology(&[], 0, false));
        assert_eq!(of("HEAD /v1/topology? HTTP/1.1", ""), topology(&[], 0, true));
        assert_eq!(of("GET /v1/topology?wait=15 HTTP/1.1", "if-none-match: \"1-a\"\r\n"), topology(&["\"1-a\""], 15, false));
        let list = "If-None-Match: W/\"1\" , \"2\"\r\nIF-NONE-MATCH: *\r\n";
        assert_eq!(of("GET /v1/topology HTTP/1.0", list), topology(&["\"1\"", "\"2\"", "*"], 0, false));
        assert_eq!(of("GET /healthz HTTP/1.1", ""), Some(Ok(Request { asked: Asked::Health, head_only: false })));
        assert_eq!(parse(b"GET /healthz HTTP/1.1\r\nHost: r\r\n"), None, "there is more to come");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_kind() {
        for (line, malformed) in [
            ("GET / HTTP/1.1", Malformed::Page),
            ("POST /v1/topology/x HTTP/1.1", Malformed::Page),
            ("POST /v1/topology HTTP/1.1", Malformed::Method),
            ("DELETE /healthz HTTP/1.1", Malformed::Method),
            ("GET /v1/topology?wait= HTTP/1.1", Malformed::Query),
            ("GET /v1/topology?wait=+1 HTTP/1.1", Malformed::Query),
            ("GET /v1/topology?wait=9999999999 HTTP/1.1", Malformed::Query),
            ("GET /v1/topology?wait=1&x=2 HTTP/1.1", Malformed::Query),
            ("GET /v1/topology?version=2 HTTP/1.1", Malformed::Query),
            ("GET  HTTP/1.1", Malformed::Syntax),
            ("nonsense", Malformed::Syntax),
        ] {
            assert_eq!(of(line, ""), Some(Err(malformed)), "{line}");
        }
        let many: String = (0..HEADERS_MAX).map(|number| format!("X-{number}: 1\r\n")).collect();
        assert_eq!(of("GET /healthz HTTP/1.1", &many), Some(Err(Malformed::Syntax)));
    }
}
