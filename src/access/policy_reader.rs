//! Reads the JSON form of a policy strictly: unknown and repeated names are refused, and every message names the field by
//! its path; serde_json adds line and column.
use super::account_set::{AccountSet, BEGINNINGS_MAX};
use super::policy::{place, AssetRule, Ceilings, Policy};
use super::revocations::{Revocations, Revoked};
use crate::domain::{Amount, Asset, Op, Quota, QuotaScope, Read, QUOTA_MAX};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Most assets of a policy: cores look theirs up one by one, and never forget one.
const ASSETS_MAX: usize = 1024;
/// Names at least this similar are offered in place of an unknown one.
const SIMILARITY_MIN: f64 = 0.7;

pub(super) fn read(text: &[u8]) -> Result<Policy, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let policy = Whole { path: "" }.deserialize(&mut reader).and_then(|policy| reader.end().map(|()| policy));
    policy.map_err(|error| error.to_string())
}

fn unknown<E: Error>(path: &str, name: &str, known: &[&str]) -> E {
    let nearest = known.iter().map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, nearest)) if similarity >= SIMILARITY_MIN => {
            E::custom(format_args!("{path}: unknown name; did you mean {nearest}?"))
        }
        Some(_) | None => E::custom(format_args!("{path}: unknown name; known are {}", known.join(", "))),
    }
}

fn repeated<E: Error>(path: &str) -> E {
    E::custom(format_args!("{path}: repeated"))
}

/// The path of a member.
fn within(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// One of the known names.
fn named<T: Copy, E: Error>(path: &str, name: &str, all: &[T], text: fn(T) -> &'static str) -> Result<T, E> {
    let names: Vec<_> = all.iter().map(|one| text(*one)).collect();
    all.iter().copied().find(|one| text(*one) == name).ok_or_else(|| unknown(path, name, &names))
}

/// Declares a seed that hands its own visitor to the one kind of value that is expected at its path.
macro_rules! seed {
    ($name:ident, $value:ty, $method:ident) => {
        struct $name<'p> {
            path: &'p str,
        }

        impl<'de> DeserializeSeed<'de> for $name<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.$method(self)
            }
        }
    };
}

/// Declares a seed for an object of which the members are known, each with its own seed; what was read of them becomes the value.
macro_rules! object {
    ($name:ident, $value:ty, {$($member:ident: $seed:ident),*}, |$path:ident| $made:expr) => {
        seed!($name, $value, deserialize_map);

        impl<'de> Visitor<'de> for $name<'_> {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let subject = if self.path.is_empty() { "the policy" } else { self.path };
                write!(f, "{subject} to be an object with {}", [$(stringify!($member)),*].join(", "))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$value, A::Error> {
                $(let mut $member = None;)*
                while let Some(name) = map.next_key::<String>()? {
                    let path = within(self.path, &name);
                    let again = match name.as_str() {
                        $(stringify!($member) => $member.replace(map.next_value_seed($seed { path: &path })?).is_some(),)*
                        _ => return Err(unknown(&path, &name, &[$(stringify!($member)),*])),
                    };
                    if again {
                        return Err(repeated(&path));
                    }
                }
                let $path = self.path;
                $made
            }
        }
    };
}

/// What has to be there.
fn required<T, E: Error>(value: Option<T>, path: &str, name: &str) -> Result<T, E> {
    value.ok_or_else(|| E::custom(format_args!("{}: missing", within(path, name))))
}

object!(
    Whole,
    Policy,
    {version: Natural, operations: Operations, assets: Assets, quotas: Quotas, frozen: Accounts, denied: Denied, revoked: RevokedLists,
        degraded: Reads},
    |path| {
        let (denied, denied_subjects) = denied.unwrap_or_default();
        let revoked: Vec<Revoked> = revoked.unwrap_or_default();
        Ok(Policy {
            version: required(version, path, "version")?,
            operations: required(operations, path, "operations")?,
            assets: required(assets, path, "assets")?,
            quotas: quotas.unwrap_or_default(),
            frozen: frozen.unwrap_or_default(),
            denied,
            denied_subjects,
            revocations: Revocations::of(&revoked),
            revoked,
            // Reads have always gone on while writes did not; who wants them refused lists those that are not to be.
            degraded: degraded.unwrap_or([true; Read::ALL.len()]),
        })
    }
);

object!(Rule, (Ceilings, Ceilings), {amount_max: AmountMax, daily_max: AmountMax}, |path| {
    let daily_max: Ceilings = daily_max.unwrap_or_default();
    if daily_max[place(Op::Issue)].is_some() {
        return Err(A::Error::custom(format_args!("{path}.daily_max.issue: an issue debits nobody; limit it by amount_max")));
    }
    Ok((amount_max.unwrap_or_default(), daily_max))
});

object!(Quotas, [Option<Quota>; QuotaScope::ALL.len()], {account: Bucket, subject: Bucket, global: Bucket}, |_path| {
    Ok([account, subject, global])
});

object!(Bucket, Quota, {rate: Natural, burst: Natural}, |path| {
    let (rate, burst) = (required(rate, path, "rate")?, required(burst, path, "burst")?);
    let quota = u32::try_from(rate).ok().zip(u32::try_from(burst).ok()).and_then(|(rate, burst)| Quota::new(rate, burst));
    quota.ok_or_else(|| A::Error::custom(format_args!("{path}: rate and burst are numbers of requests from 1 to {QUOTA_MAX}")))
});

