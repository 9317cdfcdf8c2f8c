//! The statuses of every route: the document lists exactly those that the code can answer with.
//!
//! What refuses is found in the sources: every `Refusal` that is made, with its file and code, and every `Fault` of HTTP with its
//! status. The table below says which routes each of them can reach; one that is made and not in the table fails the test, and so
//! does one that is in the table and no longer made. Statuses, codes and headers come from the code's own tables.
use super::{document, object, paths, resolved, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use svc_wallet::api::{fault_refusal, reply, Route};
use svc_wallet::control::{Dep, Readiness};
use svc_wallet::domain::{Code, Refusal};
use svc_wallet::http::{decode, Encoding, Fault, Framer, Limits, Step, ACCEPT_ENCODING};

/// The routes that a refusal can reach. OPTIONS is reached by `All` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// No path of the document.
    Nothing,
    /// Every request of every connection.
    All,
    /// Every route that needs a capability.
    Capability,
    /// Balance, nonce and writes: whatever is handed to the core that owns an account.
    Owned,
    /// Writes alone.
    Writes,
    /// Transactions and proofs of them.
    Tx,
    /// Proofs alone, with the roots to which they lead.
    History,
    /// The sums of an asset alone.
    Totals,
    /// Receipts, histories, proofs and sums: whatever is asked of the ledger and of no core.
    LookedUp,
    /// Whatever can need an entry of the ledger.
    Asking,
}

impl Reach {
    fn has(self, route: Route) -> bool {
        match self {
            Reach::Nothing => false,
            Reach::All => true,
            Reach::Capability => route.scopes().is_some(),
            Reach::Owned => route.scopes().is_some() && !Reach::LookedUp.has(route),
            Reach::Writes => route.op().is_some(),
            Reach::Tx => matches!(route, Route::Tx | Route::Proof),
            Reach::History => HISTORY.contains(&route),
            Reach::Totals => route == Route::Totals,
            Reach::LookedUp => matches!(route, Route::Tx | Route::Entries | Route::Totals) || HISTORY.contains(&route),
            Reach::Asking => route.op().is_some() || Reach::LookedUp.has(route),
        }
    }
}

/// The routes that the history answers.
const HISTORY: [Route; 3] = [Route::Proof, Route::LedgerRoot, Route::Consistency];

