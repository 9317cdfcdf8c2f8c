//! The golden vectors: each request is read by the parser of this version, each receipt and each error is written anew.
use super::difference::{Report, FORM, SHAPE};
use super::product::{Product, Sent};
use super::requests::shortened;
use super::schema::{escaped, names_in_order};
use crate::access::MintRequest;
use crate::api::{reply, Method};
use crate::domain::{
    bytes_of_hex, Account, Amount, Asset, Code, Draft, Entry, Key, LogId, Nonce, Op, Refusal, Seq, TokenId, TxId, UnixMs,
};
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The texts of the three files, each with the name under which its differences are told.
#[derive(Clone, Debug)]
pub struct Vectors {
    /// `requests.json`.
    pub requests: (String, String),
    /// `receipts.json`.
    pub receipts: (String, String),
    /// `errors.json`.
    pub errors: (String, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestVector {
    name: String,
    method: String,
    path: String,
    query: Option<String>,
    token: TokenVector,
    headers: BTreeMap<String, String>,
    body: String,
    expect: Value,
    same_request_as: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenVector {
    scopes: Vec<String>,
    #[serde(default)]
    accounts: Vec<String>,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    assets: Vec<String>,
    idem: Option<String>,
    max_amount: Option<String>,
    audience: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptVector {
    #[serde(rename = "name")]
    _name: String,
    entry: EntryVector,
    log_id: String,
    seq: u64,
    root: String,
    canonical: String,
    receipt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryVector {
    op: String,
    from: Option<String>,
    to: Option<String>,
    asset: String,
    amount_minor: String,
    nonce: Option<u64>,
    idem: String,
    memo: Option<String>,
    corr: String,
    token: String,
    ceiling: bool,
    budget: bool,
    ts: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorVector {
    code: String,
    status: u16,
    message: String,
    corr: String,
    expected_nonce: Option<u64>,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Recomputes all of them.
pub fn check(vectors: &Vectors, product: &mut Product, report: &mut Report) {
    requests(&vectors.requests, product, report);
    each::<ReceiptVector>(&vectors.receipts, report, |vector, file, pointer, report| {
        if receipt(&vector, file, pointer, report).is_none() {
            let found = "an operation, account, asset, amount, key, number or hash in it is not one of this API";
            report.add(file, &format!("{pointer}/entry"), "an entry", found, SHAPE);
        }
    });
    let mut seen = Vec::new();
    each::<ErrorVector>(&vectors.errors, report, |vector, file, pointer, report| {
        seen.extend(error(&vector, file, pointer, report))
    });
    for code in Code::ALL.into_iter().filter(|code| !seen.contains(code)) {
        report.add(&vectors.errors.0, "", format!("no vector of {}", code.as_str()), "the code is sent", SHAPE);
    }
}

/// Hands over each element of a list with its pointer; one that has another form is told.
fn each<T: DeserializeOwned>(file: &(String, String), report: &mut Report, mut check: impl FnMut(T, &str, &str, &mut Report)) {
    let (name, text) = file;
    let list: Vec<Value> = match serde_json::from_str(text) {
        Ok(list) => list,
        Err(fault) => return report.add(name, "", "a list in JSON", fault.to_string(), FORM),
    };
    for (index, value) in list.into_iter().enumerate() {
        let pointer = format!("/{index}");
        report.vectors += 1;
        match serde_json::from_value(value) {
            Ok(vector) => check(vector, name, &pointer, report),
            Err(fault) => report.add(name, &pointer, "a vector", fault.to_string(), FORM),
        }
    }
}

fn requests(file: &(String, String), product: &mut Product, report: &mut Report) {
    let mut entries: HashMap<String, Vec<u8>> = HashMap::new();
    each::<RequestVector>(file, report, |vector, file, pointer, report| {
        let at = |path: &str| format!("{pointer}/{path}");
        match read(product, &vector) {
            Err(fault) => report.add(file, pointer, "a request", fault, FORM),
            Ok(Ok((got, entry))) => {
                unlike(&vector.expect, &got, file, &at("expect"), report);
                let Some(entry) = entry else { return };
                let like = |other: &Vec<u8>| Entry::parse_own(other).0.same_request(&Entry::parse_own(&entry).0);
                let same = entries.iter().find(|(_, other)| like(other)).map(|(name, _)| name.as_str());
                match (&vector.same_request_as, same) {
                    (Some(told), _) if entries.get(told).is_some_and(like) => {}
                    (None, None) => {}
                    (told, same) => {
                        let expected =
                            told.as_ref().map_or("a request unlike all before".to_owned(), |told| format!("the request {told}"));
                        let found = same.map_or("a request unlike all before".to_owned(), |same| format!("the request {same}"));
                        report.add(file, &at("same_request_as"), expected, found, SHAPE);
                    }
                }
                entries.insert(vector.name, entry);
            }
            Ok(Err(refusal)) => {
                let expected = &vector.expect["refusal"];
                let found = format!("{} {}: {}", refusal.status, refusal.code.as_str(), refusal.message);
                if expected.is_null() {
                    return report.add(file, &at("expect"), shortened(&vector.expect.to_string()), found, SHAPE);
                }
                let part = expected["message_has"].as_str().unwrap_or_default();
                for (member, fits) in [
                    ("code", expected["code"] == refusal.code.as_str()),
                    ("http", expected["http"] == refusal.status),
                    ("message_has", refusal.message.contains(part)),
                ] {
                    if !fits {
                        report.add(file, &at(&format!("expect/refusal/{member}")), expected[member].to_string(), &*found, SHAPE);
                    }
                }
            }
        }
    });
}

type Read = Result<(Value, Option<Vec<u8>>), Refusal>;

/// What the parser makes of the request; why the vector is none otherwise.
fn read(product: &mut Product, vector: &RequestVector) -> Result<Read, String> {
    let method = Method::ALL.into_iter().find(|method| method.as_str() == vector.method);
    let method = method.ok_or_else(|| format!("the method {}", vector.method))?;
    let wanted = &vector.token;
    let mut request = MintRequest {
        scopes: wanted.scopes.clone(),
        accounts: wanted.accounts.clone(),
        to: wanted.to.clone(),
        assets: wanted.assets.clone(),
        idem: wanted.idem.clone(),
        max_amount: wanted.max_amount.as_ref().map(|units| units.parse()).transpose().map_err(|_| "max_amount is no number")?,
        ..product.request()
    };
    if let Some(audience) = &wanted.audience {
        request.audience.clone_from(audience);
    }
    let token = product.token(request).ok_or("no capability can be minted as `token` says")?;
    let headers: Vec<(String, String)> =
        vector.headers.iter().map(|(name, value)| (name.clone(), value.replace("$TOKEN", &token))).collect();
    let sent = Sent { method, path: &vector.path, query: vector.query.as_deref(), headers: &headers, body: &vector.body };
    Ok(product.read(&sent))
}

/// Notes the first places at which two values differ.
fn unlike(expected: &Value, found: &Value, file: &str, pointer: &str, report: &mut Report) {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
                let pointer = format!("{pointer}/{}", escaped(name));
                match (one.get(name), other.get(name)) {
                    (Some(expected), Some(found)) => unlike(expected, found, file, &pointer, report),
                    (Some(expected), None) => {
                        report.add(file, &pointer, shortened(&expected.to_string()), "no such member", SHAPE)
                    }
                    (None, Some(found)) => report.add(file, &pointer, "no such member", shortened(&found.to_string()), SHAPE),
                    (None, None) => {}
                }
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => {
            report.add(file, pointer, shortened(&expected.to_string()), shortened(&found.to_string()), SHAPE);
        }
    }
}

/// Writes the receipt anew; nothing if the vector is of no entry.
fn receipt(vector: &ReceiptVector, file: &str, pointer: &str, report: &mut Report) -> Option<()> {
    let written = &vector.entry;
    let optional =
        |account: &'_ Option<String>| account.as_deref().map_or(Some(None), |name| Account::new(name).map(|_| Some(())));
    (optional(&written.from).is_some() && optional(&written.to).is_some()).then_some(())?;
    let op = Op::ALL.into_iter().find(|op| op.as_str() == written.op)?;
    let draft = Draft {
        op,
        from: written.from.as_deref().and_then(Account::new),
        to: written.to.as_deref().and_then(Account::new),
        asset: Asset::new(&written.asset)?,
        amount: Amount::parse(&written.amount_minor)?,
        nonce: written.nonce.map(Nonce),
        key: Key::new(&written.idem)?,
        memo: written.memo.as_deref(),
        corr: &written.corr,
        token: TokenId(bytes_of_hex(&written.token)?),
        ceiling: written.ceiling,
        budget: written.budget,
        daily_max: false,
        ts: UnixMs(written.ts),
    };
    // The encoder takes what the parser has checked.
    let sides =
        (op.debits(), op.credits()) == (draft.from.is_some(), draft.to.is_some()) && (!op.debits() || draft.nonce.is_some());
    sides.then_some(())?;
    let mut entry = Vec::new();
    draft.encode(&mut entry);
    let mut out = Vec::new();
    let (log, root) = (LogId(bytes_of_hex(&vector.log_id)?), bytes_of_hex(&vector.root)?);
    reply::receipt(&mut out, log, &Entry::parse_own(&entry).0, Seq(vector.seq), &root);
    compare_receipt(vector, &out, file, pointer, report);
    Some(())
}

fn compare_receipt(vector: &ReceiptVector, out: &[u8], file: &str, pointer: &str, report: &mut Report) {
    let at = format!("{pointer}/receipt");
    let told: Value = serde_json::from_str(&vector.receipt).unwrap_or(Value::Null);
    let written: Value = serde_json::from_slice(out).expect("a receipt is JSON");
    let before = report.differences.len();
    unlike(&told, &written, file, &at, report);
    let (order, known) = (names_in_order(out), names_in_order(vector.receipt.as_bytes()));
    if order != known {
        report.add(file, &at, format!("the order {}", known.join(", ")), format!("the order {}", order.join(", ")), SHAPE);
    }
    if before == report.differences.len() && vector.receipt.as_bytes() != out {
        let found = "the same members and values in other bytes: receipts are compact";
        report.add(file, &at, shortened(&vector.receipt), found, SHAPE);
    }
    // The hash is recomputed from what was written, by its definition and not by the writer.
    let mut sorted: BTreeMap<String, Value> = serde_json::from_value(written).expect("a receipt is an object");
    let hash = sorted.remove("receipt_hash");
    let canonical = serde_json::to_string(&sorted).expect("members of JSON");
    if canonical != vector.canonical {
        report.add(file, &format!("{pointer}/canonical"), shortened(&vector.canonical), shortened(&canonical), SHAPE);
    }
    let recomputed = format!("b3:{}", blake3::hash(vector.canonical.as_bytes()).to_hex());
    if told["receipt_hash"] != recomputed.as_str() || hash != Some(Value::String(recomputed.clone())) {
        report.add(file, &format!("{at}/receipt_hash"), told["receipt_hash"].to_string(), recomputed, SHAPE);
    }
    let id = told["txid"].as_str().and_then(TxId::parse);
    if id.map(|id| id.seq) != Some(Seq(vector.seq)) {
        report.add(file, &format!("{at}/txid"), format!("the entry {}", vector.seq), "an id of another place", SHAPE);
    }
}

/// Writes the error anew, and says of which code it is.
fn error(vector: &ErrorVector, file: &str, pointer: &str, report: &mut Report) -> Option<Code> {
    let at = |member: &str| format!("{pointer}/{member}");
    let Some(code) = Code::ALL.into_iter().find(|code| code.as_str() == vector.code) else {
        report.add(file, &at("code"), vector.code.clone(), "no such code", SHAPE);
        return None;
    };
    let refusal = match (vector.expected_nonce, vector.status) {
        (Some(expected), _) => Refusal::nonce(Nonce(expected)),
        (None, 413) => Refusal::too_large(vector.message.clone()),
        (None, _) => Refusal::new(code, vector.message.clone()),
    };
    for (member, expected, found) in [
        ("code", vector.code.clone(), refusal.code.as_str().to_owned()),
        ("status", vector.status.to_string(), refusal.status.to_string()),
        ("message", vector.message.clone(), refusal.message.to_string()),
    ] {
        if expected != found {
            report.add(file, &at(member), expected, found, SHAPE);
        }
    }
    let mut out = Vec::new();
    reply::refusal(&mut out, &refusal, &vector.corr);
    let before = report.differences.len();
    let told: Value = serde_json::from_str(&vector.body).unwrap_or(Value::Null);
    let written: Value = serde_json::from_slice(&out).expect("an error is JSON");
    unlike(&told, &written, file, &at("body"), report);
    if before == report.differences.len() && vector.body.as_bytes() != out {
        report.add(file, &at("body"), shortened(&vector.body), shortened(&String::from_utf8_lossy(&out)), SHAPE);
    }
    let headers: BTreeMap<&str, &str> = reply::refusal_headers(&refusal).iter().copied().collect();
    let told: BTreeMap<&str, &str> = vector.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if headers != told {
        report.add(file, &at("headers"), format!("{told:?}"), format!("{headers:?}"), SHAPE);
    }
    Some(code)
}
