//! What a policy lets through, and what is said of a file that is none.
use super::*;
use crate::domain::Reason;

const SMALL: &str = r#"{"version": 7, "operations": ["transfer", "burn"],
    "assets": {"ron": {}, "roc": {"amount_max": {"transfer": "1000"}}}}"#;

fn refusal(op: Op, asset: &str, units: u128) -> Option<(Code, Option<Reason>)> {
    let policy = Policy::parse(SMALL.as_bytes()).unwrap();
    let wish = Wish { op, from: None, to: None, asset: Asset::new(asset).unwrap(), amount: Amount::new(units).unwrap() };
    policy.permits(&wish, Allowance::default()).err().map(|refusal| (refusal.code, refusal.reason))
}

#[test]
fn operations_assets_and_ceilings_are_held_to() {
    let forbidden = Some((Code::Forbidden, Some(Reason::Policy)));
    assert_eq!(refusal(Op::Transfer, "roc", 1000), None);
    assert_eq!(refusal(Op::Transfer, "roc", 1001), Some((Code::LimitsExceeded, Some(Reason::Limits))));
    assert_eq!(refusal(Op::Burn, "roc", u128::MAX), None);
    assert_eq!(refusal(Op::Transfer, "ron", u128::MAX), None);
    assert_eq!(refusal(Op::Issue, "roc", 1), forbidden);
    assert_eq!(refusal(Op::Transfer, "usd", 1), forbidden);
    let policy = Policy::parse(SMALL.as_bytes()).unwrap();
    assert_eq!((policy.version(), policy.assets().collect::<Vec<_>>()), (7, vec!["roc", "ron"]));
    assert!(policy.permits_read(Asset::new("ron").unwrap()).is_ok());
    assert_eq!(policy.permits_read(Asset::new("usd").unwrap()).unwrap_err().code, Code::Forbidden);
}

