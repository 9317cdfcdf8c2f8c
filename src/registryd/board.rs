//! The topology that is served, and those who wait for another one.
use crate::registry::Registry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest time for which anybody waits for another topology.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two looks whether somebody who waits is still there.
const GONE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A topology as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// Its entity tag, with the quotes.
    pub tag: String,
    /// The JSON.
    pub body: Arc<[u8]>,
}

impl Published {
    fn of(topology: &Registry) -> Self {
        let body = serde_json::to_vec(topology).expect("a registry is plain data");
        // The version says it to people; the hash also tells one content from another.
        let tag = format!("\"{}-{}\"", topology.version(), &blake3::hash(&body).to_hex()[..16]);
        Self { tag, body: body.into() }
    }
}

/// What is served now.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    published: Published,
    ending: bool,
}

impl Board {
    pub fn new(topology: &Registry) -> Self {
        Self { state: Mutex::new(State { published: Published::of(topology), ending: false }), changed: Condvar::new() }
    }

    /// Serves this topology from now on, and wakes all that wait for it.
    pub fn publish(&self, topology: &Registry) {
        self.state().published = Published::of(topology);
        self.changed.notify_all();
    }

    /// Nobody waits any more.
    pub fn end(&self) {
        self.state().ending = true;
        self.changed.notify_all();
    }

    /// What is served now, if its tag is not `known`; otherwise as soon as there is something else, but not for longer than `wait`, and
    /// only while `is_there` says that there is somebody to tell. `None` if there is nothing else.
    pub fn other_than(&self, known: impl Fn(&str) -> bool, wait: Duration, is_there: impl Fn() -> bool) -> Option<Published> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let mut state = self.state();
        loop {
            if !known(&state.published.tag) {
                return Some(state.published.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ending || !is_there() {
                return None;
            }
            state = self.changed.wait_timeout(state, left.min(GONE_LOOK_EVERY)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The tag of what is served now.
    pub fn tag(&self) -> String {
        self.state().published.tag.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::sample::topology;

    #[test]
    fn tags_tell_versions_and_contents_apart() {
        let tags = [(1, "a"), (2, "a"), (1, "b")].map(|(version, name)| Published::of(&topology(version, name)).tag);
        assert!(tags[0] != tags[1] && tags[0] != tags[2] && tags[0].starts_with("\"1-"), "{tags:?}");
        assert_eq!(Registry::parse(&Published::of(&topology(1, "a")).body).unwrap(), topology(1, "a"));
    }

    #[test]
    fn whoever_waits_is_woken_by_a_change_an_end_or_its_time() {
        let board = Board::new(&topology(1, "a"));
        let known = board.tag();
        let hour = Duration::from_secs(3_600);
        assert!(board.other_than(|_| false, hour, || true).is_some(), "what is not known is told at once");
        assert!(board.other_than(|tag| tag == known, Duration::ZERO, || true).is_none());
        assert!(board.other_than(|tag| tag == known, hour, || false).is_none(), "there is nobody to tell");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.other_than(|tag| tag == known, hour, || true));
            board.publish(&topology(2, "a"));
            assert!(waiting.join().unwrap().is_some_and(|other| other.tag.starts_with("\"2-")));
            let newer = board.tag();
            let waiting = scope.spawn(|| board.other_than(move |tag| tag == newer, hour, || true));
            board.end();
            assert!(waiting.join().unwrap().is_none());
        });
    }
}
