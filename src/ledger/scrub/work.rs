//! The passes, without their thread: when one begins, which file comes next, what is done about what was found.
//!
//! Invariants: a pass ends only after every segment that was there by then was read, the one that is written as far as it was durable; a file is called damaged only after a second
//! reading has found it so. The time is told by the caller.
use super::check::{self, Fault, Sealed, Verdict};
use super::paced::{After, Paced};
use super::plan::{begins_at, rate_needed, time_for, READ_AGAIN_WITHIN};
use super::state::{Kind, ScrubPass, ScrubState, Scrubbed};
use super::Scrubbing;
use crate::domain::{Seq, UnixMs};
use crate::ledger::index_format::Subject;
use crate::ledger::reader::Reader;
use crate::ledger::snapshot::{snapshot_name, snapshots};
use crate::ledger::storage::{index_name, segment_name, ReadFile, Storage};
use std::io;
use std::time::Duration;

/// Pause after a file that the system did not let be judged.
const UNJUDGED_PAUSE: Duration = Duration::from_secs(60);
/// Time between two writings of the file that says where a pass is.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next step can be made at once.
    Now,
    /// Nothing is to be done before this time.
    At(UnixMs),
}

/// What the thread that scrubs does, without its thread: the work on one ledger.
pub struct Work<S: Storage> {
    reader: Reader<S>,
    paced: Paced<S>,
    scrubbing: Scrubbing,
    state: ScrubState,
    /// The newest snapshot that the pass reads, once it has come to them.
    snapshots_through: Option<Seq>,
    saved: UnixMs,
}

impl<S: Storage> Work<S> {
    /// Goes on where the last process was. `after` rests after each reading.
    pub fn new(reader: &Reader<S>, scrubbing: Scrubbing, after: Box<After>) -> Self {
        let shared = reader.shared();
        let state = ScrubState::read(&shared.storage).unwrap_or_else(|error| {
            tracing::warn!(event = "scrub_unread", %error, "where scrubbing was cannot be read; it begins again");
            None
        });
        let new = ScrubState { log_id: shared.log_id, ..ScrubState::default() };
        let state = state.filter(|state| state.log_id == shared.log_id).unwrap_or(new);
        let paced = Paced::new(shared.storage.clone(), after);
        let mut work = Self { paced, reader: reader.clone(), scrubbing, state, snapshots_through: None, saved: UnixMs(0) };
        let (first, _) = work.segments();
        if work.state.forget_archived(first) {
            work.save(UnixMs(0));
        }
        work
    }

    /// What others are told.
    pub fn figures(&self) -> Scrubbed {
        self.state.figures()
    }

    /// Reads the next file, or begins or ends a pass.
    pub fn step(&mut self, now: UnixMs) -> Next {
        let Some(pass) = self.state.pass else {
            if self.has_nothing() {
                return self.later(now);
            }
            let bytes = self.bytes_to_read();
            let needed = time_for(bytes, self.scrubbing.bytes_per_second);
            let due = begins_at(self.state.last.map(|last| last.at), now, self.scrubbing.every, needed);
            if now < due {
                return Next::At(due);
            }
            self.begin(now, bytes, needed);
            return Next::Now;
        };
        let read_before = self.paced.bytes();
        // Before those that are sealed: it may be one of them a moment later.
        let written = self.written();
        let done = if let Some(sealed) = self.next_sealed() {
            self.segment(&sealed)
        } else if let Some(active) = written.filter(|active| active.index >= self.state.next_segment) {
            self.active(&active)
        } else {
            match self.next_snapshot() {
                Ok(Some(seq)) => self.snapshot(seq),
                Ok(None) => return self.end(now, pass),
                Err(error) => {
                    tracing::warn!(
                        event = "scrub_unlisted", %error,
                        "the snapshots could not be listed; that is tried again later, and the pass goes on"
                    );
                    false
                }
            }
        };
        if !done && !self.paced.stopped() {
            return Next::At(UnixMs(now.0 + UNJUDGED_PAUSE.as_millis() as u64));
        }
        // What was interrupted is read again, by the next process.
        if done && !self.paced.stopped() {
            self.pass().bytes += self.paced.bytes() - read_before;
            if now.0.saturating_sub(self.saved.0) >= SAVE_EVERY.as_millis() as u64 {
                self.save(now);
            }
        }
        Next::Now
    }

    fn pass(&mut self) -> &mut ScrubPass {
        self.state.pass.as_mut().expect("a pass is under way")
    }

