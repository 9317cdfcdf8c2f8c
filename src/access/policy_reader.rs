//! Reads the JSON form of a policy strictly: unknown and repeated names are refused, and every message names the field by
//! its path; serde_json adds line and column.
use super::policy::{place, AssetRule, Policy};
use crate::domain::{Amount, Asset, Op};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

const FIELDS: [&str; 3] = ["version", "operations", "assets"];
const ASSET_FIELDS: [&str; 1] = ["amount_max"];
/// Names at least this similar are offered in place of an unknown one.
const SIMILARITY_MIN: f64 = 0.7;

type Ceilings = [Option<Amount>; Op::ALL.len()];

pub(super) fn read(text: &[u8]) -> Result<Policy, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let policy = Whole.deserialize(&mut reader).and_then(|policy| reader.end().map(|()| policy));
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

fn operation<E: Error>(path: &str, name: &str) -> Result<Op, E> {
    let names = Op::ALL.map(Op::as_str);
    Op::ALL.into_iter().find(|op| op.as_str() == name).ok_or_else(|| unknown(path, name, &names))
}

/// Declares a seed that hands its own visitor to the one kind of value that is expected.
macro_rules! seed {
    ($name:ty, $value:ty, $method:ident) => {
        impl<'de> DeserializeSeed<'de> for $name {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.$method(self)
            }
        }
    };
}

struct Whole;
seed!(Whole, Policy, deserialize_map);

impl<'de> Visitor<'de> for Whole {
    type Value = Policy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with version, operations and assets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Policy, A::Error> {
        let (mut version, mut operations, mut assets) = (None, None, None);
        while let Some(name) = map.next_key::<String>()? {
            let again = match name.as_str() {
                "version" => version.replace(map.next_value_seed(Version)?).is_some(),
                "operations" => operations.replace(map.next_value_seed(Operations)?).is_some(),
                "assets" => assets.replace(map.next_value_seed(Assets)?).is_some(),
                _ => return Err(unknown(&name, &name, &FIELDS)),
            };
            if again {
                return Err(repeated(&name));
            }
        }
        let missing = |name| A::Error::custom(format_args!("{name}: missing"));
        Ok(Policy {
            version: version.ok_or_else(|| missing("version"))?,
            operations: operations.ok_or_else(|| missing("operations"))?,
            assets: assets.ok_or_else(|| missing("assets"))?,
        })
    }
}

struct Version;
seed!(Version, u64, deserialize_u64);

impl Visitor<'_> for Version {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("version to be an unsigned integer")
    }

    fn visit_u64<E: Error>(self, version: u64) -> Result<u64, E> {
        Ok(version)
    }
}

struct Operations;
seed!(Operations, [bool; Op::ALL.len()], deserialize_seq);

impl<'de> Visitor<'de> for Operations {
    type Value = [bool; Op::ALL.len()];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("operations to be a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut allowed = [false; Op::ALL.len()];
        while let Some(name) = list.next_element::<String>()? {
            let path = format!("operations, {name}");
            if std::mem::replace(&mut allowed[place(operation(&path, &name)?)], true) {
                return Err(repeated(&path));
            }
        }
        Ok(allowed)
    }
}

struct Assets;
seed!(Assets, Vec<AssetRule>, deserialize_map);

impl<'de> Visitor<'de> for Assets {
    type Value = Vec<AssetRule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("assets to be an object of asset names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut rules: Vec<AssetRule> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = format!("assets.{name}");
            if Asset::new(&name).is_none() {
                return Err(A::Error::custom(format_args!("{path}: an asset is 1 to 16 characters of a-z 0-9 _")));
            }
            let amount_max = map.next_value_seed(Rule { path: &path })?;
            match rules.binary_search_by(|rule| (*rule.name).cmp(&name)) {
                Ok(_) => return Err(repeated(&path)),
                Err(index) => rules.insert(index, AssetRule { name: name.into(), amount_max }),
            }
        }
        if rules.is_empty() {
            return Err(A::Error::custom("assets: at least one asset has to be listed"));
        }
        Ok(rules)
    }
}

struct Rule<'p> {
    path: &'p str,
}
seed!(Rule<'_>, Ceilings, deserialize_map);

impl<'de> Visitor<'de> for Rule<'_> {
    type Value = Ceilings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be an object, which may have amount_max", self.path)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ceilings, A::Error> {
        let mut ceilings = None;
        while let Some(name) = map.next_key::<String>()? {
            let path = format!("{}.{name}", self.path);
            if name != ASSET_FIELDS[0] {
                return Err(unknown(&path, &name, &ASSET_FIELDS));
            }
            if ceilings.replace(map.next_value_seed(AmountMax { path: &path })?).is_some() {
                return Err(repeated(&path));
            }
        }
        Ok(ceilings.unwrap_or_default())
    }
}

struct AmountMax<'p> {
    path: &'p str,
}
seed!(AmountMax<'_>, Ceilings, deserialize_map);

impl<'de> Visitor<'de> for AmountMax<'_> {
    type Value = Ceilings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be an object of operations and amounts", self.path)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ceilings, A::Error> {
        let mut ceilings = Ceilings::default();
        while let Some(name) = map.next_key::<String>()? {
            let path = format!("{}.{name}", self.path);
            let place = place(operation(&path, &name)?);
            if ceilings[place].replace(map.next_value_seed(Units { path: &path })?).is_some() {
                return Err(repeated(&path));
            }
        }
        Ok(ceilings)
    }
}

struct Units<'p> {
    path: &'p str,
}
seed!(Units<'_>, Amount, deserialize_str);

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
