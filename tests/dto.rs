//! `ronctl dto lint`, as a library and as an installed program: what is shipped has no difference, and of damaged copies every kind of damage
//! is found, at its place and in words.
#![allow(clippy::unwrap_used)] // Everything in this file is a test.
use std::path::Path;
use std::process::{Command, Output};
use svc_wallet::operator::dto::{lint, Copies};

#[test]
fn this_version_has_the_shapes_that_are_written_down() {
    let report = lint(&Copies::built_in()).unwrap();
    assert_eq!(report.differences.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    assert!(report.schemas > 30 && report.values > 10_000 && report.vectors >= 90, "{report:?}");
}

/// What is damaged in the document, where that is told, and a part of what is said.
const DOCUMENT: &[(&str, &str, &str, &str)] = &[
    // Names of fields: one too many, one too few, in requests and replies.
    (
        "        memo: {$ref: '#/components/schemas/Memo'}\n    TransferBody",
        "    TransferBody",
        "/schemas/IssueBody/properties/memo",
        "no field memo; found the parser reads it",
    ),
    (
        "{schema: {$ref: '#/components/schemas/BurnBody'}}",
        "{schema: {$ref: '#/components/schemas/TransferBody'}}",
        "/schemas/TransferBody/properties/to",
        "burn has a field to; found the parser refuses it as unknown",
    ),
    (
        "stale_ms: {type: integer, minimum: 0}",
        "stale: {type: integer, minimum: 0}",
        "/schemas/Balance/properties/stale_ms",
        "no member stale_ms; found it is written",
    ),
    (
        "stale_ms: {type: integer, minimum: 0}",
        "stale: {type: integer, minimum: 0}",
        "/schemas/Balance/properties/stale",
        "found it is never written",
    ),
    // Required or not.
    (
        "required: [to, asset, amount_minor]",
        "required: [to, asset]",
        "/schemas/IssueBody/required",
        "issue without amount_minor: accepted; found refused",
    ),
    (
        "required: [to, asset, amount_minor]",
        "required: [to, asset, amount_minor, memo]",
        "/schemas/IssueBody/required",
        "issue without memo: refused; found accepted",
    ),
    (
        "required: [txid, op, asset,",
        "required: [txid, op, from, asset,",
        "/schemas/Receipt/required",
        "from always there; found not always there",
    ),
    (
        "required: [account, last_nonce, next_nonce, as_of]",
        "required: [account, last_nonce, next_nonce]",
        "/schemas/LastNonce/required",
        "as_of not always there; found always there",
    ),
    // Types, patterns and bounds, wider and narrower than they are.
    ("'^[A-Za-z0-9:/_-]{1,256}$'", "'^[A-Za-z0-9:/_-]{1,128}$'", "/schemas/Account/pattern", "refused; found accepted"),
    ("'^[A-Za-z0-9:/_-]{1,256}$'", "'^[A-Za-z0-9:/_-]{1,}$'", "/schemas/Account", "accepted; found refused"),
    ("'^[A-Za-z0-9:/_-]{1,256}$'", "'^[A-Za-z0-9:/_.-]{1,256}$'", "/schemas/Account", "1.0: accepted; found refused"),
    ("'^[A-Za-z0-9:/_-]{1,256}$'", "'^[A-Za-z0-9:/_-]{1,256}'", "/schemas/Account", "accepted; found refused"),
    ("'^[a-z0-9_]{1,16}$'", "'^[a-z0-9_]{1,15}$'", "/schemas/Asset/pattern", "refused; found accepted"),
    ("- {type: integer, minimum: 1}", "- {type: boolean}", "/schemas/Amount/oneOf", "amount_minor = 1: refused; found accepted"),
    ("'^[1-9][0-9]{0,38}$'", "'^[0-9]{1,39}$'", "/schemas/Amount", "amount_minor = \\\"0\\\": accepted; found refused"),
    (
        "maximum: 18446744073709551615\n      examples: [7]\n    Key",
        "maximum: 9007199254740991\n      examples: [7]\n    Key",
        "/schemas/Nonce/maximum",
        "nonce = 18446744073709551615: refused; found accepted",
    ),
    (
        "maximum: 18446744073709551615\n      examples: [7]\n    Key",
        "examples: [7]\n    Key",
        "/schemas/Nonce",
        "nonce = 20000000000000000000: accepted; found refused",
    ),
    (
        "type: [string, 'null']\n      maxLength: 256",
        "type: string\n      maxLength: 256",
        "/schemas/Memo/type",
        "memo = null: refused; found accepted",
    ),
    (
        "type: [string, 'null']\n      maxLength: 256",
        "type: [string, 'null']\n      maxLength: 512",
        "/schemas/Memo",
        "(259 characters): accepted; found refused",
    ),
    (
        "minimum: 1, maximum: 100, examples: [20]",
        "minimum: 1, maximum: 101, examples: [20]",
        "/parameters/LimitQuery/schema",
        "limit = 101: accepted; found refused",
    ),
    ("'^tx_[0-7][0-9A-HJKMNP-TV-Z]{25}$'", "'^tx_[0-9A-HJKMNP-TV-Z]{26}$'", "/schemas/Txid", "txid = "),
    (
        "enum: [issue, transfer, burn, hold, capture, release]}",
        "enum: [issue, transfer, burn, hold, capture, release, refund]}",
        "/schemas/Receipt/properties/op",
        "op = \\\"refund\\\": possible; found never",
    ),
    (
        "enum: [issue, transfer, burn, hold, capture, release]}",
        "enum: [transfer, burn, hold, capture, release]}",
        "/schemas/Receipt/properties/op/enum",
        "found ",
    ),
    (
        "settlement_status: {type: string, const: accepted}",
        "settlement_status: {type: string, const: settled}",
        "/schemas/Receipt/properties/settlement_status/const",
        "found ",
    ),
    ("'^b3:[0-9a-f]{64}$'", "'^b3:[0-9a-fA-F]{64}$'", "/schemas/Receipt/properties/receipt_hash", "found "),
    (
        "amount_minor: {$ref: '#/components/schemas/Units'}\n        held_minor_units",
        "amount_minor: {type: integer}\n        held_minor_units",
        "/schemas/Balance/properties/amount_minor/type",
        "found ",
    ),
    // Unknown fields are refused, and never written.
    (
        "TransferBody:\n      type: object\n      additionalProperties: false",
        "TransferBody:\n      type: object",
        "/schemas/TransferBody/additionalProperties",
        "an unknown field: accepted; found refused",
    ),
    (
        "Totals:\n      type: object\n      additionalProperties: false",
        "Totals:\n      type: object\n      additionalProperties: true",
        "/schemas/Totals/additionalProperties",
        "found no other member is ever written",
    ),
    // The order of a receipt.
    (
        "idem: {$ref: '#/components/schemas/Key'}\n        ts: {type: integer, minimum: 0, description: Unix milliseconds.}",
        "ts: {type: integer, minimum: 0, description: Unix milliseconds.}\n        idem: {$ref: '#/components/schemas/Key'}",
        "/schemas/Receipt/properties",
        "nonce, ts, idem, ledger_seq_start",
    ),
    // Parameters.
    (
        "      name: size\n      in: query\n      required: false",
        "      name: size\n      in: query\n      required: true",
        "/parameters/SizeQuery",
        "parameter size required; found optional",
    ),
    (
        "          - $ref: '#/components/parameters/AssetQuery'\n          - $ref: '#/components/parameters/CorrelationId'",
        "          - $ref: '#/components/parameters/CorrelationId'",
        "/pathItems/Balance/get/parameters",
        "parameter asset not read; found required",
    ),
    ("      name: cursor\n", "      name: page\n", "/parameters/CursorQuery", "parameter page optional; found not read"),
    // Codes, their status, and whether they may be retried.
    (
        "code: {enum: [FORBIDDEN, LIMITS_EXCEEDED]}",
        "code: {enum: [FORBIDDEN, LIMIT_EXCEEDED]}",
        "/code/enum/1",
        "LIMIT_EXCEEDED with status 403; found no such code",
    ),
    (
        "code: {enum: [NOT_FOUND]}\n                  http: {const: 404}",
        "code: {enum: [NOT_FOUND]}\n                  http: {const: 410}",
        "/code/enum/0",
        "NOT_FOUND with status 410; found status 404",
    ),
    (
        "code: {enum: [BUSY]}\n                  http: {const: 429}",
        "code: {enum: []}\n                  http: {const: 429}",
        "/components/responses",
        "no BUSY with status 429",
    ),
    (
        "Too much at once.\n      headers:",
        "Too much at once.\n      head:",
        "/responses/Busy/headers",
        "without Retry-After; found the codes are retryable",
    ),
    (
        "          '429': {$ref: '#/components/responses/Busy'}\n          '431'",
        "          '428': {$ref: '#/components/responses/Busy'}\n          '431'",
        "/responses/428",
        "status 428; found status 429",
    ),
    // What cannot be checked.
    (
        "      maxLength: 256\n",
        "      maxLength: 256\n      multipleOf: 2\n",
        "/schemas/Memo/multipleOf",
        "a keyword that is not understood",
    ),
    (
        "{$ref: '#/components/schemas/Memo'}",
        "{$ref: '#/components/schemas/Memory'}",
        "/properties/memo/$ref",
        "the reference leads nowhere",
    ),
];

/// The same for the vectors: the file, the damage, place and words.
const VECTORS: &[(&str, &str, &str, &str, &str)] = &[
    ("requests", "\"nonce\": 7,", "\"nonce\": 8,", "/0/expect/entry/nonce", "expected 8; found 7"),
    ("requests", "\"memo\": null", "\"note\": null", "/0/expect/entry/note", "found no such member"),
    (
        "requests",
        "\"same_request_as\": \"transfer\"",
        "\"same_request_as\": \"another key\"",
        "/1/same_request_as",
        "found the request transfer",
    ),
    (
        "requests",
        ",\\\"nonce\\\":7}",
        ",\\\"nonce\\\":\\\"7\\\"}",
        "/0/expect",
        "found 400 BAD_REQUEST: nonce: not a JSON integer",
    ),
    (
        "requests",
        "\"code\": \"BAD_REQUEST\"",
        "\"code\": \"MALFORMED\"",
        "/expect/refusal/code",
        "\"MALFORMED\"; found 400 BAD_REQUEST",
    ),
    ("requests", "\"http\": 400", "\"http\": 422", "/expect/refusal/http", "expected 422; found 400"),
    ("requests", "\"name\": \"transfer\",", "\"names\": \"transfer\",", "/0", "unknown field `names`"),
    ("requests", "[", "", "", "a list in JSON"),
    (
        "receipts",
        "\\\"op\\\":\\\"transfer\\\",\\\"from\\\"",
        "\\\"op\\\":\\\"spend\\\",\\\"from\\\"",
        "/0/receipt/op",
        "\"spend\"; found \"transfer\"",
    ),
    ("receipts", "b3:ffd65a8e", "b3:ffd65a8f", "/0/receipt/receipt_hash", "b3:ffd65a8f"),
    (
        "receipts",
        "{\\\"txid\\\":\\\"tx_0000000000000R3TNRRX8A067C\\\",\\\"op\\\":\\\"transfer\\\",",
        "{\\\"op\\\":\\\"transfer\\\",\\\"txid\\\":\\\"tx_0000000000000R3TNRRX8A067C\\\",",
        "/0/receipt",
        "the order op, txid, from",
    ),
    ("receipts", "\"receipt\": \"{\\\"txid\\\":\\\"", "\"receipt\": \"{ \\\"txid\\\":\\\"", "/0/receipt", "receipts are compact"),
    (
        "receipts",
        "\"canonical\": \"{\\\"amount_minor\\\":\\\"42\\\"",
        "\"canonical\": \"{\\\"amount_minor\\\":\\\"43\\\"",
        "/0/canonical",
        "43",
    ),
    ("receipts", "\"seq\": 1,", "\"seq\": 2,", "/0/receipt/txid", "found "),
    ("receipts", "\"op\": \"transfer\"", "\"op\": \"spend\"", "/0/entry", "is not one of this API"),
    ("errors", "\\\"retryable\\\":false", "\\\"retryable\\\":true", "/0/body/retryable", "expected true; found false"),
    ("errors", "\"status\": 401", "\"status\": 403", "/1/status", "expected 403; found 401"),
    ("errors", "\"code\": \"FORBIDDEN\"", "\"code\": \"DENIED\"", "/2/code", "DENIED; found no such code"),
    ("errors", "\"code\": \"FORBIDDEN\"", "\"code\": \"DENIED\"", "", "no vector of FORBIDDEN"),
    ("errors", "\"Retry-After\": \"1\"", "\"Retry-After\": \"5\"", "/headers", "\"Retry-After\": \"5\""),
    ("errors", "\\\"corr_id\\\":\\\"corr-1\\\"}", "\\\"corr\\\":\\\"corr-1\\\"}", "/0/body/corr_id", "no such member"),
];

fn damaged(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the damage hits nothing: {from}");
    text.replacen(from, to, 1)
}

#[test]
fn every_kind_of_damage_to_the_document_is_found() {
    let (good, mut missed) = (Copies::built_in(), Vec::new());
    for (from, to, pointer, words) in DOCUMENT {
        let mut copies = good.clone();
        copies.openapi = ("copy.yaml".to_owned(), damaged(&good.openapi.1, from, to));
        let told = lint(&copies).unwrap().differences;
        let words = words.replace("\\\"", "\"");
        let found =
            told.iter().any(|one| one.file == "copy.yaml" && one.pointer.contains(pointer) && one.to_string().contains(&words));
        missed.extend((!found).then(|| format!("{from} -> {to}: not told at {pointer}: {words}; but {told:#?}")));
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_kind_of_damage_to_the_vectors_is_found() {
    let good = Copies::built_in();
    for (file, from, to, pointer, words) in VECTORS {
        let mut copies = good.clone();
        let text = match *file {
            "requests" => &mut copies.vectors.requests.1,
            "receipts" => &mut copies.vectors.receipts.1,
            _ => &mut copies.vectors.errors.1,
        };
        *text = damaged(text, from, to);
        let told = lint(&copies).unwrap().differences;
        let found =
            told.iter().any(|one| one.file.contains(file) && one.pointer.ends_with(pointer) && one.to_string().contains(words));
        assert!(found, "{file}: {from} -> {to}: not told at {pointer}: {words}; but {told:#?}");
    }
}

/// The program where there are neither sources nor a configuration.
fn installed(directory: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ronctl")).args(arguments.split(' ')).current_dir(directory).env_clear().output().unwrap()
}

#[test]
fn an_installed_program_checks_what_is_built_in_and_other_copies() {
    let directory = tempfile::tempdir().unwrap();
    let told = installed(directory.path(), "dto lint svc-wallet");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!((told.status.code(), text(&told.stderr)), (Some(0), String::new()));
    assert!(text(&told.stdout).starts_with("svc-wallet: no difference in "), "{}", text(&told.stdout));

    let copies = Copies::built_in();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("openapi.yaml", &damaged(&copies.openapi.1, "{1,64}$", "{1,32}$"));
    write("requests.json", &copies.vectors.requests.1);
    write("receipts.json", &copies.vectors.receipts.1);
    write("errors.json", &damaged(&copies.vectors.errors.1, "\"status\": 401", "\"status\": 403"));
    let told = installed(directory.path(), "dto lint svc-wallet --openapi openapi.yaml --vectors .");
    assert_eq!((told.status.code(), text(&told.stderr)), (Some(1), String::new()));
    let lines = text(&told.stdout);
    for part in [
        "openapi.yaml /components/schemas/Key/pattern: expected ",
        "./errors.json /1/status: expected 403; found 401; ",
        "svc-wallet: ",
    ] {
        assert!(lines.lines().any(|line| line.starts_with(part)), "{part}: {lines}");
    }
    let told = installed(directory.path(), "--json dto lint svc-wallet --vectors .");
    let json: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (told.status.code(), &json["ok"], &json["differences"][0]["pointer"]),
        (Some(1), &false.into(), &"/1/status".into())
    );

    for (arguments, part) in [
        ("dto lint svc-rewarder", "svc-rewarder is not known here"),
        ("dto lint svc-wallet --openapi nothing.yaml", "nothing.yaml: No such file"),
        ("dto lint svc-wallet --openapi errors.json", "errors.json: no OpenAPI document"),
        ("dto lint svc-wallet --vectors /nonexistent", "/nonexistent/requests.json: No such file"),
    ] {
        let told = installed(directory.path(), arguments);
        assert_eq!((told.status.code(), text(&told.stdout)), (Some(2), String::new()), "{arguments}");
        let said = text(&told.stderr);
        assert!(said.contains(part) && said.contains("next: "), "{arguments}: {said}");
    }
}
