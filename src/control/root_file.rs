//! The file of signed roots: one JSON line for each, in their order, as the server answers a question about a root.
//!
//! Invariants: mode 0600; a line is on the disk before the call returns; the file has at most twice as many lines as roots are kept, and is
//! then written anew with those, as a whole. What is in it is worth no trouble: lines that cannot be read are left out, what an
//! interrupted write has left is cut off, and roots that are lost are signed anew.
use crate::access::{directory_of, SignedRoot, ROOTS_MAX};
use crate::api::proof::CurrentRootBody;
use crate::domain::LogId;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest file that is read, in bytes; what is written stays below.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Lines after which the file is written anew.
const LINES_MAX: usize = 2 * ROOTS_MAX;

/// The open file.
pub(super) struct RootFile {
    path: PathBuf,
    log_id: LogId,
    /// `None` before the first write, and after one that failed.
    file: Option<File>,
    lines: usize,
}

/// What was in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The roots of this ledger, in their order.
    pub roots: Vec<SignedRoot>,
    /// Lines that are none of these.
    pub left_out: usize,
}

impl RootFile {
    /// Reads what is there.
    ///
    /// # Errors
    /// If there is a file and it cannot be read. It is then written anew.
    pub fn open(path: PathBuf, log_id: LogId) -> (Self, io::Result<Kept>) {
        let found = match read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::default()),
            found => found.map(|bytes| parse(&bytes, log_id)),
        };
        (Self { path, log_id, file: None, lines: 0 }, found)
    }

    /// Adds the last one of these roots. If the file cannot simply grow by it, it is written anew with all of them.
    ///
    /// # Errors
    /// If that cannot be; the next call writes the file anew.
    pub fn append(&mut self, roots: &[Arc<SignedRoot>]) -> io::Result<()> {
        let (Some(mut file), Some(last)) = (self.file.take().filter(|_| self.lines < LINES_MAX), roots.last()) else {
            return self.write_anew(roots);
        };
        file.write_all(&self.line(last))?;
        file.sync_data()?;
        (self.file, self.lines) = (Some(file), self.lines + 1);
        Ok(())
    }

    /// Puts these roots in the place of what is there.
    ///
    /// # Errors
    /// If that cannot be; what was there still is.
    pub fn write_anew(&mut self, roots: &[Arc<SignedRoot>]) -> io::Result<()> {
        self.file = None;
        let partial = with_ending(&self.path, ".partial");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let lines: Vec<u8> = roots.iter().flat_map(|root| self.line(root)).collect();
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&partial, &self.path)?;
        self.sync_directory()?;
        // It is the file under the new name, open behind its last line.
        (self.file, self.lines) = (Some(file), roots.len());
        Ok(())
    }

    /// Puts what is there aside, in the place of what was put there before, and returns the name.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn put_aside(&mut self) -> io::Result<PathBuf> {
        self.file = None;
        let aside = with_ending(&self.path, ".other");
        fs::rename(&self.path, &aside)?;
        self.sync_directory()?;
        Ok(aside)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn line(&self, root: &SignedRoot) -> Vec<u8> {
        let body = CurrentRootBody::signed(self.log_id, root);
        let mut line = serde_json::to_vec(&body).expect("texts, numbers and lists of them are always JSON");
        line.push(b'\n');
        line
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(directory_of(&self.path))?.sync_all()
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], log_id: LogId) -> Kept {
    let mut kept = Kept::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let next = signed_root(line, log_id).filter(|_| line.ends_with(b"\n"));
        let next = next.filter(|next| kept.roots.last().map_or(true, |last| last.root.size < next.root.size));
        match next {
            Some(root) => kept.roots.push(root),
            None => kept.left_out += 1,
        }
    }
    kept
}

fn signed_root(line: &[u8], log_id: LogId) -> Option<SignedRoot> {
    let body: CurrentRootBody = serde_json::from_slice(line).ok()?;
    let (found, root) = body.read().ok()?;
    let [signature] = <[_; 1]>::try_from(body.root.signatures).ok()?;
    (found == log_id).then_some(SignedRoot { root, signature })
}

