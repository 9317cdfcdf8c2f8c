//! Rebuilding the cores' slices when the service starts: each slice by a thread of its own, from a snapshot and the entries behind it.
//!
//! The caller reads and checks; what it reads is dealt to the slices that it concerns and handed over in pieces. Invariant: an entry is
//! applied once on each side, in ledger order; the first thing that a slice refuses ends it all.
use crate::domain::{Account, AccountState, Asset, Entry, KeyId, Period, Root, Seq, UnixMs, UsedKey};
use crate::engine::Engine;
use crate::ledger::snapshot::{for_each_state, names, Snapshot, SnapshotFault};
use crate::ledger::{entries_of, EachKeys, LedgerError, ReadFile, SeenBatch};
use crate::ring::Ring;
use crossbeam_channel::{bounded, Sender};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

/// Bytes of entries that are handed over together.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of accounts from a snapshot that are handed over to one slice together.
const ACCOUNTS_BYTES: usize = 16 << 10;
/// Keys that are handed over to one slice together.
const KEYS_TOGETHER: usize = 4096;
/// Pieces that may wait for one slice.
const PIECES_MAX: usize = 16;
/// Entries that a slice prepares for together.
const EXPECTED_TOGETHER: usize = 64;

/// Per asset what a slice holds; `None` for a sum that leaves 128 bits.
pub(super) type Sums = Vec<(Box<str>, Option<u128>)>;

/// Runs `read`, which sends pieces, while every slice `takes` those that are sent to it.
///
/// # Errors
/// What `read` gave, or else the first thing that a slice refused.
fn deal<P: Send, T, E: Send>(
    engines: &mut [Engine],
    take: impl Fn(&mut Engine, P) -> Result<(), E> + Sync,
    read: impl FnOnce(&Slices<P>) -> Result<T, E>,
) -> Result<T, E> {
    let ring = Ring::new(engines.len() as u16);
    std::thread::scope(|scope| {
        let (senders, pieces): (Vec<_>, Vec<_>) = engines.iter().map(|_| bounded::<P>(PIECES_MAX)).unzip();
        let take = &take;
        let mut threads = Vec::with_capacity(engines.len());
        for (engine, pieces) in engines.iter_mut().zip(pieces) {
            threads.push(scope.spawn(move || pieces.into_iter().try_for_each(|piece| take(engine, piece))));
        }
        let slices = Slices { ring, senders };
        let done = read(&slices);
        drop(slices);
        let taken: Result<(), E> = threads.into_iter().try_for_each(join);
        let done = done?;
        taken.map(|()| done)
    })
}

/// The slices while they take pieces.
struct Slices<P> {
    ring: Ring,
    senders: Vec<Sender<P>>,
}

