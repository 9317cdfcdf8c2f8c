//! Making capabilities with the active key of the keyring, and narrowing those that one holds, which needs no key.
//!
//! What is asked for is checked before it is signed, with the same reader that later verifies it: no token is made that
//! would be refused as not understood.
use super::caveat::{rfc3339, Caveat};
use super::guarded::wiped;
use super::identifier::{subject_well_formed, Identifier, SUBJECT_BYTES_MAX};
use super::keyring::Keyring;
use super::scope::{Scope, ScopeSet};
use super::token::{parse, BASE64, CAVEATS_MAX, TOKEN_BYTES_MAX};
use crate::domain::{TokenId, UnixMs};
use base64::Engine;
use macaroon::{Format, Macaroon};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the new capability allows. Empty lists and `None` do not limit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// For whom: 1 to 128 bytes without control characters.
    pub subject: String,
    /// Scopes: `wallet:<name>`, bare names, or `wallet:*`; at least one.
    pub scopes: Vec<String>,
    /// How long it is valid; at least one second.
    pub ttl: Duration,
    /// From when on it is valid, RFC 3339; from now on if there is none.
    pub not_before: Option<String>,
    /// The service that it is for, `svc-wallet`.
    pub audience: String,
    /// Accounts that may be debited or read; each may end with `*`.
    pub accounts: Vec<String>,
    /// Accounts that may be credited; each may end with `*`.
    pub to: Vec<String>,
    /// Assets.
    pub assets: Vec<String>,
    /// Most in one request, in minor units.
    pub max_amount: Option<u128>,
    /// Most debited in one UTC day, in minor units.
    pub daily_ceiling: Option<u128>,
    /// Most debited in all, ever, in minor units of all assets added up.
    pub budget: Option<u128>,
    /// Idempotency keys; may end with `*`.
    pub idem: Option<String>,
}

/// Why no capability was minted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintFault {
    /// A field of the request cannot become a caveat.
    Invalid {
        /// The field.
        field: &'static str,
        /// What it has to be.
        wanted: String,
    },
    /// With all its caveats the token would be longer than a verifier reads.
    TooLong,
    /// What is to be narrowed is no token in the form of this service.
    NoToken,
    /// Nothing was given by which it could be narrowed.
    Nothing,
    /// A caveat that this service would not understand, so that the token would be refused with everything.
    NotUnderstood {
        /// As it was given.
        caveat: String,
    },
    /// The system gave no random bytes.
    NoRandomness,
}

impl std::fmt::Display for MintFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid { field, wanted } => write!(f, "no capability made: {field} has to be {wanted}"),
            Self::TooLong => {
                write!(
                    f,
                    "no capability made: it would have over {TOKEN_BYTES_MAX} bytes or {CAVEATS_MAX} caveats; list fewer names"
                )
            }
            Self::NoToken => f.write_str("no capability made: what was given to be narrowed is no capability of this service"),
            Self::Nothing => f.write_str("no capability made: nothing was given that narrows it"),
            Self::NotUnderstood { caveat } => {
                write!(
                    f,
                    "no capability made: this service does not understand the caveat {caveat:?}, and would refuse everything"
                )
            }
            Self::NoRandomness => f.write_str("no capability made: the system gives no random bytes; try again"),
        }
    }
}

impl std::error::Error for MintFault {}

/// Mints a token with a fresh id, issued `now`, and returns its text: version 2, URL-safe base64 without padding.
pub fn mint(keyring: &Keyring, request: &MintRequest, now: UnixMs) -> Result<String, MintFault> {
    let caveats = caveats(request, now)?;
    let mut token = TokenId::default();
    getrandom::fill(&mut token.0).map_err(|_| MintFault::NoRandomness)?;
    let key_id = keyring.active_id();
    let identifier = Identifier { token, issued: now, key_id, subject: &request.subject }.encode();
    let root = keyring.root(key_id).expect("the active key is on the keyring");
    // What it is before the last caveat is a wider token.
    wiped(|| {
        let macaroon = Macaroon::create(None, root, identifier.into()).expect("the identifier is not empty");
        narrowed(macaroon, caveats)
    })
}

