//! The key that opens the keyring: a passphrase, or 32 random bytes, and the three places where it may be.
//!
//! Invariants: it is read into guarded memory and nowhere else; a variable of the environment is overwritten where it stands before it
//! is removed; no message has anything of it.
use super::guarded::{wiped, Guarded};
use super::private_file::{self, Guard, ReadFault};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use std::ffi::{CStr, CString, OsStr};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a key that is no passphrase.
pub(super) const KEY_BYTES: usize = 32;
/// Fewest and most bytes of a passphrase.
const PASSPHRASE_BYTES_MIN: usize = 12;
const PASSPHRASE_BYTES_MAX: usize = 256;
/// What stands before a key that is written as text.
const KEY_PREFIX: &[u8] = b"key:";
/// The variable in which systemd tells where a service has its credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// Where systemd keeps those of the unit while it runs; beside its user root can read them.
const CREDENTIALS_OF_THE_UNIT: &str = "/run/credentials/svc-wallet.service";

/// Where the opening key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kms {
    /// In this file, which only its owner may touch; it is made with the keyring.
    File(PathBuf),
    /// In the credential of this name, which systemd hands over.
    Credential(String),
    /// In this variable of the environment.
    Env(String),
}

impl std::fmt::Display for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kms::File(path) => write!(f, "file:{}", path.display()),
            Kms::Credential(name) => write!(f, "credential:{name}"),
            Kms::Env(name) => write!(f, "env:{name}"),
        }
    }
}

/// An opening key.
pub(super) struct OpeningKey {
    bytes: Guarded<[u8; PASSPHRASE_BYTES_MAX]>,
    length: usize,
    is_passphrase: bool,
}

impl OpeningKey {
    /// The passphrase, or the key.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The key that is written like this.
    #[cfg(test)]
    pub(super) fn of(text: &[u8]) -> Self {
        Self::parse(text).expect("a well formed key")
    }

    /// Whether a person may have thought of it, so that guessing has to be made expensive.
    pub(super) fn is_passphrase(&self) -> bool {
        self.is_passphrase
    }

    /// Reads what stands in one of the places. The flaw is told without anything of the text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut bytes = Guarded::new([0; PASSPHRASE_BYTES_MAX]);
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r');
        // As good as no 32 random bytes are all letters.
        if text.len() == KEY_BYTES && !text.iter().all(is_text) {
            bytes[..KEY_BYTES].copy_from_slice(text);
            return Ok(Self { bytes, length: KEY_BYTES, is_passphrase: false });
        }
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if let Some(encoded) = text.strip_prefix(KEY_PREFIX) {
            return match STANDARD.decode_slice(encoded, &mut bytes[..]) {
                Ok(KEY_BYTES) => Ok(Self { bytes, length: KEY_BYTES, is_passphrase: false }),
                Ok(_) | Err(_) => Err("what follows `key:` is not 32 bytes in base64".to_owned()),
            };
        }
        let readable = std::str::from_utf8(text).is_ok_and(|text| !text.chars().any(char::is_control));
        if !readable || !(PASSPHRASE_BYTES_MIN..=PASSPHRASE_BYTES_MAX).contains(&text.len()) {
            return Err(format!(
                "this is neither 32 random bytes, nor `key:` and 32 bytes in base64, nor a passphrase of {PASSPHRASE_BYTES_MIN} to \
                 {PASSPHRASE_BYTES_MAX} bytes"
            ));
        }
        bytes[..text.len()].copy_from_slice(text);
        Ok(Self { bytes, length: text.len(), is_passphrase: true })
    }

    /// The key in a file that is there; `None` if there is none.
    pub(super) fn in_file(path: &Path) -> Result<Option<Self>, String> {
        match Self::read(path, Guard::Mode) {
            Err(ReadFault::Missing) => Ok(None),
            Err(fault) => Err(told(&fault)),
            Ok(read) => read.map(Some),
        }
    }

    /// The key in a credential of systemd: of this process, or else of the unit, for whoever works beside it.
    pub(super) fn in_credential(name: &str) -> Result<Self, String> {
        let handed_over = std::env::var_os(CREDENTIALS_VARIABLE).filter(|directory| !directory.is_empty());
        Self::in_directory(handed_over.as_deref(), Path::new(CREDENTIALS_OF_THE_UNIT), name)
    }

    /// The same, with the directory that this process was handed, if it was, and that of the unit.
    fn in_directory(handed_over: Option<&OsStr>, of_the_unit: &Path, name: &str) -> Result<Self, String> {
        let directory = handed_over.map_or(of_the_unit, Path::new);
        let fault = match Self::read(&directory.join(name), Guard::Directory) {
            Ok(read) => return read,
            Err(fault) => fault,
        };
        Err(match (handed_over, fault) {
            (Some(_), ReadFault::Missing) => format!("systemd has handed over no such credential; add LoadCredential={name}:PATH"),
            (Some(_), fault) => told(&fault),
            (None, fault) => format!(
                "{CREDENTIALS_VARIABLE} is not set, and {}, which systemd keeps while the service runs: {}; start the service by systemd \
                 with LoadCredential={name}:PATH and do this as root, or set {CREDENTIALS_VARIABLE} to the directory with the credential",
                directory.join(name).display(),
                told(&fault)
            ),
        })
    }

    fn read(path: &Path, guard: Guard) -> Result<Result<Self, String>, ReadFault> {
        let mut text = private_file::blank();
        let (length, _) = private_file::read(path, guard, &mut text)?;
        Ok(Self::parse(&text[..length]))
    }

    /// Takes the key out of the environment: nobody finds it there afterwards.
    ///
    /// To be called before there are threads that look at the environment.
    pub(super) fn from_environment(name: &str) -> Result<Self, String> {
        let mut text = private_file::blank();
        let c_name = CString::new(name).map_err(|_| "no variable has a zero byte in its name".to_owned())?;
        // SAFETY: `getenv` is given a text that ends with a zero byte, and returns null or a text that does, which stands in the
        // environment of this process. No thread changes the environment meanwhile, as the caller promises, so it stays there while it
        // is copied, and zero bytes put over it up to its end keep it a text. Nobody else has a reference to it.
        #[allow(unsafe_code)]
        let length = unsafe {
            let value = libc::getenv(c_name.as_ptr());
            if value.is_null() {
                return Err("there is no such variable; set it for the service, and for ronctl".to_owned());
            }
            let length = CStr::from_ptr(value).to_bytes().len();
            let kept = length.min(text.len());
            text[..kept].copy_from_slice(std::slice::from_raw_parts(value.cast::<u8>(), kept));
            std::ptr::write_bytes(value, 0, length);
            kept
        };
        std::env::remove_var(name);
        wiped(|| Self::parse(&text[..length]))
    }

    /// A new random key in the form in which it is written into a file.
    pub(super) fn new_text() -> Result<Zeroizing<[u8; 49]>, std::io::Error> {
        let mut random = Zeroizing::new([0u8; KEY_BYTES]);
        getrandom::fill(&mut *random)?;
        let mut text = Zeroizing::new([b'\n'; 49]);
        text[..KEY_PREFIX.len()].copy_from_slice(KEY_PREFIX);
        let written = STANDARD.encode_slice(*random, &mut text[KEY_PREFIX.len()..48]).map_err(std::io::Error::other)?;
        assert_eq!(KEY_PREFIX.len() + written, 48, "32 bytes are 44 letters");
        Ok(text)
    }
}

