//! What must hold of tokens, discharges, caveats, policies and keyrings, whatever bytes arrive; `src/fuzzing.rs` feeds it.
use super::capability::{Capability, Demand};
use super::caveat::Caveat;
use super::identifier::Identifier;
use super::keyring::{Keyring, Sealing, KEYS_MAX};
use super::opening_key::OpeningKey;
use super::policy::Policy;
use super::private_file::blank;
use super::revocations::{Revocation, Revoked};
use super::scope::{Scope, ScopeSet};
use super::token::{parse, verify};
use super::{revocation_file, seal};
use super::{DISCHARGES_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::domain::{Account, Allowance, Amount, Asset, Key, TokenId, UnixMs};
use macaroon::{Format, Macaroon};
use std::sync::OnceLock;

const KEYRING: &str = r#"{"version":1,"active":"k-1","keys":[
    {"id":"k-1","secret":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="},
    {"id":"k-2","secret":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}]}"#;

fn keyring() -> &'static Keyring {
    static KEYRING_READ: OnceLock<Keyring> = OnceLock::new();
    KEYRING_READ.get_or_init(|| Keyring::parse(KEYRING.as_bytes(), Sealing::Clear).expect("a keyring as it is written"))
}

fn text(macaroon: &Macaroon) -> String {
    let text = macaroon.serialize(Format::V2).expect("the binary form has no limit");
    text.trim_end_matches('=').to_owned()
}

/// A token of a key of the keyring, with these caveats.
fn token(key_id: &str, caveats: &[&str]) -> Macaroon {
    let identifier = Identifier { token: TokenId([5; 16]), issued: UnixMs(1), key_id, subject: "s" };
    let root = keyring().root(key_id).expect("a key of the keyring");
    let created = Macaroon::create(None, root, identifier.encode().into());
    let mut macaroon = created.expect("the identifier is not empty");
    caveats.iter().for_each(|caveat| macaroon.add_first_party_caveat((*caveat).into()));
    macaroon
}

/// A token that asks for a discharge, and the discharge: with a nonce as it fell when they were made.
const THIRD_PARTY: [&str; 2] = ["AgIeAQUFBQUFBQUFBQUFBQUFBQUBAAAAAAAAAANrLTFzAAIMc2NvcGUgPSByZWFkAAEUaHR0cHM6Ly9hdXRoLmV4YW1wbGUCA3dobwRIOPjcYvufMhH44cID_OXGxEpD1ZXeDjfoGclRjLBItA7JwOv_0tfERCBMFx5YCS4iT1lzSyUfMEvAqZYDJLdA2gUzBXcGP0GzAAAGIIdokrVM-pt9bUDm-hHZaPcPSO_Z3DX3XMt-hcqN0iCA", "AgIDd2hvAAIaZXhwID0gMjAzMC0wMS0wMVQwMDowMDowMFoAAAYgvcz0qhteE6qX718malJllR41Q-9RMzzSpIJ9F65tI94"];

/// The tokens whose signatures are right, and the headers that they come in: with their discharges, if they need any.
fn genuine() -> &'static [(Macaroon, String)] {
    static GENUINE: OnceLock<Vec<(Macaroon, String)>> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let bare = token("k-1", &[]);
        let usual = token("k-2", &["exp = 2030-01-01T00:00:00Z", "scope = wallet:*", "aud = svc-wallet", "account = a*"]);
        let unknown = token("k-1", &["colour = blue"]);
        let third = parse(THIRD_PARTY[0]).expect("it was made by the library");
        let plain = [bare, usual, unknown].map(|macaroon| (macaroon.clone(), text(&macaroon)));
        plain.into_iter().chain([(third, THIRD_PARTY.join(" "))]).collect()
    })
}

/// Its caveats but for the locations of third parties, which are hints and not signed.
fn signed(macaroon: &Macaroon) -> Vec<[Vec<u8>; 2]> {
    let caveats = macaroon.caveats().into_iter().map(|caveat| match caveat {
        macaroon::Caveat::FirstParty(first) => [first.predicate().0, Vec::new()],
        macaroon::Caveat::ThirdParty(third) => [third.id().0, third.verifier_id().0],
    });
    caveats.collect()
}

