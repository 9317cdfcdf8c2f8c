//! Proves which tokens are believed and what they then permit: tokens are minted or narrowed here, changed in one way each,
//! and put to the cache that a core uses.
use super::keyring::Keyring;
use super::*;
use crate::domain::{Account, Allowance, Amount, Asset, Code, Key, Reason, Refusal, UnixMs, Why};
use base64::Engine;
use macaroon::{Format, Macaroon, MacaroonKey};
use std::sync::Arc;
use std::time::Duration;

pub(super) const NOW: UnixMs = UnixMs(1_800_000_000_000);
pub(super) const AUDIENCE: &str = "svc-wallet";
pub(super) const READ: ScopeSet = ScopeSet::of(&[Scope::Read]);
const SPEND: ScopeSet = ScopeSet::of(&[Scope::Transfer, Scope::Spend]);

/// A keyring of one key, in a directory of its own.
pub(super) struct Bench {
    pub(super) keyring: Arc<Keyring>,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open_or_create(&directory.path().join("keyring.json")).unwrap());
        Self { keyring, _directory: directory }
    }

    pub(super) fn cache(&self) -> TokenCache {
        TokenCache::new(self.keyring.clone(), AUDIENCE, 8)
    }

    fn token(&self) -> String {
        self.token_of("alice")
    }

    pub(super) fn token_of(&self, subject: &str) -> String {
        token_of(&self.keyring, subject)
    }

    fn verify(&self, token: &str, discharges: Option<&str>) -> Result<Arc<Capability>, Refusal> {
        self.cache().verify(token.as_bytes(), discharges.map(str::as_bytes), NOW).cloned()
    }

    /// A bare token, narrowed by these predicates.
    fn narrowed(&self, predicates: &[&str]) -> String {
        narrow(&self.bare(), predicates)
    }

    /// A token without any caveat, which only the holder of a key can make.
    fn bare(&self) -> String {
        let identifier = identifier::Identifier {
            token: crate::domain::TokenId([5; 16]),
            issued: NOW,
            key_id: self.keyring.active_id(),
            subject: "tester",
        };
        let root = self.keyring.root(self.keyring.active_id()).unwrap();
        text(&Macaroon::create(None, root, identifier.encode().into()).unwrap())
    }
}

/// A token for everything, signed by the active key.
pub(super) fn token_of(keyring: &Keyring, subject: &str) -> String {
    mint(keyring, &MintRequest { subject: subject.into(), ..request() }, NOW).unwrap()
}

pub(super) fn request() -> MintRequest {
    MintRequest {
        subject: "alice".into(),
        scopes: vec!["wallet:*".into()],
        ttl: Duration::from_secs(900),
        audience: AUDIENCE.into(),
        ..MintRequest::default()
    }
}

fn text(macaroon: &Macaroon) -> String {
    macaroon.serialize(Format::V2).unwrap().trim_end_matches('=').to_string()
}

pub(super) fn narrow(token: &str, predicates: &[&str]) -> String {
    let mut macaroon = Macaroon::deserialize(token).unwrap();
    for predicate in predicates {
        macaroon.add_first_party_caveat((*predicate).into());
    }
    text(&macaroon)
}

fn spend<'a>(accounts: &'a [Account<'a>], to: Option<&'a str>, asset: &'a str, units: u128, key: &'a str) -> Demand<'a> {
    Demand {
        scopes: SPEND,
        accounts,
        to: to.map(|to| Account::new(to).unwrap()),
        asset: Asset::new(asset),
        amount: Amount::new(units),
        key: Key::new(key),
        debits: true,
    }
}

type Outcome = Result<Allowance, (Code, Option<Reason>)>;

/// What a bare token narrowed by the predicates says to a spend of 100 roc from acct:a to acct:b with key k-1.
fn outcome(predicates: &[&str]) -> Outcome {
    let bench = Bench::new();
    let accounts = [Account::new("acct:a").unwrap()];
    let demand = spend(&accounts, Some("acct:b"), "roc", 100, "k-1");
    let told = |refusal: Refusal| (refusal.code, refusal.reason);
    bench.verify(&bench.narrowed(predicates), None).and_then(|capability| capability.permits(&demand)).map_err(told)
}

