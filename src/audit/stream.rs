//! The writer of the stream: what became durable, what was refused, and what was done to the service, as lines.
//!
//! Invariants: accepted operations come out of the ledger alone, so that a crash loses none and repeats none: the stream says with each
//! how far it has come, and goes on behind that. Refusals come from the cores' queues, a bounded number a second; what is more is
//! counted in the stream. Lines that could not be written are kept, and nothing new is taken before they are: memory is bounded, and a
//! full disk is caught up with by itself. It has no thread and no clock.
use super::chain::Chain;
use super::event::{Event, EventKind};
use super::fault::AuditFault;
use super::figures::AuditFigures;
use super::holders::Holders;
use super::line::Line;
use super::signer::{Checkpoint, Signer};
use super::store::{last_line, log_of, txid_of, Store};
use super::write::After;
use crate::domain::{bytes_of_hex, Entry, LogId, Question, Seq, TokenId, TxId, UnixMs, DAY_MS};
use crate::ledger::{ReadLedger, Storage};
use crate::telemetry::feed::{drop_place, Asked, DropCounts, Intake, EVENT};
use crossbeam_channel::Receiver;
use std::io;
use std::ops::ControlFlow;

/// Bytes of lines that are collected before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Entries that are followed before refusals and events have their turn again.
const ROUND_ENTRIES_MAX: u64 = 1 << 16;
/// Time between two checkpoints, if there were lines, in milliseconds.
const CHECKPOINT_EVERY_MS: u64 = 10_000;
/// Time between two lines about what was dropped, in milliseconds.
const DROPPED_EVERY_MS: u64 = 1_000;
/// Pause before what may not be on the disk is written again once more, in milliseconds.
const AGAIN_EVERY_MS: u64 = 1_000;
/// Control events that wait for the stream; what is more is counted.
pub const EVENTS_MAX: usize = 64;

/// How much the stream takes and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Size at which a file is full, in bytes; one more write may go into it.
    pub rotate_bytes: u64,
    /// Files that are kept; all if absent.
    pub keep: Option<u32>,
    /// Refusals that are written in one second; what is more is counted.
    pub refusals_per_second: u64,
}

/// What was found when a stream was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last line.
    pub line: u64,
    /// The last entry of the ledger that it has.
    pub through: Seq,
    /// Bytes of an interrupted write that were cut off.
    pub torn: u64,
    /// What is damaged, if something is; the stream goes on in a new file, and what is damaged stays as it is.
    pub damaged: Option<String>,
    /// Why the last checkpoint is perhaps not one that this server has signed, if that is so.
    pub distrusted: Option<String>,
}

/// One stream.
pub struct Stream<S: Storage> {
    store: Store<S>,
    bounds: Bounds,
    log: LogId,
    /// Behind everything in `pending`.
    chain: Chain,
    /// Behind what is known to be on the disk.
    sure: Chain,
    /// When it was tried last to make sure of the rest.
    again_at: UnixMs,
    /// What the last failure to do so was.
    unsynced: String,
    /// Lines that are not written yet.
    pending: Vec<u8>,
    /// A file has to be begun before anything else is written.
    begin: Option<After>,
    holders: Holders,
    /// What was dropped and is not told yet, since when, and when some was told last.
    dropped: DropCounts,
    dropped_since: Option<UnixMs>,
    dropped_told: UnixMs,
    /// The second that runs, and how many refusals of each core may still be written in it.
    second: u64,
    left: Vec<u64>,
    checkpoint_at: UnixMs,
    day: u64,
    /// Whether stream and ledger have been compared.
    aligned: bool,
    /// The last accepted operation, if it is known.
    last: Option<(Seq, String)>,
    /// By whom checkpoints are signed.
    signer: Option<Signer>,
    /// Events about the stream itself, for the next round.
    own: Vec<Event>,
    figures: AuditFigures,
}

