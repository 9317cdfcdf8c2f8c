//! `configs/policy.schema.json` and the reader of policies are held to each other: they know the same names, ask for the same members, and
//! judge alike on both sides of every bound.
//!
//! What a schema cannot say is left to the reader: members that are there twice, lengths in bytes, and the largest amount of 39 digits.
use crate::access::{Policy, PolicyFlaw};
use crate::operator::dto::schema::Document;
use crate::operator::dto::Report;
use serde_json::{json, Value};
use std::collections::BTreeSet;

const SCHEMA: &str = include_str!("../../../configs/policy.schema.json");
const SHIPPED: &str = include_str!("../../../configs/policy.json");
/// Where the schema of the whole stands in [`document`].
const WHOLE: &str = "/components/schemas/policy";

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// The schema in the form in which it can be held against values.
fn document() -> Document {
    let mut whole = schema();
    let members = whole.as_object_mut().unwrap();
    let definitions = members.remove("$defs").unwrap();
    assert_eq!(members.remove("$schema"), Some("https://json-schema.org/draft/2020-12/schema".into()));
    let mut schemas = definitions.clone();
    schemas["policy"] = whole;
    let document = json!({"paths": {}, "components": {"schemas": schemas}, "$defs": definitions});
    Document::read("configs/policy.schema.json", &document.to_string()).unwrap()
}

fn flaws(policy: &Value) -> Vec<PolicyFlaw> {
    Policy::parse(policy.to_string().as_bytes()).unwrap_err().told
}

/// The names of an object, or the texts of a list.
fn names(value: &Value) -> BTreeSet<String> {
    let texts = value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned());
    value.as_object().into_iter().flat_map(|members| members.keys().cloned()).chain(texts).collect()
}

#[test]
fn schema_and_reader_know_the_same_names() {
    for (unknown, pointer) in [
        (json!({"?": 0}), "/properties"),
        (json!({"operations": ["?"]}), "/properties/operations/items/enum"),
        (json!({"assets": {"a": {"?": 0}}}), "/$defs/asset/properties"),
        (json!({"assets": {"a": {"amount_max": {"?": "1"}}}}), "/$defs/asset/properties/amount_max/properties"),
        (json!({"assets": {"a": {"daily_max": {"?": "1"}}}}), "/$defs/asset/properties/daily_max/properties"),
        (json!({"quotas": {"?": 0}}), "/properties/quotas/properties"),
        (json!({"quotas": {"global": {"?": 0}}}), "/$defs/bucket/properties"),
        (json!({"denied": {"?": []}}), "/properties/denied/properties"),
        (json!({"revoked": {"?": []}}), "/properties/revoked/properties"),
        (json!({"degraded": ["?"]}), "/properties/degraded/items/enum"),
    ] {
        let known =
            flaws(&unknown).iter().find_map(|flaw| flaw.message.strip_prefix("unknown name; known are ").map(str::to_owned));
        let known: BTreeSet<String> = known.unwrap().split(", ").map(str::to_owned).collect();
        assert_eq!(names(schema().pointer(pointer).unwrap()), known, "{pointer}");
    }
}

#[test]
fn schema_and_reader_ask_for_the_same_members() {
    for (empty, path, pointer) in
        [(json!({}), "", "/required"), (json!({"quotas": {"subject": {}}}), "quotas.subject.", "/$defs/bucket/required")]
    {
        let missing = flaws(&empty).into_iter().filter(|flaw| flaw.message.starts_with("missing"));
        let missing: BTreeSet<String> = missing.filter_map(|flaw| flaw.path.strip_prefix(path).map(str::to_owned)).collect();
        assert_eq!(names(schema().pointer(pointer).unwrap()), missing, "{path}");
    }
}

