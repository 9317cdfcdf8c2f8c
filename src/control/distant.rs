//! The start from a ledger behind a socket: the slices are rebuilt from the daemon's newest good snapshot and what follows it.
//!
//! A daemon that goes away meanwhile comes back, and the reading goes on: a snapshot from its beginning, entries where it was.
use super::conservation::Conservation;
use super::replay::{from_snapshot, guard_earlier_keys, note_progress, Interruption};
use super::{rebuild, Dep, Readiness};
use crate::domain::{Question, Root, Seq, UnixMs};
use crate::engine::Engine;
use crate::ledger::engine::Tenure;
use crate::ledger::snapshot::SnapshotSource;
use crate::ledger::{LedgerError, ReadLedger};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Pause after the first thing that was out of reach; it grows to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A ledger that may be out of reach for a while.
pub(super) struct Distant<'a, 'e> {
    /// Its name for messages.
    place: String,
    /// Is told what is waited for.
    readiness: &'a Readiness,
    /// What the signals ask for meanwhile.
    interruption: &'a mut Interruption<'e>,
    /// Why nothing can be read now, and how long the next pause is.
    waits: Option<(String, Duration)>,
}

/// The cores with their slices, and whether issued less burned is what the accounts hold: what does not add up, and what to do.
pub(super) type Rebuilt = (Vec<Engine>, Result<(), String>);

/// Why it cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// A signal asked for an end after so many entries.
    GivenUp(u64),
    /// The ledger is not what it should be.
    Error(LedgerError),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Stop::Error(error)
    }
}

impl<'a, 'e> Distant<'a, 'e> {
    /// The ledger of this name; nothing of it has been read yet.
    pub fn new(place: String, readiness: &'a Readiness, interruption: &'a mut Interruption<'e>) -> Self {
        Self { place, readiness, interruption, waits: None }
    }

    /// Rebuilds the slices of the engines that `fresh` makes as they were when this tenure began, which is still the present one: so
    /// nothing is written meanwhile. `now` decides which keys are still remembered.
    ///
    /// # Errors
    /// If the ledger is not what it should be, or a signal asks for an end. One that is out of reach is waited for.
    pub fn rebuild<P: SnapshotSource>(
        &mut self,
        snapshots: &P,
        reader: &mut dyn ReadLedger,
        tenure: &Tenure,
        fresh: &dyn Fn() -> Vec<Engine>,
        now: UnixMs,
    ) -> Result<Rebuilt, Stop> {
        self.reads();
        let began = Instant::now();
        let log_id = Some(reader.log_id());
        let (snapshot, mut engines) = loop {
            match from_snapshot(snapshots, log_id, tenure.head, fresh, now, self.interruption) {
                Ok(loaded) => break loaded,
                Err(_) if self.interruption.given_up_at().is_some() => return Err(Stop::GivenUp(0)),
                Err(error) if error.kind() == ErrorKind::NotConnected => self.wait(0, &error.to_string())?,
                Err(error) => {
                    return Err(LedgerError::Declined { place: self.place.clone(), what: error.to_string() }.into());
                }
            }
        };
        self.reads();
        let loaded_ms = began.elapsed().as_millis() as u64;
        let start = snapshot.as_ref().map(|snapshot| (snapshot.head().seq, snapshot.head().root));
        if let Some((seq, root)) = start {
            self.check_branch(reader, seq, &root)?;
        }
        let assets = snapshot.as_ref().map(|snapshot| &*snapshot.front().assets).unwrap_or_default();
        let mut conservation = Conservation::begin(assets);
        let mut at = start.unwrap_or((Seq(0), [0; 32]));
        let mut stopped = None;
        let replayed = rebuild::replay(&mut engines, now, |feed| {
            stopped = self.entries(reader, tenure.head, &mut at, feed, &mut conservation).err();
            Ok(())
        });
        if let Some(stop) = stopped {
            return Err(stop);
        }
        let ((), held) = replayed.map_err(|error| self.misfit(error))?;
        if at != (tenure.head, tenure.root) {
            let what = format!("it ends with entry {}, and {} were read, or other ones", tenure.head.0, at.0 .0);
            return Err(LedgerError::Declined { place: self.place.clone(), what }.into());
        }
        if let Some(snapshot) = &snapshot {
            let loaded = (snapshot.head().seq, snapshot.head().newest);
            self.until_reached(loaded.0 .0, |interruption| guard_earlier_keys(reader, loaded, &mut engines, now, interruption))?;
            if self.interruption.given_up_at().is_some() {
                return Err(Stop::GivenUp(tenure.head.0));
            }
        }
        let conserved = conservation.check(&held);
        let took_ms = began.elapsed().as_millis() as u64;
        let (entries, from_snapshot) = (tenure.head.0, start.map_or(0, |(seq, _)| seq.0));
        tracing::info!(event = "recovered", entries, from_snapshot, loaded_ms, took_ms, "the ledger is open");
        Ok((engines, conserved))
    }

