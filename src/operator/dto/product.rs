//! The parser of this version, with a fresh key in memory and the policy that is shipped: what it makes of a request, without a server.
use crate::access::{mint, Keyring, MintRequest, Policy, TokenCache};
use crate::api::{self, Call, Incoming, IncomingHeaders, Method, Resolved, Route, Scratch};
use crate::control::SERVICE;
use crate::domain::{Code, Entry, Refusal, UnixMs};
use crate::http::{Encoding, Limits};
use crate::operator::exit::Failure;
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::Duration;

const POLICY: &str = include_str!("../../../configs/policy.json");
/// When the requests are read, Unix milliseconds. Nothing here depends on the day.
pub const NOW: UnixMs = UnixMs(1_800_000_000_000);
const TOKEN_TTL: Duration = Duration::from_secs(60);
/// Tokens that are remembered as verified.
const TOKENS_KEPT: usize = 64;

/// A parser of requests.
pub struct Product {
    keyring: Arc<Keyring>,
    tokens: TokenCache,
    policy: Policy,
    everything: String,
    scratch: Scratch,
}

/// A request as it is sent.
pub struct Sent<'s> {
    /// The method.
    pub method: Method,
    /// Path without query.
    pub path: &'s str,
    /// The query.
    pub query: Option<&'s str>,
    /// Header fields.
    pub headers: &'s [(String, String)],
    /// The body.
    pub body: &'s str,
}

impl Product {
    /// A parser that has seen nothing yet.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new() -> Result<Self, Failure> {
        let no_key = |fault: std::io::Error| Failure::internal(format!("no key could be made: {fault}"), "");
        let keyring = Arc::new(Keyring::ephemeral(NOW).map_err(no_key)?);
        let policy = Policy::parse(POLICY.as_bytes()).expect("the policy that is shipped is good");
        let tokens = TokenCache::new(keyring.clone(), SERVICE, TOKENS_KEPT);
        let mut product = Self { keyring, tokens, policy, everything: String::new(), scratch: Scratch::default() };
        product.everything = product.token(product.request()).expect("a token for everything can be minted");
        Ok(product)
    }

    /// The wish for a capability for everything.
    pub fn request(&self) -> MintRequest {
        MintRequest {
            subject: "dto".to_owned(),
            scopes: vec!["wallet:*".to_owned()],
            ttl: TOKEN_TTL,
            audience: SERVICE.to_owned(),
            ..MintRequest::default()
        }
    }

    /// A capability; nothing if the wish is none that can be minted.
    pub fn token(&self, request: MintRequest) -> Option<String> {
        mint(&self.keyring, &request, NOW).ok()
    }

    /// What a request becomes, in the form of the vectors, and its entry if it is a write.
    pub fn read(&mut self, sent: &Sent<'_>) -> Result<(Value, Option<Vec<u8>>), Refusal> {
        let route = match api::resolve(sent.method, sent.path) {
            Resolved::Handler(route) if route.scopes().is_some() => route,
            Resolved::Handler(_) | Resolved::Options(..) => return Ok((Value::Null, None)),
            Resolved::Refused(_, _, refusal) => return Err(refusal),
        };
        let mut headers = IncomingHeaders::default();
        sent.headers.iter().for_each(|(name, value)| headers.observe(name.as_bytes(), value.as_bytes()));
        let mut body = sent.body.as_bytes().to_vec();
        let incoming = Incoming {
            route,
            path: sent.path,
            query: sent.query,
            headers,
            encoding: Ok(Encoding::Identity),
            limits: &Limits::default(),
            body: &mut body,
        };
        let call = api::interpret(incoming, &mut self.tokens, &self.policy, NOW, "corr", &mut self.scratch)?;
        Ok(match call {
            Call::Write { entry, .. } => (json!({"entry": fields(&entry)}), Some(entry.bytes().to_vec())),
            Call::Balance { account, asset } => {
                (json!({"balance": {"account": account.as_str(), "asset": asset.as_str()}}), None)
            }
            Call::Seq { account } => (json!({"seq": {"account": account.as_str()}}), None),
            Call::Tx { id, .. } => (json!({"tx": {"txid": id.to_string()}}), None),
            Call::Totals { asset } => (json!({"totals": {"asset": asset.as_str()}}), None),
            Call::Entries { account, before, limit, .. } => {
                let before = before.map(|before| before.0);
                (json!({"entries": {"account": account.as_str(), "before": before, "limit": limit}}), None)
            }
            Call::History { .. } | Call::SignedRoot => (json!({"history": route.as_str()}), None),
        })
    }

    /// Whether a request with every authority has the shape that its route wants, whatever accounts and policy say of it.
    pub fn accepts(&mut self, method: Method, path: &str, query: Option<&str>, body: &str) -> Result<(), Refusal> {
        let headers = [
            ("Authorization", format!("Bearer {}", self.everything)),
            ("Content-Type", "application/json".to_owned()),
            ("Idempotency-Key", "k".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        match self.read(&Sent { method, path, query, headers: &headers, body }) {
            Err(refusal) if matches!(refusal.code, Code::BadRequest | Code::NotFound | Code::MethodNotAllowed) => Err(refusal),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// An entry that a request becomes, encoded.
    ///
    /// # Panics
    /// If it is not a write that is well formed: our own mistake.
    pub fn entry(&mut self, path: &str, body: &Value) -> Vec<u8> {
        let authorization = ("Authorization".to_owned(), format!("Bearer {}", self.everything));
        let headers = [authorization, ("Content-Type".into(), "application/json".into()), ("Idempotency-Key".into(), "k".into())];
        let sent = Sent { method: Method::Post, path, query: None, headers: &headers, body: &body.to_string() };
        let (_, entry) = self.read(&sent).expect("a write that is well formed");
        entry.expect("the route is a write")
    }
}

/// The route of a path of a document, with an example in place of each of its parameters.
pub fn route(path: &str) -> Route {
    Route::of_path(&concrete(path, "", ""))
}

/// A path with a value in place of one parameter, and examples in place of the others.
pub fn concrete(path: &str, parameter: &str, value: &str) -> String {
    let examples = [("txid", "tx_00000000000J00000000000001"), ("account", "acct:a"), ("asset", "roc")];
    examples.iter().fold(path.to_owned(), |path, (name, example)| {
        path.replace(&format!("{{{name}}}"), if *name == parameter { value } else { example })
    })
}

fn fields(entry: &Entry<'_>) -> Value {
    json!({
        "op": entry.op().as_str(),
        "from": entry.from().map(crate::domain::Account::as_str),
        "to": entry.to().map(crate::domain::Account::as_str),
        "asset": entry.asset().as_str(),
        "amount_minor": entry.amount().to_string(),
        "nonce": entry.nonce().map(|nonce| nonce.0),
        "idem": entry.key().as_str(),
        "memo": entry.memo(),
    })
}
