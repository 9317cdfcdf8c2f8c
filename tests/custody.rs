//! Proves that secrets stay where they belong (I-10): known ones are planted, the real server works with them, and then everything that
//! would be in an image of its memory, all that it has logged at every level, and all files that it has written are searched.
//!
//! Core dumps are off, so the image is read from `/proc` as root: every mapping that a dump would have, and file mappings besides. The
//! pages that are marked as left out of dumps are searched apart: there the secrets have to be, or the search finds nothing at all. What is
//! derived from them is planted as well: the seeds of signing keys, the root of a passphrase, and the signature of a token before its
//! caveats. Only root can search; without root that is left out, and said.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use aws_lc_rs::hkdf::{Salt, HKDF_SHA256};
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::Engine;
use macaroon::{Macaroon, MacaroonKey};
use rustix::process::Pid;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Server, Wallet};
use svc_wallet::access::{mint, Custody, Keyring, Kms, MintRequest};
use svc_wallet::domain::UnixMs;

/// What is read of a mapping at once, and how much of it is looked at again with the next piece.
const PIECE: usize = 1 << 20;
const OVERLAP: usize = 256;

/// A secret in every form in which it might be left behind. Halves are looked for as well, for copies that were overwritten in part.
struct Planted {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Planted {
    fn new(name: &'static str, secret: &[u8]) -> Self {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let half = secret.len() / 2;
        let mut forms = vec![secret[..half].to_vec(), secret[half..].to_vec()];
        forms.extend([STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret), hex].map(|text| text.as_bytes()[..24].to_vec()));
        Self { name, forms }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| memchr::memmem::find(bytes, form).is_some())
    }
}

/// Where planted secrets were found in a process: in what a dump would have, and in what it leaves out.
#[derive(Debug, Default, PartialEq)]
struct Found {
    dumped: Vec<String>,
    left_out: Vec<&'static str>,
    bytes: usize,
}

fn search_memory(pid: Pid, planted: &[Planted]) -> Found {
    let root = format!("/proc/{}", pid.as_raw_nonzero());
    let memory = File::open(format!("{root}/mem")).unwrap();
    let smaps = fs::read_to_string(format!("{root}/smaps")).unwrap();
    let (mut found, mut mapping) = (Found::default(), None);
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let (start, end, name): (u64, u64, String) = mapping.take().unwrap();
            let left_out = flags.split_whitespace().any(|flag| flag == "dd");
            search_range(&memory, start, end, planted, &mut |secret| match left_out {
                true if found.left_out.contains(&secret) => {}
                true => found.left_out.push(secret),
                false => found.dumped.push(format!("{secret} in {name}")),
            });
            found.bytes += (end - start) as usize;
        } else if let Some((start, rest)) = line.split_once('-') {
            let parsed = rest.split_once(' ').and_then(|(end, rest)| {
                Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?, rest.to_owned()))
            });
            mapping = parsed.or(mapping);
        }
    }
    found
}

fn search_range(memory: &File, start: u64, end: u64, planted: &[Planted], tell: &mut dyn FnMut(&'static str)) {
    let mut piece = vec![0u8; PIECE + OVERLAP];
    let mut at = start;
    while at < end {
        let wanted = piece.len().min((end - at) as usize);
        // What cannot be read, such as guard pages and those of the kernel, cannot be dumped either.
        if let Ok(length) = memory.read_at(&mut piece[..wanted], at) {
            planted.iter().filter(|secret| secret.is_in(&piece[..length])).for_each(|secret| tell(secret.name));
        }
        at += PIECE as u64;
    }
}

fn search_files(directory: &Path, but: &[&str], planted: &[Planted]) -> (Vec<String>, usize) {
    let (mut found, mut open, mut files) = (Vec::new(), vec![directory.to_owned()], 0);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap()) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && !but.iter().any(|name| path == directory.join(name)) {
                files += 1;
                let bytes = fs::read(&path).unwrap();
                let hits = planted.iter().filter(|secret| secret.is_in(&bytes));
                found.extend(hits.map(|secret| format!("{} in {}", secret.name, path.display())));
            }
        }
    }
    (found, files)
}

fn token(keyring: &Keyring) -> String {
    let now = UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64);
    let request = MintRequest {
        subject: "custody".to_owned(),
        scopes: vec!["wallet:*".to_owned()],
        ttl: Duration::from_secs(900),
        audience: "svc-wallet".to_owned(),
        ..MintRequest::default()
    };
    mint(keyring, &request, now).unwrap()
}

/// The seed of a signing key of this secret, as docs/SECURITY.md says.
fn seed(name: &'static str, secret: &[u8; 32], purpose: &[u8]) -> Planted {
    let mut seed = [0; 32];
    let derived = Salt::new(HKDF_SHA256, &[]).extract(secret);
    derived.expand(&[purpose], HKDF_SHA256).unwrap().fill(&mut seed).unwrap();
    Planted::new(name, &seed)
}

