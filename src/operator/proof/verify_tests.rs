//! Verification without a server: the vectors, a receipt that was kept, and every way in which it is not proven.
use super::*;
use crate::access::Custody;
use crate::api::proof::CurrentRootBody;
use crate::domain::{LogId, UnixMs};
use crate::operator::public_keys::PublicKeys;

fn vectors() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/history.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// As without keys.
fn checked(bytes: &[u8], continued: Option<&[u8]>, kept: Option<&[u8]>, trusted: &Trusted) -> Result<Verdict, Doubt> {
    super::checked(bytes, continued, kept, Some(trusted), Signatures::default())
}

fn root(size: u64) -> Trusted {
    Trusted::read(vectors()["roots"][size as usize - 1]["hash"].as_str().unwrap()).unwrap()
}

/// The proof of an entry under the root of 8 batches.
fn proof() -> Vec<u8> {
    let all = vectors();
    let found =
        all["proofs"].as_array().unwrap().iter().find(|proof| proof["root"]["size"] == 8 && proof["history"]["index"] == 7);
    serde_json::to_vec(found.unwrap()).unwrap()
}

fn consistency(from: u64, to: u64) -> Vec<u8> {
    let all = vectors();
    let between = |proof: &&Value| proof["from"]["size"] == from && proof["to"]["size"] == to;
    serde_json::to_vec(all["consistency"].as_array().unwrap().iter().find(between).unwrap()).unwrap()
}

#[test]
fn a_proof_holds_under_its_root_and_under_one_that_continues_it() {
    let verdict = checked(&proof(), None, None, &root(8)).unwrap();
    assert_eq!((verdict.root.size, verdict.compared), (8, false));
    assert_eq!(verdict.proof.inclusion.root, verdict.root);
    checked(&proof(), None, None, &root(8).of_size(Some(8))).unwrap();
    let receipt = serde_json::to_vec_pretty(&verdict.receipt).unwrap();
    assert!(checked(&proof(), None, Some(&receipt), &root(8)).unwrap().compared);
    // The trusted root is that of 8 batches, and the consistency proof leads from there to itself.
    assert_eq!(checked(&proof(), Some(&consistency(8, 8)), None, &root(8)).unwrap().root.size, 8);
}

#[test]
fn what_is_not_proven_is_told_with_its_reason() {
    let good = checked(&proof(), None, None, &root(8)).unwrap();
    let receipt = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut receipt = good.receipt.clone();
        change(receipt.as_object_mut().unwrap());
        serde_json::to_vec(&receipt).unwrap()
    };
    let (other, less, more) = (
        receipt(&|receipt| drop(receipt.insert("amount_minor".into(), "1".into()))),
        receipt(&|receipt| drop(receipt.remove("receipt_hash"))),
        receipt(&|receipt| drop(receipt.insert("extra".into(), 1.into()))),
    );
    let text = |change: &dyn Fn(&mut Value)| {
        let mut body: Value = serde_json::from_slice(&proof()).unwrap();
        change(&mut body);
        serde_json::to_vec(&body).unwrap()
    };
    let (good, same) = (proof(), consistency(8, 8));
    type Case<'a> = (&'a [u8], Option<&'a [u8]>, Option<&'a [u8]>, Trusted, &'a str);
    let moved = text(&|body| body["history"]["index"] = 6.into());
    let foreign = text(&|body| body["log_id"] = "00".repeat(16).into());
    let cases: [Case<'_>; 12] = [
        (&good, None, None, root(9), "another root than the trusted one"),
        (&good, None, None, root(8).of_size(Some(9)), "has 8 batches"),
        (&good, Some(&same), None, root(9), "another root than the trusted one"),
        (&good, Some(&consistency(6, 11)), None, root(11), "does not begin with the root of the proof"),
        (&good, Some(b"{}"), None, root(8), "the consistency proof is not what the server sends"),
        (&good, None, Some(&other), root(8), "amount_minor is \"1\" in the receipt"),
        (&good, None, Some(&less), root(8), "receipt_hash is nothing in the receipt"),
        (&good, None, Some(&more), root(8), "extra is 1 in the receipt and nothing in the ledger"),
        (&same, None, None, root(8), "one root continues another, and not one of a transaction"),
        (&good[1..], None, None, root(8), "the proof is not what the server sends"),
        (&moved, None, None, root(8), "the proof does not hold"),
        (&foreign, None, None, root(8), "contradicts itself: txid"),
    ];
    for (bytes, continued, kept, trusted, part) in cases {
        let doubt = checked(bytes, continued, kept, &trusted).unwrap_err();
        assert!(doubt.what.contains(part), "{} instead of {part}", doubt.what);
    }
}

/// Whatever bit of a proof is changed, in its text: it is refused.
#[test]
fn no_bit_of_a_proof_can_change() {
    let (good, trusted) = (proof(), root(8));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(checked(&bad, None, None, &trusted).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
    }
    let (good, from, to) = (consistency(6, 11), root(6), root(11));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let verdict = consistency::checked(&bad, &mut Signatures::default()).and_then(|proof| {
            from.check(&proof.from, proof.log_id, "")?;
            to.check(&proof.to, proof.log_id, "")
        });
        assert!(verdict.is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
    }
}

/// A place with a keyring, the public keys of all keys that it ever had, and proofs whose roots its active key has signed.
struct Signers {
    place: tempfile::TempDir,
    custody: Custody,
    public: PublicKeys,
}

