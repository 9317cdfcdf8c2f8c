//! An OpenAPI document, as far as it says what a value may be: references, and the keywords of JSON Schema that it and
//! `configs/policy.schema.json` use.
//!
//! A keyword that is not known here is told as a difference, because what it asks for would not be checked.
use super::difference::{Report, FORM};
use crate::operator::members::Members;
use regex::Regex;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashMap;

/// Most references that are followed in a row.
const REFERENCES_MAX: usize = 16;
/// Keywords that say nothing of what a value may be.
const ANNOTATIONS: [&str; 5] = ["description", "examples", "title", "default", "deprecated"];
/// Keywords that are checked.
const KEYWORDS: [&str; 26] = [
    "$ref",
    "type",
    "const",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "items",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "properties",
    "required",
    "additionalProperties",
    "oneOf",
    "allOf",
    "not",
    "contentEncoding",
];

/// A document, with the name under which its differences are told.
pub struct Document {
    /// Path of the file.
    pub file: String,
    root: Value,
    /// The same in the order in which it was written.
    ordered: serde_norway::Value,
    patterns: RefCell<HashMap<String, Option<Regex>>>,
}

/// A schema, and where it stands.
#[derive(Clone, Debug)]
pub struct Place<'d> {
    /// JSON pointer to it, behind all references.
    pub pointer: String,
    /// The schema.
    pub schema: &'d Value,
}

