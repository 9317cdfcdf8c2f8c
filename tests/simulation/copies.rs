//! What an operator does with a ledger that is at rest, on copies of it: segments go to an archive, a backup is made and restored.
//! The power goes at any change to either disk, again and again, and nothing is lost on both.
use crate::core::Core;
use crate::model::State;
use crate::rng::Rng;
use crate::snapshots::{bytes, load};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use svc_wallet::domain::{Entry, Seq, UnixMs};
use svc_wallet::engine::Engine;
use svc_wallet::ledger::snapshot::{snapshots, Snapshot};
use svc_wallet::ledger::{
    archivable_through, archive_segments, back_up, restore, LedgerError, Log, MemoryFile, MemoryStorage, Recovery, Storage,
};

/// Interrupted attempts before one that nothing interrupts.
const ATTEMPTS: u64 = 3;
/// Changes after which the power goes at the latest: more than an archive of two segments takes, and more than a restoration.
const CHANGES: u64 = 24;
const COPY: &str = "copy.snap";

/// A log that was opened on a copy, and the cores that started from it.
struct Copy {
    log: Log<MemoryStorage>,
    recovery: Recovery,
    snapshot: Option<Snapshot<MemoryFile>>,
    engines: Vec<Engine>,
}

impl World {
    /// Of what is not synced, both disks keep what chance keeps.
    fn after_a_crash(&self, storage: &MemoryStorage, rng: &mut Rng) -> MemoryStorage {
        let keep = self.swarm.keep_percent;
        storage.crash(&mut || rng.percent(keep))
    }

    fn open_copy(&self, storage: &MemoryStorage) -> Result<Copy, LedgerError> {
        let (snapshot, mut engines) = load(storage, self.cores.len() as u16, self);
        let (log, recovery) = Log::open_after(storage.clone(), &self.options(), snapshot.as_ref(), &mut |seq, _, entry| {
            engines.iter_mut().try_for_each(|engine| engine.replay(&entry, seq, self.now))
        })?;
        if let Some(snapshot) = &snapshot {
            self.guard_earlier_keys(&log.reader(), snapshot.head().seq, &mut engines)?;
        }
        Ok(Copy { log, recovery, snapshot, engines })
    }

