//! A value as it was written, before anybody asks what type it should have, and the TOML reader that keeps its line.
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// A value as written. A flag or variable is always `Text`; every reader of values accepts text.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// A TOML table; no key takes one.
    Table(BTreeMap<Spanned<String>, Raw>),
}

/// Longest part of a value that is repeated in a message, in characters.
const SHOWN_CHARS_MAX: usize = 80;

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Raw::Text(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                write!(f, "{start:?}...")
            }
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => number.fmt(f),
            Raw::Float(number) => write!(f, "{number:?}"),
            Raw::Bool(value) => value.fmt(f),
            Raw::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Raw::Table(_) => f.write_str("a table"),
        }
    }
}

/// The top of a file: names with the byte ranges at which they stand. Values have none, because a table that only a
/// dotted name implies stands nowhere.
pub type Document = BTreeMap<Spanned<String>, Raw>;

/// Reads TOML. The error is the end of a sentence that begins with the file, and the line on which it applies.
pub fn parse(text: &str) -> Result<Document, (String, usize)> {
    toml::from_str::<Document>(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        // Dates are the only part of TOML that a `Raw` does not hold.
        let message = match toml::from_str::<toml::Table>(text) {
            Ok(_) => "has a date here, but no key takes one; write a text in double quotes".to_owned(),
            Err(error) => format!("is not valid TOML: {}", error.message().replace('\n', "; ")),
        };
        (message, line)
    })
}

/// The line, counted from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a TOML value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Float(number))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut table = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry()? {
            table.insert(name, value);
        }
        Ok(Raw::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_lines() {
        let text = "[a]\nx = 1\n\n[b]\ny = [1, \"2\", 2.5, true]\n";
        let document = parse(text).unwrap();
        let mut seen = Vec::new();
        for (section, table) in &document {
            let Raw::Table(entries) = table else { panic!("{section:?}") };
            for (name, value) in entries {
                seen.push((name.get_ref().clone(), line_of(text, name.span().start), value.to_string()));
            }
        }
        assert_eq!(seen, [("x".into(), 2, "1".into()), ("y".into(), 5, "[1, \"2\", 2.5, true]".into())]);
    }

    #[test]
    fn dotted_names_and_nested_tables_are_tables_like_any_other() {
        for text in ["a.x = 1\n", "a = { x = 1 }\n", "[a]\nx = 1\n", "\"a\".'x' = 1\n"] {
            let document = parse(text).unwrap();
            let Some(Raw::Table(entries)) = document.values().next() else { panic!("{text}") };
            assert_eq!(entries.values().next(), Some(&Raw::Integer(1)), "{text}");
        }
        assert!(parse("[a.b]\nx = 1\n[a.c.d]\ny = 1\n").is_ok());
    }

    #[test]
    fn syntax_errors_name_their_line() {
        assert_eq!(parse("[a]\nx = \n").unwrap_err().1, 2);
        assert_eq!(parse("[a]\nx = 1\nx = 2\n").unwrap_err().1, 3);
        let (message, line) = parse("[a]\nx = 1979-05-27\n").unwrap_err();
        assert!(message.starts_with("has a date here") && line == 2, "{message} {line}");
    }
}
