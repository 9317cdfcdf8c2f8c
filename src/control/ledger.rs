//! The ledger as the service holds it: inside this process, on a disk or in its memory alone, or a daemon behind a socket. The choice is
//! made here and nowhere else.
use super::distant::{Distant, Stop};
use super::fault::{refused, ServiceFault};
use super::replay::{self, Interruption, Opening};
use super::service::EXIT_REPLACED;
use super::{Dep, Readiness};
use crate::config::{self, Config, LedgerDep};
use crate::domain::{Durable, LogId};
use crate::engine::Engine;
use crate::ledger::snapshot::Snapshot;
use crate::ledger::{
    AuditLedger, Auditor, Begun, Committer, DiskStorage, Disturbance, Disturbed, DisturbedWatch, LaneSender, LedgerError, Live,
    Options, Patience, RamStorage, ReadLedger, Reader, RemoteAuditor, RemoteWriter, Schedule, Scrubbing, Storage, Watch,
    WatchLedger,
};
use crate::telemetry::Publisher;
use crate::worker::unix_now;
use std::path::Path;
use std::time::Duration;

/// Time between two looks whether the ledger daemon has answered, or a signal asks for an end.
const START_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Takes every acknowledgement.
pub(super) type Deliver = Box<dyn Fn(Durable) + Send>;

/// An open ledger with its writer.
pub(super) struct Ledger {
    log_id: LogId,
    epoch: u64,
    place: Box<dyn Place>,
}

/// What the service asks of its ledger, wherever that is.
trait Place {
    fn lane(&self, lane: u16) -> LaneSender;
    fn reader(&self) -> Box<dyn ReadLedger>;
    fn watch(&self) -> Box<dyn WatchLedger>;
    fn audit(&mut self, schedule: Schedule, live: Box<dyn Live>) -> std::io::Result<()>;
    fn scrub(&mut self, scrubbing: Scrubbing) -> std::io::Result<()>;
    fn take_snapshot(&self);
    fn auditor(&self) -> Option<&dyn AuditLedger>;
    fn close(self: Box<Self>) -> Result<(), LedgerError>;
}

struct Embedded<S: Storage> {
    committer: Committer,
    reader: Reader<S>,
    watch: Watch<S>,
    disturbance: Disturbance,
    /// Where the auditor begins, until it does.
    snapshot: Option<Snapshot<S::File>>,
    auditor: Option<Auditor>,
}

struct Remote {
    log_id: LogId,
    writer: RemoteWriter,
    auditor: Option<RemoteAuditor>,
}

/// What opening the ledger came to.
pub(super) enum Opened {
    /// It is open. `conserved` says what does not add up, and what to do.
    Open {
        /// The ledger.
        ledger: Ledger,
        /// The cores with their slices.
        engines: Vec<Engine>,
        /// Whether issued less burned is what the accounts hold.
        conserved: Result<(), String>,
    },
    /// A signal asked for an end after so many entries.
    GivenUp {
        /// Entries that had been read.
        entries: u64,
    },
}

impl Ledger {
    /// Opens the configured ledger and rebuilds the engines that `fresh` makes from it, one lane for each. Once it is open, `disturbance` is
    /// what is done to it on purpose.
    pub fn open(
        config: &Config,
        fresh: &dyn Fn() -> Vec<Engine>,
        (deliver, disturbance): (Deliver, Disturbance),
        told: (&Readiness, &Publisher),
        interruption: &mut Interruption<'_>,
    ) -> Result<Opened, ServiceFault> {
        let hands = (deliver, disturbance);
        let config::Ledger { segment_bytes, memory_bytes_max, .. } = config.ledger;
        match &config.deps.ledger {
            LedgerDep::Embedded(_) if config.security.amnesia => {
                embedded(RamStorage::new(memory_bytes_max), segment_bytes, fresh, hands, interruption)
            }
            LedgerDep::Embedded(directory) => {
                let storage = DiskStorage::create(directory)
                    .map_err(refused(format!("cannot use the ledger directory {}", directory.display())))?;
                embedded(storage, segment_bytes, fresh, hands, interruption)
            }
            LedgerDep::Unix(socket) => remote(socket, config, fresh, hands, told, interruption),
        }
    }

