//! Making capabilities with the active key of the keyring.
//!
//! What is asked for is checked before it is signed, with the same reader that later verifies it: no token is minted that
//! would be refused as not understood.
use super::caveat::{rfc3339, Caveat};
use super::identifier::{subject_well_formed, Identifier, SUBJECT_BYTES_MAX};
use super::keyring::Keyring;
use super::scope::{Scope, ScopeSet};
use super::token::{BASE64, TOKEN_BYTES_MAX};
use crate::domain::{TokenId, UnixMs};
use base64::Engine;
use macaroon::{Format, Macaroon};
use std::time::Duration;

/// What the new capability allows. Empty lists and `None` do not limit.
#[derive(Clone, Debug, Default)]
pub struct MintRequest {
    /// For whom: 1 to 128 bytes without control characters.
    pub subject: String,
    /// Scopes: `wallet:<name>`, bare names, or `wallet:*`; at least one.
    pub scopes: Vec<String>,
    /// How long it is valid; at least one second.
    pub ttl: Duration,
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
    /// The system gave no random bytes.
    NoRandomness,
}

impl std::fmt::Display for MintFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid { field, wanted } => write!(f, "no capability minted: {field} has to be {wanted}"),
            Self::TooLong => write!(f, "no capability minted: it would be over {TOKEN_BYTES_MAX} bytes; list fewer names"),
            Self::NoRandomness => f.write_str("no capability minted: the system gives no random bytes; try again"),
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
    let mut macaroon = Macaroon::create(None, root, identifier.into()).expect("the identifier is not empty");
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
    if request.scopes.is_empty() || request.scopes.iter().any(|scope| ScopeSet::named(scope).is_none()) {
        let names = Scope::ALL.map(Scope::as_str).join(", ");
        return Err(invalid("scopes", format!("a list of wallet:<name>, with a name of {names}, or wallet:*")));
    }
    if request.ttl < Duration::from_secs(1) {
        return Err(invalid("ttl", "at least 1s".to_string()));
    }
    let expires = u64::try_from(request.ttl.as_millis()).ok().and_then(|ttl| now.0.checked_add(ttl));
    let expires = expires.and_then(|expires| rfc3339(UnixMs(expires)));
    let expires = expires.ok_or_else(|| invalid("ttl", "so long that the year has four digits".to_string()))?;
    let mut caveats = vec![format!("exp = {expires}"), format!("scope = {}", request.scopes.join(","))];
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
    add("audience", "aud", Some(request.audience.clone()), "the name of a service")?;
    add("accounts", "account", list(&request.accounts), names)?;
    add("to", "to", list(&request.to), names)?;
    add("assets", "asset", list(&request.assets), "names of assets")?;
    add("max_amount", "max_amount", request.max_amount.map(|units| units.to_string()), "a number")?;
    add("daily_ceiling", "daily_ceiling", request.daily_ceiling.map(|units| units.to_string()), "a number")?;
    add("idem", "idem", request.idem.clone(), names)?;
    Ok(caveats)
}

fn invalid(field: &'static str, wanted: String) -> MintFault {
    MintFault::Invalid { field, wanted }
}
