//! Scrubbing in histories: one file after the other is read again while everything else goes on, across crashes. It calls nothing damaged
//! that is good; and at rest every snapshot that has rotted is named.
use crate::snapshots::is_whole;
use crate::world::World;
use std::collections::BTreeSet;
use std::time::Duration;
use svc_wallet::ledger::snapshot::{snapshot_name, snapshots};
use svc_wallet::ledger::{MemoryStorage, Reader, ScrubKind, ScrubState, ScrubWork, Scrubbing, Storage};

/// Steps within which two passes have ended, whatever a history has written.
const STEPS_MAX: u64 = 10_000;

/// What the thread that scrubs does, without a pause.
pub fn scrub_work(reader: &Reader<MemoryStorage>) -> ScrubWork<MemoryStorage> {
    let scrubbing = Scrubbing { every: Duration::ZERO, bytes_per_second: u64::MAX };
    ScrubWork::new(reader, scrubbing, Box::new(|_, _| true))
}

impl World {
    /// The next file is read again.
    pub fn scrub(&mut self) {
        let told = self.faults().told;
        let (now, process) = (self.now, self.process());
        let before = process.scrub.figures();
        let next = process.scrub.step(now);
        let after = process.scrub.figures();
        if after.last_end != before.last_end {
            self.coverage.count("scrub: pass ended");
        }
        let excused = self.lied().is_some() || self.faults().told > told;
        for (kind, (before, after)) in ScrubKind::ALL.into_iter().zip(before.damaged.into_iter().zip(after.damaged)) {
            if after > before {
                let (damaged, what) = match kind {
                    ScrubKind::Segment => (false, "scrub: segment found damaged"),
                    ScrubKind::Index => (!self.bad_indexes.is_empty(), "scrub: index found damaged"),
                    ScrubKind::Snapshot => (!self.rotten.is_empty(), "scrub: snapshot found damaged"),
                };
                assert!(excused || damaged, "what is good is called damaged: {kind:?}, {next:?}");
                self.coverage.count(what);
            }
        }
    }

    /// At rest two passes have seen everything as it is now.
    pub fn check_scrubbing(&mut self) {
        if self.model.head() == 0 && snapshots(&self.storage.list().unwrap()).is_empty() {
            return self.coverage.count("scrub: nothing to read");
        }
        for _ in 0..2 {
            let before = self.process().scrub.figures().last_end;
            // Each pass ends later than the one before.
            self.now.0 = self.now.0.max(before.0) + 1;
            let mut steps = 0;
            while self.process().scrub.figures().last_end == before {
                self.scrub();
                steps += 1;
                assert!(steps < STEPS_MAX, "a pass ends");
            }
        }
        let state = ScrubState::read(&self.storage).expect("what scrubbing notes can be read").expect("a pass has ended");
        let of_snapshots: BTreeSet<String> = state.damaged.into_iter().filter(|name| name.starts_with("snapshot-")).collect();
        let copy = self.storage.fork();
        let names = snapshots(&copy.list().unwrap()).into_iter().map(snapshot_name);
        let rotten: BTreeSet<String> = names.filter(|name| !is_whole(&copy, name)).collect();
        assert_eq!(of_snapshots, rotten, "scrubbing names the snapshots that are damaged, and no others");
        if !rotten.is_empty() {
            self.coverage.count("scrub: damaged snapshots named at rest");
        }
    }
}