impl Signers {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let custody = Custody::beside(&place.path().join("keyring"));
        let public = PublicKeys::new(custody.open_or_create().unwrap().0.public_keys().unwrap());
        Self { place, custody, public }
    }

    fn rotate(&mut self, hybrid: bool) {
        let (_, id) = self.custody.add_key(Some(hybrid)).unwrap();
        self.public.add(self.custody.activate(&id).unwrap().public_keys().unwrap()).unwrap();
    }

    fn sign(&self, log_id: LogId, root: &mut RootBody) {
        let now = UnixMs(1_800_000_000_000);
        *root = RootBody::from(&SignedRoot::sign(&self.custody.open().unwrap(), log_id, root.read().unwrap(), now).unwrap());
    }

    fn proof(&self) -> ProofBody {
        let mut body: ProofBody = serde_json::from_slice(&proof()).unwrap();
        self.sign(body.read().unwrap().log_id, &mut body.root);
        body
    }

    fn signatures(&self) -> Signatures {
        let file = self.place.path().join("public.json");
        std::fs::write(&file, self.public.text()).unwrap();
        Signatures::under(&Trust { keys: Some(file.clone()), ..Trust::default() }).unwrap()
    }

    fn check(&self, bytes: &[u8], trusted: Option<&Trusted>) -> Result<Verdict, Doubt> {
        super::checked(bytes, None, None, trusted, self.signatures())
    }
}

fn text(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap()
}

#[test]
fn a_signed_root_is_as_good_as_a_trusted_one_whatever_key_was_active() {
    let mut signers = Signers::new();
    let mut proofs = Vec::new();
    for hybrid in [false, true, false] {
        if !proofs.is_empty() {
            signers.rotate(hybrid);
        }
        let body = signers.proof();
        assert_eq!(body.root.signatures[0].ml_dsa_65.is_some(), hybrid);
        proofs.push(text(&body));
    }
    for good in &proofs {
        let verdict = signers.check(good, None).unwrap();
        assert_eq!((verdict.signed.len(), verdict.root.size), (1, 8));
        signers.check(good, Some(&root(8))).unwrap();
        assert!(signers.check(good, Some(&root(9))).is_err(), "a signature does not make up for a root that is trusted");
        checked(good, None, None, &root(8)).unwrap();
    }
    let unsigned = signers.check(&proof(), Some(&root(8))).unwrap_err();
    assert!(unsigned.what.contains("is not signed"), "{unsigned:?}");
    // The signature may stand in the file of the root.
    let (file, body) = (signers.place.path().join("root.json"), signers.proof());
    std::fs::write(&file, text(&CurrentRootBody { log_id: body.log_id, root: body.root })).unwrap();
    let kept = Trusted::read(file.to_str().unwrap()).unwrap();
    assert_eq!(signers.check(&proof(), Some(&kept)).unwrap().signed.len(), 1);
}

#[test]
fn no_bit_of_a_signed_proof_can_change() {
    let signers = Signers::new();
    let good = text(&signers.proof());
    signers.check(&good, None).unwrap();
    let file = signers.place.path().join("public.json");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let verdict = super::checked(
            &bad,
            None,
            None,
            None,
            Signatures::under(&Trust { keys: Some(file.clone()), ..Trust::default() }).unwrap(),
        );
        assert!(verdict.is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
    }
}

#[test]
fn a_signature_that_does_not_fit_is_told_with_its_reason() {
    let mut signers = Signers::new();
    signers.rotate(true);
    let (good, stranger) = (signers.proof(), Signers::new());
    type Change<'c> = &'c dyn Fn(&mut ProofBody);
    let cases: [(Change<'_>, &str); 7] = [
        (&|body| body.root.signatures.clear(), "the root of 8 batches is not signed"),
        (&|body| body.root.signatures[0].ts += 1, "the Ed25519 signature is not that"),
        (&|body| body.root.signatures[0].ml_dsa_65 = None, "do not agree on whether ML-DSA-65 is needed"),
        (
            &|body| body.root.signatures[0].ml_dsa_65.as_mut().unwrap().replace_range(9..10, "_"),
            "the ML-DSA-65 signature is not that",
        ),
        (&|body| body.root.signatures[0].ed25519.push('='), "not base64url"),
        (&|body| body.root = stranger.proof().root, "have none of key k-"),
        (&|body| body.root.signatures.extend(stranger.proof().root.signatures), "have none of key k-"),
    ];
    for (change, part) in cases {
        let mut bad = good.clone();
        change(&mut bad);
        let doubt = signers.check(&text(&bad), Some(&root(8))).unwrap_err();
        assert!(doubt.what.contains(part), "{} instead of {part}", doubt.what);
    }
    // Under its own root the signature of another one is as bad as none.
    let mut other = good.clone();
    let mut earlier = RootBody { size: 7, ..good.root.clone() };
    signers.sign(good.read().unwrap().log_id, &mut earlier);
    other.root.signatures = earlier.signatures;
    assert!(signers.check(&text(&other), None).unwrap_err().what.contains("not signed as it says"));
}

#[test]
fn of_two_roots_the_later_one_has_to_be_signed() {
    let signers = Signers::new();
    let mut body: ConsistencyBody = serde_json::from_slice(&consistency(6, 11)).unwrap();
    let log_id = body.read().unwrap().log_id;
    let told = |body: &ConsistencyBody| {
        let mut signatures = signers.signatures();
        let proof = consistency::checked(&text(body), &mut signatures)?;
        signatures.of(log_id, &proof.to)
    };
    signers.sign(log_id, &mut body.from);
    assert!(told(&body).unwrap_err().what.contains("the root of 11 batches is not signed"));
    signers.sign(log_id, &mut body.to);
    assert_eq!(told(&body).unwrap().len(), 1);
    body.from.signatures[0].ts += 1;
    assert!(told(&body).unwrap_err().what.contains("the root of 6 batches is not signed as it says"));
}
