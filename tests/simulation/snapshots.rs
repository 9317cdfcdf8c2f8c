//! Snapshots in histories: taken at any moment, torn by a power loss at any change to the disk, rotten, lied about; and the start from
//! them. Whatever becomes of the snapshots, the ledger is the truth: a start from one comes to the state that the whole ledger gives.
use crate::core::Core;
use crate::lookups::{answer, Probe};
use crate::rng::Rng;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use svc_wallet::domain::{Asset, AssetValue, CoreId, LogId, Seq};
use svc_wallet::engine::Engine;
use svc_wallet::ledger::snapshot::{newest_good, snapshot_name, snapshots, Pace, Snapshot, SnapshotError};
use svc_wallet::ledger::{AuditWork, LedgerError, Log, MemoryFile, MemoryStorage, Reader, Storage};
use svc_wallet::ring::Ring;
use svc_wallet::shard::Budgets;

/// Keys of the auditor's table.
const TABLE_SEEDS: [u64; 4] = [5, 6, 7, 8];

impl World {
    /// Engines with the state of the newest snapshot that is good in all its parts, or empty ones: what `src/control/replay.rs` does
    /// with a thread for each core.
    pub fn load_engines(&self, cores: u16) -> (Option<Snapshot<MemoryFile>>, Vec<Engine>) {
        load(&self.storage, cores, self)
    }

    /// A snapshot has no keys of debits: those that are still in their time are looked up when they are used again.
    pub fn guard_earlier_keys(
        &self,
        reader: &Reader<MemoryStorage>,
        through: Seq,
        engines: &mut [Engine],
    ) -> Result<(), LedgerError> {
        let since = engines[0].shard().keys_since(self.now);
        reader.keys_before(Seq(through.0 + 1), since, &mut |keys, accepted| {
            keys.iter().for_each(|key| engines.iter_mut().for_each(|engine| engine.forget_known(*key, accepted)));
            ControlFlow::Continue(())
        })
    }

    /// What the auditor's thread does, from where the server has started.
    pub fn audit_work(&self, reader: &Reader<MemoryStorage>, base: Option<Snapshot<MemoryFile>>) -> AuditWork<MemoryStorage> {
        AuditWork::behind(reader, base, self.settings.idempotency_ttl_ms, TABLE_SEEDS)
    }

