//! Whether a token was signed with a key of ours: the chain of HMAC-SHA256 over its identifier and its caveats, and the discharges
//! that its third-party caveats ask for.
//!
//! The verifier of the macaroon library compares signatures with the comparison of the language, which may end at the first byte that
//! differs and so tell a stranger with a good clock how much of a guess is right. So the comparison is made here.
//!
//! Invariants: signatures are compared in constant time; nothing that a third-party caveat holds is decrypted before the signature of
//! its macaroon was found right; every discharge is used exactly once, and is bound to this token. Signatures on the way are those of wider
//! tokens than the one that was sent: nothing of them is left on the heap, nor on the stack when the check is over.
use super::guarded::wiped_shallow;
use constant_time_eq::constant_time_eq_32;
use macaroon::{Caveat, Macaroon, MacaroonKey};
use sodiumoxide::crypto::auth::hmacsha256::{authenticate, Key};
use sodiumoxide::crypto::secretbox::{self, Nonce, NONCEBYTES};
use zeroize::Zeroizing;

type Signature = [u8; 32];

/// What is not right about a token whose form is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Its own signature.
    Signature,
    /// A discharge is missing, foreign, not bound to the token, or not asked for.
    Discharge,
}

/// Checks the signature of the token, then those of its discharges.
pub(super) fn check(root: &Macaroon, key: &MacaroonKey, discharges: &[Macaroon]) -> Result<(), Flaw> {
    wiped_shallow(|| checked(root, key, discharges))
}

fn checked(root: &Macaroon, key: &MacaroonKey, discharges: &[Macaroon]) -> Result<(), Flaw> {
    let chain = Chain::of(root, key.as_ref());
    let signature = bytes(&root.signature());
    if !constant_time_eq_32(&chain.last, &signature) {
        return Err(Flaw::Signature);
    }
    let mut unused: Vec<&Macaroon> = discharges.iter().collect();
    discharged(&chain, &signature, &mut unused)?;
    if unused.is_empty() {
        Ok(())
    } else {
        Err(Flaw::Discharge)
    }
}

/// Takes the discharge of each third-party caveat out of those that are not used yet, and checks it. As deep as there are discharges.
fn discharged(chain: &Chain, root: &Signature, unused: &mut Vec<&Macaroon>) -> Result<(), Flaw> {
    for third in &chain.third_parties {
        let key = opened(&third.sealed_key, &third.before).ok_or(Flaw::Discharge)?;
        let place = unused.iter().position(|discharge| discharge.identifier().0 == third.id).ok_or(Flaw::Discharge)?;
        let discharge = unused.swap_remove(place);
        let inner = Chain::of(discharge, &key);
        if !constant_time_eq_32(&bound(root, &inner.last), &bytes(&discharge.signature())) {
            return Err(Flaw::Discharge);
        }
        discharged(&inner, root, unused)?;
    }
    Ok(())
}

/// The signatures of a macaroon as whoever has its key computes them.
struct Chain {
    last: Zeroizing<Signature>,
    third_parties: Vec<ThirdParty>,
}

struct ThirdParty {
    id: Vec<u8>,
    /// The key of its discharge, sealed with the signature before it.
    sealed_key: Vec<u8>,
    before: Zeroizing<Signature>,
}

impl Chain {
    fn of(macaroon: &Macaroon, key: &Signature) -> Self {
        let mut last = Zeroizing::new(hmac(key, &macaroon.identifier().0));
        let caveats = macaroon.caveats();
        // A table that grows would leave copies of what is in it behind.
        let third_party = |caveat: &&Caveat| matches!(caveat, Caveat::ThirdParty(_));
        let mut third_parties = Vec::with_capacity(caveats.iter().filter(third_party).count());
        for caveat in caveats {
            let next = bytes(&caveat.sign(&MacaroonKey::from(*last)));
            let before = std::mem::replace(&mut last, Zeroizing::new(next));
            if let Caveat::ThirdParty(third) = caveat {
                let (id, sealed_key) = (third.id().0, third.verifier_id().0);
                third_parties.push(ThirdParty { id, sealed_key, before });
            }
        }
        Self { last, third_parties }
    }
}

