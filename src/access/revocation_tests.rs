//! Proves that a file of revocations is taken as a whole or not at all, replaced as a whole, and private.
use super::*;
use crate::access::Stamp;
use crate::domain::{TokenId, UnixMs};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn entry(what: Revoked) -> Revocation {
    Revocation { what, at: UnixMs(1_800_000_000_000), reason: "lost".to_owned() }
}

fn some() -> Vec<Revocation> {
    let token = Revoked::Token(TokenId([0xab; 16]));
    [token, Revoked::Subject("ülo".to_owned()), Revoked::Key("k-1".to_owned())].map(entry).into()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/wallet.revocations");
    (directory, path)
}

fn put(path: &Path, entries: &[Revocation]) {
    change(path, |known| (*known = entries.to_vec(), true)).unwrap();
}

#[test]
fn what_root_writes_belongs_to_whoever_has_the_directory() {
    if !rustix::process::geteuid().is_root() {
        println!("LEFT OUT: giving a file away takes root");
        return;
    }
    let (directory, path) = place();
    let owner = |path: &Path| fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    std::os::unix::fs::chown(directory.path(), Some(65_534), Some(65_533)).unwrap();
    for _ in 0..2 {
        put(&path, &some());
        for made in [path.parent().unwrap(), &path, &beside(&path, KNOWN)] {
            assert_eq!(owner(made), (65_534, 65_533), "{}", made.display());
        }
    }
    // What is there stays its owner's.
    std::os::unix::fs::chown(&path, Some(65_532), None).unwrap();
    put(&path, &[]);
    assert_eq!(owner(&path), (65_532, 65_533));
}

#[test]
fn what_is_written_is_read_and_private() {
    let (_directory, path) = place();
    assert_eq!(load(&path).unwrap(), [], "no file revokes nothing");
    assert_eq!(load_list(&path).unwrap(), None);
    put(&path, &some());
    assert_eq!(load(&path).unwrap(), some());
    assert_eq!(load_list(&path).unwrap().unwrap().len(), 3);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let before = Stamp::at(&path);
    assert_eq!(before, Stamp::at(&path));
    put(&path, &[]);
    assert_ne!(before, Stamp::at(&path));
    assert!(load(&path).unwrap().is_empty() && path.exists());
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        2,
        "beside it is only the file that says that it was there"
    );
    change(&path, |known| (known.clear(), false)).unwrap();
    assert!(Stamp::at(&path).is_some());
    fs::remove_file(&path).unwrap();
    // It does not pass for one that never was, unless what tells of it is gone too.
    assert!(matches!(load(&path), Err(RevocationFault::Gone { .. })));
    assert!(matches!(load_list(&path), Err(RevocationFault::Gone { .. })));
    assert!(matches!(change(&path, |_| ((), true)), Err(RevocationFault::Gone { .. })));
    fs::remove_file(beside(&path, KNOWN)).unwrap();
    assert_eq!(load_list(&path).unwrap(), None);
}

#[test]
fn every_changed_byte_refuses_the_whole_file() {
    let (_directory, path) = place();
    put(&path, &some());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bit in [1, 8, 32] {
            let mut text = whole.clone();
            text[at] ^= bit;
            // Blanks between the parts of JSON mean nothing.
            if let Ok(read) = parse(&text) {
                assert_eq!(read, some(), "byte {at} bit {bit}");
                assert!(whole[at].is_ascii_whitespace(), "byte {at} bit {bit}");
            }
        }
        let cut = parse(&whole[..at]);
        assert!(cut.is_err() || at + 1 == whole.len(), "cut after {at}");
    }
}

#[test]
fn what_is_no_list_is_refused_with_the_path_and_what_is_wrong() {
    let (_directory, path) = place();
    let with_check = |list: &str| {
        let entries: Vec<WrittenEntry> = serde_json::from_str(list).unwrap();
        format!(r#"{{"version":1,"revocations":{list},"check":"{}"}}"#, check_of(&entries))
    };
    let one = r#"{"kind":"subject","name":"a","at":"2026-11-30T07:00:00Z"}"#;
    assert!(parse(with_check(&format!("[{one}]")).as_bytes()).is_ok());
    for (text, part) in [
        (String::new(), "line 1"),
        ("[]".to_owned(), "line 1"),
        (with_check("[]").replace("1,", "2,"), "version 2 is not known"),
        (with_check("[]").replace("\"check\"", "\"more\":1,\"check\""), "unknown field `more`"),
        (with_check(&format!("[{one}]")).replace("\"a\"", "\"b\""), "its check does not fit"),
        (with_check(&format!("[{one},{one}]")), "revocations[1] is there twice"),
        (with_check(&format!("[{}]", one.replace("subject", "user"))), "revocations[0] names no token"),
        (with_check(&format!("[{}]", one.replace("subject", "token"))), "revocations[0] names no token"),
        (with_check(&format!("[{}]", one.replace("2026", "year"))), "revocations[0].at"),
        (with_check(&format!("[{}]", one.replace("\"at\"", "\"reason\":\"\\u0001\",\"at\""))), "revocations[0].reason"),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let fault = load(&path).unwrap_err();
        assert!(matches!(fault, RevocationFault::Malformed { .. }), "{fault:?}");
        let message = fault.to_string();
        assert!(message.contains(part) && message.contains("wallet.revocations"), "{message}");
        assert!(change(&path, |known| (known.clear(), true)).is_err(), "a damaged file is not replaced");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn files_that_others_can_touch_and_other_things_are_refused() {
    let (_directory, path) = place();
    put(&path, &some());
    for mode in [0o604, 0o640, 0o660, 0o602, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let fault = load(&path).unwrap_err();
        assert!(
            matches!(fault, RevocationFault::Exposed { .. }) && fault.to_string().contains(&format!("{mode:04o}")),
            "{fault}"
        );
    }
    assert!(matches!(load(path.parent().unwrap()), Err(RevocationFault::Malformed { .. })));
}

#[test]
fn two_commands_at_once_lose_nothing() {
    let (_directory, path) = place();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let path = &path;
            scope.spawn(move || {
                for number in 0..8u8 {
                    let mut id = [thread; 16];
                    id[0] = number;
                    change(path, |known| (known.push(entry(Revoked::Token(TokenId(id)))), true)).unwrap();
                }
            });
        }
    });
    assert_eq!(load(&path).unwrap().len(), 32);
}

#[test]
fn a_list_that_is_full_takes_no_more() {
    let (_directory, path) = place();
    let many = |count: usize| (0..count).map(|n| entry(Revoked::Token(TokenId((n as u128).to_be_bytes())))).collect::<Vec<_>>();
    put(&path, &many(REVOCATIONS_MAX));
    assert_eq!(load(&path).unwrap().len(), REVOCATIONS_MAX);
    let fault = change(&path, |known| (*known = many(REVOCATIONS_MAX + 1), true)).unwrap_err();
    assert!(matches!(fault, RevocationFault::TooMany { .. }), "{fault}");
    assert_eq!(load(&path).unwrap().len(), REVOCATIONS_MAX);
    // The longest that can be written can be read: every subject and every reason as long as it may be.
    let longest = |n: usize| Revocation {
        what: Revoked::Subject(format!("{n:0>8}{}", "\"".repeat(120))),
        at: UnixMs(0),
        reason: "\\".repeat(REASON_BYTES_MAX),
    };
    put(&path, &(0..REVOCATIONS_MAX).map(longest).collect::<Vec<_>>());
    assert_eq!(load(&path).unwrap().len(), REVOCATIONS_MAX);
}