    /// The auditor follows what was committed; whether it got to the end.
    pub fn follow(&mut self) -> bool {
        let told = self.faults().told;
        let (head, process) = (self.model.head(), self.process());
        loop {
            match process.work.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let excused = self.lied().is_some() || self.faults().told > told;
                    assert!(excused, "the auditor cannot read what was committed: {error}");
                    return false;
                }
            }
        }
        let audit = process.work.audit();
        assert_eq!((audit.broken, audit.through), (None, Seq(head)), "the auditor agrees with every entry");
        assert!(audit.snapshot <= audit.through, "a snapshot is never ahead of the ledger");
        true
    }

    /// The auditor takes a snapshot, if there is anything new.
    pub fn snapshot(&mut self, rng: &mut Rng) {
        if !self.follow() {
            return;
        }
        let before = self.process().work.audit();
        if before.through == before.snapshot {
            return;
        }
        let told = self.faults().told;
        let lies = self.faults().snapshot_lies;
        match self.process().work.snapshot(&mut |_| Pace::Piecewise) {
            Ok(()) => {
                self.coverage.count(if self.failing { "crash: behind a snapshot" } else { "snapshot: taken" });
                self.say(|| format!("took a snapshot after entry {}", before.through.0));
                self.rotten.remove(&snapshot_name(before.through));
                self.check_snapshot(before.through, before.snapshot, told);
                if self.lied().is_none() && rng.percent(20) {
                    self.check_whole(before.through);
                }
            }
            Err(SnapshotError::Rule(what)) => panic!("the snapshot finds a broken rule: {what}"),
            Err(SnapshotError::Io(error)) => {
                let excused = self.failing || self.full_until > 0 || self.faults().told > told;
                assert!(excused, "a snapshot could not be written for no reason: {error}");
                self.coverage.count("snapshot: could not be written");
            }
            Err(SnapshotError::Fault(fault)) => {
                let lied = self.lied().is_some() || self.faults().snapshot_lies > lies;
                let base_rotten = self.rotten.contains(&snapshot_name(before.snapshot));
                assert!(lied || base_rotten || self.faults().told > told, "a snapshot is damaged for no reason: {fault}");
                self.coverage.count(if base_rotten {
                    "snapshot: made from a rotten one"
                } else {
                    "snapshot: damage seen in time"
                });
                self.say(|| format!("{fault}"));
                self.check_fall_back(before.snapshot);
            }
        }
    }

    /// If the auditor has left the snapshot on which it built, it goes on from a good one before it, or from the first entry.
    fn check_fall_back(&mut self, before: Seq) {
        let now = self.process().work.audit().snapshot;
        if now == before {
            return;
        }
        assert!(now < before, "there is nothing to go back to behind entry {}", before.0);
        if now == Seq(0) {
            return self.coverage.count("audit: back to the first entry");
        }
        assert!(is_whole(&self.storage.fork(), &snapshot_name(now)), "the auditor goes on from a damaged snapshot");
        self.coverage.count("audit: back to the snapshot before");
    }

    /// What a snapshot that has its name must be: durable whatever happens now, one of at most two, and what the model says.
    fn check_snapshot(&mut self, seq: Seq, base: Seq, told: u64) {
        let durable = self.storage.crash(&mut || false).fork();
        let names = snapshots(&durable.list().unwrap());
        assert_eq!(names.first(), Some(&seq), "the newest snapshot is durable");
        assert!(names.len() <= 2 || self.failing || self.faults().told > told, "two snapshots are kept: {names:?}");
        assert!(base == Seq(0) || names.contains(&base), "the snapshot that it was made from is kept: {names:?}");
        let snapshot = Snapshot::open(&durable, &snapshot_name(seq)).expect("a snapshot that has its name is whole");
        let placed = self.model.at(seq).expect("a snapshot is of what is durable");
        let head = snapshot.head();
        assert_eq!(
            (head.root, head.batches),
            (placed.root, self.model.commits.len() as u64),
            "a snapshot names the root and the batches that it is of"
        );
        let peaks = snapshot.front().peaks.as_ref().expect("the auditor has followed from the first entry on");
        let root = self.roots.get(&peaks.size()).map(|root| root.hash);
        assert!(
            root.map_or(true, |root| root == peaks.root(LogId([7; 16]), seq)),
            "the peaks in a snapshot are those of the history"
        );
        let assets = &snapshot.front().assets;
        let sums: Vec<_> = assets.iter().map(|sums| (sums.asset.clone(), sums.issued, sums.burned, sums.held)).collect();
        assert_eq!(sums, self.model.totals(), "a snapshot numbers assets in the order of their first entries");
        let (mut values, mut nonces, mut several) = (BTreeSet::new(), BTreeMap::new(), false);
        let each = snapshot.for_each_account(&mut |state| {
            let name = state.name.as_str();
            for AssetValue { asset, free, held } in state.values {
                values.insert((name.to_owned(), assets[usize::from(*asset)].asset.clone(), free + held, *held));
            }
            several |= state.values.len() > 1;
            nonces.insert(name.to_owned(), state.last_nonce.0);
            Ok(())
        });
        each.expect("a snapshot that has its name is whole");
        let mut budgets = BTreeMap::new();
        let each = snapshot.for_each_budget(&mut |token, spent| {
            budgets.insert(token, spent);
            Ok(())
        });
        each.expect("a snapshot that has its name is whole");
        if !budgets.is_empty() {
            self.coverage.count("snapshot: with budgets");
        }
        assert_eq!((values, nonces, budgets), self.model.state(), "I-7: a snapshot has the state that the entries add up to");
        if several {
            self.coverage.count("snapshot: several assets on an account");
        }
    }

    /// I-7: the snapshot that was made from the one before it and the tail is, byte for byte, the one that the whole ledger gives.
    fn check_whole(&mut self, seq: Seq) {
        self.coverage.count("snapshot: compared with the whole ledger");
        let (name, whole) = (snapshot_name(seq), self.storage.fork());
        whole.fail_after(None);
        whole.limit_bytes(None);
        for seq in snapshots(&whole.list().unwrap()) {
            whole.remove(&snapshot_name(seq)).unwrap();
        }
        let opened = Log::open(whole.clone(), &self.options(), &mut |_, _, _| Ok(()));
        let (log, _) = opened.expect("I-7: the ledger opens without its snapshots");
        let mut work = self.audit_work(&log.reader(), None);
        while work.step().expect("I-7: the auditor reads the whole ledger") {}
        work.snapshot(&mut |_| Pace::Piecewise).expect("I-7: the whole ledger gives a snapshot");
        assert_eq!(
            bytes(&self.storage, &name),
            bytes(&whole, &name),
            "I-7: old snapshot and tail give what the whole ledger gives"
        );
    }

    /// I-7, keys included: on a copy of the ledger, some requests that were committed are made again, and some others under their keys.
    pub fn probe_keys(&mut self, rng: &mut Rng) {
        let storage = self.storage.fork();
        let cores = self.cores.len() as u16;
        let (snapshot, mut engines) = load(&storage, cores, self);
        let now = self.now;
        let opened = Log::open_after(storage, &self.options(), snapshot.as_ref(), &mut |seq, _, entry| {
            engines.iter_mut().try_for_each(|engine| engine.replay(&entry, seq, now))
        });
        let (log, _) = opened.expect("I-7: a copy of the ledger opens");
        if let Some(snapshot) = &snapshot {
            self.guard_earlier_keys(&log.reader(), snapshot.head().seq, &mut engines)
                .expect("I-7: the keys of a copy can be read");
        }
        let mut copies: Vec<Core> = engines.into_iter().map(Core::new).collect();
        self.probe(&mut copies, &log.reader(), snapshot.is_some(), rng);
    }

    /// Some probes of cores on a copy, which have started from a snapshot or not.
    pub fn probe(&mut self, copies: &mut [Core], reader: &Reader<MemoryStorage>, from_snapshot: bool, rng: &mut Rng) {
        for _ in 0..6 {
            let Some(placed) = self.model.at(Seq(rng.below(self.model.head() + 1))) else { continue };
            let probe = Probe::new(placed, self.now.max(self.model.latest), self.settings.idempotency_ttl_ms);
            let Some(probe) = probe else { continue };
            let owner = usize::from(Ring::new(copies.len() as u16).owner(probe.first.owner()).0);
            for (asked, expected) in probe.requests(copies[owner].engine.shard()) {
                let answered = answer(&mut copies[owner], &asked, reader);
                assert!(
                    expected.fits(&answered),
                    "I-12: after a start a used key is answered with {answered:?}, and was asked with {asked:?}"
                );
            }
            self.coverage.count(if from_snapshot { "probe: key behind a snapshot" } else { "probe: key after a whole replay" });
        }
    }

    /// Power loss somewhere while a snapshot is made.
    pub fn crash_in_snapshot(&mut self, rng: &mut Rng) {
        self.say(|| "power loss in a snapshot".into());
        self.coverage.count("crash: in a snapshot");
        self.storage.fail_after(Some(rng.below(10)));
        self.failing = true;
        self.snapshot(rng);
        self.failing = false;
        self.lose_power(rng);
    }

    /// Some bits of snapshots flip.
    pub fn rot_snapshot(&mut self, rng: &mut Rng) {
        let names: Vec<String> = snapshots(&self.storage.list().unwrap()).into_iter().map(snapshot_name).collect();
        if names.is_empty() {
            return;
        }
        // Some disks take both.
        let of = match rng.below(10) {
            0 | 1 => &names[..],
            2 => &names[names.len() - 1..],
            _ => &names[..1],
        };
        for name in of {
            self.storage.rot(name, rng.below(bytes(&self.storage, name).len() as u64), 1 << rng.below(8));
            self.say(|| format!("{name} rots"));
            self.coverage.count("snapshot: bit rot");
            self.rotten.insert(name.clone());
        }
    }

    /// Counts from what a server has started.
    pub fn note_beginning(&mut self, from: Option<Seq>) {
        let there: BTreeSet<Seq> = snapshots(&self.storage.list().unwrap()).into_iter().collect();
        self.coverage.count(match (from, there.last()) {
            (None, None) => "start: whole ledger, no snapshot yet",
            (None, Some(_)) => "start: whole ledger, no snapshot is good",
            (Some(from), Some(newest)) if from == *newest => "start: newest snapshot",
            (Some(_), _) => "start: the snapshot before the newest",
        });
    }
}

