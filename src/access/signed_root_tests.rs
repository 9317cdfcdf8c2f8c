//! Proves that a signed root is what it is signed as, to the last bit of every member, by test vectors as well; and which root covers what.
use super::*;
use crate::access::keyring::Sealing;
use crate::access::AUDIT_CHECKPOINT;
use crate::domain::{bytes_of_hex, hex};
use serde_json::Value;

const LOG: LogId = LogId([7; 16]);
const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn keyring(hybrid: bool) -> Keyring {
    let secret = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let text = format!(r#"{{"version":1,"active":"k-1","keys":[{{"id":"k-1","hybrid":{hybrid},"secret":"{secret}"}}]}}"#);
    Keyring::parse(text.as_bytes(), Sealing::Clear).unwrap()
}

fn public(hybrid: bool) -> PublicKey {
    keyring(hybrid).public_keys().unwrap().remove(0)
}

fn root(size: u64) -> HistoryRoot {
    HistoryRoot { size, through: Seq(3 * size), hash: [size as u8; 32] }
}

fn signed(size: u64) -> SignedRoot {
    SignedRoot::sign(&keyring(false), LOG, root(size), NOW).unwrap()
}

#[test]
fn a_signature_is_of_one_root_of_one_ledger_at_one_time() {
    for hybrid in [false, true] {
        let (good, key) = (SignedRoot::sign(&keyring(hybrid), LOG, root(5), NOW).unwrap(), public(hybrid));
        assert_eq!((good.verify(&key, LOG), good.signature.ts), (Ok(()), NOW.0));
        type Change = fn(&mut SignedRoot);
        let changes: [(&str, Change); 9] = [
            ("size", |signed| signed.root.size += 1),
            ("last entry", |signed| signed.root.through.0 += 1),
            ("first byte of the hash", |signed| signed.root.hash[0] ^= 1),
            ("last byte of the hash", |signed| signed.root.hash[31] ^= 0x80),
            ("time", |signed| signed.signature.ts += 1),
            ("key", |signed| signed.signature.key.push('2')),
            ("Ed25519", |signed| signed.signature.ed25519.replace_range(..1, "-")),
            ("padding", |signed| signed.signature.ed25519.push('=')),
            ("ML-DSA-65", |signed| {
                signed.signature.ml_dsa_65 = match &signed.signature.ml_dsa_65 {
                    Some(_) => None,
                    None => Some(URL_SAFE_ZEROS.repeat(3309 / 3)),
                }
            }),
        ];
        for (what, change) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.verify(&key, LOG).is_err(), "{what}");
        }
        assert!(good.verify(&key, LogId([8; 16])).is_err(), "of another ledger");
        let other = WrittenSignature::make(&keyring(hybrid), AUDIT_CHECKPOINT, &message(LOG, &root(5)), NOW).unwrap();
        assert!(SignedRoot { signature: other, ..good.clone() }.verify(&key, LOG).is_err(), "of another kind");
        let text = serde_json::to_string(&good.signature).unwrap();
        assert_eq!(serde_json::from_str::<WrittenSignature>(&text).unwrap(), good.signature);
        assert_eq!(text.contains("ml_dsa_65"), hybrid);
    }
}

const URL_SAFE_ZEROS: &str = "AAAA";

/// Of Ed25519 the signatures are what this program makes; ML-DSA-65 draws random bytes, so of that they are to be verified.
#[test]
fn the_vectors_hold() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/signed.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let roots = vectors["roots"].as_array().unwrap();
    for vector in roots {
        let text = |name: &str| vector[name].as_str().unwrap();
        let (log, number) = (LogId(bytes_of_hex(text("log_id")).unwrap()), |name: &str| vector[name].as_u64().unwrap());
        let root = HistoryRoot { size: number("size"), through: Seq(number("seq")), hash: bytes_of_hex(text("hash")).unwrap() };
        let signature: WrittenSignature = serde_json::from_value(vector["signature"].clone()).unwrap();
        let hybrid = signature.ml_dsa_65.is_some();
        let signed = [b"ledger root\0", &message(log, &root)[..], &signature.ts.to_le_bytes()].concat();
        assert_eq!(hex(&signed), text("signed"));
        let made = SignedRoot::sign(&keyring(hybrid), log, root, UnixMs(signature.ts)).unwrap();
        assert_eq!(made.signature.ed25519, signature.ed25519);
        assert_eq!(SignedRoot { root, signature }.verify(&public(hybrid), log), Ok(()));
    }
    assert!(roots.len() >= 3);
}

#[test]
fn an_entry_is_covered_by_the_oldest_root_that_reaches_it() {
    let board = RootBoard::default();
    assert_eq!((board.newest(), board.covering(Seq(1)), board.of(&root(1))), (None, None, None));
    for size in [2, 5, 9] {
        board.put(signed(size));
    }
    let covering = |seq| board.covering(Seq(seq)).map(|signed| signed.root.size);
    for (seq, size) in [(1, Some(2)), (6, Some(2)), (7, Some(5)), (15, Some(5)), (16, Some(9)), (27, Some(9)), (28, None)] {
        assert_eq!(covering(seq), size, "{seq}");
    }
    assert_eq!(board.of(&root(5)).map(|signed| signed.root), Some(root(5)));
    assert_eq!(board.of(&root(6)), None);
    assert_eq!(board.of(&HistoryRoot { hash: [0; 32], ..root(5) }), None, "another root of that size");
    board.replace([signed(3)]);
    assert_eq!((board.all().len(), covering(9), covering(10)), (1, Some(3), None));
}

#[test]
fn the_board_keeps_the_newest_and_is_bounded() {
    let (board, one) = (RootBoard::default(), signed(1));
    let of = |size| SignedRoot { root: root(size), ..one.clone() };
    for size in 1..=ROOTS_MAX as u64 + 3 {
        board.put(of(size));
    }
    let sizes: Vec<u64> = board.all().iter().map(|signed| signed.root.size).collect();
    assert_eq!((sizes[0], sizes.len()), (4, ROOTS_MAX));
    assert_eq!(board.covering(Seq(1)).map(|signed| signed.root.size), Some(4), "a later root covers it as well");
    board.replace((1..=ROOTS_MAX as u64 + 7).map(of));
    assert_eq!((board.all().len(), board.all()[0].root.size), (ROOTS_MAX, 8));
}