/// Narrows a token by what a request limits and by further caveats, each written as `name = value`. Of the request the subject does not
/// matter, and what is empty or zero limits nothing. The signature of the token is not checked: only the server can.
pub fn attenuate(token: &str, request: &MintRequest, further: &[String], now: UnixMs) -> Result<String, MintFault> {
    let macaroon = parse(token).filter(|macaroon| Identifier::parse(&macaroon.identifier().0).is_some());
    let macaroon = macaroon.ok_or(MintFault::NoToken)?;
    let mut caveats = limits(request, now)?;
    for caveat in further {
        let caveat = caveat.trim();
        if Caveat::parse(caveat.as_bytes()).is_none() || caveat.contains(char::is_control) {
            return Err(MintFault::NotUnderstood { caveat: caveat.to_owned() });
        }
        caveats.push(caveat.to_owned());
    }
    if caveats.is_empty() {
        return Err(MintFault::Nothing);
    }
    narrowed(macaroon, caveats)
}

fn narrowed(mut macaroon: Macaroon, caveats: Vec<String>) -> Result<String, MintFault> {
    if macaroon.caveats().len() + caveats.len() > CAVEATS_MAX {
        return Err(MintFault::TooLong);
    }
    for caveat in caveats {
        macaroon.add_first_party_caveat(caveat.into());
    }
    let text = macaroon.serialize(Format::V2).expect("the binary form has no limit that was not checked");
    let text = text.trim_end_matches('=').to_string();
    if text.len() > TOKEN_BYTES_MAX {
        return Err(MintFault::TooLong);
    }
    assert!(BASE64.decode(&text).is_ok());
    Ok(text)
}

fn caveats(request: &MintRequest, now: UnixMs) -> Result<Vec<String>, MintFault> {
    if !subject_well_formed(&request.subject) {
        return Err(invalid("subject", format!("1 to {SUBJECT_BYTES_MAX} bytes without control characters")));
    }
    if request.scopes.is_empty() {
        return Err(bad_scopes());
    }
    if request.ttl.is_zero() {
        return Err(short_ttl());
    }
    if request.audience.is_empty() {
        return Err(invalid("audience", "the name of a service".to_string()));
    }
    limits(request, now)
}

/// What the request limits; what is empty or zero does not.
fn limits(request: &MintRequest, now: UnixMs) -> Result<Vec<String>, MintFault> {
    let mut caveats = Vec::new();
    if !request.ttl.is_zero() {
        if request.ttl < Duration::from_secs(1) {
            return Err(short_ttl());
        }
        let expires = u64::try_from(request.ttl.as_millis()).ok().and_then(|ttl| now.0.checked_add(ttl));
        let expires = expires.and_then(|expires| rfc3339(UnixMs(expires)));
        let expires = expires.ok_or_else(|| invalid("ttl", "so long that the year has four digits".to_string()))?;
        caveats.push(format!("exp = {expires}"));
    }
    if request.scopes.iter().any(|scope| ScopeSet::named(scope).is_none()) {
        return Err(bad_scopes());
    }
    if !request.scopes.is_empty() {
        caveats.push(format!("scope = {}", request.scopes.join(",")));
    }
    let mut add = |field, name: &str, value: Option<String>, wanted: &str| {
        let Some(value) = value else { return Ok(()) };
        let caveat = format!("{name} = {value}");
        if Caveat::parse(caveat.as_bytes()).is_none() || value.contains(char::is_control) {
            return Err(invalid(field, wanted.to_string()));
        }
        caveats.push(caveat);
        Ok(())
    };
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    let names = "names, or beginnings of names followed by one *";
    let audience = (!request.audience.is_empty()).then(|| request.audience.clone());
    add("audience", "aud", audience, "the name of a service")?;
    add("not_before", "nbf", request.not_before.clone(), "an RFC 3339 time such as 2027-01-15T08:00:00Z")?;
    add("accounts", "account", list(&request.accounts), names)?;
    add("to", "to", list(&request.to), names)?;
    add("assets", "asset", list(&request.assets), "names of assets")?;
    add("max_amount", "max_amount", request.max_amount.map(|units| units.to_string()), "a number")?;
    add("daily_ceiling", "daily_ceiling", request.daily_ceiling.map(|units| units.to_string()), "a number")?;
    add("budget", "budget", request.budget.map(|units| units.to_string()), "a number")?;
    add("idem", "idem", request.idem.clone(), names)?;
    Ok(caveats)
}

fn invalid(field: &'static str, wanted: String) -> MintFault {
    MintFault::Invalid { field, wanted }
}

fn bad_scopes() -> MintFault {
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    invalid("scopes", format!("a list of wallet:<name>, with a name of {names}, or wallet:*"))
}

fn short_ttl() -> MintFault {
    invalid("ttl", "at least 1s".to_string())
}
