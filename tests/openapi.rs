//! Holds `docs/openapi.yaml` against the handlers: the same paths, methods, body fields, reply fields, codes, headers and statuses,
//! no more and no less. What the handlers know is asked by calling them, not copied from them; which of them refuses what is
//! read in their sources, see `openapi/statuses.rs`.
#![allow(clippy::unwrap_used)] // The helpers of these tests are not test functions themselves.
#[path = "openapi/pages.rs"]
mod pages;
#[path = "openapi/statuses.rs"]
mod statuses;
mod support;

use serde_json::{json, Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use svc_wallet::access::{mint, Keyring, MintRequest, Policy, RootBoard, SignedRoot, TokenCache, WrittenSignature};
use svc_wallet::api::proof::{self, ProofBody};
use svc_wallet::api::{interpret, reply, resolve, Call, Incoming, IncomingHeaders, Method, Resolved, Route, Scratch};
use svc_wallet::domain::{
    Account, Asset, Balance, Code, Consistency, Entry, Found, HistoryAnswer, HistoryRoot, Inclusion, LastNonce, LogId, Nonce,
    Path, Proof, Refusal, Seq, Totals, TxId, UnixMs,
};
use svc_wallet::http::{Encoding, Limits};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const TXID: &str = "tx_00000000000J00000000000001";

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> Value {
    serde_norway::from_str(&std::fs::read_to_string(root().join("docs/openapi.yaml")).unwrap()).unwrap()
}

/// Follows `$ref` until there is none.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value.get("$ref") {
        Some(Value::String(place)) => {
            let target = document.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("{place} leads nowhere"));
            resolved(document, target)
        }
        _ => value,
    }
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_string()).collect()
}

fn paths(document: &Value) -> BTreeMap<String, &Value> {
    object(&document["paths"]).iter().map(|(path, item)| (path.clone(), resolved(document, item))).collect()
}

fn concrete(path: &str) -> String {
    path.replace("{txid}", TXID).replace("{account}", "acct:a").replace("{asset}", "roc")
}

#[test]
fn every_path_and_method_is_there_and_no_other() {
    let document = document();
    let mut expected = BTreeSet::from(["/wallet/spend".to_string()]);
    for route in Route::ALL {
        match route {
            Route::Unknown => {}
            Route::Healthz | Route::Readyz | Route::Version => drop(expected.insert(format!("/{}", route.as_str()))),
            Route::LedgerRoot => expected.extend(["/v1/ledger/root".to_string(), "/wallet/ledger/root".to_string()]),
            Route::Consistency => {
                expected.extend(["/v1/ledger/consistency".to_string(), "/wallet/ledger/consistency".to_string()]);
            }
            Route::Proof => expected.extend(["/v1/tx/{txid}/proof".to_string(), "/wallet/tx/{txid}/proof".to_string()]),
            Route::Tx => expected.extend(["/v1/tx/{txid}".to_string(), "/wallet/tx/{txid}".to_string()]),
            Route::Entries => expected.extend(["v1", "wallet"].map(|prefix| format!("/{prefix}/accounts/{{account}}/entries"))),
            Route::Totals => expected.extend(["v1", "wallet"].map(|prefix| format!("/{prefix}/assets/{{asset}}/totals"))),
            Route::Issue
            | Route::Transfer
            | Route::Burn
            | Route::Hold
            | Route::Capture
            | Route::Release
            | Route::Balance
            | Route::Seq => expected.extend([format!("/v1/{}", route.as_str()), format!("/wallet/{}", route.as_str())]),
        }
    }
    let paths = paths(&document);
    assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), expected);
    let methods = [("get", Method::Get), ("head", Method::Head), ("post", Method::Post), ("options", Method::Options)];
    for (path, item) in paths {
        let told: BTreeSet<&str> = object(item).keys().map(String::as_str).filter(|name| *name != "parameters").collect();
        let mut known = BTreeSet::new();
        for (name, method) in methods {
            match resolve(method, &concrete(&path)) {
                Resolved::Handler(_) => drop(known.insert(name)),
                Resolved::Options(_, allow) => {
                    known.insert(name);
                    let told = resolved(&document, &item["options"]["responses"]["204"]);
                    assert_eq!(told["headers"]["Allow"]["schema"]["const"], allow, "{path}");
                }
                Resolved::Refused(..) => {}
            }
        }
        assert_eq!(told, known, "{path}");
        let open = Route::of_path(&concrete(&path)).scopes().is_none();
        let operation = item.get("post").or_else(|| item.get("get")).unwrap();
        assert_eq!(operation.get("security") == Some(&json!([])), open, "{path}");
    }
}