/// What [`World::load_engines`] does, from the snapshots in this directory.
pub fn load(storage: &MemoryStorage, cores: u16, world: &World) -> (Option<Snapshot<MemoryFile>>, Vec<Engine>) {
    let ring = Ring::new(cores);
    let mut newest = Seq(u64::MAX);
    loop {
        let budgets = Budgets::default();
        let engine = |core| Engine::new(CoreId(core), ring, world.settings, &budgets);
        let mut engines: Vec<Engine> = (0..cores).map(engine).collect();
        let found = newest_good(storage, None, newest).expect("a disk in memory can be listed");
        let Some(snapshot) = found else { return (None, engines) };
        let (head, front) = (snapshot.head(), snapshot.front());
        let loaded = engines.iter_mut().try_for_each(|engine| {
            let named = front.assets.iter().map(|sums| (Asset::new(&sums.asset).unwrap(), sums.issued));
            let assets = engine.begin_restore(named, head.seq, head.accounts as usize);
            let core = engine.core();
            snapshot.for_each_account(&mut |state| {
                if ring.owner(state.name) == core {
                    engine.restore(state, &assets);
                }
                Ok(())
            })?;
            snapshot.for_each_key(&mut |key| engine.restore_key(key, world.now))
        });
        let loaded = loaded.and_then(|()| snapshot.for_each_budget(&mut |token, spent| budgets.restore(token, spent)));
        newest = Seq(head.seq.0.saturating_sub(1));
        if loaded.is_ok() {
            return (Some(snapshot), engines);
        }
    }
}

/// Whether a snapshot is good in all its parts.
pub fn is_whole(storage: &MemoryStorage, name: &str) -> bool {
    let read = |snapshot: Snapshot<MemoryFile>| {
        snapshot.for_each_account(&mut |_| Ok(()))?;
        snapshot.for_each_key(&mut |_| ())?;
        snapshot.for_each_budget(&mut |_, _| Ok(()))
    };
    Snapshot::open(storage, name).and_then(read).is_ok()
}

/// The whole content of a file.
pub fn bytes(storage: &MemoryStorage, name: &str) -> Vec<u8> {
    let mut content = Vec::new();
    storage.fork().tamper(name, |bytes| content = std::mem::take(bytes));
    content
}