object!(Denied, (AccountSet, Vec<Box<str>>), {accounts: Accounts, subjects: Subjects}, |_path| {
    let subjects: Vec<Revoked> = subjects.unwrap_or_default();
    let mut names: Vec<Box<str>> = subjects.iter().map(|subject| subject.name().into()).collect();
    names.sort_unstable();
    Ok((accounts.unwrap_or_default(), names))
});

object!(RevokedLists, Vec<Revoked>, {tokens: Tokens, subjects: Subjects, keys: Keys}, |_path| {
    let mut all: Vec<Revoked> = [tokens, subjects, keys].into_iter().flatten().flatten().collect();
    all.sort_unstable();
    Ok(all)
});

seed!(Natural, u64, deserialize_u64);

impl Visitor<'_> for Natural<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be an unsigned integer", self.path)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }
}

/// Declares a seed for a list of texts without repeats; each is handed, with its path, to what adds it to the value.
macro_rules! list {
    ($name:ident, $value:ty, $what:literal, |$list:ident, $path:ident, $text:ident| $add:expr) => {
        seed!($name, $value, deserialize_seq);

        impl<'de> Visitor<'de> for $name<'_> {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} to be a list of {}", self.path, $what)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<$value, A::Error> {
                let mut $list = <$value>::default();
                let mut seen = std::collections::HashSet::new();
                while let Some(text) = texts.next_element::<String>()? {
                    let $path = format!("{}, {text}", self.path);
                    let $text = text.as_str();
                    $add
                    if !seen.insert(text) {
                        return Err(repeated(&$path));
                    }
                }
                Ok($list)
            }
        }
    };
}

list!(Operations, [bool; Op::ALL.len()], "names", |list, path, text| {
    list[place(named::<_, A::Error>(&path, text, &Op::ALL, Op::as_str)?)] = true;
});

list!(Reads, [bool; Read::ALL.len()], "names of reads", |list, path, text| {
    list[named::<_, A::Error>(&path, text, &Read::ALL, Read::as_str)? as usize] = true;
});

list!(Accounts, AccountSet, "accounts", |list, path, text| {
    if !list.add(text) && !list.has(text) {
        let wanted = format!("an account, or the beginning of one followed by *, of which there can be {BEGINNINGS_MAX}");
        return Err(A::Error::custom(format_args!("{path}: not {wanted}")));
    }
});

/// Declares a seed for a list of what can be revoked, of one kind.
macro_rules! revoked {
    ($name:ident, $read:path, $what:literal) => {
        list!($name, Vec<Revoked>, $what, |list, path, text| {
            list.push($read(text).ok_or_else(|| A::Error::custom(format_args!("{path}: not one of {}", $what)))?);
        });
    };
}

revoked!(Tokens, Revoked::token, "token ids, 32 digits of 0-9 a-f each");
revoked!(Subjects, Revoked::subject, "subjects, 1 to 128 bytes without control characters each");
revoked!(Keys, Revoked::key, "key ids");

seed!(Assets, Vec<AssetRule>, deserialize_map);

impl<'de> Visitor<'de> for Assets<'_> {
    type Value = Vec<AssetRule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("assets to be an object of asset names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut rules: Vec<AssetRule> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = within(self.path, &name);
            if Asset::new(&name).is_none() {
                return Err(A::Error::custom(format_args!("{path}: an asset is 1 to 16 characters of a-z 0-9 _")));
            }
            let (amount_max, daily_max) = map.next_value_seed(Rule { path: &path })?;
            match rules.binary_search_by(|rule| (*rule.name).cmp(&name)) {
                Ok(_) => return Err(repeated(&path)),
                Err(index) => rules.insert(index, AssetRule { name: name.into(), amount_max, daily_max }),
            }
        }
        if rules.is_empty() {
            return Err(A::Error::custom("assets: at least one asset has to be listed"));
        }
        if rules.len() > ASSETS_MAX {
            return Err(A::Error::custom(format_args!("assets: at most {ASSETS_MAX} can be listed")));
        }
        Ok(rules)
    }
}

seed!(AmountMax, Ceilings, deserialize_map);

impl<'de> Visitor<'de> for AmountMax<'_> {
    type Value = Ceilings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be an object of operations and amounts", self.path)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ceilings, A::Error> {
        let mut ceilings = Ceilings::default();
        while let Some(name) = map.next_key::<String>()? {
            let path = within(self.path, &name);
            let place = place(named(&path, &name, &Op::ALL, Op::as_str)?);
            if ceilings[place].replace(map.next_value_seed(Units { path: &path })?).is_some() {
                return Err(repeated(&path));
            }
        }
        Ok(ceilings)
    }
}

seed!(Units, Amount, deserialize_str);

impl Visitor<'_> for Units<'_> {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a decimal string above zero", self.path)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
        let flaw = || E::custom(format_args!("{}: an amount is a decimal string above zero, in minor units", self.path));
        Amount::parse(text).ok_or_else(flaw)
    }
}