    /// What may go to an archive goes there. The keys that are still in their time stay, every segment is on one of the disks, and
    /// what stays is a ledger that starts and answers as before.
    pub fn archive(&mut self, rng: &mut Rng) {
        let sealed = self.storage.list().unwrap().iter().filter(|name| name.starts_with("segment-")).count();
        if sealed < 3 || snapshots(&self.storage.list().unwrap()).len() < 2 {
            return self.coverage.count("archive: nothing may go");
        }
        let (mut ledger, mut archive) = (self.storage.fork(), MemoryStorage::with_sectors(self.swarm.sector_bytes));
        let keys_over = UnixMs(self.now.0.saturating_sub(self.settings.idempotency_ttl_ms));
        let before = segments(&ledger);
        let mut moved = false;
        for attempt in 0..=ATTEMPTS {
            let interrupted = attempt < ATTEMPTS && rng.percent(70);
            if interrupted {
                let disk = if rng.percent(50) { &ledger } else { &archive };
                disk.fail_after(Some(rng.below(CHANGES)));
            }
            let outcome = archivable_through(&ledger, keys_over).map(|last| {
                moved |= last.is_some();
                last.map_or(Ok(0), |last| archive_segments(&ledger, &archive, last, &mut |_| ()))
            });
            match outcome {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    assert!(interrupted, "what may go can be archived: {error}");
                    self.coverage.count("crash: in archiving");
                }
                // Without the index of a segment, the history or a good snapshot nothing goes.
                Err(_) if !interrupted => self.coverage.count("archive: refused"),
                Err(_) => {}
            }
            if interrupted {
                (ledger, archive) = (self.after_a_crash(&ledger, rng), self.after_a_crash(&archive, rng));
                let (here, there) = (segments(&ledger), segments(&archive));
                let lost = before.iter().find(|(name, content)| ![here.get(*name), there.get(*name)].contains(&Some(*content)));
                assert_eq!(lost.map(|(name, _)| name), None, "every segment is in the ledger or in the archive");
            }
        }
        if !moved {
            return self.coverage.count("archive: nothing may go");
        }
        self.coverage.count("archive: segments moved");
        self.say(|| format!("{} of {} segments are archived", segments(&archive).len(), before.len()));
        let both: BTreeMap<_, _> = segments(&ledger).into_iter().chain(segments(&archive)).collect();
        assert!(both == before && segments(&ledger).len() + segments(&archive).len() == before.len(), "each is on one disk");
        let Copy { log, engines, snapshot, recovery } = self.open_copy(&ledger).expect("I-7: what an archive leaves opens");
        assert!(snapshot.is_some() && recovery.torn.is_none(), "snapshots stand in for what was archived");
        assert_eq!(state(&engines), self.model.state(), "I-7: snapshot and remaining segments give the state");
        let first = log.reader().first();
        let gone = &self.model.entries[..first.0 as usize - 1];
        let in_time = gone.iter().find(|placed| Entry::parse(&placed.entry).unwrap().0.ts() >= keys_over);
        assert_eq!(in_time, None, "keys that are still in their time are not archived");
        let mut copies: Vec<Core> = engines.into_iter().map(Core::new).collect();
        self.probe(&mut copies, &log.reader(), true, rng);
    }

    /// A backup is restored elsewhere. Where that is cut off, the directory starts as it should be or not at all.
    pub fn back_up_and_restore(&mut self, rng: &mut Rng) {
        if self.model.head() == 0 || rng.percent(75) {
            return;
        }
        let target = MemoryStorage::with_sectors(self.swarm.sector_bytes);
        back_up(&self.storage.fork(), &target, COPY, &mut |_| ()).expect("a ledger at rest can be backed up");
        for attempt in 0..=ATTEMPTS {
            let fresh = MemoryStorage::with_sectors(self.swarm.sector_bytes);
            let interrupted = attempt < ATTEMPTS;
            fresh.fail_after(Some(rng.below(CHANGES)).filter(|_| interrupted));
            let restored = restore(&target, COPY, &fresh, self.swarm.segment_bytes);
            let whole = restored.is_ok();
            assert!(whole || interrupted, "a backup can be restored: {:?}", restored.err().map(|error| error.to_string()));
            drop(restored);
            let ledger = if interrupted { self.after_a_crash(&fresh, rng) } else { fresh };
            let left: Vec<String> = ledger.list().unwrap().into_iter().filter(|name| !name.ends_with(".tmp")).collect();
            match self.open_copy(&ledger) {
                Ok(Copy { log, engines, .. }) if !left.is_empty() => {
                    assert_eq!(
                        log.head().0,
                        Seq(self.model.head()),
                        "a restored ledger goes on where the copy was made: {left:?}"
                    );
                    assert_eq!(state(&engines), self.model.state(), "I-7: a restored ledger has the state of the copied one");
                    self.coverage.count(if whole { "restore: done" } else { "restore: cut off, and done all the same" });
                }
                Ok(_) => assert!(!whole, "what was restored is durable"),
                Err(error) => {
                    assert!(!whole, "what was restored starts: {error}");
                    self.coverage.count("restore: cut off, does not start");
                }
            }
            if interrupted && !whole {
                self.coverage.count("crash: in a restoration");
            }
        }
    }
}

/// The segments of a directory.
fn segments(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let is_one = |name: &String| name.starts_with("segment-") && !name.ends_with(".tmp");
    storage.list().unwrap().into_iter().filter(is_one).map(|name| (name.clone(), bytes(storage, &name))).collect()
}

/// What engines have.
pub fn state<'e>(engines: impl IntoIterator<Item = &'e Engine>) -> State {
    let (mut values, mut nonces, mut budgets) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for engine in engines {
        // The same ones on every core.
        budgets = engine.budgets().all().into_iter().collect();
        engine.shard().for_each_balance(|account, asset, balance, nonce| {
            if balance.amount > 0 {
                values.insert((account.to_owned(), asset.to_owned(), balance.amount, balance.held));
            }
            nonces.insert(account.to_owned(), nonce.0);
        });
    }
    (values, nonces, budgets)
}
