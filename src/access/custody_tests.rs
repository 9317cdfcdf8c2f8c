//! Proves how a keyring is made, opened and sealed, what is refused as one, and that nothing of it is shown.
use super::*;
use crate::access::{PublicKey, Signature};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn file_with(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyring.json");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

fn secret(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

/// The secret of the active key.
fn root(keyring: &Keyring) -> [u8; 32] {
    let root: &[u8] = keyring.root(keyring.active_id()).unwrap();
    root.try_into().unwrap()
}

fn write_private(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_first_start_makes_a_private_file_and_a_second_one_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/keyring.json");
    let first = Keyring::open_or_create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let second = Keyring::open_or_create(&path).unwrap();
    assert_eq!(first.active_id(), second.active_id());
    assert_eq!(root(&first), root(&second));
    assert_ne!(root(&first), [0; 32]);
    let in_place = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = in_place.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["keyring.json", "keyring.json.key"], "nothing else is left beside it");
    assert_eq!(std::fs::metadata(key_file_beside(&path)).unwrap().mode() & 0o777, 0o600);
    let other = Keyring::open_or_create(&directory.path().join("other.json")).unwrap();
    assert_ne!(root(&first), root(&other));
}

#[test]
fn of_many_first_starts_one_key_wins() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyring.json");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Keyring::open_or_create(&path).unwrap().active_id().to_string())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn several_keys_are_read_and_debug_shows_ids_only() {
    let text = format!(
        r#"{{"version":1,"active":"new","keys":[{{"id":"old","secret":"{}"}},{{"id":"new","secret":"{}"}}]}}"#,
        secret(1),
        secret(2)
    );
    let (_directory, path) = file_with(&text, 0o400);
    let keyring = Keyring::open(&path).unwrap();
    assert_eq!(keyring.active_id(), "new");
    assert_eq!(keyring.ids().collect::<Vec<_>>(), ["old", "new"]);
    assert!(keyring.root("old").is_some() && keyring.root("none").is_none());
    assert_eq!(format!("{keyring:?}"), r#"Keyring { ids: ["old", "new"], active: "new", .. }"#);
}

#[test]
fn open_does_not_create() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.json");
    assert!(matches!(Keyring::open(&path), Err(KeyringFault::Missing { .. })));
    assert!(!path.exists());
}

