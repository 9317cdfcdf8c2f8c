//! A storage whose files are only read, in small pieces, each followed by a rest.
//!
//! Whoever reads through it keeps to the rate without knowing of it, and no commit waits for more than one piece. It does not know
//! how long a rest is.
use crate::ledger::storage::{ReadFile, Storage, StorageFile};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is read at once, in bytes; whole blocks.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Is told after each piece how many bytes it had and how long it took, rests, and says whether reading goes on.
pub(super) type After = dyn Fn(u64, Duration) -> bool + Send + Sync;

/// What all files of one storage share.
struct Pace {
    after: Box<After>,
    bytes: AtomicU64,
    stopped: AtomicBool,
}

/// The storage.
#[derive(Clone)]
pub(super) struct Paced<S> {
    storage: S,
    pace: Arc<Pace>,
}

impl<S> Paced<S> {
    pub fn new(storage: S, after: Box<After>) -> Self {
        let pace = Pace { after, bytes: AtomicU64::new(0), stopped: AtomicBool::new(false) };
        Self { storage, pace: Arc::new(pace) }
    }

    /// How much was read so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.pace.bytes.load(Ordering::Relaxed)
    }

    /// Reading was ended; what has failed since tells nothing.
    pub fn stopped(&self) -> bool {
        self.pace.stopped.load(Ordering::Relaxed)
    }
}

/// A file of it.
#[derive(Clone)]
pub(super) struct PacedFile<F> {
    file: F,
    pace: Arc<Pace>,
}

fn only_read() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "what is scrubbed is only read")
}

impl<F: StorageFile> ReadFile for PacedFile<F> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut whole = 0;
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            if self.pace.stopped.load(Ordering::Relaxed) {
                return Err(io::Error::other("the scrubbing has ended"));
            }
            let began = Instant::now();
            let read = self.file.read_at(piece, offset + whole as u64)?;
            whole += read;
            self.pace.bytes.fetch_add(read as u64, Ordering::Relaxed);
            if !(self.pace.after)(read as u64, began.elapsed()) {
                self.pace.stopped.store(true, Ordering::Relaxed);
            }
            if read < piece.len() {
                break;
            }
        }
        Ok(whole)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

impl<F: StorageFile> StorageFile for PacedFile<F> {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(only_read())
    }

    fn sync(&self) -> io::Result<()> {
        Err(only_read())
    }

    fn cut(&self, _: u64) -> io::Result<()> {
        Err(only_read())
    }
}

impl<S: Storage> Storage for Paced<S> {
    type File = PacedFile<S::File>;
    type Lock = S::Lock;

    fn lock(&self) -> io::Result<Option<S::Lock>> {
        Err(only_read())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.storage.list()
    }

    fn create(&self, _: &str) -> io::Result<Self::File> {
        Err(only_read())
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        Ok(PacedFile { file: self.storage.open(name)?, pace: Arc::clone(&self.pace) })
    }

    fn open_unbuffered(&self, name: &str) -> io::Result<Self::File> {
        Ok(PacedFile { file: self.storage.open_unbuffered(name)?, pace: Arc::clone(&self.pace) })
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(only_read())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(only_read())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(only_read())
    }

    fn place(&self, name: &str) -> String {
        self.storage.place(name)
    }
}
