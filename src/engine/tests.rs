//! One engine with the answers of a ledger that the test makes up: what the random histories of `tests/simulation` hardly reach.
use super::*;
use crate::domain::{Account, Amount, Asset, Draft, Key, Nonce, Op, TokenId};

const TTL_MS: u64 = 1000;

fn entry(op: Op, account: &str, nonce: u64, ts: u64) -> Vec<u8> {
    keyed(op, account, nonce, ts, "the-key")
}

fn keyed(op: Op, account: &str, nonce: u64, ts: u64, key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let name = Account::new(account);
    let draft = Draft {
        op,
        from: name.filter(|_| op.debits()),
        to: if op.debits() { Account::new("somebody") } else { name },
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(5).unwrap(),
        nonce: Some(Nonce(nonce)),
        key: Key::new(key).unwrap(),
        memo: None,
        corr: "c",
        token: TokenId::default(),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(ts),
    };
    draft.encode(&mut bytes);
    bytes
}

/// What the engine said and asked, in short.
#[derive(Default)]
struct Said {
    asked: Vec<Repeat>,
    /// Whether the ledger takes no question.
    full: bool,
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
        if self.full {
            return Err(repeat);
        }
        self.asked.push(repeat);
        Ok(())
    }
}

const TICKET: Ticket = Ticket { core: CoreId(0), connection: 0, generation: 0, request: 0 };
const NOW: u64 = 100 * TTL_MS;

fn found(bytes: &[u8], seq: u64) -> Option<Found> {
    Some(Found { entry: bytes.into(), seq: Seq(seq), root: [0; 32] })
}

/// An engine that remembers few keys, with a funded account `a`, and what it says.
struct Small {
    engine: Engine,
    said: Said,
    next: u64,
}

impl Small {
    fn new() -> Self {
        let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: TTL_MS, keys_max: 16 };
        let mut engine = Engine::new(CoreId(0), Ring::new(1), settings, &Budgets::default());
        let mut funding = Vec::new();
        let entry = keyed(Op::Issue, "a", 1, NOW, "funding");
        let draft = Draft { amount: Amount::new(1_000_000).unwrap(), ..draft_of(&own_entry(&entry)) };
        draft.encode(&mut funding);
        engine.replay(&own_entry(&funding), Seq(1), UnixMs(NOW)).unwrap();
        Self { engine, said: Said::default(), next: 2 }
    }

    fn submit(&mut self, bytes: &[u8]) {
        self.engine.submit(
            TICKET,
            Request::Write { entry: own_entry(bytes), allowance: Allowance::default() },
            Gate::Open,
            &mut self.said,
        );
    }

    /// Everything that was reserved becomes durable.
    fn commit(&mut self) {
        while let Some(batch) = self.engine.take_batch() {
            let first_seq = Seq(self.next);
            self.next += u64::from(batch.count);
            self.engine.committed(Durable { batch, first_seq, root: [0; 32] }, &mut self.said);
        }
    }

    /// Debits with keys of their own, one after the other, which must not need the ledger.
    fn spend(&mut self, nonces: std::ops::RangeInclusive<u64>) {
        for nonce in nonces {
            self.submit(&keyed(Op::Transfer, "a", nonce, NOW, &format!("k{nonce}")));
            self.commit();
            while let Some(mistaken) = self.said.asked.pop() {
                self.engine.answered(mistaken, None, Gate::Open, &mut self.said);
                self.commit();
            }
            let last = self.said.replies.pop().unwrap();
            assert!(last.starts_with("receipt of"), "{nonce}: {last}");
        }
    }

    fn asked(&mut self) -> Repeat {
        self.said.asked.pop().unwrap_or_else(|| panic!("nothing was asked: {:?}", self.said.replies))
    }

    fn answer(&mut self, repeat: Repeat, found: Option<Found>) {
        self.engine.answered(repeat, found, Gate::Open, &mut self.said);
    }
}

fn draft_of<'e>(entry: &Entry<'e>) -> Draft<'e> {
    Draft {
        op: entry.op(),
        from: entry.from(),
        to: entry.to(),
        asset: entry.asset(),
        amount: entry.amount(),
        nonce: entry.nonce(),
        key: entry.key(),
        memo: entry.memo(),
        corr: entry.corr(),
        token: entry.token(),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: entry.ts(),
    }
}

