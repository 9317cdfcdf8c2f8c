//! One step on one file: a backup beside it, the new version aside, synced, renamed.
//!
//! Invariants: under its name there is the old version or the new one, whole; the backup is whole and durable, with the permissions of the
//! file, before anything takes its place; a backup is never written over. Whatever an interrupted run has left is used or replaced by the next.
use crate::access::directory_of;
use crate::operator::exit::Failure;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What is compared at once, in bytes.
const COMPARED_BYTES: usize = 64 << 10;

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The backup is being written, under another name.
    BackingUp,
    /// The backup is there.
    BackedUp,
    /// The new version is written aside, durably.
    Written,
    /// It has its name.
    InPlace,
}

/// Puts these bytes in the place of a file of this version, and returns the backup. `watch` is told of each stage, and can end the step there as
/// if the process had been killed.
///
/// # Errors
/// What the operating system refuses.
pub fn carry(
    path: &Path,
    from: u32,
    bytes: &[u8],
    watch: &mut dyn FnMut(Stage, &Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    // A link stays one, and what it points to is replaced.
    let path = &fs::canonicalize(path).map_err(|fault| stopped(path, "be found", &fault))?;
    let backup = back_up(path, from, watch)?;
    watch(Stage::BackedUp, &backup)?;
    let aside = beside(path, ".migrating");
    let write = || -> io::Result<()> {
        let mut file = make(&aside, path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|fault| stopped(&aside, "be written", &fault))?;
    watch(Stage::Written, &aside)?;
    let install = || fs::rename(&aside, path).and_then(|()| File::open(directory_of(path))?.sync_all());
    install().map_err(|fault| stopped(path, "be replaced", &fault))?;
    watch(Stage::InPlace, path)?;
    Ok(backup)
}

fn stopped(path: &Path, what: &str, fault: &io::Error) -> Failure {
    Failure::internal(
        format!("{}: cannot {what}: {fault}", path.display()),
        "every file is whole in its old or its new version; mend this, then repeat the command",
    )
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A backup of the file, unless there is one already with the same content.
fn back_up(path: &Path, from: u32, watch: &mut dyn FnMut(Stage, &Path) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
    let mut backup = beside(path, &format!(".v{from}.bak"));
    for number in 2u64.. {
        match same(path, &backup) {
            Ok(true) => return Ok(backup),
            Ok(false) => backup = beside(path, &format!(".v{from}.{number}.bak")),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => break,
            Err(fault) => return Err(stopped(&backup, "be read", &fault)),
        }
    }
    let aside = beside(path, ".backing-up");
    let copy = || -> io::Result<()> {
        let mut file = make(&aside, path)?;
        // The kernel copies: what is in a keyring is not in memory of this process.
        io::copy(&mut File::open(path)?, &mut file)?;
        file.sync_all()
    };
    copy().map_err(|fault| stopped(&aside, "be written", &fault))?;
    watch(Stage::BackingUp, &aside)?;
    let install = || fs::rename(&aside, &backup).and_then(|()| File::open(directory_of(path))?.sync_all());
    install().map_err(|fault| stopped(&backup, "be made", &fault))?;
    Ok(backup)
}

/// An empty file with the permissions and the owner of another one, in place of what an interrupted run has left.
fn make(path: &Path, like: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let (wanted, is) = (fs::metadata(like)?, file.metadata()?);
    if (wanted.uid(), wanted.gid()) != (is.uid(), is.gid()) {
        fchown(&file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(wanted.mode() & 0o7777))?;
    Ok(file)
}

/// Whether two files have the same content. The second may be missing, which is the error.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut other, mut one) = (File::open(other)?, File::open(one)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut buffers = Zeroizing::new([vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]]);
    let [first, second] = &mut *buffers;
    loop {
        let read = one.read(first)?;
        if read == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut second[..read]) {
            Ok(()) if first[..read] == second[..read] => {}
            Ok(()) => return Ok(false),
            Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(fault) => return Err(fault),
        }
    }
}
