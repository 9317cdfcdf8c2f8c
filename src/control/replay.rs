//! The start of the ledger: opens it, has every core's slice rebuilt from it, and checks that no value appeared or vanished.
//!
//! A ledger can take minutes to read, so a signal to end is looked for in between. Nothing of the ledger is changed before all of
//! it has been read, so giving up leaves it as it was.
use super::conservation::Conservation;
use super::{rebuild, SignalEvent};
use crate::domain::{Entry, LogId, Question, Seq, UnixMs};
use crate::engine::Engine;
use crate::ledger::snapshot::{self, Snapshot, SnapshotSource};
use crate::ledger::{self, LedgerError, Log, Options, ReadLedger, Recovery, Storage};
use crossbeam_channel::Receiver;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Log a line about recovery progress after this many entries.
const RECOVERY_NOTE_EVERY: u64 = 1_000_000;
/// Look for a signal to end after this many entries: some milliseconds of reading.
const RECOVERY_LOOK_EVERY: u64 = 4096;

/// The first moment that cannot be written with a year of four digits, in milliseconds since the Unix epoch.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// What opening the ledger came to.
// There is one of these in the life of a process, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(super) enum Opening<S: Storage> {
    /// It is open. `conserved` says what does not add up, and what to do.
    Open {
        /// The open ledger.
        log: Log<S>,
        /// What was found.
        recovery: Recovery,
        /// The snapshot from which the slices were rebuilt; `None` if the whole ledger was read.
        snapshot: Option<Snapshot<S::File>>,
        /// The cores with their slices.
        engines: Vec<Engine>,
        /// Whether issued less burned is what the accounts hold.
        conserved: Result<(), String>,
    },
    /// A signal asked for an end after so many entries.
    GivenUp {
        /// Entries that had been read.
        entries: u64,
    },
}

/// Rebuilds the slices of the engines that `fresh` makes from the newest good snapshot and what follows it in the ledger. `now`
/// decides which keys are still remembered.
///
/// # Errors
/// If the ledger cannot be opened, or an engine cannot take an entry.
pub(super) fn open<S: Storage>(
    storage: S,
    options: &Options,
    fresh: &dyn Fn() -> Vec<Engine>,
    now: UnixMs,
    interruption: &mut Interruption<'_>,
) -> Result<Opening<S>, LedgerError> {
    let began = Instant::now();
    let (snapshot, mut engines) = match from_snapshot(&storage, ledger::log_of(&storage), Seq(u64::MAX), fresh, now, interruption)
    {
        Ok(loaded) => loaded,
        Err(_) if interruption.given_up_at.is_some() => return Ok(Opening::GivenUp { entries: 0 }),
        Err(error) => return Err(LedgerError::io(storage.place(""), "look for snapshots")(error)),
    };
    let start = snapshot.as_ref().map(Snapshot::start);
    let mut conservation = Conservation::begin(snapshot.as_ref().map_or(&[], |snapshot| &snapshot.front().assets));
    let loaded_ms = began.elapsed().as_millis() as u64;
    let replayed = rebuild::replay(&mut engines, now, |feed| {
        Log::open_behind(storage, options, start, &mut |batch| {
            feed.batch(batch, &mut |seq, _, entry| {
                note_progress(seq);
                interruption.look(seq.0)?;
                conservation.note(entry);
                Ok(())
            })
        })
    });
    let ((log, recovery), held) = match (replayed, interruption.given_up_at) {
        (Ok(opened), _) => opened,
        (Err(_), Some(seq)) => return Ok(Opening::GivenUp { entries: seq - 1 }),
        (Err(error), None) => return Err(error),
    };
    if let Some(torn) = &recovery.torn {
        tracing::warn!(event = "torn_tail", torn = ?torn, "an interrupted write was cleared away; nothing of it had been acknowledged");
    }
    if let Some(snapshot) = &snapshot {
        let loaded = (snapshot.head().seq, snapshot.head().newest);
        guard_earlier_keys(&mut log.reader(), loaded, &mut engines, now, interruption)?;
        if interruption.given_up_at.is_some() {
            log.close()?;
            return Ok(Opening::GivenUp { entries: recovery.entries });
        }
    }
    let conserved = conservation.check(&held);
    let took_ms = began.elapsed().as_millis() as u64;
    let from_snapshot = start.map_or(0, |start| start.seq.0);
    let entries = recovery.entries;
    tracing::info!(event = "recovered", entries, from_snapshot, loaded_ms, took_ms, "the ledger is open");
    Ok(Opening::Open { log, recovery, snapshot, engines, conserved })
}

