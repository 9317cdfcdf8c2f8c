//! Values at the edges of what this API knows: lengths, alphabets, numbers, types. Shown to a schema and to the code, they tell the two apart.
//!
//! Left out is what the document can say in words alone: decimal strings of 39 digits above 2^128 - 1, and texts whose bytes are more than
//! their characters where the bound is in bytes.
use crate::domain::limits::{ACCOUNT_BYTES_MAX, ASSET_BYTES_MAX, KEY_BYTES_MAX, MEMO_BYTES_MAX};
use serde_json::{json, Value};

/// Digits of the largest amount, and of a 64-bit number.
const DIGITS: [usize; 2] = [39, 20];
/// Hex digits of an identity and of a hash.
const HEX_DIGITS: [usize; 2] = [32, 64];

/// Texts at the edges.
pub fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        "true",
        "false",
        "accepted",
        "issue",
        "null",
        "0",
        "01",
        "1",
        "+1",
        "-1",
        "1.0",
        "1e3",
        "100",
        "101",
        " 1",
        "A1",
        "k\n",
        "18446744073709551615",
        "340282366920938463463374607431768211455",
        "refund",
    ]
    .map(str::to_owned)
    .into();
    // Every character of ASCII alone, and inside of a text: patterns forget their ends.
    let letters = (0..=127u8).map(char::from).chain(['ä', '\u{85}']);
    texts.extend(letters.flat_map(|letter| [letter.to_string(), format!("a{letter}a")]));
    let bounds = [ACCOUNT_BYTES_MAX, ASSET_BYTES_MAX, KEY_BYTES_MAX, MEMO_BYTES_MAX].into_iter().chain(DIGITS).chain(HEX_DIGITS);
    for bound in bounds {
        texts.extend(["a", "1"].iter().flat_map(|letter| [bound - 1, bound, bound + 1].map(|count| letter.repeat(count))));
    }
    for digits in HEX_DIGITS {
        texts.extend([digits - 1, digits, digits + 1].map(|count| format!("b3:{}", "f".repeat(count))));
        texts.extend(["G", "A", "b3:A"].map(|letter| format!("{letter}{}", "0".repeat(digits - 1))));
    }
    let zeros = "0".repeat(24);
    for id in ["tx_7Z", "tx_8Z", "tx_0I", "tx_0L", "tx_0O", "tx_0U", "tx_0a", "TX_00", "xx_00"] {
        texts.extend(["", "0"].map(|more| format!("{id}{zeros}{more}")));
    }
    texts.push(format!("tx_0{zeros}"));
    texts
}

/// Values of every type of JSON as text, numbers and texts at their edges. Text, because an integer above 64 bits is none once it was read.
pub fn values() -> Vec<String> {
    let plain = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "18446744073709551615",
        "20000000000000000000",
        "[]",
        "[1]",
        "{}",
        r#"{"a":1}"#,
    ];
    let texts = texts().into_iter().map(|text| json!(text).to_string());
    plain.iter().map(|one| (*one).to_owned()).chain(texts).collect()
}

/// Every value that a text of a query or of a path may stand for.
pub fn meanings(text: &str) -> Vec<Value> {
    let mut meanings = vec![json!(text)];
    meanings.extend(text.parse::<u64>().ok().filter(|number| number.to_string() == text).map(|number| json!(number)));
    meanings.extend(text.parse::<bool>().ok().map(|word| json!(word)));
    meanings
}
