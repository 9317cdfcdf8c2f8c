//! Capabilities of the simulated clients, and a model of what they allow (I-4) that knows nothing of the product's readers: it is held
//! against the edge at every request, and against every entry that became durable.
//!
//! They are made once, from fixed ids, with the format and the key of the keyring but without the product's minting, whose ids are
//! random: entries carry the id, and one seed is one history. Good ones are narrowed, out of time, for another service, in need of a
//! discharge; others only look like capabilities.
use crate::model::{BUDGET, CEILING};
use crate::rng::Rng;
use crate::world::BEGINNING;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::Engine as _;
use macaroon::{Format, Macaroon, MacaroonKey};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, OnceLock};
use svc_wallet::access::Keyring;
use svc_wallet::domain::{Account, Code, Entry, Op, TokenId, UnixMs};
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

pub const AUDIENCE: &str = "svc-wallet";
const KEY_ID: &str = "k-sim";
const SECRET: [u8; 32] = [7; 32];
const OTHER_SECRET: [u8; 32] = [8; 32];
const THIRD_SECRET: [u8; 32] = [9; 32];

/// The first capabilities: everything, everything under the daily ceiling, and the same under a budget, of which the last two are
/// narrowed from the one before them, the last one by the ceiling as well.
pub const ANYTHING: usize = 0;
pub const UNDER_A_CEILING: usize = 1;
pub const UNDER_BUDGETS: [usize; 3] = [2, 3, 4];

/// Token ids beside those; each has a capability, a narrower one, and one that only looks like one.
const FAMILIES: usize = 24;

