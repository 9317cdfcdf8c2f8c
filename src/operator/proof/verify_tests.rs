//! Verification without a server: the vectors, a receipt that was kept, and every way in which it is not proven.
use super::*;

fn vectors() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/history.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
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
        let verdict = consistency::checked(&bad).and_then(|proof| {
            from.check(&proof.from, proof.log_id, "")?;
            to.check(&proof.to, proof.log_id, "")
        });
        assert!(verdict.is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
    }
}
