//! A registry file as a source: it is read again when it has become another one.
use std::path::{Path, PathBuf};

use super::source::{Answer, SourceFault};
use super::Registry;
use crate::access::Stamp;

/// A registry file and the state of it that was taken last.
#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    /// That of the file which was read last.
    read: Option<Stamp>,
    /// That of the file which was taken last.
    taken: Option<Stamp>,
}

impl FileSource {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: None, taken: None }
    }

    /// What the file says, unless it is still the one that was taken; `in_any_case` reads it all the same.
    pub fn ask(&mut self, in_any_case: bool) -> Result<Answer, SourceFault> {
        // Taken before the file is read: what changes meanwhile is noticed by the next look.
        let stamp = Stamp::at(&self.path);
        if stamp.is_some() && stamp == self.taken && !in_any_case {
            return Ok(Answer::Unchanged);
        }
        self.read = stamp;
        Registry::load(&self.path).map(Answer::Topology).map_err(|fault| SourceFault::Refused(fault.to_string()))
    }

    /// What was read last has been taken.
    pub fn taken(&mut self) {
        self.taken = self.read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_until_it_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("registry.json");
        let text = |version| crate::registry::sample::text(version, "a");
        let mut file = FileSource::new(&path);
        assert!(matches!(file.ask(false), Err(SourceFault::Refused(why)) if why.contains("cannot read the registry")));
        std::fs::write(&path, text(1)).unwrap();
        let version = |answer| match answer {
            Ok(Answer::Topology(found)) => Some(found.version()),
            Ok(Answer::Unchanged) | Err(_) => None,
        };
        assert_eq!(version(file.ask(false)), Some(1));
        assert_eq!(version(file.ask(false)), Some(1), "nobody has taken it");
        file.taken();
        assert!(matches!(file.ask(false), Ok(Answer::Unchanged)));
        assert_eq!(version(file.ask(true)), Some(1));
        std::fs::write(&path, text(23)).unwrap();
        assert_eq!(version(file.ask(false)), Some(23));
        std::fs::remove_file(&path).unwrap();
        assert!(file.ask(false).is_err(), "a file that has gone is no unchanged one");
    }
}