#[test]
fn what_others_can_touch_is_refused() {
    let text = format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{}"}}]}}"#, secret(1));
    for mode in [0o604, 0o640, 0o644, 0o620, 0o602, 0o601, 0o610, 0o660, 0o777] {
        let (_directory, path) = file_with(&text, mode);
        let fault = Keyring::open_or_create(&path).unwrap_err();
        assert!(matches!(fault, KeyringFault::Exposed { .. }), "{mode:o}");
        let message = fault.to_string();
        assert!(message.contains(&format!("{mode:04o}")) && message.contains("chmod 600"), "{message}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Keyring::open_or_create(directory.path()), Err(KeyringFault::NotAFile { .. })));
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(0, 0),
    )
    .unwrap();
    assert!(matches!(Keyring::open_or_create(&pipe), Err(KeyringFault::NotAFile { .. })));
}

#[test]
fn malformed_files_are_refused_and_never_quoted() {
    let hidden = secret(9);
    let short = STANDARD.encode([9; 31]);
    let long = STANDARD.encode([9; 33]);
    let cases = [
        String::new(),
        "{".into(),
        format!(r#"{{"version":"{hidden}","active":"k","keys":[]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{hidden}","{hidden}":1}}]}}"#),
        format!(r#"{{"version":1,"active":"k","{hidden}":1,"keys":[]}}"#),
        format!(r#"{{"version":2,"active":"k","keys":[{{"id":"k","secret":"{hidden}"}}]}}"#),
        format!(r#"{{"version":2,"serial":1,"salt":"{hidden}","sealed":"{hidden}"}}"#),
        format!(r#"{{"version":2,"serial":1,"salt":"{hidden}","sealed":"?"}}"#),
        format!(r#"{{"version":2,"serial":1,"salt":"{short}","sealed":"{hidden}"}}"#),
        format!(r#"{{"version":3,"active":"k","keys":[{{"id":"k","secret":"{hidden}"}}]}}"#),
        r#"{"version":1,"active":"k","keys":[]}"#.into(),
        format!(r#"{{"version":1,"active":"{hidden}","keys":[{{"id":"k","secret":"{hidden}"}}]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"{hidden}","secret":"{hidden}"}}]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{hidden}"}},{{"id":"k","secret":"{hidden}"}}]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{short}"}}]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{long}"}}]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{hidden}?"}}]}}"#),
        format!(r#"{{"version":1,"active":"k","keys":[{{"id":"k","secret":"{hidden}"}}]}} trailing"#),
        " ".repeat(private_file::FILE_BYTES_MAX + 1),
    ];
    for text in cases {
        let (_directory, path) = file_with(&text, 0o600);
        write_private(&key_file_beside(&path), &[200; 32]);
        let fault = Keyring::open_or_create(&path).unwrap_err();
        assert!(matches!(fault, KeyringFault::Malformed { .. }), "{text:.80}");
        for secret in [&hidden, &short, &long] {
            assert!(!format!("{fault} {fault:?}").contains(secret.trim_end_matches('=')), "{fault}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "a bad keyring is left alone");
    }
}

#[test]
fn a_sealed_keyring_opens_with_its_key_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyring");
    let keyring = Keyring::open_or_create(&path).unwrap();
    assert!(keyring.sealing() == Sealing::Sealed && keyring.serial() == 1 && keyring.keys()[0].created.is_some());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&STANDARD.encode(root(&keyring))) && !text.contains(keyring.active_id()), "{text}");
    let key_file = key_file_beside(&path);
    let key = std::fs::read(&key_file).unwrap();

    // Elsewhere, under another name.
    let moved = directory.path().join("elsewhere");
    std::fs::rename(&key_file, &moved).unwrap();
    let opened = Custody::new(&path, Kms::File(moved.clone())).open().unwrap();
    assert_eq!(root(&opened), root(&keyring));
    let told = |fault: KeyringFault| {
        assert!(matches!(fault, KeyringFault::Kms { .. } | KeyringFault::Malformed { .. }), "{fault:?}");
        fault.to_string()
    };
    assert!(told(Keyring::open_or_create(&path).unwrap_err()).contains("no such file; restore it"));
    assert!(!key_file.exists(), "no key is made for a keyring that is there");

    let cases: [(&[u8], u32, &str); 6] = [
        (&key, 0o640, "mode 0640"),
        (b"short", 0o600, "neither 32 random bytes"),
        (b"a passphrase it is", 0o600, "it was sealed with a key, and security.kms leads to a passphrase"),
        (&[200; 32], 0o600, "the key does not open it"),
        (&[b'x'; 70_000], 0o600, "longer than"),
        (b"key:AAAA", 0o600, "not 32 bytes in base64"),
    ];
    for (bytes, mode, expected) in cases {
        std::fs::write(&key_file, bytes).unwrap();
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(mode)).unwrap();
        let message = told(Keyring::open(&path).unwrap_err());
        assert!(message.contains(expected), "{message}");
    }
    std::fs::remove_file(&key_file).unwrap();
    std::fs::create_dir(&key_file).unwrap();
    assert!(told(Keyring::open(&path).unwrap_err()).contains("not a regular file"));
}

#[test]
fn a_passphrase_opens_a_keyring_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyring");
    write_private(&key_file_beside(&path), b"twelve monkeys\n");
    let keyring = Keyring::open_or_create(&path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("argon2id"));
    write_private(&key_file_beside(&path), b"twelve monkeys");
    assert_eq!(root(&Keyring::open(&path).unwrap()), root(&keyring));
    write_private(&key_file_beside(&path), b"thirteen monkeys");
    assert!(Keyring::open(&path).unwrap_err().to_string().contains("the key does not open it"));
}

#[test]
fn the_vectors_open_and_sign_as_they_say() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/keyring.json")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let public_keys: Vec<PublicKey> = vectors["public_keys"].as_array().unwrap().iter().map(public_key_of).collect();
    let signed = &vectors["signed"];
    let signatures: Vec<Signature> = signed["signatures"].as_array().unwrap().iter().map(signature_of).collect();
    let (kind, message) = (text(&signed["kind"]), text(&signed["message"]));
    let mut opened = 0;
    for vector in vectors["files"].as_array().unwrap() {
        let (directory, path) = file_with(&vector["file"].to_string(), 0o600);
        write_private(&key_file_beside(&path), text(&vector["opening_key"]).as_bytes());
        let keyring = Keyring::open(&path).unwrap_or_else(|fault| panic!("{}: {fault}", vector["what"]));
        let sealing = [("clear", Sealing::Clear), ("sealed", Sealing::Sealed), ("hybrid", Sealing::Hybrid)];
        let sealing = sealing.into_iter().find(|(name, _)| vector["sealing"] == *name).unwrap().1;
        assert_eq!((keyring.sealing(), keyring.serial()), (sealing, vector["serial"].as_u64().unwrap()));
        assert_eq!(keyring.active_id(), text(&vector["active"]));
        let ids: Vec<String> = vector["keys"].as_array().unwrap().iter().map(text).collect();
        assert!(keyring.ids().eq(ids.iter().map(String::as_str)));
        assert_eq!(keyring.public_keys().unwrap(), public_keys[..ids.len()], "{}", vector["what"]);
        // The signatures of the vectors, and fresh ones.
        let active = public_keys.iter().position(|key| key.id == keyring.active_id()).unwrap();
        for signature in [&signatures[active], &keyring.sign(&kind, message.as_bytes()).unwrap()] {
            assert_eq!(public_keys[active].verify(&kind, message.as_bytes(), signature), Ok(()));
            assert_eq!(signature.ed25519, signatures[active].ed25519);
        }
        drop(directory);
        opened += 1;
    }
    assert_eq!(opened, 5);
}

fn bytes_of<const N: usize>(value: &serde_json::Value) -> [u8; N] {
    STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn public_key_of(value: &serde_json::Value) -> PublicKey {
    let ml_dsa_65 = value.get("ml_dsa_65").map(|public| Box::new(bytes_of(public)));
    PublicKey { id: value["id"].as_str().unwrap().to_owned(), ed25519: bytes_of(&value["ed25519"]), ml_dsa_65 }
}

fn signature_of(value: &serde_json::Value) -> Signature {
    let ml_dsa_65 = value.get("ml_dsa_65").map(|signature| Box::new(bytes_of(signature)));
    Signature { key: value["key"].as_str().unwrap().to_owned(), ed25519: bytes_of(&value["ed25519"]), ml_dsa_65 }
}
