//! The members of a JSON object in the order in which they were written, which a map of values would lose.
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Names and values of one JSON object, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members(pub Vec<(String, Value)>);

impl Members {
    /// Reads an object; `None` if the bytes are anything else.
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// A value as a person reads it: text without quotes, lists without brackets, anything else as JSON.
pub fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => super::output::printable(text),
        Value::Array(items) => items.iter().map(readable).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let members = Members::read(br#"{"z":"1","a":2,"m":["x",true]}"#).unwrap();
        let rows: Vec<(&str, String)> = members.0.iter().map(|(name, value)| (name.as_str(), readable(value))).collect();
        assert_eq!(rows, [("z", "1".to_owned()), ("a", "2".to_owned()), ("m", "x, true".to_owned())]);
        assert_eq!(Members::read(b"[1]"), None);
    }
}
