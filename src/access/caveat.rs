//! First-party caveats: `name = value` predicates of the wire contract, read into values.
//!
//! Spaces around `=` and around the commas of a list do not matter. Anything else that is not written as the contract says
//! is not understood, and the caller denies: this file never guesses.
use super::scope::ScopeSet;
use crate::domain::UnixMs;
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

/// A caveat that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caveat {
    /// Only for the service of this name.
    Audience(Box<str>),
    /// Only before this moment.
    Expires(UnixMs),
    /// Only from this moment on.
    NotBefore(UnixMs),
    /// Only requests that need one of these scopes.
    Scopes(ScopeSet),
    /// Only accounts that match are debited or read.
    Accounts(Patterns),
    /// Only accounts that match are credited.
    To(Patterns),
    /// Only these assets.
    Assets(List),
    /// At most this much in one request, in minor units.
    AmountMax(u128),
    /// At most this much debited in one UTC day, in minor units.
    DailyCeiling(u128),
    /// At most this much debited in all, ever, in minor units of all assets added up.
    Budget(u128),
    /// Only idempotency keys that match.
    Keys(Patterns),
}

impl Caveat {
    /// Reads a predicate; `None` if it is not one that this service knows, which has to deny.
    pub(super) fn parse(predicate: &[u8]) -> Option<Self> {
        let (name, value) = std::str::from_utf8(predicate).ok()?.split_once('=')?;
        let value = value.trim_matches(BLANK);
        if value.is_empty() {
            return None;
        }
        match name.trim_matches(BLANK) {
            "aud" => Some(Self::Audience(value.into())),
            "exp" => moment(value, Rounding::Down).map(Self::Expires),
            "nbf" => moment(value, Rounding::Up).map(Self::NotBefore),
            "scope" => scopes(value).map(Self::Scopes),
            "account" => Patterns::parse(value).map(Self::Accounts),
            "to" => Patterns::parse(value).map(Self::To),
            "asset" => List::parse(value).map(Self::Assets),
            "max_amount" => units(value).map(Self::AmountMax),
            "daily_ceiling" => units(value).map(Self::DailyCeiling),
            "budget" => units(value).map(Self::Budget),
            "idem" => Patterns::parse(value).map(Self::Keys),
            _ => None,
        }
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// A comma-separated list. Kept as it was read, because whoever narrows a token chooses how many items there are, and many small
/// pieces would take many times the memory of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List(Box<str>);

impl List {
    /// Reads a list; `None` if an item is empty.
    fn parse(value: &str) -> Option<Self> {
        items(value).all(|item| !item.is_empty()).then(|| Self(value.into()))
    }

    /// Whether an item is exactly this name.
    pub(super) fn holds(&self, name: &str) -> bool {
        items(&self.0).any(|item| item == name)
    }
}

/// Names of which one has to match: exactly, or by a prefix where the pattern ends with `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patterns(List);

impl Patterns {
    /// Reads a list; `None` if an item is empty or has a `*` that is not its last character.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let understood = items(value).all(|item| !item.strip_suffix('*').unwrap_or(item).contains('*'));
        List::parse(value).filter(|_| understood).map(Self)
    }

    /// Whether some pattern matches the name.
    pub(super) fn cover(&self, name: &str) -> bool {
        items(&self.0 .0).any(|item| item.strip_suffix('*').map_or(name == item, |prefix| name.starts_with(prefix)))
    }
}

impl Patterns {
    /// Whether every name matches.
    pub(super) fn cover_everything(&self) -> bool {
        self.0.holds("*")
    }
}

/// The items of a comma-separated list without the spaces around them.
fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|item| item.trim_matches(BLANK))
}

/// Scopes of other services in the list grant nothing here, and harm nothing either.
fn scopes(value: &str) -> Option<ScopeSet> {
    let whole = items(value).all(|item| !item.is_empty());
    whole.then(|| items(value).filter_map(ScopeSet::named).fold(ScopeSet::default(), ScopeSet::with))
}

fn units(value: &str) -> Option<u128> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value.parse().ok()
}

/// A fraction of a millisecond is never rounded in the holder's favour.
#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
}