fn told(fault: &ReadFault) -> String {
    match fault {
        ReadFault::Missing => "no such file".to_owned(),
        ReadFault::NotAFile => "not a regular file".to_owned(),
        ReadFault::Exposed { mode } => format!(
            "mode {mode:04o} opens it to others than its owner; run chmod 600 on it, and seal the keyring with another key if others may \
             have read it"
        ),
        ReadFault::TooLong => format!("it is longer than {} bytes", private_file::FILE_BYTES_MAX),
        ReadFault::Unreadable(error) => format!("cannot be read: {error}; check its owner and permissions"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_the_unit_its_credential_is_found_and_what_was_handed_over_comes_first() {
        let (handed, unit) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |handed: Option<&Path>| OpeningKey::in_directory(handed.map(Path::as_os_str), unit.path(), "key");
        let missing = read(None).err().unwrap();
        let wanted = unit.path().join("key").display().to_string();
        for part in ["CREDENTIALS_DIRECTORY is not set, and ", &wanted, "no such file", "LoadCredential=key:", "as root"] {
            assert!(missing.contains(part), "{part}: {missing}");
        }
        std::fs::write(unit.path().join("key"), "the phrase of the unit").unwrap();
        assert!(read(None).is_ok_and(|key| key.bytes() == b"the phrase of the unit"));
        let missing = read(Some(handed.path())).err().unwrap();
        assert!(missing.contains("systemd has handed over no such credential"), "{missing}");
        std::fs::write(handed.path().join("key"), "the phrase handed over").unwrap();
        assert!(read(Some(handed.path())).is_ok_and(|key| key.bytes() == b"the phrase handed over"));
    }

    #[test]
    fn keys_and_passphrases_are_told_apart() {
        let random: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(9));
        let key = OpeningKey::parse(&random).unwrap();
        assert!(key.bytes() == random && !key.is_passphrase());
        let written = format!("key:{}", STANDARD.encode(random));
        for text in [written.clone(), format!("{written}\n"), format!("{written}\r\n")] {
            let key = OpeningKey::parse(text.as_bytes()).unwrap();
            assert!(key.bytes() == random && !key.is_passphrase(), "{text}");
        }
        for text in ["correct horse", "thirty-two letters are no key...", "öffne dich, Sesam", "correct horse\n"] {
            let key = OpeningKey::parse(text.as_bytes()).unwrap();
            assert!(key.bytes() == text.trim_end().as_bytes() && key.is_passphrase(), "{text}");
        }
        let long = "x".repeat(257);
        for bad in ["", "short", "key:", "key:AAAA", "key:?", "two\nlines of text", &long] {
            let flaw = OpeningKey::parse(bad.as_bytes()).err().unwrap_or_else(|| panic!("{bad}"));
            assert!(bad.len() <= KEY_PREFIX.len() || !flaw.contains(bad), "{flaw}");
        }
        let fresh = [OpeningKey::new_text().unwrap(), OpeningKey::new_text().unwrap()];
        assert!(fresh[0] != fresh[1] && !OpeningKey::parse(&*fresh[0]).unwrap().is_passphrase());
    }
}