/// A token and its discharges, with a space between: nothing is believed but what begins as a token does that a key has signed, and a
/// token has one spelling.
pub(crate) fn macaroons(input: &[u8]) {
    let (head, discharges) = match input.iter().position(|byte| *byte == b' ') {
        Some(at) => (&input[..at], Some(&input[at + 1..])),
        None => (input, None),
    };
    let parsed = std::str::from_utf8(head).ok().and_then(parse);
    if let Some(macaroon) = &parsed {
        assert!(head.len() <= TOKEN_BYTES_MAX);
        assert_eq!(text(macaroon).as_bytes(), head.strip_suffix(b"==").or(head.strip_suffix(b"=")).unwrap_or(head));
    }
    let Ok(capability) = verify(keyring(), head, discharges) else { return };
    let macaroon = parsed.expect("only what can be read is believed");
    assert!(discharges.map_or(0, <[u8]>::len) <= DISCHARGES_BYTES_MAX);
    let from = genuine()
        .iter()
        .rev()
        .find(|(known, _)| known.identifier() == macaroon.identifier() && signed(&macaroon).starts_with(&signed(known)));
    let (_, header) = from.expect("a token is believed that nobody has signed");
    // Of a discharge nothing may differ but the location, which is a hint: it is bound as it is.
    let read = |discharges: &str| -> Vec<_> {
        let all = discharges.split([',', ' ', '\t']).filter(|text| !text.is_empty()).filter_map(parse);
        all.map(|discharge| (discharge.identifier(), signed(&discharge), discharge.signature())).collect()
    };
    let used = discharges.map_or("", |bytes| std::str::from_utf8(bytes).expect("only text is believed"));
    let needed = header.split_once(' ').map_or("", |(_, needed)| needed);
    assert!(read(used) == read(needed), "a discharge is believed that nobody has made");
    assert_eq!(capability.subject(), "s");
}

/// Questions that differ in every part.
fn demands() -> Vec<Demand<'static>> {
    static NAMES: [&str; 3] = ["a", "acct:b", "user/c"];
    static OWNERS: OnceLock<Vec<Account<'static>>> = OnceLock::new();
    let owners = OWNERS.get_or_init(|| NAMES.iter().map(|name| Account::new(name).expect("a name")).collect());
    let mut demands = Vec::new();
    for (number, scope) in Scope::ALL.into_iter().enumerate() {
        for accounts in [&owners[..1], &owners[1..2], &owners[..2], &[]] {
            let debits = !matches!(scope, Scope::Issue | Scope::Read);
            demands.push(Demand {
                scopes: ScopeSet::of(&[scope]),
                accounts,
                to: (number % 2 == 0).then(|| owners[2]),
                asset: Asset::new(["roc", "ron"][number % 2]),
                amount: Amount::new([1, 1000, u128::MAX][number % 3]),
                key: Key::new(["k-1", "x"][number % 2]),
                debits,
            });
        }
    }
    demands
}

/// What a capability permits: for every moment and question yes or no, and how far it limits sums.
fn answers(capability: &Capability) -> Vec<Option<Allowance>> {
    let moments = [0, 1_000, 1_800_000_000_000, u64::MAX].map(UnixMs);
    let mut answers = Vec::new();
    for now in moments {
        let now_good = capability.check("svc-wallet", now, 0).is_ok();
        for demand in demands() {
            answers.push(capability.permits(&demand).ok().filter(|_| now_good));
        }
    }
    answers
}

fn capability(predicates: &[&[u8]]) -> Capability {
    let mut capability = Capability::new("s", "k-1", TokenId([5; 16]));
    predicates.iter().for_each(|predicate| capability.narrow(Caveat::parse(predicate)));
    capability
}

