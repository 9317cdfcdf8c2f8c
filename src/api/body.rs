//! The JSON body of a write, read into checked values that borrow from it.
//!
//! Invariants: an unknown or repeated field is refused, and so is a field of another operation; every refusal names the field
//! and what it has to be; nothing is allocated for a body that is fine (buffers are reused, escapes are resolved in place).
//! Deliberately not known here: headers, capabilities, the policy.
use crate::domain::limits::MEMO_BYTES_MAX;
use crate::domain::{Account, Amount, Asset, Code, Key, Nonce, Op, Refusal};
use simd_json::tape::Tape;
use simd_json::{Buffers, Node, StaticNode};

/// The fields of a body. Those that the operation needs are there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'b> {
    pub(super) from: Option<Account<'b>>,
    pub(super) to: Option<Account<'b>>,
    pub(super) asset: Asset<'b>,
    pub(super) amount: Amount,
    pub(super) nonce: Option<Nonce>,
    pub(super) key: Option<Key<'b>>,
    pub(super) memo: Option<&'b str>,
}

/// Parser buffers, reused from body to body.
pub(super) struct BodyReader {
    buffers: Buffers,
    tape: Tape<'static>,
}

/// A run of digits this long makes the fast parser take a path that does not look at what follows the number.
const LONG_DIGITS: usize = 18;
/// Characters of an unknown field that are repeated in the refusal.
const ECHO_MAX: usize = 32;

impl BodyReader {
    pub(super) fn new() -> Self {
        Self { buffers: Buffers::default(), tape: Tape(Vec::new()) }
    }

    /// Reads the body of an operation. The text is changed while it is read.
    pub(super) fn read<'b>(&mut self, op: Op, text: &'b mut [u8]) -> Result<Body<'b>, Refusal> {
        if text.is_empty() {
            return Err(bad("the body is empty; send a JSON object"));
        }
        // For the fast parser a NUL ends a number, and what follows up to the next comma is not looked at; and of a pair of escaped
        // surrogates it looks at the first alone. Escapes are rare, and the strict parser knows about both.
        let suspect = memchr::memchr2(0, b'\\', text);
        if let Some(at) = suspect.filter(|at| text[*at] == 0) {
            return Err(bad(format!("the body is not JSON: a NUL at byte {at}; send one JSON object in UTF-8")));
        }
        if suspect.is_some() {
            strictly::<serde_json::Value>(text)?;
        } else if has_long_digits(text) {
            strictly::<serde::de::IgnoredAny>(text)?;
        }
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let outcome = match simd_json::fill_tape(text, &mut self.buffers, &mut tape) {
            Ok(()) => Fields::gather(op, &tape.0).and_then(|fields| fields.complete(op)),
            Err(error) => Err(bad(format!("the body is not JSON: at byte {}; send one JSON object in UTF-8", error.index()))),
        };
        self.tape = tape.reset();
        outcome
    }
}

/// Whether the strict parser finds one of these; escapes are looked into only if it has to keep what they stand for.
fn strictly<'t, T: serde::Deserialize<'t>>(text: &'t [u8]) -> Result<(), Refusal> {
    let parsed: Result<T, _> = serde_json::from_slice(text);
    parsed.map(|_| ()).map_err(|error| bad(format!("the body is not JSON: line {} column {}", error.line(), error.column())))
}

fn has_long_digits(text: &[u8]) -> bool {
    // Of a run that is long enough, one byte lies on every multiple of its length: the others need not be looked at.
    let mut at = LONG_DIGITS - 1;
    while at < text.len() {
        if text[at].is_ascii_digit() {
            let before = text[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            let after = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if before + after >= LONG_DIGITS {
                return true;
            }
        }
        at += LONG_DIGITS;
    }
    false
}

/// Every name that a body of some operation may have.
pub const BODY_FIELDS: [&str; 8] = ["from", "to", "asset", "amount_minor", "nonce", "seq", "idempotency_key", "memo"];

/// The names of fields, with the bit that notes that one was seen. `seq` is another name of `nonce`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    From = 1,
    To = 2,
    Asset = 4,
    AmountMinor = 8,
    Nonce = 16,
    IdempotencyKey = 32,
    Memo = 64,
}