/// Tells now and then how far the reading is.
pub(crate) fn note_progress(seq: Seq) {
    if seq.0 % RECOVERY_NOTE_EVERY == 0 {
        tracing::info!(event = "recovering", entries = seq.0, "reading the ledger");
    }
}

/// A snapshot, here the entry after which it is and the time of its newest one, has no keys of debits. Those that are still in their time
/// are looked up when they are used again. Where they cannot be, because their segments are not here, that is said.
pub(super) fn guard_earlier_keys(
    reader: &mut dyn ReadLedger,
    (through, newest): (Seq, UnixMs),
    engines: &mut [Engine],
    now: UnixMs,
    interruption: &mut Interruption<'_>,
) -> Result<(), LedgerError> {
    let Some(since) = engines.first().map(|engine| engine.shard().keys_since(now)) else { return Ok(()) };
    rebuild::guard(engines, &mut || interruption.look_now(), |each| reader.keys_before(Seq(through.0 + 1), since, each))?;
    let first = reader.first();
    let Some(last_accepted) = accepted_before(reader, first, through, newest)?.filter(|last| *last >= since) else {
        return Ok(());
    };
    let until = last_accepted.0.saturating_add(now.0 + 1 - since.0).min(YEAR_10000_MS - 1);
    let until = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(until));
    tracing::warn!(
        event = "keys_unknown", before = first.0, %until,
        "the idempotency keys of debits in segments that are not here are unknown: with another request and a new nonce such a key is \
         accepted; bring the segments back and start again"
    );
    Ok(())
}

/// When the last of the entries that are not here was accepted, at the latest; nothing if all are here.
fn accepted_before(reader: &mut dyn ReadLedger, first: Seq, through: Seq, newest: UnixMs) -> Result<Option<UnixMs>, LedgerError> {
    if first <= Seq(1) {
        return Ok(None);
    }
    if first > through {
        return Ok(Some(newest));
    }
    match reader.find(&Question::At(first)) {
        // Cores read the clock for themselves, so this is exact but for a moment.
        Ok(found) => Ok(found.and_then(|found| Entry::parse(&found.entry).ok().map(|(entry, _)| entry.ts()))),
        Err(error @ LedgerError::Unreachable { .. }) => Err(error),
        Err(error) => {
            // It only serves a remark: what the snapshot has is served whatever has become of the segments before it.
            tracing::warn!(
                event = "acceptance_time_unread", %error,
                "when the entries that are not here were accepted cannot be read; the time of the snapshot is taken"
            );
            Ok(Some(newest))
        }
    }
}

/// A snapshot, and engines that were loaded from it.
type Loaded<F> = (Option<Snapshot<F>>, Vec<Engine>);

/// Engines with the state of the newest snapshot of this log up to `newest` that is good in all its parts, or empty ones if there is
/// none.
///
/// # Errors
/// If it cannot be told which there are; `NotConnected` if they were out of reach; whatever it is if a signal asks for an end.
pub(super) fn from_snapshot<P: SnapshotSource>(
    source: &P,
    log_id: Option<LogId>,
    newest: Seq,
    fresh: &dyn Fn() -> Vec<Engine>,
    now: UnixMs,
    interruption: &mut Interruption<'_>,
) -> std::io::Result<Loaded<P::File>> {
    let mut damaged = Vec::new();
    loop {
        let found = snapshot::newest_of(source, log_id, &|seq| seq <= newest && !damaged.contains(&seq))?;
        let mut engines = fresh();
        let Some(snapshot) = found else { return Ok((None, engines)) };
        let loaded = rebuild::load(&snapshot, &mut engines, now, &mut || interruption.look_now());
        source.reached()?;
        match loaded {
            Ok(()) => return Ok((Some(snapshot), engines)),
            Err(fault) if interruption.given_up_at.is_some() => return Err(std::io::Error::other(fault)),
            Err(fault) => tracing::error!(event = "snapshot_damaged", %fault, "the one before it is used, or the whole ledger"),
        }
        damaged.push(snapshot.head().seq);
    }
}