/// What must hold of such a file, whatever is in it; `src/fuzzing.rs` feeds it.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::*;
    use crate::access::WrittenSignature;
    use crate::domain::{HistoryRoot, Seq};

    const LOG: LogId = LogId([7; 16]);

    fn written(roots: &[SignedRoot]) -> Vec<u8> {
        let (file, _) = RootFile::open(PathBuf::new(), LOG);
        roots.iter().flat_map(|root| file.line(root)).collect()
    }

    /// Every line is kept or left out, roots only grow, and what is kept is read again the same.
    pub(crate) fn roots(input: &[u8]) {
        let Kept { roots, left_out } = parse(input, LOG);
        assert_eq!(roots.len() + left_out, input.split_inclusive(|byte| *byte == b'\n').count());
        assert!(roots.windows(2).all(|pair| pair[0].root.size < pair[1].root.size));
        let again = parse(&written(&roots), LOG);
        assert_eq!(again, Kept { roots, left_out: 0 });
    }

    /// Inputs from which a fuzzer of [`roots`] begins.
    pub(crate) fn roots_seeds() -> Vec<Vec<u8>> {
        let root = |size: u64, ml_dsa_65: Option<&str>| {
            let ml_dsa_65 = ml_dsa_65.map(str::to_owned);
            let signature = WrittenSignature { key: "k-1".to_owned(), ts: size, ed25519: "AA".to_owned(), ml_dsa_65 };
            SignedRoot { root: HistoryRoot { size, through: Seq(2 * size), hash: [size as u8; 32] }, signature }
        };
        let whole = written(&[root(2, None), root(5, Some("BB")), root(u64::MAX / 2, None)]);
        let torn = whole[..whole.len() - 9].to_vec();
        vec![whole, torn, b"\n\n{}\n".to_vec()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::WrittenSignature;
    use crate::domain::{HistoryRoot, Seq};
    use std::os::unix::fs::PermissionsExt;

    const LOG: LogId = LogId([7; 16]);

    fn root(size: u64) -> Arc<SignedRoot> {
        let signature = WrittenSignature { key: "k-1".to_owned(), ts: size, ed25519: "AA".to_owned(), ml_dsa_65: None };
        Arc::new(SignedRoot { root: HistoryRoot { size, through: Seq(2 * size), hash: [size as u8; 32] }, signature })
    }

    fn sizes(path: &Path) -> (Vec<u64>, usize) {
        let (_, kept) = RootFile::open(path.to_owned(), LOG);
        let kept = kept.unwrap();
        (kept.roots.iter().map(|signed| signed.root.size).collect(), kept.left_out)
    }

    #[test]
    fn what_was_added_is_read_back_and_only_its_owner_may() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ledger.roots");
        let (mut file, kept) = RootFile::open(path.clone(), LOG);
        assert_eq!(kept.unwrap(), Kept::default());
        let roots = [root(2), root(5), root(9)];
        for count in 1..=3 {
            file.append(&roots[..count]).unwrap();
        }
        let (mut again, kept) = RootFile::open(path.clone(), LOG);
        assert_eq!(kept.unwrap().roots.iter().collect::<Vec<_>>(), roots.iter().map(|root| &**root).collect::<Vec<_>>());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_, of_another) = RootFile::open(path.clone(), LogId([8; 16]));
        assert_eq!(of_another.unwrap(), Kept { roots: Vec::new(), left_out: 3 });
        let aside = again.put_aside().unwrap();
        assert_eq!((sizes(&aside), sizes(&path)), ((vec![2, 5, 9], 0), (vec![], 0)));
        again.append(&roots[2..]).unwrap();
        assert_eq!(sizes(&path), (vec![9], 0));
    }

    #[test]
    fn no_cut_and_no_damage_of_the_file_is_fatal() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ledger.roots");
        RootFile::open(path.clone(), LOG).0.write_anew(&[root(1), root(2), root(3)]).unwrap();
        let whole = fs::read(&path).unwrap();
        let line = whole.len() / 3;
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let rest = usize::from(end % line != 0);
            assert_eq!(sizes(&path), ((1..=(end / line) as u64).collect(), rest), "{end}");
            let (mut file, kept) = RootFile::open(path.clone(), LOG);
            let mut roots: Vec<_> = kept.unwrap().roots.into_iter().map(Arc::new).collect();
            roots.push(root(4));
            file.append(&roots).unwrap();
            assert_eq!(sizes(&path).1, 0, "what was torn is cut off");
            assert_eq!(sizes(&path).0.last(), Some(&4));
        }
        for (bad, good) in [
            (whole.iter().map(|byte| byte ^ 1).collect(), vec![]),
            ([&whole[line..], &whole[..line]].concat(), vec![2, 3]),
            ([b"{}\n\n", &whole[..line], b"\xff\n", &whole[line..]].concat(), vec![1, 2, 3]),
        ] {
            fs::write(&path, &bad).unwrap();
            assert_eq!(sizes(&path).0, good);
        }
        fs::write(&path, vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(RootFile::open(path, LOG).1.is_err());
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ledger.roots");
        let (mut file, _) = RootFile::open(path.clone(), LOG);
        file.write_anew(&(1..=LINES_MAX as u64).map(root).collect::<Vec<_>>()).unwrap();
        let kept: Vec<_> = (LINES_MAX as u64 - 5..=LINES_MAX as u64 + 1).map(root).collect();
        file.append(&kept).unwrap();
        assert_eq!(sizes(&path).0.len(), kept.len());
        file.append(&[root(9_000)]).unwrap();
        assert_eq!(sizes(&path).0.len(), kept.len() + 1);
    }

    /// The largest lines, of a hybrid key, as many as there can be, can still be read.
    #[test]
    fn what_is_written_stays_below_what_is_read() {
        let mut large = SignedRoot::clone(&root(1));
        (large.root.size, large.root.through, large.signature.ts) = (u64::MAX, Seq(u64::MAX), u64::MAX);
        large.signature.key = "k".repeat(32);
        large.signature.ed25519 = "A".repeat(86);
        large.signature.ml_dsa_65 = Some("A".repeat(4412));
        let (file, _) = RootFile::open(PathBuf::from("none"), LOG);
        assert!((file.line(&large).len() * LINES_MAX) as u64 <= FILE_BYTES_MAX);
    }
}
