//! A ledger daemon and its wallet's handles over a real socket: what the wallet learns of the audit.
use super::*;
use crate::domain::{KeyId, LaneBatch, LogId, Nonce, Op, Question, Seq, Totals, UnixMs, Untold};
use crate::ledger::comparison::DIFFERENCES_MAX;
use crate::ledger::disturbance::Disturbance;
use crate::ledger::sample::{entry, lane_batch, lane_batch_of, open, spends};
use crate::ledger::snapshot::{newest_good, snapshot_name, SnapshotSource};
use crate::ledger::storage::{ReadFile, Storage, StorageFile};
use crate::ledger::{segment_name, Admitted, Held, LedgerError, Live, MemoryStorage, ReadLedger, Schedule, Server};
use crate::ledger::{Audit, AuditLedger, WatchLedger};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const PATIENT: Patience = Patience { keys_ttl: Duration::from_secs(60), in_use: Duration::from_secs(60) };

/// Waits for what another thread will do soon.
fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A daemon with one wallet.
struct Scene {
    server: Option<Server<MemoryStorage>>,
    writer: Option<RemoteWriter>,
    log_id: LogId,
    storage: MemoryStorage,
    disturbance: Disturbance,
    _place: tempfile::TempDir,
}

impl Scene {
    fn new(schedule: Schedule) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket: PathBuf = place.path().join("l.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let storage = MemoryStorage::new();
        let (log, ..) = open(&storage, SEGMENT).unwrap();
        let user = rustix::process::geteuid().as_raw();
        let fatal = Box::new(|error: &crate::ledger::LedgerError| panic!("{error}"));
        let server = Server::start(log, None, schedule, listener, Admitted(vec![user]), fatal).unwrap();
        let fatal = Box::new(|error: &crate::ledger::LedgerError| panic!("{error}"));
        let disturbance = Disturbance::default();
        let writer = RemoteWriter::spawn(&socket, 1, PATIENT, disturbance.clone(), Box::new(|_| ()), fatal).unwrap();
        let log_id = until("the grant", || match writer.begun().unwrap() {
            Begun::Granted { log_id, .. } => Some(log_id),
            Begun::Waiting(..) => None,
        });
        Self { server: Some(server), writer: Some(writer), log_id, storage, disturbance, _place: place }
    }

    fn writer(&self) -> &RemoteWriter {
        self.writer.as_ref().unwrap()
    }

    fn push(&self, batch: LaneBatch) {
        self.writer().lane(0).push(batch).unwrap();
    }

    fn audit(&self, live: Box<dyn Live>) -> RemoteAuditor {
        RemoteAuditor::spawn(self.writer().reader(self.log_id), LOOK_EVERY, live).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.writer.take().into_iter().for_each(RemoteWriter::close);
        self.server.take().map(Server::stop);
    }
}

/// Cores that have `a` served as this.
#[derive(Clone)]
struct Served(Arc<Mutex<Held>>);

impl Live for Served {
    fn held(&self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        let of = |account: &str| match account {
            "a" => self.0.lock().unwrap().clone(),
            _ => Held::new(Nonce(0), vec![("roc".into(), 3, 0)]),
        };
        Some(accounts.iter().map(|account| of(account)).collect())
    }
}

/// Cores that are never free.
struct Busy;

impl Live for Busy {
    fn held(&self, _: &[Box<str>]) -> Option<Vec<Held>> {
        None
    }
}

fn issued() -> LaneBatch {
    lane_batch_of(0, 1, &[entry(Op::Issue, "", "a", 1000, 0)])
}

#[test]
fn what_the_daemon_audits_is_compared_with_what_the_wallet_serves() {
    let scene = Scene::new(Schedule { entries: 3, ..Schedule::no_snapshots() });
    let right = Held::new(Nonce(3), vec![("roc".into(), 997, 0)]);
    let served = Served(Arc::new(Mutex::new(right)));
    let auditor = scene.audit(Box::new(served.clone()));
    scene.push(issued());
    scene.push(spends(0, 2, "a", 1..4));
    let Audit { through, sums, snapshot, .. } = until("a snapshot and agreement", || {
        let audit = auditor.audit();
        let enough = audit.agreed > 2 * u64::from(DIFFERENCES_MAX) && audit.snapshot > Seq(0) && audit.through == Seq(4);
        enough.then_some(audit)
    });
    assert_eq!((through, sums[0].issued, auditor.broken()), (Seq(4), 1000, None));
    assert!(snapshot <= through);
    let totals = || scene.writer().reader(scene.log_id).findings().totals("roc", Seq(4));
    assert_eq!(totals(), Ok(Totals { issued: 1000, burned: 0, in_accounts: 1000, held: 0, through: Seq(4) }));
    *served.0.lock().unwrap() = Held::new(Nonce(3), vec![("roc".into(), 998, 0)]);
    let told = until("the verdict", || auditor.broken());
    assert!(told.contains("account a ") && told.contains("998") && told.contains("997"), "{told}");
    assert_eq!(totals(), Err(Untold::Broken), "the daemon knows nothing of it");
}

