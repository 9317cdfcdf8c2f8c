//! The JSON of replies, written straight into the output buffer, without allocation.
//!
//! Invariants: compact, keys in the order of the contract, absent ones left out; a receipt depends on nothing but the entry
//! and its place, so that it is the same bytes whenever it is written. Names and keys need no escaping: their alphabets
//! hold no character that JSON would escape. Messages and correlation ids are escaped.
use crate::domain::{
    push_escaped, Account, Asset, Balance, Code, Entry, LastNonce, LogId, Nonce, Refusal, Root, Seq, Totals, TxId, UnixMs,
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends the receipt of an entry at this place of this log, in a batch that ends with this chain hash.
pub fn receipt(out: &mut Vec<u8>, log: LogId, entry: &Entry<'_>, seq: Seq, root: &Root) {
    let [mut amount, mut nonce, mut ts, mut position] = [itoa::Buffer::new(); 4];
    let parts = Parts {
        txid: &TxId::new(log, seq, entry).text(),
        amount: amount.format(entry.amount().minor_units()).as_bytes(),
        nonce: entry.nonce().map(|Nonce(number)| nonce.format(number).as_bytes()),
        ts: ts.format(entry.ts().0).as_bytes(),
        seq: position.format(seq.0).as_bytes(),
        root: &hex(root),
    };
    let start = out.len();
    parts.canonical(out, entry);
    let hash = blake3::hash(&out[start..]);
    out.truncate(start);
    parts.in_order(out, entry, &hex(hash.as_bytes()));
}

/// What a receipt says twice, once for its hash and once for the client, in the form in which it is written.
struct Parts<'p> {
    txid: &'p [u8],
    amount: &'p [u8],
    nonce: Option<&'p [u8]>,
    ts: &'p [u8],
    seq: &'p [u8],
    root: &'p [u8],
}

impl Parts<'_> {
    /// The receipt with its keys in the order of the contract.
    fn in_order(&self, out: &mut Vec<u8>, entry: &Entry<'_>, hash: &[u8; 64]) {
        text(out, b"{\"txid\":\"", self.txid);
        text(out, b"\",\"op\":\"", entry.op().as_str().as_bytes());
        if let Some(from) = entry.from() {
            text(out, b"\",\"from\":\"", from.as_bytes());
        }
        if let Some(to) = entry.to() {
            text(out, b"\",\"to\":\"", to.as_bytes());
        }
        text(out, b"\",\"asset\":\"", entry.asset().as_bytes());
        text(out, b"\",\"amount_minor\":\"", self.amount);
        out.push(b'"');
        if let Some(nonce) = self.nonce {
            text(out, b",\"nonce\":", nonce);
        }
        text(out, b",\"idem\":\"", entry.key().as_bytes());
        text(out, b"\",\"ts\":", self.ts);
        text(out, b",\"ledger_seq_start\":", self.seq);
        text(out, b",\"ledger_seq_end\":", self.seq);
        text(out, b",\"ledger_root\":\"", self.root);
        text(out, b"\",\"settlement_status\":\"accepted\",\"receipt_hash\":\"b3:", hash);
        out.extend_from_slice(b"\"}");
    }

    /// The receipt without its hash, keys sorted, no spaces: what the hash is of.
    fn canonical(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        text(out, b"{\"amount_minor\":\"", self.amount);
        text(out, b"\",\"asset\":\"", entry.asset().as_bytes());
        if let Some(from) = entry.from() {
            text(out, b"\",\"from\":\"", from.as_bytes());
        }
        text(out, b"\",\"idem\":\"", entry.key().as_bytes());
        text(out, b"\",\"ledger_root\":\"", self.root);
        text(out, b"\",\"ledger_seq_end\":", self.seq);
        text(out, b",\"ledger_seq_start\":", self.seq);
        if let Some(nonce) = self.nonce {
            text(out, b",\"nonce\":", nonce);
        }
        text(out, b",\"op\":\"", entry.op().as_str().as_bytes());
        out.extend_from_slice(b"\",\"settlement_status\":\"accepted");
        if let Some(to) = entry.to() {
            text(out, b"\",\"to\":\"", to.as_bytes());
        }
        text(out, b"\",\"ts\":", self.ts);
        text(out, b",\"txid\":\"", self.txid);
        out.extend_from_slice(b"\"}");
    }
}

