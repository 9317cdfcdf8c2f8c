//! Which path and method reach which handler.
//!
//! Both prefixes reach the same handlers. Paths are compared byte for byte: no decoding, no trailing slash, no case folding.
use crate::access::{Scope, ScopeSet};
use crate::domain::{Code, Op, Read, Refusal};

/// A request method, as far as the API tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the methods themselves.
pub enum Method {
    Get,
    Head,
    Post,
    Options,
    /// Any other method; no route allows it.
    Other,
}

impl Method {
    /// All methods, in the order in which they are numbered for metrics.
    pub const ALL: [Method; 5] = [Method::Get, Method::Head, Method::Post, Method::Options, Method::Other];

    /// The label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Options => "OPTIONS",
            Method::Other => "other",
        }
    }
}

/// A handler. Also the label `route` of metrics, with [`Route::Unknown`] for every path that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are those of the wire contract.
pub enum Route {
    Issue,
    Transfer,
    Burn,
    Hold,
    Capture,
    Release,
    Balance,
    Seq,
    Tx,
    Proof,
    LedgerRoot,
    Consistency,
    Entries,
    Totals,
    Healthz,
    Readyz,
    Version,
    Unknown,
}

const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, OPTIONS";
const SERVER: &str = "GET, HEAD, POST, OPTIONS";
const READER: ScopeSet = ScopeSet::of(&[Scope::Read]);
const TX: &str = "tx/";
const PROOF: &str = "/proof";
const ACCOUNTS: &str = "accounts/";
const ENTRIES: &str = "/entries";
const ASSETS: &str = "assets/";
const TOTALS: &str = "/totals";

impl Route {
    /// All routes, in the order in which they are numbered for metrics.
    pub const ALL: [Route; 18] = [
        Route::Issue,
        Route::Transfer,
        Route::Burn,
        Route::Hold,
        Route::Capture,
        Route::Release,
        Route::Balance,
        Route::Seq,
        Route::Tx,
        Route::Proof,
        Route::LedgerRoot,
        Route::Consistency,
        Route::Entries,
        Route::Totals,
        Route::Healthz,
        Route::Readyz,
        Route::Version,
        Route::Unknown,
    ];

    /// The label of metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Route::Issue => "issue",
            Route::Transfer => "transfer",
            Route::Burn => "burn",
            Route::Hold => "hold",
            Route::Capture => "capture",
            Route::Release => "release",
            Route::Balance => Read::Balance.as_str(),
            Route::Seq => Read::Seq.as_str(),
            Route::Tx => Read::Tx.as_str(),
            Route::Proof => Read::Proof.as_str(),
            Route::LedgerRoot => Read::LedgerRoot.as_str(),
            Route::Consistency => Read::Consistency.as_str(),
            Route::Entries => Read::Entries.as_str(),
            Route::Totals => Read::Totals.as_str(),
            Route::Healthz => "healthz",
            Route::Readyz => "readyz",
            Route::Version => "version",
            Route::Unknown => "unknown",
        }
    }

    /// The operation of a write; `None` for reads and control routes.
    pub fn op(self) -> Option<Op> {
        match self {
            Route::Issue => Some(Op::Issue),
            Route::Transfer => Some(Op::Transfer),
            Route::Burn => Some(Op::Burn),
            Route::Hold => Some(Op::Hold),
            Route::Capture => Some(Op::Capture),
            Route::Release => Some(Op::Release),
            Route::Balance | Route::Seq | Route::Tx | Route::Proof | Route::LedgerRoot | Route::Consistency => None,
            Route::Entries | Route::Totals | Route::Healthz | Route::Readyz | Route::Version | Route::Unknown => None,
        }
    }

    /// Which read it is; `None` for writes and control routes.
    pub fn read(self) -> Option<Read> {
        match self {
            Route::Balance => Some(Read::Balance),
            Route::Seq => Some(Read::Seq),
            Route::Tx => Some(Read::Tx),
            Route::Proof => Some(Read::Proof),
            Route::LedgerRoot => Some(Read::LedgerRoot),
            Route::Consistency => Some(Read::Consistency),
            Route::Entries => Some(Read::Entries),
            Route::Totals => Some(Read::Totals),
            Route::Issue | Route::Transfer | Route::Burn | Route::Hold | Route::Capture | Route::Release => None,
            Route::Healthz | Route::Readyz | Route::Version | Route::Unknown => None,
        }
    }

    /// The scopes of which a capability needs one; `None` for routes that need no capability.
    pub fn scopes(self) -> Option<ScopeSet> {
        match self {
            Route::Issue => Some(const { ScopeSet::of(&[Scope::Issue]) }),
            Route::Transfer => Some(const { ScopeSet::of(&[Scope::Transfer, Scope::Spend]) }),
            Route::Burn => Some(const { ScopeSet::of(&[Scope::Burn]) }),
            Route::Hold => Some(const { ScopeSet::of(&[Scope::Hold, Scope::Transfer]) }),
            Route::Capture => Some(const { ScopeSet::of(&[Scope::Capture, Scope::Transfer]) }),
            Route::Release => Some(const { ScopeSet::of(&[Scope::Release, Scope::Transfer]) }),
            Route::Balance | Route::Seq | Route::Tx | Route::Proof => Some(READER),
            Route::LedgerRoot | Route::Consistency | Route::Entries | Route::Totals => Some(READER),
            Route::Healthz | Route::Readyz | Route::Version | Route::Unknown => None,
        }
    }

    /// The methods of the route, as the header `Allow` lists them.
    pub fn allow(self) -> &'static str {
        match self {
            Route::Issue | Route::Transfer | Route::Burn | Route::Hold | Route::Capture | Route::Release => WRITE,
            Route::Balance | Route::Seq | Route::Tx | Route::Proof | Route::LedgerRoot | Route::Consistency => READ,
            Route::Entries | Route::Totals | Route::Healthz | Route::Readyz | Route::Version => READ,
            Route::Unknown => SERVER,
        }
    }

    /// The route of a path; [`Route::Unknown`] if no handler has it.
    pub fn of_path(path: &str) -> Self {
        if let Some(name) = path.strip_prefix("/v1/") {
            return Self::of_name(name);
        }
        if let Some(name) = path.strip_prefix("/wallet/") {
            return if name == "spend" { Route::Transfer } else { Self::of_name(name) };
        }
        match path {
            "/healthz" => Route::Healthz,
            "/readyz" => Route::Readyz,
            "/version" => Route::Version,
            _ => Route::Unknown,
        }
    }

    fn of_name(name: &str) -> Self {
        match name {
            "transfer" => Route::Transfer,
            "issue" => Route::Issue,
            "burn" => Route::Burn,
            "hold" => Route::Hold,
            "capture" => Route::Capture,
            "release" => Route::Release,
            "balance" => Route::Balance,
            "seq" => Route::Seq,
            "ledger/root" => Route::LedgerRoot,
            "ledger/consistency" => Route::Consistency,
            _ if account_with_entries(name).is_some() => Route::Entries,
            _ if asset_with_totals(name).is_some() => Route::Totals,
            _ => {
                let Some(rest) = name.strip_prefix(TX) else { return Route::Unknown };
                let (id, route) = rest.strip_suffix(PROOF).map_or((rest, Route::Tx), |id| (id, Route::Proof));
                if id.is_empty() || id.contains('/') {
                    return Route::Unknown;
                }
                route
            }
        }
    }
}

