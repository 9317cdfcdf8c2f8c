//! Files that only their owner may touch, opened to be read.
//!
//! Invariants: a file that group or others can touch is not read; the open file is looked at, not its name.
//! Deliberately not known here: what is in the files.
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Permission bits of group and others.
const MODE_FOREIGN: u32 = 0o077;

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum ReadFault {
    Missing,
    NotAFile,
    Exposed { mode: u32 },
    Unreadable(io::Error),
}

/// Opens a file to be read, and looks at it.
pub(super) fn open(path: &Path) -> Result<File, ReadFault> {
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
    if metadata.mode() & MODE_FOREIGN != 0 {
        return Err(ReadFault::Exposed { mode: metadata.mode() & 0o7777 });
    }
    Ok(file)
}

/// The directory of a file.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