/// Every refusal that is made: where, with which code, and whom it can reach.
const REFUSALS: [(&str, Code, Reach); 43] = [
    ("src/access/cache.rs", Code::Unauthorized, Reach::Capability),
    ("src/access/capability.rs", Code::Unauthorized, Reach::Capability),
    ("src/access/capability.rs", Code::Forbidden, Reach::Capability),
    ("src/access/capability.rs", Code::LimitsExceeded, Reach::Writes),
    ("src/access/policy.rs", Code::Unauthorized, Reach::Capability),
    ("src/access/policy.rs", Code::Forbidden, Reach::Capability),
    ("src/access/policy.rs", Code::LimitsExceeded, Reach::Writes),
    ("src/access/token.rs", Code::Unauthorized, Reach::Capability),
    ("src/api/body.rs", Code::BadRequest, Reach::Writes),
    ("src/api/headers.rs", Code::BadRequest, Reach::Capability),
    ("src/api/interpret.rs", Code::BadRequest, Reach::Capability),
    ("src/api/interpret.rs", Code::NotFound, Reach::Tx),
    ("src/api/interpret.rs", Code::Unauthorized, Reach::Capability),
    ("src/api/proof.rs", Code::BadRequest, Reach::History),
    ("src/api/proof.rs", Code::NotFound, Reach::Tx),
    ("src/api/proof.rs", Code::RetryLater, Reach::History),
    ("src/api/proof.rs", Code::UpstreamUnavailable, Reach::History),
    ("src/api/query.rs", Code::BadRequest, Reach::Capability),
    ("src/api/routes.rs", Code::MethodNotAllowed, Reach::All),
    ("src/api/routes.rs", Code::NotFound, Reach::Nothing),
    ("src/engine/mod.rs", Code::Busy, Reach::Owned),
    ("src/engine/mod.rs", Code::IdempotencyConflict, Reach::Writes),
    ("src/engine/mod.rs", Code::InternalError, Reach::Writes),
    ("src/engine/mod.rs", Code::NonceConflict, Reach::Writes),
    ("src/engine/mod.rs", Code::RetryLater, Reach::Writes),
    ("src/engine/mod.rs", Code::UpstreamUnavailable, Reach::Writes),
    ("src/shard/mod.rs", Code::Busy, Reach::Writes),
    ("src/shard/mod.rs", Code::Forbidden, Reach::Writes),
    ("src/shard/mod.rs", Code::InsufficientFunds, Reach::Writes),
    ("src/shard/mod.rs", Code::LimitsExceeded, Reach::Writes),
    ("src/shard/mod.rs", Code::NonceConflict, Reach::Writes),
    ("src/worker/core.rs", Code::InternalError, Reach::Asking),
    ("src/worker/core.rs", Code::UpstreamUnavailable, Reach::Asking),
    ("src/worker/front.rs", Code::Busy, Reach::Capability),
    ("src/worker/front.rs", Code::RetryLater, Reach::Capability),
    ("src/worker/front/disturbed.rs", Code::Busy, Reach::Writes),
    ("src/worker/front/lookups.rs", Code::Busy, Reach::LookedUp),
    ("src/worker/front/lookups.rs", Code::NotFound, Reach::Tx),
    ("src/worker/front/lookups.rs", Code::RetryLater, Reach::Totals),
    ("src/worker/front/lookups.rs", Code::UpstreamUnavailable, Reach::Totals),
    // The reply to a connection over the cap comes before its request is read.
    ("src/worker/listener.rs", Code::RetryLater, Reach::All),
    ("src/worker/quotas.rs", Code::Busy, Reach::Capability),
    ("src/worker/sweep.rs", Code::UpstreamUnavailable, Reach::Capability),
];

/// Files whose refusals are made when the request has been handed to the core that owns its account.
const AT_THE_OWNER: [&str; 4] = ["src/engine/mod.rs", "src/shard/mod.rs", "src/worker/core.rs", "src/worker/sweep.rs"];

/// The sources below a folder without their tests: path and text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let (mut found, mut open): (Vec<(String, String)>, Vec<PathBuf>) = (Vec::new(), vec![root().join(folder)]);
    while let Some(next) = open.pop() {
        for path in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            if path.is_dir() {
                open.push(path);
            } else if !name.ends_with("tests.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let product = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
                found.push((name, product));
            }
        }
    }
    found.sort();
    found
}

/// The text behind each place where `opening` stands, white space left out.
fn behind<'t>(text: &'t str, opening: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(opening).skip(1).map(str::trim_start)
}

fn word(text: &str) -> &str {
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap()
}

/// Every refusal that the sources make, but those of a fault and those that tests make up.
fn made() -> BTreeSet<(String, &'static str)> {
    let mut made = BTreeSet::new();
    for (path, text) in sources("src")
        .into_iter()
        // Whoever operates the service answers no request.
        .filter(|(path, _)| !path.starts_with("src/operator/"))
        .filter(|(path, _)| !["src/domain/refusal.rs", "src/api/fault.rs", "src/audit/sample.rs"].contains(&path.as_str()))
    {
        let literal = text.matches("Refusal {").count() - text.matches("-> Refusal {").count();
        assert_eq!(literal, 0, "{path} makes a refusal whose code is not seen here");
        for rest in behind(&text, "Refusal::new(") {
            let named = rest.strip_prefix("crate::domain::").unwrap_or(rest).strip_prefix("Code::");
            let name =
                named.map(word).unwrap_or_else(|| panic!("{path} makes a refusal whose code is not seen here: {rest:.40}"));
            let code = Code::ALL.into_iter().find(|code| format!("{code:?}") == name).unwrap();
            made.insert((path.clone(), code.as_str()));
        }
        let shorthands = [
            ("Refusal::unauthorized(", Code::Unauthorized),
            ("Refusal::caveat(", Code::Forbidden),
            ("Refusal::nonce(", Code::NonceConflict),
            ("Refusal::too_large(", Code::LimitsExceeded),
            ("Refusal::archived(", Code::UpstreamUnavailable),
            ("Refusal::quota(", Code::Busy),
        ];
        for (opening, code) in shorthands {
            made.extend(text.contains(opening).then(|| (path.clone(), code.as_str())));
        }
    }
    made
}

