//! The keyring: the secrets that sign capabilities, one of them active for minting, all of them good for verifying.
//!
//! The file is JSON so that secrets can be decoded straight out of a buffer that is wiped afterwards:
//!
//! ```json
//! {"version": 1, "active": "k-3f9a01c2", "keys": [{"id": "k-3f9a01c2", "secret": "<32 bytes, standard base64>"}]}
//! ```
//!
//! It must be a regular file that neither group nor others can touch. A new one appears under its name complete or not at
//! all, and never replaces one that is there. No message about it holds anything that was read from it but key ids. Secrets lie in
//! guarded memory from the moment that they are read.
use super::guarded::{wiped, Guarded};
use super::identifier::key_id_well_formed;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use macaroon::MacaroonKey;
use serde::Deserialize;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

const SECRET_BYTES: usize = 32;
/// 32 bytes are 44 characters of base64, and decoding may touch up to 33 bytes.
const SECRET_DECODED_BYTES_MAX: usize = 36;
const FILE_BYTES_MAX: usize = 64 << 10;
const KEYS_MAX: usize = 16;
const VERSION: u32 = 1;
/// Permission bits of group and others.
const MODE_FOREIGN: u32 = 0o077;

/// The keys of one service. Shown by its ids only.
pub struct Keyring {
    ids: Vec<Box<str>>,
    /// In the order of the ids.
    secrets: Guarded<Secrets>,
    active: usize,
}

/// Keys in the form that the macaroon crate wants, so that it can use them where they are.
struct Secrets([MacaroonKey; KEYS_MAX]);

impl Zeroize for Secrets {
    fn zeroize(&mut self) {
        self.0.iter_mut().for_each(|key| key.zeroize());
    }
}

/// A keyring as it is read.
type Text = [u8; FILE_BYTES_MAX + 1];

impl Keyring {
    /// Opens the keyring, or makes one with a fresh key if there is no such file. A missing directory is made with mode 0700.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyringFault> {
        match Self::open(path) {
            Err(KeyringFault::Missing { .. }) => {
                create(path)?;
                Self::open(path)
            }
            outcome => outcome,
        }
    }

    /// Opens a keyring that has to be there.
    pub fn open(path: &Path) -> Result<Self, KeyringFault> {
        wiped(|| {
            let (text, length) = read(path)?;
            Self::parse(&text[..length]).map_err(|flaw| KeyringFault::Malformed { path: path.into(), flaw })
        })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        macaroon::initialize().map_err(|_| "the cryptographic library does not start".to_string())?;
        // Only the place of an error is told: its text can quote the file, and so a secret.
        let written: Written<'_> = serde_json::from_slice(text)
            .map_err(|error| format!("line {} column {} is not as a keyring is written", error.line(), error.column()))?;
        if written.version != VERSION {
            return Err(format!("version {} is not known; this build reads version {VERSION}", written.version));
        }
        if written.keys.is_empty() || written.keys.len() > KEYS_MAX {
            return Err(format!("it holds {} keys; 1 to {KEYS_MAX} are possible", written.keys.len()));
        }
        let mut ids: Vec<Box<str>> = Vec::with_capacity(written.keys.len());
        let mut secrets = Guarded::new(Secrets([[0; SECRET_BYTES].into(); KEYS_MAX]));
        for (index, key) in written.keys.iter().enumerate() {
            if !key_id_well_formed(key.id) {
                return Err(format!("the id of keys[{index}] is not 1 to 32 characters of a-z 0-9 -"));
            }
            if ids.iter().any(|known| **known == *key.id) {
                return Err(format!("the id {} is there twice", key.id));
            }
            decode(key.secret, &mut secrets.0[index])
                .ok_or_else(|| format!("the secret of key {} is not 32 bytes in base64", key.id))?;
            ids.push(key.id.into());
        }
        let active = ids.iter().position(|id| **id == *written.active);
        let active = active.ok_or("the active key is not among the keys")?;
        Ok(Self { ids, secrets, active })
    }

    /// The id of the key that signs new capabilities.
    pub fn active_id(&self) -> &str {
        &self.ids[self.active]
    }

    /// The ids of all keys, in the order of the file.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(|id| &**id)
    }

    /// The key of this id, where it lies: a copy would be one more place to wipe.
    pub(super) fn root(&self, id: &str) -> Option<&MacaroonKey> {
        let place = self.ids.iter().position(|known| **known == *id)?;
        Some(&self.secrets.0[place])
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.ids().collect();
        f.debug_struct("Keyring").field("ids", &ids).field("active", &self.active_id()).finish_non_exhaustive()
    }
}

