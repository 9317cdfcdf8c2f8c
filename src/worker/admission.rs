//! A ceiling over all cores: on requests in flight, on open connections, and on bytes of large requests that are arriving.
//!
//! One shared counter each. That of requests is touched once when a request is admitted and once when it is answered. It is the only
//! thing on the spend path that cores share, because the ceiling of the runbook is one number for the whole service; an endpoint
//! with a ceiling of its own has one counter more.
use crate::api::Route;
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

/// The ceilings on requests in flight: one on all of them, and one of its own on each endpoint that is given one.
pub struct Ceilings {
    all: Admission,
    own: [Option<Admission>; Route::ALL.len()],
}

impl Ceilings {
    /// Nothing in flight. `own` is the ceiling of an endpoint, if it has one of its own.
    pub fn new(all: usize, own: impl Fn(Route) -> Option<usize>) -> Self {
        Self { all: Admission::new(all), own: Route::ALL.map(|route| own(route).map(Admission::new)) }
    }

    /// Admits one more request of an endpoint if there is room under both.
    ///
    /// # Errors
    /// Where there is none, for the client.
    pub fn admit(&self, route: Route) -> Result<(), &'static str> {
        let own = self.own[route as usize].as_ref();
        if own.is_some_and(|own| !own.admit()) {
            return Err("too many requests of this endpoint in flight; retry after a moment");
        }
        if !self.all.admit() {
            own.inspect(|own| own.release(1));
            return Err("too many requests in flight; retry after a moment");
        }
        Ok(())
    }

    /// Gives the room of a request that has ended back.
    pub fn release(&self, route: Route) {
        self.own[route as usize].iter().for_each(|own| own.release(1));
        self.all.release(1);
    }

    /// That on all requests.
    pub fn all(&self) -> &Admission {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_with_a_ceiling_of_its_own_leaves_room_for_the_others() {
        let ceilings = Ceilings::new(3, |route| (route == Route::Entries).then_some(1));
        ceilings.admit(Route::Entries).unwrap();
        assert!(ceilings.admit(Route::Entries).unwrap_err().contains("of this endpoint"));
        assert_eq!(ceilings.all().in_flight(), 1, "what was not admitted takes no room");
        [Route::Transfer, Route::Balance].into_iter().for_each(|route| ceilings.admit(route).unwrap());
        ceilings.release(Route::Entries);
        ceilings.admit(Route::Transfer).unwrap();
        // Neither ceiling keeps what the other one refused.
        assert!(ceilings.admit(Route::Entries).unwrap_err().starts_with("too many requests in flight"));
        ceilings.release(Route::Transfer);
        ceilings.admit(Route::Entries).unwrap();
    }

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