#[test]
fn a_rule_that_the_daemon_sees_broken_is_told_to_its_wallet_for_ever() {
    let mut scene = Scene::new(Schedule::no_snapshots());
    let auditor = scene.audit(Box::new(Busy));
    scene.push(issued());
    // No correct core leaves a number out.
    scene.push(spends(0, 2, "a", 1..2));
    scene.push(spends(0, 3, "a", 3..4));
    let told = until("the verdict", || auditor.broken());
    assert!(told.contains("entry 3") && told.contains("nonce"), "{told}");
    let audit = auditor.audit();
    assert_eq!((audit.through, audit.agreed), (Seq(2), 0));
    // Also when the daemon is gone, and whatever another one would say.
    scene.server.take().unwrap().stop().unwrap();
    until("some looks in vain", || (scene.writer().watch().0.trouble().is_some()).then_some(()));
    std::thread::sleep(4 * LOOK_EVERY);
    assert_eq!(auditor.broken(), Some(told));
}

#[test]
fn a_snapshot_behind_a_socket_is_read_as_it_is_on_the_disk() {
    let mut scene = Scene::new(Schedule { entries: 3, ..Schedule::no_snapshots() });
    scene.push(issued());
    scene.push(spends(0, 2, "a", 1..40));
    let source = scene.writer().snapshots(scene.log_id);
    let newest = until("a snapshot", || newest_good(&source, Some(scene.log_id), Seq(u64::MAX)).unwrap());
    let local = scene.storage.open_snapshot(newest.head().seq).unwrap();
    assert_eq!((newest.head(), newest.front()), (local.head(), local.front()));
    newest.verify().unwrap();
    // The file is held open: it can be read to its end although its name is gone.
    scene.storage.remove(&snapshot_name(newest.head().seq)).unwrap();
    newest.verify().unwrap();
    let absent = source.open_snapshot(Seq(7_000_000)).err().expect("there is none");
    assert!(absent.to_string().contains("it cannot be opened"), "{absent}");
    source.reached().expect("the daemon has answered");
    // Without a daemon nothing is known about a snapshot, and that is told once.
    scene.server.take().unwrap().stop().unwrap();
    assert!(newest.verify().is_err() && source.snapshots().is_err());
    assert!(source.reached().is_err() && source.reached().is_ok());
}

