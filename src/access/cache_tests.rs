//! Proves what a core's cache of verified tokens may and may not remember: never past expiry, revocation, its key or its bound.
use super::*;
use crate::access::tests::{narrow, token_of, Bench, AUDIENCE, NOW};
use crate::access::{Revocations, Revoked, Sealing};
use crate::domain::{Code, TokenId};
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::Engine;

fn why(cache: &mut TokenCache, token: &str, now: UnixMs) -> Option<Why> {
    let told = cache.verify(token.as_bytes(), None, now).map(drop);
    told.err().map(|refusal| refusal.why.expect("only UNAUTHORIZED is met here"))
}

#[test]
fn a_cached_token_expires_and_keeps_its_discharges_apart() {
    let bench = Bench::new();
    let mut cache = bench.cache();
    let token = bench.token_of("alice");
    assert_eq!(why(&mut cache, &token, NOW), None);
    assert_eq!(why(&mut cache, &token, UnixMs(NOW.0 + 899_999)), None);
    assert_eq!(why(&mut cache, &token, UnixMs(NOW.0 + 900_000)), Some(Why::Expired));
    assert_eq!(why(&mut cache, &token, NOW), None);
    assert!(cache.verify(token.as_bytes(), Some(b"AAAA"), NOW).is_err(), "a discharge is part of what was verified");
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_leeway_is_given_at_both_ends_and_to_the_millisecond() {
    let bench = Bench::new();
    let mut cache = bench.cache().with_leeway(Duration::from_secs(5));
    let token = bench.token_of("alice");
    assert_eq!(why(&mut cache, &token, UnixMs(NOW.0 + 904_999)), None);
    assert_eq!(why(&mut cache, &token, UnixMs(NOW.0 + 905_000)), Some(Why::Expired));
    let mut later = macaroon::Macaroon::deserialize(&token).unwrap();
    later.add_first_party_caveat("nbf = 2027-01-15T08:00:10Z".into());
    let later = later.serialize(macaroon::Format::V2).unwrap();
    assert_eq!(why(&mut cache, &later, UnixMs(NOW.0 + 4_999)), Some(Why::NotYet));
    assert_eq!(why(&mut cache, &later, UnixMs(NOW.0 + 5_000)), None);
    let mut endless = bench.cache().with_leeway(Duration::MAX);
    assert_eq!(why(&mut endless, &token, UnixMs(u64::MAX - 1)), None, "no sum overflows");
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let bench = Bench::new();
    let mut cache = bench.cache();
    assert!(cache.is_empty());
    let busy = bench.token_of("busy");
    for round in 0..100 {
        assert_eq!(why(&mut cache, &busy, NOW), None);
        assert_eq!(why(&mut cache, "garbage", NOW), Some(Why::Malformed));
        let token = bench.token_of(&format!("subject-{round}"));
        let first = Arc::as_ptr(cache.verify(token.as_bytes(), None, NOW).unwrap());
        assert_eq!(first, Arc::as_ptr(cache.verify(token.as_bytes(), None, NOW).unwrap()), "the second look is a hit");
        assert!(cache.len() <= 8);
    }
}

#[test]
fn one_token_written_in_many_ways_takes_one_place() {
    let bench = Bench::new();
    let mut cache = bench.cache();
    let other = bench.token_of("bob");
    assert_eq!(why(&mut cache, &other, NOW), None);
    let plain = URL_SAFE_NO_PAD.decode(bench.token_of("alice").trim_end_matches('=')).unwrap();
    for number in 0..1000 {
        // A location stands behind the version and is not signed.
        let location = format!("{number:06}");
        let located = [&plain[..1], &[1, 6], location.as_bytes(), &plain[1..]].concat();
        let located = URL_SAFE_NO_PAD.encode(located);
        assert_eq!(why(&mut cache, &located, NOW), None);
        assert_eq!(cache.holder().unwrap().subject(), "alice");
        assert_eq!(cache.len(), 2);
    }
    assert_eq!(why(&mut cache, &other, NOW), None);
    assert_eq!(cache.take_lookups(), Lookups { hits: 1, misses: 1001 });
}

#[test]
fn endless_valid_narrowings_take_the_room_of_what_is_not_used_and_never_the_right_of_what_is() {
    let bench = Bench::new();
    let mut cache = bench.cache();
    let (busy, idle) = (bench.token_of("busy"), bench.token_of("idle"));
    let endless = bench.token_of("endless");
    assert_eq!((why(&mut cache, &busy, NOW), why(&mut cache, &idle, NOW)), (None, None));
    for round in 0..500 {
        // Once the hand has gone round.
        if round == 100 {
            cache.take_lookups();
        }
        assert_eq!(why(&mut cache, &narrow(&endless, &[&format!("max_amount = {round}")]), NOW), None);
        assert_eq!(why(&mut cache, &busy, NOW), None);
        assert!(cache.len() <= 8);
    }
    let found = cache.take_lookups();
    assert_eq!((found.hits, found.misses), (400, 400), "what is in use stays, and each narrowing costs one verification");
    assert_eq!(why(&mut cache, &idle, NOW), None);
    let found = cache.take_lookups();
    assert_eq!((found.hits, found.misses), (0, 1), "what was pushed out is verified once more");
}

#[test]
fn a_revoked_token_is_refused_at_once_whether_it_is_cached_or_not_and_until_it_is_taken_back() {
    let bench = Bench::new();
    let board = Arc::<RevocationBoard>::default();
    let mut caches = [0, 1].map(|_| bench.cache().with_revocations(board.clone()));
    let (alice, bob) = (bench.token_of("alice"), bench.token_of("bob"));
    let mut narrowed = macaroon::Macaroon::deserialize(&alice).unwrap();
    narrowed.add_first_party_caveat("asset = roc".into());
    let narrowed = narrowed.serialize(macaroon::Format::V2).unwrap();
    let id = caches[0].verify(alice.as_bytes(), None, NOW).unwrap().token();
    let lists = [
        (vec![Revoked::Token(id)], true, false),
        (vec![Revoked::Subject("alice".into())], true, false),
        (vec![Revoked::Key(bench.keyring.active_id().into())], true, true),
        (vec![Revoked::Key("another".into()), Revoked::Subject("alic".into())], false, false),
        (vec![Revoked::Subject("bob".into()), Revoked::Token(TokenId([0; 16]))], false, true),
        (vec![], false, false),
    ];
    for (list, of_alice, of_bob) in lists {
        board.put(Revocations::of(&list));
        // The first cache knows all three before the second list; the second one never sees a token that is revoked from the start.
        for cache in &mut caches {
            for (token, revoked) in [(&alice, of_alice), (&narrowed, of_alice), (&bob, of_bob), (&alice, of_alice)] {
                assert_eq!(why(cache, token, NOW), revoked.then_some(Why::Revoked), "{list:?}");
                assert!(cache.holder().is_some(), "its signature is right");
            }
        }
    }
    // One list for a token at the edge of its time: what a stranger is told does not depend on which of them it is.
    board.put(Revocations::of(&[Revoked::Token(id)]));
    let revoked = caches[0].verify(alice.as_bytes(), None, NOW).map(drop).unwrap_err();
    let expired = caches[0].verify(bob.as_bytes(), None, UnixMs(u64::MAX)).map(drop).unwrap_err();
    assert_eq!((revoked.code, revoked.message), (expired.code, expired.message));
}

#[test]
fn only_a_right_signature_makes_a_holder() {
    let bench = Bench::new();
    let mut cache = bench.cache();
    let token = bench.token_of("alice");
    cache.begin();
    assert!(cache.holder().is_none());
    assert_eq!(why(&mut cache, &token, UnixMs(u64::MAX)), Some(Why::Expired));
    assert_eq!(cache.holder().map(|holder| holder.subject().to_owned()).as_deref(), Some("alice"));
    cache.begin();
    let (shorter, _) = token.split_at(token.len() - 4);
    let mut forged = shorter.to_owned();
    forged.push_str(if token.ends_with("AAAA") { "AAAE" } else { "AAAA" });
    assert_eq!(why(&mut cache, &forged, NOW), Some(Why::Signature));
    assert!(cache.holder().is_none(), "nobody is named for a token that is not ours");
    assert_eq!(cache.len(), 1);
    assert_eq!(Code::Unauthorized, cache.verify(b"", None, NOW).unwrap_err().code);
}

#[test]
fn what_found_no_room_is_told_when_its_token_comes_again() {
    let bench = Bench::new();
    let mut cache = bench.cache();
    let [alice, bob] = ["alice", "bob"].map(|subject| bench.token_of(subject));
    let told = |cache: &mut TokenCache, token: &str| {
        cache.begin();
        assert_eq!(why(cache, token, NOW), None);
        cache.take_fresh().map(|fresh| fresh.subject().to_owned())
    };
    assert_eq!(told(&mut cache, &alice).as_deref(), Some("alice"));
    cache.tell_again();
    assert_eq!(told(&mut cache, &bob).as_deref(), Some("bob"));
    assert_eq!(told(&mut cache, &alice).as_deref(), Some("alice"), "it is cached, and was not told");
    assert_eq!((told(&mut cache, &alice), told(&mut cache, &bob)), (None, None));
    cache.begin();
    cache.tell_again();
    assert_eq!(told(&mut cache, &bob), None, "nobody has asked yet");
}

/// A keyring of these keys, of which the first is active; each secret is one byte, repeated.
fn ring(keys: &[(&str, u8)]) -> Arc<Keyring> {
    let secret = |byte: u8| STANDARD.encode([byte; 32]);
    let written: Vec<String> = keys.iter().map(|(id, byte)| format!(r#"{{"id":"{id}","secret":"{}"}}"#, secret(*byte))).collect();
    let text = format!(r#"{{"version":1,"active":"{}","keys":[{}]}}"#, keys[0].0, written.join(","));
    Arc::new(Keyring::parse(text.as_bytes(), Sealing::Clear).unwrap())
}

#[test]
fn a_changed_keyring_forgets_what_retired_keys_have_signed_and_nothing_else() {
    let [one, two, strange] = [ring(&[("k-1", 1)]), ring(&[("k-2", 2)]), ring(&[("k-1", 9)])];
    let (ones, twos): (Vec<_>, Vec<_>) = (0..5).map(|_| (token_of(&one, "s"), token_of(&two, "s"))).unzip();
    let mut cache = TokenCache::new(ring(&[("k-1", 1), ("k-2", 2)]), AUDIENCE, 8);
    let valid = |cache: &mut TokenCache, token: &String| cache.verify(token.as_bytes(), None, NOW).is_ok();
    // More than there is room for, so that the hand has moved.
    assert!(ones.iter().zip(&twos).all(|(one, two)| valid(&mut cache, one) && valid(&mut cache, two)));
    cache.take_lookups();

    // Another key beside them changes nothing: what is in the cache is found there.
    cache.change_keyring(ring(&[("k-3", 3), ("k-2", 2), ("k-1", 1)]));
    assert_eq!(cache.len(), 8);
    assert!(valid(&mut cache, &ones[4]) && valid(&mut cache, &twos[4]));
    assert_eq!(cache.take_lookups(), Lookups { hits: 2, misses: 0 });

    // Without the first key its tokens are gone, and the others are still found.
    cache.change_keyring(ring(&[("k-3", 3), ("k-2", 2)]));
    assert_eq!(cache.len(), 4);
    assert!(ones.iter().all(|token| !valid(&mut cache, token)));
    assert!(valid(&mut cache, &twos[4]) && valid(&mut cache, &twos[3]));
    assert_eq!(cache.take_lookups(), Lookups { hits: 2, misses: 5 });
    for _ in 0..3 {
        assert!(twos.iter().all(|token| valid(&mut cache, token)), "the cache still fills and evicts");
    }

    // The same id with another secret is another key.
    cache.change_keyring(ring(&[("k-1", 1)]));
    assert!(cache.is_empty() && valid(&mut cache, &ones[0]));
    cache.change_keyring(strange.clone());
    assert!(cache.is_empty() && !valid(&mut cache, &ones[0]) && valid(&mut cache, &token_of(&strange, "s")));
}