/// The last segment of a path that leads to [`Route::Tx`].
pub(super) fn txid_text(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(_, id)| id)
}

/// The last segment but one of a path that leads to [`Route::Proof`].
pub(super) fn proven_txid_text(path: &str) -> &str {
    txid_text(path.strip_suffix(PROOF).unwrap_or(""))
}

/// The account in what follows the prefix of a path to its entries, still encoded. Its slashes may stand as they are: the account is
/// everything between the first part and the last.
fn account_with_entries(name: &str) -> Option<&str> {
    name.strip_prefix(ACCOUNTS)?.strip_suffix(ENTRIES).filter(|account| !account.is_empty())
}

/// The account in a path that leads to [`Route::Entries`], still encoded.
pub(super) fn account_text(path: &str) -> &str {
    let name = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/wallet/"));
    name.and_then(account_with_entries).unwrap_or_default()
}

/// The asset in what follows the prefix of a path to its totals.
fn asset_with_totals(name: &str) -> Option<&str> {
    name.strip_prefix(ASSETS)?.strip_suffix(TOTALS).filter(|asset| !asset.is_empty() && !asset.contains('/'))
}

/// The asset in a path that leads to [`Route::Totals`], as it was sent.
pub(super) fn asset_text(path: &str) -> &str {
    let name = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/wallet/"));
    name.and_then(asset_with_totals).unwrap_or_default()
}

