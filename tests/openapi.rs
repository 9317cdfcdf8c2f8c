//! Holds `docs/openapi.yaml` against the handlers: the same paths, methods, pages, codes, headers and statuses, no more and no less. What
//! the handlers know is asked by calling them, not copied from them; which of them refuses what is read in their sources, see
//! `openapi/statuses.rs`. Bodies, queries and replies are held against it by `ronctl dto lint`, see `dto.rs`.
#![allow(clippy::unwrap_used)] // The helpers of these tests are not test functions themselves.
#[path = "openapi/pages.rs"]
mod pages;
#[path = "openapi/statuses.rs"]
mod statuses;
mod support;

use serde_json::{json, Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use svc_wallet::api::{resolve, Method, Resolved, Route};

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
