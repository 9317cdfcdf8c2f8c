//! Proves which bodies are read and how, against tables and against serde_json on bodies changed at random.
use super::*;

const FULL: &str =
    r#"{"from":"acct:a","to":"acct:b","asset":"roc","amount_minor":"42","nonce":7,"idempotency_key":"k-1","memo":"hi"}"#;

fn read(op: Op, text: &str) -> Result<String, String> {
    let mut bytes = text.as_bytes().to_vec();
    let outcome = BodyReader::new().read(op, &mut bytes);
    outcome.map(|body| format!("{body:?}")).map_err(|refusal| {
        assert_eq!((refusal.code, refusal.status), (Code::BadRequest, 400));
        refusal.message.into_owned()
    })
}

/// A transfer with the value of one field replaced, or left out for an empty one.
fn with(field: &str, value: &str) -> String {
    let fields = [
        ("from", r#""acct:a""#),
        ("to", r#""acct:b""#),
        ("asset", r#""roc""#),
        ("amount_minor", r#""42""#),
        ("nonce", "7"),
        ("idempotency_key", r#""k""#),
        ("memo", "null"),
    ];
    let shown = fields.iter().map(|(name, usual)| (*name, if *name == field { value } else { *usual }));
    let shown = shown.filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!(r#""{name}":{value}"#));
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}

#[test]
fn a_whole_body_is_read_whatever_its_order_and_spaces() {
    let mut bytes = FULL.as_bytes().to_vec();
    let mut reader = BodyReader::new();
    let body = reader.read(Op::Transfer, &mut bytes).unwrap();
    assert_eq!((body.from, body.to), (Account::new("acct:a"), Account::new("acct:b")));
    assert_eq!((body.asset.as_str(), body.amount.minor_units(), body.nonce), ("roc", 42, Some(Nonce(7))));
    assert_eq!((body.key.map(Key::as_str), body.memo), (Some("k-1"), Some("hi")));
    let other = " {\r\n\t\"memo\" : \"hi\" , \"seq\":7,\"idempotency_key\":\"k-1\",\"amount_minor\":42,\"asset\":\"roc\",\
                 \"to\":\"acct:b\",\"from\":\"acct\\u003aa\"} \n";
    assert_eq!(read(Op::Transfer, other), read(Op::Transfer, FULL));
}

#[test]
fn what_the_contract_allows_is_allowed() {
    let longest = format!(r#""{}""#, "x".repeat(256));
    for (field, value) in [
        ("amount_minor", "1"),
        ("amount_minor", "18446744073709551615"),
        ("amount_minor", "18446744073709551616"),
        ("amount_minor", "340282366920938463463374607431768211455"),
        ("amount_minor", r#""340282366920938463463374607431768211455""#),
        ("nonce", "1"),
        ("nonce", "18446744073709551615"),
        ("idempotency_key", "null"),
        ("idempotency_key", ""),
        ("memo", ""),
        ("memo", r#""""#),
        ("memo", r#""ä \"quoted\" \u00e4 \ud83d\ude00""#),
        ("memo", longest.as_str()),
        ("from", longest.as_str()),
    ] {
        assert!(read(Op::Transfer, &with(field, value)).is_ok(), "{field} {value}");
    }
    for issue in [r#"{"to":"a","asset":"roc","amount_minor":"1"}"#, r#"{"to":"a","asset":"roc","amount_minor":"1","nonce":null}"#]
    {
        assert!(read(Op::Issue, issue).is_ok(), "{issue}");
    }
    assert!(read(Op::Burn, r#"{"from":"a","asset":"roc","amount_minor":"1","nonce":1}"#).is_ok());
}

#[test]
fn every_bad_value_is_refused_by_the_name_of_its_field() {
    let cases: [(&str, &[&str]); 7] = [
        ("from", &["", "null", "7", "true", "[]", "{}", r#""""#, r#""a b""#, r#""a.b""#, r#""ä""#, r#"["a"]"#, r#""a\u0000""#]),
        ("to", &["", "null", "7", r#""""#, r#""a%2Fb""#, r#""acct:a""#]),
        ("asset", &["", "null", r#""""#, r#""ROC""#, r#""a-b""#, r#""aaaaaaaaaaaaaaaaa""#, "1"]),
        (
            "amount_minor",
            &[
                "",
                "null",
                "0",
                "-1",
                "-0",
                "1.0",
                "1.5",
                "1e3",
                "1E3",
                "0.1",
                "true",
                "[]",
                "{}",
                r#""""#,
                r#""0""#,
                r#""-1""#,
                r#""+1""#,
                r#""01""#,
                r#""1.0""#,
                r#""1e3""#,
                r#"" 1""#,
                r#""1 ""#,
                r#""0x1""#,
                r#""1_000""#,
                r#""NaN""#,
                r#""１""#,
                r#""340282366920938463463374607431768211456""#,
                "-18446744073709551615",
            ],
        ),
        ("nonce", &["", "null", "0", "-1", "-0", "1.0", "1e0", r#""1""#, "true", "[1]", "18446744073709551616"]),
        ("idempotency_key", &[r#""""#, "7", "{}", r#""a/b""#, r#""a b""#, "true"]),
        ("memo", &["7", "{}", "[]", "false", r#""a\u0000b""#, r#""a\nb""#, r#""\u007f""#, r#""\u0085""#]),
    ];
    for (field, values) in cases {
        for value in values {
            let message = read(Op::Transfer, &with(field, value)).unwrap_err();
            assert!(message.starts_with(field), "{field} {value}: {message}");
        }
    }
    for (field, value) in [("memo", "x".repeat(257)), ("from", "x".repeat(257)), ("idempotency_key", "x".repeat(65))] {
        assert!(read(Op::Transfer, &with(field, &format!(r#""{value}""#))).unwrap_err().starts_with(field));
    }
}

#[test]
fn unknown_and_repeated_fields_are_refused() {
    let add = |field: &str| FULL.replacen('{', &format!("{{{field},"), 1);
    for (op, text, part) in [
        (Op::Transfer, add(r#""colour":1"#), "colour: unknown field"),
        (Op::Transfer, add(r#""From":"a""#), "From: unknown field"),
        (Op::Transfer, add(r#""":1"#), ": unknown field"),
        (Op::Transfer, add(r#""deep":{"from":[1,{"x":2}]}"#), "deep: unknown field"),
        (Op::Transfer, add(r#""\u001b[31m":1"#), "?[31m: unknown field"),
        (Op::Transfer, add(r#""from":"acct:a""#), "from: given more than once"),
        (Op::Transfer, add(r#""fr\u006fm":"acct:a""#), "from: given more than once"),
        (Op::Transfer, add(r#""memo":null"#), "memo: given more than once"),
        (Op::Transfer, add(r#""seq":7"#), "nonce: given more than once"),
        (Op::Transfer, add(r#""seq":null"#), "nonce: given more than once"),
        (Op::Issue, FULL.into(), "from: unknown field"),
        (Op::Burn, FULL.into(), "to: unknown field"),
    ] {
        let message = read(op, &text).unwrap_err();
        assert!(message.starts_with(part), "{text}: {message}");
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    let cut = &FULL[..FULL.len() - 1];
    let mut cases: Vec<String> = [
        "",
        " ",
        "null",
        "7",
        "true",
        r#""text""#,
        "[]",
        "[{}]",
        "{",
        "}",
        "{]",
        "{,}",
        "{}{}",
        "{} x",
        "'a'",
        r#"{"from"}"#,
        r#"{"from":}"#,
        r#"{"from":"a",}"#,
        r#"{from:"a"}"#,
        r#"{7:"a"}"#,
        r#"{"from":"a" "to":"b"}"#,
        r#"{"from":"a}"#,
        "\u{feff}{}",
        "{\"from\":\"a\u{0}\"}",
        "{\"memo\":\"a\nb\"}",
        r#"{"memo":"\x"}"#,
        r#"{"memo":"\ud800"}"#,
        r#"{"memo":"\u12"}"#,
        r#"{"nonce":01}"#,
        r#"{"nonce":+1}"#,
        r#"{"nonce":1.}"#,
        r#"{"nonce":.5}"#,
        r#"{"nonce":NaN}"#,
        r#"{"nonce":1e999}"#,
        r#"{"nonce":1234567890123456789x}"#,
        r#"{"nonce":123456789012345678901-1}"#,
        r#"{"nonce":-123456789012345678y}"#,
        r#"{"nonce":340282366920938463463374607431768211456}"#,
        "// comment\n{}",
        "{}",
    ]
    .map(String::from)
    .into();
    cases.extend([cut.into(), format!("{FULL}}}"), format!("{FULL},"), format!("{}\0", FULL), "[".repeat(10_000)]);
    for text in &cases {
        assert!(read(Op::Transfer, text).is_err(), "{text:.80}");
    }
    let mut bytes = b"{\"memo\":\"\xff\"}".to_vec();
    assert!(BodyReader::new().read(Op::Transfer, &mut bytes).is_err());
}

#[test]
fn one_reader_reads_body_after_body() {
    let mut reader = BodyReader::new();
    for round in 0..100 {
        let text = if round % 3 == 0 { "{\"broken\"".to_string() } else { with("nonce", &(round + 1).to_string()) };
        let mut bytes = text.into_bytes();
        let outcome = reader.read(Op::Transfer, &mut bytes);
        assert_eq!(outcome.map(|body| body.nonce).ok(), (round % 3 != 0).then_some(Some(Nonce(round + 1))));
    }
}

/// Whatever is accepted is JSON for another parser too, and says the same there.
#[test]
fn another_parser_agrees_on_bodies_changed_at_random() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    let bases = [FULL.to_string(), with("amount_minor", "12345678901234567890"), with("memo", r#""a\u00e4\"b""#)];
    let spice = b"{}[]\",:0123456789.eE+-\\ \tnulx";
    let mut reader = BodyReader::new();
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = bases[random(bases.len())].clone().into_bytes();
        for _ in 0..1 + random(2) {
            let at = random(bytes.len());
            let byte = spice[random(spice.len())];
            match random(3) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let before = bytes.clone();
        let Ok(body) = reader.read(Op::Transfer, &mut bytes) else { continue };
        accepted += 1;
        let shown = String::from_utf8_lossy(&before).into_owned();
        let value: serde_json::Value = serde_json::from_slice(&before).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(value["from"], body.from.unwrap().as_str(), "{shown}");
        assert_eq!(value["to"], body.to.unwrap().as_str(), "{shown}");
        assert_eq!(value["asset"], body.asset.as_str(), "{shown}");
        assert_eq!(value["nonce"], body.nonce.unwrap().0, "{shown}");
        assert_eq!(value["memo"].as_str(), body.memo, "{shown}");
        let amount = value["amount_minor"].as_str().map(String::from).unwrap_or_else(|| value["amount_minor"].to_string());
        if amount.len() < 20 {
            assert_eq!(amount, body.amount.to_string(), "{shown}");
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn a_nul_ends_no_number_and_hides_nothing_behind_it() {
    for bad in [FULL.replace("42", "42\0garbage"), FULL.replace('7', "7\0"), format!("{FULL}\0"), FULL.replace("hi", "h\0i")] {
        let refused = read(Op::Transfer, &bad).unwrap_err();
        assert!(refused.contains("a NUL at byte"), "{bad:?}: {refused:?}");
    }
}

#[test]
fn long_runs_of_digits_are_found_wherever_they_stand() {
    for before in 0..40 {
        for digits in 0..40 {
            let text = format!("{}{}{}", "x".repeat(before), "7".repeat(digits), "x".repeat(before % 7));
            assert_eq!(has_long_digits(text.as_bytes()), digits >= LONG_DIGITS, "{text}");
        }
    }
}

#[test]
fn half_of_an_escaped_surrogate_pair_is_refused_and_a_whole_one_is_a_character() {
    for bad in [r"\ud83d\uee00", r"\ud83d", r"\ude00", r"\ud83dx", r"\ud83d\ud83d", "\\u0041\0"] {
        let refused = read(Op::Transfer, &FULL.replace("hi", bad)).unwrap_err();
        assert!(refused.contains("the body is not JSON"), "{bad}: {refused:?}");
    }
    let mut text = FULL.replace("hi", r"\ud83d\ude00").into_bytes();
    assert_eq!(BodyReader::new().read(Op::Transfer, &mut text).unwrap().memo, Some("\u{1f600}"));
}
