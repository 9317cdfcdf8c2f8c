//! The bytes of every request that is sent, from templates built once and patched in place.
//!
//! Every variable field has a fixed width: accounts are a prefix and eight digits, spends are between 100 and 999 minor
//! units, keys are a run tag and twelve hexadecimal digits, and the nonce is padded with spaces, which JSON allows before a
//! number. So the content length never changes and nothing is formatted or allocated for a request. The same [`Spend`]
//! always gives the same bytes: an exact repeat is made from it again, without keeping the request.
//! It does not know connections, pacing or replies, but for the fields of a receipt that mirror the request.

use std::ops::Range;

use crate::operations::{Op, Wording};

/// Digits of an account's number.
const ACCOUNT_DIGITS: usize = 8;
/// Width of the nonce field; JSON has no leading zeros, so it is padded with spaces.
const NONCE_WIDTH: usize = 10;
/// Hexadecimal digits of a key's sequence number.
const KEY_DIGITS: usize = 12;
/// The amount of a deliberate overdraft: far above anything that is ever issued here to one account.
const OVERDRAFT: &str = "900000000000000000000";
/// A receipt begins with this, then 26 characters of the transaction id.
const RECEIPT_START: &[u8] = br#"{"txid":"tx_"#;
/// Where the transaction id, with its `tx_`, lies in a receipt.
pub const TXID_RANGE: Range<usize> = 9..38;
/// The largest number of accounts that the fixed width can name.
pub const ACCOUNTS_MAX: u32 = 99_999_999;
/// Smallest and largest amount of a spend, in minor units.
pub const AMOUNT_RANGE: Range<u32> = 100..1_000;

/// One write: a spend, or another operation. Equal values give equal request bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spend {
    /// Number of the debited account.
    pub from: u32,
    /// The debited account's nonce.
    pub nonce: u64,
    /// Number of the credited account.
    pub to: u32,
    /// Minor units, within [`AMOUNT_RANGE`].
    pub amount_minor: u32,
    /// Sequence number of the idempotency key within the run.
    pub key: u64,
    /// What it does. An issue has no nonce and no debited account: 0 and the credited one stand there; and so does the debited one of
    /// a burn in place of the credited one.
    pub op: Op,
}

/// What all requests of a run have in common.
#[derive(Clone, Debug)]
pub struct Naming {
    /// `Host` of the requests.
    pub host: String,
    /// The capability, sent as a bearer token. Never printed.
    pub token: String,
    /// What the names of accounts begin with.
    pub account_prefix: String,
    /// The asset that is spent.
    pub asset: String,
    /// Tells the keys of this run from those of any other.
    pub run_tag: u32,
}

#[derive(Clone)]
struct Template {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    amount: usize,
    nonce: usize,
    key: usize,
}

/// The templates of one run.
#[derive(Clone)]
pub struct Requests {
    naming: Naming,
    spend: Template,
    overdraft: Template,
    receipt: Template,
    scratch: Vec<u8>,
}

impl Requests {
    /// Builds the templates.
    pub fn new(naming: Naming) -> Requests {
        let spend = spend_template(&naming, "000");
        let overdraft = spend_template(&naming, OVERDRAFT);
        let receipt = receipt_template(&naming);
        let scratch = Vec::with_capacity(receipt.bytes.len());
        Requests { naming, spend, overdraft, receipt, scratch }
    }

    /// Appends `POST /wallet/spend`, or what another operation has.
    pub fn spend(&self, spend: &Spend, out: &mut Vec<u8>) {
        if spend.op != Op::Transfer {
            let body = self.in_words(spend, |wording| wording.body());
            let head = post_head(&self.naming, &format!("/v1/{}", spend.op.name()), &self.key(spend.key), body.len());
            out.extend_from_slice(head.as_bytes());
            return out.extend_from_slice(body.as_bytes());
        }
        let bytes = patch(&self.spend, spend, &self.naming, out);
        put_zero_padded(&mut bytes[self.spend.amount..self.spend.amount + 3], u64::from(spend.amount_minor));
    }

    /// Appends the same spend with an amount that no account can pay; `amount_minor` is not used.
    pub fn overdraft(&self, spend: &Spend, out: &mut Vec<u8>) {
        patch(&self.overdraft, spend, &self.naming, out);
    }

