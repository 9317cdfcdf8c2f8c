//! Rebuilding the cores' slices when the service starts: each slice by a thread of its own, from a snapshot and the entries behind it.
//!
//! The caller reads and checks the ledger and hands batches over in pieces; every thread gets every piece and applies what concerns
//! its slice. Invariant: an entry is applied once on each side, in ledger order; the first entry that a slice refuses ends it all.
use crate::domain::{Asset, Entry, Root, Seq, UnixMs};
use crate::engine::Engine;
use crate::ledger::snapshot::{Snapshot, SnapshotFault};
use crate::ledger::{entries_of, LedgerError, SeenBatch, StorageFile};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

/// Bytes of entries that are handed over together.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait for one slice.
const PIECES_MAX: usize = 16;
/// Entries that a slice prepares for together.
const EXPECTED_TOGETHER: usize = 32;

/// Per asset what a slice holds; `None` for a sum that leaves 128 bits.
pub(super) type Sums = Vec<(Box<str>, Option<u128>)>;

/// Loads every slice from a snapshot; `now` decides which keys are still remembered. After an error the engines are not to be used.
pub(super) fn load<F: StorageFile>(snapshot: &Snapshot<F>, engines: &mut [Engine], now: UnixMs) -> Result<(), SnapshotFault> {
    let load_one = |engine: &mut Engine| {
        let (head, assets) = (snapshot.head(), &snapshot.front().assets);
        let named = assets.iter().map(|sums| (Asset::new(&sums.asset).expect("checked when it was opened"), sums.issued));
        let assets = engine.begin_restore(named, head.seq, head.accounts as usize);
        let (core, ring) = (engine.core(), engine.ring());
        snapshot.for_each_account(&|account| ring.owner(account) == core, &mut |state| {
            engine.restore(state, &assets);
            Ok(())
        })?;
        snapshot.for_each_key(&mut |key| engine.restore_key(key, now))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = engines.iter_mut().map(|engine| scope.spawn(move || load_one(engine))).collect();
        threads.into_iter().try_for_each(join)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Batches on their way to the slices.
struct Piece {
    file: String,
    /// First entry and offset of each batch.
    batches: Vec<(Seq, u64)>,
    entries: Vec<u8>,
}

impl Piece {
    fn empty() -> Self {
        Self { file: String::new(), batches: Vec::new(), entries: Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4) }
    }

    fn refused(&self, seq: Seq, what: String) -> LedgerError {
        let at = self.batches.partition_point(|(first, _)| *first <= seq);
        let offset = self.batches[at.saturating_sub(1)].1;
        LedgerError::Broken { file: self.file.clone(), offset, seq, what }
    }
}

/// Where batches are handed in while the slices apply them.
pub(super) struct Feed {
    slices: Vec<Sender<Arc<Piece>>>,
    piece: Piece,
}

impl Feed {
    /// Hands a batch over; `note` sees each of its entries. A slice that has given up takes nothing more: its error is told at the end.
    pub fn batch(
        &mut self,
        batch: &SeenBatch<'_>,
        note: &mut dyn FnMut(Seq, &Root, &Entry<'_>) -> Result<(), String>,
    ) -> Result<(), LedgerError> {
        if self.piece.file != batch.file {
            self.send();
            self.piece.file = batch.file.to_owned();
        }
        self.piece.batches.push((batch.place.first_seq, batch.place.offset));
        let entries = &mut self.piece.entries;
        entries_of(batch, &mut |seq, root, entry| {
            entries.extend_from_slice(entry.bytes());
            note(seq, root, &entry)
        })?;
        if self.piece.entries.len() >= PIECE_BYTES {
            self.send();
        }
        Ok(())
    }

    fn send(&mut self) {
        if self.piece.batches.is_empty() {
            return;
        }
        let next = Piece { file: self.piece.file.clone(), ..Piece::empty() };
        let piece = Arc::new(std::mem::replace(&mut self.piece, next));
        // A slice that has ended had an error.
        self.slices.iter().for_each(|slice| drop(slice.send(Arc::clone(&piece))));
    }
}

/// Runs `read`, which hands in batches, while every slice applies them; returns what it returned and what the slices then hold.
///
/// # Errors
/// What `read` gave, or else the first entry that a slice refused.
pub(super) fn replay<T>(
    engines: &mut [Engine],
    now: UnixMs,
    read: impl FnOnce(&mut Feed) -> Result<T, LedgerError>,
) -> Result<(T, Vec<Sums>), LedgerError> {
    std::thread::scope(|scope| {
        let (slices, pieces): (Vec<_>, Vec<_>) = engines.iter().map(|_| bounded(PIECES_MAX)).unzip();
        let start = |(engine, pieces)| scope.spawn(move || apply_all(engine, &pieces, now));
        let threads: Vec<_> = engines.iter_mut().zip(pieces).map(start).collect();
        let mut feed = Feed { slices, piece: Piece::empty() };
        let done = read(&mut feed);
        feed.send();
        drop(feed);
        let sums: Result<Vec<Sums>, LedgerError> = threads.into_iter().map(join).collect();
        Ok((done?, sums?))
    })
}

fn apply_all(engine: &mut Engine, pieces: &Receiver<Arc<Piece>>, now: UnixMs) -> Result<Sums, LedgerError> {
    for piece in pieces {
        let mut seq = piece.batches[0].0;
        for (index, entry) in Entry::all_own(&piece.entries).enumerate() {
            if index % EXPECTED_TOGETHER == 0 {
                let offset = entry.bytes().as_ptr() as usize - piece.entries.as_ptr() as usize;
                engine.expect_replay(Entry::all_own(&piece.entries[offset..]).take(EXPECTED_TOGETHER));
            }
            engine.replay(&entry, seq, now).map_err(|what| piece.refused(seq, what))?;
            seq = Seq(seq.0 + 1);
        }
    }
    Ok(engine.shard().sums().into_iter().map(|(asset, sum)| (asset.into(), sum)).collect())
}
