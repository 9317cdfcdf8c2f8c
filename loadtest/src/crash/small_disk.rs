//! A file system of its own that is small enough to be filled up, with other files, by a test.
//!
//! Mounts are made in a name space of this process and what it starts, so that the system takes them away with the last of them,
//! whatever becomes of this one. Ext4 on a loop device where that can be had, or else a tmpfs with a limit of its size.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{fallocate, FallocateFlags};

use crate::fault::Fault;

/// Set for the process that has a name space of mounts of its own.
const PRIVATE: &str = "LOADTEST_PRIVATE_MOUNTS";
/// Room for each round of a ledger's life: the segment in use, the next one, snapshots and indexes.
const BYTES_PER_ROUND: u64 = 48 << 20;
/// And room besides.
const BYTES_LEAST: u64 = 64 << 20;
/// The pieces by which it is filled up, in bytes: from large ones to single blocks.
const PIECES: [u64; 4] = [64 << 20, 4 << 20, 256 << 10, 4 << 10];

/// A mounted file system; it is unmounted when this value is dropped.
pub struct SmallDisk {
    at: PathBuf,
    kind: &'static str,
}

/// Whether file systems may be mounted here. If only a name space of its own is missing, this program is started again in one, and
/// this call does not return.
///
/// # Errors
/// Why they may not.
pub fn permitted() -> Result<(), String> {
    if std::env::var_os(PRIVATE).is_some() {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        return SmallDisk::mount(place.path(), 1).map(drop);
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    tell("unshare", unshare().arg("true").output())?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let error = unshare().arg(own).args(std::env::args_os().skip(1)).env(PRIVATE, "1").exec();
    Err(format!("unshare: {error}"))
}

impl SmallDisk {
    /// Mounts one below this directory, with room for so many rounds.
    ///
    /// # Errors
    /// What the system said.
    pub fn mount(place: &Path, rounds: u64) -> Result<SmallDisk, String> {
        let at = place.join("small-disk");
        fs::create_dir(&at).map_err(|error| format!("making {}: {error}", at.display()))?;
        let bytes = BYTES_LEAST + rounds * BYTES_PER_ROUND;
        let on_loop = ext4(&place.join("small-disk.img"), &at, bytes).map(|()| "ext4 on a loop device");
        let limited = |refused: String| {
            let size = format!("size={bytes}");
            let mounted = tell("mount", Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output());
            mounted.map(|()| "tmpfs with a limit").map_err(|also| format!("{refused}; {also}"))
        };
        let kind = on_loop.or_else(limited)?;
        Ok(SmallDisk { at, kind })
    }

    /// What it is.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Where a ledger lies on it.
    pub fn ledger(&self) -> PathBuf {
        self.at.join("ledger")
    }

    /// Fills up whatever room there is.
    ///
    /// # Errors
    /// [`Fault::Io`] for anything but the lack of room.
    pub fn fill(&self) -> Result<(), Fault> {
        let file = File::options().create(true).append(true).open(self.filler()).map_err(Fault::io("filling up a disk"))?;
        let mut bytes = file.metadata().map_err(Fault::io("filling up a disk"))?.len();
        for piece in PIECES {
            loop {
                match fallocate(&file, FallocateFlags::empty(), bytes, piece) {
                    Ok(()) => bytes += piece,
                    Err(rustix::io::Errno::NOSPC) => break,
                    Err(error) => return Err(Fault::io("filling up a disk")(io::Error::from(error))),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn make_room(&self) -> Result<(), Fault> {
        fs::remove_file(self.filler()).map_err(Fault::io("making room on a disk"))
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still writes to it ends with the name space, and so does a mount that cannot be undone here.
        let _ends_with_the_name_space = Command::new("umount").arg(&self.at).output();
    }
}

fn ext4(image: &Path, at: &Path, bytes: u64) -> Result<(), String> {
    let made = File::create(image).and_then(|file| file.set_len(bytes));
    made.map_err(|error| format!("making {}: {error}", image.display()))?;
    let arguments = ["-q", "-F", "-m", "0"].map(OsStr::new);
    tell("mkfs.ext4", Command::new("mkfs.ext4").args(arguments).arg(image).output())?;
    tell("mount", Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).output())
}

fn tell(program: &str, output: io::Result<std::process::Output>) -> Result<(), String> {
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {} {lines}", output.status))
    }
}
