//! The custody of the keyring: where its file is, what opens it, and how it is made.
//!
//! The file is sealed (`seal`), or in the clear form of earlier versions, which is read as ever and sealed by the next change. A new one
//! appears under its name complete or not at all, and never replaces one that is there.
use super::guarded::{wiped, Guarded};
use super::keyring::{self, Keyring, Sealing};
use super::keyring_fault::KeyringFault;
use super::opening_key::{Kms, OpeningKey};
use super::private_file::{self, blank, directory_of, Guard, ReadFault, Stamp, Text};
use super::seal;
use crate::domain::UnixMs;
use rustix::fs::{flock, FlockOperation};
use serde::Deserialize;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is put behind the name of a keyring for that of the file with its opening key, unless the configuration names one.
const KEY_FILE_SUFFIX: &str = ".key";

/// Where a keyring is and what opens it.
pub struct Custody {
    path: PathBuf,
    kms: Kms,
    /// What was in the environment, where it can be found once only.
    held: Option<Result<OpeningKey, String>>,
}

/// The one member that both forms have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Custody {
    /// The custody of this file. If its key is in the environment, it is taken out of there now, whether it will be needed or not: call
    /// this before there are threads that look at the environment.
    pub fn new(path: &Path, kms: Kms) -> Self {
        let held = match &kms {
            Kms::Env(name) => Some(OpeningKey::from_environment(name)),
            Kms::File(_) | Kms::Credential(_) => None,
        };
        Self { path: path.to_owned(), kms, held }
    }

    /// The custody of this file, with its key in a file beside it.
    pub fn beside(path: &Path) -> Self {
        Self::new(path, Kms::File(key_file_beside(path)))
    }

    /// Where the keyring is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What opens it.
    pub fn kms(&self) -> &Kms {
        &self.kms
    }

    /// Opens a keyring that has to be there.
    ///
    /// # Errors
    /// If it is not there, is not private, cannot be opened, or is none.
    pub fn open(&self) -> Result<Keyring, KeyringFault> {
        wiped(|| self.read()).map(|(keyring, _)| keyring)
    }

    /// Opens the keyring, or makes one with a fresh key if there is no such file; also what tells this state of the file from the next
    /// one. Missing directories are made with mode 0700.
    ///
    /// # Errors
    /// As [`Custody::open`], and if it cannot be made.
    pub fn open_or_create(&self) -> Result<(Keyring, Stamp), KeyringFault> {
        match wiped(|| self.read()) {
            Err(KeyringFault::Missing { .. }) => wiped(|| self.create().and_then(|()| self.read())),
            outcome => outcome,
        }
    }

    /// Changes the keyring, and puts the outcome in its place, whole and durably, sealed with the key of `under`, which is made if it is
    /// to be in a file. Another change meanwhile is refused.
    fn change<T>(
        &self,
        under: &Self,
        change: impl FnOnce(&mut Keyring) -> Result<T, String>,
    ) -> Result<(Keyring, T), KeyringFault> {
        let broken = |source| KeyringFault::Uncreatable { path: self.path.clone(), source };
        let refused = |flaw| KeyringFault::Unchangeable { path: self.path.clone(), flaw };
        let directory = File::open(directory_of(&self.path)).map_err(broken)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| refused("another command is changing it, or something else in its directory; try again".to_owned()))?;
        wiped(|| {
            let (mut keyring, _) = self.read()?;
            let outcome = change(&mut keyring).map_err(refused)?;
            keyring.changed();
            under.make_opening_key(Some(private_file::owner_of(&self.path).map_err(broken)?))?;
            let text = under.sealed(&keyring)?;
            private_file::replace(&self.path, &text).map_err(broken)?;
            Ok((keyring, outcome))
        })
    }

    /// Adds a fresh key, hybrid or not, or as the active one is. It is not active yet, so that whoever verifies can learn of it first.
    /// Returns its id as well.
    ///
    /// # Errors
    /// As [`Custody::open`], if there are too many keys, and if the file cannot be replaced.
    pub fn add_key(&self, hybrid: Option<bool>) -> Result<(Keyring, Box<str>), KeyringFault> {
        self.change(self, |keyring| {
            let hybrid = hybrid.unwrap_or(keyring.is_hybrid());
            keyring.add(now(), hybrid).map_err(|error| error.to_string())
        })
    }

    /// Lets a key sign from now on.
    ///
    /// # Errors
    /// As [`Custody::open`], if there is no such key, and if the file cannot be replaced.
    pub fn activate(&self, id: &str) -> Result<Keyring, KeyringFault> {
        self.change(self, |keyring| keyring.activate(id)).map(|(keyring, ())| keyring)
    }

    /// Takes a key out that is not active.
    ///
    /// # Errors
    /// As [`Custody::open`], if there is no such key or it is active, and if the file cannot be replaced.
    pub fn retire(&self, id: &str) -> Result<Keyring, KeyringFault> {
        self.change(self, |keyring| keyring.retire(id)).map(|(keyring, ())| keyring)
    }

    /// Writes the same keys again, sealed with the key of `under`, which may be this custody itself.
    ///
    /// # Errors
    /// As [`Custody::open`], and if the file cannot be replaced.
    pub fn seal(&self, under: &Self) -> Result<Keyring, KeyringFault> {
        self.change(under, |_| Ok(())).map(|(keyring, ())| keyring)
    }

    /// What tells this state of the file from the next one; `None` while there is no file.
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::at(&self.path)
    }

    /// Which version the form of the file has, and which versions are read, the newest last.
    ///
    /// # Errors
    /// As [`Custody::open`], but that it is not opened.
    pub fn form(&self) -> Result<(u32, [u32; 2]), KeyringFault> {
        let (text, length, _) = self.text()?;
        Ok((self.version(&text[..length])?, [keyring::VERSION, seal::VERSION]))
    }

    /// What the file would be if these keys were sealed now, under the key of this custody, which is made if it is to be in a file. Nothing
    /// is written but that key.
    ///
    /// # Errors
    /// As [`Custody::open`], and if it cannot be sealed.
    pub fn resealed(&self) -> Result<Vec<u8>, KeyringFault> {
        wiped(|| {
            let (mut keyring, _) = self.read()?;
            keyring.changed();
            let broken = |source| KeyringFault::Uncreatable { path: self.path.clone(), source };
            self.make_opening_key(Some(private_file::owner_of(&self.path).map_err(broken)?))?;
            self.sealed(&keyring)
        })
    }

    /// What is in the file, guarded; its length; and what tells this state of it from the next one.
    fn text(&self) -> Result<(Guarded<Text>, usize, Stamp), KeyringFault> {
        let path = || self.path.clone();
        let mut text = blank();
        let (length, stamp) = private_file::read(&self.path, Guard::Mode, &mut text).map_err(|fault| match fault {
            ReadFault::Missing => KeyringFault::Missing { path: path() },
            ReadFault::NotAFile => KeyringFault::NotAFile { path: path() },
            ReadFault::Exposed { mode } => KeyringFault::Exposed { path: path(), mode },
            ReadFault::Unreadable(source) => KeyringFault::Unreadable { path: path(), source },
            ReadFault::TooLong => self.malformed(format!("it is longer than {} bytes", private_file::FILE_BYTES_MAX)),
        })?;
        Ok((text, length, stamp))
    }

    /// Only the place of an error is told, as in both forms.
    fn version(&self, text: &[u8]) -> Result<u32, KeyringFault> {
        let versioned: Versioned = serde_json::from_slice(text).map_err(|error| {
            self.malformed(format!("line {} column {} is not as a keyring is written", error.line(), error.column()))
        })?;
        Ok(versioned.version)
    }

    fn read(&self) -> Result<(Keyring, Stamp), KeyringFault> {
        let (text, length, stamp) = self.text()?;
        let text = &text[..length];
        let keyring = match self.version(text)? {
            keyring::VERSION => Keyring::parse(text, Sealing::Clear),
            seal::VERSION => {
                let key = self.opening_key()?;
                self.unseal(text, &key)
            }
            other => {
                Err(format!("version {other} is not known; this build reads versions {} and {}", keyring::VERSION, seal::VERSION))
            }
        };
        Ok((keyring.map_err(|flaw| self.malformed(flaw))?, stamp))
    }

    fn unseal(&self, text: &[u8], key: &OpeningKey) -> Result<Keyring, String> {
        let mut clear = blank();
        let opened = seal::open(text, key, &mut clear)?;
        let sealing = if opened.hybrid { Sealing::Hybrid } else { Sealing::Sealed };
        let keyring = Keyring::parse(&clear[..opened.length], sealing)?;
        if keyring.serial() != opened.serial {
            return Err("what is sealed has another serial than the file".to_owned());
        }
        Ok(keyring)
    }

    fn create(&self) -> Result<(), KeyringFault> {
        let broken = |source| KeyringFault::Uncreatable { path: self.path.clone(), source };
        let owner = private_file::heir(&self.path).map_err(broken)?;
        self.make_opening_key(owner)?;
        let keyring = Keyring::fresh(now()).map_err(broken)?;
        let text = self.sealed(&keyring)?;
        private_file::make(&self.path, &text, owner).map_err(broken)
    }

    /// The sealed form of a keyring, which has been seen to open.
    fn sealed(&self, keyring: &Keyring) -> Result<Vec<u8>, KeyringFault> {
        let broken = |source| KeyringFault::Uncreatable { path: self.path.clone(), source };
        let key = self.opening_key()?;
        let (mut clear, mut again) = (blank(), blank());
        let length = keyring.write(&mut clear).map_err(broken)?;
        again[..length].copy_from_slice(&clear[..length]);
        let text = seal::seal(&mut clear[..length], keyring.serial(), &key, keyring.is_hybrid())
            .map_err(|flaw| broken(io::Error::other(flaw)))?;
        if !seal::opens_to(&text, &key, &again[..length]) {
            return Err(broken(io::Error::other("what was sealed does not open")));
        }
        Ok(text)
    }

    /// Why this keyring of the file does not take the place of that one.
    pub fn earlier(&self, keyring: &Keyring, in_force: &Keyring) -> KeyringFault {
        KeyringFault::Earlier { path: self.path.clone(), serial: keyring.serial(), in_force: in_force.serial() }
    }

    fn malformed(&self, flaw: String) -> KeyringFault {
        KeyringFault::Malformed { path: self.path.clone(), flaw }
    }

    fn no_key(&self, flaw: String) -> KeyringFault {
        KeyringFault::Kms { place: self.kms.to_string(), flaw }
    }

    fn opening_key(&self) -> Result<Held<'_>, KeyringFault> {
        let read = match (&self.kms, &self.held) {
            (_, Some(held)) => return held.as_ref().map(Held::Kept).map_err(|flaw| self.no_key(flaw.clone())),
            (Kms::File(path), None) => OpeningKey::in_file(path).and_then(|key| {
                key.ok_or_else(|| "no such file; restore it: without it the keyring cannot be opened".to_owned())
            }),
            (Kms::Credential(name), None) => OpeningKey::in_credential(name),
            (Kms::Env(_), None) => unreachable!("what is in the environment is taken at once"),
        };
        read.map(Held::Read).map_err(|flaw| self.no_key(flaw))
    }

    /// Makes a file with a fresh opening key, if the key is to be in a file and there is none.
    fn make_opening_key(&self, owner: Option<(u32, u32)>) -> Result<(), KeyringFault> {
        let Kms::File(path) = &self.kms else { return Ok(()) };
        if path.exists() {
            return Ok(());
        }
        let made = OpeningKey::new_text().and_then(|text| private_file::make(path, &*text, owner));
        made.map_err(|error| self.no_key(format!("cannot be written: {error}; check that its directory can be written")))
    }
}

/// An opening key that was read just now, or one that is kept.
enum Held<'a> {
    Read(OpeningKey),
    Kept(&'a OpeningKey),
}

impl std::ops::Deref for Held<'_> {
    type Target = OpeningKey;

    fn deref(&self) -> &OpeningKey {
        match self {
            Held::Read(key) => key,
            Held::Kept(key) => key,
        }
    }
}

/// The file with the opening key of a keyring, unless the configuration names another place.
pub fn key_file_beside(keyring: &Path) -> PathBuf {
    let mut name = keyring.as_os_str().to_owned();
    name.push(KEY_FILE_SUFFIX);
    name.into()
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Keyring {
    /// Opens a keyring whose key is in a file beside it; see [`Custody::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(path: &Path) -> Result<Self, KeyringFault> {
        Custody::beside(path).open()
    }

    /// Opens such a keyring, or makes one; see [`Custody::open_or_create`].
    ///
    /// # Errors
    /// As there.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyringFault> {
        Custody::beside(path).open_or_create().map(|(keyring, _)| keyring)
    }
}

#[cfg(test)]
#[path = "custody_tests.rs"]
mod tests;