impl<P> Slices<P> {
    fn send(&self, slice: usize, piece: P) {
        // A slice that has ended has refused something, which is told at the end.
        let _ = self.senders[slice].send(piece);
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Loads every slice from a snapshot; `now` decides which keys are still remembered. `look` ends it early with an error. After an error
/// the engines are not to be used.
pub(super) fn load<F: ReadFile>(
    snapshot: &Snapshot<F>,
    engines: &mut [Engine],
    now: UnixMs,
    look: &mut dyn FnMut() -> Result<(), String>,
) -> Result<(), SnapshotFault> {
    let (head, assets) = (snapshot.head(), &snapshot.front().assets);
    let named = || assets.iter().map(|sums| (Asset::new(&sums.asset).expect("checked when it was opened"), sums.issued));
    let begin = |engine: &mut Engine| engine.begin_restore(named(), head.seq, head.accounts as usize);
    // The same for every slice: it depends on the order of the assets only.
    let numbers = engines.iter_mut().map(begin).last().unwrap_or_default();
    let take = |engine: &mut Engine, records: Vec<u8>| {
        engine.expect_accounts(names(&records));
        let mut restore = |state: &AccountState<'_>| {
            engine.restore(state, &numbers);
            Ok(())
        };
        for_each_state(&records, assets.len(), &mut restore).map_err(|what| snapshot.fault(what))
    };
    deal(engines, take, |slices| {
        let mut pieces: Vec<Vec<u8>> = vec![Vec::new(); slices.senders.len()];
        snapshot.for_each_record(&mut |name, record| {
            let name = Account::of_bytes(name).ok_or_else(|| snapshot.fault("a record's name is none"))?;
            let slice = usize::from(slices.ring.owner(name).0);
            let piece = &mut pieces[slice];
            piece.extend_from_slice(record);
            if piece.len() >= ACCOUNTS_BYTES {
                look().map_err(|what| snapshot.fault(what))?;
                slices.send(slice, std::mem::replace(piece, Vec::with_capacity(ACCOUNTS_BYTES + record.len())));
            }
            Ok(())
        })?;
        pieces.into_iter().enumerate().for_each(|(slice, piece)| slices.send(slice, piece));
        Ok(())
    })?;
    deal_keys(
        engines,
        |engine, key: &UsedKey| engine.restore_key(key, now),
        |key| key.id,
        |each| snapshot.for_each_key(&mut |key| each(*key)),
    )?;
    let budgets = engines.first().map(Engine::budgets).cloned().unwrap_or_default();
    snapshot.for_each_budget(&mut |token, spent| budgets.restore(token, spent))
}

/// Takes note of keys that are still in their time and whose entries are not replayed: `read` hands them over, with the time in which
/// their entries were accepted, until `look` ends it early.
///
/// # Errors
/// What `read` gave.
pub(super) fn guard(
    engines: &mut [Engine],
    look: &mut dyn FnMut() -> Result<(), String>,
    read: impl FnOnce(EachKeys<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    deal_keys(
        engines,
        |engine, (key, accepted): &(KeyId, Period)| engine.forget_known(*key, *accepted),
        |(key, _)| *key,
        |each| {
            read(&mut |keys, accepted| {
                keys.iter().for_each(|key| each((*key, accepted)));
                if look().is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
        },
    )
}

/// Deals what `read` hands over to the slices that own its keys, in order.
fn deal_keys<K: Send, E: Send>(
    engines: &mut [Engine],
    take: impl Fn(&mut Engine, &K) + Sync,
    id: impl Fn(&K) -> KeyId,
    read: impl FnOnce(&mut dyn FnMut(K)) -> Result<(), E>,
) -> Result<(), E> {
    let take_all = |engine: &mut Engine, keys: Vec<K>| {
        keys.iter().for_each(|key| take(engine, key));
        Ok(())
    };
    deal(engines, take_all, |slices| {
        let mut pieces: Vec<Vec<K>> = slices.senders.iter().map(|_| Vec::new()).collect();
        read(&mut |key| {
            let slice = usize::from(slices.ring.owner_of_key(id(&key)).0);
            let piece = &mut pieces[slice];
            piece.push(key);
            if piece.len() >= KEYS_TOGETHER {
                slices.send(slice, std::mem::replace(piece, Vec::with_capacity(KEYS_TOGETHER)));
            }
        })?;
        pieces.into_iter().enumerate().for_each(|(slice, piece)| slices.send(slice, piece));
        Ok(())
    })
}

/// Batches on their way to the slices.
struct Piece {
    file: String,
    /// First entry and offset of each batch, if these are known.
    batches: Vec<(Seq, u64)>,
    entries: Vec<u8>,
    /// For each slice, the entries that concern it and where they begin in `entries`.
    shares: Vec<Vec<(Seq, usize)>>,
}

impl Piece {
    fn empty(file: String, slices: usize) -> Self {
        let entries = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        Self { file, batches: Vec::new(), entries, shares: vec![Vec::new(); slices] }
    }

    fn push(&mut self, seq: Seq, entry: &Entry<'_>, ring: Ring) {
        let at = self.entries.len();
        self.entries.extend_from_slice(entry.bytes());
        let owner = ring.owner(entry.owner());
        let receiver = entry.to().map(|to| ring.owner(to)).filter(|receiver| *receiver != owner);
        for slice in [owner].into_iter().chain(receiver) {
            self.shares[usize::from(slice.0)].push((seq, at));
        }
    }

    /// Applies what concerns this slice.
    fn apply(&self, engine: &mut Engine, now: UnixMs) -> Result<(), LedgerError> {
        for together in self.shares[usize::from(engine.core().0)].chunks(EXPECTED_TOGETHER) {
            let entries = together.iter().map(|(seq, at)| (*seq, Entry::parse_own(&self.entries[*at..]).0));
            engine.expect_replay(entries.clone().map(|(_, entry)| entry));
            for (seq, entry) in entries {
                engine.replay(&entry, seq, now).map_err(|what| self.refused(seq, what))?;
            }
        }
        Ok(())
    }

    fn refused(&self, seq: Seq, what: String) -> LedgerError {
        let at = self.batches.partition_point(|(first, _)| *first <= seq);
        let offset = at.checked_sub(1).map_or(0, |at| self.batches[at].1);
        LedgerError::Broken { file: self.file.clone(), offset, seq, what }
    }
}

/// Where batches are handed in while the slices apply them.
pub(super) struct Feed<'a> {
    slices: &'a Slices<Arc<Piece>>,
    piece: Piece,
}

impl Feed<'_> {
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
        entries_of(batch, &mut |seq, root, entry| {
            self.piece.push(seq, &entry, self.slices.ring);
            note(seq, root, &entry)
        })?;
        if self.piece.entries.len() >= PIECE_BYTES {
            self.send();
        }
        Ok(())
    }

    /// Hands over one entry of a ledger that is not read batch by batch.
    pub fn entry(&mut self, seq: Seq, entry: &Entry<'_>) {
        self.piece.push(seq, entry, self.slices.ring);
        if self.piece.entries.len() >= PIECE_BYTES {
            self.send();
        }
    }

    fn send(&mut self) {
        if self.piece.entries.is_empty() {
            return;
        }
        let next = Piece::empty(self.piece.file.clone(), self.slices.senders.len());
        let piece = Arc::new(std::mem::replace(&mut self.piece, next));
        (0..self.slices.senders.len()).for_each(|slice| self.slices.send(slice, Arc::clone(&piece)));
    }
}

/// Runs `read`, which hands in batches, while every slice applies them; returns what it returned and what the slices then hold.
///
/// # Errors
/// What `read` gave, or else the first entry that a slice refused.
pub(super) fn replay<T>(
    engines: &mut [Engine],
    now: UnixMs,
    read: impl FnOnce(&mut Feed<'_>) -> Result<T, LedgerError>,
) -> Result<(T, Vec<Sums>), LedgerError> {
    let apply = |engine: &mut Engine, piece: Arc<Piece>| piece.apply(engine, now);
    let done = deal(engines, apply, |slices| {
        let mut feed = Feed { slices, piece: Piece::empty(String::new(), slices.senders.len()) };
        let done = read(&mut feed)?;
        feed.send();
        Ok(done)
    })?;
    let sums = |engine: &Engine| engine.shard().sums().into_iter().map(|(asset, sum)| (asset.into(), sum)).collect();
    let sums = std::thread::scope(|scope| {
        let threads: Vec<_> = engines.iter().map(|engine| scope.spawn(move || sums(engine))).collect();
        threads.into_iter().map(join).collect()
    });
    Ok((done, sums))
}
