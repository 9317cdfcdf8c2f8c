//! The passes of a verification over keys: the first goes with the replay, further ones read the entries again, and only if keys seem
//! to be used twice or did not fit memory.
use super::repeats::{key_id, Candidates, Fingerprints, Repeat, Repeats, Rule};
use super::replay::{seeds, Refuted, Suspect};
use crate::domain::{Entry, Found, LogId, Seq, UsedKey};
use crate::ledger::batch::for_each_entry;
use crate::ledger::layout::Fault;
use crate::ledger::mark::Mark;
use crate::ledger::scan::{Scan, Seen, SeenBatch, Segments};
use crate::ledger::snapshot::Snapshot;
use crate::ledger::storage::Storage;
use crate::ledger::LedgerError;
use ahash::RandomState;
use std::ops::ControlFlow;
use std::time::Duration;

/// What all passes have in common.
pub(super) struct KeyPasses<'a, S: Storage> {
    pub storage: &'a S,
    pub segments: Segments,
    pub mark: Option<Mark>,
    /// The snapshot that has the keys of issues that are not here any more.
    pub base: Option<&'a Snapshot<S::File>>,
    pub rule: Rule,
    pub fingerprints: Fingerprints,
    pub keys_max: usize,
}

/// An entry with a key that was in use, or that seems to have been.
pub(super) struct DoubledKey {
    file: String,
    offset: u64,
    found: Found,
    log_id: LogId,
    repeat: Repeat,
    rule: Rule,
    earlier: Option<Found>,
}

/// A batch that cannot be taken apart, or an entry at which there is enough.
enum Halt {
    Fault(Fault),
    Enough,
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Halt::Fault(fault)
    }
}

impl<S: Storage> KeyPasses<'_, S> {
    /// A pass over the fingerprints from `from` on, and what came before the entry `first`.
    pub fn begin(&self, from: u64, first: Seq) -> Result<Candidates, LedgerError> {
        let mut pass = Candidates::new(self.rule, self.fingerprints, from, self.keys_max);
        self.each_archived(first, &mut |key| pass.note(key.id, key.used))?;
        Ok(pass)
    }

    /// Ends the first pass, makes the others, and returns the first entry up to `through` that has used a key again.
    pub fn run(
        &self,
        mut pass: Candidates,
        first: Seq,
        through: Seq,
        tell: &mut dyn FnMut(&SeenBatch<'_>),
    ) -> Result<Option<DoubledKey>, LedgerError> {
        let mut found: Option<DoubledKey> = None;
        loop {
            let (candidates, last) = pass.end();
            if !candidates.is_empty() {
                let before = found.as_ref().map_or(through, |found| Seq(found.found.seq.0 - 1));
                found = self.look_for(candidates, first, before, tell)?.or(found);
            }
            let Some(next) = last.checked_add(1) else { break };
            pass = self.begin(next, first)?;
            self.each_entry(through, tell, &mut |_, _, entry| {
                pass.note(key_id(entry), entry.ts());
                ControlFlow::Continue(())
            })?;
        }
        if let Some(found) = &mut found {
            if let Repeat::Of(earlier) = found.repeat {
                self.each_entry(earlier, tell, &mut |batch, seq, entry| {
                    if seq == earlier {
                        found.earlier = Some(Found { entry: entry.bytes().into(), seq, root: batch.root });
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(found)
    }

    fn look_for(
        &self,
        candidates: Vec<u64>,
        first: Seq,
        through: Seq,
        tell: &mut dyn FnMut(&SeenBatch<'_>),
    ) -> Result<Option<DoubledKey>, LedgerError> {
        let [a, b, c, d] = seeds();
        let mut repeats = Repeats::new(self.rule, self.fingerprints, candidates, RandomState::with_seeds(a, b, c, d));
        self.each_archived(first, &mut |key| repeats.note_archived(key.id, key.seq, key.used))?;
        let mut found = None;
        self.each_entry(through, tell, &mut |batch, seq, entry| {
            let Some(repeat) = repeats.note(seq, entry) else { return ControlFlow::Continue(()) };
            found = Some(DoubledKey {
                file: batch.file.to_owned(),
                offset: batch.place.offset,
                found: Found { entry: entry.bytes().into(), seq, root: batch.root },
                log_id: batch.header.log_id,
                repeat,
                rule: self.rule,
                earlier: None,
            });
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The keys of issues before the entry `first`, as the snapshot has them.
    fn each_archived(&self, first: Seq, each: &mut dyn FnMut(&UsedKey)) -> Result<(), LedgerError> {
        let Some(base) = self.base else { return Ok(()) };
        Ok(base.for_each_key(&mut |key| {
            if key.seq < first {
                each(key);
            }
        })?)
    }

    /// The entries up to `through`, which have all been read before.
    fn each_entry(
        &self,
        through: Seq,
        tell: &mut dyn FnMut(&SeenBatch<'_>),
        each: &mut dyn FnMut(&SeenBatch<'_>, Seq, &Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        let (storage, segments, mark) = (self.storage, self.segments.clone(), self.mark);
        let scan = Scan { storage, segments, mark, start: None, sync: false, patient: true };
        let begun = if self.base.is_some() { scan.beginning()? } else { scan.at_first() };
        let (mut enough, mut seen) = (false, begun.head);
        let scanned = scan.run_from(begun, &mut |next| {
            let Seen::Batch(batch) = next else { return Ok(()) };
            tell(&batch);
            let walked = for_each_entry(&batch.header, batch.body, |seq, entry| {
                let goes_on = seq <= through && each(&batch, seq, &entry).is_continue();
                goes_on.then_some(()).ok_or(Halt::Enough)
            });
            enough = matches!(walked, Err(Halt::Enough));
            seen = batch.header.last_seq();
            let what = match walked {
                Ok(()) => return Ok(()),
                // Only an error ends a scan; nobody sees the one that says nothing.
                Err(Halt::Enough) => String::new(),
                Err(Halt::Fault(fault)) => fault.to_string(),
            };
            Err(LedgerError::Incomplete { place: batch.file.to_owned(), what })
        });
        match scanned {
            // What was wrong behind these entries has been seen before.
            Err(_) if enough || seen >= through => Ok(()),
            Err(fault) => Err(fault),
            Ok(_) => Ok(()),
        }
    }
}

impl DoubledKey {
    /// What is told of it.
    pub fn refuted(self, entries: u64) -> Refuted {
        let (entry, _) = Entry::parse_own(&self.found.entry);
        let (key, owner, ttl) = (entry.key(), entry.owner(), humantime::format_duration(Duration::from_millis(self.rule.ttl_ms)));
        let what = match self.repeat {
            Repeat::Of(earlier) => format!(
                "{owner} uses the idempotency key {key} a second time: entry {} has used it, and a key is remembered for {ttl}",
                earlier.0
            ),
            Repeat::PerhapsOf(archived) => format!(
                "{owner} seems to use the idempotency key {key} a second time: entry {}, which is not here any more, has used one of \
                 the same hash, and a key is remembered for {ttl}; move its segment back and verify again to be certain",
                archived.0
            ),
        };
        let (Repeat::Of(repeats) | Repeat::PerhapsOf(repeats)) = self.repeat;
        let fault = LedgerError::Broken { file: self.file, offset: self.offset, seq: self.found.seq, what };
        let (found, earlier) = (self.found, self.earlier);
        let suspect = Suspect { log_id: self.log_id, found, accounts: Vec::new(), repeats: Some(repeats), earlier };
        Refuted { fault, suspect: Some(Box::new(suspect)), entries, start: None, rest: Box::default() }
    }
}