impl Name {
    fn of(op: Op, text: &str) -> Option<Self> {
        match text {
            "from" => op.debits().then_some(Self::From),
            "to" => op.credits().then_some(Self::To),
            "asset" => Some(Self::Asset),
            "amount_minor" => Some(Self::AmountMinor),
            "nonce" | "seq" => Some(Self::Nonce),
            "idempotency_key" => Some(Self::IdempotencyKey),
            "memo" => Some(Self::Memo),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Fields<'b> {
    seen: u8,
    from: Option<Account<'b>>,
    to: Option<Account<'b>>,
    asset: Option<Asset<'b>>,
    amount: Option<Amount>,
    nonce: Option<Nonce>,
    key: Option<Key<'b>>,
    memo: Option<&'b str>,
}

impl<'b> Fields<'b> {
    /// Walks the flat list of nodes: an object, then its names and values in turn. A nested value is refused where it
    /// stands, so what is inside it is never walked.
    fn gather(op: Op, nodes: &[Node<'b>]) -> Result<Self, Refusal> {
        let Some(Node::Object { len, .. }) = nodes.first() else {
            return Err(bad("the body is not a JSON object; send one with the fields of the operation"));
        };
        let mut fields = Self::default();
        let mut rest = &nodes[1..];
        for _ in 0..*len {
            let [Node::String(text), value, after @ ..] = rest else {
                return Err(bad("the body is not a JSON object with names and values"));
            };
            let name = Name::of(op, text).ok_or_else(|| unknown(op, text))?;
            if fields.seen & name as u8 != 0 {
                return Err(repeated(name, text));
            }
            fields.seen |= name as u8;
            fields.take(name, value)?;
            rest = after;
        }
        Ok(fields)
    }

    fn take(&mut self, name: Name, value: &Node<'b>) -> Result<(), Refusal> {
        match name {
            Name::From => self.from = Some(account("from", value)?),
            Name::To => self.to = Some(account("to", value)?),
            Name::Asset => {
                let asset = string(value).and_then(Asset::new);
                self.asset = Some(asset.ok_or_else(|| bad("asset: not a string of 1 to 16 characters of a-z 0-9 _"))?);
            }
            Name::AmountMinor => self.amount = Some(amount(value)?),
            Name::Nonce => self.nonce = nonce(value)?,
            Name::IdempotencyKey => self.key = key(value)?,
            Name::Memo => self.memo = memo(value)?,
        }
        Ok(())
    }

    fn complete(self, op: Op) -> Result<Body<'b>, Refusal> {
        let missing = |name: &str| bad(format!("{name}: missing; {} needs it", op.as_str()));
        if op.debits() && self.from.is_none() {
            return Err(missing("from"));
        }
        if op.credits() && self.to.is_none() {
            return Err(missing("to"));
        }
        let asset = self.asset.ok_or_else(|| missing("asset"))?;
        let amount = self.amount.ok_or_else(|| missing("amount_minor"))?;
        if op.debits() && self.nonce.is_none() {
            return Err(missing("nonce"));
        }
        if self.from.is_some() && self.from == self.to {
            return Err(bad("to: the same account as from; they have to differ"));
        }
        Ok(Body { from: self.from, to: self.to, asset, amount, nonce: self.nonce, key: self.key, memo: self.memo })
    }
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

fn unknown(op: Op, name: &str) -> Refusal {
    let shown: String = name.chars().take(ECHO_MAX).map(|letter| if letter.is_ascii_graphic() { letter } else { '?' }).collect();
    let sides = match (op.debits(), op.credits()) {
        (true, true) => "from, to",
        (true, false) => "from",
        (false, true) => "to",
        (false, false) => "",
    };
    let op = op.as_str();
    bad(format!("{shown}: unknown field; {op} knows {sides}, asset, amount_minor, nonce, idempotency_key, memo"))
}

fn repeated(name: Name, text: &str) -> Refusal {
    if name == Name::Nonce {
        return bad("nonce: given more than once; seq is another name for it, send one of them once");
    }
    bad(format!("{text}: given more than once; send it once"))
}

fn string<'b>(value: &Node<'b>) -> Option<&'b str> {
    match value {
        Node::String(text) => Some(text),
        Node::Object { .. } | Node::Array { .. } | Node::Static(_) => None,
    }
}

fn account<'b>(name: &str, value: &Node<'b>) -> Result<Account<'b>, Refusal> {
    let account = string(value).and_then(Account::new);
    account.ok_or_else(|| bad(format!("{name}: not a string of 1 to 256 characters of A-Z a-z 0-9 : / - _")))
}

fn amount(value: &Node<'_>) -> Result<Amount, Refusal> {
    let amount = match value {
        Node::String(text) => Amount::parse(text),
        Node::Static(StaticNode::U64(units)) => Amount::new(u128::from(*units)),
        Node::Static(StaticNode::U128(units)) => Amount::new(*units),
        Node::Static(StaticNode::F64(_)) => {
            return Err(bad("amount_minor: a number with a point or an exponent; send a string of decimal digits"));
        }
        Node::Static(StaticNode::I64(_) | StaticNode::I128(_) | StaticNode::Bool(_) | StaticNode::Null)
        | Node::Object { .. }
        | Node::Array { .. } => None,
    };
    amount.ok_or_else(|| {
        bad("amount_minor: not a string of decimal digits from 1 to 2^128 - 1, without sign, point, exponent or leading zero")
    })
}

fn nonce(value: &Node<'_>) -> Result<Option<Nonce>, Refusal> {
    match value {
        Node::Static(StaticNode::U64(nonce)) if *nonce > 0 => Ok(Some(Nonce(*nonce))),
        Node::Static(StaticNode::Null) => Ok(None),
        Node::Static(_) | Node::String(_) | Node::Object { .. } | Node::Array { .. } => {
            Err(bad("nonce: not a JSON integer from 1 to 18446744073709551615"))
        }
    }
}

fn key<'b>(value: &Node<'b>) -> Result<Option<Key<'b>>, Refusal> {
    if *value == Node::Static(StaticNode::Null) {
        return Ok(None);
    }
    let key = string(value).and_then(Key::new);
    key.map(Some).ok_or_else(|| bad("idempotency_key: not a string of 1 to 64 characters of A-Z a-z 0-9 - _ : ."))
}

fn memo<'b>(value: &Node<'b>) -> Result<Option<&'b str>, Refusal> {
    if *value == Node::Static(StaticNode::Null) {
        return Ok(None);
    }
    let memo = string(value).filter(|text| text.len() <= MEMO_BYTES_MAX && !text.chars().any(char::is_control));
    memo.map(Some).ok_or_else(|| bad("memo: not a string of at most 256 bytes without control characters"))
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