/// The root of a sealed keyring that a passphrase opens.
fn stretched(keyring: &Path, passphrase: &str) -> Planted {
    let file: serde_json::Value = serde_json::from_slice(&fs::read(keyring).unwrap()).unwrap();
    let [memory, passes, lanes] =
        ["memory_kib", "passes", "lanes"].map(|name| u32::try_from(file["argon2id"][name].as_u64().unwrap()).unwrap());
    let salt = STANDARD.decode(file["salt"].as_str().unwrap()).unwrap();
    let params = argon2::Params::new(memory, passes, lanes, Some(32)).unwrap();
    let mut root = [0; 32];
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon2.hash_password_into(passphrase.as_bytes(), &salt, &mut root).unwrap();
    Planted::new("the root of the passphrase", &root)
}

/// What the token was before its caveats, which was never sent: whoever had it could make a token without any.
fn unnarrowed(token: &str, key: &[u8; 32]) -> Planted {
    let identifier = Macaroon::deserialize(token).unwrap().identifier();
    let first = Macaroon::create(None, &MacaroonKey::from(key), identifier).unwrap();
    let signature: &[u8] = &first.signature();
    Planted::new("the token without caveats", signature)
}

/// Some spends, on every core and with a token that is refused.
fn work(server: &Server, token: &str) {
    for account in ["a", "b", "c", "d", "e", "f"] {
        let mut wallet = Wallet::new(server.connect(), token.to_owned());
        wallet.issue(account, 100);
        wallet.spend(account, "shop", 1, 1, &format!("spend-{account}")).ok();
        let mut stranger = Wallet::new(server.connect(), token[..token.len() - 8].to_owned());
        assert_eq!(stranger.get(&format!("/v1/seq?account={account}")).status, 401);
    }
}

