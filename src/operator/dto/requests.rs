//! Requests: bodies, queries and paths, each value shown to the document and to the parser.
use super::difference::{Report, SHAPE};
use super::probes;
use super::product::{concrete, route, Product};
use super::schema::{escaped, Document, Place};
use crate::api::{Method, BODY_FIELDS};
use crate::domain::Op;
use crate::operator::client::percent_encoded;
use serde_json::Value;
use std::collections::BTreeSet;

/// A good value of each field that bodies have, as JSON text. `seq` is another name of `nonce`, and has its value in turn.
const GOOD: [(&str, &str); 8] = [
    ("from", r#""acct:a""#),
    ("to", r#""acct:b""#),
    ("asset", r#""roc""#),
    ("amount_minor", r#""42""#),
    ("nonce", "7"),
    ("seq", "7"),
    ("idempotency_key", r#""k-1""#),
    ("memo", r#""for lunch""#),
];
/// A good value of each parameter that queries have.
const PARAMETERS: [(&str, &str); 8] = [
    ("account", "acct:a"),
    ("asset", "roc"),
    ("size", "7"),
    ("signed", "true"),
    ("from", "7"),
    ("to", "7"),
    ("limit", "20"),
    ("cursor", "4711"),
];
/// A name that no request has.
const NOBODYS: &str = "colour";

/// Holds all requests of the document against the parser.
pub fn check(document: &Document, product: &mut Product, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for (path, item) in document.paths() {
        let route = route(path);
        match (route.op(), route.scopes()) {
            // Several paths lead to one item; its operation is looked at once.
            (Some(op), _) if seen.insert((item.pointer.clone(), route.as_str())) => {
                body(document, product, path, op, &item, report)
            }
            (None, Some(_)) if seen.insert((item.pointer.clone(), route.as_str())) => {
                query(document, product, path, &item, report);
                in_path(document, product, path, &item, report);
            }
            (..) => {}
        }
    }
}

fn verdict(accepted: bool) -> &'static str {
    if accepted {
        "accepted"
    } else {
        "refused"
    }
}

/// A body of these fields.
fn written(fields: &[(&str, &str)]) -> String {
    let members: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn body(document: &Document, product: &mut Product, path: &str, op: Op, item: &Place<'_>, report: &mut Report) {
    let Some(place) = document.below(item, "post/requestBody/content/application~1json/schema") else {
        let pointer = format!("{}/post/requestBody", item.pointer);
        return report.add(&document.file, &pointer, "no body", format!("{} reads a body of JSON", op.as_str()), SHAPE);
    };
    let told = document.names(&place, "properties");
    let mut accepts = |fields: &[(&str, &str)]| product.accepts(Method::Post, path, None, &written(fields)).is_ok();
    // What the parser reads: the least body that it takes, and every other field that it takes with it.
    let least: Vec<(&str, &str)> = GOOD
        .into_iter()
        .filter(|(name, _)| match *name {
            "from" | "nonce" => op.debits(),
            "to" => op.credits(),
            "asset" | "amount_minor" => true,
            _ => false,
        })
        .collect();
    let with = |fields: &[(&'static str, &'static str)], name: &'static str, value: &'static str| {
        // The two names of the nonce stand in place of each other.
        let others = fields.iter().filter(|(known, _)| *known != name && !(name == "seq" && *known == "nonce"));
        others.copied().chain([(name, value)]).collect::<Vec<_>>()
    };
    let read: Vec<(&str, &str)> = GOOD.into_iter().filter(|(name, value)| accepts(&with(&least, name, value))).collect();
    let reads = |name: &str| read.iter().any(|(known, _)| *known == name);
    for name in BODY_FIELDS.iter().chain(&[NOBODYS]).copied().chain(told.iter().map(String::as_str)) {
        let (in_document, in_code) = (told.iter().any(|known| known == name), reads(name));
        if in_document == in_code {
            continue;
        }
        let pointer = format!("{}/properties/{}", place.pointer, escaped(name));
        let expected = if in_document { format!("{} has a field {name}", op.as_str()) } else { format!("no field {name}") };
        let found = if in_code { "the parser reads it" } else { "the parser refuses it as unknown" };
        report.add(&document.file, &pointer, expected, found, SHAPE);
    }
    let full: Vec<(&str, &str)> = read.iter().filter(|(name, _)| *name != "seq").copied().collect();
    let mut compare = |fields: &[(&str, &str)], pointer: &str, what: &str| {
        let text = written(fields);
        let value: Value = serde_json::from_str(&text).expect("a body of good names and values");
        let (by_document, by_code) =
            (document.refuses(&place, &value).is_none(), product.accepts(Method::Post, path, None, &text).is_ok());
        if by_document != by_code {
            report.add(&document.file, pointer, format!("{what}: {}", verdict(by_document)), verdict(by_code), SHAPE);
        }
        report.values += 1;
    };
    let required = format!("{}/required", place.pointer);
    for (name, _) in &full {
        let less: Vec<(&str, &str)> = full.iter().filter(|(known, _)| known != name).copied().collect();
        compare(&less, &required, &format!("{} without {name}", op.as_str()));
    }
    compare(&with(&full, "seq", "7"), &required, &format!("{} with seq in place of nonce", op.as_str()));
    let stranger = [&full[..], &[(NOBODYS, "1")]].concat();
    compare(&stranger, &format!("{}/additionalProperties", place.pointer), "an unknown field");
    for (name, _) in read.iter().filter(|(name, _)| told.iter().any(|known| known == name)) {
        let Some(property) = document.below(&place, &format!("properties/{name}")) else { continue };
        let others: Vec<(&str, &str)> = with(&full, name, "").into_iter().filter(|(known, _)| known != name).collect();
        differ(document, &property, name, report, probes::values(), |text| {
            let meanings = vec![serde_json::from_str(text).expect("a probe is JSON")];
            let body = written(&[&others[..], &[(name, text)]].concat());
            (meanings, product.accepts(Method::Post, path, None, &body).is_ok())
        });
    }
}

/// Shows values to a schema and to the parser, and notes the first that each of the two takes and the other does not.
fn differ(
    document: &Document,
    place: &Place<'_>,
    name: &str,
    report: &mut Report,
    probes: Vec<String>,
    mut shown: impl FnMut(&str) -> (Vec<Value>, bool),
) {
    let (mut wider, mut narrower) = (false, false);
    for text in probes {
        let (meanings, by_code) = shown(&text);
        let refused: Vec<String> = meanings.iter().filter_map(|value| document.refuses(place, value)).collect();
        let by_document = refused.len() < meanings.len();
        report.values += 1;
        let told = if by_document { &mut wider } else { &mut narrower };
        if by_document != by_code && !std::mem::replace(told, true) {
            let pointer = refused.first().filter(|_| !by_document).unwrap_or(&place.pointer);
            let expected = format!("{name} = {}: {}", shortened(&text), verdict(by_document));
            report.example(&document.file, pointer, expected, verdict(by_code), SHAPE);
        }
    }
}

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 48;

/// A value as it fits into a line.
pub fn shortened(text: &str) -> String {
    let text: String = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}... ({} characters)", &text[..at], text.chars().count()),
        None => text,
    }
}

/// The parameters of an operation that stand in one place of the request: names, whether they are required, pointers.
fn parameters<'d>(document: &'d Document, item: &Place<'d>, kind: &str) -> Vec<(String, bool, Place<'d>)> {
    let mut found = Vec::new();
    for list in ["parameters", "get/parameters"] {
        let count = document.below(item, list).and_then(|list| list.schema.as_array().map(Vec::len)).unwrap_or(0);
        for parameter in (0..count).filter_map(|index| document.below(item, &format!("{list}/{index}"))) {
            if parameter.schema["in"] == kind {
                let name = parameter.schema["name"].as_str().unwrap_or_default().to_owned();
                found.push((name, parameter.schema["required"] == true, parameter));
            }
        }
    }
    found
}

fn query(document: &Document, product: &mut Product, path: &str, item: &Place<'_>, report: &mut Report) {
    let at = concrete(path, "", "");
    let told = parameters(document, item, "query");
    let asked = |chosen: &[(&str, String)]| -> String {
        chosen.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect::<Vec<_>>().join("&")
    };
    // Of all sets of parameters, those that the parser takes: what is in one of them is read, what is in all of them required.
    let sets = (0..1usize << PARAMETERS.len()).map(|set| {
        let members = PARAMETERS.iter().enumerate().filter(|(index, _)| set >> index & 1 == 1);
        members.map(|(_, (name, value))| (*name, (*value).to_owned())).collect::<Vec<_>>()
    });
    let taken: Vec<Vec<(&str, String)>> =
        sets.filter(|set| product.accepts(Method::Get, &at, Some(&asked(set)), "").is_ok()).collect();
    for name in PARAMETERS.iter().map(|(name, _)| *name).chain(told.iter().map(|(name, ..)| name.as_str())) {
        let is_in = |set: &&Vec<(&str, String)>| set.iter().any(|(known, _)| *known == name);
        let by_code = match (taken.iter().find(is_in), taken.iter().all(|set| is_in(&set))) {
            (None, _) => "not read",
            (Some(_), true) => "required",
            (Some(_), false) => "optional",
        };
        let parameter = told.iter().find(|(known, ..)| known == name);
        let by_document = match parameter {
            None => "not read",
            Some((_, true, _)) => "required",
            Some((_, false, _)) => "optional",
        };
        if by_document != by_code {
            let pointer =
                parameter.map_or_else(|| format!("{}/get/parameters", item.pointer), |(.., place)| place.pointer.clone());
            report.add(&document.file, &pointer, format!("parameter {name} {by_document}"), by_code, SHAPE);
        }
    }
    let Some(full) = taken.into_iter().max_by_key(Vec::len) else { return };
    for (name, _, parameter) in told.iter().filter(|(name, ..)| full.iter().any(|(known, _)| known == name)) {
        let Some(schema) = document.below(parameter, "schema") else { continue };
        differ(document, &schema, name, report, probes::texts(), |text| {
            let mut chosen = full.clone();
            chosen.iter_mut().filter(|(known, _)| known == name).for_each(|(_, value)| text.clone_into(value));
            (probes::meanings(text), product.accepts(Method::Get, &at, Some(&asked(&chosen)), "").is_ok())
        });
    }
}

fn in_path(document: &Document, product: &mut Product, path: &str, item: &Place<'_>, report: &mut Report) {
    let told = parameters(document, item, "path");
    for (name, _, parameter) in &told {
        let Some(schema) = document.below(parameter, "schema") else { continue };
        differ(document, &schema, name, report, probes::texts(), |text| {
            let at = concrete(path, name, &percent_encoded(text));
            (probes::meanings(text), product.accepts(Method::Get, &at, None, "").is_ok())
        });
    }
}