impl<S: Storage> Stream<S> {
    /// Takes the stream in this directory, or begins one there. Nothing is read but its first line: [`Stream::recover`] comes next.
    ///
    /// # Errors
    /// If another process writes there, or it belongs to another ledger.
    pub fn open(storage: S, log: LogId, bounds: Bounds, figures: AuditFigures) -> Result<Self, AuditFault> {
        let store = Store::open(storage)?;
        let place = store.storage().place("");
        let found = log_of(store.storage()).map_err(AuditFault::io(place.as_str(), "look into the stream"))?;
        if let Some(found) = found.filter(|found| *found != log) {
            return Err(AuditFault::OtherLedger { place, expected: log, found });
        }
        Ok(Self {
            store,
            bounds,
            log,
            chain: Chain::BEGINNING,
            sure: Chain::BEGINNING,
            again_at: UnixMs(0),
            unsynced: String::new(),
            pending: Vec::new(),
            begin: None,
            holders: Holders::default(),
            dropped: DropCounts::default(),
            dropped_since: None,
            dropped_told: UnixMs(0),
            second: 0,
            left: Vec::new(),
            checkpoint_at: UnixMs(0),
            day: 0,
            aligned: false,
            last: None,
            signer: None,
            own: Vec::new(),
            figures,
        })
    }

    /// The same, with its checkpoints signed.
    pub fn signed_by(self, signer: Signer) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// Finds the place at which the stream goes on, and cuts an interrupted write off.
    ///
    /// # Errors
    /// If a file cannot be read or cut; it can be asked again.
    pub fn recover(&mut self, now: UnixMs) -> Result<Recovered, AuditFault> {
        let (holders, mut last, mut checkpoint) = (&mut self.holders, None, None);
        let found = self.store.recover(&mut |line| {
            if &*line.kind == "checkpoint" {
                checkpoint = Checkpoint::of(line);
            }
            let token = line.token_id.as_deref().and_then(bytes_of_hex).map(TokenId);
            if let (Some(token), Some(subject)) = (token, line.subject.as_deref()) {
                holders.learn(token, subject);
            }
            if line.is_accepted() {
                last = line.seq.zip(line.txid.as_deref()).map(|(seq, txid)| (Seq(seq), txid.to_owned()));
            }
        });
        let place = self.store.storage().place("");
        let found = found.map_err(AuditFault::io(place.as_str(), "read the stream"))?;
        if checkpoint.is_none() && found.chain.file > 1 {
            // A file that has none yet was begun behind one.
            let line = last_line(self.store.storage(), found.chain.file - 1).map_err(AuditFault::io(place, "read the stream"))?;
            checkpoint = line.as_deref().and_then(Line::read).and_then(|line| Checkpoint::of(&line));
        }
        let distrusted = checkpoint.zip(self.signer.as_ref());
        let distrusted = distrusted.and_then(|(found, signer)| Some((found.n, found.distrusted(signer, self.log)?)));
        if let Some((n, what)) = &distrusted {
            let event = Event::new(EventKind::Stream, false).with("what", "checkpoint");
            self.own.push(event.with("line", n.to_string()).with("error", what));
        }
        self.begin = match (found.begun, &found.damaged, found.chain.n) {
            (true, ..) => None,
            (false, Some(_), _) => Some(After::Damage),
            (false, None, 0) => Some(After::Nothing),
            (false, None, _) => Some(After::Full),
        };
        (self.chain, self.sure) = (found.chain, found.sure);
        (self.last, self.checkpoint_at, self.day) = (last, now, now.0 / DAY_MS);
        self.figures.written(self.chain.n, self.chain.through);
        let (line, through) = (self.chain.n, self.chain.through);
        let distrusted = distrusted.map(|(n, what)| format!("the checkpoint in line {n}: {what}"));
        Ok(Recovered { line, through, torn: found.torn, damaged: found.damaged, distrusted })
    }

