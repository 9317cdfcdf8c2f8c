//! Entries: what is encoded can be read back, what no encoder writes is refused, and requests are told apart.
use super::*;
use crate::domain::TokenId;

fn draft() -> Draft<'static> {
    Draft {
        op: Op::Transfer,
        from: Account::new("alice"),
        to: Account::new("bob"),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(7).unwrap(),
        nonce: Some(Nonce(3)),
        key: Key::new("k1").unwrap(),
        memo: Some("für Bob"),
        corr: "corr-1",
        token: TokenId([9; 16]),
        ceiling: true,
        budget: true,
        daily_max: true,
        ts: UnixMs(1234),
    }
}

fn encoded(draft: &Draft<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    draft.encode(&mut bytes);
    bytes
}

#[test]
fn every_field_comes_back() {
    let mut bytes = encoded(&draft());
    bytes.extend_from_slice(b"next");
    let (entry, rest) = Entry::parse(&bytes).unwrap();
    assert_eq!(rest, b"next");
    assert_eq!((entry.op(), entry.from(), entry.to()), (Op::Transfer, Account::new("alice"), Account::new("bob")));
    assert_eq!((entry.asset().as_str(), entry.amount().minor_units(), entry.nonce()), ("roc", 7, Some(Nonce(3))));
    assert_eq!((entry.key().as_str(), entry.memo(), entry.corr()), ("k1", Some("für Bob"), "corr-1"));
    assert_eq!((entry.token(), entry.ts(), entry.counts_against_ceiling()), (TokenId([9; 16]), UnixMs(1234), true));
    assert!(entry.counts_against_budget() && entry.counts_against_daily_max());
    assert_eq!(entry.daily_counts().collect::<Vec<_>>(), [TokenId([9; 16]), TokenId::of_operation(Op::Transfer)]);
    assert_eq!(entry.owner(), Account::new("alice").unwrap());
    let issue =
        encoded(&Draft { op: Op::Issue, from: None, nonce: None, memo: None, budget: false, daily_max: false, ..draft() });
    let (issue, _) = Entry::parse(&issue).unwrap();
    assert_eq!((issue.from(), issue.nonce(), issue.memo(), issue.owner().as_str()), (None, None, None, "bob"));
}

#[test]
fn a_request_is_its_body_without_the_key() {
    let first = encoded(&draft());
    let same_request = |draft: &Draft<'_>| {
        let bytes = encoded(draft);
        Entry::parse(&first).unwrap().0.same_request(&Entry::parse(&bytes).unwrap().0)
    };
    let same = [
        Draft { key: Key::new("other").unwrap(), ..draft() },
        Draft { corr: "other", ..draft() },
        Draft { token: TokenId([1; 16]), ..draft() },
        Draft { ts: UnixMs(9), ..draft() },
        Draft { ceiling: false, ..draft() },
        Draft { budget: false, ..draft() },
        Draft { daily_max: false, ..draft() },
    ];
    for draft in same {
        assert!(same_request(&draft), "{draft:?}");
    }
    let other = [
        Draft { op: Op::Hold, ..draft() },
        Draft { from: Account::new("alic"), ..draft() },
        Draft { from: Account::new("alic"), to: Account::new("ebob"), ..draft() },
        Draft { asset: Asset::new("ron").unwrap(), ..draft() },
        Draft { amount: Amount::new(8).unwrap(), ..draft() },
        Draft { nonce: Some(Nonce(4)), ..draft() },
        Draft { memo: None, ..draft() },
        Draft { memo: Some(""), ..draft() },
    ];
    for draft in other {
        assert!(!same_request(&draft), "{draft:?}");
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    let good = encoded(&draft());
    for length in 0..good.len() {
        assert_eq!(Entry::parse(&good[..length]).unwrap_err(), EntryFault::Short, "{length}");
    }
    let tampered = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Entry::parse(&bytes).map(|_| ())
    };
    assert_eq!(tampered(2, 99), Err(EntryFault::Unknown), "operation");
    assert_eq!(tampered(3, 1), Err(EntryFault::Unknown), "format");
    assert_eq!(tampered(4, 200), Err(EntryFault::Malformed), "length of from");
    assert_eq!(tampered(12, 99), Err(EntryFault::Malformed), "length of the correlation id");
    assert_eq!(tampered(13, 34), Err(EntryFault::Malformed), "unknown flag");
    assert_eq!(tampered(13, 0), Err(EntryFault::Malformed), "a debit without a nonce");
    assert_eq!(tampered(13, 2), Err(EntryFault::Malformed), "a memo that was not given");
    let mut issue = encoded(&Draft { op: Op::Issue, from: None, nonce: None, budget: false, daily_max: false, ..draft() });
    assert!(Entry::parse(&issue).is_ok());
    for (flag, what) in
        [(8, "a budget against which nothing is debited"), (16, "a limit of a day against which nothing is debited")]
    {
        issue[13] |= flag;
        assert_eq!(Entry::parse(&issue).unwrap_err(), EntryFault::Malformed, "{what}");
        issue[13] &= !flag;
    }
    issue[24] = 1;
    assert_eq!(Entry::parse(&issue).unwrap_err(), EntryFault::Malformed, "a nonce that was not given");
    assert_eq!(tampered(14, 1), Err(EntryFault::Malformed), "reserved bytes");
    assert_eq!(tampered(32, 0), Err(EntryFault::Malformed), "an amount of zero");
    assert_eq!(tampered(ENTRY_HEAD_BYTES, b' '), Err(EntryFault::Malformed), "a character that no account has");
    assert_eq!(tampered(ENTRY_HEAD_BYTES, 0xff), Err(EntryFault::Malformed), "an account that is not ASCII");
    let memo = ENTRY_HEAD_BYTES + "alicebobrock1".len();
    assert_eq!(tampered(memo, 0xff), Err(EntryFault::Malformed), "a memo that is not UTF-8");
    assert_eq!(tampered(good.len() - 1, 0xff), Err(EntryFault::Malformed), "a correlation id that is not UTF-8");
}
