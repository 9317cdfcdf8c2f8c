//! What clients want: the requests that are sent again until they are answered, and the amounts in them.
use crate::model::ASSETS;
use crate::rng::Rng;
use crate::world::World;
use svc_wallet::domain::limits::ISSUED_PER_CORE_MAX;
use svc_wallet::domain::{Account, Amount, Asset, Code, Draft, Entry, Key, Nonce, Op, TokenId};

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
    pub ceiling: bool,
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

pub fn escrow(number: u64) -> String {
    format!("escrow:{number}")
}

impl Wish {
    pub fn owner(&self) -> &str {
        self.from.as_deref().or(self.to.as_deref()).expect("every operation has an account")
    }

    /// The request as the edge hands it on.
    pub fn request(&self, index: usize, world: &World) -> Vec<u8> {
        let mut bytes = Vec::new();
        let memo = memo(index);
        let draft = Draft {
            op: self.op,
            from: self.from.as_deref().map(|from| Account::new(from).unwrap()),
            to: self.to.as_deref().map(|to| Account::new(to).unwrap()),
            asset: Asset::new(ASSETS[self.asset]).unwrap(),
            amount: Amount::new(self.amount).unwrap(),
            nonce: self.nonce.map(Nonce),
            key: Key::new(&self.key).unwrap(),
            memo: memo.as_deref(),
            corr: "sim",
            token: TokenId([1; 16]),
            ceiling: self.ceiling,
            ts: world.now,
        };
        draft.encode(&mut bytes);
        bytes
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