/// Caveats, one a line: each can only narrow, in whatever order they stand; spaces around them mean nothing; one that is not understood
/// denies everything.
pub(crate) fn caveats(input: &[u8]) {
    let predicates: Vec<&[u8]> = input.split(|byte| *byte == b'\n').take(8).collect();
    let mut before = answers(&capability(&[]));
    for count in 1..=predicates.len() {
        let after = answers(&capability(&predicates[..count]));
        for (before, after) in before.iter().zip(&after) {
            let narrowed = match (before, after) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(before), Some(after)) => {
                    let least = |limit: Option<Amount>| limit.map_or(u128::MAX, Amount::minor_units);
                    least(after.daily_ceiling) <= least(before.daily_ceiling) && least(after.budget) <= least(before.budget)
                }
            };
            assert!(narrowed, "caveat {count} widens {before:?} to {after:?}");
        }
        before = after;
    }
    let reversed: Vec<&[u8]> = predicates.iter().rev().copied().collect();
    assert_eq!(answers(&capability(&reversed)), before, "the order of caveats matters");
    for predicate in &predicates {
        let understood = Caveat::parse(predicate);
        assert!(understood.is_some() || answers(&capability(&[predicate])).iter().all(Option::is_none));
        let Some(at) = predicate.iter().position(|byte| *byte == b'=') else { continue };
        let spaced = [b" \t", &predicate[..at], b" =\t ", &predicate[at + 1..], b" "].concat();
        assert_eq!(answers(&capability(&[&spaced])), answers(&capability(&[predicate])), "spaces matter");
    }
}

/// A policy: what was read is read again from its plainest spelling, and every flaw stands on a line that there is.
pub(crate) fn policy(input: &[u8]) {
    match Policy::parse(input) {
        Ok(policy) => {
            let plain = policy.to_json().to_string();
            assert_eq!(Policy::parse(plain.as_bytes()), Ok(policy), "{plain}");
        }
        Err(flaws) => {
            let lines = 1 + input.iter().filter(|byte| **byte == b'\n').count();
            assert!(!flaws.told.is_empty() && flaws.told.iter().all(|flaw| (1..=lines).contains(&flaw.line)), "{flaws}");
        }
    }
}

/// A keyring: what is accepted has one active key among a few with well-formed names, and no refusal repeats what it has read.
pub(crate) fn keyrings(input: &[u8]) {
    // As long as a secret, and longer than a name. A secret has no spaces; the words of a refusal, which a fuzzer learns and sends, have.
    const REPEATED_BYTES: usize = 40;
    match Keyring::parse(input, Sealing::Clear) {
        Ok(keyring) => {
            let ids: Vec<&str> = keyring.ids().collect();
            assert!(ids.contains(&keyring.active_id()) && ids.len() <= KEYS_MAX);
            assert!(ids.iter().all(|id| super::identifier::key_id_well_formed(id) && keyring.root(id).is_some()));
        }
        Err(flaw) => {
            let repeats = |word: &str| {
                word.as_bytes().windows(REPEATED_BYTES).any(|told| input.windows(REPEATED_BYTES).any(|sent| sent == told))
            };
            assert!(!flaw.split_whitespace().any(repeats), "{flaw}");
        }
    }
}

/// Inputs from which a fuzzer of [`macaroons`] begins.
pub(crate) fn macaroons_seeds() -> Vec<Vec<u8>> {
    genuine().iter().map(|(_, header)| header.clone().into_bytes()).collect()
}

/// Inputs from which a fuzzer of [`caveats`] begins.
pub(crate) fn caveats_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "aud = svc-wallet\nexp = 2030-01-01T00:00:00Z\nnbf = 1970-01-01T02:00:01.0001+02:00\nscope = wallet:*",
        "scope = wallet:read,spend\naccount = acct:*,a\nto = user/*\nasset = roc\nmax_amount = 1000\ndaily_ceiling = 5\nbudget = 9\nidem = k-*",
        "scope=storage:get\naccount=*\ncolour = blue",
        "daily_ceiling = 340282366920938463463374607431768211455\ndaily_ceiling = 0\nexp = 1960-01-01T00:00:00Z",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Inputs from which a fuzzer of [`policy`] begins.