struct Server {
    tokens: TokenCache,
    policy: Policy,
    authorization: String,
    scratch: Scratch,
    _directory: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open_or_create(&directory.path().join("keyring.json")).unwrap());
        let request = MintRequest {
            subject: "openapi".into(),
            scopes: vec!["wallet:*".into()],
            ttl: Duration::from_secs(60),
            audience: "svc-wallet".into(),
            ..MintRequest::default()
        };
        let authorization = format!("Bearer {}", mint(&keyring, &request, NOW).unwrap());
        let tokens = TokenCache::new(keyring, "svc-wallet", 8);
        let policy = Policy::load(&root().join("configs/policy.json")).unwrap();
        Self { tokens, policy, authorization, scratch: Scratch::default(), _directory: directory }
    }

    /// The encoded entry of a write, nothing for a read.
    fn call(&mut self, path: &str, query: Option<&str>, body: &Value) -> Result<Vec<u8>, Refusal> {
        let mut headers = IncomingHeaders::default();
        headers.observe(b"Authorization", self.authorization.as_bytes());
        headers.observe(b"Content-Type", b"application/json");
        headers.observe(b"Idempotency-Key", b"k");
        let mut body = serde_json::to_vec(body).unwrap();
        let incoming = Incoming {
            route: Route::of_path(path),
            path,
            query,
            headers,
            encoding: Ok(Encoding::Identity),
            limits: &Limits::default(),
            body: &mut body,
        };
        let call = interpret(incoming, &mut self.tokens, &self.policy, NOW, "corr", &mut self.scratch)?;
        Ok(match call {
            Call::Write { entry, .. } => entry.bytes().to_vec(),
            Call::Balance { .. } | Call::Seq { .. } | Call::Tx { .. } => Vec::new(),
            Call::Entries { .. } | Call::Totals { .. } | Call::History { .. } | Call::SignedRoot => Vec::new(),
        })
    }
}

/// As of a hybrid key.
fn signed_root(root: HistoryRoot) -> SignedRoot {
    let (key, ed25519) = ("k-1".to_owned(), "A".repeat(86));
    SignedRoot { root, signature: WrittenSignature { key, ts: 1, ed25519, ml_dsa_65: Some("A".repeat(4412)) } }
}

/// An example of a property, or of the first alternative that has one.
fn example(document: &Value, property: &Value) -> Value {
    let property = resolved(document, property);
    if let Some(first) = property["examples"].get(0) {
        return first.clone();
    }
    example(document, &property["oneOf"][0])
}

#[test]
fn bodies_have_the_fields_that_are_read() {
    let document = document();
    let mut server = Server::new();
    let mut universe = BTreeSet::from(["colour".to_string()]);
    for schema in ["IssueBody", "TransferBody", "BurnBody"] {
        universe.extend(object(&document["components"]["schemas"][schema]["properties"]).keys().cloned());
    }
    for (path, item) in paths(&document) {
        let Some(operation) = item.get("post") else { continue };
        let schema = resolved(&document, &operation["requestBody"]["content"]["application/json"]["schema"]);
        assert_eq!(schema["additionalProperties"], false, "{path}");
        let properties = object(&schema["properties"]);
        let mut full: Map<String, Value> =
            properties.iter().map(|(name, property)| (name.clone(), example(&document, property))).collect();
        if full.contains_key("to") {
            full.insert("to".into(), json!("acct:b"));
        }
        assert!(server.call(&path, None, &Value::Object(full.clone())).is_err(), "{path}: nonce and seq at once");
        let seq = full.remove("seq").unwrap();
        assert!(server.call(&path, None, &Value::Object(full.clone())).is_ok(), "{path}: {full:?}");
        let mut alias = full.clone();
        alias.remove("nonce");
        alias.insert("seq".into(), seq);
        assert!(server.call(&path, None, &Value::Object(alias)).is_ok(), "{path}: seq in place of nonce");
        let mut required = names(&schema["required"]);
        if schema.get("oneOf").is_some() {
            assert_eq!(schema["oneOf"], json!([{"required": ["nonce"]}, {"required": ["seq"]}]));
            required.insert("nonce".into());
        }
        for name in full.keys() {
            let mut less = full.clone();
            less.remove(name);
            let accepted = server.call(&path, None, &Value::Object(less)).is_ok();
            assert_eq!(accepted, !required.contains(name), "{path} without {name}");
        }
        for name in universe.iter().filter(|name| !properties.contains_key(*name)) {
            let mut more = full.clone();
            more.insert(name.clone(), json!("x"));
            assert!(server.call(&path, None, &Value::Object(more)).is_err(), "{path} with {name}");
        }
    }
}