#[test]
fn what_is_longer_than_one_piece_is_read_in_several() {
    let scene = Scene::new(Schedule::no_snapshots());
    let content: Vec<u8> = (0..9_000_001u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    let file = scene.storage.create(&snapshot_name(Seq(7))).unwrap();
    file.write_at(&content, 0).unwrap();
    let file = scene.writer().snapshots(scene.log_id).file(Seq(7)).unwrap();
    assert_eq!(file.size().unwrap(), content.len() as u64);
    let mut read = vec![0; content.len() + 100];
    for (offset, expected) in [(0, content.len()), (1, content.len() - 1), (9_000_000, 1), (9_000_001, 0), (9_000_002, 0)] {
        assert_eq!(file.read_at(&mut read, offset).unwrap(), expected);
        assert!(read[..expected] == content[content.len() - expected..], "from {offset}");
    }
}

#[test]
fn the_keys_before_an_entry_are_told_as_the_ledger_has_them() {
    let scene = Scene::new(Schedule::no_snapshots());
    scene.push(issued());
    scene.push(spends(0, 2, "a", 1..40));
    let mut reader = scene.writer().reader(scene.log_id);
    until("the entries", || (reader.head() == Seq(40)).then_some(()));
    let told = |reader: &mut dyn ReadLedger, since| {
        let mut keys = Vec::new();
        let take = &mut |told: &[KeyId], accepted| {
            keys.extend(told.iter().map(|key| (*key, accepted)));
            ControlFlow::Continue(())
        };
        reader.keys_before(Seq(41), since, take).unwrap();
        keys
    };
    let remote = told(&mut reader, UnixMs(0));
    let locked = open(&scene.storage.fork(), SEGMENT).unwrap();
    assert_eq!((remote.len(), &remote), (40, &told(&mut locked.0.reader(), UnixMs(0))));
    assert_eq!(told(&mut reader, UnixMs(u64::MAX)), [], "their time is over");
}

#[test]
fn a_daemon_whose_disk_is_full_can_still_be_read() {
    let scene = Scene::new(Schedule::no_snapshots());
    scene.push(lane_batch(0, 1, 300));
    until("the entries", || (scene.writer().watch().0.head() == Seq(300)).then_some(()));
    scene.storage.limit_bytes(Some(0));
    (1..20).for_each(|batch| scene.push(lane_batch(0, 1 + batch * 300, 300)));
    let told = until("trouble", || scene.writer().watch().0.trouble());
    assert!(told.contains("no room"), "{told}");
    let found = scene.writer().reader(scene.log_id).find(&Question::At(Seq(1)));
    scene.storage.limit_bytes(None);
    assert!(found.unwrap().is_some());
}

#[test]
fn a_segment_that_cannot_be_read_is_told_and_is_no_lost_connection() {
    let scene = Scene::new(Schedule::no_snapshots());
    scene.push(lane_batch(0, 1, 300));
    until("the entries", || (scene.writer().watch().0.head() == Seq(300)).then_some(()));
    scene.storage.tamper(&segment_name(1), |bytes| bytes[8 << 10] ^= 1);
    let mut reader = scene.writer().reader(scene.log_id);
    let refused = reader.scan(Seq(1), &mut |_, _, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(&refused, LedgerError::Declined { what, .. } if what.contains("segment-0000000001.log")), "{refused}");
    let refused = reader.keys_before(Seq(301), UnixMs(0), &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(&refused, LedgerError::Declined { what, .. } if what.contains("segment-0000000001.log")), "{refused}");
}

#[test]
fn an_error_of_the_socket_says_what_to_do_about_it() {
    let told = |kind: ErrorKind| super::reader::not_reached(&std::io::Error::from(kind));
    let refused = told(ErrorKind::PermissionDenied);
    assert!(refused.contains("the user of ron-ledger") && refused.contains("--allow-uid"), "{refused}");
    assert!(!refused.contains("runs there"), "{refused}");
    for silent in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
        let silent = told(silent);
        assert!(silent.starts_with("connected, but it has not answered within 10 s: it hangs or is stopped"), "{silent}");
    }
    for gone in [ErrorKind::NotFound, ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset] {
        assert!(told(gone).ends_with("; see whether ron-ledger runs there and what it logs"), "{gone}");
    }
}

#[test]
fn a_ledger_that_is_late_or_out_of_reach_on_purpose_gets_each_batch_once_and_in_its_order() {
    let scene = Scene::new(Schedule::no_snapshots());
    let (watch, mut reader) = (scene.writer().watch(), scene.writer().reader(scene.log_id));
    scene.push(lane_batch(0, 1, 2));
    until("the first batch", || (watch.head() == Seq(2)).then_some(()));
    assert!(reader.find(&Question::At(Seq(1))).unwrap().is_some() && watch.trouble().is_none());
    let errors = watch.connect_errors();
    scene.disturbance.set(Duration::from_secs(3_600), false);
    (1..40).for_each(|number| scene.push(lane_batch(0, 2 * number + 1, 2)));
    scene.disturbance.set(Duration::ZERO, true);
    // It is known at once, whatever the thread of the link does.
    assert!(watch.trouble().is_some_and(|trouble| trouble.contains("a fault is injected")));
    let unreachable = reader.find(&Question::At(Seq(1)));
    assert!(matches!(unreachable, Err(LedgerError::Unreachable { .. })), "{unreachable:?}");
    until("the connection is cut", || (watch.connect_errors() > errors).then_some(()));
    assert!(watch.head() < Seq(80), "what is late has not arrived");
    scene.disturbance.set(Duration::ZERO, false);
    until("all batches", || (watch.head() == Seq(80)).then_some(()));
    until("it can be written", || watch.trouble().is_none().then_some(()));
    let mut accounts = Vec::new();
    let mut note = |_, _: &crate::domain::Root, entry: crate::domain::Entry<'_>| {
        accounts.push(entry.to().expect("an issue credits").as_str().to_owned());
        ControlFlow::Continue(())
    };
    reader.scan(Seq(1), &mut note).unwrap();
    assert_eq!(accounts, (1..=80).map(|number| format!("l0/{number}")).collect::<Vec<_>>());
}
