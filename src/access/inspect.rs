//! What a token says about itself, for people. No key is needed, and so nothing of it is proven.
use super::caveat::{rfc3339, Caveat};
use super::identifier::{token_id_text, Identifier};
use super::scope::ScopeSet;
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
    /// The latest moment before which some caveat forbids its use, RFC 3339; `None` if none does.
    pub not_before: Option<String>,
    /// The earliest moment at which some caveat lets it expire, RFC 3339; `None` if none does.
    pub expires: Option<String>,
    /// Where the discharges come from that it needs.
    pub third_parties: Vec<String>,
    /// Whether some caveat is not understood, which denies everything.
    pub not_understood: bool,
    /// Every caveat in words, in the order in which they were added.
    pub caveats: Vec<String>,
    #[serde(skip)]
    scopes: Vec<ScopeSet>,
    #[serde(skip)]
    first: Option<UnixMs>,
    #[serde(skip)]
    end: Option<UnixMs>,
}

impl Description {
    /// Whether its caveats let a request through that needs one of these scopes, as far as scopes decide that.
    pub fn reaches(&self, scopes: ScopeSet) -> bool {
        !self.not_understood && self.scopes.iter().all(|granted| granted.meets(scopes))
    }

    /// Whether it has expired by this time.
    pub fn expired(&self, now: UnixMs) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    /// Whether it is not valid yet at this time.
    pub fn early(&self, now: UnixMs) -> bool {
        self.first.is_some_and(|first| now < first)
    }
}

/// Describes a token; `None` if the text is not a token in the form of this service.
pub fn inspect(token: &str) -> Option<Description> {
    let macaroon = parse(token)?;
    let identifier = macaroon.identifier();
    let identifier = Identifier::parse(&identifier.0)?;
    let (mut first, mut end) = (None::<UnixMs>, None::<UnixMs>);
    let (mut caveats, mut scopes, mut third_parties, mut not_understood) = (Vec::new(), Vec::new(), Vec::new(), false);
    for caveat in macaroon.caveats() {
        match caveat {
            macaroon::Caveat::FirstParty(caveat) => {
                let predicate = caveat.predicate();
                let understood = Caveat::parse(&predicate.0);
                match &understood {
                    Some(Caveat::Expires(at)) => end = Some(end.map_or(*at, |known| known.min(*at))),
                    Some(Caveat::NotBefore(at)) => first = first.max(Some(*at)),
                    Some(Caveat::Scopes(granted)) => scopes.push(*granted),
                    Some(_) => {}
                    None => not_understood = true,
                }
                caveats.push(words(understood.as_ref(), &String::from_utf8_lossy(&predicate.0)));
            }
            macaroon::Caveat::ThirdParty(third) => {
                let (location, id) = (printable(&third.location()), third.id());
                caveats.push(format!("needs a discharge from {location}, for {}", printable(&String::from_utf8_lossy(&id.0))));
                third_parties.push(location);
            }
        }
    }
    Some(Description {
        key_id: identifier.key_id.to_string(),
        subject: identifier.subject.to_string(),
        token_id: token_id_text(identifier.token),
        issued: rfc3339(identifier.issued)?,
        not_before: first.and_then(rfc3339),
        expires: end.and_then(rfc3339),
        third_parties,
        not_understood,
        caveats,
        scopes,
        first,
        end,
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
        Some(Caveat::Budget(_)) => format!("debits at most {value} minor units in all, ever, together with all tokens of its id"),
        Some(Caveat::Keys(_)) => format!("only idempotency keys {value}"),
    }
}

/// Text of a token is written by whoever narrowed it: control characters must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
