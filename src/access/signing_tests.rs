//! Proves that a signature fits its key, kind and message alone, that a hybrid key needs both, and that keys follow from their secret.
use super::*;

const SECRET: [u8; 32] = [7; 32];
const KIND: &str = "svc-wallet test";

fn signed(hybrid: bool) -> (PublicKey, Signature) {
    let public = public_key("k-1", &SECRET, hybrid).unwrap();
    let signature = sign("k-1", &SECRET, hybrid, KIND, b"message").unwrap();
    assert_eq!((public.is_hybrid(), signature.ml_dsa_65.is_some()), (hybrid, hybrid));
    assert_eq!(public.verify(KIND, b"message", &signature), Ok(()));
    (public, signature)
}

#[test]
fn a_signature_fits_its_key_kind_and_message_alone() {
    for hybrid in [false, true] {
        let (public, signature) = signed(hybrid);
        assert_eq!(public.verify(KIND, b"massage", &signature), Err(SignatureFault::Ed25519));
        assert_eq!(public.verify("svc-wallet", b" test\0message", &signature), Err(SignatureFault::Ed25519));
        assert_eq!(public.verify(KIND, b"", &signature), Err(SignatureFault::Ed25519));
        let stranger = public_key("k-1", &[8; 32], hybrid).unwrap();
        assert_eq!(stranger.verify(KIND, b"message", &signature), Err(SignatureFault::Ed25519));
        let renamed = PublicKey { id: "k-2".to_owned(), ..public };
        assert_eq!(renamed.verify(KIND, b"message", &signature), Err(SignatureFault::OtherKey));
    }
}

#[test]
fn of_a_hybrid_key_both_signatures_are_needed() {
    let (public, signature) = signed(true);
    let (plain_public, plain) = signed(false);
    assert_eq!(public.ed25519, plain_public.ed25519, "it is the same key, but for the second signature");
    assert_eq!(signature.ed25519, plain.ed25519, "Ed25519 is deterministic");
    assert_eq!(public.verify(KIND, b"message", &plain), Err(SignatureFault::Posture), "one of the two is stripped");
    assert_eq!(plain_public.verify(KIND, b"message", &signature), Err(SignatureFault::Posture));
    let fault = |change: &dyn Fn(&mut Signature)| {
        let mut changed = signature.clone();
        change(&mut changed);
        public.verify(KIND, b"message", &changed).unwrap_err()
    };
    for at in [0, 31, 32, 63] {
        assert_eq!(fault(&|changed| changed.ed25519[at] ^= 1), SignatureFault::Ed25519);
    }
    for at in [0, 47, 48, 1_000, 3_200, 3_308] {
        assert_eq!(fault(&|changed| changed.ml_dsa_65.as_mut().unwrap()[at] ^= 1), SignatureFault::MlDsa65, "{at}");
    }
    // Half of another signature of the same key does not do either.
    let other = sign("k-1", &SECRET, true, KIND, b"other").unwrap();
    assert_eq!(fault(&|changed| changed.ed25519 = other.ed25519), SignatureFault::Ed25519);
    assert_eq!(fault(&|changed| changed.ml_dsa_65 = other.ml_dsa_65.clone()), SignatureFault::MlDsa65);
}
