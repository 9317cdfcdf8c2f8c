//! What the demonstration shows: the requests of its two acts, in plain words, and what each has to bring.
//!
//! Between the acts the server is killed. This file does not know how; it only carries over what has to be there afterwards.
use super::scene::{Ask, Expect, Stage, Token};
use crate::operator::client::Reply;
use crate::operator::exit::Failure;

/// The capabilities that the script uses.
pub struct Tokens {
    /// May do everything.
    pub operator: Token,
    /// May only read.
    pub reader: Token,
    /// Made with a key that the server does not have.
    pub stranger: Token,
}

/// What the first act leaves behind: the receipts that the second one looks for.
pub struct Kept {
    spend: Reply,
    hold: Reply,
}

/// Entries that both acts together put into the ledger.
pub const ENTRIES: u64 = 5;

const SPEND: &str = r#"{"from":"alice","to":"bob","asset":"roc","amount_minor":"250","nonce":1}"#;
const HOLD: &str = r#"{"from":"alice","to":"escrow:order-7","asset":"roc","amount_minor":"300","nonce":2}"#;

fn post<'a>(token: &'a Token, target: &'a str, key: &'a str, body: &'a str) -> Ask<'a> {
    Ask { title: "", why: "", token: Some(token), method: "POST", target, key: Some(key), body: Some(body) }
}

fn get<'a>(token: &'a Token, target: &'a str) -> Ask<'a> {
    Ask { title: "", why: "", token: Some(token), method: "GET", target, key: None, body: None }
}