/// The signature of a discharge that is bound to the token with this signature.
fn bound(root: &Signature, discharge: &Signature) -> Signature {
    const ZERO: Signature = [0; 32];
    let both = Zeroizing::new([hmac(&ZERO, root), hmac(&ZERO, discharge)].concat());
    hmac(&ZERO, &both)
}

fn hmac(key: &Signature, text: &[u8]) -> Signature {
    authenticate(text, &Key(*key)).0
}

/// The key that was sealed into a third-party caveat: a nonce, and a secret box of 32 bytes.
fn opened(sealed: &[u8], key: &Signature) -> Option<Zeroizing<Signature>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCEBYTES)?;
    let opened = Zeroizing::new(secretbox::open(sealed, &Nonce::from_slice(nonce)?, &secretbox::Key(*key)).ok()?);
    <Signature>::try_from(opened.as_slice()).ok().map(Zeroizing::new)
}

fn bytes(key: &MacaroonKey) -> Signature {
    *key.as_ref()
}

#[cfg(test)]
mod tests {
    //! Agreement with the verifier of the macaroon library on tokens, good ones and each of them changed in one byte.
    use super::*;
    use base64::Engine as _;
    use macaroon::{Format, Verifier};
    use std::os::unix::fs::FileExt;

    fn library(root: &Macaroon, key: &MacaroonKey, discharges: &[Macaroon]) -> bool {
        let mut verifier = Verifier::default();
        verifier.satisfy_general(|_| true);
        verifier.verify(root, key, discharges.to_vec()).is_ok()
    }

    fn both(root: &Macaroon, key: &MacaroonKey, discharges: &[Macaroon]) -> bool {
        let ours = check(root, key, discharges).is_ok();
        assert_eq!(ours, library(root, key, discharges));
        ours
    }

    /// The same macaroon with each byte of its binary form changed, as far as that still is one.
    fn changed(macaroon: &Macaroon) -> impl Iterator<Item = Macaroon> {
        let text = macaroon.serialize(Format::V2).unwrap();
        let binary = crate::access::token::BASE64.decode(text).unwrap();
        (0..binary.len()).filter_map(move |at| {
            let mut binary = binary.clone();
            binary[at] ^= 1;
            Macaroon::deserialize_binary(&binary).ok()
        })
    }

    /// Everything of a macaroon but the locations, which are hints and not signed.
    fn signed(macaroon: &Macaroon) -> (Vec<u8>, Signature, Vec<[Vec<u8>; 2]>) {
        let caveats = macaroon.caveats().into_iter().map(|caveat| match caveat {
            Caveat::FirstParty(first) => [first.predicate().0, Vec::new()],
            Caveat::ThirdParty(third) => [third.id().0, third.verifier_id().0],
        });
        (macaroon.identifier().0, bytes(&macaroon.signature()), caveats.collect())
    }