#[test]
fn queries_have_the_parameters_that_are_read() {
    let document = document();
    let mut server = Server::new();
    for (path, item) in paths(&document) {
        if Route::of_path(&concrete(&path)).scopes().is_none() {
            continue;
        }
        let Some(operation) = item.get("get") else { continue };
        let (mut pairs, mut free) = (Vec::new(), Vec::new());
        for parameter in operation["parameters"].as_array().unwrap() {
            let parameter = resolved(&document, parameter);
            if parameter["in"] == "query" {
                let value = example(&document, &parameter["schema"]);
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let list = if parameter["required"] == true { &mut pairs } else { &mut free };
                list.push(format!("{}={value}", parameter["name"].as_str().unwrap()));
            }
        }
        let path = concrete(&path);
        let all = pairs.join("&");
        assert!(server.call(&path, Some(&all), &Value::Null).is_ok(), "{path}?{all}");
        let everything = [&pairs[..], &free].concat().join("&");
        assert!(server.call(&path, Some(&everything), &Value::Null).is_ok(), "{path}?{everything}");
        for left_out in 0..pairs.len() {
            let mut fewer = pairs.clone();
            fewer.remove(left_out);
            assert!(server.call(&path, Some(&fewer.join("&")), &Value::Null).is_err(), "{path} without {}", pairs[left_out]);
        }
        pairs.push("colour=x".into());
        assert!(server.call(&path, Some(&pairs.join("&")), &Value::Null).is_err(), "{path}?{}", pairs.join("&"));
    }
}

/// Whether a value is what a schema says of its type, constants and items; patterns and ranges are not looked at.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolved(document, schema);
    let named = |name: &Value| match name.as_str() {
        Some("integer") => value.is_u64(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        Some(_) | None => panic!("{name} is no type"),
    };
    let typed = match &schema["type"] {
        Value::Array(several) => several.iter().any(named),
        one => named(one),
    };
    let constant = schema.get("const").map_or(true, |constant| constant == value);
    let listed = schema["enum"].as_array().map_or(true, |listed| listed.contains(value));
    let items =
        schema.get("items").map_or(true, |item| value.as_array().unwrap().iter().all(|value| fits(document, item, value)));
    typed && constant && listed && items
}

/// The replies that can be written, all of them together, held against a schema: keys, and what each is.
fn check(document: &Value, schema: &str, written: &[Vec<u8>]) {
    let schema = &document["components"]["schemas"][schema];
    assert_eq!(schema["additionalProperties"], false);
    let mut every = BTreeSet::new();
    let mut always: Option<BTreeSet<String>> = None;
    for reply in written {
        let reply: Value = serde_json::from_slice(reply).unwrap();
        let keys: BTreeSet<String> = object(&reply).keys().cloned().collect();
        for (key, value) in object(&reply) {
            let known = schema["properties"].get(key).unwrap_or_else(|| panic!("{key} is written and not told"));
            assert!(fits(document, known, value), "{key}: {value} is not {known}");
        }
        every.extend(keys.iter().cloned());
        always = Some(always.map_or(keys.clone(), |always| always.intersection(&keys).cloned().collect()));
    }
    assert_eq!(object(&schema["properties"]).keys().cloned().collect::<BTreeSet<_>>(), every);
    assert_eq!(names(&schema["required"]), always.unwrap());
}

