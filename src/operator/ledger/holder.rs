//! Which process has a ledger's directory: what the kernel says about the lock of the file `lock`, for a message that a person can act on.
//!
//! Only a remark. Who may use the directory is decided by the lock itself.
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the kernel lists the locks of files (proc(5)).
const LOCKS: &str = "/proc/locks";

/// Name and number of the process that holds the lock of a ledger's directory, as far as that can be seen from here.
pub(super) fn holder(directory: &Path) -> Option<String> {
    let lock = std::fs::metadata(directory.join("lock")).ok()?;
    let pid = locker(&std::fs::read_to_string(LOCKS).ok()?, lock.ino())?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = crate::operator::output::printable(name.trim());
    Some(if name.is_empty() { format!("process {pid}") } else { format!("{name} (process {pid})") })
}

/// The one process that has a lock of the whole file with this inode number. The number of the device is not compared: file systems
/// that have no device of their own show another one here than they do elsewhere.
fn locker(locks: &str, inode: u64) -> Option<u32> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, kind, _, _, pid, file, ..] = fields[..] else { return None };
        let here = kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode);
        here.then(|| pid.parse().ok()).flatten()
    };
    let mut found = locks.lines().filter_map(of).filter(|pid| *pid > 0);
    // Two are files of two devices, and which of them is meant is not known.
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_found_by_the_file_that_it_has_locked() {
        let locks = "1: POSIX  ADVISORY  WRITE 71 fd:00:900 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fd:00:900 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 5 fd:00:901 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 6 fd:00:902 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 7 fd:00:903 0 EOF\n5: FLOCK  ADVISORY  WRITE 8 fd:01:903 0 EOF\n\
                     6: FLOCK  ADVISORY  WRITE 0 fd:01:904 0 EOF\nnonsense\n";
        for (inode, pid) in [(900, Some(4711)), (901, Some(5)), (902, None), (903, None), (904, None), (905, None)] {
            assert_eq!(locker(locks, inode), pid, "{inode}");
        }
    }

    #[test]
    fn a_directory_that_nobody_has_has_no_holder() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(holder(place.path()), None);
        std::fs::write(place.path().join("lock"), "").unwrap();
        assert_eq!(holder(place.path()), None);
    }
}