    #[test]
    fn what_the_library_believes_is_believed_and_nothing_else() {
        macaroon::initialize().unwrap();
        let [key, third, inner] = [b"root", b"kyc.", b"bank"].map(|seed| MacaroonKey::generate(seed));
        let mut root = Macaroon::create(None, &key, "id".into()).unwrap();
        assert!(both(&root, &key, &[]) && !both(&root, &third, &[]));
        root.add_first_party_caveat("aud = svc-wallet".into());
        assert!(both(&root, &key, &[]));
        root.add_third_party_caveat("https://kyc", &third, "check".into());
        root.add_first_party_caveat("asset = roc".into());
        let mut discharge = Macaroon::create(None, &third, "check".into()).unwrap();
        discharge.add_first_party_caveat("to = b".into());
        discharge.add_third_party_caveat("https://bank", &inner, "deeper".into());
        let mut deeper = Macaroon::create(None, &inner, "deeper".into()).unwrap();
        let stray = Macaroon::create(None, &inner, "stray".into()).unwrap();
        assert!(!both(&root, &key, &[discharge.clone(), deeper.clone()]), "nothing is bound");
        root.bind(&mut discharge);
        root.bind(&mut deeper);
        let discharges = [discharge.clone(), deeper.clone()];
        assert!(both(&root, &key, &discharges));
        assert!(both(&root, &key, &[deeper.clone(), discharge.clone()]), "their order does not matter");
        for missing in [&[][..], &discharges[..1], &discharges[1..]] {
            assert!(!both(&root, &key, missing));
            assert_eq!(check(&root, &key, missing), Err(Flaw::Discharge));
        }
        assert!(!both(&root, &key, &[discharge.clone(), deeper.clone(), stray]), "one that nothing asks for");
        let mut refused = 0;
        for other in changed(&root) {
            let believed = both(&other, &key, &discharges);
            assert!(!believed || signed(&other) == signed(&root));
            refused += usize::from(!believed);
        }
        for other in changed(&discharge) {
            let believed = both(&root, &key, &[other.clone(), deeper.clone()]);
            assert!(!believed || signed(&other) == signed(&discharge));
            refused += usize::from(!believed);
        }
        assert!(refused > 100, "{refused}");
        assert_eq!(check(&root, &third, &discharges), Err(Flaw::Signature));
    }

    #[test]
    fn nothing_of_a_wider_token_is_left_on_the_stack() {
        macaroon::initialize().unwrap();
        let key = MacaroonKey::generate(b"root");
        let mut root = Macaroon::create(None, &key, "id".into()).unwrap();
        root.add_first_party_caveat("aud = svc-wallet".into());
        root.add_first_party_caveat("asset = roc".into());
        let wider = wiped_shallow(|| hmac(key.as_ref(), b"id").to_vec());
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut below = vec![0; 32 << 10];
        let mut is_left_by = |work: &dyn Fn() -> Result<(), Flaw>| {
            let here = 0u8;
            let address = std::ptr::from_ref(std::hint::black_box(&here)) as u64;
            wiped_shallow(|| ());
            assert_eq!(work(), Ok(()));
            let start = address - below.len() as u64;
            memory.read_exact_at(&mut below, start).unwrap();
            [&wider[..16], &wider[16..]].iter().any(|half| memchr::memmem::find(&below, half).is_some())
        };
        // What a library leaves depends on the compiler, so the search is shown to find what certainly lies there:
        // at the lowest end of a frame so large that the calls between the work and the search do not reach it.
        #[inline(never)]
        fn leave(wider: &[u8]) -> Result<(), Flaw> {
            let mut frame = [0u8; 4 << 10];
            frame[..32].copy_from_slice(wider);
            std::hint::black_box(&mut frame);
            Ok(())
        }
        assert!(is_left_by(&|| leave(&wider)), "the search finds what is there");
        assert!(!is_left_by(&|| wiped_shallow(|| leave(&wider))));
        assert!(!is_left_by(&|| check(&root, &key, &[])));
    }

    #[test]
    fn a_sealed_key_of_another_length_is_refused() {
        macaroon::initialize().unwrap();
        for length in [0, NONCEBYTES, NONCEBYTES + 16, NONCEBYTES + 47, NONCEBYTES + 49] {
            assert!(opened(&vec![0; length], &[1; 32]).is_none(), "{length}");
        }
        let nonce = Nonce([3; NONCEBYTES]);
        for (length, good) in [(31, false), (32, true), (33, false)] {
            let sealed = [&nonce.0[..], &secretbox::seal(&vec![7; length], &nonce, &secretbox::Key([1; 32]))].concat();
            assert_eq!(opened(&sealed, &[1; 32]).is_some(), good, "{length}");
        }
    }
}
