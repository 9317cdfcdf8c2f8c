//! From a request to a call: capability, then decoding and shape, then caveats, then policy; the first that fails refuses.
//!
//! Decisions that the contract leaves open: contradicting headers are a malformed message and refused before the
//! capability is looked at (400); a body that is not declared as JSON is BAD_REQUEST, because no code stands for 415; the key
//! of a body has to be well formed even where the header wins; a caveat that is not understood is FORBIDDEN.
use super::body::BodyReader;
use super::fault::fault_refusal;
use super::headers::IncomingHeaders;
use super::proof::{signed_parameter, size_parameter};
use super::query::{decoded, given, parameters};
use super::routes::{account_text, asset_text, proven_txid_text, txid_text, Route};
use crate::access::{Capability, Demand, Policy, TokenCache, Wish};
use crate::domain::limits::{ACCOUNT_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::domain::{Account, Allowance, Asset, Code, Draft, Entry, HistoryQuestion, Key, Op, Refusal, Seq, TxId, UnixMs, Why};
use crate::http;
use std::sync::Arc;

/// A request as the worker hands it over, after framing and size caps.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The handler that [`super::resolve`] found; one that needs a capability.
    pub route: Route,
    /// The path without the query, as it was sent.
    pub path: &'a str,
    /// What follows the first `?`.
    pub query: Option<&'a str>,
    /// The headers that count.
    pub headers: IncomingHeaders<'a>,
    /// How the body is encoded, if that is understood. It is decoded once the capability is known: strangers get no work done.
    pub encoding: Result<http::Encoding, http::Fault>,
    /// What a decoded body may grow to.
    pub limits: &'a http::Limits,
    /// The whole body as it was sent; changed while it is read.
    pub body: &'a mut [u8],
}

/// Buffers of one core that are reused from request to request. A [`Call`] borrows from them.
pub struct Scratch {
    reader: BodyReader,
    decoded: Vec<u8>,
    entry: Vec<u8>,
    /// Whether the body was understood, so that `entry` is what this request asks for.
    understood: bool,
    account: Vec<u8>,
    asset: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            reader: BodyReader::new(),
            decoded: Vec::new(),
            entry: Vec::new(),
            understood: false,
            account: Vec::new(),
            asset: Vec::new(),
        }
    }
}

impl Scratch {
    /// The entry that the last request asked for, if it was a write whose body was understood: also if it was refused then.
    pub fn asked(&self) -> Option<Entry<'_>> {
        self.understood.then(|| Entry::parse_own(&self.entry).0)
    }
}

/// A request that is well formed and permitted. What the accounts hold has not been looked at.
#[derive(Debug)]
pub enum Call<'a> {
    /// An entry to be decided by the owner core.
    Write {
        /// The entry, encoded.
        entry: Entry<'a>,
        /// How far its token limits sums of debits.
        allowance: Allowance,
    },
    /// The balance of an account.
    Balance {
        /// Whose.
        account: Account<'a>,
        /// In which asset.
        asset: Asset<'a>,
    },
    /// The last nonce of an account.
    Seq {
        /// Whose.
        account: Account<'a>,
    },
    /// A receipt, to be shown only if [`may_read`] agrees once the entry is known.
    Tx {
        /// Which one.
        id: TxId,
        /// Who asks.
        capability: Arc<Capability>,
    },
    /// A page of the entries of an account. Each receipt is to be shown only if [`may_read`] agrees.
    Entries {
        /// Whose.
        account: Account<'a>,
        /// Only entries before this one; all if absent.
        before: Option<Seq>,
        /// At most so many, from 1.
        limit: usize,
        /// Who asks.
        capability: Arc<Capability>,
    },
    /// The sums of an asset over all accounts.
    Totals {
        /// Which one.
        asset: Asset<'a>,
    },
    /// A proof of history.
    History {
        /// What is asked.
        question: HistoryQuestion,
        /// For the proof of a transaction: which one, and who asks; [`may_read`] has to agree once the entry is known.
        of: Option<(TxId, Arc<Capability>)>,
    },
    /// The newest root that is signed.
    SignedRoot,
}

/// Receipts on a page unless the request says otherwise.
const PAGE_ENTRIES: usize = 50;

/// Checks a request as far as that can be done without the ledger, and makes the call of it.
///
/// `corr` is the correlation id of the request, at most 64 bytes, see [`super::correlation`].
///
/// # Panics
/// If the route needs no capability, or `corr` is too long: the caller's mistakes.
pub fn interpret<'a>(
    incoming: Incoming<'a>,
    tokens: &mut TokenCache,
    policy: &Policy,
    now: UnixMs,
    corr: &str,
    scratch: &'a mut Scratch,
) -> Result<Call<'a>, Refusal> {
    tokens.begin();
    scratch.understood = false;
    let scopes = incoming.route.scopes().expect("control routes are answered before");
    incoming.headers.check()?;
    let token = bearer(incoming.headers.authorization)?;
    let capability = tokens.verify(token, incoming.headers.discharge, now)?;
    policy.believes(capability)?;
    capability.permits_scope(scopes)?;
    let demand = Demand { scopes, accounts: &[], to: None, asset: None, amount: None, key: None, debits: false };
    let called = match incoming.route.op() {
        Some(op) => write(op, incoming, Context { capability, demand, policy, now, corr }, scratch),
        None => read(incoming, Context { capability, demand, policy, now, corr }, scratch),
    }?;
    policy.permits_subject(capability.subject())?;
    Ok(called)
}

