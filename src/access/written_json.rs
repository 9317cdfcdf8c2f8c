//! JSON as it is written: the members of an object in their order, repeated ones among them.
//!
//! A text without escapes is a part of what was read, so that its place in it is known.
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt;

/// A value.
pub(super) enum Json<'t> {
    /// A number from 0 to 2^64-1, without point and exponent.
    Natural(u64),
    Text(Cow<'t, str>),
    List(Vec<Json<'t>>),
    /// Names and values.
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
    /// Null, a boolean, or another number.
    Other,
}

impl<'t> Json<'t> {
    /// The number, if it is a natural one.
    pub fn natural(&self) -> Option<u64> {
        if let Json::Natural(number) = self {
            Some(*number)
        } else {
            None
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self {
            Some(text.as_ref())
        } else {
            None
        }
    }

    /// The items, if it is a list.
    pub fn list(&self) -> Option<&[Json<'t>]> {
        if let Json::List(items) = self {
            Some(items.as_slice())
        } else {
            None
        }
    }

    /// The members, if it is an object.
    pub fn object(&self) -> Option<&[(Cow<'t, str>, Json<'t>)]> {
        if let Json::Object(members) = self {
            Some(members.as_slice())
        } else {
            None
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsWritten)
    }
}

struct AsWritten;

impl<'de> Visitor<'de> for AsWritten {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Natural(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let mut object = Vec::new();
        while let Some((Name(name), value)) = members.next_entry::<Name<'de>, Json<'de>>()? {
            object.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

/// The name of a member.
#[derive(Deserialize)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);
