//! Segments allocated ahead: files full of real zeros, synced, waiting under a temporary name for their header.
//!
//! Invariants: at most one spare exists, and the next one is begun only when the last one has left the temporary name, which both
//! use; an allocation that fails leaves nothing behind and is tried again; one that is waited for no longer rests, and one that
//! nobody needs any more ends with its chunk. Whether the lack of a spare matters yet is for the log to say.
use super::layout::BLOCK_BYTES;
use super::storage::{aligned_start, Storage, StorageFile, TEMPORARY_SUFFIX};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
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
    /// The last one failed. Whoever allocates tries again by itself.
    starved: AtomicBool,
    /// There was no room for the mark that names the segment, when one was to be written last. Whoever appends or takes a new epoch
    /// tries again, and nobody else.
    unmarked: AtomicBool,
    /// How many have failed since the log was opened, of either kind.
    failed: AtomicU64,
}

impl Attempts {
    pub(crate) fn note(&self, succeeded: bool) {
        self.starved.store(!succeeded, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(!succeeded), Ordering::Relaxed);
    }

    /// There was room for a mark, or there was none.
    pub(crate) fn note_mark(&self, written: bool) {
        self.unmarked.store(!written, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(!written), Ordering::Relaxed);
    }

    /// Whether there was no room for the next segment, or for its mark, when that was tried last.
    pub(crate) fn starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed) || self.unmarked.load(Ordering::Relaxed)
    }

    /// How many attempts have failed since the log was opened.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// How many times as long as a chunk took an allocation ahead rests before the next one: the disk belongs to the commits.
const REST: u32 = 2;

/// How an allocation goes on after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Each chunk is synced, and followed by a rest: a commit that is synced meanwhile waits for one chunk at most, and seldom.
    Gentle,
    /// A commit waits for the spare: one sync at the end, and no rest.
    Hurried,
    /// The log is being closed: no further chunk.
    Stopped,
}