/// What a capability is limited by, of the token and of its discharge.
#[derive(Clone, Debug)]
enum Caveat {
    Audience(&'static str),
    Before(u64),
    From(u64),
    Scopes(Vec<&'static str>),
    Accounts(Vec<&'static str>),
    To(Vec<&'static str>),
    Assets(Vec<&'static str>),
    Most(u128),
    Ceiling(u128),
    Budget(u128),
    Keys(Vec<&'static str>),
    Strange(&'static str),
}

/// What a client sends to show what it may do.
#[derive(Debug)]
pub struct Grant {
    pub id: TokenId,
    pub authorization: Option<String>,
    pub discharge: Option<String>,
    /// How it has to fail whatever is asked; nothing if it is one of ours, whole and with its discharge.
    pub false_how: Option<&'static str>,
    caveats: Vec<Caveat>,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// `None` for reads.
    pub op: Option<Op>,
    /// The account that is debited or read.
    pub account: Option<&'a str>,
    pub to: Option<&'a str>,
    pub asset: Option<&'a str>,
    pub amount: u128,
    pub key: Option<&'a str>,
}

impl<'a> Demand<'a> {
    pub fn of(entry: &'a Entry<'a>) -> Self {
        Self {
            op: Some(entry.op()),
            account: entry.from().map(|from| from.as_str()),
            to: entry.to().map(|to: Account<'a>| to.as_str()),
            asset: Some(entry.asset().as_str()),
            amount: entry.amount().minor_units(),
            key: Some(entry.key().as_str()),
        }
    }

    fn debits(&self) -> bool {
        self.op.is_some() && self.account.is_some()
    }
}

/// By which sums a request that is allowed is limited as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub ceiling: bool,
    pub budget: Option<u128>,
}

impl Grant {
    /// Whether this is allowed now: what it is counted under, or the code with which it has to be refused.
    pub fn allows(&self, demand: &Demand<'_>, now: UnixMs) -> Result<Counted, Code> {
        let some = |fails: &dyn Fn(&Caveat) -> bool| self.caveats.iter().any(fails);
        let out_of_time = |caveat: &Caveat| match caveat {
            Caveat::Audience(name) => *name != AUDIENCE,
            Caveat::Before(end) => now.0 >= *end,
            Caveat::From(begin) => now.0 < *begin,
            _ => false,
        };
        if self.false_how.is_some() || some(&out_of_time) {
            return Err(Code::Unauthorized);
        }
        if some(&|caveat| matches!(caveat, Caveat::Strange(_)) || !caveat.covers(demand)) {
            return Err(Code::Forbidden);
        }
        if demand.op.is_some() && some(&|caveat| matches!(caveat, Caveat::Most(most) if demand.amount > *most)) {
            return Err(Code::LimitsExceeded);
        }
        if !demand.debits() {
            return Ok(Counted::default());
        }
        Ok(Counted { ceiling: self.has_ceiling(), budget: self.budget() })
    }
}

impl Grant {
    pub fn has_ceiling(&self) -> bool {
        self.caveats.iter().any(|caveat| matches!(caveat, Caveat::Ceiling(_)))
    }

    /// The least of its budgets.
    pub fn budget(&self) -> Option<u128> {
        let budget = |caveat: &Caveat| if let Caveat::Budget(budget) = caveat { Some(*budget) } else { None };
        self.caveats.iter().filter_map(budget).min()
    }
}

/// The most that any capability of this id may debit under a budget.
pub fn budget_max(token: TokenId) -> u128 {
    grants().iter().filter(|grant| grant.id == token).filter_map(Grant::budget).max().unwrap_or(0)
}

/// Whether some capability allowed this entry when it was made.
pub fn allowed(entry: &Entry<'_>) -> bool {
    let demand = Demand::of(entry);
    let ours = grants().iter().filter(|grant| grant.id == entry.token());
    let marked = (entry.counts_against_ceiling(), entry.counts_against_budget());
    let counted = |counted: Counted| (counted.ceiling, counted.budget.is_some());
    ours.map(|grant| grant.allows(&demand, entry.ts())).any(|told| told.map(counted) == Ok(marked))
}

impl Caveat {
    /// Whether it lets this through, but for time, amount and sums.
    fn covers(&self, demand: &Demand<'_>) -> bool {
        let matches = |patterns: &[&str], name: &str| {
            patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => *pattern == name,
            })
        };
        match self {
            Caveat::Scopes(scopes) => scopes.iter().any(|scope| {
                let name = scope.strip_prefix("wallet:").unwrap_or(scope);
                *scope == "wallet:*"
                    || match demand.op {
                        None => name == "read",
                        Some(Op::Transfer) => name == "transfer" || name == "spend",
                        Some(op @ (Op::Hold | Op::Capture | Op::Release)) => name == "transfer" || name == op.as_str(),
                        Some(op @ (Op::Issue | Op::Burn)) => name == op.as_str(),
                    }
            }),
            Caveat::Accounts(patterns) => demand.account.map_or(true, |account| matches(patterns, account)),
            Caveat::To(patterns) => demand.to.map_or(!demand.debits(), |to| matches(patterns, to)),
            Caveat::Assets(assets) => demand.asset.map_or(true, |asset| assets.contains(&asset)),
            Caveat::Keys(patterns) => demand.key.map_or(true, |key| matches(patterns, key)),
            Caveat::Audience(_) | Caveat::Before(_) | Caveat::From(_) | Caveat::Most(_) => true,
            Caveat::Ceiling(_) | Caveat::Budget(_) | Caveat::Strange(_) => true,
        }
    }

    fn text(&self) -> String {
        let moment = |ms: &u64| {
            let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(*ms) * 1_000_000).unwrap();
            moment.format(&Rfc3339).unwrap()
        };
        match self {
            Caveat::Audience(name) => format!("aud = {name}"),
            Caveat::Before(end) => format!("exp = {}", moment(end)),
            Caveat::From(begin) => format!("nbf = {}", moment(begin)),
            Caveat::Scopes(scopes) => format!("scope = {}", scopes.join(",")),
            Caveat::Accounts(patterns) => format!("account={}", patterns.join(", ")),
            Caveat::To(patterns) => format!("to = {}", patterns.join(",")),
            Caveat::Assets(assets) => format!("asset = {}", assets.join(",")),
            Caveat::Most(most) => format!("max_amount = {most}"),
            Caveat::Ceiling(ceiling) => format!("daily_ceiling = {ceiling}"),
            Caveat::Budget(budget) => format!("budget = {budget}"),
            Caveat::Keys(patterns) => format!("idem = {}", patterns.join(",")),
            Caveat::Strange(text) => (*text).into(),
        }
    }

    fn some(rng: &mut Rng) -> Self {
        const SCOPES: [&str; 9] = [
            "wallet:*",
            "wallet:transfer",
            "spend",
            "wallet:issue",
            "wallet:burn",
            "hold",
            "wallet:capture",
            "wallet:release",
            "wallet:read",
        ];
        const ACCOUNTS: [&str; 6] = ["account:*", "escrow:*", "account:0", "account:1", "escrow:1", "account:1*"];
        match rng.below(20) {
            0..=3 => Caveat::Scopes(some_of(&SCOPES, rng)),
            4..=6 => Caveat::Accounts(some_of(&ACCOUNTS, rng)),
            7..=9 => Caveat::To(some_of(&ACCOUNTS, rng)),
            10..=11 => Caveat::Assets(some_of(&["roc", "usd", "tok", "ron"], rng)),
            12..=13 => Caveat::Most(*rng.pick(&[1, 5, 40, 1000])),
            14 => Caveat::Ceiling(CEILING),
            19 => Caveat::Budget(BUDGET),
            15 => Caveat::Keys(some_of(&["k*", "k1*", "k2", "m*"], rng)),
            16..=17 => Caveat::Before(BEGINNING + *rng.pick(&[20, 200, 1000, 7_200_000])),
            _ => Caveat::From(BEGINNING + *rng.pick(&[20, 100, 200, 3_600_000])),
        }
    }
}

fn some_of(from: &[&'static str], rng: &mut Rng) -> Vec<&'static str> {
    (0..1 + rng.below(3)).map(|_| *rng.pick(from)).collect()
}

/// The keyring of every simulated server.
pub fn keyring() -> Arc<Keyring> {
    static KEYRING: OnceLock<Arc<Keyring>> = OnceLock::new();
    let open = || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyring.json");
        let secret = STANDARD.encode(SECRET);
        let text = format!(r#"{{"version": 1, "active": "{KEY_ID}", "keys": [{{"id": "{KEY_ID}", "secret": "{secret}"}}]}}"#);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Arc::new(Keyring::open(&path).unwrap())
    };
    Arc::clone(KEYRING.get_or_init(open))
}

/// All capabilities that there are, the same ones in every history.
pub fn grants() -> &'static [Grant] {
    static GRANTS: OnceLock<Vec<Grant>> = OnceLock::new();
    GRANTS.get_or_init(|| {
        // Starts the cryptography as well.
        keyring();
        let mut rng = Rng::new(0x6a09_e667);
        let mut id = move || TokenId(std::array::from_fn(|_| rng.next() as u8));
        let far = Caveat::Before(BEGINNING + 400 * 86_400_000);
        let ceilings = [Caveat::Ceiling(3 * CEILING), Caveat::Ceiling(CEILING), Caveat::Ceiling(4 * CEILING)];
        let mut grants = vec![
            Grant::of(id(), vec![Caveat::Audience(AUDIENCE), far.clone()], Vec::new()),
            Grant::of(id(), [vec![far.clone()], ceilings.to_vec()].concat(), Vec::new()),
        ];
        let (id_of_budgets, mut caveats) = (id(), vec![far.clone()]);
        for more in [Caveat::Budget(2 * BUDGET), Caveat::Budget(BUDGET), Caveat::Ceiling(CEILING)] {
            caveats.push(more);
            grants.push(Grant::of(id_of_budgets, caveats.clone(), Vec::new()));
        }
        for caveat in [Caveat::Strange("colour = blue"), Caveat::Strange("max_amount = 1e3"), Caveat::Audience("storage")] {
            grants.push(Grant::of(id(), vec![far.clone(), caveat.clone()], Vec::new()));
            grants.push(Grant::of(id(), vec![far.clone()], vec![caveat]));
        }
        let mut rng = Rng::new(0xbb67_ae85);
        for family in 0..FAMILIES {
            let id = id();
            let mut caveats: Vec<_> = (0..rng.below(3)).map(|_| Caveat::some(&mut rng)).collect();
            grants.push(Grant::of(id, caveats.clone(), Vec::new()));
            let (more, of_third) = (Caveat::some(&mut rng), rng.percent(25));
            let discharged = if of_third { vec![more.clone()] } else { Vec::new() };
            if !of_third {
                caveats.push(more);
            }
            let narrow = Grant::of(id, caveats.clone(), discharged);
            let broad = Grant::of(id, caveats[..caveats.len().saturating_sub(1)].to_vec(), Vec::new());
            grants.push(Grant::false_one(family, &narrow, &broad));
            grants.push(narrow);
        }
        grants
    })
}

fn create(id: TokenId, key_id: &str, secret: &[u8; 32], caveats: &[Caveat]) -> Macaroon {
    // As `src/access/identifier.rs` draws it.
    let mut identifier = vec![1];
    identifier.extend_from_slice(&id.0);
    identifier.extend_from_slice(&BEGINNING.to_le_bytes());
    identifier.push(key_id.len() as u8);
    identifier.extend_from_slice(key_id.as_bytes());
    identifier.extend_from_slice(b"client");
    let mut macaroon = Macaroon::create(None, &MacaroonKey::from(secret), identifier.into()).unwrap();
    caveats.iter().for_each(|caveat| macaroon.add_first_party_caveat(caveat.text().into()));
    macaroon
}

fn text(macaroon: &Macaroon) -> String {
    macaroon.serialize(Format::V2).unwrap().trim_end_matches('=').into()
}

fn bearer(token: &str) -> Option<String> {
    Some(format!("Bearer {token}"))
}

impl Grant {
    /// A good one; with caveats of a third party if there are any, and its discharge.
    fn of(id: TokenId, caveats: Vec<Caveat>, discharged: Vec<Caveat>) -> Self {
        let mut root = create(id, KEY_ID, &SECRET, &caveats);
        let third = MacaroonKey::from(&THIRD_SECRET);
        let discharge = (!discharged.is_empty()).then(|| {
            root.add_third_party_caveat("https://third", &third, "check".into());
            let mut discharge = Macaroon::create(Some("https://third".into()), &third, "check".into()).unwrap();
            discharged.iter().for_each(|caveat| discharge.add_first_party_caveat(caveat.text().into()));
            root.bind(&mut discharge);
            text(&discharge)
        });
        let authorization = bearer(&text(&root));
        Self { id, authorization, discharge, false_how: None, caveats: [caveats, discharged].concat() }
    }

    /// One that must never be believed, made of a good one and the one that this was narrowed from.
    fn false_one(number: usize, narrow: &Grant, broad: &Grant) -> Self {
        let token = |grant: &Grant| grant.authorization.as_deref().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let binary = |grant: &Grant| URL_SAFE_NO_PAD.decode(token(grant)).unwrap();
        let signature_at = |bytes: &[u8]| bytes.len() - 32;
        let (authorization, false_how) = match number % 6 {
            0 => (None, "none"),
            1 => (bearer(&text(&create(narrow.id, KEY_ID, &OTHER_SECRET, &[]))), "of another key"),
            2 => (bearer(&text(&create(narrow.id, "k-gone", &SECRET, &[]))), "of a key that is gone"),
            3 => {
                let mut bytes = binary(narrow);
                let last = bytes.len() - 1 - number % 32;
                bytes[last] ^= 1;
                (bearer(&URL_SAFE_NO_PAD.encode(bytes)), "with another signature")
            }
            4 => {
                // A caveat is taken away, and the signature over it stays.
                let (from, mut bytes) = (binary(narrow), binary(broad));
                let at = signature_at(&bytes);
                bytes[at..].copy_from_slice(&from[signature_at(&from)..]);
                (bearer(&URL_SAFE_NO_PAD.encode(bytes)), "with a caveat less")
            }
            _ => {
                let mut root = create(narrow.id, KEY_ID, &SECRET, &[]);
                root.add_third_party_caveat("https://third", &MacaroonKey::from(&THIRD_SECRET), "check".into());
                (bearer(&text(&root)), "without its discharge")
            }
        };
        // With these ids nothing but what the good ones allow may come about.
        Self { id: narrow.id, authorization, discharge: None, false_how: Some(false_how), caveats: Vec::new() }
    }
}

/// What is counted of a demand that a capability does not allow.
pub fn refusal_name(grant: &Grant, code: Code) -> &'static str {
    match (grant.false_how, code) {
        (Some("none"), _) => "capability: none",
        (Some("of another key"), _) => "capability: of another key",
        (Some("of a key that is gone"), _) => "capability: of a key that is gone",
        (Some("with another signature"), _) => "capability: with another signature",
        (Some("with a caveat less"), _) => "capability: with a caveat less",
        (Some(_), _) => "capability: without its discharge",
        (None, Code::Unauthorized) => "capability: out of time or for another service",
        (None, Code::Forbidden) if grant.caveats.iter().any(|caveat| matches!(caveat, Caveat::Strange(_))) => {
            "capability: with a caveat that nobody understands"
        }
        (None, Code::Forbidden) => "capability: too narrow",
        (None, _) => "capability: for less at once",
    }
}