    /// Takes what there is; whether there is more that can be taken at once.
    ///
    /// # Errors
    /// If lines cannot be written, or the ledger cannot be read; the next round goes on where this one ended.
    pub fn round(
        &mut self,
        now: UnixMs,
        ledger: &mut dyn ReadLedger,
        feeds: &[Intake],
        events: &Receiver<Event>,
    ) -> Result<bool, AuditFault> {
        self.settle(now)?;
        // Whose a token is was told before an entry under it was handed in: so it is known for every entry up to this one.
        let head = ledger.head();
        self.learn(now, feeds);
        for event in std::mem::take(&mut self.own) {
            self.note(now, &event);
        }
        for event in events.try_iter().take(EVENTS_MAX) {
            self.note(now, &event);
        }
        self.refusals(now, feeds);
        self.tell_dropped(now, DROPPED_EVERY_MS);
        let followed = self.follow(now, ledger, head);
        self.settle(now)?;
        let more = followed?;
        if now.0 / DAY_MS != self.day && !self.chain.at_checkpoint {
            self.rotate(now, After::Day)?;
        } else if now.0.saturating_sub(self.checkpoint_at.0) >= CHECKPOINT_EVERY_MS {
            self.checkpoint(now)?;
        }
        if !more {
            self.figures.caught_up(now);
        }
        Ok(more)
    }

    /// Takes note of an event, behind what was settled.
    fn note(&mut self, now: UnixMs, event: &Event) {
        self.chain.write_event(&mut self.pending, now, event);
    }

    /// Counts events that found no room.
    pub fn events_dropped(&mut self, count: u64) {
        let mut counts = DropCounts::default();
        counts[EVENT] = count;
        self.figures.dropped_more(&counts);
        self.dropped[EVENT] += count;
    }

    /// The orderly end: what there is stands in the files, durably, with this event behind it, if there is one, and a checkpoint.
    ///
    /// # Errors
    /// If that cannot be; the next start goes on where this one ended.
    pub fn close(&mut self, now: UnixMs, last: Option<&Event>) -> Result<(), AuditFault> {
        self.again_at = UnixMs(0);
        self.settle(now)?;
        self.tell_dropped(now, 0);
        for event in std::mem::take(&mut self.own).iter().chain(last) {
            self.note(now, event);
        }
        self.settle(now)?;
        self.checkpoint(now)?;
        self.sync(now)
    }

    fn learn(&mut self, now: UnixMs, feeds: &[Intake]) {
        for holder in feeds.iter().flat_map(Intake::holders) {
            if self.holders.learn(holder.token, &holder.subject) {
                self.chain.write_token(&mut self.pending, now, &holder);
            }
        }
    }

    fn refusals(&mut self, now: UnixMs, feeds: &[Intake]) {
        let second = now.0 / 1_000;
        if second != self.second || self.left.len() != feeds.len() {
            let each = self.bounds.refusals_per_second.div_ceil(feeds.len().max(1) as u64);
            (self.second, self.left) = (second, vec![each; feeds.len()]);
        }
        let mut counts = DropCounts::default();
        for (feed, left) in feeds.iter().zip(&mut self.left) {
            for refused in feed.refusals() {
                if *left == 0 {
                    counts[drop_place(refused.reason)] += 1;
                    continue;
                }
                *left -= 1;
                let subject = match (&refused.holder, &refused.asked) {
                    (Some((_, subject)), _) => Some(&**subject),
                    (None, Asked::Entry(bytes)) => self.holders.subject(Entry::parse_own(bytes).0.token()),
                    (None, Asked::Unread { .. }) => None,
                };
                self.chain.write_refused(&mut self.pending, &refused, subject);
            }
            feed.take_dropped(&mut counts);
        }
        self.figures.dropped_more(&counts);
        self.dropped.iter_mut().zip(counts).for_each(|(dropped, count)| *dropped += count);
    }