fn key_of(question: &Question) -> (&str, &str) {
    let Question::Key(wanted) = question else { panic!("{question:?}") };
    (&wanted.account, &wanted.key)
}

#[test]
fn a_key_that_was_pushed_out_is_looked_up_before_it_is_used_again() {
    let mut small = Small::new();
    small.spend(1..=40);
    let first = keyed(Op::Transfer, "a", 3, NOW, "k3");
    let other = keyed(Op::Transfer, "a", 41, NOW + 10, "k3");
    small.submit(&other);
    let repeat = small.asked();
    assert_eq!(key_of(&repeat.question), ("a", "k3"));
    small.answer(repeat, found(&first, 4));
    assert_eq!(small.said.replies.pop().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    small.submit(&first);
    let repeat = small.asked();
    assert_eq!(key_of(&repeat.question), ("a", "k3"));
    small.answer(repeat, found(&first, 4));
    assert_eq!(small.said.replies.pop().as_deref(), Some("receipt of 4 replayed true"));

    // Used again when its time was over: then it is a key like any other.
    let later = keyed(Op::Transfer, "a", 41, NOW + TTL_MS, "k3");
    small.submit(&later);
    let repeat = small.asked();
    small.answer(repeat, found(&first, 4));
    small.commit();
    assert_eq!(small.said.replies.pop().as_deref(), Some("receipt of 42 replayed false"));
    assert!(small.said.asked.is_empty() && small.said.replies.is_empty());
}

#[test]
fn a_key_that_only_looks_forgotten_is_used() {
    let mut small = Small::new();
    small.engine.forget_known(KeyId::of(Account::new("a").unwrap(), Key::new("k1").unwrap()), at(NOW));
    let bytes = keyed(Op::Transfer, "a", 1, NOW, "k1");
    small.submit(&bytes);
    let repeat = small.asked();
    small.submit(&bytes);
    small.submit(&keyed(Op::Transfer, "a", 2, NOW, "k2"));
    assert!(small.said.replies.is_empty() && small.said.asked.is_empty(), "those behind it wait");
    small.answer(repeat, None);
    small.commit();
    let expected = ["receipt of 2 replayed false", "receipt of 2 replayed true", "receipt of 3 replayed false"];
    assert_eq!(small.said.replies, expected, "in their order");
}

fn at(ms: u64) -> Period {
    Period { first: UnixMs(ms), last: UnixMs(ms) }
}

#[test]
fn debits_behind_one_that_cannot_be_looked_up_are_decided_all_the_same() {
    let mut small = Small::new();
    small.engine.forget_known(KeyId::of(Account::new("a").unwrap(), Key::new("k1").unwrap()), at(NOW));
    for refused_at_once in [false, true] {
        small.said.full = refused_at_once;
        small.submit(&keyed(Op::Transfer, "a", 1, NOW, "k1"));
        small.submit(&keyed(Op::Transfer, "a", 1, NOW, "other"));
        if !refused_at_once {
            let repeat = small.asked();
            let refusal = Refusal::new(Code::InternalError, "unreadable");
            small.engine.unanswered(repeat, refusal, Gate::NotReady, &mut small.said);
        }
        small.commit();
        let expected = if refused_at_once { ["BUSY", "receipt of 2 replayed false"] } else { ["INTERNAL_ERROR", "RETRY_LATER"] };
        assert_eq!(std::mem::take(&mut small.said.replies), expected);
    }
}

#[test]
fn no_more_debits_wait_than_there_is_room_for() {
    let mut small = Small::new();
    small.engine.forget_known(KeyId::of(Account::new("a").unwrap(), Key::new("k1").unwrap()), at(NOW));
    (1..=behind::BEHIND_MAX as u64 + 2)
        .for_each(|nonce| small.submit(&keyed(Op::Transfer, "a", nonce, NOW, &format!("k{nonce}"))));
    assert_eq!(std::mem::take(&mut small.said.replies), ["BUSY"]);
}

/// Two requests with one key are looked up at the same time. The first one is carried out and its key pushed out of memory before
/// the answer about the second comes, which is of a time when the key was not used.
#[test]
fn an_answer_that_is_older_than_the_use_of_a_key_is_not_trusted() {
    let mut small = Small::new();
    small.engine.forget_known(KeyId::of(Account::new("a").unwrap(), Key::new("k1").unwrap()), at(NOW));
    let first = keyed(Op::Transfer, "a", 1, NOW, "k1");
    small.submit(&keyed(Op::Transfer, "a", 41, NOW, "k1"));
    let about_second = small.asked();
    small.submit(&first);
    let about_first = small.asked();
    small.answer(about_first, None);
    small.commit();
    assert_eq!(small.said.replies.pop().as_deref(), Some("receipt of 2 replayed false"));
    small.spend(2..=40);
    small.answer(about_second, None);
    let again = small.asked();
    assert_eq!(key_of(&again.question), ("a", "k1"));
    small.answer(again, found(&first, 2));
    assert_eq!(small.said.replies.pop().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
}

/// The window has a place for the key's id, and another key's entry stands there.
#[test]
fn a_key_hidden_by_another_one_with_the_same_id_is_looked_up_in_the_ledger() {
    let mut small = Small::new();
    small.spend(1..=1);
    let stranger = keyed(Op::Transfer, "b", 1, NOW, "x");
    let request = keyed(Op::Transfer, "a", 2, NOW, "k1");
    for used in [true, false] {
        small.submit(&request);
        let repeat = small.asked();
        assert_eq!(repeat.question, Question::At(Seq(2)));
        small.answer(repeat, found(&stranger, 2));
        let repeat = small.asked();
        assert_eq!(key_of(&repeat.question), ("a", "k1"));
        small.answer(repeat, found(&keyed(Op::Transfer, "a", 1, NOW, "k1"), 2).filter(|_| used));
        small.commit();
        let expected = if used { "IDEMPOTENCY_CONFLICT" } else { "receipt of 3 replayed false" };
        assert_eq!(small.said.replies.pop().as_deref(), Some(expected));
    }
    // Both keys are among the forgotten ones now, should this one be pushed out.
    small.spend(3..=40);
    small.submit(&keyed(Op::Transfer, "a", 41, NOW, "k1"));
    assert_eq!(key_of(&small.asked().question), ("a", "k1"));
}

#[test]
fn keys_of_other_cores_are_not_taken_note_of() {
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: TTL_MS, keys_max: 1 << 20 };
    let ring = Ring::new(2);
    let owner = ring.owner(Account::new("a").unwrap());
    for core in [0, 1].map(CoreId) {
        let mut engine = Engine::new(core, ring, settings, &Budgets::default());
        engine.forget_known(KeyId::of(Account::new("a").unwrap(), Key::new("the-key").unwrap()), at(NOW));
        let mut said = Said::default();
        let bytes = entry(Op::Transfer, "a", 1, NOW);
        engine.receive(Message::Forward(TICKET, Owned::Write(bytes.into(), Allowance::default())), Gate::Open, &mut said);
        assert_eq!(said.asked.len(), usize::from(core == owner));
    }
}

/// A debit whose key was forgotten, and then an issue to the same account with the same key and the same number: the repeat of the
/// debit still gets the receipt of the debit.
#[test]
fn a_later_issue_with_the_same_key_and_number_hides_no_debit() {
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: TTL_MS, keys_max: 1 << 20 };
    let mut engine = Engine::new(CoreId(0), Ring::new(1), settings, &Budgets::default());
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
    engine.submit(ticket, Request::Write { entry: own_entry(&debit), allowance: Allowance::default() }, Gate::Open, &mut said);
    let repeat = said.asked.pop().expect("the key is known");
    assert_eq!(repeat.question, Question::At(Seq(3)));
    engine.answered(repeat, Some(found(&issue, 3)), Gate::Open, &mut said);
    let repeat = said.asked.pop().unwrap_or_else(|| panic!("not looked for by its nonce: {:?}", said.replies));
    assert_eq!(repeat.question, Question::Debit { account: "a".into(), nonce: Nonce(1) });
    engine.answered(repeat, Some(found(&debit, 2)), Gate::Open, &mut said);
    assert_eq!(said.replies, ["receipt of 2 replayed true"]);
}