/// What surrounds the body of a write, or the question of a read.
struct Context<'c> {
    capability: &'c Arc<Capability>,
    demand: Demand<'c>,
    policy: &'c Policy,
    now: UnixMs,
    corr: &'c str,
}

fn read<'a>(incoming: Incoming<'a>, context: Context<'_>, scratch: &'a mut Scratch) -> Result<Call<'a>, Refusal> {
    let Context { capability, demand, policy, .. } = context;
    match incoming.route {
        Route::Balance => {
            let [account, asset] = parameters(incoming.query, ["account", "asset"])?;
            let account = account_of(account, &mut scratch.account, "query")?;
            let asset = decoded(asset, &mut scratch.asset).and_then(Asset::new);
            let asset = asset.ok_or_else(|| bad("asset: not 1 to 16 characters of a-z 0-9 _ in the query"))?;
            capability.permits(&Demand { accounts: &[account], asset: Some(asset), ..demand })?;
            policy.permits_account(account)?;
            policy.permits_read(asset)?;
            Ok(Call::Balance { account, asset })
        }
        Route::Seq => {
            let [account] = parameters(incoming.query, ["account"])?;
            let account = account_of(account, &mut scratch.account, "query")?;
            capability.permits(&Demand { accounts: &[account], ..demand })?;
            policy.permits_account(account)?;
            Ok(Call::Seq { account })
        }
        Route::Tx => {
            let [] = parameters(incoming.query, [])?;
            let id = TxId::parse(txid_text(incoming.path));
            let id = id.ok_or_else(|| Refusal::new(Code::NotFound, "no such transaction"))?;
            Ok(Call::Tx { id, capability: capability.clone() })
        }
        Route::Proof => {
            let [size] = given(incoming.query, ["size"])?;
            let size = size.map(|size| size_parameter("size", size)).transpose()?;
            let id = TxId::parse(proven_txid_text(incoming.path));
            let id = id.ok_or_else(|| Refusal::new(Code::NotFound, "no such transaction"))?;
            let question = HistoryQuestion::Proof { seq: id.seq, size };
            Ok(Call::History { question, of: Some((id, capability.clone())) })
        }
        Route::LedgerRoot => {
            let [signed] = given(incoming.query, ["signed"])?;
            match signed.map(signed_parameter).transpose()? {
                Some(true) => Ok(Call::SignedRoot),
                Some(false) | None => Ok(Call::History { question: HistoryQuestion::Root, of: None }),
            }
        }
        Route::Consistency => {
            let [from, to] = parameters(incoming.query, ["from", "to"])?;
            let (from, to) = (size_parameter("from", from)?, size_parameter("to", to)?);
            Ok(Call::History { question: HistoryQuestion::Consistency { from, to }, of: None })
        }
        Route::Entries => {
            let [limit, cursor] = given(incoming.query, ["limit", "cursor"])?;
            let limit = limit.map_or(Ok(PAGE_ENTRIES), limit_of)?;
            let before = cursor.map(cursor_of).transpose()?;
            let account = account_of(account_text(incoming.path), &mut scratch.account, "path")?;
            capability.permits(&Demand { accounts: &[account], ..demand })?;
            policy.permits_account(account)?;
            Ok(Call::Entries { account, before, limit, capability: capability.clone() })
        }
        Route::Totals => {
            let [] = parameters(incoming.query, [])?;
            let asset = Asset::new(asset_text(incoming.path));
            let asset = asset.ok_or_else(|| bad("asset: not 1 to 16 characters of a-z 0-9 _ in the path"))?;
            capability.permits(&Demand { asset: Some(asset), ..demand })?;
            capability.permits_every_account()?;
            policy.permits_read(asset)?;
            Ok(Call::Totals { asset })
        }
        Route::Issue
        | Route::Transfer
        | Route::Burn
        | Route::Hold
        | Route::Capture
        | Route::Release
        | Route::Healthz
        | Route::Readyz
        | Route::Version
        | Route::Unknown => unreachable!("writes, and routes without scopes, have been told apart above"),
    }
}

/// Whether the holder may see this entry: the capability covers one of its accounts, and its asset.
pub fn may_read(capability: &Capability, entry: &Entry<'_>) -> Result<(), Refusal> {
    capability.permits_receipt([entry.from(), entry.to()], entry.asset())
}