/// What the signals ask for while the ledger is read.
pub(crate) struct Interruption<'a> {
    events: &'a Receiver<SignalEvent>,
    given_up_at: Option<u64>,
    reload: bool,
}

impl<'a> Interruption<'a> {
    /// Nothing has been asked for yet.
    pub fn new(events: &'a Receiver<SignalEvent>) -> Self {
        Self { events, given_up_at: None, reload: false }
    }

    /// Whether a reload was asked for and is still to be done.
    pub fn reload_wanted(&self) -> bool {
        self.reload
    }

    /// The entry before which a signal ended the reading.
    pub fn given_up_at(&self) -> Option<u64> {
        self.given_up_at
    }

    /// Errs if a signal asks for an end before anything was read, or between two readings.
    pub fn look_now(&mut self) -> Result<(), String> {
        self.look(0)
    }

    /// Errs if the reading is to end before this entry.
    pub fn look(&mut self, seq: u64) -> Result<(), String> {
        if seq % RECOVERY_LOOK_EVERY != 0 {
            return Ok(());
        }
        for event in self.events.try_iter() {
            match event {
                SignalEvent::Reload => self.reload = true,
                SignalEvent::Snapshot => {
                    let reason = "the ledger is still being read; ask again when this process serves";
                    tracing::info!(event = "snapshot_not_taken", reason, "no snapshot was taken");
                }
                SignalEvent::Drain | SignalEvent::Exit(_) => {
                    self.given_up_at = Some(seq);
                    return Err("a signal asked for an end".to_owned());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::{issues, ledger, options, slices, snapshot_of, state, NOW};
    use crate::domain::LaneBatch;
    use crate::ledger::layout::BLOCK_BYTES;
    use crate::ledger::{segment_name, MemoryStorage};

    #[test]
    fn a_signal_to_end_gives_the_reading_up_and_leaves_the_ledger_as_it_was() {
        let entries = 2 * RECOVERY_LOOK_EVERY;
        let storage = ledger(entries / 1024);
        let (sender, events) = crossbeam_channel::bounded(2);
        sender.send(SignalEvent::Reload).unwrap();
        sender.send(SignalEvent::Drain).unwrap();
        let mut interruption = Interruption::new(&events);
        let given_up = open(storage.clone(), &options(), &|| slices(1), NOW, &mut interruption).unwrap();
        let Opening::GivenUp { entries: read } = given_up else { panic!("the signal was not heeded") };
        assert_eq!(read, RECOVERY_LOOK_EVERY - 1, "the first look is early");
        // The lock is free again, and no opening was counted.
        let mut interruption = Interruption::new(&events);
        let again = open(storage, &options(), &|| slices(1), NOW, &mut interruption).unwrap();
        let Opening::Open { recovery, conserved, .. } = again else { panic!("nobody asked for an end") };
        assert_eq!((recovery.head, recovery.epoch, conserved), (Seq(entries), 2, Ok(())));
    }

    fn opened(storage: MemoryStorage, now: UnixMs) -> (Option<Seq>, Seq, Vec<Engine>) {
        let (_sender, events) = crossbeam_channel::bounded(1);
        let opening = open(storage, &options(), &|| slices(3), now, &mut Interruption::new(&events)).unwrap();
        let Opening::Open { recovery, snapshot, engines, conserved, .. } = opening else { panic!("nobody asked for an end") };
        assert_eq!(conserved, Ok(()));
        (snapshot.map(|snapshot| snapshot.head().seq), recovery.head, engines)
    }

    #[test]
    fn a_start_from_a_snapshot_comes_to_the_same_slices_and_keys_and_a_damaged_one_is_passed_over() {
        let storage = ledger(3);
        let (mut log, _) = Log::open(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
        snapshot_of(&log);
        log.append(&[LaneBatch { lane: 0, lane_first: 1, count: 100, bytes: issues(5_000..5_100) }]).unwrap();
        log.close().unwrap();
        let (from, head, engines) = opened(storage.fork(), NOW);
        assert_eq!((from, head), (Some(Seq(3 * 1024)), Seq(3 * 1024 + 100)));
        let bad = storage.fork();
        bad.tamper(&snapshot::snapshot_name(Seq(3 * 1024)), |bytes| bytes[4200] ^= 1);
        let (without, _, whole) = opened(bad, NOW);
        assert_eq!(without, None);
        assert_eq!(state(&engines), state(&whole));
        assert_eq!(state(&whole).1, 3 * 1024 + 100, "the key of every issue");
        let (_, _, later) = opened(storage, UnixMs(NOW.0 + 1_000));
        assert_eq!(state(&later).1, 0, "their time is over");
    }

    #[test]
    fn a_snapshot_of_another_ledger_is_passed_over() {
        let (storage, other) = (ledger(1), MemoryStorage::new());
        let foreign = Options::for_simulation(8 << 20, LogId([8; 16]));
        let (mut log, _) = Log::open(other.clone(), &foreign, &mut |_, _, _| Ok(())).unwrap();
        log.append(&[LaneBatch { lane: 0, lane_first: 1, count: 2_000, bytes: issues(0..2_000) }]).unwrap();
        snapshot_of(&log);
        let (name, mut bytes) = (snapshot::snapshot_name(Seq(2_000)), Vec::new());
        other.tamper(&name, |content| bytes = content.clone());
        storage.create(&name).unwrap();
        storage.tamper(&name, |content| *content = bytes);
        let (from, head, engines) = opened(storage, NOW);
        assert_eq!((from, head, state(&engines).1), (None, Seq(1024), 1024));
    }

    #[test]
    fn damage_to_the_first_entry_that_is_here_keeps_no_start_behind_a_snapshot() {
        let storage = MemoryStorage::new();
        let small = Options::for_simulation(512 << 10, LogId([7; 16]));
        let (mut log, _) = Log::open(storage.clone(), &small, &mut |_, _, _| Ok(())).unwrap();
        for lane_first in (1..=16 * 1024).step_by(1024) {
            let bytes = issues(lane_first..lane_first + 1024);
            log.append(&[LaneBatch { lane: 0, lane_first, count: 1024, bytes }]).unwrap();
        }
        snapshot_of(&log);
        while log.reader().index_one_segment().unwrap() {}
        log.close().unwrap();
        storage.remove(&segment_name(1)).unwrap();
        storage.tamper(&segment_name(2), |bytes| bytes[(2 * BLOCK_BYTES) + 300] ^= 1);
        // It is sealed and has an index, and its keys are over their time: nobody else reads it.
        let (from, head, engines) = opened(storage, UnixMs(NOW.0 + 1_000));
        assert_eq!((from, head, state(&engines).1), (Some(Seq(16 * 1024)), Seq(16 * 1024), 0));
    }

    #[test]
    fn a_reload_is_kept_for_later_and_most_entries_look_at_nothing() {
        let (sender, events) = crossbeam_channel::bounded(2);
        let mut interruption = Interruption::new(&events);
        sender.send(SignalEvent::Reload).unwrap();
        assert!(interruption.look(RECOVERY_LOOK_EVERY - 1).is_ok() && !interruption.reload_wanted());
        assert!(interruption.look(RECOVERY_LOOK_EVERY).is_ok() && interruption.reload_wanted());
        sender.send(SignalEvent::Drain).unwrap();
        assert!(interruption.look(RECOVERY_LOOK_EVERY + 1).is_ok());
        assert!(interruption.look(2 * RECOVERY_LOOK_EVERY).is_err());
        assert_eq!(interruption.given_up_at, Some(2 * RECOVERY_LOOK_EVERY));
    }
}
