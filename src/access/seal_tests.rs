//! Proves that what is sealed opens with its key alone, that every byte of a file counts, and that a file cannot ask for much work.
use super::*;
use crate::access::opening_key::OpeningKey;

const CLEAR: &[u8] = b"the clear form of a keyring";

fn key(fill: u8) -> OpeningKey {
    OpeningKey::of(&[fill | 0x80; KEY_BYTES])
}

fn sealed(key: &OpeningKey, hybrid: bool) -> Vec<u8> {
    seal(&mut CLEAR.to_vec(), 7, key, hybrid).unwrap()
}

fn opened(text: &[u8], key: &OpeningKey) -> Result<Vec<u8>, String> {
    let mut clear = blank();
    let opened = open(text, key, &mut clear)?;
    assert_eq!(opened.serial, 7);
    Ok(clear[..opened.length].to_vec())
}

#[test]
fn what_is_sealed_opens_with_its_key_alone_and_looks_different_each_time() {
    let texts = [false, false, true, true].map(|hybrid| sealed(&key(1), hybrid));
    assert!(texts[0] != texts[1] && texts[2] != texts[3]);
    for (text, hybrid) in texts.iter().zip([false, false, true, true]) {
        assert_eq!(open(text, &key(1), &mut blank()).unwrap().hybrid, hybrid);
        assert!(!text.windows(8).any(|window| CLEAR.windows(8).any(|clear| clear == window)));
        assert_eq!(opened(text, &key(1)).unwrap(), CLEAR);
        assert!(opened(text, &key(2)).unwrap_err().contains("does not open it"));
        assert!(opens_to(text, &key(1), CLEAR) && !opens_to(text, &key(2), CLEAR) && !opens_to(text, &key(1), b"else"));
    }
}

#[test]
fn every_part_of_the_hybrid_form_counts() {
    let [one, other] = [sealed(&key(1), true), sealed(&key(1), true)].map(|text| String::from_utf8(text).unwrap());
    let member = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("\"{name}\": \"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    for name in ["salt", "private", "ephemeral", "ciphertext", "sealed"] {
        // A part of another file of the same key, and one with a single bit changed.
        let mut bytes = STANDARD.decode(member(&one, name)).unwrap();
        *bytes.last_mut().unwrap() ^= 0x40;
        for changed in [member(&other, name), STANDARD.encode(bytes)] {
            let text = one.replace(&member(&one, name), &changed);
            assert!(opened(text.as_bytes(), &key(1)).unwrap_err().contains("does not open it"), "{name}");
        }
        let cut = one.replace(&member(&one, name), &member(&one, name)[4..]);
        assert!(opened(cut.as_bytes(), &key(1)).is_err(), "{name}");
    }
    // What is sealed in one form does not pass for the other.
    let (before, rest) = one.split_once("\"hybrid\"").unwrap();
    let stripped = format!("{before}{}", rest.split_once("},").unwrap().1);
    assert!(opened(stripped.as_bytes(), &key(1)).unwrap_err().contains("does not open it"), "{stripped}");
}

#[test]
fn every_letter_of_a_sealed_file_counts() {
    let text = String::from_utf8(sealed(&key(1), false)).unwrap();
    let mut refused = 0;
    for at in 0..text.len() {
        for other in ['A', 'B', '8', ' '] {
            let mut changed = text.clone().into_bytes();
            changed[at] = other as u8;
            if changed == text.as_bytes() || text.as_bytes()[at].is_ascii_whitespace() && other == ' ' {
                continue;
            }
            let mut clear = blank();
            assert!(open(&changed, &key(1), &mut clear).is_err(), "byte {at} of {text}");
            refused += 1;
        }
    }
    assert!(refused > 3 * text.trim().len() - 200);
    for cut in 0..text.trim_end().len() {
        assert!(open(&text.as_bytes()[..cut], &key(1), &mut blank()).is_err(), "{cut}");
    }
}

#[test]
fn a_file_cannot_ask_for_more_work_than_there_is_a_bound_for() {
    let salt = STANDARD.encode([1; SALT_BYTES]);
    let asking = |memory: u64, passes: u64, lanes: u64| {
        let cost = format!(r#"{{"memory_kib":{memory},"passes":{passes},"lanes":{lanes}}}"#);
        let text = format!(r#"{{"version":2,"serial":7,"salt":"{salt}","argon2id":{cost},"sealed":"AAAA"}}"#);
        opened(text.as_bytes(), &OpeningKey::of(b"a passphrase it is")).unwrap_err()
    };
    for (memory, passes, lanes) in [(1_048_577, 1, 1), (64, 17, 1), (64, 1, 17)] {
        assert!(asking(memory, passes, lanes).contains("above what this build spends"), "{memory} {passes} {lanes}");
    }
    for (memory, passes, lanes) in [(0, 1, 1), (64, 0, 1), (64, 1, 0), (7, 1, 1)] {
        assert!(asking(memory, passes, lanes).contains("is not one that can be had"), "{memory} {passes} {lanes}");
    }
    assert!(asking(u64::MAX, 1, 1).contains("is not as a sealed keyring is written"));
    assert!(asking(64, 1, 1).contains("does not open it"));
}
