//! What a token says about itself, for people. No key is needed, and so nothing of it is proven.
use super::caveat::{rfc3339, Caveat};
use super::identifier::Identifier;
use super::token::parse;
use crate::domain::UnixMs;
use serde::Serialize;

/// The readable parts of a token whose signature was not checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The key that it claims to be signed with.
    pub key_id: String,
    /// For whom it was minted.
    pub subject: String,
    /// Its random id, in hex.
    pub token_id: String,
    /// When it was minted, RFC 3339.
    pub issued: String,
    /// The earliest moment at which some caveat lets it expire, RFC 3339; `None` if none does.
    pub expires: Option<String>,
    /// Every caveat in words, in the order in which they were added.
    pub caveats: Vec<String>,
}

/// Describes a token; `None` if the text is not a token in the form of this service.
pub fn inspect(token: &str) -> Option<Description> {
    let macaroon = parse(token)?;
    let identifier = macaroon.identifier();
    let identifier = Identifier::parse(&identifier.0)?;
    let mut expires: Option<UnixMs> = None;
    let mut caveats = Vec::new();
    for caveat in macaroon.caveats() {
        match caveat {
            macaroon::Caveat::FirstParty(first) => {
                let predicate = first.predicate();
                let understood = Caveat::parse(&predicate.0);
                if let Some(Caveat::Expires(at)) = understood {
                    expires = Some(expires.map_or(at, |known| known.min(at)));
                }
                caveats.push(words(understood.as_ref(), &String::from_utf8_lossy(&predicate.0)));
            }
            macaroon::Caveat::ThirdParty(third) => {
                caveats.push(format!("needs a discharge from {}", printable(&third.location())));
            }
        }
    }
    Some(Description {
        key_id: identifier.key_id.to_string(),
        subject: identifier.subject.to_string(),
        token_id: identifier.token.0.iter().map(|byte| format!("{byte:02x}")).collect(),
        issued: rfc3339(identifier.issued)?,
        expires: expires.and_then(rfc3339),
        caveats,
    })
}

fn words(caveat: Option<&Caveat>, predicate: &str) -> String {
    let value = printable(predicate.split_once('=').map_or("", |(_, value)| value.trim()));
    match caveat {
        None => format!("not understood, so it denies everything: {}", printable(predicate)),
        Some(Caveat::Audience(_)) => format!("only for the service {value}"),
        Some(Caveat::Expires(_)) => format!("until {value}"),
        Some(Caveat::NotBefore(_)) => format!("from {value} on"),
        Some(Caveat::Scopes(_)) => format!("only for the scopes {value}"),
        Some(Caveat::Accounts(_)) => format!("debits and reads only the accounts {value}"),
        Some(Caveat::To(_)) => format!("credits only the accounts {value}"),
        Some(Caveat::Assets(_)) => format!("only the assets {value}"),
        Some(Caveat::AmountMax(_)) => format!("at most {value} minor units in one request"),
        Some(Caveat::DailyCeiling(_)) => format!("debits at most {value} minor units in one UTC day"),
        Some(Caveat::Keys(_)) => format!("only idempotency keys {value}"),
    }
}

/// Text of a token is written by whoever narrowed it: control characters must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