fn write<'a>(op: Op, incoming: Incoming<'a>, context: Context<'_>, scratch: &'a mut Scratch) -> Result<Call<'a>, Refusal> {
    let Context { capability, demand, policy, now, corr } = context;
    let [] = parameters(incoming.query, [])?;
    require_json(incoming.headers.content_type)?;
    let plain = match incoming.encoding.map_err(|fault| fault_refusal(&fault))? {
        http::Encoding::Identity => incoming.body,
        encoding => {
            let decoded = http::decode(encoding, incoming.body, &mut scratch.decoded, incoming.limits);
            decoded.map_err(|fault| fault_refusal(&fault))?;
            &mut scratch.decoded[..]
        }
    };
    let body = scratch.reader.read(op, plain)?;
    let key = match incoming.headers.idempotency_key {
        Some(header) => header_key(header)?,
        None => body.key.ok_or_else(|| bad("the header Idempotency-Key is missing; every write needs a key of its own"))?,
    };
    let allowance = capability.permits(&Demand {
        accounts: body.from.as_slice(),
        to: body.to,
        asset: Some(body.asset),
        amount: Some(body.amount),
        key: Some(key),
        debits: op.debits(),
        ..demand
    });
    let wish = Wish { op, from: body.from, to: body.to, asset: body.asset, amount: body.amount };
    let allowance = allowance.and_then(|allowance| policy.permits(&wish, allowance));
    // What is refused is encoded for the audit stream alone.
    let counted = allowance.as_ref().copied().unwrap_or_default();
    let draft = Draft {
        op,
        from: body.from,
        to: body.to,
        asset: body.asset,
        amount: body.amount,
        nonce: body.nonce,
        key,
        memo: body.memo,
        corr,
        token: capability.token(),
        ceiling: counted.daily_ceiling.is_some(),
        budget: counted.budget.is_some(),
        daily_max: counted.daily_max.is_some(),
        ts: now,
    };
    scratch.entry.clear();
    draft.encode(&mut scratch.entry);
    scratch.understood = true;
    let allowance = allowance?;
    let (entry, rest) = Entry::parse_own(&scratch.entry);
    assert!(rest.is_empty());
    Ok(Call::Write { entry, allowance })
}

fn bad(message: &'static str) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

/// The scheme of a capability, with the space that ends it.
const BEARER: &[u8] = b"bearer ";

/// The token of `Authorization: Bearer <token>`; the scheme is compared without regard to case (RFC 9110, 11.1).
fn bearer(authorization: Option<&[u8]>) -> Result<&[u8], Refusal> {
    let unauthorized = || Refusal::unauthorized(Why::NoToken);
    let (scheme, token) = authorization.and_then(|value| value.split_at_checked(BEARER.len())).ok_or_else(unauthorized)?;
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case(BEARER) || token.is_empty() {
        return Err(unauthorized());
    }
    Ok(token)
}

/// Parameters of the media type do not matter: JSON is UTF-8 whatever they say (RFC 8259).
fn require_json(content_type: Option<&[u8]>) -> Result<(), Refusal> {
    const JSON: &[u8] = b"application/json";
    if content_type == Some(JSON) {
        return Ok(());
    }
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next()).unwrap_or_default();
    if media_type.trim_ascii().eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(bad("the body is not declared as JSON; send Content-Type: application/json"))
}

/// A key stands bare or as a structured-field string, whose quotes do not belong to it.
fn header_key(value: &[u8]) -> Result<Key<'_>, Refusal> {
    let bare = match value {
        [b'"', quoted @ .., b'"'] => quoted,
        bare => bare,
    };
    Key::of_bytes(bare).ok_or_else(|| bad("the header Idempotency-Key is not 1 to 64 characters of A-Z a-z 0-9 - _ : ."))
}

/// The account that stands percent-encoded in a place of the request.
fn account_of<'a>(value: &'a str, buffer: &'a mut Vec<u8>, place: &str) -> Result<Account<'a>, Refusal> {
    let account = decoded(value, buffer).and_then(Account::new);
    account.ok_or_else(|| {
        let message = format!("account: not 1 to {ACCOUNT_BYTES_MAX} characters of A-Z a-z 0-9 : / - _ in the {place}");
        Refusal::new(Code::BadRequest, message)
    })
}

fn limit_of(value: &str) -> Result<usize, Refusal> {
    let number = plain_number(value).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| (1..=PAGE_ENTRIES_MAX).contains(number)).ok_or_else(|| {
        let message = format!("limit: not a number from 1 to {PAGE_ENTRIES_MAX} in the query; leave it out for {PAGE_ENTRIES}");
        Refusal::new(Code::BadRequest, message)
    })
}

/// A cursor is the ledger position of the last entry that was seen: entries never move, so it stays good for ever.
fn cursor_of(value: &str) -> Result<Seq, Refusal> {
    let position = plain_number(value).filter(|position| *position > 0);
    position.map(Seq).ok_or_else(|| {
        bad("cursor: not one that this wallet gives out; send next_cursor of the page before, or leave it out to begin anew")
    })
}

/// A decimal number as this server writes it: without sign and leading zero.
fn plain_number(value: &str) -> Option<u64> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    value.parse().ok().filter(|_| plain)
}

#[cfg(test)]
#[path = "interpret_tests.rs"]
mod tests;