/// The statuses of the faults that the sources of HTTP make: those that end a connection, which any request can meet, and those of
/// a body that is framed well, which only a route that reads a body can.
fn faults() -> (BTreeSet<u16>, BTreeSet<u16>) {
    let (mut closing, mut staying) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in sources("src/http") {
        closing.extend(text.contains("Fault::malformed(").then_some(400));
        let constants = text.split("(u16, &str) = (").skip(1).map(|rest| word(rest).parse::<u16>().unwrap());
        closing.extend(constants);
        for (opening, statuses) in [("Fault::closing(", &mut closing), ("Fault::staying(", &mut staying)] {
            for rest in behind(&text, opening) {
                match word(rest).parse() {
                    Ok(status) => drop(statuses.insert(status)),
                    // A status out of one of the constants above.
                    Err(_) => {
                        assert!(rest.starts_with("too_long.0"), "{path}: a fault whose status is not seen here: {rest:.40}")
                    }
                }
            }
        }
    }
    (closing, staying)
}

/// What the framer says to an input: the status of the fault, or of the coding of a request that is framed well.
fn framed(input: &[u8]) -> Fault {
    let limits = Limits::default();
    match Framer::default().next(&mut input.to_vec(), &limits) {
        Step::Refused(fault) => fault,
        Step::Request(request) => match request.head.encoding() {
            Err(fault) => fault,
            Ok(encoding) => decode(encoding, request.body, &mut Vec::new(), &limits).unwrap_err(),
        },
        Step::NeedMore { .. } => panic!("cut short: {}", String::from_utf8_lossy(input)),
    }
}

