//! Files that somebody keeps to check the server by: a root, public keys. What is in one is worth more than what is written to it.
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::access::directory_of;

/// Puts these bytes in the place of what is in a file, whole and durably: of the old and the new, one is always there.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays one, and what it points to is replaced.
    let file = &fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = fs::write(&partial, bytes).and_then(|()| File::open(&partial)?.sync_all());
    let done = written.and_then(|()| fs::rename(&partial, file)).and_then(|()| File::open(directory_of(file))?.sync_all());
    if done.is_err() {
        // The message tells what failed; a remainder under this name is overwritten by the next attempt.
        let _ = fs::remove_file(&partial);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_replaced_stays_as_it_is_and_a_link_stays_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (file, link) = (place.path().join("kept"), place.path().join("link"));
        replace(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(link.is_symlink());
        // Something stands where the new one would be written.
        fs::create_dir(place.path().join("kept.partial")).unwrap();
        assert!(replace(&link, b"three").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"two");
    }
}