    /// The identity of the log.
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The tenure of this process.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The sender of a lane, to be given to its core.
    pub fn lane(&self, lane: u16) -> LaneSender {
        self.place.lane(lane)
    }

    /// A handle for reading what is durable.
    pub fn reader(&self) -> Box<dyn ReadLedger> {
        self.place.reader()
    }

    /// A handle for watching it.
    pub fn watch(&self) -> Box<dyn WatchLedger> {
        self.place.watch()
    }

    /// Starts the audit, which also takes snapshots; behind a socket the daemon does that by a schedule of its own.
    pub fn audit(&mut self, schedule: Schedule, live: Box<dyn Live>) -> std::io::Result<()> {
        self.place.audit(schedule, live)
    }

    /// Has everything that is durable read again, beside the audit; behind a socket the daemon does that by settings of its own.
    pub fn scrub(&mut self, scrubbing: Scrubbing) -> std::io::Result<()> {
        self.place.scrub(scrubbing)
    }

    /// Asks for a snapshot now; behind a socket the daemon is the one to ask.
    pub fn take_snapshot(&self) {
        self.place.take_snapshot();
    }

    /// The audit, if there is one.
    pub fn auditor(&self) -> Option<&dyn AuditLedger> {
        self.place.auditor()
    }

    /// Commits everything queued and lets go of the ledger.
    pub fn close(self) -> Result<(), LedgerError> {
        self.place.close()
    }
}

impl<S: Storage> Place for Embedded<S> {
    fn lane(&self, lane: u16) -> LaneSender {
        self.committer.lane(lane)
    }

    fn reader(&self) -> Box<dyn ReadLedger> {
        Box::new(self.reader.clone())
    }

    fn watch(&self) -> Box<dyn WatchLedger> {
        Box::new(DisturbedWatch::new(self.watch.clone(), self.disturbance.clone()))
    }

    fn audit(&mut self, schedule: Schedule, live: Box<dyn Live>) -> std::io::Result<()> {
        self.auditor = Some(Auditor::spawn(&self.reader, self.snapshot.take(), schedule, Some(live))?);
        Ok(())
    }

    fn scrub(&mut self, scrubbing: Scrubbing) -> std::io::Result<()> {
        self.auditor.as_mut().map_or(Ok(()), |auditor| auditor.scrub(&self.reader, scrubbing))
    }

    fn take_snapshot(&self) {
        self.auditor.iter().for_each(Auditor::take_snapshot);
    }

    fn auditor(&self) -> Option<&dyn AuditLedger> {
        self.auditor.as_ref().map(|auditor| auditor as &dyn AuditLedger)
    }

    fn close(self: Box<Self>) -> Result<(), LedgerError> {
        // What is committed after its end is behind the snapshot.
        self.auditor.into_iter().for_each(Auditor::close);
        self.committer.close()
    }
}

impl Place for Remote {
    fn lane(&self, lane: u16) -> LaneSender {
        self.writer.lane(lane)
    }

    fn reader(&self) -> Box<dyn ReadLedger> {
        Box::new(self.writer.reader(self.log_id))
    }

    fn watch(&self) -> Box<dyn WatchLedger> {
        Box::new(self.writer.watch())
    }

    fn audit(&mut self, schedule: Schedule, live: Box<dyn Live>) -> std::io::Result<()> {
        self.auditor = Some(RemoteAuditor::spawn(self.writer.reader(self.log_id), schedule.look_every, live)?);
        Ok(())
    }

    fn scrub(&mut self, _: Scrubbing) -> std::io::Result<()> {
        Ok(())
    }

