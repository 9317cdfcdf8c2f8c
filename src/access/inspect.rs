//! What a token or a discharge says about itself, for people. No key is needed, and so nothing of it is proven.
use super::caveat::{rfc3339, Caveat};
use super::identifier::{token_id_text, Identifier};
use super::scope::ScopeSet;
use super::token::parse;
use crate::domain::{misleads, UnixMs};
use macaroon::Macaroon;
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
    /// What its caveats say.
    #[serde(flatten)]
    pub limits: Limits,
}

/// The readable parts of a macaroon that is no token of this service: a discharge, or something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discharge {
    /// Who made it, by its own word; empty if it does not say.
    pub location: String,
    /// What it was asked for with: that of the third-party caveat which it discharges.
    pub id: String,
    /// What its caveats say.
    #[serde(flatten)]
    pub limits: Limits,
}

/// What caveats say, all of which have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
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
    /// Where several caveats limit the same amount: the smallest, in words.
    pub smallest: Vec<String>,
    #[serde(skip)]
    scopes: Vec<ScopeSet>,
    #[serde(skip)]
    first: Option<UnixMs>,
    #[serde(skip)]
    end: Option<UnixMs>,
}

impl Limits {
    /// Whether they let a request through that needs one of these scopes, as far as scopes decide that.
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

    fn of(macaroon: &Macaroon) -> Self {
        let (mut limits, mut amounts) = (Self::default(), Amounts::default());
        for caveat in macaroon.caveats() {
            match caveat {
                macaroon::Caveat::FirstParty(caveat) => {
                    let predicate = caveat.predicate();
                    let understood = Caveat::parse(&predicate.0);
                    match &understood {
                        Some(Caveat::Expires(at)) => limits.end = Some(limits.end.map_or(*at, |known| known.min(*at))),
                        Some(Caveat::NotBefore(at)) => limits.first = limits.first.max(Some(*at)),
                        Some(Caveat::Scopes(granted)) => limits.scopes.push(*granted),
                        Some(amount) => amounts.take(amount),
                        None => limits.not_understood = true,
                    }
                    limits.caveats.push(words(understood.as_ref(), &String::from_utf8_lossy(&predicate.0)));
                }
                macaroon::Caveat::ThirdParty(third) => {
                    let (location, id) = (printable(&third.location()), third.id());
                    let id = printable(&String::from_utf8_lossy(&id.0));
                    limits.caveats.push(format!("needs a discharge from {location}, for {id}"));
                    limits.third_parties.push(location);
                }
            }
        }
        (limits.not_before, limits.expires) = (limits.first.and_then(rfc3339), limits.end.and_then(rfc3339));
        limits.smallest = amounts.smallest();
        limits
    }
}

/// The smallest amount of each kind of limit, and how many there are of it: for one request, for a day, for ever.
#[derive(Default)]
struct Amounts([Option<(u128, usize)>; 3]);

impl Amounts {
    fn take(&mut self, caveat: &Caveat) {
        let (place, amount) = match caveat {
            Caveat::AmountMax(amount) => (0, *amount),
            Caveat::DailyCeiling(amount) => (1, *amount),
            Caveat::Budget(amount) => (2, *amount),
            Caveat::Audience(_) | Caveat::Expires(_) | Caveat::NotBefore(_) | Caveat::Scopes(_) => return,
            Caveat::Accounts(_) | Caveat::To(_) | Caveat::Assets(_) | Caveat::Keys(_) => return,
        };
        let (least, count) = self.0[place].unwrap_or((amount, 0));
        self.0[place] = Some((least.min(amount), count + 1));
    }

    fn smallest(&self) -> Vec<String> {
        let words: [fn(&str) -> String; 3] = [in_one_request, in_one_day, in_all];
        let several =
            self.0.iter().zip(words).filter_map(|(found, words)| found.filter(|(_, count)| *count > 1).zip(Some(words)));
        several.map(|((least, _), words)| words(&least.to_string())).collect()
    }
}

/// Describes a token; `None` if the text is not a token in the form of this service.
pub fn inspect(token: &str) -> Option<Description> {
    let macaroon = parse(token)?;
    let identifier = macaroon.identifier();
    let identifier = Identifier::parse(&identifier.0)?;
    Some(Description {
        key_id: identifier.key_id.to_string(),
        subject: identifier.subject.to_string(),
        token_id: token_id_text(identifier.token),
        issued: rfc3339(identifier.issued)?,
        limits: Limits::of(&macaroon),
    })
}

/// Describes a macaroon that is no token of this service; `None` if the text is none, or is a token.
pub fn inspect_discharge(text: &str) -> Option<Discharge> {
    let macaroon = parse(text).filter(|_| inspect(text).is_none())?;
    let id = printable(&String::from_utf8_lossy(&macaroon.identifier().0));
    Some(Discharge {
        location: macaroon.location().map_or_else(String::new, |at| printable(&at)),
        id,
        limits: Limits::of(&macaroon),
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
        Some(Caveat::To(_)) => format!("credits only the accounts {value}, and no burns"),
        Some(Caveat::Assets(_)) => format!("only the assets {value}"),
        Some(Caveat::AmountMax(_)) => in_one_request(&value),
        Some(Caveat::DailyCeiling(_)) => in_one_day(&value),
        Some(Caveat::Budget(_)) => in_all(&value),
        Some(Caveat::Keys(_)) => format!("only idempotency keys {value}"),
    }
}

fn in_one_request(amount: &str) -> String {
    format!("at most {amount} minor units in one request")
}

fn in_one_day(amount: &str) -> String {
    format!(
        "debits at most {amount} minor units in one UTC day from each account, of each asset, together with all tokens of its id; issues are not debits"
    )
}

fn in_all(amount: &str) -> String {
    format!("debits at most {amount} minor units in all, ever, together with all tokens of its id; issues are not debits")
}

/// Text of a token is written by whoever narrowed it: what would steer a terminal or mislead its reader must not reach it.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if misleads(letter) { '?' } else { letter }).collect()
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
