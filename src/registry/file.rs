//! The registry file of a running service: the last good topology stays in force whatever happens to the file.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Registry, RegistryFault};

/// What a reload changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The file says what is in force already.
    Unchanged,
    /// A newer version is in force now.
    Changed,
}

/// A registry file and the topology that was read from it last.
#[derive(Debug)]
pub struct RegistryFile {
    path: PathBuf,
    current: Arc<Registry>,
}

impl RegistryFile {
    /// Reads the file for the first time.
    pub fn open(path: &Path) -> Result<Self, RegistryFault> {
        Ok(Self { path: path.to_owned(), current: Arc::new(Registry::load(path)?) })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The topology in force.
    pub fn current(&self) -> &Arc<Registry> {
        &self.current
    }

    /// Reads the file again. After an error the topology in force is the one before.
    pub fn reload(&mut self) -> Result<Reloaded, RegistryFault> {
        let found = Registry::load(&self.path)?;
        if found == *self.current {
            return Ok(Reloaded::Unchanged);
        }
        let (current, found_version) = (self.current.version(), found.version());
        if found_version < current {
            return Err(RegistryFault::Older { current, found: found_version });
        }
        if found_version == current {
            return Err(RegistryFault::SameVersion(current));
        }
        self.current = Arc::new(found);
        Ok(Reloaded::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: u64, name: &str) -> String {
        format!(r#"{{"version":{version},"cells":[{{"name":"{name}","slots":[0,16383],"addresses":["http://h:1"]}}]}}"#)
    }

    #[test]
    fn the_last_good_topology_survives_every_bad_file() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("registry.json");
        std::fs::write(&path, text(2, "first")).unwrap();
        let mut file = RegistryFile::open(&path).unwrap();
        assert_eq!(file.reload().unwrap(), Reloaded::Unchanged);
        for bad in [text(1, "older"), text(2, "other"), text(0, "zero"), "garbage".to_owned()] {
            std::fs::write(&path, bad).unwrap();
            assert!(file.reload().is_err());
            assert_eq!((file.current().version(), file.current().cells()[0].name.as_str()), (2, "first"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.reload(), Err(RegistryFault::Io { .. })));
        std::fs::write(&path, text(3, "newer")).unwrap();
        assert_eq!(file.reload().unwrap(), Reloaded::Changed);
        assert_eq!(file.current().owner(0).name, "newer");
    }
}