    /// A snapshot of this log may still be of another branch: a copy that was written to elsewhere.
    fn check_branch(&mut self, reader: &mut dyn ReadLedger, seq: Seq, root: &Root) -> Result<(), Stop> {
        let found = match self.until_reached(seq.0, |_| reader.find(&Question::At(seq))) {
            // The daemon itself has read on from a snapshot there.
            Err(Stop::Error(LedgerError::Archived { .. })) => return Ok(()),
            found => found?,
        };
        if found.is_some_and(|found| found.root == *root) {
            return Ok(());
        }
        let what = format!(
            "its snapshot after entry {} is not of this ledger; move that file away from its directory, and start this server again",
            seq.0
        );
        Err(LedgerError::Declined { place: self.place.clone(), what }.into())
    }

    /// Hands in the entries behind `at` up to `head`, and moves `at` along.
    fn entries(
        &mut self,
        reader: &mut dyn ReadLedger,
        head: Seq,
        at: &mut (Seq, Root),
        feed: &mut rebuild::Feed<'_>,
        conservation: &mut Conservation,
    ) -> Result<(), Stop> {
        while at.0 < head {
            let next = Seq(at.0 .0 + 1);
            if next < reader.first() {
                return Err(LedgerError::Archived { place: self.place.clone(), first: reader.first() }.into());
            }
            let (interruption, before) = (&mut *self.interruption, at.0);
            let scanned = reader.scan(next, &mut |seq, root, entry| {
                note_progress(seq);
                if interruption.look(seq.0).is_err() {
                    return ControlFlow::Break(());
                }
                conservation.note(&entry);
                feed.entry(seq, &entry);
                *at = (seq, *root);
                if seq < head {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            if self.interruption.given_up_at().is_some() {
                return Err(Stop::GivenUp(at.0 .0));
            }
            if at.0 > before {
                self.reads();
            }
            match scanned {
                // It knows of no more yet.
                Ok(_) if at.0 < head => self.wait(at.0 .0, "the ledger ends before the entry with which it was granted")?,
                Ok(_) => {}
                Err(LedgerError::Unreachable { what, .. }) => self.wait(at.0 .0, &what)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Asks again until the answer does not fail for want of a connection.
    fn until_reached<T>(
        &mut self,
        entries: u64,
        mut ask: impl FnMut(&mut Interruption<'e>) -> Result<T, LedgerError>,
    ) -> Result<T, Stop> {
        loop {
            match ask(self.interruption) {
                Err(LedgerError::Unreachable { what, .. }) => self.wait(entries, &what)?,
                answered => {
                    self.reads();
                    return Ok(answered?);
                }
            }
        }
    }

    /// It is in reach.
    fn reads(&mut self) {
        self.waits = None;
        self.readiness.down(Dep::Ledger, "the ledger is being read");
    }

    /// Tells why there is nothing to read now, and waits a little, unless a signal asks for an end.
    fn wait(&mut self, entries: u64, why: &str) -> Result<(), Stop> {
        let pause = match self.waits.take() {
            Some((before, pause)) if before == why => (2 * pause).min(PAUSE_MAX),
            Some(_) | None => {
                tracing::warn!(event = "recovery_waits", error = why, entries, "the ledger could not be read on; trying again");
                self.readiness.down(Dep::Ledger, why);
                PAUSE
            }
        };
        self.waits = Some((why.to_owned(), pause));
        if self.interruption.look_now().is_err() {
            return Err(Stop::GivenUp(entries));
        }
        std::thread::sleep(pause);
        Ok(())
    }

    /// What a slice has refused, without a file that is not here.
    fn misfit(&self, error: LedgerError) -> LedgerError {
        match error {
            LedgerError::Broken { seq, what, .. } => {
                let what = format!(
                    "entry {} does not fit what came before it: {what}; run `ronctl ledger verify` on its directory",
                    seq.0
                );
                LedgerError::Declined { place: self.place.clone(), what }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::{issues, ledger, options, slices, snapshot_of, state, NOW};
    use crate::control::SignalEvent;
    use crate::domain::{Found, HistoryAnswer, HistoryQuestion, LaneBatch, LogId, Page, PageQuestion};
    use crate::ledger::snapshot::{self, Snapshot, SnapshotFault};
    use crate::ledger::{EachEntry, EachKeys, Findings, Log, MemoryFile, MemoryStorage, Reader};
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    /// A line that breaks when some things are asked, which are counted from 1.
    struct Line {
        breaks: fn(u64, u64) -> bool,
        /// Goes into that.
        number: u64,
        asked: AtomicU64,
        broken: AtomicBool,
    }

    impl Line {
        fn new(number: u64, breaks: fn(u64, u64) -> bool) -> Self {
            Self { breaks, number, asked: AtomicU64::new(0), broken: AtomicBool::new(false) }
        }

        fn whole() -> Self {
            Self::new(0, |_, _| false)
        }

        fn ask(&self) -> Result<(), LedgerError> {
            if !(self.breaks)(self.asked.fetch_add(1, Relaxed) + 1, self.number) {
                return Ok(());
            }
            self.broken.store(true, Relaxed);
            Err(LedgerError::Unreachable { place: "there".into(), what: "the line broke".into() })
        }
    }

    struct Source<'a> {
        storage: MemoryStorage,
        line: &'a Line,
    }

    impl SnapshotSource for Source<'_> {
        type File = MemoryFile;

        fn snapshots(&self) -> io::Result<Vec<Seq>> {
            self.line.ask().map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))?;
            self.storage.snapshots()
        }

        fn open_snapshot(&self, seq: Seq) -> Result<Snapshot<MemoryFile>, SnapshotFault> {
            // What is read over a broken line is nothing that the snapshot could help.
            let opened = self.storage.open_snapshot(seq);
            match self.line.ask() {
                Ok(()) => opened,
                Err(error) => Err(SnapshotFault { file: "there".into(), what: error.to_string() }),
            }
        }

        fn reached(&self) -> io::Result<()> {
            // The line may also break while blocks are read.
            let ok = self.line.ask().is_ok();
            let broken = self.line.broken.swap(false, Relaxed);
            (ok && !broken).then_some(()).ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the line broke"))
        }
    }

    struct Far<'a> {
        reader: Reader<MemoryStorage>,
        line: &'a Line,
        first: Seq,
    }

    impl ReadLedger for Far<'_> {
        fn log_id(&self) -> LogId {
            self.reader.log_id()
        }

        fn head(&self) -> Seq {
            self.reader.head()
        }

        fn first(&self) -> Seq {
            self.first
        }

        fn find(&mut self, question: &Question) -> Result<Option<Found>, LedgerError> {
            self.line.ask()?;
            self.reader.find(question)
        }

        /// Breaks off in the middle as well.
        fn scan(&mut self, from: Seq, each: EachEntry<'_>) -> Result<Seq, LedgerError> {
            self.line.ask()?;
            let mut broken = Ok(());
            let next = self.reader.scan(from, &mut |seq, root, entry| {
                if seq.0 % 100 == 0 {
                    broken = self.line.ask();
                    if broken.is_err() {
                        return ControlFlow::Break(());
                    }
                }
                each(seq, root, entry)
            })?;
            broken.map(|()| next)
        }

        fn keys_before(&mut self, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<(), LedgerError> {
            self.line.ask()?;
            self.reader.keys_before(end, since, each)?;
            // All told, and yet not the end of it.
            self.line.ask()
        }

        fn history(&mut self, _: &HistoryQuestion) -> Result<HistoryAnswer, LedgerError> {
            unreachable!("a start asks nothing of the history")
        }

        fn page(&mut self, _: &PageQuestion) -> Result<Page, LedgerError> {
            unreachable!("a start asks for no page")
        }

        fn findings(&self) -> &Findings {
            unreachable!("a start asks for no findings")
        }

        fn prepare(&mut self) -> bool {
            false
        }
    }

    /// Three batches, a snapshot, and 100 entries behind it.
    fn with_snapshot() -> (MemoryStorage, Log<MemoryStorage>) {
        let storage = ledger(3);
        let (mut log, _) = Log::open(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
        snapshot_of(&log);
        log.append(&[LaneBatch { lane: 0, lane_first: 1, count: 100, bytes: issues(5_000..5_100) }]).unwrap();
        (storage, log)
    }

    /// A start on this ledger as it is behind a line.
    fn rebuild(
        storage: &MemoryStorage,
        log: &Log<MemoryStorage>,
        line: &Line,
        first: Seq,
        events: &[SignalEvent],
    ) -> Result<Rebuilt, Stop> {
        let (sender, receiver) = crossbeam_channel::bounded(4);
        events.iter().for_each(|event| sender.send(*event).unwrap());
        let readiness = Readiness::new();
        let mut interruption = Interruption::new(&receiver);
        let mut distant = Distant::new("there".into(), &readiness, &mut interruption);
        let mut reader = Far { reader: log.reader(), line, first };
        let source = Source { storage: storage.clone(), line };
        distant.rebuild(&source, &mut reader, &log.tenure(), &|| slices(3), NOW)
    }

    fn opened(rebuilt: Result<Rebuilt, Stop>) -> Vec<Engine> {
        let Ok((engines, conserved)) = rebuilt else { panic!("nobody asked for an end, and nothing is wrong") };
        assert_eq!(conserved, Ok(()));
        engines
    }

    fn refused(rebuilt: Result<Rebuilt, Stop>) -> LedgerError {
        match rebuilt {
            Err(Stop::Error(error)) => error,
            Err(Stop::GivenUp(_)) => panic!("nobody asked for an end"),
            Ok(_) => panic!("something is wrong with it"),
        }
    }

    /// A start comes to the same whatever is asked when the line breaks; returns that.
    fn whenever_it_breaks(storage: &MemoryStorage, log: &Log<MemoryStorage>) -> (Vec<String>, usize) {
        let line = Line::whole();
        let whole = state(&opened(rebuild(storage, log, &line, Seq(1), &[])));
        let asked = line.asked.load(Relaxed);
        for number in 1..=asked {
            for breaks in [|asked, number| asked == number, |asked, number| asked >= number && asked < number + 3] {
                let line = Line::new(number, breaks);
                assert_eq!(state(&opened(rebuild(storage, log, &line, Seq(1), &[]))), whole, "question {number} of {asked}");
                assert!(line.asked.load(Relaxed) > asked, "it was asked again");
            }
        }
        whole
    }

    #[test]
    fn a_line_that_breaks_anywhere_changes_nothing_of_what_is_rebuilt() {
        let (storage, log) = with_snapshot();
        let whole = whenever_it_breaks(&storage, &log);
        assert_eq!((whole.0.len(), whole.1), (7, 3 * 1024 + 100), "all accounts, and the key of every issue");
        storage.tamper(&snapshot::snapshot_name(Seq(3 * 1024)), |bytes| bytes[4200] ^= 1);
        assert_eq!(whenever_it_breaks(&storage, &log), whole, "without a good snapshot everything is read");
        // Unless the beginning is in an archive: then nothing that is waited for would help.
        let refused = refused(rebuild(&storage, &log, &Line::whole(), Seq(2_000), &[]));
        assert!(matches!(refused, LedgerError::Archived { first: Seq(2_000), .. }), "{refused}");
    }

    #[test]
    fn a_snapshot_of_another_branch_of_the_log_is_refused() {
        let (_, log) = with_snapshot();
        let other = ledger(2);
        let (mut branch, _) = Log::open(other.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
        branch.append(&[LaneBatch { lane: 0, lane_first: 1, count: 900, bytes: issues(9_000..9_900) }]).unwrap();
        snapshot_of(&branch);
        let refused = refused(rebuild(&other, &log, &Line::whole(), Seq(1), &[]));
        assert!(refused.to_string().contains("its snapshot after entry 2948 is not of this ledger"), "{refused}");
    }

    #[test]
    fn a_signal_to_end_is_heeded_also_while_nothing_can_be_reached() {
        let (storage, log) = with_snapshot();
        let line = Line::new(0, |_, _| true);
        let given_up = rebuild(&storage, &log, &line, Seq(1), &[SignalEvent::Reload, SignalEvent::Drain]);
        assert!(matches!(given_up, Err(Stop::GivenUp(0))));
    }
}
