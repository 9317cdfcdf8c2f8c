//! A ceiling over all cores: on requests in flight, on open connections, and on bytes of large requests that are arriving.
//!
//! One shared counter each. That of requests is touched once when a request is admitted and once when it is answered. It is the only
//! thing on the spend path that cores share, because the ceiling of the runbook is one number for the whole service.
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is admitted and refuses what is above the ceiling.
pub struct Admission {
    in_flight: AtomicUsize,
    ceiling: usize,
}

impl Admission {
    /// Nothing in flight.
    pub fn new(ceiling: usize) -> Self {
        Self { in_flight: AtomicUsize::new(0), ceiling }
    }

    /// Admits one more if there is room.
    pub fn admit(&self) -> bool {
        self.admit_many(1)
    }

    /// Admits so many more if there is room for all of them.
    pub fn admit_many(&self, count: usize) -> bool {
        let before = self.in_flight.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) <= self.ceiling {
            return true;
        }
        self.in_flight.fetch_sub(count, Ordering::Relaxed);
        false
    }

    /// Gives the room of what has ended back.
    pub fn release(&self, count: usize) {
        let before = self.in_flight.fetch_sub(count, Ordering::Relaxed);
        assert!(before >= count, "only what was admitted is released");
    }

    /// How many are admitted at most.
    pub fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// How many are admitted now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_holds_and_room_comes_back() {
        let admission = Admission::new(2);
        assert!(admission.admit() && admission.admit() && !admission.admit());
        admission.release(1);
        assert!(admission.admit() && !admission.admit());
        assert_eq!(admission.in_flight(), 2);
        assert!(!admission.admit_many(1) && admission.admit_many(0));
        admission.release(2);
        assert!(!admission.admit_many(3) && admission.admit_many(2));
        assert_eq!(admission.in_flight(), 2, "what was not admitted takes no room");
    }
}
