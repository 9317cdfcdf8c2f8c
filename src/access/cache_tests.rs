//! Proves what a cache of verified tokens keeps and forgets when the keyring changes.
use super::*;
use crate::access::{mint, MintRequest};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use std::time::Duration;

const NOW: UnixMs = UnixMs(1_764_500_000_000);
const AUDIENCE: &str = "svc-wallet";

/// A keyring of these keys, of which the first is active; each secret is one byte, repeated.
fn ring(keys: &[(&str, u8)]) -> Arc<Keyring> {
    let secret = |byte: u8| STANDARD.encode([byte; 32]);
    let written: Vec<String> = keys.iter().map(|(id, byte)| format!(r#"{{"id":"{id}","secret":"{}"}}"#, secret(*byte))).collect();
    let text = format!(r#"{{"version":1,"active":"{}","keys":[{}]}}"#, keys[0].0, written.join(","));
    Arc::new(Keyring::parse(text.as_bytes(), crate::access::Sealing::Clear).unwrap())
}

fn token(keyring: &Keyring) -> String {
    let request = MintRequest {
        subject: "s".to_owned(),
        scopes: vec!["wallet:*".to_owned()],
        ttl: Duration::from_secs(60),
        audience: AUDIENCE.to_owned(),
        ..MintRequest::default()
    };
    mint(keyring, &request, NOW).unwrap()
}

#[test]
fn a_changed_keyring_forgets_what_retired_keys_have_signed_and_nothing_else() {
    let [one, two, strange] = [ring(&[("k-1", 1)]), ring(&[("k-2", 2)]), ring(&[("k-1", 9)])];
    let (ones, twos): (Vec<_>, Vec<_>) = (0..5).map(|_| (token(&one), token(&two))).unzip();
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
    assert!(cache.is_empty() && !valid(&mut cache, &ones[0]) && valid(&mut cache, &token(&strange)));
}