/// Writes and syncs a new spare; after each chunk at the pace of this allocator, or hurried if there is none.
fn allocate<S: Storage>(storage: &S, segment_bytes: u64, allocator: Option<&Allocator<S>>) -> io::Result<S::File> {
    let fill = |ahead: bool| {
        let file = if ahead { storage.create_unbuffered(&spare_name())? } else { storage.create(&spare_name())? };
        let room = vec![0; CHUNK_BYTES.min(segment_bytes as usize) + BLOCK_BYTES];
        let zeros = &room[aligned_start(&room)..][..room.len() - BLOCK_BYTES];
        let mut offset = 0;
        while offset < segment_bytes {
            let chunk = zeros.len().min((segment_bytes - offset) as usize);
            let began = Instant::now();
            file.write_at(&zeros[..chunk], offset)?;
            offset += chunk as u64;
            let Some(allocator) = allocator else { continue };
            if allocator.pace() == Pace::Gentle {
                file.sync()?;
                allocator.rest(REST * began.elapsed());
            }
            // Asked anew: this may be what has ended the rest.
            if allocator.pace() == Pace::Stopped {
                return Err(closing());
            }
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

fn closing() -> io::Error {
    io::Error::other("the log is being closed")
}

enum State<F> {
    Wanted,
    Ready(F),
    /// Handed out, and still under the temporary name.
    Taken,
    Failed(io::Error),
    Stopped,
}

/// What the allocator and the log tell each other.
struct Slot<F> {
    state: State<F>,
    /// The log has asked for a spare and has not got one yet.
    awaited: bool,
}

impl<F> Slot<F> {
    fn pace(&self) -> Pace {
        match (&self.state, self.awaited) {
            (State::Stopped, _) => Pace::Stopped,
            (State::Wanted | State::Failed(_) | State::Ready(_) | State::Taken, true) => Pace::Hurried,
            (State::Wanted | State::Failed(_) | State::Ready(_) | State::Taken, false) => Pace::Gentle,
        }
    }
}

struct Allocator<S: Storage> {
    storage: S,
    segment_bytes: u64,
    slot: Mutex<Slot<S::File>>,
    changed: Condvar,
    attempts: Arc<Attempts>,
}

impl<S: Storage> Allocator<S> {
    fn new(storage: S, segment_bytes: u64, attempts: Arc<Attempts>) -> Self {
        let slot = Mutex::new(Slot { state: State::Wanted, awaited: false });
        Self { storage, segment_bytes, slot, changed: Condvar::new(), attempts }
    }

    fn slot(&self) -> MutexGuard<'_, Slot<S::File>> {
        self.slot.lock().expect("no thread panics while it holds the slot")
    }

    fn wait<'a>(&self, slot: MutexGuard<'a, Slot<S::File>>) -> MutexGuard<'a, Slot<S::File>> {
        self.changed.wait(slot).expect("no thread panics while it holds the slot")
    }

    fn pace(&self) -> Pace {
        self.slot().pace()
    }

    /// Leaves the disk to the commits for so long, unless one of them comes to wait for the spare, or the log is closed.
    fn rest(&self, rest: Duration) {
        let gentle = |slot: &mut Slot<S::File>| slot.pace() == Pace::Gentle;
        drop(self.changed.wait_timeout_while(self.slot(), rest, gentle).expect("no thread panics while it holds the slot"));
    }

    fn run(&self) {
        let mut slot = self.slot();
        loop {
            match slot.state {
                State::Stopped => return,
                State::Ready(_) | State::Taken => {
                    slot = self.wait(slot);
                    continue;
                }
                State::Failed(_) => {
                    let open = |slot: &mut Slot<S::File>| slot.pace() != Pace::Stopped;
                    let waited = self.changed.wait_timeout_while(slot, RETRY, open);
                    slot = waited.expect("no thread panics while it holds the slot").0;
                    if matches!(slot.state, State::Stopped) {
                        return;
                    }
                }
                State::Wanted => {}
            }
            drop(slot);
            let allocated = allocate(&self.storage, self.segment_bytes, Some(self));
            slot = self.slot();
            if matches!(slot.state, State::Stopped) {
                return;
            }
            if let (Err(error), State::Wanted) = (&allocated, &slot.state) {
                tracing::warn!(event = "allocation_failed", directory = %self.storage.place(""), %error,
                    "could not allocate the next segment; trying again");
            }
            self.attempts.note(allocated.is_ok());
            slot.state = allocated.map_or_else(State::Failed, State::Ready);
            self.changed.notify_all();
        }
    }

    fn take(&self) -> io::Result<S::File> {
        let mut slot = self.slot();
        loop {
            match std::mem::replace(&mut slot.state, State::Taken) {
                State::Ready(file) => {
                    slot.awaited = false;
                    return Ok(file);
                }
                State::Failed(error) => {
                    let copy = io::Error::new(error.kind(), error.to_string());
                    (slot.state, slot.awaited) = (State::Failed(error), true);
                    return Err(copy);
                }
                State::Stopped => {
                    slot.state = State::Stopped;
                    return Err(closing());
                }
                State::Wanted => {
                    (slot.state, slot.awaited) = (State::Wanted, true);
                    // The allocator may be resting.
                    self.changed.notify_all();
                    slot = self.wait(slot);
                }
                State::Taken => panic!("the last spare has not been linked yet"),
            }
        }
    }

    fn linked(&self) {
        let mut slot = self.slot();
        assert!(matches!(slot.state, State::Taken), "only a spare that was taken can have been linked");
        slot.state = State::Wanted;
        self.changed.notify_all();
    }

    fn stop(&self) {
        if let Ok(mut slot) = self.slot.lock() {
            slot.state = State::Stopped;
        }
        self.changed.notify_all();
    }
}