/// That nothing planted is in what a dump, the log or a file would show. The process keeps those that are `held`, on pages that a dump
/// leaves out; `kept` names the files that are to have secrets; and `token`, which was used, is in ordinary memory, or the search finds
/// nothing at all.
fn assert_hidden(server: &mut Server, token: &str, planted: &[Planted], held: &[&str], kept: &[&str]) {
    let pid = server.pid();
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    if rustix::process::geteuid().is_root() {
        let mut found = search_memory(pid, planted);
        assert!(found.dumped.is_empty(), "{found:?}");
        found.left_out.sort_unstable();
        assert_eq!(found.left_out, held, "{found:?}");
        let used = Planted { name: "the token", forms: vec![token.as_bytes().to_vec()] };
        assert!(!search_memory(pid, &[used]).dumped.is_empty() && found.bytes > 1 << 20, "the search finds what is there");
    } else {
        eprintln!("LEFT OUT: only root can search the memory of the server; run this as root");
        // Without dumps and debuggers nobody but root can look.
        let refused = File::open(format!("/proc/{}/mem", pid.as_raw_nonzero())).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
    let exit = server.stop();
    assert!(exit.log.contains("\"level\":\"DEBUG\""), "the log is there: {}", exit.log);
    assert!(planted.iter().all(|secret| !secret.is_in(exit.log.as_bytes())), "a secret is in the log");
    let (found, files) = search_files(server.directory(), kept, planted);
    assert!(found.is_empty() && files > 5, "{files} files: {found:?}");
    for name in kept {
        let bytes = fs::read(server.path(name)).unwrap();
        assert!(planted.iter().any(|secret| secret.is_in(&bytes)), "the search finds nothing in {name}");
    }
}

/// A secret that occurs nowhere else.
fn secret(seed: u8) -> [u8; 32] {
    std::array::from_fn(|at| (at as u8).wrapping_mul(167).wrapping_add(seed) ^ 0xC3)
}

fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A server that runs with a clear keyring of known keys, signs with the hybrid one of them and logs everything; and what of it is
/// planted, the keys themselves first.
fn with_planted_keys() -> (Server, Vec<Planted>) {
    let (old, new) = (secret(1), secret(77));
    let mut server = Server::prepared(&[("ledger.sign_roots_every", "1s")]);
    let text = format!(
        r#"{{"version":1,"active":"new","keys":[{{"id":"old","secret":"{}"}},{{"id":"new","hybrid":true,"secret":"{}"}}]}}"#,
        STANDARD.encode(old),
        STANDARD.encode(new)
    );
    write_private(&server.path("wallet.keyring"), text.as_bytes());
    server.log_at("trace");
    server.launch();
    let planted = vec![
        Planted::new("the old key", &old),
        Planted::new("the new key", &new),
        seed("the Ed25519 seed", &new, b"svc-wallet signing 1 ed25519"),
        seed("the ML-DSA-65 seed", &new, b"svc-wallet signing 1 ml-dsa-65"),
    ];
    (server, planted)
}

#[test]
fn planted_secrets_of_a_sealed_keyring_are_found_nowhere() {
    let (mut server, mut planted) = with_planted_keys();
    let token = token(&Keyring::open(&server.path("wallet.keyring")).unwrap());
    work(&server, &token);
    server.metric_reaches("wallet_signed_root_height", 1.0);
    // Twice while the server runs, so that it has opened the sealed form, and has let an earlier keyring go.
    for (arguments, version) in [("seal", 1.0), ("rotate --hybrid on", 3.0)] {
        let ronctl = std::process::Command::new(env!("CARGO_BIN_EXE_ronctl"))
            .args(["--config", "svc-wallet.toml", "kms"])
            .args(arguments.split(' '))
            .current_dir(server.directory())
            .output()
            .unwrap();
        assert!(ronctl.status.success(), "{ronctl:?}");
        server.metric_reaches("keyring_version", version);
        work(&server, &token);
    }
    let opening = fs::read_to_string(server.path("wallet.keyring.key")).unwrap();
    let opening = STANDARD.decode(opening.trim().strip_prefix("key:").unwrap()).unwrap();
    planted.extend([Planted::new("the opening key", &opening), unnarrowed(&token, &secret(77))]);
    assert_hidden(&mut server, &token, &planted, &["the new key", "the old key"], &["wallet.keyring.key"]);
}

#[test]
fn planted_secrets_of_a_clear_keyring_are_found_nowhere_but_in_it() {
    let (mut server, mut planted) = with_planted_keys();
    let token = token(&Keyring::open(&server.path("wallet.keyring")).unwrap());
    work(&server, &token);
    server.metric_reaches("wallet_signed_root_height", 1.0);
    planted.push(unnarrowed(&token, &secret(77)));
    assert_hidden(&mut server, &token, &planted, &["the new key", "the old key"], &["wallet.keyring"]);
}

/// A server whose keyring is opened by `kms`, which its first start is to make.
fn without_keyring(kms: &str) -> Server {
    let server = Server::prepared(&[("security.kms", kms)]);
    for name in ["wallet.keyring", "wallet.keyring.key"] {
        fs::remove_file(server.path(name)).unwrap();
    }
    server
}

const PASSPHRASE: &str = "planted: a phrase that nobody else would write, 4711";

#[test]
fn a_passphrase_in_the_environment_is_found_nowhere_afterwards() {
    let mut server = without_keyring("env:WALLET_PASSPHRASE");
    server.set_env("WALLET_PASSPHRASE", PASSPHRASE);
    server.log_at("trace");
    server.launch();
    if rustix::process::geteuid().is_root() {
        let environment = fs::read(format!("/proc/{}/environ", server.pid().as_raw_nonzero())).unwrap();
        let shown = String::from_utf8_lossy(&environment);
        assert!(shown.contains("RUST_LOG=trace") && !shown.contains("planted"), "{shown}");
    }
    assert!(!server.path("wallet.keyring.key").exists(), "the key is in the environment, and no file is made");
    // The same passphrase opens it from a file.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("passphrase");
    write_private(&file, PASSPHRASE.as_bytes());
    let keyring = Custody::new(&server.path("wallet.keyring"), Kms::File(file)).open().unwrap();
    let token = token(&keyring);
    work(&server, &token);
    let planted = [Planted::new("the passphrase", PASSPHRASE.as_bytes()), stretched(&server.path("wallet.keyring"), PASSPHRASE)];
    assert_hidden(&mut server, &token, &planted, &["the passphrase"], &[]);
    // And it is asked for by every start.
    server.set_env("WALLET_PASSPHRASE", "another phrase that nobody would write");
    let exit = server.launch_refused();
    assert!(exit.status.code() == Some(1) && exit.log.contains("the key does not open it"), "{}", exit.log);
    assert!(!exit.log.contains("another phrase"));
}

#[test]
fn a_credential_of_systemd_opens_the_keyring() {
    let mut server = without_keyring("credential:wallet.key");
    let exit = server.launch_refused();
    assert!(exit.status.code() == Some(1) && exit.log.contains("CREDENTIALS_DIRECTORY is not set"), "{}", exit.log);
    // Bytes that follow each other are in the tables of letters of every program; these are not.
    let key: [u8; 32] = std::array::from_fn(|at| 0x80 | (at as u8).wrapping_mul(53));
    let credentials = tempfile::tempdir().unwrap();
    server.set_env("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    let exit = server.launch_refused();
    assert!(exit.log.contains("systemd has handed over no such credential"), "{}", exit.log);
    assert!(!server.path("wallet.keyring").exists() && !server.path("ledger").exists());
    // As systemd shows a credential of a service that has a user of its own.
    fs::write(credentials.path().join("wallet.key"), key).unwrap();
    fs::set_permissions(credentials.path().join("wallet.key"), fs::Permissions::from_mode(0o440)).unwrap();
    server.log_at("trace");
    server.launch();
    let file = credentials.path().join("copy");
    write_private(&file, &key);
    let keyring = Custody::new(&server.path("wallet.keyring"), Kms::File(file)).open().unwrap();
    let token = token(&keyring);
    work(&server, &token);
    assert_hidden(&mut server, &token, &[Planted::new("the opening key", &key)], &[], &[]);
}
