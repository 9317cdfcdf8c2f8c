//! A disk that brings back what it once had: a batch that a crash has cut off, intact, in the place in which another one was
//! committed since. Number, place and epoch of such a batch are right; that it is of another branch only the chain tells.
//!
//! It comes back while no server runs, behind every snapshot and not in place of the last commit, so that whoever starts has to
//! read it and what follows it.
use crate::rng::Rng;
use crate::snapshots::bytes;
use crate::swarm::Lie;
use crate::world::World;
use svc_wallet::ledger::snapshot::snapshots;
use svc_wallet::ledger::Storage;

const BLOCK: usize = 4096;

#[derive(Default)]
pub struct OlderExtents {
    /// The last segment as it was when the server ended.
    before: Option<(String, Vec<u8>)>,
    gone: Vec<Older>,
}

/// One block that was written and is no more.
struct Older {
    segment: String,
    at: usize,
    block: Vec<u8>,
    /// The last entry before it.
    head: u64,
}

impl World {
    /// The server has ended: remembers what it had written.
    pub fn note_written(&mut self) {
        if self.swarm.lie != Some(Lie::OlderExtent) || self.lied().is_some() || self.older.before.is_some() {
            return;
        }
        self.older.before = self.last_segment().map(|segment| (segment.clone(), bytes(&self.storage, &segment)));
    }

    /// The server runs again: remembers what is gone of that.
    pub fn note_gone(&mut self) {
        let Some((segment, before)) = self.older.before.take() else { return };
        if self.storage.open(&segment).is_err() {
            return;
        }
        let now = bytes(&self.storage, &segment);
        let is_gone = |at: usize| {
            let (was, is) = (before.get(at..at + BLOCK), now.get(at..at + BLOCK));
            was.is_some_and(|was| was.iter().any(|byte| *byte != 0)) && is.map_or(true, |is| is.iter().all(|byte| *byte == 0))
        };
        // Of a batch of one block, which fits wherever another one was committed.
        let single = |at: &usize| is_gone(*at) && !is_gone(at + BLOCK) && !(*at > 0 && is_gone(at - BLOCK));
        let head = self.model.head();
        let gone = (0..before.len()).step_by(BLOCK).filter(single);
        self.older.gone.extend(gone.map(|at| Older {
            segment: segment.clone(),
            at,
            block: before[at..at + BLOCK].to_vec(),
            head,
        }));
    }

    /// Brings one back, if the time for that has come and there is one with two commits behind it.
    pub fn bring_back(&mut self, rng: &mut Rng) {
        if !self.faults().is_armed(Lie::OlderExtent) || rng.percent(40) {
            return;
        }
        let newest = snapshots(&self.storage.list().unwrap()).first().map_or(0, |seq| seq.0);
        let covers = |head: u64| self.model.commits.iter().filter(|last| **last > head).count() >= 2 && newest <= head;
        let there = |older: &Older| self.storage.open(&older.segment).is_ok();
        let Some(older) = self.older.gone.iter().rfind(|older| covers(older.head) && there(older)) else { return };
        self.storage.tamper(&older.segment, |bytes| {
            bytes.resize(bytes.len().max(older.at + BLOCK), 0);
            bytes[older.at..older.at + BLOCK].copy_from_slice(&older.block);
        });
        self.say(|| format!("what stood behind entry {} is back in {} at {}", older.head, older.segment, older.at));
        self.faults().brought_back();
    }
}