/// Appends the balance of an account in one asset, as the owner core told it at this moment.
pub fn balance(out: &mut Vec<u8>, account: Account<'_>, asset: Asset<'_>, balance: &Balance, now: UnixMs) {
    text(out, b"{\"account\":\"", account.as_bytes());
    text(out, b"\",\"asset\":\"", asset.as_bytes());
    number(out, b"\",\"amount_minor\":\"", balance.amount);
    number(out, b"\",\"held_minor_units\":\"", balance.held);
    number(out, b"\",\"as_of_height\":", u128::from(balance.height.0));
    number(out, b",\"as_of\":", u128::from(now.0));
    out.extend_from_slice(b",\"stale_ms\":0}");
}

/// Appends how far the debits of an account have come.
pub fn last_nonce(out: &mut Vec<u8>, account: Account<'_>, nonce: LastNonce, now: UnixMs) {
    text(out, b"{\"account\":\"", account.as_bytes());
    number(out, b"\",\"last_nonce\":", u128::from(nonce.confirmed.0));
    number(out, b",\"next_nonce\":", u128::from(nonce.next.0));
    number(out, b",\"as_of\":", u128::from(now.0));
    out.push(b'}');
}

/// Appends the sums of an asset over all accounts.
pub fn totals(out: &mut Vec<u8>, asset: &str, totals: &Totals) {
    text(out, b"{\"asset\":\"", asset.as_bytes());
    number(out, b"\",\"issued_minor\":\"", totals.issued);
    number(out, b"\",\"burned_minor\":\"", totals.burned);
    number(out, b"\",\"in_accounts_minor\":\"", totals.in_accounts);
    number(out, b"\",\"held_minor_units\":\"", totals.held);
    number(out, b"\",\"as_of_height\":", u128::from(totals.through.0));
    out.push(b'}');
}

/// Appends a page of an account's entries: receipts as [`receipt`] writes them, and where the next page begins.
pub fn entries<'e>(
    out: &mut Vec<u8>,
    log: LogId,
    account: &str,
    entries: impl Iterator<Item = (Entry<'e>, Seq, &'e Root)>,
    before: Option<Seq>,
) {
    text(out, b"{\"account\":\"", account.as_bytes());
    out.extend_from_slice(b"\",\"entries\":[");
    for (index, (entry, seq, root)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        receipt(out, log, &entry, seq, root);
    }
    match before {
        Some(before) => {
            number(out, b"],\"next_cursor\":\"", u128::from(before.0));
            out.extend_from_slice(b"\"}");
        }
        None => out.extend_from_slice(b"],\"next_cursor\":null}"),
    }
}

/// Appends the body of a refused request.
pub fn refusal(out: &mut Vec<u8>, refusal: &Refusal, corr: &str) {
    text(out, b"{\"code\":\"", refusal.code.as_str().as_bytes());
    number(out, b"\",\"http\":", u128::from(refusal.status));
    out.extend_from_slice(b",\"message\":\"");
    push_escaped(out, &refusal.message);
    text(out, b"\",\"retryable\":", if refusal.code.retryable() { b"true" } else { b"false" });
    out.extend_from_slice(b",\"corr_id\":\"");
    push_escaped(out, corr);
    out.push(b'"');
    if let Some(expected) = refusal.expected {
        number(out, b",\"details\":{\"expected\":", u128::from(expected.0));
        out.push(b'}');
    }
    if refusal.archived {
        out.extend_from_slice(b",\"details\":{\"archived\":true}");
    }
    out.push(b'}');
}

/// Seconds after which a client should ask again for what is in an archive: a person has to bring it back first.
const ARCHIVED_RETRY_AFTER: &str = "3600";

/// The headers that belong to a refusal besides those of every reply. `Allow` of METHOD_NOT_ALLOWED comes with the route, see
/// [`super::Resolved`].
pub fn refusal_headers(refusal: &Refusal) -> &'static [(&'static str, &'static str)] {
    match refusal.code {
        Code::UpstreamUnavailable if refusal.archived => &[("Retry-After", ARCHIVED_RETRY_AFTER)],
        Code::Busy | Code::RetryLater | Code::UpstreamUnavailable => &[("Retry-After", "1")],
        Code::Unauthorized => &[("WWW-Authenticate", "Bearer realm=\"svc-wallet\"")],
        Code::BadRequest
        | Code::Forbidden
        | Code::LimitsExceeded
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::InsufficientFunds
        | Code::NonceConflict
        | Code::IdempotencyConflict
        | Code::InternalError => &[],
    }
}

