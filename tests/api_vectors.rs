//! Holds the API against the golden vectors of `tests/vectors`: requests, receipts and errors, as their README describes them.
#![allow(clippy::unwrap_used)] // The helpers of these tests are not test functions themselves.

use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use svc_wallet::access::{mint, Keyring, MintRequest, Policy, TokenCache};
use svc_wallet::api::{self, reply, Call, Incoming, IncomingHeaders, Method, Resolved, Scratch};
use svc_wallet::domain::{
    Account, Amount, Asset, Code, Draft, Entry, Key, LogId, Nonce, Op, Refusal, Seq, TokenId, TxId, UnixMs,
};
use svc_wallet::http::{Encoding, Limits};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn load<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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

struct Server {
    keyring: Arc<Keyring>,
    tokens: TokenCache,
    policy: Policy,
    _directory: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open_or_create(&directory.path().join("keyring.json")).unwrap());
        let policy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/policy.json");
        let tokens = TokenCache::new(keyring.clone(), "svc-wallet", 64);
        Self { keyring, tokens, policy: Policy::load(&policy).unwrap(), _directory: directory }
    }

    fn token(&self, vector: &TokenVector) -> String {
        let request = MintRequest {
            subject: "vectors".into(),
            scopes: vector.scopes.clone(),
            ttl: Duration::from_secs(60),
            not_before: None,
            audience: vector.audience.clone().unwrap_or("svc-wallet".into()),
            accounts: vector.accounts.clone(),
            to: vector.to.clone(),
            assets: vector.assets.clone(),
            max_amount: vector.max_amount.as_ref().map(|units| units.parse().unwrap()),
            daily_ceiling: None,
            budget: None,
            idem: vector.idem.clone(),
        };
        mint(&self.keyring, &request, NOW).unwrap()
    }

    /// What the request becomes, in the form of `expect`, and its entry if it is a write.
    fn run(&mut self, vector: &RequestVector) -> Result<(Value, Option<Vec<u8>>), Refusal> {
        let method = match vector.method.as_str() {
            "GET" => Method::Get,
            "POST" => Method::Post,
            other => panic!("{}: method {other}", vector.name),
        };
        let route = match api::resolve(method, &vector.path) {
            Resolved::Handler(route) => route,
            Resolved::Refused(_, allow, refusal) => {
                assert_eq!(allow.is_some(), refusal.code == Code::MethodNotAllowed, "{}", vector.name);
                return Err(refusal);
            }
            Resolved::Options(..) => panic!("{}", vector.name),
        };
        let token = self.token(&vector.token);
        let sent: Vec<_> = vector.headers.iter().map(|(name, value)| (name, value.replace("$TOKEN", &token))).collect();
        let mut headers = IncomingHeaders::default();
        sent.iter().for_each(|(name, value)| headers.observe(name.as_bytes(), value.as_bytes()));
        let mut body = vector.body.clone().into_bytes();
        let incoming = Incoming {
            route,
            path: &vector.path,
            query: vector.query.as_deref(),
            headers,
            encoding: Ok(Encoding::Identity),
            limits: &Limits::default(),
            body: &mut body,
        };
        let mut scratch = Scratch::default();
        let call = api::interpret(incoming, &mut self.tokens, &self.policy, NOW, "corr", &mut scratch)?;
        Ok(match call {
            Call::Write { entry, .. } => (serde_json::json!({"entry": fields(&entry)}), Some(entry.bytes().to_vec())),
            Call::Balance { account, asset } => {
                (serde_json::json!({"balance": {"account": account.as_str(), "asset": asset.as_str()}}), None)
            }
            Call::Seq { account } => (serde_json::json!({"seq": {"account": account.as_str()}}), None),
            Call::Tx { id, .. } => (serde_json::json!({"tx": {"txid": id.to_string()}}), None),
            Call::History { .. } | Call::SignedRoot => panic!("{}: no vector asks for a proof", vector.name),
            Call::Totals { asset } => (serde_json::json!({"totals": {"asset": asset.as_str()}}), None),
            Call::Entries { account, before, limit, .. } => {
                let before = before.map(|before| before.0);
                (serde_json::json!({"entries": {"account": account.as_str(), "before": before, "limit": limit}}), None)
            }
        })
    }
}

fn fields(entry: &Entry<'_>) -> Value {
    serde_json::json!({
        "op": entry.op().as_str(),
        "from": entry.from().map(Account::as_str),
        "to": entry.to().map(Account::as_str),
        "asset": entry.asset().as_str(),
        "amount_minor": entry.amount().to_string(),
        "nonce": entry.nonce().map(|Nonce(nonce)| nonce),
        "idem": entry.key().as_str(),
        "memo": entry.memo(),
    })
}

