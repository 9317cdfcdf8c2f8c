//! Segments allocated ahead: files full of real zeros, synced, waiting under a temporary name for their header.
//!
//! Invariants: at most one spare exists, and the next one is begun only when the last one has left the temporary name, which both
//! use; an allocation that fails leaves nothing behind and is tried again. Whether the lack of a
//! spare matters yet is for the log to say.
use super::layout::BLOCK_BYTES;
use super::storage::{Storage, StorageFile, TEMPORARY_SUFFIX};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much is written at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// How long to wait after a failed allocation.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// Name of the spare.
pub(crate) fn spare_name() -> String {
    format!("spare{TEMPORARY_SUFFIX}")
}

/// How the attempts to allocate segments went, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// The last one failed.
    starved: AtomicBool,
    /// How many have failed since the log was opened.
    failed: AtomicU64,
}

impl Attempts {
    fn note(&self, succeeded: bool) {
        self.starved.store(!succeeded, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(!succeeded), Ordering::Relaxed);
    }

    /// Whether the last attempt failed.
    pub(crate) fn starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// How many attempts have failed since the log was opened.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// How many times as long as a chunk took an allocation ahead rests before the next one: the disk belongs to the commits.
const REST: u32 = 2;

/// Writes and syncs a new spare. `gently` syncs every chunk and rests between them, so that a commit that is synced meanwhile waits
/// for one chunk at most, and seldom.
fn allocate<S: Storage>(storage: &S, segment_bytes: u64, gently: bool) -> io::Result<S::File> {
    let fill = |ahead: bool| {
        let file = if ahead { storage.create_unbuffered(&spare_name())? } else { storage.create(&spare_name())? };
        let room = vec![0; CHUNK_BYTES.min(segment_bytes as usize) + BLOCK_BYTES];
        let zeros = aligned(&room);
        let mut offset = 0;
        while offset < segment_bytes {
            let chunk = zeros.len().min((segment_bytes - offset) as usize);
            let began = Instant::now();
            file.write_at(&zeros[..chunk], offset)?;
            if gently {
                file.sync()?;
                std::thread::sleep(REST * began.elapsed());
            }
            offset += chunk as u64;
        }
        file.sync()?;
        storage.open(&spare_name())
    };
    assert_eq!(segment_bytes % BLOCK_BYTES as u64, 0);
    let filled = match fill(true) {
        // Not every file system can write past its cache.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fill(false),
        filled => filled,
    };
    filled.inspect_err(|_| {
        // Best effort: what stays is overwritten by the next attempt.
        let _ = storage.remove(&spare_name());
    })
}

/// The part of `room` that begins where a block may, without the block that this can cost.
fn aligned(room: &[u8]) -> &[u8] {
    let start = room.as_ptr().align_offset(BLOCK_BYTES);
    &room[start..start + room.len() - BLOCK_BYTES]
}

enum State<F> {
    Wanted,
    Ready(F),
    /// Handed out, and still under the temporary name.
    Taken,
    Failed(io::Error),
    Stopped,
}

struct Allocator<S: Storage> {
    storage: S,
    segment_bytes: u64,
    state: Mutex<State<S::File>>,
    changed: Condvar,
    attempts: Arc<Attempts>,
}

impl<S: Storage> Allocator<S> {
    fn run(&self) {
        let mut state = self.state.lock().expect("no thread panics while it holds the state");
        loop {
            match *state {
                State::Stopped => return,
                State::Ready(_) | State::Taken => {
                    state = self.changed.wait(state).expect("no thread panics while it holds the state");
                    continue;
                }
                State::Failed(_) => {
                    let waited = self.changed.wait_timeout(state, RETRY).expect("no thread panics while it holds the state");
                    state = waited.0;
                    if matches!(*state, State::Stopped) {
                        return;
                    }
                }
                State::Wanted => {}
            }
            drop(state);
            let allocated = allocate(&self.storage, self.segment_bytes, true);
            state = self.state.lock().expect("no thread panics while it holds the state");
            if matches!(*state, State::Stopped) {
                return;
            }
            if let (Err(error), State::Wanted) = (&allocated, &*state) {
                tracing::warn!(directory = %self.storage.place(""), %error, "could not allocate the next segment; trying again");
            }
            self.attempts.note(allocated.is_ok());
            *state = allocated.map_or_else(State::Failed, State::Ready);
            self.changed.notify_all();
        }
    }

    fn take(&self) -> io::Result<S::File> {
        let mut state = self.state.lock().expect("no thread panics while it holds the state");
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Ready(file) => return Ok(file),
                State::Failed(error) => {
                    let copy = io::Error::new(error.kind(), error.to_string());
                    *state = State::Failed(error);
                    return Err(copy);
                }
                State::Stopped => {
                    *state = State::Stopped;
                    return Err(io::Error::other("the log is being closed"));
                }
                State::Wanted => {
                    *state = State::Wanted;
                    state = self.changed.wait(state).expect("no thread panics while it holds the state");
                }
                State::Taken => panic!("the last spare has not been linked yet"),
            }
        }
    }

    fn linked(&self) {
        let mut state = self.state.lock().expect("no thread panics while it holds the state");
        assert!(matches!(*state, State::Taken), "only a spare that was taken can have been linked");
        *state = State::Wanted;
        self.changed.notify_all();
    }
}

/// Where the log gets its next segment from.
pub(crate) enum Spares<S: Storage> {
    /// Written when it is needed, by whoever needs it: for the first segment, and for single-threaded drivers.
    Inline { storage: S, segment_bytes: u64, attempts: Arc<Attempts> },
    /// Written ahead by a thread of its own.
    Ahead(Ahead<S>),
}

/// The allocator thread; it ends when this is dropped.
pub(crate) struct Ahead<S: Storage> {
    allocator: Arc<Allocator<S>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Storage> Spares<S> {
    /// No thread yet.
    pub(crate) fn inline(storage: S, segment_bytes: u64, attempts: Arc<Attempts>) -> Self {
        Spares::Inline { storage, segment_bytes, attempts }
    }

    /// From now on ahead, by a thread of its own.
    pub(crate) fn into_ahead(self) -> io::Result<Self> {
        let Spares::Inline { storage, segment_bytes, attempts } = self else { return Ok(self) };
        let (state, changed) = (Mutex::new(State::Wanted), Condvar::new());
        let allocator = Arc::new(Allocator { storage, segment_bytes, state, changed, attempts });
        let shared = Arc::clone(&allocator);
        let thread = std::thread::Builder::new().name("ledger-spares".into()).spawn(move || shared.run())?;
        Ok(Spares::Ahead(Ahead { allocator, thread: Some(thread) }))
    }

    /// The next spare; waits while it is being written. An error means that there is no room now.
    pub(crate) fn take(&mut self) -> io::Result<S::File> {
        match self {
            Spares::Inline { storage, segment_bytes, attempts } => {
                let allocated = allocate(storage, *segment_bytes, false);
                attempts.note(allocated.is_ok());
                allocated
            }
            Spares::Ahead(ahead) => ahead.allocator.take(),
        }
    }

    /// The spare that was taken has its own name now, durably: the temporary one is free again.
    pub(crate) fn linked(&mut self) {
        match self {
            Spares::Inline { .. } => {}
            Spares::Ahead(ahead) => ahead.allocator.linked(),
        }
    }
}

impl<S: Storage> Drop for Ahead<S> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.allocator.state.lock() {
            *state = State::Stopped;
        }
        self.allocator.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the allocator has been reported by its own thread; there is nothing to add.
            let _ = thread.join();
        }
    }
}
