//! What clients want: the requests that are sent again until they are answered, and the amounts in them.
use crate::edge::Sent;
use crate::grants::{grants, Demand, ANYTHING};
use crate::model::ASSETS;
use crate::rng::Rng;
use crate::world::World;
use svc_wallet::domain::limits::ISSUED_PER_CORE_MAX;
use svc_wallet::domain::{Account, Code, Entry, Op};

pub const ESCROWS: u64 = 3;

/// What a client wants, to be sent again with the same key until it is answered.
pub struct Wish {
    pub op: Op,
    pub from: Option<String>,
    pub to: Option<String>,
    /// Its place in [`ASSETS`].
    pub asset: usize,
    pub amount: u128,
    pub nonce: Option<u64>,
    pub key: String,
    /// The place of its capability among all.
    pub grant: usize,
    /// When it was first sent and when a receipt first came, on the clients' clock.
    pub sent: Option<u64>,
    pub receipt: Option<u64>,
    pub answered: bool,
}

/// What a client writes into its request; some write nothing.
pub fn memo(wish: usize) -> Option<String> {
    (wish % 3 == 0).then(|| format!("memo {wish}"))
}

/// An amount at an edge: of 128 bits, of what may be issued, or of what an account has.
pub fn extreme(world: &World, from: Option<&str>, asset: usize, rng: &mut Rng) -> u128 {
    let (less, edge) = (u128::from(rng.below(3)), rng.below(4));
    let there = from.map_or_else(
        || ISSUED_PER_CORE_MAX.saturating_sub(world.model.issued(ASSETS[asset])),
        |from| world.model.balance(from, ASSETS[asset]),
    );
    match edge {
        0 => u128::MAX - less,
        1 => ISSUED_PER_CORE_MAX / 2 + less,
        2 => there.saturating_add(1),
        _ => there.saturating_sub(less).max(1),
    }
}

/// What the durable entries leave of the budget of a capability, if that is anything.
pub fn left_of_budget(world: &World, grant: usize) -> Option<u128> {
    let grant = &grants()[grant];
    let spent = world.model.budgets.get(&grant.id).copied().unwrap_or(0);
    grant.budget()?.checked_sub(spent).filter(|left| *left > 0)
}

/// Most clients may do anything; some have a capability for less, or one that is none.
pub fn some_grant(world: &World, rng: &mut Rng) -> usize {
    if rng.percent(world.swarm.grant_percent) {
        return *rng.pick(&world.swarm.grants);
    }
    ANYTHING
}

pub fn escrow(number: u64) -> String {
    format!("escrow:{number}")
}

impl Wish {
    pub fn owner(&self) -> &str {
        self.from.as_deref().or(self.to.as_deref()).expect("every operation has an account")
    }

    /// What its capability has to allow.
    pub fn demand(&self) -> Demand<'_> {
        Demand {
            op: Some(self.op),
            account: self.from.as_deref(),
            to: self.to.as_deref(),
            asset: Some(ASSETS[self.asset]),
            amount: self.amount,
            key: Some(&self.key),
        }
    }

    /// The request as it is sent: clients spell it in different ways.
    pub fn request(&self, index: usize) -> Sent {
        let path = match self.op {
            Op::Transfer if index % 3 == 0 => "/wallet/spend".to_owned(),
            op => format!("/v1/{}", op.as_str()),
        };
        let (asset, amount) = (ASSETS[self.asset], self.amount);
        let mut body = format!(r#"{{"asset":"{asset}","amount_minor":"{amount}""#);
        let mut add = |name: &str, value: &str| body.push_str(&format!(r#","{name}":"{value}""#));
        self.from.iter().for_each(|from| add("from", from));
        self.to.iter().for_each(|to| add("to", to));
        memo(index).iter().for_each(|memo| add("memo", memo));
        let in_body = index % 2 == 0;
        if in_body {
            add("idempotency_key", &self.key);
        }
        if let Some(nonce) = self.nonce {
            body.push_str(&format!(r#","{}":{nonce}"#, if index % 5 == 0 { "seq" } else { "nonce" }));
        }
        body.push('}');
        Sent { path, query: None, key: (!in_body).then(|| self.key.clone()), body }
    }

    /// Whether the entry is what was wished.
    pub fn is(&self, entry: &Entry<'_>) -> bool {
        entry.op() == self.op
            && entry.from().map(Account::as_str) == self.from.as_deref()
            && entry.to().map(Account::as_str) == self.to.as_deref()
            && entry.asset().as_str() == ASSETS[self.asset]
            && entry.amount().minor_units() == self.amount
            && entry.nonce().map(|nonce| nonce.0) == self.nonce
            && entry.key().as_str() == self.key
    }
}

pub fn refusal_name(code: Code) -> &'static str {
    match code {
        Code::Forbidden => "refusal: FORBIDDEN",
        Code::LimitsExceeded => "refusal: LIMITS_EXCEEDED",
        Code::InsufficientFunds => "refusal: INSUFFICIENT_FUNDS",
        Code::NonceConflict => "refusal: NONCE_CONFLICT",
        Code::IdempotencyConflict => "refusal: IDEMPOTENCY_CONFLICT",
        Code::Busy => "refusal: BUSY",
        Code::RetryLater => "refusal: RETRY_LATER",
        Code::UpstreamUnavailable => "refusal: UPSTREAM_UNAVAILABLE",
        Code::InternalError => "refusal: INTERNAL_ERROR",
        Code::BadRequest | Code::Unauthorized | Code::NotFound | Code::MethodNotAllowed => "refusal: of the edge",
    }
}