    /// Whether there is neither an entry nor a snapshot.
    fn has_nothing(&self) -> bool {
        let names = self.reader.shared().storage.list();
        // What cannot be listed may be there: the pass that begins then tries it again.
        self.sealed_from(0).next().is_none() && self.written().is_none() && names.is_ok_and(|names| snapshots(&names).is_empty())
    }

    /// What a pass would read now, but for the indexes and the segment that is being written.
    fn bytes_to_read(&self) -> u64 {
        let shared = self.reader.shared();
        let sealed = self.sealed_from(0).map(|sealed| sealed.segment_bytes).sum::<u64>();
        let names = shared.storage.list().unwrap_or_default();
        let size = |seq: Seq| shared.storage.open(&snapshot_name(seq)).and_then(|file| file.size()).unwrap_or(0);
        sealed + snapshots(&names).into_iter().map(size).sum::<u64>()
    }

    /// Numbers of the first segment that is there and of the one that is being written.
    fn segments(&self) -> (u64, u64) {
        let places = self.reader.shared().places.read().expect("no thread panics while it holds the places");
        places.range().expect("a log has at least one segment")
    }

    /// The segments from this one on that another one follows.
    fn sealed_from(&self, from: u64) -> impl Iterator<Item = Sealed> + '_ {
        let shared = self.reader.shared();
        let places = || shared.places.read().expect("no thread panics while it holds the places");
        let ((first, last), log_id) = (self.segments(), shared.log_id);
        (first.max(from)..last).filter_map(move |index| {
            let places = places();
            let ((first, last), segment_bytes) = places.sealed(index).zip(places.segment_bytes(index))?;
            Some(Sealed { log_id, index, segment_bytes, first, last })
        })
    }

    /// The segment that is being written, if something of it is durable.
    fn written(&self) -> Option<Sealed> {
        let shared = self.reader.shared();
        // The head first: the segment may be sealed meanwhile, and then it ends with a later entry.
        let head = shared.head();
        let places = shared.places.read().expect("no thread panics while it holds the places");
        let (_, index) = places.range()?;
        let (first, segment_bytes) = (places.segment_start(index)?.first_seq, places.segment_bytes(index)?);
        (first <= head).then_some(Sealed { log_id: shared.log_id, index, segment_bytes, first, last: head })
    }

    fn next_sealed(&self) -> Option<Sealed> {
        self.sealed_from(self.state.next_segment).next()
    }

    /// The next snapshot of those that are there when the segments are done with. If they are large or many, another one is always taken
    /// while one is read: that one belongs to the next pass.
    fn next_snapshot(&mut self) -> io::Result<Option<Seq>> {
        let through = *self.snapshots_through.get_or_insert(self.reader.head());
        let names = self.reader.shared().storage.list()?;
        let left = self.state.last_snapshot.0 + 1..=through.0;
        Ok(snapshots(&names).into_iter().filter(|seq| left.contains(&seq.0)).min())
    }

    fn begin(&mut self, now: UnixMs, bytes: u64, needed: Duration) {
        if needed > READ_AGAIN_WITHIN {
            let (bytes_per_second, enough) = (self.scrubbing.bytes_per_second, rate_needed(bytes));
            tracing::warn!(
                event = "scrub_slow",
                bytes,
                bytes_per_second,
                enough,
                "at this rate the ledger is not read again within two weeks; raise scrub_bytes_per_second to what is enough"
            );
        }
        tracing::debug!(bytes, "everything that is durable is read again");
        self.state.pass = Some(ScrubPass { at: now, ..ScrubPass::default() });
        (self.state.next_segment, self.state.last_snapshot, self.snapshots_through) = (0, Seq(0), None);
        self.forget_gone(&[Kind::Index, Kind::Snapshot]);
    }

    /// Nothing is there yet, so nothing can be said to have been read.
    fn later(&self, now: UnixMs) -> Next {
        Next::At(begins_at(Some(now), now, self.scrubbing.every, Duration::ZERO))
    }

    fn end(&mut self, now: UnixMs, pass: ScrubPass) -> Next {
        let ScrubPass { at, files, bytes, damaged } = pass;
        self.state.pass = None;
        if files == 0 {
            // What there was has gone meanwhile.
            return self.later(now);
        }
        let took_s = now.0.saturating_sub(at.0) / 1000;
        tracing::info!(event = "scrub_ended", files, bytes, damaged, took_s, "everything that is durable was read again");
        self.state.last = Some(ScrubPass { at: now, ..pass });
        self.forget_gone(&[Kind::Snapshot]);
        self.save(now);
        Next::Now
    }

    /// Of files of these kinds that are gone nothing is to be told any more. A segment that is gone is damage; an index that was dropped
    /// is told of until the next pass, so that it is seen.
    fn forget_gone(&mut self, kinds: &[Kind]) {
        if let Ok(names) = self.reader.shared().storage.list() {
            self.state.damaged.retain(|name| names.contains(name) || !kinds.contains(&Kind::of(name)));
        }
    }

    /// Writes down where the pass is.
    pub fn save(&mut self, now: UnixMs) {
        self.saved = now;
        if let Err(error) = self.state.write(&self.reader.shared().storage) {
            tracing::warn!(
                event = "scrub_unwritten", %error,
                "where scrubbing is could not be written down; after a restart it reads some files once more"
            );
        }
    }

    /// A segment and its index; whether both could be judged.
    fn segment(&mut self, sealed: &Sealed) -> bool {
        let Sealed { log_id, index, first, last, .. } = *sealed;
        let subject = Subject { log_id, segment: index, first, last };
        // Both are noted or neither: what is not done with is read again, and must not count twice.
        let Some(verdict) = self.judge(|paced| check::segment(paced, sealed)) else { return false };
        let Some(indexed) = self.judge(|paced| check::index(paced, subject)) else { return false };
        self.note_segment(index, verdict);
        if matches!(indexed, Verdict::Damaged(_)) {
            if let Err(error) = self.reader.discard_index(index) {
                tracing::error!(
                    event = "index_kept", %error, segment = index,
                    "the damaged index could not be removed; whoever needs it makes it again"
                );
            }
        }
        self.note(index_name(index), indexed, |file, fault| {
            tracing::error!(
                event = "scrub_damaged", kind = "index", %file, offset = fault.offset, cause = %fault.what,
                "the index of a segment is damaged on the disk; it is dropped and made again; look at the disk"
            );
        });
        self.state.next_segment = index + 1;
        true
    }

    /// The segment that is being written; whether it could be judged.
    fn active(&mut self, active: &Sealed) -> bool {
        let Some(verdict) = self.judge(|paced| check::active(paced, active)) else { return false };
        self.note_segment(active.index, verdict);
        self.state.next_segment = active.index + 1;
        true
    }

    fn note_segment(&mut self, index: u64, verdict: Verdict) {
        self.note(segment_name(index), verdict, |file, fault| {
            tracing::error!(
                event = "scrub_damaged", kind = "segment", %file, offset = fault.offset, cause = %fault.what,
                "a segment is damaged on the disk; what stands there is refused and never served; put the copy of a backup in its \
                 place, and look at the disk"
            );
        });
    }

    fn snapshot(&mut self, seq: Seq) -> bool {
        let log_id = self.reader.shared().log_id;
        let Some(verdict) = self.judge(|paced| check::snapshot(paced, log_id, seq)) else { return false };
        self.note(snapshot_name(seq), verdict, |file, fault| {
            tracing::error!(
                event = "scrub_damaged", kind = "snapshot", %file, cause = %fault.what,
                "a snapshot is damaged on the disk; a start uses the one before it, or the whole ledger, and the auditor goes back there \
                 by itself when it needs it; look at the disk"
            );
        });
        self.state.last_snapshot = seq;
        true
    }

    /// What a file is found to be, at a second reading if the first one finds it damaged; `None` if reading was ended, or the system did
    /// not let it be judged.
    fn judge(&self, check: impl Fn(&Paced<S>) -> Verdict) -> Option<Verdict> {
        let mut verdict = check(&self.paced);
        if matches!(verdict, Verdict::Damaged(_)) {
            verdict = check(&self.paced);
        }
        if let Verdict::Unjudged(cause) = &verdict {
            tracing::warn!(event = "scrub_unjudged", %cause, "a file could not be judged; it is read again later");
            return None;
        }
        (!self.paced.stopped()).then_some(verdict)
    }

    fn note(&mut self, name: String, verdict: Verdict, tell: impl Fn(&str, &Fault)) {
        match verdict {
            Verdict::Unjudged(_) => unreachable!("what could not be judged is not noted"),
            Verdict::Gone => {
                self.state.damaged.remove(&name);
            }
            Verdict::Good => {
                self.state.damaged.remove(&name);
                self.pass().files += 1;
            }
            Verdict::Damaged(fault) => {
                tell(&self.paced.place(&name), &fault);
                let pass = self.pass();
                (pass.files, pass.damaged) = (pass.files + 1, pass.damaged + 1);
                self.state.damaged.insert(name);
            }
        }
    }
}
