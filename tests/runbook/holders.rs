//! Procedures about who may do what: capabilities, revocation, keys, the policy and its quotas, amnesia.
use crate::place::Place;
use crate::support::eventually;
use crate::told;
use std::fs;

/// What a token may do at the moment: the status of a question.
fn status_of(place: &Place, token: &str) -> u16 {
    place.wallet_with(token).get("/v1/seq?account=alice").status
}

#[test]
fn capabilities_are_minted_explained_and_revoked() {
    let place = Place::serving();
    told(&place.block("mint"), &["alice", "wallet:*"]);
    place.wallet_with("none").get("/v1/seq?account=alice").refused(401, "UNAUTHORIZED");
    told(&place.block("denied"), &["\"cause\":\"malformed\""]);
    told(&place.block("clock"), &["+00:00", "NTPSynchronized=yes"]);
    let token = place.run("mint", "./target/release/ronctl cap mint --subject alice --scopes 'wallet:*' --ttl 900s");
    let token = token.trim();
    assert_eq!(status_of(&place, token), 200);
    place.export(&format!("TOKEN={token}"));
    let said = place.block("revoke");
    told(&said, &["token    00112233445566778899aabbccddeeff", "subject  alice", "key      k-3f9a01c2", "copied"]);
    eventually("it is refused", || (status_of(&place, token) == 401).then_some(()));
    assert_eq!(status_of(&place, place.token()), 200, "another subject is not concerned");
    told(&place.block("revoke-undo"), &["taken back: token 00112233445566778899aabbccddeeff"]);
    let left = place.ronctl("cap revocations").to_string();
    assert!(left.contains("k-3f9a01c2") && !left.contains("00112233445566778899aabbccddeeff"), "{left}");
}

#[test]
fn a_key_is_retired() {
    let place = Place::serving();
    let first = place.ronctl("kms status")["active"].as_str().unwrap().to_owned();
    place.run("rotate", "./target/release/ronctl kms rotate");
    assert_eq!(status_of(&place, place.token()), 200);
    // The page has the name of a key that nobody has.
    place.stand_in("k-3f9a01c2", &first);
    place.block("retire");
    eventually("its tokens are refused", || (status_of(&place, place.token()) == 401).then_some(()));
}

#[test]
fn a_policy_is_changed_and_taken_back_and_quotas_are_looked_at() {
    let place = Place::serving();
    place.block("policy-copy");
    place.edit(
        "configs/policy.json",
        "\"version\": 1",
        "\"version\": 2, \"quotas\": { \"account\": { \"rate\": 1, \"burst\": 2 } }",
    );
    let said = place.block("policy");
    told(&said, &["a good policy, version 2", "version 2 of ./configs/policy.json is in force", "\"ready\":true"]);
    let refused = (11..20).filter(|nonce| place.spend(1, *nonce).status == 429).count();
    assert!(refused > 0, "more than the bucket holds");
    let counted = format!("quota_exhaustions_total{{scope=\"account\"}} {refused}");
    eventually("it is counted", || place.publishes(&counted));
    let refusals = || place.run("search", "./target/release/ronctl audit search --outcome refused || true");
    eventually("it stands in the audit stream", || refusals().contains("BUSY").then_some(()));
    told(&place.block("quotas"), &[&counted, "version         2", "quotas.account  1 per second", "BUSY"]);
    told(&place.block("policy-back"), &["\"ready\":true"]);
    eventually("the old policy is in force", || (place.ronctl("policy show")["policy"]["version"] == 1).then_some(()));
    assert!(!place.path("configs/policy.json.bak").exists());
    let (_, _, (last, next)) = place.state();
    for nonce in next..next + 9 {
        place.spend(1, nonce).ok();
    }
    assert_eq!(place.state().2, (last + 9, next + 9), "without quotas");
}

#[test]
fn under_amnesia_no_file_is_found_and_fresh_keys_sign() {
    let place = Place::new();
    let on =
        "export AMNESIA=on\n./target/release/svc-wallet --config ./configs/svc-wallet.toml --set audit.sink=off 2>/dev/null &\n\
              until ./target/release/ronctl status; do sleep 0.1; done\n";
    fs::remove_dir_all(place.path("var/ledger")).unwrap();
    place.run("start", on);
    let said = place.block("amnesia");
    told(&said, &["\"amnesia\"", "active"]);
    assert!(!said.contains("./var") && !said.contains(&place.path("tmp").display().to_string()), "{said}");
    fs::write(place.path("var/left-behind"), "x").unwrap();
    told(&place.block("amnesia"), &["./var/left-behind"]);
    let mint = "export AMNESIA=on\n./target/release/ronctl cap mint --subject alice --scopes 'wallet:*' --ttl 900s";
    let token = place.run("mint", mint);
    assert_eq!(status_of(&place, token.trim()), 200);
    place.block("amnesia-keys");
    eventually("its key is gone", || (status_of(&place, token.trim()) == 401).then_some(()));
}