#[test]
fn a_minted_token_is_believed_and_knows_what_was_asked_for() {
    let bench = Bench::new();
    let token = bench.token();
    assert!(!token.contains(['=', '+', '/']) && token.len() < 400, "{}", token.len());
    let capability = bench.verify(&token, None).unwrap();
    assert_eq!((capability.subject(), capability.key_id()), ("alice", bench.keyring.active_id()));
    assert_ne!(capability.token(), bench.verify(&bench.token(), None).unwrap().token());
    for scope in Scope::ALL {
        assert!(capability.permits_scope(ScopeSet::of(&[scope])).is_ok());
    }
    let padded = format!("{token}{}", "=".repeat((4 - token.len() % 4) % 4));
    assert!(bench.verify(&padded, None).is_ok(), "padding is tolerated");
}

#[test]
fn what_is_not_ours_is_unauthorized_and_told_alike() {
    let bench = Bench::new();
    let token = bench.token();
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let binary = engine.decode(&token).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = binary.clone();
        change(&mut changed);
        engine.encode(changed)
    };
    let macaroon = Macaroon::deserialize(&token).unwrap();
    let stranger = Macaroon::create(None, &MacaroonKey::generate(b"other"), macaroon.identifier()).unwrap();
    let named = Macaroon::create(None, &MacaroonKey::generate(b"other"), "some name".into()).unwrap();
    let mut crowded = Macaroon::deserialize(bench.bare()).unwrap();
    (0..65).for_each(|_| crowded.add_first_party_caveat("aud = svc-wallet".into()));
    let mut long = Macaroon::deserialize(bench.bare()).unwrap();
    long.add_first_party_caveat(format!("account = {}", "a".repeat(TOKEN_BYTES_MAX)).as_str().into());
    let third = {
        let mut third = Macaroon::deserialize(&token).unwrap();
        third.add_third_party_caveat("https://other", &MacaroonKey::generate(b"third"), "id".into());
        text(&third)
    };
    let told = Refusal::unauthorized(Why::NoToken).message;
    let (form, signature) = (Why::Malformed, Why::Signature);
    let cases = [
        ("nothing", form, String::new()),
        ("no base64", form, "!!!!".into()),
        ("words", form, "hello".into()),
        ("a JSON web token", form, "eyJhbGciOiJIUzI1NiJ9.e30.AAAA".into()),
        ("version 1", form, macaroon.serialize(Format::V1).unwrap()),
        ("JSON", form, macaroon.serialize(Format::V2JSON).unwrap()),
        ("a cut token", form, token[..token.len() - 8].into()),
        ("a byte more", form, with(&|bytes| bytes.push(0))),
        ("another signature", signature, with(&|bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("another identifier", signature, with(&|bytes| bytes[5] ^= 1)),
        (
            "another caveat",
            signature,
            with(&|bytes| {
                let at = bytes.windows(8).position(|window| window == b"wallet:*").unwrap();
                bytes[at] = b'W';
            }),
        ),
        ("another key", signature, text(&stranger)),
        ("another kind of identifier", form, text(&named)),
        (
            "an unknown key id",
            Why::UnknownKey,
            with(&|bytes| {
                let at = bytes.windows(2).position(|window| window == b"k-").unwrap();
                bytes[at + 2] = b'z';
            }),
        ),
        ("too many caveats", form, text(&crowded)),
        ("too long", form, text(&long)),
        ("a missing discharge", Why::Discharge, third),
        ("spaces", form, format!(" {token}")),
        ("standard base64 in place of URL-safe", form, format!("{}+", &token[..token.len() - 1])),
    ];
    for (name, why, token) in cases {
        let refusal = bench.verify(&token, None).unwrap_err();
        assert_eq!((refusal.code, refusal.status, refusal.reason), (Code::Unauthorized, 401, Some(Reason::Cap)), "{name}");
        assert_eq!(refusal.message, told, "{name}");
        assert_eq!(refusal.why, Some(why), "{name}");
    }
}

#[test]
fn every_single_bit_of_a_token_counts() {
    let bench = Bench::new();
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let binary = engine.decode(bench.token()).unwrap();
    for bit in 0..binary.len() * 8 {
        let mut changed = binary.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(bench.verify(&engine.encode(changed), None).unwrap_err().code, Code::Unauthorized, "bit {bit}");
    }
}

#[test]
fn caveats_permit_and_deny() {
    let caveat = Err((Code::Forbidden, Some(Reason::Cap)));
    let limit = Err((Code::LimitsExceeded, Some(Reason::Limits)));
    let unauthorized = Err((Code::Unauthorized, Some(Reason::Cap)));
    let permit = Ok(Allowance::default());
    let ceiling = |units| Ok(Allowance { daily_ceiling: Amount::new(units), ..Allowance::default() });
    let budget = |units| Ok(Allowance { budget: Amount::new(units), ..Allowance::default() });
    let cases: [(&[&str], Outcome); 54] = [
        (&[], permit),
        (&["aud = svc-wallet"], permit),
        (&["aud=svc-wallet"], permit),
        (&["aud = svc-storage"], unauthorized),
        (&["aud = svc-wallet", "aud = svc-storage"], unauthorized),
        (&["aud = svc-wallet-2"], unauthorized),
        (&["exp = 2030-01-01T00:00:00Z"], permit),
        (&["exp = 2030-01-01T00:00:00+14:00"], permit),
        (&["exp = 2020-01-01T00:00:00Z"], unauthorized),
        (&["exp = 2020-01-01T00:00:00Z", "exp = 2030-01-01T00:00:00Z"], unauthorized),
        (&["exp = 2027-01-15T08:00:00Z"], unauthorized),
        (&["exp = 2027-01-15T08:00:00.001Z"], permit),
        (&["exp = 2027-01-15T09:00:00+01:00"], unauthorized),
        (&["nbf = 2027-01-15T08:00:00Z"], permit),
        (&["nbf = 2027-01-15T08:00:00.001Z"], unauthorized),
        (&["nbf = 2020-01-01T00:00:00Z", "nbf = 2030-01-01T00:00:00Z"], unauthorized),
        (&["scope = wallet:*"], permit),
        (&["scope = wallet:transfer"], permit),
        (&["scope = wallet:spend"], permit),
        (&["scope = spend"], permit),
        (&["scope = wallet:read, wallet:transfer"], permit),
        (&["scope = wallet:read"], caveat),
        (&["scope = storage:*"], caveat),
        (&["scope = *"], caveat),
        (&["scope = wallet:*", "scope = wallet:read"], caveat),
        (&["scope = wallet:transfer", "scope = spend"], permit),
        (&["account = acct:a"], permit),
        (&["account = acct:*"], permit),
        (&["account = *"], permit),
        (&["account = x, acct:a"], permit),
        (&["account = acct:b"], caveat),
        (&["account = acct"], caveat),
        (&["account = acct:*", "account = acct:b*"], caveat),
        (&["to = acct:b"], permit),
        (&["to = acct:a"], caveat),
        (&["to = svc:*"], caveat),
        (&["asset = roc"], permit),
        (&["asset = ron , roc"], permit),
        (&["asset = ron"], caveat),
        (&["asset = roc*"], caveat),
        (&["max_amount = 100"], permit),
        (&["max_amount = 99"], limit),
        (&["max_amount = 1000", "max_amount = 99"], limit),
        (&["daily_ceiling = 500"], ceiling(500)),
        (&["daily_ceiling = 500", "daily_ceiling = 300", "daily_ceiling = 900"], ceiling(300)),
        (&["daily_ceiling = 0"], limit),
        (&["budget = 500"], budget(500)),
        (&["budget = 500", "budget = 300", "budget = 900"], budget(300)),
        (&["budget = 0"], limit),
        (&["budget = 5", "daily_ceiling = 0"], limit),
        (&["idem = k-*"], permit),
        (&["idem = k"], caveat),
        (&["colour = blue"], caveat),
        (&["exp = 2020-01-01T00:00:00Z", "colour = blue"], unauthorized),
    ];
    for (predicates, expected) in cases {
        assert_eq!(outcome(predicates), expected, "{predicates:?}");
    }
}

#[test]
fn any_caveat_added_to_a_narrow_token_leaves_it_narrow() {
    for widening in ["scope = wallet:*", "account = *", "exp = 2099-01-01T00:00:00Z", "max_amount = 1000000"] {
        for narrow in ["scope = wallet:read", "account = acct:z", "exp = 2020-01-01T00:00:00Z", "max_amount = 1"] {
            assert!(outcome(&[narrow, widening]).is_err(), "{narrow} {widening}");
        }
    }
}

#[test]
fn reads_and_burns_meet_the_caveats_that_speak_about_them() {
    let bench = Bench::new();
    let accounts = [Account::new("acct:a").unwrap()];
    let other = [Account::new("acct:z").unwrap()];
    let capability = |predicates: &[&str]| bench.verify(&bench.narrowed(predicates), None).unwrap();
    let read = Demand { scopes: READ, accounts: &accounts, to: None, asset: None, amount: None, key: None, debits: false };
    let all =
        ["to = acct:b", "asset = ron", "max_amount = 1", "daily_ceiling = 0", "budget = 0", "idem = x*", "account = acct:a"];
    assert_eq!(capability(&all).permits(&read), Ok(Allowance::default()));
    assert!(capability(&all).permits(&Demand { accounts: &other, ..read }).is_err());
    assert!(capability(&all).permits(&Demand { asset: Asset::new("roc"), ..read }).is_err());
    let burn = spend(&accounts, None, "roc", 1, "k");
    assert!(capability(&[]).permits(&burn).is_ok());
    assert_eq!(capability(&["to = *"]).permits(&burn).unwrap_err().code, Code::Forbidden, "a burn has no receiver to check");
    let issue = Demand { debits: false, ..spend(&[], Some("acct:b"), "roc", 1, "k") };
    assert_eq!(capability(&["account = acct:a", "daily_ceiling = 5", "budget = 5"]).permits(&issue), Ok(Allowance::default()));
    assert!(capability(&["to = acct:c"]).permits(&issue).is_err());
}

#[test]
fn sums_over_all_accounts_are_for_capabilities_that_have_all_of_them() {
    let bench = Bench::new();
    let permits = |predicates: &[&str]| {
        let capability = bench.verify(&bench.narrowed(predicates), None).unwrap();
        capability.permits_every_account().map_err(|refusal| (refusal.code, refusal.reason))
    };
    let denied = Err((Code::Forbidden, Some(Reason::Cap)));
    for (predicates, expected) in [
        (&[][..], Ok(())),
        (&["account = *"], Ok(())),
        (&["account = acct:a, *"], Ok(())),
        (&["account = acct:*"], denied),
        (&["account = *", "account = acct:a"], denied),
    ] {
        assert_eq!(permits(predicates), expected, "{predicates:?}");
    }
}

#[test]
fn a_receipt_is_shown_to_either_side() {
    let bench = Bench::new();
    let (payer, payee, roc) = (Account::new("acct:a"), Account::new("acct:b"), Asset::new("roc").unwrap());
    for (predicates, shown) in [
        (vec![], true),
        (vec!["account = acct:a"], true),
        (vec!["account = acct:b"], true),
        (vec!["account = acct:c"], false),
        (vec!["account = acct:a", "account = acct:b"], false),
        (vec!["asset = roc"], true),
        (vec!["asset = ron"], false),
    ] {
        let capability = bench.verify(&bench.narrowed(&predicates), None).unwrap();
        assert_eq!(capability.permits_receipt([payer, payee], roc).is_ok(), shown, "{predicates:?}");
    }
}

#[test]
fn third_parties_have_to_discharge() {
    let bench = Bench::new();
    let third = MacaroonKey::generate(b"third party");
    let mut root = Macaroon::deserialize(bench.bare()).unwrap();
    root.add_third_party_caveat("https://kyc", &third, "check 1".into());
    let token = text(&root);
    let discharge = |key: &MacaroonKey, id: &str, predicates: &[&str], bound: bool| {
        let mut discharge = Macaroon::create(Some("https://kyc".into()), key, id.into()).unwrap();
        predicates.iter().for_each(|predicate| discharge.add_first_party_caveat((*predicate).into()));
        if bound {
            root.bind(&mut discharge);
        }
        text(&discharge)
    };
    let good = discharge(&third, "check 1", &[], true);
    assert!(bench.verify(&token, Some(&good)).is_ok());
    assert!(bench.verify(&token, Some(&format!(" {good}, "))).is_ok());
    let other = MacaroonKey::generate(b"another");
    let cases = [
        ("none", String::new()),
        ("of another key", discharge(&other, "check 1", &[], true)),
        ("of another caveat", discharge(&third, "check 2", &[], true)),
        ("not bound", discharge(&third, "check 1", &[], false)),
        ("twice", format!("{good},{good}")),
        ("with one too many", format!("{good} {}", discharge(&third, "check 2", &[], true))),
        ("expired", discharge(&third, "check 1", &["exp = 2020-01-01T00:00:00Z"], true)),
        ("for another service", discharge(&third, "check 1", &["aud = svc-storage"], true)),
        ("no macaroon", "AAAA".into()),
        ("too many", vec![good.as_str(); 100].join(",")),
    ];
    for (name, discharges) in cases {
        assert_eq!(bench.verify(&token, Some(&discharges)).unwrap_err().code, Code::Unauthorized, "{name}");
    }
    assert_eq!(bench.verify(&bench.bare(), Some(&good)).unwrap_err().code, Code::Unauthorized, "an unused discharge");
    let narrow = discharge(&third, "check 1", &["scope = wallet:read"], true);
    let capability = bench.verify(&token, Some(&narrow)).unwrap();
    assert!(capability.permits_scope(READ).is_ok() && capability.permits_scope(SPEND).is_err());
    let strange = discharge(&third, "check 1", &["colour = blue"], true);
    assert_eq!(bench.verify(&token, Some(&strange)).unwrap_err().code, Code::Forbidden);
}

#[test]
fn a_token_of_an_older_key_is_believed_until_the_key_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let ring = |name: &str, active: &str, ids: &[(&str, u8)]| {
        use std::os::unix::fs::OpenOptionsExt;
        let secret = |byte: u8| base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        let keys: Vec<String> = ids.iter().map(|(id, byte)| format!(r#"{{"id":"{id}","secret":"{}"}}"#, secret(*byte))).collect();
        let path = directory.path().join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        let text = format!(r#"{{"version":1,"active":"{active}","keys":[{}]}}"#, keys.join(","));
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Arc::new(Keyring::open(&path).unwrap())
    };
    let token = mint(&ring("before", "old", &[("old", 1)]), &request(), NOW).unwrap();
    let believes = |keyring| TokenCache::new(keyring, AUDIENCE, 1).verify(token.as_bytes(), None, NOW).is_ok();
    assert!(believes(ring("during", "new", &[("old", 1), ("new", 2)])));
    assert!(!believes(ring("after", "new", &[("new", 2)])));
    assert!(!believes(ring("swapped", "new", &[("old", 2), ("new", 1)])));
}

#[test]
fn minting_refuses_what_would_not_be_understood() {
    let bench = Bench::new();
    let text = |value: &str| vec![value.to_string()];
    let cases = [
        ("subject", MintRequest { subject: String::new(), ..request() }),
        ("subject", MintRequest { subject: "a\nb".into(), ..request() }),
        ("subject", MintRequest { subject: "x".repeat(129), ..request() }),
        ("scopes", MintRequest { scopes: Vec::new(), ..request() }),
        ("scopes", MintRequest { scopes: text("wallet:fly"), ..request() }),
        ("ttl", MintRequest { ttl: Duration::from_millis(999), ..request() }),
        ("ttl", MintRequest { ttl: Duration::MAX, ..request() }),
        ("ttl", MintRequest { ttl: Duration::from_secs(1 << 40), ..request() }),
        ("audience", MintRequest { audience: String::new(), ..request() }),
        ("accounts", MintRequest { accounts: text("a*b"), ..request() }),
        ("accounts", MintRequest { accounts: text(""), ..request() }),
        ("to", MintRequest { to: text("a\nb"), ..request() }),
        ("assets", MintRequest { assets: text(","), ..request() }),
        ("idem", MintRequest { idem: Some("*x".into()), ..request() }),
    ];
    for (name, request) in cases {
        match mint(&bench.keyring, &request, NOW) {
            Err(MintFault::Invalid { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let many = MintRequest { accounts: (0..400).map(|n| format!("account-{n}")).collect(), ..request() };
    assert_eq!(mint(&bench.keyring, &many, NOW), Err(MintFault::TooLong));
}