fn text(out: &mut Vec<u8>, before: &[u8], value: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(value);
}

fn hex(value: &[u8; 32]) -> [u8; 64] {
    let mut digits = [0u8; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(value) {
        pair.copy_from_slice(&HEX_PAIRS[usize::from(*byte)]);
    }
    digits
}

/// The two hexadecimal digits of every byte.
static HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
        byte += 1;
    }
    pairs
};

fn number(out: &mut Vec<u8>, before: &[u8], value: u128) {
    text(out, before, itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_like_everybody_writes_them() {
        for value in [0, 1, 9, 10, 12345, u128::from(u64::MAX), u128::from(u64::MAX) + 1, u128::MAX, 10u128.pow(38), 1 << 100] {
            let mut out = Vec::new();
            number(&mut out, b"", value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn texts_come_back_from_json_as_they_were() {
        let told = Refusal::new(Code::BadRequest, "a \"quoted\" \\ \u{1} line\nä\u{7f}");
        let mut out = Vec::new();
        refusal(&mut out, &told, "c\"\\\t");
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["message"], *told.message);
        assert_eq!(value["corr_id"], "c\"\\\t");
    }

    #[test]
    fn reads_are_written_as_the_contract_says() {
        let mut out = Vec::new();
        let (account, asset) = (Account::new("acct:a").unwrap(), Asset::new("roc").unwrap());
        let full = Balance { amount: u128::MAX, held: 5, height: Seq(7) };
        balance(&mut out, account, asset, &full, UnixMs(9));
        assert_eq!(
            String::from_utf8(std::mem::take(&mut out)).unwrap(),
            r#"{"account":"acct:a","asset":"roc","amount_minor":"340282366920938463463374607431768211455","held_minor_units":"5","as_of_height":7,"as_of":9,"stale_ms":0}"#
        );
        let sums = Totals { issued: u128::MAX, burned: 1, in_accounts: u128::MAX - 1, held: 5, through: Seq(7) };
        totals(&mut out, "roc", &sums);
        assert_eq!(
            String::from_utf8(std::mem::take(&mut out)).unwrap(),
            r#"{"asset":"roc","issued_minor":"340282366920938463463374607431768211455","burned_minor":"1","in_accounts_minor":"340282366920938463463374607431768211454","held_minor_units":"5","as_of_height":7}"#
        );
        last_nonce(&mut out, account, LastNonce { confirmed: Nonce(3), next: Nonce(5) }, UnixMs(9));
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"account":"acct:a","last_nonce":3,"next_nonce":5,"as_of":9}"#);
    }

    #[test]
    fn headers_follow_the_code() {
        let headers = |code| refusal_headers(&Refusal::new(code, ""));
        assert_eq!(headers(Code::Busy), [("Retry-After", "1")]);
        assert_eq!(headers(Code::Unauthorized)[0].0, "WWW-Authenticate");
        assert!(headers(Code::BadRequest).is_empty());
    }

    #[test]
    fn what_is_in_an_archive_is_told_apart_and_not_asked_for_every_second() {
        let (archived, away) = (Refusal::archived("a"), Refusal::new(Code::UpstreamUnavailable, "a"));
        assert_eq!((archived.code, archived.status, archived.reason), (away.code, away.status, away.reason));
        assert_eq!(refusal_headers(&archived), [("Retry-After", "3600")]);
        assert_eq!(refusal_headers(&away), [("Retry-After", "1")]);
        let body = |told: &Refusal| {
            let mut out = Vec::new();
            refusal(&mut out, told, "c");
            String::from_utf8(out).unwrap()
        };
        let common = r#"{"code":"UPSTREAM_UNAVAILABLE","http":503,"message":"a","retryable":true,"corr_id":"c""#;
        assert_eq!(body(&away), format!("{common}}}"));
        assert_eq!(body(&archived), format!("{common},\"details\":{{\"archived\":true}}}}"));
    }
}
