//! Replies: what the writers of this version write, held against their schemas, and what each member can be.
//!
//! Samples show names, their order and what is always there; what else a member could be is told by the kinds below.
use super::difference::{Report, SHAPE};
use super::probes;
use super::product::{Product, NOW};
use super::requests::shortened;
use super::schema::{escaped, names_in_order, Document, Place};
use crate::access::{RootBoard, SignedRoot, WrittenSignature};
use crate::api::proof::{self, CurrentRootBody, ProofBody};
use crate::api::reply;
use crate::domain::{
    Account, Asset, Balance, Code, Consistency, Entry, Found, HistoryAnswer, HistoryRoot, Inclusion, Key, LastNonce, LogId,
    Nonce, Op, Path, Proof, Refusal, Seq, Totals, TxId,
};
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::BTreeSet;

/// What a member of a reply can be.
#[derive(Clone, Copy)]
enum Kind {
    Account,
    Asset,
    /// Minor units, zero among them.
    Units,
    Nonce,
    Key,
    Txid,
    Op,
    /// A number of 64 bits; how large it can become is not told.
    Count,
    Hash,
    ReceiptHash,
    Always(&'static str),
}

impl Kind {
    /// Whether this version can write such a value; nothing where that is not told.
    fn can_be(self, value: &Value) -> Option<bool> {
        let text = value.as_str();
        let is = |known: &dyn Fn(&str) -> bool| Some(text.is_some_and(known));
        let hash =
            |text: &str| text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
        match self {
            Kind::Account => is(&|text| Account::new(text).is_some()),
            Kind::Asset => is(&|text| Asset::new(text).is_some()),
            Kind::Units => is(&|text| text.parse::<u128>().is_ok_and(|units| units.to_string() == text)),
            Kind::Nonce => Some(value.as_u64().is_some_and(|nonce| nonce > 0)),
            Kind::Key => is(&|text| Key::new(text).is_some()),
            Kind::Txid => is(&|text| TxId::parse(text).is_some()),
            Kind::Op => is(&|text| Op::ALL.into_iter().any(|op| op.as_str() == text)),
            Kind::Count => (value.is_u64() || !value.is_number() || value.as_f64() < Some(1e19)).then_some(value.is_u64()),
            Kind::Hash => is(&hash),
            Kind::ReceiptHash => is(&|text| text.strip_prefix("b3:").is_some_and(hash)),
            Kind::Always(wanted) => is(&|text| text == wanted),
        }
    }
}

const RECEIPT: [(&str, Kind); 14] = [
    ("txid", Kind::Txid),
    ("op", Kind::Op),
    ("from", Kind::Account),
    ("to", Kind::Account),
    ("asset", Kind::Asset),
    ("amount_minor", Kind::Units),
    ("nonce", Kind::Nonce),
    ("idem", Kind::Key),
    ("ts", Kind::Count),
    ("ledger_seq_start", Kind::Count),
    ("ledger_seq_end", Kind::Count),
    ("ledger_root", Kind::Hash),
    ("settlement_status", Kind::Always("accepted")),
    ("receipt_hash", Kind::ReceiptHash),
];
const BALANCE: [(&str, Kind); 7] = [
    ("account", Kind::Account),
    ("asset", Kind::Asset),
    ("amount_minor", Kind::Units),
    ("held_minor_units", Kind::Units),
    ("as_of_height", Kind::Count),
    ("as_of", Kind::Count),
    ("stale_ms", Kind::Count),
];
const LAST_NONCE: [(&str, Kind); 4] =
    [("account", Kind::Account), ("last_nonce", Kind::Count), ("next_nonce", Kind::Nonce), ("as_of", Kind::Count)];
const TOTALS: [(&str, Kind); 6] = [
    ("asset", Kind::Asset),
    ("issued_minor", Kind::Units),
    ("burned_minor", Kind::Units),
    ("in_accounts_minor", Kind::Units),
    ("held_minor_units", Kind::Units),
    ("as_of_height", Kind::Count),
];

/// Holds every reply against its schema.
pub fn check(document: &Document, product: &mut Product, report: &mut Report) {
    let issue = product.entry("/v1/issue", &json!({"to": "acct:b", "asset": "roc", "amount_minor": "1"}));
    let transfer = json!({"from": "acct:a", "to": "acct:b", "asset": "roc", "amount_minor": "1", "nonce": 1});
    let transfer = product.entry("/v1/transfer", &transfer);
    let burn =
        product.entry("/v1/burn", &json!({"from": "acct:a", "asset": "roc", "amount_minor": u128::MAX.to_string(), "nonce": 1}));
    let receipts = [&issue, &transfer, &burn].map(|bytes| {
        let mut out = Vec::new();
        reply::receipt(&mut out, LogId::default(), &Entry::parse_own(bytes).0, Seq(1), &[0; 32]);
        out
    });
    compare(document, "Receipt", &receipts, &RECEIPT, report);
    let (account, asset) = (Account::new("acct:a").expect("an account"), Asset::new("roc").expect("an asset"));
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let balance = written(&|out| reply::balance(out, account, asset, &Balance::default(), NOW));
    compare(document, "Balance", &[balance], &BALANCE, report);
    let nonces = LastNonce { confirmed: Nonce(1), next: Nonce(2) };
    let nonces = written(&|out| reply::last_nonce(out, account, nonces, NOW));
    compare(document, "LastNonce", &[nonces], &LAST_NONCE, report);
    let totals = written(&|out| reply::totals(out, "roc", &Totals::default()));
    compare(document, "Totals", &[totals], &TOTALS, report);
    let pages = [None, Some(Seq(1))].map(|before| {
        let entries = || [(Entry::parse_own(&issue).0, Seq(1), &[0; 32])].into_iter();
        written(&|out| reply::entries(out, LogId::default(), "acct:b", entries(), before))
    });
    compare(document, "Entries", &pages, &[("account", Kind::Account)], report);
    let refusals = [Refusal::new(Code::Busy, "busy"), Refusal::nonce(Nonce(2)), Refusal::archived("archived")]
        .map(|refusal| written(&|out| reply::refusal(out, &refusal, "corr")));
    compare(document, "Error", &refusals, &[], report);
    proofs(document, &issue, report);
}

/// The replies that prove something.
fn proofs(document: &Document, issue: &[u8], report: &mut Report) {
    let root = HistoryRoot { size: 2, through: Seq(3), hash: [1; 32] };
    let board = RootBoard::default();
    let signature = WrittenSignature { key: "k-1".to_owned(), ts: 1, ed25519: "A".repeat(86), ml_dsa_65: Some("A".repeat(4412)) };
    board.put(SignedRoot { root, signature });
    let told = |answer: &HistoryAnswer| proof::history(LogId::default(), None, answer, &board).expect("there is an answer");
    let current = told(&HistoryAnswer::Root(Ok(root)));
    let inner: CurrentRootBody = serde_json::from_slice(&current).expect("what is written is read");
    compare(document, "Root", &[bytes(&inner.root)], &[("hash", Kind::Hash)], report);
    compare(document, "LedgerRoot", &[current], &[], report);
    let peaks = vec![[2; 32]];
    let consistency =
        Consistency { log_id: LogId::default(), from: root, to: root, peaks: peaks.clone(), additions: peaks.clone() };
    compare(document, "Consistency", &[told(&HistoryAnswer::Consistency(Ok(consistency)))], &[], report);
    let found = Found { entry: issue.to_vec().into(), seq: Seq(2), root: [3; 32] };
    let path = Path { siblings: peaks.clone(), peaks };
    let inclusion = Inclusion { first_seq: Seq(2), entries: 2, in_batch: path.clone(), batch: 1, in_history: path, root };
    let proof = ProofBody::from(&Proof { log_id: LogId::default(), found, inclusion });
    compare(document, "BatchPlace", &[bytes(&proof.batch)], &[], report);
    compare(document, "HistoryPlace", &[bytes(&proof.history)], &[], report);
    compare(document, "Proof", &[bytes(&proof)], &[("txid", Kind::Txid), ("ledger_root", Kind::Hash)], report);
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is written is JSON")
}

/// All replies of one kind that can be written, together, against the schema of that name.
fn compare(document: &Document, name: &str, written: &[Vec<u8>], kinds: &[(&str, Kind)], report: &mut Report) {
    let pointer = format!("/components/schemas/{name}");
    let Some(place) = document.at(&pointer) else {
        return report.add(&document.file, &pointer, "nothing", format!("replies of the kind {name} are written"), SHAPE);
    };
    let add = |report: &mut Report, path: &str, expected: String, found: String| {
        report.add(&document.file, &format!("{}/{path}", place.pointer), expected, found, SHAPE);
    };
    let samples: Vec<Value> = written.iter().map(|text| serde_json::from_slice(text).expect("a reply is JSON")).collect();
    let keys =
        |value: &Value| value.as_object().map(|members| members.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default();
    let every: BTreeSet<String> = samples.iter().flat_map(keys).collect();
    let always = samples.iter().map(keys).reduce(|one, other| &one & &other).unwrap_or_default();
    let told = document.names(&place, "properties");
    for name in told.iter().filter(|name| !every.contains(*name)) {
        add(report, &format!("properties/{}", escaped(name)), format!("a member {name}"), "it is never written".into());
    }
    for name in every.iter().filter(|name| !told.contains(name)) {
        add(report, &format!("properties/{}", escaped(name)), format!("no member {name}"), "it is written".into());
    }
    let required = place.schema["required"].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned));
    let required: BTreeSet<String> = required.collect();
    for name in required.symmetric_difference(&always) {
        let word = |always: bool| if always { "always there" } else { "not always there" };
        add(report, "required", format!("{name} {}", word(required.contains(name))), word(always.contains(name)).into());
    }
    if place.schema["additionalProperties"] != Value::Bool(false) {
        let found = "no other member is ever written".to_owned();
        add(report, "additionalProperties", "members that are not listed".into(), found);
    }
    for text in written {
        let names = names_in_order(text);
        let order: Vec<&String> = told.iter().filter(|name| names.contains(name)).collect();
        if names.iter().filter(|name| told.contains(name)).ne(order.iter().copied()) {
            let listed = order.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            add(report, "properties", format!("the order {listed}"), format!("the order {}", names.join(", ")));
        }
    }
    for sample in &samples {
        report.values += 1;
        if let Some(keyword) = document.refuses(&place, sample) {
            // What is missing or too much was told above, by its name.
            if !keyword.ends_with("/additionalProperties") && !keyword.ends_with("/required") {
                report.add(&document.file, &keyword, "another value", shortened(&sample.to_string()), SHAPE);
            }
        }
    }
    for (member, kind) in kinds {
        if let Some(property) = document.below(&place, &format!("properties/{member}")) {
            differ(document, &property, member, *kind, report);
        }
    }
}

/// Shows values to the schema of a member, and notes the first that it allows and that is never written, and the other way round.
fn differ(document: &Document, place: &Place<'_>, member: &str, kind: Kind, report: &mut Report) {
    let (mut wider, mut narrower) = (false, false);
    for text in probes::values() {
        let value: Value = serde_json::from_str(&text).expect("a probe is JSON");
        let Some(by_code) = kind.can_be(&value) else { continue };
        let refused = document.refuses(place, &value);
        report.values += 1;
        let told = if refused.is_some() { &mut narrower } else { &mut wider };
        if refused.is_none() != by_code && !std::mem::replace(told, true) {
            let word = |can_be: bool| if can_be { "possible" } else { "never" };
            let pointer = refused.as_ref().unwrap_or(&place.pointer);
            let expected = format!("{member} = {}: {}", shortened(&text), word(refused.is_none()));
            report.example(&document.file, pointer, expected, word(by_code), SHAPE);
        }
    }
}