/// Issue, spend, and everything that the wallet has to refuse; ends with a hold.
pub fn first_act(stage: &mut Stage, tokens: &Tokens) -> Result<Kept, Failure> {
    let operator = &tokens.operator;
    stage.ask(
        Ask {
            title: "Issue 1000 roc to alice",
            why: "Value comes into being here and nowhere else. Amounts are whole minor units, written as strings.",
            ..post(operator, "/v1/issue", "demo-issue", r#"{"to":"alice","asset":"roc","amount_minor":"1000","memo":"welcome"}"#)
        },
        &[Expect::Accepted, Expect::Member("/amount_minor", "1000")],
    )?;
    let spend = post(operator, "/wallet/spend", "demo-spend", SPEND);
    let first = stage.ask(
        Ask {
            title: "Alice spends 250 with bob",
            why: "Each debit of an account carries the next number (nonce) and a key of the client's choice. \
                  When this receipt arrives, the spend is on the disk.",
            ..spend
        },
        &[Expect::Accepted, Expect::Member("/nonce", "1")],
    )?;
    stage.ask(
        Ask {
            title: "The very same request once more",
            why: "A client that never saw the reply simply repeats. It gets the first receipt; nothing moves twice.",
            ..spend
        },
        &[Expect::Accepted, Expect::Header("Idempotency-Replayed", "true"), Expect::SameBytes("the first receipt", &first.body)],
    )?;
    stage.ask(
        Ask {
            title: "Alice tries to spend 5000",
            why: "She has 750. A balance never goes below zero, and a refusal consumes neither nonce nor key.",
            ..post(
                operator,
                "/wallet/spend",
                "demo-too-much",
                r#"{"from":"alice","to":"bob","asset":"roc","amount_minor":"5000","nonce":2}"#,
            )
        },
        &[Expect::Refused(409, "INSUFFICIENT_FUNDS")],
    )?;
    stage.ask(
        Ask {
            title: "Nonce 1 a second time, for something else",
            why: "A number is good for one debit. The reply says which number is next, so that a client can recover.",
            ..post(
                operator,
                "/wallet/spend",
                "demo-old-nonce",
                r#"{"from":"alice","to":"carol","asset":"roc","amount_minor":"10","nonce":1}"#,
            )
        },
        &[Expect::Refused(409, "NONCE_CONFLICT"), Expect::Member("/details/expected", "2")],
    )?;
    refused_for_want_of_authority(stage, tokens)?;
    let hold = stage.ask(
        Ask {
            title: "Alice reserves 300 for order 7",
            why: "A hold moves value into an escrow account, where only a capture or a release can touch it.",
            ..post(operator, "/v1/hold", "demo-hold", HOLD)
        },
        &[Expect::Accepted, Expect::Member("/op", "hold")],
    )?;
    Ok(Kept { spend: first, hold })
}

fn refused_for_want_of_authority(stage: &mut Stage, tokens: &Tokens) -> Result<(), Failure> {
    let body = r#"{"from":"alice","to":"mallory","asset":"roc","amount_minor":"750","nonce":2}"#;
    stage.ask(
        Ask {
            title: "Mallory signs a token of her own",
            why: "It looks like a token, but no key of this server made it.",
            ..post(&tokens.stranger, "/wallet/spend", "demo-forged", body)
        },
        &[Expect::Refused(401, "UNAUTHORIZED")],
    )?;
    stage.ask(
        Ask {
            title: "A token for reading tries to spend",
            why: "It is genuine, but narrowed to reading. Anyone can narrow a token, nobody can widen one.",
            ..post(&tokens.reader, "/wallet/spend", "demo-reader", body)
        },
        &[Expect::Refused(403, "FORBIDDEN")],
    )?;
    Ok(())
}

/// After the crash: everything is still there, and business goes on where it was.
pub fn second_act(stage: &mut Stage, tokens: &Tokens, kept: &Kept) -> Result<(), Failure> {
    let (operator, reader) = (&tokens.operator, &tokens.reader);
    stage.ask(
        Ask {
            title: "The spend from before the crash, repeated",
            why: "The client cannot know what the crash did to its request, so it asks again with the same key.",
            ..post(operator, "/wallet/spend", "demo-spend", SPEND)
        },
        &[
            Expect::Accepted,
            Expect::Header("Idempotency-Replayed", "true"),
            Expect::SameBytes("the receipt from before the crash", &kept.spend.body),
        ],
    )?;
    let txid = kept.hold.json()["txid"].as_str().unwrap_or_default().to_owned();
    stage.ask(
        Ask {
            title: "Look up the hold by its transaction id",
            why: "The id leads straight to the ledger entry.",
            ..get(reader, &format!("/v1/tx/{txid}"))
        },
        &[Expect::Accepted, Expect::SameBytes("the receipt from before the crash", &kept.hold.body)],
    )?;
    stage.ask(
        Ask {
            title: "The shop captures 200 of the 300",
            why: "The escrow account pays; it counts its own debits, so this is its nonce 1.",
            ..post(
                operator,
                "/v1/capture",
                "demo-capture",
                r#"{"from":"escrow:order-7","to":"shop","asset":"roc","amount_minor":"200","nonce":1}"#,
            )
        },
        &[Expect::Accepted, Expect::Member("/op", "capture")],
    )?;
    stage.ask(
        Ask {
            title: "The rest goes back to alice",
            why: "A release returns what a hold did not need.",
            ..post(
                operator,
                "/v1/release",
                "demo-release",
                r#"{"from":"escrow:order-7","to":"alice","asset":"roc","amount_minor":"100","nonce":2}"#,
            )
        },
        &[Expect::Accepted, Expect::Member("/op", "release")],
    )?;
    balances(stage, reader)
}

fn balances(stage: &mut Stage, reader: &Token) -> Result<(), Failure> {
    let rows = [
        ("alice", "550", "1000 issued, 250 spent, 300 held, 100 of them returned."),
        ("bob", "250", "Once, although the spend was sent three times."),
        ("shop", "200", "The captured part."),
        ("escrow:order-7", "0", "Captured and released in full. All four together are the 1000 that were issued."),
    ];
    for (account, amount, why) in rows {
        let title = format!("How much has {account}?");
        let target = format!("/v1/balance?account={account}&asset=roc");
        stage.ask(
            Ask { title: &title, why, ..get(reader, &target) },
            &[Expect::Accepted, Expect::Member("/amount_minor", amount), Expect::Member("/held_minor_units", "0")],
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