#[test]
fn requests_become_what_the_vectors_say() {
    let mut server = Server::new();
    let vectors: Vec<RequestVector> = load("requests.json");
    assert!(vectors.len() >= 90);
    let mut entries: HashMap<&str, Vec<u8>> = HashMap::new();
    let same = |one: &[u8], other: &[u8]| Entry::parse(one).unwrap().0.same_request(&Entry::parse(other).unwrap().0);
    for vector in &vectors {
        match server.run(vector) {
            Ok((got, entry)) => {
                assert_eq!(got, vector.expect, "{}", vector.name);
                let Some(entry) = entry else { continue };
                match &vector.same_request_as {
                    Some(other) => assert!(same(&entries[other.as_str()], &entry), "{}", vector.name),
                    None => assert!(!entries.values().any(|known| same(known, &entry)), "{}", vector.name),
                }
                assert_eq!(entries.insert(&vector.name, entry), None, "{}: the name is there twice", vector.name);
            }
            Err(refusal) => {
                let expected = &vector.expect["refusal"];
                assert_eq!(expected["code"], refusal.code.as_str(), "{}: {}", vector.name, refusal.message);
                assert_eq!(expected["http"], refusal.status, "{}", vector.name);
                let part = expected["message_has"].as_str().unwrap();
                assert!(refusal.message.contains(part), "{}: {:?} lacks {part:?}", vector.name, refusal.message);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptVector {
    name: String,
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

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
}

#[test]
fn receipts_are_the_bytes_of_the_vectors_and_their_hash_can_be_recomputed() {
    for vector in load::<ReceiptVector>("receipts.json") {
        let name = &vector.name;
        let written = &vector.entry;
        let mut bytes = Vec::new();
        let draft = Draft {
            op: Op::ALL.into_iter().find(|op| op.as_str() == written.op).unwrap(),
            from: written.from.as_deref().map(|from| Account::new(from).unwrap()),
            to: written.to.as_deref().map(|to| Account::new(to).unwrap()),
            asset: Asset::new(&written.asset).unwrap(),
            amount: Amount::parse(&written.amount_minor).unwrap(),
            nonce: written.nonce.map(Nonce),
            key: Key::new(&written.idem).unwrap(),
            memo: written.memo.as_deref(),
            corr: &written.corr,
            token: TokenId(unhex(&written.token)),
            ceiling: written.ceiling,
            budget: written.budget,
            daily_max: false,
            ts: UnixMs(written.ts),
        };
        draft.encode(&mut bytes);
        let (entry, _) = Entry::parse(&bytes).unwrap();
        let mut out = b"before".to_vec();
        reply::receipt(&mut out, LogId(unhex(&vector.log_id)), &entry, Seq(vector.seq), &unhex(&vector.root));
        let receipt = String::from_utf8(out).unwrap();
        let receipt = receipt.strip_prefix("before").unwrap();
        assert_eq!(receipt, vector.receipt, "{name}");
        let read: Value = serde_json::from_str(receipt).unwrap();
        let mut without: BTreeMap<String, Value> = serde_json::from_value(read.clone()).unwrap();
        let hash = without.remove("receipt_hash").unwrap();
        let canonical = serde_json::to_string(&without).unwrap();
        assert_eq!(canonical, vector.canonical, "{name}");
        assert_eq!(hash, format!("b3:{}", blake3::hash(canonical.as_bytes()).to_hex()), "{name}");
        let id = TxId::parse(read["txid"].as_str().unwrap()).unwrap();
        assert_eq!(id.seq, Seq(vector.seq), "{name}");
        assert_eq!(read["ledger_seq_start"], read["ledger_seq_end"], "{name}");
    }
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

#[test]
fn errors_are_the_bytes_of_the_vectors() {
    let mut seen = HashSet::new();
    for vector in load::<ErrorVector>("errors.json") {
        let code = Code::ALL.into_iter().find(|code| code.as_str() == vector.code).unwrap();
        seen.insert(code);
        let refusal = match (vector.expected_nonce, vector.status) {
            (Some(expected), _) => Refusal::nonce(Nonce(expected)),
            (None, 413) => Refusal::too_large(vector.message.clone()),
            (None, _) => Refusal::new(code, vector.message.clone()),
        };
        assert_eq!((refusal.code, refusal.status, &*refusal.message), (code, vector.status, vector.message.as_str()));
        let mut out = Vec::new();
        reply::refusal(&mut out, &refusal, &vector.corr);
        assert_eq!(String::from_utf8(out).unwrap(), vector.body);
        let headers: BTreeMap<String, String> =
            reply::refusal_headers(&refusal).iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(headers, vector.headers, "{}", vector.code);
    }
    assert_eq!(seen.len(), Code::ALL.len(), "every code has a vector");
}
