//! Where the control thread puts what is in force, and every core finds it.
//!
//! What is put there never changes. A core compares one number before each request and takes what is new: from the moment on at which it
//! is put, no request on any core begins under what was there before.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is in force, by a number that only grows.
#[derive(Debug)]
pub struct Board<T> {
    /// The number, for a look without the lock.
    epoch: AtomicU64,
    held: Mutex<(u64, Arc<T>)>,
}

impl<T: Default> Default for Board<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Board<T> {
    /// With this in force.
    pub fn new(first: T) -> Self {
        Self { epoch: AtomicU64::new(1), held: Mutex::new((1, Arc::new(first))) }
    }

    /// Puts something else in force.
    pub fn put(&self, next: T) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = held.0 + 1;
        *held = (epoch, Arc::new(next));
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The number of what is in force; never 0.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What is in force and its number.
    pub fn current(&self) -> (u64, Arc<T>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_put_has_its_own_number() {
        let board = Board::<u8>::default();
        let mut seen = vec![board.epoch()];
        for next in 1..4 {
            board.put(next);
            assert_eq!(board.current(), (board.epoch(), Arc::new(next)));
            seen.push(board.epoch());
        }
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]) && seen[0] > 0, "{seen:?}");
    }
}