#[test]
fn replies_have_the_fields_that_are_written() {
    let document = document();
    let mut server = Server::new();
    let writes = [
        ("/v1/issue", json!({"to": "acct:b", "asset": "roc", "amount_minor": "1"})),
        ("/v1/transfer", json!({"from": "acct:a", "to": "acct:b", "asset": "roc", "amount_minor": "1", "nonce": 1})),
        ("/v1/burn", json!({"from": "acct:a", "asset": "roc", "amount_minor": "1", "nonce": 1})),
    ];
    let receipts = writes.each_ref().map(|(path, body)| {
        let encoded = server.call(path, None, body).unwrap();
        let (entry, _) = Entry::parse(&encoded).unwrap();
        let mut out = Vec::new();
        reply::receipt(&mut out, LogId::default(), &entry, Seq(1), &[0; 32]);
        let txid = serde_json::from_slice::<Value>(&out).unwrap()["txid"].as_str().map(TxId::parse);
        assert!(matches!(txid, Some(Some(_))));
        out
    });
    check(&document, "Receipt", &receipts);
    let account = Account::new("acct:a").unwrap();
    let mut out = Vec::new();
    reply::balance(&mut out, account, Asset::new("roc").unwrap(), &Balance::default(), NOW);
    check(&document, "Balance", &[std::mem::take(&mut out)]);
    reply::last_nonce(&mut out, account, LastNonce { confirmed: Nonce(1), next: Nonce(2) }, NOW);
    check(&document, "LastNonce", &[std::mem::take(&mut out)]);
    reply::totals(&mut out, "roc", &Totals::default());
    check(&document, "Totals", &[std::mem::take(&mut out)]);
    let encoded = server.call(writes[0].0, None, &writes[0].1).unwrap();
    let pages = [None, Some(Seq(1))].map(|before| {
        let mut out = Vec::new();
        let entries = [(Entry::parse(&encoded).unwrap().0, Seq(1), &[0; 32])];
        reply::entries(&mut out, LogId::default(), "acct:b", entries.into_iter(), before);
        out
    });
    check(&document, "Entries", &pages);
    let refusals = [Refusal::new(Code::Busy, "busy"), Refusal::nonce(Nonce(2))].map(|refusal| {
        let mut out = Vec::new();
        reply::refusal(&mut out, &refusal, "corr");
        out
    });
    check(&document, "Error", &refusals);
    let root = HistoryRoot { size: 2, through: Seq(3), hash: [1; 32] };
    let board = RootBoard::default();
    board.put(signed_root(root));
    let current = proof::history(LogId::default(), None, &HistoryAnswer::Root(Ok(root)), &board).unwrap();
    check(&document, "Root", &[serde_json::to_vec(&serde_json::from_slice::<Value>(&current).unwrap()["root"]).unwrap()]);
    check(&document, "LedgerRoot", &[current]);
    let peaks = vec![[2; 32]];
    let consistency =
        Consistency { log_id: LogId::default(), from: root, to: root, peaks: peaks.clone(), additions: peaks.clone() };
    let consistency = proof::history(LogId::default(), None, &HistoryAnswer::Consistency(Ok(consistency)), &board).unwrap();
    check(&document, "Consistency", &[consistency]);
    let entry = server.call(writes[0].0, None, &writes[0].1).unwrap();
    let found = Found { entry: entry.into(), seq: Seq(2), root: [3; 32] };
    let path = Path { siblings: peaks.clone(), peaks };
    let inclusion = Inclusion { first_seq: Seq(2), entries: 2, in_batch: path.clone(), batch: 1, in_history: path, root };
    let proof = ProofBody::from(&Proof { log_id: LogId::default(), found, inclusion });
    check(&document, "BatchPlace", &[serde_json::to_vec(&proof.batch).unwrap()]);
    check(&document, "HistoryPlace", &[serde_json::to_vec(&proof.history).unwrap()]);
    check(&document, "Proof", &[serde_json::to_vec(&proof).unwrap()]);
}
