//! A ledger daemon and its wallet's handles over a real socket: what the wallet learns of the audit.
use super::*;
use crate::domain::Seq;
use crate::domain::{LaneBatch, LogId, Nonce, Op};
use crate::ledger::comparison::DIFFERENCES_MAX;
use crate::ledger::sample::{entry, lane_batch_of, open, spends};
use crate::ledger::{Admitted, Held, Live, MemoryStorage, Schedule, Server};
use crate::ledger::{Audit, AuditLedger};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    _place: tempfile::TempDir,
}

impl Scene {
    fn new(schedule: Schedule) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket: PathBuf = place.path().join("l.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (log, ..) = open(&MemoryStorage::new(), SEGMENT).unwrap();
        let user = rustix::process::geteuid().as_raw();
        let fatal = Box::new(|error: &crate::ledger::LedgerError| panic!("{error}"));
        let server = Server::start(log, None, schedule, listener, Admitted(vec![user]), fatal).unwrap();
        let fatal = Box::new(|error: &crate::ledger::LedgerError| panic!("{error}"));
        let writer = RemoteWriter::spawn(&socket, 1, Duration::from_secs(60), Box::new(|_| ()), fatal).unwrap();
        let log_id = until("the grant", || match writer.begun().unwrap() {
            Begun::Granted { log_id, .. } => Some(log_id),
            Begun::Waiting(_) => None,
        });
        Self { server: Some(server), writer: Some(writer), log_id, _place: place }
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
    *served.0.lock().unwrap() = Held::new(Nonce(3), vec![("roc".into(), 998, 0)]);
    let told = until("the verdict", || auditor.broken());
    assert!(told.contains("account a ") && told.contains("998") && told.contains("997"), "{told}");
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
