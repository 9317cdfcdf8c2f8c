//! Files that only their owner may touch: read into guarded memory, made without replacing anything, replaced as a whole.
//!
//! Invariants: a file that group or others can touch is not read; the open file is looked at, not its name; a new file appears under
//! its name complete or not at all, with mode 0600, and is on the disk, its name included, before the call returns.
//! Deliberately not known here: what is in the files.
use super::guarded::Guarded;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{fchown, DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest file that is read.
pub(super) const FILE_BYTES_MAX: usize = 64 << 10;
/// Permission bits of group and others.
const MODE_FOREIGN: u32 = 0o077;

/// What is in a file. One byte more than there may be, so that a longer file is noticed.
pub(super) type Text = [u8; FILE_BYTES_MAX + 1];

/// An empty buffer for a file.
pub(super) fn blank() -> Guarded<Text> {
    Guarded::new([0; FILE_BYTES_MAX + 1])
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum ReadFault {
    Missing,
    NotAFile,
    Exposed { mode: u32 },
    TooLong,
    Unreadable(io::Error),
}

/// Whether the permissions of a file are looked at: systemd guards the directory of its credentials, and shows an ACL as group bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    Mode,
    Directory,
}

/// Opens a file to be read, and looks at it.
pub(super) fn open(path: &Path, guard: Guard) -> Result<(File, Stamp), ReadFault> {
    // Opening a named pipe would wait for a writer; the flag makes it return so that the check below can refuse it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ReadFault::Missing),
        Err(error) => return Err(ReadFault::Unreadable(error)),
    };
    // The open file is looked at, not the name: nobody can swap it in between.
    let metadata = file.metadata().map_err(ReadFault::Unreadable)?;
    if !metadata.is_file() {
        return Err(ReadFault::NotAFile);
    }
    if guard == Guard::Mode && metadata.mode() & MODE_FOREIGN != 0 {
        return Err(ReadFault::Exposed { mode: metadata.mode() & 0o7777 });
    }
    Ok((file, Stamp::of(&metadata)))
}

/// Reads a file; the number of bytes that it has, and when it was last put there.
pub(super) fn read(path: &Path, guard: Guard, into: &mut Guarded<Text>) -> Result<(usize, Stamp), ReadFault> {
    let (mut file, stamp) = open(path, guard)?;
    let mut length = 0;
    while length < into.len() {
        match file.read(&mut into[length..]) {
            Ok(0) => return Ok((length, stamp)),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadFault::Unreadable(error)),
        }
    }
    Err(ReadFault::TooLong)
}

/// What tells one state of a file from another. A file that is replaced has another inode or another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    changed: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        }
    }

    /// That of the file which has this name now, if there is one that can be looked at.
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// The directory of a file.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a file unless there is one: if another process was faster, its file stays. A missing directory is made with mode 0700.
pub(super) fn make(path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    let directory = directory_of(path);
    make_directory(directory)?;
    let aside = write_aside(path, bytes, owner)?;
    let linked = match std::fs::hard_link(&aside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    };
    let removed = std::fs::remove_file(&aside);
    linked?;
    removed?;
    File::open(directory)?.sync_all()
}

/// Puts a file in the place of the one that is there; it belongs to the same user and group.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays one, and what it points to is replaced.
    let path = &std::fs::canonicalize(path)?;
    let aside = write_aside(path, bytes, Some(owner_of(path)?))?;
    if let Err(error) = std::fs::rename(&aside, path) {
        // The message tells what failed; what is left over is private as well.
        let _ = std::fs::remove_file(&aside);
        return Err(error);
    }
    File::open(directory_of(path))?.sync_all()
}

/// Makes a directory with mode 0700, and those above it, unless they are there. What root makes belongs to whoever has the directory in
/// which it is made.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists());
    let missing: Vec<&Path> = missing.collect();
    let heir = heir(directory)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    missing.iter().rev().try_for_each(|made| chown(&File::open(made)?, heir))
}

/// To whom a file has to belong that is written under this name: to the user and group of the file that is there, and else, if root writes it,
/// to those of its directory, or of the nearest that is there; none if it is for whoever writes it.
pub(super) fn heir(path: &Path) -> io::Result<Option<(u32, u32)>> {
    if path.exists() {
        return owner_of(path).map(Some);
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let mut above = std::path::absolute(path)?;
    while above.pop() {
        if above.exists() {
            return owner_of(&above).map(Some);
        }
    }
    Ok(None)
}

/// User and group of a file.
pub(super) fn owner_of(path: &Path) -> io::Result<(u32, u32)> {
    std::fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid()))
}

/// Writes a whole file beside its place, durably.
fn write_aside(path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<PathBuf> {
    let tag = getrandom::u64()?;
    let aside = directory_of(path).join(format!(".keyring-{tag:016x}.tmp"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = chown(&file, owner).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = std::fs::remove_file(&aside);
        return Err(error);
    }
    Ok(aside)
}

/// Root that changes the file of a service leaves it to the service.
pub(super) fn chown(file: &File, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((user, group)) = owner else { return Ok(()) };
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) == (user, group) {
        return Ok(());
    }
    fchown(file, Some(user), Some(group))
}