    fn tell_dropped(&mut self, now: UnixMs, every_ms: u64) {
        if self.dropped.iter().all(|count| *count == 0) {
            return;
        }
        let since = *self.dropped_since.get_or_insert(now);
        if now.0.abs_diff(self.dropped_told.0) >= every_ms {
            self.chain.write_dropped(&mut self.pending, now, since, &std::mem::take(&mut self.dropped));
            (self.dropped_since, self.dropped_told) = (None, now);
        }
    }

    /// Follows the ledger up to this entry; whether it ended before.
    fn follow(&mut self, now: UnixMs, ledger: &mut dyn ReadLedger, head: Seq) -> Result<bool, AuditFault> {
        if !self.aligned {
            self.align(now, ledger)?;
        }
        let first = Seq(self.chain.through.0 + 1);
        if first > head {
            return Ok(false);
        }
        let mut failed = None;
        ledger.scan(first, &mut |seq, _, entry| {
            if seq > head || seq.0 - first.0 >= ROUND_ENTRIES_MAX {
                return ControlFlow::Break(());
            }
            if seq.0 != self.chain.through.0 + 1 {
                failed = Some(AuditFault::Missing { expected: Seq(self.chain.through.0 + 1) });
                return ControlFlow::Break(());
            }
            let subject = self.holders.subject(entry.token());
            self.chain.write_accepted(&mut self.pending, self.log, seq, &entry, subject);
            if self.pending.len() as u64 >= self.bounds.rotate_bytes.min(WRITE_BYTES as u64) {
                if let Err(fault) = self.settle(now) {
                    failed = Some(fault);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        match failed {
            Some(fault) => Err(fault),
            None => Ok(self.chain.through < head),
        }
    }

    /// Compares what both have, once, and says in the stream what the ledger does not have any more.
    fn align(&mut self, now: UnixMs, ledger: &mut dyn ReadLedger) -> Result<(), AuditFault> {
        let (head, first, through) = (ledger.head(), ledger.first(), self.chain.through);
        let common = through.min(head);
        if common > Seq(0) && common >= first {
            let place = self.store.storage().place("");
            let own = match self.last.take().filter(|(seq, _)| *seq == common) {
                Some((_, txid)) => Some(txid),
                None => txid_of(self.store.storage(), common.0).map_err(AuditFault::io(place.as_str(), "read the stream"))?,
            };
            let found = ledger.find(&Question::At(common))?;
            let found = found.map(|found| TxId::new(self.log, common, &Entry::parse_own(&found.entry).0).to_string());
            if own.is_some() && own != found {
                return Err(AuditFault::OtherBranch { place, seq: common });
            }
        }
        if head < through {
            self.chain.write_rewind(&mut self.pending, now, head);
        }
        if first.0 > self.chain.through.0 + 1 {
            self.chain.write_gap(&mut self.pending, now, Seq(first.0 - 1));
        }
        self.aligned = true;
        Ok(())
    }

    /// Writes what is pending, and goes on in a new file where the present one is full.
    fn settle(&mut self, now: UnixMs) -> Result<(), AuditFault> {
        if self.store.is_unsure() {
            self.make_sure(now)?;
        }
        self.flush(now)?;
        if self.store.length() >= self.bounds.rotate_bytes {
            self.rotate(now, After::Full)?;
        }
        Ok(())
    }

    fn flush(&mut self, now: UnixMs) -> Result<(), AuditFault> {
        if let Some(after) = self.begin {
            // Lines that were made before there was a file have their numbers behind its first line.
            assert!(self.pending.is_empty(), "a file is begun between two writes");
            let (place, number) = (self.store.storage().place(""), self.chain.file + 1);
            self.store.create(number).map_err(AuditFault::io(place, "begin a file of the stream"))?;
            self.chain.write_begin(&mut self.pending, now, self.log, after);
            (self.begin, self.day) = (None, now.0 / DAY_MS);
        }
        if !self.pending.is_empty() {
            self.store.append(&self.pending).map_err(AuditFault::io(self.store.place(), "append to the stream"))?;
            self.pending.clear();
            self.figures.written(self.chain.n, self.chain.through);
        }
        Ok(())
    }

    fn rotate(&mut self, now: UnixMs, after: After) -> Result<(), AuditFault> {
        self.checkpoint(now)?;
        self.sync(now)?;
        self.begin = Some(after);
        self.flush(now)?;
        if let Some(error) = self.bounds.keep.and_then(|keep| self.store.keep(keep).err()) {
            tracing::warn!(event = "audit_file_kept", %error, "an old file of the audit stream could not be removed; the next rotation tries again");
        }
        Ok(())
    }

    fn checkpoint(&mut self, now: UnixMs) -> Result<(), AuditFault> {
        self.checkpoint_at = now;
        if self.chain.at_checkpoint || !self.store.is_begun() {
            return Ok(());
        }
        self.sync(now)?;
        let signature = match self.signer.as_ref().zip(self.chain.signed()) {
            None => None,
            Some((signer, signed)) => match (signer.sign)(&signed, now) {
                // One without a signature would look as if somebody had taken it away.
                None => return Ok(()),
                signature => signature,
            },
        };
        self.chain.write_checkpoint(&mut self.pending, now, signature.as_deref());
        self.flush(now)
    }

    fn sync(&mut self, now: UnixMs) -> Result<(), AuditFault> {
        debug_assert!(self.pending.is_empty(), "what is known to be on the disk ends where the chain does");
        if let Err(error) = self.store.sync() {
            self.again_at = now;
            return Err(self.unsynced(Some(error)));
        }
        self.sure = self.chain.clone();
        Ok(())
    }

    /// Makes sure of what a failed sync has left open, by writing it again. Before that nothing is written behind it, and nothing signed.
    fn make_sure(&mut self, now: UnixMs) -> Result<(), AuditFault> {
        if now.0.abs_diff(self.again_at.0) < AGAIN_EVERY_MS {
            return Err(self.unsynced(None));
        }
        self.again_at = now;
        let mut chain = self.sure.clone();
        match self.store.write_again(&mut chain) {
            Ok(true) => self.sure = chain,
            Ok(false) => self.go_back(now)?,
            Err(error) => return Err(self.unsynced(Some(error))),
        }
        Ok(())
    }

    fn unsynced(&mut self, error: Option<io::Error>) -> AuditFault {
        if let Some(error) = error {
            self.unsynced = error.to_string();
        }
        AuditFault::Unsynced { place: self.store.place(), what: self.unsynced.clone() }
    }

    /// The system does not show any more what was written and not made durable: the stream goes on in a new file behind what is on the
    /// disk. Operations are derived from the ledger again; of the rest it is told how much there was.
    fn go_back(&mut self, now: UnixMs) -> Result<(), AuditFault> {
        let place = self.store.place();
        if let Err(error) = self.store.leave() {
            return Err(self.unsynced(Some(error)));
        }
        let (from, to, lost, kept) = (self.sure.n + 1, self.chain.n, self.chain.totals, self.sure.totals);
        let mut counts = DropCounts::default();
        counts[drop_place(None)] = lost.refused - kept.refused;
        self.figures.dropped_more(&counts);
        // What the lost lines had counted is counted once more in the stream.
        self.dropped[drop_place(None)] += lost.refused - kept.refused + (lost.dropped - kept.dropped);
        self.chain = self.sure.clone();
        self.pending.clear();
        self.begin = Some(if self.chain.n == 0 { After::Nothing } else { After::Damage });
        (self.aligned, self.last, self.day) = (false, None, now.0 / DAY_MS);
        let event = Event::new(EventKind::Stream, false).with("what", "lost");
        self.own.push(event.with("from_line", from.to_string()).with("to_line", to.to_string()));
        tracing::error!(
            event = "audit_lost", %place, from, to,
            "lines of the audit stream are not on the disk; it goes on in a new file behind the last one that is, and brings operations in \
             once more from the ledger"
        );
        Ok(())
    }
}

#[cfg(test)]
#[path = "stream_fault_tests.rs"]
mod fault_tests;
#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
