//! Proves that a description says everything of a token or a discharge, in words that mislead nobody.
use super::*;
use crate::access::tests::{narrow, request, Bench, NOW, READ};
use crate::access::{mint, MintRequest};
use macaroon::{Format, MacaroonKey};

#[test]
fn a_description_says_all_without_a_key() {
    let bench = Bench::new();
    let full = MintRequest {
        accounts: vec!["acct:a".into(), "user/*".into()],
        to: vec!["svc:*".into()],
        assets: vec!["roc".into()],
        max_amount: Some(10),
        daily_ceiling: Some(100),
        budget: Some(1000),
        idem: Some("job-*".into()),
        ..request()
    };
    let token = mint(&bench.keyring, &full, NOW).unwrap();
    let token = narrow(&token, &["colour = blue\u{1b}\u{202e}", "exp = 2027-01-15T08:00:01Z"]);
    let description = inspect(&token).unwrap();
    let limits = &description.limits;
    assert_eq!(description.key_id, bench.keyring.active_id());
    assert_eq!((description.subject.as_str(), description.issued.as_str()), ("alice", "2027-01-15T08:00:00Z"));
    assert_eq!(limits.expires.as_deref(), Some("2027-01-15T08:00:01Z"));
    assert_eq!(description.token_id.len(), 32);
    assert_eq!(
        limits.caveats,
        [
            "until 2027-01-15T08:15:00Z",
            "only for the scopes wallet:*",
            "only for the service svc-wallet",
            "debits and reads only the accounts acct:a,user/*",
            "credits only the accounts svc:*, and no burns",
            "only the assets roc",
            "at most 10 minor units in one request",
            "debits at most 100 minor units in one UTC day from each account, of each asset, together with all tokens of its id; issues are not debits",
            "debits at most 1000 minor units in all, ever, together with all tokens of its id; issues are not debits",
            "only idempotency keys job-*",
            "not understood, so it denies everything: colour = blue??",
            "until 2027-01-15T08:00:01Z",
        ]
    );
    assert!(limits.not_understood && !limits.reaches(READ) && limits.third_parties.is_empty());
    assert!(limits.expired(UnixMs(NOW.0 + 1000)) && !limits.expired(UnixMs(NOW.0 + 999)) && !limits.early(NOW));
    assert!(serde_json::to_string(&description).unwrap().contains("\"key_id\""));
    assert!(limits.smallest.is_empty());
    assert_eq!(inspect("nonsense"), None);
}

#[test]
fn of_several_limits_of_a_kind_the_smallest_is_said() {
    let bench = Bench::new();
    let token = mint(&bench.keyring, &MintRequest { max_amount: Some(10), ..request() }, NOW).unwrap();
    let amounts = ["max_amount = 7", "max_amount = 9", "daily_ceiling = 30", "budget = 90", "budget = 080"];
    let described = inspect(&narrow(&token, &amounts)).unwrap();
    assert_eq!(
        described.limits.smallest,
        [
            "at most 7 minor units in one request",
            "debits at most 80 minor units in all, ever, together with all tokens of its id; issues are not debits"
        ]
    );
}

#[test]
fn a_token_says_what_discharge_it_needs_and_a_discharge_what_it_allows() {
    let bench = Bench::new();
    let shared = MacaroonKey::generate(b"shared with the third party");
    let mut token = Macaroon::deserialize(mint(&bench.keyring, &request(), NOW).unwrap()).unwrap();
    token.add_third_party_caveat("https://kyc/\u{202e}", &shared, "customer 17\n".into());
    token.add_first_party_caveat("nbf = 2027-01-15T08:00:02Z".into());
    let described = inspect(&token.serialize(Format::V2).unwrap()).unwrap().limits;
    let said = &described.caveats[described.caveats.len() - 2..];
    assert_eq!(said, ["needs a discharge from https://kyc/?, for customer 17?", "from 2027-01-15T08:00:02Z on"]);
    assert_eq!(
        (described.third_parties, described.not_before.as_deref()),
        (vec!["https://kyc/?".to_owned()], Some("2027-01-15T08:00:02Z"))
    );
    let mut discharge = Macaroon::create(Some("https://kyc".into()), &shared, "customer 17\n".into()).unwrap();
    discharge.add_first_party_caveat("exp = 2027-01-15T08:00:03Z".into());
    discharge.add_first_party_caveat("colour = blue".into());
    token.bind(&mut discharge);
    let text = discharge.serialize(Format::V2).unwrap();
    let described = inspect_discharge(&text).unwrap();
    assert_eq!((described.location.as_str(), described.id.as_str()), ("https://kyc", "customer 17?"));
    assert_eq!(described.limits.expires.as_deref(), Some("2027-01-15T08:00:03Z"));
    assert!(described.limits.not_understood && described.limits.caveats.len() == 2);
    assert_eq!(
        (inspect(&text), inspect_discharge(&token.serialize(Format::V2).unwrap()), inspect_discharge("nonsense")),
        (None, None, None)
    );
}