/// What a path and a method lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A handler. HEAD is answered like GET, without the body.
    Handler(Route),
    /// OPTIONS: answer 204 with this value of `Allow`.
    Options(Route, &'static str),
    /// 404, or 405 with the value of `Allow`.
    Refused(Route, Option<&'static str>, Refusal),
}

/// Finds the handler of a path (without the query) and a method.
pub fn resolve(method: Method, path: &str) -> Resolved {
    let route = Route::of_path(path);
    if method == Method::Options && (route != Route::Unknown || path == "*") {
        return Resolved::Options(route, route.allow());
    }
    if route == Route::Unknown {
        let message = "no such route; the API is described in docs/openapi.yaml";
        return Resolved::Refused(route, None, Refusal::new(Code::NotFound, message));
    }
    let allowed = match method {
        Method::Post => route.op().is_some(),
        Method::Get | Method::Head => route.op().is_none(),
        Method::Options | Method::Other => false,
    };
    if allowed {
        return Resolved::Handler(route);
    }
    let refusal =
        Refusal::new(Code::MethodNotAllowed, "this route does not have this method; the header Allow lists those it has");
    Resolved::Refused(route, Some(route.allow()), refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 14] = [
        "issue",
        "transfer",
        "burn",
        "hold",
        "capture",
        "release",
        "balance",
        "seq",
        "tx/tx_0",
        "tx/tx_0/proof",
        "ledger/root",
        "ledger/consistency",
        "accounts/a/entries",
        "assets/roc/totals",
    ];

    #[test]
    fn both_prefixes_reach_the_same_handlers() {
        for name in NAMES {
            let route = Route::of_path(&format!("/v1/{name}"));
            let label = match name.split_once('/') {
                None => name,
                Some(("tx", "tx_0")) => "tx",
                Some(("ledger", "root")) => "ledger_root",
                Some((_, last)) => last.rsplit('/').next().unwrap(),
            };
            assert_eq!(route.as_str(), label);
            assert_eq!(Route::of_path(&format!("/wallet/{name}")), route);
        }
        assert_eq!(Route::of_path("/wallet/spend"), Route::Transfer);
        for name in ["healthz", "readyz", "version"] {
            assert_eq!(Route::of_path(&format!("/{name}")).as_str(), name);
        }
    }

    #[test]
    fn what_is_not_written_exactly_leads_nowhere() {
        for path in [
            "",
            "/",
            "*",
            "/v1",
            "/v1/",
            "/v1/spend",
            "/v1/transfer/",
            "/V1/transfer",
            "/v1/Transfer",
            "//v1/transfer",
            "/v1//transfer",
            "/v1/%74ransfer",
            "/wallet",
            "/wallet/spend/",
            "/v1/tx",
            "/v1/tx/",
            "/v1/tx/a/b",
            "/v1/tx/a/proof/",
            "/v1/tx//proof",
            "/v1/tx/a/b/proof",
            "/v1/ledger",
            "/v1/ledger/",
            "/v1/ledger/root/",
            "/v1/tx/a/",
            "/v1/accounts",
            "/v1/accounts/entries",
            "/v1/accounts//entries",
            "/v1/accounts/a",
            "/v1/accounts/a/entries/",
            "/accounts/a/entries",
            "/v1/assets",
            "/v1/assets/totals",
            "/v1/assets//totals",
            "/v1/assets/a/b/totals",
            "/v1/assets/roc",
            "/v1/assets/roc/totals/",
            "/healthz/",
            "/v1/healthz",
            "/metrics",
            "/v2/transfer",
            "/v1/batch",
            "v1/transfer",
            "/v1/transfer?x",
        ] {
            assert_eq!(Route::of_path(path), Route::Unknown, "{path:?}");
            let Resolved::Refused(Route::Unknown, None, refusal) = resolve(Method::Get, path) else { panic!("{path:?}") };
            assert_eq!(refusal.status, 404);
        }
    }

    #[test]
    fn the_account_of_a_path_is_all_that_stands_between() {
        for (path, account) in [
            ("/v1/accounts/acct:a/entries", "acct:a"),
            ("/wallet/accounts/a%2Fb/entries", "a%2Fb"),
            ("/v1/accounts/a/b/entries", "a/b"),
            ("/v1/accounts//a//entries", "/a/"),
            ("/v1/accounts/x/entries/entries", "x/entries"),
        ] {
            assert_eq!((Route::of_path(path), account_text(path)), (Route::Entries, account), "{path}");
        }
    }

    #[test]
    fn methods_are_those_of_the_contract() {
        for name in NAMES {
            let path = format!("/v1/{name}");
            let route = Route::of_path(&path);
            let write = route.op().is_some();
            for (method, allowed) in
                [(Method::Get, !write), (Method::Head, !write), (Method::Post, write), (Method::Other, false)]
            {
                match resolve(method, &path) {
                    Resolved::Handler(found) => assert!(allowed && found == route, "{method:?} {path}"),
                    Resolved::Refused(found, allow, refusal) => {
                        assert!(!allowed && found == route, "{method:?} {path}");
                        assert_eq!((refusal.status, allow), (405, Some(route.allow())));
                    }
                    Resolved::Options(..) => panic!("{method:?} {path}"),
                }
            }
            assert_eq!(resolve(Method::Options, &path), Resolved::Options(route, route.allow()));
        }
        assert_eq!(resolve(Method::Options, "*"), Resolved::Options(Route::Unknown, SERVER));
        assert!(matches!(resolve(Method::Options, "/nowhere"), Resolved::Refused(Route::Unknown, None, _)));
    }

    #[test]
    fn labels_are_distinct_and_every_route_but_control_needs_a_scope() {
        let labels: std::collections::BTreeSet<_> = Route::ALL.map(Route::as_str).into();
        assert_eq!(labels.len(), Route::ALL.len());
        for name in NAMES {
            assert!(Route::of_path(&format!("/v1/{name}")).scopes().is_some(), "{name}");
        }
    }
}