    /// Appends `POST /v1/issue`. Not for the measured part of a run: it formats.
    pub fn issue(&self, to: u32, amount_minor: u128, key: u64, out: &mut Vec<u8>) {
        let body = format!(r#"{{"to":"{}","asset":"{}","amount_minor":"{amount_minor}"}}"#, self.account(to), self.naming.asset);
        let head = post_head(&self.naming, "/v1/issue", &self.key(key), body.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }

    /// Appends `GET /v1/balance`.
    pub fn balance(&self, account: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET /v1/balance?account=");
        self.push_account(account, out);
        out.extend_from_slice(b"&asset=");
        out.extend_from_slice(self.naming.asset.as_bytes());
        self.push_get_tail(out);
    }

    /// Appends `GET /v1/seq`.
    pub fn seq(&self, account: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET /v1/seq?account=");
        self.push_account(account, out);
        self.push_get_tail(out);
    }

    /// Appends `GET /v1/tx/{txid}`.
    pub fn transaction(&self, txid: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET /v1/tx/");
        out.extend_from_slice(txid);
        self.push_get_tail(out);
    }

    /// Whether a reply's body is the receipt of this spend: right operation, accounts, asset, amount, nonce and key. A
    /// reply that belongs to another request on the same connection does not pass.
    pub fn receipt_matches(&mut self, spend: &Spend, body: &[u8]) -> bool {
        if spend.op != Op::Transfer {
            let expected = self.in_words(spend, |wording| wording.receipt(&self.key(spend.key)));
            let rest = body.get(TXID_RANGE.end..).unwrap_or_default();
            return body.starts_with(RECEIPT_START) && rest.starts_with(expected.as_bytes());
        }
        let template = &self.receipt;
        self.scratch.clear();
        self.scratch.extend_from_slice(&template.bytes);
        put_zero_padded(&mut self.scratch[template.from..template.from + ACCOUNT_DIGITS], u64::from(spend.from));
        put_zero_padded(&mut self.scratch[template.to..template.to + ACCOUNT_DIGITS], u64::from(spend.to));
        put_zero_padded(&mut self.scratch[template.amount..template.amount + 3], u64::from(spend.amount_minor));
        put_hexadecimal(&mut self.scratch[template.key..template.key + KEY_DIGITS], spend.key);
        let (middle, idem) = self.scratch.split_at(template.nonce);
        if !body.starts_with(RECEIPT_START) || body.len() < TXID_RANGE.end {
            return false;
        }
        let Some(rest) = body[TXID_RANGE.end..].strip_prefix(middle) else { return false };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        decimal(&rest[..digits]) == Some(u128::from(spend.nonce)) && rest[digits..].starts_with(idem)
    }

    /// Whether a body begins like the balance of this account.
    pub fn is_balance_of(&self, account: u32, body: &[u8]) -> bool {
        let number = body
            .strip_prefix(br#"{"account":""#)
            .and_then(|rest| rest.strip_prefix(self.naming.account_prefix.as_bytes()))
            .and_then(|rest| rest.get(..ACCOUNT_DIGITS));
        number.and_then(decimal) == Some(u128::from(account))
    }

    /// The name of an account.
    pub fn account(&self, number: u32) -> String {
        format!("{}{number:0width$}", self.naming.account_prefix, width = ACCOUNT_DIGITS)
    }

    fn in_words(&self, spend: &Spend, tell: impl FnOnce(&Wording<'_>) -> String) -> String {
        let (from, to) = (self.account(spend.from), self.account(spend.to));
        let amount_minor = u128::from(spend.amount_minor);
        tell(&Wording { op: spend.op, from: &from, to: &to, asset: &self.naming.asset, amount_minor, nonce: spend.nonce })
    }

    fn key(&self, key: u64) -> String {
        format!("{:08x}-{key:0width$x}", self.naming.run_tag, width = KEY_DIGITS)
    }

    fn push_account(&self, number: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.naming.account_prefix.as_bytes());
        let at = out.len();
        out.resize(at + ACCOUNT_DIGITS, b'0');
        put_zero_padded(&mut out[at..], u64::from(number));
    }

    fn push_get_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(self.naming.host.as_bytes());
        out.extend_from_slice(b"\r\nAuthorization: Bearer ");
        out.extend_from_slice(self.naming.token.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
    }
}

fn post_head(naming: &Naming, path: &str, key: &str, body_bytes: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n\
         Idempotency-Key: {key}\r\nContent-Length: {body_bytes}\r\n\r\n",
        naming.host, naming.token
    )
}

fn spend_template(naming: &Naming, amount: &str) -> Template {
    let zeros = "0".repeat(ACCOUNT_DIGITS);
    let prefix = &naming.account_prefix;
    let mut body = format!(r#"{{"from":"{prefix}"#);
    let from = body.len();
    body += &format!(r#"{zeros}","to":"{prefix}"#);
    let to = body.len();
    body += &format!(r#"{zeros}","asset":"{}","amount_minor":""#, naming.asset);
    let amount_at = body.len();
    body += &format!(r#"{amount}","nonce":"#);
    let nonce = body.len();
    body += &format!("{}}}", " ".repeat(NONCE_WIDTH));
    let key_text = format!("{:08x}-{}", naming.run_tag, "0".repeat(KEY_DIGITS));
    let head = post_head(naming, "/wallet/spend", &key_text, body.len());
    let key = head.find(&key_text).expect("the head was just built with this key") + key_text.len() - KEY_DIGITS;
    let shift = head.len();
    let bytes = (head + &body).into_bytes();
    Template { bytes, from: shift + from, to: shift + to, amount: shift + amount_at, nonce: shift + nonce, key }
}

/// What follows the transaction id in the receipt of a spend, up to the key; `nonce` splits it where the number stands.
fn receipt_template(naming: &Naming) -> Template {
    let zeros = "0".repeat(ACCOUNT_DIGITS);
    let prefix = &naming.account_prefix;
    let mut text = format!(r#"","op":"transfer","from":"{prefix}"#);
    let from = text.len();
    text += &format!(r#"{zeros}","to":"{prefix}"#);
    let to = text.len();
    text += &format!(r#"{zeros}","asset":"{}","amount_minor":""#, naming.asset);
    let amount = text.len();
    text += r#"000","nonce":"#;
    let nonce = text.len();
    text += &format!(r#","idem":"{:08x}-"#, naming.run_tag);
    let key = text.len();
    text += &format!(r#"{}","ts":"#, "0".repeat(KEY_DIGITS));
    Template { bytes: text.into_bytes(), from, to, amount, nonce, key }
}

/// Copies the template behind `out` and patches all but the amount; gives back the copy.
fn patch<'a>(template: &Template, spend: &Spend, naming: &Naming, out: &'a mut Vec<u8>) -> &'a mut [u8] {
    debug_assert!(!naming.account_prefix.is_empty());
    let start = out.len();
    out.extend_from_slice(&template.bytes);
    let bytes = &mut out[start..];
    put_zero_padded(&mut bytes[template.from..template.from + ACCOUNT_DIGITS], u64::from(spend.from));
    put_zero_padded(&mut bytes[template.to..template.to + ACCOUNT_DIGITS], u64::from(spend.to));
    put_space_padded(&mut bytes[template.nonce..template.nonce + NONCE_WIDTH], spend.nonce);
    put_hexadecimal(&mut bytes[template.key..template.key + KEY_DIGITS], spend.key);
    bytes
}

fn put_zero_padded(field: &mut [u8], mut value: u64) {
    for byte in field.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
    assert!(value == 0, "a number is wider than its field");
}

fn put_space_padded(field: &mut [u8], mut value: u64) {
    let mut left = field.len();
    while left > 0 && (value > 0 || left == field.len()) {
        left -= 1;
        field[left] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    assert!(value == 0, "a nonce is wider than its field");
    field[..left].fill(b' ');
}

fn put_hexadecimal(field: &mut [u8], mut value: u64) {
    for byte in field.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
    assert!(value == 0, "a key is wider than its field");
}

/// Reads a plain decimal number; `None` for anything else, the empty string included.
pub fn decimal(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || digits.len() > 39 {
        return None;
    }
    let mut value: u128 = 0;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u128::from(byte - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Requests {
        Requests::new(Naming {
            host: "127.0.0.1:8080".into(),
            token: "T".into(),
            account_prefix: "load:".into(),
            asset: "roc".into(),
            run_tag: 0xAB,
        })
    }

    #[test]
    fn a_patched_spend_is_the_request_that_formatting_would_give() {
        let mut out = b"before".to_vec();
        let spend = Spend { from: 12, to: 99_999_999, amount_minor: 123, nonce: 45, key: 0x1F, op: Op::Transfer };
        requests().spend(&spend, &mut out);
        let body = r#"{"from":"load:00000012","to":"load:99999999","asset":"roc","amount_minor":"123","nonce":        45}"#;
        let head = format!(
            "POST /wallet/spend HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
             Authorization: Bearer T\r\nIdempotency-Key: 000000ab-00000000001f\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        assert_eq!(String::from_utf8(out).unwrap(), format!("before{head}{body}"));
    }

    #[test]
    fn an_overdraft_differs_in_its_amount_alone() {
        let spend = Spend { from: 1, to: 2, amount_minor: 100, nonce: 1, key: 1, op: Op::Transfer };
        let mut out = Vec::new();
        requests().overdraft(&spend, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!(r#""amount_minor":"{OVERDRAFT}","nonce":         1}}"#)), "{text}");
    }

    #[test]
    fn a_receipt_is_accepted_only_for_its_own_spend() {
        let mut requests = requests();
        let spend = Spend { from: 12, to: 7, amount_minor: 123, nonce: 45, key: 0x1F, op: Op::Transfer };
        let body = br#"{"txid":"tx_ABCDEFGHIJKLMNOPQRSTUVWXYZ","op":"transfer","from":"load:00000012","to":"load:00000007","asset":"roc","amount_minor":"123","nonce":45,"idem":"000000ab-00000000001f","ts":1}"#;
        assert!(requests.receipt_matches(&spend, body));
        let others = [
            Spend { from: 13, ..spend },
            Spend { to: 8, ..spend },
            Spend { amount_minor: 124, ..spend },
            Spend { nonce: 46, ..spend },
            Spend { nonce: 4, ..spend },
            Spend { key: 0x2F, ..spend },
            Spend { op: Op::Hold, ..spend },
        ];
        for other in others {
            assert!(!requests.receipt_matches(&other, body), "{other:?}");
        }
        assert!(!requests.receipt_matches(&spend, b"{}"));
        assert!(!requests.receipt_matches(&spend, &body[..40]));
    }
}