    fn take_snapshot(&self) {
        let reason = "the ledger is that of a daemon; send SIGUSR1 to ron-ledger";
        tracing::info!(event = "snapshot_not_taken", reason, "no snapshot was taken");
    }

    fn auditor(&self) -> Option<&dyn AuditLedger> {
        self.auditor.as_ref().map(|auditor| auditor as &dyn AuditLedger)
    }

    fn close(self: Box<Self>) -> Result<(), LedgerError> {
        drop(self.auditor);
        self.writer.close();
        Ok(())
    }
}

fn embedded<S: Storage>(
    storage: S,
    segment_bytes: u64,
    fresh: &dyn Fn() -> Vec<Engine>,
    (deliver, disturbance): (Deliver, Disturbance),
    interruption: &mut Interruption<'_>,
) -> Result<Opened, ServiceFault> {
    let options = Options::new(segment_bytes);
    let (mut log, recovery, snapshot, engines, conserved) =
        match replay::open(storage, &options, fresh, unix_now(), interruption)? {
            Opening::Open { log, recovery, snapshot, engines, conserved } => (log, recovery, snapshot, engines, conserved),
            Opening::GivenUp { entries } => return Ok(Opened::GivenUp { entries }),
        };
    log.allocate_ahead()?;
    let (tenure, log_id, reader, watch) = (log.tenure(), log.log_id(), log.reader(), log.watch());
    let committer = Committer::spawn(Disturbed::new(log, disturbance.clone()), tenure, engines.len() as u16, deliver)?;
    let place = Box::new(Embedded { committer, reader, watch, disturbance, snapshot, auditor: None });
    Ok(Opened::Open { ledger: Ledger { log_id, epoch: recovery.epoch, place }, engines, conserved })
}

/// Waits for the daemon, however long it takes, takes an epoch, and rebuilds the slices from what it has.
fn remote(
    socket: &Path,
    config: &Config,
    fresh: &dyn Fn() -> Vec<Engine>,
    (deliver, disturbance): (Deliver, Disturbance),
    (readiness, publisher): (&Readiness, &Publisher),
    interruption: &mut Interruption<'_>,
) -> Result<Opened, ServiceFault> {
    let end = Box::new(|_: &LedgerError| std::process::exit(EXIT_REPLACED));
    let patience = Patience { keys_ttl: config.idempotency.ttl, in_use: config.ledger.wait_in_use };
    let writer = RemoteWriter::spawn(socket, fresh().len() as u16, patience, disturbance, deliver, end)?;
    let (log_id, tenure) = loop {
        match writer.begun()? {
            Begun::Granted { log_id, tenure } => break (log_id, tenure),
            Begun::Waiting(reason, in_use) => {
                readiness.stand_by(in_use);
                readiness.down(Dep::Ledger, reason);
                readiness.publish(publisher);
                // That another wallet has the ledger is no error of a wallet that stands by for it.
                if !in_use {
                    publisher.ledger_connect_errors(writer.watch().connect_errors());
                }
            }
        }
        if interruption.look_now().is_err() {
            return Ok(Opened::GivenUp { entries: 0 });
        }
        std::thread::sleep(START_LOOK_EVERY);
    };
    readiness.stand_by(false);
    let mut distant = Distant::new(format!("unix://{}", socket.display()), readiness, interruption);
    match distant.rebuild(&writer.snapshots(log_id), &mut writer.reader(log_id), &tenure, fresh, unix_now()) {
        Ok((engines, conserved)) => {
            let place = Box::new(Remote { log_id, writer, auditor: None });
            let ledger = Ledger { log_id, epoch: tenure.epoch, place };
            Ok(Opened::Open { ledger, engines, conserved })
        }
        Err(Stop::GivenUp(entries)) => Ok(Opened::GivenUp { entries }),
        Err(Stop::Error(error)) => Err(error.into()),
    }
}
