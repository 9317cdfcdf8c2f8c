//! The script against a server that answers as a wallet would, and against one that does not.
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::operator::client::{Address, Client};
use crate::operator::fake::{reply, Fake};
use crate::operator::output::Output;

const SPENT: &str = r#"{"txid":"tx_1","op":"transfer","nonce":1}"#;
const HELD: &str = r#"{"txid":"tx_2","op":"hold","nonce":2}"#;

fn tokens() -> Tokens {
    let token = |name: &'static str| Token { name, secret: format!("secret-of-{name}") };
    Tokens { operator: token("operator"), reader: token("reader"), stranger: token("mallory") }
}

fn refused(status: u16, code: &str, rest: &str) -> Vec<u8> {
    reply(status, "", &format!("{{\"code\":\"{code}\"{rest}}}"))
}

fn first_replies() -> Vec<Vec<u8>> {
    vec![
        reply(200, "", r#"{"op":"issue","amount_minor":"1000"}"#),
        reply(200, "", SPENT),
        reply(200, "Idempotency-Replayed: true\r\n", SPENT),
        refused(409, "INSUFFICIENT_FUNDS", ""),
        refused(409, "NONCE_CONFLICT", r#","details":{"expected":2}"#),
        refused(401, "UNAUTHORIZED", ""),
        refused(403, "FORBIDDEN", ""),
        reply(200, "", HELD),
    ]
}

fn second_replies() -> Vec<Vec<u8>> {
    let balance = |amount: &str| reply(200, "", &format!(r#"{{"amount_minor":"{amount}","held_minor_units":"0"}}"#));
    vec![
        reply(200, "Idempotency-Replayed: true\r\n", SPENT),
        reply(200, "", HELD),
        reply(200, "", r#"{"op":"capture"}"#),
        reply(200, "", r#"{"op":"release"}"#),
        balance("550"),
        balance("250"),
        balance("200"),
        balance("0"),
    ]
}

/// Plays both acts on one connection; returns the stage and what the server was asked.
fn play(replies: Vec<Vec<u8>>) -> (Stage, Vec<String>) {
    let fake = Fake::start(vec![replies]);
    let client = Client::new(Address::Tcp(fake.address), Duration::from_secs(5));
    let quiet = Output { json: true, colour: false, hints: false };
    let mut stage = Stage::new(quiet, client, Arc::new(AtomicBool::new(false)));
    let tokens = tokens();
    let kept = first_act(&mut stage, &tokens).unwrap();
    second_act(&mut stage, &tokens, &kept).unwrap();
    (stage, fake.finish())
}

fn failed(stage: &Stage) -> Vec<(usize, String)> {
    let steps = stage.steps().iter();
    steps.flat_map(|step| step.checks.iter().filter(|check| !check.held).map(|check| (step.number, check.what.clone()))).collect()
}

#[test]
fn a_wallet_that_answers_rightly_passes() {
    let (stage, requests) = play([first_replies(), second_replies()].concat());
    assert_eq!(failed(&stage), []);
    assert_eq!(stage.steps().len(), 16);
    assert!(requests[0].contains("Authorization: Bearer secret-of-operator\r\n"), "{}", requests[0]);
    assert!(requests[5].contains("Bearer secret-of-mallory"), "{}", requests[5]);
    assert!(requests[9].starts_with("GET /v1/tx/tx_2 "), "{}", requests[9]);
    let posts = requests.iter().filter(|request| request.starts_with("POST"));
    assert!(posts.clone().all(|request| request.contains("Idempotency-Key: demo-")));
    assert_eq!(posts.count(), 11);
    assert_eq!(requests[1], requests[2], "the repeat has to be the very same request");
    assert_eq!(requests[1], requests[8], "also after the crash");
    let shown: String = stage.steps().iter().map(|step| step.to_json().to_string()).collect();
    assert!(!shown.contains("secret-of"), "a token got into a step");
}

#[test]
fn a_wallet_that_pays_twice_or_forgets_is_found_out() {
    let mut replies = [first_replies(), second_replies()].concat();
    replies[2] = reply(200, "", r#"{"txid":"tx_9","op":"transfer","nonce":2}"#);
    replies[3] = reply(200, "", r#"{"op":"transfer"}"#);
    replies[9] = refused(404, "NOT_FOUND", "");
    replies[13] = reply(200, "", r#"{"amount_minor":"500","held_minor_units":"0"}"#);
    let (stage, _) = play(replies);
    let steps: Vec<usize> = failed(&stage).into_iter().map(|(number, _)| number).collect();
    assert_eq!(steps, [3, 3, 4, 10, 10, 14]);
}

#[test]
fn a_server_that_goes_away_ends_the_play() {
    let fake = Fake::start(vec![first_replies()[..1].to_vec()]);
    let client = Client::new(Address::Tcp(fake.address), Duration::from_secs(5));
    let quiet = Output { json: true, colour: false, hints: false };
    let mut stage = Stage::new(quiet, client, Arc::new(AtomicBool::new(false)));
    let failure = first_act(&mut stage, &tokens()).err().unwrap();
    assert_eq!(failure.exit, crate::operator::exit::Exit::Unreachable);
    assert!(failure.message.contains("Alice spends 250"), "{failure}");
    fake.finish();
}

#[test]
fn ctrl_c_ends_the_play_before_the_next_request() {
    let fake = Fake::start(vec![]);
    let client = Client::new(Address::Tcp(fake.address), Duration::from_secs(5));
    let quiet = Output { json: true, colour: false, hints: false };
    let mut stage = Stage::new(quiet, client, Arc::new(AtomicBool::new(true)));
    assert!(first_act(&mut stage, &tokens()).err().unwrap().message.contains("interrupted"));
    assert!(fake.finish().is_empty());
}
