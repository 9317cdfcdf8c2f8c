//! What must hold of JSON bodies and of the queries of reads, whatever bytes arrive; `src/fuzzing.rs` feeds it.
use super::body::BodyReader;
use super::query::{decoded, parameters};
use crate::domain::{Account, Key, Op};
use crate::http::pairs;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The names and values of a JSON object as another parser reads it, repeated ones included.
struct Object(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A byte for the operation, then a body: whatever is accepted is an object of other names for another parser too, and says the same.
pub(crate) fn body(input: &[u8]) {
    let [choice, text @ ..] = input else { return };
    let op = Op::ALL[usize::from(*choice) % Op::ALL.len()];
    let (mut reader, mut bytes) = (BodyReader::new(), text.to_vec());
    let Ok(body) = reader.read(op, &mut bytes) else {
        // A reader that has refused reads the next body as a new one does.
        let mut good = br#"{"from":"a","to":"b","asset":"roc","amount_minor":"1","nonce":1}"#.to_vec();
        let body = reader.read(Op::Transfer, &mut good).expect("a good body behind a bad one");
        assert_eq!((body.from, body.to), (Account::new("a"), Account::new("b")));
        return;
    };
    let Object(pairs) = serde_json::from_slice(text).expect("another parser refuses this body");
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| if name == "seq" { "nonce" } else { name }).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|two| two[0] != two[1]), "a name is there twice: {names:?}");
    let null = Value::Null;
    let value =
        |wanted: &[&str]| pairs.iter().find(|(name, _)| wanted.contains(&name.as_str())).map_or(&null, |(_, value)| value);
    assert_eq!(body.from.map(Account::as_str), value(&["from"]).as_str());
    assert_eq!(body.to.map(Account::as_str), value(&["to"]).as_str());
    assert_eq!(Some(body.asset.as_str()), value(&["asset"]).as_str());
    assert_eq!(body.nonce.map(|nonce| nonce.0), value(&["nonce", "seq"]).as_u64());
    assert_eq!(body.key.map(Key::as_str), value(&["idempotency_key"]).as_str());
    assert_eq!(body.memo, value(&["memo"]).as_str());
    let amount = body.amount.to_string();
    match value(&["amount_minor"]) {
        Value::String(text) => assert_eq!(*text, amount),
        Value::Number(number) if number.is_u64() => assert_eq!(number.to_string(), amount),
        // What does not fit 64 bits the other parser knows only roughly.
        Value::Number(number) => {
            let (theirs, ours) = (number.as_f64().unwrap_or(0.0), body.amount.minor_units() as f64);
            assert!((theirs - ours).abs() <= ours * 1e-14, "{number} is not {amount}");
        }
        other => panic!("an amount that is {other}"),
    }
    assert!(op.debits() == body.from.is_some() && op.credits() == body.to.is_some());
    assert!(names.len() <= 7 && (body.nonce.is_some() || !op.debits()));
}

/// The query of a read: what is found in it, the other reader of queries finds as well, once and alone.
pub(crate) fn read_query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(values) = parameters(Some(text), ["account", "asset"]) else { return };
    let mut buffer = Vec::new();
    for (name, value) in ["account", "asset"].into_iter().zip(values) {
        let mut same = pairs(text).filter(|pair| pair.as_ref().is_ok_and(|(key, _)| key == name));
        let mine = decoded(value, &mut buffer);
        // A pair that cannot be decoded is there for neither.
        assert_eq!(same.next().map(|pair| pair.expect("only good ones were kept").1.into_owned()).as_deref(), mine, "{name}");
        assert!(same.next().is_none(), "{name} is there twice");
    }
    assert_eq!(text.split('&').count(), 2);
}

/// Inputs from which a fuzzer of [`body`] begins.
pub(crate) fn body_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"from":"acct:a","to":"acct:b","asset":"roc","amount_minor":"42","nonce":7,"idempotency_key":"k-1","memo":"hi"}"#,
        r#" {"seq":18446744073709551615,"asset":"roc","from":"a\u003ab","amount_minor":18446744073709551616,"to":"b"} "#,
        r#"{"to":"a","asset":"roc","amount_minor":340282366920938463463374607431768211455,"memo":null,"idempotency_key":null}"#,
        r#"{"from":"a","asset":"ron","amount_minor":1,"nonce":1,"memo":"\ud83d\ude00 \"\\/"}"#,
        r#"{"to":[[[{"a":1e999}]]],"nonce":-1.5E+3}"#,
    ];
    let of = |text: &str| (0..Op::ALL.len() as u8).map(|op| [&[op], text.as_bytes()].concat()).collect::<Vec<_>>();
    texts.into_iter().flat_map(of).collect()
}

/// Inputs from which a fuzzer of [`read_query`] begins.
pub(crate) fn read_query_seeds() -> Vec<Vec<u8>> {
    ["account=acct%3Aa&asset=roc", "asset=&account=", "account=a%&asset=%72oc"].map(|text| text.as_bytes().to_vec()).into()
}
