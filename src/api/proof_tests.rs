//! Bodies of proofs: what is written is read back, in one form only; who may see what; what refuses.
use super::*;
use crate::domain::{Account, Amount, Asset, Draft, Key, Op, TokenId, UnixMs};

const LOG: LogId = LogId([0xAB; 16]);

fn entry() -> Vec<u8> {
    let mut bytes = Vec::new();
    let draft = Draft {
        op: Op::Issue,
        from: None,
        to: Account::new("alice"),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(5).unwrap(),
        nonce: None,
        key: Key::new("k").unwrap(),
        memo: Some("m"),
        corr: "c",
        token: TokenId([3; 16]),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(9),
    };
    draft.encode(&mut bytes);
    bytes
}

fn proof() -> Proof {
    let path = |number: u8| Path { siblings: vec![[number; 32], [number + 1; 32]], peaks: vec![[number + 2; 32]] };
    Proof {
        log_id: LOG,
        found: Found { entry: entry().into(), seq: Seq(12), root: [1; 32] },
        inclusion: Inclusion {
            first_seq: Seq(10),
            entries: 5,
            in_batch: path(10),
            batch: 3,
            in_history: path(20),
            root: HistoryRoot { size: 6, through: Seq(40), hash: [2; 32] },
        },
    }
}

fn consistency() -> Consistency {
    let root = |size| HistoryRoot { size, through: Seq(2 * size), hash: [size as u8; 32] };
    Consistency { log_id: LOG, from: root(3), to: root(5), peaks: vec![[7; 32], [8; 32]], additions: vec![[9; 32]] }
}

#[test]
fn what_is_written_is_read_back() {
    let written = body(&ProofBody::from(&proof()));
    let text = String::from_utf8(written.clone()).unwrap();
    assert!(text.starts_with("{\"txid\":\"tx_") && text.ends_with("\"signatures\":[]}}"), "{text}");
    assert_eq!(serde_json::from_slice::<ProofBody>(&written).unwrap().read(), Ok(proof()));
    let written = body(&ConsistencyBody::from(&consistency()));
    assert_eq!(serde_json::from_slice::<ConsistencyBody>(&written).unwrap().read(), Ok(consistency()));
}

/// A changed bit makes another proof or none, never the same one: whatever verifies a proof sees the change.
#[test]
fn no_two_texts_are_the_same_proof() {
    let written = body(&ProofBody::from(&proof()));
    for bit in 0..written.len() * 8 {
        let mut bad = written.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let read = serde_json::from_slice::<ProofBody>(&bad).ok().and_then(|body| body.read().ok());
        assert_ne!(read, Some(proof()), "bit {bit}: {}", String::from_utf8_lossy(&bad));
    }
}

#[test]
fn a_root_has_its_signatures_wherever_it_stands() {
    let signature = WrittenSignature { key: "k-1".to_owned(), ts: 7, ed25519: "AA".to_owned(), ml_dsa_65: None };
    let board = RootBoard::default();
    let Consistency { from, to, .. } = consistency();
    board.replace([from, to].map(|root| SignedRoot { root, signature: signature.clone() }));
    let written = r#""signatures":[{"key":"k-1","ts":7,"ed25519":"AA"}]"#;
    let signed = |answer: HistoryAnswer| {
        let body = String::from_utf8(history(LOG, None, &answer, &board).unwrap()).unwrap();
        body.matches(written).count()
    };
    assert_eq!(signed(HistoryAnswer::Root(Ok(to))), 1);
    assert_eq!(signed(HistoryAnswer::Root(Ok(HistoryRoot { hash: [0; 32], ..to }))), 0, "another root of that size");
    assert_eq!(signed(HistoryAnswer::Consistency(Ok(consistency()))), 2);
    let newest: CurrentRootBody = serde_json::from_slice(&newest_signed(LOG, &board).unwrap()).unwrap();
    assert_eq!((newest.read(), newest.root.signatures), (Ok((LOG, to)), vec![signature]));
}

#[test]
fn a_body_that_contradicts_itself_is_refused_with_its_member() {
    let good = ProofBody::from(&proof());
    type Change = fn(&mut ProofBody);
    let cases: [(&str, Change); 9] = [
        ("txid", |body| body.txid.replace_range(28..29, "0")),
        ("txid", |body| body.seq += 1),
        ("log_id", |body| body.log_id = body.log_id.to_uppercase()),
        ("entry", |body| body.entry.push('=')),
        ("entry", |body| body.entry.clear()),
        ("entry", |body| body.entry.push_str("AAAA")),
        ("batch.index", |body| body.batch.index += 1),
        ("a hash", |body| body.ledger_root = "ab".to_owned()),
        ("a hash", |body| body.history.path[0].replace_range(0..1, "g")),
    ];
    for (member, change) in cases {
        let mut bad = good.clone();
        change(&mut bad);
        let fault = bad.read().unwrap_err().to_string();
        assert!(fault.starts_with(member), "{fault}");
    }
    assert!(serde_json::from_str::<RootBody>(r#"{"size":1,"seq":1,"hash":"","signatures":[],"more":1}"#).is_err());
}

#[test]
fn what_cannot_be_proven_is_refused_with_a_way_out() {
    let refused = |answer: HistoryAnswer| history(LOG, None, &answer, &RootBoard::default()).unwrap_err();
    let told = [
        (refused(HistoryAnswer::Root(Err(Unproven::Behind))), Code::RetryLater, "retry"),
        (refused(HistoryAnswer::Consistency(Err(Unproven::NoSuchSize { current: 7 }))), Code::BadRequest, "1 to 7"),
        (refused(HistoryAnswer::Consistency(Err(Unproven::WrongOrder))), Code::BadRequest, "smaller"),
        (refused(HistoryAnswer::NoEntry), Code::NotFound, "no such transaction"),
        (unproven(Unproven::Archived { size_min: 8 }), Code::UpstreamUnavailable, "before the root of 8 batches"),
        (unproven(Unproven::NotReached { size_min: 9 }), Code::BadRequest, "at least 9"),
    ];
    let chosen = [Unproven::NoSuchSize { current: 7 }, Unproven::NotReached { size_min: 9 }, Unproven::Behind];
    assert!(chosen.iter().all(|why| why.of_chosen_root() == Unproven::Behind), "nobody asked for that size");
    assert_eq!(Unproven::Archived { size_min: 8 }.of_chosen_root(), Unproven::Archived { size_min: 8 });
    for (refusal, code, part) in told {
        assert!(refusal.code == code && refusal.message.contains(part), "{refusal:?}");
        assert_eq!(refusal.archived, code == Code::UpstreamUnavailable, "{refusal:?}");
    }
    let unsigned = newest_signed(LOG, &RootBoard::default()).unwrap_err();
    assert!(unsigned.code == Code::RetryLater && unsigned.message.contains("signed yet"), "{unsigned:?}");
    assert_eq!((signed_parameter("true").ok(), signed_parameter("false").ok()), (Some(true), Some(false)));
    for value in ["", "yes", "True", "1"] {
        assert_eq!(signed_parameter(value).unwrap_err().code, Code::BadRequest, "{value:?}");
    }
    for (value, size) in [("1", Some(1)), ("18446744073709551615", Some(u64::MAX))] {
        assert_eq!(size_parameter("size", value).ok(), size);
    }
    for value in ["", "0", "01", "-1", "+1", "1.0", "0x1", "18446744073709551616", "%31", " 1"] {
        assert_eq!(size_parameter("size", value).unwrap_err().code, Code::BadRequest, "{value:?}");
    }
}
