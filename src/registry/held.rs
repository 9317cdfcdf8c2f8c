//! The topology in force, and the rules by which another one takes its place: the last good one stays whatever comes.
use std::sync::Arc;

use super::{Registry, RegistryFault};

/// What a good topology has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is what is in force already.
    Unchanged,
    /// It is in force now.
    Changed,
}

/// The topology in force, once there was one.
#[derive(Clone, Debug, Default)]
pub struct Held(Option<Arc<Registry>>);

impl Held {
    /// The topology in force.
    pub fn current(&self) -> Option<&Arc<Registry>> {
        self.0.as_ref()
    }

    /// Puts this topology in force.
    ///
    /// # Errors
    /// If it is older than the one in force, or another one under the same version; that one then stays.
    pub fn take(&mut self, found: Registry) -> Result<Taken, RegistryFault> {
        if let Some(current) = self.0.as_deref() {
            if found == *current {
                return Ok(Taken::Unchanged);
            }
            let (current, found) = (current.version(), found.version());
            if found < current {
                return Err(RegistryFault::Older { current, found });
            }
            if found == current {
                return Err(RegistryFault::SameVersion(current));
            }
        }
        self.0 = Some(Arc::new(found));
        Ok(Taken::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::topology;
    use super::*;

    #[test]
    fn only_a_newer_version_takes_the_place_of_the_topology_in_force() {
        let mut held = Held::default();
        assert!(held.current().is_none());
        assert_eq!(held.take(topology(2, "first")).unwrap(), Taken::Changed);
        assert_eq!(held.take(topology(2, "first")).unwrap(), Taken::Unchanged);
        assert!(matches!(held.take(topology(1, "older")), Err(RegistryFault::Older { current: 2, found: 1 })));
        assert!(matches!(held.take(topology(2, "other")), Err(RegistryFault::SameVersion(2))));
        assert_eq!(held.current().unwrap().owner(0).name, "first");
        assert_eq!(held.take(topology(3, "newer")).unwrap(), Taken::Changed);
        assert_eq!(held.current().unwrap().owner(0).name, "newer");
    }
}