fn moment(value: &str, rounding: Rounding) -> Option<UnixMs> {
    let nanoseconds = OffsetDateTime::parse(value, &Rfc3339).ok()?.unix_timestamp_nanos();
    let nanoseconds = u128::try_from(nanoseconds).unwrap_or(0);
    let milliseconds = match rounding {
        Rounding::Down => nanoseconds / 1_000_000,
        Rounding::Up => nanoseconds.div_ceil(1_000_000),
    };
    u64::try_from(milliseconds).ok().map(UnixMs)
}

/// The moment that an RFC 3339 time means.
pub(super) fn unix_ms(text: &str) -> Option<UnixMs> {
    moment(text, Rounding::Down)
}

/// A moment as RFC 3339 in UTC, for people and for caveats.
pub(super) fn rfc3339(moment: UnixMs) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.0) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Scope;

    fn parse(text: &str) -> Option<Caveat> {
        Caveat::parse(text.as_bytes())
    }

    #[test]
    fn every_kind_is_read_with_and_without_spaces() {
        for text in ["aud = svc-wallet", "aud=svc-wallet", "  aud\t=  svc-wallet  "] {
            assert_eq!(parse(text), Some(Caveat::Audience("svc-wallet".into())), "{text:?}");
        }
        assert_eq!(parse("exp = 1970-01-01T00:00:01Z"), Some(Caveat::Expires(UnixMs(1000))));
        assert_eq!(parse("exp = 1970-01-01T02:00:01+02:00"), Some(Caveat::Expires(UnixMs(1000))));
        assert_eq!(parse("exp = 1969-12-31T19:00:01.0019-05:00"), Some(Caveat::Expires(UnixMs(1001))));
        assert_eq!(parse("nbf = 1970-01-01T00:00:01.0001Z"), Some(Caveat::NotBefore(UnixMs(1001))));
        assert_eq!(parse("exp = 1960-01-01T00:00:00Z"), Some(Caveat::Expires(UnixMs(0))));
        assert_eq!(
            parse("scope = wallet:read , spend,storage:get"),
            Some(Caveat::Scopes(ScopeSet::of(&[Scope::Read, Scope::Spend])))
        );
        assert_eq!(parse("scope = storage:get"), Some(Caveat::Scopes(ScopeSet::default())));
        assert_eq!(parse("asset = roc, ron"), Some(Caveat::Assets(List("roc, ron".into()))));
        assert_eq!(parse("max_amount = 0"), Some(Caveat::AmountMax(0)));
        assert_eq!(parse(&format!("daily_ceiling={}", u128::MAX)), Some(Caveat::DailyCeiling(u128::MAX)));
        assert_eq!(parse(&format!("budget = {}", u128::MAX)), Some(Caveat::Budget(u128::MAX)));
    }

    #[test]
    fn patterns_match_exactly_or_by_prefix() {
        let patterns = Patterns::parse("acct:a , user/*").expect("well formed");
        for (name, covered) in
            [("acct:a", true), ("acct:ab", false), ("acct:", false), ("user/", true), ("user/x", true), ("use", false)]
        {
            assert_eq!(patterns.cover(name), covered, "{name}");
        }
        assert!(Patterns::parse("*").expect("well formed").cover("anything"));
    }

    #[test]
    fn what_is_not_written_as_agreed_is_not_understood() {
        for text in [
            "",
            "=",
            "aud",
            "aud =",
            "= x",
            "Aud = svc-wallet",
            "exp = tomorrow",
            "exp = 2030-01-01",
            "exp = 1893456000",
            "exp = 2030-01-01T00:00:00",
            "nbf = 2030-13-01T00:00:00Z",
            "account = ",
            "account = a,,b",
            "account = a,",
            "account = a*b",
            "account = **",
            "to = *x",
            "asset = ,",
            "max_amount = -1",
            "max_amount = +1",
            "max_amount = 1.0",
            "max_amount = 1e3",
            "max_amount = 340282366920938463463374607431768211456",
            "max_amount = 1_000",
            "daily_ceiling = ten",
            "budget = -1",
            "budget = 340282366920938463463374607431768211456",
            "budgets = 1",
            "colour = blue",
            "scope = ",
            "idem = a*b*",
            "op = transfer",
            "account < x",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(Caveat::parse(b"aud = \xff"), None);
    }
}