/// Places in a policy, and what is good or bad there.
fn cases() -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    let accounts = |count: usize, end: &str| json!((0..count).map(|number| format!("a{number}{end}")).collect::<Vec<_>>());
    let assets = |count: usize| (0..count).map(|number| (format!("a{number}"), json!({}))).collect::<Value>();
    let asset = |name: &str| json!({name: {}});
    let list = |text: &str| json!([text]);
    let lists = [list("a"), json!([])];
    let no_list = [json!("a"), json!([7]), json!({}), json!(["a", "a"]), Value::Null];
    let numbers = [json!(0), json!(1_000_001), json!(-1), json!("1"), json!(1.5), Value::Null];
    let accounts_good = [list("*"), list("A:/-_9*"), list(&"x".repeat(256)), accounts(257, ""), accounts(256, "*")];
    let accounts_bad = [list(""), list("a b"), list("a*b"), list("**"), list(&"x".repeat(257)), accounts(257, "*")];
    let subjects_bad = [list(""), list("a\n"), list("\u{7f}"), list("\u{85}"), list(&"x".repeat(129))];
    let both = |some: &[Value], more: &[Value]| [some, more].concat();
    vec![
        ("/$schema", vec![json!(""), json!("./policy.schema.json")], vec![json!(7), Value::Null]),
        ("/form", vec![json!(1)], vec![json!(0), json!(2), json!("1")]),
        ("/version", vec![json!(0), json!(u64::MAX)], vec![json!(-1), json!(2e19), json!("1"), json!(1.5), Value::Null]),
        ("/operations", vec![json!([]), json!(["issue", "release"])], both(&no_list, &[list("spend")])),
        ("/degraded", vec![json!([]), json!(["totals", "seq"])], both(&no_list, &[list("balances")])),
        ("/assets", vec![asset(&"a".repeat(16)), asset("0_z"), assets(1024)], vec![json!({}), json!([]), assets(1025)]),
        ("/assets", vec![], vec![asset(""), asset("A"), asset("a b"), asset(&"a".repeat(17)), json!({"roc": []})]),
        ("/assets/roc/daily_max/issue", vec![], vec![json!("1"), json!("0")]),
        (
            "/assets/roc/amount_max/issue",
            vec![json!("1"), json!(u128::MAX.to_string())],
            vec![json!(1), json!("0"), json!("01"), json!("+1"), json!("1.0"), json!(""), json!("9".repeat(40))],
        ),
        ("/quotas/account/rate", vec![json!(1), json!(1_000_000)], numbers.to_vec()),
        ("/quotas/global/burst", vec![json!(1), json!(1_000_000)], numbers.to_vec()),
        (
            "/quotas/subject",
            vec![json!({"rate": 1, "burst": 1})],
            vec![json!({"rate": 1}), json!([]), json!({"rate": 1, "bursts": 1})],
        ),
        ("/frozen", both(&lists, &accounts_good), both(&no_list, &accounts_bad)),
        ("/denied/accounts", both(&lists, &accounts_good), both(&no_list, &accounts_bad)),
        ("/denied/subjects", both(&lists, &[list("ülo, till 3"), list(&"x".repeat(128))]), both(&no_list, &subjects_bad)),
        ("/revoked/subjects", both(&lists, &[list("ülo, till 3"), list(&"x".repeat(128))]), both(&no_list, &subjects_bad)),
        (
            "/revoked/tokens",
            vec![json!([]), list(&"0f".repeat(16))],
            vec![list("00"), list(&"0F".repeat(16)), list(&"0".repeat(33)), json!("00")],
        ),
        ("/revoked/keys", both(&lists, &[list("k-1"), list(&"k".repeat(32))]), vec![list(""), list("K"), list(&"k".repeat(33))]),
        ("/colour", vec![], vec![json!("blue")]),
        ("/denied/colour", vec![], vec![json!([])]),
    ]
}

#[test]
fn schema_and_reader_judge_alike_on_both_sides_of_every_bound() {
    let document = document();
    let whole = document.at(WHOLE).unwrap();
    let judge = |policy: &Value| (document.refuses(&whole, policy), Policy::parse(policy.to_string().as_bytes()).err());
    assert_eq!(judge(&serde_json::from_str(SHIPPED).unwrap()), (None, None));
    for (pointer, good, bad) in cases() {
        let verdicts = good.into_iter().map(|value| (value, true)).chain(bad.into_iter().map(|value| (value, false)));
        for (value, is_good) in verdicts {
            let mut policy = json!({"version": 1, "operations": [], "assets": {"roc": {}},
                "quotas": {"account": {"rate": 1, "burst": 1}, "global": {"rate": 1, "burst": 1}}});
            let mut at = &mut policy;
            for name in pointer.split('/').skip(1) {
                at = &mut at[name];
            }
            *at = value;
            let (by_schema, by_reader) = judge(&policy);
            assert_eq!((by_schema.is_none(), by_reader.is_none()), (is_good, is_good), "{policy}: {by_schema:?}, {by_reader:?}");
        }
    }
}

#[test]
fn nothing_in_the_schema_is_left_unchecked() {
    let mut report = Report::default();
    document().check_form(&mut report);
    assert_eq!(report.differences, []);
}