/// Borrowed from the text, so that no copy of a secret is left behind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    version: u32,
    #[serde(borrow)]
    active: &'a str,
    #[serde(borrow)]
    keys: Vec<WrittenKey<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey<'a> {
    id: &'a str,
    secret: &'a str,
}

fn decode(text: &str, into: &mut MacaroonKey) -> Option<()> {
    let mut decoded = Zeroizing::new([0u8; SECRET_DECODED_BYTES_MAX]);
    if STANDARD.decode_slice(text, &mut *decoded).ok()? != SECRET_BYTES {
        return None;
    }
    into.copy_from_slice(&decoded[..SECRET_BYTES]);
    Some(())
}

/// What is in the file, and its length.
fn read(path: &Path) -> Result<(Guarded<Text>, usize), KeyringFault> {
    let broken = |source| KeyringFault::Unreadable { path: path.into(), source };
    // Opening a named pipe would wait for a writer; the flag makes it return so that the check below can refuse it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyringFault::Missing { path: path.into() }),
        Err(error) => return Err(broken(error)),
    };
    // The open file is looked at, not the name: nobody can swap it in between.
    let metadata = file.metadata().map_err(broken)?;
    if !metadata.is_file() {
        return Err(KeyringFault::NotAFile { path: path.into() });
    }
    if metadata.mode() & MODE_FOREIGN != 0 {
        return Err(KeyringFault::Exposed { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    let mut text: Guarded<Text> = Guarded::new([0; FILE_BYTES_MAX + 1]);
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]) {
            Ok(0) => return Ok((text, length)),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
    Err(KeyringFault::Malformed { path: path.into(), flaw: format!("it is longer than {FILE_BYTES_MAX} bytes") })
}

/// Writes a new keyring beside its place and links it there: the name appears with the whole file behind it, and if
/// another process was faster, its file stays.
fn create(path: &Path) -> Result<(), KeyringFault> {
    let broken = |source| KeyringFault::Uncreatable { path: path.into(), source };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(broken)?;
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| broken(error.into()))?;
    let tag = u64::from_le_bytes(random);
    let aside = directory.join(format!(".keyring-{tag:016x}.tmp"));
    let outcome =
        wiped(|| write_new(&aside, &format!("k-{:08x}", tag as u32))).and_then(|()| match std::fs::hard_link(&aside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        });
    let removed = std::fs::remove_file(&aside);
    outcome.map_err(broken)?;
    removed.map_err(broken)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(broken)
}

fn write_new(path: &Path, id: &str) -> io::Result<()> {
    let mut secret = Zeroizing::new([0u8; SECRET_BYTES]);
    getrandom::fill(&mut *secret)?;
    let mut encoded = Zeroizing::new([0u8; 4 * SECRET_BYTES.div_ceil(3)]);
    let length = STANDARD.encode_slice(*secret, &mut *encoded).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    write!(file, "{{\n  \"version\": {VERSION},\n  \"active\": \"{id}\",\n  \"keys\": [{{\"id\": \"{id}\", \"secret\": \"")?;
    file.write_all(&encoded[..length])?;
    file.write_all(b"\"}]\n}\n")?;
    file.sync_all()
}

/// Why there is no keyring.
#[derive(Debug)]
pub enum KeyringFault {
    /// No such file.
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A directory, pipe, socket or device.
    NotAFile {
        /// What was opened.
        path: PathBuf,
    },
    /// Group or others have permissions on it.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system does not let it be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let it be made.
    Uncreatable {
        /// Where it should have been.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was read and is not a keyring.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without anything that could be a secret.
        flaw: String,
    },
}

impl std::fmt::Display for KeyringFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { path } => write!(
                f,
                "keyring {}: no such file; the server makes one on its first start, or restore it from a backup",
                path.display()
            ),
            Self::NotAFile { path } => {
                write!(f, "keyring {}: not a regular file; point security.keyring to a file", path.display())
            }
            Self::Exposed { path, mode } => write!(
                f,
                "keyring {}: mode {mode:04o} opens it to others than its owner; run chmod 600 on it, and replace the keys if \
                 others may have read them",
                path.display()
            ),
            Self::Unreadable { path, source } => {
                write!(f, "keyring {}: cannot be read: {source}; check its owner and permissions", path.display())
            }
            Self::Uncreatable { path, source } => {
                write!(f, "keyring {}: cannot be created: {source}; check that its directory can be written", path.display())
            }
            Self::Malformed { path, flaw } => {
                write!(f, "keyring {}: {flaw}; restore it from a backup, or move it away to get a new one", path.display())
            }
        }
    }
}

impl std::error::Error for KeyringFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } | Self::Uncreatable { source, .. } => Some(source),
            Self::Missing { .. } | Self::NotAFile { .. } | Self::Exposed { .. } | Self::Malformed { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
