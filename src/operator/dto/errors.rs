//! Errors: every code that the document names, with its status and with what it says of retrying, against the table of this version.
use super::difference::{Report, SHAPE};
use super::schema::{Document, Place};
use crate::api::fault_refusal;
use crate::domain::{Code, Refusal};
use crate::http::Fault;
use serde_json::Value;
use std::collections::BTreeSet;

/// Holds the responses with errors against the table of codes.
pub fn check(document: &Document, report: &mut Report) {
    let mut named = BTreeSet::new();
    for (_, pointer) in document.components("responses") {
        let Some(response) = document.at(&pointer) else { continue };
        for (codes, status, place) in errors(document, &response) {
            let retryable: Vec<bool> = codes.iter().filter_map(|code| code_of(code)).map(Code::retryable).collect();
            for (index, name) in codes.iter().enumerate() {
                let told = format!("{name} with status {status}");
                let found = match code_of(name) {
                    None => "no such code".to_owned(),
                    Some(code) if has(code, status) => continue,
                    Some(code) => format!("status {}", Refusal::new(code, "").status),
                };
                report.add(&document.file, &format!("{}/code/enum/{index}", place.pointer), told, found, SHAPE);
            }
            named.extend(codes.into_iter().map(|code| (code, status)));
            let waits = response.schema["headers"].get("Retry-After").is_some();
            let (all, some) = (retryable.iter().all(|retryable| *retryable), retryable.contains(&true));
            if waits != some || some != all {
                let word = |retryable| if retryable { "with Retry-After" } else { "without Retry-After" };
                let found = if some { "the codes are retryable" } else { "no code of it is retryable" };
                report.add(&document.file, &format!("{pointer}/headers"), word(waits), found, SHAPE);
            }
        }
    }
    for code in Code::ALL {
        let status = Refusal::new(code, "").status;
        if !named.contains(&(code.as_str().to_owned(), status)) {
            let found = format!("{} with status {status}", code.as_str());
            report.add(&document.file, "/components/responses", format!("no {found}"), found, SHAPE);
        }
    }
    under_their_status(document, report);
}

/// Whether a code is ever sent with this status.
fn has(code: Code, status: u16) -> bool {
    let of_http = fault_refusal(&Fault { status, message: "".into(), close: true });
    // LIMITS_EXCEEDED and the others of the contract have their status by the code; what only HTTP refuses keeps the status of HTTP.
    Refusal::new(code, "").status == status || (of_http.code == code && HTTP.contains(&status))
}

/// Statuses of HTTP for which the contract has no code of their own.
const HTTP: [u16; 7] = [413, 414, 415, 417, 431, 501, 505];

fn code_of(name: &str) -> Option<Code> {
    Code::ALL.into_iter().find(|code| code.as_str() == name)
}

/// The codes of a response with their status, and where they stand.
fn errors<'d>(document: &'d Document, response: &Place<'d>) -> Vec<(Vec<String>, u16, Place<'d>)> {
    let Some(schema) = document.below(response, "content/application~1json/schema") else { return Vec::new() };
    let parts = schema.schema["allOf"].as_array().map_or(0, Vec::len);
    let properties = (0..parts).filter_map(|index| document.below(&schema, &format!("allOf/{index}/properties")));
    properties
        .filter_map(|place| {
            let status = place.schema["http"]["const"].as_u64().and_then(|status| u16::try_from(status).ok())?;
            let codes = place.schema["code"]["enum"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            Some((codes, status, place))
        })
        .collect()
}

/// A response stands under the status that its body tells.
fn under_their_status(document: &Document, report: &mut Report) {
    for (_, item) in document.paths() {
        for method in document.names(&item, "").iter().filter(|name| *name != "parameters") {
            for listed in document.names(&item, &format!("{method}/responses")) {
                let path = format!("{method}/responses/{listed}");
                let Some(response) = document.below(&item, &path) else { continue };
                for (_, status, _) in errors(document, &response) {
                    if listed != status.to_string() {
                        let pointer = format!("{}/{path}", item.pointer);
                        report.add(&document.file, &pointer, format!("status {listed}"), format!("status {status}"), SHAPE);
                    }
                }
            }
        }
    }
}