#[test]
fn faults_name_field_line_and_nearest_name() {
    for (text, parts) in [
        ("", vec!["line 1"]),
        ("[]", vec!["line 1", "object"]),
        (r#"{"version": 1, "operations": []}"#, vec!["assets", "missing"]),
        (r#"{"version": 1, "assets": {"roc": {}}}"#, vec!["operations", "missing"]),
        (r#"{"operations": [], "assets": {"roc": {}}}"#, vec!["version", "missing"]),
        ("{\"version\": 1,\n \"asets\": {}}", vec!["asets", "did you mean assets", "line 2"]),
        (r#"{"version": 1, "colour": 1}"#, vec!["colour", "version, operations, assets"]),
        (r#"{"version": 1, "version": 1}"#, vec!["version", "repeated"]),
        (r#"{"version": -1}"#, vec!["line 1", "version"]),
        (r#"{"version": "1"}"#, vec!["line 1", "version"]),
        (r#"{"operations": ["tranfer"]}"#, vec!["operations", "tranfer", "did you mean transfer"]),
        (r#"{"operations": ["burn", "burn"]}"#, vec!["operations", "burn", "repeated"]),
        (r#"{"assets": {}}"#, vec!["assets", "1 to 1024"]),
        (r#"{"assets": []}"#, vec!["assets", "an object of asset names"]),
        (r#"{"assets": {"ROC": {}}}"#, vec!["assets.ROC", "a-z 0-9 _"]),
        (r#"{"assets": {"roc": {}, "roc": {}}}"#, vec!["assets.roc", "repeated"]),
        (r#"{"assets": {"roc": {"max_amount": {}}}}"#, vec!["assets.roc.max_amount", "did you mean amount_max"]),
        (r#"{"assets": {"roc": {"amount_max": {"burn": 5}}}}"#, vec!["assets.roc.amount_max.burn", "line 1"]),
        (r#"{"assets": {"roc": {"amount_max": {"burn": "0"}}}}"#, vec!["assets.roc.amount_max.burn", "decimal"]),
        (r#"{"assets": {"roc": {"amount_max": {"brun": "1"}}}}"#, vec!["assets.roc.amount_max.brun", "did you mean burn"]),
        (r#"{"assets": {"roc": {"amount_max": {}, "amount_max": {}}}}"#, vec!["assets.roc.amount_max", "repeated"]),
        (r#"{"version": 1, "operations": [], "assets": {"roc": {}}} x"#, vec!["line 1"]),
        (r#"{"assets": {"roc": {"daily_max": {"issue": "1"}}}}"#, vec!["assets.roc.daily_max.issue", "amount_max"]),
        (r#"{"quotas": {"acount": {}}}"#, vec!["quotas.acount", "did you mean account"]),
        (r#"{"quotas": {"account": {"rate": 1}}}"#, vec!["quotas.account.burst", "missing"]),
        (r#"{"quotas": {"global": {"rate": 0, "burst": 1}}}"#, vec!["quotas.global", "1 to 1000000"]),
        (r#"{"quotas": {"subject": {"rate": 4294967297, "burst": 1}}}"#, vec!["quotas.subject", "1 to 1000000"]),
        (r#"{"quotas": {"subject": {"rate": "5", "burst": 1}}}"#, vec!["quotas.subject.rate", "unsigned integer"]),
        (r#"{"frozen": ["a b"]}"#, vec!["frozen, a b", "an account"]),
        (r#"{"frozen": ["a", "a"]}"#, vec!["frozen, a", "repeated"]),
        (r#"{"frozen": "a"}"#, vec!["frozen", "a list of accounts"]),
        (r#"{"denied": {"acounts": []}}"#, vec!["denied.acounts", "did you mean accounts"]),
        (r#"{"denied": {"subjects": ["a\n"]}}"#, vec!["denied.subjects", "control characters"]),
        (r#"{"revoked": {"tokens": ["00"]}}"#, vec!["revoked.tokens, 00", "32 digits"]),
        (r#"{"revoked": {"keys": ["K"]}}"#, vec!["revoked.keys, K", "key ids"]),
        (r#"{"degraded": ["balances"]}"#, vec!["degraded, balances", "did you mean balance"]),
    ] {
        let flaw = Policy::parse(text.as_bytes()).unwrap_err().to_string();
        for part in parts {
            assert!(flaw.contains(part), "{text}: {flaw:?} lacks {part:?}");
        }
    }
}

#[test]
fn all_flaws_are_told_at_once_in_the_order_of_the_text() {
    let text = r#"{
  "operations": ["brun", "burn", "burn"],
  "quotas": {"account": {"rate": 0}, "all": 1},
  "frozen": ["a b", "\u0061", "a"],
  "denied": {"subjects": ["\n"]},
  "assets": {"roc": {"amount_max": {"burn": 1}}}
}
"#;
    let flaws = Policy::parse(text.as_bytes()).unwrap_err();
    let told: Vec<_> = flaws.told.iter().map(|flaw| (flaw.path.as_str(), flaw.line, flaw.column)).collect();
    let expected = [
        ("operations, brun", 2, 23),
        ("operations, burn", 2, 39),
        ("quotas.account.burst", 3, 22),
        ("quotas.account.rate", 3, 31),
        ("quotas.all", 3, 42),
        ("frozen, a b", 4, 18),
        ("frozen, a", 4, 33),
        ("denied.subjects, \\n", 5, 23),
        ("assets.roc.amount_max.burn", 6, 42),
        ("version", 7, 1),
    ];
    assert_eq!((told, flaws.more, flaws.other_form), (expected.to_vec(), 0, None));
    let text = flaws.to_string();
    assert!(
        text.starts_with("operations, brun: unknown name; did you mean burn? at line 2 column 23; operations, burn: "),
        "{text}"
    );
}

#[test]
fn no_more_flaws_are_told_than_people_read() {
    let accounts: Vec<String> = (0..30).map(|number| format!("{number} {}", "x".repeat(1000))).collect();
    let policy = json!({"version": 1, "operations": [], "assets": {"roc": {}}, "frozen": accounts});
    let flaws = Policy::parse(policy.to_string().as_bytes()).unwrap_err();
    assert_eq!((flaws.told.len(), flaws.more), (20, 10));
    let text = flaws.to_string();
    assert!(text.ends_with("; and 10 more") && text.len() < 20 * 250, "{text}");
}

#[test]
fn a_file_of_another_form_is_told_by_that_alone_and_its_schema_is_passed_over() {
    for (form, paths, other_form) in [
        (json!(1), vec!["colour"], None),
        (json!(2), vec!["form"], Some(2)),
        (json!(0), vec!["form"], Some(0)),
        (json!("1"), vec!["colour", "form"], None),
    ] {
        let policy = json!({"$schema": "policy.schema.json", "version": 1, "operations": [], "assets": {"roc": {}}, "colour": 1,
            "form": form});
        let flaws = Policy::parse(policy.to_string().as_bytes()).unwrap_err();
        let told: Vec<_> = flaws.told.iter().map(|flaw| flaw.path.as_str()).collect();
        assert_eq!((told, flaws.other_form), (paths, other_form), "{form}");
    }
    assert_eq!(Policy::parse(SMALL.as_bytes()).unwrap().to_json()["form"], 1);
}

#[test]
fn there_are_no_more_assets_than_a_core_can_look_through() {
    let policy = |assets: usize| {
        let assets: Vec<String> = (0..assets).map(|number| format!(r#""a{number}":{{}}"#)).collect();
        Policy::parse(format!(r#"{{"version":1,"operations":[],"assets":{{{}}}}}"#, assets.join(",")).as_bytes())
    };
    assert_eq!(policy(1024).unwrap().assets().count(), 1024);
    assert!(policy(1025).unwrap_err().to_string().contains("1 to 1024"));
}

#[test]
fn faults_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.json");
    assert!(matches!(Policy::load(&path), Err(PolicyFault::Unreadable { .. })));
    std::fs::write(&path, "{}").unwrap();
    let fault = Policy::load(&path).unwrap_err().to_string();
    assert!(fault.contains("policy.json") && fault.contains("version"), "{fault}");
    std::fs::write(&path, SMALL).unwrap();
    assert_eq!(Policy::load(&path).unwrap().version(), 7);
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    let fault = Policy::load(&path).unwrap_err().to_string();
    assert!(fault.contains("policy.json") && fault.contains("longer than 1048576 bytes"), "{fault}");
}

#[test]
fn the_shipped_policy_lists_roc_and_ron_and_allows_every_operation() {
    let policy = Policy::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/policy.json")).unwrap();
    assert_eq!(policy.assets().collect::<Vec<_>>(), ["roc", "ron"]);
    for op in Op::ALL {
        assert!(policy
            .permits(
                &Wish { op, from: None, to: None, asset: Asset::new("roc").unwrap(), amount: Amount::new(1).unwrap() },
                Allowance::default()
            )
            .is_ok());
    }
}

const LARGE: &str = r#"{"$schema": "policy.schema.json", "form": 1, "version": 9, "operations": ["transfer", "issue"],
    "assets": {"roc": {"amount_max": {"transfer": "10"}, "daily_max": {"transfer": "25"}}},
    "quotas": {"account": {"rate": 5, "burst": 10}, "global": {"rate": 100, "burst": 1}},
    "frozen": ["alice", "shop:*"], "denied": {"accounts": ["mallory"], "subjects": ["eve", "adam"]},
    "revoked": {"tokens": ["ff112233445566778899aabbccddeeff"], "subjects": ["trudy"], "keys": ["k-1"]},
    "degraded": ["tx", "balance"]}"#;

#[test]
fn what_the_owner_core_has_to_hold_to_goes_with_the_request() {
    let policy = Policy::parse(LARGE.as_bytes()).unwrap();
    let permitted = |op, from: Option<&str>, to: &str| {
        let (asset, amount) = (Asset::new("roc").unwrap(), Amount::new(10).unwrap());
        let account = |name| Account::new(name).unwrap();
        let given = Allowance { budget: Amount::new(7), ..Allowance::default() };
        policy.permits(&Wish { op, from: from.map(account), to: Some(account(to)), asset, amount }, given)
    };
    let (daily_max, quota) = (Amount::new(25), Quota::new(5, 10));
    let free = Allowance { budget: Amount::new(7), daily_max, quota, ..Allowance::default() };
    assert_eq!(permitted(Op::Transfer, Some("bob"), "alice"), Ok(free), "a frozen account is still paid");
    for frozen in ["alice", "shop:7"] {
        assert_eq!(permitted(Op::Transfer, Some(frozen), "bob"), Ok(Allowance { frozen: true, ..free }));
    }
    assert_eq!(permitted(Op::Issue, None, "alice"), Ok(Allowance { daily_max: None, ..free }));
    let denied = |from, to| permitted(Op::Transfer, Some(from), to).unwrap_err();
    for refusal in [denied("mallory", "bob"), denied("bob", "mallory")] {
        assert_eq!((refusal.code, refusal.reason), (Code::Forbidden, Some(Reason::Policy)));
    }
    assert!(policy.permits_account(Account::new("mallory").unwrap()).is_err());
    assert!(
        policy.permits_subject("eve").is_err() && policy.permits_subject("adam").is_err() && policy.permits_subject("ev").is_ok()
    );
    assert!(policy.serves_degraded(Read::Tx) && policy.serves_degraded(Read::Balance) && !policy.serves_degraded(Read::Seq));
    assert!(Policy::parse(SMALL.as_bytes()).unwrap().serves_degraded(Read::Seq), "reads go on unless a policy says which do");
    assert_eq!((policy.quota(QuotaScope::Global), policy.quota(QuotaScope::Subject)), (Quota::new(100, 1), None));
}

#[test]
fn the_plainest_spelling_is_the_same_policy_and_says_all_of_it() {
    for text in [SMALL, LARGE] {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        assert_eq!(Policy::parse(policy.to_json().to_string().as_bytes()).as_ref(), Ok(&policy));
    }
    let json = Policy::parse(LARGE.as_bytes()).unwrap().to_json();
    assert_eq!(json["denied"]["subjects"], json!(["adam", "eve"]));
    assert_eq!(json["degraded"], json!(["balance", "tx"]));
    assert_eq!(json["revoked"]["tokens"], json!(["ff112233445566778899aabbccddeeff"]));
}