pub(crate) fn policy_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"version":1,"operations":["issue","transfer","burn","hold","capture","release"],
            "assets":{"roc":{"amount_max":{"transfer":"1000000000","burn":"5"}},"ron":{}}}"#,
        r#"{"assets":{},"operations":[],"version":18446744073709551615}"#,
        r#"{"version":2,"operations":["transfer"],"assets":{"roc":{"daily_max":{"transfer":"9"}}},"quotas":{"account":{"rate":5,"burst":10}},
            "frozen":["alice","shop:*"],"denied":{"accounts":["m"],"subjects":["eve"]},"degraded":["tx"],
            "revoked":{"tokens":["ff112233445566778899aabbccddeeff"],"subjects":["t"],"keys":["k-1"]}}"#,
        r#"{"version":1,"operations":["issue","issue"],"assets":{"roc":{},"roc":{"amount_max":{"spend":"01"}}}}"#,
        r#"{"$schema":"policy.schema.json","form":1,"version":3,"operations":["\u0062urn"],"assets":{"roc":{}},"frozen":["a b","a"],"form":2}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Inputs from which a fuzzer of [`keyrings`] begins.
pub(crate) fn keyrings_seeds() -> Vec<Vec<u8>> {
    vec![KEYRING.as_bytes().to_vec(), br#"{"version":1,"active":"k","keys":[{"id":"k","secret":"AA=="}]}"#.to_vec()]
}

/// A list of revocations: what is read is written and read again the same, whatever its check says; nothing is read whose check does not fit.
pub(crate) fn revocations(input: &[u8]) {
    let _ = revocation_file::parse(input);
    let Some(mended) = revocation_file::mended(input) else { return };
    let Ok(entries) = revocation_file::parse(&mended) else { return };
    assert!(revocation_file::parse(&revocation_file::written(&entries)).is_ok_and(|again| again == entries));
    let other = String::from_utf8(mended).expect("JSON is text").replace("\"check\":\"", "\"check\":\"0");
    assert!(revocation_file::parse(other.as_bytes()).is_err());
}

/// Inputs from which a fuzzer of [`revocations`] begins.
pub(crate) fn revocations_seeds() -> Vec<Vec<u8>> {
    let entry = |what, at, reason: &str| Revocation { what, at: UnixMs(at), reason: reason.to_owned() };
    let entries = [
        entry(Revoked::Token(TokenId([9; 16])), 1_764_500_000_000, "lost"),
        entry(Revoked::Subject("ülo, till 3".to_owned()), 1, ""),
        entry(Revoked::Key("k-1".to_owned()), 253_402_300_799_999, "copied"),
    ];
    vec![revocation_file::written(&entries), revocation_file::written(&[])]
}

const OPENING_KEY: &[u8] = b"key:AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
/// What stretching may cost: memory in KiB, times passes.
const STRETCHED_KIB_MAX: u32 = 256;
/// Files of the clear form above, sealed with that key: in the plain and in the hybrid form.
const SEALED: [&str; 2] =
    [include_str!("../../fuzz/corpus/sealed_keyring/seed-00"), include_str!("../../fuzz/corpus/sealed_keyring/seed-01")];

/// A sealed keyring: only what was sealed opens, and to nothing else.
pub(crate) fn sealed(input: &[u8]) {
    static KEYS: OnceLock<[OpeningKey; 2]> = OnceLock::new();
    let keys = KEYS
        .get_or_init(|| [OPENING_KEY, b"a passphrase, to see it refused"].map(|text| OpeningKey::parse(text).expect("a key")));
    if seal::stretches_beyond(input, STRETCHED_KIB_MAX) {
        return;
    }
    let mut clear = blank();
    for key in keys {
        let Ok(opened) = seal::open(input, key, &mut clear) else { continue };
        assert!(clear[..opened.length] == *KEYRING.as_bytes(), "something opens that nobody has sealed");
        let read = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("what opens is JSON");
        let members = read(input);
        assert!(SEALED.iter().any(|known| read(known.as_bytes()) == members), "a changed file opens");
    }
}

/// Inputs from which a fuzzer of [`sealed`] begins.
pub(crate) fn sealed_seeds() -> Vec<Vec<u8>> {
    SEALED.map(|text| text.as_bytes().to_vec()).into()
}