/// Where the log gets its next segment from.
pub(crate) enum Spares<S: Storage> {
    /// Written when it is needed, by whoever needs it, or before at its word: for the first segment, and for single-threaded drivers.
    Inline { storage: S, segment_bytes: u64, attempts: Arc<Attempts>, ready: Option<S::File> },
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
        Spares::Inline { storage, segment_bytes, attempts, ready: None }
    }

    /// From now on ahead, by a thread of its own.
    pub(crate) fn into_ahead(self) -> io::Result<Self> {
        let Spares::Inline { storage, segment_bytes, attempts, .. } = self else { return Ok(self) };
        let allocator = Arc::new(Allocator::new(storage, segment_bytes, attempts));
        let shared = Arc::clone(&allocator);
        let thread = std::thread::Builder::new().name("ledger-spares".into()).spawn(move || shared.run())?;
        Ok(Spares::Ahead(Ahead { allocator, thread: Some(thread) }))
    }

    /// The next spare; waits while it is being written. An error means that there is no room now.
    pub(crate) fn take(&mut self) -> io::Result<S::File> {
        match self {
            Spares::Inline { storage, segment_bytes, attempts, ready } => {
                if let Some(ready) = ready.take() {
                    return Ok(ready);
                }
                let allocated = allocate(storage, *segment_bytes, None);
                attempts.note(allocated.is_ok());
                allocated
            }
            Spares::Ahead(ahead) => ahead.allocator.take(),
        }
    }

    /// Makes one attempt at the next spare, unless it is there: for drivers that have no thread for it.
    pub(crate) fn attempt(&mut self) {
        let Spares::Inline { storage, segment_bytes, attempts, ready } = self else { return };
        if ready.is_none() {
            *ready = allocate(storage, *segment_bytes, None).ok();
            attempts.note(ready.is_some());
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
        self.allocator.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the allocator has been reported by its own thread; there is nothing to add.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::memory::{MemoryFile, MemoryLock, MemoryStorage};
    use crate::ledger::storage::ReadFile;
    use std::sync::mpsc::{sync_channel, Receiver, SyncSender};

    const CHUNKS: u64 = 16;
    const SEGMENT: u64 = CHUNKS * CHUNK_BYTES as u64;

    /// Where a sync says that it has begun, and where it hears that it may end.
    type Gate = (SyncSender<()>, Receiver<()>);

    /// A disk in memory whose first sync of a file says that it has begun and ends only when it is told to; the others take 5 ms.
    #[derive(Clone)]
    struct SlowStorage {
        memory: MemoryStorage,
        gate: Arc<Mutex<Option<Gate>>>,
    }

    #[derive(Clone)]
    struct SlowFile {
        memory: MemoryFile,
        storage: SlowStorage,
    }

    impl SlowStorage {
        /// Also what tells that the first sync has begun, and what ends it.
        fn new() -> (Self, Receiver<()>, SyncSender<()>) {
            let ((begin, begun), (end, ended)) = (sync_channel(1), sync_channel(1));
            (Self { memory: MemoryStorage::new(), gate: Arc::new(Mutex::new(Some((begin, ended)))) }, begun, end)
        }

        fn file(&self, memory: MemoryFile) -> SlowFile {
            SlowFile { memory, storage: self.clone() }
        }
    }

    impl ReadFile for SlowFile {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.memory.read_at(buffer, offset)
        }
        fn size(&self) -> io::Result<u64> {
            self.memory.size()
        }
    }

    impl StorageFile for SlowFile {
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.memory.write_at(bytes, offset)
        }
        fn sync(&self) -> io::Result<()> {
            let gate = self.storage.gate.lock().unwrap().take();
            match gate {
                Some((begin, ended)) => {
                    begin.send(()).unwrap();
                    ended.recv().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            self.memory.sync()
        }
        fn cut(&self, length: u64) -> io::Result<()> {
            self.memory.cut(length)
        }
    }

    impl Storage for SlowStorage {
        type File = SlowFile;
        type Lock = MemoryLock;

        fn lock(&self) -> io::Result<Option<MemoryLock>> {
            self.memory.lock()
        }
        fn list(&self) -> io::Result<Vec<String>> {
            self.memory.list()
        }
        fn create(&self, name: &str) -> io::Result<SlowFile> {
            Ok(self.file(self.memory.create(name)?))
        }
        fn open(&self, name: &str) -> io::Result<SlowFile> {
            Ok(self.file(self.memory.open(name)?))
        }
        fn open_unbuffered(&self, name: &str) -> io::Result<SlowFile> {
            Ok(self.file(self.memory.open_unbuffered(name)?))
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.memory.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.memory.remove(name)
        }
        fn sync_directory(&self) -> io::Result<()> {
            self.memory.sync_directory()
        }
        fn place(&self, name: &str) -> String {
            self.memory.place(name)
        }
    }

    /// An allocator thread whose first chunk is being synced; and the allocator, the storage, and what ends that sync.
    fn within_the_first_chunk() -> (Ahead<SlowStorage>, Arc<Allocator<SlowStorage>>, SlowStorage, SyncSender<()>) {
        let (storage, begun, end) = SlowStorage::new();
        let Ok(Spares::Ahead(ahead)) = Spares::inline(storage.clone(), SEGMENT, Arc::default()).into_ahead() else {
            panic!("a thread was asked for");
        };
        begun.recv().unwrap();
        let allocator = Arc::clone(&ahead.allocator);
        (ahead, allocator, storage, end)
    }

    /// Looks until it is so. What is counted afterwards does not depend on how long that takes.
    fn until(so: impl Fn() -> bool) {
        while !so() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_spare_that_is_waited_for_is_no_longer_allocated_gently() {
        let (ahead, allocator, storage, end) = within_the_first_chunk();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| allocator.take());
            until(|| allocator.slot().awaited);
            end.send(()).unwrap();
            assert_eq!(taken.join().unwrap().unwrap().size().unwrap(), SEGMENT);
        });
        assert_eq!(storage.memory.operations(), (CHUNKS, 2), "one sync was under way, one at the end is for all other chunks");
        assert_eq!(allocator.pace(), Pace::Gentle, "the next one is not in a hurry");
        drop(ahead);
    }

    #[test]
    fn a_spare_that_nobody_needs_any_more_is_given_up_after_its_chunk() {
        let (ahead, allocator, storage, end) = within_the_first_chunk();
        std::thread::scope(|scope| {
            let dropped = scope.spawn(|| drop(ahead));
            until(|| allocator.pace() == Pace::Stopped);
            end.send(()).unwrap();
            dropped.join().unwrap();
        });
        assert_eq!(storage.memory.operations(), (1, 1), "no chunk but the one under way");
        assert_eq!(storage.list().unwrap(), Vec::<String>::new(), "nothing is left behind");
    }

    #[test]
    fn a_rest_ends_when_somebody_waits_or_the_log_is_closed() {
        const LONG: Duration = Duration::from_secs(60);
        for close in [false, true] {
            let allocator = Allocator::new(MemoryStorage::new(), SEGMENT, Arc::default());
            let rested = std::thread::scope(|scope| {
                let rest = scope.spawn(|| {
                    let began = Instant::now();
                    allocator.rest(LONG);
                    began.elapsed()
                });
                if !close {
                    scope.spawn(|| allocator.take().is_err());
                    until(|| allocator.slot().awaited);
                    until(|| rest.is_finished());
                }
                allocator.stop();
                rest.join().unwrap()
            });
            assert!(rested < LONG, "close: {close}");
        }
    }

    #[test]
    fn an_allocation_that_nobody_waits_for_syncs_every_chunk() {
        let storage = MemoryStorage::new();
        let allocator = Allocator::new(storage.clone(), 3 * CHUNK_BYTES as u64, Arc::default());
        allocate(&storage, allocator.segment_bytes, Some(&allocator)).unwrap();
        assert_eq!(storage.operations(), (3, 4));
    }
}