#[test]
fn the_faults_of_http_are_those_that_the_sources_name() {
    let long = "x".repeat(Limits::default().head_bytes_max);
    let head = |line: &str, fields: &str| format!("{line}\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let closing = [
        head("GET / HTTP/1.1", "Host: b\r\n"),
        head("CONNECT a:1 HTTP/1.1", ""),
        head("POST / HTTP/1.1", "Content-Length: 99999999999\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes(),
        head("GET / HTTP/1.1", "Expect: more\r\n"),
        head("GET / HTTP/1.1", &format!("X: {long}\r\n")),
        head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"),
        head("GET / HTTP/2.0", ""),
    ];
    let mut bomb = Vec::new();
    let zeros = vec![0u8; 1 << 20];
    std::io::copy(&mut flate2::read::GzEncoder::new(&zeros[..], flate2::Compression::best()), &mut bomb).unwrap();
    let coded = |coding: &str, body: &[u8]| {
        let fields = format!("Content-Encoding: {coding}\r\nContent-Length: {}\r\n", body.len());
        [head("POST / HTTP/1.1", &fields), body.to_vec()].concat()
    };
    let staying = [coded("br", b"x"), coded("gzip", b"x"), coded("gzip", &bomb)];
    let provoked = |inputs: &[Vec<u8>], close: bool| -> BTreeSet<u16> {
        let faults = inputs.iter().map(|input| framed(input));
        faults.map(|fault| if fault.close == close { fault.status } else { panic!("{fault}") }).collect()
    };
    let (known_closing, mut known_staying) = faults();
    assert_eq!(provoked(&closing, true), known_closing);
    // A decoder that cannot be set up cannot be provoked.
    assert!(known_staying.remove(&500));
    assert_eq!(provoked(&staying, false), known_staying);
    assert!(decode(Encoding::Identity, b"x", &mut Vec::new(), &Limits::default()).is_ok());
}

#[test]
fn the_refusals_are_those_that_the_sources_make() {
    let listed: BTreeSet<(String, &str)> = REFUSALS.iter().map(|(path, code, _)| ((*path).to_owned(), code.as_str())).collect();
    assert_eq!(made(), listed);
}

/// Code and status of everything that a route can refuse with; `options` is the answer to that method alone.
fn refused(route: Route, options: bool) -> BTreeSet<(&'static str, u16)> {
    let (closing, staying) = faults();
    let staying = staying.into_iter().filter(|_| Reach::Writes.has(route) && !options);
    let faults = closing.into_iter().chain(staying).map(|status| fault_refusal(&fault(status)));
    let reaching = |reach: Reach| if options { reach == Reach::All } else { reach.has(route) };
    let made = REFUSALS.iter().filter(|(_, _, reach)| reaching(*reach));
    let made = made.map(|(_, code, _)| Refusal::new(*code, ""));
    faults.chain(made).map(|refusal| (refusal.code.as_str(), refusal.status)).collect()
}

fn fault(status: u16) -> Fault {
    Fault { status, message: "".into(), close: true }
}

/// The status of a success.
fn answered(route: Route, options: bool) -> BTreeSet<u16> {
    if options {
        return BTreeSet::from([204]);
    }
    if route != Route::Readyz {
        return BTreeSet::from([200]);
    }
    let readiness = Readiness::new();
    let starting = readiness.snapshot().status;
    Dep::ALL.into_iter().for_each(|dep| readiness.up(dep));
    readiness.recovered();
    BTreeSet::from([starting, readiness.snapshot().status])
}

/// Every operation: path, method, the statuses that the document gives it with their responses.
fn operations(document: &Value) -> Vec<(String, String, BTreeMap<u16, &Value>)> {
    let mut operations = Vec::new();
    for (path, item) in paths(document) {
        for (method, operation) in object(item).iter().filter(|(name, _)| *name != "parameters") {
            let responses = object(&operation["responses"]).iter();
            let responses = responses.map(|(status, response)| (status.parse().unwrap(), resolved(document, response)));
            operations.push((path.clone(), method.clone(), responses.collect()));
        }
    }
    operations
}

/// The codes and the status that a response can have as an error; none if it is no error.
fn errors(response: &Value) -> Vec<(String, u16)> {
    let Some(error) = response["content"]["application/json"]["schema"]["allOf"].get(1) else { return Vec::new() };
    let status = u16::try_from(error["properties"]["http"]["const"].as_u64().unwrap()).unwrap();
    super::names(&error["properties"]["code"]["enum"]).into_iter().map(|code| (code, status)).collect()
}

#[test]
fn every_route_lists_the_statuses_that_it_can_give() {
    let document = document();
    for (path, method, told) in operations(&document) {
        let (route, options) = (Route::of_path(&super::concrete(&path)), method == "options");
        let refused = refused(route, options);
        let known: BTreeSet<u16> = refused.iter().map(|(_, status)| *status).chain(answered(route, options)).collect();
        assert_eq!(told.keys().copied().collect::<BTreeSet<_>>(), known, "{method} {path}");
        for (status, response) in &told {
            for (_, http) in errors(response) {
                assert_eq!(http, *status, "{method} {path}");
            }
        }
        // A shared response may name a code that this route does not have, never lack one that it has.
        let named: BTreeSet<(String, u16)> = told.values().flat_map(|response| errors(response)).collect();
        for (code, status) in refused {
            let by_page = route == Route::Readyz && status == 503;
            assert!(by_page || named.contains(&(code.to_owned(), status)), "{method} {path} can give {status} {code}");
        }
    }
}

#[test]
fn every_response_is_used_and_every_reference_leads_somewhere() {
    let document = document();
    let text = std::fs::read_to_string(root().join("docs/openapi.yaml")).unwrap();
    for kind in ["responses", "schemas", "parameters", "headers", "pathItems"] {
        for name in object(&document["components"][kind]).keys() {
            let reference = format!("'#/components/{kind}/{name}'");
            assert!(text.contains(&reference), "nothing refers to {reference}");
        }
    }
    for rest in text.split("$ref: '#").skip(1) {
        let place = rest.split('\'').next().unwrap();
        assert!(document.pointer(place).is_some(), "{place} leads nowhere");
    }
}

#[test]
fn every_code_has_its_status_and_headers_and_no_other() {
    let document = document();
    let own = ["X-Corr-ID", "X-Wallet-Core"];
    let mut told = BTreeSet::new();
    for (name, response) in object(&document["components"]["responses"]) {
        assert!(response["headers"].get("X-Corr-ID").is_some(), "{name}: every reply has a correlation id");
        let headers: Vec<&str> =
            object(&response["headers"]).keys().map(String::as_str).filter(|name| !own.contains(name)).collect();
        told.extend(errors(response).into_iter().map(|(code, status)| (code, status, headers.join(","))));
    }
    let (closing, staying) = faults();
    let of_faults = closing.into_iter().chain(staying).map(|status| fault_refusal(&fault(status)));
    let every = Code::ALL.map(|code| Refusal::new(code, "")).into_iter().chain([Refusal::too_large("")]).chain(of_faults);
    let known: BTreeSet<_> = every
        .map(|refusal| {
            let by_code = reply::refusal_headers(&refusal).iter().map(|(name, _)| *name);
            // The front adds these two, which belong to a status and not to a code.
            let by_status = match refusal.status {
                405 => Some("Allow"),
                415 => Some("Accept-Encoding"),
                _ => None,
            };
            let headers: Vec<&str> = by_code.chain(by_status).collect();
            (refusal.code.as_str().to_string(), refusal.status, headers.join(","))
        })
        .collect();
    assert_eq!(told, known);
    let constant = |name: &str| &document["components"]["headers"][name]["schema"]["const"];
    let archived = Refusal::archived("");
    for refusal in Code::ALL.map(|code| Refusal::new(code, "")).iter().chain([&archived]) {
        for (name, value) in reply::refusal_headers(refusal) {
            let longer = &document["components"]["headers"]["RetryAfterOrArchived"]["schema"]["enum"];
            match (*name, refusal.code) {
                ("Retry-After", Code::UpstreamUnavailable) => assert_eq!(longer[usize::from(refusal.archived)], *value),
                ("Retry-After", _) => assert_eq!(constant("RetryAfter"), value),
                _ => assert_eq!(constant("Challenge"), value, "{name}"),
            }
        }
    }
    let unavailable = &document["components"]["responses"]["Unavailable"];
    assert_eq!(unavailable["headers"]["Retry-After"]["$ref"], "#/components/headers/RetryAfterOrArchived");
    assert_eq!(constant("AcceptEncoding"), ACCEPT_ENCODING);
    let wait = Readiness::new().snapshot().retry_after.map(|seconds| seconds.to_string());
    assert_eq!(constant("RetryAfter").as_str(), wait.as_deref(), "/readyz asks for the same pause");
    assert!(document["components"]["responses"]["NotReady"]["headers"].get("Retry-After").is_some());
}

/// The core that owns the account is named where a request was handed to it, and nowhere else.
#[test]
fn the_core_is_named_by_the_replies_of_the_owner() {
    let document = document();
    let by_owner = REFUSALS.iter().filter(|(path, ..)| AT_THE_OWNER.contains(path));
    let by_owner: BTreeSet<&str> = by_owner.map(|(_, code, _)| code.as_str()).collect();
    for (path, method, told) in operations(&document) {
        let route = Route::of_path(&super::concrete(&path));
        let capability = method != "options" && route.scopes().is_some();
        for (status, response) in told {
            // Faults share codes with refusals of the owner, and never their status.
            let refused = errors(response).iter().any(|(code, _)| by_owner.contains(code.as_str())) && status != 413;
            let named = response["headers"].get("X-Wallet-Core").is_some();
            // A receipt that is read back has the shape of one that an owner has sent.
            let owned = status == 200 && (route == Route::Tx || !Reach::LookedUp.has(route));
            assert_eq!(named, capability && (owned || refused), "{method} {path} {status}");
        }
    }
}