impl Document {
    /// Reads YAML, of which JSON is a part.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn read(file: &str, text: &str) -> Result<Self, String> {
        let ordered: serde_norway::Value = serde_norway::from_str(text).map_err(|fault| format!("no YAML: {fault}"))?;
        let root: Value = serde_norway::from_value(ordered.clone()).map_err(|fault| format!("not JSON in YAML: {fault}"))?;
        if !root["paths"].is_object() || !root["components"]["schemas"].is_object() {
            return Err("no OpenAPI document: it has no `paths`, or no `components` with `schemas`".to_owned());
        }
        Ok(Self { file: file.to_owned(), root, ordered, patterns: RefCell::default() })
    }

    /// What stands at a pointer, references followed.
    pub fn at(&self, pointer: &str) -> Option<Place<'_>> {
        let mut pointer = pointer.to_owned();
        for _ in 0..REFERENCES_MAX {
            let schema = self.root.pointer(&pointer)?;
            match schema.get("$ref").and_then(Value::as_str) {
                Some(target) => pointer = target.strip_prefix('#')?.to_owned(),
                None => return Some(Place { pointer, schema }),
            }
        }
        None
    }

    /// What stands below a place, references followed.
    pub fn below(&self, place: &Place<'_>, path: &str) -> Option<Place<'_>> {
        self.at(&format!("{}/{path}", place.pointer))
    }

    /// The names of an object below a place, in the order in which they were written.
    pub fn names(&self, place: &Place<'_>, path: &str) -> Vec<String> {
        let mut at = Some(&self.ordered);
        for step in place.pointer.split('/').skip(1).chain(path.split('/').filter(|step| !step.is_empty())) {
            let step = unescaped(step);
            at = at.and_then(|value| match value {
                serde_norway::Value::Sequence(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                other => other.get(step.as_str()),
            });
        }
        let names = at.and_then(serde_norway::Value::as_mapping).into_iter().flat_map(serde_norway::Mapping::keys);
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// All paths, with their operations.
    pub fn paths(&self) -> impl Iterator<Item = (&str, Place<'_>)> {
        let paths = self.root["paths"].as_object().into_iter().flatten();
        paths.filter_map(|(path, _)| Some((path.as_str(), self.at(&format!("/paths/{}", escaped(path)))?)))
    }

    /// The members of an object of `components`, by their pointers.
    pub fn components(&self, kind: &str) -> Vec<(&str, String)> {
        let members = self.root["components"][kind].as_object().into_iter().flatten();
        members.map(|(name, _)| (name.as_str(), format!("/components/{kind}/{}", escaped(name)))).collect()
    }

    /// Why a value is not what the schema at this place says: the pointer of the keyword; nothing if it is.
    pub fn refuses(&self, place: &Place<'_>, value: &Value) -> Option<String> {
        let Value::Object(schema) = place.schema else {
            return (*place.schema == Value::Bool(false)).then(|| place.pointer.clone());
        };
        let refused = schema.iter().find_map(|(keyword, wanted)| self.keyword(place, keyword, wanted, value));
        refused.or_else(|| self.members(place, schema, value))
    }

    fn keyword(&self, place: &Place<'_>, keyword: &str, wanted: &Value, value: &Value) -> Option<String> {
        let here = || format!("{}/{keyword}", place.pointer);
        let several = |quantity: &dyn Fn(usize) -> bool| {
            let count = wanted.as_array().map_or(0, Vec::len);
            let fitting = (0..count).filter(|index| self.inner(&format!("{}/{index}", here()), value).is_none()).count();
            quantity(fitting)
        };
        let length = |value: &Value| value.as_str().map(|text| text.chars().count() as u64);
        let items = |value: &Value| value.as_array().map(|items| items.len() as u64);
        let members = |value: &Value| value.as_object().map(|members| members.len() as u64);
        let contained = || {
            let fits = |item: &&Value| self.inner(&format!("{}/contains", place.pointer), item).is_none();
            value.as_array().map(|items| items.iter().filter(fits).count() as u64)
        };
        let below = |count: Option<u64>| count.zip(wanted.as_u64()).is_some_and(|(count, bound)| count < bound);
        let above = |count: Option<u64>| count.zip(wanted.as_u64()).is_some_and(|(count, bound)| count > bound);
        let order = || compared(value, wanted);
        let refused = match keyword {
            "type" => !typed(wanted, value),
            "const" => wanted != value,
            "enum" => !wanted.as_array().is_some_and(|listed| listed.contains(value)),
            "pattern" => value.as_str().is_some_and(|text| !self.matches(wanted, text)),
            "minLength" => below(length(value)),
            "maxLength" => above(length(value)),
            "minItems" => below(items(value)),
            "maxItems" => above(items(value)),
            "uniqueItems" => *wanted == Value::Bool(true) && value.as_array().is_some_and(|items| repeats(items)),
            "contains" if place.schema.get("minContains").is_none() => contained() == Some(0),
            "minContains" => below(contained()),
            "maxContains" => above(contained()),
            "minProperties" => below(members(value)),
            "maxProperties" => above(members(value)),
            "propertyNames" => return value.as_object()?.keys().find_map(|name| self.inner(&here(), &name.as_str().into())),
            "minimum" => order().is_some_and(std::cmp::Ordering::is_lt),
            "maximum" => order().is_some_and(std::cmp::Ordering::is_gt),
            "contentEncoding" => value.as_str().is_some_and(|text| !is_base64url(text)),
            "oneOf" if several(&|fitting| fitting == 0) => return Some(self.nearest(&here(), wanted, value)),
            "oneOf" => several(&|fitting| fitting > 1),
            "allOf" => several(&|fitting| fitting != wanted.as_array().map_or(0, Vec::len)),
            "not" => self.inner(&here(), value).is_none(),
            "items" => return value.as_array()?.iter().find_map(|item| self.inner(&here(), item)),
            "required" => {
                let lacks = |name: &Value| name.as_str().is_some_and(|name| value.get(name).is_none());
                value.is_object() && wanted.as_array().is_some_and(|names| names.iter().any(lacks))
            }
            _ => false,
        };
        refused.then(here)
    }

    /// Where the alternative refuses that the value comes nearest to: the one of its type, if there is one.
    fn nearest(&self, pointer: &str, alternatives: &Value, value: &Value) -> String {
        const OTHERS: [&str; 3] = ["/type", "/const", "/required"];
        let count = alternatives.as_array().map_or(0, Vec::len);
        let mut refusals = (0..count).filter_map(|index| self.inner(&format!("{pointer}/{index}"), value));
        refusals.find(|refusal| !OTHERS.iter().any(|end| refusal.ends_with(end))).unwrap_or_else(|| pointer.to_owned())
    }

    /// What `properties` and `additionalProperties` say, which belong together.
    fn members(&self, place: &Place<'_>, schema: &Map<String, Value>, value: &Value) -> Option<String> {
        value.as_object()?.iter().find_map(|(name, member)| {
            if schema.get("properties").is_some_and(|properties| properties.get(name).is_some()) {
                return self.inner(&format!("{}/properties/{}", place.pointer, escaped(name)), member);
            }
            schema.get("additionalProperties")?;
            self.inner(&format!("{}/additionalProperties", place.pointer), member)
        })
    }

    fn inner(&self, pointer: &str, value: &Value) -> Option<String> {
        match self.at(pointer) {
            Some(place) => self.refuses(&place, value),
            None => Some(pointer.to_owned()),
        }
    }

    fn matches(&self, pattern: &Value, text: &str) -> bool {
        let pattern = pattern.as_str().unwrap_or_default();
        let mut patterns = self.patterns.borrow_mut();
        let compiled = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().is_some_and(|compiled| compiled.is_match(text))
    }

    /// Notes what in the schemas is not understood here.
    pub fn check_form(&self, report: &mut Report) {
        for (_, pointer) in self.components("schemas") {
            report.schemas += 1;
            let schema = self.root.pointer(&pointer).unwrap_or(&Value::Null);
            self.form(&pointer, schema, report);
        }
    }

    fn form(&self, pointer: &str, schema: &Value, report: &mut Report) {
        for (keyword, wanted) in schema.as_object().into_iter().flatten() {
            let place = format!("{pointer}/{keyword}");
            let say = |report: &mut Report, expected: &str, found: &str| report.add(&self.file, &place, expected, found, FORM);
            match keyword.as_str() {
                "$ref" if wanted.as_str().and_then(|target| self.at(target.strip_prefix('#')?)).is_none() => {
                    say(report, &wanted.to_string(), "the reference leads nowhere");
                }
                "pattern" if wanted.as_str().map_or(true, |pattern| Regex::new(pattern).is_err()) => {
                    say(report, &wanted.to_string(), "no regular expression");
                }
                "properties" => {
                    for (name, inner) in wanted.as_object().into_iter().flatten() {
                        self.form(&format!("{place}/{}", escaped(name)), inner, report);
                    }
                }
                "oneOf" | "allOf" => {
                    for (index, inner) in wanted.as_array().into_iter().flatten().enumerate() {
                        self.form(&format!("{place}/{index}"), inner, report);
                    }
                }
                "items" | "contains" | "not" | "additionalProperties" | "propertyNames" => self.form(&place, wanted, report),
                known if KEYWORDS.contains(&known) || ANNOTATIONS.contains(&known) => {}
                unknown => say(report, unknown, "a keyword that is not understood here, so that what it asks for is not checked"),
            }
        }
    }
}

/// A name as a step of a JSON pointer.
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// The names of an object of JSON text, in order.
pub fn names_in_order(json: &[u8]) -> Vec<String> {
    Members::read(json).map(|members| members.0.into_iter().map(|(name, _)| name).collect()).unwrap_or_default()
}

fn typed(wanted: &Value, value: &Value) -> bool {
    let named = |name: &Value| match name.as_str() {
        Some("integer") => is_integer(value),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        Some(_) | None => false,
    };
    match wanted {
        Value::Array(several) => several.iter().any(named),
        one => named(one),
    }
}

/// Numbers that are written without point and exponent; beyond 64 bits they are read as a float without a fraction.
fn is_integer(value: &Value) -> bool {
    value.is_u64() || value.is_i64() || value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() > 1e19)
}

fn repeats(items: &[Value]) -> bool {
    (1..items.len()).any(|index| items[..index].contains(&items[index]))
}

fn compared(value: &Value, bound: &Value) -> Option<std::cmp::Ordering> {
    match (value.as_u64(), bound.as_u64()) {
        (Some(value), Some(bound)) => Some(value.cmp(&bound)),
        (_, _) => value.as_f64()?.partial_cmp(&bound.as_f64()?),
    }
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) && text.len() % 4 != 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "
paths: {/x: {$ref: '#/components/pathItems/X'}}
components:
  pathItems: {X: {get: {}}}
  schemas:
    Name: {type: string, pattern: '^[a-z]{1,3}$'}
    Number: {type: integer, minimum: 1, maximum: 18446744073709551615}
    Body:
      type: object
      additionalProperties: false
      required: [b]
      oneOf: [{required: [a]}, {required: [n]}]
      properties: {b: {$ref: '#/components/schemas/Name'}, a: {type: [string, 'null'], maxLength: 2}, n: {$ref: '#/components/schemas/Number'}}
    Odd: {multipleOf: 2, items: {$ref: '#/nowhere'}, pattern: '['}
";

    #[test]
    fn values_are_refused_by_the_keyword_that_they_break() {
        let document = Document::read("x.yaml", TEXT).unwrap();
        let body = document.at("/components/schemas/Body").unwrap();
        assert_eq!(document.names(&body, "properties"), ["b", "a", "n"]);
        let too_large: Value = serde_json::from_str(r#"{"b":"x","n":20000000000000000000}"#).unwrap();
        for (value, keyword) in [
            (json!({"b": "x", "n": 1}), None),
            (json!({"b": "x", "a": null}), None),
            (json!({"b": "x", "n": u64::MAX}), None),
            (json!([]), Some("/components/schemas/Body/oneOf")),
            (json!({"a": "x"}), Some("/components/schemas/Body/required")),
            (json!({"b": "x", "a": "x", "n": 1}), Some("/components/schemas/Body/oneOf")),
            (json!({"b": "xxxx", "n": 1}), Some("/components/schemas/Name/pattern")),
            (json!({"b": "x", "n": 0}), Some("/components/schemas/Number/minimum")),
            (too_large, Some("/components/schemas/Number/maximum")),
            (json!({"b": "x", "n": 1.5}), Some("/components/schemas/Number/type")),
            (json!({"b": "x", "a": "xxx"}), Some("/components/schemas/Body/properties/a/maxLength")),
            (json!({"b": "x", "n": 1, "c": 1}), Some("/components/schemas/Body/additionalProperties")),
        ] {
            assert_eq!(document.refuses(&body, &value).as_deref(), keyword, "{value}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let document = Document::read("x.yaml", TEXT).unwrap();
        let mut report = Report::default();
        document.check_form(&mut report);
        let told: Vec<&str> = report.differences.iter().map(|one| one.pointer.as_str()).collect();
        let odd = ["items/$ref", "multipleOf", "pattern"].map(|keyword| format!("/components/schemas/Odd/{keyword}"));
        assert_eq!((told, report.schemas), (odd.iter().map(String::as_str).collect(), 4));
        assert!(Document::read("x", "a: [").err().unwrap().starts_with("no YAML"));
        assert!(Document::read("x", "a: 1").err().unwrap().starts_with("no OpenAPI"));
    }
}
