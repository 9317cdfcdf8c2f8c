//! One engine with the answers of a ledger that the test makes up: what the random histories of `tests/simulation` hardly reach.
use super::*;
use crate::domain::{Account, Amount, Asset, Draft, Key, Nonce, Op, TokenId};

const TTL_MS: u64 = 1000;

fn entry(op: Op, account: &str, nonce: u64, ts: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let name = Account::new(account);
    let draft = Draft {
        op,
        from: name.filter(|_| op.debits()),
        to: if op.debits() { Account::new("somebody") } else { name },
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(5).unwrap(),
        nonce: Some(Nonce(nonce)),
        key: Key::new("the-key").unwrap(),
        memo: None,
        corr: "c",
        token: TokenId::default(),
        ceiling: false,
        ts: UnixMs(ts),
    };
    draft.encode(&mut bytes);
    bytes
}

/// What the engine said and asked, in short.
#[derive(Default)]
struct Said {
    asked: Vec<Repeat>,
    replies: Vec<String>,
}

impl Output for Said {
    fn reply(&mut self, _: Ticket, outcome: Outcome<'_>) {
        self.replies.push(match outcome {
            Outcome::Receipt { seq, replayed, .. } => format!("receipt of {} replayed {replayed}", seq.0),
            Outcome::Refused(refusal) => refusal.code.as_str().to_owned(),
            Outcome::Balance { .. } | Outcome::LastNonce { .. } => unreachable!("no reads are made here"),
        });
    }

    fn ask(&mut self, repeat: Repeat) -> Result<(), Repeat> {
        self.asked.push(repeat);
        Ok(())
    }
}

/// A debit whose key was forgotten, and then an issue to the same account with the same key and the same number: the repeat of the
/// debit still gets the receipt of the debit.
#[test]
fn a_later_issue_with_the_same_key_and_number_hides_no_debit() {
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: TTL_MS, keys_max: 1 << 20 };
    let mut engine = Engine::new(CoreId(0), Ring::new(1), settings);
    let now = UnixMs(100 * TTL_MS);
    let funding = entry(Op::Issue, "a", 9, 1);
    let debit = entry(Op::Transfer, "a", 1, 2);
    let issue = entry(Op::Issue, "a", 1, now.0 - 1);
    for (seq, bytes) in (1..).zip([&funding, &debit, &issue]) {
        engine.replay(&own_entry(bytes), Seq(seq), now).unwrap();
    }
    let found = |bytes: &[u8], seq| Found { entry: bytes.into(), seq: Seq(seq), root: [0; 32] };
    let ticket = Ticket { core: CoreId(0), connection: 0, generation: 0, request: 0 };
    let mut said = Said::default();
    engine.submit(ticket, Request::Write { entry: own_entry(&debit), ceiling: None }, Gate::Open, &mut said);
    let repeat = said.asked.pop().expect("the key is known");
    assert_eq!(repeat.question, Question::At(Seq(3)));
    engine.answered(repeat, Some(found(&issue, 3)), Gate::Open, &mut said);
    let repeat = said.asked.pop().unwrap_or_else(|| panic!("not looked for by its nonce: {:?}", said.replies));
    assert_eq!(repeat.question, Question::Debit { account: "a".into(), nonce: Nonce(1) });
    engine.answered(repeat, Some(found(&debit, 2)), Gate::Open, &mut said);
    assert_eq!(said.replies, ["receipt of 2 replayed true"]);
}
